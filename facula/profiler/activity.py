"""What a profile can be of, by PyTorch's names."""

from __future__ import annotations

import enum
from typing import Any, NoReturn

__all__ = ["ProfilerAction", "ProfilerActivity", "kineto_available", "supported_activities",
           "tensorboard_trace_handler"]


class ProfilerActivity(enum.Enum):
    """Kinds of devices whose work PyTorch's profiler records; here there is the CPU's."""

    CPU = 0
    XPU = 1
    MTIA = 2
    CUDA = 3
    HPU = 4
    PrivateUse1 = 5


def supported_activities() -> set[ProfilerActivity]:
    """The kinds that `profile` takes: the CPU."""
    return {ProfilerActivity.CPU}


class ProfilerAction(enum.Enum):
    """What PyTorch's schedules of a profile say about a step; profiles here have no schedule."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


def kineto_available() -> bool:
    """False: profiles are facula's own."""
    return False


def tensorboard_trace_handler(dir_name: str, worker_name: Any = None,
                              use_gzip: bool = False) -> NoReturn:
    """NotImplementedError: a `Profile` is written by whoever took it."""
    raise NotImplementedError("tensorboard_trace_handler: profiles have no handlers. Take one by "
                              "facula.profiler.profile(), and write it where you want it")
