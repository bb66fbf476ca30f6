"""The Pareto distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions import constraints
from facula.distributions.distribution import Distribution, family
from facula.distributions.kl import register_kl
from facula.distributions.utils import broadcast_all, exponential_like
from facula.tensor import Tensor

__all__ = ["Pareto"]


@family({"scale": 2.0, "alpha": 3.5}, {"scale": [0.5, 1.0, 3.0], "alpha": [[0.8], [5.0]]})
class Pareto(Distribution):
    """The Pareto distribution on [scale, inf), P(x > t) = (scale / t)**alpha."""

    arg_constraints = {"scale": constraints.positive, "alpha": constraints.positive}
    has_rsample = True

    def __init__(self, scale: Any, alpha: Any, validate_args: bool | None = None):
        self.scale, self.alpha = broadcast_all(scale, alpha)
        super().__init__(self.scale.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        return constraints.greater_than_eq(self.scale)

    def _above(self, bound: float) -> Tensor:
        """alpha, and where it is not above the bound a number that is: no NaN in gradients."""
        return self.alpha.where(self.alpha > bound, bound + 1)

    @property
    def mean(self) -> Tensor:
        a = self._above(1)
        return (a * self.scale / (a - 1)).where(self.alpha > 1, math.inf)

    @property
    def mode(self) -> Tensor:
        return self.scale

    @property
    def variance(self) -> Tensor:
        a = self._above(2)
        value = self.scale.square() * a / ((a - 1).square() * (a - 2))
        return value.where(self.alpha > 2, math.inf)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        e = exponential_like(self.scale, self._extended_shape(sample_shape))
        return self.scale * (e / self.alpha).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        a = self.alpha
        return a.log() + a * self.scale.log() - (a + 1) * value.log()

    def cdf(self, value: Tensor) -> Tensor:
        self._check(value)
        return -((self.scale.log() - value.log()) * self.alpha).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        return self.scale * (-(-value).log1p() / self.alpha).exp()

    def entropy(self) -> Tensor:
        return (self.scale / self.alpha).log() + 1 + 1 / self.alpha


@register_kl(Pareto, Pareto)
def _kl(p: Pareto, q: Pareto) -> Tensor:
    gap = (p.scale / q.scale).log()
    ratio = q.alpha / p.alpha
    value = q.alpha * gap - ratio.log() + ratio - 1
    return value.where(p.scale >= q.scale, math.inf)         # else p is where q is not
