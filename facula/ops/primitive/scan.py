"""Primitives that combine the elements up to each place along one dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facula import dtypes as _d
from facula.graph.spec import Spec
from facula.ops.primitive.batching import axis_first
from facula.ops.primitive.record import (
    Infer,
    Sample,
    check_axis,
    compute_dtype,
    fits_kind,
    register,
)
from facula.ops.primitive.rules import (
    add,
    along,
    conj,
    expand,
    flip,
    iota,
    mul,
    prim,
    reshape,
    where,
    zeros_like,
)

__all__ = ["recurrence"]

Make = Callable[..., np.ndarray]


def _infer(name: str, kinds: str) -> Infer:
    def infer(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
        if len(specs) != 1:
            raise TypeError(f"{name} takes 1 operand, not {len(specs)}")
        fits_kind(name, specs[0], kinds)
        check_axis(name, attrs[0], len(specs[0].shape))
        return specs[0]
    return infer


def _meaning(fn: Callable[..., Any]) -> Any:
    """16-bit floats are accumulated in float32, every result rounded once."""
    def run(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
        x = np.asarray(arrays[0])
        wide = x.astype(compute_dtype(x.dtype), copy=False)
        with np.errstate(all="ignore"):
            result = np.asarray(fn(wide, axis=attrs[0], dtype=wide.dtype))
            return result.astype(out.dtype.np, copy=False)
    return run


def _up(c: Any, tangents: tuple[Any, ...], rule: Callable[[Any, Any], Any]) -> Any:
    return zeros_like(c.out) if tangents[0] is None else rule(c, tangents[0])


# ---------------------------------------------------------------- sums

def _reversed_sum(g: Any, axis: int) -> Any:
    return flip(prim("cumsum", flip(g, axis), attrs=(axis,)), axis)


# ---------------------------------------------------------------- products

def _shift(x: Any, axis: int, by: int, fill: float) -> Any:
    """x moved towards higher indices by `by` (less than its length), `fill` coming in."""
    low = tuple(by if k == axis else 0 for k in range(x.ndim))
    kept = along(x, axis, 0, x.shape[axis] - by)
    return prim("pad", kept, attrs=(low, (0,) * x.ndim, fill))


def recurrence(a: Any, b: Any, axis: int) -> Any:
    """y with y[i] = b[i] + a[i] y[i-1] along `axis` (a[0] is not used).

    By doubling (Kogge and Stone, "A parallel algorithm for the efficient solution of a general
    class of recurrence equations", 1973): after each round y[i] covers twice as many terms.
    Nothing is divided, so it is exact where factors are zero.
    """
    n = a.shape[axis]
    by = 1
    while by < n:
        b = add(b, mul(a, _shift(b, axis, by, 0)))
        if 2 * by < n:
            a = mul(a, _shift(a, axis, by, 1))
        by *= 2
    return b


def _before(x: Any, axis: int) -> Any:
    """The product of everything before each place."""
    return prim("cumprod", _shift(x, axis, 1, 1), attrs=(axis,))


def _cumprod_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    """x[k] receives the product before it times s[k] = g[k] + x[k+1] s[k+1]."""
    x, axis = conj(c.inputs[0]), c.attrs[0]
    if x.numel() == 0:
        return (g,)
    back = flip(x, axis)
    later = recurrence(_shift(back, axis, 1, 1), flip(g, axis), axis)
    return (mul(_before(x, axis), flip(later, axis)),)


def _cumprod_jvp(c: Any, t: Any) -> Any:
    """The product rule, step by step: dy[i] = x[i] dy[i-1] + y[i-1] dx[i]."""
    x, axis = c.inputs[0], c.attrs[0]
    if x.numel() == 0:
        return t
    return recurrence(x, mul(t, _before(x, axis)), axis)


# ---------------------------------------------------------------- running extremes

def _places(c: Any) -> Any:
    """Where the running extreme was last reached (a NaN is one from then on); int64."""
    x, axis = c.inputs[0], c.attrs[0]
    hit = prim("eq", x, c.out)
    if x.dtype.kind == "f":
        hit = prim("logical_or", hit, prim("isnan", x))
    shape = [1] * x.ndim
    shape[axis] = x.shape[axis]
    index = expand(reshape(iota(x.shape[axis]), shape), x.shape)
    return prim("cummax", where(hit, index, zeros_like(index)), attrs=(axis,))


def _extreme_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    return (prim("scatter", zeros_like(g), _places(c), g, attrs=(c.attrs[0], "add")),)


def _extreme_jvp(c: Any, t: Any) -> Any:
    return prim("gather", t, _places(c), attrs=(c.attrs[0],))


# ---------------------------------------------------------------- samples

_KINDS = {"f": (_d.float64, _d.float32, _d.float16, _d.bfloat16),
          "c": (_d.complex128, _d.complex64), "i": (_d.int8, _d.int64), "u": (_d.uint8,),
          "b": (_d.bool_,)}


def _samples(kinds: str) -> Any:
    def samples(make: Make) -> list[Sample]:
        out = []
        for kind in kinds:
            for dtype in _KINDS[kind]:
                kw: dict[str, Any] = {"dtype": dtype}
                if kind != "b":
                    kw |= {"low": 0, "high": 9} if kind == "u" else {"low": -3, "high": 3}
                out += [Sample((make(3, 4, 5, **kw),), (axis,)) for axis in (0, 1, 2)]
                out += [Sample((make(17, **kw),), (0,)), Sample((make(1, **kw),), (0,)),
                        Sample((make(0, 2, **kw),), (0,)), Sample((make(2, 0, **kw),), (0,))]
                if kind == "f":
                    odd = np.array([[1, np.nan, 3, np.nan], [np.inf, 1, -np.inf, 0],
                                    [2, 2, 0, 0], [-0.0, 0.0, -5, 1]], np.float32)
                    out += [Sample((odd.astype(dtype.np),), (axis,)) for axis in (0, 1)]
        return out
    return samples


# ---------------------------------------------------------------- the primitives

register("cumsum", "scan", _infer("cumsum", "uifc"), _meaning(np.cumsum),
         vjp=lambda c, g: (_reversed_sum(g, c.attrs[0]),),
         jvp=lambda c, ts: _up(c, ts, lambda c, t: prim("cumsum", t, attrs=c.attrs)),
         samples=_samples("fciu"), batch=axis_first)
register("cumprod", "scan", _infer("cumprod", "uifc"), _meaning(np.cumprod), vjp=_cumprod_vjp,
         jvp=lambda c, ts: _up(c, ts, _cumprod_jvp), saves=("in0",), samples=_samples("fciu"),
         batch=axis_first)
register("cummax", "scan", _infer("cummax", "buif"), _meaning(np.maximum.accumulate),
         vjp=_extreme_vjp, jvp=lambda c, ts: _up(c, ts, _extreme_jvp), saves=("in0", "out"),
         samples=_samples("fiub"), batch=axis_first)
register("cummin", "scan", _infer("cummin", "buif"), _meaning(np.minimum.accumulate),
         vjp=_extreme_vjp, jvp=lambda c, ts: _up(c, ts, _extreme_jvp), saves=("in0", "out"),
         samples=_samples("fiub"), batch=axis_first)
