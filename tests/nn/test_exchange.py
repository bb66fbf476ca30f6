"""State dictionaries to PyTorch and from it, through files."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import nn


def _f(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


# (the model of a library's nn, an input)
MODELS = {
    "cnn": (lambda n: n.Sequential(n.Conv2d(3, 6, 3, groups=3), n.BatchNorm2d(6), n.PReLU(6),
                                   n.ConvTranspose2d(6, 2, 2, stride=2), n.GroupNorm(2, 2),
                                   n.Flatten(), n.Linear(2 * 8 * 8, 5)), _f(2, 3, 6, 6)),
    "norms": (lambda n: n.Sequential(n.LayerNorm((4, 5)), n.InstanceNorm1d(4, affine=True),
                                     n.RMSNorm(5), n.BatchNorm1d(4, momentum=None)),
              _f(3, 4, 5)),
    "lstm": (lambda n: n.LSTM(4, 5, 2, bidirectional=True, proj_size=3), _f(6, 2, 4)),
    "gru": (lambda n: n.GRU(4, 5, batch_first=True, bias=False), _f(6, 2, 4)),
    "transformer": (lambda n: n.TransformerEncoder(
        n.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 2,
        enable_nested_tensor=False), _f(2, 5, 8)),
    "attention": (lambda n: n.MultiheadAttention(8, 2, kdim=8, vdim=8), None),
    "normalised": (lambda n: n.Sequential(
        n.utils.parametrizations.weight_norm(n.Linear(4, 3)),
        n.utils.parametrizations.spectral_norm(n.Linear(3, 3)), n.utils.spectral_norm(
            n.Linear(3, 2)), n.utils.parametrizations.orthogonal(n.Linear(2, 2))), _f(5, 4)),
    "lazy": (lambda n: n.Sequential(n.LazyLinear(4), n.LazyBatchNorm1d()), _f(5, 3)),
    "embedding": (lambda n: n.Sequential(n.Embedding(7, 3, padding_idx=1), n.Bilinear(3, 3, 2)),
                  None),
}


def _start(torch, name):
    """PyTorch's model with statistics and buffers that are not as they were made."""
    make, x = MODELS[name]
    torch.manual_seed(1)
    model = make(torch.nn)
    if x is not None:
        model(torch.tensor(x))
    return make, model.eval(), x


def _same(name, want, have, x):
    assert list(have.state_dict()) == list(want.state_dict())
    for key, value in want.state_dict().items():
        ours = have.state_dict()[key]
        assert str(value.dtype).rpartition(".")[2] == ours.dtype.name
        np.testing.assert_array_equal(ours.numpy(), value.numpy(), err_msg=key)
    if x is None:
        return
    import torch
    a, b = want.eval()(torch.tensor(x)), have.eval()(facula.tensor(x))
    a, b = (v[0] if isinstance(v, tuple) else v for v in (a, b))
    np.testing.assert_allclose(b.detach().numpy(), a.detach().numpy(), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("form", ["zip", "row", "safetensors"])
@pytest.mark.parametrize("name", MODELS)
def test_from_pytorch(tmp_path, name, form):
    torch = pytest.importorskip("torch")
    make, model, x = _start(torch, name)
    path = tmp_path / "model"
    if form == "safetensors":
        writer = pytest.importorskip("safetensors.torch")
        writer.save_file({k: v.contiguous().clone() for k, v in model.state_dict().items()}, path)
    else:
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=form == "zip")
    have = make(nn)
    state = facula.load(path)
    keys = have.load_state_dict(state)
    assert not keys.missing_keys and not keys.unexpected_keys
    _same(name, model, have, x)


@pytest.mark.parametrize("name", MODELS)
def test_to_pytorch(tmp_path, name):
    torch = pytest.importorskip("torch")
    reader = pytest.importorskip("safetensors.torch")
    make, x = MODELS[name]
    facula.manual_seed(1)
    model = make(nn)
    if x is not None:
        model(facula.tensor(x))
    path = tmp_path / "model.safetensors"
    facula.save(model.state_dict(), path)
    want = make(torch.nn)
    want.load_state_dict(reader.load_file(path))
    _same(name, want, model.eval(), x)


def test_a_checkpoint_with_more_than_the_model(tmp_path):
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(4, 3)).sum().backward()
        optimizer.step()
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 2}, path)
    found = facula.load(path)
    have = nn.Linear(3, 2)
    have.load_state_dict(found["model"])
    ours = facula.optim.Adam(have.parameters(), lr=0.5)
    ours.load_state_dict(found["optimizer"])
    for lib, net, o in ((torch, model, optimizer), (facula, have, ours)):
        o.zero_grad()
        net(lib.ones(4, 3)).sum().backward()
        o.step()
    assert found["epoch"] == 2
    np.testing.assert_allclose(have.weight.detach().numpy(), model.weight.detach().numpy(),
                               rtol=1e-5)
