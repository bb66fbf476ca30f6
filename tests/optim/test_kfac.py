"""K-FAC's factors and steps against NumPy, and that it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest

import facula
import facula.nn as nn
import facula.nn.functional as F
from facula.curvature import EmpiricalFisherOperator
from facula.errors import ClosureError, NotFiniteError
from facula.optim import KFAC

RNG = np.random.default_rng(6)


def t(*shape):
    return facula.tensor(RNG.normal(size=shape))


def test_a_step_of_a_linear_layer():
    layer = nn.Linear(3, 2).to(facula.float64)
    x, y = t(5, 3), t(5, 2)
    w, b = (np.array(p.detach().numpy()) for p in layer.parameters())
    opt = KFAC(layer, lr=0.1, momentum=0.0, damping=0.04, clip=1e9)
    loss = opt.step(lambda: 0.5 * ((layer(x) - y) ** 2).sum() / 5)
    a = np.concatenate([x.numpy(), np.ones((5, 1))], 1)
    err = a @ np.concatenate([w, b[:, None]], 1).T - y.numpy()
    assert loss.item() == pytest.approx(0.5 * (err ** 2).sum() / 5)
    first, second = a.T @ a / 5, err.T @ err / 5
    pi = math.sqrt((np.trace(first) / 4) / (np.trace(second) / 2))
    step = np.linalg.inv(second + 0.2 / pi * np.eye(2)) @ (err.T @ a / 5) \
        @ np.linalg.inv(first + 0.2 * pi * np.eye(4))
    new = np.concatenate([w, b[:, None]], 1) - 0.1 * step
    np.testing.assert_allclose(layer.weight.detach().numpy(), new[:, :3], rtol=1e-9)
    np.testing.assert_allclose(layer.bias.detach().numpy(), new[:, 3], rtol=1e-9)


def test_the_factors_are_the_fisher_matrix_of_one_sample():
    """With one sample the Kronecker product is exact."""
    layer = nn.Linear(3, 2, bias=False).to(facula.float64)
    x, y = t(1, 3), facula.tensor(np.array([1]))

    def closure():
        z = layer(x)
        return F.cross_entropy(z, y), z

    fisher = EmpiricalFisherOperator(closure, layer).to_dense().numpy()
    opt = KFAC(layer, lr=0.0)
    opt.step(closure)
    state = opt.state[layer.weight]
    np.testing.assert_allclose(np.kron(state["outputs"].numpy(), state["inputs"].numpy()), fisher,
                               rtol=1e-9, atol=1e-12)


def test_the_factors_of_a_convolution():
    layer = nn.Conv2d(2, 3, 3, padding=1, stride=2, dilation=1).to(facula.float64)
    x, c = t(4, 2, 5, 5), t(4, 3, 3, 3)
    opt = KFAC(layer, lr=0.0)
    opt.step(lambda: (layer(x) * c).sum() / 4)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows = [np.append(padded[n, :, i:i + 3, j:j + 3].ravel(), 1.0)
            for n in range(4) for i in (0, 2, 4) for j in (0, 2, 4)]
    a, g = np.array(rows), c.numpy().transpose(0, 2, 3, 1).reshape(-1, 3)
    state = opt.state[layer.weight]
    np.testing.assert_allclose(state["inputs"].numpy(), a.T @ a / 4, rtol=1e-9)
    np.testing.assert_allclose(state["outputs"].numpy(), g.T @ g / 36, rtol=1e-9)


@pytest.mark.parametrize("likelihood", [None, "categorical"])
def test_it_learns_faster_than_plain_descent(likelihood):
    rng = np.random.default_rng(0)
    scales = facula.tensor(10.0 ** np.linspace(0.5, -1.5, 8))
    x = facula.tensor(rng.normal(size=(64, 8)))
    y = (x @ facula.tensor(rng.normal(size=(8, 3)))).argmax(1)
    x = x * scales

    def train(make):
        facula.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 3)).to(facula.float64)

        def closure():
            z = net(x)
            return F.cross_entropy(z, y), z
        opt = make(net)
        for _ in range(60):
            if isinstance(opt, KFAC):
                opt.step(closure)
                continue
            opt.zero_grad()
            closure()[0].backward()
            opt.step()
        return closure()[0].item()

    plain = min(train(lambda n, r=r: facula.optim.SGD(n.parameters(), lr=r, momentum=0.9))
                for r in (0.03, 0.1))
    assert train(lambda n: KFAC(n, lr=0.1, damping=1e-3, every=2, clip=1.0,
                                likelihood=likelihood)) < plain


def test_layers_that_are_shared_and_parameters_that_are_not_of_a_layer():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.same, self.scale = nn.Linear(3, 3), nn.Parameter(facula.ones(3))
            self.frozen = nn.Linear(3, 3)
            self.frozen.requires_grad_(False)

        def forward(self, x):
            return self.same(self.frozen(self.same(x)).tanh()) * self.scale

    net = Net().to(facula.float64)
    x, y = t(6, 3), t(6, 3)
    opt = KFAC(net, lr=0.05, clip=1.0)
    losses = [opt.step(lambda: F.mse_loss(net(x), y)).item() for _ in range(15)]
    assert losses[-1] < losses[0]
    assert "inputs" not in opt.state.get(net.frozen.weight, {})


def test_state_dict_carries_on():
    net = nn.Linear(3, 2).to(facula.float64)
    x, y = t(5, 3), t(5, 2)

    def closure():
        return F.mse_loss(net(x), y)

    opt = KFAC(net, lr=0.05, every=2)
    for _ in range(3):
        opt.step(closure)
    weights, saved = {k: v.clone() for k, v in net.state_dict().items()}, opt.state_dict()
    saved = {"state": {k: dict(v) for k, v in saved["state"].items()},
             "param_groups": saved["param_groups"]}
    saved["state"] = {k: {n: v.clone() if isinstance(v, facula.Tensor) else v
                          for n, v in s.items()} for k, s in saved["state"].items()}
    opt.step(closure)
    want = np.array(net.weight.detach().numpy())
    net.load_state_dict(weights)
    other = KFAC(net, lr=0.05, every=2)
    other.load_state_dict(saved)
    other.step(closure)
    np.testing.assert_allclose(net.weight.detach().numpy(), want, rtol=1e-10)


def test_what_is_refused():
    net = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="module itself"):
        KFAC(net.parameters())
    for settings in ({"damping": 0.0}, {"decay": 1.0}, {"every": 0}, {"likelihood": "cauchy"}):
        with pytest.raises(ValueError, match="Invalid"):
            KFAC(net, **settings)
    with pytest.warns(UserWarning, match="no Linear or Conv2d"):
        KFAC(nn.LayerNorm(3))
    opt = KFAC(net, likelihood="categorical")
    with pytest.raises(ClosureError, match=r"\(loss, outputs\)"):
        opt.step(lambda: net(facula.ones(1, 2)).sum())
    with pytest.raises(TypeError, match="closure"):
        opt.step()
    before = np.array(net.weight.detach().numpy())
    with pytest.raises(NotFiniteError):
        KFAC(net).step(lambda: (net(facula.ones(1, 2)) * math.nan).sum())
    np.testing.assert_array_equal(net.weight.detach().numpy(), before)
