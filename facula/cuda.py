"""What programs ask of `torch.cuda` before they settle for the CPU."""

from __future__ import annotations

from typing import Any

from facula.device import check_device

__all__ = ["is_available", "device_count", "manual_seed", "manual_seed_all", "empty_cache",
           "current_device", "is_initialized", "synchronize", "get_device_name"]


def is_available() -> bool:
    """False: facula computes on the CPU."""
    return False


def device_count() -> int:
    """0."""
    return 0


def is_initialized() -> bool:
    """False."""
    return False


def manual_seed(seed: int) -> None:
    """Without effect, as in PyTorch where there is no such device."""


def manual_seed_all(seed: int) -> None:
    """Without effect, as in PyTorch where there is no such device."""


def empty_cache() -> None:
    """Without effect, as in PyTorch where there is no such device."""


def synchronize(device: Any = None) -> None:
    """Raises: there is no such device."""
    check_device("cuda")


def current_device() -> int:
    """Raises: there is no such device."""
    check_device("cuda")
    return 0


def get_device_name(device: Any = None) -> str:
    """Raises: there is no such device."""
    check_device("cuda")
    return ""
