"""Convolutions of bfloat16 tensors by the instruction that multiplies and adds pairs.

A lane of 32 bits holds two neighbouring input channels, of a place of the source or of a tap of the
weight (see `facula.codegen.pairs`).  So this is the convolution of float32 over half as many
channels, whose elements are pairs: blocks of the source become pairs as they are copied, the weight
as it is packed, and sums, the turning of tiles and what follows them are those of float32.  An odd
channel at the end is completed with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from facula.codegen.contract import Kernel
from facula.codegen.convolve import Forward
from facula.codegen.direct import Tiles
from facula.codegen.lanewise import suits
from facula.codegen.llvm import Fn, Module
from facula.codegen.microkernel import multiply_pairs
from facula.codegen.pack import Source, emit_pack, transpose
from facula.codegen.pairs import as_pairs, emit_pairs
from facula.codegen.target import Target, target
from facula.codegen.tiles import PARAMS, operand, smin, unravel
from facula.codegen.walks import Block

if TYPE_CHECKING:
    from facula.codegen.convolve import Emitted

__all__ = ["PairForward", "PairTiles", "worth_pairs"]


def worth_pairs(kind: str, w: Sequence[int], groups: int) -> bool:
    """Whether a convolution (or its gradient by the input) with a weight of this shape is faster in
    pairs of channels than in float32."""
    if not target().pairs or kind not in ("conv", "conv_input"):
        return False
    out, red = w[0] // groups, w[1]
    if kind == "conv_input":
        out, red = red, out
    return red > 1 and not suits(groups, out, red, target().lanes(4))


class PairTiles(Tiles):
    """Pieces of a kernel whose elements are pairs of bfloat16; they come of a source of `i16`."""

    def __init__(self, module: Module, t: Target):
        super().__init__(module, "float32", t)
        self.source = "i16"

    def multiply_add(self, fn: Fn, x: str, y: str, total: str, into: str) -> None:
        multiply_pairs(fn, self.lanes, x, y, total, into)

    def copy_pairs(self, fn: Fn, block: Block, source: str, strides: Sequence[int], channel: int,
                   first: Any, count: Any, whole: int | None, starts: Sequence[Any], images: Any,
                   to: str) -> None:
        """As `copy_source`, of `count` pairs of channels from pair `first` on, where `source` is.

        Channels are `channel` apart; of pairs from `whole` on only the first one is there.
        """
        walk = block.walks[-1]

        def line(c: Any, from_: str, start: Any, size: Any, at: str) -> None:
            second = size
            if whole is not None:
                there = fn.val(f"icmp slt i64 {fn.add(first, c)}, {whole}")
                second = fn.val(f"select i1 {there}, i64 {size}, i64 0")
            self._line_of_pairs(fn, from_, channel, start, walk.pitch, strides[-1], (size, second),
                                block.extents[-1], at)

        self.copy_source(fn, block, source, strides, 2 * channel, count, starts, images, to,
                         write=line)

    def _line_of_pairs(self, fn: Fn, source: str, channel: int, start: Any, apart: int, step: int,
                       sizes: tuple[Any, Any], count: int, to: str) -> None:
        """Pairs start, start + apart, ... of two lines of `sizes` elements, `channel` apart; zeros
        for those outside.  Writes whole vectors."""
        lanes = self.lanes
        if step != 1 or apart > 2:
            self._one_by_one(fn, source, channel, start, apart, step, sizes, count, to)
            return
        wide = lanes * apart

        def inside(first: Any, size: Any) -> str:
            """Which of `wide` neighbouring positions from `first` on are inside."""
            each = "<" + ", ".join(f"i32 {i}" for i in range(wide)) + ">"
            place = fn.val(f"add <{wide} x i32> {self._spread(fn, first, wide)}, {each}")
            return fn.val(f"icmp ult <{wide} x i32> {place}, {self._spread(fn, size, wide)}")

        def some(at: Any) -> None:
            first = fn.add(start, fn.mul(at, apart))
            masks = [inside(first, size) for size in dict.fromkeys(sizes)]
            base = fn.val(f"getelementptr i16, ptr {source}, i64 {first}")
            next_ = fn.val(f"getelementptr i16, ptr {base}, i64 {channel}")
            low, high = self.halves(fn, base, masks[0], wide), self.halves(fn, next_, masks[-1],
                                                                           wide)
            if apart == 1:
                value = self.words(fn, low, high)
            else:               # every second one: the lower half of a word
                kind = f"<{lanes} x i32>"
                low, high = (fn.val(f"bitcast <{wide} x i16> {v} to {kind}") for v in (low, high))
                low = fn.val(f"and {kind} {low}, {_same('i32', 0xFFFF, lanes)}")
                high = fn.val(f"shl {kind} {high}, {_same('i32', 16, lanes)}")
                value = fn.val(f"or {kind} {low}, {high}")
            fn.store(f"<{lanes} x i32>", value, fn.gep("i32", to, at), 4)

        if count <= lanes:
            some(0)
        else:
            with fn.loop(0, count, lanes, "r") as r:
                some(r)

    def _one_by_one(self, fn: Fn, source: str, channel: int, start: Any, apart: int, step: int,
                    sizes: tuple[Any, Any], count: int, to: str) -> None:
        zeros = "KERNEL_zero"
        fn.module.globals[zeros] = f"@{zeros} = internal unnamed_addr constant i16 0"
        with fn.loop(0, count, hint="r") as r:
            place = fn.add(start, fn.mul(r, apart))
            at = fn.val(f"getelementptr i16, ptr {source}, i64 {fn.mul(place, step)}")
            halves = []
            for size, far in zip(sizes, (0, channel), strict=True):
                inside = fn.val(f"icmp ult i64 {place}, {size}")
                there = fn.val(f"getelementptr i16, ptr {at}, i64 {far}")
                there = fn.val(f"select i1 {inside}, ptr {there}, ptr @{zeros}")
                halves.append(fn.val(f"zext i16 {fn.load('i16', there, 2)} to i32"))
            value = fn.val(f"or i32 {halves[0]}, {fn.val(f'shl i32 {halves[1]}, 16')}")
            fn.store("i32", value, fn.gep("i32", to, r), 4)

    def _spread(self, fn: Fn, value: Any, count: int) -> str:
        """A vector of one i64, as i32."""
        if isinstance(value, int):
            return _same("i32", value, count)
        short = fn.val(f"trunc i64 {value} to i32")
        one = fn.val(f"insertelement <{count} x i32> poison, i32 {short}, i32 0")
        return fn.val(f"shufflevector <{count} x i32> {one}, <{count} x i32> poison, "
                      f"<{count} x i32> zeroinitializer")

    def halves(self, fn: Fn, at: str, mask: str, count: int) -> str:
        """The elements at `at` that `mask` says, zeros for the others."""
        kind = f"<{count} x i16>"
        f = fn.module.declare(f"{kind} @llvm.masked.load.v{count}i16.p0(ptr, i32, <{count} x i1>, "
                              f"{kind})")
        return fn.val(f"call {kind} {f}(ptr {at}, i32 2, <{count} x i1> {mask}, {kind} "
                      "zeroinitializer)")

    def words(self, fn: Fn, low: str, high: str) -> str:
        """A vector of pairs, of two of halves."""
        kind, half = f"<{self.lanes} x i32>", f"<{self.lanes} x i16>"
        low, high = (fn.val(f"zext {half} {v} to {kind}") for v in (low, high))
        high = fn.val(f"shl {kind} {high}, {_same('i32', 16, self.lanes)}")
        return fn.val(f"or {kind} {low}, {high}")


def _same(kind: str, value: int, count: int) -> str:
    return "<" + ", ".join([f"{kind} {value}"] * count) + ">"


class PairForward(Forward):
    """conv, or conv_input for the outputs of one remainder in every dimension, of bfloat16.

    `red` is the number of pairs, `whole` that of input channels.
    """

    tiles: PairTiles

    def _tiles(self, module: Module) -> PairTiles:
        return PairTiles(module, self.t)

    def _begin(self, fn: Fn, source: str, g: Any) -> str:
        a = self.c.a
        return fn.gep("i16", source, fn.add(fn.mul(g, self.whole * a.strides[1]), a.offset))

    def _copy(self, fn: Fn, source: str, c0: Any, count: Any, starts: list[Any], images: Any,
              cache: str) -> None:
        image, channel, *places = self.c.a.strides
        at = fn.gep("i16", source, fn.mul(c0, 2 * channel))
        self.tiles.copy_pairs(fn, self.block, at, [image, *places], channel, c0, count,
                              self.whole // 2 if self.whole % 2 else None, starts, images, cache)

    # -- the weight
    def _packed(self, out: Emitted) -> str:
        """The weight as [group, panel, pair of input channels, tap, nr, 2]; the name of that
        memory."""
        c, tmp = self.c, f"tmp{len(out.temporaries)}"
        k = self.red * self.taps
        out.temporaries.append((tmp, c.groups * self.panels * k * self.nr * 4))
        module, name = Module(), "KERNEL"
        if prod(c.w[2:]) == 1:
            source = Source("bfloat16", 2, (c.groups,), (self.group_stride,), self.out, self.whole,
                            self.out_stride, self.red_stride, c.b.offset)
            pairs = as_pairs(source)
            count = emit_pairs(module, name, source, self.nr, self.t) if pairs is None else \
                emit_pack(module, name, pairs, self.nr, self.t)
        else:
            count = self._pack(module, name)
        cost = 10.0 * self.whole * self.taps * self.out * c.groups / max(c.flops, 1.0)
        out.packing.append(Kernel(name, ("b", tmp), count, module, cost))
        return tmp

    def _pack(self, module: Module, name: str) -> int:
        c = self.c
        module.light = True
        fn = Fn(module, name, PARAMS, attrs=self.t.attributes)
        src, dst = operand(fn, 0), operand(fn, 1)
        chunk = max(4096 // (self.taps * self.nr), 1)
        chunks = -(-self.red // chunk)
        g, panel, part = unravel(fn, "%tile", (c.groups, self.panels, chunks))
        first = fn.mul(part, chunk)
        last = smin(fn, fn.add(first, chunk), self.red)
        column = fn.mul(panel, self.nr)
        src = fn.gep("i16", src, fn.add(fn.add(fn.mul(g, self.group_stride), c.b.offset),
                                        fn.mul(column, self.out_stride)))
        row = fn.mul(fn.add(fn.mul(g, self.panels), panel), self.red)
        dst = fn.gep("i32", dst, fn.mul(row, self.taps * self.nr))
        count = smin(fn, fn.val(f"sub i64 {self.out}, {column}"), self.nr) \
            if self.panels > 1 else self.out
        with fn.loop(first, last, hint="r") as r:
            from_ = fn.gep("i16", src, fn.mul(r, 2 * self.red_stride))
            to = fn.gep("i32", dst, fn.mul(r, self.taps * self.nr))
            both = fn.val(f"icmp slt i64 {r}, {self.whole // 2}") if self.whole % 2 else None
            if self.tap_strides == [prod(c.w[k + 3:]) for k in range(len(self.walks))]:
                self._kernels(fn, from_, to, count, both)
            else:
                self._elements(fn, from_, to, count, both)
        fn.finish()
        return c.groups * self.panels * chunks

    def _kernels(self, fn: Fn, from_: str, to: str, count: Any, both: str | None) -> None:
        """A pair of channels of kernels whose taps lie together: read as they lie, and turned."""
        tiles, lanes = self._tiles(fn.module), self.tiles.lanes
        total = prod(self.c.w[2:])
        with fn.loop(0, count, lanes, hint="j") as j:
            left = fn.val(f"sub i64 {count}, {j}") if self.out % lanes else None
            at = fn.gep("i16", from_, fn.mul(j, self.out_stride))
            for base in range(0, total, lanes):
                wanted = [(n, tap - base) for n, tap in enumerate(self._taps())
                          if base <= tap < base + lanes]
                if not wanted:
                    continue
                found = self._lines(fn, tiles, fn.gep("i16", at, base), min(lanes, total - base),
                                    left, both)
                for n, tap in wanted:
                    fn.store(f"<{lanes} x i32>", found[tap],
                             fn.gep("i32", to, fn.add(j, n * self.nr)), 4)

    def _lines(self, fn: Fn, tiles: PairTiles, at: str, length: int, left: str | None,
               both: str | None) -> list[str]:
        """Vectors of the pairs at each of `length` taps, one lane an output channel; zeros from
        the channel `left` on."""
        lanes = tiles.lanes
        mask = f"<{lanes} x i1>"
        on = "<" + ", ".join(f"i1 {'true' if i < length else 'false'}" for i in range(lanes)) + ">"

        def where(condition: str, have: str) -> str:
            return fn.val(f"select i1 {condition}, {mask} {have}, {mask} zeroinitializer")

        rows = []
        for i in range(lanes):
            low = on if left is None else where(fn.val(f"icmp slt i64 {i}, {left}"), on)
            high = low if both is None else where(both, low)
            line = fn.val(f"getelementptr i16, ptr {at}, i64 {i * self.out_stride}")
            next_ = fn.val(f"getelementptr i16, ptr {line}, i64 {self.red_stride}")
            rows.append(tiles.words(fn, tiles.halves(fn, line, low, lanes),
                                    tiles.halves(fn, next_, high, lanes)))
        return transpose(fn, rows, "i32")

    def _elements(self, fn: Fn, from_: str, to: str, count: Any, both: str | None) -> None:
        """The same for kernels in any order, one pair after the other."""
        for n, tap in enumerate(self._taps()):
            with fn.loop(0, count, hint="j") as j:
                at = fn.gep("i16", from_, fn.add(fn.mul(j, self.out_stride), tap))
                value = fn.val(f"zext i16 {fn.load('i16', at, 2)} to i32")
                next_ = fn.gep("i16", at, self.red_stride)
                if both is not None:
                    next_ = fn.val(f"select i1 {both}, ptr {next_}, ptr {at}")
                high = fn.val(f"zext i16 {fn.load('i16', next_, 2)} to i32")
                high = fn.val(f"shl i32 {high}, 16")
                if both is not None:
                    high = fn.val(f"select i1 {both}, i32 {high}, i32 0")
                fn.store("i32", fn.val(f"or i32 {value}, {high}"),
                         fn.gep("i32", to, fn.add(j, n * self.nr)), 4)
