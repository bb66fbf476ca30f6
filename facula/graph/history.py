"""What a sealed graph must keep so that a gradient can still be taken through it."""

from __future__ import annotations

from collections.abc import Iterable, Set

from facula.graph.spec import Step

__all__ = ["reachable", "saved"]

CHEAP = frozenset(("reshape", "permute", "expand", "slice", "alias", "full", "iota", "real",
                   "imag", "conj", "bitcast", "as_strided"))
"""Recomputed from what they read rather than kept: they move or name values."""


def reachable(steps: list[Step], roots: Iterable[int], freed: Set[int]) -> set[int]:
    """The steps through which a gradient flows from `roots`, as far as they are not freed."""
    found: set[int] = set()
    todo = [i for i in roots if steps[i].mask and i not in freed]
    while todo:
        i = todo.pop()
        if i in found:
            continue
        found.add(i)
        step = steps[i]
        for k, j in enumerate(step.inputs):
            if step.mask >> k & 1 and j not in found and steps[j].mask and j not in freed:
                todo.append(j)
    return found


def saved(steps: list[Step], through: Iterable[int]) -> set[int]:
    """The values that the gradient rules of the steps `through` read."""
    from facula.ops.table import PRIMS
    need: set[int] = set()
    todo: list[int] = []
    for i in through:
        step = steps[i]
        for what in PRIMS[step.op].reads(step.attrs, step.mask):
            if what == "out":
                todo.append(i)
            elif what == "all":
                todo.extend(step.inputs)
            else:
                k = int(what[2:])
                if k < len(step.inputs):
                    todo.append(step.inputs[k])
    seen: set[int] = set()
    while todo:
        i = todo.pop()
        if i in seen:
            continue
        seen.add(i)
        step = steps[i]
        if step.op in CHEAP:
            todo.extend(step.inputs)
        else:
            need.add(i)
    return need
