"""What derivative rules are written with: thin calls of primitives on Tensors.

The recorder is imported at the first call, because it imports the table in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["prim", "full", "zeros_like", "iota", "conj", "cast", "where", "reshape", "permute",
           "expand", "slice_", "cat", "flip", "sum_", "along", "neg", "add", "sub", "mul", "div",
           "plus", "times", "linear_rules"]

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


# ---------------------------------------------------------------- arithmetic

def neg(x: Any) -> Any:
    return prim("neg", x)


def add(a: Any, b: Any) -> Any:
    return prim("add", a, b)


def sub(a: Any, b: Any) -> Any:
    return prim("sub", a, b)


def mul(a: Any, b: Any) -> Any:
    return prim("mul", a, b)


def div(a: Any, b: Any) -> Any:
    return prim("div", a, b)


def plus(x: Any, number: float) -> Any:
    """x + number."""
    return prim("add", x, full(x, number))


def times(x: Any, number: float) -> Any:
    """x * number."""
    return prim("mul", x, full(x, number))


# ---------------------------------------------------------------- derivatives of whole families

Part = Callable[..., Any]


def linear_rules(parts: Sequence[Part | None], saves: Sequence[Sequence[str]]) -> dict[str, Any]:
    """vjp, jvp and saves of an elementwise function from what it does to a small change.

    `parts[k](t, *values)` is the change of the result where input k changes by t; `values` are
    the inputs and then the result, None for those that `saves[k]` does not name.  Where the
    function is complex differentiable this is t times the derivative, and the gradient is g times
    its conjugate (PyTorch's convention): the same expression of the conjugated values, because
    all these functions are real on the real axis.

    16-bit operands are differentiated in float32 and rounded once.
    """
    names = [f"in{k}" for k in range(len(parts))] + ["out"]

    def values(c: Any, wanted: Sequence[str], of: Callable[[Any], Any], known: dict[str, Any]
               ) -> list[Any]:
        for name, v in zip(names, (*c.inputs, c.out), strict=True):
            if name in wanted and name not in known:
                known[name] = of(_wide(v))
        return [known[name] if name in wanted else None for name in names]

    def vjp(c: Any, g: Any) -> tuple[Any, ...]:
        wide = _wide(g)
        known: dict[str, Any] = {}
        out: list[Any] = []
        for k, (part, x) in enumerate(zip(parts, c.inputs, strict=True)):
            out.append(cast(part(wide, *values(c, saves[k], conj, known)), x.dtype)
                       if part is not None and c.needs[k] else None)
        return tuple(out)

    def jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
        total = None
        known: dict[str, Any] = {}
        for k, (part, t) in enumerate(zip(parts, tangents, strict=True)):
            if part is not None and t is not None:
                term = part(_wide(t), *values(c, saves[k], _itself, known))
                total = term if total is None else add(total, term)
        return zeros_like(c.out) if total is None else cast(total, c.out.dtype)

    every = tuple(dict.fromkeys(name for each in saves for name in each))
    return {"vjp": vjp, "jvp": jvp, "saves": every, "saves_for": tuple(map(tuple, saves))}


def _itself(x: Any) -> Any:
    return x


def _wide(x: Any) -> Any:
    """A 16-bit floating tensor as float32; any other as it is."""
    from facula.dtype import float32
    return cast(x, float32) if x.dtype.kind == "f" and x.dtype.itemsize == 2 else x
