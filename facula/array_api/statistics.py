"""Sums, means and extremes over axes; order, search and sets."""

from __future__ import annotations

from collections import namedtuple
from math import prod as _product
from typing import Any

import numpy as np

import facula
from facula.array_api._shared import Axis, axes_of, both, is_scalar, plain_axis
from facula.dtype import DType
from facula.errors import DTypeError
from facula.tensor import Tensor

__all__ = ["all", "any", "argmax", "argmin", "argsort", "count_nonzero", "cumulative_prod",
           "cumulative_sum", "diff", "isin", "max", "mean", "min", "nonzero", "prod",
           "searchsorted", "sort", "std", "sum", "unique_all", "unique_counts", "unique_inverse",
           "unique_values", "var"]

_All = namedtuple("_All", "values indices inverse_indices counts")
_Counts = namedtuple("_Counts", "values counts")
_Inverse = namedtuple("_Inverse", "values inverse_indices")


def _wide(x: Tensor, dtype: DType | None) -> DType:
    """The dtype that sums and products of `x` have: 64 bits for integers."""
    if dtype is not None:
        return dtype
    return {"u": facula.uint64, "i": facula.int64}.get(x.dtype.kind, x.dtype)


def _reduced(function: Any, x: Tensor, axis: Axis, keepdims: bool) -> Tensor:
    """A reduction that knows several axes, none of them included."""
    axes = axes_of(axis, x.ndim)
    return function(x, axes, keepdims) if axes else x.clone()


def sum(x: Tensor, /, *, axis: Axis = None, dtype: DType | None = None, keepdims: bool = False
        ) -> Tensor:
    """The sum over some axes; integers are summed in 64 bits unless `dtype` says otherwise."""
    return _reduced(facula.sum, x.to(_wide(x, dtype)), axis, keepdims).to(_wide(x, dtype))


def prod(x: Tensor, /, *, axis: Axis = None, dtype: DType | None = None, keepdims: bool = False
         ) -> Tensor:
    """The product over some axes; integers in 64 bits unless `dtype` says otherwise."""
    wide = _wide(x, dtype)
    x = x.to(wide)
    for place in sorted(axes_of(axis, x.ndim), reverse=True):
        x = facula.prod(x, place, keepdims, dtype=wide)
    return x


def mean(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean over some axes."""
    return _reduced(facula.mean, x, axis, keepdims)


def max(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element over some axes; NaN if there is one."""
    return _reduced(facula.amax, x, axis, keepdims)


def min(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element over some axes; NaN if there is one."""
    return _reduced(facula.amin, x, axis, keepdims)


def all(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether every element over some axes is true (not 0)."""
    return _reduced(facula.all, x.to(facula.bool), axis, keepdims)


def any(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether an element over some axes is true (not 0)."""
    return _reduced(facula.any, x.to(facula.bool), axis, keepdims)


def var(x: Tensor, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False
        ) -> Tensor:
    """The variance over some axes: squared distances from the mean over n - correction."""
    axes = axes_of(axis, x.ndim)
    apart = x - mean(x, axis=axes, keepdims=True)
    count = _product(x.shape[a] for a in axes) - correction
    total = sum(apart * apart, axis=axes, keepdims=keepdims)
    # As with PyTorch, nothing left to divide by gives NaN or infinity.
    return facula.divide(total, count if count > 0 else 0.0)


def std(x: Tensor, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False
        ) -> Tensor:
    """The square root of `var`."""
    return facula.sqrt(var(x, axis=axis, correction=correction, keepdims=keepdims))


def count_nonzero(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """How many elements over some axes are not 0; int64."""
    return sum(facula.ne(x, 0).to(facula.int64), axis=axis, keepdims=keepdims)


def _one_axis(name: str, x: Tensor, axis: int | None) -> int:
    if axis is None:
        if x.ndim != 1:
            raise ValueError(f"{name}(): axis has to be given for an array of {x.ndim} "
                             "dimensions")
        return 0
    return plain_axis(axis, x.ndim)


def _running(name: str, x: Tensor, axis: int | None, dtype: DType | None, first: int | None
             ) -> Tensor:
    place = _one_axis(name, x, axis)
    wide = _wide(x, dtype)
    x = x.to(wide)
    out = getattr(facula, "cumsum" if name == "cumulative_sum" else "cumprod")(
        x, place, dtype=wide)
    if first is None:
        return out
    lead = facula.full((*x.shape[:place], 1, *x.shape[place + 1:]), first, dtype=wide)
    return facula.cat([lead, out], place)


def cumulative_sum(x: Tensor, /, *, axis: int | None = None, dtype: DType | None = None,
                   include_initial: bool = False) -> Tensor:
    """Sums of all elements up to each along an axis, after a 0 if `include_initial`."""
    return _running("cumulative_sum", x, axis, dtype, 0 if include_initial else None)


def cumulative_prod(x: Tensor, /, *, axis: int | None = None, dtype: DType | None = None,
                    include_initial: bool = False) -> Tensor:
    """Products of all elements up to each along an axis, after a 1 if `include_initial`."""
    return _running("cumulative_prod", x, axis, dtype, 1 if include_initial else None)


def diff(x: Tensor, /, *, axis: int = -1, n: int = 1, prepend: Tensor | None = None,
         append: Tensor | None = None) -> Tensor:
    """Differences of neighbours along an axis, n times over."""
    return facula.diff(x, n, plain_axis(axis, x.ndim), prepend, append)


# ---------------------------------------------------------------- order and search

def sort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The elements in order along an axis."""
    return facula.sort(x, axis, descending, stable=stable)[0]


def argsort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True
            ) -> Tensor:
    """The indices that sort along an axis."""
    return facula.argsort(x, axis, descending, stable=stable)


def _extreme(function: Any, x: Tensor, axis: int | None, keepdims: bool) -> Tensor:
    if axis is not None:
        return function(x, plain_axis(axis, x.ndim), keepdims)
    place = function(x.reshape(-1), 0)
    return place.reshape((1,) * x.ndim) if keepdims else place


def argmax(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Where the largest element along an axis (or in the flat array) is; of equals the first."""
    return _extreme(facula.argmax, x, axis, keepdims)


def argmin(x: Tensor, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Where the smallest element is, as `argmax`."""
    return _extreme(facula.argmin, x, axis, keepdims)


def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """The indices of the elements that are not 0, an array for each axis."""
    if not x.ndim:
        raise ValueError("nonzero(): an array of zero dimensions has no indices")
    return tuple(facula.nonzero(x, as_tuple=True))


def searchsorted(x1: Tensor, x2: Any, /, *, side: str = "left", sorter: Tensor | None = None
                 ) -> Tensor:
    """Where each element of `x2` would be put into the sorted vector `x1`."""
    x1, x2 = both(x1, x2)
    return facula.searchsorted(x1, x2, side=side, sorter=sorter)


# ---------------------------------------------------------------- sets

def isin(x1: Any, x2: Any, /, *, invert: bool = False) -> Tensor:
    """Whether each element of `x1` is one of `x2`, or is none if `invert`."""
    if is_scalar(x1) and is_scalar(x2):
        raise DTypeError("isin(): one of the arguments has to be an array")
    x1, x2 = both(x1, x2)
    return facula.isin(x1, x2, invert=invert)


def _unique(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The distinct values in order, where each is first, which one each element is, how many."""
    array: np.ndarray = x.detach().numpy()
    found = np.unique(array, return_index=True, return_inverse=True, return_counts=True,
                      equal_nan=False)
    values, first, inverse, counts = (facula.from_numpy(np.ascontiguousarray(a)) for a in found)
    return values, first, inverse.reshape(x.shape), counts


def unique_all(x: Tensor, /) -> _All:
    """(values, indices, inverse_indices, counts) of the distinct elements; NaN is never equal."""
    return _All(*_unique(x))


def unique_counts(x: Tensor, /) -> _Counts:
    """(values, counts) of the distinct elements."""
    values, _, _, counts = _unique(x)
    return _Counts(values, counts)


def unique_inverse(x: Tensor, /) -> _Inverse:
    """(values, inverse_indices): the distinct elements, and which one each element is."""
    values, _, inverse, _ = _unique(x)
    return _Inverse(values, inverse)


def unique_values(x: Tensor, /) -> Tensor:
    """The distinct elements."""
    return _unique(x)[0]
