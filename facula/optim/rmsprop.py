"""Optimisers that divide by a running size of the gradient: RMSprop, Adagrad, Adadelta, Rprop."""

from __future__ import annotations

from typing import Any

from facula.optim.optimizer import Optimizer, check, positive_lr, zeros_of
from facula.tensor import Tensor

__all__ = ["RMSprop", "Adadelta", "Rprop"]


def signed(g: Tensor, p: Tensor, maximize: bool, decay: Tensor | None) -> Tensor:
    """The gradient to descend along, with weight decay added if there is any."""
    if maximize:
        g = -g                                              # type: ignore[operator]
    return g if decay is None else g + p * decay            # type: ignore[operator]


class _Counting(Optimizer):
    """Nothing depends on the number of the step, which is only counted."""

    _counts = True

    def begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        state["step"] = 0
        super().begin(group, p, state)

    def bucket(self, group: dict[str, Any], state: dict[str, Any]) -> Any:
        state["step"] += 1
        return 0


class RMSprop(_Counting):
    """p -= lr * g / (sqrt(v) + eps), v the running mean of g**2 (Hinton 2012).

    `centered` subtracts the square of g's running mean from v.
    """

    def __init__(self, params: Any, lr: Any = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
                 weight_decay: float = 0, momentum: float = 0, centered: bool = False,
                 capturable: bool = False, foreach: bool | None = None, maximize: bool = False,
                 differentiable: bool = False) -> None:
        positive_lr(lr)
        check("epsilon value", eps, eps >= 0.0)
        check("momentum value", momentum, momentum >= 0.0)
        check("weight_decay value", weight_decay, weight_decay >= 0.0)
        check("alpha value", alpha, alpha >= 0.0)
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable})

    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("square_avg", *(("momentum_buffer",) if group["momentum"] > 0 else ()),
                *(("grad_avg",) if group["centered"] else ()))

    def statics(self, group: dict[str, Any]) -> tuple[Any, ...]:
        return (group["maximize"], group["weight_decay"] != 0, group["momentum"] > 0,
                group["centered"], group["eps"])

    def numbers(self, group: dict[str, Any], bucket: Any) -> tuple[float, ...]:
        alpha = group["alpha"]
        return (group["lr"], alpha, 1 - alpha, group["momentum"], group["weight_decay"])

    def rule(self, statics: tuple[Any, ...], p: Tensor, g: Tensor, slots: tuple[Tensor, ...],
             numbers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maximize, decays, has_momentum, centered, eps = statics
        lr, alpha, rest, momentum, decay = numbers
        g = signed(g, p, maximize, decay if decays else None)
        v = slots[0] * alpha + g * g * rest
        new = [v]
        spread = v
        if centered:
            mean = slots[-1] + (g - slots[-1]) * rest
            spread = v - mean * mean
        size = spread.sqrt() + eps
        if has_momentum:
            buffer = slots[1] * momentum + g / size
            p = p - buffer * lr
            new.append(buffer)
        else:
            p = p - g / size * lr
        if centered:
            new.append(mean)
        return (p, *new)


class Adadelta(_Counting):
    """Steps in units of the parameter (Zeiler 2012): lr * g * rms(last steps) / rms(gradients)."""

    def __init__(self, params: Any, lr: Any = 1.0, rho: float = 0.9, eps: float = 1e-6,
                 weight_decay: float = 0, foreach: bool | None = None, *,
                 capturable: bool = False, maximize: bool = False,
                 differentiable: bool = False) -> None:
        positive_lr(lr)
        check("rho value", rho, 0.0 <= rho <= 1.0)
        check("epsilon value", eps, eps >= 0.0)
        check("weight_decay value", weight_decay, weight_decay >= 0.0)
        super().__init__(params, {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "capturable": capturable, "foreach": foreach, "differentiable": differentiable})

    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("square_avg", "acc_delta")

    def statics(self, group: dict[str, Any]) -> tuple[Any, ...]:
        return group["maximize"], group["weight_decay"] != 0, group["eps"]

    def numbers(self, group: dict[str, Any], bucket: Any) -> tuple[float, ...]:
        return (group["lr"], group["rho"], 1 - group["rho"], group["weight_decay"])

    def rule(self, statics: tuple[Any, ...], p: Tensor, g: Tensor, slots: tuple[Tensor, ...],
             numbers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maximize, decays, eps = statics
        lr, rho, rest, decay = numbers
        g = signed(g, p, maximize, decay if decays else None)
        v = slots[0] * rho + g * g * rest
        delta = (slots[1] + eps).sqrt() / (v + eps).sqrt() * g
        return p - delta * lr, v, slots[1] * rho + delta * delta * rest


class Rprop(_Counting):
    """Steps whose size grows while the gradient keeps its sign (Riedmiller and Braun 1993)."""

    def __init__(self, params: Any, lr: Any = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
                 step_sizes: tuple[float, float] = (1e-6, 50), *, capturable: bool = False,
                 foreach: bool | None = None, maximize: bool = False,
                 differentiable: bool = False) -> None:
        positive_lr(lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        super().__init__(params, {
            "lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable})

    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("prev", "step_size")

    def begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        state["step"] = 0
        state["prev"] = zeros_of(p)
        lr = group["lr"]
        lr = float(lr.item()) if isinstance(lr, Tensor) else lr
        state["step_size"] = zeros_of(p, complex(lr, lr) if p.dtype.is_complex else lr)

    def statics(self, group: dict[str, Any]) -> tuple[Any, ...]:
        return (group["maximize"],)

    def numbers(self, group: dict[str, Any], bucket: Any) -> tuple[float, ...]:
        return (*group["etas"], *group["step_sizes"])

    def rule(self, statics: tuple[Any, ...], p: Tensor, g: Tensor, slots: tuple[Tensor, ...],
             numbers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        less, more, smallest, largest = numbers
        if statics[0]:
            g = -g
        same = g * slots[0]
        turned = same < 0
        factor = less.where(turned, more.where(same > 0, same * 0 + 1))
        size = (slots[1] * factor).maximum(smallest).minimum(largest)
        g = (g * 0).where(turned, g)                # after a turn, one step is left out
        return p - g.sign() * size, g, size
