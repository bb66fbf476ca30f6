"""What PyTorch keeps from earlier versions, called as PyTorch is."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

import facula

X = np.random.default_rng(5).normal(size=(2, 3, 4)).astype(np.float32)


def test_norms() -> None:
    x = facula.tensor(X)
    np.testing.assert_allclose(facula.frobenius_norm(x, (0, 2)).numpy(),
                               np.sqrt((X * X).sum((0, 2))), rtol=1e-5)
    assert facula.frobenius_norm(x).shape == ()
    np.testing.assert_allclose(facula.nuclear_norm(x[0]).item(),
                               np.linalg.svd(X[0], compute_uv=False).sum(), rtol=1e-5)
    assert facula.nuclear_norm(x, (0, 2), True).shape == (1, 3, 1)
    np.testing.assert_allclose(facula.norm_except_dim(x, 2, 1).numpy(),
                               np.sqrt((X * X).sum((0, 2), keepdims=True)), rtol=1e-5)
    assert facula.norm_except_dim(x, 2, -1).shape == ()
    np.testing.assert_allclose(facula.norm_except_dim(x[0, 0]).numpy(), np.abs(X[0, 0]))


def test_norms_as_pytorch() -> None:
    torch = pytest.importorskip("torch")
    x, y = facula.tensor(X), torch.tensor(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, args in (("frobenius_norm", (1,)), ("frobenius_norm", ((0, 1), True)),
                           ("nuclear_norm", ((1, 2),)), ("norm_except_dim", (1, 0)),
                           ("norm_except_dim", (2, 2))):
            got, want = getattr(facula, name)(x, *args), getattr(torch, name)(y, *args)
            np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5)


def test_from_file(tmp_path: Path) -> None:
    path = str(tmp_path / "numbers")
    np.arange(6, dtype=np.float32).tofile(path)
    mine = facula.from_file(path, size=4)
    mine.fill_(9.0)
    assert mine.numpy().tolist() == [9.0] * 4
    assert np.fromfile(path, np.float32).tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(RuntimeError, match="shorter than the 64 bytes"):
        facula.from_file(path, size=8, dtype=facula.float64)
    shared = facula.from_file(path, shared=True, size=8, dtype=facula.int32)
    shared.fill_(7)
    shared.numpy()
    assert np.fromfile(path, np.int32).tolist() == [7] * 8
    assert facula.from_file(path).shape == (0,)


def test_new_and_maps() -> None:
    x = facula.ones(2, 2, dtype=facula.float64)
    assert x.new(3, 1).shape == (3, 1) and x.new().shape == (0,)
    assert x.new([1, 2]).dtype is facula.float64
    assert x.map_(facula.full((2,), 3.0, dtype=facula.float64), lambda a, b: a + b) is x
    assert x.tolist() == [[4.0, 4.0]] * 2
    x.map2_(x * 2, x, lambda a, b, c: a + b * c)
    assert x.tolist() == [[36.0, 36.0]] * 2
    with pytest.raises(RuntimeError, match="requires grad"):
        facula.ones(2, requires_grad=True).map_(facula.ones(2), max)
    with pytest.raises(TypeError, match="expected float64"):
        x.map_(facula.ones(2), max)
    with pytest.raises(RuntimeError, match="broadcast"):
        x.map_(facula.ones(3, 2, 2, dtype=facula.float64), max)


def test_facts() -> None:
    x = facula.tensor(X)
    assert x.permute(2, 0, 1).dim_order() == (1, 2, 0)
    assert x.output_nr == 0 and x.name is None
    assert facula.get_device(x) == -1 and facula.is_inference(x) is False
    y = facula.ones(2)
    assert facula.fill_(y, 3.0) is y and y.tolist() == [3.0, 3.0]
    assert facula.detach_(y) is y
    assert facula.as_strided_(y, (1,), (1,), 1).tolist() == [3.0]


def test_sizes_and_data() -> None:
    assert facula.Tensor(2, 3).shape == (2, 3)
    assert facula.Tensor(facula.Size([2, 3])).shape == (2, 3)
    assert facula.Tensor().shape == (0,) == facula.FloatTensor().shape
    assert facula.Tensor([1, 2]).tolist() == [1.0, 2.0]
    assert facula.Tensor([[1], [2]]).dtype is facula.float32
    source = facula.tensor([1.0, 2.0], requires_grad=True)
    same = facula.Tensor(source)
    assert not same.requires_grad and same.data_ptr() == source.data_ptr()


def test_the_default_dtype_counts() -> None:
    facula.set_default_dtype(facula.float64)
    try:
        assert facula.Tensor(2).dtype is facula.Tensor([1]).dtype is facula.float64
    finally:
        facula.set_default_dtype(facula.float32)


def test_parameters_are_made_of_them() -> None:
    weight = facula.nn.Parameter(facula.Tensor(3, 2))
    facula.nn.init.ones_(weight)
    assert weight.requires_grad and weight.sum().item() == 6


def test_what_is_refused() -> None:
    with pytest.raises(TypeError, match=r"facula\.tensor makes a tensor"):
        facula.Tensor(2.5)
    with pytest.raises(TypeError):
        facula.Tensor([1], [2])
    with pytest.raises(RuntimeError, match="CPU"):
        facula.Tensor(2, device="cuda")

    class Sub(facula.Tensor):
        pass

    with pytest.raises(TypeError, match="Sub"):
        Sub([1])
