"""Aliasing and staleness: the cases in which lazy frameworks give silent wrong answers.

Every case runs on the interpreter and compiled at first sight.  Expected values are PyTorch's.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import facula
from facula.errors import StaleTensorError
from facula.optim.sgd import SGD
from tests.fuzz.graphs import fresh_recorder


@pytest.fixture(autouse=True, params=["interpreted", "compiled"])
def _how(request: Any) -> Iterator[None]:
    with fresh_recorder(JIT=request.param == "compiled", INTERPRET=False):
        yield


def equal(t: Any, expected: Any) -> None:
    np.testing.assert_allclose(t.detach().clone().numpy(), np.asarray(expected), rtol=1e-6)


def arange(n: int, **kwargs: Any) -> Any:
    return facula.tensor(np.arange(float(n)), **kwargs)


# ---------------------------------------------------------------- reads and writes in order

def test_what_was_read_before_a_write_is_the_old_value() -> None:
    x = arange(4)
    before = x + 1
    x.mul_(10)
    after = x + 1
    equal(before, [1, 2, 3, 4])
    equal(after, [1, 11, 21, 31])


def test_views_taken_before_and_after_a_write_see_it() -> None:
    x = arange(6)
    early = x[1:3]
    x.add_(1)
    late = x[1:3]
    x[2] = 100
    for v in (early, late):
        equal(v, [2, 100])


def test_writing_through_a_view_of_a_view() -> None:
    x = arange(12)
    v = x.view(3, 4).t()[1:]
    w = v[::2, 1:]
    w.zero_()
    w += 5
    expected = np.arange(12.0)
    expected.reshape(3, 4).T[1:][::2, 1:] = 5
    equal(x, expected)
    equal(v, expected.reshape(3, 4).T[1:])
    equal(w, np.full((2, 2), 5))


@pytest.mark.parametrize("asked", [False, True])
def test_a_view_reads_what_its_base_became(asked: bool) -> None:
    x = arange(4)
    v = x[2:]
    if asked:
        equal(v, [2, 3])
    x.copy_(facula.tensor([9.0, 8.0, 7.0, 6.0]))
    equal(v, [7, 6])
    v.neg_()
    equal(x, [9, 8, -7, -6])


def test_adding_the_own_transpose() -> None:
    x = arange(9).view(3, 3)
    x += x.t()
    base = np.arange(9.0).reshape(3, 3)
    equal(x, base + base.T)
    x.copy_(x.t().clone() - x)
    equal(x, np.zeros((3, 3)))


@pytest.mark.parametrize("shift", [1, -1, 3])
def test_overlapping_slices(shift: int) -> None:
    x, expected = arange(8), np.arange(8.0)
    if shift > 0:
        x[shift:] = x[:-shift]
        expected[shift:] = expected[:-shift].copy()
    else:
        x[:shift] = x[-shift:]
        expected[:shift] = expected[-shift:].copy()
    equal(x, expected)
    x[1:].copy_(x[:-1] * 2)
    expected[1:] = expected[:-1].copy() * 2
    equal(x, expected)


def test_reversing_in_place() -> None:
    x = arange(5)
    x.copy_(x.flip(0))
    equal(x, [4, 3, 2, 1, 0])
    x[:] = x.flip(0)
    equal(x, [0, 1, 2, 3, 4])


def test_swapping_names_and_swapping_elements() -> None:
    a, b = arange(2), arange(2) + 10
    a, b = b, a
    a += 1
    equal(a, [11, 12])
    equal(b, [0, 1])
    x = arange(3)
    x[0], x[2] = x[2].clone(), x[0].clone()
    equal(x, [2, 1, 0])
    # As in PyTorch, without clone() the second assignment reads through a view of the first.
    x[0], x[2] = x[2], x[0]
    equal(x, [0, 1, 0])


def test_another_name_is_the_same_tensor() -> None:
    a = arange(3)
    b = a
    b += 1
    a *= 2
    assert a is b
    equal(b, [2, 4, 6])
    c = a + 0
    c += 1
    equal(a, [2, 4, 6])


def test_augmented_assignment_on_slices() -> None:
    x = arange(6).view(2, 3)
    x[0] += 10
    x[:, 1] *= 2
    x[..., -1] -= x[..., 0]
    x[[0, 1], [0, 0]] += 1
    equal(x, [[11, 22, 2], [4, 8, 2]])


def test_assignment_broadcasts() -> None:
    x = facula.zeros(2, 3, 4)
    x[:, 1] = facula.tensor([1.0, 2.0, 3.0, 4.0])
    x[..., 0] = facula.tensor([[5.0], [6.0]])
    x[0, 2, 1:] = 7
    expected = np.zeros((2, 3, 4))
    expected[:, 1] = [1, 2, 3, 4]
    expected[..., 0] = [[5], [6]]
    expected[0, 2, 1:] = 7
    equal(x, expected)
    with pytest.raises(RuntimeError):
        x[0] = facula.zeros(5)
    equal(x, expected)


def test_writes_of_no_elements() -> None:
    x = arange(3)
    v = x[1:1]
    v += 1
    v.fill_(7)
    x[3:] = facula.zeros(0)
    x[[]] = 5.0
    x[x > 100] = 9.0
    equal(x, [0, 1, 2])
    equal(v, [])
    e = facula.zeros(0, 3)
    e += 1
    e[:, 1] = 2
    assert e.sum().item() == 0


def test_copies_between_overlapping_views() -> None:
    x = arange(9).view(3, 3)
    x[1:].copy_(x[:2])
    equal(x, [[0, 1, 2], [0, 1, 2], [3, 4, 5]])
    x[:, 1:].copy_(x[:, :2])
    equal(x, [[0, 0, 1], [0, 0, 1], [3, 3, 4]])


def test_expanded_tensors_are_not_written_to() -> None:
    x = arange(3)
    for write in (lambda v: v.add_(1), lambda v: v.zero_(), lambda v: v.mul_(v),
                  lambda v: v.copy_(facula.ones(2, 3)), lambda v: v.__setitem__(slice(None), 1.0)):
        with pytest.raises(RuntimeError, match="single memory location"):
            write(x.expand(2, 3))
    equal(x, [0, 1, 2])


def test_a_write_of_nothing_into_an_expanded_tensor() -> None:
    x = arange(3)
    part = x.expand(2, 3)[0:0]
    for write in (lambda v: v.add_(1), lambda v: v.fill_(2), lambda v: v.unsqueeze(1).mul_(3),
                  lambda v: v.copy_(facula.ones(0, 3)), lambda v: v.__setitem__(..., 1.0)):
        write(part)
    equal(x, [0, 1, 2])
    y = facula.ones(3, requires_grad=True)
    z = y * 2
    z.expand(2, 3)[0:0].mul_(5)
    z.sum().backward()
    equal(y.grad, [2, 2, 2])


def test_a_write_into_one_row_of_an_expanded_tensor() -> None:
    x = arange(3)
    wide = x.expand(2, 3)
    wide[0] += 1
    equal(x, [1, 2, 3])
    equal(wide, [[1, 2, 3], [1, 2, 3]])


def test_a_product_of_a_view_that_is_held_itself() -> None:
    # The product could read the vector below the view, but finds the view in memory first.
    v, w = facula.tensor([[1.0], [2.0], [3.0]]), facula.tensor([1.0, 2.0, 3.0])
    wide = v.expand(2, 3, 3)
    equal(w @ wide, np.full((2, 3), 14))
    equal(wide, np.array([[[1.0] * 3, [2.0] * 3, [3.0] * 3]] * 2))


# ---------------------------------------------------------------- gradients

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
        assert f"test_aliasing.py:{line}" in str(caught.value), str(caught.value)


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


def test_detach_shares_memory_both_ways() -> None:
    x = arange(3, requires_grad=True)
    y = x * 2
    d = y.detach()
    with facula.no_grad():
        y.add_(1)
    equal(d, [1, 3, 5])
    d.mul_(2)
    equal(y, [2, 6, 10])
    assert not d.requires_grad and y.requires_grad
    y.sum().backward()
    equal(x.grad, [2, 2, 2])


def test_writes_to_data_are_not_recorded() -> None:
    w = arange(3, requires_grad=True)
    w.data.mul_(2)
    w.data[0] = 5.0
    equal(w, [5, 2, 4])
    (w * w).sum().backward()
    equal(w.grad, [10, 4, 8])
    w.data = facula.tensor([1.0, 1.0, 1.0], dtype=facula.float64)
    w.grad = None
    (w * 3).sum().backward()
    equal(w.grad, [3, 3, 3])
    equal(w, [1, 1, 1])


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


def test_views_from_before_and_after_memory_was_shown() -> None:
    x = arange(6) * 1
    early = x.view(2, 3)[1]
    equal(early, [3, 4, 5])
    array = x.numpy()
    late = x[1:].view(5)[::2]
    for k in range(3):
        array += 10
        equal(early, np.arange(3, 6) + 10 * (k + 1) + k)
        equal(late, np.arange(1, 6, 2) + 10 * (k + 1) + k)
        x += 1
        np.testing.assert_array_equal(array, np.arange(6) + 10 * (k + 1) + k + 1)
    early[0] = -1
    assert array[3] == -1
    w = arange(4, requires_grad=True)
    shown = w.detach().numpy()
    part = w[1:3]
    (part * part).sum().backward()
    shown[1] = 7
    w.grad = None
    part = w[1:3]
    (part * part).sum().backward()
    equal(w.grad, [0, 14, 4, 0])


@pytest.mark.parametrize("pending", [False, True])
def test_numpy_sees_writes_and_is_seen(pending: bool) -> None:
    x = arange(3) * 1
    array = x.numpy()
    y = x * 10
    if not pending:
        equal(y, [0, 10, 20])
    x.add_(1)
    np.testing.assert_array_equal(array, [1, 2, 3])
    array[0] = 50
    equal(x, [50, 2, 3])
    equal(y, [0, 10, 20])
    x[1:] = 7
    np.testing.assert_array_equal(array, [50, 7, 7])
    v = x[1:]
    array[2] = -1
    equal(v, [7, -1])
    v.numpy()[0] = -2
    equal(x, [50, -2, -1])


def test_from_numpy_shares_and_tensor_copies() -> None:
    array = np.arange(4.0)
    shared, copied = facula.from_numpy(array), facula.tensor(array)
    pending = shared * 2
    array[0] = 9
    equal(pending, [0, 2, 4, 6])
    equal(shared, [9, 1, 2, 3])
    equal(copied, [0, 1, 2, 3])
    shared[1:3].neg_()
    np.testing.assert_array_equal(array, [9, -1, -2, 3])
    shared.t().mul_(2)
    np.testing.assert_array_equal(array, [18, -2, -4, 6])


def test_overwriting_what_a_pending_graph_reads() -> None:
    x = arange(3)
    results = []
    for k in range(5):
        results.append(x * 1)
        x += k
    for k, r in enumerate(results):
        equal(r, np.arange(3.0) + k * (k - 1) / 2)


# ---------------------------------------------------------------- Python around the graph

def test_lists_of_tensors_changed_in_a_loop() -> None:
    state = [facula.zeros(2) for _ in range(3)]
    for k in range(4):
        for i, s in enumerate(state):
            s += i + k
        state[k % 3] = state[(k + 1) % 3].clone()
        state.append(state.pop(0) * 1)
    want = [np.zeros(2) for _ in range(3)]
    for k in range(4):
        for i, w in enumerate(want):
            w += i + k
        want[k % 3] = want[(k + 1) % 3].copy()
        want.append(want.pop(0) * 1)
    for s, w in zip(state, want):
        equal(s, w)


def test_deleting_tensors_in_the_middle() -> None:
    x = arange(3)
    y = x * 2
    z = y + 1
    v = z[1:]
    del y, z
    gc.collect()
    v += 1
    del x
    equal(v, [4, 6])
    w = v._base
    assert w is None or w.shape == (3,)


def test_nothing_is_kept_alive() -> None:
    x = arange(3, requires_grad=True)
    y = (x * x).exp()
    node = weakref.ref(y._node)
    loss = y.sum()
    loss.backward()
    loss.item()
    del y, loss
    gc.collect()
    assert node() is None


def test_errors_while_recording_leave_the_graph_usable() -> None:
    x = arange(3)
    y = x + 1
    for bad in (lambda: y @ facula.zeros(5, 2, dtype=facula.float64), lambda: y + facula.zeros(7),
                lambda: y.view(2, 2), lambda: y[5], lambda: y.softmax(3),
                lambda: facula.cat([y, facula.zeros(1, 1)])):
        with pytest.raises((RuntimeError, IndexError)):
            bad()
        y = y * 1
        y += 1
    equal(y, np.arange(3.0) + 7)


def test_an_index_error_at_the_flush_leaves_older_values_alone() -> None:
    x = arange(3, requires_grad=True)
    old = x * 2
    equal(old, [0, 2, 4])
    index = facula.tensor([0, 1]) * 5             # not known yet when it is used
    bad = old[index]
    with pytest.raises(IndexError):
        (bad + 1).tolist()
    equal(old, [0, 2, 4])
    (old * old).sum().backward()
    equal(x.grad, [0, 8, 16])
    old.detach().add_(1)
    equal(old, [1, 3, 5])


def test_closures_capture_variables_not_values() -> None:
    x = arange(2)
    scale = facula.tensor(1.0)
    functions = [lambda: x * scale * k for k in range(3)]
    late = [f() for f in functions]
    scale += 1
    later = [f() for f in functions]
    for a, b in zip(late, later):
        equal(a, [0, 2])
        equal(b, [0, 4])


def test_python_numbers_are_values_not_structure() -> None:
    x = arange(2)
    equal(sum((x * k for k in range(20)), facula.zeros(2)), [0, 190])
    for k in range(5):
        equal(x + k / 2, [k / 2, 1 + k / 2])


# ---------------------------------------------------------------- autograd over time

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


@pytest.mark.parametrize(("depth", "asked"), [
    (6_000, 0), (3_000, 1000), pytest.param(100_000, 0, marks=pytest.mark.slow)])
def test_deep_graphs(depth: int, asked: int) -> None:
    x = arange(2, requires_grad=True)
    y = x
    for k in range(depth):
        y = y * 0.999 + x if k % 2 else y + 0.001
        if asked and k % asked == 0:
            y.tolist()
    y.sum().backward()
    g = 1.0
    for _ in range(1, depth, 2):
        g = g * 0.999 + 1
    equal(x.grad, [g, g])


def test_a_deep_chain_of_views_and_writes() -> None:
    x = arange(4)
    v = x
    for _ in range(300):
        v = v.view(2, 2).t().t().view(4)
    v += 1
    equal(x, [1, 2, 3, 4])


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


def test_numbers_beside_views_of_memory_that_others_write() -> None:
    """Such a view is read anew at every use, so an operation on it cannot simply be followed."""
    memory = np.array([1 + 2j, 3 + 4j], np.complex64)
    t = facula.from_numpy(memory).requires_grad_()
    for _ in range(4):
        v = t.imag
        equal((v * 0.5 + v).detach(), memory.imag * 1.5)
        memory[0] += 1j
