"""Running sums, products and extremes, and differences of neighbours."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from facula.dtype import DType, bool_, int64, uint8
from facula.errors import DTypeError, ShapeError
from facula.ops.arithmetic import logaddexp
from facula.ops.define import op
from facula.ops.keywords import numpy_names
from facula.ops.promote import as_float, cast, common_dtype, full_like, type_name
from facula.ops.reductions import _sum_type, constant, wrap_dim
from facula.ops.shape import cut, iota_along
from facula.return_types import declare
from facula.tensor import Tensor, prim

__all__ = ["cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "diff"]


def _samples(make: Any) -> list[Any]:
    return [((make(5), 0), {}), ((make(3, 4), 0), {}), ((make(2, 3, 4), -1), {}), ((make(), 0), {}),
            ((make(3, 0), 1), {})]


def _scan(name: str, input: Tensor, dim: int, dtype: DType | None) -> Tensor:
    axis = wrap_dim(dim, input.ndim)
    x = _sum_type(input, dtype)
    if not x.ndim:
        return prim("alias", x)
    return prim(name, x, attrs=(axis,))


@op(method=True, inplace=True, samples=_samples)
@numpy_names
def cumsum(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """Running sums along `dim`; integers are summed in int64."""
    return _scan("cumsum", input, dim, dtype)


@op(method=True, inplace=True, samples=_samples)
@numpy_names
def cumprod(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """Running products along `dim`; integers are multiplied in int64."""
    return _scan("cumprod", input, dim, dtype)


_CumMax = namedtuple("cummax", "values indices")
_CumMin = namedtuple("cummin", "values indices")
declare(_CumMax, _CumMin)


def _extreme(name: str, pack: Any, input: Tensor, dim: int) -> Any:
    """Running extremes and where each was met last."""
    axis = wrap_dim(dim, input.ndim)
    if input.dtype.kind == "c":
        raise DTypeError(f'"{name}" not implemented for \'{type_name(input.dtype)}\'')
    if not input.ndim:
        return pack(prim("alias", input), prim("full", attrs=(0,), shape=(), dtype=int64))
    x = cast(input, uint8) if input.dtype is bool_ else input
    still = constant(x)
    best = prim(name, still, attrs=(axis,))
    hit = prim("eq", still, best)
    if x.dtype.kind == "f":                     # NaN is an extreme, and the last of them counts
        hit = prim("logical_or", hit, prim("isnan", still))
    place = iota_along(x._node.spec.shape, axis)
    index = prim("cummax", prim("where", hit, place, full_like(place, 0)), attrs=(axis,))
    values = prim("gather", input, index, attrs=(axis,))
    return pack(values, index)


@op(method=True, samples=_samples)
@numpy_names
def cummax(input: Tensor, dim: int) -> Any:
    """(values, indices): the largest element so far along `dim`, and its last position."""
    return _extreme("cummax", _CumMax, input, dim)


@op(method=True, samples=_samples)
@numpy_names
def cummin(input: Tensor, dim: int) -> Any:
    """(values, indices): the smallest element so far along `dim`, and its last position."""
    return _extreme("cummin", _CumMin, input, dim)


@op(method=True, samples=_samples)
@numpy_names
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log(cumsum(exp(input))) along `dim`, without overflow.

    By doubling: after step k each element holds the sum of the 2**k elements up to it (Hillis &
    Steele, "Data parallel algorithms", 1986).
    """
    axis = wrap_dim(dim, input.ndim)
    x = as_float(input)
    if not x.ndim or not x.numel():
        return prim("alias", x)
    n = x._node.spec.shape[axis]
    width = 1
    while width < n:
        late = logaddexp(cut(x, axis, width, n), cut(x, axis, 0, n - width))
        x = prim("cat", cut(x, axis, 0, width), late, attrs=(axis,))
        width *= 2
    return prim("alias", x) if x is input else x


@op(method=True, samples=lambda make: [((make(5),), {}), ((make(3, 4), 2), {}),
                                       ((make(3, 4), 1, 0), {})])
def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None,
         append: Tensor | None = None) -> Tensor:
    """Differences of neighbours along `dim`, `n` times over."""
    if not input.ndim:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    if n < 0:
        raise RuntimeError(f"order must be non-negative but got {n}")
    axis = wrap_dim(dim, input.ndim)
    if n == 0:
        return prim("alias", input)
    parts = [t for t in (prepend, input, append) if t is not None]
    dtype = common_dtype(parts)
    for p in parts:
        if p.ndim != input.ndim or any(
                a != b for k, (a, b) in enumerate(zip(p.shape, input.shape)) if k != axis):
            raise ShapeError("diff expects prepend or append to be the same dimension and size as "
                             "input except in the dimension of the differences")
    x = prim("cat", *[cast(p, dtype) for p in parts], attrs=(axis,)) if len(parts) > 1 else input
    for _ in range(n):
        size = x._node.spec.shape[axis]
        if size == 0:
            break
        a, b = cut(x, axis, 1, size), cut(x, axis, 0, size - 1)
        x = prim("ne" if dtype is bool_ else "sub", a, b)
    return prim("alias", x) if x is input else x
