"""Losses with a margin, and losses of pairs, triples and sets of labels."""

from __future__ import annotations

from typing import Any

from facula.dtype import int64
from facula.errors import DTypeError, ShapeError
from facula.nn.functional.activation import _logsigmoid_of
from facula.nn.functional.common import (
    add_number,
    axis_iota,
    legacy,
    mul_number,
    number,
    reduced,
    same_shape,
    shape_of,
)
from facula.nn.functional.distance import distance_of
from facula.ops.define import autocast_to, op
from facula.ops.promote import cast, expand_to, operands, type_name
from facula.ops.reductions import mean_over, reduce_to
from facula.tensor import Tensor, prim

__all__ = ["hinge_embedding_loss", "soft_margin_loss", "margin_ranking_loss",
           "multilabel_margin_loss", "multilabel_soft_margin_loss", "multi_margin_loss",
           "cosine_embedding_loss", "triplet_margin_loss", "triplet_margin_with_distance_loss"]


def _positive_part(x: Tensor) -> Tensor:
    """max(x, 0), as clamp_min has it: the gradient passes at 0."""
    return prim("where", prim("lt", x, number(x, 0)), number(x, 0), x)


def _signs(make: Any, *shape: int) -> Any:
    """Targets 1 and -1."""
    return make(*shape, dtype=int64, low=0, high=1) * 2 - 1


@op(name="hinge_embedding_loss", samples=lambda make: [
    ((make(3, 4), _signs(make, 3, 4)), {}), ((make(5), _signs(make, 5)), {"margin": 0.5})])
@autocast_to("full")
def _hinge(input: Tensor, target: Tensor, margin: float = 1.0,
           reduction: str = "mean") -> Tensor:
    """input where target is 1, max(0, margin - input) where it is -1."""
    x, t = operands(input, target)
    zero = number(x, 0)
    gap = _positive_part(prim("sub", number(x, margin), x))
    loss = prim("add", prim("where", prim("ne", t, number(t, 1)), gap, zero),
                prim("where", prim("ne", t, number(t, -1)), x, zero))
    return reduced(loss, reduction)


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0,
                         size_average: Any = None, reduce: Any = None, reduction: str = "mean",
                         *, broadcast: bool = False) -> Tensor:
    """input where target is 1, max(0, margin - input) where it is -1.

    The shapes must be equal (BroadcastError) unless `broadcast`.
    """
    reduction = legacy(size_average, reduce, reduction)
    same_shape("hinge_embedding_loss", input, target, broadcast)
    return _hinge(input, target, float(margin), reduction)  # type: ignore[no-any-return]


@op(name="soft_margin_loss", samples=lambda make: [
    ((make(3, 4), _signs(make, 3, 4)), {}), ((make(5), _signs(make, 5)), {"reduction": "sum"})])
@autocast_to("full")
def _soft_margin(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """log(1 + exp(-target * input))."""
    x, t = operands(input, target)
    return reduced(prim("neg", _logsigmoid_of(prim("mul", t, x))), reduction)


def soft_margin_loss(input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
                     reduction: str = "mean", *, broadcast: bool = False) -> Tensor:
    """log(1 + exp(-target * input)), for targets 1 and -1.

    The shapes must be equal (BroadcastError) unless `broadcast`.
    """
    reduction = legacy(size_average, reduce, reduction)
    same_shape("soft_margin_loss", input, target, broadcast)
    return _soft_margin(input, target, reduction)           # type: ignore[no-any-return]


@op(name="margin_ranking_loss", samples=lambda make: [
    ((make(5), make(5), _signs(make, 5)), {}),
    ((make(3, 4), make(3, 4), _signs(make, 3, 4)), {"margin": 0.3, "reduction": "none"})])
@autocast_to("full")
def _ranking(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
             reduction: str = "mean") -> Tensor:
    """max(0, -target * (input1 - input2) + margin)."""
    a, b, t = operands(input1, input2, target, floating=True)
    gap = prim("sub", number(a, margin), prim("mul", t, prim("sub", a, b)))
    return reduced(_positive_part(gap), reduction)


def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
                        size_average: Any = None, reduce: Any = None, reduction: str = "mean",
                        *, broadcast: bool = False) -> Tensor:
    """max(0, -target * (input1 - input2) + margin).

    The shapes must be equal (BroadcastError) unless `broadcast`.
    """
    reduction = legacy(size_average, reduce, reduction)
    if not input1.ndim == input2.ndim == target.ndim:
        raise ShapeError("margin_ranking_loss : All input tensors should have same dimension but "
                         f"got sizes: input1: {list(input1.shape)}, input2: "
                         f"{list(input2.shape)}, target: {list(target.shape)} ")
    same_shape("margin_ranking_loss (input1 against input2)", input1, input2, broadcast)
    same_shape("margin_ranking_loss", input1, target, broadcast)
    return _ranking(input1, input2, target, float(margin), reduction)   # type: ignore


# ---------------------------------------------------------------- classes

def _rows_of(name: str, input: Tensor, target: Tensor, same: bool) -> tuple[int, ...]:
    """The shape `[N, C]` of the input; raises unless the target fits it."""
    shape = shape_of(input)
    if len(shape) > 2 or (shape and not shape[-1]):
        raise ShapeError("Expected non-empty vector or matrix with optional 0-dim batch size, but "
                         f"got: {list(shape)}: {name} takes scores of 1 or 2 dimensions")
    if not shape:                                   # one score of one class
        if target.numel() != 1 or target.ndim > 1:
            raise ShapeError(f"{name}: inconsistent target size: {list(shape_of(target))} for "
                             "input of shape []")
        return (1, 1)
    want = shape if same else shape[:-1]
    have = shape_of(target)
    if have != want and not (not same and len(shape) == 1 and have == (1,)):
        raise ShapeError(f"{name}: inconsistent target size: {list(have)} for input of shape "
                         f"{list(shape)}; expected {list(want)}")
    return shape if len(shape) == 2 else (1, *shape)


@op(name="multi_margin_loss", samples=lambda make: [
    ((make(4, 3), make(4, dtype=int64, low=0, high=2)), {}),
    ((make(4, 3), make(4, dtype=int64, low=0, high=2)), {"p": 2, "margin": 0.7}),
    ((make(3), make(dtype=int64, low=0, high=2)), {"reduction": "sum"})])
@autocast_to("full")
def _multi_margin(input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0,
                  weight: Tensor | None = None, reduction: str = "mean") -> Tensor:
    """sum over i != target of max(0, margin - x[target] + x[i])**p / C."""
    n, c = _rows_of("multi_margin_loss", input, target, False)
    x = prim("reshape", input, shape=(n, c))
    t = prim("reshape", cast(target, int64), shape=(n, 1))
    right = prim("gather", x, t, attrs=(1,))
    gap = _positive_part(prim("sub", x, expand_to(add_number(right, -margin), (n, c))))
    if p == 2:
        gap = prim("mul", gap, gap)
    if weight is not None:
        share = prim("take", cast(weight, x.dtype), t, attrs=(0,))
        gap = prim("mul", gap, expand_to(share, (n, c)))
    others = prim("ne", axis_iota((n, c), 1), expand_to(t, (n, c)))
    loss = mean_over(prim("where", others, gap, number(gap, 0)), (1,), False)
    if input.ndim < 2:
        loss = prim("reshape", loss, shape=())
    return reduced(loss, reduction)


def multi_margin_loss(input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0,
                      weight: Tensor | None = None, size_average: Any = None, reduce: Any = None,
                      reduction: str = "mean") -> Tensor:
    """The hinge loss between the right class and every other, of scores `[N, C]` or `[C]`."""
    reduction = legacy(size_average, reduce, reduction)
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    if weight is not None and weight.ndim != 1:
        raise ValueError("weight must be one-dimensional")
    if target.dtype.kind not in "ui":
        raise DTypeError("expected scalar type Long but found "
                         f"{type_name(target.dtype)}")
    return _multi_margin(input, target, p, float(margin), weight, reduction)    # type: ignore


@op(name="multilabel_margin_loss", samples=lambda make: [
    ((make(2, 4), make(2, 4, dtype=int64, low=0, high=3)), {}),
    ((make(4), make(4, dtype=int64, low=0, high=3)), {"reduction": "sum"})])
@autocast_to("full")
def _multilabel_margin(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """sum over labels j and classes i that are none of max(0, 1 - x[j] + x[i]) / C."""
    n, c = _rows_of("multilabel_margin_loss", input, target, True)
    x = prim("reshape", input, shape=(n, c))
    t = prim("reshape", cast(target, int64), shape=(n, c))
    # The labels are those before the first negative number.
    ended = prim("cumsum", cast(prim("lt", t, number(t, 0)), int64), attrs=(1,))
    valid = prim("eq", ended, number(ended, 0))
    safe = prim("where", valid, t, number(t, 0))
    score = prim("gather", x, safe, attrs=(1,))                     # [N, label]
    cube = (n, c, c)                                                # [N, label, class]
    labels = expand_to(prim("reshape", safe, shape=(n, c, 1)), cube)
    valid3 = expand_to(prim("reshape", valid, shape=(n, c, 1)), cube)
    named = prim("logical_and", prim("eq", labels, axis_iota(cube, 2)), valid3)
    taken = prim("any", named, attrs=((1,),))                       # [N, class]
    free = prim("logical_not", expand_to(prim("reshape", taken, shape=(n, 1, c)), cube))
    gap = prim("sub", expand_to(prim("reshape", x, shape=(n, 1, c)), cube),
               expand_to(prim("reshape", add_number(score, -1), shape=(n, c, 1)), cube))
    gap = prim("where", prim("logical_and", free, valid3), _positive_part(gap), number(gap, 0))
    loss = mul_number(reduce_to("sum", gap, (1, 2)), 1.0 / c if c else 0.0)
    if input.ndim < 2:
        loss = prim("reshape", loss, shape=())
    return reduced(loss, reduction)


def multilabel_margin_loss(input: Tensor, target: Tensor, size_average: Any = None,
                           reduce: Any = None, reduction: str = "mean") -> Tensor:
    """The hinge loss between every label and every class that is none, of `[N, C]` or `[C]`.

    The labels of a row are the class numbers before its first -1.
    """
    reduction = legacy(size_average, reduce, reduction)
    return _multilabel_margin(input, target, reduction)     # type: ignore[no-any-return]


@op(name="multilabel_soft_margin_loss", samples=lambda make: [
    ((make(3, 4), make(3, 4, low=0, high=1)), {}),
    ((make(3, 4), make(3, 4, low=0, high=1), make(4, low=0.1, high=1)), {"reduction": "none"})])
def _multilabel_soft(input: Tensor, target: Tensor, weight: Tensor | None = None,
                     reduction: str = "mean") -> Tensor:
    """Binary cross-entropy with logits, averaged over the classes."""
    x, t = operands(input, target)
    yes = prim("mul", t, _logsigmoid_of(x))
    no = prim("mul", prim("sub", number(t, 1), t), _logsigmoid_of(prim("neg", x)))
    loss = prim("neg", prim("add", yes, no))
    if weight is not None:
        loss = prim("mul", loss, expand_to(cast(weight, loss.dtype), shape_of(loss)))
    return reduced(mean_over(loss, (loss.ndim - 1,), False), reduction)


def multilabel_soft_margin_loss(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                size_average: Any = None, reduce: Any = None,
                                reduction: str = "mean", *, broadcast: bool = False) -> Tensor:
    """Binary cross-entropy with logits, averaged over the classes (the last dimension).

    The shapes must be equal (BroadcastError) unless `broadcast`.
    """
    reduction = legacy(size_average, reduce, reduction)
    same_shape("multilabel_soft_margin_loss", input, target, broadcast)
    return _multilabel_soft(input, target, weight, reduction)   # type: ignore[no-any-return]


# ---------------------------------------------------------------- pairs and triples

@op(name="cosine_embedding_loss", samples=lambda make: [
    ((make(3, 4), make(3, 4), _signs(make, 3)), {}),
    ((make(4), make(4), _signs(make)), {"margin": 0.2})])
@autocast_to("full")
def _cosine_embedding(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
                      reduction: str = "mean") -> Tensor:
    """1 - cos(x1, x2) where target is 1, max(0, cos - margin) where it is -1."""
    a, b = operands(input1, input2, floating=True)
    # PyTorch adds this to the squares here, rather than limiting the norms.
    eps = 1e-12

    def square(x: Tensor, y: Tensor) -> Tensor:
        return reduce_to("sum", prim("mul", x, y), (a.ndim - 1,))

    size = prim("mul", add_number(square(a, a), eps), add_number(square(b, b), eps))
    cos = prim("div", square(a, b), prim("sqrt", size))
    cos, t = operands(cos, target)
    zero = number(cos, 0)
    near = prim("sub", number(cos, 1), cos)
    far = _positive_part(add_number(cos, -margin))
    loss = prim("add", prim("where", prim("eq", t, number(t, 1)), near, zero),
                prim("where", prim("eq", t, number(t, -1)), far, zero))
    return reduced(loss, reduction)


def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
                          size_average: Any = None, reduce: Any = None,
                          reduction: str = "mean", *, broadcast: bool = False) -> Tensor:
    """1 - cos(x1, x2) where target is 1, max(0, cos - margin) where it is -1.

    Inputs `[N, D]` and target `[N]`, or `[D]` and `[]`; the inputs' shapes must be equal
    (BroadcastError) unless `broadcast`.
    """
    reduction = legacy(size_average, reduce, reduction)
    if target.ndim not in (0, 1):
        raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
    if input1.ndim != target.ndim + 1 or input2.ndim != target.ndim + 1:
        want = "2D" if target.ndim else "1D"
        raise ShapeError(f"{target.ndim}D target tensor expects {want} input tensors, but found "
                         f"inputs with sizes {list(input1.shape)} and {list(input2.shape)}.")
    same_shape("cosine_embedding_loss (input1 against input2)", input1, input2, broadcast)
    if target.ndim and not broadcast and target.shape[0] != input1.shape[0]:
        raise ShapeError("cosine_embedding_loss: target of shape "
                         f"{list(target.shape)} for inputs of shape {list(input1.shape)}")
    return _cosine_embedding(input1, input2, target, float(margin), reduction)  # type: ignore


def _closer(first: Tensor, second: Tensor) -> Tensor:
    return prim("minimum", first, second)


@op(name="triplet_margin_loss", samples=lambda make: [
    ((make(3, 4), make(3, 4), make(3, 4)), {}),
    ((make(3, 4), make(3, 4), make(3, 4)), {"swap": True, "p": 1.0}),
    ((make(4), make(4), make(4)), {"reduction": "sum"})])
@autocast_to("full")
def _triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0,
             p: float = 2.0, eps: float = 1e-6, swap: bool = False,
             reduction: str = "mean") -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin)."""
    near = distance_of(anchor, positive, p, eps, False)
    far = distance_of(anchor, negative, p, eps, False)
    if swap:
        far = _closer(far, distance_of(positive, negative, p, eps, False))
    gap = add_number(prim("sub", near, far), margin)
    return reduced(_positive_part(gap), reduction)


def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0,
                        p: float = 2, eps: float = 1e-6, swap: bool = False,
                        size_average: Any = None, reduce: Any = None, reduction: str = "mean",
                        *, broadcast: bool = False) -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), d the p-norm's distance.

    `swap` uses the negative's distance to the positive where that is smaller.  The shapes must
    be equal (BroadcastError) unless `broadcast`.
    """
    reduction = legacy(size_average, reduce, reduction)
    _three(anchor, positive, negative, broadcast, "triplet_margin_loss")
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    return _triplet(anchor, positive, negative, float(margin), float(p), float(eps),  # type: ignore
                    swap, reduction)


def _three(anchor: Tensor, positive: Tensor, negative: Tensor, broadcast: bool,
           name: str) -> None:
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise ShapeError("The anchor, positive, and negative tensors are expected to have the "
                         f"same number of dimensions, but got: anchor {anchor.ndim}D, positive "
                         f"{positive.ndim}D, and negative {negative.ndim}D inputs")
    same_shape(f"{name} (anchor against positive)", anchor, positive, broadcast)
    same_shape(f"{name} (anchor against negative)", anchor, negative, broadcast)


@op(register=False)
def _triplet_of(near: Tensor, far: Tensor, margin: float, reduction: str) -> Tensor:
    return reduced(_positive_part(add_number(prim("sub", near, far), margin)), reduction)


def triplet_margin_with_distance_loss(anchor: Tensor, positive: Tensor, negative: Tensor, *,
                                      distance_function: Any = None, margin: float = 1.0,
                                      swap: bool = False, reduction: str = "mean") -> Tensor:
    """`triplet_margin_loss` with a distance of your own (`pairwise_distance` by default)."""
    reduction = legacy(None, None, reduction)
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    _three(anchor, positive, negative, False, "triplet_margin_with_distance_loss")
    if distance_function is None:
        from facula.nn.functional.distance import pairwise_distance as distance_function
    near, far = distance_function(anchor, positive), distance_function(anchor, negative)
    if swap:
        far = _closer(far, distance_function(positive, negative))
    return _triplet_of(near, far, float(margin), reduction)     # type: ignore[no-any-return]
