"""Gradients of 3x3 convolutions' inputs by minimal filtering transposed, on blocks of channels.

The convolution of `blocks.squares` turned around, step by step: squares of the
gradient are transformed as outputs are, transposed, multiplied, and what comes of the products goes
back to the larger squares that the outputs were made of, which overlap and are added up.  Without
padding the gradient has fewer squares than the input has, which it would be computed by as a
convolution: nine for sixteen of 13x13 places.  A tile has whole images, so that all that overlaps
is its own.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from facula.codegen.convolutions.blocks import transforms
from facula.codegen.convolutions.blocks.convolution import Blocks
from facula.codegen.convolutions.blocks.forward import Direct
from facula.codegen.convolutions.blocks.squares import chain_of
from facula.codegen.convolutions.finite import Watch
from facula.codegen.convolutions.walks import Block
from facula.codegen.kernel import KernelDraft
from facula.codegen.llvm import Fn
from facula.codegen.products.tiles import PARAMS, operand, smin
from facula.codegen.target import Target

__all__ = ["Adjoint"]

_ROOM = 384 << 10           # bytes of the products of a tile, and of what they are made of


class Adjoint:
    """The kernel of a gradient `c`, as the convolution of the result's that it is."""

    def __init__(self, c: Blocks, t: Target, finish: Any):
        self.c, self.t, self.finish = c, t, finish
        self.side = side = c.squares
        self.products = (side + 2) ** 2
        self.f = f = Direct(replace(c, squares=0, adjoint=False), t, finish)
        self.module, self.tiles = f.module, f.tiles
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
        deepest = max(_ROOM // (self.products * self.pitch * 4 * c.lanes), 1)
        self.depth = -(-f.reds // -(-f.reds // min(deepest, f.reds)))

    def _cost(self, each: int, nb: int, most: int) -> float | None:
        """What tiles of so many panels and images cost, as `Squares` has it."""
        f, c, products = self.f, self.c, self.products
        total = nb * prod(self.lines)
        rows = -(-total // -(-total // most))
        padded = -(-total // rows) * rows
        width = each * f.nv
        if products * padded * width * c.lanes * 4 > _ROOM and (each, nb) != (1, 1):
            return None
        tiles = -(-c.x[0] // nb) * (f.panels // each)
        spread, back = (60, 120) if self.side == 2 else (200, 320)
        one = products * width * f.reds * c.lanes * (padded * (1 + 2 / rows) + 6) \
            + total * (f.reds * spread + width * back)
        return float(-(-tiles // 2) * one + tiles * 2000)

    def emit(self) -> KernelDraft:
        c, f = self.c, self.f
        block, scalar = self.block, self.tiles.scalar
        fn = Fn(self.module, "KERNEL", PARAMS, attrs=self.t.attributes)
        fn.written = True
        source, packed, weight = (operand(fn, k) for k in range(3))
        starts, ob = f.order(fn)
        counts = block.valid(fn, starts)
        width, plane = f.each * f.nv, block.points * c.lanes
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
        scalar, lanes, products = tiles.scalar, c.lanes, self.products
        nr, width = f.nv * lanes, f.each * f.nv
        pitch = self.pitch * lanes
        far = self.depth * pitch                # from one of the products to the next
        turned = fn.alloca(scalar, products * far)
        made = fn.alloca(scalar, products * width * pitch)
        table = tiles.table("KERNEL_channels", [b * pitch + lane for b in range(self.depth)
                                                for lane in range(lanes)])
        each = f.reds * lanes * nr              # of the weight: for one product, one panel
        packed = fn.gep(scalar, packed, fn.mul(fn.mul(ob, f.each), products * each))
        total = fn.mul(counts[0], prod(self.lines))
        line = 4 * nr
        ahead = -(-line * self.rows // self.pitch)      # of the next weight, with each k
        name = tiles.micro("KERNEL_squares", [i * lanes for i in range(self.rows)], f.nv,
                           [i * lanes for i in range(self.rows)], table, nr, False, pitch, ahead)

        chain = chain_of(f.reds, self.side)

        def some(c0: Any, count: Any, first: str) -> None:
            with fn.loop(0, count, hint="c") as k:
                self._spread(fn, fn.gep(scalar, source, fn.mul(fn.add(c0, k), f.strides[1])),
                             starts, counts, fn.gep(scalar, turned, fn.mul(k, pitch)), far)
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
        return self._back(fn, made, sums, counts[0], width, pitch, plane)

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

    def _back(self, fn: Fn, made: str, sums: str, images: Any, width: int, pitch: int,
              plane: int) -> str:
        """Places of the input's gradient from the products."""
        tiles, side, lanes = self.tiles, self.side, self.c.lanes
        scalar, vector = tiles.scalar, tiles.vector
        down, along = self.lines
        image, line, _ = self.block.point_strides
        watch = Watch(tiles, fn)
        beyond = [n - side * (k - 1) for n, k in zip(self.block.size[1:], self.lines, strict=True)]
        name = transforms.scatter(tiles, width * pitch, line, side, beyond)
        with fn.loop(0, width, hint="b") as b, fn.loop(0, images, hint="n") as n:
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
