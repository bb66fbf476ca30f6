"""The multivariate normal distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions import constraints
from facula.distributions.covariance import WithCovariance, one_matrix, scale_tril_of
from facula.distributions.distribution import family
from facula.distributions.kl import register_kl
from facula.distributions.utils import normal_like
from facula.linalg import solve_triangular
from facula.ops.promote import broadcast_shapes
from facula.tensor import Tensor

__all__ = ["MultivariateNormal", "half_log_det", "mahalanobis", "normal_divergence",
           "times_vectors"]


def half_log_det(factor: Tensor) -> Tensor:
    """Half the logarithm of det(L L'), of Cholesky factors [..., n, n]."""
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def mahalanobis(factor: Tensor, far: Tensor) -> Tensor:
    """|L^-1 x|**2 for factors [..., n, n] and vectors [..., n]."""
    if factor.ndim == 2:                                     # one factorisation for all of them
        n = far.shape[-1]
        solved = solve_triangular(factor, far.reshape(-1, n).mT, upper=False)
        return solved.square().sum(0).reshape(far.shape[:-1])
    shape = broadcast_shapes(factor.shape[:-2], far.shape[:-1])
    factor = factor.expand(*shape, *factor.shape[-2:])
    far = far.expand(*shape, far.shape[-1]).unsqueeze(-1)
    return solve_triangular(factor, far, upper=False).square().sum((-2, -1))


def times_vectors(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Matrices [..., n, m] times vectors [..., m]."""
    if matrix.ndim == 2:
        return vectors @ matrix.mT
    return (matrix @ vectors.unsqueeze(-1)).squeeze(-1)


_SIGMA = [[2.0, 0.5], [0.5, 1.0]]


@family({"loc": [1.0, -1.0], "covariance_matrix": _SIGMA},
        {"loc": [[1.0, -1.0], [0.0, 2.0], [0.5, 0.5]], "precision_matrix": _SIGMA},
        {"loc": [0.0, 1.0], "scale_tril": [[[1.0, 0.0], [0.5, 2.0]], [[0.3, 0.0], [-1.0, 1.5]]]})
class MultivariateNormal(WithCovariance):
    """Normal vectors [..., n] with mean `loc` and covariance [..., n, n], given as such, as its
    inverse or as its lower Cholesky factor."""

    arg_constraints = {"loc": constraints.real_vector,
                       "covariance_matrix": constraints.positive_definite,
                       "precision_matrix": constraints.positive_definite,
                       "scale_tril": constraints.lower_cholesky}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Any, covariance_matrix: Any = None, precision_matrix: Any = None,
                 scale_tril: Any = None, validate_args: bool | None = None):
        if loc.ndim < 1:
            raise ValueError("loc must be at least one-dimensional.")
        name, matrix = one_matrix(covariance_matrix, precision_matrix, scale_tril)
        shape = broadcast_shapes(matrix.shape[:-2], loc.shape[:-1])
        self.loc = loc.expand(*shape, loc.shape[-1])
        setattr(self, name, matrix.expand(*shape, *matrix.shape[-2:]))
        super().__init__(shape, loc.shape[-1:], validate_args=validate_args)
        self._factor = scale_tril_of(name, matrix)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self._factor.square().sum(-1).expand(*self._batch_shape, *self._event_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        z = normal_like(self.loc, self._extended_shape(sample_shape))
        return self.loc + times_vectors(self._factor, z)

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        n = self._event_shape[0]
        square = mahalanobis(self._factor, value - self.loc)
        return -0.5 * (n * math.log(2 * math.pi) + square) - half_log_det(self._factor)

    def entropy(self) -> Tensor:
        n = self._event_shape[0]
        value = 0.5 * n * (1 + math.log(2 * math.pi)) + half_log_det(self._factor)
        return value.expand(self._batch_shape)


def normal_divergence(p: Any, a: Tensor, q: Any, b: Tensor) -> Tensor:
    """KL of normal vectors with factors a and b of their covariances."""
    if p.event_shape != q.event_shape:
        raise ValueError("KL-divergence between two Multivariate Normals with different event "
                         "shapes cannot be computed")
    shape = broadcast_shapes(a.shape, b.shape)
    ratio = solve_triangular(b.expand(shape), a.expand(shape), upper=False)
    trace = ratio.square().sum((-2, -1))
    far = mahalanobis(b, q.loc - p.loc)
    return half_log_det(b) - half_log_det(a) + 0.5 * (trace + far - p.event_shape[0])


@register_kl(MultivariateNormal, MultivariateNormal)
def _kl(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    return normal_divergence(p, p._factor, q, q._factor)
