"""What programs say to `torch.compile`'s front end, and ask it: `torch.compiler`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from facula.graph.record import _local

__all__ = ["allow_in_graph", "assume_constant_result", "cudagraph_mark_step_begin", "disable",
           "is_compiling", "is_dynamo_compiling", "is_exporting", "list_backends",
           "nested_compile_region", "reset", "set_stance", "substitute_in_graph"]

T = TypeVar("T")


def is_compiling() -> bool:
    """Whether a call of a compiled function is being captured."""
    return _local.rec.tape is not None


def is_dynamo_compiling() -> bool:
    """Whether a call of a compiled function is being captured."""
    return _local.rec.tape is not None


def is_exporting() -> bool:
    """False: nothing is exported from a capture."""
    return False


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """The function as it is, with or without arguments to the decorator.

    A captured call runs the Python of everything it calls, so there is no part that would have
    to be kept from it.
    """
    return (lambda f: f) if fn is None else fn


def allow_in_graph(fn: T) -> T:
    """The function as it is: what it records is captured like all else."""
    return fn


def assume_constant_result(fn: T) -> T:
    """The function as it is: what it reads of the world outside is watched like all else."""
    return fn


def nested_compile_region(fn: T) -> T:
    """The function as it is."""
    return fn


def substitute_in_graph(original_fn: Callable[..., Any], *, can_constant_fold_through: bool = False,
                        skip_signature_check: bool = False) -> Callable[[T], T]:
    """A decorator without effect: Python runs, so nothing has to stand in for it."""
    return lambda fn: fn


def cudagraph_mark_step_begin() -> None:
    """Without effect: there are no CUDA graphs."""


def list_backends(exclude_tags: Any = ()) -> list[str]:
    """['facula']: there is one."""
    return ["facula"]


def reset() -> None:
    """Without effect: a compiled function keeps its calls in itself, and they go with it."""


class set_stance:
    """Accepted: "default", and as a context or a decorator.

    ValueError for a stance that would have compiled functions behave otherwise.
    """

    def __init__(self, stance: str = "default", *, skip_guard_eval_unsafe: bool = False,
                 force_backend: Any = None) -> None:
        if stance not in ("default", "eager_on_recompile"):
            raise ValueError(f"set_stance: facula keeps to 'default', not {stance!r}; do not "
                             "compile what is not to be compiled")

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: Any) -> None:
        return None

    def __call__(self, fn: T) -> T:
        return fn
