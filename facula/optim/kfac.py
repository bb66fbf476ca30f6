"""K-FAC: natural-gradient steps with Kronecker-factored curvature."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from facula.autograd.backward import grad
from facula.curvature.matrices import _FAMILIES, tensors
from facula.curvature.operators import a_loss, parameters_of
from facula.errors import ClosureError, NotFiniteError
from facula.graph import record as _record
from facula.graph.record import recorder
from facula.optim.optimizer import Optimizer, check, zeros_of
from facula.tensor import Tensor, from_array, scalar

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
        check("likelihood", likelihood, likelihood is None or likelihood in _FAMILIES)
        super().__init__(parameters_of(model), {
            "lr": lr, "momentum": momentum, "damping": damping, "decay": decay, "every": every,
            "clip": clip, "likelihood": likelihood, "reduction": reduction,
            "weight_decay": weight_decay})
        self._layers: list[Any] = []
        self._uses: list[tuple[int, Any, Any]] | None = None
        for module in model.modules():
            plain = type(module) is nn.Linear or (
                type(module) is nn.Conv2d and module.groups == 1
                and module.padding_mode == "zeros" and not isinstance(module.padding, str))
            if plain and module.weight.requires_grad:
                module.register_forward_hook(self._watcher(len(self._layers)))
                self._layers.append(module)
        if not self._layers:
            warnings.warn("KFAC found no Linear or Conv2d layer: its steps are plain ones",
                          stacklevel=2)

    def _watcher(self, index: int) -> Callable[..., None]:
        def watch(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
            if self._uses is not None and output.requires_grad:
                self._uses.append((index, inputs[0], output))
        return watch

    # -- what a closure tells
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Make one step; returns the loss before it."""
        if closure is None:
            raise TypeError("KFAC.step() missing 1 required positional argument: 'closure'")
        rec = recorder()
        saved, rec.grad = rec.grad, True
        self._uses = []
        try:
            out = closure()
            uses, self._uses = self._uses, None
            loss = a_loss(out[0] if isinstance(out, (tuple, list)) and out else out)
            params = self.param_groups[0]["params"]
            ends = [o for _, _, o in uses]
            found = grad([loss], [*params, *ends], retain_graph=True, allow_unused=True)
            gradients, scores = list(found[:len(params)]), list(found[len(params):])
            state = self.state[params[0]]
            count = state.setdefault("steps", 0)
            renew = count % self.param_groups[0]["every"] == 0
            if self.param_groups[0]["likelihood"] is not None:
                scores = self._drawn(out, ends) if renew else scores
            rec.grad = False
            if renew and uses:
                self._moments(uses, scores)
                self._invert()
            self._move(loss, gradients)
            state["steps"] = count + 1
        finally:
            self._uses = None
            rec.grad = saved
        _record.flush(rec, True)
        return loss.detach()

    def _drawn(self, out: Any, ends: list[Tensor]) -> list[Tensor | None]:
        """Gradients by the layers' outputs for targets that the model itself would draw."""
        group = self.param_groups[0]
        if not isinstance(out, (tuple, list)) or len(out) < 2:
            raise ClosureError("with a likelihood the closure of KFAC has to return (loss, "
                               "outputs)")
        outputs = tensors(out[1], "outputs")
        seeds = []
        for z in outputs:
            _, draw = _FAMILIES[group["likelihood"]](z, min(1, z.ndim - 1))
            rows = z.shape[0] if group["reduction"] == "mean" else 1
            seeds.append((draw() * (1.0 / max(rows, 1))).detach())
        return list(grad(outputs, ends, seeds, retain_graph=True, allow_unused=True))

    def _moments(self, uses: list[Any], scores: list[Any]) -> None:
        """Add the second moments of this batch to the running averages."""
        group = self.param_groups[0]
        sums: dict[int, list[Any]] = {}
        for (index, x, _), g in zip(uses, scores):
            if g is None:
                continue
            a, b = _factors(self._layers[index], x.detach(), g, group["reduction"])
            old = sums.get(index)
            sums[index] = [a, b] if old is None else [old[0] + a, old[1] + b]
        for index, (a, b) in sums.items():
            state = self.state[self._layers[index].weight]
            for name, new in (("inputs", a), ("outputs", b)):
                new = np.array(new._peek())
                if not np.isfinite(new).all():
                    raise NotFiniteError(f"the second moment of the {name} of layer {index}, "
                                         f"{self._layers[index]}, holds a NaN or an infinity")
                old = state.get(name)
                if old is not None:
                    d = group["decay"]
                    new = d * np.array(old._peek()) + (1 - d) * new
                state[name] = from_array(new)

    def _invert(self) -> None:
        root = self.param_groups[0]["damping"] ** 0.5
        for layer in self._layers:
            state = self.state[layer.weight]
            if "inputs" not in state:
                continue
            a, b = (np.array(state[k]._peek(), dtype=np.float64) for k in ("inputs", "outputs"))
            mean_a, mean_b = np.trace(a) / len(a), np.trace(b) / len(b)
            pi = (mean_a / mean_b) ** 0.5 if mean_a > 0 and mean_b > 0 else 1.0
            dtype = layer.weight.dtype.np
            state["inputs_inverse"] = from_array(
                np.linalg.inv(a + pi * root * np.eye(len(a))).astype(dtype))
            state["outputs_inverse"] = from_array(
                np.linalg.inv(b + root / pi * np.eye(len(b))).astype(dtype))

    # -- the step
    def _turned(self, layer: Any, w: Any, b: Any) -> tuple[Any, Any]:
        """The natural gradient of a layer's weight and bias."""
        import facula
        state = self.state[layer.weight]
        flat = w.reshape(w.shape[0], -1)
        if layer.bias is not None:
            flat = facula.cat([flat, b.reshape(-1, 1)], 1)
        out: Any = state["outputs_inverse"].matmul(flat).matmul(state["inputs_inverse"])
        if layer.bias is None:
            return out.reshape(w.shape), None
        return out[:, :-1].reshape(w.shape), out[:, -1]

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
            steps[w], turned = self._turned(layer, gradients[w],
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


def _factors(layer: Any, x: Any, g: Any, reduction: str) -> tuple[Any, Any]:
    """The second moments of a layer's inputs (with a one for the bias) and output gradients.

    Gradients of a mean are 1/N of their sample's own, N being the number of samples.
    """
    import facula
    from facula import nn
    if isinstance(layer, nn.Conv2d):
        from facula.nn.functional import unfold
        patches = unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        rows, places = int(x.shape[0]), int(patches.shape[-1])
        a = patches.transpose(1, 2).reshape(rows * places, -1)
        b = g.permute(0, 2, 3, 1).reshape(rows * places, -1)
        over_a, over_b = rows, rows * places
    else:
        a, b = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
        rows = int(x.shape[0]) if x.ndim > 1 else 1
        over_a = over_b = int(a.shape[0])
    if layer.bias is not None:
        a = facula.cat([a, facula.ones(a.shape[0], 1, dtype=a.dtype)], 1)
    scale = rows * rows if reduction == "mean" else 1
    return a.t().matmul(a) * (1.0 / max(over_a, 1)), b.t().matmul(b) * (scale / max(over_b, 1))
