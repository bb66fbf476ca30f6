"""The continuous Bernoulli distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.autograd import no_grad
from facula.distributions import constraints
from facula.distributions.chances import Chances
from facula.distributions.distribution import family
from facula.distributions.kl import register_kl
from facula.distributions.utils import clamp_probs, open_uniform
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
        """Where p is far from 1/2; its log-odds, with some that are far elsewhere; p - 1/2.

        Far from 1/2 everything is written in the log-odds t, for the density is in proportion to
        exp(t x), and of exp(-|t|): p itself rounds to 0 or 1 where t is still a number.
        """
        p = self.probs
        far = (p <= self._lims[0]) | (p > self._lims[1])
        return far, self.logits.where(far, 1.0), p - 0.5

    def _log_norm(self) -> Tensor:
        """The logarithm of what p**x (1 - p)**(1 - x) is divided by, negated."""
        far, t, x = self._parted()
        square = x.square()
        exact = (t / (0.5 * t).tanh()).log()
        return exact.where(far, math.log(2) + (4 / 3 + 104 / 45 * square) * square)

    @property
    def mean(self) -> Tensor:
        far, t, x = self._parted()
        size = t.abs()
        above = -1 / (-size).expm1() - 1 / size
        return above.where(t > 0, 1 - above).where(far, 0.5 + (1 / 3 + 16 / 45 * x.square()) * x)

    @property
    def variance(self) -> Tensor:
        far, t, x = self._parted()
        size, square = t.abs(), x.square()
        exact = 1 / size.square() - (-size).exp() / (-size).expm1().square()
        return exact.where(far, 1 / 12 - (1 / 15 - 128 / 945 * square) * square)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.icdf(open_uniform(self._param, self._extended_shape(sample_shape)))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        return value * self._log_yes() + (1 - value) * self._log_no() + self._log_norm()

    def cdf(self, value: Tensor) -> Tensor:
        self._check(value)
        far, t, _ = self._parted()
        # (exp(t x) - 1) / (exp(t) - 1), for t > 0 with exp(t) taken out of both.
        size, x = t.abs(), value.clamp(min=0, max=1)
        exact = (-size * x).expm1() / (-size).expm1()
        exact = exact * (-size * (1 - x)).exp().where(t > 0, 1.0)
        # The same as a series around t = 0.
        t = self.logits
        return exact.where(far, x - t * x * (1 - x) * (0.5 - t * (1 - 2 * x) / 12))

    def icdf(self, value: Tensor) -> Tensor:
        far, t, _ = self._parted()
        # log(1 + u (exp(t) - 1)) / t, and for t > 0 what mirrors it: 1 - that of -t and 1 - u.
        size = t.abs()
        u = value.where(t < 0, 1 - value)
        low = (u.clamp(max=0.5) * (-size).expm1()).log1p()
        high = ((1 - value).where(t < 0, value) + u * (-size).exp()).log()
        part = (-low.where(u < 0.5, high) / size).clamp(max=1)   # exp(-size) may have been lost
        exact = part.where(t < 0, 1 - part)
        t = self.logits
        return exact.where(far, value + t * value * (1 - value) * (0.5 + t * (1 - 2 * value) / 6))

    def entropy(self) -> Tensor:
        return -(self.mean * self.logits + self._log_no() + self._log_norm())


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
def _kl(p: ContinuousBernoulli, q: ContinuousBernoulli) -> Tensor:
    return -p.entropy() - (p.mean * q.logits + q._log_no() + q._log_norm())
