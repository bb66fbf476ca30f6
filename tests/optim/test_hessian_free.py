"""Hessian-free optimisation: what a step does, where it refuses, and that it learns."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import facula
import facula.nn as nn
import facula.nn.functional as F
from facula.curvature import FisherDiagonal, Kronecker
from facula.errors import ClosureError, CurvatureError, NotFiniteError
from facula.optim import HessianFree, StepRejectedWarning

RNG = np.random.default_rng(11)


def t(*shape):
    return facula.tensor(RNG.normal(size=shape))


def problem(seed=0, out=3, rng=RNG):
    facula.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, out)).to(facula.float64)
    x, y = facula.tensor(rng.normal(size=(20, 4))), facula.tensor(np.arange(20) % out)

    def closure():
        z = net(x)
        return F.cross_entropy(z, y), z
    return net, closure


def test_a_linear_problem_takes_one_step():
    """Linear least squares, no damping: one Newton step is the solution."""
    w = facula.zeros(5, dtype=facula.float64, requires_grad=True)
    a, b = t(12, 5), t(12)

    def closure():
        z = a @ w
        return ((z - b) ** 2).mean(), z

    opt = HessianFree([w], damping=0.0, progress=0.0, max_iter=30, preconditioner=None)
    first = opt.step(closure)
    assert first.item() == pytest.approx((b.numpy() ** 2).mean())
    want = np.linalg.lstsq(a.numpy(), b.numpy(), rcond=None)[0]
    np.testing.assert_allclose(w.detach().numpy(), want, rtol=1e-6)
    assert opt.report.accepted and opt.report.ratio == pytest.approx(1.0)


@pytest.mark.parametrize("settings", [
    {}, {"preconditioner": None}, {"backtrack": False},
    {"decay": 0.0}, {"reduction": "sum"}, {"lr": 0.5}, {"momentum": True},
    {"momentum": True, "backtrack": False, "lr": 0.5, "preconditioner": None}])
def test_the_loss_falls_in_every_step(settings):
    net, closure = problem()
    opt = HessianFree(net.parameters(), damping=0.1, max_iter=40, **settings)
    losses = [closure()[0].item()]
    for _ in range(6):
        opt.step(closure)
        losses.append(closure()[0].item())
        assert opt.report.new_loss == pytest.approx(losses[-1], rel=1e-6)
    assert all(b < a for a, b in zip(losses, losses[1:]))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("likelihood", [None, "categorical"])
def test_kronecker_factors_precondition(likelihood):
    """Badly scaled inputs: as many iterations go further than with the diagonal of the Fisher."""
    def run(preconditioner):
        facula.manual_seed(0)
        rng = np.random.default_rng(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(facula.float64)
        turn = np.linalg.qr(rng.normal(size=(6, 6)))[0] * 10.0 ** np.linspace(0.5, -1.5, 6)
        x = facula.tensor(rng.normal(size=(40, 6)) @ turn)
        y = facula.tensor(rng.integers(0, 3, 40))

        def closure():
            z = net(x)
            return F.cross_entropy(z, y), z

        opt = HessianFree(net, damping=1e-3, max_iter=4, preconditioner=preconditioner,
                          backtrack=False)
        for _ in range(10):
            opt.step(closure)
            assert opt.report.iterations <= 4
        return closure()[0].item()

    kronecker = Kronecker(likelihood=likelihood, every=2)
    assert run(kronecker) < min(run("fisher"), run(None))
    for name, same in (("kronecker", Kronecker()), ("fisher", FisherDiagonal())):
        assert run(same) == pytest.approx(run(name), rel=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_the_inverse_of_the_kronecker_factors(bias):
    """Against the dense Kronecker product, damped in both factors."""
    layer = nn.Linear(3, 2, bias=bias).to(facula.float64)
    x, y = t(9, 3), t(9, 2)

    def closure():
        z = layer(x)
        return F.mse_loss(z, y), z

    opt = HessianFree(layer, damping=0.04, max_iter=3, preconditioner="kronecker")
    solve = opt._precondition(closure, 0.04)
    state = opt.state[layer.weight]
    a, g = state["inputs"].numpy(), state["outputs"].numpy()
    pi = math.sqrt(np.trace(a) / len(a) / (np.trace(g) / len(g)))
    dense = np.kron(g + 0.2 / pi * np.eye(2), a + 0.2 * pi * np.eye(len(a)))
    v = t(6 + 2 * bias)
    w = v.numpy()[:6].reshape(2, 3)
    if bias:
        w = np.concatenate([w, v.numpy()[6:].reshape(2, 1)], 1)
    want = np.linalg.solve(dense, w.ravel()).reshape(w.shape)
    got = solve.apply(v, *solve.tensors).numpy()
    np.testing.assert_allclose(got[:6].reshape(2, 3), want[:, :3], rtol=1e-9)
    if bias:
        np.testing.assert_allclose(got[6:], want[:, 3], rtol=1e-9)


def test_one_preconditioner_for_two_optimisers():
    """It is settings: what is found out of a model belongs to that model's optimiser."""
    def steps(seed, preconditioner):
        net, closure = problem(seed, rng=np.random.default_rng(seed))
        opt = HessianFree(net, damping=0.1, max_iter=5, preconditioner=preconditioner)
        assert opt.preconditioner is preconditioner
        return [opt.step(closure).item() for _ in range(3)]

    shared = Kronecker(every=1)
    first, second = steps(0, shared), steps(1, shared)
    assert first != pytest.approx(second, rel=1e-3)
    assert second == pytest.approx(steps(1, Kronecker(every=1)), rel=1e-6)


def test_a_preconditioner_of_ones_own():
    """M is what `begin` makes of a closure and the damping."""
    class Ones:
        def begin(self, given):
            assert [tuple(p.shape) for p in given.params] == [(6, 4), (6,), (3, 6), (3,)]
            return lambda closure, damping: facula.ones(51, dtype=facula.float64) * (1 + damping)

    def run(preconditioner):
        net, closure = problem(rng=np.random.default_rng(3))
        opt = HessianFree(net.parameters(), damping=0.1, preconditioner=preconditioner)
        return [opt.step(closure).item() for _ in range(3)]

    np.testing.assert_allclose(run(Ones()), run(None), rtol=1e-9)


def test_kronecker_factors_beside_other_parameters():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.scale = nn.Linear(4, 3), nn.Parameter(facula.ones(3))

        def forward(self, x):
            return self.layer(x).tanh() * self.scale

    facula.manual_seed(0)
    net = Net().to(facula.float64)
    x, y = t(12, 4), t(12, 3)
    opt = HessianFree(net, damping=0.1, max_iter=6, preconditioner="kronecker")
    losses = []
    for _ in range(5):
        losses.append(opt.step(lambda: ((lambda z: (F.mse_loss(z, y), z))(net(x)))).item())
    assert all(b < a for a, b in zip(losses, losses[1:]))
    saved = opt.state_dict()
    kept = saved["state"][next(k for k, v in saved["state"].items() if "inputs" in v)]
    assert tuple(kept["inputs"].shape) == (5, 5) and tuple(kept["outputs"].shape) == (3, 3)


def test_damping_follows_the_reduction_ratio():
    net, closure = problem()
    opt = HessianFree(net.parameters(), damping=50.0, max_iter=20)
    before = 50.0
    for _ in range(4):
        opt.step(closure)
        r = opt.report
        factor = 1.5 if r.ratio < 0.25 else 2 / 3 if r.ratio > 0.75 else 1.0
        assert r.damping == pytest.approx(before * factor)
        before = r.damping
    assert before < 50.0            # far too much at the start: it has to come down
    opt = HessianFree(net.parameters(), damping=1.0, min_damping=0.9)
    opt.step(closure)
    assert opt.report.damping >= 0.9


def test_separate_batches_for_gradient_and_curvature():
    net, closure = problem()
    x, y = t(6, 4), facula.tensor(np.arange(6) % 3)
    calls = []

    def other():
        calls.append(1)
        z = net(x)
        return F.cross_entropy(z, y), z

    opt = HessianFree(net.parameters(), damping=1.0, max_iter=20)
    before = closure()[0].item()
    for _ in range(4):
        opt.step(closure, curvature=other)
    assert closure()[0].item() < before and len(calls) == 8


def test_hessian_where_the_closure_returns_a_loss_alone():
    w = t(6).requires_grad_()
    opt = HessianFree([w], damping=0.0, preconditioner=None, progress=0.0)
    for _ in range(8):
        opt.step(lambda: facula.cosh(w).sum())
    np.testing.assert_allclose(w.detach().numpy(), 0, atol=1e-6)
    assert not opt.report.accepted and "minimum" in opt.report.reason


def test_without_a_line_search_a_step_is_taken_whole_or_not_at_all():
    net, closure = problem()
    opt = HessianFree(net.parameters(), damping=0.1, max_iter=40, line_search=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StepRejectedWarning)
        for _ in range(6):
            before = closure()[0].item()
            opt.step(closure)
            assert closure()[0].item() <= before
            assert opt.report.step == float(opt.report.accepted)


def recurrent():
    """A small recurrent layer, what reads its last state, and what they are to fit."""
    facula.manual_seed(3)
    layer, head = (m.to(facula.float64) for m in (nn.RNN(2, 5), nn.Linear(5, 1)))
    rng = np.random.default_rng(0)
    x, y = facula.tensor(rng.normal(size=(6, 4, 2))), facula.tensor(rng.normal(size=(4, 1)))
    return layer, head, x, y


def test_structural_damping_shortens_what_the_states_move():
    def run(structural):
        layer, head, x, y = recurrent()

        def closure():
            h, _ = layer(x)
            z = head(h[-1])
            return F.mse_loss(z, y), z, h

        opt = HessianFree([*layer.parameters(), *head.parameters()], damping=0.1,
                          structural=structural, batch_dim=1, preconditioner=None,
                          backtrack=False, max_iter=60, progress=1e-8)
        before = closure()[2].detach().clone()
        opt.step(closure)
        assert opt.report.accepted
        return (closure()[2] - before).norm().item() / opt.report.step

    plain, damped = run(0.0), run(100.0)
    assert damped < 0.7 * plain


def test_structural_damping_where_the_closure_looks_at_a_value():
    """The closure's history is then what products are made of; the steps are the same."""
    def run(look):
        layer, head, x, y = recurrent()
        calls = []

        def closure():
            h, _ = layer(x)
            z = head(h[-1])
            loss = F.mse_loss(z, y)
            calls.append(loss.item() if look else 0.0)
            return loss, z, h

        opt = HessianFree([*layer.parameters(), *head.parameters()], damping=0.1,
                          structural=0.5, batch_dim=1, preconditioner=None)
        losses = []
        for _ in range(4):
            before = len(calls)
            losses.append(opt.step(closure).item())
            assert opt.report.evaluations == len(calls) - before
        return losses

    np.testing.assert_allclose(run(True), run(False), rtol=1e-3)


def test_structural_damping_needs_hidden_states():
    net, closure = problem()
    opt = HessianFree(net.parameters(), structural=0.1)
    before = values(net.parameters())
    for wanting in (closure, lambda: closure()[0]):
        with pytest.raises(ClosureError, match="hidden"):
            opt.step(wanting)
    for a, b in zip(before, values(net.parameters())):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("preconditioner", ["fisher", "kronecker", None])
def test_a_closure_under_autocast(preconditioner):
    facula.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    x = facula.randn(64, 4)
    y = x[:, :3].argmax(1)

    def closure():
        with facula.autocast("cpu", dtype=facula.bfloat16):
            z = net(x)
        return F.cross_entropy(z.float(), y), z

    opt = HessianFree(net, preconditioner=preconditioner)
    first = closure()[0].item()
    for _ in range(6):
        opt.step(closure)
    assert closure()[0].item() < 0.5 * first
    assert all(p.dtype is facula.float32 for p in net.parameters())


def test_a_step_on_a_recurrent_net_is_the_one_of_the_papers():
    # Written down with dense Jacobians: (J'J + mu lambda Jh'Jh + lambda) d = -g, means over
    # samples (Martens and Sutskever 2012, sections 20.4 and 20.11).
    steps, samples, hidden, lam, mu = 5, 4, 3, 0.2, 0.7
    facula.manual_seed(5)
    layer = nn.RNN(2, hidden, bias=False).to(facula.float64)
    head = nn.Linear(hidden, 1, bias=False).to(facula.float64)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(steps, samples, 2)), rng.normal(size=(samples, 1))
    shapes = [(hidden, 2), (hidden, hidden), (1, hidden)]
    ends = np.cumsum([math.prod(s) for s in shapes])

    def net(flat):
        """Outputs [samples, 1], states [steps, samples, hidden]."""
        v, w, u = (part.reshape(s) for part, s in zip(np.split(flat, ends[:-1]), shapes))
        h, states = np.zeros((samples, hidden), flat.dtype), []
        for k in range(steps):
            h = np.tanh(x[k] @ v.T + h @ w.T)
            states.append(h)
        return h @ u.T, np.stack(states)

    params = [layer.weight_ih_l0, layer.weight_hh_l0, head.weight]
    start = np.concatenate([p.detach().numpy().ravel() for p in params])
    # Columns of the Jacobians by complex steps: exact to rounding.
    moved = [net(start + 1e-30j * e) for e in np.eye(ends[-1])]
    j = np.stack([z.imag.ravel() for z, _ in moved], 1) / 1e-30
    jh = np.stack([h.imag.ravel() for _, h in moved], 1) / 1e-30
    error = (net(start)[0] - y).ravel()
    matrix, gradient = j.T @ j / samples, j.T @ error / samples
    damped = matrix + mu * lam * jh.T @ jh / samples + lam * np.eye(ends[-1])
    want = -np.linalg.solve(damped, gradient)

    def loss(flat):
        return 0.5 * np.mean((net(flat)[0] - y) ** 2)

    model = gradient @ want + 0.5 * want @ matrix @ want
    ratio = (loss(start + want) - loss(start)) / model

    def closure():
        h, _ = layer(facula.tensor(x))
        z = head(h[-1])
        return 0.5 * F.mse_loss(z, facula.tensor(y)), z, h

    opt = HessianFree(params, damping=lam, structural=mu, batch_dim=1, preconditioner=None,
                      backtrack=False, max_iter=100, progress=0.0)
    opt.step(closure)
    assert opt.report.accepted and opt.report.step == 1.0
    got = np.concatenate([p.detach().numpy().ravel() for p in params]) - start
    np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-10)
    assert opt.report.new_loss == pytest.approx(loss(start + want))
    assert opt.report.ratio == pytest.approx(ratio)
    assert opt.report.damping == pytest.approx(
        lam * (2 / 3 if ratio > 0.75 else 1.5 if ratio < 0.25 else 1.0))


def test_a_direction_of_another_batch_is_no_worse_start_than_none():
    net, closure = problem()
    opt = HessianFree(net.parameters(), damping=0.1, max_iter=3, preconditioner=None)
    opt.step(closure)
    state = opt.state[next(iter(net.parameters()))]
    state["direction"] = state["direction"] * 1e5
    before = closure()[0].item()
    opt.step(closure)
    assert opt.report.accepted and opt.report.ratio > 0
    assert closure()[0].item() < before


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_momentum_is_the_best_of_the_plane(iterations):
    """Against the dense matrix: least in the space of Krylov directions and of the step before."""
    net, closure = problem()
    params = list(net.parameters())
    opt = HessianFree(params, damping=0.3, max_iter=iterations, preconditioner=None,
                      momentum=True, backtrack=False)
    opt.step(closure)
    state = opt.state[params[0]]
    old, damping = np.array(state["direction"].numpy()), state["damping"]
    matrix = facula.curvature.GaussNewtonOperator(closure, params)
    b, a = -np.array(matrix.gradient.numpy()), np.array(matrix.to_dense().numpy())
    a += damping * np.eye(len(a))
    krylov = np.stack([np.linalg.matrix_power(a, k) @ b for k in range(iterations)], 1)
    found = krylov @ np.linalg.solve(krylov.T @ a @ krylov, krylov.T @ b)
    plane = np.stack([found, old], 1)
    want = plane @ np.linalg.solve(plane.T @ a @ plane, plane.T @ b)
    before = np.concatenate([v.ravel() for v in values(params)])
    first = closure()[0].item()
    opt.step(closure)
    after = np.concatenate([v.ravel() for v in values(params)])
    assert opt.report.step == 1.0
    np.testing.assert_allclose(after - before, want, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(state["direction"].numpy(), after - before, rtol=1e-6, atol=1e-9)
    fall = 0.5 * want @ (a - damping * np.eye(len(a))) @ want - b @ want
    assert opt.report.ratio == pytest.approx(
        (opt.report.new_loss - first) / fall, rel=1e-6)


def test_momentum_along_the_step_before_alone():
    """Where both directions are one there is no plane, and no division by its area."""
    w = facula.ones(1, dtype=facula.float64, requires_grad=True)
    opt = HessianFree([w], damping=1.0, max_iter=1, preconditioner=None, momentum=True)

    def closure():
        z = w * 3 - 1
        return z.square().sum(), z

    for _ in range(5):
        opt.step(closure)
        assert opt.report.accepted
    assert w.item() == pytest.approx(1 / 3, rel=1e-3)


@pytest.mark.parametrize("momentum", [False, True])
def test_state_dict_carries_on(momentum):
    net, closure = problem()
    opt = HessianFree(net.parameters(), damping=0.5, max_iter=15, preconditioner=None,
                      momentum=momentum)
    for _ in range(3):
        opt.step(closure)
    weights = {k: v.clone() for k, v in net.state_dict().items()}
    saved = opt.state_dict()
    opt.step(closure)
    want = [p.detach().numpy().copy() for p in net.parameters()]
    net.load_state_dict(weights)
    new = HessianFree(net.parameters(), damping=9.0, max_iter=15, preconditioner=None)
    new.load_state_dict(saved)
    new.step(closure)
    for a, b in zip(want, net.parameters()):
        np.testing.assert_allclose(b.detach().numpy(), a, rtol=1e-9)
    assert new.report.damping == opt.report.damping


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_copies_carry_on(how):
    import copy
    import pickle
    x, y = t(20, 4), facula.tensor(np.arange(20) % 3)

    def closure(net):
        z = net(x)
        return F.cross_entropy(z, y), z

    net, _ = problem()
    opt = HessianFree(net, preconditioner=Kronecker(every=1))
    for _ in range(2):
        opt.step(lambda: closure(net))
    if how == "pickle":
        other, carried = pickle.loads(pickle.dumps((net, opt)))
    else:
        other, carried = copy.deepcopy((net, opt))
    for _ in range(2):
        opt.step(lambda: closure(net))
        carried.step(lambda: closure(other))
    # Conjugate gradients make more of rounding than it is.
    for a, b in zip(values(net.parameters()), values(other.parameters())):
        np.testing.assert_allclose(a, b, atol=1e-3)
    assert next(other.parameters()) is not next(net.parameters())
    alone = copy.deepcopy(net)
    assert closure(alone)[0].item() == pytest.approx(closure(net)[0].item(), rel=1e-12)


# ---------------------------------------------------------------- it never diverges silently

def values(params):
    return [p.detach().numpy().copy() for p in params]


def test_a_step_that_raises_the_loss_is_rejected():
    """A kink: the model says go on, and every step along it goes up."""
    w = facula.tensor(np.array([0.0])).requires_grad_()

    def closure():
        z = w * 1.0
        # The value grows in both directions although the gradient at 0 is not 0.
        return (z + 3.0 * (z.detach().abs())).sum() + (z * z).sum(), z

    opt = HessianFree([w], damping=1.0, preconditioner=None)
    with pytest.warns(StepRejectedWarning, match="rejected a step"):
        opt.step(closure)
    assert w.item() == 0.0
    assert not opt.report.accepted and opt.report.new_loss == opt.report.loss
    assert opt.report.damping == pytest.approx(1.5)
    assert "lowers the loss" in opt.report.reason


def test_nan_before_the_step():
    w = t(3).requires_grad_()
    before = values([w])
    opt = HessianFree([w])
    with pytest.raises(NotFiniteError, match="nan before the step"):
        opt.step(lambda: ((w * math.nan).sum(), w * 1.0))
    np.testing.assert_array_equal(values([w]), before)


def test_nan_in_the_gradient():
    w = facula.tensor(np.array([0.0, 1.0])).requires_grad_()

    def closure():
        z = w * 1.0
        return (z.sqrt() * z).sum() * 0 + z.sqrt().sum(), z

    with pytest.raises(NotFiniteError):
        HessianFree([w]).step(closure)
    np.testing.assert_array_equal(w.detach().numpy(), [0.0, 1.0])


def test_a_loss_of_minus_infinity_is_no_progress():
    w = facula.tensor(np.array([1.0])).requires_grad_()

    def closure():
        z = w * 1.0
        return facula.where(z > 3.0, -math.inf, -z).sum(), z

    opt = HessianFree([w], damping=0.1, preconditioner=None)       # the step would be 10
    opt.step(closure)
    assert 1.0 < w.item() <= 3.0 and math.isfinite(opt.report.new_loss)
    opt = HessianFree([w], damping=0.1, preconditioner=None, line_search=False)
    before = w.item()
    with pytest.warns(StepRejectedWarning):
        opt.step(closure)
    assert w.item() == before and not opt.report.accepted


def test_a_closure_that_calls_backward():
    net, closure = problem()
    opt = HessianFree(net.parameters())

    def like_lbfgs():
        opt.zero_grad()
        loss, z = closure()
        loss.backward()
        return loss, z

    with pytest.raises(ClosureError, match=r"neither zero_grad.. nor backward"):
        opt.step(like_lbfgs)


def test_infinite_loss_along_the_way_is_a_shorter_step():
    w = facula.tensor(np.array([0.2])).requires_grad_()

    def closure():
        z = w * 1.0
        return (-(z.log()) + 100 * z + z * z * 0.001).sum(), z     # nan for z < 0

    opt = HessianFree([w], damping=0.0, preconditioner=None)
    opt.step(closure)
    assert 0 < w.item() < 0.2 and opt.report.accepted and opt.report.step < 1


def test_indefinite_curvature():
    w = t(3).requires_grad_()
    before = values([w])
    opt = HessianFree([w], damping=1e-3)
    with pytest.raises(CurvatureError, match="not positive definite"):
        opt.step(lambda: -(w ** 2).sum())
    np.testing.assert_array_equal(values([w]), before)


def test_a_closure_that_is_not_deterministic():
    net, closure = problem()
    count = [0]

    def noisy():
        count[0] += 1
        loss, z = closure()
        return loss * (1 + 0.01 * count[0]), z

    opt = HessianFree(net.parameters())
    before = values(net.parameters())
    with pytest.raises(ClosureError, match="same batch in every call"):
        opt.step(noisy)
    for a, b in zip(before, values(net.parameters())):
        np.testing.assert_array_equal(a, b)
    HessianFree(net.parameters(), check_closure=False, max_iter=3)


def test_bad_arguments():
    w = t(3).requires_grad_()
    for name, value in (("lr", 0.0), ("damping", -1.0), ("max_iter", 0), ("decay", 1.5),
                        ("preconditioner", "jacobi"), ("reduction", "none"),
                        ("structural", -1.0)):
        with pytest.raises(ValueError, match="Invalid"):
            HessianFree([w], **{name: value})
    for preconditioner, name, value in (
            (FisherDiagonal, "probes", 0), (Kronecker, "likelihood", "cauchy"),
            (Kronecker, "averaging", 1.0), (Kronecker, "every", 0)):
        with pytest.raises(ValueError, match=f"Invalid {name}"):
            preconditioner(**{name: value})
    for other, what in ((Kronecker, "the class Kronecker"), (3, "int"), (t(3), "Tensor")):
        with pytest.raises(TypeError, match=f"not {what}"):
            HessianFree([w], preconditioner=other)
    with pytest.raises(TypeError, match="takes the module itself, not list"):
        HessianFree([w], preconditioner="kronecker")
    with pytest.raises(ClosureError, match=r"\(loss, outputs\)"):
        HessianFree(nn.Linear(2, 1), preconditioner=Kronecker(likelihood="gaussian")).step(
            lambda: (w.sum(),))
    with pytest.raises(ValueError, match="parameter groups"):
        HessianFree([{"params": [w]}, {"params": [t(2).requires_grad_()]}])
    opt = HessianFree([w])
    with pytest.raises(TypeError, match="closure"):
        opt.step()
    with pytest.raises(ClosureError, match="has to return a loss"):
        opt.step(lambda: 3.0)
    with pytest.raises(ClosureError, match="does not depend"):
        opt.step(lambda: t(3).sum())
