"""Gradients of 3x3 convolutions' inputs by minimal filtering transposed, on blocks of channels.

The convolution of `blocks.squares` turned around, step by step: squares of the
gradient are transformed as outputs are, transposed, multiplied, and what comes of the products goes
back to the larger squares that the outputs were made of, which overlap and are added up.  Without
padding the gradient has fewer squares than the input has, which it would be computed by as a
convolution: nine for sixteen of 13x13 places.  A tile has whole images, so that all that overlaps
is its own.
"""

from __future__ import annotations

from math import prod
from typing import Any

from facula.codegen.convolutions.blocks import transforms
from facula.codegen.convolutions.blocks.convolution import Blocks
from facula.codegen.convolutions.blocks.filtering import ROOM, Filtered
from facula.codegen.convolutions.finite import Watch
from facula.codegen.convolutions.walks import Block
from facula.codegen.llvm import Fn
from facula.codegen.target import Target

__all__ = ["Adjoint"]


class Adjoint(Filtered):
    """The kernel of a gradient `c`, as the convolution of the result's that it is."""

    def __init__(self, c: Blocks, t: Target, finish: Any):
        super().__init__(c, t, finish)
        side, f = self.side, self.f
        self.lines = tuple(-(-n // side) for n in c.x[2:])
        most = t.tile(f.nv)
        best = None
        for each in range(1, f.panels + 1):
            if f.panels % each:
                continue
            for nb in range(1, c.x[0] + 1):
                cost = self._cost(each, nb, most)
                if cost is None:
                    break
                if best is None or cost < best[0]:
                    best = cost, each, nb
        assert best is not None
        _, f.each, nb = best
        f.o_blocks = f.panels // f.each
        size = (nb, *f.counts[1:])
        across = -(-size[2] // -(-size[2] // most))
        f.block = self.block = Block(f.walks, f.counts, size, (1, 1, across))
        f.set_depth()
        total = nb * prod(self.lines)
        chunks = -(-total // most)
        self.rows = -(-total // chunks)
        self.pitch = chunks * self.rows
        deepest = max(ROOM // (self.products * self.pitch * 4 * c.lanes), 1)
        self.depth = -(-f.reds // -(-f.reds // min(deepest, f.reds)))

    def _cost(self, each: int, nb: int, most: int) -> float | None:
        """What tiles of so many panels and images cost, as `Squares` has it."""
        f, c, products = self.f, self.c, self.products
        total = nb * prod(self.lines)
        rows = -(-total // -(-total // most))
        padded = -(-total // rows) * rows
        width = each * f.nv
        if products * padded * width * c.lanes * 4 > ROOM and (each, nb) != (1, 1):
            return None
        tiles = -(-c.x[0] // nb) * (f.panels // each)
        spread, back = (60, 120) if self.side == 2 else (200, 320)
        one = products * width * f.reds * c.lanes * (padded * (1 + 2 / rows) + 6) \
            + total * (f.reds * spread + width * back)
        return float(-(-tiles // 2) * one + tiles * 2000)

    def _count(self, fn: Fn, counts: list[Any]) -> Any:
        return fn.mul(counts[0], prod(self.lines))

    def _forth(self, fn: Fn, source: str, c0: Any, count: Any, starts: list[Any],
               counts: list[Any], turned: str, pitch: int, far: int) -> None:
        f, scalar = self.f, self.tiles.scalar
        with fn.loop(0, count, hint="c") as k:
            self._spread(fn, fn.gep(scalar, source, fn.mul(fn.add(c0, k), f.strides[1])),
                         starts, counts, fn.gep(scalar, turned, fn.mul(k, pitch)), far)

    def _spread(self, fn: Fn, source: str, starts: list[Any], counts: list[Any], to: str,
                far: int) -> None:
        """The squares of one block of channels of the gradient: to[product][square]."""
        tiles, side = self.tiles, self.side
        scalar, lanes = tiles.scalar, tiles.lanes
        image, _, *places = self.f.strides[:4]
        sizes, (down, along) = self.c.x[2:], self.lines
        name = transforms.spread(tiles, places, far, side, [n % side > 0 for n in sizes])
        with fn.loop(0, counts[0], hint="n") as n, fn.loop(0, down, hint="y") as y, \
                fn.loop(0, along, hint="x") as x:
            at = fn.add(fn.mul(fn.add(starts[0], n), image),
                        fn.add(fn.mul(y, side * places[0]), fn.mul(x, side * places[1])))
            square = fn.add(fn.mul(fn.add(fn.mul(n, down), y), along), x)
            left = [fn.val(f"sub i64 {k}, {fn.mul(i, side)}")
                    for k, i in zip(sizes, (y, x), strict=True)]
            fn.do(f"call void @{name}(ptr {fn.gep(scalar, source, at)}, "
                  f"ptr {fn.gep(scalar, to, fn.mul(square, lanes))}, i64 {left[0]}, "
                  f"i64 {left[1]})")

    def _back(self, fn: Fn, made: str, sums: str, counts: list[Any], width: int, pitch: int,
              plane: int) -> str:
        """Places of the input's gradient from the products."""
        tiles, side, lanes = self.tiles, self.side, self.c.lanes
        scalar, vector = tiles.scalar, tiles.vector
        down, along = self.lines
        image, line, _ = self.block.point_strides
        watch = Watch(tiles, fn)
        beyond = [n - side * (k - 1) for n, k in zip(self.block.size[1:], self.lines, strict=True)]
        name = transforms.scatter(tiles, width * pitch, line, side, beyond)
        with fn.loop(0, width, hint="b") as b, fn.loop(0, counts[0], hint="n") as n:
            one = fn.gep(scalar, sums, fn.add(fn.mul(b, plane), fn.mul(n, image * lanes)))
            with fn.loop(0, image, hint="i") as i:
                fn.store(vector, "zeroinitializer", fn.gep(scalar, one, fn.mul(i, lanes)), 4)
            with fn.loop(0, down, hint="y") as y, fn.loop(0, along, hint="x") as x:
                square = fn.add(fn.mul(fn.add(fn.mul(n, down), y), along), x)
                at = fn.gep(scalar, made, fn.add(fn.mul(b, pitch), fn.mul(square, lanes)))
                place = fn.add(fn.mul(y, side * line), fn.mul(x, side))
                there = [fn.val(f"icmp slt i64 {i}, {k - 1}")
                         for i, k in zip((y, x), self.lines, strict=True)]
                fn.do(f"call void @{name}(ptr {at}, ptr {fn.gep(scalar, one, fn.mul(place, lanes))}"
                      f", ptr {watch.memory}, i1 {there[0]}, i1 {there[1]})")
        return watch.wrong()
