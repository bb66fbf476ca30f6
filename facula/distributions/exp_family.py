"""What exponential families have in common."""

from __future__ import annotations

from typing import Any

from facula.autograd import enable_grad, grad
from facula.distributions.distribution import Distribution
from facula.distributions.kl import register_kl
from facula.distributions.utils import sum_rightmost
from facula.tensor import Tensor

__all__ = ["ExponentialFamily"]


class ExponentialFamily(Distribution):
    """Base of families with density exp(t . T(x) - F(t) + k(x)) in natural parameters t.

    A family gives t as `_natural_params`, F as `_log_normalizer(*t)` and the mean of k(x) as
    `_mean_carrier_measure`; entropy and divergences follow from F's gradient (Nielsen and Nock,
    "Entropies and cross-entropies of exponential families", 2010).
    """

    @property
    def _natural_params(self) -> tuple[Tensor, ...]:
        raise NotImplementedError(f"{type(self).__name__} does not give _natural_params")

    def _log_normalizer(self, *natural_params: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not give _log_normalizer")

    @property
    def _mean_carrier_measure(self) -> float:
        raise NotImplementedError(f"{type(self).__name__} does not give _mean_carrier_measure")

    def _slopes(self) -> tuple[list[Tensor], Tensor, Any]:
        """t, F(t) and the gradient of F: the means of T(x)."""
        with enable_grad():
            t = [p if p.requires_grad else p.detach().requires_grad_(True)
                 for p in self._natural_params]
            value = self._log_normalizer(*t)
            return t, value, grad(value.sum(), t, create_graph=True)

    def entropy(self) -> Tensor:
        t, value, slopes = self._slopes()
        result: Any = value - self._mean_carrier_measure
        for p, g in zip(t, slopes):
            result = result - sum_rightmost(p * g, p.ndim - len(self._batch_shape))
        return result


@register_kl(ExponentialFamily, ExponentialFamily)
def _kl(p: ExponentialFamily, q: ExponentialFamily) -> Tensor:
    if type(p) is not type(q):
        raise NotImplementedError("The cross KL-divergence between different exponential families "
                                  "cannot be computed using Bregman divergences")
    t, value, slopes = p._slopes()
    other = q._natural_params
    result = q._log_normalizer(*other) - value
    for a, b, g in zip(t, other, slopes):
        result = result + sum_rightmost((a - b) * g, max(a.ndim, b.ndim) - result.ndim)
    return result
