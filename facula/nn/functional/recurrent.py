"""What the recurrent layers compute: one step, and one layer over whole sequences.

Sequences come packed: the rows of all steps, one step after the other, with `sizes[t]` rows at
step t, which never grow with t.  Sequences of one length are the case of equal sizes.
"""

from __future__ import annotations

from typing import Any

from facula.nn.functional.common import number, shape_of
from facula.nn.functional.linear import linear
from facula.ops.define import op
from facula.ops.primitive.rules import cat
from facula.tensor import Tensor, prim

__all__ = ["CHUNKS", "lstm_cell", "gru_cell", "rnn_cell", "recurrent_layer"]

CHUNKS = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
"""How many gates each kind has, and so how many hidden sizes its weights are high."""


def _part(x: Tensor, axis: int, start: int, length: int) -> Tensor:
    """`length` rows (axis 0) or columns (axis 1) of a matrix."""
    shape = list(shape_of(x))
    if start == 0 and length == shape[axis]:
        return x
    shape[axis] = length
    starts = (start, 0) if axis == 0 else (0, start)
    return prim("slice", x, attrs=(starts, (1, 1)), shape=tuple(shape))


def _gates(x: Tensor, count: int) -> list[Tensor]:
    width = shape_of(x)[1] // count
    return [_part(x, 1, k * width, width) for k in range(count)]


def _lstm(given: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000."""
    i, f, g, o = _gates(prim("add", given, hidden), 4)
    kept = prim("mul", prim("sigmoid", f), cell)
    cell = prim("add", kept, prim("mul", prim("sigmoid", i), prim("tanh", g)))
    return prim("mul", prim("sigmoid", o), prim("tanh", cell)), cell


def _gru(given: Tensor, hidden: Tensor, h: Tensor) -> Tensor:
    """Cho et al. 2014, with the reset after the product, as in PyTorch."""
    (gr, gz, gn), (hr, hz, hn) = _gates(given, 3), _gates(hidden, 3)
    r = prim("sigmoid", prim("add", gr, hr))
    z = prim("sigmoid", prim("add", gz, hz))
    n = prim("tanh", prim("add", gn, prim("mul", r, hn)))
    return prim("add", n, prim("mul", z, prim("sub", h, n)))


def _simple(given: Tensor, hidden: Tensor, relu: bool) -> Tensor:
    """Elman 1990."""
    x = prim("add", given, hidden)
    if not relu:
        return prim("tanh", x)
    zero = number(x, 0)
    return prim("where", prim("le", x, zero), zero, x)      # NaN stays, and 0 has gradient 0


@op(register=False)
def lstm_cell(x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None,
              b_hh: Tensor | None) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: x `[N, in]`, h and c `[N, hidden]`, the next h and c."""
    a: Any = linear(x, w_ih, b_ih)
    b: Any = linear(h, w_hh, b_hh)
    return _lstm(a, b, c)


@op(register=False)
def gru_cell(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None,
             b_hh: Tensor | None) -> Tensor:
    """One step of a GRU."""
    a: Any = linear(x, w_ih, b_ih)
    b: Any = linear(h, w_hh, b_hh)
    return _gru(a, b, h)


@op(register=False)
def rnn_cell(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None,
             b_hh: Tensor | None, relu: bool) -> Tensor:
    """One step of an Elman network."""
    a: Any = linear(x, w_ih, b_ih)
    b: Any = linear(h, w_hh, b_hh)
    return _simple(a, b, relu)


def _joined(parts: list[Tensor]) -> Tensor:
    return cat(parts, 0) if len(parts) > 1 else parts[0]      # type: ignore[no-any-return]


@op(register=False)
def recurrent_layer(data: Tensor, start: tuple[Tensor, ...], w_ih: Tensor, w_hh: Tensor,
                    b_ih: Tensor | None, b_hh: Tensor | None, w_hr: Tensor | None, mode: str,
                    sizes: tuple[int, ...], reverse: bool) -> tuple[Tensor, ...]:
    """One layer in one direction: the outputs `[sum of sizes, out]`, then the last state.

    data      `[sum of sizes, in]`; start, the first state: `[sizes[0], out]`, and the cell of
              an LSTM `[sizes[0], hidden]`
    w_hr      the projection of an LSTM's output, or None
    mode      a key of `CHUNKS`
    """
    # The inputs of all steps go through their weights at once; only the states must wait.
    given: Any = linear(data, w_ih, b_ih)
    steps = list(range(len(sizes)))
    places = [sum(sizes[:t]) for t in steps]
    if reverse:
        steps.reverse()
    state = [_part(s, 0, 0, sizes[steps[0]]) for s in start]
    outputs: list[Any] = [None] * len(sizes)
    ended: list[list[Tensor]] = [[] for _ in start]
    for t in steps:
        rows, want = shape_of(state[0])[0], sizes[t]
        if want < rows:             # some sequences have ended: their states are the last ones
            for done, s in zip(ended, state):
                done.insert(0, _part(s, 0, want, rows - want))
            state = [_part(s, 0, 0, want) for s in state]
        elif want > rows:           # backwards, longer sequences come first: others join them
            state = [_joined([s, _part(first, 0, rows, want - rows)])
                     for s, first in zip(state, start)]
        x = _part(given, 0, places[t], want)
        hidden: Any = linear(state[0], w_hh, b_hh)
        if mode == "LSTM":
            h, c = _lstm(x, hidden, state[1])
            projected: Any = h if w_hr is None else linear(h, w_hr)
            state = [projected, c]
        elif mode == "GRU":
            state = [_gru(x, hidden, state[0])]
        else:
            state = [_simple(x, hidden, mode == "RNN_RELU")]
        outputs[t] = state[0]
    last = [_joined([s, *done]) for s, done in zip(state, ended)]
    return (_joined(outputs), *last)
