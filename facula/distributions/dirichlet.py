"""The Dirichlet distribution."""

from __future__ import annotations

from typing import Any

from facula.distributions import constraints
from facula.distributions.distribution import Distribution, family
from facula.distributions.gamma import log_gamma_numbers
from facula.distributions.kl import register_kl
from facula.info import finfo
from facula.nn.functional import one_hot
from facula.tensor import Tensor

__all__ = ["Dirichlet"]


@family({"concentration": [2.0, 3.0, 1.5]},
        {"concentration": [[0.5, 1.0, 2.0, 0.7], [3.0, 2.0, 4.0, 1.0]]})
class Dirichlet(Distribution):
    """On vectors [..., n] that are not negative and add up to 1, with density in proportion to
    the product of x**(concentration - 1).  Draws have implicit gradients, as `Gamma`'s have."""

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, concentration: Any, validate_args: bool | None = None):
        if not isinstance(concentration, Tensor) or concentration.ndim < 1:
            raise ValueError("`concentration` parameter must be at least one-dimensional.")
        self.concentration = concentration
        super().__init__(concentration.shape[:-1], concentration.shape[-1:],
                         validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.concentration.sum(-1, keepdim=True)

    @property
    def mode(self) -> Tensor:
        a = self.concentration
        above = (a - 1).clamp(min=0)
        value = above / above.sum(-1, keepdim=True)
        # Where no concentration is above 1 the density has its peak in a corner.
        corner = one_hot(a.argmax(-1), a.shape[-1]).to(a.dtype)
        return corner.where((a < 1).all(-1, keepdim=True), value)

    @property
    def variance(self) -> Tensor:
        a = self.concentration
        total = a.sum(-1, keepdim=True)
        return a * (total - a) / (total.square() * (total + 1))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        # From logarithms, so that small concentrations do not all underflow.
        logs = log_gamma_numbers(self.concentration, self._extended_shape(sample_shape))
        return logs.softmax(-1).clamp(min=finfo(logs.dtype).tiny)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        a = self.concentration
        return (a - 1).xlogy(value).sum(-1) + a.sum(-1).lgamma() - a.lgamma().sum(-1)

    def entropy(self) -> Tensor:
        a = self.concentration
        total = a.sum(-1)
        return (a.lgamma().sum(-1) - total.lgamma() - (a.shape[-1] - total) * total.digamma()
                - ((a - 1) * a.digamma()).sum(-1))


@register_kl(Dirichlet, Dirichlet)
def _kl(p: Dirichlet, q: Dirichlet) -> Tensor:
    a, b = p.concentration, q.concentration
    gap = a.digamma() - a.sum(-1, keepdim=True).digamma()
    return (a.sum(-1).lgamma() - b.sum(-1).lgamma() + (b.lgamma() - a.lgamma()).sum(-1)
            + ((a - b) * gap).sum(-1))
