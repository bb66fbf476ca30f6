"""The collector of cycles waits in a backward pass and a flush, and goes on after them."""

from __future__ import annotations

import gc

import pytest

import facula
from facula.autograd import Function


@pytest.fixture(params=[True, False])
def collecting(request):
    """The collector on, and turned off by its user."""
    before = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if before else gc.disable)()


def doubled(seen, fail=False):
    class Doubled(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            seen.append(gc.isenabled())
            if fail:
                raise ValueError("no gradient today")
            return g * 2
    return Doubled.apply


def test_it_waits_in_a_backward_pass(collecting):
    seen = []
    x = facula.ones(3, requires_grad=True)
    doubled(seen)(x).sum().backward()
    assert seen == [False] and gc.isenabled() == collecting
    facula.autograd.grad(doubled(seen)(x).sum(), [x])
    assert seen == [False, False] and gc.isenabled() == collecting
    assert x.grad.tolist() == [2, 2, 2] and gc.isenabled() == collecting


def test_it_goes_on_after_an_error(collecting):
    x = facula.ones(3, requires_grad=True)
    with pytest.raises(ValueError):
        doubled([], fail=True)(x).sum().backward()
    assert gc.isenabled() == collecting
    with pytest.raises(IndexError):
        facula.ones(3)[facula.tensor([5])].tolist()
    assert gc.isenabled() == collecting


def test_cycles_made_in_passes_are_collected():
    class Cycle:
        alive = 0

        def __init__(self):
            self.me = self
            Cycle.alive += 1

        def __del__(self):
            Cycle.alive -= 1

    x = facula.ones(3, requires_grad=True)
    x.register_hook(lambda g: [Cycle() for _ in range(1000)] and None)
    for _ in range(50):
        (x * x).sum().backward()
    assert Cycle.alive < 20000
