"""Reading and writing elements by index tensors.

Indices are int64 and count from zero; one that is out of range raises an IndexError when the
values are computed.  Of several writes to one element the last in row-major order of the index
remains, and sums are added in that order, so results do not depend on scheduling.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from facula.dtype import int32, int64
from facula.errors import DTypeError, ShapeError
from facula.graph.spec import Spec, spec
from facula.ops.primitive.batching import axis_first, each, put, taken
from facula.ops.primitive.movement import last_writer, zeros_like_of
from facula.ops.primitive.record import Sample, _count, check_axis, fits_kind, register
from facula.ops.primitive.rules import (
    cast,
    conj,
    full,
    iota,
    prim,
    reshape,
    where,
    zeros_like,
)

__all__ = ["MODES"]

Attrs = tuple[Any, ...]
Arrays = Sequence[np.ndarray]

MODES = ("set", "add", "mul", "amax", "amin")
"""How `scatter` combines what it writes with what is there."""


def _index_dtype(name: str, index: Spec) -> None:
    if index.dtype is not int64:
        raise DTypeError(f"{name}: expected dtype int64 for the index, not {index.dtype!r}")


def _check_range(name: str, index: np.ndarray, size: int, axis: int) -> None:
    """Raise an IndexError unless every index is in [0, size)."""
    if index.size and (index.min() < 0 or index.max() >= size):
        bad = index[(index < 0) | (index >= size)].flat[0]
        raise IndexError(f"{name}: index {bad} is out of bounds for dimension {axis} with size "
                         f"{size}")


# ---------------------------------------------------------------- take

def _infer_take(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("take", specs, 2)
    x, index = specs
    _index_dtype("take", index)
    axis = attrs[0]
    check_axis("take", axis, len(x.shape))
    return spec((*x.shape[:axis], *index.shape, *x.shape[axis + 1:]), x.dtype)


def _take(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    x, index = arrays
    axis = attrs[0]
    _check_range("take", index, x.shape[axis], axis)
    return x[(slice(None),) * axis + (index,)]


def _take_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    x, index = c.inputs
    zero = zeros_like_of(g, x.shape)
    return prim("index_put", zero, g, index, attrs=(c.attrs[0], True)), None


_TAKES: Sequence[Any] = (
    ((5,), [3, 0, 3], 0), ((4, 3), [[0, 3], [3, 1]], 0), ((4, 3), [2, 0, 2, 1], 1),
    ((2, 3, 2), 1, 1), ((3, 2), np.zeros((0,), np.int64), 0), ((2, 0), [1], 0))


def _ints(values: Any) -> np.ndarray:
    return np.array(values, np.int64)


register("take", "indexing", _infer_take, _take, vjp=_take_vjp, saves=("in1",), batch=taken,
         jvp=lambda c, tangents: prim("take", tangents[0], c.inputs[1], attrs=c.attrs),
         samples=lambda make: [Sample((make(*shape), _ints(index)), (axis,))
                               for shape, index, axis in _TAKES])


# ---------------------------------------------------------------- gather and scatter

def _check_aligned(name: str, x: Spec, index: Spec, axis: int) -> None:
    _index_dtype(name, index)
    if len(index.shape) != len(x.shape):
        raise ShapeError("Index tensor must have the same number of dimensions as input tensor: "
                         f"{name} of {x.shape} by {index.shape}")
    check_axis(name, axis, len(x.shape))
    if any(i > n for d, (i, n) in enumerate(zip(index.shape, x.shape)) if d != axis):
        raise ShapeError(f"{name}: size does not match: expected index {index.shape} to be no "
                         f"larger than {x.shape} apart from dimension {axis}")


def _infer_gather(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("gather", specs, 2)
    _check_aligned("gather", specs[0], specs[1], attrs[0])
    return spec(specs[1].shape, specs[0].dtype)


def _places(shape: Sequence[int], index: np.ndarray, axis: int) -> tuple[np.ndarray, ...]:
    """Index arrays, one a dimension: those of `index` itself but along `axis`, which it names."""
    grid: list[Any] = list(np.ogrid[tuple([slice(0, n) for n in index.shape])])
    grid[axis] = index
    return tuple(grid)


def _gather(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    x, index = arrays
    axis = attrs[0]
    _check_range("gather", index, x.shape[axis], axis)
    return x[_places(x.shape, index, axis)]


def _gather_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    x, index = c.inputs
    zero = zeros_like_of(g, x.shape)
    return prim("scatter", zero, index, g, attrs=(c.attrs[0], "add")), None


def _gather_tensor(x: Any, index: Any, axis: int) -> Any:
    return prim("gather", x, index, attrs=(axis,))


_GATHERS: Sequence[Any] = (
    ((5,), [4, 1, 1], 0), ((3, 4), [[0, 2], [1, 1]], 0), ((3, 4), [[3, 3, 0, 1, 3]], 1),
    ((2, 3, 2), [[[0, 0], [2, 1]], [[1, 2], [1, 1]]], 1), ((3, 2), np.zeros((0, 2)), 0))

register("gather", "indexing", _infer_gather, _gather, vjp=_gather_vjp, saves=("in1",),
         batch=axis_first,
         jvp=lambda c, tangents: _gather_tensor(tangents[0], c.inputs[1], c.attrs[0]),
         samples=lambda make: [Sample((make(*shape), _ints(index)), (axis,))
                               for shape, index, axis in _GATHERS])


def _infer_scatter(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("scatter", specs, 3)
    base, index, src = specs
    axis, mode = attrs
    if mode not in MODES:
        raise ValueError(f"scatter: the mode is one of {', '.join(MODES)}, not {mode!r}")
    if src.dtype is not base.dtype:
        raise DTypeError("scatter(): Expected self.dtype to be equal to src.dtype: "
                         f"{base.dtype.name} and {src.dtype.name}")
    if mode in ("amax", "amin"):
        fits_kind(f"scatter with {mode}", base, "buif")
    _check_aligned("scatter", base, index, axis)
    if index.shape != src.shape:
        raise ShapeError(f"scatter: the index and what is written have one shape, not "
                         f"{index.shape} and {src.shape}")
    return base


_COMBINE = {"add": np.add, "mul": np.multiply, "amax": np.maximum, "amin": np.minimum}


def _combine(flat: np.ndarray, places: np.ndarray, values: np.ndarray, mode: str) -> None:
    """Write `values` into `flat`, one by one in row-major order.

    Each result is rounded to the dtype of the memory it is kept in, 16-bit ones too.
    """
    places, values = places.reshape(-1), values.reshape(-1)
    with np.errstate(all="ignore"):
        if mode == "set":
            flat[places] = values
        else:
            _COMBINE[mode].at(flat, places, values)


def _flat_places(shape: Sequence[int], index: Sequence[np.ndarray]) -> np.ndarray:
    """Positions in row-major order of index arrays that broadcast together."""
    total: Any = np.int64(0)
    for n, i in zip(shape, index):
        total = total * n + i
    return np.asarray(total, np.int64)


def _scatter(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    base, index, src = arrays
    axis, mode = attrs
    _check_range("scatter", index, base.shape[axis], axis)
    flat = np.array(base, order="C").reshape(-1)
    places = _flat_places(base.shape, _places(base.shape, index, axis))
    _combine(flat, np.broadcast_to(places, src.shape), src, mode)
    return flat.reshape(out.shape)


def _scatter_winner(base: Any, index: Any, axis: int) -> Any:
    """Which elements written by a scatter that sets are still there at the end."""
    number = reshape(iota(index.numel()), index.shape)
    board = prim("full", attrs=(-1,), shape=base.shape, dtype=int64)
    board = prim("scatter", board, index, number, attrs=(axis, "set"))
    return prim("eq", _gather_tensor(board, index, axis), number)


def _scatter_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    axis, mode = c.attrs
    base, index, src = c.inputs
    if mode == "add":
        return (g if c.needs[0] else None, None,
                _gather_tensor(g, index, axis) if c.needs[2] else None)
    if mode == "set":
        of_base = of_src = None
        if c.needs[0]:
            zero = zeros_like_of(g, index.shape)
            of_base = prim("scatter", g, index, zero, attrs=(axis, "set"))
        if c.needs[2]:
            of_src = _gather_tensor(g, index, axis)
            if index.numel() > 1:
                # What a later write to the same element replaced has no influence.
                kept = _scatter_winner(base, index, axis)
                of_src = where(kept, of_src, zeros_like(of_src))
        return of_base, None, of_src
    of_base, of_src = _scatter_partials(c)
    if mode == "mul":
        return (prim("mul", g, conj(of_base)) if c.needs[0] else None, None,
                prim("mul", _gather_tensor(g, index, axis), conj(of_src)) if c.needs[2] else None)
    return (prim("mul", g, of_base) if c.needs[0] else None, None,
            prim("mul", _gather_tensor(g, index, axis), of_src) if c.needs[2] else None)


def _scatter_partials(c: Any) -> tuple[Any, Any]:
    """The derivatives of a scatter that multiplies or takes extremes, by base and by src.

    An element of the result depends on one element of the base and on those of src that are
    written to it.  For products these are the product of all the others: the result divided by
    the factor, or, for a factor that is zero, the product with a one in its place, which is zero
    too where another factor is.  Extremes are shared evenly between the elements equal to them.
    """
    axis, mode = c.attrs
    base, index, src = c.inputs
    if mode == "mul":
        one, zero = full(base, 1), zeros_like(base)
        masked = where(prim("eq", base, zero), one, base)
        others = prim("scatter", masked, index, src, attrs=(axis, "mul"))
        of_base = prim("div", others, masked)
        src_one, src_zero = full(src, 1), zeros_like(src)
        is_zero = prim("eq", src, src_zero)
        count = prim("scatter", prim("full", attrs=(0,), shape=base.shape, dtype=int64), index,
                     cast(is_zero, int64), attrs=(axis, "add"))
        count = _gather_tensor(count, index, axis)
        single = prim("logical_and", is_zero, prim("eq", count, full(count, 1)))
        rest = prim("scatter", base, index, where(single, src_one, src), attrs=(axis, "mul"))
        quotient = prim("div", _gather_tensor(c.out, index, axis),
                        where(is_zero, src_one, src))
        return of_base, where(single, _gather_tensor(rest, index, axis), quotient)
    hit_base = cast(prim("eq", base, c.out), base.dtype)
    hit_src = cast(prim("eq", src, _gather_tensor(c.out, index, axis)), base.dtype)
    count = prim("scatter", hit_base, index, hit_src, attrs=(axis, "add"))
    # Nothing equals NaN: there the count is zero, and so are the shares.
    count = where(prim("eq", count, zeros_like(count)), full(count, 1), count)
    return (prim("div", hit_base, count),
            prim("div", hit_src, _gather_tensor(count, index, axis)))


def _scatter_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    axis, mode = c.attrs
    base, index, src = c.inputs
    d_base, _, d_src = tangents
    if mode in ("mul", "amax", "amin"):
        of_base, of_src = _scatter_partials(c)
        d_base = None if d_base is None else prim("mul", d_base, of_base)
        d_src = None if d_src is None else prim("mul", d_src, of_src)
        mode = "add"
    d_base = zeros_like(base) if d_base is None else d_base
    if d_src is None:
        if mode == "add":
            return d_base
        d_src = zeros_like(src)
    return prim("scatter", d_base, index, d_src, attrs=(axis, mode))


def _scatter_samples(make: Any) -> list[Sample]:
    found = []
    for shape, index, axis in _GATHERS:
        index = _ints(index)
        for mode in MODES:
            base = make(*shape)
            if mode in ("amax", "amin") and base.dtype.kind == "c":
                continue
            found.append(Sample((base, index, make(*index.shape)), (axis, mode)))
    return found


register("scatter", "indexing", _infer_scatter, _scatter, vjp=_scatter_vjp, jvp=_scatter_jvp,
         batch=axis_first,
         saves=lambda attrs: (("in1",) if attrs[1] in ("set", "add")
                              else ("in0", "in1", "in2", "out")),
         samples=_scatter_samples)


# ---------------------------------------------------------------- windows

def _infer_window_place(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("window_place", specs, 1)
    away, rank = specs[0], len(attrs[0])
    if away.dtype is not int32 or not rank <= len(away.shape) \
            or any(len(a) != rank for a in attrs):
        raise ShapeError(f"window_place: int32 distances for windows over {attrs[0]} are expected, "
                         f"not {away}")
    return spec(away.shape, int64)


def _window_place(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    size, _, stride, padding = attrs
    start: Any = 0
    for d, (n, s, p) in enumerate(zip(out.shape[-len(size):], stride, padding, strict=True)):
        line = (np.arange(n, dtype=np.int64) * s - p) * prod(size[d + 1:])
        start = start + line.reshape(n, *[1] * (len(size) - d - 1))
    return np.asarray(arrays[0] + start, np.int64)


# The place in the flattened `size` of an element of each window: where the window begins, and
# int32 distances `away` from there.  attrs: size, how far a window reaches, stride, padding, a
# number for each of the last dimensions.  That what is scattered there is of windows, and of
# which, is seen from the step (`facula.schedule.layout_back`).
register("window_place", "indexing", _infer_window_place, _window_place, batch=each,
         samples=lambda make: [
             Sample((np.array([[[0, 1, 8], [7, 0, 1]]], np.int32),),
                    ((4, 7), (2, 2), (2, 2), (0, 0))),
             Sample((np.array([1, 0, 1], np.int32),), ((5,), (3,), (2,), (1,))),
             Sample((np.zeros((2, 0, 3), np.int32),), ((0, 7), (1, 1), (1, 3), (0, 0)))])


# ---------------------------------------------------------------- index_put

def _infer_index_put(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    if len(specs) < 3:
        raise TypeError("index_put takes a base, values and at least one index")
    base, values, *indices = specs
    axis = attrs[0]
    for index in indices:
        _index_dtype("index_put", index)
        if index.shape != indices[0].shape:
            raise ShapeError(f"index_put: the indices differ in shape: {indices[0].shape} and "
                             f"{index.shape}")
    check_axis("index_put", axis, len(base.shape))
    check_axis("index_put", axis + len(indices) - 1, len(base.shape))
    if base.dtype is not values.dtype:
        raise DTypeError("Index put requires the source and destination dtypes match, got "
                         f"{base.dtype.name} for the destination and {values.dtype.name} for the "
                         "source.")
    wanted = (*base.shape[:axis], *indices[0].shape, *base.shape[axis + len(indices):])
    if values.shape != wanted:
        raise ShapeError(f"shape mismatch: value tensor of shape {list(values.shape)} cannot be "
                         f"written to an indexing result of shape {list(wanted)}")
    return base


def _index_put(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    base, values, *indices = arrays
    axis, accumulate = attrs
    k, wide = len(indices), indices[0].ndim
    for d, index in enumerate(indices):
        _check_range("index_put", index, base.shape[axis + d], axis + d)
    # One broadcastable index array a dimension of the base, along the dimensions of values.
    before, after = base.shape[:axis], base.shape[axis + k:]
    ndim = values.ndim
    grid: list[np.ndarray] = []
    for d, n in enumerate(base.shape):
        if axis <= d < axis + k:
            index = indices[d - axis]
            grid.append(index.reshape((1,) * len(before) + index.shape + (1,) * len(after)))
        else:
            lined = [1] * ndim
            lined[d if d < axis else d - k + wide] = n
            grid.append(np.arange(n, dtype=np.int64).reshape(lined))
    flat = np.array(base, order="C").reshape(-1)
    places = np.broadcast_to(_flat_places(base.shape, grid), values.shape)
    _combine(flat, places, values, "add" if accumulate else "set")
    return flat.reshape(out.shape)


def _joined(sizes: Sequence[int], indices: Sequence[Any]) -> Any:
    """The position that several indices name in row-major order of `sizes`."""
    total = indices[0]
    for n, index in zip(sizes[1:], indices[1:]):
        total = prim("add", prim("mul", total, full(total, n)), index)
    return total


def _index_put_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    axis, accumulate = c.attrs
    base, values, *indices = c.inputs
    k = len(indices)
    of_base = of_values = None
    if c.needs[0]:
        of_base = g
        if not accumulate:
            zero = zeros_like_of(g, values.shape)
            of_base = prim("index_put", g, zero, *indices, attrs=c.attrs)
    if c.needs[1]:
        sizes = base.shape[axis:axis + k]
        place = _joined(sizes, indices)
        size = prod(sizes)
        flat = reshape(g, (*base.shape[:axis], size, *base.shape[axis + k:]))
        of_values = prim("take", flat, place, attrs=(axis,))
        if not accumulate and place.numel() > 1:
            # What a later write to the same element replaced has no influence.
            kept = last_writer(place, size)
            lined = (1,) * axis + tuple(place.shape) + (1,) * (base.ndim - axis - k)
            kept = prim("expand", reshape(kept, lined), shape=values.shape)
            of_values = where(kept, of_values, zeros_like(of_values))
    return (of_base, of_values, *[None] * k)


def _index_put_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    base, values, *indices = c.inputs
    d_base = zeros_like(base) if tangents[0] is None else tangents[0]
    d_values = zeros_like(values) if tangents[1] is None else tangents[1]
    return prim("index_put", d_base, d_values, *indices, attrs=c.attrs)


def _index_put_samples(make: Any) -> list[Sample]:
    found = []
    for shape, indices, axis in (
            ((5,), ([3, 0, 3],), 0), ((4, 3), ([[0, 3], [3, 1]],), 0), ((4, 3), ([2, 0],), 1),
            ((4, 3), ([2, 0, 2], [1, 1, 1]), 0), ((2, 3, 4, 2), ([2, 0, 2], [1, 3, 1]), 1),
            ((3, 2), (1,), 1), ((3,), (np.zeros((0,)),), 0)):
        arrays = [_ints(i) for i in indices]
        values = (*shape[:axis], *arrays[0].shape, *shape[axis + len(arrays):])
        for accumulate in (False, True):
            found.append(Sample((make(*shape), make(*values), *arrays), (axis, accumulate)))
    return found


register("index_put", "indexing", _infer_index_put, _index_put, vjp=_index_put_vjp,
         jvp=_index_put_jvp, batch=put, saves=tuple(f"in{k}" for k in range(2, 10)),
         samples=_index_put_samples)
