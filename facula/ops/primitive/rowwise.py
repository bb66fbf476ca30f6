"""NumPy's work on rows, shared among threads: it lets others run while it sorts or transforms."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

__all__ = ["by_rows"]

WORTH = 1 << 16
"""Elements from which on starting a thread pays."""


def by_rows(work: Callable[[np.ndarray, np.ndarray], None], source: np.ndarray, out: np.ndarray
            ) -> np.ndarray:
    """Run `work(rows of source, rows of out)` on parts of the first dimension; returns `out`.

    Rows do not know of each other, so results do not depend on how many threads there are.
    """
    from facula.runtime.threads import get_num_threads
    count = min(get_num_threads(), len(source)) if source.size >= WORTH else 1
    if count < 2:
        work(source, out)
        return out
    edges = [len(source) * k // count for k in range(count + 1)]
    failed: list[BaseException] = []

    def part(k: int) -> None:
        try:
            work(source[edges[k]:edges[k + 1]], out[edges[k]:edges[k + 1]])
        except BaseException as error:
            failed.append(error)

    others = [threading.Thread(target=part, args=(k,)) for k in range(1, count)]
    for thread in others:
        thread.start()
    part(0)
    for thread in others:
        thread.join()
    if failed:
        raise failed[0]
    return out
