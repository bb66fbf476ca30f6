"""How a public operation is declared: `@op`, and what the first call leaves for the next.

A public operation is a pure Python function over tensors.  The first time it is called at some
place of a graph its body runs and records primitives; the whole call then becomes one edge of
the trie (see `facula.graph.record`), and the next call at that place is one look-up, however
long the body.  What the look-up tells apart: the operation, its static arguments, where its
tensor arguments stand in the graph (hence their shapes and dtypes), and through which of them a
gradient flows.

The body therefore must not depend on anything else: not on values, not on globals that change.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from facula.dtype import DType
from facula.graph import record as _record
from facula.graph.record import LOCK, Edge, Node, _local
from facula.graph.spec import freeze_number
from facula.graph.template import Table, alike, cut
from facula.ops.given import in_place, into
from facula.ops.looking import LARGE, look, may_look
from facula.runtime.allocator import Buffer
from facula.tensor import Tensor

__all__ = ["OPS", "OpRecord", "op", "composite", "cast_first", "autocast_to", "macro", "remembered",
           "sample", "attach", "freeze"]

_F = TypeVar("_F", bound=Callable[..., Any])


class OpRecord:
    """What the registry holds of a public operation.

    `samples(make)` lists sample calls as `(args, kwargs)`; `make(*shape, dtype=..., low=...,
    high=..., requires_grad=...)` gives it an input.  `differentiable` is False where no gradient
    is defined anywhere.
    """

    def __init__(self, name: str, fn: Callable[..., Any], body: Callable[..., Any], family: str,
                 method: str | None, inplace: bool, samples: Any, differentiable: bool):
        self.name = name
        self.fn = fn
        self.body = body
        self.family = family
        self.method = method
        self.inplace = inplace
        self.samples = samples
        self.differentiable = differentiable

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.body) or ""


OPS: dict[str, OpRecord] = {}
"""Every public operation, by its name; `facula.nn.functional`'s are named `functional.<name>`."""


class _Place:
    """Stands in a key for what is known by its identity: "a tensor goes here", an operation."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name}>"


_T = _Place("tensor")
_TRUE, _FALSE = ("bool", 1), ("bool", 0)
_new = object.__new__
_acquire, _release = LOCK.acquire, LOCK.release
_ATOMS = frozenset((int, str, type(None), DType))


def freeze(value: Any, tensors: list[Tensor]) -> Any:
    """A hashable stand-in for an argument; tensors in it are moved to `tensors`."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is bool:
        return _TRUE if value else _FALSE
    if kind is float:
        return ("float", freeze_number(value))
    if isinstance(value, Tensor):
        tensors.append(value)
        return _T
    if kind is list or isinstance(value, tuple):
        return tuple([freeze(v, tensors) for v in value])
    if kind is complex:
        return ("complex", freeze_number(value.real), freeze_number(value.imag))
    if kind is slice:
        return (slice, value.start, value.stop, value.step)
    if kind is dict:
        return ("dict", tuple([(k, freeze(v, tensors)) for k, v in value.items()]))
    return (kind, value)


def op(fn: Callable[..., Any] | None = None, *, name: str | None = None,
       method: bool | str = False, inplace: bool = False, samples: Any = None,
       differentiable: bool = True, family: str | None = None,
       register: bool = True, exact_out: bool = False) -> Any:
    """Declare a public operation.

    name            its public name; the function's own unless given
    method          attach it to Tensor (under its name, or the name given here)
    inplace         also make the method `name_`, which overwrites its first argument
    samples         see `OpRecord`
    differentiable  False where there is no gradient to test
    family          which group of the documentation it belongs to; its module's name unless given
    exact_out       `out=` must have the dtype of the result
    """
    if fn is None:
        return lambda f: op(f, name=name, method=method, inplace=inplace, samples=samples,
                            differentiable=differentiable, family=family, register=register,
                            exact_out=exact_out)
    body = fn
    public = name or fn.__name__
    head = _Place(public)

    @functools.wraps(body)
    def call(*args: Any, **kwargs: Any) -> Any:
        rec = _local.rec
        if rec.depth:
            if "out" in kwargs:
                return into(kwargs.pop("out"), call(*args, **kwargs), exact_out)
            return _run(rec, body, args, kwargs)
        if not kwargs and args:
            # Most calls are of tensors alone, and need no pattern of their arguments.
            for a in args:
                if not isinstance(a, Tensor):
                    break
            else:
                return _memo(rec, head, args, body, args, kwargs)
        tensors: list[Tensor] = []
        pattern: list[Any] = [body]
        for a in args:
            if isinstance(a, Tensor):
                tensors.append(a)
                pattern.append(_T)
            elif a is None or type(a) is int:
                pattern.append(a)
            else:
                pattern.append(freeze(a, tensors))
        if kwargs:
            if "out" in kwargs:
                return into(kwargs.pop("out"), call(*args, **kwargs), exact_out)
            for k, v in kwargs.items():
                pattern.append(k)
                pattern.append(freeze(v, tensors))
        try:
            if not tensors:
                return body(*args, **kwargs)
            return _memo(rec, tuple(pattern), tensors, body, args, kwargs)
        except AttributeError:
            _need_tensors(public, body, args, kwargs)
            raise

    call.body = body                                         # type: ignore[attr-defined]
    if register:
        group = family or body.__module__.rpartition(".")[2].lstrip("_")
        full = f"functional.{public}" if "functional" in body.__module__ else public
        attr = method if isinstance(method, str) else public if method else None
        OPS[full] = OpRecord(public, call, body, group, attr, inplace, samples, differentiable)
    if method:
        setattr(Tensor, method if isinstance(method, str) else public, call)
    if inplace:
        attach(f"{method if isinstance(method, str) else public}_", in_place(call, public))
    return call


def _need_tensors(name: str, body: Callable[..., Any], args: Sequence[Any],
                  kwargs: dict[str, Any]) -> None:
    """Raise a TypeError if one of the arguments that are to be tensors is none.

    Looked for only after something went wrong.
    """
    try:
        given = inspect.signature(body).bind(*args, **kwargs)
    except TypeError:
        return
    for k, (what, value) in enumerate(given.arguments.items()):
        if given.signature.parameters[what].annotation in ("Tensor", Tensor) \
                and not isinstance(value, Tensor):
            raise TypeError(f"{name}(): argument '{what}' (position {k + 1}) must be Tensor, not "
                            f"{type(value).__name__}")


def composite(fn: Callable[..., Any]) -> Callable[..., Any]:
    """An operation for internal use: memoised like `op`, but not in the registry."""
    call: Callable[..., Any] = op(fn, register=False)
    return call


def autocast_to(kind: str) -> Callable[[_F], _F]:
    """Under the decorator that declares an operation: the precision that autocast gives it.

    'lower' is the dtype of the autocast, 'full' float32, 'widest' the widest dtype among the
    operands; without this decorator an operation takes its operands as they are.  The choices
    are PyTorch's on a CPU, which tests/amp compares.
    """
    def mark(fn: _F) -> _F:
        fn.autocast = kind                                   # type: ignore[attr-defined]
        return fn
    return mark


def cast_first(fn: Callable[..., Any]) -> Callable[..., Any]:
    """For a plain function that autocast lists: its tensors are cast before it looks at them.

    An operation needs no such thing; a function that picks between operations, and checks dtypes
    itself, does.
    """
    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        return _run(_local.rec, fn, args, kwargs)

    call.body = fn                                           # type: ignore[attr-defined]
    return call


def _memo(rec: Any, head: Any, tensors: Sequence[Tensor], body: Callable[..., Any],
          args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Follow the edge of this call, or run its body and leave one."""
    _acquire()                  # `with LOCK` takes twice as long
    try:
        graph = rec.graph
        grad = rec.grad
        places = [head]
        for t in tensors:
            storage = t._storage
            if storage is not None and storage.version != t._version:
                t._sync()
            node = t._node
            owner, i = node.at
            if owner is not graph:
                value = node.value
                if type(value) is Buffer and value.shared and value.nbytes >= LARGE \
                        and may_look(rec, head, tensors):
                    # (A lambda's cells would slow down every other call.)
                    return look(rec, head, tensors, functools.partial(
                        _memo, rec, head, tensors, body, args, kwargs))
                i = rec.adopt(node)
            places.append(~i if grad and t._rg else i)
        key = tuple(places)
        try:
            edge = graph.state.edges.get(key)
        except TypeError:                                # an argument that cannot be hashed
            return _run(rec, body, args, kwargs)
        if edge is None:
            edge = _elsewhere(rec, key, tensors)
            if edge is None:
                return _first(rec, key, tensors, body, args, kwargs)
        graph.state = state = edge.state
        if edge.outs is None:
            result: Any = _new(Tensor)
            result._node = node = _new(Node)
            node.at = (graph, edge.index)
            node.spec = edge.spec
            graph.handles.append(node)
            if edge.rg:
                result._rg = True
        else:
            result = _unpack(graph, edge, tensors)
        if state.count > _record.MAX_STEPS and not rec.patient:
            _record.flush(rec)
        return result
    finally:
        _release()


_templates = Table(4096)


def _likeness(rec: Any, key: Any, tensors: Sequence[Tensor]) -> Any:
    """What decides, besides the path to it, what a call records: `key` with the operands'
    specs instead of their places."""
    return (key[0], rec.amp, alike(key[1:]), *[t._node.spec for t in tensors],
            *[t._strides for t in tensors])


def _elsewhere(rec: Any, key: Any, tensors: Sequence[Tensor]) -> Edge | None:
    """The edge of a call that is new at this place, made without its body if the same call has
    been recorded at another."""
    if rec.outer is not None or rec.watch is not None:
        return None
    template = _templates.get(_likeness(rec, key, tensors))
    if template is None:
        return None
    state = rec.graph.state
    edge = template.enter(rec, key[1:])
    rec.link(state, key, edge)
    return edge


def _run(rec: Any, body: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What a call does when it is not followed; under autocast its operands may be cast first."""
    return body(*args, **kwargs) if rec.amp is None else rec.amp.run(rec, body, args, kwargs)


def _unpack(graph: Any, edge: Edge, tensors: Sequence[Tensor]) -> Any:
    outs: list[Any] = []
    pack = edge.pack
    if pack is _Nodes:
        for item in edge.outs or ():
            if type(item) is int:
                outs.append(tensors[item]._node)
                continue
            node = _new(Node)
            node.at = (graph, item[0])
            node.spec = item[1]
            graph.handles.append(node)
            outs.append(node)
        return outs
    for item in edge.outs or ():
        if type(item) is int:
            outs.append(tensors[item])
            continue
        index, spec, rg = item
        out = _new(Tensor)
        out._node = node = _new(Node)
        node.at = (graph, index)
        node.spec = spec
        graph.handles.append(node)
        if rg:
            out._rg = True
        outs.append(out)
    if pack is None:
        return outs[0]
    return pack(outs) if pack is tuple or pack is list else pack(*outs)


def _first(rec: Any, key: Any, tensors: Sequence[Tensor], body: Callable[..., Any],
           args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Run the body; if the call can be repeated from its key alone, remember where it leads."""
    graph = rec.graph
    start = graph.state
    before = (len(graph.leaves), len(graph.functions), len(graph.hooks))
    # An operand that is not in this graph although it has been entered is there as a copy.
    rec.taken = graph, {t._node: ~i if i < 0 else i for t, i in zip(tensors, key[1:])
                        if t._node.at[0] is not graph}
    rec.depth += 1
    try:
        result = _run(rec, body, args, kwargs)
    finally:
        rec.depth -= 1
        rec.taken = None
    if rec.watch is not None:
        rec.watch.made(result)
    if rec.graph is not graph or (len(graph.leaves), len(graph.functions),
                                  len(graph.hooks)) != before:
        return result
    if isinstance(result, Tensor):
        outs = [result]
        pack: Any = None
    elif isinstance(result, (tuple, list)):
        outs = list(result)
        pack = type(result)
    else:
        return result
    items: list[Any] = []
    for out in outs:
        if not isinstance(out, Tensor):
            return result
        for k, t in enumerate(tensors):
            if out is t:
                items.append(k)
                break
        else:
            node = out._node
            if out._storage is not None or out._leaf or node.at[0] is not graph \
                    or node.value is not None:
                return result
            items.append((node.at[1], node.spec, out._rg))
    if pack is None and type(items[0]) is not int:
        index, spec, rg = items[0]
        edge = Edge(graph.state, index, spec, rg)
    else:
        edge = Edge(graph.state, outs=tuple(items), pack=pack)
    rec.link(start, key, edge)
    if rec.outer is None and rec.watch is None:
        template = cut(rec, start, graph.state, key[1:], items, pack)
        if template is not None:
            _templates.keep(_likeness(rec, key, tensors), template)
    if graph.state.count > _record.MAX_STEPS and not rec.depth and not rec.patient:
        _record.flush(rec)
    return result


class _Nodes(tuple[Any, ...]):
    """Results of which only the nodes are wanted."""


def _named(kind: str, key: Any, tensors: Sequence[Tensor], fn: Callable[..., Any],
           pack: type) -> Any:
    """`pack(fn(*tensors))`, recorded as one memoised step."""
    def body(*args: Tensor) -> Any:
        return pack(fn(*args))

    rec = _local.rec
    return body(*tensors) if rec.depth else _memo(rec, (kind, key), tensors, body, tensors, {})


def macro(key: Any, tensors: Sequence[Tensor], fn: Callable[..., Sequence[Tensor]]
          ) -> Sequence[Node]:
    """Record `fn(*tensors)`, a sequence of tensors, as one memoised step named by `key`.

    Returns the nodes of its results.  `key` is hashable and must tell apart whatever else `fn`
    depends on.  Raises what `fn` raises.
    """
    found = _named("macro", key, tensors, fn, _Nodes)
    return [t._node for t in found] if type(found) is _Nodes else found


def remembered(key: Any, tensors: Sequence[Tensor], fn: Callable[..., Sequence[Tensor]]
               ) -> tuple[Tensor, ...]:
    """`macro`, whose results are tensors: gradients flow through them."""
    found: tuple[Tensor, ...] = _named("remembered", key, tensors, fn, tuple)
    return found


def attach(name: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Make `fn` the method `name` of Tensor."""
    setattr(Tensor, name, fn)
    return fn


def sample(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """One sample call, for `samples=`."""
    return args, kwargs
