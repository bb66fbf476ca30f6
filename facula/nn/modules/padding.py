"""Padding of 1, 2 or 3 dimensions: constant, zero, reflected, replicated, circular."""

from __future__ import annotations

from collections.abc import Sequence

from facula.nn import functional as F
from facula.nn.modules.module import Module
from facula.tensor import Tensor

__all__ = ["ConstantPad1d", "ConstantPad2d", "ConstantPad3d", "ZeroPad1d", "ZeroPad2d",
           "ZeroPad3d", "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d",
           "ReplicationPad1d", "ReplicationPad2d", "ReplicationPad3d", "CircularPad1d",
           "CircularPad2d", "CircularPad3d"]


class _Pad(Module):
    """`padding`: one number for all ends, or (before, after) of the last dimension, and so on."""

    _dims = 1
    _mode = "constant"

    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__()
        self.padding: tuple[int, ...] = (padding,) * (2 * self._dims) \
            if isinstance(padding, int) else tuple(padding)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self._mode)       # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    def __init__(self, padding: int | Sequence[int], value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, "constant", self.value)   # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_ConstantPad):
    def __init__(self, padding: int | Sequence[int]) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _CircularPad(_Pad):
    _mode = "circular"

    def forward(self, input: Tensor) -> Tensor:
        fits = (self._dims + 1, self._dims + 2)
        if input.ndim not in fits:
            raise ValueError(f"expected {fits[0]}D or {fits[1]}D input (got {input.ndim}D input)")
        return super().forward(input)


class ConstantPad1d(_ConstantPad):
    """`[N, C, L]`, or without the N, filled with `value`."""


class ConstantPad2d(_ConstantPad):
    """`[N, C, H, W]`, or without the N, filled with `value`."""

    _dims = 2


class ConstantPad3d(_ConstantPad):
    """`[N, C, D, H, W]`, or without the N, filled with `value`."""

    _dims = 3


class ZeroPad1d(_ZeroPad, ConstantPad1d):
    """`[N, C, L]`, or without the N, filled with zeros."""


class ZeroPad2d(_ZeroPad, ConstantPad2d):
    """`[N, C, H, W]`, or without the N, filled with zeros."""


class ZeroPad3d(_ZeroPad, ConstantPad3d):
    """`[N, C, D, H, W]`, or without the N, filled with zeros."""


class ReflectionPad1d(_Pad):
    """`[N, C, L]`, or without the N, reflected at the edge, without the edge itself."""

    _mode = "reflect"


class ReflectionPad2d(_Pad):
    """`[N, C, H, W]`, or without the N, reflected at the edge, without the edge itself."""

    _dims = 2
    _mode = "reflect"


class ReflectionPad3d(_Pad):
    """`[N, C, D, H, W]`, or without the N, reflected at the edge, without the edge itself."""

    _dims = 3
    _mode = "reflect"


class ReplicationPad1d(_Pad):
    """`[N, C, L]`, or without the N, filled with the element at the edge."""

    _mode = "replicate"


class ReplicationPad2d(_Pad):
    """`[N, C, H, W]`, or without the N, filled with the element at the edge."""

    _dims = 2
    _mode = "replicate"


class ReplicationPad3d(_Pad):
    """`[N, C, D, H, W]`, or without the N, filled with the element at the edge."""

    _dims = 3
    _mode = "replicate"


class CircularPad1d(_CircularPad):
    """`[N, C, L]`, or without the N, continued from the other end."""


class CircularPad2d(_CircularPad):
    """`[N, C, H, W]`, or without the N, continued from the other end."""

    _dims = 2


class CircularPad3d(_CircularPad):
    """`[N, C, D, H, W]`, or without the N, continued from the other end."""

    _dims = 3
