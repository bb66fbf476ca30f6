"""Layouts: convolutions of a program keep their channels in blocks.

A convolution reads and writes fastest where as many neighbouring channels as a vector has lanes
lie side by side at every place: `[N, C, H, W]` as `[N, C / lanes, H, W, lanes]`.  Here a program is
rewritten so that whole chains stay in that form: convolutions become `conv_blocks`, whose weight is
packed by ordinary steps (which depend on parameters alone, see `facula.schedule.constants`), and
everything elementwise, pooling, padding, slicing, sums over places and concatenations between them
are computed on the blocks.  Only what cannot be is brought back to the plain order.  Programs with
gradients of convolutions in them are the matter of `facula.schedule.layout_back`.

`conv_blocks` and `conv_weight_blocks` are no primitives: nothing records, differentiates, batches
or interprets them.  They come into being here, after all of that, and mean the convolution that
they stand for; their attributes are the geometry of its blocks on one processor.

A step has a blocked form along one axis of its shape, the one that the channels are part of:
its size is divided by the lanes, which become a last axis.  Where the channels are no multiple of
the lanes, the last block has more lanes than there are channels.  What these hold is of no concern,
since lanes are never mixed: a convolution reads as many as there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from facula import config
from facula.codegen.convolutions.blocks.convolution import Blocks, squares_suit, vectors_of
from facula.codegen.convolutions.blocks.transforms import FAR, NEAR
from facula.codegen.target import target
from facula.dtype import DType
from facula.graph.spec import Spec, Step, spec
from facula.groups.kinds import ELEMENTWISE
from facula.schedule.constants import fixed_steps

__all__ = ["LEAST", "Rewrite", "fits", "in_blocks", "work"]

_REDUCE = frozenset(["sum", "prod", "amax", "amin", "any", "all"])
_OTHERS = frozenset(["conv_input", "conv_weight"])
LEAST = 1 << 17
"""Multiplications below which a convolution is no reason to change a layout."""
ALONE = 400
"""The same for the only convolution, for each element that changes its place: all that it reads and
writes does."""

WASTE = 1.5
"""How many times the channels of a large convolution its blocks may have."""


def in_blocks(steps: Sequence[Step], outputs: Sequence[int]
              ) -> tuple[list[Step], list[int], dict[int, int]] | None:
    """The program with its convolutions on blocks of channels, with the old number of each of its
    leaves; None where there is none to change."""
    if not config.flag.LAYOUT or any(s.op in _OTHERS or s.mask for s in steps):
        return None
    lanes = target().lanes(4)
    found = [i for i, s in enumerate(steps) if s.op == "conv"]
    least = LEAST
    if len(found) == 1:
        image, own = steps[steps[found[0]].inputs[0]].spec, steps[found[0]].spec
        least = max(least, ALONE * (image.numel + own.numel))
    if lanes < 4 or not any(fits(steps, i, lanes) and work(steps, i) >= least for i in found):
        return None
    return Rewrite(steps, lanes).run(outputs)


def work(steps: Sequence[Step], number: int) -> int:
    """Multiplications of a convolution."""
    step = steps[number]
    return step.spec.numel * prod(steps[step.inputs[1]].spec.shape[1:])


def fits(steps: Sequence[Step], number: int, lanes: int) -> bool:
    """Whether a convolution can be computed on blocks."""
    step = steps[number]
    x, w = (steps[i].spec for i in step.inputs)
    groups = step.attrs[3]
    if step.spec.dtype.name != "float32" or x.dtype is not step.spec.dtype \
            or len(x.shape) != 4 or 0 in step.spec.shape or not x.numel:
        return False
    if -(-w.shape[0] // lanes) * lanes > WASTE * w.shape[0] and work(steps, number) >= LEAST:
        return False
    return bool(groups == 1 or groups == x.shape[1] == w.shape[0])


class Rewrite:
    """A program being rewritten: where the value of each of its steps is, in either form."""

    def __init__(self, steps: Sequence[Step], lanes: int):
        self.old, self.lanes = steps, lanes
        self.steps: list[Step] = []
        self.plain: dict[int, int] = {}
        self.blocked: dict[int, tuple[int, int]] = {}      # step -> (new number, axis)
        self.squared: dict[tuple[int, int], int] = {}
        self.where: str | None = None
        self.fixed = fixed_steps(steps)

    def run(self, outputs: Sequence[int]) -> tuple[list[Step], list[int], dict[int, int]]:
        for number, step in enumerate(self.old):
            self.where = step.where
            if not self._on_blocks(number, step):
                inputs = tuple([self._plain(i) for i in step.inputs])
                self.plain[number] = self._add(step.op, step.attrs, inputs, step.spec)
        wanted = [self._plain(o) for o in outputs]
        leaves = {new: old for old, new in self.plain.items()
                  if self.old[old].op in ("leaf", "scalar")}
        return self.steps, wanted, leaves

    # -- steps
    def _add(self, op: str, attrs: tuple[Any, ...], inputs: tuple[int, ...], out: Spec) -> int:
        self.steps.append(Step(op, attrs, inputs, out, 0, self.where))
        return len(self.steps) - 1

    def _reshape(self, number: int, shape: tuple[int, ...]) -> int:
        have = self.steps[number].spec
        if have.shape == shape:
            return number
        return self._add("reshape", (), (number,), spec(shape, have.dtype))

    def _permute(self, number: int, order: tuple[int, ...]) -> int:
        have = self.steps[number].spec
        return self._add("permute", (order,), (number,),
                         spec(tuple([have.shape[d] for d in order]), have.dtype))

    def _shape(self, shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
        """The blocked form of a shape."""
        return (*shape[:axis], -(-shape[axis] // self.lanes), *shape[axis + 1:], self.lanes)

    def _spec(self, shape: tuple[int, ...], axis: int, dtype: DType) -> Spec:
        return spec(self._shape(shape, axis), dtype)

    def _widened(self, number: int, axis: int, size: int) -> int:
        """Zeros after the value along an axis, so that it has `size`."""
        have = self.steps[number].spec
        more = size - have.shape[axis]
        if not more:
            return number
        low = (0,) * len(have.shape)
        high = tuple([more * (d == axis) for d in range(len(have.shape))])
        return self._add("pad", (low, high, 0.0), (number,), spec(
            (*have.shape[:axis], size, *have.shape[axis + 1:]), have.dtype))

    def _part(self, number: int, axis: int, first: int, size: int) -> int:
        """Some of the value along an axis."""
        have = self.steps[number].spec
        if have.shape[axis] == size:
            return number
        rank = len(have.shape)
        return self._add("slice", (tuple([first * (d == axis) for d in range(rank)]), (1,) * rank),
                         (number,), spec((*have.shape[:axis], size, *have.shape[axis + 1:]),
                                         have.dtype))

    # -- from one form to the other
    def _plain(self, number: int) -> int:
        """The step's value in its own order."""
        found = self.plain.get(number)
        if found is None:
            new, axis = self.blocked[number]
            shape = self.old[number].spec.shape
            rank = len(shape)
            if prod(shape[axis + 1:]) != 1:
                new = self._permute(new, (*range(axis + 1), rank, *range(axis + 1, rank)))
            whole = -(-shape[axis] // self.lanes) * self.lanes
            new = self._reshape(new, (*shape[:axis], whole, *shape[axis + 1:]))
            found = self.plain[number] = self._part(new, axis, 0, shape[axis])
        return found

    def _block(self, number: int, axis: int) -> int:
        """The step's value in blocks along `axis`."""
        known = self.blocked.get(number)
        if known is not None and known[1] == axis:
            return known[0]
        step = self.old[number]
        shape = step.spec.shape
        if step.op == "full":
            new = self._add("full", step.attrs, (), self._spec(shape, axis, step.spec.dtype))
        elif step.op == "expand" and len(self.old[step.inputs[0]].spec.shape) == len(shape):
            source = step.inputs[0]
            inner = self.old[source].spec.shape
            if inner[axis] == shape[axis]:
                before = self._block(source, axis)
            else:
                before = self._reshape(self._plain(source), (*inner, 1))
            new = self._add("expand", (), (before,), self._spec(shape, axis, step.spec.dtype))
        else:
            cut = (*shape[:axis], -(-shape[axis] // self.lanes), self.lanes, *shape[axis + 1:])
            plain = self._widened(self._plain(number), axis, cut[axis] * self.lanes)
            if prod(shape[axis + 1:]) == 1:
                new = self._reshape(plain, self._shape(shape, axis))
            else:
                rank = len(cut)
                order = (*range(axis + 1), *range(axis + 2, rank), axis + 1)
                new = self._permute(self._reshape(plain, cut), order)
        if known is None:
            self.blocked[number] = new, axis
        return new

    # -- one step
    def _on_blocks(self, number: int, step: Step) -> bool:
        """Compute a step in blocks if it can be and its operands are; whether it is."""
        if step.op == "conv":
            return self._convolution(number, step)
        known = [self.blocked.get(i) for i in step.inputs]
        axes = {k[1] for k in known if k is not None}
        if len(axes) != 1 or not step.spec.numel:
            return False
        axis = axes.pop()
        shape = step.spec.shape
        dtype = step.spec.dtype
        ins = [self.old[i].spec.shape for i in step.inputs]
        if step.op in ELEMENTWISE and step.op != "bitcast" or step.op == "cast":
            if any(s != shape for s in ins):
                return False
            new = self._add(step.op, step.attrs, tuple([self._block(i, axis) for i in step.inputs]),
                            self._spec(shape, axis, dtype))
        elif step.op == "reshape":
            place = self._moved(ins[0], axis, shape)
            if place is None:
                return False
            new, axis = self._reshape(self._block(step.inputs[0], axis),
                                      self._shape(shape, place)), place
        elif step.op in ("pad", "slice"):
            first, second = step.attrs[:2]
            if shape[axis] != ins[0][axis] or step.op == "slice" and second[axis] != 1:
                return False
            more = ((*first, 0), (*second, 0 if step.op == "pad" else 1), *step.attrs[2:])
            new = self._add(step.op, more, (self._block(step.inputs[0], axis),),
                            self._spec(shape, axis, dtype))
        elif step.op == "expand":
            if len(ins[0]) != len(shape) or ins[0][axis] != shape[axis]:
                return False
            new = self._add("expand", (), (self._block(step.inputs[0], axis),),
                            self._spec(shape, axis, dtype))
        elif step.op in _REDUCE and axis not in step.attrs[0]:
            source = self._block(step.inputs[0], axis)
            axis -= sum(1 for a in step.attrs[0] if a < axis)
            new = self._add(step.op, step.attrs, (source,), self._spec(shape, axis, dtype))
        elif step.op == "cat" and (step.attrs[0] != axis
                                   or all(s[axis] % self.lanes == 0 for s in ins[:-1])):
            new = self._add("cat", step.attrs, tuple([self._block(i, axis) for i in step.inputs]),
                            self._spec(shape, axis, dtype))
        else:
            return False
        self.blocked[number] = new, axis
        return True

    def _moved(self, before: tuple[int, ...], axis: int, after: tuple[int, ...]) -> int | None:
        """Which axis of a reshaped value the channels are part of: as many elements follow it."""
        behind = prod(before[axis + 1:])
        for place, n in enumerate(after):
            if prod(after[place + 1:]) == behind and (
                    n == before[axis] or n % self.lanes == before[axis] % self.lanes == 0):
                return place
        return None

    def _convolution(self, number: int, step: Step) -> bool:
        if not fits(self.old, number, self.lanes):
            return False
        image, weight = step.inputs
        known = self.blocked.get(image)
        if (known is None or known[1] != 1) and work(self.old, number) < LEAST:
            return False
        x, w = (self.old[i].spec.shape for i in step.inputs)
        stride, low, dilation, groups = step.attrs
        blocked = x[1] >= self.lanes or groups > 1 or (known is not None and known[1] == 1)
        c = Blocks(x, w, step.spec.shape, stride, low, dilation, blocked, self.lanes, groups > 1)
        side = squares_suit(c, self.fixed[weight])
        if side:
            c = c.by_squares(side)
        source = self._block(image, 1) if blocked else self._plain(image)
        kernel = self._plain(weight)
        inputs: tuple[int, ...]
        if c.squares:                   # and the weight itself, for what is not finite
            inputs = source, self._packed(self._squared(kernel, c.squares), c), kernel
        else:
            inputs = source, self._packed(kernel, c)
        self.blocked[number] = self._add("conv_blocks", c.attrs(), inputs, self._spec(
            step.spec.shape, 1, step.spec.dtype)), 1
        return True

    # -- the weight
    def _squared(self, w: int, side: int) -> int:
        """The weight's transform for squares of `side`."""
        found = self.squared.get((w, side))
        if found is None:
            found = self.squared[w, side] = self._spread(self._spread(w, 2, side), 3, side)
        return found

    def _packed(self, w: int, c: Blocks) -> int:
        """The weight, or its transform, in the order in which the kernel reads it; see
        `facula.codegen.convolutions.blocks.forward`."""
        lanes = self.lanes
        o, i, *kernel = c.w
        taps = prod(kernel)
        if c.depthwise:
            w = self._widened(self._reshape(w, (o, taps)), 0, -(-o // lanes) * lanes)
            return self._permute(self._reshape(w, (-(-o // lanes), lanes, taps)), (0, 2, 1))
        if c.squares:
            taps = (c.squares + 2) ** 2
        nr = vectors_of(c) * lanes
        panels = -(-o // nr)
        w = self._widened(self._reshape(w, (o, i, taps)), 0, panels * nr)
        if not c.blocked:
            return self._permute(self._reshape(w, (panels, nr, i, taps)), (0, 2, 3, 1))
        whole = i // lanes * lanes
        parts = []
        if whole:
            cut = self._reshape(self._part(w, 1, 0, whole),
                                (panels, nr, whole // lanes, lanes, taps))
            if c.squares:
                return self._permute(cut, (0, 4, 2, 3, 1))
            parts.append(self._permute(cut, (0, 2, 4, 3, 1)))
        if whole != i:
            cut = self._reshape(self._part(w, 1, whole, i - whole), (panels, nr, i - whole, taps))
            parts.append(self._permute(cut, (0, 3, 2, 1)))
        if len(parts) == 1:
            return parts[0]
        lines = [self._reshape(p, (panels, prod(self.steps[p].spec.shape[1:-1]), nr))
                 for p in parts]
        return self._add("cat", (1,), tuple(lines),
                         spec((panels, i * taps, nr), self.steps[w].spec.dtype))

    def _spread(self, w: int, axis: int, side: int) -> int:
        """Three taps a, b, c along an axis as the four of minimal filtering, a, (a+b+c)/2,
        (a-b+c)/2, c, or the six of larger squares: the values of a + b x + c x^2 at their points,
        over the products of a point's distances from the others."""
        have = self.steps[w].spec
        line = spec((*have.shape[:axis], 1, *have.shape[axis + 1:]), have.dtype)
        a, b, c = (self._add("slice", (tuple([k * (d == axis) for d in range(4)]), (1,) * 4),
                             (w,), line) for k in range(3))

        def scaled(value: int, by: float) -> int:
            factor = self._add("full", (by,), (), line)
            return self._add("mul", (), (value, factor), line)

        def either(ends: int, middle: int) -> list[int]:
            return [self._add(op, (), (ends, middle), line) for op in ("add", "sub")]

        if side == 2:
            found = [a, *either(scaled(self._add("add", (), (a, c), line), 0.5), scaled(b, 0.5))]
        else:
            near, far = NEAR ** 2, FAR ** 2
            found = [scaled(a, 1 / (near * far))]
            for point, other in ((NEAR, far), (FAR, near)):
                over = 2 * point ** 2 * (point ** 2 - other)
                ends = self._add("add", (), (a, scaled(c, point ** 2)), line)
                found += either(scaled(ends, 1 / over), scaled(b, point / over))
        return self._add("cat", (axis,), (*found, c),
                         spec((*have.shape[:axis], side + 2, *have.shape[axis + 1:]), have.dtype))
