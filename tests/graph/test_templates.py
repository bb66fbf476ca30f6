"""What a call recorded at one place is recorded again at another: the same steps, no more."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import facula
from facula.autograd import rules, sweep
from facula.graph import flush, template
from facula.graph.record import _local
from facula.ops import define
from facula.ops.table import PRIMS
from tests.fuzz.generate import generate
from tests.fuzz.graphs import fresh_recorder, run
from tests.ops.test_primitives import maker, specs_of

recording = sys.modules["facula.tensor"]        # `facula.tensor` is the function of that name


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Nothing is known of what was recorded before."""
    template.forget()
    with fresh_recorder():
        yield
    template.forget()


def written(steps: Any) -> list[Any]:
    return [(s.op, s.attrs, [type(a) for a in s.attrs], s.inputs, s.spec, s.mask, s.view)
            for s in steps]


def programs(seed: int, monkeypatch: Any) -> list[Any]:
    """What a program of the fuzzer has flushed, in a trie that is empty."""
    found = []
    begin = flush.Program.__init__

    def made(self: Any, steps: Any, alive: Any, *rest: Any) -> None:
        found.append((written(steps), sorted(alive)))
        begin(self, steps, alive, *rest)

    with monkeypatch.context() as m, fresh_recorder(JIT=False):
        m.setattr(flush.Program, "__init__", made)
        run(generate(seed), facula)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_steps_are_those_that_the_bodies_record(seed: int, monkeypatch: Any,
                                                forgotten: None) -> None:
    with monkeypatch.context() as m:
        m.setattr(define, "_elsewhere", lambda *args: None)
        for module in (rules, sweep):
            m.setattr(module, "cut", lambda *args: None)
        expected = programs(seed, monkeypatch)
    assert programs(seed, monkeypatch) == expected      # calls of equal likeness within it
    assert programs(seed, monkeypatch) == expected      # all of them from templates


@pytest.mark.parametrize("number", [1, 1.0, True, 0, 0.0, -0.0, False, 2, 2.0, -1, -1.0])
def test_equal_numbers_are_told_apart_wherever_they_come(number: Any, forgotten: None) -> None:
    x = facula.tensor([3.0, -2.0])
    whole = facula.tensor([3, -2])
    for other in (1, 1.0, True, 0, 0.0, -0.0, False, 2, 2.0, -1, -1.0, number):
        y = x.exp().log() if other == number else x     # at another place each time
        np.testing.assert_allclose((y * other).numpy(), np.float32([3, -2]) * other, rtol=1e-6)
        assert np.array_equal(np.signbit((x * other).numpy()),
                              np.signbit(np.float32([3, -2]) * np.float32(other)))
        got = whole.abs() * other
        assert got.dtype is (facula.float32 if type(other) is float else facula.int64)
        assert got.tolist() == [3 * other, 2 * other]
        if other >= 0:
            assert (whole.abs() + 1).pow(other).dtype is got.dtype
        full = facula.full((2,), other)
        assert full.dtype is facula.tensor(other).dtype and full.tolist() == [other, other]
        assert np.signbit(full.numpy().astype("f8")).tolist() == [np.signbit(float(other))] * 2


@pytest.mark.parametrize("name", sorted(PRIMS))
def test_equal_attributes_of_a_primitive_mean_the_same(name: str) -> None:
    """Which is what lets the trie find a step by them: 1.0 for 1 changes no shape and no dtype."""
    def changed(value: Any, kind: type) -> Any:
        if isinstance(value, tuple):
            return tuple([changed(v, kind) for v in value])
        if type(value) in (int, float, bool) and kind(value) == value:
            return kind(value)
        return value

    record = PRIMS[name]
    for sample in record.samples(maker()):
        specs, given = specs_of(sample)
        expected = record.infer(specs, sample.attrs, given)
        for kind in (float, int, bool):
            try:
                got = record.infer(specs, changed(sample.attrs, kind), given)
            except Exception:
                continue                                # is refused, and so confuses nothing
            assert got is expected, (sample.attrs, kind)


def test_a_view_of_the_same_spec_is_another_call(forgotten: None) -> None:
    x = facula.arange(6.0).reshape(2, 3)
    for t in (x, facula.arange(6.0).reshape(3, 2).t(), x.clone(), x.expand(2, 3)):
        np.testing.assert_array_equal(t.contiguous().numpy(), t.numpy())
        assert t.contiguous().is_contiguous()
        assert (t + 1).flatten().tolist() == [v + 1 for v in t.flatten().tolist()]


def test_operands_that_are_one_are_told_from_two(forgotten: None) -> None:
    for _ in range(3):
        a = facula.tensor([2.0, 3.0], requires_grad=True)
        b = facula.tensor([5.0, 7.0], requires_grad=True)
        for left, right in ((a, b), (a, a), (b, a), (b, b), (a.detach(), b), (a, b.detach())):
            a.grad = b.grad = None
            y = left.exp().log() * right * left
            y.sum().backward()
            for t in (a, b):
                expected = None
                u, v = left.detach().numpy(), right.detach().numpy()
                if left is t:
                    expected = 2 * u * v
                if right is t:
                    expected = u * u + (0 if expected is None else expected)
                assert (t.grad is None) == (expected is None)
                if expected is not None:
                    np.testing.assert_allclose(t.grad.numpy(), expected, rtol=1e-5)


def test_an_error_comes_at_every_place(forgotten: None) -> None:
    x, y = facula.ones(3), facula.ones(4)
    for k in range(3):
        z = x
        for _ in range(k):
            z = z + 1
        with pytest.raises(RuntimeError, match=r"3|4"):
            z + y


def test_structures_that_never_come_again_leave_no_more_than_the_bounds(
        monkeypatch: Any, forgotten: None) -> None:
    tables = define._templates, rules._rules, recording._settled
    for table in tables:
        monkeypatch.setattr(table, "most", 20)
    for n in range(1, 120):
        x = facula.ones(n, requires_grad=True)
        (x.sin() * n).sum().backward()
        np.testing.assert_allclose(x.grad.numpy(), n * np.cos(np.ones(n)), rtol=1e-6)
        assert all(len(table) <= 20 for table in tables)


def test_the_line_is_of_the_call_at_hand(forgotten: None) -> None:
    def steps() -> Any:
        return _local.rec.graph.path()

    x = facula.ones(3)
    first = x.sin()
    second = first.sin()
    where = [s.where for s in steps() if s.op == "sin"]
    assert first.shape == second.shape
    assert len(set(where)) == 2 and all(__file__ in str(w) for w in where)


def test_the_default_dtype_is_not_remembered(forgotten: None) -> None:
    found = []
    try:
        for dtype in (facula.float32, facula.float64, facula.float32):
            facula.set_default_dtype(dtype)
            for x in (facula.arange(4), facula.arange(4) + 1):
                for y in (x / 3, x / facula.tensor([3])):
                    found.append(y.dtype)
                    np.testing.assert_allclose(y.numpy(), x.numpy().astype(dtype.name)
                                               / np.asarray(3, dtype.name))
    finally:
        facula.set_default_dtype(facula.float32)
    assert found == [d for d in (facula.float32, facula.float64, facula.float32) for _ in range(4)]


def test_another_default_dtype_holds_in_all_threads() -> None:
    asked: queue.Queue[bool] = queue.Queue()
    given: queue.Queue[Any] = queue.Queue()

    def work() -> None:
        while asked.get():
            given.put((facula.tensor([1, 2]) / facula.tensor([3, 4])).numpy().dtype)

    def quotient() -> Any:
        asked.put(True)
        return given.get(timeout=60)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert [quotient() for _ in range(4)] == [np.float32] * 4
        facula.set_default_dtype(facula.float64)
        assert [quotient() for _ in range(3)] == [np.float64] * 3
    finally:
        facula.set_default_dtype(facula.float32)
        asked.put(False)
        thread.join()
    assert (facula.tensor([1]) / facula.tensor([3])).dtype is facula.float32
