"""Rewritten steps: the same values, and what they become."""

from __future__ import annotations

from facula import dtypes as d
from facula.schedule.compile import build
from facula.schedule.simplify import simplify
from tests.schedule.programs import Build, maker


def _groups(b: Build, *outputs: int) -> list[list[str]]:
    steps, _, outputs = simplify(b.steps, outputs)      # type: ignore[assignment]
    return [[steps[i].op for i in r.steps] for r in build(steps, outputs, {}).reports]


def _reshaped_product(b: Build) -> int:
    make = maker(d.float32)
    x = b.op("reshape", b.leaf(make(3, 20, 8)), shape=(60, 8))
    y = b.op("matmul", x, b.leaf(make(8, 16)))
    bias = b.op("expand", b.op("reshape", b.leaf(make(16)), shape=(1, 16)), shape=(60, 16))
    return b.op("reshape", b.op("add", y, bias), shape=(3, 20, 16))


def test_an_activation_of_a_reshaped_product_ends_its_tiles() -> None:
    b = Build()
    y = _reshaped_product(b)
    half = b.op("full", attrs=(0.5,), shape=(3, 20, 16), dtype=d.float32)
    out = b.op("mul", b.op("mul", y, half), b.op("tanh", b.op("mul", y, y)))
    flat = b.op("reshape", out, shape=(60, 16))
    other = b.op("matmul", flat, b.leaf(maker(d.float32, seed=1)(16, 5)))
    b.check(out, other)
    assert [g for g in _groups(b, other) if "tanh" in g or "mul" in g] == [["matmul", "mul"]]


def test_what_meets_others_stays_in_its_shape() -> None:
    b = Build()
    y = _reshaped_product(b)
    top = b.op("reshape", b.op("amax", y, attrs=((2,),)), shape=(3, 20, 1))
    shares = b.op("exp", b.op("sub", y, b.op("expand", top, shape=(3, 20, 16))))
    total = b.op("reshape", b.op("sum", shares, attrs=((2,),)), shape=(3, 20, 1))
    out = b.op("div", shares, b.op("expand", total, shape=(3, 20, 16)))
    b.check(out)
    assert _groups(b, out)[-1] == ["amax", "exp", "sum", "div"]
