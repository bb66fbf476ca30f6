"""Python's `multiprocessing` under PyTorch's name, with the settings it adds.

A tensor that is sent to another process is copied: what one writes the others do not see.
"""

from __future__ import annotations

import multiprocessing as _multiprocessing
from multiprocessing import *  # noqa: F403
from typing import Any

__all__ = [*_multiprocessing.__all__, "spawn", "set_sharing_strategy", "get_sharing_strategy",
           "get_all_sharing_strategies"]


def get_all_sharing_strategies() -> set[str]:
    """{'file_descriptor'}."""
    return {"file_descriptor"}


def get_sharing_strategy() -> str:
    """'file_descriptor'."""
    return "file_descriptor"


def set_sharing_strategy(new_strategy: str) -> None:
    """Accepts the strategies PyTorch has; ValueError for anything else."""
    if new_strategy not in ("file_descriptor", "file_system"):
        raise ValueError(f"unknown sharing strategy {new_strategy!r}: 'file_descriptor' or "
                         "'file_system'")


def spawn(fn: Any, args: tuple[Any, ...] = (), nprocs: int = 1, join: bool = True,
          daemon: bool = False, start_method: str = "spawn") -> Any:
    """Run `fn(rank, *args)` in `nprocs` processes.

    With `join` it waits for them, and raises RuntimeError if one fails; otherwise it returns them.
    """
    context: Any = _multiprocessing.get_context(start_method)
    found = [context.Process(target=fn, args=(rank, *args), daemon=daemon)
             for rank in range(nprocs)]
    for p in found:
        p.start()
    if not join:
        return found
    for rank, p in enumerate(found):
        p.join()
        if p.exitcode:
            for other in found:
                if other.is_alive():
                    other.terminate()
            raise RuntimeError(f"process {rank} terminated with exit code {p.exitcode}")
    return None
