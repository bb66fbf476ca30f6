"""Run a graph on NumPy: every step by its declared meaning, one after the other.

This is the oracle of the compiled programs, what `FACULA_JIT=0` runs on, and what small programs
are run with until they have proved worth compiling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facula.graph.spec import Spec, Step

__all__ = ["interpret", "evaluate"]


def interpret(steps: Sequence[Step], leaves: dict[int, Any], outputs: Sequence[int]
              ) -> list[np.ndarray]:
    """The values of the steps `outputs`, each an array of its step's shape and dtype.

    `leaves` holds an ndarray for each 'leaf' step and a number for each 'scalar' step.  Only
    what the outputs need is computed, and a value is dropped after its last use.  The arrays
    returned may alias a leaf or each other, and need not be contiguous.  Raises what a step
    raises, with a note saying which step it was and where the program recorded it.
    """
    from facula.ops.table import PRIMS
    needed, last = plan(steps, outputs)
    values: dict[int, np.ndarray] = {}
    with np.errstate(all="ignore"):
        for i in needed:
            if steps[i].op in ("leaf", "scalar"):
                values[i] = leaves[i]
            values[i] = evaluate(PRIMS, steps[i], values, i)
            for j in last[i]:
                del values[j]
    return [values[i] for i in outputs]


def evaluate(prims: Any, step: Step, values: dict[int, Any], number: int) -> Any:
    """The value of step `number` from those of its inputs; a leaf's own stands there already."""
    if step.op == "leaf":
        return values[number]
    if step.op == "scalar":
        return _number(values[number], step.spec)
    try:
        inputs = [values[j] for j in step.inputs]
        return _checked(prims[step.op].numpy(inputs, step.attrs, step.spec), step)
    except Exception as error:
        error.add_note(f"in step %{number}: {step}, recorded at "
                       f"{step.where or 'a line that is not known'}")
        raise


def plan(steps: Sequence[Step], outputs: Sequence[int]
         ) -> tuple[list[int], dict[int, Sequence[int]]]:
    """The steps that `outputs` need, in order, and which values are used last by each."""
    needed: list[int] = []
    last: dict[int, Sequence[int]] = {}
    seen = set(outputs)
    for i in range(max(outputs, default=-1), -1, -1):
        if i not in seen:
            continue
        needed.append(i)
        inputs = steps[i].inputs
        if seen.issuperset(inputs):
            last[i] = ()
        else:                           # from the end on, the first to read it is the last
            last[i] = drop = [j for j in dict.fromkeys(inputs) if j not in seen]
            seen.update(drop)
    needed.reverse()
    return needed, last


def _number(value: Any, spec: Spec) -> np.ndarray:
    """A runtime number as a 0-dim array; integers wrap to the width of the dtype."""
    dtype = spec.dtype
    if dtype.kind in "ui":
        number = int(value)
        bits = 8 * dtype.itemsize
        number &= (1 << bits) - 1
        if dtype.kind == "i" and number >> (bits - 1):
            number -= 1 << bits
        return np.array(number, dtype.np)
    return np.array(bool(value) if dtype.kind == "b" else value, dtype.np)


def _checked(value: Any, step: Step) -> np.ndarray:
    array = np.asarray(value)
    spec = step.spec
    if array.shape != spec.shape or array.dtype != spec.dtype.np:
        raise RuntimeError(f"internal: {step.op} was to give {spec} and gave an array of shape "
                           f"{array.shape} and dtype {array.dtype}")
    return array
