"""bfloat16 products in pairs of k: every way in which operands can lie, odd sizes, odd values."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from facula import config
from facula.codegen.target import target
from tests.schedule.programs import Build

RNG = np.random.default_rng(0)
SIZES = [(1, 1, 1), (2, 3, 1), (5, 7, 2), (14, 32, 8), (15, 33, 9), (33, 17, 64), (64, 100, 257),
         (130, 48, 31), (7, 70, 600), (29, 33, 2050)]


def array(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(ml_dtypes.bfloat16)


def product(b: Build, m: int, n: int, k: int, turned: str, batch: tuple[int, ...] = ()) -> int:
    def leaf(rows: int, columns: int, turn: bool) -> int:
        if not turn:
            return b.leaf(array(*batch, rows, columns))
        order = (*range(len(batch)), len(batch) + 1, len(batch))
        return b.op("permute", b.leaf(array(*batch, columns, rows)), attrs=(order,))
    return b.op("matmul", leaf(m, k, "a" in turned), leaf(k, n, "b" in turned))


@pytest.mark.parametrize("turned", ["", "a", "b", "ab"])
def test_layouts(turned: str) -> None:
    b = Build()
    b.check(*[product(b, m, n, k, turned) for m, n, k in SIZES])


@pytest.mark.parametrize("turned", ["", "a", "b", "ab"])
def test_batches(turned: str) -> None:
    b = Build()
    b.check(*[product(b, m, n, k, turned, (2, 3)) for m, n, k in SIZES[2:7]])


def test_what_lies_beside_a_matrix_is_not_read() -> None:
    """Columns of a wider matrix, at odd places, with NaN all around."""
    b = Build()
    wide = np.full((9, 41), np.nan, ml_dtypes.bfloat16)
    wide[1:8, 3:20] = array(7, 17)
    a = b.op("slice", b.leaf(wide), attrs=((1, 3), (1, 1)), shape=(7, 17))
    outputs = [b.op("matmul", a, b.leaf(array(17, 21))),
               b.op("matmul", b.leaf(array(5, 7)), a),
               b.op("matmul", b.op("permute", a, attrs=((1, 0),)), b.leaf(array(7, 33)))]
    b.check(*outputs)


def test_odd_values() -> None:
    b = Build()
    x = array(6, 9)
    x[0, 0], x[1, 8], x[2, 3], x[3] = np.nan, np.inf, -np.inf, 0
    b.check(b.op("matmul", b.leaf(x), b.leaf(np.abs(array(9, 20)))))


def test_followed_by_others() -> None:
    b = Build()
    y = product(b, 40, 70, 33, "b")
    bias = b.op("expand", b.op("reshape", b.leaf(array(70)), shape=(1, 70)), shape=(40, 70))
    b.check(b.op("tanh", b.op("add", y, bias)), y)


def test_a_lower_instruction_set_has_no_pairs() -> None:
    with config.override(ISA="avx2"):
        assert not target().pairs
