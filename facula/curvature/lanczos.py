"""Lanczos' method with full reorthogonalisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from facula.errors import NotFiniteError

__all__ = ["Spectrum", "lanczos", "ritz"]


class Spectrum(NamedTuple):
    """A density of eigenvalues: points and their weights, which sum to one.

    The integral of f over the density, `(weights * f(eigenvalues)).sum()`, estimates
    trace(f(A)) / n.
    """

    eigenvalues: np.ndarray
    weights: np.ndarray


def lanczos(product: Callable[[np.ndarray], np.ndarray], start: np.ndarray, steps: int
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tridiagonal matrix of a symmetric A in the Krylov space of `start`.

    Returns its diagonal `[k]`, its off-diagonal `[k-1]` and the basis `[k, n]`, k <= steps: less
    where the space is invariant.  Every new vector is made orthogonal to all before it, twice
    (Parlett 1980, "twice is enough").  Raises NotFiniteError for a product that holds a NaN or an
    infinity.
    """
    n = start.shape[0]
    steps = min(steps, n)
    basis = np.empty((steps, n), start.dtype)
    norm = np.linalg.norm(start.astype(np.float64))
    basis[0] = start / norm
    alpha, beta = [], []
    tiny = np.finfo(start.dtype).eps
    for k in range(steps):
        w = np.array(product(basis[k]), dtype=start.dtype)
        if not np.isfinite(w).all():
            raise NotFiniteError(f"product {k + 1} of Lanczos' method holds a NaN or an infinity: "
                                 "the curvature matrix holds one, or overflows")
        size = float(np.linalg.norm(w))
        alpha.append(float(basis[k].astype(np.float64) @ w))
        for _ in range(2):
            w -= (basis[:k + 1] @ w) @ basis[:k + 1]
        rest = float(np.linalg.norm(w))
        if k + 1 == steps or rest <= 10 * tiny * max(size, abs(alpha[-1]), 1e-300) * n ** 0.5:
            basis = basis[:k + 1]
            break
        beta.append(rest)
        basis[k + 1] = w / rest
    return np.array(alpha), np.array(beta), basis


def ritz(alpha: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, ascending, and eigenvectors (columns) of a tridiagonal matrix."""
    t = np.diag(alpha) + np.diag(beta, 1) + np.diag(beta, -1)
    values, vectors = np.linalg.eigh(t)
    return values, vectors
