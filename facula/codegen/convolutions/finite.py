"""Whether anything among the sums of a tile is an infinity or a NaN.

Minimal filtering spreads such a number over its whole square, and tile registers over what lies
beside the places of a line; a tile in which one is seen is computed again by the plain sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from facula.codegen.convolutions.direct import TileWriter
from facula.codegen.llvm import Fn

__all__ = ["Watch"]


class Watch:
    """A vector on the stack to which everything that is seen is added, times zero: it stays zero
    for as long as all of it is finite, and becomes NaN for good otherwise.

    A function that is called goes on with its caller's, at `memory`.
    """

    def __init__(self, tiles: TileWriter, fn: Fn, memory: str = ""):
        self.tiles, self.fn = tiles, fn
        self.memory = memory or fn.alloca(tiles.vector, 1)
        self.so_far = ""
        if not memory:
            fn.store(tiles.vector, "zeroinitializer", self.memory, 64)

    def see(self, value: str) -> None:
        """Look at a vector; at the sum of several for all of them, as that is finite only where
        they are."""
        vector, fn, zero = self.tiles.vector, self.fn, self.tiles.constant(0.0)
        if self.so_far:
            more = fn.fresh("w")
            self.tiles.multiply_add(fn, value, zero, self.so_far, more)
            self.so_far = more
        else:
            product = fn.val(f"fmul {vector} {value}, {zero}")
            self._write(fn.val(f"fadd {vector} {self._read()}, {product}"))

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is seen inside goes to memory once."""
        self.so_far = self._read()
        yield
        self._write(self.so_far)
        self.so_far = ""

    def wrong(self) -> str:
        """Whether something was seen that is not finite (an i1)."""
        vector, lanes, fn = self.tiles.vector, self.tiles.lanes, self.fn
        seen = self._read()
        bad = fn.val(f"fcmp uno {vector} {seen}, {seen}")
        bits = fn.val(f"bitcast <{lanes} x i1> {bad} to i{lanes}")
        return fn.val(f"icmp ne i{lanes} {bits}, 0")

    def _read(self) -> str:
        return self.fn.load(self.tiles.vector, self.memory, 64)

    def _write(self, value: str) -> None:
        self.fn.store(self.tiles.vector, value, self.memory, 64)
