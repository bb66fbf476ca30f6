"""bfloat16 products by the instruction that multiplies and adds pairs (AVX512-BF16's vdpbf16ps).

A lane of 32 bits holds two neighbours along k, of a row of A or of a column of B; one instruction
adds both products to a float32 sum.  So this is the micro-kernel of float32 with half as many steps
of k, over operands whose elements are pairs: A as it lies in memory where k is contiguous, else
packed; B packed in panels of pairs.  An odd k is completed with zeros.

The instruction takes denormal numbers for zeros and rounds each addition to nearest.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from facula.codegen.llvm import Fn, Module
from facula.codegen.products.brgemm import OperandPlace, Vector
from facula.codegen.products.contraction import Contraction, Epilogue
from facula.codegen.products.microkernel import multiply_pairs
from facula.codegen.products.pack import Source
from facula.codegen.products.tiles import PARAMS, batch_offset, operand, smin, unravel
from facula.codegen.target import Target

__all__ = ["Pairs", "as_pairs", "emit_pairs"]

_CHUNK = 128
"""Pairs of k that a tile packs."""

_WITHIN = 512
"""Up to how many rows of A each tile packs the columns of B that it reads: with more of them a copy
of B is used often enough to be made once."""


class Pairs(Vector):
    """A product of bfloat16 matrices, summed in float32."""

    beside = True
    """Whether a tile can have a packed panel of its own."""

    def __init__(self, module: Module, name: str, c: Contraction, epilogue: Epilogue | None,
                 t: Target, roles: tuple[str, str]):
        super().__init__(module, name, replace(c, k=-(-c.k // 2)), epilogue, t, roles)
        self.whole = c
        self.within = self.beside and c.n > 1 == c.b_strides[-1] and any(c.b_strides[:-2]) \
            and 0 < c.m <= _WITHIN and c.k > 0 and not c.varies
        self.mad = self._multiply_add

    @staticmethod
    def suits(c: Contraction, t: Target) -> bool:
        return c.dtype == "bfloat16" and t.pairs

    def _multiply_add(self, fn: Fn, x: str, y: str, total: str, into: str) -> None:
        multiply_pairs(fn, self.lanes, x, y, total, into)

    def _packed(self, which: int, source: Source, width: int) -> OperandPlace:
        """A copy in panels of pairs."""
        pairs = as_pairs(source)
        if pairs is not None:
            return self._pack(which, pairs, width)
        return self._pack(which, replace(source, k=self.c.k), width, emit=lambda module, name:
                          emit_pairs(module, name, source, width, self.t))

    def _source_a(self) -> Source:
        c = self.whole
        *batch, am, ak = c.a_strides
        return Source("bfloat16", 2, c.batch, tuple(batch), c.m, c.k, am, ak, c.a_offset)

    def _source_b(self) -> Source:
        c = self.whole
        *batch, bk, bn = c.b_strides
        return Source("bfloat16", 2, c.batch, tuple(batch), c.n, c.k, bn, bk, c.b_offset)

    def _crowded(self, pairs: Source) -> bool:
        """Whether rows lie in so few sets of the caches that a copy of them pays."""
        apart = pairs.j_stride * self.item
        return (apart >= 2048 and apart % 512 == 0 and pairs.k >= 128 and self.c.n >= 128
                and self.c.m > 1)

    def _apart(self, pairs: int) -> int:
        """How far copied rows of so many pairs are apart: an odd number of lines of the cache."""
        line = 64 // self.item
        return (-(-pairs // line) | 1) * line

    def _in_place(self, pairs: Source) -> OperandPlace:
        return OperandPlace(self.roles[0], pairs.batch_strides, pairs.j_stride, 1, pairs.j_stride,
                            pairs.offset)

    def _place_a(self) -> OperandPlace:
        source = self._source_a()
        pairs = as_pairs(source)
        if pairs is None:
            return self._packed(0, source, self.mr)
        if self._crowded(pairs):
            return self._pack(0, pairs, self.mr, self._apart(pairs.k))
        return self._in_place(pairs)

    def _place_b(self) -> OperandPlace:
        if self.within:
            self.source = self._source_b()
            return OperandPlace(self.roles[1], self.source.batch_strides, 0, self.nr, 1,
                                self.source.offset, "i16")
        return self._packed(1, self._source_b(), self.nr)

    def _columns(self, fn: Fn, pb: str, panel: str, j: Any, k0: Any, cols: int) -> None:
        apart, k = self.source.k_stride, self.source.k
        f = fn.module.declare("void @llvm.prefetch.p0(ptr, i32, i32, i32)")

        def pair(at: Any, to: Any, both: bool) -> None:
            low = fn.gep("i16", pb, fn.add(fn.mul(at, 2 * apart), j))
            for first in range(0, cols, 16):
                _interleave(fn, low, apart, fn.gep("i32", panel, fn.mul(to, self.nr)), first,
                            min(16, cols - first), both)
            for row in (0, apart):      # what the next panel reads: far from what this one does
                soon = fn.val(f"getelementptr i16, ptr {low}, i64 {row + self.nr}")
                fn.do(f"call void {f}(ptr {soon}, i32 0, i32 2, i32 1)")

        whole = k // 2
        end = smin(fn, fn.add(k0, self.kc), whole)
        with fn.loop(k0, end, hint="k", metadata=fn.module.untouched()) as at:
            to = at if k0 == 0 else fn.val(f"sub i64 {at}, {k0}")
            pair(at, to, True)
        if k % 2:
            if self.kc >= self.c.k:
                pair(whole, whole, False)
            else:
                with fn.when(fn.val(f"icmp sge i64 {fn.add(k0, self.kc)}, {self.c.k}")):
                    pair(whole, fn.val(f"sub i64 {whole}, {k0}"), False)


def as_pairs(source: Source) -> Source | None:
    """The same memory with pairs as elements; None where they do not lie so."""
    numbers = (source.k, source.j_stride, source.offset, *source.batch_strides)
    if source.k_stride != 1 or any(n % 2 for n in numbers):
        return None
    return replace(source, dtype="float32", itemsize=4, k=source.k // 2,
                   batch_strides=tuple([s // 2 for s in source.batch_strides]),
                   j_stride=source.j_stride // 2, offset=source.offset // 2)


def emit_pairs(module: Module, name: str, x: Source, width: int, t: Target) -> int:
    """Kernel `name` with operands (source, packed copy): panels [j // width][k // 2][width][2] of
    bfloat16 elements; returns its number of tiles."""
    pairs, whole = -(-x.k // 2), x.k // 2
    panels, chunks = -(-x.j // width), -(-pairs // _CHUNK)
    fn = Fn(module, name, PARAMS, attrs=t.attributes)
    src, dst = operand(fn, 0), operand(fn, 1)
    *batch, panel, chunk = unravel(fn, "%tile", (*x.distinct, panels, chunks))
    src = fn.gep("i16", src, fn.add(batch_offset(fn, batch, x.batch_strides), x.offset))
    flat: str | int = 0
    for index, n in zip(batch, x.distinct, strict=True):
        flat = fn.add(fn.mul(flat, n), index)
    flat = fn.add(fn.mul(flat, panels), panel)
    dst = fn.gep("i32", dst, fn.mul(flat, width * pairs))
    src = fn.gep("i16", src, fn.mul(panel, width * x.j_stride))
    k0 = fn.mul(chunk, _CHUNK)
    stop = smin(fn, fn.add(k0, _CHUNK), whole)

    def pair(k: str | int, both: bool, count: int) -> None:
        """Pair k of `count` rows."""
        low = fn.gep("i16", src, fn.mul(k, 2 * x.k_stride))
        to = fn.gep("i32", dst, fn.mul(k, width))
        if x.j_stride == 1:
            for first in range(0, count, 16):
                _interleave(fn, low, x.k_stride, to, first, min(16, count - first), both)
            return
        with fn.loop(0, count, hint="j") as j:
            at = fn.gep("i16", low, fn.mul(j, x.j_stride))
            value = fn.val(f"zext i16 {fn.load('i16', at, 2)} to i32")
            if both:
                high = fn.load("i16", fn.gep("i16", at, x.k_stride), 2)
                high = fn.val(f"shl i32 {fn.val(f'zext i16 {high} to i32')}, 16")
                value = fn.val(f"or i32 {value}, {high}")
            fn.store("i32", value, fn.gep("i32", to, j), 4)

    def rows(count: int) -> None:
        with fn.loop(k0, stop, hint="k") as k:
            pair(k, True, count)
        if x.k % 2:
            with fn.when(fn.val(f"icmp sge i64 {fn.add(k0, _CHUNK)}, {pairs}")):
                pair(whole, False, count)

    tail, full = x.j % width, x.j // width
    if full:
        with fn.when(fn.val(f"icmp slt i64 {panel}, {full}")):
            rows(width)
    if tail:
        with fn.when(fn.val(f"icmp eq i64 {panel}, {full}")):
            rows(tail)
    fn.finish()
    module.light = True
    return prod(x.distinct) * panels * chunks


def _interleave(fn: Fn, low: str, apart: int, to: str, j: int, count: int, both: bool) -> None:
    """Elements j.. of a row and of the next one, in turn."""
    row = f"<{count} x i16>"
    a = fn.load(row, fn.gep("i16", low, j), 2)
    b = fn.load(row, fn.gep("i16", low, apart + j), 2) if both else "zeroinitializer"
    order = ", ".join(f"i32 {i}, i32 {count + i}" for i in range(count))
    value = fn.val(f"shufflevector {row} {a}, {row} {b}, <{2 * count} x i32> <{order}>")
    fn.store(f"<{2 * count} x i16>", value, fn.gep("i32", to, j), 4)
