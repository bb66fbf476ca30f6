"""Distributions of transformed variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.autograd import no_grad
from facula.distributions import constraints
from facula.distributions.distribution import Distribution, family
from facula.distributions.independent import Independent
from facula.distributions.kl import kl_divergence, register_kl
from facula.distributions.transforms import ComposeTransform, Transform
from facula.distributions.utils import sum_rightmost
from facula.storage import Size
from facula.tensor import Tensor

__all__ = ["TransformedDistribution", "of_base"]


class of_base:
    """An attribute of a transformed distribution that is that of the one below: `loc = of_base()`.
    """

    def __set_name__(self, owner: Any, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        base = instance.base_dist
        return getattr(base.base_dist if isinstance(base, Independent) else base, self.name)


@family({"base_distribution": lambda D, t: D.Normal(t([0.0, 1.0]), t([1.0, 0.5])),
         "transforms": lambda D, t: [D.AffineTransform(1.0, t([2.0, -0.5])), D.TanhTransform()]},
        {"base_distribution": lambda D, t: D.Normal(t([0.0, 1.0]), t([1.0, 0.5])),
         "transforms": lambda D, t: D.StickBreakingTransform()})
class TransformedDistribution(Distribution):
    """What becomes of `base_distribution` under one transform or a list of them.

    log p(y) = log p(x) - log |det dy/dx|.
    """

    arg_constraints: dict[str, Any] = {}

    def __init__(self, base_distribution: Distribution, transforms: Any,
                 validate_args: bool | None = None):
        if isinstance(transforms, Transform):
            self.transforms = [transforms]
        elif isinstance(transforms, list) and all(isinstance(t, Transform) for t in transforms):
            self.transforms = transforms
        else:
            raise ValueError("transforms must be a Transform or list, but was "
                             f"{type(transforms).__name__}")
        whole = ComposeTransform(self.transforms)
        shape = base_distribution.batch_shape + base_distribution.event_shape
        need = whole.domain.event_dim
        if len(shape) < need:
            raise ValueError(f"base_distribution needs to have shape with size at least {need}, "
                             f"but got {shape}.")
        outside = whole.forward_shape(shape)
        base = base_distribution.expand(
            whole.inverse_shape(outside)[:len(shape) - len(base_distribution.event_shape)])
        if need > len(base.event_shape):
            base = Independent(base, need - len(base.event_shape))
        self.base_dist = base
        events = whole.codomain.event_dim + max(len(base.event_shape) - need, 0)
        at = len(outside) - events
        super().__init__(outside[:at], outside[at:], validate_args=validate_args)

    def _expanded(self, new: Any, batch_shape: Size) -> None:
        inside = ComposeTransform(self.transforms).inverse_shape(
            (*batch_shape, *self._event_shape))
        new.base_dist = self.base_dist.expand(
            inside[:len(inside) - len(self.base_dist.event_shape)])
        new.transforms = self.transforms

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> Any:
        if not self.transforms:
            return self.base_dist.support
        support = self.transforms[-1].codomain
        extra = len(self.event_shape) - support.event_dim
        return constraints.independent(support, extra) if extra > 0 else support

    @property
    def has_rsample(self) -> bool:                           # type: ignore[override]
        return self.base_dist.has_rsample

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            return self._onwards(self.base_dist.sample(sample_shape))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self._onwards(self.base_dist.rsample(sample_shape))

    def _onwards(self, x: Tensor) -> Tensor:
        for t in self.transforms:
            x = t(x)
        return x

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        events = len(self.event_shape)
        total: Any = 0.0
        y = value
        for t in reversed(self.transforms):
            x = t.inv(y)
            events += t.domain.event_dim - t.codomain.event_dim
            total = total - sum_rightmost(t.log_abs_det_jacobian(x, y),
                                          events - t.domain.event_dim)
            y = x
        return total + sum_rightmost(self.base_dist.log_prob(y),
                                     events - len(self.base_dist.event_shape))

    def _rising(self, value: Tensor) -> Tensor:
        """A probability of the base counted from the other end if the transforms fall."""
        sign: Any = 1
        for t in self.transforms:
            sign = sign * t.sign
        if isinstance(sign, int) and sign == 1:
            return value
        return sign * (value - 0.5) + 0.5

    def cdf(self, value: Tensor) -> Tensor:
        for t in reversed(self.transforms):
            value = t.inv(value)
        if self._validate_args:
            self.base_dist._validate_sample(value)
        return self._rising(self.base_dist.cdf(value))

    def icdf(self, value: Tensor) -> Tensor:
        return self._onwards(self.base_dist.icdf(self._rising(value)))


@register_kl(TransformedDistribution, TransformedDistribution)
def _kl(p: TransformedDistribution, q: TransformedDistribution) -> Tensor:
    if p.transforms != q.transforms or p.event_shape != q.event_shape:
        raise NotImplementedError("KL of distributions that are transformed differently")
    extra = len(p.event_shape) - len(p.base_dist.event_shape)
    return sum_rightmost(kl_divergence(p.base_dist, q.base_dist), max(extra, 0))
