"""The named tuples that operations with several results return, by the operations' names.

A program may ask `isinstance(found, facula.return_types.max)`; and a pickled result is found by
its name here.
"""

from __future__ import annotations

from typing import Any

__all__: list[str] = []


def declare(*classes: type[tuple[Any, ...]]) -> None:
    """Make named tuples public in this module, where pickle finds them."""
    for cls in classes:
        cls.__module__ = __name__
        globals()[cls.__name__] = cls
        __all__.append(cls.__name__)
