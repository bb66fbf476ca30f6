"""Floating-point numbers taken apart, and whole numbers: frexp, nextafter, gcd, lcm, hashes."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from facula import dtypes as d
from facula.dtype import DType, float32, float64, int32, int64, uint64
from facula.errors import DTypeError
from facula.ops.define import op
from facula.ops.promote import cast, full_like, operands, type_name
from facula.ops.reductions import axes_of, constant, kept
from facula.ops.shape import cut
from facula.ops.surface import binary, called, need_tensors, only, public
from facula.return_types import declare
from facula.tensor import Tensor, prim

__all__ = ["frexp", "nextafter", "gcd", "lcm", "hash_tensor"]

_Frexp = namedtuple("frexp", "mantissa exponent")
declare(_Frexp)

# dtype: the integer of its width, how many bits its fraction has, its exponent's bias
_LAYOUT: dict[str, tuple[DType, int, int]] = {
    "float16": (d.int16, 10, 15), "bfloat16": (d.int16, 7, 127), "float32": (int32, 23, 127),
    "float64": (int64, 52, 1023)}


def _bits(x: Tensor) -> Tensor:
    return prim("bitcast", x, shape=x._node.spec.shape, dtype=_LAYOUT[x.dtype.name][0])


def _power_of_two(k: Tensor, dtype: DType) -> Tensor:
    """2**k for integers k in the range of normal numbers, exactly: k is the exponent field."""
    whole, fraction, bias = _LAYOUT[dtype.name]
    field = prim("add", cast(k, whole), full_like(k, bias, whole))
    shifted = prim("shift_left", field, full_like(field, fraction))
    return prim("bitcast", shifted, shape=shifted._node.spec.shape, dtype=dtype)


def _exponent(x: Tensor) -> Tensor:
    """The exponent field of |x| without its bias, as an integer of the width of x."""
    whole, fraction, bias = _LAYOUT[x.dtype.name]
    bits = prim("bitwise_and", _bits(x), full_like(x, int(np.iinfo(whole.np).max), whole))
    return prim("sub", prim("shift_right", bits, full_like(bits, fraction)),
                full_like(bits, bias))


@op(method=True, samples=lambda make: [((make(3, 4),), {}), ((make(),), {}), ((make(0, 2),), {})])
def frexp(input: Tensor) -> Any:
    """(mantissa, exponent) with input = mantissa * 2**exponent and 0.5 <= |mantissa| < 1.

    0, infinities and NaN are their own mantissa, and their exponent is 0; exponents are int32.
    """
    if input.dtype.kind != "f":
        raise DTypeError("frexp() only supports floating-point dtypes")
    own = input.dtype
    x = cast(input, float32) if own.itemsize == 2 else input
    still = constant(x)
    bias = _LAYOUT[x.dtype.name][2]
    shift = 64 if x.dtype is float64 else 32
    # Below the normal numbers the field is 0: these are read after they are scaled up.
    small = prim("lt", prim("abs", still), full_like(x, 2.0 ** (1 - bias)))
    scaled = prim("where", small, prim("mul", still, full_like(x, 2.0 ** shift)), still)
    e = prim("add", _exponent(scaled), full_like(x, 1, _LAYOUT[x.dtype.name][0]))
    e = prim("where", small, prim("sub", e, full_like(e, shift)), e)
    odd = prim("logical_or", prim("eq", still, full_like(x, 0.0)),
               prim("logical_not", prim("isfinite", still)))
    e = prim("where", odd, full_like(e, 0), e)
    # In two factors, because 2**-e of the smallest numbers is beyond the largest.
    half = prim("shift_right", prim("neg", e), full_like(e, 1))
    rest = prim("sub", prim("neg", e), half)
    mantissa = prim("mul", prim("mul", x, _power_of_two(half, x.dtype)),
                    _power_of_two(rest, x.dtype))
    return _Frexp(cast(mantissa, own), cast(e, int32))


@op(method=True, inplace=True, differentiable=False, samples=lambda make: [
    ((make(2, 3), make(2, 3)), {}), ((make(5), make(1)), {})])
def nextafter(input: Tensor, other: Tensor) -> Tensor:
    """The next number after input towards other; other where they are equal, NaN if either is.

    The gradient passes to input, where the two differ.
    """
    source, b = operands(input, other)
    a, b = constant(source), constant(b)
    if a.dtype.kind != "f":
        raise DTypeError(f'"nextafter" not implemented for \'{type_name(a.dtype)}\'')
    whole = _LAYOUT[a.dtype.name][0]
    zero = full_like(a, 0.0)
    bits = _bits(a)
    one = full_like(bits, 1)
    # The bits of numbers of one sign are in the order of their magnitudes.
    away = prim("eq", prim("lt", a, b), prim("gt", a, zero))
    stepped = prim("where", away, prim("add", bits, one), prim("sub", bits, one))
    out = prim("bitcast", stepped, shape=a._node.spec.shape, dtype=a.dtype)
    least = prim("bitcast", full_like(a, 1, whole), shape=a._node.spec.shape, dtype=a.dtype)
    out = prim("where", prim("eq", a, zero), prim("copysign", least, b), out)
    # Adding -0.0 changes no number; what is added is a function of input all the same.
    none = prim("neg", prim("sub", a, prim("where", prim("isfinite", a), source, a)))
    none = prim("where", prim("isfinite", a), none, full_like(a, -0.0))
    out = prim("where", prim("eq", a, b), b, prim("add", out, none))
    out = prim("where", prim("isnan", a), a, out)
    return prim("where", prim("isnan", b), b, out)


# ---------------------------------------------------------------- whole numbers

def _whole(make: Any) -> list[Any]:
    return [((make(2, 3, dtype=int64, low=-9, high=9), make(2, 3, dtype=int64, low=-9, high=9)),
             {}), ((make(2, 3, dtype=int32, low=-9, high=9), make(3, dtype=int32)), {})]


gcd = public(called("gcd", binary("gcd", "gcd", "ui", refuse=only("gcd", "ui")),
                    "The greatest common divisor, not negative; gcd(0, 0) is 0.",
                    "both"),
             "gcd", "arithmetic", inplace=True, samples=_whole, differentiable=False)


@op(method=True, inplace=True, differentiable=False, samples=_whole, family="arithmetic")
def lcm(input: Tensor, other: Tensor) -> Tensor:
    """The least common multiple, not negative; 0 where either is 0."""
    need_tensors("lcm", input, other)
    a, b = operands(input, other)
    if a.dtype.kind not in "ui":
        raise DTypeError(f'"lcm" not implemented for \'{type_name(a.dtype)}\'')
    # Division by gcd(0, 0) = 0 gives 0.
    return prim("abs", prim("mul", prim("floor_divide", a, prim("gcd", a, b)), b))


# ---------------------------------------------------------------- hashes

@op(method=True, differentiable=False, samples=lambda make: [
    ((make(3, 5),), {}), ((make(3, 5), 0), {}), ((make(2, 3, 4), (0, 2), True), {})])
def hash_tensor(input: Tensor, dim: Any = (), keepdim: bool = False, *, mode: int = 0) -> Tensor:
    """The exclusive or of the elements' 64 bits over `dim` (all if empty), as uint64.

    Floating numbers are hashed as float64, whole ones as int64.
    """
    if mode != 0:
        raise RuntimeError(f"hash_tensor: unknown mode {mode}")
    if input.dtype.kind == "c":
        raise DTypeError("hash_tensor: complex tensors are not supported")
    if not input.numel() and dim in ((), []):
        raise RuntimeError("hash_tensor: Expected reduction dim to be specified for input.numel() "
                           "== 0. Specify the reduction dim with the 'dim' argument.")
    wide = cast(input, float64) if input.dtype.kind == "f" else cast(input, int64)
    shape = wide._node.spec.shape
    axes = axes_of(dim, wide.ndim)
    x = prim("bitcast", wide, shape=shape, dtype=int64) if wide.dtype is float64 else wide
    for axis in axes:
        x = _xor_along(x, axis)
    if not keepdim:
        x = prim("reshape", x, shape=tuple(n for k, n in enumerate(shape) if k not in axes))
    elif axes:
        x = prim("reshape", x, shape=kept(shape, axes))
    return prim("bitcast", x, shape=x._node.spec.shape, dtype=uint64)


def _xor_along(x: Tensor, axis: int) -> Tensor:
    """The exclusive or over an axis, which keeps size 1: the upper half onto the lower."""
    n = x._node.spec.shape[axis]
    if n == 0:
        shape = list(x._node.spec.shape)
        shape[axis] = 1
        return prim("full", attrs=(0,), shape=tuple(shape), dtype=x.dtype)
    while n > 1:
        half = n // 2
        folded = prim("bitwise_xor", cut(x, axis, 0, half), cut(x, axis, n - half, n))
        x = folded if n == 2 * half else prim("cat", folded, cut(x, axis, half, half + 1),
                                              attrs=(axis,))
        n -= half
    return x
