"""Recurrences of a schedule: whose loop writes gates, and gates that no loop writes.

Where the states are computed in the same program, their loop has the gates at hand and stores
them.  Where they are not (the program was run between forward and backward), gates are made of
the states: one product for all steps, and elementwise operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from facula.codegen.target import tiling
from facula.graph.spec import Spec, Step, spec
from facula.groups.index import loop_var
from facula.groups.reads import accesses
from facula.ops.primitive.recurrent import CELLS, RECURRENT

__all__ = ["gates_apart", "kept_gates", "parts_read", "partial_sums", "read_in_place",
           "written_beside"]

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


def written_beside(steps: Sequence[Step], step: Step) -> int | None:
    """The recurrence whose loop computes `step` besides its own value, if there is one."""
    return step.inputs[0] if step.op == "recur_sums" else kept_gates(steps, step)


def partial_sums(steps: Sequence[Step], number: int) -> Step | None:
    """The sums of tiles that make up the sum of step `number` over its rows, where these are
    what the loop of an adjoint has computed for all gates."""
    chain = steps[number]
    if chain.op != "reshape" or steps[chain.inputs[0]].op != "slice":
        return None
    cut = steps[chain.inputs[0]]
    loop = steps[cut.inputs[0]]
    if loop.op != "recur_adjoint" or any(cut.attrs[0]):
        return None
    at = RECURRENT[loop.op](loop.attrs[0])
    rows, weight = steps[loop.inputs[0]].spec.shape[0], steps[loop.inputs[at]].spec
    if chain.spec.shape != (rows, weight.shape[0]) or 0 in chain.spec.shape:
        return None
    tiles = tiling(rows // loop.attrs[1], weight.shape, weight.dtype.itemsize)[1]
    return Step("recur_sums", loop.attrs, (cut.inputs[0],),
                spec((tiles, weight.shape[0]), weight.dtype), 0, chain.where)


def parts_read(steps: Sequence[Step], outputs: Sequence[int], number: int
               ) -> list[tuple[int, int]] | None:
    """Which stretches [start, stop) of the flat value of step `number` are read; None for all."""
    if number in outputs:
        return None
    found = []
    for step in steps:
        if number in step.inputs and step.op != "recur_sums":
            if step.op != "slice" or step.attrs[1] != (1,):
                return None
            start = step.attrs[0][0]
            found.append((start, start + step.spec.numel))
    return found


def read_in_place(steps: Sequence[Step], items: Sequence[int], in_memory: Callable[[int], bool]
                  ) -> tuple[int, int] | None:
    """(a step that the recurrence `items` writes, a step in whose memory it may be written).

    The gates may take the place of the inputs, and an adjoint that of the gates: of both, a step
    reads what it is about to write, and no other row does.
    """
    first = steps[items[0]]
    adjoint = first.op == "recur_adjoint"
    g, kept, _, _ = CELLS[first.attrs[0]]
    if g != kept or not adjoint and len(items) == 1:
        return None
    at = RECURRENT[first.op](first.attrs[0])
    cut = at if adjoint else 1
    rows, h = steps[first.inputs[0]].spec.shape[0], steps[first.inputs[at]].spec.shape[1]
    row, unit = loop_var("row", rows, 0), loop_var("unit", h, 1)
    own = [(row, unit + k * h) for k in range(g)]
    start = [(i, (row, unit)) for i in first.inputs[:cut]] if adjoint else [
        (first.inputs[0], place) for place in own]
    for source, _ in accesses(steps, start, in_memory):
        if steps[source].op in ("matmul", "recur_gates") and \
                steps[source].spec.shape == (rows, g * h):
            break
    else:
        return None
    if any(place not in own for n, place in accesses(steps, start, in_memory) if n == source):
        return None
    stack = list(first.inputs[cut:])
    while stack:
        n = stack.pop()
        if n == source:
            return None
        if not in_memory(n):
            stack.extend(steps[n].inputs)
    return items[0] if adjoint else items[-1], source


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
