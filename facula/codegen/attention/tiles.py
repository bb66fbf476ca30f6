"""What both directions of attention share: blocks in memory, and products of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from facula.codegen.attention.attention import Attention
from facula.codegen.elements.mathlib.values import Val, select
from facula.codegen.kernel import KernelDraft
from facula.codegen.llvm import LLVM_TYPES, Fn, Module, float_literal
from facula.codegen.products.microkernel import multiply_pairs, register_tile
from facula.codegen.products.pack import Source, pack_panel
from facula.codegen.products.tiles import PARAMS, batch_offset, convert, memory_type, operand, smin
from facula.codegen.target import target
from facula.dtype import DTYPES

__all__ = ["Direction", "From", "Matrix", "Until", "least", "most"]

MAX_BLOCK = {4: 64, 8: 32}
"""Queries, and keys, of a block at most, by the bytes of a number: a block of scores fills half
of the first cache."""

FLOPS_PER_SCORE = 60.0
"""What the exponential of a score and what belongs to it are estimated to take, as products."""


@dataclass(frozen=True)
class Matrix:
    """A block in memory as a register tile walks over it: rows of `pointer`, `inner` apart, and
    `k_step` to the next term of a sum."""

    pointer: str
    inner: int
    k_step: int
    ahead: int = 0


class Causal(Protocol):
    """Which part of a block counts."""

    def rows(self, column: int, width: int, count: Any) -> tuple[Any, Any]:
        """From which and up to which row columns `column` to `column + width` are wanted."""

    def terms(self, row: Any, width: int, count: Any) -> tuple[Any, Any]:
        """From which and up to which term rows `row` to `row + width` are made of."""


class Until:
    """Of a block whose first query is `ahead` of its first key: where rows are keys and columns
    are queries, or where the terms of a query are keys."""

    def __init__(self, fn: Fn, ahead: Any, mr: int):
        self.fn, self.ahead, self.mr = fn, ahead, mr

    def rows(self, column: int, width: int, count: Any) -> tuple[Any, Any]:
        return 0, least(self.fn, self.fn.add(self.ahead, column + width), count)

    def terms(self, row: Any, width: int, count: Any) -> tuple[Any, Any]:
        fn = self.fn
        return 0, most(fn, least(fn, fn.add(fn.add(self.ahead, row), width), count), 0)


class From:
    """The same where rows are queries and columns are keys, or the terms of a key are queries."""

    def __init__(self, fn: Fn, ahead: Any, mr: int):
        self.fn, self.ahead, self.mr = fn, ahead, mr

    def rows(self, column: int, width: int, count: Any) -> tuple[Any, Any]:
        fn = self.fn
        first = most(fn, fn.val(f"sub i64 {column}, {self.ahead}"), 0)
        return fn.val(f"and i64 {first}, {-self.mr}"), count

    def terms(self, row: Any, width: int, count: Any) -> tuple[Any, Any]:
        fn = self.fn
        return least(fn, most(fn, fn.val(f"sub i64 {row}, {self.ahead}"), 0), count), count


def _suits(c: Attention, letter: str) -> bool:
    """Whether two neighbours of each row of an operand lie together, as 32 bits, and rows not in
    the same few sets of the first cache."""
    view = c.views[letter]
    *others, column = view.strides
    return (c.deep if letter in "vg" else c.width) % 2 == 0 and column == 1 \
        and view.offset % 2 == 0 and not any(s % 2 for s in others) and others[-1] % 1024 != 0


def least(fn: Fn, a: Any, b: Any) -> Any:
    f = fn.module.declare("i64 @llvm.smin.i64(i64, i64)")
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else \
        fn.val(f"call i64 {f}(i64 {a}, i64 {b})")


def most(fn: Fn, a: Any, b: Any) -> Any:
    f = fn.module.declare("i64 @llvm.smax.i64(i64, i64)")
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else \
        fn.val(f"call i64 {f}(i64 {a}, i64 {b})")


class Direction:
    """What forward and backward share: a kernel being written, blocks, products."""

    def __init__(self, c: Attention, letters: Sequence[str]):
        self.c, self.t = c, target()
        self.module = Module()
        self.letters = list(letters)
        self.fn = Fn(self.module, "KERNEL", PARAMS, attrs=self.t.attributes)
        self.scalar = LLVM_TYPES[c.sums]
        self.item = DTYPES[c.sums].itemsize
        self.lanes = self.t.lanes(self.item)
        self.mr = 8 if self.t.registers >= 32 else 4
        self.nr = 2 * self.lanes
        self.bq, self.bk = self._block(c.rows), self._block(c.keys)
        self.paired = self.t.pairs and c.dtype == "bfloat16" and all(
            _suits(c, x) for x in self.letters if x in "qkvg")
        self.pointers = {x: operand(self.fn, i) for i, x in enumerate(self.letters)}

    def _block(self, count: int) -> int:
        unit = max(self.lanes, self.mr)
        return min(MAX_BLOCK[self.item], -(-max(count, 1) // unit) * unit)

    # -- pairs of bfloat16
    def pairs(self, count: Any) -> Any:
        """How many elements of a product's operand so many terms are."""
        if not self.paired:
            return count
        if isinstance(count, int):
            return -(-count // 2)
        return self.fn.val(f"lshr i64 {self.fn.add(count, 1)}, 1")

    def pair(self, low: Val, high: Val, pointer: str, at: Any) -> None:
        """Store two terms, rounded, as one element."""
        fn = self.fn
        words = [fn.val(f"zext i16 {self.rounded(x)} to i32") for x in (low, high)]
        both = fn.val(f"or i32 {words[0]}, {fn.val(f'shl i32 {words[1]}, 16')}")
        fn.store("i32", both, self.cell(pointer, at))

    def rounded(self, x: Val) -> str:
        """The bits of a number as bfloat16."""
        fn = self.fn
        return fn.val(f"bitcast bfloat {fn.val(f'fptrunc float {x.name} to bfloat')} to i16")

    def _multiply_pairs(self, fn: Fn, x: str, y: str, total: str, into: str) -> None:
        multiply_pairs(fn, self.lanes, x, y, total, into)

    def beside(self, letter: str, start: Any, count: Any, columns: int, room: str) -> Matrix:
        """Rows from `start` on of a matrix as the terms of a product: two rows side by side, the
        one after the last being zeros."""
        fn = self.fn
        with fn.loop(0, self.pairs(count), hint="r") as r:
            one = fn.mul(r, 2)
            last = fn.val(f"icmp sge i64 {fn.add(one, 1)}, {count}")
            line = fn.add(start, one)
            other = fn.val(f"select i1 {last}, i64 {line}, i64 {fn.add(line, 1)}")
            seen = fn.val(f"select i1 {last}, i32 0, i32 -65536")
            with fn.loop(0, columns, hint="e") as e:
                low, high = (fn.val(f"zext i16 {fn.load('i16', self.at(letter, x, e))} to i32")
                             for x in (line, other))
                high = fn.val(f"and i32 {fn.val(f'shl i32 {high}, 16')}, {seen}")
                fn.store("i32", fn.val(f"or i32 {low}, {high}"),
                         self.cell(room, fn.add(fn.mul(r, columns), e)))
        return Matrix(room, 1, columns)

    # -- blocks
    def kind(self, letter: str) -> str:
        """The dtype in memory."""
        c = self.c
        if letter == "m":
            return c.mask
        return c.sums if letter in ("l", "L", "d") else c.dtype

    def based(self, letter: str, batch: Sequence[Any]) -> None:
        """Move the pointer of an operand to the matrix of this batch."""
        view = self.c.views[letter]
        at = self.fn.add(batch_offset(self.fn, batch, view.strides[:len(batch)]), view.offset)
        self.pointers[letter] = self.fn.gep(memory_type(self.kind(letter)),
                                            self.pointers[letter], at)

    def strides(self, letter: str) -> tuple[int, ...]:
        return self.c.views[letter].strides[len(self.c.batch):]

    def at(self, letter: str, row: Any, column: Any = 0) -> str:
        strides = self.strides(letter)
        place = self.fn.mul(row, strides[0])
        if len(strides) > 1:
            place = self.fn.add(place, self.fn.mul(column, strides[1]))
        return self.fn.gep(memory_type(self.kind(letter)), self.pointers[letter], place)

    def get(self, letter: str, row: Any, column: Any = 0) -> Val:
        """An element as it is computed with."""
        dtype = self.kind(letter)
        value = self.fn.load(memory_type(dtype), self.at(letter, row, column))
        return self.val(convert(self.fn, value, dtype, self.c.sums))

    def put(self, letter: str, value: Val, row: Any, column: Any = 0) -> None:
        dtype = self.kind(letter)
        self.fn.store(memory_type(dtype), convert(self.fn, value.name, self.c.sums, dtype),
                      self.at(letter, row, column))

    def val(self, name: str) -> Val:
        return Val(self.fn, name, self.scalar)

    def number(self, value: float) -> Val:
        return self.val(float_literal(value, self.scalar))

    def cell(self, pointer: str, at: Any) -> str:
        return self.fn.gep(self.scalar, pointer, at)

    def read(self, pointer: str, at: Any) -> Val:
        return self.val(self.fn.load(self.scalar, self.cell(pointer, at)))

    def write(self, value: Val, pointer: str, at: Any) -> None:
        self.fn.store(self.scalar, value.name, self.cell(pointer, at))

    def array(self, count: int) -> str:
        return self.fn.alloca(self.scalar, max(count, 1))

    def fill(self, pointer: str, count: Any, value: float) -> None:
        with self.fn.loop(0, count, hint="z") as i:
            self.write(self.number(value), pointer, i)

    def inside(self, start: Any, block: int, count: int) -> Any:
        """How many of a block that begins at `start` there are."""
        if count % block == 0:
            return block
        return count if count < block else smin(self.fn, self.fn.val(f"sub i64 {count}, {start}"),
                                                block)

    def direct(self, letter: str, along: bool) -> bool:
        """Whether a register tile reads a matrix where it lies: as numbers of the right type, not
        all in the same few sets of the first cache; `along`: its columns as vectors."""
        row, column = self.strides(letter)
        return (self.kind(letter) == self.c.sums and (column == 1 or not along)
                and row * self.item % 2048 != 0)

    def rows_of(self, letter: str, start: Any, block: int, count: Any, columns: int,
                along: bool, room: str | None = None) -> Matrix:
        """Rows from `start` on of a matrix, copied to `room` if they cannot be read in place.

        As the rows of a product (`along` False: a row is an element of the result, a column a
        term), or as its terms (a row is a term, its columns lie along the result's).
        """
        if self.paired:
            if along:
                return self.beside(letter, start, count, columns, room or self.array(
                    self.pairs(block) * columns))
            return Matrix(self.at(letter, start), self.strides(letter)[0] // 2, 1)
        if self.direct(letter, along):
            row, column = self.strides(letter)
            pointer = self.at(letter, start)
        else:
            fn = self.fn
            row, column = columns, 1
            pointer = room if room is not None else self.array(block * columns)
            with fn.loop(0, count, hint="r") as r:
                line = fn.add(start, r)
                with fn.loop(0, columns, hint="e") as e:
                    self.write(self.get(letter, line, e), pointer, fn.add(fn.mul(r, columns), e))
        return Matrix(pointer, 1, row) if along else Matrix(pointer, row, column)

    def turned(self, letter: str, start: Any, block: int, count: int, columns: int,
               to: str) -> None:
        """`block` rows of a matrix from `start` on, of `count` in all, as [column][row] at `to`."""
        fn, c = self.fn, self.c
        row, column = self.strides(letter)
        source = Source(c.dtype, DTYPES[c.dtype].itemsize, (), (), count, columns, row, column)
        if self.paired:                 # two columns are one number of 32 bits
            columns //= 2
            source = Source("float32", 4, (), (), count, columns, row // 2, 1)

        def pack(rows: int) -> None:
            pack_panel(fn, source, block, columns, self.pointers[letter], to, start, 0, rows,
                       self.t)

        rest = count % block
        if count < block or not rest:
            pack(min(count, block))
            return
        last = fn.val(f"icmp sgt i64 {fn.add(start, block)}, {count}")
        with fn.when(last):
            pack(rest)
        with fn.when(fn.val(f"xor i1 {last}, true")):
            pack(block)

    # -- products
    def product(self, tag: str, a: Matrix, b: Matrix, to: str, ld: int, rows: Any, last: int,
                columns: int, terms: Any, first: str, where: Causal | None = None,
                sums: Causal | None = None) -> None:
        """to[rows, columns] (+)= A[rows, terms] B[terms, columns]; a tile each call.

        `rows` are a multiple of a register tile's, or `last`.  `first`: set and not add.  Of a
        causal block `where` leaves out results, or `sums` terms, that do not count.
        """
        fn = self.fn
        full: Any
        if isinstance(rows, int):
            last, full = rows, rows - rows % self.mr
        else:
            full = fn.val(f"and i64 {rows}, {-self.mr}")
        rest = last % self.mr
        mad = self._multiply_pairs if self.paired else None

        def tile(i: Any, j: int, count: int) -> None:
            width = min(self.nr, columns - j)
            name = register_tile(self.module, f"KERNEL_{tag}_{count}x{width}", self.t,
                                 self.scalar, (count, width), a, b, ld, mad)
            x, y = fn.mul(i, a.inner), j
            low, high = sums.terms(i, count, terms) if sums is not None else (0, terms)
            if self.paired:
                if low != 0:
                    # a pair of which one counts is taken whole; where none counts there is none
                    none = fn.val(f"zext i1 {fn.val(f'icmp sge i64 {low}, {high}')} to i64")
                    low = fn.val(f"lshr i64 {fn.add(low, none)}, 1")
                high = self.pairs(high)
            if low != 0:
                x = fn.add(x, fn.mul(low, a.k_step))
                y = fn.add(j, fn.mul(low, b.k_step))    # type: ignore[assignment]
                high = fn.val(f"sub i64 {high}, {low}")
            z = self.cell(to, fn.add(fn.mul(i, ld), j))
            fn.do(f"call void @{name}(ptr {self.cell(a.pointer, x)}, "
                  f"ptr {self.cell(b.pointer, y)}, ptr {z}, i64 {high}, i1 {first})")

        for j in range(0, columns, self.nr):
            begin, end = where.rows(j, self.nr, full) if where is not None else (0, full)
            with fn.loop(begin, end, self.mr, hint="i") as i:
                tile(i, j, self.mr)
            if rest and isinstance(rows, int):
                tile(full, j, rest)
            elif rest:
                with fn.when(fn.val(f"icmp eq i64 {rows}, {last}")):
                    tile(last - rest, j, rest)

    def masked(self, score: Val, row: Any, column: Any) -> Val:
        """A score as the mask leaves it."""
        if self.c.mask == "bool":
            seen = self.fn.load("i8", self.at("m", row, column))
            seen = self.fn.val(f"icmp ne i8 {seen}, 0")
            return select(self.val_of_bool(seen), score, float("-inf"))
        return score + self.get("m", row, column)

    def val_of_bool(self, name: str) -> Val:
        return Val(self.fn, name, "i1")

    def kernel(self, ntiles: int, flops: float) -> KernelDraft:
        """The finished kernel; its weight is in flops."""
        self.fn.finish()
        return KernelDraft("KERNEL", tuple(self.letters), ntiles, self.module,
                           flops + self.c.scores * FLOPS_PER_SCORE)
