"""Special functions element by element.  NumPy computes them; of erfinv alone, which draws from
truncated normal distributions, there is a compiled kernel.

Their meanings are facula's own (`facula.ops.primitive.functions`), in float64, rounded once.
Derivatives are those that PyTorch has; a function without one there has none here.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facula.graph.spec import Spec
from facula.ops.primitive.record import Sample, infer_same, register
from facula.ops.primitive.rules import (
    Part,
    div,
    full,
    linear_rules,
    mul,
    neg,
    plus,
    prim,
    sub,
    times,
    where,
    zeros_like,
)

__all__: list[str] = []

Arrays = Sequence[np.ndarray]


def _meaning(module: str, name: str) -> Callable[..., np.ndarray]:
    """The function of that name, its module being loaded at the first call."""
    def run(arrays: Arrays, attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
        fn = getattr(importlib.import_module(f"facula.ops.primitive.functions.{module}"), name)
        with np.errstate(all="ignore"):
            wide = [np.asarray(a, np.float64) for a in arrays]
            return np.asarray(fn(*attrs, *wide)).astype(out.dtype.np).reshape(out.shape)
    return run


def _samples(count: int, low: float, high: float, attrs: tuple[Any, ...] = ()) -> Any:
    def samples(make: Any) -> list[Sample]:
        from facula.dtype import float32, float64
        return [Sample(tuple(make(*shape, dtype=dtype, low=low, high=high)
                             for _ in range(count)), attrs)
                for dtype in (float64, float32) for shape in ((3, 4), (), (0, 2), (37,))]
    return samples


def _unary(module: str, name: str, change: Part | None = None, saves: Sequence[str] = (),
           low: float = -2, high: float = 2, meaning: str | None = None) -> None:
    rest: dict[str, Any] = linear_rules((change,), (saves,)) if change is not None else {}
    register(name, "special", infer_same(name, 1, "f"), _meaning(module, meaning or name),
             samples=_samples(1, low, high), **rest)


def _polygamma(n: int, x: Any) -> Any:
    return prim("polygamma", x, attrs=(n,))


# ---------------------------------------------------------------- the gamma function's family

_unary("gamma", "lgamma", lambda t, x, y: mul(t, prim("digamma", x)), ["in0"], 0.2, 5)
_unary("gamma", "digamma", lambda t, x, y: mul(t, _polygamma(1, x)), ["in0"], 0.2, 5)


def _polygamma_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    return (mul(g, _polygamma(c.attrs[0] + 1, c.inputs[0])),)


def _polygamma_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    t = tangents[0]
    return zeros_like(c.out) if t is None else mul(t, _polygamma(c.attrs[0] + 1, c.inputs[0]))


register("polygamma", "special", infer_same("polygamma", 1, "f"), _meaning("gamma", "polygamma"),
         vjp=_polygamma_vjp, jvp=_polygamma_jvp, saves=("in0",), samples=_samples(1, 0.3, 4, (2,)))


def _binary(name: str, changes: tuple[Part | None, Part | None],
            saves: tuple[Sequence[str], Sequence[str]], low: float, high: float) -> None:
    register(name, "special", infer_same(name, 2, "f"), _meaning("gamma", name),
             samples=_samples(2, low, high), **linear_rules(changes, saves))


def _zeta_q(t: Any, s: Any, q: Any, y: Any) -> Any:
    return neg(mul(t, mul(s, prim("zeta", plus(s, 1), q))))


def _density(a: Any, x: Any) -> Any:
    """x**(a - 1) exp(-x) / Gamma(a), by its logarithm."""
    power = mul(plus(a, -1), prim("log", x))
    return prim("exp", sub(sub(power, x), prim("lgamma", a)))


_binary("zeta", (None, _zeta_q), ((), ("in0", "in1")), 1.5, 4)
_binary("igamma", (None, lambda t, a, x, y: mul(t, _density(a, x))), ((), ("in0", "in1")), 0.3, 4)
_binary("igammac", (None, lambda t, a, x, y: neg(mul(t, _density(a, x)))),
        ((), ("in0", "in1")), 0.3, 4)

# ---------------------------------------------------------------- the error function's family


def _erfinv(t: Any, x: Any, y: Any) -> Any:
    """From the input, as PyTorch has it: the result may be overwritten."""
    y = prim("erfinv", x)
    return mul(t, times(prim("exp", mul(y, y)), math.sqrt(math.pi) / 2))


register("erfinv", "elementwise", infer_same("erfinv", 1, "f"), _meaning("normal", "erfinv"),
         samples=_samples(1, -0.9, 0.9), seconds=3e-6, **linear_rules((_erfinv,), (["in0"],)))
_unary("normal", "ndtri", lambda t, x, y: mul(t, times(prim("exp", times(mul(y, y), 0.5)),
                                                      math.sqrt(2 * math.pi))),
       ["out"], 0.05, 0.95)
_unary("normal", "erfcx", lambda t, x, y: mul(t, plus(times(mul(x, y), 2),
                                                      -2 / math.sqrt(math.pi))), ["in0", "out"])
_unary("normal", "log_ndtr",
       lambda t, x, y: div(times(t, math.sqrt(2 / math.pi)),
                           prim("erfcx", times(x, -math.sqrt(0.5)))), ["in0"])

# ---------------------------------------------------------------- Bessel functions

def _over(y: Any, x: Any, at_zero: float) -> Any:
    """y / x, and `at_zero` at 0."""
    none = prim("eq", x, zeros_like(x))
    return where(none, full(x, at_zero), div(y, where(none, full(x, 1), x)))


def _i1(t: Any, x: Any, y: Any) -> Any:
    return mul(t, sub(prim("i0", x), _over(y, x, 0.5)))


def _i1e(t: Any, x: Any, y: Any) -> Any:
    return mul(t, sub(sub(prim("i0e", x), mul(y, prim("sign", x))), _over(y, x, 0.5)))


_unary("bessel", "i0", lambda t, x, y: mul(t, prim("i1", x)), ["in0"])
_unary("bessel", "i0e", lambda t, x, y: mul(t, sub(prim("i1e", x), mul(y, prim("sign", x)))),
       ["in0", "out"])
_unary("bessel", "i1", _i1, ["in0", "out"])
_unary("bessel", "i1e", _i1e, ["in0", "out"])
for _name in ("bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "airy_ai"):
    _unary("bessel", _name, low=0.2, high=5)
for _name, _short in (("modified_bessel_i0", "i0"), ("modified_bessel_i1", "i1"),
                      ("modified_bessel_k0", "k0"), ("modified_bessel_k1", "k1"),
                      ("scaled_modified_bessel_k0", "k0e"), ("scaled_modified_bessel_k1", "k1e")):
    _unary("bessel", _name, low=0.2, high=5, meaning=_short)

# ---------------------------------------------------------------- neighbours

def _nextafter(arrays: Arrays, attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    a, b = arrays
    if a.dtype.kind != "V":
        return np.asarray(np.nextafter(a, b))
    # bfloat16: neighbours differ by 1 in their bits, which count away from zero.
    x, y = a.astype(np.float32), b.astype(np.float32)
    bits = np.ascontiguousarray(a).view(np.int16)
    away = (x < y) == (bits >= 0)
    moved = np.where(away, bits + np.int16(1), bits - np.int16(1)).astype(np.int16)
    least = np.where(y < 0, np.int16(-32767), np.int16(1)).astype(np.int16)
    moved = np.where(x == 0, least, moved)
    return np.where(np.isnan(x) | np.isnan(y), a + b,
                    np.where(x == y, b, moved.view(a.dtype))).astype(a.dtype)


register("nextafter", "special", infer_same("nextafter", 2, "f"), _nextafter,
         samples=_samples(2, -2, 2),
         **linear_rules((lambda t, a, b, y: t, lambda t, a, b, y: zeros_like(t)), ((), ())))

# ---------------------------------------------------------------- orthogonal polynomials

def _polynomial(name: str) -> Callable[..., np.ndarray]:
    def run(arrays: Arrays, attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
        from facula.ops.primitive.functions.polynomials import POLYNOMIALS
        x, n = np.atleast_1d(*(np.asarray(a, np.float64) for a in arrays))
        with np.errstate(all="ignore"):
            whole = np.where(np.isfinite(n), np.clip(np.trunc(n), -1, 2.0 ** 31), -1)
            value = POLYNOMIALS[name](x, whole.astype(np.int64), out.dtype.itemsize)
            return value.astype(out.dtype.np).reshape(out.shape)
    return run


for _name in (*(f"chebyshev_polynomial_{k}" for k in "tuvw"),
              *(f"shifted_chebyshev_polynomial_{k}" for k in "tuvw"), "hermite_polynomial_h",
              "hermite_polynomial_he", "laguerre_polynomial_l", "legendre_polynomial_p"):
    register(_name, "special", infer_same(_name, 2, "f"), _polynomial(_name),
             samples=_samples(2, 0, 9))
