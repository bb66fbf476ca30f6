"""An executable: compiled parts of a program, run over the memory of one launch."""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from facula import config
from facula.graph.runnable import Runnable
from facula.graph.spec import Step
from facula.runtime.allocator import Buffer, changed, empty, from_numpy_private, together
from facula.runtime.jit import statistics
from facula.runtime.program import Program
from facula.schedule import stored
from facula.schedule.compile import Native, Report, build
from facula.schedule.constants import Kept, Split, pair_weights, split
from facula.schedule.folding import folded
from facula.schedule.layout import in_blocks
from facula.schedule.resized import (
    COMPILING,
    Again,
    Family,
    Simple,
    Simplified,
    donations_of,
    family_of,
    simplified,
)
from facula.schedule.segments import Segment
from facula.schedule.simplify import simplify

__all__ = ["Executable", "make_executable"]

_OFTEN = 4.0
"""Kernels that serve any size are replaced once they have run for this many times as long as it
takes to compile others."""


class Executable:
    """What `facula.graph.flush` runs instead of the interpreter: a `Runnable`.

    `steps` are the program's steps after simplification; `parts` its native parts with what NumPy
    computes after each.

    A program that is one met before with other sizes shares kernels with it and with others to
    come (`facula.schedule.resized`), until it has run so often that kernels of its own are worth
    their compilation.  `dynamic` is that of `facula.compile`: with False kernels are never shared,
    with True they are whatever has changed.  `lasting` are leaves that are likely to have the
    same content in many runs: what products read of them is packed when it is another than the
    last time (`facula.schedule.constants.Kept`).  `known` is what simplification has made of the
    steps, where that has been done.
    """

    def __init__(self, steps: Sequence[Step], outputs: Sequence[int], donations: dict[int, int],
                 dynamic: bool | None = None, lasting: frozenset[int] = frozenset(),
                 known: Simplified | None = None):
        self.run: Callable[[list[Any]], list[Buffer]]
        self.run_into: Callable[[list[Any], Any], list[Buffer]]
        self.start: Callable[[list[Any], Any], list[Buffer]] | None = None
        self.start_into: Callable[[list[Any], Any, Any], list[Buffer]] | None = None
        started = time.perf_counter()
        before = dict(statistics)
        self.leaves = [i for i, s in enumerate(steps) if s.op in ("leaf", "scalar")]
        simple = simplified(steps, outputs, donations, known)
        self.steps, self.outputs = simple.steps, simple.outputs
        self.sources = [simple.new[i] for i in self.leaves]
        self.lasting = frozenset(
            [simple.new[i] for i in lasting]) - set(simple.given.values())
        if config.flag.DEBUG >= 3:
            _print_steps(self.steps, self.outputs)
        family = family_of(steps, outputs, donations)
        changes = family.changes(steps)
        self.shared = bool(changes) and dynamic is not False and (
            bool(dynamic) or family.varies(changes))
        self._make(simple, family if self.shared else None, steps)
        if self.shared:
            family.shared = True
            self._until_often(simple)
        self.again: Again | None = None
        if changes:
            made, found = (int(sum(statistics[k] - before[k] for k in names))
                           for names in (["compiled"], ["loaded", "reused"]))
            self.again = Again(changes, family.shapes(steps), self.shared, made, found,
                               time.perf_counter() - started)

    def _make(self, simple: Simple, family: Family | None, steps: Sequence[Step] = ()) -> None:
        """Plan and compile; kernels are shared with the programs of `family`, if one is given,
        to which the program of `steps` belongs."""
        parts = simple.parts
        given = simple.given if len(parts) == 1 else {}
        self.parts = [_Part(part, n, donations_of(part, given), family, steps, self.lasting)
                      for n, part in enumerate(parts)]
        self.start = self.start_into = None
        if len(parts) == 1 and not parts[0].host:
            part = self.parts[0]
            order = [part.names.index(o) for o in self.outputs]
            self.run, self.start, self.run_into, self.start_into = _launchers(
                part, self.sources, order)
        else:
            self.run = self.run_into = self._run_parts

    def _until_often(self, simple: Simple) -> None:
        """Count runs; after as many as are worth it, compile kernels for these very sizes."""
        cost = sum([part.program.cost for part in self.parts if part.program is not None])
        left = 1 + int(_OFTEN * COMPILING * len(self.steps) * 1e9 / max(cost, 1000.0))
        me = weakref.ref(self)          # and so no circle keeps the programs alive

        def counted(name: str, function: Any) -> Any:
            def call(*args: Any) -> list[Buffer]:
                nonlocal left
                left -= 1
                if left > 0:
                    return function(*args)          # type: ignore[no-any-return]
                own = me()
                if own is None:
                    return function(*args)          # type: ignore[no-any-return]
                if own.shared:
                    own.shared = False
                    own._make(simple, None)
                return (getattr(own, name) or function)(*args)   # type: ignore[no-any-return]
            return call

        for name in ("run", "start", "run_into", "start_into"):
            function = getattr(self, name)
            if function is not None:
                setattr(self, name, counted(name, function))

    @property
    def reports(self) -> list[tuple[_Part, Report]]:
        """The kernels of each part, for people."""
        return [(part, report) for part in self.parts if part.native is not None
                for report in part.native.reports]

    @property
    def nbytes(self) -> int:
        """About how much memory goes with it: programs, and some hundred bytes a step."""
        return 1000 * len(self.steps) + sum([part.nbytes for part in self.parts])

    def _run_parts(self, values: list[Any], given: Any = None) -> list[Buffer]:
        known: dict[int, Any] = dict(zip(self.sources, values, strict=True))
        for part in self.parts:
            part.compute(known)
            for i in part.host:
                known[i] = self._host(i, known)
        return [known[o] for o in self.outputs]

    def _host(self, number: int, known: dict[int, Any]) -> Buffer:
        """One step through its NumPy meaning."""
        from facula.ops.table import PRIMS
        step = self.steps[number]
        arrays = []
        for j in step.inputs:
            spec, value = self.steps[j].spec, known[j]
            strides = self.steps[j].attrs[0] if self.steps[j].op == "leaf" else None
            arrays.append(value.array(spec, strides) if isinstance(value, Buffer)
                          else np.asarray(value, spec.dtype.np))
        with np.errstate(all="ignore"):
            out = PRIMS[step.op].numpy(arrays, step.attrs, step.spec)
        array = np.asarray(out, dtype=step.spec.dtype.np)
        return from_numpy_private(np.ascontiguousarray(array).reshape(step.spec.shape))


class _Part:
    """A native part made executable; `program` is None where there is nothing to compute."""

    def __init__(self, segment: Segment, index: int, given: dict[int, int],
                 family: Family | None, steps: Sequence[Step], lasting: frozenset[int]):
        self.steps = segment.steps
        self.names = segment.names
        self.host = segment.host
        self.native: Native | None = None
        self.program: Program | None = None
        self.kept: Kept | None = None
        if not segment.outputs:
            return
        # the copies belong to one program, and kernels that serve several have none
        last = frozenset([n for n, i in segment.inputs.items() if i in lasting]) \
            if family is None else frozenset()
        key = stored.key_of(segment.steps, segment.outputs, given, family is not None, last)
        known = stored.load(key) if key is not None else None
        if known is not None:
            self.native, kernels = known
        else:
            kernels = None
            self.native = family.plan(index, segment, given, steps) if family is not None else \
                build(segment.steps, segment.outputs, given, last)
        # arguments by the numbers of the whole program
        self.own = {segment.inputs[n]: segment.steps[n] for n, _ in self.native.inputs}
        self.inputs = [(segment.inputs[n], part) for n, part in self.native.inputs]
        self.results = [(size, None if leaf is None else segment.inputs[leaf])
                        for size, leaf in self.native.outputs]
        if self.native.plan.phases:
            self.program = Program(self.native.plan, kernels)
            if key is not None and known is None:
                stored.store(key, self.native, self.program.kernels)
        # what is kept is made of these, by the numbers of the whole program
        self.packed = [segment.inputs[n] for n in dict(self.native.kept)]
        if self.native.kept:
            self.kept = Kept(self._prepare)
        self.native = replace(self.native, plan=self.native.plan.without_text())
        if self.program is not None:
            self.program.origin = (self.steps, self.native)

    @property
    def nbytes(self) -> int:
        """Memory that goes with it."""
        kept = 0 if self.native is None else sum([size for _, size in self.native.kept])
        return kept + (0 if self.program is None else self.program.nbytes)

    def _prepare(self, values: list[Any]) -> list[Buffer]:
        """Pack the leaves `packed`, whose memory is given."""
        assert self.native is not None and self.program is not None
        of = dict(zip(self.packed, values, strict=True))
        made = [empty(size) for _, size in self.native.kept]
        args = [of[i].ptr if i in of else 0 for i, _ in self.inputs]
        views = [0] * len(self.native.views)
        args += [0] * (len(self.native.plan.arguments) - len(args) - len(made) - len(views))
        if self.program.prepare([*args, *(b.ptr for b in made), *views]):
            raise _out_of_range(self.steps)
        return made

    def compute(self, known: dict[int, Any]) -> None:
        """Run with the values in `known`, and add the results to it."""
        if self.native is None:
            return
        args = [_argument(known[i], part) for i, part in self.inputs]
        kept = self.kept.of([known[i] for i in self.packed]) if self.kept is not None else []
        for name, (size, leaf) in zip(self.names, self.results, strict=True):
            known[name] = known[leaf] if leaf is not None else empty(size)
            changed(known[name])
            if leaf is None:
                args.append(known[name].ptr)
        args += [b.ptr for b in kept]
        args += [known[self.names[k]].ptr + byte for k, byte in self.native.views]
        if self.program is not None and self.program.run(args):
            raise _out_of_range(self.steps)


def _argument(value: Any, part: int) -> Any:
    if type(value) is Buffer:
        return value.ptr
    if type(value) is complex:
        return value.imag if part else value.real
    return value


def _launchers(part: _Part, sources: list[int], order: list[int]
               ) -> tuple[Any, Any, Any, Any]:
    """(run, start) of a single part, each as one straight-line function.

    A step runs thousands of times: what each argument is has been settled, so the functions that
    gather them are written out once instead of deciding it anew at every launch.  The second pair
    also takes memory for each output, or None where new memory is to be used.
    """
    place = {source: k for k, source in enumerate(sources)}
    args, lines, reused, names, written = [], [], [], [], []
    if part.native is not None:
        for i, half in part.inputs:
            step = part.own[i]
            if step.op == "leaf":
                args.append(f"v[{place[i]}].ptr")
            elif step.spec.dtype.kind == "c":
                args.append(f"complex(v[{place[i]}]).{'imag' if half else 'real'}")
            else:
                args.append(f"v[{place[i]}]")
        for k, (size, leaf) in enumerate(part.results):
            names.append(f"o{k}" if leaf is None else f"v[{place[leaf]}]")
            if leaf is not None:
                written.append(f"    if v[{place[leaf]}].stamp: changed(v[{place[leaf]}])")
            if leaf is None:
                lines.append(f"    o{k} = empty({size})")
                at = [p for p, name in enumerate(order) if name == k]
                reused.append(f"    o{k} = w[{at[0]}] or empty({size})" if len(at) == 1
                              else lines[-1])
                if len(at) == 1:
                    reused.append(f"    if o{k}.stamp: changed(o{k})")
                args.append(f"o{k}.ptr")
    lines, reused = lines + written, reused + written
    made = [n for n in names if n.startswith("o")]
    if part.kept is not None and part.native is not None:
        # before anything is written: it is made of what the leaves hold until then
        first = f"    p = kept([{', '.join(f'v[{place[i]}]' for i in part.packed)}])"
        lines, reused = [first, *lines], [first, *reused]
        args += [f"p[{n}].ptr" for n in range(len(part.native.kept))]
        made.append("p")
    if part.native is not None:
        args += [f"{names[k]}.ptr + {byte}" for k, byte in part.native.views]
    found = f"[{', '.join(names[k] for k in order)}]"
    given = f"({', '.join(args)}{',' if args else ''})"
    launch = [f"    if launch({given}):", "        raise failure(steps)"]
    begin = [f"    if not begin({given}, (v, {', '.join(made)}), failed):",
             *["    " + x for x in launch]]
    done = [f"    return {found}"]
    waits = launch if part.program is not None else []
    text = ["def run(v):", *lines, *waits, *done, "def run_into(v, w):", *reused, *waits, *done]
    scope: dict[str, Any] = {"empty": empty, "changed": changed, "failure": _out_of_range,
                             "steps": part.steps, "start": None, "start_into": None}
    if part.kept is not None:
        scope["kept"] = part.kept.of
    if part.program is not None:
        scope["launch"], scope["begin"] = part.program.run, part.program.begin
        text += ["def start(v, failed):", *lines, *begin, *done,
                 "def start_into(v, w, failed):", *reused, *begin, *done]
    exec("\n".join(text), scope)
    # Taken out of the scope they live in, which they would otherwise keep alive in a circle.
    return scope.pop("run"), scope.pop("start"), scope.pop("run_into"), scope.pop("start_into")


def _out_of_range(steps: Sequence[Step]) -> IndexError:
    """The error of a kernel that met an index outside its tensor; names the candidates."""
    places = sorted({s.where for s in steps if s.where and s.op in (
        "take", "gather", "scatter", "index_put")})
    text = f" (indexing at {', '.join(places)})" if places else ""
    return IndexError(f"index out of range in self{text}")


def _print_steps(steps: Sequence[Step], outputs: Sequence[int]) -> None:
    print("facula: steps after simplification", file=sys.stderr)
    for i, step in enumerate(steps):
        mark = "*" if i in outputs else " "
        print(f"facula: {mark} %{i} = {step!r}", file=sys.stderr)


class _Halved:
    """An executable in two: what is made of parameters alone, and the rest.

    A `Runnable`, too; see `facula.schedule.constants`.
    """

    def __init__(self, parts: Split, dynamic: bool | None):
        self.head = Executable(parts.head, parts.kept, {})
        self.tail = tail = Executable(parts.tail, parts.outputs, {}, dynamic,
                                      pair_weights(parts.tail))
        self.kept = kept = Kept(self._make)
        self.steps, self.outputs = tail.steps, tail.outputs
        self.leaves, self.rest = parts.leaves, parts.rest
        self.again = tail.again

        def given(v: list[Any]) -> list[Any]:
            return [*[v[i] for i in self.rest], *kept.of([v[i] for i in self.leaves])]

        self.run: Callable[[list[Any]], list[Buffer]] = lambda v: tail.run(given(v))
        self.run_into: Callable[[list[Any], Any], list[Buffer]] = \
            lambda v, w: tail.run_into(given(v), w)
        self.start: Callable[[list[Any], Any], list[Buffer]] | None = None
        self.start_into: Callable[[list[Any], Any, Any], list[Buffer]] | None = None
        if tail.start is not None:
            self.start = lambda v, failed: tail.start(given(v), failed)     # type: ignore[misc]
        if tail.start_into is not None:
            self.start_into = lambda v, w, failed: tail.start_into(        # type: ignore[misc]
                given(v), w, failed)

    def _make(self, values: list[Any]) -> list[Buffer]:
        """What is kept, made of the parameters."""
        head = self.head
        if head.start_into is None:
            return head.run(values)
        return head.run_into(values, together(self._sizes()))

    def _sizes(self) -> list[int]:
        return [s.numel * s.dtype.itemsize
                for s in [self.head.steps[o].spec for o in self.head.outputs]]

    @property
    def parts(self) -> list[_Part]:
        return [*self.head.parts, *self.tail.parts]

    @property
    def reports(self) -> list[tuple[_Part, Report]]:
        """The kernels of each part, for people: those that every run has."""
        return self.tail.reports

    @property
    def nbytes(self) -> int:
        """About how much memory goes with it."""
        return self.head.nbytes + self.tail.nbytes + sum(self._sizes())


def _in_pairs(steps: Sequence[Step]) -> bool:
    """Whether a program has no gradients and convolutions of bfloat16, whose weights are worth
    keeping as they are read."""
    ops = {s.op for s in steps}
    return config.flag.LAYOUT and ops.isdisjoint(("conv_input", "conv_weight")) and any(
        s.op == "conv" and steps[s.inputs[1]].spec.dtype.name == "bfloat16" for s in steps)


def make_executable(steps: Sequence[Step], outputs: Sequence[int],
                    donations: dict[int, int], dynamic: bool | None = None,
                    lasting: frozenset[int] = frozenset()) -> Runnable:
    """Compile a program; see `facula.graph.flush.make_executable`."""
    if donations or not any(s.op == "conv" for s in steps) or any(s.mask for s in steps):
        return Executable(steps, outputs, donations, dynamic, lasting)
    made = simplify(steps, outputs)
    simple, wanted, places = folded(made[0], made[2])
    found = in_blocks(simple, wanted)
    if found is None and _in_pairs(simple):
        found = simple, wanted, {i: i for i, s in enumerate(simple) if s.op in ("leaf", "scalar")}
    parts = None if found is None else split(*found[:2])
    if found is None or parts is None:
        return Executable(steps, outputs, donations, dynamic, lasting | pair_weights(steps), made)
    # leaves by their place among those of the program as it was recorded
    leaf = {places[made[1][i]]: k for k, i in enumerate(
        [i for i, s in enumerate(steps) if s.op in ("leaf", "scalar")])}
    old = {n: leaf[simple_] for n, simple_ in found[2].items()}
    parts.leaves = [old[i] for i in parts.leaves]
    parts.rest = [old[i] for i in parts.rest]
    return _Halved(parts, dynamic)
