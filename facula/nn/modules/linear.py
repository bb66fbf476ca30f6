"""Linear layers: Identity, Linear, Bilinear."""

from __future__ import annotations

import math
from typing import Any

from facula.nn import functional as F
from facula.nn import init
from facula.nn.modules.make import empty
from facula.nn.modules.module import Module
from facula.nn.parameter import Parameter
from facula.tensor import Tensor

__all__ = ["Identity", "Linear", "Bilinear"]


class Identity(Module):
    """Returns its input; takes any arguments and ignores them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        return input


class Linear(Module):
    """`x @ weight.T + bias`: input `[*, in_features]`, output `[*, out_features]`.

    `weight` is `[out_features, in_features]`; both are drawn from U(-k, k), k = in_features**-0.5.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(empty((out_features, in_features), dtype, device))
        if bias:
            self.bias = Parameter(empty((out_features,), dtype, device))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features > 0 else 0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (f"in_features={self.in_features}, out_features={self.out_features}, "
                f"bias={self.bias is not None}")

    def _explain(self, args: Any, kwargs: Any) -> tuple[str | None, str | None]:
        x = args[0] if args else kwargs.get("input")
        if not isinstance(x, Tensor):
            return None, None
        shape, want = x.shape, self.in_features
        if x.ndim and shape[-1] == want:
            if x.dtype is not self.weight.dtype:
                name = self.weight.dtype.name
                return (f"got input of dtype {x.dtype.name}, and its weight is {name}",
                        f"x.to(facula.{name}) before it")
            return None, None
        detail = (f"got input of shape {list(shape)}, expects last dim {want} "
                  f"(weight of shape {list(self.weight.shape)})")
        if x.ndim > 2 and math.prod(shape[1:]) == want:
            return detail, "nn.Flatten() before it, or x.flatten(1)"
        tail = 1
        for k in range(x.ndim - 1, -1, -1):
            tail *= shape[k]
            if tail == want:
                return detail, f"nn.Flatten(start_dim={k - x.ndim}) before it"
        return detail, f"nn.Linear({shape[-1] if x.ndim else 1}, {self.out_features})"


class NonDynamicallyQuantizableLinear(Linear):
    """A `Linear` under the name by which PyTorch prints the last of `MultiheadAttention`."""


class Bilinear(Module):
    """`x1 @ weight[k] @ x2 + bias[k]` for every output feature k."""

    def __init__(self, in1_features: int, in2_features: int, out_features: int,
                 bias: bool = True, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        if in1_features <= 0:
            raise ValueError(f"in1_features must be > 0, but got {in1_features}")
        self.in1_features = in1_features
        self.in2_features = in2_features
        self.out_features = out_features
        self.weight = Parameter(empty((out_features, in1_features, in2_features), dtype, device))
        if bias:
            self.bias = Parameter(empty((out_features,), dtype, device))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
                f"out_features={self.out_features}, bias={self.bias is not None}")
