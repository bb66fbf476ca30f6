"""Parameters in memory that NumPy has, too: every step is written there, as in PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import nn, optim

OPTIMIZERS = {"SGD": lambda p: optim.SGD(p, 0.1), "Adam": lambda p: optim.Adam(p, 0.01),
              "momentum": lambda p: optim.SGD(p, 0.1, momentum=0.9)}


def given(net, array):
    net.weight = nn.Parameter(facula.from_numpy(array))


def as_data(net, array):
    net.weight.data = facula.from_numpy(array)


def assigned(net, array):
    net.load_state_dict({"weight": facula.from_numpy(array), "bias": facula.zeros(4)}, assign=True)


@pytest.mark.parametrize("compiled", [False, True], ids=["", "compiled"])
@pytest.mark.parametrize("put", [given, as_data, assigned])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
def test_numpy_sees_every_step(name, put, compiled, turned):
    start = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    array = np.asarray(start, order="F" if turned else "C").copy("K")
    nets = [nn.Linear(3, 4) for _ in range(2)]
    with facula.no_grad():
        for net in nets:
            net.bias.zero_()
        nets[1].weight.copy_(facula.tensor(start))
    put(nets[0], array)
    x = facula.ones(2, 3)

    def stepping(net):
        optimizer = OPTIMIZERS[name](net.parameters())

        def step():
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
        return facula.compile(step) if compiled else step

    steps = [stepping(net) for net in nets]
    for _ in range(6):
        for step in steps:
            step()
        np.testing.assert_allclose(array, nets[1].weight.detach().numpy(), 1e-5, 1e-6)
        np.testing.assert_array_equal(array, nets[0].weight.detach().numpy())
    assert not np.allclose(array, start)
