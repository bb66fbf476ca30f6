"""Operations that reduce dimensions: sums, extremes, truth, softmax and their kind."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

from facula.dtype import DType, bfloat16, bool_, float16, float32, int64, uint8
from facula.errors import DTypeError
from facula.graph.record import _local
from facula.ops.define import autocast_to, op
from facula.ops.keywords import numpy_names
from facula.ops.promote import as_float, cast, expand_to, full_like, operands, type_name
from facula.ops.surface import need_tensors
from facula.return_types import declare
from facula.tensor import DETACHED, Tensor, make, prim

__all__ = ["sum", "mean", "prod", "amax", "amin", "max", "min", "aminmax", "argmax", "argmin",
           "all", "any", "count_nonzero", "nansum", "nanmean", "logsumexp", "softmax",
           "log_softmax", "wrap_dim", "axes_of", "reduce_to", "constant"]


# ---------------------------------------------------------------- shared by reductions

def wrap_dim(dim: int, ndim: int) -> int:
    """A dimension counted from the front; IndexError outside [-ndim, ndim - 1].

    A zero-dim tensor takes 0 and -1, as one of one dimension does.
    """
    n = ndim or 1
    if isinstance(dim, bool) or not hasattr(dim, "__index__"):
        raise TypeError(f"argument 'dim' must be int, not {type(dim).__name__}")
    dim = dim.__index__()
    if not -n <= dim < n:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-n}, {n - 1}], "
                         f"but got {dim})")
    return dim + n if dim < 0 else dim


def axes_of(dim: Any, ndim: int) -> tuple[int, ...]:
    """The sorted axes that `dim` (an int, several, or None for all) names."""
    if dim is None:
        return tuple(range(ndim))
    if isinstance(dim, (tuple, list)):
        if not dim:
            return tuple(range(ndim))
        axes = [wrap_dim(d, ndim) for d in dim]
        if len(set(axes)) != len(axes):
            twice = next(a for a in axes if axes.count(a) > 1)
            raise RuntimeError(f"dim {twice} appears multiple times in the list of dims")
        return tuple(sorted(axes)) if ndim else ()
    axis = wrap_dim(dim, ndim)
    return (axis,) if ndim else ()


def kept(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    """`shape` with the reduced axes of size 1."""
    return tuple(1 if k in axes else n for k, n in enumerate(shape))


def reduce_to(name: str, x: Tensor, axes: tuple[int, ...], keepdim: bool = False) -> Tensor:
    """The reduction primitive over `axes`, which stay with size 1 if `keepdim`."""
    out = prim(name, x, attrs=(axes,)) if axes else prim("alias", x)
    if keepdim and axes:
        out = prim("reshape", out, shape=kept(x._node.spec.shape, axes))
    return out


def constant(t: Tensor) -> Tensor:
    """The value of `t` as a constant for gradients and tangents."""
    return prim("alias", make(t._node), attrs=DETACHED) if _local.rec.forward else make(t._node)


def _dims(make: Any) -> list[Any]:
    return [((make(3, 4),), {}), ((make(3, 4), 0), {}), ((make(3, 4, 2), -1), {"keepdim": True}),
            ((make(2, 3, 4), (0, 2)), {}), ((make(),), {}), ((make(5, 1), 1), {})]


def _one_dim(make: Any) -> list[Any]:
    return [((make(3, 4), 0), {}), ((make(3, 4, 2), -1), {}), ((make(2, 5, 3), 1), {}),
            ((make(), 0), {})]


def _index_dims(make: Any) -> list[Any]:
    return [((make(3, 4),), {}), ((make(3, 4), 0), {}), ((make(3, 4, 2), -1), {"keepdim": True}),
            ((make(7), 0), {})]


def _sum_type(x: Tensor, dtype: DType | None) -> Tensor:
    """Sums and products of integers are int64."""
    if dtype is not None:
        return cast(x, dtype)
    return x if x.dtype.kind in "fc" else cast(x, int64)


def _mean_type(name: str, x: Tensor, dtype: DType | None) -> Tensor:
    if dtype is not None:
        x = cast(x, dtype)
    if x.dtype.kind not in "fc":
        raise DTypeError(
            f"{name}(): could not infer output dtype. Input dtype must be either a floating point "
            f"or complex dtype. Got: {type_name(x.dtype)}. Convert it first, e.g. with .float()")
    return x


def widened(x: Tensor) -> Tensor:
    """16-bit floats as float32, in which sums of them are carried."""
    return cast(x, float32) if x.dtype is float16 or x.dtype is bfloat16 else x


# ---------------------------------------------------------------- sums

@op(method=True, samples=_dims)
@numpy_names
def sum(input: Tensor, dim: Any = None, keepdim: bool = False, *,
        dtype: DType | None = None) -> Tensor:
    """The sum over `dim` (all dimensions if None); integers are summed in int64."""
    x = _sum_type(input, dtype)
    return reduce_to("sum", x, axes_of(dim, x.ndim), keepdim)


def mean_over(x: Tensor, axes: tuple[int, ...], keepdim: bool = False) -> Tensor:
    """The mean over axes, in the dtype of `x`."""
    n = 1
    for a in axes:
        n *= x._node.spec.shape[a]
    total = reduce_to("sum", widened(x), axes, keepdim)
    return cast(prim("div", total, full_like(total, float(n))), x.dtype)


@op(method=True, samples=_dims)
@numpy_names
def mean(input: Tensor, dim: Any = None, keepdim: bool = False, *,
         dtype: DType | None = None) -> Tensor:
    """The mean over `dim` (all dimensions if None)."""
    x = _mean_type("mean", input, dtype)
    return mean_over(x, axes_of(dim, x.ndim), keepdim)


@op(method=True, samples=lambda make: [
    ((make(3, 4),), {}), ((make(3, 4), 0), {}), ((make(3, 4, 2), -1), {"keepdim": True})])
@numpy_names
@autocast_to("full")
def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *,
         dtype: DType | None = None) -> Tensor:
    """The product over `dim` (all dimensions if None)."""
    x = _sum_type(input, dtype)
    return reduce_to("prod", x, axes_of(dim, x.ndim), keepdim)


@op(method=True, samples=_dims)
@numpy_names
def nansum(input: Tensor, dim: Any = None, keepdim: bool = False, *,
           dtype: DType | None = None) -> Tensor:
    """The sum, NaN counting as 0."""
    x = _sum_type(input, dtype)
    if x.dtype.kind == "f":
        x = prim("where", prim("isnan", x), full_like(x, 0.0), x)
    return reduce_to("sum", x, axes_of(dim, x.ndim), keepdim)


@op(method=True, samples=_dims)
@numpy_names
def nanmean(input: Tensor, dim: Any = None, keepdim: bool = False, *,
            dtype: DType | None = None) -> Tensor:
    """The mean of what is not NaN."""
    x = _mean_type("nanmean", input, dtype)
    axes = axes_of(dim, x.ndim)
    bad = prim("isnan", x)
    total = reduce_to("sum", prim("where", bad, full_like(x, 0.0), x), axes, keepdim)
    count = reduce_to("sum", cast(prim("logical_not", bad), x.dtype), axes, keepdim)
    return prim("div", total, count)


@op(method=True, differentiable=False, samples=lambda make: [
    ((make(3, 4),), {}), ((make(3, 4, dtype=bool_), 0), {}), ((make(2, 3, 4), (0, 1)), {})])
@numpy_names
def count_nonzero(input: Tensor, dim: Any = None) -> Tensor:
    """How many elements are not zero; int64."""
    x = cast(cast(input, bool_), int64)
    return reduce_to("sum", x, axes_of(dim, x.ndim))


# ---------------------------------------------------------------- truth

def _truth(name: str, input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    x = cast(input, bool_)
    out = reduce_to(name, x, axes_of(dim, x.ndim), keepdim)
    return cast(out, uint8) if input.dtype is uint8 else out


def _bool_dims(make: Any) -> list[Any]:
    return [((make(3, 4, dtype=bool_),), {}), ((make(3, 4, dtype=bool_), 0), {}),
            ((make(3, 4, 2), -1), {"keepdim": True}), ((make(2, 3, 4, dtype=bool_), (0, 2)), {})]


@op(method=True, differentiable=False, samples=_bool_dims)
@numpy_names
def all(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether all elements are nonzero."""
    return _truth("all", input, dim, keepdim)


@op(method=True, differentiable=False, samples=_bool_dims)
@numpy_names
def any(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether any element is nonzero."""
    return _truth("any", input, dim, keepdim)


# ---------------------------------------------------------------- extremes

_Max = namedtuple("max", "values indices")
_Min = namedtuple("min", "values indices")
_AMinMax = namedtuple("aminmax", "min max")
declare(_Max, _Min, _AMinMax)


def _not_empty(name: str, x: Tensor, axes: Sequence[int]) -> None:
    shape = x._node.spec.shape
    for a in axes:
        if shape[a] == 0:
            raise IndexError(f"{name}(): Expected reduction dim {a} to have non-zero size, and "
                             f"the shape is {tuple(shape)}")


def _extreme(name: str, input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    axes = axes_of(dim, input.ndim)
    if not input.numel() and (dim is None or dim == () or dim == []):
        raise RuntimeError(f"{name}(): Expected reduction dim to be specified for input.numel() "
                           "== 0. Specify the reduction dim with the 'dim' argument.")
    _not_empty(name, input, axes)
    if input.dtype is bool_:
        return reduce_to("any" if name == "amax" else "all", input, axes, keepdim)
    return reduce_to(name, input, axes, keepdim)


@op(method=True, samples=_dims)
@numpy_names
def amax(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """The largest element over `dim`; equal ones share the gradient."""
    return _extreme("amax", input, dim, keepdim)


@op(method=True, samples=_dims)
@numpy_names
def amin(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """The smallest element over `dim`; equal ones share the gradient."""
    return _extreme("amin", input, dim, keepdim)


def _orderable(x: Tensor) -> Tensor:
    return cast(x, uint8) if x.dtype is bool_ else x


def _arg(name: str, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    x = _orderable(input)
    if x.dtype.kind == "c":
        raise DTypeError(f"{name}(): complex numbers are not ordered")
    ndim = x.ndim
    if dim is None:
        if x.numel() == 0:
            raise IndexError(f"{name}(): Expected reduction dim to be specified for "
                             "input.numel() == 0. Specify the reduction dim with the 'dim' "
                             "argument.")
        out = prim(name, prim("reshape", x, shape=(x.numel(),)), attrs=(0,))
        return prim("reshape", out, shape=(1,) * ndim) if keepdim and ndim else out
    axis = wrap_dim(dim, ndim)
    if ndim == 0:
        return prim("full", attrs=(0,), shape=(), dtype=int64)
    _not_empty(name, x, (axis,))
    out = prim(name, x, attrs=(axis,))
    return prim("reshape", out, shape=kept(x._node.spec.shape, (axis,))) if keepdim else out


@op(method=True, differentiable=False, samples=_index_dims)
@numpy_names
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the largest element, the first of equal ones; int64."""
    return _arg("argmax", input, dim, keepdim)


@op(method=True, differentiable=False, samples=_index_dims)
@numpy_names
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The index of the smallest element, the first of equal ones; int64."""
    return _arg("argmin", input, dim, keepdim)


def taken(x: Tensor, index: Tensor, axis: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    """(values, indices) along `axis` for `index`, which has size 1 there."""
    if x.ndim == 0:
        return prim("alias", x), index
    values = prim("gather", x, index, attrs=(axis,))
    if not keepdim:
        shape = x._node.spec.shape[:axis] + x._node.spec.shape[axis + 1:]
        values = prim("reshape", values, shape=shape)
        index = prim("reshape", index, shape=shape)
    return values, index


def _max_min(name: str, pack: Any, input: Tensor, dim: Any, keepdim: bool) -> Any:
    if dim is None:
        if input.numel() == 0:
            raise RuntimeError(f"{name}(): Expected reduction dim to be specified for "
                               "input.numel() == 0. Specify the reduction dim with the 'dim' "
                               "argument.")
        return _extreme(f"a{name}", input, None, False)
    if isinstance(dim, Tensor):
        both = operands(input, dim)
        if both[0].dtype is bool_:
            return prim("logical_or" if name == "max" else "logical_and", *both)
        return prim(f"{name}imum", *both)
    axis = wrap_dim(dim, input.ndim)
    index = _arg(f"arg{name}", input, axis, True)
    return pack(*taken(input, index, axis, keepdim))


def _max_samples(make: Any) -> list[Any]:
    return [((make(3, 4),), {}), ((make(3, 4), 0), {}), ((make(3, 4, 2), -1), {"keepdim": True}),
            ((make(3, 4), make(4)), {}), ((make(), 0), {})]


@op(method=True, samples=_max_samples)
@numpy_names
def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """max(input): the largest element.  max(input, dim): (values, indices) along `dim`.
    max(input, other): the larger of two tensors, element by element."""
    need_tensors("max", input, input)
    return _max_min("max", _Max, input, dim if other is None else other, keepdim)


@op(method=True, samples=_max_samples)
@numpy_names
def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """min(input): the smallest element.  min(input, dim): (values, indices) along `dim`.
    min(input, other): the smaller of two tensors, element by element."""
    need_tensors("min", input, input)
    return _max_min("min", _Min, input, dim if other is None else other, keepdim)


@op(method=True, exact_out=True,
    samples=lambda make: [((make(3, 4),), {}), ((make(3, 4),), {"dim": 1})])
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """(the smallest, the largest) over `dim`."""
    if dim is None and not input.numel():
        raise RuntimeError("aminmax(): cannot compute aminmax over an empty dimension as the "
                           "operation has no identity.")
    return _AMinMax(_extreme("amin", input, dim, keepdim), _extreme("amax", input, dim, keepdim))


# ---------------------------------------------------------------- exponentials

def _shift(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The maximum over axes (kept, size 1), 0 where infinite; a constant for gradients."""
    still = constant(x)
    if x.dtype.kind == "c":                              # the real part is what overflows
        top = reduce_to("amax", prim("real", still), axes, True)
        top = prim("where", prim("isfinite", top), top, full_like(top, 0.0))
        return cast(top, x.dtype)
    top = reduce_to("amax", still, axes, True)
    return prim("where", prim("isfinite", top), top, full_like(top, 0.0))


@op(method=True, samples=lambda make: [((make(3, 4), 1), {}), ((make(2, 3, 4), (0, 2)), {}),
                                       ((make(3, 4), -2), {"keepdim": True}), ((make(), 0), {})])
@numpy_names
def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) over `dim`, without overflow."""
    x = as_float(input)
    axes = axes_of(dim, x.ndim)
    if x.numel() == 0:
        return prim("log", reduce_to("sum", prim("exp", x), axes, keepdim)) if axes \
            else prim("alias", x)
    if not axes:
        if x.dtype.kind != "c":
            return prim("alias", x)
        turn = prim("imag", x)               # the principal value: an angle in (-pi, pi]
        return prim("complex", prim("real", x), prim("atan2", prim("sin", turn),
                                                     prim("cos", turn)))
    top = _shift(x, axes)
    total = reduce_to("sum", prim("exp", prim("sub", x, expand_to(top, x.shape))), axes, True)
    out = prim("add", prim("log", total), top)
    if keepdim:
        return out
    return prim("reshape", out, shape=tuple(n for k, n in enumerate(x._node.spec.shape)
                                            if k not in axes))


def _softmax_operand(input: Tensor, dim: int, dtype: DType | None) -> tuple[Tensor, int]:
    x = cast(input, dtype) if dtype is not None else input
    if x.dtype.kind not in "f":
        raise DTypeError(f'"softmax" not implemented for \'{type_name(x.dtype)}\'; convert the '
                         "input, e.g. with .float()")
    return x, wrap_dim(dim, x.ndim)


@op(method=True, samples=_one_dim)
@numpy_names
def softmax(input: Tensor, dim: int, dtype: DType | None = None) -> Tensor:
    """exp(input) / sum(exp(input)) along `dim`, computed in float32 for 16-bit floats."""
    x, axis = _softmax_operand(input, dim, dtype)
    if not x.numel() or not x.ndim:
        return prim("alias", x) if x.ndim else prim("div", *[prim("exp", prim("sub", x, x))] * 2)
    wide = widened(x)
    e = prim("exp", prim("sub", wide, expand_to(_shift_raw(wide, axis), x.shape)))
    total = reduce_to("sum", e, (axis,), True)
    return cast(prim("div", e, expand_to(total, x.shape)), x.dtype)


def _shift_raw(x: Tensor, axis: int) -> Tensor:
    return reduce_to("amax", constant(x), (axis,), True)


@op(method=True, samples=_one_dim)
@numpy_names
def log_softmax(input: Tensor, dim: int, dtype: DType | None = None) -> Tensor:
    """log(softmax(input)) along `dim`, stable."""
    x, axis = _softmax_operand(input, dim, dtype)
    if not x.numel() or not x.ndim:
        return prim("alias", x) if x.ndim else prim("sub", x, x)
    wide = widened(x)
    shifted = prim("sub", wide, expand_to(_shift_raw(wide, axis), x.shape))
    total = reduce_to("sum", prim("exp", shifted), (axis,), True)
    return cast(prim("sub", shifted, expand_to(prim("log", total), x.shape)), x.dtype)
