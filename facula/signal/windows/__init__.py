"""Windows of m points, under the names that PyTorch and SciPy have them.

`sym` gives the symmetric window; without it the last point of one of m + 1 is left away, which
makes it periodic.  Formulas: Harris, "On the use of windows for harmonic analysis with the
discrete Fourier transform" (1978).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facula.device import check_device, strided
from facula.ops.creation import as_dtype, finish
from facula.ops.promote import get_default_dtype
from facula.tensor import Tensor, from_array

__all__ = ["bartlett", "blackman", "cosine", "exponential", "gaussian", "general_cosine",
           "general_hamming", "hamming", "hann", "kaiser", "nuttall"]


def _made(name: str, m: int, sym: bool, shape: Callable[[np.ndarray, int], np.ndarray],
          dtype: Any, layout: Any, device: Any, requires_grad: bool) -> Tensor:
    """`shape(k, n)` of the positions k = 0, 1, ... in a symmetric window of n points."""
    check_device(device)
    if m < 0:
        raise ValueError(f"{name} requires non-negative window length, got M={m}")
    if layout is not None and layout is not strided:
        raise ValueError(f"{name} is implemented for strided tensors only, got: {layout}")
    want = get_default_dtype() if dtype is None else as_dtype(dtype)
    if want.kind != "f" or want.itemsize < 4:
        raise ValueError(f"{name} expects float32 or float64 dtypes, got: {want!r}")
    n = m if sym else m + 1
    values = np.ones(m) if m == 1 else shape(np.arange(m, dtype=np.float64), n) if m \
        else np.empty(0)
    return finish(from_array(values.astype(want.np)), requires_grad)


def _cosines(a: Sequence[float]) -> Callable[[np.ndarray, int], np.ndarray]:
    """The sum of (-1)**i a[i] cos(2 pi i k / (n - 1))."""
    def shape(k: np.ndarray, n: int) -> np.ndarray:
        out = np.zeros_like(k)
        for i, v in enumerate(a):
            out += (-1) ** i * v * np.cos(2 * np.pi * i * k / (n - 1))
        return out
    return shape


def exponential(M: int, *, center: float | None = None, tau: float = 1.0, sym: bool = True,
                dtype: Any = None, layout: Any = None, device: Any = None,
                requires_grad: bool = False) -> Tensor:
    """exp(-|k - center| / tau)."""
    if tau <= 0:
        raise ValueError(f"Tau must be positive, got: {tau} instead.")
    if sym and center is not None:
        raise ValueError("Center must be None for symmetric windows")
    return _made("exponential", M, sym, lambda k, n: np.exp(
        -np.abs(k - ((n - 1) / 2 if center is None else center)) / tau),
        dtype, layout, device, requires_grad)


def cosine(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None,
           device: Any = None, requires_grad: bool = False) -> Tensor:
    """sin(pi (k + 1/2) / n), half a wave."""
    return _made("cosine", M, sym, lambda k, n: np.sin(np.pi * (k + 0.5) / n), dtype, layout,
                 device, requires_grad)


def gaussian(M: int, *, std: float = 1.0, sym: bool = True, dtype: Any = None,
             layout: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """exp(-((k - centre) / std)**2 / 2)."""
    if std <= 0:
        raise ValueError(f"Standard deviation must be positive, got: {std} instead.")
    return _made("gaussian", M, sym, lambda k, n: np.exp(-0.5 * ((k - (n - 1) / 2) / std) ** 2),
                 dtype, layout, device, requires_grad)


def kaiser(M: int, *, beta: float = 12.0, sym: bool = True, dtype: Any = None,
           layout: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """I0(beta sqrt(1 - x**2)) / I0(beta) for x from -1 to 1."""
    if beta < 0:
        raise ValueError(f"beta must be non-negative, got: {beta} instead.")
    return _made("kaiser", M, sym, lambda k, n: np.i0(beta * np.sqrt(np.maximum(
        1 - (2 * k / (n - 1) - 1) ** 2, 0))) / np.i0(beta), dtype, layout, device, requires_grad)


def general_cosine(M: int, *, a: Sequence[float], sym: bool = True, dtype: Any = None,
                   layout: Any = None, device: Any = None, requires_grad: bool = False
                   ) -> Tensor:
    """A sum of cosines with the weights `a`, their signs alternating."""
    if not isinstance(a, (tuple, list)):
        raise TypeError("Coefficients must be a list/tuple")
    if not a:
        raise ValueError("Coefficients cannot be empty")
    return _made("general_cosine", M, sym, _cosines(a), dtype, layout, device, requires_grad)


def general_hamming(M: int, *, alpha: float = 0.54, sym: bool = True, dtype: Any = None,
                    layout: Any = None, device: Any = None, requires_grad: bool = False
                    ) -> Tensor:
    """alpha - (1 - alpha) cos."""
    return _made("general_hamming", M, sym, _cosines((alpha, 1.0 - alpha)), dtype, layout,
                 device, requires_grad)


def hamming(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None,
            device: Any = None, requires_grad: bool = False) -> Tensor:
    """0.54 - 0.46 cos."""
    return _made("hamming", M, sym, _cosines((0.54, 0.46)), dtype, layout, device, requires_grad)


def hann(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None,
         device: Any = None, requires_grad: bool = False) -> Tensor:
    """0.5 - 0.5 cos."""
    return _made("hann", M, sym, _cosines((0.5, 0.5)), dtype, layout, device, requires_grad)


def blackman(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None,
             device: Any = None, requires_grad: bool = False) -> Tensor:
    """0.42 - 0.5 cos + 0.08 cos of twice the angle."""
    return _made("blackman", M, sym, _cosines((0.42, 0.5, 0.08)), dtype, layout, device,
                 requires_grad)


def bartlett(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None,
             device: Any = None, requires_grad: bool = False) -> Tensor:
    """A triangle that is 0 at both ends."""
    return _made("bartlett", M, sym, lambda k, n: 1 - np.abs(2 * k / (n - 1) - 1), dtype, layout,
                 device, requires_grad)


def nuttall(M: int, *, sym: bool = True, dtype: Any = None, layout: Any = None,
            device: Any = None, requires_grad: bool = False) -> Tensor:
    """Four cosines whose side lobes are smallest (Nuttall 1981)."""
    return _made("nuttall", M, sym, _cosines((0.3635819, 0.4891775, 0.1365995, 0.0106411)), dtype,
                 layout, device, requires_grad)
