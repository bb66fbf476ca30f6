"""What programs ask of `torch.cuda` before they settle for the CPU."""

from __future__ import annotations

from typing import Any

from facula.device import check_device

__all__ = ["is_available", "device_count", "manual_seed", "manual_seed_all", "empty_cache",
           "current_device", "set_device", "is_initialized", "is_bf16_supported", "synchronize",
           "get_device_name", "get_device_properties", "memory_allocated", "memory_reserved",
           "max_memory_allocated", "max_memory_reserved", "reset_peak_memory_stats"]


def is_available() -> bool:
    """False: facula computes on the CPU."""
    return False


def device_count() -> int:
    """0."""
    return 0


def is_initialized() -> bool:
    """False."""
    return False


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """False."""
    return False


def memory_allocated(device: Any = None) -> int:
    """0."""
    return 0


memory_reserved = max_memory_allocated = max_memory_reserved = memory_allocated


def reset_peak_memory_stats(device: Any = None) -> None:
    """Without effect, as in PyTorch where there is no such device."""


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


def get_device_properties(device: Any = None) -> Any:
    """Raises: there is no such device."""
    check_device("cuda")


def set_device(device: Any) -> None:
    """Raises: there is no such device."""
    check_device("cuda")


def __getattr__(name: str) -> Any:
    if name == "amp":
        import facula.cuda.amp as amp
        return amp
    raise AttributeError(f"module 'facula.cuda' has no attribute {name!r}")
