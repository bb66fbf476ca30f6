"""Tensors among other libraries: DLPack, memory shared without a copy, and the array standard."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from facula.dtype import DTYPES, bfloat16
from facula.tensor import Tensor, from_array

__all__ = ["from_dlpack", "to_dlpack"]


def _export(self: Tensor, *, stream: Any = None, max_version: tuple[int, int] | None = None,
            dl_device: tuple[int, int] | None = None, copy: bool | None = None) -> Any:
    """A DLPack capsule over this tensor's memory.

    BufferError for tensors that require a gradient (detach them) and for devices but the CPU.
    """
    if self.requires_grad:
        raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
    if dl_device is not None and tuple(dl_device) != (1, 0):
        raise BufferError(f"facula's tensors are on the CPU (1, 0), not on device {dl_device}")
    array = np.array(self._peek()) if copy else self._numpy()
    if self.dtype is bfloat16:
        raise BufferError("NumPy exports no bfloat16 through DLPack: pass "
                          "tensor.view(facula.int16), and view it as bfloat16 on the other side")
    if max_version is None:
        return array.__dlpack__(stream=stream)
    return array.__dlpack__(stream=stream, max_version=max_version)


def _device(self: Tensor) -> tuple[int, int]:
    """(1, 0): the CPU."""
    return 1, 0


def from_dlpack(ext_tensor: Any, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor over the memory of an object with `__dlpack__`: writing to one is seen in the other.

    Raises BufferError where the other library does not export it (another device, say).
    """
    from facula.device import check_device
    check_device(device)
    if isinstance(ext_tensor, Tensor):
        return ext_tensor.clone() if copy else ext_tensor.detach()   # type: ignore
    if not hasattr(ext_tensor, "__dlpack__"):
        raise TypeError(f"from_dlpack(): expected an object with __dlpack__, got "
                        f"{type(ext_tensor).__name__}")
    name = str(getattr(ext_tensor, "dtype", ""))
    library = sys.modules.get(type(ext_tensor).__module__.partition(".")[0])
    if name.endswith("bfloat16") and hasattr(ext_tensor, "view"):
        # NumPy's importer knows no bfloat16: take the same bits as int16.
        bits = ext_tensor.view(getattr(library, "int16", np.int16))
        return from_array(np.from_dlpack(bits).view(DTYPES["bfloat16"].np), copy=bool(copy))
    array = np.from_dlpack(ext_tensor)
    return from_array(array, copy=bool(copy))


def to_dlpack(tensor: Tensor) -> Any:
    """A DLPack capsule over the tensor's memory."""
    return _export(tensor)


_VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12", "2025.12")


def _namespace(self: Tensor, /, *, api_version: str | None = None) -> Any:
    """The functions of the Python array API standard on tensors: `facula.array_api`.

    ValueError for a version of the standard that it does not follow.
    """
    if api_version is not None and api_version not in _VERSIONS:
        raise ValueError(f"facula.array_api follows the versions {', '.join(_VERSIONS)} of the "
                         f"array API standard, not {api_version!r}")
    import facula.array_api
    return facula.array_api


def _to_device(self: Tensor, device: Any, /, *, stream: Any = None) -> Tensor:
    """The tensor on a device, itself if it is there; ValueError for a stream, of which there are
    none."""
    if stream is not None:
        raise ValueError("to_device(): the CPU has no streams")
    return self.to(device)


Tensor.__array_namespace__ = _namespace                      # type: ignore[attr-defined]
Tensor.to_device = _to_device                                # type: ignore[attr-defined]
Tensor.__dlpack__ = _export                                  # type: ignore[attr-defined]
Tensor.__dlpack_device__ = _device                           # type: ignore[attr-defined]
