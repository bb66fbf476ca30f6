"""Forward derivatives by dual tensors: PyTorch's older interface; `facula.func.jvp` is the other.

    with dual_level():
        out = f(make_dual(x, direction))
        value, slope = unpack_dual(out)

A dual tensor is a value of the graph at which a tangent was put down.  Nothing is computed for it
until `unpack_dual` asks: then the tangent is carried along what was recorded between the two.  So
that this is all there, a level is recorded apart, as a transformed function is.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from facula.errors import TransformError
from facula.func.passes import push
from facula.func.trace import Trace
from facula.graph.record import Recorder, _local
from facula.tensor import DETACHED, Tensor, prim

__all__ = ["UnpackedDualTensor", "enter_dual_level", "exit_dual_level", "make_dual",
           "unpack_dual", "dual_level"]


class UnpackedDualTensor(NamedTuple):
    """What `unpack_dual` returns: a tensor's value and its tangent, None if it has none."""

    primal: Tensor
    tangent: Tensor | None


class _Level(Trace):
    """The recording of a level; `duals` are the places of its dual tensors."""

    whole = False

    def __init__(self, outer: Recorder):
        super().__init__(outer, forward=True)
        self.duals: dict[int, Tensor] = {}


class _Levels(threading.local):
    current: _Level | None = None


_levels = _Levels()


def enter_dual_level() -> int:
    """Begin a level; returns its number.  RuntimeError within another: there is one at a time."""
    if _levels.current is not None:
        raise RuntimeError("Nested forward mode AD is not supported at the moment. For "
                           "derivatives of higher order use facula.func.jvp")
    _levels.current = level = _Level(_local.rec)
    _local.rec = level
    return 0


def exit_dual_level(*, level: int | None = None) -> None:
    """End the level: its tensors keep their values and lose their tangents."""
    trace = _levels.current
    if trace is None or level not in (None, 0):
        raise RuntimeError("Trying to exit a forward AD level that was not the last one that was "
                           "created. This is not supported.")
    if _local.rec is not trace:
        raise TransformError("a forward AD level has to be left where it was entered, and not "
                             "inside of a transformed function")
    _levels.current = None
    trace.__exit__(None, None)
    trace.returned()
    trace.finish([])
    trace.duals = {}


def _here(level: int | None) -> _Level | None:
    """The level, if there is one."""
    trace = _levels.current
    if trace is None or level not in (None, 0):
        return None
    if _local.rec is not trace:
        raise TransformError("dual tensors cannot be made or unpacked inside of a function that "
                             "is being transformed; use facula.func.jvp there")
    return trace


def make_dual(tensor: Tensor, tangent: Tensor, *, level: int | None = None) -> Tensor:
    """A tensor of the same value with a tangent, of its shape and dtype.

    Gradients flow back to both.  Raises RuntimeError outside of a level and for a shape that
    differs, ValueError for tensors that are not floating.
    """
    trace = _here(level)
    if trace is None:
        raise RuntimeError("Trying to create a dual Tensor for forward AD but no level exists, "
                           "make sure to enter_dual_level() first.")
    for what, t in (("primal", tensor), ("tangent", tangent)):
        if t.dtype.kind not in "fc":
            raise ValueError(f"Expected {what} to be floating point or complex, but got: "
                             f"{t.dtype!r}")
    if tensor.shape != tangent.shape:
        raise RuntimeError("Trying to set a forward gradient that has a different size than that "
                           "of the original Tensor, this is not supported. Tensor is of size "
                           f"{list(tensor.shape)} while the given forward gradient is of size "
                           f"{list(tangent.shape)}.")
    if tangent.dtype is not tensor.dtype:
        tangent = prim("cast", tangent, dtype=tensor.dtype)
    if tensor is not tangent and trace.index(tensor) in trace.duals:
        raise RuntimeError("Forward gradients already exist for this tensor at this level")
    dual = prim("alias", tensor)
    trace.duals[trace.index(dual)] = prim("alias", tangent, attrs=DETACHED)
    return dual


def unpack_dual(tensor: Tensor, *, level: int | None = None) -> UnpackedDualTensor:
    """The value of a tensor and its tangent; outside of a level `(tensor, None)`."""
    trace = _here(level)
    if trace is None:
        return UnpackedDualTensor(tensor, None)
    index = trace.index(tensor)
    found = push(trace, [index], list(trace.duals), list(trace.duals.values()))[0]
    if found is None:
        return UnpackedDualTensor(tensor, None)
    return UnpackedDualTensor(prim("alias", tensor, attrs=DETACHED),
                              prim("alias", found, attrs=DETACHED))


class dual_level:
    """A level for a `with` block or a decorated function."""

    def __enter__(self) -> int:
        return enter_dual_level()

    def __exit__(self, *_: Any) -> None:
        exit_dual_level()

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with dual_level():
                return fn(*args, **kwargs)
        return wrapped
