"""facula under other libraries: what they need to know it, told them when they are imported.

Nothing here imports another library.  A finder waits at the front of `sys.meta_path` until the
program imports one of `ADAPTERS`, lets it load, and then loads the adapter, which makes facula
known to it by the library's own means.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["ADAPTERS", "install"]

ADAPTERS = {"einops": "facula.compat.einops"}
"""Library and the module that is imported after it."""


class _Waiting:
    """Finds nothing itself: has an adapter loaded when the library it waits for has been.

    The class that finders derive from would add nothing, and its module takes a tenth of the
    time of `import facula`.
    """

    def __init__(self, library: str, adapter: str) -> None:
        self.library = library
        self.adapter = adapter

    def find_spec(self, fullname: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self.library:
            return None
        from importlib.util import find_spec
        sys.meta_path.remove(self)                   # so that the others are asked
        try:
            spec = find_spec(fullname)
        except ValueError:                           # in sys.modules without a spec of its own
            spec = None
        if spec is None or spec.loader is None:
            sys.meta_path.insert(0, self)            # not installed: it may be yet
            return None
        loader: Any = spec.loader
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            importlib.import_module(self.adapter)

        loader.exec_module = exec_module
        return spec


def install() -> None:
    """Have each adapter loaded with its library, or now if the library is there already."""
    for library, adapter in ADAPTERS.items():
        if library in sys.modules:
            importlib.import_module(adapter)
        else:
            sys.meta_path.insert(0, _Waiting(library, adapter))
