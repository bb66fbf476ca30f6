"""Gradients of convolutions by themselves, for their input and for their weight."""

from __future__ import annotations

from typing import Any

from facula.nn import functional as F
from facula.tensor import Tensor

__all__ = ["conv1d_input", "conv1d_weight", "conv2d_input", "conv2d_weight", "conv3d_input",
           "conv3d_weight"]


def _gradient(d: int, input: Any, weight: Any, of_input: bool, grad_output: Tensor,
              *geometry: Any) -> Tensor:
    """The gradient for one of the two; a shape may stand for that one."""
    import facula
    like = weight if of_input else input
    free = facula.zeros(tuple(input if of_input else weight), dtype=like.dtype,
                        requires_grad=True)
    with facula.enable_grad():
        out = getattr(F, f"conv{d}d")(free if of_input else input, weight if of_input else free,
                                      None, *geometry)
        (found,) = facula.autograd.grad(out, free, grad_output)
    assert found is not None
    return found


def conv1d_input(input_size: Any, weight: Tensor, grad_output: Tensor, stride: Any = 1,
                 padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
    """The gradient of `conv1d` for an input of shape `input_size`."""
    return _gradient(1, input_size, weight, True, grad_output, stride, padding, dilation, groups)


def conv1d_weight(input: Tensor, weight_size: Any, grad_output: Tensor, stride: Any = 1,
                  padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
    """The gradient of `conv1d` for a weight of shape `weight_size`."""
    return _gradient(1, input, weight_size, False, grad_output, stride, padding, dilation, groups)


def conv2d_input(input_size: Any, weight: Tensor, grad_output: Tensor, stride: Any = 1,
                 padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
    """The gradient of `conv2d` for an input of shape `input_size`."""
    return _gradient(2, input_size, weight, True, grad_output, stride, padding, dilation, groups)


def conv2d_weight(input: Tensor, weight_size: Any, grad_output: Tensor, stride: Any = 1,
                  padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
    """The gradient of `conv2d` for a weight of shape `weight_size`."""
    return _gradient(2, input, weight_size, False, grad_output, stride, padding, dilation, groups)


def conv3d_input(input_size: Any, weight: Tensor, grad_output: Tensor, stride: Any = 1,
                 padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
    """The gradient of `conv3d` for an input of shape `input_size`."""
    return _gradient(3, input_size, weight, True, grad_output, stride, padding, dilation, groups)


def conv3d_weight(input: Tensor, weight_size: Any, grad_output: Tensor, stride: Any = 1,
                  padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
    """The gradient of `conv3d` for a weight of shape `weight_size`."""
    return _gradient(3, input, weight_size, False, grad_output, stride, padding, dilation, groups)
