"""Contractions by register tiles, over packed or plain operands.

A tile of the kernel computes `mb` x `nb` elements.  Inside, for each block of k and each panel of
columns, micro-kernels of `mr` rows and `nv` vectors keep their sums in registers.  The order
in which an element is summed depends on the shapes only, never on who computes the tile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

from facula.codegen.kernel import KernelDraft, Role
from facula.codegen.llvm import LLVM_TYPES, Fn, Module
from facula.codegen.products.contraction import Contraction, Emission, Epilogue, crowded
from facula.codegen.products.microkernel import MultiplyAdd, register_tile
from facula.codegen.products.pack import Source, emit_pack, pack_panel
from facula.codegen.products.tiles import (
    PARAMS,
    Store,
    batch_offset,
    operand,
    roles_of,
    smin,
    start,
    unravel,
)
from facula.codegen.target import Target

__all__ = ["OperandPlace", "Vector"]

_ITEMSIZE = {"float32": 4, "float64": 8}
_KC = 512
_INLINE = 128
"""Up to how many rows of A each tile packs its own columns of B."""


@dataclass
class OperandPlace:
    """Where a micro-kernel finds an operand: X[j, k] at base + j * j_step + k * k_step."""

    role: Role
    batch_strides: tuple[int, ...]
    j_step: int
    k_step: int
    inner: int          # distance of neighbouring rows inside a register tile
    offset: int = 0
    kind: str = ""      # the type of an element, if it is not that of the sums
    ahead: int = 0      # how many steps of k before it is read it is asked for


class Vector:
    """A product of float32 or float64 numbers, or of shorter ones as float32.

    `roles` are what the operands A and B of `c` are to the kernel's caller.
    """

    share = 1_000_000
    """Operations that are worth a tile of their own, as long as threads may lack any."""

    def __init__(self, module: Module, name: str, c: Contraction, epilogue: Epilogue | None,
                 t: Target, roles: tuple[str, str]):
        self.module, self.name, self.c, self.t, self.roles = module, name, c, t, roles
        self.epilogue = epilogue
        self.short = c.dtype != c.sums      # converted while it is packed
        if epilogue is None and (self.short or c.c_strides[-1] != 1 and c.n > 1):
            self.epilogue = Store(c)
        self.item = _ITEMSIZE[c.sums]
        self.scalar = LLVM_TYPES[c.sums]
        self.lanes = t.lanes(self.item)
        self.vector = f"<{self.lanes} x {self.scalar}>"
        # With few rows a panel of B is read by one tile, which packs it for itself: it stays in
        # the cache of the core that uses it.
        self.inline = (not self.short and c.b_strides[-2] == 1 and c.b_strides[-1] != 1
                       and c.n > 1 and 0 < c.m <= _INLINE and c.k > 0)
        self.within = self.inline       # does a tile pack the columns that it reads?
        self.any_m = "m" in c.varies
        self._register_sizes()
        self._tile_size()
        self.phase: list[KernelDraft] = []
        self.temporaries: list[tuple[str, int]] = []

    @staticmethod
    def suits(c: Contraction, t: Target) -> bool:
        """Whether the product `c` is to be computed by these kernels."""
        return True

    def _register_sizes(self) -> None:
        """Rows and columns of a register tile, and how many steps of k it adds in one go."""
        c = self.c
        most = self._register_tile()
        self.nr = self.nv * self.lanes
        self.mr = most if self.any_m else -(-c.m // -(-c.m // most))
        self.kc = self._blocks_of_k(_KC, self.lanes)

    def _blocks_of_k(self, most: int, unit: int) -> int:
        """Steps of k in a block: all, or about equally many of at most about `most`, in units."""
        blocks = max(-(-self.c.k // most), 1)
        each = -(-self.c.k // blocks)
        return -(-each // unit) * unit if blocks > 1 else self.c.k

    def _register_tile(self) -> int:
        """Sets how many vectors a register tile is wide; the most rows it may have.

        A row of it more is a broadcast more for each step of k, a vector more is a load more.
        """
        c, t = self.c, self.t
        vectors = -(-c.n // self.lanes)
        self.nv = min(vectors, 2)
        if "m" in c.varies:
            return min(t.tile(1), 8) if self.nv < 2 and self._collide() and not self.short \
                else t.tile(self.nv)
        if self.inline and vectors < 16 and c.m * c.n * c.k > 1 << 22:
            self.nv = 1         # more panels, that is tiles, to share
        elif self.nv == 2:      # few rows leave registers for longer runs of a row of B
            self.nv = max(min((t.registers - 2) // (c.m + 1), 8, vectors), 2)
        elif c.m > 8 and self._collide() and not self.short:
            return min(t.tile(1), 8)
        return t.tile(self.nv)

    def _collide(self) -> bool:
        """Whether rows of A lie in the same few sets of the first cache, of some eight ways."""
        c = self.c
        am, ak = c.a_strides[-2:]
        return ak == 1 and am * self.item % 2048 == 0 and am > 0 and c.k >= 128

    def _tile_size(self) -> None:
        """Large enough to reuse what is loaded, small enough that there are tiles to share and
        that what an epilogue reads is still near; all of about the same size."""
        c = self.c
        # the same for any number of rows, if that is to be so
        m = 4 * self.mr if self.any_m else c.m
        m_panels, n_panels = -(-m // self.mr), -(-c.n // self.nr)
        if self.inline:
            self.mb = -(-_INLINE // self.mr) * self.mr if self.any_m else m_panels * self.mr
            self.nb = self.nr
            return
        big = m * c.n >= 1 << 20
        rows = min(8, m_panels)
        cols = min(8 if big else 4, n_panels)
        panel = self.mr * self.nr
        flops = 2 * c.k * m * c.n * prod(c.batch)
        wanted = max(min(flops // self.share, 16), 1)
        # an epilogue after a short sum is a large part of the work, so its data is to be in L1
        room = self.t.l1_bytes * (1 if c.k < 256 else 2 if c.k < 1024 else 8) // 2
        most = room // (panel * self.item) if self.epilogue is not None else rows * cols

        def tiles() -> int:
            return prod(c.batch) * -(-m_panels // rows) * -(-n_panels // cols)

        while (tiles() < wanted or rows * cols > most) and rows * cols > 1:
            if cols > 1 and (cols >= rows / 4 or rows == 1) and not (
                    rows * cols > most and cols <= 4 and rows > 1):
                cols = -(-cols // 2)
            else:
                rows = -(-rows // 2)
        rows = -(-m_panels // -(-m_panels // rows))
        cols = -(-n_panels // -(-n_panels // cols))
        self.mb, self.nb = rows * self.mr, cols * self.nr

    def _padded(self, k: int) -> int:
        """`k`, in whole vectors: packing writes whole blocks."""
        return -(-k // self.lanes) * self.lanes

    def _pack(self, which: int, source: Source, width: int, rows_ld: int = 0,
              emit: Callable[[Module, str], int] | None = None) -> OperandPlace:
        """Pack operand `which` by `emit`, or as `emit_pack` does."""
        module = Module()
        name = f"{self.name}_pack{which}"
        ntiles = emit(module, name) if emit is not None else emit_pack(
            module, name, source, width, self.t, rows_ld)
        tmp = f"tmp{len(self.temporaries)}"
        each = source.j * rows_ld if rows_ld else -(-source.j // width) * width * source.k
        self.temporaries.append((tmp, max(prod(source.distinct) * each * self.item, 1)))
        self.phase.append(KernelDraft(name, (self.roles[which], tmp), ntiles, module,
                                      10.0 / (self.c.n if which == 0 else self.c.m)))
        strides, step = [], each
        for n in reversed(source.distinct):
            strides.append(step if n > 1 else 0)
            step *= n
        batch = tuple(reversed(strides))
        if rows_ld:
            return OperandPlace(tmp, batch, rows_ld, 1, rows_ld)
        return OperandPlace(tmp, batch, source.k, width, 1)

    def _place_a(self) -> OperandPlace:
        c = self.c
        *batch, am, ak = c.a_strides
        source = Source(c.dtype, self.item // (2 if self.short else 1), c.batch, tuple(batch),
                        c.m, c.k, am, ak, c.a_offset, self.any_m, "k" in c.varies)
        if self.short and c.k:
            if ak != 1:
                return self._pack(0, source, self.mr)
            line = 64 // self.item
            return self._pack(0, source, self.mr, (-(-c.k // line) | 1) * line)
        size = c.m * c.k * self.item
        # past the second cache, columns far apart cost more than writing them out anew; not so
        # rows of which each step of k reads some elements side by side, asked for beforehand
        least = 48 if size > 4 * self.t.l2_bytes and am != 1 and ak != 1 else 128
        if c.k and c.n >= least and c.m > 1:
            if ak == 1:
                if crowded(am * self.item) and c.k >= 128:
                    line = 64 // self.item      # an odd number of lines apart
                    lines = -(-c.k // line)
                    return self._pack(0, source, self.mr, (lines | 1) * line)
            elif am != 1 or c.n >= 1024 and size > 1 << 17 and crowded(ak * self.item):
                return self._pack(0, source, self.mr)
        # rows far apart are pages far apart, where no hardware looks ahead
        far = am == 1 and ak * self.item >= 1024 and size > self.t.l2_bytes
        return OperandPlace(self.roles[0], tuple(batch), am, ak, am, c.a_offset,
                            ahead=8 if far else 0)

    def _place_b(self) -> OperandPlace:
        c = self.c
        *batch, bk, bn = c.b_strides
        source = Source(c.dtype, self.item // (2 if self.short else 1), c.batch, tuple(batch),
                        c.n, c.k, bn, bk, c.b_offset, False, "k" in c.varies)
        if self.inline:
            self.source = source
            return OperandPlace(self.roles[1], tuple(batch), 0, self.nr, 1, c.b_offset)
        row, size = bk * self.item, c.k * c.n * self.item
        pack = self.short or bn != 1 and c.n > 1
        # few rows do not pay for a copy, unless much of what they read is far away
        if c.m >= 96 and c.k >= 128 and (c.m > 640 or size > 3 * self.t.l2_bytes):
            pack |= size > 1 << 19 or (row % 1024 == 0 and c.k >= 256)
        if pack and c.k:
            return self._pack(1, source, self.nr)
        # rows far apart are pages far apart, where no hardware looks ahead
        far = size > self.t.l2_bytes // 2 and row >= 1024
        return OperandPlace(self.roles[1], tuple(batch), bn, bk, 1, c.b_offset,
                            ahead=8 if far else 0)

    def emit(self) -> Emission:
        a, b = self._place_a(), self._place_b()
        c, t = self.c, self.t
        fn = Fn(self.module, self.name, PARAMS, attrs=t.attributes)
        pa, pb = operand(fn, 0), operand(fn, 1)
        m_tiles, n_tiles = -(-c.m // self.mb), -(-c.n // self.nb)
        # Rows that are one tile now may be several next time.
        several = m_tiles > 1 or self.any_m and not self.inline
        always = len(c.batch)
        # Threads take tiles from both ends.  A large result is shared out by rows, so that each
        # thread keeps to its own part of a weight; else panels of the larger operand are.
        if c.m * c.n > (c.m + c.n) * c.k and not self.any_m:
            *batch, mi, ni = unravel(fn, "%tile", (*c.batch, m_tiles, n_tiles))
        else:
            *batch, ni, mi = unravel(fn, "%tile", (*c.batch, n_tiles, m_tiles),
                                     (always + 1,) if several else ())
        m0, n0 = fn.mul(mi, self.mb), fn.mul(ni, self.nb)
        pa = fn.gep(self.scalar, pa, fn.add(batch_offset(fn, batch, a.batch_strides), a.offset))
        pb = fn.gep(b.kind or self.scalar, pb,
                    fn.add(batch_offset(fn, batch, b.batch_strides), b.offset))
        if self.epilogue is None:
            pc, ld = operand(fn, 2), c.c_strides[-2]
            corner = fn.add(batch_offset(fn, batch, c.c_strides[:-2]), fn.add(fn.mul(m0, ld), n0))
            pc = fn.gep(self.scalar, pc, corner)
        else:
            start(fn, self.epilogue, 2)
            ld = self.nb
            pc = fn.alloca(self.scalar, self.mb * ld)
        if self.epilogue is not None:
            rows = smin(fn, fn.val(f"sub i64 {c.m}, {m0}"), self.mb) if several else c.m
            cols = smin(fn, fn.val(f"sub i64 {c.n}, {n0}"), self.nb) if n_tiles > 1 else c.n
            self.epilogue.ask(fn, m0, n0, rows, cols, tuple(batch))
        self._blocks(fn, a, b, pa, pb, pc, ld, m0, n0)
        if self.epilogue is not None:
            self.epilogue.emit(fn, m0, n0, rows, cols, pc, ld, tuple(batch))
        fn.finish()
        self.module.light = self.epilogue is None
        last = KernelDraft(self.name, roles_of((a.role, b.role), self.epilogue),
                           prod(c.batch) * m_tiles * n_tiles, self.module)
        phases = [self.phase, [last]] if self.phase else [[last]]
        return Emission(phases, self.temporaries)

    def _blocks(self, fn: Fn, a: OperandPlace, b: OperandPlace, pa: str, pb: str, pc: str, ld: int,
                m0: Any, n0: Any) -> None:
        """All micro-kernels of a tile."""
        c = self.c
        m_rest, n_rest = c.m % self.mr, c.n % self.nr
        m_end = smin(fn, fn.add(m0, self.mb), c.m - m_rest)
        n_end = smin(fn, fn.add(n0, self.nb), c.n - n_rest)

        def at_end(start: Any, size: int, limit: int) -> str:
            return fn.val(f"icmp sge i64 {fn.add(start, size)}, {limit}")

        last_m = at_end(m0, self.mb, c.m) if m_rest or self.any_m else ""
        last_n = at_end(n0, self.nb, c.n) if n_rest else ""

        panel = fn.alloca(self.scalar, self._padded(self.kc) * self.nr) if self.within else ""

        def micro(i: Any, j: Any, rows: int, cols: int, k0: Any, kc: Any, first: str,
                  within: Any = 0) -> None:
            """The register tile of the rows from i + `within`; at i a panel of A begins."""
            name = self._micro(rows, cols, a, b, ld)
            x = fn.gep(self.scalar, pa, fn.add(fn.mul(i, a.j_step), fn.mul(k0, a.k_step)))
            if within:
                x = fn.gep(self.scalar, x, fn.mul(within, a.inner))
            y = panel or fn.gep(self.scalar, pb, fn.add(fn.mul(j, b.j_step), fn.mul(k0, b.k_step)))
            row = fn.add(fn.val(f"sub i64 {i}, {m0}"), within)
            col = fn.val(f"sub i64 {j}, {n0}")
            z = fn.gep(self.scalar, pc, fn.add(fn.mul(row, ld), col))
            more = ""
            if self.soon(b):
                # each tile of rows asks for one more line of what is read after this panel
                line = fn.mul(fn.val(f"sdiv i64 {row}, {self.mr}"), 64 // self.item)
                at = fn.val(f"getelementptr {self.scalar}, ptr {y}, i64 "
                            f"{fn.add(line, self.nr * b.j_step)}")
                more = f", ptr {at}"
            fn.do(f"call void @{name}(ptr {x}, ptr {y}, ptr {z}, i64 {kc}, i1 {first}{more})")

        def pieces(j: Any, cols: int, k0: Any, kc: Any, first: str) -> None:
            """The rows after the last whole tile, however many: eight, four, two and one."""
            start = fn.val(f"sub i64 {c.m}, {m_rest}")
            rows = 1 << (self.mr - 1).bit_length() >> 1
            while rows:
                some = fn.val(f"icmp ne i64 {fn.val(f'and i64 {m_rest}, {rows}')}, 0")
                before = fn.val(f"and i64 {m_rest}, {-2 * rows}")
                with fn.when(some):
                    micro(start, j, rows, cols, k0, kc, first, before)
                rows //= 2

        def column(j: Any, cols: int, k0: Any, kc: Any, first: str) -> None:
            if panel:
                self._columns(fn, pb, panel, j, k0, cols)
            if c.m >= self.mr or self.any_m:
                with fn.loop(m0, m_end, self.mr, "i") as i:
                    micro(i, j, self.mr, cols, k0, kc, first)
            if self.any_m:
                with fn.when(last_m):
                    pieces(j, cols, k0, kc, first)
            elif m_rest:
                with fn.when(last_m):
                    micro(c.m - m_rest, j, m_rest, cols, k0, kc, first)

        def whole(k0: Any, kc: Any, first: str) -> None:
            if c.n >= self.nr:
                with fn.loop(n0, n_end, self.nr, "j") as j:
                    column(j, self.nr, k0, kc, first)
            if n_rest:
                with fn.when(last_n):
                    column(c.n - n_rest, n_rest, k0, kc, first)

        if self.kc >= c.k:
            whole(0, c.k, "true")
        else:
            with fn.loop(0, c.k, self.kc, "k0") as k0:
                kc = smin(fn, fn.val(f"sub i64 {c.k}, {k0}"), self.kc)
                whole(k0, kc, fn.val(f"icmp eq i64 {k0}, 0"))

    def soon(self, b: OperandPlace) -> bool:
        """Whether tiles ask for what is read after them: parts of long rows, which the processor
        does not see coming."""
        c = self.c
        return (b.role == self.roles[1] and not self.inline and b.j_step == 1 and not self.any_m
                and c.k * c.n * prod(c.batch) * self.item > self.t.l2_bytes)

    def _columns(self, fn: Fn, pb: str, panel: str, j: Any, k0: Any, cols: int) -> None:
        """Pack `cols` columns of B from j on, of the block of k from k0 on."""
        pack_panel(fn, self.source, self.nr, self.kc, pb, panel, j, k0, cols, self.t)

    mad: MultiplyAdd | None = None
    """What multiplies and adds in a register tile, if it is another than `multiply_add`."""

    def _micro(self, rows: int, cols: int, a: OperandPlace, b: OperandPlace, ld: int) -> str:
        """The function of a register tile; written once per size."""
        return register_tile(self.module, f"{self.name}_micro_{rows}x{cols}", self.t,
                             self.scalar, (rows, cols), a, b, ld, self.mad,
                             self.soon(b))
