"""Bessel functions of orders 0 and 1, modified ones, and Airy's."""

from __future__ import annotations

import functools

import numpy as np

__all__ = ["bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "i0", "i0e", "i1", "i1e", "k0",
           "k0e", "k1", "k1e", "airy_ai"]

_EULER = 0.57721566490153286060651209008240243
_NEAR, _FAR = 2.0, 25.0


# ---------------------------------------------------------------- of the first and second kind

def _series(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """(J0, J1, Y0, Y1) for 0 < x <= 2, in powers of x."""
    z = -x * x / 4
    j0, j1, y0, y1 = (np.zeros_like(x) for _ in range(4))
    term, harmonic = np.ones_like(x), 0.0           # z^k / k!^2
    for k in range(20):
        if k:
            term = term * z / (k * k)
            harmonic += 1 / k
        j0 = j0 + term
        j1 = j1 + term / (k + 1)
        y0 = y0 - term * harmonic
        y1 = y1 + term / (k + 1) * (2 * harmonic + 1 / (k + 1) - 2 * _EULER)
    j1, y1 = j1 * x / 2, y1 * x / 2
    log = np.log(x / 2)
    return (j0, j1, 2 / np.pi * ((log + _EULER) * j0 + y0),
            2 / np.pi * (log * j1 - 1 / x) - y1 / np.pi)


def _recurrence(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """(J0, J1, Y0, Y1) for 2 <= x <= 25: J. C. P. Miller's recurrence, and Neumann's series."""
    last, here = np.zeros_like(x), np.full_like(x, 1e-150)
    norm, even, odd = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    n = 90
    for k in range(n, -1, -1):                      # here is proportional to J_k
        if k % 2 == 0:
            norm = norm + (here if k == 0 else 2 * here)
            if k:
                even = even + (-1) ** (k // 2) * here / (k // 2)
        elif k > 1:
            h = k // 2
            odd = odd + (-1) ** h * k / (h * (h + 1)) * here
        if k == 0:
            break
        last, here = here, 2 * k / x * here - last
    j0, j1, even, odd = here / norm, last / norm, even / norm, odd / norm
    log = np.log(x / 2) + _EULER
    return (j0, j1, 2 / np.pi * (log * j0 - 2 * even),
            2 / np.pi * ((log - 1) * j1 - j0 / x - odd))


def _hankel(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """(J0, J1, Y0, Y1) for x >= 25, by Hankel's expansions."""
    s, c = np.sin(x), np.cos(x)
    out = []
    for order in (0, 1):
        p, q, term = np.zeros_like(x), np.zeros_like(x), np.ones_like(x)
        for k in range(24):
            sign = 1 if k % 4 < 2 else -1
            if k % 2 == 0:
                p = p + sign * term
            else:
                q = q + sign * term
            term = term * (4 * order - (2 * k + 1) ** 2) / ((k + 1) * 8 * x)
        cos, sin = (c + s, s - c) if order == 0 else (s - c, -s - c)
        scale = 1 / np.sqrt(np.pi * x)
        out.append((scale * (p * cos - q * sin), scale * (p * sin + q * cos)))
    return out[0][0], out[1][0], out[0][1], out[1][1]


def _which(x: np.ndarray, number: int) -> np.ndarray:
    """One of the four, for x > 0."""
    x = np.asarray(x, np.float64)
    out = np.full(x.shape, np.nan)
    for where, fn in ((x <= _NEAR, _series), ((x > _NEAR) & (x <= _FAR), _recurrence),
                      ((x > _FAR) & np.isfinite(x), _hankel)):
        where = where & (x > 0)
        if where.any():
            out[where] = fn(x[where])[number]
    out[np.isposinf(x)] = 0.0
    return out


def bessel_j0(x: np.ndarray) -> np.ndarray:
    """J_0."""
    return np.where(x == 0, 1.0, _which(np.abs(x), 0))


def bessel_j1(x: np.ndarray) -> np.ndarray:
    """J_1."""
    return np.where(x == 0, 0.0, np.sign(x) * _which(np.abs(x), 1))


def bessel_y0(x: np.ndarray) -> np.ndarray:
    """Y_0; -inf at 0, NaN below."""
    return np.where(x == 0, -np.inf, _which(x, 2))


def bessel_y1(x: np.ndarray) -> np.ndarray:
    """Y_1; -inf at 0, NaN below."""
    return np.where(x == 0, -np.inf, _which(x, 3))


# ---------------------------------------------------------------- modified, first kind

def _scaled_i(x: np.ndarray, order: int) -> np.ndarray:
    """exp(-|x|) I(|x|)."""
    x = np.abs(x)
    low = np.minimum(x, 20.0)
    z, term = low * low / 4, np.ones_like(low)
    if order:
        term = low / 2
    total = term.copy()
    for k in range(1, 60):
        term = term * z / (k * (k + order))
        total = total + term
    near = total * np.exp(-low)
    high = np.maximum(x, 20.0)
    term, far = np.ones_like(high), np.ones_like(high)
    for k in range(30):
        term = term * ((2 * k + 1) ** 2 - 4 * order) / ((k + 1) * 8 * high)
        far = far + term
    far = far / np.sqrt(2 * np.pi * high)
    return np.where(np.isnan(x), x, np.where(x <= 20, near, far))


def _grown(scaled: np.ndarray, x: np.ndarray) -> np.ndarray:
    half = np.exp(np.abs(x) / 2)                    # exp(x) may overflow where the product does not
    return np.where(np.isinf(x), np.inf, scaled * half * half)


def i0e(x: np.ndarray) -> np.ndarray:
    """exp(-|x|) I_0(x)."""
    return _scaled_i(x, 0)


def i0(x: np.ndarray) -> np.ndarray:
    """I_0."""
    return _grown(_scaled_i(x, 0), x)


def i1e(x: np.ndarray) -> np.ndarray:
    """exp(-|x|) I_1(x)."""
    return np.copysign(_scaled_i(x, 1), x)


def i1(x: np.ndarray) -> np.ndarray:
    """I_1."""
    return np.copysign(_grown(_scaled_i(x, 1), x), x)


# ---------------------------------------------------------------- modified, second kind

def _scaled_k(x: np.ndarray, order: float) -> np.ndarray:
    """exp(x) K(x) for x > 1/2: the integral of exp(-x (cosh t - 1)) cosh(order t)."""
    end = 2 * np.arcsinh(np.sqrt(22.5 / x))
    steps = 64
    h = end / steps
    total = np.full_like(x, 0.5)
    for k in range(1, steps + 1):
        t = k * h
        total = total + np.exp(-2 * x * np.square(np.sinh(t / 2))) * np.cosh(order * t)
    return total * h


def _k_series(x: np.ndarray, order: int) -> np.ndarray:
    """K_0 or K_1 for 0 < x <= 2."""
    z, term = x * x / 4, np.ones_like(x)
    i, extra, harmonic = np.zeros_like(x), np.zeros_like(x), 0.0
    for k in range(20):
        if k:
            term = term * z / (k * k)
            harmonic += 1 / k
        if order:
            i = i + term / (k + 1)
            extra = extra + term / (k + 1) * (2 * harmonic + 1 / (k + 1) - 2 * _EULER)
        else:
            i = i + term
            extra = extra + term * harmonic
    log = np.log(x / 2)
    if order:
        return 1 / x + x / 2 * (log * i - extra / 2)
    return -(log + _EULER) * i + extra


def _k(x: np.ndarray, order: int, scaled: bool) -> np.ndarray:
    low = (x > 0) & (x <= 2)
    high = x > 2
    near = _k_series(np.where(low, x, 1.0), order)
    far = _scaled_k(np.where(high & np.isfinite(x), x, 3.0), order)
    if scaled:
        near = near * np.exp(np.where(low, x, 0.0))
    else:
        far = far * np.exp(-np.where(high, x, 0.0))
    out = np.where(low, near, np.where(high, far, np.nan))
    return np.where(x == 0, np.inf, np.where(np.isposinf(x), 0.0, out))


def k0(x: np.ndarray) -> np.ndarray:
    """K_0; infinite at 0, NaN below."""
    return _k(x, 0, False)


def k0e(x: np.ndarray) -> np.ndarray:
    """exp(x) K_0(x)."""
    return _k(x, 0, True)


def k1(x: np.ndarray) -> np.ndarray:
    """K_1; infinite at 0, NaN below."""
    return _k(x, 1, False)


def k1e(x: np.ndarray) -> np.ndarray:
    """exp(x) K_1(x)."""
    return _k(x, 1, True)


# ---------------------------------------------------------------- Airy's function

_STEP = 0.5
_LOWEST = -12.0


@functools.cache
def _nodes() -> tuple[np.ndarray, np.ndarray]:
    """Ai and its derivative at -12, -11.5, ..., 1, by Taylor series of y'' = x y from 0."""
    value, slope = np.longdouble("0.355028053887817239260063186"), np.longdouble(
        "-0.258819403792806798405183560")
    known = {0: (value, slope)}
    for direction, count in ((-1, int(-_LOWEST / _STEP)), (1, int(1 / _STEP))):
        y, dy = value, slope
        for k in range(count):
            y, dy = _taylor(np.longdouble(direction * k * _STEP), y, dy,
                            np.longdouble(direction * _STEP))
            known[direction * (k + 1)] = (y, dy)
    order = sorted(known)
    return (np.array([known[k][0] for k in order], np.float64),
            np.array([known[k][1] for k in order], np.float64))


def _taylor(c, y, dy, t):                           # type: ignore[no-untyped-def]
    """The solution of y'' = x y with this value and slope at c, and its slope, at c + t."""
    before, a, b = 0 * y, y, dy                     # coefficients n - 1, n, n + 1
    total, slope, power = y + dy * t, dy + 0 * t, t
    for n in range(40):
        new = (c * a + before) / ((n + 1) * (n + 2))
        before, a, b = a, b, new
        slope = slope + (n + 2) * new * power
        power = power * t
        total = total + new * power
    return total, slope


def _oscillating(z: np.ndarray) -> np.ndarray:
    """Ai(-z) for z >= 12."""
    zeta = 2 / 3 * z * np.sqrt(z)
    p, q, term = np.zeros_like(z), np.zeros_like(z), np.ones_like(z)
    for k in range(20):
        sign = 1 if k % 4 < 2 else -1
        if k % 2 == 0:
            p = p + sign * term
        else:
            q = q + sign * term
        n = k + 1
        term = term * (6 * n - 5) * (6 * n - 3) * (6 * n - 1) / (216 * n * (2 * n - 1)) / zeta
    s, c = np.sin(zeta), np.cos(zeta)
    return ((c + s) * p + (s - c) * q) / np.sqrt(2 * np.pi) / np.sqrt(np.sqrt(z))


def airy_ai(x: np.ndarray) -> np.ndarray:
    """Airy's function Ai; NaN at infinity, as PyTorch has it."""
    x = np.asarray(x, np.float64)
    out = np.full(x.shape, np.nan)
    high = (x >= 1) & np.isfinite(x)
    middle = (x < 1) & (x > _LOWEST)
    low = (x <= _LOWEST) & np.isfinite(x)
    if high.any():
        v = x[high]
        zeta = 2 / 3 * v * np.sqrt(v)
        out[high] = np.sqrt(v / 3) / np.pi * _scaled_k(zeta, 1 / 3) * np.exp(-zeta)
    if middle.any():
        v = x[middle]
        at = np.round(v / _STEP)
        values, slopes = _nodes()
        index = (at - _LOWEST / _STEP).astype(np.int64)
        out[middle] = _taylor(at * _STEP, values[index], slopes[index], v - at * _STEP)[0]
    if low.any():
        out[low] = _oscillating(-x[low])
    return out
