"""Compiled programs against the NumPy interpreter: every primitive, and small graphs."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import dtypes as d
from facula.ops.table import PRIMS
from tests.schedule.programs import Build, maker

DTYPES = [d.float32, d.float64, d.float16, d.bfloat16, d.int64, d.uint8, d.bool_, d.complex64]


@pytest.mark.parametrize("name", sorted(set(PRIMS) - {"leaf", "scalar"}))
def test_primitive(name: str) -> None:
    record = PRIMS[name]
    build = Build()
    outputs = []
    seen = set()
    for dtype in DTYPES:
        for s in record.samples(maker(dtype)):
            specs = tuple((a.shape, a.dtype.name) for a in s.arrays)
            if (specs, s.attrs, s.shape, s.dtype) in seen:
                continue
            seen.add((specs, s.attrs, s.shape, s.dtype))
            before = len(build.steps), len(build.arrays)
            inputs = [build.leaf(a) for a in s.arrays]
            try:
                outputs.append(build.op(name, *inputs, attrs=s.attrs, shape=s.shape,
                                        dtype=s.dtype))
            except TypeError:           # a dtype that the primitive does not take
                del build.steps[before[0]:], build.arrays[before[1]:]
    if outputs:
        build.check(*outputs)


@pytest.mark.parametrize("where", [0, 1])
@pytest.mark.parametrize("name,stride,low", [("conv", 1, 1), ("conv", 2, 2), ("conv_input", 1, 1),
                                             ("conv_input", 2, 2), ("conv_weight", 1, 1)])
def test_an_infinity_meets_the_zeros_around_a_convolution(name: str, stride: int, low: int,
                                                          where: int) -> None:
    """Zero times infinity is NaN, compiled and interpreted alike."""
    x, w, y = (2, 8, 8, 8), (16, 8, 3, 3), (2, 16, *[(8 + 2 * low - 3) // stride + 1] * 2)
    attrs = ((stride,) * 2, (low,) * 2, (1, 1), 1, *([0] if name == "conv_weight" else []))
    first, second, shape = {"conv": (x, w, y), "conv_input": (y, w, x),
                            "conv_weight": (x, y, w)}[name]
    make = maker()
    arrays = [make(*first), make(*second)]
    arrays[where].reshape(-1)[[0, 70]] = np.inf, -np.inf
    b = Build()
    b.check(b.op(name, *[b.leaf(a) for a in arrays], attrs=attrs, shape=shape))


def test_an_infinite_weight_beside_padding_is_what_pytorch_has_in_float64() -> None:
    torch = pytest.importorskip("torch")
    x, w = np.ones((1, 2, 5, 5)), np.ones((2, 2, 3, 3))
    w[0, 0, 0, 0], w[1, 1, 2, 1] = np.inf, np.nan
    want = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w), padding=1).numpy()
    assert np.isnan(want[0, 0]).sum() == 9 and np.isinf(want[0, 0]).sum() == 16
    with np.errstate(all="ignore"):
        have = facula.nn.functional.conv2d(facula.tensor(x), facula.tensor(w), padding=1).numpy()
    np.testing.assert_array_equal(have, want)


def compiled_and_interpreted(program):
    """What a program gives either way."""
    found = []
    for flags in ({"JIT": True, "INTERPRET": False}, {"JIT": False}):
        with facula.config.override(**flags):
            found.append(program())
    return found


def test_a_running_product_written_over_what_it_is_made_of() -> None:
    def program():
        x = facula.tensor([0.5, 2.0, 3.0], dtype=d.float64)
        y = x.cumprod(-1)
        x[0:3, ...] = y
        y.mul_(0.5)
        return np.stack([x.numpy(), y.numpy()])

    have, want = compiled_and_interpreted(program)
    np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize("name", ["sin", "tan", "asin", "acos", "atan", "erf", "erfc", "sinh",
                                  "log1p", "expm1", "lgamma", "erfinv"])
def test_functions_of_half_in_a_chain(name: str) -> None:
    """Those computed in double are rounded to half by way of float."""
    def program():
        x = facula.tensor([-1.0, -1.25, 0.5, -2.25, 2.0, 1.75], dtype=d.float16)
        y = getattr(x.sin() * 0.875, name)()
        y.tanh_()
        return y.numpy()

    have, want = compiled_and_interpreted(program)
    np.testing.assert_allclose(have.astype(np.float32), want.astype(np.float32), rtol=2e-3,
                               atol=1e-3)
