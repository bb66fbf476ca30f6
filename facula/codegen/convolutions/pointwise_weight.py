"""The gradient of a weight of one point: a product of two matrices whose places lie side by side.

gradient[o, c] = sum over images and places of g[image, o, place] times x[image, c, place].  One of
the two is read where it lies, a row of a register tile for each of its channels; of the other a
block of places at a time is turned, so that its channels are vectors.  That is the one with fewer
channels, where places of both are neighbours: each of its squares is then turned for more products.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

from facula.codegen.convolutions.walks import Block, Walk, flat, grow
from facula.codegen.kernel import KernelDraft, View
from facula.codegen.llvm import Fn
from facula.codegen.products.contraction import crowded
from facula.codegen.products.tiles import PARAMS, batch_offset, operand, smin, unravel

if TYPE_CHECKING:
    from facula.codegen.convolutions.weight import Weight

__all__ = ["Points"]

_POINTS = 256
"""Places of a block, in float32."""

_ROWS = 256
"""Channels that are read where they lie, of a tile, in float32."""


class Points:
    """The kernel of such a gradient; `fits` says whether there is one."""

    fits = False

    def __init__(self, weight: Weight):
        self.weight = weight
        c, self.t, self.tiles = weight.c, weight.t, weight.tiles
        self.c = c
        if c.short:
            return
        walks = tuple(Walk(out, k, -p, s, e, n) for n, out, k, s, p, e in zip(
            c.x[2:], c.y[2:], c.w[2:], c.stride, c.low, c.dilation, strict=True))
        if any(w.taps != 1 or w.start < 0 or w.start + (w.count - 1) * w.step >= w.source
               for w in walks):
            return
        lines = tuple(Walk(n, 1, 0, 1, 1, n) for n in c.y[2:])
        grads = self._line(lines, c.b.strides[2:])
        if grads is None:
            return
        source = self._line(walks, c.a.strides[2:])
        out, red, item = c.w[0] // c.groups, c.w[1], c.item
        image, channel, *places = c.a.strides
        far_x, far_g = crowded(channel * item), crowded(c.b.strides[1] * item)
        # rows are channels of the gradient, and what is turned is the input
        self.turned = source is not None and not far_g and (red <= out or far_x)
        if far_x and not self.turned:
            return
        if source is not None:
            walks, places = (source,), [1]
        elif places[-1] * walks[-1].step > 2:
            return
        self.walks, self.places = walks, places
        self.counts = (c.y[0], *(w.count for w in walks))
        x, g = c.a, c.b
        self.x_steps = (image, *(w.step * s for w, s in zip(walks, places, strict=True)))
        x = View(x.strides, x.offset + sum(w.start * s for w, s in zip(walks, places, strict=True)))
        own = [prod(self.counts[d + 1:]) for d in range(1, len(self.counts))]
        self.g_steps = (g.strides[0], *own)
        self.rows, self.columns = (g, x) if self.turned else (x, g)
        self.row_steps, self.column_steps = (self.g_steps, self.x_steps) if self.turned else \
            (self.x_steps, self.g_steps)
        self.height, self.across = (out, red) if self.turned else (red, out)
        self._sizes()
        self.fits = True

    @staticmethod
    def _line(walks: tuple[Walk, ...], strides: Sequence[int]) -> Walk | None:
        """All places as one line of neighbours, if they are."""
        if len(walks) == 1:
            w = walks[0]
            return w if w.step == 1 and not w.start and w.count == w.source and strides[0] == 1 \
                else None
        found = flat(walks, strides)
        return found[0] if found is not None and found[1] == 1 else None

    def _sizes(self) -> None:
        item, lanes = self.c.item, self.tiles.lanes
        vectors = -(-self.across // lanes)
        self.nv = min(vectors, 2)
        self.nr = self.nv * lanes
        panels = -(-vectors // self.nv)
        per = max(128 * 4 // item // self.nr, 1)
        self.panels = -(-panels // -(-panels // per))       # of a tile
        self.width = self.panels * self.nr
        self.o_blocks = -(-panels // self.panels)
        most = self.t.tile(self.nv)
        tall = min(_ROWS * 4 // item, self.height)
        self.each = -(-tall // -(-tall // most))            # rows of a register tile
        times = max(tall // self.each, 1)
        all_ = -(-self.height // self.each)
        self.tall = -(-all_ // -(-all_ // times)) * self.each
        self.r_blocks = -(-self.height // self.tall)
        counts, points = self.counts, _POINTS * 4 // item
        unit = [*[1] * (len(counts) - 1), min(lanes, counts[-1])]
        size = tuple(grow(counts, unit, points))
        self.block = Block(self.walks, counts, size, size)

    def _soon(self, offsets: Sequence[int], channel: int, channels: int) -> list[int]:
        """Where the lines of the cache are that hold the places `offsets` of some channels, one for
        each place, as far as there are so many."""
        line = 64 // self.c.item
        firsts = list({at // line: at for at in reversed(offsets)}.values())[::-1]
        found = [k * channel + at for k in range(channels) for at in firsts]
        return [found[k % len(found)] for k in range(len(offsets))]

    def emit(self, out: Any) -> None:
        weight, c, tiles = self.weight, self.c, self.tiles
        scalar, lanes = tiles.scalar, tiles.lanes
        fn = Fn(weight.module, "KERNEL", PARAMS, attrs=self.t.attributes)
        fn.written = True
        x, g = operand(fn, 0), operand(fn, 1)
        rows, columns = (g, x) if self.turned else (x, g)
        parts = max(c.parts, 1)
        part, group, rb, ob = unravel(fn, "%tile", (parts, c.groups, self.r_blocks, self.o_blocks))
        r0, o0 = fn.mul(rb, self.tall), fn.mul(ob, self.width)
        count = smin(fn, fn.val(f"sub i64 {self.height}, {r0}"), self.tall) \
            if self.r_blocks > 1 else self.height
        channels = smin(fn, fn.val(f"sub i64 {self.across}, {o0}"), self.width) \
            if self.o_blocks > 1 else self.across
        rows = fn.gep(scalar, rows, fn.add(fn.mul(fn.add(
            fn.mul(group, self.height), r0), self.rows.strides[1]), self.rows.offset))
        columns = fn.gep(scalar, columns, fn.add(fn.mul(fn.add(
            fn.mul(group, self.across), o0), self.columns.strides[1]), self.columns.offset))
        share = -(-c.x[0] // parts)
        low = fn.mul(part, share)
        high: Any = smin(fn, fn.add(low, share), c.x[0]) if c.parts else c.x[0]
        ld = -(-self.tall // lanes) * lanes
        sums = fn.alloca(scalar, ld * self.width + lanes)
        self._sum(fn, rows, columns, low, high, count, channels, sums)
        per_group = c.w[0] // c.groups
        if self.turned:
            weight.finish.taps(fn, part, fn.add(fn.mul(group, per_group), r0), count, o0, channels,
                               sums, self.width)
        else:
            turned = fn.alloca(scalar, ld * self.width + lanes)
            tiles.turn(fn, sums, self.width, turned, ld, ld, self.width)
            weight.finish.taps(fn, part, fn.add(fn.mul(group, per_group), o0), channels, r0, count,
                               turned, ld)
        fn.finish()
        out.last.append((KernelDraft("KERNEL", ("a", "b", *weight.finish.roles()),
                                     parts * c.groups * self.r_blocks * self.o_blocks,
                                     weight.module),
                         weight.finish))

    def _sum(self, fn: Fn, rows: str, columns: str, low: Any, high: Any, count: Any,
             channels: Any, sums: str) -> None:
        """sums[row, column], over images from `low` to `high` and all places."""
        block, tiles, nr = self.block, self.tiles, self.nr
        scalar, lanes = tiles.scalar, tiles.lanes
        across, channel = self.rows.strides[1], self.columns.strides[1]
        room = -(-block.points // lanes) * lanes + lanes * block.size[0]
        panel = fn.alloca(scalar, room * nr)
        offsets = block.offsets(block.size, self.row_steps)
        table = tiles.table("KERNEL_places", offsets)
        soon = (tiles.table("KERNEL_rows_soon", self._soon(offsets, across, self.each)),
                tiles.table("KERNEL_columns_soon", self._soon(
                    block.offsets(block.size, self.column_steps), channel, lanes)))
        panels = fn.val(f"sdiv i64 {fn.add(channels, nr - 1)}, {nr}") \
            if not isinstance(channels, int) else -(-channels // nr)
        blocks = prod(block.blocks[1:])
        with fn.loop(low, high, block.size[0], "n") as n, fn.loop(0, blocks, hint="b") as b:
            starts = self._starts(fn, n, b)
            counts = block.valid(fn, starts, high)
            inner: Any = 1
            for size in counts[1:]:
                inner = fn.mul(inner, size)
            kc = fn.mul(counts[0], inner)
            begun = fn.val(f"and i1 {fn.val(f'icmp eq i64 {n}, {low}')}, "
                           f"{fn.val(f'icmp eq i64 {b}, 0')}")
            end = fn.val(f"icmp eq i64 {fn.add(b, 1)}, {blocks}")
            then = self._starts(
                fn, fn.val(f"select i1 {end}, i64 {fn.add(n, block.size[0])}, i64 {n}"),
                fn.val(f"select i1 {end}, i64 0, i64 {fn.add(b, 1)}"))
            x, v = (fn.gep(scalar, p, batch_offset(fn, starts, steps)) for p, steps in (
                (rows, self.row_steps), (columns, self.column_steps)))
            # nothing may be there after the last block; it is only asked for
            x1, v1 = (fn.val(f"getelementptr {scalar}, ptr {p}, i64 "
                             f"{batch_offset(fn, then, steps)}") for p, steps in (
                (rows, self.row_steps), (columns, self.column_steps)))
            with fn.loop(0, panels, hint="p") as p:
                column = fn.mul(p, nr)
                self._turn(fn, fn.gep(scalar, v, fn.mul(column, channel)), counts[0], inner,
                           fn.val(f"sub i64 {channels}, {column}"), panel)
                self._rows(fn, x, panel, fn.gep(scalar, sums, column), kc, begun, count, table,
                           soon, x1, fn.val(f"getelementptr {scalar}, ptr {v1}, i64 "
                                            f"{fn.mul(column, channel)}"))

    def _starts(self, fn: Fn, n: Any, b: Any) -> list[Any]:
        """The first outputs of block `b` of the images from `n` on."""
        block = self.block
        return [n, *(fn.mul(i, size) for i, size in zip(
            unravel(fn, b, block.blocks[1:]), block.size[1:], strict=True))]

    def _rows(self, fn: Fn, x: str, panel: str, sums: str, kc: Any, begun: str, count: Any,
              table: str, soon: tuple[str, str], x1: str, v1: str) -> None:
        """Every register tile over one panel of columns."""
        tiles, scalar = self.tiles, self.tiles.scalar
        across, channel = self.rows.strides[1], self.columns.strides[1]

        def register(i: Any, rows: int) -> None:
            name = f"KERNEL_micro_{rows}"
            tiles.micro(name, [k * across for k in range(rows)], self.nv,
                        [k * self.width for k in range(rows)], table, self.nr, soon=soon)
            # of the next block each asks for its own rows, and in turn for vectors of columns
            vector = fn.val(f"urem i64 {fn.val(f'udiv i64 {i}, {self.each}')}, {self.nv}")
            far = fn.mul(vector, tiles.lanes * channel)
            rows_soon, columns_soon = (fn.val(f"getelementptr {scalar}, ptr {p}, i64 {at}")
                                       for p, at in ((x1, fn.mul(i, across)), (v1, far)))
            fn.do(f"call void @{name}(ptr {fn.gep(scalar, x, fn.mul(i, across))}, ptr {panel}, "
                  f"ptr {fn.gep(scalar, sums, fn.mul(i, self.width))}, i64 {kc}, i1 {begun}, "
                  f"ptr {rows_soon}, ptr {columns_soon})")

        rest = self.height % self.each
        if not rest:
            with fn.loop(0, count, self.each, "r") as i:
                register(i, self.each)
            return
        left = fn.val(f"srem i64 {count}, {self.each}")
        end = fn.val(f"sub i64 {count}, {left}")
        if self.height >= self.each:
            with fn.loop(0, end, self.each, "r") as i:
                register(i, self.each)
        with fn.when(fn.val(f"icmp ne i64 {left}, 0")):
            register(end, rest)

    def _turn(self, fn: Fn, source: str, images: Any, count: Any, channels: Any, panel: str
              ) -> None:
        """A panel of columns: `count` places of each image as rows, channels side by side."""
        tiles, nr, weight = self.tiles, self.nr, self.weight
        scalar, lanes = tiles.scalar, tiles.lanes
        image, channel = self.columns.strides[:2]
        name = "KERNEL_square"
        if name not in weight.module.functions:
            one = Fn(weight.module, name, (("ptr", "from"), ("ptr", "to")),
                     attrs=f"noinline {self.t.attributes}", inner=True)
            values = [one.load(tiles.vector, one.gep(scalar, "%from", k * channel), tiles.item)
                      for k in range(lanes)]
            for j, value in enumerate(tiles.transposed(one, values)):
                one.store(tiles.vector, value, one.gep(scalar, "%to", j * nr), tiles.item)
            one.finish()
        whole = fn.val(f"sub i64 {count}, {fn.val(f'srem i64 {count}, {lanes}')}")
        rest = fn.val(f"sub i64 {count}, {whole}")
        with fn.loop(0, images, hint="m") as m, fn.loop(0, self.nv, hint="q") as q:
            first = fn.mul(q, lanes)
            line = fn.gep(scalar, source, fn.add(fn.mul(m, image), fn.mul(first, channel)))
            there = fn.gep(scalar, panel, fn.add(fn.mul(fn.mul(m, count), nr), first))
            left = fn.val(f"sub i64 {channels}, {first}")
            full = fn.val(f"icmp sge i64 {left}, {lanes}")
            with fn.when(full):
                with fn.loop(0, whole, lanes, "i") as i:
                    fn.do(f"call void @{name}(ptr {fn.gep(scalar, line, i)}, "
                          f"ptr {fn.gep(scalar, there, fn.mul(i, nr))})")
                weight.turned(fn, fn.gep(scalar, line, whole), channel, lanes, rest,
                              fn.gep(scalar, there, fn.mul(whole, nr)), nr)
            with fn.when(fn.val(f"xor i1 {full}, true")):
                weight.turned(fn, line, channel, left, count, there, nr)
