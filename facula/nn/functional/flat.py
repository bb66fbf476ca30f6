"""What PyTorch has at its top level of `nn.functional`, with the arguments in that order.

`torch.embedding(weight, indices)`, `torch.batch_norm(input, weight, bias, running_mean, ...)`,
losses whose `reduction` is a number, recurrent layers given their weights as a list: the functions
under PyTorch's own.  `nn.functional` is what programs are written with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.nn.functional import conv, norm, pooling, recurrent, regression
from facula.nn.functional import margin as _margin
from facula.nn.functional import sparse as _sparse
from facula.nn.functional.common import shape_of
from facula.nn.functional.dropout import alpha_dropout, dropout, dropout3d, feature_alpha_dropout
from facula.tensor import Tensor

__all__ = ["adaptive_max_pool1d", "alpha_dropout_", "batch_norm",
           "binary_cross_entropy_with_logits", "conv_tbc", "convolution",
           "cosine_embedding_loss", "dropout_", "embedding", "feature_alpha_dropout_",
           "feature_dropout", "feature_dropout_", "gru", "gru_cell", "hinge_embedding_loss",
           "instance_norm", "kl_div", "lstm", "lstm_cell", "margin_ranking_loss",
           "max_pool1d", "max_pool2d", "max_pool3d", "poisson_nll_loss", "rnn_relu",
           "rnn_relu_cell", "rnn_tanh", "rnn_tanh_cell", "triplet_margin_loss"]

_REDUCTIONS = ("none", "mean", "sum")


def _reduction(value: int | str) -> str:
    """The name of a reduction that is given as PyTorch's number for it."""
    if isinstance(value, str):
        return value
    if not 0 <= value < len(_REDUCTIONS):
        raise ValueError(f"{value} is not a valid value for reduction: 0 is 'none', 1 'mean', "
                         "2 'sum'")
    return _REDUCTIONS[value]


# ---------------------------------------------------------------- windows

def max_pool1d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
               dilation: Any = 1, ceil_mode: bool = False) -> Tensor:
    """The largest element of each window of `[N, C, L]`."""
    return pooling.max_pool1d(input, kernel_size, stride or None, padding, dilation,
                              ceil_mode)


def max_pool2d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
               dilation: Any = 1, ceil_mode: bool = False) -> Tensor:
    """The largest element of each window of `[N, C, H, W]`."""
    return pooling.max_pool2d(input, kernel_size, stride or None, padding, dilation,
                              ceil_mode)


def max_pool3d(input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
               dilation: Any = 1, ceil_mode: bool = False) -> Tensor:
    """The largest element of each window of `[N, C, D, H, W]`."""
    return pooling.max_pool3d(input, kernel_size, stride or None, padding, dilation,
                              ceil_mode)


def adaptive_max_pool1d(input: Tensor, output_size: Any) -> tuple[Tensor, Tensor]:
    """(values, indices) of the largest elements of `output_size` windows of `[N, C, L]`."""
    return pooling.adaptive_max_pool1d(input, output_size, True)


def convolution(input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any,
                dilation: Any, transposed: bool, output_padding: Any, groups: int) -> Tensor:
    """The convolution of `[N, C, *]` in as many dimensions as the weight has, or its transpose."""
    d = weight.ndim - 2
    if d not in (1, 2, 3):
        raise RuntimeError("convolution(): the weight has to have 3, 4 or 5 dimensions, got "
                           f"{weight.ndim}")
    if transposed:
        fn = (conv.conv_transpose1d, conv.conv_transpose2d, conv.conv_transpose3d)[d - 1]
        return fn(input, weight, bias, stride, padding, output_padding, groups, dilation)
    straight = (conv.conv1d, conv.conv2d, conv.conv3d)[d - 1]
    return straight(input, weight, bias, stride, padding, dilation, groups)


def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """A convolution along time: `[T, N, C]` with a weight `[K, C, out]`, gives `[T', N, out]`."""
    if input.ndim != 3 or weight.ndim != 3:
        raise RuntimeError("conv_tbc(): input and weight have to have 3 dimensions, got "
                           f"{input.ndim} and {weight.ndim}")
    x: Any = input
    w: Any = weight
    out = conv.conv1d(x.permute(1, 2, 0), w.permute(2, 1, 0), bias, 1, pad)
    return out.permute(2, 0, 1).contiguous()


def embedding(weight: Tensor, indices: Tensor, padding_idx: int = -1,
              scale_grad_by_freq: bool = False, sparse: bool = False) -> Tensor:
    """The rows of `weight` at the indices; `padding_idx` below 0 means none."""
    return _sparse.embedding(indices, weight, padding_idx if padding_idx >= 0 else None,
                             scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)


# ---------------------------------------------------------------- normalisation and dropout

def batch_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None,
               running_mean: Tensor | None, running_var: Tensor | None, training: bool,
               momentum: float, eps: float, cudnn_enabled: bool = False) -> Tensor:
    """`nn.functional.batch_norm`, with its arguments in another order."""
    return norm.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def instance_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None,
                  running_mean: Tensor | None, running_var: Tensor | None,
                  use_input_stats: bool, momentum: float, eps: float,
                  cudnn_enabled: bool = False) -> Tensor:
    """`nn.functional.instance_norm`, with its arguments in another order."""
    return norm.instance_norm(input, running_mean, running_var, weight, bias,
                              use_input_stats, momentum, eps)


def dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`dropout`, overwriting its input."""
    return dropout(input, p, train, True)


def alpha_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`alpha_dropout`, overwriting its input."""
    return alpha_dropout(input, p, train, True)


def feature_alpha_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`feature_alpha_dropout`, overwriting its input."""
    return feature_alpha_dropout(input, p, train, True)


def _whole_channels(input: Tensor, p: float, train: bool, inplace: bool) -> Tensor:
    if input.ndim < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    shape = shape_of(input)
    x: Any = input
    out: Any = dropout3d(x.reshape(*shape[:2], 1, 1, -1), p, train).reshape(shape)
    return x.copy_(out) if inplace else out


def feature_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """Whole channels of `[N, C, *]` set to 0 with probability p, the others divided by 1 - p."""
    return _whole_channels(input, p, train, False)


def feature_dropout_(input: Tensor, p: float, train: bool) -> Tensor:
    """`feature_dropout`, overwriting its input."""
    return _whole_channels(input, p, train, True)


# ---------------------------------------------------------------- losses

def kl_div(input: Tensor, target: Tensor, reduction: int | str = 0, *,
           log_target: bool = False) -> Tensor:
    """`nn.functional.kl_div`; reduction 0 is 'none' (and, as there, the
    default), 1 'mean', 2 'sum', here and below."""
    return regression.kl_div(input, target, reduction=_reduction(reduction),
                             log_target=log_target)


def binary_cross_entropy_with_logits(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                     pos_weight: Tensor | None = None, reduction: int | str = 0
                                     ) -> Tensor:
    """`nn.functional.binary_cross_entropy_with_logits`."""
    return regression.binary_cross_entropy_with_logits(
        input, target, weight, reduction=_reduction(reduction), pos_weight=pos_weight)


def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float,
                     reduction: int | str) -> Tensor:
    """`nn.functional.poisson_nll_loss`."""
    return regression.poisson_nll_loss(input, target, log_input, full, eps=eps,
                                       reduction=_reduction(reduction))


def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
                          reduction: int | str = 0) -> Tensor:
    """`nn.functional.cosine_embedding_loss`."""
    return _margin.cosine_embedding_loss(input1, input2, target, margin,
                                         reduction=_reduction(reduction))


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0,
                         reduction: int | str = 0) -> Tensor:
    """`nn.functional.hinge_embedding_loss`."""
    return _margin.hinge_embedding_loss(input, target, margin,
                                        reduction=_reduction(reduction))


def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0,
                        reduction: int | str = 0) -> Tensor:
    """`nn.functional.margin_ranking_loss`."""
    return _margin.margin_ranking_loss(input1, input2, target, margin,
                                       reduction=_reduction(reduction))


def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0,
                        p: float = 2, eps: float = 1e-6, swap: bool = False,
                        reduction: int | str = 0) -> Tensor:
    """`nn.functional.triplet_margin_loss`."""
    return _margin.triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap,
                                       reduction=_reduction(reduction))


# ---------------------------------------------------------------- recurrent networks

def lstm_cell(input: Tensor, hx: Sequence[Tensor], w_ih: Tensor, w_hh: Tensor,
              b_ih: Tensor | None = None, b_hh: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: the next (h, c) from `input` `[N, in]` and hx = (h, c)."""
    h, c = hx
    return recurrent.lstm_cell(input, h, c, w_ih, w_hh, b_ih, b_hh)


def gru_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
             b_hh: Tensor | None = None) -> Tensor:
    """One step of a GRU: the next state."""
    return recurrent.gru_cell(input, hx, w_ih, w_hh, b_ih, b_hh)


def rnn_tanh_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor,
                  b_ih: Tensor | None = None, b_hh: Tensor | None = None) -> Tensor:
    """One step of an Elman network with tanh."""
    return recurrent.rnn_cell(input, hx, w_ih, w_hh, b_ih, b_hh, False)


def rnn_relu_cell(input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor,
                  b_ih: Tensor | None = None, b_hh: Tensor | None = None) -> Tensor:
    """One step of an Elman network with relu."""
    return recurrent.rnn_cell(input, hx, w_ih, w_hh, b_ih, b_hh, True)


def _network(mode: str, input: Tensor, states: tuple[Tensor, ...], params: Sequence[Tensor],
             has_biases: bool, num_layers: int, p: float, train: bool, bidirectional: bool,
             batch_first: bool) -> tuple[Tensor, ...]:
    """The outputs of the last layer and the last states, given the weights layer by layer.

    `input` is `[T, N, in]`, or `[N, T, in]` with `batch_first`; each state is
    `[num_layers * directions, N, size]`.
    """
    import facula
    directions = 2 if bidirectional else 1
    each = len(params) // (num_layers * directions)
    want = 4 if has_biases else 2
    if each not in (want, want + (mode == "LSTM")) or each * num_layers * directions != len(params):
        raise RuntimeError(f"expected {want} weights for each of {num_layers * directions} layers "
                           f"and directions, got {len(params)} in all")
    x: Any = input.transpose(0, 1) if batch_first else input
    steps, n = shape_of(x)[:2]
    rows: Any = x.reshape(steps * n, -1)
    ended: list[list[Tensor]] = [[] for _ in states]
    for layer in range(num_layers):
        if layer and p and train:
            rows = dropout(rows, p)
        outputs = []
        for direction in range(directions):
            k = layer * directions + direction
            mine: list[Any] = [*params[k * each:(k + 1) * each]]
            biases = mine[2:4] if has_biases else [None, None]
            w_hr = mine[-1] if each > want else None
            found: Any = recurrent.recurrent_layer(
                rows, tuple(s[k] for s in states), mine[0], mine[1], *biases, w_hr, mode,
                (n,) * steps, direction == 1)
            outputs.append(found[0])
            for last, state in zip(ended, found[1:]):
                last.append(state)
        rows = outputs[0] if len(outputs) == 1 else facula.cat(outputs, 1)
    out = rows.reshape(steps, n, rows.shape[1])
    return (out.transpose(0, 1) if batch_first else out,
            *[facula.stack(last) for last in ended])


def lstm(input: Tensor, hx: Sequence[Tensor], params: Sequence[Tensor], has_biases: bool,
         num_layers: int, dropout: float, train: bool, bidirectional: bool, batch_first: bool
         ) -> tuple[Tensor, ...]:
    """(outputs, h, c) of LSTM layers with the weights `params`: w_ih, w_hh, b_ih, b_hh of each."""
    return _network("LSTM", input, tuple(hx), params, has_biases, num_layers, dropout, train,
                    bidirectional, batch_first)


def gru(input: Tensor, hx: Tensor, params: Sequence[Tensor], has_biases: bool, num_layers: int,
        dropout: float, train: bool, bidirectional: bool, batch_first: bool
        ) -> tuple[Tensor, ...]:
    """(outputs, h) of GRU layers, as `lstm`."""
    return _network("GRU", input, (hx,), params, has_biases, num_layers, dropout, train,
                    bidirectional, batch_first)


def rnn_tanh(input: Tensor, hx: Tensor, params: Sequence[Tensor], has_biases: bool,
             num_layers: int, dropout: float, train: bool, bidirectional: bool,
             batch_first: bool) -> tuple[Tensor, ...]:
    """(outputs, h) of Elman layers with tanh, as `lstm`."""
    return _network("RNN_TANH", input, (hx,), params, has_biases, num_layers, dropout, train,
                    bidirectional, batch_first)


def rnn_relu(input: Tensor, hx: Tensor, params: Sequence[Tensor], has_biases: bool,
             num_layers: int, dropout: float, train: bool, bidirectional: bool,
             batch_first: bool) -> tuple[Tensor, ...]:
    """(outputs, h) of Elman layers with relu, as `lstm`."""
    return _network("RNN_RELU", input, (hx,), params, has_biases, num_layers, dropout, train,
                    bidirectional, batch_first)

