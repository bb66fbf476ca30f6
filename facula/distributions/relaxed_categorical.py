"""Relaxed categorical distributions."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions import constraints
from facula.distributions.chances import Choices
from facula.distributions.distribution import family
from facula.distributions.transformed_distribution import TransformedDistribution, of_base
from facula.distributions.transforms import ExpTransform
from facula.distributions.utils import broadcast_all, exponential_like, log_sum_exp
from facula.storage import Size
from facula.tensor import Tensor

__all__ = ["ExpRelaxedCategorical", "RelaxedOneHotCategorical"]


@family({"temperature": lambda D, t: t(0.7), "probs": [0.2, 0.5, 0.3]},
        {"temperature": lambda D, t: t(0.5), "logits": [[0.5, -1.0, 2.0], [1.0, 1.0, 0.0]]})
class ExpRelaxedCategorical(Choices):
    """Logarithms of a `RelaxedOneHotCategorical` variable."""

    support = constraints.real_vector
    has_rsample = True

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None):
        self.temperature = temperature
        self._take(probs, logits)
        super().__init__(self._param.shape[:-1], self._param.shape[-1:],
                         validate_args=validate_args)

    def _expanded(self, new: Any, batch_shape: Size) -> None:
        new.temperature = self.temperature

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        e = exponential_like(self._param, self._extended_shape(sample_shape))
        scores = (self.logits - e.log()) / self.temperature
        return scores - log_sum_exp(scores)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        n = self._num_events
        temperature, = broadcast_all(self.temperature)
        scores = self.logits - value * temperature
        scores = (scores - log_sum_exp(scores)).sum(-1)
        return scores + (math.lgamma(n) + (n - 1) * temperature.log())


@family({"temperature": lambda D, t: t(0.7), "probs": [0.2, 0.5, 0.3]},
        {"temperature": lambda D, t: t(0.5), "logits": [[0.5, -1.0, 2.0], [1.0, 1.0, 0.0]]})
class RelaxedOneHotCategorical(TransformedDistribution):
    """Inside of the simplex: a one-hot vector made continuous, and more nearly one the lower the
    `temperature` (Maddison, Mnih and Teh, "The concrete distribution"; Jang, Gu and Poole,
    "Categorical reparameterization with Gumbel-softmax", both 2017)."""

    arg_constraints = {"probs": constraints.simplex, "logits": constraints.real_vector}
    support = constraints.simplex
    has_rsample = True
    temperature, logits, probs = of_base(), of_base(), of_base()

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None):
        base = ExpRelaxedCategorical(temperature, probs, logits, validate_args=validate_args)
        super().__init__(base, ExpTransform(), validate_args=validate_args)
