"""3x3 convolutions on blocks of channels by minimal filtering, F(2x2, 3x3) and F(4x4, 3x3).

As in `convolutions.winograd`, where the method and its sources are described; here a vector is a
block of channels, so that both transforms are additions of whole vectors and nothing is shuffled.
A tile in which something comes out that is not finite is computed again by the plain sum, from the
weight as the user has it.

Squares of 4x4 outputs take 36 products of 6x6 inputs where plain sums take 144; the transforms are
in `blocks.transforms`.
"""

from __future__ import annotations

from math import prod
from typing import Any

from facula.codegen.convolutions.blocks import transforms
from facula.codegen.convolutions.blocks.convolution import Blocks
from facula.codegen.convolutions.blocks.filtering import ROOM, Filtered
from facula.codegen.convolutions.blocks.forward import copy_blocks
from facula.codegen.convolutions.direct import TileWriter
from facula.codegen.convolutions.finite import Watch
from facula.codegen.convolutions.walks import Block
from facula.codegen.llvm import Fn
from facula.codegen.target import Target

__all__ = ["Squares", "forth", "shared"]


class Squares(Filtered):
    """The kernel of a convolution `c` that `squares_suit`s."""

    def __init__(self, c: Blocks, t: Target, finish: Any):
        super().__init__(c, t, finish)
        side, f = self.side, self.f
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
        most = max(ROOM // (self.products * self.pitch * 4 * c.lanes), 1)
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
        if products * padded * width * c.lanes * 4 > ROOM and total > -(-line // side):
            return None
        pairs = -(-lines // side)
        tiles = -(-images // nb) * -(-pairs // sy) * (f.panels // each)
        channels = f.reds * c.lanes
        # the weight comes from afar, a vector at a time; transforms are additions of vectors
        forth, back = (120, 100) if side == 2 else (300, 220)
        one = products * width * channels * (padded * (1 + 2 / rows) + 6) \
            + total * (f.reds * forth + width * back)
        return float(-(-tiles // 2) * one + tiles * 2000)

    def _rooms(self, fn: Fn) -> None:
        self.extents = prod(self.even.extents) * self.c.lanes
        self.cache = fn.alloca(self.tiles.scalar, self.depth * self.extents)

    def _count(self, fn: Fn, counts: list[Any]) -> Any:
        self.valid = [counts[0], *(shared(fn, n, self.side) for n in counts[1:])]
        total: Any = self.valid[0]
        for all_, n in zip(self.squares[1:], self.valid[1:], strict=True):
            # squares are numbered in whole lines
            total = fn.mul(total, n if all_ != self.squares[2] else all_)
        return total

    def _forth(self, fn: Fn, source: str, c0: Any, count: Any, starts: list[Any],
               counts: list[Any], turned: str, pitch: int, far: int) -> None:
        f, tiles = self.f, self.tiles
        scalar = tiles.scalar
        copy_blocks(tiles, fn, self.even, fn.gep(scalar, source, fn.mul(c0, f.strides[1])),
                    f.strides, count, starts, counts[0], self.cache)
        with fn.loop(0, count, hint="c") as k:
            forth(tiles, fn, self.even, self.squares,
                  fn.gep(scalar, self.cache, fn.mul(k, self.extents)),
                  fn.gep(scalar, turned, fn.mul(k, pitch)), self.valid, far, self.side)

    def _back(self, fn: Fn, made: str, sums: str, counts: list[Any], width: int, pitch: int,
              plane: int) -> str:
        """Squares of outputs from their products."""
        valid = self.valid
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
