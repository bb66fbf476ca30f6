"""Arguments by the names PyTorch gives them, and by the further names it takes."""

import inspect

import numpy as np
import pytest

import facula

X = np.arange(6, dtype=np.float32).reshape(2, 3)

CALLS = [
    (lambda x: x.reshape(shape=(3, 2)), lambda x: x.reshape(3, 2)),
    (lambda x: facula.reshape(x, shape=(3, 2)), lambda x: x.reshape(3, 2)),
    (lambda x: x[:1, :1].reshape(shape=()), lambda x: x[0, 0]),
    (lambda x: x.view(size=(3, 2)), lambda x: x.view(3, 2)),
    (lambda x: x.view(dtype=facula.int32), lambda x: x.view(facula.int32)),
    (lambda x: x.permute(dims=(1, 0)), lambda x: x.T),
    (lambda x: facula.permute(x, dims=(1, 0)), lambda x: x.T),
    (lambda x: x.expand(size=(4, 2, 3)), lambda x: x.expand(4, 2, 3)),
    (lambda x: x.repeat(repeats=(2, 1)), lambda x: x.repeat(2, 1)),
    (lambda x: x.tile(dims=(2, 1)), lambda x: x.tile(2, 1)),
    (lambda x: facula.tile(x, dims=[2]), lambda x: x.repeat(1, 2)),
    (lambda x: facula.cat([x, x], axis=1), lambda x: facula.cat([x, x], 1)),
    (lambda x: facula.stack([x, x], axis=-1), lambda x: facula.stack([x, x], -1)),
    (lambda x: x.unsqueeze(axis=1), lambda x: x.unsqueeze(1)),
    (lambda x: x[None].squeeze(axis=0), lambda x: x),
    (lambda x: facula.unbind(x, axis=1)[2], lambda x: x[:, 2]),
    (lambda x: facula.swapaxes(x, axis0=0, axis1=1), lambda x: x.T),
    (lambda x: x.swapdims(dim0=0, dim1=1), lambda x: x.T),
    (lambda x: facula.isin(x, test_element=1), lambda x: x == 1),
    (lambda x: facula.isin(element=1.0, test_elements=x), lambda x: facula.tensor(True)),
    (lambda x: facula.tensor_split(x, sections=2)[1], lambda x: x[1:]),
    (lambda x: x.tensor_split(indices=(1,), dim=1)[1], lambda x: x[:, 1:]),
    (lambda x: x.tensor_split(tensor_indices_or_sections=facula.tensor(2))[0], lambda x: x[:1]),
    (lambda x: facula.hsplit(x, sections=3)[2], lambda x: x[:, 2:]),
    (lambda x: facula.addmm(x[:, :2], mat1=x, mat2=x.T), lambda x: x[:, :2] + x @ x.T),
    (lambda x: x[:, 0].addmv(mat=x, vec=x[1], alpha=2), lambda x: x[:, 0] + 2 * (x @ x[1])),
    (lambda x: facula.addr(x, vec1=x[:, 0], vec2=x[1]), lambda x: x + x[:, :1] * x[1]),
    (lambda x: x.clone()[None, :, :2].baddbmm_(batch1=x[None], batch2=x.T[None]),
     lambda x: (x[:, :2] + x @ x.T)[None]),
    (lambda x: facula.addbmm(x[:, :2], batch1=x[None], batch2=x.T[None], beta=0),
     lambda x: x @ x.T),
]


@pytest.mark.parametrize("k", range(len(CALLS)))
def test_by_name(k):
    by_name, otherwise = CALLS[k]
    x = facula.tensor(X)
    got, want = by_name(x), otherwise(x)
    assert got.dtype is want.dtype
    np.testing.assert_array_equal(got.numpy(), want.numpy())


def test_gradients_flow_by_name():
    x = facula.tensor(X, requires_grad=True)
    y = facula.cat([x, x.permute(dims=(1, 0)).reshape(shape=(2, 3))], axis=0)
    (y * facula.arange(12.0).reshape(4, 3)).sum().backward()
    w = np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(x.grad.numpy(), w[:2] + w[2:].reshape(3, 2).T)


def test_two_names_for_one_argument():
    x = facula.tensor(X)
    with pytest.raises(TypeError, match=r"more than one value.*dim"):
        facula.sum(x, dim=0, axis=0)
    with pytest.raises(TypeError, match=r"more than one value.*indices, sections"):
        facula.tensor_split(x, indices=(1,), sections=2)


def test_unknown_names_are_refused():
    with pytest.raises(TypeError, match="side"):
        facula.tensor(X).permute(side=(1, 0))
    with pytest.raises(TypeError, match="side"):
        facula.cat([facula.tensor(X)], side=0)


def test_the_signature_shows_pytorchs_names():
    assert list(inspect.signature(facula.baddbmm).parameters)[:3] == ["input", "batch1", "batch2"]
    assert list(inspect.signature(facula.addmm).parameters)[:3] == ["input", "mat1", "mat2"]
    assert list(inspect.signature(facula.addmv).parameters)[:3] == ["input", "mat", "vec"]


def test_pytorch_takes_them_too():
    torch = pytest.importorskip("torch")
    x = torch.tensor(X)
    for k, (by_name, _) in enumerate(CALLS):
        globals()["facula"], kept = torch, facula
        try:
            want = by_name(x)
        finally:
            globals()["facula"] = kept
        np.testing.assert_array_equal(by_name(facula.tensor(X)).numpy(), want.numpy(), str(k))
