"""Gradients of convolutions by themselves, for their input and for their weight."""

from __future__ import annotations

from collections.abc import Callable
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


def _of_input(d: int) -> Callable[..., Tensor]:
    def gradient(input_size: Any, weight: Tensor, grad_output: Tensor, stride: Any = 1,
                 padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
        return _gradient(d, input_size, weight, True, grad_output, stride, padding, dilation,
                         groups)

    gradient.__name__ = gradient.__qualname__ = f"conv{d}d_input"
    gradient.__doc__ = f"The gradient of `conv{d}d` for an input of shape `input_size`."
    return gradient


def _of_weight(d: int) -> Callable[..., Tensor]:
    def gradient(input: Tensor, weight_size: Any, grad_output: Tensor, stride: Any = 1,
                 padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Tensor:
        return _gradient(d, input, weight_size, False, grad_output, stride, padding, dilation,
                         groups)

    gradient.__name__ = gradient.__qualname__ = f"conv{d}d_weight"
    gradient.__doc__ = f"The gradient of `conv{d}d` for a weight of shape `weight_size`."
    return gradient


conv1d_input, conv2d_input, conv3d_input = map(_of_input, (1, 2, 3))
conv1d_weight, conv2d_weight, conv3d_weight = map(_of_weight, (1, 2, 3))
