"""Stochastic depth."""

from __future__ import annotations

from facula import nn
from facula.ops.creation import empty
from facula.tensor import Tensor

__all__ = ["StochasticDepth", "stochastic_depth"]


def stochastic_depth(input: Tensor, p: float, mode: str, training: bool = True) -> Tensor:
    """Zero with probability p, else input / (1 - p) (Huang et al. 2016).

    One draw for the whole batch (mode 'batch') or one for each example ('row').  ValueError for
    p outside of [0, 1] or another mode.
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"drop probability has to be between 0 and 1, but got {p}")
    if mode not in ("batch", "row"):
        raise ValueError(f"mode has to be either 'batch' or 'row', but got {mode}")
    if not training or p == 0.0:
        return input
    size = [input.shape[0] if mode == "row" else 1, *[1] * (input.ndim - 1)]
    noise = empty(size, dtype=input.dtype).bernoulli_(1.0 - p)  # type: ignore
    return input * (noise / (1.0 - p) if p < 1.0 else noise)


class StochasticDepth(nn.Module):
    """`stochastic_depth` in training, and its input in evaluation."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        self.p = p
        self.mode = mode

    def forward(self, input: Tensor) -> Tensor:
        return stochastic_depth(input, self.p, self.mode, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}, mode={self.mode}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"
