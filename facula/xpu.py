"""What programs ask of `torch.xpu`: Intel's GPUs, which are not used."""

from __future__ import annotations

from facula.absent import Absent

__all__ = ["device_count", "empty_cache", "is_available", "manual_seed", "synchronize"]

_none = Absent.device(__name__)

is_available = _none.answers("is_available", False)
device_count = _none.answers("device_count", 0)
manual_seed = _none.ignores("manual_seed")
empty_cache = _none.ignores("empty_cache")
synchronize = _none.refuses("synchronize")
