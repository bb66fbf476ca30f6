"""Adaptive softmax, gradients of convolutions, and the other names of things."""

from __future__ import annotations

import numpy as np
import pytest

import facula
import facula.nn.functional as F
from facula import nn
from tests.nn.functional_cases import f


@pytest.mark.parametrize("head_bias", [True, False])
def test_adaptive_softmax_is_pytorchs(head_bias):
    torch = pytest.importorskip("torch")
    want = torch.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 12], 2.0, head_bias)
    have = nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 12], 2.0, head_bias)
    assert repr(have) == repr(want) and have.cutoffs == want.cutoffs
    have.load_state_dict({k: facula.tensor(v.numpy()) for k, v in want.state_dict().items()})
    x, t = f(9, 8).astype(np.float32), np.array([0, 4, 5, 11, 12, 19, 3, 7, 15])
    a, b = torch.tensor(x, requires_grad=True), facula.tensor(x, requires_grad=True)
    for rows in (slice(None), slice(0, 2), slice(4, 6), 3):     # without some of the clusters
        theirs = want(a[rows], torch.tensor(t[rows]))
        ours = have(b[rows], facula.tensor(t[rows]))
        np.testing.assert_allclose(ours.output.detach().numpy(), theirs.output.detach().numpy(),
                                   rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(ours.loss.item(), theirs.loss.item(), rtol=1e-4)
        theirs.loss.backward()
        ours.loss.backward()
    np.testing.assert_allclose(b.grad.numpy(), a.grad.numpy(), rtol=1e-3, atol=1e-5)
    for p, q in zip(want.parameters(), have.parameters(), strict=True):
        np.testing.assert_allclose(q.grad.numpy(), p.grad.numpy(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(have.log_prob(b).detach().numpy(),
                               want.log_prob(a).detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(have.predict(b).numpy(), want.predict(a).numpy())


def test_adaptive_softmax_by_its_meaning():
    layer = nn.AdaptiveLogSoftmaxWithLoss(16, 9, [3, 6])
    x = facula.rand(5, 16)
    logp = layer.log_prob(x).detach()
    np.testing.assert_allclose(logp.exp().sum(1).numpy(), np.ones(5), rtol=1e-5)
    t = facula.tensor([8, 0, 5, 3, 2])
    out, loss = layer(x, t)
    picked = logp.gather(1, t.unsqueeze(1)).squeeze(1).numpy()
    np.testing.assert_allclose(out.detach().numpy(), picked, rtol=1e-5)
    assert loss.item() == pytest.approx(-picked.mean(), rel=1e-5)
    before = layer.tail[0][0].weight.detach().clone()
    layer.reset_parameters()
    assert (layer.tail[0][0].weight != before).any().item()
    for bad in ([], [3, 3], [4, 2], [0, 3], [9], [2.5]):
        with pytest.raises(ValueError, match="cutoffs"):
            nn.AdaptiveLogSoftmaxWithLoss(8, 9, bad)
    for x_, t_ in ((x, facula.zeros(4).long()), (x, facula.zeros(5, 1).long()),
                   (x[0], facula.zeros(5).long())):
        with pytest.raises(RuntimeError):
            layer(x_, t_)
    for wrong in (9, -1):
        with pytest.raises(IndexError):
            layer(x, facula.tensor([0, 1, 2, 3, wrong])).loss.item()


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("geometry", [(), (2, 1), (1, 1, 2), (1, 0, 1, 2)], ids=str)
def test_gradients_of_convolutions(d, geometry):
    torch = pytest.importorskip("torch")
    from torch.nn import grad as theirs
    groups = geometry[3] if len(geometry) > 3 else 1
    x, w = f(2, 4, *(7, 6, 5)[:d]), f(6, 4 // groups, *(3, 2, 2)[:d])
    out = getattr(F, f"conv{d}d")(facula.tensor(x), facula.tensor(w), None, *geometry)
    g = f(*out.shape)
    for name, (one, two) in ((f"conv{d}d_input", (x.shape, w)), (f"conv{d}d_weight",
                                                                 (x, w.shape))):
        results = []
        for lib, functions in ((torch, theirs), (facula, nn.grad)):
            args = [v if isinstance(v, tuple) else lib.tensor(v) for v in (one, two)]
            results.append(getattr(functions, name)(*args, lib.tensor(g), *geometry).numpy())
        np.testing.assert_allclose(results[1], results[0], rtol=1e-9, atol=1e-9)


def test_other_names():
    x = facula.rand(1, 2, 6, 6)
    for have, want in ((F.max_pool2d_with_indices(x, 2, stride=3),
                        F.max_pool2d(x, 2, stride=3, return_indices=True)),
                       (F.max_pool2d_with_indices(x, 2, None, 0, 1, False, False),
                        F.max_pool2d(x, 2, return_indices=True)),
                       (F.adaptive_max_pool2d_with_indices(x, 3),
                        F.adaptive_max_pool2d(x, 3, True))):
        for a, b in zip(have, want, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert len(F.fractional_max_pool2d_with_indices(x, 2, 3)) == 2
    with pytest.warns(FutureWarning, match=r"nn\.init\.constant_"):
        assert nn.init.constant(facula.empty(2), 3).tolist() == [3, 3]
    p = facula.ones(2, requires_grad=True)
    p.sum().backward()
    assert nn.utils.clip_grad_norm([p], 1.0).item() == pytest.approx(2 ** 0.5)


def test_a_module_compiled_in_place():
    import copy
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = facula.rand(5, 3)
    with facula.no_grad():
        want = net(x).numpy()
        assert net.compile() is None
        for _ in range(4):
            np.testing.assert_allclose(net(x).numpy(), want, rtol=1e-5, atol=1e-6)
        assert net.forward.replays
        twin = copy.deepcopy(net)
        assert "forward" not in twin.__dict__ and "forward" not in copy.copy(net).__dict__
        net[2].weight.zero_()
        np.testing.assert_allclose(net(x).numpy(), np.tile(net[2].bias.detach().numpy(), (5, 1)))
        np.testing.assert_allclose(twin(x).numpy(), want, rtol=1e-5, atol=1e-6)
        net.register_forward_hook(lambda module, args, out: out * 0)
        assert not net(x).any().item()
    assert isinstance(net, nn.Sequential) and list(net.state_dict()) == list(twin.state_dict())
