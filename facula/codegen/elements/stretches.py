"""Loops over a grid with guarded dimensions, cut into stretches.

What is read through windows (the taps of a pooling, padding, the gradient of a slice) lies outside
of memory in some rounds of a loop.  To ask at every element costs more than what is computed of it,
and where elements have to be asked for no vector of neighbours is loaded.  So each such dimension
is cut into the stretch in which nothing lies outside, and what is before and after it: three by
three loops for the nine taps of a pooling of images, and in the middle one, which is nearly all,
every tap is a vector at a fixed distance.

In the gradient of strided windows which taps reach an element depends on its rest by the stride.
There the middle stretch goes by as many elements at a time, each written out with taps of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import prod
from typing import NamedTuple

from facula.codegen.elements.nest import (
    FEW_LANES,
    SHORT,
    Nest,
    affine,
    bounds,
    offsets,
    picks,
    rows_per_tile,
    written_out,
)
from facula.codegen.elements.writer import KernelWriter
from facula.codegen.kernel import KernelText, Storage
from facula.codegen.target import target
from facula.graph.spec import Step
from facula.groups.group import Group
from facula.groups.index import Index, Var, loop_var, unflatten, variables

__all__ = ["emit_stretches"]

LEAST = 2048
"""Elements below which one loop that asks does."""

MOST_BODIES, MOST_TAPS = 27, 400
"""How often the body of the loops is written at most, and so many accesses in all of them."""

FEW_LINES, LONG = 8, 20_000.0
"""Fewer lines than this are no work for several threads, where they take so many nanoseconds."""

MOST_APART = 4
"""The largest stride by which a stretch is walked."""


MASKED = 512
"""Of so many rounds and more, those after the last whole vector are no matter."""


class Stretch(NamedTuple):
    """The rounds from `first` up to `stop` of a dimension, `step` of them at a time."""

    first: int
    stop: int
    step: int = 1


def emit_stretches(writer: KernelWriter, steps: Sequence[Step], group: Group,
                   storage: Callable[[int], Storage | None], cost: float) -> KernelText | None:
    """The kernel of an elementwise group whose dimensions are worth cutting; None where none is.
    """
    stages = {(i.stage, i.role) for i in group.items}
    if group.columns or len(stages) != 1 or prod(group.rows) < LEAST:
        return None
    cut = _cut(group, offsets(steps, group, storage, group.row_vars(), []))
    if not cut:
        return None
    grid = _Grid(writer, steps, group, storage, cut)
    count = prod(group.rows[:grid.last])
    if count < FEW_LINES and cost * prod(group.rows) > LONG:
        return None
    return grid.emit(count, cost)


def _cut(group: Group, touched: Sequence[Index]) -> dict[int, list[Stretch]]:
    """The stretches of each row dimension that is cut: the last ones of those that can be."""
    found: dict[int, list[Stretch]] = {}
    bodies = 1
    guards, quotients = _parts(touched, "clamp"), _parts(touched, "div")
    for d in reversed(range(len(group.rows))):
        variable, n = group.row_vars()[d], group.rows[d]
        if not variable.terms:
            continue
        var = variable.terms[0][0]
        steps = {by for index, by in quotients if var in variables(index)}
        first, stop = _inside(guards, var, n)
        step = steps.pop() if len(steps) == 1 else 1
        if steps or step > MOST_APART:
            continue
        stop -= (stop - first) % step
        if first == 0 and stop == n and step == 1 or 2 * (stop - first) < n:
            continue
        parts = [Stretch(first, stop, step)]
        if first > 0:
            parts.insert(0, Stretch(0, first))
        if stop < n:
            parts.append(Stretch(stop, n))
        bodies *= sum([part.step for part in parts])
        if bodies > MOST_BODIES or bodies * len(touched) > MOST_TAPS * step:
            break
        found[d] = parts
    return found


def _parts(touched: Sequence[Index], kind: str) -> set[tuple[Index, int]]:
    """(i, n) of all that is of this kind in indices: for 'clamp', asked whether 0 <= i < n."""
    found: set[tuple[Index, int]] = set()
    stack: list[object] = list(touched)
    while stack:
        item = stack.pop()
        if isinstance(item, Index):
            stack.extend(v for v, _ in item.terms)
        elif isinstance(item, Var) and item.kind != "loop":
            if item.kind == kind:
                found.add((item.args[0], item.args[1]))
            stack.extend(item.args)
        elif isinstance(item, tuple):
            stack.extend(item)
    return found


def _inside(guards: set[tuple[Index, int]], var: Var, rounds: int) -> tuple[int, int]:
    """From which round up to which one of a loop every guard of its variable alone holds."""
    first, stop = 0, rounds
    for index, n in guards:
        if len(index.terms) != 1 or index.terms[0][0] != var:
            continue
        step, at = index.terms[0][1], index.offset
        if step > 0:                # 0 <= step * i + at < n
            first, stop = max(first, -(at // step)), min(stop, -((at - n) // step))
        else:
            first, stop = max(first, (at - n) // -step + 1), min(stop, at // -step + 1)
    return first, stop


class _Grid:
    """The loops of one kernel: over lines, of which each is the dimensions from the last on that
    is cut, and over the stretches of a line."""

    def __init__(self, writer: KernelWriter, steps: Sequence[Step], group: Group,
                 storage: Callable[[int], Storage | None], cut: dict[int, list[Stretch]]):
        self.writer, self.steps, self.group, self.storage = writer, steps, group, storage
        self.cut, self.last = cut, max(cut)
        self.stage = group.items[0].stage
        self.size = max(steps[i.step].spec.dtype.itemsize for i in group.items)

    def emit(self, count: int, cost: float) -> KernelText:
        writer, rows = self.writer, self.group.rows
        em = writer.emitter
        chunk = rows_per_tile(count, cost * prod(rows[self.last:]))
        ntiles = -(-count // chunk)
        line = loop_var("p", count, 0)
        low, high = bounds(writer, "%tile", chunk, count, ntiles)
        with writer.fn.loop(low, high, hint="p") as p:
            em.open()
            if line.terms:
                em.names[line.terms[0][0]] = p
            outer = list(unflatten(line, rows[:self.last]))
            self._choose([d for d in sorted(self.cut) if d < self.last], outer)
            em.close()
        return writer.finish(ntiles, cost * prod(rows))

    def _choose(self, left: list[int], outer: list[Index]) -> None:
        """The stretches that a line is in, of the dimensions `left`; then the line itself."""
        if not left:
            for stretch in self.cut[self.last]:
                self._line(outer, stretch)
            return
        fn, em, d = self.writer.fn, self.writer.emitter, left[0]
        here = em.index(outer[d])
        for first, stop, step in self.cut[d]:
            tests = []
            if first > 0:
                tests.append(fn.val(f"icmp sge i64 {here}, {first}"))
            if stop < self.group.rows[d]:
                tests.append(fn.val(f"icmp slt i64 {here}, {stop}"))
            far = fn.add(here, -first)
            for rest in range(step):
                test = "true"
                for other in tests:
                    test = fn.val(f"and i1 {test}, {other}")
                if step > 1:
                    same = fn.val(f"icmp eq i64 {fn.val(f'urem i64 {far}, {step}')}, {rest}")
                    test = fn.val(f"and i1 {test}, {same}")
                with fn.when(test):
                    em.open()
                    place = loop_var(f"s{d}", (stop - first) // step, d)
                    if place.terms:
                        em.names[place.terms[0][0]] = str(
                            far if step == 1 else fn.val(f"udiv i64 {far}, {step}"))
                    self._choose(left[1:], [*outer[:d], place * step + (first + rest),
                                            *outer[d + 1:]])
                    em.close()

    def _line(self, outer: list[Index], stretch: Stretch) -> None:
        """One stretch of a line: as many of its dimensions as memory allows are one loop."""
        writer, steps, group = self.writer, self.steps, self.group
        fn, em = writer.fn, writer.emitter
        first, stop, step = stretch
        sizes = [(stop - first) // step, *group.rows[self.last + 1:]]
        for keep in range(len(sizes)):
            heads = [loop_var(f"w{k}", n, 30 + k) for k, n in enumerate(sizes[:keep])]
            inner = prod(sizes[keep:])
            lane = loop_var("l", inner, 40)
            index = [*heads, *unflatten(lane, sizes[keep:])]
            each = [[*outer, index[0] * step + (first + rest), *index[1:]]
                    for rest in range(step)]
            touched = [at for rows in each for at in offsets(steps, group, self.storage, rows, [])]
            if not lane.terms or all(affine(at, lane.terms[0][0]) for at in touched):
                break
        with ExitStack() as loops:
            for head, n in zip(heads, sizes):
                if head.terms:
                    em.names[head.terms[0][0]] = loops.enter_context(fn.loop(0, n, hint="w"))
            kind = written_out(fn) if inner <= FEW_LANES else "!LOOP"
            if lane.terms and FEW_LANES < inner < SHORT and picks(lane, touched):
                l = loops.enter_context(writer.picking(0, inner, "l", self.size))
            else:
                if inner > FEW_LANES and self._masked(lane, inner, touched):
                    kind = "!MASKED"
                l = loops.enter_context(fn.loop(0, inner, hint="l", metadata=kind))
            em.open()
            if lane.terms:
                em.names[lane.terms[0][0]] = l
            for rows in each:
                Nest(writer, steps, group, self.storage, rows, []).body(self.stage, "rows", l)
            em.close()

    def _masked(self, lane: Index, rounds: int, touched: Sequence[Index]) -> bool:
        """Whether what is left after the last whole vector is worth another one under a mask,
        where the processor has such: one by one it takes as long as many."""
        t, var = target(), lane.terms[0][0]
        return t.vector_bytes == 64 and rounds % t.lanes(self.size) > 1 and rounds < MASKED and \
            all(affine(at, var) and 0 <= at.coefficient(var) <= 1 for at in touched)
