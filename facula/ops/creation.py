"""Creating tensors that are filled with a value, or like other tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facula.device import channels_last, channels_last_3d, check_device
from facula.device import preserve_format as preserve
from facula.dtype import DType, bool_, complex128, float64, int64, uint8
from facula.errors import DTypeError, ShapeError
from facula.graph.spec import freeze_number, spec
from facula.ops.given import into
from facula.ops.promote import cast, expand_to, get_default_dtype, number_dtype, wrap_integer
from facula.runtime import allocator
from facula.tensor import Tensor, from_buffer, prim

__all__ = ["zeros", "ones", "full", "empty", "empty_strided", "empty_permuted", "zeros_like",
           "ones_like", "full_like", "empty_like", "as_dtype", "size_of", "column_major",
           "finish"]

# ---------------------------------------------------------------- arguments

_NUMBERS = (bool, int, float, complex)
_PYTHON_TYPES: dict[Any, DType] = {float: float64, int: int64, bool: bool_, complex: complex128}


def as_dtype(dtype: Any) -> DType:
    """A dtype argument: a DType, or the Python types float, int, bool and complex."""
    if isinstance(dtype, DType):
        return dtype
    if isinstance(dtype, type) and dtype in _PYTHON_TYPES:
        return _PYTHON_TYPES[dtype]
    raise TypeError(f"dtype must be one of facula's dtypes (facula.float32, ...), not {dtype!r}")


def size_of(name: str, size: Sequence[Any]) -> tuple[int, ...]:
    """The shape that `zeros(2, 3)` or `zeros((2, 3))` asks for."""
    if len(size) == 1 and isinstance(size[0], (tuple, list)):
        size = size[0]
    elif len(size) == 1 and isinstance(size[0], Tensor) and size[0].ndim == 1:
        size = size[0].tolist()                              # type: ignore[attr-defined]
    out = []
    for n in size:
        if type(n) is not int:
            if isinstance(n, (bool, float)) or not hasattr(n, "__index__"):
                raise TypeError(f"{name}(): argument 'size' must be tuple of ints, but found "
                                f"element of type {type(n).__name__}")
            n = n.__index__()
        if n < 0:
            raise ShapeError(f"{name}: Dimension size must be non-negative, got {n}: "
                             f"{list(size)}")
        out.append(n)
    return tuple(out)


def column_major(shape: Sequence[int]) -> tuple[int, ...] | None:
    """The strides of column-major order; None where row-major is the same."""
    strides, step = [], 1
    for n in shape:
        strides.append(step)
        step *= max(n, 1)
    return tuple(strides) if sum(n > 1 for n in shape) > 1 else None


def _strides_for(shape: tuple[int, ...], order: Any, format: Any) -> tuple[int, ...] | None:
    if order not in ("C", "F", None):
        raise ValueError(f"order must be 'C' (row-major) or 'F' (column-major), not {order!r}")
    if order == "F":
        return column_major(shape)
    if format is channels_last or format is channels_last_3d:
        ndim = 4 if format is channels_last else 5
        if len(shape) != ndim:
            raise RuntimeError(f"required rank {ndim} tensor to use {format.name} format")
        strides = [0] * ndim
        step = 1
        for k in (1, *range(ndim - 1, 1, -1), 0):
            strides[k] = step
            step *= max(shape[k], 1)
        return tuple(strides)
    return None


def finish(t: Tensor, requires_grad: bool = False, order: Any = None,
           memory_format: Any = None) -> Tensor:
    """Give a fresh tensor the layout and the gradient flag that were asked for."""
    if order is not None or memory_format is not None:
        strides = _strides_for(t._node.spec.shape, order, memory_format)
        if strides is not None:
            t._strides = strides
    if requires_grad:
        if t.dtype.kind not in "fc":
            raise DTypeError("Only Tensors of floating point and complex dtype can require "
                             "gradients")
        t.requires_grad_()
    return t


# ---------------------------------------------------------------- filled

def _number(value: Any, dtype: DType, name: str) -> Any:
    """`value` as a constant of `dtype`."""
    if isinstance(value, Tensor):
        value = value.item()                                 # type: ignore[attr-defined]
    elif isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, _NUMBERS):
        raise TypeError(f"{name}(): argument 'fill_value' must be Number, not "
                        f"{type(value).__name__}")
    kind = dtype.kind
    if isinstance(value, complex) and kind not in "cb":
        raise RuntimeError(f"value cannot be converted to type {dtype.name} without overflow")
    if kind in "ui":
        if isinstance(value, float) and not math.isfinite(value):
            raise RuntimeError(f"value cannot be converted to type {dtype.name} without overflow")
        value = int(value)                                   # type: ignore[arg-type]
        bits = 8 * dtype.itemsize
        if not -(1 << (bits - (kind == "i"))) <= value < (1 << (bits - (kind == "i"))):
            raise RuntimeError(f"value cannot be converted to type {dtype.name} without overflow")
        return wrap_integer(value, dtype)
    if kind == "f":
        return float(value)                                  # type: ignore[arg-type]
    return bool(value) if kind == "b" else complex(value)


def _filled(shape: tuple[int, ...], value: Any, dtype: DType) -> Tensor:
    if isinstance(value, complex):
        return prim("full", attrs=(value,), shape=shape, dtype=dtype)
    return prim("full", attrs=(freeze_number(value),), shape=shape, dtype=dtype)


def _make_filled(name: str, value: Any) -> Callable[..., Tensor]:
    def create(*size: Any, out: Tensor | None = None, dtype: Any = None, layout: Any = None,
               device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
               order: str | None = None, memory_format: Any = None, names: Any = None,
               **kw: Any) -> Tensor:
        if "size" in kw and not size:
            size = (kw.pop("size"),)
        if kw:
            raise TypeError(f"{name}() got an unexpected keyword argument '{next(iter(kw))}'")
        if not size:
            raise TypeError(f"{name}() missing 1 required positional arguments: \"size\"")
        check_device(device)
        shape = size_of(name, size)
        if out is not None:
            return into(out, _filled(shape, value, dtype or out.dtype))
        want = get_default_dtype() if dtype is None else as_dtype(dtype)
        return finish(_filled(shape, want.np.type(value).item(), want), requires_grad, order,
                      memory_format)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = (f"A tensor of {name}: `{name}(2, 3)` or `{name}((2, 3))`; order=\"F\" lays "
                      "it out column by column.")
    return create


zeros = _make_filled("zeros", 0)
ones = _make_filled("ones", 1)


def full(size: Any, fill_value: Any, *, out: Tensor | None = None, dtype: Any = None,
         layout: Any = None, device: Any = None, requires_grad: bool = False,
         pin_memory: bool = False, order: str | None = None, names: Any = None) -> Tensor:
    """A tensor of shape `size` filled with a number, of that number's dtype unless given."""
    check_device(device)
    if isinstance(fill_value, Tensor):
        own = fill_value.dtype
    else:
        value = fill_value.item() if isinstance(fill_value, np.generic) else fill_value
        own = number_dtype(value)
    want = as_dtype(dtype) if dtype is not None else out.dtype if out is not None else own
    shape = size_of("full", (size,) if isinstance(size, (tuple, list, Tensor)) else ((size,),))
    if isinstance(fill_value, Tensor) and fill_value.requires_grad:
        return expand_to(cast(fill_value, want), shape)
    t = _filled(shape, _number(fill_value, want, "full"), want)
    if out is not None:
        return into(out, t)
    return finish(t, requires_grad, order)


def empty(*size: Any, out: Tensor | None = None, dtype: Any = None, layout: Any = None,
          device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
          order: str | None = None, memory_format: Any = None, names: Any = None,
          **kw: Any) -> Tensor:
    """A tensor whose content is whatever the memory held; order="F": column by column."""
    if "size" in kw and not size:
        size = (kw.pop("size"),)
    if kw:
        raise TypeError(f"empty() got an unexpected keyword argument '{next(iter(kw))}'")
    check_device(device)
    want = get_default_dtype() if dtype is None else as_dtype(dtype)
    shape = size_of("empty", size)
    if out is not None:
        return into(out, _uninitialised(shape, out.dtype))
    return finish(_uninitialised(shape, want), requires_grad, order, memory_format)


def _uninitialised(shape: tuple[int, ...], dtype: DType) -> Tensor:
    s = spec(shape, dtype)
    buffer = allocator.empty(s.numel * dtype.itemsize)
    if dtype is bool_ and s.numel:
        # A byte that is neither 0 nor 1 is no bool.
        buffer.array(spec((s.numel,), uint8))[:] = 0
    return from_buffer(buffer, s)


def empty_strided(size: Any, stride: Any, *, dtype: Any = None, layout: Any = None,
                  device: Any = None, requires_grad: bool = False,
                  pin_memory: bool = False) -> Tensor:
    """An uninitialised tensor of the given strides, counted in elements."""
    check_device(device)
    shape = size_of("empty_strided", (tuple(size),))
    stride = tuple(int(s) for s in stride)
    if len(stride) != len(shape):
        raise RuntimeError(f"mismatch in length of strides and shape: {len(stride)} strides for "
                           f"{len(shape)} dimensions")
    if any(s < 0 for s in stride):
        raise RuntimeError(f"as_strided: Negative strides are not supported, got {list(stride)}")
    want = get_default_dtype() if dtype is None else as_dtype(dtype)
    count = sum((n - 1) * s for n, s in zip(shape, stride)) + 1 if math.prod(shape) else 0
    base = _uninitialised((count,), want)
    if count == math.prod(shape) and sorted(s for s, n in zip(stride, shape) if n > 1) \
            == _dense(shape, stride):
        t = _uninitialised(shape, want)
        t._strides = stride
    else:
        t = base._view("as_strided", (stride, 0), shape, stride, 0)
    return finish(t, requires_grad)


def _dense(shape: Sequence[int], stride: Sequence[int]) -> list[int]:
    """The strides that elements without gaps would have, in the order of `stride`."""
    out, step = [], 1
    for _, n in sorted((s, n) for s, n in zip(stride, shape) if n > 1):
        out.append(step)
        step *= n
    return out


def empty_permuted(size: Any, physical_layout: Any, *, dtype: Any = None, layout: Any = None,
                   device: Any = None, requires_grad: bool = False,
                   pin_memory: bool = False) -> Tensor:
    """An uninitialised dense tensor whose dimensions lie in the order `physical_layout`,
    outermost first."""
    shape = size_of("empty_permuted", (tuple(size),))
    order = [int(d) for d in physical_layout]
    if len(order) != len(shape):
        raise RuntimeError("Number of dimensions in size does not match the length of the "
                           f"physical_layout; i.e. len(size) = {len(shape)} is not equal to "
                           f"len(physical_layout) = {len(order)}")
    if sorted(order) != list(range(len(order))):
        raise RuntimeError(f"Duplicate or out of range dim in physical_layout {order}")
    strides = [0] * len(order)
    step = 1
    for k in reversed(order):
        strides[k] = step
        step *= max(shape[k], 1)
    return empty_strided(shape, strides, dtype=dtype, device=device,
                         requires_grad=requires_grad)


# ---------------------------------------------------------------- like another tensor

def _like(t: Tensor, memory_format: Any, order: Any, new: Tensor, requires_grad: bool) -> Tensor:
    """Fresh tensors follow the layout of the one they are like, where that is dense."""
    if order is None and memory_format in (None, preserve) and t._strides is not None \
            and new.shape == t.shape:
        shape = t._node.spec.shape
        if sorted(s for s, n in zip(t._strides, shape) if n > 1) == _dense(shape, t._strides):
            new._strides = t._strides
    return finish(new, requires_grad, order, None if memory_format is preserve else memory_format)


def _check_like(name: str, input: Any, dtype: Any, device: Any) -> DType:
    if not isinstance(input, Tensor):
        raise TypeError(f"{name}(): argument 'input' (position 1) must be Tensor, not "
                        f"{type(input).__name__}")
    check_device(device)
    return input.dtype if dtype is None else as_dtype(dtype)


def zeros_like(input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None,
               requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = None,
               order: str | None = None) -> Tensor:
    """Zeros of the shape and dtype of `input`."""
    return full_like(input, 0, dtype=dtype, device=device, requires_grad=requires_grad,
                     memory_format=memory_format, order=order)


def ones_like(input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None,
              requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = None,
              order: str | None = None) -> Tensor:
    """Ones of the shape and dtype of `input`."""
    return full_like(input, 1, dtype=dtype, device=device, requires_grad=requires_grad,
                     memory_format=memory_format, order=order)


def full_like(input: Tensor, fill_value: Any, *, dtype: Any = None, layout: Any = None,
              device: Any = None, requires_grad: bool = False, pin_memory: bool = False,
              memory_format: Any = None, order: str | None = None) -> Tensor:
    """`fill_value` in the shape and dtype of `input`."""
    want = _check_like("full_like", input, dtype, device)
    t = _filled(input._node.spec.shape, _number(fill_value, want, "full_like"), want)
    return _like(input, memory_format, order, t, requires_grad)


def empty_like(input: Tensor, *, dtype: Any = None, layout: Any = None, device: Any = None,
               requires_grad: bool = False, pin_memory: bool = False, memory_format: Any = None,
               order: str | None = None) -> Tensor:
    """An uninitialised tensor of the shape and dtype of `input`."""
    want = _check_like("empty_like", input, dtype, device)
    t = _uninitialised(input._node.spec.shape, want)
    return _like(input, memory_format, order, t, requires_grad)


def _new(name: str, fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def method(self: Tensor, *size: Any, dtype: Any = None, device: Any = None,
               requires_grad: bool = False, layout: Any = None, pin_memory: bool = False,
               **kw: Any) -> Tensor:
        return fn(*size, dtype=dtype or self.dtype, device=device,
                  requires_grad=requires_grad, **kw)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"`facula.{name[4:]}` in this tensor's dtype unless another is given."
    return method


Tensor.new_zeros = _new("new_zeros", zeros)                  # type: ignore[attr-defined]
Tensor.new_ones = _new("new_ones", ones)                     # type: ignore[attr-defined]
Tensor.new_empty = _new("new_empty", empty)                  # type: ignore[attr-defined]
Tensor.new_full = _new("new_full", full)                     # type: ignore[attr-defined]
Tensor.new_empty_strided = _new("new_empty_strided", empty_strided)   # type: ignore
