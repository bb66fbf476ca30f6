"""Products of vectors and matrices, reflectors, and matrices made of powers."""

from __future__ import annotations

from typing import Any

from facula.errors import ShapeError
from facula.ops.contractions import _chain
from facula.ops.define import autocast_to
from facula.ops.linalg.common import adjoint, function, matrix, operation, same_dtype
from facula.ops.matrices import cross as _cross
from facula.ops.primitive.matrix.rules import eye, unread
from facula.ops.promote import broadcast_shapes, cast, common_dtype, expand_to
from facula.ops.reductions import reduce_to, wrap_dim
from facula.ops.shape import iota_along
from facula.tensor import Tensor, prim

__all__ = ["cross", "diagonal", "vecdot", "multi_dot", "householder_product", "vander", "matmul",
           "apply_reflectors"]


@function("linalg.matmul", samples=lambda make: [((make(2, 3), make(3, 2)), {})])
@autocast_to("lower")
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The product of matrices, as `facula.matmul`."""
    from facula.ops.contractions import matmul as product
    result: Tensor = product(input, other)
    return result


@function("linalg.cross", samples=lambda make: [((make(2, 3), make(2, 3)), {}),
                                                ((make(3, 2), make(1, 2)), {"dim": 0})][:1])
def cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The cross product along `dim`, of size 3; the rest broadcasts."""
    if input.ndim != other.ndim:
        raise RuntimeError("linalg.cross: inputs must have the same number of dimensions.")
    result: Tensor = _cross(input, other, dim)
    return result


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """A view of the diagonal of the matrices over dim1 and dim2, as the last dimension."""
    found: Tensor = A.diagonal(offset, dim1, dim2)               # type: ignore[attr-defined]
    return found


function("linalg.diagonal", samples=lambda make: [((make(3, 4),), {}), (
    (make(2, 3, 3),), {"offset": 1})])(diagonal)


@operation("linalg.vecdot", samples=lambda make: [((make(2, 3), make(3)), {}),
                                                  ((make(3, 2), make(3, 2)), {"dim": 0})])
@autocast_to("lower")
def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """The inner products of vectors along `dim`, the first one conjugated."""
    if x.dtype.kind not in "fc":
        raise RuntimeError("linalg.vecdot: Expected a floating point or complex tensor as input. "
                           f"Got {x.dtype.name}")
    shape = tuple(broadcast_shapes(x.shape, y.shape))
    dtype = common_dtype((x, y))
    a, b = expand_to(cast(x, dtype), shape), expand_to(cast(y, dtype), shape)
    axis = wrap_dim(dim, len(shape))
    if dtype.kind == "c":
        a = prim("conj", a)
    return reduce_to("sum", prim("mul", a, b), (axis,))


@operation("linalg.multi_dot", samples=lambda make: [
    (([make(2, 3), make(3, 4), make(4, 2)],), {}), (([make(3), make(3, 4), make(4)],), {}),
    (([make(2, 3), make(3, 1)],), {})])
@autocast_to("lower")
def multi_dot(tensors: Any) -> Tensor:
    """The product of matrices, in the order that takes the fewest multiplications.

    The first may be a row and the last a column vector; their dimension of size 1 is dropped.
    """
    ms = list(tensors)
    if len(ms) < 2:
        raise RuntimeError(f"multi_dot(): expected at least 2 tensors but got {len(ms)}")
    for k, m in enumerate(ms):
        ends = k in (0, len(ms) - 1)
        if m.ndim != 2 and not (ends and m.ndim == 1):
            raise RuntimeError(f"multi_dot(): {'the first and last tensors' if ends else 'tensor'}"
                               f" must be {'1D or 2D' if ends else '2D'} but got {m.ndim}D")
        if m.dtype is not ms[0].dtype:
            raise RuntimeError("multi_dot(): all tensors must have be the same dtype but got "
                               f"tensor 0 with dtype {ms[0].dtype.name} and tensor {k} with dtype "
                               f"{m.dtype.name}")
    row, column = ms[0].ndim == 1, ms[-1].ndim == 1
    if row:
        ms[0] = prim("reshape", ms[0], shape=(1, ms[0].shape[0]))
    if column:
        ms[-1] = prim("reshape", ms[-1], shape=(ms[-1].shape[0], 1))
    for k, (a, b) in enumerate(zip(ms, ms[1:])):
        if a.shape[1] != b.shape[0]:
            raise ShapeError(f"multi_dot(): tensors {k} and {k + 1} with shapes {list(a.shape)} and"
                             f" {list(b.shape)} cannot be multiplied")
    out = _chain(ms)
    shape = (() if row else (out.shape[0],)) + (() if column else (out.shape[1],))
    return prim("reshape", out, shape=shape) if row or column else out


# ---------------------------------------------------------------- reflectors

def _reflectors(v: Tensor, count: int) -> Tensor:
    """[..., m, count]: the vectors below the diagonal, with ones on it and zeros above."""
    from facula.ops.matrices import tril
    shape = (*v.shape[:-1], count)
    zeros = (0,) * len(shape)
    low = tril(prim("slice", v, attrs=(zeros, (1,) * len(shape)), shape=shape), -1)
    m = shape[-2]
    on = cast(prim("eq", iota_along((m, count), 0), iota_along((m, count), 1)), v.dtype)
    found: Tensor = prim("add", low, expand_to(on, shape))
    return found


def apply_reflectors(v: Tensor, tau: Tensor, x: Tensor, order: Any, turned: bool) -> Tensor:
    """H_i x for i in `order`, H_i = 1 - tau_i v_i v_i^H (with `turned`, its adjoint)."""
    count = tau.shape[-1]
    w = _reflectors(v, count)
    lead = (0,) * (v.ndim - 2)
    one = (1,) * v.ndim
    for i in order:
        column = prim("slice", w, attrs=((*lead, 0, i), one), shape=(*w.shape[:-1], 1))
        t = prim("slice", tau, attrs=((*lead, i), one[1:]), shape=(*tau.shape[:-1], 1))
        if turned and t.dtype.kind == "c":
            t = prim("conj", t)
        inner = prim("matmul", adjoint(column), x)
        inner = prim("mul", inner, expand_to(prim("reshape", t, shape=(*t.shape, 1)),
                                             inner.shape))
        x = prim("sub", x, prim("matmul", column, inner))
    return x


@operation("linalg.householder_product", method="orgqr", samples=lambda make: [
    ((make(4, 3), make(3)), {}), ((make(2, 3, 2), make(2, 2)), {}), ((make(3, 3), make(2)), {})])
@autocast_to("full")
def householder_product(A: Tensor, tau: Tensor) -> Tensor:
    """The first n columns of H_1 H_2 ... H_k, H_i = 1 - tau_i v_i v_i^H, as `geqrf` leaves them.

    v_i is column i of A [..., m, n] below the diagonal, with a one on it; tau is [..., k].
    """
    name = "linalg.householder_product"
    matrix(name, A, "input")
    m, n = A.shape[-2:]
    if m < n:
        raise ShapeError(f"{name}: input.shape[-2] must be greater than or equal to "
                         "input.shape[-1]")
    if tau.ndim < 1 or n < tau.shape[-1]:
        raise ShapeError(f"{name}: input.shape[-1] must be greater than or equal to tau.shape[-1]")
    if A.ndim - tau.ndim != 1 or tuple(tau.shape[:-1]) != tuple(A.shape[:-2]):
        raise ShapeError(f"{name}: Expected tau to have one dimension less than input and batch "
                         f"dimensions {list(A.shape[:-2])}, but got {list(tau.shape)}")
    same_dtype(name, A, tau)
    k = tau.shape[-1]
    unit = eye(A.shape[:-2], m, A.dtype)
    unit = prim("slice", unit, attrs=((0,) * A.ndim, (1,) * A.ndim), shape=tuple(A.shape))
    unit = unread(A, unit)
    return apply_reflectors(A, tau, unit, range(k - 1, -1, -1), False)


@operation("linalg.vander", samples=lambda make: [((make(3),), {}), ((make(2, 3),), {"N": 4})])
def vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """The powers x**0 ... x**(N-1) along a new last dimension; N is x's last size if None."""
    if N is not None and N <= 1:
        raise RuntimeError("N must be greater than 1.")
    n = N if N is not None else x.shape[-1] if x.ndim else 1
    from facula.dtype import bool_, int64
    if x.dtype is bool_ or x.dtype.kind in "ui":
        x = cast(x, int64)
    if not x.ndim:
        x = prim("reshape", x, shape=(1,))
    shape = (*x.shape, 1)
    one = prim("full", attrs=(1 if x.dtype.kind == "i" else 1.0,), shape=shape, dtype=x.dtype)
    parts = [one, *[prim("reshape", x, shape=shape)] * (n - 1)][:max(n, 1)]
    together = prim("cat", *parts, attrs=(x.ndim,))
    return prim("cumprod", together, attrs=(x.ndim,))
