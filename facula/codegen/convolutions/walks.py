"""How a convolution walks over its source: geometry.

A convolution and its derivatives visit, for output i and tap j of a spatial dimension, the source
element start + i * step + j * reach.  A `Walk` is that line for one dimension.  The gradient of a
strided convolution's input falls apart into as many walks a dimension as there are strides, each
of which visits every output of one remainder and only the taps that meet it; so no kernel ever
multiplies by zeros that a stride has put between elements.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import Any

from facula.codegen.llvm import Fn
from facula.codegen.products.tiles import smin

__all__ = ["Walk", "Block", "backward_walks", "evened", "flat", "forward_walk", "grow",
           "micro_rect", "reached"]


@dataclass(frozen=True)
class Walk:
    """One dimension: `count` outputs times `taps`, over `source` elements.

    Tap j is element tap0 + j * tap_step of the kernel, output i is written to out0 + i * out_step.
    """

    count: int
    taps: int
    start: int
    step: int
    reach: int
    source: int
    tap0: int = 0
    tap_step: int = 1
    out0: int = 0
    out_step: int = 1

    @property
    def pitch(self) -> int:
        """Source elements between neighbours of what is read."""
        a = self.step if self.count > 1 else 0
        b = abs(self.reach) if self.taps > 1 else 0
        return gcd(a, b) or 1

    @property
    def lowest(self) -> int:
        """Where the tap that reads furthest back reads, relative to the first tap."""
        return min(0, (self.taps - 1) * self.reach)

    def extent(self, outputs: int) -> int:
        """How many elements, `pitch` apart, that many neighbouring outputs read."""
        span = (outputs - 1) * self.step + (self.taps - 1) * abs(self.reach)
        return span // self.pitch + 1

    def tap_offset(self, tap: int) -> int:
        """Where a tap of the first output lies among those elements."""
        return (tap * self.reach - self.lowest) // self.pitch


def _trimmed(walk: Walk) -> Walk:
    """Without the taps at both ends that no output sees an element through."""
    def seen(tap: int) -> bool:
        first = walk.start + tap * walk.reach
        last = first + (walk.count - 1) * walk.step
        if last < 0 or first >= walk.source:
            return False
        return True

    taps = [j for j in range(walk.taps) if seen(j)]
    if not taps or walk.taps == 0:
        return Walk(walk.count, 0, 0, walk.step, walk.reach, walk.source, walk.tap0,
                    walk.tap_step, walk.out0, walk.out_step)
    low, high = taps[0], taps[-1]
    return Walk(walk.count, high - low + 1, walk.start + low * walk.reach, walk.step, walk.reach,
                walk.source, walk.tap0 + low * walk.tap_step, walk.tap_step, walk.out0,
                walk.out_step)


def forward_walk(source: int, out: int, kernel: int, stride: int, low: int, dilation: int
                 ) -> Walk:
    """Output t reads element t * stride + k * dilation - low through tap k."""
    return _trimmed(Walk(out, kernel, -low, stride, dilation, source))


def backward_walks(source: int, out: int, kernel: int, stride: int, low: int, dilation: int
                   ) -> list[Walk]:
    """The other way round: element h takes from every t with t * stride + k * dilation - low = h.

    `source` is the number of places t, `out` that of elements h; one walk a remainder of h.
    """
    walks = []
    apart = gcd(stride, dilation)
    tap_step = stride // apart
    for rest in range(min(stride, out)):
        count = -(-(out - rest) // stride)
        first = next((k for k in range(min(tap_step, kernel))
                      if (rest + low - k * dilation) % stride == 0), None)
        if first is None:
            walks.append(Walk(count, 0, 0, 1, 1, source, 0, 1, rest, stride))
            continue
        taps = -(-(kernel - first) // tap_step)
        walks.append(_trimmed(Walk(count, taps, (rest + low - first * dilation) // stride, 1,
                                   -(dilation // apart), source, first, tap_step, rest, stride)))
    return walks


def flat(walks: Sequence[Walk], strides: Sequence[int]) -> tuple[Walk, int] | None:
    """One walk over all places and the distance of neighbours, where each place reads itself alone
    and all are as far apart in memory; `strides` are those of the source."""
    if len(walks) < 2 or any(w.taps != 1 or w.start or w.step != 1 or w.out_step != 1
                             or w.count != w.source for w in walks):
        return None
    live = [(w.source, s) for w, s in zip(walks, strides, strict=True) if w.source > 1]
    if any(s != m * t for (_, s), (m, t) in zip(live, live[1:])):
        return None
    places = prod(w.source for w in walks)
    return Walk(places, 1, 0, 1, 1, places), live[-1][1] if live else 1


def micro_rect(counts: Sequence[int], most: int) -> list[int]:
    """The largest block of at most `most` points that is whole in all but one dimension."""
    rect = [1] * len(counts)
    room = most
    for d in range(len(counts) - 1, -1, -1):
        if counts[d] <= room:
            rect[d] = counts[d]
            room //= counts[d]
            continue
        pieces = -(-counts[d] // room)
        rect[d] = -(-counts[d] // pieces)
        break
    return rect


def grow(counts: Sequence[int], rect: Sequence[int], most: int) -> list[int]:
    """A block of `rect`s, of about `most` points: whole in the inner dimensions, 1 in the outer.
    """
    block = list(rect)
    for d in range(len(counts) - 1, -1, -1):
        if block[d] == counts[d]:
            continue
        others = prod(block[:d]) * prod(block[d + 1:])
        times = max(most // (others * rect[d]), 1)
        whole = -(-counts[d] // rect[d])
        if times >= whole:
            block[d] = counts[d]
            continue
        times = -(-whole // -(-whole // times))     # all about equally large
        block[d] = times * rect[d]
        break
    return block


@dataclass(frozen=True)
class Block:
    """Neighbouring outputs (images, then places) that a tile computes, and what they read.

    `counts` are all outputs, `size` those of the block, `micro` those of a register tile; `split`
    is the one dimension in which a block is not whole (-1 where it is the whole).
    """

    walks: tuple[Walk, ...]
    counts: tuple[int, ...]
    size: tuple[int, ...]
    micro: tuple[int, ...]

    @property
    def split(self) -> int:
        found = [d for d, (n, b) in enumerate(zip(self.counts, self.size)) if b < n]
        return found[-1] if found else -1

    @property
    def blocks(self) -> tuple[int, ...]:
        return tuple(-(-n // b) for n, b in zip(self.counts, self.size))

    def valid(self, fn: Fn, starts: Sequence[Any], images: Any = None) -> list[Any]:
        """How many outputs of the block that begins at `starts` there are, by dimension.

        `images` is where they end, if before all have been seen.
        """
        counts: list[Any] = list(self.size)
        for d, (n, b) in enumerate(zip(self.counts, self.size, strict=True)):
            end = images if d == 0 and images is not None else n
            if b > 1 and (end is not n or n % b):
                counts[d] = smin(fn, fn.val(f"sub i64 {end}, {starts[d]}"), b)
        return counts

    def following(self, fn: Fn, starts: Sequence[Any]) -> list[Any]:
        """Where the block after the one that begins at `starts` does; after the last, the first."""
        found: list[Any] = [0] * len(self.size)
        on = "true"
        for d in range(len(self.size) - 1, -1, -1):
            n, b = self.counts[d], self.size[d]
            if b < n:
                start = fn.add(starts[d], fn.val(f"select i1 {on}, i64 {b}, i64 0"))
                over = fn.val(f"icmp sge i64 {start}, {n}")
                found[d] = fn.val(f"select i1 {over}, i64 0, i64 {start}")
                on = over
        return found

    @property
    def points(self) -> int:
        return prod(self.size)

    @property
    def point_strides(self) -> tuple[int, ...]:
        return _row_major(self.size)

    @property
    def extents(self) -> tuple[int, ...]:
        """The elements of one channel that a block reads, images first."""
        return (self.size[0], *(w.extent(b) for w, b in zip(self.walks, self.size[1:])))

    @property
    def extent_strides(self) -> tuple[int, ...]:
        return _row_major(self.extents)

    @property
    def out_steps(self) -> tuple[int, ...]:
        """How far neighbouring outputs are apart in what is read."""
        steps = self.extent_strides
        return (steps[0], *(s * (w.step // w.pitch if w.count > 1 else 0)
                            for s, w in zip(steps[1:], self.walks)))

    def taps(self) -> list[int]:
        """Where each tap of the first output lies in what is read, in the kernel's order."""
        steps = self.extent_strides[1:]
        return [sum(w.tap_offset(j) * s for w, j, s in zip(self.walks, tap, steps))
                for tap in itertools.product(*(range(w.taps) for w in self.walks))]

    def offsets(self, rect: Sequence[int], strides: Sequence[int]) -> list[int]:
        """Where the points of a rectangle lie, given the distances of neighbours."""
        return [sum(i * s for i, s in zip(at, strides))
                for at in itertools.product(*map(range, rect))]


def evened(block: Block, each: int) -> Block:
    """The block, or one a little smaller that threads share more evenly.

    There are `each` tiles for every block of outputs.  All that it is chosen by is how long two,
    four and eight threads would take, so that any number of them computes the same tiles.
    """
    d = block.split
    if d < 0:
        return block
    unit, whole = block.micro[d], -(-block.counts[d] // block.micro[d])
    now = block.size[d] // unit
    outer = prod(block.blocks[:d]) * prod(block.blocks[d + 1:])

    def cost(times: int) -> float:
        ends = [times] * (whole // times) + [whole % times] * (whole % times > 0)
        tiles = [t for _ in range(outer) for t in ends for _ in range(each)]
        most = sum(_longest(tiles, n) * n for n in (2, 4, 8)) / (3 * sum(tiles))
        return most + _SMALLER * len(ends) * times / whole * now / times

    if -(-whole // now) * outer * each > _EVEN:
        return block
    best = min(range(now, max(now * 2 // 3, 1) - 1, -1), key=cost)
    return replace(block, size=(*block.size[:d], best * unit, *block.size[d + 1:]))


_EVEN = 128
"""Tiles that are shared evenly enough."""
_SMALLER = 0.03
"""What blocks half as large cost more, of the whole."""


def _longest(tiles: Sequence[int], threads: int) -> int:
    """When the last of some tiles is done, half of the threads taking them from either end."""
    free = [0] * threads
    first, last = 0, len(tiles)
    while first < last:
        who = free.index(min(free))
        if who % 2:
            last -= 1
        free[who] += tiles[last if who % 2 else first]
        first += 1 - who % 2
    return max(free)


def _row_major(shape: Sequence[int]) -> tuple[int, ...]:
    out, step = [], 1
    for n in reversed(shape):
        out.append(step)
        step *= n
    return tuple(reversed(out))


def reached(fn: Fn, firsts: Sequence[Any], *layouts: Sequence[int], begin: Sequence[Any] = ()
            ) -> list[Any]:
    """How far the outputs `firsts` of a block lie in each of some layouts, given as the strides of
    its dimensions; from `begin` instead of zero."""
    found = [*begin] or [0] * len(layouts)
    for i, *strides in zip(firsts, *layouts, strict=True):
        found = [fn.add(at, fn.mul(i, s)) for at, s in zip(found, strides, strict=True)]
    return found
