"""Norms of vectors and matrices, and condition numbers."""

from __future__ import annotations

import math
from typing import Any

from facula.dtype import DType
from facula.errors import DTypeError
from facula.ops.define import autocast_to
from facula.ops.linalg.common import floating, matrix, operation
from facula.ops.primitive.matrix.packed import unpack
from facula.ops.primitive.matrix.solve import inv_shapes
from facula.ops.promote import cast, expand_to, full_like, type_name
from facula.ops.reductions import axes_of, reduce_to, widened, wrap_dim
from facula.ops.statistics import norm_value
from facula.tensor import Tensor, prim

__all__ = ["vector_norm", "matrix_norm", "norm", "cond"]


def _operand(name: str, x: Tensor, dtype: DType | None) -> Tensor:
    if x.dtype.kind not in "fc":
        raise DTypeError(f"{name}: Expected a floating point or complex tensor as input. Got "
                         f"{type_name(x.dtype)}")
    if dtype is None:
        return x
    if dtype.kind not in "fc":
        raise DTypeError(f"{name}: dtype should be floating point or complex. Got "
                         f"{type_name(dtype)}")
    if (dtype.kind == "c") != (x.dtype.kind == "c"):
        raise DTypeError(f"{name}: dtype should be {'complex' if x.dtype.kind == 'c' else 'real'} "
                         f"for {'complex' if x.dtype.kind == 'c' else 'real'} inputs, but got "
                         f"{type_name(dtype)}")
    if dtype.itemsize < x.dtype.itemsize:
        raise DTypeError(f"{name}: the dtype of the input ({type_name(x.dtype)}) should be "
                         f"convertible without narrowing to the specified dtype "
                         f"({type_name(dtype)})")
    return cast(x, dtype)


def _vector(name: str, x: Tensor, p: Any, dim: Any, keepdim: bool, dtype: DType | None) -> Tensor:
    if isinstance(p, Tensor) or not isinstance(p, (int, float)):
        raise RuntimeError(f"{name}: Expected a non-complex scalar as the order of norm.")
    x = _operand(name, x, dtype)
    axes = axes_of(dim, x.ndim)
    p = float(p)
    if x.numel() == 0 and (p < 0 or p == math.inf):
        if dim is None or any(x.shape[a] == 0 for a in axes):
            raise RuntimeError(f"linalg.vector_norm cannot compute the {p} norm on an empty tensor "
                               "because the operation does not have an identity")
    return cast(norm_value(widened(x), p, axes, keepdim), x.dtype.to_real())


@operation("linalg.vector_norm", samples=lambda make: [
    ((make(3, 4),), {}), ((make(3, 4), 1, 0), {}), ((make(3, 4), float("inf"), (0, 1), True), {}),
    ((make(3, 4), 2.5, 1), {}), ((make(3, 4), 0, 1), {})])
def vector_norm(x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *,
                dtype: DType | None = None) -> Tensor:
    """The norm (sum |x|**ord)**(1/ord) over `dim` (of all elements, flat, if None).

    inf and -inf are the largest and smallest magnitude, 0 counts what is not zero.
    """
    return _vector("linalg.vector_norm", x, ord, dim, keepdim, dtype)


def _extreme(x: Tensor, p: float, axes: tuple[int, ...]) -> Tensor:
    """The largest (the smallest for p < 0) of numbers >= 0; the largest of none is 0."""
    if p > 0 and any(x.shape[a] == 0 for a in axes):
        return reduce_to("sum", x, axes)
    return reduce_to("amax" if p > 0 else "amin", x, axes)


def _matrix(name: str, A: Tensor, p: Any, dim: Any, keepdim: bool, dtype: DType | None) -> Tensor:
    if A.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor A must have at least 2 dimensions.")
    x = _operand(name, A, dtype)
    if isinstance(dim, int) or len(dim) != 2:
        raise RuntimeError(f"{name}: dim must be a 2-tuple. Got {dim}")
    a, b = wrap_dim(dim[0], x.ndim), wrap_dim(dim[1], x.ndim)
    if a == b:
        raise RuntimeError(f"{name}: dims must be different. Got ({dim[0]}, {dim[1]})")
    if isinstance(p, str):
        if p not in ("fro", "nuc"):
            raise RuntimeError(f"{name}: Order {p} not supported.")
        if p == "fro":
            return cast(norm_value(widened(x), 2.0, (a, b), keepdim), x.dtype.to_real())
    elif not isinstance(p, (int, float)) or abs(p) not in (1, 2, math.inf):
        raise RuntimeError(f"{name}: Order {p} not supported.")
    if p == "nuc" or abs(p) == 2:
        floating(name, x)
        rest = [k for k in range(x.ndim) if k not in (a, b)]
        s = prim("svdvals", prim("permute", x, attrs=((*rest, a, b),)))
        last = (s.ndim - 1,)
        out = reduce_to("sum", s, last) if p == "nuc" else _extreme(s, p, last)
    else:
        across = a if abs(p) == 1 else b
        sums = reduce_to("sum", widened(prim("abs", x)), (across,), True)
        out = cast(_extreme(sums, p, (a, b)), x.dtype.to_real())
    if keepdim:
        shape = tuple(1 if k in (a, b) else n for k, n in enumerate(x.shape))
        out = prim("reshape", out, shape=shape)
    return out


@operation("linalg.matrix_norm", samples=lambda make: [
    ((make(3, 4),), {}), ((make(3, 4), "nuc"), {}), ((make(2, 3, 3), 2), {}),
    ((make(2, 3, 3), -1, (0, 2), True), {}), ((make(2, 3), float("inf")), {})])
def matrix_norm(A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *,
                dtype: DType | None = None) -> Tensor:
    """The norm of matrices over the two dimensions `dim`.

    'fro' is the root of the sum of squares, 'nuc' the sum of the singular values, 2 and -2 the
    largest and smallest of them, 1 and -1 of the column sums, inf and -inf of the row sums.
    """
    return _matrix("linalg.matrix_norm", A, ord, dim, keepdim, dtype)


@operation("linalg.norm", samples=lambda make: [
    ((make(3, 4),), {}), ((make(3, 4), "fro"), {}), ((make(3), 3), {}), ((make(2, 3, 4), 2, 1), {}),
    ((make(2, 3, 3), "nuc", (1, 2)), {})])
def norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *,
         dtype: DType | None = None) -> Tensor:
    """`vector_norm` or `matrix_norm`: which one the number of dimensions decides.

    One dimension in `dim`, or a 1-dimensional A, takes the norm of vectors, two that of
    matrices; without `ord` it is the 2-norm of all elements.
    """
    if ord is None:
        return _vector("linalg.vector_norm", A, 2, dim, keepdim, dtype)
    if dim is None:
        if A.ndim not in (1, 2):
            raise RuntimeError("linalg.norm: If dim is not specified but ord is, the input must be "
                               f"1D or 2D. Got {A.ndim}D.")
        dim = (0,) if A.ndim == 1 else (0, 1)
    elif isinstance(dim, int):
        dim = (dim,)
    if len(dim) not in (1, 2):
        raise RuntimeError(f"linalg.norm: If dim is specified, it must be of length 1 or 2. Got "
                           f"{list(dim)}")
    if len(dim) == 2:
        return _matrix("linalg.matrix_norm", A, ord, dim, keepdim, dtype)
    if isinstance(ord, str):
        raise RuntimeError(f"linalg.matrix_norm: dim must be a 2-tuple. Got {list(dim)}")
    return _vector("linalg.vector_norm", A, ord, dim, keepdim, dtype)


@operation("linalg.cond", samples=lambda make: [
    ((make(3, 3),), {}), ((make(4, 3),), {}), ((make(2, 3, 3), "fro"), {}),
    ((make(3, 3), 1), {}), ((make(3, 3), -2), {})])
@autocast_to("full")
def cond(A: Tensor, p: Any = None) -> Tensor:
    """The condition number of matrices: norm(A) * norm(inverse), infinite for singular ones.

    For p None, 2 and -2 the quotient of the largest and smallest singular value, also where A
    is not square.
    """
    matrix("linalg.cond", A)
    real: DType = A.dtype.to_real()
    batch = tuple(A.shape[:-2])
    if p is None or p in (2, -2):
        if not min(A.shape[-2:]):
            return prim("full", attrs=(0.0,), shape=batch, dtype=real)
        s = prim("svdvals", A)
        last = (s.ndim - 1,)
        top, low = reduce_to("amax", s, last), reduce_to("amin", s, last)
        return prim("div", low, top) if p == -2 else prim("div", top, low)
    if isinstance(p, str) and p not in ("fro", "nuc"):
        raise RuntimeError(f"linalg.cond: got an invalid norm type: {p}")
    if not isinstance(p, str) and p not in (1, -1, math.inf, -math.inf):
        raise RuntimeError(f"linalg.cond: got an invalid norm type: {p}")
    if A.shape[-1] != A.shape[-2]:
        raise RuntimeError(f"linalg.cond with p={p}: A must be batches of square matrices, but "
                           f"they are {A.shape[-2]} by {A.shape[-1]} matrices")
    if not A.shape[-1]:
        return prim("full", attrs=(0.0,), shape=batch, dtype=real)
    back, code = unpack(prim("inv", A), inv_shapes(A.shape[-1]))
    code = prim("real", code) if code.dtype.kind == "c" else code
    failed = prim("ne", code, full_like(code, 0.0))
    wide = expand_to(prim("reshape", failed, shape=(*batch, 1, 1)), A.shape)
    safe = prim("where", wide, full_like(back, 0.0), back)
    here = _matrix("linalg.cond", A, p, (-2, -1), False, None)
    there = _matrix("linalg.cond", safe, p, (-2, -1), False, None)
    product = prim("mul", here, there)
    return prim("where", prim("reshape", failed, shape=batch), full_like(product, math.inf),
                product)
