"""The kernels of a convolution and of its two derivatives.

`conv` and `conv_input` are one kernel: places are the rows of register tiles, output channels their
vectors, and the sum runs over input channels and taps; `conv_weight` is in convolve_weight.py.  The
order in which an element is summed depends on the shapes alone.

Each tile copies what it reads of its source, with zeros around it; kernels of one point read it
where it lies.  Where all places are one block, each panel of the weight is read by one tile: it
packs the panel for itself, and larger kernels share one copy of the source.
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
from facula.codegen.pack import Source, emit_pack, pack_panel
from facula.codegen.target import Target, target
from facula.codegen.tiles import PARAMS, batch_offset, operand, smin, unravel
from facula.codegen.walks import (
    Block,
    Walk,
    backward_walks,
    flat,
    forward_walk,
    grow,
    micro_rect,
    reached,
)
from facula.codegen.winograd import Winograd, worthwhile
from facula.dtype import DTYPES

__all__ = ["Convolution", "Emitted", "Finish", "emit_convolution"]

_ALL = 512
"""As many places are one block, and each panel of the weight is then read by one tile alone."""

_DEPTH = 256
"""How many input channels at a time where the source is read where it lies."""

_EARLY = 24
"""How many channels before they are read it is asked for those that lie in memory."""


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
    if c.short:
        from facula.codegen.convolve_tiles import emit_short
        emit_short(c, t, finish, out)
        return out
    if c.kind == "conv_weight":
        Weight(c, t, finish()).emit(out)
        return out
    for walks in c.walks():
        forward = Forward(c, walks, t, finish())
        if forward.taps and forward.by_lanes:
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
        self.strides = c.a.strides
        self.tap0 = sum(w.tap0 * s for w, s in zip(walks, taps, strict=True))
        # does a row of the packed weight hold every tap, in the kernel's order?
        self.all_taps = taps == [prod(c.w[k + 3:]) for k in range(len(walks))] and all(
            w.taps == n and w.tap_step == 1 for w, n in zip(walks, c.w[2:], strict=True))
        self.by_lanes = suits(c.groups, self.out, self.red, lanes)
        line = None if self.by_lanes or c.short else flat(walks, c.a.strides[2:])
        if line is not None:
            walks, self.tap_strides = (line[0],), taps[-1:]
            self.walks, self.strides = walks, (*c.a.strides[:2], line[1])
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
        self.in_place = self._lies_in_place(micro)
        self.inline = self.copied = False
        if not c.short and worthwhile(c.dtype, walks, c.x[0], self.red, self.out, lanes):
            self.squares = squares = Winograd(self)
            self.nv, self.nr, self.panels = squares.nv, squares.nr, squares.panels
            self.panels_each, self.width = squares.panels_each, squares.width
            self.block = squares.block(counts)
            squares.plan(self.block)
            self._depth()
        else:
            self._tile(counts, micro)

    def _lies_in_place(self, micro: list[int]) -> bool:
        """Whether register tiles read the source where it lies: a copy of it would be read once
        for each panel of channels, as it is, and have no zeros in it."""
        if self.by_lanes or self.taps != 1 or self.c.short:
            return False
        if any(w.start < 0 or w.start + (w.count - 1) * w.step >= w.source for w in self.walks):
            return False
        _, channel, *places = self.strides
        if channel * 512 >= 1 << 31:
            return False
        line, item = 64, self.c.item
        along = (micro[-1] - 1) * self.walks[-1].step * places[-1] * item // line + 2
        # lines of the cache that a step of the sum reads, of which there is room for few
        return prod(micro[:-1]) * along * min(channel * item, line) <= 6 * line
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

        large = self.out * self.red * self.taps * item * c.groups > self.t.l2_bytes
        near = self.out_stride * self.nr + self.red_stride * self.red < 1 << 31
        once = not c.short and not c.lasting and prod(counts) <= _ALL
        if near and once and (self.in_place or 1 < self.taps <= 16 and large):
            # One tile reads a panel of the weight, so that it may pack it for itself; for all of
            # them the source is copied once.
            self.inline, self.copied = True, not self.in_place
            per = max(min(per, c.groups * self.panels // int(wanted)), 1)
            self.panels_each = -(-self.panels // -(-self.panels // per))
            self.width = self.panels_each * self.nr
            self.block = Block(self.walks, counts, counts, tuple(micro))
            self._depth()
            return
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
        item, lanes = self.c.item, self.tiles.lanes
        if self.inline and not self.c.short or self.in_place:
            most = max(_DEPTH * 4 // item // self.taps // lanes, 1) * lanes
            self.depth = -(-self.red // -(-self.red // most))
            if self.depth < self.red:
                self.depth = -(-self.depth // lanes) * lanes
            return
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
        cost = 10.0 * k * self.out * c.groups / max(c.flops, 1.0)
        if self.all_taps and self.red_stride == self.taps:
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
        at = fn.add(fn.add(fn.mul(g, self.group_stride), c.b.offset + self.tap0),
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
            src = fn.val(f"getelementptr {scalar}, ptr {src}, i64 {-self.tap0}")
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
        own: tuple[str, ...] = ("a", "b")
        if self.copied:
            own = (self._copy(out), "b")
        elif self.squares is not None:
            own = ("a", self.squares.packed(out), "b")
        elif self.taps and not self.inline:
            own = ("a", self._packed(out))
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
            sums = fn.alloca(tiles.scalar, self._room(ld))
            if self.squares is None:
                self._sum(fn, source, packed, g, ob, starts, counts, sums)
            else:
                weight = operand(fn, 2)
                wrong = self.squares.sum(fn, source, packed, g, ob, starts, counts, sums)
                with fn.when(wrong):
                    self._sum(fn, source, weight, g, ob, starts, counts, sums, True)
            turned, ld = self._by_channel(fn, sums, turned, ld, channels, counts)
        else:
            with fn.loop(0, self.width * ld, tiles.lanes, "i") as i:
                fn.store(tiles.vector, "zeroinitializer", fn.gep(tiles.scalar, turned, i),
                         c.item)
        self.finish.places(fn, block, starts, counts, fn.add(fn.mul(g, self.out), channel),
                           channels, turned, ld)
        fn.finish()
        ntiles = c.groups * prod(block.blocks) * o_blocks
        share = prod(block.counts) * self.taps / max(prod(c.y[2:]) * prod(c.w[2:]) * c.y[0], 1)
        out.last.append((Kernel("KERNEL", (*own, *self.finish.roles()), ntiles, self.module,
                                share), self.finish))

    def _room(self, ld: int) -> int:
        """Of the sums, whose places are `ld` apart once they are turned."""
        return ld * self.width

    def _by_channel(self, fn: Fn, sums: str, to: str, ld: int, channels: Any, counts: list[Any]
                    ) -> tuple[str, int]:
        """The sums of a block's places side by side for each channel; where, and how far channels
        are apart."""
        self.tiles.turn(fn, sums, self.width, to, ld, ld, self.width)
        return to, ld

    def _copy(self, out: Emitted) -> str:
        """The whole source with zeros around it, as a block of all places; the name of that memory.
        """
        c, block, tmp = self.c, self.block, f"tmp{len(out.temporaries)}"
        each = self._apart()
        out.temporaries.append((tmp, c.groups * self.red * each * c.item))
        module = Module()
        tiles = Tiles(module, c.dtype, self.t)
        fn = Fn(module, "KERNEL", PARAMS, attrs=self.t.attributes)
        fn.written = module.light = True
        source, to = operand(fn, 0), operand(fn, 1)
        chunk = max(16_384 // each, 1)
        g, part = unravel(fn, "%tile", (c.groups, -(-self.red // chunk)))
        first = fn.mul(part, chunk)
        count = smin(fn, fn.val(f"sub i64 {self.red}, {first}"), chunk) if chunk < self.red \
            else self.red
        row = fn.add(fn.mul(g, self.red), first)
        image, channel, *places = self.strides
        tiles.copy_source(
            fn, block, fn.gep(tiles.scalar, source, fn.add(fn.mul(row, channel), c.a.offset)),
            [image, *places], channel, count, [0] * len(block.size), block.size[0],
            fn.gep(tiles.scalar, to, fn.mul(row, each)), each)
        fn.finish()
        out.packing.append(Kernel("KERNEL", ("a", tmp), c.groups * -(-self.red // chunk), module,
                                  10.0 / max(self.out * self.taps, 1)))
        return tmp

    def _apart(self) -> int:
        """How far the channels of a block are apart in a copy of it.  Those of a copy that several
        tiles write have room for the vectors that end after a channel does."""
        return prod(self.block.extents) + self.tiles.lanes * self.copied

    def _sum(self, fn: Fn, source: str, packed: str, g: Any, ob: Any, starts: list[Any],
             counts: list[Any], sums: str, local: bool = False) -> None:
        """Fill sums[place, channel]; with `local`, `packed` is the weight as it lies in memory."""
        c, block, tiles = self.c, self.block, self.tiles
        scalar, each = tiles.scalar, self._apart()
        image, channel, *places = self.strides
        if self.copied:
            source, channel = fn.gep(scalar, source, fn.mul(g, self.red * each)), each
        else:
            source = fn.gep(scalar, source, fn.add(fn.mul(g, self.red * channel), c.a.offset))
        steps = block.out_steps
        cache = ""
        if self.in_place:
            steps = (image, *(w.step * s for w, s in zip(self.walks, places, strict=True)))
            at = batch_offset(fn, starts, steps)
            source = fn.gep(scalar, source, fn.add(at, sum(
                w.start * s for w, s in zip(self.walks, places, strict=True))))
            table = tiles.table("KERNEL_steps", [k * channel for k in range(self.depth + _EARLY)])
            then = fn.val(f"sub i64 {batch_offset(fn, block.following(fn, starts), steps)}, {at}")
        else:
            if not self.copied:
                cache = fn.alloca(scalar, tiles.room(block, self.depth))
            table = tiles.table("KERNEL_steps", [k * each + tap for k in range(self.depth)
                                                 for tap in block.taps()])
        panel0 = fn.add(fn.mul(g, self.panels), fn.mul(ob, self.panels_each))
        deep = self.depth if local else self.red
        own, soon = "", (table,) if self.in_place else ()
        if self.inline:
            own = fn.alloca(scalar, (self.depth * self.taps + tiles.lanes) * self.nr)
            soon = (tiles.table("KERNEL_soon", self._soon()),)
            packed = fn.gep(scalar, packed, fn.add(fn.mul(g, self.group_stride),
                                                   c.b.offset + self.tap0))
        elif local:
            packed = fn.gep(scalar, packed, fn.add(fn.add(
                fn.mul(g, self.group_stride), c.b.offset + self.tap0),
                fn.mul(fn.mul(ob, self.width), self.out_stride)))
            own = fn.alloca(scalar, self.panels_each * deep * self.taps * self.nr)
        else:
            packed = fn.gep(scalar, packed, fn.mul(panel0, deep * self.taps * self.nr))
        whole, rest = divmod(self.vectors, self.nv)
        here = self.panels_each if whole == self.panels and whole % self.panels_each == 0 else \
            smin(fn, fn.val(f"sub i64 {whole}, {fn.mul(ob, self.panels_each)}"),
                 self.panels_each)
        row_steps = [n * self.width for n in block.point_strides]

        def panel(p: Any, vectors: int, c0: Any, x0: str, weight: str, kc: Any, first: str) -> None:
            on = ""

            def register(rect: tuple[int, ...], firsts: tuple[Any, ...]) -> None:
                name = "KERNEL_micro_" + "x".join(map(str, (*rect, vectors)))
                tiles.micro(name, block.offsets(rect, steps), vectors,
                            block.offsets(rect, row_steps), table, self.nr,
                            early=_EARLY if self.in_place else 0, soon=soon)
                x, z = reached(fn, firsts, steps, row_steps, begin=(0, fn.mul(p, self.nr)))
                more = ""
                if self.in_place and not self.inline:   # of the next block, a line for each panel
                    far = fn.add(fn.add(x, then), fn.mul(p, 64 // c.item))
                    more = ", ptr " + fn.val(f"getelementptr {scalar}, ptr {x0}, i64 {far}")
                elif soon:      # in turn for the first and the second half
                    (at_,) = reached(fn, firsts, block.point_strides)
                    turn: Any = fn.add(at_, 0)
                    turn = turn // prod(block.micro) % 2 if isinstance(turn, int) else fn.val(
                        f"and i64 {fn.val(f'udiv i64 {turn}, {prod(block.micro)}')}, 1")
                    far = fn.mul(turn, self._halves()[1])
                    more = ", ptr " + fn.val(f"getelementptr {scalar}, ptr {on}, i64 {far}")
                fn.do(f"call void @{name}(ptr {fn.gep(scalar, x0, x)}, ptr {at}, "
                      f"ptr {fn.gep(scalar, sums, z)}, i64 {kc}, i1 {first}{more})")

            if self.inline:
                on = self._next(fn, packed, ob, p, here, c0)
                at = own
                self._pack_one(fn, packed, own, fn.add(fn.mul(ob, self.panels_each), p), c0,
                               kc)
            else:
                at = fn.gep(scalar, weight, fn.mul(p, deep * self.taps * self.nr))
            tiles.over_block(fn, block, starts, register)

        def channels(c0: Any, count: Any, first: str) -> None:
            x0, weight = cache, packed
            if self.in_place or self.copied:
                x0 = fn.gep(scalar, source, fn.mul(c0, channel))
            else:
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
            elif not self.inline:
                weight = fn.gep(scalar, packed, fn.mul(c0, self.taps * self.nr))
            kc = fn.mul(count, self.taps)
            if whole:
                with fn.loop(0, here, hint="p") as p:
                    panel(p, self.nv, c0, x0, weight, kc, first)
            if rest:
                left = fn.val(f"sub i64 {whole}, {fn.mul(ob, self.panels_each)}")
                with fn.when(fn.val(f"icmp slt i64 {left}, {self.panels_each}")):
                    panel(left, rest, c0, x0, weight, kc, first)

        if self.depth == self.red:
            channels(0, self.red, "true")
        else:
            with fn.loop(0, self.red, self.depth, "c0") as c0:
                count = smin(fn, fn.val(f"sub i64 {self.red}, {c0}"), self.depth)
                channels(c0, count, fn.val(f"icmp eq i64 {c0}, 0"))

    def _halves(self) -> tuple[int, int]:
        """Of what is packed at a time, the distance of its long rows in memory, and where the
        second half of them begins."""
        apart, count = max((self.out_stride, self.nr), (self.red_stride, self.depth))
        return max(apart, 1), count // 2 * apart

    def _soon(self) -> list[int]:
        """Where the lines of the cache of half of that are, as many as there are steps of a sum."""
        apart, half = self._halves()
        short, count = min((self.out_stride, self.nr), (self.red_stride, self.depth))
        line = 64 // self.c.item
        found = [at for row in range(0, max(half, 1), apart)
                 for at in range(row, row + max(short * count, 1), line)]
        return [found[k % len(found)] for k in range(self.depth * self.taps)]

    def _next(self, fn: Fn, weight: str, ob: Any, p: Any, here: Any, c0: Any) -> str:
        """Where what is packed after panel `p` of the input channels from c0 on begins: that of
        the next panel, of the channels that follow, or of the next tile."""
        scalar = self.tiles.scalar
        first, each = fn.mul(ob, self.width), self.depth
        last = fn.val(f"icmp sge i64 {fn.add(p, 1)}, {here}")
        done = fn.val(f"icmp sge i64 {fn.add(c0, each)}, {self.red}")
        then = fn.val(f"select i1 {done}, i64 {fn.add(first, self.width)}, i64 {first}")
        column = fn.val(f"select i1 {last}, i64 {then}, i64 "
                        f"{fn.add(first, fn.mul(fn.add(p, 1), self.nr))}")
        row = fn.val(f"select i1 {done}, i64 0, i64 {fn.add(c0, each)}")
        row = fn.val(f"select i1 {last}, i64 {row}, i64 {c0}")
        at = fn.add(fn.mul(column, self.out_stride), fn.mul(row, self.red_stride))
        return fn.val(f"getelementptr {scalar}, ptr {weight}, i64 {at}")

    def _pack_one(self, fn: Fn, weight: str, to: str, panel: Any, c0: Any, kc: Any) -> None:
        """Pack the input channels from c0 on, `kc` with their taps, of a panel of the weight."""
        c, nr, taps = self.c, self.nr, self.taps
        column, tail = fn.mul(panel, nr), self.out % nr
        lines = self.all_taps and self.red_stride == taps
        source = Source(c.dtype, c.item, (), (), self.out, self.red * taps, self.out_stride,
                        1 if lines else self.red_stride)

        def some(count: int) -> None:
            if taps == 1 or lines:
                pack_panel(fn, source, nr, self.depth * taps, weight, to, column,
                           fn.mul(c0, taps), count, self.t)
                return
            at = fn.add(fn.mul(c0, self.red_stride), fn.mul(column, self.out_stride))
            channels = kc // taps if isinstance(kc, int) else fn.val(f"udiv i64 {kc}, {taps}")
            self._rows(fn, fn.gep(self.tiles.scalar, weight, at), to, 0, channels, count)

        if not tail:
            some(nr)
        elif self.out < nr:
            some(tail)
        else:
            last = fn.val(f"icmp sgt i64 {column}, {self.out - nr}")
            with fn.when(last):
                some(tail)
            with fn.when(fn.val(f"xor i1 {last}, true")):
                some(nr)
