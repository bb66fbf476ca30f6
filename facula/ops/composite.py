"""Element-by-element operations that are made of several primitives, or take three operands."""

from __future__ import annotations

import math
from typing import Any

from facula.dtype import bool_
from facula.errors import DTypeError
from facula.ops.define import composite, op
from facula.ops.given import into
from facula.ops.promote import (
    broadcast_tensors_to,
    cast,
    common_dtype,
    full_like,
    operands,
    type_name,
)
from facula.ops.surface import need_tensors, number_operand, public
from facula.tensor import Tensor, prim, scalar

__all__ = ["where", "clamp", "clamp_min", "clamp_max", "lerp", "addcmul", "addcdiv", "xlogy",
           "logaddexp2", "heaviside", "isclose", "allclose", "equal"]

_FAMILY = "elementwise"


def _as_scalar(value: Any, dtype: Any) -> Tensor:
    """A tensor as it is, a number as a runtime scalar of `dtype`."""
    return value if isinstance(value, Tensor) else scalar(number_operand(value, dtype), dtype)


# ---------------------------------------------------------------- choosing

@composite
def _where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    dtype = common_dtype((a, b))
    c, x, y = broadcast_tensors_to((condition, cast(a, dtype), cast(b, dtype)))
    return prim("where", cast(c, bool_), x, y)


def where(condition: Tensor, input: Any = None, other: Any = None, *,
          out: Tensor | None = None) -> Any:
    """input where condition holds, other elsewhere; all three broadcast.

    With the condition alone: the indices where it holds, one tensor for each dimension.
    """
    if input is None and other is None:
        return condition.nonzero(as_tuple=True)          # type: ignore[attr-defined]
    if condition.dtype.kind not in "bu":
        raise DTypeError("where expected condition to be a boolean tensor, but got a tensor with "
                         f"dtype {type_name(condition.dtype)}")
    dtype = common_dtype((input, other))
    result = _where(condition, _as_scalar(input, dtype), _as_scalar(other, dtype))
    return into(out, result)


def _where_method(self: Tensor, condition: Tensor, other: Any) -> Tensor:
    """self where condition holds, other elsewhere."""
    result: Tensor = where(condition, self, other)
    return result


public(where, "where", _FAMILY, method=False, samples=lambda make: [
    ((make(3, 4, dtype=bool_), make(3, 4), make(3, 4)), {}),
    ((make(3, 1, dtype=bool_), make(4), make()), {}),
    ((make(5, dtype=bool_), make(5), 0.0), {}), ((make(5, dtype=bool_), 1.5, make(5)), {})])
Tensor.where = _where_method                 # type: ignore[attr-defined]


@op(name="clamp", register=False)
def _clamp(input: Tensor, low: Any, high: Any) -> Tensor:
    """Below `low` becomes low, above `high` high; NaN stays.  Inside, the gradient passes."""
    values = [v for v in (input, low, high) if v is not None]
    dtype = common_dtype(values)
    tensors = broadcast_tensors_to([
        cast(v, dtype) if isinstance(v, Tensor)
        else full_like(input, number_operand(v, dtype), dtype) for v in values])
    x = tensors[0]
    if low is not None:
        x = prim("where", prim("lt", x, tensors[1]), tensors[1], x)
    if high is not None:
        x = prim("where", prim("gt", x, tensors[-1]), tensors[-1], x)
    return x


def clamp(input: Tensor, min: Any = None, max: Any = None, *, out: Tensor | None = None) -> Tensor:
    """input limited to [min, max]; each bound a number, a tensor that broadcasts, or None."""
    need_tensors("clamp", input, input)
    if min is None and max is None:
        raise ValueError("clamp: At least one of 'min' or 'max' must not be None")
    result: Tensor = _clamp(input, min, max) if out is None else _clamp(input, min, max, out=out)
    return result


def clamp_min(input: Tensor, min: Any) -> Tensor:
    """input, and min where it is smaller."""
    return clamp(input, min=min)


def clamp_max(input: Tensor, max: Any) -> Tensor:
    """input, and max where it is larger."""
    return clamp(input, max=max)


def _clamp_samples(make: Any) -> list[Any]:
    return [((make(3, 4), -0.5, 0.5), {}), ((make(7),), {"min": 0}), ((make(7),), {"max": 0.25}),
            ((make(3, 4), make(4), None), {}), ((make(3, 4), make(3, 1), make(4)), {})]


public(clamp, "clamp", _FAMILY, inplace=True, samples=_clamp_samples, aliases=("clip",))
public(clamp_min, "clamp_min", _FAMILY, inplace=True,
       samples=lambda make: [((make(5), 0.1), {})])
public(clamp_max, "clamp_max", _FAMILY, inplace=True,
       samples=lambda make: [((make(5), 0.1), {})])


# ---------------------------------------------------------------- three operands

@composite
def _lerp(start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    s, e, w = broadcast_tensors_to((start, end, cast(weight, start.dtype)))
    # From the nearer end, so that weight 1 gives `end` exactly.
    d = prim("sub", e, s)
    small = prim("lt", prim("abs", w), full_like(w, 0.5)) if w.dtype.kind == "f" else None
    near = prim("add", s, prim("mul", w, d))
    if small is None:
        return near
    far = prim("sub", e, prim("mul", d, prim("sub", full_like(w, 1.0), w)))
    return prim("where", small, near, far)


@composite
def _lerp_near(start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    """As `_lerp`, for a number of absolute value below a half."""
    s, e, w = broadcast_tensors_to((start, end, weight))
    return prim("add", s, prim("mul", w, prim("sub", e, s)))


@composite
def _lerp_far(start: Tensor, end: Tensor, rest: Tensor) -> Tensor:
    """end - (end - start) * rest, where rest = 1 - weight."""
    s, e, r = broadcast_tensors_to((start, end, rest))
    return prim("sub", e, prim("mul", prim("sub", e, s), r))


def lerp(input: Tensor, end: Tensor, weight: Any, *, out: Tensor | None = None) -> Tensor:
    """input + weight * (end - input); the weight is a number or a tensor."""
    if input.dtype is not end.dtype:
        raise DTypeError(f"expected dtype {input.dtype.name} for `end` but got dtype "
                         f"{end.dtype.name}")
    if isinstance(weight, Tensor):
        result: Tensor = _lerp(input, end, weight)
    elif isinstance(weight, (int, float)) and not -0.5 < weight < 0.5:
        result = _lerp_far(input, end, _as_scalar(1.0 - weight, input.dtype))
    else:
        result = _lerp_near(input, end, _as_scalar(weight, input.dtype))
    return into(out, result)


public(lerp, "lerp", _FAMILY, inplace=True, samples=lambda make: [
    ((make(3, 4), make(3, 4), 0.25), {}), ((make(3, 4), make(3, 4), 0.75), {}),
    ((make(3, 4), make(4), make(3, 1)), {})])


@composite
def _addcmul(input: Tensor, a: Tensor, b: Tensor, value: Tensor) -> Tensor:
    x, s, t = operands(input, a, b)
    v = prim("expand", prim("reshape", cast(value, x.dtype), shape=(1,) * x.ndim),
             shape=x._node.spec.shape) if x.ndim else cast(value, x.dtype)
    return prim("add", x, prim("mul", v, prim("mul", s, t)))


@composite
def _addcdiv(input: Tensor, a: Tensor, b: Tensor, value: Tensor) -> Tensor:
    x, s, t = operands(input, a, b)
    v = prim("expand", prim("reshape", cast(value, x.dtype), shape=(1,) * x.ndim),
             shape=x._node.spec.shape) if x.ndim else cast(value, x.dtype)
    return prim("add", x, prim("mul", v, prim("div", s, t)))


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1,
            out: Tensor | None = None) -> Tensor:
    """input + value * tensor1 * tensor2."""
    result: Tensor = _addcmul(input, tensor1, tensor2, _as_scalar(value, input.dtype))
    return into(out, result)


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1,
            out: Tensor | None = None) -> Tensor:
    """input + value * tensor1 / tensor2."""
    if common_dtype((input, tensor1, tensor2)).kind in "bui":
        raise DTypeError("Integer division with addcdiv is no longer supported; convert the "
                         "operands to a floating dtype, or use div with a rounding_mode")
    result: Tensor = _addcdiv(input, tensor1, tensor2, _as_scalar(value, input.dtype))
    return into(out, result)


public(addcmul, "addcmul", _FAMILY, inplace=True, samples=lambda make: [
    ((make(3, 4), make(3, 4), make(3, 4)), {"value": 0.5}),
    ((make(3, 4), make(3, 1), make(4)), {})])
public(addcdiv, "addcdiv", _FAMILY, inplace=True, samples=lambda make: [
    ((make(3, 4), make(3, 4), make(3, 4, low=0.5, high=2)), {"value": -0.5}),
    ((make(3, 4), make(3, 1), make(4, low=0.5, high=2)), {})])


# ---------------------------------------------------------------- two operands

@op(method=True, inplace=True, samples=lambda make: [
    ((make(3, 4), make(3, 4, low=0.2, high=3)), {}), ((make(3, 1), make(4, low=0.2, high=3)), {}),
    ((2.0, make(4, low=0.2, high=3)), {}), ((make(4), 1.5), {})])
def xlogy(input: Any, other: Any) -> Tensor:
    """input * log(other), and 0 where input is 0 (NaN where other is NaN)."""
    if not isinstance(input, Tensor) and not isinstance(other, Tensor):
        raise TypeError("xlogy(): at least one of input and other must be Tensor")
    x, y = operands(input, other, floating=True)
    # Only where the logarithm is not a number: elsewhere it is the gradient for a 0, too.
    edge = prim("logical_or", prim("le", y, full_like(y, 0.0)), prim("isinf", y))
    skip = prim("logical_and", prim("eq", x, full_like(x, 0.0)), edge)
    safe = prim("where", skip, full_like(y, 1.0), y)
    return prim("mul", x, prim("log", safe))


@op(method=True, samples=lambda make: [((make(3, 4), make(3, 4)), {}), ((make(3, 1), make(4)), {})])
def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """log2(2**input + 2**other), stable."""
    x, y = operands(input, other, floating=True)
    scale = full_like(x, math.log(2))
    return prim("div", prim("logaddexp", prim("mul", x, scale), prim("mul", y, scale)), scale)


@op(method=True, inplace=True, differentiable=False,
    samples=lambda make: [((make(3, 4), make(3, 4)), {}), ((make(3, 4), make()), {})])
def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 below zero, 1 above it, `values` at it."""
    if input.dtype is not values.dtype:
        raise DTypeError("heaviside is not yet implemented for tensors with different dtypes.")
    x, v = broadcast_tensors_to((input, values))
    zero = full_like(x, 0)
    step = prim("cast", prim("gt", x, zero), dtype=x.dtype)
    out = prim("where", prim("eq", x, zero), v, step)
    return out if x.dtype.kind != "f" else prim("where", prim("isnan", x), zero, out)


@op(method=True, inplace=True, samples=lambda make: [((make(3, 4), make(3, 4)), {}),
                                                     ((make(3, 4), make(1)), {})])
def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """input * 2**other."""
    need_tensors("ldexp", input, other)
    x, y = operands(input, other, floating=True)
    return prim("mul", x, prim("exp2", y))


# ---------------------------------------------------------------- closeness

@op(method=True, differentiable=False,
    samples=lambda make: [((make(3, 4), make(3, 4)), {}),
                          ((make(3, 4), make(4)), {"rtol": 0.5, "atol": 0.5})])
def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08,
            equal_nan: bool = False) -> Tensor:
    """Where |input - other| <= atol + rtol * |other|; bool."""
    if input.dtype is not other.dtype:
        raise DTypeError(f"{type_name(input.dtype)} did not match {type_name(other.dtype)}")
    if rtol < 0 or atol < 0:
        raise RuntimeError("rtol and atol must be greater than or equal to zero, but got "
                         f"{rtol} and {atol}")
    a, b = broadcast_tensors_to((input, other))
    close = prim("eq", a, b)
    if a.dtype.kind == "b":
        return close
    if a.dtype.kind in "ui":
        a, b = _double(a), _double(b)
    diff, size = prim("abs", prim("sub", a, b)), prim("abs", b)
    bound = prim("add", full_like(size, float(atol)),
                 prim("mul", full_like(size, float(rtol)), size))
    near = prim("logical_and", prim("isfinite", diff), prim("le", diff, bound))
    if a.dtype.kind == "c":
        near = prim("logical_and", near, prim("isfinite", size))
    close = prim("logical_or", close, near)
    if equal_nan:
        close = prim("logical_or", close, prim("logical_and", prim("isnan", a),
                                               prim("isnan", b)))
    return close


def _double(t: Tensor) -> Tensor:
    from facula.dtype import float64
    return prim("cast", t, dtype=float64)


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08,
             equal_nan: bool = False) -> bool:
    """Whether all elements are close, see `isclose`."""
    near = isclose(input, other, rtol=rtol, atol=atol, equal_nan=equal_nan)
    return bool(prim("all", near, attrs=(tuple(range(near.ndim)),)))


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape and the same elements."""
    if input.shape != other.shape:
        return False
    same: Tensor = input == other                # type: ignore[assignment]
    return bool(prim("all", same, attrs=(tuple(range(same.ndim)),)))


public(allclose, "allclose", _FAMILY, differentiable=False)
public(equal, "equal", _FAMILY, differentiable=False)
