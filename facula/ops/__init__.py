"""Public operations, one family a file; `facula.ops.families` loads them all.

Operations that a program has defined itself are attributes: `facula.ops.mylibrary.myop`.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        from facula.ops.custom import NAMESPACES
        if name in NAMESPACES:
            return NAMESPACES[name]
    raise AttributeError(f"module 'facula.ops' has no attribute {name!r}: no library of this "
                         "name has defined an operation")
