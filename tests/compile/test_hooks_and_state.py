"""More of what a replay could get wrong: hooks, buffers, module surgery, random streams."""

from __future__ import annotations

import random

import numpy as np
import pytest

import facula
from facula import nn, optim
from facula.nn.modules.hooks import register_module_forward_hook
from facula.optim.optimizer import register_optimizer_step_pre_hook


def same_calls(fn, fast, args):
    with facula.no_grad():
        assert fast(*args).tolist() == fn(*args).tolist()


def test_forward_hooks_that_come_and_go():
    net = nn.Linear(3, 2)
    fast = facula.compile(net)
    x = facula.tensor([[1.0, 2.0, 3.0]])
    for _ in range(4):
        same_calls(net, fast, (x,))
    seen = []
    handle = net.register_forward_hook(lambda m, a, out: seen.append(1) or out * 10)
    same_calls(net, fast, (x,))
    assert seen
    handle.remove()
    count = len(seen)
    for _ in range(3):
        same_calls(net, fast, (x,))
    assert len(seen) == count


def test_hooks_of_all_modules_and_optimizers():
    net = nn.Linear(3, 2)
    opt = optim.SGD(net.parameters(), lr=0.1)

    @facula.compile
    def step(x):
        opt.zero_grad()
        net(x).sum().backward()
        opt.step()
    x = facula.tensor([[1.0, 2.0, 3.0]])
    for _ in range(4):
        step(x)
    assert step.replays >= 2
    calls = []
    handles = [register_module_forward_hook(lambda *a: calls.append("m")),
               opt.register_step_post_hook(lambda *a: calls.append("o")),
               register_optimizer_step_pre_hook(lambda *a: calls.append("p"))]
    step(x)
    step(x)
    assert sorted(calls) == ["m", "m", "o", "o", "p", "p"]
    for handle in handles:
        handle.remove()
    before = step.replays
    for _ in range(4):
        step(x)
    assert step.replays > before and len(calls) == 6


def test_surgery_on_a_module():
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    fast = facula.compile(net)
    x = facula.tensor([[1.0, -2.0, 3.0]])

    def check():
        for _ in range(3):
            same_calls(net, fast, (x,))
    check()
    net[0]._parameters["weight"] = nn.Parameter(facula.ones(3, 3))
    check()
    net._modules["1"] = nn.Sigmoid()
    check()
    net.append(nn.Dropout(0.5))
    net.eval()
    check()
    with facula.no_grad():
        net[0].bias.add_(1.0)
    check()
    net[0].weight.data = facula.zeros(3, 3)
    check()
    net[0].weight.data.fill_(2.0)
    check()
    net.double()
    x = x.double()
    check()
    net.load_state_dict({k: v * 0 for k, v in net.state_dict().items()})
    check()
    assert fast._call.replays > 5, fast.explain()


def test_functions_that_are_called():
    weight = facula.tensor([2.0])

    def inner(x):
        return x * weight + offset[0]
    offset = [1.0]
    fn = facula.compile(lambda x: inner(x) * 2)
    x = facula.tensor([3.0])
    for _ in range(3):
        assert fn(x).item() == 14.0
    offset[0] = 2.0
    assert fn(x).item() == 16.0
    weight.fill_(5.0)
    assert fn(x).item() == 34.0
    weight = facula.tensor([0.0])
    assert fn(x).item() == 4.0


def test_iterators_are_refused():
    import itertools
    counter = itertools.count()
    fn = facula.compile(lambda x: x + next(counter))
    assert [fn(facula.tensor([0])).item() for _ in range(10)] == list(range(10))
    assert "iterator" in fn.explain()


def test_generators_of_ones_own():
    def make():
        g = facula.Generator().manual_seed(4)
        return lambda x: x + facula.rand(3, generator=g)
    x = facula.tensor([0.0, 0.0, 0.0])
    plain, fast = make(), facula.compile(make())
    for _ in range(6):
        a, b = plain(x), fast(x)
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)
    assert fast.replays


def test_seeding_inside_is_refused():
    def fn(x):
        facula.manual_seed(3)
        return x + facula.rand(2)
    fast = facula.compile(fn)
    x = facula.tensor([0.0, 0.0])
    assert len({tuple(fast(x).tolist()) for _ in range(4)}) == 1
    assert fast.replays == 0 and "seeded" in fast.explain()


def test_shapes_that_vary_are_captured_one_by_one():
    fn = facula.compile(lambda x: x.sum() * x.shape[0])
    for _ in range(4):
        for n in (1, 2, 3):
            assert fn(facula.ones(n)).item() == float(n * n)
    assert len(fn.entries) == 3 and fn.replays >= 9


def test_many_kinds_of_calls_are_bounded():
    fn = facula.compile(lambda x, k: x * k)
    x = facula.tensor([1.0])
    for k in range(200):
        assert fn(x, float(k)).item() == float(k)
    assert len(fn.entries) <= 8 and fn.plain > 100


@pytest.mark.parametrize("seed", range(3))
def test_random_interference(seed):
    """Two training runs, one compiled, with the same random meddling between steps."""
    def run(compiled):
        rng = random.Random(seed)
        facula.manual_seed(1)
        net = nn.Sequential(nn.Linear(4, 6, bias=False), nn.BatchNorm1d(6), nn.ReLU(),
                            nn.Dropout(0.2), nn.Linear(6, 2))
        opt = optim.Adam(net.parameters(), lr=0.01)

        def step(x, y):
            opt.zero_grad()
            loss = nn.functional.mse_loss(net(x), y)
            loss.backward()
            opt.step()
            return loss
        fn = facula.compile(step) if compiled else step
        data = np.random.default_rng(seed)
        held, log = [], []
        for _ in range(60):
            n = rng.choice([3, 3, 3, 5])
            x = facula.tensor(data.standard_normal((n, 4)).astype(np.float32))
            y = facula.tensor(data.standard_normal((n, 2)).astype(np.float32))
            what = rng.randrange(14)
            p = rng.choice(list(net.parameters()))
            if what == 0:
                held.append(p.detach())
            elif what == 1:
                held.append(p.grad)
            elif what == 2:
                opt.param_groups[0]["lr"] = rng.choice([0.01, 0.02])
            elif what == 3:
                with facula.no_grad():
                    p.mul_(0.5)
            elif what == 4:
                p.requires_grad_(not p.requires_grad)
            elif what == 5:
                net.train(rng.random() < 0.7)
            elif what == 6:
                held.append(p * 2)
            elif what == 7 and held:
                held.pop(0)
            elif what == 8:
                facula.rand(2)
            elif what == 9 and p.grad is not None:
                p.grad.add_(1.0)
            elif what == 10:
                opt.param_groups[0]["weight_decay"] = rng.choice([0, 0.1])
            if not any(q.requires_grad for q in net.parameters()):
                p.requires_grad_(True)
            log.append(fn(x, y).item())
        rest = [t.tolist() for t in (*net.state_dict().values(), *[h for h in held
                                                                   if h is not None])]
        return log, rest, fn
    log, rest, _ = run(False)
    fast_log, fast_rest, fn = run(True)
    np.testing.assert_allclose(fast_log, log, rtol=2e-5)
    for a, b in zip(rest, fast_rest, strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-4, atol=1e-6)
    assert fn.replays > 5, fn.explain()
