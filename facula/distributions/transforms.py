"""Transforms of random variables, under the names of `torch.distributions.transforms`.

A transform maps x to y = t(x), knows its inverse and log |det dy/dx|, and so what becomes of a
density.  `domain` and `codomain` say between which constraints it goes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from facula.distributions import constraints
from facula.distributions.composing import (
    CatTransform,
    ComposeTransform,
    IndependentTransform,
    StackTransform,
    Transform,
    identity_transform,
)
from facula.distributions.utils import (
    is_number,
    sum_rightmost,
    tril_matrix_to_vec,
    vec_to_tril_matrix,
)
from facula.info import finfo
from facula.nn.functional import logsigmoid, pad, softplus
from facula.ops.creation import full
from facula.ops.patterns import arange, eye
from facula.ops.promote import broadcast_shapes
from facula.storage import Size
from facula.tensor import Tensor

__all__ = ["AbsTransform", "AffineTransform", "CatTransform", "ComposeTransform",
           "CorrCholeskyTransform", "CumulativeDistributionTransform", "ExpTransform",
           "IndependentTransform", "LowerCholeskyTransform", "PositiveDefiniteTransform",
           "PowerTransform", "ReshapeTransform", "SigmoidTransform", "SoftplusTransform",
           "TanhTransform", "SoftmaxTransform", "StackTransform", "StickBreakingTransform",
           "Transform", "identity_transform"]


class _Plain(Transform):
    """A transform without settings: two of a kind are equal."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    __hash__ = object.__hash__


class ReshapeTransform(Transform):
    """The last dimensions, `in_shape`, as `out_shape`; both hold as many elements."""

    bijective = True

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], cache_size: int = 0):
        self.in_shape, self.out_shape = Size(in_shape), Size(out_shape)
        if self.in_shape.numel() != self.out_shape.numel():
            raise ValueError("in_shape, out_shape have different numbers of elements")
        super().__init__(cache_size)

    @constraints.dependent_property
    def domain(self) -> Any:                                 # type: ignore[override]
        return constraints.independent(constraints.real, len(self.in_shape))

    @constraints.dependent_property
    def codomain(self) -> Any:                               # type: ignore[override]
        return constraints.independent(constraints.real, len(self.out_shape))

    def with_cache(self, cache_size: int = 1) -> Transform:
        if self._cache_size == cache_size:
            return self
        return ReshapeTransform(self.in_shape, self.out_shape, cache_size=cache_size)

    def _call(self, x: Any) -> Any:
        return x.reshape(self.forward_shape(x.shape))

    def _inverse(self, y: Any) -> Any:
        return y.reshape(self.inverse_shape(y.shape))

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return full(x.shape[:x.ndim - len(self.in_shape)], 0, dtype=x.dtype)

    @staticmethod
    def _swapped(shape: Sequence[int], old: Size, new: Size) -> Size:
        n = len(shape) - len(old)
        if n < 0:
            raise ValueError("Too few dimensions on input")
        if tuple(shape[n:]) != old:
            raise ValueError(f"Shape mismatch: expected {tuple(shape[n:])} but got {old}")
        return Size((*shape[:n], *new))

    def forward_shape(self, shape: Sequence[int]) -> Size:
        return self._swapped(shape, self.in_shape, self.out_shape)

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        return self._swapped(shape, self.out_shape, self.in_shape)


class ExpTransform(_Plain):
    """exp(x)."""

    domain = constraints.real
    codomain = constraints.positive
    bijective = True
    sign = 1                                                 # type: ignore[assignment]

    def _call(self, x: Any) -> Any:
        return x.exp()

    def _inverse(self, y: Any) -> Any:
        return y.log()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return x


def _same(a: Any, b: Any) -> bool:
    """Whether two settings, numbers or tensors, are equal."""
    if is_number(a) and is_number(b):
        return a == b
    return bool((a == b).all().item())


class PowerTransform(Transform):
    """x ** exponent, of positive numbers."""

    domain = constraints.positive
    codomain = constraints.positive
    bijective = True

    def __init__(self, exponent: Any, cache_size: int = 0):
        super().__init__(cache_size)
        self.exponent = exponent if isinstance(exponent, Tensor) else full((), exponent)

    def with_cache(self, cache_size: int = 1) -> Transform:
        if self._cache_size == cache_size:
            return self
        return PowerTransform(self.exponent, cache_size=cache_size)

    @property
    def sign(self) -> Any:
        return self.exponent.sign()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PowerTransform) and _same(self.exponent, other.exponent)

    __hash__ = object.__hash__

    def _call(self, x: Any) -> Any:
        return x.pow(self.exponent)

    def _inverse(self, y: Any) -> Any:
        return y.pow(1 / self.exponent)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return (self.exponent * y / x).abs().log()

    def forward_shape(self, shape: Sequence[int]) -> Size:
        return Size(broadcast_shapes(shape, self.exponent.shape))

    inverse_shape = forward_shape


class SigmoidTransform(_Plain):
    """1 / (1 + exp(-x)), kept inside of (0, 1) by the precision of the dtype."""

    domain = constraints.real
    codomain = constraints.unit_interval
    bijective = True
    sign = 1                                                 # type: ignore[assignment]

    def _call(self, x: Any) -> Any:
        info = finfo(x.dtype)
        return x.sigmoid().clamp(min=info.tiny, max=1 - info.eps)

    def _inverse(self, y: Any) -> Any:
        info = finfo(y.dtype)
        y = y.clamp(min=info.tiny, max=1 - info.eps)
        return y.log() - (-y).log1p()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return logsigmoid(x) + logsigmoid(-x)


class SoftplusTransform(_Plain):
    """log(1 + exp(x)), which is x where x > 20."""

    domain = constraints.real
    codomain = constraints.positive
    bijective = True
    sign = 1                                                 # type: ignore[assignment]

    def _call(self, x: Any) -> Any:
        return softplus(x)

    def _inverse(self, y: Any) -> Any:
        return (-(-y).expm1()).log() + y

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return -softplus(-x)


class TanhTransform(_Plain):
    """tanh(x).  A cache keeps its inverse exact where tanh saturates."""

    domain = constraints.real
    codomain = constraints.interval(-1.0, 1.0)
    bijective = True
    sign = 1                                                 # type: ignore[assignment]

    def _call(self, x: Any) -> Any:
        return x.tanh()

    def _inverse(self, y: Any) -> Any:
        return y.atanh()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        # 1 - tanh(x)**2 = 4 / (exp(x) + exp(-x))**2
        return 2 * (math.log(2) - x - softplus(-2 * x))


class AbsTransform(_Plain):
    """|x|.  Its inverse takes the positive one of two."""

    domain = constraints.real
    codomain = constraints.positive

    def _call(self, x: Any) -> Any:
        return x.abs()

    def _inverse(self, y: Any) -> Any:
        return y


class AffineTransform(Transform):
    """loc + scale * x; the last `event_dim` dimensions are one event."""

    bijective = True

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0):
        super().__init__(cache_size)
        self.loc, self.scale = loc, scale
        self._event_dim = event_dim

    @property
    def event_dim(self) -> int:
        return self._event_dim

    def _region(self) -> Any:
        n = self.event_dim
        return constraints.real if n == 0 else constraints.independent(constraints.real, n)

    @constraints.dependent_property(is_discrete=False)
    def domain(self) -> Any:                                 # type: ignore[override]
        return self._region()

    @constraints.dependent_property(is_discrete=False)
    def codomain(self) -> Any:                               # type: ignore[override]
        return self._region()

    def with_cache(self, cache_size: int = 1) -> Transform:
        if self._cache_size == cache_size:
            return self
        return AffineTransform(self.loc, self.scale, self.event_dim, cache_size=cache_size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AffineTransform) and _same(self.loc, other.loc) \
            and _same(self.scale, other.scale)

    __hash__ = object.__hash__

    @property
    def sign(self) -> Any:
        if isinstance(self.scale, Tensor):
            return self.scale.sign()
        return (self.scale > 0) - (self.scale < 0)

    def _call(self, x: Any) -> Any:
        return self.loc + self.scale * x

    def _inverse(self, y: Any) -> Any:
        return (y - self.loc) / self.scale

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        if isinstance(self.scale, Tensor):
            size = self.scale.abs().log()
        else:
            size = full((), math.log(abs(self.scale)), dtype=x.dtype)
        whole = size.expand(broadcast_shapes(x.shape, size.shape))
        return sum_rightmost(whole, self.event_dim)

    def _shape(self, shape: Sequence[int]) -> Size:
        return Size(broadcast_shapes(shape, *(t.shape for t in (self.loc, self.scale)
                                              if isinstance(t, Tensor))))

    def forward_shape(self, shape: Sequence[int]) -> Size:
        return self._shape(shape)

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        return self._shape(shape)


# ---------------------------------------------------------------- of vectors

class SoftmaxTransform(_Plain):
    """exp(x) over its sum, of vectors.  Not one to one: the inverse is log(y)."""

    domain = constraints.real_vector
    codomain = constraints.simplex

    def _call(self, x: Any) -> Any:
        return x.softmax(-1)

    def _inverse(self, y: Any) -> Any:
        return y.log()

    def _checked(self, shape: Sequence[int]) -> Size:
        if len(shape) < 1:
            raise ValueError("Too few dimensions on input")
        return Size(shape)

    def forward_shape(self, shape: Sequence[int]) -> Size:
        return self._checked(shape)

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        return self._checked(shape)


class StickBreakingTransform(_Plain):
    """n numbers as n + 1 that are positive and add up to 1: number k breaks off a part of what
    is left of a stick, an n-k-th of it where x is 0."""

    domain = constraints.real_vector
    codomain = constraints.simplex
    bijective = True

    @staticmethod
    def _offset(n: int, like: Any) -> Any:
        """log(n - k) for k = 0 ... n - 1."""
        return (n - arange(n, dtype=like.dtype)).log()

    def _call(self, x: Any) -> Any:
        z = SigmoidTransform()(x - self._offset(x.shape[-1], x))
        left = (1 - z).cumprod(-1)
        return pad(z, [0, 1], value=1) * pad(left, [1, 0], value=1)

    def _inverse(self, y: Any) -> Any:
        first = y[..., :-1]
        left = (1 - first.cumsum(-1)).clamp(min=finfo(y.dtype).tiny)
        return first.log() - left.log() + self._offset(first.shape[-1], y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        # dy_k/dx_k = left_k z_k (1 - z_k) = y_k (1 - z_k), and the matrix is triangular.
        t = x - self._offset(x.shape[-1], x)
        return (y[..., :-1].log() + logsigmoid(-t)).sum(-1)

    def forward_shape(self, shape: Sequence[int]) -> Size:
        if len(shape) < 1:
            raise ValueError("Too few dimensions on input")
        return Size((*shape[:-1], shape[-1] + 1))

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        if len(shape) < 1:
            raise ValueError("Too few dimensions on input")
        return Size((*shape[:-1], shape[-1] - 1))


# ---------------------------------------------------------------- of matrices

class CorrCholeskyTransform(_Plain):
    """n (n - 1) / 2 numbers as the Cholesky factor of a correlation matrix [n, n].

    Each row is a point of the half sphere: tanh(x) are signed square roots of parts of what is
    left of its squared length 1 (Lewandowski, Kurowicka and Joe, "Generating random correlation
    matrices based on vines and extended onion method", 2009).
    """

    domain = constraints.real_vector
    codomain = constraints.corr_cholesky
    bijective = True

    def _call(self, x: Any) -> Any:
        eps = finfo(x.dtype).eps
        r = vec_to_tril_matrix(x.tanh().clamp(min=-1 + eps, max=1 - eps), diag=-1)
        # left[i, j] is what is left of row i before column j, a root of a product
        left = (1 - r * r).sqrt().cumprod(-1)
        r = r + eye(r.shape[-1], dtype=r.dtype)
        return r * pad(left[..., :-1], [1, 0], value=1)

    def _inverse(self, y: Any) -> Any:
        left = 1 - (y * y).cumsum(-1)
        before = pad(left[..., :-1], [1, 0], value=1)
        parts = tril_matrix_to_vec(y, diag=-1)
        root = tril_matrix_to_vec(before, diag=-1).clamp(min=finfo(y.dtype).tiny).sqrt()
        return (parts / root).atanh()

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        # dy_ij/dx_ij = (1 - tanh(x_ij)**2) root(left_ij), triangular in the order of each row.
        left = 1 - (y * y).cumsum(-1)
        before = tril_matrix_to_vec(pad(left[..., :-1], [1, 0], value=1), diag=-1)
        roots = 0.5 * before.clamp(min=finfo(y.dtype).tiny).log().sum(-1)
        slopes = 2 * (math.log(2) - x - softplus(-2 * x))
        return roots + slopes.sum(-1)

    def forward_shape(self, shape: Sequence[int]) -> Size:
        if len(shape) < 1:
            raise ValueError("Too few dimensions on input")
        count = shape[-1]
        n = round((0.25 + 2 * count) ** 0.5 + 0.5)
        if n * (n - 1) // 2 != count:
            raise ValueError("Input is not a flattened lower-diagonal number")
        return Size((*shape[:-1], n, n))

    def inverse_shape(self, shape: Sequence[int]) -> Size:
        if len(shape) < 2:
            raise ValueError("Too few dimensions on input")
        if shape[-2] != shape[-1]:
            raise ValueError("Input is not square")
        n = shape[-1]
        return Size((*shape[:-2], n * (n - 1) // 2))


def _log_diagonal(x: Any) -> Any:
    return x.tril(-1) + x.diagonal(dim1=-2, dim2=-1).log().diag_embed()


class LowerCholeskyTransform(_Plain):
    """Square matrices as lower triangular ones with a positive diagonal, exp of theirs."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.lower_cholesky

    def _call(self, x: Any) -> Any:
        return x.tril(-1) + x.diagonal(dim1=-2, dim2=-1).exp().diag_embed()

    def _inverse(self, y: Any) -> Any:
        return _log_diagonal(y)


class PositiveDefiniteTransform(_Plain):
    """Square matrices as positive definite ones, by their Cholesky factors."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.positive_definite                 # type: ignore[assignment]

    def _call(self, x: Any) -> Any:
        factor = LowerCholeskyTransform()(x)
        return factor @ factor.mT

    def _inverse(self, y: Any) -> Any:
        from facula.linalg import cholesky
        return _log_diagonal(cholesky(y))


class CumulativeDistributionTransform(Transform):
    """A variable by its distribution function: of draws from `distribution`, uniform numbers."""

    bijective = True
    codomain = constraints.unit_interval
    sign = 1                                                 # type: ignore[assignment]

    def __init__(self, distribution: Any, cache_size: int = 0):
        super().__init__(cache_size)
        self.distribution = distribution

    @property
    def domain(self) -> Any:                                 # type: ignore[override]
        return self.distribution.support

    def _call(self, x: Any) -> Any:
        return self.distribution.cdf(x)

    def _inverse(self, y: Any) -> Any:
        return self.distribution.icdf(y)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return self.distribution.log_prob(x)

    def with_cache(self, cache_size: int = 1) -> Transform:
        if self._cache_size == cache_size:
            return self
        return CumulativeDistributionTransform(self.distribution, cache_size=cache_size)
