"""What derivative rules are written with: thin calls of primitives on Tensors.

The recorder is imported at the first call, because it imports the table in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["prim", "full", "zeros_like", "iota", "conj", "cast", "where", "reshape", "permute",
           "expand", "slice_", "cat", "flip", "sum_", "along", "vjp_of_partials",
           "jvp_of_partials"]

_recorder: Callable[..., Any] | None = None


def prim(name: str, *tensors: Any, attrs: tuple[Any, ...] = (),
         shape: Sequence[int] | None = None, dtype: Any = None) -> Any:
    """Record one primitive; see `facula.tensor.prim`."""
    global _recorder
    if _recorder is None:
        from facula.tensor import prim as _recorder  # type: ignore[no-redef]
    shape = None if shape is None else tuple(shape)
    return _recorder(name, *tensors, attrs=attrs, shape=shape, dtype=dtype)  # type: ignore


def full(like: Any, value: Any) -> Any:
    """A constant of the shape and dtype of `like`."""
    return prim("full", attrs=(value,), shape=like.shape, dtype=like.dtype)


def zeros_like(like: Any) -> Any:
    return full(like, 0)


def iota(n: int) -> Any:
    """int64 0 .. n-1."""
    from facula.dtype import int64
    return prim("iota", shape=(n,), dtype=int64)


def conj(x: Any) -> Any:
    """The complex conjugate; of a real tensor itself."""
    return prim("conj", x) if x.dtype.is_complex else x


def cast(x: Any, dtype: Any) -> Any:
    return x if x.dtype is dtype else prim("cast", x, dtype=dtype)


def where(condition: Any, a: Any, b: Any) -> Any:
    return prim("where", condition, a, b)


def reshape(x: Any, shape: Sequence[int]) -> Any:
    return x if tuple(x.shape) == tuple(shape) else prim("reshape", x, shape=shape)


def permute(x: Any, order: Sequence[int]) -> Any:
    order = tuple(order)
    return x if order == tuple(range(len(order))) else prim("permute", x, attrs=(order,))


def expand(x: Any, shape: Sequence[int]) -> Any:
    return x if tuple(x.shape) == tuple(shape) else prim("expand", x, shape=shape)


def slice_(x: Any, starts: Sequence[int], steps: Sequence[int], shape: Sequence[int]) -> Any:
    return prim("slice", x, attrs=(tuple(starts), tuple(steps)), shape=shape)


def cat(tensors: Sequence[Any], axis: int) -> Any:
    return prim("cat", *tensors, attrs=(axis,))


def flip(x: Any, axis: int) -> Any:
    """x with one axis reversed."""
    n = x.ndim
    if x.shape[axis] == 0:
        return x
    starts = [0] * n
    steps = [1] * n
    starts[axis], steps[axis] = x.shape[axis] - 1, -1
    return slice_(x, starts, steps, x.shape)


def sum_(x: Any, axes: Sequence[int]) -> Any:
    return prim("sum", x, attrs=(tuple(axes),)) if axes else x


def along(x: Any, axis: int, start: int, length: int) -> Any:
    """x[..., start:start+length, ...] of one axis."""
    starts = [0] * x.ndim
    starts[axis] = start
    shape = list(x.shape)
    shape[axis] = length
    return slice_(x, starts, [1] * x.ndim, shape)


Partial = Callable[[Any], Any]


def vjp_of_partials(*partials: Partial | None) -> Callable[[Any, Any], tuple[Any, ...]]:
    """The vjp of an elementwise holomorphic function from its partial derivatives.

    PyTorch's convention for complex values: the gradient is g times the conjugate of d.
    """
    def vjp(c: Any, g: Any) -> tuple[Any, ...]:
        return tuple(g * conj(d(c)) if d is not None and need else None
                     for d, need in zip(partials, c.needs, strict=True))
    return vjp


def jvp_of_partials(*partials: Partial | None) -> Callable[[Any, tuple[Any, ...]], Any]:
    """The jvp of an elementwise function from its partial derivatives."""
    def jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
        total = None
        for d, t in zip(partials, tangents, strict=True):
            if d is None or t is None:
                continue
            term = t * d(c)
            total = term if total is None else total + term
        return zeros_like(c.out) if total is None else total
    return jvp
