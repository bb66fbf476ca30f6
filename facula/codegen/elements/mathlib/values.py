"""Scalar values with operators, for writing formulas as formulas.

`Val` is a name in a function being written together with its LLVM type; `a * b + c` emits the
instructions.  Products and sums may be contracted into fused multiply-adds (`contract`) unless
they are written with the `exact_*` functions, which are for error-free transformations, where
each operation must round by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from facula.codegen.llvm import Fn, float_literal
from facula.codegen.target import target

__all__ = ["Val", "Number", "poly", "exact_add", "exact_sub", "exact_mul", "two_sum",
           "fast_two_sum", "two_prod", "select", "FRACTION", "BIAS", "INT", "SHIFTER"]

FRACTION = {"float": 23, "double": 52}
"""Stored bits of the significand."""

BIAS = {"float": 127, "double": 1023}
INT = {"float": "i32", "double": "i64"}

SHIFTER = {"float": 1.5 * 2.0 ** 23, "double": 1.5 * 2.0 ** 52}
"""Adding this rounds to an integer, which then stands in the low bits of the sum.  (It needs no
rounding instruction, which the oldest vector instruction set lacks.)"""


class Val:
    """A scalar of type `t` called `name` in `fn`."""

    __slots__ = ("fn", "name", "t")

    def __init__(self, fn: Fn, name: str, t: str):
        self.fn = fn
        self.name = name
        self.t = t

    # -- construction
    def literal(self, value: float) -> Val:
        """A constant of the same type."""
        if self.t in FRACTION:
            return Val(self.fn, float_literal(float(value), self.t), self.t)
        return Val(self.fn, str(int(value)), self.t)

    def _operand(self, other: Number) -> str:
        if isinstance(other, Val):
            assert other.t == self.t, (self.t, other.t)
            return other.name
        return self.literal(other).name

    def _emit(self, instruction: str, other: Number, reverse: bool = False,
              t: str = "") -> Val:
        b = self._operand(other)
        first, second = (b, self.name) if reverse else (self.name, b)
        return Val(self.fn, self.fn.val(f"{instruction} {self.t} {first}, {second}"), t or self.t)

    def _arith(self, name: str, other: Number, reverse: bool = False) -> Val:
        if self.t in FRACTION:
            name = f"f{name} contract" if name != "div" else "fdiv"
        return self._emit(name, other, reverse)

    # -- arithmetic
    def __add__(self, other: Number) -> Val:
        return self._arith("add", other)

    def __radd__(self, other: Number) -> Val:
        return self._arith("add", other, True)

    def __sub__(self, other: Number) -> Val:
        return self._arith("sub", other)

    def __rsub__(self, other: Number) -> Val:
        return self._arith("sub", other, True)

    def __mul__(self, other: Number) -> Val:
        return self._arith("mul", other)

    def __rmul__(self, other: Number) -> Val:
        return self._arith("mul", other, True)

    def __truediv__(self, other: Number) -> Val:
        return self._arith("div", other)

    def __rtruediv__(self, other: Number) -> Val:
        return self._arith("div", other, True)

    def __neg__(self) -> Val:
        if self.t in FRACTION:
            return Val(self.fn, self.fn.val(f"fneg {self.t} {self.name}"), self.t)
        return self.literal(0) - self

    # -- integers and truth values
    def __and__(self, other: Number) -> Val:
        return self._emit("and", other)

    def __or__(self, other: Number) -> Val:
        return self._emit("or", other)

    def __xor__(self, other: Number) -> Val:
        return self._emit("xor", other)

    def __lshift__(self, other: Number) -> Val:
        return self._emit("shl", other)

    def __rshift__(self, other: Number) -> Val:
        """Shift in zeros."""
        return self._emit("lshr", other)

    def ashr(self, other: Number) -> Val:
        """Shift in the sign."""
        return self._emit("ashr", other)

    def __invert__(self) -> Val:
        return self._emit("xor", -1) if self.t != "i1" else Val(
            self.fn, self.fn.val(f"xor i1 {self.name}, true"), "i1")

    # -- comparisons (false for NaN, but for `ne`)
    def _compare(self, how: str, other: Number) -> Val:
        if self.t in FRACTION:
            return self._emit(f"fcmp {'u' if how == 'ne' else 'o'}{how}", other, t="i1")
        how = how if how in ("eq", "ne") else f"s{how}"
        return self._emit(f"icmp {how}", other, t="i1")

    def lt(self, other: Number) -> Val:
        return self._compare("lt", other)

    def le(self, other: Number) -> Val:
        return self._compare("le", other)

    def gt(self, other: Number) -> Val:
        return self._compare("gt", other)

    def ge(self, other: Number) -> Val:
        return self._compare("ge", other)

    def eq(self, other: Number) -> Val:
        return self._compare("eq", other)

    def ne(self, other: Number) -> Val:
        return self._compare("ne", other)

    def isnan(self) -> Val:
        return self._emit("fcmp uno", self, t="i1")

    # -- conversions
    def cast(self, instruction: str, t: str) -> Val:
        """`instruction` (fpext, zext, sitofp, ...) to type `t`."""
        return Val(self.fn, self.fn.val(f"{instruction} {self.t} {self.name} to {t}"), t)

    def bits(self) -> Val:
        """The bits of a floating value as an integer."""
        return self.cast("bitcast", INT[self.t])

    def as_float(self) -> Val:
        """The floating value that has these bits."""
        return self.cast("bitcast", "float" if self.t == "i32" else "double")

    # -- intrinsics that are single instructions everywhere
    def _intrinsic(self, name: str, *others: Val) -> Val:
        suffix = "f32" if self.t == "float" else "f64"
        args = [self, *others]
        callee = self.fn.module.declare(
            f"{self.t} @llvm.{name}.{suffix}({', '.join([self.t] * len(args))})")
        operands = ", ".join(f"{self.t} {a.name}" for a in args)
        return Val(self.fn, self.fn.val(f"call {self.t} {callee}({operands})"), self.t)

    def abs(self) -> Val:
        return self._intrinsic("fabs")

    def sqrt(self) -> Val:
        return self._intrinsic("sqrt")

    def copysign(self, sign: Val) -> Val:
        return self._intrinsic("copysign", sign)

    def clamp(self, low: float, high: float) -> Val:
        """Into [low, high]; NaN stays NaN."""
        x = select(self.lt(low), self.literal(low), self)
        return select(x.gt(high), self.literal(high), x)


Number = Val | float | int


def select(condition: Val, a: Val, b: Number) -> Val:
    """a where `condition` (an i1) holds, else b."""
    other = a._operand(b)
    return Val(a.fn, a.fn.val(
        f"select i1 {condition.name}, {a.t} {a.name}, {a.t} {other}"), a.t)


def poly(x: Val, coefficients: Sequence[float]) -> Val:
    """c0 + c1 x + c2 x^2 + ... by Horner's rule."""
    value = x * coefficients[-1] + coefficients[-2]
    for c in coefficients[-3::-1]:
        value = value * x + c
    return value


def exact_add(a: Val, b: Number) -> Val:
    """A sum that is rounded by itself."""
    return a._emit("fadd", b)


def exact_sub(a: Val, b: Number) -> Val:
    return a._emit("fsub", b)


def exact_mul(a: Val, b: Number) -> Val:
    return a._emit("fmul", b)


def two_sum(a: Val, b: Val) -> tuple[Val, Val]:
    """a + b as a rounded sum and its exact error (Knuth, TAOCP 2, 4.2.2)."""
    s = exact_add(a, b)
    part = exact_sub(s, a)
    return s, exact_add(exact_sub(a, exact_sub(s, part)), exact_sub(b, part))


def fast_two_sum(a: Val, b: Val) -> tuple[Val, Val]:
    """The same for |a| >= |b| (Dekker)."""
    s = exact_add(a, b)
    return s, exact_sub(b, exact_sub(s, a))


def two_prod(a: Val, b: Val) -> tuple[Val, Val]:
    """a * b as a rounded product and its exact error.

    One fused multiply-add where the processor has it, else Veltkamp's splitting (Dekker 1971).
    """
    p = exact_mul(a, b)
    if target().isa != "sse2":
        return p, a._intrinsic("fma", b, -p)
    (ah, al), (bh, bl) = _split(a), _split(b)
    error = exact_sub(exact_mul(ah, bh), p)
    error = exact_add(error, exact_mul(ah, bl))
    error = exact_add(error, exact_mul(al, bh))
    return p, exact_add(error, exact_mul(al, bl))


def _split(a: Val) -> tuple[Val, Val]:
    """Two halves of the significand, by clearing the low bits."""
    half = FRACTION[a.t] // 2 + 1
    high = (a.bits() & -(1 << half)).as_float()
    return high, exact_sub(a, high)
