"""Checkpointing: the same gradients, computed from less memory."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

import facula
from facula import nn
from facula.graph import flush
from facula.graph.record import recorder
from facula.utils.checkpoint import CheckpointError, checkpoint, checkpoint_sequential
from tests.schedule.programs import largest_arena


def blocks(count=4, width=16):
    facula.manual_seed(1)
    return nn.Sequential(*[nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.2),
                                         nn.Linear(4 * width, width), nn.Tanh())
                           for _ in range(count)])


def each(**kw):
    def run(model, x):
        for block in model:
            x = checkpoint(block, x, **kw)
        return x
    return run


WAYS = {
    "reentrant": each(use_reentrant=True),
    "not-reentrant": each(use_reentrant=False),
    "sequential": lambda m, x: checkpoint_sequential(m, 2, x, use_reentrant=False),
    "sequential-odd": lambda m, x: checkpoint_sequential(list(m), 3, x, use_reentrant=True),
    "nested": lambda m, x: checkpoint(
        lambda y: each(use_reentrant=False)(m[2:], each(use_reentrant=True)(m[:2], y)), x,
        use_reentrant=False),
}


def trained(way, steps=3):
    model = blocks()
    x = facula.randn(8, 16, requires_grad=True)
    o = facula.optim.SGD(model.parameters(), lr=0.1)
    for k in range(steps):
        facula.manual_seed(7 + k)
        o.zero_grad()
        loss = (way(model, x) ** 2).mean()
        after = facula.get_rng_state().tolist()
        loss.backward()
        assert facula.get_rng_state().tolist() == after
        o.step()
    return [x.grad, *model.parameters()]


@pytest.mark.parametrize("way", list(WAYS))
def test_gradients_are_those_of_the_plain_call(way):
    for have, want in zip(trained(WAYS[way]), trained(lambda m, x: m(x)), strict=True):
        np.testing.assert_allclose(have.tolist(), want.tolist(), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("reentrant", [True, False])
def test_it_computes_again_and_once(reentrant):
    calls = []

    def fn(a, b):
        calls.append(1)
        return a * b, facula.sin(a)

    a, b = facula.ones(2, requires_grad=True), facula.full((2,), 3.0)
    u, v = checkpoint(fn, a, b, use_reentrant=reentrant)
    assert len(calls) == 1
    (u + v).sum().backward()
    assert len(calls) == 2
    np.testing.assert_allclose(a.grad.tolist(), 3 + np.cos([1.0, 1.0]), rtol=1e-6)
    with pytest.raises(RuntimeError, match="second time"):
        (u + v).sum().backward()
    with facula.no_grad():
        assert not checkpoint(fn, a, b, use_reentrant=reentrant)[0].requires_grad
    assert len(calls) == 3


def test_only_some_results_are_differentiated():
    x = facula.tensor([1.0, 2.0], requires_grad=True)
    out = checkpoint(lambda t: {"a": t ** 2, "b": [t.detach() * 2, None, t.argmax()]}, x,
                     use_reentrant=False)
    assert out["a"].requires_grad and not out["b"][0].requires_grad
    assert out["b"][1] is None and out["b"][2].item() == 1
    out["a"].sum().backward()
    assert x.grad.tolist() == [2, 4]


def test_what_the_function_sees_of_outside():
    """Tensors of the closure get their gradients, computed ones too."""
    w = facula.tensor([2.0, 3.0], requires_grad=True)
    x = facula.ones(2, requires_grad=True)
    seen = []
    for plain in (False, True):
        w.grad = x.grad = None
        scaled = w * w
        late = scaled.exp()

        def fn(t, by=scaled, more=late):
            return (t * by + more).sin()

        y = fn(x) if plain else checkpoint(fn, x, use_reentrant=False)
        (y.sum() + (scaled * 0.5).sum()).backward()
        seen.append(w.grad.tolist() + x.grad.tolist())
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-5)


def test_no_argument_requires_a_gradient():
    w = facula.ones(3, requires_grad=True)
    x = facula.ones(3)
    y = checkpoint(lambda t, by: t * by * w, x, by=facula.full((3,), 2.0), use_reentrant=False)
    y.sum().backward()
    assert w.grad.tolist() == [2, 2, 2]
    with pytest.warns(UserWarning, match="None of the inputs"):
        assert not checkpoint(lambda t: t * w, x, use_reentrant=True).requires_grad


def test_grad_inputs_and_second_derivatives():
    x = facula.tensor([0.3, 0.7], requires_grad=True)
    y = checkpoint(lambda t: t.sin() * t, x, use_reentrant=False)
    (g,) = facula.autograd.grad(y.sum(), x, create_graph=True)
    (h,) = facula.autograd.grad(g.sum(), x)
    v = np.array([0.3, 0.7])
    np.testing.assert_allclose(g.tolist(), np.cos(v) * v + np.sin(v), rtol=1e-5)
    np.testing.assert_allclose(h.tolist(), 2 * np.cos(v) - v * np.sin(v), rtol=1e-5)
    z = x * 2
    out = checkpoint(lambda t: t ** 3, z, use_reentrant=False)
    out.sum().backward(retain_graph=True, inputs=[x])
    out.sum().backward(inputs=[x])
    np.testing.assert_allclose(x.grad.tolist(), 2 * 24 * v ** 2, rtol=1e-5)


def test_under_function_transforms():
    x = facula.tensor([0.3, 0.7])

    def plain(t):
        return (t.sin() * t).sum()

    def again(t):
        return checkpoint(plain, t, use_reentrant=False)

    for transform in (facula.func.grad, facula.func.hessian, facula.func.jacfwd):
        np.testing.assert_allclose(transform(again)(x).tolist(), transform(plain)(x).tolist(),
                                   rtol=1e-6)
    two = facula.stack([x, x + 1])
    assert facula.func.vmap(again)(two).tolist() == facula.func.vmap(plain)(two).tolist()


def test_a_value_asked_for_inside():
    x = facula.tensor([1.0, -2.0], requires_grad=True)

    def fn(t):
        y = t * 3
        return y.sin() if float(y.detach().sum()) < 0 else y.cos()

    checkpoint(fn, x, use_reentrant=False).sum().backward()
    np.testing.assert_allclose(x.grad.tolist(), 3 * np.cos([3.0, -6.0]), rtol=1e-5)


def test_contexts_and_the_stream_of_random_numbers():
    seen = []

    @contextlib.contextmanager
    def noted(name):
        seen.append(name)
        yield

    x = facula.ones(64, requires_grad=True)
    masks = []

    def fn(t):
        masks.append(facula.rand(64))
        return t * masks[-1]

    y = checkpoint(fn, x, use_reentrant=False, context_fn=lambda: (noted("first"),
                                                                    noted("again")))
    y.sum().backward()
    assert seen == ["first", "again"]
    assert masks[0].tolist() == masks[1].tolist() == x.grad.tolist()
    masks.clear()
    checkpoint(fn, x, use_reentrant=False, preserve_rng_state=False).sum().backward()
    assert masks[0].tolist() != masks[1].tolist()


def test_errors():
    x = facula.ones(2, requires_grad=True)
    sizes = iter([2, 3, 2, 3])

    def changing(t):
        return t.sum() * facula.ones(next(sizes))

    with pytest.raises(CheckpointError, match="different metadata"):
        checkpoint(changing, x, use_reentrant=False).sum().backward()
    with pytest.raises(ValueError, match="determinism_check"):
        checkpoint(changing, x, use_reentrant=False, determinism_check="maybe")
    with pytest.raises(ValueError, match="Unexpected keyword"):
        checkpoint(changing, x, use_reentrant=True, y=1)
    with pytest.raises(ValueError, match="context_fn"):
        checkpoint(changing, x, use_reentrant=True, debug=True)
    with pytest.warns(UserWarning, match="use_reentrant"):
        checkpoint(lambda t: t * 2, x)
    y = x * 2
    out = checkpoint(lambda t: t.exp(), y, use_reentrant=False)
    y.add_(1)
    with pytest.raises(facula.StaleTensorError, match="checkpointed"):
        out.sum().backward()


@pytest.mark.parametrize("way", ["reentrant", "not-reentrant", "sequential"])
def test_compiled_steps_are_replayed(way):
    """Values that the backward pass reads come from an earlier program of the same call."""
    sides = []
    for compiled in (False, True):
        model = blocks()
        o = facula.optim.SGD(model.parameters(), lr=0.1)
        x = facula.randn(8, 16, requires_grad=True)
        flush.flush(recorder())

        def step(x, model=model, o=o):
            o.zero_grad()
            loss = (WAYS[way](model, x) ** 2).mean()
            loss.backward()
            o.step()
            return loss

        fn = facula.compile(step) if compiled else step
        facula.manual_seed(5)
        losses = [fn(x) for _ in range(8)]
        assert all(t.requires_grad for t in losses)
        with pytest.raises(RuntimeError, match="second time"):
            losses[-1].backward()
        sides.append([t.item() for t in losses] + facula.rand(2).tolist())
    np.testing.assert_allclose(sides[1], sides[0], rtol=1e-5)
    assert fn.replays >= 5, fn.explain()


def test_the_largest_program_needs_less_memory():
    """Four equal blocks: what one of them keeps for its gradient, not what all do."""
    def largest(way):
        facula.manual_seed(1)
        model = nn.Sequential(*[nn.Sequential(nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 32),
                                              nn.Tanh()) for _ in range(4)])
        return largest_arena(lambda: (way(model, facula.randn(512, 32)) ** 2).mean().backward())

    assert largest(WAYS["not-reentrant"]) < largest(lambda m, x: m(x)) / 2
