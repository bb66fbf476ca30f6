"""Rewriting a program's steps before it is scheduled: the same values, fewer operations.

One pass forward over the steps that the outputs need: inputs are replaced by what they were
rewritten to, then `_rewrite` looks at one step and its inputs, then a step equal to an earlier
one is that one.  A rewrite may not change a single bit of any value; sums that are split in two, or
joined (`facula.schedule.sums`), are the exception, by the program's structure and sizes alone.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from facula.codegen.elements.reductions import identity
from facula.dtype import DType
from facula.graph.spec import Spec, Step, freeze_number, spec
from facula.schedule.orders import arg_extreme, argsort
from facula.schedule.recurrences import gates_apart, kept_gates, partial_sums
from facula.schedule.special import FORMULAS, by_formula
from facula.schedule.sums import join_sums
from facula.schedule.windows import join_windows

__all__ = ["simplify", "needed", "SPLIT_ABOVE"]

REDUCE = frozenset(["sum", "prod", "amax", "amin", "any", "all"])
_SOURCES = frozenset(["leaf", "scalar"])
_COMMUTATIVE = frozenset(["add", "mul"])
_UPDATE = frozenset(["scatter", "index_put", "as_strided_update", "slice_update"])

SPLIT_ABOVE = 16_384
"""A reduction of more elements than this to a few is done in two rounds, the first in parallel."""

_CHUNKS = 64

_CONVOLUTIONS = frozenset(["conv", "conv_input", "conv_weight"])


def needed(steps: Sequence[Step], outputs: Sequence[int]) -> list[bool]:
    """Which steps the outputs are computed from."""
    live = [False] * len(steps)
    for o in outputs:
        live[o] = True
    for i in range(len(steps) - 1, -1, -1):
        if live[i]:
            for j in steps[i].inputs:
                live[j] = True
    return live


class _Builder:
    """The steps being written, each distinct computation once."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.known: dict[Any, int] = {}
        self.new: list[int] = []        # for each step of the program before: its number here
        self.tails: set[int] = set()    # products, and what is made of their elements one by one

    def add(self, op: str, attrs: tuple[Any, ...], inputs: tuple[int, ...], out: Spec,
            where: str | None) -> int:
        """The number of this step, which may be an old one or a simpler one."""
        found = _rewrite(self, op, attrs, inputs, out, where)
        if found is not None:
            return found
        return self.enter(op, attrs, inputs, out, where)

    def enter(self, op: str, attrs: tuple[Any, ...], inputs: tuple[int, ...], out: Spec,
              where: str | None) -> int:
        same = tuple(sorted(inputs)) if op in _COMMUTATIVE else inputs
        key = (op, attrs, same, out)
        if op not in _SOURCES:
            known = self.known.get(key)
            if known is not None:
                return known
        self.steps.append(Step(op, attrs, inputs, out, 0, where))
        self.known[key] = number = len(self.steps) - 1
        if op == "matmul" or not self.tails.isdisjoint(inputs) and op in _foldable():
            self.tails.add(number)
        return number

    def full(self, value: Any, out: Spec) -> int:
        if isinstance(value, complex):
            value = complex(freeze_number(value.real), freeze_number(value.imag))
        return self.enter("full", (freeze_number(value),), (), out, None)


def simplify(steps: Sequence[Step], outputs: Sequence[int]
             ) -> tuple[list[Step], dict[int, int], list[int]]:
    """(new steps, old number -> new number, the outputs' new numbers).

    Every output is a step of its own and no leaf, because every one gets memory of its own.
    """
    live = needed(steps, outputs)
    build = _Builder()
    new: dict[int, int] = {}
    for i, step in enumerate(steps):
        if live[i] or step.op in _SOURCES:
            inputs = tuple([new[j] for j in step.inputs])
            new[i] = build.add(step.op, step.attrs, inputs, step.spec, step.where)
    joined, places_ = join_windows(build.steps, [new[o] for o in outputs])
    new = {old: places_[n] for old, n in new.items()}
    turned = _turn_products(joined, [new[o] for o in outputs])
    new = {old: turned.new[n] for old, n in new.items()}
    steps_, places_ = join_sums(turned.steps, [new[o] for o in outputs])
    new = {old: places_[n] for old, n in new.items()}
    taken: set[int] = set()
    places = []
    for o in outputs:
        n = new[o]
        if n in taken or steps_[n].op in _SOURCES:
            steps_.append(Step("alias", (), (n,), steps_[n].spec, 0, steps[o].where))
            n = len(steps_) - 1
        taken.add(n)
        places.append(n)
    return _drop(steps_, new, places)


def _turn_products(steps: list[Step], outputs: list[int]) -> _Builder:
    """Transposed products as products of the transposed, where only that is wanted.

    The gradient of a weight comes out of autograd as the transpose of a product.  Turned around it
    has the weight's own layout, and the weight's update can follow in the product's epilogue.
    """
    readers = [0] * len(steps)
    for step in steps:
        for j in step.inputs:
            readers[j] += 1
    for o in outputs:
        readers[o] += 1
    build = _Builder()
    for step in steps:
        inputs = tuple([build.new[j] for j in step.inputs])
        n = None
        if step.op == "permute" and len(step.attrs[0]) >= 2 and readers[step.inputs[0]] == 1:
            order = step.attrs[0]
            swap = (*range(len(order) - 2), len(order) - 1, len(order) - 2)
            inner = steps[step.inputs[0]]
            if inner.op == "matmul" and order == swap:
                b, a = (build.add("permute", (swap,), (build.new[j],), spec(
                    tuple([steps[j].spec.shape[p] for p in swap]), steps[j].spec.dtype),
                    step.where) for j in inner.inputs)
                n = build.add("matmul", inner.attrs, (a, b), step.spec, inner.where)
        if n is None:
            n = build.enter(step.op, step.attrs, inputs, step.spec, step.where)
        build.new.append(n)
    return build


def _drop(steps: list[Step], new: dict[int, int], outputs: list[int]
          ) -> tuple[list[Step], dict[int, int], list[int]]:
    """Leave out what rewriting has made useless."""
    live = needed(steps, outputs)
    for i, step in enumerate(steps):
        if step.op in _SOURCES:
            live[i] = True
    if all(live):
        return steps, new, outputs
    number: dict[int, int] = {}
    kept: list[Step] = []
    for i, step in enumerate(steps):
        if live[i]:
            number[i] = len(kept)
            kept.append(Step(step.op, step.attrs, tuple([number[j] for j in step.inputs]),
                             step.spec, 0, step.where))
    return (kept, {old: number[n] for old, n in new.items() if n in number},
            [number[o] for o in outputs])


# ------------------------------------------------------------------------ one step

def _rewrite(b: _Builder, op: str, attrs: tuple[Any, ...], inputs: tuple[int, ...], out: Spec,
             where: str | None) -> int | None:
    if op in _SOURCES or op == "full":
        return None
    steps = b.steps
    if out.numel == 0:
        return b.full(0, out)
    ins = [steps[i] for i in inputs]
    if op == "alias":
        return inputs[0]
    if op == "graft":
        return inputs[1]
    if op in _MOVES:
        return _MOVES[op](b, attrs, inputs[0], ins[0], out, where)
    if op == "cat":
        return _cat(b, attrs, inputs, ins, out, where)
    if op in REDUCE:
        return _reduction(b, op, attrs, inputs[0], ins[0], out, where)
    if op == "argsort":
        return argsort(b.add, steps, attrs, inputs[0], where)
    if op in FORMULAS:
        return by_formula(b.add, steps, op, inputs[0], out, where)
    if op in ("argmax", "argmin"):
        return arg_extreme(b.add, steps, op, attrs, inputs[0], where)
    if op == "matmul":
        return b.full(0, out) if ins[0].spec.shape[-1] == 0 else None
    if op in _CONVOLUTIONS:
        return _convolution(b, op, attrs, inputs, ins, out, where)
    if op == "recur_gates":
        gates = Step(op, attrs, inputs, out, 0, where)
        return gates_apart(b.add, steps, gates) if kept_gates(steps, gates) is None else None
    if op in _UPDATE and ins[1 if op != "scatter" else 2].spec.numel == 0:
        return inputs[0]
    if op == "pad" and ins[0].spec.numel == 0:
        return b.full(attrs[2], out)
    if op == "slice_update" and ins[1].spec.shape == out.shape and not any(attrs[0]) \
            and all(s == 1 for s in attrs[1]):
        return inputs[1]
    if inputs and all(s.op == "full" for s in ins) and op in _foldable():
        return _fold(b, op, attrs, ins, out)
    found = _algebra(op, inputs, ins, out)
    return _before_reshape(b, op, attrs, ins, out, where) if found is None else found


def _before_reshape(b: _Builder, op: str, attrs: tuple[Any, ...], ins: list[Step], out: Spec,
                    where: str | None) -> int | None:
    """What is done to a reshaped product is done before it is reshaped: in the product's tiles."""
    inner = [s.inputs[0] for s in ins if s.op == "reshape"]
    if b.tails.isdisjoint(inner) or op not in _foldable():
        return None
    shape = b.steps[inner[0]].spec.shape
    if any(s.op != "full" and (s.op != "reshape" or b.steps[s.inputs[0]].spec.shape != shape)
           for s in ins):
        return None
    inputs = [b.full(s.attrs[0], spec(shape, s.spec.dtype)) if s.op == "full" else s.inputs[0]
              for s in ins]
    made = b.add(op, attrs, tuple(inputs), spec(shape, out.dtype), where)
    return b.add("reshape", (), (made,), out, where)


def _reshape(b: _Builder, attrs: tuple[Any, ...], i: int, step: Step, out: Spec,
             where: str | None) -> int | None:
    if step.spec.shape == out.shape:
        return i
    if step.op == "full":
        return b.full(step.attrs[0], out)
    if step.op == "reshape":
        return b.add("reshape", (), step.inputs, out, where)
    return None


def _permute(b: _Builder, attrs: tuple[Any, ...], i: int, step: Step, out: Spec,
             where: str | None) -> int | None:
    order = attrs[0]
    if order == tuple(range(len(order))):
        return i
    if step.op == "full":
        return b.full(step.attrs[0], out)
    if step.op == "permute":
        inner = step.attrs[0]
        return b.add("permute", (tuple([inner[p] for p in order]),), step.inputs, out, where)
    return None


def _expand(b: _Builder, attrs: tuple[Any, ...], i: int, step: Step, out: Spec,
            where: str | None) -> int | None:
    if step.spec.shape == out.shape:
        return i
    if step.op == "full":
        return b.full(step.attrs[0], out)
    if step.op == "expand":
        return b.add("expand", (), step.inputs, out, where)
    return None


def _slice(b: _Builder, attrs: tuple[Any, ...], i: int, step: Step, out: Spec,
           where: str | None) -> int | None:
    if step.op == "full":
        return b.full(step.attrs[0], out)
    starts, strides = attrs
    if step.spec.shape == out.shape and not any(starts) and all(s == 1 for s in strides):
        return i
    if step.op == "slice":
        first, by = step.attrs
        return b.add("slice", (tuple([f + s * p for f, s, p in zip(first, starts, by)]),
                               tuple([s * p for s, p in zip(strides, by)])),
                     step.inputs, out, where)
    if step.op == "slice_update" and step.attrs == attrs \
            and b.steps[step.inputs[1]].spec is out:
        return step.inputs[1]
    return None


def _as_strided(b: _Builder, attrs: tuple[Any, ...], i: int, step: Step, out: Spec,
                where: str | None) -> int | None:
    return b.full(step.attrs[0], out) if step.op == "full" else None


def _cast(b: _Builder, attrs: tuple[Any, ...], i: int, step: Step, out: Spec,
          where: str | None) -> int | None:
    if step.spec.dtype is out.dtype:
        return i
    return _fold(b, "cast", attrs, [step], out) if step.op == "full" else None


_MOVES = {"reshape": _reshape, "permute": _permute, "expand": _expand, "slice": _slice,
          "as_strided": _as_strided, "cast": _cast}


def _cat(b: _Builder, attrs: tuple[Any, ...], inputs: tuple[int, ...], ins: list[Step], out: Spec,
         where: str | None) -> int | None:
    filled = tuple([i for i, s in zip(inputs, ins) if s.spec.numel])
    if len(filled) == 1:
        return filled[0]
    if len(filled) < len(inputs):
        return b.add("cat", attrs, filled, out, where)
    return None


def _reduction(b: _Builder, op: str, attrs: tuple[Any, ...], i: int, step: Step, out: Spec,
               where: str | None) -> int | None:
    """Nothing to reduce, or very much: then in two rounds over equal chunks."""
    shape, axes = step.spec.shape, attrs[0]
    if step.spec.numel == 0:
        return b.full(identity(op, step.spec.dtype), out)
    sums = partial_sums(b.steps, i) if op == "sum" and axes == (0,) else None
    if sums is not None:
        inner = b.enter(sums.op, sums.attrs, sums.inputs, sums.spec, where)
        return b.enter(op, attrs, (inner,), out, where)
    if all(shape[a] == 1 for a in axes):
        if op in ("any", "all"):
            return None
        return b.add("reshape", (), (i,), out, where)
    if out.numel >= 16 or step.spec.numel <= SPLIT_ABOVE or out.numel * 64 > step.spec.numel \
            or step.spec.dtype.itemsize < 4 and step.spec.dtype.kind == "f":
        return None
    if op in ("any", "all") and step.spec.dtype.kind != "b":
        return None
    # the largest reduced axis is cut into chunks
    axis = max(axes, key=lambda a: shape[a])
    n = shape[axis]
    most = max(_CHUNKS // max(out.numel, 1), 2)
    chunks = next((c for c in range(min(most, n), 1, -1) if n % c == 0), 1)
    if chunks < 4:
        return None
    cut = (*shape[:axis], chunks, n // chunks, *shape[axis + 1:])
    wide = b.add("reshape", (), (i,), spec(cut, step.spec.dtype), where)
    first = tuple(sorted([a + (a > axis) for a in axes if a != axis] + [axis + 1]))
    left = tuple([d for k, d in enumerate(cut) if k not in first])
    inner = b.enter(op, (first,), (wide,), spec(left, out.dtype), where)
    place = axis - sum(1 for a in first if a < axis)
    return b.enter(op, ((place,),), (inner,), out, where)


def _convolution(b: _Builder, op: str, attrs: tuple[Any, ...], inputs: tuple[int, ...],
                 ins: list[Step], out: Spec, where: str | None) -> int | None:
    """Of nothing, of bfloat16 tensors, which need not be widened, or the gradient of a small
    weight: then in parts, which are summed in turn."""
    if any(s.spec.numel == 0 for s in ins):
        return b.full(0, out)
    if all(s.op == "cast" and b.steps[s.inputs[0]].spec.dtype.name == "bfloat16" for s in ins) \
            and out.dtype.name == "float32":
        from facula.codegen.convolutions.pairs import worth_pairs
        image = out if op == "conv_input" else ins[0].spec
        weight = out if op == "conv_weight" else ins[1].spec
        whole = op != "conv_weight" or not attrs[4]
        if whole and worth_pairs(op, image.shape, weight.shape, attrs[3]):
            return b.add(op, attrs, tuple([s.inputs[0] for s in ins]), out, where)
    if op != "conv_weight" or attrs[4]:
        return None
    from facula.codegen.convolutions.weight import weight_parts
    stride, low, dilation, groups, _ = attrs
    parts = weight_parts(ins[0].spec.shape, out.shape, ins[1].spec.shape, stride, low, dilation,
                         groups, ins[0].spec.dtype.itemsize)
    if not parts:
        return None
    split = spec((parts, *out.shape), out.dtype)
    cut = b.enter(op, (stride, low, dilation, groups, parts), inputs, split, where)
    return b.enter("sum", ((0,),), (cut,), out, where)


# ------------------------------------------------------------------------ values

@functools.lru_cache(maxsize=None)
def _foldable() -> frozenset[str]:
    from facula.groups.kinds import ELEMENTWISE
    return ELEMENTWISE - {"bitcast"}


def _fold(b: _Builder, op: str, attrs: tuple[Any, ...], ins: list[Step], out: Spec) -> int:
    """An elementwise operation on constants, computed now by its NumPy meaning."""
    from facula.ops.table import PRIMS
    full = PRIMS["full"].numpy
    arrays = [full([], s.attrs, spec((), s.spec.dtype)) for s in ins]
    with np.errstate(all="ignore"):
        value = np.asarray(PRIMS[op].numpy(arrays, attrs, spec((), out.dtype)))
    return b.full(_plain(value, out.dtype), out)


def _plain(value: np.ndarray, dtype: DType) -> Any:
    """A 0-dim array as a Python number of the same value."""
    if dtype.kind == "f":
        return float(value)
    if dtype.kind == "c":
        return complex(value)
    return bool(value) if dtype.kind == "b" else int(value)


def _is(step: Step, value: float) -> bool:
    """Whether a step is the constant `value`, sign of zero included."""
    if step.op != "full":
        return False
    have = step.attrs[0]
    if isinstance(have, complex) or have != value:
        return False
    return bool(value) or step.spec.dtype.kind != "f" or \
        str(float(have))[0] == str(float(value))[0]


def _algebra(op: str, inputs: tuple[int, ...], ins: list[Step], out: Spec) -> int | None:
    """Operations with a neutral element."""
    if len(ins) == 2 and ins[0].spec is out and ins[1].spec is out:
        floating = out.dtype.kind == "f"
        if op == "mul" and out.dtype.kind in "uif":
            if _is(ins[1], 1):
                return inputs[0]
            if _is(ins[0], 1):
                return inputs[1]
        elif op == "div" and floating and _is(ins[1], 1):
            return inputs[0]
        elif op == "add" and out.dtype.kind in "uif":
            zero = -0.0 if floating else 0
            if _is(ins[1], zero):
                return inputs[0]
            if _is(ins[0], zero):
                return inputs[1]
        elif op == "sub" and out.dtype.kind in "uif" and _is(ins[1], 0):
            return inputs[0]
    if op == "where" and ins[0].op == "full":
        return inputs[1] if ins[0].attrs[0] else inputs[2]
    return None


