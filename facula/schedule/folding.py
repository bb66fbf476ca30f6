"""What follows a convolution channel by channel, and is made of parameters, goes into its weight.

`(conv(x, w) - mean) * scale + bias`, which is what a batch norm does in evaluation, is
`conv(x, w * scale) + (bias - mean * scale)`: the same up to rounding, and both factors are computed
once for as long as the parameters stay (`facula.schedule.constants`).
"""

from __future__ import annotations

from collections.abc import Sequence

from facula.graph.spec import Spec, Step, spec
from facula.schedule.constants import fixed_steps

__all__ = ["folded"]

_AFFINE = frozenset(["add", "sub", "mul", "div"])


def folded(steps: Sequence[Step], outputs: Sequence[int]
           ) -> tuple[list[Step], list[int], list[int]]:
    """The program with such chains folded, its outputs, and each step's number in it."""
    fixed = fixed_steps(steps)
    users: list[list[int]] = [[] for _ in steps]
    for i, step in enumerate(steps):
        for j in dict.fromkeys(step.inputs):
            users[j].append(i)
    kept = set(outputs)
    ends: dict[int, tuple[int, list[int]]] = {}
    for i, step in enumerate(steps):
        if step.op == "conv" and step.spec.dtype.name == "float32" and fixed[step.inputs[1]] \
                and steps[step.inputs[1]].spec.dtype is step.spec.dtype \
                and not fixed[step.inputs[0]]:
            chain = _chain(steps, i, fixed, users, kept)
            # one number a channel to be added is nothing that could become less
            if len(chain) > 1 or chain and steps[chain[0]].op in ("mul", "div"):
                ends[chain[-1]] = i, chain
    return _Fold(steps, ends).run(outputs)


def _chain(steps: Sequence[Step], number: int, fixed: Sequence[bool],
           users: Sequence[Sequence[int]], kept: set[int]) -> list[int]:
    """The steps after a convolution that are affine in it, with a number for each channel."""
    chain = []
    at = number
    while len(users[at]) == 1 and at not in kept:
        (next_,) = users[at]
        step = steps[next_]
        if step.op not in _AFFINE or len(set(step.inputs)) != 2:
            break
        if step.op == "div" and step.inputs[0] != at:
            break
        other = step.inputs[1 - step.inputs.index(at)]
        if not fixed[other] or _channels(steps, other) is None:
            break
        chain.append(next_)
        at = next_
    return chain


def _channels(steps: Sequence[Step], number: int) -> int | None:
    """The step whose value, one for each channel, is expanded to this one; the step itself where
    it is one number."""
    step = steps[number]
    if step.op == "full":
        return number
    if step.op != "expand":
        return None
    shape, inner = step.spec.shape, steps[step.inputs[0]].spec.shape
    lead = len(shape) - len(inner)
    if any(n != 1 and lead + d != 1 for d, n in enumerate(inner)):
        return None
    return step.inputs[0]


class _Fold:
    """`ends` are the last steps of chains, with the convolution and the chain of each."""

    def __init__(self, steps: Sequence[Step], ends: dict[int, tuple[int, list[int]]]):
        self.old, self.ends = steps, ends
        self.steps: list[Step] = []
        self.new: list[int] = []
        self.where: str | None = None

    def run(self, outputs: Sequence[int]) -> tuple[list[Step], list[int], list[int]]:
        inside = {i for product, chain in self.ends.values() for i in (product, *chain)}
        for number, step in enumerate(self.old):
            self.where = step.where
            if number in self.ends:
                self.new.append(self._folded(*self.ends[number]))
            elif number in inside:
                self.new.append(-1)             # made at the end of its chain
            else:
                self.steps.append(Step(step.op, step.attrs,
                                       tuple([self.new[j] for j in step.inputs]), step.spec,
                                       step.mask, step.where))
                self.new.append(len(self.steps) - 1)
        return self.steps, [self.new[o] for o in outputs], self.new

    def _add(self, op: str, inputs: tuple[int, ...], out: Spec) -> int:
        self.steps.append(Step(op, (), inputs, out, 0, self.where))
        return len(self.steps) - 1

    def _line(self, number: int, line: Spec) -> int:
        """One number for each channel."""
        old = _channels(self.old, number)
        assert old is not None
        step = self.old[old]
        if step.op == "full":
            self.steps.append(Step("full", step.attrs, (), line, 0, self.where))
            return len(self.steps) - 1
        at = self.new[old]
        n = step.spec.numel
        if step.spec.shape != (n,):
            at = self._add("reshape", (at,), spec((n,), line.dtype))
        return at if n == line.shape[0] else self._add("expand", (at,), line)

    def _folded(self, product: int, chain: list[int]) -> int:
        conv = self.old[product]
        line = spec((conv.spec.shape[1],), conv.spec.dtype)
        scale: int | None = None
        shift: int | None = None
        at = product
        for number in chain:
            step = self.old[number]
            left = step.inputs[0] == at
            value = self._line(step.inputs[1 if left else 0], line)
            if step.op in ("mul", "div"):
                one = value if step.op == "mul" else self._add("reciprocal", (value,), line)
                scale = one if scale is None else self._add("mul", (scale, one), line)
                if shift is not None:
                    shift = self._add(step.op, (shift, value), line)
            elif step.op == "add":
                shift = value if shift is None else self._add("add", (shift, value), line)
            elif left:
                shift = self._add("neg", (value,), line) if shift is None \
                    else self._add("sub", (shift, value), line)
            else:
                scale = self._add("neg", (scale,), line) if scale is not None \
                    else self._minus_one(line)
                shift = value if shift is None else self._add("sub", (value, shift), line)
            at = number
        x, w = (self.new[i] for i in conv.inputs)
        if scale is not None:
            have = self.old[conv.inputs[1]].spec
            ones = (1,) * (len(have.shape) - 1)
            each = self._add("reshape", (scale,), spec((*line.shape, *ones), line.dtype))
            w = self._add("mul", (w, self._add("expand", (each,), have)), have)
        self.steps.append(Step("conv", conv.attrs, (x, w), conv.spec, 0, conv.where))
        made = len(self.steps) - 1
        if shift is None:
            return made
        ones = (1,) * (len(conv.spec.shape) - 2)
        each = self._add("reshape", (shift,), spec((1, *line.shape, *ones), line.dtype))
        return self._add("add", (made, self._add("expand", (each,), conv.spec)), conv.spec)

    def _minus_one(self, line: Spec) -> int:
        self.steps.append(Step("full", (-1.0,), (), line, 0, self.where))
        return len(self.steps) - 1
