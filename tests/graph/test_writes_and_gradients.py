"""Gradients of what is overwritten, and of graphs that are walked more than once.

Expected values are PyTorch's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import facula
from facula.errors import StaleTensorError
from facula.optim.sgd import SGD
from tests.graph.both import arange, equal

pytestmark = pytest.mark.usefixtures("both_ways")


def test_leaves_that_require_gradients_are_not_written_to() -> None:
    w = arange(3, requires_grad=True)
    for write in (lambda: w.add_(1), lambda: w[0:1].mul_(2), lambda: w.view(1, 3).zero_()):
        with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
            write()
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        w[1] = 3.0
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        w += 1
    equal(w, [0, 1, 2])


def test_views_of_parameters_may_be_written_to_under_no_grad() -> None:
    w = arange(4, requires_grad=True)
    with facula.no_grad():
        w[1:3] = 7.0
        w[0] += 5
        w.view(2, 2)[1].mul_(2)
    equal(w, [5, 7, 14, 6])
    (w * w).sum().backward()
    equal(w.grad, [10, 14, 28, 12])
    assert w.is_leaf and w.requires_grad


@pytest.mark.parametrize("asked", [False, True])
def test_overwriting_a_saved_tensor_names_both_lines(asked: bool) -> None:
    x = facula.ones(37 + asked, requires_grad=True)
    y = x.exp()
    z = (y * y).sum()
    if asked:
        z.item()
    y.add_(1)
    with pytest.raises(StaleTensorError, match="modified by an inplace operation") as caught:
        z.backward()
    first = test_overwriting_a_saved_tensor_names_both_lines.__code__.co_firstlineno
    for line in (first + 4, first + 7):
        assert f"test_writes_and_gradients.py:{line}" in str(caught.value), str(caught.value)


def test_augmented_assignment_reads_what_it_overwrites() -> None:
    x, w = arange(3, requires_grad=True), facula.full((3,), 2.0, dtype=facula.float64,
                                                      requires_grad=True)
    for write in ("y *= w", "y /= w", "y **= w", "y.mul_(w)", "y.div_(w)", "y[:] *= w",
                  "y.addcmul_(y, w)"):
        scope: dict[str, Any] = {"y": x * x + 1, "w": w}
        exec(write, scope)
        scope["y"].sum().backward()
        old = np.arange(3.0) ** 2 + 1
        expected = {"*": old, "m": old, "/": -old / 4, "d": -old / 4, "p": old ** 2 * np.log(old),
                    "a": old}["p" if "**" in write else "*" if "*=" in write else "/" if "/"
                              in write else write[2]]
        equal(w.grad, expected)
        w.grad = None


def test_gradient_through_in_place_and_views() -> None:
    x = arange(4, requires_grad=True)
    y = x * 2
    y[1:3] *= x[1:3]
    y.view(2, 2).t()[0] += x[:2] * x[2:]
    y.sum().backward()
    # y = [2x0 + x0x2, 2x1^2, 2x2^2 + x1x3, 2x3]
    equal(x.grad, [2 + 2, 4 * 1 + 3, 4 * 2 + 0, 2 + 1])


def test_a_step_of_the_optimiser_makes_old_uses_stale() -> None:
    w = arange(3, requires_grad=True)
    view = w[1:]
    loss = (w * w).sum()
    other = (view * view).sum()
    loss.backward()
    with facula.no_grad():
        w -= 0.5 * w.grad
    equal(view, [0, 0])
    with pytest.raises(StaleTensorError):
        other.backward()
    (w[1:] * 3).sum().backward()


def test_optimiser_and_views_of_its_parameters() -> None:
    w = arange(3, requires_grad=True)
    view = w.detach()[1:]
    sgd = SGD([w], lr=0.5)
    for _ in range(3):
        sgd.zero_grad()
        (w * w * 0.5).sum().backward()
        sgd.step()
    equal(view, [0.125, 0.25])
    equal(w, [0, 0.125, 0.25])


def test_writes_without_recording_keep_the_history() -> None:
    x = arange(3, requires_grad=True)
    y = x * 2
    y.data.mul_(5)
    v = y[1:]
    with facula.no_grad():
        v.add_(1)
    assert y.requires_grad and v.requires_grad
    equal(y, [0, 11, 21])
    (y * y).sum().backward()
    equal(x.grad, [0, 2 * 11 * 2, 2 * 21 * 2])
    z = x * 2
    z.zero_()                   # recorded: what is overwritten gets no gradient
    x.grad = None
    (z + x).sum().backward()
    equal(x.grad, [1, 1, 1])


def test_views_of_a_leaf_written_to_without_gradients():
    x = facula.tensor([1.0, 2.0, 3.0]).requires_grad_()
    view = x[1:]
    with facula.no_grad():
        x.mul_(10)
    assert view.requires_grad and view.tolist() == [20.0, 30.0]
    view.sum().backward()
    x.detach().numpy()[:] = 7           # NumPy shares the memory from here on
    (x[0] * x[2]).backward()
    assert x.grad.tolist() == [7.0, 1.0, 8.0]


def test_retained_graphs_are_walked_again() -> None:
    x = arange(3, requires_grad=True)
    loss = (x * x).sum()
    loss.backward(retain_graph=True)
    loss.backward(retain_graph=True)
    equal(x.grad, [0, 4, 8])
    loss.backward()
    equal(x.grad, [0, 6, 12])
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_double_backward_through_in_place() -> None:
    x = arange(3, requires_grad=True)
    y = x * x
    y *= x
    y[0:1] += x[1:2] ** 2
    g, = facula.autograd.grad(y.sum(), x, create_graph=True)
    # y = [x0^3 + x1^2, x1^3, x2^3]
    equal(g, [0, 2 + 3, 12])
    h, = facula.autograd.grad(g.sum(), x)
    equal(h, [0, 2 + 6, 12])


def test_in_place_inside_a_custom_function() -> None:
    class Double(facula.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            x.mul_(2)
            ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            grad = grad.clone()
            grad.mul_(2)
            return grad

    x = arange(3, requires_grad=True)
    y = x + 1
    out = Double.apply(y)
    out.sum().backward()
    equal(x.grad, [2, 2, 2])
    equal(y, [2, 4, 6])
    equal(out, [2, 4, 6])


def test_accumulating_losses() -> None:
    x = arange(3, requires_grad=True)
    total: Any = 0
    for k in range(50):
        total = total + (x * k).sum()
        if k % 20 == 0:
            total.item()
    total.backward()
    equal(x.grad, np.full(3, 49 * 50 / 2))
    equal(total, 3 * 49 * 50 / 2)
    history = 0.0
    for k in range(30):
        loss = (x * x * k).sum()
        loss.backward()
        history += loss.item()
    assert history == 5 * 29 * 30 / 2


def test_gradients_are_not_aliased_to_each_other() -> None:
    a, b = arange(2, requires_grad=True), arange(2, requires_grad=True)
    (a + b).sum().backward()
    a.grad.add_(1)
    equal(a.grad, [2, 2])
    equal(b.grad, [1, 1])
    kept = a.grad
    (a * 2).sum().backward()
    equal(kept, [4, 4])
    assert kept is a.grad


def test_a_gradient_cleared_in_place() -> None:
    a = arange(2, requires_grad=True)
    for _ in range(3):
        if a.grad is not None:
            a.grad.zero_()
        (a * a).sum().backward()
        equal(a.grad, [0, 2])
