"""Anomaly mode: which operation made the first NaN or infinity, and where the user wrote it.

While it is on, every operation that is recorded is noted with its line and module.  When the
graph is run, it is first interpreted step by step, and the values of the noted operations are
looked at: in the order of recording, the first that is wrong is the one at which things went
wrong.  The program then runs as ever, and the error is raised with all values in place.

Nothing of this is there when the mode is off: the notes are taken by the list that a graph keeps
its handles in, which is then an ordinary list.
"""

from __future__ import annotations

import linecache
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from facula.errors import HERE, AnomalyError
from facula.graph.record import Graph, Node, _local
from facula.graph.spec import Step
from facula.runtime.allocator import Buffer
from facula.tensor import Tensor

__all__ = ["detect_anomaly", "set_detect_anomaly", "is_anomaly_enabled",
           "is_anomaly_check_nan_enabled", "AnomalyError"]


class Note(NamedTuple):
    """One operation: its name (None: that of its primitive), line, and modules from outside in."""

    name: str | None
    line: str | None
    modules: tuple[Any, ...]


class Part(NamedTuple):
    """One result of a gradient function, and the forward operation it belongs to."""

    graph: Graph
    step: int
    number: int


class _Handles(list[Any]):
    """A graph's handles, of which each new one is noted."""

    watch: Any = None

    def append(self, node: Any) -> None:
        list.append(self, node)
        self.watch.handed(node)


class Watch:
    """What one thread's recorder carries while the mode is on."""

    def __init__(self, forward: bool, check: bool):
        self.forward = forward
        self.check = check
        self.paused = 0
        self.notes: weakref.WeakKeyDictionary[Graph, dict[int, Note]] = \
            weakref.WeakKeyDictionary()
        self.parts: weakref.WeakKeyDictionary[Graph, dict[int, Part]] = \
            weakref.WeakKeyDictionary()

    # -- told by the recorder
    def begin(self, graph: Graph) -> None:
        """A graph begins, or has begun before the mode was turned on."""
        handles = _Handles(graph.handles)
        handles.watch = self
        graph.handles = handles

    def handed(self, node: Node) -> None:
        """An operation has returned `node`; inside of composites nobody is interested."""
        if not self.paused and not _local.rec.depth:
            self._note(node, sys._getframe(2))

    def made(self, result: Any) -> None:
        """A composite has run for the first time."""
        if self.paused or _local.rec.depth:
            return
        for t in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(t, Tensor):
                self._note(t._node, sys._getframe(2))

    def _note(self, node: Node, frame: Any) -> None:
        graph, index = node.at
        if graph is not None:
            self.notes.setdefault(graph, {})[index] = _describe(frame)

    def pause(self, by: int) -> None:
        """A backward pass begins (1) or ends (-1): what it records is noted by `gradient`."""
        self.paused += by

    def gradient(self, part: Tensor, graph: Graph, index: int, number: int) -> None:
        """The gradient function of step `index` has returned `part` for its input `number`."""
        at, place = part._node.at
        if self.check and at is not None and not at.sealed:
            self.parts.setdefault(at, {}).setdefault(place, Part(graph, index, number))

    # -- told by the flush
    def examine(self, graph: Graph) -> AnomalyError | None:
        """The error of a graph that is about to be run, if there is anything wrong with it."""
        notes = self.notes.get(graph, {}) if self.forward else {}
        parts = self.parts.pop(graph, {})
        wanted = {*notes, *parts}
        if not wanted:
            return None
        steps = graph.path()
        values = _interpreted(steps, graph, wanted)
        for i in sorted(wanted):
            if i not in values:
                continue
            if i in parts and np.isnan(values[i]).any():
                return self._backward(parts[i])
            if i in notes:
                found = self._forward(steps, values, notes, i)
                if found is not None:
                    return found
        return None

    def _forward(self, steps: list[Step], values: dict[int, Any], notes: dict[int, Note],
                 i: int) -> AnomalyError | None:
        """Whether the operation noted at `i` made what its own operands did not have."""
        value = values[i]
        nan, inf = int(np.isnan(value).sum()), int(np.isinf(value).sum())
        if not nan and not inf:
            return None
        operands: list[int] = []
        todo, seen = list(steps[i].inputs), {i}
        while todo:
            j = todo.pop(0)
            if j in seen:
                continue
            seen.add(j)
            if j in notes or not steps[j].inputs:
                operands.append(j)
            else:
                todo.extend(steps[j].inputs)
        brought = [j for j in operands if not np.isfinite(values[j]).all()]
        spoiled = [j for j in operands if np.isnan(values[j]).any()]
        read = ", ".join(str(steps[j].spec) for j in operands)
        name = notes[i].name or steps[i].op
        if spoiled:
            if steps[spoiled[0]].op not in ("leaf", "scalar"):
                return None
            return AnomalyError(f"{name} reads a value that is NaN already: one of {read}\n"
                                + _place(notes[i]))
        if not nan and brought:
            return None
        what = f"NaN in {nan}" if nan else f"inf in {inf}"
        return AnomalyError(f"{name} made {what} of the {value.size} elements of its result "
                            f"{steps[i].spec}, from {read}\n" + _place(notes[i]))

    def _backward(self, part: Part) -> AnomalyError:
        steps = part.graph.path()
        step = steps[part.step]
        notes = self.notes.get(part.graph, {})
        # A primitive inside of a composite belongs to the next result that was handed out.
        after = [k for k in notes if k >= part.step]
        note = notes[min(after)] if after else Note(None, step.where, ())
        function = "".join(p.capitalize() for p in step.op.split("_")) + "Backward0"
        read = ", ".join(str(steps[j].spec) for j in step.inputs)
        name = note.name or step.op
        inside = f" inside {name}" if name != step.op else ""
        return AnomalyError(f"Function '{function}' returned nan values in its {part.number}th "
                            f"output: the gradient of {step.op}({read}){inside}\n"
                            + _place(note))


def _interpreted(steps: list[Step], graph: Graph, wanted: set[int]) -> dict[int, Any]:
    """The values of all steps that `wanted` needs, as far as they can be computed."""
    from facula.ops.table import PRIMS
    from facula.reference.interpreter import evaluate, plan
    values: dict[int, Any] = {}
    for i, node in graph.leaves:
        value = node.value
        values[i] = value.array(steps[i].spec, node.strides) if isinstance(value, Buffer) \
            else value
    done: dict[int, Any] = {}
    with np.errstate(all="ignore"):
        for i in plan(steps, sorted(wanted))[0]:
            if steps[i].op in ("leaf", "scalar"):
                done[i] = values[i]
            try:
                done[i] = evaluate(PRIMS, steps[i], done, i)
            except Exception:           # it is raised again, as ever, when the program runs
                break
    return done


# ---------------------------------------------------------------- where in the user's program

def _describe(frame: Any) -> Note:
    """What the stack says of the operation that is being recorded."""
    name = line = None
    modules = []
    while frame is not None:
        code = frame.f_code
        own = code.co_filename.startswith(HERE)
        if own and name is None:
            name = _operation(frame)
        if line is None and not own and not code.co_filename.startswith("<frozen"):
            line = f"{code.co_filename}:{frame.f_lineno}"
        if own and code.co_name == "__call__":
            module = frame.f_locals.get("self")
            if hasattr(module, "named_modules"):
                modules.append(module)
        frame = frame.f_back
    return Note(name, line, tuple(reversed(modules)))


def _operation(frame: Any) -> str | None:
    """The name of the operation that a frame of facula's own records, as far as it knows."""
    local = frame.f_locals
    head = local.get("head") or local.get("number_head")
    if isinstance(head, tuple) and head:
        head = head[0]
    if head is not None:
        found = getattr(head, "__name__", None) or getattr(head, "name", None)
        return found if isinstance(found, str) else None
    name = local.get("name")
    return name if frame.f_code.co_name == "prim" and isinstance(name, str) else None


def _place(note: Note) -> str:
    lines = []
    if note.modules:
        lines.append(f"  in {_path(note.modules)} ({type(note.modules[-1]).__name__})")
    if note.line is not None:
        file, _, number = note.line.rpartition(":")
        source = linecache.getline(file, int(number)).strip() if number.isdigit() else ""
        lines.append(f"  at {note.line}" + (f": {source}" if source else ""))
    return "\n".join(lines)


def _path(modules: tuple[Any, ...]) -> str:
    """The name of the innermost module as the outermost knows it, such as `Net.layers.0`."""
    root, inner = modules[0], modules[-1]
    for name, module in root.named_modules():
        if module is inner:
            return f"{type(root).__name__}.{name}" if name else type(root).__name__
    return ".".join(type(m).__name__ for m in modules)


# ---------------------------------------------------------------- turning it on and off

def _turn(watch: Watch | None) -> Watch | None:
    """Make `watch` what this thread's operations are noted with; returns what was before."""
    rec = _local.rec
    before: Watch | None = rec.watch
    rec.watch = watch
    handles = list(rec.graph.handles)
    rec.graph.handles = handles
    if watch is not None:
        watch.begin(rec.graph)
    return before


def is_anomaly_enabled() -> bool:
    """Whether anomaly mode is on in this thread."""
    return _local.rec.watch is not None


def is_anomaly_check_nan_enabled() -> bool:
    """Whether gradients are looked at for NaN when the mode is on."""
    watch = _local.rec.watch
    return watch is None or watch.check


class set_detect_anomaly:
    """Turn anomaly mode on or off, at once; as a context manager, put it back at the end.

    With `check_nan` the gradients that every operation's gradient function returns are looked
    at, and the first NaN is an AnomalyError from `backward()` that names the operation, its
    operands' shapes, its module's path, and the line that recorded it.  With `forward`, too, the
    results of the operations themselves: the error names the first that made a NaN or an
    infinity which none of its operands held (or that reads a NaN from outside), and is raised
    where values are asked for or computed.  Everything is interpreted once more, so it is slow;
    calls compiled by `facula.compile` run as they are.
    """

    def __init__(self, mode: bool, check_nan: bool = True, *, forward: bool = False) -> None:
        self.before = _turn(Watch(forward, check_nan) if mode else None)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: Any) -> None:
        _turn(self.before)


class detect_anomaly:
    """A context manager that turns anomaly mode on: see `set_detect_anomaly`."""

    def __init__(self, check_nan: bool = True, *, forward: bool = False) -> None:
        self.check_nan, self.forward = check_nan, forward
        self.before: list[Watch | None] = []
        warnings.warn("Anomaly Detection has been enabled. This mode will increase the runtime "
                      "and should only be enabled for debugging.", stacklevel=2)

    def __enter__(self) -> None:
        self.before.append(_turn(Watch(self.forward, self.check_nan)))

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None and self.forward:
                from facula.graph import record
                record.flush(_local.rec)    # what was recorded in the block is looked at in it
        finally:
            _turn(self.before.pop())

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        import functools

        @functools.wraps(fn)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self:
                return fn(*args, **kwargs)
        return run
