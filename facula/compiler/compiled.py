"""What `facula.compile` returns: a function that replays its calls where it safely can."""

from __future__ import annotations

import functools
import sys
import types
import weakref
from collections import Counter, deque
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from facula.compiler.capture import MISS, Capture
from facula.compiler.entry import only_given
from facula.compiler.replay import Entry, build
from facula.compiler.text import parameter_names
from facula.config import flag
from facula.graph.record import LOCK, _local
from facula.runtime.interrupts import hold, release
from facula.tensor import Tensor

__all__ = ["compile", "explain", "Compiled"]

MOST_ENTRIES = 8
"""Captured calls that one function keeps: shapes, modes, combinations of arguments."""

PATIENCE = 6
"""Recordings in a row that lead to nothing before capturing is put off."""

MOST_SAID = 64
"""Programs compiled again of which `explain()` tells."""

FIRST_WAIT, LONGEST_WAIT = 64, 4096
"""Calls for which it is put off."""

_all: weakref.WeakSet[Compiled] = weakref.WeakSet()


class Compiled:
    """A callable whose calls are captured.  Made by `facula.compile`.

    `entries` are the captured calls; `replays`, `recordings` and `plain` count how calls went,
    and `reasons` why calls were recorded rather than replayed.
    """

    is_compiled = True

    def __init__(self, fn: Callable[..., Any], fullgraph: bool = False,
                 dynamic: bool | None = None):
        self.fn = fn
        self.fullgraph = fullgraph
        self.dynamic = dynamic
        self.again: deque[str] = deque(maxlen=MOST_SAID)    # why programs were compiled again
        self.made: list[Any] = []           # what is still to be said of them
        self.entries: list[Entry] = []
        self.replays = self.recordings = self.plain = 0
        self.reasons: Counter[str] = Counter()
        self.free: set[int] = set()         # see `only_given`
        self._failures = 0
        self._wait = {True: 0, False: 0}
        self._pause = {True: FIRST_WAIT, False: FIRST_WAIT}
        functools.update_wrapper(self, fn, ("__module__", "__name__", "__qualname__", "__doc__"),
                                 ())
        self.__wrapped__ = fn
        _all.add(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        rec = _local.rec
        if rec.tape is not None or rec.depth or rec.watch is not None:
            self.plain += 1
            return self.fn(*args, **kwargs)
        outer = rec.compiled
        rec.compiled = self
        try:
            held = hold()
            try:
                with LOCK:
                    for entry in self.entries:
                        if entry.amp is not rec.amp:
                            continue
                        out = entry.replay(args, kwargs, rec) if not flag.CHECK_COMPILE \
                            else self._checked(entry, args, kwargs, rec)
                        if out is not MISS:
                            self.replays += 1
                            entry.replays += 1
                            if entry is not self.entries[0]:
                                self.entries.remove(entry)
                                self.entries.insert(0, entry)
                            return out
            finally:
                if held:
                    release()
            if self._wait[rec.grad] <= 0:
                return self._record(rec, args, kwargs)
            self._wait[rec.grad] -= 1
            self.plain += 1
            return self.fn(*args, **kwargs)
        finally:
            rec.compiled = outer
            if self.made:
                self._note(args, kwargs)

    def _note(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Say of programs that were compiled again in a call with these arguments why they were."""
        named: dict[tuple[int, ...], str] = {}
        given = [*zip(parameter_names(self.fn, len(args)), args), *kwargs.items()]
        for name, value in given:
            if isinstance(value, Tensor):
                named.setdefault(tuple(value.shape), name)
        for again in self.made:
            self.again.append(f"{'; '.join(again.reasons(named))} ({again})")
        self.made.clear()

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else types.MethodType(self, owner)

    def _checked(self, entry: Entry, args: tuple[Any, ...], kwargs: dict[str, Any],
                 rec: Any) -> Any:
        if self.replays % flag.CHECK_COMPILE:
            return entry.replay(args, kwargs, rec)
        from facula.compiler.check import checked
        return checked(entry, args, kwargs, rec)

    def _record(self, rec: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        grad = rec.grad
        # Of the calls that it could have been, the one that comes nearest says what was wrong.
        missed = max([entry.why(args, kwargs, rec) for entry in self.entries],
                     key=itemgetter(0), default=None)
        capture = Capture(self.fn, rec, args, kwargs, self.free)
        result = capture.run()
        self.recordings += 1
        if capture.inline:
            self.reasons["its result waits for a backward pass outside of it: it is recorded "
                         "with what follows, so that both become one program"] += 1
            self._put_off(grad)
            return result
        if missed is not None:
            self.reasons[f"recorded again: {missed[1]}"] += 1
        built = build(capture)
        if isinstance(built, Entry):
            for entry in self.entries:
                self.free |= only_given(entry, built)
            self.entries.insert(0, built)
            for old in self.entries[MOST_ENTRIES:]:
                old.replay = _missed            # and so no circle keeps its programs alive
            del self.entries[MOST_ENTRIES:]
            unused = sum(1 for e in self.entries if not e.replays)
            self._failures = self._failures + 1 if unused == MOST_ENTRIES else 0
        else:
            self._failures += 1
            for reason in dict.fromkeys(built[:4]):
                self.reasons[reason] += 1
        if self._failures >= PATIENCE:
            if self.fullgraph:
                raise RuntimeError(f"facula.compile(fullgraph=True): {self._why()}")
            self._put_off(grad)
        return result

    def _put_off(self, grad: bool) -> None:
        self._wait[grad] = self._pause[grad]
        self._pause[grad] = min(2 * self._pause[grad], LONGEST_WAIT)

    def _why(self) -> str:
        return "; ".join(f"{reason}" for reason, _ in self.reasons.most_common(3))

    def explain(self) -> str:
        """How the calls went, and why those that were not replayed were not."""
        name = getattr(self.fn, "__qualname__", type(self.fn).__name__)
        programs = sum(len(e.flushes) for e in self.entries)
        lines = [f"{name}: {self.replays} calls replayed, {self.recordings} recorded, "
                 f"{self.plain} run as they are; {len(self.entries)} captured in "
                 f"{programs} programs"]
        lines += [f"  {n} x {reason}" for reason, n in self.reasons.most_common()]
        lines += [f"  compiled again: {reason}" for reason in self.again]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<facula.compile of {self.fn!r}>"


def _missed(args: tuple[Any, ...], kwargs: dict[str, Any], rec: Any) -> Any:
    """The replay of an entry that has been dropped."""
    return MISS


def compile(model: Any = None, *, fullgraph: bool = False, dynamic: bool | None = None,
            backend: Any = None, mode: str | None = None, options: Any = None,
            disable: bool = False) -> Any:
    """A function, bound method or module whose calls are captured and then replayed.

    `facula.compile(fn)`, `@facula.compile` or `@facula.compile(...)`.  The first calls run the
    function and are recorded.  A later call in the same circumstances checks that they are the
    same, launches the programs, and hands out the results: parameters, gradients, optimiser state,
    counters, random streams and buffers are left exactly as the function would have left them.
    Learning rates and other numbers of an optimiser's step are read anew at each call.

    What a call can depend on is checked at each one: the arguments' structure, shapes, dtypes and
    numbers, the gradient mode, and whatever the function can reach by its names, closure and
    attributes.  When something differs, the call is recorded again; when a call cannot be
    repeated safely (a value was asked for in the middle, something it can reach changes with
    each call), it is run as it is, and `explain()` of the returned object says why.

    Python's effects that cannot be seen from there (printing, writing to files, the time of day)
    happen only when a call is recorded, as under `torch.compile` and `jax.jit`.

    A result that still waits for a backward pass is not captured but recorded with what follows,
    so that forward, backward and update become one program: compile the whole step, or call the
    model under `facula.no_grad()`.

    With `dynamic=None` the first sizes get kernels of their own; when a batch comes with another
    size, its kernels are compiled so that they serve every size from then on, until one of them has
    been met so often that kernels of its own are worth their compilation.  With True this is so
    whichever dimensions change, with False each size gets kernels of its own.  `explain()` lists
    what was compiled again and why.  `mode`, `options` and `backend` are accepted and have no
    effect: there is one compiler.  With `fullgraph` a function that cannot
    be captured raises RuntimeError after some calls.  With `disable` the function is returned.
    """
    if model is None:
        return lambda fn: compile(fn, fullgraph=fullgraph, dynamic=dynamic, disable=disable)
    if disable:
        return model
    if not callable(model):
        raise TypeError(f"facula.compile takes something callable, not {type(model).__name__}")
    if isinstance(model, Compiled):
        return model
    if hasattr(model, "_parameters") and hasattr(model, "_modules"):
        from facula.nn.modules.compiled import CompiledModule
        return CompiledModule(model, Compiled(model, fullgraph, dynamic))
    return Compiled(model, fullgraph, dynamic)


def explain() -> str:
    """How the calls of all compiled functions went, and which programs outside of them were
    compiled although ones that differ only in sizes had been."""
    lines = [c.explain() for c in sorted(_all, key=repr)] or ["nothing is compiled"]
    resized = sys.modules.get("facula.schedule.resized")    # loaded with the first program
    if resized is not None and resized.again:
        lines += [f"compiled again: {'; '.join(one.reasons())} ({one})" for one in resized.again]
    return "\n".join(lines)


compile.explain = explain                       # type: ignore[attr-defined]
