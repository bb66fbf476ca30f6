"""Making the tensors that layers start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.tensor import Tensor

__all__ = ["empty", "zeros", "ones"]


def empty(shape: Sequence[int], dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor whose content will be written before it is read."""
    import facula
    return facula.empty(tuple(shape), dtype=dtype, device=device)


def zeros(shape: Sequence[int], dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of zeros."""
    import facula
    return facula.zeros(tuple(shape), dtype=dtype, device=device)


def ones(shape: Sequence[int], dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor of ones."""
    import facula
    return facula.ones(tuple(shape), dtype=dtype, device=device)
