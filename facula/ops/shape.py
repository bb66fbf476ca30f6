"""Joining, repeating, turning and masking: shape operations whose result is a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.dtype import int64
from facula.errors import DTypeError, ShapeError
from facula.ops.define import autocast_to, op
from facula.ops.keywords import numpy_names
from facula.ops.layout import (
    as_int,
    check_tensor,
    host,
    int_args,
    is_packed,
    strides_of,
)
from facula.ops.promote import (
    broadcast_shapes,
    cast,
    expand_to,
    promote_types,
)
from facula.ops.reductions import wrap_dim
from facula.ops.surface import public
from facula.ops.views import expand, permuted
from facula.tensor import Tensor, prim

__all__ = ["cat", "stack", "hstack", "vstack", "dstack", "column_stack", "flip", "roll", "rot90",
           "repeat", "tile", "repeat_interleave", "meshgrid", "broadcast_tensors", "atleast_1d",
           "atleast_2d", "atleast_3d", "clone", "contiguous", "one_hot", "cut", "flipped",
           "iota_along"]


def cut(x: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    """x[start:stop:step] along one axis, as a value."""
    shape = x._node.spec.shape
    n = len(shape)
    starts, steps = [0] * n, [1] * n
    starts[axis], steps[axis] = start, step
    size = max(-(-(stop - start) // step), 0)
    return prim("slice", x, attrs=(tuple(starts), tuple(steps)),
                shape=(*shape[:axis], size, *shape[axis + 1:]))


def iota_along(shape: Sequence[int], axis: int) -> Tensor:
    """int64 positions along `axis`, in a tensor of this shape."""
    shape = tuple(shape)
    line = prim("iota", shape=(shape[axis],), dtype=int64)
    ones = tuple(shape[axis] if k == axis else 1 for k in range(len(shape)))
    return expand_to(prim("reshape", line, shape=ones), shape)


def _some(name: str, tensors: Any) -> list[Tensor]:
    ts = _list(name, tensors)
    if not ts:
        raise RuntimeError(f"{name} expects a non-empty TensorList")
    return ts


def _list(name: str, tensors: Any) -> list[Tensor]:
    if isinstance(tensors, Tensor):
        raise TypeError(f"{name}(): argument 'tensors' (position 1) must be tuple of Tensors, not "
                        "Tensor")
    tensors = list(tensors)
    for k, t in enumerate(tensors):
        if not isinstance(t, Tensor):
            raise TypeError(f"expected Tensor as element {k} in argument 0, but got "
                            f"{type(t).__name__}")
    return tensors


# ---------------------------------------------------------------- joining

def _lists(*shapes: Sequence[int], args: tuple[Any, ...] = ()) -> Any:
    return lambda make: [(([make(*s) for s in shapes], *args), {})]


@op(samples=lambda make: [(([make(2, 3), make(4, 3)],), {}), (([make(2, 3), make(2, 1)], 1), {}),
                          (([make(2, 3), make(0), make(1, 3)], -2), {}), (([make(3)],), {})])
@numpy_names
@autocast_to("widest")
def cat(tensors: Any, dim: int = 0) -> Tensor:
    """The tensors one after the other along `dim`; elsewhere their shapes agree.

    Their dtypes are promoted to a common one.  Empty 1-d tensors are passed over.
    """
    ts = _list("cat", tensors)
    if not ts:
        raise ValueError("cat(): expected a non-empty list of Tensors")
    dtype = ts[0].dtype
    for k, t in enumerate(ts):
        if not t.ndim:
            raise RuntimeError(f"zero-dimensional tensor (at position {k}) cannot be concatenated")
        dtype = promote_types(dtype, t.dtype)
    full = [(k, t) for k, t in enumerate(ts) if t._node.spec.shape != (0,)]
    if not full:
        wrap_dim(dim, 1)
        return prim("alias", cast(ts[0], dtype))
    first = full[0][1]
    shape = first._node.spec.shape
    axis = wrap_dim(dim, len(shape))
    for k, t in full:
        other = t._node.spec.shape
        if len(other) != len(shape):
            raise ShapeError(f"Tensors must have same number of dimensions: got {len(shape)} and "
                             f"{len(other)}")
        for d, (a, b) in enumerate(zip(shape, other)):
            if a != b and d != axis:
                raise ShapeError(f"Sizes of tensors must match except in dimension {axis}. "
                                 f"Expected size {a} but got size {b} for tensor number {k} in "
                                 "the list.")
    values = [cast(t, dtype) for _, t in full]
    return prim("cat", *values, attrs=(axis,)) if len(values) > 1 else prim("alias", values[0])


@op(samples=lambda make: [(([make(2, 3), make(2, 3)],), {}), (([make(2), make(2)], -1), {}),
                          (([make(), make(), make()],), {})])
@numpy_names
@autocast_to("widest")
def stack(tensors: Any, dim: int = 0) -> Tensor:
    """Tensors of one shape, side by side in a new dimension `dim`."""
    ts = _list("stack", tensors)
    if not ts:
        raise RuntimeError("stack expects a non-empty TensorList")
    shape = ts[0]._node.spec.shape
    axis = wrap_dim(dim, len(shape) + 1)
    for k, t in enumerate(ts):
        if t._node.spec.shape != shape:
            raise ShapeError(f"stack expects each tensor to be equal size, but got {list(shape)} "
                             f"at entry 0 and {list(t.shape)} at entry {k}")
    one = (*shape[:axis], 1, *shape[axis:])
    result: Tensor = cat([prim("reshape", t, shape=one) for t in ts], axis)
    return result


def _at_least(x: Tensor, ndim: int) -> Tensor:
    s = x._node.spec.shape
    if len(s) >= ndim:
        return x
    shape: tuple[int, ...]
    if ndim == 1:
        shape = (1,)
    elif ndim == 2:
        shape = (1, s[0]) if s else (1, 1)
    else:
        shape = {0: (1, 1, 1), 1: (1, *s, 1), 2: (*s, 1)}[len(s)]
    return prim("reshape", x, shape=shape)


@op(samples=_lists((2, 3), (2, 1)))
def hstack(tensors: Any) -> Tensor:
    """Joined along dimension 1 (0 for 1-d tensors)."""
    ts = [_at_least(t, 1) for t in _some("hstack", tensors)]
    result: Tensor = cat(ts, 0 if ts and ts[0].ndim == 1 else 1)
    return result


@op(samples=_lists((3,), (3,)))
def vstack(tensors: Any) -> Tensor:
    """Joined as rows, along dimension 0."""
    result: Tensor = cat([_at_least(t, 2) for t in _some("vstack", tensors)], 0)
    return result


@op(samples=_lists((2, 3), (2, 3)))
def dstack(tensors: Any) -> Tensor:
    """Joined along dimension 2."""
    result: Tensor = cat([_at_least(t, 3) for t in _some("dstack", tensors)], 2)
    return result


@op(samples=_lists((3,), (3, 2)))
def column_stack(tensors: Any) -> Tensor:
    """Joined as columns; 1-d tensors are columns."""
    ts = [prim("reshape", t, shape=(t.numel(), 1)) if t.ndim < 2 else t
          for t in _list("column_stack", tensors)]
    result: Tensor = cat(ts, 1)
    return result


for _name, _fn in (("concat", cat), ("concatenate", cat), ("row_stack", vstack)):
    public(_fn, _name, "shape", method=False)


# ---------------------------------------------------------------- turning

def _dims_of(dims: Sequence[Any], ndim: int) -> list[int]:
    axes = [wrap_dim(d, ndim) for d in dims]
    if len(set(axes)) != len(axes):
        twice = next(a for a in axes if axes.count(a) > 1)
        raise RuntimeError(f"dim {twice} appears multiple times in the list of dims")
    return axes


def flipped(x: Tensor, axes: Sequence[int]) -> Tensor:
    """The value of `x` with these axes reversed."""
    shape = x._node.spec.shape
    if not x.numel() or not axes or not shape:
        return prim("alias", x)
    starts = tuple(n - 1 if k in axes else 0 for k, n in enumerate(shape))
    steps = tuple(-1 if k in axes else 1 for k in range(len(shape)))
    return prim("slice", x, attrs=(starts, steps), shape=shape)


@op(method=True, samples=lambda make: [((make(3, 4), (0,)), {}), ((make(2, 3, 4), (0, -1)), {}),
                                       ((make(5), 0), {})])
def flip(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """The order of the elements along `dims` (one tuple, or several ints) reversed; a copy."""
    dims = args if dims is None else dims
    if isinstance(dims, int):
        dims = (dims,)
    if len(dims) == 1 and isinstance(dims[0], (tuple, list)):
        dims = tuple(dims[0])
    return flipped(input, _dims_of(dims, input.ndim))


@op(method=True, samples=lambda make: [((make(3, 4),), {})])
def fliplr(input: Tensor) -> Tensor:
    """Columns in reverse order."""
    if input.ndim < 2:
        raise RuntimeError("Input must be >= 2-d.")
    return flipped(input, (1,))


@op(method=True, samples=lambda make: [((make(3, 4),), {})])
def flipud(input: Tensor) -> Tensor:
    """Rows in reverse order."""
    if input.ndim < 1:
        raise RuntimeError("Input must be >= 1-d.")
    return flipped(input, (0,))


def _roll(x: Tensor, shift: int, axis: int) -> Tensor:
    n = x._node.spec.shape[axis]
    k = shift % n if n else 0
    if not k:
        return x
    return prim("cat", cut(x, axis, n - k, n), cut(x, axis, 0, n - k), attrs=(axis,))


@op(method=True, samples=lambda make: [((make(5), 2), {}), ((make(3, 4), 1), {}),
                                       ((make(3, 4), (1, -1), (0, 1)), {})])
def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Elements moved `shifts` places along `dims`, those beyond the end to the start."""
    by = int_args((shifts,)) if isinstance(shifts, (tuple, list)) else (as_int(shifts),)
    if dims is None or dims == () or dims == []:
        if len(by) != 1:
            raise RuntimeError(f"shifts and dimensions must align. shifts: {len(by)}, dims:0")
        flat = _roll(prim("reshape", input, shape=(input.numel(),)), by[0], 0)
        return prim("reshape", flat, shape=input._node.spec.shape)
    axes = int_args((dims,)) if isinstance(dims, (tuple, list)) else (as_int(dims),)
    if len(axes) != len(by):
        raise RuntimeError(f"shifts and dimensions must align. shifts: {len(by)}, "
                           f"dims:{len(axes)}")
    x = input
    for s, d in zip(by, axes):
        if not input.ndim:
            raise IndexError(f"Dimension specified as {d} but tensor has no dimensions")
        x = _roll(x, s, wrap_dim(d, input.ndim))
    return prim("alias", x) if x is input else x


@op(method=True, samples=lambda make: [((make(3, 4),), {}), ((make(2, 3, 4), -1, (1, 2)), {}),
                                       ((make(3, 4), 2), {})])
def rot90(input: Tensor, k: int = 1, dims: Any = (0, 1)) -> Tensor:
    """Turned by k quarter turns in the plane of two dims, from the first towards the second."""
    dims = tuple(dims)
    if len(dims) != 2:
        raise RuntimeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if input.ndim < 2:
        raise RuntimeError(f"expected total dims >= 2, but got total dims = {input.ndim}")
    if dims[0] == dims[1]:
        raise RuntimeError(f"expected rotation dims to be different, but got dim0 = {dims[0]} and "
                           f"dim1 = {dims[1]}")
    a, b = wrap_dim(dims[0], input.ndim), wrap_dim(dims[1], input.ndim)
    k %= 4
    if k == 0:
        return prim("alias", input)
    if k == 2:
        return flipped(input, (a, b))
    order = list(range(input.ndim))
    order[a], order[b] = b, a
    x = flipped(input, (b,)) if k == 1 else flipped(input, (a,))
    return prim("permute", x, attrs=(tuple(order),))


# ---------------------------------------------------------------- repeating

def repeated(x: Tensor, counts: Sequence[int]) -> Tensor:
    """`x` repeated counts[k] times along each dimension, counted from the last."""
    shape = x._node.spec.shape
    shape = (1,) * (len(counts) - len(shape)) + shape
    ones: list[int] = []
    wide: list[int] = []
    for c, n in zip(counts, shape):
        ones += (1, n)
        wide += (c, n)
    out = tuple(c * n for c, n in zip(counts, shape))
    x = prim("reshape", x, shape=tuple(ones))
    return prim("reshape", prim("expand", x, shape=tuple(wide)), shape=out)


@op(name="repeat", method=True, samples=lambda make: [((make(3), (2, 2)), {}),
                                                      ((make(2, 3), (1, 2)), {}),
                                                      ((make(), (3,)), {})])
def repeat(self: Tensor, *counts: Any, repeats: Any = ()) -> Tensor:
    """The tensor repeated along each dimension; more counts than dimensions add leading ones."""
    counts = int_args(counts or (repeats,))
    if len(counts) < self.ndim:
        raise RuntimeError("Number of dimensions of repeat dims can not be smaller than number of "
                           "dimensions of tensor")
    if any(c < 0 for c in counts):
        raise RuntimeError(f"Trying to create tensor with negative dimension: {list(counts)}")
    return repeated(self, counts) if counts else prim("alias", self)


@op(method=True, samples=lambda make: [((make(2, 3), (2,)), {}), ((make(3), (2, 2)), {})])
def tile(input: Tensor, *counts: Any, dims: Any = ()) -> Tensor:
    """The tensor repeated along its last dimensions."""
    counts = int_args(counts or (dims,))
    counts = (1,) * (input.ndim - len(counts)) + counts
    return repeated(input, counts) if counts else prim("alias", input)


@op(name="repeat_interleave", register=False)
def _interleave(x: Tensor, count: int, axis: int) -> Tensor:
    shape = x._node.spec.shape
    one = (*shape[:axis + 1], 1, *shape[axis + 1:])
    wide = (*shape[:axis + 1], count, *shape[axis + 1:])
    out = (*shape[:axis], shape[axis] * count, *shape[axis + 1:])
    return prim("reshape", prim("expand", prim("reshape", x, shape=one), shape=wide), shape=out)


def repeat_interleave(input: Tensor, repeats: Any = None, dim: int | None = None, *,
                      output_size: int | None = None) -> Tensor:
    """Each element repeated, next to itself: `repeats` times, or as often as a tensor says.

    Flat if `dim` is None.  With a 1-d tensor alone: i repeated input[i] times.
    """
    if repeats is None:
        counts = input._peek()
        if counts.ndim != 1 or input.dtype.kind not in "ui":
            raise RuntimeError("repeat_interleave only accept 1D vector as repeat")
        if (counts < 0).any():
            raise RuntimeError("repeats can not be negative")
        import numpy as np
        return host(np.repeat(np.arange(len(counts)), counts).astype(np.int64), int64)
    x = input if dim is not None else prim("reshape", input, shape=(input.numel(),))
    axis = wrap_dim(0 if dim is None else dim, x.ndim)
    if not x.ndim:
        x = prim("reshape", x, shape=(1,))
    if isinstance(repeats, (tuple, list)):
        repeats = host(repeats, int64)
    if isinstance(repeats, Tensor):
        import numpy as np
        if repeats.dtype.kind not in "ui":
            raise RuntimeError("repeats has to be Long or Int tensor")
        counts = repeats._peek()
        n = x._node.spec.shape[axis]
        if counts.ndim > 1:
            raise RuntimeError("repeats must be 0-dim or 1-dim tensor")
        if (counts < 0).any():
            raise RuntimeError("repeats can not be negative")
        counts = counts.reshape(-1)
        if len(counts) not in (1, n):
            raise RuntimeError(f"repeats must have the same size as input along dim, but got "
                               f"repeats.size(0) = {len(counts)} and input.size({axis}) = {n}")
        places = np.repeat(np.arange(n), counts if len(counts) == n else int(counts[0]))
        if output_size is not None and output_size != len(places):
            raise RuntimeError("allocated size does not match required size")
        return prim("take", x, host(places.astype(np.int64), int64), attrs=(axis,))
    count = as_int(repeats)
    if count < 0:
        raise RuntimeError("Repeats must be non-negative")
    result: Tensor = _interleave(x, count, axis)
    return result


public(repeat_interleave, "repeat_interleave", "shape", samples=lambda make: [
    ((make(2, 3), 2), {}), ((make(2, 3), 2, 1), {}), ((make(2, 3), 3, 0), {})])


# ---------------------------------------------------------------- grids and copies

def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinate grids of 1-d tensors, views of them; indexing 'ij' or 'xy'."""
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        tensors = tuple(tensors[0])
    if not tensors:
        raise RuntimeError("meshgrid expects a non-empty TensorList")
    if indexing not in ("ij", "xy"):
        raise RuntimeError('meshgrid: indexing must be one of "xy" or "ij", but received: '
                           f"{indexing}")
    for t in tensors:
        if t.ndim > 1:
            raise RuntimeError("meshgrid: Expected 0D or 1D tensor in the tensor list but got: "
                               f"{t.ndim}D")
    swap = indexing == "xy" and len(tensors) > 1
    order = list(range(len(tensors)))
    if swap:
        order[0], order[1] = 1, 0
    ordered = [tensors[k] for k in order]
    shape = tuple(t.numel() for t in ordered)
    from facula.ops.views import reshape
    grids = [expand(reshape(t, tuple([t.numel() if j == k else 1 for j in range(len(shape))])),
                    shape) for k, t in enumerate(ordered)]
    if swap:
        grids[0], grids[1] = grids[1], grids[0]
    return tuple(grids)


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """The tensors expanded to their common shape, as views."""
    if len(tensors) == 1 and isinstance(tensors[0], (tuple, list)):
        tensors = tuple(tensors[0])
    shape = broadcast_shapes(*(t._node.spec.shape for t in tensors))
    return tuple([expand(t, shape) for t in tensors])


def _atleast(ndim: int) -> Any:
    from facula.ops.views import reshape

    def fn(*tensors: Any) -> Any:
        if len(tensors) == 1:
            one = tensors[0]
            if isinstance(one, (tuple, list)):
                return tuple([fn(t) for t in one])
            s = one._node.spec.shape
            if len(s) >= ndim:
                return one
            if ndim == 3 and len(s) == 1:
                return reshape(one, (1, *s, 1))
            if ndim == 3 and len(s) == 2:
                return reshape(one, (*s, 1))
            return reshape(one, (1,) * (ndim - len(s)) + tuple(s))
        return tuple([fn(t) for t in tensors])

    fn.__name__ = fn.__qualname__ = f"atleast_{ndim}d"
    fn.__doc__ = f"A view with at least {ndim} dimensions; of several tensors, each."
    return fn


atleast_1d, atleast_2d, atleast_3d = _atleast(1), _atleast(2), _atleast(3)

for _k, _fn in ((1, atleast_1d), (2, atleast_2d), (3, atleast_3d)):
    public(_fn, f"atleast_{_k}d", "shape", method=False,
           samples=lambda make: [((make(),), {}), ((make(3),), {}), ((make(2, 3),), {})])
public(meshgrid, "meshgrid", "shape", method=False,
       samples=lambda make: [((make(3), make(2)), {}), ((make(3), make(2)), {"indexing": "xy"})])
public(broadcast_tensors, "broadcast_tensors", "shape", method=False,
       samples=lambda make: [((make(3, 1), make(4)), {})])


def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy; gradients flow through it."""
    check_tensor("clone", input)
    return prim("alias", input)


def is_contiguous(self: Tensor, memory_format: Any = None) -> bool:
    """Whether the elements lie in row-major order without gaps (or in `memory_format`)."""
    order = _format_order(memory_format, self.ndim)
    shape, strides = self._node.spec.shape, strides_of(self)
    if order is None:
        return is_packed(shape, strides)
    if len(order) != self.ndim:
        return False
    return is_packed([shape[k] for k in order], [strides[k] for k in order])


def _format_order(memory_format: Any, ndim: int) -> tuple[int, ...] | None:
    """The order in memory of the dimensions, None for row-major."""
    name = getattr(memory_format, "name", memory_format)
    name = None if name is None else str(name).rpartition(".")[2]
    if name in (None, "contiguous_format", "preserve_format"):
        return None
    if name == "channels_last":
        return (0, 2, 3, 1)
    if name == "channels_last_3d":
        return (0, 2, 3, 4, 1)
    raise TypeError(f"unknown memory format {memory_format!r}")


def contiguous(self: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor itself if its elements lie in row-major order, else a copy where they do.

    `memory_format` may be channels_last (4-d) or channels_last_3d (5-d): channels innermost.
    """
    self._fresh()
    if is_contiguous(self, memory_format):
        return self
    order = _format_order(memory_format, self.ndim)
    if order is None:
        return prim("alias", self)
    if len(order) != self.ndim:
        raise RuntimeError(f"required rank {len(order)} tensor to use channels_last format")
    back = [order.index(k) for k in range(len(order))]
    return permuted(prim("permute", self, attrs=(order,)), back)


def stride(self: Tensor, dim: int | None = None) -> Any:
    """The strides in elements, or that of one dimension."""
    strides = strides_of(self)
    if dim is None:
        return tuple(strides)
    if not strides:
        raise IndexError("Dimension specified as 0 but tensor has no dimensions")
    return strides[wrap_dim(dim, len(strides))]


def storage_offset(self: Tensor) -> int:
    """Where in its memory this tensor begins, in elements."""
    return self._offset


def data_ptr(self: Tensor) -> int:
    """The address of the first element, once it has been computed; 0 for an empty tensor."""
    buffer, _ = self._memory()
    if not self.numel():
        return 0
    address: int = buffer.ptr + self._offset * self.dtype.itemsize
    return address


public(clone, "clone", "shape", samples=lambda make: [((make(3, 4),), {})])
for _fn in (is_contiguous, contiguous, stride, storage_offset, data_ptr):
    setattr(Tensor, _fn.__name__, _fn)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 (..., num_classes): 1 at the class that each element names, 0 elsewhere.

    num_classes -1 takes the largest class present plus one.
    """
    if tensor.dtype is not int64:
        raise DTypeError("one_hot is only applicable to index tensor of type LongTensor.")
    if num_classes < 0:
        if num_classes != -1:
            raise RuntimeError("num_classes should be positive or -1")
        if not tensor.numel():
            raise RuntimeError("Can not infer total number of classes from empty tensor.")
    elif num_classes == 0 and tensor.numel():
        raise RuntimeError("Class values must be smaller than num_classes.")
    if tensor.numel():
        values = tensor._peek()
        if values.min() < 0:
            raise RuntimeError("Class values must be non-negative.")
        top = int(values.max())
        if num_classes == -1:
            num_classes = top + 1
        elif top >= num_classes:
            raise RuntimeError("Class values must be smaller than num_classes.")
    result: Tensor = _one_hot(tensor, num_classes)
    return result


@op(name="one_hot", register=False)
def _one_hot(index: Tensor, n: int) -> Tensor:
    shape = (*index._node.spec.shape, n)
    wide = expand_to(prim("reshape", index, shape=(*shape[:-1], 1)), shape)
    return cast(prim("eq", wide, iota_along(shape, len(shape) - 1)), int64)


public(one_hot, "one_hot", "shape", method=False, differentiable=False)
