"""Recording: every operation becomes one edge of a trie, followed rather than rebuilt.

The operations that a program has issued since the last flush form a `Graph`.  Its structure is
not stored with it: it is a path in a trie whose nodes are `State`s.  An operation looks up
(operation, static arguments, input positions) among the edges of the current state.  If it has
been seen there before, shapes, dtypes, errors and gradients were all settled then, and recording
costs one dictionary look-up; otherwise the edge is made.  A `State` therefore *is* the structural
key of the graph, exact and without hashing anything twice, and the compiled programs hang on it.

A `Node` is a handle on one value of a graph, held by tensors.  What no handle is held on when
the graph is flushed was an intermediate, and need never exist.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Iterable
from itertools import islice
from typing import Any

from facula.graph.spec import Spec, Step, spec

__all__ = ["Node", "State", "Edge", "Graph", "Recorder", "LOCK", "recorder", "settle",
           "FREED"]

LOCK = threading.RLock()
"""Held while a graph is being extended or sealed: a graph may be flushed by another thread."""

MAX_STEPS = 4096
"""A pending graph is flushed when it has grown past this many steps."""

MAX_STATES = 200_000
"""Past this size the trie is cut back to what was used last, which bounds its memory."""

FREED: Any = ("freed",)
"""Stands for the history of a value whose graph has been freed by a backward pass."""


class _Nothing(dict[Any, Any]):
    """What leads on from a state that is not part of the trie."""

    def __setitem__(self, key: Any, value: Any) -> None:
        raise RuntimeError("internal: an edge from a state that is not part of the trie")


DRAFT: dict[Any, Edge] = _Nothing()
"""The edges of a state that is not part of the trie, or not yet: a new structure is entered when
it comes for the second time, and many never do."""

MAX_MET = 65536
"""So many structures are known to have come once."""


class State:
    """A node of the trie: the structure of every graph that arrived here."""

    __slots__ = ("parent", "edges", "steps", "count", "programs", "plans")

    def __init__(self, parent: State | None, steps: tuple[Step, ...],
                 edges: dict[Any, Edge] | None = None):
        self.parent = parent
        self.steps = steps
        self.count: int = (parent.count if parent else 0) + len(steps)
        self.edges: dict[Any, Edge] = {} if edges is None else edges
        self.programs: dict[Any, Any] | None = None
        self.plans: dict[Any, Any] | None = None        # of traces that ended here

    def path(self) -> list[Step]:
        """All steps from the root to here, in order."""
        parts = []
        state: State | None = self
        while state is not None:
            if state.steps:
                parts.append(state.steps)
            state = state.parent
        return [step for part in reversed(parts) for step in part]


class Edge:
    """Where an operation leads: the state after it, and which values it returns.

    `index`, `spec`, `rg` describe a single result; `outs` the results of one that returns
    several (each `(index, spec, rg)`, or an int: "argument number i itself").
    """

    __slots__ = ("state", "index", "spec", "rg", "outs", "pack")

    def __init__(self, state: State, index: int = -1, spec: Spec | None = None, rg: bool = False,
                 outs: tuple[Any, ...] | None = None, pack: Any = None):
        self.state = state
        self.index = index
        self.spec = spec
        self.rg = rg
        self.outs = outs
        self.pack = pack


class Node:
    """A handle on one value.

    `at`      (graph, index): its place in the graph that used it last
    `value`   the Buffer that holds it, a Python number for a runtime scalar, None while pending
    `strides` of the buffer in elements, None for row-major contiguous
    `origin`  (graph, index) where a gradient continues from a value computed earlier, or FREED
    `leaf`    weak reference to the Tensor that collects this value's gradient
    `home`    the node whose memory this value takes over (in-place operations)
    `stale`   once this value has been overwritten in place: the user's line that did it, and
              which graph's steps from which number on were part of doing it
    """

    # Most nodes are intermediates with a place and a spec; what few have is a class default.
    value: Any = None
    strides: tuple[int, ...] | None = None
    origin: Any = None
    leaf: Any = None
    home: Node | None = None
    stale: tuple[str, int, int] | None = None

    def __init__(self, at: tuple[Graph, int] | tuple[None, int], spec: Spec, value: Any = None,
                 strides: tuple[int, ...] | None = None):
        self.at = at
        self.spec = spec
        if value is not None:
            self.value = value
        if strides is not None:
            self.strides = strides


_number = itertools.count(1).__next__
# Not an attribute of Graph: every write to one would make CPython forget what it knows of the
# class, and look up the attributes of graphs the slow way.


class Graph:
    """The operations of one thread since its last flush, and after that their history.

    `handles`    the nodes handed out for operations, by which liveness is told at the flush
    `leaf_nodes` index -> Node of values that came from outside, or whose gradient is collected
    `functions`  index -> (custom function call, which output)
    `hooks`      index -> gradient hooks
    `stale`      index -> what overwrote the value in place, as in `Node.stale`
    `kept`       once sealed: index -> Buffer or leaf Node of values that gradients will read
    `freed`      the steps whose history a backward pass has used up
    `failure`    what running it raised
    `lasting`    the leaves that are likely to have the same content in many runs, if any are
    `draft`      edges that belong into the trie if this structure comes again: (state, key, edge)
    """

    __slots__ = ("state", "owner", "handles", "leaves", "leaf_nodes", "leaf_map", "functions",
                 "hooks", "stale", "freed", "steps", "kept", "sequence", "failure", "lasting",
                 "draft", "__weakref__")

    def __init__(self, state: State, owner: Recorder):
        self.state = state
        self.owner = owner
        self.handles: list[Node] = []
        self.leaves: list[tuple[int, Node]] = []
        self.leaf_nodes: dict[int, Node] = {}
        self.leaf_map: dict[Node, int] = {}
        self.functions: dict[int, Any] = {}
        self.hooks: dict[int, dict[int, Any]] = {}
        self.stale: dict[int, tuple[str, int, int]] = {}
        self.freed: frozenset[int] = frozenset()
        self.steps: list[Step] | None = None      # set when sealed
        self.failure: BaseException | None = None
        self.lasting: set[int] | None = None
        self.draft: list[tuple[State, Any, Edge]] = []
        self.kept: dict[int, Any] = {}
        self.sequence = _number()

    @property
    def sealed(self) -> bool:
        return self.steps is not None

    def last(self, nodes: Iterable[Node]) -> None:
        """These are likely to have the same content in many runs, where they are leaves: what is
        made of it may be kept.  No more than a hint."""
        found = {index for graph, index in [n.at for n in nodes] if graph is self}
        self.lasting = found | (self.lasting or set())

    def path(self) -> list[Step]:
        return self.steps if self.steps is not None else self.state.path()

    def handle(self, index: int, spec: Spec) -> Node:
        """A new handle on the value `index` of this pending graph."""
        node = Node((self, index), spec)
        self.handles.append(node)
        return node


class Recorder:
    """One thread's recording: its pending graph, and whether gradients are wanted.

    `outer` is the recorder around a trace (`facula.func.trace`), whose graph is carried over
    into that one and never run; `forward` says whether tangents are wanted of what is recorded.
    """

    outer: Recorder | None = None
    forward = False
    whole = False                      # is a whole function recorded, to be transformed?
    patient = False                    # are results of a step about to take others' place?
    packing: Any = None                # the pair of hooks that packs what gradients read
    in_place = False                   # is memory that others write read as it is, not copied?
    taken: tuple[Graph, dict[Node, int]] | None = None      # its copies that a call has made

    def copies(self) -> int:
        """How many examples each random number drawn now is drawn for."""
        return 1

    def written_to(self, before: Node, value: Node) -> None:
        """In a trace, a tensor whose value was `before` is about to get `value`."""

    def __init__(self) -> None:
        self.root = State(None, ())
        self.states = 0
        self.met: tuple[State, dict[int, tuple[int, int]]] = self.root, {}
        self.grad = True
        self.depth = 0                 # > 0 while the body of a composite is being recorded
        self.tape: Any = None          # what `facula.compile` watches a call with
        self.watch: Any = None         # what anomaly mode notes operations with
        self.compiled: Any = None      # the function of `facula.compile` that is being called
        self.amp: Any = None           # the mode of `facula.amp.autocast`, None outside of one
        self.graph = Graph(self.root, self)

    def new_state(self, steps: tuple[Step, ...]) -> State:
        if self.outer is None:
            return State(self.graph.state, steps, DRAFT)
        self.states += 1
        return State(self.graph.state, steps)

    def link(self, state: State, key: Any, edge: Edge) -> None:
        """From `state`, which the pending graph came by, `key` leads along `edge`."""
        if self.outer is None:
            self.graph.draft.append((state, key, edge))
        else:
            state.edges[key] = edge

    def enter(self, graph: Graph) -> None:
        """Make the path to where `graph` is a part of the trie."""
        state: State | None = graph.state
        while state is not None and state.edges is DRAFT:
            state.edges = {}
            self.states += 1
            state = state.parent
        for state, key, edge in graph.draft:
            if state.edges is not DRAFT and edge.state.edges is not DRAFT:
                state.edges[key] = edge
        graph.draft = []

    def meet(self, what: int, runs: int, threshold: int) -> None:
        """A structure, by its hash, has been run so often and is not part of the trie; after
        `threshold` runs it is to be compiled."""
        root, met = self.met
        if root is not self.root:           # of a trie that was given up
            met = {}
            self.met = self.root, met
        met[what] = runs, threshold
        if len(met) > MAX_MET:
            for old in list(islice(met, MAX_MET // 2)):
                del met[old]

    def met_before(self, what: int) -> tuple[int, int] | None:
        """What `meet` was told of a structure; None if it has not come, or is known no more."""
        root, met = self.met
        return met.pop(what, None) if root is self.root else None

    def fresh_graph(self) -> Graph:
        """Begin an empty pending graph; returns the one that was pending."""
        old = self.graph
        if self.states > MAX_STATES:
            from facula.graph.keep import SLACK, prune
            prune(self, int(MAX_STATES * SLACK))
        self.graph = Graph(self.root, self)
        if self.watch is not None:
            self.watch.begin(self.graph)
        if self.amp is not None:
            self.set_amp(self.amp)
        return old

    def set_amp(self, mode: Any) -> None:
        """Record under another autocast mode from here on.

        The mode is an edge of the trie: what follows it was first recorded under it too, so the
        operations need not ask.
        """
        self.amp = mode
        with LOCK:
            graph = self.graph
            key = ("amp", mode)
            edge = graph.state.edges.get(key)
            if edge is None:
                edge = Edge(self.new_state(()))
                self.link(graph.state, key, edge)
            graph.state = edge.state

    def adopt(self, node: Node) -> int:
        """The index of `node` in the pending graph, entering it as a leaf if it is new here."""
        graph = self.graph
        leaf_map = graph.leaf_map
        found = leaf_map.get(node)
        if found is not None:
            node.at = (graph, found)
            return found
        value = node.value
        if value is None:                          # pending in another thread's graph
            other = node.at[0]
            if other is not None and other.failure is not None:
                raise other.failure
            if other is None or other.sealed:
                raise RuntimeError("internal: a tensor's value was dropped although it is alive")
            flush(other.owner)
            value = node.value
        shared = getattr(value, "shared", None)
        if shared is None:                         # a runtime scalar, not in memory
            index = self._enter_scalar(graph, node)
        elif shared and not self.in_place:
            # Somebody outside can write to this memory: what the graph reads is its content now,
            # and within a call the copy that has been made for it.
            copies = self.taken
            if copies is not None and copies[0] is graph and node in copies[1]:
                return copies[1][node]
            taken = Node((graph, -1), node.spec, value.snapshot(node.spec, node.strides))
            taken.origin, taken.leaf = node.origin, node.leaf
            if self.tape is not None:
                self.tape.snapshot(taken, node)
            index = self._enter(graph, taken, None)
            if copies is not None and copies[0] is graph:
                copies[1][node] = index
            return index
        else:
            index = self._enter(graph, node, node.strides)
        leaf_map[node] = index
        node.at = (graph, index)
        return index

    def _enter(self, graph: Graph, node: Node, strides: tuple[int, ...] | None) -> int:
        state = graph.state
        key = node.spec if strides is None else (node.spec, strides)
        edge = state.edges.get(key)
        if edge is None:
            step = Step("leaf", (strides,), (), node.spec)
            edge = Edge(self.new_state((step,)), state.count, node.spec)
            self.link(state, key, edge)
        graph.state = edge.state
        index = edge.index
        graph.leaves.append((index, node))
        graph.leaf_nodes[index] = node
        return index

    def scalar(self, value: Any, dtype: Any) -> Node:
        """A 0-dim leaf whose number is not part of the structure."""
        graph = self.graph
        node = Node((None, -1), spec((), dtype), value)
        node.at = (graph, self._enter_scalar(graph, node))
        return node

    def _enter_scalar(self, graph: Graph, node: Node) -> int:
        state = graph.state
        dtype = node.spec.dtype
        edge = state.edges.get(dtype)
        if edge is None:
            step = Step("scalar", (), (), node.spec)
            edge = Edge(self.new_state((step,)), state.count, node.spec)
            self.link(state, dtype, edge)
        graph.state = edge.state
        graph.leaves.append((edge.index, node))
        return edge.index


THREADS: weakref.WeakSet[Recorder] = weakref.WeakSet()
"""The recorders of all threads."""


class _Local(threading.local):
    def __init__(self) -> None:
        self.rec = Recorder()
        THREADS.add(self.rec)


_local = _Local()


def recorder() -> Recorder:
    """The calling thread's recorder."""
    return _local.rec


def flush(rec: Recorder, background: bool = False, steady: bool = False) -> None:
    """Run a recorder's pending graph; `facula.graph.flush` puts its own function here."""


def settle(wanted: Iterable[Node] | None = None) -> bool:
    """Run what is pending, so that what follows is recorded as if it had always been in memory.

    Parameters that are still to be drawn, or copies of weights that were loaded, would make the
    next step a program of its own, of which no later one finds a kernel again.  With `wanted`
    only if one of these is pending.  The values have the same last bits however often they are
    computed.

    Nothing happens while a function is traced or recorded to be replayed; False says so.
    """
    rec = recorder()
    if rec.tape is not None or rec.outer is not None or rec.depth:
        return False
    if wanted is None or any([n.value is None for n in wanted]):
        flush(rec, steady=True)
    return True
