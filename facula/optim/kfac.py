"""K-FAC: natural-gradient steps with Kronecker-factored curvature."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from facula.autograd.backward import grad
from facula.curvature.kronecker import LIKELIHOODS, KroneckerFactors
from facula.curvature.operators import a_loss, parameters_of
from facula.errors import NotFiniteError
from facula.graph import record as _record
from facula.graph.record import recorder
from facula.optim.optimizer import Optimizer, check, zeros_of
from facula.tensor import scalar

__all__ = ["KFAC"]


class KFAC(Optimizer):
    """K-FAC (Martens and Grosse 2015; for convolutions Grosse and Martens 2016).

    The Fisher matrix of every `Linear` and `Conv2d` layer is taken as the Kronecker product of
    the second moment A of its inputs and that G of the gradients by its outputs, each a running
    average; the step is the gradient W turned into (G + damping')**-1 W (A + damping'')**-1.
    Other parameters take plain steps with momentum.

    model       the module; its layers are watched while a closure runs
    lr          the learning rate
    momentum    of the steps
    damping     lambda; its root is shared between the two factors in proportion to their size
                (section 6.3 of the paper)
    decay       of the running averages
    every       how many steps an inverse serves
    clip        bound on lr**2 times the step's squared Fisher norm: longer steps are scaled down
    likelihood  None: gradients of the loss itself (the empirical Fisher matrix); or one of
                those of `curvature.FisherOperator`: gradients of targets drawn from the model,
                for which the closure has to return (loss, outputs)
    reduction   whether the loss is a 'mean' or a 'sum' over samples
    weight_decay  added to the gradient

    Steps whose length and momentum come from products with the Gauss-Newton matrix, as the paper
    has them in sections 6.4 and 7, and a damping that follows them, are those of
    `HessianFree(model, preconditioner="kronecker", max_iter=1, momentum=True)`.

    `step(closure)` takes a closure that returns the loss, or (loss, outputs), and calls neither
    `zero_grad` nor `backward`; it returns the loss.  Samples lie along dimension 0 of a layer's
    input.  A layer that is used several times adds up its uses.  Raises NotFiniteError for a
    NaN or infinity in loss, gradient or moments before anything is changed by it.
    """

    def __init__(self, model: Any, lr: float = 0.01, momentum: float = 0.9,
                 damping: float = 1e-2, decay: float = 0.95, every: int = 10,
                 clip: float = 1e-2, likelihood: str | None = None, reduction: str = "mean",
                 weight_decay: float = 0.0) -> None:
        from facula import nn
        if not isinstance(model, nn.Module):
            raise TypeError(f"KFAC takes the module itself, not {type(model).__name__}: it has "
                            "to watch its layers")
        check("learning rate", lr, 0.0 <= lr)
        check("momentum", momentum, 0.0 <= momentum < 1.0)
        check("damping", damping, 0.0 < damping)
        check("decay", decay, 0.0 <= decay < 1.0)
        check("every", every, every >= 1)
        check("clip", clip, 0.0 < clip)
        check("weight_decay", weight_decay, 0.0 <= weight_decay)
        check("reduction", reduction, reduction in ("mean", "sum"))
        check("likelihood", likelihood, likelihood is None or likelihood in LIKELIHOODS)
        super().__init__(parameters_of(model), {
            "lr": lr, "momentum": momentum, "damping": damping, "decay": decay, "every": every,
            "clip": clip, "likelihood": likelihood, "reduction": reduction,
            "weight_decay": weight_decay})
        self._factors = KroneckerFactors(model, self, reduction, likelihood)
        self._layers = self._factors.layers
        if not self._layers:
            warnings.warn("KFAC found no Linear or Conv2d layer: its steps are plain ones",
                          stacklevel=2)

    # -- what a closure tells
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Make one step; returns the loss before it."""
        if closure is None:
            raise TypeError("KFAC.step() missing 1 required positional argument: 'closure'")
        rec = recorder()
        saved, rec.grad = rec.grad, True
        try:
            out, uses = self._factors.watched(closure)
            loss = a_loss(out[0] if isinstance(out, (tuple, list)) and out else out)
            params = self.param_groups[0]["params"]
            ends = [o for _, _, o in uses]
            found = grad([loss], [*params, *ends], retain_graph=True, allow_unused=True)
            gradients, scores = list(found[:len(params)]), list(found[len(params):])
            state = self.state[params[0]]
            count = state.setdefault("steps", 0)
            renew = count % self.param_groups[0]["every"] == 0
            if self.param_groups[0]["likelihood"] is not None:
                scores = self._factors.drawn(out, ends, "KFAC") if renew else scores
            rec.grad = False
            if renew and uses:
                self._factors.update(uses, scores, self.param_groups[0]["decay"])
                self._factors.invert(self.param_groups[0]["damping"])
            self._move(loss, gradients)
            state["steps"] = count + 1
        finally:
            rec.grad = saved
        _record.flush(rec, True)
        return loss.detach()

    # -- the step
    def _move(self, loss: Any, gradients: list[Any]) -> None:
        group = self.param_groups[0]
        params = group["params"]
        place = {id(p): k for k, p in enumerate(params)}
        for k, p in enumerate(params):
            if gradients[k] is not None and group["weight_decay"]:
                gradients[k] = gradients[k] + p.detach() * group["weight_decay"]
        steps = list(gradients)
        norm: Any = scalar(0.0, params[0].dtype)
        for layer in self._layers:
            w = place[id(layer.weight)]
            b = place.get(id(layer.bias)) if layer.bias is not None else None
            if gradients[w] is None or "inputs_inverse" not in self.state[layer.weight] \
                    or (layer.bias is not None and (b is None or gradients[b] is None)):
                continue
            steps[w], turned = self._factors.turned(layer, gradients[w],
                                                    None if b is None else gradients[b])
            norm = norm + (steps[w] * gradients[w]).sum()
            if b is not None:
                steps[b] = turned
                norm = norm + (turned * gradients[b]).sum()
        lr = group["lr"]
        value, size = float(loss), float(norm)
        finite = [g for g in gradients if g is not None]
        total = sum(((g * g).sum() for g in finite[1:]), (finite[0] * finite[0]).sum()) \
            if finite else norm
        if not all(np.isfinite([value, size, float(total)])):
            raise NotFiniteError(f"the loss ({value}) or its gradient holds a NaN or an infinity")
        scale = min(1.0, (group["clip"] / max(lr * lr * size, 1e-30)) ** 0.5)
        for p, step in zip(params, steps):
            if step is None:
                continue
            state = self.state[p]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = zeros_of(p)
            buffer = state["momentum_buffer"]
            buffer.mul_(scalar(group["momentum"], p.dtype)).add_(
                step * scalar(scale, p.dtype))
            p.sub_(buffer * scalar(lr, p.dtype))

