"""The text of a replay as it is being written."""

from __future__ import annotations

import sys
from itertools import count
from operator import is_
from typing import Any

from facula.compiler.capture import MISS, Capture, Place, settle
from facula.compiler.entry import Late, advance, odd, refresh, signed
from facula.compiler.world import ATOMS, Cell, same
from facula.graph.record import FREED, Node
from facula.graph.tape import changes
from facula.ops import promote
from facula.runtime import flight
from facula.runtime.allocator import Buffer
from facula.tensor import Storage, Tensor

__all__ = ["Text"]


class Text:
    """The replay as it is being written."""

    def __init__(self, c: Capture):
        self.c = c
        self.lines: list[str] = []
        self.scope: dict[str, Any] = {
            "MISS": MISS, "Buffer": Buffer, "Tensor": Tensor, "Node": Node, "Storage": Storage,
            "new": object.__new__, "NOWHERE": (None, -1), "FREED": FREED, "refs": sys.getrefcount,
            "odd": odd, "refresh": refresh, "settle": settle, "advance": advance,
            "changes": changes, "is_": is_, "promote": promote,
            "flight": flight, "signed": signed, "Late": Late}
        self.known: dict[int, str] = {}
        self.names = count()
        self.args: dict[int, str] = {id(t): f"a{j}" for j, t in enumerate(c.given)}
        self.bound: set[str] = set()

    def const(self, value: Any) -> str:
        """A name for an object."""
        found = self.known.get(id(value))
        if found is None:
            found = self.known[id(value)] = f"c{next(self.names)}"
            self.scope[found] = value
        return found

    def put(self, line: str, depth: int = 2) -> None:
        self.lines.append("    " * depth + line)

    def miss(self, test: str) -> None:
        self.put(f"if {test}: return MISS")

    # -- arguments
    def argument(self, expr: str, value: Any) -> None:
        kind = type(value)
        if isinstance(value, Tensor):
            name = self.args.get(id(value), "")
            if not name:                        # one that the function knows anyway
                self.miss(f"{expr} is not {self.const(value)}")
                return
            if name in self.bound:
                self.miss(f"{expr} is not {name}")
                return
            self.bound.add(name)
            place = ("A", int(name[1:]))
            before = self.c.before[place]
            self.put(f"{name} = {expr}")
            self.miss(f"type({name}) is not {self.const(kind)} or {name}._rg is not {before.rg} "
                      f"or {name}._leaf is not {before.leaf} or "
                      f"{name}._node.spec is not {self.const(before.spec)}")
            if before.rg:
                self.miss(f"{name}._hooks or {name}._post_hooks or "
                          f"({name}._grad is None) is not {before.grad is None}")
        elif isinstance(value, (list, tuple)):
            name = f"s{next(self.names)}"
            self.put(f"{name} = {expr}")
            self.miss(f"type({name}) is not {self.const(kind)} or len({name}) != {len(value)}")
            for n, v in enumerate(value):
                self.argument(f"{name}[{n}]", v)
        elif kind is dict:
            name = f"s{next(self.names)}"
            keys = list(value)
            self.put(f"{name} = {expr}")
            self.miss(f"type({name}) is not dict or list({name}) != {self.const(keys)}")
            for k, v in value.items():
                self.argument(f"{name}[{self.const(k)}]", v)
        elif kind in ATOMS and value is not None and kind is not bool:
            self.scope["same"] = same
            c = self.const(value)
            self.miss(f"{expr} is not {c} and not same({expr}, {c})")
        else:
            self.miss(f"{expr} is not {self.const(value)}")

    def tensor(self, place: Place) -> str:
        """The expression of the tensor at a place."""
        kind, i = place
        if kind[0] == "A":
            name = f"a{i}"
        else:
            name = self.const(self.c.world.tensors[i])
        return f"{name}._grad" if kind.endswith("G") else name

    def quick(self, cell: Cell) -> str:
        holder = self.const(cell.holder)
        if cell.kind == "item":
            return f"{holder}[{self.const(cell.key)}]"
        if cell.kind == "cell":
            return f"{holder}.cell_contents"
        if cell.kind == "class":
            return f"{holder}.__dict__[{cell.key!r}]"
        if cell.kind == "slot":
            return f"{holder}.{cell.key}"
        return f"len({holder})" if cell.kind == "size" else f"frozenset({holder})"
