"""What programs ask of `torch.mps`: Apple's GPU, which are not used."""

from __future__ import annotations

from typing import Any

__all__ = ["device_count", "empty_cache", "is_available", "manual_seed", "synchronize"]


def is_available() -> bool:
    """False: facula computes on the CPU."""
    return False


def device_count() -> int:
    """0."""
    return 0


def manual_seed(seed: int) -> None:
    """Without effect, as in PyTorch where there is no such device."""


def empty_cache() -> None:
    """Without effect, as in PyTorch where there is no such device."""


def synchronize(device: Any = None) -> None:
    """Raises: there is no such device."""
    from facula.device import check_device
    check_device("mps")
