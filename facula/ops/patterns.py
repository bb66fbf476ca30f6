"""Tensors of regular patterns: counting, even spacing, diagonals, powers."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from facula.device import check_device
from facula.dtype import int64
from facula.errors import ShapeError
from facula.ops.creation import _NUMBERS, _filled, as_dtype, finish, full_like
from facula.ops.given import into
from facula.ops.promote import cast, expand_to, get_default_dtype
from facula.tensor import Tensor, from_array, prim, scalar

__all__ = ["arange", "range", "linspace", "logspace", "eye", "tril_indices", "triu_indices",
           "vander"]


def _plain(value: Any) -> Any:
    """A number given as a Python number, a NumPy one or a 0-dim tensor."""
    return value.item() if isinstance(value, (Tensor, np.generic)) else value  # type: ignore


def arange(*args: Any, start: Any = None, end: Any = None, step: Any = None,
           out: Tensor | None = None, dtype: Any = None, layout: Any = None, device: Any = None,
           requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """start, start + step, ... up to but without end: `arange(end)`, `arange(start, end, step)`.

    int64 if all three are integers, else the default dtype.
    """
    check_device(device)
    if len(args) == 1 and end is None:
        end = args[0]
    elif args:
        names = dict(zip(("start", "end", "step"), args))
        if len(args) > 3:
            raise TypeError(f"arange() takes from 1 to 3 positional arguments but {len(args)} "
                            "were given")
        start, end = names["start"], names.get("end", end)
        step = names.get("step", step)
    if end is None:
        raise TypeError("arange() missing 1 required positional argument: 'end'")
    start, end, step = _plain(0 if start is None else start), _plain(end), \
        _plain(1 if step is None else step)
    for v in (start, end, step):
        if isinstance(v, complex) or not isinstance(v, _NUMBERS):
            raise TypeError(f"arange(): start, end and step must be numbers, not "
                            f"{type(v).__name__}")
    if dtype is not None:
        want = as_dtype(dtype)
    elif out is not None:
        want = out.dtype
    else:
        want = (get_default_dtype() if any(isinstance(v, float) for v in (start, end, step))
                else int64)
    if want.kind in "ui":
        start, end, step = (int(v) if isinstance(v, float) and math.isfinite(v) else v
                            for v in (start, end, step))
    if step == 0:
        raise ShapeError("step must be nonzero")
    if not (math.isfinite(start) and math.isfinite(end)):
        raise RuntimeError(f"unsupported range: {start} -> {end}")
    if (step > 0 and start > end) or (step < 0 and start < end):
        raise RuntimeError("upper bound and lower bound inconsistent with step sign")
    if isinstance(start, float) or isinstance(end, float) or isinstance(step, float):
        n = math.ceil((end - start) / step)
    else:
        n = -(-(end - start) // step)
    if want.kind in "ui":
        t = prim("iota", shape=(n,), dtype=int64)
        if step != 1:
            t = prim("mul", t, expand_to(scalar(int(step), int64), (n,)))
        if start != 0:
            t = prim("add", t, expand_to(scalar(int(start), int64), (n,)))
        t = cast(t, want)
    else:
        with np.errstate(all="ignore"):
            values = np.arange(n) * float(step) + float(start)
        t = from_array(values.astype(want.np))
    if out is not None:
        return into(out, t)
    return finish(t, requires_grad)


def range(start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None,
          requires_grad: bool = False) -> Tensor:
    """As `arange`, with `end` included and of the default dtype.  PyTorch deprecates it."""
    if end is None:
        start, end = 0, start
    n = math.floor((_plain(end) - _plain(start)) / _plain(step)) + 1
    values = np.arange(n) * _plain(step) + _plain(start)
    want = get_default_dtype() if dtype is None else as_dtype(dtype)
    return finish(from_array(values.astype(want.np)), requires_grad)


def _steps(name: str, start: Any, end: Any, steps: Any, dtype: Any) -> tuple[Any, ...]:
    start, end, steps = _plain(start), _plain(end), _plain(steps)
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"{name}(): argument 'steps' must be int, not {type(steps).__name__}")
    if steps < 0:
        raise RuntimeError("number of steps must be non-negative")
    if dtype is None:
        base = get_default_dtype()
        dtype = base.to_complex() if isinstance(start, complex) or isinstance(end, complex) \
            else base
    want = as_dtype(dtype)
    if want.kind in "bui":                     # PyTorch rounds both ends first
        start, end = int(start), int(end)
    return start, end, steps, want


def _between(start: Any, end: Any, steps: int, compute: Any) -> np.ndarray:
    """Evenly spaced numbers, counted from both ends so that both are exact."""
    at = np.arange(steps)
    first, last = compute.type(start), compute.type(end)
    if steps < 2:
        return np.full(steps, first, compute)
    step = compute.type((last - first) / compute.type(steps - 1))
    out: np.ndarray = np.where(at < steps // 2, first + step * at.astype(compute),
                               last - step * (steps - 1 - at).astype(compute))
    return out


def linspace(start: Any, end: Any, steps: int, *, out: Tensor | None = None, dtype: Any = None,
             layout: Any = None, device: Any = None, requires_grad: bool = False,
             pin_memory: bool = False) -> Tensor:
    """`steps` numbers evenly spaced from `start` to `end`, both included."""
    check_device(device)
    if out is not None and dtype is None:
        dtype = out.dtype
    start, end, steps, want = _steps("linspace", start, end, steps, dtype)
    compute = want.np if want.kind in "fc" and want.itemsize > 2 else \
        np.dtype(np.float32 if want.kind == "f" else np.float64)
    t = from_array(_between(start, end, steps, compute).astype(want.np))
    if out is not None:
        return into(out, t)
    return finish(t, requires_grad)


def logspace(start: Any, end: Any, steps: int, base: float = 10.0, *, out: Tensor | None = None,
             dtype: Any = None, layout: Any = None, device: Any = None,
             requires_grad: bool = False, pin_memory: bool = False) -> Tensor:
    """base**x for `steps` numbers x evenly spaced from `start` to `end`."""
    check_device(device)
    if out is not None and dtype is None:
        dtype = out.dtype
    start, end, steps, want = _steps("logspace", start, end, steps, dtype)
    compute = np.dtype(np.complex128 if want.kind == "c" else np.float64)
    values = np.power(compute.type(base), _between(start, end, steps, compute))
    t = from_array(values.astype(want.np))
    if out is not None:
        return into(out, t)
    return finish(t, requires_grad)


def eye(n: int, m: int | None = None, *, out: Tensor | None = None, dtype: Any = None,
        layout: Any = None, device: Any = None, requires_grad: bool = False,
        pin_memory: bool = False, order: str | None = None) -> Tensor:
    """Ones on the diagonal of an `n` by `m` matrix of zeros."""
    check_device(device)
    m = n if m is None else m
    for name, value in (("n", n), ("m", m)):
        if value < 0:
            raise RuntimeError(f"{name} must be greater or equal to 0, got {value}")
    want = as_dtype(dtype) if dtype is not None else \
        out.dtype if out is not None else get_default_dtype()
    t = from_array(np.eye(n, m, dtype=want.np))
    if out is not None:
        return into(out, t)
    return finish(t, requires_grad, order)


def _triangle(name: str, find: Any) -> Callable[..., Tensor]:
    def create(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None,
               layout: Any = None) -> Tensor:
        check_device(device)
        if row < 0 or col < 0:
            raise RuntimeError(f"row and col must be non-negative, got {row} and {col}")
        want = int64 if dtype is None else as_dtype(dtype)
        return from_array(np.stack(find(row, offset, col)).astype(want.np))

    create.__name__ = create.__qualname__ = name
    create.__doc__ = (f"Where the {'lower' if name[1] == 'r' and name[2] == 'i' else ''} triangle "
                      "of a matrix is: int64 [2, count], rows and columns.")
    return create


tril_indices = _triangle("tril_indices", np.tril_indices)
triu_indices = _triangle("triu_indices", np.triu_indices)
tril_indices.__doc__ = "Where the lower triangle of a `row` by `col` matrix is: int64 [2, count]."
triu_indices.__doc__ = "Where the upper triangle of a `row` by `col` matrix is: int64 [2, count]."


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers of x, [n] -> [n, N]: x**(N-1) ... x**0, or the other way round."""
    if x.ndim != 1:
        raise RuntimeError("x must be a one-dimensional tensor.")
    n = x.shape[0]
    N = n if N is None else N
    if N < 0:
        raise RuntimeError("N must be non-negative.")
    columns = [full_like(x, 1)]
    for _ in builtins.range(N - 1):
        columns.append(prim("mul", columns[-1], x))
    columns = columns[:N]
    if not increasing:
        columns.reverse()
    if not columns:
        return _filled((n, 0), 0, x.dtype)
    return prim("cat", *(prim("reshape", c, shape=(n, 1)) for c in columns), attrs=(1,))
