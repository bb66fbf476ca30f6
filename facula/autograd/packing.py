"""What `saved_tensors_hooks` does to the values that gradients will read.

A graph keeps values for its gradient when it is sealed, those that its rules read and that are not
computed again.  With hooks each of them is replaced, there and then, by what the pack hook makes
of it; the unpack hook is called when a rule reads it.  So a value that is packed into something
smaller takes no more memory than that, if nobody else holds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from facula.errors import ShapeError
from facula.graph import record as _record
from facula.graph.record import FREED, Graph, Node, _local
from facula.graph.spec import Spec
from facula.runtime.allocator import Buffer
from facula.tensor import Tensor, make, prim

__all__ = ["Hooks", "Packed"]


class Packed:
    """A value as the pack hook left it, and where its gradient goes on."""

    __slots__ = ("content", "unpack_hook", "spec", "origin", "leaf")

    def __init__(self, content: Any, unpack_hook: Callable[[Any], Any], spec: Spec,
                 origin: Any = None, leaf: Any = None):
        self.content = content
        self.unpack_hook = unpack_hook
        self.spec = spec
        self.origin = origin
        self.leaf = leaf

    def unpack(self, linked: bool) -> Tensor:
        """The value again, as a tensor; `linked` if its gradient may be asked for in turn.

        Raises TypeError where the hook returns no tensor, ShapeError for one of another shape.
        """
        value = self.unpack_hook(self.content)
        if not isinstance(value, Tensor):
            raise TypeError("Output of saved tensor unpack_hook expected to be a Tensor but got "
                            f"result of type {type(value).__name__}")
        if tuple(value.shape) != self.spec.shape:
            raise ShapeError(f"the unpack_hook returned a tensor of shape {list(value.shape)} for "
                             f"one of shape {list(self.spec.shape)}: it has to give back what "
                             "the pack_hook was given")
        value = value.detach()
        if value.dtype is not self.spec.dtype:
            value = prim("cast", value, dtype=self.spec.dtype)
        if not linked or (self.origin is None and self.leaf is None):
            return make(value._node)
        memory, strides = prim("alias", value)._memory()
        node = Node((None, -1), self.spec, memory, strides)
        node.origin, node.leaf = self.origin, self.leaf
        return make(node, True)


class Hooks:
    """A pair of hooks in force: a recorder's `packing`."""

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Any]):
        self.pack_hook = pack_hook
        self.unpack_hook = unpack_hook

    def graph(self, graph: Graph) -> None:
        """Pack what a graph that has just been sealed keeps."""
        steps = graph.steps
        assert steps is not None
        for index, kept in list(graph.kept.items()):
            spec = steps[index].spec
            if isinstance(kept, Buffer):
                origin = (graph, index) if steps[index].mask else None
                graph.kept[index] = self._packed(Node((None, -1), spec, kept), spec, origin, None)
            elif isinstance(kept, Node) and isinstance(kept.value, Buffer):
                graph.kept[index] = self._packed(kept, spec, kept.origin, kept.leaf)
        _record.flush(_local.rec)               # what was packed is computed, and its source free

    def tensor(self, t: Tensor) -> Packed:
        """Pack what a custom function saves."""
        rec = _local.rec
        if not rec.depth:
            _record.flush(rec)                  # from here on its history has a place
        node = t._node
        origin = node.origin if node.origin is not FREED else None
        if node.value is None and t._rg:
            origin = node.at
        return self._packed(node, node.spec, origin, node.leaf)

    def _packed(self, node: Node, spec: Spec, origin: Any, leaf: Any) -> Packed:
        given = make(node)
        rec = _local.rec
        grad, rec.grad = rec.grad, False
        before = given._version if given._storage is None else given._storage.version
        try:
            content = self.pack_hook(given)
        finally:
            rec.grad = grad
        after = given._version if given._storage is None else given._storage.version
        if before != after:
            raise RuntimeError("A saved tensor pack hook is modifying its input in place: clone() "
                               "the tensor there before writing to it")
        return Packed(content, self.unpack_hook, spec, origin, leaf)
