"""Kinds of steps as schedules and generators tell them apart, and what an element of each costs."""

from __future__ import annotations

from facula.graph.spec import Step
from facula.ops.primitive.recurrent import RECURRENT
from facula.ops.table import PRIMS

__all__ = ["ATTENTION", "CONVOLUTIONS", "ELEMENTWISE", "FREE", "INLINE", "LOOPED", "MOVEMENT",
           "ON_BLOCKS", "PRODUCTS", "REDUCE", "RESULTS", "SCAN", "UPDATE", "WHOLE", "op_cost"]

ELEMENTWISE = frozenset(name for name, record in PRIMS.items() if record.kind == "elementwise")
"""Every primitive that `facula.codegen.elements.expr.emit_op` can write."""

MOVEMENT = frozenset(["reshape", "permute", "expand", "slice", "as_strided", "alias"])
"""Operations that only rearrange elements of one input."""

INLINE = ELEMENTWISE | MOVEMENT | {"full", "iota", "philox", "pad", "cat", "slice_update",
                                   "take", "gather", "scalar", "window_place"}
"""Operations whose elements can be computed wherever they are needed."""

REDUCE = frozenset(["sum", "prod", "amax", "amin", "any", "all", "argmax", "argmin"])
SCAN = frozenset(["cumsum", "cumprod", "cummax", "cummin"])
UPDATE = frozenset(["scatter", "index_put", "as_strided_update"])
FREE = frozenset(["leaf", "scalar", "full", "iota"])
"""Nothing is computed for these."""

ON_BLOCKS = frozenset(["conv_blocks", "conv_weight_blocks"])
CONVOLUTIONS = ON_BLOCKS | {"conv", "conv_input", "conv_weight"}
PRODUCTS = CONVOLUTIONS | {"matmul"}
"""Operations that have kernels of their own, with what follows them as the end of their tiles."""

ATTENTION = {"attention": "qkv", "attention_lse": "qk", "attention_dq": "qkvgld",
             "attention_dk": "qkvgld", "attention_dv": "qkgl"}
"""Operations whose kernels make several of them at once, and the letters of their operands as
`facula.codegen.attention.kernels` calls them; a mask may follow."""

WHOLE = PRODUCTS | set(ATTENTION)
"""Operations that find all of their operands in memory, with strides."""

RESULTS = {"attention": "o", "attention_lse": "L", "attention_dq": "dq", "attention_dk": "dk",
           "attention_dv": "dv"}
"""The letters of what attention steps compute."""

LOOPED = frozenset([*RECURRENT, "recur_sums"])
"""What loops over time compute.  `recur_sums`, which only schedules have, is the sum of the rows
of an adjoint's gates [T N, G H], one sum for each tile of the loop: [tiles, G H]."""

_COSTS = {"exp": 8, "expm1": 10, "log": 8, "log1p": 10, "log2": 8, "log10": 8, "exp2": 8,
          "sin": 10, "cos": 10, "tan": 14, "tanh": 12, "erf": 12, "erfc": 16, "erfinv": 40,
          "sigmoid": 12, "pow": 25, "div": 4, "sqrt": 4, "rsqrt": 6, "reciprocal": 4, "philox": 40,
          "floor_divide": 12, "remainder": 12, "fmod": 20, "atan2": 20, "hypot": 8,
          "logaddexp": 20, "take": 3, "gather": 12, "cat": 3, "pad": 3, "slice_update": 4}
_TRANSCENDENTAL = 10


def op_cost(step: Step) -> int:
    """Rough cost of one element, in simple vector operations."""
    if step.op in MOVEMENT or step.op in ("full", "scalar", "leaf", "iota"):
        return 0
    if step.op in ("sin", "cos", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh",
                   "atanh"):
        return _TRANSCENDENTAL
    return _COSTS.get(step.op, 1)
