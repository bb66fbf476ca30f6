"""Assertions and symbolic numbers of PyTorch's, which here are plain ones.

Sizes are Python integers, so `SymInt` and its relatives are int, float and bool, and functions
of them are Python's.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

from facula.tensor import Tensor

__all__ = ["SymInt", "SymFloat", "SymBool", "sym_float", "sym_int", "sym_ite", "sym_max",
           "sym_min", "sym_not", "sym_sqrt", "sym_sum"]

SymInt, SymFloat, SymBool = builtins.int, builtins.float, builtins.bool

sym_max, sym_min, sym_sqrt = max, min, math.sqrt


def sym_float(a: Any) -> builtins.float:
    """float(a)."""
    return float(a)


def sym_int(a: Any) -> builtins.int:
    """int(a): towards zero."""
    return int(a)


def sym_not(a: Any) -> builtins.bool:
    """not a."""
    return not a


def sym_ite(b: Any, t: Any, f: Any) -> Any:
    """t if b, else f."""
    return t if b else f


def sym_sum(args: Any) -> Any:
    """The sum of the numbers."""
    return sum(args)


def _check_with(error_type: type[Exception], cond: Any, message: Callable[[], str] | None) -> None:
    if not isinstance(cond, bool):
        raise TypeError(f"cond must be a bool, but got {type(cond)}")
    if not cond:
        raise error_type("Expected cond to be True, but got False." if message is None
                         else str(message() if callable(message) else message))


def _check(cond: Any, message: Any = None) -> None:
    """RuntimeError with the text that `message()` returns, unless `cond`."""
    _check_with(RuntimeError, cond, message)


def _check_index(cond: Any, message: Any = None) -> None:
    """IndexError with the text that `message()` returns, unless `cond`."""
    _check_with(IndexError, cond, message)


def _check_value(cond: Any, message: Any = None) -> None:
    """ValueError with the text that `message()` returns, unless `cond`."""
    _check_with(ValueError, cond, message)


def _check_type(cond: Any, message: Any = None) -> None:
    """TypeError with the text that `message()` returns, unless `cond`."""
    _check_with(TypeError, cond, message)


def _check_not_implemented(cond: Any, message: Any = None) -> None:
    """NotImplementedError with the text that `message()` returns, unless `cond`."""
    _check_with(NotImplementedError, cond, message)


def _check_is_size(i: Any, message: Any = None, *, max: Any = None) -> None:
    """RuntimeError unless 0 <= i (and i <= max)."""
    _check_with(RuntimeError, i >= 0 and (max is None or i <= max), message)


def _check_tensor_all_with(error_type: type[Exception], cond: Tensor, message: Any = None) -> None:
    if not isinstance(cond, Tensor) or cond.dtype.kind != "b":
        raise TypeError("cond must be a tensor of bools, not "
                        f"{getattr(cond, 'dtype', type(cond))}")
    _check_with(error_type, bool(cond.all()), message)     # type: ignore[attr-defined]


def _check_tensor_all(cond: Tensor, message: Any = None) -> None:
    """RuntimeError with the text that `message()` returns, unless all of `cond` is True."""
    _check_tensor_all_with(RuntimeError, cond, message)


def _assert(condition: Any, message: str) -> None:
    """AssertionError with the message, unless the condition holds."""
    if not condition:
        raise AssertionError(message)


def _assert_async(condition: Tensor, message: str = "") -> None:
    """RuntimeError with the message, unless the one element of `condition` is not zero.

    It is looked at now, and so the graph is run.
    """
    if not bool(condition):
        raise RuntimeError(message or "Expected Tensor with single nonzero value, but got zero")


def _shape_as_tensor(input: Tensor) -> Tensor:
    """The shape as a tensor of int64."""
    from facula.ops.from_data import tensor
    return tensor(list(input.shape))
