"""Orders: sorting by keys that NumPy sorts fast, and the place of an extreme by two sums of a row.

A key is an unsigned number of 64 bits, above what stands for the element in the order and below
its place.  No two are the same, so any way to sort them gives the stable order, and processors
sort such numbers in vectors.  The keys are made, and the places taken out of them, by kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isqrt
from typing import Any

from facula.dtype import DType, bool_, float32, int32, int64, uint32, uint64
from facula.graph.spec import Spec, Step, spec

__all__ = ["Steps", "arg_extreme", "argsort"]

Add = Callable[[str, tuple[Any, ...], tuple[int, ...], Spec, "str | None"], int]

LONG_ROW = 32
"""Elements from which on a row's extreme is worth two walks in vectors over one element by element.
"""

FEW = 16
"""Of so many times as many elements as are wanted, most are left out before anything is sorted."""


class Steps:
    """Steps being added at one place of a program."""

    def __init__(self, add: Add, steps: Sequence[Step], where: str | None):
        self.add, self.steps, self.where = add, steps, where

    def make(self, op: str, attrs: tuple[Any, ...], inputs: Sequence[int], shape: Sequence[int],
             dtype: DType) -> int:
        return self.add(op, attrs, tuple(inputs), spec(tuple(shape), dtype), self.where)

    def shape(self, i: int) -> tuple[int, ...]:
        return self.steps[i].spec.shape

    def dtype(self, i: int) -> DType:
        return self.steps[i].spec.dtype

    def cast(self, i: int, dtype: DType) -> int:
        return i if self.dtype(i) is dtype else self.make("cast", (), [i], self.shape(i), dtype)

    def full(self, value: Any, like: int) -> int:
        return self.make("full", (value,), [], self.shape(like), self.dtype(like))

    def two(self, op: str, a: int, value: Any) -> int:
        """An operation with a constant."""
        return self.make(op, (), [a, self.full(value, a)], self.shape(a), self.dtype(a))

    def reshape(self, i: int, shape: Sequence[int]) -> int:
        return self.make("reshape", (), [i], shape, self.dtype(i))

    def permute(self, i: int, order: Sequence[int]) -> int:
        return self.make("permute", (tuple(order),), [i], [self.shape(i)[p] for p in order],
                         self.dtype(i))

    def where_(self, condition: int, a: int, b: int) -> int:
        return self.make("where", (), [condition, a, b], self.shape(a), self.dtype(a))

    def test(self, op: str, *inputs: int) -> int:
        return self.make(op, (), inputs, self.shape(inputs[0]), bool_)

    def places(self, shape: Sequence[int], dtype: DType) -> int:
        """The number of each element in its row."""
        line = self.make("iota", (), [], (shape[-1],), int64)
        line = self.reshape(line, (*(1,) * (len(shape) - 1), shape[-1]))
        return self.cast(self.make("expand", (), [line], shape, int64), dtype)


def argsort(add: Add, steps: Sequence[Step], attrs: tuple[Any, ...], x: int, where: str | None
            ) -> int | None:
    """The step that has the stable order, or the part of it that attrs ask for; None where NumPy
    is to sort the elements themselves."""
    s = Steps(add, steps, where)
    shape, dtype = s.shape(x), s.dtype(x)
    axis, descending = attrs[:2]
    n = shape[axis] if shape else 0
    low, high = (0, n) if len(attrs) == 2 else attrs[2:]
    if n < 2 or low >= high or dtype.itemsize > 4 or dtype.kind == "c" or dtype.is_compact:
        return None
    last = len(shape) - 1
    order = [*(d for d in range(len(shape)) if d != axis), axis]
    if axis != last:
        x = s.permute(x, order)
    keys = _keys(s, x, descending)
    found = _first(s, keys, low, high)
    places = s.cast(s.two("bitwise_and", found, (1 << 32) - 1), int64)
    if axis != last:
        places = s.permute(places, [order.index(d) for d in range(len(shape))])
    return places


def _keys(s: Steps, x: int, descending: bool) -> int:
    """uint64: what stands for the element, above its place in the row."""
    dtype = s.dtype(x)
    if dtype.kind == "f":
        x = s.cast(x, float32)
        nan = s.test("isnan", x)
        x = s.where_(s.test("eq", x, s.full(0.0, x)), s.full(0.0, x), x)       # -0 is 0
        bits = s.make("bitcast", (), [x], s.shape(x), int32)
        sign = s.two("bitwise_and", s.two("shift_right", bits, 31), (1 << 31) - 1)
        bits = s.make("bitwise_xor", (), [bits, sign], s.shape(x), int32)
        x = s.where_(nan, s.full((1 << 31) - 1, bits), bits)
    signed = s.dtype(x).kind == "i"
    rank = s.cast(x, int64)
    if signed:
        rank = s.two("add", rank, 1 << 31)
    if descending:
        rank = s.make("sub", (), [s.full((1 << 32) - 1, rank), rank], s.shape(rank), int64)
    high = s.two("shift_left", s.cast(rank, uint64), 32)
    return s.make("bitwise_or", (), [high, s.places(s.shape(x), uint64)], s.shape(x), uint64)


def _first(s: Steps, keys: int, low: int, high: int) -> int:
    """Keys low to high - 1 of each row's order.

    Of many, the least of every so manieth is found first: the `high` least ones of all are among
    the `high` columns whose least are least.
    """
    shape = s.shape(keys)
    n, lead = shape[-1], shape[:-1]
    if n <= FEW * high:
        return s.make("keysort", (low, high), [keys], (*lead, high - low), uint64)
    deep = max(isqrt(n // high), 2)
    width = -(-n // deep)
    if width * deep > n:
        none = (0,) * len(lead)
        keys = s.make("pad", ((*none, 0), (*none, width * deep - n), (1 << 64) - 1), [keys],
                      (*lead, width * deep), uint64)
    grid = s.reshape(keys, (*lead, deep, width))
    least = s.make("amin", ((len(lead),),), [grid], (*lead, width), uint64)
    best = s.make("keysort", (0, high), [least], (*lead, high), uint64)
    column = s.two("remainder", s.cast(s.two("bitwise_and", best, (1 << 32) - 1), uint32), width)
    column = s.reshape(s.cast(column, int64), (*lead, 1, high))
    column = s.make("expand", (), [column], (*lead, deep, high), int64)
    some = s.make("gather", (len(lead) + 1,), [grid, column], (*lead, deep, high), uint64)
    return s.make("keysort", (low, high), [s.reshape(some, (*lead, deep * high))],
                  (*lead, high - low), uint64)


def arg_extreme(add: Add, steps: Sequence[Step], op: str, attrs: tuple[Any, ...], x: int,
                where: str | None) -> int | None:
    """The step that has the first place of each row's maximum or minimum: the extreme, then the
    least place where it is.  Both walk in vectors.  None where that would not be faster."""
    s = Steps(add, steps, where)
    shape, dtype = s.shape(x), s.dtype(x)
    axis = attrs[0]
    if axis != len(shape) - 1 or not LONG_ROW <= shape[axis] < 1 << 31 or \
            dtype.kind not in "fiu" or dtype.is_compact:
        return None
    if dtype.kind == "f" and dtype.itemsize < 4:
        x = s.cast(x, float32)
    best = s.make("amax" if op == "argmax" else "amin", ((axis,),), [x], shape[:-1], s.dtype(x))
    best = s.reshape(best, (*shape[:-1], 1))
    best = s.make("expand", (), [best], shape, s.dtype(x))
    here = s.test("eq", x, best)
    if dtype.kind == "f":                       # the first NaN counts as the extreme
        here = s.test("bitwise_or", here, s.test("isnan", x))
    places = s.places(shape, int32)
    places = s.where_(here, places, s.full(shape[-1] - 1, places))
    return s.cast(s.make("amin", ((axis,),), [places], shape[:-1], int32), int64)
