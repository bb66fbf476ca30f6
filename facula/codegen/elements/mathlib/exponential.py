"""exp and what is made of it: exp2, expm1, sinh, cosh, tanh.

x = n ln 2 + r with |r| <= ln(2)/2 (n from the shifter trick, ln 2 in two parts so that n times
the first is exact), a polynomial for e^r, and 2^n applied by integer arithmetic on exponents in
two steps, so that results that are denormal are rounded once and 2^1024 does not overflow early.
"""

from __future__ import annotations

from facula.codegen.elements.mathlib import coefficients as c
from facula.codegen.elements.mathlib.values import (
    BIAS,
    FRACTION,
    SHIFTER,
    Val,
    exact_add,
    exact_mul,
    exact_sub,
    poly,
    select,
)

__all__ = ["exp", "exp2", "expm1", "sinh", "cosh", "tanh", "reduce_exp", "scale", "power_of_two",
           "exp_flushed", "exp_short"]

LOG2E = 1.4426950408889634
# ln 2 in two parts; the first has enough zero bits at its end that n times it is exact
LN2 = {"double": (float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")),
       "float": (float.fromhex("0x1.62e4p-1"), float.fromhex("0x1.7f7d1cp-20"))}

# beyond these e^x is infinite, and zero
RANGE = {"double": (-746.0, 710.0), "float": (-104.0, 89.0)}
RANGE2 = {"double": (-1076.0, 1025.0), "float": (-151.0, 129.0)}


def power_of_two(n: Val, t: str) -> Val:
    """2^n for an integer n within the exponents of normal numbers."""
    return ((n + BIAS[t]) << FRACTION[t]).as_float()


def nearest(x: Val) -> tuple[Val, Val]:
    """x rounded to an integer, as a floating value and as an integer."""
    shifted = exact_add(x, SHIFTER[x.t])
    whole = shifted.bits() - x.literal(SHIFTER[x.t]).bits()
    return exact_sub(shifted, SHIFTER[x.t]), whole


def scale(x: Val, n: Val) -> Val:
    """x 2^n, rounded once where it is denormal, for |n| up to twice the largest exponent."""
    half = n.ashr(1)
    return x * power_of_two(half, x.t) * power_of_two(n - half, x.t)


def reduce_exp(x: Val) -> tuple[Val, Val]:
    """r and the integer n with x = n ln 2 + r."""
    whole, n = nearest(x * LOG2E)
    high, low = LN2[x.t]
    return x - whole * high - whole * low, n


def exp_poly(r: Val) -> Val:
    """e^r for |r| <= ln(2)/2."""
    return r * r * poly(r, c.EXP_64 if r.t == "double" else c.EXP_32) + r + 1.0


def exp(x: Val) -> Val:
    r, n = reduce_exp(x.clamp(*RANGE[x.t]))
    half = n.ashr(1)
    # Zero is multiplied in as such: a product that vanishes costs processors an interruption.
    rest = select(x.lt(RANGE[x.t][0]), x.literal(0.0), power_of_two(n - half, x.t))
    return exp_poly(r) * power_of_two(half, x.t) * rest


def exp_flushed(x: Val) -> Val:
    """e^x with 0 for what is smaller than all normal numbers, and infinite a factor of two early.
    """
    low, high = (-708.3, 709.7) if x.t == "double" else (-87.3, 88.7)
    r, n = reduce_exp(x.clamp(low, high))
    return select(x.lt(low), x.literal(0.0), exp_poly(r) * power_of_two(n, x.t))


def exp_short(x: Val) -> Val:
    """e^x in double, good to a float, for |x| < 700."""
    r, n = reduce_exp(x)
    return (r * r * poly(r, c.EXP_SHORT) + r + 1.0) * power_of_two(n, x.t)


def exp2(x: Val) -> Val:
    x = x.clamp(*RANGE2[x.t])
    whole, n = nearest(x)
    r = x - whole
    return scale(r * poly(r, c.EXP2_64 if x.t == "double" else c.EXP2_32) + 1.0, n)


def expm1(x: Val) -> Val:
    """2^n (e^r - 1) + (2^n - 1), halved on the way so that 2^n does not overflow."""
    low, high = (-40.0, 710.0) if x.t == "double" else (-20.0, 89.0)
    inside = x.clamp(low, high)
    whole, n = nearest(inside * LOG2E)
    above = inside - whole * LN2[x.t][0]
    below = exact_mul(whole, LN2[x.t][1])
    r = exact_sub(above, below)
    lost = exact_sub(exact_sub(above, r), below)       # what the rounding of r took away
    p = r + (r * r * poly(r, c.EXP_64 if x.t == "double" else c.EXP_32) + lost)
    half = power_of_two(n - 1, x.t)
    far = (half * p + (half - 0.5)) * 2.0
    return select(n.eq(0), p, far).copysign(x)


def _half_exp(size: Val, top: float) -> Val:
    """e^size / 2 for size >= 0, infinite only where it must be."""
    r, n = reduce_exp(select(size.gt(top), size.literal(top), size))
    return scale(exp_poly(r), n - 1)


def cosh(x: Val) -> Val:
    h = _half_exp(x.abs(), 711.0 if x.t == "double" else 90.0)
    return h + 0.25 / h


def sinh(x: Val) -> Val:
    size = x.abs()
    h = _half_exp(size, 711.0 if x.t == "double" else 90.0)
    far = (h - 0.25 / h).copysign(x)
    z = x * x
    near = x * z * poly(z, c.SINH_64 if x.t == "double" else c.SINH_32) + x
    return select(size.lt(1.0), near, far)


def tanh(x: Val) -> Val:
    """1 - 2 / (e^2|x| + 1), and an odd polynomial near zero."""
    size = x.abs()
    top = 20.0 if x.t == "double" else 10.0
    r, n = reduce_exp(select(size.gt(top), size.literal(top), size) * 2.0)
    e = exp_poly(r) * power_of_two(n, x.t)
    z = x * x
    near = size * z * poly(z, c.TANH_64 if x.t == "double" else c.TANH_32) + size
    return select(size.lt(0.625), near, 1.0 - 2.0 / (e + 1.0)).copysign(x)
