"""The von Mises distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions import constraints
from facula.distributions.distribution import Distribution, family
from facula.distributions.utils import broadcast_all
from facula.ops.draws import rejection_numbers
from facula.ops.special_functions import i0e, i1e
from facula.tensor import Tensor

__all__ = ["VonMises"]


@family({"loc": 0.5, "concentration": 2.0},
        {"loc": [-1.0, 0.0, 3.0], "concentration": [[0.5], [10.0]]})
class VonMises(Distribution):
    """Angles around `loc`, with density in proportion to exp(concentration cos(x - loc)).

    Draws are in [-pi, pi).
    """

    arg_constraints = {"loc": constraints.real, "concentration": constraints.positive}
    support = constraints.real

    def __init__(self, loc: Any, concentration: Any, validate_args: bool | None = None):
        self.loc, self.concentration = broadcast_all(loc, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The circular mean."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The circular variance, 1 - I_1 / I_0."""
        return 1 - i1e(self.concentration) / i0e(self.concentration)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        kappa = self.concentration.detach().expand(self._extended_shape(sample_shape))
        angle = rejection_numbers("draw_von_mises", kappa) + self.loc.detach()
        return (angle + math.pi) % (2 * math.pi) - math.pi

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        fall = self.concentration * ((value - self.loc).cos() - 1)
        return fall - math.log(2 * math.pi) - i0e(self.concentration).log()

    def entropy(self) -> Tensor:
        k = self.concentration
        ratio = i1e(k) / i0e(k)
        return math.log(2 * math.pi) + i0e(k).log() + k * (1 - ratio)
