"""Sorting: the order of elements along an axis.  NumPy sorts; there is no compiled kernel.

A compiled program sorts keys: `facula.schedule.orders` makes unsigned numbers of 64 bits of
elements and their places, which no two share, so that any way to sort them is stable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facula.dtype import int64
from facula.graph.spec import Spec, spec
from facula.ops.primitive.batching import axis_first, each
from facula.ops.primitive.record import (
    Sample,
    _count,
    check_axis,
    compute_dtype,
    fits_kind,
    register,
)
from facula.ops.primitive.rowwise import by_rows

__all__: list[str] = []


def _infer(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    _count("argsort", specs, 1)
    fits_kind("argsort", specs[0], "buif")
    axis, shape = attrs[0], specs[0].shape
    check_axis("argsort", axis, len(shape))
    if len(attrs) == 4:
        _check_part("argsort", attrs, shape[axis])
        shape = (*shape[:axis], attrs[3] - attrs[2], *shape[axis + 1:])
    return spec(shape, int64)


def _check_part(name: str, attrs: tuple[Any, ...], n: int) -> None:
    low, high = attrs[-2:]
    if not 0 <= low <= high <= n:
        raise IndexError(f"{name}: places {low} to {high} are not among the {n} that there are")


def _stable(x: np.ndarray, axis: int) -> np.ndarray:
    """The stable order; that of 64-bit numbers by a way that is not, where no two are equal."""
    if x.dtype.itemsize == 8 and x.shape[axis] > 16:
        order = np.argsort(x, axis=axis)
        line = np.take_along_axis(x, order, axis)
        a, b = (np.take(line, np.arange(k, x.shape[axis] - 1 + k), axis) for k in (0, 1))
        if (a < b).all():                        # and so no NaN, too
            return order
    return np.argsort(x, axis=axis, kind="stable")


def _argsort(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    """Stable both ways: equal elements keep their order.  NaN counts as the largest."""
    x = arrays[0]
    axis, descending = attrs[:2]
    low, high = (0, x.shape[axis]) if len(attrs) == 2 else attrs[2:]
    x = x.astype(compute_dtype(x.dtype), copy=False)
    if not descending:
        order = _stable(x, axis)
    else:
        # Reversing before and after turns the order around and leaves equal elements as they were.
        order = x.shape[axis] - 1 - np.flip(_stable(np.flip(x, axis), axis), axis)
    picked = order[(slice(None),) * axis + (slice(low, high),)]
    return picked.astype(np.int64, copy=False)


register("argsort", "sort", _infer, _argsort, batch=axis_first,
         samples=lambda make: [Sample((make(*shape),), (axis, down, *part))
                               for down in (False, True)
                               for shape, axis, part in (
                                   ((7,), 0, ()), ((3, 4), 0, ()), ((3, 4), 1, ()), ((0,), 0, ()),
                                   ((2, 0, 3), 1, ()), ((1,), 0, ()), ((7,), 0, (2, 3)),
                                   ((3, 40), 1, (0, 2)), ((70, 3), 0, (0, 1)), ((5,), 0, (2, 2)))])


def _infer_keys(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    _count("keysort", specs, 1)
    fits_kind("keysort", specs[0], "u")
    check_axis("keysort", 0, len(specs[0].shape))
    shape = specs[0].shape
    _check_part("keysort", attrs, shape[-1])
    return spec((*shape[:-1], attrs[1] - attrs[0]), specs[0].dtype)


def _keysort(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    """Places low to high - 1 of the ascending order along the last axis."""
    low, high = attrs
    n = arrays[0].shape[-1]
    rows = arrays[0].reshape(-1, n)
    found = np.empty((len(rows), high - low), rows.dtype)

    def work(keys: np.ndarray, to: np.ndarray) -> None:
        whole = 4 * (high - low) >= n or n < 64
        if not whole:
            # what lies between two places that are right, which is then sorted
            some = np.partition(keys, sorted({low, high - 1}), -1)[:, low:high]
            to[...] = np.sort(some, -1) if high - low > 1 else some
        else:
            to[...] = np.sort(keys, -1)[:, low:high]

    if low < high:
        by_rows(work, rows, found)
    return found.reshape(out.shape)


register("keysort", "sort", _infer_keys, _keysort, batch=each,
         samples=lambda make: [
             Sample((np.random.default_rng(1).integers(0, 1 << 63, shape).astype(np.uint64),), part)
             for shape, part in (((7,), (0, 7)), ((3, 100), (0, 5)), ((3, 100), (99, 100)),
                                 ((2, 3, 200), (50, 60)), ((0, 4), (1, 3)), ((100,), (0, 1)))])
