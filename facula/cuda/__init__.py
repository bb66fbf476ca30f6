"""What programs ask of `torch.cuda` before they settle for the CPU."""

from __future__ import annotations

from typing import Any

from facula.device import check_device

__all__ = ["is_available", "device_count", "manual_seed", "manual_seed_all", "empty_cache",
           "current_device", "set_device", "is_initialized", "is_bf16_supported", "synchronize",
           "get_device_name", "get_device_properties", "memory_allocated", "memory_reserved",
           "max_memory_allocated", "max_memory_reserved", "reset_peak_memory_stats", "Event",
           "CUDAGraph", "Stream", "StreamContext", "current_stream", "default_stream", "device",
           "get_device_capability", "graph", "is_current_stream_capturing", "mem_get_info",
           "memory_summary", "stream"]


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


class _Absent:
    """Raises RuntimeError when it is made: there is no such device."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_device("cuda")


class Stream(_Absent):
    """A queue of a GPU's work; RuntimeError, as there is none."""


class Event(_Absent):
    """A mark in such a queue; RuntimeError, as there is none."""


class CUDAGraph(_Absent):
    """A GPU's recorded work; RuntimeError, as there is none."""


class graph(_Absent):
    """A context that records a GPU's work; RuntimeError, as there is none."""


class device:
    """A context in which a GPU is the current one; it has no effect for None or -1, and raises
    RuntimeError for any other, as there is none."""

    def __init__(self, device: Any) -> None:
        self.idx = -1 if device is None else device
        if self.idx != -1:
            check_device("cuda")

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: Any) -> None:
        return None


class StreamContext:
    """A context in which work goes to a stream, which can only be None."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: Any) -> None:
        return None


def stream(stream: Any) -> StreamContext:
    """A context without effect: there are no streams."""
    return StreamContext(stream)


def is_current_stream_capturing() -> bool:
    """False."""
    return False


default_generators: tuple[Any, ...] = ()
"""The generators of the GPUs: none."""


def current_stream(device: Any = None) -> Any:
    """Raises: there is no such device."""
    check_device("cuda")


def default_stream(device: Any = None) -> Any:
    """Raises: there is no such device."""
    check_device("cuda")


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """Raises: there is no such device."""
    check_device("cuda")
    return 0, 0


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Raises: there is no such device."""
    check_device("cuda")
    return 0, 0


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """An empty text."""
    return ""


def __getattr__(name: str) -> Any:
    if name == "amp":
        import facula.cuda.amp as amp
        return amp
    raise AttributeError(f"module 'facula.cuda' has no attribute {name!r}")
