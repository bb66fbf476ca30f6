"""Derivatives and integrals of sampled functions: gradient, trapezoid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.dtype import bool_
from facula.errors import DTypeError
from facula.ops.define import op
from facula.ops.promote import (
    as_float,
    broadcast_shapes,
    cast,
    common_dtype,
    expand_to,
    full_like,
)
from facula.ops.reductions import wrap_dim
from facula.ops.shape import cut
from facula.ops.surface import public
from facula.tensor import Tensor, prim

__all__ = ["gradient", "trapezoid", "cumulative_trapezoid"]


# ---------------------------------------------------------------- derivatives

def _scaled(x: Tensor, factor: float) -> Tensor:
    return prim("mul", x, full_like(x, factor))


def _even(x: Tensor, axis: int, h: float, edge_order: int) -> Tensor:
    """Central differences over a spacing h, one-sided ones at the two ends."""
    n = x._node.spec.shape[axis]

    def at(k: int) -> Tensor:
        return cut(x, axis, k, k + 1)

    if edge_order == 1:
        first = _scaled(prim("sub", at(1), at(0)), 1 / h)
        last = _scaled(prim("sub", at(n - 1), at(n - 2)), 1 / h)
    else:
        first = _weighted([(at(0), -1.5 / h), (at(1), 2.0 / h), (at(2), -0.5 / h)])
        last = _weighted([(at(n - 3), 0.5 / h), (at(n - 2), -2.0 / h), (at(n - 1), 1.5 / h)])
    if n == 2:
        return prim("cat", first, last, attrs=(axis,))
    inner = _scaled(prim("sub", cut(x, axis, 2, n), cut(x, axis, 0, n - 2)), 0.5 / h)
    return prim("cat", first, inner, last, attrs=(axis,))


def _weighted(terms: Sequence[tuple[Tensor, float]]) -> Tensor:
    total = None
    for x, w in terms:
        term = _scaled(x, w)
        total = term if total is None else prim("add", total, term)
    assert total is not None
    return total


def _uneven(x: Tensor, axis: int, where: Tensor, edge_order: int) -> Tensor:
    """Differences over coordinates of any spacing: the derivative of the parabola through three
    neighbours (Fornberg, "Generation of finite difference formulas", 1988)."""
    shape = x._node.spec.shape
    n = shape[axis]
    ones = tuple(n - 1 if k == axis else 1 for k in range(len(shape)))
    steps = prim("sub", cut(where, 0, 1, n), cut(where, 0, 0, n - 1))
    wide = (*shape[:axis], n - 1, *shape[axis + 1:])
    h = expand_to(prim("reshape", cast(steps, x.dtype), shape=ones), wide)
    slopes = prim("div", prim("sub", cut(x, axis, 1, n), cut(x, axis, 0, n - 1)), h)

    def ends(k: int, m: int) -> Tensor:
        """The slope at an end where the nearest interval is k and the next m."""
        a, b = cut(h, axis, k, k + 1), cut(h, axis, m, m + 1)
        s, t = cut(slopes, axis, k, k + 1), cut(slopes, axis, m, m + 1)
        share = prim("div", a, prim("add", a, b))
        return prim("add", s, prim("mul", share, prim("sub", s, t)))

    if edge_order == 1:
        first, last = cut(slopes, axis, 0, 1), cut(slopes, axis, n - 2, n - 1)
    else:
        first, last = ends(0, 1), ends(n - 2, n - 3)
    if n == 2:
        return prim("cat", first, last, attrs=(axis,))
    a, b = cut(h, axis, 0, n - 2), cut(h, axis, 1, n - 1)
    s, t = cut(slopes, axis, 0, n - 2), cut(slopes, axis, 1, n - 1)
    inner = prim("div", prim("add", prim("mul", b, s), prim("mul", a, t)), prim("add", a, b))
    return prim("cat", first, inner, last, attrs=(axis,))


def gradient(input: Tensor, *, spacing: Any = None, dim: Any = None, edge_order: int = 1
             ) -> tuple[Tensor, ...]:
    """The derivative along each of `dim` (all if None), one tensor a dimension.

    spacing     the distance of samples (1): one number, one for each dimension, or for each
                dimension a 1-d tensor of coordinates
    edge_order  1 or 2: of the one-sided estimates at the ends
    """
    if isinstance(dim, int):
        dims: Any = (dim,)
    elif dim is not None:
        dims = tuple(dim)
    elif isinstance(spacing, (tuple, list)):
        dims = tuple(range(len(spacing)))
    else:
        dims = tuple(range(input.ndim))
    if isinstance(spacing, (tuple, list)) and len(spacing) != len(dims):
        raise RuntimeError("gradient expected spacing to be unspecified, a scalar or a list "
                           f"of length equal to 'self.dim() = {len(dims)}', but got "
                           f"{len(spacing)}")
    if edge_order not in (1, 2):
        raise RuntimeError("gradient only supports edge_order=1 and edge_order=2.")
    axes = [wrap_dim(v, input.ndim) for v in dims]
    if len(set(axes)) != len(axes):
        raise RuntimeError("dim 0 appears multiple times in the list of dims")
    if input.dtype.kind == "u" or input.dtype is bool_:
        raise DTypeError(f"gradient expects a signed dtype, got {input.dtype!r}")
    for k, axis in enumerate(axes):
        n = input.shape[axis] if input.ndim else 1
        if n < edge_order + 1:
            raise RuntimeError("gradient expected each dimension size to be at least "
                               "edge_order+1")
        if isinstance(spacing, (tuple, list)) and isinstance(spacing[k], Tensor):
            if spacing[k].ndim != 1:
                raise RuntimeError("gradient expected each element of spacing to have one "
                                   f"dimension, but got an element with {spacing[k].ndim} "
                                   "dimensions!")
            if spacing[k].numel() != n:
                raise RuntimeError("gradient expected each element of spacing to have as "
                                   f"many elements as its dimension, {n}")
    result: tuple[Tensor, ...] = _gradients(input, tuple(axes), spacing, edge_order)
    return result


@op(name="gradient", register=False)
def _gradients(input: Tensor, axes: tuple[int, ...], spacing: Any, edge_order: int
               ) -> tuple[Tensor, ...]:
    x = as_float(input)
    out = []
    for k, axis in enumerate(axes):
        h = spacing[k] if isinstance(spacing, (tuple, list)) else spacing
        out.append(_uneven(x, axis, h, edge_order) if isinstance(h, Tensor)
                   else _even(x, axis, 1.0 if h is None else float(h), edge_order))
    return tuple(out)


public(gradient, "gradient", "calculus", method=False, samples=lambda make: [
    ((make(5),), {}), ((make(4, 5),), {"spacing": [2.0, 0.5], "edge_order": 2}),
    ((make(5),), {"spacing": [make(5, low=0.1, high=1).cumsum(0)]})])


# ---------------------------------------------------------------- integrals

def _areas(name: str, y: Tensor, x: Tensor | None, dx: Any, dim: int) -> tuple[Tensor, int]:
    """The areas of the trapezoids between neighbours along `dim`, and that axis."""
    if not y.ndim:
        raise IndexError(f"{name}: Dimension specified as {dim} but tensor has no dimensions")
    axis = wrap_dim(dim, y.ndim)
    n = y._node.spec.shape[axis]
    if y.dtype is bool_:
        raise DTypeError(f"{name}: received a bool input for `y`, but bool is not supported")
    if x is None:
        step: Any = dx if not isinstance(dx, bool) else int(dx)
        dtype = common_dtype((y, step))
        whole = dtype.kind in "ui"
        ys = as_float(cast(y, dtype))
        both = prim("add", cut(ys, axis, 1, n), cut(ys, axis, 0, n - 1)) if n else ys
        del whole
        return prim("mul", both, full_like(both, step * 0.5)), axis
    if x.dtype is bool_:
        raise DTypeError(f"{name}: received a bool input for `x`, but bool is not supported")
    dtype = common_dtype((y, x))
    ys, xs = as_float(cast(y, dtype)), as_float(cast(x, dtype))
    if xs.ndim == 1 and ys.ndim > 1:
        if xs.numel() != n:
            raise RuntimeError(f"{name}: There must be one `x` value for each sample point")
        xs = prim("reshape", xs, shape=tuple(n if k == axis else 1 for k in range(ys.ndim)))
    if xs.ndim and xs._node.spec.shape[axis - ys.ndim] != 1:
        m = xs._node.spec.shape[axis - ys.ndim]
        at = axis + xs.ndim - ys.ndim
        steps = prim("sub", cut(xs, at, 1, m), cut(xs, at, 0, m - 1)) if m else xs
    else:
        raise RuntimeError(f"{name}: There must be one `x` value for each sample point")
    both = prim("add", cut(ys, axis, 1, n), cut(ys, axis, 0, n - 1)) if n else ys
    shape = broadcast_shapes(both.shape, steps.shape)
    area = prim("mul", expand_to(both, shape), expand_to(steps, shape))
    return _scaled(area, 0.5), axis


def _integral_samples(make: Any) -> list[Any]:
    return [((make(3, 5),), {}), ((make(3, 5), make(5)), {}), ((make(3, 5),), {"dx": 0.5,
                                                                                "dim": 0})]


@op(samples=_integral_samples)
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """The integral of samples y along `dim` by the trapezoidal rule.

    The samples are `dx` apart, or at the coordinates x.
    """
    if y.ndim and not y._node.spec.shape[wrap_dim(dim, y.ndim)]:
        axis = wrap_dim(dim, y.ndim)
        shape = tuple(n for k, n in enumerate(y._node.spec.shape) if k != axis)
        return prim("full", attrs=(0,), shape=shape, dtype=as_float(y).dtype)
    area, axis = _areas("trapezoid", y, x, dx, dim)
    return prim("sum", area, attrs=((axis,),))


@op(samples=_integral_samples)
def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = 1, dim: int = -1
                         ) -> Tensor:
    """The integrals up to each sample after the first, by the trapezoidal rule."""
    area, axis = _areas("cumulative_trapezoid", y, x, dx, dim)
    return prim("cumsum", area, attrs=(axis,))


public(trapezoid, "trapz", "calculus", method=False)
