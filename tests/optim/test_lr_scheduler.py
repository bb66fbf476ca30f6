"""Learning-rate schedules against PyTorch's, epoch by epoch."""

from __future__ import annotations

import copy
import warnings

import pytest

import facula
from facula import optim

SCHEDULES = {
    "LambdaLR": lambda s, o: s.LambdaLR(o, lambda e: 0.9 ** e),
    "LambdaLR-each": lambda s, o: s.LambdaLR(o, [lambda e: 1 / (e + 1), lambda e: 0.5 + e]),
    "MultiplicativeLR": lambda s, o: s.MultiplicativeLR(o, lambda e: 0.9 if e % 2 else 1.1),
    "StepLR": lambda s, o: s.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda s, o: s.MultiStepLR(o, [2, 5, 5, 9], 0.3),
    "ConstantLR": lambda s, o: s.ConstantLR(o, 0.4, 4),
    "LinearLR": lambda s, o: s.LinearLR(o, 0.2, 0.9, 6),
    "ExponentialLR": lambda s, o: s.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda s, o: s.PolynomialLR(o, 7, 1.7),
    "CosineAnnealingLR": lambda s, o: s.CosineAnnealingLR(o, 5, 0.01),
    "CosineAnnealingWarmRestarts": lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2, 0.01),
    "CosineAnnealingWarmRestarts-1": lambda s, o: s.CosineAnnealingWarmRestarts(o, 4),
    "SequentialLR": lambda s, o: s.SequentialLR(
        o, [s.ConstantLR(o, 0.1, 2), s.ExponentialLR(o, 0.9), s.StepLR(o, 2)], [3, 8]),
    "SequentialLR-cosine": lambda s, o: s.SequentialLR(
        o, [s.LinearLR(o, 0.1, 1.0, 4), s.CosineAnnealingLR(o, 10)], [4]),
    "ChainedScheduler": lambda s, o: s.ChainedScheduler(
        [s.ConstantLR(o, 0.1, 2), s.ExponentialLR(o, 0.9)]),
    "CyclicLR": lambda s, o: s.CyclicLR(o, 0.1, 1.0, 3, 5),
    "CyclicLR-triangular2": lambda s, o: s.CyclicLR(o, 0.1, [1.0, 2.0], 2, mode="triangular2"),
    "CyclicLR-exp": lambda s, o: s.CyclicLR(o, 0.1, 1.0, 4, mode="exp_range", gamma=0.9),
    "CyclicLR-fn": lambda s, o: s.CyclicLR(o, 0.1, 1.0, 4, scale_fn=lambda x: 1 / (1 + x),
                                           scale_mode="iterations", cycle_momentum=False),
    "OneCycleLR": lambda s, o: s.OneCycleLR(o, 1.0, total_steps=20),
    "OneCycleLR-linear": lambda s, o: s.OneCycleLR(
        o, [1.0, 0.5], epochs=5, steps_per_epoch=4, anneal_strategy="linear", three_phase=True),
}


def optimiser(lib):
    ps = [lib.ones(1, requires_grad=True) for _ in range(2)]
    return lib.optim.SGD([{"params": [ps[0]]}, {"params": [ps[1]], "lr": 0.5}], lr=0.2,
                         momentum=0.9)


def follow(lib, make, epochs, reload=None):
    o = optimiser(lib)
    s = make(lib.optim.lr_scheduler, o)
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for k in range(epochs):
            seen.append([(g["lr"], g["momentum"]) for g in o.param_groups]
                        + [tuple(s.get_last_lr())])
            o.step()
            s.step()
            if k == reload:
                fresh_o = optimiser(lib)
                fresh = make(lib.optim.lr_scheduler, fresh_o)
                fresh_o.load_state_dict(o.state_dict())
                fresh.load_state_dict(copy.deepcopy(s.state_dict()))
                o, s = fresh_o, fresh
    return seen


@pytest.mark.parametrize("name", SCHEDULES)
def test_epoch_by_epoch(name):
    torch = pytest.importorskip("torch")
    want = follow(torch, SCHEDULES[name], 18)
    have = follow(facula, SCHEDULES[name], 18)
    for k, (h, w) in enumerate(zip(have, want, strict=True)):
        for a, b in zip(h, w, strict=True):
            assert a == pytest.approx(b, rel=1e-12), f"epoch {k}"


@pytest.mark.parametrize("name", SCHEDULES)
def test_goes_on_from_saved_state(name):
    whole = follow(facula, SCHEDULES[name], 12)
    parts = follow(facula, SCHEDULES[name], 12, reload=4)
    for h, w in zip(parts, whole, strict=True):
        for a, b in zip(h, w, strict=True):
            assert a == pytest.approx(b, rel=1e-12)


def test_plateau():
    torch = pytest.importorskip("torch")
    metrics = [1.0, 0.9, 0.95, 0.96, 0.97, 0.99, 0.5, 0.51, 0.52, 0.53, 0.54, 0.55, 0.56]
    for kw in ({"patience": 1}, {"patience": 1, "cooldown": 2, "mode": "max"},
               {"patience": 0, "threshold_mode": "abs", "threshold": 0.03, "min_lr": 0.02}):
        rates = []
        for lib in (torch, facula):
            o = optimiser(lib)
            s = lib.optim.lr_scheduler.ReduceLROnPlateau(o, **kw)
            seen = []
            for m in metrics:
                o.step()
                s.step(lib.tensor(m))
                seen.append([*s.get_last_lr(), s.num_bad_epochs])
            rates.append(seen)
        for a, b in zip(*rates, strict=True):
            assert b == pytest.approx(a)


def test_warnings_and_errors():
    o = optimiser(facula)
    s = optim.lr_scheduler.StepLR(o, 2)
    with pytest.warns(UserWarning, match="before `optimizer.step\\(\\)`"):
        s.step()
    with pytest.raises(KeyError, match="initial_lr"):
        optim.lr_scheduler.StepLR(optimiser(facula), 2, last_epoch=3)
    with pytest.raises(TypeError, match="not an Optimizer"):
        optim.lr_scheduler.StepLR(None, 2)
    with pytest.raises(ValueError, match="total_steps OR"):
        optim.lr_scheduler.OneCycleLR(o, 1.0)
    with pytest.raises(ValueError, match="Expected positive integer T_0"):
        optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 0)
    with pytest.raises(ValueError, match="same optimizer"):
        optim.lr_scheduler.ChainedScheduler([
            optim.lr_scheduler.StepLR(optimiser(facula), 2),
            optim.lr_scheduler.StepLR(optimiser(facula), 2)])


def test_a_rate_that_is_a_tensor_is_kept():
    lr = facula.tensor(0.4)
    p = facula.ones(1, requires_grad=True)
    o = optim.SGD([p], lr=lr)
    s = optim.lr_scheduler.ExponentialLR(o, 0.5)
    p.grad = facula.ones(1)
    o.step()
    s.step()
    assert o.param_groups[0]["lr"] is lr and lr.item() == pytest.approx(0.2)
    o.step()
    assert p.item() == pytest.approx(0.4)
