"""The Wishart distribution."""

from __future__ import annotations

import math
from typing import Any

from facula.distributions import constraints
from facula.distributions.covariance import WithCovariance, one_matrix, scale_tril_of
from facula.distributions.distribution import family
from facula.distributions.gamma import log_gamma_numbers
from facula.distributions.multivariate_normal import half_log_det
from facula.distributions.utils import holds, is_number, normal_like
from facula.linalg import cholesky, solve_triangular
from facula.ops.creation import full
from facula.ops.patterns import arange
from facula.ops.promote import broadcast_shapes
from facula.ops.special_functions import mvlgamma
from facula.storage import Size
from facula.tensor import Tensor

__all__ = ["Wishart"]


_V = [[2.0, 0.5], [0.5, 1.0]]


@family({"df": 4.5, "covariance_matrix": _V}, {"df": [3.0, 5.0, 9.0], "precision_matrix": _V},
        {"df": [4.0, 5.0], "scale_tril": [[[1.0, 0.0], [0.5, 2.0]], [[0.3, 0.0], [-1.0, 1.5]]]})
class Wishart(WithCovariance):
    """Positive definite matrices [..., n, n]: for a whole `df` sums of x x' of that many normal
    vectors x of mean 0 and the given covariance.  `df` > n - 1."""

    arg_constraints = {"covariance_matrix": constraints.positive_definite,
                       "precision_matrix": constraints.positive_definite,
                       "scale_tril": constraints.lower_cholesky,
                       "df": constraints.greater_than(0)}
    support = constraints.positive_definite
    has_rsample = True

    def __init__(self, df: Any, covariance_matrix: Any = None, precision_matrix: Any = None,
                 scale_tril: Any = None, validate_args: bool | None = None):
        name, matrix = one_matrix(covariance_matrix, precision_matrix, scale_tril)
        if is_number(df):
            df = full((), df, dtype=matrix.dtype)
        shape = Size(broadcast_shapes(df.shape, matrix.shape[:-2]))
        n = matrix.shape[-1]
        self.df = df.expand(shape)
        setattr(self, name, matrix.expand(*shape, *matrix.shape[-2:]))
        super().__init__(shape, matrix.shape[-2:], validate_args=validate_args)
        if self._validate_args and not holds(self.df > n - 1):
            raise ValueError(f"Value of df={self.df} expected to be greater than ndim - 1 = "
                             f"{n - 1}.")
        self._factor = scale_tril_of(name, matrix)

    @property
    def _n(self) -> int:
        return self._event_shape[0]

    @property
    def _df(self) -> Tensor:
        return self.df.reshape(*self._batch_shape, 1, 1)

    @property
    def mean(self) -> Tensor:
        return self._df * self.covariance_matrix

    @property
    def mode(self) -> Tensor:
        factor = self._df - self._n - 1
        return factor.where(factor > 0, math.nan) * self.covariance_matrix

    @property
    def variance(self) -> Tensor:
        v = self.covariance_matrix
        diagonal = v.diagonal(dim1=-2, dim2=-1)
        return self._df * (v.square() + diagonal.unsqueeze(-1) * diagonal.unsqueeze(-2))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        # Bartlett's decomposition: a lower triangle of normal numbers, and the roots of
        # chi-squared ones with df, df - 1, ... degrees of freedom on the diagonal.
        shape = self._extended_shape(sample_shape)
        half = 0.5 * (self.df.unsqueeze(-1) - arange(self._n, dtype=self.df.dtype))
        logs = log_gamma_numbers(half, shape[:-1])
        root = math.sqrt(2) * (0.5 * logs).exp()
        noise = normal_like(self.df, shape).tril(-1) + root.diag_embed()
        factor = self._factor @ noise
        return factor @ factor.mT

    def log_prob(self, value: Tensor) -> Tensor:
        self._check(value)
        n, df = self._n, self.df
        root = cholesky(value)
        shape = broadcast_shapes(self._factor.shape, root.shape)
        ratio = solve_triangular(self._factor.expand(shape), root.expand(shape), upper=False)
        trace = ratio.square().sum((-2, -1))
        norm = df * (0.5 * n * math.log(2) + half_log_det(self._factor)) + mvlgamma(0.5 * df, n)
        return (df - n - 1) * half_log_det(root) - 0.5 * trace - norm

    def entropy(self) -> Tensor:
        n, df = self._n, self.df
        halves = 0.5 * (df.unsqueeze(-1) - arange(n, dtype=df.dtype))
        value = (n + 1) * half_log_det(self._factor) + 0.5 * n * (n + 1) * math.log(2)
        return (value + mvlgamma(0.5 * df, n) - 0.5 * (df - n - 1) * halves.digamma().sum(-1)
                + 0.5 * n * df)
