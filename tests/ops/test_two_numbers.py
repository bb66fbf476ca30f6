"""Operators called as functions on two Python numbers: a zero-dim tensor, as in PyTorch."""

import pytest

import facula

CALLS = [
    (lambda m: m.add(1, 2), 3, "int64"), (lambda m: m.add(1.5, 2, alpha=3), 7.5, "float32"),
    (lambda m: m.sub(1, 2.5), -1.5, "float32"), (lambda m: m.mul(True, True), True, "bool"),
    (lambda m: m.mul(2, 1j), 2j, "complex64"), (lambda m: m.div(7, 2), 3.5, "float32"),
    (lambda m: m.div(-7, 2, rounding_mode="trunc"), -3, "int64"),
    (lambda m: m.div(-7, 2, rounding_mode="floor"), -4, "int64"),
    (lambda m: m.div(-7.0, 2, rounding_mode="trunc"), -3.0, "float32"),
    (lambda m: m.floor_divide(-7, 2), -4, "int64"),
    (lambda m: m.true_divide(1, 4), 0.25, "float32"),
]


@pytest.mark.parametrize("k", range(len(CALLS)))
def test_value_and_dtype(k):
    call, value, dtype = CALLS[k]
    got = call(facula)
    assert (got.shape, got.item(), got.dtype) == ((), value, getattr(facula, dtype))


@pytest.mark.parametrize("name", ["pow", "remainder", "bitwise_and", "fmod", "maximum"])
def test_those_that_need_a_tensor(name):
    with pytest.raises(TypeError):
        getattr(facula, name)(3, 2)


def test_pytorch_agrees():
    torch = pytest.importorskip("torch")
    for call, value, dtype in CALLS:
        want = call(torch)
        assert (tuple(want.shape), want.item(), want.dtype) == ((), value, getattr(torch, dtype))
