"""Pooling: the largest, mean or p-norm of windows, fixed or adapted to a size; and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from facula.dtype import int64
from facula.errors import DTypeError
from facula.graph.record import recorder
from facula.nn.functional.common import add_number, mul_number, number, shape_of
from facula.nn.functional.windows import (
    adaptive_places,
    largest,
    picked,
    position,
    strided_max,
    strided_max_value,
    strided_sum,
    sum_along,
    windows_count,
    with_indices,
)
from facula.ops.define import autocast_to, op
from facula.ops.layout import as_int
from facula.ops.promote import cast, expand_to, type_name
from facula.ops.reductions import constant, widened
from facula.tensor import Tensor, prim

__all__ = [f"{kind}{d}d" for kind in ("max_pool", "avg_pool", "adaptive_max_pool",
                                      "adaptive_avg_pool", "lp_pool", "max_unpool")
           for d in (1, 2, 3)]
__all__ += [f"{kind}{d}d_with_indices" for kind in ("max_pool", "adaptive_max_pool")
            for d in (1, 2, 3)]

_WORDS = {1: "one int", 2: "two ints", 3: "three ints"}


def _sizes(name: str, what: str, value: Any, d: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if len(values) == 1:
        values *= d
    if len(values) != d:
        raise RuntimeError(f"{name}: {what} must either be a single int, or a tuple of "
                           f"{_WORDS[d]}, but got {value}")
    return tuple(int(v) for v in values)


def _check(name: str, input: Tensor, d: int, kinds: str, channels: bool = True) -> None:
    shape = shape_of(input)
    lead = len(shape) - d
    if lead not in (1, 2) or 0 in shape[-d:] or (channels and 0 in shape[lead - 1:]):
        raise RuntimeError(f"{name}(): Expected {d + 1}D or {d + 2}D (batch mode) tensor with "
                           f"optional 0 dim batch size for input, but got:{list(shape)}")
    if input.dtype.kind not in kinds:
        raise DTypeError(f'"{name}" not implemented for \'{type_name(input.dtype)}\'')


def _geometry(name: str, input: Tensor, d: int, kernel_size: Any, stride: Any, padding: Any,
              dilation: Any, ceil: bool) -> tuple[tuple[int, ...], ...]:
    """(kernel, stride, padding, dilation, windows) of a pooling, all checked."""
    kernel = _sizes(name, "kernel_size", kernel_size, d)
    steps = kernel if stride is None or stride == () or stride == [] \
        else _sizes(name, "stride", stride, d)
    pad = _sizes(name, "padding", padding, d)
    apart = _sizes(name, "dilation", dilation, d)
    for what, values in (("kernel_size", kernel), ("stride", steps), ("dilation", apart)):
        if min(values) <= 0:
            raise RuntimeError(f"{name}() {what} must be greater than zero, but got "
                               f"{values[0] if d == 1 else values}: {what} should be greater "
                               "than zero" + (" (stride should not be zero)"
                                              if what == "stride" else ""))
    if min(pad) < 0:
        raise RuntimeError(f"{name}() padding must be non-negative: pad must be non-negative, "
                           f"but got pad: {min(pad)}")
    for k, p, t in zip(kernel, pad, apart):
        if p > k // 2:
            effective = "effective kernel" if name.startswith("avg") else "kernel"
            raise RuntimeError(f"{name}() pad should be at most half of {effective} size, but "
                               f"got pad={p}, kernel_size={k} and dilation={t}")
    size = shape_of(input)[-d:]
    out = tuple(windows_count(*each, ceil)
                for each in zip(size, kernel, steps, pad, apart))
    if min(out) < 1:
        channels = shape_of(input)[-d - 1]
        raise RuntimeError(
            f"{name}() Given input size: ({'x'.join(map(str, (channels, *size)))}). Calculated "
            f"output size: ({'x'.join(map(str, (channels, *out)))}). Output size is too small")
    return kernel, steps, pad, apart, out


def _merged(input: Tensor, d: int) -> Tensor:
    shape = shape_of(input)
    return prim("reshape", input, shape=(math.prod(shape[:-d]), *shape[-d:]))


def _split(out: Tensor, input: Tensor, d: int) -> Tensor:
    return prim("reshape", out, shape=(*shape_of(input)[:-d], *out.shape[1:]))


def _both(x: Tensor, index: Tensor, input: Tensor, d: int, return_indices: bool) -> Any:
    values = _split(picked(x, index), input, d)
    return (values, _split(index, input, d)) if return_indices else values


# ---------------------------------------------------------------- windows of one size

def _max_pool(d: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
              ceil_mode: bool, return_indices: bool) -> Any:
    name = f"max_pool{d}d"
    _check(name, input, d, "f" if d == 1 else "fiu")
    kernel, steps, pad, apart, out = _geometry(name, input, d, kernel_size, stride, padding,
                                               dilation, bool(ceil_mode))
    x = _merged(input, d)
    if not return_indices and not (input._rg and recorder().grad):
        values = strided_max_value(x, out, kernel, steps, pad, apart)
        if values is not None:          # no gradient will ask where they were
            return _split(values, input, d)
    values, index = strided_max(x, out, kernel, steps, pad, apart)
    values = _split(values, input, d)
    return (values, _split(index, input, d)) if return_indices else values


def _truncated(total: Tensor, count: Tensor) -> Tensor:
    """total / count; of integers, rounded towards 0."""
    if total.dtype.kind == "f":
        return prim("div", total, count)
    if total.dtype.kind == "u":
        return prim("floor_divide", total, count)
    whole = prim("floor_divide", prim("abs", total), prim("abs", count))
    return prim("mul", prim("mul", prim("sign", total), prim("sign", count)), whole)


def _counts(n: int, out: int, kernel: int, stride: int, pad: int, include: bool) -> Tensor:
    """Of how many elements each window along one dimension is the mean."""
    at = prim("iota", shape=(out,), dtype=int64)
    start = add_number(mul_number(at, stride), -pad)
    end = add_number(start, kernel)
    end = prim("minimum", end, number(end, n + pad))
    if not include:
        start = prim("maximum", start, number(start, 0))
        end = prim("minimum", end, number(end, n))
    return prim("sub", end, start)


def _avg_pool(d: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any,
              ceil_mode: bool, include: bool, divisor: int | None) -> Tensor:
    name = f"avg_pool{d}d"
    _check(name, input, d, "fiu")
    kernel, steps, pad, _, out = _geometry(name, input, d, kernel_size, stride, padding, 1,
                                           bool(ceil_mode))
    if divisor == 0:
        raise RuntimeError("divisor must be not zero")
    size = shape_of(input)[-d:]
    x = widened(_merged(input, d))
    total = strided_sum(x, out, kernel, steps, pad)
    over = any((o - 1) * s + k > n + 2 * p
               for o, s, k, n, p in zip(out, steps, kernel, size, pad))
    if divisor is not None or not over and (include or not any(pad)):
        count = number(total, math.prod(kernel) if divisor is None else divisor)
    else:
        count = prim("full", attrs=(1,), shape=tuple(out), dtype=int64)
        for axis, each in enumerate(zip(size, out, kernel, steps, pad)):
            ones = tuple(o if a == axis else 1 for a, o in enumerate(out))
            line = prim("reshape", _counts(*each, bool(include)), shape=ones)
            count = prim("mul", count, expand_to(line, out))
        count = expand_to(prim("reshape", cast(count, total.dtype), shape=(1, *out)),
                          tuple(total.shape))
    return _split(cast(_truncated(total, count), input.dtype), input, d)


def _lp_pool(d: int, input: Tensor, norm_type: float, kernel_size: Any, stride: Any,
             ceil_mode: bool) -> Tensor:
    kernel = _sizes(f"lp_pool{d}d", "kernel_size", kernel_size, d)
    raised = prim("pow", input, number(input, norm_type))
    mean = _avg_pool(d, raised, kernel, stride, 0, ceil_mode, True, None)
    size = prim("maximum", prim("abs", mean), number(mean, 0))
    total = mul_number(prim("mul", prim("sign", mean), size), math.prod(kernel))
    return prim("pow", total, number(total, 1.0 / norm_type))


# ---------------------------------------------------------------- windows for a size

def _wanted(name: str, input: Tensor, d: int, output_size: Any, channels: bool
            ) -> tuple[int, ...]:
    """The output's sizes, with those that are None taken from the input; all is checked."""
    several = isinstance(output_size, (tuple, list))
    values = tuple(output_size) if several else (output_size,) * d
    if several and d > 1 and input.ndim <= len(values):
        raise ValueError(f"{name}(): Input dimension should be at least {len(values) + 1} for "
                         f"output_size {output_size}, but got a tensor of shape "
                         f"{list(input.shape)}")
    values = tuple(v if v is None else as_int(v, f"ints for the output_size of {name}()")
                   for v in values)
    _check_adaptive(name, input, d, channels)
    if len(values) != d:
        raise RuntimeError(f"{name}(): output_size must be {d} numbers, but got {output_size}")
    size = shape_of(input)[-d:]
    out = tuple(n if v is None else v for v, n in zip(values, size))
    if min(out) < 0:
        raise RuntimeError(f"{name}: elements of output_size must be greater than or equal to 0 "
                           f"but received {list(out)}: negative dimension")
    return out


def _check_adaptive(name: str, input: Tensor, d: int, channels: bool) -> None:
    shape = shape_of(input)
    lead = len(shape) - d
    if lead not in (1, 2):
        raise RuntimeError(f"{name}(): Expected {d + 1}D or {d + 2}D tensor, but got: "
                           f"{list(shape)}")
    # What PyTorch lets be empty: the batch, and without a batch the channels of three dimensions.
    first = max(lead - 1, int(d == 3)) if channels else lead
    for axis in range(first, len(shape)):
        if shape[axis] == 0:
            raise RuntimeError(f"{name}(): Expected input to have non-zero size for non-batch "
                               f"dimensions, but input has sizes {list(shape)} with dimension "
                               f"{axis} being empty")
    if input.dtype.kind != "f":
        raise DTypeError(f'"{name}" not implemented for \'{type_name(input.dtype)}\'')


def _adaptive_max(d: int, input: Tensor, output_size: Any, return_indices: bool) -> Any:
    name = f"adaptive_max_pool{d}d"
    out = _wanted(name, input, d, output_size, True)
    size = shape_of(input)[-d:]
    x = _merged(input, d)
    if 0 in out:
        index = prim("full", attrs=(0,), shape=(x.shape[0], *out), dtype=int64)
    else:
        index = largest(x, [adaptive_places(n, o)[0] for n, o in zip(size, out)])
    return _both(x, index, input, d, return_indices)


def _adaptive_avg(d: int, input: Tensor, output_size: Any) -> Tensor:
    name = f"adaptive_avg_pool{d}d"
    out = _wanted(name, input, d, output_size, False)
    size = shape_of(input)[-d:]
    merged = _merged(input, d)
    if 0 in out:
        none = prim("slice", merged, attrs=((0,) * (d + 1), (1,) * (d + 1)),
                    shape=(merged.shape[0], *(0,) * d))
        wide = prim("reshape", none, shape=(merged.shape[0], *out))
        return _split(wide, input, d)
    x = widened(merged)
    if all(n % o == 0 for n, o in zip(size, out)):
        pairs = [v for n, o in zip(size, out) for v in (o, n // o)]
        x = prim("reshape", x, shape=(x.shape[0], *pairs))
        x = prim("sum", x, attrs=(tuple(range(2, 2 * d + 1, 2)),))
        x = prim("div", x, number(x, math.prod(n // o for n, o in zip(size, out))))
        return _split(cast(x, input.dtype), input, d)
    for axis, (n, o) in enumerate(zip(size, out), 1):
        if n == o:
            continue
        places, inside, lengths = adaptive_places(n, o)
        x = sum_along(x, axis, places, inside)
        ones = tuple(o if a == axis else 1 for a in range(d + 1))
        count = prim("reshape", cast(lengths, x.dtype), shape=ones)
        x = prim("div", x, expand_to(count, tuple(x.shape)))
    return _split(cast(x, input.dtype), input, d)


# ---------------------------------------------------------------- and back

def _unpool(d: int, input: Tensor, indices: Tensor, kernel_size: Any, stride: Any, padding: Any,
            output_size: Sequence[int] | None) -> Tensor:
    name = f"max_unpool{d}d"
    kernel = _sizes(name, "kernel_size", kernel_size, d)
    steps = kernel if stride is None else _sizes(name, "stride", stride, d)
    pad = _sizes(name, "padding", padding, d)
    shape = shape_of(input)
    if indices.dtype is not int64:
        raise RuntimeError("elements in indices should be type int64 but got: "
                           f"{type_name(indices.dtype)}")
    if len(shape) not in (d + 1, d + 2):
        raise RuntimeError(f"Input to {name} should be a {d + 1}d or {d + 2}d Tensor, but got "
                           f"{len(shape)} dimensions")
    if shape_of(indices) != shape:
        raise RuntimeError("Expected shape of indices to be same as that of the input tensor "
                           f"({list(shape)}) but got indices tensor with shape: "
                           f"{list(shape_of(indices))}")
    if input.dtype.kind != "f":
        raise DTypeError(f'"{name}" not implemented for \'{type_name(input.dtype)}\'')
    if min(steps) <= 0:
        raise RuntimeError(f"strides should be greater than zero, but got stride: {list(steps)}")
    usual = [(n - 1) * s + k - 2 * p for n, s, k, p in zip(shape[-d:], steps, kernel, pad)]
    out = usual if output_size is None else list(output_size)
    if output_size is not None:
        if len(out) == d + 2:
            out = out[2:]
        if len(out) != d:
            raise ValueError(f"output_size should be a sequence containing {d} or {d + 2} "
                             f"elements, but it has a length of '{len(out)}'")
        for k in range(d):
            low, high = usual[k] - steps[k], usual[k] + steps[k]
            if not low < out[k] < high:
                raise ValueError(f'invalid output_size "{out}" (dim {k} must be between {low} '
                                 f"and {high})")
    if min(out) < 0:
        raise ValueError("max_unpooling: output_size must contain non-negative spatial "
                         f"dimensions, but got {out}")
    rows, width = math.prod(shape[:-d]), math.prod(shape[-d:])
    empty = prim("full", attrs=(0,), shape=(rows, math.prod(out)), dtype=input.dtype)
    at = prim("reshape", indices, shape=(rows, width))
    values = prim("reshape", input, shape=(rows, width))
    whole = prim("scatter", empty, at, constant(values), attrs=(1, "set"))
    # Of elements that share a place the last is kept, but all get the gradient of that place:
    # it flows through what adds nothing.
    change = prim("where", prim("isfinite", values), prim("sub", values, constant(values)),
                  number(values, 0))
    whole = prim("add", whole, prim("scatter", empty, at, change, attrs=(1, "add")))
    return prim("reshape", whole, shape=(*shape[:-d], *out))


# ---------------------------------------------------------------- public

def _samples(d: int, **options: Any) -> Any:
    def samples(make: Any) -> list[Any]:
        x = (7, 6, 5)[:d]
        return [((make(2, 3, *x), 3), {}), ((make(3, *x), (3, 2, 2)[:d]), {"stride": 2}),
                ((make(0, 3, *x), 2), {}),
                ((make(2, 2, *x), 3), {"stride": 2, "padding": 1, "ceil_mode": True, **options})]
    return samples


def _lp_samples(d: int) -> Any:
    return lambda make: [((make(2, 3, *(7, 6, 5)[:d], low=0.5, high=2.0), 3.0, 2), {}),
                         ((make(3, *(7, 6, 5)[:d], low=0.5, high=2.0), 2, 3),
                          {"stride": 2, "ceil_mode": True})]


def _adaptive_samples(d: int) -> Any:
    return lambda make: [((make(2, 3, *(7, 6, 5)[:d]), (3, 4, 5)[:d]), {}),
                         ((make(3, *(8, 6, 4)[:d]), 2), {}),
                         ((make(0, 3, *(7, 6, 5)[:d]), 2), {}), ((make(2, *(4, 4, 4)[:d]), 0), {})]


def _unpool_samples(d: int) -> Any:
    def samples(make: Any) -> list[Any]:
        line = prim("iota", shape=(2,), dtype=int64)
        at = prim("reshape", position([line] * d, (4,) * d), shape=(1, *(2,) * d))
        return [((make(1, *(2,) * d), at, 2), {}),
                ((make(1, *(2,) * d), at, 2), {"output_size": (5,) * d})]
    return samples


@op(samples=_samples(1, dilation=2))
def max_pool1d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
               dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element (NaN before all) of each window of `[N, C, L]`; N may be missing.

    Windows are `stride` apart (their size, if None); `padding` counts as less than anything.
    With `return_indices`, also the place of each in its flattened channel, int64.  Raises
    RuntimeError where no window fits.
    """
    return _max_pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@op(samples=_samples(2, dilation=2))
def max_pool2d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
               dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element (NaN before all) of each window of `[N, C, H, W]`; N may be missing.

    Windows are `stride` apart (their size, if None); `padding` counts as less than anything.
    With `return_indices`, also the place of each in its flattened channel, int64.  Raises
    RuntimeError where no window fits.
    """
    return _max_pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@op(samples=_samples(3, dilation=2))
@autocast_to("full")
def max_pool3d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
               dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The largest element (NaN before all) of each window of `[N, C, D, H, W]`; N may be missing.

    Windows are `stride` apart (their size, if None); `padding` counts as less than anything.
    With `return_indices`, also the place of each in its flattened channel, int64.  Raises
    RuntimeError where no window fits.
    """
    return _max_pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@op(samples=_samples(1, count_include_pad=False))
def avg_pool1d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
               ceil_mode: bool = False, count_include_pad: bool = True) -> Tensor:
    """The mean of each window of `[N, C, L]`; N may be missing.

    Windows are `stride` apart (their size, if None); padding is zeros, which count or do not.
    """
    return _avg_pool(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad,
                     None)


@op(samples=_samples(2, count_include_pad=False))
def avg_pool2d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
               ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: int | None = None) -> Tensor:
    """The mean of each window of `[N, C, H, W]`; N may be missing.

    Windows are `stride` apart (their size, if None); padding is zeros, which count or do not.
    With `divisor_override`, the sum divided by that.
    """
    return _avg_pool(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad,
                     divisor_override)


@op(samples=_samples(3, count_include_pad=False))
@autocast_to("full")
def avg_pool3d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
               ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: int | None = None) -> Tensor:
    """The mean of each window of `[N, C, D, H, W]`; N may be missing.

    Windows are `stride` apart (their size, if None); padding is zeros, which count or do not.
    With `divisor_override`, the sum divided by that.
    """
    return _avg_pool(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad,
                     divisor_override)


@op(samples=_adaptive_samples(1))
def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The largest elements of `output_size` windows that cover `[N, C, L]` evenly.

    Window i of m over n elements is floor(i n / m) to ceil((i + 1) n / m).  See `max_pool1d`.
    """
    return _adaptive_max(1, input, output_size, return_indices)


@op(samples=_adaptive_samples(2))
def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The largest elements of `output_size` windows that cover `[N, C, H, W]` evenly.

    Window i of m over n elements is floor(i n / m) to ceil((i + 1) n / m).  See `max_pool2d`.
    """
    return _adaptive_max(2, input, output_size, return_indices)


@op(samples=_adaptive_samples(3))
@autocast_to("full")
def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The largest elements of `output_size` windows that cover `[N, C, D, H, W]` evenly.

    Window i of m over n elements is floor(i n / m) to ceil((i + 1) n / m).  See `max_pool3d`.
    """
    return _adaptive_max(3, input, output_size, return_indices)


@op(samples=_adaptive_samples(1))
def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """The means of `output_size` windows that cover `[N, C, L]` evenly; None keeps a size."""
    return _adaptive_avg(1, input, output_size)


@op(samples=_adaptive_samples(2))
def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """The means of `output_size` windows that cover `[N, C, H, W]` evenly; None keeps a size."""
    return _adaptive_avg(2, input, output_size)


@op(samples=_adaptive_samples(3))
@autocast_to("full")
def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """The means of `output_size` windows that cover `[N, C, D, H, W]` evenly; None keeps a size."""
    return _adaptive_avg(3, input, output_size)


@op(samples=_lp_samples(1))
def lp_pool1d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None,
              ceil_mode: bool = False) -> Tensor:
    """(sum of x**p)**(1 / p) over each window of `[N, C, L]`, p being `norm_type`."""
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


@op(samples=_lp_samples(2))
def lp_pool2d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None,
              ceil_mode: bool = False) -> Tensor:
    """(sum of x**p)**(1 / p) over each window of `[N, C, H, W]`, p being `norm_type`."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


@op(samples=_lp_samples(3))
@autocast_to("full")
def lp_pool3d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None,
              ceil_mode: bool = False) -> Tensor:
    """(sum of x**p)**(1 / p) over each window of `[N, C, D, H, W]`, p being `norm_type`."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


@op(samples=_unpool_samples(1))
@autocast_to("full")
def max_unpool1d(input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None,
                 padding: Any = 0, output_size: Any = None) -> Tensor:
    """Puts what `max_pool1d` took back at its `indices`, among zeros.

    `output_size` picks among the sizes that the pooling could have come from.
    """
    return _unpool(1, input, indices, kernel_size, stride, padding, output_size)


@op(samples=_unpool_samples(2))
@autocast_to("full")
def max_unpool2d(input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None,
                 padding: Any = 0, output_size: Any = None) -> Tensor:
    """Puts what `max_pool2d` took back at its `indices`, among zeros.

    `output_size` picks among the sizes that the pooling could have come from.
    """
    return _unpool(2, input, indices, kernel_size, stride, padding, output_size)


@op(samples=_unpool_samples(3))
@autocast_to("full")
def max_unpool3d(input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None,
                 padding: Any = 0, output_size: Any = None) -> Tensor:
    """Puts what `max_pool3d` took back at its `indices`, among zeros.

    `output_size` picks among the sizes that the pooling could have come from.
    """
    return _unpool(3, input, indices, kernel_size, stride, padding, output_size)


max_pool1d_with_indices = with_indices(max_pool1d)
max_pool2d_with_indices = with_indices(max_pool2d)
max_pool3d_with_indices = with_indices(max_pool3d)
adaptive_max_pool1d_with_indices = with_indices(adaptive_max_pool1d)
adaptive_max_pool2d_with_indices = with_indices(adaptive_max_pool2d)
adaptive_max_pool3d_with_indices = with_indices(adaptive_max_pool3d)
