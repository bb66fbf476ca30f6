"""The error function's family: scaled, inverse, and the normal distribution's."""

from __future__ import annotations

import numpy as np

from facula.ops.primitive.special import erf, erfc, scaled_erfc

__all__ = ["erfcx", "erfinv", "ndtri", "log_ndtr"]

_ROOT_2 = np.sqrt(2.0)
_TWO_BY_ROOT_PI = 2 / np.sqrt(np.pi)


def erfcx(x: np.ndarray) -> np.ndarray:
    """exp(x^2) erfc(x), which does not underflow."""
    size = np.abs(x)
    outer = scaled_erfc(np.maximum(size, 0.46875))
    near = np.exp(np.minimum(size, 0.5) ** 2) * erfc(np.clip(x, -0.5, 0.5))
    below = 2 * np.exp(x * x) - outer
    out = np.where(size <= 0.46875, near, np.where(x < 0, below, outer))
    return np.where(np.isnan(x), x, out).astype(np.float64)


def _erfcinv(q: np.ndarray) -> np.ndarray:
    """The y with erfc(y) = q, for 0 < q <= 1: Newton's iteration on the logarithm."""
    t = np.sqrt(-2 * np.log(q / 2))
    y = (t - (2.30753 + 0.27061 * t) / (1 + t * (0.99229 + 0.04481 * t))) / _ROOT_2
    goal = np.log(q)
    for _ in range(3):
        scaled = scaled_erfc(np.maximum(y, 0.46875))
        y = y + (np.log(scaled) - y * y - goal) * scaled / _TWO_BY_ROOT_PI
    return y


def _central(x: np.ndarray) -> np.ndarray:
    """erfinv for |x| <= 1/2: Newton's iteration on erf."""
    y = x / _TWO_BY_ROOT_PI * (1 + np.pi / 12 * x * x)
    for _ in range(4):
        y = y - (erf(y) - x) * np.exp(y * y) / _TWO_BY_ROOT_PI
    return y


def erfinv(x: np.ndarray) -> np.ndarray:
    """The inverse of erf on [-1, 1]; NaN elsewhere."""
    size = np.abs(x)
    out = np.where(size == 1, np.copysign(np.inf, x), np.nan)
    near, far = size <= 0.5, (size > 0.5) & (size < 1)
    out[near] = _central(x[near])
    out[far] = np.copysign(_erfcinv(1 - size[far]), x[far])
    return out


def ndtri(p: np.ndarray) -> np.ndarray:
    """The inverse of the normal distribution function on [0, 1]; NaN elsewhere."""
    low = p < 0.5
    tail = np.where(low, p, 1 - p)
    inside = (tail > 0) & (tail < 0.25)
    far = np.where(low, -_ROOT_2, _ROOT_2) * _erfcinv(np.where(inside, 2 * tail, 0.5))
    near = _ROOT_2 * _central(np.clip(2 * p - 1, -0.5, 0.5))
    out = np.where(inside, far, near)
    out = np.where(tail == 0, np.where(low, -np.inf, np.inf), out)
    return np.where((p >= 0) & (p <= 1), out, np.nan)


def log_ndtr(x: np.ndarray) -> np.ndarray:
    """The logarithm of the normal distribution function."""
    below = x < -1
    far = np.log(erfcx(np.where(below, -x, 1.0) / _ROOT_2) / 2) - x * x / 2
    near = np.log1p(-erfc(np.where(below, 0.0, x) / _ROOT_2) / 2)
    return np.where(np.isneginf(x), -np.inf, np.where(below, far, near))
