"""Primitives that compute each element of their result from the same element of their inputs.

Derivatives are written as what a small change `t` of one input does to the result (see
`rules.linear_rules`); where several one-sided derivatives exist the choice is PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facula import dtypes as _d
from facula.errors import DTypeError, ShapeError
from facula.graph.spec import Spec, spec
from facula.ops.primitive import numeric
from facula.ops.primitive.record import (
    Infer,
    Sample,
    fits_kind,
    infer_same,
    infer_to_bool,
    register,
    shapes_text,
)
from facula.ops.primitive.rules import (
    Part,
    add,
    cast,
    conj,
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

Make = Callable[..., np.ndarray]

# ---------------------------------------------------------------- samples

_ODD = (math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, -1e-40, 1e-7, -0.5, 0.5, 1.0, -1.0,
        1.5, 2.5, -2.5, 7.0, 1e30, -1e300)


def _range(dtype: _d.DType, low: float, high: float) -> tuple[float, float]:
    """The bounds that sample values of a dtype keep to."""
    return (max(low, 0), max(high, 9)) if dtype.kind == "u" else (low, high)


def _extremes(dtype: _d.DType) -> np.ndarray:
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.kind in "ui":
        info = np.iinfo(dtype.np)
        return np.array([info.min, info.min + 1, 0, 1, 2, 3, info.max - 1, info.max], dtype.np)
    with np.errstate(all="ignore"):
        if dtype.kind == "c":
            parts = np.array((math.nan, math.inf, 0.0, -1.0, 2.5), dtype.to_real().np)
            out = np.empty((5, 5), dtype.np)
            out.real, out.imag = parts[:, None], parts[None, :]
            return out.reshape(-1)
        return np.array(_ODD).astype(np.float32 if dtype.itemsize == 2 else dtype.np).astype(
            dtype.np)


_FLOATS = (_d.float64, _d.float32, _d.float16, _d.bfloat16)
_INTS = (_d.int8, _d.int32, _d.int64, _d.uint8)


def _dtypes(kinds: str) -> list[_d.DType]:
    found: list[_d.DType] = []
    if "f" in kinds:
        found += _FLOATS
    if "c" in kinds:
        found += (_d.complex128, _d.complex64)
    if "i" in kinds:
        found += _INTS[:3]
    if "u" in kinds:
        found += _INTS[3:]
    if "b" in kinds:
        found.append(_d.bool_)
    return found


def samples_of(kinds: str, count: int, low: float = -2, high: float = 2) -> Any:
    """Samples of `count` operands of one spec: several shapes, every dtype, odd values."""
    def samples(make: Make) -> list[Sample]:
        out = []
        for dtype in _dtypes(kinds):
            bounds = _range(dtype, low, high)
            for shape in ((3, 4), (), (0, 2), (37,)):
                out.append(Sample(tuple(make(*shape, dtype=dtype, low=bounds[0], high=bounds[1])
                                        for _ in range(count))))
            odd = _extremes(dtype)
            if count == 1:
                out.append(Sample((odd,)))
            elif count == 2:
                out.append(Sample((np.repeat(odd, len(odd)), np.tile(odd, len(odd)))))
        return out
    return samples


# ---------------------------------------------------------------- one operand, same dtype

def _unary(name: str, kinds: str, change: Part | None = None, saves: Sequence[str] = (),
           low: float = -2, high: float = 2, **rest: Any) -> None:
    """`change(t, x, y)`: how y = f(x) changes with x, x or y being None unless saved."""
    if change is not None:
        rest.update(linear_rules((change,), (saves,)))
    register(name, "elementwise", infer_same(name, 1, kinds), numeric.meaning(numeric.UNARY[name]),
             samples=samples_of(kinds, 1, low, high), **rest)


def _one_minus_square(x: Any) -> Any:
    """1 - x^2 as (1 - x)(1 + x), exact near 1."""
    one = full(x, 1)
    return mul(sub(one, x), add(one, x))


def _square_plus_one(x: Any) -> Any:
    return plus(mul(x, x), 1)


def _rsqrt(x: Any) -> Any:
    return prim("rsqrt", x)


def _acosh(t: Any, x: Any, y: Any) -> Any:
    one = full(x, 1)
    if x.dtype.kind == "c":
        # sqrt(x - 1) sqrt(x + 1) lies on the right branch in all of the plane.
        return mul(t, mul(_rsqrt(sub(x, one)), _rsqrt(add(x, one))))
    return mul(t, _rsqrt(mul(sub(x, one), add(x, one))))


def _bell(t: Any, x: Any, scale: float) -> Any:
    return mul(t, times(prim("exp", neg(mul(x, x))), scale))


def _flat(t: Any, *values: Any) -> Any:
    """A function that is constant nearly everywhere."""
    return zeros_like(t)


_TWO_BY_ROOT_PI = 2 / math.sqrt(math.pi)

_unary("neg", "uifc", lambda t, x, y: neg(t))
_unary("sign", "buif", _flat)
_unary("exp", "fc", lambda t, x, y: mul(t, y), ["out"])
_unary("exp2", "fc", lambda t, x, y: mul(t, times(y, math.log(2))), ["out"])
_unary("expm1", "fc", lambda t, x, y: mul(t, plus(y, 1)), ["out"])
_unary("log", "fc", lambda t, x, y: div(t, x), ["in0"], 0.1, 4)
_unary("log2", "fc", lambda t, x, y: div(t, times(x, math.log(2))), ["in0"], 0.1, 4)
_unary("log10", "fc", lambda t, x, y: div(t, times(x, math.log(10))), ["in0"], 0.1, 4)
_unary("log1p", "fc", lambda t, x, y: div(t, plus(x, 1)), ["in0"], -0.9, 4)
_unary("sqrt", "fc", lambda t, x, y: div(t, times(y, 2)), ["out"], 0.1, 4)
_unary("rsqrt", "fc", lambda t, x, y: mul(times(t, -0.5), mul(y, mul(y, y))), ["out"], 0.1, 4)
_unary("reciprocal", "fc", lambda t, x, y: neg(mul(t, mul(y, y))), ["out"], 0.2, 4)
_unary("sin", "fc", lambda t, x, y: mul(t, prim("cos", x)), ["in0"])
_unary("cos", "fc", lambda t, x, y: neg(mul(t, prim("sin", x))), ["in0"])
_unary("tan", "fc", lambda t, x, y: mul(t, _square_plus_one(y)), ["out"], -1.2, 1.2)
_unary("asin", "fc", lambda t, x, y: mul(t, _rsqrt(_one_minus_square(x))), ["in0"], -0.9, 0.9)
_unary("acos", "fc", lambda t, x, y: neg(mul(t, _rsqrt(_one_minus_square(x)))), ["in0"],
       -0.9, 0.9)
_unary("atan", "fc", lambda t, x, y: div(t, _square_plus_one(x)), ["in0"])
_unary("sinh", "fc", lambda t, x, y: mul(t, prim("cosh", x)), ["in0"])
_unary("cosh", "fc", lambda t, x, y: mul(t, prim("sinh", x)), ["in0"])
_unary("tanh", "fc", lambda t, x, y: mul(t, _one_minus_square(y)), ["out"])
_unary("asinh", "fc", lambda t, x, y: mul(t, _rsqrt(_square_plus_one(x))), ["in0"])
_unary("acosh", "fc", _acosh, ["in0"], 1.2, 4)
_unary("atanh", "fc", lambda t, x, y: div(t, _one_minus_square(x)), ["in0"], -0.9, 0.9)
_unary("erf", "f", lambda t, x, y: _bell(t, x, _TWO_BY_ROOT_PI), ["in0"],
       seconds=1e-6)
_unary("erfc", "f", lambda t, x, y: _bell(t, x, -_TWO_BY_ROOT_PI), ["in0"],
       seconds=1e-6)
_unary("sigmoid", "fc", lambda t, x, y: mul(t, mul(y, sub(full(y, 1), y))), ["out"])
for _name in ("floor", "ceil", "round", "trunc"):
    _unary(_name, "buif", _flat, (), -9, 9)
_unary("bitwise_not", "bui")

for _name in ("isnan", "isinf", "isfinite", "logical_not"):
    register(_name, "elementwise", infer_to_bool(_name, 1, "buifc"),
             numeric.meaning(numeric.UNARY[_name]), samples=samples_of("buifc", 1))


def _alias(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    return np.asarray(arrays[0])


register("alias", "elementwise", infer_same("alias", 1, "buifc"), _alias,
         samples=samples_of("buifc", 1), **linear_rules((lambda t, x, y: t,), ((),)))

# The second operand's value with the first one's history: what a tensor becomes that is
# overwritten where gradients are not recorded.
register("graft", "history", infer_same("graft", 2, "fc"),
         lambda arrays, attrs, out: np.asarray(arrays[1]),
         vjp=lambda c, g: (g, None), jvp=lambda c, tangents: (
             zeros_like(c.out) if tangents[0] is None else tangents[0]))

# ---------------------------------------------------------------- complex numbers

def _infer_to_real(name: str, kinds: str) -> Infer:
    same = infer_same(name, 1, kinds)

    def infer(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
        operand = same(specs, attrs, given)
        return spec(operand.shape, operand.dtype.to_real())
    return infer


def _complex(real: Any, imag: Any) -> Any:
    return prim("complex", real, imag)


def _direction(c: Any) -> Any:
    """x / |x|, and 0 at 0."""
    x = c.inputs[0]
    size = prim("abs", x)
    none = prim("eq", size, zeros_like(size))
    return div(x, cast(where(none, full(size, 1), size), x.dtype))


_real_abs = linear_rules((lambda t, x, y: mul(t, prim("sign", x)),), (("in0",),))


def _abs_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    x = c.inputs[0]
    if x.dtype.kind != "c":
        return _real_abs["vjp"](c, g)                       # type: ignore[no-any-return]
    return (mul(cast(g, x.dtype), _direction(c)),)


def _abs_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    if c.inputs[0].dtype.kind != "c" or tangents[0] is None:
        return _real_abs["jvp"](c, tangents)
    return prim("real", mul(conj(_direction(c)), tangents[0]))


register("abs", "elementwise", _infer_to_real("abs", "buifc"), numeric.meaning(np.abs),
         vjp=_abs_vjp, jvp=_abs_jvp, saves=("in0",), samples=samples_of("buifc", 1))


def _real_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    return zeros_like(c.out) if tangents[0] is None else prim("real", tangents[0])


def _imag_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    return zeros_like(c.out) if tangents[0] is None else prim("imag", tangents[0])


def _conj_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    return zeros_like(c.out) if tangents[0] is None else conj(tangents[0])


def _part_vjp(imaginary: bool) -> Callable[[Any, Any], tuple[Any, ...]]:
    def vjp(c: Any, g: Any) -> tuple[Any, ...]:
        if c.inputs[0].dtype.kind != "c":
            return (zeros_like(g) if imaginary else g,)
        none = zeros_like(g)
        return (_complex(none, g) if imaginary else _complex(g, none),)
    return vjp


register("conj", "elementwise", infer_same("conj", 1, "buifc"), numeric.meaning(np.conj),
         vjp=lambda c, g: (conj(g),), jvp=_conj_jvp, samples=samples_of("fc", 1))
register("real", "elementwise", _infer_to_real("real", "buifc"), numeric.meaning(np.real),
         vjp=_part_vjp(False), jvp=_real_jvp, samples=samples_of("fc", 1))
register("imag", "elementwise", _infer_to_real("imag", "buifc"), numeric.meaning(np.imag),
         vjp=_part_vjp(True), jvp=_imag_jvp, samples=samples_of("fc", 1))


def _infer_complex(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    both = infer_same("complex", 2, "f")(specs, attrs, given)
    if both.dtype.itemsize < 4:
        raise DTypeError(f"complex: the parts have to be float32 or float64, not {both.dtype!r}. "
                         "Convert them with .float() first")
    return spec(both.shape, both.dtype.to_complex())


def _join(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    z = np.empty(out.shape, out.dtype.np)
    z.real, z.imag = arrays
    return z


def _complex_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    return prim("real", g), prim("imag", g)


def _complex_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    re, im = tangents
    if re is None and im is None:
        return zeros_like(c.out)
    return _complex(zeros_like(im) if re is None else re, zeros_like(re) if im is None else im)


def _pairs_of_parts(make: Make) -> list[Sample]:
    return [Sample((make(*shape, dtype=dtype, low=-2, high=2),
                    make(*shape, dtype=dtype, low=-2, high=2)))
            for dtype in (_d.float64, _d.float32) for shape in ((3, 4), (), (0, 2))]


register("complex", "elementwise", _infer_complex, _join, vjp=_complex_vjp, jvp=_complex_jvp,
         samples=_pairs_of_parts)

# ---------------------------------------------------------------- two operands, same dtype

def _binary(name: str, kinds: str, changes: tuple[Part, Part] | None = None,
            saves: tuple[Sequence[str], Sequence[str]] = ((), ()), low: float = -2,
            high: float = 2) -> None:
    """`changes[k](t, a, b, y)`: how y = f(a, b) changes with operand k; it reads `saves[k]`."""
    rest: dict[str, Any] = linear_rules(changes, saves) if changes is not None else {}
    register(name, "elementwise", infer_same(name, 2, kinds),
             numeric.meaning(numeric.BINARY[name]), samples=samples_of(kinds, 2, low, high),
             **rest)


def _through(t: Any, *values: Any) -> Any:
    return t


def _pow_base(t: Any, a: Any, b: Any, y: Any) -> Any:
    """b a^(b-1), which is 0 for b = 0 whatever a is."""
    undefined = prim("logical_or", prim("eq", a, zeros_like(a)), prim("isnan", a))
    flat = prim("logical_and", prim("eq", b, zeros_like(b)), undefined)
    base = where(flat, full(a, 1), a)
    return mul(t, mul(b, prim("pow", base, plus(b, -1))))


def _pow_exponent(t: Any, a: Any, b: Any, y: Any) -> Any:
    """a^b log a; 0 at a = 0 for b >= 0, where a^b goes to 0 faster than log a to infinity."""
    above = prim("real", b) if b.dtype.kind == "c" else b
    flat = prim("logical_and", prim("eq", a, zeros_like(a)),
                prim("ge", above, zeros_like(above)))
    log = prim("log", where(flat, full(a, 1), a))
    return mul(t, where(flat, zeros_like(a), mul(prim("pow", a, b), log)))


def _larger(order: str, first: bool) -> Part:
    """The share of maximum or minimum that goes to one operand: equal ones halve it."""
    def change(t: Any, a: Any, b: Any, y: Any) -> Any:
        loses = prim(order, a, b) if first else prim(order, b, a)
        share = where(loses, zeros_like(t), t)
        return where(prim("eq", a, b), times(t, 0.5), share)
    return change


def _preferred(order: str, first: bool) -> Part:
    """The share of fmax or fmin: the first of equals has all of it, NaN none."""
    def change(t: Any, a: Any, b: Any, y: Any) -> Any:
        wins = prim("logical_or", prim(order, a, b), prim("isnan", b))
        return where(wins, t, zeros_like(t)) if first else where(wins, zeros_like(t), t)
    return change


def _remainder_divisor(t: Any, a: Any, b: Any, y: Any) -> Any:
    return neg(mul(t, prim("floor_divide", a, b)))


def _fmod_divisor(t: Any, a: Any, b: Any, y: Any) -> Any:
    return neg(mul(t, prim("trunc", div(a, b))))


def _atan2(first: bool) -> Part:
    def change(t: Any, a: Any, b: Any, y: Any) -> Any:
        square = add(mul(a, a), mul(b, b))
        return div(mul(t, b), square) if first else neg(div(mul(t, a), square))
    return change


def _logaddexp(first: bool) -> Part:
    """The sigmoid of a - b, and one half for infinities of one sign."""
    def change(t: Any, a: Any, b: Any, y: Any) -> Any:
        same = prim("logical_and", prim("eq", a, b), prim("isinf", a))
        gap = sub(a, b) if first else sub(b, a)
        return mul(t, prim("sigmoid", where(same, zeros_like(gap), gap)))
    return change


def _copysign(t: Any, a: Any, b: Any, y: Any) -> Any:
    return mul(t, mul(prim("sign", a), prim("copysign", full(b, 1), b)))


_BOTH = (("in0", "in1"),) * 2

_binary("add", "buifc", (_through, _through))
_binary("sub", "buifc", (_through, lambda t, a, b, y: neg(t)))
_binary("mul", "buifc", (lambda t, a, b, y: mul(t, b), lambda t, a, b, y: mul(t, a)),
        (("in1",), ("in0",)))
_binary("div", "fc", (lambda t, a, b, y: div(t, b),
                      lambda t, a, b, y: neg(mul(t, div(div(a, b), b)))),
        (("in1",), ("in0", "in1")), 0.3, 3)
_binary("floor_divide", "uif", (_flat, _flat), ((), ()), -9, 9)
_binary("remainder", "uif", (_through, _remainder_divisor), ((), ("in0", "in1")), -9, 9)
_binary("fmod", "uif", (_through, _fmod_divisor), ((), ("in0", "in1")), -9, 9)
_binary("pow", "uifc", (_pow_base, _pow_exponent), _BOTH, 0.2, 3)
_binary("atan2", "f", (_atan2(True), _atan2(False)), _BOTH)
_binary("maximum", "buif", (_larger("lt", True), _larger("lt", False)), _BOTH)
_binary("minimum", "buif", (_larger("gt", True), _larger("gt", False)), _BOTH)
_binary("fmax", "buif", (_preferred("ge", True), _preferred("ge", False)), _BOTH)
_binary("fmin", "buif", (_preferred("le", True), _preferred("le", False)), _BOTH)
_binary("copysign", "f", (_copysign, _flat), (("in0", "in1"), ()))
_binary("hypot", "f", (lambda t, a, b, y: mul(t, div(a, y)), lambda t, a, b, y: mul(t, div(b, y))),
        (("in0", "out"), ("in1", "out")))
_binary("logaddexp", "f", (_logaddexp(True), _logaddexp(False)), _BOTH)
for _name in ("bitwise_and", "bitwise_or", "bitwise_xor"):
    _binary(_name, "bui")
for _name in ("shift_left", "shift_right"):
    _binary(_name, "ui", None, ((), ()), 0, 7)

for _name, _kinds in (("eq", "buifc"), ("ne", "buifc"), ("lt", "buif"), ("le", "buif"),
                      ("gt", "buif"), ("ge", "buif"), ("logical_and", "buifc"),
                      ("logical_or", "buifc"), ("logical_xor", "buifc")):
    register(_name, "elementwise", infer_to_bool(_name, 2, _kinds),
             numeric.meaning(numeric.BINARY[_name]), samples=samples_of(_kinds, 2))

# ---------------------------------------------------------------- choice

def _infer_where(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    if len(specs) != 3:
        raise TypeError(f"where takes 3 operands, not {len(specs)}")
    fits_kind("where", specs[0], "b")
    out = infer_same("where", 2, "buifc")(specs[1:], attrs, given)
    if specs[0].shape != out.shape:
        raise ShapeError(f"where: the operands' shapes differ: {shapes_text(specs)}")
    return out


def _where(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    return np.asarray(np.where(*arrays))


def _where_samples(make: Make) -> list[Sample]:
    out = []
    for dtype in _dtypes("buifc"):
        low, high = _range(dtype, -2, 2)
        for shape in ((3, 4), (), (0, 2), (37,)):
            out.append(Sample((make(*shape, dtype=_d.bool_),
                               make(*shape, dtype=dtype, low=low, high=high),
                               make(*shape, dtype=dtype, low=low, high=high))))
    return out


register("where", "elementwise", _infer_where, _where, samples=_where_samples,
         **linear_rules((None, lambda t, c, a, b, y: where(c, t, zeros_like(t)),
                         lambda t, c, a, b, y: where(c, zeros_like(t), t)),
                        ((), ("in0",), ("in0",))))

# ---------------------------------------------------------------- conversions

def _infer_cast(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    if len(specs) != 1:
        raise TypeError(f"cast takes 1 operand, not {len(specs)}")
    if given is None:
        raise DTypeError("cast: the dtype of the result has to be given")
    return spec(specs[0].shape, given.dtype)


def _cast_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    return (cast(g, c.inputs[0].dtype),)


def _cast_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    return zeros_like(c.out) if tangents[0] is None else cast(tangents[0], c.out.dtype)


def _cast_samples(make: Make) -> list[Sample]:
    out = []
    for source in _dtypes("fciub"):
        low, high = _range(source, -5, 5)
        for target in _d.DTYPES.values():
            out.append(Sample((make(2, 3, dtype=source, low=low, high=high),), dtype=target))
            out.append(Sample((_extremes(source),), dtype=target))
        out.append(Sample((make(dtype=source, low=low, high=high),), dtype=_d.float32))
        out.append(Sample((make(0, 3, dtype=source, low=low, high=high),), dtype=_d.int64))
    return out


register("cast", "elementwise", _infer_cast, numeric.convert, vjp=_cast_vjp, jvp=_cast_jvp,
         samples=_cast_samples)


def _infer_bitcast(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    if len(specs) != 1:
        raise TypeError(f"bitcast takes 1 operand, not {len(specs)}")
    if given is None:
        raise DTypeError("bitcast: the shape and dtype of the result have to be given")
    if given.numel * given.dtype.itemsize != specs[0].numel * specs[0].dtype.itemsize:
        raise ShapeError(f"bitcast: {given} does not have as many bytes as {specs[0]}")
    return given


def _same_parts(c: Any) -> bool:
    """Whether both sides are floating or complex numbers made of the same parts."""
    a, b = c.inputs[0].dtype, c.out.dtype
    return a.kind in "fc" and b.kind in "fc" and a.to_real() is b.to_real()


def _bitcast_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    # Between a complex tensor and its parts; other reinterpretations have no derivative.
    x = c.inputs[0]
    return (prim("bitcast", g, shape=x.shape, dtype=x.dtype) if _same_parts(c) else None,)


def _bitcast_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    if tangents[0] is None or not _same_parts(c):
        return zeros_like(c.out)
    return prim("bitcast", tangents[0], shape=c.out.shape, dtype=c.out.dtype)


def _bitcast_samples(make: Make) -> list[Sample]:
    return [Sample((make(2, 3, dtype=_d.float32),), shape=(2, 3), dtype=_d.int32),
            Sample((make(5, dtype=_d.float64),), shape=(5,), dtype=_d.int64),
            Sample((make(4, dtype=_d.bfloat16),), shape=(4,), dtype=_d.int16),
            Sample((make(2, 3, dtype=_d.complex64),), shape=(2, 3, 2), dtype=_d.float32),
            Sample((make(2, 3, 2, dtype=_d.float64),), shape=(2, 3), dtype=_d.complex128),
            Sample((make(2, 4, dtype=_d.int32, low=-9, high=9),), shape=(2, 16), dtype=_d.uint8),
            Sample((make(0, 4, dtype=_d.float32),), shape=(0, 4), dtype=_d.int32)]


register("bitcast", "elementwise", _infer_bitcast, numeric.bitcast, vjp=_bitcast_vjp,
         jvp=_bitcast_jvp, samples=_bitcast_samples)
