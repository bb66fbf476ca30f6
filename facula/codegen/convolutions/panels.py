"""The weight of a convolution, packed in panels of as many output channels as a register tile has.

A panel is [input channel, tap, output channel].  All of them are written once, by a kernel of the
packing phase (`Panels.packed`); or, where each panel is read by one tile alone, that tile packs it
for itself (`Panels.one`), some input channels at a time, while its register tiles ask for the
memory that is to be packed after that.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from facula.codegen.convolutions.convolution import Emitted
from facula.codegen.convolutions.direct import TileWriter
from facula.codegen.kernel import KernelDraft
from facula.codegen.llvm import Fn, Module
from facula.codegen.products.pack import Source, emit_pack, pack_panel
from facula.codegen.products.tiles import PARAMS, operand, smin, unravel

if TYPE_CHECKING:
    from facula.codegen.convolutions.forward import Forward

__all__ = ["Panels"]


class Panels:
    """The weight of a `Forward` kernel."""

    def __init__(self, forward: Forward):
        self.f = forward

    # -- packed once
    def packed(self, out: Emitted) -> str:
        """The weight as [group, panel, input channel, tap, nr]; the name of that memory."""
        f, c, tmp = self.f, self.f.c, f"tmp{len(out.temporaries)}"
        k = f.red * f.taps
        out.temporaries.append((tmp, c.groups * f.panels * k * f.nr * c.item))
        module, name = Module(), "KERNEL"
        cost = 10.0 * k * f.out * c.groups / max(c.flops, 1.0)
        if f.all_taps and f.red_stride == f.taps:
            source = Source(c.dtype, c.item, (c.groups,), (f.group_stride,), f.out, k,
                            f.out_stride, 1, c.b.offset)
            count = emit_pack(module, name, source, f.nr, f.t)
        else:
            count = self._kernel(module, name)
        out.packing.append(KernelDraft(name, ("b", tmp), count, module, cost))
        return tmp

    def _kernel(self, module: Module, name: str) -> int:
        """Kernel `name`, which writes it; returns its number of tiles."""
        f, c, scalar = self.f, self.f.c, self.f.tiles.scalar
        module.light = True
        fn = Fn(module, name, PARAMS, attrs=f.t.attributes)
        src, dst = operand(fn, 0), operand(fn, 1)
        chunk = max(4096 // (f.taps * f.nr), 1)
        chunks = -(-f.red // chunk)
        g, panel, part = unravel(fn, "%tile", (c.groups, f.panels, chunks))
        first = fn.mul(part, chunk)
        last = smin(fn, fn.add(first, chunk), f.red)
        at = fn.add(fn.add(fn.mul(g, f.group_stride), c.b.offset + f.tap0),
                    fn.mul(fn.mul(panel, f.nr), f.out_stride))
        src = fn.gep(scalar, src, at)
        row = fn.mul(fn.add(fn.mul(g, f.panels), panel), f.red)
        dst = fn.gep(scalar, dst, fn.mul(row, f.taps * f.nr))
        count = smin(fn, fn.val(f"sub i64 {f.out}, {fn.mul(panel, f.nr)}"), f.nr) \
            if f.panels > 1 else f.out
        self.rows(fn, src, dst, first, last, count)
        fn.finish()
        return c.groups * f.panels * chunks

    def rows(self, fn: Fn, src: str, dst: str, first: Any, last: Any, count: Any) -> None:
        """Rows of the weight, one an input channel and tap, with `count` columns."""
        f, scalar = self.f, self.f.tiles.scalar
        tiles = TileWriter(fn.module, f.c.dtype, f.t)
        vector, lanes, item = tiles.vector, tiles.lanes, tiles.item
        whole = prod(f.c.w[2:])

        def taps(d: int, from_: str, to: str) -> None:
            if d == len(f.walks):
                # zeros after the last: a row has room for whole vectors
                with fn.loop(0, count, lanes, hint="j") as j:
                    left = fn.val(f"sub i64 {count}, {j}")
                    at = fn.gep(scalar, from_, fn.mul(j, f.out_stride))
                    fn.store(vector, tiles.strided(fn, at, f.out_stride, left),
                             fn.gep(scalar, to, j), item)
                return
            w = f.walks[d]
            if w.taps == 1:
                taps(d + 1, from_, to)
                return
            inner = prod(x.taps for x in f.walks[d + 1:]) * f.nr
            with fn.loop(0, w.taps, hint="t") as t:
                taps(d + 1, fn.gep(scalar, from_, fn.mul(t, w.tap_step * f.tap_strides[d])),
                     fn.gep(scalar, to, fn.mul(t, inner)))

        def kernels(from_: str, to: str) -> None:
            """The same where a kernel's taps lie together: all of them at once."""
            with fn.loop(0, count, lanes, hint="j") as j:
                left = fn.val(f"sub i64 {count}, {j}") if f.out % lanes else None
                at = fn.gep(scalar, from_, fn.mul(j, f.out_stride))
                found = tiles.lines(fn, at, f.out_stride, whole, left)
                for n, tap in enumerate(f.tap_places()):
                    fn.store(vector, found[tap], fn.gep(scalar, to, fn.add(j, n * f.nr)), item)

        together = f.taps > 1 and whole <= lanes and all(
            s == prod(f.c.w[k + 3:]) for k, s in enumerate(f.tap_strides))
        if together:
            src = fn.val(f"getelementptr {scalar}, ptr {src}, i64 {-f.tap0}")
        with fn.loop(first, last, hint="r") as r:
            from_ = fn.gep(scalar, src, fn.mul(r, f.red_stride))
            to = fn.gep(scalar, dst, fn.mul(r, f.taps * f.nr))
            if together:
                kernels(from_, to)
            else:
                taps(0, from_, to)

    # -- what a tile packs for itself
    def one(self, fn: Fn, weight: str, to: str, panel: Any, c0: Any, kc: Any) -> None:
        """Pack the input channels from c0 on, `kc` with their taps, of a panel of the weight."""
        f, c, nr, taps = self.f, self.f.c, self.f.nr, self.f.taps
        column, tail = fn.mul(panel, nr), f.out % nr
        lines = f.all_taps and f.red_stride == taps
        source = Source(c.dtype, c.item, (), (), f.out, f.red * taps, f.out_stride,
                        1 if lines else f.red_stride)

        def some(count: int) -> None:
            if taps == 1 or lines:
                pack_panel(fn, source, nr, f.depth * taps, weight, to, column,
                           fn.mul(c0, taps), count, f.t)
                return
            at = fn.add(fn.mul(c0, f.red_stride), fn.mul(column, f.out_stride))
            channels = kc // taps if isinstance(kc, int) else fn.val(f"udiv i64 {kc}, {taps}")
            self.rows(fn, fn.gep(f.tiles.scalar, weight, at), to, 0, channels, count)

        if not tail:
            some(nr)
        elif f.out < nr:
            some(tail)
        else:
            last = fn.val(f"icmp sgt i64 {column}, {f.out - nr}")
            with fn.when(last):
                some(tail)
            with fn.when(fn.val(f"xor i1 {last}, true")):
                some(nr)

    def next(self, fn: Fn, weight: str, ob: Any, p: Any, here: Any, c0: Any) -> str:
        """Where what is packed after panel `p` of the input channels from c0 on begins: that of
        the next panel, of the channels that follow, or of the next tile."""
        f, scalar = self.f, self.f.tiles.scalar
        first, each = fn.mul(ob, f.width), f.depth
        last = fn.val(f"icmp sge i64 {fn.add(p, 1)}, {here}")
        done = fn.val(f"icmp sge i64 {fn.add(c0, each)}, {f.red}")
        then = fn.val(f"select i1 {done}, i64 {fn.add(first, f.width)}, i64 {first}")
        column = fn.val(f"select i1 {last}, i64 {then}, i64 "
                        f"{fn.add(first, fn.mul(fn.add(p, 1), f.nr))}")
        row = fn.val(f"select i1 {done}, i64 0, i64 {fn.add(c0, each)}")
        row = fn.val(f"select i1 {last}, i64 {row}, i64 {c0}")
        at = fn.add(fn.mul(column, f.out_stride), fn.mul(row, f.red_stride))
        return fn.val(f"getelementptr {scalar}, ptr {weight}, i64 {at}")

    def halves(self) -> tuple[int, int]:
        """Of what is packed at a time, the distance of its long rows in memory, and where the
        second half of them begins."""
        f = self.f
        apart, count = max((f.out_stride, f.nr), (f.red_stride, f.depth))
        return max(apart, 1), count // 2 * apart

    def soon(self) -> list[int]:
        """Where the lines of the cache of half of that are, as many as there are steps of a sum."""
        f, (apart, half) = self.f, self.halves()
        short, count = min((f.out_stride, f.nr), (f.red_stride, f.depth))
        line = 64 // f.c.item
        found = [at for row in range(0, max(half, 1), apart)
                 for at in range(row, row + max(short * count, 1), line)]
        return [found[k % len(found)] for k in range(f.depth * f.taps)]
