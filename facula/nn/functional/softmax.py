"""Normalised exponentials and unit vectors: softmax and its kind, normalize."""

from __future__ import annotations

import warnings
from typing import Any

from facula.dtype import DType
from facula.nn.functional.common import axis_iota, number, shape_of, vector_norm
from facula.ops import reductions as _reductions
from facula.ops.define import composite, op
from facula.ops.promote import cast, expand_to
from facula.ops.reductions import axes_of, constant, wrap_dim
from facula.tensor import Tensor, prim

__all__ = ["softmax", "softmin", "log_softmax", "gumbel_softmax", "normalize"]


def _implicit_dim(name: str, ndim: int) -> int:
    warnings.warn(f"Implicit dimension choice for {name} has been deprecated. Change the call to "
                  "include dim=X as an argument.", stacklevel=4)
    return 0 if ndim in (0, 1, 3) else 1


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3,
            dtype: DType | None = None) -> Tensor:
    """exp(input) / sum(exp(input)) along `dim`; `dtype` converts the input first."""
    if dim is None:
        dim = _implicit_dim("softmax", input.ndim)
    return _reductions.softmax(input, dim, dtype=dtype)       # type: ignore[no-any-return]


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3,
            dtype: DType | None = None) -> Tensor:
    """softmax(-input) along `dim`."""
    if dim is None:
        dim = _implicit_dim("softmin", input.ndim)
    return _softmin(input, dim, dtype)                        # type: ignore[no-any-return]


@op(name="softmin", samples=lambda make: [((make(3, 4), 1), {}), ((make(2, 5, 3), 1), {}),
                                          ((make(), 0), {})])
def _softmin(input: Tensor, dim: int, dtype: DType | None = None) -> Tensor:
    """softmax(-input) along `dim`."""
    result: Tensor = _reductions.softmax(prim("neg", input), dim, dtype=dtype)
    return result


def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3,
                dtype: DType | None = None) -> Tensor:
    """log(softmax(input)) along `dim`, stable."""
    if dim is None:
        dim = _implicit_dim("log_softmax", input.ndim)
    return _reductions.log_softmax(input, dim, dtype=dtype)   # type: ignore[no-any-return]


@composite
def _gumbel(logits: Tensor, u: Tensor, tau: float, hard: bool, dim: int) -> Tensor:
    axis = wrap_dim(dim, logits.ndim)
    # -log(u) is exponential for u in (0, 1]; its smallest value keeps the second log finite.
    exponential = prim("neg", prim("log1p", prim("neg", u)))
    least = number(u, 1e-38 if u.dtype.itemsize > 2 else 1e-7)
    noise = prim("neg", prim("log", prim("maximum", exponential, least)))
    soft: Tensor = _reductions.softmax(
        prim("div", prim("add", logits, noise), number(logits, tau)), axis)
    if not hard:
        return soft
    shape = shape_of(logits)
    top = prim("argmax", constant(soft), attrs=(axis,))
    kept = (*shape[:axis], 1, *shape[axis + 1:])
    chosen = prim("eq", axis_iota(shape, axis), expand_to(prim("reshape", top, shape=kept), shape))
    one_hot = cast(chosen, soft.dtype)
    return prim("add", prim("sub", one_hot, constant(soft)), soft)


def gumbel_softmax(logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10,
                   dim: int = -1) -> Tensor:
    """A sample of the relaxed categorical distribution (Jang et al. 2017).

    With `hard` the sample is one-hot and its gradient that of the relaxed one.
    """
    from facula.nn.functional.dropout import uniform
    return _gumbel(logits, uniform(shape_of(logits), logits.dtype), float(tau),  # type: ignore
                   hard, dim)


@op(samples=lambda make: [((make(3, 4),), {}), ((make(2, 5, 3),), {"p": 1.0, "dim": -1}),
                          ((make(2, 3, 4),), {"dim": (1, 2)}), ((make(4),), {"dim": 0})])
def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Tensor:
    """input divided by its p-norm along `dim`, which counts as at least `eps`."""
    axes = axes_of(dim, input.ndim)
    norm = vector_norm(input, p, axes, True)
    least = number(norm, eps)
    norm = prim("where", prim("lt", norm, least), least, norm)
    return prim("div", input, cast(expand_to(norm, shape_of(input)), input.dtype))
