"""`autograd.functional` against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula.autograd import functional

torch = pytest.importorskip("torch")


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.3, 1.7, shape)


def leaves(value):
    if isinstance(value, (tuple, list)):
        return [x for v in value for x in leaves(v)]
    return [value]


def nesting(value):
    return tuple(map(nesting, value)) if isinstance(value, tuple) else None


def same(got, want, graph=False):
    assert nesting(got) == nesting(want)
    for a, b in zip(leaves(got), leaves(want), strict=True):
        assert a.shape == tuple(b.shape)
        # One batch gives all rows, so that a row without history has the others'.
        assert a.requires_grad >= b.requires_grad if graph else not a.requires_grad
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-7, atol=1e-10)


FUNCTIONS = {
    "one": (lambda x: x.exp().sum(1), (numbers(2, 3),)),
    "one scalar": (lambda x: x.exp().sum(), (numbers(2, 3),)),
    "two": (lambda x, y: (x * y.sum()).sin(), (numbers(3), numbers(2, seed=1))),
    "several out": (lambda x, y: (x * y, y.sum()), (numbers(3), numbers(3, seed=1))),
    "scalar of two": (lambda x, y: (x * y * x).sum(), (numbers(3), numbers(3, seed=1))),
}


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_jacobian_and_products(name, create_graph):
    fn, arrays = FUNCTIONS[name]
    for grads in (False, True):
        if create_graph and not grads:
            continue          # PyTorch's results then hang on a leaf that nobody can reach
        mine = tuple([facula.tensor(a, requires_grad=grads) for a in arrays])
        theirs = tuple([torch.tensor(a, requires_grad=grads) for a in arrays])
        one = (lambda v: v[0] if len(v) == 1 else v)
        kw = {"create_graph": create_graph}
        same(functional.jacobian(fn, one(mine), **kw),
             torch.autograd.functional.jacobian(fn, one(theirs), **kw), create_graph)
        same(functional.jacobian(fn, one(mine), strategy="forward-mode"),
             torch.autograd.functional.jacobian(fn, one(theirs)))
        v = [numbers(*a.shape, seed=7) for a in arrays]
        same(functional.jvp(fn, one(mine), one(tuple(map(facula.tensor, v))), **kw),
             torch.autograd.functional.jvp(fn, one(theirs), one(tuple(map(torch.tensor, v))),
                                           **kw), create_graph)
        out = fn(*theirs)
        outs = out if isinstance(out, tuple) else (out,)
        u = [numbers(*o.shape, seed=8) for o in outs]
        same(functional.vjp(fn, one(mine), one(tuple(map(facula.tensor, u))), **kw),
             torch.autograd.functional.vjp(fn, one(theirs), one(tuple(map(torch.tensor, u))),
                                           **kw), create_graph)


@pytest.mark.parametrize("name", ["one scalar", "scalar of two"])
def test_hessian_and_products(name):
    fn, arrays = FUNCTIONS[name]
    mine = tuple([facula.tensor(a) for a in arrays])
    theirs = tuple([torch.tensor(a) for a in arrays])
    v = [numbers(*a.shape, seed=7) for a in arrays]
    one = (lambda v: v[0] if len(v) == 1 else v)
    same(functional.hessian(fn, one(mine)), torch.autograd.functional.hessian(fn, one(theirs)))
    same(functional.hessian(fn, one(mine), outer_jacobian_strategy="forward-mode"),
         torch.autograd.functional.hessian(fn, one(theirs)))
    for product in ("hvp", "vhp"):
        same(getattr(functional, product)(fn, one(mine), one(tuple(map(facula.tensor, v)))),
             getattr(torch.autograd.functional, product)(
                 fn, one(theirs), one(tuple(map(torch.tensor, v)))))
    x = facula.tensor(2.0)
    assert functional.hvp(lambda x: x ** 3, x)[1].item() == pytest.approx(12)
    assert functional.vhp(lambda x: x ** 3, x)[1].item() == pytest.approx(12)


def raises(fn, text):
    with pytest.raises((RuntimeError, TypeError, AssertionError), match=text):
        fn()


def test_strictness_and_errors():
    x, y = facula.tensor(numbers(3)), facula.tensor(numbers(3, seed=1))
    free = lambda a, b: a * 2
    assert functional.jacobian(free, (x, y))[1].abs().sum().item() == 0
    raises(lambda: functional.jacobian(free, (x, y), strict=True), "independent of input 1")
    raises(lambda: functional.vjp(free, (x, y), x, strict=True), "independent of input 1")
    raises(lambda: functional.jvp(free, (x, y), (x, y), strict=True), "independent of input 1")
    raises(lambda: functional.jacobian(lambda a: facula.ones(2), x, strict=True),
           "does not require gradients")
    raises(lambda: functional.hessian(lambda a: a.sum(), x, strict=True), "independent of input 0")
    raises(lambda: functional.vjp(lambda a: a, x), "single element")
    raises(lambda: functional.jvp(lambda a: a, x), "single element")
    raises(lambda: functional.vjp(lambda a: a, x, facula.ones(2)), "invalid size")
    raises(lambda: functional.vjp(lambda a: a, x, (x, x)), "single Tensor")
    raises(lambda: functional.hvp(lambda a: a, x, x), "single element")
    raises(lambda: functional.vhp(lambda a: (a.sum(), a), x, x), "single Tensor")
    raises(lambda: functional.vjp(lambda a: 3, x), "has type")
    raises(lambda: functional.vjp(lambda a: a, 3), "given inputs has type")
    raises(lambda: functional.jacobian(lambda a: a, x, strategy="other"), "strategy")
