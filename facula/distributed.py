"""What programs ask of `torch.distributed` before they settle for one process."""

from __future__ import annotations

from facula.absent import Absent

__all__ = ["destroy_process_group", "get_rank", "get_world_size", "init_process_group",
           "is_available", "is_initialized", "is_torchelastic_launched"]

_none = Absent(__name__, "facula trains in one process, on all of its processors",
               ", and has no process groups: ask distributed.is_available() first")

is_available = _none.answers("is_available", False)
is_initialized = _none.answers("is_initialized", False)
is_torchelastic_launched = _none.answers("is_torchelastic_launched", False)
init_process_group = _none.refuses("init_process_group")
destroy_process_group = _none.refuses("destroy_process_group")
get_rank = _none.refuses("get_rank")
get_world_size = _none.refuses("get_world_size")
