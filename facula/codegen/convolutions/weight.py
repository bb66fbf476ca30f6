"""The kernels of a convolution's gradient by its weight.

Rows of register tiles are input channels and taps, vectors are output channels, and the sum runs
over places: those of the gradient are turned so that its channels lie side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from facula.codegen.convolutions.convolution import Convolution, Emitted
from facula.codegen.convolutions.direct import TileWriter
from facula.codegen.convolutions.lanewise import LanesWeight, suits
from facula.codegen.convolutions.pointwise_weight import Points
from facula.codegen.convolutions.walks import Block, Walk, grow
from facula.codegen.convolutions.winograd import WinogradWeight, channels_for, worthwhile
from facula.codegen.kernel import KernelDraft
from facula.codegen.llvm import Fn, Module
from facula.codegen.products.tiles import PARAMS, operand, smin, unravel
from facula.codegen.target import Target, target

__all__ = ["Weight", "weight_parts"]


class WeightSizes:
    """How the gradient of a weight is cut into tiles."""

    share = 1_000_000
    """Operations that are worth a tile of their own."""

    def __init__(self, x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...],
                 stride: Sequence[int], low: Sequence[int], dilation: Sequence[int],
                 groups: int, item: int, t: Target, filtered: bool = True):
        walks = tuple(Walk(out, k, -p, s, e, n) for n, out, k, s, p, e in
                      zip(x[2:], y[2:], w[2:], stride, low, dilation))
        self.out, self.red = w[0] // groups, w[1]
        self.taps = prod(w[2:])
        lanes = t.lanes(item)
        self.vectors = -(-self.out // lanes)
        nv = min(self.vectors, 2)
        most = t.tile(nv)
        if self.taps >= most:
            self.tap_rows = -(-self.taps // -(-self.taps // most))
            self.channel_rows = 1
        else:
            self.tap_rows = self.taps
            self.channel_rows = min(max(most // self.taps, 1), self.red)
        rows = self.tap_rows * self.channel_rows
        self.squares = filtered and worthwhile({4: "float32"}.get(item, ""), walks, x[0],
                                               self.red, self.out, lanes)
        if self.vectors > 2 and not self.squares:
            wide = max(min((t.registers - 2) // (rows + 1), 8, self.vectors), 2)
            nv = -(-self.vectors // -(-self.vectors // wide))
        self.nv, self.nr = nv, nv * lanes
        self.panels = -(-self.vectors // nv)
        per = max((channels_for(-(-y[-1] // 2)) if self.squares else 128 * 4 // item) // self.nr, 1)
        self.panels_each = -(-self.panels // -(-self.panels // per))
        self.width = self.panels_each * self.nr
        counts = (y[0], *y[2:])
        ones = [1] * len(counts)
        points = 256 * 4 // item
        size = grow(counts, ones, points)
        while points > 8 and prod(Block(walks, counts, tuple(size), tuple(size)).extents) > 1 << 15:
            points //= 2
            size = grow(counts, ones, points)
        self.block = Block(walks, counts, tuple(size), tuple(size))
        each = prod(self.block.extents)
        most = min(131072 // item // (self.width * self.taps), 262144 // item // each)
        if self.squares:
            most = min(8192 // self.width, 64)
        step = self.channel_rows
        most = max(most // step * step, step)
        steps = -(-self.red // step)
        times = max(most // step, 1)
        self.depth = min(-(-steps // -(-steps // times)) * step, -(-self.red // step) * step)
        self.tiles = groups * -(-self.red // self.depth) * -(-self.panels // self.panels_each)
        if suits(groups, self.out, self.red, lanes):
            self.tiles = -(-groups // lanes)


def weight_parts(x: tuple[int, ...], w: tuple[int, ...], y: tuple[int, ...],
                 stride: Sequence[int], low: Sequence[int], dilation: Sequence[int],
                 groups: int, item: int) -> int:
    """Into how many parts the images are to be split so that there are tiles to share; 0: none."""
    flops = 2.0 * prod(y) * prod(w[1:])
    if item == 2:
        from facula.codegen.convolutions.pairs import pair_sizes
        sizes = pair_sizes(x, w, y, stride, low, dilation, groups)
    else:
        sizes = WeightSizes(x, w, y, stride, low, dilation, groups, item, target())
    each = 100_000 if suits(groups, sizes.out, sizes.red, target().lanes(item)) else sizes.share
    wanted = min(16, int(flops // each)) // sizes.tiles
    if wanted < 2 or x[0] < 2:
        return 0
    each = -(-x[0] // wanted)
    each += each % 2 if item == 2 else 0
    parts = -(-x[0] // each)
    return parts if parts > 1 else 0


class Weight:
    """conv_weight; `together` images are one to its sums."""

    together = 1

    def __init__(self, c: Convolution, t: Target, finish: Any):
        self.c, self.t, self.finish = c, t, finish
        self.module = Module()
        self.tiles = self._tiles()
        self.sizes = self._sizes()

    def _tiles(self) -> TileWriter:
        return TileWriter(self.module, self.c.dtype, self.t)

    def _sizes(self) -> WeightSizes:
        c = self.c
        return WeightSizes(c.x, c.w, c.y, c.stride, c.low, c.dilation, c.groups, c.item, self.t)

    def emit(self, out: Emitted) -> None:
        c, s, tiles = self.c, self.sizes, self.tiles
        scalar, lanes = tiles.scalar, tiles.lanes
        if suits(c.groups, s.out, s.red, lanes):
            LanesWeight(c, s.block.walks, self.t, tiles).emit(out, self.finish)
            return
        points = Points(self)
        if points.fits:
            points.emit(out)
            return
        fn = Fn(self.module, "KERNEL", PARAMS, attrs=self.t.attributes)
        fn.written = True
        source, grads = operand(fn, 0), operand(fn, 1)
        parts = max(c.parts, 1)
        c_blocks, o_blocks = -(-s.red // s.depth), -(-s.panels // s.panels_each)
        part, g, cb, ob = unravel(fn, "%tile", (parts, c.groups, c_blocks, o_blocks))
        c0, o0 = fn.mul(cb, s.depth), fn.mul(ob, s.width)
        count = smin(fn, fn.val(f"sub i64 {s.red}, {c0}"), s.depth) if c_blocks > 1 else s.red
        channels = smin(fn, fn.val(f"sub i64 {s.out}, {o0}"), s.width) if o_blocks > 1 else s.out
        rows = s.depth * s.taps
        ld = -(-rows // lanes) * lanes
        sums = fn.alloca(scalar, ld * s.width)
        turned = fn.alloca(scalar, ld * s.width + lanes)
        source = fn.gep(tiles.source, source, fn.add(fn.mul(
            fn.add(fn.mul(g, s.red), c0), c.a.strides[1]), c.a.offset))
        grads = fn.gep(tiles.source, grads, fn.add(fn.mul(
            fn.add(fn.mul(g, s.out), o0), c.b.strides[1]), c.b.offset))
        share = -(-c.x[0] // parts)
        low = fn.mul(part, share)
        high: Any = smin(fn, fn.add(low, share), c.x[0]) if c.parts else c.x[0]
        if s.squares:
            wrong = WinogradWeight(self).sum(fn, source, grads, low, high, count, channels, sums)
            with fn.when(wrong):
                self._sum(fn, source, grads, low, high, count, channels, sums)
        else:
            self._sum(fn, source, grads, low, high, count, channels, sums)
        tiles.turn(fn, sums, s.width, turned, ld, ld, s.width)
        self.finish.taps(fn, part, fn.add(fn.mul(g, s.out), o0), channels, fn.mul(c0, s.taps),
                         fn.mul(count, s.taps), turned, ld)
        fn.finish()
        out.last.append((KernelDraft("KERNEL", ("a", "b", *self.finish.roles()),
                                     parts * c.groups * c_blocks * o_blocks, self.module),
                         self.finish))

    def _sum(self, fn: Fn, source: str, grads: str, low: Any, high: Any, count: Any,
             channels: Any, sums: str) -> None:
        s, tiles = self.sizes, self.tiles
        block, scalar, lanes = s.block, tiles.scalar, tiles.lanes
        each = prod(block.extents)
        cache = fn.alloca(scalar, tiles.room(block, s.depth))
        room = block.points + lanes
        columns = fn.alloca(scalar, s.panels_each * room * s.nr)
        table = tiles.table("KERNEL_places", block.offsets(block.size, block.out_steps))
        panels = fn.val(f"sdiv i64 {fn.add(channels, s.nr - 1)}, {s.nr}") \
            if not isinstance(channels, int) else -(-channels // s.nr)
        with fn.loop(low, high, block.size[0], "n") as n, \
                fn.loop(0, prod(block.blocks[1:]), hint="b") as b:
            starts = [n, *(fn.mul(i, size) for i, size in
                           zip(unravel(fn, b, block.blocks[1:]), block.size[1:], strict=True))]
            counts = block.valid(fn, starts, high)
            self._copy(fn, source, count, starts, counts[0], cache)
            self.columns(fn, grads, block, starts, counts, channels, columns, room)
            begun = fn.val(f"icmp eq i64 {n}, {low}")
            begun = fn.val(f"and i1 {begun}, {fn.val(f'icmp eq i64 {b}, 0')}")
            kc: Any = 1
            for size in counts:
                kc = fn.mul(kc, size)
            with fn.loop(0, panels, hint="p") as p:
                v = fn.gep(scalar, columns, fn.mul(p, room * s.nr))
                self._rows(fn, p, v, kc, begun, count, each, cache, sums, table)

    def _copy(self, fn: Fn, source: str, count: Any, starts: list[Any], images: Any, cache: str
              ) -> None:
        """What the block reads of `count` input channels."""
        image, channel, *places = self.c.a.strides
        self.tiles.copy_source(fn, self.sizes.block, source, [image, *places], channel, count,
                               starts, images, cache)

    def _rows(self, fn: Fn, p: Any, v: str, kc: Any, begun: str, count: Any, each: int,
              cache: str, sums: str, table: str) -> None:
        """Every register tile over one panel of columns."""
        s, tiles = self.sizes, self.tiles
        scalar = tiles.scalar
        taps = s.block.taps()

        def register(i: Any, channels: int, t0: int, tap_rows: int) -> None:
            name = f"KERNEL_micro_{channels}x{t0}x{tap_rows}"
            rows = [k * each + taps[t0 + t] for k in range(channels) for t in range(tap_rows)]
            places = [(k * s.taps + t0 + t) * s.width for k in range(channels)
                      for t in range(tap_rows)]
            tiles.micro(name, rows, s.nv, places, table, s.nr)
            x = fn.gep(scalar, cache, fn.mul(i, each))
            z = fn.gep(scalar, sums, fn.add(fn.mul(i, s.taps * s.width), fn.mul(p, s.nr)))
            fn.do(f"call void @{name}(ptr {x}, ptr {v}, ptr {z}, i64 {kc}, i1 {begun})")

        for t0 in range(0, s.taps, s.tap_rows):
            tap_rows = min(s.tap_rows, s.taps - t0)
            rest = s.red % s.channel_rows
            if not rest:
                with fn.loop(0, count, s.channel_rows, "c") as i:
                    register(i, s.channel_rows, t0, tap_rows)
                continue
            if s.red >= s.channel_rows:
                end = fn.val(f"sub i64 {count}, {fn.val(f'srem i64 {count}, {s.channel_rows}')}")
                with fn.loop(0, end, s.channel_rows, "c") as i:
                    register(i, s.channel_rows, t0, tap_rows)
            left = fn.val(f"srem i64 {count}, {s.channel_rows}")
            with fn.when(fn.val(f"icmp ne i64 {left}, 0")):
                register(fn.val(f"sub i64 {count}, {left}"), rest, t0, tap_rows)

    def columns(self, fn: Fn, grads: str, block: Block, starts: list[Any], counts: list[Any],
                channels: Any, columns: str, room: int) -> None:
        """The gradient's places as rows, its channels side by side: [panel, place, nr]."""
        c, s, tiles = self.c, self.sizes, self.tiles
        image, channel, *places = c.b.strides
        scalar, lanes = tiles.scalar, tiles.lanes
        contiguous = list(places) == [prod(c.y[k + 3:]) for k in range(len(places))]
        image *= self.together
        inner = prod(block.size[1:])
        panels = fn.val(f"sdiv i64 {fn.add(channels, lanes - 1)}, {lanes}") \
            if not isinstance(channels, int) else -(-channels // lanes)
        with fn.loop(0, panels, hint="q") as q, fn.loop(0, counts[0], hint="m") as m:
            if isinstance(panels, int) and panels <= s.nv:
                panel: Any = 0
                vector: Any = q
            else:
                panel = fn.val(f"udiv i64 {q}, {s.nv}")
                vector = fn.val(f"urem i64 {q}, {s.nv}")
            first = fn.mul(q, lanes)
            there = fn.gep(scalar, columns,
                           fn.add(fn.mul(fn.add(fn.mul(panel, room), fn.mul(m, inner)), s.nr),
                                  fn.mul(vector, lanes)))
            line = fn.gep(tiles.source, grads, fn.add(fn.mul(fn.add(starts[0], m), image),
                                                      fn.mul(first, channel)))
            some = smin(fn, fn.val(f"sub i64 {channels}, {first}"), lanes)
            for i, step in zip(starts[1:], places, strict=True):
                line = fn.gep(tiles.source, line, fn.mul(i, step))
            self._begun(fn, fn.add(starts[0], m))
            if contiguous:
                count: Any = 1
                for size in counts[1:]:
                    count = fn.mul(count, size)
                self._turned(fn, line, channel, some, count, there)
            else:
                self._gathered(fn, line, channel, places, some, counts[1:], block, there)

    def _begun(self, fn: Fn, image: Any) -> None:
        """Columns of this image follow."""

    def _turned(self, fn: Fn, line: str, channel: int, some: Any, count: Any, there: str
                ) -> None:
        self.turned(fn, line, channel, some, count, there, self.sizes.nr)

    def turned(self, fn: Fn, line: str, channel: int, some: Any, count: Any, there: str,
               nr: int) -> None:
        """Squares of `count` places and `some` channels, turned in registers; rows are `nr` apart.
        """
        tiles = self.tiles
        scalar, vector, lanes = tiles.scalar, tiles.vector, tiles.lanes
        name = "KERNEL_columns"
        if name not in self.module.functions:
            params = (("ptr", "from"), ("ptr", "to"), ("i64", "places"), ("i64", "rows"))
            one = Fn(self.module, name, params, attrs=f"noinline {self.t.attributes}",
                     inner=True)
            values = []
            for k in range(lanes):
                inside = one.val(f"icmp slt i64 {k}, %rows")
                limit = one.val(f"select i1 {inside}, i64 %places, i64 0")
                at = one.val(f"getelementptr {scalar}, ptr %from, i64 {k * channel}")
                values.append(tiles.some(one, at, limit))
            for j, value in enumerate(tiles.transposed(one, values)):
                one.store(vector, value, one.gep(scalar, "%to", j * nr), tiles.item)
            one.finish()
        with fn.loop(0, count, lanes, "i") as i:
            left = fn.val(f"sub i64 {count}, {i}")
            fn.do(f"call void @{name}(ptr {fn.gep(scalar, line, i)}, "
                  f"ptr {fn.gep(scalar, there, fn.mul(i, nr))}, i64 {left}, i64 {some})")

    def _gathered(self, fn: Fn, line: str, channel: int, places: Sequence[int], some: Any,
                  counts: Sequence[Any], block: Block, there: str) -> None:
        """One element after the other, from places that do not lie side by side."""
        tiles, s = self.tiles, self.sizes
        scalar = tiles.scalar
        steps = [prod(block.size[k + 2:]) * s.nr for k in range(len(places))]

        def dimension(d: int, from_: str, to: str) -> None:
            if d == len(places):
                with fn.loop(0, some, hint="o") as o:
                    self._element(fn, fn.gep(tiles.source, from_, fn.mul(o, channel)),
                                  fn.gep(scalar, to, o))
                return
            with fn.loop(0, counts[d], hint="y") as y:
                dimension(d + 1, fn.gep(tiles.source, from_, fn.mul(y, places[d])),
                          fn.gep(scalar, to, fn.mul(y, steps[d])))

        dimension(0, line, there)

    def _element(self, fn: Fn, at: str, to: str) -> None:
        """Copy one element of a column."""
        scalar = self.tiles.scalar
        fn.store(scalar, fn.load(scalar, at), to)
