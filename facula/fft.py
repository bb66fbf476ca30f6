"""Discrete Fourier transforms, under the names of `torch.fft`."""

from __future__ import annotations

from facula.ops import fourier as _fourier
from facula.ops.fourier import *  # noqa: F403

__all__ = [*_fourier.__all__]
