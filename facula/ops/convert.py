"""Tensors as other things, and other things as tensors: dtypes, NumPy, Python numbers, copies."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from facula import dtypes as d
from facula.device import CPU, check_device, preserve_format, strided
from facula.device import device as Device
from facula.dtype import DType
from facula.errors import GradientError
from facula.graph.record import _local
from facula.graph.spec import spec
from facula.ops.creation import _like, as_dtype
from facula.ops.promote import cast, expand_to
from facula.ops.surface import number_operand, public
from facula.runtime.allocator import from_numpy_private
from facula.storage import UntypedStorage
from facula.tensor import Tensor, from_array, from_buffer, prim, scalar

__all__ = ["numpy", "item", "tolist", "to", "clone", "copy_", "fill_", "zero_"]


# ---------------------------------------------------------------- NumPy and Python

def numpy(self: Tensor, *, force: bool = False) -> Any:
    """The ndarray that shares this tensor's memory: writing to one is seen in the other.

    A tensor that requires a gradient has to be detached first; `force` does so.
    """
    if self.requires_grad and not force:
        raise GradientError("Can't call numpy() on Tensor that requires grad. Use "
                            "tensor.detach().numpy() instead.")
    return self._numpy()


def _array(self: Tensor, dtype: Any = None, copy: bool | None = None) -> Any:
    if copy is True:
        return np.array(self._peek(), dtype)
    array = numpy(self)
    if dtype is None or array.dtype == dtype:
        return array
    if copy is False:
        raise ValueError(f"a copy is needed to go from {array.dtype} to {np.dtype(dtype)}")
    return array.astype(dtype)


def _array_wrap(self: Tensor, array: Any, context: Any = None,
                return_scalar: bool = False) -> Any:
    """What NumPy's functions make of a tensor: a tensor."""
    return from_array(np.asarray(array), copy=False)


_SINGLE = {"f": float, "c": complex, "i": int, "u": int, "b": bool}


def item(self: Tensor) -> Any:
    """The only element as a Python number; RuntimeError if there is not exactly one."""
    node = self._node
    if node.spec.numel != 1:
        raise RuntimeError(f"a Tensor with {node.spec.numel} elements cannot be converted to "
                           "Scalar")
    return _SINGLE[node.spec.dtype.kind](self._peek().item())


def tolist(self: Tensor) -> Any:
    """Nested lists of Python numbers; a number for a 0-dim tensor."""
    array = self._peek()
    if self.dtype is d.bfloat16 or self.dtype.is_compact:
        array = array.astype(np.float32)
    return array.tolist()


def _bool(self: Tensor) -> bool:
    n = self._node.spec.numel
    if n != 1:
        raise RuntimeError("Boolean value of Tensor with "
                           f"{'no values' if n == 0 else 'more than one value'} is ambiguous")
    return bool(self._peek().reshape(-1)[0])


def _index(self: Tensor) -> int:
    if self.dtype.kind not in "iub" or self.numel() != 1:
        raise TypeError("only integer tensors of a single element can be converted to an index")
    return int(item(self))


def _format(self: Tensor, spec: str) -> str:
    if self.ndim == 0:
        return item(self).__format__(spec)                   # type: ignore[no-any-return]
    return object.__format__(self, spec)


def _number(convert: Callable[[Any], Any]) -> Callable[[Tensor], Any]:
    def method(self: Tensor) -> Any:
        return convert(item(self))
    return method


# ---------------------------------------------------------------- dtypes

def _convert(self: Tensor, dtype: DType, copy: bool = False, memory_format: Any = None) -> Tensor:
    own = self._node.spec.dtype
    if own is dtype:
        if not copy and memory_format in (None, preserve_format):
            return self
        return clone(self, memory_format=memory_format)
    if own.kind == "c" and dtype.kind not in "cb":
        warnings.warn("Casting complex values to real discards the imaginary part", UserWarning,
                      stacklevel=3)
    out = prim("cast", self, dtype=dtype)
    return _like(self, memory_format, None, out, False)


def to(self: Tensor, *args: Any, dtype: Any = None, device: Any = None,
       non_blocking: bool = False, copy: bool = False, memory_format: Any = None,
       other: Tensor | None = None) -> Tensor:
    """This tensor in another dtype: `to(dtype)`, `to('cpu')`, `to('cpu', dtype)`, `to(other)`.

    The tensor itself where nothing changes, unless `copy`.
    """
    args_left = list(args)
    if args_left:
        first = args_left.pop(0)
        if isinstance(first, Tensor):
            other = first
        elif isinstance(first, (str, Device)) or (isinstance(first, int)
                                                  and not isinstance(first, bool)):
            device = first
            if args_left and not isinstance(args_left[0], bool):
                dtype = args_left.pop(0)
        elif first is not None or not args_left:
            dtype = first if first is not None else dtype
        else:
            dtype = args_left.pop(0)
        if args_left:
            args_left.pop(0)                                 # non_blocking: nothing to wait for
        if args_left:
            copy = args_left.pop(0)
    check_device(device)
    if other is not None:
        dtype = other.dtype
    want = self.dtype if dtype is None else as_dtype(dtype)
    return _convert(self, want, copy, memory_format)


def _named(name: str, dtype: DType) -> Callable[..., Tensor]:
    def method(self: Tensor, memory_format: Any = None) -> Tensor:
        return _convert(self, dtype, memory_format=memory_format)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"This tensor in {dtype.name}."
    return method


for _name, _dtype in (("float", d.float32), ("double", d.float64), ("half", d.float16),
                      ("bfloat16", d.bfloat16), ("long", d.int64), ("int", d.int32),
                      ("short", d.int16), ("char", d.int8), ("byte", d.uint8), ("bool", d.bool_),
                      ("cfloat", d.complex64), ("cdouble", d.complex128)):
    setattr(Tensor, _name, _named(_name, _dtype))


def type_as(self: Tensor, other: Tensor) -> Tensor:
    """This tensor in the dtype of `other`."""
    return _convert(self, other.dtype)


# ---------------------------------------------------------------- copies and writes

def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy with memory of its own; gradients flow through it."""
    return _like(input, memory_format, None, prim("alias", input), False)


def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Overwrite this tensor with `src`, broadcast and converted to its dtype; returns it."""
    if not isinstance(src, Tensor):
        from facula.ops.from_data import as_tensor
        src = as_tensor(src)
    if src is self:
        return self
    shape = self._node.spec.shape
    have = src._node.spec.shape
    if have != shape and (len(have) > len(shape) or any(
            a not in (1, b) for a, b in zip(reversed(have), reversed(shape)))):
        from facula.ops.promote import broadcast_shapes
        if tuple(broadcast_shapes(shape, have)) != shape:
            raise RuntimeError(f"output with shape {list(shape)} doesn't match the broadcast "
                               f"shape {list(broadcast_shapes(shape, have))}")
    if src.dtype.kind == "c" and self.dtype.kind not in "cb":
        warnings.warn("Casting complex values to real discards the imaginary part", UserWarning,
                      stacklevel=2)
    value = expand_to(cast(src, self.dtype), shape)
    if value is src:
        value = prim("alias", src)
    return self._write(value)


def fill_(self: Tensor, value: Any) -> Tensor:
    """Overwrite every element with a number or a 0-dim tensor; returns this tensor."""
    own = self._node.spec
    if self.requires_grad and _local.rec.grad:
        # It stays a function of what it was, with a gradient of 0.
        fresh = fill_(prim("full", attrs=(0,), shape=own.shape, dtype=own.dtype), value)
        never = prim("full", attrs=(False,), shape=own.shape, dtype=d.bool_)
        return self._write(prim("where", never, self, fresh))
    if isinstance(value, Tensor):
        if value.ndim:
            raise RuntimeError("fill_ only supports 0-dimension value tensor but got tensor with "
                               f"{value.ndim} dimensions.")
        filling = cast(value, own.dtype)
    else:
        if isinstance(value, complex) and own.dtype.kind != "c":
            raise RuntimeError(f"value cannot be converted to type {own.dtype.name} without "
                               "overflow")
        if value == 0 or value == 1:
            return self._write(prim("full", attrs=(number_operand(value, own.dtype) + 0,),
                                    shape=own.shape, dtype=own.dtype))
        filling = scalar(number_operand(value, own.dtype), own.dtype)
    out = expand_to(filling, own.shape)
    return self._write(prim("alias", out) if out is value else out)


def zero_(self: Tensor) -> Tensor:
    """Overwrite every element with 0; returns this tensor."""
    return fill_(self, 0)


def _deepcopy(self: Tensor, memo: dict[int, Any]) -> Tensor:
    """A copy of a leaf, with its gradient; computed tensors refuse, as in PyTorch."""
    found = memo.get(id(self))
    if found is not None:
        return found                                         # type: ignore[no-any-return]
    if not self.is_leaf:
        raise RuntimeError("Only Tensors created explicitly by the user (graph leaves) support "
                           "the deepcopy protocol at the moment. If you were attempting to "
                           "deepcopy a module, this may be because of a weight_norm "
                           "usage; detach the tensor first")
    out: Tensor = clone(self.detach())
    if self.requires_grad:
        out.requires_grad_()
    memo[id(self)] = out
    if self._grad is not None:
        grad = self._grad
        out._grad = _deepcopy(grad, memo) if grad.is_leaf else grad.clone()   # type: ignore
    return out


def _copy(self: Tensor) -> Tensor:
    """`copy.copy`: another tensor over the same memory."""
    out = self.detach()
    if self.requires_grad:
        out.requires_grad_()
    return out


def _reduce(self: Tensor, protocol: Any = 0) -> Any:
    """A pickle holds the value, whether a gradient is asked for, and attributes of the user's.

    As in PyTorch, neither the gradient nor the history.
    """
    array = self._peek()
    mine = {name: value for name, value in self.__dict__.items() if not name.startswith("_")}
    return rebuild, (type(self), self.dtype, array.shape, array.tobytes(), self.requires_grad,
                     mine)


def rebuild(cls: type[Tensor], dtype: DType, shape: tuple[int, ...], data: bytes,
            requires_grad: bool, attributes: dict[str, Any]) -> Tensor:
    """The tensor of which a pickle holds these; `data` is its content in row-major order."""
    array = np.frombuffer(data, dtype.np).reshape(shape)
    out = from_buffer(from_numpy_private(array), spec(shape, dtype))
    if cls is not Tensor:
        twin = object.__new__(cls)
        twin.__dict__.update(out.__dict__)
        out = twin
    out.__dict__.update(attributes)
    return out.requires_grad_() if requires_grad else out     # type: ignore[no-any-return]


# ---------------------------------------------------------------- facts

def size(self: Tensor, dim: int | None = None) -> Any:
    """The shape, or the size of one dimension."""
    if dim is None:
        return self.shape
    shape = self._node.spec.shape
    n = len(shape)
    if not -max(n, 1) <= dim < max(n, 1) or not n:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-max(n, 1)}, "
                         f"{max(n, 1) - 1}], but got {dim})" if n else
                         "Dimension specified as 0 but tensor has no dimensions")
    return shape[dim]


def data_ptr(self: Tensor) -> int:
    """The address of the first element; from then on the memory counts as shared."""
    if not self.numel():
        return 0
    array = self._numpy()
    self._memory()[0].lent += 1                     # nobody tells when the address is forgotten
    return array.__array_interface__["data"][0]     # type: ignore[no-any-return]


def _yes(self: Tensor) -> bool:
    return True


def _same(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The tensor itself."""
    return self


def _cpu(self: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor itself: facula computes on the CPU."""
    return self


def _elsewhere(name: str) -> Callable[..., Tensor]:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_device(name)
        return self

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"Raises: there is no {name} device."
    return method


def _dir(self: Tensor) -> list[str]:
    return sorted(set(dir(type(self))) | set(self.__dict__))


def _element_size(self: Tensor) -> int:
    """Bytes of one element."""
    return self._node.spec.dtype.itemsize


def _nbytes(self: Tensor) -> int:
    """Bytes of all elements."""
    return self._node.spec.numel * self._node.spec.dtype.itemsize


def _names(self: Tensor) -> tuple[None, ...]:
    """No dimension has a name."""
    return (None,) * self.ndim


def _is_inference(self: Tensor) -> bool:
    """False: tensors made under `inference_mode` are like those made under `no_grad`."""
    return False


def _get_device(self: Tensor) -> int:
    """-1, which is PyTorch's number for the CPU."""
    return -1


def _share_memory_(self: Tensor) -> Tensor:
    """NotImplementedError: a tensor that is overwritten gets other memory, so another process
    would never see it change."""
    raise NotImplementedError(
        "share_memory_: what one process writes to a tensor no other sees, since a step's results "
        "are written to memory of its own. Send tensor.numpy() through a multiprocessing.Queue, "
        "or train in one process: it uses all processors")


_METHODS: dict[str, Any] = {
    "numpy": numpy, "item": item, "tolist": tolist, "to": to, "type_as": type_as,
    "clone": clone, "copy_": copy_, "fill_": fill_, "zero_": zero_, "size": size,
    "data_ptr": data_ptr, "dim": lambda self: self.ndim, "ndimension": lambda self: self.ndim,
    "nelement": Tensor.numel, "element_size": _element_size, "cpu": _cpu,
    "cuda": _elsewhere("cuda"), "xpu": _elsewhere("xpu"),
    "is_floating_point": lambda self: self.dtype.kind == "f",
    "is_complex": lambda self: self.dtype.kind == "c",
    "is_signed": lambda self: self.dtype.is_signed,
    "is_inference": _is_inference, "is_pinned": lambda self, device=None: False,
    "is_shared": lambda self: False, "is_coalesced": lambda self: False,
    "pin_memory": _same, "share_memory_": _share_memory_, "has_names": lambda self: False,
    "get_device": _get_device, "is_nonzero": _bool,
    "__array__": _array, "__array_wrap__": _array_wrap, "__array_priority__": 1000,
    "__bool__": _bool, "__int__": _number(int), "__float__": _number(float),
    "__complex__": _number(complex), "__index__": _index, "__format__": _format,
    "__deepcopy__": _deepcopy, "__copy__": _copy, "__reduce_ex__": _reduce,
    "__dir__": _dir}
for _name, _fn in _METHODS.items():
    setattr(Tensor, _name, _fn)

_FACTS: dict[str, Any] = {
    "device": lambda self: CPU, "layout": lambda self: strided, "is_cuda": lambda self: False,
    "is_cpu": _yes, "is_mps": lambda self: False, "is_meta": lambda self: False,
    "is_sparse": lambda self: False, "is_quantized": lambda self: False,
    "is_mkldnn": lambda self: False, "is_nested": lambda self: False,
    "is_xpu": lambda self: False, "nbytes": _nbytes, "itemsize": _element_size, "names": _names}
for _name, _fn in _FACTS.items():
    setattr(Tensor, _name, property(_fn))


def is_tensor(obj: Any) -> bool:
    """Whether `obj` is a Tensor."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype of `input` is floating."""
    return input.dtype.kind == "f"


def is_complex(input: Tensor) -> bool:
    """Whether the dtype of `input` is complex."""
    return input.dtype.kind == "c"


def is_nonzero(input: Tensor) -> bool:
    """Whether the only element of `input` is not zero."""
    return _bool(input)


def numel(input: Tensor) -> int:
    """The number of elements."""
    return input.numel()


def is_signed(input: Tensor) -> bool:
    """Whether the dtype of `input` has negative numbers."""
    return input.dtype.is_signed


def is_conj(input: Tensor) -> bool:
    """False: conjugates are computed and never left pending in a flag."""
    return False


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether the shapes are equal."""
    return input._node.spec.shape == other._node.spec.shape


def resolve(input: Tensor) -> Tensor:
    """The tensor itself: no conjugation or negation is pending."""
    return input


def detach(input: Tensor) -> Tensor:
    """A tensor over the same memory that takes no part in gradients."""
    return input.detach()


def fill(input: Tensor, value: Any) -> Tensor:
    """`value` in the shape and dtype of `input`."""
    out: Tensor = fill_(clone(input), value)
    return out


def _apply_(self: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Replace each element by `callable` of it, one by one in Python; slow."""
    array = np.array(self._peek())
    flat = array.reshape(-1)
    flat[:] = [callable(v) for v in flat.tolist()]
    return self._write(prim("alias", from_array(array)))


def _set_(self: Tensor, source: Tensor | None = None) -> Tensor:
    """Make this tensor one over the memory of `source`, of its shape and strides."""
    if source is None:
        from facula.ops.creation import empty
        source = empty(0, dtype=self.dtype)
    if source.dtype is not self.dtype:
        raise RuntimeError(f"Could not set tensor of type {source.dtype.name} to a tensor of "
                           f"type {self.dtype.name}")
    self.data = source
    return self


def _is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """Whether both are the same view of the same memory."""
    if self is tensor:
        return True
    return (self._storage is not None and self._storage is tensor._storage
            and self._path == tensor._path and self.shape == tensor.shape)


def _untyped_storage(self: Tensor) -> UntypedStorage:
    """The memory behind this tensor."""
    return UntypedStorage(self)


for _name, _fn in {"is_conj": is_conj, "is_neg": is_conj, "resolve_conj": resolve,
                   "resolve_neg": resolve, "is_same_size": is_same_size, "apply_": _apply_,
                   "set_": _set_, "is_set_to": _is_set_to, "to_dense": resolve,
                   "untyped_storage": _untyped_storage}.items():
    setattr(Tensor, _name, _fn)

public(clone, "clone", "shape", samples=lambda make: [((make(3, 4),), {})])
