"""Where each value of a program lies: arguments, outputs that take over a leaf, temporaries.

A value is put where somebody reads it, if it can be: into its part of a concatenation, into the
memory of what it is only rearranged into, over a leaf that nobody needs any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from facula.codegen.kernel import Storage
from facula.codegen.products.contraction import crowded
from facula.graph.spec import Step
from facula.groups.group import Group, Item, item_index, item_start
from facula.groups.index import row_major
from facula.groups.kinds import CONVOLUTIONS, REDUCE, RESULTS, SCAN, UPDATE, WHOLE
from facula.groups.reads import Place, accesses
from facula.ops.primitive.recurrent import RECURRENT
from facula.runtime.plan import STATUS_SLOT
from facula.schedule.fuse import group_items, memory_behind
from facula.schedule.products import (
    contraction_of,
    has_strides,
    leaf_strides,
    operand_behind,
    order_in,
    stored_operands,
)
from facula.schedule.recurrences import read_in_place
from facula.schedule.roots import choose_roots, in_parts, rearranged

__all__ = ["Places"]


class Places:
    """The groups of a program, and the memory of every value that is in memory.

    `places` are steps' storages, `numbers` those of scalars; `temporaries`, by slot, have so many
    bytes, and `views` are slots for what begins at a byte of one, or of an output.
    """

    def __init__(self, steps: Sequence[Step], outputs: Sequence[int], donations: dict[int, int]):
        self.steps = steps
        self.outputs = list(outputs)
        self.slots = STATUS_SLOT + 1
        self.places: dict[int, Storage] = {}
        self.numbers: dict[int, Storage] = {}
        self.inputs: list[tuple[int, int]] = []
        self.arguments: list[tuple[int, str]] = []
        self._leaves()
        roots = choose_roots(steps, outputs)
        self.groups = group_items(steps, roots)
        self.home = {item.step: g for g in self.groups for item in g.items}
        self.readers: dict[int, list[Group]] = {}
        self.accessed: dict[int, list[tuple[Item, list[Place], set[int]]]] = {}
        self.donated = self._donate(donations)
        self._outputs()
        self.temporaries: dict[int, int] = {}        # slot -> bytes
        self.spans: dict[int, list[int]] = {}        # slot -> [first phase, last phase]
        self.views: dict[int, tuple[int, int]] = {}  # slot -> (what it is in, byte)
        self.staged: dict[int, Storage] = {}
        self.moved: set[int] = set()                 # in memory as soon as what they are made of
        products = self._products()
        self._rows_apart(products, ("cat", "reshape", "permute"))
        self._concatenations(products)
        self._rows_apart(products)
        self._intermediates()
        self._in_place()

    def slot(self) -> int:
        """A new slot."""
        self.slots += 1
        return self.slots - 1

    def _leaves(self) -> None:
        for number, step in enumerate(self.steps):
            dtype = step.spec.dtype
            if step.op == "leaf":
                slot = self.slot()
                self.places[number] = Storage(slot, leaf_strides(step))
                self.arguments.append((slot, "P"))
                self.inputs.append((number, 0))
            elif step.op == "scalar":
                code = "d" if dtype.kind in "fc" else "Q" if dtype.name == "uint64" else "q"
                slot = self.slot()
                self.numbers[number] = Storage(slot, ())
                for part in range(2 if dtype.kind == "c" else 1):
                    self.arguments.append((slot if not part else self.slot(), code))
                    self.inputs.append((number, part))

    def _outputs(self) -> None:
        for o in self.outputs:
            leaf = self.donated.get(o)
            strides = row_major(self.steps[o].spec.shape)
            if leaf is not None:
                self.places[o] = Storage(self.places[leaf].slot, strides)
                continue
            slot = self.slot()
            self.places[o] = Storage(slot, strides)
            self.arguments.append((slot, "P"))

    def _intermediates(self) -> None:
        """Memory for what other groups read, and for what a later loop of its own group needs."""
        for group in self.groups:
            for source, _ in group.reads:
                writer = self.home.get(source)
                if writer is not None and writer is not group and source not in self.places:
                    self._temporary(source)
            for item in group.items:
                # the updates write into memory, a scan cannot be taken up in the middle, and a
                # recurrence reads what it has written
                op = self.steps[item.step].op
                written = op in UPDATE or op in SCAN or op in RESULTS or op in RECURRENT
                if written and item.step not in self.places:
                    self._temporary(item.step)

    def _in_place(self) -> None:
        """What a recurrence writes over what it has just read: memory that is in the cache."""
        for group in reversed(self.groups):
            if group.kind != "recurrence":
                continue
            found = read_in_place(self.steps, [i.step for i in group.items],
                                  lambda n: n in self.home or self.steps[n].op == "leaf")
            if found is None:
                continue
            written, source = (self.places[n] for n in found)
            if written.slot in self.temporaries and source.slot in self.temporaries and \
                    source.strides == row_major(self.steps[found[1]].spec.shape) and \
                    self._readers(found[1]) == [group]:
                self.places[found[1]] = Storage(written.slot, source.strides)

    def _products(self) -> dict[int, list[tuple[int, int]]]:
        """For each value that kernels of their own find in memory: (step, operand) of each."""
        products: dict[int, list[tuple[int, int]]] = {}
        for number in self.home:
            for which in stored_operands(self.steps[number]):
                behind = operand_behind(self.steps, number, which, self.home.__contains__)
                products.setdefault(behind, []).append((number, which))
        return products

    def _rows_apart(self, products: dict[int, list[tuple[int, int]]],
                    only: Sequence[str] = ()) -> None:
        """Give rows that a product could only read crowded, and so would copy, a line more: those
        of all values, or of what operations `only` make."""
        for source, uses in products.items():
            if only and self.steps[source].op not in only:
                continue
            spec = self.steps[source].spec
            item = spec.dtype.itemsize
            if source not in self.home or source in self.places or len(spec.shape) < 2 or \
                    not crowded(spec.shape[-1] * item) or \
                    not any(self._by_rows(source, *use) for use in uses):
                continue
            line = 64 // item
            long = (-(-spec.shape[-1] // line) | 1) * line
            strides = (*row_major((*spec.shape[:-1], long))[:-1], 1)
            if self._may_lie(source, strides, uses):
                nbytes = spec.numel // spec.shape[-1] * long * item
                self.places[source] = Storage(self._take(source, nbytes), strides)

    def _by_rows(self, source: int, number: int, which: int) -> bool:
        """Whether operand `which` of a step is read a few rows of `source` at a time."""
        steps, step = self.steps, self.steps[number]
        if step.op != "matmul" or which or step.spec.dtype.name not in ("float32", "float64"):
            return False
        found, place = contraction_of(
            steps, number, lambda n: n in self.home or steps[n].op == "leaf",
            row_major(step.spec.shape), self._lies_so_far)[:2]
        return place == source and found.a_strides[-2:] == (steps[source].spec.shape[-1], 1) \
            and found.m > 1 and found.n >= 48 and found.k >= 128

    def _lies_so_far(self, number: int) -> tuple[int, ...]:
        place = self.places.get(number)
        return place.strides if place is not None else row_major(self.steps[number].spec.shape)

    def _concatenations(self, products: dict[int, list[tuple[int, int]]]) -> None:
        """Values that are put one after another are computed right there, and so
        are those that are only rearranged."""
        own = {self.places[o].slot for o in self.outputs if o not in self.donated}
        for number in sorted(self.home, reverse=True):
            step = self.steps[number]
            if step.op in ("reshape", "permute"):
                self._rearrange(number, products)
            if not in_parts(self.steps, number):
                continue
            if number not in self.places:
                self._temporary(number)
            slot = self.places[number].slot
            base = self.views.get(slot, (slot, 0))[0]
            if base not in self.temporaries and base not in own:
                # over a leaf, which the parts may read: made in a temporary and copied
                self.staged[number] = Storage(self._take(number), row_major(step.spec.shape))
            place = self.put_together(number)
            for source, view in zip(step.inputs, self.windows(number), strict=True):
                if self._may_lie(source, place.strides, products.get(source, ())):
                    self.places[source] = Storage(self.view(place.slot, view), place.strides)

    def _rearrange(self, number: int, products: dict[int, list[tuple[int, int]]]) -> None:
        """Have the value that step `number` rearranges computed into that step's memory."""
        source = rearranged(self.steps, number, self.home.__contains__)
        if source is None or source not in self.home or number in self.donated:
            return
        wanted = number in self.places
        strides = order_in(self.steps, source, number, self.places[number].strides if wanted
                           else row_major(self.steps[number].spec.shape))
        if strides is None or not self._may_lie(source, strides, products.get(source, ())):
            return
        if not wanted:
            self._temporary(number)
        self.places[source] = Storage(self.places[number].slot, strides)
        self.moved.add(number)

    def put_together(self, number: int) -> Storage:
        """Where a concatenation is made."""
        return self.staged.get(number) or self.places[number]

    def windows(self, number: int) -> list[int]:
        """The byte at which each input of a concatenation begins."""
        step, at, found = self.steps[number], 0, []
        axis, place = step.attrs[0], self.put_together(number)
        for source in step.inputs:
            found.append(at)
            at += (self.steps[source].spec.shape[axis] * place.strides[axis]
                   * step.spec.dtype.itemsize)
        return found

    def view(self, slot: int, start: int) -> int:
        """A slot for what begins `start` bytes into a temporary or output, or what is in one."""
        base, offset = self.views.get(slot, (slot, 0))
        made = self.slot()
        self.views[made] = (base, offset + start)
        return made

    def _may_lie(self, source: int, strides: tuple[int, ...], products: Iterable[tuple[int, int]]
                 ) -> bool:
        """Whether the value may be computed into memory of these strides."""
        step = self.steps[source]
        if source not in self.home or source in self.places or step.op in UPDATE | SCAN:
            return False
        if strides == row_major(step.spec.shape):
            return True
        return (step.op not in CONVOLUTIONS or step.op == "conv_blocks") \
            and step.op not in RECURRENT and all(
            has_strides(self.steps, number, which, self.home.__contains__, strides)
            for number, which in products)

    def _temporary(self, number: int) -> None:
        self.places[number] = Storage(self._take(number), row_major(self.steps[number].spec.shape))

    def _take(self, number: int, nbytes: int = 0) -> int:
        """The slot of a new temporary of the size of a value, or of more."""
        slot, step = self.slot(), self.steps[number]
        self.temporaries[slot] = max(step.spec.numel * step.spec.dtype.itemsize, nbytes)
        return slot

    # -- which outputs may overwrite a leaf
    def _donate(self, donations: dict[int, int]) -> dict[int, int]:
        found: dict[int, int] = {}
        for o, leaf in donations.items():
            if o in self.home and leaf not in found.values() and self._may_take(o, leaf):
                found[o] = leaf
        return found

    def _may_take(self, o: int, leaf: int) -> bool:
        steps = self.steps
        if steps[leaf].op != "leaf" or steps[leaf].spec is not steps[o].spec \
                or steps[leaf].attrs[0] is not None:
            return False
        group = self.home[o]
        if not self._reads_in_place(group, o, leaf):
            return False
        others = [g for g in self._readers(leaf) if g is not group]
        if any(self._depends(g, group) for g in others):
            return False
        group.deps.update(g.number for g in others)
        return True

    def _readers(self, leaf: int) -> list[Group]:
        """The groups that read a leaf."""
        if not self.readers:
            for g in self.groups:
                for source in {s for s, _ in g.reads}:
                    self.readers.setdefault(source, []).append(g)
        return self.readers.get(leaf, [])

    def _accesses(self, group: Group) -> list[tuple[Item, list[Place], set[int]]]:
        """For each item of a group what it reads of memory, and the steps that is of."""
        found = self.accessed.get(group.number)
        if found is None:
            found = self.accessed[group.number] = []
            rows, columns = group.row_vars(), group.column_vars()
            for item in group.items:
                start = item_start(self.steps, group, item, rows, columns)
                read = accesses(self.steps, start, lambda n: self._in_memory(group, n))
                found.append((item, read, {source for source, _ in read}))
        return found

    def _in_memory(self, group: Group, n: int) -> bool:
        """In memory, or kept for the row: the rest is computed again where it is read."""
        if self.steps[n].op == "leaf":
            return True
        item = group.find(n)
        if item is None:
            return n in self.home
        op = self.steps[n].op
        return item.role == "rows" or op in REDUCE | SCAN or op in WHOLE

    def _depends(self, group: Group, on: Group) -> bool:
        stack, seen = [group.number], set()
        while stack:
            g = stack.pop()
            if g == on.number:
                return True
            if g not in seen:
                seen.add(g)
                stack.extend(self.groups[g].deps)
        return False

    def _reads_in_place(self, group: Group, o: int, leaf: int) -> bool:
        """Whether every read of `leaf` in the group is of the element about to be written."""
        steps = self.steps
        if group.kind == "recurrence":
            return False
        if group.kind == "update":
            rest = {n for i in steps[o].inputs[1:] for n in memory_behind(
                steps, i, lambda n: n in self.home or steps[n].op == "leaf")}
            return steps[o].inputs[0] == leaf and leaf not in rest
        rows, columns = group.row_vars(), group.column_vars()
        target = next(i for i in group.items if i.step == o)
        own = item_index(steps, group, target, rows, columns)

        for item, read, sources in self._accesses(group):
            if o in sources and steps[o].op in SCAN | REDUCE | WHOLE:
                return False                # it has to be in memory, where others read it
            if o in sources:                # what is about to be written is not read of memory
                start = item_start(steps, group, item, rows, columns)
                read = accesses(steps, start, lambda n: n != o and self._in_memory(group, n))
            elif leaf not in sources:
                continue
            for source, index in read:
                if source != leaf:
                    continue
                if steps[item.step].op in WHOLE or item.role != target.role \
                        or item.stage > target.stage or index != own:
                    return False
        return True

    # -- for those who write kernels
    def storage(self, number: int) -> Storage | None:
        """Where a step's value lies; None if it is not in memory."""
        return self.places.get(number)

    def lies(self, number: int) -> tuple[int, ...]:
        """The strides of a value that is in memory."""
        return self.places[number].strides

    def scalars(self, number: int) -> Storage | None:
        """Where a scalar lies; None if the step is none."""
        return self.numbers.get(number)
