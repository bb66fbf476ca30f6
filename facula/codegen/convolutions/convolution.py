"""What a convolution is, or one of its two derivatives, and what follows it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

from facula.codegen.convolutions.walks import Block, Walk, backward_walks, forward_walk
from facula.codegen.kernel import KernelDraft, Role, View
from facula.codegen.llvm import Fn
from facula.dtype import DTYPES

__all__ = ["Convolution", "Emitted", "Finish"]


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

    packing: list[KernelDraft]
    last: list[tuple[KernelDraft, Any]]
    temporaries: list[tuple[str, int]]
