"""log and what is made of it: log2, log10, log1p, asinh, acosh, atanh.

x = 2^k m with m in [sqrt(1/2), sqrt(2)), f = m - 1.  In double log(1 + f) = f - f^2/2 +
s (f^2/2 + R(s^2)) with s = f / (2 + f) (the scheme of FDLIBM); in float a polynomial in f saves
the division.
"""

from __future__ import annotations

from math import inf, nan

from facula.codegen.elements.mathlib import coefficients as c
from facula.codegen.elements.mathlib.exponential import LN2
from facula.codegen.elements.mathlib.values import BIAS, FRACTION, Val, exact_sub, poly, select

__all__ = ["log", "log2", "log10", "log1p", "asinh", "acosh", "atanh", "split"]

_SQRT_HALF = {"double": 0x3FE6A09E00000000, "float": 0x3F3504F3}
_SMALLEST = {"double": 2.0 ** -1022, "float": 2.0 ** -126}

# 1/ln 2, 1/ln 10 and log10(2) in two parts each, the first short enough for exact products
_INV_LN2 = {"double": (float.fromhex("0x1.715476540p+0"), -float.fromhex("0x1.47d01e8882fp-32")),
            "float": (float.fromhex("0x1.716p+0"), -float.fromhex("0x1.7135a8p-13"))}
_INV_LN10 = {"double": (float.fromhex("0x1.bcb7b154p-2"), -float.fromhex("0x1.91af1cd59548bp-34")),
             "float": (float.fromhex("0x1.bccp-2"), -float.fromhex("0x1.09d5b2p-15"))}
_LOG10_2 = {"double": (float.fromhex("0x1.34413509f8p-2"), -float.fromhex("0x1.80433b83b532ap-44")),
            "float": (float.fromhex("0x1.344p-2"), float.fromhex("0x1.3509f8p-18"))}


def split(x: Val, normal: bool = False) -> tuple[Val, Val]:
    """(m, k) with x = 2^k m, m in [sqrt(1/2), sqrt(2)) and k a floating value.

    x > 0, denormal unless said to be `normal`; what comes out for other values means nothing.
    """
    t, fraction = x.t, FRACTION[x.t]
    bias = x.literal(2.0 ** fraction + BIAS[t])
    if not normal:
        small = x.lt(_SMALLEST[t])
        lift = fraction + 2
        x = select(small, x * 2.0 ** lift, x)
        bias = select(small, x.literal(2.0 ** fraction + BIAS[t] + lift), bias)
    bits = x.bits()
    one = BIAS[t] << fraction
    moved = bits + (one - _SQRT_HALF[t])
    # the biased exponent becomes a floating value by way of the bits of 2^fraction + exponent
    whole = ((moved >> fraction) | ((BIAS[t] + fraction) << fraction)).as_float()
    k = exact_sub(whole, bias)
    m = ((moved & ((1 << fraction) - 1)) + _SQRT_HALF[t]).as_float()
    return m, k


def _parts(f: Val) -> tuple[Val, Val]:
    """f^2/2 and T with log(1 + f) = f - (f^2/2 - T)."""
    half = f * f * 0.5
    if f.t == "float":
        return half, f * f * f * poly(f, c.LOG_32)
    s = f / (f + 2.0)
    z = s * s
    return half, s * (half + z * poly(z, c.LOG_64))


def _edges(x: Val, value: Val) -> Val:
    """The values of a logarithm at 0, below it, at infinity and NaN."""
    value = select(x.lt(inf), value, x)                   # infinity, NaN
    value = select(x.lt(0.0), x.literal(nan), value)
    return select(x.eq(0.0), x.literal(-inf), value)


def log(x: Val) -> Val:
    m, k = split(x)
    f = m - 1.0
    half, tail = _parts(f)
    high, low = LN2[x.t]
    return _edges(x, k * high + (f - (half - (tail + k * low))))


def _high_low(f: Val) -> tuple[Val, Val]:
    """log(1 + f) in two parts, the first with its low half zero."""
    half, tail = _parts(f)
    high = ((f - half).bits() & -(1 << (32 if f.t == "double" else 12))).as_float()
    return high, exact_sub(f, high) - half + tail


def log2(x: Val) -> Val:
    m, k = split(x)
    high, low = _high_low(m - 1.0)
    a, b = _INV_LN2[x.t]
    top = high * a
    rest = (low + high) * b + low * a
    total = exact_sub(k, -top)
    return _edges(x, total + (exact_sub(k, total) + top + rest))


def log10(x: Val) -> Val:
    m, k = split(x)
    high, low = _high_low(m - 1.0)
    a, b = _INV_LN10[x.t]
    top = high * a
    scaled = k * _LOG10_2[x.t][0]
    rest = k * _LOG10_2[x.t][1] + ((low + high) * b + low * a)
    total = exact_sub(scaled, -top)
    return _edges(x, total + (exact_sub(scaled, total) + top + rest))


def log1p(x: Val) -> Val:
    """log of u = 1 + x, and c = (x - (u - 1)) / u for what the sum lost."""
    u = exact_sub(x, -1.0)
    wide = exact_sub(x.literal(1.0), exact_sub(u, x))
    lost = select(x.ge(1.0), wide, exact_sub(x, exact_sub(u, 1.0)))
    m, k = split(u)
    f = m - 1.0
    half, tail = _parts(f)
    high, low = LN2[x.t]
    value = k * high + (f - (half - (tail + (k * low + lost / u))))
    value = select(x.lt(inf), value.copysign(x), x)
    value = select(x.lt(-1.0), x.literal(nan), value)
    return select(x.eq(-1.0), x.literal(-inf), value)


_HUGE = {"double": 2.0 ** 56, "float": 2.0 ** 28}      # 1/x is nothing beside log(x)
_LN2 = 0.6931471805599453


def asinh(x: Val) -> Val:
    """log1p(x + x^2 / (1 + sqrt(1 + x^2))); log(x) + log(2) for huge x."""
    size = x.abs()
    huge = size.gt(_HUGE[x.t])
    z = size * size
    value = log1p(select(huge, size, size + z / (1.0 + (z + 1.0).sqrt())))
    return (value + select(huge, x.literal(_LN2), 0.0)).copysign(x)


def acosh(x: Val) -> Val:
    """log1p(t + sqrt(2t + t^2)) with t = x - 1; log(x) + log(2) for huge x."""
    huge = x.gt(_HUGE[x.t])
    t = x - 1.0
    value = log1p(select(huge, x, t + (t * 2.0 + t * t).sqrt()))
    value = value + select(huge, x.literal(_LN2), 0.0)
    return select(x.lt(1.0), x.literal(nan), value)


def atanh(x: Val) -> Val:
    size = x.abs()
    return (log1p(size * 2.0 / (1.0 - size)) * 0.5).copysign(x)
