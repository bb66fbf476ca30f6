"""Shampoo and SOAP against NumPy, step by step."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula.optim import SOAP, Shampoo

RNG = np.random.default_rng(8)


def drawn(step, shape):
    return np.random.default_rng(50 + step).normal(size=shape)


def run(opt, p, steps):
    for k in range(steps):
        p.grad = facula.tensor(drawn(k, tuple(p.shape)))
        opt.step()
    return np.array(p.detach().numpy())


def power(a, e, eps=1e-6):
    w, v = np.linalg.eigh(a)
    return (v * (np.maximum(w, 0) + eps) ** e) @ v.T


@pytest.mark.parametrize("shape", [(4, 3), (5,), (2, 3, 2), ()])
@pytest.mark.parametrize("settings", [{"graft": False, "every": 1, "momentum": 0.0},
                                      {"every": 2}, {"beta2": 0.9, "weight_decay": 0.1,
                                                     "every": 1}, {"max_dim": 3, "every": 1}])
def test_shampoo(shape, settings):
    start = RNG.normal(size=shape)
    p = facula.tensor(start.copy()).requires_grad_()
    got = run(Shampoo([p], lr=0.1, **settings), p, 5)
    graft, every = settings.get("graft", True), settings["every"]
    beta, decay = settings.get("beta2", 1.0), settings.get("weight_decay", 0.0)
    most, mu = settings.get("max_dim", 2048), settings.get("momentum", 0.9)
    w, buffer = start.copy(), np.zeros(shape)
    stats, roots = {}, {}
    for k in range(5):
        g = drawn(k, shape)
        out = g
        if shape:
            m = g.reshape(shape[0], -1)
            moments = {}
            if shape[0] <= most:
                moments["l"] = m @ m.T
            if len(shape) > 1 and m.shape[1] <= most:
                moments["r"] = m.T @ m
            for name, v in moments.items():
                stats[name] = stats.get(name, 0) * beta + v * (1 if beta == 1 else 1 - beta)
                if k % every == 0:
                    roots[name] = power(stats[name], -0.5 / len(moments))
            if "l" in moments:
                m = roots["l"] @ m
            if "r" in moments:
                m = m @ roots["r"]
            out = m.reshape(shape)
            if graft and moments:
                out = out * np.linalg.norm(g) / np.linalg.norm(out)
        buffer = mu * buffer + out
        w = w * (1 - 0.1 * decay) - 0.1 * buffer
    np.testing.assert_allclose(got, w, rtol=1e-6, atol=1e-9)


def test_soap_of_vectors_is_adamw():
    start = RNG.normal(size=6)
    p, q = (facula.tensor(start.copy()).requires_grad_() for _ in range(2))
    got = run(SOAP([p], lr=0.01, betas=(0.9, 0.95)), p, 6)
    want = run(facula.optim.AdamW([q], lr=0.01, betas=(0.9, 0.95), weight_decay=0.01), q, 6)
    np.testing.assert_allclose(got, want, rtol=1e-10)


@pytest.mark.parametrize("shape", [(4, 3), (3, 2, 2)])
def test_soap(shape):
    start = RNG.normal(size=shape)
    p = facula.tensor(start.copy()).requires_grad_()
    got = run(SOAP([p], lr=0.05, every=2), p, 7)
    b, lr = 0.95, 0.05
    w, mean, square = start.copy(), np.zeros(shape), np.zeros((shape[0], start[0].size))
    left = right = 0.0
    ql = qr = None
    updates = 0
    for k in range(7):
        g = drawn(k, shape)
        m = g.reshape(shape[0], -1)
        if ql is not None:
            updates += 1
            mean = b * mean + (1 - b) * g
            square = b * square + (1 - b) * (ql.T @ m @ qr) ** 2
            step = ql.T @ mean.reshape(m.shape) @ qr / (
                np.sqrt(square / (1 - b ** updates)) + 1e-8)
            w = w * (1 - lr * 0.01) - lr / (1 - b ** updates) * (ql @ step @ qr.T).reshape(shape)
        left, right = b * left + (1 - b) * m @ m.T, b * right + (1 - b) * m.T @ m
        if ql is None:
            ql, qr = (np.linalg.eigh(a)[1][:, ::-1] for a in (left, right))
        elif (k + 1) % 2 == 0:
            order = np.argsort(-np.diag(ql.T @ left @ ql), kind="stable")
            ql, square = np.linalg.qr(left @ ql[:, order])[0], square[order]
            order = np.argsort(-np.diag(qr.T @ right @ qr), kind="stable")
            qr, square = np.linalg.qr(right @ qr[:, order])[0], square[:, order]
    np.testing.assert_allclose(got, w, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("make", [lambda p: Shampoo(p, lr=0.05, every=2),
                                  lambda p: SOAP(p, lr=0.05, every=2)])
def test_state_dict_carries_on(make):
    start = RNG.normal(size=(3, 4))
    p = facula.tensor(start).requires_grad_()
    opt = make([p])
    run(opt, p, 3)
    q = p.detach().clone().requires_grad_()
    other = make([q])
    other.load_state_dict(opt.state_dict())
    for k in range(3, 6):
        for one, o in ((p, opt), (q, other)):
            one.grad = facula.tensor(drawn(k, (3, 4)))
            o.step()
    np.testing.assert_allclose(q.detach().numpy(), p.detach().numpy(), rtol=1e-10)


def test_they_beat_plain_descent_where_sides_are_badly_scaled():
    a, b = np.diag(10.0 ** np.linspace(0, -2, 6)), np.diag(10.0 ** np.linspace(0, -2, 5))
    target = facula.tensor(a @ np.random.default_rng(1).normal(size=(6, 5)) @ b)
    left, right = facula.tensor(a), facula.tensor(b)

    def train(make):
        w = facula.zeros(6, 5, dtype=facula.float64, requires_grad=True)
        opt = make([w])
        for _ in range(150):
            opt.zero_grad()
            loss = ((left @ w @ right - target) ** 2).sum()
            loss.backward()
            opt.step()
        return loss.item()

    plain = min(train(lambda p, r=r: facula.optim.SGD(p, lr=r, momentum=0.9))
                for r in (0.05, 0.2))
    assert train(lambda p: Shampoo(p, lr=0.6, graft=False, momentum=0.5, every=1)) < plain
    assert train(lambda p: SOAP(p, lr=0.1, weight_decay=0.0)) < plain


def test_what_is_refused():
    p = facula.zeros(2, 2, requires_grad=True)
    for make, settings in ((Shampoo, {"lr": -1.0}), (Shampoo, {"beta2": 0.0}),
                           (Shampoo, {"every": 0}), (SOAP, {"betas": (1.0, 0.9)}),
                           (SOAP, {"shampoo_beta": 1.0}), (SOAP, {"eps": -1.0})):
        with pytest.raises(ValueError, match="Invalid"):
            make([p], **settings)
    half = facula.zeros(2, 2, dtype=facula.float16, requires_grad=True)
    half.grad = facula.ones(2, 2, dtype=facula.float16)
    with pytest.raises(ValueError, match="float16"):
        Shampoo([half]).step()
