"""asin, acos, atan and atan2 (in double after the schemes of FDLIBM, without its branches).

asin and acos of a float are computed in double with shorter polynomials and rounded once.
"""

from __future__ import annotations

from math import inf
from struct import pack, unpack

from facula.codegen.elements.mathlib import coefficients as c
from facula.codegen.elements.mathlib.values import Val, exact_sub, poly, select

__all__ = ["asin", "acos", "atan", "atan2"]

_PIO2 = (float.fromhex("0x1.921fb54442d18p+0"), float.fromhex("0x1.1a62633145c07p-54"))
_PI = (2 * _PIO2[0], 2 * _PIO2[1])
# atan of 1/2, 1, 3/2 and infinity, each in two parts
_ATAN = tuple((float.fromhex(a), float.fromhex(b)) for a, b in (
    ("0x1.dac670561bb4fp-2", "0x1.a2b7f222f65e2p-56"),
    ("0x1.921fb54442d18p-1", "0x1.1a62633145c07p-55"),
    ("0x1.f730bd281f69bp-1", "0x1.007887af0cbbdp-56"),
    ("0x1.921fb54442d18p+0", "0x1.1a62633145c07p-54")))


def _wide(x: Val) -> tuple[Val, bool]:
    return (x, False) if x.t == "double" else (x.cast("fpext", "double"), True)


def _root(z: Val) -> tuple[Val, Val, Val]:
    """sqrt(z), and the same as a short number and its rest."""
    s = z.sqrt()
    top = (s.bits() & -(1 << 32)).as_float()
    rest = (z - top * top) / (s + top)
    return s, top, select(z.eq(0.0), z.literal(0.0), rest)


def asin(x: Val) -> Val:
    """x + x^3 P(x^2); beyond 1/2, pi/2 - 2 asin(sqrt((1 - |x|)/2))."""
    wide, short = _wide(x)
    size = wide.abs()
    inner = size.lt(0.5)
    z = select(inner, wide * wide, (1.0 - size) * 0.5)
    r = z * poly(z, c.ASIN_SHORT if short else c.ASIN_64)
    near = size + size * r
    if short:
        s = z.sqrt()
        value = select(inner, near, _PIO2[0] - 2.0 * (s + s * r))
        return value.cast("fptrunc", "float").copysign(x)
    s, top, rest = _root(z)
    low = 2.0 * s * r - (_PIO2[1] - 2.0 * rest)
    quarter = 0.5 * _PIO2[0]
    return select(inner, near, quarter - (low - (quarter - 2.0 * top))).copysign(x)


def acos(x: Val) -> Val:
    wide, short = _wide(x)
    size = wide.abs()
    inner = size.lt(0.5)
    below = wide.lt(0.0)
    z = select(inner, wide * wide, (1.0 - size) * 0.5)
    r = z * poly(z, c.ASIN_SHORT if short else c.ASIN_64)
    if short:
        s = z.sqrt()
        outer = 2.0 * (s + s * r)
        outer = select(below, _PI[0] - outer, outer)
        return select(inner, _PIO2[0] - (wide + wide * r), outer).cast("fptrunc", "float")
    s, top, rest = _root(z)
    near = _PIO2[0] - (wide - (_PIO2[1] - wide * r))
    right = 2.0 * (top + (s * r + rest))
    left = _PI[0] - 2.0 * (s + (s * r - _PIO2[1]))
    return select(inner, near, select(below, left, right))


def _angle(y: Val, x: Val) -> Val:
    """atan(y / x) for y, x >= 0 that are not both 0 or infinite: one division.

    The tangent of the difference to the nearest of 0, atan(1/2), atan(1), atan(3/2), pi/2 is at
    most 7/16.
    """
    up, down = -x, y
    high, low = _parts(y, 3)
    for bound, top, bottom, k in (
            (39 / 16, y - x * 1.5, x + y * 1.5, 2), (19 / 16, y - x, x + y, 1),
            (11 / 16, y * 2.0 - x, x * 2.0 + y, 0), (7 / 16, y, x, -1)):
        here = y.lt(x * bound)
        up, down = select(here, top, up), select(here, bottom, down)
        part, part_low = _parts(y, k)
        high, low = select(here, part, high), select(here, part_low, low)
    t = up / down
    z = t * t
    series = poly(z, c.ATAN_64 if y.t == "double" else c.ATAN_32)
    return high + (t + (low + t * z * series))


def _parts(y: Val, k: int) -> tuple[Val, Val]:
    """Number k of `_ATAN` in two numbers of the type of y; zeros for k = -1."""
    high, low = _ATAN[k] if k >= 0 else (0.0, 0.0)
    if y.t == "float":
        whole = high
        high = unpack("f", pack("f", whole))[0]
        low = whole - high
    return y.literal(high), y.literal(low)


def atan(x: Val) -> Val:
    return _angle(x.abs(), x.literal(1.0)).copysign(x)


def atan2(y: Val, x: Val) -> Val:
    b, a = y.abs(), x.abs()
    # both zero, or both infinite: the quadrant alone matters
    a = select((a.eq(0.0) & b.eq(0.0)), a.literal(1.0), a)
    endless = a.eq(inf) & b.eq(inf)
    a, b = select(endless, a.literal(1.0), a), select(endless, b.literal(1.0), b)
    # out of the reach of overflow, and of products that are denormal
    top = select(a.gt(b), a, b)
    large, small = (2.0 ** 1000, 2.0 ** -900) if x.t == "double" else (2.0 ** 120, 2.0 ** -70)
    factor = select(top.gt(large), top.literal(2.0 ** -20), 1.0)
    factor = select(top.lt(small), top.literal(2.0 ** 60), factor)
    value = _angle(b * factor, a * factor)
    half, half_low = _parts(x, 3)
    left = exact_sub(value, half_low * 2.0)
    value = select(x.bits().lt(0), half * 2.0 - left, value)
    return select(y.isnan() | x.isnan(), y + x, value.copysign(y))
