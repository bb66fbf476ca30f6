"""What the elementwise primitives mean, in NumPy.

Integers wrap around, division by zero gives 0 for them, 16-bit floats are computed in float32
and rounded once; nothing warns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facula.dtype import DType
from facula.graph.spec import Spec
from facula.ops.primitive.record import Meaning, compute_dtype, through_f32
from facula.ops.primitive.special import erf, erfc

__all__ = ["meaning", "UNARY", "BINARY", "convert", "bitcast"]

Arrays = Sequence[np.ndarray]


def meaning(fn: Callable[..., np.ndarray]) -> Meaning:
    """A function of arrays as a primitive's NumPy meaning."""
    wide = through_f32(fn)

    def run(arrays: Arrays, attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
        with np.errstate(all="ignore"):
            result = wide(*arrays)
            return result.astype(out.dtype.np, copy=False)
    return run


# ---------------------------------------------------------------- one operand

def _whole(fn: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """A rounding function, which leaves integers alone."""
    return lambda x: x if x.dtype.kind in "bui" else fn(x)


def _sign(x: np.ndarray) -> np.ndarray:
    """(x > 0) - (x < 0), which makes 0 of NaN, as PyTorch does."""
    if x.dtype.kind in "bu":
        return (x != 0).astype(x.dtype)
    return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)


def _exp2(x: np.ndarray) -> np.ndarray:
    return np.exp(x * np.log(2.0).astype(x.real.dtype)) if x.dtype.kind == "c" else np.exp2(x)


def _reciprocal(x: np.ndarray) -> np.ndarray:
    return np.ones_like(x) / x


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """From exp(-|x|), which cannot overflow."""
    one = np.ones_like(x)
    if x.dtype.kind == "c":
        return one / (one + np.exp(-x))
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, one, small) / (one + small)


UNARY: dict[str, Callable[..., np.ndarray]] = {
    "neg": np.negative, "abs": np.abs, "sign": _sign, "exp": np.exp, "exp2": _exp2,
    "expm1": np.expm1, "log": np.log, "log2": np.log2, "log10": np.log10, "log1p": np.log1p,
    "sqrt": np.sqrt, "rsqrt": lambda x: _reciprocal(np.sqrt(x)), "reciprocal": _reciprocal,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin, "acos": np.arccos,
    "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh,
    "acosh": np.arccosh, "atanh": np.arctanh, "erf": erf, "erfc": erfc, "sigmoid": _sigmoid,
    "floor": _whole(np.floor), "ceil": _whole(np.ceil), "round": _whole(np.rint),
    "trunc": _whole(np.trunc), "bitwise_not": np.invert, "conj": np.conj,
    "isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite,
    "logical_not": np.logical_not, "real": np.real, "imag": np.imag,
}


# ---------------------------------------------------------------- two operands

def _sub(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a ^ b if a.dtype.kind == "b" else np.subtract(a, b)


def _power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a ** b; an integer to a negative power is 0, except those of 1 and -1."""
    if a.dtype.kind != "i":
        return np.power(a, b)
    below = b < 0
    whole = np.power(a, np.where(below, 0, b).astype(b.dtype))
    odd = np.where(b & 1, -1, 1)
    small = np.where(a == 1, 1, np.where(a == -1, odd, 0))
    return np.where(below, small, whole)


def _floor_divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind != "f":
        return np.floor_divide(a, b)
    # Zero and infinite divisors give what the quotient gives, as in PyTorch.
    return np.where(b == 0, a / b, np.floor_divide(a, b))


BINARY: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add, "sub": _sub, "mul": np.multiply, "div": np.divide,
    "floor_divide": _floor_divide, "remainder": np.remainder, "fmod": np.fmod, "pow": _power,
    "atan2": np.arctan2, "maximum": np.maximum, "minimum": np.minimum, "fmax": np.fmax,
    "fmin": np.fmin, "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor, "shift_left": np.left_shift, "shift_right": np.right_shift,
    "copysign": np.copysign, "hypot": np.hypot, "logaddexp": np.logaddexp,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal, "logical_and": np.logical_and, "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}


# ---------------------------------------------------------------- conversions

def _to_integer(x: np.ndarray, target: DType) -> np.ndarray:
    """Truncate; what does not fit in 32 bits (or 64) saturates there, NaN gives 0.

    Types narrower than 32 bits then take the low bits, as compiled code does.
    """
    wide = np.trunc(x.astype(np.float64))
    wide = np.where(np.isnan(wide), 0.0, wide)
    if target.name == "uint64":
        top = wide >= 2.0 ** 64
        inside = np.where(top | (wide < 0), 0.0, wide).astype(np.uint64)
        return np.where(top, np.uint64(0xFFFFFFFFFFFFFFFF), inside)
    if target.itemsize < 8 and target.name != "uint32":
        limited = np.clip(wide, -2.0 ** 31, 2.0 ** 31 - 1)
        return limited.astype(np.int64).astype(target.np)
    top, bottom = wide >= 2.0 ** 63, wide < -2.0 ** 63
    inside = np.where(top | bottom, 0.0, wide).astype(np.int64)
    inside = np.where(top, np.int64(0x7FFFFFFFFFFFFFFF), inside)
    return np.where(bottom, np.int64(-0x8000000000000000), inside).astype(target.np)


def _convert(x: np.ndarray, source: DType, target: DType) -> np.ndarray:
    if source is target:
        return x
    if source.kind == "c":
        if target.kind == "c":
            return x.astype(target.np)
        if target.kind == "b":
            return x != 0
        return _convert(np.real(x), source.to_real(), target)
    if source.is_compact:
        x = x.astype(np.float32)
    if source.kind == "f":
        x = x.astype(compute_dtype(x.dtype), copy=False)
    if target.kind == "b":
        return x != 0
    if target.kind in "ui":
        return _to_integer(x, target) if source.kind == "f" else x.astype(target.np)
    if target.kind == "f" and target.itemsize == 2 and source.name != "float64":
        x = x.astype(np.float32)
    if target.name == "bfloat16" or target.is_compact:
        x = x.astype(np.float32)
    if target.name == "float8_e4m3fn":       # no infinity: what is too large is the largest
        x = np.clip(x, -448.0, 448.0)
    if target.kind == "c":
        x = x.astype(target.to_real().np)
    return x.astype(target.np)


def convert(arrays: Arrays, attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    """`cast`: to the dtype of `out`; anything to bool is != 0, complex to real drops the rest."""
    from facula.dtype import from_numpy_dtype
    x = np.asarray(arrays[0])
    with np.errstate(all="ignore"):
        return np.asarray(_convert(x, from_numpy_dtype(x.dtype), out.dtype))


def bitcast(arrays: Arrays, attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    """The same bytes read as another dtype."""
    x = np.ascontiguousarray(arrays[0])
    flat = x.reshape(-1)
    if out.dtype.kind == "b":
        return (flat.view(np.uint8) != 0).reshape(out.shape)
    return flat.view(out.dtype.np).reshape(out.shape)
