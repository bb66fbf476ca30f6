"""What the pooling functions share: the windows of an input, their largest elements and sums.

Inputs here are `[M, *size]`: all that comes before the pooled dimensions is one.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facula.dtype import int32, int64
from facula.graph.spec import freeze_number
from facula.nn.functional.common import add_number, mul_number, number
from facula.ops.promote import cast, expand_to
from facula.ops.reductions import constant
from facula.tensor import Tensor, prim

__all__ = ["adaptive_places", "largest", "picked", "position", "strided_max",
           "strided_max_value", "strided_sum", "sum_along", "window_places", "windows_count",
           "with_indices"]

_MANY = 64          # larger windows are reduced one dimension after the other


def with_indices(call: Callable[..., Any]) -> Callable[..., Any]:
    """The pooling function `call` that gives places, too, whatever `return_indices` says."""
    signature = inspect.signature(call)

    @functools.wraps(call)
    def both(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        given.arguments["return_indices"] = True
        return call(*given.args, **given.kwargs)

    both.__name__ = both.__qualname__ = f"{call.__name__}_with_indices"
    both.__doc__ = f"`{call.__name__}` with the place of each element."
    return both


def windows_count(n: int, kernel: int, stride: int, padding: int, dilation: int,
                  ceil: bool) -> int:
    """How many windows there are along n elements; with `ceil`, one may end outside."""
    out = (n + 2 * padding - dilation * (kernel - 1) - 1 + (stride - 1) * ceil) // stride + 1
    return out - 1 if ceil and (out - 1) * stride >= n + padding else out


def _column(n: int) -> Tensor:
    return prim("reshape", prim("iota", shape=(n,), dtype=int64), shape=(n, 1))


def _row(n: int) -> Tensor:
    return prim("reshape", prim("iota", shape=(n,), dtype=int64), shape=(1, n))


def _sum(a: Tensor, b: Tensor, shape: tuple[int, ...]) -> Tensor:
    return prim("add", expand_to(a, shape), expand_to(b, shape))


def _up(t: Tensor, by: int) -> Tensor:
    """ceil(t / by)."""
    return prim("floor_divide", add_number(t, by - 1), number(t, by))


def window_places(n: int, out: int, kernel: int, stride: int, padding: int,
                  dilation: int) -> Tensor:
    """`[out, kernel]`: where in n elements each window lies; what is outside repeats its ends."""
    start = add_number(mul_number(_column(out), stride), -padding)
    back = prim("maximum", prim("neg", start), number(start, 0))
    first = prim("add", start, mul_number(_up(back, dilation), dilation))
    room = prim("floor_divide", add_number(prim("neg", start), n - 1), number(start, dilation))
    last = prim("add", start, mul_number(room, dilation))
    shape = (out, kernel)
    places = _sum(start, mul_number(_row(kernel), dilation), shape)
    places = prim("minimum", prim("maximum", places, expand_to(first, shape)),
                  expand_to(last, shape))
    # A window may miss every element, if its dilation is larger than the input.
    return prim("minimum", prim("maximum", places, number(places, 0)), number(places, n - 1))


def adaptive_places(n: int, out: int) -> tuple[Tensor, Tensor, Tensor]:
    """(places `[out, longest]`, which are inside, lengths `[out, 1]`) of `out` even windows."""
    longest = max(-(-(i + 1) * n // out) - i * n // out for i in range(out))
    at = _column(out)
    start = prim("floor_divide", mul_number(at, n), number(at, out))
    end = _up(mul_number(add_number(at, 1), n), out)
    shape = (out, longest)
    places = _sum(start, _row(longest), shape)
    inside = prim("lt", places, expand_to(end, shape))
    places = prim("minimum", places, expand_to(add_number(end, -1), shape))
    return places, inside, prim("sub", end, start)


def position(lines: Sequence[Tensor], size: Sequence[int]) -> Tensor:
    """The place in the flattened `size` of each combination of places along its dimensions."""
    out = tuple(line.shape[0] for line in lines)
    total = prim("full", attrs=(0,), shape=out, dtype=int64)
    for k, line in enumerate(lines):
        ones = tuple(n if a == k else 1 for a, n in enumerate(out))
        step = mul_number(prim("reshape", line, shape=ones), math.prod(size[k + 1:]))
        total = prim("add", total, expand_to(step, out))
    return total


def picked(x: Tensor, index: Tensor) -> Tensor:
    """The elements of `[M, *size]` at places `[M, *out]` of the flattened size."""
    m, *out = index.shape
    flat = prim("reshape", x, shape=(m, math.prod(x.shape[1:])))
    at = prim("reshape", index, shape=(m, math.prod(out)))
    return prim("reshape", prim("gather", flat, at, attrs=(1,)), shape=(m, *out))


def largest(x: Tensor, places: Sequence[Tensor]) -> Tensor:
    """The flat place of the first largest element (or NaN) of windows `places`, `[M, *out]`.

    The last dimension is reduced first, so that the first in row-major order is found.
    """
    m, *size = x.shape
    value = constant(x)
    line = prim("iota", shape=(math.prod(size),), dtype=int64)
    index = expand_to(prim("reshape", line, shape=(1, *size)), (m, *size))
    for axis in range(len(size), 0, -1):
        where = places[axis - 1]
        values = prim("take", value, where, attrs=(axis,))
        indices = prim("take", index, where, attrs=(axis,))
        at = prim("argmax", values, attrs=(axis + 1,))
        shape = tuple(at.shape)
        at = prim("reshape", at, shape=(*shape[:axis + 1], 1, *shape[axis + 1:]))
        value = prim("reshape", prim("gather", values, at, attrs=(axis + 1,)), shape=shape)
        index = prim("reshape", prim("gather", indices, at, attrs=(axis + 1,)), shape=shape)
    return index


def _padded(x: Tensor, out: Sequence[int], kernel: Sequence[int], stride: Sequence[int],
            padding: Sequence[int], dilation: Sequence[int], fill: float) -> Tensor:
    ends = [max(0, (o - 1) * s + d * (k - 1) + 1 - n - p) for o, s, d, k, n, p in
            zip(out, stride, dilation, kernel, x.shape[1:], padding)]
    if not any(padding) and not any(ends):
        return x
    return prim("pad", x, attrs=((0, *padding), (0, *ends), freeze_number(fill)))


def _parts(x: Tensor, out: Sequence[int], kernel: Sequence[int], stride: Sequence[int],
           dilation: Sequence[int]) -> list[tuple[tuple[int, ...], Tensor]]:
    """What each element of the kernel sees, as `[M, *out]`, in row-major order."""
    return [(tap, prim("slice", x, attrs=((0, *(t * d for t, d in zip(tap, dilation))),
                                          (1, *stride)), shape=(x.shape[0], *out)))
            for tap in itertools.product(*map(range, kernel))]


def strided_max_value(x: Tensor, out: Sequence[int], kernel: Sequence[int],
                      stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
                      ) -> Tensor | None:
    """The largest element itself of each window, the first of equal ones; None if windows are so
    large that their places are found dimension by dimension."""
    if math.prod(kernel) > _MANY:
        return None
    floating = x.dtype.kind == "f"
    least = -math.inf if floating else int(np.iinfo(x.dtype.np).min)
    best = None
    for _, part in _parts(_padded(x, out, kernel, stride, padding, dilation, least), out, kernel,
                          stride, dilation):
        if best is None:
            best = part
            continue
        better = prim("gt", part, best)
        if floating:
            better = prim("logical_or", better, prim("isnan", part))
        best = prim("where", better, part, best)
    return best


def strided_max(x: Tensor, out: Sequence[int], kernel: Sequence[int], stride: Sequence[int],
                padding: Sequence[int], dilation: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The largest element of each window, NaN being largest, and its flat place, `[M, *out]`."""
    m, *size = x.shape
    each = list(zip(size, out, kernel, stride, padding, dilation, strict=True))
    if math.prod(kernel) > _MANY or math.prod(size) >= 1 << 31:
        index = largest(x, [window_places(*one) for one in each])
        return picked(x, index), index
    shape = (m, *out)
    # How far from its window's start, in 32 bits: as many at a time as there are values.
    if any(padding):
        lines = [prim("reshape", prim("slice", p, attrs=((0, 0), (1, 1)), shape=(p.shape[0], 1)),
                      shape=(p.shape[0],)) for p in [window_places(*one) for one in each]]
        starts = [add_number(mul_number(prim("iota", shape=(o,), dtype=int64), s), -p)
                  for _, o, _, s, p, _ in each]
        first = cast(prim("sub", position(lines, size), position(starts, size)), int32)
        away = expand_to(prim("reshape", first, shape=(1, *out)), shape)
    else:
        away = prim("full", attrs=(0,), shape=shape, dtype=int32)
    floating = x.dtype.kind == "f"
    least = -math.inf if floating else int(np.iinfo(x.dtype.np).min)
    best = None
    for tap, part in _parts(_padded(x, out, kernel, stride, padding, dilation, least),
                            out, kernel, stride, dilation):
        if best is None:
            if not any(padding):
                best = part
                continue
            best = number(part, least)      # the first element may be outside
        value = constant(part)
        better = prim("gt", value, constant(best))
        if floating:
            better = prim("logical_or", better, prim("isnan", value))
        far = sum(t * d * math.prod(size[k + 1:])
                  for k, (t, d) in enumerate(zip(tap, dilation)))
        away = prim("where", better, number(away, far), away)
        best = prim("where", better, part, best)
    reach = tuple([d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)])
    index = prim("window_place", away, attrs=(tuple(size), reach, tuple(stride), tuple(padding)))
    if not floating or best is None:
        return picked(x, index), index
    # The value is there already; its gradient goes to the element that was picked, in one go.
    return prim("graft", picked(x, index), best), index


def sum_along(x: Tensor, axis: int, places: Tensor, inside: Tensor | None = None) -> Tensor:
    """Sums of the elements of `x` along `axis` at places `[out, kernel]` that are inside."""
    values = prim("take", x, places, attrs=(axis,))
    if inside is not None:
        shape = tuple(values.shape)
        ones = (*(1,) * axis, *inside.shape, *(1,) * (len(shape) - axis - 2))
        mask = expand_to(prim("reshape", inside, shape=ones), shape)
        values = prim("where", mask, values, number(values, 0))
    return prim("sum", values, attrs=((axis + 1,),))


def strided_sum(x: Tensor, out: Sequence[int], kernel: Sequence[int], stride: Sequence[int],
                padding: Sequence[int]) -> Tensor:
    """The sum of each window, zeros being outside: `[M, *out]`."""
    once = (1,) * len(kernel)
    x = _padded(x, out, kernel, stride, padding, once, 0)
    if math.prod(kernel) > _MANY:
        for axis, (o, k, s) in enumerate(zip(out, kernel, stride), 1):
            x = sum_along(x, axis, window_places(x.shape[axis], o, k, s, 0, 1))
        return x
    parts = [part for _, part in _parts(x, out, kernel, stride, once)]
    total = parts[0]
    for part in parts[1:]:
        total = prim("add", total, part)
    return total
