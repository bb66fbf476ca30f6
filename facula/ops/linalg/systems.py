"""Inverses, linear systems, least squares, determinants, powers and the exponential."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from facula.dtype import DType, float32, int64
from facula.errors import DTypeError, ShapeError
from facula.ops.define import autocast_to, composite
from facula.ops.linalg.common import (
    broadcast_batch,
    checked,
    eps,
    error_codes,
    function,
    matrix,
    operation,
    same_dtype,
    square,
    transposed,
)
from facula.ops.linalg.factors import _matrices, real
from facula.ops.primitive.matrix.packed import unpack
from facula.ops.primitive.matrix.rules import eye, unread
from facula.ops.primitive.matrix.solve import inv_shapes, solve_shapes
from facula.ops.promote import broadcast_shapes, cast, expand_to, full_like
from facula.ops.reductions import constant, reduce_to
from facula.return_types import declare
from facula.tensor import Tensor, prim

__all__ = ["inv", "inv_ex", "solve", "solve_ex", "solve_triangular", "lstsq", "det", "slogdet",
           "matrix_rank", "pinv", "matrix_power", "matrix_exp", "tensorinv", "tensorsolve"]

_SINGULAR = "The diagonal element {} is zero, the inversion could not be completed because the " \
            "input matrix is singular."
_NO_SOLUTION = "The solver failed because the input matrix is singular."

InvEx = namedtuple("linalg_inv_ex", "inverse info")
SolveEx = namedtuple("linalg_solve_ex", "result info")
Slogdet = namedtuple("linalg_slogdet", "sign logabsdet")
Lstsq = namedtuple("linalg_lstsq", "solution residuals rank singular_values")
declare(InvEx, SolveEx, Slogdet, Lstsq)


# ---------------------------------------------------------------- inverses

@composite
def _inv_ex(A: Tensor) -> InvEx:
    square("linalg.inv", A)
    value, code = unpack(prim("inv", A), inv_shapes(A.shape[-1]))
    return InvEx(value, error_codes(code))


@function("linalg.inv_ex", samples=_matrices((3, 3), (2, 2, 2), (0, 0)))
@autocast_to("full")
def inv_ex(A: Tensor, *, check_errors: bool = False) -> InvEx:
    """(inverse, info): info (int32) is the number of the first zero pivot, or 0.

    Where it is not 0 the inverse is not determined; `check_errors` makes that a LinAlgError.
    """
    out: InvEx = _inv_ex(A)
    if check_errors:
        return InvEx(checked("linalg.inv_ex", out.inverse, out.info, _SINGULAR), out.info)
    return out


@function("linalg.inv", samples=_matrices((3, 3), (2, 2, 2), (0, 0)))
@autocast_to("full")
def inv(A: Tensor) -> Tensor:
    """The inverses of square matrices [..., n, n]; LinAlgError where one is singular."""
    value, info = _inv_ex(A)
    return checked("linalg.inv", value, info, _SINGULAR)


def _tolerance(A: Tensor, atol: Any, rtol: Any) -> tuple[Tensor, Tensor]:
    """atol and rtol as real tensors over the batch, with PyTorch's defaults."""
    d: DType = A.dtype.to_real()
    batch = A._node.spec.shape[:-2]
    usual = eps(d) * max(A.shape[-2:])

    def number(value: Any) -> Tensor:
        if isinstance(value, Tensor):
            if value.dtype.kind == "c":
                raise DTypeError("linalg.matrix_rank: atol and rtol tensors of complex type "
                                 "are not supported.")
            return expand_to(cast(value, d), tuple(broadcast_shapes(value.shape, batch)))
        return prim("full", attrs=(float(value),), shape=tuple(batch), dtype=d)

    if rtol is not None:
        return number(0.0 if atol is None else atol), number(rtol)
    if atol is None:
        return number(0.0), number(usual)
    if not isinstance(atol, Tensor):
        return number(atol), number(0.0 if atol > 0 else usual)
    a = number(atol)
    above = prim("gt", a, full_like(a, 0.0))
    return a, prim("where", above, full_like(a, 0.0), full_like(a, usual))


@operation("linalg.pinv", samples=lambda make: [
    ((make(3, 3),), {}), ((make(4, 2),), {}), ((make(2, 2, 3),), {}), ((make(0, 3),), {})])
def _pinv(A: Tensor, atol: Any, rtol: Any, hermitian: bool) -> Tensor:
    (square if hermitian else matrix)("linalg.pinv", A)
    a, r = _tolerance(A, atol, rtol)
    batch = tuple(broadcast_shapes(A.shape[:-2], a.shape, r.shape))
    return prim("pinv", expand_to(A, (*batch, *A.shape[-2:])), expand_to(a, batch),
                expand_to(r, batch), attrs=(bool(hermitian),))


@function("linalg.pinv", samples=lambda make: [
    ((make(3, 3),), {}), ((make(4, 2),), {}), ((make(2, 2, 3),), {}), ((make(0, 3),), {})])
def pinv(A: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None,
         rtol: Any = None) -> Tensor:
    """The pseudo-inverse of matrices [..., m, n]: [..., n, m].

    Singular values up to max(atol, rtol * largest) count as zero; rtol is the dtype's precision
    times max(m, n) unless given (0 if atol is).  `hermitian` uses eigenvalues instead.
    """
    if isinstance(rcond, bool):
        hermitian, rcond = rcond, None
    result: Tensor = _pinv(A, atol, rtol if rcond is None else rcond, bool(hermitian))
    return result


@operation("linalg.matrix_rank", differentiable=False, register=False)
def _rank(A: Tensor, atol: Any, rtol: Any, hermitian: bool) -> Tensor:
    (square if hermitian else matrix)("linalg.matrix_rank", A)
    a, r = _tolerance(A, atol, rtol)
    if hermitian:
        s = prim("abs", prim("eigvalsh", A, attrs=("L",)))
    else:
        s = prim("svdvals", A)
    batch = tuple(broadcast_shapes(s.shape[:-1], a.shape, r.shape))
    if not s.shape[-1]:
        return prim("full", attrs=(0,), shape=batch, dtype=int64)
    top = reduce_to("amax", s, (s.ndim - 1,))
    limit = prim("maximum", expand_to(a, batch),
                 prim("mul", expand_to(r, batch), expand_to(top, batch)))
    wide = (*batch, s.shape[-1])
    limit = expand_to(prim("reshape", limit, shape=(*batch, 1)), wide)
    above = cast(prim("gt", expand_to(s, wide), limit), int64)
    return prim("sum", above, attrs=((len(batch),),))


@function("linalg.matrix_rank", differentiable=False, samples=_matrices((3, 3), (2, 4, 2)))
@autocast_to("full")
def matrix_rank(A: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None,
                rtol: Any = None) -> Tensor:
    """How many singular values exceed max(atol, rtol * largest), int64; see `pinv`."""
    if isinstance(tol, bool):
        hermitian, tol = tol, None
    if tol is not None:
        atol, rtol = tol, 0.0
    result: Tensor = _rank(A, atol, rtol, bool(hermitian))
    return result


# ---------------------------------------------------------------- systems

def _is_vector(A: Tensor, B: Tensor) -> bool:
    """PyTorch's rule for when B is a batch of vectors."""
    return B.ndim == 1 or (A.ndim - 1 == B.ndim
                           and tuple(B.shape) == tuple(A.shape[:-1]))


@composite
def _solve_ex(A: Tensor, B: Tensor, left: bool) -> SolveEx:
    square("linalg.solve", A)
    same_dtype("linalg.solve", A, B)
    vector = _is_vector(A, B)
    if not left and vector:
        raise RuntimeError("linalg.solve: Vector broadcasting of the left hand side is not "
                           "supported for left=False. In this case linalg.solve is equivalent to "
                           "B / A.squeeze(-1)")
    b = prim("reshape", B, shape=(*B.shape, 1)) if vector else matrix("linalg.solve", B, "B")
    a = A
    if b.shape[-2 if left else -1] != A.shape[-1]:
        raise ShapeError("linalg.solve: Incompatible shapes of A and B for the equation "
                         f"{'AX' if left else 'XA'} = B ({A.shape[-2]}x{A.shape[-1]} and "
                         f"{b.shape[-2]}x{b.shape[-1]})")
    if not left:
        a, b = transposed(a), transposed(b)
    a, b = broadcast_batch(a, b)
    x, code = unpack(prim("solve", a, b), solve_shapes(*b.shape[-2:]))
    if not left:
        x = transposed(x)
    elif vector:
        x = prim("reshape", x, shape=tuple(x.shape[:-1]))
    return SolveEx(x, error_codes(code))


@function("linalg.solve_ex", samples=lambda make: [((make(3, 3), make(3, 2)), {})])
def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> SolveEx:
    """(result, info) of A X = B; info (int32) is not 0 where A is singular.  See `solve`."""
    out: SolveEx = _solve_ex(A, B, left)
    if check_errors:
        return SolveEx(checked("linalg.solve", out.result, out.info, _NO_SOLUTION),
                       out.info)
    return out


@function("linalg.solve", samples=lambda make: [
    ((make(3, 3), make(3)), {}), ((make(2, 3, 3), make(3, 2)), {}),
    ((make(3, 3), make(2, 3)), {"left": False})])
@autocast_to("full")
def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X with A X = B (X A = B unless `left`), for square matrices A; batches broadcast.

    B is a batch of vectors if it has one dimension, or A's shape without the last.  Raises
    LinAlgError where A is singular.
    """
    x, info = _solve_ex(A, B, left)
    return checked("linalg.solve", x, info, _NO_SOLUTION)


@operation("linalg.solve_triangular", samples=lambda make: [
    ((make(3, 3, low=0.5, high=2), make(3, 2)), {"upper": True}),
    ((make(2, 3, 3, low=0.5, high=2), make(1, 3)), {"upper": False, "left": False})])
def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True,
                     unitriangular: bool = False) -> Tensor:
    """X with A X = B (X A = B unless `left`) for triangular A; batches broadcast.

    The other triangle of A is not read, nor with `unitriangular` its diagonal, which counts as
    ones.
    """
    square("linalg.solve_triangular", A)
    matrix("linalg.solve_triangular", B, "B")
    same_dtype("linalg.solve_triangular", A, B)
    if B.shape[-2 if left else -1] != A.shape[-1]:
        raise ShapeError("linalg.solve_triangular: Incompatible shapes of A and B for the equation "
                         f"{'AX' if left else 'XA'} = B ({A.shape[-2]}x{A.shape[-1]} and "
                         f"{B.shape[-2]}x{B.shape[-1]})")
    a, b = broadcast_batch(A, B)
    if left:
        return prim("solve_triangular", a, b, attrs=(bool(upper), bool(unitriangular)))
    return transposed(prim("solve_triangular", transposed(a), transposed(b),
                           attrs=(not upper, bool(unitriangular))))


_DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


@composite
def _least_squares(A: Tensor, B: Tensor, rcond: Any, vector: bool
                   ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(solution, sums of squared residuals, rank, singular values)."""
    d = A.dtype
    b = prim("reshape", B, shape=(*B.shape, 1)) if vector else B
    a, b = broadcast_batch(A, b)
    limit = eps(d) * max(A.shape[-2:]) if rcond is None else rcond
    x = prim("matmul", _pinv(a, 0.0, limit, False), b)
    off = prim("sub", prim("matmul", a, x), b)
    size = prim("abs", off)
    left = prim("sum", prim("mul", size, size), attrs=((size.ndim - 2,),))
    if vector:
        x = prim("reshape", x, shape=tuple(x.shape[:-1]))
    return x, left, _rank(A, 0.0, limit, False), constant(prim("svdvals", A))


@function("linalg.lstsq", samples=lambda make: [
    ((make(4, 2), make(4, 3)), {}), ((make(2, 3, 3), make(2, 3, 1)), {})])
@autocast_to("full")
def lstsq(A: Tensor, B: Tensor, rcond: Any = None, *, driver: str | None = None) -> Lstsq:
    """(solution, residuals, rank, singular_values): X of least norm that minimises |A X - B|.

    Singular values up to rcond * largest count as zero.  `driver` names the method of LAPACK
    whose results are wanted: 'gelsy' (the default) gives no singular values, 'gels' no rank
    either; residuals are given if every A has full rank, more rows than columns, and the driver
    is not 'gelsy'.
    """
    driver = "gelsy" if driver is None else driver
    if driver not in _DRIVERS:
        raise RuntimeError("linalg.lstsq: parameter `driver` should be one of (gels, gelsy, "
                           f"gelsd, gelss), got {driver}")
    matrix("linalg.lstsq", A, "input")
    if B.ndim < 1:
        raise ShapeError("linalg.lstsq: other must have at least 1 dimension.")
    if A.dtype is not B.dtype:
        raise DTypeError("linalg.lstsq: Expected input and other to have the same dtype, but "
                         f"got input's dtype {A.dtype.name} and other's dtype {B.dtype.name}")
    vector = _is_vector(A, B)
    if B.shape[-1 if vector else -2] != A.shape[-2]:
        raise ShapeError("linalg.lstsq: input.size(-2) should match other.size(-"
                         f"{1 if vector else 2})")
    if isinstance(rcond, Tensor):
        rcond = float(rcond)                          # type: ignore[arg-type]
    x, left, rank, s = _least_squares(A, B, rcond, vector)
    m, n = A.shape[-2:]
    empty = prim("full", attrs=(0.0,), shape=(0,), dtype=A.dtype.to_real())
    residuals = left.reshape(-1)[:0]                             # type: ignore[attr-defined]
    if m > n and driver != "gelsy" and (driver == "gels" or bool((rank._peek() == n).all())):
        residuals = left
    if driver == "gels":
        rank = prim("full", attrs=(0,), shape=(0,), dtype=int64)
    return Lstsq(x, residuals, rank, s if driver in ("gelsd", "gelss") else empty)


# ---------------------------------------------------------------- determinants

@operation("linalg.det", method="det", samples=_matrices((3, 3), (2, 2, 2), (0, 0)))
def det(A: Tensor) -> Tensor:
    """The determinants of square matrices [..., n, n]."""
    return prim("det", square("linalg.det", A))


@operation("linalg.slogdet", method="slogdet", samples=_matrices((3, 3), (2, 2, 2), (0, 0)))
def slogdet(A: Tensor) -> Slogdet:
    """(sign, logabsdet): det = sign * exp(logabsdet); the logarithm is -inf where det is 0."""
    both = prim("slogdet", square("linalg.slogdet", A))
    sign, log = unpack(both, ((), ()))
    return Slogdet(sign, real(log))


@operation("logdet", method="logdet", samples=lambda make: [
    ((make(1, 1, low=0.5, high=2),), {}), ((make(0, 0),), {})])
def logdet(input: Tensor) -> Tensor:
    """The logarithms of the determinants; NaN where one is negative."""
    both = prim("slogdet", square("linalg.slogdet", input))
    sign, log = unpack(both, ((), ()))
    if input.dtype.kind == "c":
        return prim("add", log, prim("log", sign))
    below = prim("lt", sign, full_like(sign, 0.0))
    return prim("where", below, full_like(log, float("nan")), log)


# ---------------------------------------------------------------- powers

@composite
def _power(A: Tensor, n: int) -> Tensor:
    if n == 0:
        one: Tensor = unread(A, eye(A.shape[:-2], A.shape[-1], A.dtype))
        return one
    out, base = None, A
    while True:
        if n & 1:
            out = base if out is None else prim("matmul", out, base)
        n >>= 1
        if not n:
            break
        base = prim("matmul", base, base)
    assert out is not None
    return prim("alias", out)


@function("linalg.matrix_power", samples=lambda make: [
    ((make(3, 3), 2), {}), ((make(2, 2, 2), 5), {}), ((make(3, 3), 0), {}),
    ((make(3, 3), -2), {})])
@autocast_to("lower")
def matrix_power(A: Tensor, n: int) -> Tensor:
    """A multiplied by itself n times; of the inverse for n < 0."""
    if A.ndim < 2:
        raise ShapeError("linalg.matrix_power: The input tensor A must have at least 2 "
                         "dimensions.")
    if A.shape[-1] != A.shape[-2]:
        raise ShapeError("linalg.matrix_power: A must be batches of square matrices, but they are "
                         f"{A.shape[-2]} by {A.shape[-1]} matrices")
    result: Tensor = _power(inv(A) if n < 0 else A, abs(int(n)))
    return result


@operation("linalg.matrix_exp", method="matrix_exp", samples=_matrices((3, 3), (2, 2, 2), (0, 0)))
def matrix_exp(A: Tensor) -> Tensor:
    """The exponential of square matrices, the sum of A^k / k!; 16-bit floats in float32."""
    dtype = A._node.spec.dtype
    wide = cast(A, float32) if dtype.kind == "f" and dtype.itemsize < 4 else A
    return cast(prim("matrix_exp", square("linalg.matrix_exp", wide)), dtype)


# ---------------------------------------------------------------- tensors as matrices

def _product_of(sizes: Any) -> int:
    n = 1
    for s in sizes:
        n *= s
    return n


@function("linalg.tensorinv", samples=lambda make: [((make(2, 3, 6),), {"ind": 2})])
@autocast_to("full")
def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse of A as a map from its last dimensions to its first `ind`."""
    if ind <= 0:
        raise RuntimeError("Expected a strictly positive integer for 'ind'")
    first, last = tuple(A.shape[:ind]), tuple(A.shape[ind:])
    if _product_of(first) != _product_of(last):
        raise RuntimeError("Expected self to satisfy the requirement prod(self.shape[ind:]) == "
                           f"prod(self.shape[:ind]), but got {_product_of(last)} != "
                           f"{_product_of(first)}")
    n = _product_of(last)
    value, info = _inv_ex(A.reshape(n, n))                       # type: ignore[attr-defined]
    value = checked("linalg.tensorinv", value, info, _SINGULAR)
    out: Tensor = value.reshape(*last, *first)                   # type: ignore[attr-defined]
    return out


@function("linalg.tensorsolve", samples=lambda make: [((make(2, 3, 6), make(2, 3)), {})])
@autocast_to("full")
def tensorsolve(A: Tensor, B: Tensor, dims: Any = None) -> Tensor:
    """X with tensordot(A, X, X.ndim) = B; `dims` of A are first moved to its end."""
    if dims is not None:
        from facula.ops.views import movedim
        A = movedim(A, tuple(dims), tuple(range(A.ndim - len(dims), A.ndim)))
    shape = tuple(A.shape[B.ndim:])
    if _product_of(shape) != _product_of(A.shape[:B.ndim]):
        raise RuntimeError("Expected self to satisfy the requirement prod(self.shape[other.ndim:])"
                           f" == prod(self.shape[:other.ndim]), but got {_product_of(shape)} != "
                           f"{_product_of(A.shape[:B.ndim])}")
    n = _product_of(shape)
    x = solve(A.reshape(n, n), B.reshape(-1))                    # type: ignore[attr-defined]
    out: Tensor = x.reshape(*shape)
    return out
