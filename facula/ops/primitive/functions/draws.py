"""Numbers of distributions that are drawn by rejection, each from a seed of its own.

Attempt k of an element reads block seed + k of a Philox stream, whose key is apart from those
that users choose: what an element gets depends on its own seed and parameters alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from facula.ops.primitive.creation import philox4x32
from facula.ops.primitive.functions.gamma import digamma, lgamma

__all__ = ["draw_gamma", "draw_poisson", "draw_binomial", "draw_von_mises", "gamma_slope"]

_KEY = 0xB5297A4D68E31DA4
_ATTEMPTS = 10_000
"""More than anybody meets: every sampler here accepts more than half of its attempts."""

Array = np.ndarray
# The elements that are left and three uniform numbers for each: candidates, and which are good.
Attempt = Callable[[Array, Array, Array, Array], tuple[Array, Array]]


def _three(seed: Array, k: int) -> tuple[Array, Array, Array]:
    """Three numbers in (0, 1), of 42 bits, for each seed: all of a block of 128 bits but two."""
    with np.errstate(over="ignore"):
        words = philox4x32(seed + np.uint64(k), _KEY).astype(np.uint64)
    rest = words[:, 3]
    found = [((words[:, j] << np.uint64(10)) | ((rest >> np.uint64(10 * j)) & np.uint64(1023)))
             for j in range(3)]
    a, b, c = ((f.astype(np.float64) + 0.5) * 2.0 ** -42 for f in found)
    return a, b, c


def _accepted(seed: Array, attempt: Attempt) -> Array:
    """The first candidate that is good for each seed."""
    out = np.full(seed.shape, np.nan)
    left = np.arange(seed.size)
    for k in range(1, _ATTEMPTS):
        if not left.size:
            break
        value, good = attempt(left, *_three(seed[left], k))
        out[left[good]] = value[good]
        left = left[~good]
    return out


def _parted(seed: Array, shape: tuple[int, ...], cases: list[tuple[Array, float | Callable[
        [Array], Array]]]) -> Array:
    """The first case that applies to each element: a value, or a function of their indices."""
    out = np.full(seed.size, np.nan)
    free = np.ones(seed.size, bool)
    for applies, value in cases:
        here = np.flatnonzero(applies & free)
        free[here] = False
        if here.size:
            out[here] = value(here) if callable(value) else value
    return out.reshape(shape)


# ---------------------------------------------------------------- gamma

def _marsaglia(seed: Array, a: Array) -> Array:
    """Marsaglia and Tsang, "A simple method for generating gamma variables" (2000); below 1 by a
    draw for a + 1 times u**(1 / a).  The logarithm, which does not underflow for small a."""
    small = a < 1
    d = np.where(small, a + 1, a) - 1 / 3
    c = 1 / np.sqrt(9 * d)

    def attempt(left: Array, u: Array, v: Array, w: Array) -> tuple[Array, Array]:
        x = np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)
        root = 1 + c[left] * x
        fits = root > 0
        log_v = 3 * np.log(np.where(fits, root, 1.0))
        bound = 0.5 * x * x + d[left] * (log_v - np.expm1(log_v))
        return np.log(d[left]) + log_v, fits & (np.log(w) < bound)

    out = _accepted(seed, attempt)
    if small.any():
        out[small] += np.log(_three(seed[small], 0)[0]) / a[small]
    return out


def draw_gamma(seed: Array, a: Array) -> Array:
    """Logarithms of gamma numbers of shape a > 0 and rate 1."""
    s, p = seed.reshape(-1), a.reshape(-1)
    with np.errstate(all="ignore"):
        return _parted(s, a.shape, [
            (p == 0, -np.inf), (np.isposinf(p), np.inf), (p > 0, lambda i: _marsaglia(s[i], p[i]))])


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
_REACH = 40.0
"""An integral is cut where the integrand has fallen to exp(-_REACH)."""


def _below(a: Array, s: Array, psi: Array) -> Array:
    """The slope for x = exp(s) < min(a, 1): a series in x, term by term."""
    x = np.exp(s)
    total, term = np.zeros_like(a), np.ones_like(a)
    for k in range(40):
        total += term * ((s - psi) - 1 / (a + k)) / (a + k)
        term *= -x / (k + 1)
    return -total * np.exp(x)


def _integrated(a: Array, s: Array, psi: Array, upper: Array) -> Array:
    """The slope as an integral over v >= 0, the distance in log t from x = exp(s)."""
    x = np.exp(s)
    # Where the integrand has fallen far enough: Newton's method on a convex function.
    reach = _REACH / x
    v = np.where(upper, np.log1p(np.sqrt(2 * reach) + reach),
                 _REACH / a + np.sqrt((_REACH / a) ** 2 + 2 * _REACH / a))
    for _ in range(12):
        fallen = np.where(upper, x * np.expm1(v) - a * v, a * v + x * np.expm1(-v))
        slope = np.where(upper, x * np.exp(v) - a, a - x * np.exp(-v))
        v = np.where(slope > 0, v - (fallen - _REACH) / slope, v)
    t = v[:, None] * _NODES
    up, wide, x = upper[:, None], a[:, None], x[:, None]
    power = np.where(up, wide * t - x * np.expm1(t), -wide * t - x * np.expm1(-t))
    distance = (s - psi)[:, None] + np.where(up, t, -t)
    total = (np.exp(power) * distance * _WEIGHTS).sum(1) * v
    return np.where(upper, total, -total)


def gamma_slope(a: Array, s: Array) -> Array:
    """d s / d a of the logarithm s of a gamma number of shape a, its probability being held.

    Implicit differentiation (Figurnov, Mohamed and Mnih, "Implicit reparameterization
    gradients", 2018): with the distribution function P(a, x) and s = log x it is
    -(dP/da) / (dP/ds).  Both divided by the density are the integral over t of
    (log t - digamma(a)) t**a exp(-t) / (x**a exp(-x)) in log t, from 0 to x or, as the whole of
    it is 0, from x on: the side on which the integrand falls and keeps its sign.
    """
    shape = np.broadcast_shapes(a.shape, s.shape)
    a, s = (np.broadcast_to(z, shape).reshape(-1).astype(np.float64) for z in (a, s))
    out = np.full(a.shape, np.nan)
    with np.errstate(all="ignore"):
        good = (a > 0) & np.isfinite(a) & np.isfinite(s)
        psi = digamma(np.where(good, a, 1.0))
        small = good & (s < np.minimum(np.log(a), 0))
        out[small] = _below(a[small], s[small], psi[small])
        others = np.flatnonzero(good & ~small)
        for start in range(0, others.size, 1 << 14):
            i = others[start:start + (1 << 14)]
            out[i] = _integrated(a[i], s[i], psi[i], s[i] >= np.log(a[i]))
    return out.reshape(shape)


# ---------------------------------------------------------------- counts

def _counted(seed: Array, first: Array, ratio: Callable[[Array, int], Array]) -> Array:
    """Inversion: how many probabilities, the first and then each `ratio` times the one before,
    add up to at most a uniform number."""
    u = _three(seed, 0)[0]
    out = np.zeros(seed.size)
    left = np.flatnonzero(u > first)
    p, total = first[left], first[left].copy()
    k = 0
    while left.size:
        k += 1
        out[left] = k
        p = p * ratio(left, k)
        total = total + p
        # A probability that is too small to count ends the search: the rest is rounding.
        more = (u[left] > total) & (p > 1e-18)
        left, p, total = left[more], p[more], total[more]
    return out


def _many(seed: Array, rate: Array) -> Array:
    """Poisson numbers of large rates: Hörmann, "The transformed rejection method for generating
    Poisson random variables" (1993), PTRS."""
    root, log_rate = np.sqrt(rate), np.log(rate)
    b = 0.931 + 2.53 * root
    a = -0.059 + 0.02483 * b
    alpha = 1.1239 + 1.1328 / (b - 3.4)
    edge = 0.9277 - 3.6224 / (b - 2)

    def attempt(left: Array, u: Array, v: Array, _: Array) -> tuple[Array, Array]:
        u = u - 0.5
        far = 0.5 - np.abs(u)
        al, bl, r = a[left], b[left], rate[left]
        k = np.floor((2 * al / far + bl) * u + r + 0.43)
        quick = (far >= 0.07) & (v <= edge[left])
        refused = (k < 0) | ((far < 0.013) & (v > far))
        height = np.log(v * alpha[left] / (al / (far * far) + bl))
        slow = height <= k * log_rate[left] - r - lgamma(np.maximum(k, 0) + 1)
        return k, quick | (~refused & slow)
    return _accepted(seed, attempt)


def draw_poisson(seed: Array, rate: Array) -> Array:
    """Poisson numbers."""
    s, r = seed.reshape(-1), rate.reshape(-1)
    with np.errstate(all="ignore"):
        return _parted(s, rate.shape, [
            (r == 0, 0.0), (np.isposinf(r), np.inf), (r >= 10, lambda i: _many(s[i], r[i])),
            (r > 0, lambda i: _counted(s[i], np.exp(-r[i]), lambda j, k: r[i][j] / k))])


def _trials(seed: Array, n: Array, p: Array) -> Array:
    """Binomial numbers for p <= 1/2 and n p >= 10: Hörmann, "The generation of binomial random
    variates" (1993), BTRS."""
    q = 1 - p
    root = np.sqrt(n * p * q)
    b = 1.15 + 2.53 * root
    a = -0.0873 + 0.0248 * b + 0.01 * p
    centre = n * p + 0.5
    edge = 0.92 - 4.2 / b
    alpha = (2.83 + 5.1 / b) * root
    mode = np.floor((n + 1) * p)
    odds = np.log(p / q)
    height = lgamma(mode + 1) + lgamma(n - mode + 1)

    def attempt(left: Array, u: Array, v: Array, _: Array) -> tuple[Array, Array]:
        u = u - 0.5
        far = 0.5 - np.abs(u)
        al, bl, count = a[left], b[left], n[left]
        k = np.floor((2 * al / far + bl) * u + centre[left])
        inside = (k >= 0) & (k <= count)
        quick = (far >= 0.07) & (v <= edge[left])
        safe = np.where(inside, k, 0.0)
        bound = (height[left] - lgamma(safe + 1) - lgamma(count - safe + 1)
                 + (safe - mode[left]) * odds[left])
        slow = np.log(v * alpha[left] / (al / (far * far) + bl)) <= bound
        return k, inside & (quick | slow)
    return _accepted(seed, attempt)


def draw_binomial(seed: Array, n: Array, p: Array) -> Array:
    """How many of n trials succeed, each with probability p."""
    s, count, chance = seed.reshape(-1), n.reshape(-1), p.reshape(-1)
    least = np.minimum(chance, 1 - chance)                   # of the rarer outcome

    def few(i: Array) -> Array:
        odds, c = least[i] / (1 - least[i]), count[i]
        first = np.exp(c * np.log1p(-least[i]))
        return _counted(s[i], first, lambda j, k: odds[j] * (c[j] - k + 1) / k)

    with np.errstate(all="ignore"):
        valid = (count >= 0) & (chance >= 0) & (chance <= 1)
        rare = _parted(s, s.shape, [
            (~valid, np.nan), ((least == 0) | (count == 0), 0.0),
            (count * least >= 10, lambda i: _trials(s[i], count[i], least[i])),
            (valid, few)])
    return np.where(chance > 0.5, count - rare, rare).reshape(n.shape)


# ---------------------------------------------------------------- angles

def _angles(seed: Array, kappa: Array) -> Array:
    """Best and Fisher, "Efficient simulation of the von Mises distribution" (1979)."""
    tau = 1 + np.sqrt(1 + 4 * kappa * kappa)
    rho = (tau - np.sqrt(2 * tau)) / (2 * kappa)
    r = (1 + rho * rho) / (2 * rho)

    def attempt(left: Array, u: Array, v: Array, w: Array) -> tuple[Array, Array]:
        z = np.cos(np.pi * u)
        f = np.clip((1 + r[left] * z) / (r[left] + z), -1, 1)
        c = kappa[left] * (r[left] - f)
        good = (c * (2 - c) > v) | (np.log(c / v) + 1 - c >= 0)
        return np.copysign(np.arccos(f), w - 0.5), good
    return _accepted(seed, attempt)


def draw_von_mises(seed: Array, kappa: Array) -> Array:
    """Angles around 0 of concentration kappa.  Nearly uniform or nearly normal ones are drawn as
    such, where they cannot be told apart."""
    s, k = seed.reshape(-1), kappa.reshape(-1)

    def normal(i: Array) -> Array:
        u, v, _ = _three(s[i], 0)
        return np.sqrt(-2 * np.log(u) / k[i]) * np.cos(2 * np.pi * v)

    with np.errstate(all="ignore"):
        return _parted(s, kappa.shape, [
            (np.isposinf(k), 0.0), (k > 1e8, normal), (k > 1e-6, lambda i: _angles(s[i], k[i])),
            (k >= 0, lambda i: np.pi * (2 * _three(s[i], 0)[0] - 1))])
