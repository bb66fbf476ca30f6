"""Programs of several batch sizes: the same values whatever sizes came before, and few kernels."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import config, nn, optim
from facula.graph.record import State, recorder
from facula.nn import functional as F
from facula.runtime import jit
from facula.schedule import executable, resized

pytest.importorskip("llvmlite")


@pytest.fixture(autouse=True)
def _from_nothing():
    forget()
    resized.again.clear()
    with config.override(INTERPRET=False):
        yield
    forget()


def forget():
    """As in a new process: no structure is known."""
    facula.rand(1)._peek()
    rec = recorder()
    rec.root, rec.states = State(None, ()), 0
    rec.fresh_graph()
    resized._families.clear()


class Perceptron(nn.Module):
    shape = (20,)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(20, 48), nn.ReLU(), nn.Linear(48, 17), nn.Tanh(),
                                    nn.Linear(17, 5))

    def forward(self, x):
        return self.layers(x)


class Pictures(nn.Module):
    shape = (2, 8, 8)

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 6, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(6, 5))

    def forward(self, x):
        return self.layers(x)


class Attention(nn.Module):
    shape = (6, 16)

    def __init__(self):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0, batch_first=True)
        self.last = nn.Linear(16, 5)

    def forward(self, x):
        return self.last(self.block(x).mean(1))


class Recurrent(nn.Module):
    shape = (4, 9)

    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(9, 12, batch_first=True)
        self.last = nn.Linear(12, 5)

    def forward(self, x):
        return self.last(self.cells(x)[0][:, -1])


NETS = [Perceptron, Pictures, Attention, Recurrent]


class Training:
    """Steps from the same weights, whatever the batch."""

    def __init__(self, kind):
        facula.manual_seed(0)
        self.kind, self.net = kind, kind()
        self.start = [w.detach().numpy().copy() for w in self.net.parameters()]
        self.optimizer = optim.SGD(self.net.parameters(), lr=0.1)
        for _ in range(2):      # from now on the module has been called, and has gradients
            self.step(2)

    def step(self, n):
        """Loss and weights after one step on `n` examples."""
        rng = np.random.default_rng(n)
        with facula.no_grad():
            for w, value in zip(self.net.parameters(), self.start, strict=True):
                w.copy_(facula.tensor(value))
        x = facula.tensor(rng.standard_normal((n, *self.kind.shape), np.float32))
        y = facula.tensor(rng.integers(0, 5, n))
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.net(x), y)
        loss.backward()
        self.optimizer.step()
        return [loss.item(), *[w.detach().numpy().copy() for w in self.net.parameters()]]


def close(got, want, what):
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=2e-4, atol=2e-5, err_msg=what)


def interpreted(kind, sizes):
    with config.override(JIT=False):
        training = Training(kind)
        return {n: training.step(n) for n in sizes if n > 1 or kind is not Pictures}


SOME = [32, 31, 1, 2, 3, 7, 14, 15, 16, 33, 48, 65, 70]


@pytest.mark.parametrize("kind", NETS)
def test_any_size_gives_the_interpreters_values(kind):
    want = interpreted(kind, SOME)
    forget()
    training = Training(kind)
    for n, values in want.items():
        close(training.step(n), values, f"{kind.__name__}, batch {n}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETS)
def test_every_size_gives_the_values_of_a_program_of_its_own(kind, monkeypatch):
    sizes = [24, 40, *[n for n in range(1, 71) if n > 1 or kind is not Pictures]]
    training = Training(kind)
    found = {n: training.step(n) for n in sizes}
    forget()
    make = executable.Executable
    monkeypatch.setattr(executable, "Executable", lambda *a: make(*a[:3], dynamic=False))
    training, differ = Training(kind), []
    for n in sizes:
        own = training.step(n)
        for got, want in zip(found[n], own, strict=True):
            rounding = 4 * np.finfo(np.float32).eps * np.max(np.abs(want))
            np.testing.assert_allclose(
                got, want, rtol=0, atol=rounding, err_msg=f"{kind.__name__}, batch {n}"
            )
        if any(not np.array_equal(a, b) for a, b in zip(found[n], own, strict=True)):
            differ.append(n)
    # A sum over at most 32 examples is unrolled where the program is of one size, and so is in
    # another order; beyond that only a few rows have a kernel of their own kind.
    large = [n for n in sizes if n > 32]
    assert len([n for n in differ if n > 32]) <= len(large) // 4, differ


@pytest.mark.parametrize("kind", [Perceptron, Attention])
def test_a_third_size_finds_its_kernels(kind):
    training = Training(kind)
    training.step(40)
    training.step(24)
    before = dict(jit.statistics)
    for n in (31, 29, 30):
        training.step(n)
    made = jit.statistics["compiled"] + jit.statistics["loaded"]
    assert made - before["compiled"] - before["loaded"] <= 4       # of some hundred


def executables(monkeypatch):
    made = []
    make = executable.Executable

    def noting(*args):
        made.append(make(*args))
        return made[-1]
    monkeypatch.setattr(executable, "Executable", noting)
    return made


def test_the_first_size_has_kernels_of_its_own(monkeypatch):
    made = executables(monkeypatch)
    w = facula.tensor(np.ones((8, 8), np.float32))
    w.numpy()

    def run(n):
        made.clear()
        x = facula.tensor(np.ones((n, 8), np.float32))
        ((x @ w).relu().sum(0) / n).numpy()
        return made[-1] if made else None
    assert not run(30).shared
    assert run(30) is None
    assert run(20).shared and run(21).shared


def test_another_network_is_not_another_batch(monkeypatch):
    made = executables(monkeypatch)

    def train(wide):
        net = nn.Sequential(nn.Linear(6, wide), nn.ReLU(), nn.Linear(wide, 3))
        optimizer = optim.SGD(net.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            net(facula.ones(4, 6)).sum().backward()
            optimizer.step()
            facula.rand(1)._peek()
            [w.detach().numpy() for w in net.parameters()]
        return [m for m in made if len(m.steps) > 10]
    train(16)
    made.clear()
    again = train(32)
    assert again and not any(m.shared for m in again)


def test_what_is_met_often_gets_kernels_of_its_own(monkeypatch):
    monkeypatch.setattr(executable, "_OFTEN", 0.0)
    made = executables(monkeypatch)
    w = facula.tensor(np.arange(64, dtype=np.float32).reshape(8, 8) % 5)

    def run(n):         # small whole numbers: sums in any order
        x = facula.tensor(np.arange(8 * n, dtype=np.float32).reshape(n, 8) % 7)
        return (x @ w).relu().sum(0).numpy().copy()
    run(30)
    first = run(20)
    assert not made[-1].shared          # after its first run
    assert np.array_equal(first, run(20))
    monkeypatch.setattr(executable, "_OFTEN", 1e-4)
    second = run(21)
    assert made[-1].shared
    for _ in range(2000):
        assert np.array_equal(second, run(21))
    assert not made[-1].shared


def test_a_second_size_is_interpreted_until_it_is_worth_compiling():
    class Own(Perceptron):      # of which the process has no kernels from another test
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(20, 43), nn.ReLU(), nn.Linear(43, 5))

    with config.override(INTERPRET=True):
        training = Training(Own)
        for _ in range(4):
            training.step(40)
        before = jit.statistics["compiled"] + jit.statistics["loaded"]
        for _ in range(3):
            training.step(24)
        assert jit.statistics["compiled"] + jit.statistics["loaded"] == before
        for n in range(2, 40):      # of so many sizes that it is
            for _ in range(3):
                training.step(n)
        assert jit.statistics["compiled"] + jit.statistics["loaded"] > before


def test_explain_names_the_argument_and_the_sizes():
    net = Perceptron()

    @facula.compile
    def forward(picture):
        with facula.no_grad():
            return net(picture)
    for n in (9, 9, 5, 5, 4):
        forward(facula.ones(n, 20)).numpy()
    text = forward.explain()
    assert "compiled again: dimension 0 of picture is 5, and was 9 (kernels that serve" in text
    assert "dimension 0 of picture is 4, and was 9" in text
    facula.ones(3, 2).numpy()
    for n in (6, 8):
        x = facula.tensor(np.ones((n, 20), np.float32))
        with facula.no_grad():
            net(x).numpy()
    assert "compiled again: dimension 0 of what is [8, 20] now is 8" in facula.explain()


@pytest.mark.parametrize("dynamic", [True, False])
def test_dynamic_is_what_was_asked_for(dynamic, monkeypatch):
    made = executables(monkeypatch)

    @facula.compile(dynamic=dynamic)
    def double(x):
        return (x * 2).sum(1)
    for n in (5, 6, 7):
        assert double(facula.ones(3, n)).tolist() == [2 * n] * 3
    own = [m for m in made if m.again is not None and len(m.steps) > 1]
    assert own and all(m.shared is dynamic for m in own)
    assert ("any size" in double.explain()) is dynamic
    assert ("of its own" in double.explain()) is not dynamic


def graph(rng, n):
    """A random function of a batch of `n` rows, with gradients: name -> array."""
    def value(*shape):
        return facula.tensor(np.random.default_rng(shape).integers(-8, 9, shape) / 4
                             ).to(facula.float32)
    x, w = value(n, 6).requires_grad_(), value(6, 6).requires_grad_()
    known = [x, value(n, 6), x @ w]
    for _ in range(int(rng.integers(4, 11))):
        a, b = (known[int(rng.integers(len(known)))] for _ in range(2))
        choice = int(rng.integers(14))
        if choice == 0:
            c = a * b - 0.5
        elif choice == 1:
            c = (a @ w).tanh()
        elif choice == 2:
            c = a - a.mean(0, keepdim=True)
        elif choice == 3:
            c = a.softmax(-1) + b
        elif choice == 4:
            c = facula.where(a > b, a, b * 0.5)
        elif choice == 5:
            c = (a - a.mean(1, keepdim=True)) / (a.var(1, keepdim=True) + 1).sqrt()
        elif choice == 6:
            c = facula.cat([a[1:], b[:1]], 0) if n > 1 else b
        elif choice == 7:
            c = a.flip(0) + b.cumsum(0) / n
        elif choice == 8:
            c = a @ ((a.transpose(0, 1) @ b) / n).tanh()
        elif choice == 9:
            c = (a.reshape(n, 2, 3).transpose(1, 2).reshape(n, 6) + b).sigmoid()
        elif choice == 10:
            c = F.pad(a, (0, 0, 1, 0))[:n] + b
        elif choice == 11:
            c = a * a.amax(0) + b.amin(1, keepdim=True)
        elif choice == 12:
            c = a + facula.arange(n, dtype=facula.float32).reshape(n, 1) / n
        else:
            c = F.gelu(F.linear(a, w[:3])).repeat(1, 2)
        known.append(c * 0.5)
    total = sum((k * (i + 1)).mean() for i, k in enumerate(known[2:]))
    total.backward()
    return [known[-1].detach().numpy().copy(), total.item(), x.grad.numpy().copy(),
            w.grad.numpy().copy()]


def fuzz(seed, sizes):
    with config.override(JIT=False):
        want = [graph(np.random.default_rng(seed), n) for n in sizes]
    forget()
    for n, values in zip(sizes, want, strict=True):
        for got, expected in zip(graph(np.random.default_rng(seed), n), values, strict=True):
            np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3,
                                       err_msg=f"seed {seed}, batch {n}")


@pytest.mark.parametrize("seed", range(8))
def test_random_graphs(seed):
    fuzz(seed, [12, 20, 15, 33, 1, 64])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 200))
def test_many_random_graphs(seed):
    fuzz(seed, [12, 20, 15, 33, 1, 64, 2, 100, 7])
