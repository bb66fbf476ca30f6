"""Divergences between families of one variable: KL(p || q) = -H(p) - E_p[log q].

The density of each family on the right is an exponential of few functions of x, and those on
the left know the means of these: what one row here and one there have in common is a rule.
Where p has values that q has not, the divergence is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from facula.distributions.bernoulli import Bernoulli
from facula.distributions.beta import Beta
from facula.distributions.binomial import Binomial
from facula.distributions.continuous_bernoulli import ContinuousBernoulli
from facula.distributions.distribution import Distribution
from facula.distributions.exponential import Exponential
from facula.distributions.gamma import Gamma
from facula.distributions.gumbel import Gumbel
from facula.distributions.kl import register_kl
from facula.distributions.laplace import Laplace
from facula.distributions.normal import Normal
from facula.distributions.pareto import Pareto
from facula.distributions.poisson import Poisson
from facula.distributions.uniform import Uniform
from facula.distributions.utils import EULER, log_beta
from facula.ops.creation import full
from facula.ops.promote import broadcast_shapes
from facula.tensor import Tensor

__all__: list[str] = []

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)

# ---------------------------------------------------------------- the range of each family

_Ends = tuple[Any, Any]
_RANGE: dict[type, Callable[[Any], _Ends]] = {
    Normal: lambda p: (-math.inf, math.inf), Laplace: lambda p: (-math.inf, math.inf),
    Gumbel: lambda p: (-math.inf, math.inf), Exponential: lambda p: (0.0, math.inf),
    Gamma: lambda p: (0.0, math.inf), Beta: lambda p: (0.0, 1.0),
    ContinuousBernoulli: lambda p: (0.0, 1.0), Uniform: lambda p: (p.low, p.high),
    Pareto: lambda p: (p.scale, math.inf)}

# ---------------------------------------------------------------- means under p


def _mean(p: Any, q: Any) -> Tensor:
    return p.mean


def _square(p: Any, q: Any) -> Tensor:
    """E (x - loc)**2 around the `loc` of q."""
    return p.variance + (p.mean - q.loc).square()


def _uniform_log(low: Any, high: Any) -> Tensor:
    """The mean of log x between 0 <= low and high."""
    return (high.xlogy(high) - low.xlogy(low)) / (high - low) - 1


_LOG: dict[type, Callable[[Any], Tensor]] = {
    Exponential: lambda p: -EULER - p.rate.log(),
    Gamma: lambda p: p.concentration.digamma() - p.rate.log(),
    Beta: lambda p: p.concentration1.digamma()
    - (p.concentration1 + p.concentration0).digamma(),
    Pareto: lambda p: p.scale.log() + 1 / p.alpha,
    Uniform: lambda p: _uniform_log(p.low.clamp(min=0), p.high.clamp(min=0))}

_LOG_REST: dict[type, Callable[[Any], Tensor]] = {           # E log(1 - x)
    Beta: lambda p: p.concentration0.digamma()
    - (p.concentration1 + p.concentration0).digamma(),
    Uniform: lambda p: _uniform_log((1 - p.high).clamp(min=0), (1 - p.low).clamp(min=0))}

_FALL: dict[type, Callable[[Any, Any], Tensor]] = {       # E exp(-x / scale)
    Normal: lambda p, s: (0.5 * (p.scale / s).square() - p.loc / s).exp(),
    Exponential: lambda p, s: 1 / (1 + 1 / (p.rate * s)),
    Gamma: lambda p, s: (1 + 1 / (p.rate * s)).pow(-p.concentration),
    Uniform: lambda p, s: s * ((-p.low / s).exp() - (-p.high / s).exp()) / (p.high - p.low)}

# ---------------------------------------------------------------- E_p[log q]


def _to_normal(p: Any, q: Normal) -> Tensor:
    return -_square(p, q) / (2 * q.scale.square()) - q.scale.log() - _HALF_LOG_2PI


def _to_exponential(p: Any, q: Exponential) -> Tensor:
    return q.rate.log() - q.rate * p.mean


def _to_gamma(p: Any, q: Gamma) -> Tensor:
    a = q.concentration
    return a * q.rate.log() - a.lgamma() + (a - 1) * _LOG[_of(p, _LOG)](p) - q.rate * p.mean


def _to_beta(p: Any, q: Beta) -> Tensor:
    a, b = q.concentration1, q.concentration0
    return ((a - 1) * _LOG[_of(p, _LOG)](p) + (b - 1) * _LOG_REST[_of(p, _LOG_REST)](p)
            - log_beta(a, b))


def _to_uniform(p: Any, q: Uniform) -> Tensor:
    return -(q.high - q.low).log()


def _to_continuous(p: Any, q: ContinuousBernoulli) -> Tensor:
    return p.mean * q.logits + q._log_no() + q._log_norm()


def _to_pareto(p: Any, q: Pareto) -> Tensor:
    return q.alpha.log() + q.alpha * q.scale.log() - (q.alpha + 1) * _LOG[_of(p, _LOG)](p)


def _to_gumbel(p: Any, q: Gumbel) -> Tensor:
    fall = _FALL[_of(p, _FALL)](p, q.scale)
    return (q.loc - p.mean) / q.scale - (q.loc / q.scale).exp() * fall - q.scale.log()


def _to_laplace(p: Normal, q: Laplace) -> Tensor:
    """E |x - loc| of a folded normal variable."""
    far = p.loc - q.loc
    z = far / (p.scale * math.sqrt(2))
    fold = p.scale * math.sqrt(2 / math.pi) * (-z.square()).exp() + far * z.erf()
    return -fold / q.scale - (2 * q.scale).log()


def _of(p: Any, table: dict[type, Any]) -> type:
    return next(c for c in type(p).__mro__ if c in table)


def _rule(left: type, right: type, mean: Callable[[Any, Any], Tensor]) -> None:
    lows, highs = _RANGE[left], _RANGE[right]

    def rule(p: Any, q: Any) -> Tensor:
        value = -p.entropy() - mean(p, q)
        (a, b), (c, d) = lows(p), highs(q)
        if not any(isinstance(x, Tensor) for x in (a, b, c, d)):
            return value                                     # such rules exist where p is in q
        inside = full(value.shape, 0, dtype=value.dtype).eq(0)
        inside = inside & (c <= a) & (b <= d)
        return value.where(inside, math.inf)
    register_kl(left, right)(rule)


def _apart(left: type, right: type) -> None:
    """Always infinite: p reaches further than any q."""
    def rule(p: Any, q: Any) -> Tensor:
        shape = broadcast_shapes(p.batch_shape, q.batch_shape)
        return full(shape, math.inf, dtype=p.mean.dtype)
    register_kl(left, right)(rule)


_RIGHT: dict[type, tuple[Callable[[Any, Any], Tensor], tuple[type, ...]]] = {
    Normal: (_to_normal, (Laplace, Gumbel, Exponential, Gamma, Beta, ContinuousBernoulli,
                          Uniform, Pareto)),
    Exponential: (_to_exponential, (Gamma, Beta, ContinuousBernoulli, Uniform, Pareto)),
    Gamma: (_to_gamma, (Exponential, Beta, Uniform, Pareto)),
    Beta: (_to_beta, (Uniform,)),
    ContinuousBernoulli: (_to_continuous, (Beta, Uniform)),
    Uniform: (_to_uniform, (Beta, ContinuousBernoulli)),
    Pareto: (_to_pareto, (Exponential, Gamma, Uniform)),
    Gumbel: (_to_gumbel, (Normal, Exponential, Gamma, Uniform)),
    Laplace: (_to_laplace, (Normal,)),
}
"""Of each family on the right its density's mean, and the families on the left."""

for _q, (_expected, _lefts) in _RIGHT.items():
    for _p in _lefts:
        _rule(_p, _q, _expected)

_WHOLE, _HALF, _BOUNDED = ((Normal, Laplace, Gumbel), (Exponential, Gamma, Pareto),
                           (Beta, ContinuousBernoulli, Uniform))
for _p, _q in [*((a, b) for a in _WHOLE for b in (*_HALF, *_BOUNDED)),
               *((a, b) for a in _HALF for b in _BOUNDED),
               (Beta, Pareto), (ContinuousBernoulli, Pareto)]:
    _apart(_p, _q)

# ---------------------------------------------------------------- counts


@register_kl(Bernoulli, Poisson)
def _bernoulli_poisson(p: Bernoulli, q: Poisson) -> Tensor:
    return -p.entropy() - (p.probs.xlogy(q.rate) - q.rate)


def _poisson_apart(p: Poisson, q: Distribution) -> Tensor:
    shape = broadcast_shapes(p.batch_shape, q.batch_shape)
    return full(shape, math.inf, dtype=p.rate.dtype)


register_kl(Poisson, Bernoulli)(_poisson_apart)
register_kl(Poisson, Binomial)(_poisson_apart)
