"""Types by PyTorch's oldest names: `Tensor(2, 3)`, `FloatTensor`, `x.type()`."""

from __future__ import annotations

from typing import Any

from facula import dtypes as d
from facula.device import check_device
from facula.dtype import DType
from facula.ops.creation import as_dtype, empty, size_of
from facula.ops.from_data import tensor
from facula.ops.promote import get_default_dtype
from facula.tensor import Tensor

__all__ = ["LegacyTensor", "construct", "construct_as", "legacy", "type_", "typename"]

_LEGACY = {"HalfTensor": d.float16, "BFloat16Tensor": d.bfloat16, "FloatTensor": d.float32,
           "DoubleTensor": d.float64, "ByteTensor": d.uint8, "CharTensor": d.int8,
           "ShortTensor": d.int16, "IntTensor": d.int32, "LongTensor": d.int64,
           "BoolTensor": d.bool_}
_LEGACY_NAMES = {v: k for k, v in _LEGACY.items()} | {
    d.complex64: "ComplexFloatTensor", d.complex128: "ComplexDoubleTensor",
    d.uint16: "UInt16Tensor", d.uint32: "UInt32Tensor", d.uint64: "UInt64Tensor"}


def type_(self: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """Without arguments the type's name, 'facula.FloatTensor'; else this tensor in `dtype`."""
    if dtype is None:
        return f"facula.{_LEGACY_NAMES[self.dtype]}"
    if isinstance(dtype, str):
        found = _LEGACY.get(dtype.rpartition(".")[2])
        if found is None:
            raise ValueError(f"invalid type: {dtype!r}")
        dtype = found
    elif isinstance(dtype, type) and issubclass(dtype, LegacyTensor):
        dtype = dtype.dtype
    return self.to(as_dtype(dtype))        # type: ignore[attr-defined]


class LegacyTensor:
    """Base of `FloatTensor` and the like, which make tensors and test for them."""

    dtype: DType = d.float32

    def __new__(cls, *args: Any, device: Any = None) -> Any:
        return construct_as(cls.__name__, cls.dtype, args, device)


def construct_as(name: str, dtype: DType, args: tuple[Any, ...], device: Any) -> Tensor:
    """What PyTorch's oldest constructors give: of data that tensor, of numbers one of that size."""
    check_device(device)
    if len(args) == 1 and not isinstance(args[0], int):
        data = args[0]
        if isinstance(data, Tensor):
            return data.detach()
        if type(data).__name__ == "Size":
            return empty(*data, dtype=dtype)
        if isinstance(data, (float, complex)):
            raise TypeError(f"{name}(): data must be a sequence (got {type(data).__name__}); "
                            "facula.tensor makes a tensor of a number")
        return tensor(data, dtype=dtype)
    return empty(*(size_of(name, args) if args else (0,)), dtype=dtype)


def construct(cls: type[Tensor], *args: Any, device: Any = None) -> Tensor:
    """`Tensor(2, 3)` not filled, `Tensor([1, 2])` of these values, both of the default dtype.

    Kept for programs that have it: `facula.empty` and `facula.tensor` say which is meant.
    Raises TypeError for a number that is no size, and for other classes than Tensor itself.
    """
    if cls is not Tensor:
        raise TypeError(f"{cls.__name__}() takes no data: a subclass of Tensor says how it is made "
                        "in a __new__ of its own, as Parameter does")
    return construct_as("Tensor", get_default_dtype(), args, device)


class _LegacyMeta(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, Tensor) and instance.dtype is cls.dtype  # type: ignore


def legacy(name: str) -> Any:
    """The class `name`, such as FloatTensor; None for names that are none."""
    dtype = _LEGACY.get(name)
    if dtype is None:
        return None
    return _LegacyMeta(name, (LegacyTensor,), {"dtype": dtype, "__doc__":
                       f"`{name}(data)` and `{name}(2, 3)`: tensors of {dtype.name}."})


def typename(obj: Any) -> str:
    """The name of the type of `obj`; of tensors 'facula.FloatTensor' and the like."""
    if isinstance(obj, Tensor):
        return str(type_(obj))
    kind = type(obj)
    return kind.__name__ if kind.__module__ in ("", "builtins") \
        else f"{kind.__module__}.{kind.__name__}"


Tensor.__new__ = staticmethod(construct)                    # type: ignore[assignment]
Tensor.type = type_                                         # type: ignore[attr-defined]
