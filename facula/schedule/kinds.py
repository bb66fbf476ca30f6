"""Kinds of steps as the schedule tells them apart, and what an element of each costs."""

from __future__ import annotations

from collections.abc import Sequence

from facula.codegen.elements.lower import INLINE, MOVEMENT
from facula.graph.spec import Step
from facula.schedule.products import WHOLE
from facula.schedule.recurrences import LOOPED

__all__ = ["FREE", "REDUCE", "SCAN", "UPDATE", "lowered", "op_cost"]

REDUCE = frozenset(["sum", "prod", "amax", "amin", "any", "all", "argmax", "argmin"])
SCAN = frozenset(["cumsum", "cumprod", "cummax", "cummin"])
UPDATE = frozenset(["scatter", "index_put", "as_strided_update"])
FREE = frozenset(["leaf", "scalar", "full", "iota"])
"""Nothing is computed for these."""

_COSTS = {"exp": 8, "expm1": 10, "log": 8, "log1p": 10, "log2": 8, "log10": 8, "exp2": 8,
          "sin": 10, "cos": 10, "tan": 14, "tanh": 12, "erf": 12, "erfc": 16, "erfinv": 40,
          "sigmoid": 12, "pow": 25, "div": 4, "sqrt": 4, "rsqrt": 6, "reciprocal": 4, "philox": 40,
          "floor_divide": 12, "remainder": 12, "fmod": 20, "atan2": 20, "hypot": 8,
          "logaddexp": 20, "take": 3, "gather": 12, "cat": 3, "pad": 3, "slice_update": 4}
_TRANSCENDENTAL = 10


def op_cost(step: Step) -> int:
    """Rough cost of one element, in simple vector operations."""
    if step.op in MOVEMENT or step.op in ("full", "scalar", "leaf", "iota"):
        return 0
    if step.op in ("sin", "cos", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh",
                   "atanh"):
        return _TRANSCENDENTAL
    return _COSTS.get(step.op, 1)


def lowered(step: Step, steps: Sequence[Step]) -> bool:
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
