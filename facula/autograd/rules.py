"""A gradient rule applied to one step, as one edge of the trie.

Like a call of a public operation: the rule runs once for a kind of step with operands of certain
specs; where the same comes again it is looked up, or entered from its template, at any place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from facula.errors import user_line
from facula.graph import record as _record
from facula.graph.record import Edge, Graph, Node
from facula.graph.spec import Step
from facula.graph.template import Table, Template, alike, cut
from facula.tensor import Tensor, make

if TYPE_CHECKING:
    from facula.autograd.engine import Pass

__all__ = ["Context", "followed", "places_of", "entered", "along", "outputs"]


class Context:
    """What a gradient rule is given: the step's inputs, result, attributes, and who needs what."""

    __slots__ = ("inputs", "out", "attrs", "needs")

    def __init__(self, inputs: tuple[Tensor, ...], out: Tensor, attrs: tuple[Any, ...],
                 needs: tuple[bool, ...]):
        self.inputs = inputs
        self.out = out
        self.attrs = attrs
        self.needs = needs


class _Rule:
    """The gradient rule of a step of one kind with operands of certain specs.

    `reads` has the numbers of the inputs that it reads, -1 for the result.  `templates` has what
    it records, by which of the operands gradients flow through.
    """

    __slots__ = ("reads", "templates")

    def __init__(self, step: Step):
        from facula.ops.table import PRIMS
        saves = PRIMS[step.op].reads(step.attrs, step.mask)
        count = len(step.inputs)
        reads = [k for k in range(count) if "all" in saves or f"in{k}" in saves]
        self.reads = (*reads, -1) if "out" in saves else tuple(reads)
        self.templates: dict[Any, Template] = {}


_rules = Table(4096)


def followed(way: Pass, graph: Graph, steps: list[Step], index: int, pending: bool,
             gradient: Tensor, given: dict[int, Tensor] | None = None
             ) -> list[tuple[int, Tensor]]:
    """The gradients of a step's inputs, each with the number of its input.

    `given` are values of the graph that have been found already.
    """
    rec = way.rec
    step = steps[index]
    mask = step.mask
    like = (step.op, step.attrs, *map(type, step.attrs), mask, step.spec,
            *[steps[j].spec for j in step.inputs])
    rule = _rules.get(like)
    if rule is None:
        rule = _Rule(step)
        _rules.keep(like, rule)
    # The operands: the gradient and what the rule reads, which enters the graph first.
    operands = [gradient]
    for k in rule.reads:
        j = index if k < 0 else step.inputs[k]
        way.check(graph, steps, j, index)
        operands.append(way.value(graph, steps, j, pending,
                                  True if k < 0 else bool(mask >> k & 1), given))
    places = places_of(way, operands)
    here = rec.graph
    start = here.state
    key = (rule, *places)
    edge = start.edges.get(key)
    if edge is None:
        flows = alike(places)
        template = rule.templates.get(flows)
        if template is None:
            return _applied(way, rule, flows, key, steps, index, operands)
        edge = entered(way, template, places)
        rec.link(start, key, edge)
    return along(way, edge)


def _applied(way: Pass, rule: _Rule, flows: Any, key: Any, steps: list[Step], index: int,
             operands: list[Tensor]) -> list[tuple[int, Tensor]]:
    """`followed` where the rule has to be run; it is remembered if it can be."""
    from facula.ops.table import PRIMS
    rec = way.rec
    step = steps[index]
    values = dict(zip(rule.reads, operands[1:]))
    inputs = tuple([values[k] if k in values else make(Node((None, -1), steps[j].spec))
                    for k, j in enumerate(step.inputs)])
    out = values[-1] if -1 in values else make(Node((None, -1), step.spec))
    c = Context(inputs, out, step.attrs,
                tuple([bool(step.mask >> k & 1) for k in range(len(inputs))]))
    vjp = PRIMS[step.op].vjp
    assert vjp is not None
    graph, start, leaves = rec.graph, rec.graph.state, len(rec.graph.leaves)
    rec.depth += 1
    try:
        parts = vjp(c, operands[0])
    finally:
        rec.depth -= 1
    found = [(k, part) for k, part in enumerate(parts)
             if part is not None and step.mask >> k & 1]
    outs = outputs(graph, found) if rec.graph is graph and len(graph.leaves) == leaves else None
    if outs is not None:
        pack = tuple([k for k, _ in found])
        template = cut(rec, start, graph.state, key[1:], outs, pack)
        if template is not None:
            rule.templates[flows] = template
            edge = Edge(graph.state, outs=outs, pack=pack)
            rec.link(start, key, edge)
            del parts, found            # their handles would come in another order
            return along(way, edge)
    if graph.state.count > _record.MAX_STEPS and not rec.depth:
        _record.flush(rec)
    return found


# ---------------------------------------------------------------- edges

def places_of(way: Pass, operands: list[Tensor]) -> list[int]:
    """Where they stand in the pending graph, ~place where a gradient is to flow through.

    `facula.tensor.prim` and `facula.ops.define` have the same loop in line, which spares each
    recorded operation a call.
    """
    rec = way.rec
    places = []
    for t in operands:
        storage = t._storage
        if storage is not None and storage.version != t._version:
            t._sync()
        node = t._node
        owner, i = node.at
        if owner is not rec.graph:
            i = rec.adopt(node)
        places.append(~i if t._rg and rec.grad else i)
    return places


def entered(way: Pass, template: Template, places: list[int]) -> Edge:
    """The edge from here for what `template` holds, with operands at `places`."""
    if way.where is None:
        way.where = user_line() or ""
    return template.enter(way.rec, places, way.where or None)


def along(way: Pass, edge: Edge) -> list[tuple[int, Tensor]]:
    """Follow an edge; what it gives, each with its number in the edge's `pack`."""
    rec = way.rec
    graph = rec.graph
    graph.state = edge.state
    found = [(k, make(graph.handle(out[0], out[1]), out[2]))
             for k, out in zip(edge.pack, edge.outs or ())]
    if edge.state.count > _record.MAX_STEPS and not rec.depth:
        _record.flush(rec)
    return found


def outputs(graph: Graph, found: list[tuple[int, Tensor]]) -> tuple[Any, ...] | None:
    """Numbered tensors as the `outs` of an edge; None if one of them is no plain value of the
    pending graph."""
    for _, t in found:
        if t._storage is not None or t._node.at[0] is not graph:
            return None
    return tuple([(t._node.at[1], t._node.spec, t._rg) for _, t in found])
