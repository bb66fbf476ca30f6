"""Attention: scaled dot products, and many heads of them (Vaswani et al. 2017)."""

from __future__ import annotations

import math
import warnings
from typing import Any

from facula.errors import DTypeError, ShapeError
from facula.nn.functional.common import axis_iota, float_only, mul_number, number, shape_of
from facula.nn.functional.dropout import dropout
from facula.nn.functional.linear import linear
from facula.nn.functional.pad import pad
from facula.ops import reductions as _reductions
from facula.ops.contractions import matmul
from facula.ops.define import autocast_to, cast_first, op
from facula.ops.primitive.rules import cat
from facula.ops.promote import broadcast_shapes, cast, expand_to
from facula.ops.reductions import constant, reduce_to, widened
from facula.tensor import Tensor, prim

__all__ = ["scaled_dot_product_attention", "multi_head_attention_forward"]

_LOW = float("-inf")


def _swapped(x: Tensor) -> Tensor:
    """`x` with its last two dimensions exchanged."""
    n = x.ndim
    return prim("permute", x, attrs=((*range(n - 2), n - 1, n - 2),))


def _scores(query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool, scale: float
            ) -> Tensor:
    """The masked products of queries and keys, `[*, L, S]`, in float32 for 16-bit inputs."""
    root = math.sqrt(abs(scale))        # on either side of the product, so that neither overflows
    q = mul_number(widened(query), math.copysign(root, scale))
    scores: Tensor = matmul(q, _swapped(mul_number(widened(key), root)))
    shape = shape_of(scores)
    if is_causal:
        n = len(shape)
        later = prim("gt", axis_iota(shape, n - 1), axis_iota(shape, n - 2))
        scores = prim("where", later, number(scores, _LOW), scores)
    if mask is not None:
        if mask.dtype.kind == "b":
            scores = prim("where", expand_to(mask, shape), scores, number(scores, _LOW))
        else:
            scores = prim("add", scores, expand_to(cast(mask, scores.dtype), shape))
    return scores


def _shares(scores: Tensor, masked: bool) -> Tensor:
    """The softmax of each row; a row in which nothing may be looked at is 0."""
    if not masked or not shape_of(scores)[-1]:
        return _reductions.softmax(scores, -1)      # type: ignore[no-any-return]
    shape = shape_of(scores)
    top = reduce_to("amax", constant(scores), (len(shape) - 1,), True)
    dead = expand_to(prim("eq", top, number(top, _LOW)), shape)
    zero = number(scores, 0)
    return prim("where", dead, zero, _reductions.softmax(prim("where", dead, zero, scores), -1))


def _samples(make: Any) -> list[Any]:
    q, k, v = make(2, 3, 4), make(2, 5, 4), make(2, 5, 3)
    return [((q, k, v), {}), ((q, k, v), {"is_causal": True}),
            ((q, k, v, make(3, 5)), {"scale": 0.7}), ((make(3, 4), make(2, 4), make(2, 4)), {})]


FEWEST_QUERIES, WIDEST = 8, 256
"""Fewer queries leave the vectors of a tile empty, and of wider rows blocks outgrow the cache."""


def _tiled(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> bool:
    """Whether attention is to be one kernel that keeps scores to itself (`prim("attention")`)."""
    rows, width = shape_of(query)[-2:]
    keys, deep = shape_of(value)[-2:]
    return (rows >= FEWEST_QUERIES and keys > 0 and 0 < width <= WIDEST and 0 < deep <= WIDEST
            and not (mask is not None and mask.requires_grad))


def _attended(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, is_causal: bool,
              factor: float) -> Tensor:
    """The primitive, on operands that are expanded to what they are broadcast to."""
    operands = [query, key, value] if mask is None else [query, key, value, mask]
    lead: tuple[int, ...] = ()
    for x in operands:
        lead = broadcast_shapes(lead, shape_of(x)[:-2])
    sizes = [shape_of(x)[-2:] for x in (query, key, value)]
    operands = [expand_to(x, (*lead, *size)) for x, size in zip(operands, [
        *sizes, (sizes[0][0], sizes[1][0])], strict=False)]
    return prim("attention", *operands, attrs=(factor, is_causal, mask is not None))


@op(name="scaled_dot_product_attention", samples=_samples)
@autocast_to("lower")
def _attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None,
               is_causal: bool = False, scale: float | None = None) -> Tensor:
    factor = _scale_of(query, scale)
    if _tiled(query, key, value, mask):
        return _attended(query, key, value, mask, is_causal, factor)
    shares = _shares(_scores(query, key, mask, is_causal, factor), mask is not None)
    return cast(matmul(shares, widened(value)), query.dtype)


@op(register=False)
def _grouped(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, is_causal: bool,
             scale: float | None) -> Tensor:
    """Heads of queries that share those of keys and values, which are not repeated for it."""
    *lead, heads, rows, width = shape_of(query)
    groups = shape_of(key)[-3]
    split = (groups, heads // groups)
    q = prim("reshape", query, shape=(*lead, *split, rows, width))
    k, v = (prim("reshape", x, shape=(*shape_of(x)[:-2], 1, *shape_of(x)[-2:]))
            for x in (key, value))
    if mask is not None:
        if mask.ndim > 2:
            *others, every, n, m = shape_of(mask)
            mask = prim("reshape", mask, shape=(*others, *(split if every > 1 else (1, 1)), n, m))
    out = _attended(q, k, v, mask, is_causal, _scale_of(query, scale))
    *lead, _, _, rows, deep = shape_of(out)
    return prim("reshape", out, shape=(*lead, heads, rows, deep))       # type: ignore


@op(register=False)
@autocast_to("lower")
def _attention_shares(query: Tensor, key: Tensor, mask: Tensor | None, is_causal: bool,
                      scale: float | None) -> Tensor:
    factor = _scale_of(query, scale)
    return _shares(_scores(query, key, mask, is_causal, factor), mask is not None)


@op(register=False)
@autocast_to("lower")
def _mixed(shares: Tensor, value: Tensor) -> Tensor:
    return cast(matmul(shares, widened(value)), value.dtype)


@op(register=False)
def _repeated_heads(x: Tensor, times: int) -> Tensor:
    *lead, heads, rows, width = shape_of(x)
    x = prim("reshape", x, shape=(*lead, heads, 1, rows, width))
    x = expand_to(x, (*lead, heads, times, rows, width))
    return prim("reshape", x, shape=(*lead, heads * times, rows, width))


def _scale_of(query: Tensor, scale: float | None) -> float:
    width = shape_of(query)[-1]
    return (1 / math.sqrt(width) if width else 1.0) if scale is None else scale


def _check_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None,
                     is_causal: bool) -> None:
    name = "scaled_dot_product_attention"
    if query.dtype is not key.dtype or query.dtype is not value.dtype:
        raise DTypeError("Expected query, key, and value to have the same dtype, but got "
                         f"query.dtype: {query.dtype.name} key.dtype: {key.dtype.name} and "
                         f"value.dtype: {value.dtype.name} instead.")
    float_only(name, query)
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise ShapeError("Expected query, key, and value to all be  at least 2 dimensional, but "
                         f"got query.dim: {query.ndim}, key.dim: {key.ndim} and value.dim: "
                         f"{value.ndim} instead.")
    q, k, v = shape_of(query), shape_of(key), shape_of(value)
    if q[-1] != k[-1] or k[-2] != v[-2]:
        raise ShapeError(f"{name}: query {list(q)}, key {list(k)} and value {list(v)} do not fit: "
                         "query and key must have the same last dimension, key and value the "
                         "same number of rows")
    if mask is None:
        return
    if is_causal:
        raise RuntimeError(f"_{name}: Explicit attn_mask should not be set when is_causal=True")
    if mask.dtype.kind != "b" and mask.dtype is not query.dtype:
        raise DTypeError("Expected attn_mask dtype to be bool or to match query dtype, but got "
                         f"attn_mask.dtype: {mask.dtype.name} and  query.dtype: "
                         f"{query.dtype.name} instead.")


@cast_first
@autocast_to("lower")
def scaled_dot_product_attention(query: Tensor, key: Tensor, value: Tensor,
                                 attn_mask: Tensor | None = None, dropout_p: float = 0.0,
                                 is_causal: bool = False, scale: float | None = None,
                                 enable_gqa: bool = False) -> Tensor:
    """`softmax(scale * query @ key.T + mask) @ value`: each query's mean of the values.

    query       `[*, L, E]`; key `[*, S, E]`, value `[*, S, Ev]`; the result is `[*, L, Ev]`
    attn_mask   `[*, L, S]`, of bools (True: may be looked at) or of numbers that are added
    dropout_p   the probability with which a share of a value is dropped; not only in training
    is_causal   query i looks at the keys up to i
    scale       1 / sqrt(E) unless it is given
    enable_gqa  the heads of query (dimension -3) share those of key and value in equal groups

    A query that may look at nothing gives 0.  Raises ShapeError and DTypeError where the inputs
    do not fit, RuntimeError for a mask with `is_causal`.
    """
    _check_attention(query, key, value, attn_mask, is_causal)
    if enable_gqa:
        if min(query.ndim, key.ndim, value.ndim) < 3:
            raise ShapeError("scaled_dot_product_attention: enable_gqa needs a dimension of heads")
        heads = shape_of(query)[-3]
        for what, t in (("key", key), ("value", value)):
            if not shape_of(t)[-3] or heads % shape_of(t)[-3]:
                raise ShapeError(f"Number of heads in {what} ({shape_of(t)[-3]}) must divide the "
                                 f"number of heads in query ({heads})")
        if dropout_p == 0.0 and shape_of(key)[-3] == shape_of(value)[-3] \
                and _tiled(query, key, value, attn_mask):
            return _grouped(query, key, value, attn_mask, bool(is_causal), scale)  # type: ignore
        key = _repeated_heads(key, heads // shape_of(key)[-3])          # type: ignore[assignment]
        value = _repeated_heads(value, heads // shape_of(value)[-3])    # type: ignore[assignment]
    if dropout_p == 0.0:
        return _attention(query, key, value, attn_mask, bool(is_causal), scale)   # type: ignore
    shares: Any = _attention_shares(query, key, attn_mask, bool(is_causal), scale)
    return _mixed(dropout(shares, dropout_p), value)        # type: ignore[no-any-return]


# ---------------------------------------------------------------- many heads

def additive_mask(mask: Tensor | None, name: str, other: Tensor | None, other_name: str,
                  like: Tensor) -> Tensor | None:
    """`mask` as numbers to add: -infinity where a mask of bools is True."""
    if mask is None:
        return None
    if mask.dtype.kind not in "bf":
        raise AssertionError(f"only bool and floating types of {name} are supported")
    if other is not None and other.dtype is not mask.dtype:
        warnings.warn(f"Support for mismatched {name} and {other_name} is deprecated. Use same "
                      "type for both instead.", stacklevel=3)
    return _bools_added(mask, like.dtype) if mask.dtype.kind == "b" else mask   # type: ignore


@op(register=False)
def _bools_added(mask: Tensor, dtype: Any) -> Tensor:
    zero = prim("full", attrs=(0.0,), shape=shape_of(mask), dtype=dtype)
    return prim("where", mask, number(zero, _LOW), zero)


def _check_heads(query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None,
                 mask: Tensor | None, num_heads: int) -> bool:
    """Whether there is a batch; AssertionError where the numbers of dimensions do not fit."""
    n = query.ndim
    if n not in (2, 3):
        raise AssertionError("query should be unbatched 2D or batched 3D tensor but received "
                             f"{n}-D query tensor")
    kind = "batched (3-D)" if n == 3 else "unbatched (2-D)"
    if key.ndim != n or value.ndim != n:
        raise AssertionError(f"For {kind} `query`, expected `key` and `value` to be {n}-D but "
                             f"found {key.ndim}-D and {value.ndim}-D tensors respectively")
    if padding is not None and padding.ndim != n - 1:
        raise AssertionError(f"For {kind} `query`, expected `key_padding_mask` to be `None` or "
                             f"{n - 1}-D but found {padding.ndim}-D tensor instead")
    if mask is not None:
        if mask.ndim not in (2, 3):
            raise AssertionError(f"For {kind} `query`, expected `attn_mask` to be `None`, 2-D or "
                                 f"3-D but found {mask.ndim}-D tensor instead")
        want = (num_heads, query.shape[0], key.shape[0])
        if n == 2 and mask.ndim == 3 and tuple(mask.shape) != want:
            raise AssertionError(f"Expected `attn_mask` shape to be {want} but got {mask.shape}")
    return n == 3


def _projected(query: Any, key: Any, value: Any, packed: Any, bias: Any, apart: Any
               ) -> tuple[Any, Any, Any]:
    """Queries, keys and values, each through its own linear map."""
    biases = (None, None, None) if bias is None else bias.chunk(3)
    if apart is not None:
        for name, weight in zip("qkv", apart):
            if weight is None:
                raise AssertionError("use_separate_proj_weight is True but "
                                     f"{name}_proj_weight is None")
        return tuple(linear(x, w, b)        # type: ignore[return-value]
                     for x, w, b in zip((query, key, value), apart, biases))
    if packed is None:
        raise AssertionError("use_separate_proj_weight is False but in_proj_weight is None")
    if query is key and key is value:
        return linear(query, packed, bias).chunk(3, -1)     # type: ignore
    weights = packed.chunk(3)
    if key is value:
        e = query.shape[-1]
        both = linear(key, packed[e:], None if bias is None else bias[e:])
        return (linear(query, weights[0], biases[0]), *both.chunk(2, -1))   # type: ignore
    return tuple(linear(x, w, b)            # type: ignore[return-value]
                 for x, w, b in zip((query, key, value), weights, biases))


def _check_static(static: Any, batch: int, head_dim: int, name: str) -> None:
    if static.shape[0] != batch:
        raise AssertionError(f"expecting {name}.size(0) of {batch}, but got {static.shape[0]}")
    if static.shape[2] != head_dim:
        raise AssertionError(f"expecting {name}.size(2) of {head_dim}, but got "
                             f"{static.shape[2]}")


def _merged_masks(mask: Any, padding: Any, n: int, heads: int, src: int) -> Any:
    """One mask for all heads, `[N * heads or 1, L or 1, S]`, or None."""
    if padding is None:
        return mask
    if padding.shape[0] != n:
        raise AssertionError(f"Expected key_padded_mask.shape[0] to be {n}, but got "
                             f"{padding.shape[0]}")
    if padding.shape[1] != src:
        raise AssertionError(f"Expected key_padded_mask.shape[1] to be {src}, but got "
                             f"{padding.shape[1]}")
    each = padding.reshape(n, 1, 1, src).expand(n, heads, 1, src).reshape(n * heads, 1, src)
    return each if mask is None else mask + each


def _weighed(q: Any, k: Any, v: Any, mask: Any, dropout_p: float) -> tuple[Any, Any]:
    """The mixed values and the weights; a row that may look at nothing is NaN, as in PyTorch."""
    scores = matmul(q * math.sqrt(1.0 / q.shape[-1]), k.transpose(-2, -1))
    if mask is not None:
        scores = scores + mask
    weights = _reductions.softmax(scores, -1)
    if dropout_p > 0:
        weights = dropout(weights, dropout_p)
    return matmul(weights, v), weights


def multi_head_attention_forward(
        query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
        in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None,
        bias_v: Tensor | None, add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor,
        out_proj_bias: Tensor | None, training: bool = True,
        key_padding_mask: Tensor | None = None, need_weights: bool = True,
        attn_mask: Tensor | None = None, use_separate_proj_weight: bool = False,
        q_proj_weight: Tensor | None = None, k_proj_weight: Tensor | None = None,
        v_proj_weight: Tensor | None = None, static_k: Tensor | None = None,
        static_v: Tensor | None = None, average_attn_weights: bool = True,
        is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
    """What `nn.MultiheadAttention` computes, with its parameters given: output and weights.

    query `[L, N, E]`, key `[S, N, Ek]`, value `[S, N, Ev]`, or all without the N.  In the masks,
    bools say where not to look; numbers are added.  `key_padding_mask` is `[N, S]`, `attn_mask`
    `[L, S]` or `[N * num_heads, L, S]`.  The weights are `[N, L, S]`, averaged over the heads, or
    `[N, num_heads, L, S]`; None unless `need_weights`.  `static_k` and `static_v`,
    `[N * num_heads, S, E / num_heads]`, stand for keys and values that are already projected.

    Raises AssertionError where shapes do not fit, and RuntimeError for a mask of a wrong shape or
    `is_causal` without a mask.
    """
    batched = _check_heads(query, key, value, key_padding_mask, attn_mask, num_heads)
    same_qk, same_kv = query is key, key is value
    x: Any = query
    keys: Any = key
    values: Any = value
    padding: Any = key_padding_mask
    if not batched:
        x = x.unsqueeze(1)
        keys = x if same_qk else keys.unsqueeze(1)
        values = keys if same_kv else values.unsqueeze(1)
        padding = None if padding is None else padding.unsqueeze(0)
    tgt, n, e = x.shape
    padding = additive_mask(padding, "key_padding_mask", attn_mask, "attn_mask", x)
    if is_causal and attn_mask is None:
        raise RuntimeError("Need attn_mask if specifying the is_causal hint. You may use the "
                           "Transformer module method `generate_square_subsequent_mask` to create "
                           "this mask.")
    mask: Any = None
    if not is_causal or padding is not None or need_weights:
        mask = additive_mask(attn_mask, "attn_mask", None, "", x)
        is_causal = False
    if e != embed_dim_to_check:
        raise AssertionError(f"was expecting embedding dimension of {embed_dim_to_check}, but got "
                             f"{e}")
    width = e // num_heads
    if width * num_heads != e:
        raise AssertionError(f"embed_dim {e} not divisible by num_heads {num_heads}")
    if use_separate_proj_weight and keys.shape[:2] != values.shape[:2]:
        raise AssertionError(f"key's sequence and batch dims {keys.shape[:2]} do not match "
                             f"value's {values.shape[:2]}")
    if not use_separate_proj_weight and keys.shape != values.shape:
        raise AssertionError(f"key shape {keys.shape} does not match value shape {values.shape}")
    apart = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else None
    q, k, v = _projected(x, keys, values, in_proj_weight, in_proj_bias, apart)
    if mask is not None:
        want = (tgt, keys.shape[0]) if mask.ndim == 2 else (n * num_heads, tgt, keys.shape[0])
        if tuple(mask.shape) != want:
            raise RuntimeError(f"The shape of the {mask.ndim}D attn_mask is {mask.shape}, but "
                               f"should be {want}.")
        mask = mask.unsqueeze(0) if mask.ndim == 2 else mask
    more = 0
    if bias_k is not None and bias_v is not None:
        if static_k is not None or static_v is not None:
            which = "key" if static_k is not None else "value"
            raise AssertionError(f"bias cannot be added to static {which}.")
        extra: tuple[Any, Any] = bias_k, bias_v
        k = cat([k, extra[0].expand(1, n, e)], 0)
        v = cat([v, extra[1].expand(1, n, e)], 0)
        more += 1
    elif bias_k is not None or bias_v is not None:
        here, there = ("k", "v") if bias_k is not None else ("v", "k")
        raise AssertionError(f"bias_{here} is set but bias_{there} is None")
    heads = n * num_heads
    q = q.reshape(tgt, heads, width).transpose(0, 1)
    for static, name in ((static_k, "static_k"), (static_v, "static_v")):
        if static is not None:
            _check_static(static, heads, width, name)
    k = k.reshape(k.shape[0], heads, width).transpose(0, 1) if static_k is None else static_k
    v = v.reshape(v.shape[0], heads, width).transpose(0, 1) if static_v is None else static_v
    if add_zero_attn:
        k, v = pad(k, (0, 0, 0, 1)), pad(v, (0, 0, 0, 1))
        more += 1
    if more:
        mask = None if mask is None else pad(mask, (0, more))
        padding = None if padding is None else pad(padding, (0, more))
    src = k.shape[1]
    if is_causal and more:          # what was added may be looked at by all
        mask = pad(additive_mask(attn_mask, "attn_mask", None, "", x), (0, more))
        mask, is_causal = mask if mask.ndim == 3 else mask.unsqueeze(0), False
    mask = _merged_masks(mask, padding, n, num_heads, src)
    p = dropout_p if training else 0.0
    weights: Any = None
    if need_weights:
        out, weights = _weighed(q, k, v, mask, p)
        weights = weights.reshape(n, num_heads, tgt, src)
        weights = weights.mean(dim=1) if average_attn_weights else weights
    else:
        out = scaled_dot_product_attention(q, k, v, mask, p, is_causal)
    out = out.transpose(0, 1).reshape(tgt, n, e)
    out = linear(out, out_proj_weight, out_proj_bias)
    if not batched:
        out = out.squeeze(1)
        weights = None if weights is None else weights.squeeze(0)
    return out, weights
