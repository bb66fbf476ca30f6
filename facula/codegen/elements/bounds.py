"""How large a value can be, as far as the steps that make it tell.

Random numbers are made of integers of a known width, so the angle that Box and Muller's transform
takes the cosine of is known to be small, and the code for large angles need not be compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from facula.graph.spec import Step

__all__ = ["magnitude"]

_SAME = frozenset(["reshape", "permute", "expand", "slice", "as_strided", "alias", "cast", "neg",
                   "abs"])
_MOST = 64
"""Steps that are looked at."""


def magnitude(steps: Sequence[Step], number: int) -> float:
    """What no element of step `number` exceeds in absolute value, NaN neither; inf if that is not
    known."""
    left = _MOST

    def of(number: int) -> float:
        nonlocal left
        left -= 1
        step = steps[number]
        dtype = step.spec.dtype
        if left < 0 or dtype.kind == "c":
            return inf
        if dtype.kind in "bui":
            return 2.0 ** (8 * dtype.itemsize)
        if step.op == "full":
            size = abs(step.attrs[0])
            return float(size) if size == size else inf
        if step.op in _SAME:
            return of(step.inputs[0])
        if step.op in ("add", "sub", "mul"):
            a, b = of(step.inputs[0]), of(step.inputs[1])
            if inf in (a, b):
                return inf
            return a * b if step.op == "mul" else a + b
        return inf

    return of(number)
