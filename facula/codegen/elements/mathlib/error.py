"""erf, erfc and the inverse of erf."""

from __future__ import annotations

from math import inf, nan

from facula.codegen.elements.mathlib import coefficients as c
from facula.codegen.elements.mathlib.exponential import (
    exp,
    exp_poly,
    exp_short,
    power_of_two,
    reduce_exp,
    scale,
)
from facula.codegen.elements.mathlib.logarithm import log
from facula.codegen.elements.mathlib.values import Val, exact_sub, poly, select, two_prod

__all__ = ["erf", "erfc", "erfinv"]


def erf(x: Val) -> Val:
    """An odd polynomial up to 1, beyond it 1 - e^-P(|x|) with P fitted to -log(erfc)."""
    double = x.t == "double"
    size = x.abs()
    z = x * x
    near = size * poly(z, c.ERF_64 if double else c.ERF_32) + size
    top = 4.95 if double else 2.95             # erf(1 + top) is 1 in this precision
    u = size - 1.0
    u = select(u.gt(top), u.literal(top), u)
    r, n = reduce_exp(-poly(u, c.ERF_TAIL_64 if double else c.ERF_TAIL_32))
    far = 1.0 - exp_poly(r) * power_of_two(n, x.t)
    return select(size.lt(1.0), near, far).copysign(x)


def erfc(x: Val) -> Val:
    """e^-x^2 / (1 + 2x) times a polynomial in (x - 4)/(x + 4), after Shepherd and Laframboise
    (Math. Comp. 36, 1981); 2 - erfc(-x) for x < 0.  The square is kept in two parts."""
    if x.t == "float":
        wide = x.cast("fpext", "double")
        size = wide.abs()
        size = select(size.gt(10.3), size.literal(10.3), size)
        g = poly((size - 4.0) / (size + 4.0), c.ERFC_SHORT)
        value = g * exp_short(-(size * size)) / (1.0 + 2.0 * size)
        return select(wide.lt(0.0), 2.0 - value, value).cast("fptrunc", "float")
    size = x.abs()
    size = select(size.gt(27.5), size.literal(27.5), size)
    g = poly((size - 4.0) / (size + 4.0), c.ERFC_64) / (1.0 + 2.0 * size)
    square, low = two_prod(size, size)
    r, n = reduce_exp(-square)
    value = scale(g * exp_poly(exact_sub(r, low)), n)
    value = select(x.lt(0.0), 2.0 - value, value)
    # near 0 the last bits come better from erf
    return select(size.lt(0.65), 1.0 - (x * poly(x * x, c.ERF_64) + x), value)


def erfinv(x: Val) -> Val:
    """Polynomials in x^2 up to 1/2, and beyond it in t = sqrt(-log(1 - |x|)), of which the result
    is nearly a multiple; in double one step of Newton's follows, for erf or for erfc.  +-infinity
    at +-1, NaN outside."""
    wide = x if x.t == "double" else x.cast("fpext", "double")
    size = wide.abs()
    rest = 1.0 - size                          # exact from 1/2 on
    t = (-log(rest)).sqrt()
    inner = size * poly(size * size - 0.125, c.ERFINV_NEAR)
    outer = select(t.lt(2.5), poly(t - 1.65, c.ERFINV_MIDDLE), poly(t - 4.3, c.ERFINV_FAR))
    near = size.lt(0.5)
    y = select(near, inner, outer)
    if x.t == "double":
        miss = select(near, erf(y) - size, rest - erfc(y))
        y = y - miss * exp(y * y) * 0.886226925452758
    y = select(size.lt(1.0), y, select(size.eq(1.0), size.literal(inf), size.literal(nan)))
    y = select(size.isnan(), size, y).copysign(wide)
    return y if x.t == "double" else y.cast("fptrunc", "float")
