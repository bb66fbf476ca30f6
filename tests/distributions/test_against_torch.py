"""Every family against PyTorch's of the same name, on the registry's samples."""

import numpy as np
import pytest

import facula
import facula.distributions as D
from facula.distributions.kl import _RULES
from tests.distributions.families import CASES, arguments, close, made

torch = pytest.importorskip("torch")
TD = torch.distributions
# PyTorch's raises on float64 tensors: tests/distributions/test_against_scipy.py has it.
CASES = [(n, k) for n, k in CASES if hasattr(TD, n) and n != "GeneralizedPareto"]
# PyTorch's is NaN for parameters that have a mode, or names a corner of lower density:
# tests/distributions/test_laws.py compares these with the density.
OTHER_MODES = {"Beta", "Kumaraswamy", "Weibull"}
# PyTorch computes parts in float32, or Bessel functions to 7 digits.
COARSE = {"Multinomial": 1e-6, "VonMises": 1e-5, "RelaxedBernoulli": 1e-5}


def double(value):
    return torch.tensor(value, dtype=torch.float64)


def theirs(name, k):
    return getattr(TD, name)(**arguments(name, k, TD, double))


def both(name, k):
    return made(name, k), theirs(name, k)


def asked(fn):
    """Its result, or None where PyTorch has none."""
    try:
        return fn()
    except NotImplementedError:
        return None


def ours(value):
    return facula.tensor(value.numpy())


@pytest.mark.parametrize("name,k", CASES)
def test_shapes_and_properties(name, k):
    a, b = both(name, k)
    assert a.batch_shape == tuple(b.batch_shape) and a.event_shape == tuple(b.event_shape)
    assert a.has_rsample == b.has_rsample
    assert a.has_enumerate_support == b.has_enumerate_support
    for what in ("mean", "mode", "variance", "stddev"):
        want = asked(lambda what=what: getattr(b, what))
        if want is not None and (what, name) not in {("mode", n) for n in OTHER_MODES}:
            close(getattr(a, what), want, COARSE.get(name, 1e-9), 1e-9, what=what)
    for what in ("entropy", "perplexity"):
        want = asked(getattr(b, what))
        if want is not None:
            close(getattr(a, what)(), want, COARSE.get(name, 1e-9), what=what)
    drawn, want = a.sample((2, 3)), b.sample((2, 3))
    assert drawn.shape == tuple(want.shape)
    assert drawn.dtype.name == str(want.dtype).removeprefix("torch.")
    assert a.support.event_dim == b.support.event_dim
    assert a.support.is_discrete == b.support.is_discrete


@pytest.mark.parametrize("name,k", CASES)
def test_log_prob_cdf_and_icdf(name, k):
    torch.manual_seed(3)
    a, b = both(name, k)
    value = b.sample((5,))
    slack = COARSE.get(name, 1e-8)
    close(a.log_prob(ours(value)), b.log_prob(value), slack, slack)
    want = asked(lambda: b.cdf(value))
    if want is not None:
        slack = 1e-3 if name == "ContinuousBernoulli" else 1e-8      # a shorter series around 1/2
        close(a.cdf(ours(value)), want, rtol=1e-7, atol=slack)
    p = torch.linspace(0.05, 0.95, 5, dtype=value.dtype).reshape(-1, *(1,) * len(b.batch_shape))
    p = p.expand(5, *b.batch_shape) if not b.event_shape else None
    want = None if p is None else asked(lambda: b.icdf(p))
    if want is not None:
        slack = 1e-3 if name == "ContinuousBernoulli" else 1e-8
        close(a.icdf(ours(p.contiguous())), want, rtol=1e-7, atol=slack)


@pytest.mark.parametrize("name,k", CASES)
def test_support_and_expansion(name, k):
    a, b = both(name, k)
    value = b.sample((4,))
    assert a.support.check(ours(value)).all()
    shape = (2, *b.batch_shape)
    assert a.expand(shape).batch_shape == shape
    wide, want = a.expand(shape), b.expand(shape)
    value = want.sample((3,))
    slack = COARSE.get(name, 1e-8)
    close(wide.log_prob(ours(value)), want.log_prob(value), slack, slack)
    assert wide.sample((3,)).shape == tuple(value.shape)
    assert wide.expand((3, *shape)).sample().shape == (3, *shape, *b.event_shape)
    if b.has_enumerate_support:
        for expand in (False, True):
            want = asked(lambda expand=expand: b.enumerate_support(expand=expand))
            if want is not None:
                close(a.enumerate_support(expand=expand), want)


@pytest.mark.parametrize("name,k", CASES)
def test_gradients_of_log_prob(name, k):
    torch.manual_seed(4)
    tracked, args, other = [], arguments(name, k), arguments(name, k, TD, double)
    for key, value in args.items():
        if isinstance(value, facula.Tensor) and not key.endswith(("df1_", "lims")):
            value.requires_grad_(True)
            other[key].requires_grad_(True)
            tracked.append((value, other[key]))
    if not tracked:
        pytest.skip("no tensors among the parameters")
    a, b = getattr(D, name)(**args), getattr(TD, name)(**other)
    value = b.sample((3,))
    a.log_prob(ours(value)).sum().backward()
    b.log_prob(value).sum().backward()
    for x, y in tracked:
        if y.grad is not None:
            if x is args.get("scale_tril"):                  # what is above is not looked at
                x.grad, y.grad = x.grad.tril(), y.grad.tril()
            close(x.grad, y.grad, COARSE.get(name, 1e-7), COARSE.get(name, 1e-7))


PAIRS = sorted(((p.__name__, q.__name__) for p, q in _RULES
                if hasattr(TD, p.__name__) and hasattr(TD, q.__name__)))


# PyTorch's is infinite where both have an end in common.
PAIRS.remove(("ContinuousBernoulli", "Uniform"))


def fit(a, b):
    try:
        np.broadcast_shapes(a, b)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("p,q", PAIRS)
def test_divergences(p, q):
    found = 0
    for i in [k for n, k in CASES if n == p]:
        for j in [k for n, k in CASES if n == q]:
            (a, b), (c, d) = both(p, i), both(q, j)
            if a.event_shape != c.event_shape or not fit(a.batch_shape, c.batch_shape):
                continue
            try:
                want = TD.kl_divergence(b, d)
            except (NotImplementedError, RuntimeError, ValueError, IndexError):
                continue        # some of its rules do not broadcast
            got = D.kl_divergence(a, c)
            if torch.isinf(want).all():                      # of the shape of p's parameters
                want = want.flatten()[0].expand(tuple(got.shape))
            close(got, want, rtol=1e-6, atol=1e-6, what=f"{i} {j}")
            found += 1
    if not found:
        pytest.skip("PyTorch has no such divergence")


def test_as_many_divergences_as_pytorch():
    from torch.distributions.kl import _KL_REGISTRY
    missing = {(p.__name__, q.__name__) for p, q in _KL_REGISTRY} \
        - {(p.__name__, q.__name__) for p, q in _RULES}
    assert missing == set()


def test_as_many_names_as_pytorch():
    assert set(TD.__all__) <= set(D.__all__)
    for name in torch.distributions.constraints.__all__:
        assert hasattr(D.constraints, name), name


def test_numpy_is_what_both_give():
    assert isinstance(D.Normal(0.0, 1.0).sample().numpy(), np.ndarray)
