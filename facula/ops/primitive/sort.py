"""Sorting: the order of elements along an axis.  NumPy sorts; there is no compiled kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facula.dtype import int64
from facula.graph.spec import Spec, spec
from facula.ops.primitive.batching import axis_first
from facula.ops.primitive.record import (
    Sample,
    _count,
    check_axis,
    compute_dtype,
    fits_kind,
    register,
)


def _infer(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    _count("argsort", specs, 1)
    fits_kind("argsort", specs[0], "buif")
    check_axis("argsort", attrs[0], len(specs[0].shape))
    return spec(specs[0].shape, int64)


def _argsort(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    """Stable both ways: equal elements keep their order.  NaN counts as the largest."""
    x = arrays[0]
    axis, descending = attrs
    x = x.astype(compute_dtype(x.dtype), copy=False)
    if not descending:
        return np.argsort(x, axis=axis, kind="stable").astype(np.int64, copy=False)
    # Reversing before and after turns the order around and leaves equal elements as they were.
    order = np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    return (x.shape[axis] - 1 - order).astype(np.int64, copy=False)


register("argsort", "sort", _infer, _argsort, batch=axis_first,
         samples=lambda make: [Sample((make(*shape),), (axis, down)) for down in (False, True)
                               for shape, axis in (((7,), 0), ((3, 4), 0), ((3, 4), 1),
                                                   ((0,), 0), ((2, 0, 3), 1), ((1,), 0))])
