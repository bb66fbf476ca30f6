"""Floating types of 8 bits: kept, moved, converted and written to files, never computed in."""

import math

import ml_dtypes
import numpy as np
import pytest

import facula

DTYPES = [facula.float8_e4m3fn, facula.float8_e5m2, facula.float8_e4m3fnuz,
          facula.float8_e5m2fnuz]
VALUES = [0.0, -0.0, 1.0, 2.5, -3.0, 0.001, 1e-9, 17.0, 19.0, 447.0, 448.0, 464.0, 465.0, 1e9, -1e9,
          math.inf, -math.inf, math.nan]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)


def test_names_and_kinds():
    for dtype in DTYPES:
        assert dtype.is_floating_point and dtype.itemsize == 1 and not dtype.is_complex
    assert repr(facula.float8_e5m2) == "facula.float8_e5m2"


@pytest.mark.parametrize("jit", ["0", "1"])
@dtypes
def test_conversion_rounds_to_the_nearest(dtype, jit, monkeypatch):
    from facula import config
    monkeypatch.setattr(config.flag, "JIT", int(jit))
    got = facula.tensor(VALUES).to(dtype).float().numpy()
    want = np.array(VALUES, np.float32)
    if dtype is facula.float8_e4m3fn:                  # saturates, and NaN is NaN
        want = np.clip(want, -448, 448)
    want = want.astype(dtype.np).astype(np.float32)
    np.testing.assert_array_equal(got, want)


@dtypes
def test_conversion_is_pytorchs(dtype):
    torch = pytest.importorskip("torch")
    got = facula.tensor(VALUES).to(dtype).float().numpy()
    want = torch.tensor(VALUES).to(getattr(torch, dtype.name)).float().numpy()
    np.testing.assert_array_equal(got, want)


@dtypes
def test_moves(dtype):
    x = (facula.arange(12.0) % 7).reshape(3, 4).to(dtype)
    np.testing.assert_array_equal(x[1:, ::2].float().numpy(), [[4, 6], [1, 3]])
    np.testing.assert_array_equal(x.t().contiguous().clone().float().numpy(),
                                  (np.arange(12.0) % 7).reshape(3, 4).T)
    both = facula.cat([x, x], 1)
    assert both.dtype is dtype and both.shape == (3, 8)
    assert facula.stack([x[0], x[2]]).float().tolist() == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert x.view(facula.uint8).dtype is facula.uint8
    assert facula.zeros(2, dtype=dtype).float().tolist() == [0, 0]
    assert facula.full((2,), 2.5, dtype=dtype).tolist() == [2.5, 2.5]
    assert facula.zeros(0, 3).to(dtype).shape == (0, 3)


@dtypes
def test_in_the_middle_of_a_program(dtype):
    x = facula.linspace(-4, 4, 7)
    step = facula.compile(lambda v: (v * 2).to(dtype).float() + 1)
    want = (x.numpy() * 2).astype(dtype.np).astype(np.float32) + 1
    for _ in range(4):
        np.testing.assert_array_equal(step(x).numpy(), want)


@dtypes
def test_nothing_is_computed_in_them(dtype):
    x = facula.ones(3).to(dtype)
    for wrong in (lambda: x + x, lambda: x * 2, lambda: x.sum(), lambda: -x, lambda: x.exp()):
        with pytest.raises(NotImplementedError, match="float8"):
            wrong()
    with pytest.raises(RuntimeError, match="Promotion for Float8"):
        x + facula.ones(3)


@dtypes
def test_limits(dtype):
    info, want = facula.finfo(dtype), ml_dtypes.finfo(dtype.np)
    assert (info.max, info.min, info.tiny) == (want.max, want.min, want.smallest_normal)
    assert info.bits == 8


@dtypes
def test_files(dtype, tmp_path):
    x = facula.tensor([0.5, -1.5, 16.0]).to(dtype)
    facula.save({"x": x}, tmp_path / "x.safetensors")
    back = facula.load(tmp_path / "x.safetensors")["x"]
    assert back.dtype is dtype and back.float().tolist() == [0.5, -1.5, 16.0]


def test_printed():
    assert repr(facula.tensor([0.5, 2.0]).to(facula.float8_e5m2)) == \
        "tensor([0.5000, 2.0000], dtype=facula.float8_e5m2)"
