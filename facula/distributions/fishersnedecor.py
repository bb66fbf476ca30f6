"""The F distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions import constraints
from facula.distributions.distribution import Distribution, family
from facula.distributions.gamma import log_gamma_numbers
from facula.distributions.utils import broadcast_all, log_beta
from facula.info import finfo
from facula.tensor import Tensor

__all__ = ["FisherSnedecor"]


@family({"df1": 4.0, "df2": 9.5}, {"df1": [1.0, 2.0, 6.0], "df2": [[1.5], [5.0]]})
class FisherSnedecor(Distribution):
    """The ratio of the means of `df1` and of `df2` squares of standard normal variables."""

    arg_constraints = {"df1": constraints.positive, "df2": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, df1: Any, df2: Any, validate_args: bool | None = None):
        self.df1, self.df2 = broadcast_all(df1, df2)
        super().__init__(self.df1.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return (self.df2 / (self.df2 - 2)).where(self.df2 > 2, math.nan)

    @property
    def mode(self) -> Tensor:
        value = (self.df1 - 2) / self.df1 * self.df2 / (self.df2 + 2)
        return value.where(self.df1 > 2, math.nan)

    @property
    def variance(self) -> Tensor:
        a, b = self.df1, self.df2
        value = 2 * b.square() * (a + b - 2) / (a * (b - 2).square() * (b - 4))
        return value.where(b > 4, math.nan)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        a, b = 0.5 * self.df1, 0.5 * self.df2
        ratio = (log_gamma_numbers(a, shape) - a.log()) - (log_gamma_numbers(b, shape) - b.log())
        return ratio.exp().clamp(min=finfo(ratio.dtype).tiny)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        a, b = 0.5 * self.df1, 0.5 * self.df2
        ratio = self.df1 / self.df2
        return (a * ratio.log() + (a - 1).xlogy(value) - (a + b) * (ratio * value).log1p()
                - log_beta(a, b))
