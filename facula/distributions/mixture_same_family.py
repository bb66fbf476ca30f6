"""Mixtures of distributions of one family."""

from __future__ import annotations

from typing import Any

from facula.autograd import no_grad
from facula.distributions import constraints
from facula.distributions.categorical import Categorical, draw_index
from facula.distributions.distribution import Distribution, family
from facula.storage import Size
from facula.tensor import Tensor

__all__ = ["MixtureSameFamily"]


@family({"mixture_distribution": lambda D, t: D.Categorical(t([0.2, 0.5, 0.3])),
         "component_distribution": lambda D, t: D.Normal(t([-1.0, 0.0, 3.0]), t([0.5, 1.0, 2.0]))},
        {"mixture_distribution": lambda D, t: D.Categorical(t([[0.2, 0.8], [0.6, 0.4]])),
         "component_distribution": lambda D, t: D.Independent(
             D.Normal(t([[[-1.0, 3.0], [0.0, 2.0]], [[1.0, 1.0], [4.0, 0.0]]]), 1.5), 1)})
class MixtureSameFamily(Distribution):
    """Draws from one of the components, the last dimension of the batch of
    `component_distribution`, which `mixture_distribution`, a `Categorical`, chooses."""

    arg_constraints: dict[str, Any] = {}

    def __init__(self, mixture_distribution: Any, component_distribution: Any,
                 validate_args: bool | None = None):
        if not isinstance(mixture_distribution, Categorical):
            raise ValueError("The Mixture distribution needs to be an instance of Categorical")
        if not isinstance(component_distribution, Distribution):
            raise ValueError("The Component distribution needs to be an instance of Distribution")
        self._mixture_distribution = mixture_distribution
        self._component_distribution = component_distribution
        self._num_component = mixture_distribution._num_events
        shape = component_distribution.batch_shape
        for a, b in zip(reversed(mixture_distribution.batch_shape), reversed(shape[:-1])):
            if a != 1 and b != 1 and a != b:
                raise ValueError(f"mixture_distribution.batch_shape "
                                 f"({mixture_distribution.batch_shape}) is not compatible with "
                                 f"component_distribution.batch_shape ({shape})")
        if not shape or shape[-1] != self._num_component:
            raise ValueError(f"mixture_distribution has {self._num_component} components, and "
                             f"component_distribution a batch of shape {shape}")
        super().__init__(shape[:-1], component_distribution.event_shape,
                         validate_args=validate_args)

    def _expanded(self, new: Any, batch_shape: Size) -> None:
        new._num_component = self._num_component
        new._component_distribution = self._component_distribution.expand(
            (*batch_shape, self._num_component))
        new._mixture_distribution = self._mixture_distribution.expand(batch_shape)

    @property
    def mixture_distribution(self) -> Categorical:
        """What chooses."""
        return self._mixture_distribution

    @property
    def component_distribution(self) -> Any:
        """What is chosen from."""
        return self._component_distribution

    @constraints.dependent_property
    def support(self) -> Any:
        return constraints.MixtureSameFamilyConstraint(self._component_distribution.support)

    def _weights(self) -> Tensor:
        probs = self._mixture_distribution.probs
        return probs.reshape(*probs.shape, *(1,) * len(self._event_shape))

    @property
    def _axis(self) -> int:
        return -1 - len(self._event_shape)

    @property
    def mean(self) -> Tensor:
        return (self._weights() * self._component_distribution.mean).sum(self._axis)

    @property
    def variance(self) -> Tensor:
        weights = self._weights()
        centre = self._component_distribution.mean
        far = (centre - self.mean.unsqueeze(self._axis)).square()
        return (weights * (self._component_distribution.variance + far)).sum(self._axis)

    def _each(self, value: Tensor) -> Tensor:
        return value.unsqueeze(self._axis)

    def cdf(self, value: Tensor) -> Tensor:
        parts = self._component_distribution.cdf(self._each(value))
        return (parts * self._mixture_distribution.probs).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        parts = self._component_distribution.log_prob(self._each(value))
        return (parts + self._mixture_distribution.logits).logsumexp(-1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        with no_grad():
            shape = Size((*sample_shape, *self._batch_shape))
            ones = (1,) * (1 + len(self._event_shape))
            chosen = draw_index(self._mixture_distribution.probs, shape).reshape(*shape, *ones)
            every = self._component_distribution.sample(sample_shape)
            index = chosen.expand(*shape, 1, *self._event_shape)
            return every.gather(self._axis, index).squeeze(self._axis)

    def __repr__(self) -> str:
        return (f"MixtureSameFamily({self._mixture_distribution}, "
                f"{self._component_distribution})")
