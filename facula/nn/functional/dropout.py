"""Dropout: zeroing at random while training.

The numbers come from facula's counter-based generator (Philox), so that a seed means the same
mask on any number of threads, and a compiled step makes the mask where it is used.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from facula.dtype import DType
from facula.nn.functional.common import applied, mul_number, number, shape_of
from facula.ops.define import composite
from facula.ops.promote import expand_to
from facula.tensor import Tensor, prim

__all__ = ["dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
           "feature_alpha_dropout", "uniform"]


def uniform(shape: Sequence[int], dtype: DType, generator: Any = None) -> Tensor:
    """Numbers drawn from U[0, 1), in float32 for 16-bit types."""
    import facula
    from facula.dtype import float32
    wide = dtype if dtype.itemsize > 2 else float32
    drawn: Tensor = facula.rand(tuple(shape), dtype=wide, generator=generator)
    return drawn if wide is dtype else drawn.to(dtype)      # type: ignore[attr-defined]


def _uniform(shape: Sequence[int], dtype: DType) -> Tensor:
    """Numbers to compare with a probability: never rounded to 16 bits."""
    import facula
    from facula.dtype import float32, float64
    wide = float64 if dtype.name in ("float64", "complex128") else float32
    return facula.rand(tuple(shape), dtype=wide)                  # type: ignore[no-any-return]


def _check(p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


@composite
def _masked(input: Tensor, u: Tensor, p: float) -> Tensor:
    shape = shape_of(input)
    keep = expand_to(prim("ge", u, number(u, p)), shape)
    scale = 1.0 / (1.0 - p) if p < 1.0 else 0.0
    return prim("where", keep, mul_number(input, scale), number(input, 0))


def _dropout(input: Tensor, shape: tuple[int, ...], p: float) -> Tensor:
    result: Tensor = _masked(input, _uniform(shape, input.dtype), float(p))
    return result


def dropout(input: Tensor, p: float = 0.5, training: bool = True,
            inplace: bool = False) -> Tensor:
    """In training, zeroes each element with probability p and scales the rest by 1 / (1 - p).

    Srivastava et al. 2014.  Otherwise returns the input.
    """
    _check(p)
    if not training:
        return input
    return applied(_dropout, "dropout", inplace, input, shape_of(input), p)


def _channels(input: Tensor, p: float, training: bool, inplace: bool, name: str,
              dims: tuple[int, int]) -> Tensor:
    """Dropout of whole channels; an input of `dims[0]` dimensions has no batch."""
    _check(p)
    ndim = input.ndim
    if ndim not in dims:
        warnings.warn(f"{name}: Received a {ndim}-D input to {name}, which is deprecated and "
                      "will result in an error in a future release. To retain the behavior and "
                      f"silence this warning, please use dropout instead. Note that {name} "
                      f"exists to provide channel-wise dropout on inputs with {dims[1] - 2} "
                      "spatial dimensions, a channel dimension, and an optional batch dimension "
                      f"(i.e. {dims[0]}D or {dims[1]}D inputs).", stacklevel=4)
    if not training:
        return input
    lead = 1 if ndim == dims[0] else 2
    shape = shape_of(input)
    mask = (*shape[:lead], *(1,) * (ndim - lead))
    return applied(_dropout, name, inplace, input, mask, p)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True,
              inplace: bool = False) -> Tensor:
    """Zeroes whole channels of `[N, C, L]` or `[C, L]` at random."""
    return _channels(input, p, training, inplace, "dropout1d", (2, 3))


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True,
              inplace: bool = False) -> Tensor:
    """Zeroes whole channels of `[N, C, H, W]` at random; 3-D inputs are `[N, C, L]`."""
    if input.ndim == 3:
        # PyTorch kept the meaning that 3-D inputs had here: a batch, channels, one dimension.
        return dropout1d(input, p, training, inplace)
    return _channels(input, p, training, inplace, "dropout2d", (4, 4))


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True,
              inplace: bool = False) -> Tensor:
    """Zeroes whole channels of `[N, C, D, H, W]` or `[C, D, H, W]` at random."""
    return _channels(input, p, training, inplace, "dropout3d", (4, 5))


_ALPHA = -1.7580993408473766        # -scale * alpha of SELU: what it tends to at -infinity


@composite
def _alpha_masked(input: Tensor, u: Tensor, p: float) -> Tensor:
    shape = shape_of(input)
    keep = expand_to(prim("ge", u, number(u, p)), shape)
    if p == 1.0:
        return prim("where", keep, input, number(input, 0))
    a = 1.0 / math.sqrt((1.0 - p) * (1.0 + p * _ALPHA * _ALPHA))
    b = -a * _ALPHA * p
    kept = prim("add", mul_number(input, a), number(input, b))
    return prim("where", keep, kept, number(input, a * _ALPHA + b))


def _alpha(input: Tensor, shape: tuple[int, ...], p: float) -> Tensor:
    result: Tensor = _alpha_masked(input, _uniform(shape, input.dtype), float(p))
    return result


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False,
                  inplace: bool = False) -> Tensor:
    """Dropout that keeps mean and variance, for SELU networks (Klambauer et al. 2017)."""
    _check(p)
    if not training:
        return input
    return applied(_alpha, "alpha_dropout", inplace, input, shape_of(input), p)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False,
                          inplace: bool = False) -> Tensor:
    """`alpha_dropout` of whole channels of `[N, C, *]`."""
    _check(p)
    if not training:
        return input
    shape = shape_of(input)
    if len(shape) < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    return applied(_alpha, "feature_alpha_dropout", inplace, input,
                   (*shape[:2], *(1,) * (len(shape) - 2)), p)
