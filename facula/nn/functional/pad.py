"""Padding: constant, reflected, replicated, circular."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.ops.define import op
from facula.ops.padding import padded
from facula.tensor import Tensor

__all__ = ["pad"]


def _samples(make: Any) -> list[Any]:
    return [((make(2, 3), (1, 2)), {}), ((make(2, 3), (1, 2, 0, 1)), {"value": 2.5}),
            ((make(2, 3), (-1, 1)), {}), ((make(2, 3, 4), (2, 1)), {"mode": "reflect"}),
            ((make(2, 3, 4), (2, 1)), {"mode": "replicate"}),
            ((make(2, 3, 4), (2, 1)), {"mode": "circular"}),
            ((make(1, 2, 3, 4), (1, 2, 2, 1)), {"mode": "reflect"}), ((make(0, 2), (1, 1)), {})]


@op(samples=_samples)
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant",
        value: float | None = None) -> Tensor:
    """`input` with elements added (or, where negative, taken away) at both ends of dimensions.

    pad    (before, after) of the last dimension, then of the one before it, and so on
    mode   'constant' (with `value`, 0 by default), 'reflect', 'replicate' or 'circular'; all but
           the first take 2-D to 5-D inputs and pad all dimensions but the first one or two
    """
    return padded(input, pad, mode, value)


def constant_pad_nd(input: Tensor, pad: Sequence[int], value: float = 0) -> Tensor:
    """`pad` with mode 'constant'."""
    result: Tensor = _pad(input, pad, "constant", value)
    return result


_pad = pad
