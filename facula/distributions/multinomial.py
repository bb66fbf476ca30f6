"""The multinomial distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions import constraints
from facula.distributions.binomial import Binomial
from facula.distributions.categorical import draw_index
from facula.distributions.chances import Choices
from facula.distributions.distribution import family
from facula.distributions.utils import broadcast_all
from facula.ops.creation import full
from facula.storage import Size
from facula.tensor import Tensor

__all__ = ["Multinomial"]


@family({"total_count": 5, "probs": [0.2, 0.5, 0.3]},
        {"total_count": 3, "probs": [[0.1, 0.9], [0.5, 0.5], [0.7, 0.3]]},
        {"total_count": 7, "logits": [[0.5, -1.0, 2.0, 0.0], [1.0, 1.0, 0.0, -2.0]]})
class Multinomial(Choices):
    """How often each of n outcomes comes in `total_count` draws, a vector [..., n]."""

    total_count: int

    def __init__(self, total_count: int = 1, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None):
        if not isinstance(total_count, int):
            raise NotImplementedError("inhomogeneous total_count is not supported")
        self.total_count = total_count
        self._take(probs, logits)
        super().__init__(self._param.shape[:-1], self._param.shape[-1:],
                         validate_args=validate_args)

    def _expanded(self, new: Any, batch_shape: Size) -> None:
        new.total_count = self.total_count

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> Any:
        return constraints.multinomial(self.total_count)

    @property
    def mean(self) -> Tensor:
        return self.probs * self.total_count

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = Size((*sample_shape, *self._batch_shape))
        index = draw_index(self.probs, (self.total_count, *shape)).movedim(0, -1)
        ones = full(index.shape, 1, dtype=self._param.dtype)
        counts = full((*shape, self._num_events), 0, dtype=self._param.dtype)
        return counts.scatter_add(-1, index, ones)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        logits, value = broadcast_all(self.logits, value)
        # A count of 0 of an impossible outcome adds nothing.
        terms = (value * logits).where(value.ne(0) | logits.ne(-math.inf), 0.0)
        return (value.sum(-1) + 1).lgamma() - (value + 1).lgamma().sum(-1) + terms.sum(-1)

    def entropy(self) -> Tensor:
        count = full((), self.total_count, dtype=self._param.dtype)
        one = Binomial(self.total_count, probs=self.probs, validate_args=False)
        each = one.enumerate_support(False)[1:]
        weights = one.log_prob(each).exp()
        first = self.total_count * -(self.probs * self.logits).sum(-1) - (count + 1).lgamma()
        return first + (weights * (each + 1).lgamma()).sum((0, -1))
