"""What follows a matrix product, written into the product's own tiles.

A finished tile of sums goes through the elementwise items of its group while it is still in the
first cache: bias, activation, the optimiser's update.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from facula.codegen.elements import expr
from facula.codegen.elements.loops import point_cost
from facula.codegen.elements.lower import Emitter
from facula.codegen.elements.writer import KernelWriter
from facula.codegen.kernel import KernelText, Storage, named
from facula.codegen.llvm import LLVM_TYPES, Fn, Module
from facula.codegen.products.choice import emit_contraction
from facula.codegen.products.contraction import Contraction
from facula.codegen.target import target
from facula.dtype import DTYPES
from facula.graph.spec import Step
from facula.groups.group import Group, item_start, spread
from facula.groups.index import Index, flatten
from facula.groups.reads import accesses

__all__ = ["GroupEpilogue", "NS_PER_FLOP", "Product", "Rounded", "bind", "emit_product"]

NS_PER_FLOP = 1 / 100
"""What a multiplication or addition of a contraction is estimated to take, on one thread."""


@dataclass(frozen=True)
class Rounded:
    """A step whose values at `index` are those of float32 rounded, and lie in `slot` at `at`."""

    step: int
    index: tuple[Index, ...]
    slot: int
    at: Index


def bind(em: Emitter, named: Sequence[Index], values: Sequence[Any]) -> None:
    """Have the variables `named` these values."""
    for place, value in zip(named, values, strict=True):
        if place.terms:
            em.names[place.terms[0][0]] = value


class Product:
    """The kernels of a contraction group: `phases` of (kernel, operands).

    An operand is a slot of the program or 'tmpN', the N-th of `temporaries` (bytes each); packing
    comes in phases before the last.
    """

    def __init__(self) -> None:
        self.phases: list[list[tuple[KernelText, list[int | str]]]] = []
        self.temporaries: list[int] = []


class GroupEpilogue:
    """The items of a group on one tile of the product; see `products.contraction.Epilogue`."""

    first = 2
    """How many operands of the product's own the kernel has."""

    def __init__(self, steps: Sequence[Step], group: Group, product: int, c: Contraction | None,
                 storage: Callable[[int], Storage | None],
                 scalars: Callable[[int], Storage | None]):
        self.steps, self.group, self.product, self.c = steps, group, product, c
        self.storage, self.scalars = storage, scalars
        self.operands: list[str] = []
        self.writer: KernelWriter | None = None
        self.begun = False              # is the writer there before `emit`?

    @property
    def extras(self) -> int:
        return len(self.writer.slots) if self.writer is not None else 0

    def emit(self, fn: Fn, m0: Any, n0: Any, rows: Any, cols: Any, scratch_ptr: str,
             scratch_ld: int, batch_indices: tuple[Any, ...]) -> None:
        assert self.c is not None
        writer = self.writer if self.begun and self.writer is not None else self.begin(fn)
        em = writer.emitter
        named, index, variables = self._axes()
        sums = DTYPES[self.c.sums]
        kind = LLVM_TYPES[self.c.sums]
        own = self.steps[self.product].spec.dtype
        rounded = self.rounded(variables, named[-1], sums.name)
        with fn.loop(0, rows, hint="i") as i:
            line = fn.gep(kind, scratch_ptr, fn.mul(i, scratch_ld))
            at = self._row(fn, batch_indices, fn.add(m0, i))
            if not self.only(rounded):
                with fn.loop(0, cols, hint="j", metadata=writer.loop_metadata()) as j:
                    em.open()
                    bind(em, named, [*at, fn.add(n0, j)])
                    value = expr.load_value(fn, sums, line, j, ", !llvm.access.group !ACCESS")
                    em.remember((self.product, index), expr.emit_cast(fn, value, sums, own))
                    self._items(writer, index, variables, rounded, fn.gep(kind, line, j))
                    em.close()
            if rounded is not None:
                self.round(fn, rounded, named, [*at, n0], line, cols)

    # -- whole vectors of bfloat16
    def rounded(self, variables: Sequence[Index], column: Index, sums: str) -> Rounded | None:
        """What of the group only rounds float32 values, of which neighbours along `column` lie
        side by side, to bfloat16, and is read by nothing else in it.

        LLVM, which writes all else for vectors, makes short ones of such a rounding, and one by
        one of what is left of a line.  So its values are left in the tile, and `round` stores
        them.  The instruction takes denormal numbers for zeros.
        """
        steps = self.steps
        if not target().pairs or sums != "float32" or not column.terms:
            return None
        for item in self.group.items:
            step, place = steps[item.step], self.storage(item.step)
            if step.spec.dtype.name != "bfloat16" or place is None:
                continue
            if item.step == self.product:
                source = len(self.group.items) == 1
            else:
                source = step.op == "cast" and not any(
                    self._made_of(other.step, item.step) for other in self.group.items) \
                    and steps[step.inputs[0]].spec.dtype.name == "float32"
            index = spread(step.spec.shape, variables)
            at = flatten(index, place.strides)
            if source and at.coefficient(column.terms[0][0]) == 1:
                return Rounded(item.step, index, place.slot, at)
        return None

    def _made_of(self, number: int, source: int) -> bool:
        """Whether a step is made of another one."""
        stack, seen = list(self.steps[number].inputs), set()
        while stack:
            i = stack.pop()
            if i == source:
                return True
            if i > source and i not in seen:
                seen.add(i)
                stack.extend(self.steps[i].inputs)
        return False

    def only(self, rounded: Rounded | None) -> bool:
        """Whether the sums are rounded as they are, and nothing else becomes of them."""
        if rounded is None:
            return False
        if rounded.step == self.product:
            return True
        return self.steps[rounded.step].inputs[0] == self.product and \
            self.storage(self.product) is None and len(self.group.items) == 2

    def round(self, fn: Fn, r: Rounded, named: Sequence[Index], values: Sequence[Any], line: str,
              count: Any) -> None:
        """Round `count` values of a line, the first of which is where `named` has `values`."""
        assert self.writer is not None
        em, lanes = self.writer.emitter, target().lanes(4)
        em.open()
        bind(em, named, values)
        to = fn.gep("i16", self.writer.pointer(r.slot), em.index(r.at))
        em.close()
        short = f"<{lanes} x i16>"

        def some(i: Any) -> str:
            wide = fn.load(f"<{lanes} x float>", fn.gep("float", line, i), 4)
            value = fn.val(f"fptrunc <{lanes} x float> {wide} to <{lanes} x bfloat>")
            return fn.val(f"bitcast <{lanes} x bfloat> {value} to {short}")

        rest = count % lanes if isinstance(count, int) else fn.val(f"and i64 {count}, {lanes - 1}")
        end = count - rest if isinstance(count, int) else fn.val(f"sub i64 {count}, {rest}")
        with fn.loop(0, end, lanes, "j", fn.module.untouched()) as j:
            fn.store(short, some(j), fn.gep("i16", to, j), 2)
        if rest == 0:
            return
        each = "<" + ", ".join(f"i64 {i}" for i in range(lanes)) + ">"
        one = fn.val(f"insertelement <{lanes} x i64> poison, i64 {rest}, i32 0")
        limit = fn.val(f"shufflevector <{lanes} x i64> {one}, <{lanes} x i64> poison, "
                       f"<{lanes} x i32> zeroinitializer")
        mask = fn.val(f"icmp slt <{lanes} x i64> {each}, {limit}")
        f = fn.module.declare(f"void @llvm.masked.store.v{lanes}i16.p0({short}, ptr, i32, "
                              f"<{lanes} x i1>)")
        fn.do(f"call void {f}({short} {some(end)}, ptr {fn.gep('i16', to, end)}, i32 2, "
              f"<{lanes} x i1> {mask})")

    def _axes(self) -> tuple[Sequence[Index], tuple[Index, ...], Sequence[Index]]:
        """The variables that `_row` and a column give values to, the index of an element of the
        product made of them, and what of it is not constant."""
        variables = self.group.row_vars()
        index = spread(self.steps[self.product].spec.shape, variables)
        return index, index, variables

    def _row(self, fn: Fn, batch_indices: tuple[Any, ...], m: Any) -> list[Any]:
        """The values of all variables but the last, in row m."""
        return [*batch_indices, m]

    def ask(self, fn: Fn, m0: Any, n0: Any, rows: Any, cols: Any,
            batch_indices: tuple[Any, ...]) -> None:
        """Ask for what the end of a tile reads and writes, while its sums are still to be made:
        pieces of rows too short for the processor to see them coming."""
        writer, self.begun = self.begin(fn), True
        steps, variables = self.steps, self.group.row_vars()
        names = dict(zip([v.terms[0][0] for v in spread(steps[self.product].spec.shape, variables)
                          if v.terms],
                         [x for x, n in zip([*batch_indices, m0, n0],
                                            steps[self.product].spec.shape, strict=True)
                          if n != 1], strict=True))
        if steps[self.product].spec.shape[-1] == 1 or steps[self.product].spec.shape[-2] == 1:
            return
        m, n = (v.terms[0][0] for v in variables[-2:])
        places: dict[tuple[int, Index], int] = {}
        for item in self.group.items:
            start = [] if item.step == self.product else item_start(steps, self.group, item,
                                                                    variables, [])
            for source, index in [*accesses(steps, start, self._found),
                                  (item.step, spread(steps[item.step].spec.shape, variables))]:
                place = self.storage(source)
                if place is None:
                    continue
                at = flatten(index, place.strides)
                if at.coefficient(n) == 1 and all(v in names for v, _ in at.terms):
                    places[place.slot, at] = source
        em = writer.emitter
        em.open()
        em.names.update(names)
        f = fn.module.declare("void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        for (slot, at), source in places.items():
            dtype = steps[source].spec.dtype
            first, line = em.index(at), 64 // dtype.itemsize
            kind = LLVM_TYPES[dtype.name]
            with fn.loop(0, rows if at.coefficient(m) else 1, hint="ask",
                         metadata=fn.module.untouched()) as i:
                row = fn.add(first, fn.mul(i, at.coefficient(m)))
                with fn.loop(0, cols, line, hint="line", metadata=fn.module.untouched()) as j:
                    soon = fn.val(f"getelementptr {kind}, ptr {writer.pointer(slot)}, "
                                  f"i64 {fn.add(row, j)}")
                    fn.do(f"call void {f}(ptr {soon}, i32 0, i32 2, i32 1)")
        em.close()

    def _found(self, number: int) -> bool:
        return number == self.product or self.storage(number) is not None \
            or self.steps[number].op in ("leaf", "scalar")

    def begin(self, fn: Fn) -> KernelWriter:
        """The writer of the kernel's end, whose operands come after the product's own."""
        self.writer = writer = KernelWriter(
            self.steps, lambda n: self.storage(n) or self.scalars(n), fn, self.first)

        def position(number: int) -> tuple[str, tuple[int, ...], str] | None:
            place = self.storage(number)
            if place is None or number == self.product:
                return None
            return writer.pointer(place.slot), place.strides, writer.tags(place.slot)

        writer.emitter.position = position
        return writer

    def _items(self, writer: KernelWriter, index: tuple[Index, ...], variables: Sequence[Index],
               rounded: Rounded | None = None, there: str = "") -> None:
        """Every value of the group at one point is computed, then those that are kept stored.

        What is to be `rounded` is left as it is, `there`.
        """
        em = writer.emitter
        done = []
        if self.storage(self.product) is not None:
            done.append((self.product, index, em.recall((self.product, index))))
        for item in sorted(self.group.items, key=lambda i: i.step):
            if item.step == self.product:
                continue
            if rounded is not None and item.step == rounded.step:
                source = self.steps[item.step].inputs[0]
                if source != self.product:
                    writer.fn.store("float", em.value(source, rounded.index), there, 4,
                                    ", !llvm.access.group !ACCESS")
                continue
            place = spread(self.steps[item.step].spec.shape, variables)
            value = em.recall((item.step, place))
            if value is None:
                value = em.remember((item.step, place), em.compute(item.step, place))
            if self.storage(item.step) is not None:
                done.append((item.step, place, value))
        for step, place, value in done:
            writer.put(step, place, value)


def emit_product(steps: Sequence[Step], group: Group, c: Contraction, a: int, b: int,
                 storage: Callable[[int], Storage | None],
                 scalars: Callable[[int], Storage | None],
                 end: type[GroupEpilogue] = GroupEpilogue) -> Product:
    """The kernels of a contraction group; `a` and `b` are slots of the operands, `end` is what
    writes the items of the group."""
    product = next(i.step for i in group.items if i.role == "all")
    place = storage(product)
    plain = len(group.items) == 1 and c.dtype in ("float32", "float64") and place is not None
    epilogue = None if plain else end(steps, group, product, c, storage, scalars)
    module = Module()
    emission = emit_contraction(module, "KERNEL", c, epilogue)
    if epilogue is not None and epilogue.writer is not None:
        epilogue.writer.resolve()
    out = Product()
    numbers = {name: k for k, (name, _) in enumerate(emission.temporaries)}
    out.temporaries = [size for _, size in emission.temporaries]
    flops = 2.0 * c.m * c.n * c.k
    for n in c.batch:
        flops *= n
    points = max(flops / max(2.0 * c.k, 1.0), 1.0)
    after = points * (0.0 if plain else point_cost(steps, group, storage) / max(c.k, 1))
    for phase in emission.phases:
        kernels = []
        for k in phase:
            name, text = named(k.module)
            operands: list[int | str] = []
            for role in k.roles:
                if isinstance(role, tuple):
                    assert epilogue is not None and epilogue.writer is not None
                    operands.append(epilogue.writer.slots[role[1]])
                elif role in numbers:
                    operands.append(f"tmp{numbers[role]}")
                elif role == "c":
                    assert place is not None
                    operands.append(place.slot)
                else:
                    operands.append(a if role == "a" else b)
            last = phase is emission.phases[-1]
            kernels.append((KernelText(k.name.replace("KERNEL", name), text, (), k.ntiles,
                                       k.weight * flops * NS_PER_FLOP + (after if last else 500.0)),
                            operands))
        out.phases.append(kernels)
    return out


