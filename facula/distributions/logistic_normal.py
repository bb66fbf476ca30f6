"""The logistic-normal distribution."""

from __future__ import annotations

from typing import Any

from facula.distributions import constraints
from facula.distributions.distribution import family
from facula.distributions.normal import Normal
from facula.distributions.transformed_distribution import TransformedDistribution, of_base
from facula.distributions.transforms import StickBreakingTransform

__all__ = ["LogisticNormal"]


@family({"loc": [0.5, -1.0], "scale": [1.0, 0.5]},
        {"loc": [[0.5, -1.0, 0.0], [0.0, 1.0, 2.0]], "scale": [[1.0, 0.5, 2.0]]})
class LogisticNormal(TransformedDistribution):
    """Normal variables [..., n] as parts [..., n + 1] of 1, by `StickBreakingTransform`."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.simplex
    has_rsample = True
    loc, scale = of_base(), of_base()

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None):
        base = Normal(loc, scale, validate_args=validate_args)
        if not base.batch_shape:
            base = base.expand((1,))
        super().__init__(base, StickBreakingTransform(), validate_args=validate_args)
