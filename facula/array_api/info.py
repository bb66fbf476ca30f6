"""What this namespace can do, as the standard has it asked for."""

from __future__ import annotations

from typing import Any

import facula
from facula.array_api._shared import DTYPES
from facula.array_api.dtypes import isdtype
from facula.dtype import DType

__all__ = ["__array_namespace_info__"]


class Info:
    """Capabilities, devices and dtypes of the namespace."""

    def capabilities(self) -> dict[str, Any]:
        """Whether masks and shapes that depend on data work; the most dimensions, None for any."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": None}

    def default_device(self) -> Any:
        """The device of new arrays."""
        return facula.get_default_device()

    def devices(self) -> tuple[Any, ...]:
        """All devices."""
        return (facula.device("cpu"),)

    def default_dtypes(self, *, device: Any = None) -> dict[str, DType]:
        """The dtypes of new arrays of each kind."""
        real = facula.get_default_dtype()
        return {"real floating": real, "complex floating": real.to_complex(),
                "integral": facula.int64, "indexing": facula.int64}

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, DType]:
        """The dtypes by name, those of a kind only if one is given (see `isdtype`)."""
        return {name: dtype for name, dtype in DTYPES.items()
                if kind is None or isdtype(dtype, kind)}


def __array_namespace_info__() -> Info:
    """An object that tells capabilities, devices and dtypes."""
    return Info()
