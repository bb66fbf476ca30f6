"""Running results of any associative function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from facula.errors import ShapeError
from facula.ops.parts import slice_dim
from facula.ops.reductions import wrap_dim
from facula.ops.shape import cat, flip, stack
from facula.tensor import Tensor
from facula.utils import _pytree as pytree

__all__ = ["associative_scan"]


def _step(x: Tensor, axis: int, first: int) -> Tensor:
    """Every second element along `axis`, from element `first` on."""
    return x[(slice(None),) * axis + (slice(first, None, 2),)]


def _woven(even: Tensor, odd: Tensor, axis: int) -> Tensor:
    """even[0], odd[0], even[1], ... along `axis`; `even` may have one element more."""
    n = odd.shape[axis]
    pairs = stack([slice_dim(even, axis, 0, n), odd], axis + 1).flatten(axis, axis + 1)
    last = slice_dim(even, axis, n, even.shape[axis])
    return cat([pairs, last], axis) if last.shape[axis] else pairs


def _scanned(combine: Callable[..., Sequence[Tensor]], xs: Sequence[Tensor], axis: int
             ) -> list[Tensor]:
    """Pairs are combined, the scan of those is taken, and what lies between is filled in."""
    n = xs[0].shape[axis]
    if n < 2:
        return list(xs)
    half = n // 2
    left = [slice_dim(_step(x, axis, 0), axis, 0, half) for x in xs]
    odd = _scanned(combine, combine(left, [_step(x, axis, 1) for x in xs]), axis)
    first = [slice_dim(x, axis, 0, 1) for x in xs]
    if n == 2:
        return [cat([a, b], axis) for a, b in zip(first, odd)]
    rest = [slice_dim(_step(x, axis, 0), axis, 1, (n + 1) // 2) for x in xs]
    before = [slice_dim(x, axis, 0, (n - 1) // 2) for x in odd]
    even = [cat([a, b], axis) for a, b in zip(first, combine(before, rest))]
    return [_woven(a, b, axis) for a, b in zip(even, odd)]


def associative_scan(combine_fn: Callable[[Any, Any], Any], xs: Any, dim: int,
                     reverse: bool = False, combine_mode: str = "pointwise") -> Any:
    """Running results of an associative function along a dimension, in O(log n) steps.

    combine_fn    associative: f(f(a, b), c) = f(a, f(b, c)), of two trees shaped like `xs`, in
                  order; it is called on slices of many positions at once, so it has to be
                  written element by element along `dim`
    xs            a tensor, or a tree of tensors of one size along `dim`
    dim           the dimension to scan along
    reverse       whether to run from the end to the beginning
    combine_mode  'pointwise' or 'generic'; here both may be any differentiable function

    Returns a tree like `xs`, of the same shapes.  Raises TypeError where `combine_fn` cannot be
    called or a leaf is no tensor, ValueError for other modes, no leaves or a result of another
    structure, ShapeError where sizes along `dim` differ or `combine_fn` changes a shape.

    Blelloch, Prefix Sums and Their Applications (1990).
    """
    if not callable(combine_fn):
        raise TypeError(f"associative_scan(): combine_fn must be callable, but is a "
                        f"{type(combine_fn).__name__}")
    if combine_mode not in ("pointwise", "generic"):
        raise ValueError("associative_scan(): combine_mode must be 'pointwise' or 'generic', got "
                         f"{combine_mode!r}")
    leaves, tree = pytree.tree_flatten(xs)
    if not leaves:
        raise ValueError("associative_scan(): xs has no tensors: give at least one")
    for x in leaves:
        if not isinstance(x, Tensor):
            raise TypeError(f"associative_scan(): xs must be tensors, but has a "
                            f"{type(x).__name__}")
    axis = wrap_dim(dim, leaves[0].ndim)
    sizes = [x.shape[axis] if axis < x.ndim else None for x in leaves]
    if None in sizes or len(set(sizes)) > 1:
        raise ShapeError(f"associative_scan(): sizes along dim {dim} differ: {sizes}")

    def combine(a: Sequence[Tensor], b: Sequence[Tensor]) -> list[Tensor]:
        out, shape = pytree.tree_flatten(combine_fn(pytree.tree_unflatten(a, tree),
                                                    pytree.tree_unflatten(b, tree)))
        if shape != tree:
            raise ValueError("associative_scan(): combine_fn must return what has the structure "
                             f"of xs, {tree}, but returned {shape}")
        for got, given in zip(out, b):
            if got.shape != given.shape:
                raise ShapeError(f"associative_scan(): combine_fn made shape {list(got.shape)} "
                                 f"of {list(given.shape)}: it must keep shapes")
        return out

    if reverse:
        leaves = [flip(x, (axis,)) for x in leaves]
    out = _scanned(combine, leaves, axis)
    if reverse:
        out = [flip(x, (axis,)) for x in out]
    return pytree.tree_unflatten(out, tree)
