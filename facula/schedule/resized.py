"""Programs that are the same but for sizes: planned each for itself, compiled once.

The first program of a structure is compiled for its sizes.  When the same structure comes with
another batch size, it is planned anew, which takes milliseconds, and its kernels are compiled as
forms (`facula.codegen.forms`): code that is told the numbers in which the two sizes differ.  From
then on a size that has not been seen costs its planning.  What a kernel computes does not depend on
which sizes came before: as a form it is the very text that was planned for its size.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from facula.codegen.forms import Form
from facula.graph.spec import Step, spec
from facula.runtime.plan import KernelPlan, PhasePlan
from facula.schedule.compile import Native, build
from facula.schedule.layout_back import training_in_blocks
from facula.schedule.segments import Segment, segments
from facula.schedule.simplify import simplify

__all__ = ["COMPILING", "Again", "Change", "Family", "Simple", "Simplified", "again",
           "donations_of", "family_of", "patience", "simplified"]

COMPILING = 0.003
"""Seconds that compiling takes for each step of a program, roughly."""

MOST_FAMILIES = 128
"""Structures of which the first program is remembered; what was met longest ago goes."""

_SIZED = frozenset(["leaf", "slice", "slice_update", "as_strided", "as_strided_update", "pad",
                    "full", "iota", "philox", "window_place"])
"""Operations with sizes, or numbers made of sizes, among their attributes."""


_SOURCES = frozenset(["full", "iota", "philox"])

Simplified = tuple[list[Step], dict[int, int], list[int]]
"""What `facula.schedule.simplify.simplify` returns."""


@dataclass
class Simple:
    """A program after simplification, in parts; `given` are its donations.

    `new` says where the leaves before simplification are now.
    """

    steps: list[Step]
    new: dict[int, int]
    outputs: list[int]
    given: dict[int, int]
    parts: list[Segment]


def simplified(steps: Sequence[Step], outputs: Sequence[int], donations: dict[int, int],
               made: Simplified | None = None) -> Simple:
    """Simplify a program, unless `made` is what came of that, and cut it into parts."""
    found, new, kept = made or _laid_out(steps, outputs)
    place = {o: kept[k] for k, o in enumerate(outputs)}
    given = {place[o]: new[leaf] for o, leaf in donations.items()
             if found[new[leaf]].op == "leaf"}
    return Simple(found, new, kept, given, segments(found, kept))


def _laid_out(steps: Sequence[Step], outputs: Sequence[int]) -> Simplified:
    """A program simplified, and its convolutions on blocks of channels if it is to be trained with
    them there."""
    found, new, kept = simplify(steps, outputs)
    blocks = training_in_blocks(found, kept)
    if blocks is None:
        return found, new, kept
    leaves = {old: n for n, old in blocks[2].items()}
    found, again, kept = simplify(*blocks[:2])
    return found, {i: again[leaves[n]] for i, n in new.items() if n in leaves}, kept


@dataclass(frozen=True)
class Change:
    """A dimension of a leaf that is not what it was."""

    leaf: int                   # the how manieth leaf of the program
    dimension: int
    before: int
    now: int


@dataclass(frozen=True)
class Again:
    """A program that was compiled although one of its structure had been: why, and how.

    `sizes` are the shapes of its leaves, `shared` is whether its kernels serve any size; of them
    `made` had to be compiled and `found` were there, which took `seconds` with all that belongs
    to it.
    """

    changes: Sequence[Change]
    sizes: tuple[tuple[int, ...], ...]
    shared: bool
    made: int
    found: int
    seconds: float

    def reasons(self, named: Mapping[tuple[int, ...], str] | None = None) -> list[str]:
        """What changed, in words; `named` are names of shapes."""
        out = []
        for c in self.changes:
            shape = self.sizes[c.leaf]
            what = (named or {}).get(shape)
            if what is not None or not named:
                out.append(f"dimension {c.dimension} of {what or f'what is {list(shape)} now'} is "
                           f"{c.now}, and was {c.before}")
        return list(dict.fromkeys(out)) or (self.reasons() if named else [])

    def __str__(self) -> str:
        how = "kernels that serve any size" if self.shared else "kernels of its own"
        return (f"{how}: {self.made} compiled and {self.found} found in "
                f"{self.seconds * 1e3:.0f} ms")


again: deque[Again] = deque(maxlen=256)
"""What has been compiled again outside of functions of `facula.compile`, the last at the end."""


@dataclass
class _Part:
    """One native part of the programs of a family.

    `varies` says which extents of which products do, `forms` are found by group and by how many
    lines and operands they have.
    """

    varies: dict[int, frozenset[str]]
    groups: int
    forms: dict[tuple[int, int, int], list[Form]] = field(default_factory=dict)


class Family:
    """All programs of one structure.

    `sizes` are the shapes of the leaves of the first.
    """

    def __init__(self, steps: Sequence[Step], outputs: Sequence[int], donations: dict[int, int]):
        self.first = steps, outputs, donations
        self.sizes = _sizes(steps)
        self.shared = False             # is there a program whose kernels serve any size?
        self.interpreted = 0.0          # seconds that other sizes are expected to be interpreted
        self.fixed = {number_of(steps, leaf) for leaf in donations.values()}
        self.parts: dict[tuple[int, int], _Part] = {}

    @staticmethod
    def shapes(steps: Sequence[Step]) -> tuple[tuple[int, ...], ...]:
        """What the programs of a family differ in."""
        return _sizes(steps)

    def changes(self, steps: Sequence[Step]) -> list[Change]:
        """How the leaves of a program differ from those of the first."""
        return [Change(k, d, a, b) for k, (old, new) in enumerate(zip(self.sizes, _sizes(steps)))
                for d, (a, b) in enumerate(zip(old, new)) if a != b]

    def varies(self, changes: Sequence[Change]) -> bool:
        """Whether these are changes of a batch, not of a network: of one or two sizes, in leading
        dimensions (in the second, too, of what has three), and not of what is overwritten with
        its next value, as a parameter is by its optimiser."""
        sizes = {(c.before, c.now) for c in changes}
        return 0 < len(sizes) <= 2 and all(
            c.leaf not in self.fixed and (
                c.dimension == 0 or c.dimension == 1 and len(self.sizes[c.leaf]) >= 3)
            for c in changes)

    def plan(self, index: int, segment: Segment, given: dict[int, int], steps: Sequence[Step]
             ) -> Native:
        """The plan of part number `index` of another program of the family, of forms; `steps` are
        the program's before simplification."""
        key = index, len(segment.steps)
        part = self.parts.get(key)
        if part is None:
            part = self.parts[key] = self._compare(index, segment, given)
            for other in self._between(steps):
                for kernel in self._kernels(other, index, part):
                    _enter(part, kernel)
        own = build(segment.steps, segment.outputs, given, varies=part.varies)
        return _of_forms(part, own)

    def _kernels(self, steps: Sequence[Step], index: int, part: _Part) -> list[KernelPlan]:
        """Those of part number `index` of a program of the family, if it has one like `part`."""
        found = self._part(steps, index)
        if found is None:
            return []
        native = build(*found, varies=part.varies)
        return [] if len(native.reports) != part.groups else \
            [kernel for phase in native.plan.phases for kernel in phase.kernels]

    def _part(self, steps: Sequence[Step], index: int
              ) -> tuple[list[Step], list[int], dict[int, int]] | None:
        simple = simplified(steps, *self.first[1:])
        if index >= len(simple.parts) or not simple.parts[index].outputs:
            return None
        segment = simple.parts[index]
        given = donations_of(segment, simple.given if len(simple.parts) == 1 else {})
        return segment.steps, segment.outputs, given

    def _between(self, steps: Sequence[Step]) -> list[list[Step]]:
        """Programs of other sizes, as the first and this one let expect them.

        Two sizes often have numbers in common that a third has not.  Nothing but the choice of
        the numbers that kernels are told depends on these programs, which are never run.
        """
        changes = self.changes(steps)
        one, two = changes[0].before, changes[0].now
        high = max(one, two)
        sizes = [n for n in (high - 5, high // 3 | 1, high + 13) if n > 4 and n not in (one, two)]
        moves = [Fraction(n - one, two - one) for n in sizes[:2]]
        if len({(c.before, c.now) for c in changes}) > 1:
            moves = [Fraction(-1), Fraction(2)]
        made = [_moved(self.first[0], steps, t) for t in moves]
        return [m for m in made if m is not None]

    def _compare(self, index: int, segment: Segment, given: dict[int, int]) -> _Part:
        """What varies between the first program and another."""
        plain = build(segment.steps, segment.outputs, given)
        part = _Part({}, len(plain.reports))
        found = self._part(self.first[0], index)
        if found is None:
            return part
        first = build(*found)
        if len(first.reports) == part.groups:
            for group, extents in plain.extents.items():
                names = frozenset(x for x, a, b in zip("mnk", first.extents.get(group, extents),
                                                       extents) if a != b)
                if names & {"m", "k"}:
                    part.varies[group] = names
        for kernel in self._kernels(self.first[0], index, part):
            _enter(part, kernel)
        return part


def _moved(first: Sequence[Step], second: Sequence[Step], t: Fraction) -> list[Step] | None:
    """The program that is as far from the first as `t` times the second is; None if its sizes
    would not be whole positive numbers."""
    out = []
    try:
        for a, b in zip(first, second, strict=True):
            shape = _number(a.spec.shape, b.spec.shape, t)
            if any(n < 1 for n in shape):
                return None
            attrs = a.attrs if a.attrs == b.attrs else _number(a.attrs, b.attrs, t)
            out.append(Step(a.op, attrs, a.inputs, spec(shape, a.spec.dtype), a.mask, a.where,
                            a.view))
    except ValueError:
        return None
    return out


def _number(a: Any, b: Any, t: Fraction) -> Any:
    """a + (b - a) t, of numbers and of tuples of them.  ValueError where that is no integer."""
    if isinstance(a, tuple):
        return tuple([_number(x, y, t) for x, y in zip(a, b, strict=True)])
    if a == b:
        return a
    if isinstance(a, float):
        return a + (b - a) * float(t)
    found = a + (b - a) * t
    if found.denominator != 1:
        raise ValueError(f"{found} is no size")
    return int(found)


def _enter(part: _Part, kernel: KernelPlan) -> KernelPlan:
    """A kernel as one of a form; the form is made, or made wider, if need be."""
    name, text = Form.plain(kernel.name, kernel.llvm_text)
    lines = text.split("\n")
    operands = len(kernel.slots) + len(kernel.numbers)
    forms = part.forms.setdefault((kernel.group, len(lines), operands), [])
    for form in forms:
        different = form.differences(lines)
        if different is None:
            continue
        told = form.numbers(different)
        if told is None:
            form.widen(different, name)
            told = form.numbers(different)
            assert told is not None
        if not form.text:           # it is the only text of its form that there has been
            return kernel
        own, text = form.named(name)
        return replace(kernel, name=own, llvm_text=text, numbers=(*kernel.numbers, *told))
    forms.append(Form(lines, operands))
    return kernel


def _of_forms(part: _Part, native: Native) -> Native:
    names: dict[str, str] = {}
    phases = []
    for phase in native.plan.phases:
        kernels = []
        for kernel in phase.kernels:
            made = _enter(part, kernel)
            names[kernel.name] = made.name
            kernels.append(made)
        phases.append(PhasePlan(tuple(kernels)))
    reports = [replace(r, kernels=[names[k] for k in r.kernels]) for r in native.reports]
    return replace(native, plan=replace(native.plan, phases=tuple(phases)), reports=reports)


def donations_of(segment: Segment, donations: dict[int, int]) -> dict[int, int]:
    """The donations of a part, in its own numbers."""
    own = {i: n for n, i in segment.inputs.items()}
    return {segment.outputs[segment.names.index(o)]: own[leaf]
            for o, leaf in donations.items() if o in segment.names and leaf in own}


def _sizes(steps: Sequence[Step]) -> tuple[tuple[int, ...], ...]:
    """The shapes of the leaves; of a program that has none, of what it makes out of nothing."""
    return tuple([s.spec.shape for s in steps if s.op == "leaf"]) or \
        tuple([s.spec.shape for s in steps if s.op in _SOURCES])


def number_of(steps: Sequence[Step], leaf: int) -> int:
    """The how manieth leaf a step is."""
    return sum(1 for s in steps[:leaf] if s.op == "leaf")


def _form_of(value: Any) -> Any:
    """What of an attribute is left without its numbers."""
    if isinstance(value, tuple):
        return tuple(map(_form_of, value))
    return type(value)


_families: OrderedDict[Any, Family] = OrderedDict()

MOST_PATIENCE = 16
"""Runs of a second size that are interpreted at most."""

INTERPRETING = 3e-5
"""Seconds that the interpreter takes for a step beside its work."""


def patience(steps: Sequence[Step], outputs: Sequence[int], donations: dict[int, int],
             seconds: float) -> int | None:
    """How many runs to interpret, of `seconds` of work each, of a program that would be the second
    of its family.  The last batch of an epoch is not worth compiling for as soon as it comes; a
    third size finds most of its kernels, and is.  None if the program is no such second."""
    family = _families.get(_key(steps, outputs, donations))
    if family is None or family.shared:
        return None
    changes = family.changes(steps)
    if not changes or not family.varies(changes):
        return None
    compiling = COMPILING * len(steps)
    if family.interpreted > compiling:
        return None             # so many sizes that their kernels are worth it by now
    seconds += INTERPRETING * len(steps)
    runs = min(int(compiling / seconds), MOST_PATIENCE)
    family.interpreted += min(runs, 4) * seconds
    return runs


def _key(steps: Sequence[Step], outputs: Sequence[int], donations: dict[int, int]) -> Any:
    return (tuple([(s.op, s.inputs, len(s.spec.shape), s.spec.dtype,
                    _form_of(s.attrs) if s.op in _SIZED else s.attrs) for s in steps]),
            tuple(outputs), tuple(sorted(donations.items())))


def family_of(steps: Sequence[Step], outputs: Sequence[int], donations: dict[int, int]) -> Family:
    """The family of a program; it is the first of it if there is none yet."""
    key = _key(steps, outputs, donations)
    found = _families.get(key)
    if found is None:
        found = _families[key] = Family(steps, outputs, donations)
        if len(_families) > MOST_FAMILIES:
            _families.popitem(last=False)
    _families.move_to_end(key)
    return found
