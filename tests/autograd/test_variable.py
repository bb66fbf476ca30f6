"""`Variable`, as programs from before PyTorch 0.4 use it."""

import pytest

import facula
from facula.autograd import Variable


def test_a_tensor_without_history():
    a = facula.ones(2, requires_grad=True)
    for t in (a, a * 2):
        v = Variable(t)
        assert type(v) is facula.Tensor and not v.requires_grad and v.is_leaf
    v = Variable(facula.ones(2), requires_grad=True)
    (v * 3).sum().backward()
    assert v.grad.tolist() == [3, 3]
    assert Variable(v, volatile=True).requires_grad is False
    assert Variable().shape == (0,)


def test_memory_is_shared():
    b = facula.ones(2)
    Variable(b, True).data[0] = 5
    assert b.tolist() == [5, 1]


def test_every_tensor_is_one():
    for t in (facula.ones(1), facula.nn.Linear(1, 1).bias):
        assert isinstance(t, Variable)
    assert not isinstance(1.0, Variable)


def test_what_is_refused():
    with pytest.raises(TypeError, match="has to be a tensor, but got list"):
        Variable([1.0])
    with pytest.raises(RuntimeError, match="floating point"):
        Variable(facula.ones(2, dtype=facula.int64), requires_grad=True)
