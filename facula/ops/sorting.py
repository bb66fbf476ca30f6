"""Order: sorting, the largest elements, medians and quantiles.

All find an index by one stable sort and take the values by it, so gradients go to the elements
that were chosen.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any

from facula.dtype import bool_, int64, uint8
from facula.errors import DTypeError
from facula.ops.define import autocast_to, cast_first, op
from facula.ops.given import takes_out
from facula.ops.keywords import numpy_names
from facula.ops.layout import as_int
from facula.ops.promote import cast, expand_to, full_like, type_name
from facula.ops.reductions import constant, kept, wrap_dim
from facula.ops.shape import cut, iota_along
from facula.ops.surface import public
from facula.return_types import declare
from facula.tensor import Tensor, prim

__all__ = ["sort", "argsort", "msort", "topk", "kthvalue", "median", "nanmedian", "quantile",
           "nanquantile", "mode"]

_Sort = namedtuple("sort", "values indices")
_TopK = namedtuple("topk", "values indices")
_Kth = namedtuple("kthvalue", "values indices")
_Median = namedtuple("median", "values indices")
_NanMedian = namedtuple("nanmedian", "values indices")
_Mode = namedtuple("mode", "values indices")
declare(_Sort, _TopK, _Kth, _Median, _NanMedian, _Mode)


def _zero_index() -> Tensor:
    return prim("full", attrs=(0,), shape=(), dtype=int64)


def _order(name: str, x: Tensor, axis: int, descending: bool, *part: int) -> Tensor:
    """The stable order of the elements along an axis, or places `part` of it, from one number up
    to the other; a constant for gradients."""
    if x.dtype.kind == "c":
        raise DTypeError(f"{name}(): complex numbers are not ordered")
    still = constant(x)
    if x.dtype is bool_:
        still = cast(still, uint8)
    return prim("argsort", still, attrs=(axis, descending, *part))


def _sort_samples(make: Any) -> list[Any]:
    return [((make(5),), {}), ((make(3, 4), 0), {}), ((make(3, 4),), {"descending": True}),
            ((make(),), {})]


@op(name="sort", method=True, samples=_sort_samples)
@numpy_names
def sort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Any:
    """(values, indices) in order along `dim`; equal elements keep theirs, NaN is the largest."""
    axis = wrap_dim(dim, input.ndim)
    if not input.ndim:
        return _Sort(prim("alias", input), _zero_index())
    index = _order("sort", input, axis, descending)
    return _Sort(prim("gather", input, index, attrs=(axis,)), index)


@op(method=True, differentiable=False, samples=_sort_samples)
@numpy_names
def argsort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False
            ) -> Tensor:
    """The indices that sort along `dim`; int64."""
    axis = wrap_dim(dim, input.ndim)
    if not input.ndim:
        return _zero_index()
    return _order("argsort", input, axis, descending)


@op(method=True, samples=lambda make: [((make(4, 3),), {})])
def msort(input: Tensor) -> Tensor:
    """The elements in ascending order along the first dimension."""
    if not input.ndim:
        return prim("alias", input)
    return prim("gather", input, _order("msort", input, 0, False), attrs=(0,))


@op(name="topk", register=False)
def _topk(input: Tensor, k: int, dim: int, largest: bool) -> Any:
    axis = wrap_dim(dim, input.ndim)
    n = input._node.spec.shape[axis] if input.ndim else 1
    if not 0 <= k <= n:
        raise RuntimeError("selected index k out of range")
    if not input.ndim:
        return _TopK(prim("alias", input), _zero_index())
    index = _order("topk", input, axis, largest, 0, k)
    return _TopK(prim("gather", input, index, attrs=(axis,)), index)


@takes_out
def topk(input: Tensor, k: Any, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """(values, indices): the k largest (or smallest) along `dim`, in order."""
    return _topk(input, as_int(k), dim, largest)


public(topk, "topk", "sorting", samples=lambda make: [((make(5), 2), {}), ((make(3, 4), 3, 0), {}),
                                                      ((make(3, 4), 2), {"largest": False})])


def _picked(pack: Any, x: Tensor, index: Tensor, axis: int, keepdim: bool) -> Any:
    """(values, indices) for an index of size 1 along `axis`."""
    values = prim("gather", x, index, attrs=(axis,))
    if not keepdim:
        shape = x._node.spec.shape
        shape = (*shape[:axis], *shape[axis + 1:])
        values, index = prim("reshape", values, shape=shape), prim("reshape", index, shape=shape)
    return pack(values, index)


@op(method=True, samples=lambda make: [((make(5), 2), {}), ((make(3, 4), 3, 1), {}),
                                       ((make(3, 4), 1, 0, True), {})])
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """(values, indices) of the k-th smallest element along `dim`, counted from 1."""
    axis = wrap_dim(dim, input.ndim)
    n = input._node.spec.shape[axis] if input.ndim else 1
    if not 1 <= k <= n:
        raise RuntimeError("selected number k out of range for dimension " + str(axis))
    if not input.ndim:
        return _Kth(prim("alias", input), _zero_index())
    return _picked(_Kth, input, _order("kthvalue", input, axis, False, k - 1, k), axis, keepdim)


def _median(name: str, pack: Any, input: Tensor, dim: Any, keepdim: bool, skip: bool) -> Any:
    """The lower of the two middle elements; NaN if there is one, or not counting them."""
    if input.dtype.kind in "cb":
        raise DTypeError(f'"median_out_impl" not implemented for \'{type_name(input.dtype)}\'')
    flat = dim is None
    x = prim("reshape", input, shape=(input.numel(),)) if flat else input
    axis = 0 if flat else wrap_dim(dim, input.ndim)
    if not x.ndim:
        return pack(prim("alias", x), _zero_index())
    n = x._node.spec.shape[axis]
    if n == 0:
        if flat:
            return prim("full", attrs=(float("nan"),), shape=(), dtype=x.dtype)
        raise IndexError(f"{name}(): Expected reduction dim {axis} to have non-zero size.")
    skip = skip and x.dtype.kind == "f"
    # without what is NaN, the middle depends on the values
    part = () if skip else ((n - 1) // 2, (n - 1) // 2 + 1)
    order = middle = _order(name, x, axis, False, *part)
    if x.dtype.kind == "f":
        bad = prim("isnan", constant(x))
        if skip:
            good = prim("sum", cast(prim("logical_not", bad), int64), attrs=((axis,),))
            good = prim("reshape", good, shape=kept(x._node.spec.shape, (axis,)))
            place = prim("floor_divide", prim("maximum", prim("sub", good, full_like(good, 1)),
                                              full_like(good, 0)), full_like(good, 2))
            middle = prim("gather", order, place, attrs=(axis,))
        else:
            any_bad = prim("reshape", prim("any", bad, attrs=((axis,),)),
                           shape=kept(x._node.spec.shape, (axis,)))
            first = prim("argmax", cast(bad, uint8), attrs=(axis,))
            first = prim("reshape", first, shape=kept(x._node.spec.shape, (axis,)))
            middle = prim("where", any_bad, first, middle)
    if flat:
        return prim("reshape", prim("gather", x, middle, attrs=(0,)), shape=())
    return _picked(pack, x, middle, axis, keepdim)


def _median_samples(make: Any) -> list[Any]:
    return [((make(5),), {}), ((make(3, 4), 1), {}), ((make(4, 3), 0, True), {})]


@op(method=True, samples=_median_samples)
@numpy_names
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median, of an even number the lower one; with `dim` (values, indices)."""
    return _median("median", _Median, input, dim, keepdim, False)


@op(method=True, samples=_median_samples)
@numpy_names
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median of what is not NaN; with `dim` (values, indices)."""
    return _median("nanmedian", _NanMedian, input, dim, keepdim, True)


@op(method=True, samples=lambda make: [((make(5),), {}), ((make(3, 4), 0), {})])
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """(values, indices): the most frequent element along `dim`, of several the smallest; and the
    last place where it is."""
    axis = wrap_dim(dim, input.ndim)
    if not input.ndim:
        return _Mode(prim("alias", input), _zero_index())
    n = input._node.spec.shape[axis]
    if n == 0:
        raise IndexError("mode(): Expected reduction dim to have non-zero size.")
    order = _order("mode", input, axis, False)
    x = constant(input)
    line = prim("gather", x, order, attrs=(axis,))
    # Where runs of equal elements end, and how long each has become there.
    shape = line._node.spec.shape
    place = iota_along(shape, axis)
    if n > 1:
        new = prim("ne", cut(line, axis, 1, n), cut(line, axis, 0, n - 1))
        starts = prim("where", new, cut(place, axis, 1, n), full_like(cut(place, axis, 1, n), 0))
        starts = prim("cat", cut(place, axis, 0, 1), starts, attrs=(axis,))
        starts = prim("cummax", starts, attrs=(axis,))
    else:
        starts = place
    length = prim("sub", place, starts)
    best = prim("argmax", length, attrs=(axis,))
    best = prim("reshape", best, shape=kept(shape, (axis,)))
    return _picked(_Mode, input, prim("gather", order, best, attrs=(axis,)), axis, keepdim)


# ---------------------------------------------------------------- quantiles

_INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def _quantile(name: str, input: Tensor, q: Any, dim: int | None, keepdim: bool,
              interpolation: str, skip: bool) -> Tensor:
    if input.dtype.kind != "f" or input.dtype.itemsize < 4:
        raise DTypeError(f"{name}() input tensor must be either float or double dtype")
    if interpolation not in _INTERPOLATIONS:
        raise RuntimeError(f"{name}() interpolation must be one of linear, lower, higher, midpoint "
                           f"or nearest, but got {interpolation}")
    if not input.numel():
        raise RuntimeError(f"{name}() input tensor must be non-empty")
    if isinstance(q, Tensor):
        if q.ndim > 1:
            raise RuntimeError(f"{name}() q must be a scalar or 1D tensor")
        if q.dtype is not input.dtype:
            raise DTypeError(f"{name}() q tensor must be same dtype as the input tensor")
        values = q._peek()
        single = q.ndim == 0
        levels = tuple(float(v) for v in values.reshape(-1))
    else:
        single = not isinstance(q, (tuple, list))
        levels = (float(q),) if single else tuple(float(v) for v in q)
    if any(not 0 <= v <= 1 for v in levels):
        raise RuntimeError(f"{name}() q must be in the range [0, 1] but got {list(levels)}")
    out: Tensor = _at_levels(input, q if isinstance(q, Tensor) else levels, dim, keepdim,
                             interpolation, skip)
    if single:
        out = prim("reshape", out, shape=out._node.spec.shape[1:])
    return out


@op(name="quantile", register=False)
def _at_levels(input: Tensor, levels: Any, dim: int | None, keepdim: bool,
               interpolation: str, skip: bool) -> Tensor:
    """(levels, ...): the quantiles along `dim`, which is moved to the front.

    The levels are numbers, or a tensor, to which a gradient then goes.
    """
    if isinstance(levels, Tensor):
        levels = [prim("reshape", cut(prim("reshape", levels, shape=(levels.numel(),)), 0, k,
                                      k + 1), shape=()) for k in range(levels.numel())]
    flat = dim is None
    x = prim("reshape", input, shape=(input.numel(),)) if flat or not input.ndim else input
    axis = 0 if flat else wrap_dim(dim, input.ndim)              # type: ignore[arg-type]
    shape = x._node.spec.shape
    n = shape[axis]
    line = prim("gather", x, _order("quantile", x, axis, False), attrs=(axis,))
    bad = prim("isnan", constant(x))
    good = prim("sum", cast(prim("logical_not", bad), int64), attrs=((axis,),))
    good = prim("reshape", good, shape=kept(shape, (axis,)))
    parts = []
    for q in levels:
        if skip:
            last = prim("maximum", prim("sub", good, full_like(good, 1)), full_like(good, 0))
        else:
            last = full_like(good, n - 1)
        last = cast(last, x.dtype)
        level = expand_to(q, last.shape) if isinstance(q, Tensor) else full_like(last, q)
        rank = prim("mul", last, level)
        if interpolation == "lower":
            rank = prim("floor", rank)
        elif interpolation == "higher":
            rank = prim("ceil", rank)
        elif interpolation == "nearest":
            rank = prim("round", rank)
        below, above = prim("floor", constant(rank)), prim("ceil", constant(rank))
        a = prim("gather", line, cast(below, int64), attrs=(axis,))
        b = prim("gather", line, cast(above, int64), attrs=(axis,))
        weight = full_like(rank, 0.5) if interpolation == "midpoint" else prim("sub", rank, below)
        # From the nearer of the two, which an infinite other one then cannot disturb.
        step = prim("sub", b, a)
        rest = prim("sub", full_like(weight, 1.0), weight)
        value = prim("where", prim("lt", weight, full_like(weight, 0.5)),
                     prim("add", a, prim("mul", weight, step)),
                     prim("sub", b, prim("mul", step, rest)))
        if interpolation in ("lower", "higher", "nearest"):
            value = a
        if not skip:
            lost = prim("ne", good, full_like(good, n))
            value = prim("where", lost, full_like(value, float("nan")), value)
        parts.append(value)
    lead = kept(input._node.spec.shape, tuple(range(input.ndim)) if flat or not input.ndim
                else (axis,)) if keepdim else (() if flat or not input.ndim
                                               else (*shape[:axis], *shape[axis + 1:]))
    parts = [prim("reshape", p, shape=(1, *lead)) for p in parts]
    if not parts:
        return prim("full", attrs=(0,), shape=(0, *lead), dtype=x.dtype)
    return prim("cat", *parts, attrs=(0,)) if len(parts) > 1 else parts[0]


@takes_out
@cast_first
@autocast_to("full")
def quantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
             interpolation: str = "linear") -> Tensor:
    """The q-th quantiles along `dim` (of all elements if None); NaN where there is one.

    With several q they are a new first dimension.
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, False)


@takes_out
@cast_first
@autocast_to("full")
def nanquantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
                interpolation: str = "linear") -> Tensor:
    """`quantile` of what is not NaN."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, True)


for _fn in (quantile, nanquantile):
    public(_fn, _fn.__name__, "sorting", samples=lambda make: [
        ((make(5), 0.3), {}), ((make(3, 4), 0.5, 1), {}), ((make(3, 4), (0.25, 0.9), 0, True), {})])
