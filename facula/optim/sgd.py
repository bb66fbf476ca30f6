"""Gradient descent, plain and with momentum."""

from __future__ import annotations

from typing import Any

from facula.optim.optimizer import Optimizer, check, positive_lr, zeros_of
from facula.tensor import Tensor

__all__ = ["SGD", "GradientDescent", "GD"]


class SGD(Optimizer):
    """p -= lr * v, with v = momentum * v + (1 - dampening) * g, and g = grad + weight_decay * p.

    Nesterov's form steps along g + momentum * v.
    """

    def __init__(self, params: Any, lr: Any = 1e-3, momentum: float = 0, dampening: float = 0,
                 weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False,
                 foreach: bool | None = None, differentiable: bool = False,
                 fused: bool | None = None) -> None:
        positive_lr(lr)
        check("momentum value", momentum, momentum >= 0.0)
        check("weight_decay value", weight_decay, weight_decay >= 0.0)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "maximize": maximize, "foreach": foreach,
            "differentiable": differentiable, "fused": fused})

    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] != 0 else ()

    def begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        state["momentum_buffer"] = None

    def bucket(self, group: dict[str, Any], state: dict[str, Any]) -> Any:
        """Whether the buffer starts as the gradient itself, undampened."""
        return state.get("momentum_buffer") is None

    def _update(self, group: dict[str, Any], slots: tuple[str, ...], dtype: Any, bucket: Any,
                items: list[Any]) -> None:
        if bucket:
            for p, _, st in items:
                st["momentum_buffer"] = zeros_of(p)
            if group["dampening"] != 0:
                group = {**group, "dampening": 0}       # the first gradient counts in full
        super()._update(group, slots, dtype, bucket, items)

    def statics(self, group: dict[str, Any]) -> tuple[Any, ...]:
        return (group["maximize"], group["weight_decay"] != 0, group["momentum"] != 0,
                group["dampening"], group["nesterov"])

    def numbers(self, group: dict[str, Any], bucket: Any) -> tuple[float, ...]:
        lr, decay, momentum = group["lr"], group["weight_decay"], group["momentum"]
        if momentum != 0:
            return (lr, momentum, decay) if decay != 0 else (lr, momentum)
        return (lr, decay) if decay != 0 else (lr,)

    def rule(self, statics: tuple[Any, ...], p: Tensor, g: Tensor, slots: tuple[Tensor, ...],
             numbers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maximize, decays, has_momentum, dampening, nesterov = statics
        if maximize:
            g = -g
        if decays:
            g = g + p * numbers[-1]
        if not has_momentum:
            return (p - g * numbers[0],)
        momentum = numbers[1]
        v = slots[0] * momentum + (g * (1 - dampening) if dampening != 0 else g)
        g = g + v * momentum if nesterov else v
        return p - g * numbers[0], v


class GradientDescent(SGD):
    """Plain gradient descent: p -= lr * grad, with the gradient of the whole data set."""

    def __init__(self, params: Any, lr: Any = 1e-3, *, weight_decay: float = 0,
                 maximize: bool = False) -> None:
        super().__init__(params, lr, weight_decay=weight_decay, maximize=maximize)


GD = GradientDescent
