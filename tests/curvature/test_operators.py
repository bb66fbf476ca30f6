"""Curvature of whole models against dense matrices, and what operators make of products."""

from __future__ import annotations

import numpy as np
import pytest

import facula
import facula.nn as nn
import facula.nn.functional as F
from facula.curvature import (
    EmpiricalFisherOperator,
    FisherOperator,
    GaussNewtonOperator,
    HessianOperator,
    conjugate_gradients,
)
from facula.errors import (
    ClosureError,
    CurvatureError,
    DTypeError,
    GradientError,
    NotFiniteError,
    ShapeError,
)

RNG = np.random.default_rng(3)


def t(*shape):
    return facula.tensor(RNG.normal(size=shape))


def double(module):
    return module.to(facula.float64)


def mlp():
    facula.manual_seed(1)
    net = double(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))
    x, y = t(7, 4), facula.tensor(np.arange(7) % 3)
    return net, lambda: net(x), lambda z: F.cross_entropy(z, y)


def convolution():
    facula.manual_seed(2)
    net = double(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Softplus(), nn.AvgPool2d(2),
                               nn.Flatten(), nn.Linear(12, 2)))
    x, y = t(3, 2, 4, 4), t(3, 2)
    return net, lambda: net(x), lambda z: F.mse_loss(z, y)


def batch_norm(training):
    facula.manual_seed(3)
    net = double(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Sigmoid(),
                               nn.Linear(4, 2)))
    x, y = t(6, 3), t(6, 2)
    net(x)
    net.train(training)
    return net, lambda: net(x), lambda z: F.mse_loss(z, y, reduction="sum")


def recurrent(kind):
    facula.manual_seed(4)
    layer, head = double(kind(2, 3)), double(nn.Linear(3, 1))
    x, y = t(4, 5, 2), t(5, 1)
    net = nn.ModuleList([layer, head])

    def forward():
        out, _ = layer(x)
        return head(out[-1])
    return net, forward, lambda z: F.mse_loss(z, y)


def shared():
    """One matrix used there and, transposed, back."""
    facula.manual_seed(5)
    w = nn.Parameter(t(4, 3) * 0.5)
    b = nn.Parameter(t(4))
    net = nn.ParameterList([w, b])
    x = t(5, 4)

    def forward():
        return facula.tanh(x @ w) @ w.t() + b
    return net, forward, lambda z: F.mse_loss(z, x)


def attention():
    facula.manual_seed(6)
    net = double(nn.TransformerEncoderLayer(4, 2, 5, dropout=0.0, batch_first=True))
    x, y = t(2, 3, 4), t(2, 3, 4)
    return net, lambda: net(x), lambda z: F.mse_loss(z, y)


MODELS = {"mlp": mlp, "convolution": convolution,
          "batch norm, training": lambda: batch_norm(True),
          "batch norm, evaluation": lambda: batch_norm(False),
          "rnn": lambda: recurrent(nn.RNN), "lstm": lambda: recurrent(nn.LSTM),
          "gru": lambda: recurrent(nn.GRU), "shared": shared, "attention": attention}


def flat(tensors):
    return np.concatenate([np.array(g.detach().numpy()).reshape(-1) for g in tensors])


def moved(params, by, fn):
    """`fn()` with the parameters moved by a flat vector."""
    start = 0
    before = [p.detach().clone() for p in params]
    with facula.no_grad():
        for p in params:
            p.add_(facula.tensor(by[start:start + p.numel()].reshape(p.shape)))
            start += p.numel()
    out = fn()
    with facula.no_grad():
        for p, b in zip(params, before):
            p.copy_(b)
    return out


def differences(params, fn, v, step=1e-5):
    return (moved(params, step * v, fn) - moved(params, -step * v, fn)) / (2 * step)


@pytest.mark.parametrize("name", MODELS)
def test_products_of_models(name):
    net, forward, loss = MODELS[name]()
    params = list(net.parameters())
    hessian = HessianOperator(lambda: loss(forward()), net)

    def both():
        z = forward()
        return loss(z), z

    newton = GaussNewtonOperator(both, net)
    assert hessian.why == newton.why == ""
    n = sum(p.numel() for p in params)
    assert hessian.shape == (n, n)

    def gradient():
        return flat(facula.autograd.grad(loss(forward()), params, allow_unused=True,
                                         materialize_grads=True))

    np.testing.assert_allclose(hessian.gradient.numpy(), gradient(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(newton.gradient.numpy(), gradient(), rtol=1e-9, atol=1e-12)
    assert hessian.loss.item() == pytest.approx(loss(forward()).item(), rel=1e-12)
    for _ in range(4):                      # the first ones are interpreted, the last compiled
        v = RNG.normal(size=n)
        want = differences(params, gradient, v)
        got = (hessian @ facula.tensor(v)).numpy()
        assert np.abs(got - want).max() <= 1e-5 * max(1.0, np.abs(want).max())
        jv = differences(params, lambda: np.array(forward().detach().numpy()), v)
        z = forward()
        at = facula.tensor(np.array(z.detach().numpy())).requires_grad_()
        first, = facula.autograd.grad(loss(at), at, create_graph=True)
        hz, = facula.autograd.grad(first, at, facula.tensor(jv))
        want = flat(facula.autograd.grad(z, params, hz, allow_unused=True,
                                         materialize_grads=True))
        got = (newton @ facula.tensor(v)).numpy()
        assert np.abs(got - want).max() <= 1e-5 * max(1.0, np.abs(want).max())
        assert v @ np.array(got) >= -1e-9


def test_against_torch():
    torch = pytest.importorskip("torch")
    net, forward, loss = mlp()
    params = [torch.tensor(np.array(p.detach().numpy())) for p in net.parameters()]
    x, y = np.random.default_rng(9).normal(size=(7, 4)), np.arange(7) % 3
    mine = facula.tensor(x)

    def both():
        z = net(mine)
        return F.cross_entropy(z, facula.tensor(y)), z

    def model(*ps):
        h = torch.tanh(torch.tensor(x) @ ps[0].t() + ps[1])
        return h @ ps[2].t() + ps[3]

    def outer(z):
        return torch.nn.functional.cross_entropy(z, torch.tensor(y))

    args = tuple(range(4))
    blocks = torch.func.hessian(lambda *p: outer(model(*p)), argnums=args)(*params)
    want = torch.cat([torch.cat([b.reshape(p.numel(), -1) for b in row], 1)
                      for row, p in zip(blocks, params)])
    op = HessianOperator(lambda: both()[0], net)
    np.testing.assert_allclose(op.to_dense().numpy(), want.numpy(), rtol=1e-9, atol=1e-12)
    jac = torch.cat([j.reshape(21, -1) for j in torch.func.jacrev(model, argnums=args)(*params)],
                    1)
    hz = torch.func.hessian(outer)(model(*params)).reshape(21, 21)
    newton = GaussNewtonOperator(both, net)
    np.testing.assert_allclose(newton.to_dense().numpy(), (jac.t() @ hz @ jac).numpy(),
                               rtol=1e-9, atol=1e-12)


def test_weight_penalty_counts_in_full():
    net, forward, loss = mlp()

    def both(factor):
        z = forward()
        return loss(z) + factor * sum((p ** 2).sum() for p in net.parameters()), z

    plain = GaussNewtonOperator(lambda: both(0.0), net).to_dense().numpy()
    more = GaussNewtonOperator(lambda: both(0.3), net).to_dense().numpy()
    np.testing.assert_allclose(more - plain, 0.6 * np.eye(len(plain)), atol=1e-12)


def test_structural_damping_adds_the_hidden_states():
    net, _, _ = recurrent(nn.RNN)
    x, y = t(4, 5, 2), t(5, 1)

    def call():
        h, _ = net[0](x)
        z = net[1](h[-1])
        return F.mse_loss(z, y), z, h

    params = list(net.parameters())
    op = GaussNewtonOperator(call, net, hidden=0.5, batch_dim=1)
    none = GaussNewtonOperator(call, net, batch_dim=1)
    v = RNG.normal(size=op.shape[0])
    jh = differences(params, lambda: np.array(call()[2].detach().numpy()), v)
    want = 0.5 / 5 * flat(facula.autograd.grad(call()[2], params, facula.tensor(jh),
                                               allow_unused=True, materialize_grads=True))
    got = (op @ facula.tensor(v)).numpy() - (none @ facula.tensor(v)).numpy()
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-8)


def jacobian(forward, params):
    """d output / d parameters, `[samples, outputs, n]`."""
    z = forward()
    rows = []
    for i in range(z.shape[0]):
        for j in range(z.shape[1]):
            seed = np.zeros(tuple(z.shape))
            seed[i, j] = 1
            rows.append(flat(facula.autograd.grad(z, params, facula.tensor(seed),
                                                  retain_graph=True)))
    return np.array(rows).reshape(*z.shape, -1)


def test_fisher_of_the_usual_likelihoods():
    net, forward, _ = mlp()
    params = list(net.parameters())
    jac, z = jacobian(forward, params), np.array(forward().detach().numpy())
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    s = 1 / (1 + np.exp(-z))
    inner = {"categorical": [np.diag(a) - np.outer(a, a) for a in p],
             "bernoulli": [np.diag(a * (1 - a)) for a in s],
             "gaussian": [np.eye(3)] * 7, "poisson": [np.diag(np.exp(a)) for a in z]}
    for name, blocks in inner.items():
        want = sum(j.T @ b @ j for j, b in zip(jac, blocks))
        op = FisherOperator(forward, net, name, reduction="sum")
        assert op.loss is None
        np.testing.assert_allclose(op.to_dense().numpy(), want, rtol=1e-9, atol=1e-12)
        op = FisherOperator(forward, net, name)
        np.testing.assert_allclose(op.to_dense().numpy(), want / 7, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["categorical", "bernoulli", "gaussian", "poisson"])
def test_fisher_of_drawn_labels(name):
    net, forward, _ = mlp()
    want = FisherOperator(forward, net, name).to_dense().numpy()
    facula.manual_seed(0)
    drawn = FisherOperator(forward, net, name, samples=600).to_dense().numpy()
    assert np.linalg.norm(drawn - want) < 0.2 * np.linalg.norm(want)


def test_a_drawn_fisher_repeats_with_the_seed():
    net, forward, _ = mlp()
    seen = []
    for seed in (0, 0, 1):
        facula.manual_seed(seed)
        seen.append(FisherOperator(forward, net, "categorical", samples=4).to_dense().numpy())
    np.testing.assert_array_equal(seen[0], seen[1])
    assert not np.array_equal(seen[0], seen[2])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_empirical_fisher_is_the_second_moment_of_gradients(reduction):
    net, _, _ = mlp()
    params = list(net.parameters())
    x, y = t(7, 4), facula.tensor(np.arange(7) % 3)
    want = 0.0
    for i in range(7):
        g = flat(facula.autograd.grad(F.cross_entropy(net(x[i:i + 1]), y[i:i + 1]), params))
        want = want + np.outer(g, g) / (7 if reduction == "mean" else 1)

    def call():
        z = net(x)
        return F.cross_entropy(z, y, reduction=reduction), z

    op = EmpiricalFisherOperator(call, net, reduction)
    np.testing.assert_allclose(op.to_dense().numpy(), want, rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- calls in several graphs

class Cube(facula.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x ** 3

    @staticmethod
    def backward(ctx, g):
        x, = ctx.saved_tensors
        return 3 * x ** 2 * g


@pytest.mark.parametrize("how", ["value", "function"])
def test_calls_that_are_not_one_graph(how):
    w = t(3, 2).requires_grad_()
    b = t(2).requires_grad_()
    x = t(5, 3)

    def call(plain=False, penalty=0.2):
        h = x @ w + b
        if plain or how == "value":
            if not plain:
                assert h.sum().item() < 1e9          # looks at a value in the middle
            z = h ** 3
        else:
            z = Cube.apply(h)
        return (z ** 2).mean() + penalty * (w ** 2).sum(), z, h

    params = [w, b]
    one = HessianOperator(lambda: call(True)[0], params)
    two = HessianOperator(lambda: call()[0], params)
    assert one.why == "" and two.why != ""
    np.testing.assert_allclose(two.to_dense().numpy(), one.to_dense().numpy(), rtol=1e-8,
                               atol=1e-8)
    np.testing.assert_allclose(two.gradient.numpy(), one.gradient.numpy(), rtol=1e-10)
    one = GaussNewtonOperator(lambda: call(True), params, hidden=0.3)
    two = GaussNewtonOperator(call, params, hidden=0.3)
    assert one.why == "" and two.why != ""
    np.testing.assert_allclose(two.to_dense().numpy(), one.to_dense().numpy(), rtol=1e-8,
                               atol=1e-7)
    one = EmpiricalFisherOperator(lambda: call(True, 0.0)[:2], params)
    two = EmpiricalFisherOperator(lambda: call(False, 0.0)[:2], params)
    np.testing.assert_allclose(two.to_dense().numpy(), one.to_dense().numpy(), rtol=1e-8)


@pytest.mark.parametrize("how", ["value", "function"])
def test_an_operator_stays_where_the_parameters_were(how):
    w, x = t(3, 3).requires_grad_(), t(5, 3)

    def call():
        z = x @ w @ w
        if how == "function":
            z = Cube.apply(z)
        elif how == "value":
            assert z.sum().item() < 1e9
        return (z ** 2).mean(), z, (x @ w).tanh()

    operators = [HessianOperator(lambda: call()[0], w),
                 GaussNewtonOperator(call, w, hidden=0.3),
                 EmpiricalFisherOperator(lambda: call()[:2], w)]
    before = [op.to_dense().numpy() for op in operators]
    assert all(op.why for op in operators)
    with facula.no_grad():
        w.mul_(1.5)
    for op, was in zip(operators, before):
        np.testing.assert_array_equal(op.to_dense().numpy(), was)
        op.refresh()
        assert np.abs(op.to_dense().numpy() - was).max() > 0.1
    # The parameter itself is what it was: its gradient arrives at it.
    call()[0].backward()
    assert w.grad is not None


def test_outputs_of_autocast():
    """Products of outputs in half precision are float32, like the parameters."""
    facula.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    x, y = facula.randn(32, 4), facula.tensor(np.arange(32) % 3)

    def call(half=True):
        with facula.autocast("cpu", dtype=facula.bfloat16, enabled=half):
            z = net(x)
        return F.cross_entropy(z.float(), y), z

    for make in (lambda c: HessianOperator(lambda: c()[0], net),
                 lambda c: GaussNewtonOperator(c, net),
                 lambda c: EmpiricalFisherOperator(c, net),
                 lambda c: FisherOperator(lambda: c()[1], net)):
        op, whole = make(call), make(lambda: call(False))
        assert op.why == "" and op.dtype is facula.float32
        dense = op.to_dense().numpy()
        assert dense.dtype == np.float32
        assert np.abs(dense - whole.to_dense().numpy()).max() < 0.03
    from facula.curvature import empirical_fisher_diagonal
    facula.manual_seed(1)
    half = empirical_fisher_diagonal(call, net, samples=8).numpy()
    facula.manual_seed(1)
    whole = empirical_fisher_diagonal(lambda: call(False), net, samples=8).numpy()
    assert half.dtype == np.float32 and np.abs(half - whole).max() < 0.05 * np.abs(whole).max()


def test_detached_parts_are_constant():
    w = t(3).requires_grad_()
    op = HessianOperator(lambda: (w ** 2 * w.detach()).sum(), w)
    np.testing.assert_allclose(op.to_dense().numpy(), np.diag(2 * w.detach().numpy()))


# ---------------------------------------------------------------- what operators do

def quadratic(matrix):
    w = facula.zeros(len(matrix), dtype=facula.float64, requires_grad=True)
    a = facula.tensor(matrix)
    return HessianOperator(lambda: 0.5 * (w @ (a @ w)), w)


def symmetric(n, positive=False):
    m = RNG.normal(size=(n, n))
    return m @ m.T / n + 0.1 * np.eye(n) if positive else (m + m.T) / 2


def test_vectors_in_parts_and_matrices():
    net, forward, loss = mlp()
    op = HessianOperator(lambda: loss(forward()), net)
    v = t(op.shape[0])
    parts = op.unflatten(v)
    assert [tuple(p.shape) for p in parts] == [tuple(p.shape) for p in net.parameters()]
    got = op @ parts
    np.testing.assert_array_equal(op.flatten(got).numpy(), op.matvec(v).numpy())
    many = t(op.shape[0], 3)
    np.testing.assert_allclose((op @ many).numpy(), op.to_dense().numpy() @ many.numpy(),
                               rtol=1e-9, atol=1e-12)
    assert (op @ many[:, :0]).shape == (op.shape[0], 0)
    assert not op.matvec(v).requires_grad
    with pytest.raises(ShapeError, match="a vector of shape"):
        op @ t(3)
    with pytest.raises(ShapeError, match="for parameters of shapes"):
        op @ parts[:2]
    with pytest.raises(DTypeError, match="float32"):
        op @ v.to(facula.float32)
    with pytest.raises(ShapeError, match="a matrix"):
        op @ t(4, 2)


def test_algebra_of_operators():
    a, b = symmetric(5), symmetric(5)
    w = t(5).requires_grad_()
    first, second = (HessianOperator(lambda m=facula.tensor(m): 0.5 * (w @ (m @ w)), w)
                     for m in (a, b))
    np.testing.assert_allclose((first + second).to_dense().numpy(), a + b, atol=1e-12)
    np.testing.assert_allclose((2 * first).to_dense().numpy(), 2 * a, atol=1e-12)
    np.testing.assert_allclose(first.damped(0.5).to_dense().numpy(), a + 0.5 * np.eye(5),
                               atol=1e-12)
    with pytest.raises(ValueError, match="different parameters"):
        first + quadratic(a)
    with pytest.raises(TypeError, match="damped"):
        first + "1"


def test_refresh_follows_the_parameters():
    w = t(3).requires_grad_()
    op = HessianOperator(lambda: (w ** 4).sum() / 12, w)
    np.testing.assert_allclose(op.to_dense().numpy(), np.diag(w.detach().numpy() ** 2))
    old = op.to_dense().numpy()
    with facula.no_grad():
        w.mul_(2.0)
    np.testing.assert_array_equal(op.to_dense().numpy(), old)
    op.refresh()
    np.testing.assert_allclose(op.to_dense().numpy(), 4 * old)


def test_trace_diagonal_and_spectrum():
    facula.manual_seed(0)
    m = symmetric(30, True)
    op = quadratic(m)
    assert op.trace(400).item() == pytest.approx(np.trace(m), rel=0.05)
    assert np.abs(op.diagonal(400).numpy() - np.diag(m)).max() < 0.3
    d = RNG.uniform(1, 2, 6)
    exact = quadratic(np.diag(d))
    np.testing.assert_allclose(exact.diagonal(1).numpy(), d)
    assert exact.trace(1).item() == pytest.approx(d.sum())
    values = np.linalg.eigvalsh(m)
    density = op.spectrum(steps=30, samples=20)
    assert density.weights.sum() == pytest.approx(1.0)
    assert (density.weights * density.eigenvalues).sum() * 30 == pytest.approx(values.sum(),
                                                                              rel=0.2)
    with pytest.raises(ValueError, match="at least one sample"):
        op.trace(0)


def test_eigenvalues_by_lanczos():
    facula.manual_seed(0)
    m = symmetric(40)
    op, values = quadratic(m), np.linalg.eigvalsh(m)
    np.testing.assert_allclose(op.eigenvalues(3, "LA").numpy(), values[-3:], rtol=1e-8)
    np.testing.assert_allclose(op.eigenvalues(3, "SA").numpy(), values[:3], rtol=1e-8)
    by_size = np.sort(values[np.argsort(-np.abs(values))[:4]])
    found, vectors = op.eigenvalues(4, vectors=True)
    np.testing.assert_allclose(found.numpy(), by_size, rtol=1e-8)
    np.testing.assert_allclose(m @ vectors.numpy(), vectors.numpy() * found.numpy(), atol=1e-7)
    assert op.norm(40).item() == pytest.approx(np.abs(values).max(), rel=1e-8)
    np.testing.assert_allclose(op.eigenvalues(40, "LA").numpy(), values, rtol=1e-7, atol=1e-9)
    # An invariant space ends it early.
    np.testing.assert_allclose(quadratic(3 * np.eye(7)).eigenvalues(1).numpy(), [3.0])
    with pytest.raises(ValueError, match="k has to be"):
        op.eigenvalues(41)
    with pytest.raises(ValueError, match="which"):
        op.eigenvalues(1, "XX")


def test_solve():
    m, b = symmetric(20, True), RNG.normal(size=20)
    op = quadratic(m)
    x = op.solve(facula.tensor(b), tol=1e-12)
    np.testing.assert_allclose(x.numpy(), np.linalg.solve(m, b), rtol=1e-8)
    x = op.solve(facula.tensor(b), damping=2.0, tol=1e-12,
                 preconditioner=facula.tensor(np.diag(m) + 2.0))
    np.testing.assert_allclose(x.numpy(), np.linalg.solve(m + 2 * np.eye(20), b), rtol=1e-8)
    start = op.solve(facula.tensor(b), tol=1e-13)
    assert op.solution(facula.tensor(b), start=start, tol=1e-9).iterations <= 5
    # A start that is far too long, or points the wrong way, is never worse than zero.
    for factor in (1e6, -1.0):
        found = op.solution(facula.tensor(b), start=start * factor, tol=1e-9)
        assert found.values[0] <= 0.0 and found.residual <= 1e-9
        np.testing.assert_allclose(found.x.numpy(), np.linalg.solve(m, b), rtol=1e-6)
    assert op.solution(facula.tensor(b), start=start * 1e6, tol=1e-9).iterations <= 5
    found = op.solution(facula.tensor(b), max_iter=7, keep=lambda k: k % 2 == 0)
    assert found.iterations == 7 and found.reason == "iterations"
    assert [k for k, _ in found.iterates] == [2, 4, 6]
    assert all(p > q for p, q in zip(found.values, found.values[1:]))
    x = np.array(found.x.numpy())
    assert found.values[-1] == pytest.approx(0.5 * x @ m @ x - b @ x)
    zero = op.solution(facula.zeros(20, dtype=facula.float64))
    assert zero.iterations == 0 and not zero.x.numpy().any()
    combined = op.damped(2.0).solve(facula.tensor(b), tol=1e-12)
    np.testing.assert_allclose(combined.numpy(), np.linalg.solve(m + 2 * np.eye(20), b),
                               rtol=1e-8)


def test_lanczos_says_where_a_nan_is():
    w = facula.tensor(np.array([0.0, 1.0])).requires_grad_()
    op = HessianOperator(lambda: w.sqrt().sum(), w)         # infinite at 0
    for ask in (op.eigenvalues, op.spectrum, op.norm):
        with pytest.raises(NotFiniteError, match="Lanczos"):
            ask(*([1] if ask == op.eigenvalues else []))


def test_solve_says_what_is_wrong():
    op = quadratic(np.diag([1.0, -1.0, 2.0]))
    with pytest.raises(CurvatureError, match="not positive definite"):
        op.solve(facula.ones(3, dtype=facula.float64))
    with pytest.raises(ArithmeticError, match="NaN"):
        op.solve(facula.tensor(np.array([1.0, np.nan, 0.0])))
    assert conjugate_gradients(op._linear, facula.ones(3, dtype=facula.float64), damping=1.5
                               ).reason


def test_to_scipy():
    linalg = pytest.importorskip("scipy.sparse.linalg")
    m = symmetric(25, True)
    other = quadratic(m).to_scipy()
    np.testing.assert_allclose(other @ np.ones(25), m @ np.ones(25))
    found = linalg.eigsh(other, 3, which="LA", return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(found), np.linalg.eigvalsh(m)[-3:], rtol=1e-8)


def test_float32_and_shared_memory():
    array = np.arange(4, dtype=np.float32)
    w = facula.from_numpy(array).requires_grad_()
    op = HessianOperator(lambda: (w ** 3).sum() / 6 + (w * w).sum() * 0, w)
    assert op.dtype is facula.float32
    np.testing.assert_allclose(op.to_dense().numpy(), np.diag(array))


def test_unused_parameters_have_no_curvature():
    a, b = t(2).requires_grad_(), t(3).requires_grad_()
    op = HessianOperator(lambda: (a ** 2).sum(), [a, b])
    np.testing.assert_allclose(op.to_dense().numpy(), np.diag([2.0, 2, 0, 0, 0]))
    linear = HessianOperator(lambda: a.sum(), [a])
    assert not linear.to_dense().numpy().any()


def test_bad_arguments():
    w = t(3).requires_grad_()
    with pytest.raises(ValueError, match="no parameters"):
        HessianOperator(lambda: w.sum(), [])
    with pytest.raises(GradientError, match="parameter 0"):
        HessianOperator(lambda: w.sum(), [t(2)])
    with pytest.raises(GradientError, match="leaf"):
        HessianOperator(lambda: w.sum(), [w * 2])
    with pytest.raises(DTypeError, match="parameter 1 is float32"):
        HessianOperator(lambda: w.sum(), [w, facula.ones(2, requires_grad=True)])
    with pytest.raises(DTypeError, match="bfloat16"):
        HessianOperator(lambda: w.sum(),
                        [facula.ones(2, dtype=facula.bfloat16, requires_grad=True)])
    with pytest.raises(ValueError, match="twice"):
        HessianOperator(lambda: w.sum(), [w, w])
    with pytest.raises(TypeError, match="function"):
        HessianOperator(w.sum(), [w])
    with pytest.raises(ClosureError, match="one real number"):
        HessianOperator(lambda: w, [w])
    with pytest.raises(ClosureError, match="does not depend"):
        HessianOperator(lambda: t(3).sum(), [w])
    with pytest.raises(ClosureError, match=r"\(loss, outputs\)"):
        GaussNewtonOperator(lambda: w.sum(), [w])
    with pytest.raises(GradientError, match="the very tensor"):
        GaussNewtonOperator(lambda: (w.sum(), w * 2), [w])
    with pytest.raises(ClosureError, match="the outputs"):
        FisherOperator(lambda: (w, w), [w])
    with pytest.raises(ValueError, match="likelihood"):
        FisherOperator(lambda: w, [w], "cauchy")
    with pytest.raises(ValueError, match="reduction"):
        EmpiricalFisherOperator(lambda: (w.sum(), w), [w], "none")
    with pytest.raises(ShapeError, match="no dimension 2"):
        EmpiricalFisherOperator(lambda: ((w * 2).sum(), w * 2), [w], batch_dim=2)
    with pytest.raises(ClosureError, match="structural damping"):
        GaussNewtonOperator(lambda: ((z := w * 2).sum(), z), [w], hidden=0.1)
    op = HessianOperator(lambda: (w ** 2).sum(), [w])
    with pytest.raises(TypeError, match=r"ndarray.*from_numpy"):
        op @ np.ones(3)
    with pytest.raises(TypeError, match="list of Tensors"):
        op @ [1.0, 2.0, 3.0]


@pytest.mark.parametrize("name", ["mlp", "rnn", "shared"])
@pytest.mark.parametrize("many", [1, 3, 64])
def test_several_products_at_once_are_those_of_one_at_a_time(name, many, monkeypatch):
    """In whole chunks, a rest, and one row alone; the Gauss-Newton matrix and the Hessian."""
    from facula.curvature import linear
    monkeypatch.setattr(linear, "_MOST_ROWS", many)
    net, forward, loss = MODELS[name]()

    def closure():
        z = forward()
        return loss(z), z

    for op in (GaussNewtonOperator(closure, net), HessianOperator(closure, net)):
        for k in (1, 7):
            columns = t(op.shape[0], k)
            want = np.stack([op.matvec(columns[:, i].clone()).numpy() for i in range(k)], 1)
            got = op.matmat(columns)
            assert tuple(got.shape) == (op.shape[0], k)
            np.testing.assert_allclose(got.numpy(), want, rtol=1e-10, atol=1e-13)
    assert tuple(op.matmat(t(op.shape[0], 0)).shape) == (op.shape[0], 0)


def test_a_product_that_takes_much_memory_is_made_alone(monkeypatch):
    from facula.curvature import linear
    net, forward, loss = MODELS["mlp"]()
    op = HessianOperator(lambda: loss(forward()), net)
    assert op._linear.rows > 1
    monkeypatch.setattr(linear, "_ROOM", 8)
    assert op._linear.rows == 1


def test_the_gradient_can_be_left_out():
    net, forward, loss = MODELS["mlp"]()

    def closure():
        z = forward()
        return loss(z), z

    whole = GaussNewtonOperator(closure, net)
    bare = GaussNewtonOperator(closure, net, gradient=False)
    assert bare.loss is None and bare.gradient is None and whole.gradient is not None
    v = t(whole.shape[0])
    np.testing.assert_allclose((bare @ v).numpy(), (whole @ v).numpy(), rtol=1e-12)
