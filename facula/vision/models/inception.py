"""Inception v3 (Szegedy et al., Rethinking the Inception Architecture, 2015)."""

from __future__ import annotations

from typing import Any, NamedTuple

from facula import nn
from facula.nn import functional as F
from facula.ops.shape import cat, stack
from facula.tensor import Tensor
from facula.vision.models._weights import WeightsEnum, imagenet, refuse, register_model

__all__ = ["Inception3", "InceptionOutputs", "Inception_V3_Weights", "inception_v3"]


class InceptionOutputs(NamedTuple):
    """Scores, and those of the auxiliary classifier, each `[N, num_classes]`."""

    logits: Tensor
    aux_logits: Tensor | None


class BasicConv2d(nn.Module):
    """Convolution, norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, **kwargs: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, bias=False, **kwargs)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)     # type: ignore[no-any-return]


_C = BasicConv2d


class InceptionA(nn.Module):
    """1x1, 5x5, double 3x3 and pooled branches: 224 channels and `pool_features`."""

    def __init__(self, in_channels: int, pool_features: int) -> None:
        super().__init__()
        self.branch1x1 = _C(in_channels, 64, kernel_size=1)
        self.branch5x5_1 = _C(in_channels, 48, kernel_size=1)
        self.branch5x5_2 = _C(48, 64, kernel_size=5, padding=2)
        self.branch3x3dbl_1 = _C(in_channels, 64, kernel_size=1)
        self.branch3x3dbl_2 = _C(64, 96, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = _C(96, 96, kernel_size=3, padding=1)
        self.branch_pool = _C(in_channels, pool_features, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.branch_pool(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1))
        return cat([
            self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)),
            self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))), pooled], 1)


class InceptionB(nn.Module):
    """Half the size: 3x3, double 3x3 and pooled branches, 480 channels more."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch3x3 = _C(in_channels, 384, kernel_size=3, stride=2)
        self.branch3x3dbl_1 = _C(in_channels, 64, kernel_size=1)
        self.branch3x3dbl_2 = _C(64, 96, kernel_size=3, padding=1)
        self.branch3x3dbl_3 = _C(96, 96, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return cat([
            self.branch3x3(x), self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x))),
            F.max_pool2d(x, kernel_size=3, stride=2)], 1)


class InceptionC(nn.Module):
    """7x7 kernels as 1x7 and 7x1 with `channels_7x7` between: 768 channels."""

    def __init__(self, in_channels: int, channels_7x7: int) -> None:
        super().__init__()
        c = channels_7x7
        across: dict[str, Any] = {"kernel_size": (1, 7), "padding": (0, 3)}
        down: dict[str, Any] = {"kernel_size": (7, 1), "padding": (3, 0)}
        self.branch1x1 = _C(in_channels, 192, kernel_size=1)
        self.branch7x7_1 = _C(in_channels, c, kernel_size=1)
        self.branch7x7_2 = _C(c, c, **across)
        self.branch7x7_3 = _C(c, 192, **down)
        self.branch7x7dbl_1 = _C(in_channels, c, kernel_size=1)
        self.branch7x7dbl_2 = _C(c, c, **down)
        self.branch7x7dbl_3 = _C(c, c, **across)
        self.branch7x7dbl_4 = _C(c, c, **down)
        self.branch7x7dbl_5 = _C(c, 192, **across)
        self.branch_pool = _C(in_channels, 192, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        b = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        return cat([
            self.branch1x1(x), self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x))),
            self.branch7x7dbl_5(self.branch7x7dbl_4(b)),
            self.branch_pool(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1))], 1)


class InceptionD(nn.Module):
    """Half the size: 3x3, 7x7 with 3x3 and pooled branches, 512 channels more."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = _C(in_channels, 192, kernel_size=1)
        self.branch3x3_2 = _C(192, 320, kernel_size=3, stride=2)
        self.branch7x7x3_1 = _C(in_channels, 192, kernel_size=1)
        self.branch7x7x3_2 = _C(192, 192, kernel_size=(1, 7), padding=(0, 3))
        self.branch7x7x3_3 = _C(192, 192, kernel_size=(7, 1), padding=(3, 0))
        self.branch7x7x3_4 = _C(192, 192, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        b = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return cat([self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(b),
                           F.max_pool2d(x, kernel_size=3, stride=2)], 1)


class InceptionE(nn.Module):
    """3x3 kernels as 1x3 beside 3x1: 2048 channels."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        across: dict[str, Any] = {"kernel_size": (1, 3), "padding": (0, 1)}
        down: dict[str, Any] = {"kernel_size": (3, 1), "padding": (1, 0)}
        self.branch1x1 = _C(in_channels, 320, kernel_size=1)
        self.branch3x3_1 = _C(in_channels, 384, kernel_size=1)
        self.branch3x3_2a = _C(384, 384, **across)
        self.branch3x3_2b = _C(384, 384, **down)
        self.branch3x3dbl_1 = _C(in_channels, 448, kernel_size=1)
        self.branch3x3dbl_2 = _C(448, 384, kernel_size=3, padding=1)
        self.branch3x3dbl_3a = _C(384, 384, **across)
        self.branch3x3dbl_3b = _C(384, 384, **down)
        self.branch_pool = _C(in_channels, 192, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.branch3x3_1(x)
        b = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return cat([
            self.branch1x1(x), cat([self.branch3x3_2a(a), self.branch3x3_2b(a)], 1),
            cat([self.branch3x3dbl_3a(b), self.branch3x3dbl_3b(b)], 1),
            self.branch_pool(F.avg_pool2d(x, kernel_size=3, stride=1, padding=1))], 1)


class InceptionAux(nn.Module):
    """The classifier on 17x17 that gives the gradient a shorter way in training."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv0 = _C(in_channels, 128, kernel_size=1)
        self.conv1 = _C(128, 768, kernel_size=5)
        self.conv1.stddev = 0.01
        self.fc = nn.Linear(768, num_classes)
        self.fc.stddev = 0.001

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(self.conv0(F.avg_pool2d(x, kernel_size=5, stride=3)))
        x = F.adaptive_avg_pool2d(x, (1, 1)).flatten(1)
        return self.fc(x)                               # type: ignore[no-any-return]


class Inception3(nn.Module):
    """Images `[N, 3, 299, 299]` to scores `[N, num_classes]`.

    In training mode with `aux_logits` the result is `InceptionOutputs`.  `transform_input` takes
    images normalised with ImageNet's mean and deviation and gives them mean and deviation 0.5.
    """

    def __init__(self, num_classes: int = 1000, aux_logits: bool = True,
                 transform_input: bool = False, init_weights: bool = True, dropout: float = 0.5
                 ) -> None:
        super().__init__()
        self.aux_logits = aux_logits
        self.transform_input = transform_input
        self.Conv2d_1a_3x3 = _C(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = _C(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = _C(32, 64, kernel_size=3, padding=1)
        self.maxpool1 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.Conv2d_3b_1x1 = _C(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = _C(80, 192, kernel_size=3)
        self.maxpool2 = nn.MaxPool2d(kernel_size=3, stride=2)
        self.Mixed_5b = InceptionA(192, 32)
        self.Mixed_5c = InceptionA(256, 64)
        self.Mixed_5d = InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128)
        self.Mixed_6c = InceptionC(768, 160)
        self.Mixed_6d = InceptionC(768, 160)
        self.Mixed_6e = InceptionC(768, 192)
        self.AuxLogits = InceptionAux(768, num_classes) if aux_logits else None
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(p=dropout)
        self.fc = nn.Linear(2048, num_classes)
        if not init_weights:
            return
        for m in self.modules():
            if isinstance(m, (nn.Conv2d, nn.Linear)):
                deviation = float(getattr(m, "stddev", 0.1))
                nn.init.trunc_normal_(m.weight, mean=0.0, std=deviation, a=-2, b=2)
            elif isinstance(m, nn.BatchNorm2d):
                nn.init.constant_(m.weight, 1)
                nn.init.constant_(m.bias, 0)

    def forward(self, x: Tensor) -> Tensor | InceptionOutputs:
        if self.transform_input:
            x = stack([x[:, k] * (std / 0.5) + (mean - 0.5) / 0.5 for k, (mean, std) in
                              enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225)))], 1)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.maxpool2(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        aux = self.AuxLogits(x) if self.AuxLogits is not None and self.training else None
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        x = self.fc(self.dropout(self.avgpool(x)).flatten(1))
        if self.training and self.aux_logits:
            return InceptionOutputs(x, aux)
        return x


class Inception_V3_Weights(WeightsEnum):
    """Weights of `inception_v3`."""

    IMAGENET1K_V1 = imagenet(27_161_264, 75, 299, 342)
    DEFAULT = IMAGENET1K_V1


@register_model(Inception_V3_Weights)
def inception_v3(*, weights: Any = None, progress: bool = True, **kwargs: Any) -> Inception3:
    """Inception v3; further arguments are those of `Inception3`.  WeightsError for `weights`."""
    refuse("inception_v3", weights, kwargs)
    return Inception3(**kwargs)
