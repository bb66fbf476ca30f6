"""Convolutions by kernels of one point: matrix products of the weight and an image's places.

A vector of the product is neighbouring places, as they lie in memory, so that nothing is turned on
the way in or out: result[image, channel, place] = sum over channels of weight times
source[image, channel, place].  What follows is written into the product's tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from facula.codegen.convolutions.convolution import Convolution
from facula.codegen.llvm import Fn
from facula.codegen.products.contraction import Contraction
from facula.codegen.products.epilogue import GroupEpilogue, bind
from facula.codegen.target import target
from facula.groups.index import Index, loop_var, unflatten

__all__ = ["Pointwise", "product_of"]


def product_of(c: Convolution) -> Contraction | None:
    """The convolution (or its gradient by the input) as a product batched over images and groups;
    None where it is none, or where an image's places do not fill vectors."""
    size = c.y[2:]
    if c.kind not in ("conv", "conv_input") or prod(c.w[2:]) != 1 or size != c.x[2:] \
            or any(c.low) or prod(c.stride) != 1:
        return None
    places, out, red = prod(size), c.w[0] // c.groups, c.w[1]
    lanes = target().lanes(c.item)
    image, channel, *lines = c.a.strides
    if places < 4 * lanes or -places % lanes > places // 8 or min(out, red) < lanes:
        return None
    live = [(n, s) for n, s in zip(size, lines, strict=True) if n > 1]
    if any(s != m * t for (_, s), (m, t) in zip(live, live[1:])):
        return None
    first, second = c.b.strides[:2]
    own, other = (first, second) if c.kind == "conv" else (second, first)
    if c.kind == "conv_input":
        out, red = red, out
    whole = c.groups * out * places
    return Contraction("bfloat16" if c.short else c.dtype, (c.x[0], c.groups), out, places, red,
                       (0, c.w[0] // c.groups * first, own, other),
                       (image, red * channel, channel, live[-1][1]),
                       (whole, out * places, places, 1), a_offset=c.b.offset,
                       b_offset=c.a.offset)


class Pointwise(GroupEpilogue):
    """The items of a group on the tiles of a convolution that is a matrix product."""

    def ask(self, fn: Fn, m0: Any, n0: Any, rows: Any, cols: Any,
            batch_indices: tuple[Any, ...]) -> None:
        """Neighbouring places are many: the processor sees them coming, but for those of a short
        line of bfloat16, which would be waited for as they are written."""
        assert self.c is not None
        if self.c.dtype != "bfloat16":
            return
        writer, self.begun = self.begin(fn), True
        named, _, variables = self._axes()
        rounded = self.rounded(variables, named[-1], self.c.sums)
        if rounded is None:
            return
        em = writer.emitter
        f = fn.module.declare("void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        with fn.loop(0, rows, hint="ask", metadata=fn.module.untouched()) as i:
            em.open()
            bind(em, named, [*self._row(fn, batch_indices, fn.add(m0, i)), n0])
            to = fn.gep("i16", writer.pointer(rounded.slot), em.index(rounded.at))
            em.close()
            with fn.loop(0, cols, 32, "line", fn.module.untouched()) as j:
                fn.do(f"call void {f}(ptr {fn.gep('i16', to, j)}, i32 1, i32 2, i32 1)")

    def _axes(self) -> tuple[Sequence[Index], tuple[Index, ...], Sequence[Index]]:
        shape = self.steps[self.product].spec.shape
        n_all, c_all, *size = shape
        image, own = loop_var("image", n_all, 0), loop_var("channel", c_all, 1)
        flat = loop_var("place", prod(size), 2)
        index = (image, own, *unflatten(flat, size))
        return (image, own, flat), index, [i for i, n in zip(index, shape, strict=True) if n != 1]

    def _row(self, fn: Fn, batch_indices: tuple[Any, ...], m: Any) -> list[Any]:
        assert self.c is not None
        image, group = batch_indices
        return [image, fn.add(fn.mul(group, self.c.m), m)]
