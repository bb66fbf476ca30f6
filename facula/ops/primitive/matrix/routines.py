"""The routines of LAPACK that NumPy does not offer, for arrays [batch, rows, columns]."""

from __future__ import annotations

import numpy as np

__all__ = ["lu", "cholesky", "solve_triangular", "solve", "inverse", "permutation", "ldl",
           "ldl_solve", "matrix_exp", "pseudo_inverse", "cofactor"]

_BLOCK = 64


def _size(x: np.ndarray) -> np.ndarray:
    """|x|, for which LAPACK takes |re| + |im| of complex numbers when it looks for a pivot."""
    return np.abs(x.real) + np.abs(x.imag) if x.dtype.kind == "c" else np.abs(x)


def lu(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaussian elimination with row pivoting: (factors, pivots from 1, error codes).

    The code of a matrix is the number of its first pivot that is zero, or 0.
    """
    out = a.copy()
    count, m, n = out.shape
    k = min(m, n)
    pivots = np.zeros((count, k), np.int64)
    info = np.zeros(count, np.int64)
    each = np.arange(count)
    for j in range(k):
        column = out[:, j:, j]
        size = _size(column)
        p = np.argmax(np.where(np.isnan(size), -1.0, size), 1) + j
        pivots[:, j] = p + 1
        rows = out[each, p]
        out[each, p] = out[:, j]
        out[:, j] = rows
        pivot = out[:, j, j]
        zero = pivot == 0
        info[zero & (info == 0)] = j + 1
        scale = np.where(zero, 1, pivot)
        out[:, j + 1:, j] /= scale[:, None]
        if j + 1 < n:
            out[:, j + 1:, j + 1:] -= out[:, j + 1:, j, None] * out[:, j, None, j + 1:]
    return out, pivots, info


def permutation(pivots: np.ndarray, n: int) -> np.ndarray:
    """Row swaps (from 1) as the order they put the rows in: [batch, n] int64."""
    count = pivots.shape[0]
    order = np.tile(np.arange(n), (count, 1))
    each = np.arange(count)
    for j in range(pivots.shape[1]):
        p = pivots[:, j].astype(np.int64) - 1
        here = order[each, p]
        order[each, p] = order[:, j]
        order[:, j] = here
    return order


def cholesky(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(lower factor, error codes): the code is the order of the first minor that is not positive.

    Reads the lower triangle.
    """
    info = np.zeros(a.shape[0], np.int64)
    try:
        return np.linalg.cholesky(a), info
    except np.linalg.LinAlgError:
        pass
    out = np.tril(a)
    for b in range(a.shape[0]):
        try:
            out[b] = np.linalg.cholesky(a[b])
        except np.linalg.LinAlgError:
            low = 0
            for order in range(1, a.shape[-1] + 1):
                try:
                    out[b, :order, :order] = np.linalg.cholesky(a[b, :order, :order])
                    low = order
                except np.linalg.LinAlgError:
                    break
            info[b] = low + 1
    return out, info


def solve_triangular(a: np.ndarray, b: np.ndarray, upper: bool, unit: bool) -> np.ndarray:
    """Substitution by blocks; the other triangle of `a` (and a unit diagonal) is not read."""
    n = a.shape[-1]
    if n == 0 or b.size == 0:
        return b.copy()
    if not upper:                       # reversing both dimensions makes it upper triangular
        return solve_triangular(a[..., ::-1, ::-1], b[..., ::-1, :], True, unit)[..., ::-1, :]
    if n > _BLOCK:
        h = n // 2
        low = solve_triangular(a[..., h:, h:], b[..., h:, :], True, unit)
        top = solve_triangular(a[..., :h, :h], b[..., :h, :] - a[..., :h, h:] @ low, True, unit)
        return np.concatenate([top, low], -2)
    x = b.astype(b.dtype, copy=True)
    for i in range(n - 1, -1, -1):
        if not unit:
            x[..., i, :] /= a[..., i, i, None]
        if i:
            x[..., :i, :] -= a[..., :i, i, None] * x[..., i, None, :]
    return x


def solve(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(solution of a x = b, error codes); NaN where a matrix is singular."""
    info = np.zeros(a.shape[0], np.int64)
    try:
        return np.linalg.solve(a, b), info
    except np.linalg.LinAlgError:
        out = np.full(b.shape, np.nan, b.dtype)
        for i in range(a.shape[0]):
            try:
                out[i] = np.linalg.solve(a[i], b[i])
            except np.linalg.LinAlgError:
                info[i] = max(lu(a[i:i + 1])[2][0], 1)
    return out, info


def inverse(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(inverse, error codes); infinity where a matrix is singular."""
    info = np.zeros(a.shape[0], np.int64)
    try:
        return np.linalg.inv(a), info
    except np.linalg.LinAlgError:
        out = np.full(a.shape, np.inf, a.dtype)
        for i in range(a.shape[0]):
            try:
                out[i] = np.linalg.inv(a[i])
            except np.linalg.LinAlgError:
                info[i] = max(lu(a[i:i + 1])[2][0], 1)
    return out, info


def cofactor(a: np.ndarray) -> np.ndarray:
    """The derivative of det: det(a) times the transposed inverse, also where that is singular.

    From the singular values: each is left out of the product in turn.
    """
    n = a.shape[-1]
    if n == 0 or a.size == 0:
        return np.zeros_like(a)
    u, s, vh = np.linalg.svd(a)
    sign = np.linalg.det(u) * np.linalg.det(vh)
    before = np.concatenate([np.ones_like(s[:, :1]), np.cumprod(s[:, :-1], 1)], 1)
    after = np.concatenate([np.cumprod(s[:, :0:-1], 1)[:, ::-1], np.ones_like(s[:, :1])], 1)
    rest = before * after
    return np.conj((np.conj(sign)[:, None, None] * u * rest[:, None, :]) @ vh).astype(a.dtype)


def pseudo_inverse(a: np.ndarray, atol: np.ndarray, rtol: np.ndarray, hermitian: bool
                   ) -> np.ndarray:
    """Moore and Penrose's inverse without the singular values up to max(atol, rtol * largest)."""
    if a.size == 0:
        return np.zeros((a.shape[0], a.shape[2], a.shape[1]), a.dtype)
    if hermitian:
        w, v = np.linalg.eigh(a)
        size = np.abs(w)
        keep = size > np.maximum(atol, rtol * size.max(-1))[:, None]
        turned = np.where(keep, 1 / np.where(keep, w, 1), 0)
        return ((v * turned[:, None, :]) @ np.conj(np.swapaxes(v, -1, -2))).astype(a.dtype)
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    keep = s > np.maximum(atol, rtol * s.max(-1))[:, None]
    turned = np.where(keep, 1 / np.where(keep, s, 1), 0)
    v = np.conj(np.swapaxes(vh, -1, -2))
    return ((v * turned[:, None, :]) @ np.conj(np.swapaxes(u, -1, -2))).astype(a.dtype)


# ---------------------------------------------------------------- the exponential

_PADE = (64764752532480000., 32382376266240000., 7771770303897600., 1187353796428800.,
         129060195264000., 10559470521600., 670442572800., 33522128640., 1323241920., 40840800.,
         960960., 16380., 182., 1.)


def matrix_exp(a: np.ndarray) -> np.ndarray:
    """Scaling and squaring with the Pade approximant of degree 13.

    N. J. Higham, "The scaling and squaring method for the matrix exponential revisited" (2005).
    """
    if a.size == 0:
        return a.copy()
    x = a.astype(np.complex128 if a.dtype.kind == "c" else np.float64)
    size = np.abs(x).sum(-2).max(-1)
    bad = ~np.isfinite(size)
    if bad.any():
        x[bad], size = 0, np.where(bad, 0, size)
    times = np.maximum(np.ceil(np.log2(np.maximum(size, 1e-300) / 5.4)), 0).astype(int)
    x = x / (2.0 ** times)[:, None, None]
    one = np.eye(a.shape[-1])
    x2 = x @ x
    x4 = x2 @ x2
    x6 = x4 @ x2
    b = _PADE
    odd = x @ (x6 @ (b[13] * x6 + b[11] * x4 + b[9] * x2) + b[7] * x6 + b[5] * x4 + b[3] * x2
               + b[1] * one)
    even = x6 @ (b[12] * x6 + b[10] * x4 + b[8] * x2) + b[6] * x6 + b[4] * x4 + b[2] * x2 \
        + b[0] * one
    out = np.linalg.solve(even - odd, even + odd)
    for k in range(int(times.max(initial=0))):
        more = (times > k)[:, None, None]
        out = np.where(more, out @ out, out)
    if bad.any():
        out[bad] = np.nan
    return out.astype(a.dtype)


# ---------------------------------------------------------------- symmetric indefinite matrices

_ALPHA = (1 + 17 ** 0.5) / 8


def ldl(a: np.ndarray, hermitian: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bunch and Kaufman's diagonal pivoting over the lower triangles: (factors, pivots, codes).

    J. R. Bunch and L. Kaufman, "Some stable methods for calculating inertia and solving symmetric
    linear systems" (1977), laid out as LAPACK does: pivot p > 0 is a 1 by 1 block whose row was
    swapped with row p, two equal pivots -p a 2 by 2 block whose second row was.
    """
    out = np.tril(a)
    pivots = np.zeros(a.shape[:2], np.int64)
    info = np.zeros(a.shape[0], np.int64)
    for b in range(a.shape[0]):
        info[b] = _ldl_one(out[b], pivots[b], hermitian)
    return out, pivots, info


def _ldl_one(a: np.ndarray, pivots: np.ndarray, hermitian: bool) -> int:
    flip = np.conj if hermitian else np.asarray
    n, k, info = a.shape[0], 0, 0
    while k < n:
        if hermitian:
            a[k, k] = a[k, k].real
        step, p = 1, k
        own = _size(a[k, k])
        below = _size(a[k + 1:, k])
        largest = below.max() if below.size else 0.0
        if max(own, largest) == 0:
            info = info or k + 1
        elif own < _ALPHA * largest:
            at = k + 1 + int(np.argmax(below))
            across = max(_size(a[at, k:at]).max(), _size(a[at + 1:, at]).max(initial=0.0))
            if own < _ALPHA * largest * (largest / across):
                p = at
                step = 1 if _size(a[at, at]) >= _ALPHA * across else 2
        last = k + step - 1
        if p != last:
            a[p + 1:, [last, p]] = a[p + 1:, [p, last]]
            between = a[last + 1:p, last].copy()
            a[last + 1:p, last] = flip(a[p, last + 1:p])
            a[p, last + 1:p] = flip(between)
            a[p, last] = flip(a[p, last])
            a[last, last], a[p, p] = a[p, p], a[last, last]
            if step == 2:
                a[k + 1, k], a[p, k] = a[p, k], a[k + 1, k]
        if max(own, largest) != 0 and k + step < n:
            rest = slice(k + step, n)
            w = a[rest, k:k + step].copy()
            block = a[k:k + step, k:k + step].copy()
            if step == 2:
                block[0, 1] = flip(block[1, 0])
            x = w @ np.linalg.inv(block)
            a[rest, rest] -= np.tril(x @ flip(w).T)
            a[rest, k:k + step] = x
        pivots[k:k + step] = p + 1 if step == 1 else -(p + 1)
        k += step
    return info


def ldl_solve(f: np.ndarray, pivots: np.ndarray, b: np.ndarray, hermitian: bool) -> np.ndarray:
    """The solution of a x = b from the factors that `ldl` gave."""
    out = b.astype(np.result_type(f, b), copy=True)
    for i in range(f.shape[0]):
        _ldl_solve_one(f[i], pivots[i].astype(np.int64), out[i], hermitian)
    return out


def _ldl_solve_one(f: np.ndarray, pivots: np.ndarray, x: np.ndarray, hermitian: bool) -> None:
    flip = np.conj if hermitian else np.asarray
    n = f.shape[0]
    blocks, k = [], 0
    while k < n:
        step = 1 if pivots[k] > 0 else 2
        blocks.append((k, step))
        k += step
    for k, step in blocks:
        p, last = abs(int(pivots[k])) - 1, k + step - 1
        if p != last:
            x[[last, p]] = x[[p, last]]
        x[k + step:] -= f[k + step:, k:k + step] @ x[k:k + step]
        block = f[k:k + step, k:k + step].copy()
        if step == 2:
            block[0, 1] = flip(block[1, 0])
        x[k:k + step] = np.linalg.solve(block, x[k:k + step])
    for k, step in reversed(blocks):
        x[k:k + step] -= flip(f[k + step:, k:k + step]).T @ x[k + step:]
        p, last = abs(int(pivots[k])) - 1, k + step - 1
        if p != last:
            x[[last, p]] = x[[p, last]]
