"""The gamma function's family: its logarithm, derivatives, incomplete forms and the zeta function.
"""

from __future__ import annotations

import math

import numpy as np

from facula.ops.primitive.special import erfc

__all__ = ["lgamma", "digamma", "polygamma", "zeta", "igamma", "igammac"]

_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510,
              43867 / 798, -174611 / 330, 854513 / 138, -236364091 / 2730)
_EULER = 0.57721566490153286060651209008240243
_HALF_LOG_2PI = 0.91893853320467274178032973640561764


def _riemann(k: int) -> float:
    """zeta(k) - 1 for k >= 2."""
    n = 20
    total = sum(j ** -float(k) for j in range(n - 1, 1, -1))
    tail = n ** (1.0 - k) / (k - 1) + 0.5 * n ** -float(k)
    rise = float(k)
    for j, b in enumerate(_BERNOULLI[:6], 1):
        tail += b / math.factorial(2 * j) * rise * n ** (1.0 - k - 2 * j)
        rise *= (k + 2 * j - 1) * (k + 2 * j)
    return total + tail


_AROUND_2 = [_riemann(k) / k for k in range(2, 34)]


def _near_two(z: np.ndarray) -> np.ndarray:
    """log Gamma(2 + z) for |z| <= 1/2, exact where it is 0."""
    total = np.zeros_like(z)
    for c in reversed(_AROUND_2):
        total = (c - total) * z
    return z * (1 - _EULER) + total * z


def _correction(x: np.ndarray) -> np.ndarray:
    """What Stirling's formula lacks, for x >= 8."""
    inverse = 1.0 / x
    square = inverse * inverse
    total = np.zeros_like(x)
    for k in range(8, 0, -1):
        total = total * square + _BERNOULLI[k - 1] / (2 * k * (2 * k - 1))
    return total * inverse


def _lgamma_positive(x: np.ndarray) -> np.ndarray:
    """log Gamma(x) for x > 0."""
    low, shift = x.copy(), np.ones_like(x)
    for _ in range(8):                       # Gamma(x) = Gamma(x + k) / (x (x + 1) ...)
        small = low < 8
        shift = np.where(small, shift * low, shift)
        low = np.where(small, low + 1, low)
    big = np.where(np.isfinite(low), low, 8.0)
    far = (big - 0.5) * np.log(big) - big + _HALF_LOG_2PI + _correction(big) - np.log(shift)
    far = np.where(np.isinf(low), np.inf, far)
    middle = _near_two(np.clip(x - 2, -0.5, 0.5))
    below = _near_two(np.clip(x - 1, -0.5, 0.5)) - np.log1p(np.clip(x - 1, -0.5, 0.5))
    tiny = _near_two(np.clip(x, 0, 0.5)) - np.log1p(np.clip(x, 0, 0.5)) - np.log(
        np.where(x > 0, x, 1.0))
    return np.where(x > 2.5, far, np.where(x >= 1.5, middle, np.where(x >= 0.5, below, tiny)))


def _sin_pi(x: np.ndarray) -> np.ndarray:
    """sin(pi x), exact at integers."""
    r = x - 2 * np.round(x / 2)              # in [-1, 1]
    r = np.where(np.abs(r) > 0.5, np.copysign(1.0, r) - r, r)
    return np.sin(np.pi * r)


def lgamma(x: np.ndarray) -> np.ndarray:
    """log |Gamma(x)|; infinite at 0, -1, -2, ..."""
    positive = x > 0
    mirrored = _lgamma_positive(np.where(positive | np.isnan(x), 1.0, 1 - x))
    s = np.abs(_sin_pi(np.where(np.isfinite(x), x, 0.0)))
    reflected = np.where(s == 0, np.inf, np.log(np.pi / np.where(s == 0, 1, s)) - mirrored)
    tiny = np.abs(x) < 1e-17                 # where 1 - x is 1
    reflected = np.where(tiny, -np.log(np.where(x == 0, 1, np.abs(x))), reflected)
    reflected = np.where((x == 0) | np.isinf(x), np.inf, reflected)
    out = np.where(positive, _lgamma_positive(np.where(positive, x, 1.0)), reflected)
    return np.where(np.isnan(x), x, out)


def digamma(x: np.ndarray) -> np.ndarray:
    """The derivative of log Gamma; NaN at -1, -2, ..., and infinite at 0, with its sign turned."""
    below = x < 0
    y = np.where(below, 1 - x, x)
    total = np.zeros_like(y)
    for _ in range(10):
        small = y < 10
        total = total - np.where(small, 1 / np.where(small & (y != 0), y, 1.0), 0.0)
        y = np.where(small, y + 1, y)
    inverse = 1 / y
    square = inverse * inverse
    series = np.zeros_like(y)
    for k in range(8, 0, -1):
        series = (series + _BERNOULLI[k - 1] / (2 * k)) * square
    total = total + np.where(np.isinf(y), y, np.log(y) - 0.5 * inverse - series)
    whole = np.isfinite(x) & (x == np.round(x))
    part = x - np.round(np.where(np.isfinite(x), x, 0.0))
    turned = total - np.pi / np.tan(np.pi * np.where(whole | ~below, 0.25, part))
    out = np.where(below, np.where(whole, np.nan, turned), total)
    out = np.where(x == 0, np.copysign(np.inf, -x), out)
    return np.where(np.isneginf(x), np.nan, out)


def zeta(s: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Hurwitz's zeta function, the sum of (q + k)**-s, by Euler and Maclaurin's formula.

    Infinite at s = 1 and where q is 0, -1, -2, ...; NaN for s < 1, and for other q < 0 unless s
    is an integer.
    """
    s, q = np.broadcast_arrays(np.asarray(s, np.float64), np.asarray(q, np.float64))
    good = (s > 1) & np.isfinite(s) & np.isfinite(q)
    whole = q == np.floor(q)
    good &= (q > 0) | (~whole & (s == np.floor(s)))
    p, a = np.where(good, s, 2.0), np.where(good, q, 1.0)
    total = np.zeros_like(a)
    steps = np.maximum(np.ceil(10 - a), 9)
    for i in range(int(min(steps.max(initial=9), 100_000))):
        more = i < steps
        total = total + np.where(more, np.power(np.where(more, a, 1.0), -p), 0.0)
        a = np.where(more, a + 1, a)
    power = np.power(a, -p)
    total = total + a * power / (p - 1) + 0.5 * power
    rise = p
    for j, b in enumerate(_BERNOULLI, 1):
        term = b / math.factorial(2 * j) * rise * power * a ** (1.0 - 2 * j)
        total = total + np.where(np.isfinite(term), term, 0.0)
        rise = rise * (p + 2 * j - 1) * (p + 2 * j)
    total = np.where(good, total, np.nan)
    total = np.where((s > 1) & (q <= 0) & whole & np.isfinite(q), np.inf, total)
    total = np.where(np.isposinf(q) & (s > 1), 0.0, total)
    return np.where(s == 1, np.inf, total)


def polygamma(n: int, x: np.ndarray) -> np.ndarray:
    """The n-th derivative of digamma."""
    if n == 0:
        return digamma(x)
    if n == 1:
        below = x < 0.5
        up = zeta(np.asarray(2.0), np.where(below, 1 - x, x))
        s = _sin_pi(np.where(np.isfinite(x), x, 0.0))
        turned = np.square(np.pi / np.where(s == 0, 1, s)) - up
        return np.where(below, np.where(s == 0, np.inf, turned), up)
    with np.errstate(all="ignore"):
        scale = math.gamma(n + 1) if n < 171 else math.inf
        return (-1.0) ** (n + 1) * scale * zeta(np.asarray(n + 1.0), x)


# ---------------------------------------------------------------- incomplete gamma functions

def _prefactor(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """x**a exp(-x) / Gamma(a)."""
    big = a >= 10
    g = np.where(big, a, 10.0)
    mu = (x - g) / g
    far = np.exp(g * (np.log1p(np.maximum(mu, -1 + 1e-300)) - mu) - _correction(g)) * np.sqrt(
        g / (2 * np.pi))
    near = np.exp(a * np.log(x) - x - lgamma(a))
    return np.where(big, far, near)


def _series(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """P(a, x) / prefactor for x below a + 1."""
    term = 1 / a
    total = term.copy()
    for k in range(1, 5000):
        term = term * x / (a + k)
        total = total + term
        if np.all(np.abs(term) <= 1e-17 * np.abs(total)):
            break
    return total


def _fraction(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Q(a, x) / prefactor for x above a + 1, by Lentz's evaluation of the continued fraction."""
    tiny = 1e-300
    b = x + 1 - a
    c = np.full_like(x, 1 / tiny)
    d = 1 / np.where(b == 0, tiny, b)
    h = d
    for k in range(1, 5000):
        an = -k * (k - a)
        b = b + 2
        d = an * d + b
        d = 1 / np.where(np.abs(d) < tiny, tiny, d)
        c = b + an / c
        c = np.where(np.abs(c) < tiny, tiny, c)
        step = d * c
        h = h * step
        if np.all(np.abs(step - 1) <= 1e-16):
            break
    return h


def _small(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Q(a, x) for x <= 1.1, without subtracting P from 1."""
    term, total = np.ones_like(x), np.zeros_like(x)
    for k in range(1, 40):
        term = term * -x / k
        total = total + term / (a + k)
    return -np.expm1(a * np.log(x) - lgamma(a + 1)) - total * np.exp(a * np.log(x) - lgamma(a))


_UNIFORM = 1e5


def _uniform(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Q(a, x) for large a: N. M. Temme, "The asymptotic expansion of the incomplete gamma
    functions" (1979), its first terms."""
    mu = (x - a) / a
    small = np.abs(mu) < 0.05
    v = np.where(small, mu, 0.0)
    series = np.zeros_like(v)                # mu - log(1 + mu) over mu^2
    for k in range(14, 1, -1):
        series = series * v + (-1.0) ** k / k
    half = np.where(small, v * v * series, mu - np.log1p(np.maximum(mu, -1 + 1e-300)))
    eta = np.copysign(np.sqrt(2 * half), mu)
    close = np.abs(mu) < 1e-3
    first = np.where(close, -1 / 3 + eta / 12 - eta * eta * 2 / 135,
                     1 / np.where(close, 1, mu) - 1 / np.where(close, 1, eta))
    return 0.5 * erfc(eta * np.sqrt(a / 2)) + np.exp(-a * half) / np.sqrt(2 * np.pi * a) * first


def _both(a: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(P, Q), each where it is the smaller one without cancellation."""
    a, x = np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(x, np.float64))
    p, q = np.full(x.shape, np.nan), np.full(x.shape, np.nan)
    common = (a > 0) & (x > 0) & np.isfinite(a) & np.isfinite(x)
    large = common & (a > _UNIFORM)
    tiny = common & ~large & (x <= 1.1) & (x * 1.1 >= a)
    below = common & ~large & ~tiny & (x < a + 1)
    above = common & ~large & ~tiny & ~below
    if below.any():
        p[below] = _prefactor(a[below], x[below]) * _series(a[below], x[below])
        q[below] = 1 - p[below]
    for where, fn in ((tiny, _small), (large, _uniform),
                      (above, lambda a, x: _prefactor(a, x) * _fraction(a, x))):
        if where.any():
            q[where] = fn(a[where], x[where])
            p[where] = 1 - q[where]
    known = (a >= 0) & (x >= 0)
    for where, value in ((known & (x == 0) & (a > 0), 0.0), (known & (a == 0) & (x > 0), 1.0),
                         (known & np.isinf(a) & np.isfinite(x), 0.0),
                         (known & np.isinf(x) & np.isfinite(a), 1.0)):
        p[where], q[where] = value, 1 - value
    return p, q


def igamma(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The regularised lower incomplete gamma function."""
    return _both(a, x)[0]


def igammac(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The regularised upper incomplete gamma function."""
    return _both(a, x)[1]
