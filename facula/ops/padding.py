"""Padding: around the last dimensions with a constant, mirrored, repeated or wrapped content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.errors import ShapeError
from facula.graph.spec import freeze_number
from facula.ops.layout import int_args
from facula.ops.promote import expand_to
from facula.ops.shape import cut, flipped
from facula.ops.surface import number_operand
from facula.tensor import Tensor, prim

__all__ = ["padded"]


def _constant(x: Tensor, low: Sequence[int], high: Sequence[int], value: Any) -> Tensor:
    shape = x._node.spec.shape
    starts = [max(-a, 0) for a in low]
    inner = [n - start - max(-b, 0) for n, start, b in zip(shape, starts, high)]
    for k, (n, left) in enumerate(zip(shape, inner)):
        if left < 0:
            raise RuntimeError(f"The input size {n}, plus negative padding {low[k]} and {high[k]} "
                               "resulted in a negative output size, which is invalid. Check "
                               f"dimension {k} of your input.")
    if tuple(inner) != shape:
        x = prim("slice", x, attrs=(tuple(starts), (1,) * len(shape)), shape=tuple(inner))
    low, high = (tuple(max(n, 0) for n in ends) for ends in (low, high))
    if not any(low) and not any(high):
        return x
    return prim("pad", x, attrs=(low, high, freeze_number(number_operand(value, x.dtype))))


def _end(x: Tensor, axis: int, count: int, mode: str, first: bool) -> Tensor:
    """The `count` elements that are put before (`first`) or after `x` along `axis`."""
    shape = x._node.spec.shape
    n = shape[axis]
    if mode == "reflect":
        start = 1 if first else n - 1 - count
        return flipped(cut(x, axis, start, start + count), (axis,))
    if mode == "circular":
        start = n - count if first else 0
        return cut(x, axis, start, start + count)
    at = 0 if first else n - 1
    return expand_to(cut(x, axis, at, at + 1), (*shape[:axis], count, *shape[axis + 1:]))


def _extended(x: Tensor, axis: int, low: int, high: int, mode: str) -> Tensor:
    shape = x._node.spec.shape
    size = shape[axis] + low + high
    where = f"padding ({low}, {high}) at dimension {axis} of input {list(shape)}"
    if mode == "circular":                          # what is left is wrapped, not what was there
        start = max(-low, 0)
        x = cut(x, axis, start, max(shape[axis] - max(-high, 0), start))
    n = x._node.spec.shape[axis]
    if mode == "reflect" and max(low, high) >= n:
        raise ShapeError("Padding size should be less than the corresponding input dimension, "
                         f"but got: {where}")
    if mode == "circular" and max(low, high) > n:
        raise ShapeError(f"Padding value causes wrapping around more than once: {where}")
    if n == 0 and mode != "circular":
        raise ShapeError(f"Expected a non-empty dimension to pad with {mode!r}: {where}")
    parts = [x]
    if low > 0:
        parts.insert(0, _end(x, axis, low, mode, True))
    if high > 0:
        parts.append(_end(x, axis, high, mode, False))
    out = prim("cat", *parts, attrs=(axis,)) if len(parts) > 1 else x
    if mode == "circular" or min(low, high) >= 0:
        return out
    start = max(-low, 0)                            # what was added may be cut, too
    return cut(out, axis, start, start + max(size, 0))


def padded(input: Tensor, pad: Any, mode: str = "constant", value: Any = None) -> Tensor:
    """`input` padded: `pad` = (before, after) of the last dimension, then of the one before it...

    Modes 'constant' (with `value`), 'reflect', 'replicate', 'circular'; negative amounts cut.
    The last three pad the 1 to 3 last dimensions of tensors that have one or two more.  Raises
    RuntimeError (ShapeError, NotImplementedError) for amounts that do not fit.
    """
    amounts = int_args((pad,))
    ndim = input.ndim
    if len(amounts) % 2:
        raise ShapeError(f"Padding length must be divisible by 2, but got {len(amounts)}")
    count = len(amounts) // 2
    if count > ndim:
        raise ShapeError("Padding length should be less than or equal to two times the input "
                         f"dimension but got padding length {len(amounts)} and input of "
                         f"dimension {ndim}")
    low, high = [0] * ndim, [0] * ndim
    for k in range(count):
        low[ndim - 1 - k], high[ndim - 1 - k] = amounts[2 * k], amounts[2 * k + 1]
    if mode == "constant":
        out = _constant(input, low, high, 0 if value is None else value)
        return prim("alias", out) if out is input else out
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    if value is not None and value != 0:
        raise ValueError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if ndim not in (count + 1, count + 2) or not 1 <= count <= 3:
        raise NotImplementedError("Only 2D, 3D, 4D, 5D padding with non-constant padding are "
                                  f"supported for now: got input of dimension {ndim} and padding "
                                  f"{list(amounts)}")
    shape = input._node.spec.shape
    axes = range(ndim - count, ndim)
    sizes = [shape[axis] + low[axis] + high[axis] for axis in axes]
    if min(sizes) < 0 or mode != "circular" and max(sizes) < 1:
        raise ShapeError(f"{mode} padding {list(amounts)} of input {list(shape)} would give "
                         f"sizes {sizes}")
    out = input
    for axis in axes:
        out = _extended(out, axis, low[axis], high[axis], mode)
    return prim("alias", out) if out is input else out
