"""What a program computes of its parameters alone is computed when they change, and kept.

Two kinds of programs do so.  What products read of the leaves that a linear map is made of
(`facula.graph.record.Graph.last`: weights and activations, the same in every product with a
curvature matrix), and convolutions of bfloat16 of their weights in a program without gradients, is
packed by phases of their own (`facula.runtime.plan.ProgramPlan.once`).  And a program without
gradients whose convolutions are on blocked layouts (`facula.schedule.layout`), or of bfloat16,
reads weights packed or rounded and numbers a channel that depend on nothing but leaves: these are a
program of their own.  Either runs
when one of those leaves has another content than the last time, told by `Buffer.stamp`; what it has
made is an argument of the rest.  It is dropped as soon as a leaf is written, shown to somebody
outside or freed (`facula.runtime.allocator.drop`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from facula import config
from facula.graph.spec import Step
from facula.groups.kinds import MOVEMENT, PRODUCTS
from facula.runtime.allocator import Buffer, forget, stamped

__all__ = ["Kept", "Split", "fixed_steps", "pair_weights", "split"]

MOST = 1 << 16
"""Elements of a value other than a weight that is worth keeping."""

_SOURCES = frozenset(["full", "iota"])


@dataclass
class Split:
    """`head` computes what is kept, of the program's leaves `leaves`; `tail` the rest, of the
    leaves `rest` and then of what is kept."""

    head: list[Step]
    kept: list[int]
    leaves: list[int]
    tail: list[Step]
    outputs: list[int]
    rest: list[int]


def _fixed(steps: Sequence[Step], data: set[int]) -> list[bool]:
    """Which steps are made of leaves, other than those in `data`, without any product."""
    fixed = [False] * len(steps)
    for i, step in enumerate(steps):
        fixed[i] = step.op in _SOURCES or step.op == "leaf" and i not in data or (
            step.op not in PRODUCTS and bool(step.inputs) and all(fixed[j] for j in step.inputs))
    return fixed


def _data(steps: Sequence[Step]) -> set[int]:
    """The leaves that the first products of a program have as their left operands: its input."""
    fixed = _fixed(steps, set())
    stack = [s.inputs[0] for s in steps if s.op in PRODUCTS and fixed[s.inputs[0]]]
    seen: set[int] = set()
    while stack:
        i = stack.pop()
        if i not in seen:
            seen.add(i)
            stack.extend(steps[i].inputs)
    return {i for i in seen if steps[i].op == "leaf"}


def fixed_steps(steps: Sequence[Step]) -> list[bool]:
    """Which steps of a program depend on its parameters alone."""
    return _fixed(steps, _data(steps))


def pair_weights(steps: Sequence[Step]) -> frozenset[int]:
    """The bfloat16 leaves that convolutions in pairs have as their weights, in a program without
    gradients, where they are likely to stay: packed forms of them can be kept."""
    if not config.flag.LAYOUT:
        return frozenset()
    found = set()
    for step in steps:
        if step.op in ("conv_input", "conv_weight") or step.mask:
            return frozenset()
        if step.op == "conv":
            at = step.inputs[1]
            while steps[at].op in MOVEMENT or steps[at].op == "cast":
                at = steps[at].inputs[0]
            if steps[at].op == "leaf" and steps[at].spec.dtype.name == "bfloat16":
                found.add(at)
    return frozenset(found)


def _kept(steps: Sequence[Step], outputs: Sequence[int]) -> set[int]:
    """The steps whose values are worth keeping."""
    fixed = fixed_steps(steps)
    if any(fixed[o] for o in outputs):
        return set()
    found = set()
    for i, step in enumerate(steps):
        if fixed[i]:
            continue
        for which, j in enumerate(step.inputs):
            if not fixed[j]:
                continue
            packed = step.op == "conv_blocks" and which == 1     # read in just that order
            while steps[j].op in MOVEMENT and not packed:
                j = steps[j].inputs[0]
            weight = step.op in PRODUCTS and which >= 1
            if steps[j].op not in _SOURCES and steps[j].op != "leaf" \
                    and (weight or steps[j].spec.numel <= MOST):
                found.add(j)
    return found


def split(steps: Sequence[Step], outputs: Sequence[int]) -> Split | None:
    """A program in two; None where there is nothing worth keeping."""
    kept = sorted(_kept(steps, outputs))
    if not kept:
        return None
    head, places, leaves = _part(steps, kept, {})
    as_leaves = {k: Step("leaf", (None,), (), steps[k].spec, 0, steps[k].where) for k in kept}
    tail, after, rest = _part(steps, outputs, as_leaves)
    # leaves in the order in which they are given: the program's own, then what is kept
    return Split(head, [places[k] for k in kept], leaves, tail, [after[o] for o in outputs],
                 [r for r in rest if r not in as_leaves])


def _part(steps: Sequence[Step], outputs: Sequence[int], given: dict[int, Step]
          ) -> tuple[list[Step], dict[int, int], list[int]]:
    """The steps that `outputs` need, (old number -> new number), and which of them are leaves;
    those in `given` come last among these."""
    live: set[int] = set()
    stack = list(outputs)
    while stack:
        i = stack.pop()
        if i not in live:
            live.add(i)
            if i not in given:
                stack.extend(steps[i].inputs)
    first = [i for i in sorted(live) if i not in given and steps[i].op in ("leaf", "scalar")]
    order = [*first, *sorted(given)]
    order += [i for i in sorted(live) if i not in given and steps[i].op not in ("leaf", "scalar")]
    number = {old: new for new, old in enumerate(order)}
    part = [given[i] if i in given else Step(
        steps[i].op, steps[i].attrs, tuple([number[j] for j in steps[i].inputs]), steps[i].spec,
        0, steps[i].where) for i in order]
    return part, number, [*first, *given]


class Kept:
    """What `make(values)` has made of buffers, for as long as they stay as they are."""

    def __init__(self, make: Callable[[list[Any]], list[Buffer]]):
        self._make = make
        self._lock = threading.Lock()
        self.stamps: list[int] = []
        self.buffers: list[Buffer] | None = None

    def of(self, values: list[Any]) -> list[Buffer]:
        """What is made of `values`."""
        found = self.buffers
        if found is not None and [v.stamp for v in values] == self.stamps:
            return found
        with self._lock:
            self.drop()
            # before it runs: what is written meanwhile makes it old
            stamps = [stamped(v, self) for v in values]
            made = self._make(values)
            self.stamps, self.buffers = stamps, made
            return made

    def drop(self) -> None:
        """One of the buffers is no longer what it was."""
        self.buffers = None
        for stamp in self.stamps:
            forget(stamp, self)
        self.stamps = []

    @property
    def nbytes(self) -> int:
        return sum([b.nbytes for b in self.buffers or ()])
