"""Programs made of steps, run compiled and interpreted, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from facula.dtypes import DType, float32, from_numpy_dtype
from facula.graph import flush
from facula.graph.record import recorder
from facula.graph.spec import Step, spec
from facula.ops.table import PRIMS
from facula.reference.interpreter import interpret
from facula.runtime.allocator import from_numpy_private
from facula.schedule.compile import build
from facula.schedule.executable import Executable
from facula.schedule.simplify import simplify


def maker(default: DType = float32, seed: int = 0) -> Callable[..., np.ndarray]:
    """`make(*shape, dtype=, low=, high=)` for the samples of primitives."""
    rng = np.random.default_rng(seed)

    def make(*shape: int, dtype: DType | None = None, low: float = -2.0, high: float = 2.0,
             **_: Any) -> np.ndarray:
        dtype = dtype or default
        if dtype.kind == "b":
            return np.asarray(rng.integers(0, 2, shape).astype(bool))
        if dtype.kind in "ui":
            a, b = (0, 7) if dtype.kind == "u" else (-5, 7)
            return np.asarray(rng.integers(a, b, shape).astype(dtype.np))
        values = rng.uniform(low, high, shape)
        if dtype.kind == "c":
            values = values + 1j * rng.uniform(low, high, shape)
        return np.asarray(values).astype(dtype.np)
    return make


class Build:
    """Steps being listed, with the arrays of their leaves."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.arrays: list[np.ndarray] = []

    def leaf(self, array: np.ndarray) -> int:
        self.steps.append(Step("leaf", (None,), (),
                               spec(array.shape, from_numpy_dtype(array.dtype))))
        self.arrays.append(array)
        return len(self.steps) - 1

    def op(self, name: str, *inputs: int, attrs: tuple[Any, ...] = (),
           shape: Sequence[int] | None = None, dtype: DType | None = None) -> int:
        specs = [self.steps[i].spec for i in inputs]
        given = None
        if shape is not None or dtype is not None:
            given = spec(tuple(shape) if shape is not None else specs[0].shape,
                         dtype if dtype is not None else specs[0].dtype if specs else float32)
        out = PRIMS[name].infer(specs, attrs, given)
        self.steps.append(Step(name, attrs, tuple(inputs), out))
        return len(self.steps) - 1

    def check(self, *outputs: int, donations: dict[int, int] | None = None) -> Executable:
        """Compiled and interpreted values of the outputs agree."""
        leaves = [i for i, s in enumerate(self.steps) if s.op == "leaf"]
        with np.errstate(all="ignore"):
            want = interpret(self.steps, dict(zip(leaves, self.arrays, strict=True)), outputs)
        executable = Executable(self.steps, outputs, donations or {})
        got = executable.run([from_numpy_private(a) for a in self.arrays])
        for o, w, g in zip(outputs, want, got, strict=True):
            close(g.array(self.steps[o].spec), w, f"{self.steps[o]}")
        return executable


_TOLERANCE = {"float16": 4e-3, "bfloat16": 2e-2, "float32": 3e-5, "complex64": 3e-5,
              "float64": 1e-11, "complex128": 1e-11}


def close(got: np.ndarray, want: np.ndarray, what: str) -> None:
    """Equal, or for floats equal up to rounding; NaN and infinities in the same places."""
    assert got.shape == want.shape and got.dtype == want.dtype, what
    tolerance = _TOLERANCE.get(want.dtype.name)
    if want.dtype.name.startswith("float8"):
        got, want = got.astype(np.float32), want.astype(np.float32)
    if tolerance is None:
        np.testing.assert_array_equal(got, want, err_msg=what)
        return
    if want.dtype.name == "bfloat16":
        got, want = got.astype(np.float32), want.astype(np.float32)
    scale = np.abs(want[np.isfinite(want)]).max(initial=1e-3)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * float(scale),
                               err_msg=what)


def largest_arena(work: Callable[[], Any]) -> int:
    """Bytes of the largest arena planned for a program of `work()`, which runs interpreted."""
    programs = []

    def run(self: Any, values: Any, failed: Any = None) -> Any:
        programs.append((self.steps, self.outputs))
        return self.interpret(values)

    flush.flush(recorder())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flush.Program, "run", run)
        work()
        flush.flush(recorder())
    plans = []
    for steps, outputs in programs:
        steps, _, outputs = simplify(steps, outputs)
        plans.append(build(steps, outputs, {}).plan.arena_bytes)
    return max(plans)
