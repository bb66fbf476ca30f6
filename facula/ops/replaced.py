"""Copies with a part replaced: select_scatter, slice_scatter, diagonal_scatter and their kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.errors import ShapeError
from facula.ops.define import op
from facula.ops.layout import int_args, row_major
from facula.ops.promote import cast
from facula.ops.reductions import wrap_dim
from facula.tensor import Tensor, prim

__all__ = ["select_scatter", "slice_scatter", "diagonal_scatter", "as_strided_scatter"]


def _replaced(input: Tensor, src: Tensor, starts: Sequence[int], steps: Sequence[int],
              sizes: Sequence[int]) -> Tensor:
    value = prim("reshape", cast(src, input.dtype), shape=tuple(sizes))
    return prim("slice_update", input, value, attrs=(tuple(starts), tuple(steps)))


@op(method=True, samples=lambda make: [((make(3, 4), make(4), 0, 1), {})])
def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy of `input` with `src` in place of input.select(dim, index)."""
    axis = wrap_dim(dim, input.ndim)
    shape = input._node.spec.shape
    n = shape[axis]
    if not -n <= index < n:
        raise IndexError(f"index {index} is out of bounds for dimension {axis} with size {n}")
    if src._node.spec.shape != (*shape[:axis], *shape[axis + 1:]):
        raise ShapeError("expected src to have a size equal to the slice of self. src size = "
                         f"{list(src.shape)}, slice size = "
                         f"{[*shape[:axis], *shape[axis + 1:]]}")
    starts = [0] * len(shape)
    starts[axis] = index % n
    return _replaced(input, src, starts, [1] * len(shape),
                     [1 if k == axis else m for k, m in enumerate(shape)])


@op(method=True, samples=lambda make: [((make(5, 4), make(2, 4), 0, 1, 5, 2), {})])
def slice_scatter(input: Tensor, src: Tensor, dim: int = 0, start: int | None = None,
                  end: int | None = None, step: int = 1) -> Tensor:
    """A copy of `input` with `src` in place of the slice start:end:step of `dim`."""
    axis = wrap_dim(dim, input.ndim)
    shape = input._node.spec.shape
    if step <= 0:
        raise RuntimeError("slice step must be positive")
    a, b, _ = slice(start, end, step).indices(shape[axis])
    sizes = [max(-(-(b - a) // step), 0) if k == axis else m for k, m in enumerate(shape)]
    if list(src.shape) != sizes:
        raise ShapeError("expected src to have a size equal to the slice of self. src size = "
                         f"{list(src.shape)}, slice size = {sizes}")
    starts, steps = [0] * len(shape), [1] * len(shape)
    starts[axis], steps[axis] = a, step
    return _replaced(input, src, starts, steps, sizes)


@op(method=True, samples=lambda make: [((make(3, 4), make(3)), {}), ((make(3, 4), make(3), 1), {})])
def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
                     ) -> Tensor:
    """A copy of `input` with `src` as its diagonal."""
    shape = input._node.spec.shape
    a, b = wrap_dim(dim1, len(shape)), wrap_dim(dim2, len(shape))
    inner = row_major(shape)
    n = max(min(shape[a], shape[b] - offset) if offset >= 0
            else min(shape[a] + offset, shape[b]), 0)
    rest = [k for k in range(len(shape)) if k not in (a, b)]
    want = (*(shape[k] for k in rest), n)
    if src._node.spec.shape != want:
        raise ShapeError("expected src to have a size equal to the slice of self. src size = "
                         f"{list(src.shape)}, slice size = {list(want)}")
    start = abs(offset) * inner[b if offset >= 0 else a] if n else 0
    return prim("as_strided_update", input, cast(src, input.dtype),
                attrs=((*(inner[k] for k in rest), inner[a] + inner[b]), start))


@op(method=True, samples=lambda make: [((make(12), make(3, 2), (3, 2), (4, 1), 1), {})])
def as_strided_scatter(input: Tensor, src: Tensor, size: Any, stride: Any,
                       storage_offset: int | None = None) -> Tensor:
    """A copy of `input` with `src` in place of input.as_strided(size, stride, storage_offset)."""
    size, stride = int_args((size,)), int_args((stride,))
    if src._node.spec.shape != size:
        raise ShapeError("expected src to have a size equal to the slice of self. src size = "
                         f"{list(src.shape)}, slice size = {list(size)}")
    offset = storage_offset or 0
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    if 0 not in size and last >= input.numel():
        raise RuntimeError(f"setStorage: sizes {list(size)}, strides {list(stride)}, storage "
                           f"offset {offset} are out of bounds for storage of "
                           f"{input.numel()} elements")
    return prim("as_strided_update", input, cast(src, input.dtype), attrs=(stride, offset))
