"""The Gumbel distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions.distribution import family
from facula.distributions.kl import register_kl
from facula.distributions.location_scale import LocationScale
from facula.distributions.utils import EULER, open_uniform
from facula.tensor import Tensor

__all__ = ["Gumbel"]


@family({"loc": 0.5, "scale": 2.0}, {"loc": [-1.0, 0.0, 3.0], "scale": [[0.5], [1.5]]})
class Gumbel(LocationScale):
    """The Gumbel distribution of largest values, with mode `loc`."""

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * EULER

    @property
    def variance(self) -> Tensor:
        return self.scale.square() * (math.pi ** 2 / 6)

    @property
    def stddev(self) -> Tensor:
        return self.scale * (math.pi / math.sqrt(6))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.icdf(open_uniform(self.loc, self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        y = (self.loc - value) / self.scale
        return y - y.exp() - self.scale.log()

    def cdf(self, value: Tensor) -> Tensor:
        self._check(value)
        return (-((self.loc - value) / self.scale).exp()).exp()

    def icdf(self, value: Tensor) -> Tensor:
        return self.loc - self.scale * (-value.log()).log()

    def entropy(self) -> Tensor:
        return self.scale.log() + (1 + EULER)


@register_kl(Gumbel, Gumbel)
def _kl(p: Gumbel, q: Gumbel) -> Tensor:
    ratio = p.scale / q.scale
    gap = (q.loc - p.loc) / q.scale
    return ratio * EULER - ratio.log() - gap + (gap + (1 + ratio).lgamma()).exp() - (1 + EULER)
