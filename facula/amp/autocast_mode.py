"""autocast: inside, each operation is computed in the precision that suits it.

The mode acts where an operation is recorded for the first time at its place in a graph: its
operands are then cast as it was declared (`facula.ops.define.autocast_to`), and the casts are steps
of the graph like any others, merged and fused with what follows.  Nothing looks at the mode when a
recorded operation is followed again, and outside of `autocast` nothing looks at it at all.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from facula.dtype import DType, bfloat16, float16, float32
from facula.graph.record import _local
from facula.tensor import Tensor, prim

__all__ = ["autocast", "custom_fwd", "custom_bwd", "is_autocast_available", "is_autocast_enabled",
           "set_autocast_enabled", "get_autocast_dtype", "set_autocast_dtype",
           "is_autocast_cpu_enabled", "set_autocast_cpu_enabled", "get_autocast_cpu_dtype",
           "set_autocast_cpu_dtype", "is_autocast_cache_enabled", "set_autocast_cache_enabled",
           "clear_autocast_cache"]

_DEVICES = ("cpu", "cuda", "xpu", "mps", "hpu", "mtia", "maia", "xla", "ipu", "meta")


class Mode:
    """Autocast to one dtype; there is one of each."""

    def __init__(self, dtype: DType):
        self.dtype = dtype

    def run(self, rec: Any, body: Callable[..., Any], args: Sequence[Any],
            kwargs: dict[str, Any]) -> Any:
        """`body` with its operands cast; what is inside of a listed operation stays as it is."""
        kind = getattr(body, "autocast", None)
        if kind is None:
            return body(*args, **kwargs)
        dtype = self.dtype if kind == "lower" else float32
        if kind == "widest":
            found = {t.dtype for t in _tensors((args, kwargs))}
            dtype = float32 if float32 in found or found >= {float16, bfloat16} else self.dtype
            if not all(_fits(t) for t in _tensors((args, kwargs)) if t.dtype.kind == "f"):
                return body(*args, **kwargs)        # float64 is in it, and stays the widest
        args = [_cast(a, dtype) for a in args]
        kwargs = {k: _cast(v, dtype) for k, v in kwargs.items()}
        _inside(rec, None)
        try:
            return body(*args, **kwargs)
        finally:
            _inside(rec, self)


def _inside(rec: Any, mode: Mode | None) -> None:
    """Change the mode within a call: what a composite records is remembered with the call."""
    if rec.depth:
        rec.amp = mode
    else:
        rec.set_amp(mode)


_modes = {dtype: Mode(dtype) for dtype in (bfloat16, float16)}


class _Default(threading.local):
    dtype = bfloat16
    cache = True


_default = _Default()


def _fits(t: Tensor) -> bool:
    """Whether autocast touches a tensor: floats other than float64."""
    return t.dtype in (float32, float16, bfloat16)


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    return [t for v in value for t in _tensors(v)] if isinstance(value, (tuple, list)) else []


def _cast(value: Any, dtype: DType) -> Any:
    if isinstance(value, Tensor):
        return prim("cast", value, dtype=dtype) if _fits(value) and value.dtype is not dtype \
            else value
    if type(value) in (tuple, list):
        return type(value)([_cast(v, dtype) for v in value])
    if isinstance(value, dict):
        return {k: _cast(v, dtype) for k, v in value.items()}
    return value


def _check_device(device_type: Any) -> str:
    if not isinstance(device_type, str):
        raise ValueError(f"Expected `device_type` of type `str`, got: `{type(device_type)}`")
    if device_type not in _DEVICES:
        raise RuntimeError(f"User specified an unsupported autocast device_type '{device_type}'")
    return device_type


class autocast:
    """Matrix products and convolutions in `dtype`, losses and the like in float32.

    A context manager and a decorator.  `dtype` is bfloat16 (the default) or float16; another one
    switches the autocast off with a warning, and so does a `device_type` other than 'cpu'.  Inside
    of `autocast(..., enabled=False)` operations take their operands as they are.  A cast that is
    needed twice is computed once in any case: `cache_enabled` has no effect.

    Raises ValueError if `device_type` is no string, RuntimeError if there is no such device.
    """

    def __init__(self, device_type: str, dtype: DType | None = None, enabled: bool = True,
                 cache_enabled: bool | None = None) -> None:
        self.device = _check_device(device_type)
        self.fast_dtype = dtype if dtype is not None else get_autocast_dtype(device_type)
        enabled = bool(enabled)
        if enabled and device_type != "cpu":
            warnings.warn(f"User provided device_type of '{device_type}', but it is not "
                          "available. Disabling", stacklevel=2)
            enabled = False
        if enabled and self.fast_dtype not in _modes:
            warnings.warn("In CPU autocast, but the target dtype is not supported. Disabling "
                          "autocast. CPU Autocast only supports dtype of bfloat16, float16 "
                          "currently.", stacklevel=2)
            enabled = False
        self._enabled = enabled
        self._before: list[tuple[Any, DType]] = []

    def __enter__(self) -> autocast:
        rec = _local.rec
        self._before.append((rec.amp, _default.dtype))
        if self.device == "cpu":
            _default.dtype = self.fast_dtype
            _set(rec, _modes[self.fast_dtype] if self._enabled else None)
        return self

    def __exit__(self, *_: Any) -> None:
        mode, _default.dtype = self._before.pop()
        _set(_local.rec, mode)

    def __call__(self, func: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(func)
        def decorated(*args: Any, **kwargs: Any) -> Any:
            with self:
                return func(*args, **kwargs)
        return decorated


def _set(rec: Any, mode: Mode | None) -> None:
    if rec.amp is not mode:
        rec.set_amp(mode)


def is_autocast_available(device_type: str) -> bool:
    """Whether autocast does anything on a device: on 'cpu'."""
    return _check_device(device_type) == "cpu"


def is_autocast_enabled(device_type: str = "cpu") -> bool:
    """Whether operations of this thread are recorded under autocast."""
    return _check_device(device_type) == "cpu" and _local.rec.amp is not None


def set_autocast_enabled(device_type: Any, enabled: bool | None = None) -> None:
    """Turn autocast on or off in this thread, to `get_autocast_dtype()`."""
    if enabled is None:
        device_type, enabled = "cpu", bool(device_type)
    if _check_device(device_type) == "cpu":
        _set(_local.rec, _modes[_default.dtype] if enabled else None)


def get_autocast_dtype(device_type: str) -> DType:
    """The dtype that autocast lowers to: bfloat16 unless set otherwise; float16 on a GPU."""
    return _default.dtype if _check_device(device_type) == "cpu" else float16


def set_autocast_dtype(device_type: str, dtype: DType) -> None:
    """Set what `get_autocast_dtype` says.  Raises ValueError unless bfloat16 or float16."""
    if _check_device(device_type) != "cpu":
        return
    if dtype not in _modes:
        raise ValueError(f"autocast lowers to bfloat16 or float16, not to {dtype}")
    _default.dtype = dtype
    if _local.rec.amp is not None:
        _set(_local.rec, _modes[dtype])


def is_autocast_cpu_enabled() -> bool:
    """`is_autocast_enabled('cpu')`."""
    return is_autocast_enabled("cpu")


def set_autocast_cpu_enabled(enabled: bool) -> None:
    """`set_autocast_enabled('cpu', enabled)`."""
    set_autocast_enabled("cpu", enabled)


def get_autocast_cpu_dtype() -> DType:
    """`get_autocast_dtype('cpu')`."""
    return get_autocast_dtype("cpu")


def set_autocast_cpu_dtype(dtype: DType) -> None:
    """`set_autocast_dtype('cpu', dtype)`."""
    set_autocast_dtype("cpu", dtype)


def is_autocast_cache_enabled() -> bool:
    """What `set_autocast_cache_enabled` was last told; equal casts are always one."""
    return _default.cache


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Accepted and without effect."""
    _default.cache = bool(enabled)


def clear_autocast_cache() -> None:
    """Without effect: there is no cache besides the graph."""


# ---------------------------------------------------------------- custom functions

def custom_fwd(fwd: Callable[..., Any] | None = None, *, device_type: str,
               cast_inputs: DType | None = None) -> Any:
    """For `forward` of an autograd.Function that is called under autocast.

    With `cast_inputs` its floating-point tensors are cast to that dtype and it runs without
    autocast; otherwise it runs under the autocast it is called in.
    """
    _check_device(device_type)
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)
    given = fwd

    @functools.wraps(given)
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        enabled = is_autocast_enabled(device_type)
        ctx._dtype = get_autocast_dtype(device_type)
        ctx._fwd_used_autocast = enabled and cast_inputs is None
        if not enabled or cast_inputs is None:
            return given(ctx, *args, **kwargs)
        with autocast(device_type, enabled=False):
            return given(ctx, *[_cast(a, cast_inputs) for a in args],
                         **{k: _cast(v, cast_inputs) for k, v in kwargs.items()})
    return forward


def custom_bwd(bwd: Callable[..., Any] | None = None, *, device_type: str) -> Any:
    """For the `backward` that goes with a `custom_fwd`: it runs under the same autocast."""
    _check_device(device_type)
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)
    given = bwd

    @functools.wraps(given)
    def backward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        with autocast(device_type, ctx._dtype, enabled=ctx._fwd_used_autocast):
            return given(ctx, *args, **kwargs)
    return backward
