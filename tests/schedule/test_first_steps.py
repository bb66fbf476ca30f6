"""What a first step compiles: one program, which all later steps are, and each kernel once."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import config, nn, optim
from facula.codegen.elements.bounds import magnitude
from facula.graph.record import State, recorder
from facula.graph.spec import Step, spec
from facula.runtime import jit
from facula.schedule import compile as planning
from facula.schedule import resized

pytest.importorskip("llvmlite")


@pytest.fixture(autouse=True)
def _from_nothing(monkeypatch):
    """As in a new process, with nothing on disk and nothing interpreted."""
    facula.rand(1)._peek()
    rec = recorder()
    rec.root, rec.states = State(None, ()), 0
    rec.fresh_graph()
    resized._families.clear()
    monkeypatch.setattr(jit, "_kernels", type(jit._kernels)())
    with config.override(INTERPRET=False, CACHE=False):
        yield


def plans(monkeypatch):
    """The plans that are made from here on."""
    found = []
    made = planning._Build.native

    def native(self):
        found.append(made(self))
        return found[-1]

    monkeypatch.setattr(planning._Build, "native", native)
    return found


def kernels(plan):
    return [k for phase in plan.plan.phases for k in phase.kernels]


@pytest.mark.parametrize("draw", [
    lambda n: nn.init.normal_(facula.empty(n, 128)), lambda n: nn.init.uniform_(facula.empty(n, 9)),
    lambda n: facula.randn(n, 128)], ids=["normal_", "uniform_", "randn"])
def test_parameters_of_all_sizes_are_drawn_by_one_kernel(monkeypatch, draw):
    made = plans(monkeypatch)
    facula.manual_seed(0)
    drawn = [draw(n) for n in (2048, 1031, 513, 4000)]
    values = [t.numpy() for t in drawn]
    plan, = made
    many = [k for k in kernels(plan) if k.ntiles > 1]
    assert len(many) == 4 and len({k.llvm_text for k in many}) == 1
    assert len({k.numbers for k in many}) == 4
    facula.manual_seed(0)
    with config.override(JIT=False):
        for n, got in zip((2048, 1031, 513, 4000), values, strict=True):
            np.testing.assert_allclose(got, draw(n).numpy(), rtol=3e-6, atol=3e-6)


def test_elements_of_a_drawn_normal_need_no_code_for_large_angles(monkeypatch):
    made = plans(monkeypatch)
    facula.randn(5000).numpy()
    facula.cos(facula.tensor(np.full(5000, 1e30, np.float32))).numpy()
    drawn, taken = (kernels(plan)[0].llvm_text for plan in made)
    assert "@math.cos" not in drawn and "@math.cos" in taken


def test_magnitude():
    f, i = facula.float32, facula.uint8
    steps = [Step("leaf", (None,), (), spec((3,), i)), Step("cast", (), (0,), spec((3,), f)),
             Step("full", (-2.5,), (), spec((3,), f)), Step("mul", (), (1, 2), spec((3,), f)),
             Step("sub", (), (3, 2), spec((3,), f)), Step("leaf", (None,), (), spec((3,), f)),
             Step("add", (), (4, 5), spec((3,), f)), Step("full", (np.nan,), (), spec((3,), f)),
             Step("exp", (), (1,), spec((3,), f))]
    assert [magnitude(steps, n) for n in range(9)] == [
        256, 256, 2.5, 640, 642.5, np.inf, np.inf, np.inf, np.inf]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(30, 40), nn.BatchNorm1d(40), nn.ReLU(),
                                    nn.Linear(40, 7))

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("optimizer", [
    lambda p: optim.SGD(p, 0.1), lambda p: optim.SGD(p, 0.1, momentum=0.9),
    lambda p: optim.AdamW(p, 0.01)], ids=["SGD", "momentum", "AdamW"])
def test_the_second_step_compiles_nothing(optimizer):
    net = Net()
    steps = optimizer(net.parameters())
    x = facula.tensor(np.random.default_rng(0).standard_normal((16, 30), np.float32))
    y = facula.tensor(np.arange(16) % 7)
    before = jit.statistics["compiled"]
    counts = []
    for _ in range(3):
        steps.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        steps.step()
        loss.item()
        counts.append(jit.statistics["compiled"] - before)
    assert counts[0] > 0 and counts[1:] == counts[:1] * 2


def test_the_second_prediction_compiles_nothing():
    net = Net().eval()
    x = facula.randn(16, 30)
    with facula.no_grad():
        first = net(x).numpy()
        before = jit.statistics["compiled"]
        np.testing.assert_array_equal(net(x).numpy(), first)
    assert jit.statistics["compiled"] == before


def test_starting_values_have_the_same_bits_however_often_and_wherever_they_are_drawn():
    """By an optimiser or by a call; and who draws the same for himself has it compiled."""
    def by_optimizer():
        facula.manual_seed(0)
        w = facula.randn(300, requires_grad=True)
        optim.SGD([w], 0.1)
        return w

    def by_module():
        net = nn.Linear(1, 1, bias=False)
        net.forward = lambda: None
        facula.manual_seed(0)
        net.weight = nn.Parameter(facula.randn(300))
        net()
        return net.weight

    with config.override(INTERPRET=True):
        for _ in range(4):
            first, second = by_optimizer(), by_module()
            assert first._node.value is not None and second._node.value is not None
        before = jit.statistics["compiled"]
        for _ in range(4):
            facula.manual_seed(0)
            w = facula.randn(300, requires_grad=True)
            drawn = w.detach().numpy()
        assert jit.statistics["compiled"] > before
        np.testing.assert_array_equal(first.detach().numpy(), second.detach().numpy())
        np.testing.assert_array_equal(by_optimizer().detach().numpy(), first.detach().numpy())
        np.testing.assert_allclose(drawn, first.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_module_is_first_called_where_nothing_can_be_run():
    """Within a transformed function, and while a call is recorded to be replayed."""
    x = facula.tensor(np.linspace(-1, 1, 30, dtype=np.float32)[None])
    net = Net().eval()
    grad = facula.func.grad(lambda x: net(x).sum())(x)
    assert not net._called
    x.requires_grad_()
    net(x).sum().backward()
    assert net._called and net.layers[0]._called
    np.testing.assert_allclose(grad.detach().numpy(), x.grad.numpy(), rtol=1e-5, atol=1e-6)

    net = Net().eval()
    call = facula.compile(lambda x: net(x))
    with facula.no_grad():
        values = [call(x.detach()).numpy() for _ in range(4)]
        want = net(x).numpy()
    assert call.replays
    for value in values:
        np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-6)
