"""Tensors print as PyTorch's do, apart from the library's name in dtypes."""

from __future__ import annotations

import numpy as np
import pytest

import facula

torch = pytest.importorskip("torch")

rng = np.random.default_rng(0)


def _arrays():
    yield from ([np.float32(v) for v in (0, 1, -1, 1.5, -2.25, 1e-5, 1e9, 123456, np.nan,
                                         np.inf, -np.inf, -0.0, 3.14159265, 1e30, 1e-42)])
    for dtype in ("float16", "float32", "float64"):
        yield np.zeros((2, 3), dtype)
        yield np.arange(6, dtype=dtype).reshape(2, 3)
        yield rng.standard_normal((3, 4)).astype(dtype)
        yield (rng.standard_normal((2, 3, 4)) * 100).astype(dtype)
        yield (rng.standard_normal(30) * 10 ** rng.uniform(-4, 4, 30)).astype(dtype)
        yield np.array([1, np.nan, np.inf, -np.inf, -0.0], dtype)
        yield np.array([np.nan, np.inf, 0], dtype)
        yield np.array([1.5, np.nan, -np.inf], dtype)
        yield np.array([1e-5, 1.0], dtype)
        yield np.array([1000.5, 1.0], dtype)
        yield np.array([1001.0, 1.0], dtype)
        yield np.zeros((0,), dtype)
        yield np.zeros((2, 0), dtype)
        yield np.zeros((0, 3, 1), dtype)
        yield rng.standard_normal((1, 1, 1, 1)).astype(dtype)
    for dtype in ("int8", "uint8", "int16", "int32", "int64"):
        yield np.arange(20, dtype=dtype)
        yield np.array([[1, 100], [7, 0]], dtype)
        yield np.array(np.iinfo(dtype).max, dtype)
        yield np.array([np.iinfo(dtype).min, 0], dtype)
        yield np.zeros((0, 2), dtype)
    yield np.array([True, False])
    yield np.array([[True], [False]])
    yield np.array(True)
    for dtype in ("complex64", "complex128"):
        yield np.array([1 + 2j, -1.5 - 0.25j], dtype)
        yield np.array([[0, 1j], [1, -1j]], dtype)
        yield np.array(1 - 1j, dtype)
        yield np.array([complex(np.nan, 1), complex(-0.0, -0.0), complex(1, np.inf)], dtype)
        yield (rng.standard_normal(1200) + 1j * rng.standard_normal(1200)).astype(dtype)
    yield np.arange(1000)
    yield np.arange(1001)
    yield np.arange(1001, dtype=np.float32)
    yield rng.standard_normal((40, 50)).astype(np.float32)
    yield rng.standard_normal((11, 12, 13)).astype(np.float32)
    yield rng.standard_normal((3, 2, 400)).astype(np.float32)
    yield rng.standard_normal((2, 3, 3, 2)).astype(np.float64)
    yield np.linspace(0, 1e5, 25).astype(np.float32)
    yield rng.standard_normal((3, 50)).astype(np.float32)


ARRAYS = list(_arrays())


def _same(ours, theirs):
    assert repr(ours).replace("facula.", "torch.") == repr(theirs)


@pytest.mark.parametrize("k", range(len(ARRAYS)))
def test_prints_as_pytorch(k):
    array = np.asarray(ARRAYS[k])
    _same(facula.tensor(array), torch.tensor(array))
    assert str(facula.tensor(array)) == repr(facula.tensor(array))


@pytest.mark.parametrize("options", [
    {"precision": 2}, {"precision": 8, "linewidth": 120}, {"threshold": 5}, {"edgeitems": 1,
     "threshold": 4}, {"sci_mode": True}, {"sci_mode": False}, {"profile": "short"},
    {"profile": "full"}, {"linewidth": 30}])
def test_print_options(options):
    facula.set_printoptions(**options)
    torch.set_printoptions(**options)
    try:
        for k in range(0, len(ARRAYS), 3):
            array = np.asarray(ARRAYS[k])
            _same(facula.tensor(array), torch.tensor(array))
        mine, other = facula.get_printoptions(), torch._tensor_str.get_printoptions()
        assert mine == {name: other[name] for name in mine}
    finally:
        facula.set_printoptions(profile="default")
        torch.set_printoptions(profile="default")


def test_bfloat16_and_wide_suffixes():
    values = rng.standard_normal(7).astype(np.float32)
    _same(facula.tensor(values).bfloat16(), torch.tensor(values).bfloat16())
    for n in (6, 7, 8, 9):
        a = rng.standard_normal(n)
        _same(facula.tensor(a, requires_grad=True), torch.tensor(a, requires_grad=True))


def test_gradients_show():
    a = facula.tensor([1.0, 2.0], requires_grad=True)
    assert repr(a) == "tensor([1., 2.], requires_grad=True)"
    assert repr(a + 1) == "tensor([2., 3.], grad_fn=<AddBackward0>)"
    assert repr(a.detach()) == "tensor([1., 2.])"
    assert f"{facula.tensor(2.5):.2f}" == "2.50"
