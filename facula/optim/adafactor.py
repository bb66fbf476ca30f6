"""Optimisers that treat a matrix as a matrix: Adafactor and Muon."""

from __future__ import annotations

import math
from typing import Any

from facula.graph.record import recorder
from facula.optim.optimizer import Optimizer, positive_lr, zeros_of
from facula.tensor import Tensor

__all__ = ["Adafactor", "Muon"]


def _zeros(shape: tuple[int, ...], dtype: Any) -> Tensor:
    import numpy as np

    from facula.tensor import from_array
    return from_array(np.zeros(shape, dtype.np), copy=True)


class Adafactor(Optimizer):
    """Adam's second moment as an outer product of row and column means (Shazeer and Stern 2018)."""

    _counts = True

    def __init__(self, params: Any, lr: Any = 1e-2, beta2_decay: float = -0.8,
                 eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0,
                 weight_decay: float = 0.0, *, foreach: bool | None = None,
                 maximize: bool = False) -> None:
        positive_lr(lr)
        if not 0.0 >= beta2_decay:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        if eps[0] is not None and not 0.0 <= eps[0]:
            raise ValueError(f"epsilon1 should be >= 0 but is: {eps[0]}")
        if not 0.0 <= eps[1]:
            raise ValueError(f"epsilon2 should be >= 0 but is: {eps[1]}")
        if not 1.0 <= d:
            raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
        if not 0.0 <= weight_decay:
            raise ValueError(f"weight_decay should be >= 0 but is: {weight_decay}")
        super().__init__(params, {
            "lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d,
            "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize})

    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("row_var", "col_var")

    def begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        state["step"] = 0
        shape = tuple(p.shape)
        if len(shape) > 1:
            state["row_var"] = _zeros((*shape[:-1], 1), p.dtype)
            state["col_var"] = _zeros((*shape[:-2], 1, shape[-1]), p.dtype)
        else:
            state["variance"] = zeros_of(p)

    def _step_group(self, group: dict[str, Any]) -> None:
        """Matrices and vectors keep different things, so they are updated apart."""
        tape = recorder().tape
        for p in group["params"]:
            if p._grad is None:
                continue
            if p.dtype.is_complex:
                raise RuntimeError("Adafactor does not support complex parameters")
            st = self.state[p]
            if not st:
                self.begin(group, p, st)
            count = self.bucket(group, st) if tape is None else tape.freely(self.bucket, group, st)
            names = ("row_var", "col_var") if p.ndim > 1 else ("variance",)
            self._update(group, names, p.dtype, count, [(p, p._grad, st)])

    def bucket(self, group: dict[str, Any], state: dict[str, Any]) -> Any:
        """Counts the step."""
        state["step"] += 1
        return state["step"]

    def statics(self, group: dict[str, Any]) -> tuple[Any, ...]:
        return (group["maximize"], group["weight_decay"] != 0, *group["eps"], group["d"])

    def numbers(self, group: dict[str, Any], bucket: Any) -> tuple[float, ...]:
        lr = group["lr"]
        return (lr, min(lr, 1 / bucket ** 0.5), bucket ** group["beta2_decay"],
                1 - lr * group["weight_decay"])

    def rule(self, statics: tuple[Any, ...], p: Tensor, g: Tensor, slots: tuple[Tensor, ...],
             numbers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maximize, decays, eps1, eps2, d = statics
        lr, rho, rest, shrink = numbers
        if eps1 is None:
            eps1 = 2.0 ** -52 if p.dtype.itemsize == 8 else 2.0 ** -23
        if maximize:
            g = -g
        size = (p * p).sum().sqrt() / math.sqrt(p.numel())
        alpha = size.clamp(min=eps2) * rho
        if decays:
            p = p * shrink
        if len(slots) == 2:
            row = slots[0] + ((g * g).mean(-1, keepdim=True) - slots[0]) * rest
            col = slots[1] + ((g * g).mean(-2, keepdim=True) - slots[1]) * rest
            spread = row.matmul(col) / row.mean(-2, keepdim=True).clamp(min=eps1)
            new: tuple[Tensor, ...] = (row, col)
        else:
            spread = slots[0] + (g * g - slots[0]) * rest
            new = (spread,)
        update = spread.clamp(min=eps1 * eps1).rsqrt() * g
        norm = (update * update).sum().sqrt() / (math.sqrt(update.numel()) * d)
        return (p - update * (alpha / norm.clamp(min=1.0)), *new)


class Muon(Optimizer):
    """Momentum whose matrix is made orthogonal by Newton-Schulz steps (Jordan 2024).

    Every parameter is a matrix; use another optimiser for the others.
    """

    def __init__(self, params: Any, lr: float = 1e-3, weight_decay: float = 0.1,
                 momentum: float = 0.95, nesterov: bool = True,
                 ns_coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
                 eps: float = 1e-7, ns_steps: int = 5, adjust_lr_fn: str | None = None) -> None:
        if not 0.0 <= lr:
            raise ValueError(f"Learning rate should be >= 0 but is: {lr}")
        if not 0.0 <= momentum:
            raise ValueError(f"momentum should be >= 0 but is: {momentum}")
        if not 0.0 <= weight_decay:
            raise ValueError(f"weight decay should be >= 0 but is: {weight_decay}")
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        if ns_steps >= 100:
            raise ValueError("Number of steps must be less than 100 for computational efficiency")
        super().__init__(params, {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn})
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim != 2:
                    raise ValueError("Muon only supports 2D parameters whereas we found a "
                                     f"parameter with size: {p.shape}")

    def slots(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",)

    def statics(self, group: dict[str, Any]) -> tuple[Any, ...]:
        return (group["nesterov"], tuple(group["ns_coefficients"]), group["ns_steps"],
                group["eps"], group["adjust_lr_fn"])

    def numbers(self, group: dict[str, Any], bucket: Any) -> tuple[float, ...]:
        lr, momentum = group["lr"], group["momentum"]
        return (lr, 1 - lr * group["weight_decay"], momentum, 1 - momentum)

    def rule(self, statics: tuple[Any, ...], p: Tensor, g: Tensor, slots: tuple[Tensor, ...],
             numbers: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nesterov, coefficients, steps, eps, adjust = statics
        lr, shrink, momentum, rest = numbers
        buffer = slots[0] + (g - slots[0]) * rest
        update = g + (buffer - g) * momentum if nesterov else buffer
        rows, cols = p.shape
        ratio = 0.2 * math.sqrt(max(rows, cols)) if adjust == "match_rms_adamw" \
            else math.sqrt(max(1.0, rows / cols))
        return p * shrink - _orthogonal(update, coefficients, steps, eps) * (lr * ratio), buffer


def _orthogonal(g: Tensor, coefficients: tuple[float, ...], steps: int, eps: float) -> Tensor:
    """Nearly U V^T of g = U S V^T, by a quintic iteration in bfloat16 as PyTorch does it.

    Each line is computed in float32 and rounded once, as a product with its addend is there.
    """
    from facula.dtype import bfloat16, float32
    a, b, c = coefficients

    def rounded(t: Tensor) -> Tensor:
        return t.to(bfloat16).to(float32)

    x = rounded(g)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = rounded(x / rounded((x * x).sum().sqrt()).clamp(min=eps))
    for _ in range(steps):
        gram = rounded(x.matmul(x.T))
        update = rounded(gram * b + gram.matmul(gram) * c)
        x = rounded(x * a + update.matmul(x))
    out: Any = x.T if tall else x
    return out.to(g.dtype)                                  # type: ignore[no-any-return]
