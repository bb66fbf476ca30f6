"""Accumulators of reductions and scans: where they start, how a value is added, what comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from facula.codegen.elements import expr
from facula.codegen.llvm import Fn
from facula.dtype import DType, bool_, int32, int64
from facula.graph.spec import Step

__all__ = ["Accumulator", "combine", "identity"]

_BASE = {"cumsum": "sum", "cumprod": "prod", "cummax": "amax", "cummin": "amin", "matmul": "sum"}


def identity(op: str, dtype: DType) -> Any:
    """The value that changes nothing when combined, as a Python number."""
    if op in ("sum", "any"):
        return 0
    if op in ("prod", "all"):
        return 1
    low = op in ("amax", "argmax")
    if dtype.kind == "f":
        return float("-inf") if low else float("inf")
    if dtype.kind == "b":
        return 0 if low else 1
    bits = 8 * dtype.itemsize
    if dtype.kind == "u":
        return 0 if low else (1 << bits) - 1
    return -(1 << (bits - 1)) if low else (1 << (bits - 1)) - 1


def combine(fn: Fn, op: str, a: Any, b: Any, dtype: DType) -> Any:
    """One step of a reduction over values of the (widened) dtype."""
    type_ = expr.register_type(dtype)
    if dtype.kind == "f":
        if op == "sum":
            return fn.val(f"fadd reassoc contract {type_} {a}, {b}")
        if op == "prod":
            return fn.val(f"fmul reassoc {type_} {a}, {b}")
        return expr.intrinsic(fn, "maximum" if op == "amax" else "minimum", type_, a, b)
    if dtype.kind == "c" and op == "sum":
        return tuple(fn.val(f"fadd reassoc contract {type_} {x}, {y}")
                     for x, y in zip(a, b, strict=True))
    name = {"sum": "add", "prod": "mul", "amax": "maximum", "amin": "minimum",
            "any": "bitwise_or", "all": "bitwise_and"}[op]
    return expr.emit_op(fn, name, [a, b], [dtype, dtype], dtype)


def _ordered(fn: Fn, op: str, value: str, dtype: DType) -> str:
    """The integer that stands for a float in a maximum or minimum: in the floats' order, -0
    before 0, and every NaN at the end that wins.

    LLVM turns an integer's maximum into vectors wherever it stands; of floats it does not once a
    mask's -inf has been folded into it.
    """
    type_, key, bits = _types(dtype)
    nan = fn.val(f"fcmp uno {type_} {value}, {value}")
    whole = _flipped(fn, fn.val(f"bitcast {type_} {value} to {key}"), key, bits)
    last = (1 << (bits - 1)) - 1 if op == "amax" else -(1 << (bits - 1))
    return fn.val(f"select i1 {nan}, {key} {last}, {key} {whole}")


def _flipped(fn: Fn, value: str, key: str, bits: int) -> str:
    """All bits but the sign inverted where the sign is set; its own inverse."""
    sign = fn.val(f"ashr {key} {value}, {bits - 1}")
    return fn.val(f"xor {key} {value}, {fn.val(f'lshr {key} {sign}, 1')}")


def _types(dtype: DType) -> tuple[str, str, int]:
    """(LLVM type, integer type of that size, its bits) of a float32 or float64."""
    bits = 8 * dtype.itemsize
    return expr.register_type(dtype), f"i{bits}", bits


class Accumulator:
    """The running value of one reduction or scan, for each of `width` rows at a time."""

    def __init__(self, fn: Fn, steps: Sequence[Step], number: int, width: int,
                 based: Callable[[str, str], str] | None = None, tags: str = ""):
        step = steps[number]
        self.fn, self.tags = fn, tags
        self.raw = step.op
        self.op = _BASE.get(step.op, step.op)
        self.source = steps[step.inputs[0]].spec.dtype
        self.out = step.spec.dtype
        wide = expr.compute_dtype(self.source)
        if self.op in ("any", "all"):
            wide = bool_
        self.wide = wide
        self.keyed = self.raw in ("amax", "amin") and wide.kind == "f"
        if self.keyed:          # see _ordered
            wide = int32 if wide.itemsize == 4 else int64
        self.dtype = wide
        self.array = self._take(wide, width, based)
        self.places = self._take(int64, width, based) if self.op.startswith("arg") else ""

    def _take(self, dtype: DType, width: int,
              based: Callable[[str, str], str] | None) -> str:
        type_ = expr.memory_type(dtype)
        array = self.fn.alloca(type_, width * (2 if dtype.kind == "c" else 1))
        if based is None:
            return array
        return based(array, f"[2 x {type_}]" if dtype.kind == "c" else type_)

    def start(self, here: str | int) -> None:
        """Set the row's accumulator to the identity."""
        first = expr.constant(self.dtype, identity(self.op, self.dtype))
        expr.store_value(self.fn, self.dtype, first, self.array, here, self.tags)
        if self.places:
            self.fn.store("i64", "0", self.fn.gep("i64", self.places, here), extra=self.tags)

    def update(self, values: list[Any], here: str | int, axis: str | int) -> Any:
        """Add an element (for a matmul: a product); returns the new value in `out`'s type."""
        fn = self.fn
        if self.raw == "matmul":
            wide = [expr.emit_cast(fn, v, self.source, self.dtype) for v in values]
            value = expr.emit_op(fn, "mul", wide, [self.dtype] * 2, self.dtype)
        else:
            value = expr.emit_cast(fn, values[0], self.source, self.wide)
            if self.keyed:
                value = _ordered(fn, self.op, value, self.wide)
        old = expr.load_value(fn, self.dtype, self.array, here, self.tags)
        if self.places:
            better = self._better(value, old)
            place = fn.gep("i64", self.places, here)
            known = fn.load("i64", place, extra=self.tags)
            fn.store("i64", fn.val(f"select i1 {better}, i64 {axis}, i64 {known}"), place,
                     extra=self.tags)
            new = expr.select(fn, self.dtype, better, value, old)
        else:
            new = combine(fn, self.op, old, value, self.dtype)
        expr.store_value(fn, self.dtype, new, self.array, here, self.tags)
        if self.raw.startswith("cum"):
            return expr.emit_cast(fn, new, self.dtype, self.out)
        return None

    def _better(self, value: str, old: str) -> str:
        """Whether `value` takes over: greater (less), or the first NaN."""
        fn = self.fn
        order = "gt" if self.op == "argmax" else "lt"
        more = expr.emit_op(fn, order, [value, old], [self.dtype] * 2, bool_)
        if self.dtype.kind != "f":
            return more
        type_ = expr.register_type(self.dtype)
        nan = fn.val(f"fcmp uno {type_} {value}, {value}")
        sane = fn.val(f"fcmp ord {type_} {old}, {old}")
        first = fn.val(f"and i1 {nan}, {sane}")
        return fn.val(f"or i1 {more}, {first}")

    def result(self, here: str | int) -> Any:
        """The finished value, in the type of the step's result."""
        fn = self.fn
        if self.places:
            return fn.load("i64", fn.gep("i64", self.places, here), extra=self.tags)
        value = expr.load_value(fn, self.dtype, self.array, here, self.tags)
        if self.keyed:
            type_, key, bits = _types(self.wide)
            value = fn.val(f"bitcast {key} {_flipped(fn, value, key, bits)} to {type_}")
        return expr.emit_cast(fn, value, self.wide, self.out)
