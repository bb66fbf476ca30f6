"""A compiled program: one native call runs all its kernels over memory planned beforehand.

Making a `Program` compiles (or loads) its kernels and fills everything that stays the same: the
argument table with arena addresses and constants, and the descriptor of phases that the driver
walks.  A launch writes its arguments into the table and calls the driver; nothing else.
"""

from __future__ import annotations

import ctypes
import struct
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from facula import config
from facula.runtime import arena, flight, threads, watch
from facula.runtime.allocator import Buffer, empty
from facula.runtime.jit import LoadedKernel, compile_kernels, statistics
from facula.runtime.plan import STATUS_SLOT, PhasePlan, ProgramPlan

__all__ = ["Program"]

HOLD_GIL_COST = 30_000.0
"""Programs of fewer estimated nanoseconds keep the GIL: another Python thread that took it could
hold it for a switch interval (5 ms), a hundred times as long as the program runs."""

BACKGROUND_COST = 25_000.0
"""Programs of fewer estimated nanoseconds are not worth handing to another thread."""

_programs: weakref.WeakSet[Program] = weakref.WeakSet()


class Program:
    """A plan made executable; `run` may be called from any thread (calls take turns).

    `kernels` are those of the plan, in order, where they are there already.
    """

    def __init__(self, plan: ProgramPlan, kernels: list[LoadedKernel] | None = None):
        started = time.perf_counter()
        before = dict(statistics)
        self.name = plan.name
        self.cost = plan.cost
        self.n_arguments = len(plan.arguments)
        if kernels is None:
            kernels = compile_kernels(
                [(k.name, k.llvm_text) for phase in plan.phases for k in phase.kernels])
        self.kernels = kernels
        self._native = native = threads.driver()
        self._solo = plan.cost < threads.SOLO_COST or not any(
            sum(k.ntiles for k in phase.kernels) > 1 for phase in plan.phases)
        self._call: Callable[[int, int], int] = (
            native.run_held if plan.cost < HOLD_GIL_COST else native.run)
        shares = plan.arena_bytes >= arena.LEAST
        # Those that share memory take turns: they have one lock.
        self._lock = arena.SHARED.lock if shares else threading.Lock()
        self._arena: Buffer | None = None if shares else empty(plan.arena_bytes)
        self._keep: list[Any] = [native]
        self._status = (ctypes.c_int64 * 1)()
        self._table = table = (ctypes.c_int64 * max(plan.n_slots, 1))()
        table[STATUS_SLOT] = ctypes.addressof(self._status)
        if self._arena is not None:
            for slot, offset in plan.arena_slots.items():
                table[slot] = self._arena.ptr + offset
        for slot, data in plan.constants.items():
            constant = empty(len(data))
            ctypes.memmove(constant.ptr, data, len(data))
            self._keep.append(constant)
            table[slot] = constant.ptr
        self.origin: Any = None             # the steps and the schedule it was made from
        self._timed: watch.Timed | None = None
        self._pack = _packer(plan.arguments, table)
        if shares:
            arena.SHARED.enter(self, plan.arena_bytes)
            self._pack = _placing(self._pack, table, plan.arena_slots)
        self._rows: list[list[int]] = []
        first = sum([len(phase.kernels) for phase in plan.phases[:plan.once]])
        self._before = self._describe(plan.phases[:plan.once], kernels[:first])
        self._rows.clear()                  # those of a run, for who watches it
        self._descriptor = self._describe(plan.phases[plan.once:], kernels[first:])
        self._program = ctypes.addressof(self._descriptor)
        _programs.add(self)
        if watch.watcher is not None:
            watch.watcher.compiled(self, watch.now() - int((time.perf_counter() - started) * 1e9),
                                   watch.now())
        if config.flag.DEBUG:
            self._report(plan, before, time.perf_counter() - started)

    @property
    def n_kernels(self) -> int:
        """How many kernels a launch runs."""
        return len(self.kernels)

    @property
    def nbytes(self) -> int:
        """Memory that goes with this program and with no other."""
        own = self._arena.nbytes if self._arena is not None else 0
        return own + 32768 + sum([k.nbytes + 4096 for k in self.kernels])

    def __del__(self, _leave: Callable[[Any], None] = arena.SHARED.leave) -> None:
        if getattr(self, "_arena", self) is None:
            _leave(self)

    def _describe(self, phases: Sequence[PhasePlan], kernels: Sequence[LoadedKernel]) -> Any:
        """The words that the driver reads: see `threads.driver_text`."""
        words = [ctypes.addressof(self._table), len(phases)]
        index = 0
        for phase in phases:
            whole: list[list[int]] = []
            for kernel in phase.kernels:
                placed = (*kernel.slots, *kernel.numbers)
                slots = (ctypes.c_int64 * max(len(placed), 1))(*placed)
                self._keep.append(slots)
                whole.append([kernels[index].address, ctypes.addressof(slots), kernel.ntiles, 0])
                index += 1
            self._rows += whole
            rows = _in_halves(whole)
            table = (ctypes.c_int64 * max(4 * len(rows), 1))(*[w for row in rows for w in row])
            self._keep.append(table)
            words += [len(rows), sum(k.ntiles for k in phase.kernels), ctypes.addressof(table)]
        return (ctypes.c_int64 * len(words))(*words)

    def run(self, args: Sequence[Any]) -> int:
        """Run with `args`, one for each of the plan's arguments; the status word (0 = fine)."""
        with self._lock:
            if flight.current is not None:
                flight.finish()
            self._pack(args)
            if watch.watcher is not None:
                return self._watched()
            return self._call(0 if self._solo else threads.pool_pointer(), self._program)

    def prepare(self, args: Sequence[Any]) -> int:
        """Run the phases that are no part of a run (`ProgramPlan.once`); arguments that they do
        not use may be anything."""
        with self._lock:
            if flight.current is not None:
                flight.finish()
            self._pack(args)
            return self._call(0 if self._solo else threads.pool_pointer(),
                              ctypes.addressof(self._before))

    def _watched(self) -> int:
        """Run with a look at the clock between kernels."""
        if self._timed is None:
            self._timed = watch.Timed(self._table, self._rows)
        started = watch.now()
        status = self._call(0 if self._solo else threads.pool_pointer(), self._timed.program)
        if watch.watcher is not None:
            watch.watcher.launched(self, started, watch.now(), self._timed.stamps())
        return status

    def begin(self, args: Sequence[Any], keep: Any, failed: Callable[[], BaseException]) -> bool:
        """Run in the background if that is worth it and can be; whether it does.

        `keep` is held and `failed` called as `facula.runtime.flight.Flight` says.
        """
        if self._solo or watch.watcher is not None or self.cost < BACKGROUND_COST:
            return False
        with self._lock:
            if flight.current is not None:
                flight.finish()
            pool = threads.pool_pointer()
            if not pool:
                return False
            self._pack(args)
            if not self._native.begin(pool, self._program):
                return False
            flight.take_off(flight.Flight(partial(self._native.join, pool), (self, keep), failed))
            return True

    def _report(self, plan: ProgramPlan, before: dict[str, float], seconds: float) -> None:
        made = {k: statistics[k] - before[k] for k in ("compiled", "loaded", "reused")}
        print(f"facula: {plan.name}: {sum(len(p.kernels) for p in plan.phases)} kernels "
              f"in {len(plan.phases)} phases, {made['compiled']:.0f} compiled, "
              f"{made['loaded']:.0f} from disk, {made['reused']:.0f} reused, arena "
              f"{plan.arena_bytes} bytes, {seconds * 1e3:.1f} ms", file=sys.stderr)
        if config.flag.DEBUG >= 2:
            for number, phase in enumerate(plan.phases):
                for kernel in phase.kernels:
                    print(f"facula:   phase {number}: {kernel.name} x {kernel.ntiles}, "
                          f"slots {list(kernel.slots)}", file=sys.stderr)

    def __repr__(self) -> str:
        return f"Program({self.name}, {len(self.kernels)} kernels)"


def _in_halves(rows: list[list[int]]) -> list[list[int]]:
    """The rows of a phase in an order in which threads that claim from its two ends meet in the
    middle of each kernel, not in the middle of all: the first halves, then the second ones the
    other way round.  What a thread then reads is what it wrote itself in the phase before, where
    kernels go along the same batch; memory that another core has written is several times as far.
    """
    if len(rows) < 2:
        return rows
    front, back = [], []
    for alternate, (function, slots, tiles, first) in enumerate(rows):
        half = (tiles + alternate % 2) // 2
        front.append([function, slots, half, first])
        back.append([function, slots, tiles - half, first + half])
    return [row for row in front + back[::-1] if row[2]]


def _placing(pack: Callable[[Sequence[Any]], None], table: Any, slots: dict[int, int]
             ) -> Callable[[Sequence[Any]], None]:
    """`pack`, after looking where the shared memory lies now."""
    base = 0

    def write(args: Sequence[Any]) -> None:
        nonlocal base
        now = arena.SHARED.address()
        if now != base:
            for slot, offset in slots.items():
                table[slot] = now + offset
            base = now
        pack(args)
    return write


def _packer(arguments: tuple[tuple[int, str], ...], table: Any) -> Callable[[Sequence[Any]], None]:
    """A function that writes a launch's arguments into their slots of the table."""
    runs: list[tuple[int, int, str]] = []       # first argument, its slot, formats
    for i, (slot, code) in enumerate(arguments):
        if code not in "PdqQ":
            raise ValueError(f"argument {i}: unknown format {code!r}")
        # an address is written as unsigned, so that any 64-bit value is accepted
        code = "Q" if code == "P" else code
        if runs and slot == runs[-1][1] + len(runs[-1][2]):
            first, start, codes = runs[-1]
            runs[-1] = (first, start, codes + code)
        else:
            runs.append((i, slot, code))
    view = memoryview(table).cast("B")
    count = len(arguments)
    if len(runs) == 1:
        pack = struct.Struct("=" + runs[0][2]).pack_into
        offset = runs[0][1] * 8

        def write(args: Sequence[Any]) -> None:
            pack(view, offset, *args)
        return write
    parts = [(struct.Struct("=" + codes).pack_into, first, first + len(codes), slot * 8)
             for first, slot, codes in runs]

    def write_parts(args: Sequence[Any]) -> None:
        if len(args) != count:
            raise ValueError(f"the program takes {count} arguments, {len(args)} given")
        for pack, first, last, offset in parts:
            pack(view, offset, *args[first:last])
    return write_parts


def _renew_locks() -> None:
    """In a forked child: a lock that another thread of the parent held will not be released."""
    arena.SHARED.renew()
    for program in list(_programs):
        program._lock = arena.SHARED.lock if program._arena is None else threading.Lock()


threads.at_fork.append(_renew_locks)
