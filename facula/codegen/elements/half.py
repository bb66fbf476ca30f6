"""16-bit floating values to float and back, one or a vector of them.

A float16 is a `half` and a bfloat16 the `i16` of its bits.  Where the processor has no
instructions for half, LLVM would call a run-time library that is not in the process, so the
conversions are written out.
"""

from __future__ import annotations

from functools import lru_cache

from facula.codegen.llvm import Fn, float_literal
from facula.codegen.target import target

__all__ = ["widen", "narrow"]


def widen(fn: Fn, dtype: str, value: str, count: int = 0) -> str:
    """A value of `dtype`, or a vector of `count`, as float; of other dtypes as it is."""
    if dtype == "float16":
        if target().isa == "sse2":
            return _from_half(fn, value, count)
        return fn.val(f"fpext {_of('half', count)} {value} to {_of('float', count)}")
    if dtype == "bfloat16":
        words = _of("i32", count)
        wide = fn.val(f"zext {_of('i16', count)} {value} to {words}")
        bits = fn.val(f"shl {words} {wide}, {_splat('i32', 16, count)}")
        return fn.val(f"bitcast {words} {bits} to {_of('float', count)}")
    return value


def narrow(fn: Fn, dtype: str, value: str, count: int = 0) -> str:
    """The way back from `widen`: round to nearest, ties to even."""
    if dtype == "float16":
        if target().isa == "sse2":
            return _to_half(fn, value, count)
        return fn.val(f"fptrunc {_of('float', count)} {value} to {_of('half', count)}")
    if dtype == "bfloat16":
        w = _Words(fn, count)
        bits = w.bits(value)
        odd = w("and", w("lshr", bits, 16), 1)
        biased = w("add", w("add", bits, 32767), odd)
        quiet = w("or", bits, 4194304)
        best = w.select(fn.val(f"fcmp uno {_of('float', count)} {value}, {value}"), quiet, biased)
        return fn.val(f"trunc {w.type} {w('lshr', best, 16)} to {_of('i16', count)}")
    return value


def _of(scalar: str, count: int) -> str:
    return f"<{count} x {scalar}>" if count else scalar


@lru_cache(maxsize=None)
def _splat(scalar: str, value: int | str, count: int) -> str:
    return f"<{', '.join([f'{scalar} {value}'] * count)}>" if count else str(value)


class _Words:
    """Arithmetic on i32, one or a vector."""

    def __init__(self, fn: Fn, count: int):
        self.fn, self.count, self.type = fn, count, _of("i32", count)

    def constant(self, x: str | int) -> str:
        return _splat("i32", x, self.count) if isinstance(x, int) else x

    def __call__(self, op: str, a: str | int, b: str | int) -> str:
        return self.fn.val(f"{op} {self.type} {self.constant(a)}, {self.constant(b)}")

    def bits(self, value: str) -> str:
        return self.fn.val(f"bitcast {_of('float', self.count)} {value} to {self.type}")

    def select(self, condition: str, a: str | int, b: str | int) -> str:
        return self.fn.val(f"select {_of('i1', self.count)} {condition}, "
                           f"{self.type} {self.constant(a)}, {self.type} {self.constant(b)}")


def _from_half(fn: Fn, value: str, count: int) -> str:
    """Exponent and mantissa shifted into place and scaled by 2^112: exact, denormals too."""
    w, floats = _Words(fn, count), _of("float", count)
    short = fn.val(f"bitcast {_of('half', count)} {value} to {_of('i16', count)}")
    x = fn.val(f"zext {_of('i16', count)} {short} to {w.type}")
    magnitude = w("shl", w("and", x, 0x7FFF), 13)
    scale = _splat("float", float_literal(2.0 ** 112), count)
    small = fn.val(f"bitcast {w.type} {magnitude} to {floats}")
    finite = w.bits(fn.val(f"fmul {floats} {small}, {scale}"))
    special = fn.val(f"icmp uge {w.type} {magnitude}, {w.constant(0x7C00 << 13)}")
    best = w.select(special, w("or", magnitude, 0x7F800000), finite)
    sign = w("shl", w("and", x, 0x8000), 16)
    return fn.val(f"bitcast {w.type} {w('or', best, sign)} to {floats}")


def _to_half(fn: Fn, value: str, count: int) -> str:
    """Rounded by an integer addition where the result is normal, and by adding 0.5, whose last
    place is the smallest denormal of half, where it is not."""
    w, floats = _Words(fn, count), _of("float", count)
    bits = w.bits(value)
    size = w("and", bits, 0x7FFFFFFF)
    odd = w("and", w("lshr", size, 13), 1)
    normal = w("lshr", w("add", w("sub", size, (112 << 23) - 0xFFF), odd), 13)
    half = _splat("float", float_literal(0.5), count)
    absolute = fn.val(f"bitcast {w.type} {size} to {floats}")
    low = w("sub", w.bits(fn.val(f"fadd {floats} {absolute}, {half}")), 0x3F000000)
    tiny = fn.val(f"icmp ult {w.type} {size}, {w.constant(113 << 23)}")
    huge = fn.val(f"icmp uge {w.type} {size}, {w.constant(143 << 23)}")
    nan = fn.val(f"icmp ugt {w.type} {size}, {w.constant(0x7F800000)}")
    payload = w("or", w("and", w("lshr", size, 13), 0x3FF), 0x7E00)
    best = w.select(nan, payload, w.select(huge, 0x7C00, w.select(tiny, low, normal)))
    best = w("or", best, w("and", w("lshr", bits, 16), 0x8000))
    short = fn.val(f"trunc {w.type} {best} to {_of('i16', count)}")
    return fn.val(f"bitcast {_of('i16', count)} {short} to {_of('half', count)}")
