"""Writes by way of `.data`, which autograd is not told of; outputs that were filled in place."""

import numpy as np
import pytest

import facula
from facula.autograd import Function


class Put(Function):
    """scratch[..., place] = value, with the gradient of that."""

    @staticmethod
    def forward(ctx, scratch, value, place):
        ctx.place = place
        scratch.data[..., place] = value
        return scratch

    @staticmethod
    def backward(ctx, grad):
        return grad, grad[..., ctx.place], None


class Filled(Function):
    """A result that is filled in place and saved."""

    @staticmethod
    def forward(ctx, x):
        out = facula.empty(2, 3)
        for i in range(2):
            out[i] = x.detach() * (i + 1)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx, grad):
        out, = ctx.saved_tensors
        return (grad * out).sum(0)


@pytest.mark.parametrize("run", [False, True])
def test_a_stack_written_behind_its_back(run):
    """The stages of a Runge-Kutta step as torchdiffeq keeps them."""
    w = facula.tensor([0.3, -0.7], requires_grad=True)
    k = facula.zeros(2, 3)
    k = Put.apply(k, w * 2, 0)
    for i in (1, 2):
        y = (k[..., :i] * 0.5).sum(-1)
        if run:
            y.tolist()
        k = Put.apply(k, (y * w).sin(), i)
    (k * facula.arange(3.0)).sum().backward()

    def stages(v):
        out = [v * 2]
        for _ in range(2):
            out.append(np.sin(sum(out) * 0.5 * v))
        return out

    def value(v):
        return sum(i * s for i, s in enumerate(stages(v))).sum()
    v, h = np.array([0.3, -0.7]), 1e-6
    want = [(value(v + h * e) - value(v - h * e)) / (2 * h) for e in np.eye(2)]
    np.testing.assert_allclose(w.grad.numpy(), want, rtol=1e-5)


def test_the_value_before_is_what_the_gradient_reads():
    x = facula.tensor([1.0, 2.0], requires_grad=True)
    y = x * 1
    z = (y * y).sum()
    y.data[0] = 100.0
    assert y.tolist() == [100, 2]
    z.backward()
    assert x.grad.tolist() == [2, 4]


def test_a_write_that_is_seen_is_an_error():
    x = facula.tensor([1.0, 2.0], requires_grad=True)
    y = x * 1
    z = (y * y).sum()
    y[0] = 100.0
    with pytest.raises(RuntimeError, match="inplace"):
        z.backward()


def test_an_output_that_was_filled_in_place_can_be_saved():
    x = facula.tensor([1.0, 2.0, 3.0], requires_grad=True)
    Filled.apply(x).sum().backward()
    assert x.grad.tolist() == [3, 6, 9]
