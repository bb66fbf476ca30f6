"""A backward pass through a graph that has been run, as one edge of the trie.

Where values are asked for on the way (an action drawn from a policy), a loss hangs on many small
graphs that have been run one by one, and most have the same steps.  What the pass records for one
depends on its steps, on where gradients arrive and on which values it kept; so it is recorded
once, and for the next graph of these steps entered anew with that graph's values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from facula.autograd.rules import along, entered, followed, outputs, places_of
from facula.graph import record as _record
from facula.graph.record import Edge, Graph, Node
from facula.graph.spec import Step
from facula.graph.template import Table, Template, alike, cut
from facula.runtime.allocator import Buffer
from facula.tensor import Tensor, make, prim

if TYPE_CHECKING:
    from facula.autograd.engine import Pass

__all__ = ["Sweep", "sweep", "swept", "kept_at"]

MAX_SWEEPS = 64
MAX_LENGTH = 256
"""Of the steps of one graph that gradients reach; the template is several times as long."""


class Sweep:
    """A pass through the graphs of certain steps.

    `waiting` are the steps that gradients may reach, from the last to the first, and `reached`
    those whose rules have been applied; `kept` the values that the rules read, or from which what
    they read is made again.  `templates` has what is recorded, by which operands are the same.
    """

    __slots__ = ("steps", "waiting", "reached", "kept", "templates")

    def __init__(self, steps: list[Step], waiting: list[int], kept: list[int]):
        self.steps = steps                      # held, so that nothing else gets their id
        self.waiting = waiting
        self.reached: list[int] = []
        self.kept = kept
        self.templates: dict[Any, Template] = {}


_sweeps = Table(MAX_SWEEPS)


def sweep(graph: Graph, steps: list[Step], arrived: tuple[int, ...], reach: Any) -> Sweep | None:
    """The pass from gradients at `arrived`; None where it has to go step by step.

    `graph` has been run, no user code takes part in it, and nothing of it is used up.
    """
    kept = graph.kept
    for node in kept.values():
        kind = type(node)
        if kind is not Buffer and (kind is not Node or node.stale is not None):
            return None                         # overwritten, or in the keeping of user code
    for node in graph.leaf_nodes.values():
        if node.stale is not None:
            return None
    key = (id(steps), arrived, tuple(graph.leaf_nodes), len(kept))
    found = _sweeps.get(key)
    if found is None or found.steps is not steps:
        waiting = sorted(reach(steps, graph, arrived), reverse=True)
        if len(waiting) > MAX_LENGTH:
            return None
        needs = _needs(graph, steps, waiting)
        if needs is None:
            return None
        found = Sweep(steps, waiting, needs)
        _sweeps.keep(key, found)
    return found                                             # type: ignore[no-any-return]


def _needs(graph: Graph, steps: list[Step], waiting: list[int]) -> list[int] | None:
    """The places of values that were kept, in the order in which the rules come to read them."""
    from facula.ops.table import PRIMS
    found: dict[int, None] = {}
    for index in waiting:
        step = steps[index]
        if not step.mask:
            continue
        saves = PRIMS[step.op].reads(step.attrs, step.mask)
        todo = [j for k, j in enumerate(step.inputs) if "all" in saves or f"in{k}" in saves]
        if "out" in saves:
            todo.append(index)
        while todo:
            i = todo.pop()
            if kept_at(graph, steps, i) is not None:
                found[i] = None
            elif steps[i].op in ("leaf", "scalar"):
                return None
            else:
                todo.extend(steps[i].inputs)
    return list(found)


def kept_at(graph: Graph, steps: list[Step], index: int) -> Any:
    """The Buffer or the Node in which a graph that has been run still has a value, or None."""
    kept = graph.kept.get(index)
    if kept is None:
        # A leaf: also one whose value was pending, which would be made again without it.
        node = graph.leaf_nodes.get(index)
        if node is not None and (node.value is not None or steps[index].op in ("leaf", "scalar")):
            return node
    return kept


def _operands(graph: Graph, steps: list[Step], found: Sweep) -> dict[int, Node]:
    """The values of `found.kept` of this graph, as nodes."""
    nodes = {}
    for i in found.kept:
        kept = kept_at(graph, steps, i)
        nodes[i] = kept if type(kept) is Node else Node((None, -1), steps[i].spec, kept)
    return nodes


def swept(way: Pass, graph: Graph, steps: list[Step], table: dict[int, Tensor],
          found: Sweep) -> None:
    """Carry the gradients in `table` through a graph that has been run, in one edge."""
    rec = way.rec
    arrived = list(table)
    nodes = _operands(graph, steps, found)
    operands = [*table.values(), *[make(n) for n in nodes.values()]]
    places = places_of(way, operands)
    start = rec.graph.state
    key = (found, *places)
    edge = start.edges.get(key)
    if edge is None:
        template = found.templates.get(alike(places))
        if template is not None:
            edge = entered(way, template, places)
            rec.link(start, key, edge)
    if edge is not None:
        table.clear()
        ends = along(way, edge)
    else:
        given = dict(zip(nodes, places[len(arrived):]))
        ends = _first(way, graph, steps, table, found, key, given)
    for index, gradient in ends:
        way.leave(graph.leaf_nodes[index], gradient)


def _first(way: Pass, graph: Graph, steps: list[Step], table: dict[int, Tensor], found: Sweep,
           key: Any, given: dict[int, int]) -> list[tuple[int, Tensor]]:
    """`swept` step by step, the values `given` by their places; the edge is left if it can be."""
    rec = way.rec
    here, start, leaves = rec.graph, rec.graph.state, len(rec.graph.leaves)
    values = {i: make(Node((here, p), steps[i].spec)) for i, p in given.items()}
    ends = []
    found.reached = reached = []
    rec.depth += 1
    try:
        for index in found.waiting:
            gradient = table.pop(index, None)
            if gradient is None:
                continue
            if not steps[index].mask:
                if index in graph.leaf_nodes:
                    ends.append((index, gradient))
                continue
            reached.append(index)
            for k, part in followed(way, graph, steps, index, False, gradient, values):
                j = steps[index].inputs[k]
                before = table.get(j)
                table[j] = part if before is None else prim("add", before, part)
    finally:
        rec.depth -= 1
    outs = outputs(here, ends) if rec.graph is here and len(here.leaves) == leaves else None
    if outs is not None:
        pack = tuple([i for i, _ in ends])
        template = cut(rec, start, here.state, key[1:], outs, pack)
        if template is not None:
            found.templates[alike(key[1:])] = template
            rec.link(start, key, Edge(here.state, outs=outs, pack=pack))
    if here.state.count > _record.MAX_STEPS and not rec.depth:
        _record.flush(rec)
    return ends
