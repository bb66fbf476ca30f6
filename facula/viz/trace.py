"""From tensors to the picture of what they were computed by, before and after fusion."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from facula.graph.record import Graph
from facula.graph.spec import Spec, Step
from facula.tensor import Tensor
from facula.viz.picture import Arrow, Box, Picture

__all__ = ["graph", "kernels", "Kernel"]

_CONSTANTS = ("full", "iota")


@dataclass
class Kernel:
    """One compiled kernel, or several that compute one group of steps.

    `steps` are the recorded operations in it, `lines` the user's source lines they came from;
    `llvm` has each part's LLVM text by its name.
    """

    kind: str
    steps: list[str]
    lines: list[str]
    cost: float
    llvm: dict[str, str] = field(default_factory=dict)

    def assembly(self) -> str:
        """The machine code of the parts, as text for this processor."""
        from facula.runtime.jit import assembly
        return "\n".join(assembly(text) for text in self.llvm.values())

    def __str__(self) -> str:
        lines = "".join(f"\n    {line}" for line in self.lines)
        return f"{self.kind}: {', '.join(self.steps)} (about {self.cost / 1e3:.3g} us){lines}"


class _Listing(list[Kernel]):
    def __str__(self) -> str:
        return "\n".join(map(str, self))

    __repr__ = __str__


@dataclass
class _Program:
    """Steps with the places of their results, and what the leaves are called."""

    steps: list[Step]
    outputs: list[int]
    names: dict[int, str]
    parameters: set[int]
    small: list[Step] = field(default_factory=list)         # simplified, once it is fused
    back: dict[int, int] = field(default_factory=dict)      # their leaves -> leaves of `steps`


def graph(*outputs: Any, fused: bool = False, names: Any = None, llvm: bool = False) -> Picture:
    """The picture of what `outputs` were computed by.

    `outputs` are tensors, whether they still wait to be computed or are kept with the history
    that gradients need, or one compiled function.  `names` (a module, or a dictionary of tensors)
    says what the leaves are called.  Nodes are tensors and edges the operations they go into;
    with `fused` nodes are the kernels of the compiled program, each with the steps and source
    lines in it, and with `llvm` also its LLVM text.  Nothing is computed.

    Raises TypeError for anything else, ValueError for a compiled function without a captured call.
    """
    programs = _programs(outputs, names)
    nodes: list[Box] = []
    edges: list[Arrow] = []
    for program in programs:
        if fused:
            _fused(program, nodes, edges, llvm)
        else:
            _recorded(program, nodes, edges)
    return Picture(nodes, edges, "kernels" if fused else "recorded graph")


def kernels(*outputs: Any) -> list[Kernel]:
    """The kernels that `outputs` are computed by; arguments and errors as in `graph`."""
    found = _Listing()
    for program in _programs(outputs, None):
        for part in _parts(program):
            found += [k for k, _, _ in part.kernels]
    return found


# ---------------------------------------------------------------- what there is to draw

def _programs(outputs: tuple[Any, ...], names: Any) -> list[_Program]:
    if len(outputs) == 1:
        call = getattr(outputs[0], "__dict__", {}).get("_call", outputs[0])
        if hasattr(call, "entries") and hasattr(call, "explain"):
            return _captured(call)
    tensors: list[Tensor] = []
    for item in outputs:
        tensors += item if isinstance(item, (list, tuple)) else [item]
    if not tensors or not all(isinstance(t, Tensor) for t in tensors):
        raise TypeError("facula.viz takes tensors, or one compiled function")
    return [_history(tensors, _named(names))]


def _named(names: Any) -> dict[int, str]:
    if names is None:
        return {}
    pairs: Iterable[tuple[str, Tensor]]
    if hasattr(names, "named_parameters"):
        pairs = [*names.named_parameters(), *names.named_buffers()]
    else:
        pairs = names.items()
    return {id(t._node): name for name, t in pairs}


def _captured(call: Any) -> list[_Program]:
    if not call.entries:
        raise ValueError("no call of this function has been captured yet: call it a few times, "
                         "and see what explain() says")
    entry = call.entries[0]
    found = []
    for flush in entry.flushes:
        steps = flush.state.path()
        leaves = [i for i, s in enumerate(steps) if s.op in ("leaf", "scalar")]
        names, parameters = {}, set()
        for i, source in zip(leaves, flush.sources):
            if source[0] == "entry":
                kind, n = source[1]
                names[i] = entry.world.names[n] if kind[0] == "T" else f"argument {n}"
                if kind == "T" and entry.world.tensors[n]._leaf:
                    parameters.add(i)
            elif source[0] == "made":
                names[i] = f"result of program {source[1]}"
            elif source[0] == "number":
                names[i] = "a number of this call"
        found.append(_Program(steps, list(flush.program.outputs), names, parameters))
    return found


def _history(tensors: list[Tensor], named: dict[int, str]) -> _Program:
    """Everything the tensors were computed from, over all graphs that are still known."""
    steps: list[Step] = []
    names: dict[int, str] = {}
    parameters: set[int] = set()
    place: dict[tuple[int, int], int] = {}
    alone: dict[int, int] = {}
    keep: list[Graph] = []

    def value(node: Any) -> int:
        """The number of a value that has no history here."""
        found = alone.get(id(node))
        if found is None:
            found = alone[id(node)] = len(steps)
            steps.append(Step("leaf", (None,), (), node.spec))
            if collects(node):
                parameters.add(found)
            if id(node) in named:
                names[found] = named[id(node)]
        return found

    def collects(node: Any) -> bool:
        leaf = node.leaf() if getattr(node, "leaf", None) is not None else None
        return leaf is not None and bool(leaf._leaf and leaf._rg)

    def start(node: Any) -> tuple[Graph, int] | None:
        owner, index = node.at
        if node.value is None and owner is not None:
            return owner, index
        if node.origin is not None and len(node.origin) == 2:
            return node.origin                                  # type: ignore[no-any-return]
        return None

    def bring(node: Any) -> int:
        first = start(node)
        if first is None:
            return value(node)
        todo = [first]
        while todo:
            owner, index = todo[-1]
            if (id(owner), index) in place:
                todo.pop()
                continue
            keep.append(owner)
            step = owner.path()[index]
            held = owner.leaf_nodes.get(index) or owner.kept.get(index)
            if collects(held):              # a parameter: how it came about is another story
                place[id(owner), index] = value(held)
                todo.pop()
                continue
            if step.op == "leaf" and held is not None and hasattr(held, "spec"):
                before = start(held) if held.value is not None else None
                if before is not None and (id(before[0]), before[1]) not in place:
                    todo.append(before)
                    continue
                place[id(owner), index] = (value(held) if before is None
                                           else place[id(before[0]), before[1]])
                todo.pop()
                continue
            missing = [(owner, j) for j in step.inputs if (id(owner), j) not in place]
            if missing:
                todo += missing
                continue
            place[id(owner), index] = len(steps)
            steps.append(Step(step.op, step.attrs,
                              tuple(place[id(owner), j] for j in step.inputs), step.spec,
                              step.mask, step.where, step.view))
            todo.pop()
        return place[id(first[0]), first[1]]

    outputs = []
    for t in tensors:
        t._fresh()
        outputs.append(bring(t._node))
    return _Program(steps, outputs, names, parameters)


# ---------------------------------------------------------------- before fusion

def _text(spec: Spec) -> str:
    return f"{spec.dtype.name}[{', '.join(map(str, spec.shape))}]"


def _leaf_box(program: _Program, i: int, number: int) -> Box:
    step = program.steps[i]
    name = program.names.get(i)
    kind = "parameter" if i in program.parameters else "number" if step.op == "scalar" else "leaf"
    title = name or ("parameter" if kind == "parameter" else kind if kind == "number"
                     else "tensor")
    return Box(number, title, [_text(step.spec)], kind)


def _recorded(program: _Program, nodes: list[Box], edges: list[Arrow]) -> None:
    base = nodes[-1].number + 1 if nodes else 0
    wanted = _needed(program.steps, program.outputs)
    outputs = set(program.outputs)
    number = {i: base + k for k, i in enumerate(sorted(wanted))}
    for i in sorted(wanted):
        step = program.steps[i]
        if step.op in ("leaf", "scalar"):
            nodes.append(_leaf_box(program, i, number[i]))
            continue
        kind = "output" if i in outputs else "constant" if step.op in _CONSTANTS \
            else "view" if step.view else "operation"
        title = f"{step.op} {step.attrs[0]!r}" if step.op == "full" else step.op
        detail = f"attributes {step.attrs!r}" if step.attrs and step.op != "full" else ""
        nodes.append(Box(number[i], title, [_text(step.spec)], kind, step.where, detail))
        edges += [Arrow(number[j], number[i], step.op) for j in step.inputs]


def _needed(steps: list[Step], outputs: Iterable[int]) -> set[int]:
    found: set[int] = set()
    todo = list(outputs)
    while todo:
        i = todo.pop()
        if i not in found:
            found.add(i)
            todo += steps[i].inputs
    return found


# ---------------------------------------------------------------- after fusion

@dataclass
class _Part:
    steps: list[Step]
    names: dict[int, int]               # the part's leaves and outputs -> the program's steps
    kernels: list[tuple[Kernel, list[int], str]]
    host: list[int]


def _parts(program: _Program) -> list[_Part]:
    """The schedule of a program: its native parts, each with its kernels."""
    from facula.schedule.compile import build
    from facula.schedule.segments import segments
    from facula.schedule.simplify import simplify
    steps, new, outputs = simplify(program.steps, program.outputs)
    back = {}
    for i, step in enumerate(program.steps):
        if step.op in ("leaf", "scalar"):
            back[new[i]] = i
    program.back, program.small = back, list(steps)
    parts = []
    for segment in segments(steps, outputs):
        names = {**segment.inputs, **dict(zip(segment.outputs, segment.names))}
        found: list[tuple[Kernel, list[int], str]] = []
        if segment.outputs:
            native = build(segment.steps, segment.outputs, {})
            texts = {k.name: k.llvm_text for phase in native.plan.phases for k in phase.kernels}
            for report in native.reports:
                inside = [segment.steps[i] for i in report.steps]
                lines = list(dict.fromkeys(s.where for s in inside if s.where))
                found.append((Kernel(report.kind, [s.op for s in inside], lines, report.cost,
                                     {n: texts[n] for n in report.kernels if n in texts}),
                              list(report.steps), _text(inside[-1].spec) if inside else ""))
        parts.append(_Part(segment.steps, names, found, list(segment.host)))
    return parts


def _fused(program: _Program, nodes: list[Box], edges: list[Arrow], llvm: bool) -> None:
    base = nodes[-1].number + 1 if nodes else 0
    parts = _parts(program)
    small, back = program.small, program.back
    made: dict[int, int] = {}                       # the program's steps -> boxes
    count = base

    def box(title: str, lines: list[str], kind: str, where: str | None = None,
            detail: str = "") -> int:
        nonlocal count
        nodes.append(Box(count, title, lines, kind, where, detail))
        count += 1
        return count - 1

    def leaf(i: int) -> int:
        if i not in made:
            if i in back:
                nodes.append(_leaf_box(program, back[i], count))
                made[i] = box(nodes[-1].title, nodes.pop().lines,
                              "parameter" if back[i] in program.parameters else
                              "number" if small[i].op == "scalar" else "leaf")
            else:
                made[i] = box(small[i].op, [_text(small[i].spec)], "constant", small[i].where)
        return made[i]

    for part in parts:
        inside: dict[int, int] = {}
        sources: dict[int, set[int]] = {}
        for kernel, steps, result in part.kernels:
            for i in steps:
                inside[i] = len(sources)
            sources[len(sources)] = set()
        for j, step in enumerate(part.steps):
            if step.op in ("leaf", "scalar") and j in part.names and part.kernels:
                leaf(part.names[j])
        numbers = []
        for kernel, steps, result in part.kernels:
            counted = [f"{op} x {kernel.steps.count(op)}" if kernel.steps.count(op) > 1 else op
                       for op in dict.fromkeys(kernel.steps)]
            detail = "\n".join(kernel.llvm.values()) if llvm else ""
            short = [line.replace("\\", "/").rpartition("/")[2] for line in kernel.lines]
            numbers.append(box(kernel.kind, [result, *counted, *short], "kernel", None, detail))
        for k, (kernel, steps, _) in enumerate(part.kernels):
            todo = [j for i in steps for j in part.steps[i].inputs]
            seen: set[int] = set()
            while todo:
                j = todo.pop()
                if j in seen or inside.get(j) == k:
                    continue
                seen.add(j)
                step = part.steps[j]
                if j in inside:
                    edges.append(Arrow(numbers[inside[j]], numbers[k], step.op))
                elif step.op in ("leaf", "scalar") and j in part.names:
                    edges.append(Arrow(leaf(part.names[j]), numbers[k], step.op))
                else:
                    todo += step.inputs
        for i, name in part.names.items():
            if i in inside:
                made[name] = numbers[inside[i]]
        for i in part.host:
            step = small[i]
            made[i] = box(step.op, [_text(step.spec), "computed by NumPy"], "host", step.where)
            edges += [Arrow(leaf(j), made[i], step.op) for j in step.inputs]
