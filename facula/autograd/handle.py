"""What registering a hook returns, on tensors, modules and optimisers alike."""

from __future__ import annotations

import itertools
import weakref
from collections import OrderedDict
from typing import Any

__all__ = ["RemovableHandle"]

_ids = itertools.count()


class RemovableHandle:
    """What registering a hook returns; `remove()` takes the hook out again.

    It is a context manager too, which removes the hook on leaving.  It does not keep the hook
    alive, nor what the hook was registered on: `hooks`, and the dictionaries in `extra` that know
    more about the same hook, are referred to weakly.
    """

    def __init__(self, hooks: Any, *, extra: Any = ()):
        self.id = next(_ids)
        while self.id in hooks:                 # taken over from another process by a pickle
            self.id = next(_ids)
        self._hooks = weakref.ref(hooks)
        self._extra = tuple(weakref.ref(d) for d in extra)

    def remove(self) -> None:
        """Take the hook out; without effect once it is gone."""
        for ref in (self._hooks, *self._extra):
            hooks = ref()
            if hooks is not None:
                hooks.pop(self.id, None)

    def __getstate__(self) -> Any:
        return self.id, self._hooks(), [ref() for ref in self._extra]

    def __setstate__(self, state: Any) -> None:
        self.id, hooks, extra = state
        self._hooks = weakref.ref(OrderedDict() if hooks is None else hooks)
        self._extra = tuple(weakref.ref(d) for d in extra if d is not None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.remove()
