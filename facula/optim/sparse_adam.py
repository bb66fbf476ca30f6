"""SparseAdam: Adam for tables of which a step uses a few rows."""

from __future__ import annotations

import math
from typing import Any

from facula.optim.optimizer import Optimizer, check
from facula.tensor import Tensor

__all__ = ["SparseAdam"]


class SparseAdam(Optimizer):
    """Adam that leaves alone what has no gradient: rows that a step did not use keep still.

    A row (along the first dimension) whose gradient is zero throughout keeps its value and its
    moments, where Adam would let both move on by what is left of earlier gradients.  Made for
    `nn.Embedding(sparse=True)`; gradients are dense here, so any layer will do.
    """

    def __init__(self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, maximize: bool = False) -> None:
        if isinstance(lr, Tensor) and lr.numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        if not isinstance(lr, Tensor):
            check("learning rate", lr, 0.0 < lr)
        check("epsilon value", eps, 0.0 < eps)
        for i, beta in enumerate(betas):
            check(f"beta parameter at index {i}", beta, 0.0 <= beta < 1.0)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})
        complex_params = [[i, j] for i, group in enumerate(self.param_groups)
                          for j, p in enumerate(group["params"]) if p.dtype.is_complex]
        if complex_params:
            raise ValueError(f"Complex params at indices {complex_params}: SparseAdam does not "
                             "support complex parameters")

    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        state["step"] = 0
        super().begin(group, p, state)

    def bucket(self, group: dict[str, Any], state: dict[str, Any]) -> Any:
        state["step"] += 1
        return state["step"]

    def statics(self, group: dict[str, Any]) -> tuple[Any, ...]:
        return (group["maximize"], group["eps"])

    def numbers(self, group: dict[str, Any], bucket: Any) -> tuple[Any, ...]:
        beta1, beta2 = group["betas"]
        size = math.sqrt(1 - beta2 ** bucket) / (1 - beta1 ** bucket)
        return (group["lr"] * size, 1 - beta1, 1 - beta2)

    def rule(self, statics: tuple[Any, ...], p: Tensor, g: Tensor, slots: tuple[Tensor, ...],
             numbers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maximize, eps = statics
        size, rest1, rest2 = numbers
        used = g.ne(0.0)
        if g.ndim > 1:
            used = used.any(tuple(range(1, g.ndim)), keepdim=True)
        if maximize:
            g = -g
        mean, square = slots
        mean = (mean + (g - mean) * rest1).where(used, mean)
        square = (square + (g * g - square) * rest2).where(used, square)
        return p - (mean / (square.sqrt() + eps) * size).where(used, 0.0), mean, square

    def _pack(self, state: Any) -> Any:
        """The count of steps is saved as the number it is."""
        return dict(state) if isinstance(state, dict) else state
