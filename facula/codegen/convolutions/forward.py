"""The kernel of a convolution, and of its gradient by the input.

Each tile copies what it reads of its source, with zeros around it; kernels of one point read it
where it lies.  Where all places are one block, each panel of the weight is read by one tile: it
packs the panel for itself, and larger kernels share one copy of the source.
"""

from __future__ import annotations

import itertools
from math import prod
from typing import Any

from facula.codegen.convolutions.convolution import Convolution, Emitted
from facula.codegen.convolutions.direct import TileWriter
from facula.codegen.convolutions.lanewise import suits
from facula.codegen.convolutions.panels import Panels
from facula.codegen.convolutions.walks import Block, Walk, flat, grow, micro_rect, reached
from facula.codegen.convolutions.winograd import Winograd, worthwhile
from facula.codegen.kernel import KernelDraft
from facula.codegen.llvm import Fn, Module
from facula.codegen.products.tiles import PARAMS, batch_offset, operand, smin, unravel
from facula.codegen.target import Target

__all__ = ["Forward"]

_ALL = 512
"""As many places are one block, and each panel of the weight is then read by one tile alone."""

_DEPTH = 256
"""How many input channels at a time where the source is read where it lies."""

_EARLY = 24
"""How many channels before they are read it is asked for those that lie in memory."""


class Forward:
    """conv, or conv_input for the outputs of one remainder in every dimension."""

    def __init__(self, c: Convolution, walks: tuple[Walk, ...], t: Target, finish: Any):
        self.c, self.walks, self.t, self.finish = c, walks, t, finish
        self.module = Module()
        self.weight = Panels(self)
        self.tiles = tiles = self._tiles(self.module)
        per_group = c.w[0] // c.groups
        first, second, *taps = c.b.strides
        self.tap_strides = taps
        self.group_stride = per_group * first
        if c.kind == "conv":
            self.red, self.out, self.red_stride, self.out_stride = c.w[1], per_group, second, first
        else:
            self.red, self.out, self.red_stride, self.out_stride = per_group, c.w[1], first, second
        self.whole = self.red
        if c.short:
            self.red = -(-self.red // 2)
        self.taps = prod(w.taps for w in walks)
        lanes = tiles.lanes
        self.strides = c.a.strides
        self.tap0 = sum(w.tap0 * s for w, s in zip(walks, taps, strict=True))
        # does a row of the packed weight hold every tap, in the kernel's order?
        self.all_taps = taps == [prod(c.w[k + 3:]) for k in range(len(walks))] and all(
            w.taps == n and w.tap_step == 1 for w, n in zip(walks, c.w[2:], strict=True))
        self.by_lanes = suits(c.groups, self.out, self.red, lanes)
        line = None if self.by_lanes or c.short else flat(walks, c.a.strides[2:])
        if line is not None:
            walks, self.tap_strides = (line[0],), taps[-1:]
            self.walks, self.strides = walks, (*c.a.strides[:2], line[1])
        self.vectors = -(-self.out // lanes)
        counts = (c.x[0], *(w.count for w in walks))
        nv = min(self.vectors, 2)
        micro = micro_rect(counts, t.tile(nv))
        if self.vectors > 2:
            most = max(min((t.registers - 2) // (prod(micro) + 1), 8, self.vectors), 2)
            nv = -(-self.vectors // -(-self.vectors // most))
        self.nv, self.nr = nv, nv * lanes
        self.panels = -(-self.vectors // nv)
        self.squares: Winograd | None = None
        self.in_place = self._lies_in_place(micro)
        self.inline = self.copied = False
        if not c.short and worthwhile(c.dtype, walks, c.x[0], self.red, self.out, lanes):
            self.squares = squares = Winograd(self)
            self.nv, self.nr, self.panels = squares.nv, squares.nr, squares.panels
            self.panels_each, self.width = squares.panels_each, squares.width
            self.block = squares.block(counts)
            squares.plan(self.block)
            self._depth()
        else:
            self._tile(counts, micro)

    def _lies_in_place(self, micro: list[int]) -> bool:
        """Whether register tiles read the source where it lies: a copy of it would be read once
        for each panel of channels, as it is, and have no zeros in it."""
        if self.by_lanes or self.taps != 1 or self.c.short:
            return False
        if any(w.start < 0 or w.start + (w.count - 1) * w.step >= w.source for w in self.walks):
            return False
        _, channel, *places = self.strides
        if channel * 512 >= 1 << 31:
            return False
        line, item = 64, self.c.item
        along = (micro[-1] - 1) * self.walks[-1].step * places[-1] * item // line + 2
        # lines of the cache that a step of the sum reads, of which there is room for few
        return prod(micro[:-1]) * along * min(channel * item, line) <= 6 * line

    def _tiles(self, module: Module) -> TileWriter:
        return TileWriter(module, self.c.dtype, self.t)

    def _tile(self, counts: tuple[int, ...], micro: list[int]) -> None:
        """Sizes: of a block of places, of channels together, of input channels at a time."""
        c, item = self.c, self.c.item
        per = max(128 * 4 // item // self.nr, 1)
        self.panels_each = -(-self.panels // -(-self.panels // per))
        self.width = self.panels_each * self.nr
        others = c.groups * -(-self.panels // self.panels_each)
        # the sums of a block, twice (as they come and turned), are to stay in the second cache
        points = min(max(65536 // item // self.width, 64), 512)
        flops = 2.0 * prod(counts) * self.out * self.red * self.taps * c.groups
        wanted = max(min(flops // 1_000_000, 32), 1)

        def block(points: int) -> Block:
            return Block(self.walks, counts, tuple(grow(counts, micro, points)), tuple(micro))

        large = self.out * self.red * self.taps * item * c.groups > self.t.l2_bytes
        near = self.out_stride * self.nr + self.red_stride * self.red < 1 << 31
        once = not c.short and not c.lasting and prod(counts) <= _ALL
        if near and once and (self.in_place or 1 < self.taps <= 16 and large):
            # One tile reads a panel of the weight, so that it may pack it for itself; for all of
            # them the source is copied once.
            self.inline, self.copied = True, not self.in_place
            per = max(min(per, c.groups * self.panels // int(wanted)), 1)
            self.panels_each = -(-self.panels // -(-self.panels // per))
            self.width = self.panels_each * self.nr
            self.block = Block(self.walks, counts, counts, tuple(micro))
            self._depth()
            return
        self.block = block(points)
        while points > 16 and self.block.points > prod(micro) and (
                prod(self.block.blocks) * others < wanted
                or prod(self.block.extents) * item > 1 << 18):
            points //= 2
            self.block = block(points)
        if self.taps:
            self._depth()

    def _depth(self) -> None:
        """How many input channels at a time."""
        item, lanes = self.c.item, self.tiles.lanes
        if self.inline and not self.c.short or self.in_place:
            most = max(_DEPTH * 4 // item // self.taps // lanes, 1) * lanes
            self.depth = -(-self.red // -(-self.red // most))
            if self.depth < self.red:
                self.depth = -(-self.depth // lanes) * lanes
            return
        each = prod(self.block.extents) * item
        most = max(-(-128 // self.taps), min(24_576 // each, -(-384 // self.taps)))
        most = max(min(most, self.red, (1 << 19) // each), 1)
        self.depth = -(-self.red // -(-self.red // most))

    def tap_places(self) -> list[int]:
        """Where the taps of the walks lie in a kernel, in order."""
        return [sum((w.tap0 + t * w.tap_step) * s for w, t, s in
                    zip(self.walks, at, self.tap_strides, strict=True))
                for at in itertools.product(*(range(w.taps) for w in self.walks))]

    def emit(self, out: Emitted) -> None:
        c, block, tiles = self.c, self.block, self.tiles
        own: tuple[str, ...] = ("a", "b")
        if self.copied:
            own = (self._copy(out), "b")
        elif self.squares is not None:
            own = ("a", self.squares.packed(out), "b")
        elif self.taps and not self.inline:
            own = ("a", self._packed(out))
        fn = Fn(self.module, "KERNEL", PARAMS, attrs=self.t.attributes)
        fn.written = True
        source, packed = operand(fn, 0), operand(fn, 1)
        o_blocks = -(-self.panels // self.panels_each)
        g, *at, ob = unravel(fn, "%tile", (c.groups, *block.blocks, o_blocks))
        starts = [fn.mul(i, n) for i, n in zip(at, block.size, strict=True)]
        counts = block.valid(fn, starts)
        ld = -(-block.points // tiles.lanes) * tiles.lanes
        turned = fn.alloca(tiles.scalar, self.width * ld + tiles.lanes)
        channel = fn.mul(ob, self.width)
        channels = smin(fn, fn.val(f"sub i64 {self.out}, {channel}"), self.width) \
            if o_blocks > 1 else self.out
        if self.squares is not None:
            self.finish.first = 3
        if c.short:
            self.finish.ask(fn, block, starts, counts, fn.add(fn.mul(g, self.out), channel),
                            channels)
        if self.taps:
            sums = fn.alloca(tiles.scalar, self._room(ld))
            if self.squares is None:
                self._sum(fn, source, packed, g, ob, starts, counts, sums)
            else:
                weight = operand(fn, 2)
                wrong = self.squares.sum(fn, source, packed, g, ob, starts, counts, sums)
                with fn.when(wrong):
                    self._sum(fn, source, weight, g, ob, starts, counts, sums, True)
            turned, ld = self._by_channel(fn, sums, turned, ld, channels, counts)
        else:
            with fn.loop(0, self.width * ld, tiles.lanes, "i") as i:
                fn.store(tiles.vector, "zeroinitializer", fn.gep(tiles.scalar, turned, i),
                         c.item)
        self.finish.places(fn, block, starts, counts, fn.add(fn.mul(g, self.out), channel),
                           channels, turned, ld)
        fn.finish()
        ntiles = c.groups * prod(block.blocks) * o_blocks
        share = prod(block.counts) * self.taps / max(prod(c.y[2:]) * prod(c.w[2:]) * c.y[0], 1)
        out.last.append((KernelDraft("KERNEL", (*own, *self.finish.roles()), ntiles, self.module,
                                     share), self.finish))

    def _packed(self, out: Emitted) -> str:
        """The name of the memory with the packed weight, to which it adds the kernels that pack."""
        return self.weight.packed(out)

    def _room(self, ld: int) -> int:
        """Of the sums, whose places are `ld` apart once they are turned."""
        return ld * self.width

    def _by_channel(self, fn: Fn, sums: str, to: str, ld: int, channels: Any, counts: list[Any]
                    ) -> tuple[str, int]:
        """The sums of a block's places side by side for each channel; where, and how far channels
        are apart."""
        self.tiles.turn(fn, sums, self.width, to, ld, ld, self.width)
        return to, ld

    def _copy(self, out: Emitted) -> str:
        """The whole source with zeros around it, as a block of all places; the name of that memory.
        """
        c, block, tmp = self.c, self.block, f"tmp{len(out.temporaries)}"
        each = self._apart()
        out.temporaries.append((tmp, c.groups * self.red * each * c.item))
        module = Module()
        tiles = TileWriter(module, c.dtype, self.t)
        fn = Fn(module, "KERNEL", PARAMS, attrs=self.t.attributes)
        fn.written = module.light = True
        source, to = operand(fn, 0), operand(fn, 1)
        chunk = max(16_384 // each, 1)
        g, part = unravel(fn, "%tile", (c.groups, -(-self.red // chunk)))
        first = fn.mul(part, chunk)
        count = smin(fn, fn.val(f"sub i64 {self.red}, {first}"), chunk) if chunk < self.red \
            else self.red
        row = fn.add(fn.mul(g, self.red), first)
        image, channel, *places = self.strides
        tiles.copy_source(
            fn, block, fn.gep(tiles.scalar, source, fn.add(fn.mul(row, channel), c.a.offset)),
            [image, *places], channel, count, [0] * len(block.size), block.size[0],
            fn.gep(tiles.scalar, to, fn.mul(row, each)), each)
        fn.finish()
        out.packing.append(KernelDraft("KERNEL", ("a", tmp), c.groups * -(-self.red // chunk),
                                       module, 10.0 / max(self.out * self.taps, 1)))
        return tmp

    def _apart(self) -> int:
        """How far the channels of a block are apart in a copy of it.  Those of a copy that several
        tiles write have room for the vectors that end after a channel does."""
        return prod(self.block.extents) + self.tiles.lanes * self.copied

    def _sum(self, fn: Fn, source: str, packed: str, g: Any, ob: Any, starts: list[Any],
             counts: list[Any], sums: str, local: bool = False) -> None:
        """Fill sums[place, channel]; with `local`, `packed` is the weight as it lies in memory."""
        c, block, tiles = self.c, self.block, self.tiles
        scalar, each = tiles.scalar, self._apart()
        image, channel, *places = self.strides
        if self.copied:
            source, channel = fn.gep(scalar, source, fn.mul(g, self.red * each)), each
        else:
            source = fn.gep(scalar, source, fn.add(fn.mul(g, self.red * channel), c.a.offset))
        steps = block.out_steps
        cache = ""
        if self.in_place:
            steps = (image, *(w.step * s for w, s in zip(self.walks, places, strict=True)))
            at = batch_offset(fn, starts, steps)
            source = fn.gep(scalar, source, fn.add(at, sum(
                w.start * s for w, s in zip(self.walks, places, strict=True))))
            table = tiles.table("KERNEL_steps", [k * channel for k in range(self.depth + _EARLY)])
            then = fn.val(f"sub i64 {batch_offset(fn, block.following(fn, starts), steps)}, {at}")
        else:
            if not self.copied:
                cache = fn.alloca(scalar, tiles.room(block, self.depth))
            table = tiles.table("KERNEL_steps", [k * each + tap for k in range(self.depth)
                                                 for tap in block.taps()])
        panel0 = fn.add(fn.mul(g, self.panels), fn.mul(ob, self.panels_each))
        deep = self.depth if local else self.red
        own, soon = "", (table,) if self.in_place else ()
        if self.inline:
            own = fn.alloca(scalar, (self.depth * self.taps + tiles.lanes) * self.nr)
            soon = (tiles.table("KERNEL_soon", self.weight.soon()),)
            packed = fn.gep(scalar, packed, fn.add(fn.mul(g, self.group_stride),
                                                   c.b.offset + self.tap0))
        elif local:
            packed = fn.gep(scalar, packed, fn.add(fn.add(
                fn.mul(g, self.group_stride), c.b.offset + self.tap0),
                fn.mul(fn.mul(ob, self.width), self.out_stride)))
            own = fn.alloca(scalar, self.panels_each * deep * self.taps * self.nr)
        else:
            packed = fn.gep(scalar, packed, fn.mul(panel0, deep * self.taps * self.nr))
        whole, rest = divmod(self.vectors, self.nv)
        here = self.panels_each if whole == self.panels and whole % self.panels_each == 0 else \
            smin(fn, fn.val(f"sub i64 {whole}, {fn.mul(ob, self.panels_each)}"),
                 self.panels_each)
        row_steps = [n * self.width for n in block.point_strides]

        def panel(p: Any, vectors: int, c0: Any, x0: str, weight: str, kc: Any, first: str) -> None:
            on = ""

            def register(rect: tuple[int, ...], firsts: tuple[Any, ...]) -> None:
                name = "KERNEL_micro_" + "x".join(map(str, (*rect, vectors)))
                tiles.micro(name, block.offsets(rect, steps), vectors,
                            block.offsets(rect, row_steps), table, self.nr,
                            early=_EARLY if self.in_place else 0, soon=soon)
                x, z = reached(fn, firsts, steps, row_steps, begin=(0, fn.mul(p, self.nr)))
                more = ""
                if self.in_place and not self.inline:   # of the next block, a line for each panel
                    far = fn.add(fn.add(x, then), fn.mul(p, 64 // c.item))
                    more = ", ptr " + fn.val(f"getelementptr {scalar}, ptr {x0}, i64 {far}")
                elif soon:      # in turn for the first and the second half
                    (at_,) = reached(fn, firsts, block.point_strides)
                    turn: Any = fn.add(at_, 0)
                    turn = turn // prod(block.micro) % 2 if isinstance(turn, int) else fn.val(
                        f"and i64 {fn.val(f'udiv i64 {turn}, {prod(block.micro)}')}, 1")
                    far = fn.mul(turn, self.weight.halves()[1])
                    more = ", ptr " + fn.val(f"getelementptr {scalar}, ptr {on}, i64 {far}")
                fn.do(f"call void @{name}(ptr {fn.gep(scalar, x0, x)}, ptr {at}, "
                      f"ptr {fn.gep(scalar, sums, z)}, i64 {kc}, i1 {first}{more})")

            if self.inline:
                on = self.weight.next(fn, packed, ob, p, here, c0)
                at = own
                self.weight.one(fn, packed, own, fn.add(fn.mul(ob, self.panels_each), p), c0, kc)
            else:
                at = fn.gep(scalar, weight, fn.mul(p, deep * self.taps * self.nr))
            tiles.over_block(fn, block, starts, register)

        def channels(c0: Any, count: Any, first: str) -> None:
            x0, weight = cache, packed
            if self.in_place or self.copied:
                x0 = fn.gep(scalar, source, fn.mul(c0, channel))
            else:
                tiles.copy_source(fn, block, fn.gep(scalar, source, fn.mul(c0, channel)),
                                  [image, *places], channel, count, starts, counts[0], cache)
            if local:
                weight = own
                with fn.loop(0, self.panels_each, hint="p") as p:
                    column = fn.mul(p, self.nr)
                    left = fn.val(f"sub i64 {self.out}, {fn.add(fn.mul(ob, self.width), column)}")
                    at = fn.add(fn.mul(c0, self.red_stride), fn.mul(column, self.out_stride))
                    self.weight.rows(fn, fn.gep(scalar, packed, at), fn.gep(
                        scalar, own, fn.mul(p, deep * self.taps * self.nr)), 0, count,
                        smin(fn, left, self.nr))
            elif not self.inline:
                weight = fn.gep(scalar, packed, fn.mul(c0, self.taps * self.nr))
            kc = fn.mul(count, self.taps)
            if whole:
                with fn.loop(0, here, hint="p") as p:
                    panel(p, self.nv, c0, x0, weight, kc, first)
            if rest:
                left = fn.val(f"sub i64 {whole}, {fn.mul(ob, self.panels_each)}")
                with fn.when(fn.val(f"icmp slt i64 {left}, {self.panels_each}")):
                    panel(left, rest, c0, x0, weight, kc, first)

        if self.depth == self.red:
            channels(0, self.red, "true")
        else:
            with fn.loop(0, self.red, self.depth, "c0") as c0:
                count = smin(fn, fn.val(f"sub i64 {self.red}, {c0}"), self.depth)
                channels(c0, count, fn.val(f"icmp eq i64 {c0}, 0"))
