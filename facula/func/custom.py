"""Custom functions (`autograd.Function`) in traces: their calls are carried over, too.

A call of a custom function leaves the steps of its `forward`, for values, and a mark on its
results that their gradients go to its `backward`.  Outside of a trace the mark has to be set
anew, on a call whose context holds the values there; outside of `vmap` its `backward` is mapped,
too, over the values and gradients of all examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.autograd.function import Call, FunctionCtx, version
from facula.func.tree import flatten, tree_map
from facula.graph.record import Node, _local
from facula.ops.primitive.rules import expand, reshape, sum_
from facula.tensor import Tensor, make, prim

__all__ = ["carry", "links"]


def _context_tensors(call: Call) -> list[Tensor]:
    """Everything the context of a call holds, in order."""
    ctx = call.ctx
    return [t for v in ctx.__dict__.values() for t in flatten(v)[0] if isinstance(t, Tensor)]


def links(trace: Any, values: bool = False) -> dict[int, list[int]]:
    """For each result of a custom function the places it depends on besides its step's operands.

    Those of the tensors it was given; with `values` of all that its context holds, too.
    """
    found = {}
    for index, (call, _) in trace.graph.functions.items():
        nodes: list[Node | None] = list(call.inputs)
        if values:
            nodes += [t._node for t in _context_tensors(call)]
        places = [trace.where(n) for n in nodes if n is not None]
        found[index] = [p for p in places if p is not None and p != index]
    return found


def carry(trace: Any, i: int, values: dict[int, Tensor], batched: set[int] | None = None
          ) -> Tensor:
    """The result number i of a trace outside, with the mark of the custom function it came of.

    `values` are the tensors outside by place, `batched` which of them are whole batches.  All
    results of the call are carried over at once: its context may hold any of them.
    """
    if i in values:
        return values[i]
    rec = _local.rec
    call, _ = trace.graph.functions[i]
    steps = trace.graph.path()
    sources = {p: values[steps[p].inputs[0]] for p in call.places if steps[p].inputs[0] in values}
    many = batched is not None and any(steps[p].inputs[0] in batched for p in sources)
    if many:
        assert batched is not None
        for p, source in sources.items():
            if steps[p].inputs[0] not in batched:
                shape = tuple(source.shape)
                sources[p] = expand(reshape(source, (1, *shape)), (trace.size, *shape))
        batched.update(sources)
    inputs = [None if p is None else values.get(p)
              for p in [None if n is None else trace.where(n) for n in call.nodes]]
    linked = rec.grad and any(t is not None and t._rg for t in inputs)
    if not linked and not rec.forward:
        values.update({p: prim("alias", make(t._node)) for p, t in sources.items()})
        return values[i]
    for p, source in sources.items():
        # As in `autograd.function.wrap`: a step that is kept, for what is made again has no mark.
        values[p] = prim("graft", make(source._node, linked), make(source._node))
    nodes = [t._node if t is not None and t._rg else None for t in inputs]
    if many:
        assert batched is not None
        mapped = [n is not None and trace.where(n) in batched for n in call.inputs]
        cls = _Mapped(call.cls, call.ctx, trace, values, batched, mapped)
        new = Call(cls, cls.held, nodes, len(call.specs))
    else:
        new = Call(call.cls, _swapped(call.ctx, trace, values), nodes, len(call.specs))
    new.inputs = [_outside(trace, n, values) for n in call.inputs]
    for p in sources:
        graph, index = values[p]._node.at
        assert graph is not None
        k = trace.graph.functions[p][1]
        graph.functions[index] = (new, k)
        new.places.append(index)
        new.specs[k] = values[p]._node.spec
    return values[i]


def _outside(trace: Any, node: Node | None, values: dict[int, Tensor]) -> Node | None:
    if node is None:
        return None
    place = trace.where(node)
    return values[place]._node if place in values else node


def _moved(t: Any, trace: Any, values: dict[int, Tensor]) -> Any:
    """A tensor of the trace as the one outside; anything else as it is."""
    if not isinstance(t, Tensor) or t._node.at[0] is not trace.graph:
        return t
    found = values[t._node.at[1]]
    return found if t._rg else make(found._node)


def _with(ctx: FunctionCtx, replace: Any) -> FunctionCtx:
    """A copy of a context with its tensors replaced."""
    new = object.__new__(type(ctx))
    for name, value in ctx.__dict__.items():
        if name in ("_saved", "_forward") and value is not None:
            value = _noted([replace(t) for t, _ in value])
        else:
            value = tree_map(replace, value)
        new.__dict__[name] = value
    return new


def _noted(tensors: Sequence[Any]) -> list[tuple[Any, int]]:
    return [(t, -1 if t is None else version(t)) for t in tensors]


def _swapped(ctx: FunctionCtx, trace: Any, values: dict[int, Tensor]) -> FunctionCtx:
    return _with(ctx, lambda t: _moved(t, trace, values))


class _Mapped:
    """A custom function of one example, outside of the `vmap` it was called in.

    `held` is its context: what that of the one example, `ctx`, holds, for all examples.
    """

    def __init__(self, cls: Any, ctx: FunctionCtx, trace: Any, values: dict[int, Tensor],
                 batched: set[int], inputs: Sequence[bool]):
        self.cls = cls
        self.__name__ = cls.__name__
        self.ctx = ctx
        self.inputs = inputs
        self.size = trace.size
        self.randomness = trace.randomness
        self.places: dict[int, int] = {}            # of the tensors in the context, by identity
        kept: list[Tensor] = []
        self.dims: list[int | None] = []

        def note(t: Any) -> Any:
            if isinstance(t, Tensor) and id(t) not in self.places:
                self.places[id(t)] = len(kept)
                kept.append(_moved(t, trace, values))
                inside = t._node.at[0] is trace.graph and t._node.at[1] in batched
                self.dims.append(0 if inside else None)
            return t
        _with(ctx, note)
        self.held = FunctionCtx()
        self.held._saved = _noted(kept)
        self.held._materialize = ctx._materialize

    def one(self, tensors: Sequence[Tensor]) -> FunctionCtx:
        """The context of one example, which holds these."""
        return _with(self.ctx, lambda t: tensors[self.places[id(t)]]
                     if isinstance(t, Tensor) else t)

    def backward(self, ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        """The gradients of the whole batch; summed for inputs that all examples share."""
        from facula.func.batching import vmap
        returned: list[bool] = []
        kept = ctx.saved_tensors
        count = len(kept)
        given = [g for g in gradients if isinstance(g, Tensor)]

        def one(*tensors: Tensor) -> Any:
            parts = iter(tensors[count:])
            result = self.cls.backward(self.one(tensors[:count]),
                                       *[next(parts) if isinstance(g, Tensor) else g
                                         for g in gradients])
            result = result if isinstance(result, (tuple, list)) else (result,)
            returned[:] = [isinstance(r, Tensor) for r in result]
            return tuple([r for r in result if isinstance(r, Tensor)])

        dims = (*self.dims, *[0] * len(given))
        found = iter(vmap(one, in_dims=dims, randomness=self.randomness)(*kept, *given))
        out = []
        for k, is_tensor in enumerate(returned):
            g = next(found) if is_tensor else None
            if g is not None and k < len(self.inputs) and not self.inputs[k]:
                g = sum_(g, (0,))
            out.append(g)
        return tuple(out)

    def jvp(self, ctx: Any, *tangents: Any) -> Any:
        """The tangents of the whole batch."""
        from facula.func.batching import vmap
        kept = ctx.saved_tensors
        count = len(kept)
        given = [t for t in tangents if isinstance(t, Tensor)]
        which = [self.inputs[k] for k, t in enumerate(tangents) if isinstance(t, Tensor)]
        def one(*tensors: Tensor) -> Any:
            parts = iter(tensors[count:])
            mine = self.one(tensors[:count])
            if mine._forward is not None:
                mine._saved = mine._forward
            result = self.cls.jvp(mine, *[next(parts) if isinstance(t, Tensor) else t
                                          for t in tangents])
            return result

        dims = (*self.dims, *[0 if w else None for w in which])
        return vmap(one, in_dims=dims, randomness=self.randomness)(*kept, *given)
