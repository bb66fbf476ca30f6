"""Contractions of whole and complex numbers, and of what is summed in another dtype than its own.

Loops over a scratch tile, one element at a time, which LLVM makes vectors of.
"""

from __future__ import annotations

from math import prod
from typing import Any

from facula.codegen.kernel import KernelDraft
from facula.codegen.llvm import LLVM_TYPES, Fn, Module, float_literal
from facula.codegen.products.contraction import Contraction, Emission, Epilogue
from facula.codegen.products.pack import Source, emit_pack
from facula.codegen.products.tiles import (
    PARAMS,
    Store,
    batch_offset,
    convert,
    memory_type,
    operand,
    roles_of,
    smin,
    start,
    unravel,
)
from facula.codegen.target import Target
from facula.dtype import DTYPES

__all__ = ["scalars"]


def scalars(module: Module, name: str, c: Contraction, epilogue: Epilogue | None,
            t: Target) -> Emission | None:
    """The kernels of the product `c`; None for dtypes that register tiles are made of."""
    if c.sums in ("float32", "float64") and \
            (c.dtype == c.sums or c.sums == "float32" and c.dtype in ("float16", "bfloat16")):
        return None
    epilogue = epilogue or Store(c)
    mb, nb = min(16, c.m), min(128, c.n)
    m_tiles, n_tiles = -(-c.m // mb), -(-c.n // nb)
    kind, memory = LLVM_TYPES[c.sums], memory_type(c.dtype)
    *ab, am, ak = c.a_strides
    *bb, bk, bn = c.b_strides
    b_role, b_offset, panel = "b", c.b_offset, nb * bn
    phases: list[list[KernelDraft]] = []
    temporaries: list[tuple[str, int]] = []
    if bn != 1 and min(c.n, c.m) > 3 and c.k and c.dtype not in ("float16", "bfloat16"):
        # columns side by side, so that the inner loop runs along memory
        item = DTYPES[c.dtype].itemsize
        source = Source(c.dtype, item, c.batch, tuple(bb), c.n, c.k, bn, bk, c.b_offset)
        packing = Module()
        ntiles = emit_pack(packing, f"{name}_pack1", source, nb, t)
        step, bb = n_tiles * nb * c.k, []
        for size in reversed(source.distinct):
            bb.insert(0, step if size > 1 else 0)
            step *= size
        temporaries.append(("tmp0", step * item))
        phases.append([KernelDraft(f"{name}_pack1", ("b", "tmp0"), ntiles, packing, 10.0 / c.m)])
        b_role, b_offset, panel, bk, bn = "tmp0", 0, nb * c.k, nb, 1
    fn = Fn(module, name, PARAMS, attrs=t.attributes)
    pa, pb = operand(fn, 0), operand(fn, 1)
    start(fn, epilogue, 2)
    scratch = fn.alloca(kind, mb * nb)
    *batch, mi, ni = unravel(fn, "%tile", (*c.batch, m_tiles, n_tiles))
    m0, n0 = fn.mul(mi, mb), fn.mul(ni, nb)
    rows = smin(fn, fn.val(f"sub i64 {c.m}, {m0}"), mb) if m_tiles > 1 else c.m
    cols = smin(fn, fn.val(f"sub i64 {c.n}, {n0}"), nb) if n_tiles > 1 else c.n
    pa = fn.gep(memory, pa, fn.add(fn.add(batch_offset(fn, batch, ab), fn.mul(m0, am)),
                                   c.a_offset))
    pb = fn.gep(memory, pb, fn.add(fn.add(batch_offset(fn, batch, bb), fn.mul(ni, panel)),
                                   b_offset))
    with fn.loop(0, rows, hint="i") as i:
        line = fn.gep(kind, scratch, fn.mul(i, nb))
        with fn.loop(0, cols, hint="j") as j:
            fn.store(kind, _zero(kind), fn.gep(kind, line, j))
        with fn.loop(0, c.k, hint="k") as k:
            x = fn.gep(memory, pa, fn.add(fn.mul(i, am), fn.mul(k, ak)))
            if kind.startswith("<"):
                _complex_row(fn, kind[5:-1], x, pb, line, cols, k, bk, bn)
            else:
                one = convert(fn, fn.load(memory, x), c.dtype, c.sums)
                with fn.loop(0, cols, hint="j") as j:
                    y = fn.load(memory, fn.gep(memory, pb, fn.add(fn.mul(k, bk), fn.mul(j, bn))))
                    at = fn.gep(kind, line, j)
                    total = _multiply_add(fn, c.sums, one, convert(fn, y, c.dtype, c.sums),
                                          fn.load(kind, at))
                    fn.store(kind, total, at)
    epilogue.emit(fn, m0, n0, rows, cols, scratch, nb, tuple(batch))
    fn.finish()
    roles = roles_of(("a", b_role), epilogue)
    last = KernelDraft(name, roles, prod(c.batch) * m_tiles * n_tiles, module, 3.0)
    return Emission([*phases, [last]], temporaries)


def _complex_row(fn: Fn, one: str, x: str, pb: str, line: str, cols: Any, k: str, bk: int,
                 bn: int) -> None:
    """line[j] += x * B[k, j], on parts, which LLVM can put into vectors."""
    pair = f"[2 x {one}]"
    xr, xi = fn.load(one, x), fn.load(one, fn.gep(one, x, 1))

    def mul(a: str, b: str) -> str:
        return fn.val(f"fmul contract {one} {a}, {b}")

    with fn.loop(0, cols, hint="j") as j:
        y = fn.gep(pair, pb, fn.add(fn.mul(k, bk), fn.mul(j, bn)))
        yr, yi = fn.load(one, y), fn.load(one, fn.gep(one, y, 1))
        at = fn.gep(pair, line, j)
        ai = fn.gep(one, at, 1)
        re = fn.val(f"fsub contract {one} {mul(xr, yr)}, {mul(xi, yi)}")
        im = fn.val(f"fadd contract {one} {mul(xr, yi)}, {mul(xi, yr)}")
        re = fn.val(f"fadd contract {one} {fn.load(one, at)}, {re}")
        im = fn.val(f"fadd contract {one} {fn.load(one, ai)}, {im}")
        fn.store(one, re, at)
        fn.store(one, im, ai)


def _zero(kind: str) -> str:
    if kind.startswith("<"):
        return "zeroinitializer"
    return "0" if kind.startswith("i") else float_literal(0.0, kind)


def _multiply_add(fn: Fn, dtype: str, x: str, y: str, total: str) -> str:
    """total + x * y, of anything but complex numbers."""
    kind = LLVM_TYPES[dtype]
    if dtype == "bool":
        return fn.val(f"or i8 {total}, {fn.val(f'and i8 {x}, {y}')}")
    if kind.startswith("i"):
        return fn.val(f"add {kind} {total}, {fn.val(f'mul {kind} {x}, {y}')}")
    return fn.val(f"fadd contract {kind} {total}, {fn.val(f'fmul contract {kind} {x}, {y}')}")
