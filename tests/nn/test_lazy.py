"""Layers that learn their sizes from the first input, and tensors that have no shape before."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import facula
from facula import nn
from facula.nn.modules.lazy import LazyModuleMixin
from facula.nn.parameter import is_lazy

# (lazy layer, the shape of an input, the layer that it becomes)
LAYERS = {
    "linear": (lambda n: n.LazyLinear(3), (2, 5, 4), lambda n: n.Linear(4, 3)),
    "linear-no-bias": (lambda n: n.LazyLinear(3, bias=False), (4,),
                       lambda n: n.Linear(4, 3, bias=False)),
    "conv1d": (lambda n: n.LazyConv1d(4, 2, groups=2), (2, 6, 5),
               lambda n: n.Conv1d(6, 4, 2, groups=2)),
    "conv1d-alone": (lambda n: n.LazyConv1d(4, 2), (6, 5), lambda n: n.Conv1d(6, 4, 2)),
    "conv2d": (lambda n: n.LazyConv2d(4, (3, 2), 2, padding=1, padding_mode="reflect"),
               (2, 3, 5, 6), lambda n: n.Conv2d(3, 4, (3, 2), 2, padding=1,
                                                padding_mode="reflect")),
    "conv3d": (lambda n: n.LazyConv3d(2, 2, bias=False), (1, 3, 4, 3, 5),
               lambda n: n.Conv3d(3, 2, 2, bias=False)),
    "transposed1d": (lambda n: n.LazyConvTranspose1d(4, 3, 2, output_padding=1, groups=2),
                     (2, 6, 5), lambda n: n.ConvTranspose1d(6, 4, 3, 2, output_padding=1,
                                                            groups=2)),
    "transposed2d": (lambda n: n.LazyConvTranspose2d(2, 2, dilation=2), (2, 3, 4, 5),
                     lambda n: n.ConvTranspose2d(3, 2, 2, dilation=2)),
    "transposed3d": (lambda n: n.LazyConvTranspose3d(2, 2), (3, 2, 3, 2),
                     lambda n: n.ConvTranspose3d(3, 2, 2)),
    "batch1d": (lambda n: n.LazyBatchNorm1d(), (4, 3), lambda n: n.BatchNorm1d(3)),
    "batch2d": (lambda n: n.LazyBatchNorm2d(1e-3, None, bias=False), (2, 3, 4, 4),
                lambda n: n.BatchNorm2d(3, 1e-3, None, bias=False)),
    "batch3d": (lambda n: n.LazyBatchNorm3d(affine=False), (2, 3, 2, 2, 2),
                lambda n: n.BatchNorm3d(3, affine=False)),
    "instance1d": (lambda n: n.LazyInstanceNorm1d(), (2, 3, 5),
                   lambda n: n.InstanceNorm1d(3, affine=True, track_running_stats=True)),
    "instance2d": (lambda n: n.LazyInstanceNorm2d(track_running_stats=False), (2, 3, 4, 4),
                   lambda n: n.InstanceNorm2d(3, affine=True)),
    "instance3d": (lambda n: n.LazyInstanceNorm3d(affine=False), (2, 3, 2, 2, 3),
                   lambda n: n.InstanceNorm3d(3, track_running_stats=True)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_lazy_layer_becomes_the_ordinary_one(name):
    make, shape, ordinary = LAYERS[name]
    lazy, want = make(nn), ordinary(nn)
    assert list(lazy.state_dict()) == list(want.state_dict())
    assert any(is_lazy(t) for t in (*lazy.parameters(), *lazy.buffers()))
    x = facula.tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    facula.manual_seed(5)
    out = lazy(x)
    assert type(lazy) is type(want) and repr(lazy) == repr(want)
    assert not lazy._forward_pre_hooks and not hasattr(lazy, "_initialize_hook")
    assert [(k, tuple(v.shape)) for k, v in lazy.state_dict().items()] == \
        [(k, tuple(v.shape)) for k, v in want.state_dict().items()]
    facula.manual_seed(5)
    want.reset_parameters()
    np.testing.assert_allclose(out.detach().numpy(), want(x).detach().numpy(), rtol=1e-6)
    if out.requires_grad:
        out.sum().backward()
    assert all(p.grad is not None and p.requires_grad for p in lazy.parameters())


@pytest.mark.parametrize("name", LAYERS)
def test_lazy_layers_are_pytorchs(name):
    torch = pytest.importorskip("torch")
    make, shape, _ = LAYERS[name]
    have, want = make(nn), make(torch.nn)
    assert repr(have) == repr(want)
    assert list(have.state_dict()) == list(want.state_dict())
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    a = want(torch.tensor(x))
    # Loading gives the lazy tensors their shapes.
    state = {k: facula.tensor(v.numpy()) for k, v in want.state_dict().items()}
    assert not have.load_state_dict(state).missing_keys
    assert not any(is_lazy(t) for t in have.parameters())
    for key, value in have.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), want.state_dict()[key].numpy())
    want.eval(), have.eval()
    a, b = want(torch.tensor(x)), have(facula.tensor(x))
    assert type(have).__name__ == type(want).__name__
    np.testing.assert_allclose(b.detach().numpy(), a.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_what_has_no_shape_cannot_be_used():
    p = nn.UninitializedParameter()
    for use in (lambda: p + 1, lambda: p.sum(), lambda: facula.ones(2) @ p, lambda: p.numel(),
                lambda: p.ndim, lambda: p.zero_()):
        with pytest.raises(ValueError, match=r"no shape yet"):
            use()
    with pytest.raises(RuntimeError, match="Can't access the shape"):
        p.shape
    assert repr(p) == str(p) == "<UninitializedParameter>" and p.data is p
    assert p.requires_grad and p.is_leaf
    assert isinstance(p, nn.Parameter) and p.dtype is facula.float32
    p.requires_grad_(False).materialize((2, 3), dtype=facula.float64)
    assert type(p) is nn.Parameter and p.shape == (2, 3) and not p.requires_grad
    assert p.dtype is facula.float64
    b = nn.UninitializedBuffer(dtype=facula.int64, persistent=False)
    assert not b.requires_grad and is_lazy(b) and not b.persistent
    b.materialize(())
    assert type(b) is nn.Buffer and b.shape == () and b.dtype is facula.int64
    with pytest.raises(RuntimeError, match="Can't access the shape"):
        facula.save({"p": nn.UninitializedParameter()}, "nowhere")


def test_states_between_lazy_and_ordinary():
    full, lazy, other = nn.LazyLinear(3), nn.LazyLinear(3), nn.LazyLinear(3)
    empty = lazy.state_dict()
    assert all(is_lazy(t) for t in empty.values())
    other.load_state_dict(empty)
    assert is_lazy(other.weight) and type(other) is nn.LazyLinear
    full(facula.ones(2, 4))
    with pytest.raises(RuntimeError, match="was never given one"):
        full.load_state_dict(empty)
    lazy.load_state_dict(full.state_dict())
    assert lazy.weight.shape == (3, 4) and type(lazy) is nn.LazyLinear
    np.testing.assert_array_equal(lazy(facula.ones(2, 4)).detach().numpy(),
                                  full(facula.ones(2, 4)).detach().numpy())
    assert type(lazy) is nn.Linear and lazy.in_features == 4
    bad = nn.Sequential(nn.LazyConv2d(3, 2, groups=2))
    with pytest.raises(ValueError, match="out_channels must be divisible"):
        bad(facula.ones(1, 2, 3, 3))
    with pytest.raises(RuntimeError, match="Expected 3D"):
        nn.LazyConv2d(2, 2)(facula.ones(2, 2))


def test_cast_copy_and_train():
    net = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyBatchNorm1d(), nn.LazyLinear(1))
    net = net.double()
    assert net[0].weight.dtype is facula.float64
    twin = copy.deepcopy(net)
    x = facula.rand(8, 3, dtype=facula.float64)
    net(x)
    assert is_lazy(twin[0].weight) and twin[0]._forward_pre_hooks
    twin(x)
    assert type(twin[0]) is nn.Linear and not twin[0]._forward_pre_hooks
    assert all(p.dtype is facula.float64 for p in (*net.parameters(), *twin.parameters()))
    optimizer = facula.optim.SGD(net.parameters(), lr=0.05)
    y = x.sum(1, keepdim=True)
    first = None
    for _ in range(60):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        optimizer.step()
        first = loss.item() if first is None else first
    assert loss.item() < first / 2


def test_a_lazy_module_of_ones_own():
    class Scale(LazyModuleMixin, nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.UninitializedParameter()
            self.seen = 0

        def initialize_parameters(self, x, times=1):
            if self.has_uninitialized_params():
                self.seen += 1
                self.weight.materialize(x.shape[1:])
                nn.init.constant_(self.weight, times)

        def forward(self, x, times=1):
            return x * self.weight

    class Forgetful(Scale):
        def initialize_parameters(self, x):
            pass

    scale = Scale()
    assert scale(facula.ones(2, 3), times=4).tolist() == [[4, 4, 4]] * 2
    scale(facula.ones(2, 3))
    assert scale.seen == 1 and type(scale) is Scale
    with pytest.raises(RuntimeError, match="has not been fully initialized"):
        Forgetful()(facula.ones(2, 3))


def test_compiled_before_and_after():
    net = nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(1))
    call = facula.compile(net)
    x = facula.rand(3, 2)
    with facula.no_grad():
        first = call(x).numpy()
        for _ in range(4):
            np.testing.assert_allclose(call(x).numpy(), first, rtol=1e-6)
    assert "replayed" in call.explain() and type(net[0]) is nn.Linear
