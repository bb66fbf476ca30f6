"""The kernels of a contraction: register tiles over packed or plain operands.

A tile of the kernel computes `mb` x `nb` elements.  Inside, for each block of k and each panel of
columns, micro-kernels of `mr` rows and `nv` vectors keep their sums in registers.  The order
in which an element is summed depends on the shapes only, never on who computes the tile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

from facula.codegen import expr
from facula.codegen.contract import Contraction, Emission, Epilogue, Kernel, Role
from facula.codegen.llvm import LLVM_TYPES, Fn, Module, float_literal
from facula.codegen.pack import (PARAMS, Source, batch_offset, emit_pack, mask_literal,
                                 masked_load, operand, unravel)
from facula.codegen.target import Target, target
from facula.dtype import DTYPES

__all__ = ["emit"]

_ITEMSIZE = {"float32": 4, "float64": 8}
_KC = 512


def emit(module: Module, name: str, c: Contraction, epilogue: Epilogue | None) -> Emission:
    """See `facula.codegen.contract.emit_contraction`."""
    if 0 in (c.m, c.n) or 0 in c.batch:
        return Emission([])
    if c.dtype not in _ITEMSIZE or c.sums != c.dtype:
        return _emit_scalar(module, name, c, epilogue)
    roles = ("a", "b")
    *cb, cm, cn = c.c_strides
    if epilogue is None and cn != 1 and cm == 1:
        # the transposed product has its vectors along the contiguous index of C
        *ab, am, ak = c.a_strides
        *bb, bk, bn = c.b_strides
        c = replace(c, m=c.n, n=c.m, a_strides=(*bb, bn, bk), b_strides=(*ab, ak, am),
                    c_strides=(*cb, cn, cm), a_offset=c.b_offset, b_offset=c.a_offset)
        roles = ("b", "a")
    return _Vector(module, name, c, epilogue, target(), roles).emit()


class _Store:
    """The epilogue of a contraction without one: the sums, converted, into C's strides."""

    extras = 1

    def __init__(self, c: Contraction):
        self.c = c
        self.operands: list[str] = []

    def emit(self, fn: Fn, m0: Any, n0: Any, rows: Any, cols: Any, scratch_ptr: str,
             scratch_ld: int, batch_indices: tuple[Any, ...]) -> None:
        c = self.c
        *cb, cm, cn = c.c_strides
        kind, out = LLVM_TYPES[c.sums], LLVM_TYPES[c.dtype]
        base = batch_offset(fn, batch_indices, cb)
        with fn.loop(0, rows, hint="i") as i, fn.loop(0, cols, hint="j") as j:
            value = fn.load(kind, fn.gep(kind, scratch_ptr, fn.add(fn.mul(i, scratch_ld), j)))
            at = fn.add(fn.add(base, fn.mul(fn.add(m0, i), cm)), fn.mul(fn.add(n0, j), cn))
            fn.store(out, _convert(fn, value, c.sums, c.dtype), fn.gep(out, self.operands[0], at))


def _convert(fn: Fn, value: str, source: str, to: str) -> str:
    """A value of dtype `source` as dtype `to` of the same kind."""
    have, want = LLVM_TYPES[source], LLVM_TYPES[to]
    if have == want:
        return value
    sizes = {"half": 2, "bfloat": 2, "float": 4, "double": 8, "i8": 1, "i16": 2, "i32": 4,
             "i64": 8, "<2 x float>": 4, "<2 x double>": 8}
    widen = sizes[have] < sizes[want]
    if have.startswith("i"):
        widening = "zext" if source.startswith(("u", "bool")) else "sext"
        return fn.val(f"{widening if widen else 'trunc'} {have} {value} to {want}")
    for name in [n for n in ("float16", "bfloat16") if n in (source, to)]:
        # LLVM would call a library for these where the processor has no instruction.
        short = DTYPES[name]
        if name == source:
            if name == "bfloat16":
                value = fn.val(f"bitcast bfloat {value} to i16")
            return _convert(fn, expr.widen(fn, short, value), "float32", to)
        value = expr.narrow(fn, short, _convert(fn, value, source, "float32"))
        return fn.val(f"bitcast i16 {value} to bfloat") if name == "bfloat16" else value
    return fn.val(f"{'fpext' if widen else 'fptrunc'} {have} {value} to {want}")


def _min(fn: Fn, a: str | int, b: int) -> str | int:
    if isinstance(a, int):
        return min(a, b)
    f = fn.module.declare("i64 @llvm.smin.i64(i64, i64)")
    return fn.val(f"call i64 {f}(i64 {a}, i64 {b})")


def _start(fn: Fn, epilogue: Epilogue | None, first: int) -> None:
    """Load the pointers of an epilogue's operands."""
    if epilogue is not None:
        epilogue.operands = [operand(fn, first + i) for i in range(epilogue.extras)]


def _roles(own: tuple[Role, ...], epilogue: Epilogue | None) -> tuple[Role, ...]:
    if epilogue is None:
        return (*own, "c")
    if isinstance(epilogue, _Store):
        return (*own, "c")
    return (*own, *(("extra", i) for i in range(epilogue.extras)))


@dataclass
class _Place:
    """Where a micro-kernel finds an operand: X[j, k] at base + j * j_step + k * k_step."""

    role: Role
    batch_strides: tuple[int, ...]
    j_step: int
    k_step: int
    inner: int          # distance of neighbouring rows inside a register tile
    offset: int = 0


class _Vector:
    """float32 and float64: explicit vectors."""

    def __init__(self, module: Module, name: str, c: Contraction, epilogue: Epilogue | None,
                 t: Target, roles: tuple[str, str]):
        self.module, self.name, self.c, self.t, self.roles = module, name, c, t, roles
        self.epilogue = epilogue
        if epilogue is None and c.c_strides[-1] != 1 and c.n > 1:
            self.epilogue = _Store(c)
        self.item = _ITEMSIZE[c.dtype]
        self.scalar = LLVM_TYPES[c.dtype]
        self.lanes = t.lanes(self.item)
        self.vector = f"<{self.lanes} x {self.scalar}>"
        self.nv = 2 if c.n > self.lanes else 1
        self.nr = self.nv * self.lanes
        most = t.tile(self.nv)
        self.mr = -(-c.m // -(-c.m // most))
        blocks = max(-(-c.k // _KC), 1)
        self.kc = -(-(-(-c.k // blocks)) // 8) * 8 if blocks > 1 else c.k
        self._tile_size()
        self.phase: list[Kernel] = []
        self.temporaries: list[tuple[str, int]] = []

    def _tile_size(self) -> None:
        """Large enough to reuse what is loaded, small enough that there are tiles to share."""
        c = self.c
        big = c.m * c.n >= 1 << 20
        rows = min(8, -(-c.m // self.mr))
        cols = min(8 if big else 4, -(-c.n // self.nr))

        def tiles() -> int:
            return prod(c.batch) * -(-c.m // (rows * self.mr)) * -(-c.n // (cols * self.nr))

        while tiles() < 8 and 2 * rows * self.mr * cols * self.nr * c.k > 1_000_000:
            if cols > 1 and cols >= rows / 4:
                cols = -(-cols // 2)
            elif rows > 1:
                rows = -(-rows // 2)
            else:
                break
        # equal tiles: what is left over is spread, not put into a small last one
        blocks = -(-c.m // self.mr)
        rows = -(-blocks // -(-blocks // rows))
        blocks = -(-c.n // self.nr)
        cols = -(-blocks // -(-blocks // cols))
        self.mb, self.nb = rows * self.mr, cols * self.nr

    def _pack(self, which: int, source: Source, width: int, rows_ld: int = 0) -> _Place:
        module = Module()
        name = f"{self.name}_pack{which}"
        ntiles = emit_pack(module, name, source, width, self.t, rows_ld)
        tmp = f"tmp{len(self.temporaries)}"
        each = source.j * rows_ld if rows_ld else -(-source.j // width) * width * source.k
        self.temporaries.append((tmp, max(prod(source.distinct) * each * self.item, 1)))
        self.phase.append(Kernel(name, (self.roles[which], tmp), ntiles, module))
        strides, step = [], each
        for n in reversed(source.distinct):
            strides.append(step if n > 1 else 0)
            step *= n
        batch = tuple(reversed(strides))
        if rows_ld:
            return _Place(tmp, batch, rows_ld, 1, rows_ld)
        return _Place(tmp, batch, source.k, width, 1)

    def _place_a(self) -> _Place:
        c = self.c
        *batch, am, ak = c.a_strides
        source = Source(c.dtype, self.item, c.batch, tuple(batch), c.m, c.k, am, ak, c.a_offset)
        if c.k and c.n >= 128 and c.m > 1:
            if ak == 1:
                if am * self.item >= 2048 and am * self.item % 512 == 0 and c.k >= 128:
                    line = 64 // self.item      # an odd number of lines apart
                    lines = -(-c.k // line)
                    return self._pack(0, source, self.mr, (lines | 1) * line)
            elif am != 1 or (c.n >= 256 and c.m * c.k * self.item > 1 << 17):
                return self._pack(0, source, self.mr)
        return _Place(self.roles[0], tuple(batch), am, ak, am, c.a_offset)

    def _place_b(self) -> _Place:
        c = self.c
        *batch, bk, bn = c.b_strides
        source = Source(c.dtype, self.item, c.batch, tuple(batch), c.n, c.k, bn, bk, c.b_offset)
        row = bk * self.item
        pack = bn != 1 and c.n > 1
        if c.m >= 96 and c.k >= 128:
            pack |= c.k * c.n * self.item > 1 << 19 or (row % 1024 == 0 and c.k >= 256)
        if pack and c.k:
            return self._pack(1, source, self.nr)
        return _Place(self.roles[1], tuple(batch), bn, bk, 1, c.b_offset)

    def emit(self) -> Emission:
        a, b = self._place_a(), self._place_b()
        c, t = self.c, self.t
        fn = Fn(self.module, self.name, PARAMS, attrs=t.attributes)
        pa, pb = operand(fn, 0), operand(fn, 1)
        m_tiles, n_tiles = -(-c.m // self.mb), -(-c.n // self.nb)
        # Threads take tiles from both ends.  A large result is shared out by rows, so that each
        # thread keeps to its own part of a weight; else panels of the larger operand are.
        if c.m * c.n > (c.m + c.n) * c.k:
            *batch, mi, ni = unravel(fn, "%tile", (*c.batch, m_tiles, n_tiles))
        else:
            *batch, ni, mi = unravel(fn, "%tile", (*c.batch, n_tiles, m_tiles))
        m0, n0 = fn.mul(mi, self.mb), fn.mul(ni, self.nb)
        pa = fn.gep(self.scalar, pa, fn.add(batch_offset(fn, batch, a.batch_strides), a.offset))
        pb = fn.gep(self.scalar, pb, fn.add(batch_offset(fn, batch, b.batch_strides), b.offset))
        if self.epilogue is None:
            pc, ld = operand(fn, 2), c.c_strides[-2]
            corner = fn.add(batch_offset(fn, batch, c.c_strides[:-2]), fn.add(fn.mul(m0, ld), n0))
            pc = fn.gep(self.scalar, pc, corner)
        else:
            _start(fn, self.epilogue, 2)
            ld = self.nb
            pc = fn.alloca(self.scalar, self.mb * ld)
        self._blocks(fn, a, b, pa, pb, pc, ld, m0, n0)
        if self.epilogue is not None:
            rows = _min(fn, fn.val(f"sub i64 {c.m}, {m0}"), self.mb) if m_tiles > 1 else c.m
            cols = _min(fn, fn.val(f"sub i64 {c.n}, {n0}"), self.nb) if n_tiles > 1 else c.n
            self.epilogue.emit(fn, m0, n0, rows, cols, pc, ld, tuple(batch))
        fn.finish()
        last = Kernel(self.name, _roles((a.role, b.role), self.epilogue),
                      prod(c.batch) * m_tiles * n_tiles, self.module)
        phases = [self.phase, [last]] if self.phase else [[last]]
        return Emission(phases, self.temporaries)

    def _blocks(self, fn: Fn, a: _Place, b: _Place, pa: str, pb: str, pc: str, ld: int,
                m0: Any, n0: Any) -> None:
        """All micro-kernels of a tile."""
        c = self.c
        m_rest, n_rest = c.m % self.mr, c.n % self.nr
        m_end = _min(fn, fn.add(m0, self.mb), c.m - m_rest)
        n_end = _min(fn, fn.add(n0, self.nb), c.n - n_rest)

        def at_end(start: Any, size: int, limit: int) -> str:
            return fn.val(f"icmp sge i64 {fn.add(start, size)}, {limit}")

        last_m = at_end(m0, self.mb, c.m) if m_rest else ""
        last_n = at_end(n0, self.nb, c.n) if n_rest else ""

        def micro(i: Any, j: Any, rows: int, cols: int, k0: Any, kc: Any, first: str) -> None:
            name = self._micro(rows, cols, a, b, ld)
            x = fn.gep(self.scalar, pa, fn.add(fn.mul(i, a.j_step), fn.mul(k0, a.k_step)))
            y = fn.gep(self.scalar, pb, fn.add(fn.mul(j, b.j_step), fn.mul(k0, b.k_step)))
            row = fn.val(f"sub i64 {i}, {m0}")
            col = fn.val(f"sub i64 {j}, {n0}")
            z = fn.gep(self.scalar, pc, fn.add(fn.mul(row, ld), col))
            fn.do(f"call void @{name}(ptr {x}, ptr {y}, ptr {z}, i64 {kc}, i1 {first})")

        def column(j: Any, cols: int, k0: Any, kc: Any, first: str) -> None:
            if c.m >= self.mr:
                with fn.loop(m0, m_end, self.mr, "i") as i:
                    micro(i, j, self.mr, cols, k0, kc, first)
            if m_rest:
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
                kc = _min(fn, fn.val(f"sub i64 {c.k}, {k0}"), self.kc)
                whole(k0, kc, fn.val(f"icmp eq i64 {k0}, 0"))

    def _micro(self, rows: int, cols: int, a: _Place, b: _Place, ld: int) -> str:
        """The function of a register tile; written once per size.

        (A, B, C, kc, first): C[rows, cols] (+)= A[rows, kc] B[kc, cols]
        """
        name = f"{self.name}_micro_{rows}x{cols}"
        if name in self.module.functions:
            return name
        params = (("ptr", "a"), ("ptr", "b"), ("ptr", "c"), ("i64", "kc"), ("i1", "first"))
        fn = Fn(self.module, name, params, attrs=f"noinline {self.t.attributes}",
                linkage="internal")
        lanes, vector, scalar = self.lanes, self.vector, self.scalar
        widths = [min(lanes, cols - j) for j in range(0, cols, lanes)]
        tile = [(i, j) for i in range(rows) for j in range(len(widths))]
        places = {(i, j): (i * ld + j * lanes) for i, j in tile}
        load, start, head, body, done = (fn.new_label(x) for x in
                                         ("load", "start", "head", "body", "done"))
        fn.cbr("%first", start, load)
        fn.place(load)
        old = {ij: masked_load(fn, scalar, lanes, widths[ij[1]],
                               fn.gep(scalar, "%c", places[ij]), self.item) for ij in tile}
        fn.br(start)
        fn.place(start)
        init = {ij: fn.val(f"phi {vector} [ {old[ij]}, %{load} ], [ zeroinitializer, %entry ]")
                for ij in tile}
        fn.br(head)
        fn.place(head)
        sums = {ij: fn.fresh("s") for ij in tile}
        nexts = {ij: fn.fresh("t") for ij in tile}
        fn.do(f"%k = phi i64 [ 0, %{start} ], [ %kn, %{body} ]")
        for ij in tile:
            fn.do(f"{sums[ij]} = phi {vector} [ {init[ij]}, %{start} ], [ {nexts[ij]}, %{body} ]")
        fn.cbr(fn.val("icmp slt i64 %k, %kc"), body, done)
        fn.place(body)
        y = fn.gep(scalar, "%b", fn.mul("%k", b.k_step))
        columns = [masked_load(fn, scalar, lanes, w, fn.gep(scalar, y, j * lanes), self.item)
                   for j, w in enumerate(widths)]
        x = fn.gep(scalar, "%a", fn.mul("%k", a.k_step))
        suffix = f"v{lanes}f{8 * self.item}"
        # without an instruction for it a true fma is a call of the C library
        fma = "fmuladd" if self.t.isa == "sse2" else "fma"
        f = fn.module.declare(f"{vector} @llvm.{fma}.{suffix}({vector}, {vector}, {vector})")
        for i in range(rows):
            one = fn.load(scalar, fn.gep(scalar, x, i * a.inner), self.item)
            lane = fn.val(f"insertelement {vector} poison, {scalar} {one}, i32 0")
            wide = fn.val(f"shufflevector {vector} {lane}, {vector} poison, "
                          f"<{lanes} x i32> zeroinitializer")
            for j in range(len(widths)):
                fn.do(f"{nexts[i, j]} = call {vector} {f}({vector} {wide}, "
                      f"{vector} {columns[j]}, {vector} {sums[i, j]})")
        fn.do("%kn = add nsw i64 %k, 1")
        still = fn.module.metadata('!{!"llvm.loop.unroll.disable"}')
        loop = fn.module.metadata(f"!{{!SELF, {still}}}", distinct=True)
        fn.do(f"br label %{head}, !llvm.loop {loop}")
        fn.place(done)
        for i, j in tile:
            at = fn.gep(scalar, "%c", places[i, j])
            self._put(fn, sums[i, j], at, widths[j])
        fn.finish()
        return name

    def _put(self, fn: Fn, value: str, at: str, width: int) -> None:
        if width == self.lanes:
            fn.store(self.vector, value, at, self.item)
            return
        bits = f"<{self.lanes} x i1>"
        f = fn.module.declare(f"void @llvm.masked.store.v{self.lanes}f{8 * self.item}.p0("
                              f"{self.vector}, ptr, i32, {bits})")
        fn.do(f"call void {f}({self.vector} {value}, ptr {at}, i32 {self.item}, {bits} "
              f"{mask_literal(self.lanes, width)})")


def _emit_scalar(module: Module, name: str, c: Contraction,
                 epilogue: Epilogue | None) -> Emission:
    """Every other dtype: loops over a scratch tile, left to LLVM to vectorise."""
    epilogue = epilogue or _Store(c)
    mb, nb = min(16, c.m), min(128, c.n)
    m_tiles, n_tiles = -(-c.m // mb), -(-c.n // nb)
    kind, memory = LLVM_TYPES[c.sums], LLVM_TYPES[c.dtype]
    fn = Fn(module, name, PARAMS, attrs=target().attributes)
    pa, pb = operand(fn, 0), operand(fn, 1)
    _start(fn, epilogue, 2)
    scratch = fn.alloca(kind, mb * nb)
    *batch, mi, ni = unravel(fn, "%tile", (*c.batch, m_tiles, n_tiles))
    m0, n0 = fn.mul(mi, mb), fn.mul(ni, nb)
    rows = _min(fn, fn.val(f"sub i64 {c.m}, {m0}"), mb) if m_tiles > 1 else c.m
    cols = _min(fn, fn.val(f"sub i64 {c.n}, {n0}"), nb) if n_tiles > 1 else c.n
    *ab, am, ak = c.a_strides
    *bb, bk, bn = c.b_strides
    pa = fn.gep(memory, pa, fn.add(fn.add(batch_offset(fn, batch, ab), fn.mul(m0, am)),
                                   c.a_offset))
    pb = fn.gep(memory, pb, fn.add(fn.add(batch_offset(fn, batch, bb), fn.mul(n0, bn)),
                                   c.b_offset))
    with fn.loop(0, rows, hint="i") as i:
        line = fn.gep(kind, scratch, fn.mul(i, nb))
        with fn.loop(0, cols, hint="j") as j:
            fn.store(kind, _zero(kind), fn.gep(kind, line, j))
        with fn.loop(0, c.k, hint="k") as k:
            x = fn.load(memory, fn.gep(memory, pa, fn.add(fn.mul(i, am), fn.mul(k, ak))))
            x = _convert(fn, x, c.dtype, c.sums)
            with fn.loop(0, cols, hint="j") as j:
                y = fn.load(memory, fn.gep(memory, pb, fn.add(fn.mul(k, bk), fn.mul(j, bn))))
                at = fn.gep(kind, line, j)
                total = _multiply_add(fn, c.sums, x, _convert(fn, y, c.dtype, c.sums),
                                      fn.load(kind, at))
                fn.store(kind, total, at)
    epilogue.emit(fn, m0, n0, rows, cols, scratch, nb, tuple(batch))
    fn.finish()
    roles = _roles(("a", "b"), epilogue)
    return Emission([[Kernel(name, roles, prod(c.batch) * m_tiles * n_tiles, module)]])


def _zero(kind: str) -> str:
    if kind.startswith("<"):
        return "zeroinitializer"
    return "0" if kind.startswith("i") else float_literal(0.0, kind)


def _multiply_add(fn: Fn, dtype: str, x: str, y: str, total: str) -> str:
    """total + x * y"""
    kind = LLVM_TYPES[dtype]
    if dtype == "bool":
        return fn.val(f"or i8 {total}, {fn.val(f'and i8 {x}, {y}')}")
    if kind.startswith("i"):
        return fn.val(f"add {kind} {total}, {fn.val(f'mul {kind} {x}, {y}')}")
    if not kind.startswith("<"):
        return fn.val(f"fadd contract {kind} {total}, {fn.val(f'fmul contract {kind} {x}, {y}')}")
    one = kind[5:-1]
    (xr, xi), (yr, yi) = ([fn.val(f"extractelement {kind} {v}, i32 {part}") for part in (0, 1)]
                          for v in (x, y))

    def mul(a: str, b: str) -> str:
        return fn.val(f"fmul contract {one} {a}, {b}")

    re = fn.val(f"fsub contract {one} {mul(xr, yr)}, {mul(xi, yi)}")
    im = fn.val(f"fadd contract {one} {mul(xr, yi)}, {mul(xi, yr)}")
    pair = fn.val(f"insertelement {kind} poison, {one} {re}, i32 0")
    pair = fn.val(f"insertelement {kind} {pair}, {one} {im}, i32 1")
    return fn.val(f"fadd contract {kind} {total}, {pair}")
