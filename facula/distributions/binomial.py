"""The binomial distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions import constraints
from facula.distributions.bernoulli import _part
from facula.distributions.chances import Chances
from facula.distributions.distribution import family
from facula.distributions.kl import register_kl
from facula.distributions.utils import holds
from facula.ops.draws import rejection_numbers
from facula.ops.patterns import arange
from facula.tensor import Tensor

__all__ = ["Binomial"]


@family({"total_count": 6, "probs": 0.3}, {"total_count": 40, "probs": [0.2, 0.5, 0.9]},
        {"total_count": [3.0, 5.0, 8.0], "logits": [[-1.0], [2.5]]})
class Binomial(Chances):
    """How many of `total_count` trials succeed, each with probability `probs`."""

    arg_constraints = {"total_count": constraints.nonnegative_integer, **Chances.arg_constraints}
    has_enumerate_support = True

    def __init__(self, total_count: Any = 1, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None):
        count, = self._take(probs, logits, total_count)
        self.total_count = count.to(self._param.dtype)
        super().__init__(self._param.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.probs

    @property
    def mode(self) -> Tensor:
        return ((self.total_count + 1) * self.probs).floor().minimum(self.total_count)

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        return rejection_numbers("draw_binomial", self.total_count.detach().expand(shape),
                                 self.probs.detach().expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        n = self.total_count
        ways = (n + 1).lgamma() - (value + 1).lgamma() - (n - value + 1).lgamma()
        return ways + value * self._log_yes() + (n - value) * self._log_no()

    def _most(self) -> int:
        most = int(self.total_count.max().item())
        if not self.total_count.min().item() == most:
            raise NotImplementedError("Inhomogeneous total count not supported by "
                                      "`enumerate_support`.")
        return most

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return self._enumerated(arange(1 + self._most(), dtype=self._param.dtype), expand)

    def entropy(self) -> Tensor:
        log_prob = self.log_prob(self.enumerate_support(False))
        return -(log_prob.exp() * log_prob).sum(0)


@register_kl(Binomial, Binomial)
def _kl(p: Binomial, q: Binomial) -> Tensor:
    """Of equal counts; infinite where p has more trials than q.

    With fewer it is a sum without a closed form: a NotImplementedError.
    """
    if not holds(p.total_count >= q.total_count):
        raise NotImplementedError("KL between Binomials where q.total_count > p.total_count is "
                                  "not implemented")
    yes = _part(p.probs, q.probs, p._log_yes() - q._log_yes())
    no = _part(1 - p.probs, 1 - q.probs, p._log_no() - q._log_no())
    return (p.total_count * (yes + no)).where(p.total_count <= q.total_count, math.inf)
