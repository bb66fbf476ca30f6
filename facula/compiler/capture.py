"""Capturing: one call is recorded, and what came of it is told from what was there before."""

from __future__ import annotations

import random
import sys
import weakref
from collections.abc import Callable, Set
from typing import Any

from facula.compiler.world import ATOMS, Unguardable, World, look
from facula.graph import flush as _flush
from facula.graph.record import FREED, Recorder
from facula.graph.tape import Tape, Update, changes, unwatch, watch
from facula.runtime import flight
from facula.runtime.allocator import Buffer
from facula.tensor import Tensor

__all__ = ["Capture", "around", "freed", "settle", "MISS"]

MISS: Any = type("Miss", (), {"__repr__": lambda self: "MISS"})()
"""What a replay returns when a guard does not hold."""

Place = tuple[str, int]
"""('T', i): the i-th tensor of the world; ('A', j): of the arguments; 'TG', 'AG': its `.grad`."""


def settle(rec: Recorder) -> None:
    """Leave nothing pending: no value waits, no graph holds on to a leaf, nothing runs."""
    graph = rec.graph
    if graph.handles:
        _flush.flush(rec)
    if flight.current is not None:
        flight.finish()
    graph = rec.graph
    if graph.leaves:
        rec.fresh_graph()
        _flush._clear(graph)


class Before:
    """What a tensor was when the call began.  The node is held weakly: held, it could not be
    overwritten in place, and the program would be another."""

    __slots__ = ("node", "version", "storage", "storage_version", "rg", "leaf", "grad", "strides",
                 "spec")

    def __init__(self, t: Tensor):
        self.node = weakref.ref(t._node)
        self.version = t._version
        self.storage = t._storage
        self.storage_version = t._storage.version if t._storage is not None else 0
        self.rg = t._rg
        self.leaf = t._leaf
        self.grad = t._grad
        self.strides = t._node.strides
        self.spec = t._node.spec


def _tensors(value: Any, found: list[Tensor], other: list[Any]) -> None:
    """The tensors of nested containers in order, each once; whatever is not a container."""
    if isinstance(value, Tensor):
        if not any(value is t for t in found):
            found.append(value)
    elif isinstance(value, (list, tuple)):
        for v in value:
            _tensors(v, found, other)
    elif type(value) is dict:
        for v in value.values():
            _tensors(v, found, other)
    elif type(value) not in ATOMS:
        other.append(value)


class Capture:
    """One recorded call.  `reasons` says why it cannot be replayed; empty if it can.

    `given` are the tensors among the arguments, and `positions` where they stand among them all.
    A tensor that the function can reach without being given it is one of its world instead
    (`reached`, by position), unless its position is in `free`: see `Compiled`.
    """

    def __init__(self, fn: Callable[..., Any], rec: Recorder, args: tuple[Any, ...],
                 kwargs: dict[str, Any], free: Set[int] = frozenset()):
        self.free = free
        self.labels: dict[Place, str] = {}
        self.fn = fn
        self.rec = rec
        self.args = args
        self.kwargs = kwargs
        self.reasons: list[str] = []
        self.inline = False
        self.exempt: set[tuple[int, Any]] = set()

    def run(self) -> Any:
        """Record the call; returns what the function returns."""
        rec, fn = self.rec, self.fn
        settle(rec)
        self.given: list[Tensor] = []
        self.others: list[Any] = []
        _tensors(list(self.args), self.given, self.others)
        _tensors(self.kwargs, self.given, self.others)
        try:
            self.world = around(fn, self.others)
        except Unguardable as error:
            self.reasons.append(str(error))
            return fn(*self.args, **self.kwargs)
        self.reachable = {id(t): i for i, t in enumerate(self.world.tensors)}
        found, self.given = self.given, []
        self.positions: list[int] = []
        self.reached: dict[int, Place] = {}
        for n, t in enumerate(found):
            i = self.reachable.get(id(t))
            if i is None or n in self.free:
                self.given.append(t)
                self.positions.append(n)
            else:
                self.reached[n] = "T", i
        mine = set(map(id, self.given))
        for t in (*self.world.tensors, *self.given):
            t._fresh()
        settle(rec)
        self.places: dict[Place, Tensor] = {}
        known = self.reachable.keys() | mine
        for kind, group in (("T", self.world.tensors), ("A", self.given)):
            for i, t in enumerate(group):
                if kind == "T" and id(t) in mine:
                    continue
                self.places[kind, i] = t
                if t._grad is not None and id(t._grad) not in known:
                    known.add(id(t._grad))
                    t._grad._fresh()
                    self.places[f"{kind}G", i] = t._grad
        settle(rec)
        self.before: dict[Place, Before] = {}
        self.aliases: list[tuple[Place, Place]] = []
        entry: dict[int, tuple[Any, tuple[Any, ...]]] = {}
        for place, t in sorted(self.places.items(), key=_order):
            if type(t._node.value) is not Buffer:
                t._memory()
            self.before[place] = Before(t)
            key = id(t._node)
            if key in entry:
                self.aliases.append((entry[key][1][1], place))
            else:
                entry[key] = (weakref.ref(t._node), ("entry", place))
        self.epoch = changes[0]
        self.grad_mode = rec.grad
        drawn = random.getstate()
        arrays = _numpy_state()
        self.tape = tape = Tape(entry)
        watch(self.world.watched)
        rec.tape = tape
        reads: dict[int, set[Any]] = {}
        try:
            try:
                result = fn(*self.args, **self.kwargs)
            finally:
                reads = unwatch(self.world.watched)
            if self._history(result):
                self.inline = True
                return result
            for place, t in self.places.items():
                if not t._path:
                    t._fresh()
            _flush.flush(rec)
        finally:
            rec.tape = None
        settle(rec)
        self.reasons += tape.reasons
        if random.getstate() != drawn or _numpy_state() != arrays:
            self.reasons.append("Python's or NumPy's random numbers were drawn")
        if rec.grad is not self.grad_mode:
            self.reasons.append("the gradient mode is not the one it began with")
        self.result = result
        self._exempt(reads)
        try:
            after = around(fn, self.others)
        except Unguardable as error:
            self.reasons.append(str(error))
            return result
        self.reasons += self.world.differences(after, self.exempt)
        return result

    def _history(self, result: Any) -> bool:
        """Does a result wait for a backward pass that comes after the call?"""
        found: list[Tensor] = []
        _tensors(result, found, [])
        for t in found:
            t._fresh()
            node = t._node
            graph, index = node.at
            if t._rg and not t._leaf and node.value is None and graph is self.rec.graph \
                    and index not in graph.freed:
                return True
        return False

    def _exempt(self, reads: dict[int, set[Any]]) -> None:
        """Numbers that nobody reads but a replayed part of an optimiser's step need no guard."""
        for table in self.world.watched:
            read = reads.get(id(table), ())
            self.exempt.update((id(table), k) for k, v in table.items()
                               if k not in read and _number(v))
        for effect in self.tape.effects:
            if not isinstance(effect, Update):
                continue
            if id(effect.group) not in self.world.seen or any(
                    st is not None and id(st) not in self.world.seen for st in effect.states):
                self.reasons.append(f"{type(effect.optimizer).__name__} was at its first step, or "
                                    "cannot be reached from the function's names")


def around(fn: Callable[..., Any], others: list[Any]) -> World:
    """The world of a function and of the objects among its arguments."""
    extra = [(f"argument {type(o).__name__}", o) for o in others]
    # Hooks that are called for every module and optimiser belong to every function's world.
    modules = getattr(sys.modules.get("facula.nn.modules.hooks"), "GLOBAL", None)
    for name in getattr(modules, "__slots__", ()):
        extra.append((f"hooks.{name}", getattr(modules, name)))
    steps = sys.modules.get("facula.optim.optimizer")
    if steps is not None:
        extra += [("hooks.step_pre", steps._PRE), ("hooks.step_post", steps._POST)]
    return look(fn, extra)


def _order(item: tuple[Place, Tensor]) -> tuple[int, int]:
    return ("T", "A", "TG", "AG").index(item[0][0]), item[0][1]


def _number(value: Any) -> bool:
    return type(value) in (int, float) or type(value) is tuple and all(map(_number, value))


def _numpy_state() -> Any:
    """The state of NumPy's global generator, comparable; None where it is not loaded."""
    module = sys.modules.get("numpy.random")
    if module is None:
        return None
    kind, keys, *rest = module.get_state()
    return kind, keys.tobytes(), rest


def freed(node: Any) -> bool:
    """Is this the value of a graph that a backward pass has used up?"""
    origin = node.origin
    return origin is FREED or origin is not None and len(origin) == 2 \
        and origin[1] in origin[0].freed
