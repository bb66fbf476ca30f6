"""Forward derivatives of matrix primitives, from their backward ones.

A gradient rule is linear in the gradient that arrives, and the tangent of the result is that
linear map transposed: the gradient of <vjp(g), tangents> with respect to g.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from facula.ops.primitive.rules import zeros_like

__all__ = ["from_backward"]


def from_backward(vjp: Callable[[Any, Any], tuple[Any, ...]]
                  ) -> Callable[[Any, tuple[Any, ...]], Any]:
    """The jvp that belongs to `vjp`."""
    def jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
        from facula.autograd import enable_grad, grad
        from facula.autograd.rules import Context
        needs = tuple([t is not None for t in tangents])
        with enable_grad():
            g = zeros_like(c.out).requires_grad_()
            parts = vjp(Context(c.inputs, c.out, c.attrs, needs), g)
            pairs = [(p, t) for p, t in zip(parts, tangents)
                     if p is not None and t is not None and p.requires_grad]
            if not pairs:
                return zeros_like(c.out)
            found = grad([p for p, _ in pairs], [g], [t for _, t in pairs], create_graph=True,
                         allow_unused=True)[0]
        return zeros_like(c.out) if found is None else found
    return jvp
