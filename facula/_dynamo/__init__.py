"""The private `torch._dynamo`, as far as programs import from it what `torch.compiler` has."""

from types import SimpleNamespace
from typing import Any

from facula.compiler.marks import (
    allow_in_graph,
    assume_constant_result,
    disable,
    is_compiling,
    reset,
)
from facula.nn.modules.compiled import CompiledModule as OptimizedModule

__all__ = ["OptimizedModule", "allow_in_graph", "assume_constant_result", "config", "disable",
           "graph_break", "is_compiling", "mark_dynamic", "mark_static", "mark_static_address",
           "reset"]

config: Any = SimpleNamespace()
"""Settings; what is set here is kept and means nothing."""


def graph_break(msg: str = "") -> None:
    """Without effect: a call is captured whole or not at all."""


def mark_dynamic(t: Any, index: Any, **kwargs: Any) -> None:
    """Without effect: see `dynamic` of `facula.compile`."""


def mark_static(t: Any, index: Any = None) -> None:
    """Without effect: see `dynamic` of `facula.compile`."""


def mark_static_address(t: Any, guard: bool = True) -> None:
    """Without effect: memory is planned anew where it has moved."""
