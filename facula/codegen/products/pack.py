"""Operands of a contraction copied into the order in which a micro-kernel reads them.

Both operands are seen as X[j, k], with j the index that the result keeps.  16-bit floating
values become float32 on the way.

panels   [j // width][k][width]: what a micro-kernel reads at one k lies together
rows     [j][k] with a row length that keeps rows apart in the caches
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from facula.codegen.elements import half
from facula.codegen.llvm import Fn, Module
from facula.codegen.products.tiles import (
    PARAMS,
    batch_offset,
    memory_type,
    operand,
    unravel,
    wide_load,
)
from facula.codegen.target import Target

__all__ = ["Source", "emit_pack", "pack_panel", "transpose"]

_CHUNK = 256


@dataclass(frozen=True)
class Source:
    """X[batch..., j, k] in memory: element strides, and how many j and k there are.

    With `any_j` or `any_k` there may be more or fewer next time, and the code is to be the same.
    """

    dtype: str
    itemsize: int
    batch: tuple[int, ...]
    batch_strides: tuple[int, ...]
    j: int
    k: int
    j_stride: int
    k_stride: int
    offset: int = 0
    any_j: bool = False
    any_k: bool = False

    @property
    def distinct(self) -> tuple[int, ...]:
        """The batch with repeated dimensions (stride 0) shrunk to 1."""
        return tuple(n if s else 1 for n, s in zip(self.batch, self.batch_strides, strict=True))


def transpose(fn: Fn, rows: list[str], scalar: str) -> list[str]:
    """A square block, one vector a row, transposed by log2(lanes) rounds of perfect shuffles.

    One round interleaves row i with row i + lanes/2, which rotates the bits of (row, column)
    by one; after log2(lanes) rounds row and column have changed places.
    """
    lanes = len(rows)
    vector = f"<{lanes} x {scalar}>"
    picks = []
    for start in (0, lanes // 2):
        order = [x for i in range(start, start + lanes // 2) for x in (i, i + lanes)]
        picks.append(f"<{lanes} x i32> <" + ", ".join(f"i32 {x}" for x in order) + ">")
    for _ in range(lanes.bit_length() - 1):
        rows = [fn.val(f"shufflevector {vector} {rows[i]}, {vector} {rows[i + lanes // 2]}, "
                       f"{pick}") for i in range(lanes // 2) for pick in picks]
    return rows


def emit_pack(module: Module, name: str, x: Source, width: int, t: Target,
              rows_ld: int = 0) -> int:
    """Kernel `name` with operands (source, packed copy); returns its number of tiles.

    With `rows_ld` the copy is in rows of that length, in groups of `width` rows a tile.
    """
    kind = memory_type(x.dtype)
    scalar = "float" if x.dtype in ("float16", "bfloat16") else kind
    lanes = t.lanes(max(x.itemsize, 4))
    panels = -(-x.j // width)
    chunks = -(-x.k // _CHUNK)
    fn = Fn(module, name, PARAMS, attrs=t.attributes)
    src, dst = operand(fn, 0), operand(fn, 1)
    own = len(x.distinct)
    *batch, panel, chunk = unravel(fn, "%tile", (*x.distinct, panels, chunks),
                                   [own] * x.any_j + [own + 1] * x.any_k)
    src = fn.gep(kind, src, fn.add(batch_offset(fn, batch, x.batch_strides), x.offset))
    each = x.j * rows_ld if rows_ld else panels * width * x.k
    flat: str | int = 0
    for index, n in zip(batch, x.distinct, strict=True):
        flat = fn.add(fn.mul(flat, n), index)
    dst = fn.gep(scalar, dst, fn.mul(flat, each))
    j0, k0 = fn.mul(panel, width), fn.mul(chunk, _CHUNK)
    body = _Body(fn, x, kind, scalar, lanes, width, rows_ld, src, dst)
    tail = x.j % width
    whole = x.j // width
    if whole or x.any_j:
        if tail or x.any_j:
            with fn.when(fn.val(f"icmp slt i64 {panel}, {whole}")):
                body.emit(j0, k0, width)
        else:
            body.emit(j0, k0, width)
    if tail or x.any_j:
        with fn.when(fn.val(f"icmp eq i64 {panel}, {whole}")):
            if x.any_j and not rows_ld:
                body.one_by_one(j0, k0, tail)
            else:
                body.emit(j0, k0, tail)
    fn.finish()
    module.light = True
    return prod(x.distinct) * panels * chunks


def pack_panel(fn: Fn, x: Source, width: int, chunk: int, src: str, dst: str,
               j0: str | int, k0: str | int, count: int, t: Target) -> None:
    """X[j0 : j0 + count, k0 : k0 + chunk] as [k][width] at `dst`, within a kernel; 16-bit values
    as float32.

    `src` points to X[0, 0] of the batch at hand; `chunk` is a multiple of the lanes, or all of k,
    and `dst` has room for whole blocks of lanes x lanes.
    """
    kind = memory_type(x.dtype)
    scalar = "float" if x.itemsize == 2 else kind
    _Panel(fn, x, kind, scalar, t.lanes(max(x.itemsize, 4)), width, 0, src, dst, chunk, k0).emit(
        j0, k0, count)


@dataclass
class _Body:
    """The code of one tile: `count` rows from j0, at most `chunk` values of k from k0."""

    fn: Fn
    x: Source
    kind: str           # elements of the source
    scalar: str         # elements of the copy
    lanes: int
    width: int
    rows_ld: int
    src: str
    dst: str
    chunk: int = _CHUNK

    def _stop(self, k0: str | int, limit: int) -> str | int:
        """min(k0 + chunk, limit)"""
        end = self.fn.add(k0, self.chunk)
        if isinstance(end, int):
            return min(end, limit)
        f = self.fn.module.declare("i64 @llvm.smin.i64(i64, i64)")
        return self.fn.val(f"call i64 {f}(i64 {end}, i64 {limit})")

    def _from(self, j: str | int, k: str | int) -> str:
        fn, x = self.fn, self.x
        return fn.gep(self.kind, self.src,
                      fn.add(fn.mul(j, x.j_stride), fn.mul(k, x.k_stride)))

    def _to(self, j0: str | int, j: str | int, k: str | int) -> str:
        """Where X[j0 + j, k] goes."""
        fn = self.fn
        if self.rows_ld:
            return fn.gep(self.scalar, self.dst,
                          fn.add(fn.mul(fn.add(j0, j), self.rows_ld), k))
        offset = fn.add(fn.mul(j0, self.x.k), fn.mul(k, self.width))
        return fn.gep(self.scalar, self.dst, fn.add(offset, j))

    def emit(self, j0: str | int, k0: str | int, count: int) -> None:
        fn, x = self.fn, self.x
        if self.rows_ld and x.k_stride == 1:
            self._rows(j0, k0, count)
        elif (self.rows_ld or (x.j_stride != 1 and x.k_stride != 1)
              or self.scalar not in ("float", "double")):
            self.one_by_one(j0, k0, count)
        elif x.j_stride == 1:
            with fn.loop(k0, self._stop(k0, x.k), hint="k") as k:
                value = wide_load(fn, x.dtype, count, count, self._from(j0, k))
                fn.store(f"<{count} x {self.scalar}>", value, self._to(j0, 0, k), self.item)
        else:
            self._transposed(j0, k0, count)

    def one_by_one(self, j0: str | int, k0: str | int, count: int) -> None:
        """`emit`, for any strides and counts."""
        fn = self.fn
        with fn.loop(0, count, hint="j") as j, \
                fn.loop(k0, self._stop(k0, self.x.k), hint="k") as k:
            self._one(j0, j, k)

    def _rows(self, j0: str | int, k0: str | int, count: int) -> None:
        """Contiguous rows to contiguous rows."""
        fn, x, lanes = self.fn, self.x, self.lanes
        rest = x.k % lanes
        whole_end = self._stop(k0, x.k - rest)

        def copy(j: str, k: str | int, on: int) -> None:
            value = wide_load(fn, x.dtype, on, on, self._from(fn.add(j0, j), k))
            fn.store(f"<{on} x {self.scalar}>", value, self._to(j0, j, k), self.item)

        with fn.loop(0, count, hint="j") as j:
            with fn.loop(k0, whole_end, lanes, hint="k") as k:
                copy(j, k, lanes)
            if rest or x.any_k:
                last = fn.val(f"icmp sge i64 {fn.add(k0, self.chunk)}, {x.k}")
                with fn.when(last):
                    if x.any_k:
                        with fn.loop(x.k - rest, x.k, hint="k") as k:
                            self._one(j0, j, k)
                    else:
                        copy(j, x.k - rest, rest)

    def _one(self, j0: str | int, j: str, k: str) -> None:
        fn, x = self.fn, self.x
        # a complex number is aligned as its parts are
        align = x.itemsize // 2 if self.kind.startswith("<") else x.itemsize
        value = fn.load(self.kind, self._from(fn.add(j0, j), k), align)
        if self.scalar != self.kind:
            value = half.widen(fn, x.dtype, value)
        fn.store(self.scalar, value, self._to(j0, j, k), min(align, 4))

    @property
    def item(self) -> int:
        """Bytes of an element of the copy."""
        return max(self.x.itemsize, 4)

    def _transposed(self, j0: str | int, k0: str | int, count: int) -> None:
        """Blocks of lanes x lanes, the last ones cut."""
        fn, lanes = self.fn, self.lanes
        rest = self.x.k % lanes
        whole_end = self._stop(k0, self.x.k - rest)
        blocks = count // lanes
        if blocks:
            with fn.loop(0, blocks * lanes, lanes, hint="j") as j:
                with fn.loop(k0, whole_end, lanes, hint="k") as k:
                    self._block(j0, j, k, lanes, lanes)
        if count % lanes:
            with fn.loop(k0, whole_end, lanes, hint="k") as k:
                self._block(j0, blocks * lanes, k, count % lanes, lanes)
        if rest or self.x.any_k:
            last = self.x.k - rest
            at = fn.val(f"icmp sge i64 {fn.add(k0, self.chunk)}, {self.x.k}")
            with fn.when(at), fn.loop(0, count, hint="j") as j, \
                    fn.loop(last, self.x.k, hint="k") as k:
                self._one(j0, j, k)

    def _block(self, j0: str | int, j: str | int, k: str, js: int, ks: int) -> None:
        fn = self.fn
        vector = f"<{self.lanes} x {self.scalar}>"
        rows = [wide_load(fn, self.x.dtype, self.lanes, ks,
                          self._from(fn.add(fn.add(j0, j), r), k))
                if r < js else "zeroinitializer" for r in range(self.lanes)]
        if self.width % self.lanes == 0:
            js = self.lanes     # there is room for zeros after the last row
        cut = f"<{js} x {self.scalar}>"
        order = ", ".join(f"i32 {i}" for i in range(js))
        for r, value in enumerate(transpose(fn, rows, self.scalar)[:ks]):
            if js < self.lanes:
                value = fn.val(f"shufflevector {vector} {value}, {vector} poison, "
                               f"<{js} x i32> <{order}>")
            fn.store(cut, value, self._to(j0, j, fn.add(k, r)), self.item)


@dataclass
class _Panel(_Body):
    """One panel of one block of k, which begins at `dst`."""

    base: str | int = 0

    def _to(self, j0: str | int, j: str | int, k: str | int) -> str:
        fn = self.fn
        row = fn.mul(self._from_base(k), self.width)
        return fn.gep(self.scalar, self.dst, fn.add(row, j))

    def _from_base(self, k: str | int) -> str | int:
        if self.base == 0:
            return k
        if isinstance(k, int) and isinstance(self.base, int):
            return k - self.base
        return self.fn.val(f"sub i64 {k}, {self.base}")
