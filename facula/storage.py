"""Storage: what a tensor and its views share, and its layout; shapes as users see them."""

from __future__ import annotations

from typing import Any

from facula.dtype import from_numpy_dtype
from facula.graph import record
from facula.graph.record import Node
from facula.graph.spec import spec
from facula.runtime.allocator import empty, from_numpy_private

__all__ = ["Size", "Storage", "UntypedStorage", "lay_out", "spread_out"]


class Size(tuple):
    """A shape: a tuple that prints as PyTorch's and counts its elements."""

    def __repr__(self) -> str:
        return f"facula.Size([{', '.join(map(str, self))}])"

    def numel(self) -> int:
        n = 1
        for d in self:
            n *= d
        return n

    def __add__(self, other: Any) -> Size:
        return Size(tuple(self) + tuple(other))

    def __getitem__(self, i: Any) -> Any:
        r = tuple.__getitem__(self, i)
        return Size(r) if isinstance(i, slice) else r


class Storage:
    """What aliasing tensors share: the current value, and how often it has been replaced.

    `strides` is the layout that its owner was created with, None for row-major: views say their
    strides and offset relative to it, so memory is brought into it before anybody looks.
    `shows` of the versions came without a write: the memory was shown to somebody outside, and
    views made before that have to look again.
    """

    __slots__ = ("node", "version", "rg", "strides", "shows")

    def __init__(self, node: Node, version: int, rg: bool,
                 strides: tuple[int, ...] | None = None):
        self.node = node
        self.version = version
        self.rg = rg
        self.strides = strides
        self.shows = 0


def lay_out(node: Node, strides: tuple[int, ...] | None) -> Any:
    """Bring the node's value into memory of these strides; returns the new Buffer.

    Graphs that have read the value, but have not run yet, know it by its old layout.
    """
    graph = node.at[0]
    if graph is not None and not graph.sealed:
        record.flush(graph.owner)
    have, old = node.spec, node.value
    if old.shared:
        raise RuntimeError("internal: memory that is shared has to keep its layout")
    if strides is None:
        new = old.snapshot(have, node.strides)
    else:
        new = spread_out(old.array(have, node.strides), strides)
    node.value, node.strides = new, strides
    return new


def spread_out(array: Any, strides: tuple[int, ...] | None) -> Any:
    """A Buffer with the content of an ndarray in memory of these strides."""
    if strides is None:
        return from_numpy_private(array)
    import numpy as np
    have = spec(array.shape, from_numpy_dtype(array.dtype))
    last = sum((n - 1) * s for n, s in zip(have.shape, strides)) if have.numel else -1
    new = empty((last + 1) * have.dtype.itemsize)
    if have.numel:
        np.copyto(new.array(have, strides), array)
    return new


class UntypedStorage:
    """The memory behind a tensor and its views, in bytes, as `tensor.untyped_storage()` shows it.

    It tells which tensors share memory, and of how many bytes: equal storages are the same memory.
    TypeError unless it is made of a tensor: memory without one is not kept here, allocate it with
    `facula.empty(nbytes, dtype=facula.uint8)`.
    """

    def __init__(self, owner: Any):
        if not hasattr(owner, "untyped_storage"):
            raise TypeError(f"UntypedStorage is the memory of a tensor, and was given "
                            f"{type(owner).__name__}: use facula.empty(nbytes, "
                            "dtype=facula.uint8).untyped_storage()")
        self._owner = owner

    def data_ptr(self) -> int:
        """The address of its first byte."""
        address: int = self._owner.data_ptr()
        return address - self._owner._offset * self._owner.dtype.itemsize

    def nbytes(self) -> int:
        """How many bytes it has."""
        storage = self._owner._storage
        have = (storage.node if storage is not None else self._owner._node).spec
        return int(have.numel * have.dtype.itemsize)

    size = nbytes
    __len__ = nbytes

    @property
    def device(self) -> Any:
        """Where it is."""
        return self._owner.device

    @property
    def is_cuda(self) -> bool:
        """False: memory is the processor's."""
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UntypedStorage) and other.data_ptr() == self.data_ptr()

    def __hash__(self) -> int:
        return hash(self.data_ptr())
