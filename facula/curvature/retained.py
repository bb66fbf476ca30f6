"""Products by differentiating twice backwards, for calls that are not one sequence of steps.

A call that asks for a value in the middle, or uses a custom Function or gradient hooks, leaves
its history in several graphs.  Its products come from that history: `J v` is the gradient of the
linear map `u -> J' u` (the double-backward trick), and J' H J is the Hessian less the part in
which the outputs themselves are curved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.autograd.backward import grad
from facula.curvature.linear import Layout
from facula.errors import GradientError
from facula.graph.record import _local
from facula.tensor import Tensor, from_array, prim

__all__ = ["RetainedHessian", "RetainedGaussNewton", "RetainedOuter"]


def _zeros(like: Tensor, requires_grad: bool = False) -> Tensor:
    import numpy as np
    t = from_array(np.zeros(tuple(like.shape), like.dtype.np))
    return t.requires_grad_() if requires_grad else t       # type: ignore[no-any-return]


def _grads(outputs: Sequence[Tensor], inputs: Sequence[Tensor], seeds: Sequence[Any],
           create: bool = False) -> list[Tensor | None]:
    """Gradients, None where there is none; every output's history is kept."""
    pairs = [(o, s) for o, s in zip(outputs, seeds) if o.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    return list(grad([o for o, _ in pairs], list(inputs), [s for _, s in pairs],
                     retain_graph=True, create_graph=create, allow_unused=True))


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else prim("add", a, b)


class _Retained:
    """What the three share: parameters, their layout, the vector in parts."""

    def __init__(self, params: Sequence[Tensor]):
        self.params = list(params)
        self.layout = Layout(params)
        self.extras: list[Tensor] = []

    def apply(self, flat: Tensor, numbers: Sequence[Tensor] = ()) -> Tensor:
        rec = _local.rec
        saved, rec.grad = rec.grad, True
        try:
            flat = flat.detach()
            return self.layout.join(self.product(self.layout.split(flat), numbers)).detach()
        finally:
            rec.grad = saved

    def product(self, parts: list[Tensor], numbers: Sequence[Tensor]) -> list[Tensor | None]:
        raise NotImplementedError(f"{type(self).__name__} has no product")

    def gradient(self, loss: Tensor) -> list[Tensor | None]:
        """The gradient of the loss, which can be differentiated again."""
        if not loss.requires_grad:
            raise GradientError("the loss does not depend on the parameters")
        g = _grads([loss], self.params, [None], True)
        self.extras = [loss.detach(), self.layout.join(g).detach()]
        return g

    def transposed(self, outputs: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor | None]]:
        """Cotangents u, and J' u as a function of them."""
        rec = _local.rec
        saved, rec.grad = rec.grad, True
        try:
            u = [_zeros(o, True) for o in outputs]
            return u, _grads(outputs, self.params, u, True)
        finally:
            rec.grad = saved

    @staticmethod
    def forward(u: list[Tensor], back: list[Tensor | None], parts: list[Tensor]
                ) -> list[Tensor | None]:
        """J v."""
        pairs = [(b, p) for b, p in zip(back, parts) if b is not None]
        return _grads([b for b, _ in pairs], u, [p for _, p in pairs])


class RetainedHessian(_Retained):
    """The Hessian of a loss."""

    def __init__(self, params: Sequence[Tensor], loss: Tensor):
        super().__init__(params)
        self.first = self.gradient(loss)

    def product(self, parts: list[Tensor], numbers: Sequence[Tensor]) -> list[Tensor | None]:
        pairs = [(g, p) for g, p in zip(self.first, parts) if g is not None]
        return _grads([g for g, _ in pairs], self.params, [p for _, p in pairs])


class RetainedGaussNewton(RetainedHessian):
    """The Gauss-Newton matrix of a loss, and mu J'J / rows of hidden states."""

    def __init__(self, params: Sequence[Tensor], loss: Tensor, outputs: Sequence[Tensor],
                 hidden: Sequence[Tensor], axis: int):
        super().__init__(params, loss)
        at = _grads([loss], outputs, [None])
        if all(g is None for g in at):
            raise GradientError("the loss does not depend on the outputs that were returned with "
                                "it: return the very tensor that the loss was computed from")
        weights = [None if g is None else g.detach() for g in at]
        pairs = [(o, w) for o, w in zip(outputs, weights) if w is not None]
        self.curved = _grads([o for o, _ in pairs], self.params, [w for _, w in pairs], True)
        self.hidden, self.axis = list(hidden), axis
        self.maps = self.transposed(self.hidden) if self.hidden else None

    def product(self, parts: list[Tensor], numbers: Sequence[Tensor]) -> list[Tensor | None]:
        whole = super().product(parts, numbers)
        pairs = [(g, p) for g, p in zip(self.curved, parts) if g is not None]
        bent = _grads([g for g, _ in pairs], self.params, [p for _, p in pairs])
        out = [_sum(w, None if b is None else prim("neg", b)) for w, b in zip(whole, bent)]
        if self.maps is not None:
            moved = self.forward(*self.maps, parts)
            seeds = [None if m is None else m.detach() * numbers[0]  # type: ignore[operator]
                     / h.shape[self.axis] for m, h in zip(moved, self.hidden)]
            pairs = [(h, s) for h, s in zip(self.hidden, seeds) if s is not None]
            more = _grads([h for h, _ in pairs], self.params, [s for _, s in pairs])
            out = [_sum(a, b) for a, b in zip(out, more)]
        return out


class RetainedOuter(_Retained):
    """scale * sum over samples and draws of J_n' s_n s_n' J_n."""

    def __init__(self, params: Sequence[Tensor], outputs: Sequence[Tensor],
                 scores: Sequence[Sequence[Tensor]], axis: int, scale: float):
        super().__init__(params)
        self.outputs, self.axis, self.scale = list(outputs), axis, scale
        self.scores = [[s.detach() for s in draw] for draw in scores]
        self.maps = self.transposed(self.outputs)

    def product(self, parts: list[Tensor], numbers: Sequence[Tensor]) -> list[Tensor | None]:
        moved: list[Any] = [None if m is None else m.detach()
                            for m in self.forward(*self.maps, parts)]
        seeds: list[Any] = [None] * len(self.outputs)
        for draw in self.scores:
            inner: Any = None
            for s, m in zip(draw, moved):
                if m is not None:
                    rest = [k for k in range(s.ndim) if k != self.axis % s.ndim]
                    part: Any = s * m                       # type: ignore[operator]
                    inner = _sum(inner, part.sum(rest, keepdim=True) if rest else part)
            for k, s in enumerate(draw):
                seeds[k] = _sum(seeds[k], s * inner * self.scale)   # type: ignore[operator]
        pairs = [(o, s) for o, s in zip(self.outputs, seeds) if s is not None]
        return _grads([o for o, _ in pairs], self.params, [s for _, s in pairs])
