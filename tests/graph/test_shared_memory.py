"""Memory that tensors share with each other's names, with `.data` and with NumPy.

Expected values are PyTorch's.
"""

from __future__ import annotations

import numpy as np
import pytest

import facula
from tests.graph.both import arange, equal

pytestmark = pytest.mark.usefixtures("both_ways")


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


def test_numbers_beside_views_of_memory_that_others_write() -> None:
    """Such a view is read anew at every use, so an operation on it cannot simply be followed."""
    memory = np.array([1 + 2j, 3 + 4j], np.complex64)
    t = facula.from_numpy(memory).requires_grad_()
    for _ in range(4):
        v = t.imag
        equal((v * 0.5 + v).detach(), memory.imag * 1.5)
        memory[0] += 1j


def test_a_view_that_was_made_a_leaf_stays_one() -> None:
    x = facula.tensor([1.0, 2.0]).reshape(2).requires_grad_(True)
    held = x.detach().numpy()
    slope, = facula.autograd.grad((x * x).sum(), x)
    equal(slope, [2.0, 4.0])
    held[0] = 5.0                   # seen by the next step, not by one that has been taken
    slope, = facula.autograd.grad((x * x).sum(), x)
    equal(slope, [10.0, 4.0])

    base = facula.zeros(4)
    part = base[1:3].requires_grad_(True)
    (part * part).sum().backward()
    with facula.no_grad():
        base.fill_(3.0)
    (part * part).sum().backward()
    equal(part.grad, [6.0, 6.0])


def test_a_part_of_numpys_memory_as_a_leaf() -> None:
    array = np.array([1.0, 2.0, 3.0])
    part = facula.from_numpy(array)[1:].requires_grad_(True)
    (part * part).sum().backward()
    equal(part.grad, [4.0, 6.0])
    array[1] = 5.0
    part.grad = None
    (part * part).sum().backward()
    equal(part.grad, [10.0, 6.0])
    assert part.is_leaf
