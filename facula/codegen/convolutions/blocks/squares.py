"""3x3 convolutions on blocks of channels by minimal filtering, F(2x2, 3x3) and F(4x4, 3x3).

As in `convolutions.winograd`, where the method and its sources are described; here a vector is a
block of channels, so that both transforms are additions of whole vectors and nothing is shuffled.
A tile in which something comes out that is not finite is computed again by the plain sum, from the
weight as the user has it.

Squares of 4x4 outputs take 36 products of 6x6 inputs where plain sums take 144; the transforms are
in `blocks.transforms`.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from facula.codegen.convolutions.blocks import transforms
from facula.codegen.convolutions.blocks.convolution import Blocks
from facula.codegen.convolutions.blocks.forward import Direct, copy_blocks
from facula.codegen.convolutions.direct import TileWriter
from facula.codegen.convolutions.finite import Watch
from facula.codegen.convolutions.walks import Block
from facula.codegen.kernel import KernelDraft
from facula.codegen.llvm import Fn
from facula.codegen.products.tiles import PARAMS, operand, smin
from facula.codegen.target import Target

__all__ = ["Squares", "chain_of", "forth", "shared"]

_ROOM = 384 << 10           # bytes of the products of a tile, and of what they are made of


def chain_of(reds: int, side: int) -> int:
    """Blocks of channels that are summed in one chain.

    The errors of a chain grow with its length, and larger squares multiply them: of many channels
    there are as many sums of pieces as pieces are long.
    """
    return reds if side == 2 else min(2 if reds >= 8 else 1, reds)


class Squares:
    """The kernel of a convolution `c` that `squares_suit`s."""

    def __init__(self, c: Blocks, t: Target, finish: Any):
        self.c, self.t, self.finish = c, t, finish
        self.side = side = c.squares
        self.products = (side + 2) ** 2
        self.f = f = Direct(replace(c, squares=0), t, finish)
        self.module, self.tiles = f.module, f.tiles
        self.rows_most = t.tile(f.nv)
        images, lines, line = f.counts
        best = None
        for each in range(1, f.panels + 1):
            if f.panels % each or each * f.nv * c.lanes > 256:
                continue
            for nb, sy in [*((1, s) for s in range(1, -(-lines // side) + 1)),
                           *((n, -(-lines // side)) for n in range(2, images + 1))]:
                cost = self._cost(each, nb, sy)
                if cost is not None and (best is None or cost < best[0]):
                    best = cost, each, nb, sy
        assert best is not None
        _, f.each, nb, sy = best
        f.o_blocks = f.panels // f.each
        size = (nb, min(side * sy, lines), line)
        across = -(-line // -(-line // self.rows_most))
        f.block = self.block = Block(f.walks, f.counts, size, (1, 1, across))
        f.set_depth()
        self.squares = (nb, *(-(-n // side) for n in size[1:]))
        even = (nb, *(side * n for n in self.squares[1:]))
        self.even = Block(f.walks, f.counts, even, even)
        total = prod(self.squares)
        chunks = -(-total // self.rows_most)
        self.rows = -(-total // chunks)
        self.pitch = chunks * self.rows
        most = max(_ROOM // (self.products * self.pitch * 4 * c.lanes), 1)
        self.depth = -(-f.reds // -(-f.reds // min(most, f.reds)))

    def _cost(self, each: int, nb: int, sy: int) -> float | None:
        """What tiles of so many panels, images and lines of squares cost, in multiplications of
        vectors, where two tiles are computed at a time."""
        f, c = self.f, self.c
        images, lines, line = f.counts
        side, products = self.side, self.products
        total = nb * sy * -(-line // side)
        rows = -(-total // -(-total // self.rows_most))
        padded = -(-total // rows) * rows
        width = each * f.nv
        if products * padded * width * c.lanes * 4 > _ROOM and total > -(-line // side):
            return None
        pairs = -(-lines // side)
        tiles = -(-images // nb) * -(-pairs // sy) * (f.panels // each)
        channels = f.reds * c.lanes
        # the weight comes from afar, a vector at a time; transforms are additions of vectors
        forth, back = (120, 100) if side == 2 else (300, 220)
        one = products * width * channels * (padded * (1 + 2 / rows) + 6) \
            + total * (f.reds * forth + width * back)
        return float(-(-tiles // 2) * one + tiles * 2000)

    def emit(self) -> KernelDraft:
        c, f = self.c, self.f
        block, scalar = self.block, self.tiles.scalar
        fn = Fn(self.module, "KERNEL", PARAMS, attrs=self.t.attributes)
        fn.written = True
        source, packed, weight = (operand(fn, k) for k in range(3))
        starts, ob = f.order(fn)
        counts = block.valid(fn, starts)
        width = f.each * f.nv
        plane = block.points * c.lanes
        sums = fn.alloca(scalar, width * plane)
        source = fn.gep(scalar, source, c.a.offset)
        wrong = self._sum(fn, source, fn.gep(scalar, packed, c.b.offset), ob, starts, counts, sums,
                          plane)
        with fn.when(wrong):
            f.again(fn, source, weight, ob, starts, counts, sums, plane)
        first = fn.mul(ob, width)
        blocks = -(-c.w[0] // c.lanes)
        here = smin(fn, fn.val(f"sub i64 {blocks}, {first}"), width) \
            if f.o_blocks * width != blocks else width
        self.finish.blocks(fn, block, starts, counts, first, here, sums, plane)
        fn.finish()
        return KernelDraft("KERNEL", ("a", "b", "c", *self.finish.roles()),
                           prod(block.blocks) * f.o_blocks, self.module, 1.0)

    def _sum(self, fn: Fn, source: str, packed: str, ob: Any, starts: list[Any],
             counts: list[Any], sums: str, plane: int) -> str:
        """Fill sums[block of channels, place, lane]; whether any is not finite (an i1)."""
        c, f, tiles = self.c, self.f, self.tiles
        scalar, lanes = tiles.scalar, c.lanes
        nr, width = f.nv * lanes, f.each * f.nv
        pitch = self.pitch * lanes
        products = self.products
        far = self.depth * pitch                # from one of the products to the next
        extents = prod(self.even.extents) * lanes
        cache = fn.alloca(scalar, self.depth * extents)
        turned = fn.alloca(scalar, products * far)
        made = fn.alloca(scalar, products * width * pitch)
        table = tiles.table("KERNEL_channels", [b * pitch + lane for b in range(self.depth)
                                                for lane in range(lanes)])
        each = f.reds * lanes * nr              # of the weight: for one product, one panel
        packed = fn.gep(scalar, packed, fn.mul(fn.mul(ob, f.each), products * each))
        valid = [counts[0], *(shared(fn, n, self.side) for n in counts[1:])]
        total: Any = valid[0]
        for all_, n in zip(self.squares[1:], valid[1:], strict=True):
            # squares are numbered in whole lines
            total = fn.mul(total, n if all_ != self.squares[2] else all_)
        line = 4 * nr
        ahead = -(-line * self.rows // self.pitch)      # of the next weight, with each k
        name = tiles.micro("KERNEL_squares", [i * lanes for i in range(self.rows)], f.nv,
                           [i * lanes for i in range(self.rows)], table, nr, False, pitch, ahead)

        chain = chain_of(f.reds, self.side)

        def some(c0: Any, count: Any, first: str) -> None:
            copy_blocks(tiles, fn, self.even, fn.gep(scalar, source, fn.mul(c0, f.strides[1])),
                        f.strides, count, starts, counts[0], cache)
            with fn.loop(0, count, hint="c") as k:
                forth(tiles, fn, self.even, self.squares, fn.gep(scalar, cache, fn.mul(k, extents)),
                      fn.gep(scalar, turned, fn.mul(k, pitch)), valid, far, self.side)
            kc = fn.mul(count, lanes)
            weight = fn.gep(scalar, packed, fn.mul(c0, lanes * nr))
            with fn.loop(0, f.each, hint="p") as p, fn.loop(0, products, hint="m") as m:
                v = fn.gep(scalar, weight, fn.mul(fn.add(fn.mul(p, products), m), each))
                x = fn.gep(scalar, turned, fn.mul(m, far))
                z = fn.gep(scalar, made, fn.mul(fn.add(fn.mul(m, width), fn.mul(p, f.nv)), pitch))
                with fn.loop(0, total, self.rows, "q") as q:
                    at = fn.mul(q, lanes)
                    part = fn.val(f"sdiv i64 {fn.mul(fn.mul(q, line), kc)}, {self.pitch}")
                    on = fn.gep("i8", fn.gep(scalar, v, each), part)
                    with fn.loop(0, count, chain, "b") as b:
                        begun = fn.val(f"and i1 {first}, {fn.val(f'icmp eq i64 {b}, 0')}")
                        some_k = fn.mul(smin(fn, fn.val(f"sub i64 {count}, {b}"), chain), lanes)
                        fn.do(f"call void @{name}("
                              f"ptr {fn.gep(scalar, x, fn.add(at, fn.mul(b, pitch)))}, "
                              f"ptr {fn.gep(scalar, v, fn.mul(b, lanes * nr))}, "
                              f"ptr {fn.gep(scalar, z, at)}, i64 {some_k}, "
                              f"i1 {begun}, ptr {fn.gep('i8', on, fn.mul(b, lanes * ahead))})")

        if self.depth == f.reds:
            some(0, f.reds, "true")
        else:
            with fn.loop(0, f.reds, self.depth, "c0") as c0:
                count = smin(fn, fn.val(f"sub i64 {f.reds}, {c0}"), self.depth)
                some(c0, count, fn.val(f"icmp eq i64 {c0}, 0"))
        return self._back(fn, made, sums, valid, width, pitch, plane)

    def _back(self, fn: Fn, made: str, sums: str, valid: list[Any], width: int, pitch: int,
              plane: int) -> str:
        """Squares of outputs from their products."""
        tiles, lanes, side = self.tiles, self.c.lanes, self.side
        scalar = tiles.scalar
        _, down, along = self.squares
        image, line, _ = self.block.point_strides
        watch = Watch(tiles, fn)
        size = self.block.size[1:]
        name = transforms.back(tiles, width * pitch, line, side, [n % side or side for n in size])

        with fn.loop(0, width, hint="b") as b, fn.loop(0, valid[0], hint="n") as n, \
                fn.loop(0, valid[1], hint="y") as y, fn.loop(0, valid[2], hint="x") as x:
            square = fn.add(fn.mul(fn.add(fn.mul(n, down), y), along), x)
            at = fn.gep(scalar, made, fn.add(fn.mul(b, pitch), fn.mul(square, lanes)))
            place = fn.add(fn.add(fn.mul(n, image), fn.mul(y, side * line)), fn.mul(x, side))
            corner = fn.gep(scalar, sums, fn.add(fn.mul(b, plane), fn.mul(place, lanes)))
            there = [fn.val(f"icmp slt i64 {i}, {n // side}")
                     for i, n in zip((y, x), size, strict=True)]
            fn.do(f"call void @{name}(ptr {at}, ptr {corner}, ptr {watch.memory}, i1 {there[0]}, "
                  f"i1 {there[1]})")
        return watch.wrong()


def forth(tiles: TileWriter, fn: Fn, even: Block, squares: tuple[int, ...], lines: str, to: str,
          valid: list[Any], far: int, side: int = 2) -> None:
    """The squares of one block of channels, transformed: to[product][square]."""
    scalar, lanes = tiles.scalar, tiles.lanes
    steps = even.extent_strides
    down, along = squares[1:]
    name = transforms.forth(tiles, steps[1], far, side)

    with fn.loop(0, valid[0], hint="n") as n, fn.loop(0, valid[1], hint="y") as y, \
            fn.loop(0, valid[2], hint="x") as x:
        place = fn.add(fn.add(fn.mul(n, steps[0]), fn.mul(y, side * steps[1])), fn.mul(x, side))
        square = fn.add(fn.mul(fn.add(fn.mul(n, down), y), along), x)
        fn.do(f"call void @{name}(ptr {fn.gep(scalar, lines, fn.mul(place, lanes))}, "
              f"ptr {fn.gep(scalar, to, fn.mul(square, lanes))})")


def shared(fn: Fn, n: Any, side: int) -> Any:
    """How many squares n lines touch."""
    return (n + side - 1) // side if isinstance(n, int) else \
        fn.val(f"sdiv i64 {fn.add(n, side - 1)}, {side}")
