"""Random bodies under random towers of transforms, against torch.func."""

from __future__ import annotations

import random

import numpy as np
import pytest

import facula

torch = pytest.importorskip("torch")
pytest.importorskip("torch.func")


def times_constant(lib, x, y, w):
    with lib.no_grad():
        c = y * 2
    return y * c


def in_place(lib, x, y, w):
    y = y.clone()
    y.mul_(x)
    y += 1
    return y


def part(lib, x, y, w):
    y = y.clone()
    y[..., :2] = y[..., 1:] * 2
    return y


STEPS = [
    lambda lib, x, y, w: y.sin(),
    lambda lib, x, y, w: y * x,
    lambda lib, x, y, w: y + y.sum(-1, keepdim=True),
    lambda lib, x, y, w: y.cumsum(-1),
    lambda lib, x, y, w: (y * 0.1).exp(),
    lambda lib, x, y, w: y.flip(-1),
    lambda lib, x, y, w: y @ w,
    lambda lib, x, y, w: y[..., lib.tensor([2, 0, 1])],
    lambda lib, x, y, w: lib.where(y > 0.5, y, y * 2),
    lambda lib, x, y, w: y + x.detach() * y,
    lambda lib, x, y, w: lib.softmax(y, -1),
    lambda lib, x, y, w: y * y.amax(-1, keepdim=True),
    lambda lib, x, y, w: lib.cat([y[..., 1:], y[..., :1] * x[..., :1]], -1),
    lambda lib, x, y, w: (y.unsqueeze(-1) * x.unsqueeze(-2)).transpose(-1, -2).sum(-1),
    lambda lib, x, y, w: y * y.prod(-1, keepdim=True),
    lambda lib, x, y, w: y.sort(-1)[0],
    times_constant, in_place, part]

TRANSFORMS = [
    lambda f, fn: lambda x: f.grad(lambda z: fn(z).sin().sum())(x),
    lambda f, fn: lambda x: f.jacrev(fn)(x).sum(0),
    lambda f, fn: lambda x: f.jacfwd(fn)(x).sum(-1),
    lambda f, fn: lambda x: f.vmap(lambda s: fn(x * s))(x).sum(0),
    lambda f, fn: lambda x: f.jvp(fn, (x,), (x.cos(),))[1],
    lambda f, fn: lambda x: f.vjp(fn, x)[1](x.cos())[0],
    lambda f, fn: lambda x: f.vmap(fn, in_dims=1, out_dims=1)(x.unsqueeze(-1) * x).mean(-1),
    lambda f, fn: lambda x: f.linearize(fn, x)[1](x.cos()) if f is facula.func
    else f.jvp(fn, (x,), (x.cos(),))[1]]


@pytest.mark.parametrize("seed", range(40))
def test_composition(seed):
    chosen = random.Random(seed)
    steps = chosen.choices(STEPS, k=chosen.randint(2, 5))
    towers = chosen.choices(TRANSFORMS, k=chosen.randint(1, 3))
    numbers = np.random.default_rng(seed)
    x, w = numbers.uniform(0.3, 1.2, 3), numbers.uniform(-1, 1, (3, 3))

    def build(lib):
        def fn(x):
            y = x
            for step in steps:
                y = step(lib, x, y, lib.tensor(w))
            return y
        for transform in towers:
            fn = transform(lib.func, fn)
        return fn(lib.tensor(x)).detach().numpy()

    want = build(torch)
    for _ in range(2):
        np.testing.assert_allclose(build(facula), want, rtol=1e-6, atol=1e-8)
