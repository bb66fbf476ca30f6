"""The negative binomial distribution."""

from __future__ import annotations

from typing import Any

from facula.autograd import no_grad
from facula.distributions import constraints
from facula.distributions.chances import Chances
from facula.distributions.distribution import family
from facula.distributions.gamma import log_gamma_numbers
from facula.ops.draws import rejection_numbers
from facula.tensor import Tensor

__all__ = ["NegativeBinomial"]


@family({"total_count": 6, "probs": 0.3}, {"total_count": 4.5, "probs": [0.2, 0.5, 0.8]},
        {"total_count": [3.0, 5.0, 8.0], "logits": [[-1.0], [0.5]]})
class NegativeBinomial(Chances):
    """How often a trial succeeds, with probability `probs`, before it has failed `total_count`
    times; that need not be a whole number."""

    arg_constraints = {"total_count": constraints.greater_than_eq(0),
                       "probs": constraints.half_open_interval(0.0, 1.0),
                       "logits": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, total_count: Any, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None):
        count, = self._take(probs, logits, total_count)
        self.total_count = count.to(self._param.dtype)
        super().__init__(self._param.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.logits.exp()

    @property
    def mode(self) -> Tensor:
        return ((self.total_count - 1) * self.logits.exp()).floor().clamp(min=0)

    @property
    def variance(self) -> Tensor:
        return self.mean / (-self.logits).sigmoid()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        # Poisson numbers whose rates are gamma numbers.
        with no_grad():
            shape = self._extended_shape(sample_shape)
            rate = (log_gamma_numbers(self.total_count, shape) + self.logits).exp()
            return rejection_numbers("draw_poisson", rate)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        n = self.total_count
        ways = (n + value).lgamma() - (value + 1).lgamma() - n.lgamma()
        # With no failures to wait for the count is 0, where both infinities meet.
        ways = ways.where(n + value != 0, 0.0)
        return n * self._log_no() + value * self._log_yes() + ways
