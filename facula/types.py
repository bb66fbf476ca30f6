"""Names for annotations: `torch.types`."""

from __future__ import annotations

import builtins
import os
from collections.abc import Sequence
from typing import IO, Any, TypeAlias, Union

from facula.device import device as _device
from facula.dtype import DType
from facula.storage import Size
from facula.tensor import Tensor

__all__ = ["Number", "Device", "FileLike", "Storage", "SymInt", "SymFloat", "SymBool"]

SymInt: TypeAlias = builtins.int
SymFloat: TypeAlias = builtins.float
SymBool: TypeAlias = builtins.bool
Number: TypeAlias = Union[builtins.int, builtins.float, builtins.bool]
Device: TypeAlias = Union[_device, builtins.str, builtins.int, None]
FileLike: TypeAlias = Union[builtins.str, os.PathLike[str], IO[bytes]]
Storage: TypeAlias = Any

_int: TypeAlias = builtins.int
_float: TypeAlias = builtins.float
_bool: TypeAlias = builtins.bool
_complex: TypeAlias = builtins.complex
_dtype: TypeAlias = DType
_device = _device
_size: TypeAlias = Union[Size, builtins.list[builtins.int], builtins.tuple[builtins.int, ...]]
_symsize: TypeAlias = Union[Size, Sequence[builtins.int]]
_dispatchkey: TypeAlias = builtins.str
_TensorOrTensors: TypeAlias = Union[Tensor, Sequence[Tensor]]
