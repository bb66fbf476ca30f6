"""Modules without their starting values."""

from __future__ import annotations

import inspect
from typing import Any

from facula.nn.modules.module import Module

__all__ = ["skip_init"]


def skip_init(module_cls: Any, *args: Any, **kwargs: Any) -> Any:
    """`module_cls(*args, **kwargs)` whose parameters and buffers are not filled with anything.

    For a module that gets its values from elsewhere: what its constructor recorded to fill them
    is never computed.  Raises RuntimeError for what is no module, or takes no `device`.
    """
    if not (isinstance(module_cls, type) and issubclass(module_cls, Module)):
        raise RuntimeError(f"Expected a Module; got {module_cls}")
    if "device" not in inspect.signature(module_cls).parameters:
        raise RuntimeError("Module must support a 'device' arg to skip initialization")
    device = kwargs.get("device") or "cpu"
    return module_cls(*args, **kwargs).to_empty(device=device)
