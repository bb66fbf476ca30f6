"""Fusion: which of the values that are put in memory one kernel computes.

`facula.schedule.roots` decides what is materialised.  `group_items` puts roots that walk over the
same rows into one kernel: a softmax is three roots (maximum, exponentials, sum) and one kernel, a
linear layer is a contraction and its epilogue, and the update of a weight is the epilogue of the
contraction that makes its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod

from facula.graph.spec import Step
from facula.groups.group import Group, Item, item_index, item_space, item_start, spread, squeeze
from facula.groups.kinds import ATTENTION, LOOPED, PRODUCTS, REDUCE, SCAN, UPDATE
from facula.groups.reads import Place, accesses
from facula.schedule.recurrences import written_beside
from facula.schedule.roots import rearranged

__all__ = ["group_items", "memory_behind"]

MAX_ITEMS = 24
SMALL = 16384
"""Elements below which rows are not worth splitting among threads."""


def group_items(steps: Sequence[Step], roots: set[int]) -> list[Group]:
    """Put the roots into kernels; the groups come in an order that respects their `deps`."""
    found = _Grouping(steps, roots)
    for number in sorted(roots):
        if 0 not in steps[number].spec.shape:
            found.add(number)
    return found.groups


def memory_behind(steps: Sequence[Step], number: int, in_memory: Callable[[int], bool]
                  ) -> set[int]:
    """Every value in memory that `number` is made of, whatever the indices."""
    found, stack, seen = set(), [number], set()
    while stack:
        i = stack.pop()
        if i in seen:
            continue
        seen.add(i)
        if in_memory(i):
            found.add(i)
        else:
            stack.extend(steps[i].inputs)
    return found


class _Grouping:
    """The groups so far, and the `home` of each root that is in one."""

    def __init__(self, steps: Sequence[Step], roots: set[int]):
        self.steps, self.roots = steps, roots
        self.groups: list[Group] = []
        self.home: dict[int, Group] = {}

    def add(self, number: int) -> None:
        """Put a root into a group, an old one or a new one; roots come in order."""
        step = self.steps[number]
        if step.op in UPDATE:
            group = self._alone("update", number)
        elif step.op in LOOPED:
            group = self._recurrence(number)
        elif step.op in ATTENTION:
            group = self._attend(number)
        elif step.op == "cat" or rearranged(self.steps, number,
                                            self.home.__contains__) in self.home:
            group = self._alone("loops", number)
        else:
            group = self._place(number)
        self.home[number] = group
        for source, _ in group.reads:
            if source in self.home and self.home[source] is not group:
                group.deps.add(self.home[source].number)

    def _in_memory(self, number: int) -> bool:
        return number in self.roots or self.steps[number].op == "leaf"

    def _new(self, kind: str, full: tuple[int, ...], axes: tuple[int, ...]) -> Group:
        group = Group(len(self.groups), kind, full, axes)
        self.groups.append(group)
        return group

    def _alone(self, kind: str, number: int) -> Group:
        """A new group of one root, which reads everything that it is made of."""
        group = self._new(kind, squeeze(self.steps[number].spec.shape), ())
        group.items.append(Item(number, "rows"))
        group.reads = self._everything(number)
        return group

    def _everything(self, number: int) -> list[Place]:
        """What is in memory of all that a step is made of, whatever the indices."""
        return [(i, ()) for base in self.steps[number].inputs
                for i in memory_behind(self.steps, base, self._in_memory)]

    def _attend(self, number: int) -> Group:
        """The group of an attention step: one with others of the same scores, if there is one."""
        steps, step = self.steps, self.steps[number]

        def of(other: int) -> dict[str, int]:
            letters = ATTENTION[steps[other].op] + ("m" if steps[other].attrs[2] else "")
            return dict(zip(letters, steps[other].inputs, strict=True))

        mine = of(number)
        reads = self._everything(number)
        sources = self._homes(reads)
        for group in self.groups:
            first = group.items[0].step
            if group.kind != "attention" or steps[first].attrs != step.attrs \
                    or ("l" in of(first)) != ("l" in mine):
                continue
            agree = all(of(i.step).get(x, base) == base for i in group.items
                        for x, base in mine.items())
            if agree and not any(self._reaches(source, group.number) for source in sources):
                group.items.append(Item(number, "rows"))
                group.reads += reads
                return group
        return self._alone("attention", number)

    def _recurrence(self, number: int) -> Group:
        """The group of a recurrence; what is written beside it is in the same loop."""
        loop = written_beside(self.steps, self.steps[number])
        if loop is None:
            return self._alone("recurrence", number)
        group = self.home[loop]
        group.items.append(Item(number, "rows"))
        return group

    def _place(self, number: int) -> Group:
        """The group of a root that loops or a product compute: the first of those near it that it
        fits in, or a new one."""
        step = self.steps[number]
        full, axes = item_space(self.steps, number)
        role = "all" if axes or step.op in REDUCE | SCAN | PRODUCTS else "rows"
        alone = Item(number, role)
        reads = self._reads(Group(-1, "loops", full, axes), [alone])
        sources = self._homes(reads)
        touched = {s for s, _ in reads}
        candidates = sorted(sources, reverse=True)
        for other in reversed(self.groups[-40:]):
            if other.number not in sources and any(s in touched for s, _ in other.reads):
                candidates.append(other.number)
        for index in candidates:
            group = self.groups[index]
            if self._join(group, alone, full, axes, sources):
                return group
        group = self._new("contract" if step.op in PRODUCTS else "loops", full, axes)
        group.items.append(alone)
        group.reads = reads
        return group

    def _reads(self, group: Group, items: Iterable[Item]) -> list[Place]:
        """The elements in memory that items of the group read at one point."""
        rows, columns = group.row_vars(), group.column_vars()
        return [place for item in items for place in accesses(
            self.steps, item_start(self.steps, group, item, rows, columns), self._in_memory)]

    def _homes(self, reads: Sequence[Place]) -> set[int]:
        """The groups whose roots are read."""
        return {self.home[s].number for s, _ in reads if s in self.home}

    def _reaches(self, start: int, goal: int) -> bool:
        """Whether group `start` depends on group `goal`, directly or through others."""
        stack, seen = [start], set()
        while stack:
            g = stack.pop()
            if g == goal:
                return True
            if g not in seen:
                seen.add(g)
                stack.extend(self.groups[g].deps)
        return False

    def _join(self, group: Group, item: Item, full: tuple[int, ...], axes: tuple[int, ...],
              sources: set[int]) -> bool:
        """Add the item to the group if it fits there; whether it did."""
        if group.kind in ("update", "attention", "recurrence") or \
                len(group.items) >= MAX_ITEMS or \
                self.steps[group.items[0].step].op in ("cat", "reshape", "permute"):
            return False
        role = self._role(group, item, full, axes)
        if role is None or any(source != group.number and self._reaches(source, group.number)
                               for source in sources):
            return False
        # a plain elementwise kernel takes on a reduction: all that it has walks over its columns
        reshaped = item.role == "all" and group.axes != axes
        old_axes, old_roles = group.axes, [i.role for i in group.items]
        if reshaped:
            group.axes = axes
            for other in group.items:
                other.role = "all"
        new = Item(item.step, role)
        found = None
        if not self._few_rows(group, new, reshaped):
            found = self._reads(group, [new])
            stage = self._stage(group, new, found)
            if stage is None:
                found = None
            else:
                new.stage = stage
        if found is None:
            group.axes = old_axes
            for other, old in zip(group.items, old_roles, strict=True):
                other.role = old
            return False
        if reshaped:
            # the indices of earlier reads were in terms of rows only
            group.reads = self._reads(group, group.items)
        group.items.append(new)
        group.reads += found
        return True

    def _role(self, group: Group, item: Item, full: tuple[int, ...], axes: tuple[int, ...]
              ) -> str | None:
        """The role that an item of this space would have in the group, if it fits at all."""
        if item.role == "all":
            if self.steps[item.step].op in PRODUCTS or group.kind == "contract" \
                    or group.full != full:
                return None
            if group.axes != axes and (group.axes or any(i.role == "all" for i in group.items)):
                return None
            return "all"
        if full == group.rows:
            return "rows"
        return "all" if full == group.full and group.axes and group.kind == "loops" else None

    def _few_rows(self, group: Group, new: Item, reshaped: bool) -> bool:
        """Whether there would be much to do in rows too few for the threads."""
        return bool(group.axes) and group.kind == "loops" and prod(group.rows) < 16 \
            and prod(group.full) > SMALL and (reshaped or new.role == "all") \
            and not all(self.steps[i.step].op in REDUCE and i.stage == 0
                        for i in [*group.items, new])

    def _stage(self, group: Group, new: Item, found: Sequence[Place]) -> int | None:
        """The stage in which everything that the new item reads of the group has been computed;
        None where it would read what another point computes."""
        steps, stage = self.steps, new.stage
        rows, columns = group.row_vars(), group.column_vars()
        for source, index in found:
            read = group.find(source)
            if read is None:
                continue
            op, shape = steps[source].op, steps[source].spec.shape
            place = item_index(steps, group, read, rows, columns)
            if read.role == "rows" or op in REDUCE or op in PRODUCTS:
                if read.role == "all":
                    place = spread(shape, rows)
                if index != place:
                    return None
                same = read.role == "rows" and new.role == "rows"
            else:
                free = {d for d, n in enumerate(_positions(shape)) if n in group.axes}
                if any(i != p for d, (i, p) in enumerate(zip(index, place, strict=True))
                       if d not in free):
                    return None
                same = new.role == "all" and index == place and op not in SCAN
            stage = max(stage, read.stage + (0 if same else 1))
        return stage


def _positions(shape: Sequence[int]) -> list[int]:
    """For each dimension its number among those that are not 1 (-1 for a size of 1)."""
    out, k = [], 0
    for n in shape:
        out.append(-1 if n == 1 else k)
        k += n != 1
    return out
