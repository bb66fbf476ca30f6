"""The Poisson distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions import constraints
from facula.distributions.bernoulli import Bernoulli
from facula.distributions.binomial import Binomial
from facula.distributions.distribution import Distribution, family
from facula.distributions.kl import register_kl
from facula.distributions.utils import broadcast_all
from facula.ops.creation import full
from facula.ops.draws import rejection_numbers
from facula.ops.promote import broadcast_shapes
from facula.tensor import Tensor

__all__ = ["Poisson"]


@family({"rate": 3.0}, {"rate": [[0.5, 1.0, 30.0]]})
class Poisson(Distribution):
    """How many events happen that come at a `rate`."""

    arg_constraints = {"rate": constraints.nonnegative}
    support = constraints.nonnegative_integer

    def __init__(self, rate: Any, validate_args: bool | None = None):
        self.rate, = broadcast_all(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.rate

    @property
    def mode(self) -> Tensor:
        return self.rate.floor()

    @property
    def variance(self) -> Tensor:
        return self.rate

    def sample(self, sample_shape: Any = ()) -> Tensor:
        rate = self.rate.detach().expand(self._extended_shape(sample_shape))
        return rejection_numbers("draw_poisson", rate)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        rate, value = broadcast_all(self.rate, value)
        return value.xlogy(rate) - rate - (value + 1).lgamma()


@register_kl(Poisson, Poisson)
def _kl(p: Poisson, q: Poisson) -> Tensor:
    return p.rate.xlogy(p.rate) - p.rate.xlogy(q.rate) - (p.rate - q.rate)


@register_kl(Bernoulli, Poisson)
def _kl_bernoulli(p: Bernoulli, q: Poisson) -> Tensor:
    return -p.entropy() - (p.probs.xlogy(q.rate) - q.rate)


@register_kl(Poisson, Bernoulli)
def _kl_to_bernoulli(p: Poisson, q: Bernoulli) -> Tensor:
    return full(broadcast_shapes(p.batch_shape, q.batch_shape), math.inf, dtype=p.rate.dtype)


@register_kl(Poisson, Binomial)
def _kl_to_binomial(p: Poisson, q: Binomial) -> Tensor:
    return full(broadcast_shapes(p.batch_shape, q.batch_shape), math.inf, dtype=p.rate.dtype)
