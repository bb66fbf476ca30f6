"""The gamma distribution."""

from __future__ import annotations

from typing import Any

from facula.distributions import constraints
from facula.distributions.distribution import Distribution, family
from facula.distributions.kl import register_kl
from facula.distributions.utils import broadcast_all
from facula.info import finfo
from facula.ops.draws import rejection_numbers
from facula.tensor import Tensor

__all__ = ["Gamma", "log_gamma_numbers"]


def log_gamma_numbers(concentration: Any, shape: Any) -> Tensor:
    """Logarithms of gamma numbers of rate 1, in `shape`, to which `concentration` broadcasts."""
    return rejection_numbers("draw_gamma", concentration.expand(shape))


@family({"concentration": 2.0, "rate": 1.5},
        {"concentration": [0.3, 1.0, 5.0], "rate": [[0.5], [2.0]]})
class Gamma(Distribution):
    """The gamma distribution with shape `concentration` and mean concentration / rate.

    Draws have implicit gradients (Figurnov, Mohamed and Mnih, "Implicit reparameterization
    gradients", 2018), once: there is no gradient of their gradient in the concentration.
    """

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None):
        self.concentration, self.rate = broadcast_all(concentration, rate)
        super().__init__(self.concentration.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.rate

    @property
    def mode(self) -> Tensor:
        return ((self.concentration - 1) / self.rate).clamp(min=0)

    @property
    def variance(self) -> Tensor:
        return self.concentration / self.rate.square()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        value = log_gamma_numbers(self.concentration, shape).exp() / self.rate
        return value.clamp(min=finfo(value.dtype).tiny)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        a = self.concentration
        return a.xlogy(self.rate) + (a - 1).xlogy(value) - self.rate * value - a.lgamma()

    def cdf(self, value: Tensor) -> Tensor:
        self._check(value)
        a, x = broadcast_all(self.concentration, self.rate * value)
        return a.igamma(x)

    def entropy(self) -> Tensor:
        a = self.concentration
        return a - self.rate.log() + a.lgamma() + (1 - a) * a.digamma()


@register_kl(Gamma, Gamma)
def _kl(p: Gamma, q: Gamma) -> Tensor:
    a, b = p.concentration, q.concentration
    return (b * (p.rate / q.rate).log() + b.lgamma() - a.lgamma() + (a - b) * a.digamma()
            + (q.rate - p.rate) * (a / p.rate))
