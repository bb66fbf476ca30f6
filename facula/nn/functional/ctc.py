"""Connectionist temporal classification: the loss of a sequence whose alignment is not known.

Graves et al., "Connectionist temporal classification: labelling unsegmented sequence data with
recurrent neural networks" (2006).
"""

from __future__ import annotations

from typing import Any

from facula.dtype import int64
from facula.errors import DTypeError
from facula.nn.functional.common import number, shape_of
from facula.ops.define import autocast_to, op
from facula.ops.layout import host
from facula.ops.promote import cast, expand_to, full_like, type_name
from facula.ops.reductions import constant, reduce_to
from facula.ops.shape import cut
from facula.tensor import Tensor, prim

__all__ = ["ctc_loss"]


def _log_sum(*terms: Tensor) -> Tensor:
    """log of the sum of exponentials; -inf, and no gradient, where all are -inf."""
    top = constant(terms[0])
    for t in terms[1:]:
        top = prim("maximum", top, constant(t))
    none = prim("eq", top, number(top, float("-inf")))
    safe = prim("where", none, number(top, 0.0), top)
    total = None
    for t in terms:
        e = prim("exp", prim("sub", t, safe))
        total = e if total is None else prim("add", total, e)
    assert total is not None
    total = prim("where", none, number(total, 1.0), total)
    return prim("where", none, top, prim("add", prim("log", total), safe))


def _later(a: Tensor, by: int) -> Tensor:
    """Moved `by` places along the labels, -inf before them."""
    n, width = shape_of(a)
    if by >= width:
        return number(a, float("-inf"))
    return prim("pad", cut(a, 1, 0, width - by), attrs=((0, by), (0, 0), float("-inf")))


@op(name="ctc_loss", differentiable=False)
@autocast_to("full")
def _losses(log_probs: Tensor, targets: Tensor, lengths: Tensor, target_lengths: Tensor,
            blank: int) -> Tensor:
    """The negative log-likelihood of each sequence: log_probs [T, N, C], targets [N, S].

    The forward variables of all sequences at once, over the labels with blanks between them.
    """
    steps, n, classes = shape_of(log_probs)
    size = shape_of(targets)[1]
    width = 2 * size + 1
    t = cast(targets, int64)
    gaps = number(t, blank)
    both = prim("cat", prim("reshape", gaps, shape=(n, size, 1)),
                prim("reshape", t, shape=(n, size, 1)), attrs=(2,))
    labels = prim("cat", prim("reshape", both, shape=(n, 2 * size)),
                  full_like(prim("full", attrs=(0,), shape=(n, 1), dtype=int64), blank),
                  attrs=(1,))
    # Past the end of a target there may be any number; what is read there is not used.
    low, high = number(labels, 0), number(labels, classes - 1)
    labels = prim("minimum", prim("maximum", labels, low), high)
    wide = expand_to(prim("reshape", labels, shape=(1, n, width)), (steps, n, width))
    emitted = prim("gather", log_probs, wide, attrs=(2,))
    infinite = float("-inf")

    def at(k: int) -> Tensor:
        return prim("reshape", cut(emitted, 0, k, k + 1), shape=(n, width))

    place = expand_to(prim("iota", shape=(width,), dtype=int64), (n, width))
    first = at(0)
    alpha = prim("where", prim("lt", place, number(place, 2)), first, number(first, infinite))
    blanks = prim("eq", labels, number(labels, blank))
    before = prim("pad", cut(labels, 1, 0, width - 2), attrs=((0, 2), (0, 0), blank)) \
        if width > 2 else labels
    skips = prim("logical_and", prim("logical_not", blanks), prim("ne", labels, before))
    long = expand_to(prim("reshape", cast(lengths, int64), shape=(n, 1)), (n, width))
    for k in range(1, steps):
        jumped = prim("where", skips, _later(alpha, 2), number(alpha, infinite))
        new = prim("add", _log_sum(alpha, _later(alpha, 1), jumped), at(k))
        alpha = prim("where", prim("gt", long, number(long, k)), new, alpha)
    ends = prim("reshape", cast(target_lengths, int64), shape=(n, 1))
    last = prim("mul", ends, number(ends, 2))
    none = prim("eq", ends, number(ends, 0))
    previous = prim("maximum", prim("sub", last, number(last, 1)), number(last, 0))
    final = prim("gather", alpha, last, attrs=(1,))
    other = prim("gather", alpha, previous, attrs=(1,))
    other = prim("where", none, number(other, infinite), other)
    out = prim("reshape", prim("neg", _log_sum(final, other)), shape=(n,))
    # PyTorch's gradient takes the log-probabilities for a log-softmax: it has exp(log_probs)
    # more than the derivative, which the softmax's own gradient takes away again.
    whole = prim("iota", shape=(steps,), dtype=int64)
    whole = expand_to(prim("reshape", whole, shape=(steps, 1)), (steps, n))
    inside = prim("lt", whole, expand_to(cast(lengths, int64), (steps, n)))
    inside = expand_to(prim("reshape", inside, shape=(steps, n, 1)), (steps, n, classes))
    p = prim("exp", log_probs)
    p = prim("where", inside, prim("sub", p, constant(p)), number(p, 0.0))
    extra = reduce_to("sum", p, (0, 2))
    usable = prim("isfinite", out)
    return prim("where", usable, prim("add", out, extra), out)


def _lengths(name: str, value: Any, n: int) -> Tensor:
    t = value if isinstance(value, Tensor) else host(list(value), int64)
    if t.dtype.kind not in "ui":
        raise DTypeError(f"{name} must be integral, got {type_name(t.dtype)}")
    t = prim("reshape", t, shape=(t.numel(),))
    if t.numel() != n:
        raise RuntimeError(f"{name} must be of size batch_size")
    return t


def ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any,
             blank: int = 0, reduction: str = "mean", zero_infinity: bool = False) -> Tensor:
    """The negative log-likelihood of label sequences, summed over all alignments.

    log_probs       log-softmax outputs `[T, N, C]`, or `[T, C]`
    targets         labels `[N, S]`, or all one after the other `[sum of target_lengths]`
    input_lengths   how many of the T steps count, `target_lengths` how many labels
    blank           the class that stands for no label
    reduction       'none', 'sum', or 'mean': of the losses divided by their target lengths
    zero_infinity   losses of targets that do not fit into the steps count 0 instead of infinity

    The gradient is PyTorch's, which assumes that log_probs comes from a log-softmax.
    """
    if log_probs.dtype.kind != "f":
        raise DTypeError(f'"ctc_loss" not implemented for \'{type_name(log_probs.dtype)}\'')
    if targets.dtype.kind not in "ui":
        raise DTypeError("targets must be integral")
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    single = log_probs.ndim == 2
    if log_probs.ndim not in (2, 3):
        raise RuntimeError("ctc_loss: log_probs must have 2 or 3 dimensions, got "
                           f"{log_probs.ndim}")
    shape = shape_of(log_probs)
    x = prim("reshape", log_probs, shape=(shape[0], 1, shape[1])) if single else log_probs
    steps, n, classes = shape_of(x)
    if not 0 <= blank < classes:
        raise RuntimeError("blank must be in label range")
    rows = _lengths("target_lengths", target_lengths, n)
    columns = _lengths("input_lengths", input_lengths, n)
    counts = rows._peek()
    if (counts < 0).any():
        raise RuntimeError("Expected target_lengths to have value at least 0")
    if n and (columns._peek() > steps).any():
        raise RuntimeError(f"Expected input_lengths to have value at most {steps}, but got value "
                           f"{int(columns._peek().max())}")
    if targets.ndim == 1 and not (single and targets.numel() and n == 1):
        most = int(counts.max()) if n else 0
        if targets.numel() != int(counts.sum()):
            raise RuntimeError(f"Expected targets of {int(counts.sum())} elements in all, but got "
                               f"{targets.numel()}")
        import numpy as np
        place = np.zeros((n, most), np.int64)
        start = 0
        for k, count in enumerate(counts):
            place[k, :count] = start + np.arange(count)
            start += int(count)
        t = prim("take", targets, host(place, int64), attrs=(0,)) if targets.numel() else \
            prim("full", attrs=(0,), shape=(n, most), dtype=targets.dtype)
    else:
        t = prim("reshape", targets, shape=(1, targets.numel())) if targets.ndim == 1 else targets
        if t.ndim != 2 or shape_of(t)[0] != n:
            raise RuntimeError(f"Expected targets of shape [{n}, S], but got "
                               f"{list(targets.shape)}")
        if n and int(counts.max()) > shape_of(t)[1]:
            raise RuntimeError("Expected tensor to have size at least "
                               f"{int(counts.max())} at dimension 1, but got size "
                               f"{shape_of(t)[1]} for argument targets")
    losses: Tensor = _losses(x, t, columns, rows, blank)
    return _reduced(losses, rows, reduction, zero_infinity, single)         # type: ignore


@op(register=False)
def _reduced(losses: Tensor, rows: Tensor, reduction: str, zero_infinity: bool, single: bool
             ) -> Tensor:
    if zero_infinity:
        over = prim("eq", losses, number(losses, float("inf")))
        losses = prim("where", over, number(losses, 0.0), losses)
    if reduction == "mean":
        size = cast(prim("maximum", cast(rows, int64), number(cast(rows, int64), 1)), losses.dtype)
        share = prim("div", losses, size)
        total = reduce_to("sum", share, (0,))
        return prim("div", total, number(total, losses.numel()))
    if reduction == "sum":
        return reduce_to("sum", losses, (0,))
    return prim("reshape", losses, shape=()) if single else losses
