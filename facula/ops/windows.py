"""Window functions for signals: hann, hamming, blackman, bartlett, kaiser.

A periodic window of n points is the symmetric one of n + 1 without its last.  Formulas: Harris,
"On the use of windows for harmonic analysis with the discrete Fourier transform" (1978).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from facula.device import check_device
from facula.ops.creation import as_dtype, finish
from facula.ops.promote import get_default_dtype
from facula.tensor import Tensor, from_array

__all__ = ["hann_window", "hamming_window", "blackman_window", "bartlett_window",
           "kaiser_window"]


def _window(name: str, length: int, periodic: bool, dtype: Any, device: Any,
            requires_grad: bool, shape: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """`shape` of positions that run from -1 to 1 across the window."""
    check_device(device)
    if length < 0:
        raise RuntimeError(f"{name} requires non-negative window_length, got window_length="
                           f"{length}")
    want = get_default_dtype() if dtype is None else as_dtype(dtype)
    if want.kind != "f":
        raise RuntimeError(f"{name} expects floating point dtypes, got: {want!r}")
    if length <= 1:
        return finish(from_array(np.ones(length, want.np)), requires_grad)
    points = length if periodic else length - 1
    values = shape(2.0 * np.arange(length) / points - 1.0)
    return finish(from_array(values.astype(want.np)), requires_grad)


def hann_window(window_length: int, periodic: bool = True, *, dtype: Any = None,
                layout: Any = None, device: Any = None, pin_memory: bool = False,
                requires_grad: bool = False) -> Tensor:
    """0.5 - 0.5 cos: the Hann window."""
    return _window("hann_window", window_length, periodic, dtype, device, requires_grad,
                   lambda x: 0.5 + 0.5 * np.cos(np.pi * x))


def hamming_window(window_length: int, periodic: bool = True, alpha: float = 0.54,
                   beta: float = 0.46, *, dtype: Any = None, layout: Any = None,
                   device: Any = None, pin_memory: bool = False,
                   requires_grad: bool = False) -> Tensor:
    """alpha - beta cos: the Hamming window."""
    return _window("hamming_window", window_length, periodic, dtype, device, requires_grad,
                   lambda x: alpha + beta * np.cos(np.pi * x))


def blackman_window(window_length: int, periodic: bool = True, *, dtype: Any = None,
                    layout: Any = None, device: Any = None, pin_memory: bool = False,
                    requires_grad: bool = False) -> Tensor:
    """0.42 - 0.5 cos + 0.08 cos of twice the angle: the Blackman window."""
    return _window("blackman_window", window_length, periodic, dtype, device, requires_grad,
                   lambda x: 0.42 + 0.5 * np.cos(np.pi * x) + 0.08 * np.cos(2 * np.pi * x))


def bartlett_window(window_length: int, periodic: bool = True, *, dtype: Any = None,
                    layout: Any = None, device: Any = None, pin_memory: bool = False,
                    requires_grad: bool = False) -> Tensor:
    """A triangle: the Bartlett window."""
    return _window("bartlett_window", window_length, periodic, dtype, device, requires_grad,
                   lambda x: 1.0 - np.abs(x))


def kaiser_window(window_length: int, periodic: bool = True, beta: float = 12.0, *,
                  dtype: Any = None, layout: Any = None, device: Any = None,
                  pin_memory: bool = False, requires_grad: bool = False) -> Tensor:
    """I0(beta sqrt(1 - x**2)) / I0(beta): the Kaiser window."""
    return _window("kaiser_window", window_length, periodic, dtype, device, requires_grad,
                   lambda x: np.i0(beta * np.sqrt(np.maximum(1.0 - x * x, 0.0))) / np.i0(beta))
