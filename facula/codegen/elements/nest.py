"""What the loops over rows and those over lanes share: the body of a group at one point, what that
touches in memory, and the bounds of loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import prod
from typing import Any

from facula.codegen.elements import expr
from facula.codegen.elements.reductions import Accumulator
from facula.codegen.elements.writer import KernelWriter
from facula.codegen.kernel import Storage
from facula.codegen.llvm import Fn
from facula.dtype import DType
from facula.graph.spec import Step
from facula.groups.group import Group, Item, item_index, item_start, spread
from facula.groups.index import Index, Var, const, flatten, variables
from facula.groups.kinds import REDUCE, SCAN
from facula.groups.reads import accesses

__all__ = ["FEW_LANES", "SHORT", "WRITTEN_OUT", "Nest", "affine", "bounds", "column_loops",
           "local_array", "looked_up", "offsets", "picks", "rows_per_tile", "written_out"]

FAR, AHEAD = 1024, 8
"""So many bytes apart, columns are asked for so many of them before they are read."""

WRITTEN_OUT = 32
"""So many columns, or fewer, are unrolled."""

FEW_LANES = 8
"""So many lanes, or fewer, are unrolled: they would not fill a vector."""

SHORT = 16
"""A loop of fewer rounds is one that LLVM turns into vectors under a mask, or not at all."""


class Nest:
    """The bodies of one group at one place of the loop nest."""

    def __init__(self, writer: KernelWriter, steps: Sequence[Step], group: Group,
                 storage: Callable[[int], Storage | None], rows: list[Index],
                 columns: list[Index]):
        self.writer, self.steps, self.group = writer, steps, group
        self.storage, self.rows, self.columns = storage, rows, columns
        self.accumulators: dict[int, Accumulator] = {}
        self.stages = sorted({(i.stage, i.role) for i in group.items})

    def items(self, stage: int, role: str) -> list[Item]:
        return sorted((i for i in self.group.items if i.stage == stage and i.role == role),
                      key=lambda i: i.step)

    def body(self, stage: int, role: str, here: str | int) -> None:
        """One point: compute every item first, then store, so that in-place reads come first.

        `here` is the element of the local arrays that belongs to this row.
        """
        em, writer = self.writer.emitter, self.writer
        done: list[tuple[Item, tuple[Index, ...], Any]] = []
        for item in self.items(stage, role):
            index = item_index(self.steps, self.group, item, self.rows, self.columns)
            step = self.steps[item.step]
            if item.step in self.accumulators:
                start = item_start(self.steps, self.group, item, self.rows, self.columns)
                values = [em.value(*place) for place in start]
                axis = self.columns[0] if self.columns else const(0)
                value = self.accumulators[item.step].update(values, here, em.index(axis))
                if step.op in SCAN:
                    done.append((item, index, value))
            else:
                value = em.recall((item.step, index))
                if value is None:
                    value = em.compute(item.step, index)
                em.remember((item.step, index), value)
                done.append((item, index, value))
        for item, index, value in done:
            local = writer.local.get(item.step)
            if local is not None:
                expr.store_value(writer.fn, self.steps[item.step].spec.dtype, value, local[0],
                                 em.index(flatten(index, local[1])), local[2])
            if self.storage(item.step) is not None:
                writer.put(item.step, index, value)

    def ask(self, stage: int, lane: Index, low: str | int, high: str | int) -> None:
        """Ask for the lanes from `low` to `high` of what a later column reads, where columns lie
        far apart: those are pages apart, where no hardware looks ahead."""
        if not (lane.terms and self.columns and self.columns[-1].terms):
            return
        em, fn, writer = self.writer.emitter, self.writer.fn, self.writer
        var, column = lane.terms[0][0], self.columns[-1].terms[0][0]
        read: dict[tuple[int, Index], int] = {}
        for item in self.items(stage, "all"):
            start = item_start(self.steps, self.group, item, self.rows, self.columns)
            for number, index in accesses(self.steps, start, lambda n: self.storage(n) is not None
                                          or self.group.find(n) is not None):
                place = self.storage(number)
                if place is None or number in writer.local:
                    continue
                at, size = flatten(index, place.strides), self.steps[number].spec.dtype.itemsize
                if affine(at, var) and affine(at, column) and at.coefficient(var) == 1 \
                        and at.coefficient(column) * size >= FAR:
                    read[place.slot, at] = number
        f = fn.module.declare("void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        for (slot, at), number in read.items():
            dtype = self.steps[number].spec.dtype
            kind = expr.memory_type(dtype)
            with fn.loop(low, high, 64 // dtype.itemsize, "ask", fn.module.untouched()) as l:
                em.open()
                em.names[var] = l
                there = fn.add(em.index(at), AHEAD * at.coefficient(column))
                soon = fn.val(f"getelementptr {kind}, ptr {writer.pointer(slot)}, i64 {there}")
                fn.do(f"call void {f}(ptr {soon}, i32 0, i32 3, i32 1)")
                em.close()

    def close_reductions(self, stage: int, here: str | int) -> None:
        """Turn the accumulators of a finished stage into values of the row."""
        em, writer = self.writer.emitter, self.writer
        for item in self.items(stage, "all"):
            step = self.steps[item.step]
            if step.op not in REDUCE and step.op != "matmul":
                continue
            value = self.accumulators[item.step].result(here)
            index = spread(step.spec.shape, self.rows)
            pointer, strides, tags = writer.local[item.step]
            expr.store_value(writer.fn, step.spec.dtype, value, pointer,
                             em.index(flatten(index, strides)), tags)
            if self.storage(item.step) is not None:
                writer.put(item.step, index, value)

    def accumulating(self, stage: int) -> list[Item]:
        return [i for i in self.items(stage, "all")
                if self.steps[i.step].op in REDUCE | SCAN | {"matmul"}]


def affine(index: Index, var: Var) -> bool:
    """Whether the variable occurs only with a plain coefficient."""
    return all(v.kind == "loop" or var not in variables(Index(((v, 1),), 0))
               for v, _ in index.terms)


def looked_up(index: Index, var: Var) -> bool:
    """Whether the variable occurs only in what is looked up, one element apart from the next."""
    return not index.coefficient(var) and all(
        c == 1 and v.kind == "load" for v, c in index.terms
        if v.kind != "loop" and var in variables(Index(((v, 1),), 0)))


def offsets(steps: Sequence[Step], group: Group, storage: Callable[[int], Storage | None],
             rows: Sequence[Index], columns: Sequence[Index],
             roles: Sequence[str] = ("rows", "all")) -> list[Index]:
    """The position in memory of everything that one point of the group reads or writes, for its
    items of these roles."""
    def in_memory(n: int) -> bool:
        return group.find(n) is not None or storage(n) is not None

    found = []
    for item in group.items:
        if item.role not in roles:
            continue
        start = item_start(steps, group, item, rows, columns)
        for number, index in accesses(steps, start, in_memory):
            place = storage(number)
            if place is not None and index:
                found.append(flatten(index, place.strides))
        place = storage(item.step)
        if place is not None and (item.role == "rows" or steps[item.step].op not in REDUCE):
            if steps[item.step].op != "matmul":
                found.append(flatten(item_index(steps, group, item, rows, columns),
                                     place.strides))
    return found


def picks(var: Index, touched: Sequence[Index]) -> bool:
    """Whether a loop passes over memory in steps of a few elements."""
    return any(2 <= abs(at.coefficient(v)) <= 8 for v, _ in var.terms for at in touched)


def local_array(writer: KernelWriter, dtype: DType, count: int) -> str:
    return writer.fn.alloca(expr.memory_type(dtype), count * (2 if dtype.kind == "c" else 1))


def rows_per_tile(rows: int, ns: float) -> int:
    """Rows that make a tile of some 10 microseconds: enough to be worth handing out."""
    return max(1, min(rows, int(10_000 / max(ns, 0.01))))


def column_loops(stack: ExitStack, writer: KernelWriter, sizes: Sequence[int],
                  columns: list[Index], depth: int, metadata: str) -> None:
    """Open the loops over the columns; the innermost may carry metadata.

    Few columns are written out, so that the loop around them is the one that becomes vectors.
    """
    few = prod(sizes) <= WRITTEN_OUT
    for k, (n, column) in enumerate(zip(sizes, columns, strict=True)):
        if not column.terms:
            if n == 0:
                raise ValueError("a column of no elements has no loop")
            continue
        name = stack.enter_context(writer.fn.loop(
            0, n, hint="c", metadata=written_out(writer.fn) if few
            else metadata if k == depth - 1 else ""))
        writer.emitter.names[column.terms[0][0]] = name


def written_out(fn: Fn) -> str:
    """Metadata of a loop that LLVM is to unroll completely; it unrolls no other."""
    full = fn.module.metadata('!{!"llvm.loop.unroll.full"}')
    return fn.module.metadata(f"!{{!SELF, {full}}}", distinct=True)


def bounds(writer: KernelWriter, tile: str | int, chunk: int, count: int, ntiles: int,
           long: bool = True) -> tuple[str | int, str | int]:
    """The bounds of a tile of `chunk` out of `count`.

    Of one that is `long` LLVM gains nothing by knowing how long it is.  So the numbers are told,
    and an initialisation or an update is one piece of code for parameters of all sizes.
    """
    fn = writer.fn
    if ntiles == 1:
        return 0, count
    if long:
        each, end = writer.told(chunk), writer.told(count)
        low: str | int = fn.val(f"mul nsw i64 {tile}, {each}", "i")
        high: str | int = fn.val(f"add nsw i64 {low}, {each}", "i")
        fewer = fn.val(f"icmp slt i64 {high}, {end}")
        return low, fn.val(f"select i1 {fewer}, i64 {high}, i64 {end}")
    low = fn.mul(tile, chunk)
    high = fn.add(low, chunk)
    if count % chunk:
        fewer = fn.val(f"icmp slt i64 {high}, {count}")
        high = fn.val(f"select i1 {fewer}, i64 {high}, i64 {count}")
    return low, high
