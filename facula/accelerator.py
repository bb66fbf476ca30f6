"""What programs ask of `torch.accelerator` before they settle for the CPU."""

from __future__ import annotations

from typing import Any, NoReturn

from facula.device import device as Device

__all__ = ["is_available", "device_count", "current_accelerator", "current_device_index",
           "current_device_idx", "set_device_index", "set_device_idx", "synchronize",
           "empty_cache"]


def is_available() -> bool:
    """False: facula computes on the CPU."""
    return False


def device_count() -> int:
    """0."""
    return 0


def current_accelerator(check_available: bool = False) -> Device | None:
    """None: there is none."""
    return None


def empty_cache() -> None:
    """Without effect: there is no memory but the CPU's."""


def _none() -> NoReturn:
    raise RuntimeError("facula computes on the CPU and has no accelerator: ask "
                       "accelerator.is_available() first, and use device='cpu'")


def current_device_index() -> int:
    """Raises a RuntimeError: there is no such device."""
    _none()


def set_device_index(device: Any, /) -> None:
    """Raises a RuntimeError: there is no such device."""
    _none()


def synchronize(device: Any = None, /) -> None:
    """Raises a RuntimeError: there is no such device."""
    _none()


current_device_idx = current_device_index
set_device_idx = set_device_index
