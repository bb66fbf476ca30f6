"""The half-Cauchy distribution."""

from __future__ import annotations

import math

from facula.distributions.cauchy import Cauchy
from facula.distributions.distribution import family
from facula.distributions.halves import Half
from facula.ops.creation import full
from facula.tensor import Tensor

__all__ = ["HalfCauchy"]


@family({"scale": 2.0}, {"scale": [[0.5, 1.0, 3.0]]})
class HalfCauchy(Half):
    """|x| of a Cauchy variable around 0."""

    whole = Cauchy

    @property
    def mean(self) -> Tensor:
        return full(self._extended_shape(), math.inf, dtype=self.scale.dtype)

    @property
    def variance(self) -> Tensor:
        return self.base_dist.variance
