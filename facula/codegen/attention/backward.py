"""The gradients of attention in tiles: scores are made again, block by block.

For a block of keys and one of queries (Dao et al. 2022, algorithm 4), with W = G V^T - delta:

    P = exp(scale Q K^T - lse)    dS = scale * P * W
    dV += P^T G    dK += dS^T Q    dQ += dS K

Five products, all of them register tiles.  A tile of the kernel is a whole matrix of the batch,
in which dQ collects in memory while dK and dV of a block of keys stay in the cache; where the
batch is too small to be shared out like that, one kernel makes dK and dV by blocks of keys, and
another one dQ by blocks of queries, at the cost of making the scores twice.

Where products are those of pairs of bfloat16, P and dS are rounded to it, and dS is written twice:
with two queries side by side for dK, with two keys side by side for dQ.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from facula.codegen.attention.attention import Attention
from facula.codegen.attention.tiles import Direction, From, Matrix, Until, least, most
from facula.codegen.elements.mathlib.exponential import exp_flushed
from facula.codegen.kernel import KernelDraft
from facula.codegen.products.tiles import smin, unravel

__all__ = ["AttentionBackward", "gradient_kernels"]

FEWEST = 8
"""A batch of so many matrices is shared out as whole matrices."""


def gradient_kernels(c: Attention, results: Sequence[str]) -> list[AttentionBackward]:
    """The kernels that make `results`, some of dq, dk and dv, to be written by `emit`."""
    few = prod(c.batch) < FEWEST
    parts = [list(results)]
    if few and len(results) > 1 and "dq" in results:
        probe = AttentionBackward(c, results, "")
        if c.rows > probe.bq or c.keys > probe.bk:
            parts = [["dq"], [r for r in results if r != "dq"]]
    return [AttentionBackward(c, part, "" if not few or "dq" in part and len(part) > 1
                              else "rows" if "dq" in part else "keys") for part in parts]


class AttentionBackward(Direction):
    """One kernel; `split` says what its tiles share out beside the batch: rows, keys or ''."""

    def __init__(self, c: Attention, results: Sequence[str], split: str):
        operands = ["q", "k", "g", "l"]
        self.results, self.split = list(results), split
        self.slopes = "dq" in results or "dk" in results
        if self.slopes:
            operands += ["v", "d"]
        if c.mask:
            operands.append("m")
        # dQ collects in memory: its own, if that is of the right type, or in a temporary
        self.gathered = False
        if "dq" in results:
            view = c.views["dq"]
            self.gathered = c.dtype != c.sums or view.strides[-1] != 1
        super().__init__(c, [*operands, *results, *(["tmp"] if self.gathered else [])])

    def emit(self) -> KernelDraft:
        c, fn, bq, bk = self.c, self.fn, self.bq, self.bk
        parts = {"rows": -(-c.rows // bq), "keys": -(-c.keys // bk), "": 1}[self.split]
        *batch, part = unravel(fn, "%tile", (*c.batch, parts))
        self._pointers(batch)
        self.turned_k = self.array(c.width * bk)
        self.scores = self.array(bq * bk)
        if self.slopes:
            self.turned_v, self.changes = self.array(c.deep * bk), self.array(bq * bk)
        self.shares, self.across, self.along = self.scores, "", ""
        if self.paired:
            self.shares = self.array(self.pairs(bq) * bk)
            if self.slopes:
                self.across, self.along = self.array(self.pairs(bq) * bk), self.array(
                    bq * self.pairs(bk))
        elif self.slopes:
            self.across = self.along = self.changes
        self.sums = {"dk": (self.array(bk * c.width), c.width)} if "dk" in self.results else {}
        if "dv" in self.results:
            self.sums["dv"] = self.array(bk * c.deep), c.deep
        self.rooms: dict[str, str] = {}
        if self.split == "rows":
            low, high = fn.mul(part, bq), fn.add(fn.mul(part, bq), bq)
            end = smin(fn, high, c.keys) if c.causal else c.keys
            with fn.loop(0, end, bk, hint="keys") as j0:
                self._keys(j0, low, smin(fn, high, c.rows))
            self._settle(low, self.inside(low, bq, c.rows))
        elif self.split == "keys":
            self._keys(fn.mul(part, bk), None, c.rows)
        else:
            with fn.loop(0, c.keys, bk, hint="keys") as j0:
                self._keys(j0, None, c.rows)
            if "dq" in self.results:
                self._settle(0, c.rows)
        width = c.width * (1 + ("dq" in self.results) + ("dk" in self.results))
        deep = c.deep * (int(self.slopes) + ("dv" in self.results))
        return self.kernel(prod(c.batch) * parts, 2 * c.scores * (width + deep))

    def _pointers(self, batch: Sequence[Any]) -> None:
        c, fn = self.c, self.fn
        for letter in self.letters:
            if letter != "tmp":
                self.based(letter, batch)
        if "dq" not in self.results:
            return
        self.ld = self.strides("dq")[0]
        self.gradient = self.pointers["dq"]
        if self.gathered:
            flat: Any = 0
            for index, n in zip(batch, c.batch, strict=True):
                flat = fn.add(fn.mul(flat, n), index)
            self.ld = c.width
            self.gradient = self.cell(self.pointers["tmp"], fn.mul(flat, c.rows * c.width))

    def _settle(self, start: Any, rows: Any) -> None:
        """What of dQ is ready, from `start` on, to where it lies."""
        fn, c = self.fn, self.c
        if not self.gathered and c.keys:
            return
        with fn.loop(0, rows, hint="i") as r, fn.loop(0, c.width, hint="e") as e:
            i = fn.add(start, r)
            value = self.read(self.gradient, fn.add(fn.mul(i, self.ld), e)) if c.keys \
                else self.number(0.0)
            self.put("dq", value, i, e)

    def _room(self, letter: str, count: int, along: bool) -> str | None:
        if self.direct(letter, along):
            return None
        if letter not in self.rooms:
            self.rooms[letter] = self.array(count)
        return self.rooms[letter]

    def _keys(self, j0: Any, first_row: Any, last_row: Any) -> None:
        """A block of keys against the rows from `first_row` (None: as many as count) on."""
        fn, c, bq, bk = self.fn, self.c, self.bq, self.bk
        keys = self.inside(j0, bk, c.keys)
        self.turned("k", j0, bk, c.keys, c.width, self.turned_k)
        if self.slopes:
            self.turned("v", j0, bk, c.keys, c.deep, self.turned_v)
        for pointer, columns in self.sums.values():
            self.fill(pointer, bk * columns, 0.0)
        if "dq" in self.results:
            self.near = self.rows_of("k", j0, bk, keys, c.width, True,
                                     self._room("k", bk * c.width, True))
        if first_row is None:
            first_row = 0
            if c.causal:
                first_row = fn.mul(fn.val(f"sdiv i64 {j0}, {bq}"), bq)
        with fn.loop(first_row, last_row, bq, hint="rows") as i0:
            self._pair(j0, keys, i0, self.inside(i0, bq, c.rows))
        for letter, (pointer, columns) in self.sums.items():
            with fn.loop(0, keys, hint="j") as j, fn.loop(0, columns, hint="e") as e:
                value = self.read(pointer, fn.add(fn.mul(j, columns), e))
                self.put(letter, value, fn.add(j0, j), e)

    def _pair(self, j0: Any, keys: Any, i0: Any, rows: Any) -> None:
        """A block of queries against one of keys."""
        c, fn, bq, bk = self.c, self.fn, self.bq, self.bk
        last, more = c.rows % bq, c.keys % bk
        until, start = None, None
        if c.causal:
            ahead = fn.val(f"sub i64 {i0}, {j0}")
            until, start = Until(fn, ahead, self.mr), From(fn, ahead, self.mr)

        def both(letter: str, columns: int, along: bool) -> tuple[Matrix, Matrix]:
            """The queries' rows of a matrix as rows of a product, and as its terms."""
            m = self.rows_of(letter, i0, bq, rows, columns, along,
                             self._room(letter, bq * columns, along))
            if self.paired:
                return self.rows_of(letter, i0, bq, rows, columns, False), m
            return _as_rows(m, along), m

        q, q_terms = both("q", c.width, "dk" in self.results)
        self.product("s", q, Matrix(self.turned_k, 1, bk), self.scores, bk, rows, last, bk,
                     c.width, "true", where=start)
        g_terms = None
        if self.slopes or "dv" in self.results:
            g, g_terms = both("g", c.deep, "dv" in self.results)
        if self.slopes:
            self.product("w", g, Matrix(self.turned_v, 1, bk), self.changes, bk, rows, last, bk,
                         c.deep, "true", where=start)
        (self._slopes_in_pairs if self.paired else self._slopes)(j0, keys, i0, rows)
        if "dv" in self.results:
            assert g_terms is not None
            self.product("v", Matrix(self.shares, 1, bk), g_terms, self.sums["dv"][0], c.deep,
                         keys, more, c.deep, rows, "false", sums=start)
        if "dk" in self.results:
            self.product("k", Matrix(self.across, 1, bk), q_terms, self.sums["dk"][0], c.width,
                         keys, more, c.width, rows, "false", sums=start)
        if "dq" in self.results:
            to = self.cell(self.gradient, fn.mul(i0, self.ld))
            self.product("q", Matrix(self.along, self.pairs(bk), 1), self.near, to, self.ld, rows,
                         last, c.width, keys, fn.val(f"icmp eq i64 {j0}, 0"), sums=until)

    def _slopes(self, j0: Any, keys: Any, i0: Any, rows: Any) -> None:
        """Scores become shares P, and G V^T becomes dS."""
        c, fn, bk = self.c, self.fn, self.bk
        with fn.loop(0, rows, hint="i") as i:
            row = fn.add(i0, i)
            lse = self.get("l", row)
            delta = self.get("d", row) if self.slopes else lse
            line = fn.mul(i, bk)
            scores = self.cell(self.scores, line)
            changes = self.cell(self.changes, line) if self.slopes else ""
            seen = keys
            if c.causal:
                seen = most(fn, least(fn, fn.add(fn.val(f"sub i64 {row}, {j0}"), 1), keys), 0)
            with fn.loop(0, seen, hint="j") as j:
                score = self.read(scores, j) * c.scale
                if c.mask:
                    score = self.masked(score, row, fn.add(j0, j))
                share = exp_flushed(score - lse)
                self.write(share, scores, j)
                if self.slopes:
                    change = (self.read(changes, j) - delta) * share * c.scale
                    self.write(change, changes, j)
            if c.causal:
                # to the end of the register tiles that have a part in what is seen
                end = fn.val(f"and i64 {fn.add(seen, self.mr - 1)}, {-self.mr}")
                with fn.loop(seen, least(fn, end, keys), hint="j") as j:
                    self.write(self.number(0.0), scores, j)
                    if self.slopes:
                        self.write(self.number(0.0), changes, j)


    def _slopes_in_pairs(self, j0: Any, keys: Any, i0: Any, rows: Any) -> None:
        """The same for two queries at a time; what is not seen, or not there, are zeros."""
        c, fn, bk = self.c, self.fn, self.bk
        early = bool(c.mask) or c.scale <= 0            # is a score ready before its exponential?
        with fn.loop(0, self.pairs(rows), hint="p") as p:
            i = fn.mul(p, 2)
            there = fn.val(f"icmp slt i64 {fn.add(i, 1)}, {rows}")
            row = fn.add(i0, i)
            lines = [row, fn.add(row, fn.val(f"zext i1 {there} to i64"))]
            seen: list[Any] = [keys, fn.val(f"select i1 {there}, i64 {keys}, i64 0")]
            if c.causal:
                seen = [most(fn, least(fn, fn.add(fn.val(f"sub i64 {r}, {j0}"), 1), n), 0)
                        for r, n in zip(lines, seen)]
            end = keys
            if c.causal:
                last = fn.add(most(fn, *seen), self.mr - 1)
                end = least(fn, fn.val(f"and i64 {last}, {-self.mr}"), keys)
            end = fn.mul(self.pairs(end), 2)
            at = [fn.mul(fn.add(i, k), bk) for k in (0, 1)]
            scores = [self.cell(self.scores, x) for x in at]
            changes = [self.cell(self.changes, x) for x in at] if self.slopes else []
            for k in (0, 1):
                if early:
                    with fn.loop(0, seen[k], hint="j") as j:
                        score = self.read(scores[k], j) * c.scale
                        if c.mask:
                            score = self.masked(score, lines[k], fn.add(j0, j))
                        self.write(score, scores[k], j)
                with fn.loop(seen[k], end, hint="j") as j:
                    self.write(self.number(float("-inf")), scores[k], j)
                    if changes:
                        self.write(self.number(0.0), changes[k], j)
            lse = [self.get("l", r) for r in lines]
            delta = [self.get("d", r) for r in lines] if self.slopes else []
            to = fn.mul(p, bk)
            with fn.loop(0, end, hint="j") as j:
                shares, slopes = [], []
                for k in (0, 1):
                    score = self.read(scores[k], j)
                    share = exp_flushed((score if early else score * c.scale) - lse[k])
                    shares.append(share)
                    if changes:
                        slope = (self.read(changes[k], j) - delta[k]) * share * c.scale
                        slopes.append(slope)
                        fn.store("i16", self.rounded(slope),
                                 fn.gep("i16", self.along, fn.add(at[k], j)))
                self.pair(shares[0], shares[1], self.shares, fn.add(to, j))
                if changes:
                    self.pair(slopes[0], slopes[1], self.across, fn.add(to, j))


def _as_rows(m: Matrix, along: bool) -> Matrix:
    """Rows that are read as terms of one product, as the rows of another."""
    return Matrix(m.pointer, m.k_step, 1) if along else m
