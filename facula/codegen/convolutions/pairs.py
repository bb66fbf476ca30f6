"""Convolutions of bfloat16 tensors by the instruction that multiplies and adds pairs.

A lane of 32 bits holds two neighbouring input channels, of a place of the source or of a tap of the
weight (see `products.pairs`).  So this is the convolution of float32 over half as many
channels, whose elements are pairs: blocks of the source become pairs as they are copied, the weight
as it is packed, and sums, the turning of tiles and what follows them are those of float32.  In the
gradient by the weight, which is a sum over images, two images are a pair.  An odd channel at the
end, or an odd image, is completed with zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from facula.codegen.convolutions.convolution import Emitted
from facula.codegen.convolutions.direct import TileWriter
from facula.codegen.convolutions.forward import Forward
from facula.codegen.convolutions.lanewise import suits
from facula.codegen.convolutions.walks import Block, grow, reached
from facula.codegen.convolutions.weight import Weight, WeightSizes
from facula.codegen.kernel import KernelDraft
from facula.codegen.llvm import Fn, Module
from facula.codegen.products.microkernel import multiply_pairs
from facula.codegen.products.pack import Source, pack_panel, transpose
from facula.codegen.products.pairs import as_pairs
from facula.codegen.products.tiles import PARAMS, operand, smin, unravel
from facula.codegen.target import Target, target

__all__ = ["PairForward", "PairTiles", "PairWeight", "pair_sizes", "worth_pairs"]


def worth_pairs(kind: str, x: Sequence[int], w: Sequence[int], groups: int) -> bool:
    """Whether a convolution with input and weight of these shapes, or one of its gradients, is
    faster in pairs than in float32."""
    if not target().pairs:
        return False
    out, red = w[0] // groups, w[1]
    if kind == "conv_input":
        out, red = red, out
    from facula.codegen.convolutions.amx import FEWEST
    # half of the products by tile registers are still more than all without them
    alone = kind == "conv_weight" and target().tiles and min(out, red) >= FEWEST
    return (alone or (x[0] if kind == "conv_weight" else red) > 1) and \
        not suits(groups, out, red, target().lanes(4))


class PairTiles(TileWriter):
    """Pieces of a kernel whose elements are pairs of bfloat16; they come of a source of `i16`."""

    def __init__(self, module: Module, t: Target):
        super().__init__(module, "float32", t)
        self.source = "i16"

    def multiply_add(self, fn: Fn, x: str, y: str, total: str, into: str) -> None:
        multiply_pairs(fn, self.lanes, x, y, total, into)

    def copy_pairs(self, fn: Fn, block: Block, source: str, strides: Sequence[int], channel: int,
                   second: int, count: Any, starts: Sequence[Any], images: Any, to: str,
                   there: Callable[[Any, Any], str | None], each: int = 0) -> None:
        """As `copy_source`, of pairs of which the second element is so much further than the first;
        there(channel, image) says whether it is one of the source, None that it always is."""
        walk = block.walks[-1]

        def line(c: Any, n: Any, from_: str, start: Any, size: Any, at: str) -> None:
            good = there(c, n)
            other = size if good is None else fn.val(f"select i1 {good}, i64 {size}, i64 0")
            self._line_of_pairs(fn, from_, second, start, walk.pitch, strides[-1], (size, other),
                                block.extents[-1], at)

        self.copy_source(fn, block, source, strides, channel, count, starts, images, to, each,
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
        with fn.loop(0, count, hint="r") as r:
            place = fn.add(start, fn.mul(r, apart))
            at = fn.val(f"getelementptr i16, ptr {source}, i64 {fn.mul(place, step)}")
            next_ = fn.val(f"getelementptr i16, ptr {at}, i64 {channel}")
            first, second = (fn.val(f"icmp ult i64 {place}, {size}") for size in sizes)
            self.pair(fn, at, next_, second, fn.gep("i32", to, r), first)

    def pair(self, fn: Fn, low: str, high: str, both: str, to: str, there: str = "true") -> None:
        """The elements at two addresses, zeros for those that are not `there`, `both` of them."""
        zero = fn.module.define("KERNEL_zero", "internal unnamed_addr constant i16 0")
        halves = []
        for at, good in ((low, there), (high, both)):
            at = fn.val(f"select i1 {good}, ptr {at}, ptr {zero}")
            halves.append(fn.val(f"zext i16 {fn.load('i16', at, 2)} to i32"))
        value = fn.val(f"or i32 {halves[0]}, {fn.val(f'shl i32 {halves[1]}, 16')}")
        fn.store("i32", value, to, 4)

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


class PairWeight(Weight):
    """conv_weight of bfloat16: an image and the next one are a pair, at every place."""

    tiles: PairTiles
    together = 2

    def _tiles(self) -> PairTiles:
        return PairTiles(self.module, self.t)

    def _sizes(self) -> WeightSizes:
        c = self.c
        return pair_sizes(c.x, c.w, c.y, c.stride, c.low, c.dilation, c.groups)

    def _sum(self, fn: Fn, source: str, grads: str, low: Any, high: Any, count: Any,
             channels: Any, sums: str) -> None:
        source, grads = (fn.gep("i16", at, fn.mul(low, view.strides[0]))
                         for at, view in ((source, self.c.a), (grads, self.c.b)))
        self.images = high if low == 0 else fn.val(f"sub i64 {high}, {low}")
        pairs = -(-self.images // 2) if isinstance(self.images, int) else \
            fn.val(f"ashr i64 {fn.add(self.images, 1)}, 1")
        self._pairs(fn, source, grads, pairs, count, channels, sums)

    def _pairs(self, fn: Fn, source: str, grads: str, pairs: Any, count: Any, channels: Any,
               sums: str) -> None:
        """`_sum` over so many pairs of images."""
        super()._sum(fn, source, grads, 0, pairs, count, channels, sums)

    def _both(self, fn: Fn, pair: Any) -> str | None:
        """Whether both images of a pair are there; None where they always are."""
        if isinstance(self.images, int) and self.images % 2 == 0:
            return None
        second = fn.add(fn.mul(pair, 2), 1)
        return fn.val(f"icmp slt i64 {second}, {self.images}")

    def _copy(self, fn: Fn, source: str, count: Any, starts: list[Any], images: Any, cache: str
              ) -> None:
        image, channel, *places = self.c.a.strides
        self.tiles.copy_pairs(fn, self.sizes.block, source, [2 * image, *places], channel, image,
                              count, starts, images, cache,
                              lambda c, n: self._both(fn, fn.add(starts[0], n)))

    # -- columns
    def _begun(self, fn: Fn, image: Any) -> None:
        self.both = self._both(fn, image) or "true"

    def _turned(self, fn: Fn, line: str, channel: int, some: Any, count: Any, there: str
                ) -> None:
        tiles, nr, lanes = self.tiles, self.sizes.nr, self.tiles.lanes
        name, mask = "KERNEL_columns", f"<{self.tiles.lanes} x i1>"
        if name not in self.module.functions:
            params = (("ptr", "from"), ("ptr", "to"), ("i64", "places"), ("i64", "rows"),
                      ("i1", "both"))
            one = Fn(self.module, name, params, attrs=f"noinline {self.t.attributes}",
                     inner=True)
            on, values = tiles.first(one, "%places"), []
            for k in range(lanes):
                inside = one.val(f"icmp slt i64 {k}, %rows")
                low = one.val(f"select i1 {inside}, {mask} {on}, {mask} zeroinitializer")
                high = one.val(f"select i1 %both, {mask} {low}, {mask} zeroinitializer")
                at = one.val(f"getelementptr i16, ptr %from, i64 {k * channel}")
                next_ = one.val(f"getelementptr i16, ptr {at}, i64 {self.c.b.strides[0]}")
                values.append(tiles.words(one, tiles.halves(one, at, low, lanes),
                                          tiles.halves(one, next_, high, lanes)))
            for j, value in enumerate(transpose(one, values, "i32")):
                one.store(f"<{lanes} x i32>", value, one.gep("i32", "%to", j * nr), 4)
            one.finish()
        with fn.loop(0, count, lanes, "i") as i:
            left = fn.val(f"sub i64 {count}, {i}")
            fn.do(f"call void @{name}(ptr {fn.gep('i16', line, i)}, "
                  f"ptr {fn.gep('i32', there, fn.mul(i, nr))}, i64 {left}, i64 {some}, "
                  f"i1 {self.both})")

    def _element(self, fn: Fn, at: str, to: str) -> None:
        next_ = fn.val(f"getelementptr i16, ptr {at}, i64 {self.c.b.strides[0]}")
        self.tiles.pair(fn, at, next_, self.both, to)


def pair_sizes(x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...], stride: Sequence[int],
               low: Sequence[int], dilation: Sequence[int], groups: int) -> WeightSizes:
    """How the gradient of a weight is cut into tiles, where two images are one."""
    from facula.codegen.convolutions.amx import TileSizes, worth_tiles
    images = -(-x[0] // 2)
    pairs = (images, *x[1:]), w, (images, *y[1:]), stride, low, dilation, groups
    if worth_tiles("conv_weight", y, w, groups):
        return TileSizes(*pairs)
    return WeightSizes(*pairs, 4, target(), False)


_ALL = 256
"""As many places are one block.  Each panel of the weight is then read by one tile alone, which
packs it for itself: it stays in the cache of the core that uses it."""

_LEAST_TILES = 8


class PairForward(Forward):
    """conv, or conv_input for the outputs of one remainder in every dimension, of bfloat16.

    `red` is the number of pairs, `whole` that of input channels.
    """

    tiles: PairTiles
    inline = False

    def _tiles(self, module: Module) -> PairTiles:
        return PairTiles(module, self.t)

    def _tile(self, counts: tuple[int, ...], micro: list[int]) -> None:
        super()._tile(counts, micro)
        if prod(counts) > _ALL or not self.taps or self.c.lasting:
            return
        self.inline = True
        per = max(min(self.panels_each, self.c.groups * self.panels // _LEAST_TILES), 1)
        self.panels_each = -(-self.panels // -(-self.panels // per))
        self.width = self.panels_each * self.nr
        self.block = Block(self.walks, counts, tuple(grow(counts, micro, prod(counts))),
                           tuple(micro))
        self._depth()

    # -- the sums
    def _sum(self, fn: Fn, source: str, packed: str, g: Any, ob: Any, starts: list[Any],
             counts: list[Any], sums: str, local: bool = False) -> None:
        """Fill sums[place, channel]."""
        c, block, tiles, nr = self.c, self.block, self.tiles, self.nr
        each = prod(block.extents)
        cache = fn.alloca("i32", tiles.room(block, self.depth))
        table = tiles.table("KERNEL_steps", [pair * each + tap for pair in range(self.depth)
                                             for tap in block.taps()])
        image, channel, *places = c.a.strides
        source = fn.gep("i16", source, fn.add(fn.mul(g, self.whole * channel), c.a.offset))
        panel0 = fn.mul(ob, self.panels_each)
        row_steps = [n * self.width for n in block.point_strides]
        deep = self.depth * self.taps * nr
        if self.inline:
            own = fn.alloca("i32", deep)
            packed = fn.gep("i16", packed, fn.add(fn.mul(g, self.group_stride), c.b.offset))
        whole, rest = divmod(self.vectors, self.nv)
        here = smin(fn, fn.val(f"sub i64 {whole}, {panel0}"), self.panels_each) \
            if whole % self.panels_each or rest else self.panels_each

        def panel(p: Any, vectors: int, c0: Any, last: Any, kc: Any, first: str) -> None:
            number = fn.add(panel0, p)
            if self.inline:
                weight = own
                self._panel(fn, packed, own, number, c0, last, self.depth, True)
            else:
                row = fn.add(fn.mul(fn.add(fn.mul(g, self.panels), number), self.red), c0)
                weight = fn.gep("i32", packed, fn.mul(row, self.taps * nr))

            def register(rect: tuple[int, ...], firsts: tuple[Any, ...]) -> None:
                name = "KERNEL_micro_" + "x".join(map(str, (*rect, vectors)))
                tiles.micro(name, block.offsets(rect, block.out_steps), vectors,
                            block.offsets(rect, row_steps), table, nr)
                x, z = reached(fn, firsts, block.out_steps, row_steps, begin=(0, fn.mul(p, nr)))
                fn.do(f"call void @{name}(ptr {fn.gep('i32', cache, x)}, ptr {weight}, "
                      f"ptr {fn.gep('i32', sums, z)}, i64 {kc}, i1 {first})")
            tiles.over_block(fn, block, starts, register)

        def pairs(c0: Any, last: Any, first: str) -> None:
            count = last if c0 == 0 else fn.val(f"sub i64 {last}, {c0}")
            tiles.copy_pairs(fn, block, fn.gep("i16", source, fn.mul(c0, 2 * channel)),
                             [image, *places], 2 * channel, channel, count, starts, counts[0],
                             cache, lambda c, n: self._both(fn, fn.add(c0, c)))
            kc = fn.mul(count, self.taps)
            if whole:
                with fn.loop(0, here, hint="p") as p:
                    panel(p, self.nv, c0, last, kc, first)
            if rest:
                left = fn.val(f"sub i64 {whole}, {panel0}")
                with fn.when(fn.val(f"icmp slt i64 {left}, {self.panels_each}")):
                    panel(left, rest, c0, last, kc, first)

        if self.depth == self.red:
            pairs(0, self.red, "true")
        else:
            with fn.loop(0, self.red, self.depth, "c0") as c0:
                pairs(c0, smin(fn, fn.add(c0, self.depth), self.red),
                      fn.val(f"icmp eq i64 {c0}, 0"))

    def _both(self, fn: Fn, pair: Any) -> str | None:
        """Whether both channels of a pair are there; None where they always are."""
        return fn.val(f"icmp slt i64 {pair}, {self.whole // 2}") if self.whole % 2 else None

    # -- the weight
    def _packed(self, out: Emitted) -> str:
        """The weight as [group, panel, pair of input channels, tap, nr, 2]; the name of that
        memory."""
        c = self.c
        if self.inline:
            return "b"
        tmp = f"tmp{len(out.temporaries)}"
        module = Module()
        fn = Fn(module, "KERNEL", PARAMS, attrs=self.t.attributes)
        src, dst = operand(fn, 0), operand(fn, 1)
        lanes, each = self.tiles.lanes, self.taps * self.nr
        chunk = max((8192 if self.taps == 1 else 4096) // each // lanes * lanes, 1)
        chunks = -(-self.red // chunk)
        g, panel, part = unravel(fn, "%tile", (c.groups, self.panels, chunks))
        first = fn.mul(part, chunk)
        row = fn.add(fn.mul(fn.add(fn.mul(g, self.panels), panel), self.red), first)
        self._panel(fn, fn.gep("i16", src, fn.add(fn.mul(g, self.group_stride), c.b.offset)),
                    fn.gep("i32", dst, fn.mul(row, each)), panel, first,
                    smin(fn, fn.add(first, chunk), self.red), chunk)
        fn.finish()
        module.light = True
        out.temporaries.append((tmp, c.groups * self.panels * self.red * each * 4))
        cost = 10.0 * self.whole * self.taps * self.out * c.groups / max(c.flops, 1.0)
        out.packing.append(KernelDraft("KERNEL", ("b", tmp), c.groups * self.panels * chunks,
                                       module, cost))
        return tmp

    def _panel(self, fn: Fn, src: str, dst: str, panel: Any, first: Any, last: Any, most: int,
               next_panel: bool = False) -> None:
        """Pairs `first` to `last` of input channels (`most` of them) of a panel as [pair, tap, nr,
        2], from the weight of the group, which is at `src`.

        What comes next is the next panel of the same channels, or the next channels.
        """
        taps = prod(self.c.w[2:])
        words = as_pairs(Source("bfloat16", 2, (), (), self.out, self.whole * taps,
                                self.out_stride, 1, self.group_stride + self.c.b.offset))
        side_by_side = all(n == 1 or s == prod(self.c.w[k + 3:]) for k, (n, s) in
                           enumerate(zip(self.c.w[2:], self.tap_strides, strict=True)))
        if words is not None and side_by_side and self.red_stride == taps and \
                self.whole % 2 == 0:
            self._turned(fn, replace(words, offset=0), src, dst, panel, first, last, most,
                         self.nr * words.j_stride if next_panel else most * taps)
            return
        column = fn.mul(panel, self.nr)
        count = smin(fn, fn.val(f"sub i64 {self.out}, {column}"), self.nr) \
            if self.panels > 1 else self.out
        src = fn.gep("i16", src, fn.mul(column, self.out_stride))
        with fn.loop(first, last, hint="r") as r:
            at = r if first == 0 else fn.val(f"sub i64 {r}, {first}")
            from_ = fn.gep("i16", src, fn.mul(r, 2 * self.red_stride))
            to = fn.gep("i32", dst, fn.mul(at, self.taps * self.nr))
            both = self._both(fn, r)
            if taps == self.out_stride == 1:
                self._across(fn, from_, to, count, both)
            elif side_by_side:
                self._kernels(fn, from_, to, count, both)
            else:
                self._elements(fn, from_, to, count, both)

    def _turned(self, fn: Fn, words: Source, src: str, dst: str, panel: Any, first: Any, last: Any,
                most: int, next_: int) -> None:
        """Rows are words, in each of which are two elements that lie side by side: those of a
        pair of channels are as many words as there are taps.  So the rows are turned as they are,
        and then of the two words with a tap of both channels the halves are put together."""
        taps, nr, lanes, out = prod(self.c.w[2:]), self.nr, self.tiles.lanes, self.out
        kind = f"<{lanes} x i32>"
        deep = most * taps
        own = dst if taps == 1 else fn.alloca("i32", -(-deep // lanes) * lanes * nr)
        k0, column, tail = fn.mul(first, taps), fn.mul(panel, nr), out % nr

        def turn(count: int) -> None:
            with fn.loop(0, count, hint="row", metadata=fn.module.untouched()) as row:
                # pieces of rows too short to be seen coming
                at = fn.add(fn.mul(fn.add(column, row), words.j_stride), fn.add(k0, next_))
                self.tiles.ask(fn, fn.val(f"getelementptr i32, ptr {src}, i64 {at}"), 4 * deep)
            pack_panel(fn, words, nr, -(-deep // lanes) * lanes, src, own, column, k0, count,
                       self.t)

        if out >= nr:
            if tail:
                with fn.when(fn.val(f"icmp slt i64 {panel}, {out // nr}")):
                    turn(nr)
            else:
                turn(nr)
        if tail:
            with fn.when(fn.val(f"icmp eq i64 {panel}, {out // nr}")):
                turn(tail)
        if taps == 1:
            return              # words are pairs
        # a row of elements is [channel, tap]: tap t of the first channel of a pair is element t,
        # that of the second one element taps + t
        order = [(n, tap, taps + tap) for n, tap in enumerate(self.tap_places())]
        with fn.loop(first, last, hint="r") as r:
            at = r if first == 0 else fn.val(f"sub i64 {r}, {first}")
            from_ = fn.gep("i32", own, fn.mul(at, taps * nr))
            to = fn.gep("i32", dst, fn.mul(at, self.taps * nr))
            with fn.loop(0, nr, lanes, "j") as j:
                for n, *pair in order:
                    low, high = (fn.load(kind, fn.gep("i32", from_, fn.add(j, e // 2 * nr)), 4)
                                 for e in pair)
                    if pair[0] % 2:
                        low = fn.val(f"lshr {kind} {low}, {_same('i32', 16, lanes)}")
                    else:
                        low = fn.val(f"and {kind} {low}, {_same('i32', 0xFFFF, lanes)}")
                    if pair[1] % 2:
                        high = fn.val(f"and {kind} {high}, {_same('i32', -65536, lanes)}")
                    else:
                        high = fn.val(f"shl {kind} {high}, {_same('i32', 16, lanes)}")
                    fn.store(kind, fn.val(f"or {kind} {low}, {high}"),
                             fn.gep("i32", to, fn.add(j, n * nr)), 4)

    def _across(self, fn: Fn, from_: str, to: str, count: Any, both: str | None) -> None:
        """A pair of channels whose output channels lie side by side, with one tap."""
        tiles, lanes = PairTiles(fn.module, self.t), self.tiles.lanes
        mask = f"<{lanes} x i1>"
        with fn.loop(0, count, lanes, hint="j") as j:
            on = tiles.first(fn, fn.val(f"sub i64 {count}, {j}"))
            there = on if both is None else fn.val(f"select i1 {both}, {mask} {on}, {mask} "
                                                   "zeroinitializer")
            low = fn.gep("i16", from_, j)
            high = fn.val(f"getelementptr i16, ptr {low}, i64 {self.red_stride}")
            fn.store(f"<{lanes} x i32>", tiles.words(fn, tiles.halves(fn, low, on, lanes),
                                                     tiles.halves(fn, high, there, lanes)),
                     fn.gep("i32", to, j), 4)

    def _kernels(self, fn: Fn, from_: str, to: str, count: Any, both: str | None) -> None:
        """A pair of channels of kernels whose taps lie together: read as they lie, and turned."""
        tiles, lanes = PairTiles(fn.module, self.t), self.tiles.lanes
        total = prod(self.c.w[2:])
        with fn.loop(0, count, lanes, hint="j") as j:
            left = fn.val(f"sub i64 {count}, {j}") if self.out % lanes else None
            at = fn.gep("i16", from_, fn.mul(j, self.out_stride))
            for base in range(0, total, lanes):
                wanted = [(n, tap - base) for n, tap in enumerate(self.tap_places())
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
        for n, tap in enumerate(self.tap_places()):
            with fn.loop(0, count, hint="j") as j:
                at = fn.gep("i16", from_, fn.add(fn.mul(j, self.out_stride), tap))
                next_ = fn.val(f"getelementptr i16, ptr {at}, i64 {self.red_stride}")
                self.tiles.pair(fn, at, next_, both or "true",
                                fn.gep("i32", to, fn.add(j, n * self.nr)))
