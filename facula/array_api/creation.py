"""Arrays made of numbers, ranges and other arrays."""

from __future__ import annotations

import math
from typing import Any

import facula
from facula.array_api._shared import result_type
from facula.dtype import DType
from facula.ops.promote import number_dtype
from facula.tensor import Tensor

__all__ = ["arange", "asarray", "empty", "empty_like", "eye", "from_dlpack", "full", "full_like",
           "linspace", "meshgrid", "ones", "ones_like", "tril", "triu", "zeros", "zeros_like"]


def arange(start: float, /, stop: float | None = None, step: float = 1, *,
           dtype: DType | None = None, device: Any = None) -> Tensor:
    """start, start + step, ... below `stop`; `arange(n)` is 0 ... n - 1.  May be empty."""
    if stop is None:
        start, stop = 0, start
    if dtype is None:
        whole = all(isinstance(v, int) for v in (start, stop, step))
        dtype = number_dtype(0 if whole else 0.0)
    if step == 0:
        raise ValueError("arange(): step must not be 0")
    if (stop - start > 0) != (step > 0):
        return facula.empty(0, dtype=dtype, device=device)
    return facula.arange(start, stop, step, dtype=dtype, device=device)


def asarray(obj: Any, /, *, dtype: DType | None = None, device: Any = None,
            copy: bool | None = None) -> Tensor:
    """`obj` (an array, a number, a nested sequence, a buffer, an object with DLPack) as an array.

    `copy` True always copies, False raises ValueError where it would have to.
    """
    return facula.asarray(obj, dtype=dtype, device=device, copy=copy)


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """An array over the memory of an object with `__dlpack__`."""
    return facula.from_dlpack(x, device=device, copy=copy)


def empty(shape: Any, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """An array whose values are not set."""
    return facula.empty(shape, dtype=dtype, device=device)


def zeros(shape: Any, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """An array of zeros."""
    return facula.zeros(shape, dtype=dtype, device=device)


def ones(shape: Any, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """An array of ones."""
    return facula.ones(shape, dtype=dtype, device=device)


def full(shape: Any, fill_value: Any, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """An array of one value."""
    size = (shape,) if isinstance(shape, int) else shape
    return facula.full(size, fill_value, dtype=dtype, device=device)


def empty_like(x: Tensor, /, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """An array of the shape of `x` whose values are not set."""
    return facula.empty_like(x, dtype=dtype, device=device)


def zeros_like(x: Tensor, /, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """Zeros in the shape of `x`."""
    return facula.zeros_like(x, dtype=dtype, device=device)


def ones_like(x: Tensor, /, *, dtype: DType | None = None, device: Any = None) -> Tensor:
    """Ones in the shape of `x`."""
    return facula.ones_like(x, dtype=dtype, device=device)


def full_like(x: Tensor, /, fill_value: Any, *, dtype: DType | None = None,
              device: Any = None) -> Tensor:
    """One value in the shape of `x`."""
    return facula.full_like(x, fill_value, dtype=dtype, device=device)


def eye(n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: DType | None = None,
        device: Any = None) -> Tensor:
    """`[n_rows, n_cols]` with ones on the k-th diagonal, above the main one for k > 0."""
    columns = facula.arange(n_rows if n_cols is None else n_cols)
    rows = facula.arange(n_rows).unsqueeze(1)
    return (columns == rows + k).to(number_dtype(0.0) if dtype is None else dtype)


def linspace(start: Any, stop: Any, /, num: int, *, dtype: DType | None = None,
             device: Any = None, endpoint: bool = True) -> Tensor:
    """`num` numbers evenly spaced from `start` to `stop`, which is one of them if `endpoint`."""
    if dtype is None:
        dtype = number_dtype(0j if isinstance(start, complex) or isinstance(stop, complex)
                             else 0.0)
    count = num if endpoint else num + 1
    if dtype.is_complex:
        start, stop = complex(start), complex(stop)
        parts = [facula.linspace(a, b, count, dtype=dtype.to_real(), device=device)
                 for a, b in ((start.real, stop.real), (start.imag, stop.imag))]
        line = facula.complex(*parts)
    else:
        line = facula.linspace(start, stop, count, dtype=dtype, device=device)
    return line[:num]


def meshgrid(*arrays: Tensor, indexing: str = "xy") -> tuple[Tensor, ...]:
    """The coordinates of a grid given those along each axis; 'xy' swaps the first two axes."""
    dtypes = {a.dtype for a in arrays}
    if len(dtypes) > 1:
        raise ValueError("meshgrid(): all arrays have to have one dtype; "
                         f"{result_type(*arrays).name} holds the values of all")
    return tuple(facula.meshgrid(*arrays, indexing=indexing)) if arrays else ()


def tril(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The matrices `[..., m, n]` with zeros above the k-th diagonal."""
    return facula.tril(x, k)


def triu(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The matrices `[..., m, n]` with zeros below the k-th diagonal."""
    return facula.triu(x, k)


e, inf, nan, pi, newaxis = math.e, math.inf, math.nan, math.pi, None
