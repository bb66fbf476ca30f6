"""The generalised Pareto distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions import constraints
from facula.distributions.distribution import Distribution, family
from facula.distributions.utils import broadcast_all, exponential_like
from facula.ops.creation import full, ones_like
from facula.tensor import Tensor

__all__ = ["GeneralizedPareto"]


@family({"loc": 0.5, "scale": 2.0, "concentration": 0.2},
        {"loc": [0.0, 1.0, -1.0], "scale": [[0.5], [1.5]], "concentration": [0.0, -0.3, 0.1]})
class GeneralizedPareto(Distribution):
    """P(x > t) = (1 + c (t - loc) / scale)**(-1 / c) for the concentration c, from `loc` on and,
    where c < 0, up to loc - scale / c; exponential for c = 0."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive,
                       "concentration": constraints.real}
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, concentration: Any,
                 validate_args: bool | None = None):
        self.loc, self.scale, self.concentration = broadcast_all(loc, scale, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def _flat(self) -> tuple[Tensor, Tensor]:
        """Where the concentration is 0, and the concentration with 1 there."""
        flat = self.concentration == 0
        return flat, self.concentration.where(~flat, ones_like(self.concentration))

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        flat, c = self._flat()
        above = full((), math.inf, dtype=c.dtype)
        upper = (self.loc - self.scale / c).where((c < 0) & ~flat, above)
        return constraints.interval(self.loc, upper)

    @property
    def mean(self) -> Tensor:
        c = self.concentration
        return (self.loc + self.scale / (1 - c)).where(c < 1, math.inf)

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        c = self.concentration
        value = self.scale.square() / ((1 - c).square() * (1 - 2 * c))
        return value.where(c < 0.5, math.inf)

    def _from_tail(self, e: Tensor) -> Tensor:
        """The value that is exceeded with probability exp(-e)."""
        flat, c = self._flat()
        zero = self.concentration                            # where `flat`, for its derivatives
        near = e + zero * e.square() * (0.5 + zero * e / 6)
        return self.loc + self.scale * near.where(flat, (c * e).expm1() / c)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self._from_tail(exponential_like(self.loc, self._extended_shape(sample_shape)))

    def _log_tail(self, value: Tensor) -> Tensor:
        """-log P(x > value)."""
        flat, c = self._flat()
        z = (value - self.loc) / self.scale
        zero = self.concentration
        near = z - zero * z.square() * (0.5 - zero * z / 3)
        return near.where(flat, (c * z).log1p() / c)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        return -self.scale.log() - (1 + self.concentration) * self._log_tail(value)

    def cdf(self, value: Tensor) -> Tensor:
        self._check(value)
        return -(-self._log_tail(value)).expm1()

    def icdf(self, value: Tensor) -> Tensor:
        return self._from_tail(-(-value).log1p())

    def entropy(self) -> Tensor:
        return self.scale.log() + self.concentration + 1
