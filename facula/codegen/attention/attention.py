"""What attention is to compute."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from facula.codegen.kernel import View

__all__ = ["Attention"]


@dataclass(frozen=True)
class Attention:
    """What is to be computed, with static shapes.

    `views` says by letter where an operand or result lies: its strides over (batch..., rows,
    columns), or (batch..., rows) for lse and delta, and where it begins.  Operands: q, k, v, g
    (gradient of the result), l (lse), d (delta), m (mask); results: o, L (lse), dq, dk, dv.
    """

    dtype: str
    batch: tuple[int, ...]
    rows: int
    keys: int
    width: int
    deep: int
    scale: float
    causal: bool
    mask: str                       # the dtype of the mask, '' where there is none
    views: dict[str, View]

    @property
    def sums(self) -> str:
        return "float32" if self.dtype in ("float16", "bfloat16") else self.dtype

    @property
    def scores(self) -> float:
        """How many scores there are; of causal ones half are not looked at."""
        return prod(self.batch) * self.rows * self.keys * (0.5 if self.causal else 1.0)
