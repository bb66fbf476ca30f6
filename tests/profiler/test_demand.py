"""What a program has to do at least, counted; and the roof it is held against."""

from __future__ import annotations

import pytest

import facula
from facula import config, nn, optim
from facula.profiler import profile, roof
from facula.profiler.roof import Bandwidth, Roof
from facula.profiler.work import Demand


@pytest.fixture(autouse=True)
def compiled():
    with config.override(INTERPRET=False):
        yield


def demand(run, times=1):
    """Of `run`, which has run before."""
    run()
    with profile() as p:
        for _ in range(times):
            run()
    return p.demand()


@pytest.mark.parametrize("times", [1, 3])
def test_a_training_step_has_the_products_of_its_layers_and_moves_its_parameters(times):
    sizes, batch = (200, 300, 10), 64
    model = nn.Sequential(nn.Linear(200, 300), nn.ReLU(), nn.Linear(300, 10))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    x, y = facula.rand(batch, 200), facula.randint(0, 10, (batch,))

    def step():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        facula.graph.record.flush(facula.graph.record.recorder(), True)

    for _ in range(6):
        step()
    found = demand(step, times)
    # each weight three times, but for the gradient of the images, which nobody asks for
    first, second = sizes[0] * sizes[1], sizes[1] * sizes[2]
    assert found.products == times * 2 * batch * (2 * first + 3 * second)
    assert found.short == 0 and found.spared == 0
    parameters = 4 * (first + second + 310)
    assert times * (parameters + x.nbytes) <= found.read <= times * 1.1 * (parameters + x.nbytes)
    # the parameters, and their gradients where nothing says that they are not wanted
    assert times * parameters <= found.written <= times * 2.1 * parameters


def test_what_is_computed_between_is_not_counted_and_what_is_prepared_is():
    x = facula.rand(1000)
    x._peek()
    found = demand(lambda: ((x * 2).exp() + 1)._peek())
    assert found == Demand(read=4000, written=4000)


def test_products_of_bfloat16_are_counted_apart():
    a, b = facula.rand(32, 48).bfloat16(), facula.rand(48, 16).bfloat16()
    c = facula.rand(32, 48)
    for t in (a, b, c):
        t._peek()
    assert demand(lambda: (a @ b)._peek())[:2] == (2 * 32 * 48 * 16,) * 2
    assert demand(lambda: (c @ b.float())._peek())[:2] == (2 * 32 * 48 * 16, 0)


def network(x, padding):
    """Convolutions of 3x3, forward and back."""
    x.grad = None
    for conv in LAYERS:
        conv.zero_grad()
    y = x
    for conv in LAYERS:
        y = nn.functional.relu(nn.functional.conv2d(y, conv.weight, padding=padding))
    y.sum().backward()
    x.grad._peek()
    for conv in LAYERS:
        conv.weight.grad._peek()


LAYERS = [nn.Conv2d(32, 32, 3, bias=False) for _ in range(2)]


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("filtered", [True, False])
def test_convolutions_are_counted_as_plain_sums_whatever_computes_them(padding, filtered):
    x = facula.rand(4, 32, 16, 16, requires_grad=True)
    sizes = [16 - 2 * (k + 1) * (1 - padding) for k in range(2)]
    plain = sum(2 * 4 * 32 * n * n * 32 * 9 for n in sizes)
    with config.override(WINOGRAD=filtered):
        found = demand(lambda: network(x, padding))
    # The result, the gradient of what it reads, and that of the weight.
    assert found.products == pytest.approx(3 * plain, rel=1e-9)
    if not filtered:
        assert found.spared == 0
    elif facula.codegen.target.target().lanes(4) >= 8:
        # Of 36 multiplications 20 are spared, at edges and in small layers fewer.
        assert 0.3 < found.spared / found.products <= 1 - 16 / 36 + 1e-9


def test_the_roof(monkeypatch):
    monkeypatch.setattr(roof, "_ROUNDS", 400)
    monkeypatch.setattr(roof, "WHOLE", 1 << 20)
    found = roof.measure()
    target = facula.codegen.target.target()
    assert found.gflops > 0 and found.gbytes > 0
    assert (found.short is not None) == (target.pairs or target.tiles)
    assert found.short is None or found.short > 0


@pytest.mark.parametrize("nbytes", [0, 1, 100_000, 3 << 20])
def test_bandwidth_of_any_size(nbytes, monkeypatch):
    monkeypatch.setattr(roof, "_REPEATED", 4 << 20)
    copy, read = roof.bandwidth(nbytes)
    assert copy > 0 and read > 0


def test_least_times():
    r = Roof(100.0, 10.0, 400.0)
    assert r.seconds(1e9, 1e6) == 0.01 and r.seconds(1e6, 1e9) == 0.1
    assert r.seconds(1e9, 0, 4e9) == 0.02
    assert Roof(100.0, 10.0).seconds(0, 0, 1e9) == 0.01
    # reading alone is slower here than a copy: 4 GB take as long as they take to be read
    assert Bandwidth(20.0, 10.0).seconds(4e9, 1e9) == 0.4
    assert Bandwidth(20.0, 10.0).seconds(1e9, 9e9) == 0.5
    assert Bandwidth(10.0, 20.0).seconds(1e9, 1e9) == 0.1
