"""Whether gradients are recorded: `no_grad`, `enable_grad`, `set_grad_enabled`."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from facula.graph.record import _local

__all__ = ["no_grad", "enable_grad", "set_grad_enabled", "is_grad_enabled", "inference_mode",
           "is_inference_mode_enabled"]


def is_grad_enabled() -> bool:
    """Whether operations of this thread are recorded for gradients."""
    return _local.rec.grad


class _Mode:
    """A context manager, and a decorator, that sets the mode and puts it back."""

    def __init__(self, mode: bool):
        self.mode = mode
        self.before: list[bool] = []

    def __enter__(self) -> None:
        rec = _local.rec
        self.before.append(rec.grad)
        rec.grad = self.mode

    def __exit__(self, *_: Any) -> None:
        _local.rec.grad = self.before.pop()

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        mode = self.mode

        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with _Mode(mode):
                return fn(*args, **kwargs)
        return wrapped


class no_grad(_Mode):
    """Inside, nothing is recorded for gradients: `with no_grad():` or `@no_grad()`."""

    def __new__(cls, fn: Callable[..., Any] | None = None) -> Any:
        self = object.__new__(cls)
        if fn is None:
            return self
        _Mode.__init__(self, False)
        return self(fn)

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(_Mode):
    """Inside, operations are recorded for gradients even within `no_grad`."""

    def __new__(cls, fn: Callable[..., Any] | None = None) -> Any:
        self = object.__new__(cls)
        if fn is None:
            return self
        _Mode.__init__(self, True)
        return self(fn)

    def __init__(self) -> None:
        super().__init__(True)


_inside = threading.local()


def is_inference_mode_enabled() -> bool:
    """Whether this thread is inside `inference_mode`."""
    return getattr(_inside, "mode", False)


class inference_mode(_Mode):
    """`no_grad` under PyTorch's other name; `inference_mode(False)` enables gradients."""

    def __new__(cls, mode: Any = True) -> Any:
        self = object.__new__(cls)
        if not callable(mode):
            return self
        self.__init__()                             # type: ignore[misc]
        return self(mode)

    def __init__(self, mode: bool = True):
        super().__init__(not mode)
        self.outside: list[bool] = []

    def __enter__(self) -> None:
        self.outside.append(is_inference_mode_enabled())
        _inside.mode = not self.mode
        super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        _inside.mode = self.outside.pop()

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        mode = not self.mode

        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with inference_mode(mode):
                return fn(*args, **kwargs)
        return wrapped


class set_grad_enabled(_Mode):
    """Set the mode at once, and put it back when used as a context manager."""

    def __init__(self, mode: bool):
        super().__init__(bool(mode))
        rec = _local.rec
        self.before.append(rec.grad)
        rec.grad = self.mode

    def __enter__(self) -> None:
        _local.rec.grad = self.mode
