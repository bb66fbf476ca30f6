"""Averages of weights, and the schedule that goes with them."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

import facula
from facula.optim import swa_utils
from facula.optim.swa_utils import AveragedModel

AVERAGES = {
    "default": lambda s: {},
    "swa": lambda s: {"avg_fn": s.get_swa_avg_fn()},
    "swa-multi": lambda s: {"multi_avg_fn": s.get_swa_multi_avg_fn()},
    "ema": lambda s: {"avg_fn": s.get_ema_avg_fn(0.8)},
    "ema-multi": lambda s: {"multi_avg_fn": s.get_ema_multi_avg_fn(0.8)},
    "own": lambda s: {"avg_fn": lambda average, value, count: average * count + value},
}


def network(lib):
    rng = np.random.default_rng(0)
    model = lib.nn.Sequential(lib.nn.Linear(3, 4), lib.nn.BatchNorm1d(4), lib.nn.Linear(4, 2))
    with lib.no_grad():
        for p in model.parameters():
            p.copy_(lib.tensor(rng.standard_normal(tuple(p.shape)).astype(np.float32)))
    return model


def trained(lib, options, steps, use_buffers, reload=None):
    rng = np.random.default_rng(1)
    model = network(lib)
    averaged = lib.optim.swa_utils.AveragedModel(model, use_buffers=use_buffers,
                                                 **options(lib.optim.swa_utils))
    o = lib.optim.SGD(model.parameters(), lr=0.1)
    for k in range(steps):
        x = lib.tensor(rng.standard_normal((5, 3)).astype(np.float32))
        o.zero_grad()
        (model(x) ** 2).mean().backward()
        o.step()
        averaged.update_parameters(model)
        if k == reload:
            fresh = lib.optim.swa_utils.AveragedModel(model, use_buffers=use_buffers,
                                                      **options(lib.optim.swa_utils))
            fresh.load_state_dict(copy.deepcopy(averaged.state_dict()))
            averaged = fresh
    return averaged


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("which", list(AVERAGES))
def test_averages_are_torchs(which, use_buffers):
    torch = pytest.importorskip("torch")
    if which == "swa-multi" and use_buffers:
        use_buffers = False                     # PyTorch's does not take integer buffers
    want = trained(torch, AVERAGES[which], 5, use_buffers).state_dict()
    have = trained(facula, AVERAGES[which], 5, use_buffers).state_dict()
    assert list(have) == list(want)
    for name, value in want.items():
        np.testing.assert_allclose(have[name].numpy(), value.numpy(), rtol=2e-5, atol=2e-6,
                                   err_msg=name)


def test_the_default_is_the_mean_of_the_values():
    model = facula.nn.Linear(3, 2)
    averaged = AveragedModel(model)
    seen = []
    for k in range(4):
        with facula.no_grad():
            model.weight.fill_(float(k * k))
        averaged.update_parameters(model)
        seen.append(model.weight.detach().numpy().copy())
        np.testing.assert_allclose(averaged.module.weight.detach().numpy(), np.mean(seen, 0),
                                   rtol=1e-6)
    assert averaged.n_averaged.item() == 4
    x = facula.ones(1, 3)
    np.testing.assert_allclose(averaged(x).detach().numpy(),
                               averaged.module(x).detach().numpy())
    assert all(p.requires_grad for p in averaged.parameters())


def test_the_average_goes_on_after_loading():
    whole = trained(facula, AVERAGES["default"], 5, False).state_dict()
    parts = trained(facula, AVERAGES["default"], 5, False, reload=2).state_dict()
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name].numpy(), value.numpy(), rtol=1e-5, err_msg=name)


def test_updating_does_not_end_the_pending_graph():
    model = network(facula)
    averaged = AveragedModel(model)
    averaged.update_parameters(model)
    averaged.update_parameters(model)
    assert all(np.isfinite(p.tolist()).all() for p in averaged.parameters())
    from facula.graph.record import recorder
    x = facula.ones(2) + 1
    graph = recorder().graph
    averaged.update_parameters(model)
    assert recorder().graph is graph
    assert x.tolist() == [2, 2]


def test_bad_arguments():
    model = facula.nn.Linear(2, 2)
    fn = swa_utils.get_swa_avg_fn()
    with pytest.raises(AssertionError, match="Only one"):
        AveragedModel(model, avg_fn=fn, multi_avg_fn=swa_utils.get_swa_multi_avg_fn())
    for make in (swa_utils.get_ema_avg_fn, swa_utils.get_ema_multi_avg_fn):
        with pytest.raises(ValueError, match="Invalid decay"):
            make(1.5)
    o = facula.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="anneal_strategy"):
        swa_utils.SWALR(o, 0.1, anneal_strategy="steps")
    with pytest.raises(ValueError, match="anneal_epochs"):
        swa_utils.SWALR(o, 0.1, anneal_epochs=-1)
    with pytest.raises(ValueError, match="same length"):
        swa_utils.SWALR(o, [0.1, 0.2])


def test_update_bn():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    batches = [rng.standard_normal((n, 3)).astype(np.float32) for n in (4, 6, 3)]
    sides = []
    for lib in (torch, facula):
        model = network(lib)
        model.eval()
        lib.optim.swa_utils.update_bn([(lib.tensor(b), 1) for b in batches], model)
        assert not model.training and model[1].momentum == 0.1
        sides.append(model.state_dict())
    for name, value in sides[0].items():
        np.testing.assert_allclose(sides[1][name].numpy(), value.numpy(), rtol=1e-5, atol=1e-6,
                                   err_msg=name)


@pytest.mark.parametrize("kw", [{}, {"anneal_epochs": 4, "anneal_strategy": "linear"},
                                {"anneal_epochs": 0}, {"anneal_epochs": 1}])
def test_swalr(kw):
    torch = pytest.importorskip("torch")
    sides = []
    for lib in (torch, facula):
        ps = [lib.ones(1, requires_grad=True) for _ in range(2)]
        o = lib.optim.SGD([{"params": [ps[0]]}, {"params": [ps[1]], "lr": 0.5}], lr=0.2)
        before = lib.optim.lr_scheduler.ExponentialLR(o, 0.9)
        after = lib.optim.swa_utils.SWALR(o, [0.05, 0.01], **kw)
        seen = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for k in range(14):
                o.step()
                (before if k < 3 else after).step()
                seen.append([g["lr"] for g in o.param_groups])
                if k == 7:
                    saved = copy.deepcopy(after.state_dict())
                    after = lib.optim.swa_utils.SWALR(o, 0.3, last_epoch=after.last_epoch)
                    for g, lr in zip(o.param_groups, seen[-1], strict=True):
                        g["lr"] = lr
                    after.load_state_dict(saved)
        sides.append(seen)
    np.testing.assert_allclose(sides[1], sides[0], rtol=1e-9)
