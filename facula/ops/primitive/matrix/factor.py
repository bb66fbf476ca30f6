"""Factorisations, each packed into one value, with their derivatives.

Derivatives: M. B. Giles, "Collected matrix derivative results for forward and reverse mode
algorithmic differentiation" (2008), and for complex matrices PyTorch's conventions.  Vectors
that a degenerate matrix does not determine receive a derivative only where a gradient arrives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facula.graph.spec import Spec
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
    corner,
    diagonal,
    diagonal_matrix,
    mm,
    real,
    safe_div,
    scale_columns,
    scale_rows,
    solve_upper,
    transposed,
    tril,
    triu,
)
from facula.ops.primitive.record import _count, register
from facula.ops.primitive.rules import (
    add,
    along,
    cast,
    cat,
    conj,
    expand,
    mul,
    prim,
    reshape,
    sub,
    times,
)

__all__ = ["cholesky_shapes", "lu_shapes", "qr_shapes", "eigh_shapes", "eig_shapes", "svd_shapes",
           "geqrf_shapes", "ldl_shapes"]

Arrays = Sequence[np.ndarray]
Attrs = tuple[Any, ...]


# ---------------------------------------------------------------- Cholesky

def cholesky_shapes(n: int) -> Shapes:
    """The lower factor and the error code."""
    return ((n, n), (1,))


def _infer_cholesky(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("linalg.cholesky", specs, 1)
    batch, n = square("linalg.cholesky", specs)
    return packed_spec(batch, cholesky_shapes(n), specs[0].dtype)


def _cholesky(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    return pack(routines.cholesky(stack(arrays[0])), out)


def _cholesky_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    shapes = cholesky_shapes(c.inputs[0].shape[-1])
    low, gl = unpack(c.out, shapes)[0], unpack(g, shapes)[0]
    phi = tril(mm(adjoint(low), gl))
    phi = sub(phi, times(diagonal_matrix(diagonal(phi)), 0.5))
    phi = add(phi, adjoint(phi))
    up = adjoint(low)
    # up^-1 phi low^-1, with phi hermitian
    half = solve_upper(up, phi)
    return (times(adjoint(solve_upper(up, adjoint(half))), 0.5),)


register("cholesky", "matrix", _infer_cholesky, _cholesky, vjp=_cholesky_vjp,
         jvp=from_backward(_cholesky_vjp), saves=("out",))


# ---------------------------------------------------------------- LU

def lu_shapes(m: int, n: int) -> Shapes:
    """Both triangles in one matrix, the pivots (from 1) and the error code."""
    return ((m, n), (min(m, n),), (1,))


def _infer_lu(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("linalg.lu_factor", specs, 1)
    batch, m, n = matrix("linalg.lu_factor", specs[0])
    return packed_spec(batch, lu_shapes(m, n), specs[0].dtype)


def _lu(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    return pack(routines.lu(stack(arrays[0])), out)


def _lu_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    m, n = c.inputs[0].shape[-2:]
    k = min(m, n)
    shapes = lu_shapes(m, n)
    both, pivots, _ = unpack(c.out, shapes)
    gboth = unpack(g, shapes)[0]
    low, glow = tril(corner(both, m, k), -1), tril(corner(gboth, m, k), -1)
    up, gup = triu(corner(both, k, n)), triu(corner(gboth, k, n))
    low_h, up_h = adjoint(corner(low, k, k)), adjoint(corner(up, k, k))
    one_h = add(low_h, diagonal_matrix(prim("full", attrs=(1.0,), shape=tuple(low.shape[:-2])
                                            + (k,), dtype=low.dtype)))
    if m == n:
        phi = add(tril(mm(one_h, glow), -1), triu(mm(gup, adjoint(up))))
        got = solve_upper(one_h, _over_lower(phi, up_h), True)
    elif m < n:
        up2, gup2 = along(up, up.ndim - 1, k, n - k), along(gup, up.ndim - 1, k, n - k)
        phi = add(tril(sub(mm(one_h, glow), mm(gup2, adjoint(up2))), -1),
                  triu(mm(corner(gup, k, k), up_h)))
        left = _over_lower(phi, up_h)
        got = solve_upper(one_h, cat([left, gup2], up.ndim - 1), True)
    else:
        axis = low.ndim - 2
        low2, glow2 = along(low, axis, k, m - k), along(glow, axis, k, m - k)
        phi = add(tril(mm(one_h, corner(glow, k, k)), -1),
                  triu(sub(mm(gup, adjoint(up)), mm(adjoint(low2), glow2))))
        top = solve_upper(one_h, phi, True)
        got = _over_lower(cat([top, glow2], axis), up_h)
    return (permuted_rows(got, real(pivots), True),)


def _over_lower(x: Any, low: Any) -> Any:
    """x times the inverse of a lower triangular matrix."""
    return transposed(solve_upper(transposed(low), transposed(x)))


def permuted_rows(x: Any, pivots: Any, inverse: bool) -> Any:
    """The rows of x after the swaps that `pivots` lists, or before them."""
    from facula.dtype import int64
    n = x.shape[-2]
    order = prim("pivot_order", cast(pivots, int64), attrs=(n, inverse))
    index = expand(reshape(order, (*order.shape, 1)), tuple(x.shape))
    return prim("gather", x, index, attrs=(x.ndim - 2,))


register("lu", "matrix", _infer_lu, _lu, vjp=_lu_vjp, jvp=from_backward(_lu_vjp), saves=("out",))


def _infer_order(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    from facula.graph.spec import spec
    _count("pivot_order", specs, 1)
    return spec((*specs[0].shape[:-1], attrs[0]), specs[0].dtype)


def _order(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    n, inverse = attrs
    pivots = arrays[0].reshape(int(np.prod(out.shape[:-1])), arrays[0].shape[-1])
    order = routines.permutation(pivots, n)
    if inverse:
        order = np.argsort(order, -1)
    return order.reshape(out.shape).astype(out.dtype.np)


register("pivot_order", "matrix", _infer_order, _order)


# ---------------------------------------------------------------- QR

def qr_shapes(m: int, n: int, complete: bool) -> Shapes:
    """Q and R."""
    k = m if complete else min(m, n)
    return ((m, k), (k, n))


def _infer_qr(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("linalg.qr", specs, 1)
    batch, m, n = matrix("linalg.qr", specs[0])
    return packed_spec(batch, qr_shapes(m, n, attrs[0]), specs[0].dtype)


def _qr(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    a = arrays[0]
    m, n = a.shape[-2:]
    if min(m, n) == 0:
        k = m if attrs[0] else 0
        q = np.broadcast_to(np.eye(m, k), (*a.shape[:-2], m, k))
        return pack([q, np.zeros((*a.shape[:-2], k, n))], out)
    return pack(np.linalg.qr(a, "complete" if attrs[0] else "reduced"), out)


def _qr_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    m, n = c.inputs[0].shape[-2:]
    shapes = qr_shapes(m, n, c.attrs[0])
    (q, r), (gq, gr) = unpack(c.out, shapes), unpack(g, shapes)
    if c.attrs[0] and m > n:
        from facula.errors import GradientError
        raise GradientError("The QR decomposition is not differentiable when mode='complete' and "
                            "nrows > ncols")
    if m >= n:
        return (_qr_tall(q, r, gq, gr),)
    axis = r.ndim - 1
    left, grl = along(r, axis, 0, m), along(gr, axis, 0, m)
    grr = along(gr, axis, m, n - m)
    y = along(c.inputs[0], axis, m, n - m)
    gx = _qr_tall(q, left, add(gq, mm(y, adjoint(grr))), grl)
    return (cat([gx, mm(q, grr)], axis),)


def _qr_tall(q: Any, r: Any, gq: Any, gr: Any) -> Any:
    x = triu(sub(mm(gr, adjoint(r)), mm(adjoint(q), gq)))
    half = add(x, adjoint(triu(x, 1)))
    if half.dtype.kind == "c":
        d = diagonal(half)
        half = sub(half, diagonal_matrix(sub(d, cast(real(d), d.dtype))))
    rest = add(gq, mm(q, half))
    # rest times the inverse of R^H: R^-1 on the other side of the adjoint
    return adjoint(solve_upper(r, adjoint(rest)))


register("qr", "matrix", _infer_qr, _qr, vjp=_qr_vjp,
         jvp=from_backward(_qr_vjp), saves=("in0", "out"))


def geqrf_shapes(m: int, n: int) -> Shapes:
    """R above the reflectors, and their factors tau."""
    return ((m, n), (min(m, n),))


def _infer_geqrf(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("geqrf", specs, 1)
    batch, m, n = matrix("geqrf", specs[0])
    return packed_spec(batch, geqrf_shapes(m, n), specs[0].dtype)


def _geqrf(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    a = arrays[0]
    if not a.size:
        return np.zeros(out.shape, out.dtype.np)
    h, tau = np.linalg.qr(a, "raw")
    return pack([np.swapaxes(h, -1, -2), tau], out)


register("geqrf", "matrix", _infer_geqrf, _geqrf)


# ---------------------------------------------------------------- eigenvalues

def eigh_shapes(n: int) -> Shapes:
    """Ascending eigenvalues, and the matrix whose columns are the eigenvectors."""
    return ((n,), (n, n))


def _converged(fn: Any, name: str) -> Any:
    """Call NumPy; its error is PyTorch's."""
    from facula.errors import LinAlgError
    try:
        return fn()
    except np.linalg.LinAlgError as error:
        raise LinAlgError(f"{name}: The algorithm failed to converge because the input matrix "
                          f"is ill-conditioned or has non-finite values ({error})") from None


def _infer_eigh(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("linalg.eigh", specs, 1)
    batch, n = square("linalg.eigh", specs)
    return packed_spec(batch, eigh_shapes(n), specs[0].dtype)


def _eigh(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    return pack(_converged(lambda: np.linalg.eigh(arrays[0], attrs[0]), "linalg.eigh"), out)


def _eigh_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    shapes = eigh_shapes(c.inputs[0].shape[-1])
    (w, v), (gw, gv) = unpack(c.out, shapes), unpack(g, shapes)
    inner = times(_skew(mm(adjoint(v), gv)), 0.5)
    off = sub(inner, diagonal_matrix(diagonal(inner)))
    inner = add(safe_div(off, _gaps(w)), diagonal_matrix(cast(real(gw), inner.dtype)))
    return (mm(mm(v, inner), adjoint(v)),)


def _gaps(w: Any) -> Any:
    """w[j] - w[i] over [i, j]; whole matrices."""
    n = w.shape[-1]
    shape = (*w.shape, n)
    return sub(expand(reshape(w, (*w.shape[:-1], 1, n)), shape),
               expand(reshape(w, (*w.shape, 1)), shape))


register("eigh", "matrix", _infer_eigh, _eigh, vjp=_eigh_vjp,
         jvp=from_backward(_eigh_vjp), saves=("out",))


def _infer_eigvalsh(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    from facula.graph.spec import spec
    _count("linalg.eigvalsh", specs, 1)
    batch, n = square("linalg.eigvalsh", specs)
    return spec((*batch, n), specs[0].dtype.to_real())


def _eigvalsh(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    return np.asarray(_converged(lambda: np.linalg.eigvalsh(arrays[0], attrs[0]),
                                 "linalg.eigvalsh"))


def _eigvalsh_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    a = c.inputs[0]
    v = unpack(prim("eigh", a, attrs=c.attrs), eigh_shapes(a.shape[-1]))[1]
    return (mm(scale_columns(v, g), adjoint(v)),)


register("eigvalsh", "matrix", _infer_eigvalsh, _eigvalsh, vjp=_eigvalsh_vjp,
         jvp=from_backward(_eigvalsh_vjp), saves=("in0",))


def eig_shapes(n: int) -> Shapes:
    """Eigenvalues in no order, and the matrix whose columns are the eigenvectors of norm 1."""
    return ((n,), (n, n))


def _infer_eig(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("linalg.eig", specs, 1)
    batch, n = square("linalg.eig", specs)
    return packed_spec(batch, eig_shapes(n), specs[0].dtype.to_complex())


def _eig(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    return pack(_eig_of(arrays[0], np.linalg.eig), out)


def _eig_of(a: np.ndarray, fn: Any) -> Any:
    from facula.errors import LinAlgError
    if not np.isfinite(a).all():
        raise LinAlgError("linalg.eig: input tensor should not contain infs or NaNs.")
    return _converged(lambda: fn(a), "linalg.eig")


def _onto(c: Any, g: Any) -> Any:
    """A gradient in the dtype of a real input."""
    return real(g) if c.inputs[0].dtype.kind != "c" else g


def _eig_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    shapes = eig_shapes(c.inputs[0].shape[-1])
    (w, v), (gw, gv) = unpack(c.out, shapes), unpack(g, shapes)
    vh = adjoint(v)
    inner = mm(vh, gv)
    # Eigenvectors have norm 1: what would only stretch them is taken out.
    inner = sub(inner, scale_columns(mm(vh, v), cast(real(diagonal(inner)), inner.dtype)))
    off = sub(inner, diagonal_matrix(diagonal(inner)))
    inner = add(safe_div(off, conj(_gaps(w))), diagonal_matrix(gw))
    return (_onto(c, solved(vh, mm(inner, vh))),)


def solved(a: Any, b: Any) -> Any:
    """The inverse of a times b."""
    shapes = (tuple(b.shape[-2:]), (1,))
    return unpack(prim("solve", a, b), shapes)[0]


register("eig", "matrix", _infer_eig, _eig, vjp=_eig_vjp,
         jvp=from_backward(_eig_vjp), saves=("out",))


def _infer_eigvals(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    from facula.graph.spec import spec
    _count("linalg.eigvals", specs, 1)
    batch, n = square("linalg.eigvals", specs)
    return spec((*batch, n), specs[0].dtype.to_complex())


def _eigvals(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    return np.asarray(_eig_of(arrays[0], np.linalg.eigvals)).astype(out.dtype.np, copy=False)


def _eigvals_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    a = c.inputs[0]
    v = unpack(prim("eig", a), eig_shapes(a.shape[-1]))[1]
    vh = adjoint(v)
    return (_onto(c, solved(vh, scale_rows(vh, g))),)


register("eigvals", "matrix", _infer_eigvals, _eigvals, vjp=_eigvals_vjp,
         jvp=from_backward(_eigvals_vjp), saves=("in0",))


# ---------------------------------------------------------------- singular values

def svd_shapes(m: int, n: int, full: bool) -> Shapes:
    """U, the descending singular values and V^H."""
    k = min(m, n)
    return ((m, m if full else k), (k,), (n if full else k, n))


def _infer_svd(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("linalg.svd", specs, 1)
    batch, m, n = matrix("linalg.svd", specs[0])
    return packed_spec(batch, svd_shapes(m, n, attrs[0]), specs[0].dtype)


def _svd(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    a = arrays[0]
    m, n = a.shape[-2:]
    if min(m, n) == 0:
        u, s, v = (np.broadcast_to(np.eye(*shape) if len(shape) == 2 else np.zeros(shape),
                                   (*a.shape[:-2], *shape))
                   for shape in svd_shapes(m, n, attrs[0]))
        return pack([u, s, v], out)
    return pack(_converged(lambda: np.linalg.svd(a, attrs[0]), "linalg.svd"), out)


def _skew(x: Any) -> Any:
    return sub(x, adjoint(x))


def _svd_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    m, n = c.inputs[0].shape[-2:]
    k = min(m, n)
    shapes = svd_shapes(m, n, c.attrs[0])
    (u, s, vh), (gu, gs, gvh) = unpack(c.out, shapes), unpack(g, shapes)
    u, gu = corner(u, m, k), corner(gu, m, k)
    vh, gvh = corner(vh, k, n), corner(gvh, k, n)
    s = cast(real(s), u.dtype)
    left, right = _skew(mm(adjoint(u), gu)), _skew(mm(vh, adjoint(gvh)))
    # In the complex case both bases may turn by the same phase; what turns them is left out.
    phase = diagonal(left)
    inner = add(scale_columns(left, s), scale_rows(right, s))
    inner = sub(inner, diagonal_matrix(diagonal(inner)))
    inner = safe_div(inner, _gaps(mul(s, s)))
    gs = cast(real(gs), u.dtype)
    if u.dtype.kind == "c":
        gs = add(gs, safe_div(phase, times(s, 2)))
    inner = add(inner, diagonal_matrix(gs))
    if m > k:
        scaled = safe_div(gu, _columns(s, gu))
        out = add(mm(u, inner), sub(scaled, mm(u, mm(adjoint(u), scaled))))
        return (mm(out, vh),)
    if n > k:
        scaled = safe_div(gvh, _rows(s, gvh))
        out = add(mm(inner, vh), sub(scaled, mm(mm(scaled, adjoint(vh)), vh)))
        return (mm(u, out),)
    return (mm(mm(u, inner), vh),)


def _columns(v: Any, like: Any) -> Any:
    return expand(reshape(v, (*v.shape[:-1], 1, v.shape[-1])), tuple(like.shape))


def _rows(v: Any, like: Any) -> Any:
    return expand(reshape(v, (*v.shape, 1)), tuple(like.shape))


register("svd", "matrix", _infer_svd, _svd, vjp=_svd_vjp,
         jvp=from_backward(_svd_vjp), saves=("out",))


def _infer_svdvals(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    from facula.graph.spec import spec
    _count("linalg.svdvals", specs, 1)
    batch, m, n = matrix("linalg.svdvals", specs[0])
    return spec((*batch, min(m, n)), specs[0].dtype.to_real())


def _svdvals(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    a = arrays[0]
    if not out.numel:
        return np.zeros(out.shape, out.dtype.np)
    return np.asarray(_converged(lambda: np.linalg.svd(a, compute_uv=False), "linalg.svdvals"))


def _svdvals_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    a = c.inputs[0]
    u, _, vh = unpack(prim("svd", a, attrs=(False,)), svd_shapes(a.shape[-2], a.shape[-1], False))
    return (mm(scale_columns(u, g), vh),)


register("svdvals", "matrix", _infer_svdvals, _svdvals, vjp=_svdvals_vjp,
         jvp=from_backward(_svdvals_vjp), saves=("in0",))


# ---------------------------------------------------------------- LDL

def ldl_shapes(n: int) -> Shapes:
    """The factors, the pivots and the error code."""
    return ((n, n), (n,), (1,))


def _infer_ldl(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("linalg.ldl_factor", specs, 1)
    batch, n = square("linalg.ldl_factor", specs)
    return packed_spec(batch, ldl_shapes(n), specs[0].dtype)


def _ldl(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    return pack(routines.ldl(stack(arrays[0]), attrs[0]), out)


register("ldl", "matrix", _infer_ldl, _ldl)


def _infer_ldl_solve(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("linalg.ldl_solve", specs, 3)
    batched("linalg.ldl_solve", (specs[0], specs[2]))
    return specs[2]


def _ldl_solve(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    f, pivots, b = arrays
    n = f.shape[-1]
    x = routines.ldl_solve(stack(f), pivots.reshape(-1, n) if n else pivots.reshape(
        int(np.prod(f.shape[:-2])), 0), stack(b), attrs[0])
    return x.reshape(out.shape)


register("ldl_solve", "matrix", _infer_ldl_solve, _ldl_solve,
         vjp=lambda c, g: (None, None, prim(
             "ldl_solve", *c.inputs[:2], g, attrs=c.attrs) if c.inputs[0].dtype.kind != "c"
             or c.attrs[0] else conj(prim("ldl_solve", *c.inputs[:2], conj(g), attrs=c.attrs))),
         saves=("in0", "in1"))
