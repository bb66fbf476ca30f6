"""The log-normal distribution."""

from __future__ import annotations

from typing import Any

from facula.distributions import constraints
from facula.distributions.distribution import family
from facula.distributions.normal import Normal
from facula.distributions.transformed_distribution import TransformedDistribution, of_base
from facula.distributions.transforms import ExpTransform
from facula.tensor import Tensor

__all__ = ["LogNormal"]


@family({"loc": 0.3, "scale": 0.5}, {"loc": [-1.0, 0.0, 1.0], "scale": [[0.4], [0.6]]})
class LogNormal(TransformedDistribution):
    """exp of a normal variable with mean `loc` and standard deviation `scale`."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.positive
    has_rsample = True
    loc, scale = of_base(), of_base()

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None):
        super().__init__(Normal(loc, scale, validate_args=validate_args), ExpTransform(),
                         validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return (self.loc + self.scale.square() / 2).exp()

    @property
    def mode(self) -> Tensor:
        return (self.loc - self.scale.square()).exp()

    @property
    def variance(self) -> Tensor:
        square = self.scale.square()
        return square.expm1() * (2 * self.loc + square).exp()

    def entropy(self) -> Tensor:
        return self.base_dist.entropy() + self.loc
