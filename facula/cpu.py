"""What programs ask of `torch.cpu`: the device that is always there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

__all__ = ["current_device", "current_stream", "device_count", "is_available", "is_initialized",
           "set_device", "stream", "synchronize"]


def is_available() -> bool:
    """True."""
    return True


def is_initialized() -> bool:
    """True."""
    return True


def device_count() -> int:
    """1."""
    return 1


def current_device() -> str:
    """'cpu'."""
    return "cpu"


def set_device(device: Any) -> None:
    """Without effect: there is one."""


def current_stream(device: Any = None) -> None:
    """None: what is asked for is computed in its order."""


def stream(stream: Any) -> AbstractContextManager[None]:
    """A context without effect."""
    return nullcontext()


def synchronize(device: Any = None) -> None:
    """Wait for the program that runs in the background, if one does."""
    from facula.runtime import flight
    flight.finish()
