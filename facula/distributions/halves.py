"""|x| of a variable that is as likely as -x."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions import constraints
from facula.distributions.transformed_distribution import TransformedDistribution, of_base
from facula.distributions.transforms import AbsTransform
from facula.ops.creation import zeros_like
from facula.tensor import Tensor

__all__ = ["Half"]


class Half(TransformedDistribution):
    """The upper half of `whole`, a location-scale family around 0, twice as dense."""

    arg_constraints = {"scale": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    scale = of_base()
    whole: Any

    def __init__(self, scale: Any, validate_args: bool | None = None):
        super().__init__(self.whole(0, scale, validate_args=False), AbsTransform(),
                         validate_args=validate_args)

    @property
    def mode(self) -> Tensor:
        return zeros_like(self.scale)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        density = self.base_dist.log_prob(value) + math.log(2)
        return density.where(value >= 0, -math.inf)

    def cdf(self, value: Tensor) -> Tensor:
        self._check(value)
        return 2 * self.base_dist.cdf(value) - 1

    def icdf(self, value: Tensor) -> Tensor:
        return self.base_dist.icdf((value + 1) / 2)

    def entropy(self) -> Tensor:
        return self.base_dist.entropy() - math.log(2)
