"""What the recurrent layers compute: one step, and one layer over whole sequences.

Sequences come packed: the rows of all steps, one step after the other, with `sizes[t]` rows at
step t, which never grow with t.  Sequences of one length are the case of equal sizes.
"""

from __future__ import annotations

from typing import Any

from facula.nn.functional.common import number, shape_of
from facula.nn.functional.linear import linear
from facula.ops.define import autocast_to, op
from facula.ops.primitive.rules import cat, expand, reshape
from facula.tensor import Tensor, prim

__all__ = ["CHUNKS", "lstm_cell", "gru_cell", "rnn_cell", "recurrent_layer", "recurrent_layers"]

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
@autocast_to("lower")
def lstm_cell(x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None,
              b_hh: Tensor | None) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: x `[N, in]`, h and c `[N, hidden]`, the next h and c."""
    a: Any = linear(x, w_ih, b_ih)
    b: Any = linear(h, w_hh, b_hh)
    return _lstm(a, b, c)


@op(register=False)
@autocast_to("lower")
def gru_cell(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None,
             b_hh: Tensor | None) -> Tensor:
    """One step of a GRU."""
    a: Any = linear(x, w_ih, b_ih)
    b: Any = linear(h, w_hh, b_hh)
    return _gru(a, b, h)


@op(register=False)
@autocast_to("lower")
def rnn_cell(x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None,
             b_hh: Tensor | None, relu: bool) -> Tensor:
    """One step of an Elman network."""
    a: Any = linear(x, w_ih, b_ih)
    b: Any = linear(h, w_hh, b_hh)
    return _simple(a, b, relu)


def _joined(parts: list[Tensor]) -> Tensor:
    return cat(parts, 0) if len(parts) > 1 else parts[0]      # type: ignore[no-any-return]


class _Layer:
    """One layer in one direction: its weights, and how states follow each other."""

    def __init__(self, w_hh: Tensor, b_hh: Tensor | None, w_hr: Tensor | None, mode: str,
                 reverse: bool, looped: bool):
        self.w_hh, self.w_hr, self.mode, self.reverse = w_hh, w_hr, mode, reverse
        # what is added to each step's product is added to all inputs at once, but for the part
        # that GRU's reset scales
        self.early, self.late = None, b_hh
        if looped and b_hh is not None:
            self.early, self.late = b_hh, None
            if mode == "GRU":
                third = shape_of(b_hh)[0] // 3
                self.early, self.late = (
                    prim("pad", prim("slice", b_hh, attrs=((at,), (1,)), shape=(n,)),
                         attrs=((at,), (3 * third - at - n,), 0), shape=(3 * third,))
                    for at, n in ((0, 2 * third), (2 * third, third)))

    def given(self, data: Tensor, w_ih: Tensor, b_ih: Tensor | None) -> Tensor:
        """The inputs of all steps go through their weights at once; only the states must wait.
        """
        x: Any = linear(data, w_ih, b_ih)
        if self.early is None:
            return x                                            # type: ignore[no-any-return]
        row = reshape(self.early, (1, shape_of(self.early)[0]))
        return prim("add", x, expand(row, shape_of(x)))

    def step(self, x: Tensor, state: list[Tensor]) -> list[Tensor]:
        """The state after one step."""
        hidden: Any = linear(state[0], self.w_hh, self.late)
        if self.mode == "LSTM":
            h, c = _lstm(x, hidden, state[1])
            projected: Any = h if self.w_hr is None else linear(h, self.w_hr)
            return [projected, c]
        if self.mode == "GRU":
            return [_gru(x, hidden, state[0])]
        return [_simple(x, hidden, self.mode == "RNN_RELU")]

    def loop(self, x: Tensor, state: list[Tensor], count: int) -> tuple[Tensor, list[Tensor]]:
        """The outputs of `count` steps, [count * N, H], and the state after them."""
        rows, h = shape_of(state[0])
        more = state[1:]
        if self.mode == "GRU":
            units = shape_of(self.w_hh)[1]
            more = [_zeros(x, units) if self.late is None else
                    prim("slice", self.late, attrs=((2 * units,), (1,)), shape=(units,))]
        cell = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "tanh", "RNN_RELU": "relu"}[self.mode]
        states = prim("recur", x, self.w_hh, state[0], *more, attrs=(cell, count, self.reverse))

        def part(k: int, start: int, length: int) -> Tensor:
            one = prim("slice", states, attrs=((k, start, 0), (1, 1, 1)), shape=(1, length, h))
            return prim("reshape", one, shape=(length, h))

        last = 0 if self.reverse else count * rows
        return (part(0, 0 if self.reverse else rows, count * rows),
                [part(k, last, rows) for k in range(len(state))])


def _zeros(like: Tensor, n: int) -> Tensor:
    """n zeros of the dtype of `like`."""
    return prim("full", attrs=(0,), shape=(n,), dtype=like.dtype)


def _runs(sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    """(first step, how many) of each run of steps with equally many rows."""
    cuts = [t for t in range(len(sizes)) if t == 0 or sizes[t] != sizes[t - 1]]
    return [(a, b - a) for a, b in zip(cuts, [*cuts[1:], len(sizes)])]


@op(register=False)
@autocast_to("lower")
def recurrent_layer(data: Tensor, start: tuple[Tensor, ...], w_ih: Tensor, w_hh: Tensor,
                    b_ih: Tensor | None, b_hh: Tensor | None, w_hr: Tensor | None, mode: str,
                    sizes: tuple[int, ...], reverse: bool) -> tuple[Tensor, ...]:
    """One layer in one direction: the outputs `[sum of sizes, out]`, then the last state.

    data      `[sum of sizes, in]`; start, the first state: `[sizes[0], out]`, and the cell of
              an LSTM `[sizes[0], hidden]`
    w_hr      the projection of an LSTM's output, or None
    mode      a key of `CHUNKS`

    Steps with equally many rows are one loop; a projection, or a dtype that has no such loop, is
    recorded step by step.
    """
    looped = w_hr is None and data.dtype.name in ("float32", "float64") and len(
        {t.dtype for t in (data, w_ih, w_hh, *start)}) == 1 and any(
        count > 1 for _, count in _runs(sizes))
    layer = _Layer(w_hh, b_hh, w_hr, mode, reverse, looped)
    given = layer.given(data, w_ih, b_ih)
    runs = _runs(sizes) if looped else [(t, 1) for t in range(len(sizes))]
    if reverse:
        runs.reverse()
    state = [_part(s, 0, 0, sizes[runs[0][0]]) for s in start]
    outputs: list[tuple[int, Tensor]] = []
    ended: list[list[Tensor]] = [[] for _ in start]
    for t, count in runs:
        rows, want = shape_of(state[0])[0], sizes[t]
        if want < rows:             # some sequences have ended: their states are the last ones
            for done, s in zip(ended, state):
                done.insert(0, _part(s, 0, want, rows - want))
            state = [_part(s, 0, 0, want) for s in state]
        elif want > rows:           # backwards, longer sequences come first: others join them
            state = [_joined([s, _part(first, 0, rows, want - rows)])
                     for s, first in zip(state, start)]
        x = _part(given, 0, sum(sizes[:t]), count * want)
        if count > 1:
            made, state = layer.loop(x, state, count)
        else:
            state = layer.step(x, state)
            made = state[0]
        outputs.append((t, made))
    last = [_joined([s, *done]) for s, done in zip(state, ended)]
    return (_joined([made for _, made in sorted(outputs, key=lambda o: o[0])]), *last)


@op(register=False)
def recurrent_layers(data: Tensor, start: tuple[Tensor, ...] | None,
                     weights: tuple[tuple[Any, ...], ...], mode: str,
                     runs: tuple[tuple[int, int], ...], directions: int,
                     batch_first: bool) -> tuple[Tensor, ...]:
    """Layers one after the other, as one operation: the outputs of the last one, then the last
    states of all, `[layers * directions, N, ...]`.

    data      packed rows `[sum of sizes, in]`, or `[T, N, in]`, with `batch_first` `[N, T, in]`;
              the outputs are packed rows, or `[T, N, out]`
    start     the first states, `[layers * directions, N, ...]`; None for zeros
    weights   of each layer and direction: w_ih, w_hh, b_ih, b_hh, w_hr as of `recurrent_layer`
    runs      (rows at a step, steps) of each stretch of steps with equally many rows
    """
    sizes = tuple([n for n, count in runs for _ in range(count)])
    packed = data.ndim == 2
    if batch_first and not packed:
        data = prim("permute", data, attrs=((1, 0, 2),))
    rows = reshape(data, (sum(sizes), shape_of(data)[-1]))
    ended: list[list[Tensor]] = [[] for _ in range(1 + (mode == "LSTM"))]
    for at in range(0, len(weights), directions):
        outputs = []
        for k in range(at, at + directions):
            w_hh, w_hr = weights[k][1], weights[k][4]
            if start is None:
                widths = [shape_of(w_hh if w_hr is None else w_hr)[1 if w_hr is None else 0],
                          shape_of(w_hh)[0] // CHUNKS[mode]]
                states = [prim("full", attrs=(0.0,), shape=(sizes[0], wide), dtype=data.dtype)
                          for wide, _ in zip(widths, ended)]
            else:
                states = [reshape(prim("slice", s, attrs=((k, 0, 0), (1, 1, 1)),
                                       shape=(1, *shape_of(s)[1:])), shape_of(s)[1:])
                          for s in start]
            found: Any = recurrent_layer(rows, tuple(states), *weights[k], mode, sizes,
                                         k % directions == 1)
            outputs.append(found[0])
            for kept, state in zip(ended, found[1:]):
                kept.append(reshape(state, (1, *shape_of(state))))
        rows = outputs[0] if len(outputs) == 1 else cat(outputs, 1)
    if not packed:
        rows = reshape(rows, (len(sizes), sizes[0], shape_of(rows)[1]))
    return (rows, *[_joined(kept) for kept in ended])
