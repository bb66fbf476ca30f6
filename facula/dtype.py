"""Element types.

A `DType` names what one element is; the instances at the bottom are all there are.  What
bfloat16 and the types of 8 bits mean in NumPy comes from ml_dtypes, imported only when somebody
asks for it.  The latter are for keeping numbers: they convert and move, and no operation computes
in them, as in PyTorch on a CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["DType", "from_numpy_dtype", "DTYPES"]


class DType:
    """The type of a tensor's elements; compare with `is` or `==`."""

    __slots__ = ("name", "kind", "itemsize", "_np", "_hash")

    def __init__(self, name: str, kind: str, itemsize: int):
        self.name = name
        self.kind = kind              # b(ool) u(nsigned) i(nteger) f(loat) c(omplex)
        self.itemsize = itemsize
        self._np: Any = None

    @property
    def np(self) -> Any:
        """The NumPy dtype of the same meaning."""
        if self._np is None:
            if self.name == "bfloat16" or self.is_compact:
                import ml_dtypes
                self._np = np.dtype(getattr(ml_dtypes, self.name))
            else:
                self._np = np.dtype(self.name)
        return self._np

    @property
    def is_compact(self) -> bool:
        """Whether this is a floating type of 8 bits: kept and converted, not computed in."""
        return self.kind == "f" and self.itemsize == 1

    @property
    def is_floating_point(self) -> bool:
        return self.kind == "f"

    @property
    def is_complex(self) -> bool:
        return self.kind == "c"

    @property
    def is_signed(self) -> bool:
        return self.kind in "ifc"

    def to_real(self) -> DType:
        """complex64 -> float32, complex128 -> float64; any other is itself."""
        return {"complex64": float32, "complex128": float64}.get(self.name, self)

    def to_complex(self) -> DType:
        """float32 -> complex64, float64 -> complex128."""
        return complex128 if self.name in ("float64", "complex128") else complex64

    def __repr__(self) -> str:
        return f"facula.{self.name}"

    def __reduce__(self) -> Any:
        return (_by_name, (self.name,))


def _by_name(name: str) -> DType:
    return DTYPES[name]


bool_ = DType("bool", "b", 1)
uint8 = DType("uint8", "u", 1)
int8 = DType("int8", "i", 1)
int16 = DType("int16", "i", 2)
int32 = DType("int32", "i", 4)
int64 = DType("int64", "i", 8)
uint16 = DType("uint16", "u", 2)
uint32 = DType("uint32", "u", 4)
uint64 = DType("uint64", "u", 8)
float16 = DType("float16", "f", 2)
bfloat16 = DType("bfloat16", "f", 2)
float32 = DType("float32", "f", 4)
float64 = DType("float64", "f", 8)
float8_e4m3fn = DType("float8_e4m3fn", "f", 1)
float8_e5m2 = DType("float8_e5m2", "f", 1)
float8_e4m3fnuz = DType("float8_e4m3fnuz", "f", 1)
float8_e5m2fnuz = DType("float8_e5m2fnuz", "f", 1)
complex64 = DType("complex64", "c", 8)
complex128 = DType("complex128", "c", 16)

DTYPES: dict[str, DType] = {d.name: d for d in (
    bool_, uint8, int8, int16, int32, int64, uint16, uint32, uint64,
    float16, bfloat16, float32, float64, complex64, complex128, float8_e4m3fn, float8_e5m2,
    float8_e4m3fnuz, float8_e5m2fnuz)}


_by_numpy: dict[Any, DType] = {}


def from_numpy_dtype(dtype: Any) -> DType:
    """The DType of a NumPy dtype; `TypeError` for those facula has none of (str, object, ...)."""
    dtype = np.dtype(dtype)
    found = _by_numpy.get(dtype)
    if found is None:
        found = DTYPES.get(dtype.name)               # the name takes NumPy some microseconds
        if found is None:
            raise TypeError(
                f"facula has no dtype for NumPy's {dtype}; it knows {', '.join(DTYPES)}")
        _by_numpy[dtype] = found
    return found
