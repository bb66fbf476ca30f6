"""Dual tensors: `autograd.forward_ad`."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import autograd
from facula.autograd.forward_ad import (
    dual_level,
    enter_dual_level,
    exit_dual_level,
    make_dual,
    unpack_dual,
)


def numbers(*shape, seed=0):
    return facula.tensor(np.random.default_rng(seed).uniform(0.3, 1.7, shape))


def close(got, want):
    np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-9, atol=1e-12)


def test_a_tangent_is_carried_along():
    x, v = numbers(3), numbers(3, seed=1)
    with dual_level():
        dual = make_dual(x, v)
        out = dual.sin() * x
        value, slope = unpack_dual(out)
        close(slope, x.cos() * v * x)                 # computed inside the level
        assert unpack_dual(x).tangent is None and unpack_dual(facula.ones(2)).tangent is None
        close(unpack_dual(dual).tangent, v)
        assert unpack_dual(slope).tangent is None and unpack_dual(value).tangent is None
        y = out * 2
        if y.sum() > 0:                               # values can be looked at
            y.add_(dual)
        assert unpack_dual(dual.detach()).tangent is None
        with facula.no_grad():
            assert unpack_dual(dual * 2).tangent is not None
    close(value, x.sin() * x)
    close(slope, x.cos() * v * x)
    close(y, 2 * x.sin() * x + x)
    assert unpack_dual(y) == (y, None)
    assert not y.requires_grad


def test_with_gradients():
    x = numbers(3).requires_grad_()
    v = numbers(3, seed=1)
    w = numbers(3, seed=2).requires_grad_()
    with dual_level():
        out = (make_dual(x, v) ** 3 * w).sum()
        slope = unpack_dual(out).tangent
        g, = autograd.grad(out, x, create_graph=True)
        product = unpack_dual(g).tangent              # the Hessian times v
    close(product, 6 * x * w * v)
    slope.backward()
    close(w.grad, 3 * x ** 2 * v)
    close(x.grad, 6 * x * w * v)
    x.grad = None
    with dual_level():
        (make_dual(x, v) ** 3).sum().backward()
    close(x.grad, 3 * x ** 2)


def test_modules_and_optimisers_keep_what_they_did():
    net = facula.nn.Sequential(facula.nn.Linear(3, 4), facula.nn.BatchNorm1d(4))
    twin = facula.nn.Sequential(facula.nn.Linear(3, 4), facula.nn.BatchNorm1d(4))
    twin.load_state_dict(net.state_dict())
    x = numbers(5, 3).float()
    opt = facula.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    other = facula.optim.SGD(twin.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        with dual_level():
            loss = net(make_dual(x, x)).sin().sum()
            loss.backward()
            opt.step()
            opt.zero_grad()
        twin(x).sin().sum().backward()
        other.step()
        other.zero_grad()
    for name, t in net.state_dict().items():
        np.testing.assert_allclose(t.numpy(), twin.state_dict()[name].numpy(), rtol=1e-5,
                                   atol=1e-6)


def test_levels():
    x = numbers(2)
    with pytest.raises(RuntimeError, match="no level exists"):
        make_dual(x, x)
    assert unpack_dual(x).tangent is None
    with dual_level():
        with pytest.raises(RuntimeError, match="Nested"):
            enter_dual_level()
        with pytest.raises(RuntimeError, match="different size"):
            make_dual(x, numbers(3))
        with pytest.raises(ValueError, match="floating point"):
            make_dual(facula.ones(2, dtype=facula.int64), x)
        with pytest.raises(RuntimeError):
            facula.vmap(lambda a: make_dual(a, a))(x)
    with pytest.raises(RuntimeError, match="not the last one"):
        exit_dual_level()
    with pytest.raises(ZeroDivisionError), dual_level():
        y = make_dual(x, x) * 2
        raise ZeroDivisionError
    close(y, x * 2)

    @dual_level()
    def slope(x):
        return unpack_dual(make_dual(x, x).exp()).tangent

    close(slope(x), x * x.exp())
    with dual_level():
        g = facula.func.vmap(facula.func.grad(lambda a: a ** 3))(make_dual(x, x))
        close(unpack_dual(g).tangent, 6 * x * x)


def test_torch_agrees():
    torch = pytest.importorskip("torch")
    import torch.autograd.forward_ad as fwd

    def run(lib, level, make, unpack, x, v):
        with level():
            d = make(x, v)
            y = d.view(2, 2).t().contiguous()
            y[0] *= 2
            z = lib.nn.functional.softmax(y @ y, 1).log()
            return unpack(z).tangent

    a, b = np.random.default_rng(0).normal(size=(2, 4))
    got = run(facula, dual_level, make_dual, unpack_dual, facula.tensor(a), facula.tensor(b))
    want = run(torch, fwd.dual_level, fwd.make_dual, fwd.unpack_dual, torch.tensor(a),
               torch.tensor(b))
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-9, atol=1e-12)
