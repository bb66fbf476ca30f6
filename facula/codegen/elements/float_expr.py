"""Real floating point operations on one element (float or double; 16-bit types come widened)."""

from __future__ import annotations

from math import inf

from facula.codegen.elements.expr import constant, intrinsic, register_type
from facula.codegen.elements.mathlib import emit_math, emit_math2
from facula.codegen.llvm import Fn
from facula.dtype import DType

__all__ = ["emit_float"]

_ARITHMETIC = {"add": "fadd contract", "sub": "fsub contract", "mul": "fmul contract",
               "div": "fdiv"}
_FCMP = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_ROUND = {"abs": "fabs", "sqrt": "sqrt", "floor": "floor", "ceil": "ceil",
          "round": "roundeven", "trunc": "trunc"}


def emit_float(fn: Fn, op: str, args: list[str], dtype: DType) -> str:
    """The result of `op` (an i1 for comparisons and tests)."""
    t = register_type(dtype)
    a = args[0]
    b = args[1] if len(args) > 1 else ""

    def lit(value: float) -> str:
        return str(constant(dtype, value))

    if op in _ARITHMETIC:
        return fn.val(f"{_ARITHMETIC[op]} {t} {a}, {b}")
    if op in _FCMP:
        return fn.val(f"fcmp {_FCMP[op]} {t} {a}, {b}")
    if op == "neg":
        return fn.val(f"fneg {t} {a}")
    if op in _ROUND:
        return intrinsic(fn, _ROUND[op], t, a)
    if op in ("maximum", "minimum"):
        # NaN in either operand wins; a literal operand is no NaN, which saves a comparison
        order = "gt" if op == "maximum" else "lt"
        if b.startswith("0x") and b != lit(float("nan")):
            keep = fn.val(f"fcmp u{order} {t} {a}, {b}")
        else:
            first = fn.val(f"fcmp o{order} {t} {a}, {b}")
            keep = fn.val(f"or i1 {first}, {fn.val(f'fcmp uno {t} {a}, {a}')}")
        return fn.val(f"select i1 {keep}, {t} {a}, {t} {b}")
    if op == "relu":                     # in this form it is one instruction, and NaN stays
        negative = fn.val(f"fcmp olt {t} {a}, {lit(0.0)}")
        return fn.val(f"select i1 {negative}, {t} {lit(0.0)}, {t} {a}")
    if op in ("fmax", "fmin"):
        order = "gt" if op == "fmax" else "lt"
        first = fn.val(f"fcmp o{order} {t} {a}, {b}")
        keep = fn.val(f"or i1 {first}, {fn.val(f'fcmp uno {t} {b}, {b}')}")
        return fn.val(f"select i1 {keep}, {t} {a}, {t} {b}")
    if op == "isnan":
        return fn.val(f"fcmp uno {t} {a}, {a}")
    if op in ("isinf", "isfinite"):
        magnitude = intrinsic(fn, "fabs", t, a)
        return fn.val(f"fcmp {'oeq' if op == 'isinf' else 'one'} {t} {magnitude}, {lit(inf)}")
    if op == "reciprocal":
        return fn.val(f"fdiv {t} {lit(1)}, {a}")
    if op == "rsqrt":
        return fn.val(f"fdiv {t} {lit(1)}, {intrinsic(fn, 'sqrt', t, a)}")
    if op == "sign":
        up = fn.val(f"uitofp i1 {fn.val(f'fcmp ogt {t} {a}, {lit(0)}')} to {t}")
        down = fn.val(f"uitofp i1 {fn.val(f'fcmp olt {t} {a}, {lit(0)}')} to {t}")
        return fn.val(f"fsub {t} {up}, {down}")        # NaN gives 0, as in PyTorch
    if op == "copysign":
        return intrinsic(fn, "copysign", t, a, b)
    if op == "sigmoid":
        # from e^-|x|, which cannot overflow: 1/(1+e) for x >= 0, e/(1+e) below
        small = emit_math(fn, "exp", fn.val(f"fneg {t} {intrinsic(fn, 'fabs', t, a)}"), dtype)
        above = fn.val(f"fcmp oge {t} {a}, {lit(0)}")
        top = fn.val(f"select i1 {above}, {t} {lit(1)}, {t} {small}")
        return fn.val(f"fdiv {t} {top}, {fn.val(f'fadd {t} {small}, {lit(1)}')}")
    if op in ("floor_divide", "remainder"):
        return _floor_division(fn, op, a, b, dtype)
    if op == "fmod":
        return emit_math2(fn, "fmod", a, b, dtype)
    if op == "pow":
        return _power(fn, a, b, dtype)
    if op in ("atan2", "hypot"):
        return emit_math2(fn, op, a, b, dtype)
    if op == "logaddexp":
        return _logaddexp(fn, a, b, dtype)
    return emit_math(fn, op, a, dtype)


def _power(fn: Fn, a: str, b: str, dtype: DType) -> str:
    t = register_type(dtype)
    if b == constant(dtype, 2):
        return fn.val(f"fmul {t} {a}, {a}")
    if b == constant(dtype, 1):
        return a
    if b == constant(dtype, 3):
        return fn.val(f"fmul {t} {fn.val(f'fmul {t} {a}, {a}')}, {a}")
    if b == constant(dtype, -1):
        return fn.val(f"fdiv {t} {constant(dtype, 1)}, {a}")
    return emit_math2(fn, "pow", a, b, dtype)


def _floor_division(fn: Fn, op: str, a: str, b: str, dtype: DType) -> str:
    """Python's `//` and `%` for floats, built on fmod as NumPy and PyTorch build them."""
    t = register_type(dtype)
    zero = constant(dtype, 0)
    rest = emit_math2(fn, "fmod", a, b, dtype)
    uneven = fn.val(f"fcmp one {t} {rest}, {zero}")
    below = fn.val(f"fcmp olt {t} {rest}, {zero}")
    divisor_below = fn.val(f"fcmp olt {t} {b}, {zero}")
    differ = fn.val(f"xor i1 {below}, {divisor_below}")
    fix = fn.val(f"and i1 {uneven}, {differ}")
    if op == "remainder":
        moved = fn.val(f"fadd {t} {rest}, {b}")
        out = fn.val(f"select i1 {fix}, {t} {moved}, {t} {rest}")
        signed_zero = intrinsic(fn, "copysign", t, zero, b)
        none = fn.val(f"fcmp oeq {t} {rest}, {zero}")
        return fn.val(f"select i1 {none}, {t} {signed_zero}, {t} {out}")
    whole = fn.val(f"fdiv {t} {fn.val(f'fsub {t} {a}, {rest}')}, {b}")
    down = fn.val(f"fsub {t} {whole}, {constant(dtype, 1)}")
    whole = fn.val(f"select i1 {fix}, {t} {down}, {t} {whole}")
    floor = intrinsic(fn, "floor", t, whole)
    gap = fn.val(f"fsub {t} {whole}, {floor}")
    up = fn.val(f"fcmp ogt {t} {gap}, {constant(dtype, 0.5)}")
    above = fn.val(f"fadd {t} {floor}, {constant(dtype, 1)}")
    near = fn.val(f"select i1 {up}, {t} {above}, {t} {floor}")
    plain = fn.val(f"fdiv {t} {a}, {b}")
    signed_zero = intrinsic(fn, "copysign", t, zero, plain)
    is_zero = fn.val(f"fcmp oeq {t} {whole}, {zero}")
    near = fn.val(f"select i1 {is_zero}, {t} {signed_zero}, {t} {near}")
    by_zero = fn.val(f"fcmp oeq {t} {b}, {zero}")
    return fn.val(f"select i1 {by_zero}, {t} {plain}, {t} {near}")


def _logaddexp(fn: Fn, a: str, b: str, dtype: DType) -> str:
    """max + log1p(exp(-|a - b|)); equal operands (infinities too) give a + log 2."""
    t = register_type(dtype)
    more = fn.val(f"fcmp ogt {t} {a}, {b}")
    top = fn.val(f"select i1 {more}, {t} {a}, {t} {b}")
    gap = intrinsic(fn, "fabs", t, fn.val(f"fsub {t} {a}, {b}"))
    same = fn.val(f"fcmp oeq {t} {a}, {b}")
    gap = fn.val(f"select i1 {same}, {t} {constant(dtype, 0)}, {t} {gap}")
    tail = emit_math(fn, "exp", fn.val(f"fneg {t} {gap}"), dtype)
    return fn.val(f"fadd {t} {top}, {emit_math(fn, 'log1p', tail, dtype)}")
