"""Names by which an argument may be given besides the parameter's own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["also_named", "renamed", "numpy_names"]


def also_named(fn: Callable[..., Any], names: dict[str, str]) -> Callable[..., Any]:
    """`fn`, whose parameter names[k] may be given as the keyword k."""
    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            given = {names.get(k, k): v for k, v in kwargs.items()}
            if len(given) != len(kwargs):
                twice = sorted({names[k] for k in kwargs if k in names} & set(kwargs)) or sorted(
                    k for k in kwargs if k in names)
                raise TypeError(f"{call.__name__}() got more than one value for one argument, "
                                f"by {', '.join(twice)} and another of its names: give one")
            kwargs = given
        return fn(*args, **kwargs)
    return call


def renamed(fn: Callable[..., Any], names: dict[str, str]) -> Callable[..., Any]:
    """`also_named`, and the signature of the result shows the names k in place of names[k]."""
    call = also_named(fn, names)
    shown = inspect.signature(fn)
    new = {old: name for name, old in names.items()}
    call.__signature__ = shown.replace(parameters=[           # type: ignore[attr-defined]
        p.replace(name=new.get(p.name, p.name)) for p in shown.parameters.values()])
    return call


_NUMPY = {"axis": "dim", "keepdims": "keepdim"}


def numpy_names(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Lets `fn` take NumPy's names `axis` and `keepdims` for dim and keepdim."""
    return also_named(fn, _NUMPY)
