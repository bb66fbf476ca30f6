"""Sums of many small products as one product, and of many small sums as one sum.

The gradient of a weight that was used at every step of time is the sum over time of products
A_t B_t.  That is one product, of the A_t beside one another and the B_t below one another: it goes
through the weight once, not once for each step.  Likewise the gradient of a bias.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from facula.graph.spec import Spec, Step, spec

__all__ = ["join_sums", "readers_of", "terms_of"]

LEAST = 3
"""Terms from which on joining them is worth while."""


def readers_of(steps: Sequence[Step], outputs: Sequence[int]) -> list[int]:
    """How many inputs (and outputs) each step is, of steps that the outputs are made of."""
    readers = [0] * len(steps)
    for o in outputs:
        readers[o] += 1
    for i in range(len(steps) - 1, -1, -1):
        if readers[i]:
            for j in steps[i].inputs:
                readers[j] += 1
    return readers


def terms_of(steps: Sequence[Step], number: int, readers: Sequence[int]) -> list[int]:
    """The terms of a sum, through sums that nothing else reads."""
    found, stack = [], list(reversed(steps[number].inputs))
    while stack:
        i = stack.pop()
        if steps[i].op == "add" and readers[i] == 1 and steps[i].spec is steps[number].spec:
            stack.extend(reversed(steps[i].inputs))
        else:
            found.append(i)
    return found


@dataclass
class _Operand:
    """Matrices one after another along an axis, from `start` on in the concatenation `cat` where
    there is one; `turned` says that it is the transpose of them that is wanted."""

    values: list[int]
    axis: int
    turned: bool
    cat: int = -1
    start: int = 0


@dataclass
class _Part:
    """Terms that become one, and its operands."""

    members: list[int]
    operands: list[_Operand]


@dataclass
class _Plan:
    """A sum: terms that are joined, terms that are not, and the old steps it is made of."""

    joined: list[_Part]
    rest: list[int]
    needs: list[int]


class _Joiner:
    """The steps being written; concatenations and what is made of them, each once."""

    def __init__(self, steps: Sequence[Step], outputs: Sequence[int]):
        self.steps = steps
        self.made: list[Step] = []
        self.new = [-1] * len(steps)
        self.plans: dict[int, _Plan | None] = {}
        self.cats: dict[int, list[int]] = defaultdict(list)     # value -> where it is put
        self.known: dict[Any, int] = {}
        self.readers = readers_of(steps, outputs)
        self.inner = [False] * len(steps)
        for number, (step, read) in enumerate(zip(steps, self.readers, strict=True)):
            if step.op == "cat" and read and len(set(step.inputs)) == len(step.inputs):
                for j in step.inputs:
                    self.cats[j].append(number)
            if step.op == "add" and read:
                for j in step.inputs:
                    self.inner[j] = (steps[j].op == "add" and self.readers[j] == 1
                                     and steps[j].spec is step.spec)

    def add(self, op: str, attrs: tuple[Any, ...], inputs: tuple[int, ...], out: Spec,
            where: str | None) -> int:
        once = op in ("cat", "permute", "slice", "sum", "matmul")
        key = (op, attrs, inputs, out)
        if once and key in self.known:
            return self.known[key]
        self.made.append(Step(op, attrs, inputs, out, 0, where))
        if once:
            self.known[key] = len(self.made) - 1
        return len(self.made) - 1

    def run(self) -> None:
        for number in range(len(self.steps)):
            self.bring(number)

    def bring(self, number: int) -> int:
        """The new number of an old step, which is written now if it has not been."""
        stack = [number]
        while self.new[number] < 0:
            top = stack[-1]
            step = self.steps[top]
            plan = self._plan(top)
            missing = [j for j in (plan.needs if plan else step.inputs) if self.new[j] < 0]
            if missing:
                stack += missing
                continue
            stack.pop()
            if self.new[top] < 0:
                self.new[top] = self._write(plan, step) if plan else self.add(
                    step.op, step.attrs, tuple([self.new[j] for j in step.inputs]), step.spec,
                    step.where)
        return self.new[number]

    def _plan(self, number: int) -> _Plan | None:
        """What the sum at `number` becomes; None where nothing in it can be joined."""
        step = self.steps[number]
        if step.op != "add" or self.inner[number] or not self.readers[number]:
            return None
        if number not in self.plans:
            self.plans[number] = self._planned(number)
        return self.plans[number]

    def _planned(self, number: int) -> _Plan | None:
        terms = terms_of(self.steps, number, self.readers)
        if len(terms) < LEAST:
            return None
        kinds: dict[Any, list[int]] = defaultdict(list)
        for t in terms:
            kinds[self._kind(t)].append(t)
        rest = list(kinds.pop(None, []))
        plan = _Plan([], rest, [])
        for kind, members in kinds.items():
            if len(members) < LEAST or len(set(members)) < len(members):
                plan.rest += members
                continue
            ways = ((0, 1), (1, 0)) if kind[0] == "matmul" else ((0, kind[1]),)
            plan.joined.append(self._ordered(members, ways, number))
        if not plan.joined:
            return None
        plan.needs += plan.rest
        for part in plan.joined:
            for operand in part.operands:
                plan.needs += [operand.cat] if operand.cat >= 0 else operand.values
        return plan

    def _ordered(self, members: Sequence[int], ways: Sequence[tuple[int, int]], number: int
                 ) -> _Part:
        """Operands of joined terms, in an order in which as many as can be lie together already.
        """
        members = sorted(members)
        operands = [self._operand([self.steps[i].inputs[k] for i in members], axis)
                    for k, axis in ways]
        for found in operands:
            cat = self._containing(found, number)
            if cat is not None:
                place = {v: k for k, v in enumerate(cat)}
                order = sorted(range(len(members)), key=lambda k: place[found.values[k]])
                for other in operands:
                    other.values = [other.values[k] for k in order]
                members = [members[k] for k in order]
                break
        for found in operands:
            self._place(found, number)
        return _Part(members, operands)

    def _operand(self, values: list[int], axis: int) -> _Operand:
        steps = self.steps
        if all(steps[i].op == "permute" and steps[i].attrs[0] == (1, 0) for i in values):
            return _Operand([steps[i].inputs[0] for i in values], 1 - axis, True)
        return _Operand(values, axis, False)

    def _cats(self, operand: _Operand, number: int) -> list[int]:
        """Concatenations along the axis with the first value in them that can be used here."""
        return [c for c in self.cats.get(operand.values[0], ())
                if self.steps[c].attrs[0] == operand.axis and not self._follows(c, number)]

    def _containing(self, operand: _Operand, number: int) -> tuple[int, ...] | None:
        for c in self._cats(operand, number):
            if set(operand.values) <= set(self.steps[c].inputs):
                return self.steps[c].inputs
        return None

    def _place(self, operand: _Operand, number: int) -> None:
        """Find a concatenation in which the values follow one another."""
        for c in self._cats(operand, number):
            inputs = self.steps[c].inputs
            at = inputs.index(operand.values[0])
            if list(inputs[at:at + len(operand.values)]) == operand.values:
                operand.cat = c
                operand.start = sum(self.steps[i].spec.shape[operand.axis] for i in inputs[:at])
                return

    def _follows(self, cat: int, number: int) -> bool:
        """Whether the old step `cat` is computed from `number`."""
        stack, seen = [cat], set()
        while stack:
            i = stack.pop()
            if i == number:
                return True
            if i > number and i not in seen:
                seen.add(i)
                stack.extend(self.steps[i].inputs)
        return False

    def _write(self, plan: _Plan, step: Step) -> int:
        joined = []
        for part in plan.joined:
            first = self.steps[part.members[0]]
            inputs = tuple([self._whole(o, step.where) for o in part.operands])
            joined.append(self.add(first.op, first.attrs, inputs, step.spec, step.where))
        total, *others = [*joined, *[self.new[t] for t in sorted(plan.rest)]]
        for other in others:
            total = self.add("add", (), (total, other), step.spec, step.where)
        return total

    def _whole(self, operand: _Operand, where: str | None) -> int:
        """The values one after another."""
        steps, axis = self.steps, operand.axis
        shape = list(steps[operand.values[0]].spec.shape)
        shape[axis] = sum(steps[i].spec.shape[axis] for i in operand.values)
        dtype = steps[operand.values[0]].spec.dtype
        if operand.cat < 0:
            found = self.add("cat", (axis,), tuple([self.new[i] for i in operand.values]),
                             spec(tuple(shape), dtype), where)
        else:
            found = self.new[operand.cat]
            if steps[operand.cat].spec.shape[axis] != shape[axis]:
                starts = tuple([operand.start if d == axis else 0 for d in range(len(shape))])
                found = self.add("slice", (starts, (1,) * len(shape)), (found,),
                                 spec(tuple(shape), dtype), where)
        if operand.turned:
            found = self.add("permute", ((1, 0),), (found,), spec((shape[1], shape[0]), dtype),
                             where)
        return found

    def _kind(self, number: int) -> Any:
        """What a term can be joined with; None for nothing."""
        step = self.steps[number]
        if self.readers[number] != 1:
            return None
        if step.op == "matmul" and len(step.spec.shape) == 2:
            m, n = step.spec.shape
            k = self.steps[step.inputs[0]].spec.shape[1]
            # what the operands take to copy against what the result takes to add up
            return ("matmul", m, n) if k * (m + n) <= 2 * m * n else None
        if step.op == "sum" and len(step.attrs[0]) == 1:
            shape = self.steps[step.inputs[0]].spec.shape
            axis = step.attrs[0][0]
            return ("sum", axis, (*shape[:axis], *shape[axis + 1:]))
        return None


def join_sums(steps: list[Step], outputs: Sequence[int]) -> tuple[list[Step], list[int]]:
    """(new steps, the new number of each old one).

    Sums come out in another order, which depends on the program's structure alone.
    """
    joiner = _Joiner(steps, outputs)
    joiner.run()
    return joiner.made, joiner.new
