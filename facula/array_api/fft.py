"""The extension `fft`: discrete Fourier transforms along axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import facula.fft as _fft
from facula.dtype import DType
from facula.tensor import Tensor

_ONE = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
_SEVERAL = ("fftn", "ifftn", "rfftn", "irfftn")

__all__ = [*_ONE, *_SEVERAL, "fftfreq", "fftshift", "ifftshift", "rfftfreq"]


def _along(name: str) -> Callable[..., Tensor]:
    transform = getattr(_fft, name)

    def function(x: Tensor, /, *, n: int | None = None, axis: int = -1, norm: str = "backward"
                 ) -> Tensor:
        return transform(x, n, axis, norm)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`facula.fft.{name}` along an axis, cut or filled with 0 to size n."
    return function


def _over(name: str) -> Callable[..., Tensor]:
    transform = getattr(_fft, name)

    def function(x: Tensor, /, *, s: Sequence[int] | None = None,
                 axes: Sequence[int] | None = None, norm: str = "backward") -> Tensor:
        return transform(x, s, axes, norm)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"`facula.fft.{name}` over some axes, cut or filled with 0 to sizes s."
    return function


for _name in _ONE:
    globals()[_name] = _along(_name)
for _name in _SEVERAL:
    globals()[_name] = _over(_name)


def fftfreq(n: int, /, *, d: float = 1.0, dtype: DType | None = None, device: Any = None) -> Tensor:
    """The frequencies of a transform of n samples, d apart."""
    return _fft.fftfreq(n, d, dtype=dtype, device=device)


def rfftfreq(n: int, /, *, d: float = 1.0, dtype: DType | None = None, device: Any = None
             ) -> Tensor:
    """The frequencies of a transform of n real samples, d apart."""
    return _fft.rfftfreq(n, d, dtype=dtype, device=device)


def fftshift(x: Tensor, /, *, axes: int | Sequence[int] | None = None) -> Tensor:
    """Frequency 0 moved to the middle."""
    return _fft.fftshift(x, axes)


def ifftshift(x: Tensor, /, *, axes: int | Sequence[int] | None = None) -> Tensor:
    """Frequency 0 moved from the middle to the front."""
    return _fft.ifftshift(x, axes)
