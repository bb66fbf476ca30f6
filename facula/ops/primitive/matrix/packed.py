"""Several matrices in one value: flat, one after the other, along the last dimension.

Everything is packed in the dtype of the factors: real singular values travel as complex numbers
with their complex vectors, pivots and error codes as floating point numbers (matrices are far
smaller than 2**24 rows).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from facula.dtype import DType
from facula.errors import DTypeError, ShapeError
from facula.graph.spec import Spec, spec
from facula.ops.primitive.record import _count
from facula.ops.primitive.rules import along, cat, reshape, zeros_like

__all__ = ["Shapes", "packed_spec", "pack", "unpack", "pack_tensors", "stack", "matrix", "square",
           "batched"]

Shapes = Sequence[tuple[int, ...]]


def packed_spec(batch: tuple[int, ...], shapes: Shapes, dtype: DType) -> Spec:
    return spec((*batch, sum(prod(s) for s in shapes)), dtype)


def stack(a: np.ndarray) -> np.ndarray:
    """[batch..., m, n] as [batch, m, n]."""
    return np.ascontiguousarray(a).reshape(prod(a.shape[:-2]), *a.shape[-2:])


def pack(arrays: Sequence[np.ndarray], out: Spec) -> np.ndarray:
    """Arrays [batch..., *shape] side by side, in the dtype and shape of `out`."""
    batch = out.shape[:-1]
    flat = [np.asarray(a, out.dtype.np).reshape(*batch, a.size // max(prod(batch), 1))
            for a in arrays] if prod(batch) else []
    return np.concatenate(flat, -1) if flat else np.zeros(out.shape, out.dtype.np)


def unpack(value: Any, shapes: Shapes) -> list[Any]:
    """The tensors of these shapes that a packed tensor holds."""
    batch, at, out = tuple(value.shape[:-1]), 0, []
    for shape in shapes:
        n = prod(shape)
        out.append(reshape(along(value, len(batch), at, n), (*batch, *shape)))
        at += n
    return out


def pack_tensors(parts: Sequence[Any], shapes: Shapes, like: Any) -> Any:
    """The opposite of `unpack`; a part that is None is zeros."""
    batch = tuple(like.shape[:-1])
    flat = []
    empty = zeros_like(like)
    at = 0
    for part, shape in zip(parts, shapes, strict=True):
        n = prod(shape)
        flat.append(along(empty, len(batch), at, n) if part is None
                    else reshape(part, (*batch, n)))
        at += n
    return cat(flat, len(batch))


# ---------------------------------------------------------------- operands

def matrix(name: str, operand: Spec) -> tuple[tuple[int, ...], int, int]:
    """(batch, rows, columns) of a batch of matrices that LAPACK knows."""
    if operand.dtype.kind not in "fc" or operand.dtype.itemsize < 4:
        raise DTypeError(f"{name}: Expected a float32, float64 or complex tensor, got "
                         f"{operand.dtype.name}")
    if len(operand.shape) < 2:
        raise ShapeError(f"{name}: The input tensor A must have at least 2 dimensions.")
    return operand.shape[:-2], operand.shape[-2], operand.shape[-1]


def square(name: str, specs: Sequence[Spec]) -> tuple[tuple[int, ...], int]:
    """(batch, n) of the first operand, which has to be square."""
    batch, m, n = matrix(name, specs[0])
    if m != n:
        raise ShapeError(f"{name}: A must be batches of square matrices, but they are {m} by "
                         f"{n} matrices")
    return batch, n


def batched(name: str, specs: Sequence[Spec]) -> None:
    """Two operands of one dtype and one batch."""
    _count(name, specs, 2)
    if specs[0].dtype is not specs[1].dtype:
        raise DTypeError(f"{name}: Expected A and B to have the same dtype, but found "
                         f"{specs[0].dtype.name} and {specs[1].dtype.name} instead")
    if specs[0].shape[:-2] != specs[1].shape[:-2]:
        raise ShapeError(f"{name}: the batches of {specs[0].shape} and {specs[1].shape} differ")
