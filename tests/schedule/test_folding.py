"""What follows a convolution channel by channel goes into its weight, and only that."""

from __future__ import annotations

import numpy as np
import pytest

import facula
import facula.nn.functional as F
from facula import config, nn
from facula.schedule import executable, layout


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Everything is compiled, and small convolutions are on blocks of channels."""
    monkeypatch.setattr(layout, "LEAST", 0)
    monkeypatch.setattr(layout, "ALONE", 0)
    monkeypatch.setattr(config.flag, "INTERPRET", False)


def drawn(*shape):
    values = np.random.default_rng(sum(shape)).standard_normal(shape)
    return facula.tensor(values.astype(np.float32))


def left(executable_):
    """The operations of a program that every run has, other than movement and reading."""
    return sorted(s.op for s in executable_.steps
                  if s.op not in ("leaf", "reshape", "permute", "expand", "slice", "alias"))


def same(function, *args):
    """What `function` computes, held against float64."""
    for a in args:
        a._peek()
    with facula.no_grad():
        have = function(*args).numpy()
        want = function(*[a.double() for a in args]).numpy()
    assert np.allclose(have, want, 1e-4, 1e-5)


def test_a_batch_norm_costs_one_addition(made):
    net = nn.Sequential(nn.Conv2d(16, 24, 3), nn.BatchNorm2d(24), nn.ReLU()).eval()
    net[1].running_mean.uniform_(-1, 1)
    net[1].running_var.uniform_(0.5, 2)
    net[1].weight.data.uniform_(-2, 2)
    x = drawn(2, 16, 10, 10)
    for v in (*net.state_dict().values(), x):
        v._peek()
    with facula.no_grad():
        first = net(x).numpy()
        assert left(made[-1]) == ["add", "conv_blocks", "relu"]
        net[1].running_var.fill_(3.0)
        net[1].bias.data.fill_(-0.25)
        second = net(x).numpy()
        want = net.double()(x.double()).numpy()
    assert not np.allclose(first, second) and np.allclose(second, want, 1e-4, 1e-5)


@pytest.mark.parametrize("function", [
    lambda y, a, b: (y - a) / b, lambda y, a, b: (a - y) * b, lambda y, a, b: a - (b - y) * b,
    lambda y, a, b: y * a * b, lambda y, a, b: (b - y * a) + b,
    lambda y, a, b: (facula.ones(32, 1, 1, dtype=y.dtype) - y) / b],
    ids=["sub-div", "rsub-mul", "rsub-rsub-mul", "mul-mul", "mul-rsub-add", "numbers"])
def test_every_form_of_it(function, made):
    a, b = drawn(32, 1, 1), drawn(1, 32, 1, 1).abs() + 0.5
    same(lambda x, w, a, b: function(F.conv2d(x, w), a, b), drawn(1, 16, 7, 7),
         drawn(32, 16, 3, 3), a, b)
    folded = [m for m in made if isinstance(m, executable._Halved)]
    assert folded and left(folded[-1]) in (["conv_blocks"], ["add", "conv_blocks"],
                                           ["add", "conv_blocks", "full"])


@pytest.mark.parametrize("function", [
    lambda y, a: y * a + y, lambda y, a: facula.cat([y, y * a], 1), lambda y, a: a / (y + 99),
    lambda y, a: y * a.reshape(1, 1, 4, 8).expand(1, 1, 4, 8)],
    ids=["used twice", "kept", "divisor", "by place"])
def test_what_is_no_such_chain_stays(function, made):
    same(lambda x, w, a: function(F.conv2d(x, w), a), drawn(1, 16, 6, 10), drawn(32, 16, 3, 3),
         drawn(32, 1, 1))
    blocked = [m for m in made if isinstance(m, executable._Halved)]
    assert blocked and ({"mul", "div"} & set(left(blocked[-1])))


def test_one_weight_of_two_convolutions():
    same(lambda x, w, a: F.conv2d(F.conv2d(x, w) * a, w) * (a + 1), drawn(1, 16, 9, 9),
         drawn(16, 16, 3, 3), drawn(16, 1, 1))


def test_a_factor_made_of_the_input_stays():
    same(lambda x, w: F.conv2d(x, w) * x.mean((2, 3), keepdim=True), drawn(2, 16, 9, 9),
         drawn(16, 16, 3, 3))
