"""What a convolution is, or one of its two derivatives, and which kernels compute it.

`conv` and `conv_input` are one kernel (forward.py): places are the rows of register tiles,
output channels their vectors, and the sum runs over input channels and taps; `conv_weight` is in
weight.py.  The order in which an element is summed depends on the shapes alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

from facula.codegen.convolutions.direct import View
from facula.codegen.convolutions.forward import Forward
from facula.codegen.convolutions.lanewise import Lanes
from facula.codegen.convolutions.walks import Block, Walk, backward_walks, forward_walk
from facula.codegen.convolutions.weight import Weight
from facula.codegen.llvm import Fn
from facula.codegen.products.contraction import Kernel, Role
from facula.codegen.target import target
from facula.dtype import DTYPES

__all__ = ["Convolution", "Emitted", "Finish", "emit_convolution"]


@dataclass(frozen=True)
class Convolution:
    """One of the three products of `facula.ops.primitive.convolution`, on operands in memory.

    `x`, `w` and `y` are the shapes of input, weight and result of the convolution itself, whatever
    of the three this step computes; `a` and `b` say where its two operands lie.  With `short` these
    are bfloat16, and are multiplied in pairs (`convolutions.pairs`).
    """

    kind: str
    dtype: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    y: tuple[int, ...]
    stride: tuple[int, ...]
    low: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    a: View
    b: View
    parts: int = 0
    short: bool = False         # of bfloat16 operands; `dtype` is that of sums and result
    lasting: bool = False       # what is made of the weight is kept for many runs

    @property
    def flops(self) -> float:
        return 2.0 * prod(self.y) * prod(self.w[1:])

    @property
    def item(self) -> int:
        return DTYPES[self.dtype].itemsize

    def walks(self) -> list[tuple[Walk, ...]]:
        """How each kernel of the product walks over its source."""
        spatial = list(zip(self.x[2:], self.y[2:], self.w[2:], self.stride, self.low,
                           self.dilation))
        if self.kind == "conv_input":
            lines = [backward_walks(out, n, *rest) for n, out, *rest in spatial]
            return list(itertools.product(*lines))
        return [tuple(forward_walk(*line) for line in spatial)]


class Finish(Protocol):
    """What becomes of a finished tile.

    `start` loads pointers, before the first loop, and `ask` may ask for memory that `places` will
    write.  `places` writes sums[o * ld + i] of channels o and neighbouring outputs i; `taps` those
    of the weight: output channels o, and input channels and taps i.  Channel o is channel +
    o * step of the result.
    """

    def ask(self, fn: Fn, block: Block, starts: Sequence[Any], counts: Sequence[Any],
            channel: Any, channels: Any) -> None: ...

    def places(self, fn: Fn, block: Block, starts: Sequence[Any], counts: Sequence[Any],
               channel: Any, channels: Any, sums: str, ld: int, step: int = 1) -> None: ...

    def taps(self, fn: Fn, part: Any, channel: Any, channels: Any, first: Any, count: Any,
             sums: str, ld: int, step: int = 1) -> None: ...

    def roles(self) -> tuple[Role, ...]: ...

    first: int
    """How many operands the kernel has before those of its end."""


@dataclass
class Emitted:
    """Kernels of the packing phase and of the last one (each with its `Finish`)."""

    packing: list[Kernel]
    last: list[tuple[Kernel, Any]]
    temporaries: list[tuple[str, int]]


def emit_convolution(c: Convolution, finish: Any) -> Emitted:
    """Write the kernels of `c`; `finish()` makes what is to follow a tile of one of them."""
    out = Emitted([], [], [])
    t = target()
    if c.short:
        from facula.codegen.convolutions.amx import emit_short
        emit_short(c, t, finish, out)
        return out
    if c.kind == "conv_weight":
        Weight(c, t, finish()).emit(out)
        return out
    for walks in c.walks():
        forward = Forward(c, walks, t, finish())
        if forward.taps and forward.by_lanes:
            Lanes(forward).emit(out)
        else:
            forward.emit(out)
    return out
