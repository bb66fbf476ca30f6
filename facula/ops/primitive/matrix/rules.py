"""Matrix algebra on tensors, for derivative rules: thin calls of primitives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.ops.primitive.rules import (
    along,
    cast,
    conj,
    expand,
    full,
    mul,
    permute,
    prim,
    reshape,
    where,
    zeros_like,
)

__all__ = ["transposed", "adjoint", "mm", "tril", "triu", "diagonal", "diagonal_matrix", "rows",
           "columns", "safe_div", "real", "solve_upper", "solve_lower", "eye", "corner"]


def transposed(x: Any) -> Any:
    n = x.ndim
    return permute(x, (*range(n - 2), n - 1, n - 2))


def adjoint(x: Any) -> Any:
    """The conjugate transpose."""
    return transposed(conj(x))


def mm(a: Any, b: Any) -> Any:
    return prim("matmul", a, b)


def real(x: Any) -> Any:
    """The real part of a complex tensor."""
    return prim("real", x) if x.dtype.kind == "c" else x


def _triangle(x: Any, k: int, lower: bool) -> Any:
    from facula.ops.matrices import _triangle as triangle
    return triangle(x, k, "tril" if lower else "triu")


def tril(x: Any, k: int = 0) -> Any:
    return _triangle(x, k, True)


def triu(x: Any, k: int = 0) -> Any:
    return _triangle(x, k, False)


def diagonal(x: Any) -> Any:
    """[..., m, n] -> [..., min(m, n)]"""
    from facula.ops.matrices import diagonal_value
    return diagonal_value(x, 0, x.ndim - 2, x.ndim - 1)


def diagonal_matrix(v: Any) -> Any:
    """[..., n] -> [..., n, n]"""
    from facula.ops.matrices import diag_embed
    return diag_embed(v)


def eye(batch: Sequence[int], n: int, dtype: Any) -> Any:
    """The identity, in batches."""
    return diagonal_matrix(prim("full", attrs=(1.0,), shape=(*batch, n), dtype=dtype))


def rows(v: Any, shape: Sequence[int]) -> Any:
    """v[..., i, None] over matrices of this shape: it scales rows."""
    return expand(reshape(v, (*v.shape, 1)), tuple(shape))


def columns(v: Any, shape: Sequence[int]) -> Any:
    """v[..., None, j] over matrices of this shape: it scales columns."""
    return expand(reshape(v, (*v.shape[:-1], 1, v.shape[-1])), tuple(shape))


def scale_columns(x: Any, v: Any) -> Any:
    return mul(x, cast(columns(v, x.shape), x.dtype))


def scale_rows(x: Any, v: Any) -> Any:
    return mul(x, cast(rows(v, x.shape), x.dtype))


def safe_div(a: Any, b: Any) -> Any:
    """a / b, and 0 for 0 / 0: what nothing flows through may be degenerate."""
    none = prim("logical_and", prim("eq", a, zeros_like(a)), prim("eq", b, zeros_like(b)))
    return where(none, zeros_like(a), prim("div", a, where(none, full(b, 1), b)))


def corner(x: Any, m: int, n: int) -> Any:
    """The first m rows and n columns."""
    if x.shape[-2] != m:
        x = along(x, x.ndim - 2, 0, m)
    return x if x.shape[-1] == n else along(x, x.ndim - 1, 0, n)


def solve_upper(a: Any, b: Any, unit: bool = False) -> Any:
    """The inverse of an upper triangular matrix times b."""
    return prim("solve_triangular", a, b, attrs=(True, unit))


def solve_lower(a: Any, b: Any, unit: bool = False) -> Any:
    """The inverse of a lower triangular matrix times b."""
    return prim("solve_triangular", a, b, attrs=(False, unit))


def unread(x: Any, value: Any) -> Any:
    """`value`, which happens not to depend on `x`, as a result of it: its gradient is zero."""
    from facula.dtype import bool_
    never = prim("full", attrs=(False,), shape=tuple(value.shape), dtype=bool_)
    return where(never, x, value)
