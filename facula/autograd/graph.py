"""The recorded graph seen from outside: `torch.autograd.graph`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

from facula.autograd.methods import GradFn as Node
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
    """NotImplementedError: a graph keeps operations, and which values its gradient reads is
    settled when it is compiled.  `utils.checkpoint` computes again instead of keeping."""

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]
                 ) -> None:
        raise NotImplementedError(
            "saved_tensors_hooks: what a gradient reads is settled when its program is compiled, "
            "so there is no moment at which one tensor is saved. To keep less, use "
            "facula.utils.checkpoint")


class save_on_cpu:
    """A context in which what gradients read is kept on the CPU, as it always is."""

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        pass

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: Any) -> None:
        return None


@contextmanager
def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
    """A context without effect: there are no such hooks."""
    yield


def allow_mutation_on_saved_tensors() -> NoReturn:
    """NotImplementedError: clone a tensor before overwriting what a gradient needs."""
    raise NotImplementedError("allow_mutation_on_saved_tensors: clone() a tensor before it is "
                              "overwritten, where its gradient needs it as it was")
