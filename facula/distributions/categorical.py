"""The categorical distribution."""

from __future__ import annotations

import math
from typing import Any

from facula import dtypes
from facula.distributions import constraints
from facula.distributions.chances import Choices
from facula.distributions.distribution import family
from facula.distributions.kl import register_kl
from facula.info import finfo
from facula.ops.creation import full
from facula.ops.draws import uniform_numbers
from facula.ops.patterns import arange
from facula.storage import Size
from facula.tensor import Tensor

__all__ = ["Categorical", "draw_index"]


def draw_index(probs: Tensor, shape: Any) -> Tensor:
    """Indices of `shape`, whose last dimensions are those of `probs` [..., n] without n.

    Each is how many of the running sums are at or below a uniform number, in float64, so that
    rare outcomes among many come as often as they should and those of probability 0 never.
    """
    sums = probs.detach().to(dtypes.float64).cumsum(-1)
    u = uniform_numbers((*shape, 1), dtypes.float64) * sums[..., -1:]
    return (sums <= u).sum(-1).clamp(max=probs.shape[-1] - 1)


@family({"probs": [0.2, 0.5, 0.3]}, {"probs": [[0.1, 0.9], [0.5, 0.5], [0.7, 0.3]]},
        {"logits": [[0.5, -1.0, 2.0, 0.0], [1.0, 1.0, 0.0, -2.0]]})
class Categorical(Choices):
    """An index 0 ... n - 1 with probabilities in `probs` [..., n], or their logarithms in
    `logits`; neither need be normalised."""

    has_enumerate_support = True

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        self._take(probs, logits)
        super().__init__(self._param.shape[:-1], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> Any:
        return constraints.integer_interval(0, self._num_events - 1)

    @property
    def mean(self) -> Tensor:
        return full(self._extended_shape(), math.nan, dtype=self._param.dtype)

    @property
    def mode(self) -> Tensor:
        return self._param.argmax(-1)

    @property
    def variance(self) -> Tensor:
        return full(self._extended_shape(), math.nan, dtype=self._param.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return draw_index(self.probs, Size((*sample_shape, *self._batch_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        index = value.to(dtypes.int64).unsqueeze(-1)
        shape = _joined(index.shape[:-1], self._batch_shape)
        logits = self.logits.expand(*shape, self._num_events)
        return logits.gather(-1, index.expand(*shape, 1)).squeeze(-1)

    def entropy(self) -> Tensor:
        logits = self.logits.clamp(min=finfo(self.logits.dtype).min)
        return -(logits * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        return self._enumerated(arange(self._num_events), expand)


def _joined(a: Any, b: Any) -> Any:
    from facula.ops.promote import broadcast_shapes
    return broadcast_shapes(a, b)


@register_kl(Categorical, Categorical)
def _kl(p: Categorical, q: Categorical) -> Tensor:
    terms = p.probs * (p.logits - q.logits)
    terms = terms.where(q.probs != 0, full((), math.inf, dtype=terms.dtype))
    return terms.where(p.probs != 0, full((), 0.0, dtype=terms.dtype)).sum(-1)
