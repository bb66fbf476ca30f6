"""What programs ask of `torch.distributed` before they settle for one process."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["destroy_process_group", "get_rank", "get_world_size", "init_process_group",
           "is_available", "is_initialized", "is_torchelastic_launched"]


def is_available() -> bool:
    """False: facula trains in one process, on all of its processors."""
    return False


def is_initialized() -> bool:
    """False."""
    return False


def is_torchelastic_launched() -> bool:
    """False."""
    return False


def _alone(*_: Any, **__: Any) -> NoReturn:
    """Raises a RuntimeError: there is no group of processes."""
    raise RuntimeError("facula trains in one process, on all of its processors, and has no "
                       "process groups: ask distributed.is_available() first")


init_process_group = destroy_process_group = get_rank = get_world_size = _alone
