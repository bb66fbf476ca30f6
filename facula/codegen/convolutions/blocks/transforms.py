"""The transforms of minimal filtering, of squares of vectors: functions that kernels call.

A vector is a block of channels, so that a transform is additions of whole vectors and nothing is
shuffled.  Along each axis neighbours go through one of a few maps, and a square through the same
one twice:

    inputs      of side + 2 neighbours of the source, what products are made of
    outputs     of side + 2 products, `side` neighbouring outputs
    gradients   of the gradients of `side` outputs, what products for gradients are made of: the
                transpose of `outputs`
    sources     of side + 2 products, the gradients of as many neighbours of the source: the
                transpose of `inputs`

Squares of 2x2 outputs take 16 products of 4x4 inputs; those of 4x4 outputs take 36 of 6x6.  The
latter's maps are those of Toom and Cook with the points 0, 5/8, -5/8, 3/2, -3/2 and infinity, of
which sums lose fewer bits than with whole numbers (on the choice of points: Barabasz, Anderson,
Soodhalter and Gregg, "Error analysis and improving the accuracy of Winograd convolution", 2020).

Each is a function of its own, which is compiled as it is written.  Larger squares have more values
than there are registers: they are transformed a part of the first axis at a time, whatever of the
second belongs to it, and read again for the next part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from facula.codegen.convolutions.direct import TileWriter
from facula.codegen.convolutions.finite import Watch
from facula.codegen.llvm import Fn

__all__ = ["FAR", "NEAR", "back", "forth", "scatter", "spread", "weight_back"]

NEAR, FAR = 0.625, 1.5
"""The points of larger squares, with either sign; their squares and the products of these are
numbers of float32."""

_Map = Callable[[Sequence[str], Sequence[int]], list[str]]
_Parts = Sequence[Sequence[int]]

_ALL = {2: range(2), 3: range(3), 4: range(4), 6: range(6)}
_PRODUCTS: dict[int, _Parts] = {2: ((0, 1, 2, 3),), 4: ((0, 1, 2), (3, 4, 5))}
_SOURCES: dict[int, _Parts] = {2: ((0, 1, 2, 3),), 4: ((0, 2, 4), (1, 3, 5))}
_OUTPUTS: dict[int, _Parts] = {2: ((0, 1),), 4: ((0, 2), (1, 3))}


class _Sums:
    """The maps along one axis; `some` are those of the values that are wanted."""

    def __init__(self, tiles: TileWriter, fn: Fn):
        self.tiles, self.fn = tiles, fn

    def op(self, name: str, a: str, b: str) -> str:
        return self.fn.val(f"{name} {self.tiles.vector} {a}, {b}")

    def scaled(self, a: str, by: float) -> str:
        return self.op("fmul", a, self.tiles.constant(by))

    def add(self, total: str, a: str, by: float) -> str:
        """total + by * a"""
        made = self.fn.fresh("m")
        self.tiles.multiply_add(self.fn, a, self.tiles.constant(by), total, made)
        return made

    def inputs(self, d: Sequence[str], some: Sequence[int]) -> list[str]:
        op, add = self.op, self.add
        if len(d) == 4:
            a, b, c, e = d
            found = {0: op("fsub", a, c), 1: op("fadd", b, c), 2: op("fsub", c, b),
                     3: op("fsub", b, e)}
            return [found[i] for i in some]
        near, far = NEAR ** 2, FAR ** 2
        found = {}
        if 0 in some:
            found[0] = add(add(d[4], d[2], -near - far), d[0], near * far)
        for i, point, other in ((1, NEAR, far), (3, FAR, near)):
            if i in some or i + 1 in some:
                even, odd = add(d[4], d[2], -other), add(d[3], d[1], -other)
                found[i], found[i + 1] = add(even, odd, point), add(even, odd, -point)
        if 5 in some:
            found[5] = add(add(d[5], d[3], -near - far), d[1], near * far)
        return [found[i] for i in some]

    def outputs(self, m: Sequence[str], some: Sequence[int]) -> list[str]:
        op, add = self.op, self.add
        if len(m) == 4:
            a, b, c, e = m
            found = {0: op("fadd", op("fadd", a, b), c), 1: op("fsub", op("fsub", b, c), e)}
            return [found[i] for i in some]
        found = {}
        if 0 in some or 2 in some:
            even, even2 = op("fadd", m[1], m[2]), op("fadd", m[3], m[4])
            found[0] = op("fadd", op("fadd", m[0], even), even2)
            found[2] = add(self.scaled(even, NEAR ** 2), even2, FAR ** 2)
        if 1 in some or 3 in some:
            odd, odd2 = op("fsub", m[1], m[2]), op("fsub", m[3], m[4])
            found[1] = add(self.scaled(odd, NEAR), odd2, FAR)
            found[3] = add(add(m[5], odd, NEAR ** 3), odd2, FAR ** 3)
        return [found[i] for i in some]

    def gradients(self, g: Sequence[str], some: Sequence[int]) -> list[str]:
        op, add = self.op, self.add
        if len(g) == 2:
            a, b = g
            found = {0: a, 1: op("fadd", a, b), 2: op("fsub", a, b),
                     3: self.fn.val(f"fneg {self.tiles.vector} {b}")}
            return [found[i] for i in some]
        found = {0: g[0], 5: g[3]}
        for i, point in ((1, NEAR), (3, FAR)):
            if i in some or i + 1 in some:
                even = add(g[0], g[2], point ** 2)
                odd = add(self.scaled(g[1], point), g[3], point ** 3)
                found[i], found[i + 1] = op("fadd", even, odd), op("fsub", even, odd)
        return [found[i] for i in some]

    def sources(self, m: Sequence[str], some: Sequence[int]) -> list[str]:
        op, add = self.op, self.add
        if len(m) == 4:
            a, b, c, e = m
            found = {0: a, 1: op("fadd", op("fsub", b, c), e), 2: op("fsub", op("fadd", b, c), a),
                     3: self.fn.val(f"fneg {self.tiles.vector} {e}")}
            return [found[i] for i in some]
        near, far = NEAR ** 2, FAR ** 2
        found = {}
        if 0 in some or 2 in some or 4 in some:
            even, even2 = op("fadd", m[1], m[2]), op("fadd", m[3], m[4])
            found[0] = self.scaled(m[0], near * far)
            found[2] = add(add(self.scaled(m[0], -near - far), even, -far), even2, -near)
            found[4] = op("fadd", op("fadd", m[0], even), even2)
        if 1 in some or 3 in some or 5 in some:
            odd, odd2 = op("fsub", m[1], m[2]), op("fsub", m[3], m[4])
            found[1] = add(add(self.scaled(m[5], near * far), odd, -far * NEAR), odd2,
                           -near * FAR)
            found[3] = add(add(self.scaled(m[5], -near - far), odd, NEAR), odd2, FAR)
            found[5] = m[5]
        return [found[i] for i in some]

    def taps(self, m: Sequence[str], some: Sequence[int]) -> list[str]:
        """Of side + 2 products, the gradients of three taps: the transpose of what makes the
        weight's transform (`facula.schedule.layout`)."""
        op, add = self.op, self.add
        if len(m) == 4:
            a, b, c, e = m
            both = self.scaled(op("fadd", b, c), 0.5)
            return [op("fadd", a, both), self.scaled(op("fsub", b, c), 0.5), op("fadd", both, e)]
        first, second, third = self.scaled(m[0], 1 / (NEAR * FAR) ** 2), "", m[5]
        for i, point, other in ((1, NEAR, FAR), (3, FAR, NEAR)):
            over = 2 * point ** 2 * (point ** 2 - other ** 2)
            even, odd = op("fadd", m[i], m[i + 1]), op("fsub", m[i], m[i + 1])
            first, third = add(first, even, 1 / over), add(third, even, point ** 2 / over)
            second = add(second, odd, point / over) if second else self.scaled(odd, point / over)
        return [first, second, third]


def _squared(way: _Map, size: int, wanted: int, parts: _Parts, load: Callable[[int, int], str],
             store: Callable[[int, int, str], None]) -> None:
    """A square of `size` through a map along both axes, `wanted` values along each."""
    for some in parts:
        columns = [way([load(r, k) for r in range(size)], some) for k in range(size)]
        for i, row in zip(some, zip(*columns, strict=True), strict=True):
            for j, value in enumerate(way(row, _ALL[wanted])):
                store(i, j, value)


def _function(tiles: TileWriter, name: str, *more: tuple[str, str]) -> Fn:
    return Fn(tiles.module, name, (("ptr", "from"), ("ptr", "to"), *more),
              attrs=f"noinline {tiles.t.attributes}", inner=True)


def forth(tiles: TileWriter, line: int, far: int, side: int) -> str:
    """The function (from, to) of `inputs`: lines of its source are `line` vectors, what it makes
    is `far` elements apart."""
    name = "KERNEL_forth"
    if name not in tiles.module.functions:
        fn = _function(tiles, name)
        scalar, vector, lanes, n = tiles.scalar, tiles.vector, tiles.lanes, side + 2
        _squared(_Sums(tiles, fn).inputs, n, n, _PRODUCTS[side],
                 lambda r, k: fn.load(vector, fn.gep(scalar, "%from", (r * line + k) * lanes), 4),
                 lambda i, j, value: fn.store(vector, value, fn.gep(scalar, "%to",
                                                                    (n * i + j) * far), 4))
        fn.finish()
    return name


def back(tiles: TileWriter, far: int, line: int, side: int, beyond: Sequence[int]) -> str:
    """The function (from, to, watch, down, along) of `outputs`, of products that are `far` apart.

    Unless %down what is from beyond[0] on is nowhere, unless %along what is from beyond[1] on.
    The vector at %watch is not a number where an output is not finite.
    """
    return _written(tiles, "KERNEL_back", _Sums.outputs, _OUTPUTS[side], far, line, side, beyond,
                    False)


def spread(tiles: TileWriter, steps: Sequence[int], far: int, side: int,
           edges: Sequence[bool]) -> str:
    """The function (from, to, down, along) of `gradients`; places are `steps` elements apart.

    Along an axis with an edge there are only %down, or %along, places; zeros follow.
    """
    name = "KERNEL_spread"
    if name in tiles.module.functions:
        return name
    fn = _function(tiles, name, ("i64", "down"), ("i64", "along"))
    zeros = tiles.module.define(
        "KERNEL_zeros", f"internal unnamed_addr constant {tiles.vector} zeroinitializer, align 64")
    scalar, vector, n = tiles.scalar, tiles.vector, side + 2
    inside = [["", *(fn.val(f"icmp slt i64 {i}, {left}") for i in range(1, side))] if edge
              else [""] * side for edge, left in zip(edges, ("%down", "%along"), strict=True)]

    def load(r: int, k: int) -> str:
        at = fn.gep(scalar, "%from", r * steps[0] + k * steps[1])
        for there in (inside[0][r], inside[1][k]):
            if there:
                at = fn.val(f"select i1 {there}, ptr {at}, ptr {zeros}")
        return fn.load(vector, at, 4)

    _squared(_Sums(tiles, fn).gradients, side, n, _PRODUCTS[side], load,
             lambda i, j, value: fn.store(vector, value, fn.gep(scalar, "%to",
                                                                (n * i + j) * far), 4))
    fn.finish()
    return name


def scatter(tiles: TileWriter, far: int, line: int, side: int, beyond: Sequence[int]) -> str:
    """The function (from, to, watch, down, along) of `sources`, of products that are `far` apart;
    they are added to what is there.

    Otherwise as `back` has it.
    """
    return _written(tiles, "KERNEL_scatter", _Sums.sources, _SOURCES[side], far, line, side,
                    beyond, True)


def _written(tiles: TileWriter, name: str, sums: Any, parts: Any, far: int, line: int, side: int,
             beyond: Sequence[int], added: bool) -> str:
    """What a square of products comes to, stored or added where it is not beyond the last place."""
    fn = _function(tiles, name, ("ptr", "watch"), ("i1", "down"), ("i1", "along"))
    scalar, vector, lanes, n = tiles.scalar, tiles.vector, tiles.lanes, side + 2
    sink = fn.alloca(vector, 1)
    if added:
        fn.store(vector, "zeroinitializer", sink, 64)
    watch = Watch(tiles, fn, "%watch")

    def store(r: int, k: int, value: str) -> None:
        to = fn.gep(scalar, "%to", (r * line + k) * lanes)
        for there, i, end in (("%down", r, beyond[0]), ("%along", k, beyond[1])):
            if i >= end:
                to = fn.val(f"select i1 {there}, ptr {to}, ptr {sink}")
        if added:
            value = fn.val(f"fadd {vector} {fn.load(vector, to, 4)}, {value}")
        fn.store(vector, value, to, 4)
        watch.see(value)

    with watch.together():
        _squared(partial(sums, _Sums(tiles, fn)), n, n if added else side, parts,
                 lambda r, k: fn.load(vector, fn.gep(scalar, "%from", (n * r + k) * far), 4), store)
    fn.finish()
    return name


def weight_back(tiles: TileWriter, far: int, apart: int, side: int) -> str:
    """The function (from, to, watch) of `taps`: products are `far` apart, taps `apart`."""
    name = "KERNEL_weight_back"
    fn = _function(tiles, name, ("ptr", "watch"))
    scalar, vector, n = tiles.scalar, tiles.vector, side + 2
    watch = Watch(tiles, fn, "%watch")

    def store(i: int, j: int, value: str) -> None:
        fn.store(vector, value, fn.gep(scalar, "%to", (3 * i + j) * apart), 4)
        watch.see(value)

    with watch.together():
        _squared(_Sums(tiles, fn).taps, n, 3, (_ALL[3],),
                 lambda r, k: fn.load(vector, fn.gep(scalar, "%from", (n * r + k) * far), 4), store)
    fn.finish()
    return name
