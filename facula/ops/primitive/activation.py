"""The rectifier: a primitive of its own, because its gradient needs nothing but its result.

As `where(x > 0, x, 0)` a training step would have to keep both sides of it; as a primitive the
value before it is never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facula import dtypes as _d
from facula.graph.spec import Spec
from facula.ops.primitive.record import Sample, infer_same, register
from facula.ops.primitive.rules import prim, where, zeros_like

__all__: list[str] = []


def _relu(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    x = arrays[0]
    zero = np.zeros((), x.dtype)
    with np.errstate(invalid="ignore"):             # ml_dtypes warns of NaN
        return np.where(x < zero, zero, x)


def _through(out: Any, t: Any) -> Any:
    # through what is not a number, too: it is not at or below zero
    return where(prim("le", out, zeros_like(out)), zeros_like(t), t)


def _samples(make: Callable[..., np.ndarray]) -> list[Sample]:
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 2.5, -2.5], np.float64)
    return [Sample((x,)) for x in (
        odd, odd.astype(np.float32), odd.astype(_d.float16.np), odd.astype(_d.bfloat16.np),
        np.array([-128, -1, 0, 1, 127], np.int8), np.array([0, 1, 255], np.uint8),
        np.zeros((2, 0), np.float32), np.array(-1.5, np.float32))]


register("relu", "elementwise", infer_same("relu", 1, "uif"), _relu,
         vjp=lambda c, g: (_through(c.out, g),), jvp=lambda c, ts: _through(c.out, ts[0]),
         saves=("out",), samples=_samples)
