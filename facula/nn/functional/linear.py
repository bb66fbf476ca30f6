"""Linear maps: linear, bilinear."""

from __future__ import annotations

import math
from typing import Any

from facula.errors import DTypeError, ShapeError
from facula.nn.functional.common import shape_of
from facula.ops.define import autocast_to, op
from facula.ops.promote import expand_to, type_name
from facula.tensor import Tensor, prim

__all__ = ["linear", "bilinear"]


def _one_dtype(name: str, *tensors: Tensor) -> None:
    first = tensors[0].dtype
    for t in tensors[1:]:
        if t.dtype is not first:
            raise DTypeError(f"{name}: mat1 and mat2 must have the same dtype, but got "
                             f"{type_name(first)} and {type_name(t.dtype)}")


def _samples(make: Any) -> list[Any]:
    return [((make(5, 3), make(4, 3), make(4)), {}), ((make(2, 5, 3), make(4, 3)), {}),
            ((make(3), make(4, 3), make(4)), {}), ((make(5, 3), make(3)), {}),
            ((make(0, 3), make(4, 3), make(4)), {}), ((make(5, 0), make(4, 0), make(4)), {})]


@op(samples=_samples)
@autocast_to("lower")
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input `[*, in]` times weight `[out, in]` transposed, plus bias `[out]`: `[*, out]`.

    A weight `[in]` gives `[*]`.  Raises ShapeError where the sizes `in` differ.
    """
    x, w = shape_of(input), shape_of(weight)
    if len(w) not in (1, 2):
        raise ShapeError(f"linear: weight must have 1 or 2 dimensions, got shape {list(w)}")
    if not x:
        raise ShapeError("linear: both arguments need to be at least 1D, but the input is 0D")
    k = w[-1]
    rows = math.prod(x[:-1])
    n = w[0] if len(w) == 2 else 1
    if x[-1] != k:
        raise ShapeError(
            f"mat1 and mat2 shapes cannot be multiplied ({rows}x{x[-1]} and {k}x{n}): linear "
            f"was given input of shape {list(x)} and weight of shape {list(w)}")
    _one_dtype("linear", input, weight, *(() if bias is None else (bias,)))
    a = input if len(x) == 2 else prim("reshape", input, shape=(rows, k))
    b = weight if len(w) == 2 else prim("reshape", weight, shape=(1, k))
    out = prim("matmul", a, prim("permute", b, attrs=((1, 0),)))
    if bias is not None:
        have = shape_of(bias)
        if have not in ((n,), (1,), ()):
            raise ShapeError(f"linear: bias of shape {list(have)} does not fit {n} outputs "
                             f"(input {list(x)}, weight {list(w)})")
        out = prim("add", out, expand_to(bias, (rows, n)))
    shape = (*x[:-1], n) if len(w) == 2 else x[:-1]
    return out if shape == (rows, n) else prim("reshape", out, shape=shape)


@op(samples=lambda make: [((make(5, 3), make(5, 2), make(4, 3, 2), make(4)), {}),
                          ((make(2, 5, 3), make(2, 5, 2), make(4, 3, 2)), {}),
                          ((make(3), make(2), make(4, 3, 2), make(4)), {})])
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor,
             bias: Tensor | None = None) -> Tensor:
    """input1 `[*, in1]`, weight `[out, in1, in2]`, input2 `[*, in2]`: `[*, out]`."""
    x, y, w = shape_of(input1), shape_of(input2), shape_of(weight)
    if len(w) != 3:
        raise ShapeError(f"bilinear: weight must have 3 dimensions, got shape {list(w)}")
    if x[:-1] != y[:-1]:
        raise ShapeError("bilinear(): input batch dimensions do not match: got "
                         f"{list(x)} and {list(y)}")
    out, in1, in2 = w
    for name, have, want in (("input1", x, in1), ("input2", y, in2)):
        if not have or have[-1] != want:
            raise ShapeError(f"bilinear(): {name} size does not match weight size: got "
                             f"{list(have)} but expected last dim {want} (weight {list(w)})")
    _one_dtype("bilinear", input1, input2, weight)
    rows = math.prod(x[:-1])
    a = prim("reshape", input1, shape=(rows, in1))
    # [in1, out * in2]: one product, then a weighted sum over in2
    b = prim("reshape", prim("permute", weight, attrs=((1, 0, 2),)), shape=(in1, out * in2))
    half = prim("reshape", prim("matmul", a, b), shape=(rows, out, in2))
    other = prim("reshape", input2, shape=(rows, 1, in2))
    result = prim("sum", prim("mul", half, expand_to(other, (rows, out, in2))), attrs=((2,),))
    if bias is not None:
        result = prim("add", result, expand_to(bias, (rows, out)))
    return prim("reshape", result, shape=(*x[:-1], out))
