"""Collecting a profile, and the two things made of it: a table and a trace."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from typing import Any

from facula.errors import user_line
from facula.profiler.activity import ProfilerActivity, supported_activities
from facula.profiler.roof import Roof, measure
from facula.profiler.work import Demand, Work, demand_of, kernels_of
from facula.runtime import flight, threads, watch

__all__ = ["Profile", "profile"]

_SORTS = {"time": lambda r: r.seconds, "calls": lambda r: r.calls,
          "flops": lambda r: r.work.flops * r.calls, "bytes": lambda r: r.work.bytes * r.calls}


class Row:
    """All runs of one kernel for one place of the user's program."""

    def __init__(self, work: Work):
        self.work = work
        self.calls = 0
        self.seconds = 0.0


class Profile:
    """What ran while it was on: `with facula.profiler.profile() as p: ...`.

    Programs run on their threads as they always do, but their kernels one after the other and not
    in the background, so that each can be timed.  Profiles do not nest.
    """

    def __init__(self) -> None:
        self.started = self.ended = 0
        self.launches: list[tuple[list[Work], int, int, Sequence[int], str]] = []
        self.compilations: list[tuple[str, int, int, int]] = []
        self.interpretations: list[tuple[int, int, int]] = []
        self._work: dict[int, tuple[Any, list[Work]]] = {}
        self._runs: dict[int, int] = {}      # how often each program ran
        self._roof: Roof | None = None

    def __enter__(self) -> Profile:
        """Begin.  Raises RuntimeError inside another profile, or where there is no clock."""
        if watch.watcher is not None:
            raise RuntimeError("a profile is being taken already: profiles do not nest")
        if not watch.supported():
            raise RuntimeError("this system has no monotonic clock that machine code could read")
        flight.finish()
        self.started = watch.now()
        watch.watcher = self
        return self

    def __exit__(self, *error: Any) -> None:
        watch.watcher = None
        self.ended = watch.now()

    # -- told by `facula.runtime`
    def compiled(self, program: Any, start: int, end: int) -> None:
        self.compilations.append((program.name, program.n_kernels, start, end))

    def launched(self, program: Any, start: int, end: int, stamps: Sequence[int]) -> None:
        known = self._work.get(id(program))
        if known is None:
            known = self._work[id(program)] = program, kernels_of(program)
        self._runs[id(program)] = self._runs.get(id(program), 0) + 1
        self.launches.append((known[1], start, end, stamps, user_line() or ""))

    def interpreted(self, steps: int, start: int, end: int) -> None:
        self.interpretations.append((steps, start, end))

    # -- what came of it
    @property
    def roof(self) -> Roof:
        """The machine's limits, measured when they are first asked for."""
        if self._roof is None:
            self._roof = measure()
        return self._roof

    def rows(self) -> list[Row]:
        """Each kernel at each place, the longest first."""
        found: dict[tuple[Any, ...], Row] = {}
        for works, _, _, stamps, _ in self.launches:
            for k, work in enumerate(works):
                row = found.setdefault((work.name, work.lines, work.operations), Row(work))
                row.calls += 1
                row.seconds += max(stamps[k + 1] - stamps[k], 0) * 1e-9
        return sorted(found.values(), key=_SORTS["time"], reverse=True)

    def demand(self) -> Demand:
        """What all launches together had to do at least."""
        total = Demand()
        for number, count in self._runs.items():
            total = total.plus(demand_of(self._work[number][0]), count)
        return total

    def table(self, sort_by: str = "time", row_limit: int = 30) -> str:
        """The kernels as text; `sort_by` is "time", "calls", "flops" or "bytes".

        The share of the roof is the least time that the machine could take for the kernel's
        operations and bytes, over the time it took; above 100 its data were in the caches.
        GFLOP/s are those of plain sums; operations that minimal filtering spares (3x3 convolutions)
        count in them, but not for the roof.
        Raises ValueError for another order.
        """
        if sort_by not in _SORTS:
            raise ValueError(f"sort_by={sort_by!r}: known are {', '.join(_SORTS)}")
        rows = self.rows()
        total = sum([r.seconds for r in rows]) or 1e-12
        whole = (self.ended or watch.now()) - self.started
        compiling = sum([end - start for _, _, start, end in self.compilations])
        interpreting = sum([end - start for _, start, end in self.interpretations])
        running = sum([end - start for _, start, end, _, _ in self.launches])
        rest = whole - compiling - interpreting - running
        lines = [
            f"{whole * 1e-9:.3f} s: {running * 1e-9:.3f} s in {len(self.launches)} launches of "
            f"compiled programs ({total:.3f} s in their kernels), {compiling * 1e-9:.3f} s making "
            f"{len(self.compilations)} programs' machine code, {interpreting * 1e-9:.3f} s in "
            f"{len(self.interpretations)} runs of the interpreter, {rest * 1e-9:.3f} s in Python",
            f"roof of {threads.get_num_threads()} threads: {self.roof.gflops:.0f} GFLOP/s"
            + (f" ({self.roof.short:.0f} of bfloat16)" if self.roof.short else "")
            + f", {self.roof.gbytes:.1f} GB/s", "",
            f"{'share':>6} {'calls':>6} {'total ms':>9} {'mean us':>9} {'GB/s':>7} "
            f"{'GFLOP/s':>8} {'roof':>5}  kernel"]
        shown = sorted(rows, key=_SORTS[sort_by], reverse=True)
        for r in shown[:row_limit]:
            seconds = max(r.seconds / r.calls, 1e-9)
            share = r.work.least(self.roof) / seconds
            lines.append(
                f"{100 * r.seconds / total:5.1f}% {r.calls:6} {r.seconds * 1e3:9.3f} "
                f"{seconds * 1e6:9.1f} {r.work.bytes / seconds / 1e9:7.1f} "
                f"{r.work.flops / seconds / 1e9:8.1f} {100 * share:4.0f}%  {r.work.operations}")
            lines += [f"{'':>58}at {_short(where)}" for where in r.work.lines[:4]]
        if len(shown) > row_limit:
            left = sum([r.seconds for r in shown[row_limit:]])
            lines.append(f"{100 * left / total:5.1f}% in {len(shown) - row_limit} more kernels")
        return "\n".join(lines)

    def export_chrome_trace(self, path: str) -> None:
        """Write a trace that chrome://tracing and ui.perfetto.dev show."""
        process = os.getpid()

        def event(name: str, row: int, start: int, end: int, **more: Any) -> dict[str, Any]:
            return {"name": name, "ph": "X", "pid": process, "tid": row,
                    "ts": (start - self.started) / 1e3, "dur": max(end - start, 0) / 1e3,
                    "args": more}

        names = {0: "Python: launches and compiling", 1: "kernels"}
        events: list[dict[str, Any]] = [
            {"name": "process_name", "ph": "M", "pid": process, "args": {"name": "facula"}}]
        events += [{"name": "thread_name", "ph": "M", "pid": process, "tid": row,
                    "args": {"name": name}} for row, name in names.items()]
        for name, count, start, end in self.compilations:
            events.append(event(f"make {name}: {count} kernels", 0, start, end))
        for count, start, end in self.interpretations:
            events.append(event(f"interpret {count} steps", 0, start, end))
        for works, start, end, stamps, where in self.launches:
            events.append(event(f"launch {len(works)} kernels", 0, start, end, asked_for_at=where))
            for k, work in enumerate(works):
                seconds = max(stamps[k + 1] - stamps[k], 1) * 1e-9
                events.append(event(
                    work.operations, 1, stamps[k], stamps[k + 1], kernel=work.name,
                    lines=list(work.lines), flops=work.flops, bytes=work.bytes,
                    gflops=round(work.flops / seconds / 1e9, 3),
                    gbytes=round(work.bytes / seconds / 1e9, 3),
                    roof=round(work.least(self.roof) / seconds, 4)))
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"traceEvents": events, "displayTimeUnit": "ms"}, file)


def profile(*, activities: Iterable[ProfilerActivity] | None = None) -> Profile:
    """A profile, to be used as a context manager.

    `activities` may name `ProfilerActivity.CPU`; ValueError for those of other devices.
    """
    for activity in activities or ():
        if activity not in supported_activities():
            raise ValueError(f"activities has {activity}, and facula computes on the CPU: leave "
                             "activities out, or name ProfilerActivity.CPU alone")
    return Profile()


def _short(where: str) -> str:
    """A line of the user's program, relative to the folder at hand where it lies in it."""
    here = os.getcwd() + os.sep
    return where[len(here):] if where.startswith(here) else where
