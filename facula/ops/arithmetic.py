"""Arithmetic, comparison and bitwise operations on two tensors, or a tensor and a number."""

from __future__ import annotations

from typing import Any

from facula.dtype import DType, bool_
from facula.errors import DTypeError
from facula.ops.define import attach, composite
from facula.ops.given import in_place, into
from facula.ops.surface import Binary, binary, called, need_tensors, only, public, zero_dim
from facula.tensor import Tensor, prim

__all__ = ["add", "sub", "mul", "div", "floor_divide", "remainder", "fmod", "pow", "rsub",
           "divmod_", "float_power"]


def _no_bool_sub(dtype: DType) -> None:
    if dtype is bool_:
        raise DTypeError("Subtraction, the `-` operator, with two bool tensors is not supported. "
                         "Use the `^` or `logical_xor()` operator instead.")


# ---------------------------------------------------------------- samples

def _pairs(make: Any) -> list[Any]:
    """Operands of equal shape, broadcast both ways, zero-dim, empty, and a number."""
    return [((make(2, 3), make(2, 3)), {}), ((make(2, 3), make(3)), {}),
            ((make(2, 1), make(4, 1, 3)), {}), ((make(), make(5)), {}),
            ((make(3, 0), make(0)), {}), ((make(4, 3), 2.5), {}), ((make(7), 3), {})]


def _pairs_of_tensors(make: Any) -> list[Any]:
    return _pairs(make)[:5]


def _nonzero_pairs(make: Any) -> list[Any]:
    """As `_pairs`, with second operands away from zero."""
    return [((make(2, 3), make(2, 3, low=0.5, high=3)), {}),
            ((make(2, 3), make(3, low=0.5, high=3)), {}),
            ((make(), make(5, low=-3, high=-0.5)), {}), ((make(4, 3), -2.5), {}),
            ((make(7), 3), {})]


def _positive_pairs(make: Any) -> list[Any]:
    return [((make(2, 3, low=0.2, high=2), make(2, 3)), {}),
            ((make(4, 1, low=0.2, high=2), make(3)), {}), ((make(5), 2), {}), ((make(5), 3), {}),
            ((make(5, low=0.2, high=2), 0.5), {}), ((make(5, low=0.2, high=2), -1.5), {})]


def _integers(make: Any) -> list[Any]:
    from facula.dtype import int32, int64
    return [((make(2, 3, dtype=int64, low=-9, high=9), make(2, 3, dtype=int64, low=1, high=9)), {}),
            ((make(2, 3, dtype=int32, low=-9, high=9), make(3, dtype=int32, low=1, high=5)), {}),
            ((make(4, dtype=int64, low=-9, high=9), 3), {})]


# ---------------------------------------------------------------- the operators

_add = binary("add", "add", "uifc", wide=True, bools="logical_or")
_sub = binary("sub", "sub", "uifc", wide=True, refuse=_no_bool_sub)
_mul = binary("mul", "mul", "uifc", wide=True, bools="logical_and")
_div = binary("div", "div", "fc", floating=True, wide=True)
_floor_divide = binary("floor_divide", "floor_divide", "uif",
                       refuse=only("floor_divide", "uif"))
_remainder = binary("remainder", "remainder", "uif", refuse=only("remainder", "uif"))
_fmod = binary("fmod", "fmod", "uif", refuse=only("fmod", "uif"))
_pow = binary("pow", "pow", "uifc", refuse=only("pow", "uifc"))


def add(input: Any, other: Any, *, alpha: Any = 1, out: Tensor | None = None) -> Tensor:
    """input + alpha * other, element by element, broadcast and promoted."""
    return _sum(_call_add, input, other, alpha, out)


def sub(input: Any, other: Any, *, alpha: Any = 1, out: Tensor | None = None) -> Tensor:
    """input - alpha * other."""
    return _sum(_call_sub, input, other, alpha, out)


def _sum(call: Any, input: Any, other: Any, alpha: Any, out: Tensor | None) -> Tensor:
    if isinstance(alpha, Tensor) or alpha != 1:
        if isinstance(alpha, float) and isinstance(other, Tensor) and other.dtype.kind in "bui" \
                and getattr(input, "dtype", other.dtype).kind in "bui":
            raise DTypeError("For integral input tensors, argument alpha must not be a "
                             "floating point number.")
        other = mul(other, alpha) if isinstance(other, Tensor) else other * alpha
    result: Tensor = call(input, other, out=out)
    return result


_call_add = called("add", _add, "", "none")
_call_sub = called("sub", _sub, "", "none")
mul = called("mul", _mul, "input * other, element by element, broadcast and promoted.",
             "none")
remainder = called("remainder", _remainder,
                   "The remainder of input / other, with the sign of other (Python's %).")
fmod = called("fmod", _fmod, "The remainder of input / other, with the sign of input, as C's.",
              "first")
_call_div = called("div", _div, "", "none")
floor_divide = called("floor_divide", _floor_divide, "input // other, rounded down.", "none")


def div(input: Any, other: Any, *, rounding_mode: str | None = None,
        out: Tensor | None = None) -> Tensor:
    """input / other; rounding_mode 'trunc' rounds towards zero, 'floor' down."""
    if rounding_mode is None:
        result: Tensor = _call_div(input, other, out=out)
        return result
    if rounding_mode == "floor":
        return floor_divide(input, other, out=out)      # type: ignore[no-any-return]
    if rounding_mode != "trunc":
        raise ValueError("div expected rounding_mode to be one of None, 'trunc', or 'floor' but "
                         f"found {rounding_mode!r}")
    from facula.ops.promote import result_type
    input, other = zero_dim(input, other)
    if result_type(input, other).kind in "fc":
        from facula.ops.unary import trunc
        return trunc(_call_div(input, other), out=out)  # type: ignore[no-any-return]
    # Exact for integers: what is left after removing the remainder of input's own sign.
    return _call_exact(_sub(input, _fmod(input, other)), other, out=out)  # type: ignore


_call_exact = called("div", _floor_divide, "")


def _power(a: Any, b: Any) -> Any:
    """a ** b, with the exponents that are cheaper as something else."""
    if isinstance(a, Tensor) and isinstance(b, (int, float)):
        kind = a._node.spec.dtype.kind
        if b == 2 and (kind in "fc" or (kind in "ui" and isinstance(b, int))):
            return prim("mul", a, a)
        if kind in "fc":
            if b == 3:
                return prim("mul", prim("mul", a, a), a)
            if b == 1:
                return prim("alias", a)
            if b == 0.5:
                return prim("sqrt", a)
            if b == -1:
                return prim("reciprocal", a)
        elif isinstance(b, int) and b < 0 and kind in "ui":
            raise DTypeError("Integers to negative integer powers are not allowed.")
    return _pow(a, b)


_call_pow = called("pow", _power, "")


def pow(input: Any, exponent: Any, *, out: Tensor | None = None) -> Tensor:
    """input ** exponent, element by element; the exponent is a tensor or a number."""
    result: Tensor = _call_pow(input, exponent, out=out)
    return result


def rsub(input: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """other - alpha * input."""
    need_tensors("rsub", input, input)
    return sub(other, input, alpha=alpha)


def float_power(input: Any, exponent: Any, *, out: Tensor | None = None) -> Tensor:
    """input ** exponent computed in float64 (complex128 for complex operands)."""
    from facula.dtype import complex128, float64
    from facula.ops.promote import cast, result_type
    wide = complex128 if result_type(input, exponent).kind == "c" else float64
    x = cast(input, wide) if isinstance(input, Tensor) else input
    e = cast(exponent, wide) if isinstance(exponent, Tensor) else exponent
    return pow(x, e, out=out)


def divmod_(a: Any, b: Any) -> Any:
    """(a // b, a % b)."""
    quotient = _floor_divide(a, b)
    return quotient if quotient is NotImplemented else (quotient, _remainder(a, b))


_FAMILY = "arithmetic"
public(add, "add", _FAMILY, inplace=True, samples=_pairs)
public(sub, "sub", _FAMILY, inplace=True, samples=_pairs, aliases=("subtract",))
public(mul, "mul", _FAMILY, inplace=True, samples=_pairs, aliases=("multiply",))
public(div, "div", _FAMILY, inplace=True, samples=_nonzero_pairs, aliases=("divide",))
public(_call_div, "true_divide", _FAMILY, inplace=True, samples=_nonzero_pairs)
public(floor_divide, "floor_divide", _FAMILY, inplace=True, samples=_integers,
       differentiable=False)
public(remainder, "remainder", _FAMILY, inplace=True, samples=_nonzero_pairs)
public(fmod, "fmod", _FAMILY, inplace=True, samples=_nonzero_pairs)
public(pow, "pow", _FAMILY, inplace=True, samples=_positive_pairs)
public(rsub, "rsub", _FAMILY, method=False, samples=_pairs)
public(float_power, "float_power", _FAMILY, inplace=True, samples=_positive_pairs)


# ---------------------------------------------------------------- comparison, logic, bits

def _declare(name: str, primitive: str, kinds: str, doc: str, *, aliases: tuple[str, ...] = (),
             inplace: bool = True, samples: Any = _pairs, differentiable: bool = False,
             bools: str | None = None, floating: bool = False, allowed: str | None = None,
             method: bool = True, wide: bool = False, tensors: str = "first"
             ) -> tuple[Binary, Any]:
    fn = binary(name, primitive, kinds, floating=floating, bools=bools, wide=wide,
                refuse=only(name, allowed) if allowed else None)
    call = called(name, fn, doc, tensors)
    public(call, name, _FAMILY, inplace=inplace, samples=samples, aliases=aliases,
           differentiable=differentiable, method=method)
    return fn, call


_eq, eq = _declare("eq", "eq", "buifc", "Where input == other; bool.")
_ne, ne = _declare("ne", "ne", "buifc", "Where input != other; bool.", aliases=("not_equal",))
_lt, lt = _declare("lt", "lt", "buif", "Where input < other; bool.", aliases=("less",),
                   allowed="buif")
_le, le = _declare("le", "le", "buif", "Where input <= other; bool.", aliases=("less_equal",),
                   allowed="buif")
_gt, gt = _declare("gt", "gt", "buif", "Where input > other; bool.", aliases=("greater",),
                   allowed="buif")
_ge, ge = _declare("ge", "ge", "buif", "Where input >= other; bool.",
                   aliases=("greater_equal",), allowed="buif")
_, logical_and = _declare("logical_and", "logical_and", "buifc", tensors="both", doc=
                          "Where both operands are nonzero; bool.")
_, logical_or = _declare("logical_or", "logical_or", "buifc", tensors="both", doc=
                         "Where either operand is nonzero; bool.")
_, logical_xor = _declare("logical_xor", "logical_xor", "buifc", tensors="both", doc=
                          "Where exactly one operand is nonzero; bool.")
_and, bitwise_and = _declare("bitwise_and", "bitwise_and", "bui", "The bits set in both.",
                             samples=_integers, tensors="", allowed="bui")
_or, bitwise_or = _declare("bitwise_or", "bitwise_or", "bui", "The bits set in either.",
                           samples=_integers, tensors="", allowed="bui")
_xor, bitwise_xor = _declare("bitwise_xor", "bitwise_xor", "bui", "The bits set in one only.",
                             samples=_integers, tensors="", allowed="bui")
_shl, bitwise_left_shift = _declare("bitwise_left_shift", "shift_left", "ui",
                                    "input * 2**other, for integers.", samples=_integers,
                                    tensors="", allowed="ui")
_shr, bitwise_right_shift = _declare("bitwise_right_shift", "shift_right", "ui",
                                     "input / 2**other rounded down, for integers.",
                                     samples=_integers, tensors="", allowed="ui")
_, maximum = _declare("maximum", "maximum", "uif", "The larger of the two; NaN if either is.",
                      inplace=False, bools="logical_or", differentiable=True, allowed="buif",
                    tensors="both")
_, minimum = _declare("minimum", "minimum", "uif", "The smaller of the two; NaN if either is.",
                      inplace=False, bools="logical_and", differentiable=True, allowed="buif",
                    tensors="both")
_, fmax = _declare("fmax", "fmax", "f", "The larger of the two, ignoring a NaN.",
                   inplace=False, bools="logical_or", differentiable=True, allowed="buif",
                    tensors="both")
_, fmin = _declare("fmin", "fmin", "f", "The smaller of the two, ignoring a NaN.",
                   inplace=False, bools="logical_and", differentiable=True, allowed="buif",
                    tensors="both")
_, atan2 = _declare("atan2", "atan2", "f", "The angle of the point (other, input), in (-pi, pi].",
                    floating=True, differentiable=True, aliases=("arctan2",), allowed="f",
                    tensors="both")
_, hypot = _declare("hypot", "hypot", "f", "sqrt(input**2 + other**2) without overflow.",
                    differentiable=True, allowed="f",
                    tensors="both")
_real_logaddexp = called("logaddexp", binary("logaddexp", "logaddexp", "f", floating=True,
                                             refuse=only("logaddexp", "f")), "", "both")


@composite
def _complex_logaddexp(a: Tensor, b: Tensor) -> Tensor:
    """From the operand with the larger real part: log(1 + exp(less - more)) + more."""
    from facula.ops.promote import operands
    x, y = operands(a, b)
    first = prim("ge", prim("real", x), prim("real", y))
    more, less = prim("where", first, x, y), prim("where", first, y, x)
    return prim("add", prim("log1p", prim("exp", prim("sub", less, more))), more)


def logaddexp(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """log(exp(input) + exp(other)), stable."""
    if any(isinstance(t, Tensor) and t.dtype.kind == "c" for t in (input, other)):
        need_tensors("logaddexp", input, other)
        value: Tensor = _complex_logaddexp(input, other)
        return into(out, value)
    result: Tensor = _real_logaddexp(input, other, out=out)
    return result


public(logaddexp, "logaddexp", _FAMILY, samples=_pairs_of_tensors)
_, copysign = _declare("copysign", "copysign", "f", "input with the sign of other.",
                       floating=True, differentiable=True, allowed="f")


# ---------------------------------------------------------------- Python's operators

def _reflected(fn: Binary) -> Binary:
    def swapped(a: Any, b: Any) -> Any:
        if not isinstance(a, Tensor):
            raise TypeError(f"descriptor '__r{fn.__name__}__' for tensors doesn't apply to "
                            f"{type(a).__name__!r}")
        return fn(b, a)
    swapped.__name__ = swapped.__qualname__ = f"__r{fn.__name__}__"
    return swapped


for _symbol, _fn in (("add", _add), ("sub", _sub), ("mul", _mul), ("truediv", _div),
                     ("floordiv", _floor_divide), ("mod", _remainder), ("pow", _power),
                     ("and", _and), ("or", _or), ("xor", _xor), ("lshift", _shl),
                     ("rshift", _shr), ("divmod", divmod_)):
    attach(f"__{_symbol}__", _fn)
    attach(f"__r{_symbol}__", _reflected(_fn))
    if _symbol != "divmod":
        attach(f"__i{_symbol}__", in_place(_fn, f"__i{_symbol}_"))
for _symbol, _fn in (("eq", _eq), ("ne", _ne), ("lt", _lt), ("le", _le), ("gt", _gt),
                     ("ge", _ge)):
    attach(f"__{_symbol}__", _fn)

attach("__rdiv__", _reflected(_div))

# NumPy arrays leave `array + tensor` to the tensor.
Tensor.__array_priority__ = 1000            # type: ignore[attr-defined]


