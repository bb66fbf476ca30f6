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

from facula import config
from facula.codegen.convolutions.blocks.convolution import (
    PLACES,
    Blocks,
    adjoint_suits,
    squares_suit,
)
from facula.codegen.convolutions.blocks.weight import BlocksWeight
from facula.codegen.target import target
from facula.dtype import bool_, int32
from facula.graph.spec import Step, spec
from facula.schedule.layout import LEAST, Rewrite, fits, work

__all__ = ["training_in_blocks"]

_GRADIENTS = frozenset(["conv_input", "conv_weight"])


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


class _Training(Rewrite):
    def __init__(self, steps: Sequence[Step], lanes: int):
        super().__init__(steps, lanes)
        self.fixed = [False] * len(steps)       # weights change from step to step

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
        c = Blocks(y, turned, x, (1, 1), back, dilation, True, self.lanes)
        adjoint = adjoint_suits(c)
        side = squares_suit(c, False)
        c = adjoint or (c.by_squares(side) if side else c)
        source = self._block(step.inputs[0], 1)
        weight = own = self._plain(step.inputs[1])
        if w[2:] != (1, 1):
            weight = self._add("slice", ((0, 0, w[2] - 1, w[3] - 1), (1, 1, -1, -1)), (own,),
                               self.steps[own].spec)
        weight = self._permute(weight, (1, 0, 2, 3))
        if c.squares:
            # the transpose has the taps in their own order
            packed = self._permute(self._squared(own, c.squares), (1, 0, 2, 3)) if c.adjoint \
                else self._squared(weight, c.squares)
            inputs: tuple[int, ...] = (source, self._packed(packed, c), weight)
        else:
            inputs = (source, self._packed(weight, c))
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
        found = self._windows(step)
        if found is None or found.inputs[0] not in self.blocked:
            return False
        (h, w), _, (kh, kw), _ = found.attrs
        oh, ow = found.spec.shape[1:]
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
            made = self._add("iota", (), (), spec((n,), int32))
            factor = self._add("full", (by,), (), spec((n,), int32))
            made = self._add("mul", (), (made, factor), spec((n,), int32))
            made = self._reshape(made, tuple([n if a == axis else 1 for a in range(6)]))
            return self._add("expand", (), (made,), spec(each, int32))

        far = self._add("add", (), (line(kh, w, 2), line(kw, 1, 4)), spec(each, int32))
        away = spread(self._block(found.inputs[0], 0))
        same = self._add("eq", (), (away, far), spec(each, bool_))
        zero = self._add("full", (0.0,), (), spec(each, dtype))
        made = self._add("where", (), (same, spread(self._block(step.inputs[2], 0)), zero),
                         spec(each, dtype))
        made = self._reshape(made, (rows // lanes, oh * kh, ow * kw, lanes))
        down, along = min(oh * kh, h), min(ow * kw, w)      # a last window may end outside
        if (oh * kh, ow * kw) != (down, along):
            made = self._add("slice", ((0,) * 4, (1,) * 4), (made,),
                             spec((rows // lanes, down, along, lanes), dtype))
        if (down, along) != (h, w):
            made = self._add("pad", ((0,) * 4, (0, h - down, w - along, 0), 0.0), (made,),
                             spec((rows // lanes, h, w, lanes), dtype))
        self.blocked[number] = self._reshape(made, (rows // lanes, h * w, lanes)), 0
        return True

    def _windows(self, step: Step) -> Step | None:
        """The `window_place` behind a scatter's index, if its windows do not meet."""
        old = self.old
        base, index, _ = step.inputs
        if step.spec.dtype.name != "float32" or len(step.spec.shape) != 2 or step.attrs[0] != 1 \
                or old[base].op != "full" or old[base].attrs[0] != 0:
            return None
        while old[index].op == "reshape":
            index = old[index].inputs[0]
        found = old[index]
        if found.op != "window_place" or len(found.attrs[0]) != 2 or len(found.spec.shape) != 3:
            return None
        _, reach, stride, padding = found.attrs
        meet = any(r > s for r, s in zip(reach, stride, strict=True))
        return None if meet or any(padding) else found
