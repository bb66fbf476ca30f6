"""Discrete Fourier transforms and what goes with them; `facula.fft` names them for users."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from facula.device import check_device
from facula.dtype import DType
from facula.errors import DTypeError
from facula.ops.creation import as_dtype, finish
from facula.ops.define import autocast_to, op
from facula.ops.given import into
from facula.ops.promote import cast, get_default_dtype, type_name
from facula.ops.reductions import wrap_dim
from facula.ops.shape import _roll
from facula.tensor import Tensor, from_array, prim

__all__ = ["fftshift", "ifftshift", "fftfreq", "rfftfreq"]

_FAMILY = "fft"
_Sizes = Sequence[int] | int | None


# ---------------------------------------------------------------- arguments

def _operand(x: Tensor, name: str, complex_: bool) -> Tensor:
    """`x` in a dtype that is transformed: real (`complex_` False) or complex."""
    dtype = x.dtype
    if dtype.kind == "f" and dtype.itemsize < 4:
        raise DTypeError(f"Unsupported dtype {type_name(dtype)}: {name} takes float32 and "
                         "float64, convert with .float() first")
    if not complex_:
        if dtype.kind == "c":
            raise DTypeError(f"{name} expects a real input tensor, but got {type_name(dtype)}")
        return cast(x, get_default_dtype()) if dtype.kind in "bui" else x
    if dtype.kind in "bui":
        dtype = get_default_dtype()
    return cast(x, dtype.to_complex())


def _scale(norm: str | None, count: int, forward: bool) -> float:
    if norm not in (None, "backward", "forward", "ortho"):
        raise RuntimeError(f'Invalid normalization mode: "{norm}"')
    if norm == "ortho":
        return 1.0 / math.sqrt(count) if count else 1.0
    divided = forward == (norm == "forward")
    return 1.0 / count if divided and count else 1.0


def _sized(x: Tensor, sizes: Sequence[int], axes: Sequence[int]) -> Tensor:
    """`x` cut or filled with zeros at the end of each axis to its size."""
    shape = x._node.spec.shape
    keep, high = list(shape), [0] * len(shape)
    for axis, n in zip(axes, sizes):
        if n < 1:
            raise RuntimeError(f"Invalid number of data points ({n}) specified")
        keep[axis] = min(n, shape[axis])
        high[axis] = max(n - shape[axis], 0)
    if tuple(keep) != shape:
        x = prim("slice", x, attrs=((0,) * len(shape), (1,) * len(shape)), shape=tuple(keep))
    if any(high):
        x = prim("pad", x, attrs=((0,) * len(shape), tuple(high), 0))
    return x


def _one(x: Tensor, dim: int, name: str) -> int:
    if x.ndim == 0:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    return wrap_dim(dim, x.ndim)


def _plan(x: Tensor, s: _Sizes, dim: _Sizes, real_last: bool = False
          ) -> tuple[list[int], list[int]]:
    """The sizes and the axes that a transform over several dimensions goes over.

    With `real_last` the default of the last size is that of the real values behind it.
    """
    if isinstance(s, int):
        s = (s,)
    if isinstance(dim, int):
        dim = (dim,)
    if dim is not None:
        axes = [wrap_dim(d, x.ndim) for d in dim]
        if len(set(axes)) != len(axes):
            raise RuntimeError("FFT dims must be unique")
        if s is not None and len(s) != len(axes):
            raise RuntimeError("When given, dim and shape arguments must have the same length")
    elif s is not None:
        if len(s) > x.ndim:
            raise RuntimeError(f"Got shape with {len(s)} values but input tensor only has "
                               f"{x.ndim} dimensions.")
        axes = list(range(x.ndim - len(s), x.ndim))
    else:
        axes = list(range(x.ndim))
    shape = x._node.spec.shape
    usual = [shape[a] for a in axes]
    if real_last and usual:
        usual[-1] = 2 * (usual[-1] - 1)
    sizes = usual if s is None else [usual[k] if n == -1 else n for k, n in enumerate(s)]
    for n in sizes:
        if n < 1:
            raise RuntimeError(f"Invalid number of data points ({n}) specified")
    return sizes, axes


# ---------------------------------------------------------------- the three kinds

def _complex_many(x: Tensor, s: _Sizes, dim: _Sizes, norm: str | None, forward: bool,
                  name: str) -> Tensor:
    x = _operand(x, name, True)
    sizes, axes = _plan(x, s, dim)
    scale = _scale(norm, math.prod(sizes), forward)
    return prim("fft_c2c", _sized(x, sizes, axes), attrs=(tuple(axes), forward, scale))


def _from_real(x: Tensor, s: _Sizes, dim: _Sizes, norm: str | None, forward: bool,
               name: str) -> Tensor:
    x = _operand(x, name, False)
    sizes, axes = _plan(x, s, dim)
    if not axes:
        raise RuntimeError(f"{name} must transform at least one axis")
    scale = _scale(norm, math.prod(sizes), forward)
    y = prim("fft_r2c", _sized(x, sizes, axes), attrs=(axes[-1], scale))
    if not forward:
        y = prim("conj", y)
    return prim("fft_c2c", y, attrs=(tuple(axes[:-1]), forward, 1.0)) if len(axes) > 1 else y


def _to_real(x: Tensor, s: _Sizes, dim: _Sizes, norm: str | None, forward: bool,
             name: str) -> Tensor:
    x = _operand(x, name, True)
    sizes, axes = _plan(x, s, dim, real_last=True)
    if not axes:
        raise RuntimeError(f"{name} must transform at least one axis")
    scale = _scale(norm, math.prod(sizes), forward)
    x = _sized(x, [*sizes[:-1], sizes[-1] // 2 + 1], axes)
    if len(axes) > 1:
        x = prim("fft_c2c", x, attrs=(tuple(axes[:-1]), forward, 1.0))
    if forward:
        x = prim("conj", x)
    return prim("fft_c2r", x, attrs=(axes[-1], sizes[-1], scale))


_KINDS = {"fft": (_complex_many, True), "ifft": (_complex_many, False),
          "rfft": (_from_real, True), "ihfft": (_from_real, False),
          "irfft": (_to_real, False), "hfft": (_to_real, True)}

_MEANING = {
    "fft": "The discrete Fourier transform, X[k] = sum x[j] exp(-2 pi i j k / n)",
    "ifft": "The inverse of fft, x[j] = sum X[k] exp(2 pi i j k / n) / n",
    "rfft": "The fft of a real input: its first n // 2 + 1 terms, the others being conjugates",
    "irfft": "The inverse of rfft: real values of size n (2 * (terms - 1) if not given)",
    "hfft": "The fft, which is real, of a signal given by the half that its symmetry leaves",
    "ihfft": "The inverse of hfft: the half of the inverse transform of a real input"}

_NORM = """

    Sizes cut the input or fill it with zeros.  `norm` is 'backward' (the inverse is divided by
    n), 'forward' (the other one is) or 'ortho' (both by the root).  Raises RuntimeError for a
    size below 1, DTypeError for a dtype that is not transformed."""


def _samples(name: str) -> Any:
    def samples(make: Any) -> list[Any]:
        x = make(3, 4)
        return [((x,), {}), ((x, 5), {}), ((x, 3, 0), {"norm": "ortho"}),
                ((make(4),), {"norm": "forward"})]
    return samples


def _samples_many(name: str) -> Any:
    def samples(make: Any) -> list[Any]:
        x = make(2, 3, 4)
        return [((x,), {}), ((x, (3, 5)), {}), ((x, None, (0, 2)), {"norm": "ortho"}),
                ((x, (2, 2), (1, -1)), {"norm": "forward"})]
    return samples


def _declare(name: str) -> None:
    transform, forward = _KINDS[name]

    def one(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None
            ) -> Tensor:
        axis = _one(input, dim, name)
        return transform(input, None if n is None else (n,), (axis,), norm, forward, name)

    def two(input: Tensor, s: _Sizes = None, dim: _Sizes = (-2, -1), norm: str | None = None
            ) -> Tensor:
        return transform(input, s, dim, norm, forward, f"{name}2")

    def many(input: Tensor, s: _Sizes = None, dim: _Sizes = None, norm: str | None = None
             ) -> Tensor:
        return transform(input, s, dim, norm, forward, f"{name}n")

    for suffix, fn, where, samples in (
            ("", one, "along `dim`, of size `n`", _samples(name)),
            ("2", two, "over the two dimensions `dim`, of sizes `s`", _samples_many(name)),
            ("n", many, "over `dim` (all dimensions if None), of sizes `s`",
             _samples_many(name))):
        fn.__name__ = fn.__qualname__ = f"{name}{suffix}"
        fn.__doc__ = f"{_MEANING[name]}, {where}.{_NORM}"
        if not suffix or name not in ("hfft", "ihfft"):     # PyTorch leaves those as they are
            autocast_to("full")(fn)
        globals()[f"{name}{suffix}"] = op(fn, name=f"fft.{name}{suffix}", family=_FAMILY,
                                          samples=samples)
        __all__.append(fn.__name__)


for _name in _KINDS:
    _declare(_name)


# ---------------------------------------------------------------- shifts and frequencies

def _rolled(x: Tensor, dim: _Sizes, inverse: bool) -> Tensor:
    axes = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    for axis in axes:
        axis = wrap_dim(axis, x.ndim)
        n = x.shape[axis]
        if n > 1:
            x = _roll(x, (n + 1) // 2 if inverse else n // 2, axis)
    return prim("alias", x)


@op(name="fft.fftshift", family=_FAMILY, samples=lambda make: [
    ((make(3, 4),), {}), ((make(5), 0), {}), ((make(2, 3), (0, 1)), {})])
def fftshift(input: Tensor, dim: _Sizes = None) -> Tensor:
    """The zero frequency moved from the front to the middle of `dim` (every one if None)."""
    return _rolled(input, dim, False)


@op(name="fft.ifftshift", family=_FAMILY, samples=lambda make: [
    ((make(3, 4),), {}), ((make(5), 0), {}), ((make(2, 3), (0, 1)), {})])
def ifftshift(input: Tensor, dim: _Sizes = None) -> Tensor:
    """The inverse of fftshift."""
    return _rolled(input, dim, True)


def _frequencies(count: np.ndarray, n: int, d: float, dtype: Any, device: Any,
                 requires_grad: bool, out: Tensor | None) -> Tensor:
    check_device(device)
    want: DType = get_default_dtype() if dtype is None else as_dtype(dtype)
    if want.kind not in "fc":
        raise DTypeError("fftfreq requires a floating point or complex dtype")
    values = (count * (1.0 / (n * d)) if n else count.astype(np.float64)).astype(want.np)
    return into(out, finish(from_array(values), requires_grad))


def fftfreq(n: int, d: float = 1.0, *, out: Tensor | None = None, dtype: Any = None,
            layout: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """The frequencies of the terms of an fft of size n whose samples are d apart."""
    count = np.arange(n)
    count[(n + 1) // 2:] -= n
    return _frequencies(count, n, d, dtype, device, requires_grad, out)


def rfftfreq(n: int, d: float = 1.0, *, out: Tensor | None = None, dtype: Any = None,
             layout: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """The frequencies of the terms of an rfft of size n whose samples are d apart."""
    return _frequencies(np.arange(n // 2 + 1), n, d, dtype, device, requires_grad, out)
