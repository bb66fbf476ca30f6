"""The chi-squared distribution."""

from __future__ import annotations

from typing import Any

from facula.distributions import constraints
from facula.distributions.distribution import family
from facula.distributions.gamma import Gamma
from facula.distributions.utils import broadcast_all
from facula.storage import Size

__all__ = ["Chi2"]


@family({"df": 3.0}, {"df": [[0.5, 2.0, 6.0]]})
class Chi2(Gamma):
    """The sum of the squares of `df` standard normal variables."""

    arg_constraints = {"df": constraints.positive}

    def __init__(self, df: Any, validate_args: bool | None = None):
        df, = broadcast_all(df)
        super().__init__(0.5 * df, 0.5, validate_args=validate_args)

    def _expanded(self, new: Any, batch_shape: Size) -> None:
        new.concentration = self.concentration.expand(batch_shape)
        new.rate = self.rate.expand(batch_shape)

    @property
    def df(self) -> Any:
        """Degrees of freedom."""
        return 2 * self.concentration
