"""What follows a matrix product, written into the product's own tiles.

A finished tile of sums goes through the elementwise items of its group while it is still in the
first cache: bias, activation, the optimiser's update.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from facula.codegen import expr
from facula.codegen.contract import Contraction, emit_contraction
from facula.codegen.kernel import Kernel, KernelWriter, Storage, named
from facula.codegen.llvm import LLVM_TYPES, Fn, Module
from facula.codegen.loops import point_cost
from facula.codegen.lower import accesses
from facula.dtype import DTYPES
from facula.graph.spec import Step
from facula.schedule.groups import Group, item_start, spread
from facula.schedule.index import Index, flatten

__all__ = ["Epilogue", "NS_PER_FLOP", "Product", "emit_product"]

NS_PER_FLOP = 1 / 100
"""What a multiplication or addition of a contraction is estimated to take, on one thread."""


class Product:
    """The kernels of a contraction group: `phases` of (kernel, operands).

    An operand is a slot of the program or 'tmpN', the N-th of `temporaries` (bytes each); packing
    comes in phases before the last.
    """

    def __init__(self) -> None:
        self.phases: list[list[tuple[Kernel, list[int | str]]]] = []
        self.temporaries: list[int] = []


class Epilogue:
    """The items of a group on one tile of the product; see `facula.codegen.contract.Epilogue`."""

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
        with fn.loop(0, rows, hint="i") as i:
            line = fn.gep(kind, scratch_ptr, fn.mul(i, scratch_ld))
            at = self._row(fn, batch_indices, fn.add(m0, i))
            with fn.loop(0, cols, hint="j", metadata=writer.loop_metadata()) as j:
                em.open()
                for place, name in zip(named, [*at, fn.add(n0, j)], strict=True):
                    if place.terms:
                        em.names[place.terms[0][0]] = name
                value = expr.load_value(fn, sums, line, j, ", !llvm.access.group !ACCESS")
                em.remember((self.product, index), expr.emit_cast(fn, value, sums, own))
                self._items(writer, index, variables)
                em.close()

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

    def _items(self, writer: KernelWriter, index: tuple[Index, ...],
               variables: Sequence[Index]) -> None:
        """Every value of the group at one point is computed, then those that are kept stored."""
        em = writer.emitter
        done = []
        if self.storage(self.product) is not None:
            done.append((self.product, index, em.recall((self.product, index))))
        for item in sorted(self.group.items, key=lambda i: i.step):
            if item.step == self.product:
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
                 end: type[Epilogue] = Epilogue) -> Product:
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
            kernels.append((Kernel(k.name.replace("KERNEL", name), text, (), k.ntiles,
                                   k.weight * flops * NS_PER_FLOP + (after if last else 500.0)),
                            operands))
        out.phases.append(kernels)
    return out


