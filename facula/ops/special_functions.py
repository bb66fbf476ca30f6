"""Special functions; `facula.special` names them for users."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from facula.dtype import float32
from facula.errors import DTypeError
from facula.ops import promote
from facula.ops.define import attach, op
from facula.ops.given import in_place, into
from facula.ops.promote import as_float, full_like, operands
from facula.ops.surface import public, unary
from facula.tensor import Tensor, prim

__all__ = ["polygamma", "mvlgamma", "igamma", "igammac", "entr", "ndtr", "xlog1py", "zeta",
           "spherical_bessel_j0"]

_FAMILY = "special"


def _real(x: Any, name: str) -> None:
    if isinstance(x, Tensor) and x.dtype.kind == "c":
        raise DTypeError(f'"{name}" not implemented for \'{promote.type_name(x.dtype)}\'')


def _within(low: float, high: float) -> Any:
    return lambda make: [((make(3, 5, low=low, high=high),), {}), ((make(low=low, high=high),), {}),
                         ((make(0, 2, low=low, high=high),), {})]


# name, whether it is differentiable, where samples are, its meaning
for _name, _smooth, _low, _high, _doc in (
    ("i0e", True, -3, 3, "exp(-|input|) times the modified Bessel function I_0."),
    ("i1", True, -3, 3, "The modified Bessel function of the first kind of order 1."),
    ("i1e", True, -3, 3, "exp(-|input|) times the modified Bessel function I_1."),
    ("ndtri", True, 0.05, 0.95, "The inverse of the normal distribution function, `ndtr`."),
    ("log_ndtr", True, -5, 3, "The logarithm of the normal distribution function, `ndtr`."),
    ("erfcx", True, -2, 4, "exp(input**2) * erfc(input), which does not underflow."),
    ("airy_ai", False, -9, 3, "Airy's function Ai."),
    ("bessel_j0", False, -9, 30, "The Bessel function of the first kind of order 0."),
    ("bessel_j1", False, -9, 30, "The Bessel function of the first kind of order 1."),
    ("bessel_y0", False, 0.1, 30, "The Bessel function of the second kind of order 0."),
    ("bessel_y1", False, 0.1, 30, "The Bessel function of the second kind of order 1."),
    ("modified_bessel_i0", False, -3, 3, "The modified Bessel function I_0."),
    ("modified_bessel_i1", False, -3, 3, "The modified Bessel function I_1."),
    ("modified_bessel_k0", False, 0.1, 5, "The modified Bessel function of the second kind K_0."),
    ("modified_bessel_k1", False, 0.1, 5, "The modified Bessel function of the second kind K_1."),
    ("scaled_modified_bessel_k0", False, 0.1, 5, "exp(input) times K_0."),
    ("scaled_modified_bessel_k1", False, 0.1, 5, "exp(input) times K_1."),
):
    globals()[_name] = public(unary(_name, floating=True, doc=_doc), f"special.{_name}", _FAMILY,
                              method=False, samples=_within(_low, _high), differentiable=_smooth)
    __all__ += [_name]

i0 = public(unary("i0", floating=True,
                  doc="The modified Bessel function of the first kind of order 0."),
            "i0", _FAMILY, inplace=True, samples=_within(-3, 3))


# ---------------------------------------------------------------- the gamma function's family

@op(register=False)
def _polygamma(input: Tensor, n: int) -> Tensor:
    if n < 0:
        raise RuntimeError("polygamma(n, x) does not support negative n.")
    x = as_float(input)
    return prim("digamma", x) if n == 0 else prim("polygamma", x, attrs=(int(n),))


def polygamma(n: int, input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The n-th derivative of digamma, n >= 0."""
    result: Tensor = _polygamma(input, n)
    return into(out, result)


public(polygamma, "polygamma", _FAMILY, method=False,
       samples=lambda make: [((n, make(3, 4, low=0.3, high=4)), {}) for n in (0, 1, 3)])


def _polygamma_method(self: Tensor, n: int) -> Tensor:
    """The n-th derivative of digamma, n >= 0."""
    return polygamma(n, self)


attach("polygamma", _polygamma_method)
attach("polygamma_", in_place(_polygamma_method, "polygamma"))


@op(method=True, inplace=True, family=_FAMILY, samples=lambda make: [
    ((make(3, low=1.5, high=4), p), {}) for p in (1, 3)])
def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension p >= 1; input > (p - 1) / 2."""
    if p < 1:
        raise RuntimeError("p has to be greater than or equal to 1")
    x = as_float(input)
    total = full_like(x, p * (p - 1) / 4 * math.log(math.pi))
    for j in range(p):
        total = prim("add", total, prim("lgamma", prim("sub", x, full_like(x, j / 2))))
    return total


def _two(name: str, a: Any, b: Any) -> list[Tensor]:
    """Two operands, one of them a tensor, as tensors of one floating dtype and shape."""
    if not (isinstance(a, Tensor) or isinstance(b, Tensor)):
        raise TypeError(f"{name}(): expected a tensor among the arguments, got "
                        f"{type(a).__name__} and {type(b).__name__}")
    _real(a, name)
    _real(b, name)
    return operands(a, b, floating=True)


def _declare(name: str, public_name: str, doc: str, samples: Any, *, method: bool = False,
             differentiable: bool = True, numbers: bool = True) -> Callable[..., Any]:
    def fn(input: Any, other: Any) -> Tensor:
        for k, value in enumerate((input, other)):
            if not numbers and not isinstance(value, Tensor):
                raise TypeError(f"{name}(): argument '{('input', 'other')[k]}' (position {k + 1}) "
                                f"must be Tensor, not {type(value).__name__}")
        return prim(name, *_two(name, input, other))

    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = doc
    made: Callable[..., Any] = op(fn, name=public_name, method=method, inplace=method,
                                  family=_FAMILY, samples=samples, differentiable=differentiable)
    return made


def _pair(low: float, high: float) -> Any:
    return lambda make: [((make(3, 4, low=low, high=high).detach(),
                           make(4, low=low, high=high)), {})]


igamma = _declare("igamma", "igamma", "The regularised lower incomplete gamma function P(input, "
                  "other); only other has a gradient.", _pair(0.3, 4), method=True,
                 numbers=False)
igammac = _declare("igammac", "igammac", "The regularised upper incomplete gamma function, 1 - "
                   "igamma; only other has a gradient.", _pair(0.3, 4), method=True,
                 numbers=False)
zeta = _declare("zeta", "special.zeta", "Hurwitz's zeta function, the sum over k >= 0 of 1 / (other"
                " + k)**input; only other has a gradient.", _pair(1.5, 4))


# ---------------------------------------------------------------- composites

@op(name="special.entr", family=_FAMILY, samples=_within(0.2, 3))
def entr(input: Tensor) -> Tensor:
    """-x log x; 0 at 0 and -inf below."""
    x = as_float(input)
    zero = full_like(x, 0.0)
    above = prim("gt", x, zero)
    safe = prim("where", above, x, full_like(x, 1.0))
    value = prim("neg", prim("mul", x, prim("log", safe)))
    out = prim("where", prim("lt", x, zero), full_like(x, -math.inf), value)
    return prim("where", prim("isnan", x), x, out)


@op(name="special.ndtr", family=_FAMILY, samples=_within(-3, 3))
def ndtr(input: Tensor) -> Tensor:
    """The normal distribution function: the area under the density up to input."""
    x = as_float(input)
    t = prim("mul", x, full_like(x, -math.sqrt(0.5)))
    return prim("mul", prim("erfc", t), full_like(x, 0.5))


@op(name="special.xlog1py", family=_FAMILY, samples=lambda make: [
    ((make(3, 4), make(4, low=0.1, high=3)), {}), ((make(3, low=0.1, high=3), 2.5), {})])
def xlog1py(input: Any, other: Any) -> Tensor:
    """input * log(1 + other); 0 where input is 0 and other is not NaN."""
    x, y = _two("xlog1py", input, other)
    zero = prim("eq", x, full_like(x, 0.0))
    edge = prim("logical_or", prim("le", y, full_like(y, -1.0)),
                prim("eq", y, full_like(y, math.inf)))
    safe = prim("where", prim("logical_and", zero, edge), full_like(y, 0.0), y)
    return prim("mul", x, prim("log1p", safe))


@op(name="special.spherical_bessel_j0", family=_FAMILY, samples=_within(0.2, 9))
def spherical_bessel_j0(input: Tensor) -> Tensor:
    """sin(input) / input, and 1 at 0."""
    x = as_float(input)
    wide = promote.cast(x, float32) if x.dtype.itemsize == 2 else x
    zero = prim("eq", wide, full_like(wide, 0.0))
    safe = prim("where", zero, full_like(wide, 1.0), wide)
    value = prim("where", zero, full_like(wide, 1.0), prim("div", prim("sin", safe), safe))
    value = prim("where", prim("isinf", wide), full_like(wide, 0.0), value)
    return promote.cast(value, x.dtype)


# ---------------------------------------------------------------- orthogonal polynomials

def _degrees(low: float, high: float) -> Any:
    return lambda make: [((make(3, 4, low=low, high=high), 3), {}),
                         ((make(4, low=low, high=high), make(4, low=0, high=9)), {})]


_CHEBYSHEV = {"t": "first", "u": "second", "v": "third", "w": "fourth"}
for _name, _doc in (
    *((f"chebyshev_polynomial_{_k}", f"Chebyshev polynomial of the {_kind} kind")
      for _k, _kind in _CHEBYSHEV.items()),
    *((f"shifted_chebyshev_polynomial_{_k}", f"shifted Chebyshev polynomial of the {_kind} kind")
      for _k, _kind in _CHEBYSHEV.items()),
    ("hermite_polynomial_h", "physicists' Hermite polynomial"),
    ("hermite_polynomial_he", "probabilists' Hermite polynomial"),
    ("laguerre_polynomial_l", "Laguerre polynomial"),
    ("legendre_polynomial_p", "Legendre polynomial"),
):
    globals()[_name] = _declare(_name, f"special.{_name}", f"The {_doc} of degree other, at input;"
                                " 0 for negative degrees.", _degrees(-1, 1),
                                differentiable=False)
    __all__ += [_name]
