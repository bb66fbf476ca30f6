"""The extension `linalg`: products, factorisations, norms and systems of matrices."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import facula
import facula.linalg as _linalg
from facula.array_api._shared import Axis, axes_of, both
from facula.array_api.statistics import sum as _sum
from facula.dtype import DType
from facula.tensor import Tensor

__all__ = ["cholesky", "cross", "det", "diagonal", "eig", "eigh", "eigvals", "eigvalsh", "inv",
           "matmul", "matrix_norm", "matrix_power", "matrix_rank", "matrix_transpose", "outer",
           "pinv", "qr", "slogdet", "solve", "svd", "svdvals", "tensordot", "trace", "vecdot",
           "vector_norm"]

_Eig = namedtuple("_Eig", "eigenvalues eigenvectors")
_Qr = namedtuple("_Qr", "Q R")
_Slogdet = namedtuple("_Slogdet", "sign logabsdet")
_Svd = namedtuple("_Svd", "U S Vh")


def matmul(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The matrix product; leading axes broadcast."""
    return facula.matmul(*both(x1, x2))


def matrix_transpose(x: Tensor, /) -> Tensor:
    """The last two axes exchanged; ValueError with fewer than two."""
    if x.ndim < 2:
        raise ValueError(f"matrix_transpose() needs two dimensions at least, got {x.ndim}")
    return x.mT


def tensordot(x1: Tensor, x2: Tensor, /, *, axes: Any = 2) -> Tensor:
    """The sum of products over the last axes of one and the first of the other, or given ones."""
    return facula.tensordot(*both(x1, x2), axes)


def vecdot(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The sum of conj(x1) * x2 along an axis, of one size in both; the others broadcast."""
    if x1.shape[axis] != x2.shape[axis]:
        raise ValueError(f"vecdot(): sizes {x1.shape[axis]} and {x2.shape[axis]} along axis "
                         f"{axis} differ")
    a, b = both(x1, x2)
    return facula.sum(facula.conj_physical(a) * b, axis, dtype=a.dtype)


def outer(x1: Tensor, x2: Tensor, /) -> Tensor:
    """All products of the elements of two vectors: `[m]` and `[n]` to `[m, n]`."""
    return facula.outer(*both(x1, x2))


def cross(x1: Tensor, x2: Tensor, /, *, axis: int = -1) -> Tensor:
    """The cross product along an axis of size 3; the others broadcast."""
    if x1.shape[axis] != 3 or x2.shape[axis] != 3:
        raise ValueError(f"cross(): axis {axis} has to be of size 3 in both arrays, not "
                         f"{x1.shape[axis]} and {x2.shape[axis]}")
    a, b = facula.broadcast_tensors(*both(x1, x2))
    return _linalg.cross(a, b, dim=axis)


def diagonal(x: Tensor, /, *, offset: int = 0) -> Tensor:
    """The diagonals of the matrices `[..., m, n]`."""
    return facula.diagonal(x, offset, -2, -1)


def trace(x: Tensor, /, *, offset: int = 0, dtype: DType | None = None) -> Tensor:
    """The sums of the diagonals of the matrices `[..., m, n]`."""
    return _sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)


def det(x: Tensor, /) -> Tensor:
    """The determinants of the matrices `[..., n, n]`."""
    return _linalg.det(x)


def slogdet(x: Tensor, /) -> _Slogdet:
    """(sign, logabsdet) of the determinants of `[..., n, n]`."""
    return _Slogdet(*_linalg.slogdet(x))


def inv(x: Tensor, /) -> Tensor:
    """The inverses of the matrices `[..., n, n]`."""
    return _linalg.inv(x)


def pinv(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """The pseudo-inverses of `[..., m, n]`; singular values below rtol times the largest are 0."""
    return _linalg.pinv(x, rtol=rtol)


def cholesky(x: Tensor, /, *, upper: bool = False) -> Tensor:
    """The Cholesky factors of positive definite matrices `[..., n, n]`."""
    return _linalg.cholesky(x, upper=upper)


def qr(x: Tensor, /, *, mode: str = "reduced") -> _Qr:
    """(Q, R) of the matrices `[..., m, n]`; mode 'reduced' or 'complete'."""
    return _Qr(*_linalg.qr(x, mode))


def svd(x: Tensor, /, *, full_matrices: bool = True) -> _Svd:
    """(U, S, Vh) of the matrices `[..., m, n]`."""
    return _Svd(*_linalg.svd(x, full_matrices))


def svdvals(x: Tensor, /) -> Tensor:
    """The singular values of the matrices `[..., m, n]`, the largest first."""
    return _linalg.svdvals(x)


def eigh(x: Tensor, /) -> _Eig:
    """(eigenvalues, eigenvectors) of symmetric or Hermitian matrices."""
    return _Eig(*_linalg.eigh(x))


def eigvalsh(x: Tensor, /) -> Tensor:
    """The eigenvalues of symmetric or Hermitian matrices."""
    return _linalg.eigvalsh(x)


def eig(x: Tensor, /) -> _Eig:
    """(eigenvalues, eigenvectors) of square matrices; complex."""
    return _Eig(*_linalg.eig(x))


def eigvals(x: Tensor, /) -> Tensor:
    """The eigenvalues of square matrices; complex."""
    return _linalg.eigvals(x)


def matrix_norm(x: Tensor, /, *, keepdims: bool = False, ord: Any = "fro") -> Tensor:
    """The norms of the matrices `[..., m, n]`: 'fro', 'nuc', 1, 2, inf and their negatives."""
    return _linalg.matrix_norm(x, ord, (-2, -1), keepdims)


def matrix_power(x: Tensor, n: int, /) -> Tensor:
    """The n-th powers of square matrices, of their inverses for n < 0."""
    return _linalg.matrix_power(x, n)


def matrix_rank(x: Tensor, /, *, rtol: Any = None) -> Tensor:
    """How many singular values exceed rtol times the largest."""
    return _linalg.matrix_rank(x, rtol=rtol)


def solve(x1: Tensor, x2: Tensor, /) -> Tensor:
    """The solutions X of x1 X = x2; `x2` is a vector if it has one dimension, else matrices."""
    a, b = both(x1, x2)
    if b.ndim != 1 and b.ndim == a.ndim - 1:
        b = b.unsqueeze(0)            # matrices, which linalg.solve would take for vectors
    return _linalg.solve(a, b)


def vector_norm(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False, ord: Any = 2) -> Tensor:
    """The p-norms over some axes, for any real `ord` and infinity."""
    axes = axes_of(axis, x.ndim)
    if not axes:                                       # the norm of single numbers
        size = facula.abs(x)
        return facula.ne(x, 0).to(size.dtype) if ord == 0 else size
    return _linalg.vector_norm(x, ord, axes, keepdims)
