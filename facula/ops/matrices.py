"""Matrices made of triangles, diagonals and products of vectors."""

from __future__ import annotations

from facula.dtype import bool_, int64
from facula.ops.define import autocast_to, op
from facula.ops.layout import row_major
from facula.ops.promote import broadcast_shapes, cast, common_dtype, expand_to, full_like
from facula.ops.reductions import wrap_dim
from facula.ops.shape import _roll, iota_along
from facula.ops.surface import public
from facula.tensor import Tensor, prim

__all__ = ["tril", "triu", "diag", "diag_embed", "diagflat", "trace", "outer", "kron", "cross",
           "diagonal_value"]


# ---------------------------------------------------------------- triangles and diagonals

def _triangle(x: Tensor, diagonal: int, name: str) -> Tensor:
    if x.ndim < 2:
        raise RuntimeError(f"{name}: input tensor must have at least 2 dimensions")
    shape = x._node.spec.shape
    plane = shape[-2:]
    row, col = iota_along(plane, 0), iota_along(plane, 1)
    edge = prim("add", row, full_like(row, diagonal))
    keep = expand_to(prim("le" if name == "tril" else "ge", col, edge), shape)
    return prim("where", keep, x, full_like(x, 0))


@op(method=True, inplace=True, samples=lambda make: [
    ((make(3, 4),), {}), ((make(2, 3, 3), -1), {}), ((make(4, 3), 1), {})])
def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of matrices, up to `diagonal`; 0 above."""
    return _triangle(input, diagonal, "tril")


@op(method=True, inplace=True, samples=lambda make: [
    ((make(3, 4),), {}), ((make(2, 3, 3), -1), {}), ((make(4, 3), 1), {})])
def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of matrices, from `diagonal` on; 0 below."""
    return _triangle(input, diagonal, "triu")


@op(method=True, samples=lambda make: [((make(3),), {}), ((make(2, 3), 1), {}),
                                       ((make(2, 3), 0, 0, 2), {})])
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices over dim1 and dim2 whose diagonal is the last dimension of `input`."""
    ndim = input.ndim + 1
    a, b = wrap_dim(dim1, ndim), wrap_dim(dim2, ndim)
    if a == b:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    shape = input._node.spec.shape
    n = shape[-1] + abs(offset)
    plane = (n, n)
    row, col = iota_along(plane, 0), iota_along(plane, 1)
    on = prim("eq", col, prim("add", row, full_like(row, offset)))
    # Each row of the matrix holds the element of its own diagonal position.
    low = -offset if offset < 0 else 0
    wide = prim("pad", input, attrs=((0,) * (len(shape) - 1) + (low,),
                                     (0,) * (len(shape) - 1) + (n - shape[-1] - low,), 0))
    wide = expand_to(prim("reshape", wide, shape=(*shape[:-1], n, 1)), (*shape[:-1], n, n))
    out = prim("where", expand_to(on, wide.shape), wide, full_like(wide, 0))
    order = list(range(ndim - 2))
    if a < b:
        order.insert(a, ndim - 2)
        order.insert(b, ndim - 1)
    else:
        order.insert(b, ndim - 1)
        order.insert(a, ndim - 2)
    return out if order == list(range(ndim)) else prim("permute", out, attrs=(tuple(order),))


def diagonal_value(x: Tensor, offset: int = 0, a: int = 0, b: int = 1) -> Tensor:
    """The diagonal over two axes as a value, the last dimension of the result."""
    shape = x._node.spec.shape
    inner = row_major(shape)
    n = max(min(shape[a], shape[b] - offset) if offset >= 0
            else min(shape[a] + offset, shape[b]), 0)
    start = abs(offset) * inner[b if offset >= 0 else a] if n else 0
    rest = [k for k in range(len(shape)) if k not in (a, b)]
    return prim("as_strided", x, attrs=((*(inner[k] for k in rest), inner[a] + inner[b]), start),
                shape=(*(shape[k] for k in rest), n))


@op(method=True, samples=lambda make: [((make(3),), {}), ((make(3), -1), {}), ((make(3, 4), 1), {}),
                                       ((make(3, 4),), {})])
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """A vector as the diagonal of a matrix, or the diagonal of a matrix as a vector."""
    if input.ndim == 1:
        result: Tensor = diag_embed(input, diagonal)
        return result
    if input.ndim == 2:
        return diagonal_value(input, diagonal)
    raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {input.ndim}D")


@op(method=True, samples=lambda make: [((make(3),), {}), ((make(2, 3),), {})])
def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """All elements, flat, as the diagonal of a matrix."""
    result: Tensor = diag_embed(prim("reshape", input, shape=(input.numel(),)), offset)
    return result


@op(method=True, samples=lambda make: [((make(3, 4),), {}), ((make(3, 3),), {})])
@autocast_to("full")
def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""
    if input.ndim != 2:
        raise RuntimeError("trace: expected a matrix")
    x = input if input.dtype.kind in "fc" else cast(input, int64)
    return prim("sum", diagonal_value(x), attrs=((0,),))


# ---------------------------------------------------------------- products of positions

@op(method=True, samples=lambda make: [((make(3), make(4)), {})])
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """input[i] * vec2[j]."""
    for k, v in enumerate((input, vec2)):
        if v.ndim != 1:
            raise RuntimeError(f"outer: Expected 1-D argument {('self', 'vec2')[k]}, but got "
                               f"{v.ndim}-D")
    dtype = common_dtype((input, vec2))
    a, b = cast(input, dtype), cast(vec2, dtype)
    shape = (a.numel(), b.numel())
    return prim("logical_and" if dtype is bool_ else "mul",
                expand_to(prim("reshape", a, shape=(shape[0], 1)), shape), expand_to(b, shape))


public(outer, "ger", "shape")


@op(method=True, samples=lambda make: [((make(2, 2), make(3, 2)), {}), ((make(2), make(2, 3)), {})])
def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product."""
    dtype = common_dtype((input, other))
    a, b = cast(input, dtype), cast(other, dtype)
    n = max(a.ndim, b.ndim)
    sa = (1,) * (n - a.ndim) + a._node.spec.shape
    sb = (1,) * (n - b.ndim) + b._node.spec.shape
    left = tuple(v for pair in zip(sa, (1,) * n) for v in pair)
    right = tuple(v for pair in zip((1,) * n, sb) for v in pair)
    wide = tuple(v for pair in zip(sa, sb) for v in pair)
    x = expand_to(prim("reshape", a, shape=left), wide)
    y = expand_to(prim("reshape", b, shape=right), wide)
    return prim("reshape", prim("logical_and" if dtype is bool_ else "mul", x, y),
                shape=tuple(i * j for i, j in zip(sa, sb)))


@op(method=True, samples=lambda make: [((make(4, 3), make(4, 3)), {"dim": 1}),
                                       ((make(3, 2), make(3, 2)), {})])
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The cross product along a dimension of size 3; the first such if `dim` is None."""
    dtype = common_dtype((input, other))
    shape = tuple(broadcast_shapes(input.shape, other.shape))
    if dim is None:
        if 3 not in shape:
            raise RuntimeError("no dimension of size 3 in input")
        axis = shape.index(3)
    else:
        axis = wrap_dim(dim, len(shape))
    if input.shape[axis - len(shape)] != 3 or other.shape[axis - len(shape)] != 3:
        raise RuntimeError(f"linalg.cross: inputs dimension {dim} must have length 3. Got "
                           f"{input.shape[axis - len(shape)]} and "
                           f"{other.shape[axis - len(shape)]}")
    a, b = expand_to(cast(input, dtype), shape), expand_to(cast(other, dtype), shape)
    a1, a2 = _roll(a, -1, axis), _roll(a, -2, axis)
    b1, b2 = _roll(b, -1, axis), _roll(b, -2, axis)
    return prim("sub", prim("mul", a1, b2), prim("mul", a2, b1))
