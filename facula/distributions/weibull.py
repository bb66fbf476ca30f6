"""The Weibull distribution."""

from __future__ import annotations

from typing import Any

from facula.distributions import constraints
from facula.distributions.distribution import Distribution, family
from facula.distributions.utils import EULER, broadcast_all, exponential_like
from facula.tensor import Tensor

__all__ = ["Weibull"]


@family({"scale": 2.0, "concentration": 1.5},
        {"scale": [0.5, 1.0, 3.0], "concentration": [[0.8], [2.5]]})
class Weibull(Distribution):
    """The Weibull distribution, P(x > t) = exp(-(t / scale)**concentration)."""

    arg_constraints = {"scale": constraints.positive, "concentration": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, scale: Any, concentration: Any, validate_args: bool | None = None):
        self.scale, self.concentration = broadcast_all(scale, concentration)
        super().__init__(self.scale.shape, validate_args=validate_args)

    def _moment(self, n: int) -> Tensor:
        return self.scale.pow(n) * (1 + n / self.concentration).lgamma().exp()

    @property
    def mean(self) -> Tensor:
        return self._moment(1)

    @property
    def mode(self) -> Tensor:
        k = self.concentration
        return self.scale * (1 - 1 / k).clamp(min=0).pow(1 / k)

    @property
    def variance(self) -> Tensor:
        return self._moment(2) - self._moment(1).square()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        e = exponential_like(self.scale, self._extended_shape(sample_shape))
        return self.scale * e.pow(1 / self.concentration)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        k = self.concentration
        z = value / self.scale
        return (k / self.scale).log() + (k - 1).xlogy(z) - z.pow(k)

    def cdf(self, value: Tensor) -> Tensor:
        self._check(value)
        return -(-(value / self.scale).pow(self.concentration)).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        return self.scale * (-(-value).log1p()).pow(1 / self.concentration)

    def entropy(self) -> Tensor:
        k = self.concentration
        return EULER * (1 - 1 / k) + (self.scale / k).log() + 1
