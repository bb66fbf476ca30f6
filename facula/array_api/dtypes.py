"""Dtypes: what they are, and how arrays are converted and combined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import facula
from facula.array_api._shared import DTYPES, result_type
from facula.dtype import DType
from facula.errors import DTypeError
from facula.tensor import Tensor

__all__ = ["astype", "can_cast", "finfo", "iinfo", "isdtype", "result_type", *DTYPES]

globals().update(DTYPES)

_KINDS = {"bool": "b", "signed integer": "i", "unsigned integer": "u", "integral": "iu",
          "real floating": "f", "complex floating": "c", "numeric": "iufc"}


def astype(x: Tensor, dtype: DType, /, *, copy: bool = True, device: Any = None) -> Tensor:
    """`x` converted to a dtype, a new array unless `copy` is False and nothing changes.

    TypeError from complex to real: take `real(x)`.
    """
    if x.dtype.is_complex and dtype.kind not in "c":
        raise DTypeError(f"astype() does not convert {x.dtype.name} to {dtype.name}: the "
                         "imaginary part would be lost. Convert real(x) instead")
    if x.dtype is dtype:
        return x.clone() if copy else x
    return x.to(dtype)


def can_cast(from_: Any, to: DType, /) -> bool:
    """Whether promotion leads from one dtype (or an array's) to the other."""
    source = from_ if isinstance(from_, DType) else from_.dtype
    try:
        return result_type(source, to) is to
    except DTypeError:
        return False


@dataclass(frozen=True)
class _FloatLimits:
    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


@dataclass(frozen=True)
class _IntLimits:
    bits: int
    max: int
    min: int
    dtype: DType


def _dtype_of(type: Any) -> DType:
    return type if isinstance(type, DType) else type.dtype


def finfo(type: Any, /) -> _FloatLimits:
    """bits, eps, max, min, smallest_normal and dtype of a floating dtype, or of an array's."""
    real = _dtype_of(type).to_real()
    known = facula.finfo(real)
    return _FloatLimits(known.bits, known.eps, known.max, known.min, known.smallest_normal, real)


def iinfo(type: Any, /) -> _IntLimits:
    """bits, max, min and dtype of an integer dtype, or of an array's."""
    dtype = _dtype_of(type)
    known = facula.iinfo(dtype)
    return _IntLimits(known.bits, known.max, known.min, dtype)


def isdtype(dtype: DType, kind: Any) -> bool:
    """Whether `dtype` is the given dtype, of the named kind, or one of a tuple of these.

    Kinds: 'bool', 'signed integer', 'unsigned integer', 'integral', 'real floating',
    'complex floating', 'numeric'.  ValueError for another name.
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, DType):
        return dtype is kind
    if kind not in _KINDS:
        raise ValueError(f"isdtype(): unknown kind {kind!r}; known are {', '.join(_KINDS)}")
    return dtype.kind in _KINDS[kind]
