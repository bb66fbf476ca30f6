"""`DistributedDataParallel` where there is one process."""

from __future__ import annotations

from typing import Any

from facula.nn.modules.module import Module

__all__ = ["DistributedDataParallel"]


class DistributedDataParallel(Module):
    """Raises RuntimeError: there are no process groups (see `facula.distributed`)."""

    def __init__(self, module: Module, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("DistributedDataParallel needs a process group, and facula trains in "
                           "one process, on all of its processors: use the module as it is")
