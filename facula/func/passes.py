"""Derivatives within a trace: gradients backwards, tangents forwards.

Both record what they compute in the trace itself, behind what the function has recorded, so that
one plan carries over results and derivatives together and what neither needs is never computed.
Like every other recording, a pass is remembered by the state it began at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.autograd.engine import Pass
from facula.autograd.rules import Context
from facula.func.custom import links
from facula.func.trace import Trace, dependents
from facula.graph.record import Edge, Graph, Node
from facula.graph.spec import Step
from facula.ops.table import PRIMS
from facula.tensor import DETACHED, Tensor, make, prim

__all__ = ["pull", "push"]


class _Inside(Pass):
    """A backward pass that ends at chosen places of one trace."""

    def __init__(self, trace: Trace, wanted: Sequence[int]):
        super().__init__(trace, True, True)
        self.graph = trace.graph
        self.steps = self.graph.path()
        extra = links(trace) if self.graph.functions else None
        self.relevant = dependents(self.steps, wanted, gradient=True, extra=extra)
        for index in wanted:
            self.captured[self.graph, index] = None

    def leave(self, node: Node, gradient: Tensor) -> None:
        """Values from outside the trace are no business of this pass."""

    def arrive(self, graph: Graph, index: int, gradient: Tensor) -> None:
        if graph is self.graph and index in self.relevant:
            super().arrive(graph, index, gradient)


def pull(trace: Trace, outs: Sequence[int], seeds: Sequence[Tensor], wanted: Sequence[int]
         ) -> list[Tensor | None]:
    """The gradients at the places `wanted` of what `seeds` weigh at the places `outs`.

    None where nothing depends on it.  Raises StaleTensorError where a value that is needed was
    overwritten in place.
    """
    graph = trace.graph
    plain = not graph.functions and not graph.hooks
    start = graph.state
    key = ("pull", tuple(outs), tuple([(trace.index(s), s._rg) for s in seeds]), tuple(wanted))
    edge = start.edges.get(key) if plain else None
    if edge is not None and _untouched(graph, edge.pack):
        graph.state = edge.state
        return _handles(graph, edge)
    entered = len(graph.leaves)
    run = _Inside(trace, wanted)
    for index, seed in zip(outs, seeds):
        run.arrive(graph, index, seed)
    run.run()
    found = [run.captured[graph, index] for index in wanted]
    if plain and len(graph.leaves) == entered:
        start.edges[key] = Edge(graph.state, outs=tuple(
            [None if g is None else (trace.index(g), g._node.spec, g._rg) for g in found]),
            pack=frozenset(run.saved))
    return found


def _untouched(graph: Graph, saved: frozenset[int]) -> bool:
    """Has none of the values that a pass reads been overwritten?"""
    if graph.stale and not saved.isdisjoint(graph.stale):
        return False
    for index in saved:
        node = graph.leaf_nodes.get(index)
        if node is not None and node.stale is not None:
            return False
    return True


def _handles(graph: Graph, edge: Edge) -> list[Tensor | None]:
    return [None if item is None else make(graph.handle(item[0], item[1]), item[2])
            for item in edge.outs or ()]


def push(trace: Trace, outs: Sequence[int], inputs: Sequence[int], tangents: Sequence[Tensor]
         ) -> list[Tensor | None]:
    """The tangents at the places `outs` where those at the places `inputs` are `tangents`.

    None where nothing depends on the inputs.  Raises NotImplementedError where an operation has
    no forward derivative.
    """
    graph = trace.graph
    plain = not graph.functions
    start = graph.state
    key = ("push", tuple(outs), tuple(inputs),
           tuple([(trace.index(t), t._rg) for t in tangents]))
    edge = start.edges.get(key) if plain else None
    if edge is not None:
        graph.state = edge.state
        return _handles(graph, edge)
    entered = len(graph.leaves)
    steps = start.path()
    known: dict[int, Tensor | None] = dict(zip(inputs, tangents))
    extra = links(trace) if graph.functions else {}
    needed = _ancestors(steps, outs, extra)
    grad, trace.grad = trace.grad, True
    amp = trace.amp
    if amp is not None:
        trace.set_amp(None)             # tangents have the dtypes that the values have
    if plain:
        trace.depth += 1
    try:
        for i in sorted(needed.intersection(dependents(steps, inputs, extra=extra))):
            if i not in known:
                known[i] = _tangent(trace, steps, i, known)
    finally:
        trace.grad = grad
        if plain:
            trace.depth -= 1
        if amp is not None:
            trace.set_amp(amp)
    found = [known.get(i) for i in outs]
    if plain and len(graph.leaves) == entered:
        start.edges[key] = Edge(graph.state, outs=tuple(
            [None if t is None else (trace.index(t), t._node.spec, t._rg) for t in found]))
    return found


def _ancestors(steps: list[Step], outs: Sequence[int], extra: dict[int, list[int]]) -> set[int]:
    found: set[int] = set()
    todo = list(outs)
    while todo:
        i = todo.pop()
        if i not in found:
            found.add(i)
            todo.extend(extra[i] if i in extra else steps[i].inputs)
    return found


def _tangent(trace: Trace, steps: list[Step], i: int, known: dict[int, Tensor | None]
             ) -> Tensor | None:
    """The tangent of one step, from those of its operands."""
    graph = trace.graph
    step = steps[i]
    call = graph.functions.get(i)
    if call is not None:
        return call[0].forward(trace, known, call[1])       # type: ignore[no-any-return]
    if step.spec.dtype.kind not in "fc" or (step.op == "alias" and step.attrs == DETACHED):
        return None
    if step.op == "graft":
        return known.get(step.inputs[1])
    tangents = tuple([known.get(j) for j in step.inputs])
    if all(t is None for t in tangents):
        return None
    record = PRIMS[step.op]
    if record.jvp is None:
        if record.vjp is None:
            raise NotImplementedError(
                f"Trying to use forward AD with {step.op} that does not support it because it "
                f"has not been implemented yet (at {step.where or 'a line that is not known'})")
        from facula.ops.primitive.matrix.forward import from_backward
        rule: Any = from_backward(record.vjp)
    else:
        rule = record.jvp

    # Under no_grad() a tangent flows on, but is a constant for gradients.
    trace.grad = all(t is None or step.mask >> k & 1 or not (steps[j].mask or j in trace.linked)
                     for k, (j, t) in enumerate(zip(step.inputs, tangents)))

    def value(j: int, linked: bool) -> Tensor:
        return make(Node((graph, j), steps[j].spec), linked)

    needs = tuple([bool(step.mask >> k & 1) for k in range(len(step.inputs))])
    inputs = tuple([value(j, needs[k]) for k, j in enumerate(step.inputs)])
    c = Context(inputs, value(i, step.mask != 0), step.attrs, needs)
    found: Tensor = rule(c, tangents)
    if found._node.spec is not step.spec:
        found = prim("cast", found, dtype=step.spec.dtype)
    return found
