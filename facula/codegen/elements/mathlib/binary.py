"""pow, hypot and fmod."""

from __future__ import annotations

from math import inf, nan

from facula.codegen.elements.mathlib import coefficients as c
from facula.codegen.elements.mathlib.exponential import (
    exp_poly,
    exp_short,
    nearest,
    reduce_exp,
    scale,
)
from facula.codegen.elements.mathlib.far import far_call
from facula.codegen.elements.mathlib.logarithm import split
from facula.codegen.elements.mathlib.values import (
    FRACTION,
    Val,
    exact_add,
    exact_sub,
    fast_two_sum,
    poly,
    select,
    two_prod,
    two_sum,
)

__all__ = ["pow_", "hypot", "fmod"]

_LN2 = 0.6931471805599453
# ln 2 as 42 bits, whose product with an exponent is exact, and the rest; 2/3 in two parts
_LN2_PARTS = (float.fromhex("0x1.62e42fefa38p-1"), float.fromhex("0x1.ef35793c7673p-45"))
_TWO_THIRDS = (float.fromhex("0x1.5555555555555p-1"), float.fromhex("0x1.5555555555555p-55"))


def _log_parts(x: Val) -> tuple[Val, Val]:
    """log(x) of a double x > 0 as two numbers, right to about 2^-68 of its value.

    log(m) = 2s + 2/3 s^3 + s^5 P(s^2) with s = (m - 1)/(m + 1); the first two terms carry their
    rounding errors along.
    """
    m, k = split(x)
    f = exact_sub(m, 1.0)
    below = exact_add(m, 1.0)
    below_low = exact_sub(m, exact_sub(below, 1.0))
    inverse = 1.0 / below
    s = f * inverse
    p, error = two_prod(s, below)
    s_low = (exact_sub(f, p) - error - s * below_low) * inverse
    z, z_low = two_prod(s, s)
    z_low = z_low + 2.0 * s * s_low
    cube, cube_low = two_prod(z, s)
    cube_low = cube_low + (z * s_low + z_low * s)
    third, third_low = two_prod(cube, cube.literal(_TWO_THIRDS[0]))
    third_low = third_low + (cube * _TWO_THIRDS[1] + cube_low * _TWO_THIRDS[0])
    high, low = fast_two_sum(s * 2.0, third)
    low = low + (2.0 * s_low + third_low + cube * z * poly(z, c.LOG_POW))
    high, carry = two_sum(k * _LN2_PARTS[0], high)
    return fast_two_sum(high, low + (carry + k * _LN2_PARTS[1]))


def _log_short(x: Val) -> Val:
    """log(x) in double, right to 2^-36, of a float that was widened."""
    m, k = split(x, normal=True)
    f = m - 1.0
    s = f / (f + 2.0)
    z = s * s
    return k * _LN2 + (s * 2.0 + s * z * poly(z, c.LOG_SHORT))


def _power_of_size(x: Val, y: Val) -> Val:
    """x^y for a positive finite x."""
    # what is beyond 2^65 makes any power but that of 1 overflow or vanish
    y = y.clamp(-2.0 ** 65, 2.0 ** 65)
    if x.t == "float":
        power = y.cast("fpext", "double") * _log_short(x.cast("fpext", "double"))
        return exp_short(power.clamp(-110.0, 90.0)).cast("fptrunc", "float")
    high, low = _log_parts(x)
    power, error = two_prod(y, high)
    rest = error + y * low
    inside = power.abs().lt(750.0)
    r, n = reduce_exp(power.clamp(-746.0, 710.0))
    return scale(exp_poly(r + select(inside, rest, 0.0)), n)


def pow_(x: Val, y: Val) -> Val:
    """C99's pow, F.9.4.4: one for y = 0 and x = 1 whatever the other is, NaN for a negative
    number to a power that is no integer, the sign of x for odd integers."""
    size, count = x.abs(), y.abs()
    value = _power_of_size(size, y)
    none, all_ = x.literal(0.0), x.literal(inf)
    value = select(size.eq(0.0), select(y.lt(0.0), all_, none), value)
    value = select(size.eq(inf), select(y.lt(0.0), none, all_), value)
    # adding 2^52 (2^23) rounds to an integer whose last bit stands last; above, that holds already
    unit = 2.0 ** FRACTION[x.t]
    large = count.ge(unit)
    shifted = exact_add(count, unit)
    whole = large | exact_sub(shifted, unit).eq(count)
    last = select(large, count, shifted).bits() & 1
    odd = whole & last.ne(0) & count.lt(2.0 * unit)
    flip = odd & x.bits().lt(0)
    value = select(flip, -value, value)
    value = select(x.lt(0.0) & ~whole & size.lt(inf), x.literal(nan), value)
    value = select(x.isnan() | y.isnan(), x + y, value)
    return select(x.eq(1.0) | y.eq(0.0), x.literal(1.0), value)


def hypot(x: Val, y: Val) -> Val:
    """sqrt(x^2 + y^2), scaled where the squares would leave the range; inf beside NaN is inf."""
    short = x.t == "float"
    if short:
        x, y = x.cast("fpext", "double"), y.cast("fpext", "double")
    a, b = x.abs(), y.abs()
    if short:
        value = (a * a + b * b).sqrt()
    else:
        top = select(a.gt(b), a, b)
        big, small = top.gt(2.0 ** 500), top.lt(2.0 ** -500)
        up, down = top.literal(2.0 ** 600), top.literal(2.0 ** -600)
        factor = select(big, down, select(small, up, 1.0))
        back = select(big, up, select(small, down, 1.0))
        a, b = a * factor, b * factor
        value = (a * a + b * b).sqrt() * back
    value = select(a.eq(inf) | b.eq(inf), a.literal(inf), value)
    return value.cast("fptrunc", "float") if short else value


def _long_division(a: Val, b: Val, _: Val) -> Val:
    """The remainder of finite a >= 0 by b > 0, by integers, 11 bits of the quotient at a time."""
    fn = a.fn

    def parts(x: Val) -> tuple[Val, Val]:
        bits = x.bits()
        exponent = bits >> 52
        normal = exponent.ne(0)
        mantissa = (bits & ((1 << 52) - 1)) | select(normal, bits.literal(1 << 52), 0)
        return mantissa, select(normal, exponent, 1)

    (whole, ea), (divisor, eb) = parts(a), parts(b)
    divisor = select(divisor.eq(0), divisor.literal(1), divisor)
    steps = ea - eb
    slot = fn.alloca("i64")
    fn.store("i64", whole._emit("urem", divisor).name, slot)
    rounds = select(steps.lt(0), steps.literal(0), (steps + 10)._emit("udiv", 11))
    left = fn.alloca("i64")
    fn.store("i64", steps.name, left)
    with fn.loop(0, rounds.name):
        remaining = Val(fn, fn.load("i64", left), "i64")
        shift = select(remaining.lt(11), remaining, 11)
        rest = Val(fn, fn.load("i64", slot), "i64")
        fn.store("i64", (rest << shift)._emit("urem", divisor).name, slot)
        fn.store("i64", (remaining - shift).name, left)
    rest = Val(fn, fn.load("i64", slot), "i64").cast("uitofp", "double")
    return select(steps.lt(0), a, scale(rest, eb - 1075))


def fmod(x: Val, y: Val) -> Val:
    """The exact remainder of x / y with the sign of x.

    For moderate quotients q = round(|x|/|y|) and |x| - q |y|, which is representable and so
    exact, plus |y| where it is negative; long division for others.
    """
    short = x.t == "float"
    origin = x
    if short:
        x, y = x.cast("fpext", "double"), y.cast("fpext", "double")
    a, b = x.abs(), y.abs()
    ratio = a / b
    q, _ = nearest(ratio)
    if short:                      # 29 bits of q times 24 of b fit in a double
        rest = a - q * b
        hard = ratio.gt(2.0 ** 29)
    else:
        p, error = two_prod(q, b)
        rest = exact_sub(exact_sub(a, p), error)
        hard = ratio.gt(2.0 ** 51) | a.gt(2.0 ** 1000)
    rest = select(rest.lt(0.0), exact_add(rest, b), rest)
    hard = hard & a.lt(inf) & b.gt(0.0)
    flag = select(hard, a.literal(1.0), 0.0)
    beyond = far_call("fmod", [a, b, flag], None, _long_division)
    value = select(hard, beyond, rest)
    value = select(b.eq(inf), a, value)
    valid = a.lt(inf) & b.gt(0.0)
    value = select(valid, value, value.literal(nan))
    value = value.cast("fptrunc", "float") if short else value
    return value.copysign(origin)
