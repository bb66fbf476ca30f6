"""Parametrized, normalised and orthogonal weights: PyTorch's values, names and rules."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import facula
from facula import nn
from facula.nn.utils import parametrizations, parametrize


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).transpose(-1, -2)

    def right_inverse(self, x):
        return x.triu()


class Doubled(nn.Module):
    def forward(self, x):
        return x * 2

    def right_inverse(self, x):
        return x / 2


class OneWay(nn.Module):
    def forward(self, x):
        return x.abs()


class Split(nn.Module):
    def forward(self, a, b):
        return a + b

    def right_inverse(self, x):
        return x * 0.25, x * 0.75


def test_register_use_assign_remove():
    layer = nn.Linear(3, 3)
    weight = layer.weight
    start = weight.detach().numpy().copy()
    assert parametrize.register_parametrization(layer, "weight", Symmetric()) is layer
    assert type(layer).__name__ == "ParametrizedLinear" and isinstance(layer, nn.Linear)
    assert parametrize.is_parametrized(layer) and parametrize.is_parametrized(layer, "weight")
    assert not parametrize.is_parametrized(layer, "bias")
    assert parametrize.type_before_parametrizations(layer) is nn.Linear
    assert layer.parametrizations.weight.original is weight
    np.testing.assert_array_equal(weight.detach().numpy(), np.triu(start))
    w = layer.weight.detach().numpy()
    np.testing.assert_array_equal(w, w.T)
    assert [n for n, _ in layer.named_parameters()] == ["bias", "parametrizations.weight.original"]
    x = facula.rand(2, 3)
    np.testing.assert_allclose(layer(x).detach().numpy(), x.numpy() @ w.T
                               + layer.bias.detach().numpy(), rtol=1e-5, atol=1e-6)
    layer(x).sum().backward()
    assert weight.grad is not None and weight.grad.tril(-1).abs().sum().item() == 0
    new = facula.ones(3, 3)
    layer.weight = new
    np.testing.assert_array_equal(layer.weight.detach().numpy(), new.numpy())
    assert layer.parametrizations.weight.original is weight

    parametrize.register_parametrization(layer, "weight", Doubled())
    assert len(layer.parametrizations.weight) == 2 and layer.weight[0, 0].item() == 2
    layer.weight = new
    assert layer.weight[0, 0].item() == 1
    parametrize.register_parametrization(layer, "bias", OneWay())
    with pytest.raises(RuntimeError, match="OneWay does not implement"):
        layer.bias = facula.ones(3)
    assert sorted(layer.parametrizations) == ["bias", "weight"]

    parametrize.remove_parametrizations(layer, "weight")
    assert layer.weight is weight and isinstance(layer.weight, nn.Parameter)
    np.testing.assert_array_equal(layer.weight.detach().numpy(), new.numpy())
    assert parametrize.is_parametrized(layer)
    before = layer.parametrizations.bias.original.detach().numpy().copy()
    parametrize.remove_parametrizations(layer, "bias", leave_parametrized=False)
    np.testing.assert_array_equal(layer.bias.detach().numpy(), before)
    assert type(layer) is nn.Linear and "parametrizations" not in layer._modules
    assert sorted(n for n, _ in layer.named_parameters()) == ["bias", "weight"]
    assert layer(x).shape == (2, 3)


def test_tensors_in_terms_of_several():
    layer = nn.Linear(2, 3, bias=False)
    start = layer.weight.detach().numpy().copy()
    parametrize.register_parametrization(layer, "weight", Split())
    assert [n for n, _ in layer.named_parameters()] == \
        ["parametrizations.weight.original0", "parametrizations.weight.original1"]
    np.testing.assert_allclose(layer.weight.detach().numpy(), start, rtol=1e-6)
    layer.weight = facula.ones(3, 2)
    assert layer.parametrizations.weight.original1[0, 0].item() == 0.75
    with pytest.raises(ValueError, match="leave_parametrized"):
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    parametrize.remove_parametrizations(layer, "weight")
    assert isinstance(layer.weight, nn.Parameter) and layer.weight.sum().item() == 6
    norm = nn.BatchNorm1d(3)
    parametrize.register_parametrization(norm, "running_mean", Split())
    assert "parametrizations.running_mean.original0" in dict(norm.named_buffers())


def test_what_does_not_fit_is_refused():
    class Wrong(nn.Module):
        def __init__(self, fn):
            super().__init__()
            self.fn = fn

        def forward(self, x):
            return self.fn(x)

    for fn, match in ((lambda x: x[:1], "shape"), (lambda x: x.double(), "dtype"),
                      (lambda x: (x, x), "must return a tensor")):
        for first in (True, False):
            layer = nn.Linear(2, 2)
            if not first:
                parametrize.register_parametrization(layer, "weight", Doubled())
            with pytest.raises(ValueError, match=match):
                parametrize.register_parametrization(layer, "weight", Wrong(fn))
            assert layer(facula.ones(1, 2)).shape == (1, 2)
    layer = nn.Linear(2, 2)
    parametrize.register_parametrization(layer, "weight", Wrong(lambda x: x[:1]), unsafe=True)
    assert layer.weight.shape == (1, 2)
    for call in (lambda: parametrize.register_parametrization(layer, "nothing", Doubled()),
                 lambda: parametrize.remove_parametrizations(layer, "bias"),
                 lambda: parametrize.ParametrizationList([], facula.ones(1))):
        with pytest.raises(ValueError):
            call()


def test_cached_computes_once():
    calls = []

    class Counted(nn.Module):
        def forward(self, x):
            calls.append(1)
            return x * 2

    layer = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Counted())
    calls.clear()
    with parametrize.cached():
        a = layer.weight
        with parametrize.cached():
            assert layer.weight is a
        assert layer.weight is a and len(calls) == 1
        (layer(facula.ones(1, 2)) + layer(facula.zeros(1, 2))).sum().backward()
        assert len(calls) == 1
    assert layer.weight is not a
    assert layer.parametrizations.weight.original.grad.tolist() == [[2, 2], [2, 2]]


def test_copies_states_and_transfer():
    a = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Doubled())
    parametrize.register_parametrization(a, "bias", Doubled())
    b = copy.deepcopy(a)
    assert type(b) is not type(a) and isinstance(b, nn.Linear)
    parametrize.remove_parametrizations(a, "bias")
    assert b.bias.shape == (2,) and parametrize.is_parametrized(b, "bias")
    assert b.parametrizations.weight.original is not a.parametrizations.weight.original
    c = parametrize.register_parametrization(nn.Linear(2, 2), "weight", Doubled())
    parametrize.register_parametrization(c, "bias", Doubled())
    c.load_state_dict(b.state_dict())
    np.testing.assert_array_equal(c.weight.detach().numpy(), b.weight.detach().numpy())
    d = nn.Linear(2, 2)
    parametrize.transfer_parametrizations_and_params(b, d)
    np.testing.assert_array_equal(d.weight.detach().numpy(), b.weight.detach().numpy())
    assert type(d).__name__ == "ParametrizedLinear"
    with facula.no_grad():
        b.parametrizations.weight.original.zero_()
    assert d.weight.abs().sum().item() > 0


def test_trained_through_a_parametrization():
    facula.manual_seed(0)
    layer = parametrize.register_parametrization(nn.Linear(3, 3, bias=False), "weight",
                                                 Symmetric())
    optimizer = facula.optim.SGD(layer.parameters(), lr=0.3)
    target = facula.tensor([[2.0, 1, 0], [1, 0, -1], [0, -1, 1]])
    x = facula.randn(64, 3)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.mse_loss(layer(x), x @ target).backward()
        optimizer.step()
    np.testing.assert_allclose(layer.weight.detach().numpy(), target.numpy(), atol=1e-3)


# ---------------------------------------------------------------- orthogonal

@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5), (2, 4, 3), (2, 3, 3)], ids=str)
@pytest.mark.parametrize("kind", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("trivial", [True, False])
def test_orthogonal(shape, kind, trivial):
    facula.manual_seed(1)

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(facula.randn(*shape, dtype=facula.float64))

    def check(q):
        q = q.detach().numpy()
        q = q if shape[-2] >= shape[-1] else q.swapaxes(-1, -2)
        eye = q.swapaxes(-1, -2) @ q
        np.testing.assert_allclose(eye, np.broadcast_to(np.eye(eye.shape[-1]), eye.shape),
                                   atol=1e-12)

    m = Holder()
    before = m.weight.detach().clone()
    assert parametrizations.orthogonal(m, "weight", kind, use_trivialization=trivial) is m
    assert m.weight.shape == shape
    check(m.weight)
    loss = (m.weight * facula.arange(1.0, 1 + m.weight.numel(), dtype=facula.float64)
            .reshape(shape)).sum()
    loss.backward()
    original = m.parametrizations.weight.original
    assert original.grad.abs().sum().item() > 0
    with facula.no_grad():
        original -= 0.01 * original.grad
    check(m.weight)
    if trivial or kind == "householder":
        tall = before if shape[-2] >= shape[-1] else before.transpose(-1, -2)
        q, r = np.linalg.qr(tall.numpy())
        q = q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]
        q = q if shape[-2] >= shape[-1] else q.swapaxes(-1, -2)
        m.weight = before                           # the nearest orthogonal matrix by QR
        np.testing.assert_allclose(m.weight.detach().numpy(), q, atol=1e-12)
        m.weight = m.weight.detach()                # one that is orthogonal stays as it is
        np.testing.assert_allclose(m.weight.detach().numpy(), q, atol=1e-12)
    else:
        with pytest.raises(NotImplementedError):
            m.weight = before


@pytest.mark.parametrize("kind", ["matrix_exp", "cayley", "householder"])
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5)], ids=str)
def test_orthogonal_is_pytorchs(kind, shape):
    torch = pytest.importorskip("torch")
    from torch.nn.utils import parametrizations as theirs
    want = torch.nn.Linear(shape[1], shape[0], dtype=torch.float64)
    have = nn.Linear(shape[1], shape[0], dtype=facula.float64)
    theirs.orthogonal(want, orthogonal_map=kind)
    parametrizations.orthogonal(have, orthogonal_map=kind)
    assert repr(have) == repr(want)
    assert list(have.state_dict()) == list(want.state_dict())
    with torch.no_grad():
        want.parametrizations.weight.original += torch.randn(*shape, dtype=torch.float64) * 0.1
    have.load_state_dict({k: facula.tensor(v.numpy()) for k, v in want.state_dict().items()})
    np.testing.assert_allclose(have.weight.detach().numpy(), want.weight.detach().numpy(),
                               atol=1e-12)
    c = np.random.default_rng(0).standard_normal(shape)
    (have.weight * facula.tensor(c)).sum().backward()
    (want.weight * torch.tensor(c)).sum().backward()
    np.testing.assert_allclose(have.parametrizations.weight.original.grad.numpy(),
                               want.parametrizations.weight.original.grad.numpy(), atol=1e-10)


def test_orthogonal_refusals_and_defaults():
    m = parametrizations.orthogonal(nn.Linear(3, 3))
    assert m.parametrizations.weight[0].orthogonal_map == "matrix_exp"
    m = parametrizations.orthogonal(nn.Linear(3, 5))
    assert m.parametrizations.weight[0].orthogonal_map == "householder"
    for call in (lambda: parametrizations.orthogonal(nn.Linear(2, 2), "bias"),
                 lambda: parametrizations.orthogonal(nn.Linear(2, 2), "nothing"),
                 lambda: parametrizations.orthogonal(nn.Linear(2, 2), orthogonal_map="qr")):
        with pytest.raises(ValueError):
            call()
    m = parametrizations.orthogonal(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="shape"):
        m.weight = facula.ones(2, 3)


# ---------------------------------------------------------------- weight and spectral norm

LAYERS = {"linear": (lambda n: n.Linear(4, 3), (2, 4)),
          "conv": (lambda n: n.Conv2d(2, 3, 3), (2, 2, 5, 5)),
          "transposed": (lambda n: n.ConvTranspose1d(2, 3, 2), (2, 2, 5))}


def _pair(name, wrap):
    """The layer of both libraries, with the same weights after `wrap(its nn)`."""
    torch = pytest.importorskip("torch")
    make, shape = LAYERS[name]
    want, have = make(torch.nn), make(nn)
    wrap(torch.nn.utils, want), wrap(nn.utils, have)
    assert list(have.state_dict()) == list(want.state_dict())
    assert repr(have) == repr(want)
    have.load_state_dict({k: facula.tensor(v.numpy()) for k, v in want.state_dict().items()})
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return torch, want, have, x


def _compare(torch, want, have, x, steps=1):
    for _ in range(steps):
        a, b = want(torch.tensor(x)), have(facula.tensor(x))
        np.testing.assert_allclose(b.detach().numpy(), a.detach().numpy(), rtol=2e-4, atol=2e-5)
        (a * a).sum().backward()
        (b * b).sum().backward()
    for (key, p), q in zip(want.named_parameters(), have.parameters(), strict=True):
        np.testing.assert_allclose(q.grad.numpy(), p.grad.numpy(), rtol=1e-3, atol=1e-3,
                                   err_msg=key)
    for (key, p), q in zip(want.named_buffers(), have.buffers(), strict=True):
        np.testing.assert_allclose(q.numpy(), p.numpy(), rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
def test_weight_norm(name, dim):
    _compare(*_pair(name, lambda u, m: u.parametrizations.weight_norm(m, dim=dim)))
    torch, want, have, x = _pair(name, lambda u, m: u.weight_norm(m, dim=dim))
    _compare(torch, want, have, x)
    new = parametrizations.weight_norm(LAYERS[name][0](nn), dim=dim)
    new.load_state_dict(have.state_dict())              # under the old names
    np.testing.assert_allclose(new.weight.detach().numpy(), have.weight.detach().numpy(),
                               rtol=1e-6)
    before = have(facula.tensor(x)).detach().numpy()
    nn.utils.remove_weight_norm(have)
    assert sorted(dict(have.named_parameters())) == ["bias", "weight"]
    assert not have._forward_pre_hooks
    np.testing.assert_allclose(have(facula.tensor(x)).detach().numpy(), before, rtol=1e-5,
                               atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_spectral_norm(name):
    for wrap in (lambda u, m: u.parametrizations.spectral_norm(m),
                 lambda u, m: u.spectral_norm(m, n_power_iterations=2)):
        torch, want, have, x = _pair(name, wrap)
        _compare(torch, want, have, x, 2)               # two forwards before a step
        want.eval(), have.eval()
        _compare(torch, want, have, x)
    before = have(facula.tensor(x)).detach().numpy()
    nn.utils.remove_spectral_norm(have)
    assert sorted(dict(have.named_parameters())) == ["bias", "weight"] and not [*have.buffers()]
    np.testing.assert_allclose(have(facula.tensor(x)).detach().numpy(), before, rtol=1e-5,
                               atol=1e-6)


def test_norms_by_their_meaning():
    facula.manual_seed(3)
    layer = parametrizations.spectral_norm(nn.Linear(6, 5), n_power_iterations=30)
    assert np.linalg.norm(layer.weight.detach().numpy(), 2) == pytest.approx(1, rel=1e-4)
    layer = parametrizations.spectral_norm(nn.Linear(6, 5), "bias")
    assert np.linalg.norm(layer.bias.detach().numpy()) == pytest.approx(1, rel=1e-5)
    layer = parametrizations.weight_norm(nn.Conv1d(2, 3, 4))
    start = layer.weight.detach().numpy()
    with facula.no_grad():
        layer.parametrizations.weight.original0.fill_(2)
    lengths = np.sqrt((layer.weight.detach().numpy() ** 2).sum((1, 2)))
    np.testing.assert_allclose(lengths, [2, 2, 2], rtol=1e-6)
    assert start.shape == layer.weight.shape
    refused = [
        (ValueError, lambda: nn.utils.remove_weight_norm(nn.Linear(2, 2))),
        (ValueError, lambda: nn.utils.remove_spectral_norm(nn.Linear(2, 2))),
        (ValueError, lambda: nn.utils.spectral_norm(nn.Linear(2, 2), n_power_iterations=0)),
        (ValueError, lambda: nn.utils.weight_norm(nn.LazyLinear(2))),
        (IndexError, lambda: parametrizations.spectral_norm(nn.Linear(2, 2), dim=2)),
        (RuntimeError, lambda: nn.utils.weight_norm(nn.utils.weight_norm(nn.Linear(2, 2)))),
        (RuntimeError, lambda: nn.utils.spectral_norm(nn.utils.spectral_norm(nn.Linear(2, 2)))),
    ]
    for kind, call in refused:
        with pytest.raises(kind):
            call()


def test_compiled_steps():
    results = []
    for compiled in (False, True):
        facula.manual_seed(2)
        net = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 6)), nn.Tanh(),
                            parametrizations.spectral_norm(nn.Linear(6, 3)))
        optimizer = facula.optim.SGD(net.parameters(), lr=0.1)

        def step(x, net=net, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (net(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        call = facula.compile(step) if compiled else step
        losses = [call(facula.full((5, 4), 0.1 * k)) for k in range(8)]
        results.append([loss.item() for loss in losses])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5)
    assert call.replays > 3
