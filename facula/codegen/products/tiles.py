"""What the generators of contractions share: operands, batches, masks, the ends of tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from facula.codegen.elements import half
from facula.codegen.kernel import Role
from facula.codegen.llvm import LLVM_TYPES, Fn, Module
from facula.codegen.products.contraction import Contraction, Epilogue
from facula.dtype import DTYPES

__all__ = ["PARAMS", "Store", "batch_offset", "convert", "mask_literal", "masked_load",
           "masked_store", "memory_type", "operand", "roles_of", "rolled", "smin", "start",
           "sums_over_k", "transposed", "unravel", "wide_load"]

PARAMS = (("ptr", "args"), ("ptr", "map"), ("i64", "tile"))
"""Parameters of every kernel."""

_SHORT = ("float16", "bfloat16")


def operand(fn: Fn, number: int) -> str:
    """The pointer of operand `number`: args[map[number]]."""
    slot = fn.load("i64", fn.gep("i64", "%map", number))
    return fn.load("ptr", fn.gep("ptr", "%args", slot))


def unravel(fn: Fn, flat: str | int, shape: Sequence[int], always: Sequence[int] = ()
            ) -> list[str | int]:
    """Row-major indices of position `flat` in `shape`; a dimension of 1 has index 0 without any
    code, unless it is among `always`."""
    out: list[str | int] = [0] * len(shape)
    live = [d for d, n in enumerate(shape) if n > 1 or d in always]
    for d in reversed(live):
        if d == live[0]:
            out[d] = flat
        else:
            out[d] = fn.val(f"srem i64 {flat}, {shape[d]}", "d")
            flat = fn.val(f"sdiv i64 {flat}, {shape[d]}", "d")
    return out


def batch_offset(fn: Fn, indices: Sequence[str | int], strides: Sequence[int]) -> str | int:
    """Element offset of a batch."""
    total: str | int = 0
    for index, stride in zip(indices, strides, strict=True):
        total = fn.add(total, fn.mul(index, stride))
    return total


def mask_literal(lanes: int, on: int) -> str:
    return "<" + ", ".join(f"i1 {'true' if i < on else 'false'}" for i in range(lanes)) + ">"


def masked_load(fn: Fn, scalar: str, lanes: int, on: int, ptr: str, align: int) -> str:
    """The first `on` of `lanes` elements at `ptr`, zeros after them."""
    vector = f"<{lanes} x {scalar}>"
    if on == lanes:
        return fn.load(vector, ptr, align)
    suffix = {"float": "f32", "double": "f64"}[scalar]
    f = fn.module.declare(
        f"{vector} @llvm.masked.load.v{lanes}{suffix}.p0(ptr, i32, <{lanes} x i1>, {vector})")
    return fn.val(f"call {vector} {f}(ptr {ptr}, i32 {align}, <{lanes} x i1> "
                  f"{mask_literal(lanes, on)}, {vector} zeroinitializer)")


def wide_load(fn: Fn, dtype: str, lanes: int, on: int, ptr: str) -> str:
    """The first `on` of `lanes` elements of `dtype`, 16-bit ones as float, zeros after them."""
    kind = memory_type(dtype)
    if dtype not in _SHORT:
        return masked_load(fn, kind, lanes, on, ptr, DTYPES[dtype].itemsize)
    value = half.widen(fn, dtype, fn.load(f"<{on} x {kind}>", ptr, 2), on)
    if on == lanes:
        return value
    order = ", ".join(f"i32 {min(i, on)}" for i in range(lanes))
    return fn.val(f"shufflevector <{on} x float> {value}, <{on} x float> zeroinitializer, "
                  f"<{lanes} x i32> <{order}>")


def masked_store(fn: Fn, scalar: str, lanes: int, on: int, value: str, ptr: str,
                 align: int) -> None:
    """The first `on` of `lanes` elements of `value` to `ptr`."""
    vector = f"<{lanes} x {scalar}>"
    if on == lanes:
        fn.store(vector, value, ptr, align)
        return
    suffix = {"float": "f32", "double": "f64"}[scalar]
    f = fn.module.declare(
        f"void @llvm.masked.store.v{lanes}{suffix}.p0({vector}, ptr, i32, <{lanes} x i1>)")
    fn.do(f"call void {f}({vector} {value}, ptr {ptr}, i32 {align}, <{lanes} x i1> "
          f"{mask_literal(lanes, on)})")


class Store:
    """The epilogue of a contraction without one: the sums, converted, into C's strides."""

    extras = 1

    def __init__(self, c: Contraction):
        self.c = c
        self.operands: list[str] = []

    def ask(self, fn: Fn, m0: Any, n0: Any, rows: Any, cols: Any,
            batch_indices: tuple[Any, ...]) -> None:
        """There is nothing to fetch."""

    def emit(self, fn: Fn, m0: Any, n0: Any, rows: Any, cols: Any, scratch_ptr: str,
             scratch_ld: int, batch_indices: tuple[Any, ...]) -> None:
        c = self.c
        *cb, cm, cn = c.c_strides
        kind, out = LLVM_TYPES[c.sums], memory_type(c.dtype)
        base = batch_offset(fn, batch_indices, cb)
        with fn.loop(0, rows, hint="i") as i, fn.loop(0, cols, hint="j") as j:
            value = fn.load(kind, fn.gep(kind, scratch_ptr, fn.add(fn.mul(i, scratch_ld), j)))
            at = fn.add(fn.add(base, fn.mul(fn.add(m0, i), cm)), fn.mul(fn.add(n0, j), cn))
            fn.store(out, convert(fn, value, c.sums, c.dtype), fn.gep(out, self.operands[0], at))


def memory_type(dtype: str) -> str:
    """The LLVM type of an element in memory; a bfloat16 is handled as its bits."""
    return "i16" if dtype == "bfloat16" else LLVM_TYPES[dtype]


def convert(fn: Fn, value: str, source: str, to: str) -> str:
    """A value of dtype `source` as dtype `to` of the same kind."""
    if source == to:
        return value
    if to == "float32" and source in _SHORT:
        return half.widen(fn, source, value)
    if source == "float32" and to in _SHORT:
        return half.narrow(fn, to, value)
    have, want = LLVM_TYPES[source], LLVM_TYPES[to]
    widen = DTYPES[source].itemsize < DTYPES[to].itemsize
    if have.startswith("i"):
        widening = "zext" if source.startswith(("u", "bool")) else "sext"
        return fn.val(f"{widening if widen else 'trunc'} {have} {value} to {want}")
    return fn.val(f"{'fpext' if widen else 'fptrunc'} {have} {value} to {want}")


def smin(fn: Fn, a: str | int, b: int) -> str | int:
    if isinstance(a, int):
        return min(a, b)
    f = fn.module.declare("i64 @llvm.smin.i64(i64, i64)")
    return fn.val(f"call i64 {f}(i64 {a}, i64 {b})")


def start(fn: Fn, epilogue: Epilogue | None, first: int) -> None:
    """Load the pointers of an epilogue's operands."""
    if epilogue is not None:
        epilogue.operands = [operand(fn, first + i) for i in range(epilogue.extras)]


def roles_of(own: tuple[Role, ...], epilogue: Epilogue | None) -> tuple[Role, ...]:
    if epilogue is None:
        return (*own, "c")
    if isinstance(epilogue, Store):
        return (*own, "c")
    return (*own, *(("extra", i) for i in range(epilogue.extras)))


def transposed(c: Contraction) -> Contraction:
    """The product of which C is the transpose: operands trade places ('a' is then 'b')."""
    *ab, am, ak = c.a_strides
    *bb, bk, bn = c.b_strides
    *cb, cm, cn = c.c_strides
    return replace(c, m=c.n, n=c.m, a_strides=(*bb, bn, bk), b_strides=(*ab, ak, am),
                   c_strides=(*cb, cn, cm), a_offset=c.b_offset, b_offset=c.a_offset,
                   varies=frozenset({"m": "n", "n": "m"}.get(x, x) for x in c.varies))


Sums = dict[tuple[int, int], str]


@contextmanager
def sums_over_k(fn: Fn, vector: str, tile: Sequence[tuple[int, int]],
                before: Callable[[tuple[int, int]], str]) -> Iterator[tuple[Sums, Sums]]:
    """The loop of a register tile: k from 0 to %kc, one `vector` of sums in registers for each
    of `tile`; unless %first, `before(ij)` is added to them at the end.

    The block writes one round: it reads `sums` and defines the values named `nexts`.  After it
    `sums` are the results.  What was summed before is not gone on with but added: the errors of a
    long sum grow with the length of a chain, and sums of pieces are chains as long as a piece.
    """
    head, body, done, add, out = (fn.new_label(x) for x in ("head", "body", "done", "add", "out"))
    fn.br(head)
    fn.place(head)
    sums = {ij: fn.fresh("s") for ij in tile}
    nexts = {ij: fn.fresh("t") for ij in tile}
    fn.do(f"%k = phi i64 [ 0, %entry ], [ %kn, %{body} ]")
    for ij in tile:
        fn.do(f"{sums[ij]} = phi {vector} [ zeroinitializer, %entry ], [ {nexts[ij]}, %{body} ]")
    fn.cbr(fn.val("icmp slt i64 %k, %kc"), body, done)
    fn.place(body)
    yield sums, nexts
    fn.do("%kn = add nsw i64 %k, 1")
    fn.do(f"br label %{head}, !llvm.loop {rolled(fn.module)}")
    fn.place(done)
    fn.cbr("%first", out, add)
    fn.place(add)
    totals = {ij: fn.val(f"fadd {vector} {before(ij)}, {sums[ij]}") for ij in tile}
    fn.br(out)
    fn.place(out)
    for ij in tile:
        sums[ij] = fn.val(f"phi {vector} [ {sums[ij]}, %{done} ], [ {totals[ij]}, %{add} ]")


def rolled(module: Module) -> str:
    """Metadata of a loop that is not to be unrolled."""
    still = module.metadata('!{!"llvm.loop.unroll.disable"}')
    return module.metadata(f"!{{!SELF, {still}}}", distinct=True)
