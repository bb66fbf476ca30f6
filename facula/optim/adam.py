"""Adam and its relatives: Adam, AdamW, Adamax, NAdam, RAdam."""

from __future__ import annotations

from typing import Any

from facula.optim.optimizer import Optimizer, check, fraction_betas, positive_lr, zeros_of
from facula.tensor import Tensor

__all__ = ["Adam", "AdamW", "Adamax", "NAdam", "RAdam"]


class _Moments(Optimizer):
    """What they share: running means of the gradient and its square, and a step count."""

    _counts = True

    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        state["step"] = 0
        for name in self.slots(group):
            state[name] = zeros_of(p)

    def bucket(self, group: dict[str, Any], state: dict[str, Any]) -> Any:
        """The number of the step that is being made."""
        count = state["step"] = state["step"] + 1
        return count


def _decayed(statics: Any, p: Tensor, g: Tensor, lr_decay: Tensor, decay: Tensor, maximize: bool,
             decays: bool, decoupled: bool) -> tuple[Tensor, Tensor]:
    """The parameter and gradient after weight decay, which is one or the other's affair."""
    if maximize:
        g = -g
    if decays:
        if decoupled:
            p = p * lr_decay
        else:
            g = g + p * decay
    return p, g


class Adam(_Moments):
    """Adam (Kingma and Ba 2015); `amsgrad` keeps the largest second moment."""

    _decoupled = False

    def __init__(self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, amsgrad: bool = False, *,
                 foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
                 differentiable: bool = False, fused: bool | None = None,
                 decoupled_weight_decay: bool = False) -> None:
        positive_lr(lr)
        check("epsilon value", eps, eps >= 0.0)
        fraction_betas(betas)
        check("weight_decay value", weight_decay, weight_decay >= 0.0)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "amsgrad": amsgrad, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable, "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay})

    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq", "max_exp_avg_sq") if group["amsgrad"] else \
            ("exp_avg", "exp_avg_sq")

    def statics(self, group: dict[str, Any]) -> tuple[Any, ...]:
        return (group["maximize"], group["weight_decay"] != 0, group["decoupled_weight_decay"],
                group["amsgrad"], group["eps"])

    def numbers(self, group: dict[str, Any], bucket: Any) -> tuple[float, ...]:
        lr, (b1, b2) = group["lr"], group["betas"]
        c1, c2 = 1 - b1 ** bucket, 1 - b2 ** bucket
        head = (lr / c1, c2 ** 0.5, 1 - b1, b2, 1 - b2)
        decay = group["weight_decay"]
        if decay == 0:
            return head
        return (*head, 1 - lr * decay if group["decoupled_weight_decay"] else decay)

    def rule(self, statics: tuple[Any, ...], p: Tensor, g: Tensor, slots: tuple[Tensor, ...],
             numbers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maximize, decays, decoupled, amsgrad, eps = statics
        size, root2, rest1, b2, rest2 = numbers[:5]
        p, g = _decayed(statics, p, g, numbers[-1], numbers[-1], maximize, decays, decoupled)
        m = slots[0] + (g - slots[0]) * rest1
        v = slots[1] * b2 + g * g * rest2
        top = v.maximum(slots[2]) if amsgrad else v
        p = p - m * size / (top.sqrt() / root2 + eps)
        return (p, m, v, top) if amsgrad else (p, m, v)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    def __init__(self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *,
                 maximize: bool = False, foreach: bool | None = None, capturable: bool = False,
                 differentiable: bool = False, fused: bool | None = None) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach,
                         maximize=maximize, capturable=capturable,
                         differentiable=differentiable, fused=fused,
                         decoupled_weight_decay=True)


class Adamax(_Moments):
    """Adam with the infinity norm in place of the second moment."""

    def __init__(self, params: Any, lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, foreach: bool | None = None, *,
                 maximize: bool = False, differentiable: bool = False,
                 capturable: bool = False) -> None:
        positive_lr(lr)
        check("epsilon value", eps, eps >= 0.0)
        fraction_betas(betas)
        check("weight_decay value", weight_decay, weight_decay >= 0.0)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
            "capturable": capturable})

    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("exp_avg", "exp_inf")

    def statics(self, group: dict[str, Any]) -> tuple[Any, ...]:
        return group["maximize"], group["weight_decay"] != 0, group["eps"]

    def numbers(self, group: dict[str, Any], bucket: Any) -> tuple[float, ...]:
        b1, b2 = group["betas"]
        return (group["lr"] / (1 - b1 ** bucket), 1 - b1, b2, group["weight_decay"])

    def rule(self, statics: tuple[Any, ...], p: Tensor, g: Tensor, slots: tuple[Tensor, ...],
             numbers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maximize, decays, eps = statics
        size, rest1, b2, decay = numbers
        p, g = _decayed(statics, p, g, decay, decay, maximize, decays, False)
        m = slots[0] + (g - slots[0]) * rest1
        u = (slots[1] * b2).maximum(g.abs() + eps)
        return p - m * size / u, m, u


class NAdam(_Moments):
    """Adam with Nesterov momentum (Dozat 2016)."""

    def __init__(self, params: Any, lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0, momentum_decay: float = 4e-3,
                 decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
                 maximize: bool = False, capturable: bool = False,
                 differentiable: bool = False) -> None:
        positive_lr(lr)
        check("epsilon value", eps, eps >= 0.0)
        fraction_betas(betas)
        check("weight_decay value", weight_decay, weight_decay >= 0.0)
        check("momentum_decay value", momentum_decay, momentum_decay >= 0.0)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay, "maximize": maximize,
            "foreach": foreach, "capturable": capturable, "differentiable": differentiable})

    def begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        super().begin(group, p, state)
        state["mu_product"] = 1.0

    def bucket(self, group: dict[str, Any], state: dict[str, Any]) -> Any:
        """The step's number, and the product of the momentum factors so far."""
        count = super().bucket(group, state)
        mu = group["betas"][0] * (1.0 - 0.5 * 0.96 ** (count * group["momentum_decay"]))
        state["mu_product"] = float(state["mu_product"]) * mu
        return count, state["mu_product"]

    def _pack(self, state: Any) -> Any:
        import facula
        out = super()._pack(state)
        if isinstance(out.get("mu_product"), float):
            out["mu_product"] = facula.tensor(out["mu_product"])
        return out

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for st in self.state.values():
            if isinstance(st.get("mu_product"), Tensor):
                st["mu_product"] = float(st["mu_product"].item())

    def statics(self, group: dict[str, Any]) -> tuple[Any, ...]:
        return (group["maximize"], group["weight_decay"] != 0, group["decoupled_weight_decay"],
                group["eps"])

    def numbers(self, group: dict[str, Any], bucket: Any) -> tuple[float, ...]:
        count, product = bucket
        lr, (b1, b2), md = group["lr"], group["betas"], group["momentum_decay"]
        mu = b1 * (1.0 - 0.5 * 0.96 ** (count * md))
        mu_next = b1 * (1.0 - 0.5 * 0.96 ** ((count + 1) * md))
        decay = group["weight_decay"]
        return (lr * (1.0 - mu) / (1.0 - product), lr * mu_next / (1.0 - product * mu_next),
                1 - b2 ** count, 1 - b1, b2, 1 - b2,
                1 - lr * decay if group["decoupled_weight_decay"] else decay)

    def rule(self, statics: tuple[Any, ...], p: Tensor, g: Tensor, slots: tuple[Tensor, ...],
             numbers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maximize, decays, decoupled, eps = statics
        size, size_next, c2, rest1, b2, rest2, decay = numbers
        p, g = _decayed(statics, p, g, decay, decay, maximize, decays, decoupled)
        m = slots[0] + (g - slots[0]) * rest1
        v = slots[1] * b2 + g * g * rest2
        denom = (v / c2).sqrt() + eps
        return p - g * size / denom - m * size_next / denom, m, v


class RAdam(_Moments):
    """Adam whose adaptive step waits until its variance can be told (Liu et al. 2020)."""

    def __init__(self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-8, weight_decay: float = 0,
                 decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
                 maximize: bool = False, capturable: bool = False,
                 differentiable: bool = False) -> None:
        positive_lr(lr)
        check("epsilon value", eps, eps >= 0.0)
        fraction_betas(betas)
        check("weight_decay value", weight_decay, weight_decay >= 0.0)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "maximize": maximize, "foreach": foreach, "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable})

    def statics(self, group: dict[str, Any]) -> tuple[Any, ...]:
        return (group["maximize"], group["weight_decay"] != 0, group["decoupled_weight_decay"],
                group["eps"])

    def numbers(self, group: dict[str, Any], bucket: Any) -> tuple[float, ...]:
        lr, (b1, b2) = group["lr"], group["betas"]
        c1, c2 = 1 - b1 ** bucket, 1 - b2 ** bucket
        limit = 2 / (1 - b2) - 1
        rho = limit - 2 * bucket * b2 ** bucket / c2
        adaptive = rho > 5.0
        rect = ((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)) ** 0.5 \
            if adaptive else 1.0
        decay = group["weight_decay"]
        return (c1, lr, rect, c2 ** 0.5, 1.0 if adaptive else 0.0, 1 - b1, b2, 1 - b2,
                1 - lr * decay if group["decoupled_weight_decay"] else decay)

    def rule(self, statics: tuple[Any, ...], p: Tensor, g: Tensor, slots: tuple[Tensor, ...],
             numbers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maximize, decays, decoupled, eps = statics
        c1, lr, rect, root2, adaptive, rest1, b2, rest2, decay = numbers
        p, g = _decayed(statics, p, g, decay, decay, maximize, decays, decoupled)
        m = slots[0] + (g - slots[0]) * rest1
        v = slots[1] * b2 + g * g * rest2
        # A number chooses the form, so that the program stays the same over the switch.
        scale = (root2 / (v.sqrt() + eps)).where(adaptive > 0, adaptive * 0 + 1)
        return p - m / c1 * lr * scale * rect, m, v
