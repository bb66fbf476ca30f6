"""Modules: names, printing, state dictionaries and hooks against PyTorch's."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import facula
from facula import nn

MODELS = {
    "mlp": lambda n: n.Sequential(n.Flatten(), n.Linear(12, 5), n.ReLU(),
                                  n.Linear(5, 3, bias=False)),
    "nested": lambda n: n.Sequential(n.Sequential(n.Linear(2, 2), n.Tanh()), n.Identity()),
    "norms": lambda n: n.Sequential(n.BatchNorm1d(4), n.LayerNorm(4), n.GroupNorm(2, 4),
                                    n.RMSNorm(4), n.InstanceNorm1d(4, affine=True)),
    "norms-2": lambda n: n.Sequential(n.BatchNorm2d(3, affine=False),
                                      n.BatchNorm1d(3, track_running_stats=False),
                                      n.LayerNorm((2, 3), bias=False), n.LocalResponseNorm(3)),
    "activations": lambda n: n.Sequential(
        n.ReLU(inplace=True), n.ReLU6(), n.ELU(0.5), n.SELU(), n.CELU(), n.LeakyReLU(0.2),
        n.PReLU(3), n.RReLU(), n.GELU(), n.GELU("tanh"), n.SiLU(), n.Mish(), n.Softplus(2),
        n.Softsign(), n.Softshrink(), n.Hardshrink(), n.Tanhshrink(), n.Hardtanh(-2, 2),
        n.Hardsigmoid(), n.Hardswish(), n.Threshold(0.1, 20), n.GLU(), n.LogSigmoid(),
        n.Softmax(dim=1), n.Softmin(dim=1), n.LogSoftmax(dim=1), n.Softmax2d(), n.Sigmoid()),
    "dropout": lambda n: n.Sequential(n.Dropout(0.3), n.Dropout1d(), n.Dropout2d(),
                                      n.Dropout3d(), n.AlphaDropout(), n.FeatureAlphaDropout()),
    "losses": lambda n: n.ModuleList([
        n.MSELoss(), n.CrossEntropyLoss(label_smoothing=0.1), n.BCELoss(), n.L1Loss(),
        n.BCEWithLogitsLoss(), n.NLLLoss(), n.KLDivLoss(), n.HuberLoss(), n.SmoothL1Loss(),
        n.TripletMarginLoss(), n.GaussianNLLLoss(), n.PoissonNLLLoss(), n.MultiMarginLoss(),
        n.TripletMarginWithDistanceLoss(swap=True),
        n.LinearCrossEntropyLoss(3, 4, out_features=(2,), bias=True)]),
    "embedding": lambda n: n.ModuleDict({"a": n.Embedding(5, 3, padding_idx=1, max_norm=2.0),
                                         "b": n.Bilinear(2, 3, 4)}),
    "list": lambda n: n.ModuleList([n.Linear(2, 2) for _ in range(3)] + [n.ReLU()]),
    "others": lambda n: n.Sequential(n.Unflatten(1, (2, 3)), n.CosineSimilarity(),
                                     n.PairwiseDistance(3.0)),
    "empty": lambda n: n.Sequential(n.ModuleList(), n.Sequential(), n.ModuleDict()),
}


@pytest.mark.parametrize("name", MODELS)
def test_repr_and_state_dict_keys(name):
    torch = pytest.importorskip("torch")
    want, have = MODELS[name](torch.nn), MODELS[name](nn)
    assert repr(have) == repr(want)
    assert list(have.state_dict()) == list(want.state_dict())
    for key, value in want.state_dict().items():
        assert tuple(have.state_dict()[key].shape) == tuple(value.shape)
    assert [n for n, _ in have.named_modules()] == [n for n, _ in want.named_modules()]
    assert [n for n, _ in have.named_parameters()] == [n for n, _ in want.named_parameters()]
    assert [n for n, _ in have.named_buffers()] == [n for n, _ in want.named_buffers()]



@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2), (2, 3, 0)])
def test_batch_norm_of_nothing_changes_no_statistics(shape):
    layer = nn.BatchNorm1d(3, affine=False)
    out = layer(facula.zeros(*shape))
    assert out.shape == shape
    assert layer.running_mean.tolist() == [0] * 3 and layer.running_var.tolist() == [1] * 3
    assert layer.num_batches_tracked.item() == 1


@pytest.mark.parametrize("name,shape", [("mlp", (4, 3, 4)), ("nested", (5, 2))])
def test_same_weights_same_results(name, shape):
    torch = pytest.importorskip("torch")
    want, have = MODELS[name](torch.nn), MODELS[name](nn)
    have.load_state_dict({k: facula.tensor(v.numpy()) for k, v in want.state_dict().items()})
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    a, b = want(torch.tensor(x)), have(facula.tensor(x))
    np.testing.assert_allclose(b.detach().numpy(), a.detach().numpy(), rtol=1e-5, atol=1e-6)
    a.sum().backward()
    b.sum().backward()
    for (key, p), q in zip(want.named_parameters(), have.parameters(), strict=True):
        np.testing.assert_allclose(q.grad.numpy(), p.grad.numpy(), rtol=1e-5, atol=1e-6,
                                   err_msg=key)


@pytest.mark.parametrize("kw", [{}, {"momentum": None}, {"affine": False},
                                {"track_running_stats": False}])
def test_batch_norm_in_training_and_evaluation(kw):
    torch = pytest.importorskip("torch")
    want, have = torch.nn.BatchNorm1d(3, **kw), nn.BatchNorm1d(3, **kw)
    rng = np.random.default_rng(1)
    for _ in range(3):
        x = rng.standard_normal((4, 3)).astype(np.float32)
        a, b = want(torch.tensor(x)), have(facula.tensor(x))
        np.testing.assert_allclose(b.detach().numpy(), a.detach().numpy(), atol=1e-5)
    want.eval(), have.eval()
    a, b = want(torch.tensor(x)), have(facula.tensor(x))
    np.testing.assert_allclose(b.detach().numpy(), a.detach().numpy(), atol=1e-5)
    for key, value in want.state_dict().items():
        np.testing.assert_allclose(have.state_dict()[key].numpy(), value.numpy(), atol=1e-5)


def test_load_state_dict_messages():
    torch = pytest.importorskip("torch")
    texts = []
    for lib, module in ((torch, torch.nn), (facula, nn)):
        m = module.Sequential(module.Linear(2, 3), module.ReLU(), module.Linear(3, 1))
        wrong = {"0.weight": lib.zeros(4, 2), "0.bias": lib.zeros(3), "2.weight": lib.zeros(1, 3),
                 "extra.weight": lib.zeros(1), "0.more": lib.zeros(1)}
        with pytest.raises(RuntimeError) as info:
            m.load_state_dict(wrong)
        texts.append(str(info.value).replace("torch.Size", "facula.Size"))
        del wrong["0.weight"]
        keys = m.load_state_dict(wrong, strict=False)
        texts.append((list(keys.missing_keys), list(keys.unexpected_keys)))
        assert repr(m.load_state_dict(m.state_dict())) == "<All keys matched successfully>"
    assert texts[2] == texts[0] and texts[3] == texts[1]


def test_registration():
    m = nn.Module()
    with pytest.raises(KeyError, match="name can"):
        m.add_module("a.b", nn.ReLU())
    with pytest.raises(TypeError, match="not a Module subclass"):
        m.add_module("a", 3)
    with pytest.raises(KeyError, match="already exists"):
        m.register_buffer("forward", None)
    m.register_buffer("kept", facula.ones(2))
    m.register_buffer("passing", facula.ones(2), persistent=False)
    m.register_parameter("none", None)
    m.w = nn.Parameter(facula.ones(2))
    assert list(m.state_dict()) == ["w", "kept"]
    assert [n for n, _ in m.named_buffers()] == ["kept", "passing"]
    with pytest.raises(TypeError, match="cannot assign"):
        m.w = facula.ones(2)
    del m.w
    assert not list(m.parameters())
    with pytest.raises(AttributeError, match="has no attribute 'w'"):
        m.w
    with pytest.raises(AttributeError, match=r"before Module\.__init__"):
        type("Bad", (nn.Module,), {"__init__": lambda self: setattr(self, "a", nn.ReLU())})()


def test_containers():
    s = nn.Sequential(nn.ReLU(), nn.Tanh())
    s.append(nn.Sigmoid())
    assert len(s) == 3 and isinstance(s[-1], nn.Sigmoid) and len(s[1:]) == 2
    assert len(s + nn.Sequential(nn.ReLU())) == 4 and len(s * 2) == 6
    d = nn.ModuleDict([("a", nn.ReLU())])
    d["b"] = nn.Tanh()
    assert "b" in d and list(d) == ["a", "b"] and isinstance(d.pop("a"), nn.ReLU)
    ps = nn.ParameterList([facula.ones(2), facula.ones(3)])
    ps.append(facula.ones(1))
    assert [tuple(p.shape) for p in ps] == [(2,), (3,), (1,)] and isinstance(ps[0], nn.Parameter)
    assert list(ps.state_dict()) == ["0", "1", "2"] and len(ps[1:]) == 2
    pd = nn.ParameterDict({"x": facula.ones(2)})
    pd["y"] = facula.ones(3)
    assert list(pd.state_dict()) == ["x", "y"] and pd.get("z") is None
    assert pd["x"].requires_grad and list(pd.keys()) == ["x", "y"]
    with pytest.raises(IndexError, match="out of range"):
        s[5]
    with pytest.raises(NotImplementedError, match="missing the required"):
        nn.ModuleList([nn.ReLU()])(facula.ones(1))


def test_hooks_run_in_order_and_may_change_values():
    m = nn.Linear(2, 2, bias=False)
    facula.nn.init.ones_(m.weight)
    seen = []
    handles = [
        m.register_forward_pre_hook(lambda mod, args: (seen.append("pre"), (args[0] * 2,))[1]),
        m.register_forward_hook(lambda mod, args, out: (seen.append("post"), out + 1)[1]),
        m.register_full_backward_pre_hook(lambda mod, g: seen.append("back-pre")),
        m.register_full_backward_hook(
            lambda mod, gi, go: seen.append(("back", tuple(gi[0].shape), tuple(go[0].shape))))]
    x = facula.ones(3, 2, requires_grad=True)
    y = m(x)
    assert y.tolist() == [[5.0, 5.0]] * 3
    y.sum().backward()
    assert seen == ["pre", "post", "back-pre", ("back", (3, 2), (3, 2))]
    for h in handles:
        h.remove()
    assert m(x).tolist() == [[2.0, 2.0]] * 3 and len(seen) == 4


def test_modes_casts_copies_and_sharing():
    m = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.BatchNorm1d(2))
    assert m.eval() is m and not any(c.training for c in m.modules())
    m.double()
    assert m[0].weight.dtype is facula.float64
    assert m[2].num_batches_tracked.dtype is facula.int64
    m.float()
    twin = copy.deepcopy(m)
    with facula.no_grad():
        twin[0].weight.fill_(7)
    assert not np.any(m[0].weight.detach().numpy() == 7)
    shared = nn.Sequential(m[0], m[0])
    assert len(list(shared.parameters())) == 2
    assert list(shared.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    m.requires_grad_(False)
    assert not any(p.requires_grad for p in m.parameters())
    m.apply(lambda c: setattr(c, "mark", 1))
    assert all(c.mark == 1 for c in m.modules())
    m.zero_grad()


def test_dropout_statistics_and_modes():
    facula.manual_seed(0)
    x = facula.ones(200, 50)
    m = nn.Dropout(0.3)
    y = m(x).numpy()
    assert set(np.unique(y)) == {np.float32(0.0), np.float32(1 / 0.7)}
    assert abs((y == 0).mean() - 0.3) < 0.02
    assert m.eval()(x) is x
    facula.manual_seed(0)
    np.testing.assert_array_equal(m.train()(x).numpy(), y)
    assert not np.array_equal(m(x).numpy(), y)
    channels = nn.Dropout2d(0.5)(facula.ones(8, 6, 3, 3)).numpy()
    flat = channels.reshape(48, 9)
    assert np.all(flat == flat[:, :1]) and 0 < (flat[:, 0] == 0).sum() < 48
    z = nn.AlphaDropout(0.2)(facula.randn(400, 100)).numpy()
    assert abs(z.mean()) < 0.03 and abs(z.std() - 1) < 0.03
    w = facula.ones(5, 5, requires_grad=True)
    out = nn.functional.dropout(w, 0.5)
    out.sum().backward()
    np.testing.assert_array_equal(w.grad.numpy(), out.detach().numpy())


def test_training_a_small_network():
    """Cross-entropy goes down, and the state dictionary carries the result over."""
    facula.manual_seed(1)
    x = facula.randn(60, 4)
    y = (x[:, 0] > x[:, 1]).long()
    make = lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    model = make()
    o = facula.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    for _ in range(30):
        o.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        o.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    again = make()
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(again(x).detach().numpy(), model(x).detach().numpy())
