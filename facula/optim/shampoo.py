"""Shampoo and SOAP: preconditioners made of the gradients' second moments along each side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facula.optim.optimizer import Optimizer, check, fraction_betas, positive_lr, zeros_of
from facula.tensor import Tensor, from_array, scalar

__all__ = ["Shampoo", "SOAP"]


def _sides(shape: tuple[int, ...], most: int) -> tuple[int, int, bool, bool]:
    """A parameter as a matrix: rows, columns, and which sides are preconditioned."""
    rows = int(shape[0])
    columns = int(np.prod(shape[1:]))
    return rows, columns, rows <= most, columns <= most


def _power(matrix: Any, exponent: float, eps: float) -> Tensor:
    """A symmetric matrix to a power, from its eigenvalues in float64, which eps is added to."""
    a = np.array(matrix.detach()._peek(), dtype=np.float64)
    values, vectors = np.linalg.eigh((a + a.T) / 2)
    values = np.maximum(values, 0.0) + eps
    return from_array(((vectors * values ** exponent) @ vectors.T).astype(matrix.dtype.np))


def _refuse(name: str, p: Tensor) -> None:
    if p.dtype.kind != "f" or p.dtype.itemsize < 4:
        raise ValueError(f"{name} takes float32 and float64 parameters, and one is "
                         f"{p.dtype.name}")


def _identity(n: int, like: Tensor) -> Tensor:
    return from_array(np.eye(n, dtype=like.dtype.np))


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    return from_array(np.zeros(shape, like.dtype.np))


class _Sided(Optimizer):
    """What the two share: a step over parameters, each on its own."""

    def _step_group(self, group: dict[str, Any]) -> None:
        for p in group["params"]:
            if p._grad is None:
                continue
            state = self.state[p]
            if not state:
                _refuse(type(self).__name__, p)
                state["step"] = 0
                self.begin(group, p, state)
            state["step"] += 1
            self._one(group, p, p._grad, state)

    def _one(self, group: dict[str, Any], p: Any, g: Any, state: dict[str, Any]) -> None:
        raise NotImplementedError(f"{type(self).__name__} has no update")


class Shampoo(_Sided):
    """Shampoo (Gupta, Koren and Singer 2018): L**-1/4 G R**-1/4 for a gradient matrix G.

    L is the sum of G G' and R that of G' G over the steps (with `beta2` below 1, their moving
    averages).  A parameter of more dimensions is a matrix of its first by all others; one of a
    single dimension has L**-1/2 alone.  The step has the gradient's own norm (grafting, Anil et
    al. 2020), so that rates of SGD carry over.

    params        the parameters, float32 or float64
    lr            the learning rate
    momentum      of the preconditioned gradient
    beta2         1 for sums, less for averages
    weight_decay  decoupled: lr times this times the parameter is taken away
    eps           added to the eigenvalues of L and R
    every         how many steps a root serves
    max_dim       a side with more rows than this is left as it is
    graft         give the step the gradient's norm
    """

    def __init__(self, params: Any, lr: float = 0.1, momentum: float = 0.9, beta2: float = 1.0,
                 weight_decay: float = 0.0, eps: float = 1e-6, every: int = 10,
                 max_dim: int = 2048, graft: bool = True) -> None:
        positive_lr(lr)
        check("momentum", momentum, 0.0 <= momentum)
        check("beta2", beta2, 0.0 < beta2 <= 1.0)
        check("weight_decay", weight_decay, 0.0 <= weight_decay)
        check("eps", eps, 0.0 < eps)
        check("every", every, every >= 1)
        super().__init__(params, {"lr": lr, "momentum": momentum, "beta2": beta2,
                                  "weight_decay": weight_decay, "eps": eps, "every": every,
                                  "max_dim": max_dim, "graft": graft})

    def begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        state["momentum_buffer"] = zeros_of(p)
        if p.ndim == 0:
            return
        rows, columns, left, right = _sides(tuple(p.shape), group["max_dim"])
        for name, n, wanted in (("left", rows, left), ("right", columns,
                                                       right and p.ndim > 1)):
            if wanted:
                state[name] = _zeros((n, n), p)
                state[f"{name}_root"] = _identity(n, p)

    def _one(self, group: dict[str, Any], p: Any, g: Any, state: dict[str, Any]) -> None:
        def number(x: float) -> Any:
            return scalar(x, p.dtype)

        kept = group["beta2"]
        fresh = 1.0 if kept == 1.0 else 1.0 - kept
        out = g
        if "left" in state or "right" in state:
            rows, columns, _, _ = _sides(tuple(p.shape), group["max_dim"])
            m = g.reshape(rows, columns)
            sides = [k for k in ("left", "right") if k in state]
            for name in sides:
                moment = m.matmul(m.t()) if name == "left" else m.t().matmul(m)
                state[name].mul_(number(kept)).add_(moment * number(fresh))
                if (state["step"] - 1) % group["every"] == 0:
                    state[f"{name}_root"] = _power(state[name], -0.5 / len(sides),
                                                   group["eps"])
            if "left" in state:
                m = state["left_root"].matmul(m)
            if "right" in state:
                m = m.matmul(state["right_root"])
            out = m.reshape(p.shape)
            if group["graft"]:
                size = (out * out).sum().sqrt().clamp(min=1e-30)
                out = out * ((g * g).sum().sqrt() / size)
        buffer = state["momentum_buffer"]
        buffer.mul_(number(group["momentum"])).add_(out)
        lr = group["lr"]
        if group["weight_decay"]:
            p.mul_(number(1.0 - lr * group["weight_decay"]))
        p.sub_(buffer * number(lr))


class SOAP(_Sided):
    """SOAP (Vyas et al. 2024): Adam in the eigenbasis of Shampoo's preconditioner.

    The eigenvectors of L and R are followed by one step of the power method and a QR
    decomposition every `every` steps.  The first step only finds them and moves nothing.
    Parameters of no or one dimension are updated by Adam as it is, and so is along a side of
    more than `max_dim`.

    params        the parameters, float32 or float64
    lr            the learning rate
    betas         decay of the first and of the second moment
    shampoo_beta  decay of L and R; the second of `betas` unless given
    eps           added to the root of the second moment
    weight_decay  decoupled, as in AdamW
    """

    def __init__(self, params: Any, lr: float = 3e-3, betas: tuple[float, float] = (0.95, 0.95),
                 shampoo_beta: float | None = None, eps: float = 1e-8,
                 weight_decay: float = 0.01, every: int = 10, max_dim: int = 2048) -> None:
        positive_lr(lr)
        fraction_betas(betas)
        check("eps", eps, 0.0 <= eps)
        check("weight_decay", weight_decay, 0.0 <= weight_decay)
        check("every", every, every >= 1)
        if shampoo_beta is not None:
            check("shampoo_beta", shampoo_beta, 0.0 <= shampoo_beta < 1.0)
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "shampoo_beta": shampoo_beta,
                                  "eps": eps, "weight_decay": weight_decay, "every": every,
                                  "max_dim": max_dim})

    def begin(self, group: dict[str, Any], p: Tensor, state: dict[str, Any]) -> None:
        state["exp_avg"], state["exp_avg_sq"] = zeros_of(p), zeros_of(p)
        state["updates"] = 0
        if p.ndim < 2:
            return
        rows, columns, left, right = _sides(tuple(p.shape), group["max_dim"])
        for name, n, wanted in (("left", rows, left), ("right", columns, right)):
            if wanted:
                state[name] = _zeros((n, n), p)

    def _turn(self, state: dict[str, Any], x: Any, shape: tuple[int, int], back: bool) -> Any:
        """A tensor in the eigenbasis, or back from it."""
        m = x.reshape(shape)
        left, right = state.get("left_basis"), state.get("right_basis")
        if left is not None:
            m = (left if back else left.t()).matmul(m)
        if right is not None:
            m = m.matmul(right.t() if back else right)
        return m.reshape(x.shape)

    def _one(self, group: dict[str, Any], p: Any, g: Any, state: dict[str, Any]) -> None:
        def number(x: float) -> Any:
            return scalar(x, p.dtype)

        sides = [k for k in ("left", "right") if k in state]
        shape = _sides(tuple(p.shape), group["max_dim"])[:2] if sides else (1, p.numel())
        first = bool(sides) and f"{sides[0]}_basis" not in state
        if not first:
            state["updates"] += 1
            b1, b2 = group["betas"]
            mean, square = state["exp_avg"], state["exp_avg_sq"]
            turned = self._turn(state, g, shape, False) if sides else g
            mean.mul_(number(b1)).add_(g * number(1 - b1))
            square.mul_(number(b2)).add_(turned * turned * number(1 - b2))
            step = self._turn(state, mean, shape, False) if sides else mean
            k = state["updates"]
            scale = square.sqrt() * number((1 - b2 ** k) ** -0.5) + number(group["eps"])
            step = step / scale
            if sides:
                step = self._turn(state, step, shape, True)
            lr = group["lr"]
            if group["weight_decay"]:
                p.mul_(number(1.0 - lr * group["weight_decay"]))
            p.sub_(step * number(lr / (1 - b1 ** k)))
        if not sides:
            return
        beta = group["shampoo_beta"]
        beta = group["betas"][1] if beta is None else beta
        m = g.reshape(shape)
        for name in sides:
            moment = m.matmul(m.t()) if name == "left" else m.t().matmul(m)
            state[name].mul_(number(beta)).add_(moment * number(1 - beta))
        if first or state["step"] % group["every"] == 0:
            self._follow(state, sides, shape, first)

    def _follow(self, state: dict[str, Any], sides: Sequence[str], shape: tuple[int, int],
                first: bool) -> None:
        """The eigenvectors anew, those of the largest eigenvalues first."""
        for axis, name in ((0, "left"), (1, "right")):
            if name not in sides:
                continue
            moment = np.array(state[name]._peek(), dtype=np.float64)
            if first:
                basis = np.linalg.eigh((moment + moment.T) / 2)[1][:, ::-1]
            else:
                old = np.array(state[f"{name}_basis"]._peek(), dtype=np.float64)
                # The second moment goes with its directions when their order changes.
                size = np.einsum("ij,ik,kj->j", old, moment, old)
                order = np.argsort(-size, kind="stable")
                basis = np.linalg.qr(moment @ old[:, order])[0]
                square = state["exp_avg_sq"]
                there = np.array(square._peek()).reshape(shape)
                there = np.take(there, order, axis).reshape(tuple(square.shape))
                state["exp_avg_sq"] = from_array(np.ascontiguousarray(there))
            state[f"{name}_basis"] = from_array(np.ascontiguousarray(
                basis.astype(state[name].dtype.np)))
