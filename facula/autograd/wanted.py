"""Which steps lead to the tensors that a pass was asked for.

`grad(outputs, inputs)` and `backward(inputs=...)` go only where a gradient has to pass to reach one
of the inputs.  Whatever lies behind them is neither computed nor freed, and may have been freed
before: an adapted weight is differentiated for although its own history has been used up, as in
the inner loop of MAML (Finn et al., 2017, arXiv:1703.03400).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from facula.graph.record import FREED, Graph

__all__ = ["Routes"]


class Routes:
    """The steps from which one of `places` or `leaves` is reached, beginning at `roots`.

    `leads` answers whether a gradient of a value has to be known, `goes_on` whether it has to be
    carried further back.  A step that was not examined (user code sends gradients where it likes)
    counts as one that leads.
    """

    def __init__(self, roots: Mapping[Graph, Iterable[int]], places: Iterable[tuple[Graph, int]],
                 leaves: set[int], reach: Callable[..., set[int]]):
        self.places = set(places)
        self.found: dict[tuple[Graph, int], bool] = {}
        todo = [(graph, list(start)) for graph, start in roots.items()]
        seen: dict[Graph, set[int]] = {}
        ends: dict[tuple[Graph, int], tuple[Graph, int] | bool] = {}
        while todo:
            graph, start = todo.pop()
            known = seen.setdefault(graph, set())
            if known.issuperset(start):
                continue
            steps = graph.path()
            for index in reach(steps, graph, start) - known:
                known.add(index)
                if steps[index].mask:
                    continue
                end = _end(graph.leaf_nodes.get(index), leaves)
                ends[graph, index] = end
                if not isinstance(end, bool):
                    todo.append((end[0], [end[1]]))
        self.further: dict[tuple[Graph, int], bool] = {}
        # A graph's leaves come from graphs that were begun before it.
        for graph in sorted(seen, key=lambda g: g.sequence):
            steps = graph.path()
            for index in sorted(seen[graph]):
                place = (graph, index)
                step = steps[index]
                if graph.functions.get(index) is not None:
                    on = True
                elif step.mask:
                    on = any(step.mask >> k & 1 and self.leads(graph, j)
                             for k, j in enumerate(step.inputs))
                else:
                    end = ends[place]
                    on = end if isinstance(end, bool) else self.leads(*end)
                self.further[place] = on
                self.found[place] = on or place in self.places

    def leads(self, graph: Graph, index: int) -> bool:
        """Whether the gradient of this value is wanted, or leads to one that is."""
        return self.found.get((graph, index), True)

    def goes_on(self, graph: Graph, index: int) -> bool:
        """Whether something that is wanted lies behind this value."""
        return self.further.get((graph, index), True)


def _end(node: Any, leaves: set[int]) -> tuple[Graph, int] | bool:
    """Where a leaf of a graph comes from: another graph's place, or whether it is wanted."""
    if node is None:
        return False
    leaf = node.leaf() if node.leaf is not None else None
    if leaf is not None and leaf._leaf:
        return id(leaf) in leaves
    origin = node.origin
    if origin is None or origin is FREED:
        return False
    return (origin[0], origin[1])
