"""Spread and size: variances, norms, distances, covariances.

Variances take two passes, the mean first: the difference of two large sums would lose what it is
about.  Where a root is taken of zero its gradient counts as zero, as in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from facula.dtype import DType, bool_
from facula.errors import DTypeError, ShapeError
from facula.ops.contractions import swapped
from facula.ops.define import autocast_to, composite, op
from facula.ops.keywords import numpy_names
from facula.ops.matrices import diagonal_value
from facula.ops.promote import (
    broadcast_shapes,
    cast,
    common_dtype,
    expand_to,
    full_like,
    promote_types,
    type_name,
)
from facula.ops.reductions import (
    axes_of,
    reduce_to,
    widened,
    wrap_dim,
)
from facula.ops.surface import public
from facula.tensor import Tensor, prim

__all__ = ["var", "std", "var_mean", "std_mean", "norm", "vector_norm", "dist", "renorm", "cov",
           "corrcoef", "cdist", "root"]


def root(x: Tensor) -> Tensor:
    """sqrt(x) with gradient 0 where x is 0."""
    zero = prim("eq", x, full_like(x, 0.0))
    safe = prim("where", zero, full_like(x, 1.0), x)
    return prim("where", zero, full_like(x, 0.0), prim("sqrt", safe))


def square_of(x: Tensor) -> Tensor:
    """|x|**2, real."""
    if x.dtype.kind != "c":
        return prim("mul", x, x)
    re, im = prim("real", x, dtype=x.dtype.to_real()), prim("imag", x, dtype=x.dtype.to_real())
    return prim("add", prim("mul", re, re), prim("mul", im, im))


def _count(x: Tensor, axes: Sequence[int]) -> int:
    n = 1
    for a in axes:
        n *= x._node.spec.shape[a]
    return n


# ---------------------------------------------------------------- variance

def _moments(name: str, input: Tensor, dim: Any, unbiased: Any, keepdim: bool, correction: Any
             ) -> tuple[Tensor, Tensor]:
    """(variance, mean) in the precision they are computed in."""
    if input.dtype.kind not in "fc":
        raise DTypeError(f"{name}(): only support floating point and complex dtypes, and got "
                         f"{type_name(input.dtype)}")
    if isinstance(dim, bool):                         # std(input, unbiased)
        dim, unbiased = None, dim
    if unbiased is not None:
        if correction is not None:
            raise TypeError(f"{name}(): give either unbiased or correction, not both")
        correction = int(bool(unbiased))
    correction = 1 if correction is None else correction
    x = widened(input)
    axes = axes_of(dim, x.ndim)
    n = _count(x, axes)
    total = reduce_to("sum", x, axes, True)
    average = prim("div", total, full_like(total, float(n)))
    centred = prim("sub", x, expand_to(average, x.shape))
    spread = reduce_to("sum", square_of(centred), axes, keepdim)
    spread = prim("div", spread, full_like(spread, float(max(n - correction, 0))))
    if not keepdim:
        average = prim("reshape", average, shape=spread._node.spec.shape)
    return spread, average


def _real(dtype: DType) -> DType:
    return dtype.to_real()


def _samples(make: Any) -> list[Any]:
    return [((make(3, 4),), {}), ((make(3, 4), 0), {}),
            ((make(2, 3, 4), (0, 2)), {"keepdim": True}),
            ((make(3, 4), 1), {"correction": 0}), ((make(5), False), {}),
            ((make(3, 4), 1, False, True), {})]


@op(method=True, samples=_samples)
@numpy_names
def var(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
        correction: Any = None) -> Tensor:
    """The variance over `dim`: sum((x - mean)**2) / max(n - correction, 0), correction 1."""
    spread, _ = _moments("var", input, dim, unbiased, keepdim, correction)
    return cast(spread, _real(input.dtype))


@op(method=True, samples=_samples)
@numpy_names
def std(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
        correction: Any = None) -> Tensor:
    """The standard deviation over `dim`, the root of `var`."""
    spread, _ = _moments("std", input, dim, unbiased, keepdim, correction)
    return cast(root(spread), _real(input.dtype))


@op(samples=_samples)
@numpy_names
def var_mean(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
             correction: Any = None) -> tuple[Tensor, Tensor]:
    """(variance, mean) over `dim`."""
    spread, average = _moments("var_mean", input, dim, unbiased, keepdim, correction)
    return cast(spread, _real(input.dtype)), cast(average, input.dtype)


@op(samples=_samples)
@numpy_names
def std_mean(input: Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
             correction: Any = None) -> tuple[Tensor, Tensor]:
    """(standard deviation, mean) over `dim`."""
    spread, average = _moments("std_mean", input, dim, unbiased, keepdim, correction)
    return cast(root(spread), _real(input.dtype)), cast(average, input.dtype)


# ---------------------------------------------------------------- norms

def norm_value(x: Tensor, p: float, axes: tuple[int, ...], keepdim: bool) -> Tensor:
    """The p-norm over axes, in the dtype of |x|."""
    if p in (math.inf, -math.inf):
        for a in axes:
            if x._node.spec.shape[a] == 0:
                raise RuntimeError(f"linalg.vector_norm cannot compute the {p} norm on the "
                                   f"dimension {a}, which is empty, because the operation does "
                                   "not have an identity")
        return reduce_to("amax" if p > 0 else "amin", prim("abs", x), axes, keepdim)
    if p == 2:
        return root(reduce_to("sum", square_of(x), axes, keepdim))
    size = prim("abs", x)
    if p == 1:
        return reduce_to("sum", size, axes, keepdim)
    if p == 0:
        some = prim("where", prim("isnan", size), full_like(size, 1.0), prim("sign", size))
        return reduce_to("sum", some, axes, keepdim)
    powers = _power(size, p)
    return _power(reduce_to("sum", powers, axes, keepdim), 1.0 / p)


def _power(x: Tensor, p: float) -> Tensor:
    """x**p of x >= 0, its gradient 0 where it would be infinite at 0."""
    plain = prim("pow", x, full_like(x, p))
    if p >= 1:
        return plain
    zero = prim("eq", x, full_like(x, 0.0))
    safe = prim("where", zero, full_like(x, 1.0), x)
    at_zero = full_like(x, 0.0 if p > 0 else math.inf)
    return prim("where", zero, at_zero, prim("pow", safe, full_like(x, p)))


def _norm_operand(name: str, x: Tensor, dtype: DType | None) -> Tensor:
    if dtype is not None:
        return cast(x, dtype)
    if x.dtype.kind not in "fc":
        raise DTypeError(f"{name}: Expected a floating point or complex tensor as input. Got "
                         f"{type_name(x.dtype)}")
    return x


def _norm(name: str, input: Tensor, p: float, dim: Any, keepdim: bool, dtype: DType | None
          ) -> Tensor:
    x = _norm_operand(name, input, dtype)
    out = norm_value(widened(x), p, axes_of(dim, x.ndim), keepdim)
    return cast(out, x.dtype.to_real())


@op(method=True, samples=lambda make: [
    ((make(3, 4),), {}), ((make(3, 4), 2, 0), {}), ((make(3, 4), 1, (0, 1)), {"keepdim": True}),
    ((make(3, 4), float("inf"), 1), {}), ((make(3, 4), 3.5, 1), {}), ((make(3, 4), "fro"), {})])
@numpy_names
def norm(input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False,
         dtype: DType | None = None) -> Tensor:
    """The p-norm (sum |x|**p)**(1/p) over `dim` (all elements if None); 'fro' is p = 2.
    'nuc' is the sum of the singular values of matrices.

    p = inf and -inf are the largest and smallest magnitude, p = 0 counts what is not zero.
    """
    if p is None or p == "fro":
        p = 2
    elif p == "nuc":
        from facula.ops.linalg.norms import matrix_norm
        out: Tensor = matrix_norm(input, "nuc", (-2, -1) if dim is None else dim, keepdim,
                                  dtype=dtype)
        return out
    elif isinstance(p, str):
        raise RuntimeError(f"norm: unsupported order {p!r}; it is a number, 'fro' or 'nuc'")
    return _norm("norm", input, float(p), dim, keepdim, dtype)


@op(register=False)
@numpy_names
def vector_norm(x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False, *,
                dtype: DType | None = None) -> Tensor:
    """The norm of vectors over `dim` (of all elements if None)."""
    return _norm("linalg.vector_norm", x, float(ord), dim, keepdim, dtype)


@op(method=True, samples=lambda make: [((make(3, 4), make(3, 4)), {}), ((make(3), make(3), 1), {})])
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of input - other."""
    dtype = common_dtype((input, other))
    shape = broadcast_shapes(input.shape, other.shape)
    d = prim("sub", expand_to(cast(input, dtype), shape), expand_to(cast(other, dtype), shape))
    return _norm("dist", d, float(p), None, False, None)


@op(method=True, inplace=True, samples=lambda make: [((make(3, 4), 2, 0, 0.5), {})])
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """`input` with the slices along `dim` whose p-norm exceeds maxnorm scaled down to it."""
    if p <= 0:
        raise RuntimeError("renorm: non-positive-norm not supported")
    if maxnorm < 0:
        raise RuntimeError(f"renorm: expected maxnorm to be >= 0 but got {maxnorm}")
    if input.ndim < 2:
        raise RuntimeError(f"renorm: input needs at least 2 dimensions, got {input.ndim} "
                           "dimensions")
    axis = wrap_dim(dim, input.ndim)
    axes = tuple(k for k in range(input.ndim) if k != axis)
    size = norm_value(widened(input), float(p), axes, True)
    limit = full_like(size, float(maxnorm))
    factor = prim("where", prim("gt", size, limit),
                  prim("div", limit, prim("add", size, full_like(size, 1e-7))),
                  full_like(size, 1.0))
    return prim("mul", input, expand_to(cast(factor, input.dtype), input.shape))


# ---------------------------------------------------------------- covariance

def _covariance(x: Tensor, correction: int, fweights: Tensor | None, aweights: Tensor | None
                ) -> Tensor:
    if x.ndim > 2:
        raise RuntimeError("cov(): expected input to have two or fewer dimensions but got an input "
                           f"with {x.ndim} dimensions")
    if x.dtype is bool_:
        raise DTypeError("cov(): bool dtype is not supported for input")
    if x.dtype.kind in "ui":
        from facula.ops.promote import as_float
        x = as_float(x)
    if aweights is not None:
        x = cast(x, promote_types(x.dtype, aweights.dtype))
    rows = x if x.ndim == 2 else prim("reshape", x, shape=(1, x.numel()))
    m, n = rows._node.spec.shape
    weight = None
    for name, w in (("fweights", fweights), ("aweights", aweights)):
        if w is None:
            continue
        if w.ndim > 1:
            raise RuntimeError(f"cov(): expected {name} to have one or fewer dimensions but got "
                               f"{name} with {w.ndim} dimensions")
        if (w.dtype.kind in "ui") != (name == "fweights"):
            kind = "integral" if name == "fweights" else "floating point"
            raise DTypeError(f"cov(): expected {name} to have {kind} dtype but got {name} with "
                             f"{type_name(w.dtype)} dtype")
        if w.numel() != n:
            raise ShapeError(f"cov(): expected {name} to have the same numel as there are "
                             f"observations in the input but got {w.numel()} != {n}")
        # In the weights' own precision, as PyTorch sums them.
        own = rows.dtype.to_real() if aweights is None else aweights.dtype
        line = prim("reshape", cast(w, own), shape=(n,))
        weight = line if weight is None else prim("mul", weight, line)
    if weight is None:
        total = prim("full", attrs=(float(n),), shape=(), dtype=rows.dtype.to_real())
        weighted = rows
        wide = None
    else:
        total = prim("sum", weight, attrs=((0,),))
        wide = expand_to(cast(weight, rows.dtype), rows.shape)
        weighted = prim("mul", rows, wide)
    average = prim("sum", weighted, attrs=((1,),))
    average = prim("div", average, expand_to(cast(total, rows.dtype), average.shape))
    centred = prim("sub", rows, expand_to(prim("reshape", average, shape=(m, 1)), rows.shape))
    other = centred if wide is None else prim("mul", centred, wide)
    if rows.dtype.kind == "c":
        other = prim("conj", other)
    out = prim("matmul", centred, swapped(other))
    if weight is not None and aweights is not None and correction:
        extra = cast(prim("reshape", aweights, shape=(n,)), weight.dtype)
        used = prim("div", prim("sum", prim("mul", weight, extra), attrs=((0,),)), total)
    else:
        used = full_like(total, 1.0)
    norm_by = prim("sub", total, prim("mul", used, full_like(total, float(correction))))
    norm_by = prim("maximum", norm_by, full_like(norm_by, 0.0))
    out = prim("div", out, expand_to(cast(norm_by, out.dtype), out.shape))
    return out if m != 1 else prim("reshape", out, shape=())


_cov = composite(_covariance)


def cov(input: Tensor, *, correction: int = 1, fweights: Tensor | None = None,
        aweights: Tensor | None = None) -> Tensor:
    """The covariance matrix of variables (rows) over observations (columns).

    fweights  how often each observation counts, aweights how much; neither may be negative
    """
    for name, w in (("fweights", fweights), ("aweights", aweights)):
        if w is not None and (w._peek() < 0).any():
            raise RuntimeError(f"cov(): {name} cannot be negative")
    result: Tensor = _cov(input, correction, fweights, aweights)
    return result


public(cov, "cov", "statistics", samples=lambda make: [
    ((make(3, 5),), {}), ((make(5),), {}), ((make(3, 5),), {"correction": 0})])


@op(method=True, samples=lambda make: [((make(3, 5),), {})])
def corrcoef(input: Tensor) -> Tensor:
    """The matrix of Pearson's correlation coefficients of the rows."""
    c = _covariance(input, 1, None, None)
    if not c.ndim:
        return prim("div", c, c)
    n = c._node.spec.shape[0]
    d = diagonal_value(c)
    if d.dtype.kind == "c":
        d = prim("real", d, dtype=d.dtype.to_real())
    d = cast(prim("sqrt", d), c.dtype)
    c = prim("div", c, expand_to(prim("reshape", d, shape=(n, 1)), c.shape))
    c = prim("div", c, expand_to(d, c.shape))
    if c.dtype.kind == "f":
        low, high = full_like(c, -1.0), full_like(c, 1.0)
        c = prim("where", prim("lt", c, low), low, prim("where", prim("gt", c, high), high, c))
    return c


_MODES = ("use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist",
          "donot_use_mm_for_euclid_dist")


@op(samples=lambda make: [((make(3, 4), make(5, 4)), {}), ((make(2, 3, 4), make(5, 4)), {"p": 1.0}),
                          ((make(30, 4), make(27, 4)), {})])
@autocast_to("full")
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = _MODES[0]) -> Tensor:
    """Distances of all pairs of rows: (..., P, M), (..., R, M) -> (..., P, R), in the p-norm.

    With more than 25 rows Euclidean distances are computed from a matrix product, unless
    compute_mode says not to.
    """
    if x1.dtype.kind != "f" or x2.dtype.kind != "f":
        raise DTypeError("cdist only supports floating-point dtypes, X1 got: "
                         f"{type_name(x1.dtype)}, X2 got: {type_name(x2.dtype)}")
    if x1.ndim < 2 or x2.ndim < 2:
        raise RuntimeError("cdist only supports at least 2D tensors, "
                           f"X1 got: {x1.ndim}D, X2 got: {x2.ndim}D")
    s1, s2 = x1._node.spec.shape, x2._node.spec.shape
    if s1[-1] != s2[-1]:
        raise RuntimeError(f"X1 and X2 must have the same number of columns. X1: {s1[-1]} X2: "
                           f"{s2[-1]}")
    if p < 0:
        raise RuntimeError("cdist only supports non-negative p values")
    if compute_mode not in _MODES:
        raise ValueError(f"{compute_mode} is not a valid value for compute_mode")
    dtype = common_dtype((x1, x2))
    batch = tuple(broadcast_shapes(s1[:-2], s2[:-2]))
    rows, columns, m = s1[-2], s2[-2], s1[-1]
    a = expand_to(cast(x1, dtype), (*batch, rows, m))
    b = expand_to(cast(x2, dtype), (*batch, columns, m))
    shape = (*batch, rows, columns)
    if p == 2 and compute_mode != _MODES[2] and (compute_mode == _MODES[1]
                                                 or rows > 25 or columns > 25):
        axis = (len(batch) + 1,)
        left = prim("reshape", prim("sum", prim("mul", a, a), attrs=(axis,)),
                    shape=(*batch, rows, 1))
        right = prim("reshape", prim("sum", prim("mul", b, b), attrs=(axis,)),
                     shape=(*batch, 1, columns))
        both = prim("add", expand_to(left, shape), expand_to(right, shape))
        cross = prim("matmul", a, swapped(b))
        square = prim("sub", both, prim("add", cross, cross))
        negative = prim("lt", square, full_like(square, 0.0))
        return root(prim("where", negative, full_like(square, 0.0), square))
    wide = (*batch, rows, columns, m)
    x = expand_to(prim("reshape", a, shape=(*batch, rows, 1, m)), wide)
    y = expand_to(prim("reshape", b, shape=(*batch, 1, columns, m)), wide)
    if m == 0:
        return prim("full", attrs=(0.0,), shape=shape, dtype=dtype)
    return norm_value(prim("sub", x, y), float(p), (len(wide) - 1,), False)
