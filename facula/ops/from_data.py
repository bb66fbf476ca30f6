"""Tensors made from data: numbers, nested sequences, arrays, buffers, other libraries' tensors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from facula.device import check_device
from facula.dtype import DType, bool_, from_numpy_dtype, int64
from facula.ops.creation import _NUMBERS, as_dtype, finish
from facula.ops.promote import cast, get_default_dtype, number_dtype
from facula.runtime import allocator
from facula.tensor import Tensor, from_array, from_buffer, prim

__all__ = ["tensor", "as_tensor", "asarray", "from_numpy", "scalar_tensor", "frombuffer"]


def _shape_of(data: Any) -> list[int]:
    """The shape that a nested sequence seems to have by its first elements."""
    shape: list[int] = []
    while True:
        if isinstance(data, (Tensor, np.ndarray)):
            return shape + list(data.shape)
        if isinstance(data, str):
            raise ValueError("too many dimensions 'str'")
        if isinstance(data, (np.generic, *_NUMBERS)) or not _sequence(data):
            return shape
        shape.append(len(data))
        if not len(data):
            return shape
        data = data[0]


def _sequence(data: Any) -> bool:
    return hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, dict)


def _leaves(data: Any, shape: Sequence[int], depth: int, out: list[Any]) -> None:
    """The numbers of a nested sequence in order; ValueError where it is ragged."""
    if depth == len(shape):
        if isinstance(data, (Tensor, np.ndarray)):
            if math.prod(data.shape) != 1:
                raise ValueError("only one element tensors can be converted to Python scalars")
            out.append(data.item())                          # type: ignore[union-attr]
        elif isinstance(data, (np.generic, *_NUMBERS)):
            out.append(data)
        elif _sequence(data):
            raise TypeError(f"a number was expected, and {type(data).__name__} of length "
                            f"{len(data)} was found: the nesting is not of one depth")
        elif hasattr(data, "__index__"):
            out.append(data.__index__())
        else:
            raise RuntimeError(f"Could not infer dtype of {type(data).__name__}")
        return
    if isinstance(data, (np.generic, *_NUMBERS)) or not hasattr(data, "__len__"):
        raise TypeError("not a sequence")
    if len(data) != shape[depth]:
        raise ValueError(f"expected sequence of length {shape[depth]} at dim {depth} "
                         f"(got {len(data)})")
    for item in data:
        _leaves(item, shape, depth + 1, out)


def _kind_of(values: Sequence[Any]) -> DType:
    """The dtype that numbers of these kinds have together."""
    from facula.ops.promote import promote_types
    found = None
    for kind in {(type(v) if isinstance(v, _NUMBERS) and not isinstance(v, np.generic)
                  else np.asarray(v).dtype) for v in values}:
        if isinstance(kind, type):
            each = number_dtype(kind(0) if kind in _NUMBERS else next(
                n(0) for n in _NUMBERS if issubclass(kind, n)))
        else:
            each = from_numpy_dtype(kind)
        found = each if found is None else promote_types(found, each)
    return found or get_default_dtype()


def _element_dtype(data: Any) -> DType | None:
    """The dtype by tensors and arrays inside a nested list, which their numbers cannot tell."""
    while not isinstance(data, (Tensor, np.ndarray, np.generic, *_NUMBERS)) and _sequence(data):
        if isinstance(data, str) or not len(data):
            return None
        data = data[0]
    if isinstance(data, Tensor):
        return data.dtype
    return from_numpy_dtype(data.dtype) if isinstance(data, np.ndarray) else None


def _nested(data: Any, dtype: DType | None) -> np.ndarray:
    """A nested sequence or a number as an ndarray of `dtype`, inferred where it is None."""
    first = data
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    array = None
    if type(first) in _NUMBERS:
        # NumPy reads lists of plain numbers fast; whatever it does not take goes the slow way,
        # which knows what to say about it.
        try:
            array = np.array(data)
        except (ValueError, TypeError, OverflowError):
            array = None
        if array is not None and array.dtype.kind not in "biufc":
            array = None
    if array is not None:
        kind = array.dtype.kind
        if dtype is None:
            if kind == "u":
                raise ValueError("Overflow when unpacking long long: an integer is above "
                                 "2**63 - 1; say dtype=facula.uint64 to keep it")
            dtype = {"b": bool_, "i": int64, "f": get_default_dtype(),
                     "c": get_default_dtype().to_complex()}[kind]
    else:
        shape = _shape_of(data)
        values: list[Any] = []
        _leaves(data, shape, 0, values)
        if dtype is None:
            dtype = _element_dtype(data) or _kind_of(values)
            if dtype.kind == "i" and any(not -2**63 <= v < 2**63 for v in values):
                raise ValueError("Overflow when unpacking long long")
        if any(isinstance(v, int) and not -2**63 <= v < 2**64 for v in values):
            if dtype.kind in "bui":
                raise ValueError("Overflow when unpacking long long")
            values = [complex(v) if isinstance(v, complex) else float(v) for v in values]
        array = np.array(values).reshape(shape) if values else np.empty(shape)
    return _convert(array, dtype)


def _convert(array: np.ndarray, dtype: DType) -> np.ndarray:
    """Numbers that the user wrote in `dtype`; RuntimeError where they do not fit into it."""
    if array.dtype == dtype.np:
        return array
    if array.dtype.kind == "c" and dtype.kind not in "cb":
        raise TypeError("must be real number, not complex")
    if dtype.kind in "ui" and array.size and array.dtype.kind != "b":
        bits = 8 * dtype.itemsize
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
        if dtype.kind == "u":
            # Negative integers wrap around in unsigned dtypes, negative floats do not.
            low, high = 0 if array.dtype.kind == "f" else 1 - 2 ** bits, 2 ** bits
        least, most = array.min().item(), array.max().item()
        if least < 0 and dtype.kind == "u" and bits == 64:
            raise OverflowError("can't convert negative int to unsigned")
        if not (least >= low and most < high):
            raise RuntimeError(f"value cannot be converted to type {dtype.name} without overflow")
    with np.errstate(all="ignore"):
        return array.astype(dtype.np)


def _foreign(data: Any) -> Tensor | None:
    """Tensors of other libraries and arrays by their protocols; None for anything else."""
    if isinstance(data, np.ndarray):
        return from_array(data, copy=False)
    if isinstance(data, np.generic):
        return from_array(np.asarray(data))
    if hasattr(data, "__dlpack__"):
        from facula.ops.dlpack import from_dlpack
        return from_dlpack(data)
    if hasattr(data, "__array_interface__") or hasattr(data, "__array__"):
        return from_array(np.asarray(data), copy=False)
    if isinstance(data, (bytearray, memoryview)) or type(data).__name__ == "array":
        return from_array(np.array(memoryview(data)))
    return None


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False,
           pin_memory: bool = False, order: str | None = None) -> Tensor:
    """A new tensor with a copy of `data`: numbers, nested sequences, arrays, other tensors.

    Integers become int64, floats the default dtype, unless `dtype` is given.  order="F" lays it
    out column by column.  Raises ValueError for ragged lists, RuntimeError for numbers that the
    dtype cannot hold.
    """
    check_device(device)
    dtype = None if dtype is None else as_dtype(dtype)
    if isinstance(data, Tensor):
        warnings.warn("To copy construct from a tensor, it is recommended to use "
                      "sourceTensor.detach().clone() or "
                      "sourceTensor.detach().clone().requires_grad_(True), rather than "
                      "facula.tensor(sourceTensor).", UserWarning, stacklevel=2)
        t = from_buffer(*_copied(data))
        return finish(cast(t, dtype or t.dtype), requires_grad, order)
    if isinstance(data, str):
        raise TypeError("new(): invalid data type 'str'")
    if type(data) in (list, tuple, int, float, bool, complex):
        t = from_array(_nested(data, dtype))
        return finish(t, requires_grad, order)
    other = _foreign(data)
    if other is None:
        return finish(from_array(_nested(data, dtype)), requires_grad, order)
    array = other._peek()
    if dtype is not None and dtype is not other.dtype:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = array.astype(dtype.np)
    return finish(from_array(array), requires_grad, order)


def _copied(t: Tensor) -> tuple[Any, Any]:
    array = t._peek()
    return allocator.from_numpy_private(array), t._node.spec


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`data` as a tensor, sharing its memory where dtype and layout allow it."""
    check_device(device)
    dtype = None if dtype is None else as_dtype(dtype)
    if not isinstance(data, Tensor):
        if type(data) in (list, tuple, int, float, bool, complex):
            return tensor(data, dtype=dtype)
        other = _foreign(data)
        if other is None:
            return tensor(data, dtype=dtype)
        data = other
    return cast(data, dtype) if dtype is not None else data


def asarray(obj: Any, *, dtype: Any = None, device: Any = None, copy: bool | None = None,
            requires_grad: bool = False) -> Tensor:
    """`obj` as a tensor; `copy` True always copies, False raises where it would have to."""
    t = as_tensor(obj, dtype, device)
    shares = isinstance(obj, (Tensor, np.ndarray)) or hasattr(obj, "__dlpack__") \
        or hasattr(obj, "__array_interface__")
    if isinstance(obj, Tensor):
        shares = t is obj
    elif isinstance(obj, np.ndarray):
        shares = obj.flags.writeable and t.dtype.np == obj.dtype
    if copy is False and not shares:
        raise ValueError("can't alias arbitrary sequence into a tensor, or the dtype would have "
                         "to be converted: leave copy out")
    if copy or (requires_grad and isinstance(obj, Tensor) and not t._leaf):
        t = prim("alias", t.detach()) if shares else t
    elif requires_grad and t is obj:
        t = t.detach()
    return finish(t, requires_grad)


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor that shares the array's memory: writing to one is seen in the other.

    Memory that NumPy may not write to is copied instead.  Raises TypeError for anything but an
    ndarray of a dtype that facula has.
    """
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(ndarray).__name__})")
    return from_array(ndarray, copy=False)


def frombuffer(buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0,
               requires_grad: bool = False) -> Tensor:
    """A one-dimensional tensor over the memory of an object with the buffer protocol."""
    dtype = as_dtype(dtype)
    size = memoryview(buffer).nbytes
    if size == 0 or count == 0:
        raise ValueError(f"both buffer length ({size}) and count ({count}) must not be 0")
    if not 0 <= offset < size:
        raise ValueError(f"offset ({offset} bytes) must be non-negative and no greater than "
                         f"buffer length ({size} bytes) minus 1")
    if count < 0 and (size - offset) % dtype.itemsize:
        raise ValueError(f"buffer length ({size - offset} bytes) after offset ({offset} bytes) "
                         f"must be a multiple of element size ({dtype.itemsize})")
    if count > 0 and offset + count * dtype.itemsize > size:
        raise ValueError(f"requested buffer length ({count} * {dtype.itemsize} bytes) after "
                         f"offset ({offset} bytes) must not be greater than actual buffer length "
                         f"({size} bytes)")
    array = np.frombuffer(buffer, dtype.np, count, offset)
    return finish(from_array(array, copy=False), requires_grad)


def scalar_tensor(value: Any, *, dtype: Any = None, device: Any = None,
                  requires_grad: bool = False) -> Tensor:
    """A 0-dim tensor of the default dtype holding `value`."""
    return tensor(value, dtype=dtype or get_default_dtype(), device=device,
                  requires_grad=requires_grad)


def _new_tensor(self: Tensor, data: Any, *, dtype: Any = None, device: Any = None,
                requires_grad: bool = False, layout: Any = None,
                pin_memory: bool = False) -> Tensor:
    """A tensor with a copy of `data` in this tensor's dtype."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tensor(data, dtype=dtype or self.dtype, device=device,
                      requires_grad=requires_grad)


Tensor.new_tensor = _new_tensor                              # type: ignore[attr-defined]
