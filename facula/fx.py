"""`torch.fx`, as far as programs decorate with it: facula records tensors and not Python, so a
function needs no symbolic trace to be compiled or taken apart (`facula.explain`, `facula.viz`).
"""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["GraphModule", "Proxy", "symbolic_trace", "wrap"]


def wrap(fn_or_name: Any) -> Any:
    """The function (or its name) as it is; a mark for symbolic tracing."""
    if not callable(fn_or_name) and not isinstance(fn_or_name, str):
        raise RuntimeError("Unsupported type for global function! Must be either a callable or "
                           "string name")
    return fn_or_name


class Proxy:
    """A value in a symbolic trace: there are none, so nothing is an instance."""

    def __init__(self) -> None:
        raise NotImplementedError("facula has no symbolic traces")


class GraphModule:
    """A module made of a symbolic trace: there are none, so nothing is an instance."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("facula has no symbolic traces")


def symbolic_trace(root: Any, concrete_args: Any = None) -> NoReturn:
    """NotImplementedError: see `facula.compile` and `facula.explain`."""
    raise NotImplementedError(
        "symbolic_trace: facula records tensors and not Python. To run a function faster use "
        "facula.compile, to see what it records facula.explain(fn, *example)")
