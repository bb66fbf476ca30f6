"""Primitives on whole numbers that NumPy computes; there is no compiled kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facula import dtypes as _d
from facula.graph.spec import Spec
from facula.ops.primitive.record import Sample, infer_same, register


def _gcd(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    """Non-negative; gcd(0, 0) is 0.  Euclid's loop ends after a different number of steps for
    each pair, so it makes no vector code."""
    return np.asarray(np.gcd(arrays[0], arrays[1]))


def _samples(make: Any) -> list[Sample]:
    return [Sample(tuple(make(*shape, dtype=d, low=0 if d.kind == "u" else -60, high=60)
                         for _ in range(2)))
            for d in (_d.int64, _d.int32, _d.uint8) for shape in ((3, 4), (), (0, 2))]


register("gcd", "whole", infer_same("gcd", 2, "ui"), _gcd, samples=_samples)
