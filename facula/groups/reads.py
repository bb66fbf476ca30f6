"""Which elements of its inputs an element of a step is made of.

Analysis (fusion, strides, memory) and the writing of code both follow `operands`, so they cannot
disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from facula.graph.spec import Step
from facula.groups.index import Index, Var, const, flatten, quotient, row_major, unflatten
from facula.groups.kinds import ELEMENTWISE

__all__ = ["Place", "accesses", "clamp", "operands", "update_window"]

Place = tuple[int, tuple[Index, ...]]


def clamp(index: Index, n: int) -> Index:
    """`index` where it is in [0, n), and something in that range elsewhere."""
    low, high = index.bounds()
    if low >= 0 and high < n:
        return index
    return Index(((Var("clamp", (index, n), max(n, 1), 60), 1),), 0)


def update_window(index: Sequence[Index], starts: Sequence[int], steps: Sequence[int],
                  shape: Sequence[int]) -> tuple[list[Index], list[tuple[Index, int, int]]]:
    """Where an element of a base lies in the value written through a slice.

    Returns the index into the value, and tests (i, n, step): 0 <= i < n*step and i % step == 0.
    """
    place, tests = [], []
    for i, start, step, n in zip(index, starts, steps, shape, strict=True):
        distance = (i + (-start)) if step > 0 else (i * -1 + start)
        width = abs(step)
        span = (n - 1) * width + 1 if n else 0
        low, high = distance.bounds()
        if low < 0 or high >= span or width > 1:
            tests.append((distance, span, width))
        place.append(quotient(clamp(distance, span), width))
    return place, tests


def _looked_up(steps: Sequence[Step], source: int, index: tuple[Index, ...], n: int) -> Index:
    """The index that is element `index` of the int64 step `source`, checked against n."""
    return Index(((Var("load", (source, index, n), max(n, 1), 70), 1),), 0)


def operands(steps: Sequence[Step], number: int, index: tuple[Index, ...]) -> list[Place]:
    """The (input step, index) pairs that element `index` of step `number` is computed from."""
    step = steps[number]
    op, inputs = step.op, step.inputs
    if op in ELEMENTWISE or op == "window_place":
        return [(i, index) for i in inputs]
    if op in ("full", "iota", "leaf", "scalar"):
        return []
    if op == "philox":
        return [(i, ()) for i in inputs]
    shape = steps[inputs[0]].spec.shape
    if op == "reshape":
        position = flatten(index, row_major(step.spec.shape))
        return [(inputs[0], unflatten(position, shape))]
    if op == "permute":
        place: list[Index] = [const(0)] * len(index)
        for i, axis in zip(index, step.attrs[0], strict=True):
            place[axis] = i
        return [(inputs[0], tuple(place))]
    if op == "expand":
        return [(inputs[0], tuple(const(0) if n == 1 else i
                                  for i, n in zip(index, shape, strict=True)))]
    if op == "slice":
        starts, strides = step.attrs
        return [(inputs[0], tuple(i * stride + start for i, start, stride
                                  in zip(index, starts, strides, strict=True)))]
    if op == "as_strided":
        strides, offset = step.attrs
        return [(inputs[0], unflatten(flatten(index, strides, offset), shape))]
    if op == "pad":
        low = step.attrs[0]
        return [(inputs[0], tuple(clamp(i + (-lo), n)
                                  for i, lo, n in zip(index, low, shape, strict=True)))]
    if op == "slice_update":
        starts, strides = step.attrs
        window, _ = update_window(index, starts, strides, steps[inputs[1]].spec.shape)
        return [(inputs[0], index), (inputs[1], tuple(window))]
    if op == "cat":
        axis = step.attrs[0]
        found: list[Place] = []
        start = 0
        for number in inputs:
            n = steps[number].spec.shape[axis]
            if n:
                inner = clamp(index[axis] + (-start), n)
                found.append((number, (*index[:axis], inner, *index[axis + 1:])))
            start += n
        return found
    if op == "take":
        axis = step.attrs[0]
        wide = len(steps[inputs[1]].spec.shape)
        middle = index[axis:axis + wide]
        picked = _looked_up(steps, inputs[1], middle, shape[axis])
        return [(inputs[0], (*index[:axis], picked, *index[axis + wide:])), (inputs[1], middle)]
    if op == "gather":
        axis = step.attrs[0]
        picked = _looked_up(steps, inputs[1], index, shape[axis])
        return [(inputs[0], (*index[:axis], picked, *index[axis + 1:])), (inputs[1], index)]
    raise KeyError(op)


def accesses(steps: Sequence[Step], start: Sequence[Place],
             in_memory: Callable[[int], bool]) -> list[Place]:
    """Every element in memory that the elements `start` are computed from, each once."""
    seen: set[Place] = set()
    out: list[Place] = []
    stack = list(reversed(start))
    while stack:
        place = stack.pop()
        if place in seen:
            continue
        seen.add(place)
        if in_memory(place[0]):
            out.append(place)
        else:
            stack.extend(reversed(operands(steps, *place)))
    return out
