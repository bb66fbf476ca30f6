"""What tests are written with, under the names of `torch.testing`.

    facula.testing.assert_close(actual, expected)
    x = facula.testing.make_tensor(3, 4, dtype=facula.float32, low=0)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import facula
from facula import dtypes
from facula.device import check_device
from facula.dtype import DType
from facula.tensor import Tensor

__all__ = ["assert_close", "make_tensor"]

_TOLERANCES: dict[str, tuple[float, float]] = {
    "float16": (1e-3, 1e-5), "bfloat16": (1.6e-2, 1e-5), "float32": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7), "complex64": (1.3e-6, 1e-5), "complex128": (1e-7, 1e-7)}
"""rtol and atol by dtype, PyTorch's; all others are compared exactly."""

_Message = str | Callable[[str], str] | None


class _Settings:
    """How one call compares."""

    def __init__(self, rtol: float | None, atol: float | None, **flags: Any):
        if (rtol is None) != (atol is None):
            raise ValueError("rtol and atol must both be specified or both be unspecified, but "
                             f"got rtol={rtol} and atol={atol}")
        self.rtol, self.atol = rtol, atol
        self.subclasses: bool = flags["allow_subclasses"]
        self.equal_nan: bool = flags["equal_nan"]
        self.dtype: bool = flags["check_dtype"]
        self.stride: bool = flags["check_stride"]

    def tolerances(self, *names: str) -> tuple[float, float]:
        """Those that were given, or the larger ones of the dtypes."""
        if self.rtol is not None and self.atol is not None:
            return self.rtol, self.atol
        pairs = [_TOLERANCES.get(n, (0.0, 0.0)) for n in names]
        return max(p[0] for p in pairs), max(p[1] for p in pairs)


def assert_close(actual: Any, expected: Any, *, allow_subclasses: bool = True,
                 rtol: float | None = None, atol: float | None = None, equal_nan: bool = False,
                 check_device: bool = True, check_dtype: bool = True, check_layout: bool = True,
                 check_stride: bool = False, msg: _Message = None) -> None:
    """Assert |actual - expected| <= atol + rtol |expected|, element by element.

    For tensors, arrays, numbers, None, and sequences and mappings of them.  Without `rtol` and
    `atol` the dtype decides: 1.3e-6 and 1e-5 for float32, 1e-7 and 1e-7 for float64, 0 for
    integers.  `msg` replaces the message, or is a function of it.

    Raises an AssertionError that says how many elements differ, by how much and where; a
    ValueError for one tolerance without the other; a TypeError for what cannot be compared.
    """
    settings = _Settings(rtol, atol, allow_subclasses=allow_subclasses, equal_nan=equal_nan,
                         check_dtype=check_dtype, check_stride=check_stride)
    found = _compare(actual, expected, settings, ())
    if found is not None:
        text = found if msg is None else msg(found) if callable(msg) else msg
        raise AssertionError(text)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (bool, int, float, complex, np.number, np.bool_))


def _at(text: str, path: tuple[Any, ...]) -> str:
    if not path:
        return text
    return f"{text}\n\nThe failure occurred for item {''.join(f'[{k!r}]' for k in path)}"


def _compare(a: Any, b: Any, s: _Settings, path: tuple[Any, ...]) -> str | None:
    """What is wrong, as a text, or None."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return _mappings(a, b, s, path)
    if all(isinstance(x, Sequence) and not isinstance(x, (str, bytes)) for x in (a, b)):
        if len(a) != len(b):
            return _at(f"The length of the sequences mismatch: {len(a)} != {len(b)}", path)
        for k, (x, y) in enumerate(zip(a, b)):
            found = _compare(x, y, s, (*path, k))
            if found is not None:
                return found
        return None
    if a is None or b is None:
        return None if a is b else _at(f"None mismatch: {a} is not {b}", path)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if not s.subclasses and type(a) is not type(b):
            raise TypeError(f"allow_subclasses=False, and the types differ: {type(a)} and "
                            f"{type(b)}")
        found = _attributes(a, b, s)
        return _at(found, path) if found else _tensors(a, b, s, path)
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return _compare(facula.tensor(a), facula.tensor(b), s, path)
    if _is_scalar(a) and _is_scalar(b):
        return _scalars(a, b, s, path)
    raise TypeError(_at("assert_close compares tensors, arrays, numbers, None, and sequences and "
                        f"mappings of them, two of a kind, and got {type(a)} and {type(b)}.",
                        path))


def _mappings(a: Any, b: Any, s: _Settings, path: tuple[Any, ...]) -> str | None:
    missing, more = sorted(b.keys() - a.keys(), key=str), sorted(a.keys() - b.keys(), key=str)
    if missing or more:
        return _at("The keys of the mappings do not match:\n"
                   f"Missing keys in the actual mapping: {missing}\n"
                   f"Additional keys in the actual mapping: {more}", path)
    for key in a:
        found = _compare(a[key], b[key], s, (*path, key))
        if found is not None:
            return found
    return None


def _attributes(a: Tensor, b: Tensor, s: _Settings) -> str | None:
    def differ(name: str, x: Any, y: Any) -> str:
        return f"The values for attribute '{name}' do not match: {x} != {y}."

    if a.shape != b.shape:
        return differ("shape", a.shape, b.shape)
    if s.dtype and a.dtype is not b.dtype:
        return differ("dtype", a.dtype, b.dtype)
    if s.stride and a.stride() != b.stride():
        return differ("stride()", a.stride(), b.stride())
    return None


def _wide(x: Any) -> np.ndarray:
    """Integers as Python's where float64 would round them, else in double precision."""
    value = np.asarray(x)
    if value.dtype.kind == "O":             # one that NumPy has no dtype for
        return value
    if value.dtype.kind == "c":
        return value.astype(np.complex128)
    if value.dtype.kind in "iu":
        return value.astype(object) if value.dtype.itemsize == 8 else value.astype(np.int64)
    return value.astype(np.int64 if value.dtype.kind == "b" else np.float64)


def _differences(a: np.ndarray, b: np.ndarray, rtol: float, atol: float, equal_nan: bool
                 ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which elements are close; absolute and relative differences."""
    with np.errstate(all="ignore"):
        equal = np.asarray(a == b, bool)
        gap = np.where(equal, 0, abs(a - b)).astype(np.float64)
        size = np.asarray(abs(b)).astype(np.float64)
        relative = np.where(gap == 0, 0.0, gap / size)
        close = equal | (np.isfinite(gap) & np.isfinite(size) & (gap <= atol + rtol * size))
    if equal_nan and a.dtype.kind in "fc" and b.dtype.kind in "fc":
        both = np.isnan(a) & np.isnan(b)
        close, gap, relative = close | both, np.where(both, 0, gap), np.where(both, 0, relative)
    return close, gap, relative


def _allowed(amount: float) -> str:
    return f" (up to {amount} allowed)" if amount else ""


def _tensors(a: Tensor, b: Tensor, s: _Settings, path: tuple[Any, ...]) -> str | None:
    rtol, atol = s.tolerances(a.dtype.name, b.dtype.name)
    x, y = (_wide(t.detach().cpu().numpy()) for t in (a, b))
    close, gap, relative = _differences(x, y, rtol, atol, s.equal_nan)
    if close.all():
        return None
    exact = rtol == atol == 0
    if not a.ndim:
        return _at(_one("Scalars", a.item(), b.item(), float(gap), float(relative), rtol, atol),
                   path)

    def worst(name: str, values: np.ndarray, amount: float, whole: bool) -> str:
        order = np.where(close, -1.0, np.where(np.isnan(values), np.inf, values))
        at = np.unravel_index(int(order.argmax()), order.shape)
        shown = int(values[at]) if whole and np.isfinite(values[at]) else float(values[at])
        place = tuple(int(k) for k in at)
        return f"Greatest {name} difference: {shown} at index {place}{_allowed(amount)}"

    wrong = int((~close).sum())
    whole = a.dtype.kind in "iub" and b.dtype.kind in "iub"
    return _at("\n".join([
        f"Tensor-likes are not {'equal' if exact else 'close'}!", "",
        f"Mismatched elements: {wrong} / {close.size} ({100 * wrong / close.size:.1f}%)",
        worst("absolute", gap, atol, whole), worst("relative", relative, rtol, False)]), path)


def _one(what: str, a: Any, b: Any, gap: float, relative: float, rtol: float, atol: float
         ) -> str:
    exact = rtol == atol == 0
    return "\n".join([
        f"{what} are not {'equal' if exact else 'close'}!", "", f"Expected {b} but got {a}.",
        f"Absolute difference: {gap}{_allowed(atol)}",
        f"Relative difference: {relative}{_allowed(rtol)}"])


def _scalars(a: Any, b: Any, s: _Settings, path: tuple[Any, ...]) -> str | None:
    a, b = (x.item() if isinstance(x, np.generic) else x for x in (a, b))
    if isinstance(a, bool) and isinstance(b, bool):
        return None if a is b else _at(f"Booleans mismatch: {a} is not {b}", path)
    if s.dtype and type(a) is not type(b):
        return _at(f"The (d)types do not match: {type(a)} != {type(b)}.", path)
    names = ["complex128" if isinstance(x, complex) else "float64" if isinstance(x, float)
             else "int64" for x in (a, b)]
    rtol, atol = s.tolerances(*names)
    close, gap, relative = _differences(_wide(a), _wide(b), rtol, atol, s.equal_nan)
    if close.all():
        return None
    return _at(_one("Scalars", a, b, float(gap), float(relative), rtol, atol), path)


# ---------------------------------------------------------------- tensors for tests

def _bounds(dtype: DType, low: float | None, high: float | None) -> tuple[Any, Any]:
    """The bounds, within what the dtype holds; `high` is excluded."""
    kind = dtype.kind
    if kind == "b":
        least, most, default = 0, 2, (0, 2)
    elif kind in "ui":
        info = facula.iinfo(dtype)
        least, most, default = info.min, info.max + 1, (0 if kind == "u" else -9, 10)
    else:
        limits = facula.finfo(dtype)
        least, most, default = limits.min, limits.max, (-9, 9)
    low = default[0] if low is None else low
    high = default[1] if high is None else high
    if math.isnan(low) or math.isnan(high):
        raise ValueError(f"`low` and `high` cannot be NaN, but got low={low} and high={high}")
    if low > high or (low == high and kind in "uib"):
        raise ValueError(f"`low` must be less than `high`, but got low={low} and high={high}")
    low, high = max(low, least), min(high, most)
    if kind in "uib":
        low, high = math.ceil(low), math.ceil(high)
    if low > high or (low == high and kind in "uib"):
        raise ValueError(f"no {dtype.name} lies between the given bounds")
    return low, high


def make_tensor(*shape: Any, dtype: DType, device: Any = None, low: float | None = None,
                high: float | None = None, requires_grad: bool = False,
                noncontiguous: bool = False, exclude_zero: bool = False,
                memory_format: Any = None) -> Tensor:
    """A tensor of uniform random numbers in [low, high).

    The bounds are -9 and 9 for floating and complex dtypes (both parts), -9 and 10 for
    integers, 0 and 10 for unsigned ones, 0 and 2 for bool, unless given.  `exclude_zero`
    replaces 0 by 1 or the smallest normal number; `noncontiguous` gives every other element of a
    tensor twice as long.

    Raises a ValueError for bounds in the wrong order or without a number between them, for
    `requires_grad` of integers, and for `noncontiguous` with a `memory_format`.
    """
    check_device(device)
    if len(shape) == 1 and isinstance(shape[0], Sequence):
        shape = tuple(shape[0])
    if requires_grad and dtype.kind not in "fc":
        raise ValueError(f"`requires_grad` must be False for {dtype.name}: integers have no "
                         "gradient")
    if noncontiguous and memory_format is not None:
        raise ValueError("The parameters `noncontiguous` and `memory_format` are mutually "
                         "exclusive")
    low, high = _bounds(dtype, low, high)
    spread = noncontiguous and math.prod(shape) > 1
    drawn = (*shape[:-1], 2 * shape[-1]) if spread else tuple(shape)
    if dtype.kind in "uib":
        out = facula.randint(low, high, drawn, dtype=dtypes.int64
                             if dtype.kind == "b" else dtype).to(dtype)
    else:
        real = dtype.to_real() if dtype.kind == "c" else dtype
        parts = [_uniform(drawn, low, high, real) for _ in range(1 + (dtype.kind == "c"))]
        out = facula.complex(*parts) if dtype.kind == "c" else parts[0]
    if exclude_zero:
        least = 1 if dtype.kind in "uib" else facula.finfo(dtype).tiny
        out = out.where(out != 0, facula.full((), least, dtype=dtype))
    if spread:
        out = out.clone()[..., ::2]
    if memory_format is not None:
        out = out.clone(memory_format=memory_format)
    return out.requires_grad_(True) if requires_grad else out


def _uniform(shape: tuple[int, ...], low: float, high: float, dtype: DType) -> Tensor:
    wide = facula.rand(shape, dtype=dtypes.float64)
    # Each term by itself: the distance of the bounds may be beyond the largest number.
    return ((1 - wide) * low + wide * high).clamp(min=low, max=high).to(dtype)
