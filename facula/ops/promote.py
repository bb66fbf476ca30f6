"""Which dtype and shape an operation on several operands works in: PyTorch's rules.

The dtypes fall into categories, bool < integer < floating < complex.  Tensors with dimensions
decide first, then zero-dim tensors, then Python numbers; a later kind only raises the result
when it is of a higher category than all before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula import dtypes as _d
from facula.dtype import DType
from facula.errors import BroadcastError, DTypeError, FaculaError
from facula.graph import record as _record
from facula.graph.record import LOCK, THREADS, Graph, State, _local
from facula.graph.spec import freeze_number
from facula.graph.template import forget
from facula.storage import Size
from facula.tensor import Tensor, prim

__all__ = ["promote_types", "result_type", "can_cast", "get_default_dtype", "set_default_dtype",
           "broadcast_shapes", "broadcast_tensors_to", "operands", "common_dtype", "cast",
           "full_like", "float_dtype", "type_name", "number_dtype", "expand_to", "as_float",
           "wrap_integer", "is_number"]

_ORDER = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}

_C_NAMES = {"bool": "Bool", "uint8": "Byte", "int8": "Char", "int16": "Short", "int32": "Int",
            "int64": "Long", "uint16": "UInt16", "uint32": "UInt32", "uint64": "UInt64",
            "float16": "Half", "bfloat16": "BFloat16", "float32": "Float", "float64": "Double",
            "complex64": "ComplexFloat", "complex128": "ComplexDouble",
            "float8_e4m3fn": "Float8_e4m3fn", "float8_e5m2": "Float8_e5m2",
            "float8_e4m3fnuz": "Float8_e4m3fnuz", "float8_e5m2fnuz": "Float8_e5m2fnuz"}


def type_name(dtype: DType) -> str:
    """PyTorch's word for a dtype in its messages: 'Float', 'Long', ..."""
    return _C_NAMES[dtype.name]


# ---------------------------------------------------------------- the default floating dtype

_default: DType = _d.float32


def get_default_dtype() -> DType:
    """The floating dtype of Python floats and of results computed from integers."""
    return _default


def set_default_dtype(dtype: DType) -> None:
    """Make `dtype` (a floating dtype) the one that Python floats become."""
    global _default
    if not isinstance(dtype, DType) or not dtype.is_floating_point:
        raise DTypeError("only floating-point types are supported as the default type")
    if dtype is _default:
        return
    _default = dtype
    # What any thread has recorded so far was settled under the old default: start new tries.
    with LOCK:
        for rec in {*THREADS, _local.rec}:
            _record.flush(rec)
            rec.root, rec.states = State(None, ()), 0
            if not rec.graph.handles and not rec.graph.leaves:
                rec.graph = Graph(rec.root, rec)
        forget()


def float_dtype(dtype: DType) -> DType:
    """The dtype a true division or an exponential of this dtype is computed in."""
    return dtype if dtype.kind in "fc" else _default


# ---------------------------------------------------------------- promotion

def _signed_of(bits: int) -> DType:
    return {8: _d.int8, 16: _d.int16, 32: _d.int32, 64: _d.int64}[bits]


def _promote(a: DType, b: DType) -> DType:
    if a is b:
        return a
    if a.is_compact or b.is_compact:
        raise FaculaError("Promotion for Float8 Types is not supported, attempted to promote "
                          f"{type_name(a)} and {type_name(b)}: convert one with .to(dtype)")
    if _ORDER[a.kind] > _ORDER[b.kind]:
        a, b = b, a
    if b.kind == "c":
        if a.name in ("float64", "complex128") or b.name == "complex128":
            return _d.complex128
        return _d.complex64
    if a.kind == "b" or (b.kind == "f" and a.kind != "f"):
        return b
    if b.kind == "f":                              # two different floating dtypes
        if a.itemsize == b.itemsize:
            return _d.float32
        return a if a.itemsize > b.itemsize else b
    if a.kind == b.kind:
        return a if a.itemsize > b.itemsize else b
    unsigned, signed = (a, b) if a.kind == "u" else (b, a)
    if signed.itemsize > unsigned.itemsize:
        return signed
    if unsigned.itemsize == 8:
        raise DTypeError("Promotion for uint64 with signed integers is not supported: no integer "
                         "dtype holds the values of both. Convert one operand with .to(dtype)")
    return _signed_of(16 * unsigned.itemsize)


_table: dict[tuple[DType, DType], DType] = {}


def promote_types(type1: DType, type2: DType) -> DType:
    """The smallest dtype that both can be converted to without losing their category."""
    found = _table.get((type1, type2))
    if found is None:
        found = _table[type1, type2] = _promote(type1, type2)
    return found


def is_number(value: Any) -> bool:
    """Whether `value` is a Python or NumPy number."""
    return isinstance(value, (bool, int, float, complex)) or (
        hasattr(value, "dtype") and hasattr(value, "item") and not isinstance(value, Tensor)
        and getattr(value, "shape", None) == ())


def number_dtype(value: Any) -> DType:
    """The dtype a Python number has by itself."""
    if isinstance(value, bool):
        return _d.bool_
    if isinstance(value, int):
        return _d.int64
    if isinstance(value, float):
        return _default
    if isinstance(value, complex):
        return _default.to_complex()
    raise DTypeError(f"expected a number, got {type(value).__name__}")


def _combine(higher: DType | None, lower: DType | None) -> DType | None:
    if higher is None or lower is None:
        return higher or lower
    if higher.kind == "c":
        return higher
    if higher.kind == "f":
        return higher.to_complex() if lower.kind == "c" else higher
    if higher.kind == "b" or lower.kind in "fc":
        return promote_types(higher, lower)
    return higher


def common_dtype(values: Sequence[Any]) -> DType:
    """The dtype in which an operation on these tensors and Python numbers is carried out."""
    with_dims = zero_dim = numbers = None
    for v in values:
        if isinstance(v, Tensor):
            d = v._node.spec.dtype
            if v._node.spec.shape:
                with_dims = d if with_dims is None else promote_types(with_dims, d)
            else:
                zero_dim = d if zero_dim is None else promote_types(zero_dim, d)
        else:
            d = number_dtype(v)
            numbers = d if numbers is None else promote_types(numbers, d)
    found = _combine(with_dims, _combine(zero_dim, numbers))
    assert found is not None
    return found


def result_type(tensor1: Any, tensor2: Any) -> DType:
    """The dtype of an arithmetic result of two operands, each a tensor or a number."""
    return common_dtype((tensor1, tensor2))


def can_cast(from_: DType, to: DType) -> bool:
    """Whether a result of dtype `from_` may be stored in a tensor of dtype `to`."""
    if from_.kind == "c" and to.kind != "c":
        return False
    if from_.kind == "f" and to.kind in "bui":
        return False
    return not (from_.kind != "b" and to.kind == "b")


def wrap_integer(value: int, dtype: DType) -> int:
    """`value` as it reads when stored in an integer dtype: modulo its width."""
    if dtype.kind in "ui":
        bits = 8 * dtype.itemsize
        value &= (1 << bits) - 1
        if dtype.kind == "i" and value >> (bits - 1):
            value -= 1 << bits
    return value


# ---------------------------------------------------------------- shapes

def broadcast_shapes(*shapes: Any) -> Size:
    """The shape that tensors of these shapes broadcast to; BroadcastError if they do not.

    An int stands for a shape of one dimension.
    """
    for s in shapes:
        if type(s) is int:
            return broadcast_shapes(*[(s,) if isinstance(s, int) else s for s in shapes])
    ndim = max((len(s) for s in shapes), default=0)
    out = [1] * ndim
    for s in shapes:
        lead = ndim - len(s)
        for k, n in enumerate(s):
            have = out[lead + k]
            if n == have or n == 1:
                continue
            if have != 1:
                _cannot_broadcast(shapes, lead + k)
            out[lead + k] = n
    return Size(out)


def _cannot_broadcast(shapes: Sequence[Sequence[int]], dim: int) -> None:
    sizes = []
    ndim = max(len(s) for s in shapes)
    for s in shapes:
        k = dim - (ndim - len(s))
        if k >= 0 and s[k] != 1 and s[k] not in sizes:
            sizes.append(s[k])
    text = " and ".join(str(tuple(s)) for s in shapes)
    raise BroadcastError(
        f"The size of tensor a ({sizes[0]}) must match the size of tensor b ({sizes[1]}) at "
        f"non-singleton dimension {dim}: shapes {text} cannot be broadcast together. Dimensions "
        "are compared from the last; insert one of size 1 with unsqueeze(dim) where they should "
        "repeat")


def expand_to(t: Tensor, shape: Sequence[int]) -> Tensor:
    """`t` repeated to `shape`, which it broadcasts to."""
    have = t._node.spec.shape
    shape = tuple(shape)
    if have == shape:
        return t
    if len(have) != len(shape):
        have = (1,) * (len(shape) - len(have)) + have
        t = prim("reshape", t, shape=have)
    return t if have == shape else prim("expand", t, shape=shape)


def cast(t: Tensor, dtype: DType) -> Tensor:
    """`t` in `dtype`; `t` itself when it has it."""
    return t if t._node.spec.dtype is dtype else prim("cast", t, dtype=dtype)


def as_float(t: Tensor) -> Tensor:
    """`t`, an integer or bool tensor in the default floating dtype."""
    d = t._node.spec.dtype
    return t if d.kind in "fc" else prim("cast", t, dtype=_default)


def full_like(t: Tensor, value: Any, dtype: DType | None = None) -> Tensor:
    """A constant of the shape of `t`."""
    s = t._node.spec
    return prim("full", attrs=(freeze_number(value),), shape=s.shape, dtype=dtype or s.dtype)


def broadcast_tensors_to(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors, each repeated to their common shape (fresh values, not views)."""
    shape = broadcast_shapes(*(t._node.spec.shape for t in tensors))
    return [expand_to(t, shape) for t in tensors]


def operands(*values: Any, floating: bool = False) -> list[Tensor]:
    """Tensors and numbers as tensors of one dtype and one shape; numbers become constants.

    With `floating`, integers are computed in the default floating dtype.
    """
    dtype = common_dtype(values)
    if floating:
        dtype = float_dtype(dtype)
    shape = broadcast_shapes(*(v._node.spec.shape for v in values if isinstance(v, Tensor)))
    return [expand_to(cast(v, dtype), shape) if isinstance(v, Tensor)
            else prim("full", attrs=(freeze_number(v),), shape=tuple(shape), dtype=dtype)
            for v in values]
