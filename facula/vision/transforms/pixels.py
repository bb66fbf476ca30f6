"""What the transforms do, on arrays [..., height, width] (colours: [..., channels, H, W]).

Each function treats every image of a batch by itself and element by element, so that a batch
gives the same bits as its images one at a time.  For uint8, resizing and rotating follow
Pillow's fixed-point arithmetic and give Pillow's bits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np

__all__ = ["InterpolationMode", "affine", "box", "gray", "grayscale", "inverse_affine", "mode_of",
           "pad", "resize", "rotate", "rotation"]


class InterpolationMode(Enum):
    """How values between pixels are found."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


_PILLOW_NUMBERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box",
                   5: "hamming"}


def mode_of(mode: Any) -> str:
    """The name of an interpolation mode given as `InterpolationMode` or as Pillow's number."""
    if isinstance(mode, InterpolationMode):
        name = mode.value
    elif isinstance(mode, int) and mode in _PILLOW_NUMBERS:
        name = _PILLOW_NUMBERS[mode]
    else:
        raise TypeError("Argument interpolation should be a InterpolationMode or a corresponding "
                        "Pillow integer constant")
    return "nearest" if name == "nearest-exact" else name


def box(array: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """The part of that size from (top, left); what lies outside the image is 0."""
    h, w = array.shape[-2:]
    if top >= 0 and left >= 0 and top + height <= h and left + width <= w:
        return array[..., top:top + height, left:left + width]
    out = np.zeros((*array.shape[:-2], height, width), array.dtype)
    t, b = max(top, 0), min(top + height, h)
    le, r = max(left, 0), min(left + width, w)
    if t < b and le < r:
        out[..., t - top:b - top, le - left:r - left] = array[..., t:b, le:r]
    return out


def pad(array: np.ndarray, padding: tuple[int, int, int, int], fill: Any = 0,
        mode: str = "constant") -> np.ndarray:
    """Pad by (left, top, right, bottom); `fill` is a number, or one for each channel."""
    left, top, right, bottom = padding
    widths = [(0, 0)] * (array.ndim - 2) + [(top, bottom), (left, right)]
    if mode != "constant":
        return np.pad(array, widths, mode=mode)               # type: ignore[call-overload]
    h, w = array.shape[-2:]
    out = np.empty((*array.shape[:-2], h + top + bottom, w + left + right), array.dtype)
    out[...] = fill_of(fill, array)
    out[..., top:top + h, left:left + w] = array
    return out


def fill_of(fill: Any, array: np.ndarray) -> Any:
    """A fill value that broadcasts against [..., C, H, W]."""
    if fill is None:
        return np.zeros((), array.dtype)
    if isinstance(fill, (tuple, list)):
        if len(fill) == 1:
            fill = fill[0]
        elif array.ndim < 3 or len(fill) != array.shape[-3]:
            raise ValueError("The number of elements in 'fill' does not match the number of "
                             f"channels of the image ({len(fill)} != "
                             f"{array.shape[-3] if array.ndim > 2 else 1})")
    value = np.asarray(fill)
    if array.dtype.kind in "ui" and value.dtype.kind == "f":
        value = np.trunc(value)
    value = value.astype(array.dtype)
    return value.reshape(-1, 1, 1) if value.ndim else value


# ---------------------------------------------------------------- resizing

def _triangle(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    return np.where(x < 1.0, 1.0 - x, 0.0)


def _cubic(x: np.ndarray) -> np.ndarray:
    a = -0.5
    x = np.abs(x)
    inner = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, inner, np.where(x < 2.0, outer, 0.0))


def _sinc(x: np.ndarray) -> np.ndarray:
    safe = np.where(x == 0.0, 1.0, x) * math.pi
    return np.where(x == 0.0, 1.0, np.sin(safe) / safe)


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where((-3.0 <= x) & (x < 3.0), _sinc(x) * _sinc(x / 3), 0.0)


def _box(x: np.ndarray) -> np.ndarray:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def _hamming(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    safe = np.where(x == 0.0, 1.0, x) * math.pi
    value = np.where(x == 0.0, 1.0, np.sin(safe) / safe * (0.54 + 0.46 * np.cos(safe)))
    return np.where(x < 1.0, value, 0.0)


_FILTERS = {"bilinear": (_triangle, 1.0), "bicubic": (_cubic, 2.0), "lanczos": (_lanczos, 3.0),
            "box": (_box, 0.5), "hamming": (_hamming, 1.0)}
_PRECISION = 22
"""Bits after the point of Pillow's weights for 8-bit pixels."""


@functools.lru_cache(64)
def _taps(n: int, out: int, mode: str, antialias: bool) -> tuple[np.ndarray, np.ndarray]:
    """Which of n pixels make each of `out` new ones, [out, k], and their weights, [out, k]."""
    function, support = _FILTERS[mode]
    scale = n / out
    stretch = max(scale, 1.0) if antialias else 1.0
    support *= stretch
    center = (np.arange(out) + 0.5) * scale
    first = np.maximum(np.trunc(center - support + 0.5), 0).astype(np.int64)
    end = np.minimum(np.trunc(center + support + 0.5), n).astype(np.int64)
    places = first[:, None] + np.arange(max(1, int((end - first).max())))
    inside = places < end[:, None]
    weights = np.where(inside, function((places - center[:, None] + 0.5) / stretch), 0.0)
    total = np.zeros(out)
    for k in range(weights.shape[1]):
        total = total + weights[:, k]
    weights = weights / np.where(total == 0.0, 1.0, total)[:, None]
    return np.minimum(places, n - 1), weights


def _along(array: np.ndarray, axis: int, out: int, mode: str, antialias: bool) -> np.ndarray:
    n = array.shape[axis]
    if mode == "nearest":
        places = np.minimum(((np.arange(out) + 0.5) * (n / out)).astype(np.int64), n - 1)
        return np.take(array, places, axis=axis)
    places, weights = _taps(n, out, mode, antialias)
    whole = array.dtype == np.uint8
    if whole:
        weights = np.trunc(weights * (1 << _PRECISION) + np.where(weights < 0, -0.5, 0.5))
    column = (slice(None),) if axis == -1 else (slice(None), None)
    total: Any = float(1 << (_PRECISION - 1)) if whole else 0.0
    for k in range(places.shape[1]):
        total = total + np.take(array, places[:, k], axis=axis) * weights[:, k][column]
    if whole:
        return np.clip(np.floor(total / (1 << _PRECISION)), 0, 255).astype(np.uint8)
    return _back(total, array.dtype)


def _back(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """float64 results as the dtype they came of: rounded and clipped if it is whole."""
    if dtype.kind in "ui":
        limits = np.iinfo(dtype)
        return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
    return values.astype(dtype)


def resize(array: np.ndarray, height: int, width: int, mode: str = "bilinear",
           antialias: bool = True) -> np.ndarray:
    """[..., H, W] -> [..., height, width]; rows first, then columns, as Pillow does."""
    if array.shape[-1] != width:
        array = _along(array, -1, width, mode, antialias)
    if array.shape[-2] != height:
        array = _along(array, -2, height, mode, antialias)
    return array


# ---------------------------------------------------------------- rotating and the like

Matrix = tuple[float, float, float, float, float, float]


def rotation(angle: float, height: int, width: int, center: Sequence[float] | None,
             expand: bool) -> tuple[Matrix, int, int]:
    """For a turn by `angle` degrees counter-clockwise: (matrix, new height, new width).

    The matrix (a, b, c, d, e, f) takes the new image's (x, y) to the old one's
    (a x + b y + c, d x + e y + f), with the origin at the outer corner of the first pixel.
    """
    turn = -math.radians(angle % 360.0)
    a, b = round(math.cos(turn), 15), round(math.sin(turn), 15)
    cx, cy = (width / 2.0, height / 2.0) if center is None else (center[0], center[1])
    c, f = cx - a * cx - b * cy, cy + b * cx - a * cy
    if not expand:
        return (a, b, c, -b, a, f), height, width
    xs, ys = [], []
    for x, y in ((0, 0), (width, 0), (width, height), (0, height)):
        xs.append(a * x + b * y + c)
        ys.append(-b * x + a * y + f)
    new_w = math.ceil(max(xs)) - math.floor(min(xs))
    new_h = math.ceil(max(ys)) - math.floor(min(ys))
    dx, dy = -(new_w - width) / 2.0, -(new_h - height) / 2.0
    c, f = a * dx + b * dy + c, -b * dx + a * dy + f
    return (a, b, c, -b, a, f), new_h, new_w


def affine(array: np.ndarray, matrix: Matrix, height: int, width: int, mode: str = "nearest",
           fill: Any = 0) -> np.ndarray:
    """[..., H, W] -> [..., height, width], each new pixel taken from where `matrix` says.

    Outside the image there is `fill`.  Modes: nearest, bilinear.
    """
    h, w = array.shape[-2:]
    a, b, c, d, e, f = matrix
    outside = fill_of(fill, array)
    if not h or not w or not height or not width:
        return np.broadcast_to(outside, (*array.shape[:-2], height, width)).copy()
    ys, xs = np.arange(height)[:, None], np.arange(width)
    if mode == "nearest":
        if b == 0.0 and d == 0.0:
            x = np.broadcast_to(np.floor(a * (xs + 0.5) + c).astype(np.int64), (height, width))
            y = np.broadcast_to(np.floor(e * (ys + 0.5) + f).astype(np.int64), (height, width))
        else:
            fix = [math.floor(v * 65536.0 + 0.5)
                   for v in (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)]
            x = (fix[2] + fix[0] * xs + fix[1] * ys) >> 16
            y = (fix[5] + fix[3] * xs + fix[4] * ys) >> 16
        inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
        picked = array[..., np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)]
        return np.where(inside, picked, outside)
    if mode != "bilinear":
        raise ValueError(f"interpolation mode {mode!r} is not one of nearest, bilinear here")
    xin = a * (xs + 0.5) + b * (ys + 0.5) + c
    yin = d * (xs + 0.5) + e * (ys + 0.5) + f
    inside = (xin >= 0) & (xin < w) & (yin >= 0) & (yin < h)
    xin, yin = xin - 0.5, yin - 0.5
    x0, y0 = np.floor(xin).astype(np.int64), np.floor(yin).astype(np.int64)
    dx, dy = xin - x0, yin - y0
    left, right = np.clip(x0, 0, w - 1), np.clip(x0 + 1, 0, w - 1)
    upper, lower = np.clip(y0, 0, h - 1), np.clip(y0 + 1, 0, h - 1)
    exact = array.astype(np.float64)
    one = exact[..., upper, left]
    one += (exact[..., upper, right] - one) * dx
    two = exact[..., lower, left]
    two += (exact[..., lower, right] - two) * dx
    one += (two - one) * dy
    if array.dtype == np.uint8:                               # Pillow cuts the fraction off
        return np.where(inside, np.clip(one, 0, 255).astype(np.uint8), outside)
    return np.where(inside, _back(one, array.dtype), outside)


def gray(array: np.ndarray) -> np.ndarray:
    """[..., 3, H, W] -> [..., 1, H, W] by ITU-R 601-2 luma."""
    r, g, b = (array[..., k:k + 1, :, :] for k in range(3))
    if array.dtype == np.uint8:
        wide = r.astype(np.int64) * 19595 + g.astype(np.int64) * 38470 + b.astype(np.int64) * 7471
        return ((wide + 0x8000) >> 16).astype(np.uint8)
    return _back(0.2989 * r.astype(np.float64) + 0.587 * g + 0.114 * b, array.dtype)


def grayscale(array: np.ndarray, channels: int) -> np.ndarray:
    """[..., 1 or 3 (or 4) channels, H, W] -> [..., channels, H, W], gray."""
    n = array.shape[-3] if array.ndim > 2 else 1
    if n not in (1, 3, 4):
        raise TypeError(f"Input image tensor permitted channel values are 1 or 3, but found {n}")
    one = array if n == 1 else gray(array)
    return one if channels == 1 else np.repeat(one, channels, axis=-3)


def rotate(array: np.ndarray, angle: float, mode: str, expand: bool,
           center: Sequence[float] | None, fill: Any) -> np.ndarray:
    """[..., H, W] turned counter-clockwise; right angles move pixels whole."""
    h, w = array.shape[-2:]
    quarter, rest = divmod(angle % 360.0, 90.0)
    if center is None and rest == 0.0 and (expand or quarter in (0.0, 2.0) or h == w):
        return np.rot90(array, int(quarter), axes=(-2, -1))
    matrix, height, width = rotation(angle, h, w, center, expand)
    return affine(array, matrix, height, width, mode, fill)


def inverse_affine(angle: float, translate: Sequence[float], scale: float,
                   shear: Sequence[float], height: int, width: int,
                   center: Sequence[float] | None) -> Matrix:
    """The matrix for `affine` of: move to the centre, turn, shear, scale, move back and away.

    Forward it is T(center + translate) R(angle) Shear Scale T(-center), as torchvision has it.
    """
    cx, cy = (width * 0.5, height * 0.5) if center is None else (center[0], center[1])
    turn, sx, sy = (math.radians(v) for v in (angle, shear[0], shear[1]))
    a = math.cos(turn - sy) / math.cos(sy)
    b = -math.cos(turn - sy) * math.tan(sx) / math.cos(sy) - math.sin(turn)
    c = math.sin(turn - sy) / math.cos(sy)
    d = -math.sin(turn - sy) * math.tan(sx) / math.cos(sy) + math.cos(turn)
    m = [d / scale, -b / scale, 0.0, -c / scale, a / scale, 0.0]
    m[2] = m[0] * (-cx - translate[0]) + m[1] * (-cy - translate[1]) + cx
    m[5] = m[3] * (-cx - translate[0]) + m[4] * (-cy - translate[1]) + cy
    return m[0], m[1], m[2], m[3], m[4], m[5]
