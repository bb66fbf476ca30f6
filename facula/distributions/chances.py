"""Parameters that are given as probabilities or as logarithms of odds."""

from __future__ import annotations

from typing import Any

from facula.distributions import constraints
from facula.distributions.distribution import Distribution
from facula.distributions.utils import (
    broadcast_all,
    lazy_property,
    log_sum_exp,
    logits_to_probs,
    probs_to_logits,
)
from facula.nn.functional import logsigmoid
from facula.tensor import Tensor

__all__ = ["Chances", "Choices"]


def one_of(probs: Any, logits: Any) -> None:
    """Raise a ValueError unless one of the two is given."""
    if (probs is None) == (logits is None):
        raise ValueError("Either `probs` or `logits` must be specified, but not both.")


class Chances(Distribution):
    """What has a probability `probs`, or its log-odds `logits`; the other one is derived."""

    arg_constraints: Any = {"probs": constraints.unit_interval, "logits": constraints.real}

    def _take(self, probs: Any, logits: Any, *others: Any) -> tuple[Any, ...]:
        """Keep what is given, broadcast with the others; returns those."""
        one_of(probs, logits)
        if probs is not None:
            self.probs, *rest = broadcast_all(probs, *others)
        else:
            self.logits, *rest = broadcast_all(logits, *others)
        return tuple(rest)

    @lazy_property
    def logits(self) -> Tensor:
        """Log-odds."""
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self) -> Tensor:
        """Probabilities."""
        return logits_to_probs(self.logits, is_binary=True)

    @property
    def _param(self) -> Tensor:
        return self.__dict__["probs" if "probs" in self.__dict__ else "logits"]

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter."""
        return self._param.shape

    def _log_yes(self) -> Tensor:
        """log p."""
        return logsigmoid(self.logits)

    def _log_no(self) -> Tensor:
        """log (1 - p)."""
        return logsigmoid(-self.logits)


class Choices(Distribution):
    """What has probabilities of n outcomes: `probs` [..., n], which are divided by their sum, or
    their logarithms `logits`, from which the logarithm of the sum is taken."""

    arg_constraints: Any = {"probs": constraints.simplex, "logits": constraints.real_vector}

    def _take(self, probs: Any, logits: Any) -> None:
        one_of(probs, logits)
        name, value = ("probs", probs) if probs is not None else ("logits", logits)
        if not isinstance(value, Tensor):
            raise ValueError(f"`{name}` has to be a tensor, not {type(value).__name__}")
        if value.ndim < 1:
            raise ValueError(f"`{name}` parameter must be at least one-dimensional.")
        if probs is not None:
            self.probs = value / value.sum(-1, keepdim=True)
        else:
            self.logits = value - log_sum_exp(value)

    @lazy_property
    def logits(self) -> Tensor:
        """Logarithms of the probabilities."""
        return probs_to_logits(self.probs)

    @lazy_property
    def probs(self) -> Tensor:
        """Probabilities."""
        return logits_to_probs(self.logits)

    @property
    def _param(self) -> Tensor:
        return self.__dict__["probs" if "probs" in self.__dict__ else "logits"]

    @property
    def param_shape(self) -> Any:
        """The shape of the parameter."""
        return self._param.shape

    @property
    def _num_events(self) -> int:
        return self._param.shape[-1]
