"""facula as a backend of einops: `rearrange`, `reduce`, `repeat`, `einsum`, `pack` and layers.

einops finds its backends among the subclasses of `AbstractBackend`, so to define one is to
register it.  The layers are `einops.layers.facula`, as those for PyTorch are `einops.layers.torch`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from einops._backends import AbstractBackend

__all__ = ["FaculaBackend"]

_LAYERS = "einops.layers.facula"


class FaculaBackend(AbstractBackend):
    """What einops asks of a library of tensors."""

    framework_name = "facula"

    def __init__(self) -> None:
        self.facula = importlib.import_module("facula")

    def is_appropriate_type(self, tensor: Any) -> bool:
        return isinstance(tensor, self.facula.Tensor)

    def from_numpy(self, x: Any) -> Any:
        tensor = self.facula.from_numpy(x)
        return tensor.requires_grad_() if self.is_float_type(tensor) else tensor

    def to_numpy(self, x: Any) -> Any:
        return x.detach().numpy()

    def arange(self, start: int, stop: int) -> Any:
        return self.facula.arange(start, stop)

    def transpose(self, x: Any, axes: Sequence[int]) -> Any:
        return x.permute(axes)

    def reduce(self, x: Any, operation: str, axes: Sequence[int]) -> Any:
        """The reduction over several axes at once; ValueError for one that is not known."""
        name = {"min": "amin", "max": "amax"}.get(operation, operation)
        if name in ("amin", "amax", "sum", "mean", "any", "all"):
            return getattr(x, name)(tuple(axes))
        if name != "prod":
            raise ValueError(f"einops reduction {operation!r} is none of min, max, sum, mean, "
                             "prod, any, all")
        for axis in sorted(axes, reverse=True):
            x = x.prod(axis)
        return x

    def stack_on_zeroth_dimension(self, tensors: list[Any]) -> Any:
        return self.facula.stack(tensors)

    def add_axis(self, x: Any, new_position: int) -> Any:
        return x.unsqueeze(new_position)

    def add_axes(self, x: Any, n_axes: int, pos2len: dict[int, int]) -> Any:
        """New axes of the given lengths at their places: views, nothing is copied."""
        for place in sorted(pos2len):
            x = x.unsqueeze(place)
        return x.expand([pos2len.get(place, -1) for place in range(n_axes)])

    def tile(self, x: Any, repeats: Sequence[int]) -> Any:
        return x.repeat(repeats)

    def concat(self, tensors: Sequence[Any], axis: int) -> Any:
        return self.facula.cat(tensors, axis)

    def is_float_type(self, x: Any) -> bool:
        return x.is_floating_point()

    def layers(self) -> ModuleType:
        return importlib.import_module(_LAYERS)

    def einsum(self, pattern: str, *x: Any) -> Any:
        return self.facula.einsum(pattern, *x)


class _Layers(MetaPathFinder):
    """Finds `einops.layers.facula` here, where the rest of einops' layers know nothing of it."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != _LAYERS:
            return None
        return importlib.util.spec_from_file_location(
            fullname, Path(__file__).with_name("einops_layers.py"))


sys.meta_path.append(_Layers())
