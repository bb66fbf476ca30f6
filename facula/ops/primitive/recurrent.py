"""Recurrences over time: the loop over all steps as one primitive, and its derivatives.

A recurrence takes the input products of all steps, x, and adds to each step's the product of the
state before it with the recurrent weight.  Four primitives describe it:

recur           the states of a whole sequence.  `cell` is 'lstm', 'gru', 'tanh' or 'relu'.
recur_gates     what the gates of 'lstm' and 'gru' were, from the states.  The kernel of `recur`
                writes them as it goes where a program wants both.
recur_linear    the recurrence of a small change of the states, which is linear:
                    v = W h',   c = dc + l c' + sum of k[g] v[g],   h = dh + q c + k[o] v[o]
                for 'lstm', and without c for the others, h = d + l h' + sum of k[g] v[g], where
                ' is the step before and k, l, q are elementwise coefficients.
recur_adjoint   its transpose, which runs from the last step to the first.

The last two are each other's derivatives, and those of the coefficients are ordinary arithmetic,
so derivatives of any order, forward and backward, are made of these loops again.

With T steps of N rows and H units, steps lie one after another: [T N, H].  States have a block of
rows more, for those before the first step, [S, (T + 1) N, H]: S is 2 for 'lstm', whose second is
the cell, else 1.  The block before the first step comes first, or last where time runs in
`reverse`.  The attributes are (cell, T, reverse).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from facula.errors import DTypeError, ShapeError
from facula.graph.spec import Spec, spec
from facula.ops.primitive.batching import one_by_one
from facula.ops.primitive.record import Sample, register, shapes_text
from facula.ops.primitive.recurrent_meaning import (
    CELLS,
    adjoint_meaning,
    coefficients,
    gates_meaning,
    linear_meaning,
    recur_meaning,
)
from facula.ops.primitive.rules import (
    add,
    along,
    cat,
    mul,
    permute,
    plus,
    prim,
    reshape,
    slice_,
    sub,
    sum_,
    where,
    zeros_like,
)

__all__ = ["CELLS", "RECURRENT", "coefficients"]

RECURRENT: dict[str, Callable[[str], int]] = {
    "recur": lambda cell: 1, "recur_gates": lambda cell: 1,
    "recur_linear": coefficients, "recur_adjoint": coefficients,
}
"""The primitives, and which operand of theirs is the recurrent weight."""

_Attrs = tuple[Any, ...]


# ---------------------------------------------------------------- shapes

def _check(name: str, specs: Sequence[Spec], attrs: _Attrs, wanted: Any) -> tuple[int, int, Spec]:
    """(N, H, any spec); `wanted(N, H, T)` are the operands' shapes."""
    cell, count, _ = attrs
    at = RECURRENT[name](cell)
    if len(specs) <= at or len(specs[at].shape) != 2:
        raise ShapeError(f"{name}: operand {at} has to be a weight of two dimensions")
    dtype = specs[0].dtype
    if any(s.dtype is not dtype for s in specs) or dtype.name not in ("float32", "float64"):
        raise DTypeError(f"{name}: takes float32 or float64 tensors of one dtype, not "
                         + " and ".join(repr(s.dtype) for s in specs))
    rows = specs[0].shape[0]
    n, h = rows // max(count, 1), specs[at].shape[1]
    shapes = wanted(n, h, count)
    if count < 1 or rows != n * count or [s.shape for s in specs] != shapes:
        raise ShapeError(f"{name}: operands {shapes_text(specs)} do not fit {count} steps; they "
                         f"have to be {' and '.join(map(str, shapes))}")
    return n, h, specs[0]


def _infer_recur(specs: Sequence[Spec], attrs: _Attrs, given: Spec | None) -> Spec:
    g, _, s, _ = CELLS[attrs[0]]

    def wanted(n: int, h: int, t: int) -> list[tuple[int, ...]]:
        more = [(n, h)] if s == 2 else [(h,)] if attrs[0] == "gru" else []
        return [(t * n, g * h), (g * h, h), (n, h), *more]      # type: ignore[list-item]

    n, h, x = _check("recur", specs, attrs, wanted)
    return spec((s, (attrs[1] + 1) * n, h), x.dtype)


def _infer_gates(specs: Sequence[Spec], attrs: _Attrs, given: Spec | None) -> Spec:
    g, kept, s, _ = CELLS[attrs[0]]

    def wanted(n: int, h: int, t: int) -> list[tuple[int, ...]]:
        more = [(h,)] if attrs[0] == "gru" else []
        return [(t * n, g * h), (g * h, h), *more,              # type: ignore[list-item]
                (s, (t + 1) * n, h)]

    n, h, x = _check("recur_gates", specs, attrs, wanted)
    return spec((attrs[1] * n, kept * h), x.dtype)


def _infer_linear(specs: Sequence[Spec], attrs: _Attrs, given: Spec | None) -> Spec:
    g, _, s, _ = CELLS[attrs[0]]

    def wanted(n: int, h: int, t: int) -> list[tuple[int, ...]]:
        return [*[(t * n, h)] * coefficients(attrs[0]), (g * h, h), *[(t * n, h)] * s,
                *[(n, h)] * s]

    n, h, x = _check("recur_linear", specs, attrs, wanted)
    return spec((s, (attrs[1] + 1) * n, h), x.dtype)


def _infer_adjoint(specs: Sequence[Spec], attrs: _Attrs, given: Spec | None) -> Spec:
    g, _, s, _ = CELLS[attrs[0]]

    def wanted(n: int, h: int, t: int) -> list[tuple[int, ...]]:
        return [*[(t * n, h)] * coefficients(attrs[0]), (g * h, h), (s, (t + 1) * n, h)]

    n, h, x = _check("recur_adjoint", specs, attrs, wanted)
    t = attrs[1]
    return spec((t * n * g * h + s * (t + 1) * n * h,), x.dtype)


# ---------------------------------------------------------------- parts of operands and results

class _Loop:
    """What the rules of one step share: its sizes, and where the rows of its steps are."""

    def __init__(self, attrs: _Attrs, w: Any, rows: int):
        self.attrs, self.w = attrs, w
        self.cell, self.count, self.reverse = attrs
        self.g, _, self.s, self.leak = CELLS[self.cell]
        self.rows, self.n, self.h = rows, rows // self.count, w.shape[1]
        self.own = 0 if self.reverse else self.n        # where rows of states begin
        self.before = self.n - self.own
        self.first = rows if self.reverse else 0

    def columns(self, x: Any) -> list[Any]:
        """[rows, G H] as G matrices."""
        return [along(x, 1, k * self.h, self.h) for k in range(x.shape[1] // self.h)]

    def state(self, states: Any, k: int) -> Any:
        """State k, with its block before the first step: [(T + 1) N, H]."""
        all_ = states.shape[1]
        return reshape(slice_(states, (k, 0, 0), (1, 1, 1), (1, all_, self.h)), (all_, self.h))

    def of(self, state: Any) -> Any:
        """After each step."""
        return along(state, 0, self.own, self.rows)

    def ahead(self, state: Any) -> Any:
        """Before each step."""
        return along(state, 0, self.before, self.rows)

    def _put(self, x: Any, at: int) -> Any:
        high = self.rows + self.n - at - x.shape[0]
        return prim("pad", x, attrs=((at, 0), (high, 0), 0),
                    shape=(self.rows + self.n, self.h))

    def as_states(self, parts: list[Any], at: int) -> Any:
        """[S, (T + 1) N, H] with these rows from row `at` on, and zeros around."""
        each = [reshape(self._put(x, at), (1, self.rows + self.n, self.h)) for x in parts]
        return each[0] if len(each) == 1 else cat(each, 0)

    def product(self, before: Any, w: Any) -> Any:
        """[rows, H] times the weight: [rows, G H]."""
        return prim("matmul", before, permute(w, (1, 0)))

    def weight(self, e: Any, before: Any) -> Any:
        """The gradient of the weight: [G H, H]."""
        return prim("matmul", permute(e, (1, 0)), before)

    def solved(self, flat: Any) -> tuple[Any, list[Any], list[Any]]:
        """(k times the adjoint of each gate, [rows, G H]; the adjoints after each step; those
        before the first) of a `recur_adjoint`."""
        size, each = self.rows * self.g * self.h, (self.rows + self.n) * self.h

        def part(start: int, rows: int, wide: int) -> Any:
            return reshape(slice_(flat, (start,), (1,), (rows * wide,)), (rows, wide))

        starts = [size + k * each for k in range(self.s)]
        return (part(0, self.rows, self.g * self.h),
                [part(at + self.own * self.h, self.rows, self.h) for at in starts],
                [part(at + self.first * self.h, self.n, self.h) for at in starts])

    def per_gate(self, d: list[Any]) -> list[Any]:
        """The adjoint that each gate's product has to do with, after each step."""
        return [d[1], d[1], d[1], d[0]] if self.cell == "lstm" else [d[0]] * self.g


def _total(parts: Sequence[Any], like: Any) -> Any:
    total = None
    for p in parts:
        if p is not None:
            total = p if total is None else add(total, p)
    return zeros_like(like) if total is None else total


def _less(x: Any) -> Any:
    """1 - x"""
    return sub(plus(zeros_like(x), 1), x)


# ---------------------------------------------------------------- the recurrence

def _coefficients(at: _Loop, x: Any, bias: Sequence[Any], out: Any) -> tuple[list[Any], Any]:
    """The coefficients of its linear recurrence; for 'gru' also what n's own input counts."""
    h = at.state(out, 0)
    if not CELLS[at.cell].kept:
        y = at.of(h)
        if at.cell == "tanh":
            return [_less(mul(y, y))], None
        zero = zeros_like(y)
        return [where(prim("le", y, zero), zero, plus(zero, 1))], None
    gates = at.columns(prim("recur_gates", x, at.w, *bias, out, attrs=at.attrs))
    if at.cell == "lstm":
        i, f, g, o = gates
        c = at.state(out, 1)
        t = prim("tanh", at.of(c))
        return [mul(mul(g, i), _less(i)), mul(mul(at.ahead(c), f), _less(f)),
                mul(i, _less(mul(g, g))), mul(mul(t, o), _less(o)), f,
                mul(o, _less(mul(t, t)))], None
    r, z, n, m = gates
    given = mul(_less(z), _less(mul(n, n)))
    return [mul(mul(mul(given, m), r), _less(r)), mul(mul(sub(at.ahead(h), n), z), _less(z)),
            mul(given, r), z], given


def _recur_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    x, w, *rest = c.inputs
    at = _Loop(c.attrs, w, x.shape[0])
    bias = rest[1:] if at.cell == "gru" else []
    k, given = _coefficients(at, x, bias, c.out)
    e, own, start = at.solved(prim("recur_adjoint", *k, w, g, attrs=c.attrs))
    dx = e
    if at.cell == "gru":
        dx = cat([along(e, 1, 0, 2 * at.h), mul(given, own[0])], 1)
    out = [dx, at.weight(e, at.ahead(at.state(c.out, 0))) if c.needs[1] else None,
           start[0]]
    if at.cell == "gru":
        out.append(sum_(along(e, 1, 2 * at.h, at.h), (0,)) if c.needs[3] else None)
    elif at.s == 2:
        out.append(start[1])
    return tuple(o if need else None for o, need in zip(out, c.needs, strict=True))


def _expanded(row: Any, rows: int) -> Any:
    return prim("expand", reshape(row, (1, row.shape[0])), shape=(rows, row.shape[0]))


def _recur_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    x, w, *rest = c.inputs
    tx, tw, *ts = tangents
    at = _Loop(c.attrs, w, x.shape[0])
    gru = at.cell == "gru"
    k, given = _coefficients(at, x, rest[1:] if gru else [], c.out)
    moved = None if tw is None else at.columns(at.product(at.ahead(at.state(c.out, 0)), tw))
    parts: list[list[Any]] = [[] for _ in range(at.g)]
    if moved is not None:
        for p, v in zip(parts, moved, strict=True):
            p.append(v)
    if gru and ts[1] is not None:
        parts[2].append(_expanded(ts[1], at.rows))
    own = None
    if tx is not None:
        given_x = at.columns(tx)
        for j, v in enumerate(given_x):
            if gru and j == 2:
                own = mul(given, v)
            else:
                parts[j].append(v)
    terms = [mul(k[j], _total(p, k[j])) if p else None for j, p in enumerate(parts)]
    if at.s == 2:
        drive = [_total(terms[:3], k[0]), _total(terms[3:], k[0])]
    else:
        drive = [_total([*terms, own], k[0])]
    start = [zeros_like(rest[0]) if t is None else t for t in (ts[:1] if gru else ts)]
    return prim("recur_linear", *k, w, *drive, *start, attrs=c.attrs)


# ---------------------------------------------------------------- its gates

def _gates_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    """Each gate is a function of x and of the product of the state before."""
    x, w, *bias, states = c.inputs
    at = _Loop(c.attrs, w, x.shape[0])
    y, dy = at.columns(c.out), at.columns(g)
    slope = [mul(a, _less(a)) if at.cell == "gru" or k != 2 else _less(mul(a, a))
             for k, a in enumerate(y)]
    if at.cell == "lstm":
        parts = hidden = [mul(d, s) for d, s in zip(dy, slope, strict=True)]
    else:
        r, _, n, m = y
        dn = mul(dy[2], _less(mul(n, n)))
        parts = [mul(add(dy[0], mul(dn, m)), slope[0]), mul(dy[1], slope[1]), dn]
        hidden = [*parts[:2], add(mul(dn, r), dy[3])]
    e = cat(hidden, 1)
    dh = [prim("matmul", e, w)]
    dh += [zeros_like(dh[0])] * (at.s - 1)
    out = [cat(parts, 1), at.weight(e, at.ahead(at.state(states, 0))),
           *[sum_(hidden[2], (0,)) for _ in bias], at.as_states(dh, at.before)]
    return tuple(o if need else None for o, need in zip(out, c.needs, strict=True))


def _gates_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    x, w, *bias, states = c.inputs
    tx, tw, *tb, ts = tangents
    at = _Loop(c.attrs, w, x.shape[0])
    y = at.columns(c.out)
    hidden = _total([None if tw is None else at.product(at.ahead(at.state(states, 0)), tw),
                     None if ts is None else at.product(at.ahead(at.state(ts, 0)), w)], x)
    v = at.columns(hidden)
    given = at.columns(zeros_like(x) if tx is None else tx)
    if bias and tb[0] is not None:
        v[2] = add(v[2], _expanded(tb[0], at.rows))
    if at.cell == "lstm":
        out = [mul(add(a, b), _less(mul(s, s)) if k == 2 else mul(s, _less(s)))
               for k, (a, b, s) in enumerate(zip(given, v, y, strict=True))]
    else:
        r, z, n, m = y
        dr = mul(add(given[0], v[0]), mul(r, _less(r)))
        dz = mul(add(given[1], v[1]), mul(z, _less(z)))
        dn = mul(add(given[2], add(mul(dr, m), mul(r, v[2]))), _less(mul(n, n)))
        out = [dr, dz, dn, v[2]]
    return cat(out, 1)


# ---------------------------------------------------------------- the linear recurrence

def _linear_parts(c: Any) -> tuple[_Loop, list[Any], list[Any], list[Any]]:
    """The loop, the coefficients, the states before each step and after it."""
    each = coefficients(c.attrs[0])
    k = list(c.inputs[:each])
    at = _Loop(c.attrs, c.inputs[each], k[0].shape[0])
    states = [at.state(c.out, j) for j in range(at.s)]
    return at, k, [at.ahead(s) for s in states], [at.of(s) for s in states]


def _linear_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    at, k, before, after = _linear_parts(c)
    e, own, start = at.solved(prim("recur_adjoint", *k, at.w, g, attrs=c.attrs))
    v = at.columns(at.product(before[0], at.w))
    out = [mul(a, b) for a, b in zip(at.per_gate(own), v, strict=True)]
    if at.leak:
        out.append(mul(own[-1], before[-1]))
    if at.s == 2:
        out.append(mul(own[0], after[1]))
    out += [at.weight(e, before[0]), *reversed(own), *start]
    return tuple(o if need else None for o, need in zip(out, c.needs, strict=True))


def _change(at: _Loop, tk: Sequence[Any], k: Sequence[Any], v: Any, tv: Any,
            before: list[Any], after: list[Any]) -> tuple[list[Any], list[Any]]:
    """What changes of the coefficients and of the products add to (the cell's or only state's,
    the output's) equation."""
    terms = []
    for j in range(at.g):
        terms.append([None if tk[j] is None else mul(tk[j], v[j]),
                      None if tv is None else mul(k[j], tv[j])])
    if at.s == 2:
        inner = [*terms[0], *terms[1], *terms[2],
                 None if tk[4] is None else mul(tk[4], before[1])]
        return inner, [*terms[3], None if tk[5] is None else mul(tk[5], after[1])]
    inner = [t for pair in terms for t in pair]
    if at.leak:
        inner.append(None if tk[at.g] is None else mul(tk[at.g], before[0]))
    return inner, []


def _linear_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    at, k, before, after = _linear_parts(c)
    each = len(k)
    tk, tw = tangents[:each], tangents[each]
    td, ts = tangents[each + 1:each + 1 + at.s], tangents[each + 1 + at.s:]
    v = at.columns(at.product(before[0], at.w))
    tv = None if tw is None else at.columns(at.product(before[0], tw))
    inner, outer = _change(at, tk, k, v, tv, before, after)
    drive = [_total([*inner, td[0]], k[0])]
    if at.s == 2:
        drive.append(_total([*outer, td[1]], k[0]))
    start = [zeros_like(s) if t is None else t
             for s, t in zip(c.inputs[each + 1 + at.s:], ts, strict=True)]
    return prim("recur_linear", *k, at.w, *drive, *start, attrs=c.attrs)


def _adjoint_parts(c: Any) -> tuple[_Loop, list[Any], Any, list[Any]]:
    each = coefficients(c.attrs[0])
    k = list(c.inputs[:each])
    at = _Loop(c.attrs, c.inputs[each], k[0].shape[0])
    e, own, _ = at.solved(c.out)
    return at, k, e, own


def _adjoint_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    """The transpose of a transpose: the linear recurrence, driven by what the adjoints get."""
    at, k, e, mine = _adjoint_parts(c)
    ge, own, start = at.solved(g)
    shares = at.columns(ge)
    if at.s == 2:
        drive = [_total([own[1], *[mul(k[j], shares[j]) for j in range(3)]], k[0]),
                 add(own[0], mul(k[3], shares[3]))]
    else:
        drive = [_total([own[0], *[mul(k[j], shares[j]) for j in range(at.g)]], k[0])]
    states = prim("recur_linear", *k, at.w, *drive, *start, attrs=c.attrs)
    each = [at.state(states, j) for j in range(at.s)]
    before, after = [at.ahead(x) for x in each], [at.of(x) for x in each]
    v = at.columns(add(at.product(before[0], at.w), ge))
    out = [mul(a, b) for a, b in zip(at.per_gate(mine), v, strict=True)]
    if at.leak:
        out.append(mul(mine[-1], before[-1]))
    if at.s == 2:
        out.append(mul(mine[0], after[1]))
    out += [at.weight(e, before[0]), states]
    return tuple(o if need else None for o, need in zip(out, c.needs, strict=True))


def _adjoint_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    at, k, e, mine = _adjoint_parts(c)
    *tk, tw, tg = tangents
    each = at.per_gate(mine)
    shares = [None if t is None else mul(t, a) for t, a in zip(tk, each)]   # the first G of tk
    moved = None
    if any(s is not None for s in shares):
        moved = cat([zeros_like(k[0]) if s is None else s for s in shares], 1)
    back = _total([None if moved is None else prim("matmul", moved, at.w),
                   None if tw is None else prim("matmul", e, tw),
                   None if at.s == 2 or not at.leak or tk[at.g] is None
                   else mul(tk[at.g], mine[0])], k[0])
    drive = [back]
    more = []
    if at.s == 2:
        drive.append(zeros_like(back) if tk[4] is None else mul(tk[4], mine[1]))
        if tk[5] is not None:
            more.append(at.as_states([zeros_like(back), mul(tk[5], mine[0])], at.own))
    given = _total([tg, at.as_states(drive, at.before), *more], c.inputs[-1])
    flat = prim("recur_adjoint", *k, at.w, given, attrs=c.attrs)
    if moved is None:
        return flat
    size = at.rows * at.g * at.h
    return add(flat, prim("pad", reshape(moved, (size,)),
                          attrs=((0,), (flat.shape[0] - size,), 0), shape=flat.shape))


# ---------------------------------------------------------------- samples

_SIZES = ((1, 1, 1), (2, 3, 2), (3, 1, 5), (3, 2, 18))


def _samples(name: str) -> Any:
    def samples(make: Any) -> list[Sample]:
        out = []
        for number, (cell, kind) in enumerate(CELLS.items()):
            if name == "recur_gates" and not kind.kept:
                continue
            for t, n, h in _SIZES:
                g, s, each = kind.products, kind.states, coefficients(cell)
                states = (s, (t + 1) * n, h)
                shapes = {
                    "recur": [(t * n, g * h), (g * h, h), (n, h),
                              *([(n, h)] if s == 2 else [(h,)] if cell == "gru" else [])],
                    "recur_gates": [(t * n, g * h), (g * h, h),
                                    *([(h,)] if cell == "gru" else []), states],
                    "recur_linear": [*[(t * n, h)] * each, (g * h, h), *[(t * n, h)] * s,
                                     *[(n, h)] * s],
                    "recur_adjoint": [*[(t * n, h)] * each, (g * h, h), states]}[name]
                out.append(Sample(tuple([make(*x, low=-1, high=1) for x in shapes]),
                                  (cell, t, bool((number + t) % 2))))
        return out
    return samples


def _recur_saves(attrs: _Attrs) -> tuple[str, ...]:
    return {"lstm": ("in0", "in1", "out"), "gru": ("in0", "in1", "in3", "out")}.get(
        attrs[0], ("in1", "out"))


def _gates_saves(attrs: _Attrs) -> tuple[str, ...]:
    return ("in1", "in3" if attrs[0] == "gru" else "in2", "out")


def _coefficients_saved(attrs: _Attrs) -> tuple[str, ...]:
    return (*[f"in{k}" for k in range(coefficients(attrs[0]) + 1)], "out")


def _terms(specs: Sequence[Spec], attrs: tuple[Any, ...], out: Spec) -> int:
    # Each row of the input meets each row of the weight.
    return specs[0].numel * specs[1].shape[-1] // max(out.numel, 1)


register("recur", "recurrence", _infer_recur, recur_meaning, vjp=_recur_vjp, jvp=_recur_jvp,
         saves=_recur_saves, samples=_samples("recur"), batch=one_by_one, terms=_terms)
register("recur_gates", "recurrence", _infer_gates, gates_meaning, vjp=_gates_vjp,
         jvp=_gates_jvp, saves=_gates_saves, samples=_samples("recur_gates"),
         batch=one_by_one, terms=_terms)
register("recur_linear", "recurrence", _infer_linear, linear_meaning, vjp=_linear_vjp,
         jvp=_linear_jvp, saves=_coefficients_saved, samples=_samples("recur_linear"),
         batch=one_by_one, terms=_terms)
register("recur_adjoint", "recurrence", _infer_adjoint, adjoint_meaning,
         vjp=_adjoint_vjp, jvp=_adjoint_jvp, saves=_coefficients_saved,
         samples=_samples("recur_adjoint"), batch=one_by_one, terms=_terms)
