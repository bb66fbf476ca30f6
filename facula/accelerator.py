"""What programs ask of `torch.accelerator` before they settle for the CPU."""

from __future__ import annotations

from facula.absent import Absent

__all__ = ["is_available", "device_count", "current_accelerator", "current_device_index",
           "current_device_idx", "set_device_index", "set_device_idx", "synchronize",
           "empty_cache"]

_none = Absent(__name__, "facula computes on the CPU", " and has no accelerator: ask "
               "accelerator.is_available() first, and use device='cpu'")

is_available = _none.answers("is_available", False)
device_count = _none.answers("device_count", 0)
current_accelerator = _none.answers("current_accelerator", None)
empty_cache = _none.ignores("empty_cache")
current_device_index = current_device_idx = _none.refuses("current_device_index")
set_device_index = set_device_idx = _none.refuses("set_device_index")
synchronize = _none.refuses("synchronize")
