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
    return _recover(graph.path(), [(i, n.value, n.strides) for i, n in graph.leaves],
                    [(n.at[1], n, homes.get(n.at[1])) for n in alive], error)


class Late:
    """What `recover` needs, kept while the program runs in the background.

    It is made at every step and nearly never used, so it only holds on to things.  A flush waits
    for the background before it counts who holds a node.
    """

    __slots__ = ("graph", "state", "leaves", "values", "alive", "places", "homes")

    def __init__(self, graph: Graph, values: list[Any], alive: list[Node], places: tuple[int, ...],
                 homes: dict[int, Node]):
        self.graph = graph
        self.state = graph.state
        self.leaves = graph.leaves
        self.values = values
        self.alive = alive
        self.places = places
        self.homes = homes

    def __call__(self) -> BaseException:
        """The error of the program; called once it has come to its end."""
        nodes = [(i, node, self.homes.get(i)) for i, node in zip(self.places, self.alive)]
        for i, node, _ in nodes:
            node.value, node.at = None, (self.graph, i)
        leaves = [(i, value, node.strides)
                  for (i, node), value in zip(self.leaves, self.values)]
        error = _recover(self.state.path(), leaves, nodes, IndexError("index out of range in self"))
        self.graph.failure = error
        return error


def _recover(steps: list[Step], leaves: list[tuple[int, Any, Any]],
             nodes: list[tuple[int, Node, Node | None]], error: BaseException) -> BaseException:
    from facula.ops.table import PRIMS
    from facula.reference.interpreter import evaluate
    needed = _needed(steps, {i for i, _, _ in nodes})
    values: dict[int, Any] = {i: value.array(steps[i].spec, strides)
                              if isinstance(value, Buffer) else value
                              for i, value, strides in leaves}
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
            except Exception as e:
                failed.add(i)
                first = first or e
    for i, node, home in nodes:
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
