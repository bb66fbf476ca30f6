"""Where a tensor's elements lie: strides, contiguity, and how a view is made.

Strides count elements.  A tensor that no view operation made is row-major unless its memory came
from outside with other strides; a view knows its strides and offset itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from facula.dtype import DType, from_numpy_dtype
from facula.errors import ShapeError
from facula.graph.record import Node, _local
from facula.graph.spec import spec
from facula.runtime.allocator import from_numpy_private
from facula.tensor import Tensor, make, prim

__all__ = ["row_major", "strides_of", "is_packed", "view_strides", "view_of", "root_of",
           "fill_size", "int_args", "host", "true_places", "as_int", "check_tensor"]


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a row-major tensor; dimensions of size 0 count as 1, as in PyTorch."""
    out = []
    step = 1
    for n in reversed(shape):
        out.append(step)
        step *= max(n, 1)
    return tuple(reversed(out))


def strides_of(t: Tensor) -> tuple[int, ...]:
    """The strides of `t` in elements."""
    if t._strides is not None:
        return t._strides
    node = t._node
    return node.strides if node.strides is not None else row_major(node.spec.shape)


def is_packed(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether these strides are row-major without gaps; those of size-1 dimensions are free."""
    step = 1
    for n, s in zip(reversed(shape), reversed(strides)):
        if n == 0:
            return True
        if n != 1:
            if s != step:
                return 0 in shape
            step *= n
    return True


def view_strides(shape: Sequence[int], strides: Sequence[int],
                 new: Sequence[int]) -> tuple[int, ...] | None:
    """Strides under which the memory of a tensor reads as shape `new`; None if none do.

    Runs of dimensions that lie in memory as one are cut anew; a run may not be crossed.
    """
    if not shape:
        return (1,) * len(new)
    if 0 in shape:
        return tuple(strides) if tuple(shape) == tuple(new) else row_major(new)
    out = [0] * len(new)
    d = len(new) - 1
    base = strides[-1]
    have = made = 1
    for k in range(len(shape) - 1, -1, -1):
        have *= shape[k]
        if k == 0 or (shape[k - 1] != 1 and strides[k - 1] != have * base):
            while d >= 0 and (made < have or new[d] == 1):
                out[d] = made * base
                made *= new[d]
                d -= 1
            if made != have:
                return None
            if k:
                base = strides[k - 1]
                have = made = 1
    return tuple(out) if d == -1 else None


def view_of(t: Tensor, name: str, attrs: tuple[Any, ...], shape: Sequence[int],
            strides: Sequence[int], offset: int, dtype: DType | None = None) -> Tensor:
    """A view of `t` through one primitive.

    Inside the body of an operation, where nothing can be overwritten, just the value.
    """
    if _local.rec.depth:
        return prim(name, t, attrs=attrs, shape=tuple(shape), dtype=dtype)
    return t._view(name, attrs, tuple(shape), tuple(strides), offset, dtype)


def root_of(t: Tensor) -> Tensor:
    """The tensor that `t` is, at the end, a view of; `t` itself if it is none."""
    if not t._path:
        return t
    base = t._base
    if base is not None and not base._path and t._detached == base._detached:
        return base
    storage = t._storage
    assert storage is not None
    root = make(storage.node, storage.rg and not t._detached)
    root._storage, root._version, root._detached = storage, storage.version, t._detached
    return root


# ---------------------------------------------------------------- arguments

def check_tensor(name: str, value: Any, argument: str = "input") -> None:
    """Raise a TypeError unless `value` is a tensor."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}(): argument '{argument}' must be Tensor, not "
                        f"{type(value).__name__}")


def as_int(value: Any, what: str = "an int") -> int:
    """`value` as a Python int; a tensor of one element is read.  TypeError for floats."""
    if type(value) is int:
        return value
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.dtype.kind not in "ui":
            raise TypeError("only integer tensors of a single element can be converted to an "
                            "index")
        return int(value._peek().reshape(-1)[0])
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"expected {what}, got {type(value).__name__}")
    return int(value.__index__())


def int_args(args: Sequence[Any]) -> tuple[int, ...]:
    """The ints of `f(2, 3)` and of `f((2, 3))` alike."""
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        args = args[0]
    return tuple([a if type(a) is int else as_int(a) for a in args])


def fill_size(shape: Sequence[int], numel: int) -> tuple[int, ...]:
    """`shape` with its -1, if it has one, replaced by what makes `numel` elements."""
    unknown = -1
    known = 1
    for k, n in enumerate(shape):
        if n == -1:
            if unknown >= 0:
                raise ShapeError("only one dimension can be inferred")
            unknown = k
        elif n < 0:
            raise ShapeError(f"invalid shape dimension {n}")
        else:
            known *= n
    if unknown < 0:
        if known != numel:
            raise ShapeError(f"shape '{list(shape)}' is invalid for input of size {numel}")
        return tuple(shape)
    if known == 0:
        if numel == 0:
            raise ShapeError(f"cannot reshape tensor of 0 elements into shape {list(shape)} "
                             "because the unspecified dimension size -1 can be any value and is "
                             "ambiguous")
        raise ShapeError(f"shape '{list(shape)}' is invalid for input of size {numel}")
    if numel % known:
        raise ShapeError(f"shape '{list(shape)}' is invalid for input of size {numel}")
    return (*shape[:unknown], numel // known, *shape[unknown + 1:])


def host(array: Any, dtype: DType | None = None) -> Tensor:
    """A tensor with a private copy of an array's content."""
    array = np.asarray(array, None if dtype is None else dtype.np)
    kind = dtype or from_numpy_dtype(array.dtype)
    node = Node((None, -1), spec(array.shape, kind), from_numpy_private(array))
    return make(node)


def true_places(array: np.ndarray) -> tuple[np.ndarray, ...]:
    """`numpy.nonzero` of an array of dimension 1 or more, several times as fast for two or more:
    the places in the flat array, divided as numbers of 32 bits where they fit."""
    flat = np.flatnonzero(array)
    if array.ndim == 1:
        return (flat,)
    rest = flat.astype(np.uint32) if array.size < 1 << 32 else flat
    out = []
    for n in array.shape[:0:-1]:
        above = rest // rest.dtype.type(max(n, 1))
        out.append((rest - above * rest.dtype.type(n)).astype(np.int64))
        rest = above
    return (rest.astype(np.int64), *reversed(out))


def numel_of(shape: Sequence[int]) -> int:
    """How many elements a tensor of this shape has."""
    return prod(shape)
