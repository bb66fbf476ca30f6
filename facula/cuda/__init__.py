"""What programs ask of `torch.cuda` before they settle for the CPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from facula.absent import Absent

__all__ = ["is_available", "device_count", "manual_seed", "manual_seed_all", "empty_cache",
           "current_device", "set_device", "is_initialized", "is_bf16_supported", "synchronize",
           "get_device_name", "get_device_properties", "memory_allocated", "memory_reserved",
           "max_memory_allocated", "max_memory_reserved", "reset_peak_memory_stats", "Event",
           "CUDAGraph", "Stream", "StreamContext", "current_stream", "default_stream", "device",
           "get_device_capability", "graph", "is_current_stream_capturing", "mem_get_info",
           "memory_summary", "stream", "get_rng_state_all", "set_rng_state_all"]

_none = Absent.device(__name__)

is_available = _none.answers("is_available", False)
is_initialized = _none.answers("is_initialized", False)
is_bf16_supported = _none.answers("is_bf16_supported", False)
device_count = _none.answers("device_count", 0)
memory_allocated = _none.answers("memory_allocated", 0)
memory_reserved = _none.answers("memory_reserved", 0)
max_memory_allocated = _none.answers("max_memory_allocated", 0)
max_memory_reserved = _none.answers("max_memory_reserved", 0)

reset_peak_memory_stats = _none.ignores("reset_peak_memory_stats")
manual_seed = _none.ignores("manual_seed")
manual_seed_all = _none.ignores("manual_seed_all")
empty_cache = _none.ignores("empty_cache")

synchronize = _none.refuses("synchronize")
current_device = _none.refuses("current_device")
get_device_name = _none.refuses("get_device_name")
get_device_properties = _none.refuses("get_device_properties")
set_device = _none.refuses("set_device")


class Stream:
    """A queue of a GPU's work; RuntimeError, as there is none."""

    __init__ = _none.refuses("__init__")


class Event(Stream):
    """A mark in such a queue; RuntimeError, as there is none."""


class CUDAGraph(Stream):
    """A GPU's recorded work; RuntimeError, as there is none."""


class graph(Stream):
    """A context that records a GPU's work; RuntimeError, as there is none."""


class StreamContext:
    """A context in which work goes to a stream, which can only be None."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: Any) -> None:
        return None


class device(StreamContext):
    """A context in which a GPU is the current one; it has no effect for None or -1, and raises
    RuntimeError for any other, as there is none."""

    def __init__(self, device: Any) -> None:
        super().__init__(None)
        self.idx = -1 if device is None else device
        if self.idx != -1:
            set_device(device)


def stream(stream: Any) -> StreamContext:
    """A context without effect: there are no streams."""
    return StreamContext(stream)


default_generators: tuple[Any, ...] = ()
"""The generators of the GPUs: none."""

is_current_stream_capturing = _none.answers("is_current_stream_capturing", False)
memory_summary = _none.answers("memory_summary", "")


def get_rng_state_all() -> list[Any]:
    """The states of the GPUs' generators: none."""
    return []


def set_rng_state_all(new_states: Iterable[Any]) -> None:
    """Without effect for no states; RuntimeError where there are any, which are of GPUs."""
    if n := len(list(new_states)):
        raise RuntimeError(f"set_rng_state_all was given the states of {n} GPUs, and facula "
                           "computes on the CPU: its state is set by facula.set_rng_state")


current_stream = _none.refuses("current_stream")
default_stream = _none.refuses("default_stream")
get_device_capability = _none.refuses("get_device_capability")
mem_get_info = _none.refuses("mem_get_info")


def __getattr__(name: str) -> Any:
    if name == "amp":
        import facula.cuda.amp as amp
        return amp
    raise AttributeError(f"module 'facula.cuda' has no attribute {name!r}")
