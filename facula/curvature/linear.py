"""A linearised call: what does not depend on the vector is computed once and kept.

`linearise` takes the recorded call, derives the steps of the product with a vector, and splits
them in two.  What the vector does not reach (activations, gradients, second derivatives of the
loss) is run once; the rest is a list of steps that every product repeats, followed in the trie
as a single edge and compiled as one program.  How a structure is split is remembered with it:
linearising the same network at another point costs its forward pass and a look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from facula.curvature.trace import (
    NotTraceable,
    Traced,
    ancestors,
    place_of,
    pull,
    push,
    recorded,
    unbounded,
)
from facula.errors import GradientError
from facula.graph import record as _record
from facula.graph.record import Edge, Node
from facula.graph.spec import Step, spec
from facula.tensor import Tensor, make, prim

__all__ = ["Layout", "Linear", "linearise", "Rule"]

_SUNK = frozenset(("add", "sub", "mul", "neg", "where", "cast", "eq", "ne", "lt", "le", "gt", "ge",
                   "logical_and", "logical_or", "logical_not", "relu", "sign"))
"""Elementwise steps that cost less than the memory traffic of keeping their result."""

_ROOM = 1 << 26
_MOST_ROWS = 64
"""How many bytes products that are made together may keep on their way, and how many they are."""

_MOVES = frozenset(("reshape", "permute", "expand", "slice", "alias", "full", "iota", "real",
                    "imag", "conj", "as_strided"))
"""Steps that move or name values: done again wherever they are wanted."""


class Layout:
    """How the parameters lie in one flat vector."""

    def __init__(self, params: Sequence[Tensor]):
        self.shapes = [tuple(p.shape) for p in params]
        self.sizes = [p.numel() for p in params]
        self.starts = [sum(self.sizes[:k]) for k in range(len(self.sizes))]
        self.total = sum(self.sizes)
        self.dtype = params[0].dtype

    def split(self, flat: Tensor) -> list[Tensor]:
        """The parts of a vector `[total]` in the parameters' shapes."""
        return [prim("reshape", prim("slice", flat, attrs=((start,), (1,)), shape=(size,)),
                     shape=shape)
                for start, size, shape in zip(self.starts, self.sizes, self.shapes)]

    def join(self, parts: Sequence[Tensor | None]) -> Tensor:
        """One vector `[total]`; a part that is None is zero."""
        flat = []
        for part, size in zip(parts, self.sizes):
            if part is None:
                flat.append(prim("full", attrs=(0.0,), shape=(size,), dtype=self.dtype))
            else:
                flat.append(prim("reshape", part, shape=(size,)))
        return flat[0] if len(flat) == 1 else prim("cat", *flat, attrs=(0,))


Rule = Callable[[Traced, Layout, Tensor, tuple[Tensor, ...]], tuple[Tensor, list[Tensor]]]
"""Derives a product: from the trace, the layout, the vector and runtime numbers, the product as
a flat vector, and other tensors worth computing once."""


class _Blank:
    """Stands for memory that is never read: of the vector while the product is derived."""

    shared = False


class _Plan:
    """How one structure is split.

    reads, early    inputs of what is computed once, and its steps
    kept            what the products read: steps of the trace or of `early`
    late, out       the steps of a product, and its result
    bytes           of what they compute, without what is cheap enough to be fused away
    extras          further results of `early`
    """

    def __init__(self, trace: Traced, layout: Layout, rule: Rule, numbers: int, size: int):
        rec, graph = trace.rec, trace.graph
        state = graph.state
        trace._twins, trace.constants = {}, set()
        marks = len(graph.leaves), len(graph.handles)
        grad, rec.grad = rec.grad, False
        rec.depth += 1
        try:
            vector = make(Node((None, -1), spec((size,), layout.dtype), _Blank()))
            given = [make(Node((None, -1), spec((), layout.dtype), _Blank()))
                     for _ in range(numbers)]
            free = [rec.adopt(t._node) for t in (vector, *given)]
            out, extras = rule(trace, layout, vector, tuple(given))
            # Alone, so that what is handed out is never one of the inputs.
            out = prim("alias", out)
            extras = [prim("alias", t) for t in extras]
            steps = graph.path() if graph.steps is not None else graph.state.path()
            ends = place_of(trace, out), [place_of(trace, t) for t in extras]
            if len(graph.leaves) != marks[0] + len(free):
                raise NotTraceable("a derivative rule reads a constant of its own")
        finally:
            # The graph goes back to where the call had left it: the trie keeps the steps.
            for index, node in graph.leaves[marks[0]:]:
                graph.leaf_nodes.pop(index, None)
                graph.leaf_map.pop(node, None)
            del graph.leaves[marks[0]:], graph.handles[marks[1]:]
            graph.state = state
            rec.depth -= 1
            rec.grad = grad
        self._divide(trace.count, steps, free, *ends)

    def _divide(self, count: int, steps: list[Step], free: list[int], out: int,
                extras: list[int]) -> None:
        depends = set(free)
        for i in range(free[0], len(steps)):
            if not depends.isdisjoint(steps[i].inputs):
                depends.add(i)
        needed = ancestors(steps, [out])
        late = sorted(i for i in needed if i in depends and i not in free)
        kept = {j for i in late for j in steps[i].inputs if j not in depends}
        if out not in depends:
            kept.add(out)
        kept, again = _sink(steps, kept)
        late = sorted({*late, *again})
        early = sorted(i for i in ancestors(steps, [*kept, *extras], range(count))
                       if i >= count and i not in free)
        self.early = [(i, steps[i]) for i in early]
        self.reads = sorted({j for _, s in self.early for j in s.inputs if j < count}
                            | {i for i in extras if i < count})
        self.specs = {i: steps[i].spec for i in {*self.reads, *kept}}
        self.kept = sorted(kept)
        self.late = [(i, steps[i]) for i in late]
        self.bytes = sum(_bytes(steps, i) for i in late
                         if steps[i].op not in _MOVES and steps[i].op not in _SUNK)
        self.free, self.out, self.extras, self.count = free, out, extras, count

    def before(self, *given: Tensor) -> tuple[Tensor, ...]:
        """What is computed once, from the values `reads`."""
        known = dict(zip(self.reads, given))
        _repeat(self.early, known)
        return tuple([known[i] for i in self.results()])

    def results(self) -> list[int]:
        """The places of what `before` returns."""
        return [i for i in self.kept if i >= self.count] + self.extras

    def product(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The product, from the kept values, the vector and the numbers."""
        known = dict(zip((*self.kept, *self.free), given))
        _repeat(self.late, known)
        return (known[self.out],)


def _repeat(steps: list[tuple[int, Step]], known: dict[int, Tensor]) -> None:
    for i, s in steps:
        known[i] = prim(s.op, *[known[j] for j in s.inputs], attrs=s.attrs, shape=s.spec.shape,
                        dtype=s.spec.dtype)


def _sink(steps: list[Step], kept: set[int]) -> tuple[set[int], set[int]]:
    """What to keep instead, and which steps each product then repeats."""
    again: set[int] = set()
    kept = set(kept)
    for i in sorted(kept | set(), reverse=True):
        todo = [i]
        while todo:
            k = todo.pop()
            if k not in kept:
                continue
            step = steps[k]
            new = [j for j in set(step.inputs) if j not in kept and j not in again]
            if step.op in _MOVES:
                worth = step.op != "slice" or not new
            elif step.op in _SUNK:
                worth = sum(_bytes(steps, j) for j in new) <= _bytes(steps, k)
            else:
                worth = False
            if worth:
                kept.discard(k)
                again.add(k)
                kept.update(new)
                todo.extend(new)
    return kept, again


def _bytes(steps: list[Step], index: int) -> int:
    found = steps[index].spec
    if steps[index].op == "full":
        return 0
    return found.numel * found.dtype.itemsize


class Linear:
    """v -> A v for a matrix A that was derived from a call: A's ingredients, computed.

    extras    what the rule computed besides
    """

    def __init__(self, plan: _Plan, layout: Layout, kept: list[Tensor], extras: list[Tensor]):
        self.plan = plan
        self.layout = layout
        self.kept = kept
        self.extras = extras

    @property
    def rows(self) -> int:
        """How many products are best made at once."""
        return max(1, min(_ROOM // max(self.plan.bytes, 1), _MOST_ROWS))

    def apply_rows(self, rows: Tensor, numbers: Sequence[Tensor] = ()) -> Tensor:
        """A times each row of `[k, total]`, as rows: the steps of a product, batched."""
        from facula.func import vmap
        count = len(self.kept)

        def one(v: Tensor, *given: Tensor) -> Tensor:
            return self.plan.product(*given[:count], v, *given[count:])[0]

        given = (*self.kept, *numbers)
        out = vmap(one, (0,) + (None,) * len(given))(rows, *given)
        _record._local.rec.graph.last([t._node for t in self.kept])
        return out                                              # type: ignore[no-any-return]

    def apply(self, flat: Tensor, numbers: Sequence[Tensor] = ()) -> Tensor:
        """A times a vector `[total]`, recorded: nothing runs before somebody looks."""
        rec = _record._local.rec
        grad, rec.grad = rec.grad, False
        try:
            out = recorded(("curvature", self.plan), [*self.kept, flat, *numbers],
                           self.plan.product)[0]
            rec.graph.last([t._node for t in self.kept])
            return out
        finally:
            rec.grad = grad


def linearise(trace: Traced, params: Sequence[Tensor], key: Any, rule: Rule,
              numbers: int = 0, size: int | None = None) -> Linear:
    """Split the product that `rule` derives from a call; computes what is kept.

    `size` is that of the vector, if it is not one of the parameters.
    `key` names the rule with all that it depends on besides the trace.  Raises NotTraceable
    where the steps have no forward derivative.
    """
    rec, graph = trace.rec, trace.graph
    layout = Layout(params)
    name = ("curvature", key, tuple(trace.params), tuple(trace.results), tuple(layout.shapes))
    size = layout.total if size is None else size
    edge = trace.state.edges.get(name)
    if edge is None:
        edge = Edge(trace.state, pack=_Plan(trace, layout, rule, numbers, size))
        rec.enter(graph)
        trace.state.edges[name] = edge
    plan: _Plan = edge.pack
    leaves = {index: node for index, node in graph.leaves}

    def value(i: int) -> Tensor:
        node = leaves.get(i)
        return make(graph.handle(i, plan.specs[i]) if node is None else node)

    grad, rec.grad = rec.grad, False
    try:
        with unbounded():
            made: Sequence[Tensor] = ()
            results = plan.results()
            if results:
                made = recorded(("linearise", plan), [value(i) for i in plan.reads], plan.before)
            known = dict(zip(results, made))
            kept = [known[i] if i in known else value(i) for i in plan.kept]
    finally:
        rec.grad = grad
    _record.flush(rec)
    return Linear(plan, layout, kept, list(made[len(made) - len(plan.extras):]))


# ---------------------------------------------------------------- the rules

def _seeds(trace: Traced, parts: list[Tensor]) -> dict[int, Tensor]:
    return {i: part for places, part in zip(trace.params, parts) for i in places}


def _collected(trace: Traced, layout: Layout, found: dict[int, Tensor]) -> Tensor:
    parts: list[Tensor | None] = []
    for places in trace.params:
        total: Tensor | None = None
        for i in places:
            g = found.get(i)
            if g is not None:
                total = g if total is None else prim("add", total, g)
        parts.append(total)
    return layout.join(parts)


def _merged(a: dict[int, Tensor], b: dict[int, Tensor]) -> dict[int, Tensor]:
    out = dict(a)
    for i, g in b.items():
        out[i] = prim("add", out[i], g) if i in out else g
    return out


def _one(trace: Traced, index: int) -> Tensor:
    found = trace.steps[index].spec
    return prim("full", attrs=(1.0,), shape=found.shape, dtype=found.dtype)


def _enters(trace: Traced) -> list[int]:
    return [i for places in trace.params for i in places]


def hessian_rule(trace: Traced, layout: Layout, vector: Tensor, numbers: Any
                 ) -> tuple[Tensor, list[Tensor]]:
    """The Hessian of the first result, forward over reverse; besides: loss and gradient."""
    loss, enters = trace.results[0], _enters(trace)
    g = pull(trace, {loss: _one(trace, loss)}, enters)
    places = {i: place_of(trace, t) for i, t in g.items()}
    moved = push(trace, _seeds(trace, layout.split(vector)), places.values())
    found = {i: moved[k] for i, k in places.items() if k in moved}
    return _collected(trace, layout, found), [_result(trace, loss), _collected(trace, layout, g)]


def _result(trace: Traced, index: int) -> Tensor:
    return make(Node((trace.graph, index), trace.steps[index].spec))


def gauss_newton_rule(outputs: int, hidden: int, axis: int, gradient: bool = True) -> Rule:
    """J' H J, J of the outputs (results 1 ...) and H of the loss (result 0) in terms of them.

    Where the loss depends on parameters also past the outputs, as a weight penalty does, H is
    the second derivative in both together.  Of `hidden` further results mu J'J / rows is added,
    mu being the number and rows their extent along `axis`.  Besides, with `gradient`: loss and
    gradient.
    """
    def rule(trace: Traced, layout: Layout, vector: Tensor, numbers: tuple[Tensor, ...]
             ) -> tuple[Tensor, list[Tensor]]:
        loss, ends = trace.results[0], trace.results[1:1 + outputs]
        states = trace.results[1 + outputs:1 + outputs + hidden]
        enters = _enters(trace)
        seeds = _seeds(trace, layout.split(vector))
        moved = push(trace, seeds, [*ends, *states])
        if not moved:
            raise GradientError("the outputs do not depend on the parameters")
        g = pull(trace, {loss: _one(trace, loss)}, {*ends, *enters}, ends)
        if not any(i in g for i in ends):
            raise GradientError("the loss does not depend on the outputs that were returned with "
                                "it: return the very tensor that the loss was computed from")
        at_ends = {i: t for i, t in g.items() if i in ends}
        direct = {i: t for i, t in g.items() if i not in at_ends}
        places = {i: place_of(trace, t) for i, t in g.items()}
        inner = {i: moved[i] for i in ends if i in moved}
        second = push(trace, {**seeds, **inner}, places.values())
        curved = {i: second[k] for i, k in places.items() if k in second}
        back = {i: t for i, t in curved.items() if i in at_ends}
        for i in states:
            if i in moved:
                rows = trace.steps[i].spec.shape[axis] if trace.steps[i].spec.shape else 1
                share = _times(prim("mul", moved[i], _spread(numbers[0], moved[i])), 1.0 / rows)
                back = _merged(back, {i: share})
        found = pull(trace, back, enters) if back else {}
        found = _merged(found, {i: t for i, t in curved.items() if i not in at_ends})
        product = _collected(trace, layout, found)
        if not gradient:
            return product, []
        whole = _merged(pull(trace, at_ends, enters), direct)
        return product, [_result(trace, loss), _collected(trace, layout, whole)]
    return rule


def _spread(number: Tensor, like: Tensor) -> Tensor:
    number = _as(number, like.dtype)
    flat = prim("reshape", number, shape=(1,) * like.ndim) if like.ndim else number
    return prim("expand", flat, shape=tuple(like.shape)) if like.ndim else flat


def _as(x: Tensor, dtype: Any) -> Tensor:
    """In a dtype: under autocast outputs need not have that of the parameters."""
    return x if x.dtype is dtype else prim("cast", x, dtype=dtype)


def _times(x: Tensor, number: float) -> Tensor:
    return prim("mul", x, prim("full", attrs=(number,), shape=tuple(x.shape), dtype=x.dtype))


def outer_rule(outputs: int, draws: int, axis: int, scale: float) -> Rule:
    """scale * sum over samples n and draws of J_n' s_n s_n' J_n.

    Results: `outputs` outputs, then for each draw as many scores s, of the same shapes.  The
    samples lie along `axis`.
    """
    def rule(trace: Traced, layout: Layout, vector: Tensor, numbers: Any
             ) -> tuple[Tensor, list[Tensor]]:
        ends = trace.results[:outputs]
        moved = push(trace, _seeds(trace, layout.split(vector)), ends)
        if not moved:
            raise GradientError("the outputs do not depend on the parameters")
        back: dict[int, Tensor] = {}
        for d in range(draws):
            scores = [_result(trace, i) for i in
                      trace.results[outputs * (1 + d):outputs * (2 + d)]]
            inner: Tensor | None = None
            for i, s in zip(ends, scores):
                if i in moved:
                    part = _as(_over_rest(prim("mul", s, moved[i]), axis), layout.dtype)
                    inner = part if inner is None else prim("add", inner, part)
            assert inner is not None
            for i, s in zip(ends, scores):
                part = prim("mul", s, _along(_as(_times(inner, scale), s.dtype), s, axis))
                back = _merged(back, {i: part})
        return _collected(trace, layout, pull(trace, back, _enters(trace))), []
    return rule


def score_rule(outputs: int, axis: int) -> Rule:
    """The sum over samples n of v_n J_n' s_n, for a vector v of as many elements as samples.

    Results: `outputs` outputs and as many scores, with samples along `axis`.
    """
    def rule(trace: Traced, layout: Layout, vector: Tensor, numbers: Any
             ) -> tuple[Tensor, list[Tensor]]:
        back: dict[int, Tensor] = {}
        for i, j in zip(trace.results[:outputs], trace.results[outputs:]):
            s = _result(trace, j)
            part = prim("mul", s, _along(_as(vector, s.dtype), s, axis))
            back = _merged(back, {i: part})
        return _collected(trace, layout, pull(trace, back, _enters(trace))), []
    return rule


def _over_rest(x: Tensor, axis: int) -> Tensor:
    rest = tuple(k for k in range(x.ndim) if k != axis % x.ndim)
    return prim("sum", x, attrs=(rest,)) if rest else x


def _along(x: Tensor, like: Tensor, axis: int) -> Tensor:
    shape = [1] * like.ndim
    shape[axis] = like.shape[axis]
    return prim("expand", prim("reshape", x, shape=tuple(shape)), shape=tuple(like.shape))
