"""MultiheadAttention: attention with several learned projections side by side."""

from __future__ import annotations

from typing import Any

from facula.nn import functional as F
from facula.nn import init
from facula.nn.modules.linear import NonDynamicallyQuantizableLinear
from facula.nn.modules.make import empty
from facula.nn.modules.module import Module
from facula.nn.parameter import Parameter
from facula.tensor import Tensor

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Module):
    """`num_heads` attentions in parallel, their results joined (Vaswani et al. 2017).

    embed_dim, num_heads   width of queries and output; each head has embed_dim / num_heads of it
    dropout                the probability with which weights are dropped while training
    add_bias_kv            a learned key and value after the others; add_zero_attn: one of zeros
    kdim, vdim             widths of keys and values, embed_dim by default
    batch_first            `[N, L, E]` instead of `[L, N, E]`

    ValueError for sizes that are not positive, AssertionError where the heads do not divide
    embed_dim.
    """

    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
                 add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
                 vdim: int | None = None, batch_first: bool = False, device: Any = None,
                 dtype: Any = None) -> None:
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError("embed_dim and num_heads must be greater than 0, got embed_dim="
                             f"{embed_dim} and num_heads={num_heads} instead")
        super().__init__()
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        if self.head_dim * num_heads != embed_dim:
            raise AssertionError("embed_dim must be divisible by num_heads")
        apart = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        if self._qkv_same_embed_dim:
            self.in_proj_weight = Parameter(empty((3 * embed_dim, embed_dim), dtype, device))
            for name in apart:
                self.register_parameter(name, None)
        else:
            for name, width in zip(apart, (embed_dim, self.kdim, self.vdim)):
                setattr(self, name, Parameter(empty((embed_dim, width), dtype, device)))
            self.register_parameter("in_proj_weight", None)
        if bias:
            self.in_proj_bias = Parameter(empty((3 * embed_dim,), dtype, device))
        else:
            self.register_parameter("in_proj_bias", None)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias, device, dtype)
        if add_bias_kv:
            self.bias_k = Parameter(empty((1, 1, embed_dim), dtype, device))
            self.bias_v = Parameter(empty((1, 1, embed_dim), dtype, device))
        else:
            self.bias_k = self.bias_v = None
        self.add_zero_attn = add_zero_attn
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Draw the projections anew; the biases become 0."""
        if self._qkv_same_embed_dim:
            init.xavier_uniform_(self.in_proj_weight)
        else:
            for weight in (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor,
                key_padding_mask: Tensor | None = None, need_weights: bool = True,
                attn_mask: Tensor | None = None, average_attn_weights: bool = True,
                is_causal: bool = False) -> tuple[Tensor, Tensor | None]:
        """The output, shaped as the query, and the weights (None unless `need_weights`)."""
        turn = self.batch_first and query.ndim == 3
        q: Any = query
        k: Any = key
        v: Any = value
        if turn:
            # One tensor stays one tensor: its projections are then a single product.
            same_qk, same_kv = q is k, k is v
            q = q.transpose(0, 1)
            k = q if same_qk else k.transpose(0, 1)
            v = k if same_kv else v.transpose(0, 1)
        out: Any
        out, weights = F.multi_head_attention_forward(
            q, k, v, self.embed_dim, self.num_heads, self.in_proj_weight, self.in_proj_bias,
            self.bias_k, self.bias_v, self.add_zero_attn, self.dropout, self.out_proj.weight,
            self.out_proj.bias, training=self.training, key_padding_mask=key_padding_mask,
            need_weights=need_weights, attn_mask=attn_mask,
            use_separate_proj_weight=not self._qkv_same_embed_dim,
            q_proj_weight=self.q_proj_weight, k_proj_weight=self.k_proj_weight,
            v_proj_weight=self.v_proj_weight, average_attn_weights=average_attn_weights,
            is_causal=is_causal)
        return (out.transpose(0, 1) if turn else out), weights
