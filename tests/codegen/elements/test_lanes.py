"""Reductions over rows far apart: tiles of lanes, which ask for what they read later."""

import numpy as np
import pytest

import facula
from facula.codegen.elements.loops import MOST_LANES, _share


@pytest.mark.parametrize("inner", [1, 31, 32, 255, 256, 257, 384, 1000, 1152, 1536, 5000])
def test_tiles_are_whole_lines_and_cover_all_lanes(inner):
    width = _share(inner)
    tiles = -(-inner // width)
    assert 1 <= width <= min(inner, MOST_LANES)
    assert width == inner or width % 32 == 0
    assert (tiles - 1) * width < inner <= tiles * width


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "bfloat16"])
@pytest.mark.parametrize("shape", [(1, 384), (3, 257), (7, 1152), (100, 300), (2, 50, 513)])
def test_sums_over_rows(shape, dtype):
    values = np.random.default_rng(0).integers(-8, 9, shape)
    x = facula.tensor(values).to(getattr(facula, dtype))
    y = (x * x).sum(-2)
    assert np.array_equal(y.to(facula.float64).numpy(), (values * values).sum(-2)
                          if dtype != "bfloat16" else
                          facula.tensor((values * values).sum(-2)).bfloat16().double().numpy())


def test_several_sums_of_one_pass():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 130, 300)).astype(np.float32)
    x, y = facula.tensor(a), facula.tensor(b)
    got = [(x * y).sum(0), x.sum(0), (x * 2).amax(0)]
    want = [(a.astype(np.float64) * b).sum(0), a.astype(np.float64).sum(0), (a * 2).max(0)]
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g.numpy(), w, rtol=1e-5, atol=1e-4)
