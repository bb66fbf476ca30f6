"""Between ndarrays and tensors, for a loader that makes thousands of them a second.

A tensor made here owns private memory from the allocator, so that recording a step reads it in
place; memory shared with NumPy would have to be copied at every use.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from facula.dtype import DType, from_numpy_dtype
from facula.graph.spec import spec
from facula.runtime.allocator import empty, from_numpy_private
from facula.tensor import Tensor, from_buffer

__all__ = ["is_tensor", "peek", "to_tensor", "new_tensor", "Held"]


def is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def peek(tensor: Any) -> np.ndarray:
    """The tensor's value for reading now; not to be kept or written to."""
    return tensor._peek()                                     # type: ignore[no-any-return]


def to_tensor(array: np.ndarray, fresh: bool = False) -> Tensor:
    """A tensor with the array's content.  fresh=True: nobody else holds the array."""
    array = np.asarray(array)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    buffer = from_numpy_private(array, fresh)
    return from_buffer(buffer, spec(array.shape, from_numpy_dtype(array.dtype)))


def new_tensor(shape: tuple[int, ...], dtype: DType) -> tuple[Tensor, np.ndarray]:
    """A tensor not yet filled, and the ndarray to fill before anyone sees the tensor."""
    what = spec(shape, dtype)
    buffer = empty(what.numel * dtype.itemsize)
    return from_buffer(buffer, what), buffer.new_array(what)


class Held:
    """A tensor's array, looked up again only when the tensor has been written to."""

    __slots__ = ("tensor", "_node", "_version", "_array")

    def __init__(self, tensor: Any):
        self.tensor = tensor
        self._node: Any = None
        self._version = -1
        self._array: Any = None

    def array(self) -> np.ndarray:
        """The tensor's value now; for reading, and not to be kept."""
        tensor = self.tensor
        tensor._fresh()
        if tensor._node is not self._node or tensor._version != self._version:
            self._array = tensor._peek()
            self._node, self._version = tensor._node, tensor._version
        return self._array                                    # type: ignore[no-any-return]
