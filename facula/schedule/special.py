"""Special functions of float32 and shorter numbers as formulas in float64.

Rounded once at the end, they are as exact as the meanings that NumPy computes
(`facula.ops.primitive.functions`), in other formulas, which have no branches to iterate in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from facula.dtype import float64
from facula.graph.spec import Spec, Step
from facula.schedule.orders import Add, Steps

__all__ = ["FORMULAS", "by_formula"]


class _Value:
    """A float64 value of a program, or a truth of one, with the operators that formulas use."""

    __slots__ = ("s", "i")

    def __init__(self, s: Steps, i: int):
        self.s, self.i = s, i

    def _two(self, op: str, a: _Value | float, b: _Value | float) -> _Value:
        x, y = (v.i if isinstance(v, _Value) else self.s.full(float(v), self.i) for v in (a, b))
        if op in ("lt", "le", "eq"):
            return _Value(self.s, self.s.test(op, x, y))
        return _Value(self.s, self.s.make(op, (), [x, y], self.s.shape(x), self.s.dtype(x)))

    def one(self, op: str) -> _Value:
        """An operation on this alone."""
        return _Value(self.s, self.s.make(op, (), [self.i], self.s.shape(self.i), float64))

    def __add__(self, other: _Value | float) -> _Value:
        return self._two("add", self, other)

    def __sub__(self, other: _Value | float) -> _Value:
        return self._two("sub", self, other)

    def __rsub__(self, other: float) -> _Value:
        return self._two("sub", other, self)

    def __mul__(self, other: _Value | float) -> _Value:
        return self._two("mul", self, other)

    def __truediv__(self, other: _Value | float) -> _Value:
        return self._two("div", self, other)

    def __rtruediv__(self, other: float) -> _Value:
        return self._two("div", other, self)

    def __lt__(self, other: _Value | float) -> _Value:
        return self._two("lt", self, other)

    def least(self, other: _Value | float) -> _Value:
        """The smaller of the two."""
        return self._two("minimum", self, other)

    def equals(self, other: _Value | float) -> _Value:
        """Whether the two are equal."""
        return self._two("eq", self, other)

    def choose(self, a: _Value | float, b: _Value | float) -> _Value:
        """`a` where this truth holds, else `b`, one of which is a value."""
        like = a if isinstance(a, _Value) else b
        assert isinstance(like, _Value)
        x, y = (v.i if isinstance(v, _Value) else self.s.full(float(v), like.i) for v in (a, b))
        return _Value(self.s, self.s.where_(self.i, x, y))


def _polynomial(x: _Value, coefficients: Sequence[float]) -> _Value:
    """Highest power first."""
    total = x * coefficients[0] + coefficients[1]
    for c in coefficients[2:]:
        total = total * x + c
    return total


_HALF_LOG_2PI = 0.91893853320467274178032973640561764
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)


def _raised(x: _Value, least: float) -> tuple[list[_Value], _Value]:
    """x + 1 + ... + 1 until it is `least`, and what it was (or 1) before each addition."""
    before = []
    for _ in range(int(least)):
        small = x < least
        before.append(small.choose(x, 1.0))
        x = small.choose(x + 1.0, x)
    return before, x


def _lgamma(x: _Value) -> _Value:
    """Stirling's series where x >= 8, which Gamma(x + 1) = x Gamma(x) leads to; for x < 0
    Gamma(x) Gamma(1 - x) = pi / sin(pi x)."""
    below = x < 0.5
    y = below.choose(1.0 - x, x)
    before, big = _raised(y, 8.0)
    product = before[0]
    for b in before[1:]:
        product = product * b
    inverse = 1.0 / big
    terms = [b / (2 * k * (2 * k - 1)) for k, b in enumerate(_BERNOULLI, 1)]
    rest = _polynomial(inverse * inverse, terms[::-1]) * inverse
    value = (big - 0.5) * big.one("log") - big + _HALF_LOG_2PI + rest - product.one("log")
    value = big.equals(math.inf).choose(math.inf, value)
    # sin(pi x) without its sign, of the distance to the next whole number
    part = x - x.one("round")
    sine = (part * math.pi).one("sin").one("abs")
    turned = (math.log(math.pi) - sine.one("log")) - value
    turned = part.equals(0.0).choose(math.inf, turned)
    out = below.choose(turned, value)
    for exact in (1.0, 2.0):
        out = x.equals(exact).choose(0.0, out)
    return x.equals(-math.inf).choose(math.inf, out)


def _digamma(x: _Value) -> _Value:
    """The asymptotic series where x >= 10, which psi(x + 1) = psi(x) + 1/x leads to; for x < 0
    psi(1 - x) - psi(x) = pi / tan(pi x)."""
    below = x < 0.0
    y = below.choose(1.0 - x, x)
    total = y * 0.0
    for _ in range(10):
        small = y < 10.0
        total = total - small.choose(1.0 / y, 0.0)
        y = small.choose(y + 1.0, y)
    inverse = 1.0 / y
    square = inverse * inverse
    terms = [b / (2 * k) for k, b in enumerate(_BERNOULLI, 1)]
    series = _polynomial(square, terms[::-1]) * square
    value = total + y.one("log") - inverse * 0.5 - series
    value = x.equals(math.inf).choose(math.inf, value)
    part = x - x.one("round")
    angle = part * math.pi
    turned = value - angle.one("cos") * math.pi / angle.one("sin")
    turned = part.equals(0.0).choose(math.nan, turned)
    out = below.choose(turned, value)
    out = x.equals(0.0).choose(-1.0 / x, out)
    return x.equals(-math.inf).choose(math.nan, out)


FORMULAS: dict[str, Callable[[_Value], _Value]] = {
    "lgamma": _lgamma, "digamma": _digamma}


def by_formula(add: Add, steps: Sequence[Step], op: str, x: int, out: Spec, where: str | None
               ) -> int | None:
    """The step that has the function's values; None where NumPy computes them: in float64."""
    if out.dtype is float64 or out.dtype.is_compact:
        return None
    s = Steps(add, steps, where)
    return s.cast(FORMULAS[op](_Value(s, s.cast(x, float64))).i, out.dtype)
