"""The Kumaraswamy distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions import constraints
from facula.distributions.distribution import Distribution, family
from facula.distributions.utils import EULER, broadcast_all, exponential_like, log_beta
from facula.info import finfo
from facula.ops.special_functions import xlog1py
from facula.tensor import Tensor

__all__ = ["Kumaraswamy"]


@family({"concentration1": 2.0, "concentration0": 3.0},
        {"concentration1": [0.7, 1.5, 3.0], "concentration0": [[0.8], [2.5]]})
class Kumaraswamy(Distribution):
    """On (0, 1), P(x > t) = (1 - t**a)**b with a `concentration1` and b `concentration0`."""

    arg_constraints = {"concentration1": constraints.positive,
                       "concentration0": constraints.positive}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, concentration1: Any, concentration0: Any,
                 validate_args: bool | None = None):
        self.concentration1, self.concentration0 = broadcast_all(concentration1, concentration0)
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    def _moment(self, n: int) -> Tensor:
        a, b = self.concentration1, self.concentration0
        return b * log_beta(1 + n / a, b).exp()

    @property
    def mean(self) -> Tensor:
        return self._moment(1)

    @property
    def mode(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        value = ((a - 1) / (a * b - 1)).pow(1 / a)
        return value.where((a >= 1) & (b >= 1), math.nan)

    @property
    def variance(self) -> Tensor:
        return self._moment(2) - self._moment(1).square()

    def _from_tail(self, e: Tensor) -> Tensor:
        """The value that is exceeded with probability exp(-e), kept inside of (0, 1)."""
        info = finfo(e.dtype)
        x = (-(-e / self.concentration0).expm1()).pow(1 / self.concentration1)
        return x.clamp(min=info.tiny, max=1 - info.eps / 2)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        return self._from_tail(exponential_like(self.concentration1, shape))

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        a, b = self.concentration1, self.concentration0
        return a.log() + b.log() + (a - 1).xlogy(value) + xlog1py(b - 1, -value.pow(a))

    def cdf(self, value: Tensor) -> Tensor:
        self._check(value)
        tail = self.concentration0 * (-value.pow(self.concentration1)).log1p()
        return -tail.expm1()

    def icdf(self, value: Tensor) -> Tensor:
        return self._from_tail(-(-value).log1p())

    def entropy(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        harmonic = (b + 1).digamma() + EULER
        return (1 - 1 / b) + (1 - 1 / a) * harmonic - (a * b).log()
