"""PyTorch's oldest constructors, which programs still have."""

from __future__ import annotations

import pytest

import facula


def test_sizes_and_data():
    assert facula.Tensor(2, 3).shape == (2, 3)
    assert facula.Tensor(facula.Size([2, 3])).shape == (2, 3)
    assert facula.Tensor().shape == (0,) == facula.FloatTensor().shape
    assert facula.Tensor([1, 2]).tolist() == [1.0, 2.0]
    assert facula.Tensor([[1], [2]]).dtype is facula.float32
    source = facula.tensor([1.0, 2.0], requires_grad=True)
    same = facula.Tensor(source)
    assert not same.requires_grad and same.data_ptr() == source.data_ptr()


def test_the_default_dtype_counts():
    facula.set_default_dtype(facula.float64)
    try:
        assert facula.Tensor(2).dtype is facula.Tensor([1]).dtype is facula.float64
    finally:
        facula.set_default_dtype(facula.float32)


def test_parameters_are_made_of_them():
    weight = facula.nn.Parameter(facula.Tensor(3, 2))
    facula.nn.init.ones_(weight)
    assert weight.requires_grad and weight.sum().item() == 6


def test_what_is_refused():
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
