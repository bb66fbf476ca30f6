"""Recurrent layers whose steps are one loop: values and derivatives of every kind."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula import nn
from facula.autograd import grad, gradcheck, gradgradcheck

KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN,
         "relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k)}


def numbers(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def torch_kind(torch, name, *args, **kw):
    if name == "relu":
        kw["nonlinearity"] = "relu"
    return {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}.get(name, torch.nn.RNN)(*args, **kw)


def pair(torch, name, *args, **kw):
    """The same layer in both libraries, in float64."""
    theirs = torch_kind(torch, name, *args, **kw).double()
    ours = KINDS[name](*args, **kw).double()
    ours.load_state_dict({k: facula.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    return theirs, ours


def results(lib, layer, x, weight, weight2):
    """Output, gradients, and the gradients of a function of the gradients."""
    x = x.requires_grad_()
    out, last = layer(x)
    last = last if isinstance(last, tuple) else (last,)
    loss = (out * weight).sum() + sum((s * s).sum() for s in last)
    params = [x, *layer.parameters()]
    first = lib.autograd.grad(loss, params, create_graph=True)
    again = lib.autograd.grad((first[0] * weight2).sum() + (first[2] ** 2).sum(), params,
                              allow_unused=True)
    return [t.detach().numpy() for t in (out, *last, *first, *[a for a in again
                                                               if a is not None])]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("sizes", "both"), [((1, 2, 3, 4), False), ((2, 1, 1, 1), True),
                                             ((7, 5, 3, 17), False), ((5, 33, 2, 8), True)],
                         ids=str)
def test_second_derivatives_are_pytorchs(name, sizes, both):
    torch = pytest.importorskip("torch")
    t, n, width, h = sizes
    theirs, ours = pair(torch, name, width, h, bidirectional=both)
    x, a, b = (numbers(1, t, n, width), numbers(2, t, n, h * (1 + both)),
               numbers(3, t, n, width))
    want = results(torch, theirs, *(torch.tensor(v) for v in (x, a, b)))
    have = results(facula, ours, *(facula.tensor(v) for v in (x, a, b)))
    assert len(want) == len(have)
    for w, g in zip(want, have, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", KINDS)
def test_gradients_against_differences(name):
    layer = KINDS[name](2, 3, 2, bidirectional=name == "gru").double()
    x = facula.tensor(numbers(4, 3, 2, 2)).requires_grad_()
    count = 4 if name == "gru" else 2
    starts = [facula.tensor(numbers(5 + k, count, 2, 3)).requires_grad_()
              for k in range(2 if name == "lstm" else 1)]

    def call(x, *starts):
        out, last = layer(x, starts if name == "lstm" else starts[0])
        return (out, *last) if name == "lstm" else (out, last)

    assert gradcheck(call, (x, *starts))
    if name != "relu":
        assert gradgradcheck(call, (x, *starts))


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_forward_over_reverse_and_forward(name):
    """jvp against differences; the Hessian's product forward over reverse against both reverse."""
    layer = KINDS[name](3, 4).double()
    params = {k: p.detach() for k, p in layer.named_parameters()}
    x = facula.tensor(numbers(6, 4, 2, 3))
    move = {k: facula.tensor(numbers(7, *p.shape)) for k, p in params.items()}

    def loss(p):
        out, _ = facula.func.functional_call(layer, p, (x,))
        return (out ** 2).sum()

    def moved(by):
        return {k: p + by * move[k] for k, p in params.items()}

    value, slope = facula.func.jvp(loss, (params,), (move,))
    eps = 1e-6
    want = (loss(moved(eps)).item() - loss(moved(-eps)).item()) / (2 * eps)
    assert slope.item() == pytest.approx(want, rel=1e-6)
    gradient = facula.func.grad(loss)
    _, product = facula.func.jvp(gradient, (params,), (move,))
    high, low = gradient(moved(eps)), gradient(moved(-eps))
    for k, p in product.items():
        np.testing.assert_allclose(p.numpy(), ((high[k] - low[k]) / (2 * eps)).numpy(),
                                   rtol=1e-5, atol=1e-6)


def test_batched_by_vmap():
    layer = nn.LSTM(3, 4).double()
    x = facula.tensor(numbers(8, 5, 4, 2, 3))
    each = facula.stack([layer(x[k])[0] for k in range(5)])
    np.testing.assert_allclose(facula.func.vmap(lambda one: layer(one)[0])(x).detach().numpy(),
                               each.detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_run_between_forward_and_backward(name):
    """The states are there, the gates are not: they are made of the states."""
    found = []
    for read in (False, True):
        facula.manual_seed(0)
        layer = KINDS[name](3, 20, batch_first=True)
        x = facula.tensor(numbers(9, 4, 6, 3, dtype=np.float32)).requires_grad_()
        loss = (layer(x)[0] ** 2).sum()
        if read:
            assert loss.item() > 0
        loss.backward()
        found.append([x.grad.numpy(), *[p.grad.numpy() for p in layer.parameters()]])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_odd_inputs(name):
    """No sequences, one step, not contiguous, frozen weights, only the state's gradient."""
    layer = KINDS[name](3, 5, batch_first=True)
    out, last = layer(facula.zeros(0, 4, 3))
    assert out.shape == (0, 4, 5)
    out.sum().backward()
    x = facula.tensor(numbers(10, 3, 8, 6, dtype=np.float32))
    strided = x.transpose(0, 2)[::2]                            # [3, 8, 3]
    np.testing.assert_array_equal(layer(strided)[0].detach().numpy(),
                                  layer(strided.contiguous())[0].detach().numpy())
    for p in layer.parameters():
        p.requires_grad_(False)
    given = strided.clone().requires_grad_()
    layer(given)[0].sum().backward()
    assert given.grad.shape == given.shape
    start = facula.zeros(1, 3, 5).requires_grad_()
    states = (start, facula.zeros(1, 3, 5)) if name == "lstm" else start
    layer(strided, states)[0].sum().backward()
    assert start.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["lstm", "gru"])
@pytest.mark.parametrize("lengths", [(5, 5, 2, 2, 1), (6, 1), (3, 2, 1)])
def test_packed_runs(name, lengths):
    """Steps with equally many rows are a loop each; backwards, sequences join."""
    torch = pytest.importorskip("torch")
    theirs, ours = pair(torch, name, 3, 4, 2, bidirectional=True)
    data = numbers(11, max(lengths), len(lengths), 3)
    found = []
    for lib, layer in ((torch, theirs), (facula, ours)):
        x = lib.tensor(data).requires_grad_()
        packed = lib.nn.utils.rnn.pack_padded_sequence(x, list(lengths))
        out, last = layer(packed)
        out, _ = lib.nn.utils.rnn.pad_packed_sequence(out)
        last = last if name == "lstm" else (last,)
        ((out ** 2).sum() + sum((s ** 3).sum() for s in last)).backward()
        found.append([out.detach().numpy(), *[s.detach().numpy() for s in last], x.grad.numpy(),
                      *[p.grad.numpy() for p in layer.parameters()]])
    for want, have in zip(*found, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-9, atol=1e-11)


def test_nan_and_infinity_stay_in_their_rows():
    layer = nn.RNN(2, 3, nonlinearity="relu")
    x = facula.ones(4, 2, 2)
    x[1, 0, 0] = float("nan")
    out = layer(x)[0].detach().numpy()
    assert np.isnan(out[1:, 0]).all() and np.isfinite(out[:, 1]).all() and \
        np.isfinite(out[0]).all()


def test_what_is_recorded_does_not_grow_with_time():
    counts = []
    for steps in (2, 300):
        layer = nn.GRU(2, 3)
        out = layer(facula.ones(steps, 2, 2))[0]
        (g,) = grad(out.sum(), [layer.weight_hh_l0])
        counts.append(len(str(facula.viz.graph(g)).splitlines()))
        assert np.isfinite(g.numpy()).all()
    assert counts[0] == counts[1] > 5
