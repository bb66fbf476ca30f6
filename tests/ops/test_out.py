"""`out=`: wherever PyTorch has it, results are written into the tensors that are given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import facula
from facula.ops.define import OPS
from tests.curvature.test_registry import maker

X = np.random.default_rng(3).uniform(0.1, 2, (3, 4)).astype(np.float32)
SQUARE = (X[:, :3] @ X[:, :3].T + np.eye(3)).astype(np.float32)


def x() -> facula.Tensor:
    return facula.tensor(X)


def edges() -> facula.Tensor:
    return facula.tensor([0.5, 1.0, 1.5])


CALLS: dict[str, Any] = {
    "add": lambda f, **k: f(x(), 2, **k),
    "bitwise_not": lambda f, **k: f(facula.tensor([1, 0, 7]), **k),
    "sign": lambda f, **k: f(x(), **k),
    "square": lambda f, **k: f(x(), **k),
    "conj_physical": lambda f, **k: f(x() * (1 + 2j), **k),
    "lerp": lambda f, **k: f(x(), -x(), 0.25, **k),
    "addcmul": lambda f, **k: f(x(), x(), x(), value=2, **k),
    "addcdiv": lambda f, **k: f(x(), x(), x() + 1, **k),
    "where": lambda f, **k: f(x() > 1, x(), 0.0, **k),
    "gather": lambda f, **k: f(x(), 1, facula.tensor([[0, 2]]), **k),
    "bucketize": lambda f, **k: f(x(), edges(), **k),
    "searchsorted": lambda f, **k: f(edges(), x(), **k),
    "histc": lambda f, **k: f(x(), 5, **k),
    "histogram": lambda f, **k: f(x(), 5, **k),
    "sort": lambda f, **k: f(x(), **k),
    "topk": lambda f, **k: f(x(), 2, **k),
    "kthvalue": lambda f, **k: f(x(), 2, **k),
    "quantile": lambda f, **k: f(x(), 0.3, 1, **k),
    "nanquantile": lambda f, **k: f(x(), 0.3, 1, **k),
    "linalg.cholesky_ex": lambda f, **k: f(facula.tensor(SQUARE), **k),
    "linalg.lu_factor": lambda f, **k: f(facula.tensor(SQUARE), **k),
}


def several(value: Any) -> tuple[facula.Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("name", CALLS)
def test_results_are_written_where_they_are_wanted(name: str) -> None:
    fn = OPS[name].fn
    want = CALLS[name](fn)
    full = tuple([facula.zeros(v.shape, dtype=v.dtype) for v in several(want)])
    none = tuple([facula.empty(0, dtype=v.dtype) for v in several(want)])
    for out in (full, none):
        got = CALLS[name](fn, out=out if isinstance(want, tuple) else out[0])
        assert type(got) is type(want)
        for o, g, w in zip(out, several(got), several(want)):
            assert g is o
            np.testing.assert_array_equal(o.numpy(), w.numpy())
    assert type(CALLS[name](fn, out=None)) is type(want)
    wrong = tuple([facula.zeros(7, 5, dtype=v.dtype) for v in several(want)])
    with pytest.raises(RuntimeError):
        CALLS[name](fn, out=wrong if isinstance(want, tuple) else wrong[0])


def test_a_result_that_does_not_fit() -> None:
    with pytest.raises(RuntimeError, match="can't be cast"):
        facula.quantile(x(), 0.5, out=facula.empty(0, dtype=facula.int64))
    with pytest.raises(RuntimeError, match="requires grad"):
        facula.topk(x().requires_grad_(), 2, out=(facula.empty(0),
                                                  facula.empty(0, dtype=facula.int64)))
    with pytest.raises(RuntimeError, match="to have dtype"):
        facula.gather(x(), 1, facula.tensor([[0]]), out=facula.empty(0, dtype=facula.float64))


def test_every_operation_takes_it_that_pytorch_gives_it_to() -> None:
    torch = pytest.importorskip("torch")
    missing = []
    for name, record in OPS.items():
        theirs: Any = torch
        for part in (f"nn.{name}" if name.startswith("functional.") else name).split("."):
            theirs = getattr(theirs, part, None)
        if "out=None" not in (getattr(theirs, "__doc__", None) or "") or record.samples is None:
            continue
        args, kwargs = record.samples(maker(0, []))[0]
        value = record.fn(*args, **kwargs)
        out = tuple([facula.empty(0, dtype=v.dtype) for v in several(value)])
        try:
            with facula.no_grad():
                record.fn(*args, **kwargs, out=out if isinstance(value, tuple) else out[0])
        except TypeError as e:
            missing.append(f"{name}: {e}")
    assert not missing
