"""Marks for a profile: `torch.autograd.profiler.record_function`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["EventList", "emit_nvtx", "profile", "record_function"]


class record_function:
    """A context and a decorator that names a part of a program for whoever reads it.

    `facula.profiler` tells programs apart by the lines that recorded them, so it is not needed.
    """

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name = name

    def __enter__(self) -> record_function:
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self:
                return fn(*args, **kwargs)
        return wrapped


class _Refused:
    """PyTorch's first profiler: making one raises NotImplementedError."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"autograd.profiler.{type(self).__name__}: facula records no "
                                  "events of autograd, use facula.profiler.profile()")


class profile(_Refused):
    """NotImplementedError: see `facula.profiler.profile`."""


class emit_nvtx(_Refused):
    """NotImplementedError: marks for a profiler of GPUs, and facula computes on the CPU."""


class EventList(_Refused):
    """NotImplementedError: see `facula.profiler.Profile`."""
