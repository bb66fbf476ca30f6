"""Primitives that combine the elements along some dimensions; those are dropped from the shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facula import dtypes as _d
from facula.graph.spec import Spec, spec
from facula.ops.primitive.batching import axes_first, axis_first
from facula.ops.primitive.record import (
    Infer,
    Sample,
    check_axis,
    compute_dtype,
    fits_kind,
    register,
)
from facula.ops.primitive.rules import (
    along,
    cast,
    conj,
    div,
    expand,
    flip,
    mul,
    permute,
    prim,
    reshape,
    sum_,
    where,
    zeros_like,
)

__all__ = ["products_without"]

Make = Callable[..., np.ndarray]


# ---------------------------------------------------------------- shapes

def _infer(name: str, kinds: str, boolean: bool = False, nonempty: bool = False) -> Infer:
    def infer(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
        if len(specs) != 1:
            raise TypeError(f"{name} takes 1 operand, not {len(specs)}")
        x = specs[0]
        fits_kind(name, x, kinds)
        axes = attrs[0]
        for axis in axes:
            check_axis(name, axis, len(x.shape))
            if nonempty and x.shape[axis] == 0:
                raise IndexError(f"{name}: Expected reduction dim {axis} to have non-zero size")
        if len(set(axes)) != len(axes):
            raise RuntimeError(f"{name}: a dimension appears multiple times in {tuple(axes)}")
        shape = tuple(n for k, n in enumerate(x.shape) if k not in axes)
        return spec(shape, _d.bool_ if boolean else x.dtype)
    return infer


def _infer_arg(name: str) -> Infer:
    inner = _infer(name, "buif", nonempty=True)

    def infer(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
        return spec(inner(specs, ((attrs[0],),), given).shape, _d.int64)
    return infer


# ---------------------------------------------------------------- in NumPy

def _meaning(fn: Callable[..., Any]) -> Any:
    def run(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
        x = np.asarray(arrays[0])
        with np.errstate(all="ignore"):
            total = fn(x.astype(compute_dtype(x.dtype), copy=False), attrs[0])
            return np.asarray(total).astype(out.dtype.np, copy=False)
    return run


def _any(x: np.ndarray, axes: Any) -> Any:
    return np.any(x != 0, axis=axes)


def _all(x: np.ndarray, axes: Any) -> Any:
    return np.all(x != 0, axis=axes)


# ---------------------------------------------------------------- derivatives

def _kept(x: Any, axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(1 if k in axes else n for k, n in enumerate(x.shape))


def _spread(small: Any, x: Any, axes: Sequence[int]) -> Any:
    """A tensor of the reduced shape repeated to the shape of x."""
    return expand(reshape(small, _kept(x, axes)), x.shape)


def _sum_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    return (_spread(g, c.inputs[0], c.attrs[0]),)


def _sum_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    return zeros_like(c.out) if tangents[0] is None else sum_(tangents[0], c.attrs[0])


def _shares(c: Any) -> tuple[Any, Any]:
    """Where the extreme is (NaN counts where it is the result), and how many places that is."""
    x, axes = c.inputs[0], c.attrs[0]
    top = _spread(c.out, x, axes)
    hit = prim("logical_or", prim("eq", x, top),
               prim("logical_and", prim("isnan", x), prim("isnan", top)))
    wide = _d.float32 if x.dtype.itemsize == 2 else x.dtype
    return hit, sum_(cast(hit, wide), axes)


def _extreme_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    hit, count = _shares(c)
    share = cast(div(cast(g, count.dtype), count), g.dtype)
    x, axes = c.inputs[0], c.attrs[0]
    spread = _spread(share, x, axes)
    return (where(hit, spread, zeros_like(spread)),)


def _extreme_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    t = tangents[0]
    if t is None:
        return zeros_like(c.out)
    hit, count = _shares(c)
    total = sum_(cast(where(hit, t, zeros_like(t)), count.dtype), c.attrs[0])
    return cast(div(total, count), t.dtype)


def products_without(x: Any, axis: int) -> tuple[Any, Any]:
    """At each place the product of what comes before it along `axis`, and of what comes after.

    Their product is the derivative of the whole product; nothing is divided, so zeros are exact.
    """
    def before(v: Any) -> Any:
        n = v.shape[axis]
        low = tuple(1 if k == axis else 0 for k in range(v.ndim))
        shifted = prim("pad", along(v, axis, 0, n - 1), attrs=(low, (0,) * v.ndim, 1))
        return prim("cumprod", shifted, attrs=(axis,))
    return before(x), flip(before(flip(x, axis)), axis)


def _others(x: Any, axes: Sequence[int]) -> Any:
    """For each element the product of all others that are reduced together with it."""
    rest = [k for k in range(x.ndim) if k not in axes]
    order = rest + list(axes)
    lead = tuple(x.shape[k] for k in rest)
    moved = permute(x, order)
    flat = reshape(moved, (*lead, x.numel() // _count(lead)))
    left, right = products_without(flat, flat.ndim - 1)
    inverse = [order.index(k) for k in range(x.ndim)]
    return permute(reshape(mul(left, right), moved.shape), inverse)


def _count(shape: Sequence[int]) -> int:
    n = 1
    for d in shape:
        n *= d
    return n


def _prod_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    x, axes = c.inputs[0], c.attrs[0]
    spread = _spread(g, x, axes)
    if not axes or x.numel() == 0:
        return (spread,)
    return (mul(spread, conj(_others(x, axes))),)


def _prod_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    x, axes = c.inputs[0], c.attrs[0]
    t = tangents[0]
    if t is None:
        return zeros_like(c.out)
    if not axes or x.numel() == 0:
        return sum_(t, axes)
    return sum_(mul(t, _others(x, axes)), axes)


# ---------------------------------------------------------------- samples

_KINDS = {"f": (_d.float64, _d.float32, _d.float16, _d.bfloat16),
          "c": (_d.complex128, _d.complex64), "i": (_d.int8, _d.int32, _d.int64),
          "u": (_d.uint8,), "b": (_d.bool_,)}


def _bounds(dtype: _d.DType) -> dict[str, Any]:
    if dtype.kind == "b":
        return {}
    return {"low": 0, "high": 9} if dtype.kind == "u" else {"low": -3, "high": 3}


def _samples(kinds: str, nonempty: bool) -> Any:
    def samples(make: Make) -> list[Sample]:
        out = []
        for kind in kinds:
            for dtype in _KINDS[kind]:
                kw = {"dtype": dtype, **_bounds(dtype)}
                out += [Sample((make(3, 4, 5, **kw),), (axes,))
                        for axes in ((0,), (1,), (2,), (0, 2), (0, 1, 2), (1, 2), ())]
                out += [Sample((make(17, **kw),), ((0,),)), Sample((make(**kw),), ((),)),
                        Sample((make(1, 2, **kw),), ((0,),)), Sample((make(0, 2, **kw),), ((1,),))]
                if not nonempty:
                    out.append(Sample((make(0, 2, **kw),), ((0,),)))
                if kind == "f":
                    odd = np.array([[1, np.nan, 3, np.nan], [np.inf, 1, -np.inf, 0],
                                    [2, 2, 0, 0], [-0.0, 0.0, -5, 1]], np.float32)
                    out += [Sample((odd.astype(dtype.np),), (axes,))
                            for axes in ((0,), (1,), (0, 1))]
        return out
    return samples


def _arg_samples(make: Make) -> list[Sample]:
    return [Sample(s.arrays, (s.attrs[0][0],), s.shape, s.dtype)
            for s in _samples("fiub", True)(make) if len(s.attrs[0]) == 1]


# ---------------------------------------------------------------- the primitives

register("sum", "reduce", _infer("sum", "uifc"),
         _meaning(lambda x, axes: np.sum(x, axis=axes, dtype=x.dtype)),
         vjp=_sum_vjp, jvp=_sum_jvp, samples=_samples("fciu", False),
         batch=axes_first)
register("prod", "reduce", _infer("prod", "uifc"),
         _meaning(lambda x, axes: np.prod(x, axis=axes, dtype=x.dtype)),
         vjp=_prod_vjp, jvp=_prod_jvp, saves=("in0",), samples=_samples("fciu", False),
         batch=axes_first)
register("amax", "reduce", _infer("amax", "buif", nonempty=True),
         _meaning(lambda x, axes: np.max(x, axis=axes)),
         vjp=_extreme_vjp, jvp=_extreme_jvp, saves=("in0", "out"), samples=_samples("fiub", True),
         batch=axes_first)
register("amin", "reduce", _infer("amin", "buif", nonempty=True),
         _meaning(lambda x, axes: np.min(x, axis=axes)),
         vjp=_extreme_vjp, jvp=_extreme_jvp, saves=("in0", "out"), samples=_samples("fiub", True),
         batch=axes_first)
register("any", "reduce", _infer("any", "buifc", boolean=True), _meaning(_any),
         samples=_samples("fciub", False),
         batch=axes_first)
register("all", "reduce", _infer("all", "buifc", boolean=True), _meaning(_all),
         samples=_samples("fciub", False),
         batch=axes_first)
register("argmax", "reduce", _infer_arg("argmax"), _meaning(np.argmax), samples=_arg_samples,
         batch=axis_first)
register("argmin", "reduce", _infer_arg("argmin"), _meaning(np.argmin), samples=_arg_samples,
         batch=axis_first)
