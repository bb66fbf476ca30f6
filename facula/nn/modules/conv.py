"""Convolution layers: Conv1d/2d/3d, ConvTranspose1d/2d/3d."""

from __future__ import annotations

import math
from typing import Any

from facula.nn import functional as F
from facula.nn import init
from facula.nn.modules.make import empty
from facula.nn.modules.module import Module
from facula.nn.parameter import Parameter
from facula.tensor import Tensor

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]


def _tuple(value: Any, d: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * d


class _Conv(Module):
    """What the convolution layers share: their arguments, parameters and starting values."""

    _d = 0
    _transposed = False

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any,
                 padding: Any, dilation: Any, output_padding: Any, groups: int, bias: bool,
                 padding_mode: str, device: Any, dtype: Any) -> None:
        super().__init__()
        if groups <= 0:
            raise ValueError("groups must be a positive integer")
        if in_channels % groups:
            raise ValueError("in_channels must be divisible by groups")
        if out_channels % groups:
            raise ValueError("out_channels must be divisible by groups")
        d = self._d
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = _tuple(kernel_size, d)
        self.stride = _tuple(stride, d)
        self.padding = padding if isinstance(padding, str) else _tuple(padding, d)
        self.dilation = _tuple(dilation, d)
        self.transposed = self._transposed
        self.output_padding = _tuple(output_padding, d)
        self.groups = groups
        self.padding_mode = padding_mode
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"Invalid padding string {padding!r}, should be one of "
                                 "{'valid', 'same'}")
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError("padding='same' is not supported for strided convolutions")
        modes = {"zeros", "reflect", "replicate", "circular"}
        if padding_mode not in modes:
            raise ValueError(f"padding_mode must be one of {modes}, but got "
                             f"padding_mode='{padding_mode}'")
        # what F.pad is given: the last dimension first, before and after
        self._reversed_padding_repeated_twice = self._ends()
        pair = (in_channels, out_channels) if self._transposed else (out_channels, in_channels)
        self.weight = Parameter(empty((pair[0], pair[1] // groups, *self.kernel_size), dtype,
                                      device))
        if bias:
            self.bias = Parameter(empty((out_channels,), dtype, device))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def _ends(self) -> list[int]:
        ends = []
        for k in reversed(range(self._d)):
            if isinstance(self.padding, str):
                total = self.dilation[k] * (self.kernel_size[k] - 1) \
                    if self.padding == "same" else 0
                ends += [total // 2, total - total // 2]
            else:
                ends += [self.padding[k]] * 2
        return ends

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = math.prod(self.weight.shape[1:])
            if fan_in:
                bound = 1 / math.sqrt(fan_in)
                init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        out = (f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
               f"stride={self.stride}")
        d = self._d
        if self.padding != (0,) * d:
            out += f", padding={self.padding}"
        if self.dilation != (1,) * d:
            out += f", dilation={self.dilation}"
        if self.output_padding != (0,) * d:
            out += f", output_padding={self.output_padding}"
        if self.groups != 1:
            out += f", groups={self.groups}"
        if self.bias is None:
            out += ", bias=False"
        if self.padding_mode != "zeros":
            out += f", padding_mode={self.padding_mode}"
        return out


class _Plain(_Conv):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
                 padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
                 padding_mode: str = "zeros", device: Any = None, dtype: Any = None) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, 0,
                         groups, bias, padding_mode, device, dtype)

    def forward(self, input: Tensor) -> Tensor:
        call = getattr(F, f"conv{self._d}d")
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        out: Tensor = call(input, self.weight, self.bias, self.stride, padding, self.dilation,
                           self.groups)
        return out


class Conv1d(_Plain):
    """`functional.conv1d` with learnt weight `[out_channels, in_channels / groups, k]` and bias."""

    _d = 1


class Conv2d(_Plain):
    """`functional.conv2d` with learnt weight `[out_channels, in_channels / groups, kH, kW]`, bias.

    Both are drawn from U(-k, k), k = (in_channels / groups * kernel elements)**-0.5.  What
    `padding_mode` adds is zeros, or a reflection, replication or the other end ('circular').
    """

    _d = 2


class Conv3d(_Plain):
    """`functional.conv3d` with learnt weight `[out, in / groups, kD, kH, kW]` and bias."""

    _d = 3


class _Transposed(_Conv):
    _transposed = True

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
                 padding: Any = 0, output_padding: Any = 0, groups: int = 1, bias: bool = True,
                 dilation: Any = 1, padding_mode: str = "zeros", device: Any = None,
                 dtype: Any = None) -> None:
        if padding_mode != "zeros":
            raise ValueError('Only "zeros" padding mode is supported for '
                             f"{type(self).__name__}")
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation,
                         output_padding, groups, bias, padding_mode, device, dtype)

    def _output_padding(self, input: Tensor, output_size: Any) -> tuple[int, ...]:
        """What must be added for a result of `output_size`, which several inputs could have."""
        if output_size is None:
            return self.output_padding
        d = self._d
        lead = input.ndim - d
        wanted = list(output_size)
        if len(wanted) == d + lead:
            wanted = wanted[lead:]
        if len(wanted) != d:
            raise ValueError(f"ConvTranspose{d}D: for {input.ndim}D input, output_size must have "
                             f"{d} or {d + lead} elements (got {len(wanted)})")
        assert not isinstance(self.padding, str)
        least = [(input.shape[lead + k] - 1) * self.stride[k] - 2 * self.padding[k]
                 + self.dilation[k] * (self.kernel_size[k] - 1) + 1 for k in range(d)]
        most = [least[k] + self.stride[k] - 1 for k in range(d)]
        if any(not lo <= n <= hi for lo, n, hi in zip(least, wanted, most)):
            raise ValueError(f"requested an output size of {wanted}, but valid sizes range from "
                             f"{least} to {most} (for an input of {list(input.shape[lead:])})")
        return tuple(n - lo for n, lo in zip(wanted, least))

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        call = getattr(F, f"conv_transpose{self._d}d")
        out: Tensor = call(input, self.weight, self.bias, self.stride, self.padding,
                           self._output_padding(input, output_size), self.groups, self.dilation)
        return out


class ConvTranspose1d(_Transposed):
    """`functional.conv_transpose1d` with learnt weight `[in, out / groups, k]` and bias."""

    _d = 1


class ConvTranspose2d(_Transposed):
    """`functional.conv_transpose2d` with learnt weight `[in, out / groups, kH, kW]` and bias.

    `forward(input, output_size)` picks among the sizes that a stride above 1 leaves open.
    """

    _d = 2


class ConvTranspose3d(_Transposed):
    """`functional.conv_transpose3d` with learnt weight `[in, out / groups, kD, kH, kW]`, bias."""

    _d = 3
