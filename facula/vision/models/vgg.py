"""VGG networks (Simonyan and Zisserman, Very Deep Convolutional Networks, 2014)."""

from __future__ import annotations

from typing import Any

from facula import nn
from facula.tensor import Tensor
from facula.vision.models._weights import WeightsEnum, imagenet, refuse, register_model

__all__ = ["VGG", "VGG11_BN_Weights", "VGG11_Weights", "VGG13_BN_Weights", "VGG13_Weights",
           "VGG16_BN_Weights", "VGG16_Weights", "VGG19_BN_Weights", "VGG19_Weights", "vgg11",
           "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"]

_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """`features`, and three linear layers on 7x7 of what they give: images `[N, 3, H, W]` to
    scores `[N, num_classes]`."""

    def __init__(self, features: nn.Module, num_classes: int = 1000, init_weights: bool = True,
                 dropout: float = 0.5) -> None:
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d((7, 7))
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096), nn.ReLU(True), nn.Dropout(p=dropout),
            nn.Linear(4096, 4096), nn.ReLU(True), nn.Dropout(p=dropout),
            nn.Linear(4096, num_classes))
        if not init_weights:
            return
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
                if m.bias is not None:
                    nn.init.constant_(m.bias, 0)
            elif isinstance(m, nn.BatchNorm2d):
                nn.init.constant_(m.weight, 1)
                nn.init.constant_(m.bias, 0)
            elif isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, 0, 0.01)
                nn.init.constant_(m.bias, 0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x)).flatten(1)
        return self.classifier(x)                       # type: ignore[no-any-return]


def _vgg(depth: int, norm: bool, weights: Any, kwargs: dict[str, Any]) -> VGG:
    refuse(f"vgg{depth}" + "_bn" * norm, weights, kwargs)
    layers: list[nn.Module] = []
    channels = 3
    for width, count in zip(_WIDTHS, _DEPTHS[depth]):
        for _ in range(count):
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            if norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    return VGG(nn.Sequential(*layers), **kwargs)


class VGG11_Weights(WeightsEnum):
    """Weights of `vgg11`."""

    IMAGENET1K_V1 = imagenet(132_863_336, 32)
    DEFAULT = IMAGENET1K_V1


@register_model(VGG11_Weights)
def vgg11(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VGG:
    """Configuration A; further arguments are those of `VGG`.  WeightsError for `weights`."""
    return _vgg(11, False, weights, kwargs)


class VGG11_BN_Weights(WeightsEnum):
    """Weights of `vgg11_bn`."""

    IMAGENET1K_V1 = imagenet(132_868_840, 32)
    DEFAULT = IMAGENET1K_V1


@register_model(VGG11_BN_Weights)
def vgg11_bn(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VGG:
    """Configuration A with batch normalisation; arguments as for `VGG`.  WeightsError for
    `weights`."""
    return _vgg(11, True, weights, kwargs)


class VGG13_Weights(WeightsEnum):
    """Weights of `vgg13`."""

    IMAGENET1K_V1 = imagenet(133_047_848, 32)
    DEFAULT = IMAGENET1K_V1


@register_model(VGG13_Weights)
def vgg13(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VGG:
    """Configuration B; further arguments are those of `VGG`.  WeightsError for `weights`."""
    return _vgg(13, False, weights, kwargs)


class VGG13_BN_Weights(WeightsEnum):
    """Weights of `vgg13_bn`."""

    IMAGENET1K_V1 = imagenet(133_053_736, 32)
    DEFAULT = IMAGENET1K_V1


@register_model(VGG13_BN_Weights)
def vgg13_bn(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VGG:
    """Configuration B with batch normalisation; arguments as for `VGG`.  WeightsError for
    `weights`."""
    return _vgg(13, True, weights, kwargs)


class VGG16_Weights(WeightsEnum):
    """Weights of `vgg16`."""

    IMAGENET1K_V1 = imagenet(138_357_544, 32)
    DEFAULT = IMAGENET1K_V1


@register_model(VGG16_Weights)
def vgg16(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VGG:
    """Configuration D; further arguments are those of `VGG`.  WeightsError for `weights`."""
    return _vgg(16, False, weights, kwargs)


class VGG16_BN_Weights(WeightsEnum):
    """Weights of `vgg16_bn`."""

    IMAGENET1K_V1 = imagenet(138_365_992, 32)
    DEFAULT = IMAGENET1K_V1


@register_model(VGG16_BN_Weights)
def vgg16_bn(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VGG:
    """Configuration D with batch normalisation; arguments as for `VGG`.  WeightsError for
    `weights`."""
    return _vgg(16, True, weights, kwargs)


class VGG19_Weights(WeightsEnum):
    """Weights of `vgg19`."""

    IMAGENET1K_V1 = imagenet(143_667_240, 32)
    DEFAULT = IMAGENET1K_V1


@register_model(VGG19_Weights)
def vgg19(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VGG:
    """Configuration E; further arguments are those of `VGG`.  WeightsError for `weights`."""
    return _vgg(19, False, weights, kwargs)


class VGG19_BN_Weights(WeightsEnum):
    """Weights of `vgg19_bn`."""

    IMAGENET1K_V1 = imagenet(143_678_248, 32)
    DEFAULT = IMAGENET1K_V1


@register_model(VGG19_BN_Weights)
def vgg19_bn(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> VGG:
    """Configuration E with batch normalisation; arguments as for `VGG`.  WeightsError for
    `weights`."""
    return _vgg(19, True, weights, kwargs)
