"""Images of another size: interpolate, upsample; pixels and channels rearranged.

Each dimension is resampled by itself: an output is a weighted sum of a few inputs along it.  The
positions and weights are computed in the graph, from the index, as PyTorch computes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from facula.dtype import DType, float32, int64
from facula.errors import DTypeError
from facula.nn.functional.common import shape_of
from facula.ops.define import op
from facula.ops.promote import cast, expand_to, full_like, type_name
from facula.ops.reductions import widened
from facula.tensor import Tensor, prim

__all__ = ["interpolate", "upsample", "upsample_nearest", "upsample_bilinear", "pixel_shuffle",
           "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle"]

_NEEDS = {"linear": 3, "bilinear": 4, "bicubic": 4, "trilinear": 5}


# ---------------------------------------------------------------- along one axis

def _line(n: int, dtype: DType) -> Tensor:
    return cast(prim("iota", shape=(n,), dtype=int64), dtype)


def _number(like: Tensor, value: float) -> Tensor:
    return full_like(like, value if like.dtype.kind == "f" else int(value))


def _limited(index: Tensor, n: int) -> Tensor:
    """An index kept within 0 .. n-1."""
    index = prim("maximum", index, _number(index, 0))
    return prim("minimum", index, _number(index, n - 1))


def _scale(n: int, out: int, factor: float | None, align: bool) -> float:
    """How many inputs there are to an output."""
    if align:
        return (n - 1) / (out - 1) if out > 1 else 0.0
    return 1.0 / factor if factor is not None and factor > 0 else n / out


def _centres(n: int, out: int, factor: float | None, align: bool, dtype: DType) -> Tensor:
    """Where among the inputs each output lies."""
    at = _line(out, dtype)
    scale = _number(at, _scale(n, out, factor, align))
    if align:
        return prim("mul", at, scale)
    half = _number(at, 0.5)
    return prim("sub", prim("mul", prim("add", at, half), scale), half)


def _along(weight: Tensor, shape: Sequence[int], axis: int) -> Tensor:
    ones = tuple(shape[axis] if k == axis else 1 for k in range(len(shape)))
    return expand_to(prim("reshape", weight, shape=ones), shape)


def _taps(x: Tensor, axis: int, taps: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The sum over (index, weight) of the inputs at the index times the weight."""
    total = None
    for index, weight in taps:
        part = prim("take", x, index, attrs=(axis,))
        term = prim("mul", part, _along(cast(weight, x.dtype), shape_of(part), axis))
        total = term if total is None else prim("add", total, term)
    assert total is not None
    return total


def _repeats(n: int, out: int, factor: float | None, exact: bool) -> bool:
    """Whether the nearest elements, in float32 as they are found, are each one equally often."""
    if out % n:
        return False
    at = np.arange(out, dtype=np.float32) + np.float32(0.5 if exact else 0)
    found = np.floor(at * np.float32(_scale(n, out, factor, False)))
    return bool((np.clip(found, 0, n - 1) == np.arange(out) // (out // n)).all())


def _nearest(x: Tensor, axis: int, out: int, factor: float | None, exact: bool) -> Tensor:
    shape = shape_of(x)
    n = shape[axis]
    if n and _repeats(n, out, factor, exact):
        wide = (*shape[:axis + 1], out // n, *shape[axis + 1:])
        return prim("reshape", expand_to(prim("reshape", x, shape=(
            *shape[:axis + 1], 1, *shape[axis + 1:])), wide),
            shape=(*shape[:axis], out, *shape[axis + 1:]))
    at = _line(out, float32)
    if exact:
        at = prim("add", at, _number(at, 0.5))
    index = prim("floor", prim("mul", at, _number(at, _scale(n, out, factor, False))))
    return prim("take", x, _limited(cast(index, int64), n), attrs=(axis,))


def _linear(x: Tensor, axis: int, out: int, factor: float | None, align: bool) -> Tensor:
    n = shape_of(x)[axis]
    at = _centres(n, out, factor, align, x.dtype)
    at = prim("maximum", at, _number(at, 0.0))
    below = _limited(cast(prim("floor", at), int64), n)
    above = _limited(prim("add", below, _number(below, 1)), n)
    share = prim("sub", at, cast(below, at.dtype))
    share = prim("minimum", prim("maximum", share, _number(share, 0.0)), _number(share, 1.0))
    rest = prim("sub", _number(share, 1.0), share)
    return _taps(x, axis, ((below, rest), (above, share)))


def _cubic_weight(t: Tensor, a: float, near: bool) -> Tensor:
    """Keys' kernel at a distance t below 1 (`near`), or between 1 and 2.

    R. Keys, "Cubic convolution interpolation for digital image processing" (1981).
    """
    c = (a + 2, -(a + 3), 0.0, 1.0) if near else (a, -5 * a, 8 * a, -4 * a)
    total = _number(t, c[0])
    for k in c[1:]:
        total = prim("add", prim("mul", total, t), _number(t, k))
    return total


def cubic_weights(t: Tensor, a: float = -0.75) -> list[Tensor]:
    """The weights of the inputs at -1, 0, 1, 2 for a place t in [0, 1)."""
    one = _number(t, 1.0)
    rest = prim("sub", one, t)
    return [_cubic_weight(prim("add", t, one), a, False), _cubic_weight(t, a, True),
            _cubic_weight(rest, a, True), _cubic_weight(prim("add", rest, one), a, False)]


def _cubic(x: Tensor, axis: int, out: int, factor: float | None, align: bool) -> Tensor:
    n = shape_of(x)[axis]
    at = _centres(n, out, factor, align, x.dtype)
    below = cast(prim("floor", at), int64)
    weights = cubic_weights(prim("sub", at, prim("floor", at)))
    return _taps(x, axis, [(_limited(prim("add", below, _number(below, k - 1)), n), w)
                           for k, w in enumerate(weights)])


# ---------------------------------------------------------------- many inputs to an output

def _multiplied(x: Tensor, axis: int, weights: Tensor) -> Tensor:
    """The product with weights `[out, in]` along an axis."""
    last = x.ndim - 1
    order = [k for k in range(x.ndim) if k != axis] + [axis]
    moved = prim("permute", x, attrs=(tuple(order),)) if axis != last else x
    shape = shape_of(moved)
    rows = math.prod(shape[:-1])
    flat = prim("reshape", moved, shape=(rows, shape[-1]))
    flat = prim("matmul", flat, prim("permute", cast(weights, x.dtype), attrs=((1, 0),)))
    out = prim("reshape", flat, shape=(*shape[:-1], shape_of(weights)[0]))
    if axis == last:
        return out
    back = list(range(last))
    back.insert(axis, last)
    return prim("permute", out, attrs=(tuple(back),))


def _plane(out: int, n: int, dtype: DType) -> tuple[Tensor, Tensor]:
    """The number of the output and of the input, both `[out, n]`."""
    return (expand_to(prim("reshape", _line(out, dtype), shape=(out, 1)), (out, n)),
            expand_to(_line(n, dtype), (out, n)))


def _area(x: Tensor, axis: int, out: int) -> Tensor:
    """Means over windows that cover the inputs, as adaptive average pooling takes them."""
    n = shape_of(x)[axis]
    o, i = _plane(out, n, int64)
    size, count = _number(o, n), _number(o, out)
    first = prim("floor_divide", prim("mul", o, size), count)
    end = prim("mul", prim("add", o, _number(o, 1)), size)
    end = prim("floor_divide", prim("add", end, _number(o, out - 1)), count)
    inside = prim("logical_and", prim("ge", i, first), prim("lt", i, end))
    width = cast(prim("sub", end, first), x.dtype)
    weights = prim("div", cast(inside, x.dtype), width)
    return _multiplied(x, axis, weights)


def _antialiased(x: Tensor, axis: int, out: int, factor: float | None, align: bool, cubic: bool
                 ) -> Tensor:
    """The kernel widened to the distance of the outputs, its weights summing to 1."""
    n = shape_of(x)[axis]
    scale = _scale(n, out, factor, align)
    reach = (2.0 if cubic else 1.0) * max(scale, 1.0)
    o, i = _plane(out, n, x.dtype)
    half = _number(o, 0.5)
    centre = prim("mul", prim("add", o, half), _number(o, scale))
    low = prim("floor", prim("add", prim("sub", centre, _number(o, reach)), half))
    high = prim("floor", prim("add", prim("add", centre, _number(o, reach)), half))
    inside = prim("logical_and", prim("ge", i, low), prim("lt", i, high))
    t = prim("add", prim("sub", i, centre), half)
    t = prim("abs", prim("mul", t, _number(t, 1.0 / max(scale, 1.0))))
    one = _number(t, 1.0)
    if cubic:
        weight = prim("where", prim("lt", t, one), _cubic_weight(t, -0.5, True),
                      _cubic_weight(t, -0.5, False))
        weight = prim("where", prim("lt", t, _number(t, 2.0)), weight, _number(t, 0.0))
    else:
        weight = prim("maximum", prim("sub", one, t), _number(t, 0.0))
    weight = prim("where", inside, weight, _number(t, 0.0))
    total = prim("reshape", prim("sum", weight, attrs=((1,),)), shape=(out, 1))
    return _multiplied(x, axis, prim("div", weight, expand_to(total, (out, n))))


# ---------------------------------------------------------------- interpolate

@op(name="interpolate", samples=lambda make: [
    ((make(1, 2, 5), (7,), (None,), "nearest", False, False), {}),
    ((make(1, 2, 5), (3,), (None,), "linear", False, False), {}),
    ((make(1, 2, 4, 5), (6, 3), (None, None), "bilinear", True, False), {}),
    ((make(1, 2, 4, 5), (6, 3), (None, None), "bicubic", False, False), {}),
    ((make(1, 2, 4, 5), (2, 3), (None, None), "bilinear", False, True), {}),
    ((make(1, 2, 4, 5), (2, 7), (None, None), "area", False, False), {})])
def _interpolated(input: Tensor, size: tuple[int, ...], factors: tuple[float | None, ...],
                  mode: str, align: bool, antialias: bool) -> Tensor:
    """`input` [N, C, ...] resampled to `size`; the scale factors, where given, place it."""
    if mode in ("nearest", "nearest-exact"):
        x = input
        for k, (n, f) in enumerate(zip(size, factors)):
            x = _nearest(x, k + 2, n, f, mode == "nearest-exact")
        return x
    x = widened(input)
    for k, (n, f) in enumerate(zip(size, factors)):
        axis = k + 2
        if n == shape_of(x)[axis] and f is None:
            continue                                     # every weight is 1 or 0
        if mode == "area":
            x = _area(x, axis, n)
        elif antialias:
            x = _antialiased(x, axis, n, f, align, mode == "bicubic")
        elif mode == "bicubic":
            x = _cubic(x, axis, n, f, align)
        else:
            x = _linear(x, axis, n, f, align)
    x = cast(x, input.dtype)
    return prim("alias", x) if x is input else x


def _each(name: str, value: Any, count: int) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, list)):
        return (value,) * count
    if len(value) != count:
        raise ValueError(f"Input and {name} must have the same number of spatial dimensions, but "
                         f"got input with spatial dimensions of {count} and {name} of "
                         f"{list(value)}.")
    return tuple(value)


def interpolate(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
                antialias: bool = False) -> Tensor:
    """`input` [N, C, *] resampled to other spatial sizes, given as `size` or by `scale_factor`.

    mode                    'nearest', 'nearest-exact', 'area' in 1 to 3 spatial dimensions;
                            'linear' (1), 'bilinear', 'bicubic' (2), 'trilinear' (3)
    align_corners           the centres of the corner elements coincide, not their outer edges
    recompute_scale_factor  take the factor from the two sizes, not from the one given
    antialias               with 'bilinear' and 'bicubic': average over what lies between outputs

    ValueError where arguments do not fit each other, NotImplementedError for a mode that does
    not take this number of dimensions.
    """
    ndim = input.ndim
    if mode not in ("nearest", "nearest-exact", "area", *_NEEDS):
        raise NotImplementedError(f"Input Error: Only 3D, 4D and 5D input Tensors supported (got "
                                  f"{ndim}D) for the modes: nearest | linear | bilinear | bicubic "
                                  f"| trilinear | area | nearest-exact (got {mode})")
    if mode in ("nearest", "nearest-exact", "area") and align_corners is not None:
        raise ValueError("align_corners option can only be set with the interpolating modes: "
                         "linear | bilinear | bicubic | trilinear")
    count = ndim - 2
    if size is not None and scale_factor is not None:
        raise ValueError("only one of size or scale_factor should be defined")
    if size is None and scale_factor is None:
        raise ValueError("either size or scale_factor should be defined")
    if ndim not in (3, 4, 5):
        raise NotImplementedError("Input Error: Only 3D, 4D and 5D input Tensors supported (got "
                                  f"{ndim}D) for the modes: nearest | linear | bilinear | bicubic "
                                  f"| trilinear | area | nearest-exact (got {mode})")
    if mode in _NEEDS and _NEEDS[mode] != ndim:
        raise NotImplementedError(f"Got {ndim}D input, but {mode} mode needs {_NEEDS[mode]}D "
                                  "input")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ValueError("Anti-alias option is restricted to bilinear and bicubic modes and "
                         "requires a 4-D tensor as input")
    spatial = shape_of(input)[2:]
    factors: tuple[float | None, ...] = (None,) * count
    if size is not None:
        if recompute_scale_factor:
            raise ValueError("recompute_scale_factor is not meaningful with an explicit size.")
        out = tuple(int(v) for v in _each("output size", size, count))
    else:
        given = _each("scale_factor", scale_factor, count)
        out = tuple(math.floor(n * float(f)) for n, f in zip(spatial, given))
        if not recompute_scale_factor:
            factors = tuple(float(f) for f in given)
    if any(n <= 0 for n in out) or any(n == 0 for n in shape_of(input)[1:]):
        raise RuntimeError(f"Input and output sizes should be greater than 0, but got input "
                           f"{list(spatial)} output {list(out)}")
    kind = input.dtype.kind
    if kind != "f" and not (mode.startswith("nearest") and input.dtype.name == "uint8"):
        raise DTypeError(f'"upsample_{mode}" not implemented for \'{type_name(input.dtype)}\'')
    return _interpolated(input, out, factors, mode, bool(align_corners), antialias)  # type: ignore


def upsample(input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
             align_corners: bool | None = None) -> Tensor:
    """`interpolate`, under its old name."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode 'nearest'."""
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate` with mode 'bilinear' and align_corners."""
    return interpolate(input, size, scale_factor, "bilinear", True)


# ---------------------------------------------------------------- rearranging

def _image(name: str, input: Tensor, least: int) -> tuple[int, ...]:
    if input.ndim < least:
        raise RuntimeError(f"{name} expects input to have at least {least} dimensions, but got "
                           f"input with {input.ndim} dimension(s)")
    return shape_of(input)


@op(samples=lambda make: [((make(1, 8, 2, 3), 2), {}), ((make(9, 2, 2), 3), {})])
def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(*, C * r**2, H, W) as (*, C, H * r, W * r): every r**2 channels become a square.

    Shi et al., "Real-time single image and video super-resolution" (2016).
    """
    shape = _image("pixel_shuffle", input, 3)
    r = upscale_factor
    if r <= 0:
        raise RuntimeError("pixel_shuffle expects a positive upscale_factor, but got "
                           f"{r}")
    *lead, c, h, w = shape
    if c % (r * r):
        raise RuntimeError("pixel_shuffle expects its input's 'channel' dimension to be divisible "
                           f"by the square of upscale_factor, but input.size(-3)={c} is not "
                           f"divisible by {r * r}")
    n = len(lead)
    x = prim("reshape", input, shape=(*lead, c // (r * r), r, r, h, w))
    x = prim("permute", x, attrs=((*range(n), n, n + 3, n + 1, n + 4, n + 2),))
    return prim("reshape", x, shape=(*lead, c // (r * r), h * r, w * r))


@op(samples=lambda make: [((make(1, 2, 4, 6), 2), {}), ((make(1, 3, 3), 3), {})])
def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(*, C, H * r, W * r) as (*, C * r**2, H, W), the inverse of `pixel_shuffle`."""
    shape = _image("pixel_unshuffle", input, 3)
    r = downscale_factor
    if r <= 0:
        raise RuntimeError("pixel_unshuffle expects a positive downscale_factor, but got "
                           f"{r}")
    *lead, c, h, w = shape
    for what, n in (("height", h), ("width", w)):
        if n % r:
            raise RuntimeError(f"pixel_unshuffle expects {what} to be divisible by "
                               f"downscale_factor, but input.size({-2 if what == 'height' else -1}"
                               f")={n} is not divisible by {r}")
    n = len(lead)
    x = prim("reshape", input, shape=(*lead, c, h // r, r, w // r, r))
    x = prim("permute", x, attrs=((*range(n), n, n + 2, n + 4, n + 1, n + 3),))
    return prim("reshape", x, shape=(*lead, c * r * r, h // r, w // r))


@op(samples=lambda make: [((make(1, 4, 2, 2), 2), {}), ((make(2, 6, 3), 3), {})])
def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """(N, C, *) with the channels of `groups` groups interleaved.

    Zhang et al., "ShuffleNet" (2018).
    """
    if input.ndim <= 2:
        raise RuntimeError("channel_shuffle expects input with > 2 dims, but got input with sizes "
                           f"{list(input.shape)}")
    n, c, *rest = shape_of(input)
    if groups <= 0:
        raise RuntimeError("Number of groups to divide channels in must be positive. Value of "
                           f"groups:{groups}")
    if c % groups:
        raise RuntimeError(f"Number of channels must be divisible by groups. Got {c} channels and "
                           f"{groups} groups.")
    x = prim("reshape", input, shape=(n, groups, c // groups, *rest))
    x = prim("permute", x, attrs=((0, 2, 1, *range(3, x.ndim)),))
    return prim("reshape", x, shape=(n, c, *rest))


native_channel_shuffle = channel_shuffle
