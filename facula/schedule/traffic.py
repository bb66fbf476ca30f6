"""Recompute or keep: which values cost less to write down and read than to compute again.

`roots.choose_roots` asks.  What is at stake is memory's traffic and how long its values live, both
of which are counted in bytes here.
"""

from __future__ import annotations

from collections.abc import Sequence

from facula.codegen.target import target
from facula.graph.spec import Step
from facula.groups.kinds import INLINE, LOOPED, MOVEMENT, PRODUCTS, WHOLE

__all__ = ["Traffic"]

OPERATIONS_PER_BYTE = 10
"""Simple operations on an element that take as long as to write a byte of it to memory and to read
it again: three bytes moved, at some six bytes and sixteen or more operations a cycle."""

_CONSTANT = frozenset(["scalar", "full", "iota"])


class Traffic:
    """What is read for each value of a program if nothing but `roots` is in memory.

    Steps are of one stretch if no product, nor anything else that has a kernel of its own, lies
    between them: those may share a kernel, others cannot.
    """

    def __init__(self, steps: Sequence[Step], outputs: Sequence[int], roots: set[int]):
        self.steps, self.outputs = steps, frozenset(outputs)
        self.users: list[list[int]] = [[] for _ in steps]
        self.stretch = [0] * len(steps)
        for number, step in enumerate(steps):
            for i in step.inputs:
                self.users[i].append(number)
                apart = steps[i].op in WHOLE or steps[i].op in LOOPED
                self.stretch[number] = max(self.stretch[number], self.stretch[i] + apart)
        readers: list[set[int]] = [set() for _ in steps]
        for number in range(len(steps) - 1, -1, -1):
            for i in steps[number].inputs:
                if number in roots:
                    readers[i].add(self.stretch[number])
                else:
                    readers[i] |= readers[number]
        self.visits = [len(r) for r in readers]

    def kept(self, roots: set[int]) -> set[int]:
        """Elementwise values that are made of more than is written down instead: the sum that a
        residual connection goes on with, and not each of its terms."""
        ends = self._ends(roots)
        found: set[int] = set()
        sources: list[frozenset[int]] = []
        for number, step in enumerate(self.steps):
            if step.op == "leaf" or number in roots:
                sources.append(frozenset([number]))
                continue
            behind = frozenset().union(*[sources[i] for i in step.inputs]) \
                if step.op in INLINE and step.op not in _CONSTANT else frozenset()
            if number in ends and self._worth(number, behind, ends[number]):
                found.add(number)
                behind = frozenset([number])
            sources.append(behind)
        return found

    def _worth(self, number: int, behind: frozenset[int], saved: int) -> bool:
        """Whether each visit that reads the value and not what is `behind` it is worth writing it;
        `saved` are the bytes that are then not written."""
        own = self._bytes(number)
        read = sum(min(self._bytes(i), own) for i in behind)
        return (self.visits[number] - 1) * (read - own) + saved > own

    def _ends(self, roots: set[int]) -> dict[int, int]:
        """Values that more than one step goes on from, and how many bytes of products are of use
        for nothing else."""
        ends: dict[int, int] = {}
        for number, step in enumerate(self.steps):
            if step.op in PRODUCTS and number not in self.outputs:
                at = number
                while len(self.users[at]) == 1:
                    after = self.users[at][0]
                    if after in roots or self.steps[after].op not in INLINE or \
                            self.steps[after].spec.numel != step.spec.numel:
                        break
                    at = after
                if at != number and self.steps[at].op not in MOVEMENT:
                    ends[at] = ends.get(at, 0) + self._bytes(number)
        return ends

    def again(self, number: int, readers: set[int], cost: int, roots: set[int]) -> bool:
        """Whether to compute a value of this cost again for each of its readers, most of which
        run long after it: it would be out of the caches by then, and what it is made of is no
        more to read than it is itself."""
        own = self._bytes(number)
        size = self.steps[number].spec.dtype.itemsize
        if own < target().l2_bytes or cost > OPERATIONS_PER_BYTE * min(size, 4):
            return False
        near = [r for r in readers if self.stretch[r] == self.stretch[number]]
        if len(near) > 1:
            return False
        read, stack, seen = 0, [number], set()
        while stack:
            i = stack.pop()
            if i in seen:
                continue
            seen.add(i)
            if i != number and (i in roots or self.steps[i].op == "leaf"):
                read += min(self._bytes(i), own)
            else:
                stack.extend(self.steps[i].inputs)
        return read < 2 * own

    def _bytes(self, number: int) -> int:
        spec = self.steps[number].spec
        return spec.numel * spec.dtype.itemsize
