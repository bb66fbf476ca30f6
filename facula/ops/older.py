"""What PyTorch keeps from earlier versions: functions, types by their oldest names (`Tensor(2, 3)`,
`FloatTensor`, `x.type()`), methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from facula import dtypes as d
from facula.device import check_device
from facula.dtype import DType
from facula.errors import ShapeError
from facula.ops.creation import as_dtype, empty, finish, size_of
from facula.ops.from_data import tensor
from facula.ops.linalg import norms
from facula.ops.promote import broadcast_shapes, get_default_dtype
from facula.ops.reductions import wrap_dim
from facula.ops.surface import public
from facula.tensor import Tensor, from_array

__all__ = ["frobenius_norm", "nuclear_norm", "norm_except_dim", "from_file", "legacy",
           "typename"]

_FAMILY = "older"


def frobenius_norm(input: Tensor, dim: int | Sequence[int] = (), keepdim: bool = False) -> Tensor:
    """The root of the sum of squares over `dim`, all dimensions if there are none."""
    dims = (dim,) if isinstance(dim, int) else tuple(dim)
    return norms.vector_norm(input, 2, dims or tuple(range(input.ndim)), keepdim)


def nuclear_norm(input: Tensor, dim: Sequence[int] = (-2, -1), keepdim: bool = False) -> Tensor:
    """The sum of the singular values of the matrices in two dimensions."""
    return norms.matrix_norm(input, "nuc", tuple(dim), keepdim)


def norm_except_dim(v: Tensor, pow: int = 2, dim: int = 0) -> Tensor:
    """The `pow`-norm over all dimensions but one, which keep size 1; over all for dim -1."""
    if dim == -1:
        return norms.vector_norm(v, pow)
    axis = wrap_dim(dim, v.ndim)
    rest = tuple(k for k in range(v.ndim) if k != axis)
    return norms.vector_norm(v, pow, rest, True) if rest else v.abs()


for _fn, _samples in ((frobenius_norm, ((3, 4), (0,))), (nuclear_norm, ((3, 4),)),
                      (norm_except_dim, ((2, 3, 4), 2, 1))):
    public(_fn, _fn.__name__, _FAMILY, method=False, samples=lambda make, given=_samples: [
        ((make(*given[0]), *given[1:]), {})])


def from_file(filename: str, shared: bool | None = None, size: int = 0, *, dtype: Any = None,
              layout: Any = None, device: Any = None, pin_memory: bool = False,
              requires_grad: bool = False) -> Tensor:
    """`size` elements at the start of a file, as a vector.

    With `shared` the tensor is the file: writing to one is seen in the other, and a shorter file
    is made longer.  Otherwise writes stay in memory.  RuntimeError if the file is too short.
    """
    want = get_default_dtype() if dtype is None else as_dtype(dtype)
    if size == 0:
        return finish(from_array(np.empty(0, want.np)), requires_grad)
    need = size * want.itemsize
    if shared:
        with open(filename, "ab") as file:
            if file.tell() < need:
                file.truncate(need)
    try:
        array = np.memmap(filename, want.np, "r+" if shared else "c", shape=(size,))
    except ValueError as error:
        raise RuntimeError(f"from_file(): {filename} is shorter than the {need} bytes that "
                           f"{size} elements of {want.name} take") from error
    return finish(from_array(np.asarray(array), copy=False), requires_grad)


# ---------------------------------------------------------------- types

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


# ---------------------------------------------------------------- methods

def _new(self: Tensor, *args: Any, device: Any = None) -> Tensor:
    """A tensor of this one's dtype: `x.new(2, 3)` not initialised, `x.new([1, 2])` of data."""
    return construct_as("new", self.dtype, args, device)


def _host_map(self: Tensor, others: tuple[Tensor, ...], fn: Callable[..., Any], name: str
              ) -> Tensor:
    """Overwrite each element with fn(element, elements of the others); on the host."""
    if self.requires_grad or any(o.requires_grad for o in others):
        raise RuntimeError(f"Can't call {name}() on Variable that requires grad. Use "
                           f"var.detach().{name}() instead.")
    if any(o.dtype is not self.dtype for o in others):
        raise TypeError(f"{name}(): expected {self.dtype.name} tensors, got "
                        f"{', '.join(o.dtype.name for o in others)}")
    shape = self.shape
    if broadcast_shapes(shape, *[o.shape for o in others]) != shape:
        raise ShapeError(f"{name}(): the others have to broadcast to {list(shape)}")
    columns = [np.broadcast_to(t.numpy(), shape).reshape(-1).tolist() for t in (self, *others)]
    values = np.array([fn(*row) for row in zip(*columns)]).reshape(shape)
    return self.copy_(from_array(values.astype(self.dtype.np) if prod(shape)
                                 else np.empty(shape, self.dtype.np)))


def _map(self: Tensor, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
    """Overwrite each element with callable(element, element of `tensor`)."""
    return _host_map(self, (tensor,), callable, "map_")


def _map2(self: Tensor, x: Tensor, y: Tensor, callable: Callable[[Any, Any, Any], Any]) -> Tensor:
    """Overwrite each element with callable(element, element of x, element of y)."""
    return _host_map(self, (x, y), callable, "map2_")


def _dim_order(self: Tensor) -> tuple[int, ...]:
    """The dimensions from the outermost in memory to the innermost."""
    strides = self.stride()
    return tuple(sorted(range(self.ndim), key=lambda k: -strides[k]))


Tensor.__new__ = staticmethod(construct)                     # type: ignore[assignment]
Tensor.type = type_                                          # type: ignore[attr-defined]
Tensor.new = _new                                            # type: ignore[attr-defined]
Tensor.map_ = _map                                           # type: ignore[attr-defined]
Tensor.map2_ = _map2                                         # type: ignore[attr-defined]
Tensor.dim_order = _dim_order                                # type: ignore[attr-defined]
Tensor.output_nr = property(lambda self: 0)                  # type: ignore[attr-defined]
Tensor.name = property(lambda self: None)                    # type: ignore[attr-defined]
