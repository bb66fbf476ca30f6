"""Special functions and conversions, compiled, against their meanings in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula.config import override
from facula.graph.spec import spec
from facula.ops.table import PRIMS

RNG = np.random.default_rng(0)
WIDE = np.concatenate([
    RNG.uniform(-30, 30, 2000), 10.0 ** RNG.uniform(-38, 38, 500),
    -(10.0 ** RNG.uniform(-38, 5, 500)), 1 + 10.0 ** -RNG.uniform(1, 7, 99),
    2 - 10.0 ** -RNG.uniform(1, 7, 99),
    [0, -0.0, 1, 2, -1, -2, 0.5, np.nan, np.inf, -np.inf, 3e38, 1e-45]])


@pytest.mark.parametrize(("name", "values"), [("lgamma", WIDE), ("digamma", WIDE)])
@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_special_functions(name, values, kind):
    dtype = getattr(facula, kind)
    with np.errstate(over="ignore"):
        x = values.astype(np.float32).astype(dtype.np)
    want = PRIMS[name].numpy([x], (), spec(x.shape, dtype)).astype(np.float64)
    with override(INTERPRET=False):
        have = getattr(facula, name)(facula.tensor(x, dtype=dtype)).to(facula.float64).numpy()
    sane = np.isfinite(want)
    assert np.array_equal(np.where(sane, 0, want), np.where(sane, 0, have), equal_nan=True)
    step = {"float32": 2.0 ** -23, "float16": 2.0 ** -10, "bfloat16": 2.0 ** -7}[kind]
    assert np.all(np.abs(have[sane] - want[sane]) <= 1.01 * step * np.abs(want[sane]) + 1e-45)
    zero = values == 0
    assert np.array_equal(np.signbit(have[zero]), np.signbit(want[zero]))


@pytest.mark.parametrize("source", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("target", ["int8", "uint8", "int16", "int32", "uint32", "int64",
                                    "uint64"])
def test_floats_to_integers(source, target):
    dtype, to = getattr(facula, source), getattr(facula, target)
    ends = [2.0 ** 31, 2.0 ** 31 - 1, 2.0 ** 32, 2.0 ** 63, 2.0 ** 64, 1e30, np.inf, 255.9, 1.5]
    x = np.array([*ends, *(-e for e in ends), 0.0, -0.0, np.nan, -2.0 ** 31 - 1] * 4)
    with np.errstate(over="ignore"):
        x = x.astype(np.float64 if source == "float64" else np.float32).astype(dtype.np)
    want = PRIMS["cast"].numpy([x], (), spec(x.shape, to))
    with override(INTERPRET=False):
        have = facula.tensor(x, dtype=dtype).to(to).numpy()
    assert np.array_equal(have, want)
