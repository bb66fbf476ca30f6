"""Recurrences: the whole loop over time in one kernel (see `facula.ops.primitive.recurrent`).

Rows of a batch do not meet, so a tile of the kernel is some rows for all of the time, and no tile
waits for another.  The recurrent weight is packed once, in a phase before.  In each step the
product goes by panels of hidden units: register tiles compute the products of all gates for the
tile's rows and the panel's units into a scratch tile, and what the cell does with them follows
while that is in the first cache.  Operands that are not in memory (the coefficients of a gradient,
a gradient that is zero but at the last step) are computed where they are read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from facula.codegen.elements import expr
from facula.codegen.elements.writer import KernelWriter
from facula.codegen.kernel import ATTRS, KernelText, Storage, View, named
from facula.codegen.llvm import LLVM_TYPES, Fn, Module, float_literal
from facula.codegen.products.epilogue import NS_PER_FLOP, Product
from facula.codegen.products.pack import Source, emit_pack
from facula.codegen.products.tiles import PARAMS, operand, sums_over_k
from facula.codegen.target import target, tiling
from facula.graph.spec import Step
from facula.groups.index import Index, const, loop_var
from facula.ops.primitive.recurrent import CELLS, RECURRENT, coefficients

__all__ = ["emit_recurrence"]

_ACCESS = ", !llvm.access.group !ACCESS"
Find = Callable[[int], "Storage | None"]


def emit_recurrence(steps: Sequence[Step], items: Sequence[int],
                    read: Sequence[tuple[int, int]] | None, weight: int, view: View,
                    storage: Find, scalars: Find) -> Product:
    """The kernels of a recurrence: steps `items` of the program, the loop and, where it is
    wanted too, what is written beside it (gates, or sums of tiles).

    `read` are the stretches of its flat value that somebody reads, None for all of it; what
    nobody reads need not be written.  `weight` is the slot of the recurrent weight, which lies
    there as `view` says.
    """
    kind = _Backward if steps[items[0]].op == "recur_adjoint" else _Forward
    return kind(steps, items, read, view, storage, scalars).emit(weight)


class _Loop(ABC):
    """One kernel being written.

    `streams` panels of the packed weight, `stream_step` elements apart, are read side by side;
    each is `wide` columns.  The scratch tile is [rows, streams * wide].
    """

    streams = 1

    def __init__(self, steps: Sequence[Step], items: Sequence[int],
                 read: Sequence[tuple[int, int]] | None, view: View, storage: Find,
                 scalars: Find):
        self.steps, self.number, self.items, self.read = steps, items[0], items, read
        self.step = step = steps[items[0]]
        self.view, self.storage, self.t = view, storage, target()
        self.cell, self.count, self.reverse = step.attrs
        self.kind = CELLS[self.cell]
        self.dtype = step.spec.dtype
        self.item = self.dtype.itemsize
        self.scalar = LLVM_TYPES[self.dtype.name]
        self.lanes = self.t.lanes(self.item)
        self.vector = f"<{self.lanes} x {self.scalar}>"
        self.gates = self.kind.products
        weight = steps[step.inputs[RECURRENT[step.op](self.cell)]].spec.shape
        self.h = weight[1]
        self.n = steps[step.inputs[0]].spec.shape[0] // self.count
        self.fn = Fn(Module(), "KERNEL", PARAMS, attrs=ATTRS)
        self.packed = operand(self.fn, 0)
        self.writer = KernelWriter(steps, lambda k: storage(k) or scalars(k), self.fn, 1)
        self.em = self.writer.emitter
        self.em.position = self._position
        rows = self.n * self.count
        self.row = loop_var("row", rows, 0)                 # of a step
        self.block = loop_var("block", rows + self.n, 1)    # of the states after it
        self.past = loop_var("past", rows + self.n, 2)      # of the states before it
        self.example = loop_var("example", self.n, 3)
        self.unit = loop_var("unit", self.h, 4)
        self._sizes()

    def _position(self, number: int) -> tuple[str, tuple[int, ...], str] | None:
        place = self.storage(number)
        if place is None:
            return None
        return self.writer.pointer(place.slot), place.strides, self.writer.tags(place.slot)

    # -- sizes
    @abstractmethod
    def source(self) -> Source:
        """The weight as the product reads it."""

    def _sizes(self) -> None:
        """How wide a panel is, which rows are a tile, and its register tiles."""
        vectors = -(-self.h // self.lanes)
        each = 2 if self.streams == 1 and vectors > 1 else 1
        self.vectors = each * self.streams
        self.wide = each * self.lanes
        self.most = self.t.tile(self.vectors)
        self.rows, self.tiles = tiling(self.n, (self.gates * self.h, self.h), self.item)

    def parts(self, rows: int) -> list[tuple[int, int]]:
        """(first, how many) rows of each register tile: about as many each."""
        count = -(-rows // self.most)
        cuts = [rows * k // count for k in range(count + 1)]
        return [(a, b - a) for a, b in zip(cuts, cuts[1:])]

    # -- the product
    def micro(self, rows: int, a_step: int) -> str:
        """The function of a register tile, written once per size.

        (A, B, C, kc, first): C[rows, streams * wide] (+)= sum over k < kc of A[rows, k] B[k, ..]
        """
        name = f"KERNEL_micro_{rows}"
        if name in self.fn.module.functions:
            return name
        params = (("ptr", "a"), ("ptr", "b"), ("ptr", "c"), ("i64", "kc"), ("i1", "first"))
        fn = Fn(self.fn.module, name, params, attrs=f"noinline {self.t.attributes}",
                inner=True)
        vector, scalar, lanes = self.vector, self.scalar, self.lanes
        each = self.wide // lanes
        tile = [(i, j) for i in range(rows) for j in range(self.vectors)]
        ld = self.streams * self.wide

        def at(ij: tuple[int, int]) -> str:
            return fn.gep(scalar, "%c", ij[0] * ld + ij[1] * lanes)

        fma = "fmuladd" if self.t.isa == "sse2" else "fma"
        f = fn.module.declare(f"{vector} @llvm.{fma}.v{lanes}f{8 * self.item}({vector}, {vector}, "
                              f"{vector})")
        with sums_over_k(fn, vector, tile, lambda ij: fn.load(vector, at(ij), self.item)) as (
                sums, nexts):
            y = fn.gep(scalar, "%b", fn.mul("%k", self.wide))
            columns = [fn.load(vector, fn.gep(scalar, y, j // each * self.stream_step
                                              + j % each * lanes), self.item)
                       for j in range(self.vectors)]
            x = fn.gep(scalar, "%a", "%k")
            for i in range(rows):
                one = fn.load(scalar, fn.gep(scalar, x, i * a_step), self.item)
                lane = fn.val(f"insertelement {vector} poison, {scalar} {one}, i32 0")
                all_ = fn.val(f"shufflevector {vector} {lane}, {vector} poison, "
                              f"<{lanes} x i32> zeroinitializer")
                for j in range(self.vectors):
                    fn.do(f"{nexts[i, j]} = call {vector} {f}({vector} {all_}, {vector} "
                          f"{columns[j]}, {vector} {sums[i, j]})")
        for ij in tile:
            fn.store(vector, sums[ij], at(ij), self.item)
        fn.finish()
        return name

    def multiply(self, a: str, a_step: int, panel: Any, kc: Any) -> None:
        """The scratch tile: all rows of the tile, A at `a`, times panel number `panel`."""
        fn = self.fn
        b = fn.gep(self.scalar, self.packed, fn.mul(panel, self.wide * self.depth))
        last = self.n - (self.tiles - 1) * self.rows

        def all_of(rows: int) -> None:
            for first, count in self.parts(rows):
                x = fn.gep(self.scalar, a, first * a_step)
                z = fn.gep(self.scalar, self.scratch, first * self.streams * self.wide)
                fn.do(f"call void @{self.micro(count, a_step)}(ptr {x}, ptr {b}, ptr {z}, "
                      f"i64 {kc}, i1 true)")

        if last == self.rows:
            all_of(self.rows)
            return
        short = fn.val(f"icmp eq i64 %tile, {self.tiles - 1}")
        with fn.when(fn.val(f"xor i1 {short}, true")):
            all_of(self.rows)
        with fn.when(short):
            all_of(last)

    def panels(self, work: Callable[[Any, Any, int], None]) -> None:
        """work(panel, first unit, how many units) for all panels."""
        whole, rest = divmod(self.h, self.wide)
        if whole:
            with self.fn.loop(0, whole, hint="panel") as p:
                work(p, self.fn.mul(p, self.wide), self.wide)
        if rest:
            work(whole, whole * self.wide, rest)

    # -- elements
    @contextmanager
    def elements(self, names: Sequence[tuple[Index, Any]], first: Any, count: int
                 ) -> Iterator[tuple[Any, Any]]:
        """Loops over the tile's rows and over `count` units; yields (row of the tile, unit of the
        panel).  `names` are loop variables and what they are in the tile's first row."""
        fn, em = self.fn, self.em
        with fn.loop(0, self.height, hint="i") as i:
            at = [(v.terms[0][0], str(fn.add(start, i))) for v, start in names if v.terms]
            with fn.loop(0, count, hint="j", metadata="!SHORT") as j:
                em.open()
                em.names.update(at)
                self.column = str(fn.add(first, j))
                if self.unit.terms:
                    em.names[self.unit.terms[0][0]] = self.column
                yield i, j
                em.close()

    def value(self, which: int, *index: Index) -> Any:
        """An element of operand `which`."""
        return self.em.value(self.step.inputs[which], index)

    def op(self, name: str, *args: Any) -> Any:
        return expr.emit_op(self.fn, name, list(args), [self.dtype] * len(args), self.dtype)

    def total(self, first: Any, *more: Any) -> Any:
        for x in more:
            first = self.op("add", first, x)
        return first

    def summed(self, i: Any, j: Any, stream: int = 0) -> Any:
        """An element of the scratch tile."""
        at = self.fn.add(self.fn.mul(i, self.streams * self.wide),
                         self.fn.add(stream * self.wide, j))
        return expr.load_value(self.fn, self.dtype, self.scratch, at, _ACCESS)

    def element(self, array: str, i: Any, first: Any, j: Any) -> Any:
        """The position in an array [rows of the tile, H]."""
        return self.fn.add(self.fn.mul(i, self.h), self.fn.add(first, j))

    # -- all of it
    def emit(self, weight: int) -> Product:
        fn, source = self.fn, self.source()
        self.depth = source.k
        panels = -(-source.j // self.wide)
        self.stream_step = panels * self.wide * source.k if source.distinct != (1,) else 0
        self.start = fn.mul("%tile", self.rows) if self.tiles > 1 else 0
        self.height: Any = self.rows
        if self.tiles * self.rows != self.n:
            f = fn.module.declare("i64 @llvm.smin.i64(i64, i64)")
            left = fn.val(f"sub i64 {self.n}, {self.start}")
            self.height = fn.val(f"call i64 {f}(i64 {left}, i64 {self.rows})")
        self.scratch = fn.alloca(self.scalar, self.rows * self.streams * self.wide)
        self.body()
        fn.finish()
        self.writer.resolve()
        packing = Module()
        ntiles = emit_pack(packing, "KERNEL_pack", source, self.wide, self.t)
        name, text = named(packing)
        size = max(*source.distinct, 1) * panels * self.wide * source.k * self.item
        product = Product()
        product.temporaries = [size]
        product.phases.append([(KernelText(f"{name}_pack", text, (), ntiles, 500.0 + size / 20),
                                [weight, "tmp0"])])
        name, text = named(fn.module)
        flops = 2.0 * self.count * self.n * self.gates * self.h * self.h
        points = self.count * self.n * self.h
        product.phases.append([(KernelText(name, text, (), self.tiles,
                                           flops * NS_PER_FLOP + 3.0 * points),
                                ["tmp0", *self.writer.slots])])
        return product

    @abstractmethod
    def body(self) -> None:
        """The loop over time."""

    def pointer(self, number: int, at: Any) -> str:
        place = self.storage(number)
        assert place is not None
        return self.fn.gep(self.scalar, self.writer.pointer(place.slot), at)


class _Forward(_Loop):
    """`recur` with its gates, and `recur_linear`."""

    def __init__(self, *args: Any) -> None:
        steps, items = args[:2]
        self.streams = CELLS[steps[items[0]].attrs[0]].products
        super().__init__(*args)

    def source(self) -> Source:
        wide, deep = self.view.strides
        return Source(self.dtype.name, self.item, (self.gates,), (self.h * wide,), self.h, self.h,
                      wide, deep, self.view.offset)

    def body(self) -> None:
        fn, step = self.fn, self.step
        first = self.count if self.reverse else 0
        states = range(self.kind.states)
        starts = {"recur": 2, "recur_linear": coefficients(self.cell) + 1 + self.kind.states}
        begin = fn.add(self.start, first * self.n)
        with self.elements([(self.block, begin), (self.example, self.start)], 0, self.h):
            for s in states:
                at = starts[step.op] + s
                self.put(s, self.value(at, self.example, self.unit))
        with fn.loop(0, self.count, hint="t") as k:
            t = fn.val(f"sub i64 {self.count - 1}, {k}") if self.reverse else k
            row = fn.add(fn.mul(t, self.n), self.start)
            later = fn.add(row, self.n)
            own, past = (row, later) if self.reverse else (later, row)
            a = self.pointer(self.number, fn.mul(past, self.h))

            def work(panel: Any, unit: Any, count: int) -> None:
                self.multiply(a, self.h, panel, self.h)
                with self.elements([(self.row, row), (self.block, own), (self.past, past)], unit,
                                   count) as (i, j):
                    sums = [self.summed(i, j, s) for s in range(self.gates)]
                    if step.op == "recur":
                        self.point(sums)
                    else:
                        self.linear(sums)

            self.panels(work)

    def put(self, state: int, value: Any) -> None:
        self.writer.put(self.number, (const(state), self.block, self.unit), value)

    def before(self, state: int) -> Any:
        return self.em.value(self.number, (const(state), self.past, self.unit))

    def keep(self, gates: Sequence[Any]) -> None:
        """Store the gates where the program wants them."""
        for number in self.items[1:]:
            for g, value in enumerate(gates):
                self.writer.put(number, (self.row, self.unit + g * self.h), value)

    def point(self, sums: list[Any]) -> None:
        """One unit of one row in one step."""
        op = self.op
        x = [self.value(0, self.row, self.unit + g * self.h) for g in range(self.gates)]
        if self.cell == "gru":
            r = op("sigmoid", op("add", x[0], sums[0]))
            z = op("sigmoid", op("add", x[1], sums[1]))
            m = op("add", sums[2], self.value(3, self.unit))
            n = op("tanh", op("add", x[2], op("mul", r, m)))
            h = op("add", n, op("mul", z, op("sub", self.before(0), n)))
            self.put(0, h)
            self.keep([r, z, n, m])
            return
        y = [op("add", a, b) for a, b in zip(x, sums, strict=True)]
        if self.cell == "lstm":
            i, f, o = (op("sigmoid", y[k]) for k in (0, 1, 3))
            g = op("tanh", y[2])
            c = op("add", op("mul", f, self.before(1)), op("mul", i, g))
            self.put(0, op("mul", o, op("tanh", c)))
            self.put(1, c)
            self.keep([i, f, g, o])
        elif self.cell == "tanh":
            self.put(0, op("tanh", y[0]))
        else:
            zero = float_literal(0.0, self.scalar)
            below = self.fn.val(f"fcmp ole {self.scalar} {y[0]}, {zero}")
            self.put(0, self.fn.val(f"select i1 {below}, {self.scalar} {zero}, {self.scalar} "
                                    f"{y[0]}"))

    def linear(self, sums: list[Any]) -> None:
        op, each = self.op, coefficients(self.cell)

        def at(k: int) -> Any:
            return self.value(k, self.row, self.unit)

        moved = [op("mul", at(k), v) for k, v in enumerate(sums)]
        if self.cell == "lstm":
            c = self.total(at(each + 1), op("mul", at(4), self.before(1)), *moved[:3])
            self.put(0, self.total(at(each + 2), op("mul", at(5), c), moved[3]))
            self.put(1, c)
            return
        h = self.total(at(each + 1), *moved)
        if self.kind.leak:
            h = op("add", h, op("mul", at(self.gates), self.before(0)))
        self.put(0, h)


class _Backward(_Loop):
    """`recur_adjoint`: from the last step to the first."""

    def source(self) -> Source:
        deep, wide = self.view.strides
        return Source(self.dtype.name, self.item, (1,), (0,), self.h, self.gates * self.h, wide,
                      deep, self.view.offset)

    def body(self) -> None:
        fn, total = self.fn, self.gates * self.h
        leak = self.kind.leak
        carried = fn.alloca(self.scalar, self.rows * self.h) if leak else ""
        zero = float_literal(0.0, self.scalar)
        self.sums = fn.alloca(self.scalar, total) if len(self.items) > 1 else ""
        if self.sums:
            with fn.loop(0, total, metadata="!SHORT") as j:
                expr.store_value(fn, self.dtype, zero, self.sums, j, _ACCESS)
        if leak:
            with self.elements([], 0, self.h) as (i, j):
                expr.store_value(fn, self.dtype, zero, carried, self.element(carried, i, 0, j),
                                 _ACCESS)
        with fn.loop(0, self.count, hint="t") as k:
            t = k if self.reverse else fn.val(f"sub i64 {self.count - 1}, {k}")
            row = fn.add(fn.mul(t, self.n), self.start)
            own = row if self.reverse else fn.add(row, self.n)
            # nothing reaches the last step from one after it
            begun = fn.val(f"icmp sgt i64 {k}, 0")
            kc = fn.val(f"select i1 {begun}, i64 {total}, i64 0")
            away = -self.n * total if self.reverse else self.n * total
            later = fn.add(fn.mul(row, total), fn.val(f"select i1 {begun}, i64 {away}, i64 0"))
            a = self.pointer(self.number, later)

            def work(panel: Any, unit: Any, count: int) -> None:
                self.multiply(a, total, panel, kc)
                with self.elements([(self.row, row), (self.block, own)], unit, count) as (i, j):
                    place = self.element(carried, i, unit, j) if leak else 0
                    self.point(self.summed(i, j), carried, place)

            self.panels(work)
        self.store_sums(total)
        if not any(self.reads(s, True) for s in range(self.kind.states)):
            return
        end = self.n * self.count if self.reverse else 0
        last = self.n * (self.count - 1) if self.reverse else 0
        a = self.pointer(self.number, fn.mul(fn.add(self.start, last), total))

        def start(panel: Any, unit: Any, count: int) -> None:
            self.multiply(a, total, panel, total)
            with self.elements([(self.block, fn.add(self.start, end))], unit, count) as (i, j):
                place = self.element(carried, i, unit, j) if leak else 0
                for s, value in enumerate(self.reached(self.summed(i, j), carried, place)):
                    self.put(s, value)

        self.panels(start)

    def store_sums(self, total: int) -> None:
        """The sum of the tile's rows of what is a gradient of each gate."""
        if not self.sums:
            return
        fn, em = self.fn, self.em
        tile, column = loop_var("tile", self.tiles, 5), loop_var("column", total, 6)
        with fn.loop(0, total, metadata="!SHORT") as j:
            em.open()
            for variable, value in ((tile, "%tile"), (column, j)):
                if variable.terms:
                    em.names[variable.terms[0][0]] = value
            value = expr.load_value(fn, self.dtype, self.sums, j, _ACCESS)
            self.writer.put(self.items[1], (tile, column), value)
            em.close()

    def reads(self, state: int, first: bool) -> bool:
        """Whether somebody reads the adjoints of a state before the first step, or after steps.
        """
        if self.read is None:
            return True
        rows = self.n * self.count
        start = (rows * self.gates + state * (rows + self.n)) * self.h
        head, size = (rows, self.n) if self.reverse else (0, self.n)
        if not first:
            head, size = (0, rows) if self.reverse else (self.n, rows)
        start += head * self.h
        return any(a < start + size * self.h and b > start for a, b in self.read)

    def put(self, state: int, value: Any) -> None:
        """The adjoint of a state."""
        rows = self.n * self.count
        at = self.block * self.h + self.unit + (
            rows * self.gates * self.h + state * (rows + self.n) * self.h)
        self.writer.put(self.number, (at,), value)

    def reached(self, product: Any, carried: str, place: Any) -> list[Any]:
        """What the states after a step have to do with: what is given, and what comes back."""
        fn, given = self.fn, len(self.step.inputs) - 1
        out = [self.op("add", self.value(given, const(s), self.block, self.unit), p)
               for s, p in zip(range(self.kind.states), (product, None)) if p is not None]
        if self.kind.leak:
            kept = expr.load_value(fn, self.dtype, carried, place, _ACCESS)
            if self.cell == "lstm":
                out.append(self.op("add", self.value(given, const(1), self.block, self.unit),
                                   kept))
            else:
                out[0] = self.op("add", out[0], kept)
        return out

    def point(self, product: Any, carried: str, place: Any) -> None:
        op, fn = self.op, self.fn

        def at(k: int) -> Any:
            return self.value(k, self.row, self.unit)

        found = self.reached(product, carried, place)
        if self.cell == "lstm":
            found[1] = op("add", found[1], op("mul", at(5), found[0]))
            each = [found[1]] * 3 + [found[0]]
            kept = op("mul", at(4), found[1])
        else:
            each = [found[0]] * self.gates
            kept = op("mul", at(self.gates), found[0]) if self.kind.leak else None
        parts = [op("mul", at(g), x) for g, x in enumerate(each)]
        for g, part in enumerate(parts):
            where = self.row * (self.gates * self.h) + self.unit + g * self.h
            self.writer.put(self.number, (where,), part)
            if self.sums:
                column = fn.add(g * self.h, self.column)
                before = expr.load_value(fn, self.dtype, self.sums, column, _ACCESS)
                expr.store_value(fn, self.dtype, op("add", before, part), self.sums, column,
                                 _ACCESS)
        for s, value in enumerate(found):
            if self.reads(s, False):
                self.put(s, value)
        if kept is not None:
            expr.store_value(fn, self.dtype, kept, carried, place, _ACCESS)
