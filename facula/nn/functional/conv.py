"""Convolutions and transposed convolutions over one, two and three dimensions.

Floating tensors go to the primitives of `facula.ops.primitive.convolution`, which have kernels of
their own.  Of anything else, and of kernels that are enormous, a convolution is one matrix product
a group: the kernel as rows, times the windows of the input as columns.  A transposed one is its
adjoint: a product that gives the columns, which are then added up where their windows lie.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from facula.errors import DTypeError
from facula.nn.functional.common import shape_of
from facula.ops.define import autocast_to, op
from facula.ops.promote import cast, expand_to, type_name
from facula.ops.reductions import widened
from facula.tensor import Tensor, prim

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
           "conv_transpose3d", "conv_tbc"]

_MANY = 64          # windows of more elements than this are cut by one strided read


def _sizes(name: str, value: Any, d: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * d
    if len(values) == 1:
        values *= d
    if len(values) != d:
        raise RuntimeError(f"expected {name} to be a single integer value or a list of {d} values "
                           f"to match the convolution dimensions, but got {name}={list(values)}")
    return tuple(int(v) for v in values)


def _check_weight(name: str, input: Tensor, weight: Tensor, bias: Tensor | None, d: int,
                  groups: int, transposed: bool) -> None:
    x, w = shape_of(input), shape_of(weight)
    if len(x) not in (d + 1, d + 2):
        raise RuntimeError(f"Expected {d + 1}D (unbatched) or {d + 2}D (batched) input to {name}, "
                           f"but got input of size: {list(x)}")
    if len(w) != d + 2:
        raise RuntimeError(f"{name}: weight must have {d + 2} dimensions, but got weight of size "
                           f"{list(w)}")
    if groups <= 0:
        raise RuntimeError("non-positive groups is not supported")
    for what, t in (("weight", weight), ("bias", bias)):
        if t is not None and t.dtype is not input.dtype:
            raise DTypeError(f"{name}: Input type ({type_name(input.dtype)}) and {what} type "
                             f"({type_name(t.dtype)}) should be the same")
    if input.dtype.kind == "b":
        raise DTypeError(f"\"{name}\" not implemented for 'Bool'")
    if w[0] < groups:
        raise RuntimeError(f"Given groups={groups}, expected weight to be at least {groups} at "
                           f"dimension 0, but got weight of size {list(w)} instead")
    if w[0] % groups:
        raise RuntimeError(f"Given groups={groups}, expected weight to be divisible by {groups} "
                           f"at dimension 0, but got weight of size [{list(w)}] instead")
    want = w[0] if transposed else w[1] * groups
    have = x[len(x) - d - 1]
    given = f"transposed={int(transposed)}" if transposed else f"groups={groups}"
    if have != want:
        raise RuntimeError(f"Given {given}, weight of size {list(w)}, expected "
                           f"input{list(x)} to have {want} channels, but got {have} channels "
                           "instead")
    out = w[1] * groups if transposed else w[0]
    if bias is not None and shape_of(bias) != (out,):
        raise RuntimeError(f"Given {'transposed=1, ' * transposed}weight of size {list(w)}, "
                           f"expected bias to be 1-dimensional with {out} elements, but got bias "
                           f"of size {list(shape_of(bias))} instead")


def _check_steps(stride: Sequence[int], dilation: Sequence[int]) -> None:
    if min(stride) <= 0:
        raise RuntimeError("non-positive stride is not supported")
    if min(dilation) <= 0:
        raise RuntimeError(f"dilation should be greater than zero, but got {list(dilation)}")


def _times(values: Sequence[int]) -> str:
    return " x ".join(map(str, values))


def _front(input: Tensor, d: int) -> Tensor:
    """`[N, C, *size]`, or without N, as `[C, N, *size]`."""
    shape = shape_of(input)
    if len(shape) == d + 1:
        return prim("reshape", input, shape=(shape[0], 1, *shape[1:]))
    return prim("permute", input, attrs=((1, 0, *range(2, d + 2)),))


def _finish(out: Tensor, bias: Tensor | None, batched: bool) -> Tensor:
    """`[C, N, *size]` as `[N, C, *size]`, or without N, plus the bias of every channel."""
    shape = shape_of(out)
    if batched:
        out = prim("permute", out, attrs=((1, 0, *range(2, len(shape))),))
    else:
        out = prim("reshape", out, shape=(shape[0], *shape[2:]))
    if bias is not None:
        ones = (shape[0], *(1,) * (len(shape) - 2))
        out = prim("add", out, expand_to(prim("reshape", bias, shape=ones), shape_of(out)))
    return out


_LONGEST = 1 << 15      # elements of one channel that a tile of the compiled kernels may read
_TAPS = 2048


def _direct(input: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
            ) -> bool:
    """Whether the primitives serve: real floating numbers, and kernels that are not enormous."""
    reach = math.prod(t * (k - 1) + 1 + 15 * s for k, s, t in zip(kernel, stride, dilation))
    return input.dtype.kind == "f" and math.prod(kernel) <= _TAPS and reach <= _LONGEST


def _product(name: str, a: Tensor, b: Tensor, bias: Tensor | None, batched: bool,
             attrs: tuple[Any, ...], shape: tuple[int, ...]) -> Tensor:
    """One of the primitives, with sums in float32 at least, and the bias of every channel."""
    dtype = a.dtype
    a, b = widened(a), widened(b)
    if not batched:
        a = prim("reshape", a, shape=(1, *shape_of(a)))
    out = prim(name, a, b, attrs=attrs, shape=shape)
    if bias is not None:
        ones = (1, shape[1], *(1,) * (len(shape) - 2))
        out = prim("add", out, expand_to(prim("reshape", widened(bias), shape=ones), shape))
    if not batched:
        out = prim("reshape", out, shape=shape[1:])
    return cast(out, dtype)


def _columns(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...],
             dilation: tuple[int, ...], out: tuple[int, ...]) -> Tensor:
    """The windows of `[C, N, *size]`: `[C, kernel elements, N, *out]`."""
    c, n, *size = shape_of(x)
    area = math.prod(kernel)
    if area > _MANY:
        steps = [math.prod(size[k + 1:]) for k in range(len(size))]
        plane = math.prod(size)
        strides = (n * plane, *(s * d for s, d in zip(steps, dilation)), plane,
                   *(s * t for s, t in zip(steps, stride)))
        taken = prim("as_strided", x, attrs=(strides, 0), shape=(c, *kernel, n, *out))
        return prim("reshape", taken, shape=(c, area, n, *out))
    parts = []
    for tap in itertools.product(*map(range, kernel)):
        starts = (0, 0, *(t * d for t, d in zip(tap, dilation)))
        part = x if (n, *out) == (n, *size) and not any(starts) and max(stride) == 1 else \
            prim("slice", x, attrs=(starts, (1, 1, *stride)), shape=(c, n, *out))
        parts.append(prim("reshape", part, shape=(c, 1, n, *out)))
    return prim("cat", *parts, attrs=(1,)) if len(parts) > 1 else parts[0]


def _conv(name: str, d: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any,
          padding: Any, dilation: Any, groups: int) -> Tensor:
    _check_weight(name, input, weight, bias, d, groups, False)
    shape = shape_of(input)
    w = shape_of(weight)
    kernel = w[2:]
    stride, dilation = _sizes("stride", stride, d), _sizes("dilation", dilation, d)
    _check_steps(stride, dilation)
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise RuntimeError(f"Invalid padding string: '{padding}'")
        if padding == "same" and max(stride) > 1:
            raise RuntimeError("padding='same' is not supported for strided convolutions")
        total = [e * (k - 1) if padding == "same" else 0 for e, k in zip(dilation, kernel)]
        low = tuple(t // 2 for t in total)
        high = tuple(t - t // 2 for t in total)
    else:
        low = high = _sizes("padding", padding, d)
        if min(low) < 0:
            raise RuntimeError("negative padding is not supported")
    size = tuple(n + a + b for n, a, b in zip(shape[-d:], low, high))
    reach = tuple(e * (k - 1) + 1 for e, k in zip(dilation, kernel))
    if any(n < r or n == 0 for n, r in zip(size, reach)):
        raise RuntimeError(f"Calculated padded input size per channel: ({_times(size)}). Kernel "
                           f"size: ({_times(reach)}). Kernel size can't be greater than actual "
                           "input size")
    if 0 in kernel:
        raise RuntimeError(f"{name}: the kernel must not be empty, but got weight of size "
                           f"{list(w)}")
    out = tuple((n - r) // s + 1 for n, r, s in zip(size, reach, stride))
    if _direct(input, kernel, stride, dilation):
        batched = len(shape) == d + 2
        return _product("conv", input, weight, bias, batched, (stride, low, dilation, groups),
                        (shape[0] if batched else 1, w[0], *out))
    x = _front(input, d)
    if any(low) or any(high):
        x = prim("pad", x, attrs=((0, 0, *low), (0, 0, *high), 0))
    count = shape_of(x)[1] * math.prod(out)
    inner = w[1] * math.prod(kernel)
    cut = _columns(x, kernel, stride, dilation, out)
    if groups == 1:
        rows = prim("reshape", weight, shape=(w[0], inner))
        total_ = prim("matmul", rows, prim("reshape", cut, shape=(inner, count)))
    else:
        rows = prim("reshape", weight, shape=(groups, w[0] // groups, inner))
        total_ = prim("matmul", rows, prim("reshape", cut, shape=(groups, inner, count)))
    total_ = prim("reshape", total_, shape=(w[0], shape_of(x)[1], *out))
    return _finish(total_, bias, len(shape) == d + 2)


def _spread(columns: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...],
            dilation: tuple[int, ...], whole: tuple[int, ...]) -> Tensor:
    """Columns `[C, kernel elements, N, *size]` added up where they lie: `[C, N, *whole]`."""
    c, _, n, *size = shape_of(columns)
    total = empty = prim("full", attrs=(0,), shape=(c, n, *whole), dtype=columns.dtype)
    if 0 in (c, n, *size):
        return total
    for k, tap in enumerate(itertools.product(*map(range, kernel))):
        part = prim("slice", columns, attrs=((0, k, *(0,) * (len(size) + 1)),
                                             (1,) * (len(size) + 3)), shape=(c, 1, n, *size))
        part = prim("reshape", part, shape=(c, n, *size))
        starts = (0, 0, *(t * d for t, d in zip(tap, dilation)))
        lies = prim("slice_update", empty, part, attrs=(starts, (1, 1, *stride)))
        total = lies if k == 0 else prim("add", total, lies)
    return total


_AXES = {1: ("width",), 2: ("height", "width"), 3: ("depth", "height", "width")}


def _transposed(name: str, d: int, input: Tensor, weight: Tensor, bias: Tensor | None,
                stride: Any, padding: Any, output_padding: Any, groups: int, dilation: Any
                ) -> Tensor:
    _check_weight(name, input, weight, bias, d, groups, True)
    shape = shape_of(input)
    w = shape_of(weight)
    kernel = w[2:]
    stride, dilation = _sizes("stride", stride, d), _sizes("dilation", dilation, d)
    padding = _sizes("padding", padding, d)
    extra = _sizes("output_padding", output_padding, d)
    _check_steps(stride, dilation)
    if min(padding) < 0:
        raise RuntimeError("negative padding is not supported")
    if min(extra) < 0:
        raise RuntimeError("negative output_padding is not supported")
    if any(e >= max(s, t) for e, s, t in zip(extra, stride, dilation)):
        said = " ".join(f"{what}_{axis}: {v}" for what, values in (
            ("output_padding", extra), ("stride", stride), ("dilation", dilation))
            for axis, v in zip(_AXES[d], values))
        raise RuntimeError("output padding must be smaller than either stride or dilation, but "
                           f"got {said}")
    size = shape[-d:]
    whole = tuple((n - 1) * s + t * (k - 1) + 1 + e
                  for n, s, t, k, e in zip(size, stride, dilation, kernel, extra))
    out = tuple(n - 2 * p for n, p in zip(whole, padding))
    if min(out) < 1 or 0 in kernel or 0 in size:
        raise RuntimeError(f"Given input size per channel: ({_times(size)}). Calculated output "
                           f"size per channel: ({_times(out)}). Output size is too small")
    if _direct(input, kernel, stride, dilation):
        batched = len(shape) == d + 2
        return _product("conv_input", input, weight, bias, batched,
                        (stride, padding, dilation, groups),
                        (shape[0] if batched else 1, w[1] * groups, *out))
    x = _front(input, d)
    batch = shape_of(x)[1]
    count = batch * math.prod(size)
    inner, outer = w[0] // groups, w[1] * math.prod(kernel)
    rows = prim("reshape", weight, shape=(groups, inner, outer))
    rows = prim("permute", rows, attrs=((0, 2, 1),))
    columns = prim("matmul", rows, prim("reshape", x, shape=(groups, inner, count)))
    columns = prim("reshape", columns, shape=(w[1] * groups, math.prod(kernel), batch, *size))
    total = cast(_spread(widened(columns), kernel, stride, dilation, whole), input.dtype)
    if any(padding):
        total = prim("slice", total, attrs=((0, 0, *padding), (1,) * (d + 2)),
                     shape=(*shape_of(total)[:2], *out))
    return _finish(total, bias, len(shape) == d + 2)


# ---------------------------------------------------------------- public

def _samples(d: int) -> Any:
    def samples(make: Any) -> list[Any]:
        x, k = (6, 5, 4)[:d], (3, 2, 2)[:d]
        return [((make(2, 4, *x), make(2, 4, *k), make(2)), {}),
                ((make(2, 4, *x), make(6, 2, *k)), {"stride": 2, "padding": 1, "groups": 2}),
                ((make(4, *x), make(3, 4, *k), make(3)), {"padding": "same", "dilation": 2}),
                ((make(0, 4, *x), make(3, 4, *k), make(3)), {})]
    return samples


def _transposed_samples(d: int) -> Any:
    def samples(make: Any) -> list[Any]:
        x, k = (4, 3, 2)[:d], (3, 2, 2)[:d]
        return [((make(2, 4, *x), make(4, 2, *k), make(2)), {}),
                ((make(2, 4, *x), make(4, 3, *k)), {"stride": 2, "padding": 1, "groups": 2,
                                                    "output_padding": 1, "dilation": 2}),
                ((make(4, *x), make(4, 3, *k), make(3)), {"stride": 3}),
                ((make(0, 4, *x), make(4, 3, *k), make(3)), {})]
    return samples


@op(samples=_samples(1))
@autocast_to("lower")
def conv1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
           padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of input `[N, C, L]` with weight `[out, C / groups, *kernel]`.

    The input may come without N.  `padding` is a number (of zeros, at both ends), one for each
    dimension, 'valid' (none) or 'same' (as many as keep the size).  Raises RuntimeError where the
    channels or sizes do not fit.
    """
    return _conv("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


@op(samples=_samples(2))
@autocast_to("lower")
def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
           padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of input `[N, C, H, W]` with weight `[out, C / groups, *kernel]`.

    The input may come without N.  `padding` is a number (of zeros, at both ends), one for each
    dimension, 'valid' (none) or 'same' (as many as keep the size).  Raises RuntimeError where the
    channels or sizes do not fit.
    """
    return _conv("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


@op(samples=_samples(3))
@autocast_to("lower")
def conv3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
           padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of input `[N, C, D, H, W]` with weight `[out, C / groups, *kernel]`.

    The input may come without N.  `padding` is a number (of zeros, at both ends), one for each
    dimension, 'valid' (none) or 'same' (as many as keep the size).  Raises RuntimeError where the
    channels or sizes do not fit.
    """
    return _conv("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


@op(samples=_transposed_samples(1))
@autocast_to("lower")
def conv_transpose1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
                     padding: Any = 0, output_padding: Any = 0, groups: int = 1,
                     dilation: Any = 1) -> Tensor:
    """The adjoint of `conv1d`: input `[N, C, L]`, weight `[C, out / groups, *kernel]`.

    `output_padding` makes the result that much larger at its end.  Raises RuntimeError where the
    channels or sizes do not fit.
    """
    return _transposed("conv_transpose1d", 1, input, weight, bias, stride, padding,
                       output_padding, groups, dilation)


@op(samples=_transposed_samples(2))
@autocast_to("lower")
def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
                     padding: Any = 0, output_padding: Any = 0, groups: int = 1,
                     dilation: Any = 1) -> Tensor:
    """The adjoint of `conv2d`: input `[N, C, H, W]`, weight `[C, out / groups, *kernel]`.

    `output_padding` makes the result that much larger at its end.  Raises RuntimeError where the
    channels or sizes do not fit.
    """
    return _transposed("conv_transpose2d", 2, input, weight, bias, stride, padding,
                       output_padding, groups, dilation)


@op(samples=_transposed_samples(3))
@autocast_to("lower")
def conv_transpose3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1,
                     padding: Any = 0, output_padding: Any = 0, groups: int = 1,
                     dilation: Any = 1) -> Tensor:
    """The adjoint of `conv3d`: input `[N, C, D, H, W]`, weight `[C, out / groups, *kernel]`.

    `output_padding` makes the result that much larger at its end.  Raises RuntimeError where the
    channels or sizes do not fit.
    """
    return _transposed("conv_transpose3d", 3, input, weight, bias, stride, padding,
                       output_padding, groups, dilation)


@op(samples=lambda make: [((make(6, 2, 3), make(2, 3, 4), make(4), 1), {}),
                          ((make(5, 1, 2), make(3, 2, 2), make(2)), {})])
@autocast_to("lower")
def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """`conv1d` with time first: input `[T, N, C]`, weight `[kernel, C, out]`, bias `[out]`.

    `pad` zeros are added at both ends of the time.  The result is `[T', N, out]`.
    """
    if input.ndim != 3 or weight.ndim != 3:
        raise RuntimeError("conv_tbc: input must have 3 dims: time, batch, in_channel, and weight "
                           f"kernel, in_channel, out_channel; got {input.ndim} and {weight.ndim}")
    x = prim("permute", input, attrs=((1, 2, 0),))
    w = prim("permute", weight, attrs=((2, 1, 0),))
    out = _conv("conv_tbc", 1, x, w, bias, 1, pad, 1, 1)
    return prim("permute", out, attrs=((2, 0, 1),))
