"""A call recorded as steps, and derivatives pushed and pulled through them.

`traced` runs a closure and keeps its graph pending.  `push` carries tangents forward through the
recorded steps (each primitive's `jvp` rule), `pull` carries gradients back (its `vjp` rule); both
record more steps of the same graph, so that either can be applied to what the other made.  That
is all that products with a curvature matrix consist of (Pearlmutter 1994; Schraudolph 2002).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from facula.autograd.rules import Context
from facula.errors import GradientError
from facula.graph import record as _record
from facula.graph.record import Graph, Node, Recorder, _local
from facula.graph.spec import Step
from facula.ops.define import macro
from facula.ops.table import PRIMS
from facula.tensor import Tensor, make, prim

__all__ = ["Traced", "NotTraceable", "traced", "untraced", "push", "pull", "ancestors",
           "place_of", "unbounded", "recorded"]

_MOST = 1 << 18
"""Steps that a traced call may have before its graph is run in pieces."""


def recorded(key: Any, tensors: Sequence[Tensor], fn: Callable[..., Sequence[Tensor]]
             ) -> list[Tensor]:
    """The results of `fn(*tensors)`, recorded as one memoised step named by `key`."""
    return [make(node) for node in macro(key, tensors, fn)]


class NotTraceable(Exception):
    """The call cannot be taken as one sequence of steps, and why."""


class Traced:
    """A call whose graph is pending.

    graph, count    the graph, and how many steps the call recorded
    steps           those steps
    params          for each parameter the steps at which its value enters
    results         for each result its step
    constants       steps recorded since, through which no derivative flows
    """

    def __init__(self, rec: Recorder, params: Sequence[Tensor], results: Sequence[Tensor]):
        graph = rec.graph
        self.rec = rec
        self.graph: Graph = graph
        self.results: list[int] = []
        for t in results:
            t._fresh()
            owner, index = t._node.at
            if t._node.value is not None or owner is not graph:
                raise NotTraceable("a result was not computed by the call")
            self.results.append(index)
        self.state = graph.state
        self.count = graph.state.count
        by: dict[int, list[int]] = {}
        for index, node in graph.leaf_nodes.items():
            leaf = node.leaf() if node.leaf is not None else None
            if leaf is not None:
                by.setdefault(id(leaf), []).append(index)
        self.params = [tuple(sorted(by.get(id(p), ()))) for p in params]
        self._steps: list[Step] | None = None
        self._twins: dict[int, Tensor] = {}
        self.constants: set[int] = set()

    @property
    def steps(self) -> list[Step]:
        if self._steps is None:
            self._steps = self.state.path()
        return self._steps

    def value(self, steps: list[Step], index: int) -> Tensor:
        """What a step computes."""
        return make(Node((self.graph, index), steps[index].spec))

    def input(self, steps: list[Step], index: int, k: int) -> Tensor:
        """What a step reads as its input `k`.

        Of a value that the call read without its history (after `detach`, under `no_grad`) a
        twin is made, because a derivative may flow through its other readers.
        """
        step = steps[index]
        j = step.inputs[k]
        linked = index >= self.count or step.mask >> k & 1
        if linked or not (steps[j].mask or steps[j].op == "leaf"):
            return self.value(steps, j)
        twin = self._twins.get(j)
        if twin is None:
            self._twins[j] = twin = prim("alias", self.value(steps, j))
            self.constants.add(twin._node.at[1])
        return twin


@contextmanager
def unbounded() -> Iterator[None]:
    """Let the pending graph grow: it is not run because of its size."""
    most, _record.MAX_STEPS = _record.MAX_STEPS, _MOST
    try:
        yield
    finally:
        _record.MAX_STEPS = most


def traced(fn: Callable[[], Any], params: Sequence[Tensor]) -> tuple[Traced | None, Any, str]:
    """Run `fn` with gradients on, from an empty graph.

    Returns the trace (None where the call cannot be taken as one sequence of steps), what `fn`
    returned, and why there is no trace.
    """
    rec = _local.rec
    if rec.tape is not None or rec.depth:
        return None, _with_grad(rec, fn), "the call is being recorded already"
    _record.flush(rec)
    if rec.graph.state is not rec.root:
        # Only values that were entered and never used.
        for _, node in rec.fresh_graph().leaves:
            node.at = (None, -1)
    start = rec.graph
    with unbounded():
        result = _with_grad(rec, fn)
    if rec.graph is not start:
        return None, result, "a value was asked for during the call"
    if start.functions or start.hooks:
        return None, result, "the call uses a custom Function or gradient hooks"
    results = [result] if isinstance(result, Tensor) else _flat(result)
    try:
        return Traced(rec, params, results), result, ""
    except NotTraceable as reason:
        return None, result, str(reason)


def untraced(fn: Callable[[], Any], params: Sequence[Tensor]) -> Any:
    """Run `fn` with gradients on, the parameters' values being copies meanwhile.

    The history that is kept of the call has then the values that they have now, whatever is
    written over them later; gradients by the parameters go through it as ever.
    """
    rec = _local.rec
    if rec.tape is not None or rec.depth:
        return _with_grad(rec, fn)
    saved, rec.grad = rec.grad, False
    try:
        copies = [p.detach().clone() for p in params]       # type: ignore[attr-defined]
        _record.flush(rec)
    finally:
        rec.grad = saved
    before = [p._node for p in params]
    try:
        for p, copy in zip(params, copies):
            copy._node.leaf = p._node.leaf
            p._node = copy._node
        return _with_grad(rec, fn)
    finally:
        for p, node in zip(params, before):
            p._node = node


def _with_grad(rec: Recorder, fn: Callable[[], Any]) -> Any:
    saved, rec.grad = rec.grad, True
    try:
        return fn()
    finally:
        rec.grad = saved


def _flat(result: Any) -> list[Tensor]:
    """The tensors of a nested tuple or list, in order."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, (tuple, list)):
        return [t for part in result for t in _flat(part)]
    if result is None:
        return []
    raise TypeError("the closure has to return tensors, in tuples or lists, not "
                    f"{type(result).__name__}")


# ---------------------------------------------------------------- derivatives of recorded steps

def _flows(trace: Traced, step: Step, index: int) -> int:
    """The inputs through which a derivative flows, as a mask.

    Among the steps of the call what autograd says decides, so that `detach` and `no_grad` cut;
    what was recorded after it are derivatives, and all of it counts.
    """
    if index < trace.count:
        return step.mask
    if index in trace.constants or step.spec.dtype.kind not in "fc" \
            or PRIMS[step.op].vjp is None:
        return 0
    return (1 << len(step.inputs)) - 1


def ancestors(steps: list[Step], roots: Iterable[int], stop: Iterable[int] = ()) -> set[int]:
    """The steps that `roots` are computed from, and these; not beyond `stop`."""
    found: set[int] = set()
    todo = list(roots)
    ends = frozenset(stop)
    while todo:
        i = todo.pop()
        if i in found:
            continue
        found.add(i)
        if i not in ends:
            todo.extend(steps[i].inputs)
    return found


def push(trace: Traced, seeds: dict[int, Tensor], wanted: Iterable[int]) -> dict[int, Tensor]:
    """The tangents of the steps `wanted`, those of the steps in `seeds` being given.

    A seeded step keeps its tangent, whatever it was computed from.  Steps that do not depend on
    a seed are missing from the result.
    """
    steps = trace.graph.path()
    tangents = dict(seeds)
    wanted = list(wanted)
    for i in sorted(ancestors(steps, wanted, seeds)):
        if i in seeds:
            continue
        step = steps[i]
        flows = _flows(trace, step, i)
        if not flows:
            continue
        given = tuple([tangents.get(j) if flows >> k & 1 else None
                       for k, j in enumerate(step.inputs)])
        if all(t is None for t in given):
            continue
        rule = PRIMS[step.op].jvp
        if rule is None:
            raise NotTraceable(f"{step.op!r} has no forward derivative")
        context = Context(tuple([trace.input(steps, i, k) for k in range(len(step.inputs))]),
                          trace.value(steps, i), step.attrs,
                          tuple([t is not None for t in given]))
        tangents[i] = rule(context, given)
    return {i: tangents[i] for i in wanted if i in tangents}


def pull(trace: Traced, seeds: dict[int, Tensor], targets: Iterable[int],
         stop: Iterable[int] = ()) -> dict[int, Tensor]:
    """The gradients that arrive at the steps `targets` from those given in `seeds`.

    At the steps in `stop` a gradient arrives and does not go on.  Targets that none reaches are
    missing from the result.
    """
    steps = trace.graph.path()
    wanted, ends = set(targets), frozenset(stop)
    # Only what leads from a target to a seed has to be gone through.
    live: set[int] = set(wanted)
    for i in range(min(wanted, default=0), max(seeds, default=-1) + 1):
        step = steps[i]
        flows = _flows(trace, step, i)
        if flows and any(flows >> k & 1 and j in live for k, j in enumerate(step.inputs)):
            live.add(i)
    arrived = dict(seeds)
    for i in range(max(seeds, default=-1), min(wanted, default=0) - 1, -1):
        g = arrived.get(i)
        if g is None or i in ends or i not in live:
            continue
        step = steps[i]
        flows = _flows(trace, step, i)
        needs = tuple([bool(flows >> k & 1) and j in live for k, j in enumerate(step.inputs)])
        if not any(needs):
            continue
        rule = PRIMS[step.op].vjp
        assert rule is not None
        context = Context(tuple([trace.input(steps, i, k) for k in range(len(step.inputs))]),
                          trace.value(steps, i), step.attrs, needs)
        for j, need, part in zip(step.inputs, needs, rule(context, g)):
            if need and part is not None:
                before = arrived.get(j)
                arrived[j] = part if before is None else prim("add", before, part)
    return {i: arrived[i] for i in wanted if i in arrived}


def place_of(trace: Traced, t: Tensor) -> int:
    """The step of a tensor that was recorded while deriving."""
    graph, index = t._node.at
    if graph is not trace.graph:
        raise GradientError("internal: a derivative left its graph")
    return index
