"""How much memory the values and temporaries of this process take."""

from __future__ import annotations

from typing import NamedTuple

from facula.runtime import allocator, arena

__all__ = ["Memory", "memory", "reset_peak_memory"]


class Memory(NamedTuple):
    """Bytes, of what facula has taken from the system for tensors and programs.

    Memory that NumPy owns and tensors only share is not in it.
    """

    taken: int
    """All of it: values, temporaries, and free blocks kept for later ones."""
    cached: int
    """Of that, free blocks."""
    temporaries: int
    """Of that, what programs share for the values between their kernels."""
    peak: int
    """The most that was ever taken, or since `reset_peak_memory`."""

    def __str__(self) -> str:
        return (f"memory: {self.taken / 1e6:.1f} MB taken ({self.temporaries / 1e6:.1f} MB for "
                f"temporaries, {self.cached / 1e6:.1f} MB free), at most {self.peak / 1e6:.1f} MB")


def memory() -> Memory:
    """What is taken now, and the peak.

    A training step's activations are temporaries of its program: they lie in one piece of memory
    that was planned when the program was compiled and stays for its next run.
    """
    shared = arena.SHARED.buffer
    return Memory(allocator.taken.now, allocator.cached_bytes(),
                  shared.nbytes if shared is not None else 0, allocator.taken.peak)


def reset_peak_memory() -> None:
    """Let the peak begin anew from what is taken now."""
    allocator.taken.restart()
