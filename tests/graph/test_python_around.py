"""The Python around a graph: names that are given up, loops, closures, errors, great depth."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import facula
from facula.graph import record
from tests.graph.both import arange, equal

pytestmark = pytest.mark.usefixtures("both_ways")


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


@pytest.mark.parametrize(("depth", "asked"), [
    (2_500, 0), (3_000, 1000), pytest.param(100_000, 0, marks=pytest.mark.slow)])
def test_deep_graphs(depth: int, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if depth < 5000:                    # past the bound at which a graph flushes itself, too
        monkeypatch.setattr(record, "MAX_STEPS", 1000)
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
