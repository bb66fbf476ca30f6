"""Padding: constant, reflected, replicated, circular."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.errors import ShapeError
from facula.nn.functional.common import shape_of
from facula.ops.define import op
from facula.ops.primitive.rules import along, cat, flip
from facula.ops.promote import expand_to
from facula.ops.surface import number_operand
from facula.tensor import Tensor, freeze_number, prim

__all__ = ["pad"]


def _amounts(pad: Sequence[int], ndim: int) -> list[tuple[int, int]]:
    """(before, after) for each dimension; `pad` begins with the last."""
    out = [(0, 0)] * ndim
    for k in range(len(pad) // 2):
        out[ndim - 1 - k] = (int(pad[2 * k]), int(pad[2 * k + 1]))
    return out


def _constant(input: Tensor, pads: list[tuple[int, int]], value: float) -> Tensor:
    shape = shape_of(input)
    starts = [max(0, -lo) for lo, _ in pads]
    inner = [n - start - max(0, -hi) for n, start, (_, hi) in zip(shape, starts, pads)]
    if any(n + max(0, lo) + max(0, hi) < 0 or n < 0 for n, (lo, hi) in zip(inner, pads)):
        raise ShapeError(f"pad: the result would have a negative size: shape {list(shape)}, "
                         f"padding {pads}")
    x = input
    if tuple(inner) != shape:
        x = prim("slice", x, attrs=(tuple(starts), (1,) * len(shape)), shape=tuple(inner))
    low, high = (tuple(max(0, p[k]) for p in pads) for k in (0, 1))
    fill = freeze_number(number_operand(value, input.dtype))
    return prim("pad", x, attrs=(low, high, fill))


def _end(x: Tensor, axis: int, amount: int, mode: str, first: bool) -> Tensor:
    """What is put before (`first`) or after `x` along `axis`."""
    n = shape_of(x)[axis]
    if mode == "reflect":
        return flip(along(x, axis, 1 if first else n - 1 - amount, amount), axis)  # type: ignore
    if mode == "circular":
        return along(x, axis, n - amount if first else 0, amount)       # type: ignore
    edge = along(x, axis, 0 if first else n - 1, 1)
    shape = list(shape_of(x))
    shape[axis] = amount
    return expand_to(edge, shape)


_LIMITS = {"reflect": "Padding size should be less than the corresponding input dimension",
           "circular": "Padding value causes wrapping around more than once"}


def _extended(x: Tensor, axis: int, low: int, high: int, mode: str) -> Tensor:
    n = shape_of(x)[axis]
    most = n - 1 if mode == "reflect" else n
    if mode in _LIMITS and max(low, high) > most:
        raise ShapeError(f"{_LIMITS[mode]}, but got: padding ({low}, {high}) at dimension {axis} "
                         f"of input {list(shape_of(x))}")
    if mode == "replicate" and n == 0 and (low > 0 or high > 0):
        raise ShapeError("pad: cannot replicate the edge of an empty dimension "
                         f"({list(shape_of(x))}, dimension {axis})")
    cut = along(x, axis, max(0, -low), n - max(0, -low) - max(0, -high)) \
        if low < 0 or high < 0 else x
    if mode == "circular":
        x = cut                                     # what is left is wrapped, not what was there
    parts = [_end(x, axis, low, mode, True)] if low > 0 else []
    parts.append(cut)
    if high > 0:
        parts.append(_end(x, axis, high, mode, False))
    return cat(parts, axis) if len(parts) > 1 else parts[0]     # type: ignore[no-any-return]


def _samples(make: Any) -> list[Any]:
    return [((make(2, 3), (1, 2)), {}), ((make(2, 3), (1, 2, 0, 1)), {"value": 2.5}),
            ((make(2, 3), (-1, 1)), {}), ((make(2, 3, 4), (2, 1)), {"mode": "reflect"}),
            ((make(2, 3, 4), (2, 1)), {"mode": "replicate"}),
            ((make(2, 3, 4), (2, 1)), {"mode": "circular"}),
            ((make(1, 2, 3, 4), (1, 2, 2, 1)), {"mode": "reflect"}), ((make(0, 2), (1, 1)), {})]


@op(samples=_samples)
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant",
        value: float | None = None) -> Tensor:
    """`input` with elements added (or, where negative, taken away) at both ends of dimensions.

    pad    (before, after) of the last dimension, then of the one before it, and so on
    mode   'constant' (with `value`, 0 by default), 'reflect', 'replicate' or 'circular'; all but
           the first take 2-D to 5-D inputs and pad all dimensions but the first one or two
    """
    ndim = input.ndim
    if len(pad) % 2:
        raise ShapeError(f"Padding length must be divisible by 2, got {list(pad)}")
    if len(pad) > 2 * ndim:
        raise ShapeError("Padding length should be less than or equal to two times the input "
                         f"dimension but got padding length {len(pad)} and input of dimension "
                         f"{ndim}")
    pads = _amounts(pad, ndim)
    if mode == "constant":
        return _constant(input, pads, 0.0 if value is None else value)
    if mode not in ("reflect", "replicate", "circular"):
        raise RuntimeError(f"Unrecognised padding mode {mode}")
    if value is not None and value != 0:
        raise ValueError(f'Padding mode "{mode}" doesn\'t take in value argument')
    if len(pad) // 2 not in (ndim - 1, ndim - 2) or not pad:
        raise RuntimeError(f"Only 2D, 3D, 4D, 5D padding with non-constant padding are supported "
                           f"for now: got input of dimension {ndim} and padding {list(pad)}")
    out = input
    for axis in range(ndim - len(pad) // 2, ndim):
        if pads[axis] != (0, 0):
            out = _extended(out, axis, *pads[axis], mode)
    return prim("alias", out) if out is input else out


def constant_pad_nd(input: Tensor, pad: Sequence[int], value: float = 0) -> Tensor:
    """`pad` with mode 'constant'."""
    result: Tensor = _pad(input, pad, "constant", value)
    return result


_pad = pad
