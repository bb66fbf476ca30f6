"""Losses of class numbers and class probabilities: cross_entropy, nll_loss.

A row of logits becomes its loss in one pass, log(sum(exp(x))) - x[target], written so that its
gradient is (softmax - one-hot) times the row's share: a comparison with 0 .. C-1 stands for the
one-hot row, so that nothing is gathered or scattered.
"""

from __future__ import annotations

import math
from typing import Any

from facula.dtype import int64
from facula.errors import DTypeError, ShapeError
from facula.nn.functional.common import (
    axis_iota,
    legacy,
    mul_number,
    number,
    reduced,
    shape_of,
)
from facula.ops.define import autocast_to, op
from facula.ops.promote import cast, expand_to, type_name
from facula.ops.reductions import constant, reduce_to, widened
from facula.tensor import Tensor, prim

__all__ = ["cross_entropy", "nll_loss", "linear_cross_entropy"]

WIDE = 4096
"""From so many classes on an element is gathered instead of compared for."""


def _is_class_numbers(input: Tensor, target: Tensor) -> bool:
    return target.ndim != input.ndim or shape_of(target) != shape_of(input)


def _check(name: str, input: Tensor, target: Tensor, weight: Tensor | None) -> None:
    """Raise unless `target` has the input's shape without its class dimension."""
    x, t = shape_of(input), shape_of(target)
    if input.dtype.kind != "f":
        raise DTypeError(f'"{name}" not implemented for \'{type_name(input.dtype)}\'; convert '
                         "the input, e.g. with .float()")
    if not x:
        raise ShapeError(f"{name}: the input needs a class dimension, got shape []")
    if len(x) > 1 and t and t[0] != x[0]:
        raise ShapeError(f"Expected input batch_size ({x[0]}) to match target batch_size "
                         f"({t[0]}): {name} was given input of shape {list(x)} and target "
                         f"of shape {list(t)}")
    if target.dtype.kind not in "ui":
        raise DTypeError(f"expected scalar type Long but found {type_name(target.dtype)}: "
                         f"{name} was given input of shape {list(x)} and target of shape "
                         f"{list(t)}; class numbers are integers (target.long()), and class "
                         "probabilities have the input's shape")
    want = () if len(x) == 1 else (x[0], *x[2:])
    if t != want:
        raise ShapeError(f"{name}: expected target size {list(want)}, got {list(t)}, for input "
                         f"of shape {list(x)} (classes in dim {0 if len(x) == 1 else 1})")
    _check_weight(x, weight)
    if weight is not None and weight.dtype is not input.dtype:
        raise DTypeError(f"expected scalar type {type_name(input.dtype)} but found "
                         f"{type_name(weight.dtype)}: {name}'s weight has the dtype of its input; "
                         f"use weight.to(facula.{input.dtype.name})")


def _check_weight(x: tuple[int, ...], weight: Tensor | None) -> None:
    classes = x[0] if len(x) == 1 else x[1]
    if weight is not None and shape_of(weight) != (classes,):
        raise ShapeError("weight tensor should be defined either for all or no classes: "
                         f"{classes} classes, and weight has shape {list(shape_of(weight))}")


def _kept_target(target: Tensor, classes: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """(class numbers with 0 where ignored, where they count); both checked when computed.

    What is taken from 0 .. C-1 is the number itself, unless it is out of range.
    """
    target = cast(target, int64)
    counts = prim("ne", target, number(target, ignore_index))
    safe = prim("where", counts, target, number(target, 0))
    if classes:
        line = prim("iota", shape=(classes,), dtype=int64)
        same = prim("eq", prim("take", line, safe, attrs=(0,)), safe)
        counts = prim("logical_and", counts, same)
    return safe, counts


def _rows(values: Tensor, shape: tuple[int, ...], axis: int) -> Tensor:
    """A value per row, repeated over the classes."""
    one = (*shape[:axis], 1, *shape[axis + 1:])
    return expand_to(prim("reshape", values, shape=one), shape)


def _picked(x: Tensor, safe: Tensor, axis: int) -> Tensor:
    """x[..., target, ...]: one element of each row."""
    shape = shape_of(x)
    if shape[axis] >= WIDE:
        one = (*shape[:axis], 1, *shape[axis + 1:])
        found = prim("gather", x, prim("reshape", safe, shape=one), attrs=(axis,))
        return prim("reshape", found, shape=shape_of(safe))
    hit = prim("eq", axis_iota(shape, axis), _rows(safe, shape, axis))
    return reduce_to("sum", prim("where", hit, x, number(x, 0)), (axis,))


def _mean_over_targets(loss: Tensor, share: Tensor | None, counts: Tensor,
                       reduction: str) -> Tensor:
    """The reduction of the losses that count; the mean is over their weights' sum."""
    loss = prim("where", counts, loss, number(loss, 0))
    if reduction != "mean":
        return reduced(loss, reduction)
    weights = cast(counts, loss.dtype)
    if share is not None:
        weights = prim("where", counts, share, number(share, 0))
    return prim("div", reduced(loss, "sum"), reduced(weights, "sum"))


def _class_weights(weight: Tensor, safe: Tensor, x: Tensor) -> Tensor:
    return prim("take", cast(weight, x.dtype), safe, attrs=(0,))


# ---------------------------------------------------------------- nll

def _targets(make: Any, classes: int, *shape: int) -> Any:
    return make(*shape, dtype=int64, low=0, high=classes - 1)


@op(name="nll_loss", samples=lambda make: [
    ((make(4, 3), _targets(make, 3, 4)), {}),
    ((make(2, 3, 5), _targets(make, 3, 2, 5), make(3, low=0.1, high=2)), {}),
    ((make(3), _targets(make, 3)), {}),
    ((make(4, 3), _targets(make, 3, 4)), {"ignore_index": 1, "reduction": "sum"}),
    ((make(4, 3), _targets(make, 3, 4)), {"reduction": "none"})])
@autocast_to("full")
def _nll(input: Tensor, target: Tensor, weight: Tensor | None = None, ignore_index: int = -100,
         reduction: str = "mean") -> Tensor:
    """-weight[target] * input[target] of log-probabilities, classes in dim 1."""
    x = widened(input)
    axis = 0 if x.ndim == 1 else 1
    safe, counts = _kept_target(target, shape_of(x)[axis], ignore_index)
    loss = prim("neg", _picked(x, safe, axis))
    share = None
    if weight is not None:
        share = _class_weights(weight, safe, x)
        loss = prim("mul", loss, share)
    return cast(_mean_over_targets(loss, share, counts, reduction), input.dtype)


def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None,
             size_average: Any = None, ignore_index: int = -100, reduce: Any = None,
             reduction: str = "mean") -> Tensor:
    """-input[n, target[n]] of log-probabilities `[N, C, *]` (or `[C]`) and numbers `[N, *]`.

    `weight` has one number a class; targets equal to `ignore_index` do not count.  Raises
    IndexError, when the values are computed, for a target that is no class.
    """
    reduction = legacy(size_average, reduce, reduction)
    _check("nll_loss", input, target, weight)
    return _nll(input, target, weight, ignore_index, reduction)     # type: ignore


# ---------------------------------------------------------------- cross-entropy

def _shifted(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """(x - max, log(sum(exp(x - max)))), the second without the classes."""
    shape = shape_of(x)
    top = reduce_to("amax", constant(x), (axis,), True)
    # A row whose largest is infinite keeps its infinities, and its loss is NaN as it should be.
    moved = prim("sub", x, expand_to(top, shape))
    total = reduce_to("sum", prim("exp", moved), (axis,))
    return moved, prim("log", total)


@op(name="cross_entropy", samples=lambda make: [
    ((make(4, 3), _targets(make, 3, 4)), {}),
    ((make(2, 3, 5), _targets(make, 3, 2, 5), make(3, low=0.1, high=2)), {}),
    ((make(3), _targets(make, 3)), {}),
    ((make(4, 3), _targets(make, 3, 4)), {"ignore_index": 1, "reduction": "sum"}),
    ((make(4, 3), _targets(make, 3, 4)), {"label_smoothing": 0.2, "reduction": "none"}),
    ((make(4, 3), _targets(make, 3, 4), make(3, low=0.1, high=2)), {"label_smoothing": 0.2})])
@autocast_to("full")
def _by_number(input: Tensor, target: Tensor, weight: Tensor | None = None,
               ignore_index: int = -100, reduction: str = "mean",
               label_smoothing: float = 0.0) -> Tensor:
    """log(sum(exp(x))) - x[target] along the classes."""
    x = widened(input)
    shape = shape_of(x)
    axis = 0 if len(shape) == 1 else 1
    classes = shape[axis]
    safe, counts = _kept_target(target, classes, ignore_index)
    if not classes:
        raise ShapeError("cross_entropy: there are no classes (input of shape "
                         f"{list(shape)})")
    moved, log_total = _shifted(x, axis)
    loss = prim("sub", log_total, _picked(moved, safe, axis))
    share = None
    if weight is not None:
        share = _class_weights(weight, safe, x)
        loss = prim("mul", loss, share)
    if label_smoothing > 0:
        smooth = _over_classes(moved, log_total, weight, axis)
        loss = prim("add", mul_number(loss, 1.0 - label_smoothing),
                    mul_number(smooth, label_smoothing / classes))
    return cast(_mean_over_targets(loss, share, counts, reduction), input.dtype)


def _over_classes(moved: Tensor, log_total: Tensor, weight: Tensor | None, axis: int) -> Tensor:
    """The sum over classes of weight * -log(softmax)."""
    shape = shape_of(moved)
    if weight is None:
        total = reduce_to("sum", moved, (axis,))
        return prim("sub", mul_number(log_total, float(shape[axis])), total)
    ones = [1] * len(shape)
    ones[axis] = shape[axis]
    w = cast(weight, moved.dtype)
    spread = expand_to(prim("reshape", w, shape=tuple(ones)), shape)
    total = reduce_to("sum", prim("mul", spread, moved), (axis,))
    all_weights = expand_to(reduce_to("sum", w, (0,)), shape_of(log_total))
    return prim("sub", prim("mul", all_weights, log_total), total)


@op(name="cross_entropy_probabilities", samples=lambda make: [
    ((make(4, 3), make(4, 3, low=0, high=1)), {}),
    ((make(2, 3, 5), make(2, 3, 5, low=0, high=1), make(3, low=0.1, high=2)),
     {"label_smoothing": 0.1}),
    ((make(3), make(3, low=0, high=1)), {"reduction": "sum"})])
def _by_probability(input: Tensor, target: Tensor, weight: Tensor | None = None,
                    reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
    """-target * log(softmax(input)), summed over the classes."""
    x, t = widened(input), widened(target)
    t = cast(t, x.dtype)
    shape = shape_of(x)
    axis = 0 if len(shape) == 1 else 1
    if label_smoothing > 0:
        t = prim("add", mul_number(t, 1.0 - label_smoothing),
                 number(t, label_smoothing / shape[axis]))
    if weight is not None:
        ones = [1] * len(shape)
        ones[axis] = shape[axis]
        w = prim("reshape", cast(weight, x.dtype), shape=tuple(ones))
        t = prim("mul", t, expand_to(w, shape))
    moved, log_total = _shifted(x, axis)
    logp = prim("sub", moved, _rows(log_total, shape, axis))
    loss = prim("neg", reduce_to("sum", prim("mul", t, logp), (axis,)))
    if reduction != "mean":
        return cast(reduced(loss, reduction), input.dtype)
    total = reduced(loss, "sum")
    count = math.prod(shape) // shape[axis] if shape[axis] else 0
    return cast(prim("div", total, number(total, count)), input.dtype)


def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None,
                  size_average: Any = None, ignore_index: int = -100, reduce: Any = None,
                  reduction: str = "mean", label_smoothing: float = 0.0) -> Tensor:
    """Log-softmax over the classes and negative log-likelihood, of logits `[N, C, *]` or `[C]`.

    target           class numbers `[N, *]`, or probabilities of the input's shape
    weight           a number for each class
    ignore_index     the class number that does not count
    label_smoothing  how much of each target is spread over all classes (Szegedy et al. 2016)

    Raises IndexError, when the values are computed, for a target that is no class.
    """
    reduction = legacy(size_average, reduce, reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError("label_smoothing must be between 0.0 and 1.0. Got: "
                           f"{label_smoothing}")
    if not _is_class_numbers(input, target):
        if target.dtype.kind != "f":
            raise DTypeError("Expected floating point type for target with class probabilities, "
                             f"got {type_name(target.dtype)}")
        if ignore_index >= 0:
            raise RuntimeError("ignore_index is not supported for floating point target")
        _check_weight(shape_of(input), weight)
        return _by_probability(input, target, weight, reduction,    # type: ignore
                               float(label_smoothing))
    _check("cross_entropy", input, target, weight)
    return _by_number(input, target, weight, ignore_index, reduction,   # type: ignore
                      float(label_smoothing))


# ---------------------------------------------------------------- of a linear map

def linear_cross_entropy(input: Tensor, linear_weight: Tensor, target: Tensor, *,
                         linear_bias: Tensor | None = None, weight: Tensor | None = None,
                         reduction: str = "mean", ignore_index: int | None = None,
                         label_smoothing: float = 0.0, options: Any = None) -> Tensor:
    """`cross_entropy(linear(input, linear_weight, linear_bias), target)`.

    input `[in]` or `[N, in]`; linear_weight `[C, in]`, or `[C, *, in]` for targets `[N, *]`.
    `options`, PyTorch's hints on how to cut the work, are accepted: the compiler decides here.
    """
    if input.ndim not in (1, 2):
        raise RuntimeError("expected input with dimensionality 1 or 2, got "
                           f"{input.ndim}")
    if linear_weight.ndim < 2:
        raise RuntimeError("expected linear_weight with dimensionality at least 2, got "
                           f"{linear_weight.ndim}")
    w = shape_of(linear_weight)
    if shape_of(input)[-1] != w[-1]:
        raise RuntimeError("expected equal input and linear_weight last dimensions (in_features), "
                           f"got {input.shape[-1]} and {w[-1]}, respectively")
    if linear_bias is not None and shape_of(linear_bias) != w[:-1]:
        raise RuntimeError(f"expected linear_bias shape {w[:-1]}, got {shape_of(linear_bias)}")
    if len(w) > 2 and input.ndim == 1:
        raise RuntimeError(f"K-dimensional loss defined by linear_weight shape {w} requires "
                           f"batched input, (N, {w[-1]}), got unbatched input with shape "
                           f"{shape_of(input)}")
    logits: Tensor = _logits(input, linear_weight, linear_bias)
    if shape_of(target) == shape_of(logits) and ignore_index is not None:
        raise RuntimeError("ignore_index cannot be specified when target contains probabilities")
    return cross_entropy(logits, target, weight, reduction=reduction,
                         ignore_index=-100 if ignore_index is None else ignore_index,
                         label_smoothing=label_smoothing)


@op(register=False)
def _logits(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    from facula.nn.functional.linear import linear
    w = shape_of(weight)
    flat = prim("reshape", weight, shape=(math.prod(w[:-1]), w[-1]))
    b = None if bias is None else prim("reshape", bias, shape=(math.prod(w[:-1]),))
    out = linear(input, flat, b)
    return prim("reshape", out, shape=(*shape_of(input)[:-1], *w[:-1]))
