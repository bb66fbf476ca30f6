"""Calling a compiled kernel."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from facula.runtime.jit import LoadedKernel

FUNCTION: Callable[[int], Any] | None = None
"""What calls an address where it is not this processor that does."""


def function(kernel: LoadedKernel, *types: Any) -> Callable[..., Any]:
    """The kernel as a Python function of arguments of these ctypes."""
    if FUNCTION is not None:
        return FUNCTION(kernel.address)
    return ctypes.CFUNCTYPE(None, *types)(kernel.address)
