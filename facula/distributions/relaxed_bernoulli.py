"""Relaxed Bernoulli distributions."""

from __future__ import annotations

from typing import Any

from facula.distributions import constraints
from facula.distributions.chances import Chances
from facula.distributions.distribution import family
from facula.distributions.transformed_distribution import TransformedDistribution, of_base
from facula.distributions.transforms import SigmoidTransform
from facula.distributions.utils import broadcast_all, open_uniform
from facula.nn.functional import logsigmoid
from facula.storage import Size
from facula.tensor import Tensor

__all__ = ["LogitRelaxedBernoulli", "RelaxedBernoulli"]


@family({"temperature": lambda D, t: t(0.7), "probs": 0.3},
        {"temperature": [0.5], "logits": [-1.0, 0.0, 2.5]})
class LogitRelaxedBernoulli(Chances):
    """The log-odds of a `RelaxedBernoulli` variable."""

    support = constraints.real
    has_rsample = True

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None):
        self.temperature = temperature
        self._take(probs, logits)
        super().__init__(self._param.shape, validate_args=validate_args)

    def _expanded(self, new: Any, batch_shape: Size) -> None:
        new.temperature = self.temperature

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        u = open_uniform(self._param, self._extended_shape(sample_shape))
        return (u.log() - (-u).log1p() + self.logits) / self.temperature

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        logits, value = broadcast_all(self.logits, value)
        temperature, = broadcast_all(self.temperature)
        far = logits - value * temperature
        return temperature.log() + logsigmoid(far) + logsigmoid(-far)


@family({"temperature": lambda D, t: t(0.7), "probs": 0.3},
        {"temperature": [0.5], "logits": [-1.0, 0.0, 2.5]})
class RelaxedBernoulli(TransformedDistribution):
    """On (0, 1): a Bernoulli variable made continuous, and more nearly one the lower the
    `temperature` (Maddison, Mnih and Teh, "The concrete distribution", 2017)."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True
    temperature, logits, probs = of_base(), of_base(), of_base()

    def __init__(self, temperature: Any, probs: Any = None, logits: Any = None,
                 validate_args: bool | None = None):
        base = LogitRelaxedBernoulli(temperature, probs, logits, validate_args=validate_args)
        super().__init__(base, SigmoidTransform(), validate_args=validate_args)
