"""Levenberg-Marquardt on problems with known solutions."""

from __future__ import annotations

import math

import numpy as np
import pytest

import facula
from facula.errors import ClosureError, NotFiniteError
from facula.optim import LevenbergMarquardt, StepRejectedWarning

RNG = np.random.default_rng(4)


def leaf(values):
    return facula.tensor(np.asarray(values, np.float64)).requires_grad_()


def test_linear_least_squares_in_one_gauss_newton_step():
    a, b, w = RNG.normal(size=(9, 4)), RNG.normal(size=9), leaf(np.zeros(4))
    opt = LevenbergMarquardt([w], damping=0.0)
    loss = opt.step(lambda: facula.tensor(a) @ w - facula.tensor(b))
    assert loss.item() == pytest.approx(0.5 * (b ** 2).sum())
    np.testing.assert_allclose(w.detach().numpy(), np.linalg.lstsq(a, b, rcond=None)[0],
                               rtol=1e-9)


@pytest.mark.parametrize("settings", [{}, {"scaled": False, "damping": 1.0}, {"dense": 0},
                                      {"dense": 0, "scaled": False}])
def test_rosenbrock(settings):
    w = leaf([-1.2, 1.0])
    opt = LevenbergMarquardt([w], **settings)
    for _ in range(60):
        opt.step(lambda: (10 * (w[1] - w[0] ** 2), 1 - w[0]))
    np.testing.assert_allclose(w.detach().numpy(), 1.0, atol=1e-6)


def test_a_curve_fit_in_several_parameters():
    x = np.linspace(0, 4, 50)
    want = 2.5 * np.exp(-1.3 * x) + 0.5
    a, k, c = leaf(1.0), leaf(0.5), leaf([0.0])
    opt = LevenbergMarquardt([a, k, c])
    xs, ys = facula.tensor(x), facula.tensor(want)
    for _ in range(40):
        opt.step(lambda: a * (-k * xs).exp() + c - ys)
    got = [float(a), float(k), float(c)]
    np.testing.assert_allclose(got, [2.5, 1.3, 0.5], rtol=1e-7)


def test_singular_problems_have_a_step():
    w = leaf([1.0, 1.0])
    opt = LevenbergMarquardt([w], damping=0.0, scaled=False)
    opt.step(lambda: (w.sum() - 4.0).reshape(1))
    assert w.detach().numpy().sum() == pytest.approx(4.0)
    np.testing.assert_allclose(w.detach().numpy(), 2.0)


def test_a_step_that_raises_the_sum_is_tried_again_and_rejected():
    w = leaf([3.0])
    opt = LevenbergMarquardt([w], damping=0.0)
    with pytest.warns(StepRejectedWarning, match="rejected"):
        opt.step(lambda: w.atan())              # Newton overshoots from here
    assert w.item() == 3.0
    opt = LevenbergMarquardt([w], damping=1e-3, scaled=False)
    opt.step(lambda: w.atan())
    assert abs(w.item()) < 3.0
    assert opt.state[w]["damping"] > 1e-3
    other = LevenbergMarquardt([w])
    other.load_state_dict(opt.state_dict())
    assert other.state[w]["damping"] == opt.state[w]["damping"]


def test_at_the_solution_nothing_happens():
    w = leaf([0.0, 0.0])
    opt = LevenbergMarquardt([w])
    for _ in range(3):
        assert opt.step(lambda: w * 2.0).item() == 0.0
    assert not w.detach().numpy().any()


def test_what_is_refused():
    w = leaf([1.0])
    opt = LevenbergMarquardt([w])
    with pytest.raises(NotFiniteError, match="NaN"):
        opt.step(lambda: w * math.nan)
    assert w.item() == 1.0
    with pytest.raises(ClosureError, match="residuals"):
        opt.step(lambda: 3.0)
    with pytest.raises(TypeError, match="closure"):
        opt.step()
    with pytest.raises(ValueError, match="Invalid damping"):
        LevenbergMarquardt([w], damping=-1.0)
    with pytest.raises(ValueError, match="parameter groups"):
        LevenbergMarquardt([{"params": [w]}, {"params": [leaf([2.0])]}])
