"""The inverse gamma distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions import constraints
from facula.distributions.distribution import family
from facula.distributions.gamma import Gamma
from facula.distributions.kl import kl_divergence, register_kl
from facula.distributions.transformed_distribution import TransformedDistribution
from facula.distributions.transforms import PowerTransform
from facula.ops.creation import full
from facula.tensor import Tensor

__all__ = ["InverseGamma"]


@family({"concentration": 4.5, "rate": 1.5},
        {"concentration": [0.8, 1.5, 5.0], "rate": [[0.5], [2.0]]})
class InverseGamma(TransformedDistribution):
    """1 / x of a gamma variable with `concentration` and `rate`."""

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None):
        base = Gamma(concentration, rate, validate_args=validate_args)
        power = PowerTransform(full((), -1, dtype=base.rate.dtype))
        super().__init__(base, power, validate_args=validate_args)

    @property
    def concentration(self) -> Any:
        return self.base_dist.concentration

    @property
    def rate(self) -> Any:
        return self.base_dist.rate

    @property
    def mean(self) -> Tensor:
        a = self.concentration
        return (self.rate / (a - 1)).where(a > 1, math.inf)

    @property
    def mode(self) -> Tensor:
        return self.rate / (self.concentration + 1)

    @property
    def variance(self) -> Tensor:
        a = self.concentration
        value = self.rate.square() / ((a - 1).square() * (a - 2))
        return value.where(a > 2, math.inf)

    def entropy(self) -> Tensor:
        a = self.concentration
        return a + self.rate.log() + a.lgamma() - (1 + a) * a.digamma()


@register_kl(InverseGamma, InverseGamma)
def _kl(p: InverseGamma, q: InverseGamma) -> Tensor:
    return kl_divergence(p.base_dist, q.base_dist)
