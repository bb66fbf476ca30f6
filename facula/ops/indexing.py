"""Square brackets: reading and writing parts of a tensor.

Ints, slices, None and Ellipsis make views; index tensors and masks make copies.  An index is read
once, from left to right, into the slice it takes of every dimension, the dimensions that vanish
or appear, and the index tensors that remain; then at most one slice, one reshape and one gather
are recorded.  Masks are the exception to recording: how many elements they choose has to be
known, so they are computed at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from facula.dtype import DType, bool_, int64
from facula.errors import DTypeError, ShapeError
from facula.graph.record import _local
from facula.ops.define import composite
from facula.ops.layout import host, strides_of, true_places, view_of
from facula.ops.parts import slice_view
from facula.ops.promote import broadcast_shapes, cast, expand_to, full_like, is_number
from facula.ops.surface import number_operand
from facula.tensor import Tensor, prim, scalar

__all__ = ["getitem", "setitem", "wrap_index", "check_range", "positions_of", "as_value"]

_FULL = slice(None)


# ---------------------------------------------------------------- index tensors

def wrap_index(index: Tensor, n: int) -> Tensor:
    """`index` as int64 with negative positions counted from the end of a dimension of `n`."""
    i = cast(index, int64)
    below = prim("lt", i, full_like(i, 0))
    return prim("where", below, prim("add", i, full_like(i, n)), i)


def check_range(values: np.ndarray, n: int, dim: int) -> np.ndarray:
    """Positions known now, wrapped; IndexError where one is out of range."""
    if values.size:
        bad = (values < -n) | (values >= n)
        if bad.any():
            raise IndexError(f"index {int(values[bad].reshape(-1)[0])} is out of bounds for "
                             f"dimension {dim} with size {n}")
        if (values < 0).any():
            values = np.where(values < 0, values + n, values)
    return values


def positions_of(mask: Tensor) -> tuple[np.ndarray, ...]:
    """Where a mask holds, computed now."""
    array = mask._peek()
    return true_places(array) if array.ndim else np.nonzero(array)


class _Known:
    """An index whose values are known on the host: an array of ints."""

    __slots__ = ("values",)

    def __init__(self, values: np.ndarray):
        self.values = values

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape


# ---------------------------------------------------------------- reading an index

class _Plan:
    """What an index asks for.

    starts, steps, sizes   the slice taken of every dimension of the tensor
    dims                   the dimensions after that: without those that ints take, with None's
    tensors                (which of `dims` it begins to index, index tensor) in order
    """

    __slots__ = ("starts", "steps", "sizes", "dims", "tensors", "plain")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.steps: list[int] = []
        self.sizes: list[int] = []
        self.dims: list[int] = []        # which dimension each of the view was; new: -1 - next
        self.tensors: list[tuple[int, Any]] = []
        self.plain = True                # nothing but whole slices


def _array_index(value: Any) -> Any:
    """A list, range or array as what it indexes with: `_Known` ints or a bool mask's array."""
    if isinstance(value, (list, tuple)) and any(isinstance(v, Tensor) for v in _flat(value)):
        value = _numbers(value)
    array = np.asarray(value)
    if array.dtype.kind == "b":
        return array
    if array.size == 0 and not isinstance(value, np.ndarray):
        array = array.astype(np.int64)
    if array.dtype.kind not in "ui":
        raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
    return _Known(array.astype(np.int64))


def _flat(values: Any) -> Iterator[Any]:
    for v in values:
        if isinstance(v, (list, tuple)):
            yield from _flat(v)
        else:
            yield v


def _numbers(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_numbers(v) for v in value]
    return value._peek().tolist() if isinstance(value, Tensor) else value


def _as_tuple(index: Any) -> tuple[Any, ...]:
    """The items of an index, masks of several dimensions still one item."""
    if type(index) is tuple:
        return index
    if isinstance(index, tuple):
        return tuple(index)
    if isinstance(index, list) and len(index) < 32 and any(
            [v is None or v is Ellipsis or isinstance(v, (Tensor, list, tuple, slice))
             for v in index]):
        return tuple(index)                # a list of items, as PyTorch reads it, is a tuple
    return (index,)


def _consumes(item: Any) -> int:
    """How many dimensions of the tensor an item takes up."""
    if item is None or item is Ellipsis or isinstance(item, (bool, np.bool_)):
        return 0
    if isinstance(item, Tensor):
        return item.ndim if item.dtype.kind == "b" or item.dtype.name == "uint8" else 1
    if isinstance(item, np.ndarray):
        return item.ndim if item.dtype.kind == "b" else 1
    return 1


def _bound(value: Any) -> Any:
    """A bound of a slice as an int or None."""
    if value is None or type(value) is int:
        return value
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.dtype.kind not in "uib":
            raise TypeError("slice indices must be integers or None or have an __index__ method")
        return int(value._peek().reshape(-1)[0])
    if hasattr(value, "__index__"):
        return value.__index__()
    raise TypeError("slice indices must be integers or None or have an __index__ method")


def _prepare(items: tuple[Any, ...]) -> list[Any]:
    """Items of foreign kinds as ints, `_Known` or tensors."""
    out = []
    for item in items:
        if item is None or item is Ellipsis or type(item) in (int, slice, bool):
            out.append(item)
        elif isinstance(item, Tensor):
            kind = item.dtype.kind
            if kind not in "uib":
                raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
            if item.ndim == 0 and kind == "i" and not _local.rec.depth:
                out.append(int(item._peek()))
            elif item.ndim == 0 and kind != "i":
                out.append(bool(item._peek()))
            else:
                out.append(item)
        elif isinstance(item, (bool, np.bool_)):
            out.append(bool(item))
        elif isinstance(item, np.ndarray) and item.ndim == 0 and item.dtype.kind in "ui":
            out.append(int(item))
        elif isinstance(item, (list, tuple, range, np.ndarray)):
            found = _array_index(item)
            out.append(host(found, bool_) if isinstance(found, np.ndarray) else found)
        elif hasattr(item, "__index__"):
            out.append(int(item.__index__()))
        elif isinstance(item, slice):
            out.append(item)
        else:
            wrong = TypeError if isinstance(item, str) else IndexError
            raise wrong(f"only integers, slices (`:`), ellipsis (`...`), None and long or "
                       f"byte Variables are valid indices (got {type(item).__name__})")
    return out


def _plan(shape: tuple[int, ...], items: tuple[Any, ...]) -> _Plan:
    plan = _Plan()
    prepared = _prepare(items)
    used = sum([_consumes(i) for i in prepared])
    ndim = len(shape)
    if used > ndim:
        if ndim == 0 and all(type(i) is int for i in prepared):
            raise IndexError("invalid index of a 0-dim tensor. Use `tensor.item()` in Python or "
                             "`tensor.item<T>()` in C++ to convert a 0-dim tensor to a number")
        raise IndexError(f"too many indices for tensor of dimension {ndim}")
    k = 0
    seen = False
    for item in prepared:
        kind = type(item)
        if kind is int:
            n = shape[k]
            if not -n <= item < n:
                raise IndexError(f"index {item} is out of bounds for dimension {k} with size {n}")
            plan.starts.append(item % n)
            plan.steps.append(1)
            plan.sizes.append(1)
            plan.plain = False
            k += 1
        elif kind is slice:
            n = shape[k]
            step = _bound(item.step)
            if step is not None and step <= 0:
                raise ValueError("step must be greater than zero")
            start, stop, step = slice(_bound(item.start), _bound(item.stop), step).indices(n)
            size = max(-(-(stop - start) // step), 0)
            if start or step != 1 or size != n:
                plan.plain = False
            plan.starts.append(start)
            plan.steps.append(step)
            plan.sizes.append(size)
            plan.dims.append(k)
            k += 1
        elif item is None:
            plan.dims.append(-1 - k)
        elif item is Ellipsis:
            if seen:                     # further ones stand for no dimension at all
                continue
            seen = True
            for _ in range(ndim - used):
                _whole(plan, shape[k], k)
                k += 1
        elif kind is bool:
            plan.tensors.append((len(plan.dims), item))
            plan.dims.append(-1 - k)
        else:
            count = _consumes(item)
            plan.tensors.append((len(plan.dims), item))
            if isinstance(item, Tensor) and (item.dtype.kind == "b"
                                             or item.dtype.name == "uint8"):
                for d in range(count):
                    if item._node.spec.shape[d] != shape[k + d]:
                        raise IndexError(
                            f"The shape of the mask {list(item.shape)} at index {d} does not "
                            f"match the shape of the indexed tensor {list(shape)} at index "
                            f"{k + d}")
            for _ in range(count):
                _whole(plan, shape[k], k)
                k += 1
    while k < ndim:
        _whole(plan, shape[k], k)
        k += 1
    return plan


def _whole(plan: _Plan, n: int, k: int) -> None:
    plan.starts.append(0)
    plan.steps.append(1)
    plan.sizes.append(n)
    plan.dims.append(k)


def _basic(x: Tensor, plan: _Plan) -> Tensor:
    """The view that the ints, slices and Nones of an index make."""
    view = x
    if not plan.plain:
        view = slice_view(x, plan.starts, plan.steps, plan.sizes)
    dims = plan.dims
    if len(dims) == len(plan.sizes) and all(d >= 0 for d in dims):
        return view
    strides, sizes, old = strides_of(view), plan.sizes, strides_of(x)
    whole = x._node.spec.shape
    shape, steps = [], []
    for d in dims:
        if d >= 0:
            shape.append(sizes[d])
            steps.append(strides[d])
        else:
            # A new dimension has the stride that the next one spans, as it was before its slice.
            after = -1 - d
            shape.append(1)
            steps.append(whole[after] * old[after] if after < len(whole) else 1)
    return view_of(view, "reshape", (), tuple(shape), steps, view._offset)


# ---------------------------------------------------------------- gathering by index tensors

def _expand_masks(view: Tensor, tensors: Sequence[tuple[int, Any]]
                  ) -> list[tuple[int, Tensor]]:
    """(dimension, wrapped int64 index) for each indexed dimension."""
    shape = view._node.spec.shape
    out: list[tuple[int, Tensor]] = []
    for dim, item in tensors:
        if type(item) is bool:
            out.append((dim, host(np.zeros(1 if item else 0, np.int64), int64)))
        elif isinstance(item, _Known):
            out.append((dim, host(check_range(item.values, shape[dim], dim), int64)))
        elif item.dtype.kind == "b" or item.dtype.name == "uint8":
            for d, where in enumerate(positions_of(item)):
                out.append((dim + d, host(where.astype(np.int64), int64)))
        else:
            value = item._node.value if not item._path else None
            # While a call is recorded to be replayed, positions are the graph's to look at.
            if value is not None and item._storage is None and not _local.rec.depth \
                    and _local.rec.tape is None:
                known = item._peek()
                checked = check_range(known, shape[dim], dim)
                out.append((dim, cast(item, int64) if checked is known
                            else host(checked, int64)))
            else:
                out.append((dim, _wrapped(item, shape[dim])))
    return out


@composite
def _wrapped(index: Tensor, n: int) -> Tensor:
    return wrap_index(index, n)


def _common_shape(indices: Sequence[Tensor]) -> tuple[int, ...]:
    try:
        return tuple(broadcast_shapes(*(i._node.spec.shape for i in indices)))
    except ShapeError:
        shapes = ", ".join(str(list(i.shape)) for i in indices)
        raise IndexError("shape mismatch: indexing tensors could not be broadcast together with "
                         f"shapes {shapes}") from None


def _front(dims: tuple[int, ...], ndim: int) -> tuple[tuple[int, ...] | None, int]:
    """(order that brings the indexed dimensions together or None, where they then begin)."""
    if all(b == a + 1 for a, b in zip(dims, dims[1:])):
        return None, dims[0]
    return (*dims, *(k for k in range(ndim) if k not in dims)), 0


@composite
def _take_at(x: Tensor, dims: tuple[int, ...], indices: tuple[Tensor, ...]) -> Tensor:
    """x at wrapped int64 indices of several dimensions, NumPy's rule for where they go."""
    order, first = _front(dims, x.ndim)
    if order is not None:
        x = prim("permute", x, attrs=(order,))
    if len(dims) == 1:
        return prim("take", x, indices[0], attrs=(first,))
    common = _common_shape(indices)
    shape = x._node.spec.shape
    sizes = shape[first:first + len(dims)]
    total = 1
    for n in sizes:
        total *= n
    linear = expand_to(indices[0], common)
    inside = _fits(linear, sizes[0])
    for index, n in zip(indices[1:], sizes[1:]):
        i = expand_to(index, common)
        linear = prim("add", prim("mul", linear, full_like(linear, n)), i)
        inside = prim("logical_and", inside, _fits(i, n))
    # Out of range in one dimension must not read from the next row.
    linear = prim("where", inside, linear, full_like(linear, total))
    flat = prim("reshape", x, shape=(*shape[:first], total, *shape[first + len(dims):]))
    return prim("take", flat, linear, attrs=(first,))


def _fits(index: Tensor, n: int) -> Tensor:
    return prim("logical_and", prim("ge", index, full_like(index, 0)),
                prim("lt", index, full_like(index, n)))


@composite
def _put_at(x: Tensor, dims: tuple[int, ...], indices: tuple[Tensor, ...], value: Tensor,
            accumulate: bool) -> Tensor:
    """x with `value` (which broadcasts) stored, or added, at wrapped int64 indices."""
    order, first = _front(dims, x.ndim)
    base = x if order is None else prim("permute", x, attrs=(order,))
    common = _common_shape(indices)
    shape = base._node.spec.shape
    target = (*shape[:first], *common, *shape[first + len(dims):])
    v = _fitted(cast(value, x.dtype), target)
    out = prim("index_put", base, v, *[expand_to(i, common) for i in indices],
               attrs=(first, accumulate))
    if order is None:
        return out
    back = [0] * len(order)
    for k, o in enumerate(order):
        back[o] = k
    return prim("permute", out, attrs=(tuple(back),))


def _fitted(value: Tensor, target: Sequence[int]) -> Tensor:
    """`value` broadcast to what is written, leading dimensions of size 1 left out."""
    shape = value._node.spec.shape
    target = tuple(target)
    if shape == target:
        return value
    extra = len(shape) - len(target)
    if extra > 0 and all(n == 1 for n in shape[:extra]):
        value = prim("reshape", value, shape=shape[extra:])
        shape = shape[extra:]
    if len(shape) > len(target) or any(a != b and a != 1 for a, b in
                                       zip(reversed(shape), reversed(target))):
        raise ShapeError(f"shape mismatch: value tensor of shape {list(value.shape)} cannot be "
                         f"broadcast to indexing result of shape {list(target)}")
    return expand_to(value, target)


@composite
def _take_flat(x: Tensor, index: Tensor, dim: int, count: int) -> Tensor:
    """The elements at places of `count` dimensions taken as one."""
    shape = x._node.spec.shape
    flat = (*shape[:dim], prod(shape[dim:dim + count]), *shape[dim + count:])
    return prim("take", prim("reshape", x, shape=flat), index, attrs=(dim,))


def getitem(self: Tensor, index: Any) -> Tensor:
    """self[index]: a view for ints, slices, None and Ellipsis; a copy for tensors and masks.

    Raises IndexError for positions out of range: at once where they are known, else when the
    result is computed.
    """
    self._fresh()
    items = index if type(index) is tuple else _as_tuple(index)
    plan = _plan(self._node.spec.shape, items)
    view = _basic(self, plan)
    if not plan.tensors:
        if view is self:
            return view_of(self, "reshape", (), self._node.spec.shape, strides_of(self),
                           self._offset)
        return view
    dim, item = plan.tensors[0]
    if len(plan.tensors) == 1 and isinstance(item, Tensor) and item.dtype is bool_ \
            and item.ndim > 1:
        flat = host(np.flatnonzero(item._peek()).astype(np.int64, copy=False), int64)
        chosen: Tensor = _take_flat(view, flat, dim, item.ndim)
        return chosen
    pairs = _expand_masks(view, plan.tensors)
    if not pairs:                         # a mask of no dimensions cannot remain
        return prim("alias", view)
    result: Tensor = _take_at(view, tuple([d for d, _ in pairs]), tuple([i for _, i in pairs]))
    return result


# ---------------------------------------------------------------- writing

def as_value(value: Any, dtype: DType) -> Tensor:
    """What is written, as a tensor: a number becomes a runtime scalar."""
    if isinstance(value, Tensor):
        return value
    if is_number(value):
        if hasattr(value, "item"):
            value = value.item()
        if isinstance(value, complex) and dtype.kind != "c":
            raise DTypeError(f"value cannot be converted to type {dtype.name} without overflow")
        if isinstance(value, float) and dtype.kind in "ui":
            value = int(value) if value == value and abs(value) != float("inf") else 0
        return scalar(number_operand(value, dtype), dtype)
    if isinstance(value, (np.ndarray, list, tuple)):
        return host(np.asarray(value), dtype)
    raise TypeError(f"can't assign a {type(value).__name__} to a {dtype.name} tensor")


@composite
def _filled(value: Tensor, shape: tuple[int, ...], dtype: DType) -> Tensor:
    return _target_fit(cast(value, dtype), shape)


def _target_fit(value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`value` broadcast to a basic index's shape; a fresh tensor."""
    have = value._node.spec.shape
    extra = len(have) - len(shape)
    if extra > 0 and all(n == 1 for n in have[:extra]):
        value = prim("reshape", value, shape=have[extra:])
        have = have[extra:]
    lead = len(shape) - len(have)
    for k, n in enumerate(have):
        if lead < 0 or (n != 1 and n != shape[lead + k]):
            raise ShapeError(
                f"The expanded size of the tensor ({shape[lead + k] if lead >= 0 else n}) must "
                f"match the existing size ({n}) at non-singleton dimension {max(lead, 0) + k}.  "
                f"Target sizes: {list(shape)}.  Tensor sizes: {list(have)}")
    return expand_to(value, shape)


@composite
def _sliced_in(x: Tensor, starts: tuple[int, ...], steps: tuple[int, ...],
               sizes: tuple[int, ...], shape: tuple[int, ...], value: Tensor) -> Tensor:
    """x with a slice of it replaced; `shape` is the slice's without dropped dimensions."""
    v = _target_fit(cast(value, x.dtype), shape)
    if v._node.spec.shape != sizes:
        v = prim("reshape", v, shape=sizes)
    return prim("slice_update", x, v, attrs=(starts, steps))


@composite
def _masked_in(x: Tensor, mask: Tensor, first: int, value: Tensor) -> Tensor:
    """x with a one-element value where a mask over dimensions first.. holds."""
    shape = x._node.spec.shape
    m = cast(mask, bool_)
    last = len(shape) - first - m.ndim
    m = expand_to(prim("reshape", m, shape=(*m._node.spec.shape, *(1,) * last)), shape)
    v = expand_to(prim("reshape", cast(value, x.dtype), shape=()), shape)
    return prim("where", m, v, x)


def setitem(self: Tensor, index: Any, value: Any) -> None:
    """self[index] = value, which broadcasts to the part; its dtype is converted.

    Of several values for one position, the last in row-major order stays.
    """
    self._fresh()
    rec = _local.rec
    dtype = self.dtype
    v = as_value(value, dtype)
    if v._node is self._node or v._storage is not None and v._storage is self._storage:
        v = prim("alias", v)
    start = rec.graph.state.count
    graph = rec.graph
    items = index if type(index) is tuple else _as_tuple(index)
    plan = _plan(self._node.spec.shape, items)
    if not plan.tensors:
        if self._path or plan.plain:
            view = _basic(self, plan)
            new = _filled(v, view._node.spec.shape, dtype)
            if new._storage is not None or new._node.value is not None or new is v:
                new = prim("alias", new)
            view._write(new, start=start if rec.graph is graph else 0)
            return
        shape = tuple([plan.sizes[d] if d >= 0 else 1 for d in plan.dims])
        new = _sliced_in(self, tuple(plan.starts), tuple(plan.steps), tuple(plan.sizes), shape, v)
        self._write(new, start=start if rec.graph is graph else 0)
        return
    view = _basic(self, plan)
    tensors = plan.tensors
    if len(tensors) == 1 and v.numel() == 1 and isinstance(tensors[0][1], Tensor) \
            and tensors[0][1].dtype.kind == "b":
        new = _masked_in(view, tensors[0][1], tensors[0][0], v)
    else:
        pairs = _expand_masks(view, tensors)
        start = rec.graph.state.count if rec.graph is not graph else start
        new = _put_at(view, tuple([d for d, _ in pairs]), tuple([i for _, i in pairs]), v, False)
    view._write(new, start=start if rec.graph is graph else 0)


# ---------------------------------------------------------------- tensors as sequences

def _len(self: Tensor) -> int:
    shape = self._node.spec.shape
    if not shape:
        raise TypeError("len() of a 0-d tensor")
    return shape[0]


def _iter(self: Tensor) -> Iterator[Tensor]:
    from facula.ops.parts import select
    shape = self._node.spec.shape
    if not shape:
        raise TypeError("iteration over a 0-d tensor")
    return iter([select(self, 0, i) for i in range(shape[0])]) if shape[0] < 64 \
        else (select(self, 0, i) for i in range(shape[0]))


def _contains(self: Tensor, element: Any) -> bool:
    if not isinstance(element, Tensor) and not is_number(element):
        raise RuntimeError("Tensor.__contains__ only supports Tensor or scalar, but you passed in "
                           f"a {type(element).__name__}.")
    same = self == element
    return bool(np.any(same._peek()))                 # type: ignore[attr-defined]


Tensor.__getitem__ = getitem                         # type: ignore[attr-defined]
Tensor.__setitem__ = setitem                         # type: ignore[attr-defined]
Tensor.__len__ = _len                                # type: ignore[attr-defined]
Tensor.__iter__ = _iter                              # type: ignore[attr-defined]
Tensor.__contains__ = _contains                      # type: ignore[attr-defined]
