"""Residual networks (He, Zhang, Ren and Sun, Deep Residual Learning, 2015).

The stride of a bottleneck is in its 3x3 convolution, as torchvision has it, and not in its first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from facula import nn
from facula.tensor import Tensor
from facula.vision.models._weights import WeightsEnum, imagenet, refuse, register_model

__all__ = ["BasicBlock", "Bottleneck", "ResNet", "ResNet101_Weights", "ResNet18_Weights",
           "ResNet34_Weights", "ResNet50_Weights", "resnet101", "resnet18", "resnet34", "resnet50"]

Norm = Callable[[int], nn.Module]


def _conv3x3(i: int, o: int, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(i, o, 3, stride, dilation, dilation, groups, bias=False)


def _conv1x1(i: int, o: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(i, o, 1, stride, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: `[N, inplanes, H, W]` to `[N, planes, H', W']`.

    Raises ValueError for groups or another width, NotImplementedError for a dilation.
    """

    expansion: int = 1

    def __init__(self, inplanes: int, planes: int, stride: int = 1,
                 downsample: nn.Module | None = None, groups: int = 1, base_width: int = 64,
                 dilation: int = 1, norm_layer: Norm | None = None) -> None:
        super().__init__()
        norm = norm_layer or nn.BatchNorm2d
        if groups != 1 or base_width != 64:
            raise ValueError("BasicBlock only supports groups=1 and base_width=64, got "
                             f"groups={groups}, base_width={base_width}")
        if dilation > 1:
            raise NotImplementedError(f"BasicBlock has no dilation, got dilation={dilation}: use "
                                      "Bottleneck")
        self.conv1 = _conv3x3(inplanes, planes, stride)
        self.bn1 = norm(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(planes, planes)
        self.bn2 = norm(planes)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)                           # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut: `[N, inplanes, H, W]` to
    `[N, 4 * planes, H', W']`."""

    expansion: int = 4

    def __init__(self, inplanes: int, planes: int, stride: int = 1,
                 downsample: nn.Module | None = None, groups: int = 1, base_width: int = 64,
                 dilation: int = 1, norm_layer: Norm | None = None) -> None:
        super().__init__()
        norm = norm_layer or nn.BatchNorm2d
        width = int(planes * (base_width / 64.0)) * groups
        self.conv1 = _conv1x1(inplanes, width)
        self.bn1 = norm(width)
        self.conv2 = _conv3x3(width, width, stride, groups, dilation)
        self.bn2 = norm(width)
        self.conv3 = _conv1x1(width, planes * self.expansion)
        self.bn3 = norm(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)                           # type: ignore[no-any-return]


class ResNet(nn.Module):
    """A residual network of four stages: images `[N, 3, H, W]` to scores `[N, num_classes]`.

    `layers` says how many blocks each stage has.  `replace_stride_with_dilation` keeps the size in
    the last three stages and widens the kernels' reach; ValueError if it is not three of them.
    """

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], layers: list[int],
                 num_classes: int = 1000, zero_init_residual: bool = False, groups: int = 1,
                 width_per_group: int = 64,
                 replace_stride_with_dilation: list[bool] | None = None,
                 norm_layer: Norm | None = None) -> None:
        super().__init__()
        self._norm_layer = norm_layer or nn.BatchNorm2d
        self.inplanes = 64
        self.dilation = 1
        widen = replace_stride_with_dilation or [False, False, False]
        if len(widen) != 3:
            raise ValueError("replace_stride_with_dilation should be None or a 3-element tuple, "
                             f"got {replace_stride_with_dilation}")
        self.groups = groups
        self.base_width = width_per_group
        self.conv1 = nn.Conv2d(3, self.inplanes, 7, 2, 3, bias=False)
        self.bn1 = self._norm_layer(self.inplanes)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = self._make_layer(block, 64, layers[0])
        self.layer2 = self._make_layer(block, 128, layers[1], 2, widen[0])
        self.layer3 = self._make_layer(block, 256, layers[2], 2, widen[1])
        self.layer4 = self._make_layer(block, 512, layers[3], 2, widen[2])
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * block.expansion, num_classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(m, (nn.BatchNorm2d, nn.GroupNorm)):
                nn.init.constant_(m.weight, 1)
                nn.init.constant_(m.bias, 0)
        if zero_init_residual:      # every block begins as its shortcut (Goyal et al. 2017)
            for m in self.modules():
                last = m.bn3 if isinstance(m, Bottleneck) else \
                    m.bn2 if isinstance(m, BasicBlock) else None
                if last is not None and last.weight is not None:
                    nn.init.constant_(last.weight, 0)

    def _make_layer(self, block: type[BasicBlock] | type[Bottleneck], planes: int, blocks: int,
                    stride: int = 1, dilate: bool = False) -> nn.Sequential:
        norm, before = self._norm_layer, self.dilation
        if dilate:
            self.dilation *= stride
            stride = 1
        short = None
        if stride != 1 or self.inplanes != planes * block.expansion:
            short = nn.Sequential(_conv1x1(self.inplanes, planes * block.expansion, stride),
                                  norm(planes * block.expansion))
        layers = [block(self.inplanes, planes, stride, short, self.groups, self.base_width,
                        before, norm)]
        self.inplanes = planes * block.expansion
        layers += [block(self.inplanes, planes, 1, None, self.groups, self.base_width,
                         self.dilation, norm) for _ in range(1, blocks)]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.avgpool(x).flatten(1)
        return self.fc(x)                               # type: ignore[no-any-return]


class ResNet18_Weights(WeightsEnum):
    """Weights of `resnet18`."""

    IMAGENET1K_V1 = imagenet(11_689_512)
    DEFAULT = IMAGENET1K_V1


@register_model(ResNet18_Weights)
def resnet18(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNet-18; further arguments are those of `ResNet`.  WeightsError for `weights`."""
    refuse("resnet18", weights, kwargs)
    return ResNet(BasicBlock, [2, 2, 2, 2], **kwargs)


class ResNet34_Weights(WeightsEnum):
    """Weights of `resnet34`."""

    IMAGENET1K_V1 = imagenet(21_797_672)
    DEFAULT = IMAGENET1K_V1


@register_model(ResNet34_Weights)
def resnet34(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNet-34; further arguments are those of `ResNet`.  WeightsError for `weights`."""
    refuse("resnet34", weights, kwargs)
    return ResNet(BasicBlock, [3, 4, 6, 3], **kwargs)


class ResNet50_Weights(WeightsEnum):
    """Weights of `resnet50`."""

    IMAGENET1K_V1 = imagenet(25_557_032)
    IMAGENET1K_V2 = imagenet(25_557_032, resize_size=232)
    DEFAULT = IMAGENET1K_V2


@register_model(ResNet50_Weights)
def resnet50(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNet-50; further arguments are those of `ResNet`.  WeightsError for `weights`."""
    refuse("resnet50", weights, kwargs)
    return ResNet(Bottleneck, [3, 4, 6, 3], **kwargs)


class ResNet101_Weights(WeightsEnum):
    """Weights of `resnet101`."""

    IMAGENET1K_V1 = imagenet(44_549_160)
    IMAGENET1K_V2 = imagenet(44_549_160, resize_size=232)
    DEFAULT = IMAGENET1K_V2


@register_model(ResNet101_Weights)
def resnet101(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> ResNet:
    """ResNet-101; further arguments are those of `ResNet`.  WeightsError for `weights`."""
    refuse("resnet101", weights, kwargs)
    return ResNet(Bottleneck, [3, 4, 23, 3], **kwargs)
