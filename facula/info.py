"""The limits of dtypes: `finfo` and `iinfo`."""

from __future__ import annotations

from typing import Any

from facula.dtype import DType
from facula.ops.promote import get_default_dtype

__all__ = ["finfo", "iinfo"]

_EXPONENTS = {"float16": (10, 5), "bfloat16": (7, 8), "float32": (23, 8), "float64": (52, 11)}


class finfo:
    """Limits of a floating dtype, the default one unless given.

    bits, eps (from 1 to the next number), max, min, tiny (the smallest normal number),
    smallest_normal, resolution, dtype.  Of complex dtypes those of their parts.
    """

    def __init__(self, type: DType | None = None):
        found = get_default_dtype() if type is None else type
        if not isinstance(found, DType) or found.kind not in "fc":
            raise TypeError(f"facula.finfo() requires a floating point input type. Use "
                            f"facula.iinfo to handle '{getattr(found, 'name', found)}'")
        real = found.to_real()
        if real.is_compact:
            self._compact(real)
            return
        fraction, exponent = _EXPONENTS[real.name]
        bias = 2 ** (exponent - 1) - 1
        self.bits = 8 * real.itemsize
        self.eps = 2.0 ** -fraction
        self.max = (2.0 - self.eps) * 2.0 ** bias
        self.min = -self.max
        self.tiny = self.smallest_normal = 2.0 ** (1 - bias)
        self.resolution = {"float16": 1e-3, "bfloat16": 1e-2, "float32": 1e-6,
                           "float64": 1e-15}[real.name]
        self.dtype = real.name

    def _compact(self, dtype: DType) -> None:
        import ml_dtypes
        found = ml_dtypes.finfo(dtype.np)
        self.bits = 8
        self.eps, self.max, self.min = float(found.eps), float(found.max), float(found.min)
        self.tiny = self.smallest_normal = float(found.smallest_normal)
        self.resolution = 1.0
        self.dtype = dtype.name

    def __repr__(self) -> str:
        return (f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, "
                f"eps={self.eps:g}, smallest_normal={self.smallest_normal:g}, "
                f"tiny={self.tiny:g}, dtype={self.dtype})")

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, finfo) and other.dtype == self.dtype

    def __hash__(self) -> int:
        return hash(self.dtype)


class iinfo:
    """Limits of an integer dtype: bits, min, max, dtype."""

    def __init__(self, type: DType):
        if not isinstance(type, DType) or type.kind not in "ui":
            raise TypeError("facula.iinfo() requires an integer input type. Use facula.finfo to "
                            f"handle '{getattr(type, 'name', type)}'")
        self.bits = 8 * type.itemsize
        self.min = 0 if type.kind == "u" else -(1 << (self.bits - 1))
        self.max = (1 << (self.bits - (type.kind == "i"))) - 1
        self.dtype = type.name

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, iinfo) and other.dtype == self.dtype

    def __hash__(self) -> int:
        return hash(self.dtype)
