"""Bags of embeddings: rows looked up by number and combined, a bag at a time."""

from __future__ import annotations

from facula.dtype import int32, int64
from facula.errors import DTypeError
from facula.graph.record import recorder
from facula.nn.functional.common import number, shape_of
from facula.nn.functional.sparse import _counts, _renormed, _rows
from facula.ops.define import op
from facula.ops.promote import cast, expand_to, type_name
from facula.ops.reductions import constant
from facula.tensor import Tensor, prim

__all__ = ["embedding_bag"]


def _bag_numbers(offsets: Tensor, n: int) -> Tensor:
    """In which bag each of n positions is: how many bags have begun by then, less one."""
    bags = offsets.numel()
    marks = prim("full", attrs=(0,), shape=(n + 1,), dtype=int64)
    ones = prim("full", attrs=(1,), shape=(bags,), dtype=int64)
    marks = prim("scatter", marks, cast(offsets, int64), ones, attrs=(0, "add"))
    begun = prim("cumsum", marks, attrs=(0,))
    begun = prim("slice", begun, attrs=((0,), (1,)), shape=(n,))
    return prim("sub", begun, number(begun, 1))


@op(name="embedding_bag", samples=lambda make: [
    ((make(6, 3), make(2, 4, dtype=int64, low=0, high=6), None, None, mode, False, None), {})
    for mode in ("sum", "mean", "max")] + [
    ((make(6, 3), make(3, 2, dtype=int64, low=0, high=6), None, make(3, 2), "sum", False, 1), {})])
def _bags(weight: Tensor, input: Tensor, offsets: Tensor | None, per_sample: Tensor | None,
          mode: str, by_frequency: bool, padding_idx: int | None, last: bool = False) -> Tensor:
    rows, dim = shape_of(weight)
    n = input.numel()
    index = prim("reshape", cast(input, int64), shape=(n,))
    if offsets is None:
        bags, width = shape_of(input)
        line = expand_to(prim("reshape", prim("iota", shape=(bags,), dtype=int64),
                              shape=(bags, 1)), (bags, width))
        bag = prim("reshape", line, shape=(n,))
    else:
        bags = offsets.numel() - last
        bag = _bag_numbers(prim("slice", offsets, attrs=((0,), (1,)), shape=(bags,)), n)
    found = prim("take", weight, index, attrs=(0,))
    if by_frequency and n:
        counts = prim("take", _counts(index, rows, constant(weight)), index, attrs=(0,))
        still = constant(found)
        share = prim("div", prim("sub", found, still), _rows(counts, shape_of(found)))
        found = prim("add", still, share)           # the value itself, with a scaled gradient
    if per_sample is not None:
        each = prim("reshape", per_sample, shape=(n,))
        found = prim("mul", found, _rows(each, shape_of(found)))
    kept = prim("full", attrs=(1.0,), shape=(n,), dtype=weight.dtype)
    used = None
    if padding_idx is not None:
        used = prim("ne", index, number(index, padding_idx))
        kept = cast(used, weight.dtype)
    shape = (bags, dim)
    count = prim("index_put", prim("full", attrs=(0.0,), shape=(bags,), dtype=weight.dtype), kept,
                 bag, attrs=(0, True))
    if mode == "max":
        if used is not None:
            low = number(found, float("-inf"))
            found = prim("where", _rows(used, shape_of(found)), found, low)
        start = prim("full", attrs=(float("-inf"),), shape=shape, dtype=weight.dtype)
        out = prim("scatter", start, _rows(bag, (n, dim)), found, attrs=(0, "amax")) if n else start
        empty = _rows(prim("eq", count, number(count, 0)), shape)
        return prim("where", empty, number(out, 0), out)
    if used is not None:
        found = prim("where", _rows(used, shape_of(found)), found, number(found, 0))
    out = prim("index_put", prim("full", attrs=(0.0,), shape=shape, dtype=weight.dtype), found,
               bag, attrs=(0, True))
    if mode == "mean":
        out = prim("div", out, _rows(prim("maximum", count, number(count, 1)), shape))
    return out


def embedding_bag(input: Tensor, weight: Tensor, offsets: Tensor | None = None,
                  max_norm: float | None = None, norm_type: float = 2,
                  scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
                  per_sample_weights: Tensor | None = None, include_last_offset: bool = False,
                  padding_idx: int | None = None) -> Tensor:
    """Rows of weight `[n, dim]` summed, averaged or maximised over bags: output `[bags, dim]`.

    A 2-D input has a bag a row; a 1-D one has bags that begin at `offsets`, which with
    `include_last_offset` also say where the last ends.  `per_sample_weights` scale the rows of
    sums.  Empty bags give 0.  The row `padding_idx` is left out.  `sparse` is accepted, and the
    gradient dense all the same.
    """
    for name, t in (("indices", input), ("offsets", offsets)):
        if t is not None and t.dtype is not int64 and t.dtype is not int32:
            raise DTypeError(f"Expected tensor for argument '{name}' to have one of the following "
                             f"scalar types: Long, Int; but got {type_name(t.dtype)} instead "
                             "(while checking arguments for embedding_bag)")
    if per_sample_weights is not None and per_sample_weights.shape != input.shape:
        raise ValueError("embedding_bag: If per_sample_weights "
                         f"({list(per_sample_weights.shape)}) is not None, then it must have the "
                         f"same shape as the input ({list(input.shape)})")
    if weight.ndim != 2:
        raise ValueError(f"weight has to be a 2D Tensor, but got Tensor of dimension {weight.ndim}")
    if input.ndim == 2:
        if offsets is not None:
            raise ValueError("if input is 2D, then offsets has to be None, as input is treated is "
                             "a mini-batch of fixed length sequences. However, found offsets of "
                             "type Tensor")
    elif input.ndim == 1:
        if offsets is None:
            raise ValueError("offsets has to be a 1D Tensor but got None")
        if offsets.ndim != 1:
            raise ValueError("offsets has to be a 1D Tensor")
        if include_last_offset and offsets.numel() < 1:
            raise RuntimeError("include_last_offset: number of offset should be at least 1")
    else:
        raise ValueError("input has to be 1D or 2D Tensor, but got Tensor of dimension "
                         f"{input.ndim}")
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum, mean or max")
    if mode == "max" and scale_grad_by_freq:
        raise ValueError("max mode does not support scaling the gradient by the frequency")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError("embedding_bag: per_sample_weights was not None. "
                                  "per_sample_weights is only supported for mode='sum' (got "
                                  f"mode='{mode}').")
    if padding_idx is not None:
        n = weight.shape[0]
        if not -n <= padding_idx < n:
            raise RuntimeError(f"padding_idx must be within the number of embeddings, -{n} "
                               f"through {n - 1}, but got {padding_idx}")
        padding_idx %= n
    if max_norm is not None:
        rec = recorder()
        grad, rec.grad = rec.grad, False
        try:
            flat = prim("reshape", input, shape=(input.numel(),))
            weight._write(_renormed(weight, flat, float(max_norm), float(norm_type)))
        finally:
            rec.grad = grad
    result: Tensor = _bags(weight, input, offsets, per_sample_weights, mode, scale_grad_by_freq,
                           padding_idx, bool(include_last_offset and offsets is not None))
    return result
