"""Memory of temporaries: offsets in one arena, shared by values that are not alive together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Interval", "place"]

ALIGNMENT = 64


class Interval(NamedTuple):
    """A value of `size` bytes that exists from phase `first` to phase `last`, both included."""

    key: int
    size: int
    first: int
    last: int


def place(intervals: Sequence[Interval]) -> tuple[dict[int, int], int]:
    """(offset of each key, size of the arena).

    Largest first, each at the lowest offset where nothing alive at the same time lies: the
    greedy heuristic that Pisarchyk and Lee found best by size ("Efficient memory management for
    deep neural net inference", 2020).
    """
    offsets: dict[int, int] = {}
    placed: list[tuple[int, int, int, int]] = []        # offset, end, first, last
    total = 0
    for item in sorted(intervals, key=lambda i: (-i.size, i.first, i.key)):
        size = -(-max(item.size, 1) // ALIGNMENT) * ALIGNMENT
        offset = 0
        for start, end, first, last in sorted(placed):
            if first > item.last or last < item.first:
                continue
            if start - offset >= size:
                break
            offset = max(offset, end)
        placed.append((offset, offset + size, item.first, item.last))
        offsets[item.key] = offset
        total = max(total, offset + size)
    return offsets, total
