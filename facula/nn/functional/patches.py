"""Sliding windows over images: unfold takes them apart, fold adds them up."""

from __future__ import annotations

from typing import Any

from facula.nn.functional.common import shape_of
from facula.ops.define import op
from facula.tensor import Tensor, prim

__all__ = ["unfold", "fold"]


def _pair(name: str, value: Any) -> tuple[int, int]:
    if isinstance(value, (tuple, list)):
        if len(value) == 1:
            return (int(value[0]), int(value[0]))
        if len(value) != 2:
            raise RuntimeError(f"It is expected {name} equals to 2, but got size {len(value)}")
        return (int(value[0]), int(value[1]))
    return (int(value), int(value))


def _windows(size: tuple[int, int], kernel: tuple[int, int], dilation: tuple[int, int],
             padding: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    """How many windows there are down and across."""
    for name, values in (("kernel size", kernel), ("dilation", dilation), ("stride", stride)):
        if min(values) <= 0:
            raise RuntimeError(f"{name} should be greater than zero, but got {name.split()[0]}_"
                               f"height: {values[0]} {name.split()[0]}_width: {values[1]}")
    if min(padding) < 0:
        raise RuntimeError(f"padding should be non-negative, but got pad_height: {padding[0]} "
                           f"pad_width: {padding[1]}")
    out = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1
                for n, k, d, p, s in zip(size, kernel, dilation, padding, stride))
    if min(out) < 1:
        raise RuntimeError(f"Given input with spatial size ({size[0]}, {size[1]}), kernel_size="
                           f"{kernel}, dilation={dilation}, padding={padding}, calculated shape "
                           f"of the array of sliding blocks as {out}, but its components must be "
                           "at least one.")
    return out[0], out[1]


@op(name="unfold", samples=lambda make: [
    ((make(2, 3, 4, 5), (2, 3), (1, 1), (0, 1), (1, 2)), {}),
    ((make(2, 5, 5), (2, 2), (2, 2), (1, 1), (2, 1)), {})])
def _unfold(input: Tensor, kernel: tuple[int, int], dilation: tuple[int, int],
            padding: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    shape = shape_of(input)
    x = input if len(shape) == 4 else prim("reshape", input, shape=(1, *shape))
    n, c, h, w = shape_of(x)
    oh, ow = _windows((h, w), kernel, dilation, padding, stride)
    if any(padding):
        ends = (0, 0, *padding)
        x = prim("pad", x, attrs=(ends, ends, 0))
    parts = []
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            part = prim("slice", x, attrs=((0, 0, i * dilation[0], j * dilation[1]),
                                           (1, 1, *stride)), shape=(n, c, oh, ow))
            parts.append(prim("reshape", part, shape=(n, c, 1, oh * ow)))
    out = prim("cat", *parts, attrs=(2,)) if len(parts) > 1 else parts[0]
    wide = (c * kernel[0] * kernel[1], oh * ow)
    return prim("reshape", out, shape=wide if len(shape) == 3 else (n, *wide))


def unfold(input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
           ) -> Tensor:
    """The windows of [N, C, H, W] as columns: [N, C * kernel elements, windows]."""
    if input.ndim not in (3, 4) or 0 in shape_of(input)[-3:]:
        raise RuntimeError("Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and "
                           f"other non-zero dimensions for input, but got: {list(input.shape)}")
    result: Tensor = _unfold(input, _pair("kernel_size", kernel_size), _pair("dilation", dilation),
                             _pair("padding", padding), _pair("stride", stride))
    return result


@op(name="fold", samples=lambda make: [
    ((make(2, 12, 9), (4, 4), (2, 2), (1, 1), (0, 0), (1, 1)), {}),
    ((make(4, 9), (4, 4), (2, 2), (1, 1), (1, 1), (2, 2)), {})])
def _fold(input: Tensor, size: tuple[int, int], kernel: tuple[int, int],
          dilation: tuple[int, int], padding: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    shape = shape_of(input)
    x = input if len(shape) == 3 else prim("reshape", input, shape=(1, *shape))
    n, rows, columns = shape_of(x)
    area = kernel[0] * kernel[1]
    oh, ow = _windows(size, kernel, dilation, padding, stride)
    if rows % area:
        raise RuntimeError("Expected size of input's dimension 1 to be divisible by the product of "
                           f"kernel_size, but got input.size(1)={rows} and kernel_size={kernel}.")
    if columns != oh * ow:
        raise RuntimeError(f"Given output_size={size}, kernel_size={kernel}, dilation={dilation}, "
                           f"padding={padding}, stride={stride}, expected size of input's "
                           f"dimension 2 to match the calculated number of sliding blocks {oh} * "
                           f"{ow} = {oh * ow}, but got input.size(2)={columns}.")
    c = rows // area
    x = prim("reshape", x, shape=(n, c, area, oh, ow))
    whole = (n, c, size[0] + 2 * padding[0], size[1] + 2 * padding[1])
    total = prim("full", attrs=(0,), shape=whole, dtype=x.dtype)
    empty = total
    for k in range(area):
        i, j = divmod(k, kernel[1])
        part = prim("slice", x, attrs=((0, 0, k, 0, 0), (1,) * 5), shape=(n, c, 1, oh, ow))
        part = prim("reshape", part, shape=(n, c, oh, ow))
        starts = (0, 0, i * dilation[0], j * dilation[1])
        spread = prim("slice_update", empty, part, attrs=(starts, (1, 1, *stride)))
        total = spread if k == 0 else prim("add", total, spread)
    if any(padding):
        total = prim("slice", total, attrs=((0, 0, *padding), (1,) * 4), shape=(n, c, *size))
    return total if len(shape) == 3 else prim("reshape", total, shape=(c, *size))


def fold(input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
         stride: Any = 1) -> Tensor:
    """Columns of windows [N, C * kernel elements, windows] added up to images [N, C, H, W]."""
    if input.ndim not in (2, 3) or 0 in shape_of(input)[-2:]:
        raise RuntimeError("Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch "
                           f"size and non-zero dimensions for input, but got: {list(input.shape)}")
    result: Tensor = _fold(input, _pair("output_size", output_size),
                           _pair("kernel_size", kernel_size), _pair("dilation", dilation),
                           _pair("padding", padding), _pair("stride", stride))
    return result
