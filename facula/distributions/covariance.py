"""A covariance that is given as such, as its inverse or as its lower Cholesky factor."""

from __future__ import annotations

from typing import Any

from facula.distributions.distribution import Distribution
from facula.distributions.utils import lazy_property
from facula.linalg import cholesky, solve_triangular
from facula.ops.patterns import eye
from facula.storage import Size
from facula.tensor import Tensor

__all__ = ["WithCovariance", "one_matrix", "precision_to_scale_tril", "scale_tril_of"]


def precision_to_scale_tril(precision: Tensor) -> Tensor:
    """The Cholesky factor of the inverse of matrices [..., n, n].

    From that of the matrix with rows and columns in reverse, without inverting it first.
    """
    reversed_factor = cholesky(precision.flip((-2, -1)))
    inverse = reversed_factor.flip((-2, -1)).mT
    one = eye(precision.shape[-1], dtype=precision.dtype).expand(precision.shape)
    return solve_triangular(inverse, one, upper=False)


def one_matrix(covariance: Any, precision: Any, factor: Any) -> tuple[str, Tensor]:
    """The one of the three that is given, and its name; ValueError for none or several."""
    given = {k: v for k, v in (("covariance_matrix", covariance), ("precision_matrix", precision),
                               ("scale_tril", factor)) if v is not None}
    if len(given) != 1:
        raise ValueError("Exactly one of covariance_matrix or precision_matrix or scale_tril "
                         "may be specified.")
    (name, matrix), = given.items()
    if matrix.ndim < 2:
        raise ValueError(f"{name} must be at least two-dimensional, with optional leading "
                         "batch dimensions")
    return name, matrix


def scale_tril_of(name: str, matrix: Tensor) -> Any:
    """The lower Cholesky factor of the covariance that `matrix`, of this name, stands for."""
    if name == "scale_tril":
        return matrix
    return cholesky(matrix) if name == "covariance_matrix" else precision_to_scale_tril(matrix)


class WithCovariance(Distribution):
    """Its three forms, all from `_factor`; the one that was given is kept as it was."""

    _factor: Any

    def _expanded(self, new: Any, batch_shape: Size) -> None:
        new._factor = self._factor

    def _wide(self, matrix: Tensor) -> Tensor:
        return matrix.expand(*self._batch_shape, *matrix.shape[-2:])

    @lazy_property
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance."""
        return self._wide(self._factor)

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        return self._wide(self._factor @ self._factor.mT)

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        one = eye(self._factor.shape[-1], dtype=self._factor.dtype).expand(self._factor.shape)
        inverse = solve_triangular(self._factor, one, upper=False)
        return self._wide(inverse.mT @ inverse)
