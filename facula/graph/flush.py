"""Flush: run what has been recorded and give the values that are still wanted their memory.

What is wanted is what somebody holds: a node that only its graph refers to can no longer be
asked for, so it is an intermediate.  Everything else is an output of the program.  The program
is found by the graph's state and the places of its outputs: a state that comes back with the
same outputs is the same program, and all that was worked out about it is found with it.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from facula.graph import keep
from facula.graph import record as _record
from facula.graph.garbage import collects, pause, resume
from facula.graph.history import reachable, saved
from facula.graph.record import FREED, LOCK, Graph, Node, Recorder
from facula.graph.recover import Late, recover
from facula.graph.runnable import Runnable
from facula.graph.spec import Spec, Step
from facula.runtime import flight, watch
from facula.runtime.allocator import Buffer, from_numpy_private
from facula.runtime.interrupts import hold, release

__all__ = ["flush", "value_of", "Program", "make_executable"]

_NOWHERE = (None, -1)


def _calibrate() -> int:
    """What `getrefcount` says of a node that only the list of handles refers to."""
    handles = [Node(_NOWHERE, None)]                    # type: ignore[arg-type]
    return [sys.getrefcount(n) for n in handles][0]


_UNHELD = _calibrate()

def _calibrate_buffer() -> int:
    """The same of a Buffer that only its node refers to, seen as `_homes` sees it."""
    home = Node(_NOWHERE, None, Buffer(0, 0, None))     # type: ignore[arg-type]
    value = home.value
    return sys.getrefcount(value)


_ALONE = _calibrate_buffer()

HOME_REFS = 5
"""References to a leaf nobody holds: a local, getrefcount's argument, and the graph's three."""

def make_executable(steps: list[Step], outputs: tuple[int, ...], donations: dict[int, int],
                    lasting: frozenset[int] = frozenset()) -> Runnable:
    """Compile a program; the compiler is loaded with the first one."""
    from facula.runtime.threads import driver_ahead
    driver_ahead()
    from facula.schedule.executable import make_executable as make
    caller = _record.recorder().compiled
    made = make(steps, outputs, donations, None if caller is None else caller.dynamic,
                lasting)
    if made.again is not None:
        from facula.schedule import resized
        (resized.again if caller is None else caller.made).append(made.again)
    return made


_NEVER = 1 << 60

INTERPRET_LIMIT = 0.05
"""Seconds of interpreting, estimated, above which a program is compiled at first sight."""

FIRST_RUNS = 2
"""How many runs of a cheap program are interpreted."""


class Program:
    """One structure with one choice of outputs, and how it is run.

    `donations` maps outputs to the leaf whose memory they take over.  The first runs go through
    the interpreter when that is cheap; which executor runs depends on the program and on how
    often it has been run, and on nothing else.

    `slots` says for each live handle which output it gets, `origins` which handles have a
    history (None without gradient) and `twice` which share an output with an earlier one;
    `through` are the steps of that history, and `keep` the values that they read.  `used` is the
    number of the last graph that ran it, and `place` where it is found (`facula.graph.keep`).
    `lasting` are the leaves that the first graph expected to stay as they are (`Graph.last`).
    """

    __slots__ = ("steps", "outputs", "donations", "leaves", "runs", "threshold", "executable",
                 "slots", "origins", "twice", "through", "keep", "history", "used", "nbytes",
                 "place", "lasting", "__weakref__")

    def __init__(self, steps: list[Step], alive: tuple[int, ...], freed: frozenset[int],
                 donations: dict[int, int], lasting: set[int] | None = None,
                 steady: bool = False):
        self.used = 0
        self.nbytes = 0
        self.place: tuple[dict[Any, Program], Any] | None = None
        live = [i for i in alive if steps[i].mask and i not in freed]
        self.through = reachable(steps, live, freed)
        self.keep = saved(steps, self.through)
        wanted = set(alive)
        wanted.update(i for i in self.keep if steps[i].op not in ("leaf", "scalar"))
        self.outputs = tuple(sorted(wanted))
        place = {index: k for k, index in enumerate(self.outputs)}
        self.slots = [place[i] for i in alive]
        self.origins = [i in self.through if steps[i].mask else None for i in alive]
        self.twice = [slot in self.slots[:k] for k, slot in enumerate(self.slots)]
        self.steps: list[Step] | None = steps
        self.history = steps if self.through else None
        self.donations = {o: leaf for o, leaf in donations.items() if leaf not in self.keep}
        self.leaves = [i for i, s in enumerate(steps) if s.op == "leaf" or s.op == "scalar"]
        self.lasting = frozenset([i for i in lasting or () if steps[i].op == "leaf"])
        self.runs = 0
        self.threshold = compile_after(steps, self.outputs, self.donations, steady)
        self.executable: Runnable | None = None

    def run(self, values: list[Any], failed: Any = None) -> list[Buffer]:
        """The outputs' memory; `values` are the leaves' buffers and numbers in order.

        With `failed`, a function that makes the error of a bad index, the program may still be
        running when this returns.
        """
        executable = self.executable
        if executable is not None:
            if failed is not None and executable.start is not None:
                return executable.start(values, failed)
            return executable.run(values)
        self.runs += 1
        if self.runs > self.threshold:
            self.executable = executable = make_executable(self.steps or [], self.outputs,
                                                           self.donations, self.lasting)
            self.nbytes = executable.nbytes
            self.steps = None
            keep.compiled(self)
            return executable.run(values)
        return self.interpret(values)

    def forget(self) -> None:
        """Be found no more by the structure; who holds this program can go on running it."""
        if self.place is not None:
            programs, key = self.place
            if programs.get(key) is self:
                del programs[key]
            self.place = None

    def run_into(self, values: list[Any], given: tuple[Any, ...],
                 failed: Any = None) -> list[Buffer]:
        """`run`; outputs may use the memory in `given`, which nobody else does."""
        executable = self.executable
        if executable is None:
            return self.run(values, failed)
        if failed is not None and executable.start_into is not None:
            return executable.start_into(values, given, failed)
        return executable.run_into(values, given)

    def interpret(self, values: list[Any]) -> list[Buffer]:
        from facula.reference.interpreter import interpret
        steps = self.steps
        assert steps is not None
        started = watch.now() if watch.watcher is not None else 0
        leaves: dict[int, Any] = {}
        for i, value in zip(self.leaves, values):
            leaves[i] = (value.array(steps[i].spec, steps[i].attrs[0])
                         if isinstance(value, Buffer) else value)
        out = [from_numpy_private(a) for a in interpret(steps, leaves, self.outputs)]
        if watch.watcher is not None:
            watch.watcher.interpreted(len(steps), started, watch.now())
        return out


def compile_after(steps: list[Step], outputs: tuple[int, ...], donations: dict[int, int],
                  steady: bool = False) -> int:
    """How many runs of this program the interpreter serves; with `steady`, none or all."""
    from facula.config import flag
    from facula.ops.table import PRIMS
    if not flag.JIT:
        return _NEVER
    if not flag.INTERPRET:
        return 0
    seconds = 0.0
    for step in steps:
        record = PRIMS[step.op]
        work = step.spec.numel * record.seconds
        terms = record.terms
        if terms is not None:
            operands = [steps[i].spec for i in step.inputs]
            work += step.spec.numel * terms(operands, step.attrs, step.spec) * 1e-10
        elif step.inputs:
            work += steps[step.inputs[0]].spec.numel * 1e-9
        seconds += work
    if steady:
        return _NEVER if FIRST_RUNS and seconds <= INTERPRET_LIMIT else 0
    # None is loaded unless something has been compiled; then it may have been this, but for sizes.
    resized = sys.modules.get("facula.schedule.resized")
    caller = _record.recorder().compiled
    if resized is not None and FIRST_RUNS and (caller is None or caller.dynamic is None):
        runs: int | None = resized.patience(steps, outputs, donations, seconds)
        if runs is not None:
            return runs
    if seconds > INTERPRET_LIMIT:
        return 0
    return FIRST_RUNS if len(steps) < 1000 else 4 * FIRST_RUNS


def flush(rec: Recorder, background: bool = False, steady: bool = False) -> None:
    """Run everything that `rec` has pending.

    With `background` a program may be left running; what it raises then comes out of whatever
    waits for it: the next flush, or the first look at a value.  With `steady` the interpreter
    runs this however often it comes, or never does, so that the last bits are the same each time.

    Raises what the operations raise (an index out of range); the values that would have come of
    it then raise the same error when they are asked for, and everything older is as it was.
    An interrupt waits until all values have their memory (`facula.runtime.interrupts`).
    """
    with LOCK:
        graph = rec.graph
        if not graph.handles or rec.outer is not None:
            return
        held, waits = hold(), collects()
        try:
            pause()
            _run(rec, graph, background, steady)
        finally:
            if waits:
                resume()
            if held:
                release()
        if rec.packing is not None and graph.kept:
            rec.packing.graph(graph)


def _run(rec: Recorder, graph: Graph, background: bool, steady: bool) -> None:
    """`flush`, with the lock and with something pending in `graph`."""
    if flight.current is not None:
        _land(graph)
    handles = graph.handles
    unheld = _UNHELD
    # One comprehension, while nothing else here holds the nodes: the counts are exact.
    alive = [n for n in handles if sys.getrefcount(n) > unheld]
    rec.fresh_graph()
    graph.handles = handles = []
    if not alive:
        _clear(graph)
        return
    donations, copies, homes = _homes(graph, alive)
    key = (tuple([n.at[1] for n in alive]), graph.freed, donations, steady)
    programs = graph.state.programs
    program = None if programs is None else programs.get(key)
    likeness = 0
    if program is None:
        steps = graph.state.path()
        program = Program(steps, key[0], graph.freed, dict(donations), graph.lasting,
                          steady)
        if graph.draft:
            likeness = hash((key, *[(s.op, s.attrs, s.inputs, s.spec, s.mask) for s in steps]))
            before = rec.met_before(likeness)
            if before is not None:
                program.runs, program.threshold = before
                likeness = 0
        if not likeness or rec.tape is not None:        # a captured call is to come again
            likeness = 0
            _enter(rec, graph, program, key)
    elif graph.draft:
        rec.enter(graph)
    program.used = graph.sequence
    values = [n.value for _, n in graph.leaves]
    anomaly = None if rec.watch is None else rec.watch.examine(graph)
    try:
        if background and not copies:
            buffers = program.run(values, Late(graph, values, alive, key[0], homes))
        else:
            buffers = program.run(values)
    except IndexError as error:
        failure = recover(graph, alive, homes, error)
        _clear(graph)
        graph.failure = failure
        raise failure from None
    except BaseException as error:
        # Out of memory, or an interrupt that would not wait: what was to be overwritten stays.
        for node in alive:
            home = homes.get(node.at[1])
            if home is not None and type(home.value) is Buffer:
                node.value, node.strides, node.at = home.value, home.strides, _NOWHERE
        _clear(graph)
        graph.failure = error
        raise
    if likeness:
        # New, and perhaps never to come again: its place in the trie has to be earned.
        if program.executable is None:
            rec.meet(likeness, program.runs, program.threshold)
        else:
            _enter(rec, graph, program, key)
    for node, slot, origin, twice in zip(alive, program.slots, program.origins,
                                         program.twice):
        value = buffers[slot]
        # Two handles on one value: each may be overwritten without the other.
        node.value = value.snapshot(node.spec) if twice else value
        if origin is not None:
            node.origin = (graph, node.at[1]) if origin else FREED
        node.at = _NOWHERE
    if rec.tape is not None:
        rec.tape.flushed(graph, program, alive, bool(copies), buffers)
    for node, home in copies:
        node.value = _copy_home(home, node.value, node.spec)
        node.strides = home.strides
    if program.history is None:
        _clear(graph)
    else:
        _remember(graph, program, buffers, alive)
    if anomaly is not None:
        raise anomaly


def _enter(rec: Recorder, graph: Graph, program: Program, key: Any) -> None:
    """Let a program be found by its structure."""
    if graph.draft:
        rec.enter(graph)
    programs = graph.state.programs
    if programs is None:
        programs = graph.state.programs = {}
    programs[key] = program
    program.place = programs, key


def _land(graph: Graph) -> None:
    """Wait for the program in the background before `graph`, which reads its results, is run.

    If it has failed, what was recorded since is lost with it: `graph` fails with its error, and
    tensors that it was to overwrite keep the values they had.
    """
    try:
        flight.finish()
    except BaseException as error:
        graph.owner.fresh_graph()
        for node in graph.handles:
            home = node.home
            if home is not None and type(home.value) is Buffer:
                node.value, node.strides, node.home = home.value, home.strides, None
                node.at = _NOWHERE
        _clear(graph)
        graph.failure = error
        raise


def _homes(graph: Graph, alive: list[Node]
           ) -> tuple[tuple[tuple[int, int], ...], list[tuple[Node, Node]], dict[int, Node]]:
    """Which outputs take over a leaf's memory, and which are copied to where others see them.

    Last, by place, the node whose memory each was to take over.
    """
    donations: list[tuple[int, int]] = []
    copies: list[tuple[Node, Node]] = []
    homes: dict[int, Node] = {}
    for node in alive:
        home = node.home
        if home is None:
            continue
        node.home = None
        value = home.value
        if type(value) is not Buffer:
            continue
        if value.shared:
            copies.append((node, home))
        elif home.at[0] is graph and home.strides is None \
                and sys.getrefcount(home) <= HOME_REFS and sys.getrefcount(value) <= _ALONE:
            # An earlier graph may have kept the memory itself, to recompute views from it.
            donations.append((node.at[1], home.at[1]))
        homes[node.at[1]] = home
    return tuple(donations), copies, homes


def _copy_home(home: Node, result: Buffer, spec: Spec) -> Buffer:
    """Write a result into memory that somebody outside also sees."""
    target: Buffer = home.value
    if spec.numel:
        np.copyto(target.array(home.spec, home.strides), result.array(spec))
    return target


def _clear(graph: Graph) -> None:
    """Forget a graph through which no gradient can be asked for."""
    for _, node in graph.leaves:
        if node.at[0] is graph:
            node.at = _NOWHERE
    graph.steps = []
    graph.draft = []
    graph.leaves = []
    graph.leaf_nodes = {}
    graph.leaf_map = {}
    graph.functions = {}
    graph.hooks = {}
    graph.stale = {}


def _remember(graph: Graph, program: Program, buffers: list[Buffer], alive: list[Node]) -> None:
    """Keep of a graph what gradients through it will read."""
    steps = program.history
    assert steps is not None
    graph.steps = steps
    graph.draft = []
    known = {i: n for i, n in graph.leaves}
    held = {index: node for index, node in zip((program.outputs[s] for s in program.slots), alive)}
    place = {index: k for k, index in enumerate(program.outputs)}
    for i in program.keep:
        node = known.get(i)
        if node is None:
            node = held.get(i)
            if node is not None and node.origin is not None:
                # Its origin is this graph, and the two would keep each other alive.
                node = None
        graph.kept[i] = buffers[place[i]] if node is None else node
    if graph.functions:
        # A call that no gradient can reach any more need not hold on to what it was given.
        calls = {id(call) for i, (call, _) in graph.functions.items() if i in program.through}
        graph.functions = {i: f for i, f in graph.functions.items() if id(f[0]) in calls}
    wanted = set()
    for i in program.through:
        step = steps[i]
        wanted.update([j for k, j in enumerate(step.inputs) if step.mask >> k & 1])
    graph.leaf_nodes = {i: n for i, n in graph.leaf_nodes.items() if i in wanted}
    for _, node in graph.leaves:
        if node.at[0] is graph:
            node.at = _NOWHERE
    graph.leaves = []
    graph.leaf_map = {}


def value_of(node: Node) -> tuple[Any, tuple[int, ...] | None]:
    """The node's (Buffer, strides) or (number, None), after running what it waits for."""
    if flight.current is not None:
        flight.finish()
    if node.value is None:
        graph = node.at[0]
        if graph is None:
            raise RuntimeError("internal: a tensor without a value")
        if graph.failure is not None:
            raise graph.failure
        if graph.owner.outer is not None:
            return graph.owner.look(node)       # type: ignore[attr-defined, no-any-return]
        flush(graph.owner)
    if node.value is None:                      # it was lost with a program that failed late
        assert node.at[0] is not None and node.at[0].failure is not None
        raise node.at[0].failure
    return node.value, node.strides


_record.flush = flush
