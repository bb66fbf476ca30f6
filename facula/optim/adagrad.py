"""Adagrad and averaged gradient descent: steps that shrink as they are counted."""

from __future__ import annotations

from typing import Any

from facula.optim.optimizer import Optimizer, check, positive_lr, zeros_of
from facula.optim.rmsprop import signed
from facula.tensor import Tensor

__all__ = ["Adagrad", "ASGD"]


class Adagrad(Optimizer):
    """p -= lr * g / (sqrt(sum of all g**2 so far) + eps) (Duchi et al. 2011)."""

    _counts = True

    def __init__(self, params: Any, lr: Any = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
                 initial_accumulator_value: float = 0, eps: float = 1e-10,
                 foreach: bool | None = None, *, maximize: bool = False,
                 differentiable: bool = False, fused: bool | None = None) -> None:
        positive_lr(lr)
        check("lr_decay value", lr_decay, lr_decay >= 0.0)
        check("weight_decay value", weight_decay, weight_decay >= 0.0)
        check("initial_accumulator_value value", initial_accumulator_value,
              initial_accumulator_value >= 0.0)
        check("epsilon value", eps, eps >= 0.0)
        super().__init__(params, {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "fused": fused})
        for group in self.param_groups:             # PyTorch's state is there from the start
            for p in group["params"]:
                self.begin(group, p, self.state[p])

    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("sum",)

    def begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        start = group["initial_accumulator_value"]
        state["step"] = 0
        state["sum"] = zeros_of(p, complex(start, start) if p.dtype.is_complex else start)

    def bucket(self, group: dict[str, Any], state: dict[str, Any]) -> Any:
        """The number of the step, on which the rate depends."""
        state["step"] += 1
        return state["step"] if group["lr_decay"] else 0

    def statics(self, group: dict[str, Any]) -> tuple[Any, ...]:
        return group["maximize"], group["weight_decay"] != 0, group["eps"]

    def numbers(self, group: dict[str, Any], bucket: Any) -> tuple[float, ...]:
        lr = group["lr"]
        if group["lr_decay"]:
            lr = lr / (1 + (bucket - 1) * group["lr_decay"])
        return (lr, group["weight_decay"])

    def rule(self, statics: tuple[Any, ...], p: Tensor, g: Tensor, slots: tuple[Tensor, ...],
             numbers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maximize, decays, eps = statics
        lr, decay = numbers
        g = signed(g, p, maximize, decay if decays else None)
        total = slots[0] + g * g
        return p - g / (total.sqrt() + eps) * lr, total


class ASGD(Optimizer):
    """Gradient descent that also keeps the average of its positions, in the state's `ax`.

    Polyak and Juditsky 1992; the step size is lr / (1 + lambd * lr * t)**alpha.
    """

    _counts = True

    def __init__(self, params: Any, lr: Any = 1e-2, lambd: float = 1e-4, alpha: float = 0.75,
                 t0: float = 1e6, weight_decay: float = 0, foreach: bool | None = None,
                 maximize: bool = False, differentiable: bool = False,
                 capturable: bool = False) -> None:
        positive_lr(lr)
        check("weight_decay value", weight_decay, weight_decay >= 0.0)
        super().__init__(params, {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay,
            "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
            "capturable": capturable})

    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("ax",)

    def begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        lr = group["lr"]
        state["step"] = 0
        state["eta"] = float(lr.item()) if isinstance(lr, Tensor) else float(lr)
        state["mu"] = 1.0
        state["ax"] = zeros_of(p)

    def bucket(self, group: dict[str, Any], state: dict[str, Any]) -> Any:
        """The step size and the weight of this position, as the last step left them."""
        count = state["step"] = state["step"] + 1
        before = float(state["eta"]), float(state["mu"])
        lr = group["lr"]
        lr = float(lr.item()) if isinstance(lr, Tensor) else lr
        state["eta"] = lr / (1 + group["lambd"] * lr * count) ** group["alpha"]
        state["mu"] = 1 / max(1, count - group["t0"])
        return before

    def _pack(self, state: Any) -> Any:
        import facula
        out = super()._pack(state)
        for name in ("eta", "mu"):
            if isinstance(out.get(name), float):
                out[name] = facula.tensor(out[name])
        return out

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for st in self.state.values():
            for name in ("eta", "mu"):
                if isinstance(st.get(name), Tensor):
                    st[name] = float(st[name].item())

    def statics(self, group: dict[str, Any]) -> tuple[Any, ...]:
        return group["maximize"], group["weight_decay"] != 0

    def numbers(self, group: dict[str, Any], bucket: Any) -> tuple[float, ...]:
        eta, mu = bucket
        return (eta, 1 - group["lambd"] * eta, mu, group["weight_decay"])

    def rule(self, statics: tuple[Any, ...], p: Tensor, g: Tensor, slots: tuple[Tensor, ...],
             numbers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maximize, decays = statics
        eta, shrink, mu, decay = numbers
        g = signed(g, p, maximize, decay if decays else None)
        p = p * shrink - g * eta
        # with mu = 1 the average is the position itself
        average = slots[0] + (p - slots[0]) * mu
        return p, p.where(mu.eq(1), average)
