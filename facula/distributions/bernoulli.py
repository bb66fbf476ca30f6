"""The Bernoulli distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions import constraints
from facula.distributions.chances import Chances
from facula.distributions.distribution import family
from facula.distributions.kl import register_kl
from facula.distributions.utils import broadcast_all
from facula.ops.creation import full
from facula.ops.draws import bernoulli_mask
from facula.ops.patterns import arange
from facula.tensor import Tensor

__all__ = ["Bernoulli"]


@family({"probs": 0.3}, {"probs": [0.2, 0.5, 0.9]}, {"logits": [[-1.0], [0.0], [2.5]]})
class Bernoulli(Chances):
    """1 with probability `probs` (log-odds `logits`), else 0."""

    support = constraints.boolean
    has_enumerate_support = True

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        self._take(probs, logits)
        super().__init__(self._param.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        likelier = (self.probs >= 0.5).to(self.probs.dtype)
        return likelier.where(self.probs != 0.5, math.nan)   # two values are as likely

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        return bernoulli_mask(shape, self.probs.detach()).to(self._param.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        value, yes, no = broadcast_all(value, self._log_yes(), self._log_no())
        return value * yes + (1 - value) * no

    def entropy(self) -> Tensor:
        return -(self.probs * self._log_yes() + (1 - self.probs) * self._log_no())

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return self._enumerated(arange(2, dtype=self._param.dtype), expand)


@register_kl(Bernoulli, Bernoulli)
def _kl(p: Bernoulli, q: Bernoulli) -> Tensor:
    yes = _part(p.probs, q.probs, p._log_yes() - q._log_yes())
    return yes + _part(1 - p.probs, 1 - q.probs, p._log_no() - q._log_no())


def _part(p: Any, q: Any, ratio: Any) -> Tensor:
    """p times the logarithm of p / q: 0 where p is 0, else infinite where q is 0."""
    value = p * ratio
    value = value.where(q != 0, full((), math.inf, dtype=value.dtype))
    return value.where(p != 0, full((), 0.0, dtype=value.dtype))
