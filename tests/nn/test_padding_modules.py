"""Padding, resampling and rearranging modules, bags and CTC against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import nn


@pytest.mark.parametrize("kind", ["Constant", "Zero", "Reflection", "Replication", "Circular"])
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("batched", [True, False])
def test_padding(kind, dims, batched):
    torch = pytest.importorskip("torch")
    x = np.arange(2 * 3 ** dims, dtype=np.float32).reshape(2, *(3,) * dims)
    x = x[None] if batched else x
    for padding in (1, tuple(range(1, 3)) * dims):
        args = (padding, 3.5) if kind == "Constant" else (padding,)
        found = []
        for lib in (torch, facula):
            m = getattr(lib.nn, f"{kind}Pad{dims}d")(*args)
            found.append((repr(m), m(lib.tensor(x)).numpy()))
        assert found[0][0] == found[1][0]
        np.testing.assert_array_equal(found[1][1], found[0][1])


def test_circular_dimensions():
    with pytest.raises(ValueError, match="expected 2D or 3D"):
        nn.CircularPad1d(1)(facula.ones(3))


MODULES = {
    "upsample": (lambda n: n.Upsample(scale_factor=2, mode="bilinear"), (1, 2, 3, 3)),
    "size": (lambda n: n.Upsample((5, 2)), (1, 2, 3, 3)),
    "nearest": (lambda n: n.UpsamplingNearest2d(scale_factor=2), (1, 2, 3, 3)),
    "bilinear": (lambda n: n.UpsamplingBilinear2d(size=5), (1, 2, 3, 3)),
    "shuffle": (lambda n: n.PixelShuffle(2), (1, 8, 2, 3)),
    "unshuffle": (lambda n: n.PixelUnshuffle(2), (1, 2, 4, 6)),
    "channels": (lambda n: n.ChannelShuffle(2), (1, 4, 2, 3)),
    "unfold": (lambda n: n.Unfold((2, 3), padding=1), (1, 2, 4, 5)),
    "fold": (lambda n: n.Fold((4, 4), (2, 2)), (1, 8, 9)),
}


@pytest.mark.parametrize("name", MODULES)
def test_rearranging(name):
    torch = pytest.importorskip("torch")
    make, shape = MODULES[name]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    want, have = make(torch.nn), make(nn)
    assert repr(have) == repr(want)
    np.testing.assert_allclose(have(facula.tensor(x)).numpy(), want(torch.tensor(x)).numpy(),
                               rtol=1e-5, atol=1e-6)


def test_embedding_bag():
    torch = pytest.importorskip("torch")
    found = []
    table = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    for lib in (torch, facula):
        m = lib.nn.EmbeddingBag(5, 3, mode="sum", padding_idx=-1)
        assert list(m.state_dict()) == ["weight"] and (m.weight[4].detach().numpy() == 0).all()
        m.load_state_dict({"weight": lib.tensor(table)})
        out = m(lib.tensor([0, 2, 4, 1]), lib.tensor([0, 3]))
        fixed = lib.nn.EmbeddingBag.from_pretrained(lib.tensor(table))
        assert not fixed.weight.requires_grad
        found.append((repr(m), out.detach().numpy(), fixed(lib.tensor([[0, 1]])).numpy()))
        with pytest.raises(AssertionError, match="padding_idx"):
            lib.nn.EmbeddingBag(5, 3, padding_idx=5)
    assert found[1][0] == found[0][0]
    for want, have in zip(found[0][1:], found[1][1:], strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-6)


def test_ctc_loss():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).standard_normal((5, 2, 4)).astype(np.float32)
    found = []
    for lib in (torch, facula):
        m = lib.nn.CTCLoss(blank=1, zero_infinity=True)
        found.append((repr(m), m(lib.tensor(x).log_softmax(2), lib.tensor([[2, 3], [0, 2]]),
                                 lib.tensor([5, 4]), lib.tensor([2, 1])).numpy()))
    assert found[0][0] == found[1][0]
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-5)
