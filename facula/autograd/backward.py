"""`backward` and `grad`: what users call, and the memory of how it went last time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.autograd.engine import Pass
from facula.errors import GradientError, ShapeError
from facula.graph import record as _record
from facula.graph.garbage import collects, pause, resume
from facula.graph.record import LOCK, Edge, Graph, Node, Recorder, _local
from facula.tensor import Tensor, prim

__all__ = ["backward", "grad"]

_new = object.__new__

Tensors = Tensor | Sequence[Tensor]


def backward(tensors: Tensors, grad_tensors: Any = None, retain_graph: bool | None = None,
             create_graph: bool = False, inputs: Tensors | None = None) -> None:
    """Add the gradient of `tensors` to the `.grad` of the leaves they were computed from.

    `grad_tensors` has the shapes of `tensors`; it may be left out for tensors of one element.
    Raises GradientError where there is no gradient or the graph was freed, ShapeError for a
    gradient of another shape, StaleTensorError where a saved value was overwritten.
    """
    roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    seeds = _listed(grad_tensors, len(roots))
    rec = _local.rec
    if rec.whole:
        raise GradientError(
            "backward() called inside a functorch transform. This is not supported, please use "
            "facula.func.grad or facula.func.vjp instead or call backward() outside of functorch "
            "transforms.")
    with LOCK:
        if rec.packing is not None:
            _record.flush(rec)              # what is saved is packed, and only then read
        if inputs is None and not create_graph and len(roots) == 1 and seeds[0] is None \
                and rec.watch is None:
            if _follow(rec, roots[0], bool(retain_graph)):
                return
        keep = create_graph if retain_graph is None else retain_graph
        run = Pass(rec, create_graph, keep)
        wanted = None if inputs is None else _listed(inputs, 1)
        if wanted is not None:
            run.wanted = {id(t) for t in wanted if t._leaf}
            for t in wanted:
                t._fresh()
                place = _place(t)
                if not t._leaf and place is not None:
                    run.captured[place] = None
        graph, start = rec.graph, rec.graph.state
        leaves = len(graph.leaves)
        single = len(roots) == 1 and seeds[0] is None and inputs is None and not create_graph
        root = roots[0]._node.at[1] if single else -1
        _seed(run, roots, seeds)
        _go(run)
        if single and run.pure and rec.graph is graph and len(graph.leaves) == leaves:
            _learn(rec, graph, start, root, run)
        if wanted is None:
            for leaf, _, g in list(run.leaves.values()):
                accumulate(rec, leaf, g, create_graph)
            return
        for t in wanted:
            g2 = _result(run, t)
            if g2 is not None:
                accumulate(rec, t, g2, create_graph)


def _go(run: Pass) -> None:
    """All of a pass, from its seeds to the leaves."""
    waits = collects()
    try:
        pause()
        run.run()
    finally:
        if waits:
            resume()
    run.free()


def grad(outputs: Tensors, inputs: Tensors, grad_outputs: Any = None,
         retain_graph: bool | None = None, create_graph: bool = False,
         only_inputs: bool = True, allow_unused: bool | None = None,
         is_grads_batched: bool = False, materialize_grads: bool = False
         ) -> tuple[Tensor | None, ...]:
    """The gradients of `outputs` with respect to `inputs`, one per input; `.grad` is untouched.

    Raises GradientError for an input that was not used, unless `allow_unused` (then None) or
    `materialize_grads` (then zeros).
    """
    roots = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    seeds = _listed(grad_outputs, len(roots))
    if is_grads_batched:
        parts = [grad(roots, wanted, [None if s is None else s[i] for s in seeds], True,
                      create_graph, True, allow_unused, False, materialize_grads)
                 for i in range(seeds[0].shape[0])]
        from facula.ops.shape import stack  # type: ignore[import-not-found]
        return tuple([None if p[0] is None else stack(p) for p in zip(*parts)])
    rec = _local.rec
    with LOCK:
        if rec.packing is not None:
            _record.flush(rec)
        run = Pass(rec, create_graph, create_graph if retain_graph is None else retain_graph)
        run.wanted = {id(t) for t in wanted if t._leaf}
        for t in wanted:
            t._fresh()
            if not t._rg:
                raise GradientError("One of the differentiated Tensors does not require grad")
            place = _place(t)
            if not t._leaf and place is not None:
                run.captured[place] = None
        _seed(run, roots, seeds)
        _go(run)
        results: list[Tensor | None] = []
        for t in wanted:
            g = _result(run, t)
            if g is None:
                if materialize_grads:
                    g = _full(t, 0.0)
                elif not allow_unused:
                    raise GradientError(
                        "One of the differentiated Tensors appears to not have been used in the "
                        "graph. Set allow_unused=True if this is the desired behavior.")
            results.append(g)
        return tuple(results)


def _listed(value: Any, count: int) -> list[Any]:
    if value is None:
        return [None] * count
    return [value] if isinstance(value, Tensor) else list(value)


def _place(t: Tensor) -> tuple[Graph, int] | None:
    """Where the engine meets the value of a tensor that was computed."""
    node = t._node
    graph, index = node.at
    if node.value is None and graph is not None and not graph.sealed:
        return graph, index
    if node.origin is not None and len(node.origin) == 2:
        return node.origin                                  # type: ignore[no-any-return]
    return None


def _result(run: Pass, t: Tensor) -> Tensor | None:
    if t._leaf:
        entry = run.leaves.get(id(t))
        return None if entry is None else entry[2]
    for (graph, index), g in run.captured.items():
        if _place(t) == (graph, index):
            return g                                        # type: ignore[no-any-return]
    return None


def _full(t: Tensor, value: float) -> Tensor:
    spec = t._node.spec
    return prim("full", attrs=(complex(value) if spec.dtype.kind == "c" else value,),
                shape=spec.shape, dtype=spec.dtype)


def _seed(run: Pass, roots: list[Tensor], seeds: list[Any]) -> None:
    for t, s in zip(roots, seeds):
        if s is None:
            if t.numel() != 1:
                raise GradientError("grad can be implicitly created only for scalar outputs; "
                                    f"this one has shape {list(t.shape)}: reduce it (.sum(), "
                                    ".mean()) or pass a gradient of that shape")
            if t.dtype.kind not in "fc":
                raise GradientError("grad can be implicitly created only for real scalar outputs "
                                    f"but got {t.dtype.name}")
            s = _full(t, 1.0)
        elif tuple(s.shape) != tuple(t.shape):
            raise ShapeError(f"Mismatch in shape: grad_output has a shape of {list(s.shape)} and "
                             f"output has a shape of {list(t.shape)}.")
        elif s.dtype is not t.dtype:
            s = prim("cast", s, dtype=t.dtype)
        else:
            # A `.grad` that the seed becomes is a value of its own, not the caller's tensor.
            s = prim("alias", s)
        run.seed(t, s)


def accumulate(rec: Recorder, leaf: Tensor, g: Tensor, create_graph: bool) -> None:
    """Add a gradient to a tensor's `.grad`."""
    if leaf._hooks:
        for hook in list(leaf._hooks.values()):
            changed = hook(g)
            if changed is not None:
                g = prim("alias", changed)
    before = leaf._grad
    if before is None:
        # Two leaves may be given the very same gradient; each gets a value of its own.
        if not create_graph and (g._storage is not None or g._node.value is not None
                                 or getattr(g, "_taken", False)):
            g = prim("alias", g)
        g._taken = True                                     # type: ignore[attr-defined]
        leaf._grad = g
    elif create_graph:
        leaf._grad = prim("add", before, g)
    else:
        mode, rec.grad = rec.grad, False
        before._write(prim("add", before, g), "gradient accumulation")
        rec.grad = mode
    hooks = leaf._post_hooks
    if hooks:
        for hook in list(hooks.values()):
            hook(leaf)


# ---------------------------------------------------------------- the pass as an edge of the trie

def _learn(rec: Recorder, graph: Graph, start: Any, root: int, run: Pass) -> None:
    """Remember where a pass through the pending graph led, which its structure decides."""
    outs = []
    places = {id(node): i for i, node in graph.leaf_nodes.items()}
    for leaf, node, g in run.leaves.values():
        at = g._node.at
        if g._node.value is not None or at[0] is not graph or id(node) not in places:
            return
        outs.append((places[id(node)], at[1], g._node.spec))
    freed = frozenset().union(*run.visited.values()) if not run.retain_graph else frozenset()
    edge = Edge(graph.state, outs=tuple(outs), pack=(frozenset(run.saved), freed))
    rec.link(start, ("backward", root, run.retain_graph), edge)


def _follow(rec: Recorder, root: Tensor, retain: bool) -> bool:
    """Take the pass that an equal graph took before, if nothing stands against it."""
    root._fresh()
    node = root._node
    graph = rec.graph
    if node.at[0] is not graph or node.value is not None:
        return False
    if graph.functions or graph.hooks or not root._rg:
        return False
    edge = graph.state.edges.get(("backward", node.at[1], retain))
    if edge is None:
        return False
    saved, freed = edge.pack
    nodes = graph.leaf_nodes
    if graph.stale and not saved.isdisjoint(graph.stale):
        return False
    leaves = []
    for index, at, spec in edge.outs or ():
        leaf_node = nodes[index]
        leaf = leaf_node.leaf() if leaf_node.leaf is not None else None
        if leaf is None or not leaf._leaf:
            return False
        leaves.append((leaf, at, spec))
    for index in saved:
        read = nodes.get(index)
        if read is not None and read.stale is not None:
            return False
    graph.state = edge.state
    if freed:
        graph.freed = freed if not graph.freed else graph.freed | freed
    handles = graph.handles
    made = []
    seen: set[int] = set()
    for leaf, at, spec in leaves:
        g = _new(Tensor)
        g._node = n = _new(Node)
        n.at = (graph, at)
        n.spec = spec
        handles.append(n)
        if at in seen:
            g._taken = True                                 # type: ignore[attr-defined]
        elif leaf._grad is None and leaf._hooks is None and leaf._post_hooks is None:
            g._taken = True                                 # type: ignore[attr-defined]
            leaf._grad = g
            seen.add(at)
            continue
        seen.add(at)
        made.append((leaf, g))
    for leaf, g in made:
        accumulate(rec, leaf, g, False)
    return True
