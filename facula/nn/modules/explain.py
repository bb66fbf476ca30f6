"""Where in the model an error happened: its module's path, shapes, the user's line, the fix.

Nothing here runs unless an error leaves a module's forward.  The innermost module writes down
what it was given; each parent that the error passes through puts its own name in front.
"""

from __future__ import annotations

import linecache
import os
import sys
from typing import Any

from facula.errors import FaculaError
from facula.tensor import Tensor

__all__ = ["locate"]

_FACULA = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep


class _Where:
    __slots__ = ("base", "top", "path", "name", "detail", "line", "fix")

    def __init__(self, error: FaculaError, module: Any, args: tuple[Any, ...],
                 kwargs: dict[str, Any], frame: Any):
        self.base = getattr(error, "brief", None) or str(error)
        self.top = module
        self.path = ""
        text = repr(module)
        self.name = text if "\n" not in text else type(module).__name__
        self.detail, self.fix = module._explain(args, kwargs)
        if self.detail is None:
            shapes = [_shape(a) for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
            self.detail = "got input of shape " + ", ".join(shapes) if shapes else ""
        self.line = _user_line(error, frame)
        advice: str | None = getattr(error, "fix", None)
        if self.fix is None:
            self.fix = advice
        if self.fix is not None and self.fix in self.base:
            self.fix = None

    def text(self, root: str) -> str:
        place = f"{root}.{self.path}" if self.path else root
        parts = [self.base, f"  in {place} ({self.name})" + (f" {self.detail}" if self.detail
                                                              else "")]
        if self.line is not None and self.line.split(": ")[0] not in self.base:
            parts.append(f"  at {self.line}")
        if self.fix:
            parts.append(f"  fix: {self.fix}")
        return "\n".join(parts)


def locate(error: FaculaError, module: Any, args: tuple[Any, ...],
           kwargs: dict[str, Any]) -> None:
    """Say in `error`'s message that it left the forward of `module`, called with `args`."""
    frame = sys._getframe(2)
    where: _Where | None = getattr(error, "_where", None)
    if where is None:
        where = _Where(error, module, args, kwargs, frame)
        error._where = where        # type: ignore[attr-defined]
    elif where.top is not module:
        for name, child in module.named_modules():
            if child is where.top:
                where.path = f"{name}.{where.path}" if where.path else name
                break
        where.top = module
    error.args = (where.text(_variable(module, frame)),)


def _shape(t: Tensor) -> str:
    return str(list(t.shape))


def _user_line(error: FaculaError, frame: Any) -> str | None:
    """`file:line: source` of the user's innermost line, below the module or else above it."""
    found: Any = None
    tb = error.__traceback__
    while tb is not None:
        name = tb.tb_frame.f_code.co_filename
        if not name.startswith(_FACULA) and not name.startswith("<frozen"):
            found = (name, tb.tb_lineno)
        tb = tb.tb_next
    while found is None and frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_FACULA) and not name.startswith("<frozen"):
            found = (name, frame.f_lineno)
        frame = frame.f_back
    if found is None:
        return None
    source = linecache.getline(*found).strip()
    return f"{found[0]}:{found[1]}" + (f": {source}" if source else "")


def _variable(module: Any, frame: Any) -> str:
    """What the caller calls `module`: its variable, or failing that its class."""
    if frame is not None and not frame.f_code.co_filename.startswith(_FACULA):
        for names in (frame.f_locals, frame.f_globals):
            for name, value in list(names.items()):
                if value is module and name != "self" and not name.startswith("_"):
                    return str(name)
        owner = frame.f_locals.get("self")
        children = getattr(owner, "__dict__", {}).get("_modules")
        if children:
            for name, value in children.items():
                if value is module:
                    return f"{type(owner).__name__}.{name}"
    return type(module).__name__
