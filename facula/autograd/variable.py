"""`Variable`, which every tensor has been since PyTorch 0.4: older programs wrap theirs in it."""

from __future__ import annotations

from typing import Any

from facula.tensor import Tensor, from_array

__all__ = ["Variable", "VariableMeta"]


class VariableMeta(type):
    """Says of every tensor that it is a Variable."""

    def __instancecheck__(cls, other: object) -> bool:
        return isinstance(other, Tensor)


class Variable(metaclass=VariableMeta):
    """`Variable(data, requires_grad=False)`: a tensor without history that shares `data`'s memory.

    `volatile` is without effect, as in PyTorch.  TypeError for what is not a tensor.
    """

    def __new__(cls, data: Any = None, requires_grad: bool = False,         # type: ignore[misc]
                volatile: bool = False) -> Tensor:
        if data is None:
            import numpy as np
            data = from_array(np.empty(0, np.float32))
        if not isinstance(data, Tensor):
            raise TypeError(f"Variable data has to be a tensor, but got {type(data).__name__}: "
                            "make one with facula.tensor(...)")
        out: Tensor = data.detach()
        return out.requires_grad_() if requires_grad else out   # type: ignore[no-any-return]
