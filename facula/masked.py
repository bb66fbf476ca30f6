"""Reductions and normalisations of the elements that a mask lets through: `facula.masked`.

Each takes `mask`, a bool tensor that broadcasts to the input (None lets all through), and leaves
the other elements out: a sum counts them as 0, a product as 1, a maximum as the smallest number,
and so on.  `dtype` is that of the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from facula.dtype import DType, bool_, float32, int64
from facula.errors import DTypeError
from facula.ops import arithmetic, composite, reductions, scans, sorting, statistics
from facula.ops.convert import clone
from facula.ops.promote import as_float, cast, expand_to
from facula.ops.reductions import axes_of
from facula.tensor import Tensor, prim

__all__ = ["sum", "prod", "cumsum", "cumprod", "amax", "amin", "argmax", "argmin", "mean",
           "median", "norm", "var", "std", "softmax", "log_softmax", "softmin", "normalize",
           "logsumexp", "logaddexp"]


# ---------------------------------------------------------------- what is left out

def _mask_of(input: Tensor, mask: Tensor) -> Tensor:
    """The mask in the shape of the input; IndexError if it has more dimensions."""
    if mask.ndim > input.ndim:
        raise IndexError("_input_mask expected broadcastable mask (got mask dimensionality higher "
                         "than of the input)")
    return expand_to(cast(mask, bool_), input.shape)


def _filled(input: Tensor, mask: Tensor | None, value: Any) -> Tensor:
    """The input with `value` where the mask does not hold."""
    if mask is None:
        return input
    result: Tensor = composite.where(_mask_of(input, mask), input,
                                     prim("full", attrs=(value,), shape=(), dtype=input.dtype))
    return result


def _extreme(dtype: DType, largest: bool) -> Any:
    if dtype.kind in "fc":
        return float("inf") if largest else float("-inf")
    if dtype.kind == "b":
        raise NotImplementedError("identity of a maximum or minimum on bool input: convert the "
                                  "input to an integer dtype first")
    info = np.iinfo(dtype.np)
    return int(info.max if largest else info.min)


def _count(input: Tensor, dim: Any, keepdim: bool, mask: Tensor | None) -> Tensor:
    """How many elements are let through; int64."""
    here = prim("full", attrs=(True,), shape=tuple(input.shape), dtype=bool_) if mask is None \
        else _mask_of(input, mask)
    result: Tensor = reductions.sum(here, axes_of(dim, input.ndim), keepdim)
    return result


def _whole(input: Tensor, dtype: DType | None) -> DType:
    """The dtype of sums: int64 for integers."""
    if dtype is not None:
        return dtype
    return int64 if input.dtype.kind in "bui" else input.dtype


# ---------------------------------------------------------------- reductions

def sum(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: DType | None = None,
        mask: Tensor | None = None) -> Tensor:
    """The sum over `dim` (all if None)."""
    result: Tensor = reductions.sum(_filled(input, mask, 0), axes_of(dim, input.ndim), keepdim,
                                    dtype=_whole(input, dtype))
    return result


def prod(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: DType | None = None,
         mask: Tensor | None = None) -> Tensor:
    """The product over `dim` (all if None)."""
    result: Tensor = cast(_filled(input, mask, 1), _whole(input, dtype))
    for axis in reversed(axes_of(dim, input.ndim)):
        result = reductions.prod(result, axis, keepdim)
    return clone(result) if result is input else result


def cumsum(input: Tensor, dim: int, *, dtype: DType | None = None, mask: Tensor | None = None
           ) -> Tensor:
    """The running sum along `dim`."""
    return cast(scans.cumsum(_filled(input, mask, 0), dim, dtype=dtype or input.dtype),
                dtype or input.dtype)


def cumprod(input: Tensor, dim: int, *, dtype: DType | None = None, mask: Tensor | None = None
            ) -> Tensor:
    """The running product along `dim`."""
    return cast(scans.cumprod(_filled(input, mask, 1), dim, dtype=dtype or input.dtype),
                dtype or input.dtype)


def amax(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: DType | None = None,
         mask: Tensor | None = None) -> Tensor:
    """The largest element over `dim` (all if None)."""
    x = _filled(input, mask, _extreme(input.dtype, False)) if mask is not None else input
    return cast(reductions.amax(x, axes_of(dim, input.ndim), keepdim), dtype or input.dtype)


def amin(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: DType | None = None,
         mask: Tensor | None = None) -> Tensor:
    """The smallest element over `dim` (all if None)."""
    x = _filled(input, mask, _extreme(input.dtype, True)) if mask is not None else input
    return cast(reductions.amin(x, axes_of(dim, input.ndim), keepdim), dtype or input.dtype)


def argmax(input: Tensor, dim: int | None = None, *, keepdim: bool = False,
           dtype: DType | None = None, mask: Tensor | None = None) -> Tensor:
    """Where the largest element is, in the dtype of the input unless `dtype` says otherwise."""
    x = _filled(input, mask, _extreme(input.dtype, False)) if mask is not None else input
    return cast(reductions.argmax(x, dim, keepdim), dtype or input.dtype)


def argmin(input: Tensor, dim: int | None = None, *, keepdim: bool = False,
           dtype: DType | None = None, mask: Tensor | None = None) -> Tensor:
    """Where the smallest element is, in the dtype of the input unless `dtype` says otherwise."""
    x = _filled(input, mask, _extreme(input.dtype, True)) if mask is not None else input
    return cast(reductions.argmin(x, dim, keepdim), dtype or input.dtype)


def mean(input: Tensor, dim: Any = None, *, keepdim: bool = False, dtype: DType | None = None,
         mask: Tensor | None = None) -> Tensor:
    """The mean over `dim`; NaN where nothing is let through."""
    want = dtype or input.dtype
    if want.kind not in "fc":
        raise ValueError("mean(): Could not infer output dtype. "
                         f"{'Input' if dtype is None else 'Optional'} dtype must be either a "
                         f"floating point or complex dtype. Got: {want!r}")
    total = sum(input, dim, keepdim=keepdim, dtype=want, mask=mask)
    result: Tensor = arithmetic.div(total, _count(input, dim, keepdim, mask))
    return result


def median(input: Tensor, dim: int = -1, *, keepdim: bool = False, dtype: DType | None = None,
           mask: Tensor | None = None) -> Tensor:
    """The lower median along `dim`; NaN where nothing is let through (ValueError for integers)."""
    want = dtype or input.dtype
    floating = input.dtype.kind == "f"
    x = input if floating else cast(input, float32)
    out: Tensor = sorting.nanmedian(_filled(x, mask, float("nan")), axes_of(dim, x.ndim)[0]
                                    if x.ndim else 0, keepdim)[0]
    if floating:
        return out
    if bool(np.isnan(out._peek()).any()):
        raise ValueError("masked median expects no fully masked out rows if dtype is not floating "
                         "point")
    return cast(out, want)


def norm(input: Tensor, ord: float | None = 2.0, dim: Any = None, *, keepdim: bool = False,
         dtype: DType | None = None, mask: Tensor | None = None) -> Tensor:
    """The norm of vectors over `dim` (all if None)."""
    order = 2.0 if ord is None else float(ord)
    x = _filled(input, mask, float("inf") if order == float("-inf") else 0)
    result: Tensor = statistics.vector_norm(x, order, axes_of(dim, input.ndim), keepdim,
                                            dtype=dtype or input.dtype)
    return result


def _spread(input: Tensor, dim: Any, unbiased: bool | None, keepdim: bool, dtype: DType | None,
            mask: Tensor | None, correction: Any) -> Tensor:
    if unbiased is not None and correction is not None:
        raise AssertionError("Only one of unbiased and correction may be given")
    less = 1.0 if unbiased is None else float(unbiased)
    if correction is not None:
        less = float(correction)
    want = dtype or (input.dtype if input.dtype.kind in "fc" else float32)
    count = _count(input, dim, True, mask)
    total = sum(input, dim, keepdim=True, dtype=want, mask=mask)
    x: Tensor = arithmetic.sub(input, arithmetic.div(total, count))
    square = arithmetic.mul(x, prim("conj", x) if x.dtype.kind == "c" else x)
    out = sum(square, dim, keepdim=keepdim, dtype=want, mask=mask)
    if not keepdim:
        count = prim("reshape", count, shape=tuple(out.shape))
    n: Tensor = cast(count, want.to_real()) if want.kind == "c" else cast(count, want)
    if less:
        n = composite.clamp(arithmetic.sub(n, less), min=0)
    result: Tensor = cast(arithmetic.div(out, n), want)
    return result


def var(input: Tensor, dim: Any = None, unbiased: bool | None = None, *,
        correction: Any = None, keepdim: bool = False, dtype: DType | None = None,
        mask: Tensor | None = None) -> Tensor:
    """The variance over `dim`, with the correction 1 unless given."""
    return _spread(input, dim, unbiased, keepdim, dtype, mask, correction)


def std(input: Tensor, dim: Any = None, unbiased: bool | None = None, *,
        correction: Any = None, keepdim: bool = False, dtype: DType | None = None,
        mask: Tensor | None = None) -> Tensor:
    """The standard deviation over `dim`, the root of `var`."""
    return prim("sqrt", _spread(input, dim, unbiased, keepdim, dtype, mask, correction))


# ---------------------------------------------------------------- normalisations

def softmax(input: Tensor, dim: int, *, dtype: DType | None = None, mask: Tensor | None = None
            ) -> Tensor:
    """The softmax along `dim` of what is let through; 0 elsewhere."""
    x = _filled(input, mask, _extreme(input.dtype, False)) if mask is not None else input
    result: Tensor = reductions.softmax(x, dim, dtype=dtype or input.dtype)
    return result


def log_softmax(input: Tensor, dim: int, *, dtype: DType | None = None,
                mask: Tensor | None = None) -> Tensor:
    """The logarithm of `softmax`; -inf where nothing is let through."""
    x = _filled(input, mask, _extreme(input.dtype, False)) if mask is not None else input
    result: Tensor = reductions.log_softmax(x, dim, dtype=dtype or input.dtype)
    return result


def softmin(input: Tensor, dim: int, *, dtype: DType | None = None, mask: Tensor | None = None
            ) -> Tensor:
    """The softmax along `dim` of -input."""
    x = _filled(input, mask, _extreme(input.dtype, True)) if mask is not None else input
    result: Tensor = reductions.softmax(prim("neg", x), dim, dtype=dtype or input.dtype)
    return result


def normalize(input: Tensor, ord: float, dim: int, *, eps: float = 1e-12,
              dtype: DType | None = None, mask: Tensor | None = None) -> Tensor:
    """The input divided by its norm along `dim`, which counts as at least eps."""
    size = norm(input, ord, dim, keepdim=True, dtype=dtype, mask=mask)
    least = prim("full", attrs=(eps,), shape=(), dtype=size.dtype)
    result: Tensor = arithmetic.div(_filled(input, mask, 0), arithmetic.maximum(size, least))
    return result


def logsumexp(input: Tensor, dim: Any = None, *, keepdim: bool = False,
              dtype: DType | None = None, mask: Tensor | None = None) -> Tensor:
    """log(sum(exp(input))) over `dim` (all if None)."""
    x = _filled(input, mask, _extreme(input.dtype, False)) if mask is not None else input
    return cast(reductions.logsumexp(as_float(x), axes_of(dim, input.ndim), keepdim),
                dtype or input.dtype)


def logaddexp(input: Tensor, other: Tensor, *, dtype: DType | None = None,
              input_mask: Tensor | None = None, other_mask: Tensor | None = None) -> Tensor:
    """log(exp(input) + exp(other)), each with a mask of its own."""
    if input.dtype.kind != "f" or other.dtype.kind != "f":
        raise DTypeError(f"masked logaddexp: expected floating tensors, got {input.dtype!r} and "
                         f"{other.dtype!r}")
    a = _filled(input, input_mask, float("-inf"))
    b = _filled(other, other_mask, float("-inf"))
    result: Tensor = cast(arithmetic.logaddexp(a, b), dtype or input.dtype)
    return result
