"""The geometric distribution."""

from __future__ import annotations

from typing import Any

from facula.distributions import constraints
from facula.distributions.chances import Chances
from facula.distributions.distribution import family
from facula.distributions.kl import register_kl
from facula.distributions.utils import broadcast_all, exponential_like, holds
from facula.ops.creation import zeros_like
from facula.ops.special_functions import xlog1py
from facula.tensor import Tensor

__all__ = ["Geometric"]


@family({"probs": 0.3}, {"probs": [0.2, 0.5, 0.9]}, {"logits": [[-1.0], [0.0], [2.5]]})
class Geometric(Chances):
    """How often a trial fails before it succeeds, which has probability `probs`."""

    support = constraints.nonnegative_integer

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        self._take(probs, logits)
        super().__init__(self._param.shape, validate_args=validate_args)
        if self._validate_args and probs is not None and not holds(self.probs > 0):
            raise ValueError(f"Expected parameter probs of distribution {self!r} to be positive "
                             f"but found invalid values:\n{self.probs}")

    @property
    def mean(self) -> Tensor:
        return 1 / self.probs - 1

    @property
    def mode(self) -> Tensor:
        return zeros_like(self.probs)

    @property
    def variance(self) -> Tensor:
        return (1 / self.probs - 1) / self.probs

    def sample(self, sample_shape: Any = ()) -> Tensor:
        e = exponential_like(self._param, self._extended_shape(sample_shape))
        return (e / -(-self.probs.detach()).log1p()).floor()

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        value, p = broadcast_all(value, self.probs)
        return xlog1py(value, -p) + p.log()

    def entropy(self) -> Tensor:
        p = self.probs
        return -(p * self._log_yes() + (1 - p) * self._log_no()) / p


@register_kl(Geometric, Geometric)
def _kl(p: Geometric, q: Geometric) -> Tensor:
    return -p.entropy() - (-q.probs).log1p() / p.probs - q.logits
