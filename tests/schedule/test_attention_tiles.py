"""Attention in tiles: blocks of every kind against the interpreter, and memory."""

from __future__ import annotations

import numpy as np
import pytest

import facula
import facula.nn
from facula import dtypes as d
from facula.dtype import DType
from facula.schedule.compile import build
from facula.schedule.simplify import simplify
from tests.schedule.programs import Build, maker

SHAPES = [
    # batch, queries, keys, width of keys and of values
    ((2,), 64, 64, 32, 32),             # whole blocks
    ((), 130, 70, 40, 24),              # blocks that are cut, more queries than keys
    ((3, 1), 17, 150, 8, 48),           # more keys than queries
    ((9,), 100, 100, 5, 33),            # a batch that is shared out as whole matrices
    ((1,), 1, 1, 1, 1),
    ((2,), 3, 200, 64, 1),
]


def _step(build: Build, dtype: DType, shape: tuple[object, ...], causal: bool, mask: str,
          names: tuple[str, ...]) -> list[int]:
    """The steps of these names on operands that fit together."""
    batch, rows, keys, width, deep = shape
    make = maker(dtype, seed=4)

    def leaf(*size: int, dtype: DType | None = None, **bounds: float) -> int:
        return build.leaf(make(*batch, *size, dtype=dtype, **bounds))   # type: ignore[misc]

    wide = d.float32 if dtype.itemsize == 2 else dtype
    q, k, v, g = (leaf(*size) for size in ((rows, width), (keys, width), (keys, deep),
                                           (rows, deep)))
    masks = []
    if mask:
        masks = [leaf(rows, keys, dtype=d.bool_ if mask == "bool" else dtype)]
    attrs = (0.3 / np.sqrt(width).item(), causal, bool(mask))
    lse = build.op("attention_lse", q, k, *masks, attrs=attrs)
    delta = leaf(rows, dtype=wide)
    operands = {"attention": (q, k, v), "attention_lse": (q, k),
                "attention_dq": (q, k, v, g, lse, delta), "attention_dk": (q, k, v, g, lse, delta),
                "attention_dv": (q, k, g, lse)}
    return [lse if n == "attention_lse" else build.op(n, *operands[n], *masks, attrs=attrs)
            for n in names]


ALL = ("attention", "attention_lse", "attention_dq", "attention_dk", "attention_dv")


@pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
def test_blocks(shape: tuple[object, ...]) -> None:
    for causal, mask in ((True, ""), (False, "bool")):
        b = Build()
        b.check(*_step(b, d.float32, shape, causal, mask, ALL))


@pytest.mark.parametrize("dtype", [d.float64, d.bfloat16, d.float16], ids=str)
def test_other_dtypes(dtype: DType) -> None:
    b = Build()
    b.check(*_step(b, dtype, ((2,), 70, 50, 12, 20), True, "float", ALL))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [d.float32, d.float64, d.bfloat16, d.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blocks_of_every_dtype(shape: tuple[object, ...], dtype: DType) -> None:
    for causal, mask in ((False, ""), (True, ""), (False, "bool"), (True, "float")):
        b = Build()
        b.check(*_step(b, dtype, shape, causal, mask, ALL))


@pytest.mark.parametrize("names", [("attention_dq",), ("attention_dk",), ("attention_dv",)])
@pytest.mark.parametrize("batch", [(2,), (8,)])
def test_some_gradients(names: tuple[str, ...], batch: tuple[int, ...]) -> None:
    b = Build()
    b.check(*_step(b, d.float32, (batch, 70, 90, 12, 20), True, "", names))


def test_operands_lie_anywhere() -> None:
    """Heads inside rows of all of q, k and v, keys shared by groups, a mask for a whole batch."""
    b, make = Build(), maker(d.float32)
    whole = b.leaf(make(2, 40, 3, 4, 8))        # [batch, rows, 3, heads, 8]
    parts = []
    for i in range(3):
        one = b.op("slice", whole, attrs=((0, 0, i, 0, 0), (1,) * 5), shape=(2, 40, 1, 4, 8))
        one = b.op("reshape", one, shape=(2, 40, 4, 8))
        parts.append(b.op("permute", one, attrs=((0, 2, 1, 3),)))
    shared = b.op("slice", parts[1], attrs=((0, 1, 0, 0), (1,) * 4), shape=(2, 1, 40, 8))
    shared = b.op("expand", shared, shape=(2, 4, 40, 8))
    turned = b.op("permute", b.leaf(make(2, 4, 8, 40)), attrs=((0, 1, 3, 2),))
    mask = b.op("expand", b.leaf(make(1, 1, 1, 40, dtype=d.bool_)), shape=(2, 4, 40, 40))
    attrs = (0.3, False, True)
    out = b.op("attention", parts[0], shared, parts[2], mask, attrs=attrs)
    other = b.op("attention", turned, parts[1], turned, mask, attrs=attrs)
    back = b.op("reshape", b.op("permute", out, attrs=((0, 2, 1, 3),)), shape=(2, 40, 32))
    b.check(back, other)


def _kernels(b: Build, outputs: list[int]) -> tuple[list[list[str]], int]:
    """What each group of a plan computes, and the bytes of its temporaries."""
    steps, _, outputs = simplify(b.steps, outputs)
    native = build(steps, outputs, {})
    return ([sorted(steps[i].op for i in r.steps) for r in native.reports],
            native.plan.arena_bytes)


def test_one_kernel_a_direction() -> None:
    b = Build()
    groups, _ = _kernels(b, _step(b, d.float32, ((8,), 64, 64, 16, 16), True, "", ALL))
    assert sorted(groups) == [["attention", "attention_lse"],
                              ["attention_dk", "attention_dq", "attention_dv"]]


@pytest.mark.parametrize("dtype", [d.float32, d.bfloat16], ids=str)
def test_memory_is_linear_in_the_context(dtype: DType) -> None:
    def arena(rows: int) -> int:
        b = Build()
        return _kernels(b, _step(b, dtype, ((4,), rows, rows, 16, 16), True, "",
                                 ("attention", "attention_dq", "attention_dk", "attention_dv")))[1]

    small, large = arena(512), arena(2048)
    assert large <= 4 * small + 4096
    assert large < 4 * 2048 * 2048          # not even a byte for each score


@pytest.mark.parametrize("rows", [17, 25, 33])
def test_queries_that_end_in_the_middle_of_a_pair(
        rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that no query sees have no gradient, whatever lay in the kernel's memory before."""
    monkeypatch.setattr(facula.config.flag, "INTERPRET", 0)

    def gradients(*data: np.ndarray) -> list[np.ndarray]:
        q, k, v, g = (facula.tensor(x).bfloat16().requires_grad_(i < 3)
                      for i, x in enumerate(data))
        out = facula.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        out.backward(g)
        return [x.grad.float().numpy() for x in (q, k, v)]      # type: ignore[union-attr]

    make = maker(d.float32, seed=4)
    gradients(*[np.full((3, 128, 64), np.nan, np.float32)] * 4)
    for got in gradients(make(3, rows, 8), make(3, 150, 8), make(3, 150, 48), make(3, rows, 48)):
        assert np.isfinite(got).all()
        if got.shape[1] == 150:
            assert not got[:, rows:].any() and got[:, :rows].any()
