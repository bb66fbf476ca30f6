"""Which values are put in memory; everything else is recomputed inside the kernels that read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from facula.graph.spec import Step
from facula.groups.kinds import FREE, INLINE, LOOPED, MOVEMENT, REDUCE, SCAN, UPDATE, WHOLE, op_cost
from facula.schedule.products import operand_behind, stored_operands
from facula.schedule.traffic import Traffic

__all__ = ["choose_roots", "in_parts", "rearranged"]

CHEAP = 7
"""A value of at most this cost is recomputed by each of several readers."""

LARGEST_EXPRESSION = 60
"""Operations that one expression may be made of; beyond, an inner value goes to memory."""

PUT_TOGETHER = 2048
"""Elements from which on a concatenation is put together in memory: asking of each element which
part it is from takes longer than to write and read it."""


def choose_roots(steps: Sequence[Step], outputs: Sequence[int]) -> set[int]:
    """The steps whose values are computed into memory (or a register of their row)."""
    roots = {o for o in outputs if steps[o].op != "leaf"}
    roots.update(number for number, step in enumerate(steps) if _ends_expressions(step))
    _add_operands(steps, roots)
    traffic = Traffic(steps, outputs, roots)
    roots |= traffic.kept(roots)
    _add_operands(steps, roots)
    costs, costly = _add_inner(steps, roots)
    costly += _add_shared(steps, roots, costs, traffic)
    _drop_cheap(steps, roots, costly)
    _add_parts(steps, roots)
    _add_operands(steps, roots)
    _add_rearranged(steps, roots)
    _add_operands(steps, roots)
    return {r for r in roots if steps[r].op != "leaf"}


def in_parts(steps: Sequence[Step], number: int) -> bool:
    """Whether step `number` is a concatenation that is worth a kernel for each of its parts."""
    step = steps[number]
    count = len(step.inputs)
    return step.op == "cat" and (count <= 8 or step.spec.numel >= 64 * count)


def rearranged(steps: Sequence[Step], number: int, stop: Callable[[int], bool]) -> int | None:
    """The value of which step `number` has all elements in another order, if there is one that
    is computed; not past one that `stop` says is in memory anyway."""
    source = number
    while steps[source].op in ("reshape", "permute") and (source == number or not stop(source)):
        source = steps[source].inputs[0]
    if source == number or steps[source].op in FREE or steps[source].op in MOVEMENT:
        return None
    return source


def _ends_expressions(step: Step) -> bool:
    """Whether a step is no part of an expression, but made by loops of its own."""
    return step.op in REDUCE or step.op in SCAN or step.op in UPDATE or step.op in WHOLE \
        or step.op in LOOPED or step.op == "cat" and step.spec.numel >= PUT_TOGETHER


def _add_inner(steps: Sequence[Step], roots: set[int]) -> tuple[list[int], list[int]]:
    """Add what expressions that are too large are cut at, and what a scatter adds up if it is
    worth vectors.

    Returns the cost of one element of each step, computed from what is in memory, and the steps
    that expressions are cut at.
    """
    costs = [0] * len(steps)
    parts: list[set[int]] = []     # the steps of the expression
    cut: list[int] = []
    for number, step in enumerate(steps):
        costs[number] = op_cost(step)
        own = set() if step.op in FREE or step.op in MOVEMENT else {number}
        for i in step.inputs:
            if i not in roots:
                costs[number] += costs[i]
                own |= parts[i]
        if len(own) > LARGEST_EXPRESSION and step.op in INLINE:
            inner = [i for i in step.inputs if i not in roots and steps[i].op not in FREE]
            if inner:
                roots.update(inner)
                cut += inner
                own, costs[number] = {number}, 1
        parts.append(own)
        # element by element it would be computed, where vectors of it can be
        for behind in _scattered(steps, step):
            while steps[behind].op in MOVEMENT and behind not in roots:
                behind = steps[behind].inputs[0]
            if costs[behind] > CHEAP and steps[behind].op not in FREE:
                roots.add(behind)
    return costs, cut


def _scattered(steps: Sequence[Step], step: Step) -> Sequence[int]:
    """The indices and values of a scatter or index_put that writes one element after the other,
    and not whole lines."""
    if step.op == "scatter":
        return step.inputs[1:]
    if step.op == "index_put":
        picked = len(steps[step.inputs[2]].spec.shape)
        if step.attrs[0] + picked == len(steps[step.inputs[1]].spec.shape):
            return step.inputs[1:]
    return ()


def _add_shared(steps: Sequence[Step], roots: set[int], costs: Sequence[int], traffic: Traffic
                ) -> list[int]:
    """Add what costs too much to be computed again for each of its readers, or for each time that
    one reader asks for an element; `costs` are what `_add_inner` returns.  Returns what it added.
    """
    added: list[int] = []
    readers: list[set[int]] = [set() for _ in steps]
    repeated = [False] * len(steps)
    for number in range(len(steps) - 1, -1, -1):
        step = steps[number]
        if step.op in FREE:
            continue
        if number not in roots and step.op not in MOVEMENT and costs[number] > CHEAP and (
                repeated[number] or len(readers[number]) > 1
                and not traffic.again(number, readers[number], costs[number], roots)):
            roots.add(number)
            added.append(number)
        if number in roots:
            for i in step.inputs:
                readers[i].add(number)
        else:
            grows = step.op in ("expand", "take", "gather", "as_strided") and \
                step.spec.numel > steps[step.inputs[0]].spec.numel
            for i in step.inputs:
                readers[i] |= readers[number]
                repeated[i] = repeated[i] or repeated[number] or grows
    return added


def _drop_cheap(steps: Sequence[Step], roots: set[int], costly: Sequence[int]) -> None:
    """Take back those of the roots that were `costly` to compute again, where what made them so
    is a root itself: 1 - tanh(x) beside tanh(x)."""
    below = [0] * len(steps)
    again = set(costly)
    for number, step in enumerate(steps):
        below[number] = op_cost(step)
        for i in step.inputs:
            if i not in roots:
                below[number] += below[i]
        if number in again and below[number] <= CHEAP:
            roots.discard(number)


def _add_parts(steps: Sequence[Step], roots: set[int]) -> None:
    """Add the parts of concatenations: each is computed where it will lie."""
    for number in [r for r in roots if in_parts(steps, r)]:
        roots.update(i for i in steps[number].inputs if steps[i].op not in FREE)


def _add_rearranged(steps: Sequence[Step], roots: set[int]) -> None:
    """Add what is only rearranged: it is computed where it will lie, too."""
    for number in list(roots):
        source = rearranged(steps, number, roots.__contains__)
        if source is not None and steps[number].spec.numel >= PUT_TOGETHER:
            roots.add(source)


def _add_operands(steps: Sequence[Step], roots: set[int]) -> None:
    """Add what products read.  Where that is depends on what else is in memory: a root between
    an operand and the value it is a view of is where the product finds the operand."""
    products = [i for i, s in enumerate(steps) if stored_operands(s)]
    before = -1
    while before != len(roots):
        before = len(roots)
        for number in products:
            for which in stored_operands(steps[number]):
                behind = operand_behind(steps, number, which, roots.__contains__)
                if steps[behind].op != "leaf":
                    roots.add(behind)
