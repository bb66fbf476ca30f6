"""Densities, moments and distribution functions against scipy.stats."""

import numpy as np
import pytest

import facula.distributions as D
from tests.distributions.families import close, tensor

stats = pytest.importorskip("scipy.stats")

ROWS = [
    (D.Normal, (0.5, 2.0), stats.norm(0.5, 2.0)),
    (D.LogNormal, (0.3, 0.5), stats.lognorm(0.5, scale=np.exp(0.3))),
    (D.HalfNormal, (2.0,), stats.halfnorm(scale=2.0)),
    (D.Uniform, (-1.0, 2.0), stats.uniform(-1.0, 3.0)),
    (D.Exponential, (2.0,), stats.expon(scale=0.5)),
    (D.Gamma, (2.5, 1.5), stats.gamma(2.5, scale=1 / 1.5)),
    (D.InverseGamma, (4.5, 1.5), stats.invgamma(4.5, scale=1.5)),
    (D.Beta, (2.0, 3.0), stats.beta(2.0, 3.0)),
    (D.Chi2, (3.0,), stats.chi2(3.0)),
    (D.StudentT, (5.5, 0.5, 2.0), stats.t(5.5, 0.5, 2.0)),
    (D.FisherSnedecor, (4.0, 9.5), stats.f(4.0, 9.5)),
    (D.Cauchy, (0.5, 2.0), stats.cauchy(0.5, 2.0)),
    (D.HalfCauchy, (2.0,), stats.halfcauchy(scale=2.0)),
    (D.Laplace, (0.5, 2.0), stats.laplace(0.5, 2.0)),
    (D.Gumbel, (0.5, 2.0), stats.gumbel_r(0.5, 2.0)),
    (D.Weibull, (2.0, 1.5), stats.weibull_min(1.5, scale=2.0)),
    (D.Pareto, (2.0, 3.5), stats.pareto(3.5, scale=2.0)),
    (D.GeneralizedPareto, (0.5, 2.0, 0.2), stats.genpareto(0.2, 0.5, 2.0)),
    (D.GeneralizedPareto, (0.5, 2.0, -0.3), stats.genpareto(-0.3, 0.5, 2.0)),
    (D.GeneralizedPareto, (0.5, 2.0, 0.0), stats.genpareto(0.0, 0.5, 2.0)),
    (D.VonMises, (0.5, 2.0), stats.vonmises(2.0, 0.5)),
]
COUNTS = [
    (D.Bernoulli, (0.3,), stats.bernoulli(0.3)),
    (D.Binomial, (9.0, 0.3), stats.binom(9, 0.3)),
    (D.Geometric, (0.3,), stats.geom(0.3, loc=-1)),
    (D.NegativeBinomial, (4.5, 0.3), stats.nbinom(4.5, 0.7)),
    (D.Poisson, (3.0,), stats.poisson(3.0)),
]


def name(row):
    return f"{row[0].__name__}{row[1]}"


@pytest.mark.parametrize("cls,args,peer", ROWS, ids=map(name, ROWS))
def test_continuous(cls, args, peer):
    d = cls(*map(tensor, args))
    p = np.linspace(0.03, 0.97, 11)
    x = peer.ppf(p)
    close(d.log_prob(tensor(x.tolist())), peer.logpdf(x), 1e-8, 1e-9)
    for what, got in (("cdf", lambda: d.cdf(tensor(x.tolist()))),
                      ("icdf", lambda: d.icdf(tensor(p.tolist())))):
        try:
            value = got()
        except NotImplementedError:
            continue
        close(value, p if what == "cdf" else x, 1e-8, 1e-9, what)
    if cls is D.VonMises:                                    # scipy's moments are not circular
        return
    if np.isfinite(peer.var()):
        close(d.mean, peer.mean(), 1e-8)
        close(d.variance, peer.var(), 1e-8)
    close(d.entropy(), peer.entropy(), 1e-6, 1e-7) if cls is not D.FisherSnedecor else None


@pytest.mark.parametrize("cls,args,peer", COUNTS, ids=map(name, COUNTS))
def test_counts(cls, args, peer):
    d = cls(*map(tensor, args))
    k = np.arange(2.0 if cls is D.Bernoulli else 8.0)
    close(d.log_prob(tensor(k.tolist())), peer.logpmf(k), 1e-8, 1e-9)
    close(d.mean, peer.mean(), 1e-8)
    close(d.variance, peer.var(), 1e-8)
    if cls in (D.Bernoulli, D.Binomial, D.Geometric):
        close(d.entropy(), peer.entropy(), 1e-7)


def test_vectors_and_matrices():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 3))
    cov, mean = root @ root.T + np.eye(3), rng.normal(size=3)
    x = rng.normal(size=(5, 3))
    d = D.MultivariateNormal(tensor(mean.tolist()), tensor(cov.tolist()))
    peer = stats.multivariate_normal(mean, cov)
    close(d.log_prob(tensor(x.tolist())), peer.logpdf(x), 1e-9)
    close(d.entropy(), peer.entropy(), 1e-9)
    w = D.Wishart(tensor(5.5), tensor(cov.tolist()))
    value = np.eye(3) * 2 + 0.3
    peer = stats.wishart(5.5, cov)
    close(w.log_prob(tensor(value.tolist())), peer.logpdf(value), 1e-9)
    close(w.entropy(), peer.entropy(), 1e-9)
    a = [2.0, 3.0, 0.7]
    y = rng.dirichlet(a, size=4)
    y /= y.sum(1, keepdims=True)
    d = D.Dirichlet(tensor(a))
    close(d.log_prob(tensor(y.tolist())), [stats.dirichlet.logpdf(v, a) for v in y], 1e-9)
    close(d.entropy(), stats.dirichlet.entropy(a), 1e-9)
    m = D.Multinomial(7, tensor([0.2, 0.5, 0.3]))
    counts = [[1.0, 4.0, 2.0], [0.0, 7.0, 0.0]]
    peer = stats.multinomial(7, [0.2, 0.5, 0.3])
    close(m.log_prob(tensor(counts)), [peer.logpmf([int(c) for c in v]) for v in counts], 1e-9)
    close(m.entropy(), peer.entropy(), 1e-9)
