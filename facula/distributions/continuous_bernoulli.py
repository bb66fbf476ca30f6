"""The continuous Bernoulli distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.autograd import no_grad
from facula.distributions import constraints
from facula.distributions.chances import Chances
from facula.distributions.distribution import family
from facula.distributions.kl import register_kl
from facula.distributions.utils import clamp_probs, uniform_like
from facula.storage import Size
from facula.tensor import Tensor

__all__ = ["ContinuousBernoulli"]


@family({"probs": 0.3}, {"probs": [0.2, 0.5, 0.9]}, {"logits": [[-1.0], [0.001], [2.5]]})
class ContinuousBernoulli(Chances):
    """On [0, 1], with density in proportion to p**x (1 - p)**(1 - x) (Loaiza-Ganem and
    Cunningham, "The continuous Bernoulli: fixing a pervasive error in variational autoencoders",
    2019).  For p within `lims` its formulas are taken as series around 1/2."""

    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, probs: Any = None, logits: Any = None,
                 lims: tuple[float, float] = (0.499, 0.501), validate_args: bool | None = None):
        self._lims = lims
        self._take(probs, logits)
        super().__init__(self._param.shape, validate_args=validate_args)
        if probs is not None:
            self.probs = clamp_probs(self.probs)

    def _expanded(self, new: Any, batch_shape: Size) -> None:
        new._lims = self._lims

    def _parted(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where p is far from 1/2; p, with a number that is far from it elsewhere; p - 1/2."""
        p = self.probs
        far = (p <= self._lims[0]) | (p > self._lims[1])
        return far, p.where(far, self._lims[0]), p - 0.5

    def _log_norm(self) -> Tensor:
        """The logarithm of what p**x (1 - p)**(1 - x) is divided by, negated."""
        far, p, x = self._parted()
        odds = (1 - 2 * p).abs()
        exact = ((-p).log1p() - p.log()).abs().log() - odds.log()
        square = x.square()
        return exact.where(far, math.log(2) + (4 / 3 + 104 / 45 * square) * square)

    @property
    def mean(self) -> Tensor:
        far, p, x = self._parted()
        exact = p / (2 * p - 1) + 1 / ((-p).log1p() - p.log())
        return exact.where(far, 0.5 + (1 / 3 + 16 / 45 * x.square()) * x)

    @property
    def variance(self) -> Tensor:
        far, p, x = self._parted()
        exact = p * (p - 1) / (1 - 2 * p).square() + 1 / ((-p).log1p() - p.log()).square()
        square = x.square()
        return exact.where(far, 1 / 12 - (1 / 15 - 128 / 945 * square) * square)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.icdf(uniform_like(self._param, self._extended_shape(sample_shape)))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        return value * self._log_yes() + (1 - value) * self._log_no() + self._log_norm()

    def cdf(self, value: Tensor) -> Tensor:
        self._check(value)
        far, p, _ = self._parted()
        exact = (p.pow(value) * (1 - p).pow(1 - value) + p - 1) / (2 * p - 1)
        # In t = log(p / (1 - p)), (exp(t x) - 1) / (exp(t) - 1) as a series around 0.
        t = self.logits
        near = value - t * value * (1 - value) * (0.5 - t * (1 - 2 * value) / 12)
        inside = exact.where(far, near)
        return inside.where(value > 0, 0.0).where(value < 1, 1.0)

    def icdf(self, value: Tensor) -> Tensor:
        far, p, _ = self._parted()
        no = (-p).log1p()
        exact = ((-p + value * (2 * p - 1)).log1p() - no) / (p.log() - no)
        t = self.logits
        return exact.where(far, value + t * value * (1 - value) * (0.5 + t * (1 - 2 * value) / 6))

    def entropy(self) -> Tensor:
        yes, no = self.probs.log(), (-self.probs).log1p()
        return -(self.mean * (yes - no) + no + self._log_norm())


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _kl(p: ContinuousBernoulli, q: ContinuousBernoulli) -> Tensor:
    return -p.entropy() - (p.mean * q.logits + (-q.probs).log1p() + q._log_norm())
