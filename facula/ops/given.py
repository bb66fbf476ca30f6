"""Results that are written into a tensor which the caller gives: `out=`, and the methods `name_`.

An operation that `facula.ops.define.op` declares takes `out=` by itself.  A plain function that
picks between operations takes it with `takes_out` above it, or, where it has the parameter
itself (since the dtype of `out` decides something), hands its result to `into`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from facula.dtype import DType
from facula.errors import DTypeError, ShapeError
from facula.graph.record import _local
from facula.tensor import Tensor, prim

__all__ = ["into", "takes_out", "in_place"]

_F = TypeVar("_F", bound=Callable[..., Any])
_V = TypeVar("_V")
_RANK = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}


def into(out: Any, result: _V, exact: bool = False) -> _V:
    """`result`, a tensor or a tuple of them, written into `out`, which is returned.

    `result` itself where `out` is None.  An empty tensor takes the shape of the result; DTypeError
    where the result does not fit into its dtype (with `exact`, has another one) or gradients would
    flow, ShapeError where it has elements and another shape.
    """
    if out is None:
        return result
    value: Any = result
    if not isinstance(value, tuple):
        if exact:
            _same_dtype(out, value)
        _store(out, value)
        return out                                           # type: ignore[no-any-return]
    if exact:
        for o, v in zip(out, value):
            _same_dtype(o, v)
    for o, v in zip(out, value):
        _store(o, v)
    return type(value)(*out) if hasattr(value, "_fields") else tuple(out)  # type: ignore


def takes_out(fn: _F) -> _F:
    """A plain function with the argument `out=`, a tensor or, of several results, a tuple."""
    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if "out" in kwargs:
            return into(kwargs.pop("out"), fn(*args, **kwargs))
        return fn(*args, **kwargs)
    return call                                              # type: ignore[return-value]


def in_place(call: Callable[..., Any], public: str) -> Callable[..., Any]:
    """The method `name_` of a public function: it overwrites its first argument."""
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        start = _local.rec.graph.state.count
        value = call(self, *args, **kwargs)
        if value is self or value is NotImplemented:
            return value
        if value._storage is not None or value._node is self._node:
            value = prim("alias", value)
        mine = self.dtype
        if value.dtype is not mine:
            value = _cast_back(value, mine)
        if value._node.spec.shape != self._node.spec.shape:
            raise ShapeError(f"output with shape {list(self.shape)} doesn't match the broadcast "
                             f"shape {list(value.shape)} in {public}_()")
        return self._write(value, start=start)

    method.__name__ = method.__qualname__ = f"{public}_"
    method.__doc__ = f"`{public}`, overwriting this tensor.  Returns it."
    return method


def _same_dtype(out: Tensor, value: Tensor) -> None:
    if out.dtype is not value.dtype:
        raise DTypeError(f"Expected out tensor to have dtype {value.dtype.name}, but got "
                         f"{out.dtype.name} instead")


def _cast_back(value: Tensor, dtype: DType) -> Tensor:
    """The result of an operation as it is stored into a tensor of another dtype."""
    if _RANK[value.dtype.kind] > _RANK[dtype.kind]:
        raise DTypeError(f"result type {value.dtype.name} can't be cast to the desired output "
                         f"type {dtype.name}")
    return prim("cast", value, dtype=dtype)


def _store(out: Tensor, value: Tensor) -> None:
    if out.requires_grad or value.requires_grad:
        if _local.rec.grad:
            raise DTypeError("functions with out=... arguments don't support automatic "
                             "differentiation, but one of the arguments requires grad.")
    if value.dtype is not out.dtype:
        value = _cast_back(value, out.dtype)
    if value._storage is not None or value._node.value is not None:
        value = prim("alias", value)
    if value.shape != out.shape:
        if out.numel() != 0 or out._path:
            raise ShapeError(f"out has shape {list(out.shape)}, and the result has shape "
                             f"{list(value.shape)}: give an empty tensor or one of that shape")
        out._node = value._node
        out._storage = None
        return
    out._write(value)
