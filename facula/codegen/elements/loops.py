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
from math import gcd, prod
from typing import Any

from facula.codegen.elements import expr
from facula.codegen.elements.nest import (
    FEW_LANES,
    SHORT,
    WRITTEN_OUT,
    Nest,
    affine,
    bounds,
    column_loops,
    local_array,
    looked_up,
    offsets,
    picks,
    rows_per_tile,
    written_out,
)
from facula.codegen.elements.reductions import Accumulator
from facula.codegen.elements.stretches import emit_stretches
from facula.codegen.elements.writer import KernelWriter
from facula.codegen.kernel import KernelText, Storage
from facula.graph.spec import Step
from facula.groups.group import Group, Item, squeeze
from facula.groups.index import Index, loop_var, row_major, unflatten, variables
from facula.groups.kinds import REDUCE, SCAN, op_cost

__all__ = ["emit_group", "point_cost"]

MOST_LANES = 256
"""A tile of rows with columns keeps its sums of so many lanes in the first cache."""

ACROSS = (16, 64)
"""So many lines of memory are read across, an element of each, at least and at most: they are to
be in the first cache still when their next elements are read, in the next row."""

SAME_SET, WAYS = 4096, 8
"""Bytes after which addresses share a place in the first cache, and how many lines fit there."""


def emit_group(steps: Sequence[Step], group: Group, storage: Callable[[int], Storage | None],
               scalars: Callable[[int], Storage | None]) -> KernelText:
    """The kernel of a 'loops' (or 'contract') group.

    `storage(step)` is where a value lies in memory, or None for one that has no memory.
    """
    steps, group, storage = _before_reshape(steps, group, storage)
    writer = KernelWriter(steps, lambda n: storage(n) or scalars(n))

    def position(number: int) -> tuple[str, tuple[int, ...], str] | None:
        if number not in writer.local and storage(number) is None:
            return None
        return KernelWriter.position(writer, number)

    writer.emitter.position = position
    writer.emitter.told = writer.told
    cost = point_cost(steps, group, storage)
    made = emit_stretches(writer, steps, group, storage, cost)
    if made is not None:
        return made
    if _wants_lanes(steps, group, storage):
        return _emit_lanes(writer, steps, group, storage, cost)
    return _emit_rows(writer, steps, group, storage, cost)


def _before_reshape(steps: Sequence[Step], group: Group,
                    storage: Callable[[int], Storage | None]
                    ) -> tuple[Sequence[Step], Group, Callable[[int], Storage | None]]:
    """A group that only reshapes, as one that copies: the loops are over the dimensions before,
    where its elements are found without division."""
    number = group.items[0].step
    step, place = steps[number], storage(number)
    if len(group.items) > 1 or step.op != "reshape" or group.kind != "loops" or place is None or \
            place.strides != row_major(step.spec.shape):
        return steps, group, storage
    inner = steps[step.inputs[0]].spec
    steps = list(steps)
    steps[number] = Step("alias", (), step.inputs, inner, 0, step.where)
    there = Storage(place.slot, row_major(inner.shape))
    alone = Group(group.number, group.kind, squeeze(inner.shape), (), [Item(number, "rows")])
    return steps, alone, lambda n: there if n == number else storage(n)


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

    def awkward(index: Index) -> float:
        """How many accesses would not be contiguous (or equal) along this loop; elements that are
        looked up are more likely to be side by side than those of another row."""
        if not index.terms:
            return 1 << 20
        # what is touched once a row is no matter
        var = index.terms[0][0]
        return sum(0.75 if looked_up(at, var) else 1.0
                   for at in offsets(steps, group, storage, rows, columns, ("all",))
                   if not affine(at, var) or abs(at.coefficient(var)) > 1)

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
        if all(affine(at, var) for at in offsets(steps, group, storage, index, columns)):
            return outer, inner, index
    return 1, 1, []


def _emit_rows(writer: KernelWriter, steps: Sequence[Step], group: Group,
               storage: Callable[[int], Storage | None], cost: float) -> KernelText:
    fn, em = writer.fn, writer.emitter
    count = prod(group.rows)
    chunk = rows_per_tile(count, cost)
    ntiles = -(-count // chunk)
    row = loop_var("p", count, 0)
    rows = list(unflatten(row, group.rows))
    sizes, lines, columns = _joined_columns(steps, group, storage, rows)
    nest = Nest(writer, steps, group, storage, rows, columns)
    for item in group.items:
        step = steps[item.step]
        if item.role == "rows" or step.op in REDUCE or step.op == "matmul":
            array = local_array(writer, step.spec.dtype, 1)
            writer.local[item.step] = (array, (0,) * len(step.spec.shape), "")
        if item.role == "all" and step.op in REDUCE | SCAN | {"matmul"}:
            nest.accumulators[item.step] = Accumulator(fn, steps, item.step, 1)
        elif item.role == "all" and storage(item.step) is None and _kept(steps, group, item):
            array = local_array(writer, step.spec.dtype, prod(group.columns))
            writer.local[item.step] = (array, _across(steps, group, item),
                                       ", !llvm.access.group !ACCESS")
    low, high = bounds(writer, "%tile", chunk, count, ntiles)
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
                column_loops(loops, writer, sizes, lines, len(lines),
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
        if line.terms and all(affine(at, line.terms[0][0]) for at in
                              offsets(steps, group, storage, rows, index)):
            return (*group.columns[:keep], prod(rest)), [*columns[:keep], line], index
    return group.columns, columns, columns


def _emit_lanes(writer: KernelWriter, steps: Sequence[Step], group: Group,
                storage: Callable[[int], Storage | None], cost: float) -> KernelText:
    fn, em = writer.fn, writer.emitter
    columns = group.column_vars()
    simple = not any(i.role == "all" for i in group.items)
    if simple:
        outer, inner, rows = _collapse(steps, group, storage)
        width = min(inner, max(1024, min(32768, int(10_000 / cost))))
        itemsize = max(steps[i.step].spec.dtype.itemsize for i in group.items)
        width = min(width, _across_lines(
            loop_var("l", inner, 1), offsets(steps, group, storage, rows, columns), itemsize))
    else:
        outer, inner = prod(group.rows[:-1]), group.rows[-1] if group.rows else 1
        rows = [*unflatten(loop_var("p", outer, 0), group.rows[:-1]),
                *([loop_var("l", inner, 1)] if group.rows else [])]
        width = _share(inner)
        if inner < 64 and len(group.rows) > 1:      # too few to fill vectors
            outer, inner, rows = _collapse(steps, group, storage, columns)
            width = min(inner, 1024)
    blocks = -(-inner // width)
    chunk = rows_per_tile(outer, cost * width)
    ntiles = -(-outer // chunk) * blocks
    nest = Nest(writer, steps, group, storage, rows, columns)
    tile_p: str | int = "%tile"
    tile_l: str | int = 0
    if blocks > 1:
        tile_p = fn.val(f"udiv i64 %tile, {blocks}") if outer > chunk else 0
        tile_l = fn.val(f"urem i64 %tile, {blocks}") if outer > chunk else "%tile"
    first, last = bounds(writer, tile_p, chunk, outer, -(-outer // chunk))
    low, high = bounds(writer, tile_l, width, inner, blocks, long=simple)
    if not simple:
        _lane_arrays(writer, nest, steps, group, width, low, inner)
    lane, outer_row = loop_var("l", inner, 1), loop_var("p", outer, 0)
    with fn.loop(first, last, hint="p") as p:
        em.open()
        if outer_row.terms:
            em.names[outer_row.terms[0][0]] = p

        kind = written_out(fn) if blocks == 1 and inner <= FEW_LANES else "!LOOP"
        picking = simple and blocks == 1 and FEW_LANES < inner < SHORT and picks(
            lane, offsets(steps, group, storage, rows, columns))
        size = max(steps[i.step].spec.dtype.itemsize for i in group.items)

        def lanes(work: Callable[[str | int], None]) -> None:
            with (writer.picking(low, high, "l", size) if picking else
                  fn.loop(low, high, hint="l", metadata=kind)) as l:
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

            def start(l: str | int, items: Any = accumulating) -> None:
                for item in items:
                    nest.accumulators[item.step].start(l)

            if accumulating and prod(group.columns) <= WRITTEN_OUT:
                # all columns of a lane at once: its sums stay in registers
                def whole(l: str | int, s: int = stage, begin: Any = start) -> None:
                    begin(l)
                    with ExitStack() as loops:
                        column_loops(loops, writer, group.columns, columns, 0, "")
                        em.open()
                        nest.body(s, "all", l)
                        em.close()
                    nest.close_reductions(s, l)
                lanes(whole)
                continue
            if accumulating:
                lanes(start)
            with ExitStack() as loops:
                column_loops(loops, writer, group.columns, columns, 0, "")
                em.open()
                nest.ask(stage, lane, low, high)
                lanes(lambda l, s=stage: nest.body(s, "all", l))      # type: ignore[misc]
                em.close()
            if accumulating:
                lanes(lambda l, s=stage: nest.close_reductions(s, l))  # type: ignore[misc]
        em.close()
    return writer.finish(ntiles, cost * outer * inner)


def _share(inner: int) -> int:
    """How many of so many lanes a tile has: whole lines of memory, and a power of two of tiles,
    which threads share evenly."""
    tiles = 1 << (-(-inner // MOST_LANES) - 1).bit_length()
    return min(inner, -(-inner // (tiles * 32)) * 32)


def _across_lines(lane: Index, touched: Sequence[Index], itemsize: int) -> int:
    """How many lanes a block should have where something is read against the order that it lies
    in, and along it from row to row; very many where nothing is."""
    found = 1 << 62
    for at in touched if lane.terms else ():
        var = lane.terms[0][0]
        stride = max([abs(c) for v, c in at.terms if v == var or (
            v.kind == "load" and var in variables(Index(((v, 1),), 0)))], default=0)
        if stride >= SHORT and any(c == 1 and v != var for v, c in at.terms):
            fit = WAYS * SAME_SET // gcd(stride * itemsize, SAME_SET)
            found = min(found, max(ACROSS[0], min(ACROSS[1], fit)))
    return found


def _lane_arrays(writer: KernelWriter, nest: Nest, steps: Sequence[Step], group: Group,
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
            array = based(local_array(writer, dtype, width),
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
