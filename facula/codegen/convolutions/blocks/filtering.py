"""What minimal filtering on blocks of channels and its transpose share.

Both bring squares of what is read into products' form, multiply matrices, one for each of the
products of a square, and go back to squares of what is written.  How squares lie and what the two
transforms are is up to `blocks.squares` and `blocks.adjoint`.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from facula.codegen.convolutions.blocks.convolution import Blocks
from facula.codegen.convolutions.blocks.forward import Direct
from facula.codegen.convolutions.walks import Block
from facula.codegen.kernel import KernelDraft
from facula.codegen.llvm import Fn
from facula.codegen.products.tiles import PARAMS, operand, smin
from facula.codegen.target import Target

__all__ = ["Filtered", "ROOM"]

ROOM = 384 << 10
"""Bytes of the products of a tile, and of what they are made of."""


def _chain(reds: int, side: int) -> int:
    """Blocks of channels that are summed in one chain.

    The errors of a chain grow with its length, and larger squares multiply them: of many channels
    there are as many sums of pieces as pieces are long.
    """
    return reds if side == 2 else min(2 if reds >= 8 else 1, reds)


class Filtered:
    """A kernel by minimal filtering: its makers say how it is cut into tiles, and what the
    transforms are.

    block          the places of a tile
    rows, pitch    squares that are multiplied at a time, and so many are stored
    depth          blocks of channels that are transformed at a time
    """

    block: Block
    rows: int
    pitch: int
    depth: int

    def __init__(self, c: Blocks, t: Target, finish: Any):
        self.c, self.t, self.finish = c, t, finish
        self.side = c.squares
        self.products = (c.squares + 2) ** 2
        self.f = f = Direct(replace(c, squares=0, adjoint=False), t, finish)
        self.module, self.tiles = f.module, f.tiles

    def _rooms(self, fn: Fn) -> None:
        """Take memory of its own."""

    def _count(self, fn: Fn, counts: list[Any]) -> Any:
        """How many squares a tile of so many places has."""
        raise AssertionError("each kind counts its own squares")

    def _forth(self, fn: Fn, source: str, c0: Any, count: Any, starts: list[Any],
               counts: list[Any], turned: str, pitch: int, far: int) -> None:
        """Fill turned[product][block of channels, `pitch` apart][square] from block c0 on."""
        raise AssertionError("each kind has a transform of what it reads")

    def _back(self, fn: Fn, made: str, sums: str, counts: list[Any], width: int, pitch: int,
              plane: int) -> str:
        """Fill sums[block of channels, place, lane] from the products; whether any of it is not
        finite (an i1)."""
        raise AssertionError("each kind has a transform of what it writes")

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
        f, tiles = self.f, self.tiles
        scalar, lanes = tiles.scalar, self.c.lanes
        nr, width = f.nv * lanes, f.each * f.nv
        pitch = self.pitch * lanes
        products = self.products
        far = self.depth * pitch                # from one of the products to the next
        self._rooms(fn)
        turned = fn.alloca(scalar, products * far)
        made = fn.alloca(scalar, products * width * pitch)
        table = tiles.table("KERNEL_channels", [b * pitch + lane for b in range(self.depth)
                                                for lane in range(lanes)])
        each = f.reds * lanes * nr              # of the weight: for one product, one panel
        packed = fn.gep(scalar, packed, fn.mul(fn.mul(ob, f.each), products * each))
        total = self._count(fn, counts)
        line = 4 * nr
        ahead = -(-line * self.rows // self.pitch)      # of the next weight, with each k
        name = tiles.micro("KERNEL_squares", [i * lanes for i in range(self.rows)], f.nv,
                           [i * lanes for i in range(self.rows)], table, nr, False, pitch, ahead)

        chain = _chain(f.reds, self.side)

        def some(c0: Any, count: Any, first: str) -> None:
            self._forth(fn, source, c0, count, starts, counts, turned, pitch, far)
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
        return self._back(fn, made, sums, counts, width, pitch, plane)
