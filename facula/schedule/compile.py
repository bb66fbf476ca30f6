"""From simplified steps to a plan: fuse, decide what lies where, emit, order in phases.

`build` is a pure function of steps, outputs and donations.  Nothing is compiled here; the plan
it returns is plain data with the LLVM text of every kernel in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from facula.codegen.attention.kernels import emit_attention
from facula.codegen.convolutions.convolution import Convolution
from facula.codegen.convolutions.epilogue import emit_convolution_group
from facula.codegen.convolutions.pointwise import Pointwise, product_of
from facula.codegen.elements.loops import emit_group
from facula.codegen.elements.updates import emit_copy, emit_update
from facula.codegen.kernel import KernelText, Storage, View
from facula.codegen.products.epilogue import Product, emit_product
from facula.codegen.recurrence import emit_recurrence
from facula.graph.spec import Step
from facula.groups.group import Group, Item, squeeze
from facula.groups.index import row_major
from facula.groups.kinds import CONVOLUTIONS, RESULTS
from facula.runtime.plan import KernelPlan, PhasePlan, ProgramPlan
from facula.schedule.memory import Interval, place
from facula.schedule.places import Places
from facula.schedule.products import (
    attention_of,
    contraction_of,
    convolution_of,
    operand_of,
    stored_operands,
)
from facula.schedule.recurrences import parts_read
from facula.schedule.roots import in_parts

__all__ = ["Native", "Report", "build"]

MOST_KEPT = 1 << 28
"""Bytes that a program keeps of packed leaves."""


@dataclass
class Report:
    """What one group became, for people: steps it computes, and its kernels."""

    kind: str
    steps: list[int]
    kernels: list[str]
    cost: float
    phase: int = 0
    group: int = -1


@dataclass
class Native:
    """A plan, and how its arguments come about.

    inputs   for each argument before the outputs: (step, part); part is 0, or 0 and 1 for the
             real and imaginary part of a complex number
    outputs  for each output: (bytes, None), or (bytes, step) where it takes over a leaf's memory
    sizes    slot -> bytes of the value there; `stored` are the steps whose values are in memory
    extents  m, n and k of the product of each group that has one
    kept     for each argument after the outputs, which phases made `once` write: the leaf that
             it is made of, and its bytes
    views    for each argument after those: the output that it is a part of, and its first byte
    """

    plan: ProgramPlan
    inputs: list[tuple[int, int]]
    outputs: list[tuple[int, int | None]]
    reports: list[Report] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)
    stored: frozenset[int] = frozenset()
    extents: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    kept: list[tuple[int, int]] = field(default_factory=list)
    views: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class _Unit:
    """A kernel, the phase it runs in, and its operands: slots, or temporaries of its own."""

    kernel: KernelText
    level: int
    operands: list[int | str]
    group: int
    early: bool = False         # packs what others of its group, or of others, read


def build(steps: Sequence[Step], outputs: Sequence[int], donations: dict[int, int],
          lasting: frozenset[int] = frozenset(),
          varies: Mapping[int, frozenset[str]] | None = None) -> Native:
    """The plan that computes `outputs`; `donations` maps outputs to leaves they may overwrite.

    What products read of the leaves in `lasting` is packed by phases of their own, once for many
    runs.  `varies` says of the products of groups, by their numbers, which of their extents m, n
    and k are others in programs that are to share their machine code with this one.
    """
    return _Build(Places(steps, outputs, donations), lasting, varies or {}).native()


class _Build:
    """Writes the kernels over the places in `memory`, to which it adds temporaries of theirs."""

    def __init__(self, memory: Places, lasting: frozenset[int],
                 varies: Mapping[int, frozenset[str]]):
        self.memory, self.places = memory, memory.places
        self.steps, self.outputs = memory.steps, memory.outputs
        self.varies = varies
        self.lasting = {self.places[n].slot: n for n in sorted(lasting)}
        self.kept: list[tuple[int, int]] = []
        self.packs: dict[int, int] = {}              # slot -> bytes of what is kept
        self.extents: dict[int, tuple[int, int, int]] = {}
        self.packed: dict[tuple[str, int], tuple[int, int]] = {}
        self.prepared: set[int] = set()              # slots of packed operands

    def native(self) -> Native:
        units: list[_Unit] = []
        ends: dict[int, int] = {}
        reports = []
        for group in self._ordered():
            start = max([ends[d] + 1 for d in group.deps], default=0)
            mine = self._emit(group, start, ends)
            if not mine:        # a concatenation of what is in its place
                ends[group.number] = start - 1
                reports.append(Report(group.kind, [i.step for i in group.items], [], 0.0, start))
                continue
            last = max(u.level for u in mine)
            ends[group.number] = last
            # what a product packs beforehand is not yet its result
            first = last if group.kind == "contract" else min(u.level for u in mine)
            self._spans_of(group, first, last)
            units += mine
            reports.append(Report(group.kind, [i.step for i in group.items],
                                  [u.kernel.name for u in mine],
                                  sum(u.kernel.cost for u in mine), last, group.number))
        once, units = self._once(units)
        self._postpone(units)
        return self._plan(once, units, reports)

    def _once(self, units: list[_Unit]) -> tuple[list[_Unit], list[_Unit]]:
        """The kernels that pack a leaf which lasts, whose copies become arguments; the others."""
        once: list[_Unit] = []
        rest: list[_Unit] = []
        room = MOST_KEPT if self.lasting else 0
        for u in units:
            source, copy = u.operands if u.early and len(u.operands) == 2 else (-1, -1)
            size = self.memory.temporaries.get(int(copy), 0)
            if source not in self.lasting or not 0 < size <= room or \
                    sum(copy in v.operands for v in units if v.early) > 1:
                rest.append(u)
                continue
            room -= size
            once.append(u)
            self.kept.append((self.lasting[int(source)], size))
            self.memory.arguments.append((int(copy), "P"))
            self.packs[int(copy)] = self.memory.temporaries.pop(int(copy))
            self.prepared.discard(int(copy))
        return once, rest

    def _postpone(self, units: list[_Unit]) -> None:
        """Pack operands no sooner than in the phase before they are wanted: memory is taken for
        as short a time, and what has been packed is still in the caches."""
        touching: dict[int, list[_Unit]] = {}
        for u in units:
            for slot in {s for s in u.operands if isinstance(s, int) and s in self.prepared}:
                touching.setdefault(slot, []).append(u)
        for u in sorted([u for u in units if u.early], key=lambda u: -u.level):
            later = [v.level for s in u.operands if isinstance(s, int)
                     for v in touching.get(s, ()) if v.level > u.level]
            u.level = max(u.level, min(later, default=u.level + 1) - 1)
        for slot, users in touching.items():
            levels = [u.level for u in users]
            self.memory.spans[slot] = [min(levels), max(levels)]

    def _ordered(self) -> Iterable[Group]:
        """Groups after those they depend on."""
        done: set[int] = set()
        for root in self.memory.groups:
            stack = [root.number]
            while stack:
                g = stack[-1]
                waiting = [d for d in self.memory.groups[g].deps if d not in done]
                if waiting:
                    stack.extend(waiting)
                    continue
                stack.pop()
                if g not in done:
                    done.add(g)
                    yield self.memory.groups[g]

    def _emit(self, group: Group, start: int, ends: dict[int, int]) -> list[_Unit]:
        number = group.number
        if group.kind == "update":
            step = group.items[0].step
            units = []
            if step not in self.memory.donated:
                copy = emit_copy(self.steps, step, self.memory.storage, self.memory.scalars)
                units.append(_Unit(copy, start, list(copy.slots), number))
            update = emit_update(self.steps, step, self.memory.storage, self.memory.scalars)
            units.append(_Unit(update, start + len(units), list(update.slots), number))
            return units
        if group.kind == "contract":
            return self._emit_contract(group, start, ends)
        if group.kind == "recurrence":
            return self._emit_recurrence(group, start, ends)
        if group.kind == "attention":
            return self._emit_attention(group, start)
        if len(group.items) == 1 and in_parts(self.steps, group.items[0].step):
            return self._emit_parts(group, start)
        if group.items[0].step in self.memory.moved:
            return []
        kernel = emit_group(self.steps, group, self.memory.storage, self.memory.scalars)
        return [_Unit(kernel, start, list(kernel.slots), number)]

    def _emit_attention(self, group: Group, start: int) -> list[_Unit]:
        numbers = [item.step for item in group.items]
        attention, places = attention_of(self.steps, numbers, lambda n: n in self.places,
                                         self.memory.lies)
        made = emit_attention(attention, [RESULTS[self.steps[n].op] for n in numbers],
                              {letter: self.places[step].slot for letter, step in places.items()})
        tmp = []
        for size in made.temporaries:
            slot = self.memory.slot()
            self.memory.temporaries[slot], self.memory.spans[slot] = size, [start, start]
            tmp.append(slot)
        return [_Unit(kernel, start, self._resolved(operands, tmp), group.number)
                for kernel, operands in made.phases[0]]

    def _emit_parts(self, group: Group, start: int) -> list[_Unit]:
        """What of a concatenation is not in its place, each part by a kernel of its own: no
        element asks where it is from."""
        number = group.items[0].step
        step, place = self.steps[number], self.memory.put_together(number)
        units = []
        for source, byte in zip(step.inputs, self.memory.windows(number), strict=True):
            found = self.places.get(source)
            if 0 in self.steps[source].spec.shape or found is not None and (
                    self.memory.views.get(found.slot) == self._byte(place.slot, byte)):
                continue
            to = Storage(self.memory.view(place.slot, byte), place.strides)
            units.append(self._copy(group, source, to, start))
        if number in self.memory.staged:
            end = start + bool(units)
            units.append(self._copy(group, number, self.places[number], end, place))
            span = self.memory.spans.setdefault(place.slot, [start, end])
            span[0], span[1] = min(span[0], start), max(span[1], end)
        return units

    def _copy(self, group: Group, source: int, to: Storage, level: int,
              made: Storage | None = None) -> _Unit:
        """A kernel that computes a value (again) at a place, or copies it from where it is `made`.
        """
        steps = [*self.steps, Step("alias", (), (source,), self.steps[source].spec, 0,
                                   self.steps[source].where)]
        copy = len(self.steps)
        alone = Group(group.number, "loops", squeeze(steps[copy].spec.shape), (),
                      [Item(copy, "rows")])

        def storage(n: int) -> Storage | None:
            if n == source and made is not None:
                return made
            return to if n == copy else self.memory.storage(n)

        kernel = emit_group(steps, alone, storage, self.memory.scalars)
        return _Unit(kernel, level, list(kernel.slots), group.number)

    def _byte(self, slot: int, byte: int) -> tuple[int, int]:
        base, offset = self.memory.views.get(slot, (slot, 0))
        return base, offset + byte

    def _emit_contract(self, group: Group, start: int, ends: dict[int, int]) -> list[_Unit]:
        steps = self.steps
        product = next(i.step for i in group.items if i.role == "all")
        if steps[product].op in CONVOLUTIONS:
            convolution, a, b = convolution_of(steps, product, lambda n: n in self.places,
                                               self.memory.lies)
            if isinstance(convolution, Convolution) and self.places[b].slot in self.lasting:
                convolution = replace(convolution, lasting=True)
            matrices = product_of(convolution) if isinstance(convolution, Convolution) else None
            if matrices is not None:
                made = emit_product(steps, group, matrices, self.places[b].slot,
                                    self.places[a].slot, self.memory.storage,
                                    self.memory.scalars, Pointwise)
                return self._in_phases(group, made, (a, b), start, ends)
            more = [self.places[i].slot for i in steps[product].inputs[2:]]
            made = emit_convolution_group(steps, group, convolution,
                                          [self.places[a].slot, self.places[b].slot, *more],
                                          self.memory.storage, self.memory.scalars)
        else:
            place = self.places.get(product)
            strides = place.strides if place is not None \
                else row_major(steps[product].spec.shape)
            c, a, b = contraction_of(steps, product, lambda n: n in self.places, strides,
                                     self.memory.lies)
            self.extents[group.number] = c.m, c.n, c.k
            if group.number in self.varies:
                c = replace(c, varies=self.varies[group.number])
            made = emit_product(steps, group, c, self.places[a].slot, self.places[b].slot,
                                self.memory.storage, self.memory.scalars)
        return self._in_phases(group, made, (a, b), start, ends)

    def _emit_recurrence(self, group: Group, start: int, ends: dict[int, int]) -> list[_Unit]:
        number = group.items[0].step
        weight, strides, offset = operand_of(
            self.steps, number, stored_operands(self.steps[number])[0], lambda n: n in self.places,
            self.memory.lies)
        made = emit_recurrence(self.steps, [i.step for i in group.items],
                               parts_read(self.steps, self.outputs, number),
                               self.places[weight].slot, View(strides, offset),
                               self.memory.storage, self.memory.scalars)
        return self._in_phases(group, made, (weight,), start, ends)

    def _in_phases(self, group: Group, made: Product, sources: Sequence[int], start: int,
                   ends: dict[int, int]) -> list[_Unit]:
        """The kernels of a product that reads `sources`: those that pack, then the others."""
        tmp = []
        for size in made.temporaries:
            slot = self.memory.slot()
            self.memory.temporaries[slot] = size
            tmp.append(slot)
        # packing waits for its own operand only, and happens once for all who read it
        behind = {self.places[s].slot: s for s in sources}
        ready = {slot: ends[self.memory.home[s].number] + 1 for slot, s in behind.items()
                 if s in self.memory.home}
        units: list[_Unit] = []
        mine = list(tmp)            # the slot of each temporary: its own, or that of an equal one
        first: dict[int, int] = {}  # slot -> the phase after which it is there
        for phase in made.phases[:-1]:
            written: dict[int, int] = {}
            for kernel, operands in phase:
                names = [int(r[3:]) for r in operands if isinstance(r, str)]
                slots = [r for r in operands if isinstance(r, int)]
                level = max([ready.get(r, 0) for r in slots]
                            + [first[mine[k]] + 1 for k in names if mine[k] in first])
                shared = len(names) == len(slots) == 1 and mine[names[0]] not in first
                if shared:
                    key = (kernel.name, behind[slots[0]])
                    known = self.packed.setdefault(key, (mine[names[0]], level))
                    mine[names[0]], level = known
                if not shared or known[0] == tmp[names[0]]:
                    units.append(_Unit(kernel, level, self._resolved(operands, mine),
                                       group.number, early=True))
                for k in names:
                    written[mine[k]] = max(level, written.get(mine[k], 0))
            first.update(written)
        main = max([start, *(level + 1 for level in first.values())])
        self.prepared.update(first)
        return units + [_Unit(kernel, main, self._resolved(operands, mine), group.number)
                        for kernel, operands in made.phases[-1]]

    @staticmethod
    def _resolved(operands: list[int | str], tmp: list[int]) -> list[int | str]:
        return [tmp[int(r[3:])] if isinstance(r, str) else r for r in operands]

    def _spans_of(self, group: Group, first: int, last: int) -> None:
        """Extend the life of the temporaries that the group writes and reads."""
        touched = {i.step for i in group.items} | {s for s, _ in group.reads}
        for step in touched:
            found = self.places.get(step)
            if found is None:
                continue
            slot = self.memory.views.get(found.slot, (found.slot, 0))[0]
            if slot in self.memory.temporaries:
                span = self.memory.spans.setdefault(slot, [first, last])
                span[0], span[1] = min(span[0], first), max(span[1], last)

    def _plan(self, once: list[_Unit], units: list[_Unit], reports: list[Report]) -> Native:
        levels = max([u.level for u in units], default=-1) + 1
        phases: list[list[KernelPlan]] = [[] for _ in range(levels)]
        # the longest tiles first, so that the last to finish are short
        def planned(u: _Unit) -> KernelPlan:
            return KernelPlan(u.kernel.name, u.kernel.text, tuple([int(s) for s in u.operands]),
                              u.kernel.ntiles, u.group, u.kernel.numbers)

        for u in sorted(units, key=lambda u: (u.level, -u.kernel.cost / max(u.kernel.ntiles, 1))):
            phases[u.level].append(planned(u))
        intervals = [Interval(slot, size, *self.memory.spans[slot])
                     for slot, size in self.memory.temporaries.items() if slot in self.memory.spans]
        offsets, arena = place(intervals)
        views = []
        own = {self.places[o].slot: k for k, o in enumerate(self.outputs)}
        for slot, (base, start) in self.memory.views.items():
            if base in own:
                self.memory.arguments.append((slot, "P"))
                views.append((own[base], start))
            else:
                offsets[slot] = offsets[base] + start
        first = [PhasePlan(tuple(map(planned, once)))] if once else []
        plan = ProgramPlan((*first, *(PhasePlan(tuple(p)) for p in phases if p)),
                           self.memory.slots, tuple(self.memory.arguments), arena, offsets, {},
                           len(first), sum(u.kernel.cost for u in units))
        outputs = [(self.steps[o].spec.numel * self.steps[o].spec.dtype.itemsize,
                    self.memory.donated.get(o)) for o in self.outputs]
        sizes = {place.slot: self.steps[n].spec.numel * self.steps[n].spec.dtype.itemsize
                 for n, place in self.places.items()}
        return Native(plan, self.memory.inputs, outputs, reports,
                      {**self.memory.temporaries, **self.packs, **sizes}, frozenset(self.places),
                      self.extents, self.kept, views)

