"""What the recurrences of `facula.ops.primitive.recurrent` compute, in NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from facula.graph.spec import Spec

__all__ = ["CELLS", "Cell", "coefficients", "adjoint_meaning", "gates_meaning",
           "linear_meaning", "recur_meaning"]

_Attrs = tuple[Any, ...]


class Cell(NamedTuple):
    """How many products a step is made of, how many gates are kept and how many states there
    are, and whether a state also passes to the next step by itself, scaled."""

    products: int
    kept: int
    states: int
    leak: bool


CELLS = {"lstm": Cell(4, 4, 2, True), "gru": Cell(3, 4, 1, True), "tanh": Cell(1, 0, 1, False),
         "relu": Cell(1, 0, 1, False)}


def coefficients(cell: str) -> int:
    """How many coefficients the linear recurrence of a cell has."""
    return {"lstm": 6, "gru": 4}.get(cell, 1)


def order(attrs: _Attrs) -> Iterator[tuple[int, int, int]]:
    """(step, block of the states before it, block of its own) as time goes."""
    _, count, reverse = attrs
    for t in reversed(range(count)) if reverse else range(count):
        yield (t, t + 1, t) if reverse else (t, t, t + 1)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype, copy=False)


def _cell(cell: str, x: list[np.ndarray], v: list[np.ndarray], before: list[np.ndarray]
          ) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(states, gates) of one step from the parts of its input and of its product."""
    if cell == "lstm":
        i, f, o = (_sigmoid(x[k] + v[k]) for k in (0, 1, 3))
        g = np.tanh(x[2] + v[2])
        c = f * before[1] + i * g
        return [o * np.tanh(c), c], [i, f, g, o]
    if cell == "gru":
        r, z = _sigmoid(x[0] + v[0]), _sigmoid(x[1] + v[1])
        n = np.tanh(x[2] + r * v[2])
        return [n + z * (before[0] - n)], [r, z, n, v[2]]
    a = x[0] + v[0]
    return [np.tanh(a) if cell == "tanh" else np.where(a <= 0, a.dtype.type(0), a)], []


def _steps(x: np.ndarray, count: int) -> np.ndarray:
    """[T N, ...] as [T, N, ...]"""
    return x.reshape(count, x.shape[0] // count, *x.shape[1:])


def recur_meaning(arrays: Sequence[np.ndarray], attrs: _Attrs, out: Spec) -> np.ndarray:
    cell, count, _ = attrs
    x, w, *rest = arrays
    g, _, s, _ = CELLS[cell]
    start = [rest[0]] if cell == "gru" else rest
    made = np.empty((s, count + 1, *rest[0].shape), x.dtype)
    with np.errstate(all="ignore"):
        state = start
        for t, past, own in order(attrs):
            made[:, past] = state
            v = np.split(state[0] @ w.T, g, 1)
            if cell == "gru":
                v[2] = v[2] + rest[1]
            state, _ = _cell(cell, np.split(_steps(x, count)[t], g, 1), v, list(state))
            made[:, own] = state
    return made.reshape(out.shape)


def gates_meaning(arrays: Sequence[np.ndarray], attrs: _Attrs, out: Spec) -> np.ndarray:
    cell, count, reverse = attrs
    x, w, *bias, states = arrays
    n = x.shape[0] // count
    first = n if reverse else 0
    g = CELLS[cell].products
    with np.errstate(all="ignore"):
        before = states[:, first:first + count * n]
        v = np.split(before[0] @ w.T, g, 1)
        if bias:
            v[2] = v[2] + bias[0]
        return np.concatenate(_cell(cell, np.split(x, g, 1), v, list(before))[1], 1)


def linear_meaning(arrays: Sequence[np.ndarray], attrs: _Attrs, out: Spec) -> np.ndarray:
    cell, count, _ = attrs
    g, _, s, leak = CELLS[cell]
    each = coefficients(cell)
    w = arrays[each]
    k = [_steps(a, count) for a in arrays[:each]]
    drive = [_steps(a, count) for a in arrays[each + 1:each + 1 + s]]
    state = list(arrays[each + 1 + s:])
    made = np.empty((s, count + 1, *state[0].shape), w.dtype)
    with np.errstate(all="ignore"):
        for t, before, own in order(attrs):
            made[:, before] = state
            v = np.split(state[0] @ w.T, g, 1)
            moved = [k[j][t] * v[j] for j in range(g)]
            if cell == "lstm":
                c = drive[0][t] + k[4][t] * state[1] + moved[0] + moved[1] + moved[2]
                state = [drive[1][t] + k[5][t] * c + moved[3], c]
            else:
                h = drive[0][t] + sum(moved[1:], moved[0])
                state = [h + k[g][t] * state[0] if leak else h]
            made[:, own] = state
    return made.reshape(out.shape)


def adjoint_meaning(arrays: Sequence[np.ndarray], attrs: _Attrs, out: Spec) -> np.ndarray:
    cell, count, _ = attrs
    g, _, s, leak = CELLS[cell]
    *k, w, given = arrays
    k = [_steps(a, count) for a in k]
    n, h = k[0].shape[1:]
    given = given.reshape(s, count + 1, n, h)
    e = np.empty((count, n, g * h), w.dtype)
    made = np.empty_like(given)
    back = kept = np.zeros((n, h), w.dtype)         # what reaches the state before a step
    with np.errstate(all="ignore"):
        for t, before, own in reversed(list(order(attrs))):
            d = given[0, own] + back
            if cell == "lstm":
                c = given[1, own] + k[5][t] * d + kept
                made[:, own] = d, c
                parts, kept = [k[0][t] * c, k[1][t] * c, k[2][t] * c, k[3][t] * d], k[4][t] * c
            else:
                made[0, own] = d
                parts = [k[j][t] * d for j in range(g)]
            e[t] = np.concatenate(parts, 1)
            back = e[t] @ w
            if leak and cell != "lstm":
                back = back + k[g][t] * d
            made[0, before] = given[0, before] + back
            if cell == "lstm":
                made[1, before] = given[1, before] + kept
    return np.concatenate([e.ravel(), made.ravel()])
