"""Multivariate normal distributions of low rank."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions import constraints
from facula.distributions.distribution import Distribution, family
from facula.distributions.kl import register_kl
from facula.distributions.multivariate_normal import (
    MultivariateNormal,
    half_log_det,
    mahalanobis,
    normal_divergence,
    times_vectors,
)
from facula.distributions.utils import lazy_property, normal_like
from facula.linalg import cholesky, solve_triangular
from facula.ops.patterns import eye
from facula.ops.promote import broadcast_shapes
from facula.storage import Size
from facula.tensor import Tensor

__all__ = ["LowRankMultivariateNormal"]


@family({"loc": [1.0, -1.0, 0.5], "cov_factor": [[1.0], [0.5], [-2.0]],
         "cov_diag": [0.5, 1.0, 2.0]},
        {"loc": [[1.0, -1.0, 0.5], [0.0, 0.0, 1.0]],
         "cov_factor": [[1.0, 0.0], [0.5, 2.0], [-2.0, 1.0]], "cov_diag": [0.5, 1.0, 2.0]})
class LowRankMultivariateNormal(Distribution):
    """Normal vectors [..., n] with covariance W W' + diag(D), of `cov_factor` W [..., n, m] and
    `cov_diag` D [..., n].  Densities cost m**2 n, by Woodbury's identity."""

    arg_constraints = {"loc": constraints.real_vector,
                       "cov_factor": constraints.independent(constraints.real, 2),
                       "cov_diag": constraints.independent(constraints.positive, 1)}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Any, cov_factor: Any, cov_diag: Any,
                 validate_args: bool | None = None):
        if loc.ndim < 1:
            raise ValueError("loc must be at least one-dimensional.")
        n = loc.shape[-1]
        if cov_factor.ndim < 2:
            raise ValueError("cov_factor must be at least two-dimensional, with optional leading "
                             "batch dimensions")
        if cov_factor.shape[-2] != n:
            raise ValueError(f"cov_factor must be a batch of matrices with shape {n} x m")
        if cov_diag.shape[-1:] != (n,):
            raise ValueError(f"cov_diag must be a batch of vectors with shape {(n,)}")
        shape = broadcast_shapes(loc.shape[:-1], cov_factor.shape[:-2], cov_diag.shape[:-1])
        self._factor, self._diagonal = cov_factor, cov_diag
        self.loc = loc.expand(*shape, n)
        self.cov_factor = cov_factor.expand(*shape, *cov_factor.shape[-2:])
        self.cov_diag = cov_diag.expand(*shape, n)
        super().__init__(shape, (n,), validate_args=validate_args)
        scaled = cov_factor.mT / cov_diag.unsqueeze(-2)      # W' D^-1 [..., m, n]
        small = scaled @ cov_factor + eye(cov_factor.shape[-1], dtype=scaled.dtype)
        self._scaled, self._capacitance = scaled, cholesky(small)

    def _expanded(self, new: Any, batch_shape: Size) -> None:
        for name in ("_factor", "_diagonal", "_scaled", "_capacitance"):
            setattr(new, name, getattr(self, name))

    def _wide(self, matrix: Tensor) -> Tensor:
        return matrix.expand(*self._batch_shape, *matrix.shape[-2:])

    def _covariance(self) -> Tensor:
        return self._factor @ self._factor.mT + self._diagonal.diag_embed()

    def _root(self) -> Tensor:
        return cholesky(self._covariance())

    @lazy_property
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance."""
        return self._wide(self._root())

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        return self._wide(self._covariance())

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        part = solve_triangular(self._capacitance.expand(
            *self._scaled.shape[:-2], *self._capacitance.shape[-2:]), self._scaled, upper=False)
        return self._wide((1 / self._diagonal).diag_embed() - part.mT @ part)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        value = self._factor.square().sum(-1) + self._diagonal
        return value.expand(*self._batch_shape, *self._event_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        few = normal_like(self.loc, (*shape[:-1], self.cov_factor.shape[-1]))
        many = normal_like(self.loc, shape)
        return self.loc + times_vectors(self._factor, few) + self._diagonal.sqrt() * many

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        far = value - self.loc
        inside = times_vectors(self._scaled, far)
        square = (far.square() / self._diagonal).sum(-1) - mahalanobis(self._capacitance, inside)
        n = self._event_shape[0]
        return -0.5 * (n * math.log(2 * math.pi) + square) - self._half_log_det()

    def _half_log_det(self) -> Tensor:
        return half_log_det(self._capacitance) + 0.5 * self._diagonal.log().sum(-1)

    def entropy(self) -> Tensor:
        n = self._event_shape[0]
        value = 0.5 * n * (1 + math.log(2 * math.pi)) + self._half_log_det()
        return value.expand(self._batch_shape)


@register_kl(LowRankMultivariateNormal, LowRankMultivariateNormal)
def _kl(p: LowRankMultivariateNormal, q: LowRankMultivariateNormal) -> Tensor:
    return normal_divergence(p, p._root(), q, q._root())


@register_kl(MultivariateNormal, LowRankMultivariateNormal)
def _kl_from_full(p: MultivariateNormal, q: LowRankMultivariateNormal) -> Tensor:
    return normal_divergence(p, p._factor, q, q._root())


@register_kl(LowRankMultivariateNormal, MultivariateNormal)
def _kl_to_full(p: LowRankMultivariateNormal, q: MultivariateNormal) -> Tensor:
    return normal_divergence(p, p._root(), q, q._factor)
