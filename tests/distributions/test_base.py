"""What the base class, the divergences and the imports do."""

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest

import facula
import facula.distributions as D
from facula.distributions import kl
from tests.distributions.families import close, tensor


def test_loaded_when_used():
    code = ("import sys, facula; assert 'facula.distributions' not in sys.modules; "
            "facula.distributions.Normal(0.0, 1.0); "
            "assert not {'torch', 'scipy', 'jax'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_arguments_are_checked_unless_told_otherwise():
    with pytest.raises(ValueError, match=r"parameter scale .* of distribution Normal"):
        D.Normal(0.0, tensor([1.0, -1.0]))
    quiet = D.Normal(0.0, -1.0, validate_args=False)
    assert quiet.log_prob(facula.tensor(0.0)).isnan()
    d = D.Bernoulli(tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match="within the support"):
        d.log_prob(tensor([0.5, 1.0]))
    with pytest.raises(ValueError, match="not broadcastable"):
        d.log_prob(tensor([0.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="right-most size"):
        D.Dirichlet(tensor([1.0, 1.0])).log_prob(tensor(0.5))
    with pytest.raises(ValueError, match="not both"):
        D.Bernoulli(0.5, 0.5)
    with pytest.raises(ValueError, match="not both"):
        D.Categorical()
    with pytest.raises(ValueError, match="tensors or numbers"):
        D.Normal("zero", 1.0)
    with pytest.raises(ValueError, match="low>= high"):
        D.Uniform(1.0, 1.0)
    with pytest.raises(ValueError, match="Exactly one"):
        D.MultivariateNormal(tensor([0.0]))
    with pytest.raises(ValueError, match="greater than ndim - 1"):
        D.Wishart(0.5, facula.eye(2))
    with pytest.raises(ValueError, match="reinterpreted_batch_ndims"):
        D.Independent(D.Normal(0.0, 1.0), 1)
    with pytest.raises(ValueError, match="Categorical"):
        D.MixtureSameFamily(D.Normal(0.0, 1.0), D.Normal(0.0, 1.0))
    assert D.Distribution._validate_args
    try:
        D.Distribution.set_default_validate_args(False)
        D.Normal(0.0, -1.0)
    finally:
        D.Distribution.set_default_validate_args(True)
    with pytest.raises(ValueError):
        D.Distribution.set_default_validate_args(None)


def test_what_a_family_lacks_is_named():
    with pytest.raises(NotImplementedError, match="Poisson has no rsample"):
        D.Poisson(1.0).rsample()
    with pytest.raises(NotImplementedError, match="Dirichlet has no cdf"):
        D.Dirichlet(tensor([1.0, 1.0])).cdf(tensor([0.5, 0.5]))
    with pytest.raises(NotImplementedError, match="Gamma has no icdf"):
        D.Gamma(1.0, 1.0).icdf(tensor(0.5))


def test_numbers_take_the_dtype_of_the_tensors():
    assert D.Normal(0, 1).sample().dtype is facula.float32
    assert D.Normal(tensor(0.0), 1).sample().dtype is facula.float64
    half = D.Normal(facula.zeros(3, dtype=facula.float16), 1.0)
    assert half.sample().dtype is facula.float16


def test_the_nearest_rule_is_taken():
    class Mine(D.Normal):
        pass

    class Other(Mine):
        pass

    p, q = Other(0.0, 1.0), Other(1.0, 2.0)
    close(D.kl_divergence(p, q), D.kl_divergence(D.Normal(0.0, 1.0), D.Normal(1.0, 2.0)))
    try:
        D.register_kl(Mine, D.Normal)(lambda p, q: "left")
        D.register_kl(D.Normal, Mine)(lambda p, q: "right")
        with pytest.warns(RuntimeWarning, match="Ambiguous"):
            assert D.kl_divergence(p, q) == "left"
        D.register_kl(Mine, Mine)(lambda p, q: "both")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert D.kl_divergence(p, q) == "both"
    finally:
        for key in [k for k in kl._RULES if Mine in k]:
            del kl._RULES[key]
        kl._FOUND.clear()
    with pytest.raises(NotImplementedError, match="No KL"):
        D.kl_divergence(D.Normal(0.0, 1.0), D.Bernoulli(0.5))
    with pytest.raises(TypeError, match="Distribution subclass"):
        D.register_kl(int, D.Normal)


DIVERGENCES = sorted((p.__name__, q.__name__) for p, q in kl._RULES
                     if p.__name__ != "ExponentialFamily")


@pytest.mark.parametrize("p,q", DIVERGENCES)
def test_divergences_are_means_of_log_ratios(p, q):
    from tests.distributions.families import FAMILIES, made
    facula.manual_seed(6)
    for i in range(len(FAMILIES[p].samples)):
        for j in range(len(FAMILIES[q].samples)):
            a, b = made(p, i, validate_args=False), made(q, j, validate_args=False)
            try:
                shape = np.broadcast_shapes(a.batch_shape, b.batch_shape)
                got = D.kl_divergence(a, b).numpy()
            except (ValueError, NotImplementedError):
                continue
            if a.event_shape != b.event_shape:
                continue
            x = a.expand(shape).sample((1500,))
            inside = b.support.check(x.to(facula.float64)).numpy()
            ratio = (a.log_prob(x) - b.log_prob(x)).numpy().astype(np.float64)
            # Infinite where p has values outside of q, and there alone.
            within = (inside & np.isfinite(ratio)).all(0)
            assert np.isinf(got[~within]).all(), (i, j)
            finite = within & np.isfinite(got)
            some = ratio[:, finite]
            error = some.std(0) / math.sqrt(1500)
            assert (np.abs(some.mean(0) - got[finite]) < 6 * error + 1e-3).all(), (i, j)
            return


def test_exponential_families_follow_from_their_normaliser():
    class Exponential(D.ExponentialFamily):
        arg_constraints = {"rate": D.constraints.positive}
        support = D.constraints.nonnegative
        _mean_carrier_measure = 0.0

        def __init__(self, rate):
            self.rate, = D.utils.broadcast_all(rate)
            super().__init__(self.rate.shape)

        @property
        def _natural_params(self):
            return (-self.rate,)

        def _log_normalizer(self, x):
            return -(-x).log()

    rates = tensor([0.5, 2.0]), tensor([1.0, 3.0])
    p, q = (Exponential(r) for r in rates)
    a, b = (D.Exponential(r) for r in rates)
    close(p.entropy(), a.entropy())
    close(D.kl_divergence(p, q), D.kl_divergence(a, b))
    rate = tensor([0.5, 2.0]).requires_grad_(True)
    slope, = facula.autograd.grad(Exponential(rate).entropy().sum(), rate)
    close(slope, -1 / rate)


def test_mapped_draws():
    loc = tensor([0.0, 10.0, 20.0])
    facula.manual_seed(0)
    draw = lambda m: D.Normal(m, 1.0).sample((4,))
    x = facula.vmap(draw, randomness="different")(loc)
    assert x.shape == (3, 4)
    apart = (x - loc.unsqueeze(1)).numpy()
    assert len(np.unique(apart)) == 12
    y = facula.vmap(draw, randomness="same")(loc)
    close((y - loc.unsqueeze(1))[0], (y - loc.unsqueeze(1))[1], 1e-12, 1e-12)
    z = facula.vmap(lambda a: D.Gamma(a, 1.0).sample(), randomness="different")(tensor([2.0] * 5))
    assert len(np.unique(z.numpy())) == 5


def test_a_step_of_a_variational_autoencoder_is_replayed():
    facula.manual_seed(0)
    encode, decode = facula.nn.Linear(6, 4), facula.nn.Linear(2, 6)
    prior = D.Independent(D.Normal(facula.zeros(2), facula.ones(2)), 1)

    def loss(x):
        mean, log_scale = encode(x).chunk(2, -1)
        posterior = D.Independent(D.Normal(mean, log_scale.exp()), 1)
        likelihood = D.Independent(D.Bernoulli(logits=decode(posterior.rsample())), 1)
        return (D.kl_divergence(posterior, prior) - likelihood.log_prob(x)).mean()

    weights = [*encode.parameters(), *decode.parameters()]
    optimizer = facula.optim.SGD(weights, lr=0.01)

    def step(x):
        optimizer.zero_grad()
        value = loss(x)
        value.backward()
        optimizer.step()
        return value

    x = (facula.rand(8, 6) < 0.5).float()
    before = [w.detach().clone() for w in weights]
    replayed = facula.compile(step)
    ends = []
    for run in (step, replayed):
        with facula.no_grad():
            for w, b in zip(weights, before):
                w.copy_(b)
        facula.manual_seed(5)
        for _ in range(4):
            value = run(x)
        ends.append([value.detach(), *(w.detach().clone() for w in weights)])
    assert "0 run as they are" in str(replayed.explain()), replayed.explain()
    for a, b in zip(*ends):
        close(a, b, 1e-4, 1e-5)
