"""`DataParallel` where there is one device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.nn.modules.module import Module

__all__ = ["DataParallel"]


class DataParallel(Module):
    """The module itself, under the name `module`: what PyTorch's is where there is no GPU.

    A batch is spread over the processors without it.  Names in the state dict begin with
    `module.`, as they do in PyTorch.  Raises RuntimeError if devices are named.
    """

    def __init__(self, module: Module, device_ids: Sequence[Any] | None = None,
                 output_device: Any = None, dim: int = 0) -> None:
        super().__init__()
        if device_ids:
            raise RuntimeError(f"DataParallel was given the devices {list(device_ids)}, and facula "
                               "computes on the CPU: leave device_ids out")
        self.module = module

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)
