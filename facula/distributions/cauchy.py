"""The Cauchy distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions.distribution import family
from facula.distributions.kl import register_kl
from facula.distributions.location_scale import LocationScale
from facula.distributions.utils import open_uniform
from facula.ops.creation import full
from facula.tensor import Tensor

__all__ = ["Cauchy"]


@family({"loc": 0.5, "scale": 2.0}, {"loc": [-1.0, 0.0, 3.0], "scale": [[0.5], [1.5]]})
class Cauchy(LocationScale):
    """The Cauchy distribution around `loc`, half of it within `scale`; it has no moments."""

    @property
    def mean(self) -> Tensor:
        return full(self._extended_shape(), math.nan, dtype=self.loc.dtype)

    @property
    def variance(self) -> Tensor:
        return full(self._extended_shape(), math.inf, dtype=self.loc.dtype)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.icdf(open_uniform(self.loc, self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        z = (value - self.loc) / self.scale
        return -math.log(math.pi) - self.scale.log() - z.square().log1p()

    def cdf(self, value: Tensor) -> Tensor:
        self._check(value)
        return ((value - self.loc) / self.scale).atan() / math.pi + 0.5

    def icdf(self, value: Tensor) -> Tensor:
        return (math.pi * (value - 0.5)).tan() * self.scale + self.loc

    def entropy(self) -> Tensor:
        return math.log(4 * math.pi) + self.scale.log()


@register_kl(Cauchy, Cauchy)
def _kl(p: Cauchy, q: Cauchy) -> Tensor:
    # Chyzak and Nielsen, "A closed-form formula for the Kullback-Leibler divergence between
    # Cauchy distributions" (2019).
    gap = (p.scale + q.scale).square() + (p.loc - q.loc).square()
    return gap.log() - (4 * p.scale * q.scale).log()
