"""What is kept of programs and of the trie, and what goes when there is too much of it.

Two things grow with every structure that a process meets: the trie of recorded operations, and
the compiled programs that hang on it.  Both are bounded, and what has not been used for longest
goes first.  Nothing that somebody still uses is lost by it: a program that is left out of the
trie lives on with whoever holds it (a captured call, a launch in the background), and a structure
that comes back is recorded, planned and linked again.

When something was last used is told by `Graph.sequence`, which counts graphs: a flush writes the
number of its graph into the program it runs.
"""

from __future__ import annotations

import weakref
from typing import Any

from facula.graph.record import DRAFT, Recorder, State

__all__ = ["compiled", "prune", "statistics", "MAX_PROGRAMS", "MAX_PROGRAM_BYTES", "SLACK"]

MAX_PROGRAMS = 1024
"""Compiled programs that are kept for structures that may come back."""

MAX_PROGRAM_BYTES = 512 << 20
"""Memory that those may take: temporaries, machine code, plans (estimated)."""

SLACK = 0.75
"""Past a bound, so much of it is kept, so that clearing out is rare."""

_compiled: weakref.WeakSet[Any] = weakref.WeakSet()
_total = [0]                    # bytes of them, at least: those that died by themselves count too


def statistics() -> dict[str, int]:
    """How many compiled programs are known by their structure, and their bytes."""
    return {"programs": len(_compiled), "bytes": sum(p.nbytes for p in _compiled)}


def compiled(program: Any) -> None:
    """`program` has been compiled; past the bounds, those used longest ago are let go."""
    _compiled.add(program)
    _total[0] += program.nbytes
    if len(_compiled) <= MAX_PROGRAMS and _total[0] <= MAX_PROGRAM_BYTES:
        return
    held = sorted(_compiled, key=_used)
    count, total = len(held), sum([p.nbytes for p in held])
    if count > MAX_PROGRAMS or total > MAX_PROGRAM_BYTES:
        for old in held:
            if old is program or count <= MAX_PROGRAMS * SLACK \
                    and total <= MAX_PROGRAM_BYTES * SLACK:
                break
            count, total = count - 1, total - old.nbytes
            old.forget()
            _compiled.discard(old)
    _total[0] = total


def _used(program: Any) -> int:
    return program.used                                     # type: ignore[no-any-return]


def prune(rec: Recorder, most: int) -> None:
    """Keep of a recorder's trie the paths to the programs used last: at most `most` states."""
    here: State | None = rec.graph.state
    while here is not None and here.edges is DRAFT:
        here = here.parent
    ends: list[tuple[int, State]] = [] if here is None else [(rec.graph.sequence, here)]
    todo, met = [rec.root], {rec.root}
    while todo:
        state = todo.pop()
        if state.programs:
            ends.append((max([p.used for p in state.programs.values()]), state))
        for edge in state.edges.values():
            if edge.state not in met:
                met.add(edge.state)
                todo.append(edge.state)
    kept = {rec.root}
    for _, end in sorted(ends, key=_first, reverse=True):
        path: list[State] = []
        step: State | None = end
        while step is not None and step not in kept:
            path.append(step)
            step = step.parent
        if step is None:                    # of a trie that was given up: nothing leads there
            continue
        if len(kept) + len(path) > most:
            break
        kept.update(path)
    for state in kept:
        state.edges = {k: e for k, e in state.edges.items() if e.state in kept}
    for state in met - kept:
        # Parent and child know each other: taken apart, they go at once and not with the
        # collector of cycles.  A graph that stands on such a state keeps its path to the root.
        state.edges = {}
    rec.states = len(kept)


def _first(pair: tuple[int, State]) -> int:
    return pair[0]
