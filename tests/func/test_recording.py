"""What transforms leave behind: no garbage, edges that are followed, captured calls."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import facula
from facula.autograd import Function
from facula.func import functional_call, grad, hessian, jacrev, jvp, linearize, vjp, vmap
from facula.func.trace import Trace
from facula.graph.record import Graph, recorder


class Square(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        return 2 * g * ctx.saved_tensors[0]


CALLS = {
    "grad": lambda x: grad(lambda a: (a ** 2).sum())(x),
    "vmap": lambda x: vmap(lambda a: a * 2)(x),
    "jvp": lambda x: jvp(lambda a: a.sin(), (x,), (x,)),
    "vjp": lambda x: vjp(lambda a: a.sin(), x)[1](x),
    "linearize": lambda x: linearize(lambda a: a.sin(), x)[1](x),
    "hessian": lambda x: hessian(lambda a: (a ** 3).sum())(x),
    "custom": lambda x: grad(lambda a: vmap(Square.apply)(a).sum())(x),
    "in place": lambda x: grad(lambda a: (a * 1).mul_(a).sum())(x),
    "a value": lambda x: grad(lambda a: a.sum() * a.sum().item())(x),
}


@pytest.mark.parametrize("name", CALLS)
def test_no_garbage_holds_values(name):
    x = facula.ones(3)
    CALLS[name](x)
    gc.collect()
    gc.disable()
    try:
        CALLS[name](x)
        left = [o for o in gc.get_objects() if issubclass(type(o), Trace)
                or type(o) is Graph and o.failure is not None]
    finally:
        gc.enable()
    assert not left


@pytest.mark.parametrize("name", [n for n in CALLS if n not in ("custom", "a value")])
def test_the_second_call_makes_nothing_new(name):
    x = facula.full((5,), 2.0)
    rec = recorder()
    for _ in range(2):
        facula.zeros(()).item()                     # both begin at the root
        out = CALLS[name](x)
        del out
    facula.zeros(()).item()
    before = rec.states
    CALLS[name](x)
    assert rec.states == before


def test_compiled():
    net = facula.nn.Sequential(facula.nn.Linear(3, 4), facula.nn.Tanh(), facula.nn.Dropout(0.5),
                               facula.nn.Linear(4, 1))
    params = {k: v.detach() for k, v in net.named_parameters()}

    def each(params, x):
        return vmap(grad(lambda p, a: functional_call(net, p, (a,)).sum()), in_dims=(None, 0),
                    randomness="different")(params, x)

    quick = facula.compile(each)
    for seed in range(4):
        facula.manual_seed(seed)
        x = facula.randn(5, 3)
        state = facula.get_rng_state()
        got = {k: v.numpy().copy() for k, v in quick(params, x).items()}
        facula.set_rng_state(state)
        for k, v in each(params, x).items():
            np.testing.assert_allclose(got[k], v.numpy(), rtol=1e-6)
    assert "3 calls replayed" in str(quick.explain())
    second = facula.compile(lambda x: jacrev(lambda a: a ** 2)(x))
    for n in range(4):
        np.testing.assert_allclose(second(facula.full((2,), float(n))).numpy(),
                                   2.0 * n * np.eye(2))
    assert "3 calls replayed" in str(second.explain())


def test_a_seed_that_changes_is_no_new_program():
    x = facula.ones(4, 3)
    rec = recorder()

    def call(seed):
        facula.manual_seed(seed)
        return vmap(lambda a: a * facula.rand(3), randomness="different")(x).numpy().copy()

    for seed in (1, 2, 5):              # the second finds `x` in memory, the third keeps that
        call(seed)
    before = rec.states
    third = call(3)
    assert rec.states == before
    assert not np.array_equal(third, call(4))


def test_checkpointed_functions_are_called_once():
    from facula.utils.checkpoint import checkpoint
    calls = []

    def f(x):
        calls.append(1)
        return x.sin() * x

    x = facula.full((3,), 0.5)
    got = grad(lambda a: checkpoint(f, a, use_reentrant=False).sum())(x)
    np.testing.assert_allclose(got.numpy(), grad(lambda a: f(a).sum())(x).numpy(), rtol=1e-6)
    assert len(calls) == 2


def test_backward_inside_is_refused():
    with pytest.raises(RuntimeError, match="inside a functorch transform"):
        grad(lambda a: (a.sum().backward(), a.sum())[1])(facula.ones(2))


def test_printing_inside_a_mapped_function():
    seen = []
    vmap(lambda a: (seen.append(repr(a)), a)[1])(facula.ones(3, 2))
    assert seen == ["tensor(..., size=(2,), dtype=facula.float32, one of a batch)"]
    grad(lambda a: (seen.append(repr(a.detach())), a.sum())[1])(facula.ones(2))
    assert seen[1] == "tensor([1., 1.])"


def test_autocast_around_and_inside():
    a, b = facula.randn(4, 5, 6), facula.randn(4, 6, 3)

    def product(x, y):
        out = x @ y
        assert out.dtype is facula.bfloat16
        return out.float().sum()

    with facula.autocast("cpu"):
        want = vmap(lambda x, y: (x @ y))(a, b)
        assert want.dtype is facula.bfloat16 and (a[0] @ b[0]).dtype is facula.bfloat16
        g = vmap(grad(product))(a, b)
        out, slope = jvp(product, (a[0], b[0]), (a[0], b[0]))
    inside = vmap(lambda x, y: grad(lambda z: _cast_product(product, z, y))(x))(a, b)
    assert g.dtype is facula.float32 and slope.dtype is facula.float32
    assert (a[0] @ b[0]).dtype is facula.float32
    np.testing.assert_array_equal(g.numpy(), inside.numpy())
    np.testing.assert_allclose(g.numpy(), np.broadcast_to(b.numpy().sum(2)[:, None], g.shape),
                               rtol=0.05, atol=0.05)
    np.testing.assert_allclose(slope.item(), 2 * out.item(), rtol=0.05)


def _cast_product(product, x, y):
    with facula.autocast("cpu"):
        return product(x, y)
