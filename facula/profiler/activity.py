"""What a profile can be of, by PyTorch's names."""

from __future__ import annotations

import enum

__all__ = ["ProfilerActivity", "supported_activities"]


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
