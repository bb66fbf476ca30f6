"""Batch normalisation in evaluation folded into the layer before it."""

from __future__ import annotations

import copy
from typing import Any

from facula.nn.init import no_grad
from facula.nn.modules.module import Module
from facula.nn.parameter import Parameter
from facula.tensor import Tensor

__all__ = ["fuse_conv_bn_eval", "fuse_conv_bn_weights", "fuse_linear_bn_eval",
           "fuse_linear_bn_weights"]


def _folded(weight: Any, bias: Any, mean: Any, var: Any, eps: float, scale: Any, shift: Any,
            axis: int) -> tuple[Parameter, Parameter]:
    """Weight and bias of the layer whose outputs, numbered by `axis`, are normalised."""
    trained = weight.requires_grad, bias is not None and bias.requires_grad
    dtypes = weight.dtype, weight.dtype if bias is None else bias.dtype
    with no_grad():
        factor = (var + eps).rsqrt()
        if scale is not None:
            factor = factor * scale
        shape = [1] * weight.ndim
        shape[axis] = -1
        weight = (weight * factor.reshape(shape)).to(dtypes[0])
        bias = (-mean if bias is None else bias - mean) * factor
        if shift is not None:
            bias = bias + shift
        return Parameter(weight, trained[0]), Parameter(bias.to(dtypes[1]), trained[1])


def fuse_conv_bn_weights(conv_w: Tensor, conv_b: Tensor | None, bn_rm: Tensor, bn_rv: Tensor,
                         bn_eps: float, bn_w: Tensor | None, bn_b: Tensor | None,
                         transpose: bool = False) -> tuple[Parameter, Parameter]:
    """Weight and bias of a convolution with a batch normalisation after it.

    `transpose` says that the weight is a transposed convolution's, `[in, out, *]`.
    """
    return _folded(conv_w, conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 1 if transpose else 0)


def fuse_linear_bn_weights(linear_w: Tensor, linear_b: Tensor | None, bn_rm: Tensor,
                           bn_rv: Tensor, bn_eps: float, bn_w: Tensor | None,
                           bn_b: Tensor | None) -> tuple[Parameter, Parameter]:
    """Weight and bias of a linear layer with a batch normalisation after it."""
    return _folded(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b, 0)


def _fused(layer: Any, bn: Any, *more: Any, fold: Any) -> Any:
    if layer.training or bn.training:
        raise AssertionError("Fusion only for eval!")
    if bn.running_mean is None or bn.running_var is None:
        raise AssertionError("bn.running_mean and bn.running_var must not be None")
    new = copy.deepcopy(layer)
    new.weight, new.bias = fold(layer.weight, layer.bias, bn.running_mean, bn.running_var,
                                bn.eps, bn.weight, bn.bias, *more)
    return new


def fuse_conv_bn_eval(conv: Any, bn: Module, transpose: bool = False) -> Any:
    """A copy of the convolution that computes what `bn(conv(x))` does in evaluation.

    Raises AssertionError while either is in training mode, or without running statistics.
    """
    return _fused(conv, bn, transpose, fold=fuse_conv_bn_weights)


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """A copy of the linear layer that computes what `bn(linear(x))` does in evaluation.

    Raises AssertionError while either is in training mode, without running statistics, or where
    the sizes differ.
    """
    if bn.num_features not in (linear.out_features, 1):
        raise AssertionError("To fuse, linear.out_features == bn.num_features or "
                             f"bn.num_features == 1, got linear.out_features="
                             f"{linear.out_features} and bn.num_features={bn.num_features}")
    return _fused(linear, bn, fold=fuse_linear_bn_weights)
