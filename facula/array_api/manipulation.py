"""Shapes: joining, splitting and rearranging arrays, and taking elements by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import facula
from facula.array_api._shared import Axis, axes_of, is_scalar, plain_axis, result_type
from facula.tensor import Tensor

__all__ = ["broadcast_arrays", "broadcast_shapes", "broadcast_to", "concat", "expand_dims",
           "flip", "moveaxis", "permute_dims", "repeat", "reshape", "roll", "squeeze", "stack",
           "take", "take_along_axis", "tile", "unstack", "where"]


def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that arrays of these shapes broadcast to; ValueError if they do not."""
    return tuple(facula.broadcast_shapes(*shapes))


def broadcast_arrays(*arrays: Tensor) -> tuple[Tensor, ...]:
    """The arrays as views of their common shape."""
    return tuple(facula.broadcast_tensors(*arrays))


def broadcast_to(x: Tensor, /, shape: tuple[int, ...]) -> Tensor:
    """`x` as a view of a shape it broadcasts to."""
    return facula.broadcast_to(x, shape)


def _promoted(arrays: Sequence[Tensor]) -> list[Tensor]:
    dtype = result_type(*arrays)
    return [a.to(dtype) for a in arrays]


def concat(arrays: Sequence[Tensor], /, *, axis: int | None = 0) -> Tensor:
    """The arrays one after the other along an existing axis, flattened if it is None."""
    parts = _promoted(arrays)
    return facula.cat([p.reshape(-1) for p in parts] if axis is None else parts, axis or 0)


def stack(arrays: Sequence[Tensor], /, *, axis: int = 0) -> Tensor:
    """Arrays of one shape along a new axis."""
    return facula.stack(_promoted(arrays), axis)


def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The parts of `x` at each place of an axis."""
    return tuple(facula.unbind(x, plain_axis(axis, x.ndim)))


def expand_dims(x: Tensor, /, axis: int | tuple[int, ...] = 0) -> Tensor:
    """A view with new axes of size 1 at these places of the result; IndexError outside it."""
    places = (axis,) if isinstance(axis, int) else axis
    for place in sorted(axes_of(tuple(places), x.ndim + len(places))):
        x = facula.unsqueeze(x, place)
    return x


def squeeze(x: Tensor, /, axis: int | tuple[int, ...]) -> Tensor:
    """A view without these axes; ValueError if one is not of size 1."""
    for place in sorted(axes_of(axis, x.ndim), reverse=True):
        if x.shape[place] != 1:
            raise ValueError(f"squeeze(): axis {place} has size {x.shape[place]}, not 1")
        x = facula.squeeze(x, place)
    return x


def flip(x: Tensor, /, *, axis: Axis = None) -> Tensor:
    """The order of the elements reversed along some axes, all of them if None."""
    return facula.flip(x, axes_of(axis, x.ndim))


def moveaxis(x: Tensor, source: int | tuple[int, ...], destination: int | tuple[int, ...], /
             ) -> Tensor:
    """A view with some axes at other places; the others keep their order."""
    return facula.moveaxis(x, source, destination)


def permute_dims(x: Tensor, /, axes: tuple[int, ...]) -> Tensor:
    """A view with the axes in another order."""
    return facula.permute(x, axes)


def repeat(x: Tensor, repeats: Any, /, *, axis: int | None = None) -> Tensor:
    """Each element as often as `repeats` says (a number, or one for each), of the flat array
    if `axis` is None."""
    return facula.repeat_interleave(x, repeats, axis)


def reshape(x: Tensor, /, shape: tuple[int, ...], *, copy: bool | None = None) -> Tensor:
    """The elements in another shape, one size of which may be -1.

    `copy` True always copies; False raises ValueError where a view is not possible.
    """
    if copy is False:
        try:
            return x.view(shape)
        except RuntimeError as error:
            raise ValueError(f"reshape(): no view of shape {tuple(shape)} of an array of shape "
                             f"{tuple(x.shape)} and these strides: leave copy out") from error
    result = facula.reshape(x, shape)
    return result.clone() if copy else result


def roll(x: Tensor, /, shift: int | tuple[int, ...], *, axis: Axis = None) -> Tensor:
    """The elements moved round along some axes, along the flat array if None."""
    if axis is None:
        return facula.roll(x, shift)
    axes = (axis,) if isinstance(axis, int) else axis
    shifts = (shift,) * len(axes) if isinstance(shift, int) else shift
    return facula.roll(x, shifts, axes)


def tile(x: Tensor, repetitions: tuple[int, ...], /) -> Tensor:
    """`x` repeated along each axis; the last of the repetitions is for its last axis."""
    return facula.tile(x, repetitions)


def take(x: Tensor, indices: Tensor, /, *, axis: int | None = None) -> Tensor:
    """The parts of `x` at the places `indices` (a vector) of an axis, which may be left out
    of a vector only."""
    if axis is None:
        if x.ndim != 1:
            raise ValueError(f"take(): axis has to be given for an array of {x.ndim} dimensions")
        axis = 0
    size = x.shape[axis]
    return facula.index_select(x, axis, facula.where(indices < 0, indices + size, indices))


def take_along_axis(x: Tensor, indices: Tensor, /, *, axis: int = -1) -> Tensor:
    """The elements of `x` at these places along an axis; the other axes broadcast."""
    return facula.take_along_dim(x, indices.to(facula.int64), axis)


def where(condition: Tensor, x1: Any, x2: Any, /) -> Tensor:
    """Elements of `x1` where the condition holds, else of `x2`; all broadcast."""
    dtype = result_type(x1, x2) if not (is_scalar(x1) and is_scalar(x2)) else None
    if dtype is None:
        return facula.where(condition, x1, x2)
    a, b = (facula.tensor(v, dtype=dtype) if is_scalar(v) else v.to(dtype) for v in (x1, x2))
    return facula.where(condition, a, b)
