"""Parameter and Buffer: tensors that a Module registers when they are assigned to it."""

from __future__ import annotations

from typing import Any

from facula.dtype import DType
from facula.graph.tape import changes
from facula.tensor import Tensor

__all__ = ["Parameter", "Buffer", "UninitializedParameter", "UninitializedBuffer",
           "UninitializedTensorMixin", "is_lazy"]


def _adopt(out: Any, data: Tensor | None) -> None:
    """Make `out` share `data`'s memory, without its history."""
    if data is None:
        import facula
        data = facula.empty(0)
    if not isinstance(data, Tensor):
        raise TypeError(f"expected a Tensor, got {type(data).__name__}; make one with "
                        "facula.tensor(...)")
    d = data.detach()
    out._node, out._storage, out._version = d._node, d._storage, d._version
    out._path, out._strides, out._offset = d._path, d._strides, d._offset
    out._detached = True


class Parameter(Tensor):
    """A tensor that its module trains: it appears in `Module.parameters()`.

    `data` (Tensor) is shared, not copied; `requires_grad` is True unless told otherwise.
    Raises GradientError for integer data with `requires_grad=True`, as PyTorch does.
    """

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Parameter:
        out = object.__new__(cls)
        _adopt(out, data)
        if requires_grad:
            out.requires_grad_()
        return out

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True):
        pass

    def __repr__(self) -> str:
        return "Parameter containing:\n" + Tensor.__repr__(self)

    __str__ = __repr__

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        found: Parameter | None = memo.get(id(self))
        if found is None:
            found = type(self)(self.detach().clone(), self.requires_grad)
            if self._grad is not None:
                found._grad = self._grad.detach().clone()
            memo[id(self)] = found
        return found


class Buffer(Tensor):
    """A tensor that belongs to a module's state and is not trained.

    `persistent` says whether `state_dict()` holds it.
    """

    persistent: bool = True

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Buffer:
        out = object.__new__(cls)
        _adopt(out, data)
        out.persistent = persistent
        return out

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True):
        pass

    def __deepcopy__(self, memo: dict[int, Any]) -> Buffer:
        found: Buffer | None = memo.get(id(self))
        if found is None:
            found = type(self)(self.detach().clone(), persistent=self.persistent)
            memo[id(self)] = found
        return found


# ---------------------------------------------------------------- whose shape is not known yet

class UninitializedTensorMixin:
    """A tensor without a shape, and so without content, until `materialize` gives it one.

    Its dtype may be changed and its gradient asked for; everything else raises.
    """

    cls_to_become: type[Tensor]
    _lazy_dtype: DType

    def _refuse(self) -> Any:
        name = type(self).__name__
        raise ValueError(
            f"Attempted to use an {name}, which has no shape yet. Lazy modules get theirs from "
            "the first input: call the model once with a batch before using its parameters, or "
            f"give this one a shape with {name}.materialize(shape)")

    # Whatever would compute with the tensor asks for this first.
    _node: Any = property(_refuse)

    @property
    def shape(self) -> Any:
        raise RuntimeError(
            "Can't access the shape of an uninitialized parameter or buffer. This error usually "
            "happens in `load_state_dict` when trying to load an uninitialized parameter into an "
            "initialized one. Call `forward` to initialize the parameters before accessing their "
            "attributes.")

    @property
    def dtype(self) -> DType:
        return self._lazy_dtype

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Say whether the tensor will be trained."""
        self._rg = self._leaf = bool(requires_grad)
        return self

    def materialize(self, shape: Any, device: Any = None, dtype: Any = None) -> None:
        """Make this an ordinary parameter or buffer of `shape`, whose content is to be written.

        It has the dtype that it was made with or converted to, unless `dtype` says another.
        """
        import facula
        data = facula.empty(tuple(shape), dtype=dtype or self._lazy_dtype, device=device)
        wanted: bool = self._rg
        self._rg = self._leaf = False
        del self._lazy_dtype
        changes[0] += 1
        self.__class__ = self.cls_to_become         # type: ignore[assignment]
        _adopt(self, data)
        if wanted:
            self.requires_grad_()

    def _convert(self, fn: Any) -> None:
        """Take the dtype that `fn` gives to tensors of this one's."""
        import facula
        self._lazy_dtype = fn(facula.empty(0, dtype=self._lazy_dtype)).dtype

    def detach(self) -> Any:
        """The tensor itself: there is nothing that could be shared."""
        return self

    data: Any = property(detach)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    __str__ = __repr__

    def __reduce_ex__(self, protocol: Any) -> Any:
        return object.__reduce_ex__(self, 2)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        found = memo.get(id(self))
        if found is None:
            found = memo[id(self)] = object.__new__(type(self))
            found.__dict__.update(self.__dict__)
        return found


def _lazy(cls: Any, requires_grad: bool, device: Any, dtype: Any) -> Any:
    import facula
    out = object.__new__(cls)
    out._lazy_dtype = facula.empty(0, device=device, dtype=dtype).dtype
    if requires_grad:
        out.requires_grad_()
    return out


class UninitializedParameter(UninitializedTensorMixin, Parameter):
    """A parameter whose shape is not known yet; see `UninitializedTensorMixin`.

    Using it raises ValueError, and asking for its shape RuntimeError.
    """

    cls_to_become = Parameter

    def __new__(cls, requires_grad: bool = True, device: Any = None,        # type: ignore
                dtype: Any = None) -> UninitializedParameter:
        return _lazy(cls, requires_grad, device, dtype)         # type: ignore[no-any-return]

    def __init__(self, requires_grad: bool = True, device: Any = None, dtype: Any = None):
        pass


class UninitializedBuffer(UninitializedTensorMixin, Buffer):
    """A buffer whose shape is not known yet; see `UninitializedTensorMixin`."""

    cls_to_become = Buffer

    def __new__(cls, requires_grad: bool = False, device: Any = None,       # type: ignore
                dtype: Any = None, persistent: bool = True) -> UninitializedBuffer:
        out = _lazy(cls, requires_grad, device, dtype)
        out.persistent = persistent
        return out                                              # type: ignore[no-any-return]

    def __init__(self, requires_grad: bool = False, device: Any = None, dtype: Any = None,
                 persistent: bool = True):
        pass


def is_lazy(param: Any) -> bool:
    """Whether `param` is a parameter or buffer that has no shape yet."""
    return isinstance(param, UninitializedTensorMixin)
