"""Loop kernels: the roots of one fused group as loop nests in LLVM text.

Two shapes of nest cover everything.  *Rows*: for each row, loops over the columns, the last of
which is turned into vectors (softmax over the last axis).  *Lanes*: for each column, a loop over a
block of neighbouring rows, which is turned into vectors while the row's accumulators sit in a small
array (bias gradients, softmax over channels, and everything elementwise, without columns).

Tiles split the row space by its size only, and a row's values are always combined in the same
order, so results do not depend on how many threads run the tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from math import prod
from typing import Any

from facula.codegen import expr
from facula.codegen.llvm import Fn, Module
from facula.codegen.lower import Emitter, accesses
from facula.codegen.reductions import Accumulator
from facula.codegen.target import target
from facula.dtype import DType
from facula.graph.spec import Step
from facula.runtime.plan import STATUS_SLOT
from facula.schedule.fuse import (
    REDUCE,
    SCAN,
    Group,
    Item,
    item_index,
    item_start,
    op_cost,
    spread,
)
from facula.schedule.index import Index, Var, const, flatten, loop_var, unflatten

__all__ = ["Kernel", "KernelWriter", "Storage", "emit_group", "named"]

ATTRS = '"prefer-vector-width"="512" "no-trapping-math"="true" nounwind'


@dataclass(frozen=True)
class Storage:
    """Where a value lies: a slot of the program, and strides in elements."""

    slot: int
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Kernel:
    """What the runtime needs of one kernel, and what it is estimated to cost."""

    name: str
    text: str
    slots: tuple[int, ...]
    ntiles: int
    cost: float


class KernelWriter:
    """One kernel function being written: operands, alias information and the final text."""

    def __init__(self, steps: Sequence[Step], storage: Callable[[int], Storage | None],
                 fn: Fn | None = None, first: int = 0):
        self.steps = steps
        self.storage = storage
        self.fn = fn or Fn(Module(), "KERNEL", [("ptr", "args"), ("ptr", "map"), ("i64", "tile")],
                           attrs=ATTRS)
        self.module = self.fn.module
        self.width = 1                  # elements in the vectors of a loop that picks them
        self.first = first              # operands that the kernel has before those written here
        self.slots: list[int] = []
        self.pointers: dict[int, str] = {}
        self.cells: dict[int, str] = {}
        self.local: dict[int, tuple[str, tuple[int, ...], str]] = {}
        self.emitter = Emitter(self.fn, steps, self.position, self.scalar,
                               lambda: self.pointer(STATUS_SLOT))

    def operand(self, slot: int) -> int:
        if slot not in self.slots:
            self.slots.append(slot)
        return self.first + self.slots.index(slot)

    def cell(self, slot: int) -> str:
        """The address of a slot itself, for scalars (taken once, in the entry block)."""
        if slot not in self.cells:
            j = self.operand(slot)
            self.fn._entry.append(
                f"  %map{j} = getelementptr inbounds i64, ptr %map, i64 {j}\n"
                f"  %slot{j} = load i64, ptr %map{j}, !invariant.load !EMPTY\n"
                f"  %cell{j} = getelementptr inbounds i64, ptr %args, i64 %slot{j}")
            self.cells[slot] = f"%cell{j}"
        return self.cells[slot]

    def pointer(self, slot: int) -> str:
        """The pointer that a slot holds."""
        if slot not in self.pointers:
            j = self.operand(slot)
            self.fn._entry.append(
                f"  %base{j} = load ptr, ptr {self.cell(slot)}, !invariant.load !EMPTY")
            self.pointers[slot] = f"%base{j}"
        return self.pointers[slot]

    def tags(self, slot: int) -> str:
        """Metadata that sets accesses to this slot apart from those to all others."""
        j = self.operand(slot)
        return f", !alias.scope !SCOPE{j}!, !noalias !OTHERS{j}!, !llvm.access.group !ACCESS"

    def position(self, number: int) -> tuple[str, tuple[int, ...], str] | None:
        local = self.local.get(number)
        if local is not None:
            return local
        place = self.storage(number)
        if place is None:
            return None
        return self.pointer(place.slot), place.strides, self.tags(place.slot)

    def scalar(self, number: int, part: int) -> str:
        place = self.storage(number)
        assert place is not None
        cell = self.cell(place.slot)
        return cell if not part else self.fn.gep("i64", cell, part)

    def put(self, number: int, index: Sequence[Index], value: Any) -> None:
        """Store an element of a step at its place in memory."""
        place = self.storage(number)
        assert place is not None
        at = self.emitter.index(flatten(index, place.strides))
        expr.store_value(self.fn, self.steps[number].spec.dtype, value,
                         self.pointer(place.slot), at, self.tags(place.slot))

    def loop_metadata(self) -> str:
        """Metadata of an innermost loop: its rounds touch memory independently."""
        return "!LOOP"

    def masked(self, itemsize: int) -> str:
        """The same of one whose vectors, of so large elements, are picked under a mask."""
        self.module.strided = True
        self.width = target().lanes(itemsize)
        return "!PICKING"

    def finish(self, ntiles: int, cost: float) -> Kernel:
        """Resolve the metadata, name the kernel by its content, and wrap it up."""
        self.fn.finish()
        self.resolve()
        name, text = named(self.module)
        return Kernel(name, text, tuple(self.slots), ntiles, cost)

    def resolve(self) -> None:
        """Put metadata nodes in place of the names that the body of the kernel refers to."""
        body = self.module.functions["KERNEL"]
        module = self.module
        empty = module.metadata("!{}")
        domain = module.metadata('!{!SELF, !"operands"}', distinct=True)
        scopes = [module.metadata(f"!{{!SELF, {domain}}}", distinct=True) for _ in self.slots]
        for j, scope in enumerate(scopes, self.first):
            others = module.metadata("!{" + ", ".join(s for s in scopes if s != scope) + "}")
            body = body.replace(f"!SCOPE{j}!", module.metadata(f"!{{{scope}}}"))
            body = body.replace(f"!OTHERS{j}!", others)
        group = module.metadata("!{}", distinct=True)
        parallel = module.metadata(f'!{{!"llvm.loop.parallel_accesses", {group}}}')
        whole = module.metadata('!{!"llvm.loop.unroll.disable"}')
        width = module.metadata(f'!{{!"llvm.loop.vectorize.width", i32 {self.width}}}')
        for name, more in (("!SHORT", f", {whole}"), ("!LOOP", ""), ("!PICKING", f", {width}")):
            parts = body.split(name)
            body = parts[0]
            for part in parts[1:]:
                body += module.metadata(f"!{{!SELF, {parallel}{more}}}", distinct=True) + part
        module.functions["KERNEL"] = body.replace("!EMPTY", empty).replace("!ACCESS", group)


def named(module: Module) -> tuple[str, str]:
    """A kernel's name, made of its content, and the module's text with that name in it."""
    text = module.text()
    name = "k" + blake2b(text.encode(), digest_size=10).hexdigest()
    return name, text.replace("@KERNEL", f"@{name}")


def _is_affine(index: Index, var: Var) -> bool:
    """Whether the variable occurs only with a plain coefficient."""
    from facula.schedule.index import variables
    return all(v.kind == "loop" or var not in variables(Index(((v, 1),), 0))
               for v, _ in index.terms)


def _offsets(steps: Sequence[Step], group: Group, storage: Callable[[int], Storage | None],
             rows: Sequence[Index], columns: Sequence[Index]) -> list[Index]:
    """The position in memory of everything that one point of the group reads or writes."""
    def in_memory(n: int) -> bool:
        return group.find(n) is not None or storage(n) is not None

    found = []
    for item in group.items:
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


def emit_group(steps: Sequence[Step], group: Group, storage: Callable[[int], Storage | None],
               scalars: Callable[[int], Storage | None]) -> Kernel:
    """The kernel of a 'loops' (or 'contract') group.

    `storage(step)` is where a value lies in memory, or None for one that has no memory.
    """
    writer = KernelWriter(steps, lambda n: storage(n) or scalars(n))

    def position(number: int) -> tuple[str, tuple[int, ...], str] | None:
        if number not in writer.local and storage(number) is None:
            return None
        return KernelWriter.position(writer, number)

    writer.emitter.position = position
    cost = point_cost(steps, group, storage)
    if _wants_lanes(steps, group, storage):
        return _emit_lanes(writer, steps, group, storage, cost)
    return _emit_rows(writer, steps, group, storage, cost)


def point_cost(steps: Sequence[Step], group: Group,
               storage: Callable[[int], Storage | None]) -> float:
    """Nanoseconds of one point of the row space, roughly."""
    total = 0.0
    width = prod(group.columns)
    for item in group.items:
        seen: set[int] = set()
        stack = [item.step]
        own = 0
        while stack:
            n = stack.pop()
            if n in seen:
                continue
            seen.add(n)
            if n != item.step and (storage(n) is not None or group.find(n)):
                own += 1
                continue
            own += op_cost(steps[n])
            stack.extend(steps[n].inputs)
        total += own * (width if item.role == "all" else 1)
    return 0.05 * total + 0.05


def _wants_lanes(steps: Sequence[Step], group: Group,
                 storage: Callable[[int], Storage | None]) -> bool:
    if not group.columns:
        return True
    if not group.rows:
        return False
    rows, columns = group.row_vars(), group.column_vars()

    def awkward(index: Index) -> int:
        """How many accesses would not be contiguous (or equal) along this loop."""
        if not index.terms:
            return 1 << 20
        var = index.terms[0][0]
        return sum(1 for at in _offsets(steps, group, storage, rows, columns)
                   if not _is_affine(at, var) or abs(at.coefficient(var)) > 1)

    return awkward(rows[-1]) < awkward(columns[-1])


def _collapse(steps: Sequence[Step], group: Group, storage: Callable[[int], Storage | None],
              columns: Sequence[Index] = ()) -> tuple[int, int, list[Index]]:
    """Join as many trailing rows as memory allows into one long loop: (outer, inner, indices)."""
    rows = group.rows
    for keep in range(0, max(len(rows), 1)):
        inner = prod(rows[keep:])
        outer = prod(rows[:keep])
        lane = loop_var("l", inner, 1)
        index = [*unflatten(loop_var("p", outer, 0), rows[:keep]),
                 *unflatten(lane, rows[keep:])]
        if not lane.terms or keep >= len(rows) - 1:
            return outer, inner, index
        var = lane.terms[0][0]
        if all(_is_affine(at, var) for at in _offsets(steps, group, storage, index, columns)):
            return outer, inner, index
    return 1, 1, []


class _Nest:
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


WRITTEN_OUT = 32
"""So many columns, or fewer, are unrolled."""


FEW_LANES = 8
"""The same of lanes: they would not fill a vector."""

SHORT = 16
"""A loop of fewer rounds is one that LLVM turns into vectors under a mask, or not at all."""


def _picks(var: Index, offsets: Sequence[Index]) -> bool:
    """Whether a loop passes over memory in steps of a few elements."""
    return any(2 <= abs(at.coefficient(v)) <= 8 for v, _ in var.terms for at in offsets)


def _local_array(writer: KernelWriter, dtype: DType, count: int) -> str:
    return writer.fn.alloca(expr.memory_type(dtype), count * (2 if dtype.kind == "c" else 1))


def _rows_per_tile(rows: int, ns: float) -> int:
    """Rows that make a tile of some 10 microseconds: enough to be worth handing out."""
    return max(1, min(rows, int(10_000 / max(ns, 0.01))))


def _emit_rows(writer: KernelWriter, steps: Sequence[Step], group: Group,
               storage: Callable[[int], Storage | None], cost: float) -> Kernel:
    fn, em = writer.fn, writer.emitter
    count = prod(group.rows)
    chunk = _rows_per_tile(count, cost)
    ntiles = -(-count // chunk)
    row = loop_var("p", count, 0)
    rows = list(unflatten(row, group.rows))
    sizes, lines, columns = _joined_columns(steps, group, storage, rows)
    nest = _Nest(writer, steps, group, storage, rows, columns)
    for item in group.items:
        step = steps[item.step]
        if item.role == "rows" or step.op in REDUCE or step.op == "matmul":
            array = _local_array(writer, step.spec.dtype, 1)
            writer.local[item.step] = (array, (0,) * len(step.spec.shape), "")
        if item.role == "all" and step.op in REDUCE | SCAN | {"matmul"}:
            nest.accumulators[item.step] = Accumulator(fn, steps, item.step, 1)
        elif item.role == "all" and storage(item.step) is None and _kept(steps, group, item):
            array = _local_array(writer, step.spec.dtype, prod(group.columns))
            writer.local[item.step] = (array, _across(steps, group, item),
                                       ", !llvm.access.group !ACCESS")
    low, high = _range(fn, "%tile", chunk, count, ntiles)
    with fn.loop(low, high, hint="p") as p:
        em.open()
        if row.terms:
            em.names[row.terms[0][0]] = p
        for stage, role in nest.stages:
            if role == "rows":
                nest.body(stage, role, 0)
                continue
            for item in nest.accumulating(stage):
                nest.accumulators[item.step].start(0)
            with ExitStack() as loops:
                # a short loop would be unrolled before it could be turned into vectors
                _column_loops(loops, writer, sizes, lines, len(lines),
                              "!SHORT" if sizes and 8 <= sizes[-1] <= 64 else "!LOOP")
                em.open()
                nest.body(stage, role, 0)
                em.close()
            nest.close_reductions(stage, 0)
        em.close()
    return writer.finish(ntiles, cost * count)


KEPT_BYTES = 16384
"""A row of this size or less is kept for a later walk over it, rather than computed again."""


def _kept(steps: Sequence[Step], group: Group, item: Item) -> bool:
    """Whether a value of each column, which has no memory, is kept until the row is done: a later
    stage reads it, and to compute it again costs more than to load it."""
    size = prod(group.columns) * steps[item.step].spec.dtype.itemsize
    later = {i.step for i in group.items if i.stage > item.stage}
    if not later or size > KEPT_BYTES:
        return False
    homes = {i.step for i in group.items}
    stack, seen = [j for n in later for j in steps[n].inputs], set()
    while stack:
        n = stack.pop()
        if n == item.step:
            return True
        if n not in seen and n not in homes:
            seen.add(n)
            stack.extend(steps[n].inputs)
    return False


def _across(steps: Sequence[Step], group: Group, item: Item) -> tuple[int, ...]:
    """Strides of an array of one row: 0 along the rows, row-major along the columns."""
    step, strides = 1, [0] * len(group.full)
    for d in reversed(range(len(group.full))):
        if d in group.axes:
            strides[d] = step
            step *= group.full[d]
    left = iter(strides)
    return tuple([0 if n == 1 else next(left) for n in steps[item.step].spec.shape])


def _joined_columns(steps: Sequence[Step], group: Group,
                    storage: Callable[[int], Storage | None], rows: list[Index]
                    ) -> tuple[tuple[int, ...], list[Index], list[Index]]:
    """As many trailing columns as memory allows made one long loop.

    Returns the sizes and variables of the loops, and the indices of the columns in them.
    """
    columns = group.column_vars()
    for keep in range(len(columns) - 1):
        rest = group.columns[keep:]
        line = loop_var("c", prod(rest), 20 + keep)
        index = [*columns[:keep], *unflatten(line, rest)]
        if line.terms and all(_is_affine(at, line.terms[0][0]) for at in
                              _offsets(steps, group, storage, rows, index)):
            return (*group.columns[:keep], prod(rest)), [*columns[:keep], line], index
    return group.columns, columns, columns


def _column_loops(stack: ExitStack, writer: KernelWriter, sizes: Sequence[int],
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
            0, n, hint="c", metadata=_written_out(writer.fn) if few
            else metadata if k == depth - 1 else ""))
        writer.emitter.names[column.terms[0][0]] = name


def _written_out(fn: Fn) -> str:
    """Metadata of a loop that LLVM is to unroll completely; it unrolls no other."""
    full = fn.module.metadata('!{!"llvm.loop.unroll.full"}')
    return fn.module.metadata(f"!{{!SELF, {full}}}", distinct=True)


def _range(fn: Fn, tile: str | int, chunk: int, count: int, ntiles: int
           ) -> tuple[str | int, str | int]:
    """The bounds of a tile of `chunk` out of `count`."""
    if ntiles == 1:
        return 0, count
    low = fn.mul(tile, chunk)
    high = fn.add(low, chunk)
    if count % chunk:
        fewer = fn.val(f"icmp slt i64 {high}, {count}")
        high = fn.val(f"select i1 {fewer}, i64 {high}, i64 {count}")
    return low, high


def _emit_lanes(writer: KernelWriter, steps: Sequence[Step], group: Group,
                storage: Callable[[int], Storage | None], cost: float) -> Kernel:
    fn, em = writer.fn, writer.emitter
    columns = group.column_vars()
    simple = not any(i.role == "all" for i in group.items)
    if simple:
        outer, inner, rows = _collapse(steps, group, storage)
        width = min(inner, max(1024, min(32768, int(10_000 / cost))))
    else:
        outer, inner = prod(group.rows[:-1]), group.rows[-1] if group.rows else 1
        rows = [*unflatten(loop_var("p", outer, 0), group.rows[:-1]),
                *([loop_var("l", inner, 1)] if group.rows else [])]
        width = min(inner, 256)
        if inner < 64 and len(group.rows) > 1:      # too few to fill vectors
            outer, inner, rows = _collapse(steps, group, storage, columns)
            width = min(inner, 1024)
    blocks = -(-inner // width)
    chunk = _rows_per_tile(outer, cost * width)
    ntiles = -(-outer // chunk) * blocks
    nest = _Nest(writer, steps, group, storage, rows, columns)
    tile_p: str | int = "%tile"
    tile_l: str | int = 0
    if blocks > 1:
        tile_p = fn.val(f"udiv i64 %tile, {blocks}") if outer > chunk else 0
        tile_l = fn.val(f"urem i64 %tile, {blocks}") if outer > chunk else "%tile"
    first, last = _range(fn, tile_p, chunk, outer, -(-outer // chunk))
    low, high = _range(fn, tile_l, width, inner, blocks)
    if not simple:
        _lane_arrays(writer, nest, steps, group, width, low, inner)
    lane, outer_row = loop_var("l", inner, 1), loop_var("p", outer, 0)
    with fn.loop(first, last, hint="p") as p:
        em.open()
        if outer_row.terms:
            em.names[outer_row.terms[0][0]] = p

        kind = _written_out(fn) if blocks == 1 and inner <= FEW_LANES else "!LOOP"
        if blocks == 1 and FEW_LANES < inner < SHORT and _picks(
                lane, _offsets(steps, group, storage, rows, columns)):
            kind = writer.masked(max(steps[i.step].spec.dtype.itemsize for i in group.items))

        def lanes(work: Callable[[str | int], None]) -> None:
            with fn.loop(low, high, hint="l", metadata=kind) as l:
                em.open()
                if lane.terms:
                    em.names[lane.terms[0][0]] = l
                work(l)
                em.close()

        for stage, role in nest.stages:
            if role == "rows":
                lanes(lambda l, s=stage: nest.body(s, "rows", l))     # type: ignore[misc]
                continue
            accumulating = nest.accumulating(stage)
            if accumulating:
                def start(l: str | int, items: Any = accumulating) -> None:
                    for item in items:
                        nest.accumulators[item.step].start(l)
                lanes(start)
            with ExitStack() as loops:
                _column_loops(loops, writer, group.columns, columns, 0, "")
                em.open()
                lanes(lambda l, s=stage: nest.body(s, "all", l))      # type: ignore[misc]
                em.close()
            if accumulating:
                lanes(lambda l, s=stage: nest.close_reductions(s, l))  # type: ignore[misc]
        em.close()
    return writer.finish(ntiles, cost * outer * inner)


def _lane_arrays(writer: KernelWriter, nest: _Nest, steps: Sequence[Step], group: Group,
                 width: int, low: str | int, inner: int) -> None:
    """Arrays for what each row of a block keeps, addressed by the row's own number, which runs
    over the trailing dimensions that make up `inner`."""
    fn = writer.fn

    def based(array: str, type_: str) -> str:
        back = low * -1 if isinstance(low, int) else fn.val(f"sub i64 0, {low}")
        return array if back == 0 else fn.val(f"getelementptr {type_}, ptr {array}, i64 {back}")

    for item in group.items:
        step = steps[item.step]
        if item.role == "rows" or step.op in REDUCE or step.op == "matmul":
            dtype = step.spec.dtype
            type_ = expr.memory_type(dtype)
            array = based(_local_array(writer, dtype, width),
                          f"[2 x {type_}]" if dtype.kind == "c" else type_)
            strides, each = [0] * len(step.spec.shape), 1
            for d in range(len(strides) - 1, -1, -1):
                if step.spec.shape[d] != 1 and each < inner:
                    strides[d] = each
                    each *= step.spec.shape[d]
            writer.local[item.step] = (array, tuple(strides), ", !llvm.access.group !ACCESS")
        if item.role == "all" and step.op in REDUCE | SCAN | {"matmul"}:
            nest.accumulators[item.step] = Accumulator(fn, steps, item.step, width, based,
                                                       ", !llvm.access.group !ACCESS")
