"""The half-normal distribution."""

from __future__ import annotations

import math

from facula.distributions.distribution import family
from facula.distributions.halves import Half
from facula.distributions.kl import kl_divergence, register_kl
from facula.distributions.normal import Normal
from facula.tensor import Tensor

__all__ = ["HalfNormal"]


@family({"scale": 2.0}, {"scale": [[0.5, 1.0, 3.0]]})
class HalfNormal(Half):
    """|x| of a normal variable with mean 0 and standard deviation `scale`."""

    whole = Normal

    @property
    def mean(self) -> Tensor:
        return self.scale * math.sqrt(2 / math.pi)

    @property
    def variance(self) -> Tensor:
        return self.scale.square() * (1 - 2 / math.pi)


@register_kl(HalfNormal, HalfNormal)
def _kl(p: HalfNormal, q: HalfNormal) -> Tensor:
    return kl_divergence(p.base_dist, q.base_dist)           # both halves are alike
