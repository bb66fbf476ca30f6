"""What autograd adds to Tensor: `backward`, `grad`, `grad_fn`, hooks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from facula.autograd.backward import backward
from facula.autograd.handle import RemovableHandle
from facula.errors import DTypeError, GradientError, ShapeError
from facula.graph.record import FREED, Graph
from facula.graph.tape import changes
from facula.tensor import Tensor

__all__ = ["GradFn"]


class GradFn:
    """The operation a tensor came of, as `tensor.grad_fn` shows it."""

    def __init__(self, graph: Graph, index: int):
        self._graph = graph
        self._index = index

    def name(self) -> str:
        """Such as 'AddBackward0'."""
        if self._index in self._graph.functions:
            call = self._graph.functions[self._index][0]
            return f"{call.cls.__name__}Backward"
        op = self._graph.path()[self._index].op
        return "".join(part.capitalize() for part in op.split("_")) + "Backward0"

    @property
    def next_functions(self) -> tuple[tuple[GradFn | None, int], ...]:
        """The operations that the gradient flows on to."""
        steps = self._graph.path()
        step = steps[self._index]
        out: list[tuple[GradFn | None, int]] = []
        for k, j in enumerate(step.inputs):
            if not step.mask >> k & 1:
                out.append((None, 0))
            elif steps[j].mask:
                out.append((GradFn(self._graph, j), 0))
            else:
                node = self._graph.leaf_nodes.get(j)
                origin = node.origin if node is not None else None
                out.append((GradFn(*origin) if origin and len(origin) == 2 else None, 0))
        return tuple(out)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GradFn) and other._graph is self._graph \
            and other._index == self._index

    def __hash__(self) -> int:
        return hash((id(self._graph), self._index))

    def __repr__(self) -> str:
        return f"<{self.name()}>"


def _place(t: Tensor) -> tuple[Graph, int] | None:
    node = t._node
    graph, index = node.at
    if node.value is None and graph is not None and not graph.sealed:
        return graph, index
    if node.origin is not None and node.origin is not FREED:
        return node.origin                                  # type: ignore[no-any-return]
    return None


def _grad_fn(self: Tensor) -> GradFn | None:
    """The operation this tensor came of; None for leaves and constants."""
    if not self.requires_grad or self._leaf:
        return None
    place = _place(self)
    return GradFn(*place) if place is not None else None


def _get_grad(self: Tensor) -> Tensor | None:
    """The gradient collected by `backward`; None before the first."""
    return self._grad


def _set_grad(self: Tensor, value: Tensor | None) -> None:
    if value is not None:
        if not isinstance(value, Tensor):
            raise TypeError(f"assigned grad expected to be a Tensor or None but got grad of type "
                            f"{type(value).__name__}")
        if value.shape != self.shape:
            raise ShapeError(f"assigned grad has data of a different size: {list(value.shape)} "
                             f"for a tensor of {list(self.shape)}")
        if value.dtype is not self.dtype:
            raise DTypeError(f"assigned grad has data of a different type: {value.dtype.name} "
                             f"for a tensor of {self.dtype.name}")
    self._grad = value


def _backward(self: Tensor, gradient: Tensor | None = None, retain_graph: bool | None = None,
              create_graph: bool = False, inputs: Any = None) -> None:
    """Add the gradient of this tensor to the `.grad` of the leaves it was computed from.

    See `facula.autograd.backward`.
    """
    backward(self, gradient, retain_graph, create_graph, inputs)


def _register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call `hook(gradient)` whenever this tensor's gradient is computed; it may return another."""
    if not self.requires_grad:
        raise GradientError("cannot register a hook on a tensor that doesn't require gradient")
    if self._guarded:
        changes[0] += 1
    if self._leaf:
        if self._hooks is None:
            self._hooks = OrderedDict()
        handle = RemovableHandle(self._hooks)
        self._hooks[handle.id] = hook
        return handle
    place = _place(self)
    if place is None:
        raise GradientError("cannot register a hook: the tensor's graph was freed by backward()")
    hooks = place[0].hooks.setdefault(place[1], OrderedDict())
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    return handle


def _register_post(self: Tensor, hook: Callable[[Tensor], None]) -> RemovableHandle:
    """Call `hook(tensor)` after a gradient has been added to this leaf's `.grad`."""
    if not self._leaf:
        raise GradientError("post accumulate grad hooks cannot be registered on non-leaf tensors")
    if self._guarded:
        changes[0] += 1
    if self._post_hooks is None:
        self._post_hooks = OrderedDict()
    hooks = self._post_hooks
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    return handle


def _retain_grad(self: Tensor) -> None:
    """Collect the gradient of this computed tensor in `.grad` too."""
    if not self.requires_grad:
        raise GradientError("can't retain_grad on Tensor that has requires_grad=False")
    if self._leaf or self._retain:
        return
    self._retain = True

    import weakref
    me = weakref.ref(self)

    def keep(g: Tensor) -> None:
        t = me()
        if t is not None:
            t._grad = g if t._grad is None else t._grad + g
    self.register_hook(keep)                                # type: ignore[attr-defined]


Tensor.grad = property(_get_grad, _set_grad, lambda self: _set_grad(self, None))  # type: ignore
Tensor.grad_fn = property(_grad_fn)                         # type: ignore[attr-defined]
Tensor.backward = _backward                                 # type: ignore[attr-defined]
Tensor.register_hook = _register_hook                       # type: ignore[attr-defined]
Tensor.register_post_accumulate_grad_hook = _register_post  # type: ignore[attr-defined]
Tensor.retain_grad = _retain_grad                           # type: ignore[attr-defined]
Tensor.retains_grad = property(lambda self: self._retain)   # type: ignore[attr-defined]
