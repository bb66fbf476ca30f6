"""Custom Functions that are differentiated more than once."""

from __future__ import annotations

import numpy as np
import pytest

import facula


class Cube(facula.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x ** 3

    @staticmethod
    def backward(ctx, g):
        x, = ctx.saved_tensors
        return 3 * x ** 2 * g


class Both(facula.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x ** 2, x * 5

    @staticmethod
    def backward(ctx, a, b):
        x, = ctx.saved_tensors
        return 2 * x * a + 5 * b


@pytest.mark.parametrize("look", [False, True])
def test_second_gradient_goes_on_through_the_output(look):
    w = facula.tensor(np.array([2.0, -1.0])).requires_grad_()
    z = Cube.apply(w * 1.0)
    if look:
        z.sum().item()
    g, = facula.autograd.grad((z ** 2).sum(), w, create_graph=True)
    second, = facula.autograd.grad(g.sum(), w)
    np.testing.assert_allclose(second.numpy(), 30 * w.detach().numpy() ** 4)


def test_second_gradient_of_several_outputs():
    w = facula.tensor(np.array([2.0, -1.0])).requires_grad_()
    a, b = Both.apply(w * 1.0)
    g, = facula.autograd.grad((a * b).sum(), w, create_graph=True)      # 5 w**3
    second, = facula.autograd.grad(g.sum(), w)
    np.testing.assert_allclose(second.numpy(), 30 * w.detach().numpy())


@pytest.mark.parametrize("way", ["hook", "function", "look"])
def test_third_gradient_of_a_leaf_that_was_pending_when_the_pass_began(way):
    """A graph that is run in the middle of a pass keeps the leaf, not only what it is made of."""
    x = facula.tensor(np.array([2.0, -1.0])).clone().requires_grad_()
    if way == "function":
        Cube.apply(x)
    a = 3 * x * x
    if way == "hook":
        a.register_hook(lambda g: g)
    if way == "look":
        a.sum().item()
    b, = facula.autograd.grad((a ** 2).sum(), x, create_graph=True)      # 36 x**3
    c, = facula.autograd.grad(b.sum(), x)
    x = x.detach().numpy()
    np.testing.assert_allclose(b.detach().numpy(), 36 * x ** 3)
    np.testing.assert_allclose(c.numpy(), 108 * x ** 2)
