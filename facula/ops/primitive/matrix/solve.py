"""Inverses, solutions of linear systems, determinants and functions of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facula.errors import ShapeError
from facula.graph.spec import Spec, spec
from facula.ops.primitive.matrix import routines
from facula.ops.primitive.matrix.forward import from_backward
from facula.ops.primitive.matrix.packed import (
    Shapes,
    batched,
    matrix,
    pack,
    packed_spec,
    square,
    stack,
    unpack,
)
from facula.ops.primitive.matrix.rules import (
    adjoint,
    mm,
    real,
    transposed,
    tril,
    triu,
)
from facula.ops.primitive.record import _count, register
from facula.ops.primitive.rules import (
    add,
    along,
    cat,
    conj,
    expand,
    mul,
    neg,
    prim,
    reshape,
    sub,
    sum_,
    zeros_like,
)

__all__ = ["inv_shapes", "solve_shapes", "inverted"]

Arrays = Sequence[np.ndarray]
Attrs = tuple[Any, ...]


# ---------------------------------------------------------------- the inverse

def inv_shapes(n: int) -> Shapes:
    """The inverse and the error code."""
    return ((n, n), (1,))


def inverted(a: Any) -> Any:
    """The inverse of a tensor's matrices."""
    return unpack(prim("inv", a), inv_shapes(a.shape[-1]))[0]


def _infer_inv(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("linalg.inv", specs, 1)
    batch, n = square("linalg.inv", specs)
    return packed_spec(batch, inv_shapes(n), specs[0].dtype)


def _inv(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    return pack(routines.inverse(stack(arrays[0])), out)


def _inv_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    shapes = inv_shapes(c.inputs[0].shape[-1])
    back = adjoint(unpack(c.out, shapes)[0])
    return (neg(mm(mm(back, unpack(g, shapes)[0]), back)),)


register("inv", "matrix", _infer_inv, _inv, vjp=_inv_vjp,
         jvp=from_backward(_inv_vjp), saves=("out",))


# ---------------------------------------------------------------- linear systems

def solve_shapes(n: int, k: int) -> Shapes:
    """The solution and the error code."""
    return ((n, k), (1,))


def _infer_solve(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    batched("linalg.solve", specs)
    batch, n = square("linalg.solve", specs)
    rows, k = specs[1].shape[-2:]
    if rows != n:
        raise ShapeError(f"linalg.solve: Incompatible shapes of A and B for the equation AX = B "
                         f"({n}x{n} and {rows}x{k})")
    return packed_spec(batch, solve_shapes(n, k), specs[0].dtype)


def _solve(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    return pack(routines.solve(stack(arrays[0]), stack(arrays[1])), out)


def _solve_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    a, b = c.inputs
    shapes = solve_shapes(*b.shape[-2:])
    gb = unpack(prim("solve", adjoint(a), unpack(g, shapes)[0]), shapes)[0]
    ga = neg(mm(gb, adjoint(unpack(c.out, shapes)[0]))) if c.needs[0] else None
    return ga, gb if c.needs[1] else None


register("solve", "matrix", _infer_solve, _solve, vjp=_solve_vjp,
         jvp=from_backward(_solve_vjp), saves=("in0", "out"),
         saves_for=(("in0", "out"), ("in0",)))


def _infer_triangular(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    batched("linalg.solve_triangular", specs)
    _, n = square("linalg.solve_triangular", specs)
    if specs[1].shape[-2] != n:
        raise ShapeError("linalg.solve_triangular: Incompatible shapes of A and B for the "
                         f"equation AX = B ({n}x{n} and "
                         f"{'x'.join(map(str, specs[1].shape[-2:]))})")
    return specs[1]


def _triangular(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    return routines.solve_triangular(arrays[0], arrays[1], *attrs[:2])


def _triangular_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    """With a third attribute the gradient of the triangle that is not read is given too."""
    upper, unit, *whole = c.attrs
    gb = prim("solve_triangular", adjoint(c.inputs[0]), g, attrs=(not upper, unit, *whole))
    ga = None
    if c.needs[0]:
        ga = neg(mm(gb, adjoint(c.out)))
    if c.needs[0] and not whole:
        ga = (triu if upper else tril)(ga, (1 if upper else -1) if unit else 0)
    return ga, gb if c.needs[1] else None


register("solve_triangular", "matrix", _infer_triangular, _triangular, vjp=_triangular_vjp,
         jvp=from_backward(_triangular_vjp),
         saves=("in0", "out"), saves_for=(("in0", "out"), ("in0",)))


# ---------------------------------------------------------------- determinants

def _infer_det(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("linalg.det", specs, 1)
    batch, _ = square("linalg.det", specs)
    return spec(batch, specs[0].dtype)


def _over(g: Any, a: Any) -> Any:
    """One number per matrix, over the whole matrix."""
    return expand(reshape(g, (*g.shape, 1, 1)), tuple(a.shape))


def _det_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    a = c.inputs[0]
    return (mul(_over(g, a), conj(prim("cofactor", a))),)


register("det", "matrix", _infer_det,
         lambda arrays, attrs, out: np.asarray(np.linalg.det(arrays[0])).astype(out.dtype.np),
         vjp=_det_vjp, jvp=from_backward(_det_vjp), saves=("in0",))


def _infer_cofactor(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    square("cofactor", specs)
    return specs[0]


def _cofactor_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    """The second derivative of the determinant; it takes an invertible matrix."""
    back = transposed(inverted(c.inputs[0]))
    w = conj(g)
    total = sum_(mul(w, c.out), (g.ndim - 2, g.ndim - 1))
    return (conj(sub(mul(_over(total, g), back), mm(mm(c.out, transposed(w)), back))),)


register("cofactor", "matrix", _infer_cofactor,
         lambda arrays, attrs, out: routines.cofactor(stack(arrays[0])).reshape(out.shape),
         vjp=_cofactor_vjp, jvp=from_backward(_cofactor_vjp), saves=("in0", "out"))


def _infer_slogdet(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("linalg.slogdet", specs, 1)
    batch, _ = square("linalg.slogdet", specs)
    return packed_spec(batch, ((1,), (1,)), specs[0].dtype)


def _slogdet(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    sign, log = np.linalg.slogdet(arrays[0])
    return np.stack([np.asarray(sign), np.asarray(log)], -1).astype(out.dtype.np)


def _slogdet_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    a = c.inputs[0]
    shapes: Shapes = ((), ())
    gsign, glog = unpack(g, shapes)
    if a.dtype.kind == "c":
        turn = prim("imag", mul(conj(gsign), unpack(c.out, shapes)[0]))
        scale = prim("complex", real(glog), neg(turn))
    else:
        scale = glog
    return (mul(_over(scale, a), adjoint(inverted(a))),)


register("slogdet", "matrix", _infer_slogdet, _slogdet, vjp=_slogdet_vjp,
         jvp=from_backward(_slogdet_vjp), saves=("in0", "out"))


# ---------------------------------------------------------------- the pseudo-inverse

def _infer_pinv(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("linalg.pinv", specs, 3)
    batch, m, n = matrix("linalg.pinv", specs[0])
    if attrs[0]:
        square("linalg.pinv", specs)
    return spec((*batch, n, m), specs[0].dtype)


def _pinv(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    a, atol, rtol = arrays
    try:
        got = routines.pseudo_inverse(stack(a), atol.reshape(-1), rtol.reshape(-1), attrs[0])
    except np.linalg.LinAlgError as error:
        from facula.errors import LinAlgError
        raise LinAlgError(f"linalg.pinv: {error}") from None
    return got.reshape(out.shape)


def _pinv_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    """G. H. Golub and V. Pereyra, "The differentiation of pseudo-inverses and nonlinear least
    squares problems whose variables separate" (1973); for matrices of constant rank."""
    a, p = c.inputs[0], c.out
    m, n = a.shape[-2:]
    ph, gh = adjoint(p), adjoint(g)
    if m <= n:
        k = mm(gh, p)
        kph = mm(k, ph)
        got = add(neg(adjoint(mm(p, k))), sub(kph, mm(mm(a, p), kph)))
        got = add(got, mm(mm(ph, p), sub(gh, mm(k, a))))
    else:
        k = mm(p, gh)
        phk = mm(ph, k)
        got = add(neg(adjoint(mm(k, p))), mm(mm(sub(gh, mm(a, k)), p), ph))
        got = add(got, sub(phk, mm(mm(phk, p), a)))
    return got, None, None


register("pinv", "matrix", _infer_pinv, _pinv, vjp=_pinv_vjp,
         jvp=from_backward(_pinv_vjp), saves=("in0", "out"))


# ---------------------------------------------------------------- the exponential

def _infer_exp(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("linalg.matrix_exp", specs, 1)
    square("linalg.matrix_exp", specs)
    return specs[0]


def _exp_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    """The corner of the exponential of [[a^H, g], [0, a^H]]."""
    ah = adjoint(c.inputs[0])
    n, axis = ah.shape[-1], ah.ndim
    top = cat([ah, g], axis - 1)
    low = cat([zeros_like(ah), ah], axis - 1)
    whole = prim("matrix_exp", cat([top, low], axis - 2))
    return (along(along(whole, axis - 2, 0, n), axis - 1, n, n),)


register("matrix_exp", "matrix", _infer_exp,
         lambda arrays, attrs, out: routines.matrix_exp(stack(arrays[0])).reshape(out.shape),
         vjp=_exp_vjp, jvp=from_backward(_exp_vjp), saves=("in0",))


# ---------------------------------------------------------------- a check within a program

def _infer_checked(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("checked", specs, 2)
    return specs[0]


def _checked(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    code = arrays[1].reshape(-1)
    bad = np.flatnonzero(code)
    if bad.size:
        from facula.errors import LinAlgError
        where = f"(Batch element {bad[0]}): " if arrays[1].ndim else ""
        raise LinAlgError(f"{attrs[0]}: {where}{attrs[1].format(int(code[bad[0]]))}")
    return arrays[0]


register("checked", "matrix", _infer_checked, _checked, vjp=lambda c, g: (g, None),
         jvp=lambda c, t: zeros_like(c.out) if t[0] is None else t[0])
