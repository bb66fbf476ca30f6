"""More of the fuzzer's operations: functions of one and two numbers, order, running products."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.fuzz.model import NAMES
from tests.fuzz.operations import Draft, axis_of, fit, integers, isf, numbers, op, real

__all__: list[str] = []

# Inside [-0.9, 0.9], above 2.5 (lgamma is 0 at 2, where it is as inexact as what it is of), and
# anywhere.
_INSIDE = [("asin", "np.arcsin"), ("acos", "np.arccos"), ("atanh", "np.arctanh"),
           ("tan", "np.tan"), ("erfinv", "M.erfinv")]
_ABOVE = [("log2", "np.log2"), ("log10", "np.log10"), ("acosh", "np.arccosh"),
          ("lgamma", "M.lgamma")]
_ANYWHERE = [("exp2", "np.exp2"), ("sinh", "np.sinh"), ("cosh", "np.cosh"),
             ("erfc", "M.erfc"), ("sinc", "np.sinc")]


@op(1, smooth=True)
def inside(b: Any) -> Draft | None:
    x = b.pick(isf)
    if x is None:
        return None
    name, fn = b.rng.choice(_INSIDE)
    return Draft(f"OUT = ({x}.sin() * 0.875).{name}()",
                 f"OUT = M.fl({fn}, M.ew(np.multiply, M.fl(np.sin, {x}), 0.875))", (x,))


@op(0.7, smooth=True)
def above(b: Any) -> Draft | None:
    x = b.pick(real if not b.smooth else isf)
    if x is None:
        return None
    name, fn = b.rng.choice(_ABOVE)
    return Draft(f"OUT = ({x} * {x} + 2.5).{name}()",
                 f"OUT = M.fl({fn}, M.ew(np.add, M.ew(np.multiply, {x}, {x}), 2.5))", (x,))


@op(1, smooth=True)
def anywhere(b: Any) -> Draft | None:
    x = b.pick(isf)
    if x is None:
        return None
    name, fn = b.rng.choice(_ANYWHERE)
    return Draft(f"OUT = {x}.{name}()", f"OUT = M.fl({fn}, {x})", (x,))


@op(1.5, smooth=True)
def planes(b: Any) -> Draft | None:
    """Functions of two numbers that are smooth away from where they are kept."""
    x = b.pick(isf)
    y = x and fit(b, x, isf)
    if y is None:
        return None
    name, fn = b.rng.choice([("atan2", "np.arctan2"), ("hypot", "np.hypot"),
                             ("logaddexp", "np.logaddexp"), ("copysign", "np.copysign"),
                             ("pow", "np.power"), ("xlogy", "lambda a, c: a * np.log(c)")])
    return Draft(f"OUT = F.{name}({x}, {y} * {y} + 0.5)" if name != "pow"
                 else f"OUT = F.pow({y} * {y} + 0.5, {x})",
                 (f"OUT = M.ew({fn}, {x}, M.ew(np.add, M.ew(np.multiply, {y}, {y}), 0.5))"
                  if name != "pow" else
                  f"OUT = M.ew({fn}, M.ew(np.add, M.ew(np.multiply, {y}, {y}), 0.5), {x})"),
                 (x, y))


@op(0.7)
def powers(b: Any) -> Draft | None:
    x = b.pick(lambda a: numbers(a) and real(a))
    if x is None:
        return None
    n = b.rng.choice([2, 3])
    return Draft(f"OUT = {x} ** {n}", f"OUT = M.ew(np.power, {x}, {n})", (x,))


@op(0.5)
def smaller(b: Any) -> Draft | None:
    x = b.pick(lambda a: numbers(a) and real(a))
    y = x and fit(b, x, lambda a: numbers(a) and real(a))
    if y is None:
        return None
    return Draft(f"OUT = F.fmin({x}, {y})", f"OUT = M.ew(np.fmin, {x}, {y})", (x, y), exact=True,
                 exact_only=True)


@op(0.7)
def kinds(b: Any) -> Draft | None:
    x = b.pick(isf)
    if x is None:
        return None
    name = b.rng.choice(["isnan", "isinf", "isfinite"])
    return Draft(f"OUT = {x}.{name}()", f"OUT = M.cmp(np.{name}, {x})", (x,), exact_only=True)


@op(1)
def truths(b: Any) -> Draft | None:
    x = b.pick(real)
    y = x and fit(b, x, real)
    if y is None:
        return None
    name = b.rng.choice(["logical_and", "logical_or", "logical_xor"])
    if b.rng.random() < 0.2:
        return Draft(f"OUT = F.logical_not({x})", f"OUT = M.cmp(np.logical_not, {x})", (x,),
                     exact_only=True)
    return Draft(f"OUT = F.{name}({x}, {y})", f"OUT = M.cmp(np.{name}, {x}, {y})", (x, y),
                 exact_only=True)


@op(0.7)
def shifts(b: Any) -> Draft | None:
    x = b.pick(integers)
    if x is None:
        return None
    sign, fn = b.rng.choice([("<<", "np.left_shift"), (">>", "np.right_shift")])
    n = b.rng.randint(0, 3)
    return Draft(f"OUT = {x} {sign} {n}", f"OUT = M.ew({fn}, {x}, {n})", (x,))


@op(0.3)
def divisors(b: Any) -> Draft | None:
    x = b.pick(integers)
    y = x and fit(b, x, lambda a: a.dtype == b.array(x).dtype)
    if y is None:
        return None
    return Draft(f"OUT = F.gcd({x}, {y})", f"OUT = M.ew(np.gcd, {x}, {y})", (x, y))


@op(0.7)
def conjugates(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.dtype.kind == "c")
    if x is None:
        return None
    name = b.rng.choice(["conj_physical", "abs", "real", "imag"])
    if name == "conj_physical":
        return Draft(f"OUT = {x}.conj_physical()", f"OUT = M.ew(np.conj, {x})", (x,), exact=True)
    call = f"{x}.abs()" if name == "abs" else f"{x}.{name}.clone()"
    return Draft(f"OUT = {call}", f"OUT = np.array(np.{name}({x}), order='C')", (x,))


@op(0.8, smooth=True)
def products(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.dtype.kind in "fi" and a.dtype.itemsize > 4 and a.ndim > 0
               and a.shape.count(0) == 0)
    if x is None:
        return None
    axis = axis_of(b, x)
    if b.rng.random() < 0.5:
        return Draft(f"OUT = {x}.prod({axis})", f"OUT = np.array({x}.prod({axis}))", (x,))
    return Draft(f"OUT = {x}.cumprod({axis})",
                 f"OUT = np.array(np.cumprod({x}, {axis}), order='C')", (x,))


@op(0.8)
def running(b: Any) -> Draft | None:
    x = b.pick(lambda a: real(a) and numbers(a) and a.ndim > 0 and a.dtype in NAMES
               and a.size > 0)
    if x is None:
        return None
    axis, (name, fn) = axis_of(b, x), b.rng.choice([("cummax", "maximum"), ("cummin", "minimum")])
    return Draft(f"OUT = {x}.{name}({axis})[0].clone()",
                 f"OUT = np.array(np.{fn}.accumulate({x}, {axis}), order='C')", (x,), exact=True,
                 exact_only=True)


@op(0.8)
def order(b: Any) -> Draft | None:
    x = b.pick(lambda a: numbers(a) and real(a) and a.ndim > 0)
    if x is None:
        return None
    axis = axis_of(b, x)
    if b.rng.random() < 0.5:
        return Draft(f"OUT = {x}.argsort({axis}, stable=True)",
                     f"OUT = np.array(np.argsort({x}, {axis}, kind='stable'), order='C')", (x,),
                     exact_only=True)
    return Draft(f"OUT = {x}.sort({axis})[0].clone()",
                 f"OUT = np.array(np.sort({x}, {axis}), order='C')", (x,), exact=True,
                 exact_only=True)


@op(0.6)
def spectra(b: Any) -> Draft | None:
    x = b.pick(lambda a: a.dtype in (np.dtype("f8"), np.dtype("c8"), np.dtype("c16"))
               and a.ndim > 0 and a.size > 0)
    if x is None:
        return None
    axis, wide = axis_of(b, x), "'complex64'" if b.array(x).dtype == "c8" else "'complex128'"
    names = ["fft", "ifft"] + ["rfft"] * real(b.array(x))
    name = b.rng.choice(names)
    return Draft(f"OUT = F.fft.{name}({x}, dim={axis})",
                 f"OUT = np.array(np.fft.{name}({x}, axis={axis}).astype({wide}), order='C')",
                 (x,))


@op(0.5)
def bit_patterns(b: Any) -> Draft | None:
    """The same bits read as another dtype, which shares the memory."""
    x = b.pick(lambda a: a.dtype in (np.dtype("f4"), np.dtype("i4"), np.dtype("f8"),
                                     np.dtype("i8")) and a.flags.c_contiguous)
    if x is None:
        return None
    name, code = {"f4": ("int32", "i4"), "i4": ("int32", "i4"), "f8": ("int64", "i8"),
                  "i8": ("int64", "i8")}[b.array(x).dtype.str[1:]]
    return Draft(f"OUT = {x}.detach().clone().view(F.{name}) & 7",
                 f"OUT = np.array(np.array({x}, order='C').view('{code}') & 7)", (x,),
                 exact_only=True)
