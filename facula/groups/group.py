"""Kernels in the making: which roots one kernel computes, and over which points it walks.

The points of a group are rows by columns.  `item_index` says which element of an item belongs to
a point, and `item_start` what that element is directly made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from facula.graph.spec import Step
from facula.groups.index import Index, const, loop_var
from facula.groups.kinds import CONVOLUTIONS, PRODUCTS, REDUCE, SCAN, WHOLE
from facula.groups.reads import Place, operands
from facula.ops.table import PRIMS

__all__ = ["Group", "Item", "item_index", "item_space", "item_start", "spread", "squeeze"]


@dataclass
class Item:
    """One root in its kernel.

    role 'rows': one value per point of the row space; 'all': it walks over the columns too.
    stage: items of one stage and role share a loop; a later stage sees what earlier ones made.
    """

    step: int
    role: str
    stage: int = 0


@dataclass
class Group:
    """One kernel in the making: roots over the row space `rows` and the column space `columns`.

    `full` is the shape of what role 'all' walks over, `axes` its columns; sizes of 1 are left out.
    """

    number: int
    kind: str              # 'loops', 'contract', 'attention', 'recurrence' or 'update'
    full: tuple[int, ...]
    axes: tuple[int, ...]
    items: list[Item] = field(default_factory=list)
    deps: set[int] = field(default_factory=set)
    reads: list[Place] = field(default_factory=list)

    @property
    def rows(self) -> tuple[int, ...]:
        return tuple(n for d, n in enumerate(self.full) if d not in self.axes)

    @property
    def columns(self) -> tuple[int, ...]:
        return tuple(self.full[d] for d in self.axes)

    def find(self, step: int) -> Item | None:
        for item in self.items:
            if item.step == step:
                return item
        return None

    def row_vars(self) -> list[Index]:
        return [loop_var(f"r{d}", n, d) for d, n in enumerate(self.rows)]

    def column_vars(self) -> list[Index]:
        return [loop_var(f"c{d}", n, 20 + d) for d, n in enumerate(self.columns)]


def squeeze(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def spread(shape: Sequence[int], values: Sequence[Index]) -> tuple[Index, ...]:
    """An index tuple for `shape`, given the indices of its dimensions that are not 1."""
    left = iter(values)
    zero = Index((), 0)
    return tuple(zero if n == 1 else next(left) for n in shape)


def terms(steps: Sequence[Step], number: int) -> int:
    """Of how many products an element of a contraction is the sum."""
    step = steps[number]
    if step.op == "conv_blocks":
        return prod(step.attrs[1][1:])
    if step.op == "conv_weight_blocks":
        return prod(step.attrs[2]) // step.attrs[2][1]
    found = PRIMS[step.op].terms
    assert found is not None
    return found([steps[i].spec for i in step.inputs], step.attrs, step.spec)


def item_space(steps: Sequence[Step], number: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(full shape, axes of it that are columns), both without sizes of 1."""
    step = steps[number]
    if step.op == "matmul":
        depth = steps[step.inputs[0]].spec.shape[-1]
        full = (*squeeze(step.spec.shape), depth)
        return full, (len(full) - 1,)
    if step.op in CONVOLUTIONS:
        full = (*squeeze(step.spec.shape), terms(steps, number))
        return full, (len(full) - 1,)
    if step.op in REDUCE or step.op in SCAN:
        shape = steps[step.inputs[0]].spec.shape
        axes = step.attrs[0] if isinstance(step.attrs[0], tuple) else (step.attrs[0],)
        kept = [d for d, n in enumerate(shape) if n != 1]
        return squeeze(shape), tuple(kept.index(d) for d in sorted(axes) if d in kept)
    return squeeze(step.spec.shape), ()


def item_index(steps: Sequence[Step], group: Group, item: Item, rows: Sequence[Index],
               columns: Sequence[Index]) -> tuple[Index, ...]:
    """The index of the item's own value at one point (of what it reduces, for role 'all')."""
    step = steps[item.step]
    if item.role == "rows":
        return spread(step.spec.shape, rows)
    left, across = iter(rows), iter(columns)
    values = [next(across) if d in group.axes else next(left) for d in range(len(group.full))]
    if step.op in PRODUCTS:
        return spread(step.spec.shape, values[:-1])
    shape = steps[step.inputs[0]].spec.shape if step.op in REDUCE else step.spec.shape
    return spread(shape, values)


def item_start(steps: Sequence[Step], group: Group, item: Item, rows: Sequence[Index],
               columns: Sequence[Index]) -> list[Place]:
    """The elements that the item's value at one point is directly made of."""
    step = steps[item.step]
    index = item_index(steps, group, item, rows, columns)
    if step.op == "matmul":
        k = columns[0]
        a, b = step.inputs
        return [(a, (*index[:-1], k)), (b, (*index[:-2], k, index[-1]))]
    if step.op in WHOLE:            # all of every operand, of which any element is one
        return [(i, tuple([const(0)] * len(steps[i].spec.shape))) for i in step.inputs]
    if step.op in REDUCE or step.op in SCAN:
        return [(step.inputs[0], index)]
    return operands(steps, item.step, index)
