"""What a flush computes, keeps, donates and forgets."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from facula.autograd import backward, grad, no_grad
from facula.dtype import DTYPES, from_numpy_dtype
from facula.errors import GradientError, StaleTensorError
from facula.graph.flush import flush
from facula.graph.record import Node, _local
from facula.graph.spec import spec
from facula.ops.define import composite
from facula.runtime.allocator import Buffer, from_numpy_private
from facula.tensor import Tensor, make, prim, scalar

F64 = DTYPES["float64"]


def tensor(array: Any, requires_grad: bool = False) -> Tensor:
    array = np.asarray(array)
    t = make(Node((None, -1), spec(array.shape, from_numpy_dtype(array.dtype)),
                  from_numpy_private(array)))
    return t.requires_grad_() if requires_grad else t


def wrapped(array: Any) -> Tensor:
    """A tensor over NumPy's memory."""
    buffer, strides = Buffer.of(array)
    t = make(Node((None, -1), spec(array.shape, from_numpy_dtype(array.dtype)), buffer, strides))
    t._strides = strides
    return t


def add(a: Tensor, b: Tensor) -> Tensor:
    return prim("add", a, b)


def mul(a: Tensor, b: Tensor) -> Tensor:
    return prim("mul", a, b)


def total(a: Tensor) -> Tensor:
    return prim("sum", a, attrs=(tuple(range(a.ndim)),))


def part(t: Tensor, start: int, length: int) -> Tensor:
    """A view of elements of a one-dimensional tensor."""
    return t._view("slice", ((start,), (1,)), (length,), (1,), t._offset + start)


def equal(t: Tensor, expected: Any) -> None:
    np.testing.assert_allclose(t._peek(), expected, rtol=1e-12)


@pytest.fixture(autouse=True)
def _nothing_pending() -> None:
    flush(_local.rec)


def _flushed() -> Any:
    """Flush, and the program that it ran (None if it ran none)."""
    state = _local.rec.graph.state
    _local.rec.enter(_local.rec.graph)      # else it is found from the second time on
    before = dict(state.programs or {})
    flush(_local.rec)
    programs = state.programs or {}
    new = [p for k, p in programs.items() if k not in before]
    return new[0] if new else None


X = np.arange(1.0, 4.0)


# ---------------------------------------------------------------- what is computed

def test_only_what_is_held_is_an_output() -> None:
    x = tensor(X)
    y = mul(x, x)
    z = add(y, x)
    dead = prim("exp", z)
    del y, dead
    program = _flushed()
    assert len(program.outputs) == 1
    equal(z, X * X + X)


def test_nothing_held_runs_nothing() -> None:
    x = tensor(X)
    mul(x, x)
    assert _flushed() is None
    equal(add(x, x), 2 * X)


def test_same_structure_is_the_same_program() -> None:
    for k in range(5):
        x = tensor(X + k)
        y = mul(add(x, x), x)
        program = _flushed()
        assert (program is None) == (k > 0)
        equal(y, 2 * (X + k) ** 2)


def test_results_across_graphs() -> None:
    x = tensor(X)
    y = mul(x, x)
    equal(y, X * X)
    z = add(y, x)
    equal(z, X * X + X)
    w = add(add(z, y), y)
    equal(w, 3 * X * X + X)
    equal(y, X * X)


def test_a_runtime_scalar_serves_many_graphs() -> None:
    x, s = tensor(2.0), scalar(3.0, F64)
    for _ in range(3):
        equal(mul(x, s), 6.0)
    equal(s, 3.0)
    equal(add(s, x), 5.0)
    for value, name, expected in ((300, "uint8", 44), (-1, "uint16", 65535), (200, "int8", -56),
                                  (2, "bool", True), (1e300, "float32", np.inf)):
        got = prim("alias", scalar(value, DTYPES[name]))._peek()
        assert got == expected and got.dtype == DTYPES[name].np and got.shape == ()


def test_long_graphs_flush_themselves() -> None:
    x = y = tensor(X, True)
    for _ in range(9000):
        y = add(y, x)
    backward(total(y))
    equal(y, 9001 * X)
    equal(x._grad, np.full(3, 9001.0))


def test_another_threads_pending_value() -> None:
    made: list[Tensor] = []
    x = tensor(X)
    t = threading.Thread(target=lambda: made.append(mul(x, x)))
    t.start()
    t.join()
    equal(add(made[0], x), X * X + X)


def test_backward_through_another_threads_pending_graph() -> None:
    x = tensor(X, requires_grad=True)
    loss = total(mul(mul(x, x), x))
    raised: list[BaseException] = []

    def work() -> None:
        try:
            backward(loss)
        except BaseException as error:
            raised.append(error)

    t = threading.Thread(target=work)
    t.start()
    t.join()
    assert not raised
    assert x._grad is not None
    equal(x._grad, 3 * X * X)


def test_failure_leaves_older_values_and_later_graphs_alone() -> None:
    x = tensor(X)
    old = mul(x, x)
    equal(old, X * X)
    bad = prim("take", old, tensor(np.array([7])), attrs=(0,))
    after = add(bad, bad)
    for t in (bad, after):
        with pytest.raises(IndexError):
            t._peek()
    with pytest.raises(IndexError):
        add(bad, tensor([1.0]))._peek()
    equal(old, X * X)
    equal(add(old, x), X * X + X)


# ---------------------------------------------------------------- in-place writes and memory

def test_in_place_takes_over_the_memory() -> None:
    x = tensor(X)
    x._write(add(x, x))
    program = _flushed()
    assert len(program.donations) == 1
    equal(x, 2 * X)


def test_memory_that_somebody_still_reads_is_not_given_away() -> None:
    x = tensor(X)
    y = mul(x, x)
    old = make(x._node)
    x._write(add(x, x))
    assert not _flushed().donations
    equal(old, X)
    equal(y, X * X)
    equal(x, 2 * X)


def test_memory_that_a_gradient_reads_is_not_given_away() -> None:
    w = tensor(X, True)
    x = tensor(X)
    y = mul(w, x)
    x._write(add(x, x))
    assert not _flushed().donations
    equal(x, 2 * X)
    with pytest.raises(StaleTensorError):
        backward(total(y))


def test_in_place_through_views() -> None:
    x = tensor(np.arange(6.0))
    middle = part(x, 1, 4)
    inner = part(middle, 1, 2)
    inner._write(mul(inner, inner))
    equal(x, [0, 1, 4, 9, 4, 5])
    equal(middle, [1, 4, 9, 4])
    x._write(add(x, x))
    equal(inner, [8, 18])
    middle._write(add(middle, middle))
    equal(inner, [16, 36])
    equal(x, [0, 4, 16, 36, 16, 10])
    turned = x._view("reshape", (), (2, 3), (3, 1), 0)
    turned = turned._view("permute", ((1, 0),), (3, 2), (1, 3), 0)
    turned._write(add(turned, turned))
    equal(x, [0, 8, 32, 72, 32, 20])
    equal(turned, np.array([0, 8, 32, 72, 32, 20]).reshape(2, 3).T)


def test_gradient_through_a_write_into_a_view() -> None:
    x, w = tensor(X, True), tensor(np.array([5.0]), True)
    y = mul(x, x)
    part(y, 1, 1)._write(mul(w, w))
    z = mul(y, y)
    backward(total(z))
    equal(z, [1, 625, 81])
    equal(x._grad, [4 * 1, 0, 4 * 27])
    equal(w._grad, [4 * 125])


def test_writing_to_leaves() -> None:
    x = tensor(X, True)
    for t in (x, part(x, 0, 1)):
        with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
            t._write(mul(t, t))
    with no_grad():
        x._write(add(x, x))
    backward(total(mul(x, x)))
    equal(x._grad, 4 * X)


def test_write_checks_shape_and_dtype() -> None:
    x = tensor(X)
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        x._write(tensor(np.zeros(4)))
    with pytest.raises(RuntimeError, match="can't be cast"):
        x._write(tensor(np.zeros(3, np.complex128)))


# ---------------------------------------------------------------- memory shared with NumPy

def test_numpy_sees_later_writes_and_recorded_reads_do_not() -> None:
    x = tensor(X)
    y = mul(x, x)
    seen = x._numpy()
    seen[:] = 100.0
    equal(y, X * X)
    equal(mul(x, x), np.full(3, 1e4))
    x._write(add(x, x))
    np.testing.assert_array_equal(seen, np.full(3, 200.0))
    y = mul(x, x)
    seen[:] = 1.0
    equal(y, np.full(3, 4e4))
    equal(x, np.ones(3))


@pytest.mark.parametrize("turn", [lambda a: a.T, lambda a: a[:, ::-1], lambda a: a[1:, ::2],
                                  lambda a: a], ids=["transposed", "reversed", "sliced", "whole"])
def test_strided_memory_of_numpy(turn: Callable[[Any], Any]) -> None:
    base = np.arange(12.0).reshape(3, 4)
    a = turn(base)
    before = a.copy()
    x = wrapped(a)
    equal(x, before)
    equal(mul(x, x), before ** 2)
    x._write(add(x, x))
    np.testing.assert_array_equal(a, 2 * before)
    equal(x, 2 * before)
    equal(mul(x, x), 4 * before ** 2)
    x._write(add(x, x))
    np.testing.assert_array_equal(x._numpy(), 4 * before)
    assert np.shares_memory(x._numpy(), base)


def test_views_and_detached_tensors_share_memory() -> None:
    x = tensor(X, True)
    y = mul(x, x)
    d = y.detach()
    v = part(d, 1, 2)
    seen = y._numpy()
    v._numpy()[0] = -1.0
    np.testing.assert_array_equal(seen, [1, -1, 9])
    equal(d, [1, -1, 9])
    assert np.shares_memory(d._numpy(), seen)


# ---------------------------------------------------------------- gradients across flushes

@pytest.mark.parametrize("computed", [False, True])
def test_backward_before_and_after_the_value_is_asked_for(computed: bool) -> None:
    for k in range(4):
        x = tensor(X + k, True)
        y = prim("exp", mul(x, x))
        loss = total(mul(y, y))
        if computed:
            loss._peek()
        backward(loss)
        equal(x._grad, 4 * (X + k) * np.exp(2 * (X + k) ** 2))


def test_gradients_accumulate_and_the_graph_is_freed() -> None:
    x = tensor(X, True)
    for k in range(1, 5):
        loss = total(mul(x, x))
        backward(loss, retain_graph=True)
        backward(loss)
        with pytest.raises(GradientError, match="second time"):
            backward(loss)
        equal(x._grad, 4 * k * X)


def test_a_backward_pass_frees_only_what_it_went_through() -> None:
    x = tensor(X, True)
    one, two = total(prim("exp", x)), total(mul(x, x))
    flush(_local.rec)
    backward(one)
    backward(two)
    equal(x._grad, np.exp(X) + 2 * X)
    for loss in (one, two):
        with pytest.raises(GradientError, match="second time"):
            backward(loss)


def test_through_several_graphs() -> None:
    x = tensor(X, True)
    y = mul(x, x)
    equal(y, X ** 2)
    z = mul(y, x)
    equal(z, X ** 3)
    first, = grad(total(mul(z, y)), x, create_graph=True)
    equal(first, 5 * X ** 4)
    second, = grad(total(first), x)
    equal(second, 20 * X ** 3)


def test_two_tensors_given_one_gradient_do_not_share_it() -> None:
    a, b, c = tensor(X, True), tensor(X, True), tensor(X)
    seed = mul(c, c)
    backward(add(a, b), seed)
    with no_grad():
        a._grad._write(add(a._grad, a._grad))
    equal(a._grad, 2 * X * X)
    equal(b._grad, X * X)
    equal(seed, X * X)


def test_a_detached_value_as_a_new_leaf() -> None:
    x = tensor(X, True)
    y = mul(x, x).detach().requires_grad_()
    backward(total(mul(y, y)))
    assert x._grad is None
    equal(y._grad, 2 * X * X)


def test_no_gradient_flows_through_detach_at_any_order() -> None:
    for computed in (False, True):
        x, w = tensor(X, True), tensor(X, True)
        y = mul(x, x)
        out = total(mul(mul(w, w), y.detach()))
        if computed:
            out._peek()
        g, = grad(out, w, create_graph=True)
        gx, gw = grad(total(g), [x, w], allow_unused=True)
        assert gx is None
        equal(gw, 2 * X * X)


def test_history_keeps_only_what_gradients_read() -> None:
    x = tensor(X, True)
    y = prim("sin", x)               # reads x
    z = prim("exp", y)               # reads its own result
    del y
    loss = total(z)
    del z
    flush(_local.rec)
    graph = loss._node.origin[0]
    assert len(graph.kept) == 2
    alive = weakref.ref(graph)
    del graph, loss
    gc.collect()
    assert alive() is None


# ---------------------------------------------------------------- stale values

@pytest.mark.parametrize("computed", [False, True])
def test_overwriting_what_was_saved_names_both_lines(computed: bool) -> None:
    # A size of its own: a structure seen before is known by the line that recorded it first.
    x = tensor(np.ones(17 + computed), True)
    y = prim("exp", x)
    z = total(prim("mul", y, y))
    if computed:
        flush(_local.rec)
    y._write(prim("neg", y))
    with pytest.raises(StaleTensorError, match="modified by an inplace operation") as caught:
        backward(z)
    first = test_overwriting_what_was_saved_names_both_lines.__code__.co_firstlineno
    lines = [f"test_flush.py:{first + k}" for k in (5, 8)]
    assert all(line in str(caught.value) for line in lines)


def test_overwriting_through_a_detached_alias_is_noticed() -> None:
    for computed in (False, True):
        w, x = tensor(X, True), tensor(X, True)
        y = mul(x, x)
        flush(_local.rec)
        loss = total(mul(w, y.detach()))
        if computed:
            flush(_local.rec)
        with no_grad():
            y._write(add(y, y))
        with pytest.raises(StaleTensorError):
            backward(loss)


def test_overwriting_what_nobody_reads_is_fine() -> None:
    for computed in (False, True):
        x = tensor(X, True)
        y = mul(x, x)
        z = total(add(y, y))
        if computed:
            flush(_local.rec)
        y._write(add(y, y))
        backward(z)
        equal(x._grad, 4 * X)


def test_overwriting_a_view_makes_the_whole_stale() -> None:
    x = tensor(X, True)
    y = mul(x, x)
    v = part(y, 0, 2)
    z = total(mul(v, v))
    part(y, 2, 1)._write(tensor(np.zeros(1)))
    with pytest.raises(StaleTensorError):
        backward(z)


# ---------------------------------------------------------------- memoised operations

def test_a_memoised_body_is_run_once_per_place() -> None:
    runs = []

    @composite
    def twice(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        runs.append(k)
        return add(x, x), mul(x, x)

    for _ in range(4):
        x = tensor(X, True)
        a, b = twice(x, 1)
        backward(total(mul(a, b)))
        equal(x._grad, 6 * X * X)
    assert runs == [1]
