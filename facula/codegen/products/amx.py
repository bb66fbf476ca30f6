"""bfloat16 products by tile registers (AMX: Intel's SDM volume 1, chapter 18, and TDPBF16PS).

A tile register holds up to 16 rows of 64 bytes.  One instruction takes 16 rows of A with 16 pairs
of neighbours along k, 16 rows of B of which each holds one pair of k for 16 columns, and adds all
their products to 16 x 16 float32 sums.  So this is the product in pairs (`products.pairs`)
with 16 pairs in a step of k, and a register tile of 2 x 2 tile registers of sums.  k is completed
with zeros to whole steps, which only copies can have: A is read as it lies where k is contiguous
and a multiple of 32.

How many rows and columns a tile register has is configured, so the last rows and columns of C are
computed without reading or writing anything beside them.  A kernel configures tiles for whole
register tiles and releases them at its end; a function for a smaller one configures its own and
puts back what it found.  Nothing else may use the tile registers in between.

The instruction takes denormal numbers for zeros and rounds each addition to nearest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

from facula.codegen.llvm import Fn, Module
from facula.codegen.products.brgemm import OperandPlace
from facula.codegen.products.contraction import Contraction
from facula.codegen.products.microkernel import Walked
from facula.codegen.products.pack import Source, transpose
from facula.codegen.products.pairs import Pairs, as_pairs
from facula.codegen.products.tiles import PARAMS, batch_offset, operand, smin, unravel
from facula.codegen.target import Target

__all__ = ["AmxTiles", "configure", "emit_copy", "release", "tile_function"]

ROWS = 16
"""Rows of a tile register, pairs of k in a row of one, and columns of sums in one."""

LEAST = 1 << 15
"""Products of fewer multiplications do not repay configuring the tiles."""

_CHUNK = 128
"""Pairs of k that a tile of a copying kernel has."""


# -- instructions
def configure(fn: Fn, rows: int, cols: int) -> None:
    """Shape the tile registers for a product of `rows` x `cols`: sums 0 to 3, A 4 and 5, B 6 and 7.

    Palette 1; one word of bytes a row and one byte of rows for each register (SDM 18.2).
    """
    high, wide = _parts(rows), _parts(cols)
    shapes = {2 * i + j: (h, 4 * w) for i, h in enumerate(high) for j, w in enumerate(wide)}
    shapes.update({4 + i: (h, 4 * ROWS) for i, h in enumerate(high)})
    shapes.update({6 + j: (ROWS, 4 * w) for j, w in enumerate(wide)})
    data = bytearray(64)
    data[0] = 1
    for register, (r, nbytes) in shapes.items():
        data[16 + 2 * register] = nbytes
        data[48 + register] = r
    text = "".join(f"\\{byte:02X}" for byte in data)
    name = fn.module.define(f"tiles_{rows}x{cols}",
                            f'private unnamed_addr constant [64 x i8] c"{text}", align 64')
    f = fn.module.declare("void @llvm.x86.ldtilecfg(ptr)")
    fn.do(f"call void {f}(ptr {name})")


def release(fn: Fn) -> None:
    """Put the tile registers into their initial state, which costs nothing to save and restore."""
    fn.do(f"call void {fn.module.declare('void @llvm.x86.tilerelease()')}()")


def _parts(n: int) -> list[int]:
    """`n` rows or columns in tile registers."""
    return [min(ROWS, n - first) for first in range(0, n, ROWS)]


def tile_function(module: Module, name: str, t: Target, size: tuple[int, int], a: Walked,
                  b: Walked, ld: int, around: tuple[int, int], table: str = "") -> str:
    """The function `name` of a register tile of `size` rows and columns; written once.

    (A, B, C, kc, first): C[rows, cols] (+)= A[rows, kc] B[kc, cols], kc counted in pairs and a
    multiple of 16.  A's rows of pairs are `a.inner` apart, its steps of one pair `a.k_step`, B's
    rows `b.k_step`, C's rows `ld`.  The tile registers are configured for `around` before and
    after; whole ones of `size` are among whole ones of `around`.  With `table`, an array of
    distances, 16 rows of B begin at each of them in turn.
    """
    if name in module.functions:
        return name
    rows, cols = size
    params = (("ptr", "a"), ("ptr", "b"), ("ptr", "c"), ("i64", "kc"), ("i1", "first"))
    fn = Fn(module, name, params, attrs=f"noinline {t.attributes}", inner=True)
    zero = module.declare("void @llvm.x86.tilezero(i8)")
    load = module.declare("void @llvm.x86.tileloadd64(i8, ptr, i64)")
    store = module.declare("void @llvm.x86.tilestored64(i8, ptr, i64)")
    product = module.declare("void @llvm.x86.tdpbf16ps(i8, i8, i8)")
    high, wide = range(len(_parts(rows))), range(len(_parts(cols)))
    sums = [(i, j, fn.gep("float", "%c", i * ROWS * ld + j * ROWS)) for i in high for j in wide]
    other = size != around and any(n % ROWS for n in (*size, *around))
    if other:
        configure(fn, rows, cols)
    afresh, again, go = (fn.new_label(x) for x in ("afresh", "again", "go"))
    fn.cbr("%first", afresh, again)
    fn.place(afresh)
    for i, j, _ in sums:
        fn.do(f"call void {zero}(i8 {2 * i + j})")
    fn.br(go)
    fn.place(again)
    for i, j, at in sums:
        fn.do(f"call void {load}(i8 {2 * i + j}, ptr {at}, i64 {4 * ld})")
    fn.br(go)
    fn.place(go)
    with fn.loop(0, "%kc", ROWS, "k", module.untouched()) as k:
        if table:
            at = fn.gep("i32", table, fn.val(f"lshr exact i64 {k}, {ROWS.bit_length() - 1}"))
            y = fn.gep("float", "%b", fn.val(f"sext i32 {fn.load('i32', at, 4)} to i64"))
        else:
            y = fn.gep("float", "%b", fn.mul(k, b.k_step))
        for j in wide:
            at = fn.gep("float", y, j * ROWS)
            fn.do(f"call void {load}(i8 {6 + j}, ptr {at}, i64 {4 * b.k_step})")
        x = fn.gep("float", "%a", fn.mul(k, a.k_step))
        for i in high:
            at = fn.gep("float", x, i * ROWS * a.inner)
            fn.do(f"call void {load}(i8 {4 + i}, ptr {at}, i64 {4 * a.inner})")
            for j in wide:
                fn.do(f"call void {product}(i8 {2 * i + j}, i8 {4 + i}, i8 {6 + j})")
    for i, j, at in sums:
        fn.do(f"call void {store}(i8 {2 * i + j}, ptr {at}, i64 {4 * ld})")
    if other:
        configure(fn, *around)
    fn.finish()
    return name


# -- the product
class AmxTiles(Pairs):
    """A product of bfloat16 matrices, summed in float32 by tile registers."""

    beside = False
    share = 8_000_000           # so many take as long as far fewer do on vectors
    whole_tile: tuple[int, int]

    @staticmethod
    def suits(c: Contraction, t: Target) -> bool:
        if c.dtype != "bfloat16" or not t.tiles:
            return False
        # of products whose size varies there is one kind of kernel for all sizes
        return bool(c.varies) or 0 < c.k and c.m * c.n * c.k >= LEAST

    def _register_sizes(self) -> None:
        c = self.c
        c = self.c = replace(c, k=-(-c.k // ROWS) * ROWS)
        self.nr = 2 * ROWS if c.n > ROWS else ROWS
        self.mr = 2 * ROWS if self.any_m else min(c.m, 2 * ROWS)
        # what a panel of B takes is to stay in the first cache beside rows of A
        room = self.t.l1_bytes // 2 // (self.nr * self.item)
        self.kc = self._blocks_of_k(room // ROWS * ROWS, ROWS)
        self.whole_tile = self.mr, min(self.nr, c.n)

    def _copied(self, which: int, source: Source, width: int, rows_ld: int = 0) -> OperandPlace:
        return self._pack(which, replace(source, k=self.c.k), width, rows_ld,
                          emit=lambda module, name:
                          emit_copy(module, name, source, width, self.t, rows_ld))

    def _place_a(self) -> OperandPlace:
        source = replace(self._source_a(), any_j=self.any_m)
        pairs = as_pairs(source)
        if pairs is None or pairs.k % ROWS or self._crowded(pairs):
            return self._copied(0, source, 2 * ROWS, self._apart(self.c.k))
        return self._in_place(pairs)

    def _place_b(self) -> OperandPlace:
        return self._copied(1, self._source_b(), self.nr)

    def _blocks(self, fn: Fn, a: OperandPlace, b: OperandPlace, pa: str, pb: str, pc: str, ld: int,
                m0: Any, n0: Any) -> None:
        configure(fn, *self.whole_tile)
        super()._blocks(fn, a, b, pa, pb, pc, ld, m0, n0)
        release(fn)

    def _micro(self, rows: int, cols: int, a: OperandPlace, b: OperandPlace, ld: int) -> str:
        return tile_function(self.module, f"{self.name}_micro_{rows}x{cols}", self.t,
                             (rows, cols), a, b, ld, self.whole_tile)


# -- copies of operands
def emit_copy(module: Module, name: str, x: Source, width: int, t: Target, rows_ld: int = 0) -> int:
    """Kernel `name` with operands (source, copy in pairs of k); returns its number of tiles.

    k is completed with zeros to a multiple of 16 pairs.  The copy is in panels [j // width][k // 2]
    [width][2], `width` a multiple of 16, or with `rows_ld` in rows [j][k // 2][2] of so many pairs.
    """
    fn = Fn(module, name, PARAMS, attrs=t.attributes)
    copy = _Copy(fn, x, width, rows_ld)
    panels, chunks = -(-x.j // width), -(-copy.padded // _CHUNK)
    src, dst = operand(fn, 0), operand(fn, 1)
    own = len(x.distinct)
    *batch, panel, chunk = unravel(fn, "%tile", (*x.distinct, panels, chunks), [own] * x.any_j)
    flat: str | int = 0
    for index, n in zip(batch, x.distinct, strict=True):
        flat = fn.add(fn.mul(flat, n), index)
    each = x.j * rows_ld if rows_ld else panels * width * copy.padded
    j0 = fn.mul(panel, width)
    copy.src = fn.gep("i16", src, fn.add(fn.add(batch_offset(fn, batch, x.batch_strides), x.offset),
                                         fn.mul(j0, x.j_stride)))
    copy.dst = fn.gep("i32", dst, fn.add(fn.mul(flat, each),
                                         fn.mul(j0, rows_ld or copy.padded)))
    copy.first = fn.mul(chunk, _CHUNK)
    if rows_ld and x.k_stride == 1:
        copy.rows(smin(fn, fn.val(f"sub i64 {x.j}, {j0}"), width))
    else:
        tail, full = x.j % width, x.j // width
        for count, test in ((width, f"icmp slt i64 {panel}, {full}"),
                            (tail, f"icmp eq i64 {panel}, {full}")):
            if count and (full or count == tail):
                with fn.when(fn.val(test)):
                    copy.emit(count)
    fn.finish()
    module.light = True
    return prod(x.distinct) * panels * chunks


class _Copy:
    """The code of one tile of a copying kernel: some rows j, and _CHUNK pairs of k from `first`."""

    src: str                    # element [0, 0] of what is copied
    dst: str                    # where it goes
    first: str | int

    def __init__(self, fn: Fn, x: Source, width: int, rows_ld: int):
        self.fn, self.x, self.width, self.rows_ld = fn, x, width, rows_ld
        self.padded = -(-x.k // (2 * ROWS)) * ROWS
        self.whole = x.k // (2 * ROWS) * ROWS       # pairs in blocks without zeros

    def _from(self, j: str | int, k: str | int) -> str:
        """Element [j, k] of the source."""
        fn, x = self.fn, self.x
        return fn.gep("i16", self.src, fn.add(fn.mul(j, x.j_stride), fn.mul(k, x.k_stride)))

    def _to(self, j: str | int, pair: str | int) -> str:
        """Where a pair goes."""
        fn = self.fn
        if self.rows_ld:
            return fn.gep("i32", self.dst, fn.add(fn.mul(j, self.rows_ld), pair))
        return fn.gep("i32", self.dst, fn.add(fn.mul(pair, self.width), j))

    def _steps(self, do: Callable[[str | int, int], None]) -> None:
        """`do(pair, elements)` for each block of 16 pairs; the last may have fewer elements."""
        fn, step = self.fn, 2 * ROWS
        stop = smin(fn, fn.add(self.first, _CHUNK), self.whole)
        if self.whole:
            with fn.loop(self.first, stop, ROWS, "k") as k:
                do(k, step)
        if self.x.k % step:
            with fn.when(self._last()):
                do(self.whole, self.x.k % step)

    def _last(self) -> str:
        return self.fn.val(f"icmp sge i64 {self.fn.add(self.first, _CHUNK)}, {self.padded}")

    def _line(self, at: str, count: int, total: int) -> str:
        """`count` of `total` elements, zeros after them."""
        fn = self.fn
        value = fn.load(f"<{count} x i16>", at, 2)
        if count == total:
            return value
        order = ", ".join(f"i32 {min(i, count)}" for i in range(total))
        return fn.val(f"shufflevector <{count} x i16> {value}, <{count} x i16> zeroinitializer, "
                      f"<{total} x i32> <{order}>")

    def _along_k(self, at: str, elements: int) -> str:
        """A row's next 16 pairs."""
        line = self._line(at, elements, 2 * ROWS)
        return self.fn.val(f"bitcast <{2 * ROWS} x i16> {line} to <{ROWS} x i32>")

    def _along_j(self, j: str | int, k: str | int, count: int, elements: int) -> str:
        """A pair k, k + 1 of `count` rows; of the two only so many `elements` are there."""
        if elements <= 0:
            return "zeroinitializer"
        fn = self.fn
        low = self._line(self._from(j, k), count, ROWS)
        high = self._line(self._from(j, fn.add(k, 1)), count, ROWS) if elements > 1 \
            else "zeroinitializer"
        order = ", ".join(f"i32 {i}, i32 {ROWS + i}" for i in range(ROWS))
        both = fn.val(f"shufflevector <{ROWS} x i16> {low}, <{ROWS} x i16> {high}, "
                      f"<{2 * ROWS} x i32> <{order}>")
        return fn.val(f"bitcast <{2 * ROWS} x i16> {both} to <{ROWS} x i32>")

    def rows(self, count: str | int) -> None:
        """Rows to rows, of any number."""
        fn = self.fn
        with fn.loop(0, count, hint="j") as j:
            self._steps(lambda pair, elements: fn.store(
                f"<{ROWS} x i32>", self._along_k(self._from(j, fn.mul(pair, 2)), elements),
                self._to(j, pair), 4))

    def emit(self, count: int) -> None:
        """Anything else, of `count` rows."""
        if self.x.j_stride == 1 and not self.rows_ld:
            self._across(count)
        elif 1 in (self.x.j_stride, self.x.k_stride):
            self._turned(count)
        else:
            self._one_by_one(count)

    def _across(self, count: int) -> None:
        """Two rows of a source in which j lies side by side, in turn, to a row of a panel."""
        fn, k = self.fn, self.x.k

        def pair(at: str | int, elements: int) -> None:
            for j in range(0, count, ROWS):
                value = self._along_j(j, fn.mul(at, 2), min(ROWS, count - j), elements)
                fn.store(f"<{ROWS} x i32>", value, self._to(j, at), 4)

        with fn.loop(self.first, smin(fn, fn.add(self.first, _CHUNK), k // 2), hint="k") as p:
            pair(p, 2)
        if k % (2 * ROWS):
            with fn.when(self._last()):
                if k % 2:
                    pair(k // 2, 1)
                with fn.loop(-(-k // 2), self.padded, hint="k") as p:
                    pair(p, 0)

    def _turned(self, count: int) -> None:
        """Blocks of 16 rows x 16 pairs of a source that lies across the copy."""
        fn = self.fn
        end = count // ROWS * ROWS
        if end:
            with fn.loop(0, end, ROWS, "j") as j:
                self._steps(lambda pair, elements: self._block(j, pair, ROWS, elements))
        if count % ROWS:
            self._steps(lambda pair, elements: self._block(end, pair, count % ROWS, elements))

    def _block(self, j: str | int, pair: str | int, count: int, elements: int) -> None:
        fn = self.fn
        k = fn.mul(pair, 2)
        if self.rows_ld:
            lines = [self._along_j(j, fn.add(k, 2 * p), count, elements - 2 * p)
                     for p in range(ROWS)]
        else:
            lines = [self._along_k(self._from(fn.add(j, r), k), elements) if r < count
                     else "zeroinitializer" for r in range(ROWS)]
        lines = transpose(fn, lines, "i32")
        for r, value in enumerate(lines[:count] if self.rows_ld else lines):
            at = self._to(fn.add(j, r), pair) if self.rows_ld else self._to(j, fn.add(pair, r))
            fn.store(f"<{ROWS} x i32>", value, at, 4)

    def _one_by_one(self, count: int) -> None:
        """Any strides."""
        fn, k = self.fn, self.x.k

        def element(j: str, at: str | int) -> str:
            return fn.val(f"zext i16 {fn.load('i16', self._from(j, at), 2)} to i32")

        with fn.loop(0, count, hint="j") as j:
            with fn.loop(self.first, smin(fn, fn.add(self.first, _CHUNK), k // 2), hint="k") as p:
                at = fn.mul(p, 2)
                high = fn.val(f"shl i32 {element(j, fn.add(at, 1))}, 16")
                fn.store("i32", fn.val(f"or i32 {element(j, at)}, {high}"), self._to(j, p), 4)
            if k % (2 * ROWS):
                with fn.when(self._last()):
                    if k % 2:
                        fn.store("i32", element(j, k - 1), self._to(j, k // 2), 4)
                    with fn.loop(-(-k // 2), self.padded, hint="k") as p:
                        fn.store("i32", "0", self._to(j, p), 4)
