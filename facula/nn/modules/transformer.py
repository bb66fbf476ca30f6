"""The Transformer: encoder and decoder layers, stacks of them, and both together."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

from facula.nn import functional as F
from facula.nn import init
from facula.nn.functional.attention import additive_mask
from facula.nn.modules.activation import GELU, ReLU
from facula.nn.modules.attention import MultiheadAttention
from facula.nn.modules.container import ModuleList
from facula.nn.modules.dropout import Dropout
from facula.nn.modules.linear import Linear
from facula.nn.modules.module import Module
from facula.nn.modules.normalization import LayerNorm
from facula.tensor import Tensor

__all__ = ["Transformer", "TransformerEncoder", "TransformerDecoder", "TransformerEncoderLayer",
           "TransformerDecoderLayer"]

Activation = str | Callable[[Tensor], Tensor]


def _get_activation_fn(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    if given not in ("relu", "gelu"):
        raise RuntimeError(f"activation should be relu/gelu, not {given}")
    return F.relu if given == "relu" else F.gelu


def _causal(size: int, device: Any = None, dtype: Any = None) -> Any:
    """-infinity above the diagonal, 0 elsewhere."""
    import facula
    full = facula.full((size, size), float("-inf"), dtype=dtype, device=device)
    return facula.triu(full, diagonal=1)        # type: ignore[attr-defined]


def _is_causal(mask: Any, given: bool | None, size: int) -> bool:
    """Whether the mask is the causal one; looked up only if that is not said."""
    if given is not None or mask is None:
        return given is True
    if mask.dtype.kind != "f" or tuple(mask.shape) != (size, size):
        return False
    return bool((mask == _causal(size, dtype=mask.dtype)).all())


def _length(x: Tensor, batch_first: bool) -> int:
    return int(x.shape[1 if batch_first and x.ndim == 3 else 0])


def _get_clones(module: Module, count: int) -> ModuleList:
    return ModuleList([copy.deepcopy(module) for _ in range(count)])


class TransformerEncoderLayer(Module):
    """Self-attention and a feed-forward network, each with a residual and a LayerNorm.

    Input and output `[S, N, d_model]`, with `batch_first` `[N, S, d_model]`.  `norm_first` puts
    the normalisation before each part instead of after it (Xiong et al. 2020).  `activation` is
    'relu', 'gelu' or a function; another string raises RuntimeError.
    """

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048,
                 dropout: float = 0.1, activation: Activation = F.relu,
                 layer_norm_eps: float = 1e-5, batch_first: bool = False,
                 norm_first: bool = False, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias,
                                            batch_first=batch_first, device=device, dtype=dtype)
        self.linear1 = Linear(d_model, dim_feedforward, bias, device, dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, device, dtype)
        self.norm_first = norm_first
        norm = {"eps": layer_norm_eps, "bias": bias, "device": device, "dtype": dtype}
        self.norm1 = LayerNorm(d_model, **norm)         # type: ignore[arg-type]
        self.norm2 = LayerNorm(d_model, **norm)         # type: ignore[arg-type]
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = _get_activation_fn(activation)

    def forward(self, src: Tensor, src_mask: Tensor | None = None,
                src_key_padding_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """`src` after both parts; the masks are those of `MultiheadAttention`."""
        padding = additive_mask(src_key_padding_mask, "src_key_padding_mask", src_mask,
                                "src_mask", src)
        mask = additive_mask(src_mask, "src_mask", None, "", src)
        x: Any = src
        if self.norm_first:
            x = x + self._sa_block(self.norm1(x), mask, padding, is_causal)
            return x + self._ff_block(self.norm2(x))        # type: ignore[no-any-return]
        x = self.norm1(x + self._sa_block(x, mask, padding, is_causal))
        return self.norm2(x + self._ff_block(x))            # type: ignore[no-any-return]

    def _sa_block(self, x: Tensor, mask: Tensor | None, padding: Tensor | None,
                  is_causal: bool = False) -> Any:
        x = self.self_attn(x, x, x, attn_mask=mask, key_padding_mask=padding,
                           need_weights=False, is_causal=is_causal)[0]
        return self.dropout1(x)

    def _ff_block(self, x: Tensor) -> Any:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))


class TransformerDecoderLayer(Module):
    """Self-attention, attention to the encoder's output (`memory`), and a feed-forward network.

    Arguments as for `TransformerEncoderLayer`.
    """

    def __init__(self, d_model: int, nhead: int, dim_feedforward: int = 2048,
                 dropout: float = 0.1, activation: Activation = F.relu,
                 layer_norm_eps: float = 1e-5, batch_first: bool = False,
                 norm_first: bool = False, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        attention = {"batch_first": batch_first, "device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias,
                                            **attention)            # type: ignore[arg-type]
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout, bias,
                                                 **attention)       # type: ignore[arg-type]
        self.linear1 = Linear(d_model, dim_feedforward, bias, device, dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, device, dtype)
        self.norm_first = norm_first
        norm = {"eps": layer_norm_eps, "bias": bias, "device": device, "dtype": dtype}
        self.norm1 = LayerNorm(d_model, **norm)         # type: ignore[arg-type]
        self.norm2 = LayerNorm(d_model, **norm)         # type: ignore[arg-type]
        self.norm3 = LayerNorm(d_model, **norm)         # type: ignore[arg-type]
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation = _get_activation_fn(activation)

    def forward(self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None,
                memory_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
                memory_key_padding_mask: Tensor | None = None, tgt_is_causal: bool = False,
                memory_is_causal: bool = False) -> Tensor:
        """`tgt` after the three parts."""
        x: Any = tgt
        own = (tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        other = (memory_mask, memory_key_padding_mask, memory_is_causal)
        if self.norm_first:
            x = x + self._sa_block(self.norm1(x), *own)
            x = x + self._mha_block(self.norm2(x), memory, *other)
            return x + self._ff_block(self.norm3(x))        # type: ignore[no-any-return]
        x = self.norm1(x + self._sa_block(x, *own))
        x = self.norm2(x + self._mha_block(x, memory, *other))
        return self.norm3(x + self._ff_block(x))            # type: ignore[no-any-return]

    def _sa_block(self, x: Tensor, mask: Tensor | None, padding: Tensor | None,
                  is_causal: bool = False) -> Any:
        x = self.self_attn(x, x, x, attn_mask=mask, key_padding_mask=padding,
                           is_causal=is_causal, need_weights=False)[0]
        return self.dropout1(x)

    def _mha_block(self, x: Tensor, memory: Tensor, mask: Tensor | None,
                   padding: Tensor | None, is_causal: bool = False) -> Any:
        x = self.multihead_attn(x, memory, memory, attn_mask=mask, key_padding_mask=padding,
                                is_causal=is_causal, need_weights=False)[0]
        return self.dropout2(x)

    def _ff_block(self, x: Tensor) -> Any:
        return self.dropout3(self.linear2(self.dropout(self.activation(self.linear1(x)))))


def _why_not_nested(layer: Any) -> str:
    """Why PyTorch would not pack the sequences of this layer, or nothing."""
    if not isinstance(layer, TransformerEncoderLayer):
        return "encoder_layer was not TransformerEncoderLayer"
    if layer.norm_first:
        return "encoder_layer.norm_first was True"
    attention = layer.self_attn
    if not attention.batch_first:
        return ("encoder_layer.self_attn.batch_first was not True"
                "(use batch_first for better inference performance)")
    if attention.in_proj_bias is None:
        return "encoder_layer.self_attn was passed bias=False"
    if layer.activation not in (F.relu, F.gelu) \
            and not isinstance(layer.activation, (ReLU, GELU)):
        return "encoder_layer.activation_relu_or_gelu was not True"
    if attention.num_heads % 2:
        return "encoder_layer.self_attn.num_heads is odd"
    return ""


class TransformerEncoder(Module):
    """`num_layers` copies of `encoder_layer`, one after the other, then `norm`.

    `enable_nested_tensor` and `mask_check` are taken for compatibility: facula computes padded
    positions as all others, so that they change no result that counts.
    """

    def __init__(self, encoder_layer: TransformerEncoderLayer, num_layers: int,
                 norm: Module | None = None, enable_nested_tensor: bool = True,
                 mask_check: bool = True) -> None:
        super().__init__()
        self.layers = _get_clones(encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm
        self.enable_nested_tensor = enable_nested_tensor
        self.mask_check = mask_check
        why_not = _why_not_nested(encoder_layer)
        if enable_nested_tensor and why_not:
            warnings.warn("enable_nested_tensor is True, but self.use_nested_tensor is False "
                          f"because {why_not}", stacklevel=2)
        self.use_nested_tensor = enable_nested_tensor and not why_not

    def forward(self, src: Tensor, mask: Tensor | None = None,
                src_key_padding_mask: Tensor | None = None, is_causal: bool | None = None
                ) -> Tensor:
        """`src` after all layers; whether `mask` is causal is looked up if it is not said."""
        padding = additive_mask(src_key_padding_mask, "src_key_padding_mask", mask, "mask", src)
        added = additive_mask(mask, "mask", None, "", src)
        first: Any = self.layers[0]
        causal = _is_causal(added, is_causal, _length(src, first.self_attn.batch_first))
        x: Any = src
        for layer in self.layers:
            x = layer(x, src_mask=added, is_causal=causal, src_key_padding_mask=padding)
        return x if self.norm is None else self.norm(x)     # type: ignore[no-any-return]


class TransformerDecoder(Module):
    """`num_layers` copies of `decoder_layer`, one after the other, then `norm`."""

    def __init__(self, decoder_layer: TransformerDecoderLayer, num_layers: int,
                 norm: Module | None = None) -> None:
        super().__init__()
        self.layers = _get_clones(decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None,
                memory_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
                memory_key_padding_mask: Tensor | None = None,
                tgt_is_causal: bool | None = None, memory_is_causal: bool = False) -> Tensor:
        """`tgt` after all layers, each of which attends to `memory`."""
        first: Any = self.layers[0]
        causal = _is_causal(tgt_mask, tgt_is_causal, _length(tgt, first.self_attn.batch_first))
        x: Any = tgt
        for layer in self.layers:
            x = layer(x, memory, tgt_mask=tgt_mask, memory_mask=memory_mask,
                      tgt_key_padding_mask=tgt_key_padding_mask,
                      memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=causal,
                      memory_is_causal=memory_is_causal)
        return x if self.norm is None else self.norm(x)     # type: ignore[no-any-return]


class Transformer(Module):
    """An encoder of `src` and a decoder of `tgt` that attends to it (Vaswani et al. 2017).

    src `[S, N, d_model]`, tgt and output `[T, N, d_model]`; with `batch_first` N comes first.
    `custom_encoder` and `custom_decoder` stand in for the two stacks.  RuntimeError where the
    batches or the widths differ.
    """

    def __init__(self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6,
                 num_decoder_layers: int = 6, dim_feedforward: int = 2048,
                 dropout: float = 0.1, activation: Activation = F.relu,
                 custom_encoder: Any = None, custom_decoder: Any = None,
                 layer_norm_eps: float = 1e-5, batch_first: bool = False,
                 norm_first: bool = False, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        parts = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps,
                 batch_first, norm_first, bias, device, dtype)
        norm = {"eps": layer_norm_eps, "bias": bias, "device": device, "dtype": dtype}
        if custom_encoder is None:
            custom_encoder = TransformerEncoder(
                TransformerEncoderLayer(*parts), num_encoder_layers,
                LayerNorm(d_model, **norm))             # type: ignore[arg-type]
        self.encoder = custom_encoder
        if custom_decoder is None:
            custom_decoder = TransformerDecoder(
                TransformerDecoderLayer(*parts), num_decoder_layers,
                LayerNorm(d_model, **norm))             # type: ignore[arg-type]
        self.decoder = custom_decoder
        self._reset_parameters()
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first

    def forward(self, src: Tensor, tgt: Tensor, src_mask: Tensor | None = None,
                tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
                src_key_padding_mask: Tensor | None = None,
                tgt_key_padding_mask: Tensor | None = None,
                memory_key_padding_mask: Tensor | None = None,
                src_is_causal: bool | None = None, tgt_is_causal: bool | None = None,
                memory_is_causal: bool = False) -> Tensor:
        """`tgt` decoded, attending to `src` encoded."""
        batch = 0 if self.batch_first else 1
        if src.ndim == 3 and src.shape[batch] != tgt.shape[batch]:
            raise RuntimeError("the batch number of src and tgt must be equal")
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise RuntimeError("the feature number of src and tgt must be equal to d_model")
        memory = self.encoder(src, mask=src_mask, src_key_padding_mask=src_key_padding_mask,
                              is_causal=src_is_causal)
        out: Tensor = self.decoder(
            tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal)
        return out

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None
                                        ) -> Tensor:
        """The causal mask `[sz, sz]`: -infinity above the diagonal, 0 elsewhere."""
        mask: Tensor = _causal(sz, device, dtype)
        return mask

    def _reset_parameters(self) -> None:
        """Draw all matrices from Glorot's uniform distribution."""
        for p in self.parameters():
            if p.ndim > 1:
                init.xavier_uniform_(p)
