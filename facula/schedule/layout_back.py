"""Training steps with their convolutions on blocks of channels; see `facula.schedule.layout`.

A convolution's gradient by its input is a convolution of the gradient with the kernel turned
around, and so another `conv_blocks`; the one by its weight is `conv_weight_blocks`, which reads
both operands as they lie.  Weights are packed in every step.  The gradient of a maximum over
windows that do not meet, which is a scatter as it is recorded, is on blocks a choice: an element
has its window's gradient if the window's largest was this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from facula import config
from facula.codegen.blocked import Blocks, squares_suit
from facula.codegen.blocked_weight import BlocksWeight
from facula.codegen.target import target
from facula.dtype import bool_, int32, int64
from facula.graph.spec import Step, spec
from facula.schedule.layout import LEAST, Rewrite, fits, work

__all__ = ["training_in_blocks"]

_GRADIENTS = frozenset(["conv_input", "conv_weight"])
_CONSTANT = frozenset(["full", "iota", "reshape", "expand", "permute", "slice", "cast", "add",
                       "sub", "mul"])
PLACES = 2048
"""Places below which a convolution takes too little time to pack its weight twice beforehand."""

_LARGEST = 1 << 16
"""Elements of a constant that is computed to see what it is."""


def training_in_blocks(steps: Sequence[Step], outputs: Sequence[int]
                       ) -> tuple[list[Step], list[int], dict[int, int]] | None:
    """The program with its convolutions and their gradients on blocks of channels, as
    `facula.schedule.layout.in_blocks` has it; None where not all of them are better off there."""
    if not config.flag.LAYOUT:
        return None
    lanes = target().lanes(4)
    found = [i for i, s in enumerate(steps) if s.op == "conv" or s.op in _GRADIENTS]
    if lanes < 8 or not any(steps[i].op == "conv_weight" for i in found) \
            or not any(s.op == "conv" and s.inputs[0] in _made(steps) for s in steps):
        return None
    if not all(_suits(steps, i, lanes) for i in found):
        return None
    return _Training(steps, lanes).run(outputs)


def _made(steps: Sequence[Step]) -> set[int]:
    """Steps that are computed."""
    return {i for i, s in enumerate(steps) if s.op not in ("leaf", "scalar", "full")}


def _shapes(steps: Sequence[Step], step: Step) -> tuple[tuple[int, ...], ...]:
    """Those of input, weight and result of the convolution that a step is, or the gradient of."""
    first, second = (steps[i].spec.shape for i in step.inputs)
    out = step.spec.shape
    if step.op == "conv":
        return first, second, out
    if step.op == "conv_input":
        return out, second, first
    return first, out[1:] if step.attrs[4] else out, second


def _suits(steps: Sequence[Step], number: int, lanes: int) -> bool:
    step = steps[number]
    if step.spec.dtype.name != "float32" or 0 in step.spec.shape or step.attrs[3] != 1:
        return False
    x, w, y = _shapes(steps, step)
    if len(x) != 4 or w[0] % lanes or x[1] % lanes and x[1] > lanes // 2:
        return False
    if step.op == "conv_input":
        return x[1] % lanes == 0 and set(step.attrs[0]) == {1}
    return step.op != "conv" or fits(steps, number, lanes) and work(steps, number) >= LEAST \
        and prod(y) >= PLACES * y[1]


class _Windows(NamedTuple):
    """Of a maximum over windows that do not meet: how far each largest element is from where its
    window begins (the step that says so), and the sizes of what windows are of, of a window, and
    how many there are."""

    away: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    number: tuple[int, int]


class _Training(Rewrite):
    def _on_blocks(self, number: int, step: Step) -> bool:
        if step.op == "conv_input":
            return self._input(number, step)
        if step.op == "conv_weight":
            return self._weight(number, step)
        if step.op == "scatter":
            return self._scattered(number, step)
        if step.op == "sum" and self._summed(number, step):
            return True
        return super()._on_blocks(number, step)

    def _input(self, number: int, step: Step) -> bool:
        x, w, y = _shapes(self.old, step)
        low, dilation = step.attrs[1:3]
        back = tuple([(k - 1) * d - p for k, d, p in zip(w[2:], dilation, low, strict=True)])
        turned = (w[1], w[0], *w[2:])
        c = Blocks(y, turned, x, (1, 1), back, dilation, False, True, self.lanes)
        if squares_suit(c):
            c = c.by_squares()
        weight = self._plain(step.inputs[1])
        have = self.steps[weight].spec
        if w[2:] != (1, 1):
            weight = self._add("slice", ((0, 0, w[2] - 1, w[3] - 1), (1, 1, -1, -1)), (weight,),
                               have)
        weight = self._permute(weight, (1, 0, 2, 3))
        inputs: tuple[int, ...] = (self._block(step.inputs[0], 1), self._packed(weight, c))
        if c.squares:
            inputs = (*inputs, weight)
        self.blocked[number] = self._add("conv_blocks", c.attrs(), inputs, self._spec(
            step.spec.shape, 1, step.spec.dtype)), 1
        return True

    def _weight(self, number: int, step: Step) -> bool:
        x, w, y = _shapes(self.old, step)
        stride, low, dilation, _, parts = step.attrs
        blocked = x[1] % self.lanes == 0
        c = BlocksWeight(x, w, y, stride, low, dilation, blocked, self.lanes, parts)
        image, gradient = step.inputs
        source = self._block(image, 1) if blocked else self._plain(image)
        self.plain[number] = self._add("conv_weight_blocks", c.attrs(),
                                       (source, self._block(gradient, 1)), step.spec)
        return True

    def _summed(self, number: int, step: Step) -> bool:
        """A sum over images and places: of the places of each image first, in parallel."""
        source = step.inputs[0]
        known, shape = self.blocked.get(source), self.old[source].spec.shape
        if known is None or known[1] != 1 or len(shape) != 4 or step.attrs[0] != (0, 2, 3) \
                or shape[0] < 2:
            return False
        dtype = step.spec.dtype
        lines = spec((shape[0], shape[1] // self.lanes, self.lanes), dtype)
        each = self._add("sum", ((2, 3),), (known[0],), lines)
        self.blocked[number] = self._add("sum", ((0,),), (each,), spec(lines.shape[1:], dtype)), 0
        return True

    # -- the gradient of a maximum over windows
    def _scattered(self, number: int, step: Step) -> bool:
        base, index, source = step.inputs
        found = self._windows(number, step)
        if found is None or not any(i in self.blocked for i in (index, found.away)):
            return False
        (h, w), (kh, kw), (oh, ow) = found.size, found.kernel, found.number
        rows, lanes = step.spec.shape[0], self.lanes
        if rows % lanes:
            return False
        dtype = step.spec.dtype
        one = (rows // lanes, oh, 1, ow, 1, lanes)
        each = (rows // lanes, oh, kh, ow, kw, lanes)

        def spread(value: int) -> int:
            value = self._reshape(value, one)
            return self._add("expand", (), (value,), spec(each, self.steps[value].spec.dtype))

        def line(n: int, by: int, axis: int) -> int:
            made = self._add("cast", (), (self._add("iota", (), (), spec((n,), int64)),),
                             spec((n,), int32))
            factor = self._add("full", (by,), (), spec((n,), int32))
            made = self._add("mul", (), (made, factor), spec((n,), int32))
            made = self._reshape(made, tuple([n if a == axis else 1 for a in range(6)]))
            return self._add("expand", (), (made,), spec(each, int32))

        far = self._add("add", (), (line(kh, w, 2), line(kw, 1, 4)), spec(each, int32))
        same = self._add("eq", (), (spread(self._block(found.away, 0)), far), spec(each, bool_))
        zero = self._add("full", (0.0,), (), spec(each, dtype))
        made = self._add("where", (), (same, spread(self._block(source, 0)), zero),
                         spec(each, dtype))
        made = self._reshape(made, (rows // lanes, oh * kh, ow * kw, lanes))
        if (oh * kh, ow * kw) != (h, w):
            made = self._add("pad", ((0,) * 4, (0, h - oh * kh, w - ow * kw, 0), 0.0), (made,),
                             spec((rows // lanes, h, w, lanes), dtype))
        self.blocked[number] = self._reshape(made, (rows // lanes, h * w, lanes)), 0
        return True

    def _windows(self, number: int, step: Step) -> _Windows | None:
        """The windows behind a scatter's index, if they are of one size and do not meet."""
        old = self.old
        base, index, _ = step.inputs
        if step.spec.dtype.name != "float32" or len(step.spec.shape) != 2 or step.attrs[0] != 1 \
                or old[base].op != "full" or old[base].attrs[0] != 0:
            return None
        while old[index].op == "reshape":
            index = old[index].inputs[0]
        if old[index].op != "add" or len(old[index].spec.shape) != 3:
            return None
        for first, away in (old[index].inputs, old[index].inputs[::-1]):
            starts, steps_ = self._constant(first), self._choices(away)
            if starts is not None and steps_ is not None:
                break
        else:
            return None
        if old[away].op == "cast":
            away = old[away].inputs[0]
        size = self._lines_of(number)
        if size is None or old[away].spec.dtype is not int32 or min(steps_) < 0:
            return None
        kernel = max(steps_) // size[1] + 1, max(steps_) % size[1] + 1
        count = starts.shape
        if steps_ != {y * size[1] + x for y in range(kernel[0]) for x in range(kernel[1])} \
                or any(k * n > m for k, n, m in zip(kernel, count, size, strict=True)):
            return None
        down, along = (np.arange(n) * k for n, k in zip(count, kernel, strict=True))
        if not np.array_equal(starts, down[:, None] * size[1] + along):
            return None
        return _Windows(away, size, kernel, (count[0], count[1]))

    def _lines_of(self, number: int) -> tuple[int, int] | None:
        """The sizes of what is flat in a step's last dimension, as who reads it sees them."""
        flat = self.old[number].spec.shape[-1]
        for step in self.old[number + 1:]:
            if step.op == "reshape" and step.inputs[0] == number:
                shape = step.spec.shape
                if len(shape) > 2 and shape[-1] * shape[-2] == flat:
                    return shape[-2], shape[-1]
        return None

    def _constant(self, number: int) -> np.ndarray | None:
        """The last two dimensions of a value that nothing but them decides and no leaf."""
        while self.old[number].op == "expand":
            number = self.old[number].inputs[0]
        shape = self.old[number].spec.shape
        if len(shape) != 3 or shape[0] != 1 or self.old[number].spec.numel > _LARGEST:
            return None
        needed: set[int] = set()
        stack = [number]
        while stack:
            i = stack.pop()
            if i not in needed:
                needed.add(i)
                if self.old[i].op not in _CONSTANT or self.old[i].spec.numel > _LARGEST:
                    return None
                stack.extend(self.old[i].inputs)
        from facula.reference.interpreter import interpret
        order = sorted(needed)
        place = {old: new for new, old in enumerate(order)}
        steps = [Step(s.op, s.attrs, tuple([place[j] for j in s.inputs]), s.spec, 0, s.where)
                 for s in (self.old[i] for i in order)]
        found: np.ndarray = interpret(steps, {}, (place[number],))[0][0]
        return found

    def _choices(self, number: int) -> set[int] | None:
        """The constants that an element of a value is one of."""
        found: set[Any] = set()
        stack = [number]
        while stack:
            step = self.old[stack.pop()]
            if step.op == "full" and isinstance(step.attrs[0], int):
                found.add(step.attrs[0])
            elif step.op == "where":
                stack.extend(step.inputs[1:])
            elif step.op == "cast":
                stack.extend(step.inputs)
            else:
                return None
            if len(found) > 64:
                return None
        return found
