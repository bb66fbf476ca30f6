"""Operations that move elements and compute nothing: views, padding, joining, partial writes.

All of them are linear, so a tangent goes through the operation itself and a gradient through
its transpose, which is again one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from facula.errors import DTypeError, ShapeError
from facula.graph.spec import Spec, spec
from facula.ops.primitive.batching import axis_first, each, padded, permuted, sliced, strided
from facula.ops.primitive.record import (
    Infer,
    Sample,
    _count,
    check_axis,
    register,
    shapes_text,
)
from facula.ops.primitive.rules import (
    along,
    full,
    iota,
    permute,
    prim,
    reshape,
    slice_,
    sum_,
    where,
    zeros_like,
)

__all__ = ["fill_value", "flat_positions", "last_writer", "overlaps", "zeros_like_of"]

Attrs = tuple[Any, ...]
Arrays = Sequence[np.ndarray]


def _same_dtype(name: str, x: Spec, given: Spec | None) -> Spec:
    if given is None:
        raise ShapeError(f"{name}: the shape of the result has to be given")
    if given.dtype is not x.dtype:
        raise DTypeError(f"{name}: moves elements as they are, and cannot turn {x.dtype!r} into "
                         f"{given.dtype!r}")
    if any(n < 0 for n in given.shape):
        raise ShapeError(f"{name}: a shape cannot have negative sizes: {given.shape}")
    return given


def _linear_jvp(name: str) -> Any:
    """The tangent of an operation of one operand that is linear in it."""
    def jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
        return prim(name, tangents[0], attrs=c.attrs, shape=c.out.shape)
    return jvp


# ---------------------------------------------------------------- reshape, permute, expand

def _infer_reshape(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("reshape", specs, 1)
    out = _same_dtype("reshape", specs[0], given)
    if out.numel != specs[0].numel:
        raise ShapeError(f"shape '{list(out.shape)}' is invalid for input of size "
                         f"{specs[0].numel}")
    return out


def _shape_samples(pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> Any:
    return lambda make: [Sample((make(*a),), shape=b) for a, b in pairs]


register("reshape", "movement", _infer_reshape, lambda arrays, attrs, out:
         arrays[0].reshape(out.shape),
         vjp=lambda c, g: (reshape(g, c.inputs[0].shape),), jvp=_linear_jvp("reshape"),
         batch=each,
         samples=_shape_samples([((3, 4), (2, 6)), ((6,), (1, 3, 2)), ((), (1, 1)),
                                 ((0, 3), (5, 0)), ((1,), ())]))


def _infer_permute(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("permute", specs, 1)
    shape, order = specs[0].shape, attrs[0]
    if sorted(order) != list(range(len(shape))):
        raise ShapeError(f"permute: {order} is no order of the {len(shape)} dimensions of "
                         f"{shape}")
    return spec(tuple([shape[i] for i in order]), specs[0].dtype)


def _permute_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    order = c.attrs[0]
    inverse = [0] * len(order)
    for i, axis in enumerate(order):
        inverse[axis] = i
    return (permute(g, inverse),)


register("permute", "movement", _infer_permute,
         lambda arrays, attrs, out: arrays[0].transpose(attrs[0]),
         vjp=_permute_vjp, batch=permuted,
         jvp=lambda c, tangents: permute(tangents[0], c.attrs[0]),
         samples=lambda make: [Sample((make(*shape),), (order,)) for shape, order in (
             ((2, 3), (1, 0)), ((2, 3, 4), (2, 0, 1)), ((2, 3, 4), (0, 2, 1)),
             ((), ()), ((0, 3), (1, 0)))])


def _infer_expand(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("expand", specs, 1)
    out = _same_dtype("expand", specs[0], given)
    shape = specs[0].shape
    if len(shape) != len(out.shape) or any(a != 1 and a != b for a, b in zip(shape, out.shape)):
        raise ShapeError(f"expand: {shape} cannot be expanded to {out.shape}: dimensions have to "
                         "be equal in number, and each of size 1 or of the wanted size")
    return out


def _expand_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    shape = c.inputs[0].shape
    axes = tuple([i for i, (a, b) in enumerate(zip(shape, g.shape)) if a != b])
    return (reshape(sum_(g, axes), shape),)


register("expand", "movement", _infer_expand,
         lambda arrays, attrs, out: np.broadcast_to(arrays[0], out.shape),
         vjp=_expand_vjp, jvp=_linear_jvp("expand"), batch=each,
         samples=_shape_samples([((1, 3), (2, 3)), ((1, 1), (4, 5)), ((2, 1, 3), (2, 4, 3)),
                                 ((), ()), ((1, 2), (0, 2))]))


# ---------------------------------------------------------------- slices

def _check_slice(name: str, shape: tuple[int, ...], attrs: Attrs, sizes: tuple[int, ...]) -> None:
    """Raise unless `sizes` elements from `starts` on by `steps` lie within `shape`."""
    starts, steps = attrs
    if not len(shape) == len(starts) == len(steps) == len(sizes):
        raise ShapeError(f"{name}: one start, step and size for each of the {len(shape)} "
                         f"dimensions of {shape}, not {starts}, {steps} and {sizes}")
    for axis, (n, start, step, size) in enumerate(zip(shape, starts, steps, sizes)):
        if step == 0:
            raise ShapeError(f"{name}: the step of dimension {axis} is zero")
        last = start + (size - 1) * step
        if size and not (0 <= start < n and 0 <= last < n):
            raise IndexError(f"{name}: elements {start} to {last} are out of range for dimension "
                             f"{axis} of size {n}")


def _window(attrs: Attrs, sizes: Sequence[int]) -> tuple[slice, ...]:
    """The slices of Python that name `sizes` elements from `starts` on by `steps`."""
    found = []
    for start, step, size in zip(*attrs, sizes):
        if size == 0:
            found.append(slice(0, 0))
            continue
        stop = start + (size - 1) * step + (1 if step > 0 else -1)
        found.append(slice(start, None if stop < 0 else stop, step))
    return tuple(found)


def _infer_slice(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("slice", specs, 1)
    out = _same_dtype("slice", specs[0], given)
    _check_slice("slice", specs[0].shape, attrs, out.shape)
    return out


def _slice_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    x = c.inputs[0]
    if tuple(x.shape) == tuple(g.shape):
        # The whole tensor with some axes reversed: the transpose reverses them back.
        return (slice_(g, c.attrs[0], c.attrs[1], g.shape),)
    return (prim("slice_update", zeros_like_of(g, x.shape), g, attrs=c.attrs),)


def zeros_like_of(like: Any, shape: Sequence[int]) -> Any:
    """Zeros of the dtype of `like` and another shape."""
    return prim("full", attrs=(0,), shape=shape, dtype=like.dtype)


_SLICES: Sequence[Any] = (
    ((5,), (1,), (2,), (2,)), ((5,), (4,), (-1,), (5,)), ((5,), (3,), (-2,), (2,)),
    ((4, 6), (1, 0), (1, 3), (3, 2)), ((3, 4), (0, 3), (1, -1), (3, 4)), ((), (), (), ()),
    ((3,), (3,), (1,), (0,)), ((0, 2), (0, 0), (1, 1), (0, 2)))

register("slice", "movement", _infer_slice,
         lambda arrays, attrs, out: arrays[0][_window(attrs, out.shape)],
         vjp=_slice_vjp, jvp=_linear_jvp("slice"), batch=sliced,
         samples=lambda make: [Sample((make(*shape),), (starts, steps), sizes)
                               for shape, starts, steps, sizes in _SLICES])


def _infer_update(name: str) -> Infer:
    def infer(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
        _count(name, specs, 2)
        base, value = specs
        if base.dtype is not value.dtype:
            raise DTypeError(f"{name}: cannot write {value.dtype!r} into a tensor of "
                             f"{base.dtype!r}")
        if name == "slice_update":
            _check_slice(name, base.shape, attrs, value.shape)
        else:
            _check_strided(name, base.numel, attrs, value.shape)
        return base
    return infer


def _slice_update(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    base, value = arrays
    result = np.array(base, order="C")
    result[_window(attrs, value.shape)] = value
    return result


def _slice_update_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    base = value = None
    shape = c.inputs[1].shape
    if c.needs[0]:
        base = prim("slice_update", g, zeros_like_of(g, shape), attrs=c.attrs)
    if c.needs[1]:
        value = slice_(g, c.attrs[0], c.attrs[1], shape)
    return base, value


def _update_jvp(name: str) -> Any:
    def jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
        parts = [zeros_like(x) if t is None else t for x, t in zip(c.inputs, tangents)]
        return prim(name, *parts, attrs=c.attrs)
    return jvp


register("slice_update", "movement", _infer_update("slice_update"), _slice_update,
         vjp=_slice_update_vjp, jvp=_update_jvp("slice_update"), batch=sliced,
         samples=lambda make: [Sample((make(*shape), make(*sizes)), (starts, steps))
                               for shape, starts, steps, sizes in _SLICES])


# ---------------------------------------------------------------- arbitrary strides

def _check_strided(name: str, numel: int, attrs: Attrs, shape: tuple[int, ...]) -> None:
    """Raise unless the elements named by strides and offset lie within `numel` elements."""
    strides, offset = attrs
    if len(strides) != len(shape):
        raise ShapeError(f"{name}: mismatch in length of strides and shape: {strides} and "
                         f"{shape}")
    if not prod(shape):
        return
    reach = [s * (n - 1) for s, n in zip(strides, shape)]
    low = offset + sum(r for r in reach if r < 0)
    high = offset + sum(r for r in reach if r > 0)
    if low < 0 or high >= numel:
        raise ShapeError(f"{name}: shape {shape}, strides {strides} and offset {offset} reach "
                         f"elements {low} to {high}, which is out of bounds for storage of "
                         f"{numel} elements")


def _infer_as_strided(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("as_strided", specs, 1)
    out = _same_dtype("as_strided", specs[0], given)
    _check_strided("as_strided", specs[0].numel, attrs, out.shape)
    return out


def _strided_places(attrs: Attrs, shape: Sequence[int]) -> np.ndarray:
    """The positions in the flat input of the elements of the result, of the result's shape."""
    strides, offset = attrs
    places = np.full(tuple(shape), offset, np.int64)
    for axis, (n, stride) in enumerate(zip(shape, strides)):
        steps = np.arange(n, dtype=np.int64) * stride
        places += steps.reshape((-1,) + (1,) * (len(shape) - 1 - axis))
    return places


def overlaps(strides: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether two indices may name one element (True when in doubt)."""
    reach = 0
    for stride, n in sorted((abs(s), n) for s, n in zip(strides, shape) if n != 1):
        if n and stride <= reach:
            return True
        reach += stride * (n - 1)
    return False


def flat_positions(strides: Sequence[int], offset: int, shape: Sequence[int]) -> Any:
    """`offset + sum(index * strides)` as an int64 tensor of `shape`."""
    shape = tuple(shape)
    total = None
    for axis, (n, stride) in enumerate(zip(shape, strides)):
        if n == 1 or stride == 0:
            continue
        steps = iota(n)
        if stride != 1:
            steps = prim("mul", steps, full(steps, stride))
        lined = [1] * len(shape)
        lined[axis] = n
        part = prim("expand", reshape(steps, lined), shape=shape)
        total = part if total is None else prim("add", total, part)
    from facula.dtype import int64
    if total is None:
        return prim("full", attrs=(offset,), shape=shape, dtype=int64)
    return prim("add", total, full(total, offset)) if offset else total


def last_writer(places: Any, size: int) -> Any:
    """Which of the writes to `places` of a flat tensor of `size` remain: bool, as `places`.

    Of several writes to one element the last in row-major order does.
    """
    number = reshape(iota(places.numel()), places.shape)
    board = prim("full", attrs=(-1,), shape=(size,), dtype=number.dtype)
    board = prim("index_put", board, number, places, attrs=(0, False))
    return prim("eq", prim("take", board, places, attrs=(0,)), number)


def _as_strided_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    x = c.inputs[0]
    strides, offset = c.attrs
    if not overlaps(strides, g.shape):
        zero = zeros_like_of(g, x.shape)
        return (prim("as_strided_update", zero, g, attrs=c.attrs),)
    # Several elements of the result are one element of the input: their gradients add up.
    flat = zeros_like_of(g, (x.numel(),))
    places = flat_positions(strides, offset, g.shape)
    return (reshape(prim("index_put", flat, g, places, attrs=(0, True)), x.shape),)


_STRIDED: Sequence[Any] = (
    ((12,), (3, 4), (4, 1), 0), ((12,), (2, 3), (1, 2), 3), ((3, 4), (2, 2), (5, 2), 1),
    ((3, 4), (), (), 7), ((6,), (0, 2), (1, 1), 0), ((6,), (3,), (-2,), 5))
_OVERLAPPING: Sequence[Any] = (((6,), (4, 3), (1, 1), 0), ((2, 3), (3, 2), (0, 2), 1))

register("as_strided", "movement", _infer_as_strided,
         lambda arrays, attrs, out: arrays[0].reshape(-1)[_strided_places(attrs, out.shape)],
         vjp=_as_strided_vjp, jvp=_linear_jvp("as_strided"), batch=strided,
         samples=lambda make: [Sample((make(*shape),), (strides, offset), sizes)
                               for shape, sizes, strides, offset in (*_STRIDED, *_OVERLAPPING)])


def _as_strided_update(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    base, value = arrays
    flat = np.array(base, order="C").reshape(-1)
    # One-dimensional, so that of several writes to one element the last remains.
    flat[_strided_places(attrs, value.shape).reshape(-1)] = value.reshape(-1)
    return flat.reshape(out.shape)


def _as_strided_update_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    base = value = None
    strides, offset = c.attrs
    shape = c.inputs[1].shape
    if c.needs[0]:
        base = prim("as_strided_update", g, zeros_like_of(g, shape), attrs=c.attrs)
    if c.needs[1]:
        value = prim("as_strided", g, attrs=c.attrs, shape=shape)
        if overlaps(strides, shape):
            places = flat_positions(strides, offset, shape)
            kept = last_writer(places, c.inputs[0].numel())
            value = where(kept, value, zeros_like(value))
    return base, value


register("as_strided_update", "movement", _infer_update("as_strided_update"),
         _as_strided_update, vjp=_as_strided_update_vjp, jvp=_update_jvp("as_strided_update"),
         batch=strided,
         samples=lambda make: [Sample((make(*shape), make(*sizes)), (strides, offset))
                               for shape, sizes, strides, offset in (*_STRIDED, *_OVERLAPPING)])


# ---------------------------------------------------------------- padding and joining

def fill_value(value: Any, dtype: Any) -> Any:
    """A Python number as a NumPy scalar of `dtype`; integers wrap to its width."""
    kind = dtype.kind
    if kind in "ui":
        value = int(value)
        bits = 8 * dtype.itemsize
        value &= (1 << bits) - 1
        if kind == "i" and value >> (bits - 1):
            value -= 1 << bits
    elif kind == "b":
        value = bool(value)
    with np.errstate(all="ignore"):
        return np.array(value, dtype.np)[()]


def _infer_pad(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    _count("pad", specs, 1)
    low, high, _ = attrs
    shape = specs[0].shape
    if not len(low) == len(high) == len(shape):
        raise ShapeError(f"pad: one amount on each side of each of the {len(shape)} dimensions of "
                         f"{shape}, not {low} and {high}")
    if any(n < 0 for n in (*low, *high)):
        raise ShapeError(f"pad: amounts cannot be negative: {low} and {high}")
    return spec(tuple([a + n + b for a, n, b in zip(low, shape, high)]), specs[0].dtype)


def _pad(arrays: Arrays, attrs: Attrs, out: Spec) -> np.ndarray:
    low, _, fill = attrs
    result = np.full(out.shape, fill_value(fill, out.dtype), out.dtype.np)
    result[tuple([slice(a, a + n) for a, n in zip(low, arrays[0].shape)])] = arrays[0]
    return result


def _pad_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    shape = c.inputs[0].shape
    return (slice_(g, c.attrs[0], (1,) * len(shape), shape),)


register("pad", "movement", _infer_pad, _pad, vjp=_pad_vjp, batch=padded,
         jvp=lambda c, tangents: prim("pad", tangents[0], attrs=(*c.attrs[:2], 0)),
         samples=lambda make: [Sample((make(*shape),), (low, high, fill))
                               for shape, low, high, fill in (
             ((3,), (1,), (2,), 0), ((2, 3), (0, 1), (2, 0), 1), ((2, 3), (0, 0), (0, 0), 0),
             ((0, 2), (1, 0), (0, 3), 1), ((), (), (), 0), ((1, 2, 2), (0, 2, 1), (1, 1, 1), 1))])


def _infer_cat(specs: Sequence[Spec], attrs: Attrs, given: Spec | None) -> Spec:
    if not specs:
        raise ShapeError("cat: expected a non-empty list of Tensors")
    axis = attrs[0]
    first = specs[0]
    check_axis("cat", axis, len(first.shape))
    total = 0
    for s in specs:
        if s.dtype is not first.dtype:
            raise DTypeError(f"cat: the dtypes differ: {first.dtype!r} and {s.dtype!r}")
        if len(s.shape) != len(first.shape) or any(
                a != b for i, (a, b) in enumerate(zip(s.shape, first.shape)) if i != axis):
            raise ShapeError("Sizes of tensors must match except in dimension "
                             f"{axis}: {shapes_text(specs)}")
        total += s.shape[axis]
    return spec((*first.shape[:axis], total, *first.shape[axis + 1:]), first.dtype)


def _cat_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    axis = c.attrs[0]
    parts: list[Any] = []
    start = 0
    for x, need in zip(c.inputs, c.needs):
        n = x.shape[axis]
        parts.append(along(g, axis, start, n) if need else None)
        start += n
    return tuple(parts)


def _cat_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    return prim("cat", *[zeros_like(x) if t is None else t for x, t in zip(c.inputs, tangents)],
                attrs=c.attrs)


register("cat", "movement", _infer_cat,
         lambda arrays, attrs, out: np.concatenate(arrays, axis=attrs[0]),
         vjp=_cat_vjp, jvp=_cat_jvp, batch=axis_first,
         samples=lambda make: [Sample(tuple([make(*s) for s in shapes]), (axis,))
                               for shapes, axis in (
             (((2,), (3,)), 0), (((2, 3), (2, 1), (2, 0)), 1), (((1, 2), (3, 2)), 0),
             (((0, 2), (0, 2)), 0), (((4,),), 0))])
