"""What `facula.compile` watches while a call is recorded, and where the watched report it.

A `Tape` lies in a recorder for the length of one call.  The flushes of that call, the numbers
that optimisers computed for it and the random numbers that it drew are written on it, each with
where its values came from.  Whatever a later call could not do again without running Python is
refused: the call is then an ordinary one, and the reason is kept for `explain()`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from facula.errors import user_line

__all__ = ["Tape", "Flushed", "Update", "Draw", "Watched", "changes", "watch", "unwatch"]

changes = [0]
"""Counts the attributes that modules have been given: equal counts mean equal modules."""


class Watched(dict[Any, Any]):
    """A dictionary whose reads a tape can see; otherwise an ordinary one."""

    __slots__ = ()


_reads: dict[int, set[Any]] = {}
_free: list[bool] = [False]         # reads that are repeated at every replay are not written down


class _Watching(Watched):
    """A `Watched` while a tape looks."""

    __slots__ = ()

    def _read(self, key: Any) -> None:
        if not _free[0]:
            _reads.setdefault(id(self), set()).add(key)

    def __getitem__(self, key: Any) -> Any:
        self._read(key)
        return dict.__getitem__(self, key)

    def get(self, key: Any, default: Any = None) -> Any:
        self._read(key)
        return dict.get(self, key, default)

    def __iter__(self) -> Any:
        for key in dict.__iter__(self):
            self._read(key)
            yield key

    def keys(self) -> Any:
        for key in dict.__iter__(self):
            self._read(key)
        return dict.keys(self)

    def values(self) -> Any:
        self.keys()
        return dict.values(self)

    def items(self) -> Any:
        self.keys()
        return dict.items(self)

    def copy(self) -> Any:
        self.keys()
        return dict.copy(self)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        self._read(key)
        return dict.setdefault(self, key, default)

    def pop(self, key: Any, *default: Any) -> Any:
        self._read(key)
        return dict.pop(self, key, *default)


def watch(tables: Sequence[Watched]) -> None:
    """Begin to see which keys of these dictionaries are read."""
    _reads.clear()
    for table in tables:
        table.__class__ = _Watching


def unwatch(tables: Sequence[Watched]) -> dict[int, set[Any]]:
    """Stop; the keys that were read, by the dictionary's id."""
    for table in tables:
        table.__class__ = Watched
    return {k: set(v) for k, v in _reads.items()}


def _gone() -> None:
    """A reference to the node of a value that was kept without one."""


class Flushed(NamedTuple):
    """One program that ran, and the state whose path is what was recorded.

    `sources` says for each of its leaves where the value came from; `made` has for each value
    that was still wanted (weak reference to its node, output, whether it is a second handle on
    the same output).  `donated` are the positions of the leaves whose memory outputs took over.
    """

    program: Any
    state: Any
    sources: list[tuple[Any, ...]]
    made: list[tuple[Any, int, bool]]
    donated: set[int]


class Update(NamedTuple):
    """One group's numbers: `optimizer.numbers(group, bucket)` of these parameters' states."""

    optimizer: Any
    group: Any
    states: list[Any]


class Draw(NamedTuple):
    """`words` numbers of 32 bits that were taken from a generator."""

    generator: Any
    words: int


class Tape:
    """One call as it was recorded.

    `entry` has the nodes that values from outside stood on: id -> (weak reference, name).
    """

    def __init__(self, entry: dict[int, tuple[Any, tuple[Any, ...]]]):
        self.entry = entry
        self.reasons: list[str] = []
        self.flushes: list[Flushed] = []
        self.effects: list[Update | Draw] = []
        self.labels: dict[int, tuple[Any, ...]] = {}
        self.made: dict[int, tuple[Any, tuple[Any, ...]]] = {}
        self.snapshots: dict[int, tuple[Any, tuple[Any, ...]]] = {}
        self.memory: dict[int, tuple[Any, tuple[Any, ...]]] = {}
        self.drawn: list[int] = []          # the effects that draws were, in order
        self.again: list[int] = []          # those of them that are about to be repeated
        self.numbers: list[Any] = []        # number leaves, kept so that their ids stay theirs

    def refuse(self, reason: str) -> None:
        """This call cannot be repeated without running it."""
        where = user_line(2)
        self.reasons.append(f"{reason} ({where})" if where else reason)

    # -- reported by those who are watched
    def freely(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call what every replay will call too: what it reads need not be guarded."""
        before, _free[0] = _free[0], True
        try:
            return fn(*args)
        finally:
            _free[0] = before

    def update(self, optimizer: Any, group: Any, states: list[Any], values: Sequence[Any]) -> int:
        """An optimiser has computed the numbers of a group; returns the number of this update."""
        if any(not isinstance(v, (int, float)) for v in values):
            self.refuse(f"{type(optimizer).__name__} takes a number of its step from a tensor")
        self.effects.append(Update(optimizer, group, states))
        return len(self.effects) - 1

    def label(self, node: Any, effect: int, part: int) -> None:
        """`node` is the number `part` of an effect."""
        self.labels[id(node)] = ("number", effect, part)
        self.numbers.append(node)

    def draw(self, generator: Any, words: int, key: Any, position: Any) -> None:
        """Random numbers were taken, and these nodes say from where in the stream."""
        if self.again:                      # the same numbers, by a checkpoint's second call
            effect = self.again.pop(0)
            if self.effects[effect] != Draw(generator, words):
                self.refuse("a checkpointed function draws other random numbers the second time")
        else:
            effect = len(self.effects)
            self.effects.append(Draw(generator, words))
        self.drawn.append(effect)
        self.label(key, effect, 0)
        self.label(position, effect, 1)

    def snapshot(self, taken: Any, node: Any) -> None:
        """`taken` holds a copy of memory that somebody outside can write to."""
        self.snapshots[id(taken)] = (weakref.ref(taken), self.source(node))

    def flushed(self, graph: Any, program: Any, alive: list[Any], copies: bool,
                buffers: list[Any]) -> None:
        """A program has run, and filled the `buffers`."""
        if copies:
            self.refuse("a tensor whose memory NumPy shares was written to")
        sources = [self.source(node) for _, node in graph.leaves]
        for source, (index, node) in zip(sources, graph.leaves, strict=True):
            if source[0] == "unknown":
                self.refuse(f"a tensor of shape {list(node.spec.shape)} was made from values that "
                            "are not facula's: make it outside, and pass it as an argument "
                            "(what an optimiser makes at its first step, the next call finds)")
            elif source[0] == "constant":
                self.numbers.append(node)
        place = {index: k for k, (index, _) in enumerate(graph.leaves)}
        made: list[tuple[Any, int, bool]] = [
            (weakref.ref(node), slot, twice) for node, slot, twice in
            zip(alive, program.slots, program.twice, strict=True)]
        number = len(self.flushes)
        for k, (ref, _, _) in enumerate(made):
            self.made[id(alive[k])] = (ref, ("made", number, k))
        if program.history is not None:     # what a backward pass later in the call will read
            slots = {index: slot for slot, index in enumerate(program.outputs)}
            for slot in sorted(slots[i] for i in program.keep if i in slots):
                self.memory[id(buffers[slot])] = (buffers[slot], ("made", number, len(made)))
                made.append((_gone, slot, False))
        self.flushes.append(Flushed(program, graph.state, sources, made,
                                    {place[leaf] for leaf in program.donations.values()}))

    def source(self, node: Any) -> tuple[Any, ...]:
        """Where the value of a node came from."""
        key = id(node)
        for table in (self.made, self.entry):
            found = table.get(key)
            if found is not None and found[0]() is node:
                return found[1]
        if not hasattr(node.value, "shared"):
            label = self.labels.get(key)
            return label if label is not None else ("constant", node.value)
        taken = self.snapshots.get(key)
        if taken is not None and taken[0]() is node:
            return taken[1]
        kept = self.memory.get(id(node.value))
        if kept is not None and kept[0] is node.value and node.strides is None:
            return kept[1]
        return ("unknown",)
