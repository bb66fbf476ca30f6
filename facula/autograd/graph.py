"""The recorded graph seen from outside: `torch.autograd.graph`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

from facula.autograd.methods import GradFn as Node
from facula.autograd.packing import Hooks
from facula.graph import record as _record
from facula.graph.record import _local
from facula.tensor import Tensor

__all__ = ["GradientEdge", "Node", "allow_mutation_on_saved_tensors",
           "disable_saved_tensors_hooks", "get_gradient_edge", "save_on_cpu",
           "saved_tensors_hooks"]


class GradientEdge(NamedTuple):
    """Where a tensor came from: `node` is its grad_fn."""

    node: Any
    output_nr: int


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """The edge of a tensor.  RuntimeError if it has no history and requires no gradient."""
    if not tensor.requires_grad:
        raise RuntimeError("It is not possible to get the gradient edge for a Tensor that does "
                           "not require gradients")
    return GradientEdge(tensor.grad_fn, 0)                 # type: ignore[attr-defined]


class saved_tensors_hooks:
    """A context in which values that are kept for gradients are kept as the hooks say.

    `pack_hook(tensor)` returns what is kept instead of the tensor, and `unpack_hook(packed)` a
    tensor of the same shape, when a gradient reads it.  The hooks see what is kept, no more: a
    value that two rules read is packed once, and what is computed again, as fused operations
    are, never.  The operations before the context, in it and after it are run apart.

    Raises RuntimeError within a transform of `facula.func`, and within
    `disable_saved_tensors_hooks`.
    """

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]
                 ) -> None:
        self.pack_hook = pack_hook
        self.unpack_hook = unpack_hook
        self._before: list[Any] = []

    def __enter__(self) -> None:
        rec = _local.rec
        if _state.refusal is not None:
            raise RuntimeError(_state.refusal)
        if rec.outer is not None:
            raise RuntimeError("transforms of facula.func do not take saved_tensors_hooks: what "
                               "a transform keeps is decided where it ends. Enter the context "
                               "outside of it, or compute gradients with backward()")
        if rec.tape is not None:
            rec.tape.refuse("saved_tensors_hooks are called as the program runs")
        _record.flush(rec)
        self._before.append(rec.packing)
        rec.packing = Hooks(self.pack_hook, self.unpack_hook)

    def __exit__(self, *error: Any) -> None:
        rec = _local.rec
        try:
            _record.flush(rec)
        finally:
            rec.packing = self._before.pop()


class save_on_cpu:
    """A context in which what gradients read is kept on the CPU, as it always is."""

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        pass

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: Any) -> None:
        return None


class _State(threading.local):
    refusal: str | None = None


_state = _State()


@contextmanager
def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
    """A context in which `saved_tensors_hooks` raises a RuntimeError with this message."""
    before, _state.refusal = _state.refusal, error_message
    try:
        if _local.rec.packing is not None:
            raise RuntimeError(error_message)
        yield
    finally:
        _state.refusal = before


def allow_mutation_on_saved_tensors() -> NoReturn:
    """NotImplementedError: clone a tensor before overwriting what a gradient needs."""
    raise NotImplementedError("allow_mutation_on_saved_tensors: clone() a tensor before it is "
                              "overwritten, where its gradient needs it as it was")
