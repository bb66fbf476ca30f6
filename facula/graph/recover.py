"""After a program has failed: what does not depend on the failed step still gets its value.

An index out of range is met when a program runs, not when it is recorded.  In PyTorch the line
with the index raises, and everything before it is as it was; here the same holds of values: only
what is computed from the failed step is lost, and a tensor that was to be overwritten with a
lost value keeps the one it had.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from facula.graph.record import Graph, Node
from facula.graph.spec import Step
from facula.runtime.allocator import Buffer, from_numpy_private

__all__ = ["recover"]


def recover(graph: Graph, alive: list[Node], homes: dict[int, Node],
            error: BaseException) -> BaseException:
    """Give the `alive` nodes of a failed graph the values they can still have.

    `homes` maps the place of a node to the node whose memory it was to take over.  Returns the
    error to raise: that of the first step that fails when the steps are run one by one, which
    names the index and the line, or else `error`.
    """
    from facula.ops.table import PRIMS
    from facula.reference.interpreter import evaluate
    steps = graph.path()
    wanted = {n.at[1] for n in alive}
    needed = _needed(steps, wanted)
    values: dict[int, Any] = {i: node.value.array(node.spec, node.strides)
                              if isinstance(node.value, Buffer) else node.value
                              for i, node in graph.leaves}
    failed: set[int] = set()
    first: BaseException | None = None
    with np.errstate(all="ignore"):
        for i in needed:
            step = steps[i]
            if not failed.isdisjoint(step.inputs):
                failed.add(i)
                continue
            try:
                values[i] = evaluate(PRIMS, step, values, i)
            except Exception as e:                       # noqa: BLE001 - any kind of failure
                failed.add(i)
                first = first or e
    for node in alive:
        i = node.at[1]
        home = homes.get(i)
        if home is not None and type(home.value) is Buffer:
            # It may have been written already: what stands in memory is its value.
            node.value, node.strides = home.value, home.strides
        elif i not in failed:
            node.value = from_numpy_private(np.asarray(values[i]))
        else:
            continue
        node.at = (None, -1)
    return first if first is not None and type(first) is type(error) else error


def _needed(steps: list[Step], wanted: set[int]) -> list[int]:
    found: set[int] = set()
    todo = list(wanted)
    while todo:
        i = todo.pop()
        if i not in found:
            found.add(i)
            todo.extend(steps[i].inputs)
    return sorted(found)
