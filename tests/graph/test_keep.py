"""Memory of programs: what has not been used for longest goes, and nothing that is in use."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

import facula
from facula import config
from facula.graph import keep, record
from facula.graph import spec as specs
from facula.graph.record import recorder
from tests.fuzz.graphs import fresh_recorder

ROOT = Path(__file__).resolve().parents[2]
BODY = [lambda a, b: a + b, lambda a, b: a * b, lambda a, b: (a - b).exp(),
        lambda a, b: (a * b).tanh(), lambda a, b: a.maximum(b)]


def graph(k, a, b):
    """Structure number k: six steps in an order of their own."""
    for _ in range(6):
        a = BODY[k % 5](a, b)
        k //= 5
    return a


def numbers():
    """Two tensors whose values are there."""
    x, y = facula.rand(5), facula.rand(5)
    x._peek(), y._peek()
    return x, y


def program():
    """The program that was run last."""
    found, todo = [], [recorder().root]
    met = set(todo)
    while todo:
        state = todo.pop()
        found += (state.programs or {}).values()
        new = {e.state for e in state.edges.values()} - met
        met |= new
        todo += new
    return max(found, key=lambda p: p.used)


@pytest.fixture
def few(monkeypatch):
    """Compile at first sight, and keep four programs."""
    monkeypatch.setattr(keep, "MAX_PROGRAMS", 4)
    with config.override(INTERPRET=False):
        yield


def test_programs_used_longest_ago_go_and_come_back(few):
    x, y = numbers()
    first = graph(0, x, y).numpy().copy()
    old = weakref.ref(program().executable)
    for k in range(1, 12):
        graph(k, x, y).numpy()
    assert old() is None, "it is gone at once, and not with the collector of cycles"
    assert keep.statistics()["programs"] <= 4
    assert np.array_equal(graph(0, x, y).numpy(), first)


def test_a_hot_program_stays(few):
    x, y = numbers()
    graph(0, x, y).numpy()
    hot = program()
    for k in range(1, 30):
        graph(k, x, y).numpy()
        graph(0, x, y).numpy()
        assert program() is hot


def test_bytes_are_bounded(few, monkeypatch):
    monkeypatch.setattr(keep, "MAX_PROGRAMS", 1000)
    x, y = numbers()
    graph(0, x, y).numpy()
    one = program().nbytes
    assert one > 4096
    monkeypatch.setattr(keep, "MAX_PROGRAM_BYTES", 10 * one)
    for k in range(1, 40):
        graph(k, x, y).numpy()
        assert keep.statistics()["bytes"] <= 10 * one


def test_captured_calls_keep_their_programs(few):
    x, y = numbers()
    step = facula.compile(lambda a, b: graph(77, a, b))
    expected = step(x, y).numpy().copy()
    step(x, y).numpy()
    for k in range(20):
        graph(k, x, y).numpy()
    gc.collect()
    before = step.recordings
    assert np.array_equal(step(x, y).numpy(), expected)
    assert step.recordings == before


def trained(between):
    """Weights after twelve steps that are left running, with `between` called after each."""
    facula.manual_seed(0)
    x = facula.rand(300, 300, requires_grad=True)
    optimizer = facula.optim.SGD([x], lr=0.1)
    for k in range(12):
        optimizer.zero_grad()
        (x @ x).tanh().sum().backward()
        optimizer.step()
        between(k)
    return x.detach().numpy().copy()


def test_a_program_in_the_background_is_not_taken_away(few):
    y, _ = numbers()

    def others(k):
        for n in range(5):
            graph(5 * k + n, y, y)._peek()
    assert np.array_equal(trained(others), trained(lambda k: None))


def test_what_comes_once_is_not_kept():
    with fresh_recorder():
        x, y = numbers()
        first = [graph(k, x, y).numpy().copy() for k in range(3)]
        states = recorder().states
        for k in range(300, 400):
            graph(k, x, y).numpy()
            assert recorder().states == states
        for k in range(3):
            assert np.array_equal(graph(k, x, y).numpy(), first[k])
        assert recorder().states > states
        known, states = program(), recorder().states
        for _ in range(4):
            np.testing.assert_allclose(graph(2, x, y).numpy(), first[2], rtol=1e-6)
        assert program() is known and known.runs == 3 and known.executable is not None
        assert recorder().states == states


def test_structures_that_came_once_are_bounded(monkeypatch):
    monkeypatch.setattr(record, "MAX_MET", 10)
    with fresh_recorder():
        x, y = numbers()
        for k in range(50):
            graph(k, x, y).numpy()
            assert len(recorder().met[1]) <= 10


def test_the_trie_is_cut_back_to_what_is_used(monkeypatch):
    monkeypatch.setattr(record, "MAX_STATES", 400)
    x, y = numbers()
    expected = graph(3, x, y).numpy().copy()
    graph(3, x, y).numpy()
    hot = program()
    for k in range(200):
        graph(k, x, y).numpy()
        np.testing.assert_allclose(graph(3, x, y).numpy(), expected, 1e-6)  # some are compiled
        assert recorder().states <= 500
    assert program() is hot


def test_a_graph_that_is_pending_while_the_trie_is_cut_goes_on(monkeypatch):
    x, y = facula.rand(5, requires_grad=True), facula.rand(5)
    for k in range(30):
        graph(k, x, y).detach().numpy()
    held = graph(4, x, y)
    held.detach().numpy()                       # its history stays
    monkeypatch.setattr(record, "MAX_STATES", 20)
    for k in range(30, 60):
        graph(k, x, y).detach().numpy()
    held.sum().backward()
    got = x.grad.numpy().copy()
    x.grad = None
    monkeypatch.undo()
    graph(4, x, y).sum().backward()
    assert np.array_equal(x.grad.numpy(), got)


MANY = """
import sys
import numpy as np
import facula
from facula import config
from facula.graph import keep, record
config.flag.INTERPRET = False
keep.MAX_PROGRAMS, record.MAX_STATES = 64, 2000
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
body = [lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a.maximum(b)]
exact = [np.add, np.multiply, np.maximum]
x, y = facula.rand(7), facula.rand(7)
p, q = x.numpy().copy(), y.numpy().copy()
for k in range(int(sys.argv[1])):
    a, r, n = x, p, k
    for _ in range(7):
        a, r, n = body[n % 3](a, y), exact[n % 3](r, q), n // 3
    assert np.allclose(a.numpy(), r, rtol=1e-5), k
    if k == 100:
        before = resident()
print(resident() - before)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="resident memory is read there")
@pytest.mark.parametrize("count", [400, pytest.param(2000, marks=pytest.mark.slow)])
def test_resident_memory_of_many_structures(tmp_path, count):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FACULA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", MANY, str(count)], env=environment,
                          capture_output=True, text=True, timeout=600, check=True)
    assert int(done.stdout) < 5e6 + 10e3 * count


def test_specs_are_bounded_and_stay_one_of_a_kind(monkeypatch):
    held = facula.ones(3, 5)._node.spec
    monkeypatch.setattr(specs, "MAX_SPECS", len(specs._interned) + 50)
    for n in range(2000):
        specs.spec((n, 1, 17), facula.float32)
        assert len(specs._interned) <= specs.MAX_SPECS
    gc.collect()
    assert specs.spec((3, 5), facula.float32) is held is facula.zeros(3, 5)._node.spec
    assert not any(shape[1:] == (1, 17) for shape, _ in specs._retired)
