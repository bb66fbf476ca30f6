"""Templates: what a call recorded once, to be recorded again somewhere else without running it.

The trie remembers a call at its place: after the same path, the same call is one look-up.  A
program whose structure is new each time (an episode of another length, a tree) makes the same
calls at ever new places.  What a call records does not depend on the path to it, only on what the
call is and on the shapes and dtypes of its operands; so its steps are kept with their inputs by
position, and entered anew with the operands of another call: all of them as one `State`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any
from weakref import WeakValueDictionary

from facula.errors import user_line
from facula.graph.record import Edge, Recorder, State
from facula.graph.spec import Step

__all__ = ["Template", "Table", "alike", "cut", "forget"]

MAX_LENGTH = 1024
"""Calls that record more steps than this are not kept: they are rare, and seldom come again."""


class Steps:
    """What one or more calls record: equal steps are one object.

    Each is a tuple (operation, attributes, inputs, spec, mask, view); inputs are positions, of
    the operands first and then of the steps themselves.
    """

    __slots__ = ("steps", "__weakref__")

    def __init__(self, steps: tuple[Any, ...]):
        self.steps = steps


_known: WeakValueDictionary[tuple[Any, ...], Steps] = WeakValueDictionary()


class Template:
    """The steps of one call.

    `count` is the number of operands.  `single` is, where there is just one
    step, the head of the key that `facula.tensor.prim` enters it by, and the operands' positions.
    `outs` has what the call gives, each (position, spec, whether a gradient flows) or what
    `Edge.outs` has instead; `pack` is the edge's.
    """

    __slots__ = ("steps", "count", "single", "outs", "pack")

    def __init__(self, steps: Steps, count: int, single: Any, outs: Sequence[Any], pack: Any):
        self.steps = steps
        self.count = count
        self.single = single
        self.outs = outs
        self.pack = pack

    def enter(self, rec: Recorder, places: Sequence[int], where: str | None = None) -> Edge:
        """The edge from here for this call with operands at `places` (~place where a gradient
        flows through it); its state, which may be new, has the steps."""
        state = rec.graph.state
        single = self.single
        if single is not None:
            key = (*single[0], *[places[k] for k in single[1]])
        else:
            key = (self.steps, *places)
        edge = state.edges.get(key)
        base = state.count
        plain = [~p if p < 0 else p for p in places]
        if edge is None:
            steps = self.steps.steps
            if not steps:
                edge = Edge(state)
            else:
                edge = Edge(rec.new_state(self._steps(plain, base, where or user_line(3))))
                if single is not None:
                    edge.index, edge.spec, edge.rg = base, steps[0][3], steps[0][4] != 0
                state.edges[key] = edge
        count = self.count
        outs = []
        for out in self.outs:
            if type(out) is tuple:
                k = out[0]
                out = (plain[k] if k < count else base + k - count, out[1], out[2])
            outs.append(out)
        if self.pack is None and type(outs[0]) is tuple:
            index, spec, rg = outs[0]
            if edge.index == index and edge.spec is spec and edge.rg is rg:
                return edge                     # one step, and its result: nothing to add
            return Edge(edge.state, index, spec, rg)
        return Edge(edge.state, outs=tuple(outs), pack=self.pack)

    def _steps(self, places: list[int], base: int, where: str | None) -> tuple[Step, ...]:
        steps = self.steps.steps
        at = places + list(range(base, base + len(steps)))
        return tuple([Step(op, attrs, tuple([at[k] for k in inputs]), spec, mask, where, view)
                      for op, attrs, inputs, spec, mask, view in steps])


def alike(places: Sequence[int]) -> Any:
    """What of the operands' places decides what a call records: through which of them gradients
    flow, and which of them are the same."""
    flows = tuple([p < 0 for p in places])
    if len(set(places)) == len(places):
        return flows
    return flows, tuple([places.index(p) for p in places])


def cut(start: State, end: State, places: Sequence[int], outs: Sequence[Any], pack: Any
        ) -> Template | None:
    """What was recorded between two states as a template; None where it cannot be one.

    `places` are those of the operands, `outs` as in `Edge.outs`.  None if a step reads
    something that is no operand, or if there are too many steps.
    """
    if end.count - start.count > MAX_LENGTH:
        return None
    parts = []
    state: State | None = end
    while state is not start:
        if state is None:
            return None
        parts.append(state.steps)
        state = state.parent
    count, base = len(places), start.count
    at: dict[int, int] = {}
    for k, p in enumerate(places):
        at.setdefault(~p if p < 0 else p, k)
    number = base
    made = []
    for part in reversed(parts):
        for step in part:
            inputs = tuple([at.get(i, -1) for i in step.inputs])
            if -1 in inputs or step.op == "leaf" or step.op == "scalar":
                return None
            made.append((step.op, step.attrs, inputs, step.spec, step.mask, step.view))
            at[number] = count + number - base
            number += 1
    relative = []
    for out in outs:
        if type(out) is tuple:
            k = at.get(out[0], -1)
            if k < 0:
                return None
            out = (k, out[1], out[2])
        relative.append(out)
    found = tuple(made)
    # 1, 1.0 and True are equal, and not the same attribute.
    key = (found, *[kind for step in made for kind in map(type, step[1])])
    steps = _known.get(key)
    if steps is None:
        steps = _known[key] = Steps(found)
    single = None
    if len(made) == 1:
        # Found by its operation alone, as it is from wherever else it is recorded.
        for key, edge in start.edges.items():
            if edge.state is end and type(key) is tuple and len(key) >= 5 and key[0] == made[0][0]:
                operands = [_position(places, p) for p in islice(key, 5, None)]
                if -1 not in operands:
                    single = key[:5], tuple(operands)
                break
        if single is None:
            return None
    elif made:
        start.edges.setdefault((steps, *places), Edge(end))
    return Template(steps, count, single, relative, pack)


def _position(places: Sequence[int], place: int) -> int:
    """The operand that stands at a place, with the sign that says if a gradient flows."""
    for k, p in enumerate(places):
        if p == place:
            return k
    return -1


class Table(dict[Any, Any]):
    """What was settled once of calls and steps, by what tells them apart: at most `most` of it."""

    def __init__(self, most: int):
        self.most = most
        _tables.append(self)

    def keep(self, key: Any, value: Any) -> None:
        """Enter what is not there yet; past the bound, the older half is let go."""
        self[key] = value
        if len(self) > self.most:
            for old in list(islice(self, self.most // 2)):
                del self[old]


_tables: list[Table] = []


def forget() -> None:
    """Nothing that has been settled holds any more: something else has changed that it was
    settled under."""
    for table in _tables:
        table.clear()
