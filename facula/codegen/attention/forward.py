"""Attention in tiles: scores that never leave the core that makes them.

A tile of the kernel holds a block of queries and walks over the keys in blocks (Dao et al.,
"FlashAttention", 2022; the running maximum and sum are Milakov and Gimelshein's, 2018).  Scores
stand transposed, [key][query], so that what a query keeps (its maximum, its sum) is a lane of a
vector and a row of scores needs no sum across lanes:

    scores[j, i] = sum over e of K[j, e] * scale * Q[i, e]      Q packed [e][i] once a tile
    mixed[i, e] += sum over j of scores[j, i] * V[j, e]

Both products are register tiles.  16-bit operands become float32 when a block of them is loaded;
where the processor multiplies pairs of bfloat16, they stay what they are (`products.pairs`),
and shares are rounded to it: an "element" of a product's operand is then two neighbouring terms.
"""

from __future__ import annotations

from math import prod
from typing import Any

from facula.codegen.attention.tiles import Direction, Matrix, Until, most
from facula.codegen.elements import expr
from facula.codegen.elements.mathlib.exponential import exp_flushed
from facula.codegen.elements.mathlib.values import select
from facula.codegen.kernel import KernelDraft
from facula.codegen.products.tiles import smin, unravel
from facula.dtype import DTYPES

__all__ = ["AttentionForward"]


class AttentionForward(Direction):
    """The kernel of 'o' and 'L'."""

    def emit(self) -> KernelDraft:
        c, fn, bq, bk = self.c, self.fn, self.bq, self.bk
        blocks = -(-c.rows // bq)
        *batch, block = unravel(fn, "%tile", (*c.batch, blocks))
        for letter in self.letters:
            self.based(letter, batch)
        i0 = fn.mul(block, bq)
        queries = self.inside(i0, bq, c.rows)
        packed, scores = self.array(c.width * bq), self.array(bk * bq)
        top, total, safe, shrink = (self.array(bq) for _ in range(4))
        mixed = self.array(bq * c.deep)
        rooms = {x: None if self.direct(x, x == "v") else self.array(bk * n)
                 for x, n in (("k", c.width), ("v", c.deep)) if x in self.letters}
        shares = self.array(self.pairs(bk) * bq) if self.paired else scores
        self.turned("q", i0, bq, c.rows, c.width, packed)
        if not self.paired:             # which is scaled later, not to be rounded once more
            with fn.loop(0, c.width * bq, hint="s") as e:
                self.write(self.read(packed, e) * c.scale, packed, e)
        self.fill(top, bq, float("-inf"))
        self.fill(total, bq, 0.0)
        if not c.keys:
            self.fill(mixed, bq * c.deep, 0.0)
        end = smin(fn, fn.add(i0, bq), c.keys) if c.causal else c.keys
        with fn.loop(0, end, bk, hint="block") as j0:
            keys = self.inside(j0, bk, c.keys)
            k = self.rows_of("k", j0, bk, keys, c.width, False, rooms["k"])
            only = Until(fn, fn.val(f"sub i64 {i0}, {j0}"), self.mr) if c.causal else None
            self.product("s", k, Matrix(packed, 1, bq), scores, bq, keys, c.keys % bk, bq,
                         c.width, "true", where=only)
            if self.paired:
                with fn.loop(0, keys, hint="j") as j:
                    line = self.cell(scores, fn.mul(j, bq))
                    with fn.loop(self._hidden(i0, j0, j)[0] if c.causal else 0, bq, hint="i") as i:
                        self.write(self.read(line, i) * c.scale, line, i)
            self._hide(scores, i0, j0, queries, keys)
            self._shares(scores, shares, i0, j0, keys, top, total, safe, shrink)
            if "v" in self.letters:
                first = fn.val(f"icmp eq i64 {j0}, 0")
                with fn.when(fn.val(f"xor i1 {first}, true")), \
                        fn.loop(0, queries, hint="i") as i:
                    by = self.read(shrink, i)
                    with fn.loop(0, c.deep, hint="e") as e:
                        at = fn.add(fn.mul(i, c.deep), e)
                        self.write(self.read(mixed, at) * by, mixed, at)
                v = self.rows_of("v", j0, bk, keys, c.deep, True, rooms["v"])
                self.product("o", Matrix(shares, 1, bq), v, mixed, c.deep, queries,
                             c.rows % bq, c.deep, keys, first, sums=only)
        self._finish(i0, queries, top, total, mixed)
        flops = 2 * c.scores * (c.width + (c.deep if "v" in self.letters else 0))
        return self.kernel(prod(c.batch) * blocks, flops)

    def _hide(self, scores: str, i0: Any, j0: Any, queries: Any, keys: Any) -> None:
        """-infinity where a query may not look, and what a mask adds."""
        fn, c, bq = self.fn, self.c, self.bq
        if c.mask:
            with fn.loop(0, keys, hint="j") as j, fn.loop(0, queries, hint="i") as i:
                at = fn.add(fn.mul(j, bq), i)
                self.write(self.masked(self.read(scores, at), fn.add(i0, i), fn.add(j0, j)),
                           scores, at)
        if c.causal:
            crossing = fn.val(f"icmp sgt i64 {fn.add(fn.add(j0, keys), -1)}, {i0}")
            with fn.when(crossing), fn.loop(0, keys, hint="j") as j:
                first, before = self._hidden(i0, j0, j)
                with fn.loop(first, before, hint="i") as i:
                    self.write(self.number(float("-inf")), scores, fn.add(fn.mul(j, bq), i))

    def _hidden(self, i0: Any, j0: Any, j: Any) -> tuple[Any, Any]:
        """How many queries of a block may not look at a key, and the last of them that is at the
        beginning of a vector and of a register tile: nobody reads scores of queries before."""
        fn = self.fn
        before = most(fn, smin(fn, fn.val(f"sub i64 {fn.add(j0, j)}, {i0}"), self.bq), 0)
        return fn.val(f"and i64 {before}, {-max(self.lanes, self.mr)}"), before

    def _shares(self, scores: str, shares: str, i0: Any, j0: Any, keys: Any, top: str, total: str,
                safe: str, shrink: str) -> None:
        """Scores become exponentials, relative to the largest seen so far."""
        fn, bq = self.fn, self.bq
        with fn.loop(0, bq, hint="i") as i:
            self.write(self.read(top, i), safe, i)
        with fn.loop(0, keys, hint="j") as j:
            line = self.cell(scores, fn.mul(j, bq))
            with fn.loop(self._hidden(i0, j0, j)[0] if self.c.causal else 0, bq, hint="i") as i:
                x, old = self.read(line, i), self.read(safe, i)
                self.write(select(x.gt(old), x, old), safe, i)
        with fn.loop(0, bq, hint="i") as i:
            old, new = self.read(top, i), self.read(safe, i)
            self.write(new, top, i)
            # relative to nothing but -infinity every share is 0
            new = select(new.eq(float("-inf")), self.number(0.0), new)
            by = exp_flushed(old - new)
            self.write(by, shrink, i)
            self.write(self.read(total, i) * by, total, i)
            self.write(new, safe, i)
        if self.paired:
            self._shares_in_pairs(scores, shares, i0, j0, keys, total, safe)
            return
        with fn.loop(0, keys, hint="j") as j:
            line = self.cell(scores, fn.mul(j, bq))
            with fn.loop(self._hidden(i0, j0, j)[0] if self.c.causal else 0, bq, hint="i") as i:
                share = exp_flushed(self.read(line, i) - self.read(safe, i))
                self.write(share, line, i)
                self.write(self.read(total, i) + share, total, i)

    def _shares_in_pairs(self, scores: str, shares: str, i0: Any, j0: Any, keys: Any, total: str,
                         safe: str) -> None:
        """The exponentials of two keys side by side; after an odd last one comes none."""
        fn, bq = self.fn, self.bq
        if not isinstance(keys, int) or keys % 2:
            odd = fn.val(f"icmp eq i64 {fn.val(f'and i64 {keys}, 1')}, 1")
            with fn.when(odd):
                self.fill(self.cell(scores, fn.mul(keys, bq)), bq, float("-inf"))
        with fn.loop(0, self.pairs(keys), hint="j") as pair:
            j = fn.mul(pair, 2)
            line, after = (self.cell(scores, fn.mul(fn.add(j, k), bq)) for k in (0, 1))
            to = self.cell(shares, fn.mul(pair, bq))
            with fn.loop(self._hidden(i0, j0, j)[0] if self.c.causal else 0, bq, hint="i") as i:
                one, two = (exp_flushed(self.read(x, i) - self.read(safe, i))
                            for x in (line, after))
                self.pair(one, two, to, i)
                self.write(self.read(total, i) + one + two, total, i)

    def _finish(self, i0: Any, queries: Any, top: str, total: str, mixed: str) -> None:
        fn, c = self.fn, self.c
        with fn.loop(0, queries, hint="i") as i:
            sum_, row = self.read(total, i), fn.add(i0, i)
            if "L" in self.letters:
                high, dtype = self.read(top, i), DTYPES[c.sums]
                log = self.val(expr.emit_op(fn, "log", [sum_.name], [dtype], dtype))
                dead = high.eq(float("-inf"))
                self.put("L", select(dead, self.number(0.0), high + log), row)
            if "o" in self.letters:
                by = select(sum_.eq(0.0), self.number(0.0), self.number(1.0) / sum_)
                with fn.loop(0, c.deep, hint="e") as e:
                    value = self.read(mixed, fn.add(fn.mul(i, c.deep), e)) * by
                    self.put("o", value, row, e)
