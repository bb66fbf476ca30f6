"""One kernel being written: its operands, and what LLVM is told of their memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from facula.codegen.elements import expr
from facula.codegen.elements.lower import Emitter
from facula.codegen.kernel import ATTRS, KernelText, Storage, named
from facula.codegen.llvm import Fn, Module
from facula.codegen.target import target
from facula.graph.spec import Step
from facula.groups.index import Index, flatten
from facula.runtime.plan import STATUS_SLOT

__all__ = ["KernelWriter"]

class KernelWriter:
    """One kernel function being written: operands, alias information and the final text."""

    def __init__(self, steps: Sequence[Step], storage: Callable[[int], Storage | None],
                 fn: Fn | None = None, first: int = 0):
        self.steps = steps
        self.storage = storage
        self.fn = fn or Fn(Module(), "KERNEL", [("ptr", "args"), ("ptr", "map"), ("i64", "tile")],
                           attrs=ATTRS)
        self.module = self.fn.module
        self.width = 0                  # elements in the vectors of loops that pick them, if any
        self.proven = True              # whether LLVM is told that rounds of these are independent
        self.first = first              # operands that the kernel has before those written here
        self.slots: list[int] = []
        self.numbers: list[int] = []
        self.pointers: dict[int, str] = {}
        self.cells: dict[int, str] = {}
        self.local: dict[int, tuple[str, tuple[int, ...], str]] = {}
        self.emitter = Emitter(self.fn, steps, self.position, self.scalar,
                               lambda: self.pointer(STATUS_SLOT))

    def operand(self, slot: int) -> int:
        if slot not in self.slots:
            self.slots.append(slot)
        return self.first + self.slots.index(slot)

    def cell(self, slot: int) -> str:
        """The address of a slot itself, for scalars (taken once, in the entry block)."""
        if slot not in self.cells:
            j = self.operand(slot)
            self.fn._entry.append(
                f"  %map{j} = getelementptr inbounds i64, ptr %map, i64 {j}\n"
                f"  %slot{j} = load i64, ptr %map{j}, !invariant.load !EMPTY\n"
                f"  %cell{j} = getelementptr inbounds i64, ptr %args, i64 %slot{j}")
            self.cells[slot] = f"%cell{j}"
        return self.cells[slot]

    def pointer(self, slot: int) -> str:
        """The pointer that a slot holds."""
        if slot not in self.pointers:
            j = self.operand(slot)
            self.fn._entry.append(
                f"  %base{j} = load ptr, ptr {self.cell(slot)}, !invariant.load !EMPTY")
            self.pointers[slot] = f"%base{j}"
        return self.pointers[slot]

    def told(self, number: int) -> str:
        """A number that the kernel reads behind its operands, and that is not in its text: kernels
        which differ in such numbers alone are compiled once."""
        k = len(self.numbers)
        self.numbers.append(number)
        self.fn._entry.append(
            f"  %number{k}.at = getelementptr inbounds i64, ptr %map, i64 !TOLD{k}!\n"
            f"  %number{k} = load i64, ptr %number{k}.at, !invariant.load !EMPTY")
        return f"%number{k}"

    def tags(self, slot: int) -> str:
        """Metadata that sets accesses to this slot apart from those to all others."""
        j = self.operand(slot)
        return f", !alias.scope !SCOPE{j}!, !noalias !OTHERS{j}!, !llvm.access.group !ACCESS"

    def position(self, number: int) -> tuple[str, tuple[int, ...], str] | None:
        local = self.local.get(number)
        if local is not None:
            return local
        place = self.storage(number)
        if place is None:
            return None
        return self.pointer(place.slot), place.strides, self.tags(place.slot)

    def scalar(self, number: int, part: int) -> str:
        place = self.storage(number)
        assert place is not None
        cell = self.cell(place.slot)
        return cell if not part else self.fn.gep("i64", cell, part)

    def put(self, number: int, index: Sequence[Index], value: Any) -> None:
        """Store an element of a step at its place in memory."""
        place = self.storage(number)
        assert place is not None
        at = self.emitter.index(flatten(index, place.strides))
        expr.store_value(self.fn, self.steps[number].spec.dtype, value,
                         self.pointer(place.slot), at, self.tags(place.slot))

    def loop_metadata(self) -> str:
        """Metadata of an innermost loop: its rounds touch memory independently."""
        return "!LOOP"

    @contextmanager
    def picking(self, start: Any, stop: Any, hint: str, itemsize: int, rounds: Any = 0
                ) -> Iterator[str]:
        """An innermost loop whose vectors, of so large elements, are picked under a mask.

        After the last whole vector it goes on one by one where it has that many `rounds`, or more
        than a vector; so vectors are as wide as it takes the fewest steps.  One or two rounds are
        written out before they could be, and LLVM would complain of that.  It would also complain
        where it finds no proof that rounds are independent: with one such loop in a kernel, none
        of it picks.
        """
        fn, few = self.fn, isinstance(rounds, int) and 0 < rounds < 3
        if not few:
            self.width = lanes = target().lanes(itemsize)
            if isinstance(rounds, int) and rounds:
                widths = [lanes >> k for k in range(lanes.bit_length() - 1)]
                self.width = min(widths, key=lambda w: rounds // w + rounds % w)
        before = fn.opaque
        kind = self.loop_metadata() if few else "!PICKING"
        with fn.loop(start, stop, hint=hint, metadata=kind) as index:
            yield index
        self.proven = self.proven and (few or fn.opaque == before)

    def finish(self, ntiles: int, cost: float) -> KernelText:
        """Resolve the metadata, name the kernel by its content, and wrap it up."""
        self.fn.finish()
        self.resolve()
        name, text = named(self.module)
        return KernelText(name, text, tuple(self.slots), ntiles, cost, tuple(self.numbers))

    def resolve(self) -> None:
        """Put metadata nodes in place of the names that the body of the kernel refers to."""
        module = self.module
        kernel = module.functions["KERNEL"]
        body = kernel.body
        for k in range(len(self.numbers)):
            body = body.replace(f"!TOLD{k}!", str(self.first + len(self.slots) + k))
        empty = module.metadata("!{}")
        domain = module.metadata('!{!SELF, !"operands"}', distinct=True)
        scopes = [module.metadata(f"!{{!SELF, {domain}}}", distinct=True) for _ in self.slots]
        for j, scope in enumerate(scopes, self.first):
            others = module.metadata("!{" + ", ".join(s for s in scopes if s != scope) + "}")
            body = body.replace(f"!SCOPE{j}!", module.metadata(f"!{{{scope}}}"))
            body = body.replace(f"!OTHERS{j}!", others)
        group = module.metadata("!{}", distinct=True)
        parallel = module.metadata(f'!{{!"llvm.loop.parallel_accesses", {group}}}')
        whole = module.metadata('!{!"llvm.loop.unroll.disable"}')
        module.strided = self.width > 0 and self.proven
        picking = ""
        masked = ""
        if "!MASKED" in body:
            masked = ", " + module.metadata(
                '!{!"llvm.loop.vectorize.predicate.enable", i1 true}')
        if module.strided:
            picking = ", " + module.metadata(
                f'!{{!"llvm.loop.vectorize.width", i32 {self.width}}}')
        for name, more in (("!SHORT", f", {whole}"), ("!LOOP", ""), ("!PICKING", picking),
                           ("!MASKED", masked)):
            parts = body.split(name)
            body = parts[0]
            for part in parts[1:]:
                body += module.metadata(f"!{{!SELF, {parallel}{more}}}", distinct=True) + part
        body = body.replace("!EMPTY", empty).replace("!ACCESS", group)
        module.functions["KERNEL"] = kernel._replace(body=body)
