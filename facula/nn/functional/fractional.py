"""Fractional max pooling: windows whose steps are drawn at random.

Graham, "Fractional max-pooling" (2014), the pseudorandom variant with overlapping windows.
"""

from __future__ import annotations

import math
from typing import Any

from facula.dtype import int64
from facula.errors import DTypeError
from facula.nn.functional.common import mul_number, number, shape_of
from facula.nn.functional.dropout import uniform
from facula.nn.functional.windows import picked, position, with_indices
from facula.ops.define import op
from facula.ops.promote import cast, expand_to, type_name
from facula.ops.reductions import constant, reduce_to
from facula.tensor import Tensor, prim

__all__ = ["fractional_max_pool2d", "fractional_max_pool2d_with_indices",
           "fractional_max_pool3d", "fractional_max_pool3d_with_indices"]


def _starts(sample: Tensor, n: int, out: int, kernel: int) -> Tensor:
    """`[M, out]`: where the windows begin in n elements, from one number of [0, 1) a row.

    int((i + u) a) - int(u a) with a = (n - kernel) / (out - 1); the last ends at the end.
    """
    m = shape_of(sample)[0]
    shape = (m, out)
    last = prim("full", attrs=(n - kernel,), shape=(m, 1), dtype=int64)
    if out == 1:
        return last
    short = (m, out - 1)
    u = expand_to(prim("reshape", sample, shape=(m, 1)), short)
    alpha = prim("div", number(u, n - kernel), number(u, out - 1))
    line = prim("iota", shape=(out - 1,), dtype=int64)
    at = expand_to(prim("reshape", cast(line, u.dtype), shape=(1, out - 1)), short)
    begun = cast(prim("trunc", prim("mul", prim("add", at, u), alpha)), int64)
    before = cast(prim("trunc", prim("mul", u, alpha)), int64)
    found = prim("cat", prim("sub", begun, before), last, attrs=(1,))
    assert shape_of(found) == shape
    return found


def _largest(x: Tensor, starts: list[Tensor], kernel: tuple[int, ...]) -> Tensor:
    """`[M, *out]`: the place in its flattened row of the largest element of every window.

    The first of equal ones, the last NaN where there is any, as PyTorch has it.
    """
    m, *size = shape_of(x)
    out = tuple(shape_of(s)[1] for s in starts)
    base = prim("full", attrs=(0,), shape=(m, *out), dtype=int64)
    for k, start in enumerate(starts):
        ones = tuple(o if a == k else 1 for a, o in enumerate(out))
        step = mul_number(prim("reshape", start, shape=(m, *ones)), math.prod(size[k + 1:]))
        base = prim("add", base, expand_to(step, (m, *out)))
    taps = math.prod(kernel)
    away = position([prim("iota", shape=(k,), dtype=int64) for k in kernel], size)
    shape = (m, math.prod(out), taps)
    places = prim("add", expand_to(prim("reshape", base, shape=(*shape[:2], 1)), shape),
                  expand_to(prim("reshape", away, shape=(1, 1, taps)), shape))
    flat = prim("reshape", constant(x), shape=(m, math.prod(size)))
    values = prim("gather", flat, prim("reshape", places, shape=(m, shape[1] * taps)), attrs=(1,))
    values = prim("reshape", values, shape=shape)
    best = prim("argmax", values, attrs=(2,))
    line = expand_to(prim("reshape", prim("iota", shape=(taps,), dtype=int64),
                          shape=(1, 1, taps)), shape)
    nan = reduce_to("amax", prim("where", prim("isnan", values), line, number(line, -1)), (2,))
    best = prim("where", prim("ge", nan, number(nan, 0)), nan, best)
    index = prim("gather", places, prim("reshape", best, shape=(*shape[:2], 1)), attrs=(2,))
    return prim("reshape", index, shape=(m, *out))


def _samples(d: int) -> Any:
    def samples(make: Any) -> list[Any]:
        size = (7, 6, 5)[:d]
        return [((make(2, 3, *size), make(2, 3, d, low=0, high=1), (2, 3, 1)[:d],
                  (3, 2, 4)[:d]), {}),
                ((make(1, 1, *size), make(1, 1, d, low=0, high=1), (1,) * d, (1,) * d), {}),
                ((make(0, 2, *size), make(0, 2, d, low=0, high=1), (2,) * d, (2,) * d), {})]
    return samples


def _pooled(d: int, input: Tensor, samples: Tensor, kernel: tuple[int, ...],
            out: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    n, c, *size = shape_of(input)
    x = prim("reshape", input, shape=(n * c, *size))
    rows = prim("reshape", constant(samples), shape=(n * c, d))
    # PyTorch takes the first number for the width of an image, but for the depth of a volume.
    order = range(d) if d == 3 else reversed(range(d))
    starts = [_starts(prim("slice", rows, attrs=((0, k), (1, 1)), shape=(n * c, 1)), *each)
              for k, each in zip(order, zip(size, out, kernel))]
    index = _largest(x, starts, kernel)
    values = picked(x, index)
    return (prim("reshape", values, shape=(n, c, *out)),
            prim("reshape", index, shape=(n, c, *out)))


@op(name="fractional_max_pool2d", samples=_samples(2))
def _pooled2d(input: Tensor, samples: Tensor, kernel: tuple[int, ...],
              out: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The largest elements of windows of `[N, C, H, W]` at random steps, and their places."""
    return _pooled(2, input, samples, kernel, out)


@op(name="fractional_max_pool3d", samples=_samples(3))
def _pooled3d(input: Tensor, samples: Tensor, kernel: tuple[int, ...],
              out: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The largest elements of windows of `[N, C, D, H, W]` at random steps, and their places."""
    return _pooled(3, input, samples, kernel, out)


_WORDS = {2: "two Ints", 3: "three Ints"}


def _numbers(name: str, what: str, value: Any, d: int) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,) * d
    if len(values) == 1:
        values *= d
    if len(values) != d:
        raise ValueError(f"{name} requires {what} to either be a single Int or tuple of "
                         f"{_WORDS[d]}, got {value}")
    return values


def _checked(d: int, input: Tensor, kernel_size: Any, output_size: Any, output_ratio: Any,
             samples: Tensor | None) -> tuple[Tensor, Tensor]:
    name = f"fractional_max_pool{d}d"
    shape = shape_of(input)
    if output_size is None and output_ratio is None:
        raise ValueError(f"{name} requires specifying either an output_size or an output_ratio")
    if len(shape) not in (d + 1, d + 2) or 0 in shape[-d - 1:]:
        raise RuntimeError(f"{name}(): Expected {d + 1}D or {d + 2}D tensor with non-zero size "
                           f"for all but the batch, but got input of shape {list(shape)}")
    if input.dtype.kind != "f":
        raise DTypeError(f'"{name}" not implemented for \'{type_name(input.dtype)}\'')
    size = shape[-d:]
    kernel = _numbers(name, "kernel_size", kernel_size, d)
    if output_size is None:
        ratio = _numbers(name, "output_ratio", output_ratio, d)
        out = tuple(int(n * r) for n, r in zip(size, ratio))
    else:
        out = _numbers(name, "output_size", output_size, d)
    for n, o, k in zip(size, out, kernel):
        if o < 1 or k < 1 or o + k - 1 > n:
            raise RuntimeError(f"{name}(): pool size {kernel} too large relative to input size "
                               f"{list(size)} for output size {out}: each dimension needs output "
                               "+ kernel - 1 elements, and both at least 1")
    single = len(shape) == d + 1
    x = prim("reshape", input, shape=(1, *shape)) if single else input
    want = (*shape_of(x)[:2], d)
    if samples is None:
        samples = uniform(want, input.dtype)
    elif samples.dtype is not input.dtype:
        raise DTypeError(f"Expect _random_samples to have the same dtype as input: "
                         f"{type_name(samples.dtype)} and {type_name(input.dtype)}")
    else:
        have = shape_of(samples)
        if len(have) != 3 or have[0] < want[0] or have[1:] != want[1:]:
            raise RuntimeError(f"Expect _random_samples of shape {list(want)}, got "
                               f"{list(have)}")
        if have != want:                    # PyTorch takes those of a larger batch, too
            samples = samples[:want[0]]
    call = _pooled2d if d == 2 else _pooled3d
    values, index = call(x, samples, kernel, out)
    if single:
        values, index = values.squeeze(0), index.squeeze(0)
    return values, index


def fractional_max_pool2d(input: Tensor, kernel_size: Any, output_size: Any = None,
                          output_ratio: Any = None, return_indices: bool = False,
                          _random_samples: Tensor | None = None) -> Any:
    """The largest element of windows of `[N, C, H, W]` that lie at random; N may be missing.

    output_size      how many windows in each dimension, or
    output_ratio     that as a part of the input's size
    return_indices   also the place of each in its flattened channel, int64
    _random_samples  `[N, C, 2]`, numbers of [0, 1) that place the windows; drawn if None

    Graham 2014.  Raises RuntimeError where output + kernel - 1 is more than there is.
    """
    both = _checked(2, input, kernel_size, output_size, output_ratio, _random_samples)
    return both if return_indices else both[0]


def fractional_max_pool3d(input: Tensor, kernel_size: Any, output_size: Any = None,
                          output_ratio: Any = None, return_indices: bool = False,
                          _random_samples: Tensor | None = None) -> Any:
    """`fractional_max_pool2d` of volumes `[N, C, D, H, W]`; `_random_samples` `[N, C, 3]`."""
    both = _checked(3, input, kernel_size, output_size, output_ratio, _random_samples)
    return both if return_indices else both[0]


fractional_max_pool2d_with_indices = with_indices(fractional_max_pool2d)
fractional_max_pool3d_with_indices = with_indices(fractional_max_pool3d)
