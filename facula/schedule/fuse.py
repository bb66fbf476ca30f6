"""Fusion: which values are put in memory, and which of them one kernel computes.

`choose_roots` decides what is materialised; everything else is recomputed inside the kernels that
read it.  `group_items` then puts roots that walk over the same rows into one kernel: a softmax is
three roots (maximum, exponentials, sum) and one kernel, a linear layer is a contraction and its
epilogue, and the update of a weight is the epilogue of the contraction that makes its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from facula.codegen.lower import INLINE, MOVEMENT, Place, accesses, operands
from facula.graph.spec import Step
from facula.schedule.index import Index, const, loop_var
from facula.schedule.products import (
    ATTENTION,
    CONVOLUTIONS,
    PRODUCTS,
    WHOLE,
    operand_behind,
    stored_operands,
    terms,
)
from facula.schedule.recurrences import LOOPED, written_beside
from facula.schedule.traffic import Traffic

__all__ = ["Item", "Group", "choose_roots", "group_items", "item_start", "item_index",
           "lowered", "in_parts", "memory_behind", "rearranged",
           "squeeze", "REDUCE", "SCAN", "UPDATE"]

REDUCE = frozenset(["sum", "prod", "amax", "amin", "any", "all", "argmax", "argmin"])
SCAN = frozenset(["cumsum", "cumprod", "cummax", "cummin"])
UPDATE = frozenset(["scatter", "index_put", "as_strided_update"])

_COSTS = {"exp": 8, "expm1": 10, "log": 8, "log1p": 10, "log2": 8, "log10": 8, "exp2": 8,
          "sin": 10, "cos": 10, "tan": 14, "tanh": 12, "erf": 12, "erfc": 16, "sigmoid": 12,
          "pow": 25, "div": 4, "sqrt": 4, "rsqrt": 6, "reciprocal": 4, "philox": 40,
          "floor_divide": 12, "remainder": 12, "fmod": 20, "atan2": 20, "hypot": 8,
          "logaddexp": 20, "take": 3, "gather": 3, "cat": 3, "pad": 3, "slice_update": 4}
_TRANSCENDENTAL = 10
CHEAP = 7
"""A value of at most this cost is recomputed by each of several readers."""

LARGEST_EXPRESSION = 60
"""Operations that one expression may be made of; beyond, an inner value goes to memory."""


PUT_TOGETHER = 2048
"""Elements from which on a concatenation is put together in memory: asking of each element which
part it is from takes longer than to write and read it."""


def op_cost(step: Step) -> int:
    """Rough cost of one element, in simple vector operations."""
    if step.op in MOVEMENT or step.op in ("full", "scalar", "leaf", "iota"):
        return 0
    if step.op in ("sin", "cos", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh",
                   "atanh"):
        return _TRANSCENDENTAL
    return _COSTS.get(step.op, 1)


def lowered(step: Step, steps: Sequence[Step]) -> bool:
    """Whether the loop generator can write this step (else NumPy computes it)."""
    op = step.op
    if op in ("leaf", "scalar"):
        return True
    if step.spec.dtype.is_compact or any([steps[i].spec.dtype.is_compact for i in step.inputs]):
        return False
    if op in WHOLE or op in UPDATE or op in LOOPED:
        return True
    if op in SCAN:
        return step.spec.dtype.kind != "c" or op in ("cumsum", "cumprod")
    if op in REDUCE:
        source = steps[step.inputs[0]].spec.dtype
        return source.kind != "c" or op in ("sum", "prod", "any", "all")
    if op not in INLINE:
        return False
    kinds = {steps[i].spec.dtype.kind for i in step.inputs}
    if "c" in kinds:
        from facula.codegen.complex_expr import COMPLEX_OPS
        return op in COMPLEX_OPS or op not in _ELEMENTWISE
    if op == "bitcast":
        return steps[step.inputs[0]].spec.dtype.itemsize == step.spec.dtype.itemsize and \
            step.spec.dtype.kind != "c"
    return not (kinds and kinds <= set("bui") and op in _FLOAT_ONLY) and not (
        op == "sign" and "b" in kinds)


_ELEMENTWISE = INLINE - MOVEMENT - {"full", "iota", "philox", "pad", "cat", "slice_update",
                                    "take", "gather"}
_FLOAT_ONLY = frozenset("""exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal sin cos tan
asin acos atan sinh cosh tanh asinh acosh atanh erf erfc sigmoid atan2 hypot logaddexp
copysign div""".split())


def choose_roots(steps: Sequence[Step], outputs: Sequence[int]) -> set[int]:
    """The steps whose values are computed into memory (or a register of their row)."""
    count = len(steps)
    roots = {o for o in outputs if steps[o].op != "leaf"}
    for number, step in enumerate(steps):
        if step.op in REDUCE or step.op in SCAN or step.op in UPDATE or step.op in WHOLE \
                or step.op in LOOPED:
            roots.add(number)
        elif step.op == "cat" and step.spec.numel >= PUT_TOGETHER:
            roots.add(number)
    _add_operands(steps, roots)
    traffic = Traffic(steps, outputs, roots)
    roots |= traffic.kept(roots)
    _add_operands(steps, roots)
    below = [0] * count            # cost of recomputing one element
    parts: list[set[int]] = []     # the steps of the expression
    costly: list[int] = []
    for number, step in enumerate(steps):
        below[number] = op_cost(step)
        own = set() if step.op in _FREE or step.op in MOVEMENT else {number}
        for i in step.inputs:
            if i not in roots:
                below[number] += below[i]
                own |= parts[i]
        if len(own) > LARGEST_EXPRESSION and step.op in INLINE:
            inner = [i for i in step.inputs if i not in roots and steps[i].op not in _FREE]
            if inner:
                roots.update(inner)
                costly += inner
                own, below[number] = {number}, 1
        parts.append(own)
        if step.op == "scatter":
            # element by element it would be computed, where vectors of it can be
            behind = step.inputs[1]
            while steps[behind].op in MOVEMENT and behind not in roots:
                behind = steps[behind].inputs[0]
            if below[behind] > CHEAP and steps[behind].op not in _FREE:
                roots.add(behind)
    readers: list[set[int]] = [set() for _ in steps]
    repeated = [False] * count
    for number in range(count - 1, -1, -1):
        step = steps[number]
        if step.op in _FREE:
            continue
        if number not in roots and step.op not in MOVEMENT and below[number] > CHEAP and (
                repeated[number] or len(readers[number]) > 1
                and not traffic.again(number, readers[number], below[number], roots)):
            roots.add(number)
            costly.append(number)
        if number in roots:
            for i in step.inputs:
                readers[i].add(number)
        else:
            grows = step.op in ("expand", "take", "gather", "as_strided") and \
                step.spec.numel > steps[step.inputs[0]].spec.numel
            for i in step.inputs:
                readers[i] |= readers[number]
                repeated[i] = repeated[i] or repeated[number] or grows
    _drop_cheap(steps, roots, costly)
    for number in [r for r in roots if in_parts(steps, r)]:
        # each part is computed where it will lie
        roots.update(i for i in steps[number].inputs if steps[i].op not in _FREE)
    _add_operands(steps, roots)
    for number in list(roots):
        # what is only rearranged is computed where it will lie, too
        source = rearranged(steps, number, roots.__contains__)
        if source is not None and steps[number].spec.numel >= PUT_TOGETHER:
            roots.add(source)
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
    if source == number or steps[source].op in _FREE or steps[source].op in MOVEMENT:
        return None
    return source


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


_FREE = frozenset(["leaf", "scalar", "full", "iota"])



@dataclass
class Item:
    """One root in its kernel.

    role 'rows': one value per point of the row space; 'all': it walks over the columns too.
    stage: items of one stage and role share a loop; a later stage sees what earlier ones made.
    """

    step: int
    role: str
    stage: int = 0


@dataclass
class Group:
    """One kernel in the making: roots over the row space `rows` and the column space `columns`.

    `full` is the shape of what role 'all' walks over, `axes` its columns; sizes of 1 are left out.
    """

    number: int
    kind: str              # 'loops', 'contract', 'attention', 'recurrence' or 'update'
    full: tuple[int, ...]
    axes: tuple[int, ...]
    items: list[Item] = field(default_factory=list)
    deps: set[int] = field(default_factory=set)
    reads: list[Place] = field(default_factory=list)

    @property
    def rows(self) -> tuple[int, ...]:
        return tuple(n for d, n in enumerate(self.full) if d not in self.axes)

    @property
    def columns(self) -> tuple[int, ...]:
        return tuple(self.full[d] for d in self.axes)

    def find(self, step: int) -> Item | None:
        for item in self.items:
            if item.step == step:
                return item
        return None

    def row_vars(self) -> list[Index]:
        return [loop_var(f"r{d}", n, d) for d, n in enumerate(self.rows)]

    def column_vars(self) -> list[Index]:
        return [loop_var(f"c{d}", n, 20 + d) for d, n in enumerate(self.columns)]


def squeeze(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


def spread(shape: Sequence[int], values: Sequence[Index]) -> tuple[Index, ...]:
    """An index tuple for `shape`, given the indices of its dimensions that are not 1."""
    left = iter(values)
    zero = Index((), 0)
    return tuple(zero if n == 1 else next(left) for n in shape)


def item_space(steps: Sequence[Step], number: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(full shape, axes of it that are columns), both without sizes of 1."""
    step = steps[number]
    if step.op == "matmul":
        depth = steps[step.inputs[0]].spec.shape[-1]
        full = (*squeeze(step.spec.shape), depth)
        return full, (len(full) - 1,)
    if step.op in CONVOLUTIONS:
        full = (*squeeze(step.spec.shape), terms(steps, number))
        return full, (len(full) - 1,)
    if step.op in REDUCE or step.op in SCAN:
        shape = steps[step.inputs[0]].spec.shape
        axes = step.attrs[0] if isinstance(step.attrs[0], tuple) else (step.attrs[0],)
        kept = [d for d, n in enumerate(shape) if n != 1]
        return squeeze(shape), tuple(kept.index(d) for d in sorted(axes) if d in kept)
    return squeeze(step.spec.shape), ()


def item_index(steps: Sequence[Step], group: Group, item: Item, rows: Sequence[Index],
               columns: Sequence[Index]) -> tuple[Index, ...]:
    """The index of the item's own value at one point (of what it reduces, for role 'all')."""
    step = steps[item.step]
    if item.role == "rows":
        return spread(step.spec.shape, rows)
    left, across = iter(rows), iter(columns)
    values = [next(across) if d in group.axes else next(left) for d in range(len(group.full))]
    if step.op in PRODUCTS:
        return spread(step.spec.shape, values[:-1])
    shape = steps[step.inputs[0]].spec.shape if step.op in REDUCE else step.spec.shape
    return spread(shape, values)


def item_start(steps: Sequence[Step], group: Group, item: Item, rows: Sequence[Index],
               columns: Sequence[Index]) -> list[Place]:
    """The elements that the item's value at one point is directly made of."""
    step = steps[item.step]
    index = item_index(steps, group, item, rows, columns)
    if step.op == "matmul":
        k = columns[0]
        a, b = step.inputs
        return [(a, (*index[:-1], k)), (b, (*index[:-2], k, index[-1]))]
    if step.op in WHOLE:            # all of every operand, of which any element is one
        return [(i, tuple([const(0)] * len(steps[i].spec.shape))) for i in step.inputs]
    if step.op in REDUCE or step.op in SCAN:
        return [(step.inputs[0], index)]
    return operands(steps, item.step, index)


MAX_ITEMS = 24
SMALL = 16384
"""Elements below which rows are not worth splitting among threads."""


def group_items(steps: Sequence[Step], roots: set[int]) -> list[Group]:
    """Put the roots into kernels; the groups come in an order that respects their `deps`."""
    groups: list[Group] = []
    home: dict[int, Group] = {}

    def in_memory(number: int) -> bool:
        return number in roots or steps[number].op == "leaf"

    for number in sorted(roots):
        step = steps[number]
        if 0 in step.spec.shape:
            continue
        if step.op in UPDATE:
            group = _new_group(groups, "update", squeeze(step.spec.shape), ())
            group.items.append(Item(number, "rows"))
            group.reads = [(i, ()) for base in step.inputs
                           for i in memory_behind(steps, base, in_memory)]
        elif step.op in LOOPED:
            group = _recurrence(steps, number, groups, home, in_memory)
        elif step.op in ATTENTION:
            group = _attend(steps, number, groups, home, in_memory)
        else:
            group = _place(steps, number, groups, home, in_memory)
        home[number] = group
        for source, _ in group.reads:
            if source in home and home[source] is not group:
                group.deps.add(home[source].number)
    return groups


def memory_behind(steps: Sequence[Step], number: int, in_memory: object) -> set[int]:
    """Every value in memory that `number` is made of, whatever the indices."""
    found, stack, seen = set(), [number], set()
    while stack:
        i = stack.pop()
        if i in seen:
            continue
        seen.add(i)
        if in_memory(i):            # type: ignore[operator]
            found.add(i)
        else:
            stack.extend(steps[i].inputs)
    return found


def _new_group(groups: list[Group], kind: str, full: tuple[int, ...],
               axes: tuple[int, ...]) -> Group:
    group = Group(len(groups), kind, full, axes)
    groups.append(group)
    return group


def _attend(steps: Sequence[Step], number: int, groups: list[Group], home: dict[int, Group],
            in_memory: object) -> Group:
    """The group of an attention step: one with others of the same scores, if there is one."""
    step = steps[number]

    def of(other: int) -> dict[str, int]:
        letters = ATTENTION[steps[other].op] + ("m" if steps[other].attrs[2] else "")
        return dict(zip(letters, steps[other].inputs, strict=True))

    mine = of(number)
    reads: list[Place] = [(i, ()) for base in step.inputs
                          for i in memory_behind(steps, base, in_memory)]
    sources = {home[s].number for s, _ in reads if s in home}
    for group in groups:
        first = group.items[0].step
        if group.kind != "attention" or steps[first].attrs != step.attrs \
                or ("l" in of(first)) != ("l" in mine):
            continue
        agree = all(of(i.step).get(x, base) == base for i in group.items
                    for x, base in mine.items())
        if agree and not any(_reaches(groups, source, group.number) for source in sources):
            group.items.append(Item(number, "rows"))
            group.reads += reads
            return group
    group = _new_group(groups, "attention", squeeze(step.spec.shape), ())
    group.items.append(Item(number, "rows"))
    group.reads = reads
    return group


def _apart(steps: Sequence[Step], number: int, groups: list[Group], home: dict[int, Group],
           in_memory: object) -> Group:
    """The group of a concatenation or of a rearranged value, which are groups of their own."""
    group = _new_group(groups, "loops", squeeze(steps[number].spec.shape), ())
    group.items.append(Item(number, "rows"))
    group.reads = [(i, ()) for part in steps[number].inputs
                   for i in memory_behind(steps, part, in_memory)]
    return group


def _recurrence(steps: Sequence[Step], number: int, groups: list[Group], home: dict[int, Group],
                in_memory: object) -> Group:
    """The group of a recurrence; what is written beside it is in the same loop."""
    loop = written_beside(steps, steps[number])
    if loop is not None:
        group = home[loop]
    else:
        group = _new_group(groups, "recurrence", squeeze(steps[number].spec.shape), ())
        group.reads = [(i, ()) for base in steps[number].inputs
                       for i in memory_behind(steps, base, in_memory)]
    group.items.append(Item(number, "rows"))
    return group


def _place(steps: Sequence[Step], number: int, groups: list[Group], home: dict[int, Group],
           in_memory: object) -> Group:
    source = rearranged(steps, number, home.__contains__)
    if steps[number].op == "cat" or source in home:
        return _apart(steps, number, groups, home, in_memory)
    full, axes = item_space(steps, number)
    trial = Group(-1, "loops", full, axes)
    role = "all" if axes or steps[number].op in REDUCE | SCAN | PRODUCTS else "rows"
    alone = Item(number, role)
    reads = accesses(steps, item_start(steps, trial, alone, trial.row_vars(),
                                       trial.column_vars()), in_memory)  # type: ignore[arg-type]
    sources = {home[s].number for s, _ in reads if s in home}
    touched = {s for s, _ in reads}
    candidates = sorted(sources, reverse=True)
    for other in reversed(groups[-40:]):
        if other.number not in sources and any(s in touched for s, _ in other.reads):
            candidates.append(other.number)
    for index in candidates:
        group = groups[index]
        if _join(steps, group, alone, full, axes, sources, groups, in_memory):
            return group
    group = _new_group(groups, "contract" if steps[number].op in PRODUCTS else "loops", full,
                       axes)
    group.items.append(alone)
    group.reads = list(reads)
    return group


def _reaches(groups: list[Group], start: int, goal: int) -> bool:
    """Whether group `start` depends on group `goal`, directly or through others."""
    stack, seen = [start], set()
    while stack:
        g = stack.pop()
        if g == goal:
            return True
        if g not in seen:
            seen.add(g)
            stack.extend(groups[g].deps)
    return False


def _join(steps: Sequence[Step], group: Group, item: Item, full: tuple[int, ...],
          axes: tuple[int, ...], sources: set[int], groups: list[Group],
          in_memory: object) -> bool:
    """Add the item to the group if it fits there; whether it did."""
    if group.kind in ("update", "attention", "recurrence") or len(group.items) >= MAX_ITEMS or \
            steps[group.items[0].step].op in ("cat", "reshape", "permute"):
        return False
    step = steps[item.step]
    reshaped = False
    if item.role == "all":
        if step.op in PRODUCTS or group.kind == "contract" or group.full != full:
            return False
        if group.axes != axes:
            if group.axes or any(i.role == "all" for i in group.items):
                return False
            reshaped = True        # a plain elementwise kernel takes on a reduction
        role = "all"
    elif full == group.rows:
        role = "rows"
    elif full == group.full and group.axes and group.kind == "loops":
        role = "all"
    else:
        return False
    if any(source != group.number and _reaches(groups, source, group.number)
           for source in sources):
        return False
    old_axes, old_roles = group.axes, [i.role for i in group.items]
    if reshaped:
        group.axes = axes
        for other in group.items:
            other.role = "all"
    new = Item(item.step, role)
    rows, columns = group.row_vars(), group.column_vars()
    points = 1
    for n in group.rows:
        points *= n
    whole = 1
    for n in group.full:
        whole *= n
    fits = not (group.axes and group.kind == "loops" and points < 16 and whole > SMALL
                and (reshaped or role == "all" or len(group.items) == 0)
                and not _only_reductions(steps, group, new))
    start = item_start(steps, group, new, rows, columns)
    found = accesses(steps, start, in_memory) if fits else []   # type: ignore[arg-type]
    own = item_index(steps, group, new, rows, columns)
    for source, index in found:
        read = group.find(source)
        if read is None:
            continue
        place = item_index(steps, group, read, rows, columns)
        if read.role == "rows" or steps[source].op in REDUCE or steps[source].op in PRODUCTS:
            if read.role == "all":
                place = spread(steps[source].spec.shape, rows)
            if index != place:
                fits = False
                break
            same = read.role == "rows" and role == "rows"
        else:
            free = {d for d, n in enumerate(_positions(steps[source].spec.shape))
                    if n in group.axes}
            if any(i != p for d, (i, p) in enumerate(zip(index, place, strict=True))
                   if d not in free):
                fits = False
                break
            same = (role == "all" and index == place and steps[source].op not in SCAN)
        new.stage = max(new.stage, read.stage + (0 if same else 1))
    del own
    if not fits:
        group.axes = old_axes
        for other, old in zip(group.items, old_roles, strict=True):
            other.role = old
        return False
    if reshaped:
        # the indices of earlier reads were in terms of rows only
        group.reads = []
        for other in group.items:
            group.reads += accesses(steps, item_start(steps, group, other, rows, columns),
                                    in_memory)     # type: ignore[arg-type]
    group.items.append(new)
    group.reads += found
    return True


def _only_reductions(steps: Sequence[Step], group: Group, new: Item) -> bool:
    return all(steps[i.step].op in REDUCE and i.stage == 0 for i in [*group.items, new])


def _positions(shape: Sequence[int]) -> list[int]:
    """For each dimension its number among those that are not 1 (-1 for a size of 1)."""
    out, k = [], 0
    for n in shape:
        out.append(-1 if n == 1 else k)
        k += n != 1
    return out
