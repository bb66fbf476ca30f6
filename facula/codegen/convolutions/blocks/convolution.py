"""Convolutions on blocks of channels: the kernel of `conv_blocks`.

The source is `[N, C / lanes, H, W, lanes]` (or `[N, C, H, W]`, where it has fewer channels than a
vector has lanes), the result `[N, O / lanes, H, W, lanes]`.  Rows of a register tile are places,
whose neighbours are a vector apart; its columns are one or two blocks of output channels.  What
follows the convolution is computed on a tile's sums, which already lie as the result does.

The packed weight is `[panel, C / lanes, tap, lane, columns]` (`[panel, C, tap, columns]` of a
plain source, `[C / lanes, tap, lane]` where each channel is a group of its own), and for minimal
filtering `[panel, 16 or 36, C / lanes, lane, columns]`; see `blocks.squares`.
Where the lanes do not divide C, its last block has only the lanes that are channels, while those of
sources and results are all whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from math import prod
from typing import Any

from facula import config
from facula.codegen.kernel import View

__all__ = ["LONGEST", "PLACES", "Blocks", "OnBlocks", "adjoint_suits", "squares_suit", "vectors_of"]

_NOWHERE = View(())


@dataclass(frozen=True)
class OnBlocks:
    """A convolution on blocks, or a gradient of one, by what it is attributes of a step.

    `x`, `w` and `y` are the shapes as the user has them; `a` and `b` say where its operands lie.
    """

    x: tuple[int, ...]
    w: tuple[int, ...]
    y: tuple[int, ...]
    stride: tuple[int, ...]
    low: tuple[int, ...]
    dilation: tuple[int, ...]
    blocked: bool                   # the source, too
    lanes: int
    a: View = field(default=_NOWHERE, kw_only=True)
    b: View = field(default=_NOWHERE, kw_only=True)

    dtype = "float32"

    def attrs(self) -> tuple[Any, ...]:
        """As the attributes of a step, in the order that the class takes them."""
        return tuple([getattr(self, f.name) for f in fields(self) if not f.kw_only])

    def direct(self) -> float:
        """Operations of plain sums."""
        return 2.0 * prod(self.y) * prod(self.w[1:])


@dataclass(frozen=True)
class Blocks(OnBlocks):
    """A convolution."""

    depthwise: bool = False
    squares: int = 0                # by minimal filtering: outputs along a side of a square
    adjoint: bool = False           # of a gradient by its input, of which squares are cut

    kind = "conv_blocks"
    parts = 0

    @property
    def flops(self) -> float:
        return self.direct() / (3 * self.squares / (self.squares + 2)) ** 2 if self.squares \
            else self.direct()

    def by_squares(self, side: int) -> Blocks:
        """The same by minimal filtering of `side` outputs at a time, along either axis."""
        return replace(self, squares=side)

    @property
    def pointwise(self) -> bool:
        """Whether every place reads itself alone, so that places are one line."""
        return self.blocked and prod(self.w[2:]) == 1 and prod(self.stride) == 1 \
            and not any(self.low) and not self.depthwise


def vectors_of(c: Blocks) -> int:
    """How many vectors wide a register tile is."""
    return min(2, -(-c.w[0] // c.lanes))


PLACES = 2048
"""Places below which a convolution takes too little time to transform its weight each time."""


LONGEST = 1024
"""Places of a line up to which it is cut into squares: a tile has room for whole lines."""


def squares_suit(c: Blocks, lasting: bool) -> int:
    """Where 3x3 kernels cost less by minimal filtering, transforms included: how many outputs a
    square's side is to have; else 0.  `lasting` is whether the weight's transform is kept."""
    if not config.flag.WINOGRAD or not c.blocked or c.depthwise or c.lanes < 8 \
            or c.x[1] % c.lanes or c.w[0] < c.lanes:
        return 0
    if c.w[2:] != (3, 3) or c.stride != (1, 1) or c.dilation != (1, 1) or c.y[-1] > LONGEST:
        return 0
    sizes = c.x[2:] if c.adjoint else c.y[2:]
    places = c.x[0] * prod(sizes)
    if not lasting and places < PLACES:
        return 0

    def squares(side: int) -> int:
        return c.x[0] * prod(-(-n // side) for n in sizes)

    # the larger squares have 36 weights for 9: there must be enough of them to use each
    if squares(4) >= 32 and 36 * squares(4) <= 0.75 * 16 * squares(2):
        return 4
    return 2 if squares(2) >= 16 and 4 * squares(2) <= 1.4 * places else 0


WHOLE = 64
"""Squares of an image up to which a tile has all of them."""


def adjoint_suits(c: Blocks) -> Blocks | None:
    """An input's gradient, which as a convolution is `c`, by the transpose of minimal filtering:
    where that has fewer squares than the convolution, and a tile has room for an image."""
    if c.low != (2, 2):
        return None
    turned = replace(c, adjoint=True)
    side = squares_suit(turned, False)
    if not side or prod(-(-n // side) for n in c.x[2:]) > WHOLE:
        return None
    return turned.by_squares(side)
