"""Categorical distributions of vectors with a single 1."""

from __future__ import annotations

from typing import Any

from facula.distributions import constraints
from facula.distributions.categorical import Categorical, draw_index
from facula.distributions.chances import Choices
from facula.distributions.distribution import family
from facula.distributions.kl import kl_divergence, register_kl
from facula.distributions.utils import broadcast_all
from facula.info import finfo
from facula.nn.functional import one_hot
from facula.ops.patterns import eye
from facula.storage import Size
from facula.tensor import Tensor

__all__ = ["OneHotCategorical", "OneHotCategoricalStraightThrough"]


@family({"probs": [0.2, 0.5, 0.3]}, {"probs": [[0.1, 0.9], [0.5, 0.5], [0.7, 0.3]]},
        {"logits": [[0.5, -1.0, 2.0, 0.0], [1.0, 1.0, 0.0, -2.0]]})
class OneHotCategorical(Choices):
    """A vector [..., n] that is 1 at an index drawn as `Categorical` draws it, else 0."""

    support = constraints.one_hot
    has_enumerate_support = True

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        self._take(probs, logits)
        super().__init__(self._param.shape[:-1], self._param.shape[-1:],
                         validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.probs

    @property
    def mode(self) -> Tensor:
        return self._ones(self.probs.argmax(-1))

    @property
    def variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def _ones(self, index: Tensor) -> Tensor:
        return one_hot(index, self._num_events).to(self._param.dtype)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self._ones(draw_index(self.probs, Size((*sample_shape, *self._batch_shape))))

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        value, logits = broadcast_all(value, self.logits)
        return logits.where(value.eq(1), 0.0).sum(-1)

    def entropy(self) -> Tensor:
        logits = self.logits.clamp(min=finfo(self.logits.dtype).min)
        return -(logits * self.probs).sum(-1)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        n = self._num_events
        values = eye(n, dtype=self._param.dtype)
        values = values.reshape(n, *(1,) * len(self._batch_shape), n)
        return values.expand(n, *self._batch_shape, n) if expand else values


@family({"probs": [0.2, 0.5, 0.3]}, {"logits": [[0.5, -1.0, 2.0], [1.0, 1.0, 0.0]]})
class OneHotCategoricalStraightThrough(OneHotCategorical):
    """`OneHotCategorical` whose draws have the gradient of the probabilities (Bengio, Léonard
    and Courville, "Estimating or propagating gradients through stochastic neurons", 2013)."""

    has_rsample = True

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self.sample(sample_shape) + (self.probs - self.probs.detach())


@register_kl(OneHotCategorical, OneHotCategorical)
def _kl(p: OneHotCategorical, q: OneHotCategorical) -> Tensor:
    return kl_divergence(Categorical(logits=p.logits, validate_args=False),
                         Categorical(logits=q.logits, validate_args=False))
