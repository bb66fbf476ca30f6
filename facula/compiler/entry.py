"""What is kept of a captured call, and what its replay calls besides programs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from types import CodeType
from typing import Any

from facula.compiler.capture import MISS, Capture, Place, around, settle
from facula.compiler.world import Unguardable, same
from facula.graph.record import Graph, Node, Recorder
from facula.graph.tape import changes
from facula.runtime.allocator import Buffer
from facula.tensor import Tensor

__all__ = ["Entry", "Late", "EXCLUSIVE", "advance", "flags", "odd", "only_given", "refresh",
           "signed"]


@lru_cache(maxsize=64)
def code(text: str) -> CodeType:
    """A text compiled.  Calls that differ in sizes alone have one text."""
    return compile(text, "<string>", "exec")


class Entry:
    """A call that can be replayed: `replay(args, kwargs, rec)` returns MISS if a guard fails."""

    def __init__(self, capture: Capture):
        self.fn = capture.fn
        self.world = capture.world
        self.exempt = capture.exempt
        self.epoch = capture.epoch
        self.amp = capture.rec.amp
        self.flushes = capture.tape.flushes
        self.others = capture.others
        self.effects = capture.tape.effects
        self.places = capture.positions         # of its arguments among all tensors given
        self.reached = capture.reached
        self.guards: Any = ""           # text, and once it has been asked compiled
        self.scope: dict[str, Any] = {}
        self.written: list[Place] = []
        self.graded: list[Place] = []
        self.replays = 0
        self.saved: tuple[Any, ...] = ()
        self.sizes: tuple[Any, ...] = ()
        self.collect: Callable[..., tuple[tuple[Any, ...], tuple[Any, ...]]]
        self.replay: Callable[[tuple[Any, ...], dict[str, Any], Recorder], Any]
        self.flags: list[Any] = []
        self.guarded: list[tuple[str, Tensor, tuple[Any, ...]]] = []
        self.missed = ""

    def why(self, args: tuple[Any, ...], kwargs: dict[str, Any], rec: Recorder
            ) -> tuple[int, str]:
        """Which guard a call fails: how many came before it, and a sentence."""
        self.missed = ""
        scope = dict(self.scope)
        if isinstance(self.guards, str):
            self.guards = code(self.guards)
        exec(self.guards, scope)
        try:
            far, reason = scope["why"](args, kwargs, rec)
        except Unguardable as error:
            return 0, str(error)
        if far == 1 << 30:
            reason = "the optimiser's state of the parameters no longer goes together"
        return far, reason or "an attribute or item that the call reads is gone"

    def recheck(self) -> bool:
        """Something is not the very object it was: walk over everything and compare.

        If all is equal after all, the quick check is made for the objects of now.
        """
        try:
            epoch = changes[0]
            now = around(self.fn, self.others)
            found = self.world.differences(now, self.exempt)
            for name, t, before in self.guarded:
                if not all(map(same, before, flags(t))):
                    found.append(f"requires_grad, hooks or the memory of {name} changes")
            if not found:
                saved, sizes = self.collect()
                n = len(self.flags)
                for old, new, name in zip(self.saved[:n], saved[:n], self.flags):
                    if not same(old, new):
                        found.append(f"{name} changes from {old!r} to {new!r}")
                        break
        except (Unguardable, LookupError, AttributeError, TypeError) as error:
            self.missed = str(error)
            return False
        if found:
            self.missed = found[0]
            return False
        self.world, self.epoch = now, epoch
        self.saved, self.sizes = saved, sizes
        return True


def only_given(old: Entry, new: Entry) -> set[int]:
    """Positions of arguments that the function can reach, and yet takes from what it is given.

    Two calls were recorded in one and the same world, and differ in which of the tensors that it
    can reach they were given.  If they ran the same programs, over the same values but for these
    arguments, then neither has read its argument by the other way: the other call, whose argument
    was another one, would have read it there as well.  Empty if that cannot be told.
    """
    differ = {n for n, place in new.reached.items() if old.reached.get(n) != place}
    if not differ or old.reached.keys() != new.reached.keys() \
            or len(old.flushes) != len(new.flushes) or len(old.effects) != len(new.effects) \
            or old.world.differences(new.world, old.exempt):
        return set()
    other = {old.reached[n]: new.reached[n] for n in differ}
    touched = {*old.written, *old.graded, *new.written, *new.graded}
    if touched & {*other, *other.values()}:
        return set()
    read: set[Place] = set()
    for f, g in zip(old.flushes, new.flushes):
        if f.program is not g.program or len(f.sources) != len(g.sources):
            return set()
        for a, b in zip(f.sources, g.sources):
            if a[0] == b[0] == "entry" and other.get(a[1]) == b[1]:
                continue
            if a != b:
                return set()
            if a[0] == "entry":
                read.add(a[1])
    return set() if read & {*other, *other.values()} else differ


def flags(t: Tensor) -> tuple[Any, ...]:
    """What `facula.graph.tape.changes` counts changes of, for tensors that are guarded."""
    return t._rg, t._leaf, t._hooks, t._post_hooks, t._path, t._storage


def _refs(t: Any) -> int:
    n = t._node
    return sys.getrefcount(n)


_bare = object.__new__(Tensor)
_bare._node = Node((None, -1), None)                      # type: ignore[arg-type]
EXCLUSIVE = _refs(_bare)
"""What `getrefcount` says of a node that only its tensor and a local variable hold."""


def odd(t: Tensor, n: Any, strides: Any) -> Any:
    """The memory of a value that is not a plain private buffer; None if it does not fit."""
    value = n.value
    if type(value) is not Buffer:
        if value is None:
            return None
        t._memory()
        value = n.value
    if value.shared:
        return value.snapshot(n.spec, n.strides) if strides is None else None
    return value if n.strides == strides else None


def refresh(rec: Recorder, t: Tensor) -> None:
    """An alias has written to the memory of `t` since it was last looked at."""
    t._fresh()
    settle(rec)


def advance(undo: list[Any], bucket: Any, group: Any, states: list[Any], keys: tuple[Any, ...]
            ) -> Any:
    """Count a step of all states, as the optimiser does; MISS if they no longer go together."""
    if keys:
        undo.append((states, keys, [[st[k] for k in keys] for st in states] if len(keys) > 1
                     else [(st[keys[0]],) for st in states]))
    first = bucket(group, states[0])
    if keys:
        for st in states[1:]:
            if bucket(group, st) != first:
                takeback(undo)
                return MISS
    return first


def takeback(undo: list[Any]) -> None:
    """Undo `advance`."""
    for states, keys, before in undo:
        for st, values in zip(states, before):
            for k, v in zip(keys, values):
                st[k] = v


class Late:
    """What a launch has to say if it fails: called by whoever waits for it.

    As after a failed graph (`facula.graph.recover`) what was to be overwritten keeps what stands
    in memory, and what is lost raises the error when it is asked for: `nodes`, and the gradients
    of `owners`, which go.
    """

    __slots__ = ("rec", "owners", "nodes")

    def __init__(self, rec: Recorder, owners: tuple[Tensor, ...]):
        self.rec = rec
        self.owners = owners
        self.nodes: tuple[Any, ...] = ()

    def __call__(self) -> BaseException:
        error = IndexError("index out of range in self (in a compiled call)")
        graph = Graph(self.rec.root, self.rec)
        graph.steps = []
        graph.failure = error
        for node in self.nodes:
            node.value, node.at = None, (graph, 0)
        self.drop()
        return error

    def drop(self) -> None:
        """Forget the gradients."""
        for t in self.owners:
            t._grad = None


def signed(pair: tuple[int, int]) -> tuple[int, int]:
    key, at = pair
    return (key - (1 << 64) if key >> 63 else key), (at - (1 << 64) if at >> 63 else at)

