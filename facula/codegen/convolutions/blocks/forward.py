"""The kernel of a convolution on blocks of channels by plain sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from facula.codegen.convolutions.blocks.convolution import Blocks, vectors_of
from facula.codegen.convolutions.direct import TileWriter
from facula.codegen.convolutions.walks import Block, Walk, evened, grow, micro_rect, reached
from facula.codegen.kernel import KernelDraft
from facula.codegen.llvm import Fn, Module
from facula.codegen.products.tiles import PARAMS, operand, smin, unravel
from facula.codegen.target import Target

__all__ = ["Direct", "apart", "copy_blocks"]

_LARGER = 8
"""How many times as large as the source a weight is of which each thread is to read a part."""


class Direct:
    """The kernel of a convolution by plain sums."""

    def __init__(self, c: Blocks, t: Target, finish: Any):
        self.c, self.t, self.finish = c, t, finish
        self.module = Module()
        self.tiles = TileWriter(self.module, c.dtype, t)
        lanes = c.lanes
        n, channels, *size = c.x
        self.strides = list(c.a.strides)
        if c.pointwise and self.strides[2] == size[1] * self.strides[3]:
            places = prod(size)
            self.walks: tuple[Walk, ...] = (Walk(places, 1, 0, 1, 1, places),)
            self.strides = [*self.strides[:2], *self.strides[3:]]
            self.flat = True
        else:
            self.flat = False
            self.walks = tuple(Walk(o, k, -p, s, d, i) for i, o, k, s, p, d in zip(
                size, c.y[2:], c.w[2:], c.stride, c.low, c.dilation, strict=True))
        self.counts = (n, *(w.count for w in self.walks))
        self.taps = prod(c.w[2:])
        self.unit = lanes if c.blocked else 1           # elements from one place to the next
        self.reds = -(-channels // lanes) if c.blocked else channels
        if c.depthwise:
            self.nv, self.panels, self.each, self.reds = 1, -(-c.w[0] // lanes), 1, 1
        else:
            self.nv = vectors_of(c)
            self.panels = -(-c.w[0] // (self.nv * lanes))
            per = max(128 // (self.nv * lanes), 1)
            self.each = -(-self.panels // -(-self.panels // per))
        self.o_blocks = -(-self.panels // self.each)
        self._sizes()

    def _sizes(self) -> None:
        c, counts = self.c, self.counts
        micro = micro_rect(counts, self.t.tile(self.nv))
        wanted = max(min(int(c.flops) // 2_000_000, 16), 1)
        points = 256

        def block() -> Block:
            return Block(self.walks, counts, tuple(grow(counts, micro, points)), tuple(micro))

        self.block = block()
        while points > 32 and self.block.points > prod(micro) and (
                prod(self.block.blocks) * self.o_blocks < wanted):
            points //= 2
            self.block = block()
        self.block = evened(self.block, self.o_blocks)
        self.by_channels = self._by_channels()
        self.set_depth()

    def _by_channels(self) -> bool:
        """Whether threads part output channels before they part places.

        Then each reads its part of the weight alone, but all of the source, of which another core
        has made a part: that is worth it where the weight is much the larger.
        """
        c = self.c
        return not c.depthwise and prod(c.w) > _LARGER * prod(c.x)

    def order(self, fn: Fn) -> tuple[list[Any], Any]:
        """(first outputs of a tile's block of places, its panels), from the number of the tile."""
        blocks = self.block.blocks
        if self.by_channels:
            ob, *at = unravel(fn, "%tile", (self.o_blocks, *blocks))
        else:
            *at, ob = unravel(fn, "%tile", (*blocks, self.o_blocks))
        return [fn.mul(i, n) for i, n in zip(at, self.block.size, strict=True)], ob

    def set_depth(self) -> None:
        """How many channels, or blocks of them, at a time."""
        c = self.c
        k = self.taps * (c.lanes if c.blocked else 1)
        room = (1 << 17) // (prod(self.block.extents) * self.unit * 4)
        most = max(min(max(160 // k, 1), self.reds, room), 1)
        self.depth = -(-self.reds // -(-self.reds // most))

    def emit(self) -> KernelDraft:
        c, block, tiles = self.c, self.block, self.tiles
        fn = Fn(self.module, "KERNEL", PARAMS, attrs=self.t.attributes)
        fn.written = True
        source, packed = operand(fn, 0), operand(fn, 1)
        starts, ob = self.order(fn)
        counts = block.valid(fn, starts)
        plane = block.points * c.lanes
        # the sums of several panels, where they are added to chunk by chunk
        held = self.each if self.depth < self.reds else 1
        sums = fn.alloca(tiles.scalar, held * self.nv * plane)
        source = fn.gep(tiles.scalar, source, c.a.offset)
        packed = fn.gep(tiles.scalar, packed, c.b.offset)
        blocks = -(-c.w[0] // c.lanes)

        def finish(panel: Any, here: str) -> None:
            first = fn.mul(panel, self.nv)
            some = smin(fn, fn.val(f"sub i64 {blocks}, {first}"), self.nv) \
                if blocks % self.nv else self.nv
            self.finish.blocks(fn, block, starts, counts, first, some, here, plane)

        if c.depthwise:
            self._lanewise(fn, source, packed, ob, starts, counts, sums)
            finish(ob, sums)
        else:
            self.sum(fn, source, packed, ob, starts, counts, sums, plane, finish)
        fn.finish()
        return KernelDraft("KERNEL", ("a", "b", *self.finish.roles()),
                           prod(block.blocks) * self.o_blocks, self.module, 1.0)

    def _lanewise(self, fn: Fn, source: str, packed: str, ob: Any, starts: list[Any],
                  counts: list[Any], sums: str) -> None:
        block, tiles, lanes = self.block, self.tiles, self.c.lanes
        cache = fn.alloca(tiles.scalar, prod(block.extents) * lanes)
        self._copy(fn, fn.gep(tiles.scalar, source, fn.mul(ob, self.strides[1])), 1, starts,
                   counts, cache)
        table = tiles.table("KERNEL_steps", [tap * lanes for tap in block.taps()])
        weight = fn.gep(tiles.scalar, packed, fn.mul(ob, self.taps * lanes))
        self._registers(fn, starts, cache, block.out_steps, table, 1, weight, sums,
                        self.taps, "true", 0, True)

    def sum(self, fn: Fn, source: str, packed: str, ob: Any, starts: list[Any],
            counts: list[Any], sums: str, plane: int,
            finish: Callable[[Any, str], None] | None) -> None:
        """The sums [block of channels, place, lane] of each panel, for finish(panel, sums) while
        they are in the first cache.  Without it all are left in `sums`, and `packed` is the weight
        as the user has it."""
        c, block, tiles = self.c, self.block, self.tiles
        scalar, lanes, unit = tiles.scalar, c.lanes, self.unit
        inner = range(lanes if c.blocked else 1)
        nr = self.nv * lanes
        size = prod(block.extents) * unit
        if self.flat:
            size = self.strides[1]
            steps = [n * s // lanes for n, s in zip((1, 1), (self.strides[0], self.strides[2]))]
            taps = [0]
        else:
            cache = fn.alloca(scalar, self.depth * size + 64)
            steps, taps = list(block.out_steps), block.taps()
        lines = self.taps * len(inner)                  # of the weight, for one block
        short = self.reds * len(inner) - c.x[1]         # lanes of the last block without a channel

        def steps_of(name: str, blocks: int, lanes: int) -> str:
            """Distances in as many blocks, of whose last so many lanes are channels."""
            return tiles.table(name, [b * size + tap * unit + lane for b in range(blocks)
                                      for tap in taps
                                      for lane in (inner if b < blocks - 1 else range(lanes))])

        table = steps_of("KERNEL_steps", self.depth, len(inner))
        each = lines * nr
        panel0 = fn.mul(ob, self.each)
        local = finish is None
        held = local or self.depth < self.reds
        deep = self.depth * each if local else (self.reds * len(inner) - short) * self.taps * nr
        if local:
            own = fn.alloca(scalar, self.each * deep)
        else:
            packed = fn.gep(scalar, packed, fn.mul(panel0, deep))
        here = smin(fn, fn.val(f"sub i64 {self.panels}, {panel0}"), self.each) \
            if self.panels % self.each else self.each
        if self.flat:
            for start, stride in zip(starts, (self.strides[0], self.strides[2])):
                source = fn.gep(scalar, source, fn.mul(start, stride))

        def some(c0: Any, count: int, first: str, last: bool) -> None:
            if self.flat:
                x = fn.gep(scalar, source, fn.mul(c0, size))
            else:
                x = cache
                self._copy(fn, fn.gep(scalar, source, fn.mul(c0, self.strides[1])), count, starts,
                           counts, cache)
            if local:
                weight = own
                self._pack(fn, packed, own, panel0, here, c0, count, deep)
            else:
                weight = fn.gep(scalar, packed, fn.mul(c0, each))
            kc, distances, kind = count * lines, table, ""
            if last and short:
                kc, kind = kc - short * self.taps, "_last"
                distances = steps_of("KERNEL_last_steps", count, len(inner) - short)
            with fn.loop(0, here, hint="p") as p:
                v = fn.gep(scalar, weight, fn.mul(p, deep))
                z = fn.gep(scalar, sums, fn.mul(p, self.nv * plane)) if held else sums
                # the weight that is read next: of the next panel, or chunk, or of the next tile
                on = fn.gep(scalar, v, deep)
                if not last:
                    end = fn.val(f"icmp eq i64 {fn.add(p, 1)}, {here}")
                    chunk = fn.gep(scalar, weight, count * each)
                    on = fn.val(f"select i1 {end}, ptr {chunk}, ptr {on}")
                self._registers(fn, starts, x, steps, distances, self.nv, v, z, kc, first, plane,
                                ahead="" if local else on, kind=kind,
                                panel=fn.add(panel0, p) if last and not local else None)
                if last and finish is not None:
                    finish(fn.add(panel0, p), z)

        if self.depth == self.reds:
            some(0, self.reds, "true", True)
        else:
            rest = (self.reds - 1) % self.depth + 1
            with fn.loop(0, self.reds - rest, self.depth, "c0") as c0:
                some(c0, self.depth, fn.val(f"icmp eq i64 {c0}, 0"), False)
            some(self.reds - rest, rest, "false", True)

    def again(self, fn: Fn, source: str, weight: str, ob: Any, starts: list[Any],
              counts: list[Any], sums: str, plane: int) -> None:
        """`sum` of all panels of a tile by a function of its own, which is seldom called."""
        def write(inner: Fn, source: str, weight: str, sums: str, ob: Any, *places: Any) -> None:
            self.sum(inner, source, weight, ob, list(places[:len(starts)]),
                     list(places[len(starts):]), sums, plane, None)

        apart(fn, self.t, (source, weight, sums), (ob, *starts, *counts), write)

    def _pack(self, fn: Fn, weight: str, to: str, panel0: Any, panels: Any, c0: Any, count: Any,
              apart: int) -> None:
        """Some blocks of channels of some panels, from `[O, C, taps]`."""
        c, tiles, lanes = self.c, self.tiles, self.c.lanes
        nr, row = self.nv * lanes, c.w[1] * self.taps
        with fn.loop(0, panels, hint="p") as p, fn.loop(0, count, hint="c") as k, \
                fn.loop(0, self.taps, hint="t") as tap, fn.loop(0, lanes, hint="r") as lane, \
                fn.loop(0, nr, lanes, "j") as j:
            first = fn.add(fn.mul(fn.add(panel0, p), nr), j)
            channel = fn.add(fn.mul(fn.add(c0, k), lanes), lane)
            at = fn.val(f"getelementptr {tiles.scalar}, ptr {weight}, i64 " + str(fn.add(
                fn.add(fn.mul(first, row), fn.mul(channel, self.taps)), tap)))
            value = tiles.strided(fn, at, row, fn.val(f"sub i64 {c.w[0]}, {first}"))
            line = fn.add(fn.mul(fn.add(fn.mul(k, self.taps), tap), lanes), lane)
            fn.store(tiles.vector, value, fn.gep(tiles.scalar, to, fn.add(
                fn.add(fn.mul(p, apart), fn.mul(line, nr)), j)), 4)

    def _registers(self, fn: Fn, starts: list[Any], x: str, steps: Any, table: str, nv: int,
                   v: str, z: str, kc: Any, first: str, plane: int, lanewise: bool = False,
                   ahead: str = "", panel: Any = None, kind: str = "") -> None:
        """All register tiles of a block of places; `ahead` is the weight of the ones to follow, as
        large as this one's, and `panel` the one that is finished after them.  `kind` tells apart
        those with different steps."""
        block, tiles, scalar = self.block, self.tiles, self.tiles.scalar
        across = [n * self.unit for n in steps]
        down = [n * self.c.lanes for n in block.point_strides]

        def register(rect: tuple[int, ...], firsts: tuple[Any, ...]) -> None:
            name = f"KERNEL_micro{kind}_" + "x".join(map(str, rect))
            if panel is not None:
                self.finish.soon(fn, block, starts, rect, firsts, fn.mul(panel, self.nv), self.nv)
            line = 4 * nv * self.c.lanes
            each = -(-line * prod(rect) // block.points) if ahead else 0
            soon = (tiles.table(f"{name}_soon", self._following(rect, kc)),) \
                if self.flat and rect[0] == 1 and isinstance(kc, int) else ()
            tiles.micro(name, block.offsets(rect, across), nv, block.offsets(rect, down), table,
                        nv * self.c.lanes, lanewise, plane, each, soon=soon)
            from_, to = reached(fn, firsts, across, down)
            more = ""
            if ahead:
                # each tile of places asks for its part
                whole = fn.mul(fn.mul(to, line // self.c.lanes), kc)
                part = whole // block.points if isinstance(whole, int) \
                    else fn.val(f"sdiv i64 {whole}, {block.points}")
                more = f", ptr {fn.gep('i8', ahead, part)}"
            more += "".join([f", ptr {fn.gep(scalar, x, from_)}" for _ in soon])
            fn.do(f"call void @{name}(ptr {fn.gep(scalar, x, from_)}, ptr {v}, "
                  f"ptr {fn.gep(scalar, z, to)}, i64 {kc}, i1 {first}{more})")

        tiles.over_block(fn, block, starts, register)

    def _following(self, rect: tuple[int, ...], count: int) -> list[int]:
        """Where the places after a register tile lie in the source, one for each of `count` steps:
        those of a block of channels while that is added up.  What another core has made comes too
        late otherwise."""
        rows = prod(rect)
        return [k // self.c.lanes * self.strides[1]
                + (rows + min(k % self.c.lanes, rows - 1)) * self.strides[2] for k in range(count)]

    def _copy(self, fn: Fn, source: str, channels: Any, starts: list[Any], counts: list[Any],
              to: str) -> None:
        """What the block reads, zeros around it: [block or channel, images, *extents, lane]."""
        image, channel, *places = self.strides
        if not self.c.blocked:
            self.tiles.copy_source(fn, self.block, source, [image, *places[:2]], channel, channels,
                                   starts, counts[0], to)
            return
        copy_blocks(self.tiles, fn, self.block, source, self.strides, channels, starts, counts[0],
                    to)


def apart(fn: Fn, t: Target, pointers: Sequence[str], numbers: Sequence[Any],
          write: Callable[..., None]) -> None:
    """Call what write(fn, *pointers, *numbers) writes, as a function of its own: what a kernel
    needs seldom is compiled as it is written."""
    name = "KERNEL_apart"
    given = [n for n in numbers if not isinstance(n, int)]
    names = iter(range(len(given)))
    inside = [n if isinstance(n, int) else f"%n{next(names)}" for n in numbers]
    params = [("ptr", f"p{k}") for k in range(len(pointers))] + [
        ("i64", f"n{k}") for k in range(len(given))]
    inner = Fn(fn.module, name, params, attrs=f"noinline {t.attributes}", inner=True)
    inner.written = True
    write(inner, *[f"%p{k}" for k in range(len(pointers))], *inside)
    inner.finish()
    args = [f"ptr {p}" for p in pointers] + [f"i64 {n}" for n in given]
    fn.do(f"call void @{name}({', '.join(args)})")


def copy_blocks(tiles: TileWriter, fn: Fn, block: Block, source: str, strides: list[int],
                channels: Any, starts: list[Any], images: Any, to: str) -> None:
    """The vectors that a block of places reads, zeros for those outside, as
    [block of channels, images, *extents, lane]."""
    scalar, vector, lanes = tiles.scalar, tiles.vector, tiles.lanes
    zeros = tiles.module.define(
        "KERNEL_zeros", f"internal unnamed_addr constant {vector} zeroinitializer, align 64")
    image, channel, *places = strides
    each, apart = prod(block.extents), block.extent_strides[0]
    first = [fn.add(w.start, fn.mul(s, w.step)) for w, s in zip(block.walks, starts[1:],
                                                                strict=True)]

    def one_place(from_: str, at: str, inside: str | None) -> None:
        good = from_ if inside is None else fn.val(
            f"select i1 {inside}, ptr {from_}, ptr {zeros}")
        fn.store(vector, fn.load(vector, good, 4), at, 4)

    with fn.loop(0, channels, hint="c") as k, fn.loop(0, images, hint="n") as n:
        one = fn.gep(scalar, source, fn.add(fn.mul(k, channel),
                                            fn.mul(fn.add(starts[0], n), image)))
        there = fn.gep(scalar, to, fn.mul(fn.add(fn.mul(k, each), fn.mul(n, apart)), lanes))
        tiles.each_place(fn, block, first, places, lanes, len(block.walks), one, there, one_place)
