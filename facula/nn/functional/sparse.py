"""Looking rows up by number, and numbers as rows: embedding, one_hot."""

from __future__ import annotations

from typing import Any

from facula.dtype import int32, int64
from facula.errors import DTypeError, ShapeError
from facula.graph.record import recorder
from facula.nn.functional.common import (
    axis_iota,
    blocked,
    number,
    shape_of,
    vector_norm,
)
from facula.ops.define import composite, op
from facula.ops.promote import cast, expand_to, type_name
from facula.ops.reductions import constant
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
    n, dim = shape_of(weight)
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
    first scaled in place to have at most that norm.  An index outside the table raises
    IndexError once values are computed.
    """
    if sparse:
        raise ValueError("embedding: sparse gradients are not offered; use sparse=False")
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


@op(name="one_hot", differentiable=False, samples=lambda make: [
    ((make(4, dtype=int64, low=0, high=4), 5), {}),
    ((make(2, 3, dtype=int64, low=0, high=4), 5), {}), ((make(dtype=int64, low=0, high=4), 6), {})])
def _one_hot(tensor: Tensor, num_classes: int) -> Tensor:
    """1 at the position that each class number names, 0 elsewhere: `[*]` to `[*, num_classes]`."""
    shape = (*shape_of(tensor), num_classes)
    # Taken from 0 .. n-1 the number is itself, and one that is out of range is found out.
    line = prim("iota", shape=(num_classes,), dtype=int64)
    checked = prim("take", line, tensor, attrs=(0,))
    return cast(prim("eq", axis_iota(shape, len(shape) - 1), _rows(checked, shape)), int64)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """1 at the position that each class number names, 0 elsewhere; int64 `[*, num_classes]`.

    `num_classes=-1` uses the largest number plus one, which waits for the values.  Raises
    RuntimeError for numbers out of range where they are known already, IndexError when they are
    computed otherwise.
    """
    if tensor.dtype is not int64:
        raise DTypeError("one_hot is only applicable to index tensor of type LongTensor.")
    if tensor.numel() == 0 and num_classes <= 0:
        raise RuntimeError("Can not infer total number of classes from empty tensor.")
    if num_classes == -1 or tensor._node.value is not None:
        values = tensor._peek()
        if values.size and values.min() < 0:
            raise RuntimeError("Class values must be non-negative.")
        if num_classes == -1:
            num_classes = int(values.max()) + 1
        elif values.size and values.max() >= num_classes:
            raise RuntimeError("Class values must be smaller than num_classes.")
    if num_classes < 1:
        raise RuntimeError("num_classes should be positive")
    return _one_hot(tensor, num_classes)                    # type: ignore[no-any-return]
