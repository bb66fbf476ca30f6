"""The normal distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions.distribution import family
from facula.distributions.kl import register_kl
from facula.distributions.location_scale import LocationScale
from facula.distributions.utils import normal_like
from facula.tensor import Tensor

__all__ = ["Normal"]


@family({"loc": 0.5, "scale": 2.0}, {"loc": [-1.0, 0.0, 3.0], "scale": [[0.5], [1.5]]})
class Normal(LocationScale):
    """The normal distribution with mean `loc` and standard deviation `scale`."""

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def stddev(self) -> Tensor:
        return self.scale

    @property
    def variance(self) -> Tensor:
        return self.scale.square()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.loc + normal_like(self.loc, self._extended_shape(sample_shape)) * self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        z = (value - self.loc) / self.scale
        return -0.5 * z * z - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def cdf(self, value: Tensor) -> Tensor:
        self._check(value)
        return 0.5 * ((self.loc - value) / (self.scale * math.sqrt(2))).erfc()

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc + self.scale * math.sqrt(2) * (2 * value - 1).erfinv()

    def entropy(self) -> Tensor:
        return 0.5 + 0.5 * math.log(2 * math.pi) + self.scale.log()


@register_kl(Normal, Normal)
def _kl(p: Normal, q: Normal) -> Tensor:
    ratio = (p.scale / q.scale).square()
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale).square() - 1 - ratio.log())
