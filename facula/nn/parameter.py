"""Parameter and Buffer: tensors that a Module registers when they are assigned to it."""

from __future__ import annotations

from typing import Any

from facula.tensor import Tensor

__all__ = ["Parameter", "Buffer"]


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
