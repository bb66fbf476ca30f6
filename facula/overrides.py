"""`torch.overrides`: functions that a program would have called in place of facula's."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["TorchFunctionMode"]


class TorchFunctionMode:
    """A base class of contexts that see every call of a function; entering one is refused.

    Operations are recorded by what they do and not by who calls them, so a call cannot be handed
    to `__torch_function__`.  Classes may derive from it, and be made; `with` raises
    NotImplementedError.
    """

    def __enter__(self) -> NoReturn:
        raise NotImplementedError(
            f"{type(self).__name__}: facula hands no calls to __torch_function__. To change what "
            "a function does, wrap the function; to watch operations, see facula.viz")

    def __exit__(self, *error: Any) -> None:
        return None
