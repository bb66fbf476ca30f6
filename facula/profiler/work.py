"""What a kernel has to do: floating-point operations, and bytes that it must move.

Both are counted from the schedule and not measured: an operation on n elements is n operations
(a product of m x k and k x n matrices 2mkn, a reduction one for each element it reads), and every
value that a kernel reads or writes crosses the memory bus once.  So what a kernel computes twice,
or fetches twice, shows up as a lower rate.  Convolutions are counted as plain sums, and beside that
what minimal filtering spares of them.

What a whole program has to do at least (`demand_of`) is its products, each once, and its arguments
and results; what it keeps between its kernels is the schedule's choice, and not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

from facula.codegen.convolutions.blocks.convolution import Blocks
from facula.codegen.convolutions.blocks.weight import BlocksWeight
from facula.codegen.convolutions.convolution import Convolution
from facula.codegen.convolutions.weight import WeightSizes
from facula.codegen.convolutions.winograd import worthwhile
from facula.codegen.kernel import View
from facula.codegen.target import target
from facula.dtype import bfloat16, float32
from facula.graph.history import CHEAP
from facula.graph.spec import Step
from facula.ops.primitive.recurrent import RECURRENT
from facula.profiler.roof import Roof

__all__ = ["Demand", "Work", "demand_of", "kernels_of"]

_READS_ALL = frozenset(("sum", "prod", "amax", "amin", "argmax", "argmin", "any", "all",
                        "cumsum", "cumprod", "cummax", "cummin"))
_ON_BLOCKS: dict[str, type[Blocks] | type[BlocksWeight]] = {
    "conv_blocks": Blocks, "conv_weight_blocks": BlocksWeight}
_CONVOLUTIONS = ("conv", "conv_input", "conv_weight")
_ANYWHERE = View((), 0)
_FEWER = 36 / 16                # multiplications of plain sums and of minimal filtering
_MOVES = CHEAP | {"leaf", "scalar", "cast", "pad", "cat", "slice_update", "take", "gather",
                  "scatter", "index_put", "where"}


class Work(NamedTuple):
    """One kernel of a program: what it is, whose it is, and what it has to do."""

    name: str
    operations: str             # what it computes, as users call it
    lines: tuple[str, ...]      # of the user's program
    flops: float
    bytes: int
    short: float = 0.0          # of the operations, those of products of bfloat16
    spared: float = 0.0         # of the operations, those that minimal filtering does without

    def least(self, roof: Roof) -> float:
        """Seconds that the machine needs for what the kernel does, spared operations left out."""
        return roof.seconds(self.flops - self.short - self.spared, self.bytes, self.short)


class Demand(NamedTuple):
    """What some work has to do at least: operations of its products, by plain sums; of those, the
    ones of bfloat16 and the ones that minimal filtering does without; bytes of arguments and
    results, those that are read and those that are written."""

    products: float = 0.0
    short: float = 0.0
    spared: float = 0.0
    read: float = 0.0
    written: float = 0.0

    def plus(self, other: Demand, times: float = 1.0) -> Demand:
        """With so many times another's."""
        return Demand(*[a + times * b for a, b in zip(self, other)])


def _flops(steps: Sequence[Step], number: int) -> float:
    step = steps[number]
    if step.op in _MOVES or step.spec.dtype.kind not in "fc":
        return 0.0
    found = _products(steps, number)
    if found is not None:
        return found
    scale = 4 if step.spec.dtype.kind == "c" else 1
    if step.op in _READS_ALL:
        return float(scale * steps[step.inputs[0]].spec.numel)
    return float(scale * step.spec.numel)


def _products(steps: Sequence[Step], number: int) -> float | None:
    """Operations of a product, a convolution, or a loop or attention made of such; else None."""
    step = steps[number]
    if step.op == "matmul":
        scale = 4 if step.spec.dtype.kind == "c" else 1
        return 2.0 * scale * step.spec.numel * steps[step.inputs[0]].spec.shape[-1]
    if step.op in _ON_BLOCKS:
        c = _ON_BLOCKS[step.op](*step.attrs)
        # An input's gradient reaches over the edges of the result's, where there is nothing.
        return c.direct() * min(prod(c.x[2:]) / max(prod(c.y[2:]), 1), 1.0)
    if step.op in _CONVOLUTIONS:
        _, y, w = _shapes(steps, step)
        return 2.0 * prod(y) * prod(w[1:])
    if step.op in RECURRENT and step.op != "recur_gates":      # which a loop has anyway
        rows, weight = (steps[i].spec for i in (step.inputs[0], _weight_of(step)))
        return 2.0 * rows.shape[0] * weight.numel
    if step.op.startswith("attention"):
        return _attended(steps, step)
    return None


def _short(steps: Sequence[Step], number: int) -> float:
    """Those of `_products` whose factors are bfloat16."""
    step = steps[number]
    if any(steps[i].spec.dtype is not bfloat16 for i in step.inputs[:2]):
        return 0.0
    return _products(steps, number) or 0.0


def _spared(steps: Sequence[Step], number: int) -> float:
    """Those of `_products` that minimal filtering does without."""
    step = steps[number]
    plain = _products(steps, number) or 0.0
    if step.op in _ON_BLOCKS:
        return max(plain - _ON_BLOCKS[step.op](*step.attrs).flops, 0.0)
    if step.op in _CONVOLUTIONS and step.spec.dtype is float32 and not _short(steps, number):
        x, y, w = _shapes(steps, step)
        stride, low, dilation, groups = step.attrs[:4]
        if step.op == "conv_weight":
            squares = WeightSizes(x, w, y, stride, low, dilation, groups, 4, target()).squares
        else:
            walks = Convolution(step.op, "float32", x, w, y, stride, low, dilation, groups,
                                _ANYWHERE, _ANYWHERE).walks()
            red, out = w[1], w[0] // groups
            if step.op == "conv_input":
                red, out = out, red
            squares = len(walks) == 1 and worthwhile("float32", walks[0], x[0], red, out,
                                                     target().lanes(4))
        return plain - plain / _FEWER if squares else 0.0
    return 0.0


def _weight_of(step: Step) -> int:
    return step.inputs[RECURRENT[step.op](step.attrs[0])]


def _attended(steps: Sequence[Step], step: Step) -> float:
    """Products of scores with rows of queries, keys and values.  The five of a gradient are shared
    out among its three results; of causal scores half are looked at."""
    *lead, rows, width = steps[step.inputs[0]].spec.shape
    keys = steps[step.inputs[1]].spec.shape[-2]
    deep = steps[step.inputs[2]].spec.shape[-1] if len(step.inputs) > 2 else 0
    terms = {"attention": width + deep, "attention_lse": 0, "attention_dq": width + deep,
             "attention_dk": width, "attention_dv": width + deep}[step.op]
    return 2.0 * prod(lead) * rows * keys * terms * (0.5 if step.attrs[1] else 1.0)


def _shapes(steps: Sequence[Step], step: Step) -> tuple[tuple[int, ...], ...]:
    """Of a convolution's input, result and weight, whichever of its three products this is."""
    first, second = [steps[i].spec.shape for i in step.inputs]
    mine = step.spec.shape
    return {"conv": (first, mine, second), "conv_input": (mine, first, second),
            "conv_weight": (first, second, mine[-len(first):])}[step.op]


def _inside(steps: Sequence[Step], items: Sequence[int], stored: frozenset[int]) -> list[int]:
    """The steps that a group computes: its items, and what they need that is not in memory."""
    found = set(items)
    todo = list(items)
    while todo:
        for i in steps[todo.pop()].inputs:
            if i not in stored and i not in found:
                found.add(i)
                todo.append(i)
    return sorted(found)


def kernels_of(program: Any) -> list[Work]:
    """The kernels of a compiled program (`facula.runtime.program.Program`) in their order."""
    if program.origin is None:
        return []
    steps, native = program.origin
    kernels = _kernels(native)
    reports = {r.group: r for r in native.reports}
    inside = {g: _inside(steps, r.steps, native.stored) for g, r in reports.items()}
    out = []
    for kernel in kernels:
        report = reports[kernel.group]
        mine = inside[kernel.group]
        main = report.kernels[-1] == kernel.name        # the others pack or copy for it
        ops = [steps[i].op for i in mine if steps[i].op not in CHEAP
               and steps[i].op not in ("leaf", "scalar")]
        lines = tuple(dict.fromkeys([steps[i].where or "" for i in report.steps
                                     if steps[i].where]))
        names = list(dict.fromkeys(ops)) or [steps[i].op for i in report.steps]
        text = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        if not main:
            text = f"prepare {text}"
        moved = sum([native.sizes.get(s, 0) for s in set(kernel.slots)])
        flops, short, spared = [sum([count(steps, i) for i in mine]) if main else 0.0
                                for count in (_flops, _short, _spared)]
        out.append(Work(kernel.name, text, lines, flops, moved, short, spared))
    return out


def demand_of(program: Any) -> Demand:
    """What a compiled program has to do at least in one run."""
    if program.origin is None:
        return Demand()
    steps, native = program.origin
    kernels = _kernels(native)
    done = {k.group for k in kernels}
    mine = {i for r in native.reports if r.group in done
            for i in _inside(steps, r.steps, native.stored)}
    products = [i for i in mine if _products(steps, i)]
    # Arguments in their order: those that are read, results, and what was prepared to be read.
    slots = [slot for slot, _ in native.plan.arguments]
    first, last = len(native.inputs), len(native.inputs) + len(native.outputs)
    used = {s for k in kernels for s in k.slots}
    moved = [float(sum([native.sizes.get(s, 0) for s in set(group) & used]))
             for group in (slots[:first] + slots[last:last + len(native.kept)], slots[first:last])]
    return Demand(*[float(sum([count(steps, i) or 0.0 for i in products]))
                    for count in (_products, _short, _spared)], *moved)


def _kernels(native: Any) -> list[Any]:
    """Those of a run."""
    return [k for phase in native.plan.phases[native.plan.once:] for k in phase.kernels]
