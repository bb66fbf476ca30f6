"""Complex operations on one element, given as (real, imaginary) pairs."""

from __future__ import annotations

from typing import Any

from facula.codegen.elements.expr import constant, part, register_type
from facula.codegen.llvm import Fn
from facula.dtype import DType

__all__ = ["emit_complex", "COMPLEX_OPS"]

COMPLEX_OPS = frozenset("""add sub mul neg conj real imag abs eq ne div reciprocal alias where cast
isnan isinf isfinite logical_not logical_and logical_or logical_xor""".split())
"""What is lowered for complex operands; the rest runs through NumPy."""


def emit_complex(fn: Fn, op: str, args: list[Any], dtype: DType) -> Any:
    """The result of `op` on complex operands; KeyError for what has no lowering."""
    from facula.codegen.elements.float_expr import emit_float
    real = part(dtype)
    t = register_type(real)
    (ar, ai) = args[0]

    def do(name: str, *operands: str) -> str:
        return emit_float(fn, name, list(operands), real)

    if op == "real":
        return ar
    if op == "imag":
        return ai
    if op == "conj":
        return ar, do("neg", ai)
    if op == "neg":
        return do("neg", ar), do("neg", ai)
    if op == "abs":
        return do("hypot", ar, ai)
    if op in ("isnan", "isinf"):
        return fn.val(f"or i1 {do(op, ar)}, {do(op, ai)}")
    if op == "isfinite":
        return fn.val(f"and i1 {do(op, ar)}, {do(op, ai)}")
    if op == "reciprocal":
        return _divide(fn, (constant(real, 1), constant(real, 0)), (ar, ai), real)
    br, bi = args[1]
    if op in ("add", "sub"):
        return do(op, ar, br), do(op, ai, bi)
    if op == "mul":
        return (fn.val(f"fsub contract {t} {do('mul', ar, br)}, {do('mul', ai, bi)}"),
                fn.val(f"fadd contract {t} {do('mul', ar, bi)}, {do('mul', ai, br)}"))
    if op == "div":
        return _divide(fn, (ar, ai), (br, bi), real)
    if op == "eq":
        return fn.val(f"and i1 {do('eq', ar, br)}, {do('eq', ai, bi)}")
    if op == "ne":
        return fn.val(f"or i1 {do('ne', ar, br)}, {do('ne', ai, bi)}")
    raise KeyError(op)


def _divide(fn: Fn, a: tuple[str, str], b: tuple[str, str], real: DType) -> tuple[str, str]:
    """Smith's division: scaled by the larger part of the divisor, so nothing overflows early."""
    from facula.codegen.elements.float_expr import emit_float
    t = register_type(real)

    def do(name: str, *operands: str) -> str:
        return emit_float(fn, name, list(operands), real)

    def pick(condition: str, x: str, y: str) -> str:
        return fn.val(f"select i1 {condition}, {t} {x}, {t} {y}")

    (ar, ai), (br, bi) = a, b
    one = constant(real, 1)
    wide = do("ge", do("abs", br), do("abs", bi))
    big, small = pick(wide, br, bi), pick(wide, bi, br)
    zero = do("eq", big, constant(real, 0))
    ratio = do("div", small, pick(zero, one, big))
    scale = do("div", one, do("add", big, do("mul", small, ratio)))
    first, second = pick(wide, ar, ai), pick(wide, ai, ar)
    re = do("mul", do("add", first, do("mul", second, ratio)), scale)
    turned = do("sub", second, do("mul", first, ratio))
    im = do("mul", pick(wide, turned, do("neg", turned)), scale)
    # by zero: each part by the zero alone, so that finite numbers become infinities
    size = do("abs", br)
    return pick(zero, do("div", ar, size), re), pick(zero, do("div", ai, size), im)
