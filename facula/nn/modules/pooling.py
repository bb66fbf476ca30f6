"""Pooling layers: the largest, mean or p-norm of windows, and back."""

from __future__ import annotations

from typing import Any

from facula.nn import functional as F
from facula.nn.modules.module import Module
from facula.tensor import Tensor

__all__ = [f"{kind}{d}d" for kind in ("MaxPool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAvgPool",
                                      "LPPool", "MaxUnpool") for d in (1, 2, 3)]
__all__ += ["FractionalMaxPool2d", "FractionalMaxPool3d"]


def _tuple(value: Any, d: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * d


class _MaxPool(Module):
    _d = 0

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
                 return_indices: bool = False, ceil_mode: bool = False) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride if stride is not None else kernel_size
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Any:
        return getattr(F, f"max_pool{self._d}d")(
            input, self.kernel_size, self.stride, self.padding, self.dilation,
            ceil_mode=self.ceil_mode, return_indices=self.return_indices)

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
                f"dilation={self.dilation}, ceil_mode={self.ceil_mode}")


class _AvgPool(Module):
    _d = 0

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0,
                 ceil_mode: bool = False, count_include_pad: bool = True,
                 divisor_override: int | None = None) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride if stride is not None else kernel_size
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        out: Tensor = getattr(F, f"avg_pool{self._d}d")(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
            self.count_include_pad, self.divisor_override)
        return out

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AdaptiveMaxPool(Module):
    _d = 0

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        return getattr(F, f"adaptive_max_pool{self._d}d")(input, self.output_size,
                                                          self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _AdaptiveAvgPool(Module):
    _d = 0

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        out: Tensor = getattr(F, f"adaptive_avg_pool{self._d}d")(input, self.output_size)
        return out

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _LPPool(Module):
    _d = 0

    def __init__(self, norm_type: float, kernel_size: Any, stride: Any = None,
                 ceil_mode: bool = False) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        out: Tensor = getattr(F, f"lp_pool{self._d}d")(
            input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)
        return out

    def extra_repr(self) -> str:
        return (f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, "
                f"stride={self.stride}, ceil_mode={self.ceil_mode}")


class _MaxUnpool(Module):
    _d = 0

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        self.kernel_size = _tuple(kernel_size, self._d)
        self.stride = _tuple(stride if stride is not None else kernel_size, self._d)
        self.padding = _tuple(padding, self._d)

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        out: Tensor = getattr(F, f"max_unpool{self._d}d")(
            input, indices, self.kernel_size, self.stride, self.padding, output_size)
        return out

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _FractionalMaxPool(Module):
    _d = 0
    _random_samples: Tensor | None

    def __init__(self, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
                 return_indices: bool = False, _random_samples: Tensor | None = None) -> None:
        super().__init__()
        d, name = self._d, type(self).__name__
        self.kernel_size = _tuple(kernel_size, d)
        if min(self.kernel_size) <= 0:
            raise ValueError(f"kernel_size must be greater than 0, but got {kernel_size}")
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = None if output_size is None else _tuple(output_size, d)
        self.output_ratio = None if output_ratio is None else _tuple(output_ratio, d)
        if output_size is None and output_ratio is None:
            raise ValueError(f"{name} requires specifying either an output size, or a pooling "
                             "ratio")
        if output_size is not None and output_ratio is not None:
            raise ValueError("only one of output_size and output_ratio may be specified")
        if self.output_ratio is not None and not all(0 < r < 1 for r in self.output_ratio):
            raise ValueError(f"output_ratio must be between 0 and 1 (got {output_ratio})")

    def forward(self, input: Tensor) -> Any:
        return getattr(F, f"fractional_max_pool{self._d}d")(
            input, self.kernel_size, self.output_size, self.output_ratio, self.return_indices,
            _random_samples=self._random_samples)


class MaxPool1d(_MaxPool):
    """`functional.max_pool1d` as a layer."""

    _d = 1


class MaxPool2d(_MaxPool):
    """`functional.max_pool2d` as a layer."""

    _d = 2


class MaxPool3d(_MaxPool):
    """`functional.max_pool3d` as a layer."""

    _d = 3


class AvgPool1d(_AvgPool):
    """`functional.avg_pool1d` as a layer."""

    _d = 1

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0,
                 ceil_mode: bool = False, count_include_pad: bool = True) -> None:
        size, step, pad = ((v[0],) if isinstance(v, (tuple, list)) else (v,) for v in (
            kernel_size, kernel_size if stride is None else stride, padding))
        super().__init__(size, step, pad, ceil_mode, count_include_pad)

    def forward(self, input: Tensor) -> Tensor:
        out: Tensor = F.avg_pool1d(input, self.kernel_size, self.stride, self.padding,
                                   self.ceil_mode, self.count_include_pad)
        return out


class AvgPool2d(_AvgPool):
    """`functional.avg_pool2d` as a layer."""

    _d = 2


class AvgPool3d(_AvgPool):
    """`functional.avg_pool3d` as a layer."""

    _d = 3


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """`functional.adaptive_max_pool1d` as a layer."""

    _d = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """`functional.adaptive_max_pool2d` as a layer."""

    _d = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """`functional.adaptive_max_pool3d` as a layer."""

    _d = 3


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """`functional.adaptive_avg_pool1d` as a layer."""

    _d = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """`functional.adaptive_avg_pool2d` as a layer."""

    _d = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """`functional.adaptive_avg_pool3d` as a layer."""

    _d = 3


class LPPool1d(_LPPool):
    """`functional.lp_pool1d` as a layer."""

    _d = 1


class LPPool2d(_LPPool):
    """`functional.lp_pool2d` as a layer."""

    _d = 2


class LPPool3d(_LPPool):
    """`functional.lp_pool3d` as a layer."""

    _d = 3


class MaxUnpool1d(_MaxUnpool):
    """`functional.max_unpool1d` as a layer."""

    _d = 1


class MaxUnpool2d(_MaxUnpool):
    """`functional.max_unpool2d` as a layer."""

    _d = 2


class MaxUnpool3d(_MaxUnpool):
    """`functional.max_unpool3d` as a layer."""

    _d = 3


class FractionalMaxPool2d(_FractionalMaxPool):
    """`functional.fractional_max_pool2d` as a layer, of one `output_size` or `output_ratio`."""

    _d = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    """`functional.fractional_max_pool3d` as a layer, of one `output_size` or `output_ratio`."""

    _d = 3
