"""What distributions, constraints and transforms share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import facula.ops as _ops  # noqa: F401
from facula.graph.record import _local
from facula.info import finfo
from facula.ops.creation import full
from facula.ops.draws import normal_numbers, uniform_numbers
from facula.ops.promote import broadcast_shapes, get_default_dtype, result_type
from facula.storage import Size
from facula.tensor import Tensor

__all__ = ["EULER", "broadcast_all", "clamp_probs", "exponential_like", "holds", "is_number",
           "lazy_property", "log_beta", "log_sum_exp", "logits_to_probs", "normal_like",
           "open_uniform", "probs_to_logits", "sum_rightmost", "tril_matrix_to_vec",
           "uniform_like", "vec_to_tril_matrix"]

EULER = 0.57721566490153286060651209008240243


def is_number(value: Any) -> bool:
    """Whether a parameter was given as a Python number."""
    return isinstance(value, (int, float)) and not isinstance(value, Tensor)


def broadcast_all(*values: Any) -> tuple[Any, ...]:
    """Tensors and numbers as tensors of one shape.

    Numbers take the dtype that the tensors have together, or the default one.  Raises a
    ValueError for anything else.
    """
    for v in values:
        if not isinstance(v, Tensor) and not is_number(v):
            raise ValueError("parameters of a distribution are tensors or numbers, and one of "
                             f"these is a {type(v).__name__}")
    tensors = [v for v in values if isinstance(v, Tensor)]
    dtype = get_default_dtype()
    if tensors:
        dtype = tensors[0].dtype
        for t in tensors[1:]:
            dtype = result_type(full((1,), 0, dtype=dtype), t) if t.dtype is not dtype else dtype
    shape = Size(broadcast_shapes(*(t.shape for t in tensors)))
    out = []
    for v in values:
        t = v if isinstance(v, Tensor) else full((), v, dtype=dtype)
        out.append(t if t.shape == shape else t.expand(shape))
    return tuple(out)


def holds(condition: Tensor) -> bool:
    """Whether a condition holds everywhere.

    Inside `facula.compile` and function transforms there are no values to look at, and it is
    taken to hold.
    """
    rec = _local.rec
    if rec.tape is not None or rec.outer is not None or rec.depth:
        return True
    return bool(condition.all().item())


class lazy_property:
    """An attribute that is computed when it is first asked for, and kept."""

    def __init__(self, wrapped: Callable[[Any], Any]):
        self.wrapped = wrapped
        self.__doc__ = wrapped.__doc__
        self.__name__ = wrapped.__name__

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        from facula.autograd import enable_grad
        with enable_grad():
            value = self.wrapped(instance)
        instance.__dict__[self.__name__] = value
        return value


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities kept away from 0 and 1 by the precision of their dtype."""
    eps = finfo(probs.dtype).eps
    return probs.clamp(min=eps, max=1 - eps)


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """Probabilities of log-odds (`is_binary`), or of unnormalised logarithms in [..., n]."""
    return logits.sigmoid() if is_binary else logits.softmax(-1)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """Log-odds of probabilities (`is_binary`), or their logarithms; finite at 0 and 1."""
    safe = clamp_probs(probs)
    return safe.log() - (-safe).log1p() if is_binary else safe.log()


def sum_rightmost(value: Any, dim: int) -> Any:
    """The sum over the last `dim` dimensions."""
    if dim == 0 or is_number(value):
        return value
    at = value.ndim - dim
    return value.reshape(*value.shape[:at], math.prod(value.shape[at:])).sum(-1)


def log_sum_exp(value: Tensor) -> Tensor:
    """log sum exp over the last dimension, [..., n] -> [..., 1]."""
    return value.logsumexp(-1, keepdim=True)


def log_beta(a: Any, b: Any) -> Tensor:
    """The logarithm of the beta function."""
    return a.lgamma() + b.lgamma() - (a + b).lgamma()


def _corner(size: int, diag: int) -> tuple[Any, Any]:
    from facula.ops.patterns import tril_indices
    index = tril_indices(size, size, diag)
    return index[0], index[1]


def tril_matrix_to_vec(mat: Tensor, diag: int = 0) -> Tensor:
    """The lower triangles of [..., n, n] up to diagonal `diag`, row by row, as vectors.

    Raises a ValueError for a diagonal that the matrix does not have.
    """
    n = mat.shape[-1]
    if not -n <= diag < n:
        raise ValueError(f"diag ({diag}) has to be in [{-n}, {n - 1}]")
    rows, columns = _corner(n, diag)
    return mat[..., rows, columns]


def vec_to_tril_matrix(vec: Tensor, diag: int = 0) -> Tensor:
    """The inverse of `tril_matrix_to_vec`: the rest of the matrices is 0.

    Raises a ValueError where the length is that of no triangle.
    """
    count = vec.shape[-1]
    # count = n (n + 1) / 2 + n diag for diag <= 0
    n = (-(1 + 2 * diag) + math.sqrt((1 + 2 * diag) ** 2 + 8 * count + 4 * abs(diag)
                                     * (diag + 1))) / 2
    if round(n) != n:
        raise ValueError(f"{count} numbers are not a lower triangle up to diagonal {diag}")
    size = int(n)
    rows, columns = _corner(size, diag)
    flat = full((*vec.shape[:-1], size * size), 0, dtype=vec.dtype)
    index = (rows * size + columns).expand(vec.shape)
    return flat.scatter(-1, index, vec).reshape(*vec.shape[:-1], size, size)


def uniform_like(like: Tensor, shape: Any) -> Tensor:
    """Uniform numbers in [0, 1) in the dtype of `like`."""
    return uniform_numbers(tuple(shape), like.dtype)


def normal_like(like: Tensor, shape: Any) -> Tensor:
    """Standard normal numbers in the dtype of `like`."""
    return normal_numbers(tuple(shape), like.dtype)


def open_uniform(like: Tensor, shape: Any) -> Tensor:
    """Uniform numbers strictly between 0 and 1, whose logarithms and log-odds are finite."""
    info = finfo(like.dtype)
    return uniform_numbers(tuple(shape), like.dtype).clamp(min=info.tiny, max=1 - info.eps / 2)


def exponential_like(like: Tensor, shape: Any) -> Tensor:
    """Exponential numbers of rate 1 in the dtype of `like`, above 0."""
    return -open_uniform(like, shape).log()
