"""Combinations of the elements of several tensors, and places of a fixed number of elements."""

from __future__ import annotations

import itertools
from math import comb, prod
from typing import Any

import numpy as np

from facula.dtype import int64
from facula.errors import DTypeError
from facula.ops.define import op
from facula.ops.layout import host, int_args
from facula.ops.promote import cast, common_dtype, expand_to, full_like
from facula.ops.search import nonzero
from facula.ops.surface import public
from facula.tensor import Tensor, prim

__all__ = ["block_diag", "cartesian_prod", "combinations", "unravel_index", "nonzero_static"]


def _list(tensors: Any) -> list[Tensor]:
    return list(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)) \
        else list(tensors)


@op(samples=lambda make: [((make(2, 3), make(4), make()), {}), ((make(0, 2), make(1, 1)), {})])
def block_diag(*tensors: Any) -> Tensor:
    """A matrix with the given ones along its diagonal; vectors are rows, numbers 1 by 1."""
    ts = _list(tensors)
    if not ts:
        return prim("full", attrs=(0.0,), shape=(1, 0), dtype=_default())
    dtype = common_dtype([prim("reshape", t, shape=(t.numel(),)) for t in ts])
    blocks = []
    for k, t in enumerate(ts):
        if t.ndim > 2:
            raise RuntimeError("block_diag: Input tensors must have 2 or fewer dimensions. "
                               f"Input {k} has {t.ndim} dimensions")
        shape = ((1, 1), (1, t.numel()), t._node.spec.shape)[t.ndim]
        blocks.append(prim("reshape", cast(t, dtype), shape=shape))
    width = sum(b._node.spec.shape[1] for b in blocks)
    rows, left = [], 0
    for b in blocks:
        n = b._node.spec.shape[1]
        rows.append(prim("pad", b, attrs=((0, left), (0, width - left - n), 0)))
        left += n
    return prim("cat", *rows, attrs=(0,)) if len(rows) > 1 else rows[0]


def _default() -> Any:
    from facula.ops.promote import get_default_dtype
    return get_default_dtype()


@op(samples=lambda make: [((make(3), make(2)), {}), ((make(3),), {})])
def cartesian_prod(*tensors: Any) -> Tensor:
    """All combinations of one element of each vector, a row each: `[n1 * n2 * ..., k]`."""
    ts = _list(tensors)
    for t in ts:
        if t.ndim != 1:
            raise RuntimeError("Expect a 1D vector, but got shape " + str(list(t.shape)))
    if len(ts) == 1:
        return prim("alias", ts[0])
    shape = tuple(t.numel() for t in ts)
    dtype = common_dtype(ts)
    if any(t.dtype is not dtype for t in ts):
        raise RuntimeError("meshgrid expects all tensors to have the same dtype")
    columns = []
    for k, t in enumerate(ts):
        line = prim("reshape", t, shape=tuple(t.numel() if j == k else 1
                                              for j in range(len(ts))))
        columns.append(prim("reshape", expand_to(line, shape), shape=(prod(shape), 1)))
    return prim("cat", *columns, attrs=(1,))


@op(samples=lambda make: [((make(4),), {}), ((make(4), 3), {"with_replacement": True})])
def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All choices of r elements of a vector in their order, a row each."""
    if input.ndim != 1:
        raise RuntimeError("Expect a 1D vector, but got shape " + str(list(input.shape)))
    if r < 0:
        raise RuntimeError(f"Expect a non-negative number, but got {r}")
    n = input.numel()
    if r == 0:
        return prim("full", attrs=(0,), shape=(0,), dtype=input.dtype)
    choose = itertools.combinations_with_replacement if with_replacement \
        else itertools.combinations
    count = comb(n + r - 1, r) if with_replacement and n else 0 if with_replacement else comb(n, r)
    if not count:
        none = prim("slice", input, attrs=((0,), (1,)), shape=(0,))
        return prim("reshape", none, shape=(0, r))
    # Which elements a row takes is known from the shape alone.
    columns = np.array(list(choose(range(n), r)), np.int64)
    index = host(columns.reshape(-1), int64)
    return prim("reshape", prim("take", input, index, attrs=(0,)), shape=(count, r))


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """The coordinates, one tensor a dimension, of positions in a flattened tensor of `shape`."""
    if indices.dtype.kind not in "ui":
        raise DTypeError("expected 'indices' to be integer dtype, but got "
                         f"{indices.dtype!r}")
    sizes = int_args((shape,))
    if any(n < 0 for n in sizes):
        raise ValueError(f"'shape' cannot have negative values, but got {tuple(sizes)}")
    result: tuple[Tensor, ...] = _unravelled(indices, sizes)
    return result


@op(name="unravel_index", register=False)
def _unravelled(indices: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
    out = []
    rest = cast(indices, int64)
    for n in reversed(sizes):
        size = full_like(rest, n)
        out.append(prim("remainder", rest, size))
        rest = prim("floor_divide", rest, size)
    return tuple(reversed(out))


public(unravel_index, "unravel_index", "indexing", method=False, differentiable=False,
       samples=lambda make: [((make(2, 3, dtype=int64, low=0, high=19), (4, 5)), {})])


def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """`nonzero` with exactly `size` rows: cut, or filled up with `fill_value`."""
    if size < 0:
        raise RuntimeError(f"nonzero_static: 'size' must be an non-negative integer, got {size}")
    found = nonzero(input)
    n, k = found.shape
    if n >= size:
        return prim("slice", found, attrs=((0, 0), (1, 1)), shape=(size, k))
    return prim("pad", found, attrs=((0, 0), (size - n, 0), fill_value))


public(nonzero_static, "nonzero_static", "indexing", differentiable=False)
