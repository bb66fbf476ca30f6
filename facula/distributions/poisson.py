"""The Poisson distribution."""

from __future__ import annotations

from typing import Any

from facula.distributions import constraints
from facula.distributions.distribution import Distribution, family
from facula.distributions.kl import register_kl
from facula.distributions.utils import broadcast_all
from facula.ops.draws import rejection_numbers
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
