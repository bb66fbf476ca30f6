"""Student's t distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions import constraints
from facula.distributions.distribution import Distribution, family
from facula.distributions.gamma import log_gamma_numbers
from facula.distributions.utils import broadcast_all, normal_like
from facula.tensor import Tensor

__all__ = ["StudentT"]


@family({"df": 5.5, "loc": 0.5, "scale": 2.0},
        {"df": [0.8, 1.5, 6.0], "loc": [[-1.0], [3.0]], "scale": 0.5})
class StudentT(Distribution):
    """Student's t distribution with `df` degrees of freedom, shifted by `loc`, times `scale`."""

    arg_constraints = {"df": constraints.positive, "loc": constraints.real,
                       "scale": constraints.positive}
    support = constraints.real
    has_rsample = True

    def __init__(self, df: Any, loc: Any = 0.0, scale: Any = 1.0,
                 validate_args: bool | None = None):
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        super().__init__(self.df.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc.where(self.df > 1, math.nan)

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        df = self.df
        value = self.scale.square() * df / (df - 2)
        return value.where(df > 2, math.inf).where(df > 1, math.nan)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        x = normal_like(self.df, shape)
        half = 0.5 * self.df
        log_mean_square = log_gamma_numbers(half, shape) - half.log()
        return self.loc + self.scale * x * (-0.5 * log_mean_square).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        df = self.df
        z = (value - self.loc) / self.scale
        constant = self.scale.log() + 0.5 * (df * math.pi).log() + (0.5 * df).lgamma() \
            - (0.5 * (df + 1)).lgamma()
        return -0.5 * (df + 1) * (z.square() / df).log1p() - constant

    def entropy(self) -> Tensor:
        half, more = 0.5 * self.df, 0.5 * (self.df + 1)
        norm = 0.5 * (self.df * math.pi).log() + half.lgamma() - more.lgamma()
        return self.scale.log() + more * (more.digamma() - half.digamma()) + norm
