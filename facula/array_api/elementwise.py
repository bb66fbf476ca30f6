"""Functions of one or two arrays, element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import facula
from facula.array_api._shared import both, is_scalar
from facula.tensor import Tensor

_UNARY = ("abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh", "exp",
          "expm1", "floor", "isfinite", "isinf", "isnan", "log", "log1p", "log2", "log10",
          "logical_not", "negative", "positive", "real", "reciprocal", "round", "signbit", "sin",
          "sinh", "sqrt", "square", "tan", "tanh", "trunc")

_BINARY = {"add": "add", "atan2": "atan2", "bitwise_and": "bitwise_and",
           "bitwise_left_shift": "bitwise_left_shift", "bitwise_or": "bitwise_or",
           "bitwise_right_shift": "bitwise_right_shift", "bitwise_xor": "bitwise_xor",
           "copysign": "copysign", "divide": "divide", "equal": "eq",
           "greater": "gt", "greater_equal": "ge",
           "hypot": "hypot", "less": "lt", "less_equal": "le", "logaddexp": "logaddexp",
           "logical_and": "logical_and", "logical_or": "logical_or",
           "logical_xor": "logical_xor", "maximum": "maximum", "minimum": "minimum",
           "multiply": "multiply", "nextafter": "nextafter", "not_equal": "ne", "pow": "pow",
           "remainder": "remainder", "subtract": "subtract"}
"""The standard's name, and the operation it is."""

__all__ = [*_UNARY, *_BINARY, "bitwise_invert", "clip", "conj", "floor_divide", "imag",
           "sign"]


def _unary(name: str) -> Callable[..., Tensor]:
    operation = getattr(facula, name)

    def function(x: Tensor, /) -> Tensor:
        return operation(x)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`facula.{name}` of each element; a new array of the shape of `x`."
    return function


def _binary(name: str, operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def function(x1: Any, x2: Any, /) -> Tensor:
        return operation(*both(x1, x2))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = (f"`{name}` of each pair of elements; the operands broadcast and are "
                        "promoted to their common dtype.  One of them may be a Python number.")
    return function


for _name in _UNARY:
    globals()[_name] = _unary(_name)
for _name, _of in _BINARY.items():
    globals()[_name] = _binary(_name, getattr(facula, _of))


def bitwise_invert(x: Tensor, /) -> Tensor:
    """Every bit of each element inverted; of booleans the negation."""
    return facula.bitwise_not(x)


def conj(x: Tensor, /) -> Tensor:
    """The complex conjugate of each element, a new array; real arrays are as they are."""
    return facula.conj_physical(x)


def imag(x: Tensor, /) -> Tensor:
    """The imaginary part of each element; 0 for real arrays."""
    return facula.imag(x) if x.dtype.is_complex else facula.zeros_like(x)


def sign(x: Tensor, /) -> Tensor:
    """-1, 0 or 1 for each element, of complex ones x / |x|; NaN for NaN."""
    if x.dtype.is_complex:
        return facula.where(facula.eq(x, 0), facula.zeros_like(x), facula.sgn(x))
    s = facula.sign(x)
    return facula.where(facula.isnan(x), x, s) if x.dtype.is_floating_point else s


def floor_divide(x1: Any, x2: Any, /) -> Tensor:
    """The largest integers not above x1 / x2; infinite operands give what their quotient gives."""
    a, b = both(x1, x2)
    whole = facula.floor_divide(a, b)
    if not whole.dtype.is_floating_point:
        return whole
    return facula.where(facula.isinf(a) | facula.isinf(b), facula.floor(a / b), whole)


def clip(x: Tensor, /, min: Any = None, max: Any = None) -> Tensor:
    """Each element limited to [min, max], of which either may be left out; the dtype of `x`.

    The limits are numbers or arrays that broadcast with `x`.
    """
    for limit, bounded in ((min, facula.maximum), (max, facula.minimum)):
        if limit is not None:
            bound: Any = facula.tensor(limit) if is_scalar(limit) else limit
            x = bounded(x, bound.to(x.dtype))
    return x.clone() if min is None and max is None else x
