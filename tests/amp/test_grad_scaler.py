"""GradScaler: PyTorch's rules, step by step, at one look at a value a step."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

import facula
from facula import nn
from facula.amp import GradScaler
from facula.graph import flush

INF, NAN = float("inf"), float("nan")


def run(lib, scaler, factors, between=None):
    """Scales, growth trackers and weights while some losses overflow."""
    w = lib.tensor([1.0, -2.0]).requires_grad_()
    b = lib.tensor([[0.5]]).requires_grad_()
    o = lib.optim.SGD([w, b], lr=0.1, momentum=0.9)
    seen = []
    for k, factor in enumerate(factors):
        o.zero_grad()
        loss = (w * w).sum() * factor + b.sum()
        scaler.scale(loss).backward()
        if k % 3 == 2:
            scaler.unscale_(o)
        scaler.step(o)
        scaler.update()
        if between is not None:
            scaler = between(k, scaler)
        state = scaler.state_dict()
        seen.append((scaler.get_scale(), state["_growth_tracker"], w.detach().tolist(),
                     b.detach().tolist()))
    return seen


@pytest.mark.parametrize("kw", [{}, {"init_scale": 4.0, "growth_interval": 2},
                                {"init_scale": 3.0, "growth_factor": 1.1, "backoff_factor": 0.3,
                                 "growth_interval": 1}])
@pytest.mark.parametrize("factors", [[1.0, INF, 1.0, 1.0, NAN, NAN, 1.0, 1.0, 1.0], [1.0] * 5])
def test_steps_are_torchs(kw, factors):
    torch = pytest.importorskip("torch")
    want = run(torch, torch.amp.GradScaler("cpu", **kw), factors)
    have = run(facula, GradScaler(**kw), factors)
    for h, w in zip(have, want, strict=True):
        assert h[:2] == pytest.approx(w[:2], rel=1e-6)
        np.testing.assert_allclose(h[2], w[2], rtol=1e-5)
        np.testing.assert_allclose(h[3], w[3], rtol=1e-5)


def test_the_scale_grows_and_shrinks():
    seen = run(facula, GradScaler(init_scale=8.0, growth_interval=2), [1, 1, INF, 1, 1])
    assert [s[0] for s in seen] == [8, 16, 8, 8, 16]
    assert seen[2][2] == seen[1][2] and seen[3][2] != seen[2][2]


def test_the_scale_does_not_grow_to_infinity():
    scaler = GradScaler(init_scale=2.0 ** 127, growth_interval=1)
    p = facula.ones(1, requires_grad=True)
    o = facula.optim.SGD([p], lr=0.1)
    scaler.scale(p.sum() * 0).backward()
    scaler.step(o)
    scaler.update()
    assert scaler.get_scale() == 2.0 ** 127


def test_state_goes_on():
    def reload(k, scaler):
        if k != 1:
            return scaler
        fresh = GradScaler()
        fresh.load_state_dict(copy.deepcopy(scaler.state_dict()))
        return fresh

    kw = {"init_scale": 4.0, "growth_interval": 3}
    factors = [1.0, 1.0, 1.0, INF, 1.0]
    assert run(facula, GradScaler(**kw), factors) == run(facula, GradScaler(**kw), factors, reload)


def test_several_outputs_and_optimisers():
    p, q = (facula.ones(2, requires_grad=True) for _ in range(2))
    first, second = (facula.optim.SGD([t], lr=0.5) for t in (p, q))
    scaler = GradScaler(init_scale=2.0)
    a, (b, c) = scaler.scale([p.sum(), (q.sum() * INF, p.sum())])
    assert a.item() == c.item() == 4 and b.item() == INF
    (a + b).backward()
    scaler.unscale_(first)
    assert p.grad.tolist() == [1, 1]
    nn.utils.clip_grad_norm_([p], 0.1)
    assert scaler.step(first) is None and scaler.step(second) is None
    scaler.update()
    assert p.tolist() != [1, 1] and q.tolist() == [1, 1] and scaler.get_scale() == 1


def test_mixed_precision_training_in_float16():
    facula.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    o = facula.optim.Adam(model.parameters(), lr=0.02)
    scaler = GradScaler()
    x, t = facula.randn(32, 8), facula.randint(0, 3, (32,))
    losses = []
    for _ in range(40):
        o.zero_grad()
        with facula.autocast("cpu", facula.float16):
            loss = nn.functional.cross_entropy(model(x), t)
        scaler.scale(loss).backward()
        scaler.step(o)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2 and all(np.isfinite(losses))


def test_one_value_is_asked_for_in_a_step(monkeypatch):
    model = nn.Linear(4, 4)
    o = facula.optim.SGD(model.parameters(), lr=0.1)
    scaler = GradScaler()
    asked = []
    value_of = flush.value_of

    def counted(node):
        asked.append(node)
        return value_of(node)

    monkeypatch.setattr(flush, "value_of", counted)
    for _ in range(4):
        o.zero_grad()
        scaler.scale(model(facula.ones(2, 4)).sum()).backward()
        scaler.unscale_(o)
        scaler.step(o)
        scaler.update()
    assert len(asked) == 4


def test_disabled():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scalers = [GradScaler("cuda"), GradScaler(enabled=False)]
    with pytest.warns(UserWarning, match="not available"):
        GradScaler("cuda")
    for scaler in scalers:
        p = facula.ones(1, requires_grad=True)
        o = facula.optim.SGD([p], lr=0.5)
        loss = p.sum()
        assert scaler.scale(loss) is loss and not scaler.is_enabled()
        loss.backward()
        scaler.unscale_(o)
        scaler.step(o)
        scaler.update()
        assert p.tolist() == [0.5] and scaler.get_scale() == 1 and scaler.state_dict() == {}


def test_errors():
    p = facula.ones(2, requires_grad=True)
    o = facula.optim.SGD([p], lr=0.1)
    scaler = GradScaler()
    with pytest.raises(AssertionError, match="_scale is None"):
        scaler.step(o)
    loss = scaler.scale(p.sum())
    with pytest.raises(AssertionError, match="No inf checks were recorded for this optimizer"):
        scaler.step(o)
    scaler = GradScaler()
    scaler.scale(loss)
    with pytest.raises(AssertionError, match="prior to update"):
        scaler.update()
    loss.backward()
    scaler.unscale_(o)
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.unscale_(o)
    with pytest.raises(RuntimeError, match="Closure"):
        scaler.step(o, closure=lambda: None)
    scaler.step(o)
    with pytest.raises(RuntimeError, match="after step"):
        scaler.unscale_(o)
    with pytest.raises(RuntimeError, match="already been called since"):
        scaler.step(o)
    scaler.update(3.0)
    assert scaler.get_scale() == 3
    half = facula.ones(2, dtype=facula.float16, requires_grad=True)
    scaler.scale(half.sum()).backward()
    with pytest.raises(ValueError, match="FP16"):
        scaler.unscale_(facula.optim.SGD([half], lr=0.1))
    with pytest.raises(ValueError, match="iterable"):
        scaler.scale(1.0)
    with pytest.raises(RuntimeError, match="empty"):
        scaler.load_state_dict({})
    for bad in ({"growth_factor": 1.0}, {"backoff_factor": 1.0}):
        with pytest.raises(AssertionError, match="factor"):
            GradScaler(**bad)
