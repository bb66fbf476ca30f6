"""Traces: a function's body recorded apart, to be carried over into the graph around it.

While a transformed function runs, its operations are recorded by a `Trace`, a recorder of its
own whose graph is never run.  Inputs that the transform is about are entered as placeholders;
whatever else the function reads is a leaf that stands for the value outside.  When the function
has returned, the steps its results need are recorded once more by the recorder around, as they
are (`grad`, `jvp`) or batched (`vmap`).  That recorder may be a trace in turn: this is all that
nesting is.

A trace is a path of the same trie as any graph, so its state says exactly what was recorded.
What is made of it is one edge of the outer trie, named by that state: a call that records the
same again costs its recording and one look-up.

Gradient flags keep their meaning when steps are carried over.  The mask of a step says through
which operands a gradient may flow; outside, an operand is taken without its history where the
mask has no bit, so `detach()` and `no_grad()` inside hold for every level outside.  For tangents
`detach()` leaves a step of its own (an `alias` with the attribute `DETACHED`), because these, as
in PyTorch, flow on under `no_grad()`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from facula.errors import TransformError, VmapError
from facula.graph.flush import _UNHELD
from facula.graph.record import Edge, Graph, Node, Recorder, State, _local
from facula.graph.spec import Spec, Step
from facula.ops.define import remembered
from facula.tensor import DETACHED, Tensor, make, prim

__all__ = ["Trace", "Plan", "plan_of", "detached", "dependents", "replay", "outside"]


class Plan:
    """Which steps of a path are carried over for some of its values.

    `order` are those steps; `leaves` the values they begin from, each with its position among
    the graph's leaves (-1 for one known otherwise) and whether a gradient flows to it.
    """

    __slots__ = ("steps", "order", "leaves", "outs")

    def __init__(self, steps: list[Step], outs: tuple[int, ...], known: Sequence[int],
                 positions: dict[int, int], extra: dict[int, list[int]],
                 flowing: set[int]):
        found: set[int] = set()
        todo = list(outs)
        given = set(known)
        while todo:
            i = todo.pop()
            if i not in found:
                found.add(i)
                if i not in given:
                    todo.extend(steps[i].inputs)
                    todo.extend(extra.get(i, ()))
        reached = {j for i in found for k, j in enumerate(steps[i].inputs)
                   if steps[i].mask >> k & 1} | flowing
        begin = [i for i in sorted(found) if i in given or steps[i].op in ("leaf", "scalar")]
        self.steps = steps
        self.outs = outs
        self.order = [i for i in sorted(found) if i not in set(begin)]
        self.leaves = [(i, -1 if i in given else positions[i], i in reached) for i in begin]


class Trace(Recorder):
    """A recorder whose graph is carried over rather than run.

    `args` maps placeholders to the tensors outside that they stand for, `known` the places of
    values that have been carried over already, because somebody looked at them.  `kept` are the
    nodes that somebody holds when the function has returned, `changed` the last value that was
    written to each tensor from outside, with the one it had.
    """

    outer: Recorder
    whole = True
    lasting = False                     # are its steps, custom functions too, used afterwards?

    def __init__(self, outer: Recorder, forward: bool = False):
        self.outer = outer
        self.forward = forward or outer.forward
        self.root = outer.root if outer.forward is self.forward else _forward_root(outer.root)
        self.states = 0
        self.grad = outer.grad
        self.compiled = outer.compiled
        self.depth = 0
        self.tape = outer.tape
        self.watch = None
        self.amp = None
        self.graph = Graph(self.root, self)
        if outer.amp is not None:
            self.set_amp(outer.amp)
        self.args: dict[Node, Tensor] = {}
        self.known: dict[int, Tensor] = {}
        self.inputs: list[tuple[Tensor, Node, Tensor]] = []
        self.linked: set[int] = set()       # placeholders through which gradients flow outside
        self.kept: list[Node] = []
        self.changed: dict[Node, Node] = {}

    # -- what comes in
    def variable(self, spec: Spec, rg: bool = False) -> Tensor:
        """A placeholder for a value that is not there yet."""
        graph = self.graph
        node = Node((graph, -1), spec)
        node.at = (graph, self._enter(graph, node, None))
        if rg:
            self.linked.add(node.at[1])
        return make(node, rg)

    def place(self, outside: Tensor, spec: Spec, rg: bool) -> Tensor:
        """A placeholder for a tensor outside."""
        inside = self.variable(spec, rg)
        node = inside._node
        outside._fresh()
        self.args[node] = make(outside._node, outside._rg)     # whatever is written to it later
        self.inputs.append((inside, node, outside))
        return inside

    def returned(self) -> None:
        """The function has returned: what is held now stays when all is carried over."""
        self.kept = self.escaped(())

    def adopt(self, node: Node) -> int:
        """The index of a value from outside; where it stands outside is not touched."""
        graph = self.graph
        found = graph.leaf_map.get(node)
        if found is not None:
            return found
        value = node.value
        if value is None:
            owner = node.at[0]
            if owner is not None and owner.failure is not None:
                raise owner.failure
        if value is not None and not hasattr(value, "shared"):
            index = self._enter_scalar(graph, node)
        else:
            index = self._enter(graph, node, None)
        graph.leaf_map[node] = index
        return index

    def index(self, t: Tensor) -> int:
        """Where the value of a tensor stands in this trace's graph."""
        t._fresh()
        graph, index = t._node.at
        return index if graph is self.graph else self.adopt(t._node)

    def where(self, node: Node) -> int | None:
        """The index of a node, if it has been met here."""
        return node.at[1] if node.at[0] is self.graph else self.graph.leaf_map.get(node)

    def fresh_graph(self) -> Graph:
        raise RuntimeError("internal: a trace is not run")

    def outside(self, node: Node) -> bool:
        """May this value have been that of a tensor outside when the trace began?"""
        return node in self.changed or node.at[0] is not self.graph and node not in self.args

    def written_to(self, before: Node, value: Node) -> None:
        if self.outside(before):
            self.changed[value] = self.changed.pop(before, before)

    def custom(self, cls: Any, args: tuple[Any, ...]) -> Any:
        """A call of a custom function that says itself how it is mapped."""
        return NotImplemented

    # -- begin and end
    def __enter__(self) -> Trace:
        _local.rec = self
        return self

    def __exit__(self, kind: Any, error: Any, *_: Any) -> None:
        _local.rec = self.outer
        self.outer.states += self.states

    def close(self) -> None:
        """Nothing more comes of this trace; what still refers to it says so.

        It lets go of all it held, at once and not with the collector of cycles: a value that
        somebody holds is one that has to be computed.
        """
        graph = self.graph
        if graph.failure is None:
            graph.failure = TransformError(
                "a tensor from inside a transformed function (grad, vjp, jvp, vmap) was used "
                "after the function had returned: return it from the function instead")
        graph.owner = None                                   # type: ignore[assignment]
        graph.handles, graph.leaves, graph.leaf_nodes, graph.leaf_map = [], [], {}, {}
        graph.hooks, graph.stale = {}, {}
        if not self.lasting:
            graph.functions = {}
        self.args, self.known, self.inputs, self.kept, self.changed = {}, {}, [], [], {}

    def abandon(self) -> None:
        """The function has raised: what it overwrote outside keeps what was written."""
        try:
            self.hand_over(self.leaving(()), [])
        except Exception:
            pass
        self.close()

    # -- carrying over
    def escaped(self, outs: Sequence[int]) -> list[Node]:
        """Nodes that somebody holds besides the results."""
        handles = self.graph.handles
        unheld = _UNHELD
        alive = [n for n in handles if sys.getrefcount(n) > unheld]
        taken = set(outs)
        return [n for n in alive if n.at[1] not in taken and n.at[0] is self.graph]

    def leaving(self, outs: Sequence[int]) -> list[Node]:
        """Those of them whose values can be carried over."""
        return self.escaped(outs)

    def overwritten(self) -> list[tuple[Tensor, int]]:
        """Tensors outside whose placeholders were written to, and where their new values are."""
        found = []
        for inside, node, outside in self.inputs:
            inside._fresh()
            if inside._node is not node:
                found.append((outside, self.index(inside)))
        return found

    def lower(self, outs: Sequence[int]) -> list[Tensor]:
        """Carry over what these values need; returns them as tensors outside."""
        return self.carried("inline", tuple(outs), replay)

    def carried(self, what: Any, outs: tuple[int, ...],
                body: Callable[[Trace, Plan, Sequence[Tensor]], list[Tensor]]) -> list[Tensor]:
        graph = self.graph
        state = graph.state
        plan = plan_of(self, outs)
        leaves = graph.leaves
        args = self.args
        given: list[Tensor] = []
        for index, position, rg in plan.leaves:
            if position < 0:
                given.append(self.known[index])
                continue
            node = leaves[position][1]
            t = args.get(node)
            given.append(make(node, rg) if t is None else t)
        key = (what, state, outs, tuple(self.known) if self.known else (), self.outer.forward)
        with outside(self.outer):
            if graph.functions:                 # a state says nothing of custom functions
                return body(self, plan, given)
            return list(remembered(key, given, lambda *tensors: body(self, plan, tensors)))

    def hand_over(self, nodes: Sequence[Node], values: Sequence[Tensor]) -> None:
        """Make nodes of this trace stand for values outside."""
        if len(values) < len(nodes):
            values = self.lower([n.at[1] for n in nodes])
        refused: BaseException | None = None
        with outside(self.outer):
            for node, t in zip(nodes, values):
                new = t._node
                before = self.changed.get(node)
                if before is not None:
                    try:
                        self.outer.written_to(before, new)
                    except VmapError as error:               # the tensor keeps what it had
                        refused, new = error, prim("alias", make(before))._node
                if new.value is not None or new.at[0] is not self.outer.graph:
                    new = prim("alias", t)._node
                node.at = new.at
                assert node.at[0] is not None
                node.at[0].handles.append(node)
        if refused is not None:
            raise refused

    def finish(self, results: Sequence[Tensor]) -> list[Tensor]:
        """The results outside, with everything else the function has left behind."""
        outs = [self.index(t) for t in results]
        written = self.overwritten()
        kept = [n for n in self.kept if n.at[1] not in outs and n.at[0] is self.graph]
        every = [*outs, *[i for _, i in written], *[n.at[1] for n in kept]]
        values = self.lower(every)
        n = len(outs)
        if kept:
            self.hand_over(kept, values[n + len(written):])
        given = {id(t._node) for t in self.args.values()}
        self.close()
        with outside(self.outer):
            for (target, _), value in zip(written, values[n:]):
                target._write(value)
            return [prim("alias", v) if v._node.value is not None or id(v._node) in given else v
                    for v in values[:n]]

    # -- looking at values
    def look(self, node: Node) -> tuple[Any, Any]:
        """The value of a node of this trace, in memory of its own."""
        index = node.at[1]
        found = self.known.get(index)
        if found is None:
            self.settle(index)
            found = self.known[index]
        buffer, strides = found._memory()
        return buffer.snapshot(node.spec, strides), None

    def settle(self, index: int) -> None:
        """Carry over all that has been recorded and is still wanted."""
        wanted = {index}
        wanted.update(n.at[1] for n in self.escaped(()))
        outs = sorted(wanted.difference(self.known))
        values = self.lower(outs)
        self.known.update(zip(outs, values))


class outside:
    """Record with another recorder than the thread's own for a while.

    What is recorded there was settled inside, dtypes included: autocast is off.
    """

    def __init__(self, rec: Recorder):
        self.rec = rec

    def __enter__(self) -> None:
        self.before, _local.rec = _local.rec, self.rec
        self.amp = self.rec.amp
        if self.amp is not None:
            self.rec.set_amp(None)

    def __exit__(self, *_: Any) -> None:
        if self.amp is not None:
            self.rec.set_amp(self.amp)
        _local.rec = self.before


def _forward_root(root: State) -> State:
    """Where traces begin whose recording minds tangents; it lives as long as `root` does."""
    edge = root.edges.get("forward")
    if edge is None:
        edge = root.edges["forward"] = Edge(State(None, ()))
    return edge.state


def plan_of(trace: Trace, outs: tuple[int, ...]) -> Plan:
    """The plan for these values of a trace, remembered with its state."""
    graph = trace.graph
    state = graph.state
    plans = state.plans
    if plans is None:
        plans = state.plans = {}
    key = (outs, tuple(trace.known) if trace.known else ())
    plan: Plan | None = None if graph.functions else plans.get(key)
    if plan is None:
        extra: dict[int, list[int]] = {}
        flowing: set[int] = set()
        if graph.functions:
            from facula.func.custom import links
            extra = links(trace, values=True)
            flowing = {trace.where(n) or 0 for call, _ in graph.functions.values()
                       for n in call.nodes if n is not None}
        positions = {i: k for k, (i, _) in enumerate(graph.leaves)}
        plan = Plan(state.path(), outs, list(trace.known), positions, extra, flowing)
        if not graph.functions:
            plans[key] = plan
    return plan


def detached(t: Tensor, step: Step, k: int) -> Tensor:
    """Operand k of a step, without its history where no gradient flows through it."""
    return make(t._node) if t._rg and not step.mask >> k & 1 else t


def replay(trace: Trace, plan: Plan, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Record the steps of a plan as they are."""
    rec = _local.rec
    values: dict[int, Tensor] = {leaf[0]: t for leaf, t in zip(plan.leaves, tensors)}
    steps = plan.steps
    functions = trace.graph.functions
    for i in plan.order:
        step = steps[i]
        operands = [detached(values[j], step, k) for k, j in enumerate(step.inputs)]
        if step.attrs == DETACHED and step.op == "alias" and not rec.forward:
            values[i] = operands[0]
            continue
        if functions and i in functions:
            from facula.func.custom import carry
            values[i] = carry(trace, i, values)
            continue
        values[i] = prim(step.op, *operands, attrs=step.attrs, shape=step.spec.shape,
                         dtype=step.spec.dtype, view=step.view)
    return [values[i] for i in plan.outs]


def dependents(steps: list[Step], sources: Sequence[int], gradient: bool = False,
               extra: dict[int, list[int]] | None = None) -> set[int]:
    """The steps whose values depend on `sources`; with `gradient` as far as gradients flow.

    `extra` has dependences that no step shows, those of custom functions.
    """
    found = set(sources)
    for i, step in enumerate(steps):
        if extra and i in extra:
            if not found.isdisjoint(extra[i]):
                found.add(i)
            continue
        for k, j in enumerate(step.inputs):
            if j in found and (not gradient or step.mask >> k & 1):
                found.add(i)
                break
    return found
