"""The error function for NumPy arrays, which NumPy itself lacks.

The rational Chebyshev approximations of W. J. Cody, "Rational Chebyshev approximations for the
error function", Mathematics of Computation 23 (1969), in three ranges of |x|; they are good to
about the last place of a double.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["erf", "erfc", "scaled_erfc"]

# |x| <= 0.46875: erf(x) = x P(x^2) / Q(x^2); the leading coefficient first, Q's 1 left out.
_P0 = (1.85777706184603153e-1, 3.16112374387056560e00, 1.13864154151050156e02,
       3.77485237685302021e02, 3.20937758913846947e03)
_Q0 = (2.36012909523441209e01, 2.44024637934444173e02, 1.28261652607737228e03,
       2.84423683343917062e03)

# 0.46875 < |x| <= 4: erfc(x) = exp(-x^2) P(x) / Q(x).
_P1 = (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e00,
       6.61191906371416295e01, 2.98635138197400131e02, 8.81952221241769090e02,
       1.71204761263407058e03, 2.05107837782607147e03, 1.23033935479799725e03)
_Q1 = (1.57449261107098347e01, 1.17693950891312499e02, 5.37181101862009858e02,
       1.62138957456669019e03, 3.29079923573345963e03, 4.36261909014324716e03,
       3.43936767414372164e03, 1.23033935480374942e03)

# |x| > 4: erfc(x) = exp(-x^2) / x * (1/sqrt(pi) - y P(y) / Q(y)) with y = 1 / x^2.
_P2 = (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1,
       1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4)
_Q2 = (2.56852019228982242e00, 1.87295284992346725e00, 5.27905102951428412e-1,
       6.05183413124413191e-2, 2.33520497626869185e-3)

_SQRT_PI_INVERSE = 5.6418958354775628695e-1


def _poly(x: np.ndarray, coefficients: Sequence[float], monic: bool = False) -> np.ndarray:
    """Horner's rule; `monic` puts a leading 1 before the coefficients."""
    rest = coefficients if monic else coefficients[1:]
    total = np.ones_like(x) if monic else np.full_like(x, coefficients[0])
    for c in rest:
        total = total * x + c
    return total


def _near(x: np.ndarray) -> np.ndarray:
    """erf(x) for |x| <= 0.46875."""
    square = x * x
    return x * (_poly(square, _P0) / _poly(square, _Q0, True))


def scaled_erfc(x: np.ndarray) -> np.ndarray:
    """exp(x^2) erfc(x) for x >= 0.46875."""
    bounded = np.minimum(x, 4.0)
    middle = _poly(bounded, _P1) / _poly(bounded, _Q1, True)
    large = np.maximum(x, 4.0)
    y = 1.0 / (large * large)
    far = (_SQRT_PI_INVERSE - y * _poly(y, _P2) / _poly(y, _Q2, True)) / large
    return np.where(x <= 4.0, middle, far)


def _tail(x: np.ndarray) -> np.ndarray:
    """erfc(x) for x >= 0.46875."""
    # exp(-x^2) loses digits as x^2 is rounded: split x = h + l with h^2 exact.
    capped = np.minimum(x, 30.0)
    high = np.trunc(capped * 16.0) / 16.0
    rest = (capped - high) * (capped + high)
    return np.exp(-high * high) * np.exp(-rest) * scaled_erfc(x)


def _wide(x: np.ndarray) -> np.ndarray:
    """x with guard digits, where the machine has a type wider than double."""
    return np.asarray(x, np.longdouble)


def erf(x: np.ndarray) -> np.ndarray:
    """2/sqrt(pi) times the integral of exp(-t^2) from 0 to x, in the dtype of x."""
    v = _wide(x)
    size = np.abs(v)
    outer = np.copysign(1.0 - _tail(np.maximum(size, 0.46875)), v)
    out = np.where(size <= 0.46875, _near(np.where(size <= 0.46875, v, 0.0)), outer)
    return out.astype(x.dtype)


def erfc(x: np.ndarray) -> np.ndarray:
    """1 - erf(x), without cancellation for large x, in the dtype of x."""
    v = _wide(x)
    size = np.abs(v)
    tail = _tail(np.maximum(size, 0.46875))
    out = np.where(size <= 0.46875, 1.0 - _near(np.where(size <= 0.46875, v, 0.0)),
                   np.where(v < 0, 2.0 - tail, tail))
    return out.astype(x.dtype)
