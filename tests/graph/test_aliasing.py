"""Views and writes: the cases in which lazy frameworks give silent wrong answers.

Expected values are PyTorch's.
"""

from __future__ import annotations

import numpy as np
import pytest

import facula
from tests.graph.both import arange, equal

pytestmark = pytest.mark.usefixtures("both_ways")


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


def test_a_deep_chain_of_views_and_writes() -> None:
    x = arange(4)
    v = x
    for _ in range(300):
        v = v.view(2, 2).t().t().view(4)
    v += 1
    equal(x, [1, 2, 3, 4])
