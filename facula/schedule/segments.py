"""Programs with steps that NumPy computes: native parts, and what runs between them.

Most programs are one native part.  Where a step has no kernel (sorting, linear algebra) it waits
for the values it reads, is computed through its NumPy meaning, and what follows is another
native part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from facula.graph.spec import Step
from facula.groups.kinds import INLINE, LOOPED, MOVEMENT, REDUCE, SCAN, UPDATE, WHOLE

__all__ = ["Segment", "segments"]

_CONSTANTS = frozenset(["full", "iota", "scalar"])


@dataclass
class Segment:
    """A native part, followed by steps that NumPy computes.

    `steps` are the part's own; `inputs` maps those that are leaves of the part to steps of the
    whole program, `outputs` (of the part) are kept under `names` (of the program).  `host` are
    steps of the whole program.
    """

    steps: list[Step] = field(default_factory=list)
    inputs: dict[int, int] = field(default_factory=dict)
    outputs: list[int] = field(default_factory=list)
    names: list[int] = field(default_factory=list)
    host: list[int] = field(default_factory=list)


def segments(steps: Sequence[Step], outputs: Sequence[int]) -> list[Segment]:
    """The parts of a program, in the order in which they run."""
    level = [0] * len(steps)
    hosted = [not _lowered(step, steps) for step in steps]
    for i, step in enumerate(steps):
        level[i] = max([level[j] + hosted[j] for j in step.inputs], default=0)
    count = max([level[i] + hosted[i] for i in range(len(steps))], default=0) + 1
    return [_segment(steps, outputs, level, hosted, k) for k in range(count)]


def _segment(steps: Sequence[Step], outputs: Sequence[int], level: list[int],
             hosted: list[bool], k: int) -> Segment:
    part = Segment()
    wanted = set(outputs)
    for i, step in enumerate(steps):
        if level[i] > k or (level[i] == k and hosted[i]):
            wanted.update(step.inputs)
    part.host = [i for i in range(len(steps)) if hosted[i] and level[i] == k]
    number: dict[int, int] = {}

    def bring(i: int) -> int:
        """Step i of the program as a step of this part."""
        if i in number:
            return number[i]
        step = steps[i]
        if step.op not in _CONSTANTS or step.op == "scalar":
            part.inputs[len(part.steps)] = i
            if step.op not in ("leaf", "scalar"):
                step = Step("leaf", (None,), (), step.spec, 0, step.where)
        part.steps.append(step)
        number[i] = len(part.steps) - 1
        return number[i]

    for i, step in enumerate(steps):
        if hosted[i] or level[i] != k or step.op in ("leaf", "scalar"):
            continue
        inputs = tuple([bring(j) for j in step.inputs])
        part.steps.append(Step(step.op, step.attrs, inputs, step.spec, 0, step.where))
        number[i] = len(part.steps) - 1
        if i in wanted:
            part.outputs.append(number[i])
            part.names.append(i)
    return part


def _lowered(step: Step, steps: Sequence[Step]) -> bool:
    """Whether the loop generator can write this step (else NumPy computes it)."""
    op = step.op
    if op in ("leaf", "scalar"):
        return True
    if step.spec.dtype.is_compact or any([steps[i].spec.dtype.is_compact for i in step.inputs]):
        return False
    if op in WHOLE or op in UPDATE or op in LOOPED:
        return True
    if op in SCAN:
        return step.spec.dtype.kind != "c" or op in ("cumsum", "cumprod")
    if op in REDUCE:
        source = steps[step.inputs[0]].spec.dtype
        return source.kind != "c" or op in ("sum", "prod", "any", "all")
    if op not in INLINE:
        return False
    kinds = {steps[i].spec.dtype.kind for i in step.inputs}
    if "c" in kinds:
        from facula.codegen.elements.complex_expr import COMPLEX_OPS
        return op in COMPLEX_OPS or op not in _ELEMENTWISE
    if op == "bitcast":
        return steps[step.inputs[0]].spec.dtype.itemsize == step.spec.dtype.itemsize and \
            step.spec.dtype.kind != "c"
    return not (kinds and kinds <= set("bui") and op in _FLOAT_ONLY) and not (
        op == "sign" and "b" in kinds)


_ELEMENTWISE = INLINE - MOVEMENT - {"full", "iota", "philox", "pad", "cat", "slice_update",
                                    "take", "gather", "window_place"}
_FLOAT_ONLY = frozenset("""exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal sin cos tan
asin acos atan sinh cosh tanh asinh acosh atanh erf erfc erfinv sigmoid atan2 hypot logaddexp
copysign div""".split())
