"""The table of primitives: `PRIMS[name]` is the `Primitive` record of one operation.

Each is declared once, in `facula.ops.primitive`; importing this module loads every family.
"""

from __future__ import annotations

from facula.ops.primitive import (
    activation,
    attention,
    contract,
    convolution,
    creation,
    drawn,
    elementwise,
    fourier,
    indexing,
    matrix,
    movement,
    recurrent,
    reduce,
    scan,
    sort,
    special_functions,
    whole,
)
from facula.ops.primitive.record import PRIMS, Primitive, Sample, register

__all__ = ["PRIMS", "Primitive", "Sample", "register", "FAMILIES"]

FAMILIES = (creation, elementwise, activation, reduce, movement, indexing, scan, contract,
            convolution, attention, recurrent, sort, fourier, matrix, special_functions, whole,
            drawn)
