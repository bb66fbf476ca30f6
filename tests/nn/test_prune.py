"""Pruning: which elements, under which names, and on top of one another."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import nn
from facula.nn.utils import prune


def _layers(lib, values):
    layer = lib.nn.Linear(values.shape[1], values.shape[0])
    with lib.no_grad():
        layer.weight.copy_(lib.tensor(values))
    return layer


METHODS = {
    "l1": lambda p, m, t: p.l1_unstructured(m, "weight", 5),
    "l1-part": lambda p, m, t: p.l1_unstructured(m, "weight", 0.3),
    "l1-none": lambda p, m, t: p.l1_unstructured(m, "weight", 0),
    "l1-all": lambda p, m, t: p.l1_unstructured(m, "weight", 1.0),
    "l1-scores": lambda p, m, t: p.l1_unstructured(
        m, "weight", 4, importance_scores=t(np.arange(24.0)[::-1].copy().reshape(4, 6))),
    "l2-rows": lambda p, m, t: p.ln_structured(m, "weight", 2, n=2, dim=0),
    "linf-columns": lambda p, m, t: p.ln_structured(m, "weight", 0.4, n=float("inf"), dim=-1),
    "ln-none": lambda p, m, t: p.ln_structured(m, "weight", 0, n=1, dim=1),
    "mask": lambda p, m, t: p.custom_from_mask(
        m, "weight", t((np.arange(24) % 3 > 0).reshape(4, 6))),
    "identity": lambda p, m, t: p.identity(m, "weight"),
    "twice": lambda p, m, t: p.l1_unstructured(p.l1_unstructured(m, "weight", 6), "weight", 0.5),
    "rows-then-elements": lambda p, m, t: p.l1_unstructured(
        p.ln_structured(m, "weight", 1, n=1, dim=0), "weight", 3),
    "elements-then-columns": lambda p, m, t: p.ln_structured(
        p.l1_unstructured(m, "weight", 8), "weight", 2, n=2, dim=1),
    "three": lambda p, m, t: p.ln_structured(p.custom_from_mask(
        p.l1_unstructured(m, "weight", 3), "weight", t((np.arange(24) % 5 > 0).reshape(4, 6))),
        "weight", 1, n=2, dim=0),
}


@pytest.mark.parametrize("name", METHODS)
def test_prunes_what_pytorch_prunes(name):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("torch.nn.utils.prune")
    values = np.random.default_rng(4).standard_normal((4, 6)).astype(np.float32)
    want, have = _layers(torch, values), _layers(facula, values)
    have.bias = nn.Parameter(facula.tensor(want.bias.detach().numpy()))
    METHODS[name](theirs, want, torch.tensor)
    assert METHODS[name](prune, have, facula.tensor) is have
    assert list(have.state_dict()) == ["bias", "weight_orig", "weight_mask"]
    assert sorted(have.state_dict()) == sorted(want.state_dict())
    assert prune.is_pruned(have) and prune.is_pruned(nn.Sequential(have))
    np.testing.assert_array_equal(have.weight_mask.numpy(), want.weight_mask.numpy())
    np.testing.assert_array_equal(have.weight.detach().numpy(), want.weight.detach().numpy())
    assert len(have._forward_pre_hooks) == 1
    x = np.random.default_rng(5).standard_normal((3, 6)).astype(np.float32)
    a, b = want(torch.tensor(x)), have(facula.tensor(x))
    np.testing.assert_allclose(b.detach().numpy(), a.detach().numpy(), rtol=1e-5, atol=1e-6)
    a.sum().backward()
    b.sum().backward()
    np.testing.assert_allclose(have.weight_orig.grad.numpy(), want.weight_orig.grad.numpy(),
                               rtol=1e-5, atol=1e-6)
    original = have.weight_orig
    assert prune.remove(have, "weight") is have
    assert have.weight is original and not prune.is_pruned(have)
    assert sorted(have.state_dict()) == ["bias", "weight"] and not have._forward_pre_hooks
    np.testing.assert_array_equal(have.weight.detach().numpy(), want.weight.detach().numpy())


def test_random_methods_prune_as_many_as_they_should():
    facula.manual_seed(0)
    layer = prune.random_unstructured(nn.Linear(6, 4), "weight", 7)
    assert (layer.weight_mask == 0).sum().item() == 7
    prune.random_unstructured(layer, "weight", 0.5)             # of the 17 that are left
    assert (layer.weight_mask == 0).sum().item() == 15
    layer = prune.random_structured(nn.Conv2d(4, 6, 3), "weight", 2, 1)
    per = layer.weight_mask.numpy().transpose(1, 0, 2, 3).reshape(4, -1)
    assert sorted(per.mean(1)) == [0, 0, 1, 1]
    masks = {tuple(prune.random_structured(nn.Linear(9, 2), "weight", 3, 1)
                   .weight_mask[0].tolist()) for _ in range(10)}
    assert len(masks) > 2


def test_over_several_parameters():
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("torch.nn.utils.prune")
    rng = np.random.default_rng(6)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((3, 4), (5, 2)))
    masks = []
    for lib, p in ((torch, theirs), (facula, prune)):
        one, two = _layers(lib, a), _layers(lib, b)
        p.l1_unstructured(one, "weight", 2)
        scores = {(two, "weight"): lib.tensor(np.arange(10, dtype=np.float32).reshape(5, 2))}
        p.global_unstructured([(one, "weight"), (two, "weight")], p.L1Unstructured, scores,
                              amount=6)
        masks.append((one.weight_mask.numpy(), two.weight_mask.numpy()))
    for have, want in zip(masks[1], masks[0]):
        np.testing.assert_array_equal(have, want)
    assert sum((m == 0).sum() for m in masks[1]) == 8


def test_methods_of_ones_own():
    class EveryOther(prune.BasePruningMethod):
        PRUNING_TYPE = "unstructured"

        def compute_mask(self, t, default_mask):
            mask = default_mask.clone()
            mask.view(-1)[::2] = 0
            return mask

    layer = nn.Linear(4, 2)
    EveryOther.apply(layer, "weight")
    assert layer.weight_mask.tolist() == [[0, 1, 0, 1], [0, 1, 0, 1]]
    EveryOther.apply(layer, "weight")
    assert layer.weight_mask.tolist() == [[0, 0, 0, 1], [0, 0, 0, 1]]
    (container,) = layer._forward_pre_hooks.values()
    assert isinstance(container, prune.PruningContainer) and len(container) == 2
    assert isinstance(container[1], EveryOther) and [*container][0] is container[0]
    assert EveryOther().prune(facula.ones(3)).tolist() == [0, 1, 0]


def test_trained_while_pruned():
    facula.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    prune.l1_unstructured(net[0], "weight", 0.5)
    optimizer = facula.optim.Adam(net.parameters(), lr=0.02)
    x = facula.randn(64, 4)
    y = x.sum(1, keepdim=True).tanh()
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    prune.remove(net[0], "weight")
    assert (net[0].weight == 0).sum().item() == 16


def test_refusals():
    layer = nn.Linear(3, 2)
    cases = [
        (TypeError, lambda: prune.l1_unstructured(layer, "weight", "many")),
        (ValueError, lambda: prune.l1_unstructured(layer, "weight", -1)),
        (ValueError, lambda: prune.l1_unstructured(layer, "weight", 1.5)),
        (ValueError, lambda: prune.l1_unstructured(layer, "weight", 7)),
        (ValueError, lambda: prune.ln_structured(layer, "bias", 1, 2, 0)),
        (IndexError, lambda: prune.ln_structured(layer, "weight", 1, 2, 2)),
        (AssertionError, lambda: prune.custom_from_mask(layer, "weight", facula.ones(2))),
        (AssertionError, lambda: prune.l1_unstructured(layer, "weight", 1, facula.ones(2))),
        (ValueError, lambda: prune.remove(layer, "weight")),
        (TypeError, lambda: prune.global_unstructured(3, prune.L1Unstructured, amount=1)),
        (TypeError, lambda: prune.global_unstructured([(layer, "weight")], prune.LnStructured,
                                                      amount=1, n=2)),
        (TypeError, lambda: prune.PruningContainer().add_pruning_method(3)),
        (TypeError, prune.BasePruningMethod),
    ]
    for kind, call in cases:
        with pytest.raises(kind):
            call()
    assert sorted(layer.state_dict()) == ["bias", "weight"] and not layer._forward_pre_hooks
    assert isinstance(layer.weight, nn.Parameter)
