"""Recurrences: one kernel with the loop over time inside, compiled against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest

from facula import dtypes as d
from facula.graph.spec import Step
from facula.ops.primitive.recurrent import CELLS, coefficients
from facula.schedule.compile import build
from facula.schedule.simplify import simplify
from tests.schedule.programs import Build, maker

SIZES = [(4, 1, 1), (3, 2, 7), (2, 5, 16), (3, 17, 33), (2, 64, 40), (5, 70, 128), (2, 3, 130)]
"""(steps, rows, units): single ones, parts of vectors, several tiles, a last tile that is less."""


def leaves(b: Build, make, *shapes):
    return [b.leaf(make(*s, low=-1, high=1)) for s in shapes]


def recurrence(b: Build, make, cell: str, t: int, n: int, h: int, reverse: bool
               ) -> tuple[int, list[int]]:
    """The states, and the gates if the cell has any."""
    g, kept, s, _ = CELLS[cell]
    x, w, start = leaves(b, make, (t * n, g * h), (g * h, h), (n, h))
    more = leaves(b, make, *([(n, h)] if s == 2 else [(h,)] if cell == "gru" else []))
    attrs = (cell, t, reverse)
    states = b.op("recur", x, w, start, *more, attrs=attrs)
    bias = more if cell == "gru" else []
    return states, [b.op("recur_gates", x, w, *bias, states, attrs=attrs)] if kept else []


@pytest.mark.parametrize(("sizes", "dtype"), [*((s, d.float32) for s in SIZES),
                                              (SIZES[2], d.float64), (SIZES[3], d.float64)],
                         ids=str)
def test_states_and_gates_in_one_loop(sizes, dtype) -> None:
    b, make = Build(), maker(dtype)
    outputs = []
    for k, cell in enumerate(CELLS):
        states, gates = recurrence(b, make, cell, *sizes, bool(k % 2))
        outputs += [states, *gates]
    b.check(*outputs)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_linear_recurrences(sizes) -> None:
    b, make = Build(), maker(d.float32)
    t, n, h = sizes
    outputs = []
    for k, (cell, (g, _, s, _)) in enumerate(CELLS.items()):
        attrs = (cell, t, not k % 2)
        factors = leaves(b, make, *[(t * n, h)] * coefficients(cell), (g * h, h))
        rest = leaves(b, make, *[(t * n, h)] * s, *[(n, h)] * s)
        outputs.append(b.op("recur_linear", *factors, *rest, attrs=attrs))
        given = leaves(b, make, (s, (t + 1) * n, h))
        outputs.append(b.op("recur_adjoint", *factors, *given, attrs=attrs))
    b.check(*outputs)


def test_parts_of_an_adjoint_alone() -> None:
    """What nobody reads is not written; what somebody reads is as if all of it were."""
    t, n, h = 3, 6, 20
    make = maker(d.float32)
    for cell, (g, _, s, _) in CELLS.items():
        rows, size = t * n, t * n * g * h
        each = (t + 1) * n * h
        spans = [(0, size), (size, each), (size + n * h, n * h), (size + t * n * h, n * h),
                 (size + 5, 3)]
        if s == 2:
            spans += [(size + each, each), (size + each, n * h), (size + each + t * n * h, n * h)]
        for start, length in spans:
            for reverse in (False, True):
                b = Build()
                factors = leaves(b, make, *[(rows, h)] * coefficients(cell), (g * h, h))
                given = leaves(b, make, (s, (t + 1) * n, h))
                flat = b.op("recur_adjoint", *factors, *given, attrs=(cell, t, reverse))
                part = b.op("slice", flat, attrs=((start,), (1,)), shape=(length,))
                b.check(b.op("mul", part, part))


def test_operands_are_computed_where_they_are_read() -> None:
    """Sliced, padded and expanded operands, a transposed weight, a repeated one."""
    b, make = Build(), maker(d.float32)
    t, n, h = 3, 4, 18
    wide, turned, row, start, one = leaves(b, make, (t * n, 5 * h), (h, 4 * h), (1, h),
                                           (n - 1, h), (1, 1))
    x = b.op("slice", wide, attrs=((0, h), (1, 1)), shape=(t * n, 4 * h))
    x = b.op("tanh", b.op("neg", x))
    h0 = b.op("pad", start, attrs=((1, 0), (0, 0), 0.5), shape=(n, h))
    c0 = b.op("expand", row, shape=(n, h))
    outputs = []
    for w in (b.op("permute", turned, attrs=((1, 0),)), b.op("expand", one, shape=(4 * h, h)),
              b.op("exp", b.op("permute", turned, attrs=((1, 0),)))):
        outputs.append(b.op("recur", x, w, h0, c0, attrs=("lstm", t, False)))
    b.check(*outputs)


def kernels(b: Build, *outputs: int) -> list[list[str]]:
    steps, _, places = simplify(b.steps, outputs)
    made = build(steps, places, {})
    return [[steps[i].op for i in r.steps] for r in made.reports]


def test_gates_are_written_by_the_loop_only_if_it_is_there() -> None:
    b, make = Build(), maker(d.float32)
    states, gates = recurrence(b, make, "lstm", 3, 4, 16, False)
    assert kernels(b, states, *gates) == [["recur", "recur_gates"]]
    b, make = Build(), maker(d.float32)
    x, w, states = leaves(b, make, (12, 64), (64, 16), (2, 16, 16))
    alone = b.op("recur_gates", x, w, states, attrs=("lstm", 3, False))
    assert all("recur_gates" not in k for k in kernels(b, alone))
    b.check(alone)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 5, 7), (2, 50, 20), (4, 64, 32)], ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_sums_of_rows_are_added_up_in_the_loop(cell, sizes) -> None:
    """The gradient of a bias, with and without the other parts of the adjoint."""
    t, n, h = sizes
    g, _, s, _ = CELLS[cell]
    b, make = Build(), maker(d.float32)
    factors = leaves(b, make, *[(t * n, h)] * coefficients(cell), (g * h, h))
    given = leaves(b, make, (s, (t + 1) * n, h))
    flat = b.op("recur_adjoint", *factors, *given, attrs=(cell, t, True))
    cut = b.op("slice", flat, attrs=((0,), (1,)), shape=(t * n * g * h,))
    gates = b.op("reshape", cut, shape=(t * n, g * h))
    total = b.op("sum", gates, attrs=((0,),))
    b.check(total)
    b.check(total, flat, gates)
    assert ["recur_adjoint", "recur_sums"] in kernels(b, total)


def test_one_memory_for_inputs_gates_and_adjoints() -> None:
    """An LSTM's step writes over what it has read; nobody else reads that."""
    t, n, h, width = 3, 20, 24, 5
    for read in (False, True):
        b, make = Build(), maker(d.float32)
        data, w_ih, w, h0, c0, given = leaves(
            b, make, (t * n, width), (width, 4 * h), (4 * h, h), (n, h), (n, h),
            (2, (t + 1) * n, h))
        attrs = ("lstm", t, False)
        x = b.op("matmul", data, w_ih)
        states = b.op("recur", x, w, h0, c0, attrs=attrs)
        gates = b.op("recur_gates", x, w, states, attrs=attrs)
        parts = [b.op("slice", gates, attrs=((0, k * h), (1, 1)), shape=(t * n, h))
                 for k in range(4)]
        factors = [b.op("mul", parts[k], parts[j]) for k, j in
                   ((0, 2), (1, 1), (2, 0), (3, 3), (1, 2), (0, 3))]
        flat = b.op("recur_adjoint", *factors, w, given, attrs=attrs)
        outputs = [b.op("sin", flat), b.op("sin", states)]
        if read:                    # in another place, after they would have been overwritten
            outputs.append(b.op("sin", gates))
        b.check(*outputs)
        steps, _, places = simplify(b.steps, outputs)
        made = build(steps, places, {})
        number = {s.op: i for i, s in enumerate(steps)}
        assert {"matmul", "recur_gates", "recur_adjoint"} <= number.keys()
        grown = t * n * 4 * h * 4 * (2 if read else 1)
        assert (made.plan.arena_bytes >= grown + 2 * (t + 1) * n * h * 4) and (
            read or made.plan.arena_bytes < 2 * grown + 6 * (t + 1) * n * h * 4)


@pytest.mark.parametrize("cell", CELLS)
def test_the_program_does_not_grow_with_time(cell) -> None:
    counts = []
    for t in (2, 40):
        b, make = Build(), maker(d.float32)
        counts.append(len(kernels(b, recurrence(b, make, cell, t, 2, 4, False)[0])))
    assert counts[0] == counts[1] == 1


def test_rows_do_not_depend_on_how_many_there_are() -> None:
    """Bit for bit: a row of a large batch is what it is alone."""
    from facula.runtime.allocator import from_numpy_private
    from facula.schedule.executable import Executable

    make = maker(d.float32)
    t, h = 4, 24
    x, w, h0, c0 = (make(*s, low=-1, high=1) for s in ((t, 70, 4 * h), (4 * h, h), (70, h),
                                                       (70, h)))

    def states(rows: slice) -> np.ndarray:
        b = Build()
        n = len(h0[rows])
        inputs = [b.leaf(np.ascontiguousarray(a)) for a in
                  (x[:, rows].reshape(t * n, 4 * h), w, h0[rows], c0[rows])]
        out = b.op("recur", *inputs, attrs=("lstm", t, False))
        run = Executable(b.steps, [out], {})
        (buffer,) = run.run([from_numpy_private(a) for a in b.arrays])
        return buffer.array(b.steps[out].spec, None).reshape(2, t + 1, n, h).copy()

    whole = states(slice(None))
    for rows in (slice(0, 1), slice(13, 31), slice(69, 70)):
        assert np.array_equal(states(rows), whole[:, :, rows])


def test_step_of_a_leaf_is_not_overwritten() -> None:
    """A recurrence reads rows it has not come to yet: its result takes over no operand."""
    b, make = Build(), maker(d.float32)
    (x, w, h0) = leaves(b, make, (4, 4), (4, 4), (4, 4))
    out = b.op("recur", x, w, h0, attrs=("tanh", 1, False))
    assert isinstance(b.steps[out], Step)
    made = build(b.steps, [out], {out: x})
    assert made.outputs[0][1] is None
