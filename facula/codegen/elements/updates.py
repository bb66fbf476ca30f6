"""Kernels of scatter, index_put and as_strided_update: writes to places that the data choose.

The result starts as a copy of the base (nothing to do where it takes over the base's memory);
then the new values are written in the order of their indices.  What cannot collide is shared
among threads: other rows, other columns; along the indexed dimensions one thread goes in order,
so that sums have one order and the last of equal indices wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import prod
from typing import Any

from facula.codegen.elements import expr
from facula.codegen.elements.reductions import combine
from facula.codegen.elements.writer import KernelWriter
from facula.codegen.kernel import KernelText, Storage
from facula.graph.spec import Step
from facula.groups.index import Index, Var, const, flatten, loop_var, row_major, unflatten

__all__ = ["emit_copy", "emit_update"]

_COMBINE = {"add": "sum", "mul": "prod", "amax": "amax", "amin": "amin"}
_TILE_NS = 10_000.0


def _writer(steps: Sequence[Step], storage: Callable[[int], Storage | None],
            scalars: Callable[[int], Storage | None]) -> KernelWriter:
    writer = KernelWriter(steps, lambda n: storage(n) or scalars(n))

    def position(number: int) -> tuple[str, tuple[int, ...], str] | None:
        place = storage(number)
        return None if place is None else (writer.pointer(place.slot), place.strides,
                                           writer.tags(place.slot))

    writer.emitter.position = position
    return writer


def emit_copy(steps: Sequence[Step], number: int, storage: Callable[[int], Storage | None],
              scalars: Callable[[int], Storage | None]) -> KernelText:
    """The base of update step `number`, written to where its result lies."""
    writer = _writer(steps, storage, scalars)
    fn, em = writer.fn, writer.emitter
    shape = steps[number].spec.shape
    count = prod(shape)
    chunk = min(count, 16384)
    ntiles = -(-count // chunk)
    flat = loop_var("p", count, 0)
    index = unflatten(flat, shape)
    low: str | int = 0
    high: str | int = count
    if ntiles > 1:
        low = fn.mul("%tile", chunk)
        end = fn.add(low, chunk)
        fewer = fn.val(f"icmp slt i64 {end}, {count}")
        high = fn.val(f"select i1 {fewer}, i64 {end}, i64 {count}")
    with fn.loop(low, high, hint="p", metadata=writer.loop_metadata()) as p:
        em.open()
        if flat.terms:
            em.names[flat.terms[0][0]] = p
        writer.put(number, index, em.value(steps[number].inputs[0], index))
        em.close()
    return writer.finish(ntiles, 0.1 * count)


def emit_update(steps: Sequence[Step], number: int, storage: Callable[[int], Storage | None],
                scalars: Callable[[int], Storage | None]) -> KernelText:
    """The writes of update step `number`."""
    step = steps[number]
    if step.op == "scatter":
        return _Update(steps, number, storage, scalars).scatter()
    if step.op == "index_put":
        return _Update(steps, number, storage, scalars).index_put()
    return _Update(steps, number, storage, scalars).strided()


class _Update:
    def __init__(self, steps: Sequence[Step], number: int,
                 storage: Callable[[int], Storage | None],
                 scalars: Callable[[int], Storage | None]):
        self.steps, self.number = steps, number
        self.step = steps[number]
        self.writer = _writer(steps, storage, scalars)
        self.fn, self.em = self.writer.fn, self.writer.emitter
        place = storage(number)
        assert place is not None
        self.place = place

    def _checked(self, source: int, index: tuple[Index, ...], n: int) -> Index:
        """Element `index` of the int64 step `source`, checked against n."""
        return Index(((Var("load", (source, index, n), max(n, 1), 70), 1),), 0)

    def _write(self, index: Sequence[Index], value: Any, mode: str) -> None:
        fn, dtype = self.fn, self.step.spec.dtype
        pointer = self.writer.pointer(self.place.slot)
        tags = self.writer.tags(self.place.slot)
        at = self.em.index(flatten(index, self.place.strides))
        if mode != "set":
            wide = expr.compute_dtype(dtype)
            old = expr.load_value(fn, dtype, pointer, at, tags)
            total = combine(fn, _COMBINE[mode], expr.emit_cast(fn, old, dtype, wide),
                            expr.emit_cast(fn, value, dtype, wide), wide)
            value = expr.emit_cast(fn, total, wide, dtype)
        expr.store_value(fn, dtype, value, pointer, at, tags)

    def _nest(self, shape: Sequence[int], free: Sequence[int], order: Sequence[int],
              body: Callable[[tuple[Index, ...]], None]) -> KernelText:
        """Loops over `shape`: the dimensions `free` are shared out, `order` go in sequence.

        The last free dimension, if it comes last of all, is the innermost loop.
        """
        fn, em = self.fn, self.em
        inner = free[-1] if free and free[-1] == len(shape) - 1 and shape[free[-1]] > 1 else None
        outer = [d for d in free if d != inner]
        rows = prod(shape[d] for d in outer)
        along = prod(shape[d] for d in order)
        width = shape[inner] if inner is not None else 1
        cut = max(16, min(width, int(_TILE_NS / max(along, 1)) // 16 * 16)) if width > 1 else 1
        blocks = -(-width // cut)
        chunk = max(1, min(rows, int(_TILE_NS / max(along * min(cut, width), 1))))
        row_tiles = -(-rows // chunk)
        index: list[Index] = [const(0)] * len(shape)
        row = loop_var("p", rows, 0)
        for d, i in zip(outer, unflatten(row, [shape[d] for d in outer]), strict=True):
            index[d] = i
        tile_row: str | int = "%tile" if row_tiles > 1 else 0
        tile_block: str | int = "%tile" if blocks > 1 else 0
        if row_tiles > 1 and blocks > 1:
            tile_row = fn.val(f"udiv i64 %tile, {blocks}")
            tile_block = fn.val(f"urem i64 %tile, {blocks}")

        def bounds(tile: str | int, size: int, count: int) -> tuple[str | int, str | int]:
            low = fn.mul(tile, size)
            high = fn.add(low, size)
            if isinstance(high, int):
                return low, min(high, count)
            fewer = fn.val(f"icmp slt i64 {high}, {count}")
            return low, fn.val(f"select i1 {fewer}, i64 {high}, i64 {count}")

        first, last = bounds(tile_row, chunk, rows)
        left, right = bounds(tile_block, cut, width)
        with ExitStack() as loops:
            self._loop(loops, row, first, last)
            for d in order:
                var = loop_var(f"s{d}", shape[d], 1 + d)
                index[d] = var
                self._loop(loops, var, 0, shape[d])
            if inner is not None:
                var = loop_var("l", width, 40)
                index[inner] = var
                self._loop(loops, var, left, right)
            em.open()
            body(tuple(index))
            em.close()
        return self.writer.finish(row_tiles * blocks, 1.0 * rows * along * width)

    def _loop(self, loops: ExitStack, var: Index, low: str | int, high: str | int) -> None:
        if not var.terms:
            return
        name = loops.enter_context(self.fn.loop(low, high, hint="x"))
        self.em.open()
        loops.callback(self.em.close)
        self.em.names[var.terms[0][0]] = name

    def scatter(self) -> KernelText:
        axis, mode = self.step.attrs
        _, index, source = self.step.inputs
        shape = self.steps[index].spec.shape
        base = self.step.spec.shape

        def body(at: tuple[Index, ...]) -> None:
            value = self.em.value(source, at)
            to = self._checked(index, at, base[axis])
            self._write((*at[:axis], to, *at[axis + 1:]), value, mode)

        free = [d for d in range(len(shape)) if d != axis]
        return self._nest(shape, free, [axis] if shape else [], body)

    def index_put(self) -> KernelText:
        axis, accumulate = self.step.attrs
        _, values, *indices = self.step.inputs
        shape = self.steps[values].spec.shape
        picked = self.steps[indices[0]].spec.shape
        base = self.step.spec.shape
        last = axis + len(picked)

        def body(at: tuple[Index, ...]) -> None:
            value = self.em.value(values, at)
            to = [self._checked(i, at[axis:last], base[axis + k])
                  for k, i in enumerate(indices)]
            self._write((*at[:axis], *to, *at[last:]), value, "add" if accumulate else "set")

        free = [d for d in range(len(shape)) if not axis <= d < last]
        return self._nest(shape, free, list(range(axis, last)), body)

    def strided(self) -> KernelText:
        strides, offset = self.step.attrs
        value = self.step.inputs[1]
        shape = self.steps[value].spec.shape
        base = self.step.spec.shape

        def body(at: tuple[Index, ...]) -> None:
            to = unflatten(flatten(at, strides, offset), base)
            self._write(to, self.em.value(value, at), "set")

        assert row_major(base) == self.place.strides
        return self._nest(shape, [], list(range(len(shape))), body)
