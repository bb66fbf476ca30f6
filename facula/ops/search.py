"""Operations whose result depends on values in its shape, or is found by searching.

They are computed at once, by NumPy.  What they find is an index: values are then taken by it in
the graph, so that gradients flow.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from facula.dtype import bool_, int32, int64
from facula.errors import DTypeError
from facula.ops.given import into, takes_out
from facula.ops.keywords import also_named
from facula.ops.layout import check_tensor, host, true_places
from facula.ops.promote import promote_types
from facula.ops.reductions import wrap_dim
from facula.ops.surface import public
from facula.return_types import declare
from facula.tensor import Tensor

__all__ = ["nonzero", "argwhere", "unique", "unique_consecutive", "bincount", "histc",
           "histogram", "searchsorted", "bucketize", "isin"]

_FAMILY = "search"


def nonzero(input: Tensor, *, as_tuple: bool = False, out: Tensor | None = None) -> Any:
    """Where `input` is not zero: int64 (n, ndim), or with as_tuple one 1-d index a dimension."""
    check_tensor("nonzero", input)
    array = input._peek()
    if as_tuple:
        found = true_places(array.reshape(1) if array.ndim == 0 else array)
        return tuple([host(i.astype(np.int64, copy=False), int64) for i in found])
    if array.ndim == 0:
        rows = np.zeros((int(bool(array)), 0), np.int64)
    else:
        rows = np.stack(true_places(array), -1)
    return into(out, host(rows, int64))


def argwhere(input: Tensor) -> Tensor:
    """Where `input` is not zero: int64 (n, ndim)."""
    result: Tensor = nonzero(input)
    return result


# ---------------------------------------------------------------- distinct values

def _comparable(array: np.ndarray) -> np.ndarray:
    """16-bit floats as float32, in which NumPy sorts them."""
    return array.astype(np.float32) if array.dtype.itemsize == 2 and array.dtype.kind in "fV" \
        else array


def _packed(output: Any, inverse: Any, counts: Any, return_inverse: bool, return_counts: bool
            ) -> Any:
    parts = [output]
    if return_inverse:
        parts.append(inverse)
    if return_counts:
        parts.append(counts)
    return parts[0] if len(parts) == 1 else tuple(parts)


def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False,
           return_counts: bool = False, dim: int | None = None) -> Any:
    """The distinct elements in ascending order, or the distinct slices along `dim`.

    With them, if asked for: where each element went (inverse), how often each occurs (counts).
    """
    array = _comparable(input._peek())
    axis = None if dim is None else wrap_dim(dim, input.ndim)
    if axis is not None and array.size == 0 and array.shape[axis] == 0:
        found, inverse, counts = array, np.zeros(0, np.int64), np.zeros(0, np.int64)
    else:
        # what nobody asks for would take several times as long as the values
        find: Any = np.unique
        parts = find(array, return_inverse=return_inverse, return_counts=return_counts, axis=axis,
                     equal_nan=False)
        made: list[Any] = list(parts) if return_inverse or return_counts else [parts]
        found = made.pop(0)
        inverse = made.pop(0) if return_inverse else np.zeros(0, np.int64)
        counts = made.pop(0) if return_counts else np.zeros(0, np.int64)
    shape = array.shape if dim is None else (-1,)
    if not return_inverse:
        return _packed(host(found, input.dtype), None, host(counts, int64), False, return_counts)
    return _packed(host(found, input.dtype), host(inverse.reshape(shape), int64),
                   host(counts, int64), return_inverse, return_counts)


def unique_consecutive(input: Tensor, return_inverse: bool = False, return_counts: bool = False,
                       dim: int | None = None) -> Any:
    """The elements (or slices along `dim`) without those that equal the one before."""
    array = _comparable(input._peek())
    axis = 0 if dim is None else wrap_dim(dim, input.ndim)
    lines = array.reshape(-1) if dim is None else np.moveaxis(array, axis, 0)
    n = lines.shape[0]
    rows = lines.reshape(n, -1) if n else lines.reshape(0, 1)
    new = np.ones(n, bool)
    if n:
        new[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    first = np.flatnonzero(new)
    inverse = np.cumsum(new) - 1
    counts = np.diff(np.append(first, n))
    kept = lines[first]
    if dim is None:
        inverse = inverse.reshape(array.shape)
    else:
        kept = np.moveaxis(kept, 0, axis)
    return _packed(host(np.ascontiguousarray(kept), input.dtype), host(inverse, int64),
                   host(counts, int64), return_inverse, return_counts)


def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False
         ) -> Tensor:
    """Where `elements` are among `test_elements`; bool."""
    a = elements._peek() if isinstance(elements, Tensor) else np.asarray(elements)
    b = test_elements._peek() if isinstance(test_elements, Tensor) else np.asarray(test_elements)
    return host(np.asarray(np.isin(a, b, invert=invert)), bool_)


# ---------------------------------------------------------------- counting

def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each non-negative int occurs, or the sum of its weights."""
    if input.dtype.kind not in "ui":
        raise DTypeError("bincount only supports 1-d non-negative integral inputs.")
    array = input._peek()
    if minlength < 0:
        raise RuntimeError("minlength should be >= 0")
    if array.ndim != 1 or (array.size and array.min() < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    if weights is None:
        return host(np.bincount(array, minlength=minlength), int64)
    w = weights._peek()
    if w.shape != array.shape:
        raise RuntimeError("weights should be 1-d and have the same length as input")
    from facula.dtype import float32, float64
    dtype = weights.dtype if weights.dtype in (float32, float64) else float64
    return host(np.bincount(array, w.astype(np.float64), minlength), dtype)


@takes_out
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """Counts in `bins` equal intervals from min to max (those of the input if both are 0)."""
    if bins <= 0:
        raise RuntimeError("bins must be > 0")
    if input.dtype.kind != "f":
        raise DTypeError(f'"histogram_cpu" not implemented for \'{input.dtype.name}\'')
    array = _comparable(input._peek()).reshape(-1)
    low, high = float(min), float(max)
    if low == high and array.size:
        low, high = float(array.min()), float(array.max())
    if low == high:
        low, high = low - 1, high + 1
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RuntimeError(f"range of [{low}, {high}] is not finite")
    if low > high:
        raise RuntimeError("max must be larger than min")
    inside = array[(array >= low) & (array <= high)].astype(np.float64)
    place = np.minimum(((inside - low) / (high - low) * bins).astype(np.int64), bins - 1)
    return host(np.bincount(place, minlength=bins), input.dtype)


_Histogram = namedtuple("histogram", "hist bin_edges")
declare(_Histogram)


@takes_out
def histogram(input: Tensor, bins: Any, *, range: Any = None, weight: Tensor | None = None,
              density: bool = False) -> Any:
    """(counts, edges) over equal intervals, or between the given edges."""
    array = input._peek().reshape(-1)
    w = None if weight is None else weight._peek().reshape(-1)
    edges = bins._peek() if isinstance(bins, Tensor) else bins
    if range is None and not isinstance(bins, Tensor) and array.size:
        range = (float(array.min()), float(array.max()))
        if range[0] == range[1]:
            range = (range[0] - 0.5, range[1] + 0.5)
    hist, found = np.histogram(array, edges, range, density, w)
    return _Histogram(host(hist, input.dtype), host(found, input.dtype))


_HistogramDD = namedtuple("histogramdd", "hist bin_edges")
declare(_HistogramDD)


def histogramdd(input: Tensor, bins: Any, *, range: Any = None, weight: Tensor | None = None,
                density: bool = False) -> Any:
    """(counts, edges) in boxes: input `[*, D]`, a number of bins or edges for each of the D.

    `range` has the lower and upper end for each dimension in turn.
    """
    if input.ndim < 2:
        raise RuntimeError("histogramdd: input tensor should have at least 2 dimensions, but "
                           f"got {input.ndim}")
    if input.dtype.kind != "f":
        raise DTypeError(f'"histogramdd" not implemented for \'{input.dtype.name}\'')
    count = input.shape[-1]
    rows = input._peek().reshape(-1, count)
    each = [bins] * count if isinstance(bins, int) else list(bins)
    if len(each) != count:
        raise RuntimeError("histogramdd: The size of bins must be equal to the innermost "
                           "dimension of the input.")
    edges, places = [], []
    inside = np.ones(len(rows), bool)
    for k, b in enumerate(each):
        column = rows[:, k]
        if isinstance(b, Tensor):
            if b.ndim != 1 or not b.numel() or b.dtype is not input.dtype:
                raise RuntimeError("histogramdd: bins tensor should have one dimension, at "
                                   "least one element, and the dtype of the input")
            line = np.array(b._peek())
        else:
            if b <= 0:
                raise RuntimeError(f"histogramdd(): bins {b} must be > 0")
            if range is not None:
                low, high = float(range[2 * k]), float(range[2 * k + 1])
            else:
                low, high = (float(column.min()), float(column.max())) if len(rows) else (0.0, 1.0)
            if low == high:
                low, high = low - 0.5, high + 0.5
            line = np.linspace(low, high, b + 1).astype(rows.dtype)
        edges.append(line)
        place = np.searchsorted(line, column, "right") - 1
        place[column == line[-1]] = len(line) - 2
        inside &= (column >= line[0]) & (column <= line[-1])
        places.append(place)
    shape = tuple(len(line) - 1 for line in edges)
    flat = np.ravel_multi_index([p[inside] for p in places], shape) if np.prod(shape) else []
    w = None if weight is None else weight._peek().reshape(-1)[inside].astype(np.float64)
    hist = np.bincount(flat, w, int(np.prod(shape))).reshape(shape).astype(np.float64)
    if density:
        hist = hist / hist.sum()
        for k, line in enumerate(edges):
            width = np.diff(line.astype(np.float64))
            hist = hist / width.reshape([-1 if j == k else 1 for j, _ in enumerate(edges)])
    return _HistogramDD(host(hist, input.dtype), tuple(host(e, input.dtype) for e in edges))


# ---------------------------------------------------------------- sorted sequences

@takes_out
def searchsorted(sorted_sequence: Tensor, input: Any, *, out_int32: bool = False,
                 right: bool = False, side: str | None = None, sorter: Tensor | None = None
                 ) -> Tensor:
    """Where to insert `input` into sorted rows so that they stay sorted; before equal elements,
    with `right` (or side='right') after them.  The leading dimensions of both agree."""
    if side is not None:
        if side not in ("left", "right"):
            raise RuntimeError("searchsorted(): side can only be 'left' or 'right' but got "
                               f"{side}")
        if side == "left" and right:
            raise RuntimeError("searchsorted(): side and right can't be set to opposites, got "
                               "side of left while right was True")
        right = side == "right"
    number = not isinstance(input, Tensor)
    seq = sorted_sequence._peek()
    values = np.asarray(input) if number else input._peek()
    if not number:
        dtype = promote_types(sorted_sequence.dtype, input.dtype)
        if dtype is not sorted_sequence.dtype or dtype is not input.dtype:
            raise DTypeError("searchsorted(): input value tensor and boundary tensor should have "
                             f"same dtype, but got boundary tensor dtype "
                             f"{sorted_sequence.dtype.name} and input value tensor dtype "
                             f"{input.dtype.name}")
    if seq.ndim == 0:
        raise RuntimeError("searchsorted(): boundaries tensor should have positive dimension")
    seq, values = _comparable(seq), _comparable(values)
    if sorter is not None:
        if sorter.shape != sorted_sequence.shape:
            raise RuntimeError("searchsorted(): boundary and sorter must have the same size")
        seq = np.take_along_axis(seq, sorter._peek(), -1)
    kind: Any = "right" if right else "left"
    if seq.ndim == 1:
        out = np.searchsorted(seq, values, kind)
    else:
        if values.shape[:-1] != seq.shape[:-1]:
            raise RuntimeError("searchsorted(): boundaries tensor should be 1 dimension or the "
                               "first N-1 dimensions of boundaries tensor and input value tensor "
                               f"must match, but we got boundaries tensor {list(seq.shape)} and "
                               f"input value tensor {list(values.shape)}")
        out = np.empty(values.shape, np.int64)
        for k in np.ndindex(values.shape[:-1]):
            out[k] = np.searchsorted(seq[k], values[k], kind)
    return host(np.asarray(out), int32 if out_int32 else int64)


@takes_out
def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
              ) -> Tensor:
    """The interval between sorted boundaries in which each element lies."""
    if boundaries.ndim != 1:
        raise RuntimeError("bucketize(): boundaries tensor must be 1 dimension, but got dim("
                           f"{boundaries.ndim})")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


for _fn in (nonzero, argwhere, unique, unique_consecutive, bincount, histc, histogram,
            histogramdd):
    public(_fn, _fn.__name__, _FAMILY, differentiable=False)
public(bucketize, "bucketize", _FAMILY, method=False, differentiable=False)
public(searchsorted, "searchsorted", _FAMILY, method=False, differentiable=False)
isin = also_named(isin, {"element": "elements", "test_element": "test_elements"})
public(isin, "isin", _FAMILY, method=False, differentiable=False)
