"""Factorisations: Cholesky, LU, QR, eigenvalues, singular values, LDL."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from facula.dtype import int32, int64
from facula.errors import ShapeError
from facula.ops.define import autocast_to
from facula.ops.linalg.common import (
    adjoint,
    broadcast_batch,
    checked,
    error_codes,
    function,
    matrix,
    operation,
    same_dtype,
    square,
)
from facula.ops.matrices import diag_embed, tril, triu
from facula.ops.primitive.matrix import factor as _factor
from facula.ops.primitive.matrix.factor import permuted_rows
from facula.ops.primitive.matrix.packed import unpack
from facula.ops.promote import cast, expand_to
from facula.return_types import declare
from facula.tensor import Tensor, prim

__all__ = ["cholesky", "cholesky_ex", "qr", "eigh", "eigvalsh", "eig", "eigvals", "svd", "svdvals",
           "lu", "lu_factor", "lu_factor_ex", "lu_solve", "ldl_factor", "ldl_factor_ex",
           "ldl_solve"]

_NOT_POSITIVE = ("The factorization could not be completed because the input is not "
                 "positive-definite (the leading minor of order {} is not positive-definite).")

CholeskyEx = namedtuple("linalg_cholesky_ex", "L info")
Qr = namedtuple("linalg_qr", "Q R")
Eigh = namedtuple("linalg_eigh", "eigenvalues eigenvectors")
Eig = namedtuple("linalg_eig", "eigenvalues eigenvectors")
Svd = namedtuple("linalg_svd", "U S Vh")
Lu = namedtuple("linalg_lu", "P L U")
LuFactor = namedtuple("linalg_lu_factor", "LU pivots")
LuFactorEx = namedtuple("linalg_lu_factor_ex", "LU pivots info")
LdlFactor = namedtuple("linalg_ldl_factor", "LD pivots")
LdlFactorEx = namedtuple("linalg_ldl_factor_ex", "LD pivots info")
declare(CholeskyEx, Qr, Eigh, Eig, Svd, Lu, LuFactor, LuFactorEx, LdlFactor, LdlFactorEx)


def real(x: Tensor) -> Tensor:
    return prim("real", x) if x.dtype.kind == "c" else x


def _positive(make: Any, *batch: int, n: int = 3) -> Any:
    """Positive definite matrices for samples."""
    from facula.ops.patterns import eye
    a = make(*batch, n, n)
    return (a @ a.mT + eye(n, dtype=a.dtype)).detach().requires_grad_(a.requires_grad)


def _matrices(*shapes: tuple[int, ...]) -> Any:
    return lambda make: [((make(*shape),), {}) for shape in shapes]


# ---------------------------------------------------------------- Cholesky

@operation("linalg.cholesky_ex", register=False, samples=lambda make: [
    ((_positive(make),), {}), ((_positive(make, 2),), {"upper": True}), ((make(0, 0),), {})])
def _cholesky_ex(A: Tensor, *, upper: bool = False) -> CholeskyEx:
    square("linalg.cholesky", A)
    n = A.shape[-1]
    low, code = unpack(prim("cholesky", adjoint(A) if upper else A), _factor.cholesky_shapes(n))
    return CholeskyEx(adjoint(low) if upper else low, error_codes(code))


@function("linalg.cholesky_ex")
def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> CholeskyEx:
    """(L, info) with A = L L^H for positive definite matrices A [..., n, n].

    Only the lower triangle is read; with `upper` the upper one, and the factor is L^H.  `info`
    (int32) is 0, or the order of the first leading minor that is not positive, and then L is
    not determined; with `check_errors` that raises a LinAlgError.
    """
    out: CholeskyEx = _cholesky_ex(A, upper=upper)
    if not check_errors:
        return out
    return CholeskyEx(checked("linalg.cholesky_ex", out.L, out.info, _NOT_POSITIVE), out.info)


@function("linalg.cholesky", samples=lambda make: [
    ((_positive(make),), {}), ((_positive(make, 2),), {"upper": True}), ((make(0, 0),), {})])
@autocast_to("full")
def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """L with A = L L^H; LinAlgError where A is not positive definite.  See `cholesky_ex`."""
    low, info = _cholesky_ex(A, upper=upper)
    return checked("linalg.cholesky", low, info, _NOT_POSITIVE)


# ---------------------------------------------------------------- QR

@operation("linalg.qr", samples=_matrices((3, 3), (4, 2), (2, 2, 3), (0, 3), (3, 0)))
@autocast_to("full")
def qr(A: Tensor, mode: str = "reduced") -> Qr:
    """(Q, R): A = Q R with orthonormal columns Q and R upper triangular.

    [..., m, n]; with k = min(m, n) Q is [..., m, k], or [..., m, m] for mode 'complete', and
    empty for mode 'r'.  No gradient is defined for 'r', nor for 'complete' if m > n.
    """
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(f"qr received unrecognized mode '{mode}' but expected one of 'reduced' "
                           "(default), 'r', or 'complete'")
    matrix("linalg.qr", A)
    full = mode == "complete"
    q, r = unpack(prim("qr", A, attrs=(full,)), _factor.qr_shapes(A.shape[-2], A.shape[-1], full))
    if mode == "r":
        q = prim("full", attrs=(0.0,), shape=(0,), dtype=A.dtype)
    return Qr(q, r)


# ---------------------------------------------------------------- eigenvalues

def _triangle(UPLO: str) -> str:
    if UPLO.upper() not in ("L", "U"):
        raise RuntimeError(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    return UPLO.upper()


@operation("linalg.eigh", samples=_matrices((3, 3), (2, 3, 3), (0, 0)))
@autocast_to("full")
def eigh(A: Tensor, UPLO: str = "L") -> Eigh:
    """(eigenvalues, eigenvectors) of symmetric or hermitian matrices, ascending.

    A = V diag(w) V^H; of A [..., n, n] only the triangle `UPLO` is read.  The gradient assumes
    distinct eigenvalues.  Raises LinAlgError if the iteration does not converge.
    """
    triangle = _triangle(UPLO)
    square("linalg.eigh", A)
    w, v = unpack(prim("eigh", A, attrs=(triangle,)), _factor.eigh_shapes(A.shape[-1]))
    return Eigh(real(w), v)


@operation("linalg.eigvalsh", samples=_matrices((3, 3), (2, 3, 3), (0, 0)))
@autocast_to("full")
def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of symmetric or hermitian matrices, ascending; see `eigh`."""
    triangle = _triangle(UPLO)
    return prim("eigvalsh", square("linalg.eigvalsh", A), attrs=(triangle,))


@operation("linalg.eig", samples=_matrices((3, 3), (2, 2, 2), (0, 0)))
@autocast_to("full")
def eig(A: Tensor) -> Eig:
    """(eigenvalues, eigenvectors) of square matrices, both complex, A = V diag(w) V^-1.

    Eigenvectors have norm 1; the phase of each is arbitrary.  The gradient assumes distinct
    eigenvalues.  Raises LinAlgError for values that are not finite.
    """
    square("linalg.eig", A)
    return Eig(*unpack(prim("eig", A), _factor.eig_shapes(A.shape[-1])))


@operation("linalg.eigvals", samples=_matrices((3, 3), (2, 2, 2), (0, 0)))
@autocast_to("full")
def eigvals(A: Tensor) -> Tensor:
    """The eigenvalues of square matrices, complex, in no order."""
    return prim("eigvals", square("linalg.eigvals", A))


# ---------------------------------------------------------------- singular values

def _driver(name: str, driver: str | None) -> None:
    if driver is not None:
        raise RuntimeError(f"{name}: keyword argument `driver=` is only supported on CUDA inputs "
                           "with cuSOLVER backend.")


@operation("linalg.svd", samples=lambda make: [
    ((make(3, 3),), {}), ((make(4, 2), False), {}), ((make(2, 2, 3), False), {}),
    ((make(0, 3), False), {})])
@autocast_to("full")
def svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> Svd:
    """(U, S, Vh): A = U diag(S) Vh, S descending and not negative.

    [..., m, n]; with k = min(m, n), U is [..., m, m] or, without `full_matrices`, [..., m, k], Vh
    [..., n, n] or [..., k, n].  The gradient of U and Vh assumes distinct singular values.
    """
    _driver("linalg.svd", driver)
    matrix("linalg.svd", A)
    full = bool(full_matrices)
    u, s, vh = unpack(prim("svd", A, attrs=(full,)), _factor.svd_shapes(A.shape[-2], A.shape[-1],
                                                                        full))
    return Svd(u, real(s), vh)


@operation("linalg.svdvals", samples=_matrices((3, 3), (4, 2), (2, 2, 3), (0, 3)))
@autocast_to("full")
def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """The singular values of matrices, descending."""
    _driver("linalg.svdvals", driver)
    return prim("svdvals", matrix("linalg.svdvals", A))


# ---------------------------------------------------------------- LU

def _pivoted(name: str, pivot: bool) -> None:
    if not pivot:
        raise RuntimeError(f"{name}: LU without pivoting is not implemented on the CPU")


@operation("linalg.lu_factor_ex", register=False)
def _lu_factor_ex(A: Tensor) -> LuFactorEx:
    lu, pivots, code = unpack(prim("lu", A), _factor.lu_shapes(*A.shape[-2:]))
    return LuFactorEx(lu, cast(real(pivots), int32), error_codes(code))


_SINGULAR_FACTOR = "U[{0},{0}] is zero and using it on lu_solve would result in a division by zero."


@function("linalg.lu_factor_ex", samples=_matrices((3, 3), (4, 2), (2, 2, 3), (0, 0)))
def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> LuFactorEx:
    """(LU, pivots, info): both factors of P A = L U in one matrix, L's unit diagonal left out.

    Step i swapped row i with row pivots[i], counted from 1.  `info` is the number of the first
    pivot that is zero, or 0.
    """
    _pivoted("linalg.lu_factor", pivot)
    out: LuFactorEx = _lu_factor_ex(matrix("linalg.lu_factor", A))
    if not check_errors:
        return out
    return LuFactorEx(checked("linalg.lu_factor_ex", out.LU, out.info, _SINGULAR_FACTOR),
                      out.pivots, out.info)


@function("linalg.lu_factor", samples=_matrices((3, 3), (4, 2), (2, 2, 3), (0, 0)))
def lu_factor(A: Tensor, *, pivot: bool = True) -> LuFactor:
    """(LU, pivots); RuntimeError where a pivot is zero.  See `lu_factor_ex`."""
    _pivoted("linalg.lu_factor", pivot)
    both, pivots, info = _lu_factor_ex(matrix("linalg.lu_factor", A))
    return LuFactor(checked("linalg.lu_factor", both, info, _SINGULAR_FACTOR), pivots)


def unit_lower(both: Tensor, k: int) -> Tensor:
    """[..., m, k]: what is below the diagonal, and ones on it."""
    shape = (*both.shape[:-1], k)
    zeros = (0,) * len(shape)
    low = prim("slice", both, attrs=(zeros, (1,) * len(shape)), shape=shape)
    ones = prim("full", attrs=(1.0,), shape=(*shape[:-2], k), dtype=both.dtype)
    unit = diag_embed(ones)
    if shape[-2] > k:
        unit = prim("pad", unit, attrs=(zeros, (*zeros[:-2], shape[-2] - k, 0), 0))
    return prim("add", tril(low, -1), unit)


def upper_part(both: Tensor, k: int) -> Tensor:
    """[..., k, n]: the diagonal and what is above it."""
    shape = (*both.shape[:-2], k, both.shape[-1])
    zeros = (0,) * len(shape)
    return triu(prim("slice", both, attrs=(zeros, (1,) * len(shape)), shape=shape))  # type: ignore


def permutation_matrix(pivots: Tensor, m: int, like: Tensor) -> Tensor:
    """P with P L U = A."""
    order = prim("pivot_order", cast(pivots, int64), attrs=(m, False))
    shape = (*order.shape, m)
    from facula.ops.shape import iota_along
    rows = expand_to(prim("reshape", order, shape=(*order.shape[:-1], 1, m)), shape)
    here = expand_to(iota_along((m, m), 0), shape)
    return cast(prim("eq", rows, here), like.dtype)


@operation("linalg.lu", samples=_matrices((3, 3), (4, 2), (2, 2, 3), (0, 0)))
def lu(A: Tensor, *, pivot: bool = True) -> Lu:
    """(P, L, U) with A = P L U: a permutation, unit lower and upper triangular matrices."""
    _pivoted("linalg.lu", pivot)
    matrix("linalg.lu", A)
    m, n = A.shape[-2:]
    both, pivots, _ = unpack(prim("lu", A), _factor.lu_shapes(m, n))
    return Lu(permutation_matrix(real(pivots), m, A), unit_lower(both, min(m, n)),
              upper_part(both, min(m, n)))


def _factored(make: Any, *batch: int) -> Any:
    with_grad = make(*batch, 3, 3)
    both, pivots, _ = _lu_factor_ex(with_grad.detach())
    return both.detach().requires_grad_(with_grad.requires_grad), pivots


@operation("linalg.lu_solve", samples=lambda make: [
    ((*_factored(make), make(3, 2)), {}),
    ((*_factored(make, 2), make(2, 4, 3)), {"left": False, "adjoint": True})])
def lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True,
             adjoint: bool = False) -> Tensor:
    """X with A X = B (X A = B unless `left`, A^H for A with `adjoint`), from `lu_factor` of A."""
    square("linalg.lu_solve", LU, "LU")
    matrix("linalg.lu_solve", B, "B")
    same_dtype("linalg.lu_solve", LU, B)
    if pivots.dtype is not int32:
        raise RuntimeError("linalg.lu_solve: pivots should be a Tensor of scalar type "
                           "facula.int32")
    n = LU.shape[-1]
    if B.shape[-2 if left else -1] != n:
        raise ShapeError("linalg.lu_solve: Incompatible shapes of A and B for the equation "
                         f"{'AX' if left else 'XA'} = B ({n}x{n} and "
                         f"{B.shape[-2]}x{B.shape[-1]})")
    if tuple(pivots.shape) != tuple(LU.shape[:-1]):
        raise ShapeError("linalg.lu_solve: Number of pivots per batch should be same as the "
                         "dimension of the matrix")
    if not left:                                   # X A = B is A^T X^T = B^T
        from facula.ops.linalg.common import adjoint as turned
        x = turned(B)
        return turned(_substituted(LU, pivots, x, not adjoint))
    return _substituted(LU, pivots, B, adjoint)


def _substituted(both: Tensor, pivots: Tensor, b: Tensor, turned: bool) -> Tensor:
    both, b = broadcast_batch(both, b)
    pivots = expand_to(pivots, both.shape[:-1])
    if not turned:
        x = permuted_rows(b, pivots, False)
        x = prim("solve_triangular", both, x, attrs=(False, True))
        return prim("solve_triangular", both, x, attrs=(True, False))
    back = adjoint(both)
    x = prim("solve_triangular", back, b, attrs=(False, False))
    x = prim("solve_triangular", back, x, attrs=(True, True))
    found: Tensor = permuted_rows(x, pivots, True)
    return found


# ---------------------------------------------------------------- LDL

@operation("linalg.ldl_factor_ex", register=False)
def _ldl_factor_ex(A: Tensor, *, hermitian: bool = False) -> LdlFactorEx:
    square("linalg.ldl_factor_ex", A)
    f, pivots, code = unpack(prim("ldl", A, attrs=(bool(hermitian),)),
                             _factor.ldl_shapes(A.shape[-1]))
    return LdlFactorEx(f, cast(real(pivots), int32), error_codes(code))


_SINGULAR_BLOCK = "The factor D has a zero at diagonal element {} and is singular."


@function("linalg.ldl_factor_ex", differentiable=False, samples=_matrices((3, 3), (2, 3, 3)))
def ldl_factor_ex(A: Tensor, *, hermitian: bool = False, check_errors: bool = False
                  ) -> LdlFactorEx:
    """(LD, pivots, info) of symmetric (or `hermitian`) matrices A = L D L^T, by Bunch and Kaufman.

    LD holds L below the diagonal and the blocks of D, of size 1 or 2, on it; pivots > 0 belong
    to blocks of size 1, equal negative ones to blocks of size 2.
    """
    out: LdlFactorEx = _ldl_factor_ex(A, hermitian=hermitian)
    if check_errors:
        found = checked("linalg.ldl_factor_ex", out.LD, out.info, _SINGULAR_BLOCK)
        return LdlFactorEx(found, out.pivots, out.info)
    return out


@function("linalg.ldl_factor", differentiable=False, samples=_matrices((3, 3), (2, 3, 3)))
def ldl_factor(A: Tensor, *, hermitian: bool = False) -> LdlFactor:
    """(LD, pivots); LinAlgError where D is singular.  See `ldl_factor_ex`."""
    f, pivots, info = _ldl_factor_ex(A, hermitian=hermitian)
    return LdlFactor(checked("linalg.ldl_factor", f, info, _SINGULAR_BLOCK), pivots)


@operation("linalg.ldl_solve")
def ldl_solve(LD: Tensor, pivots: Tensor, B: Tensor, *, hermitian: bool = False) -> Tensor:
    """X with A X = B, from `ldl_factor` of A; only B receives a gradient."""
    square("linalg.ldl_solve", LD, "LD")
    matrix("linalg.ldl_solve", B, "B")
    if LD.dtype is not B.dtype:
        raise RuntimeError("linalg.ldl_solve: LD and B must have the same dtype")
    if pivots.dtype.kind not in "ui":
        raise RuntimeError("linalg.ldl_solve: Expected pivots to be integers. Got "
                           f"{pivots.dtype.name}")
    if tuple(pivots.shape) != tuple(LD.shape[:-1]):
        raise ShapeError("linalg.ldl_solve: Expected LD.shape[:-1] and pivots.shape to be "
                         f"the same, but got {list(LD.shape)} and {list(pivots.shape)}")
    if B.shape[-2] != LD.shape[-1]:
        raise ShapeError("linalg.ldl_solve: Incompatible shapes of A and B "
                         f"({list(LD.shape)} and {list(B.shape)})")
    LD, B = broadcast_batch(LD, B)
    return prim("ldl_solve", LD, cast(expand_to(pivots, LD.shape[:-1]), int64), B,
                attrs=(bool(hermitian),))
