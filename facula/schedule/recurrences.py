"""Recurrences of a schedule: whose loop writes gates, and gates that no loop writes.

Where the states are computed in the same program, their loop has the gates at hand and stores
them.  Where they are not (the program was run between forward and backward), gates are made of
the states: one product for all steps, and elementwise operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from facula.graph.spec import Spec, Step, spec

__all__ = ["gates_apart", "kept_gates", "parts_read"]

Add = Callable[[str, tuple[object, ...], tuple[int, ...], Spec, "str | None"], int]


def kept_gates(steps: Sequence[Step], step: Step) -> int | None:
    """The recurrence whose loop computes the gates `step` anyway, if it is the one that the
    states are from which they are made."""
    if step.op != "recur_gates":
        return None
    loop = steps[step.inputs[-1]]
    bias = step.inputs[2:-1]
    same = loop.op == "recur" and loop.attrs == step.attrs and (
        loop.inputs[:2] == step.inputs[:2]) and (not bias or loop.inputs[3:] == bias)
    return step.inputs[-1] if same else None


def parts_read(steps: Sequence[Step], outputs: Sequence[int], number: int
               ) -> list[tuple[int, int]] | None:
    """Which stretches [start, stop) of the flat value of step `number` are read; None for all."""
    if number in outputs:
        return None
    found = []
    for step in steps:
        if number in step.inputs:
            if step.op != "slice" or step.attrs[1] != (1,):
                return None
            start = step.attrs[0][0]
            found.append((start, start + step.spec.numel))
    return found


def gates_apart(add: Add, steps: Sequence[Step], step: Step) -> int:
    """The gates `step` made of the states by a product; its number."""
    cell, count, reverse = step.attrs
    x, w, *bias, states = step.inputs
    dtype, where = step.spec.dtype, step.where
    rows, h = steps[x].spec.shape[0], steps[w].spec.shape[1]
    products = steps[w].spec.shape[0]
    n = rows // count

    def one(op: str, *inputs: int, attrs: tuple[object, ...] = (),
            shape: tuple[int, ...] = (rows, h)) -> int:
        return add(op, attrs, inputs, spec(shape, dtype), where)

    def columns(of: int, k: int) -> int:
        return one("slice", of, attrs=((0, k * h), (1, 1)))

    before = one("slice", states, attrs=((0, n if reverse else 0, 0), (1, 1, 1)),
                 shape=(1, rows, h))
    turned = one("permute", w, attrs=((1, 0),), shape=(h, products))
    v = one("matmul", one("reshape", before), turned, shape=(rows, products))
    if cell == "lstm":
        y = one("add", x, v, shape=(rows, products))
        parts = [one("tanh" if k == 2 else "sigmoid", columns(y, k)) for k in range(4)]
    else:
        r, z = (one("sigmoid", one("add", columns(x, k), columns(v, k))) for k in (0, 1))
        row = one("reshape", bias[0], shape=(1, h))
        m = one("add", columns(v, 2), one("expand", row))
        parts = [r, z, one("tanh", one("add", columns(x, 2), one("mul", r, m))), m]
    return one("cat", *parts, attrs=(1,), shape=step.spec.shape)
