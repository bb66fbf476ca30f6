"""`grad` with inputs goes no further than the inputs, and frees no more than it went through."""

import numpy as np
import pytest

import facula as F


def inner_loop(T, steps):
    """MAML's loop of the first order: each adapted weight is differentiated for in its turn."""
    p = T.tensor([1.0, 2.0, 3.0], requires_grad=True)
    g, = T.autograd.grad((p * p).sum(), [p])
    fast, seen = p - 0.1 * g, []
    for _ in range(steps):
        g, = T.autograd.grad((fast * fast).sum(), [fast])
        fast = fast - 0.1 * g
        q = (fast ** 3).sum()
        seen.append(float(q.detach()))
    q.backward()
    return seen, p.grad.numpy()


def test_an_inner_loop_differentiates_for_each_adapted_weight():
    seen, grad = inner_loop(F, 3)
    scale = 0.8 ** np.arange(2, 5)
    np.testing.assert_allclose(seen, 36 * scale ** 3, rtol=1e-5)
    np.testing.assert_allclose(grad, 3 * (scale[-1] * np.array([1, 2, 3.0])) ** 2, rtol=1e-5)


def test_an_inner_loop_as_torch():
    torch = pytest.importorskip("torch")
    for ours, theirs in zip(inner_loop(F, 4), inner_loop(torch, 4)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("computed", [False, True])
def test_what_lies_behind_an_input_is_not_freed(computed):
    p = F.ones(3, requires_grad=True)
    f = p * p
    if computed:
        f.detach().numpy()
    g, = F.autograd.grad((f * f).sum(), [f])
    np.testing.assert_array_equal(g.numpy(), 2.0)
    (f ** 3).sum().backward()
    np.testing.assert_array_equal(p.grad.numpy(), 6.0)


@pytest.mark.parametrize("computed", [False, True])
def test_two_inputs_of_which_one_lies_behind_the_other(computed):
    p = F.full((3,), 2.0, requires_grad=True)
    f = p * p
    if computed:
        f.detach().numpy()
    a, b = F.autograd.grad((f * f).sum(), [f, p])
    np.testing.assert_array_equal(a.numpy(), 8.0)
    np.testing.assert_array_equal(b.numpy(), 32.0)
    with pytest.raises(RuntimeError, match="second time"):
        (f * 2).sum().backward()


def test_a_path_beside_the_input_is_not_walked():
    p, q = F.ones(3, requires_grad=True), F.ones(3, requires_grad=True)
    called = []
    side = q * q
    side.register_hook(lambda g: called.append(1))
    loss = (p * side).sum()
    g, = F.autograd.grad(loss, [p])
    assert not called and q.grad is None
    np.testing.assert_array_equal(g.numpy(), 1.0)
    side.sum().backward()
    assert called
    np.testing.assert_array_equal(q.grad.numpy(), 2.0)


def test_backward_with_inputs_leaves_the_rest():
    p, q = F.ones(3, requires_grad=True), F.ones(3, requires_grad=True)
    side = q * q
    (p * side).sum().backward(inputs=[p])
    assert q.grad is None
    np.testing.assert_array_equal(p.grad.numpy(), 1.0)
    side.sum().backward()
    np.testing.assert_array_equal(q.grad.numpy(), 2.0)


def test_a_long_chain_of_computed_parts():
    p = F.ones(2, requires_grad=True)
    x = p
    for _ in range(1500):           # each part a graph of its own
        x = x * 1.0
        x.detach().numpy()
    g, = F.autograd.grad(x.sum(), [p])
    np.testing.assert_array_equal(g.numpy(), 1.0)


def test_an_input_that_is_not_reached():
    p, q = F.ones(3, requires_grad=True), F.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="not have been used"):
        F.autograd.grad((p * p).sum(), [q])
    assert F.autograd.grad((p * p).sum(), [q], allow_unused=True) == (None,)
