"""Convolutions of many small groups: every lane of a vector is a group.

Where a group has few channels (one, in a depthwise convolution) its output channels fill no vector.
Here neighbouring groups lie side by side in one, and lanes never mix: the source block is turned so
that each place is a vector of groups, and the register tiles read vectors on both sides.
"""

from __future__ import annotations

from math import prod
from typing import Any

from facula.codegen.convolutions.direct import TileWriter
from facula.codegen.convolutions.walks import Block, Walk, grow, micro_rect, reached
from facula.codegen.kernel import KernelDraft
from facula.codegen.llvm import Fn, Module
from facula.codegen.products.tiles import PARAMS, operand, smin, unravel
from facula.codegen.target import Target

__all__ = ["Lanes", "LanesWeight", "suits"]


def suits(groups: int, out: int, red: int, lanes: int) -> bool:
    """Whether groups fill vectors better than output channels do."""
    filled = groups / (-(-groups // lanes) * lanes)
    return groups > 1 and red * out <= 64 and filled > 2 * out / (-(-out // lanes) * lanes)


def _points(tiles: TileWriter, walks: tuple[Walk, ...], counts: tuple[int, ...], micro: list[int],
            channels: int, wanted: int, others: int) -> Block:
    """A block whose source, as vectors, stays in the second cache."""
    points = 256
    while True:
        block = Block(walks, counts, tuple(grow(counts, micro, points)), tuple(micro))
        if points <= 16 or block.points <= prod(micro):
            return block
        size = prod(block.extents) * tiles.lanes * tiles.item * channels
        if size <= 1 << 17 and prod(block.blocks) * others >= wanted:
            return block
        points //= 2


class _Source:
    """The block of a source as vectors of groups: [channel, place, lane]."""

    def __init__(self, tiles: TileWriter, block: Block, channels: int):
        self.tiles, self.block, self.channels = tiles, block, channels
        lanes = tiles.lanes
        self.each = -(-prod(block.extents) // lanes) * lanes
        self.step = self.each * lanes           # from one channel to the next

    def emit(self, fn: Fn, source: str, strides: list[int], channel: int, group: int,
             groups: Any, starts: list[Any], images: Any) -> str:
        """Copy and turn it; `group` and `channel` are how far those are apart."""
        tiles, lanes = self.tiles, self.tiles.lanes
        cache = fn.alloca(tiles.scalar, self.step * self.channels)
        lines = fn.alloca(tiles.scalar, self.each * lanes + lanes)
        with fn.loop(0, self.channels, hint="ch") as c:
            tiles.copy_source(fn, self.block, fn.gep(tiles.scalar, source, fn.mul(c, channel)),
                              strides, group, groups, starts, images, lines, self.each)
            tiles.turn(fn, lines, self.each, fn.gep(tiles.scalar, cache, fn.mul(c, self.step)),
                       lanes, lanes, self.each)
        return cache


class Lanes:
    """conv and conv_input with groups as lanes; `forward` has the sizes and strides."""

    def __init__(self, forward: Any):
        self.f = f = forward
        c, t, tiles = f.c, f.t, f.tiles
        lanes = tiles.lanes
        self.blocks = -(-c.groups // lanes)
        counts = (c.x[0], *(w.count for w in f.walks))
        micro = micro_rect(counts, t.tile(1))
        flops = 2.0 * prod(counts) * f.out * f.red * f.taps * c.groups
        wanted = int(max(min(flops // 200_000, 32), 1))
        self.block = _points(tiles, f.walks, counts, micro, f.red, wanted, self.blocks)

    def packed(self, out: Any) -> str:
        """The weight as [block of groups, output, input channel, tap, lane]."""
        f, c = self.f, self.f.c
        tmp = f"tmp{len(out.temporaries)}"
        lanes = f.tiles.lanes
        size = self.blocks * f.out * f.red * f.taps * lanes
        out.temporaries.append((tmp, size * c.item))
        module = Module()
        module.light = True
        scalar = f.tiles.scalar
        fn = Fn(module, "KERNEL", PARAMS, attrs=f.t.attributes)
        src, dst = operand(fn, 0), operand(fn, 1)
        first = fn.mul("%tile", lanes)
        tap0 = sum(w.tap0 * s for w, s in zip(f.walks, f.tap_strides))
        src = fn.gep(scalar, src, fn.add(fn.mul(first, f.group_stride), c.b.offset + tap0))
        dst = fn.gep(scalar, dst, fn.mul("%tile", f.out * f.red * f.taps * lanes))
        count = smin(fn, fn.val(f"sub i64 {c.groups}, {first}"), lanes)
        sizes = (f.out, f.red, *(w.taps for w in f.walks))
        strides = (f.out_stride, f.red_stride,
                   *(w.tap_step * s for w, s in zip(f.walks, f.tap_strides)))

        def dimension(d: int, from_: str, to: str) -> None:
            if d == len(sizes):
                with fn.loop(0, count, hint="j") as j:
                    at = fn.gep(scalar, from_, fn.mul(j, f.group_stride))
                    fn.store(scalar, fn.load(scalar, at), fn.gep(scalar, to, j))
                return
            with fn.loop(0, sizes[d], hint="t") as t:
                dimension(d + 1, fn.gep(scalar, from_, fn.mul(t, strides[d])),
                          fn.gep(scalar, to, fn.mul(t, prod(sizes[d + 1:]) * lanes)))

        dimension(0, src, dst)
        fn.finish()
        out.packing.append(KernelDraft("KERNEL", ("b", tmp), self.blocks, module,
                                       10.0 * size / max(c.flops, 1.0)))
        return tmp

    def emit(self, out: Any) -> None:
        f, c, block = self.f, self.f.c, self.block
        tiles, lanes, scalar = f.tiles, f.tiles.lanes, f.tiles.scalar
        tmp = self.packed(out)
        fn = Fn(f.module, "KERNEL", PARAMS, attrs=f.t.attributes)
        fn.written = True
        source, packed = operand(fn, 0), operand(fn, 1)
        *at, gb = unravel(fn, "%tile", (*block.blocks, self.blocks))
        starts = [fn.mul(i, n) for i, n in zip(at, block.size, strict=True)]
        counts = block.valid(fn, starts)
        g0 = fn.mul(gb, lanes)
        groups = smin(fn, fn.val(f"sub i64 {c.groups}, {g0}"), lanes)
        image, channel, *places = c.a.strides
        source = fn.gep(scalar, source, fn.add(fn.mul(g0, f.red * channel), c.a.offset))
        turned = _Source(tiles, block, f.red)
        cache = turned.emit(fn, source, [image, *places], channel, f.red * channel, groups, starts,
                            counts[0])
        ld = -(-block.points // lanes) * lanes
        sums = fn.alloca(scalar, ld * lanes)
        lines = fn.alloca(scalar, ld * lanes + lanes)
        steps = [k * turned.step + tap * lanes for k in range(f.red) for tap in block.taps()]
        table = tiles.table("KERNEL_steps", steps)
        weight = fn.gep(scalar, packed, fn.mul(gb, f.out * len(steps) * lanes))
        across = [n * lanes for n in block.out_steps]
        down = [n * lanes for n in block.point_strides]
        with fn.loop(0, f.out, hint="o") as o:
            v = fn.gep(scalar, weight, fn.mul(o, len(steps) * lanes))

            def register(rect: tuple[int, ...], firsts: tuple[Any, ...]) -> None:
                name = "KERNEL_micro_" + "x".join(map(str, rect))
                tiles.micro(name, block.offsets(rect, across), 1, block.offsets(rect, down),
                            table, lanes, True)
                x, z = reached(fn, firsts, across, down)
                fn.do(f"call void @{name}(ptr {fn.gep(scalar, cache, x)}, ptr {v}, "
                      f"ptr {fn.gep(scalar, sums, z)}, i64 {len(steps)}, i1 true)")

            tiles.over_block(fn, block, starts, register)
            tiles.turn(fn, sums, lanes, lines, ld, ld, lanes)
            f.finish.places(fn, block, starts, counts, fn.add(fn.mul(g0, f.out), o), groups,
                            lines, ld, f.out)
        fn.finish()
        share = prod(block.counts) * f.taps / max(prod(c.y[2:]) * prod(c.w[2:]) * c.y[0], 1)
        out.last.append((KernelDraft("KERNEL", ("a", tmp, *f.finish.roles()),
                                     prod(block.blocks) * self.blocks, f.module, 2.0 * share),
                         f.finish))


class LanesWeight:
    """conv_weight with groups as lanes."""

    def __init__(self, c: Any, walks: tuple[Walk, ...], t: Target, tiles: TileWriter):
        self.c, self.t, self.tiles = c, t, tiles
        self.out, self.red, self.taps = c.w[0] // c.groups, c.w[1], prod(c.w[2:])
        self.blocks = -(-c.groups // tiles.lanes)
        counts = (c.y[0], *c.y[2:])
        ones = [1] * len(counts)
        block = _points(tiles, walks, counts, ones, self.red + self.out, 1, 1)
        self.block = Block(walks, counts, block.size, block.size)

    def emit(self, out: Any, finish: Any) -> None:
        c, block = self.c, self.block
        tiles, lanes, scalar = self.tiles, self.tiles.lanes, self.tiles.scalar
        parts = max(c.parts, 1)
        fn = Fn(tiles.module, "KERNEL", PARAMS, attrs=self.t.attributes)
        fn.written = True
        source, grads = operand(fn, 0), operand(fn, 1)
        part, gb = unravel(fn, "%tile", (parts, self.blocks))
        g0 = fn.mul(gb, lanes)
        groups = smin(fn, fn.val(f"sub i64 {c.groups}, {g0}"), lanes)
        image, channel, *places = c.a.strides
        y_image, y_channel, *y_places = c.b.strides
        source = fn.gep(scalar, source, fn.add(fn.mul(g0, self.red * channel), c.a.offset))
        grads = fn.gep(scalar, grads, fn.add(fn.mul(g0, self.out * y_channel), c.b.offset))
        share = -(-c.x[0] // parts)
        low = fn.mul(part, share)
        high: Any = smin(fn, fn.add(low, share), c.x[0]) if c.parts else c.x[0]
        # the gradient is a source whose every place is read once
        plain = Block(tuple(Walk(n, 1, 0, 1, 1, n) for n in c.y[2:]), block.counts, block.size,
                      block.size)
        xs, ys = _Source(tiles, block, self.red), _Source(tiles, plain, self.out)
        rows = self.red * self.taps
        ld = -(-rows // lanes) * lanes
        sums = fn.alloca(scalar, self.out * ld * lanes)
        lines = fn.alloca(scalar, ld * lanes + lanes)
        table = tiles.table("KERNEL_places", [n * lanes for n in
                                              block.offsets(block.size, block.out_steps)])
        with fn.loop(low, high, block.size[0], "n") as n, \
                fn.loop(0, prod(block.blocks[1:]), hint="b") as b:
            starts = [n, *(fn.mul(i, size) for i, size in
                           zip(unravel(fn, b, block.blocks[1:]), block.size[1:], strict=True))]
            counts = block.valid(fn, starts, high)
            x = xs.emit(fn, source, [image, *places], channel, self.red * channel, groups, starts,
                        counts[0])
            y = ys.emit(fn, grads, [y_image, *y_places], y_channel, self.out * y_channel, groups,
                        starts, counts[0])
            begun = fn.val(f"and i1 {fn.val(f'icmp eq i64 {n}, {low}')}, "
                           f"{fn.val(f'icmp eq i64 {b}, 0')}")
            kc: Any = 1
            for size in counts:
                kc = fn.mul(kc, size)
            offsets = [k * xs.step + tap * lanes for k in range(self.red) for tap in block.taps()]
            most = self.t.tile(1)
            pieces = -(-rows // most)
            each = -(-rows // pieces)
            with fn.loop(0, self.out, hint="o") as o:
                v = fn.gep(scalar, y, fn.mul(o, ys.step))
                z = fn.gep(scalar, sums, fn.mul(o, ld * lanes))
                for r in range(0, rows, each):
                    some = offsets[r:r + each]
                    name = f"KERNEL_micro_{r}"
                    tiles.micro(name, some, 1, [(r + i) * lanes for i in range(len(some))], table,
                                lanes, True)
                    fn.do(f"call void @{name}(ptr {x}, ptr {v}, ptr {z}, i64 {kc}, i1 {begun})")
        with fn.loop(0, self.out, hint="w") as o:
            tiles.turn(fn, fn.gep(scalar, sums, fn.mul(o, ld * lanes)), lanes, lines, ld, ld,
                       lanes)
            finish.taps(fn, part, fn.add(fn.mul(g0, self.out), o), groups, 0, rows, lines, ld,
                        self.out)
        fn.finish()
        out.last.append((KernelDraft("KERNEL", ("a", "b", *finish.roles()), parts * self.blocks,
                                     tiles.module, 2.0), finish))
