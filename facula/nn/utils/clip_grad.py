"""Gradient clipping, recorded with the step: no value reaches Python."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from facula.graph.record import recorder
from facula.tensor import Tensor

__all__ = ["clip_grad_norm", "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_",
           "get_total_norm"]


def _list(parameters: Any) -> list[Tensor]:
    return [parameters] if isinstance(parameters, Tensor) else list(parameters)


def get_total_norm(tensors: Iterable[Tensor], norm_type: float = 2.0,
                   error_if_nonfinite: bool = False, foreach: bool | None = None) -> Tensor:
    """The norm of all tensors taken together, a 0-dim tensor.

    Raises RuntimeError if it is not finite and `error_if_nonfinite` (which waits for the value).
    """
    import facula
    tensors = _list(tensors)
    norm_type = float(norm_type)
    if not tensors:
        return facula.tensor(0.0)
    parts = [t.detach().abs() for t in tensors]
    if norm_type == math.inf:
        total = facula.stack([p.amax() for p in parts]).amax()
    else:
        norms = [facula.linalg.vector_norm(p, norm_type) if norm_type != 2.0
                 else (p * p).sum().sqrt() for p in parts]
        if norm_type == 2.0:
            stacked = facula.stack(norms)
            total = (stacked * stacked).sum().sqrt()
        else:
            total = facula.linalg.vector_norm(facula.stack(norms), norm_type)
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(f"The total norm of order {norm_type} for gradients from `parameters` "
                           "is non-finite, so it cannot be clipped. To disable this error and "
                           "scale the gradients by the non-finite norm anyway, set "
                           "`error_if_nonfinite=False`")
    return total


def clip_grads_with_norm_(parameters: Any, max_norm: float, total_norm: Tensor,
                          foreach: bool | None = None) -> None:
    """Scale the gradients in place by `max_norm / total_norm` if that is below 1."""
    rec = recorder()
    grad, rec.grad = rec.grad, False
    try:
        scale = (float(max_norm) / (total_norm + 1e-6)).clamp(max=1.0)
        for p in _list(parameters):
            if p._grad is not None:
                p._grad.mul_(scale.to(p._grad.dtype))
    finally:
        rec.grad = grad


def clip_grad_norm_(parameters: Any, max_norm: float, norm_type: float = 2.0,
                    error_if_nonfinite: bool = False, foreach: bool | None = None) -> Tensor:
    """Scale the gradients in place so that their norm together is at most `max_norm`.

    Returns the norm before that, a 0-dim tensor.
    """
    parameters = _list(parameters)
    rec = recorder()
    grad, rec.grad = rec.grad, False
    try:
        total = get_total_norm([p._grad for p in parameters if p._grad is not None], norm_type,
                               error_if_nonfinite, foreach)
        clip_grads_with_norm_(parameters, max_norm, total, foreach)
    finally:
        rec.grad = grad
    return total


def clip_grad_norm(parameters: Any, max_norm: float, norm_type: float = 2.0,
                   error_if_nonfinite: bool = False, foreach: bool | None = None) -> Tensor:
    """The old name of `clip_grad_norm_`."""
    return clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)


def clip_grad_value_(parameters: Any, clip_value: float, foreach: bool | None = None) -> None:
    """Clamp every gradient in place to [-clip_value, clip_value]."""
    rec = recorder()
    grad, rec.grad = rec.grad, False
    try:
        for p in _list(parameters):
            if p._grad is not None:
                p._grad.clamp_(min=-float(clip_value), max=float(clip_value))
    finally:
        rec.grad = grad
