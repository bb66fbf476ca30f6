"""`einsum`: sums of products named by letters, as a sequence of matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from facula.dtype import int64
from facula.errors import ShapeError
from facula.ops.contractions import _one_dtype
from facula.ops.define import autocast_to, cast_first, composite
from facula.ops.layout import row_major
from facula.ops.promote import cast, expand_to
from facula.ops.surface import public
from facula.tensor import Tensor, prim

__all__ = ["einsum"]

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class _Term:
    """A value and the label of each of its dimensions."""

    __slots__ = ("x", "labels")

    def __init__(self, x: Tensor, labels: Sequence[Any]):
        self.x = x
        self.labels = list(labels)

    def size(self, label: Any) -> int:
        return self.x._node.spec.shape[self.labels.index(label)]


def _parse(equation: str, count: int) -> tuple[list[list[str]], list[str] | None]:
    """The labels of each operand and, if given, of the output; '...' stands as one label."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    parts = left.split(",")
    if len(parts) != count:
        raise RuntimeError(
            f"einsum(): {'more' if len(parts) < count else 'fewer'} operands were provided than "
            "specified in the equation")
    return [_labels(p) for p in parts], _labels(right) if arrow else None


def _labels(text: str) -> list[str]:
    out: list[str] = []
    i = 0
    while i < len(text):
        if text.startswith("...", i):
            if "..." in out:
                raise RuntimeError("einsum(): found '.' that is not part of any ellipsis, or a "
                                   "second ellipsis in one term")
            out.append("...")
            i += 3
        elif text[i].isascii() and text[i].isalpha():
            out.append(text[i])
            i += 1
        else:
            raise RuntimeError(f"einsum(): invalid subscript given at index {i} in the equation "
                               f"string, subscripts must be in [a-zA-Z]: {text!r}")
    return out


def _open_ellipses(terms: list[list[str]], output: list[str] | None, shapes: Sequence[Any]
                   ) -> tuple[list[list[Any]], list[Any]]:
    """Labels with '...' replaced by numbered ones that count from the last; and the output's."""
    opened: list[list[Any]] = []
    most = 0
    for labels, shape in zip(terms, shapes):
        named = len(labels) - ("..." in labels)
        extra = len(shape) - named
        if extra < 0 or (extra and "..." not in labels):
            raise ShapeError(
                f"einsum(): the number of subscripts in the equation ({named}) does not match "
                f"the number of dimensions ({len(shape)}) for an operand"
                + ("" if "..." in labels else " and no ellipsis was given"))
        most = max(most, extra) if "..." in labels else most
        out: list[Any] = []
        for label in labels:
            out.extend(range(-extra, 0) if label == "..." else [label])
        opened.append(out)
    if output is None:
        flat = [v for labels in opened for v in labels]
        singles = sorted(v for v in set(flat) if isinstance(v, str) and flat.count(v) == 1)
        return opened, [*range(-most, 0), *singles]
    result: list[Any] = []
    for label in output:
        result.extend(range(-most, 0) if label == "..." else [label])
    known = {v for labels in opened for v in labels}
    for label in result:
        if result.count(label) > 1:
            raise RuntimeError(f"einsum(): output subscript {label} appears more than once in the "
                               "output")
        if label not in known:
            raise RuntimeError(f"einsum(): output subscript {label} does not appear in the "
                               "equation for any input operand")
    return opened, result


def _diagonals(term: _Term) -> _Term:
    """Labels that occur twice in a term take the diagonal."""
    labels = term.labels
    if len(set(labels)) == len(labels):
        return term
    shape = term.x._node.spec.shape
    inner = row_major(shape)
    out: dict[Any, tuple[int, int]] = {}
    for label, n, s in zip(labels, shape, inner):
        if label in out and out[label][0] != n:
            raise ShapeError(f"einsum(): subscript {label} is repeated for an operand but the "
                             f"sizes don't match, {n} != {out[label][0]}")
        out[label] = (n, out[label][1] + s if label in out else s)
    x = prim("as_strided", term.x, attrs=(tuple(s for _, s in out.values()), 0),
             shape=tuple(n for n, _ in out.values()))
    return _Term(x, list(out))


def _sum_out(term: _Term, keep: set[Any]) -> _Term:
    """Labels that nothing else needs are summed."""
    axes = tuple(k for k, v in enumerate(term.labels) if v not in keep)
    if not axes:
        return term
    return _Term(prim("sum", term.x, attrs=(axes,)), [v for v in term.labels if v in keep])


def _ordered(term: _Term, labels: Sequence[Any]) -> Tensor:
    """The value with its dimensions in the order of `labels`, a permutation of its own."""
    order = tuple(term.labels.index(v) for v in labels)
    return term.x if order == tuple(range(len(order))) else prim("permute", term.x, attrs=(order,))


def _pair(a: _Term, b: _Term, keep: set[Any]) -> _Term:
    """The product of two terms, summed over labels that neither the rest nor the output needs."""
    a = _sum_out(a, keep | set(b.labels))
    b = _sum_out(b, keep | set(a.labels))
    both = [v for v in a.labels if v in b.labels]
    batch = [v for v in both if v in keep]
    inner = [v for v in both if v not in keep]
    only_a = [v for v in a.labels if v not in both]
    only_b = [v for v in b.labels if v not in both]
    sa, sb = {v: a.size(v) for v in a.labels}, {v: b.size(v) for v in b.labels}
    out = [*batch, *only_a, *only_b]
    shape = (*(sa[v] for v in [*batch, *only_a]), *(sb[v] for v in only_b))
    if not inner:
        x = prim("reshape", _ordered(a, [*batch, *only_a]),
                 shape=(*(sa[v] for v in [*batch, *only_a]), *(1,) * len(only_b)))
        y = prim("reshape", _ordered(b, [*batch, *only_b]),
                 shape=(*(sb[v] for v in batch), *(1,) * len(only_a), *(sb[v] for v in only_b)))
        return _Term(prim("mul", expand_to(x, shape), expand_to(y, shape)), out)
    k = prod(sa[v] for v in inner)
    m, n = prod(sa[v] for v in only_a), prod(sb[v] for v in only_b)
    lead = (prod(sa[v] for v in batch),) if batch else ()
    left = prim("reshape", _ordered(a, [*batch, *only_a, *inner]), shape=(*lead, m, k))
    right = prim("reshape", _ordered(b, [*batch, *inner, *only_b]), shape=(*lead, k, n))
    return _Term(prim("reshape", prim("matmul", left, right), shape=shape), out)


def _order_of(terms: list[_Term], output: list[Any], sizes: dict[Any, int]
              ) -> list[tuple[int, ...]]:
    """Which terms to multiply in turn: NumPy's greedy search when there are three or more."""
    n = len(terms)
    if n <= 2:
        return [tuple(range(n))] if n == 2 else []
    names = {label: _LETTERS[k] for k, label in enumerate(sizes)} if len(sizes) <= 52 else None
    if names is None:
        return [(0, 1)] * (n - 1)
    equation = ",".join("".join(names[v] for v in t.labels) for t in terms) + "->" \
        + "".join(names[v] for v in output)
    shapes = [np.broadcast_to(np.float32(0), tuple(t.x.shape)) for t in terms]
    path = np.einsum_path(equation, *shapes, optimize="greedy")[0][1:]
    return [tuple(sorted(p)) for p in path]


@composite
def _einsum(terms: tuple[tuple[Any, ...], ...], output: tuple[Any, ...],
            operands: tuple[Tensor, ...]) -> Tensor:
    parts = [_diagonals(_Term(x, labels)) for x, labels in zip(operands, terms)]
    sizes: dict[Any, int] = {}
    for part in parts:
        for label in part.labels:
            n = part.size(label)
            have = sizes.get(label, 1)
            if n != 1 and have not in (1, n):
                raise ShapeError(f"einsum(): operands do not broadcast with remapped shapes: "
                                 f"subscript {label} has sizes {have} and {n}")
            sizes[label] = have if n == 1 else n
    for k, part in enumerate(parts):            # sizes of 1 that broadcast are left out
        drop = [v for v in part.labels if part.size(v) == 1 and sizes[v] != 1]
        if drop:
            keep = [v for v in part.labels if v not in drop]
            parts[k] = _Term(prim("reshape", part.x, shape=tuple(part.size(v) for v in keep)),
                             keep)
    for path in _order_of(parts, list(output), sizes):
        chosen = [parts[i] for i in path]
        rest = [p for i, p in enumerate(parts) if i not in path]
        result = chosen[0]
        for j, other in enumerate(chosen[1:], 1):
            need = set(output).union(*(p.labels for p in rest), *(p.labels for p in chosen[j + 1:]))
            result = _pair(result, other, need)
        parts = [*rest, result]
    last = _sum_out(parts[0], set(output))
    value = _ordered(last, output)
    return prim("alias", value) if any(value is x for x in operands) else value


@cast_first
@autocast_to("lower")
def einsum(equation: Any, *operands: Any) -> Tensor:
    """The sum of products that an equation such as 'bij,bjk->bik' describes.

    Also `einsum(a, [0, 1], b, [1, 2], [0, 2])`.  With more than two operands the order of the
    products is chosen by a greedy search for the cheapest.
    """
    if isinstance(equation, Tensor):
        given = (equation, *operands)
        tensors = list(given[0:len(given) // 2 * 2:2])
        lists = list(given[1::2])
        text = ",".join(_sublist(s) for s in lists)
        if len(given) % 2:
            text += "->" + _sublist(given[-1])
        equation, operands = text, tuple(tensors)
    elif len(operands) == 1 and isinstance(operands[0], (tuple, list)):
        operands = tuple(operands[0])
    if not operands:
        raise RuntimeError("einsum(): must provide at least one operand")
    for x in operands[1:]:
        _one_dtype("einsum", operands[0], x)
    terms, output = _parse(equation, len(operands))
    opened, result = _open_ellipses(terms, output, [x._node.spec.shape for x in operands])
    dtype = operands[0]._node.spec.dtype
    if dtype.kind in "ui" and any(v not in result and sum(v in t for t in opened) == 1
                                  for term in opened for v in term):
        # A label of one operand alone is summed before the product, as `sum` does: in 64 bits.
        operands = tuple(cast(x, int64) for x in operands)
    value: Tensor = _einsum(tuple(map(tuple, opened)), tuple(result), tuple(operands))
    return value


def _sublist(labels: Sequence[Any]) -> str:
    return "".join("..." if v is Ellipsis else _LETTERS[v] for v in labels)


public(einsum, "einsum", "contractions", method=False, samples=lambda make: [
    (("ij,jk->ik", make(2, 3), make(3, 4)), {}),
    (("bij,bjk->bik", make(2, 2, 3), make(2, 3, 2)), {}),
    (("ii->i", make(3, 3)), {}), (("ij->", make(2, 3)), {}), (("i,j", make(2), make(3)), {}),
    (("...ij,...jk", make(2, 2, 3), make(3, 2)), {}),
    (("ij,jk,kl->il", make(2, 3), make(3, 4), make(4, 2)), {})])
