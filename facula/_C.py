"""What libraries take from PyTorch's private `torch._C` and have no other name for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from facula.device import device as Device
from facula.generator import Generator
from facula.nn.modules.state import parse_to
from facula.tensor import Tensor

__all__ = ["Generator", "PyTorchFileReader"]

_TensorMeta = type(Tensor)
"""The class of the class of tensors."""


class PyTorchFileReader:
    """PyTorch's reader of archives: making one raises NotImplementedError."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("PyTorchFileReader: read the file with facula.load, or as the "
                                  "archive that it is with zipfile.ZipFile")


def _log_api_usage_once(event: str) -> None:
    """Without effect, as in PyTorch where nobody has installed a logger: nothing is collected."""


def _parse_to(*args: Any, **kwargs: Any) -> tuple[Any, Any, bool, Any]:
    """The device, dtype, `non_blocking` and memory format that the arguments of `to` ask for."""
    non_blocking, memory_format = kwargs.get("non_blocking"), kwargs.get("memory_format")
    device, dtype = parse_to(*args, **kwargs)
    if non_blocking is None:
        non_blocking = next((a for a in args if isinstance(a, bool)), False)
    return None if device is None else Device(device), dtype, non_blocking, memory_format


_nn = SimpleNamespace(_parse_to=_parse_to)
