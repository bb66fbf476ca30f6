"""The kernels of a convolution and of its two derivatives.

`conv` and `conv_input` are one kernel: places are the rows of register tiles, output channels their
vectors, and the sum runs over input channels and taps; `conv_weight` is in convolve_weight.py.  The
order in which an element is summed depends on the shapes alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

from facula.codegen.contract import Kernel, Role
from facula.codegen.convolve_weight import Weight
from facula.codegen.direct import Tiles, View
from facula.codegen.lanewise import Lanes, suits
from facula.codegen.llvm import Fn, Module
from facula.codegen.pack import Source, emit_pack
from facula.codegen.target import Target, target
from facula.codegen.tiles import PARAMS, operand, smin, unravel
from facula.codegen.walks import (
    Block,
    Walk,
    backward_walks,
    forward_walk,
    grow,
    micro_rect,
    reached,
)
from facula.codegen.winograd import Winograd, worthwhile
from facula.dtype import DTYPES

__all__ = ["Convolution", "Emitted", "Finish", "emit_convolution"]


@dataclass(frozen=True)
class Convolution:
    """One of the three products of `facula.ops.primitive.convolution`, on operands in memory.

    `x`, `w` and `y` are the shapes of input, weight and result of the convolution itself, whatever
    of the three this step computes; `a` and `b` say where its two operands lie.  With `short` these
    are bfloat16, and are multiplied in pairs (`facula.codegen.convolve_pairs`).
    """

    kind: str
    dtype: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    y: tuple[int, ...]
    stride: tuple[int, ...]
    low: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    a: View
    b: View
    parts: int = 0
    short: bool = False         # of bfloat16 operands; `dtype` is that of sums and result
    lasting: bool = False       # what is made of the weight is kept for many runs

    @property
    def flops(self) -> float:
        return 2.0 * prod(self.y) * prod(self.w[1:])

    @property
    def item(self) -> int:
        return DTYPES[self.dtype].itemsize

    def walks(self) -> list[tuple[Walk, ...]]:
        """How each kernel of the product walks over its source."""
        spatial = list(zip(self.x[2:], self.y[2:], self.w[2:], self.stride, self.low,
                           self.dilation))
        if self.kind == "conv_input":
            lines = [backward_walks(out, n, *rest) for n, out, *rest in spatial]
            return list(itertools.product(*lines))
        return [tuple(forward_walk(*line) for line in spatial)]


class Finish(Protocol):
    """What becomes of a finished tile.

    `start` loads pointers, before the first loop, and `ask` may ask for memory that `places` will
    write.  `places` writes sums[o * ld + i] of channels o and neighbouring outputs i; `taps` those
    of the weight: output channels o, and input channels and taps i.  Channel o is channel +
    o * step of the result.
    """

    def ask(self, fn: Fn, block: Block, starts: Sequence[Any], counts: Sequence[Any],
            channel: Any, channels: Any) -> None: ...

    def places(self, fn: Fn, block: Block, starts: Sequence[Any], counts: Sequence[Any],
               channel: Any, channels: Any, sums: str, ld: int, step: int = 1) -> None: ...

    def taps(self, fn: Fn, part: Any, channel: Any, channels: Any, first: Any, count: Any,
             sums: str, ld: int, step: int = 1) -> None: ...

    def roles(self) -> tuple[Role, ...]: ...

    first: int
    """How many operands the kernel has before those of its end."""


@dataclass
class Emitted:
    """Kernels of the packing phase and of the last one (each with its `Finish`)."""

    packing: list[Kernel]
    last: list[tuple[Kernel, Any]]
    temporaries: list[tuple[str, int]]


def emit_convolution(c: Convolution, finish: Any) -> Emitted:
    """Write the kernels of `c`; `finish()` makes what is to follow a tile of one of them."""
    out = Emitted([], [], [])
    t = target()
    if c.kind == "conv_weight" and c.short:
        from facula.codegen.convolve_pairs import PairWeight
        PairWeight(c, t, finish()).emit(out)
        return out
    if c.kind == "conv_weight":
        Weight(c, t, finish()).emit(out)
        return out
    for walks in c.walks():
        if c.short:
            from facula.codegen.convolve_pairs import PairForward
            PairForward(c, walks, t, finish()).emit(out)
            continue
        forward = Forward(c, walks, t, finish())
        if forward.taps and suits(c.groups, forward.out, forward.red, forward.tiles.lanes):
            Lanes(forward).emit(out)
        else:
            forward.emit(out)
    return out


class Forward:
    """conv, or conv_input for the outputs of one remainder in every dimension."""

    def __init__(self, c: Convolution, walks: tuple[Walk, ...], t: Target, finish: Any):
        self.c, self.walks, self.t, self.finish = c, walks, t, finish
        self.module = Module()
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
        if not c.short and worthwhile(c.dtype, walks, c.x[0], self.red, self.out, lanes):
            self.squares = squares = Winograd(self)
            self.nv, self.nr, self.panels = squares.nv, squares.nr, squares.panels
            self.panels_each, self.width = squares.panels_each, squares.width
            self.block = squares.block(counts)
            squares.plan(self.block)
            self._depth()
        else:
            self._tile(counts, micro)

    def _tiles(self, module: Module) -> Tiles:
        return Tiles(module, self.c.dtype, self.t)

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
        item = self.c.item
        each = prod(self.block.extents) * item
        most = max(-(-128 // self.taps), min(24_576 // each, -(-384 // self.taps)))
        most = max(min(most, self.red, (1 << 19) // each), 1)
        self.depth = -(-self.red // -(-self.red // most))

    def _packed(self, out: Emitted) -> str:
        """The weight as [group, panel, input channel, tap, nr]; the name of that memory."""
        c, tmp = self.c, f"tmp{len(out.temporaries)}"
        k = self.red * self.taps
        out.temporaries.append((tmp, c.groups * self.panels * k * self.nr * c.item))
        module, name = Module(), "KERNEL"
        whole = all(w.taps == n and w.tap_step == 1 for w, n in zip(self.walks, c.w[2:]))
        steps = [prod(c.w[k + 3:]) for k in range(len(self.walks))]
        cost = 10.0 * k * self.out * c.groups / max(c.flops, 1.0)
        if whole and self.tap_strides == steps and self.red_stride == self.taps:
            source = Source(c.dtype, c.item, (c.groups,), (self.group_stride,), self.out, k,
                            self.out_stride, 1, c.b.offset)
            count = emit_pack(module, name, source, self.nr, self.t)
        else:
            count = self._pack(module, name)
        out.packing.append(Kernel(name, ("b", tmp), count, module, cost))
        return tmp

    def _pack(self, module: Module, name: str) -> int:
        c, scalar = self.c, self.tiles.scalar
        module.light = True
        fn = Fn(module, name, PARAMS, attrs=self.t.attributes)
        src, dst = operand(fn, 0), operand(fn, 1)
        chunk = max(4096 // (self.taps * self.nr), 1)
        chunks = -(-self.red // chunk)
        g, panel, part = unravel(fn, "%tile", (c.groups, self.panels, chunks))
        first = fn.mul(part, chunk)
        last = smin(fn, fn.add(first, chunk), self.red)
        tap0 = sum(w.tap0 * s for w, s in zip(self.walks, self.tap_strides))
        at = fn.add(fn.add(fn.mul(g, self.group_stride), c.b.offset + tap0),
                    fn.mul(fn.mul(panel, self.nr), self.out_stride))
        src = fn.gep(scalar, src, at)
        row = fn.mul(fn.add(fn.mul(g, self.panels), panel), self.red)
        dst = fn.gep(scalar, dst, fn.mul(row, self.taps * self.nr))
        count = smin(fn, fn.val(f"sub i64 {self.out}, {fn.mul(panel, self.nr)}"), self.nr) \
            if self.panels > 1 else self.out

        self._rows(fn, src, dst, first, last, count)
        fn.finish()
        return c.groups * self.panels * chunks

    def _rows(self, fn: Fn, src: str, dst: str, first: Any, last: Any, count: Any) -> None:
        """Rows of the weight, one an input channel and tap, with `count` columns."""
        scalar = self.tiles.scalar
        tiles = Tiles(fn.module, self.c.dtype, self.t)
        vector, lanes, item = tiles.vector, tiles.lanes, tiles.item
        whole = prod(self.c.w[2:])

        def taps(d: int, from_: str, to: str) -> None:
            if d == len(self.walks):
                # zeros after the last: a row has room for whole vectors
                with fn.loop(0, count, lanes, hint="j") as j:
                    left = fn.val(f"sub i64 {count}, {j}")
                    at = fn.gep(scalar, from_, fn.mul(j, self.out_stride))
                    fn.store(vector, tiles.strided(fn, at, self.out_stride, left),
                             fn.gep(scalar, to, j), item)
                return
            w = self.walks[d]
            if w.taps == 1:
                taps(d + 1, from_, to)
                return
            inner = prod(x.taps for x in self.walks[d + 1:]) * self.nr
            with fn.loop(0, w.taps, hint="t") as t:
                taps(d + 1, fn.gep(scalar, from_, fn.mul(t, w.tap_step * self.tap_strides[d])),
                     fn.gep(scalar, to, fn.mul(t, inner)))

        def kernels(from_: str, to: str) -> None:
            """The same where a kernel's taps lie together: all of them at once."""
            with fn.loop(0, count, lanes, hint="j") as j:
                left = fn.val(f"sub i64 {count}, {j}") if self.out % lanes else None
                at = fn.gep(scalar, from_, fn.mul(j, self.out_stride))
                found = tiles.lines(fn, at, self.out_stride, whole, left)
                for n, tap in enumerate(self._taps()):
                    fn.store(vector, found[tap], fn.gep(scalar, to, fn.add(j, n * self.nr)), item)

        together = self.taps > 1 and whole <= lanes and all(
            s == prod(self.c.w[k + 3:]) for k, s in enumerate(self.tap_strides))
        if together:
            tap0 = sum(w.tap0 * s for w, s in zip(self.walks, self.tap_strides))
            src = fn.val(f"getelementptr {scalar}, ptr {src}, i64 {-tap0}")
        with fn.loop(first, last, hint="r") as r:
            from_ = fn.gep(scalar, src, fn.mul(r, self.red_stride))
            to = fn.gep(scalar, dst, fn.mul(r, self.taps * self.nr))
            if together:
                kernels(from_, to)
            else:
                taps(0, from_, to)

    def _taps(self) -> list[int]:
        """Where the taps of the walks lie in a kernel, in order."""
        return [sum((w.tap0 + t * w.tap_step) * s for w, t, s in
                    zip(self.walks, at, self.tap_strides, strict=True))
                for at in itertools.product(*(range(w.taps) for w in self.walks))]

    def emit(self, out: Emitted) -> None:
        c, block, tiles = self.c, self.block, self.tiles
        tmp = "b" if not self.taps else self._packed(out) if self.squares is None else \
            self.squares.packed(out)
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
            sums = fn.alloca(tiles.scalar, ld * self.width)
            if self.squares is None:
                self._sum(fn, source, packed, g, ob, starts, counts, sums)
            else:
                weight = operand(fn, 2)
                wrong = self.squares.sum(fn, source, packed, g, ob, starts, counts, sums)
                with fn.when(wrong):
                    self._sum(fn, source, weight, g, ob, starts, counts, sums, True)
            tiles.turn(fn, sums, self.width, turned, ld, ld, self.width)
        else:
            with fn.loop(0, self.width * ld, tiles.lanes, "i") as i:
                fn.store(tiles.vector, "zeroinitializer", fn.gep(tiles.scalar, turned, i),
                         c.item)
        self.finish.places(fn, block, starts, counts, fn.add(fn.mul(g, self.out), channel),
                           channels, turned, ld)
        fn.finish()
        ntiles = c.groups * prod(block.blocks) * o_blocks
        share = prod(block.counts) * self.taps / max(prod(c.y[2:]) * prod(c.w[2:]) * c.y[0], 1)
        own = ("a", tmp) if self.squares is None else ("a", tmp, "b")
        out.last.append((Kernel("KERNEL", (*own, *self.finish.roles()), ntiles, self.module,
                                share), self.finish))

    def _sum(self, fn: Fn, source: str, packed: str, g: Any, ob: Any, starts: list[Any],
             counts: list[Any], sums: str, local: bool = False) -> None:
        """Fill sums[place, channel]; with `local`, `packed` is the weight as it lies in memory."""
        c, block, tiles = self.c, self.block, self.tiles
        scalar, each = tiles.scalar, prod(self.block.extents)
        cache = fn.alloca(scalar, tiles.room(block, self.depth))
        table = tiles.table("KERNEL_steps", [channel * each + tap for channel in range(self.depth)
                                             for tap in block.taps()])
        image, channel, *places = c.a.strides
        source = fn.gep(scalar, source, fn.add(fn.mul(g, self.red * channel), c.a.offset))
        panel0 = fn.add(fn.mul(g, self.panels), fn.mul(ob, self.panels_each))
        deep = self.depth if local else self.red
        if local:
            tap0 = sum(w.tap0 * s for w, s in zip(self.walks, self.tap_strides))
            packed = fn.gep(scalar, packed, fn.add(fn.add(
                fn.mul(g, self.group_stride), c.b.offset + tap0),
                fn.mul(fn.mul(ob, self.width), self.out_stride)))
            own = fn.alloca(scalar, self.panels_each * deep * self.taps * self.nr)
        else:
            packed = fn.gep(scalar, packed, fn.mul(panel0, deep * self.taps * self.nr))
        whole, rest = divmod(self.vectors, self.nv)
        here = self.panels_each if whole == self.panels and whole % self.panels_each == 0 else \
            smin(fn, fn.val(f"sub i64 {whole}, {fn.mul(ob, self.panels_each)}"),
                 self.panels_each)
        row_steps = [n * self.width for n in block.point_strides]

        def panel(p: Any, vectors: int, weight: str, kc: Any, first: str) -> None:
            def register(rect: tuple[int, ...], firsts: tuple[Any, ...]) -> None:
                name = "KERNEL_micro_" + "x".join(map(str, (*rect, vectors)))
                tiles.micro(name, block.offsets(rect, block.out_steps), vectors,
                            block.offsets(rect, row_steps), table, self.nr)
                x, z = reached(fn, firsts, block.out_steps, row_steps,
                               begin=(0, fn.mul(p, self.nr)))
                at = fn.gep(scalar, weight, fn.mul(p, deep * self.taps * self.nr))
                fn.do(f"call void @{name}(ptr {fn.gep(scalar, cache, x)}, ptr {at}, "
                      f"ptr {fn.gep(scalar, sums, z)}, i64 {kc}, i1 {first})")
            tiles.over_block(fn, block, starts, register)

        def channels(c0: Any, count: Any, first: str) -> None:
            tiles.copy_source(fn, block, fn.gep(scalar, source, fn.mul(c0, channel)),
                              [image, *places], channel, count, starts, counts[0], cache)
            if local:
                weight = own
                with fn.loop(0, self.panels_each, hint="p") as p:
                    column = fn.mul(p, self.nr)
                    left = fn.val(f"sub i64 {self.out}, {fn.add(fn.mul(ob, self.width), column)}")
                    at = fn.add(fn.mul(c0, self.red_stride), fn.mul(column, self.out_stride))
                    self._rows(fn, fn.gep(scalar, packed, at), fn.gep(
                        scalar, own, fn.mul(p, deep * self.taps * self.nr)), 0, count,
                        smin(fn, left, self.nr))
            else:
                weight = fn.gep(scalar, packed, fn.mul(c0, self.taps * self.nr))
            kc = fn.mul(count, self.taps)
            if whole:
                with fn.loop(0, here, hint="p") as p:
                    panel(p, self.nv, weight, kc, first)
            if rest:
                left = fn.val(f"sub i64 {whole}, {fn.mul(ob, self.panels_each)}")
                with fn.when(fn.val(f"icmp slt i64 {left}, {self.panels_each}")):
                    panel(left, rest, weight, kc, first)

        if self.depth == self.red:
            channels(0, self.red, "true")
        else:
            with fn.loop(0, self.red, self.depth, "c0") as c0:
                count = smin(fn, fn.val(f"sub i64 {self.red}, {c0}"), self.depth)
                channels(c0, count, fn.val(f"icmp eq i64 {c0}, 0"))
