"""3x3 convolutions with fewer multiplications: minimal filtering, F(2x2, 3x3).

Each 2x2 square of outputs comes of a 4x4 square of the source by 16 multiplications a channel
instead of 36: both the source and the kernel are transformed by additions, multiplied place by
place (16 products of matrices, on the micro-kernel of every convolution), and transformed back
(Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, Fast Algorithms for
Convolutional Neural Networks, CVPR 2016).  In float32 the error is about twice that of the plain
sum.

An infinity or NaN would spread over its whole square.  So a tile in which one comes out is computed
again by the plain sum, and what is not finite is exactly where it should be.  FACULA_WINOGRAD=0
computes everything by the plain sum.
"""

from __future__ import annotations

from math import prod
from typing import Any

from facula import config
from facula.codegen.convolutions.direct import TileWriter
from facula.codegen.convolutions.finite import Watch
from facula.codegen.convolutions.walks import Block, Walk, grow
from facula.codegen.kernel import KernelDraft
from facula.codegen.llvm import Fn, Module
from facula.codegen.products.tiles import PARAMS, operand, smin, unravel

__all__ = ["Winograd", "WinogradWeight", "weight_back", "worthwhile"]

_POINTS = 256       # places of a tile


def channels_for(line: int) -> int:
    """How many output channels a tile is to have: the shorter a line of squares, the more it costs
    to transform one, and so the more products are to be made of it."""
    return min(max(512 // line, 64), 256)


def worthwhile(dtype: str, walks: tuple[Walk, ...], images: int, red: int, out: int,
               lanes: int) -> bool:
    """Whether the transforms cost less than the multiplications that they save."""
    if not config.flag.WINOGRAD or dtype != "float32" or len(walks) != 2:
        return False
    if lanes < 8 or red < 16 or out < 2 * lanes:
        return False
    if any(w.taps != 3 or w.step != 1 or abs(w.reach) != 1 or w.out_step != 1 or w.tap_step != 1
           for w in walks):
        return False
    squares = images * prod(-(-w.count // 2) for w in walks)
    points = images * prod(w.count for w in walks)
    if walks[-1].count > _POINTS:
        return False
    return squares >= 96 and 4 * squares <= 1.35 * points


def _forth(tiles: TileWriter, fn: Fn, even_block: Block, lines: str, to: str, valid: list[Any],
       plane: int) -> None:
    """The 4x4 squares of one channel, transformed: to[16 planes][square]."""
    scalar, vector, lanes = tiles.scalar, tiles.vector, tiles.lanes
    steps = even_block.extent_strides
    down, along = (n // 2 for n in even_block.size[1:])
    even = ", ".join(f"i32 {2 * i}" for i in range(lanes))
    odd = ", ".join(f"i32 {2 * i + 1}" for i in range(lanes))

    def op(name: str, a: str, b: str) -> str:
        return fn.val(f"{name} {vector} {a}, {b}")

    with fn.loop(0, valid[0], hint="n") as n, fn.loop(0, valid[1], hint="y") as y, \
            fn.loop(0, valid[2], lanes, "x") as x:
        at = fn.gep(scalar, lines, fn.add(fn.add(fn.mul(n, steps[0]),
                                                 fn.mul(y, 2 * steps[1])), fn.mul(x, 2)))
        # four vectors of each line: two, and the two that begin a square further
        d = [[fn.load(vector, fn.gep(scalar, at, r * steps[1] + shift), tiles.item)
              for shift in (0, lanes, 2, lanes + 2)] for r in range(4)]
        sides = [[op("fsub", d[0][k], d[2][k]) for k in range(4)],
                 [op("fadd", d[1][k], d[2][k]) for k in range(4)],
                 [op("fsub", d[2][k], d[1][k]) for k in range(4)],
                 [op("fsub", d[1][k], d[3][k]) for k in range(4)]]
        square = fn.add(fn.mul(fn.add(fn.mul(n, down), y), along), x)
        for i, (a, b, a2, b2) in enumerate(sides):
            e, o, e2, o2 = (fn.val(f"shufflevector {vector} {p}, {vector} {q}, "
                                   f"<{lanes} x i32> <{order}>")
                            for p, q, order in ((a, b, even), (a, b, odd), (a2, b2, even),
                                                (a2, b2, odd)))
            for j, value in enumerate((op("fsub", e, e2), op("fadd", o, e2),
                                       op("fsub", e2, o), op("fsub", o, o2))):
                fn.store(vector, value, fn.gep(scalar, to, fn.add(square, (4 * i + j) * plane)),
                         tiles.item)


def _halved(fn: Fn, n: Any) -> Any:
    """How many squares n lines touch."""
    return (n + 1) // 2 if isinstance(n, int) else fn.val(f"ashr i64 {fn.add(n, 1)}, 1")


def _across(tiles: TileWriter, fn: Fn, a: str, b: str, c: str) -> list[str]:
    """Three values of a kernel as four: a, (a+b+c)/2, (a-b+c)/2, c."""
    vector, half = tiles.vector, tiles.constant(0.5)
    ends = fn.val(f"fmul {vector} {fn.val(f'fadd {vector} {a}, {c}')}, {half}")
    middle = fn.val(f"fmul {vector} {b}, {half}")
    return [a, fn.val(f"fadd {vector} {ends}, {middle}"),
            fn.val(f"fsub {vector} {ends}, {middle}"), c]


def _pitch(squares: tuple[int, ...], lanes: int, least: int) -> int:
    """Room for the squares of a channel, whose last line is written in whole vectors."""
    total, line = prod(squares), squares[-1]
    end = total - line + -(-line // lanes) * lanes
    return -(-max(end, least) // lanes) * lanes


class Winograd:
    """The sums of a `Forward` kernel, by squares of outputs."""

    def __init__(self, forward: Any):
        self.f = f = forward
        lanes = f.tiles.lanes
        self.nv = min(f.vectors, 2)
        self.nr = self.nv * lanes
        self.panels = -(-f.vectors // self.nv)
        per = max(channels_for(-(-f.walks[1].count // 2)) // self.nr, 1)
        self.panels_each = -(-self.panels // -(-self.panels // per))
        self.width = self.panels_each * self.nr

    def block(self, counts: tuple[int, ...]) -> Block:
        """Places of a tile: an even number of lines, of which register tiles take two."""
        f = self.f
        line = -(-counts[2] // -(-counts[2] // 7))
        micro = [1, min(2, counts[1]), line]
        flops = 2.0 * prod(counts) * f.out * f.red * 9 * f.c.groups
        wanted = max(min(flops // 1_000_000, 32), 1)
        others = f.c.groups * -(-self.panels // self.panels_each)
        points = _POINTS if self.width <= 128 else _POINTS // 2
        least = [1, micro[1], counts[2]]    # lines are whole, so that places are neighbours

        def made() -> Block:
            return Block(f.walks, counts, tuple(grow(counts, least, points)), tuple(micro))

        while points > prod(least) and prod(made().blocks) * others < wanted:
            points //= 2
        return made()

    def plan(self, block: Block) -> None:
        """Sizes that follow from the block of places."""
        f = self.f
        self.size = block.size
        self.squares = (block.size[0], *(-(-n // 2) for n in block.size[1:]))
        even = (block.size[0], *(2 * n for n in self.squares[1:]))
        self.even = Block(f.walks, block.counts, even, even)
        total = prod(self.squares)
        chunks = -(-total // f.t.tile(self.nv))
        self.rows = -(-total // chunks)
        self.pitch = _pitch(self.squares, f.tiles.lanes, chunks * self.rows)
        most = min(f.red, max((1 << 18) // (16 * self.pitch * 4), 16))
        self.depth = -(-f.red // -(-f.red // most))

    # -- the weight
    def packed(self, out: Any) -> str:
        """The transformed weight as [group, panel, 16, input channel, nr]."""
        f, c = self.f, self.f.c
        tmp = f"tmp{len(out.temporaries)}"
        out.temporaries.append((tmp, c.groups * self.panels * 16 * f.red * self.nr * c.item))
        module = Module()
        module.light = True
        tiles = TileWriter(module, c.dtype, f.t)
        lanes, scalar, vector = tiles.lanes, tiles.scalar, tiles.vector
        fn = Fn(module, "KERNEL", PARAMS, attrs=f.t.attributes)
        src, dst = operand(fn, 0), operand(fn, 1)
        chunk = 32
        chunks = -(-f.red // chunk)
        g, panel, part = unravel(fn, "%tile", (c.groups, self.panels, chunks))
        first = fn.mul(part, chunk)
        last = smin(fn, fn.add(first, chunk), f.red)
        column = fn.mul(panel, self.nr)
        src = fn.gep(scalar, src, fn.add(fn.add(fn.mul(g, f.group_stride), c.b.offset),
                                         fn.mul(column, f.out_stride)))
        dst = fn.gep(scalar, dst, fn.mul(fn.add(fn.mul(g, self.panels), panel),
                                         16 * f.red * self.nr))
        with fn.loop(first, last, hint="r") as r, fn.loop(0, self.nr, lanes, "j") as j:
            at = fn.gep(scalar, src, fn.add(fn.mul(r, f.red_stride), fn.mul(j, f.out_stride)))
            left = fn.val(f"sub i64 {f.out}, {fn.add(column, j)}")
            places = [[sum((w.tap0 + (p if w.reach > 0 else 2 - p)) * s for w, p, s in
                           zip(f.walks, (y, x), f.tap_strides, strict=True)) for x in range(3)]
                      for y in range(3)]
            if f.tap_strides == [3, 1] and c.w[2:] == (3, 3) and lanes >= 9:
                found = tiles.lines(fn, at, f.out_stride, 9, left if f.out % self.nr else None)
                kernel = [[found[place] for place in line] for line in places]
            else:
                kernel = [[tiles.strided(fn, fn.gep(scalar, at, place), f.out_stride, left)
                           for place in line] for line in places]
            columns = [_across(tiles, fn, *(kernel[y][x] for y in range(3))) for x in range(3)]
            for y in range(4):
                for x, value in enumerate(_across(tiles, fn, *(columns[k][y]
                                                               for k in range(3)))):
                    to = fn.add(fn.mul(fn.add(r, (4 * y + x) * f.red), self.nr), j)
                    fn.store(vector, value, fn.gep(scalar, dst, to), c.item)
        fn.finish()
        out.packing.append(KernelDraft("KERNEL", ("b", tmp), c.groups * self.panels * chunks,
                                       module,
                                       30.0 * f.red * f.out * c.groups * 9 / max(c.flops, 1.0)))
        return tmp

    # -- the sums
    def sum(self, fn: Fn, source: str, packed: str, g: Any, ob: Any, starts: list[Any],
            counts: list[Any], sums: str) -> str:
        """Fill sums[place, channel]; returns whether anything in it is not finite (an i1)."""
        f, c, tiles = self.f, self.f.c, self.f.tiles
        scalar, pitch, width = tiles.scalar, self.pitch, self.width
        each = prod(self.even.extents)
        plane = self.depth * pitch
        cache = fn.alloca(scalar, tiles.room(self.even, self.depth) + 4 * tiles.lanes)
        turned = fn.alloca(scalar, 16 * plane + tiles.lanes)
        made = fn.alloca(scalar, 16 * pitch * width)
        table = tiles.table("KERNEL_channels", [k * pitch for k in range(self.depth)])
        image, channel, *places = c.a.strides
        source = fn.gep(scalar, source, fn.add(fn.mul(g, f.red * channel), c.a.offset))
        panel0 = fn.add(fn.mul(g, self.panels), fn.mul(ob, self.panels_each))
        packed = fn.gep(scalar, packed, fn.mul(panel0, 16 * f.red * self.nr))
        here = smin(fn, fn.val(f"sub i64 {self.panels}, {fn.mul(ob, self.panels_each)}"),
                    self.panels_each)
        valid = [counts[0], *(_halved(fn, n) for n in counts[1:])]
        total: Any = 1
        for n in valid:
            total = fn.mul(total, n)

        def channels(c0: Any, count: Any, first: str) -> None:
            tiles.copy_source(fn, self.even, fn.gep(scalar, source, fn.mul(c0, channel)),
                              [image, *places], channel, count, starts, counts[0], cache)
            with fn.loop(0, count, hint="c") as k:
                _forth(tiles, fn, self.even, fn.gep(scalar, cache, fn.mul(k, each)),
                       fn.gep(scalar, turned, fn.mul(k, pitch)), valid, plane)
            name = "KERNEL_micro_squares"
            tiles.micro(name, range(self.rows), self.nv, [i * width for i in range(self.rows)],
                        table, self.nr)
            with fn.loop(0, 16, hint="m") as m, fn.loop(0, here, hint="p") as p, \
                    fn.loop(0, total, self.rows, "q") as q:
                x = fn.gep(scalar, turned, fn.add(fn.mul(m, plane), q))
                v = fn.gep(scalar, packed, fn.mul(fn.add(fn.mul(
                    fn.add(fn.mul(p, 16), m), f.red), c0), self.nr))
                z = fn.gep(scalar, made, fn.add(fn.mul(fn.add(fn.mul(m, pitch), q), width),
                                                fn.mul(p, self.nr)))
                fn.do(f"call void @{name}(ptr {x}, ptr {v}, ptr {z}, i64 {count}, i1 {first})")

        if self.depth == f.red:
            channels(0, f.red, "true")
        else:
            with fn.loop(0, f.red, self.depth, "c0") as c0:
                count = smin(fn, fn.val(f"sub i64 {f.red}, {c0}"), self.depth)
                channels(c0, count, fn.val(f"icmp eq i64 {c0}, 0"))
        columns = fn.val(f"sub i64 {f.out}, {fn.mul(ob, width)}")
        return self._back(fn, made, sums, valid, smin(fn, columns, width))

    def _back(self, fn: Fn, made: str, sums: str, valid: list[Any], columns: Any) -> str:
        """Squares of outputs from the 16 products."""
        f, tiles = self.f, self.f.tiles
        scalar, vector, lanes = tiles.scalar, tiles.vector, tiles.lanes
        _, down, along = self.squares
        image, line, _ = f.block.point_strides
        watch = Watch(tiles, fn)
        sink = fn.alloca(scalar, self.width)

        def op(name: str, a: str, b: str) -> str:
            return fn.val(f"{name} {vector} {a}, {b}")

        def pair(a: str, b: str, c: str, d: str) -> tuple[str, str]:
            return op("fadd", op("fadd", a, b), c), op("fsub", op("fsub", b, c), d)

        with fn.loop(0, valid[0], hint="n") as n, fn.loop(0, valid[1], hint="y") as y, \
                fn.loop(0, valid[2], hint="x") as x:
            square = fn.add(fn.mul(fn.add(fn.mul(n, down), y), along), x)
            at = fn.gep(scalar, made, fn.mul(square, self.width))
            place = fn.add(fn.add(fn.mul(n, image), fn.mul(y, 2 * line)), fn.mul(x, 2))
            corner = fn.gep(scalar, sums, fn.mul(place, self.width))
            to = [[fn.gep(scalar, corner, (a * line + b) * self.width) for b in (0, 1)]
                  for a in (0, 1)]
            for d, i in ((1, y), (2, x)):
                if self.size[d] % 2:        # the second half of the last squares is nowhere
                    there = fn.val(f"icmp slt i64 {i}, {self.size[d] // 2}")
                    for a, b in (((1, 0), (1, 1)) if d == 1 else ((0, 1), (1, 1))):
                        to[a][b] = fn.val(f"select i1 {there}, ptr {to[a][b]}, ptr {sink}")
            with fn.loop(0, columns, lanes, "v") as v:
                m = [[fn.load(vector, fn.gep(scalar, at, fn.add(
                    v, (4 * a + b) * self.pitch * self.width)), tiles.item) for b in range(4)]
                    for a in range(4)]
                halves = [pair(*(m[a][b] for a in range(4))) for b in range(4)]
                out = [pair(*(halves[b][a] for b in range(4))) for a in (0, 1)]
                total = op("fadd", op("fadd", *out[0]), op("fadd", *out[1]))
                watch.see(total)
                for a in (0, 1):
                    for b in (0, 1):
                        fn.store(vector, out[a][b], fn.gep(scalar, to[a][b], v), tiles.item)
        return watch.wrong()


class WinogradWeight:
    """The sums of a `_Weight` kernel (`weight`): the transpose of the same products.

    The gradient's 2x2 squares become 4x4 ones by additions, the 16 products run over squares, and
    what comes of them goes back to 3x3 by the transpose of the kernel's transform.
    """

    def __init__(self, weight: Any):
        self.w = weight
        s, lanes = weight.sizes, weight.tiles.lanes
        counts = s.block.counts
        size = grow(counts, [1, min(2, counts[1]), counts[2]], _POINTS)
        self.block = Block(s.block.walks, counts, tuple(size), tuple(size))
        self.squares = (size[0], *(-(-n // 2) for n in size[1:]))
        even = (size[0], *(2 * n for n in self.squares[1:]))
        self.even = Block(s.block.walks, counts, even, even)
        self.pitch = _pitch(self.squares, lanes, 0)
        most = min(weight.t.tile(s.nv), s.depth)
        self.rows = -(-s.depth // -(-s.depth // most))
        self.height = -(-s.depth // self.rows) * self.rows

    def sum(self, fn: Fn, source: str, grads: str, low: Any, high: Any, count: Any,
            channels: Any, sums: str) -> str:
        """Fill sums[channel and tap, output channel]; whether any of it is not finite (an i1)."""
        w, block = self.w, self.block
        c, s, tiles = w.c, w.sizes, w.tiles
        scalar, lanes, pitch = tiles.scalar, tiles.lanes, self.pitch
        each, total = prod(self.even.extents), prod(self.squares)
        plane = self.height * pitch
        cache = fn.alloca(scalar, tiles.room(self.even, s.depth) + 4 * lanes)
        turned = fn.alloca(scalar, 16 * plane + lanes)
        room = block.points + block.size[2] + lanes     # a line more where lines are odd
        columns = fn.alloca(scalar, s.panels_each * room * s.nr)
        across = fn.alloca(scalar, 16 * total * s.nr)
        made = fn.alloca(scalar, 16 * self.height * s.width)
        table = tiles.table("KERNEL_squares", list(range(total)))
        image, channel, *places = c.a.strides
        panels = fn.val(f"sdiv i64 {fn.add(channels, s.nr - 1)}, {s.nr}") \
            if not isinstance(channels, int) else -(-channels // s.nr)
        with fn.loop(low, high, block.size[0], "n") as n, \
                fn.loop(0, prod(block.blocks[1:]), hint="b") as b:
            starts = [n, *(fn.mul(i, size) for i, size in
                           zip(unravel(fn, b, block.blocks[1:]), block.size[1:], strict=True))]
            counts = block.valid(fn, starts, high)
            valid = [counts[0], *(_halved(fn, k) for k in counts[1:])]
            tiles.copy_source(fn, self.even, source, [image, *places], channel, count, starts,
                              counts[0], cache)
            with fn.loop(0, count, hint="c") as k:
                _forth(tiles, fn, self.even, fn.gep(scalar, cache, fn.mul(k, each)),
                       fn.gep(scalar, turned, fn.mul(k, pitch)), valid, plane)
            w.columns(fn, grads, block, starts, counts, channels, columns, room)
            begun = fn.val(f"and i1 {fn.val(f'icmp eq i64 {n}, {low}')}, "
                           f"{fn.val(f'icmp eq i64 {b}, 0')}")
            kc: Any = 1
            for size in valid:
                kc = fn.mul(kc, size)
            name = "KERNEL_micro_squares"
            tiles.micro(name, [i * pitch for i in range(self.rows)], s.nv,
                        [i * s.width for i in range(self.rows)], table, s.nr)
            with fn.loop(0, panels, hint="p") as p:
                self._spread(fn, fn.gep(scalar, columns, fn.mul(p, room * s.nr)), across, valid,
                             counts)
                with fn.loop(0, 16, hint="m") as m, fn.loop(0, count, self.rows, "i") as i:
                    x = fn.gep(scalar, turned, fn.add(fn.mul(m, plane), fn.mul(i, pitch)))
                    v = fn.gep(scalar, across, fn.mul(m, total * s.nr))
                    z = fn.gep(scalar, made, fn.add(
                        fn.mul(fn.add(fn.mul(m, self.height), i), s.width), fn.mul(p, s.nr)))
                    fn.do(f"call void @{name}(ptr {x}, ptr {v}, ptr {z}, i64 {kc}, i1 {begun})")
        return weight_back(tiles, fn, made, sums, count, channels, s.width, self.height)

    def _spread(self, fn: Fn, columns: str, to: str, valid: list[Any], counts: list[Any]) -> None:
        """The squares of a panel of the gradient: to[16][square][nr] from columns[place][nr]."""
        s, tiles = self.w.sizes, self.w.tiles
        scalar, vector, lanes = tiles.scalar, tiles.vector, tiles.lanes
        _, down, along = self.squares
        image, line, _ = self.block.point_strides
        plane = prod(self.squares) * s.nr

        def four(a: str, b: str) -> list[str]:
            return [a, fn.val(f"fadd {vector} {a}, {b}"), fn.val(f"fsub {vector} {a}, {b}"),
                    fn.val(f"fneg {vector} {b}")]

        with fn.loop(0, valid[0], hint="n") as n, fn.loop(0, valid[1], hint="y") as y, \
                fn.loop(0, valid[2], hint="x") as x, fn.loop(0, s.nr, lanes, "v") as v:
            square = fn.add(fn.mul(fn.add(fn.mul(n, down), y), along), x)
            place = fn.add(fn.add(fn.mul(n, image), fn.mul(y, 2 * line)), fn.mul(x, 2))
            g = []
            for a in (0, 1):
                row = []
                for b in (0, 1):
                    at = fn.gep(scalar, columns, fn.add(fn.mul(
                        fn.add(place, a * line + b), s.nr), v))
                    value = fn.load(vector, at, tiles.item)
                    for on, d, i in ((a, 1, y), (b, 2, x)):
                        if on and self.block.counts[d] % 2:
                            inside = fn.val(f"icmp slt i64 {fn.add(fn.mul(i, 2), 1)}, "
                                            f"{counts[d]}")
                            value = fn.val(f"select i1 {inside}, {vector} {value}, {vector} "
                                           "zeroinitializer")
                    row.append(value)
                g.append(row)
            sides = [four(g[0][b], g[1][b]) for b in (0, 1)]
            for row_ in range(4):
                for j, value in enumerate(four(sides[0][row_], sides[1][row_])):
                    there = fn.add(fn.add(fn.mul(square, s.nr), v), (4 * row_ + j) * plane)
                    fn.store(vector, value, fn.gep(scalar, to, there), tiles.item)


def weight_back(tiles: TileWriter, fn: Fn, made: str, sums: str, count: Any, channels: Any,
                width: int, height: int) -> str:
    """sums[channel and tap, output channel] from 16 products made[channel, output channel], which
    are `height` channels of `width` apart; whether any of it is not finite (an i1)."""
    scalar, vector, lanes = tiles.scalar, tiles.vector, tiles.lanes
    watch = Watch(tiles, fn)
    half = tiles.constant(0.5)

    def op(name: str, a: str, b: str) -> str:
        return fn.val(f"{name} {vector} {a}, {b}")

    def three(a: str, b: str, c: str, d: str) -> list[str]:
        both = op("fmul", op("fadd", b, c), half)
        return [op("fadd", a, both), op("fmul", op("fsub", b, c), half), op("fadd", both, d)]

    with fn.loop(0, count, hint="c") as c, fn.loop(0, channels, lanes, "v") as v:
        at = fn.gep(scalar, made, fn.add(fn.mul(c, width), v))
        m = [[fn.load(vector, fn.gep(scalar, at, (4 * a + b) * height * width), tiles.item)
              for b in range(4)] for a in range(4)]
        columns = [three(*(m[a][b] for a in range(4))) for b in range(4)]
        total = ""
        for y in range(3):
            for x, value in enumerate(three(*(columns[b][y] for b in range(4)))):
                total = op("fadd", total, value) if total else value
                to = fn.add(fn.mul(fn.add(fn.mul(c, 9), 3 * y + x), width), v)
                fn.store(vector, value, fn.gep(scalar, sums, to), tiles.item)
        watch.see(total)
    return watch.wrong()
