"""The older names of linear algebra, in the top namespace and on tensors."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from facula.dtype import int32
from facula.errors import ShapeError
from facula.ops.define import autocast_to
from facula.ops.linalg import factors, products, systems
from facula.ops.linalg.common import (
    adjoint,
    broadcast_batch,
    function,
    matrix,
    operation,
    same_dtype,
    square,
    transposed,
)
from facula.ops.linalg.factors import (
    Qr,
    _factored,
    _positive,
    permutation_matrix,
    unit_lower,
    upper_part,
)
from facula.ops.primitive.matrix.factor import geqrf_shapes
from facula.ops.primitive.matrix.packed import unpack
from facula.return_types import declare
from facula.tensor import Tensor, prim

__all__ = ["cholesky", "cholesky_inverse", "cholesky_solve", "svd", "qr", "geqrf", "ormqr", "lu",
           "lu_unpack", "lu_solve", "triangular_solve", "pinverse", "inverse", "det", "slogdet",
           "matrix_power", "matrix_exp", "orgqr", "svd_lowrank", "pca_lowrank"]

Svd = namedtuple("svd", "U S V")
Geqrf = namedtuple("geqrf", "a tau")
LuUnpack = namedtuple("lu_unpack", "P L U")
Triangular = namedtuple("triangular_solve", "solution cloned_coefficient")
declare(Svd, Geqrf, LuUnpack, Triangular)


@function("inverse", method=True, samples=factors._matrices((3, 3), (2, 2, 2)))
@autocast_to("full")
def inverse(input: Tensor) -> Tensor:
    """The inverses of square matrices; see `facula.linalg.inv`."""
    result: Tensor = systems.inv(input)
    return result


@function("pinverse", method=True, samples=factors._matrices((3, 3), (4, 2)))
@autocast_to("full")
def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """The pseudo-inverse, without singular values up to rcond times the largest."""
    result: Tensor = systems.pinv(input, rcond)
    return result


det = function("det", method=True)(systems.det)
slogdet = function("slogdet", method=True)(systems.slogdet)
matrix_exp = function("matrix_exp", method=True)(systems.matrix_exp)
matrix_power = function("matrix_power", method=True)(systems.matrix_power)
orgqr = function("orgqr", method=True)(products.householder_product)


# ---------------------------------------------------------------- Cholesky

@function("cholesky", method=True, samples=lambda make: [((_positive(make),), {})])
@autocast_to("full")
def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """L with input = L L^H, or with `upper` its adjoint; see `facula.linalg.cholesky`."""
    result: Tensor = factors.cholesky(input, upper=upper)
    return result


@operation("cholesky_solve", method=True, samples=lambda make: [
    ((make(3, 2), make(3, 3, low=0.5, high=2)), {}),
    ((make(2, 3, 1), make(3, 3, low=0.5, high=2), True), {})])
@autocast_to("full")
def cholesky_solve(input: Tensor, input2: Tensor, upper: bool = False) -> Tensor:
    """X with A X = input, from the factor `input2` of A that `cholesky` gave."""
    if input.ndim < 2:
        raise ShapeError(f"b should have at least 2 dimensions, but has {input.ndim} dimensions "
                         "instead")
    if input2.ndim < 2:
        raise ShapeError(f"u should have at least 2 dimensions, but has {input2.ndim} dimensions "
                         "instead")
    square("cholesky_solve", input2)
    same_dtype("cholesky_solve", input, input2)
    if input.shape[-2] != input2.shape[-1]:
        raise ShapeError("Incompatible matrix sizes for cholesky_solve: each A matrix is "
                         f"{input2.shape[-1]} by {input2.shape[-1]} but each b matrix is "
                         f"{input.shape[-2]} by {input.shape[-1]}")
    factor, b = broadcast_batch(input2, input)
    return _both(factor, b, upper)


def _both(factor: Tensor, b: Tensor, upper: bool) -> Tensor:
    """The inverse of (factor factor^H) times b.

    As in PyTorch the gradient is that of a factor without a triangle that is not read: `cholesky`
    takes its own triangle of it.
    """
    back = adjoint(factor)
    first, second = (back, factor) if upper else (factor, back)
    x = prim("solve_triangular", first, b, attrs=(False, False, "whole"))
    return prim("solve_triangular", second, x, attrs=(True, False, "whole"))


@operation("cholesky_inverse", method=True, samples=lambda make: [
    ((make(3, 3, low=0.5, high=2),), {}), ((make(2, 2, 2, low=0.5, high=2), True), {})])
@autocast_to("full")
def cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:
    """The inverse of A, from the factor that `cholesky` gave."""
    square("cholesky_inverse", input)
    from facula.ops.primitive.matrix.rules import eye
    return _both(input, eye(input.shape[:-2], input.shape[-1], input.dtype), upper)


# ---------------------------------------------------------------- singular values, QR

@operation("svd", method=True, samples=lambda make: [((make(3, 3),), {}), ((make(4, 2),), {})])
@autocast_to("full")
def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> Svd:
    """(U, S, V): input = U diag(S) V^H; `some` leaves out what is not needed for that.

    Without `compute_uv` U and V are zeros.  See `facula.linalg.svd`.
    """
    matrix("linalg.svd", input)
    if compute_uv:
        u, s, vh = factors.svd(input, not some)
        return Svd(u, s, adjoint(vh))
    m, n = input.shape[-2:]
    batch = tuple(input.shape[:-2])
    return Svd(prim("full", attrs=(0.0,), shape=(*batch, m, m), dtype=input.dtype),
               prim("svdvals", input),
               prim("full", attrs=(0.0,), shape=(*batch, n, n), dtype=input.dtype))


@operation("qr", method=True, samples=factors._matrices((3, 3), (4, 2)))
@autocast_to("full")
def qr(input: Tensor, some: bool = True) -> Qr:
    """(Q, R): input = Q R; Q is square unless `some`.  See `facula.linalg.qr`."""
    result: Qr = factors.qr(input, "reduced" if some else "complete")
    return result


@operation("geqrf", method=True, differentiable=False, samples=factors._matrices((3, 3), (4, 2)))
@autocast_to("full")
def geqrf(input: Tensor) -> Geqrf:
    """(a, tau): R in the upper triangle of a, and below it the reflectors whose product is Q.

    See `facula.linalg.householder_product`.
    """
    matrix("geqrf", input, "input")
    return Geqrf(*unpack(prim("geqrf", input), geqrf_shapes(*input.shape[-2:])))


@operation("ormqr", method=True, samples=lambda make: [
    ((make(3, 2), make(2), make(3, 4)), {}), ((make(3, 2), make(2), make(4, 3), False, True), {})])
@autocast_to("full")
def ormqr(input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False
          ) -> Tensor:
    """Q other (other Q unless `left`, Q^H for Q with `transpose`) for the Q of `geqrf`."""
    matrix("ormqr", input, "input")
    matrix("ormqr", other, "other")
    if other.shape[-2 if left else -1] < tau.shape[-1]:
        raise ShapeError(f"ormqr: other.shape[-{2 if left else 1}] must be greater than or "
                         "equal to tau.shape[-1]")
    if other.shape[-2 if left else -1] != input.shape[-2]:
        raise ShapeError(f"ormqr: other.shape[-{2 if left else 1}] must be equal to "
                         "input.shape[-2]")
    if tau.shape[-1] > input.shape[-1]:
        raise ShapeError("ormqr: tau.shape[-1] must be less than or equal to "
                         "input.shape[-1]")
    if input.ndim - tau.ndim != 1 or tuple(tau.shape[:-1]) != tuple(input.shape[:-2]):
        raise ShapeError("ormqr: Expected tau to have one dimension less than input and "
                         f"batch dimensions {list(input.shape[:-2])}, but got {list(tau.shape)}")
    if other.ndim != input.ndim or tuple(other.shape[:-2]) != tuple(input.shape[:-2]):
        raise ShapeError("ormqr: batch dimensions of other have to be equal to "
                         f"{list(input.shape[:-2])}, but got {list(other.shape)}")
    same_dtype("ormqr", input, tau)
    same_dtype("ormqr", input, other)
    count = tau.shape[-1]
    x = other if left else adjoint(other)
    turned = transpose if left else not transpose
    order = range(count) if turned else range(count - 1, -1, -1)
    x = products.apply_reflectors(input, tau, x, order, turned)
    return x if left else adjoint(x)


# ---------------------------------------------------------------- LU

@function("lu", method=True, samples=lambda make: [((make(3, 3),), {})])
@autocast_to("full")
def lu(A: Tensor, pivot: bool = True, get_infos: bool = False) -> Any:
    """(LU, pivots), with `get_infos` also the error codes; see `facula.linalg.lu_factor_ex`."""
    out = factors.lu_factor_ex(A, pivot=pivot)
    if get_infos:
        return out.LU, out.pivots, out.info
    return out.LU, out.pivots


@operation("lu_unpack", samples=lambda make: [(_factored(make), {})])
def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True,
              unpack_pivots: bool = True) -> LuUnpack:
    """(P, L, U) with A = P L U, from `lu_factor`; what is not asked for is empty."""
    if LU_pivots.dtype is not int32:
        raise RuntimeError("lu_unpack: LU_pivots is expected to be a contiguous tensor of "
                           "facula.int32 dtype. Note: this function is intended to be used with "
                           "the output produced by facula.linalg.lu_factor")
    m, n = LU_data.shape[-2:]
    k = min(m, n)
    none = prim("full", attrs=(0.0,), shape=(0,), dtype=LU_data.dtype)
    p = permutation_matrix(LU_pivots, m, LU_data) if unpack_pivots else none
    if not unpack_data:
        return LuUnpack(p, none, none)
    return LuUnpack(p, unit_lower(LU_data, k), upper_part(LU_data, k))


@function("lu_solve", method=True)
def lu_solve(b: Tensor, LU_data: Tensor, LU_pivots: Tensor) -> Tensor:
    """X with A X = b, from `lu_factor` of A."""
    result: Tensor = factors.lu_solve(LU_data, LU_pivots, b)
    return result


@operation("triangular_solve", method=True, samples=lambda make: [
    ((make(3, 2), make(3, 3, low=0.5, high=2)), {})])
@autocast_to("full")
def triangular_solve(b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False,
                     unitriangular: bool = False) -> Triangular:
    """(X, A): X solves A X = b for triangular A (A^T with `transpose`); batches broadcast."""
    if b.ndim < 2:
        raise ShapeError("triangular_solve: Expected b to have at least 2 dimensions, but it "
                         f"has {b.ndim} dimensions instead")
    if A.ndim < 2:
        raise ShapeError("triangular_solve: Expected A to have at least 2 dimensions, but it "
                         f"has {A.ndim} dimensions instead")
    square("triangular_solve", A)
    same_dtype("triangular_solve", A, b)
    a, wide = broadcast_batch(A, b)
    turned = transposed(a) if transpose else a
    x = prim("solve_triangular", turned, wide, attrs=(bool(upper) != bool(transpose),
                                                      bool(unitriangular)))
    return Triangular(x, prim("alias", a))


# ---------------------------------------------------------------- low rank

def _range_basis(A: Tensor, q: int, niter: int, M: Tensor | None) -> Tensor:
    """Orthonormal columns that nearly span what A maps to.

    N. Halko, P. Martinsson, J. Tropp, "Finding structure with randomness" (2009), algorithm 4.4.
    """
    from facula.random import randn
    n = A.shape[-1]

    def times(x: Tensor, turned: bool) -> Tensor:
        out = (A.mH if turned else A) @ x                     # type: ignore[attr-defined]
        if M is not None:
            out = out - (M.mH if turned else M) @ x           # type: ignore[attr-defined]
        return out                                            # type: ignore[no-any-return]

    basis = factors.qr(times(randn(n, q, dtype=A.dtype), False)).Q
    for _ in range(niter):
        basis = factors.qr(times(basis, True)).Q
        basis = factors.qr(times(basis, False)).Q
    return basis                                              # type: ignore[no-any-return]


@function("svd_lowrank")
def svd_lowrank(A: Tensor, q: int | None = 6, niter: int | None = 2, M: Tensor | None = None
                ) -> Svd:
    """(U, S, V) of about the q largest singular values of A (of A - M if M is given), by random
    projection."""
    q, niter = 6 if q is None else q, 2 if niter is None else niter
    matrix("svd_lowrank", A)
    m, n = A.shape[-2:]
    if M is not None:
        M = M.broadcast_to(A.shape)                           # type: ignore[attr-defined]
    if m < n:
        A = A.mH                                              # type: ignore[attr-defined]
        M = None if M is None else M.mH                       # type: ignore[attr-defined]
    basis = _range_basis(A, q, niter, M)
    small = basis.mH @ A if M is None else basis.mH @ (A - M)  # type: ignore
    u, s, vh = factors.svd(small, False)
    v = vh.mH
    u = basis @ u                                             # type: ignore[operator]
    return Svd(v, s, u) if m < n else Svd(u, s, v)


@function("pca_lowrank")
def pca_lowrank(A: Tensor, q: int | None = None, center: bool = True, niter: int = 2) -> Svd:
    """(U, S, V): the principal directions of the rows of A [..., m, n], by random projection."""
    matrix("pca_lowrank", A)
    m, n = A.shape[-2:]
    q = min(6, m, n) if q is None else q
    if not 0 <= q <= min(m, n):
        raise ValueError(f"q(={q}) must be non-negative integer and not greater than min(m, n)="
                         f"{min(m, n)}")
    if niter < 0:
        raise ValueError(f"niter(={niter}) must be non-negative integer")
    if center:
        A = A - A.mean(-2, keepdim=True)                      # type: ignore
    result: Svd = svd_lowrank(A, q, niter)
    return result
