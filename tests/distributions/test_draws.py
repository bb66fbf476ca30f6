"""Numbers drawn by rejection: their laws, and the implicit gradient of gamma numbers."""

import math

import numpy as np
import pytest

import facula
import facula.distributions as D
from facula.ops.primitive.functions import draws
from facula.ops.primitive.functions.gamma import digamma, lgamma, polygamma
from tests.distributions.families import close, tensor

N = 40_000


def seeds(n=N, seed=0):
    return np.random.default_rng(seed).integers(0, 2 ** 64, size=n, dtype=np.uint64)


@pytest.mark.parametrize("a", [1e-4, 0.05, 0.5, 1.0, 3.0, 1e3, 1e8])
def test_gamma(a):
    x = draws.draw_gamma(seeds(), np.full(N, a))
    mean, variance = digamma(np.array([a]))[0], polygamma(1, np.array([a]))[0]
    assert abs(x.mean() - mean) < 5 * math.sqrt(variance / N)
    far = (x - mean) ** 2
    assert abs(far.mean() - variance) < 6 * far.std() / math.sqrt(N)


@pytest.mark.parametrize("rate", [0.01, 1.0, 9.99, 10.0, 60.0])
def test_poisson(rate):
    x = draws.draw_poisson(seeds(), np.full(N, rate))
    k = np.arange(x.max() + 1)
    want = N * np.exp(k * math.log(rate) - rate - lgamma(k + 1))
    chi_square(np.bincount(x.astype(int), minlength=k.size), want)


@pytest.mark.parametrize("n,p", [(1, 0.5), (5, 0.3), (20, 0.7), (40, 0.5), (1000, 0.02),
                                 (100, 0.9), (200, 0.999)])
def test_binomial(n, p):
    x = draws.draw_binomial(seeds(seed=n), np.full(N, float(n)), np.full(N, p))
    k = np.arange(n + 1.0)
    ways = lgamma(np.array([n + 1.0])) - lgamma(k + 1) - lgamma(n - k + 1)
    want = N * np.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p))
    chi_square(np.bincount(x.astype(int), minlength=n + 1), want)


def chi_square(seen, want):
    """Counts against what is expected of them, rare outcomes taken together."""
    often = want > 10
    seen = np.append(seen[often], seen[~often].sum())
    want = np.append(want[often], max(N - want[often].sum(), 1e-9))
    if want[-1] < 10:
        assert seen[-1] <= want[-1] + 6 * math.sqrt(want[-1]) + 6
        seen, want = seen[:-1], want[:-1]
    value, freedom = ((seen - want) ** 2 / want).sum(), max(len(seen) - 1, 1)
    assert value < freedom + 6 * math.sqrt(2 * freedom) + 6


@pytest.mark.parametrize("kappa", [1e-8, 0.1, 2.0, 50.0, 1e6, 1e10])
def test_von_mises(kappa):
    x = draws.draw_von_mises(seeds(), np.full(N, kappa))
    assert (np.abs(x) <= math.pi).all()
    grid = np.linspace(-math.pi, math.pi, 200_001)
    if kappa > 1e4:
        assert abs(x.std() * math.sqrt(kappa) - 1) < 0.02
        return
    weight = np.exp(kappa * (np.cos(grid) - 1))
    cosine = (weight * np.cos(grid)).sum() / weight.sum()
    assert abs(np.cos(x).mean() - cosine) < 5 * np.cos(x).std() / math.sqrt(N) + 1e-9
    assert abs(np.sin(x).mean()) < 5 * np.sin(x).std() / math.sqrt(N)


def test_edges():
    one = seeds(1)
    assert draws.draw_poisson(one, np.array([0.0]))[0] == 0
    assert draws.draw_poisson(one, np.array([np.inf]))[0] == np.inf
    for n, p, want in ((7.0, 0.0, 0), (7.0, 1.0, 7), (0.0, 0.4, 0)):
        assert draws.draw_binomial(one, np.array([n]), np.array([p]))[0] == want
    for bad in (np.nan, -1.0):
        assert np.isnan(draws.draw_gamma(one, np.array([bad]))[0])
        assert np.isnan(draws.draw_poisson(one, np.array([bad]))[0])
        assert np.isnan(draws.draw_binomial(one, np.array([3.0]), np.array([bad]))[0])
        assert np.isnan(draws.draw_von_mises(one, np.array([bad]))[0])
    assert draws.draw_gamma(one, np.array([np.inf]))[0] == np.inf
    none = np.empty(0, np.uint64)
    assert draws.draw_gamma(none, np.empty(0)).shape == (0,)


def test_each_element_has_a_seed_of_its_own():
    s, a = seeds(50), np.linspace(0.1, 9, 50)
    whole = draws.draw_gamma(s, a)
    np.testing.assert_array_equal(whole[20:30], draws.draw_gamma(s[20:30], a[20:30]))


def quantile_slope(a, s):
    """d s / d a at a fixed probability, by differences of the distribution function."""
    from facula.ops.primitive.functions.gamma import igamma, igammac
    h, x = 1e-4 * a, np.exp(s)
    # The smaller of the two tails keeps its digits.
    tail, sign = (igamma, 1) if x < a else (igammac, -1)
    up = sign * (8 * (tail(a + h, x) - tail(a - h, x))
                 - (tail(a + 2 * h, x) - tail(a - 2 * h, x))) / (12 * h)
    return -up / np.exp(a * s - x - lgamma(a))


@pytest.mark.parametrize("a", [1e-3, 0.1, 0.7, 1.0, 4.0, 30.0, 500.0])
def test_implicit_slope(a):
    spread = math.sqrt(polygamma(1, np.array([a]))[0])
    for s in digamma(np.array([a]))[0] + spread * np.array([-2.5, -1, -0.2, 0.3, 1, 1.7]):
        at, s = np.array([a]), np.array([np.clip(s, -600.0, 5.0 if a < 1 else None)])
        with np.errstate(all="ignore"):
            want = quantile_slope(at, s)
        np.testing.assert_allclose(draws.gamma_slope(at, s), want, rtol=2e-6)


def test_slope_at_the_edges():
    got = draws.gamma_slope(np.array([1.0, 0.0, np.nan, 2.0]), np.array([np.nan, 0, 0, -np.inf]))
    assert np.isnan(got).all()
    # Where x underflows the logarithm is that of u**(1/a) times a constant.
    a, s = 1e-3, -800.0
    slope = draws.gamma_slope(np.array([a]), np.array([s]))[0]
    constant = -digamma(np.array([a + 1.0]))[0]
    assert abs(slope - -(s + constant) / a) < 1e-6 * abs(slope)
    big = draws.gamma_slope(np.array([1e6]), np.log(np.array([1e6])))[0]
    assert abs(big - 1e-6) < 1e-9


def test_gradients_reach_the_parameters():
    facula.manual_seed(1)
    a = tensor([0.5, 2.0, 30.0]).requires_grad_(True)
    x = D.Gamma(a, 2.0).rsample((3000,))
    x.mean(0).sum().backward()
    close(a.grad, np.full(3, 0.5), 0.1, 0)
    a = tensor([0.5, 2.0]).requires_grad_(True)
    x = D.Gamma(a, 1.0).rsample()
    slope, = facula.autograd.grad(x.sum(), a)
    want = draws.gamma_slope(a.detach().numpy(), np.log(x.detach().numpy())) * x.detach().numpy()
    close(slope, want, 1e-9)
    _, tangent = facula.func.jvp(lambda v: D.Gamma(v, 1.0, validate_args=False).rsample().log(),
                                 (a.detach(),), (facula.ones_like(a.detach()),))
    assert tangent.shape == (2,) and tangent.isfinite().all()


def test_small_concentrations_do_not_underflow():
    facula.manual_seed(1)
    x = D.Dirichlet(facula.full((5,), 1e-3)).sample((1000,))
    assert x.isfinite().all()
    close(x.sum(-1), np.ones(1000), 1e-5, 1e-5)
    assert abs(float((x.max(-1).values > 0.99).float().mean()) - 1) < 0.05


def test_correlations_have_beta_marginals():
    """LKJ: each correlation is beta on (-1, 1) with both parameters eta - 1 + dim / 2."""
    facula.manual_seed(3)
    dim, eta = 4, 1.7
    factor = D.LKJCholesky(dim, eta).sample((6000,))
    r = (factor @ factor.mT).numpy()
    b = eta - 1 + dim / 2
    variance = 1 / (2 * b + 1)
    fourth = 3 / ((2 * b + 1) * (2 * b + 3))
    for i, j in ((1, 0), (2, 0), (2, 1), (3, 0), (3, 2)):
        x = r[:, i, j].astype(np.float64)
        for power, want in ((1, 0.0), (2, variance), (4, fourth)):
            y = x ** power
            assert abs(y.mean() - want) < 5 * y.std() / math.sqrt(6000), (i, j, power)


def test_rare_outcomes_among_many_come_as_often_as_they_should():
    facula.manual_seed(0)
    weights = facula.ones(100_000)
    weights[:50_000] = 0
    x = D.Categorical(weights).sample((20_000,)).numpy()
    assert x.min() >= 50_000 and x.max() < 100_000
    assert abs(x.mean() - 75_000) < 5 * 14434 / math.sqrt(20_000)
