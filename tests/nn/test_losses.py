"""Losses: against PyTorch, against their formulas, and what their graphs are made of."""

from __future__ import annotations

import numpy as np
import pytest

import facula
import facula.nn.functional as F
from tests.nn.functional_cases import LOSSES, compare


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("name,tol", [("float64", 1e-9), ("float32", 2e-5)])
@pytest.mark.parametrize("case", LOSSES, ids=lambda c: c[0])
def test_matches_torch(case, name, tol):
    compare(case[1], case[2], name, tol)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_gradient_of_cross_entropy_is_softmax_less_one_hot():
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((6, 4)), np.array([0, 3, 1, -100, 2, 2])
    logits = facula.tensor(x, requires_grad=True)
    loss = F.cross_entropy(logits, facula.tensor(t))
    loss.backward()
    keep = t >= 0
    p = softmax(x)
    want_loss = -np.log(p[keep, t[keep]]).mean()
    want = (p - np.eye(4)[np.where(keep, t, 0)]) * keep[:, None] / keep.sum()
    assert loss.item() == pytest.approx(want_loss)
    np.testing.assert_allclose(logits.grad.numpy(), want, rtol=1e-9, atol=1e-12)


def steps_of(t):
    """The operations of the pending graph that leads to `t`."""
    graph, _ = t._node.at
    return [step.op for step in graph.path()]


def test_cross_entropy_scatters_nothing_and_makes_one_pass_backward():
    facula.zeros(1).numpy()
    logits = facula.zeros(6, 4, requires_grad=True)
    loss = F.cross_entropy(logits, facula.zeros(6, dtype=facula.int64))
    forward = steps_of(loss)
    loss.backward()
    ops = steps_of(loss)
    assert not {"scatter", "gather", "index_put"} & set(ops)
    # backward, the gradient of a row comes from its own numbers: nothing is summed again
    back = ops[len(forward):]
    assert back.count("exp") == 0 and "amax" not in back


def test_many_classes_are_gathered():
    n = 5000
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((3, n)), np.array([0, 4999, 17])
    logits = facula.tensor(x, requires_grad=True)
    loss = F.cross_entropy(logits, facula.tensor(t))
    assert "gather" in steps_of(loss)
    loss.backward()
    p = softmax(x)
    assert loss.item() == pytest.approx(-np.log(p[np.arange(3), t]).mean())
    p[np.arange(3), t] -= 1
    np.testing.assert_allclose(logits.grad.numpy(), p / 3, rtol=1e-9, atol=1e-12)


def test_extreme_logits():
    x = facula.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], requires_grad=True)
    loss = F.cross_entropy(x, facula.tensor([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert np.isfinite(x.grad.numpy()).all()
    z = facula.tensor([800.0, -800.0, 0.0], requires_grad=True)
    F.binary_cross_entropy_with_logits(z, facula.tensor([0.0, 1.0, 1.0]),
                                       reduction="sum").backward()
    np.testing.assert_allclose(z.grad.numpy(), [1.0, -1.0, -0.5])
    p = facula.tensor([0.0, 1.0], requires_grad=True)
    assert F.binary_cross_entropy(p, facula.tensor([1.0, 0.0])).item() == pytest.approx(100)


def test_all_ignored_is_nan_and_empty_sums_are_zero():
    x = facula.zeros(2, 3)
    assert np.isnan(F.cross_entropy(x, facula.tensor([-100, -100])).item())
    none = F.cross_entropy(facula.zeros(0, 3), facula.zeros(0, dtype=facula.int64),
                           reduction="sum")
    assert none.item() == 0.0
    assert np.isnan(F.mse_loss(facula.zeros(0), facula.zeros(0)).item())


def test_half_precision_is_summed_in_single():
    x = facula.zeros(4096, 3).to(facula.float16)
    loss = F.cross_entropy(x, facula.zeros(4096, dtype=facula.int64))
    assert loss.dtype is facula.float16
    assert loss.item() == pytest.approx(np.log(3), rel=1e-3)
