"""Discrete Fourier transforms.  NumPy computes them; there is no compiled kernel.

`fft_c2c`  attrs (axes, forward, scale): complex to complex over several axes
`fft_r2c`  attrs (axis, scale): real to the n // 2 + 1 first terms of the forward transform
`fft_c2r`  attrs (axis, n, scale): those terms to the n real values of the backward transform

Each is the transform without any normalisation, times `scale`; they are linear, so a derivative
is a transform again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facula.errors import ShapeError
from facula.graph.spec import Spec, spec
from facula.ops.primitive.batching import axes_first, axis_first
from facula.ops.primitive.record import Sample, _count, check_axis, fits_kind, register
from facula.ops.primitive.rules import prim, zeros_like

Arrays = Sequence[np.ndarray]


def _points(name: str, n: int) -> None:
    if n < 1:
        raise ShapeError(f"{name}: Invalid number of data points ({n}) specified")


def _scaled(out: np.ndarray, scale: float, spec_: Spec) -> np.ndarray:
    if scale != 1.0:
        out = out * out.real.dtype.type(scale)
    return out.astype(spec_.dtype.np, copy=False)              # type: ignore[no-any-return]


def _alone(c: Any, tangents: tuple[Any, ...], name: str) -> Any:
    """The tangent of a linear primitive of one operand."""
    return zeros_like(c.out) if tangents[0] is None else prim(name, tangents[0], attrs=c.attrs)


# ---------------------------------------------------------------- complex to complex

def _infer_c2c(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    _count("fft_c2c", specs, 1)
    fits_kind("fft_c2c", specs[0], "c")
    for axis in attrs[0]:
        check_axis("fft_c2c", axis, len(specs[0].shape))
        _points("fft_c2c", specs[0].shape[axis])
    return specs[0]


def _c2c(arrays: Arrays, attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    axes, forward, scale = attrs
    x = arrays[0]
    if axes and x.size:
        x = np.fft.fftn(x, axes=axes) if forward else np.fft.ifftn(x, axes=axes, norm="forward")
    return _scaled(x, scale, out)


def _c2c_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    axes, forward, scale = c.attrs
    return (prim("fft_c2c", g, attrs=(axes, not forward, scale)),)


def _c2c_samples(make: Any) -> list[Sample]:
    from facula.dtype import complex64, complex128
    return [Sample((make(*shape, dtype=dtype),), (axes, forward, 0.5))
            for dtype in (complex128, complex64) for forward in (True, False)
            for shape, axes in (((5,), (0,)), ((3, 4), (0, 1)), ((2, 1, 3), (0, 2)),
                                ((0, 2), (1,)), ((2, 2), ()))]


register("fft_c2c", "fourier", _infer_c2c, _c2c, vjp=_c2c_vjp,
         jvp=lambda c, t: _alone(c, t, "fft_c2c"), samples=_c2c_samples, batch=axes_first)


# ---------------------------------------------------------------- real to complex

def _infer_r2c(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    _count("fft_r2c", specs, 1)
    fits_kind("fft_r2c", specs[0], "f")
    axis = attrs[0]
    check_axis("fft_r2c", axis, len(specs[0].shape))
    shape = list(specs[0].shape)
    _points("fft_r2c", shape[axis])
    shape[axis] = shape[axis] // 2 + 1
    return spec(tuple(shape), specs[0].dtype.to_complex())


def _r2c(arrays: Arrays, attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    axis, scale = attrs
    if not out.numel:
        return np.zeros(out.shape, out.dtype.np)
    return _scaled(np.fft.rfft(arrays[0], axis=axis), scale, out)


def _r2c_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    axis, scale = c.attrs
    shape = c.inputs[0].shape
    low, high = [0] * len(shape), [0] * len(shape)
    high[axis] = shape[axis] - g.shape[axis]
    wide = prim("pad", g, attrs=(tuple(low), tuple(high), 0)) if high[axis] else g
    return (prim("real", prim("fft_c2c", wide, attrs=((axis,), False, scale))),)


register("fft_r2c", "fourier", _infer_r2c, _r2c, vjp=_r2c_vjp,
         jvp=lambda c, t: _alone(c, t, "fft_r2c"), batch=axis_first,
         samples=lambda make: [Sample((make(*shape),), (axis, 0.25)) for shape, axis in (
             ((5,), 0), ((6,), 0), ((1,), 0), ((2,), 0), ((3, 4), 0), ((2, 0, 3), 2))])


# ---------------------------------------------------------------- complex to real

def _infer_c2r(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    _count("fft_c2r", specs, 1)
    fits_kind("fft_c2r", specs[0], "c")
    axis, n, _ = attrs
    check_axis("fft_c2r", axis, len(specs[0].shape))
    _points("fft_c2r", n)
    shape = list(specs[0].shape)
    if shape[axis] != n // 2 + 1:
        raise ShapeError(f"fft_c2r: {n} real values come of {n // 2 + 1} terms, not "
                         f"{shape[axis]}")
    shape[axis] = n
    return spec(tuple(shape), specs[0].dtype.to_real())


def _c2r(arrays: Arrays, attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    axis, n, scale = attrs
    if not out.numel:
        return np.zeros(out.shape, out.dtype.np)
    return _scaled(np.fft.irfft(arrays[0], n, axis=axis, norm="forward"), scale, out)


def _c2r_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    """The terms between the first and the middle stand for two of the whole transform each."""
    axis, n, scale = c.attrs
    terms = prim("fft_r2c", g, attrs=(axis, scale))
    count = terms.shape[axis]
    shape = [1] * g.ndim
    shape[axis] = count
    k = prim("iota", shape=(count,), dtype=_int64())
    last = n // 2 if n % 2 == 0 else count
    edge = prim("logical_or", prim("eq", k, prim("full", attrs=(0,), shape=(count,),
                                                 dtype=_int64())),
                prim("eq", k, prim("full", attrs=(last,), shape=(count,), dtype=_int64())))
    real = g.dtype
    weight = prim("where", edge, prim("full", attrs=(1.0,), shape=(count,), dtype=real),
                  prim("full", attrs=(2.0,), shape=(count,), dtype=real))
    weight = prim("cast", weight, dtype=terms.dtype)
    weight = prim("expand", prim("reshape", weight, shape=tuple(shape)), shape=tuple(terms.shape))
    return (prim("mul", terms, weight),)


def _int64() -> Any:
    from facula.dtype import int64
    return int64


def _c2r_samples(make: Any) -> list[Sample]:
    from facula.dtype import complex128
    return [Sample((make(*shape, dtype=complex128),), (axis, n, 0.5)) for shape, axis, n in (
        ((3,), 0, 4), ((3,), 0, 5), ((1,), 0, 1), ((2,), 0, 2), ((2, 3), 0, 3),
        ((0, 3), 1, 4))]


register("fft_c2r", "fourier", _infer_c2r, _c2r, vjp=_c2r_vjp,
         jvp=lambda c, t: _alone(c, t, "fft_c2r"), samples=_c2r_samples, batch=axis_first)
