"""Which kernels compute a convolution, or one of its two derivatives.

`conv` and `conv_input` are one kernel (forward.py): places are the rows of register tiles, output
channels their vectors, and the sum runs over input channels and taps; `conv_weight` is in
weight.py.  The order in which an element is summed depends on the shapes alone.
"""

from __future__ import annotations

from typing import Any

from facula.codegen.convolutions.convolution import Convolution, Emitted
from facula.codegen.convolutions.forward import Forward
from facula.codegen.convolutions.lanewise import Lanes
from facula.codegen.convolutions.weight import Weight
from facula.codegen.target import target

__all__ = ["emit_convolution"]


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
