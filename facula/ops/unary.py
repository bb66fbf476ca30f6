"""Functions of one tensor, element by element."""

from __future__ import annotations

import math
from typing import Any

from facula.dtype import DType, bool_, float32, int64
from facula.errors import DTypeError
from facula.ops.define import attach, autocast_to, op
from facula.ops.given import into, takes_out
from facula.ops.promote import as_float, cast, full_like, type_name
from facula.ops.surface import only, public, unary
from facula.tensor import Tensor, prim

__all__ = ["neg", "positive", "round", "square", "frac", "sgn", "nan_to_num", "sinc", "logit",
           "isreal", "angle", "polar", "complex"]

_FAMILY = "unary"


def _no_bool_neg(dtype: DType) -> None:
    if dtype is bool_:
        raise DTypeError("Negation, the `-` operator, on a bool tensor is not supported. If you "
                         "are trying to invert a mask, use the `~` or `logical_not()` operator "
                         "instead.")


def _anywhere(make: Any) -> list[Any]:
    return [((make(3, 5),), {}), ((make(),), {}), ((make(2, 0),), {}), ((make(17),), {})]


def _within(low: float, high: float) -> Any:
    def samples(make: Any) -> list[Any]:
        return [((make(3, 5, low=low, high=high),), {}), ((make(low=low, high=high),), {}),
                ((make(0, 2, low=low, high=high),), {})]
    return samples


# name, where it is defined, its meaning
for _name, _samples, _doc in (
    ("exp", _anywhere, "e**input."),
    ("exp2", _anywhere, "2**input."),
    ("expm1", _anywhere, "exp(input) - 1, exact near 0."),
    ("log", _within(0.1, 5), "The natural logarithm."),
    ("log2", _within(0.1, 5), "The logarithm to base 2."),
    ("log10", _within(0.1, 5), "The logarithm to base 10."),
    ("log1p", _within(-0.9, 5), "log(1 + input), exact near 0."),
    ("sqrt", _within(0.1, 5), "The square root."),
    ("rsqrt", _within(0.1, 5), "1 / sqrt(input)."),
    ("reciprocal", _within(0.3, 3), "1 / input."),
    ("sin", _anywhere, "The sine."),
    ("cos", _anywhere, "The cosine."),
    ("tan", _within(-1.3, 1.3), "The tangent."),
    ("asin", _within(-0.9, 0.9), "The angle whose sine is input, in [-pi/2, pi/2]."),
    ("acos", _within(-0.9, 0.9), "The angle whose cosine is input, in [0, pi]."),
    ("atan", _anywhere, "The angle whose tangent is input, in (-pi/2, pi/2)."),
    ("sinh", _anywhere, "The hyperbolic sine."),
    ("cosh", _anywhere, "The hyperbolic cosine."),
    ("tanh", _anywhere, "The hyperbolic tangent."),
    ("asinh", _anywhere, "The inverse of sinh."),
    ("acosh", _within(1.2, 5), "The inverse of cosh."),
    ("atanh", _within(-0.9, 0.9), "The inverse of tanh."),
    ("erf", _anywhere, "The error function."),
    ("erfc", _anywhere, "1 - erf(input), exact for large inputs."),
    ("erfinv", _within(-0.9, 0.9), "The inverse of erf."),
    ("lgamma", _within(0.2, 5), "The logarithm of the absolute value of the gamma function."),
    ("digamma", _within(0.2, 5), "The derivative of lgamma."),
    ("sigmoid", _anywhere, "1 / (1 + exp(-input))."),
):
    _aliases = {"asin": ("arcsin",), "acos": ("arccos",), "atan": ("arctan",),
                "asinh": ("arcsinh",), "acosh": ("arccosh",), "atanh": ("arctanh",)}
    globals()[_name] = public(unary(_name, floating=True, doc=_doc), _name, _FAMILY,
                              inplace=True, samples=_samples, aliases=_aliases.get(_name, ()))
    __all__ += [_name]

for _name, _kinds, _doc in (
    ("floor", "buif", "The largest integer not above input."),
    ("ceil", "buif", "The smallest integer not below input."),
    ("trunc", "buif", "input without its fraction."),
):
    globals()[_name] = public(
        unary(_name, ints="alias", refuse=only(_name, _kinds), doc=_doc), _name, _FAMILY,
        inplace=True, samples=_anywhere, aliases=("fix",) if _name == "trunc" else ())
    __all__ += [_name]

for _name, _doc in (("isnan", "Where input is NaN; bool."),
                    ("isinf", "Where input is infinite; bool."),
                    ("isfinite", "Where input is neither infinite nor NaN; bool.")):
    def _make_test(name: str, doc: str) -> Any:
        def test(input: Tensor) -> Tensor:
            if input._node.spec.dtype.kind in "bui":
                return full_like(input, name == "isfinite", bool_)
            return prim(name, input)
        test.__name__ = test.__qualname__ = name
        test.__doc__ = doc
        return test
    globals()[_name] = public(_make_test(_name, _doc), _name, _FAMILY, samples=_anywhere,
                              differentiable=False)
    __all__ += [_name]

neg = public(unary("neg", refuse=_no_bool_neg, doc="-input."), "neg", _FAMILY, inplace=True,
             samples=_anywhere, aliases=("negative",))
logical_not = public(unary("logical_not", doc="Where input is zero; bool."), "logical_not",
                     _FAMILY, inplace=True, samples=_anywhere, differentiable=False)


def _bits(dtype: DType) -> None:
    if dtype.kind not in "bui":
        raise DTypeError("ops.bitwise_not: '~' (operator.invert) is only implemented on integer "
                         "and Boolean-type tensors")


def _invert(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The bits of input flipped; of a bool tensor its negation."""
    dtype = input._node.spec.dtype
    _bits(dtype)
    return into(out, prim("logical_not" if dtype is bool_ else "bitwise_not", input))


bitwise_not = public(_invert, "bitwise_not", _FAMILY, inplace=True, differentiable=False)


def _abs(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The absolute value; of a complex tensor its modulus, which is real."""
    return into(out, prim("abs" if input._node.spec.dtype is not bool_ else "alias", input))


abs = public(_abs, "abs", _FAMILY, inplace=True, samples=_anywhere, aliases=("absolute",))


def _sign(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """-1, 0 or 1 with the sign of input."""
    return into(out, prim("sign" if input._node.spec.dtype is not bool_ else "alias", input))


sign = public(_sign, "sign", _FAMILY, inplace=True, samples=_anywhere)


def positive(input: Tensor) -> Tensor:
    """+input: the tensor itself."""
    if input.dtype is bool_:
        raise DTypeError("The `+` operator, on a bool tensor is not supported.")
    return input


public(positive, "positive", _FAMILY, samples=_anywhere)


@op(method=True, inplace=True, samples=lambda make: [
    *_anywhere(make), ((make(4, 3),), {"decimals": 2}), ((make(4, high=999),), {"decimals": -1})])
def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """To the nearest integer, halves to even; to `decimals` decimal places if given."""
    if input.dtype.kind in "bui":
        return prim("alias", input)
    if decimals == 0:
        return prim("round", input)
    unit = full_like(input, 10.0 ** (decimals if decimals > 0 else -decimals))
    if decimals > 0:
        return prim("div", prim("round", prim("mul", input, unit)), unit)
    return prim("mul", prim("round", prim("div", input, unit)), unit)


def square(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """input * input; of a bool tensor in int64."""
    if input._node.spec.dtype is bool_:
        input = prim("cast", input, dtype=int64)
    return into(out, prim("mul", input, input))


public(square, "square", _FAMILY, inplace=True, samples=_anywhere)


def relu(input: Tensor) -> Tensor:
    """max(input, 0); the gradient at 0 is 0."""
    if input._node.spec.dtype.kind in "bc":
        raise DTypeError(f'"relu" not implemented for \'{type_name(input.dtype)}\'')
    return prim("relu", input)


public(relu, "relu", _FAMILY, inplace=True, samples=_anywhere)


@op(method=True, inplace=True, samples=_anywhere)
def frac(input: Tensor) -> Tensor:
    """input minus its integer part."""
    return prim("sub", input, prim("trunc", input))


@op(method=True, inplace=True, samples=_anywhere)
def sgn(input: Tensor) -> Tensor:
    """sign(input); of a complex tensor input / abs(input), and 0 at 0."""
    if input.dtype.kind != "c":
        return _sign(input)
    size = prim("abs", input)
    zero = prim("eq", size, full_like(size, 0.0))
    safe = prim("where", zero, full_like(size, 1.0), size)
    return prim("div", input, prim("cast", safe, dtype=input.dtype))


_LARGEST = {"float16": 65504.0, "bfloat16": 3.3895313892515355e38,
            "float32": 3.4028234663852886e38, "float64": 1.7976931348623157e308}


@op(method=True, inplace=True, samples=_anywhere)
def nan_to_num(input: Tensor, nan: float | None = None, posinf: float | None = None,
               neginf: float | None = None) -> Tensor:
    """NaN becomes `nan` (0), the infinities `posinf` and `neginf` (the largest numbers)."""
    if input.dtype.kind not in "f":
        return prim("alias", input)
    largest = _LARGEST[input.dtype.name]

    def value(v: float | None, usual: float) -> Tensor:
        return full_like(input, usual if v is None else float(v))

    out = prim("where", prim("isnan", input), value(nan, 0.0), input)
    inf = full_like(input, math.inf)
    out = prim("where", prim("eq", input, inf), value(posinf, largest), out)
    return prim("where", prim("eq", input, prim("neg", inf)), value(neginf, -largest), out)


@op(method=True, differentiable=False, samples=_anywhere)
def isposinf(input: Tensor) -> Tensor:
    """Where input is +inf; bool."""
    if input.dtype.kind in "bui":
        return full_like(input, False, bool_)
    return prim("eq", input, full_like(input, math.inf))


@op(method=True, differentiable=False, samples=_anywhere)
def isneginf(input: Tensor) -> Tensor:
    """Where input is -inf; bool."""
    if input.dtype.kind in "bui":
        return full_like(input, False, bool_)
    return prim("eq", input, full_like(input, -math.inf))


@op(method=True, differentiable=False, samples=_anywhere)
def isreal(input: Tensor) -> Tensor:
    """Where the imaginary part is zero; bool."""
    if input.dtype.kind != "c":
        return full_like(input, True, bool_)
    im = prim("imag", input)
    return prim("eq", im, full_like(im, 0.0))


@op(method=True, differentiable=False, samples=_anywhere)
def signbit(input: Tensor) -> Tensor:
    """Where the sign bit is set (also for -0.0); bool."""
    if input.dtype.kind in "bu":
        return full_like(input, False, bool_)
    x = input
    if input.dtype.kind == "f":                  # copysign reads the sign of -0.0 and of NaN
        x = prim("copysign", full_like(input, 1.0), input)
    return prim("lt", x, full_like(x, 0))


@op(method=True, inplace=True, samples=_anywhere)
def deg2rad(input: Tensor) -> Tensor:
    """Degrees as radians."""
    x = as_float(input)
    return prim("mul", x, full_like(x, math.pi / 180))


@op(method=True, inplace=True, samples=_anywhere)
def rad2deg(input: Tensor) -> Tensor:
    """Radians as degrees."""
    x = as_float(input)
    return prim("mul", x, full_like(x, 180 / math.pi))


@op(method=True, inplace=True, samples=_within(0.2, 3))
def sinc(input: Tensor) -> Tensor:
    """sin(pi x) / (pi x), and 1 at 0; 16-bit floats in float32, which pi x needs."""
    given = as_float(input)
    x = cast(given, float32) if given.dtype.itemsize < 4 else given
    zero = prim("eq", x, full_like(x, 0.0))
    # Both branches are evaluated, so the division is kept away from 0, and its gradient too.
    y = prim("mul", prim("where", zero, full_like(x, 1.0), x), full_like(x, math.pi))
    out = prim("where", zero, full_like(x, 1.0), prim("div", prim("sin", y), y))
    return cast(out, given.dtype)


@op(method=True, inplace=True, samples=_within(0.05, 0.95))
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), the inverse of sigmoid; x is first clamped to [eps, 1 - eps]."""
    x = as_float(input)
    if eps is not None:
        lo, hi = full_like(x, float(eps)), full_like(x, 1.0 - eps)
        x = prim("where", prim("lt", x, lo), lo, x)
        x = prim("where", prim("gt", x, hi), hi, x)
    return prim("log", prim("div", x, prim("sub", full_like(x, 1.0), x)))


# ---------------------------------------------------------------- complex numbers

@op(exact_out=True, samples=lambda make: [((make(3, 2), make(3, 2)), {})])
def complex(real: Tensor, imag: Tensor) -> Tensor:
    """The complex tensor with these parts, which have one floating dtype."""
    from facula.ops.promote import broadcast_tensors_to
    if real.dtype is not imag.dtype:
        raise DTypeError(f"Expected object of scalar type {real.dtype.name} but got scalar type "
                         f"{imag.dtype.name} for second argument")
    return prim("complex", *broadcast_tensors_to((real, imag)))


@op(samples=lambda make: [((make(3, 2, low=0.1, high=2), make(3, 2)), {})])
@autocast_to("full")
def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """abs * exp(i * angle); the two broadcast."""
    from facula.ops.promote import broadcast_tensors_to
    if abs.dtype is not angle.dtype:
        raise DTypeError(f"Expected object of scalar type {abs.dtype.name} but got scalar type "
                         f"{angle.dtype.name} for second argument")
    abs, angle = broadcast_tensors_to((abs, angle))
    return prim("complex", prim("mul", abs, prim("cos", angle)),
                prim("mul", abs, prim("sin", angle)))


@op(method=True, samples=lambda make: [((make(3, low=0.1, high=2),), {})], differentiable=False)
def angle(input: Tensor) -> Tensor:
    """The angle of a complex number; of a real one 0 or pi."""
    if input.dtype.kind == "c":
        return prim("atan2", prim("imag", input), prim("real", input))
    x = as_float(input)
    zero = full_like(x, 0.0)
    out = prim("where", prim("lt", x, zero), full_like(x, math.pi), zero)
    return prim("where", prim("isnan", x), x, out)


def conj(input: Tensor) -> Tensor:
    """The complex conjugate; a real tensor itself."""
    return prim("conj", input) if input._node.spec.dtype.kind == "c" else input


public(conj, "conj", _FAMILY)
public(takes_out(conj), "conj_physical", _FAMILY, inplace=True)
public(conj, "resolve_conj", _FAMILY)


def is_nonzero(input: Tensor) -> bool:
    """Whether the one element of the tensor is not zero."""
    if input.numel() != 1:
        raise RuntimeError("Boolean value of Tensor with "
                           f"{'no values' if input.numel() == 0 else 'more than one value'} "
                           "is ambiguous")
    return bool(input)


public(is_nonzero, "is_nonzero", _FAMILY, differentiable=False)


def _of_layers(name: str) -> Any:
    """A method whose function stands with the layers, which are loaded when one is used."""
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        from facula.nn.functional import activation
        return getattr(activation, name)(self, *args, **kwargs)
    method.__name__ = name
    return method


for _name in ("relu", "relu_", "prelu", "hardshrink"):
    attach(_name, _of_layers(_name))

Tensor.__neg__ = neg                        # type: ignore[attr-defined]
Tensor.__pos__ = positive                   # type: ignore[attr-defined]
Tensor.__abs__ = abs                        # type: ignore[attr-defined]
Tensor.__invert__ = bitwise_not             # type: ignore[attr-defined]
