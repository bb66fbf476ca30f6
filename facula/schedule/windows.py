"""Sums of windows that do not meet, as one concatenation.

The gradient of a tensor that was split is a sum with a term for each part: zeros, with the part's
gradient written into its window.  Where the windows are disjoint along one axis, that is their
concatenation, with zeros where no window is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from facula.graph.spec import Spec, Step, spec
from facula.schedule.sums import readers_of, terms_of

__all__ = ["join_windows"]


class _Window(NamedTuple):
    """Elements [start, stop) of the axis come from step `value`, all else is zero."""

    axis: int
    start: int
    stop: int
    value: int


def _zero(step: Step) -> bool:
    return step.op == "full" and step.attrs[0] == 0 and str(step.attrs[0])[0] != "-"


def _window(steps: Sequence[Step], number: int) -> _Window | None:
    step = steps[number]
    if step.op == "slice_update":
        starts, strides = step.attrs
        if not _zero(steps[step.inputs[0]]) or any(s != 1 for s in strides):
            return None
        value = step.inputs[1]
    elif step.op == "pad" and step.attrs[2] == 0 and str(step.attrs[2])[0] != "-":
        starts, value = step.attrs[0], step.inputs[0]
    else:
        return None
    inner = steps[value].spec.shape
    cut = [d for d, (n, m) in enumerate(zip(inner, step.spec.shape, strict=True)) if n != m]
    if len(cut) != 1 or starts[cut[0]] < 0:
        return None
    axis = cut[0]
    if starts[axis] + inner[axis] > step.spec.shape[axis]:
        return None
    return _Window(axis, starts[axis], starts[axis] + inner[axis], value)


def _disjoint(steps: Sequence[Step], number: int, readers: Sequence[int]
              ) -> list[_Window] | None:
    """The windows that a sum is made of, in order along their axis."""
    found = [_window(steps, i) for i in terms_of(steps, number, readers)]
    windows = [w for w in found if w is not None]
    if len(windows) < len(found) or len({w.axis for w in windows}) != 1:
        return None
    windows.sort(key=lambda w: w.start)
    if any(a.stop > b.start for a, b in zip(windows, windows[1:])):
        return None
    return windows


def join_windows(steps: list[Step], outputs: Sequence[int]) -> tuple[list[Step], list[int]]:
    """(new steps, the new number of each old one).

    The values are the same, but that a -0 stays one, to which the sum would have added zeros.
    """
    if not any(s.op in ("slice_update", "pad") for s in steps):
        return steps, list(range(len(steps)))
    readers = readers_of(steps, outputs)
    made: list[Step] = []
    new: list[int] = []

    def add(op: str, attrs: tuple[object, ...], inputs: tuple[int, ...], out: Spec,
            where: str | None) -> int:
        made.append(Step(op, attrs, inputs, out, 0, where))
        return len(made) - 1

    for number, step in enumerate(steps):
        windows = _disjoint(steps, number, readers) if step.op == "add" and step.spec.shape \
            else None
        if windows is None:
            new.append(add(step.op, step.attrs, tuple([new[j] for j in step.inputs]), step.spec,
                           step.where))
            continue
        shape, axis = step.spec.shape, windows[0].axis
        parts, at = [], 0

        def filled(n: int, out: Sequence[int] = shape, axis: int = axis,
                   like: Step = step) -> int:
            zero = 0.0 if like.spec.dtype.kind == "f" else 0
            if like.spec.dtype.kind == "c":
                zero = 0j       # type: ignore[assignment]
            size = (*out[:axis], n, *out[axis + 1:])
            return add("full", (zero,), (), spec(size, like.spec.dtype), like.where)

        for w in windows:
            if w.start > at:
                parts.append(filled(w.start - at))
            parts.append(new[w.value])
            at = w.stop
        if at < shape[axis]:
            parts.append(filled(shape[axis] - at))
        new.append(add("cat", (axis,), tuple(parts), step.spec, step.where))
    return made, new
