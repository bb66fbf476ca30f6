"""What a kernel has to do: floating-point operations, and bytes that it must move.

Both are counted from the schedule and not measured: an operation on n elements is n operations
(a product of m x k and k x n matrices 2mkn, a reduction one for each element it reads), and every
value that a kernel reads or writes crosses the memory bus once.  So what a kernel computes twice,
or fetches twice, shows up as a lower rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

from facula.graph.history import CHEAP
from facula.graph.spec import Step
from facula.ops.primitive.recurrent import RECURRENT

__all__ = ["Work", "kernels_of"]

_READS_ALL = frozenset(("sum", "prod", "amax", "amin", "argmax", "argmin", "any", "all",
                        "cumsum", "cumprod", "cummax", "cummin"))
_MOVES = CHEAP | {"leaf", "scalar", "cast", "pad", "cat", "slice_update", "take", "gather",
                  "scatter", "index_put", "where"}


class Work(NamedTuple):
    """One kernel of a program: what it is, whose it is, and what it has to do."""

    name: str
    operations: str             # what it computes, as users call it
    lines: tuple[str, ...]      # of the user's program
    flops: float
    bytes: int


def _flops(steps: Sequence[Step], number: int) -> float:
    step = steps[number]
    if step.op in _MOVES or step.spec.dtype.kind not in "fc":
        return 0.0
    scale = 4 if step.spec.dtype.kind == "c" else 1
    if step.op == "matmul":
        return 2.0 * scale * step.spec.numel * steps[step.inputs[0]].spec.shape[-1]
    if step.op in ("conv_blocks", "conv_weight_blocks"):
        return 2.0 * prod(step.attrs[2]) * prod(step.attrs[1][1:])
    if step.op in ("conv", "conv_input", "conv_weight"):
        return 2.0 * _taps(steps, step)
    if step.op in RECURRENT and step.op != "recur_gates":      # which a loop has anyway
        rows, weight = (steps[i].spec for i in (step.inputs[0], _weight_of(step)))
        return 2.0 * rows.shape[0] * weight.numel
    if step.op.startswith("attention"):
        return _attended(steps, step)
    if step.op in _READS_ALL:
        return float(scale * steps[step.inputs[0]].spec.numel)
    return float(scale * step.spec.numel)


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


def _taps(steps: Sequence[Step], step: Step) -> int:
    """How many products of an element of the result and one of the weight a convolution has."""
    first, second = [steps[i].spec.shape for i in step.inputs]
    mine = step.spec.shape
    y, w = {"conv": (mine, second), "conv_input": (first, second),
            "conv_weight": (second, mine[-len(first):])}[step.op]
    return prod(y) * prod(w[1:])


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
    kernels = [k for phase in native.plan.phases[native.plan.once:]
               for k in phase.kernels]
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
        flops = sum([_flops(steps, i) for i in mine]) if main else 0.0
        out.append(Work(kernel.name, text, lines, flops, moved))
    return out
