"""Where boxes and arrows go: layers from top to bottom, few crossings, short arrows.

The method of Sugiyama, Tagawa and Toda (1981): boxes are put in layers so that arrows point
down, arrows over several layers get a waypoint in each, the order within a layer is improved by
sweeps that put each box at the mean of its neighbours, and coordinates follow from the order.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["place"]

GAP_X, GAP_Y = 18.0, 34.0
SWEEPS = 8


def _layers(count: int, arrows: Sequence[tuple[int, int]]) -> list[int]:
    """The layer of each box: below all it comes from, and sources just above what reads them."""
    into: list[list[int]] = [[] for _ in range(count)]
    out: list[list[int]] = [[] for _ in range(count)]
    for a, b in arrows:
        into[b].append(a)
        out[a].append(b)
    waiting = [len(i) for i in into]
    ready = [i for i in range(count) if not waiting[i]]
    layer = [0] * count
    order = []
    while ready:
        i = ready.pop()
        order.append(i)
        for j in out[i]:
            layer[j] = max(layer[j], layer[i] + 1)
            waiting[j] -= 1
            if not waiting[j]:
                ready.append(j)
    for i in reversed(order):
        if not into[i] and out[i]:
            layer[i] = min(layer[j] for j in out[i]) - 1
    return layer


def place(sizes: Sequence[tuple[float, float]], arrows: Sequence[tuple[int, int]]
          ) -> tuple[list[tuple[float, float]], list[list[tuple[float, float]]]]:
    """Centres of the boxes and waypoints of the arrows, all coordinates positive.

    `sizes` are (width, height); `arrows` pairs of box numbers without cycles.
    """
    count = len(sizes)
    layer = _layers(count, arrows)
    boxes = [*sizes]
    where = [*layer]
    links: list[tuple[int, int]] = []
    chains: list[list[int]] = []
    for a, b in arrows:
        chain = [a]
        for level in range(layer[a] + 1, layer[b]):
            chain.append(len(boxes))
            boxes.append((6.0, 0.0))
            where.append(level)
        chain.append(b)
        links += zip(chain, chain[1:])
        chains.append(chain[1:-1])
    rows: list[list[int]] = [[] for _ in range(max(where, default=0) + 1)]
    for i, level in enumerate(where):
        rows[level].append(i)
    above: list[list[int]] = [[] for _ in boxes]
    below: list[list[int]] = [[] for _ in boxes]
    for a, b in links:
        above[b].append(a)
        below[a].append(b)
    _order(rows, above, below)
    x = _columns(rows, boxes, above, below)
    y = [0.0] * len(boxes)
    top = GAP_Y / 2
    for row in rows:
        height = max((boxes[i][1] for i in row), default=0.0)
        for i in row:
            y[i] = top + height / 2
        top += height + GAP_Y
    left = min((x[i] - boxes[i][0] / 2 for i in range(len(boxes))), default=0.0) - GAP_X
    points = [(x[i] - left, y[i]) for i in range(len(boxes))]
    return points[:count], [[points[i] for i in chain] for chain in chains]


def _order(rows: list[list[int]], above: list[list[int]], below: list[list[int]]) -> None:
    """Sort each row by the mean place of its neighbours, downwards and upwards by turns."""
    at: dict[int, float] = {}
    for row in rows:
        at.update((i, k) for k, i in enumerate(row))
    for sweep in range(SWEEPS):
        near = above if sweep % 2 == 0 else below
        for row in rows if sweep % 2 == 0 else reversed(rows):
            row.sort(key=lambda i: (sum(at[j] for j in near[i]) / len(near[i]) if near[i]
                                    else at[i], at[i]))
            at.update((i, float(k)) for k, i in enumerate(row))


def _columns(rows: list[list[int]], boxes: list[tuple[float, float]], above: list[list[int]],
             below: list[list[int]]) -> list[float]:
    """Horizontal places that keep the order: near the neighbours, without overlap."""
    x = [0.0] * len(boxes)
    for row in rows:
        at = 0.0
        for i in row:
            x[i] = at + boxes[i][0] / 2
            at += boxes[i][0] + GAP_X
    for sweep in range(SWEEPS):
        near = above if sweep % 2 == 0 else below
        for row in rows if sweep % 2 == 0 else reversed(rows):
            want = [sum(x[j] for j in near[i]) / len(near[i]) if near[i] else x[i] for i in row]
            left, right = _packed(row, boxes, want), _packed(row, boxes, want, True)
            for k, i in enumerate(row):
                x[i] = (left[k] + right[k]) / 2
    return x


def _packed(row: list[int], boxes: list[tuple[float, float]], want: list[float],
            backwards: bool = False) -> list[float]:
    """The wanted places, moved to one side as far as overlap demands."""
    out = [*want]
    order = range(len(row))
    sign = 1.0
    if backwards:
        order, sign = range(len(row) - 1, -1, -1), -1.0
    before: int | None = None
    for k in order:
        if before is not None:
            room = (boxes[row[k]][0] + boxes[row[before]][0]) / 2 + GAP_X
            least = out[before] + sign * room
            out[k] = max(out[k], least) if sign > 0 else min(out[k], least)
        before = k
    return out
