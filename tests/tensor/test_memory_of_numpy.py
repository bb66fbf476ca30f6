"""Tensors over memory that NumPy writes, too: what an operation reads is what was there when it
was called, and it copies no more than it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import facula
from facula.nn import functional as F
from facula.runtime.allocator import Buffer

ROWS, COLUMNS = 4000, 128           # 2 MB


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many bytes were copied because somebody else could write to them."""
    found: list[int] = []
    snapshot = Buffer.snapshot

    def counted(self: Buffer, spec: Any, strides: Any = None) -> Buffer:
        found.append(spec.numel * spec.dtype.itemsize)
        return snapshot(self, spec, strides)

    monkeypatch.setattr(Buffer, "snapshot", counted)
    yield found


def table() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((ROWS, COLUMNS)).astype(np.float32)


INDEX = np.array([5, 0, 3999, -1, 5])
SMALL: dict[str, tuple[Callable[[Any], Any], Callable[[np.ndarray], Any]]] = {
    "slice": (lambda x: x[64:128] * 2, lambda a: a[64:128] * 2),
    "row": (lambda x: x[5].sum(), lambda a: a[5].sum()),
    "columns": (lambda x: x[::7, 3] + 1, lambda a: a[::7, 3] + 1),
    "view of a view": (lambda x: x.view(ROWS // 4, 4, COLUMNS)[7].t() * 1.5,
                       lambda a: a.reshape(-1, 4, COLUMNS)[7].T * 1.5),
    "index": (lambda x: x[facula.tensor(INDEX)], lambda a: a[INDEX]),
    "two indices": (lambda x: x[facula.tensor(INDEX), facula.tensor(INDEX % 5)],
                    lambda a: a[INDEX, INDEX % 5]),
    "a slice, indexed": (lambda x: x[100:3000][facula.tensor([1, 2])], lambda a: a[[101, 102]]),
    "index_select": (lambda x: facula.index_select(x, 0, facula.tensor([3, 2])),
                     lambda a: a[[3, 2]]),
    "embedding": (lambda x: F.embedding(facula.tensor([[1, 7]]), x), lambda a: a[[[1, 7]]]),
    "mean": (lambda x: x.mean(0), lambda a: a.mean(0)),
    "sum": (lambda x: x.sum(), lambda a: a.sum()),
    "amax": (lambda x: x.amax(), lambda a: a.max()),
    "product": (lambda x: facula.ones(2, ROWS) @ x, lambda a: np.ones((2, ROWS), np.float32) @ a),
}


@pytest.mark.parametrize("name", SMALL)
def test_little_is_copied_of_what_little_is_read(name: str, copied: list[int]) -> None:
    ours, numpys = SMALL[name]
    a = table()
    x = facula.from_numpy(a)
    for _ in range(3):
        a[:] = table() + len(copied)
        want = np.array(numpys(a))
        got = ours(x)
        a[:] = 7                            # after the call, before anybody looks at the result
        np.testing.assert_allclose(got.numpy(), want, rtol=2e-5, atol=1e-4)
    assert sum(copied) < a.nbytes // 4, copied


@pytest.mark.parametrize("name", SMALL)
def test_gradients(name: str) -> None:
    a = table()
    shared = facula.from_numpy(a).requires_grad_()
    own = facula.tensor(a).requires_grad_()
    for x in (shared, own):
        y = SMALL[name][0](x)
        (y * y).sum().backward()
    np.testing.assert_array_equal(shared.grad.numpy(), own.grad.numpy())


def test_large_results_are_of_what_was_there() -> None:
    a = table()
    x = facula.from_numpy(a)
    for _ in range(3):
        a[:] = table()
        y = x * 2
        z = y + x[:, :1]
        a[:] = 7
        np.testing.assert_array_equal(y.numpy(), table() * 2)
        np.testing.assert_array_equal(z.numpy(), table() * 2 + table()[:, :1])


def test_what_is_written_in_between() -> None:
    a = table()
    x = facula.from_numpy(a)
    first = x[3:5]
    x.mul_(2)
    second = x[3:5]
    a[3] = 1
    np.testing.assert_array_equal(first.numpy(), a[3:5])        # a view, as in PyTorch
    np.testing.assert_array_equal(second.numpy(), a[3:5])
    total = x.sum()
    x[0, 0] += 1000
    np.testing.assert_allclose(total.item(), a.sum(dtype=np.float64) - 1000, rtol=1e-4)


def test_an_error_leaves_nothing_behind() -> None:
    x = facula.from_numpy(table())
    with pytest.raises(IndexError):
        x[facula.tensor([ROWS])].numpy()
    with pytest.raises(RuntimeError):
        F.linear(facula.ones(3, 5), x)
    y = x * 2                               # read as a copy again
    x.zero_()
    np.testing.assert_array_equal(y.numpy(), table() * 2)


@pytest.mark.parametrize("call", [lambda x: x * 2, lambda x: 2 - x, lambda x: x.exp(),
                                  lambda x: F.softplus(x), lambda x: x @ facula.ones(COLUMNS, 64),
                                  lambda x: F.gelu(x), lambda x: x.softmax(1)])
def test_a_call_copies_once(call: Callable[[Any], Any], copied: list[int]) -> None:
    a = table()[:100]
    x = facula.from_numpy(a)
    for _ in range(4):
        copied.clear()
        want = call(facula.tensor(a)).numpy()
        copied.clear()
        got = call(x)
        a += 1
        assert copied == [a.nbytes]
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-5)
