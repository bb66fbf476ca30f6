"""Losses between numbers, element by element."""

from __future__ import annotations

import math
from typing import Any

from facula.nn.functional.activation import _logsigmoid_of
from facula.nn.functional.common import (
    add_number,
    legacy,
    mul_number,
    number,
    reduced,
    same_shape,
    shape_of,
)
from facula.ops.composite import xlogy
from facula.ops.define import autocast_to, op
from facula.ops.promote import broadcast_tensors_to, cast, expand_to, operands
from facula.ops.reductions import constant, widened
from facula.tensor import Tensor, prim

__all__ = ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div", "poisson_nll_loss",
           "gaussian_nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits"]


def _pairs(make: Any) -> list[Any]:
    return [((make(3, 4), make(3, 4)), {}), ((make(5), make(5)), {"reduction": "sum"}),
            ((make(2, 3), make(2, 3)), {"reduction": "none"}), ((make(), make()), {})]


def _weighted(loss: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    """The reduction of a loss; with weights the mean is over their sum."""
    if weight is None:
        return reduced(loss, reduction)
    w = expand_to(cast(weight, loss.dtype), shape_of(loss))
    loss = prim("mul", loss, w)
    if reduction != "mean":
        return reduced(loss, reduction)
    return prim("div", reduced(loss, "sum"), reduced(w, "sum"))


@op(name="mse_loss", samples=_pairs)
@autocast_to("full")
def _mse(input: Tensor, target: Tensor, reduction: str = "mean",
         weight: Tensor | None = None) -> Tensor:
    """(input - target)**2."""
    a, b = operands(input, target)
    d = prim("sub", a, b)
    return _weighted(prim("mul", d, d), weight, reduction)


def mse_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
             reduction: str = "mean", weight: Tensor | None = None, *,
             broadcast: bool = False) -> Tensor:
    """(input - target)**2, its mean, its sum, or as it is (`reduction`).

    The shapes must be equal (BroadcastError) unless `broadcast`.
    """
    reduction = legacy(size_average, reduce, reduction)
    same_shape("mse_loss", input, target, broadcast)
    return _mse(input, target, reduction, weight)           # type: ignore[no-any-return]


@op(name="l1_loss", samples=_pairs)
@autocast_to("full")
def _l1(input: Tensor, target: Tensor, reduction: str = "mean",
        weight: Tensor | None = None) -> Tensor:
    """|input - target|."""
    a, b = operands(input, target)
    return _weighted(prim("abs", prim("sub", a, b)), weight, reduction)


def l1_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
            reduction: str = "mean", weight: Tensor | None = None, *,
            broadcast: bool = False) -> Tensor:
    """|input - target|.  The shapes must be equal (BroadcastError) unless `broadcast`."""
    reduction = legacy(size_average, reduce, reduction)
    same_shape("l1_loss", input, target, broadcast)
    return _l1(input, target, reduction, weight)            # type: ignore[no-any-return]


def _near_and_far(d: Tensor, border: float, near: float, far: float, less: float) -> Tensor:
    """near * d**2 where |d| < border, else far * |d| - less."""
    size = prim("abs", d)
    square = mul_number(prim("mul", d, d), near)
    line = add_number(mul_number(size, far), -less)
    return prim("where", prim("lt", size, number(size, border)), square, line)


@op(name="smooth_l1_loss", samples=lambda make: [*_pairs(make), (
    (make(3, 4, low=-3, high=3), make(3, 4)), {"beta": 0.5})])
@autocast_to("full")
def _smooth_l1(input: Tensor, target: Tensor, reduction: str = "mean",
               beta: float = 1.0) -> Tensor:
    """d**2 / (2 beta) where |d| < beta, else |d| - beta / 2."""
    a, b = operands(input, target)
    d = prim("sub", a, b)
    if beta == 0:
        return reduced(prim("abs", d), reduction)
    return reduced(_near_and_far(d, beta, 0.5 / beta, 1.0, 0.5 * beta), reduction)


def smooth_l1_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
                   reduction: str = "mean", beta: float = 1.0, *,
                   broadcast: bool = False) -> Tensor:
    """With d = input - target: d**2 / (2 beta) where |d| < beta, else |d| - beta / 2.

    Girshick 2015.  The shapes must be equal (BroadcastError) unless `broadcast`.
    """
    reduction = legacy(size_average, reduce, reduction)
    same_shape("smooth_l1_loss", input, target, broadcast)
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    return _smooth_l1(input, target, reduction, float(beta))     # type: ignore[no-any-return]


@op(name="huber_loss", samples=lambda make: [*_pairs(make), (
    (make(3, 4, low=-3, high=3), make(3, 4)), {"delta": 0.5})])
@autocast_to("full")
def _huber(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
           weight: Tensor | None = None) -> Tensor:
    """d**2 / 2 where |d| < delta, else delta * (|d| - delta / 2)."""
    a, b = operands(input, target)
    loss = _near_and_far(prim("sub", a, b), delta, 0.5, delta, 0.5 * delta * delta)
    return _weighted(loss, weight, reduction)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
               weight: Tensor | None = None, *, broadcast: bool = False) -> Tensor:
    """With d = input - target: d**2 / 2 where |d| < delta, else delta * (|d| - delta / 2).

    Huber 1964.  The shapes must be equal (BroadcastError) unless `broadcast`.
    """
    reduction = legacy(None, None, reduction)
    same_shape("huber_loss", input, target, broadcast)
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    return _huber(input, target, reduction, float(delta), weight)   # type: ignore


# ---------------------------------------------------------------- distributions

@op(name="kl_div", samples=lambda make: [
    ((make(3, 4), make(3, 4, low=0.1, high=1)), {}),
    ((make(3, 4), make(3, 4)), {"log_target": True, "reduction": "batchmean"}),
    ((make(4), make(4, low=0.1, high=1)), {"reduction": "none"})])
@autocast_to("full")
def _kl_div(input: Tensor, target: Tensor, reduction: str = "mean",
            log_target: bool = False) -> Tensor:
    """target * (log(target) - input), for log-probabilities as input."""
    x, t = operands(input, target)
    if log_target:
        loss = prim("mul", prim("exp", t), prim("sub", t, x))
    else:
        loss = prim("sub", xlogy(t, t), prim("mul", t, x))
    if reduction != "batchmean":
        return reduced(loss, reduction)
    total = reduced(loss, "sum")
    return prim("div", total, number(total, shape_of(x)[0] if x.ndim else 1))


def kl_div(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
           reduction: str = "mean", log_target: bool = False, *,
           broadcast: bool = False) -> Tensor:
    """target * (log(target) - input), for log-probabilities as input (and target: `log_target`).

    `reduction="batchmean"` divides the sum by the batch size, which is the divergence.  The
    shapes must be equal (BroadcastError) unless `broadcast`.
    """
    if reduction != "batchmean" or size_average is not None or reduce is not None:
        reduction = legacy(size_average, reduce, reduction)
    same_shape("kl_div", input, target, broadcast)
    return _kl_div(input, target, reduction, log_target)    # type: ignore[no-any-return]


@op(name="poisson_nll_loss", samples=lambda make: [
    ((make(3, 4), make(3, 4, low=0, high=3)), {}),
    ((make(3, 4, low=0.1, high=2), make(3, 4, low=0, high=3)), {"log_input": False,
                                                                  "full": True})])
@autocast_to("full")
def _poisson(input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
             eps: float = 1e-8, reduction: str = "mean") -> Tensor:
    """exp(x) - target * x, or x - target * log(x + eps) if not `log_input`."""
    x, t = operands(input, target, floating=True)
    if log_input:
        loss = prim("sub", prim("exp", x), prim("mul", t, x))
    else:
        loss = prim("sub", x, prim("mul", t, prim("log", add_number(x, eps))))
    if full:
        # Stirling's approximation of log(target!), where target > 1
        large = prim("gt", t, number(t, 1))
        safe = prim("where", large, t, number(t, 1))
        stirling = prim("add", prim("sub", prim("mul", safe, prim("log", safe)), safe),
                        mul_number(prim("log", mul_number(safe, 2 * math.pi)), 0.5))
        loss = prim("add", loss, prim("where", large, stirling, number(t, 0)))
    return reduced(loss, reduction)


def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
                     size_average: Any = None, eps: float = 1e-8, reduce: Any = None,
                     reduction: str = "mean", *, broadcast: bool = False) -> Tensor:
    """The negative log-likelihood of counts under a Poisson distribution.

    `full` adds Stirling's approximation of log(target!).  The shapes must be equal
    (BroadcastError) unless `broadcast`.
    """
    reduction = legacy(size_average, reduce, reduction)
    same_shape("poisson_nll_loss", input, target, broadcast)
    return _poisson(input, target, log_input, full, float(eps), reduction)  # type: ignore


@op(name="gaussian_nll_loss", samples=lambda make: [
    ((make(3, 4), make(3, 4), make(3, 4, low=0.2, high=2)), {}),
    ((make(3, 4), make(3, 4), make(3, low=0.2, high=2)), {"full": True}),
    ((make(3, 4), make(3, 4), make(3, 1, low=0.2, high=2)), {"reduction": "none"})])
def _gaussian(input: Tensor, target: Tensor, var: Tensor, full: bool = False, eps: float = 1e-6,
              reduction: str = "mean") -> Tensor:
    """(log(var) + (input - target)**2 / var) / 2."""
    if shape_of(var) == shape_of(input)[:-1] and var.ndim == input.ndim - 1:
        var = prim("reshape", var, shape=(*shape_of(var), 1))
    x, t, v = operands(input, target, var)
    # at least eps, and the gradient is as if it were not limited
    least = number(v, eps)
    short = prim("where", prim("lt", v, least), prim("sub", least, v), number(v, 0))
    v = prim("add", v, constant(short))
    d = prim("sub", x, t)
    loss = mul_number(prim("add", prim("log", v), prim("div", prim("mul", d, d), v)), 0.5)
    if full:
        loss = add_number(loss, 0.5 * math.log(2 * math.pi))
    return reduced(loss, reduction)


def gaussian_nll_loss(input: Tensor, target: Tensor, var: Any, full: bool = False,
                      eps: float = 1e-6, reduction: str = "mean", *,
                      broadcast: bool = False) -> Tensor:
    """The negative log-likelihood of target under a normal distribution.

    `var` has the input's shape, or that without its last dimension or with 1 in one place, or is
    a number.  The shapes of input and target must be equal (BroadcastError) unless `broadcast`.
    """
    reduction = legacy(None, None, reduction)
    same_shape("gaussian_nll_loss", input, target, broadcast)
    if not isinstance(var, Tensor):
        if var < 0:
            raise ValueError("var has negative entry/entries")
        from facula.ops.promote import full_like
        var = full_like(input, float(var))
    have, shape = shape_of(var), shape_of(input)
    if have != shape[:-1] and not broadcast:
        other = [n for n, m in zip(have, shape) if n != m]
        if len(have) != len(shape) or other not in ([], [1]):
            raise ValueError(f"var is of incorrect size: {list(have)} for an input of shape "
                             f"{list(shape)}; it has the input's shape, or 1 in one dimension, "
                             "or lacks the last")
    return _gaussian(input, target, var, full, float(eps), reduction)   # type: ignore


# ---------------------------------------------------------------- yes or no

@op(name="binary_cross_entropy", samples=lambda make: [
    ((make(3, 4, low=0.1, high=0.9), make(3, 4, low=0, high=1)), {}),
    ((make(3, 4, low=0.1, high=0.9), make(3, 4, low=0, high=1), make(4, low=0, high=1)),
     {"reduction": "sum"})])
@autocast_to("full")
def _bce(input: Tensor, target: Tensor, weight: Tensor | None = None,
         reduction: str = "mean") -> Tensor:
    """-(target * log(input) + (1 - target) * log(1 - input))."""
    x, t = operands(input, target)
    wide, u = widened(x), widened(t)
    one = number(wide, 1)

    def log(p: Tensor) -> Tensor:
        """log(p), at least -100, with the slope 1 / max(p, 1e-12)."""
        least = number(p, 1e-12)
        tiny = prim("lt", p, least)
        still = constant(p)
        bottom = prim("log", prim("where", tiny, still, least))
        floor = number(p, -100)
        bottom = prim("where", prim("lt", bottom, floor), floor, bottom)
        # its value, and through the difference, which is 0, the slope
        bottom = prim("add", bottom, mul_number(prim("sub", p, still), 1e12))
        return prim("where", tiny, bottom, prim("log", prim("where", tiny, least, p)))

    rest = prim("sub", one, wide)
    loss = prim("neg", prim("add", prim("mul", u, log(wide)),
                            prim("mul", prim("sub", one, u), log(rest))))
    if weight is not None:
        loss, w = broadcast_tensors_to((loss, cast(weight, loss.dtype)))
        loss = prim("mul", loss, w)
    return cast(reduced(loss, reduction), x.dtype)


def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None,
                         size_average: Any = None, reduce: Any = None, reduction: str = "mean",
                         *, broadcast: bool = False) -> Tensor:
    """-(target * log(input) + (1 - target) * log(1 - input)), each logarithm at least -100.

    The input holds probabilities.  The shapes must be equal (BroadcastError) unless `broadcast`.
    """
    reduction = legacy(size_average, reduce, reduction)
    same_shape("binary_cross_entropy", input, target, broadcast)
    return _bce(input, target, weight, reduction)           # type: ignore[no-any-return]


@op(name="binary_cross_entropy_with_logits", samples=lambda make: [
    ((make(3, 4, low=-3, high=3), make(3, 4, low=0, high=1)), {}),
    ((make(3, 4), make(3, 4, low=0, high=1), make(4, low=0, high=1), make(4, low=0, high=2)),
     {"reduction": "sum"})])
@autocast_to("full")
def _bce_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                pos_weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """(1 - target) * x - w * log(sigmoid(x)), w = 1 + (pos_weight - 1) * target."""
    x, t = operands(input, target)
    out_dtype = x.dtype
    x, t = widened(x), widened(t)
    rest = prim("mul", prim("sub", number(t, 1), t), x)
    log_sigmoid = _logsigmoid_of(x)
    if pos_weight is not None:
        q = expand_to(cast(pos_weight, x.dtype), shape_of(x))
        factor = add_number(prim("mul", add_number(q, -1), t), 1)
        log_sigmoid = prim("mul", factor, log_sigmoid)
    loss = prim("sub", rest, log_sigmoid)
    if weight is not None:
        loss, w = broadcast_tensors_to((loss, cast(weight, loss.dtype)))
        loss = prim("mul", loss, w)
    return cast(reduced(loss, reduction), out_dtype)


def binary_cross_entropy_with_logits(
        input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
        reduce: Any = None, reduction: str = "mean", pos_weight: Tensor | None = None, *,
        broadcast: bool = False) -> Tensor:
    """Binary cross-entropy of sigmoid(input), without overflow; `pos_weight` weighs the ones.

    The shapes must be equal (BroadcastError) unless `broadcast`.
    """
    reduction = legacy(size_average, reduce, reduction)
    same_shape("binary_cross_entropy_with_logits", input, target, broadcast)
    return _bce_logits(input, target, weight, pos_weight, reduction)    # type: ignore
