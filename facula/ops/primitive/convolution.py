"""Convolutions: three primitives that are each other's derivatives.

One trilinear form stands behind all three, over taps k and places t in every spatial dimension:

    sum over n, g, o, c, t, k of  Y[n, g o, t] * X[n, g c, place] * W[g o, c, k]
    with                          place = t * stride + k * dilation - low

where X is zero outside.  `conv` is its derivative by Y (the convolution), `conv_input` by X (the
gradient of the input, which is the transposed convolution) and `conv_weight` by W.  So a
derivative of any order is made of these three again.

The attributes are (stride, low, dilation, groups), the first three one number a dimension; the
result's shape is the caller's to give, for it does not follow from the operands' alone.
`conv_weight` has a fifth: into how many parts the images are split, each of which gives a sum of
its own along a new first axis; 0 for no parts and no axis.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from facula.errors import DTypeError, ShapeError
from facula.graph.spec import Spec, spec
from facula.ops.primitive.batching import convolved, correlated
from facula.ops.primitive.record import Sample, _count, register, shapes_text
from facula.ops.primitive.rules import prim, zeros_like

_Shape = tuple[int, ...]


def _check(name: str, specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    _count(name, specs, 2)
    a, b = specs
    if a.dtype is not b.dtype or a.dtype.name not in ("float32", "float64"):
        raise DTypeError(f"{name}: takes two float32 or two float64 tensors, not {a.dtype!r} and "
                         f"{b.dtype!r}")
    if given is None:
        raise ShapeError(f"{name}: the result's shape has to be given")
    if len({len(a.shape), len(b.shape), *(len(v) + 2 for v in attrs[:3])}) != 1:
        raise ShapeError(f"{name}: the operands {shapes_text(specs)} and the attributes {attrs} "
                         "are not of one number of dimensions")
    return spec(given.shape, a.dtype)


def _channels(name: str, x: _Shape, w: _Shape, y: _Shape, groups: int) -> None:
    if x[0] != y[0] or x[1] != w[1] * groups or w[0] != y[1] or w[0] % groups:
        raise ShapeError(f"{name}: input {x}, weight {w} and result {y} do not fit together in "
                         f"{groups} groups")


def _infer_conv(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    out = _check("conv", specs, attrs, given)
    _channels("conv", specs[0].shape, specs[1].shape, out.shape, attrs[3])
    return out


def _infer_input(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    out = _check("conv_input", specs, attrs, given)
    _channels("conv_input", out.shape, specs[1].shape, specs[0].shape, attrs[3])
    return out


def _infer_weight(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
    out = _check("conv_weight", specs, attrs, given)
    shape = out.shape[1:] if attrs[4] else out.shape
    _channels("conv_weight", specs[0].shape, shape, specs[1].shape, attrs[3])
    return out


# ---------------------------------------------------------------- NumPy

def _taps(attrs: tuple[Any, ...], x: _Shape, w: _Shape, y: _Shape
          ) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]]:
    """(a tap of W, the places of X that it reads, the places of Y that it reads them for)."""
    stride, low, dilation = attrs[:3]
    for tap in itertools.product(*map(range, w[2:])):
        source, place = [], []
        for k, s, p, e, n, m in zip(tap, stride, low, dilation, x[2:], y[2:], strict=True):
            away = k * e - p
            first = max(0, -(away // s))                    # the first t with t*s + away >= 0
            last = min(m - 1, (n - 1 - away) // s)
            if last < first:
                break
            source.append(slice(first * s + away, last * s + away + 1, s))
            place.append(slice(first, last + 1))
        else:
            every = (slice(None), slice(None))
            yield (*every, *tap), (*every, *source), (*every, *place)


def _grouped(x: np.ndarray, groups: int) -> np.ndarray:
    """[N, G*C, ...] as [N, G, C, all places]."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, math.prod(x.shape[2:]))


def _with_borders(x: np.ndarray, attrs: tuple[Any, ...], w: _Shape, y: _Shape,
                  other: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """X with the zeros around it that taps read, if they count: if what they meet is not finite.

    Zero times an infinity is NaN, so the zeros outside of X are not the same as no zeros.
    """
    stride, low, dilation = attrs[:3]
    wide = [(p, max(0, (m - 1) * s + (k - 1) * e - p - (n - 1)))
            for s, p, e, n, k, m in zip(stride, low, dilation, x.shape[2:], w[2:], y[2:])]
    if not any(map(any, wide)) or np.isfinite(other).all():
        return x, attrs
    return (np.pad(x, [(0, 0), (0, 0), *[(max(0, a), b) for a, b in wide]]),
            (stride, tuple(min(0, p) for p in low), *attrs[2:]))


def _conv(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    x, w = arrays
    x, attrs = _with_borders(x, attrs, w.shape, out.shape, w)
    groups = attrs[3]
    total = np.zeros(out.shape, x.dtype)
    for tap, source, place in _taps(attrs, x.shape, w.shape, out.shape):
        rows = w[tap].reshape(groups, w.shape[0] // groups, w.shape[1])
        seen = x[source]
        made = np.matmul(rows, _grouped(seen, groups))
        total[place] += made.reshape(out.shape[0], out.shape[1], *seen.shape[2:])
    return total


def _conv_input(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    y, w = arrays
    stride, low, dilation, groups = attrs
    if not np.isfinite(w).all():
        # As in `_with_borders`, the zeros that are here around Y.
        wide = [(max(0, ((k - 1) * e - p) // s), max(0, (n - 1 + p) // s - (m - 1)))
                for s, p, e, n, k, m in zip(stride, low, dilation, out.shape[2:], w.shape[2:],
                                            y.shape[2:])]
        y = np.pad(y, [(0, 0), (0, 0), *wide])
        low = tuple(p + a * s for p, (a, _), s in zip(low, wide, stride))
        attrs = (stride, low, dilation, groups)
    total = np.zeros(out.shape, y.dtype)
    for tap, source, place in _taps(attrs, out.shape, w.shape, y.shape):
        rows = w[tap].reshape(groups, w.shape[0] // groups, w.shape[1])
        seen = y[place]
        made = np.matmul(rows.swapaxes(1, 2), _grouped(seen, groups))
        total[source] += made.reshape(out.shape[0], out.shape[1], *seen.shape[2:])
    return total


def _conv_weight(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
    x, y = arrays
    groups, parts = attrs[3], attrs[4]
    if parts:
        each = -(-x.shape[0] // parts)
        plain = spec(out.shape[1:], out.dtype)
        return np.stack([_conv_weight([x[k * each:(k + 1) * each], y[k * each:(k + 1) * each]],
                                      (*attrs[:4], 0), plain) for k in range(parts)])
    x, attrs = _with_borders(x, attrs, out.shape, y.shape, y)
    total = np.zeros(out.shape, x.dtype)
    for tap, source, place in _taps(attrs, x.shape, out.shape, y.shape):
        left = _grouped(y[place], groups)
        right = _grouped(x[source], groups)
        made = np.einsum("ngop,ngcp->goc", left, right, optimize=True)
        total[tap] = made.reshape(out.shape[:2])
    return total


def _terms(name: str) -> Any:
    """Of how many products an element of the result is the sum."""
    def terms(specs: Sequence[Spec], attrs: tuple[Any, ...], out: Spec) -> int:
        b = specs[1].shape
        if name == "conv_weight":
            return b[0] * math.prod(b[2:])
        return math.prod(b[1:]) if name == "conv" else b[0] // attrs[3] * math.prod(b[2:])
    return terms


# ---------------------------------------------------------------- derivatives

def _plain(attrs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*attrs[:4], 0)


def _conv_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    x, w = c.inputs
    return (prim("conv_input", g, w, attrs=c.attrs, shape=x.shape) if c.needs[0] else None,
            prim("conv_weight", x, g, attrs=_plain(c.attrs), shape=w.shape)
            if c.needs[1] else None)


def _input_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    y, w = c.inputs
    return (prim("conv", g, w, attrs=c.attrs, shape=y.shape) if c.needs[0] else None,
            prim("conv_weight", g, y, attrs=_plain(c.attrs), shape=w.shape)
            if c.needs[1] else None)


def _weight_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    x, y = c.inputs
    attrs = c.attrs[:4]
    return (prim("conv_input", y, g, attrs=attrs, shape=x.shape) if c.needs[0] else None,
            prim("conv", x, g, attrs=attrs, shape=y.shape) if c.needs[1] else None)


def _bilinear_jvp(name: str) -> Any:
    def jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
        a, b = c.inputs
        da, db = tangents
        terms = [prim(name, left, right, attrs=c.attrs, shape=c.out.shape)
                 for left, right in ((da, b), (a, db)) if left is not None and right is not None]
        if not terms:
            return zeros_like(c.out)
        return terms[0] if len(terms) == 1 else prim("add", *terms)
    return jvp


_CASES: tuple[tuple[_Shape, _Shape, _Shape, tuple[Any, ...]], ...] = (
    ((2, 3, 5, 6), (4, 3, 3, 2), (2, 4, 3, 5), ((1, 1), (0, 0), (1, 1), 1)),
    ((1, 2, 7), (2, 1, 3), (1, 2, 4), ((2,), (1,), (1,), 2)),
    ((2, 1, 4, 5), (3, 1, 3, 3), (2, 3, 4, 5), ((1, 1), (1, 1), (1, 1), 1)),
    ((1, 2, 4, 3, 5), (2, 2, 2, 3, 2), (1, 2, 2, 2, 3), ((2, 1, 2), (0, 1, 1), (1, 2, 2), 1)),
    ((2, 4, 6, 6), (4, 1, 3, 3), (2, 4, 3, 3), ((2, 2), (1, 1), (1, 1), 4)),
)


def _samples(name: str) -> Any:
    def samples(make: Any) -> list[Sample]:
        out = []
        for x, w, y, attrs in _CASES:
            a, b, shape = {"conv": (x, w, y), "conv_input": (y, w, x),
                           "conv_weight": (x, y, w)}[name]
            if name == "conv_weight":
                attrs = _plain(attrs)
            out.append(Sample((make(*a), make(*b)), attrs, shape))
        return out
    return samples


for _name, _infer, _numpy, _vjp in (("conv", _infer_conv, _conv, _conv_vjp),
                                    ("conv_input", _infer_input, _conv_input, _input_vjp),
                                    ("conv_weight", _infer_weight, _conv_weight, _weight_vjp)):
    register(_name, "convolution", _infer, _numpy, vjp=_vjp, jvp=_bilinear_jvp(_name),
             saves=("in0", "in1"), saves_for=(("in1",), ("in0",)), samples=_samples(_name),
             terms=_terms(_name), batch=correlated if _name == "conv_weight" else convolved)
