"""What the functions of the standard share: promotion among arrays and numbers, and axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import facula
from facula.dtype import DType
from facula.ops.promote import number_dtype, promote_types
from facula.tensor import Tensor

__all__ = ["DTYPES", "Axis", "axes_of", "both", "is_scalar", "plain_axis", "result_type"]

Axis = int | tuple[int, ...] | None

_NAMES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
          "float32", "float64", "complex64", "complex128")

DTYPES: dict[str, DType] = {name: getattr(facula, name) for name in _NAMES}
"""The dtypes of the standard, by name."""


def is_scalar(value: Any) -> bool:
    """Whether this is a Python number, whose kind takes part in promotion and whose size not."""
    return isinstance(value, (bool, int, float, complex))


def _with_scalar(dtype: DType, value: Any) -> DType:
    """The dtype of an array of `dtype` with a Python number: the array's, in the number's kind."""
    if isinstance(value, complex):
        return dtype if dtype.kind == "c" else (
            dtype if dtype.kind == "f" else number_dtype(1.0)).to_complex()
    if isinstance(value, float):
        return dtype if dtype.kind in "fc" else number_dtype(1.0)
    return dtype if dtype.kind != "b" or isinstance(value, bool) else number_dtype(value)


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype that an operation on these arrays, dtypes and Python numbers gives.

    Unlike `facula.result_type`, an array of zero dimensions counts like any other.  ValueError
    if there is neither an array nor a dtype.
    """
    found: DType | None = None
    for value in arrays_and_dtypes:
        if not is_scalar(value):
            dtype = value if isinstance(value, DType) else value.dtype
            found = dtype if found is None else promote_types(found, dtype)
    if found is None:
        raise ValueError("result_type() needs at least one array or dtype among its arguments")
    for value in arrays_and_dtypes:
        if is_scalar(value):
            found = _with_scalar(found, value)
    return found


def both(x1: Any, x2: Any) -> tuple[Tensor, Tensor]:
    """The two operands as arrays of their common dtype."""
    dtype = result_type(x1, x2)
    return _as(x1, dtype), _as(x2, dtype)


def _as(x: Any, dtype: DType) -> Tensor:
    return facula.tensor(x, dtype=dtype) if is_scalar(x) else x.to(dtype)


def plain_axis(axis: int, ndim: int) -> int:
    """The axis counted from the front; IndexError if there is none such."""
    if not -ndim <= axis < ndim:
        raise IndexError(f"axis {axis} is out of range for an array of {ndim} dimensions: it has "
                         f"to be in [{-ndim}, {ndim - 1}]")
    return axis % ndim


def axes_of(axis: Axis, ndim: int) -> tuple[int, ...]:
    """The axes meant by None (all of them), a number or a tuple, each counted from the front."""
    if axis is None:
        return tuple(range(ndim))
    given: Sequence[int] = (axis,) if isinstance(axis, int) else axis
    axes = tuple(plain_axis(a, ndim) for a in given)
    if len(set(axes)) < len(axes):
        raise ValueError(f"axis {tuple(given)} names a dimension more than once")
    return axes
