"""From steps to instructions: the code of one element.

`Emitter` writes it, recursively through everything that is not in memory; which elements that is
made of is said by `facula.groups.reads`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from facula.codegen.elements import expr
from facula.codegen.elements.bounds import magnitude
from facula.codegen.elements.mathlib.trigonometric import NEAR
from facula.codegen.llvm import Fn
from facula.dtype import DType, float64, int32, int64, uint64
from facula.graph.spec import Step
from facula.groups.index import Index, Var, flatten, quotient, remainder, row_major
from facula.groups.kinds import ELEMENTWISE, MOVEMENT
from facula.groups.reads import Place, clamp, operands, update_window

__all__ = ["Emitter"]

FIXED = ", !invariant.load !EMPTY"
"""Of what no kernel writes to: LLVM need not ask, in a loop, whether a store has changed it."""

def _range(steps: Sequence[Step], number: int, index: tuple[Index, ...], left: int = 16
           ) -> tuple[int, int] | None:
    """The least and the largest that an int64 element can be, if the few steps behind it tell."""
    step = steps[number]
    if step.spec.dtype is not int64:
        return None
    if step.op == "full":
        return int(step.attrs[0]), int(step.attrs[0])
    if step.op == "iota":
        return index[0].bounds()
    if not left or step.op not in MOVEMENT | {"add", "sub", "minimum", "maximum", "mul"}:
        return None
    found = [_range(steps, *place, left - 1) for place in operands(steps, number, index)]
    parts = [r for r in found if r is not None]
    if len(parts) < len(found) or len(found) == 1:
        return found[0] if len(found) == 1 else None
    (a, b), (c, d) = parts
    if step.op == "add":
        return a + c, b + d
    if step.op == "sub":
        return a - d, b - c
    if step.op == "mul":
        ends = a * c, a * d, b * c, b * d
        return min(ends), max(ends)
    of = min if step.op == "minimum" else max
    return of(a, c), of(b, d)


class Emitter:
    """Writes the code of single elements inside the loops of one kernel.

    `position(step)` gives (operand pointer, strides, metadata) of a step that is in memory, or
    None.  `names` maps loop variables to LLVM values; `told` gives a number as one that is not in
    the text, where the kernel has such.  Values are remembered per scope: `open`
    and `close` bracket what is written inside a loop or branch, which cannot be used after it.
    """

    def __init__(self, fn: Fn, steps: Sequence[Step],
                 position: Callable[[int], tuple[str, tuple[int, ...], str] | None],
                 scalar: Callable[[int, int], str], status: Callable[[], str]):
        self.fn = fn
        self.steps = steps
        self.position = position
        self.scalar_slot = scalar
        self.status = status
        self.bad = ""                   # where it is kept that an index was out of its range
        self.names: dict[Var, str] = {}
        self.told: Callable[[int], str | int] = lambda number: number
        self.scopes: list[dict[Any, Any]] = [{}]

    def open(self) -> None:
        self.scopes.append({})

    def close(self) -> None:
        self.scopes.pop()

    def recall(self, key: Any) -> Any:
        for scope in reversed(self.scopes):
            if key in scope:
                return scope[key]
        return None

    def remember(self, key: Any, value: Any) -> Any:
        self.scopes[-1][key] = value
        return value

    # -- indices
    def index(self, index: Index) -> str | int:
        """The i64 value (or a number) of an index."""
        if not index.terms:
            return index.offset
        known = self.recall(index)
        if known is not None:
            return known
        total: str | int = index.offset
        for var, coef in index.terms:
            total = self.fn.add(self.fn.mul(self._var(var), coef), total)
        return self.remember(index, total)

    def _var(self, var: Var) -> str | int:
        if var.kind == "loop":
            return self.names[var]
        known = self.recall(var)
        if known is not None:
            return known
        fn = self.fn
        if var.kind in ("div", "mod"):
            inner, n = var.args
            name = "udiv" if var.kind == "div" else "urem"
            out = self._divided(name, self.index(inner), n, inner.bounds()[1] < 1 << 32)
        elif var.kind == "clamp":
            inner, n = var.args
            value = self.index(inner)
            inside = fn.val(f"icmp ult i64 {value}, {n}")
            out = fn.val(f"select i1 {inside}, i64 {value}, i64 0")
        elif var.kind == "load":
            source, index, n = var.args
            value = self.value(source, index)
            inside = fn.val(f"icmp ult i64 {value}, {n}")
            self._note(inside)
            out = fn.val(f"select i1 {inside}, i64 {value}, i64 0")
        else:
            raise KeyError(var.kind)
        return self.remember(var, out)

    def _note(self, fine: str) -> None:
        """Keep in mind whether an index was not `fine`, and write it down when the kernel ends.

        A branch here would keep LLVM from turning the loop around it into vectors, with all the
        arithmetic that follows in it; this is a sum like any other.
        """
        fn = self.fn
        if not self.bad:
            self.bad = fn.alloca("i64")
            fn.at_entry(f"store i64 0, ptr {self.bad}")
            fn.closing.append(self._tell)
            fn.module.singly = True
        wrong = fn.val(f"zext i1 {fn.val(f'xor i1 {fine}, true')} to i64")
        fn.store("i64", fn.val(f"or i64 {fn.load('i64', self.bad)}, {wrong}"), self.bad)

    def _tell(self) -> None:
        fn = self.fn
        with fn.when(fn.val(f"icmp ne i64 {fn.load('i64', self.bad)}, 0")):
            fn.store("i64", "1", self.status())

    def _divided(self, name: str, operand: str | int, n: int, short: bool) -> str | int:
        """Quotient or remainder: narrow division is several times faster, and what is divided
        nearly always fits."""
        fn = self.fn
        if not short:
            return fn.val(f"{name} i64 {operand}, {n}")
        operand = fn.val(f"trunc i64 {operand} to i32")
        return fn.val(f"zext i32 {fn.val(f'{name} i32 {operand}, {n}')} to i64")

    # -- values
    def value(self, number: int, index: tuple[Index, ...]) -> Any:
        """The register value of element `index` of a step."""
        key = (number, index)
        known = self.recall(key)
        if known is not None:
            return known
        place = self.position(number)
        if place is not None:
            pointer, strides, tags = place
            at = self.index(flatten(index, strides))
            out = expr.load_value(self.fn, self.steps[number].spec.dtype, pointer, at, tags)
        else:
            out = self.compute(number, index)
        return self.remember(key, out)

    def compute(self, number: int, index: tuple[Index, ...]) -> Any:
        """The same, computed even though the step may (later) be in memory."""
        fn, step = self.fn, self.steps[number]
        op, dtype = step.op, step.spec.dtype
        if op in MOVEMENT:
            return self.value(*operands(self.steps, number, index)[0])
        if op in ELEMENTWISE:
            if op in ("minimum", "maximum") and dtype is int64:
                known = self._decided(step, index)
                if known is not None:
                    return self.value(known, index)
            args = [self.value(i, index) for i in step.inputs]
            dtypes = [self.steps[i].spec.dtype for i in step.inputs]
            if op in ("sin", "cos") and dtype.kind == "f" and dtype.itemsize >= 4 \
                    and magnitude(self.steps, step.inputs[0]) <= NEAR:
                op = f"near {op}"
            return expr.emit_op(fn, op, args, dtypes, dtype)
        if op == "full":
            return expr.constant(dtype, step.attrs[0])
        if op == "iota":
            return expr.emit_cast(fn, str(self.index(index[0])), int64, dtype)
        if op == "window_place":
            place = expr.emit_cast(fn, self.value(step.inputs[0], index), int32, dtype)
            size, _, stride, padding = step.attrs
            apart = row_major(size)
            start = flatten(index[-len(size):],
                            [s * a for s, a in zip(stride, apart, strict=True)],
                            -sum(p * a for p, a in zip(padding, apart, strict=True)))
            return str(fn.add(self.index(start), place))
        if op == "scalar":
            return self._scalar(number, dtype)
        if op == "philox":
            return self._philox(number, index)
        places = operands(self.steps, number, index)
        if op in ("take", "gather"):
            return self.value(*places[0])
        if op == "pad":
            low, _, fill = step.attrs
            shape = self.steps[step.inputs[0]].spec.shape
            filler = expr.constant(dtype, fill)
            if 0 in shape:
                return filler
            tests = [(i + (-lo), n, 1) for i, lo, n in zip(index, low, shape, strict=True)]
            return self._guarded(tests, places[0], filler, dtype)
        if op == "slice_update":
            base = self.value(*places[0])
            shape = self.steps[step.inputs[1]].spec.shape
            if 0 in shape:
                return base
            starts, strides = step.attrs
            _, tests = update_window(index, starts, strides, shape)
            return self._guarded(tests, places[1], base, dtype)
        if op == "cat":
            return self._cat(number, index, places)
        raise KeyError(op)

    def _decided(self, step: Step, index: tuple[Index, ...]) -> int | None:
        """The operand that a minimum or maximum is, where that is known: in the middle of an
        image all windows of a mean have the same number of elements."""
        a, b = (_range(self.steps, i, index) for i in step.inputs)
        if a is None or b is None:
            return None
        if a[1] <= b[0]:
            return step.inputs[step.op == "maximum"]
        return step.inputs[step.op == "minimum"] if b[1] <= a[0] else None

    def _guarded(self, tests: Sequence[tuple[Index, int, int]], place: Place, other: Any,
                 dtype: DType) -> Any:
        """The element `place` where every test holds, else `other`."""
        fn = self.fn
        condition = None
        for index, span, step in tests:
            low, high = index.bounds()
            if high < 0 or low >= span:
                return other
            checks = []
            if low < 0 or high >= span:
                checks.append(fn.val(f"icmp ult i64 {self.index(index)}, {span}"))
            if step > 1:
                rest = self.index(remainder(clamp(index, span), step))
                checks.append(fn.val(f"icmp eq i64 {rest}, 0"))
            for check in checks:
                condition = fn.val(f"and i1 {condition}, {check}") if condition else check
        value = self.value(*place)
        return value if condition is None else expr.select(fn, dtype, condition, value, other)

    def _cat(self, number: int, index: tuple[Index, ...], places: list[Place]) -> Any:
        step = self.steps[number]
        axis = step.attrs[0]
        out, start = None, 0
        for source, place in places:
            n = self.steps[source].spec.shape[axis]
            value = self.value(source, place)
            if out is None:
                out = value
            else:
                later = self.fn.val(f"icmp sge i64 {self.index(index[axis])}, {start}")
                out = expr.select(self.fn, step.spec.dtype, later, value, out)
            start += n
        return out

    def _scalar(self, number: int, dtype: DType) -> Any:
        fn = self.fn
        if dtype.kind == "c":
            return tuple(expr.emit_cast(
                fn, fn.load("double", self.scalar_slot(number, k), extra=FIXED), float64,
                expr.part(dtype)) for k in (0, 1))
        if dtype.kind == "f":
            return expr.emit_cast(fn, fn.load("double", self.scalar_slot(number, 0), extra=FIXED),
                                  float64, dtype)
        word = fn.load("i64", self.scalar_slot(number, 0), extra=FIXED)
        return expr.emit_cast(fn, word, uint64 if dtype.kind == "u" else int64, dtype)

    def _philox(self, number: int, index: tuple[Index, ...]) -> str:
        """Word i % 4 of Philox4x32-10 at counter offset + i // 4 (Salmon et al., SC 2011)."""
        fn, step = self.fn, self.steps[number]
        key = self.value(step.inputs[0], ())
        offset = self.value(step.inputs[1], ())
        position = flatten(index, row_major(step.spec.shape))
        if position.terms and position.offset:      # a later part of what is drawn
            at = fn.add(self.index(position + -position.offset), self.told(position.offset))
            short = position.bounds()[1] < 1 << 32
            block, word = self._divided("udiv", at, 4, short), self._divided("urem", at, 4, short)
        else:
            block, word = self.index(quotient(position, 4)), self.index(remainder(position, 4))
        counter = fn.val(f"add i64 {offset}, {block}")
        c = [fn.val(f"trunc i64 {counter} to i32"),
             fn.val(f"trunc i64 {fn.val(f'lshr i64 {counter}, 32')} to i32"), "0", "0"]
        k0 = fn.val(f"trunc i64 {key} to i32")
        k1 = fn.val(f"trunc i64 {fn.val(f'lshr i64 {key}, 32')} to i32")
        for round_ in range(10):
            if round_:
                k0 = fn.val(f"add i32 {k0}, {0x9E3779B9}")
                k1 = fn.val(f"add i32 {k1}, {0xBB67AE85}")
            halves = []
            for value, factor in ((c[0], 0xD2511F53), (c[2], 0xCD9E8D57)):
                wide = fn.val(f"mul i64 {fn.val(f'zext i32 {value} to i64')}, {factor}")
                halves.append((fn.val(f"trunc i64 {fn.val(f'lshr i64 {wide}, 32')} to i32"),
                               fn.val(f"trunc i64 {wide} to i32")))
            (h0, l0), (h1, l1) = halves
            c = [fn.val(f"xor i32 {fn.val(f'xor i32 {h1}, {c[1]}')}, {k0}"), l1,
                 fn.val(f"xor i32 {fn.val(f'xor i32 {h0}, {c[3]}')}, {k1}"), l0]
        out = c[0]
        for k in (1, 2, 3):
            here = fn.val(f"icmp eq i64 {word}, {k}")
            out = fn.val(f"select i1 {here}, i32 {c[k]}, i32 {out}")
        return out
