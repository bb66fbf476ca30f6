"""Transcendental functions as straight-line code, which the loop vectoriser turns into vectors.

`emit_math` and `emit_math2` write the value of a function for one element.  No branch, no call
of the C library: whatever loop stands around the code can be vectorised.
"""

from __future__ import annotations

from collections.abc import Callable

from facula.codegen.elements.expr import register_type
from facula.codegen.llvm import Fn
from facula.codegen.elements.mathlib import (
    arcs,
    binary,
    error,
    exponential,
    logarithm,
    trigonometric,
)
from facula.codegen.elements.mathlib.values import Val
from facula.dtype import DType

__all__ = ["emit_math", "emit_math2", "FUNCTIONS", "FUNCTIONS2"]

FUNCTIONS: dict[str, Callable[[Val], Val]] = {
    "exp": exponential.exp, "exp2": exponential.exp2, "expm1": exponential.expm1,
    "sinh": exponential.sinh, "cosh": exponential.cosh, "tanh": exponential.tanh,
    "log": logarithm.log, "log2": logarithm.log2, "log10": logarithm.log10,
    "log1p": logarithm.log1p,
    "asinh": logarithm.asinh, "acosh": logarithm.acosh, "atanh": logarithm.atanh,
    "erf": error.erf, "erfc": error.erfc, "erfinv": error.erfinv,
    "sin": trigonometric.sin, "cos": trigonometric.cos, "tan": trigonometric.tan,
    "asin": arcs.asin, "acos": arcs.acos, "atan": arcs.atan,
}
"""Functions of one number."""

_BOUNDED: dict[str, Callable[[Val], Val]] = {
    "near sin": trigonometric.near_sin, "near cos": trigonometric.near_cos,
}
"""Functions of one number that is known to be small."""

FUNCTIONS2: dict[str, Callable[[Val, Val], Val]] = {
    "atan2": arcs.atan2, "pow": binary.pow_, "hypot": binary.hypot, "fmod": binary.fmod,
}
"""Functions of two numbers."""


def emit_math(fn: Fn, name: str, value: str, dtype: DType) -> str:
    """Write `name`(value) for float32 or float64; KeyError for a function that is not here.

    "near sin" and "near cos" are for values of at most `trigonometric.NEAR`.
    """
    function = _BOUNDED.get(name) or FUNCTIONS[name]
    return function(Val(fn, value, register_type(dtype))).name


def emit_math2(fn: Fn, name: str, a: str, b: str, dtype: DType) -> str:
    """Write `name`(a, b) for float32 or float64; KeyError for a function that is not here."""
    t = register_type(dtype)
    return FUNCTIONS2[name](Val(fn, a, t), Val(fn, b, t)).name
