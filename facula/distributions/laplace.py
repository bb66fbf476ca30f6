"""The Laplace distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions.distribution import family
from facula.distributions.kl import register_kl
from facula.distributions.location_scale import LocationScale
from facula.distributions.utils import open_uniform
from facula.tensor import Tensor

__all__ = ["Laplace"]


@family({"loc": 0.5, "scale": 2.0}, {"loc": [-1.0, 0.0, 3.0], "scale": [[0.5], [1.5]]})
class Laplace(LocationScale):
    """The Laplace distribution: the distance from `loc` is exponential with mean `scale`."""

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return 2 * self.scale.square()

    @property
    def stddev(self) -> Tensor:
        return math.sqrt(2) * self.scale

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.icdf(open_uniform(self.loc, self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        return -(2 * self.scale).log() - (value - self.loc).abs() / self.scale

    def cdf(self, value: Tensor) -> Tensor:
        self._check(value)
        far = value - self.loc
        return 0.5 - 0.5 * far.sign() * (-far.abs() / self.scale).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        far = value - 0.5
        tail = 2 * value.minimum(1 - value)                  # exact near 0, unlike 1 - 2 |far|
        return self.loc - self.scale * far.sign() * tail.log()

    def entropy(self) -> Tensor:
        return 1 + (2 * self.scale).log()


@register_kl(Laplace, Laplace)
def _kl(p: Laplace, q: Laplace) -> Tensor:
    far = (p.loc - q.loc).abs()
    ratio = p.scale / q.scale
    return -ratio.log() + far / q.scale + ratio * (-far / p.scale).exp() - 1
