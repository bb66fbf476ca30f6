"""Convolutions of bfloat16 tensors by tile registers (AMX; see `products.amx`).

The products of `convolutions.pairs`, 16 pairs at a time.  A row of B is 16 neighbouring
words of a line, and that is what 16 outputs read of a pair of channels through one tap: so the
copied source is an operand as it is, and each tap of the kernel is another place in it where 16
rows begin.  Of the weight tiles are packed, [step][output channel][16 pairs of input channels].
Sums come out with their channels as rows and their places side by side, as memory has them:
nothing is turned.

For that outputs that are neighbours must read neighbours.  Where a stride lies between, the source
is copied into planes, one for each remainder that a tap meets.  A line of 16 places goes on past
the end of a line of outputs, into what lies between that and the next one; what is summed there is
dropped.

In the gradient by the weight places are the steps of the sum, so that what lies between two lines
is multiplied by zeros.  That comes to something where it is not finite, or seems to: then all is
summed again in pairs, by `convolutions.pairs`.

Of four register tiles each step of 16 pairs loads four and multiplies and adds four: 4 KiB for
65,536 multiplications, which take 64 cycles in which the first cache can deliver 8 KiB.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from facula.codegen.convolutions.convolution import Convolution, Emitted
from facula.codegen.convolutions.finite import Watch
from facula.codegen.convolutions.pairs import PairForward, PairTiles, PairWeight
from facula.codegen.convolutions.walks import Block, Walk, grow
from facula.codegen.convolutions.weight import WeightSizes
from facula.codegen.kernel import KernelDraft
from facula.codegen.llvm import Fn, Module
from facula.codegen.products import amx
from facula.codegen.products.amx import ROWS, configure, release, tile_function
from facula.codegen.products.pack import transpose
from facula.codegen.products.tiles import PARAMS, operand, smin, unravel
from facula.codegen.target import Target, target

__all__ = ["TileForward", "TileSizes", "TileWeight", "emit_short", "worth_tiles"]

FEWEST = 8
"""So many channels of a group fill a tile well enough: an eighth of its products, at least, are
not of zeros, and vectors of pairs do an eighth as many in a cycle."""

_LINE = 16          # words of a line of the cache, and lanes of a vector
_WHOLE = 2 * ROWS, 2 * ROWS
_SHARE = 8_000_000  # operations that are worth a tile of a kernel, as long as threads may lack any
_POINTS = 256       # places of a block of outputs


def worth_tiles(kind: str, y: Sequence[int], w: Sequence[int], groups: int) -> bool:
    """Whether a convolution of pairs, or one of its gradients, is faster by tile registers."""
    if not target().tiles:
        return False
    out, red = w[0] // groups, w[1]
    fewest = out if kind == "conv_input" else min(out, red) if kind == "conv_weight" else red
    return fewest >= FEWEST and prod(y) * prod(w[1:]) >= amx.LEAST


def _up(n: int, to: int = ROWS) -> int:
    return -(-n // to) * to


@dataclass(frozen=True)
class _Place:
    """How a tile walks over an operand; see `products.microkernel.Walked`."""

    inner: int
    k_step: int
    ahead: int = 0


def _spans(fn: Fn, total: Any, do: Callable[[Any, int], None]) -> None:
    """do(first, size) for parts of 32 and at the end of 16 that cover `total`."""
    if isinstance(total, int):
        whole, last = _up(total) // _WHOLE[0] * _WHOLE[0], bool(_up(total) % _WHOLE[0])
        if whole:
            with fn.loop(0, whole, _WHOLE[0], "span") as i:
                do(i, _WHOLE[0])
        if last:
            do(whole, ROWS)
        return
    number = fn.val(f"lshr i64 {fn.add(total, ROWS - 1)}, 4")
    end = fn.val(f"shl i64 {fn.val(f'lshr i64 {number}, 1')}, 5")
    with fn.loop(0, end, _WHOLE[0], "span") as i:
        do(i, _WHOLE[0])
    with fn.when(fn.val(f"trunc i64 {number} to i1")):
        do(end, ROWS)


class _Planes:
    """What a block of outputs reads of a pair of channels: [remainder, image, *places].

    In a plane neighbours are what neighbouring outputs read through one tap.  `taps` are where
    each tap of the first output lies, in the kernel's order, `strides` the distances of
    neighbouring outputs, images first, and `each` that of channels.
    """

    def __init__(self, block: Block):
        lines = [self._line(w) for w in block.walks]
        used = [sorted({rest for rest, _ in line}) for line in lines]
        self.blocks = [
            Block(tuple(self._walk(w, line, rest) for w, line, rest in
                        zip(block.walks, lines, rests, strict=True)),
                  block.counts, block.size, block.micro) for rests in itertools.product(*used)]
        first = self.blocks[0]
        self.strides = first.extent_strides
        self.lines = first.extents[1:]
        # past the last line there is room for a vector and for a tile
        self.apart = _up(prod(first.extents)) + _LINE
        # an odd number of lines of the cache, which are then in different sets of it
        self.each = (len(self.blocks) * self.apart // _LINE | 1) * _LINE
        number = {rests: k for k, rests in enumerate(itertools.product(*used))}
        self.taps = [number[tuple(rest for rest, _ in tap)] * self.apart
                     + sum(at * s for (_, at), s in zip(tap, self.strides[1:], strict=True))
                     for tap in itertools.product(*lines)]
        images, *size = block.size
        one = self.flat([1, *size])
        all_ = self.flat(block.size)
        # images are one line where that is not longer than one line for each
        self.merged = images > 1 and _up(all_) <= images * _up(one)

    @staticmethod
    def _line(w: Walk) -> list[tuple[int, int]]:
        """Of each tap, the remainder and the place in its plane."""
        apart = w.step // w.pitch if w.count > 1 else 1
        return [divmod(w.tap_offset(j), apart)[::-1] for j in range(w.taps)]

    @staticmethod
    def _walk(w: Walk, line: Sequence[tuple[int, int]], rest: int) -> Walk:
        """How a plane is read: as by a kernel whose taps are neighbours."""
        return Walk(w.count, 1 + max(at for _, at in line), w.start + w.lowest + rest * w.pitch,
                    w.step, w.step if w.count > 1 else w.pitch, w.source)

    def flat(self, counts: Sequence[int]) -> int:
        """The places from the first of so many outputs to the last."""
        return 1 + sum((n - 1) * s for n, s in zip(counts, self.strides, strict=True))

    def length(self, fn: Fn, counts: Sequence[Any]) -> Any:
        """`flat`, of one image or of all that are one line, where counts are known at run time."""
        total: Any = 1
        for n, s in list(zip(counts, self.strides, strict=True))[0 if self.merged else 1:]:
            total = fn.add(total, fn.mul(fn.add(n, -1), s))
        return total

    def copy(self, tiles: PairTiles, fn: Fn, source: str, strides: Sequence[int], channel: int,
             second: int, count: Any, starts: Sequence[Any], images: Any, to: str,
             there: Callable[[Any, Any], str | None]) -> None:
        """As `PairTiles.copy_pairs`, of all planes."""
        for k, block in enumerate(self.blocks):
            tiles.copy_pairs(fn, block, source, strides, channel, second, count, starts, images,
                             fn.gep("i32", to, k * self.apart), there, self.each)


def _zeros(fn: Fn, to: str, first: Any, last: Any) -> None:
    """Whole vectors of words `first` to `last`."""
    with fn.loop(first, last, _LINE, "z") as i:
        fn.store(f"<{_LINE} x i32>", "zeroinitializer", fn.gep("i32", to, i), 4)


class TileForward(PairForward):
    """conv, or conv_input for the outputs of one remainder in every dimension, of bfloat16."""

    def _tile(self, counts: tuple[int, ...], micro: list[int]) -> None:
        out, room = self.out, self.t.l2_bytes // 8
        self.nr = min(_up(out), _WHOLE[0])
        self.nv = self.nr // _LINE
        self.panels = -(-out // self.nr)
        self.reds = -(-self.red // ROWS)
        flops = 2.0 * prod(counts) * out * self.whole * self.taps * self.c.groups
        wanted = max(min(flops // _SHARE, 32), 1)
        micro = [1] * (len(counts) - 1) + [min(counts[-1], 4 * _WHOLE[1])]
        points, wide = _POINTS, self.panels
        while True:
            self.block = Block(self.walks, counts, tuple(grow(counts, micro, points)),
                               tuple(micro))
            self.panels_each = -(-self.panels // -(-self.panels // wide))
            self.width = self.panels_each * self.nr
            tiles = self.c.groups * prod(self.block.blocks) * -(-self.panels // self.panels_each)
            if not self.taps:
                return
            self.planes = planes = _Planes(self.block)
            self.line = planes.strides[0] if planes.merged else \
                _up(planes.flat([1, *self.block.size[1:]]))
            images = self.block.size[0]
            line = _up(planes.flat(self.block.size)) if planes.merged else images * self.line
            self.ld = (line // _LINE | 1) * _LINE   # rows of sums in different sets of the cache
            large = self.width * self.ld * 4 > room or planes.each * 4 * ROWS > room
            if not large and tiles >= wanted:
                break
            if wide > 4:
                wide = -(-wide // 2)
            elif points > 64 and (large or self.block.points > 64):
                points //= 2
            elif wide > 1:
                wide = -(-wide // 2)
            elif large and points > 16:
                points //= 2
            else:
                break
        self._depth()

    def _depth(self) -> None:
        """How many pairs at a time: what they take of a panel of the weight is to stay in the
        first cache beside what is read of the source."""
        near = self.t.l1_bytes * 3 // 4 // (self.nr * ROWS * 4) // self.taps
        most = max(min(near, self.t.l2_bytes // 8 // (self.planes.each * ROWS * 4)), 1)
        self.depth = -(-self.reds // -(-self.reds // most)) * ROWS

    # -- the sums
    def _room(self, ld: int) -> int:
        return self.width * self.ld + _LINE

    def _sum(self, fn: Fn, source: str, packed: str, g: Any, ob: Any, starts: list[Any],
             counts: list[Any], sums: str, local: bool = False) -> None:
        """Fill sums[channel, place of a plane]."""
        c, planes, tiles, nr = self.c, self.planes, self.tiles, self.nr
        cache = fn.alloca("i32", self.depth * planes.each)
        table = tiles.table("KERNEL_steps", [first * planes.each + tap
                                             for first in range(0, self.depth, ROWS)
                                             for tap in planes.taps])
        image, channel, *places = c.a.strides
        source = fn.gep("i16", source, fn.add(fn.mul(g, self.whole * channel), c.a.offset))
        step = self.taps * nr                   # of a packed pair
        panel0 = fn.mul(ob, self.panels_each)
        at = fn.mul(fn.add(fn.mul(g, self.panels), panel0), self.reds * ROWS * step)
        packed = fn.gep("i32", packed, at)
        length = planes.length(fn, counts)
        images = 1 if planes.merged else counts[0]
        rows = smin(fn, fn.val(f"sub i64 {self.out}, {fn.mul(ob, self.width)}"), self.width) \
            if self.panels > self.panels_each else self.out

        def some(c0: Any, last: Any, first: str) -> None:
            count = last if c0 == 0 else fn.val(f"sub i64 {last}, {c0}")
            planes.copy(tiles, fn, fn.gep("i16", source, fn.mul(c0, 2 * channel)),
                        [image, *places], 2 * channel, channel, count, starts, counts[0], cache,
                        lambda k, n: self._both(fn, fn.add(c0, k)))
            full = _up(count) if isinstance(count, int) else \
                fn.val(f"and i64 {fn.add(count, ROWS - 1)}, {-ROWS}")
            if self.red % ROWS:
                _zeros(fn, cache, fn.mul(count, planes.each), fn.mul(full, planes.each))
            weight = fn.gep("i32", packed, fn.mul(c0, step))
            kc = fn.mul(full, self.taps)

            def register(row: Any, high: int, n: Any, place: Any, wide: int) -> None:
                name = tile_function(
                    self.module, f"KERNEL_tiles_{high}x{wide}", self.t, (high, wide),
                    _Place(ROWS, nr), _Place(1, planes.each), self.ld, _WHOLE, table)
                # a span of rows is a panel
                a = fn.gep("i32", weight, fn.mul(row, self.reds * ROWS * self.taps))
                x = fn.gep("i32", cache, fn.add(fn.mul(n, planes.strides[0]), place))
                z = fn.gep("float", sums, fn.add(fn.mul(row, self.ld),
                                                 fn.add(fn.mul(n, self.line), place)))
                fn.do(f"call void @{name}(ptr {a}, ptr {x}, ptr {z}, i64 {kc}, i1 {first})")

            def panel(row: Any, high: int) -> None:
                with fn.loop(0, images, hint="n") as n:
                    _spans(fn, length, lambda place, wide: register(row, high, n, place, wide))

            _spans(fn, rows, panel)

        configure(fn, *_WHOLE)
        if self.depth == self.reds * ROWS:
            some(0, self.red, "true")
        else:
            with fn.loop(0, self.red, self.depth, "c0") as c0:
                some(c0, smin(fn, fn.add(c0, self.depth), self.red),
                     fn.val(f"icmp eq i64 {c0}, 0"))
        release(fn)

    def _by_channel(self, fn: Fn, sums: str, to: str, ld: int, channels: Any, counts: list[Any]
                    ) -> tuple[str, int]:
        """What lies between lines of outputs left out."""
        block, planes = self.block, self.planes
        if planes.lines == block.size[1:] and \
                (block.size[0] == 1 or self.line == block.point_strides[0]):
            return sums, self.ld
        vector, short = self.tiles.vector, block.size[-1]

        def line(d: int, from_: Any, there: Any) -> None:
            if d == len(block.size) - 1:
                # whole vectors: what is too much of one is overwritten by the next line
                with fn.loop(0, short, _LINE, "x") as x:
                    value = fn.load(vector, fn.gep("float", sums, fn.add(from_, x)), 4)
                    fn.store(vector, value, fn.gep("float", to, fn.add(there, x)), 4)
                return
            with fn.loop(0, counts[d], hint="y") as y:
                line(d + 1, fn.add(from_, fn.mul(y, planes.strides[d] if d else self.line)),
                     fn.add(there, fn.mul(y, block.point_strides[d])))

        with fn.loop(0, channels, hint="o") as o:
            line(0, fn.mul(o, self.ld), fn.mul(o, ld))
        return to, ld

    # -- the weight
    def _packed(self, out: Emitted) -> str:
        """The weight as [group, panel, 16 pairs of input channels, tap, nr, 16, 2]; the name of
        that memory."""
        c, nr, taps = self.c, self.nr, self.taps
        tmp, module = f"tmp{len(out.temporaries)}", Module()
        fn = Fn(module, "KERNEL", PARAMS, attrs=self.t.attributes)
        src, dst = operand(fn, 0), operand(fn, 1)
        each = ROWS * taps * nr
        chunk = max(8192 // each, 1)
        chunks = -(-self.reds // chunk)
        g, panel, part = unravel(fn, "%tile", (c.groups, self.panels, chunks))
        src = fn.gep("i16", src, fn.add(fn.mul(g, self.group_stride), c.b.offset))
        first = fn.mul(part, chunk)
        at = fn.add(fn.mul(fn.add(fn.mul(g, self.panels), panel), self.reds), first)
        dst = fn.gep("i32", dst, fn.mul(at, each))
        own, kind = fn.alloca("i32", each), f"<{_LINE} x i32>"
        with fn.loop(0, smin(fn, fn.val(f"sub i64 {self.reds}, {first}"), chunk)
                     if chunks > 1 else self.reds, hint="b") as b:
            pair = fn.mul(fn.add(first, b), ROWS)
            last = smin(fn, fn.add(pair, ROWS), self.red)
            if self.red % ROWS:
                _zeros(fn, own, fn.mul(fn.val(f"sub i64 {last}, {pair}"), taps * nr), each)
            self._panel(fn, src, own, panel, pair, last, ROWS)
            with fn.loop(0, taps, hint="t") as tap, fn.loop(0, nr, ROWS, "j") as j:
                place = fn.add(fn.mul(tap, nr), j)
                rows = [fn.load(kind, fn.gep("i32", own, fn.add(place, k * taps * nr)), 4)
                        for k in range(ROWS)]
                place = fn.mul(fn.add(fn.mul(b, taps * nr), place), ROWS)
                for k, value in enumerate(transpose(fn, rows, "i32")):
                    fn.store(kind, value, fn.gep("i32", dst, fn.add(place, k * ROWS)), 4)
        fn.finish()
        module.light = True
        out.temporaries.append((tmp, c.groups * self.panels * self.reds * each * 4))
        cost = 20.0 * self.whole * taps * self.out * c.groups / max(c.flops, 1.0)
        out.packing.append(KernelDraft("KERNEL", ("b", tmp), c.groups * self.panels * chunks,
                                       module, cost))
        return tmp


class TileSizes(WeightSizes):
    """How the gradient of a weight is cut into tiles of a kernel whose sums are tile registers.

    x, w and y as of `pair_sizes`, whose images are pairs.
    """

    share = _SHARE

    def __init__(self, x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...],
                 stride: Sequence[int], low: Sequence[int], dilation: Sequence[int], groups: int):
        t = target()
        super().__init__(x, w, y, stride, low, dilation, groups, 4, t, False)
        self.nr = min(_up(self.out), _WHOLE[1])
        self.nv = self.nr // _LINE
        self.panels = -(-self.out // self.nr)
        counts = self.block.counts
        # of both operands a span of channels is to stay in the first cache
        points = t.l1_bytes // (4 * sum(_WHOLE))
        walks, room = self.block.walks, min(t.l2_bytes // 4, 1 << 18)
        while True:
            size = tuple(grow(counts, [1] * len(counts), points))
            self.block = Block(walks, counts, size, size)
            self.planes = _Planes(self.block)
            if points <= 16 or self.planes.each * 4 * ROWS <= room // 4:
                break
            points //= 2
        # sums in pairs go through channels in steps that end where those of tiles do
        self.channel_rows = 1 << (min(self.channel_rows, 8).bit_length() - 1)
        flops = 4.0 * prod(y) * prod(w[1:])
        wanted = min(16, flops // _SHARE)
        wide, deep = min(self.panels, 4), min(_up(self.red), 8 * ROWS)
        while True:
            self.panels_each = -(-self.panels // -(-self.panels // wide))
            self.width = self.panels_each * self.nr
            blocks = -(-self.red // deep)
            self.depth = _up(-(-self.red // blocks))
            self.tiles = groups * -(-self.red // self.depth) * -(-self.panels // self.panels_each)
            large = max(self.depth * self.taps * self.width, self.depth * self.planes.each) * 4 \
                > room
            if not large and self.tiles * x[0] >= wanted:
                break
            if deep > 4 * ROWS or deep > ROWS and wide == 1:
                deep = _up(deep // 2)
            elif wide > 1:
                wide = -(-wide // 2)
            else:
                break


class TileWeight(PairWeight):
    """conv_weight of bfloat16: an image and the next one are a pair, at every place."""

    sizes: TileSizes

    def _pairs(self, fn: Fn, source: str, grads: str, pairs: Any, count: Any, channels: Any,
               sums: str) -> None:
        configure(fn, *_WHOLE)
        self._by_tiles(fn, source, grads, pairs, count, channels, sums)
        release(fn)
        with fn.when(self._wrong(fn, count, channels, sums)):
            super()._pairs(fn, source, grads, pairs, count, channels, sums)

    def _by_tiles(self, fn: Fn, source: str, grads: str, pairs: Any, count: Any, channels: Any,
                  sums: str) -> None:
        s, tiles, planes = self.sizes, self.tiles, self.sizes.planes
        block, nr, each = s.block, s.nr, s.planes.each
        cache = fn.alloca("i32", s.depth * each)
        _zeros(fn, cache, 0, s.depth * each)
        # of an image, with zeros for a tile that ends after it
        apart = planes.strides[0] if planes.merged else planes.strides[0] + ROWS
        room = block.size[0] * apart + 2 * ROWS
        columns = fn.alloca("i32", s.panels_each * room * nr)
        image, channel, *places = self.c.a.strides
        with fn.loop(0, pairs, block.size[0], "n") as n, \
                fn.loop(0, prod(block.blocks[1:]), hint="b") as b:
            starts = [n, *(fn.mul(i, size) for i, size in
                           zip(unravel(fn, b, block.blocks[1:]), block.size[1:], strict=True))]
            counts = block.valid(fn, starts, pairs)
            planes.copy(tiles, fn, source, [2 * image, *places], channel, image, count, starts,
                        counts[0], cache, lambda c, k: self._both(fn, fn.add(n, k)))
            self._lines(fn, grads, starts, counts, channels, columns, room, apart)
            begun = fn.val(f"and i1 {fn.val(f'icmp eq i64 {n}, 0')}, "
                           f"{fn.val(f'icmp eq i64 {b}, 0')}")
            length = planes.length(fn, counts)
            kc = _up(length) if isinstance(length, int) else \
                fn.val(f"and i64 {fn.add(length, ROWS - 1)}, {-ROWS}")
            table = tiles.table("KERNEL_taps", planes.taps)

            def register(i: Any, high: int, o: Any, wide: int, first: str, x: str, v: str) -> None:
                name = tile_function(
                    self.module, f"KERNEL_tiles_{high}x{wide}", self.t, (high, wide),
                    _Place(each, 1), _Place(1, nr), s.taps * s.width, _WHOLE)
                # a span of columns is a panel
                v = fn.gep("i32", v, fn.mul(o, room))
                x = fn.gep("i32", x, fn.mul(i, each))
                z = fn.gep("float", sums, fn.add(fn.mul(i, s.taps * s.width), o))
                with fn.loop(0, s.taps, hint="t") as tap:
                    at = fn.load("i32", fn.gep("i32", table, tap), 4)
                    from_ = fn.gep("i32", x, fn.val(f"sext i32 {at} to i64"))
                    fn.do(f"call void @{name}(ptr {from_}, ptr {v}, "
                          f"ptr {fn.gep('float', z, fn.mul(tap, s.width))}, i64 {kc}, i1 {first})")

            def image_(k: Any, first: str) -> None:
                x = fn.gep("i32", cache, fn.mul(k, planes.strides[0]))
                v = fn.gep("i32", columns, fn.mul(k, apart * nr))
                _spans(fn, channels, lambda o, wide: _spans(
                    fn, count, lambda i, high: register(i, high, o, wide, first, x, v)))

            if planes.merged or block.size[0] == 1:
                image_(0, begun)
            else:
                with fn.loop(0, counts[0], hint="k") as k:
                    image_(k, fn.val(f"and i1 {begun}, {fn.val(f'icmp eq i64 {k}, 0')}"))

    def _lines(self, fn: Fn, grads: str, starts: list[Any], counts: list[Any], channels: Any,
               columns: str, room: int, apart: int) -> None:
        """The gradient's places as rows, its channels side by side, with zeros between lines:
        [panel, image, *places of a plane, nr]."""
        s, lines, nr = self.sizes, self.sizes.planes.lines, self.sizes.nr
        image, channel, *places = self.c.b.strides
        image *= self.together

        def line(d: int, from_: str, there: str, inside: str | None, some: Any) -> None:
            count: Any = counts[d + 1]
            if inside is not None:
                count = fn.val(f"select i1 {inside}, i64 {count}, i64 0")
            if d < len(places) - 1:
                with fn.loop(0, lines[d], hint="y") as y:
                    line(d + 1, fn.val(f"getelementptr i16, ptr {from_}, "
                                       f"i64 {fn.mul(y, places[d])}"),
                         fn.gep("i32", there, fn.mul(y, s.planes.strides[d + 1] * nr)),
                         fn.val(f"icmp slt i64 {y}, {count}"), some)
            elif places[d] == 1:
                self._turned(fn, from_, channel, some, count, there)
                self._blank(fn, there, count, lines[d])
            else:
                self._blank(fn, there, 0, lines[d])
                with fn.loop(0, count, hint="x") as x, fn.loop(0, some, hint="o") as o:
                    at = fn.add(fn.mul(x, places[d]), fn.mul(o, channel))
                    self._element(fn, fn.gep("i16", from_, at),
                                  fn.gep("i32", there, fn.add(fn.mul(x, nr), o)))

        with fn.loop(0, channels, _LINE, "q") as q, fn.loop(0, counts[0], hint="m") as m:
            panel = fn.val(f"udiv i64 {q}, {nr}")
            there = fn.gep("i32", columns, fn.add(
                fn.mul(fn.add(fn.mul(panel, room), fn.mul(m, apart)), nr),
                fn.val(f"urem i64 {q}, {nr}")))
            from_ = fn.gep("i16", grads, fn.add(fn.mul(fn.add(starts[0], m), image),
                                                fn.mul(q, channel)))
            for i, step in zip(starts[1:], places, strict=True):
                from_ = fn.gep("i16", from_, fn.mul(i, step))
            self._begun(fn, fn.add(starts[0], m))
            line(0, from_, there, None, smin(fn, fn.val(f"sub i64 {channels}, {q}"), _LINE))
            self._blank(fn, fn.gep("i32", there, s.planes.strides[0] * nr), 0, ROWS)

    def _blank(self, fn: Fn, to: str, first: Any, last: int) -> None:
        """Zeros in rows `first` to `last`."""
        with fn.loop(first, last, hint="z") as r:
            fn.store(f"<{_LINE} x i32>", "zeroinitializer",
                     fn.gep("i32", to, fn.mul(r, self.sizes.nr)), 4)

    def _wrong(self, fn: Fn, count: Any, channels: Any, sums: str) -> str:
        """Whether any of the sums is not finite (an i1)."""
        s, tiles = self.sizes, self.tiles
        watch = Watch(tiles, fn)
        with fn.loop(0, fn.mul(count, s.taps), hint="i") as i, \
                fn.loop(0, channels, _LINE, "v") as v:
            at = fn.gep("float", sums, fn.add(fn.mul(i, s.width), v))
            watch.see(fn.load(tiles.vector, at, 4))
        return watch.wrong()


def emit_short(c: Convolution, t: Target, finish: Any, out: Emitted) -> None:
    """`convolutions.choice.emit_convolution` of bfloat16 operands: by tiles, or in pairs."""
    tiles = worth_tiles(c.kind, c.y, c.w, c.groups)
    if c.kind == "conv_weight":
        (TileWeight if tiles else PairWeight)(c, t, finish()).emit(out)
        return
    for walks in c.walks():
        (TileForward if tiles else PairForward)(c, walks, t, finish()).emit(out)
