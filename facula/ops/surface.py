"""How operators on tensors are declared: one primitive each, on the shortest way to it.

Two tensors of one spec record the primitive itself.  A tensor and a Python number record a
runtime scalar (so a number that changes, such as a learning rate, keeps the program) and one
memoised edge.  Everything else goes through the general body: promotion, broadcast, primitive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from facula.dtype import DType, bool_, float32, int64
from facula.errors import DTypeError
from facula.graph import record as _record
from facula.graph.record import LOCK, Edge, Node, _local
from facula.graph.spec import freeze_number
from facula.ops import promote
from facula.ops.define import _T, OPS, OpRecord, _memo, attach
from facula.ops.given import in_place, into
from facula.ops.promote import cast, expand_to, operands, wrap_integer
from facula.tensor import Tensor, prim, scalar

__all__ = ["binary", "unary", "public", "called", "zero_dim", "need_tensors", "number_operand",
           "Binary"]

Binary = Callable[[Any, Any], Any]
_new = object.__new__
_acquire, _release = LOCK.acquire, LOCK.release
_NONE: dict[str, Any] = {}


def public(fn: Callable[..., Any], name: str, family: str, *, method: bool | str = True,
           inplace: bool = False, samples: Any = None, differentiable: bool = True,
           aliases: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Enter `fn`, a plain function that picks between operations, into the registry."""
    for each in (name, *aliases):
        attr = (method if isinstance(method, str) else each) if method else None
        OPS[each] = OpRecord(each, fn, fn, family, attr, inplace,
                             samples if each == name else None, differentiable)
        if attr:
            attach(attr, fn)
        if inplace:
            attach(f"{each}_", in_place(fn, each))
    return fn


# ---------------------------------------------------------------- numbers

def _scalar_dtype(dtype: DType, value: Any) -> DType:
    """The dtype in which a tensor of `dtype` meets the Python number `value`."""
    kind = dtype.kind
    if isinstance(value, bool):
        return dtype
    if isinstance(value, int):
        return int64 if kind == "b" else dtype
    if isinstance(value, float):
        return dtype if kind in "fc" else promote.get_default_dtype()
    if kind == "f":
        return dtype.to_complex()
    return dtype if kind == "c" else promote.get_default_dtype().to_complex()


def number_operand(value: Any, dtype: DType) -> Any:
    """The Python number as it is stored in `dtype`."""
    kind = dtype.kind
    if kind == "f":
        return float(value)
    if kind in "ui":
        return wrap_integer(int(value), dtype)
    return complex(value) if kind == "c" else bool(value)


def _foreign(value: Any) -> Any:
    """A NumPy number as a Python one, an array as a tensor; None for anything else."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        from facula.tensor import from_array
        return from_array(value, copy=True)
    return None


# ---------------------------------------------------------------- operators of two operands

def binary(name: str, primitive: str, kinds: str, *, floating: bool = False,
           wide: bool = False, bools: str | None = None,
           refuse: Callable[[DType], None] | None = None) -> Binary:
    """An operator `fn(a, b)` over `primitive`; it returns NotImplemented for foreign operands.

    kinds     dtype kinds in which two tensors of equal spec go straight to the primitive
    floating  integers are computed in the default floating dtype
    wide      16-bit floats meet Python numbers in float32, so that the number is not rounded
    bools     the primitive that bool operands use instead
    refuse    called with the common dtype; raises for those the operator is not defined on
    """
    def body(a: Tensor, b: Tensor) -> Tensor:
        a, b = operands(a, b, floating=floating)
        dtype = a._node.spec.dtype
        if refuse is not None:
            refuse(dtype)
        if bools is not None and dtype is bool_:
            return prim(bools, a, b)
        return prim(primitive, a, b)

    def half_body(a: Tensor, b: Tensor) -> Tensor:
        """One operand is the 0-dim float32 number, the other 16-bit floating."""
        first = a._node.spec.dtype is not float32
        t = (a if first else b)._node.spec
        x = expand_to(cast(a, float32), t.shape)
        y = expand_to(cast(b, float32), t.shape)
        return prim("cast", prim(primitive, x, y), dtype=t.dtype)

    body.__name__ = body.__qualname__ = name
    half_body.__name__ = half_body.__qualname__ = f"{name}_half"
    head = (body, _T, _T)
    half_head = (half_body, _T, _T)
    number_head = (body, "number")

    def with_number(t: Tensor, value: Any, left: bool) -> Any:
        own = t._node.spec
        dtype = own.dtype
        rec = _local.rec
        if wide and dtype.itemsize == 2 and dtype.kind == "f" and not isinstance(value, complex):
            s = scalar(float(value), float32)
            pair = (t, s) if left else (s, t)
            if rec.depth:
                return half_body(*pair)
            return _memo(rec, half_head, pair, half_body, pair, _NONE)
        if dtype.kind != "f" or type(value) is complex:
            dtype = _scalar_dtype(dtype, value)
            if floating and dtype.kind in "bui":
                dtype = promote.get_default_dtype()
        value = number_operand(value, dtype)
        if rec.depth:
            s = prim("full", attrs=(freeze_number(value),), shape=own.shape, dtype=dtype)
            return body(cast(t, dtype), s) if left else body(s, cast(t, dtype))
        return _step(rec, t, value, dtype, left)

    def _step(rec: Any, t: Tensor, value: Any, dtype: DType, left: bool) -> Any:
        """The number and the operation that reads it, entered as one edge of the trie."""
        _acquire()
        try:
            storage = t._storage
            if storage is not None and storage.version != t._version:
                t._sync()
            graph = rec.graph
            node: Any = t._node
            owner, i = node.at
            if owner is not graph:
                if getattr(node.value, "shared", False):
                    # Memory that others write is copied at each use, or read now.
                    s = scalar(value, dtype)
                    pair = (t, s) if left else (s, t)
                    return _memo(rec, head, pair, body, pair, _NONE)
                i = rec.adopt(node)
            start = graph.state
            key = (number_head, left, dtype, ~i if t._rg and rec.grad else i)
            edge = start.edges.get(key)
            if edge is None:
                entered = len(graph.leaves)
                s = scalar(value, dtype)
                pair = (t, s) if left else (s, t)
                result = _memo(rec, head, pair, body, pair, _NONE)
                at = result._node.at
                # A view of memory that others write is entered anew, and cannot be followed.
                alone = rec.graph is graph and len(graph.leaves) == entered + 1
                if alone and at[0] is graph and result._node.value is None:
                    rec.link(start, key, Edge(graph.state, at[1], result._node.spec, result._rg,
                                              pack=(start.count, s._node.spec)))
                return result
            graph.state = edge.state
            place, number_spec = edge.pack
            number = _new(Node)
            number.at = (graph, place)
            number.spec = number_spec
            number.value = value
            graph.leaves.append((place, number))
            out: Any = _new(Tensor)
            out._node = node = _new(Node)
            node.at = (graph, edge.index)
            node.spec = edge.spec
            graph.handles.append(node)
            if edge.rg:
                out._rg = True
            if edge.state.count > _record.MAX_STEPS:
                _record.flush(rec)
            return out
        finally:
            _release()

    def fn(a: Any, b: Any) -> Any:
        if isinstance(b, Tensor):
            if isinstance(a, Tensor):
                same = a._node.spec
                if same is b._node.spec and same.dtype.kind in kinds:
                    return prim(primitive, a, b)
                rec = _local.rec
                if rec.depth:
                    return body(a, b)
                pair = (a, b)
                return _memo(rec, head, pair, body, pair, _NONE)
            if isinstance(a, (float, int, complex)):
                return with_number(b, a, False)
            a = _foreign(a)
        elif isinstance(b, (float, int, complex)):
            if isinstance(a, Tensor):
                return with_number(a, b, True)
            a = _foreign(a)
        else:
            b = _foreign(b)
            if b is not None and isinstance(a, Tensor):
                return fn(a, b)
            a = None
        return NotImplemented if a is None or b is None else fn(a, b)

    fn.__name__ = fn.__qualname__ = name
    return fn


def called(name: str, fn: Binary, doc: str, tensors: str = "") -> Callable[..., Any]:
    """The public function of an operator: `name(input, other, *, out=None)`.

    `tensors` says which operands have to be tensors: 'first', 'both', '' for one of the two, or
    'none', where the result of two numbers is a zero-dim tensor.
    """
    need = tensors in ("first", "both")

    def call(input: Any, other: Any, *, out: Tensor | None = None) -> Any:
        if need:
            need_tensors(name, input, other if tensors == "both" else input)
        result = fn(input, other)
        if result is NotImplemented and tensors == "none":
            result = fn(*zero_dim(input, other))
        if result is NotImplemented:
            wrong = other if isinstance(input, Tensor) else input
            raise TypeError(f"{name}(): expected tensors or numbers, got "
                            f"{type(wrong).__name__}")
        return result if out is None else into(out, result)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = doc
    return call


def zero_dim(*operands: Any) -> list[Any]:
    """The operands; if all are Python numbers, each as a zero-dim tensor of its own dtype."""
    if not all(isinstance(v, (int, float, complex)) for v in operands):
        return list(operands)
    from facula.ops.from_data import as_tensor
    return [as_tensor(v) for v in operands]


def need_tensors(name: str, input: Any, other: Any) -> None:
    """Raise a TypeError unless both operands are tensors."""
    for k, (what, v) in enumerate((("input", input), ("other", other))):
        if not isinstance(v, Tensor):
            raise TypeError(f"{name}(): argument '{what}' (position {k + 1}) must be Tensor, not "
                            f"{type(v).__name__}")


# ---------------------------------------------------------------- functions of one operand

def unary(name: str, primitive: str | None = None, *, floating: bool = False,
          ints: str | None = None, refuse: Callable[[DType], None] | None = None,
          doc: str = "") -> Callable[..., Any]:
    """A function `fn(input, *, out=None)` over `primitive`.

    floating  integers are computed in the default floating dtype
    ints      the primitive that integers and bools use instead ('alias' for those unchanged)
    refuse    called with the dtype; raises for those it is not defined on
    """
    primitive = primitive or name

    def fn(input: Tensor, *, out: Tensor | None = None) -> Tensor:
        if not isinstance(input, Tensor):
            raise TypeError(f"{name}(): argument 'input' must be Tensor, not "
                            f"{type(input).__name__}")
        dtype = input._node.spec.dtype
        if refuse is not None:
            refuse(dtype)
        if dtype.kind in "bui" and (floating or ints is not None):
            result = (prim(ints, input) if ints is not None
                      else prim(primitive, prim("cast", input,
                                                dtype=promote.get_default_dtype())))
        else:
            result = prim(primitive, input)
        return result if out is None else into(out, result)

    fn.__name__ = fn.__qualname__ = name
    fn.__doc__ = doc
    return fn


def only(name: str, kinds: str) -> Callable[[DType], None]:
    """A `refuse` that lets only these dtype kinds through."""
    def refuse(dtype: DType) -> None:
        if dtype.kind not in kinds:
            raise DTypeError(f'"{name}" not implemented for \'{promote.type_name(dtype)}\'')
    return refuse
