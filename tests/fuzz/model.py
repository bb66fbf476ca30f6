"""What the fuzzer's graphs mean, in plain NumPy.

NumPy's views are aliases and its writes happen at once, so these few functions are an oracle for
everything that facula does lazily.  They add to NumPy what PyTorch does differently: how dtypes
meet, and that 16-bit floating values are computed in float32 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = {"float32": np.dtype("f4"), "float64": np.dtype("f8"), "float16": np.dtype("f2"),
          "bfloat16": BF16, "int64": np.dtype("i8"), "int32": np.dtype("i4"),
          "uint8": np.dtype("u1"), "bool": np.dtype("?"), "complex64": np.dtype("c8")}
NAMES = {dtype: name for name, dtype in DTYPES.items()} | {np.dtype("c16"): "complex128"}
EPS = {"float32": 1.2e-7, "float64": 2.3e-16, "float16": 1e-3, "bfloat16": 8e-3,
       "complex64": 2.4e-7, "complex128": 5e-16}


def kind(dtype: Any) -> str:
    """b, i, f or c: the categories of promotion."""
    return "f" if dtype == BF16 else {"u": "i"}.get(dtype.kind, dtype.kind)


def _meet(a: Any, b: Any) -> Any:
    if a == b:
        return a
    ka, kb = "bifc".index(kind(a)), "bifc".index(kind(b))
    if 3 in (ka, kb):
        return np.dtype("c16") if np.dtype("f8") in (a, b) or np.dtype("c16") in (a, b) \
            else np.dtype("c8")
    if ka != kb:
        return a if ka > kb else b
    return np.dtype("f4") if BF16 in (a, b) and {a, b} & {BF16, np.dtype("f2")} == {a, b} \
        else np.dtype("f8") if np.dtype("f8") in (a, b) \
        else np.dtype("f4") if np.dtype("f4") in (a, b) else np.promote_types(a, b)


def result_dtype(*args: Any) -> Any:
    """PyTorch's promotion: arrays with dimensions, then 0-dim arrays, then Python numbers."""
    levels: list[Any] = [None, None, None]
    for a in args:
        if isinstance(a, np.ndarray):
            level, dtype = 0 if a.ndim else 1, a.dtype
        else:
            level = 2
            dtype = np.dtype({bool: "?", int: "i8", float: "f4", complex: "c8"}[type(a)])
        levels[level] = dtype if levels[level] is None else _meet(levels[level], dtype)
    best = None
    for dtype in levels:
        if dtype is None:
            continue
        if best is None:
            best = dtype
        elif kind(best) == "f" and kind(dtype) == "c":
            best = np.dtype("c16" if best == np.dtype("f8") else "c8")
        elif "bifc".index(kind(dtype)) > "bifc".index(kind(best)):
            best = _meet(best, dtype)
    return best


def up(a: Any) -> Any:
    return a.astype("f4") if a.dtype in (BF16, np.dtype("f2")) else a


def cast(a: Any, name: str) -> Any:
    return np.array(np.asarray(a).astype(DTYPES.get(name) or name), order="C")


def ew(fn: Callable[..., Any], *args: Any, floats: bool = False, same: bool = True) -> Any:
    """`fn` elementwise in the dtype that the arguments agree on."""
    dtype = result_dtype(*args)
    if floats and kind(dtype) in "bi":
        dtype = np.dtype("f4")
    got = np.asarray(fn(*[up(np.asarray(a).astype(dtype)) for a in args]))
    return np.array(got.astype(dtype) if same else got, order="C")


def fl(fn: Callable[..., Any], *args: Any) -> Any:
    """As `ew`, and integers become float32."""
    return ew(fn, *args, floats=True)


def cmp(fn: Callable[..., Any], *args: Any) -> Any:
    return ew(fn, *args, same=False)


def where(cond: Any, a: Any, b: Any) -> Any:
    dtype = result_dtype(a, b)
    a, b = (np.asarray(v).astype(dtype) for v in (a, b))
    return np.array(np.where(cond, a, b), order="C")


def reduce(fn: Callable[..., Any], a: Any, axis: Any, keepdims: bool = False) -> Any:
    return np.array(np.asarray(fn(up(a), axis=axis, keepdims=keepdims)).astype(a.dtype), order="C")


def total(a: Any, axis: Any, keepdims: bool = False) -> Any:
    """Sum; integers and bools count in int64."""
    dtype = np.dtype("i8") if kind(a.dtype) in "bi" else a.dtype
    wide = a.astype("f4" if a.dtype in (BF16, np.dtype("f2")) else dtype)
    return np.array(np.asarray(wide.sum(axis=axis, keepdims=keepdims)).astype(dtype), order="C")


def softmax(a: Any, axis: int) -> Any:
    x = up(a)
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.array((e / e.sum(axis=axis, keepdims=True)).astype(a.dtype), order="C")


def matmul(a: Any, b: Any) -> Any:
    dtype = result_dtype(a, b)
    product = np.matmul(up(a.astype(dtype)), up(b.astype(dtype)))
    return np.array(np.asarray(product).astype(dtype), order="C")


def put(target: Any, value: Any) -> None:
    """In-place: what `value` reads has been computed before anything is written."""
    target[...] = np.asarray(value).astype(target.dtype)


def put_at(target: Any, key: Any, value: Any, add: bool = False) -> None:
    """target[key] = value, with what overlaps read first."""
    value = np.array(value, copy=True)
    if add:
        value = ew(np.add, np.asarray(target[key]), value)
    target[key] = value.astype(target.dtype)


def add_at(target: Any, key: Any, value: Any) -> Any:
    """Sums in row-major order of the index, duplicates included; a new array."""
    wide = up(target).copy()
    np.add.at(wide, key, up(np.asarray(value)).astype(wide.dtype))
    return wide.astype(target.dtype)


def view(a: Any, shape: tuple[int, ...]) -> Any:
    """The same memory in another shape; ValueError where that needs a copy."""
    return np.reshape(a, shape, copy=False)


def strided(a: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> Any:
    flat = view(a, (-1,))
    return np.lib.stride_tricks.as_strided(flat[offset:], shape,
                                           [s * a.itemsize for s in strides])


def expand(a: Any, shape: tuple[int, ...]) -> Any:
    wide = np.broadcast_to(a, shape)
    return np.lib.stride_tricks.as_strided(a, shape, wide.strides)


def scatter(target: Any, axis: int, index: Any, src: Any, add: bool) -> Any:
    """torch.scatter / scatter_add: a new array."""
    out = up(target).copy()
    for place in np.ndindex(*index.shape):
        to = place[:axis] + (int(index[place]),) + place[axis + 1:]
        out[to] = out[to] + up(src)[place] if add else up(src)[place]
    return np.array(out.astype(target.dtype), order="C")


def erf(a: Any) -> Any:
    return np.vectorize(math.erf, otypes=[a.dtype])(a) if a.size else a


def erfinv(a: Any) -> Any:
    """The inverse of erf on [-0.9, 0.9], by Newton's method."""
    wide = np.asarray(a, "f8")
    x = wide * math.sqrt(math.pi) / 2
    for _ in range(30):
        x = x - (erf(x) - wide) * math.sqrt(math.pi) / 2 * np.exp(x * x)
    return x.astype(a.dtype)


def lgamma(a: Any) -> Any:
    return np.vectorize(math.lgamma, otypes=[a.dtype])(a) if a.size else a


def erfc(a: Any) -> Any:
    return np.vectorize(math.erfc, otypes=[a.dtype])(a) if a.size else a


def sigmoid(a: Any) -> Any:
    return 1 / (1 + np.exp(-a))


def trig(a: Any, k: int, lower: bool) -> Any:
    return np.array((np.tril if lower else np.triu)(a, k), order="C")
