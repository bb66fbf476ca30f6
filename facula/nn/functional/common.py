"""What the functions share: constants, checks, norms, reductions of losses."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from facula.dtype import DType, int64
from facula.errors import BroadcastError, DTypeError
from facula.ops.given import in_place
from facula.ops.promote import (
    broadcast_shapes,
    cast,
    expand_to,
    full_like,
    type_name,
)
from facula.ops.reductions import constant, reduce_to, widened
from facula.tensor import Tensor, prim

__all__ = ["number", "float_only", "half_wise", "applied", "vector_norm", "reduced", "legacy",
           "same_shape", "per_channel", "axis_iota", "shape_of", "blocked", "mul_number",
           "add_number"]


def shape_of(t: Tensor) -> tuple[int, ...]:
    """The shape as a plain tuple."""
    return t._node.spec.shape


def number(like: Tensor, value: float) -> Tensor:
    """The number `value` in the shape and dtype of `like`."""
    kind = like._node.spec.dtype.kind
    return full_like(like, float(value) if kind == "f" else complex(value) if kind == "c"
                     else int(value))


def mul_number(t: Tensor, value: float) -> Tensor:
    """t * value, for a number that does not change."""
    return t if value == 1 else prim("mul", t, number(t, value))


def add_number(t: Tensor, value: float) -> Tensor:
    """t + value, for a number that does not change."""
    return t if value == 0 else prim("add", t, number(t, value))


def float_only(name: str, x: Tensor) -> None:
    """Raise DTypeError unless `x` is a real floating tensor."""
    if x._node.spec.dtype.kind != "f":
        raise DTypeError(f'"{name}" not implemented for \'{type_name(x.dtype)}\'; convert the '
                         "input to a floating dtype, e.g. with .float()")


def half_wise(x: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """`fn(x)`; 16-bit floats are computed in float32 and rounded once."""
    return cast(fn(widened(x)), x.dtype)


def applied(call: Any, name: str, inplace: bool, input: Tensor, *args: Any) -> Tensor:
    """`call(input, *args)`, written over `input` if `inplace`."""
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not "
                        f"{type(input).__name__}")
    result: Tensor = in_place(call, name)(input, *args) if inplace else call(input, *args)
    return result


def blocked(value: Tensor, where: Tensor) -> Tensor:
    """`value`, through which no gradient flows where the bool tensor `where` holds."""
    return prim("where", where, constant(value), value)


def axis_iota(shape: Sequence[int], axis: int) -> Tensor:
    """The index along `axis`, int64, in `shape`."""
    line = prim("iota", shape=(shape[axis],), dtype=int64)
    ones = [1] * len(shape)
    ones[axis] = shape[axis]
    return expand_to(prim("reshape", line, shape=tuple(ones)), tuple(shape))


def per_channel(values: Tensor, shape: Sequence[int], axis: int = 1) -> Tensor:
    """A vector with one value a channel, repeated to `shape`, whose channels are `axis`."""
    ones = [1] * len(shape)
    ones[axis] = shape[axis]
    return expand_to(prim("reshape", values, shape=tuple(ones)), tuple(shape))


def vector_norm(x: Tensor, p: float, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """The p-norm over axes, real, whose gradient at 0 is 0."""
    if x._node.spec.dtype.kind == "c":
        x = prim("abs", x)
    if not axes:
        return prim("abs", x)
    if p == math.inf or p == -math.inf:
        return reduce_to("amax" if p > 0 else "amin", prim("abs", x), axes, keepdim)
    if p == 0:
        some = cast(prim("ne", x, number(x, 0)), x.dtype)
        return reduce_to("sum", some, axes, keepdim)
    if p == 1:
        return reduce_to("sum", prim("abs", x), axes, keepdim)
    if p == 2:
        total = reduce_to("sum", prim("mul", x, x), axes, keepdim)
        zero = prim("eq", total, number(total, 0))
        root = prim("sqrt", prim("where", zero, number(total, 1), total))
        return prim("where", zero, number(total, 0), root)
    size = prim("abs", x)
    total = reduce_to("sum", prim("pow", size, number(size, p)), axes, keepdim)
    zero = prim("eq", total, number(total, 0))
    safe = prim("where", zero, number(total, 1), total)
    return prim("where", zero, number(total, 0), prim("pow", safe, number(total, 1 / p)))


# ---------------------------------------------------------------- losses

def legacy(size_average: Any, reduce: Any, reduction: str) -> str:
    """The reduction that the two arguments PyTorch retired stand for, if they are given."""
    if size_average is None and reduce is None:
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"{reduction} is not a valid value for reduction")
        return reduction
    out = "none" if reduce is False else "sum" if size_average is False else "mean"
    warnings.warn("size_average and reduce args will be deprecated, please use "
                  f"reduction={out!r} instead.", stacklevel=3)
    return out


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """The loss of every element, their sum, or their mean."""
    if reduction == "none":
        return loss
    total = reduce_to("sum", loss, tuple(range(loss.ndim)))
    if reduction == "sum":
        return total
    return prim("div", total, number(total, loss.numel()))


def same_shape(name: str, input: Tensor, target: Tensor, broadcast: bool = False) -> None:
    """Raise BroadcastError unless the shapes are equal (or broadcast, if that is asked for)."""
    for what, value in (("input", input), ("target", target)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}(): argument '{what}' must be Tensor, not "
                            f"{type(value).__name__}")
    a, b = shape_of(input), shape_of(target)
    if a == b:
        return
    if broadcast:
        broadcast_shapes(a, b)
        return
    text = (f"{name}: input of shape {list(a)} and target of shape {list(b)} differ; a loss "
            "does not broadcast, because that is nearly always a mistake")
    advice = _advice(input, target)
    error = BroadcastError(f"{text}. {advice}")
    error.brief, error.fix = text, advice       # type: ignore[attr-defined]
    raise error


def _advice(input: Tensor, target: Tensor) -> str:
    a, b = shape_of(input), shape_of(target)
    if len(a) == len(b) + 1 and a[-1] == 1 and a[:-1] == b:
        return "Use input.squeeze(-1) or target.unsqueeze(-1)"
    if len(b) == len(a) + 1 and b[-1] == 1 and b[:-1] == a:
        return "Use target.squeeze(-1) or input.unsqueeze(-1)"
    if len(a) == len(b) + 1 and a[0] == (b[0] if b else None) \
            and _dtype_kind(target.dtype) in "ui":
        return ("For class numbers use cross_entropy (nn.CrossEntropyLoss), or one-hot targets: "
                f"F.one_hot(target, {a[1]}).to(facula.{input.dtype.name})")
    return "Give both the same shape, or pass broadcast=True if repeating is what you mean"


def _dtype_kind(dtype: DType) -> str:
    return dtype.kind
