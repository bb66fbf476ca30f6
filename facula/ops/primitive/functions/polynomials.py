"""Orthogonal polynomials of degrees that are values, by their recurrences; 0 below degree 0."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["POLYNOMIALS"]

Fn = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def _climb(x: np.ndarray, n: np.ndarray, first: np.ndarray,
           step: Callable[[int, np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Degree n from degrees 0 (1) and 1 (`first`): step(k, p_k, p_(k-1)) is p_(k+1)."""
    before, here = np.ones_like(x), first.copy()
    out = np.where(n == 0, before, np.where(n == 1, here, 0.0))
    active = n > 1
    k = 1
    while active.any():
        before, here = here, step(k, here, before)
        k += 1
        out = np.where(active & (n == k), here, out)
        active &= n > k
        lost = active & ~np.isfinite(here)
        if lost.any() and not (active & np.isfinite(here)).any():
            return np.where(lost, here, out)
    return out


def _chebyshev(kind: str) -> Fn:
    first = {"t": lambda x: x, "u": lambda x: 2 * x, "v": lambda x: 2 * x - 1,
             "w": lambda x: 2 * x + 1}[kind]

    def inside(x: np.ndarray, n: np.ndarray) -> np.ndarray:
        """By angles, for |x| < 1."""
        angle = np.arccos(x)
        if kind == "t":
            return np.cos(n * angle)
        if kind == "u":
            return np.sin((n + 1) * angle) / np.sin(angle)
        if kind == "v":
            return np.cos((n + 0.5) * angle) / np.cos(angle / 2)
        return np.sin((n + 0.5) * angle) / np.sin(angle / 2)

    def ends(x: np.ndarray, n: np.ndarray) -> np.ndarray:
        """At 1 and -1."""
        sign = np.where((x > 0) | (n % 2 == 0), 1.0, -1.0)
        if kind == "t":
            return sign
        if kind == "u":
            return sign * (n + 1)
        grows = (x < 0) if kind == "v" else (x > 0)
        return sign * np.where(grows, 2 * n + 1, 1)

    def fn(x: np.ndarray, n: np.ndarray, itemsize: int) -> np.ndarray:
        end = np.abs(x) == 1
        angular = (np.abs(x) < 1) & (n > 8)
        climbed = np.where(end | angular, 0, n)
        out = _climb(x, climbed, first(x), lambda k, p, q: 2 * x * p - q)
        out = np.where(angular, inside(np.where(angular, x, 0.5), n), out)
        out = np.where(end, ends(x, n), out)
        return np.where(n < 0, 0.0, out)
    return fn


def _shifted(kind: str) -> Fn:
    plain = _chebyshev(kind)
    return lambda x, n, itemsize: plain(2 * x - 1, n, itemsize)


def _hermite(twice: bool) -> Fn:
    """Beyond degree 512 (128 for float32) they count as undefined, as in PyTorch."""
    def fn(x: np.ndarray, n: np.ndarray, itemsize: int) -> np.ndarray:
        limit = 512 if itemsize == 8 else 128
        far = n > limit
        scale = 2.0 if twice else 1.0
        out = _climb(x, np.where(far, 0, n), scale * x,
                     lambda k, p, q: scale * (x * p - k * q))
        return np.where(far, np.nan, np.where(n < 0, 0.0, out))
    return fn


def _laguerre(x: np.ndarray, n: np.ndarray, itemsize: int) -> np.ndarray:
    out = _climb(x, np.where(x == 0, 0, n), 1 - x,
                 lambda k, p, q: ((2 * k + 1 - x) * p - k * q) / (k + 1))
    return np.where(n < 0, 0.0, out)


def _legendre(x: np.ndarray, n: np.ndarray, itemsize: int) -> np.ndarray:
    end = np.abs(x) == 1
    out = _climb(x, np.where(end, 0, n), x,
                 lambda k, p, q: ((2 * k + 1) * x * p - k * q) / (k + 1))
    out = np.where(end & (x < 0) & (n % 2 == 1), -1.0, out)
    return np.where(n < 0, 0.0, out)


POLYNOMIALS: dict[str, Fn] = {
    **{f"chebyshev_polynomial_{k}": _chebyshev(k) for k in "tuvw"},
    **{f"shifted_chebyshev_polynomial_{k}": _shifted(k) for k in "tuvw"},
    "hermite_polynomial_h": _hermite(True), "hermite_polynomial_he": _hermite(False),
    "laguerre_polynomial_l": _laguerre, "legendre_polynomial_p": _legendre}
"""fn(x, n, itemsize of the dtype wanted) for each, n being whole numbers."""
