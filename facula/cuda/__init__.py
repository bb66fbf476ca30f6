"""What programs ask of `torch.cuda` before they settle for the CPU."""

from __future__ import annotations

from typing import Any

from facula.absent import Absent

__all__ = ["is_available", "device_count", "manual_seed", "manual_seed_all", "empty_cache",
           "current_device", "set_device", "is_initialized", "is_bf16_supported", "synchronize",
           "get_device_name", "get_device_properties", "memory_allocated", "memory_reserved",
           "max_memory_allocated", "max_memory_reserved", "reset_peak_memory_stats"]

_none = Absent(__name__, "facula computes on the CPU",
               ", and 'cuda' was asked for: leave device out, or use device='cpu'")

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


def __getattr__(name: str) -> Any:
    if name == "amp":
        import facula.cuda.amp as amp
        return amp
    raise AttributeError(f"module 'facula.cuda' has no attribute {name!r}")
