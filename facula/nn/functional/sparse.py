"""Looking rows up by number, and numbers as rows: embedding, one_hot."""

from __future__ import annotations

from typing import Any

from facula.dtype import int32, int64
from facula.errors import DTypeError, ShapeError
from facula.graph.record import recorder
from facula.nn.functional.common import (
    blocked,
    number,
    shape_of,
    vector_norm,
)
from facula.ops.define import composite, op
from facula.ops.promote import cast, expand_to, type_name
from facula.ops.reductions import constant
from facula.ops.shape import one_hot
from facula.tensor import Tensor, prim

__all__ = ["embedding", "one_hot"]


def _rows(index: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A value per index, repeated along a last dimension: `[*]` to `[*, dim]`."""
    return expand_to(prim("reshape", index, shape=(*shape_of(index), 1)), shape)


def _counts(index: Tensor, n: int, like: Tensor) -> Tensor:
    """How often each of 0 .. n-1 occurs in `index`."""
    flat = prim("reshape", index, shape=(index.numel(),))
    zeros = prim("full", attrs=(0.0,), shape=(n,), dtype=like.dtype)
    ones = prim("full", attrs=(1.0,), shape=(index.numel(),), dtype=like.dtype)
    return prim("scatter", zeros, flat, ones, attrs=(0, "add"))


def _samples(make: Any) -> list[Any]:
    return [((make(2, 3, dtype=int64, low=0, high=4), make(5, 3)), {}),
            ((make(4, dtype=int32, low=0, high=4), make(5, 3)), {}),
            ((make(dtype=int64, low=0, high=4), make(5, 3)), {}),
            ((make(2, 3, dtype=int64, low=0, high=4), make(5, 3)), {"padding_idx": 1}),
            ((make(0, dtype=int64, low=0, high=4), make(5, 3)), {})]


@op(name="embedding", samples=_samples)
def _embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None,
               scale_grad_by_freq: bool = False) -> Tensor:
    """Row `i` of `weight` for every index i of `input`."""
    index = cast(input, int64)
    n = shape_of(weight)[0]
    out = prim("take", weight, index, attrs=(0,))
    if padding_idx is not None:
        pad = prim("eq", index, number(index, padding_idx))
        out = blocked(out, _rows(pad, shape_of(out)))
    if scale_grad_by_freq and index.numel():
        counts = prim("take", _counts(index, n, constant(weight)), index, attrs=(0,))
        still = constant(out)
        share = prim("div", prim("sub", out, still), _rows(counts, shape_of(out)))
        out = prim("add", still, share)             # the value itself, with a scaled gradient
    return out


@composite
def _renormed(weight: Tensor, input: Tensor, max_norm: float, norm_type: float) -> Tensor:
    """`weight` with the rows that `input` names scaled to have at most the norm `max_norm`."""
    n, dim = shape_of(weight)
    index = cast(input, int64)
    norm = vector_norm(weight, norm_type, (1,), False)
    used = prim("gt", _counts(index, n, weight), number(norm, 0))
    large = prim("logical_and", used, prim("gt", norm, number(norm, max_norm)))
    scale = prim("div", number(norm, max_norm), prim("add", norm, number(norm, 1e-7)))
    scale = prim("where", large, scale, number(norm, 1))
    return prim("mul", weight, _rows(scale, (n, dim)))


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None,
              max_norm: float | None = None, norm_type: float = 2.0,
              scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """Row `i` of weight `[n, dim]` for every index i: input `[*]` of integers, output `[*, dim]`.

    The row `padding_idx` gets no gradient.  With `max_norm` the rows that are looked up are
    first scaled in place to have at most that norm.  `sparse` is accepted, and the gradient dense
    all the same.  An index outside the table raises
    IndexError once values are computed.
    """
    if input.dtype is not int64 and input.dtype is not int32:
        raise DTypeError("Expected tensor for argument #1 'indices' to have one of the following "
                         f"scalar types: Long, Int; but got {type_name(input.dtype)}Tensor "
                         "instead (while checking arguments for embedding)")
    if weight.ndim != 2:
        raise ShapeError(f"'weight' must be 2-D, got shape {list(weight.shape)}")
    if padding_idx is not None:
        n = weight.shape[0]
        if not -n <= padding_idx < n:
            raise AssertionError("Padding_idx must be within num_embeddings")
        if padding_idx < 0:
            padding_idx += n
    if max_norm is not None:
        rec = recorder()
        grad, rec.grad = rec.grad, False
        try:
            weight._write(_renormed(weight, input, float(max_norm), float(norm_type)))
        finally:
            rec.grad = grad
    return _embedding(input, weight, padding_idx, scale_grad_by_freq)   # type: ignore
