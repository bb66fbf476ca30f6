"""The backward pass: gradients are recorded as operations like any others.

Gradients flow through the steps of a graph from the last to the first, and from one graph to the
earlier graphs whose values it read.  Nothing recurses, so depth costs memory and no stack.  Each
primitive's rule is written in facula's own operations; under `create_graph` these are recorded
for gradients too, and so derivatives of every order come of the same rules.

What a rule records for a step is one edge of the trie (`facula.autograd.rules`), and so is the way
through a graph that has been run (`facula.autograd.sweep`).  A pass through the pending graph alone
depends on that graph's structure only: it is derived once, and followed afterwards as one edge,
too (`facula.autograd.backward`).
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

from facula.autograd.packing import Packed
from facula.autograd.rules import Context, followed
from facula.autograd.sweep import kept_at, sweep, swept
from facula.autograd.wanted import Routes
from facula.errors import GradientError, StaleTensorError
from facula.graph import record as _record
from facula.graph.history import CHEAP, saved
from facula.graph.record import FREED, Graph, Node, Recorder
from facula.graph.spec import Step
from facula.runtime.allocator import Buffer
from facula.tensor import Tensor, make, prim

__all__ = ["Pass", "FREED_MESSAGE"]

FREED_MESSAGE = (
    "Trying to backward through the graph a second time (or directly access saved tensors after "
    "they have already been freed). Saved intermediate values of the graph are freed when you "
    "call .backward() or autograd.grad(). Specify retain_graph=True if you need to backward "
    "through the graph a second time or if you need to access saved tensors after calling "
    "backward.")


class Pass:
    """One backward pass: gradients that have arrived, by graph and step, and where they end.

    `captured` are the places whose gradient `grad()` asks for; `leaves` collects gradients for
    the tensors that accumulate them: id -> (tensor, its node, gradient), in order of arrival.
    """

    def __init__(self, rec: Recorder, create_graph: bool, retain_graph: bool):
        self.rec = rec
        self.create_graph = create_graph
        self.retain_graph = retain_graph
        self.arrived: dict[Graph, dict[int, Tensor]] = {}
        self.order: list[tuple[int, int, Graph]] = []
        self.leaves: dict[int, tuple[Tensor, Node, Tensor]] = {}
        self.captured: dict[tuple[Graph, int], Any] = {}
        self.visited: dict[Graph, set[int]] = {}
        self.wanted: set[int] | None = None     # ids of the leaves asked for, if any tensors were
        self.routes: Routes | None = None
        self.saved: set[int] = set()        # of the pending graph, for the plan
        self.where: str | None = None       # the user's line, once it has been looked for
        self.pure = True                    # nothing but the pending graph's structure was used

    # -- where a gradient goes
    def seed(self, t: Tensor, gradient: Tensor) -> None:
        t._fresh()
        if not t._rg:
            raise GradientError("element 0 of tensors does not require grad and does not have a "
                                "grad_fn")
        graph = t._node.at[0]
        if graph is not None and not graph.sealed and graph.owner is not self.rec \
                and graph.owner.outer is None and self.rec.outer is None:
            # Recorded by another thread, whose graph would be run under way.
            _record.flush(graph.owner)
        self.route(t._node, gradient)

    def route(self, node: Node, gradient: Tensor) -> None:
        """Send a gradient to the value that `node` stands for."""
        graph, index = node.at
        if node.value is None and graph is not None and not graph.sealed:
            self.arrive(graph, index, gradient)
            return
        self.pure = False
        self.leave(node, gradient)

    def leave(self, node: Node, gradient: Tensor) -> None:
        """Send a gradient to a value from outside the graph at hand."""
        leaf = node.leaf() if node.leaf is not None else None
        if leaf is not None and leaf._leaf:
            before = self.leaves.get(id(leaf))
            if before is not None:
                gradient = prim("add", before[2], gradient)
            self.leaves[id(leaf)] = (leaf, node, gradient)
            return
        self.pure = False
        origin = node.origin
        if origin is FREED:
            raise GradientError(FREED_MESSAGE)
        if origin is not None:
            self.arrive(origin[0], origin[1], gradient)

    def arrive(self, graph: Graph, index: int, gradient: Tensor) -> None:
        table = self.arrived.get(graph)
        if table is None:
            table = self.arrived[graph] = {}
            heappush(self.order, (-graph.sequence, id(graph), graph))
        before = table.get(index)
        table[index] = gradient if before is None else prim("add", before, gradient)

    # -- the pass
    def run(self) -> None:
        """Carry every gradient to where it ends."""
        rec = self.rec
        if self.wanted is not None:
            self.routes = Routes(self.arrived, self.captured, self.wanted, _reach)
        grad_mode, rec.grad = rec.grad, self.create_graph
        watch, amp = rec.watch, rec.amp
        if watch is not None:
            watch.pause(1)
        if amp is not None:
            rec.set_amp(None)           # gradients have the dtypes that the forward pass chose
        try:
            while self.arrived:
                graph = self.order[0][2]            # the one that was begun last
                if graph not in self.arrived:
                    heappop(self.order)
                    continue
                pending = graph is rec.graph
                inside = pending
                if pending and (graph.functions or graph.hooks):
                    # User code may ask for values in the middle: begin from computed ones.
                    inside = False
                    if rec.outer is None:
                        self._settle(graph)
                        pending = False
                if inside:
                    rec.depth += 1
                try:
                    self._through(graph, graph.path(), pending)
                finally:
                    if inside:
                        rec.depth -= 1
                if not self.arrived.get(graph):     # else a call has sent more to this graph
                    self.arrived.pop(graph, None)
            if watch is not None and not rec.depth:
                _record.flush(rec)
        finally:
            rec.grad = grad_mode
            if watch is not None:
                watch.pause(-1)
            if amp is not None:
                rec.set_amp(amp)

    def _settle(self, graph: Graph) -> None:
        """Run the pending graph, keeping the history of every step a gradient has reached."""
        steps = graph.path()
        holders = [graph.handle(i, steps[i].spec) for i in self.arrived[graph]]
        _record.flush(self.rec)
        assert all(n.value is not None for n in holders)

    def _through(self, graph: Graph, steps: list[Step], pending: bool) -> None:
        from facula.ops.table import PRIMS
        table = self.arrived[graph]
        visited = self.visited.setdefault(graph, set())
        plain = self.rec.watch is None and self.rec.outer is None
        routes = self.routes
        if plain and routes is None and graph.sealed and not (
                self.rec.grad or graph.functions or graph.hooks or graph.stale or graph.freed
                or self.captured):
            found = sweep(graph, steps, tuple(table), _reach)
            if found is not None:
                swept(self, graph, steps, table, found)
                visited.update(found.reached)
                return
        # The steps that gradients reach, found first: indices are then simply counted down.
        waiting = sorted(_reach(steps, graph, table), reverse=True)
        for index in waiting:
            gradient = table.pop(index, None)
            call = graph.functions.get(index)
            if call is not None and gradient is None:
                call[0].receive(self, graph, index, call[1], None)
            if gradient is None:
                continue
            hooks = graph.hooks.get(index)
            if hooks:
                for hook in list(hooks.values()):
                    changed = hook(gradient)
                    if changed is not None:
                        gradient = changed
            if (graph, index) in self.captured:
                before = self.captured[graph, index]
                self.captured[graph, index] = gradient if before is None \
                    else prim("add", before, gradient)
            step = steps[index]
            if routes is not None and not routes.goes_on(graph, index):
                continue
            if not step.mask:
                node = graph.leaf_nodes.get(index)
                if node is not None:
                    self.leave(node, gradient)
                continue
            if index in graph.freed:
                raise GradientError(FREED_MESSAGE)
            visited.add(index)
            if call is not None:
                call[0].receive(self, graph, index, call[1], gradient)
                continue
            if plain:
                for k, part in followed(self, graph, steps, index, pending, gradient):
                    j = step.inputs[k]
                    if routes is not None and not routes.leads(graph, j):
                        continue
                    before = table.get(j)
                    table[j] = part if before is None else prim("add", before, part)
                continue
            record = PRIMS[step.op]
            saves = record.reads(step.attrs, step.mask)
            c = self._context(graph, steps, index, saves, pending)
            assert record.vjp is not None
            for k, part in enumerate(record.vjp(c, gradient)):
                if part is not None and step.mask >> k & 1:
                    if routes is not None and not routes.leads(graph, step.inputs[k]):
                        continue
                    if self.rec.watch is not None:
                        self.rec.watch.gradient(part, graph, index, k)
                    self.arrive(graph, step.inputs[k], part)

    def _context(self, graph: Graph, steps: list[Step], index: int, saves: tuple[str, ...],
                 pending: bool) -> Context:
        step = steps[index]
        needs = tuple([bool(step.mask >> k & 1) for k in range(len(step.inputs))])
        whole = "all" in saves
        inputs = []
        for k, j in enumerate(step.inputs):
            if whole or f"in{k}" in saves:
                self.check(graph, steps, j, index)
                inputs.append(self.value(graph, steps, j, pending, needs[k]))
            else:
                inputs.append(make(Node((None, -1), steps[j].spec)))
        if "out" in saves:
            self.check(graph, steps, index, index)
            out = self.value(graph, steps, index, pending, True)
        else:
            out = make(Node((None, -1), step.spec))
        return Context(tuple(inputs), out, step.attrs, needs)

    def check(self, graph: Graph, steps: list[Step], index: int, reader: int) -> None:
        """Raise if the value `index`, which the step `reader` saved, has been overwritten."""
        where = index
        copied = False
        while True:
            if isinstance(graph.kept.get(where), Packed):
                return                      # as it was when it was packed
            if graph is self.rec.graph:
                self.saved.add(where)
            stale = graph.stale.get(where)
            if stale is None and steps[where].op == "leaf":
                node = graph.leaf_nodes.get(where)
                if node is None:
                    node = graph.kept.get(where)
                stale = getattr(node, "stale", None)
            elif stale is None:
                stale = getattr(graph.kept.get(where), "stale", None)
            if stale is not None and not (stale[1] == graph.sequence and reader >= stale[2]) \
                    and (not copied or getattr(graph.kept.get(where), "shared", False)):
                saved_at = steps[reader].where or "a line that is not known"
                raise StaleTensorError(
                    "one of the variables needed for gradient computation has been modified by "
                    f"an inplace operation: {steps[index].spec}, read by {steps[reader].op!r} "
                    f"at {saved_at} and saved for its gradient, was overwritten at {stale[0]}. "
                    "Use the out-of-place form there, or clone() the tensor before overwriting "
                    "it.")
            if not steps[where].inputs:
                return
            if not steps[where].view:
                # A copy: what it was made of matters if the copy has to be made again, from
                # memory that somebody outside sees.
                if not graph.sealed or steps[where].op not in CHEAP:
                    return
                copied = True
            where = steps[where].inputs[0]

    def value(self, graph: Graph, steps: list[Step], index: int, pending: bool,
               linked: bool, given: dict[int, Tensor] | None = None) -> Tensor:
        """The value of a step as a tensor; `linked` if gradients flow on through it."""
        if pending:
            return make(Node((graph, index), steps[index].spec), linked)
        todo = [index]
        made: dict[int, Tensor] = {} if given is None else dict(given)
        while todo:
            i = todo[-1]
            if i in made:
                todo.pop()
                continue
            kept = kept_at(graph, steps, i)
            if kept is not None:
                made[i] = self._link(graph, steps, i, kept)
                todo.pop()
                continue
            step = steps[i]
            if step.op in ("leaf", "scalar"):
                raise GradientError(FREED_MESSAGE)
            missing = [j for j in step.inputs if j not in made]
            if missing:
                todo.extend(missing)
                continue
            made[i] = prim(step.op, *[made[j] for j in step.inputs], attrs=step.attrs,
                           shape=step.spec.shape, dtype=step.spec.dtype)
            todo.pop()
        out = made[index]
        return out if linked else make(out._node)

    def _link(self, graph: Graph, steps: list[Step], index: int, kept: Any) -> Tensor:
        if isinstance(kept, Packed):
            return kept.unpack(self.create_graph)
        if isinstance(kept, Buffer):
            node = Node((None, -1), steps[index].spec, kept)
            if steps[index].mask:
                node.origin = (graph, index)
            return make(node, bool(steps[index].mask))
        linked = kept.origin is not None or (kept.leaf is not None and kept.leaf() is not None)
        return make(kept, linked)

    def free(self) -> None:
        """Mark what the pass went through as used up."""
        if self.retain_graph:
            return
        for graph, indices in self.visited.items():
            graph.freed = graph.freed | indices
            if graph.sealed and graph.kept:
                assert graph.steps is not None
                # Other results of this graph may still be asked for their gradients.
                rest = [i for i, s in enumerate(graph.steps) if s.mask and i not in graph.freed]
                need = saved(graph.steps, rest) if rest else ()
                graph.kept = {i: v for i, v in graph.kept.items() if i in need}


def _reach(steps: list[Step], graph: Graph, roots: Any) -> set[int]:
    """Every step that a gradient at `roots` will reach, within one graph."""
    found: set[int] = set()
    todo = list(roots)
    while todo:
        i = todo.pop()
        if i in found:
            continue
        found.add(i)
        step = steps[i]
        call = graph.functions.get(i)
        if call is not None:
            found.update(call[0].places)
            for node in call[0].nodes:
                j = None if node is None else _place_in(graph, node)
                if j is not None and j not in found:
                    todo.append(j)
            continue
        mask = step.mask
        for k, j in enumerate(step.inputs):
            if mask >> k & 1 and j not in found:
                todo.append(j)
    return found


def _place_in(graph: Graph, node: Node) -> int | None:
    if node.value is None and node.at[0] is graph:
        return node.at[1]
    if node.origin is not None and len(node.origin) == 2 and node.origin[0] is graph:
        return node.origin[1]                              # type: ignore[no-any-return]
    return None
