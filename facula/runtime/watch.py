"""The clock inside a program, for profiles: when each of its kernels began and ended.

A program that is watched runs from another descriptor: its kernels one after the other, each a
phase of its own, and before and after each a kernel of one tile that writes down the time.  So
what is measured is measured by the thread that leads the program, and the code of the kernels is
the one that always runs.  Without a watcher the only trace of all this is one comparison a launch.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from typing import Any, Protocol

__all__ = ["Watcher", "Timed", "watcher", "now", "supported"]


class Watcher(Protocol):
    """Who is told of programs; times are nanoseconds of `now`'s clock."""

    def compiled(self, program: Any, start: int, end: int) -> None:
        """A program's kernels have been compiled, loaded or found."""

    def launched(self, program: Any, start: int, end: int, stamps: Sequence[int]) -> None:
        """A program has run; stamps k and k + 1 are before and after its k-th kernel."""

    def interpreted(self, steps: int, start: int, end: int) -> None:
        """A program of so many steps has been run by the interpreter."""


watcher: Watcher | None = None

_CLOCK = getattr(time, "CLOCK_MONOTONIC", None)

_TEXT = """declare i32 @clock_gettime(i32, ptr)
define void @facula_stamp(ptr %args, ptr %map, i64 %tile) {{
entry:
  %time = alloca [2 x i64], align 8
  %r = call i32 @clock_gettime(i32 {clock}, ptr %time)
  %seconds = load i64, ptr %time
  %rest.at = getelementptr i64, ptr %time, i64 1
  %rest = load i64, ptr %rest.at
  %whole = mul i64 %seconds, 1000000000
  %all = add i64 %whole, %rest
  %to = load ptr, ptr %map
  store i64 %all, ptr %to
  ret void
}}
"""


def supported() -> bool:
    """Is there a clock that machine code and Python can both read?"""
    return _CLOCK is not None


def now() -> int:
    """Nanoseconds, on the clock that programs look at."""
    return time.clock_gettime_ns(_CLOCK) if _CLOCK is not None else time.perf_counter_ns()


class Timed:
    """A program's kernels with the clock between them.

    `rows` are (address, slots, tiles) of each kernel; `program` is the descriptor's address.
    """

    def __init__(self, table: Any, rows: Sequence[Sequence[int]]):
        from facula.runtime.jit import compile_kernels
        self._kernel = compile_kernels([("facula_stamp", _TEXT.format(clock=_CLOCK))])[0]
        self._times = (ctypes.c_int64 * (len(rows) + 1))()
        first = ctypes.addressof(self._times)
        self._keep: list[Any] = []
        words = [ctypes.addressof(table), 2 * len(rows) + 1]
        for k in range(len(rows) + 1):
            words += self._phase([self._kernel.address, self._held([first + 8 * k]), 1])
            if k < len(rows):
                words += self._phase(rows[k])
        self.program = self._held(words)

    def _held(self, words: Sequence[int]) -> int:
        array = (ctypes.c_int64 * len(words))(*words)
        self._keep.append(array)
        return ctypes.addressof(array)

    def _phase(self, row: Sequence[int]) -> list[int]:
        return [1, row[2], self._held(row)]

    def stamps(self) -> list[int]:
        """The times of the last run."""
        return list(self._times)
