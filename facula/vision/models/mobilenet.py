"""MobileNetV3 (Howard et al., Searching for MobileNetV3, 2019)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from facula import nn
from facula.tensor import Tensor
from facula.vision.models._weights import WeightsEnum, imagenet, refuse, register_model
from facula.vision.ops.misc import SqueezeExcitation

__all__ = ["InvertedResidual", "MobileNetV3", "MobileNet_V3_Large_Weights",
           "MobileNet_V3_Small_Weights", "SqueezeExcitation", "mobilenet_v3_large",
           "mobilenet_v3_small"]

Norm = Callable[[int], nn.Module]


def _divisible(v: float, by: int = 8) -> int:
    """The nearest multiple of `by`, but not less than nine tenths of v."""
    new = max(by, int(v + by / 2) // by * by)
    return new + by if new < 0.9 * v else new


def _conv(i: int, o: int, kernel: int, stride: int = 1, groups: int = 1, dilation: int = 1,
          norm: Norm = nn.BatchNorm2d, activation: type[nn.Module] | None = None
          ) -> nn.Sequential:
    """Convolution, norm, activation: `[N, i, H, W]` to `[N, o, H / stride, W / stride]`."""
    layers = [nn.Conv2d(i, o, kernel, stride, (kernel - 1) // 2 * dilation, dilation, groups,
                        bias=False), norm(o)]
    if activation is not None:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """A block that widens, convolves each channel, and narrows; with a shortcut if it can."""

    def __init__(self, channels: int, kernel: int, expanded: int, out: int, use_se: bool,
                 activation: type[nn.Module], stride: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        self.use_res_connect = stride == 1 and channels == out
        layers: list[nn.Module] = []
        if expanded != channels:
            layers.append(_conv(channels, expanded, 1, norm=norm, activation=activation))
        layers.append(_conv(expanded, expanded, kernel, 1 if dilation > 1 else stride, expanded,
                            dilation, norm, activation))
        if use_se:
            layers.append(SqueezeExcitation(expanded, _divisible(expanded // 4),
                                            scale_activation=partial(nn.Hardsigmoid,
                                                                     inplace=True)))
        layers.append(_conv(expanded, out, 1, norm=norm))
        self.block = nn.Sequential(*layers)
        self.out_channels = out

    def forward(self, input: Tensor) -> Tensor:
        out = self.block(input)
        if self.use_res_connect:
            out += input
        return out                                      # type: ignore[no-any-return]


# kernel, expanded channels, channels, squeeze-and-excitation, hard swish, stride
_LARGE = [(3, 16, 16, 0, 0, 1), (3, 64, 24, 0, 0, 2), (3, 72, 24, 0, 0, 1), (5, 72, 40, 1, 0, 2),
          (5, 120, 40, 1, 0, 1), (5, 120, 40, 1, 0, 1), (3, 240, 80, 0, 1, 2),
          (3, 200, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1), (3, 184, 80, 0, 1, 1),
          (3, 480, 112, 1, 1, 1), (3, 672, 112, 1, 1, 1), (5, 672, 160, 1, 1, 2),
          (5, 960, 160, 1, 1, 1), (5, 960, 160, 1, 1, 1)]
_SMALL = [(3, 16, 16, 1, 0, 2), (3, 72, 24, 0, 0, 2), (3, 88, 24, 0, 0, 1), (5, 96, 40, 1, 1, 2),
          (5, 240, 40, 1, 1, 1), (5, 240, 40, 1, 1, 1), (5, 120, 48, 1, 1, 1),
          (5, 144, 48, 1, 1, 1), (5, 288, 96, 1, 1, 2), (5, 576, 96, 1, 1, 1),
          (5, 576, 96, 1, 1, 1)]
_TAIL = {"large": 3, "small": 3}
"""How many of the last blocks `reduced_tail` narrows and `dilated` dilates."""


class MobileNetV3(nn.Module):
    """Images `[N, 3, H, W]` to scores `[N, num_classes]`.

    `size` is 'large' or 'small' (ValueError for another), `width_mult` scales all widths,
    `reduced_tail` halves those of the last blocks, `dilated` keeps the size there.
    """

    def __init__(self, size: str, num_classes: int = 1000, width_mult: float = 1.0,
                 reduced_tail: bool = False, dilated: bool = False, dropout: float = 0.2,
                 norm_layer: Norm | None = None) -> None:
        super().__init__()
        if size not in _TAIL:
            raise ValueError(f"MobileNetV3: size should be 'large' or 'small', got {size!r}")
        norm = norm_layer or partial(nn.BatchNorm2d, eps=0.001, momentum=0.01)
        rows = _LARGE if size == "large" else _SMALL

        def wide(n: int) -> int:
            return _divisible(n * width_mult)

        channels = wide(16)
        layers: list[nn.Module] = [_conv(3, channels, 3, 2, norm=norm, activation=nn.Hardswish)]
        first = len(rows) - _TAIL[size]
        for k, (kernel, expanded, out, se, hard, stride) in enumerate(rows):
            tail = k >= first
            by = 2 if tail and reduced_tail else 1
            if by == 2 and k == first:
                grown, narrow = wide(expanded), wide(out // 2)
            else:
                grown, narrow = wide(expanded // by), wide(out // by)
            layers.append(InvertedResidual(channels, kernel, grown, narrow, bool(se),
                                           nn.Hardswish if hard else nn.ReLU, stride,
                                           2 if tail and dilated else 1, norm))
            channels = narrow
        last = 6 * channels
        layers.append(_conv(channels, last, 1, norm=norm, activation=nn.Hardswish))
        hidden = wide((1280 if size == "large" else 1024) // (2 if reduced_tail else 1))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(last, hidden), nn.Hardswish(inplace=True),
                                        nn.Dropout(p=dropout, inplace=True),
                                        nn.Linear(hidden, num_classes))
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out")
                if m.bias is not None:
                    nn.init.zeros_(m.bias)
            elif isinstance(m, (nn.BatchNorm2d, nn.GroupNorm)):
                nn.init.ones_(m.weight)
                nn.init.zeros_(m.bias)
            elif isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, 0, 0.01)
                nn.init.zeros_(m.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x)).flatten(1)
        return self.classifier(x)                       # type: ignore[no-any-return]


class MobileNet_V3_Large_Weights(WeightsEnum):
    """Weights of `mobilenet_v3_large`."""

    IMAGENET1K_V1 = imagenet(5_483_032)
    IMAGENET1K_V2 = imagenet(5_483_032, resize_size=232)
    DEFAULT = IMAGENET1K_V2


@register_model(MobileNet_V3_Large_Weights)
def mobilenet_v3_large(*, weights: Any = None, progress: bool = True, **kwargs: Any
                       ) -> MobileNetV3:
    """The large network; further arguments are those of `MobileNetV3`.  WeightsError for
    `weights`."""
    refuse("mobilenet_v3_large", weights, kwargs)
    return MobileNetV3("large", **kwargs)


class MobileNet_V3_Small_Weights(WeightsEnum):
    """Weights of `mobilenet_v3_small`."""

    IMAGENET1K_V1 = imagenet(2_542_856)
    DEFAULT = IMAGENET1K_V1


@register_model(MobileNet_V3_Small_Weights)
def mobilenet_v3_small(*, weights: Any = None, progress: bool = True, **kwargs: Any
                       ) -> MobileNetV3:
    """The small network; further arguments are those of `MobileNetV3`.  WeightsError for
    `weights`."""
    refuse("mobilenet_v3_small", weights, kwargs)
    return MobileNetV3("small", **kwargs)
