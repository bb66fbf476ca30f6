"""Layers that vision networks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from facula import nn
from facula.ops.creation import ones, zeros
from facula.tensor import Tensor

__all__ = ["MLP", "Conv2dNormActivation", "Conv3dNormActivation", "ConvNormActivation",
           "FrozenBatchNorm2d", "Permute", "SqueezeExcitation"]


class FrozenBatchNorm2d(nn.Module):
    """`BatchNorm2d` whose statistics and affine map are buffers: nothing of it is learned."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, value in (("weight", ones), ("bias", zeros),
                            ("running_mean", zeros), ("running_var", ones)):
            self.register_buffer(name, value(num_features))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()    # type: ignore
        shift = self.bias - self.running_mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.weight.shape[0]}, eps={self.eps})"


Layer = Callable[..., nn.Module]


class ConvNormActivation(nn.Sequential):
    """A convolution, a norm and an activation; each of the latter two may be None.

    `padding` None keeps the size where the stride is 1; the convolution has a bias where there
    is no norm, unless `bias` says otherwise.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any = 3, stride: Any = 1,
                 padding: Any = None, groups: int = 1, norm_layer: Layer | None = nn.BatchNorm2d,
                 activation_layer: Layer | None = nn.ReLU, dilation: Any = 1,
                 inplace: bool | None = True, bias: bool | None = None,
                 conv_layer: Layer = nn.Conv2d) -> None:
        if padding is None:
            if isinstance(kernel_size, int) and isinstance(dilation, int):
                padding = (kernel_size - 1) // 2 * dilation
            else:
                dims = len(kernel_size if isinstance(kernel_size, Sequence) else dilation)
                kernels, dilations = (v if isinstance(v, Sequence) else (v,) * dims
                                      for v in (kernel_size, dilation))
                padding = tuple([(k - 1) // 2 * d for k, d in zip(kernels, dilations)])
        layers: list[nn.Module] = [conv_layer(
            in_channels, out_channels, kernel_size, stride, padding, dilation=dilation,
            groups=groups, bias=norm_layer is None if bias is None else bias)]
        if norm_layer is not None:
            layers.append(norm_layer(out_channels))
        if activation_layer is not None:
            layers.append(activation_layer(**{} if inplace is None else {"inplace": inplace}))
        super().__init__(*layers)
        self.out_channels = out_channels


class Conv2dNormActivation(ConvNormActivation):
    """`Conv2d`, `BatchNorm2d` and `ReLU`, or what is given in their place."""


class Conv3dNormActivation(ConvNormActivation):
    """`Conv3d`, `BatchNorm3d` and `ReLU`, or what is given in their place."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any = 3, stride: Any = 1,
                 padding: Any = None, groups: int = 1, norm_layer: Layer | None = nn.BatchNorm3d,
                 activation_layer: Layer | None = nn.ReLU, dilation: Any = 1,
                 inplace: bool | None = True, bias: bool | None = None) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, groups,
                         norm_layer, activation_layer, dilation, inplace, bias, nn.Conv3d)


class SqueezeExcitation(nn.Module):
    """Each channel of `[N, C, H, W]` times a number that all channels' means decide
    (Hu et al. 2018)."""

    def __init__(self, input_channels: int, squeeze_channels: int, activation: Layer = nn.ReLU,
                 scale_activation: Layer = nn.Sigmoid) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(input_channels, squeeze_channels, 1)
        self.fc2 = nn.Conv2d(squeeze_channels, input_channels, 1)
        self.activation = activation()
        self.scale_activation = scale_activation()

    def forward(self, input: Tensor) -> Tensor:
        scale = self.fc2(self.activation(self.fc1(self.avgpool(input))))
        return self.scale_activation(scale) * input     # type: ignore[no-any-return]


class MLP(nn.Sequential):
    """Linear layers of the sizes `hidden_channels`, each but the last with norm, activation and
    dropout; after the last there is dropout alone."""

    def __init__(self, in_channels: int, hidden_channels: list[int],
                 norm_layer: Layer | None = None, activation_layer: Layer | None = nn.ReLU,
                 inplace: bool | None = None, bias: bool = True, dropout: float = 0.0) -> None:
        params = {} if inplace is None else {"inplace": inplace}
        layers: list[nn.Module] = []
        size = in_channels
        for hidden in hidden_channels[:-1]:
            layers.append(nn.Linear(size, hidden, bias=bias))
            if norm_layer is not None:
                layers.append(norm_layer(hidden))
            if activation_layer is not None:
                layers.append(activation_layer(**params))
            layers.append(nn.Dropout(dropout, **params))
            size = hidden
        layers += [nn.Linear(size, hidden_channels[-1], bias=bias), nn.Dropout(dropout, **params)]
        super().__init__(*layers)


class Permute(nn.Module):
    """`x.permute(dims)` as a layer."""

    def __init__(self, dims: list[int]) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.dims)                     # type: ignore[no-any-return]
