"""Reading and writing along one dimension by an index tensor, and by masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facula.dtype import DType, bool_, int32, int64
from facula.errors import DTypeError, ShapeError
from facula.graph.record import _local
from facula.ops.define import autocast_to, composite, op
from facula.ops.given import into
from facula.ops.indexing import (
    _array_index,
    _expand_masks,
    _Known,
    _put_at,
    as_value,
    wrap_index,
)
from facula.ops.layout import check_tensor, host
from facula.ops.promote import (
    broadcast_shapes,
    cast,
    expand_to,
    full_like,
    type_name,
)
from facula.ops.reductions import wrap_dim
from facula.ops.surface import number_operand, public
from facula.tensor import Tensor, prim, scalar

__all__ = ["gather", "scatter", "scatter_add", "scatter_reduce", "index_select", "index_add",
           "index_copy", "index_fill", "index_put", "index_reduce", "masked_fill",
           "masked_scatter", "masked_select", "take", "take_along_dim", "put"]

_FAMILY = "indexing"


def _long(name: str, index: Any) -> Tensor:
    check_tensor(name, index, "index")
    if index.dtype is not int64 and index.dtype is not int32 and index.numel():
        raise DTypeError(f"{name}(): Expected dtype int32/int64 for index")
    return cast(index, int64)


def _at_least_1d(x: Tensor) -> Tensor:
    return x if x.ndim else prim("reshape", x, shape=(1,))


def _like(value: Tensor, x: Tensor) -> Tensor:
    """`value` in the shape of `x`, from which it differs by a size of 1 at most."""
    shape = x._node.spec.shape
    return value if value._node.spec.shape == shape else prim("reshape", value, shape=shape)


def _indices(make: Any, *shape: int, high: int) -> Any:
    return make(*shape, dtype=int64, low=0, high=high)


def _check_known(input: Tensor, dim: int, index: Any) -> None:
    """Raise where an index whose values are there already is out of range."""
    if _local.rec.depth or _local.rec.tape is not None or not isinstance(index, Tensor) \
            or not isinstance(input, Tensor):
        return
    index._fresh()
    if index._node.value is None or not index.numel() or index.ndim != input.ndim:
        return
    axis = wrap_dim(dim, input.ndim)
    n = input.shape[axis] if input.ndim else 1
    values = index._peek()
    for v in (int(values.min()), int(values.max())):
        if not 0 <= v < n:
            raise OutOfRange(f"index {v} is out of bounds for dimension {axis} with size {n}")


class OutOfRange(IndexError, RuntimeError):
    """An index of scatter out of range: PyTorch raises RuntimeError there, IndexError elsewhere."""


# ---------------------------------------------------------------- gather and scatter

@composite
def _gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    axis = wrap_dim(dim, input.ndim)
    i = _long("gather", index)
    if not i.numel():
        none = prim("reshape", input, shape=(input.numel(),))
        none = prim("slice", none, attrs=((0,), (1,)), shape=(0,))
        return prim("reshape", none, shape=i._node.spec.shape)
    if i.ndim != input.ndim and max(i.ndim, 1) != max(input.ndim, 1):
        raise ShapeError("Index tensor must have the same number of dimensions as input tensor")
    out = prim("gather", _at_least_1d(input), _at_least_1d(i), attrs=(axis,))
    return _like(out, index)


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False,
           out: Tensor | None = None) -> Tensor:
    """out[i][j] = input[index[i][j]][j] for dim 0, and so on; index may be smaller elsewhere."""
    _check_known(input, dim, index)
    result: Tensor = _gather(input, dim, index)
    return into(out, result, exact=True)


public(gather, "gather", _FAMILY, samples=lambda make: [
    ((make(3, 4), 0, _indices(make, 2, 4, high=3)), {}),
    ((make(3, 4), -1, _indices(make, 3, 6, high=4)), {}),
    ((make(), 0, _indices(make, high=1)), {})])


def _scattered(name: str, input: Tensor, dim: int, index: Tensor, src: Tensor, mode: str
               ) -> Tensor:
    """`input` with the part of `src` that the index covers written, or combined, into it."""
    axis = wrap_dim(dim, input.ndim)
    i = _at_least_1d(_long(name, index))
    if src.dtype is not input.dtype:
        raise DTypeError(f"{name}(): Expected self.dtype to be equal to src.dtype")
    base, values = _at_least_1d(input), _at_least_1d(src)
    if not i.numel():
        return prim("alias", input)
    want, have = i._node.spec.shape, values._node.spec.shape
    if len(want) != base.ndim:
        raise ShapeError("Index tensor must have the same number of dimensions as self tensor")
    if len(have) != len(want):
        raise ShapeError("Index tensor must have the same number of dimensions as src tensor")
    if have != want:
        if any(a > b for a, b in zip(want, have)):
            raise ShapeError(f"Expected index {list(want)} to be no larger than src {list(have)}")
        zero = (0,) * len(want)
        values = prim("slice", values, attrs=(zero, (1,) * len(want)), shape=want)
    if any(a > b for k, (a, b) in enumerate(zip(want, base._node.spec.shape)) if k != axis):
        raise ShapeError(f"Expected index {list(want)} to be no larger than self "
                         f"{list(base.shape)} apart from dimension {axis}")
    return _like(prim("scatter", base, i, values, attrs=(axis, mode)), input)


@composite
def _scatter(input: Tensor, dim: int, index: Tensor, src: Tensor, mode: str) -> Tensor:
    return _scattered("scatter", input, dim, index, src, mode)


@composite
def _scatter_value(input: Tensor, dim: int, index: Tensor, value: Tensor, mode: str) -> Tensor:
    src = expand_to(cast(value, input.dtype), index.shape)
    return _scattered("scatter", input, dim, index, src, mode)


def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None,
            reduce: str | None = None) -> Tensor:
    """A copy of `input` with src[i][j] at [index[i][j]][j] for dim 0, and so on.

    `reduce` 'add' or 'multiply' combines with what is there.  Of several writes to one place
    the last in row-major order of the index stays.
    """
    modes = {None: "set", "add": "add", "multiply": "mul"}
    if reduce not in modes:
        raise RuntimeError("reduce argument must be either add or multiply.")
    src = value if src is None else src
    _check_known(input, dim, index)
    if isinstance(src, Tensor):
        result: Tensor = _scatter(input, dim, index, src, modes[reduce])
    else:
        result = _scatter_value(input, dim, index, as_value(src, input.dtype), modes[reduce])
    return result


public(scatter, "scatter", _FAMILY, inplace=True, samples=lambda make: [
    ((make(3, 4), 0, _indices(make, 1, 4, high=3), make(2, 4)), {}),
    ((make(3, 4), 1, _indices(make, 3, 1, high=4), 1.5), {})])


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """A copy of `input` with src added at the places that the index names."""
    _check_known(input, dim, index)
    result: Tensor = _scatter_add(input, dim, index, src)
    return result


@composite
def _scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    return _scattered("scatter_add", input, dim, index, src, "add")


public(scatter_add, "scatter_add", _FAMILY, inplace=True, samples=lambda make: [
    ((make(3, 4), 0, _indices(make, 5, 4, high=3), make(5, 4)), {}),
    ((make(3, 4), 1, _indices(make, 2, 6, high=4), make(3, 6)), {})])


_IDENTITY = {"sum": 0, "mean": 0, "prod": 1}
_MODES = {"sum": "add", "mean": "add", "prod": "mul", "amax": "amax", "amin": "amin"}


def _lowest(dtype: DType, largest: bool) -> Any:
    """The number that never wins a maximum (or a minimum)."""
    if dtype.kind == "f":
        return float("inf") if largest else float("-inf")
    if dtype.kind == "b":
        return largest
    info = np.iinfo(dtype.np)
    return int(info.max if largest else info.min)


def _reduced(name: str, input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str,
             include_self: bool) -> Tensor:
    if reduce not in _MODES:
        raise RuntimeError("reduce argument must be either sum, prod, mean, amax or amin, got "
                           f"{reduce}.")
    base = input
    dtype = input.dtype
    ones = full_like(src, 1)
    if not include_self:
        touched = _scattered(name, full_like(input, 0), dim, index, ones, "set")
        hit = prim("ne", touched, full_like(touched, 0))
        start = (_IDENTITY[reduce] if reduce in _IDENTITY
                 else _lowest(dtype, reduce == "amin"))
        base = prim("where", hit, full_like(input, start), input)
    out = _scattered(name, base, dim, index, src, _MODES[reduce])
    if reduce == "mean":
        count = _scattered(name, full_like(input, 1 if include_self else 0), dim, index, ones,
                           "add")
        if not include_self:
            count = prim("maximum", count, full_like(count, 1))
        out = prim("div" if dtype.kind in "fc" else "floor_divide", out, count)
    return out


@op(method=True, inplace=True, samples=lambda make: [
    ((make(3, 4), 0, _indices(make, 5, 4, high=3), make(5, 4), r), {"include_self": s})
    for r in ("sum", "prod", "mean", "amax", "amin") for s in (True, False)])
def scatter_reduce(input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *,
                   include_self: bool = True) -> Tensor:
    """Values of src combined by 'sum', 'prod', 'mean', 'amax' or 'amin' at places of `input`."""
    return _reduced("scatter_reduce", input, dim, index, src, reduce, include_self)


# ---------------------------------------------------------------- one index for whole slices

def _line(name: str, index: Any) -> Tensor:
    i = _long(name, index)
    if i.ndim > 1:
        raise IndexError(f"{name}(): Index is supposed to be a vector")
    return _at_least_1d(i)


@op(method=True, samples=lambda make: [
    ((make(3, 4), 0, _indices(make, 5, high=3)), {}),
    ((make(3, 4), 1, _indices(make, 2, high=4)), {}),
    ((make(), 0, _indices(make, 1, high=1)), {})])
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices along `dim` that a 1-d index names."""
    axis = wrap_dim(dim, input.ndim)
    out = prim("take", _at_least_1d(input), _line("index_select", index), attrs=(axis,))
    return out if input.ndim else prim("reshape", out, shape=())


def _slices(name: str, x: Tensor, axis: int, index: Tensor, source: Tensor) -> None:
    """Check that `source` holds one slice of `x` for each element of the index."""
    if source.dtype is not x.dtype:
        raise DTypeError(f"{name}(): self ({type_name(x.dtype)}) and source "
                         f"({type_name(source.dtype)}) must have the same scalar type")
    shape = x._node.spec.shape
    want = (*shape[:axis], index.numel(), *shape[axis + 1:])
    if source._node.spec.shape != want:
        raise ShapeError(f"{name}(): Number of indices ({index.numel()}) should be equal to the "
                         f"source's size in dimension {axis}, and the other sizes to those of "
                         f"self: source {list(source.shape)}, self {list(shape)}")


@composite
def _index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, alpha: Any) -> Tensor:
    axis = wrap_dim(dim, input.ndim)
    i = _line("index_add", index)
    x, s = _at_least_1d(input), _at_least_1d(source)
    _slices("index_add", x, axis, i, s)
    if isinstance(alpha, Tensor):
        s = prim("mul", s, expand_to(cast(alpha, s.dtype), s.shape))
    return _like(prim("index_put", x, s, i, attrs=(axis, True)), input)


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """A copy of `input` with alpha times each slice of `source` added at its index along `dim`."""
    factor = 1 if alpha == 1 else scalar(number_operand(alpha, input.dtype), input.dtype)
    result: Tensor = _index_add(input, dim, index, source, factor)
    return result


public(index_add, "index_add", _FAMILY, inplace=True, samples=lambda make: [
    ((make(3, 4), 0, _indices(make, 5, high=3), make(5, 4)), {}),
    ((make(3, 4), 1, _indices(make, 2, high=4), make(3, 2)), {"alpha": 0.5})])


@op(method=True, inplace=True, samples=lambda make: [
    ((make(3, 4), 0, _indices(make, 2, high=3), make(2, 4)), {})])
@autocast_to("widest")
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy of `input` with the slices of `source` at their indices along `dim`."""
    axis = wrap_dim(dim, input.ndim)
    i = _line("index_copy", index)
    x, s = _at_least_1d(input), _at_least_1d(source)
    _slices("index_copy", x, axis, i, s)
    return _like(prim("index_put", x, s, i, attrs=(axis, False)), input)


@composite
def _index_fill(input: Tensor, dim: int, index: Tensor, value: Tensor) -> Tensor:
    axis = wrap_dim(dim, input.ndim)
    x = _at_least_1d(input)
    shape = x._node.spec.shape
    i = wrap_index(_line("index_fill", index), shape[axis])
    if value.ndim:
        raise RuntimeError("index_fill_ only supports a 0-dimensional value tensor, but got tensor "
                           f"with {value.ndim} dimension(s).")
    values = expand_to(cast(value, x.dtype), (*shape[:axis], i.numel(), *shape[axis + 1:]))
    return _like(prim("index_put", x, values, i, attrs=(axis, False)), input)


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy of `input` with a number in the slices that the index names along `dim`."""
    result: Tensor = _index_fill(input, dim, index, as_value(value, input.dtype))
    return result


public(index_fill, "index_fill", _FAMILY, inplace=True, samples=lambda make: [
    ((make(3, 4), 1, _indices(make, 2, high=4), 2.0), {})])


@op(method=True, inplace=True, samples=lambda make: [
    ((make(3, 4), 0, _indices(make, 4, high=3), make(4, 4), r), {}) for r in ("prod", "amax")])
def index_reduce(input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *,
                 include_self: bool = True) -> Tensor:
    """Slices of `source` combined by 'prod', 'mean', 'amax' or 'amin' at indices along `dim`."""
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise RuntimeError("reduce argument must be either prod, mean, amax or amin, got "
                           f"{reduce}.")
    axis = wrap_dim(dim, input.ndim)
    i = _line("index_reduce", index)
    x, s = _at_least_1d(input), _at_least_1d(source)
    _slices("index_reduce", x, axis, i, s)
    shape = s._node.spec.shape
    wide = prim("reshape", i, shape=tuple(i.numel() if k == axis else 1
                                          for k in range(len(shape))))
    return _like(_reduced("index_reduce", x, axis, expand_to(wide, shape), s, reduce,
                          include_self), input)


# ---------------------------------------------------------------- several indices

def index_put(input: Tensor, indices: Sequence[Any], values: Any, accumulate: bool = False
              ) -> Tensor:
    """A copy of `input` with `values` at input[indices], added to what is there if asked for.

    `indices` are index tensors or masks for the first dimensions, None for a whole one.
    """
    input._fresh()
    pairs: list[tuple[int, Any]] = []
    k = 0
    for item in indices:
        if item is None:
            k += 1
            continue
        if not isinstance(item, Tensor):
            found = _array_index(item)
            item = found if isinstance(found, _Known) else host(found, bool_)
        pairs.append((k, item))
        mask = isinstance(item, Tensor) and (item.dtype.kind == "b" or item.dtype.name == "uint8")
        k += item.ndim if mask else 1
    if k > input.ndim:
        raise IndexError(f"too many indices for tensor of dimension {input.ndim} (got {k})")
    v = as_value(values, input.dtype)
    if v.dtype is not input.dtype:
        raise DTypeError("Index put requires the source and destination dtypes match, got "
                         f"{type_name(input.dtype)} for the destination and "
                         f"{type_name(v.dtype)} for the source.")
    if not pairs:
        return prim("alias", input)
    found_pairs = _expand_masks(input, pairs)
    result: Tensor = _put_at(input, tuple([d for d, _ in found_pairs]),
                             tuple([i for _, i in found_pairs]), v, accumulate)
    return result


public(index_put, "index_put", _FAMILY, inplace=True, samples=lambda make: [
    ((make(3, 4), (_indices(make, 2, high=3), _indices(make, 2, high=4)), make(2)), {}),
    ((make(3, 4), (_indices(make, 5, high=3),), make(5, 4), True), {})])


# ---------------------------------------------------------------- masks

@composite
def _masked_fill(input: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    if mask.dtype is not bool_:
        raise DTypeError("masked_fill_ only supports boolean masks, but got mask with dtype "
                         f"{mask.dtype.name}")
    shape = broadcast_shapes(input.shape, mask.shape)
    x = expand_to(input, shape)
    return prim("where", expand_to(mask, shape), expand_to(cast(value, x.dtype), shape), x)


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """A copy of `input` with a number (or a zero-dim tensor) where the mask holds."""
    if isinstance(value, Tensor):
        if value.ndim:
            raise RuntimeError("masked_fill_ only supports a 0-dimensional value tensor, but got "
                               f"tensor with {value.ndim} dimension(s).")
        if value.dtype.kind == "c" and input.dtype.kind != "c":
            raise DTypeError(f"value cannot be converted to type {input.dtype.name} without "
                             "overflow")
        v = value
    elif isinstance(value, complex) and input.dtype.kind != "c":
        raise DTypeError(f"value cannot be converted to type {input.dtype.name} without overflow")
    elif isinstance(value, float) and input.dtype.kind in "ui" and value != int(value):
        raise DTypeError(f"value cannot be converted to type {input.dtype.name} without overflow")
    else:
        v = as_value(value, input.dtype)
    result: Tensor = _masked_fill(input, mask, v)
    return result


public(masked_fill, "masked_fill", _FAMILY, inplace=True, samples=lambda make: [
    ((make(3, 4), make(3, 4, dtype=bool_), 0.5), {}), ((make(3, 4), make(4, dtype=bool_), -1), {}),
    ((make(3, 4), make(3, 1, dtype=bool_), make()), {})])


@op(name="masked_scatter", register=False)
def _masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    if mask.dtype is not bool_:
        raise DTypeError("masked_scatter_ only supports boolean masks, but got mask with dtype "
                         f"{mask.dtype.name}")
    if source.dtype is not input.dtype:
        raise DTypeError("masked_scatter: expected self and source to have same dtypes but got "
                         f"{type_name(input.dtype)} and {type_name(source.dtype)}")
    shape = tuple(broadcast_shapes(input.shape, mask.shape))
    x, m = expand_to(input, shape), expand_to(mask, shape)
    n = x.numel()
    flat = prim("reshape", cast(m, int64), shape=(n,))
    count = prim("cumsum", flat, attrs=(0,))
    place = prim("sub", count, full_like(count, 1))
    place = prim("where", prim("reshape", m, shape=(n,)), place, full_like(place, 0))
    line = prim("reshape", source, shape=(source.numel(),))
    taken = prim("reshape", prim("take", line, place, attrs=(0,)), shape=shape)
    return prim("where", m, taken, x)


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy of `input` with the elements of `source`, in order, where the mask holds."""
    if not source.numel():
        if mask._peek().any():
            raise RuntimeError("masked_scatter: source has fewer elements than the mask chooses")
        return prim("alias", expand_to(input, broadcast_shapes(input.shape, mask.shape)))
    if not input.numel():
        return prim("alias", input)
    result: Tensor = _masked_scatter(input, mask, source)
    return result


public(masked_scatter, "masked_scatter", _FAMILY, inplace=True, samples=lambda make: [
    ((make(3, 4), make(3, 4, dtype=bool_), make(12)), {})])


def masked_select(input: Tensor, mask: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The elements where the mask holds, 1-d; the mask is computed at once."""
    if mask.dtype is not bool_:
        raise DTypeError("masked_select: expected BoolTensor for mask")
    shape = tuple(broadcast_shapes(input.shape, mask.shape))
    where = np.flatnonzero(np.broadcast_to(mask._peek(), shape)).astype(np.int64)
    result: Tensor = _flat_take(expand_to(input, shape), host(where, int64))
    return into(out, result)


@composite
def _flat_take(x: Tensor, index: Tensor) -> Tensor:
    return prim("take", prim("reshape", x, shape=(x.numel(),)), index, attrs=(0,))


public(masked_select, "masked_select", _FAMILY, samples=lambda make: [
    ((make(3, 4), make(3, 4, dtype=bool_)), {})])


# ---------------------------------------------------------------- flat positions

@op(method=True, samples=lambda make: [((make(3, 4), _indices(make, 2, 2, high=12)), {})])
def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements at positions of the flat tensor; negative ones count from the end."""
    if index.dtype is not int64:
        raise DTypeError(f"take(): Expected a long tensor for index, but got "
                         f"{type_name(index.dtype)}")
    n = input.numel()
    if not n and index.numel():
        raise IndexError("take(): tried to take from an empty tensor")
    result: Tensor = _flat_take(input, wrap_index(index, n))
    return result


@op(method=True, inplace=True, samples=lambda make: [
    ((make(3, 4), _indices(make, 5, high=12), make(5)), {}),
    ((make(3, 4), _indices(make, 5, high=12), make(5), True), {})])
def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of `input` with `source` at positions of the flat tensor, added if asked for."""
    if index.dtype is not int64:
        raise DTypeError(f"put_(): Expected a long tensor for index, but got "
                         f"{type_name(index.dtype)}")
    if source.dtype is not input.dtype:
        raise DTypeError("put_(): self and source expected to have the same dtype, but got "
                         f"{type_name(input.dtype)} and {type_name(source.dtype)}")
    if index.numel() != source.numel():
        raise ShapeError("put_(): Expected source and index to have the same number of elements, "
                         f"but got {source.numel()} and {index.numel()}")
    n = input.numel()
    i = prim("reshape", wrap_index(index, n), shape=(index.numel(),))
    flat = prim("index_put", prim("reshape", input, shape=(n,)),
                prim("reshape", source, shape=(source.numel(),)), i, attrs=(0, accumulate))
    return prim("reshape", flat, shape=input._node.spec.shape)


@op(method=True, samples=lambda make: [
    ((make(3, 4), _indices(make, 3, 1, high=4), 1), {}),
    ((make(3, 4), _indices(make, 5, high=12)), {})])
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` in which the other dimensions of input and index broadcast; flat without `dim`."""
    if indices.dtype is not int64:
        raise DTypeError("take_along_dim(): dtype of indices should be Long but got "
                         f"{type_name(indices.dtype)}")
    if dim is None:
        flat = prim("reshape", indices, shape=(indices.numel(),))
        result: Tensor = _flat_take(input, wrap_index(flat, input.numel()))
        return result
    if input.ndim != indices.ndim:
        raise RuntimeError("take_along_dim(): input and indices should have the same number of "
                           f"dimensions, but got {input.ndim} dimensions for input, and "
                           f"{indices.ndim} dimensions for indices")
    axis = wrap_dim(dim, input.ndim)
    sx, si = list(input.shape), list(indices.shape)
    n, m = sx[axis], si[axis]
    sx[axis] = si[axis] = 1
    common = list(broadcast_shapes(sx, si))
    common[axis] = n
    x = expand_to(input, common)
    common[axis] = m
    return prim("gather", x, wrap_index(expand_to(indices, common), n), attrs=(axis,))
