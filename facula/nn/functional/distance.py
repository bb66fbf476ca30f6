"""Distances between pairs of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from facula.dtype import bool_, int64
from facula.errors import DTypeError
from facula.nn.functional.common import add_number, number, shape_of, vector_norm
from facula.ops.define import op
from facula.ops.layout import host
from facula.ops.promote import expand_to, operands
from facula.ops.reductions import reduce_to, wrap_dim
from facula.tensor import Tensor, prim

__all__ = ["pairwise_distance", "cosine_similarity", "pdist"]


def distance_of(x1: Tensor, x2: Tensor, p: float, eps: float, keepdim: bool) -> Tensor:
    """The p-norm of x1 - x2 + eps along the last dimension."""
    a, b = operands(x1, x2, floating=True)
    return vector_norm(add_number(prim("sub", a, b), eps), p, (a.ndim - 1,), keepdim)


@op(samples=lambda make: [((make(3, 4), make(3, 4)), {}), ((make(3, 4), make(4)), {"p": 1.0}),
                          ((make(2, 3, 4), make(2, 3, 4)), {"p": 3.0, "keepdim": True}),
                          ((make(4), make(4)), {})])
def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6,
                      keepdim: bool = False) -> Tensor:
    """The p-norm of x1 - x2 + eps along the last dimension; the operands broadcast."""
    return distance_of(x1, x2, p, eps, keepdim)


def cosine_of(x1: Tensor, x2: Tensor, axis: int, eps: float) -> Tensor:
    """x1 . x2 / (|x1| |x2|) along `axis` for tensors of one shape."""
    units: list[Any] = []
    for x in (x1, x2):
        norm = vector_norm(x, 2.0, (axis,), True)
        least = number(norm, eps)
        norm = prim("where", prim("lt", norm, least), least, norm)
        units.append(prim("div", x, expand_to(norm, shape_of(x))))
    return reduce_to("sum", prim("mul", *units), (axis,))


@op(samples=lambda make: [((make(3, 4), make(3, 4)), {}), ((make(3, 4), make(1, 4)), {}),
                          ((make(2, 3, 4), make(2, 3, 4)), {"dim": -1}),
                          ((make(4), make(4)), {"dim": 0})])
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 . x2 / (|x1| |x2|) along `dim`, each norm at least `eps`; the operands broadcast."""
    a, b = operands(x1, x2, floating=True)
    if not a.ndim:                                       # one number is a vector of one element
        a, b = prim("reshape", a, shape=(1,)), prim("reshape", b, shape=(1,))
        dim = wrap_dim(dim, 0)
    return cosine_of(a, b, wrap_dim(dim, a.ndim), eps)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances of all pairs of rows, `[n, m]` to `[n * (n - 1) / 2]`.

    In the order (0, 1), (0, 2), ..., (1, 2), ...; RuntimeError for p < 0.
    """
    if input.ndim != 2:
        raise RuntimeError("pdist only supports 2D tensors, got: "
                           f"{input.ndim}D")
    if input.dtype.kind != "f":
        raise DTypeError("pdist only supports floating-point dtypes")
    if p < 0:
        raise RuntimeError("pdist only supports non-negative p values")
    n = shape_of(input)[0]
    rows, columns = np.triu_indices(n, 1)
    result: Tensor = _pairs_apart(input, host(rows, int64), host(columns, int64), float(p))
    return result


@op(register=False)
def _pairs_apart(input: Tensor, rows: Tensor, columns: Tensor, p: float) -> Tensor:
    d = prim("sub", prim("take", input, rows, attrs=(0,)), prim("take", input, columns, attrs=(0,)))
    if not shape_of(d)[1]:
        return reduce_to("sum", d, (1,))
    out = vector_norm(d, p, (1,), False)
    if p == 0:                                   # a function of the input, with a gradient of 0
        never = prim("full", attrs=(False,), shape=shape_of(out), dtype=bool_)
        out = prim("where", never, reduce_to("sum", d, (1,)), out)
    return out
