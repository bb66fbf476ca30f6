"""The tables of a module: parameters, buffers, children, by name."""

from __future__ import annotations

from typing import Any

from facula.graph.tape import changes

__all__ = ["Shown"]

_MISSING: Any = object()


class Shown(dict[str, Any]):
    """A table whose entries are ordinary attributes of the module as well.

    `module.weight` is asked for at every call of a layer.  With the entry in the module's own
    `__dict__` that is a plain attribute look-up, and not a call of `__getattr__`.
    """

    __slots__ = ("_owner",)

    def __init__(self, owner: dict[str, Any]):
        super().__init__()
        self._owner = owner

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self or name not in self._owner:     # never in front of a real attribute
            self._owner[name] = value
        super().__setitem__(name, value)
        changes[0] += 1

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        changes[0] += 1
        self._owner.pop(name, None)

    def pop(self, name: str, default: Any = _MISSING) -> Any:
        if name not in self:
            if default is _MISSING:
                raise KeyError(name)
            return default
        value = self[name]
        del self[name]
        return value

    def popitem(self) -> tuple[str, Any]:
        name = next(reversed(self), _MISSING)
        if name is _MISSING:
            raise KeyError("popitem(): the table is empty")
        return name, self.pop(name)

    def clear(self) -> None:
        for name in list(self):
            del self[name]

    def setdefault(self, name: str, default: Any = None) -> Any:
        if name not in self:
            self[name] = default
        return self[name]

    def update(self, *args: Any, **kwargs: Any) -> None:
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __reduce__(self) -> Any:
        return dict, (dict(self),)
