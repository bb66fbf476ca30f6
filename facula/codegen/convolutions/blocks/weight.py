"""Gradients of convolutions' weights from operands on blocks: the kernel of `conv_weight_blocks`.

The gradient of the result is `[N, O / lanes, H, W, lanes]`, the source is `[N, C / lanes, H, W,
lanes]` or, where it has fewer channels than a vector has lanes, `[N, C, H, W]`.  Vectors of a
register tile are blocks of output channels, its rows the lanes of a block of input channels (or the
taps of one channel of a plain source), and the sum runs over places.  Nothing is turned before it:
both operands lie as the register tile reads them.

Kernels of 3x3 taps are computed by minimal filtering, by the transpose of the products in
`blocks.squares`; see `convolutions.winograd` for the method and its sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from facula import config
from facula.codegen.convolutions.blocks import transforms
from facula.codegen.convolutions.blocks.convolution import LONGEST, OnBlocks
from facula.codegen.convolutions.blocks.forward import apart, copy_blocks
from facula.codegen.convolutions.blocks.squares import forth, shared
from facula.codegen.convolutions.direct import TileWriter
from facula.codegen.convolutions.finite import Watch
from facula.codegen.convolutions.walks import Block, Walk, grow
from facula.codegen.kernel import KernelDraft
from facula.codegen.llvm import Fn, Module
from facula.codegen.products.tiles import PARAMS, operand, smin, unravel
from facula.codegen.target import Target

__all__ = ["BlocksWeight", "WeightKernel"]


_POINTS = 256               # places of the gradient that are summed over together
_LEAST = 12                 # larger squares in each part of the images
_ROOM = 704 << 10           # bytes of the products of a tile, and of what they are made of


@dataclass(frozen=True)
class BlocksWeight(OnBlocks):
    """The gradient of a weight, in so many `parts` that are still to be added up."""

    parts: int = 0

    kind = "conv_weight_blocks"

    @property
    def flops(self) -> float:
        side = self.squares
        return self.direct() / (3 * side / (side + 2)) ** 2 if side else self.direct()

    @property
    def squares(self) -> int:
        """Outputs along a side of a square, where minimal filtering costs less, transforms
        included; else 0."""
        if not config.flag.WINOGRAD or not self.blocked or self.lanes < 8 \
                or self.x[1] % self.lanes or self.w[0] % self.lanes:
            return 0
        if self.w[2:] != (3, 3) or self.stride != (1, 1) or self.dilation != (1, 1) \
                or self.y[-1] > LONGEST:
            return 0
        small, large = (self.y[0] * prod(-(-n // side) for n in self.y[2:]) for side in (2, 4))
        # each part has 36 sums for 9, which are to be used by some squares
        if large >= _LEAST * max(self.parts, 1) and 36 * large <= 0.75 * 16 * small:
            return 4
        return 2 if small >= 64 and 4 * small <= 1.4 * self.y[0] * prod(self.y[2:]) else 0


def _rows(most: int, lanes: int) -> int:
    """Rows of a register tile: lanes of one block, halved until they fit."""
    rows = lanes
    while rows > most:
        rows //= 2
    return rows


class WeightKernel:
    """The kernel of a gradient."""

    def __init__(self, c: BlocksWeight, t: Target, finish: Any):
        self.c, self.t, self.finish = c, t, finish
        self.module = Module()
        self.tiles = tiles = TileWriter(self.module, c.dtype, t)
        lanes = tiles.lanes
        self.walks = tuple(Walk(out, k, -p, s, d, n) for n, out, k, s, p, d in zip(
            c.x[2:], c.y[2:], c.w[2:], c.stride, c.low, c.dilation, strict=True))
        self.counts = (c.y[0], *c.y[2:])
        self.unit = lanes if c.blocked else 1
        self.units = -(-c.x[1] // self.unit)
        self.taps = prod(c.w[2:])
        self.o_blocks = -(-c.w[0] // lanes)
        self.nv = min(2, self.o_blocks)
        self.nr = self.nv * lanes
        panels = -(-self.o_blocks // self.nv)
        # each operand is transformed again for each tile of the other's channels
        most = 64 if c.squares else 128
        self.each = -(-panels // -(-panels // max(most // self.nr, 1)))
        most = 4 if c.squares else max(
            (1 << 15) // (self.each * self.nr * self.taps * self.unit), 1)
        self.depth = -(-self.units // -(-self.units // most))
        self.squares: tuple[int, int] = 0, 0
        if c.squares:
            self.each, self.depth, *lines = self._tile(panels)
            self.squares = lines[0], lines[1]
        self.o_tiles = -(-panels // self.each)
        self.width = self.each * self.nr
        self.c_tiles = -(-self.units // self.depth)
        self.rows = _rows(t.tile(self.nv), lanes)
        size = grow(self.counts, [1] * len(self.counts), _POINTS)
        while size[0] == 1 < size[1] and \
                prod(self._block(size).extents) * self.unit > 1 << 14:
            size[1] = -(-size[1] // 2)
        self.block = self._block(size)

    def _tile(self, panels: int) -> tuple[int, int, int, int]:
        """Panels and blocks of channels of a tile of squares, and the images and lines of squares
        that are summed over together: what costs least, in multiplications of vectors."""
        c, lanes, side = self.c, self.tiles.lanes, self.c.squares
        products, images = (side + 2) ** 2, -(-c.y[0] // max(c.parts, 1))
        down, along = (-(-n // side) for n in c.y[2:])
        forth, spread, back = (130, 60, 70) if side == 2 else (250, 200, 180)
        best = None
        for each, depth in product(range(1, panels + 1), range(1, self.units + 1)):
            width = each * self.nv
            tiles = -(-panels // each) * -(-self.units // depth)
            for nb, sy in [*((1, n) for n in range(1, down + 1)),
                           *((n, down) for n in range(2, images + 1))]:
                total = nb * sy * along
                room = products * (depth * lanes * width + (depth + self.nv) * total) \
                    + depth * nb * (side * sy + 2) * (side * along + 2)
                if room * lanes * 4 > _ROOM and (each, depth, nb, sy) != (1, 1, 1, 1):
                    break
                rounds = -(-images // nb) * -(-down // sy)
                # sums that are gone on with are read and written again
                once = total * (depth * forth + width * spread) \
                    + products * depth * lanes * width * (total + 5)
                cost = tiles * (rounds * once + depth * lanes * width * back)
                if best is None or cost < best[0]:
                    best = cost, each, depth, nb, sy
        assert best is not None
        return best[1:]

    def _block(self, size: list[int]) -> Block:
        return Block(self.walks, self.counts, tuple(size), tuple(size))

    def emit(self) -> KernelDraft:
        c, tiles = self.c, self.tiles
        scalar, lanes = tiles.scalar, tiles.lanes
        fn = Fn(self.module, "KERNEL", PARAMS, attrs=self.t.attributes)
        fn.written = True
        source, grads = operand(fn, 0), operand(fn, 1)
        parts = max(c.parts, 1)
        part, cb, ob = unravel(fn, "%tile", (parts, self.c_tiles, self.o_tiles))
        u0, o0 = fn.mul(cb, self.depth), fn.mul(ob, self.width)
        units = smin(fn, fn.val(f"sub i64 {self.units}, {u0}"), self.depth) \
            if self.units % self.depth else self.depth
        left = fn.val(f"sub i64 {c.w[0]}, {o0}") if self.o_tiles > 1 else c.w[0]
        channels = smin(fn, left, self.width)
        rows = self.depth * self.unit * self.taps
        ld = -(-rows // lanes) * lanes
        sums = fn.alloca(scalar, ld * self.width)
        turned = fn.alloca(scalar, ld * self.width + lanes)
        source = fn.gep(scalar, source, fn.add(fn.mul(u0, c.a.strides[1]), c.a.offset))
        grads = fn.gep(scalar, grads, fn.add(
            fn.mul(fn.mul(ob, self.each * self.nv), c.b.strides[1]), c.b.offset))
        share = -(-c.x[0] // parts)
        low = fn.mul(part, share)
        high: Any = smin(fn, fn.add(low, share), c.x[0]) if c.parts else c.x[0]
        blocks = fn.val(f"sdiv i64 {fn.add(channels, lanes - 1)}, {lanes}") \
            if not isinstance(channels, int) else -(-channels // lanes)
        if c.squares:
            wrong = _Squares(self).sum(fn, source, grads, low, high, units, blocks, channels, sums)
            with fn.when(wrong):
                apart(fn, self.t, (source, grads, sums), (low, high, units, blocks),
                      lambda inner, source, grads, sums, low, high, units, blocks: self._sum(
                          inner, source, grads, low, high, units, blocks, sums))
        else:
            self._sum(fn, source, grads, low, high, units, blocks, sums)
        tiles.turn(fn, sums, self.width, turned, ld, ld, self.width)
        here = smin(fn, fn.val(f"sub i64 {c.x[1]}, {fn.mul(u0, self.unit)}"),
                    self.depth * self.unit) if self.c_tiles > 1 else c.x[1]
        self.finish.taps(fn, part, o0, channels, fn.mul(fn.mul(u0, self.unit), self.taps),
                         fn.mul(here, self.taps), turned, ld)
        fn.finish()
        return KernelDraft("KERNEL", ("a", "b", *self.finish.roles()),
                           parts * self.c_tiles * self.o_tiles, self.module, 1.0)

    def begun(self, fn: Fn, n: Any, b: Any, low: Any) -> str:
        """Whether these are the first places of a tile (an i1)."""
        return fn.val(f"and i1 {fn.val(f'icmp eq i64 {n}, {low}')}, "
                      f"{fn.val(f'icmp eq i64 {b}, 0')}")

    def _sum(self, fn: Fn, source: str, grads: str, low: Any, high: Any, units: Any, blocks: Any,
             sums: str) -> None:
        """Fill sums[channel and tap, output channel] by plain sums."""
        c, block, tiles = self.c, self.block, self.tiles
        scalar, lanes, unit = tiles.scalar, tiles.lanes, self.unit
        each = prod(block.extents)
        cache = fn.alloca(scalar, self.depth * each * unit + lanes)
        columns = fn.alloca(scalar, self.each * block.points * self.nr)
        table = tiles.table("KERNEL_places", [unit * at for at in
                                              block.offsets(block.size, block.out_steps)])
        image, channel, *places = c.a.strides
        with fn.loop(low, high, block.size[0], "n") as n, \
                fn.loop(0, prod(block.blocks[1:]), hint="b") as b:
            starts = [n, *(fn.mul(i, size) for i, size in
                           zip(unravel(fn, b, block.blocks[1:]), block.size[1:], strict=True))]
            counts = block.valid(fn, starts, high)
            if c.blocked:
                copy_blocks(tiles, fn, block, source, list(c.a.strides), units, starts, counts[0],
                            cache)
            else:
                tiles.copy_source(fn, block, source, [image, *places], channel, units, starts,
                                  counts[0], cache)
            self._columns(fn, grads, starts, counts, blocks, columns)
            begun = self.begun(fn, n, b, low)
            kc: Any = 1
            for size in counts:
                kc = fn.mul(kc, size)
            panels = fn.val(f"sdiv i64 {fn.add(blocks, self.nv - 1)}, {self.nv}") \
                if not isinstance(blocks, int) else -(-blocks // self.nv)
            with fn.loop(0, panels, hint="p") as p, fn.loop(0, units, hint="u") as u:
                v = fn.gep(scalar, columns, fn.mul(p, block.points * self.nr))
                x = fn.gep(scalar, cache, fn.mul(u, each * unit))
                z = fn.gep(scalar, sums, fn.add(fn.mul(u, unit * self.taps * self.width),
                                                fn.mul(p, self.nr)))
                self._registers(fn, x, v, z, kc, begun, table)

    def _registers(self, fn: Fn, x: str, v: str, z: str, kc: Any, begun: str, table: str) -> None:
        """The register tiles of one unit of channels and one panel of columns."""
        tiles, scalar = self.tiles, self.tiles.scalar
        taps = self.block.taps()
        if self.unit == 1:
            most = self.t.tile(self.nv)
            rows = -(-self.taps // -(-self.taps // most))
            for t0 in range(0, self.taps, rows):
                some = range(t0, min(t0 + rows, self.taps))
                name = tiles.micro(f"KERNEL_micro_{t0}", [taps[t] for t in some], self.nv,
                                   [t * self.width for t in some], table, self.nr)
                fn.do(f"call void @{name}(ptr {x}, ptr {v}, ptr {z}, i64 {kc}, i1 {begun})")
            return
        name = tiles.micro("KERNEL_micro", range(self.rows), self.nv,
                           [i * self.taps * self.width for i in range(self.rows)], table, self.nr)
        where = tiles.table("KERNEL_taps", [t * self.unit for t in taps])
        with fn.loop(0, self.taps, hint="t") as t, fn.loop(0, self.unit, self.rows, "i") as i:
            far = fn.load("i32", fn.gep("i32", where, t), 4)
            at = fn.gep(scalar, x, fn.add(fn.val(f"sext i32 {far} to i64"), i))
            there = fn.gep(scalar, z, fn.add(fn.mul(t, self.width),
                                             fn.mul(i, self.taps * self.width)))
            fn.do(f"call void @{name}(ptr {at}, ptr {v}, ptr {there}, i64 {kc}, i1 {begun})")

    def _columns(self, fn: Fn, grads: str, starts: list[Any], counts: list[Any], blocks: Any,
                 columns: str) -> None:
        """The gradient's vectors of a panel side by side: [panel, place, nr]."""
        tiles, block = self.tiles, self.block
        scalar, vector, lanes = tiles.scalar, tiles.vector, tiles.lanes
        image, channel, *places, _ = self.c.b.strides
        strides = block.point_strides

        def dimension(d: int, from_: str, to: str) -> None:
            if d == len(counts):
                fn.store(vector, fn.load(vector, from_, 4), to, 4)
                return
            with fn.loop(0, counts[d], hint="y") as y:
                dimension(d + 1, fn.gep(scalar, from_, fn.mul(y, [image, *places][d])),
                          fn.gep(scalar, to, fn.mul(y, strides[d] * self.nr)))

        with fn.loop(0, blocks, hint="q") as q:
            panel = fn.val(f"udiv i64 {q}, {self.nv}")
            to = fn.gep(scalar, columns, fn.add(
                fn.mul(panel, block.points * self.nr),
                fn.mul(fn.val(f"urem i64 {q}, {self.nv}"), lanes)))
            from_ = fn.gep(scalar, grads, fn.mul(q, channel))
            for i, step in zip(starts, [image, *places], strict=True):
                from_ = fn.gep(scalar, from_, fn.mul(i, step))
            dimension(0, from_, to)


class _Squares:
    """The same sums by the transpose of minimal filtering."""

    def __init__(self, w: WeightKernel):
        self.w = w
        self.side = side = w.c.squares
        nb, sy = w.squares
        counts = w.counts
        size = (nb, min(side * sy, counts[1]), counts[2])
        self.block = Block(w.walks, counts, size, size)
        self.squares = (nb, *(-(-n // side) for n in size[1:]))
        even = (nb, *(side * n for n in self.squares[1:]))
        self.even = Block(w.walks, counts, even, even)
        self.height = w.depth * w.tiles.lanes

    def sum(self, fn: Fn, source: str, grads: str, low: Any, high: Any, units: Any, blocks: Any,
            channels: Any, sums: str) -> str:
        """Fill sums[channel and tap, output channel]; whether any of it is not finite (an i1)."""
        w, block, tiles, side = self.w, self.block, self.w.tiles, self.side
        c, scalar, lanes, nr = w.c, tiles.scalar, tiles.lanes, w.nr
        each, total = prod(self.even.extents) * lanes, prod(self.squares)
        products, pitch = (side + 2) ** 2, total * lanes
        far = w.depth * pitch
        cache = fn.alloca(scalar, w.depth * each)
        turned = fn.alloca(scalar, products * far)
        across = fn.alloca(scalar, products * total * nr)
        made = fn.alloca(scalar, products * self.height * w.width)
        table = tiles.table("KERNEL_squares", [k * lanes for k in range(total)])
        name = tiles.micro("KERNEL_micro_squares", range(w.rows), w.nv,
                           [i * w.width for i in range(w.rows)], table, nr)
        with fn.loop(low, high, block.size[0], "n") as n, \
                fn.loop(0, prod(block.blocks[1:]), hint="b") as b:
            starts = [n, *(fn.mul(i, size) for i, size in
                           zip(unravel(fn, b, block.blocks[1:]), block.size[1:], strict=True))]
            counts = block.valid(fn, starts, high)
            valid = [counts[0], *(shared(fn, k, side) for k in counts[1:])]
            copy_blocks(tiles, fn, self.even, source, list(c.a.strides), units, starts, counts[0],
                        cache)
            with fn.loop(0, units, hint="u") as u:
                forth(tiles, fn, self.even, self.squares, fn.gep(scalar, cache, fn.mul(u, each)),
                      fn.gep(scalar, turned, fn.mul(u, pitch)), valid, far, side)
            begun = w.begun(fn, n, b, low)
            kc: Any = 1
            for size in valid:
                kc = fn.mul(kc, size)
            with fn.loop(0, blocks, w.nv, "p") as p:
                self._spread(fn, grads, p, blocks, starts, counts, valid, across)
                with fn.loop(0, products, hint="m") as m, fn.loop(0, units, hint="u") as u, \
                        fn.loop(0, lanes, w.rows, "i") as i:
                    x = fn.gep(scalar, turned, fn.add(fn.add(fn.mul(m, far), fn.mul(u, pitch)), i))
                    v = fn.gep(scalar, across, fn.mul(m, total * nr))
                    row = fn.add(fn.add(fn.mul(m, self.height), fn.mul(u, lanes)), i)
                    z = fn.gep(scalar, made, fn.add(fn.mul(row, w.width), fn.mul(p, lanes)))
                    fn.do(f"call void @{name}(ptr {x}, ptr {v}, ptr {z}, i64 {kc}, i1 {begun})")
        return self._back(fn, made, sums, fn.mul(units, lanes), channels)

    def _spread(self, fn: Fn, grads: str, first: Any, blocks: Any, starts: list[Any],
                counts: list[Any], valid: list[Any], to: str) -> None:
        """The squares of a panel of the gradient: to[product][square][nr]."""
        w, tiles, side = self.w, self.w.tiles, self.side
        scalar, lanes, nr = tiles.scalar, tiles.lanes, w.nr
        image, channel, *places, _ = w.c.b.strides
        _, down, along = self.squares
        some = smin(fn, fn.val(f"sub i64 {blocks}, {first}"), w.nv) if w.o_blocks % w.nv else w.nv
        base = fn.gep(scalar, grads, fn.mul(first, channel))
        for i, step in zip(starts, [image, *places], strict=True):
            base = fn.gep(scalar, base, fn.mul(i, step))
        name = transforms.spread(tiles, places, prod(self.squares) * nr, side,
                                 [n % side > 0 for n in w.counts[1:]])
        with fn.loop(0, some, hint="j") as j, fn.loop(0, valid[0], hint="n") as n, \
                fn.loop(0, valid[1], hint="y") as y, fn.loop(0, valid[2], hint="x") as x:
            far = fn.add(fn.add(fn.mul(j, channel), fn.mul(n, image)),
                         fn.add(fn.mul(y, side * places[0]), fn.mul(x, side * places[1])))
            square = fn.add(fn.mul(fn.add(fn.mul(n, down), y), along), x)
            there = fn.gep(scalar, to, fn.add(fn.mul(square, nr), fn.mul(j, lanes)))
            left = [fn.val(f"sub i64 {k}, {fn.mul(i, side)}")
                    for k, i in zip(counts[1:], (y, x), strict=True)]
            fn.do(f"call void @{name}(ptr {fn.gep(scalar, base, far)}, ptr {there}, "
                  f"i64 {left[0]}, i64 {left[1]})")

    def _back(self, fn: Fn, made: str, sums: str, count: Any, channels: Any) -> str:
        """sums[channel and tap, output channel] from products[channel, output channel]; whether
        any of it is not finite (an i1)."""
        w, tiles = self.w, self.w.tiles
        scalar, lanes, width = tiles.scalar, tiles.lanes, w.width
        watch = Watch(tiles, fn)
        name = transforms.weight_back(tiles, self.height * width, width, self.side)
        with fn.loop(0, count, hint="c") as c, fn.loop(0, channels, lanes, "v") as v:
            at = fn.gep(scalar, made, fn.add(fn.mul(c, width), v))
            to = fn.gep(scalar, sums, fn.add(fn.mul(fn.mul(c, 9), width), v))
            fn.do(f"call void @{name}(ptr {at}, ptr {to}, ptr {watch.memory})")
        return watch.wrong()
