"""Kronecker factors of the Fisher matrix, layer by layer: what K-FAC steps with, and what
conjugate gradients of Hessian-free optimisation can be preconditioned with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from facula.autograd.backward import grad
from facula.curvature.matrices import _FAMILIES, tensors
from facula.dtype import float64
from facula.errors import ClosureError, NotFiniteError
from facula.graph import record as _record
from facula.graph.record import recorder
from facula.tensor import Tensor, from_array, scalar

__all__ = ["KroneckerFactors", "LIKELIHOODS", "Turned"]

LIKELIHOODS = tuple(_FAMILIES)

Use = tuple[int, Tensor, Tensor]
"""The number of a layer, its input and its output."""


class _Watcher:
    """The hook on a layer; a class, so that it can be pickled with the module."""

    def __init__(self, factors: KroneckerFactors, index: int) -> None:
        self.factors, self.index = factors, index

    def __call__(self, module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        uses = self.factors._uses
        if uses is not None and output.requires_grad:
            uses.append((self.index, inputs[0], output))

    def __deepcopy__(self, memo: dict[int, Any]) -> _Watcher:
        """A copy of a module alone is watched by nobody else: optimisers are not copied along."""
        factors = memo.get(id(self.factors))
        return self if factors is None else _Watcher(factors, self.index)


class KroneckerFactors:
    """Running averages of the second moments of the layers' inputs and of the gradients by their
    outputs, and the inverses of both (Martens and Grosse 2015; for convolutions 2016).

    model       the module; its `Linear` and `Conv2d` layers are watched while a closure runs
    owner       the optimiser: what is known of a layer is in its state of the weight, as
                "inputs", "outputs", "inputs_inverse" and "outputs_inverse"
    reduction   whether losses are a 'mean' or a 'sum' over samples
    likelihood  None: the gradients are those of the loss; or a name of
                `curvature.FisherOperator`: of targets drawn from the model
    """

    def __init__(self, model: Any, owner: Any, reduction: str,
                 likelihood: str | None) -> None:
        from facula import nn
        self.owner, self.reduction, self.likelihood = owner, reduction, likelihood
        self.layers: list[Any] = []
        self._uses: list[Use] | None = None
        for module in model.modules():
            plain = type(module) is nn.Linear or (
                type(module) is nn.Conv2d and module.groups == 1
                and module.padding_mode == "zeros" and not isinstance(module.padding, str))
            if plain and module.weight.requires_grad:
                module.register_forward_hook(_Watcher(self, len(self.layers)))
                self.layers.append(module)

    @property
    def state(self) -> Any:
        """The optimiser's state by parameter."""
        return self.owner.state

    def watched(self, closure: Callable[[], Any]) -> tuple[Any, list[Use]]:
        """What the closure returns, and how it used the layers."""
        self._uses = []
        try:
            out = closure()
            return out, self._uses
        finally:
            self._uses = None

    def drawn(self, out: Any, ends: list[Tensor], who: str) -> list[Tensor | None]:
        """Gradients by the layers' outputs for targets that the model itself would draw."""
        assert self.likelihood is not None
        if not isinstance(out, (tuple, list)) or len(out) < 2:
            raise ClosureError(f"with a likelihood the closure of {who} has to return (loss, "
                               "outputs)")
        outputs = tensors(out[1], "outputs")
        seeds = []
        for z in outputs:
            _, draw = _FAMILIES[self.likelihood](z, min(1, z.ndim - 1))
            rows = z.shape[0] if self.reduction == "mean" else 1
            seeds.append((draw() * (1.0 / max(rows, 1))).detach())
        return list(grad(outputs, ends, seeds, retain_graph=True, allow_unused=True))

    def observe(self, closure: Callable[[], Any], decay: float, who: str) -> None:
        """Run the closure and add the second moments of its batch to the running averages."""
        rec = recorder()
        saved, rec.grad = rec.grad, True
        try:
            out, uses = self.watched(closure)
            ends = [o for _, _, o in uses]
            if not uses:
                return
            if self.likelihood is not None:
                scores = self.drawn(out, ends, who)
            else:
                loss = out[0] if isinstance(out, (tuple, list)) else out
                scores = list(grad([loss], ends, allow_unused=True))
            rec.grad = False
            self.update(uses, scores, decay)
        finally:
            rec.grad = saved

    def update(self, uses: list[Use], scores: list[Tensor | None], decay: float) -> None:
        """Add the second moments of one batch to the running averages.

        Raises NotFiniteError for a NaN or infinity, before anything is changed.
        """
        sums: dict[int, list[Any]] = {}
        for (index, x, _), g in zip(uses, scores):
            if g is None:
                continue
            a, b = _factors(self.layers[index], x.detach(), g, self.reduction)
            old = sums.get(index)
            sums[index] = [a, b] if old is None else [old[0] + a, old[1] + b]
        # A NaN or infinity shows in the trace: of a sum of squares no part cancels another.
        seen: Any = [t.diagonal().sum().to(float64) for pair in sums.values()
                     for t in pair]
        fresh: list[tuple[Any, str, Any]] = []
        for index, pair in sums.items():
            state = self.state[self.layers[index].weight]
            for name, new in zip(("inputs", "outputs"), pair):
                old = state.get(name)
                fresh.append((state, name, new if old is None
                              else old * decay + new * (1.0 - decay)))
        if not fresh:
            return
        import facula
        seen = facula.stack(seen)
        _record.flush(recorder())
        for k, value in enumerate(seen.tolist()):
            if not abs(value) < float("inf"):
                index = list(sums)[k // 2]
                raise NotFiniteError(
                    f"the second moment of the {('inputs', 'outputs')[k % 2]} of layer {index}, "
                    f"{self.layers[index]}, holds a NaN or an infinity")
        for state, name, value in fresh:
            state[name] = value.detach()

    def invert(self, damping: float) -> None:
        """Invert the factors; the root of `damping` is shared between the two in proportion to
        their size (section 6.3 of the paper)."""
        root = damping ** 0.5
        for layer in self.layers:
            state = self.state[layer.weight]
            if "inputs" not in state:
                continue
            a, b = (np.array(state[k]._peek(), dtype=np.float64) for k in ("inputs", "outputs"))
            mean_a, mean_b = np.trace(a) / len(a), np.trace(b) / len(b)
            pi = (mean_a / mean_b) ** 0.5 if mean_a > 0 and mean_b > 0 else 1.0
            dtype = layer.weight.dtype.np
            a[np.diag_indices_from(a)] += pi * root
            b[np.diag_indices_from(b)] += root / pi
            state["inputs_inverse"] = from_array(_inverse(a).astype(dtype))
            state["outputs_inverse"] = from_array(_inverse(b).astype(dtype))

    def turned(self, layer: Any, w: Any, b: Any) -> tuple[Any, Any]:
        """The gradient of a layer's weight and bias (None: no bias), times the inverse."""
        state = self.state[layer.weight]
        return turn(state["outputs_inverse"], state["inputs_inverse"], w, b)


def turn(outputs: Any, inputs: Any, w: Any, b: Any) -> tuple[Any, Any]:
    """outputs W inputs for the inverses of both factors, the bias being W's last column."""
    import facula
    flat = w.reshape(w.shape[0], -1)
    if b is not None:
        flat = facula.cat([flat, b.reshape(-1, 1)], 1)
    out: Any = outputs.matmul(flat).matmul(inputs)
    if b is None:
        return out.reshape(w.shape), None
    return out[:, :-1].reshape(w.shape), out[:, -1]


class Turned:
    """The inverse of the factors as a preconditioner of `curvature.conjugate_gradients`: of a
    flat vector, layer by layer.  Other parameters are divided by `rest`."""

    def __init__(self, factors: KroneckerFactors, params: list[Tensor], layout: Any,
                 rest: float) -> None:
        place = {id(p): k for k, p in enumerate(params)}
        self.layout = layout
        self.pairs: list[tuple[int, int | None]] = []
        self.tensors: list[Tensor] = [scalar(1.0 / rest, layout.dtype)]
        for layer in factors.layers:
            state = factors.state[layer.weight]
            w = place.get(id(layer.weight))
            b = place.get(id(layer.bias)) if layer.bias is not None else None
            if w is None or "inputs_inverse" not in state or (b is None) != (layer.bias is None):
                continue
            self.pairs.append((w, b))
            self.tensors += [state["outputs_inverse"], state["inputs_inverse"]]
        self.key = ("kronecker", tuple(layout.shapes), tuple(self.pairs))

    def apply(self, v: Any, *tensors: Any) -> Any:
        """The inverse times a vector `[n]`."""
        rest, parts = tensors[0], self.layout.split(v)
        out: list[Any] = [None] * len(parts)
        for k, (w, b) in enumerate(self.pairs):
            out[w], bias = turn(tensors[1 + 2 * k], tensors[2 + 2 * k], parts[w],
                                None if b is None else parts[b])
            if b is not None:
                out[b] = bias
        return self.layout.join([p * rest if o is None else o for p, o in zip(parts, out)])


def _inverse(a: np.ndarray) -> np.ndarray:
    out = np.linalg.inv(a)
    return (out + out.T) * 0.5


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
