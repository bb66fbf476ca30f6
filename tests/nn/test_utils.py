"""Fused layers, modules without starting values, calls with other parameters."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import nn
from facula.nn.utils import stateless


def _ready(norm):
    """A batch normalisation in evaluation, with statistics and weights that are not 0 and 1."""
    facula.manual_seed(1)
    with facula.no_grad():
        for t in (*norm.parameters(), norm.running_mean, norm.running_var):
            t.copy_(facula.rand(t.shape, dtype=t.dtype) + 0.5)
    return norm.eval()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_fused_layers_compute_the_same(affine, bias):
    pairs = [
        (nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4, affine=affine), (2, 3, 6, 6), False),
        (nn.Conv1d(4, 4, 2, groups=2, bias=bias), nn.BatchNorm1d(4, affine=affine), (2, 4, 6),
         False),
        (nn.ConvTranspose2d(3, 4, 2, bias=bias), nn.BatchNorm2d(4, affine=affine), (2, 3, 4, 4),
         True),
        (nn.Linear(3, 4, bias=bias), nn.BatchNorm1d(4, affine=affine), (5, 3), None),
    ]
    for layer, norm, shape, transpose in pairs:
        _ready(norm)
        layer.eval()
        fused = nn.utils.fuse_linear_bn_eval(layer, norm) if transpose is None else \
            nn.utils.fuse_conv_bn_eval(layer, norm, transpose)
        x = facula.rand(shape)
        assert type(fused) is type(layer) and fused is not layer
        assert isinstance(fused.bias, nn.Parameter) and fused.weight.requires_grad
        np.testing.assert_allclose(fused(x).detach().numpy(), norm(layer(x)).detach().numpy(),
                                   rtol=1e-4, atol=1e-5)
        with pytest.raises(AssertionError, match="eval"):
            nn.utils.fuse_conv_bn_eval(layer.train(), norm)
    with pytest.raises(AssertionError, match="running"):
        nn.utils.fuse_conv_bn_eval(nn.Conv1d(2, 2, 1).eval(),
                                   nn.BatchNorm1d(2, track_running_stats=False).eval())
    with pytest.raises(AssertionError, match="out_features"):
        nn.utils.fuse_linear_bn_eval(nn.Linear(2, 3).eval(), nn.BatchNorm1d(2).eval())


def test_fused_weights_are_pytorchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    w, b, mean, var, scale, shift = (rng.random(s).astype(np.float32) + 0.5 for s in (
        (4, 3, 2), 4, 4, 4, 4, 4))
    for lib in (torch, facula):
        call = lib.nn.utils.fuse_conv_bn_weights
        out = call(*map(lib.tensor, (w, b, mean, var)), 1e-5, *map(lib.tensor, (scale, shift)))
        if lib is torch:
            want = out
    for p, q in zip(out, want):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-5)
        assert p.requires_grad == q.requires_grad


def test_modules_without_starting_values():
    layer = nn.utils.skip_init(nn.Linear, 3, 4, bias=False, dtype=facula.float64)
    assert layer.weight.shape == (4, 3) and layer.weight.dtype is facula.float64
    assert layer.bias is None and layer.weight.requires_grad
    assert layer(facula.ones(2, 3, dtype=facula.float64)).shape == (2, 4)
    for bad in (nn.ReLU, int, nn.Linear(1, 1)):
        with pytest.raises(RuntimeError):
            nn.utils.skip_init(bad)


def test_modules_given_new_memory():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    weight = net[0].weight
    assert net.to_empty(device="cpu") is net
    assert net[0].weight is weight and weight.shape == (3, 2) and weight.requires_grad
    assert net[1].num_batches_tracked.dtype is facula.int64
    with pytest.raises(NotImplementedError, match="Queue"):
        net.share_memory()
    with pytest.raises(RuntimeError, match="CPU"):
        net.cuda()


def test_calls_with_other_parameters():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2, bias=False)
            self.b = nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight
            self.register_buffer("count", facula.zeros(()))

        def forward(self, x, extra=0):
            self.count = self.count + 1
            return self.b(self.a(x)) + extra

    net = Tied()
    own, w = net.a.weight, facula.eye(2).mul(2).requires_grad_()
    x = facula.ones(1, 2)
    out = stateless.functional_call(net, {"a.weight": w}, x, {"extra": 1})
    assert out.tolist() == [[5, 5]] and net.a.weight is own and net.b.weight is own
    out.sum().backward()
    assert w.grad is not None and own.grad is None
    given = {"a.weight": w, "count": facula.full((), 5.0)}
    out = stateless.functional_call(net, given, (x,), tie_weights=False)
    assert net.count.item() == 1 and given["count"].item() == 6     # once, in the first call
    np.testing.assert_allclose(out.detach().numpy(), 2 * x.numpy() @ own.detach().numpy().T,
                               rtol=1e-6)
    with pytest.raises(ValueError, match="tied"):
        stateless.functional_call(net, {"a.weight": w, "b.weight": w * 1}, x)
    with pytest.raises(RuntimeError, match=r"Missing key\(s\): 'count'"):
        stateless.functional_call(net, {"a.weight": w}, x, strict=True)
    with pytest.raises(RuntimeError, match="Unexpected"):
        stateless.functional_call(net, {"c": w}, x, strict=True)
    with pytest.raises(AttributeError):
        stateless.functional_call(net, {"c": w}, x)
    with pytest.raises(TypeError):
        stateless.functional_call(net, {"a.weight": 3}, x)
    with pytest.raises(RuntimeError):                   # what the call raises puts all back, too
        stateless.functional_call(net, {"a.weight": facula.ones(2, 3)}, x)
    assert net.a.weight is own and net.b.weight is own and net.count.item() == 2


def test_calls_with_other_parameters_are_pytorchs():
    torch = pytest.importorskip("torch")
    from torch.func import functional_call
    rng = np.random.default_rng(0)
    values = {"0.weight": rng.random((3, 2)), "1.running_mean": rng.random(3),
              "1.weight": rng.random(3)}
    x = rng.random((4, 2)).astype(np.float32)
    results = []
    for lib, call in ((torch, functional_call), (facula, stateless.functional_call)):
        net = lib.nn.Sequential(lib.nn.Linear(2, 3), lib.nn.BatchNorm1d(3))
        with lib.no_grad():
            net[0].bias.fill_(0.5)
        given = {k: lib.tensor(v.astype(np.float32)) for k, v in values.items()}
        out = call(net, given, lib.tensor(x))
        results.append((out.detach().numpy(), given["1.running_mean"].numpy(),
                        net[1].running_mean.numpy()))
    for a, b in zip(*results):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)
