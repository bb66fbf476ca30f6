"""Contractions with one row or very few: bound by memory, so the matrix is read once, in order.

Two forms, both over B[k, n] with the few rows of A in registers or in the first cache:

dot    B has k contiguous: several columns of B are walked side by side, a vector of partial sums
       each, and the partial sums are added up by a tree of shuffles at the end
axpy   B has n contiguous: a few rows of B at a time, scaled, are added to the row of results.
       Memory wants long runs of a row, so the work is split along k; the partial rows of results
       are added up by a second kernel

A product with few columns is the same thing transposed.
"""

from __future__ import annotations

from math import prod
from typing import Any

from facula.codegen.kernel import KernelDraft
from facula.codegen.llvm import LLVM_TYPES, Fn, Module
from facula.codegen.products.contraction import Contraction, Emission, Epilogue
from facula.codegen.products.pack import Source, emit_pack
from facula.codegen.products.tiles import (
    PARAMS,
    Store,
    batch_offset,
    masked_load,
    masked_store,
    operand,
    roles_of,
    smin,
    start,
    transposed,
    unravel,
)
from facula.codegen.target import Target

__all__ = ["thin"]

_ITEMSIZE = {"float32": 4, "float64": 8}
_STREAMS = 8
"""Rows or columns of B that are read side by side."""
_NARROW = 8
"""Vectors of sums that stay in registers while B is read; also what hides how long a sum takes."""
_WEIGHT = 3.0
"""What a flop of these costs, bound by memory as they are, in flops of a large product."""


def thin(module: Module, name: str, c: Contraction, epilogue: Epilogue | None,
         t: Target) -> Emission | None:
    """The kernels of a product with few rows or few columns; None where others are better."""
    if c.dtype != c.sums or "m" in c.varies:        # what is thin now need not be next time
        return None
    most = 4 if t.registers >= 32 else 2
    swapped = c.n < c.m
    seen = transposed(c) if swapped else c
    bk, bn = seen.b_strides[-2:]
    if seen.k < 1 or seen.m > most:
        return None
    if bk == 1 and (seen.m == 1 or seen.k >= 64):
        return _Thin(module, name, c, seen, epilogue, t, swapped).emit(dots=True)
    if bn == 1 and seen.m == 1:
        return _Thin(module, name, c, seen, epilogue, t, swapped).emit(dots=False)
    return None


class _Thin:
    """One thin product; `seen` is `own` with the thin side as its rows."""

    def __init__(self, module: Module, name: str, own: Contraction, seen: Contraction,
                 epilogue: Epilogue | None, t: Target, swapped: bool):
        self.module, self.name, self.c, self.t, self.swapped = module, name, seen, t, swapped
        self.own = own
        self.item = _ITEMSIZE[seen.dtype]
        self.scalar = LLVM_TYPES[seen.dtype]
        self.lanes = t.lanes(self.item)
        self.vector = f"<{self.lanes} x {self.scalar}>"
        self.epilogue = epilogue
        self.direct = epilogue is None and seen.m == 1 and seen.c_strides[-1] == 1
        if epilogue is None and not self.direct:
            self.epilogue = Store(own)

    def _tiles(self, most: int) -> int:
        """Into how many parts the work is worth splitting: 64 KiB of B or more each."""
        return max(min(self.c.k * self.c.n * self.item >> 16, most), 1)

    def _finish(self, fn: Fn, n0: Any, cols: Any, sums: str, ld: int, batch: list[Any]) -> None:
        """The epilogue of the columns from n0."""
        if self.epilogue is not None:
            if self.swapped:
                self.epilogue.emit(fn, n0, 0, cols, self.c.m, sums, self.c.m, tuple(batch))
            else:
                self.epilogue.emit(fn, 0, n0, self.c.m, cols, sums, ld, tuple(batch))

    def emit(self, dots: bool) -> Emission:
        return self._emit_dots() if dots else self._emit_axpy()

    def _emit_dots(self) -> Emission:
        c = self.c
        a_role, b_role = ("b", "a") if self.swapped else ("a", "b")
        phase: list[KernelDraft] = []
        temporaries: list[tuple[str, int]] = []
        *a_batch, am, ak = c.a_strides
        a_offset = c.a_offset
        if ak != 1 and c.k > 1:
            source = Source(c.dtype, self.item, c.batch, tuple(a_batch), c.m, c.k, am, ak,
                            c.a_offset)
            packing = Module()
            ntiles = emit_pack(packing, f"{self.name}_pack0", source, c.m, self.t, c.k)
            temporaries.append(("tmp0", prod(source.distinct) * c.m * c.k * self.item))
            phase.append(KernelDraft(f"{self.name}_pack0", (a_role, "tmp0"), ntiles, packing, 0.02))
            a_role, am, ak, a_offset = "tmp0", c.k, 1, 0
            step, a_batch = c.m * c.k, []
            for n in reversed(source.distinct):
                a_batch.insert(0, step if n > 1 else 0)
                step *= n
        *b_batch, _, bn = c.b_strides
        each = -(-c.n // self._tiles(32))
        nb = -(-each // _STREAMS) * _STREAMS
        tiles = -(-c.n // nb)
        fn = Fn(self.module, self.name, PARAMS, attrs=self.t.attributes)
        pa, pb = operand(fn, 0), operand(fn, 1)
        *batch, ni = unravel(fn, "%tile", (*c.batch, tiles))
        n0 = fn.mul(ni, nb)
        pa = fn.gep(self.scalar, pa, fn.add(batch_offset(fn, batch, a_batch), a_offset))
        at = fn.add(batch_offset(fn, batch, b_batch), c.b_offset)
        pb = fn.gep(self.scalar, pb, fn.add(at, fn.mul(n0, bn)))
        cols = smin(fn, fn.val(f"sub i64 {c.n}, {n0}"), nb) if tiles > 1 else c.n
        pc = self._results(fn, batch, n0, c.m * nb)
        self.ld = nb
        self._dots(fn, pa, am, pb, bn, pc, cols)
        self._finish(fn, n0, cols, pc, nb, batch)
        fn.finish()
        self.module.light = self.epilogue is None
        last = KernelDraft(self.name, roles_of((a_role, b_role), self.epilogue),
                           prod(c.batch) * tiles, self.module, _WEIGHT)
        return Emission([phase, [last]] if phase else [[last]], temporaries)

    def _results(self, fn: Fn, batch: list[Any], n0: Any, size: int) -> str:
        """Where the sums of the columns from n0 go: C itself or scratch."""
        if self.direct:
            return fn.gep(self.scalar, operand(fn, 2),
                          fn.add(batch_offset(fn, batch, self.c.c_strides[:-2]), n0))
        start(fn, self.epilogue, 2)
        return fn.alloca(self.scalar, size)

    def _emit_axpy(self) -> Emission:
        c = self.c
        own = ("b", "a") if self.swapped else ("a", "b")
        each = -(-c.k // self._tiles(8))
        kb = -(-each // _STREAMS) * _STREAMS
        splits = -(-c.k // kb)
        nb = min(c.n, self.t.l1_bytes // (2 * self.item))
        tiles = -(-c.n // nb)
        shape = (*c.batch, tiles, splits)
        apart = splits > 1
        name = f"{self.name}_parts" if apart else self.name
        module = Module() if apart else self.module
        fn = Fn(module, name, PARAMS, attrs=self.t.attributes)
        pa, pb = operand(fn, 0), operand(fn, 1)
        *batch, ni, ki = unravel(fn, "%tile", shape)
        *a_batch, _, ak = c.a_strides
        *b_batch, bk, _ = c.b_strides
        n0, k0 = fn.mul(ni, nb), fn.mul(ki, kb)
        at = fn.add(batch_offset(fn, batch, a_batch), c.a_offset)
        pa = fn.gep(self.scalar, pa, fn.add(at, fn.mul(k0, ak)))
        at = fn.add(batch_offset(fn, batch, b_batch), c.b_offset)
        pb = fn.gep(self.scalar, pb, fn.add(at, fn.add(fn.mul(k0, bk), n0)))
        cols = smin(fn, fn.val(f"sub i64 {c.n}, {n0}"), nb) if tiles > 1 else c.n
        rows = smin(fn, fn.val(f"sub i64 {c.k}, {k0}"), kb) if apart else c.k
        if apart:
            flat: str | int = 0
            for index, n in zip((*batch, ki), (*c.batch, splits), strict=True):
                flat = fn.add(fn.mul(flat, n), index)
            pc = fn.gep(self.scalar, operand(fn, 2), fn.add(fn.mul(flat, c.n), n0))
        else:
            pc = self._results(fn, batch, n0, nb)
        self._axpy(fn, pa, ak, pb, bk, pc, cols, rows)
        if not apart:
            self._finish(fn, n0, cols, pc, nb, batch)
        fn.finish()
        module.light = apart or self.epilogue is None
        if not apart:
            return Emission([[KernelDraft(name, roles_of(own, self.epilogue), prod(shape), module,
                                          _WEIGHT)]])
        parts = KernelDraft(name, (*own, "tmp0"), prod(shape), module, _WEIGHT)
        last = self._sum_parts(splits)
        return Emission([[parts], [last]],
                        [("tmp0", prod(c.batch) * splits * c.n * self.item)])

    def _sum_parts(self, splits: int) -> KernelDraft:
        """The kernel that adds up the partial rows, in order, and has the epilogue."""
        c, lanes, vector = self.c, self.lanes, self.vector
        nb = min(c.n, 1024)
        tiles = -(-c.n // nb)
        fn = Fn(self.module, self.name, PARAMS, attrs=self.t.attributes)
        parts = operand(fn, 0)
        *batch, ni = unravel(fn, "%tile", (*c.batch, tiles))
        n0 = fn.mul(ni, nb)
        flat: str | int = 0
        for index, n in zip(batch, c.batch, strict=True):
            flat = fn.add(fn.mul(flat, n), index)
        parts = fn.gep(self.scalar, parts, fn.add(fn.mul(flat, splits * c.n), n0))
        cols = smin(fn, fn.val(f"sub i64 {c.n}, {n0}"), nb) if tiles > 1 else c.n
        pc = self._results(fn, batch, n0, nb)

        def step(j: Any, on: int) -> None:
            total = ""
            for i in range(splits):
                at = fn.gep(self.scalar, parts, fn.add(j, i * c.n))
                part = masked_load(fn, self.scalar, lanes, on, at, self.item)
                total = fn.val(f"fadd {vector} {total}, {part}") if total else part
            masked_store(fn, self.scalar, lanes, on, total, fn.gep(self.scalar, pc, j), self.item)

        self._along(fn, cols, step)
        self._finish(fn, n0, cols, pc, nb, batch)
        fn.finish()
        self.module.light = self.epilogue is None
        return KernelDraft(self.name, roles_of(("tmp0", "tmp0"), self.epilogue),
                           prod(c.batch) * tiles, self.module, 0.1)

    def _along(self, fn: Fn, cols: Any, step: Any) -> None:
        """`step(j, how many lanes)` for all vectors of a tile that is `cols` wide.

        Tiles but the last are of whole vectors.
        """
        lanes, rest = self.lanes, self.c.n % self.lanes
        whole: Any = (cols - rest if isinstance(cols, int)
                      else fn.val(f"and i64 {cols}, {-lanes}"))
        if self.c.n >= lanes:
            with fn.loop(0, whole, lanes, "j", _rolled(fn)) as j:
                step(j, lanes)
        if rest and isinstance(cols, int):
            step(whole, rest)
        elif rest:
            with fn.when(fn.val(f"icmp slt i64 {whole}, {cols}")):
                step(whole, rest)

    # -- columns of B are contiguous along k
    def _dots(self, fn: Fn, pa: str, am: int, pb: str, bn: int, pc: str, cols: Any) -> None:
        # a power of two: tiles are whole multiples of _STREAMS
        streams = max(min(_STREAMS, 1 << (self.t.registers // 2 // self.c.m).bit_length() >> 1), 1)
        rest = self.c.n % streams

        def micro(j: Any, count: int) -> None:
            f = self._dot(count, am, bn)
            y = fn.gep(self.scalar, pb, fn.mul(j, bn))
            z = fn.gep(self.scalar, pc, fn.mul(j, self.c.m) if self.swapped else j)
            fn.do(f"call void @{f}(ptr {pa}, ptr {y}, ptr {z})")

        if isinstance(cols, int):
            whole: Any = cols - rest
        else:
            whole = fn.val(f"and i64 {cols}, {-streams}")
        if self.c.n >= streams:
            with fn.loop(0, whole, streams, "j") as j:
                micro(j, streams)
        if rest:
            if isinstance(cols, int):
                micro(whole, rest)
            else:
                with fn.when(fn.val(f"icmp slt i64 {whole}, {cols}")):
                    micro(whole, rest)

    def _dot(self, count: int, am: int, bn: int) -> str:
        """(A, B, C): all of k for `count` columns of B; written once per count."""
        name = f"{self.name}_dot{count}"
        if name in self.module.functions:
            return name
        c, lanes, vector, scalar = self.c, self.lanes, self.vector, self.scalar
        fn = Fn(self.module, name, (("ptr", "a"), ("ptr", "b"), ("ptr", "c")),
                attrs=f"noinline {self.t.attributes}", inner=True)
        tile = [(i, j) for i in range(c.m) for j in range(count)]
        sums = dict.fromkeys(tile, "zeroinitializer")
        whole, rest = c.k - c.k % lanes, c.k % lanes
        if c.m == 1 and c.k >= 4 * lanes:
            self._in_order(fn, count, bn)
            fn.finish()
            return name

        def step(k: Any, on: int, into: dict[tuple[int, int], str]) -> None:
            rows = [masked_load(fn, scalar, lanes, on, fn.gep(scalar, "%a", fn.add(k, i * am)),
                                self.item) for i in range(c.m)]
            for j in range(count):
                y = masked_load(fn, scalar, lanes, on,
                                fn.gep(scalar, "%b", fn.add(k, j * bn)), self.item)
                for i in range(c.m):
                    into[i, j] = _fma(fn, self.t, vector, rows[i], y, sums[i, j], into.get((i, j)))

        if whole > lanes:
            head, body, done = (fn.new_label(x) for x in ("head", "body", "done"))
            fn.br(head)
            fn.place(head)
            sums = {ij: fn.fresh("s") for ij in tile}
            nexts = {ij: fn.fresh("t") for ij in tile}
            fn.do(f"%k = phi i64 [ 0, %entry ], [ %kn, %{body} ]")
            for ij in tile:
                fn.do(f"{sums[ij]} = phi {vector} [ zeroinitializer, %entry ], "
                      f"[ {nexts[ij]}, %{body} ]")
            fn.cbr(fn.val(f"icmp slt i64 %k, {whole}"), body, done)
            fn.place(body)
            step("%k", lanes, nexts)
            fn.do(f"%kn = add nsw i64 %k, {lanes}")
            fn.do(f"br label %{head}, !llvm.loop {_rolled(fn)}")
            fn.place(done)
        elif whole:
            after: dict[tuple[int, int], str] = {}
            step(0, lanes, after)
            sums = after
        if rest:
            after = {}
            step(whole, rest, after)
            sums = after
        for i in range(c.m):
            for j in range(0, count, lanes):
                group = [sums[i, x] for x in range(j, min(j + lanes, count))]
                self._put(fn, _totals(fn, group, lanes, scalar), len(group), i, j)
        fn.finish()
        return name

    def _in_order(self, fn: Fn, count: int, bn: int) -> None:
        """One column of B after the other, which where they lie one after another is what memory
        does best; four sums along each."""
        c, lanes, vector, scalar = self.c, self.lanes, self.vector, self.scalar
        ways = 4
        kept = fn.alloca(vector, count)
        sums = [fn.alloca(vector) for _ in range(ways)]
        run = c.k - c.k % (ways * lanes)

        def add(y: str, k: Any, on: int, way: int) -> None:
            x = masked_load(fn, scalar, lanes, on, fn.gep(scalar, "%a", k), self.item)
            b = masked_load(fn, scalar, lanes, on, fn.gep(scalar, y, k), self.item)
            old = fn.load(vector, sums[way])
            fn.store(vector, _fma(fn, self.t, vector, x, b, old), sums[way])

        with fn.loop(0, count, hint="j", metadata=_rolled(fn)) as j:
            y = fn.gep(scalar, "%b", fn.mul(j, bn))
            for way in range(ways):
                fn.store(vector, "zeroinitializer", sums[way])
            with fn.loop(0, run, ways * lanes, "k", _rolled(fn)) as k:
                for way in range(ways):
                    add(y, fn.add(k, way * lanes), lanes, way)
            for way, at in enumerate(range(run, c.k, lanes)):
                add(y, at, min(lanes, c.k - at), way)
            a, b, d, e = (fn.load(vector, s) for s in sums)
            total = fn.val(f"fadd {vector} {fn.val(f'fadd {vector} {a}, {b}')}, "
                           f"{fn.val(f'fadd {vector} {d}, {e}')}")
            fn.store(vector, total, fn.gep(vector, kept, j))
        for j0 in range(0, count, lanes):
            group = [fn.load(vector, fn.gep(vector, kept, x))
                     for x in range(j0, min(j0 + lanes, count))]
            self._put(fn, _totals(fn, group, lanes, scalar), len(group), 0, j0)

    def _put(self, fn: Fn, totals: str, count: int, i: int, j: int) -> None:
        """The first `count` of a vector of totals: row i, columns from j."""
        lanes, vector = self.lanes, self.vector
        if not self.swapped or self.c.m == 1:
            at = fn.gep(self.scalar, "%c", i * self.ld + j)
            masked_store(fn, self.scalar, lanes, count, totals, at, self.item)
            return
        for x in range(count):
            value = fn.val(f"extractelement {vector} {totals}, i32 {x}")
            fn.store(self.scalar, value, fn.gep(self.scalar, "%c", (j + x) * self.c.m + i))

    # -- rows of B are contiguous along n
    def _axpy(self, fn: Fn, pa: str, ak: int, pb: str, bk: int, pc: str, cols: Any,
              rows: Any) -> None:
        """All of `rows` rows of B; only the last tile has a number that is no whole of streams."""
        c = self.c
        if c.n <= _NARROW * self.lanes:
            self._narrow(fn, pa, ak, pb, bk, pc, rows)
            return
        rest = c.k % _STREAMS

        def sweep(k: Any, count: int, first: bool) -> None:
            f = self._rows(fn.module, count, ak, bk, first)
            x = fn.gep(self.scalar, pa, fn.mul(k, ak))
            y = fn.gep(self.scalar, pb, fn.mul(k, bk))
            fn.do(f"call void @{f}(ptr {x}, ptr {y}, ptr {pc}, i64 {cols})")

        if c.k < _STREAMS:
            sweep(0, c.k, True)
            return
        if isinstance(rows, int):
            whole: Any = rows - rest
        else:
            whole = fn.val(f"and i64 {rows}, {-_STREAMS}")
            if rest:        # the last part may have no whole of streams
                with fn.when(fn.val(f"icmp eq i64 {whole}, 0")):
                    sweep(0, rest, True)
                with fn.when(fn.val(f"icmp ne i64 {whole}, 0")):
                    sweep(0, _STREAMS, True)
                with fn.loop(_STREAMS, whole, _STREAMS, "k") as k:
                    sweep(k, _STREAMS, False)
                odd = fn.val(f"icmp slt i64 {whole}, {rows}")
                some = fn.val(f"icmp ne i64 {whole}, 0")
                with fn.when(fn.val(f"and i1 {odd}, {some}")):
                    sweep(whole, rest, False)
                return
        sweep(0, _STREAMS, True)
        with fn.loop(_STREAMS, whole, _STREAMS, "k") as k:
            sweep(k, _STREAMS, False)
        if rest:
            sweep(whole, rest, False)

    def _narrow(self, fn: Fn, pa: str, ak: int, pb: str, bk: int, pc: str, rows: Any) -> None:
        """All of C in registers, so that B is read in the order in which it lies."""
        c, lanes, scalar, vector = self.c, self.lanes, self.scalar, self.vector
        parts = [(j, min(lanes, c.n - j)) for j in range(0, c.n, lanes)]
        # few columns: several rows at a time, or each sum would wait for the one before
        ways = max(_NARROW // len(parts), 1)
        sums = [[fn.alloca(vector) for _ in parts] for _ in range(ways)]
        for total in (s for row in sums for s in row):
            fn.store(vector, "zeroinitializer", total)

        def add(k: Any, way: int) -> None:
            x = _splat(fn, fn.load(scalar, fn.gep(scalar, pa, fn.mul(k, ak)), self.item), scalar,
                       lanes)
            row = fn.gep(scalar, pb, fn.mul(k, bk))
            for (j, on), total in zip(parts, sums[way], strict=True):
                y = masked_load(fn, scalar, lanes, on, fn.gep(scalar, row, j), self.item)
                fn.store(vector, _fma(fn, self.t, vector, x, y, fn.load(vector, total)), total)

        if isinstance(rows, int):
            whole: Any = rows - rows % ways
        else:
            whole = fn.val(f"sub i64 {rows}, {fn.val(f'srem i64 {rows}, {ways}')}")
        with fn.loop(0, whole, ways, "k", _rolled(fn)) as k:
            for way in range(ways):
                add(fn.add(k, way), way)
        if ways > 1:
            with fn.loop(whole, rows, 1, "k", _rolled(fn)) as k:
                add(k, 0)
        for (j, on), *column in zip(parts, *sums, strict=True):
            values = [fn.load(vector, s) for s in column]
            while len(values) > 1:
                values = [fn.val(f"fadd {vector} {values[i]}, {values[i + 1]}")
                          if i + 1 < len(values) else values[i] for i in range(0, len(values), 2)]
            masked_store(fn, scalar, lanes, on, values[0], fn.gep(scalar, pc, j), self.item)

    def _rows(self, module: Module, count: int, ak: int, bk: int, first: bool) -> str:
        """(A, B, C, n): C[j] (+)= A[0] B[0, j] + ... for `count` rows of B."""
        name = f"{self.name}_rows{count}{'_first' if first else ''}"
        if name in module.functions:
            return name
        lanes, scalar, vector = self.lanes, self.scalar, self.vector
        fn = Fn(module, name, (("ptr", "a"), ("ptr", "b"), ("ptr", "c"), ("i64", "n")),
                attrs=f"noinline {self.t.attributes}", inner=True)
        x = [_splat(fn, fn.load(scalar, fn.gep(scalar, "%a", i * ak), self.item), scalar, lanes)
             for i in range(count)]
        rows = [fn.gep(scalar, "%b", i * bk) for i in range(count)]

        def step(j: Any, on: int) -> None:
            at = fn.gep(scalar, "%c", j)
            total = "zeroinitializer" if first else masked_load(fn, scalar, lanes, on, at,
                                                                self.item)
            for i in range(count):
                y = masked_load(fn, scalar, lanes, on, fn.gep(scalar, rows[i], j), self.item)
                total = _fma(fn, self.t, vector, x[i], y, total)
            masked_store(fn, scalar, lanes, on, total, at, self.item)

        self._along(fn, "%n", step)
        fn.finish()
        return name


def _rolled(fn: Fn) -> str:
    """Metadata of a loop that LLVM is to leave as it is."""
    still = fn.module.metadata('!{!"llvm.loop.unroll.disable"}')
    return fn.module.metadata(f"!{{!SELF, {still}}}", distinct=True)


def _splat(fn: Fn, value: str, scalar: str, lanes: int) -> str:
    vector = f"<{lanes} x {scalar}>"
    lane = fn.val(f"insertelement {vector} poison, {scalar} {value}, i32 0")
    return fn.val(f"shufflevector {vector} {lane}, {vector} poison, "
                  f"<{lanes} x i32> zeroinitializer")


def _fma(fn: Fn, t: Target, vector: str, x: str, y: str, total: str,
         into: str | None = None) -> str:
    """x * y + total, as the value `into` where that name is taken already."""
    lanes, scalar = vector[1:-1].split(" x ")
    # without an instruction for it a true fma is a call of the C library
    name = "fmuladd" if t.isa == "sse2" else "fma"
    suffix = f"v{lanes}{'f32' if scalar == 'float' else 'f64'}"
    f = fn.module.declare(f"{vector} @llvm.{name}.{suffix}({vector}, {vector}, {vector})")
    into = into or fn.fresh()
    fn.do(f"{into} = call {vector} {f}({vector} {x}, {vector} {y}, {vector} {total})")
    return into


def _totals(fn: Fn, rows: list[str], lanes: int, scalar: str) -> str:
    """A vector whose element r is the sum over rows[r]; the others are of no meaning.

    Interleaving two vectors and adding the halves keeps both sums in half the room; rows at half
    the distance each time end up in their order.
    """
    vector = f"<{lanes} x {scalar}>"
    size = 1
    while size < len(rows):
        size *= 2
    rows = rows + ["zeroinitializer"] * (size - len(rows))
    picks = []
    for begin in (0, lanes // 2):
        order = [x for i in range(begin, begin + lanes // 2) for x in (i, i + lanes)]
        picks.append(f"<{lanes} x i32> <" + ", ".join(f"i32 {x}" for x in order) + ">")
    while len(rows) > 1:
        half = len(rows) // 2
        pairs = [[fn.val(f"shufflevector {vector} {u}, {vector} {v}, {pick}") for pick in picks]
                 for u, v in zip(rows[:half], rows[half:], strict=True)]
        rows = [fn.val(f"fadd {vector} {u}, {v}") for u, v in pairs]
    total = rows[0]
    width = lanes
    while width > size:
        width //= 2
        order_ = ", ".join(f"i32 {(i + width) % lanes}" for i in range(lanes))
        upper = fn.val(f"shufflevector {vector} {total}, {vector} poison, "
                       f"<{lanes} x i32> <{order_}>")
        total = fn.val(f"fadd {vector} {total}, {upper}")
    return total
