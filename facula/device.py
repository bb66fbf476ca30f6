"""Where tensors live.  There is one place, the CPU; the names are those of PyTorch."""

from __future__ import annotations

from typing import Any

__all__ = ["device", "check_device", "layout", "memory_format", "strided", "contiguous_format",
           "preserve_format", "channels_last", "channels_last_3d"]

_KNOWN = ("cpu", "cuda", "mps", "xpu", "meta", "hpu", "xla", "mtia", "ipu", "vulkan",
          "privateuseone")


class device:
    """A device by its name: `device('cpu')`, `device('cuda', 1)`.

    Other devices than the CPU can be named, so that a program may ask about them, but no tensor
    can be made there.
    """

    __slots__ = ("type", "index")

    type: str
    index: int | None

    def __init__(self, type: Any = "cpu", index: int | None = None):
        if isinstance(type, device):
            type, index = type.type, type.index
        if isinstance(type, int) and not isinstance(type, bool):
            type, index = "cuda", type
        if not isinstance(type, str):
            raise TypeError(f"device(): argument 'type' must be str or device, not "
                            f"{type.__class__.__name__}")
        name, colon, number = type.partition(":")
        if colon:
            if index is not None:
                raise RuntimeError(f"type (string) must not include an index because index was "
                                   f"passed explicitly: {type}")
            if not number.isdigit():
                raise RuntimeError(f"Invalid device string: '{type}'")
            index = int(number)
        if name not in _KNOWN:
            raise RuntimeError(f"Expected one of {', '.join(_KNOWN)} device type at start of "
                               f"device string: {type}")
        self.type = name
        self.index = index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (other.type, other.index) == (self.type, self.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __repr__(self) -> str:
        if self.index is None:
            return f"device(type='{self.type}')"
        return f"device(type='{self.type}', index={self.index})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __reduce__(self) -> Any:
        return device, (self.type, self.index)

    def __enter__(self) -> device:
        check_device(self)
        return self

    def __exit__(self, *_: Any) -> None:
        pass


CPU = device("cpu")


def check_device(where: Any) -> None:
    """Raise a RuntimeError unless `where` is the CPU (or None)."""
    if where is None or where is CPU:
        return
    found = device(where)
    if found.type != "cpu":
        raise RuntimeError(f"facula computes on the CPU, and '{found}' was asked for: leave "
                           "device out, or use device='cpu'")


class layout:
    """How elements are kept; tensors have `facula.strided`, the others are only names."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"facula.{self.name}"


class memory_format(layout):
    """Which order of strides a tensor is asked for in."""


strided = layout("strided")
sparse_coo = layout("sparse_coo")
sparse_csr = layout("sparse_csr")
contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
channels_last = memory_format("channels_last")
channels_last_3d = memory_format("channels_last_3d")
