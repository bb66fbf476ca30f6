"""sin, cos and tan.

x = n pi/2 + y with |y| <= pi/4: n times pi/2 is subtracted in parts that make the products exact
(Cody and Waite), which holds up to 2^20 in double; float is reduced in double, which holds
up to 2^28.  Larger arguments go to `far`.
"""

from __future__ import annotations

from facula.codegen.elements.mathlib import coefficients as c
from facula.codegen.elements.mathlib.exponential import nearest
from facula.codegen.elements.mathlib.far import far_call, reduce_far
from facula.codegen.elements.mathlib.values import (
    Val,
    exact_sub,
    fast_two_sum,
    poly,
    select,
    two_prod,
    two_sum,
)

__all__ = ["sin", "cos", "tan", "near_sin", "near_cos", "NEAR"]

NEAR = 2.0 ** 20
"""Arguments up to which `near_sin` and `near_cos` are right."""

_TWO_OVER_PI = float.fromhex("0x1.45f306dc9c883p-1")
# pi/2 in three parts of 33 bits and the rest; then as 25 bits and the rest
_PIO2 = tuple(map(float.fromhex, ("0x1.921fb544p+0", "0x1.0b4611a6p-34", "0x1.3198a2ep-69",
                                  "0x1.b839a252049c1p-104")))
_PIO2_SHORT = (float.fromhex("0x1.921fb5p+0"), float.fromhex("0x1.110b4611a6263p-26"))
_LIMIT = NEAR
_LIMIT_SHORT = 2.0 ** 28


def _reduce(x: Val) -> tuple[Val, Val, Val]:
    """(y, tail, n) with x = n pi/2 + y + tail."""
    whole, n = nearest(x * _TWO_OVER_PI)
    y = x - whole * _PIO2[0]
    y, low = two_sum(y, -(whole * _PIO2[1]))
    y, lower = two_sum(y, -(whole * _PIO2[2]))
    y, tail = fast_two_sum(y, low + lower - whole * _PIO2[3])
    return y, tail, n


def _reduce_short(x: Val) -> tuple[Val, Val]:
    """(y, n) in double, for a float that was widened."""
    whole, n = nearest(x * _TWO_OVER_PI)
    return x - whole * _PIO2_SHORT[0] - whole * _PIO2_SHORT[1], n


def _series(y: Val, tail: Val) -> tuple[Val, Val, Val, Val]:
    """sin(y + tail) and cos(y + tail), each as two numbers to be added."""
    z = y * y
    half = z * 0.5
    sine = y * z * poly(z, c.SIN_64) + (tail - tail * half)
    top = exact_sub(y.literal(1.0), half)
    cosine = exact_sub(exact_sub(y.literal(1.0), top), half) + (z * z * poly(z, c.COS_64)
                                                                - y * tail)
    return y, sine, top, cosine


def _series_float(y: Val) -> tuple[Val, Val]:
    z = y * y
    return (y * z * poly(z, c.SIN_32) + y, z * z * poly(z, c.COS_32) + (1.0 - z * 0.5))


def _turn(quadrant: Val, sine: Val, cosine: Val) -> Val:
    """sin of the angle that lies in this quadrant."""
    swap = (quadrant & 1).ne(0)
    value = select(swap, cosine, sine)
    width = 64 if value.t == "double" else 32
    return (value.bits() ^ ((quadrant & 2) << (width - 2))).as_float()


def _sine_of(y: Val, tail: Val, quadrant: Val) -> Val:
    s, s_low, k, k_low = _series(y, tail)
    return _turn(quadrant, s + s_low, k + k_low)


def _circular(x: Val, shift: int, near_only: bool = False) -> Val:
    """sin of x plus `shift` right angles; with `near_only` of an x that is no more than NEAR."""
    def far(x: Val) -> Val:
        y, tail, n = reduce_far(x)
        return _sine_of(y, tail, n + shift)

    name = "cos" if shift else "sin"
    if x.t == "double":
        y, tail, n = _reduce(x)
        value = _sine_of(y, tail, n + shift)
        if not near_only:
            value = select(x.abs().gt(_LIMIT), far_call(name, [x], _LIMIT, far), value)
    else:
        wide = x.cast("fpext", "double")
        y, n = _reduce_short(wide)
        value = _turn(n.cast("trunc", "i32") + shift, *_series_float(y.cast("fptrunc", "float")))
        if not near_only:
            beyond = far_call(name, [x], _LIMIT_SHORT, far)
            value = select(x.abs().gt(_LIMIT_SHORT), beyond, value)
    return value if shift else select(x.eq(0.0), x, value)        # -0 stays -0


def sin(x: Val) -> Val:
    return _circular(x, 0)


def cos(x: Val) -> Val:
    return _circular(x, 1)


def near_sin(x: Val) -> Val:
    return _circular(x, 0, True)


def near_cos(x: Val) -> Val:
    return _circular(x, 1, True)


def _tangent_of(y: Val, tail: Val, n: Val) -> Val:
    """sin/cos or -cos/sin, the quotient corrected by what its rounding and the tails leave."""
    s, s_low, k, k_low = _series(y, tail)
    s, s_low = fast_two_sum(s, s_low)
    k, k_low = fast_two_sum(k, k_low)
    odd = (n & 1).ne(0)
    a, a_low = select(odd, -k, s), select(odd, -k_low, s_low)
    b, b_low = select(odd, s, k), select(odd, s_low, k_low)
    inverse = 1.0 / b
    q = a * inverse
    p, error = two_prod(q, b)
    return q + (exact_sub(a, p) - error + a_low - q * b_low) * inverse


def tan(x: Val) -> Val:
    def far(x: Val) -> Val:
        return _tangent_of(*reduce_far(x))

    if x.t == "double":
        near = _tangent_of(*_reduce(x))
        value = select(x.abs().gt(_LIMIT), far_call("tan", [x], _LIMIT, far), near)
    else:
        wide = x.cast("fpext", "double")
        y, n = _reduce_short(wide)
        z = y * y
        s = y * z * poly(z, c.SIN_SHORT) + y
        k = z * z * poly(z, c.COS_SHORT) + (1.0 - z * 0.5)
        odd = (n & 1).ne(0)
        near = (select(odd, -k, s) / select(odd, s, k)).cast("fptrunc", "float")
        beyond = far_call("tan", [x], _LIMIT_SHORT, far)
        value = select(x.abs().gt(_LIMIT_SHORT), beyond, near)
    return select(x.eq(0.0), x, value)
