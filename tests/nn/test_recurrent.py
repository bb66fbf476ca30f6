"""Recurrent layers, cells and packed sequences against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import nn

RNG = np.random.default_rng(5)

CASES = {
    "rnn": lambda n: n.RNN(3, 4), "rnn-relu": lambda n: n.RNN(3, 4, 2, "relu", batch_first=True),
    "lstm": lambda n: n.LSTM(3, 4, 2, bidirectional=True),
    "lstm-projected": lambda n: n.LSTM(3, 4, 2, bias=False, proj_size=2),
    "gru": lambda n: n.GRU(3, 4, 2, batch_first=True, bidirectional=True),
}


def draw(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def flat(out):
    if isinstance(out, (tuple, list)):
        return [t for part in out for t in flat(part)]
    return [out]


def check(make, call, arrays):
    """Outputs and gradients of one module, with the same weights, in both libraries."""
    torch = pytest.importorskip("torch")
    modules = {lib: make(lib.nn) for lib in (torch, facula)}
    assert repr(modules[facula]) == repr(modules[torch])
    state = modules[torch].state_dict()
    assert list(modules[facula].state_dict()) == list(state)
    modules[facula].load_state_dict({k: facula.tensor(v.numpy()) for k, v in state.items()})
    found = []
    for lib, module in modules.items():
        xs = [lib.tensor(a) for a in arrays]
        for x in xs:
            x.requires_grad_()
        outs = [t for t in flat(call(lib, module, *xs)) if t.dtype == lib.float32]
        sum((t * t).sum() for t in outs).backward()
        found.append([t.detach().numpy() for t in outs] + [x.grad.numpy() for x in xs]
                     + [p.grad.numpy() for p in module.parameters()])
    for want, have in zip(*found, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-3, atol=5e-5)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batched", [True, False])
def test_layers(name, batched):
    check(CASES[name], lambda lib, m, x: m(x), [draw(2, 3, 3) if batched else draw(3, 3)])


def test_given_states():
    check(CASES["lstm"], lambda lib, m, x, h, c: m(x, (h, c)),
          [draw(3, 2, 3), draw(4, 2, 4), draw(4, 2, 4)])


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_packed(name):
    def call(lib, m, x):
        r = lib.nn.utils.rnn
        packed = r.pack_padded_sequence(x, [2, 4, 1], batch_first=True, enforce_sorted=False)
        out, last = m(packed)
        return r.pad_packed_sequence(out, padding_value=0.5)[0], last
    check(CASES[name], call, [draw(3, 4, 3)])


@pytest.mark.parametrize("name", ["RNNCell", "LSTMCell", "GRUCell"])
@pytest.mark.parametrize("shape", [(2, 3), (3,)])
def test_cells(name, shape):
    check(lambda n: getattr(n, name)(3, 4), lambda lib, m, x: m(x), [draw(*shape)])


def test_sequences():
    torch = pytest.importorskip("torch")
    lengths = (3, 2, 1)
    arrays = [draw(n, 2) for n in lengths]
    found = []
    for lib in (torch, facula):
        r = lib.nn.utils.rnn
        xs = [lib.tensor(a) for a in arrays]
        packed = r.pack_sequence(xs)
        padded, counts = r.pad_packed_sequence(packed, total_length=5)
        found.append([packed.data, packed.batch_sizes, padded, counts,
                      r.pad_sequence(xs, True, 1.5, "left"), *r.unpack_sequence(packed)])
        with pytest.raises(ValueError, match="total_length"):
            r.pad_packed_sequence(packed, total_length=2)
        with pytest.raises(RuntimeError, match="decreasing order"):
            r.pack_sequence(xs[::-1])
    for want, have in zip(*found, strict=True):
        np.testing.assert_array_equal(have.numpy(), want.numpy())


def test_dropout_between_layers():
    m = nn.GRU(3, 4, 2, dropout=1.0)
    x = facula.ones(2, 1, 3)
    zero = facula.zeros(2, 1, 4)
    out, _ = m(x)
    m.eval()
    assert not np.allclose(out.detach().numpy(), m(x, zero)[0].detach().numpy())


def test_errors():
    torch = pytest.importorskip("torch")
    for lib in (torch, facula):
        n, x = lib.nn, lib.ones(2, 1, 3)
        for error, make in ((ValueError, lambda n=n: n.LSTM(3, 0)),
                            (TypeError, lambda n=n: n.LSTM(3.0, 1)),
                            (ValueError, lambda n=n: n.GRU(3, 4, proj_size=2)),
                            (ValueError, lambda n=n: n.RNN(3, 4, nonlinearity="elu")),
                            (ValueError, lambda n=n: n.LSTM(3, 4, dropout=2.0))):
            with pytest.raises(error):
                make()
        m = n.LSTM(3, 4)
        with pytest.raises(ValueError, match="2D or 3D"):
            m(x[0, 0])
        with pytest.raises(ValueError, match="dtype"):
            m(x.double())
        with pytest.raises(RuntimeError, match="input_size"):
            m(lib.ones(2, 1, 5))
        with pytest.raises(RuntimeError, match=r"hidden\[0\] size"):
            m(x, (lib.ones(1, 2, 4), lib.ones(1, 1, 4)))
        with pytest.raises(RuntimeError, match="3-D"):
            m(x, (lib.ones(1, 4), lib.ones(1, 4)))
        with pytest.raises(RuntimeError, match="input_size"):
            n.GRUCell(3, 4)(lib.ones(2, 5))
        with pytest.raises(ValueError, match="1D or 2D"):
            n.RNNCell(3, 4)(x)
