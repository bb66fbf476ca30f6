"""`pad`: around the last dimensions with a constant, mirrored, repeated or wrapped content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.errors import ShapeError
from facula.ops.define import op
from facula.ops.layout import int_args
from facula.ops.shape import cut, flipped
from facula.ops.surface import number_operand
from facula.tensor import Tensor, freeze_number, prim

__all__ = ["pad", "pad_constant"]


def _pairs(pad: Sequence[int], ndim: int) -> tuple[list[int], list[int]]:
    """(before, after) for each dimension, from the list that begins with the last one."""
    low, high = [0] * ndim, [0] * ndim
    for k in range(len(pad) // 2):
        low[ndim - 1 - k], high[ndim - 1 - k] = pad[2 * k], pad[2 * k + 1]
    return low, high


def pad_constant(x: Tensor, low: Sequence[int], high: Sequence[int], value: Any) -> Tensor:
    """The value padded with a number; negative amounts cut."""
    shape = x._node.spec.shape
    for k, n in enumerate(shape):
        if n + low[k] + high[k] < 0:
            raise RuntimeError(f"The input size {n}, plus negative padding {low[k]} and {high[k]} "
                               f"resulted in a negative output size, which is invalid. Check "
                               f"dimension {k} of your input.")
    if any(v < 0 for v in (*low, *high)):
        starts = tuple(max(-a, 0) for a in low)
        sizes = tuple(n - max(-a, 0) - max(-b, 0) for n, a, b in zip(shape, low, high))
        # Cutting more than there is leaves nothing of the input, and only padding.
        starts = tuple(min(s, n) for s, n in zip(starts, shape))
        sizes = tuple(max(s, 0) for s in sizes)
        x = prim("slice", x, attrs=(starts, (1,) * len(shape)), shape=sizes)
        want = tuple(n + a + b for n, a, b in zip(shape, low, high))
        low = [min(max(a, 0), w - s) for a, w, s in zip(low, want, sizes)]
        high = [w - s - a for a, w, s in zip(low, want, sizes)]
    if not any(low) and not any(high):
        return x
    fill = freeze_number(number_operand(value, x.dtype))
    return prim("pad", x, attrs=(tuple(low), tuple(high), fill))


def _reflected(x: Tensor, axis: int, low: int, high: int) -> Tensor:
    n = x._node.spec.shape[axis]
    parts = [x]
    if low > 0:
        parts.insert(0, flipped(cut(x, axis, 1, low + 1), (axis,)))
    if high > 0:
        parts.append(flipped(cut(x, axis, n - 1 - high, n - 1), (axis,)))
    return prim("cat", *parts, attrs=(axis,)) if len(parts) > 1 else x


def _replicated(x: Tensor, axis: int, low: int, high: int) -> Tensor:
    shape = x._node.spec.shape
    n = shape[axis]
    parts = [x]

    def edge(at: int, count: int) -> Tensor:
        return prim("expand", cut(x, axis, at, at + 1),
                    shape=(*shape[:axis], count, *shape[axis + 1:]))

    if low > 0:
        parts.insert(0, edge(0, low))
    if high > 0:
        parts.append(edge(n - 1, high))
    return prim("cat", *parts, attrs=(axis,)) if len(parts) > 1 else x


def _wrapped(x: Tensor, axis: int, low: int, high: int) -> Tensor:
    n = x._node.spec.shape[axis]
    parts = [x]
    if low > 0:
        parts.insert(0, cut(x, axis, n - low, n))
    if high > 0:
        parts.append(cut(x, axis, 0, high))
    return prim("cat", *parts, attrs=(axis,)) if len(parts) > 1 else x


_MODES = {"reflect": _reflected, "replicate": _replicated, "circular": _wrapped}


@op(register=False)
def pad(input: Tensor, pad: Any, mode: str = "constant", value: Any = None) -> Tensor:
    """`input` padded: `pad` = (before, after) of the last dimension, then of the one before it...

    Modes 'constant' (with `value`), 'reflect', 'replicate', 'circular'; negative amounts cut.
    The last three pad the 1 to 3 last dimensions of tensors that have one or two more.
    """
    amounts = int_args((pad,))
    ndim = input.ndim
    if len(amounts) % 2:
        raise RuntimeError(f"Padding length must be divisible by 2, but got {len(amounts)}")
    if len(amounts) // 2 > ndim:
        raise RuntimeError("Padding length should be less than or equal to two times the input "
                           f"dimension but got padding length {len(amounts)} and input of "
                           f"dimension {ndim}")
    low, high = _pairs(amounts, ndim)
    if mode == "constant":
        out = pad_constant(input, low, high, 0 if value is None else value)
        return prim("alias", out) if out is input else out
    if value is not None and value != 0:
        raise ValueError(f"Padding mode \"{mode}\" doesn't take in value argument")
    if mode not in _MODES:
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    count = len(amounts) // 2
    if ndim not in (count + 1, count + 2) or not 1 <= count <= 3:
        raise NotImplementedError("Only 2D, 3D, 4D, 5D padding with non-constant padding are "
                                  "supported for now")
    x = input
    for axis in range(ndim - count, ndim):
        a, b = low[axis], high[axis]
        n = input._node.spec.shape[axis]
        if mode == "reflect" and (a >= n or b >= n):
            raise ShapeError("Padding size should be less than the corresponding input "
                             f"dimension, but got: padding ({a}, {b}) at dimension {axis} of "
                             f"input {list(input.shape)}")
        if mode == "circular" and (a > n or b > n):
            raise ShapeError("Padding value causes wrapping around more than once.")
        if n + a + b < 1:
            raise ShapeError(f"input (size {n}) with padding ({a}, {b}) at dimension {axis} is "
                             "too small")
        if n == 0:
            raise ShapeError(f"Expected a non-empty dimension {axis} to pad with {mode!r}")
        cut_low, cut_high = max(-a, 0), max(-b, 0)
        part = _MODES[mode](x, axis, max(a, 0), max(b, 0))
        size = part._node.spec.shape[axis]
        x = cut(part, axis, cut_low, size - cut_high) if cut_low or cut_high else part
    return prim("alias", x) if x is input else x
