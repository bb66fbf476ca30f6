"""Normalisation by mean and variance, over features or over the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from facula.errors import DTypeError, ShapeError
from facula.graph.record import recorder
from facula.nn.functional.common import (
    add_number,
    float_only,
    mul_number,
    number,
    per_channel,
    shape_of,
)
from facula.ops.define import composite, op
from facula.ops.promote import as_float, cast, expand_to, type_name
from facula.ops.reductions import mean_over, widened
from facula.tensor import Tensor, prim, scalar

__all__ = ["layer_norm", "rms_norm", "group_norm", "instance_norm", "batch_norm",
           "local_response_norm"]


def _standardised(x: Tensor, axes: tuple[int, ...], eps: float
                  ) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean) / sqrt(var + eps) over axes, with the mean and variance (axes of size 1)."""
    shape = shape_of(x)
    mean = mean_over(x, axes, True)
    centred = prim("sub", x, expand_to(mean, shape))
    var = mean_over(prim("mul", centred, centred), axes, True)
    scale = prim("rsqrt", add_number(var, eps))
    return prim("mul", centred, expand_to(scale, shape)), mean, var


def _one_dtype(name: str, x: Tensor, *others: Tensor | None) -> None:
    float_only(name, x)
    for t in others:
        if t is not None and t.dtype is not x.dtype and t.dtype.itemsize < x.dtype.itemsize:
            raise DTypeError(f"{name}: expected scalar type {type_name(x.dtype)} but found "
                             f"{type_name(t.dtype)}")


def _check_shape(name: str, input: Tensor, shape: tuple[int, ...], weight: Tensor | None,
                 bias: Tensor | None) -> tuple[int, ...]:
    """The axes that `shape` names: the last of the input."""
    if not shape:
        raise ShapeError("Expected normalized_shape to be at least 1-dimensional, i.e., "
                         "containing at least one element, but got normalized_shape = []")
    for what, t in (("weight", weight), ("bias", bias)):
        if t is not None and shape_of(t) != shape:
            raise ShapeError(f"Expected {what} to be of same shape as normalized_shape, but got "
                             f"{what} of shape {list(shape_of(t))} and normalized_shape = "
                             f"{list(shape)}")
    have = shape_of(input)
    if have[len(have) - len(shape):] != shape or len(have) < len(shape):
        stars = ", ".join(map(str, shape))
        raise ShapeError(f"Given normalized_shape={list(shape)}, expected input with shape "
                         f"[*, {stars}], but got input of size{list(have)}")
    return tuple(range(len(have) - len(shape), len(have)))


def _layer_samples(make: Any) -> list[Any]:
    return [((make(3, 5), (5,), make(5), make(5)), {}), ((make(2, 3, 4), (3, 4)), {}),
            ((make(2, 3, 4), (4,), make(4)), {}), ((make(0, 4), (4,), make(4), make(4)), {}),
            ((make(7), (7,), None, None, 1e-3), {})]


@op(name="layer_norm", samples=_layer_samples)
def _layer_norm(input: Tensor, shape: tuple[int, ...], weight: Tensor | None = None,
                bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """The last dimensions, `shape`, with mean 0 and variance 1, times weight plus bias."""
    _one_dtype("layer_norm", input, weight, bias)
    axes = _check_shape("layer_norm", input, tuple(shape), weight, bias)
    x = widened(input)
    out, _, _ = _standardised(x, axes, eps)
    have = shape_of(x)
    if weight is not None:
        out = prim("mul", out, expand_to(cast(weight, x.dtype), have))
    if bias is not None:
        out = prim("add", out, expand_to(cast(bias, x.dtype), have))
    return cast(out, input.dtype)


def layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
               bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """The last dimensions with mean 0 and variance 1, times `weight` plus `bias` (Ba et al. 2016).

    Raises ShapeError unless the input's shape ends in `normalized_shape`.
    """
    return _layer_norm(input, tuple(normalized_shape), weight, bias, eps)   # type: ignore


_EPS = {"float16": 0.0009765625, "bfloat16": 0.0078125, "float32": 1.1920928955078125e-07,
        "float64": 2.220446049250313e-16}


@op(name="rms_norm", samples=lambda make: [
    ((make(3, 5), (5,), make(5)), {}), ((make(2, 3, 4), (3, 4)), {"eps": 1e-3}),
    ((make(0, 4), (4,)), {})])
def _rms_norm(input: Tensor, shape: tuple[int, ...], weight: Tensor | None = None,
              eps: float | None = None) -> Tensor:
    """The last dimensions, `shape`, divided by their root mean square, times weight."""
    if input.dtype.kind != "c":
        _one_dtype("rms_norm", input, weight)
    axes = _check_shape("rms_norm", input, tuple(shape), weight, None)
    x = widened(input)
    have = shape_of(x)
    mean = mean_over(prim("mul", x, x), axes, True)
    # The smallest step of the dtype that is computed in, as PyTorch has it.
    scale = prim("rsqrt", add_number(mean, _EPS[x.dtype.to_real().name] if eps is None else eps))
    out = prim("mul", x, expand_to(scale, have))
    if weight is not None:
        out = prim("mul", out, expand_to(cast(weight, x.dtype), have))
    return cast(out, input.dtype)


def rms_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
             eps: float | None = None) -> Tensor:
    """The last dimensions divided by their root mean square (Zhang and Sennrich 2019).

    `eps` is the smallest step of the dtype unless given.
    """
    return _rms_norm(input, tuple(normalized_shape), weight, eps)   # type: ignore


@op(samples=lambda make: [
    ((make(2, 6, 3), 3, make(6), make(6)), {}), ((make(2, 4), 2), {}),
    ((make(2, 4, 2, 3), 1, make(4)), {}), ((make(0, 4, 3), 2), {})])
def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None,
               bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Groups of channels of `[N, C, *]` with mean 0 and variance 1 (Wu and He 2018)."""
    shape = shape_of(input)
    if len(shape) < 2:
        raise ShapeError("Expected at least 2 dimensions for input tensor but received "
                         f"{len(shape)}")
    _one_dtype("group_norm", input, weight, bias)
    n, c = shape[:2]
    if num_groups < 1 or c % num_groups:
        raise ShapeError("Expected number of channels in input to be divisible by num_groups, "
                         f"but got input of shape {list(shape)} and num_groups={num_groups}")
    for what, t in (("weight", weight), ("bias", bias)):
        if t is not None and shape_of(t) != (c,):
            raise ShapeError(f"Expected {what} to be a vector of size equal to the number of "
                             f"channels in input, but got {what} of shape {list(shape_of(t))} "
                             f"and input of shape {list(shape)}")
    x = widened(input)
    inner = math.prod(shape[1:]) // num_groups
    groups = prim("reshape", x, shape=(n, num_groups, inner))
    out, _, _ = _standardised(groups, (2,), eps)
    out = prim("reshape", out, shape=shape)
    return cast(_affine(out, weight, bias), input.dtype)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """x times one weight a channel plus one bias a channel."""
    shape = shape_of(x)
    if weight is not None:
        x = prim("mul", x, per_channel(cast(weight, x.dtype), shape))
    if bias is not None:
        x = prim("add", x, per_channel(cast(bias, x.dtype), shape))
    return x


# ---------------------------------------------------------------- with running statistics

def _unbiased(var: Tensor, count: int) -> Tensor:
    """The variance that estimates its population's."""
    return mul_number(var, count / (count - 1)) if count > 1 else mul_number(var, math.nan)


@op(register=False)
def _by_batch(input: Tensor, weight: Tensor | None, bias: Tensor | None,
              eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised over all dimensions but 1; with the mean and the unbiased variance."""
    x = widened(input)
    shape = shape_of(x)
    axes = tuple(k for k in range(len(shape)) if k != 1)
    out, mean, var = _standardised(x, axes, eps)
    count = math.prod(shape) // shape[1] if shape[1] else 0
    c = (shape[1],)
    return (cast(_affine(out, weight, bias), input.dtype), prim("reshape", mean, shape=c),
            _unbiased(prim("reshape", var, shape=c), count))


@op(register=False)
def _by_stored(input: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None,
               bias: Tensor | None, eps: float) -> Tensor:
    """Normalised by given statistics, one of each a channel."""
    x = widened(input)
    shape = shape_of(x)
    scale = prim("rsqrt", add_number(cast(var, x.dtype), eps))
    out = prim("sub", x, per_channel(cast(mean, x.dtype), shape))
    out = prim("mul", out, per_channel(scale, shape))
    return cast(_affine(out, weight, bias), input.dtype)


@composite
def _moved(old: Tensor, new: Tensor, momentum: Tensor) -> Tensor:
    """old + momentum * (new - old), as PyTorch has it: (1 - momentum) old + momentum new."""
    wide = widened(old)
    m = expand_to(cast(momentum, wide.dtype), shape_of(wide))
    keep = prim("mul", prim("sub", number(m, 1), m), wide)
    return cast(prim("add", keep, prim("mul", m, cast(new, wide.dtype))), old.dtype)


def _track(stored: Tensor | None, new: Tensor, momentum: float) -> None:
    """Move a running statistic towards a new one, in place."""
    if stored is None:
        return
    from facula.dtype import float32, float64
    rec = recorder()
    grad, rec.grad = rec.grad, False
    try:
        factor = scalar(float(momentum), float64 if stored.dtype is float64 else float32)
        stored._write(_moved(stored, new, factor))
    finally:
        rec.grad = grad


def _check_channels(shape: tuple[int, ...], **vectors: Tensor | None) -> None:
    for what, t in vectors.items():
        if t is not None and t.numel() != shape[1]:
            raise ShapeError(f"{what} should contain {shape[1]} elements not {t.numel()}: the "
                             f"input has shape {list(shape)}, its channels are dim 1")


def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
               weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
               momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Each channel of `[N, C, *]` with mean 0 and variance 1 (Ioffe and Szegedy 2015).

    In training the batch's own statistics are used, and the running ones moved towards them in
    place; otherwise the running ones are used.
    """
    shape = shape_of(input)
    if len(shape) == 1 and not shape[0]:
        return prim("alias", input)
    if len(shape) < 2:
        raise ShapeError(f"batch_norm: expected at least 2D input (got {len(shape)}D input)")
    _one_dtype("batch_norm", input, weight, bias)
    _check_channels(shape, running_mean=running_mean, running_var=running_var, weight=weight,
                    bias=bias)
    if not training:
        if running_mean is None or running_var is None:
            raise RuntimeError("Expected running_mean and running_var to be defined when "
                               "training=False")
        stored: Tensor = _by_stored(input, running_mean, running_var, weight, bias, eps)
        return stored
    if shape[0] * math.prod(shape[2:]) == 1:
        raise ValueError("Expected more than 1 value per channel when training, got input size "
                         f"{input.shape}")
    if eps <= 0:
        raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
    out, mean, var = _by_batch(input, weight, bias, eps)
    if not input.numel():                   # no statistics, and those of before stay as they are
        return out                                          # type: ignore[no-any-return]
    _track(running_mean, mean.detach(), momentum)
    _track(running_var, var.detach(), momentum)
    return out                                              # type: ignore[no-any-return]


@op(register=False)
def _by_instance(input: Tensor, weight: Tensor | None, bias: Tensor | None,
                 eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised over the dimensions from 2 on; with each channel's mean statistics."""
    x = widened(input)
    shape = shape_of(x)
    axes = tuple(range(2, len(shape)))
    out, mean, var = _standardised(x, axes, eps)
    n, c = shape[:2]
    mean = mean_over(prim("reshape", mean, shape=(n, c)), (0,), False)
    var = mean_over(prim("reshape", var, shape=(n, c)), (0,), False)
    return (cast(_affine(out, weight, bias), input.dtype), mean,
            _unbiased(var, math.prod(shape[2:])))


def instance_norm(input: Tensor, running_mean: Tensor | None = None,
                  running_var: Tensor | None = None, weight: Tensor | None = None,
                  bias: Tensor | None = None, use_input_stats: bool = True,
                  momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Each channel of each example of `[N, C, *]` with mean 0 and variance 1."""
    shape = shape_of(input)
    if len(shape) < 3:
        raise ShapeError("instance_norm: expected at least 3D input `[N, C, *]` (got "
                         f"{len(shape)}D input)")
    _one_dtype("instance_norm", input, weight, bias)
    _check_channels(shape, running_mean=running_mean, running_var=running_var, weight=weight,
                    bias=bias)
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise RuntimeError("Expected running_mean and running_var to be defined when "
                               "use_input_stats=False")
        stored: Tensor = _by_stored(input, running_mean, running_var, weight, bias, eps)
        return stored
    if math.prod(shape[2:]) == 1:
        raise ValueError("Expected more than 1 spatial element when training, got input size "
                         f"{input.shape}")
    out, mean, var = _by_instance(input, weight, bias, eps)
    _track(running_mean, mean.detach(), momentum)
    _track(running_var, var.detach(), momentum)
    return out                                              # type: ignore[no-any-return]


# ---------------------------------------------------------------- across channels

@op(samples=lambda make: [((make(2, 5, 3), 3), {}), ((make(2, 4, 3, 2), 2), {"alpha": 0.5}),
                          ((make(2, 3, 2), 5), {"beta": 0.5, "k": 2.0})])
def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75,
                        k: float = 1.0) -> Tensor:
    """input / (k + alpha * mean of squares of `size` neighbouring channels) ** beta.

    Krizhevsky et al. 2012; channels past the ends count as 0.
    """
    shape = shape_of(input)
    if len(shape) < 3:
        raise ValueError("Expected 3D or higher dimensionality input (got "
                         f"{len(shape)} dimensions)")
    if not input.numel():
        return prim("alias", input)
    none = (0,) * len(shape)
    low, high = list(none), list(none)
    low[1], high[1] = size // 2, (size - 1) // 2
    square = prim("pad", prim("mul", input, input), attrs=(tuple(low), tuple(high), 0.0))
    total: Tensor | None = None
    for start in range(size):
        at = list(none)
        at[1] = start
        part = prim("slice", square, attrs=(tuple(at), (1,) * len(shape)), shape=shape)
        total = part if total is None else prim("add", total, part)
    assert total is not None
    if total.dtype.kind in "ui":                     # PyTorch's mean of integers is one
        mean = as_float(prim("div", as_float(total), number(as_float(total), size)))
        mean = prim("trunc", mean)
    else:
        mean = mul_number(total, 1.0 / size)
    base = add_number(mul_number(mean, alpha), k)
    return prim("div", cast(input, base.dtype), prim("pow", base, number(base, beta)))
