"""The text of a replay as it is being written."""

from __future__ import annotations

import inspect
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
from facula.storage import Storage
from facula.tensor import Tensor

__all__ = ["Text", "described", "parameter_names"]


def parameter_names(fn: Any, count: int) -> list[str]:
    """What users call the arguments that are given by position."""
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [names[n] if n < len(names) else f"argument {n}" for n in range(count)]


class Said(str):
    """A sentence that is put in as it is."""

    __slots__ = ()


def described(value: Any) -> str:
    """An argument, in a few words."""
    if isinstance(value, Said):
        return value
    if isinstance(value, Tensor):
        grad = ", requires_grad" if value._rg else ""
        kind = "a tensor" if type(value) is Tensor else f"a {type(value).__name__}"
        return f"{kind} {value._node.spec!r}{grad}"
    if type(value) is dict:
        keys = ", ".join(map(repr, list(value)[:8]))
        return f"a dict of {len(value)} ({keys}{', ...' if len(value) > 8 else ''})"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    if type(value) in ATOMS:
        text = repr(value)
        return text if len(text) < 60 else f"{text[:57]}..."
    name = getattr(value, "__qualname__", "")
    return f"{name or 'a ' + type(value).__name__} at 0x{id(value):x}"


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
            "described": described, "Said": Said, "flight": flight, "signed": signed, "Late": Late}
        self.known: dict[int, str] = {}
        self.names = count()
        self.whys: dict[int, tuple[str, tuple[str, ...]]] = {}      # line -> reason, its values
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

    def miss(self, test: str, why: str, *values: str) -> None:
        """A guard: `why` says what is wrong if it does not hold, with `values` put in for {}."""
        self.whys[len(self.lines)] = why, values
        self.put(f"if {test}: return MISS")

    def explanation(self) -> str:
        """The guards as a function that says which of them fails: (how far it got, why)."""
        lines = []
        for n, line in enumerate(self.lines):
            found = self.whys.get(n)
            if found is not None:
                why, values = found
                shown = ", ".join([f"described({v})" for v in values])
                # not written out: the guards of calls of other sizes are then the same text
                line = line.replace("return MISS",
                                    f"return {n}, {self.const(why)}.format({shown})")
            lines.append(line.replace("return MISS", f"return {n}, ''"))
        return "\n".join(lines).replace("def replay(", "def why(")

    # -- arguments
    def argument(self, expr: str, value: Any, label: str) -> None:
        """Guard one argument, which users know by its label."""
        kind = type(value)
        if isinstance(value, Tensor):
            name = self.args.get(id(value), "")
            if not name:                        # one that the function knows anyway
                known = self.c.world.names[self.c.reachable[id(value)]]
                self.miss(f"{expr} is not {self.const(value)}", f"{label} is {{}}, and was "
                          f"{known}, which the function can also reach without being given it",
                          expr)
                return
            if name in self.bound:
                self.miss(f"{expr} is not {name}",
                          f"{label} is no longer the same tensor as an argument before it")
                return
            self.bound.add(name)
            place = ("A", int(name[1:]))
            before = self.c.before[place]
            self.c.labels[place] = label
            self.put(f"{name} = {expr}")
            self.miss(f"type({name}) is not {self.const(kind)} or {name}._rg is not {before.rg} "
                      f"or {name}._leaf is not {before.leaf} or "
                      f"{name}._node.spec is not {self.const(before.spec)}",
                      f"{label} is {{}}, and was {described(value)}", name)
            if before.rg:
                self.miss(f"{name}._hooks or {name}._post_hooks or "
                          f"({name}._grad is None) is not {before.grad is None}",
                          f"{label} has hooks now, or its .grad is there and was not, or was and "
                          "is not")
        elif isinstance(value, (list, tuple)):
            name = f"s{next(self.names)}"
            self.put(f"{name} = {expr}")
            self.miss(f"type({name}) is not {self.const(kind)} or len({name}) != {len(value)}",
                      f"{label} is {{}}, and was {described(value)}", name)
            for n, v in enumerate(value):
                self.argument(f"{name}[{n}]", v, f"{label}[{n}]")
        elif kind is dict:
            name = f"s{next(self.names)}"
            keys = list(value)
            self.put(f"{name} = {expr}")
            self.miss(f"type({name}) is not dict or list({name}) != {self.const(keys)}",
                      f"{label} is {{}}, and was {described(value)}", name)
            for k, v in value.items():
                self.argument(f"{name}[{self.const(k)}]", v, f"{label}[{k!r}]")
        elif kind in ATOMS and value is not None and kind is not bool:
            self.scope["same"] = same
            c = self.const(value)
            self.miss(f"{expr} is not {c} and not same({expr}, {c})",
                      f"{label} is {{}}, and was {described(value)}", expr)
        else:
            self.miss(f"{expr} is not {self.const(value)}",
                      f"{label} is {{}}, and was {described(value)}", expr)

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
        if cell.kind == "attributes":
            return f"len({holder}.__dict__)"
        return f"len({holder})" if cell.kind == "size" else f"frozenset({holder})"
