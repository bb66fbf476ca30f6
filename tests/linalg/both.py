"""One computation in facula and in PyTorch: values, gradients and gradients of gradients."""

from __future__ import annotations

import numpy as np
import pytest

import facula

torch = pytest.importorskip("torch")


def leaf(m, array):
    t = m.tensor(array)
    return t.requires_grad_() if array.dtype.kind in "fc" else t


def parts(value):
    """The tensors of a result that carry gradients, complex ones as pairs of numbers."""
    if isinstance(value, (tuple, list)):
        return [p for v in value for p in parts(v)]
    return [value] if value.dtype in (facula.float64, facula.complex128, torch.float64,
                                      torch.complex128) else []


def loss(m, value, weights):
    total = None
    for p, w in zip(parts(value), weights, strict=True):
        if not p.requires_grad:
            continue
        if p.dtype in (facula.complex128, torch.complex128):
            p = m.view_as_real(p.resolve_conj())
            term = (p * m.tensor(w)).sum()
        else:
            term = (p * m.tensor(w[..., 0])).sum()
        total = term if total is None else total + term
    return total


def run(m, grad, fn, arrays, second):
    """Values, gradients, gradients of gradients (without `second`: None for those)."""
    leaves = [leaf(m, a) for a in arrays]
    value = fn(m, *leaves)
    rng = np.random.default_rng(7)
    weights = [rng.normal(size=(*p.shape, 2)) for p in parts(value)]
    inputs = [t for t in leaves if t.requires_grad]
    out = loss(m, value, weights)
    values = [np.asarray(p.detach().resolve_conj().numpy()) for p in parts(value)]
    if out is None:
        return values, [], []
    first = grad(out, inputs, create_graph=second, allow_unused=True)
    seconds = []
    if second:
        moves = [rng.normal(size=(*t.shape, 2)) for t in inputs]
        again = loss(m, [g for g in first if g is not None],
                     [v for v, g in zip(moves, first) if g is not None])
        if again is not None and again.requires_grad:
            seconds = grad(again, inputs, allow_unused=True)
    return values, first, seconds


def array(t, like):
    """A gradient as an ndarray; none is zeros."""
    if t is None:
        return np.zeros_like(like)
    t = t.detach().resolve_conj()
    return np.asarray(t.numpy(force=True) if isinstance(t, torch.Tensor) else t.numpy())


def compare(fn, arrays, second=True, rtol=1e-8, atol=1e-9):
    """Assert that fn(module, *tensors) is the same in both, with its derivatives."""
    from facula.autograd import grad
    ours = run(facula, grad, fn, arrays, second)
    theirs = run(torch, torch.autograd.grad, fn, arrays, second)
    likes = [a for a in arrays if a.dtype.kind in "fc"]
    assert len(ours[0]) == len(theirs[0])
    for a, b in zip(ours[0], theirs[0]):
        np.testing.assert_allclose(a, b, rtol, atol)
        assert a.dtype == b.dtype
    for which in (1, 2):
        if not theirs[which]:
            continue
        mine = ours[which] or [None] * len(likes)
        for a, b, like in zip(mine, theirs[which], likes, strict=True):
            scale = np.abs(array(b, like)).max(initial=1.0)
            np.testing.assert_allclose(array(a, like), array(b, like), rtol * 100,
                                       atol * 100 * scale, err_msg=f"derivative {which}")
