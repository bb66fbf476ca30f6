"""Convolutions of a schedule: their kernels, with what follows them written into their tiles."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from facula.codegen.convolutions.blocks.choice import emit_blocks
from facula.codegen.convolutions.blocks.convolution import Blocks
from facula.codegen.convolutions.blocks.weight import BlocksWeight, WeightKernel
from facula.codegen.convolutions.choice import emit_convolution
from facula.codegen.convolutions.convolution import Convolution, Emitted
from facula.codegen.convolutions.direct import TileWriter
from facula.codegen.convolutions.walks import Block
from facula.codegen.elements import expr
from facula.codegen.elements.loops import point_cost
from facula.codegen.elements.writer import KernelWriter
from facula.codegen.kernel import KernelText, Role, Storage, named
from facula.codegen.llvm import LLVM_TYPES, Fn
from facula.codegen.products.epilogue import NS_PER_FLOP, GroupEpilogue, Product, Rounded, bind
from facula.codegen.products.tiles import batch_offset
from facula.codegen.target import target
from facula.graph.spec import Step
from facula.groups.group import Group, item_start, spread
from facula.groups.index import Index, flatten, loop_var, unflatten
from facula.groups.reads import accesses

__all__ = ["emit_convolution_group"]


class _GroupFinish(GroupEpilogue):
    """The items of a group on the tiles of a convolution; see `convolutions.convolution.Finish`."""

    def __init__(self, steps: Sequence[Step], group: Group, product: int,
                 c: Convolution | Blocks | BlocksWeight,
                 storage: Callable[[int], Storage | None],
                 scalars: Callable[[int], Storage | None]):
        super().__init__(steps, group, product, None, storage, scalars)
        self.convolution = c
        if isinstance(c, Blocks) and c.squares:
            self.first = 3

    def roles(self) -> tuple[Role, ...]:
        return tuple(("extra", i) for i in range(self.extras))

    def _alone(self, fn: Fn) -> tuple[TileWriter, str] | None:
        """Where nothing follows the product: what copies lines to memory, and where that is."""
        place = self.storage(self.product)
        if len(self.group.items) > 1 or place is None:
            return None
        assert self.writer is not None
        fn.module.light = True
        return (TileWriter(fn.module, self.convolution.dtype, target()),
                self.writer.pointer(place.slot))

    def _point(self, fn: Fn, index: tuple[Index, ...], names: Sequence[tuple[Index, Any]],
               sums: str, at: Any, rounded: Rounded | None = None) -> None:
        """One element of the result: its sum is sums[at]."""
        assert self.writer is not None
        em = self.writer.emitter
        dtype = self.steps[self.product].spec.dtype
        em.open()
        bind(em, *zip(*names, strict=True))
        value = expr.load_value(fn, dtype, sums, at, ", !llvm.access.group !ACCESS")
        em.remember((self.product, index), value)
        self._items(self.writer, index, self._live(index), rounded,
                    fn.gep(LLVM_TYPES[self.convolution.dtype], sums, at))
        em.close()

    def _live(self, index: tuple[Index, ...]) -> list[Index]:
        """What of an index of the product is not constant."""
        shape = self.steps[self.product].spec.shape
        return [i for i, n in zip(index, shape, strict=True) if n != 1]

    def ask(self, fn: Fn, block: Block, starts: Sequence[Any], counts: Sequence[Any],
            channel: Any, channels: Any) -> None:
        """Ask for the lines that `places` will write of bfloat16 results, while their sums are
        still to be made: there is too little to compute for each of them to wait for it."""
        size = self.steps[self.product].spec.shape[2:]
        index, (image, own, flat) = self._plain()
        if any(w.out_step != 1 for w in block.walks):
            return
        rounded = self.rounded(self._live(index), flat, self.convolution.dtype)
        if rounded is None:
            return
        em = self._begun(fn).emitter
        f = fn.module.declare("void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        first, count = self._line(fn, starts, counts, size)
        with fn.loop(0, channels, hint="o") as o, fn.loop(0, counts[0], hint="n") as n:
            em.open()
            bind(em, (image, own, flat), (fn.add(starts[0], n), fn.add(channel, o), first))
            to = fn.gep("i16", self._begun(fn).pointer(rounded.slot), em.index(rounded.at))
            em.close()
            with fn.loop(0, count, 32, "line") as j:
                fn.do(f"call void {f}(ptr {fn.gep('i16', to, j)}, i32 1, i32 2, i32 1)")

    def _plain(self) -> tuple[tuple[Index, ...], tuple[Index, Index, Index]]:
        """The index of an output, and the variables (image, channel, place)."""
        n_all, c_all, *size = self.steps[self.product].spec.shape
        image, own = loop_var("image", n_all, 0), loop_var("channel", c_all, 1)
        flat = loop_var("place", prod(size), 2)
        return (image, own, *unflatten(flat, size)), (image, own, flat)

    def _line(self, fn: Fn, starts: Sequence[Any], counts: Sequence[Any], size: Sequence[int]
              ) -> tuple[Any, Any]:
        """The first and the number of a block's places of an image, as one line."""
        first: Any = 0
        count: Any = 1
        for d in range(len(size)):
            first = fn.add(first, fn.mul(starts[d + 1], prod(size[d + 1:])))
            count = fn.mul(count, counts[d + 1])
        return first, count

    def places(self, fn: Fn, block: Block, starts: Sequence[Any], counts: Sequence[Any],
               channel: Any, channels: Any, sums: str, ld: int, step: int = 1) -> None:
        """sums[o * ld + i] of channels o and the block's outputs i."""
        writer = self._begun(fn)
        metadata = writer.loop_metadata()
        kind = LLVM_TYPES[self.convolution.dtype]
        _, c_all, *size = self.steps[self.product].spec.shape
        index, (image, own, flat) = self._plain()
        strides = block.point_strides
        plain = all(w.out_step == 1 for w in block.walks)
        whole = self._lines(block, size)
        lines = [loop_var(f"place{d}", n, 2 + d) for d, n in enumerate(size)]
        alone = self._alone(fn) if plain else None
        rounded = self.rounded(self._live(index), flat, self.convolution.dtype) if plain else None
        fn.module.light = fn.module.light or self.only(rounded)
        with fn.loop(0, channels, hint="o") as o:
            row = fn.gep(kind, sums, fn.mul(o, ld))
            named_ = [(own, fn.add(channel, fn.mul(o, step)))]
            with fn.loop(0, counts[0], hint="n") as n:
                line = fn.gep(kind, row, fn.mul(n, strides[0]))
                named_ += [(image, fn.add(starts[0], n))]
                if plain:
                    first, count = self._line(fn, starts, counts, whole)
                    if alone is not None:
                        row_at = fn.add(fn.mul(named_[-1][1], c_all), named_[0][1])
                        alone[0].copy(fn, line, fn.gep(kind, alone[1], fn.add(
                            fn.mul(row_at, prod(size)), first)), count)
                    elif not self.only(rounded):
                        with fn.loop(0, count, hint="p", metadata=metadata) as p:
                            self._point(fn, index, [*named_, (flat, fn.add(first, p))], line, p,
                                        rounded)
                    if rounded is not None:
                        places, values = zip(*named_, (flat, first))
                        self.round(fn, rounded, places, values, line, count)
                else:
                    self._spread(fn, block, starts, counts, lines, (image, own), named_, line,
                                 0)

    def blocks(self, fn: Fn, block: Block, starts: Sequence[Any], counts: Sequence[Any],
               first: Any, blocks: Any, sums: str, plane: int) -> None:
        """sums[b * plane + i * lanes + l] of blocks of channels from `first` on, and outputs i."""
        writer = self._begun(fn)
        metadata = writer.loop_metadata()
        kind = LLVM_TYPES[self.convolution.dtype]
        index, (image, own, flat, lane) = self._blocked()
        lanes = self.steps[self.product].spec.shape[-1]
        whole = self._lines(block, self.steps[self.product].spec.shape[2:-1])
        with fn.loop(0, blocks, hint="b") as b, fn.loop(0, counts[0], hint="n") as n:
            line = fn.gep(kind, sums, fn.add(fn.mul(b, plane),
                                             fn.mul(n, block.point_strides[0] * lanes)))
            at: Any = 0
            count: Any = 1
            for d, m in enumerate(counts[1:]):
                at = fn.add(at, fn.mul(starts[d + 1], prod(whole[d + 1:])))
                count = fn.mul(count, m)
            names = [(own, fn.add(first, b)), (image, fn.add(starts[0], n))]
            with fn.loop(0, count, hint="p") as p:
                row = fn.gep(kind, line, fn.mul(p, lanes))
                place = [*names, (flat, fn.add(at, p))]
                with fn.loop(0, lanes, hint="l", metadata=metadata) as k:
                    self._point(fn, index, [*place, (lane, k)], row, k)

    def soon(self, fn: Fn, block: Block, starts: Sequence[Any], rect: Sequence[int],
             firsts: Sequence[Any], first: Any, blocks: int) -> None:
        """Ask for what `blocks` will read and write of a register tile, before its sums are made:
        `rect` outputs from `firsts` on, and blocks of channels from `first` on."""
        writer = self._begun(fn)
        index, (image, own, flat, lane) = self._blocked()
        shape = self.steps[self.product].spec.shape
        variables = [i for i, n in zip(index, shape, strict=True) if n != 1]
        whole = self._lines(block, self.steps[self.product].spec.shape[2:-1])
        apart = [prod(whole[d + 1:]) for d in range(len(whole))]
        at = batch_offset(fn, [fn.add(s, f) for s, f in zip(starts[1:], firsts[1:], strict=True)],
                          apart)
        em = writer.emitter
        em.open()
        names: list[tuple[Index, Any]] = [
            (image, fn.add(starts[0], firsts[0])), (own, first), (flat, at), (lane, 0)]
        bind(em, *zip(*names, strict=True))
        f = fn.module.declare("void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        for slot, place, kind, write in self._touched(variables, flat, lane):
            base = fn.val(f"getelementptr {kind}, ptr {writer.pointer(slot)}, "
                          f"i64 {em.index(place)}")
            far = [place.coefficient(v.terms[0][0]) if v.terms else 0 for v in (image, own, flat)]
            for b in range(blocks):
                for n, *inner in itertools.product(*map(range, rect)):
                    off = n * far[0] + b * far[1] + far[2] * sum(
                        i * a for i, a in zip(inner, apart, strict=True))
                    fn.do(f"call void {f}(ptr {fn.gep(kind, base, off)}, i32 {write}, i32 2, "
                          "i32 1)")
        em.close()

    def _touched(self, variables: Sequence[Index], flat: Index, lane: Index
                 ) -> list[tuple[int, Index, str, int]]:
        """(slot, place, type, whether written) of what has an element for each of a block."""
        steps = self.steps
        found: dict[tuple[int, Index], tuple[int, Index, str, int]] = {}
        for item in self.group.items:
            start = [] if item.step == self.product else item_start(
                steps, self.group, item, variables, [])
            shape = steps[item.step].spec.shape
            for source, index, write in [
                    *((s, i, 0) for s, i in accesses(steps, start, self._found)),
                    (item.step, spread(shape, variables), 1)]:
                place = self.storage(source)
                if place is None or source == self.product and not write:
                    continue
                at = flatten(index, place.strides)
                known = {v.terms[0][0] for v in variables if v.terms and len(v.terms) == 1}
                if flat.terms:
                    known.add(flat.terms[0][0])
                if all(v in known for v, _ in at.terms) and flat.terms and lane.terms \
                        and at.coefficient(lane.terms[0][0]) == 1 \
                        and at.coefficient(flat.terms[0][0]):
                    kind = LLVM_TYPES[steps[source].spec.dtype.name]
                    found[place.slot, at] = place.slot, at, kind, write
        return list(found.values())

    def _begun(self, fn: Fn) -> KernelWriter:
        """The writer of the kernel's end, begun once."""
        if not self.begun or self.writer is None:
            self.writer, self.begun = self.begin(fn), True
        return self.writer

    def _blocked(self) -> tuple[tuple[Index, ...], tuple[Index, ...]]:
        """The index of an output on blocks, and the variables (image, block, place, lane)."""
        n_all, b_all, *size, lanes = self.steps[self.product].spec.shape
        image, own = loop_var("image", n_all, 0), loop_var("block", b_all, 1)
        flat, lane = loop_var("place", prod(size), 2), loop_var("lane", lanes, 9)
        return (image, own, *unflatten(flat, size), lane), (image, own, flat, lane)

    def _lines(self, block: Block, size: Sequence[int]) -> Sequence[int]:
        """The sizes of places; where they are one line, the block has one dimension for all."""
        return size if len(block.size) - 1 == len(size) else [prod(size)]

    def _spread(self, fn: Fn, block: Block, starts: Sequence[Any], counts: Sequence[Any],
                lines: Sequence[Index], index: tuple[Index, ...], names: list[Any], line: str,
                at: Any) -> None:
        """Outputs that are not neighbours, one dimension after the other."""
        assert self.writer is not None
        d = len(index) - 2
        if d == len(lines):
            self._point(fn, index, names, line, at)
            return
        w, count, inner = block.walks[d], counts[d + 1], d == len(lines) - 1
        item = self.steps[self.product].spec.dtype.itemsize
        with (self.writer.picking(0, count, "s", item, count) if inner and 1 < w.out_step <= 8 else
              fn.loop(0, count, hint="s",
                      metadata=self.writer.loop_metadata() if inner else "")) as i:
            place = fn.add(fn.mul(fn.add(starts[d + 1], i), w.out_step), w.out0)
            self._spread(fn, block, starts, counts, lines, (*index, lines[d]),
                         [*names, (lines[d], place)], line,
                         fn.add(at, fn.mul(i, block.point_strides[d + 1])))

    def taps(self, fn: Fn, part: Any, channel: Any, channels: Any, first: Any, count: Any,
             sums: str, ld: int, step: int = 1) -> None:
        """sums[o * ld + i] of output channels o, and of input channels and taps i."""
        writer = self.begin(fn)
        kind = LLVM_TYPES[self.convolution.dtype]
        shape = self.steps[self.product].spec.shape
        split = bool(self.convolution.parts)
        lead = (loop_var("part", shape[0], 0),) if split else ()
        c_all, *rest = shape[1:] if split else shape
        own, flat = loop_var("channel", c_all, 1), loop_var("tap", prod(rest), 2)
        alone = self._alone(fn)
        with fn.loop(0, channels, hint="o") as o:
            row = fn.gep(kind, sums, fn.mul(o, ld))
            if alone is not None:
                line = fn.add(fn.mul(part, c_all), fn.add(channel, fn.mul(o, step)))
                alone[0].copy(fn, row, fn.gep(kind, alone[1], fn.add(
                    fn.mul(line, prod(rest)), first)), count)
            else:
                with fn.loop(0, count, hint="t", metadata=writer.loop_metadata()) as t:
                    names = [(own, fn.add(channel, fn.mul(o, step))), (flat, fn.add(first, t))]
                    if split:
                        names.append((lead[0], part))
                    self._point(fn, (*lead, own, *unflatten(flat, rest)), names, row, t)


def emit_convolution_group(steps: Sequence[Step], group: Group,
                           c: Convolution | Blocks | BlocksWeight,
                           slots: Sequence[int],
                           storage: Callable[[int], Storage | None],
                           scalars: Callable[[int], Storage | None]) -> Product:
    """The kernels of a convolution's group; `slots` are those of its operands."""
    product = next(i.step for i in group.items if i.role == "all")
    if not isinstance(c, Convolution):
        finish = _GroupFinish(steps, group, product, c, storage, scalars)
        made = Emitted([], [emit_blocks(c, finish) if isinstance(c, Blocks) else
                            (WeightKernel(c, target(), finish).emit(), finish)], [])
    else:
        made = emit_convolution(c, lambda: _GroupFinish(steps, group, product, c, storage, scalars))
    out = Product()
    numbers = {name: k for k, (name, _) in enumerate(made.temporaries)}
    out.temporaries = [size for _, size in made.temporaries]
    after = steps[product].spec.numel * point_cost(steps, group, storage) * 0.1

    def written(kernel: Any, finish: _GroupFinish | None) -> tuple[KernelText, list[int | str]]:
        if finish is not None and finish.writer is not None:
            finish.writer.resolve()
        label, text = named(kernel.module)
        operands: list[int | str] = []
        for role in kernel.roles:
            if isinstance(role, tuple):
                assert finish is not None and finish.writer is not None
                operands.append(finish.writer.slots[role[1]])
            elif role in numbers:
                operands.append(f"tmp{numbers[role]}")
            else:
                operands.append(slots["abc".index(role)])
        extra = after * kernel.weight if finish is not None else 500.0
        return KernelText(label, text, (), kernel.ntiles,
                          kernel.weight * c.flops * NS_PER_FLOP + extra), operands

    if made.packing:
        out.phases.append([written(k, None) for k in made.packing])
    out.phases.append([written(k, finish) for k, finish in made.last])
    return out
