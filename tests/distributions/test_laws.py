"""What holds of every distribution, walked over the registry; nothing here needs a peer."""

import copy
import math

import numpy as np
import pytest

import facula
import facula.distributions as D
from facula.distributions.distribution import FAMILIES
from tests.distributions.families import CASES, arguments, close, made, tensor

DRAWS = 4000
# Whose draws are not numbers on a line with a moment to compare: circular means, say.
NO_MOMENTS = {"VonMises"}
# Without a density over the elements of a draw that a finite difference could see.
CONTINUOUS = [(n, k) for n, k in CASES if FAMILIES[n].cls.has_rsample is True]


def asked(fn):
    try:
        return fn()
    except NotImplementedError:
        return None


@pytest.mark.parametrize("name,k", CASES)
def test_draws_have_the_moments_and_lie_in_the_support(name, k):
    facula.manual_seed(11)
    d = made(name, k)
    x = d.sample((DRAWS,))
    assert x.shape == (DRAWS, *d.batch_shape, *d.event_shape) and not x.requires_grad
    assert d.support.check(x).all()
    assert not x.isnan().any()
    mean, variance = asked(lambda: d.mean), asked(lambda: d.variance)
    if mean is None or name in NO_MOMENTS:
        return
    values = x.numpy().astype(np.float64)
    mean, variance = mean.numpy().astype(np.float64), variance.numpy().astype(np.float64)
    known = np.isfinite(mean) & np.isfinite(variance)
    error = np.sqrt(variance / DRAWS)
    off = np.abs(values.mean(0) - mean)[known] / (error[known] + 1e-12)
    assert (off < 5).all(), off
    # The variance of the variance from the draws themselves; heavy tails are not judged by it.
    far = (values - mean) ** 2
    if known.any() and name not in {"Pareto", "InverseGamma", "FisherSnedecor", "StudentT",
                                    "GeneralizedPareto"}:
        error = far.std(0)[known] / math.sqrt(DRAWS)
        assert (np.abs(far.mean(0) - variance)[known] < 6 * error + 1e-9).all()


@pytest.mark.parametrize("name,k", CASES)
def test_entropy_is_the_mean_of_minus_log_prob(name, k):
    d = made(name, k)
    entropy = asked(d.entropy)
    if entropy is None or name == "OneHotCategoricalStraightThrough":
        return
    facula.manual_seed(5)
    bits = -d.log_prob(d.sample((DRAWS,))).numpy().astype(np.float64)
    error = bits.std(0) / math.sqrt(DRAWS)
    assert (np.abs(bits.mean(0) - entropy.numpy()) < 5 * error + 1e-4).all()
    close(d.perplexity(), entropy.exp())


@pytest.mark.parametrize("name,k", CASES)
def test_cdf_has_the_density_for_a_slope_and_icdf_for_an_inverse(name, k):
    d = made(name, k)
    if d.event_shape or asked(lambda: d.support.is_discrete) or name == "MixtureSameFamily":
        return
    facula.manual_seed(3)
    x = d.sample((6,)).to(facula.float64)
    if asked(lambda: d.cdf(x)) is None:
        return
    wide = made(name, k, validate_args=False)
    h = 1e-6 * x.abs().clamp(min=1e-4)
    loose = wide.log_prob(x).dtype is facula.float32         # made of Python numbers
    if loose:
        h = 3e-3 * x.abs()
    slope = (wide.cdf(x + h) - wide.cdf(x - h)) / (2 * h)
    close(slope, wide.log_prob(x).exp(), rtol=2e-2 if loose else 1e-4, atol=1e-3)
    if asked(lambda: d.icdf(d.cdf(x))) is not None:
        close(d.icdf(d.cdf(x)), x.to(d.cdf(x).dtype), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("name,k", CASES)
def test_no_draw_is_likelier_than_the_mode(name, k):
    d = made(name, k, validate_args=False)
    mode = asked(lambda: d.mode)
    if mode is None or mode.isnan().any():                   # NaN where several are as likely
        return
    facula.manual_seed(8)
    best, drawn = d.log_prob(mode).numpy(), d.log_prob(d.sample((200,))).numpy()
    good = np.isnan(best) | (drawn <= best + 1e-5).all(0)
    # For a Dirichlet with all of its concentrations below 1 several corners are infinite.
    assert (good | np.isinf(best)).all()


@pytest.mark.parametrize("name,k", CASES)
def test_all_values_of_a_discrete_one(name, k):
    d = made(name, k)
    if not d.has_enumerate_support:
        with pytest.raises(NotImplementedError):
            d.enumerate_support()
        return
    every = asked(d.enumerate_support)
    if every is None:                                        # of inhomogeneous counts
        return
    probs = d.log_prob(every).exp()
    close(probs.sum(0), np.ones(d.batch_shape), 1e-5, 1e-5)
    if name != "Categorical":
        weights = probs.reshape(*probs.shape, *(1,) * len(d.event_shape))
        close((weights * every).sum(0), d.mean.expand(*d.batch_shape, *d.event_shape), 1e-5, 1e-5)


@pytest.mark.parametrize("name,k", CONTINUOUS)
def test_gradients_of_draws_are_those_of_the_mean(name, k):
    """d E[x] / d parameter, from draws and from the formula of the mean."""
    args = arguments(name, k)
    tracked = {key: v.requires_grad_(True) for key, v in args.items()
               if isinstance(v, facula.Tensor)}
    d = getattr(D, name)(**args)
    mean = asked(lambda: d.mean)
    if not tracked or mean is None or name == "Wishart":
        return
    known = mean.isfinite() & d.variance.isfinite()
    if not known.any() or not mean.requires_grad:
        return
    facula.manual_seed(2)
    x = d.rsample((DRAWS,))
    assert x.requires_grad
    blocks = x.reshape(20, DRAWS // 20, *x.shape[1:]).mean(1)
    zero = facula.zeros_like(mean)
    want = facula.autograd.grad(mean.where(known, zero).sum(), list(tracked.values()),
                                retain_graph=True, allow_unused=True)
    got = [facula.autograd.grad(b.where(known, zero).sum(), list(tracked.values()),
                                retain_graph=True, allow_unused=True) for b in blocks]
    for j, key in enumerate(tracked):
        if want[j] is None:
            want_j = np.zeros(tracked[key].shape)
        else:
            want_j = want[j].numpy()
        if got[0][j] is None:
            assert not want_j.any(), key
            continue
        each = np.stack([g[j].numpy() for g in got])
        error = each.std(0) / math.sqrt(len(each))
        # A covariance and its factor share gradients between halves of the matrix.
        assert (np.abs(each.mean(0) - want_j) < 6 * error + 1e-6).all(), key


@pytest.mark.parametrize("name,k", CASES)
def test_expanded_and_copied(name, k):
    d = made(name, k)
    wide = d.expand((2, *d.batch_shape))
    assert wide.batch_shape == (2, *d.batch_shape) and wide.event_shape == d.event_shape
    facula.manual_seed(4)
    x = d.sample((3,))
    together = x.unsqueeze(1)
    close(wide.log_prob(together), d.log_prob(x).unsqueeze(1).expand(3, 2, *d.batch_shape))
    twin = copy.deepcopy(d)
    close(twin.log_prob(x), d.log_prob(x))
    assert type(d).__name__ in repr(d)


@pytest.mark.parametrize("name,k", CASES)
def test_an_empty_batch(name, k):
    d = made(name, k)
    none = d.expand((0, *d.batch_shape))
    x = none.sample((3,))
    assert x.shape == (3, 0, *d.batch_shape, *d.event_shape)
    assert none.log_prob(x).shape == (3, 0, *d.batch_shape)
    assert d.log_prob(d.sample((0,))).shape == (0, *d.batch_shape)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_seed_means_the_same_draws_also_when_compiled(name):
    d = made(name, 0)
    draw = facula.compile(lambda: d.sample((5,)) * 1)
    seen = []
    for call in (lambda: d.sample((5,)) * 1, *[draw] * 4):
        facula.manual_seed(17)
        seen.append(call().numpy())
    for x in seen[1:]:
        np.testing.assert_allclose(x, seen[0], rtol=1e-4, atol=1e-5)
    facula.manual_seed(18)
    if np.issubdtype(seen[0].dtype, np.floating) and d.has_rsample:
        assert (draw().numpy() != seen[0]).any()


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_bad_parameters_are_named(name):
    family = FAMILIES[name]
    for key, constraint in family.cls.arg_constraints.items():
        args = arguments(name, 0)
        if key not in args or D.constraints.is_dependent(constraint):
            continue
        bad = args[key] * math.nan if isinstance(args[key], facula.Tensor) else math.nan
        if isinstance(args[key], int):
            bad = -3
        with pytest.raises(ValueError, match=key if name not in (
                "Chi2", "LogitRelaxedBernoulli") else "invalid values"):
            getattr(D, name)(**{**args, key: bad}, validate_args=True)
    d = made(name, 0, validate_args=True)
    with pytest.raises(ValueError, match="must be a Tensor"):
        d.log_prob("nothing")
    if d.event_shape:
        with pytest.raises(ValueError):
            d.log_prob(tensor(np.zeros((*d.event_shape, 7)).tolist()))


def test_a_continuous_bernoulli_variable_of_extreme_odds():
    """Where p has rounded to 0 or 1: t exp(t x) / (exp(t) - 1) of the log-odds t."""
    t = facula.tensor([-1000.0, -90.0, 90.0, 1000.0], dtype=facula.float64, requires_grad=True)
    d = D.ContinuousBernoulli(logits=t)
    size = np.abs(t.detach().numpy())
    x = np.array([0.001, 0.25, 0.25, 0.999])
    close(d.log_prob(facula.tensor(x)), np.log(size) - size * np.array([0.001, 0.25, 0.75, 0.001]))
    low = 1 / size
    close(d.mean, np.where([True, True, False, False], low, 1 - low))
    close(d.variance, low * low)
    close(d.entropy(), 1 - np.log(size))
    for u in (0.0, 1e-9, 0.3, 1 - 1e-9, 1.0):
        close(d.cdf(d.icdf(facula.full((4,), u, dtype=facula.float64))), np.full(4, u))
    close(D.kl_divergence(d, d), np.zeros(4))
    d.rsample((20,)).sum().backward()
    assert t.grad.isfinite().all() and (t.grad > 0).all()
    free = D.ContinuousBernoulli(0.3, validate_args=False)
    assert free.cdf(facula.tensor(math.nan)).isnan()


def test_what_is_not_to_be_checked_is_not():
    assert D.RelaxedBernoulli(0.5, 1.5, validate_args=False).probs == 1.5
    with pytest.raises(ValueError, match="probs"):
        D.RelaxedBernoulli(0.5, 1.5, validate_args=True)
