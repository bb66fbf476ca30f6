"""Attention as primitives, so that its scores need never be in memory.

With S = scale * Q K^T (+ mask, -infinity where a query may not look) and P = exp(S - lse), each
row of scores has one number that stands for all of it, the logarithm of its sum of exponentials
(Milakov and Gimelshein 2018; Dao et al., "FlashAttention", 2022):

    attention      O = P V
    attention_lse  lse[i] = log sum over j of exp(S[i, j]), 0 for a query that may look at nothing
    attention_dq   scale * dS K       with dS = P * (G V^T - delta)
    attention_dk   scale * dS^T Q
    attention_dv   P^T G

The last three take lse and delta as operands like any other, and are the gradients of `attention`
where lse is its own, delta[i] = sum over e of G[i, e] O[i, e], and G is the gradient of O.

Queries are [*, L, E], keys [*, S, E], values [*, S, Ev], a mask [*, L, S], lse and delta [*, L],
all with the same leading dimensions.  The attributes are (scale, causal, masked); causal: query i
looks at keys 0 to i; masked: the last operand is a mask, of bools (True: may be looked at) or of
numbers that are added.  lse and delta are float32 where the rest is 16-bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from facula.dtype import DType, float32
from facula.errors import DTypeError, ShapeError
from facula.graph.spec import Spec, spec
from facula.ops.primitive.batching import each
from facula.ops.primitive.record import Sample, _count, compute_dtype, register, shapes_text
from facula.ops.primitive.rules import (
    add,
    cast,
    expand,
    full,
    iota,
    mul,
    neg,
    prim,
    reshape,
    sub,
    sum_,
    times,
    where,
    zeros_like,
)

_OPERANDS = {"attention": "qkv", "attention_lse": "qk", "attention_dq": "qkvgld",
             "attention_dk": "qkvgld", "attention_dv": "qkgl"}
"""What each takes, before the mask: query, key, value, gradient, lse, delta."""


def _wide(dtype: DType) -> DType:
    return float32 if dtype.itemsize == 2 else dtype


# ---------------------------------------------------------------- shapes

def _infer(name: str) -> Any:
    letters = _OPERANDS[name]

    def infer(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
        _count(name, specs, len(letters) + attrs[2])
        x = dict(zip(letters, specs, strict=False))
        dtype = x["q"].dtype
        if dtype.kind != "f":
            raise DTypeError(f"{name}: takes floating point tensors, not {dtype!r}")
        for letter, s in x.items():
            want = _wide(dtype) if letter in "ld" else dtype
            if s.dtype is not want:
                raise DTypeError(f"{name}: expected {want!r} where a {s.dtype!r} is, beside "
                                 f"queries of {dtype!r}")
        if len(x["q"].shape) < 2:
            raise ShapeError(f"{name}: needs rows and columns, not {shapes_text(specs)}")
        *batch, rows, width = x["q"].shape
        keys = x["k"].shape[-2] if len(x["k"].shape) > 1 else -1
        value = x.get("v", x.get("g", x["k"]))
        deep = value.shape[-1] if value.shape else -1
        shapes = {"q": (rows, width), "k": (keys, width), "v": (keys, deep), "g": (rows, deep),
                  "l": (rows,), "d": (rows,)}
        wanted = [(*batch, *shapes[letter]) for letter in letters]
        if attrs[2]:
            wanted.append((*batch, rows, keys))
            if specs[-1].dtype.kind != "b" and specs[-1].dtype is not dtype:
                raise DTypeError(f"{name}: the mask is {specs[-1].dtype!r}, and may be bool or "
                                 f"{dtype!r}")
        if [s.shape for s in specs] != wanted:
            raise ShapeError(f"{name}: the operands {shapes_text(specs)} do not fit together; "
                             f"with these queries and keys they would be {wanted}")
        out = {"attention": (rows, deep), "attention_lse": (rows,), "attention_dq": (rows, width),
               "attention_dk": (keys, width), "attention_dv": (keys, deep)}[name]
        return spec((*batch, *out), _wide(dtype) if name == "attention_lse" else dtype)
    return infer


# ---------------------------------------------------------------- NumPy

def _meaning(name: str) -> Any:
    letters = _OPERANDS[name]

    def meaning(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
        wide = compute_dtype(arrays[0].dtype)
        x = {k: a.astype(wide) for k, a in zip(letters, arrays, strict=False)}
        scale, causal, masked = attrs
        scores = np.matmul(x["q"] * wide.type(scale), x["k"].swapaxes(-1, -2))
        if causal:
            rows, keys = scores.shape[-2:]
            scores = np.where(np.arange(keys) > np.arange(rows)[:, None], wide.type(-np.inf),
                              scores)
        if masked:
            mask = arrays[-1]
            scores = (np.where(mask, scores, wide.type(-np.inf)) if mask.dtype == np.bool_
                      else scores + mask.astype(wide))
        if "l" not in x:
            top = scores.max(-1, keepdims=True, initial=-np.inf)
            dead = np.isneginf(top)
            shares = np.exp(scores - np.where(dead, 0, top))
            total = shares.sum(-1, keepdims=True)
            if name == "attention_lse":
                lse = np.where(dead, 0, top + np.log(np.where(dead, 1, total)))
                return np.asarray(lse[..., 0].astype(wide))
            mixed = np.matmul(shares, x["v"]) / np.where(dead, 1, total)
            return np.asarray(mixed.astype(arrays[0].dtype))
        shares = np.exp(scores - x["l"][..., None])
        if name == "attention_dv":
            made = np.matmul(shares.swapaxes(-1, -2), x["g"])
        else:
            ds = shares * (np.matmul(x["g"], x["v"].swapaxes(-1, -2)) - x["d"][..., None])
            ds *= wide.type(scale)
            made = (np.matmul(ds, x["k"]) if name == "attention_dq"
                    else np.matmul(ds.swapaxes(-1, -2), x["q"]))
        return np.asarray(made.astype(arrays[0].dtype))
    return meaning


# ---------------------------------------------------------------- derivatives

def _turned(x: Any) -> Any:
    n = x.ndim
    return prim("permute", x, attrs=((*range(n - 2), n - 1, n - 2),))


def _product(a: Any, b: Any) -> Any:
    return prim("matmul", a, b)


def _across(x: Any, like: Any) -> Any:
    """[*, L] beside every column of [*, L, S]."""
    return expand(reshape(x, (*x.shape, 1)), like.shape)


def _row_sum(x: Any) -> Any:
    return sum_(x, (x.ndim - 1,))


def _shares(q: Any, k: Any, lse: Any, mask: Any, attrs: tuple[Any, ...]) -> Any:
    """P, [*, L, S]."""
    scale, causal, _ = attrs
    scores = _product(times(q, scale), _turned(k))
    low = full(scores, float("-inf"))
    if causal:
        *_, rows, keys = scores.shape
        lead = (1,) * (scores.ndim - 2)
        later = prim("gt", expand(reshape(iota(keys), (*lead, 1, keys)), scores.shape),
                     expand(reshape(iota(rows), (*lead, rows, 1)), scores.shape))
        scores = where(later, low, scores)
    if mask is not None:
        scores = (where(mask, scores, low) if mask.dtype.kind == "b"
                  else add(scores, cast(mask, scores.dtype)))
    return prim("exp", sub(scores, _across(lse, scores)))


def _operands(name: str, c: Any) -> tuple[dict[str, Any], Any]:
    """The operands by letter, as wide as they are computed with, and the mask or None."""
    letters = _OPERANDS[name]
    x = {letter: cast(t, _wide(t.dtype)) for letter, t in zip(letters, c.inputs, strict=False)}
    return x, c.inputs[-1] if c.attrs[2] else None


def _total(*terms: Any) -> Any:
    """The sum of those that are not None; None of none."""
    found = None
    for t in terms:
        if t is not None:
            found = t if found is None else add(found, t)
    return found


def _maybe(fn: Any, a: Any, b: Any) -> Any:
    return None if a is None or b is None else fn(a, b)


def _attention_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    q, k, v, *mask = c.inputs
    lse = prim("attention_lse", q, k, *mask, attrs=c.attrs)
    wide = lse.dtype
    delta = _row_sum(mul(cast(g, wide), cast(c.out, wide)))
    out: list[Any] = [prim(f"attention_d{x}", q, k, v, g, lse, delta, *mask, attrs=c.attrs)
                      if need else None for x, need in zip("qk", c.needs, strict=False)]
    out.append(prim("attention_dv", q, k, g, lse, *mask, attrs=c.attrs) if c.needs[2] else None)
    if mask:
        found = None
        if c.needs[3]:
            p = _shares(cast(q, wide), cast(k, wide), lse, mask[0], c.attrs)
            dp = _product(cast(g, wide), _turned(cast(v, wide)))
            found = cast(mul(p, sub(dp, _across(delta, dp))), mask[0].dtype)
        out.append(found)
    return tuple(out)


def _score_change(x: dict[str, Any], t: dict[str, Any], mask: Any, scale: float) -> Any:
    """What S changes by where the operands change by `t`."""
    change = _total(_maybe(_product, t["q"], _turned(x["k"])),
                    None if t["k"] is None else _product(x["q"], _turned(t["k"])))
    return _total(None if change is None else times(change, scale),
                  None if mask is None else cast(mask, x["q"].dtype))


def _tangents(name: str, c: Any, tangents: tuple[Any, ...]) -> tuple[dict[str, Any], Any]:
    t = {letter: None if x is None else cast(x, _wide(x.dtype))
         for letter, x in zip(_OPERANDS[name], tangents, strict=False)}
    return t, tangents[-1] if c.attrs[2] else None


def _attention_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    x, mask = _operands("attention", c)
    t, change = _tangents("attention", c, tangents)
    lse = prim("attention_lse", c.inputs[0], c.inputs[1], *c.inputs[3:], attrs=c.attrs)
    p = _shares(x["q"], x["k"], lse, mask, c.attrs)
    ds = _score_change(x, t, change, c.attrs[0])
    out = None if t["v"] is None else _product(p, t["v"])
    if ds is not None:
        moved = mul(p, ds)
        mean = _across(_row_sum(moved), c.out)
        out = _total(out, sub(_product(moved, x["v"]), mul(mean, cast(c.out, lse.dtype))))
    return zeros_like(c.out) if out is None else cast(out, c.out.dtype)


def _lse_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    x, mask = _operands("attention_lse", c)
    p = _shares(x["q"], x["k"], c.out, mask, c.attrs)
    return _of_scores(c, x, mul(p, _across(g, p)), mask)


def _lse_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    x, mask = _operands("attention_lse", c)
    t, change = _tangents("attention_lse", c, tangents)
    ds = _score_change(x, t, change, c.attrs[0])
    if ds is None:
        return zeros_like(c.out)
    return _row_sum(mul(_shares(x["q"], x["k"], c.out, mask, c.attrs), ds))


def _of_scores(c: Any, x: dict[str, Any], z: Any, mask: Any,
               more: dict[str, Any] | None = None) -> tuple[Any, ...]:
    """Gradients of all operands, where that of S is `z` and `more` has the rest by letter."""
    more = more or {}
    letters = list(x)
    scaled = times(z, c.attrs[0])
    out: list[Any] = []
    for letter, need, t in zip(letters, c.needs, c.inputs, strict=False):
        found = more.get(letter)
        if not need:
            found = None
        elif letter == "q":
            found = _total(found, _product(scaled, x["k"]))
        elif letter == "k":
            found = _total(found, _product(_turned(scaled), x["q"]))
        elif letter == "l":
            found = neg(_row_sum(z))
        out.append(None if found is None else cast(found, t.dtype))
    if mask is not None:
        out.append(cast(z, mask.dtype) if c.needs[-1] and mask.dtype.kind != "b" else None)
    return tuple(out)


def _gradient_vjp(name: str) -> Any:
    """The vjp of attention_dq, attention_dk and attention_dv.

    Each is linear in P * W (W = G V^T - delta) or P, with a matrix M of its own for which the
    change of the result along the gradient `t` is the sum over M * scale * dS (or over M * P).
    """
    def vjp(c: Any, t: Any) -> tuple[Any, ...]:
        x, mask = _operands(name, c)
        scale = c.attrs[0]
        t = cast(t, x["q"].dtype)
        p = _shares(x["q"], x["k"], x["l"], mask, c.attrs)
        if name == "attention_dv":
            m = _product(x["g"], _turned(t))
            return _of_scores(c, x, mul(p, m), mask, {"g": _product(p, t)})
        dp = _product(x["g"], _turned(x["v"]))
        w = sub(dp, _across(x["d"], dp))
        ds = times(mul(p, w), scale)
        if name == "attention_dq":
            m = _product(t, _turned(x["k"]))
            more = {"k": _product(_turned(ds), t)}
        else:
            m = _product(x["q"], _turned(t))
            more = {"q": _product(ds, t)}
        dw = times(mul(p, m), scale)
        more |= {"g": _product(dw, x["v"]), "v": _product(_turned(dw), x["g"]),
                 "d": neg(_row_sum(dw))}
        return _of_scores(c, x, mul(dw, w), mask, more)
    return vjp


def _gradient_jvp(name: str) -> Any:
    def jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
        x, mask = _operands(name, c)
        t, change = _tangents(name, c, tangents)
        scale = c.attrs[0]
        p = _shares(x["q"], x["k"], x["l"], mask, c.attrs)
        moved = _total(_score_change(x, t, change, scale),
                       None if t["l"] is None else neg(_across(t["l"], p)))
        moved = None if moved is None else mul(p, moved)
        if name == "attention_dv":
            out = _total(None if moved is None else _product(_turned(moved), x["g"]),
                         None if t["g"] is None else _product(_turned(p), t["g"]))
            return zeros_like(c.out) if out is None else cast(out, c.out.dtype)
        dp = _product(x["g"], _turned(x["v"]))
        w = sub(dp, _across(x["d"], dp))
        dw = _total(_maybe(_product, t["g"], _turned(x["v"])),
                    None if t["v"] is None else _product(x["g"], _turned(t["v"])),
                    None if t["d"] is None else neg(_across(t["d"], p)))
        change = _total(None if moved is None else mul(moved, w),
                        None if dw is None else mul(p, dw))
        left, other = ("k", lambda s: s) if name == "attention_dq" else ("q", _turned)
        out = _total(None if change is None else _product(other(change), x[left]),
                     None if t[left] is None else _product(other(mul(p, w)), t[left]))
        return zeros_like(c.out) if out is None else cast(times(out, scale), c.out.dtype)
    return jvp


# ---------------------------------------------------------------- the table

_SIZES: tuple[tuple[tuple[int, ...], int, int, int, int, float, bool, str], ...] = (
    ((2,), 3, 5, 4, 3, 0.5, False, ""), ((1, 2), 4, 4, 2, 3, 0.7, True, ""),
    ((), 3, 2, 1, 1, 1.0, False, "b"), ((2,), 2, 4, 3, 2, -0.4, False, "f"),
    ((1,), 5, 3, 2, 2, 0.6, True, "b"), ((1,), 1, 1, 1, 1, 1.0, True, ""))
"""batch, queries, keys, width of keys and of values, scale, causal, mask"""


def _samples(name: str) -> Any:
    def samples(make: Any) -> list[Sample]:
        out = []
        for batch, rows, keys, width, deep, scale, causal, masked in _SIZES:
            shapes = {"q": (rows, width), "k": (keys, width), "v": (keys, deep),
                      "g": (rows, deep), "l": (rows,), "d": (rows,)}
            arrays = [make(*batch, *shapes[letter]) for letter in _OPERANDS[name]]
            wide = np.dtype(np.float32) if arrays[0].dtype.itemsize == 2 else arrays[0].dtype
            arrays = [a.astype(wide) if letter in "ld" else a
                      for letter, a in zip(_OPERANDS[name], arrays, strict=True)]
            if masked == "b":
                arrays.append(np.arange(keys) % 2 == np.arange(rows)[:, None] % 2)
                arrays[-1] = np.array(np.broadcast_to(arrays[-1], (*batch, rows, keys)))
            elif masked:
                arrays.append(make(*batch, rows, keys))
            out.append(Sample(tuple(arrays), (scale, causal, bool(masked))))
        return out
    return samples


def _reads(name: str, out: bool) -> Any:
    def saves(attrs: tuple[Any, ...]) -> tuple[str, ...]:
        count = len(_OPERANDS[name]) + attrs[2]
        return (*[f"in{k}" for k in range(count)], *(["out"] if out else []))
    return saves


def _terms(specs: Sequence[Spec], attrs: tuple[Any, ...], out: Spec) -> int:
    # Two products of a query and a key, and an exponential that weighs as much as forty.
    q, keys = specs[0], specs[1].shape[-2]
    return q.numel * keys * (4 + 40 // max(q.shape[-1], 1)) // max(out.numel, 1)


for _name, _vjp, _jvp in (
        ("attention", _attention_vjp, _attention_jvp), ("attention_lse", _lse_vjp, _lse_jvp),
        *((n, _gradient_vjp(n), _gradient_jvp(n))
          for n in ("attention_dq", "attention_dk", "attention_dv"))):
    register(_name, "attention", _infer(_name), _meaning(_name), vjp=_vjp, jvp=_jvp,
             saves=_reads(_name, _name in ("attention", "attention_lse")),
             samples=_samples(_name), terms=_terms, batch=each)
