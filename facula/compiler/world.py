"""The world of a function: everything it can read without being given it.

A replay is right only if Python would do again what it did when the call was recorded.  What the
function's Python can depend on is what it can reach: the globals its code names, its closure, its
defaults, the object it is bound to, and from there attributes, items and tensors.  `look` walks
over all of that and lists it; two equal lists mean that the function would take the same way.

What the walk takes as constant: modules of the standard library, of NumPy and of facula itself,
code, and what C extensions keep inside their objects.
"""

from __future__ import annotations

import dis
import enum
import functools
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

from facula.dtype import DType
from facula.generator import Generator
from facula.graph.spec import Spec
from facula.graph.tape import Watched
from facula.tensor import Tensor

__all__ = ["World", "Cell", "look", "same", "ATOMS", "Unguardable"]

ATOMS = frozenset((int, float, bool, str, bytes, complex, type(None), type(Ellipsis), range, slice,
                   DType, Spec))
MOST = 50_000
_ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "nothing"})()
_OWN = "facula"
_FIXED = frozenset(sys.stdlib_module_names) | {"numpy", "ml_dtypes", "llvmlite", "scipy", "torch",
                                                "pytest", "_pytest", "hypothesis", "matplotlib",
                                                "PIL", "tqdm", "IPython", "__future__"}
_SKIPPED = frozenset(("_non_persistent_buffers_set", "_opt_called", "_stepping", "_updates",
                      "_where", "__weakref__"))


class Unguardable(Exception):
    """The function depends on something whose changes cannot be seen."""


class Cell:
    """One thing the function can read: `holder[key]`, which was `value`.

    `kind` says how it is read again: 'item' (a dictionary's or list's), 'cell' (a closure's),
    'size' (of a container), 'attributes' (how many an object or class has), 'tensor' (its flags);
    `quick` is False for what `changes` counts.
    """

    __slots__ = ("path", "kind", "holder", "key", "value", "quick")

    def __init__(self, path: str, kind: str, holder: Any, key: Any, value: Any, quick: bool):
        self.path = path
        self.kind = kind
        self.holder = holder
        self.key = key
        self.value = value
        self.quick = quick


class World:
    """What `look` found: `cells` in the order of the walk, `tensors` and their paths."""

    def __init__(self) -> None:
        self.cells: list[Cell] = []
        self.tensors: list[Tensor] = []
        self.names: list[str] = []
        self.watched: list[Watched] = []
        self.seen: set[int] = set()

    def differences(self, other: World, exempt: set[tuple[int, Any]]) -> list[str]:
        """What is not the same in two walks, as sentences; empty if nothing."""
        mine = [c for c in self.cells if (id(c.holder), c.key) not in exempt]
        theirs = [c for c in other.cells if (id(c.holder), c.key) not in exempt]
        out: list[str] = []
        for a, b in zip(mine, theirs):
            if a.path != b.path:
                return [*out, f"{b.path} is new" if len(theirs) >= len(mine)
                        else f"{a.path} is gone"]
            if not same(a.value, b.value) or a.holder is not b.holder:
                out.append(f"{a.path} changes from {_short(a.value)} to {_short(b.value)}")
        if len(mine) != len(theirs):
            longer = mine if len(mine) > len(theirs) else theirs
            cell = longer[min(len(mine), len(theirs))]
            out.append(f"{cell.path} is {'gone' if longer is mine else 'new'}")
        return out


def same(a: Any, b: Any) -> bool:
    """Would Python go the same way with either?"""
    if a is b:
        return True
    kind = type(a)
    if kind is frozenset and type(b) is frozenset:
        return bool(a == b)
    if kind is not type(b) or kind not in ATOMS:
        return False
    if kind is float or kind is complex:
        return repr(a) == repr(b)
    return bool(a == b)


def _short(value: Any) -> str:
    if type(value) in ATOMS:
        text = repr(value)
        return text if len(text) < 40 else text[:37] + "..."
    return f"a {type(value).__name__}"


def _root(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _foreign(module: str | None) -> bool:
    """Is this a module whose content is taken as constant?"""
    root = _root(module)
    return root == _OWN or root in _FIXED


@functools.cache
def _names(code: types.CodeType) -> tuple[tuple[str, ...], frozenset[str]]:
    """The globals that a piece of code reads, and all attribute names in it."""
    globals_: dict[str, None] = {}
    attributes: set[str] = set()
    todo = [code]
    while todo:
        one = todo.pop()
        for ins in dis.get_instructions(one):
            if ins.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                globals_[ins.argval] = None
            elif ins.opname in ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM", "IMPORT_NAME"):
                attributes.add(ins.argval)
        todo += [c for c in one.co_consts if isinstance(c, types.CodeType)]
    return tuple(globals_), frozenset(attributes)


class _Walk:
    def __init__(self, skip: Iterable[Any]):
        self.world = World()
        self.done: set[int] = {id(s) for s in skip}
        self.kept: list[Any] = []
        self.todo: list[tuple[str, Any]] = []
        self.attributes: set[str] = set()
        self.modules: list[tuple[str, types.ModuleType]] = []

    def add(self, path: str, kind: str, holder: Any, key: Any, value: Any,
            quick: bool = True) -> None:
        cells = self.world.cells
        if len(cells) > MOST:
            raise Unguardable(f"it can reach more than {MOST} things")
        cells.append(Cell(path, kind, holder, key, value, quick))
        if type(value) not in ATOMS and kind != "set":
            self.todo.append((path, value))

    def run(self) -> None:
        while self.todo or self.modules:
            while self.todo:
                path, value = self.todo.pop()
                if id(value) in self.done:
                    continue
                self.done.add(id(value))
                self.kept.append(value)
                self.visit(path, value)
            modules, self.modules = self.modules, []
            for path, module in modules:
                self.module(path, module)

    def visit(self, path: str, value: Any) -> None:
        if isinstance(value, Tensor):
            if "_node" not in value.__dict__:       # a lazy module's
                raise Unguardable(f"{path} has no shape yet")
            self.world.tensors.append(value)
            self.world.names.append(path)
        elif isinstance(value, types.FunctionType):
            self.function(path, value)
        elif isinstance(value, types.MethodType):
            self.todo += [(path, value.__self__), (path, value.__func__)]
        elif isinstance(value, functools.partial):
            self.todo += [(path, value.func), (f"{path}.args", value.args),
                          (f"{path}.keywords", value.keywords)]
        elif getattr(type(value), "is_compiled", False):
            self.todo.append((path, value.fn))      # not what it has captured, and counts
        elif isinstance(value, (types.BuiltinFunctionType, types.MethodWrapperType,
                                enum.Enum, Generator)):
            pass
        elif isinstance(value, types.ModuleType):
            if not _foreign(value.__name__):
                self.modules.append((path, value))
        elif isinstance(value, type):
            self.klass(path, value)
        elif isinstance(value, dict):
            self.table(path, value)
        elif isinstance(value, (list, tuple)):
            self.sequence(path, value)
        elif isinstance(value, (set, frozenset)):
            for item in value:
                if type(item) not in ATOMS:
                    self.todo.append((f"{path}{{}}", item))
            self.add(path, "set", value, None, frozenset(value))
        else:
            self.instance(path, value)

    def function(self, path: str, fn: types.FunctionType) -> None:
        wrapped = getattr(fn, "__wrapped__", None)
        if wrapped is not None:
            self.todo.append((path, wrapped))
        if _foreign(fn.__module__):
            if _root(fn.__module__) == _OWN and fn.__closure__:
                self.closure(path, fn)      # a decorator of facula's around a user's function
            return
        names, attributes = _names(fn.__code__)
        self.attributes |= attributes
        table = fn.__globals__
        for name in names:
            if name in table:
                self.add(name, "item", table, name, table[name])
        self.closure(path, fn)
        for n, value in enumerate(fn.__defaults__ or ()):
            self.todo.append((f"{path}.__defaults__[{n}]", value))
        self.todo += [(f"{path}.{k}", v) for k, v in (fn.__kwdefaults__ or {}).items()]

    def closure(self, path: str, fn: types.FunctionType) -> None:
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or ()):
            try:
                value = cell.cell_contents
            except ValueError:
                value = _ABSENT
            self.add(name, "cell", cell, "cell_contents", value)

    def klass(self, path: str, cls: type) -> None:
        if _foreign(cls.__module__):
            return
        # A name that comes later may hide one of a base class: only its number is looked at, the
        # rest is told by what the walk finds then.
        self.add(f"len({path}.__dict__)", "attributes", cls, None, None)
        for name, value in list(vars(cls).items()):
            if name in ("__dict__", "__weakref__", "__doc__", "__module__", "__annotations__",
                        "__qualname__", "__slots__"):
                continue
            if isinstance(value, (staticmethod, classmethod)):
                value = value.__func__
            elif isinstance(value, property):
                value = value.fget
            self.add(f"{cls.__name__}.{name}", "class", cls, name, vars(cls).get(name))
            if type(value) not in ATOMS:
                self.todo.append((f"{cls.__name__}.{name}", value))
        for base in cls.__bases__:
            self.todo.append((base.__name__, base))

    def module(self, path: str, module: types.ModuleType) -> None:
        table = vars(module)
        for name in sorted(self.attributes & table.keys()):
            self.add(f"{path}.{name}", "item", table, name, table[name])

    def table(self, path: str, table: dict[Any, Any]) -> None:
        if isinstance(table, Watched):
            self.world.watched.append(table)
        quick = not (_root(type(table).__module__) == _OWN and not isinstance(table, Watched))
        self.add(f"len({path})", "size", table, None, dict.__len__(table), quick)
        for key, value in list(dict.items(table)):
            label = key if type(key) in ATOMS else type(key).__name__
            if isinstance(key, Tensor):
                self.todo.append((f"{path}.key", key))
            self.add(f"{path}[{label!r}]", "item", table, key, value, quick)

    def sequence(self, path: str, values: Any) -> None:
        fixed = isinstance(values, tuple)
        if not fixed:
            self.add(f"len({path})", "size", values, None, len(values))
        for n, value in enumerate(values):
            if fixed:
                if type(value) not in ATOMS:
                    self.todo.append((f"{path}[{n}]", value))
            else:
                self.add(f"{path}[{n}]", "item", values, n, value)

    def instance(self, path: str, value: Any) -> None:
        kind = type(value)
        self.todo.append((kind.__name__, kind))
        table = getattr(value, "__dict__", None)
        if isinstance(table, dict):
            counted = "_parameters" in table and "_modules" in table
            if not counted:
                self.add(f"len({path}.__dict__)", "attributes", value, None, None)
            for name, item in list(table.items()):
                if name in _SKIPPED:
                    continue
                self.add(f"{path}.{name}", "item", table, name, item,
                         not counted and not name.startswith("_optimizer_"))
        elif hasattr(kind, "__next__") and not isinstance(value, types.GenericAlias):
            raise Unguardable(f"{path} is an iterator, whose place cannot be seen")
        for klass in kind.__mro__:
            slots = klass.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if hasattr(value, name) and name not in ("__dict__", "__weakref__") \
                        and not _foreign(klass.__module__):
                    self.add(f"{path}.{name}", "slot", value, name, getattr(value, name))


def look(fn: Callable[..., Any], extra: Iterable[tuple[str, Any]] = (),
         skip: Iterable[Any] = ()) -> World:
    """Walk over what `fn`, and the objects in `extra`, can reach."""
    walk = _Walk(skip)
    walk.todo.append((getattr(fn, "__name__", type(fn).__name__), fn))
    walk.todo += list(extra)
    walk.run()
    world = walk.world
    world.seen = walk.done
    index = {id(t): i for i, t in enumerate(world.tensors)}
    for cell in world.cells:            # of several paths the shortest is the one to print
        i = index.get(id(cell.value))
        if i is not None and len(cell.path) < len(world.names[i]):
            world.names[i] = cell.path
    return world
