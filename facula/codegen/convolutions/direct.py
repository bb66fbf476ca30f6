"""What the kernels of convolutions are made of: source blocks, register tiles, turned tiles.

Nothing is unfolded.  A tile copies what it reads of its source once, with the zeros around it, into
a block that stays in the first caches; the micro-kernel then finds every operand row at a fixed
distance inside the block, and every step of its sum (a channel and a tap, or a place) through a
table of distances.  It is the batch-reduce product of `products.brgemm` with a table in place of a
stride.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from facula.codegen.convolutions.walks import Block
from facula.codegen.llvm import LLVM_TYPES, Fn, Module, float_literal
from facula.codegen.products.microkernel import multiply_add
from facula.codegen.products.pack import transpose as transpose_square
from facula.codegen.products.tiles import mask_literal, smin, sums_over_k
from facula.codegen.target import Target
from facula.dtype import DTYPES

__all__ = ["TileWriter"]


class TileWriter:
    """Writes pieces of one kernel's code, for elements of one dtype."""

    def __init__(self, module: Module, dtype: str, t: Target):
        self.module, self.t = module, t
        self.item = DTYPES[dtype].itemsize
        self.scalar = LLVM_TYPES[dtype]
        self.lanes = t.lanes(self.item)
        self.vector = f"<{self.lanes} x {self.scalar}>"
        self.source = self.scalar           # an element of what `copy_source` reads
        self.suffix = f"v{self.lanes}f{8 * self.item}"

    # -- tables
    def table(self, name: str, values: Sequence[int]) -> str:
        """A constant array of distances, by name."""
        text = ", ".join(f"i32 {v}" for v in values)
        return self.module.define(
            name, f"internal unnamed_addr constant [{len(values)} x i32] [{text}], align 64")

    # -- lines
    def copy(self, fn: Fn, source: str, to: str, count: Any) -> None:
        """`count` neighbouring elements; whole vectors of the source can be read."""
        vector, lanes = self.vector, self.lanes
        rest = count % lanes if isinstance(count, int) else \
            fn.val(f"and i64 {count}, {lanes - 1}")
        end = count - rest if isinstance(count, int) else fn.val(f"sub i64 {count}, {rest}")
        with fn.loop(0, end, lanes, "i") as i:
            fn.store(vector, fn.load(vector, fn.gep(self.scalar, source, i), self.item),
                     fn.gep(self.scalar, to, i), self.item)
        if rest == 0:
            return
        short = self._splat(fn, "i64", rest)
        each = "<" + ", ".join(f"i64 {i}" for i in range(lanes)) + ">"
        mask = fn.val(f"icmp slt <{lanes} x i64> {each}, {short}")
        value = fn.load(vector, fn.gep(self.scalar, source, end), self.item)
        f = fn.module.declare(f"void @llvm.masked.store.{self.suffix}.p0({vector}, ptr, i32, "
                              f"<{lanes} x i1>)")
        at = fn.val(f"getelementptr {self.scalar}, ptr {to}, i64 {end}")
        fn.do(f"call void {f}({vector} {value}, ptr {at}, i32 {self.item}, <{lanes} x i1> {mask})")

    def _splat(self, fn: Fn, type_: str, value: str | int) -> str:
        if isinstance(value, int):
            return "<" + ", ".join([f"{type_} {value}"] * self.lanes) + ">"
        one = fn.val(f"insertelement <{self.lanes} x {type_}> poison, {type_} {value}, i32 0")
        return fn.val(f"shufflevector <{self.lanes} x {type_}> {one}, <{self.lanes} x {type_}> "
                      f"poison, <{self.lanes} x i32> zeroinitializer")

    def some(self, fn: Fn, at: str, limit: str) -> str:
        """The first `limit` (an i64, of any size) elements at `at`, zeros after them."""
        return self._masked(fn, at, self.first(fn, limit))

    def first(self, fn: Fn, limit: str) -> str:
        """A mask of the first `limit` (an i64, of any size) lanes."""
        short = self._splat(fn, "i64", limit)
        lanes = "<" + ", ".join(f"i64 {i}" for i in range(self.lanes)) + ">"
        return fn.val(f"icmp slt <{self.lanes} x i64> {lanes}, {short}")

    def constant(self, value: float) -> str:
        """A vector of one number."""
        one = float_literal(value, self.scalar)
        return "<" + ", ".join([f"{self.scalar} {one}"] * self.lanes) + ">"

    def strided(self, fn: Fn, at: str, step: int, limit: str) -> str:
        """The first `limit` of a vector of elements that are `step` apart, zeros after them."""
        if step == 1:
            return self.some(fn, at, limit)
        lanes, short = self.lanes, self._splat(fn, "i64", limit)
        each = "<" + ", ".join(f"i64 {i}" for i in range(lanes)) + ">"
        far = "<" + ", ".join(f"i64 {i * step}" for i in range(lanes)) + ">"
        mask = fn.val(f"icmp slt <{lanes} x i64> {each}, {short}")
        places = fn.val(f"getelementptr {self.scalar}, ptr {at}, <{lanes} x i64> {far}")
        return self._gather(fn, places, mask)

    def lines(self, fn: Fn, at: str, apart: int, length: int, limit: str | None) -> list[str]:
        """Element t of as many lines as there are lanes, for every t < length: `length` vectors.

        Lines are `apart` elements apart, and from `limit` on (an i64) zeros.  They are read as
        they lie and turned in registers, in place of a gathered vector for each t.
        """
        rows = []
        on = mask_literal(self.lanes, length)
        for i in range(self.lanes):
            line = fn.val(f"getelementptr {self.scalar}, ptr {at}, i64 {i * apart}")
            mask = on
            if limit is not None:
                there = fn.val(f"icmp slt i64 {i}, {limit}")
                mask = fn.val(f"select i1 {there}, <{self.lanes} x i1> {on}, "
                              f"<{self.lanes} x i1> zeroinitializer")
            rows.append(self._masked(fn, line, mask))
        return transpose_square(fn, rows, self.scalar)[:length]

    def _masked(self, fn: Fn, at: str, mask: str) -> str:
        """The elements at `at` that `mask` says, zeros for the others."""
        f = fn.module.declare(f"{self.vector} @llvm.masked.load.{self.suffix}.p0(ptr, i32, "
                              f"<{self.lanes} x i1>, {self.vector})")
        return fn.val(f"call {self.vector} {f}(ptr {at}, i32 {self.item}, <{self.lanes} x i1> "
                      f"{mask}, {self.vector} zeroinitializer)")

    def _gather(self, fn: Fn, places: str, mask: str) -> str:
        kinds = f"<{self.lanes} x ptr>", f"<{self.lanes} x i1>"
        f = fn.module.declare(f"{self.vector} @llvm.masked.gather.{self.suffix}.v{self.lanes}p0("
                              f"{kinds[0]}, i32, {kinds[1]}, {self.vector})")
        return fn.val(f"call {self.vector} {f}({kinds[0]} {places}, i32 {self.item}, {kinds[1]} "
                      f"{mask}, {self.vector} zeroinitializer)")

    def transposed(self, fn: Fn, rows: list[str]) -> list[str]:
        """A square block of vectors, turned."""
        return transpose_square(fn, rows, self.scalar)

    def line(self, fn: Fn, source: str, start: str | int, apart: int, step: int, size: str | int,
             count: int, to: str) -> None:
        """Elements start, start + apart, ... of a line of `size` elements, zeros for those outside.

        Neighbours of the line are `step` elements apart in memory.  Writes whole vectors.
        """
        limit = self._splat(fn, "i32", size if isinstance(size, int)
                            else fn.val(f"trunc i64 {size} to i32"))

        def masked(first: str | int, apart: int) -> str:
            """Which of the positions first, first + apart, ... are inside."""
            short = first if isinstance(first, int) else fn.val(f"trunc i64 {first} to i32")
            each = "<" + ", ".join(f"i32 {i * apart}" for i in range(self.lanes)) + ">"
            where = fn.val(f"add <{self.lanes} x i32> {self._splat(fn, 'i32', short)}, {each}")
            return fn.val(f"icmp ult <{self.lanes} x i32> {where}, {limit}")

        def neighbours(first: str | int) -> str:
            base = fn.val(f"getelementptr {self.scalar}, ptr {source}, i64 {first}")
            return self._masked(fn, base, masked(first, 1))

        def some(at: str | int) -> None:
            first = fn.add(start, fn.mul(at, apart))
            if apart * step == 1:
                value = neighbours(first)
            elif apart == 2 and step == 1:      # every second one of two vectors
                pair = [neighbours(fn.add(first, k)) for k in (0, self.lanes)]
                order = ", ".join(f"i32 {2 * i}" for i in range(self.lanes))
                value = fn.val(f"shufflevector {self.vector} {pair[0]}, {self.vector} {pair[1]}, "
                               f"<{self.lanes} x i32> <{order}>")
            else:
                base = fn.val(f"getelementptr {self.scalar}, ptr {source}, "
                              f"i64 {fn.mul(first, step)}")
                far = "<" + ", ".join(f"i64 {i * apart * step}" for i in range(self.lanes)) + ">"
                places = fn.val(f"getelementptr {self.scalar}, ptr {base}, "
                                f"<{self.lanes} x i64> {far}")
                value = self._gather(fn, places, masked(first, apart))
            fn.store(self.vector, value, fn.gep(self.scalar, to, at), self.item)

        if count <= self.lanes:
            some(0)
        else:
            with fn.loop(0, count, self.lanes, "r") as r:
                some(r)

    def each_place(self, fn: Fn, block: Block, first: Sequence[Any], strides: Sequence[int],
                   width: int, depth: int, source: str, to: str,
                   inner: Callable[[str, str, str | None], None]) -> None:
        """Loops over the first `depth` dimensions of what a block reads of one image.

        `first` are the places where it begins, `strides` those of the source's places; copies are
        `width` elements wide.  `inner(source, to, inside)` is written in the innermost; `inside`
        says whether the place is one of the source, None without any loop.
        """
        steps = block.extent_strides

        def dimension(d: int, from_: str, at: str, inside: str | None) -> None:
            if d == depth:
                inner(from_, at, inside)
                return
            walk = block.walks[d]
            with fn.loop(0, block.extents[d + 1], hint="h") as h:
                place = fn.add(first[d], fn.mul(h, walk.pitch))
                good = fn.val(f"icmp ult i64 {place}, {walk.source}")
                if inside is not None:
                    good = fn.val(f"and i1 {good}, {inside}")
                # the address of a place outside is never used
                dimension(d + 1, fn.val(f"getelementptr {self.source}, ptr {from_}, "
                                        f"i64 {fn.mul(place, strides[d])}"),
                          fn.gep(self.scalar, at, fn.mul(h, steps[d + 1] * width)), good)

        dimension(0, source, to, None)

    def copy_source(self, fn: Fn, block: Block, source: str, strides: Sequence[int],
                    channel_stride: int, channels: str | int, starts: Sequence[str | int],
                    images: str | int, to: str, each: int = 0,
                    write: Callable[[Any, Any, str, Any, Any, str], None] | None = None) -> None:
        """What a block reads of its source: `[channels, images, *extents]`, zeros around it.

        `strides` are those of images and places, `starts` the block's first outputs; `each` is
        how far channels are to be apart, where that is more than they need.  In place of `line`
        write(channel, image, source, start, size, to) may write the lines.
        """
        extents, steps = block.extents, block.extent_strides
        each = each or prod(extents)
        last = len(block.walks) - 1
        first = [fn.add(w.start + w.lowest, fn.mul(s, w.step))
                 for w, s in zip(block.walks, starts[1:], strict=True)]

        def one_line(c: str, n: Any, from_: str, at: str, inside: str | None) -> None:
            size: str | int = block.walks[last].source
            if inside is not None:
                size = fn.val(f"select i1 {inside}, i64 {size}, i64 0")
            if write is not None:
                write(c, n, from_, first[last], size, at)
                return
            self.line(fn, from_, first[last], block.walks[last].pitch, strides[last + 1], size,
                      extents[last + 1], at)

        def image(c: str, n: Any, from_: str, at: str) -> None:
            self.each_place(fn, block, first, strides[1:], 1, last, from_, at,
                            lambda *line: one_line(c, n, *line))

        with fn.loop(0, channels, hint="c") as c:
            one = fn.gep(self.source, source, fn.mul(c, channel_stride))
            there = fn.gep(self.scalar, to, fn.mul(c, each))
            if block.size[0] == 1:
                image(c, 0, fn.gep(self.source, one, fn.mul(starts[0], strides[0])), there)
            else:
                with fn.loop(0, images, hint="n") as n:
                    image(c, n, fn.gep(self.source, one, fn.mul(fn.add(starts[0], n), strides[0])),
                          fn.gep(self.scalar, there, fn.mul(n, steps[0])))

    def room(self, block: Block, channels: int) -> int:
        """Elements that `copy_source` may write: whole vectors at the end of a line, too."""
        return channels * prod(block.extents) + self.lanes

    # -- register tiles
    def micro(self, name: str, rows: Sequence[int], vectors: int, places: Sequence[int],
              table: str, v_step: int, lanewise: bool = False, apart: int = 0, ahead: int = 0,
              early: int = 0, soon: Sequence[str] = ()) -> str:
        """The function of a register tile, written once.

        (X, V, C, kc, first): C[rows, vectors] (+)= sum over k < kc of X[rows, k] V[k, vectors].
        Row i of X begins at rows[i], its element k is table[k] further; row i of C is at
        places[i], its vectors `apart` (side by side if that is 0).  With `lanewise` X holds vectors
        as well, and lanes do not mix.  With `ahead` one more operand follows, memory that is soon
        to be read: so many bytes of it are asked for with each k.  With `early` the rows of X are
        asked for so many steps before they are read; the table is as much longer.  For each of the
        tables `soon` one more operand follows: with each k its place there is asked for.
        """
        if name in self.module.functions:
            return name
        params = [("ptr", "x"), ("ptr", "v"), ("ptr", "c"), ("i64", "kc"), ("i1", "first")]
        if ahead:
            params.append(("ptr", "ahead"))
        params += [("ptr", f"soon{k}") for k in range(len(soon))]
        fn = Fn(self.module, name, params, attrs=f"noinline {self.t.attributes}",
                inner=True)
        vector, scalar, lanes = self.vector, self.scalar, self.lanes
        tile = [(i, j) for i in range(len(rows)) for j in range(vectors)]
        at = {(i, j): places[i] + j * (apart or lanes) for i, j in tile}

        def before(ij: tuple[int, int]) -> str:
            return fn.load(vector, fn.gep(scalar, "%c", at[ij]), self.item)

        with sums_over_k(fn, vector, tile, before) as (sums, nexts):
            distance = fn.val(f"sext i32 {fn.load('i32', fn.gep('i32', table, '%k'), 4)} to i64")
            x = fn.gep(scalar, "%x", distance)
            v = fn.gep(scalar, "%v", fn.mul("%k", v_step))
            if ahead:
                self.ask(fn, fn.gep("i8", "%ahead", fn.mul("%k", ahead)), ahead)
            if early:
                later = fn.gep("i32", table, fn.add("%k", early))
                later = fn.val(f"sext i32 {fn.load('i32', later, 4)} to i64")
                for row in self._lines_of(rows):    # where nothing need be
                    self.ask(fn, fn.val(f"getelementptr {scalar}, ptr %x, i64 "
                                        f"{fn.add(later, row)}"), 1)
            for k, far in enumerate(soon):
                later = fn.val(f"sext i32 {fn.load('i32', fn.gep('i32', far, '%k'), 4)} to i64")
                self.ask(fn, fn.val(f"getelementptr {scalar}, ptr %soon{k}, i64 {later}"), 1)
            columns = [fn.load(vector, fn.gep(scalar, v, j * lanes), self.item)
                       for j in range(vectors)]
            for i, row in enumerate(rows):
                if lanewise:
                    wides = [fn.load(vector, fn.gep(scalar, x, row + j * lanes), self.item)
                             for j in range(vectors)]
                else:
                    one = fn.load(scalar, fn.gep(scalar, x, row), self.item)
                    wides = [self._splat(fn, scalar, one)] * vectors
                for j in range(vectors):
                    self.multiply_add(fn, wides[j], columns[j], sums[i, j], nexts[i, j])
        for ij in tile:
            fn.store(vector, sums[ij], fn.gep(scalar, "%c", at[ij]), self.item)
        fn.finish()
        return name

    def _lines_of(self, rows: Sequence[int]) -> list[int]:
        """Some of `rows`, so that no line of the cache that has one of all is without one."""
        found: list[int] = []
        for row in sorted(rows):
            if not found or row >= found[-1] + 64 // self.item:
                found.append(row)
        return sorted({*found, max(rows)})
    def multiply_add(self, fn: Fn, x: str, y: str, total: str, into: str) -> None:
        """into = x * y + total"""
        multiply_add(self.t, self.lanes, self.scalar)(fn, x, y, total, into)

    def ask(self, fn: Fn, at: str, size: int) -> None:
        """Ask for some bytes of memory that are soon to be read."""
        f = fn.module.declare("void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        for line in range(0, size, 64):
            fn.do(f"call void {f}(ptr {fn.gep('i8', at, line)}, i32 0, i32 2, i32 1)")

    def turn(self, fn: Fn, source: str, source_ld: int, to: str, to_ld: int, rows: str | int,
             columns: int) -> None:
        """to[j, i] = source[i, j], in whole squares of vectors: both have room for them."""
        lanes = self.lanes
        name = f"{fn.name}_turn_{source_ld}_{to_ld}"
        if name not in self.module.functions:
            params = (("ptr", "from"), ("ptr", "to"))
            square = Fn(self.module, name, params, attrs=f"noinline {self.t.attributes}",
                        inner=True)
            values = [square.load(self.vector, square.gep(self.scalar, "%from", k * source_ld),
                                  self.item) for k in range(lanes)]
            for k, value in enumerate(transpose_square(square, values, self.scalar)):
                square.store(self.vector, value, square.gep(self.scalar, "%to", k * to_ld),
                             self.item)
            square.finish()
        with fn.loop(0, rows, lanes, "i") as i, fn.loop(0, columns, lanes, "j") as j:
            at = fn.gep(self.scalar, source, fn.add(fn.mul(i, source_ld), j))
            there = fn.gep(self.scalar, to, fn.add(fn.mul(j, to_ld), i))
            fn.do(f"call void @{name}(ptr {at}, ptr {there})")

    def over_block(self, fn: Fn, block: Block, starts: Sequence[str | int], work: Any) -> None:
        """Calls work(rect, firsts) in loops over the register tiles of a block.

        `firsts` are the positions inside the block; parts at the ends have rectangles of their
        own.
        """
        rank = len(block.counts)

        def nest(d: int, rect: list[int], firsts: list[str | int]) -> None:
            if d == rank:
                work(tuple(rect), tuple(firsts))
                return
            n, b, u = block.counts[d], block.size[d], block.micro[d]
            if u == b:
                if d == block.split and n % b:      # a last block that is smaller
                    last = n - n % b
                    whole = fn.val(f"icmp slt i64 {starts[d]}, {last}")
                    with fn.when(whole):
                        nest(d + 1, [*rect, u], [*firsts, 0])
                    with fn.when(fn.val(f"xor i1 {whole}, true")):
                        nest(d + 1, [*rect, n % b], [*firsts, 0])
                else:
                    nest(d + 1, [*rect, u], [*firsts, 0])
                return
            rest = n % u
            if d == block.split:
                left = fn.val(f"sub i64 {n - rest}, {starts[d]}")
                end = smin(fn, left, b)
            else:
                end = n - rest
            with fn.loop(0, end, u, "u") as i:
                nest(d + 1, [*rect, u], [*firsts, i])
            if rest and d == block.split:
                past = fn.val(f"icmp sge i64 {fn.add(starts[d], b)}, {n}")
                with fn.when(past):
                    nest(d + 1, [*rect, rest], [*firsts, left])
            elif rest:
                nest(d + 1, [*rect, rest], [*firsts, n - rest])

        nest(0, [], [])
