"""Recurrent layers, RNN, LSTM and GRU, and single steps of them."""

from __future__ import annotations

import math
import numbers
import warnings
from itertools import groupby
from typing import Any

from facula.graph.record import recorder
from facula.nn import functional as F
from facula.nn import init
from facula.nn.functional.recurrent import (
    CHUNKS,
    gru_cell,
    lstm_cell,
    recurrent_layers,
    rnn_cell,
)
from facula.nn.modules.make import empty, zeros
from facula.nn.modules.module import Module
from facula.nn.parameter import Parameter
from facula.nn.utils.rnn import PackedSequence
from facula.tensor import Tensor

__all__ = ["RNNBase", "RNN", "LSTM", "GRU", "RNNCellBase", "RNNCell", "LSTMCell", "GRUCell"]


def _draw(module: Module, hidden_size: int) -> None:
    bound = 1.0 / math.sqrt(hidden_size) if hidden_size > 0 else 0
    for weight in module.parameters():
        init.uniform_(weight, -bound, bound)


def _check_sizes(options: dict[str, Any]) -> None:
    """The TypeErrors and ValueErrors of sizes and switches that cannot be."""
    dropout = options["dropout"]
    if not isinstance(dropout, numbers.Real) or isinstance(dropout, bool) or not 0 <= dropout <= 1:
        raise ValueError("dropout should be a number in range [0, 1] representing the probability "
                         "of an element being zeroed")
    for name in ("bias", "batch_first"):
        if not isinstance(options[name], bool):
            raise TypeError(f"{name} should be of type bool, got: {type(options[name]).__name__}")
    for name in ("input_size", "hidden_size"):
        if not isinstance(options[name], int):
            raise TypeError(f"{name} should be of type int, got: {type(options[name]).__name__}")
        if options[name] <= 0:
            raise ValueError(f"{name} must be greater than zero")
    if options["num_layers"] <= 0:
        raise ValueError("num_layers must be greater than zero")
    if options["proj_size"] < 0:
        raise ValueError("proj_size should be a positive integer or zero to disable projections")
    if options["proj_size"] >= options["hidden_size"]:
        raise ValueError("proj_size has to be smaller than hidden_size")


class RNNBase(Module):
    """What RNN, LSTM and GRU share.

    input_size, hidden_size   widths of the input and of the state
    num_layers                layers, each of which reads the outputs of the one before
    bias                      whether there are `bias_ih` and `bias_hh`
    batch_first               `[N, T, *]` instead of `[T, N, *]`
    dropout                   probability of dropout between layers while training
    bidirectional             a second direction, from the end to the start
    proj_size                 width to which an LSTM projects its output; 0 for none

    Weights are drawn from U(-k, k), k = hidden_size**-0.5.
    """

    def __init__(self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1,
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
                 bidirectional: bool = False, proj_size: int = 0, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        _check_sizes({"dropout": dropout, "bias": bias, "batch_first": batch_first,
                      "input_size": input_size, "hidden_size": hidden_size,
                      "num_layers": num_layers, "proj_size": proj_size})
        if dropout > 0 and num_layers == 1:
            warnings.warn("dropout option adds dropout after all but last recurrent layer, so "
                          "non-zero dropout expects num_layers greater than 1, but got "
                          f"dropout={dropout} and num_layers={num_layers}", stacklevel=3)
        if mode not in CHUNKS:
            raise ValueError("Unrecognized RNN mode: " + mode)
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        rows, out = CHUNKS[mode] * hidden_size, proj_size or hidden_size
        self._all_weights: list[list[str]] = []
        for layer in range(num_layers):
            width = input_size if layer == 0 else out * self._directions
            for direction in range(self._directions):
                shapes = {"weight_ih": (rows, width), "weight_hh": (rows, out)}
                if bias:
                    shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}  # type: ignore[dict-item]
                if proj_size:
                    shapes["weight_hr"] = (proj_size, hidden_size)
                end = f"_l{layer}{'_reverse' if direction else ''}"
                for name, shape in shapes.items():
                    setattr(self, name + end, Parameter(empty(shape, dtype, device)))
                self._all_weights.append([name + end for name in shapes])
        self.reset_parameters()

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters, a list for each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def flatten_parameters(self) -> None:
        """Does nothing: facula places the weights where it computes with them."""

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        _draw(self, self.hidden_size)

    def check_input(self, input: Tensor, batch_sizes: Any) -> None:
        """Raise ValueError for a wrong dtype, RuntimeError for a wrong shape."""
        weight = getattr(self, self._all_weights[0][0])
        if input.dtype is not weight.dtype and recorder().amp is None:
            raise ValueError(f"RNN input dtype ({input.dtype}) does not match weight dtype "
                             f"({weight.dtype}). Convert input: input.to({weight.dtype}), or "
                             f"convert model: model.to({input.dtype})")
        want = 3 if batch_sizes is None else 2
        if input.ndim != want:
            raise RuntimeError(f"input must have {want} dimensions, got {input.ndim}")
        if input.shape[-1] != self.input_size:
            raise RuntimeError("input.size(-1) must be equal to input_size. Expected "
                               f"{self.input_size}, got {input.shape[-1]}")

    def _weights(self, index: int) -> tuple[Any, ...]:
        """w_ih, w_hh, b_ih, b_hh, w_hr of a layer and direction; None for those it lacks."""
        layer, backward = divmod(index, self._directions)
        end = f"_l{layer}{'_reverse' if backward else ''}"
        have = self._parameters
        return tuple(have.get(name + end) for name in ("weight_ih", "weight_hh", "bias_ih",
                                                       "bias_hh", "weight_hr"))

    def _check_states(self, states: tuple[Any, ...], n: int) -> None:
        count = self.num_layers * self._directions
        widths = (self.proj_size or self.hidden_size, self.hidden_size)
        for k, (state, width) in enumerate(zip(states, widths)):
            want = (count, n, width)
            if tuple(state.shape) != want:
                which = f"hidden[{k}]" if self.mode == "LSTM" else "hidden"
                raise RuntimeError(f"Expected {which} size {want}, got {list(state.shape)}")

    def _check_state_dims(self, states: tuple[Any, ...], batched: bool) -> None:
        want, kind = (3, "batched 3-D") if batched else (2, "unbatched 2-D")
        have = [s.ndim for s in states]
        if all(d == want for d in have):
            return
        if self.mode == "LSTM":
            raise RuntimeError(f"For {kind} input, hx and cx should also be {want}-D but got "
                               f"({have[0]}-D, {have[1]}-D) tensors")
        raise RuntimeError(f"For {kind} input, hx should also be {want}-D but got {have[0]}-D "
                           "tensor")

    def _run(self, data: Any, states: tuple[Any, ...] | None, runs: tuple[tuple[int, int], ...],
             first: bool = False) -> tuple[Any, tuple[Any, ...]]:
        """All layers: the outputs of the last, as `recurrent_layers` gives them, and the last
        states of all; with `first` the batch comes first in `data`."""
        import facula
        each = self._directions
        weights = tuple([self._weights(k) for k in range(self.num_layers * each)])
        if not (self.dropout and self.training):
            out, *last = recurrent_layers(data, states, weights, self.mode, runs, each, first)
            return out, tuple(last)
        found: list[Any] = []
        for k in range(0, len(weights), each):
            mine = None if states is None else tuple([s[k:k + each] for s in states])
            data, *last = recurrent_layers(F.dropout(data, self.dropout) if k else data, mine,
                                           weights[k:k + each], self.mode, runs, each,
                                           first and not k)
            found.append(last)
        return data, tuple([facula.cat(parts) for parts in zip(*found)])   # type: ignore

    def _given(self, hx: Any) -> tuple[Any, ...] | None:
        if hx is None:
            return None
        return tuple(hx) if self.mode == "LSTM" else (hx,)

    def _packed(self, input: PackedSequence, hx: Any) -> tuple[Any, tuple[Any, ...]]:
        data, batch_sizes, order, back = input
        sizes = tuple(int(n) for n in batch_sizes.numpy())
        states = self._given(hx)
        if states is not None and order is not None:
            states = tuple(s.index_select(1, order) for s in states)
        self.check_input(data, batch_sizes)
        if states is not None:
            self._check_states(states, sizes[0])
        runs = tuple([(n, len(list(same))) for n, same in groupby(sizes)])
        out, last = self._run(data, states, runs)
        if back is not None:
            last = tuple(s.index_select(1, back) for s in last)
        return PackedSequence(out, batch_sizes, order, back), last

    def _padded(self, input: Tensor, hx: Any) -> tuple[Any, tuple[Any, ...]]:
        if input.ndim not in (2, 3):
            raise ValueError(f"{self._get_name()}: Expected input to be 2D or 3D, got "
                             f"{input.ndim}D instead")
        x: Any = input
        batched = x.ndim == 3
        states = self._given(hx)
        if states is not None:
            self._check_state_dims(states, batched)
        if not batched:
            x = x.unsqueeze(1)
            states = None if states is None else tuple(s.unsqueeze(1) for s in states)
        steps, n = x.shape[:2]
        if batched and self.batch_first:
            steps, n = n, steps
        self.check_input(x, None)
        if states is not None:
            self._check_states(states, n)
        if steps == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        out, last = self._run(x, states, ((n, steps),), batched and self.batch_first)
        if not batched:
            return out.squeeze(1), tuple(s.squeeze(1) for s in last)
        return (out.transpose(0, 1) if self.batch_first else out), last

    def forward(self, input: Any, hx: Any = None) -> Any:
        """The outputs of the last layer at every step, and the last state of every layer.

        input  `[T, N, input_size]`, `[N, T, input_size]` with `batch_first`, `[T, input_size]`,
               or a `PackedSequence`; the outputs come in the same form
        hx     the first state, `[num_layers * directions, N, hidden_size]`, zeros by default; an
               LSTM has a pair of them
        """
        packed = isinstance(input, PackedSequence)
        out, last = self._packed(input, hx) if packed else self._padded(input, hx)
        return out, (last if self.mode == "LSTM" else last[0])

    def extra_repr(self) -> str:
        s = f"{self.input_size}, {self.hidden_size}"
        for name, usual in (("proj_size", 0), ("num_layers", 1), ("bias", True),
                            ("batch_first", False), ("dropout", 0), ("bidirectional", False)):
            value = getattr(self, name)
            if value != usual:
                s += f", {name}={value}"
        return s


class RNN(RNNBase):
    """Elman's network: `h = tanh(W_ih x + b_ih + W_hh h + b_hh)`, or with relu.

    `output, h = rnn(input, h0)`, of the shapes that an `LSTM` has without `proj_size`.
    Arguments as `RNNBase`, with `nonlinearity`, 'tanh' or 'relu', after `num_layers`.  ValueError
    for another one.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1,
                 nonlinearity: str = "tanh", bias: bool = True, batch_first: bool = False,
                 dropout: float = 0.0, bidirectional: bool = False, device: Any = None,
                 dtype: Any = None, **kwargs: Any) -> None:
        _no_projection(kwargs)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or "
                             "'relu'.")
        super().__init__(f"RNN_{nonlinearity.upper()}", input_size, hidden_size, num_layers, bias,
                         batch_first, dropout, bidirectional, 0, device, dtype)
        self.nonlinearity = nonlinearity


def _no_projection(kwargs: dict[str, Any]) -> None:
    if "proj_size" in kwargs:
        raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
    if kwargs:
        raise TypeError(f"__init__() got an unexpected keyword argument '{next(iter(kwargs))}'")


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber 1997); the gates are i, f, g, o.

    `output, (h, c) = lstm(input, (h0, c0))`; without the states they are zero.

    input    `[T, N, input_size]`, without a batch `[T, input_size]`, or a PackedSequence
    output   `[T, N, D * H]`, D being 2 if `bidirectional`, H `proj_size` or else `hidden_size`
    h, c     `[D * num_layers, N, H]` and `[D * num_layers, N, hidden_size]`, at the last step

    With `batch_first` N comes first in input and output.  Other arguments as for `RNNBase`.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1,
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
                 bidirectional: bool = False, proj_size: int = 0, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__("LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout,
                         bidirectional, proj_size, device, dtype)


class GRU(RNNBase):
    """Gated recurrent units (Cho et al. 2014); the gates are r, z, n.

    `output, h = gru(input, h0)`, of the shapes that an `LSTM` has without `proj_size`; arguments
    as for `RNNBase`.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1,
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
                 bidirectional: bool = False, device: Any = None, dtype: Any = None,
                 **kwargs: Any) -> None:
        _no_projection(kwargs)
        super().__init__("GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout,
                         bidirectional, 0, device, dtype)


# ---------------------------------------------------------------- single steps

class RNNCellBase(Module):
    """What the cells share: the weights of one step."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool, num_chunks: int,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = num_chunks * hidden_size
        self.weight_ih = Parameter(empty((rows, input_size), dtype, device))
        self.weight_hh = Parameter(empty((rows, hidden_size), dtype, device))
        for name in ("bias_ih", "bias_hh"):
            if bias:
                setattr(self, name, Parameter(empty((rows,), dtype, device)))
            else:
                self.register_parameter(name, None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        _draw(self, self.hidden_size)

    def extra_repr(self) -> str:
        s = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            s += f", bias={self.bias}"
        if getattr(self, "nonlinearity", "tanh") != "tanh":
            s += f", nonlinearity={self.nonlinearity}"
        return s

    def _ready(self, input: Any, states: tuple[Any, ...] | None, count: int, what: str
               ) -> tuple[Any, tuple[Any, ...], bool]:
        """Input and states with a batch dimension, and whether the input had one."""
        name = self._get_name()
        if input.ndim not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.ndim}D instead")
        for k, state in enumerate(states or ()):
            if state.ndim not in (1, 2):
                raise ValueError(f"{name}: Expected {what.format(k)} to be 1D or 2D, got "
                                 f"{state.ndim}D instead")
        batched = input.ndim == 2
        if not batched:
            input = input.unsqueeze(0)
            states = None if states is None else tuple(s.unsqueeze(0) for s in states)
        if states is None:
            states = (zeros((input.shape[0], self.hidden_size), input.dtype),) * count
        if input.shape[1] != self.input_size:
            raise RuntimeError(f"input has inconsistent input_size: got {input.shape[1]} expected "
                               f"{self.input_size}")
        for k, state in enumerate(states):
            if state.shape[0] != input.shape[0]:
                raise RuntimeError(f"Input batch size {input.shape[0]} doesn't match hidden{k} "
                                   f"batch size {state.shape[0]}")
            if state.shape[1] != self.hidden_size:
                raise RuntimeError(f"hidden{k} has inconsistent hidden_size: got "
                                   f"{state.shape[1]}, expected {self.hidden_size}")
        return input, states, batched


class RNNCell(RNNCellBase):
    """One step of an Elman network: input `[N, input_size]`, state `[N, hidden_size]`.

    RuntimeError for a `nonlinearity` other than 'tanh' and 'relu'.
    """

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True,
                 nonlinearity: str = "tanh", device: Any = None, dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next state."""
        x, (h,), batched = self._ready(input, None if hx is None else (hx,), 1, "hidden")
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        out: Any = rnn_cell(x, h, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh,
                            self.nonlinearity == "relu")
        return out if batched else out.squeeze(0)       # type: ignore[no-any-return]


class LSTMCell(RNNCellBase):
    """One step of an LSTM: the state is a pair of `[N, hidden_size]`, output and cell."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
                ) -> tuple[Tensor, Tensor]:
        """The next state."""
        x, (h, c), batched = self._ready(input, None if hx is None else tuple(hx), 2, "hx[{}]")
        out: Any = lstm_cell(x, h, c, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return out if batched else (out[0].squeeze(0), out[1].squeeze(0))   # type: ignore


class GRUCell(RNNCellBase):
    """One step of a GRU: input `[N, input_size]`, state `[N, hidden_size]`."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next state."""
        x, (h,), batched = self._ready(input, None if hx is None else (hx,), 1, "hidden")
        out: Any = gru_cell(x, h, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        return out if batched else out.squeeze(0)       # type: ignore[no-any-return]
