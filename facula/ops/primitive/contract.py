"""Contractions: the product of matrices, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facula.errors import DTypeError, ShapeError
from facula.graph.spec import Spec, spec
from facula.ops.primitive.batching import product
from facula.ops.primitive.record import (
    Sample,
    _count,
    compute_dtype,
    register,
    shapes_text,
)
from facula.ops.primitive.rules import conj, permute, prim, zeros_like


def _infer_matmul(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    _count("matmul", specs, 2)
    a, b = specs
    if a.dtype is not b.dtype:
        raise DTypeError("expected m1 and m2 to have the same dtype, but got: "
                         f"{a.dtype.name} != {b.dtype.name}")
    if len(a.shape) < 2 or len(a.shape) != len(b.shape) or a.shape[:-2] != b.shape[:-2]:
        raise ShapeError(f"matmul: the batch dimensions of {shapes_text(specs)} differ")
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError("mat1 and mat2 shapes cannot be multiplied "
                         f"({'x'.join(map(str, a.shape))} and {'x'.join(map(str, b.shape))})")
    return spec((*a.shape[:-1], b.shape[-1]), a.dtype)


def _matmul(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    a, b = arrays
    wide = compute_dtype(a.dtype)
    with np.errstate(all="ignore"):
        if wide is a.dtype:
            return np.matmul(a, b)
        # 16-bit floats are summed in float32 and rounded once.
        product = np.matmul(a.astype(wide), b.astype(wide))
        return product.astype(a.dtype)                        # type: ignore[no-any-return]


def _transposed(x: Any) -> Any:
    n = x.ndim
    return permute(x, (*range(n - 2), n - 1, n - 2))


def _vjp(c: Any, g: Any) -> tuple[Any, ...]:
    a, b = c.inputs
    return (prim("matmul", g, _transposed(conj(b))) if c.needs[0] else None,
            prim("matmul", _transposed(conj(a)), g) if c.needs[1] else None)


def _jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    a, b = c.inputs
    da, db = tangents
    left = None if da is None else prim("matmul", da, b)
    right = None if db is None else prim("matmul", a, db)
    if left is None:
        return zeros_like(c.out) if right is None else right
    return left if right is None else prim("add", left, right)


register("matmul", "contract", _infer_matmul, _matmul, vjp=_vjp, jvp=_jvp, saves=("in0", "in1"),
         saves_for=(("in1",), ("in0",)), batch=product,
         terms=lambda specs, attrs, out: specs[0].shape[-1],
         samples=lambda make: [Sample((make(*a), make(*b))) for a, b in (
             ((2, 3), (3, 4)), ((1, 1), (1, 1)), ((3, 5), (5, 1)), ((2, 3, 4), (2, 4, 5)),
             ((2, 1, 1, 3), (2, 1, 3, 2)), ((2, 0), (0, 3)), ((0, 3), (3, 2)),
             ((0, 2, 3), (0, 3, 2)), ((17, 33), (33, 9)))])
