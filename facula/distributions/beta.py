"""The beta distribution."""

from __future__ import annotations

from typing import Any

from facula.distributions import constraints
from facula.distributions.dirichlet import Dirichlet
from facula.distributions.distribution import Distribution, family
from facula.distributions.gamma import log_gamma_numbers
from facula.distributions.kl import register_kl
from facula.distributions.utils import broadcast_all, log_beta
from facula.info import finfo
from facula.ops.shape import stack
from facula.ops.special_functions import xlog1py
from facula.tensor import Tensor

__all__ = ["Beta"]


@family({"concentration1": 2.0, "concentration0": 3.0},
        {"concentration1": [0.4, 1.5, 3.0], "concentration0": [[0.8], [2.5]]})
class Beta(Distribution):
    """On [0, 1], with density x**(concentration1 - 1) (1 - x)**(concentration0 - 1) over the
    beta function.  Draws have implicit gradients, as `Gamma`'s have."""

    arg_constraints = {"concentration1": constraints.positive,
                       "concentration0": constraints.positive}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, concentration1: Any, concentration0: Any,
                 validate_args: bool | None = None):
        self.concentration1, self.concentration0 = broadcast_all(concentration1, concentration0)
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def mode(self) -> Tensor:
        both = stack([self.concentration1, self.concentration0], -1)
        return Dirichlet(both, validate_args=False).mode[..., 0]

    @property
    def variance(self) -> Tensor:
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total.square() * (total + 1))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        odds = log_gamma_numbers(self.concentration1, shape) \
            - log_gamma_numbers(self.concentration0, shape)
        info = finfo(odds.dtype)
        return odds.sigmoid().clamp(min=info.tiny, max=1 - info.eps / 2)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        a, b = self.concentration1, self.concentration0
        return (a - 1).xlogy(value) + xlog1py(b - 1, -value) - log_beta(a, b)

    def entropy(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        return (log_beta(a, b) - (a - 1) * a.digamma() - (b - 1) * b.digamma()
                + (a + b - 2) * (a + b).digamma())


@register_kl(Beta, Beta)
def _kl(p: Beta, q: Beta) -> Tensor:
    a, b, c, d = p.concentration1, p.concentration0, q.concentration1, q.concentration0
    return (log_beta(c, d) - log_beta(a, b) + (a - c) * a.digamma() + (b - d) * b.digamma()
            + (c - a + d - b) * (a + b).digamma())
