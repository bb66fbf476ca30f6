"""Checking replays against the function itself: FACULA_CHECK_COMPILE=k looks at every k-th.

The call is replayed, what it did is noted and undone, and the function is run as it is from the
same state; the two must agree bit for bit.  What the caller gets is what the function did.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from facula.compiler.capture import MISS, Place, _tensors, settle
from facula.graph.record import Node, Recorder
from facula.graph.tape import Draw, Update
from facula.tensor import Tensor, make

__all__ = ["checked"]


def _copy(t: Tensor | None) -> Any:
    return None if t is None else np.array(t._peek())


def _private(array: Any, like: Tensor) -> Node:
    from facula.runtime.allocator import from_numpy_private
    return Node((None, -1), like._node.spec, from_numpy_private(np.ascontiguousarray(array)))


class _State:
    """The values that a call changes, copied."""

    def __init__(self, entry: Any, given: list[Tensor]):
        def at(place: Place) -> Tensor:
            t = given[place[1]] if place[0][0] == "A" else entry.world.tensors[place[1]]
            return t._grad if place[0].endswith("G") and t._grad is not None else t

        self.names = [*map(str, entry.written), *(f"{p} gradient" for p in entry.graded)]
        self.written = [at(p) for p in entry.written if not p[0].endswith("G")]
        self.graded = {id(t): t for t in (at((p[0][0], p[1])) for p in
                                          [*entry.graded, *(q for q in entry.written
                                                            if q[0].endswith("G"))])}
        self.values = [_copy(t) for t in self.written]
        self.grads = [_copy(t._grad) for t in self.graded.values()]
        self.states = [(st, {k: v for k, v in st.items() if not isinstance(v, Tensor)})
                       for e in entry.effects if isinstance(e, Update)
                       for st in e.states if st is not None]
        self.streams = [(e.generator, e.generator._seed, e.generator._position)
                        for e in entry.effects if isinstance(e, Draw)]

    def restore(self) -> None:
        for t, value in zip(self.written, self.values):
            node = _private(value, t)
            node.leaf = t._node.leaf
            t._node = node
            if t._storage is not None:
                t._storage.node = node
        for t, value in zip(self.graded.values(), self.grads):
            t._grad = None if value is None else make(_private(value, t))
        for st, numbers in self.states:
            st.update(numbers)
        for generator, seed, position in self.streams:
            generator._seed, generator._position = seed, position

    def content(self) -> list[Any]:
        return [*self.values, *self.grads, *[n for _, n in self.states],
                *[s[1:] for s in self.streams]]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
    return type(a) is type(b) and bool(a == b)


def checked(entry: Any, args: tuple[Any, ...], kwargs: dict[str, Any], rec: Recorder) -> Any:
    """The call's result, after comparing a replay with it; MISS if a guard does not hold.

    Raises RuntimeError if the two differ.
    """
    found: list[Tensor] = []
    _tensors(list(args), found, [])
    _tensors(kwargs, found, [])
    if len(found) <= max(entry.places, default=-1):
        return MISS
    given = [found[n] for n in entry.places]
    settle(rec)
    before = _State(entry, given)
    out = entry.replay(args, kwargs, rec)
    if out is MISS:
        return MISS
    mine: list[Tensor] = []
    _tensors(out, mine, [])
    replayed = [*_State(entry, given).content(), *map(_copy, mine)]
    del out, mine
    before.restore()
    result = entry.fn(*args, **kwargs)
    theirs: list[Tensor] = []
    _tensors(result, theirs, [])
    plain = [*_State(entry, given).content(), *map(_copy, theirs)]
    for k, (a, b) in enumerate(zip(replayed, plain)):
        if not _same(a, b):
            raise RuntimeError("FACULA_CHECK_COMPILE: a replay differs from the function in "
                               f"value {k} of what it changes and returns: {a!r} and {b!r}")
    if len(replayed) != len(plain):
        raise RuntimeError("FACULA_CHECK_COMPILE: a replay returns other tensors than the function")
    return result
