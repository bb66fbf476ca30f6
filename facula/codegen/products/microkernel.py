"""The register tile that products are made of: a few rows by a few vectors of sums."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, Protocol

from facula.codegen.llvm import Fn, Function, Module
from facula.codegen.products.tiles import masked_load, masked_store, rolled, sums_over_k
from facula.codegen.target import Target

__all__ = ["Walked", "multiply_add", "multiply_pairs", "register_tile"]

MultiplyAdd = Callable[[Fn, str, str, str, str], None]


class Walked(Protocol):
    """How a tile walks over an operand: X[j, k] at j * inner + k * k_step; `ahead` is how many
    steps of k before it is read an element is asked for."""

    @property
    def inner(self) -> int: ...

    @property
    def k_step(self) -> int: ...

    @property
    def ahead(self) -> int: ...


def multiply_add(t: Target, lanes: int, scalar: str) -> MultiplyAdd:
    """What writes into = x * y + total, on vectors."""
    vector, bits = f"<{lanes} x {scalar}>", {"float": 32, "double": 64}[scalar]
    # without an instruction for it a true fma is a call of the C library
    fma = "fmuladd" if t.isa == "sse2" else "fma"

    def write(fn: Fn, x: str, y: str, total: str, into: str) -> None:
        f = fn.module.declare(f"{vector} @llvm.{fma}.v{lanes}f{bits}({vector}, {vector}, "
                              f"{vector})")
        fn.do(f"{into} = call {vector} {f}({vector} {x}, {vector} {y}, {vector} {total})")

    return write


def multiply_pairs(fn: Fn, lanes: int, x: str, y: str, total: str, into: str) -> None:
    """into = x * y + total, on vectors of float32 sums and of pairs of bfloat16 (AVX512-BF16's
    vdpbf16ps), which pass for float32, too."""
    sums, pairs = f"<{lanes} x float>", f"<{2 * lanes} x bfloat>"
    f = fn.module.declare(f"{sums} @llvm.x86.avx512bf16.dpbf16ps.512({sums}, {pairs}, {pairs})")
    a, b = (fn.val(f"bitcast {sums} {v} to {pairs}") for v in (x, y))
    fn.do(f"{into} = call {sums} {f}({sums} {total}, {pairs} {a}, {pairs} {b})")


def register_tile(module: Module, name: str, t: Target, scalar: str, size: tuple[int, int],
                  a: Walked, b: Walked, ld: int, mad: MultiplyAdd | None = None,
                  soon: bool = False) -> str:
    """The function `name` of a register tile of `size` rows and columns; written once.

    (A, B, C, kc, first): C[rows, cols] (+)= A[rows, kc] B[kc, cols], with B's and C's columns
    side by side and C's rows `ld` apart.  With `soon` one more operand follows, a place in B that
    is read after this tile: a line of it is asked for with each k, and C before the first one.
    """
    if name not in module.functions:
        # kernels of the same sizes, and those of other batch sizes, have the same tiles
        write = _written.__wrapped__ if mad is not None else _written
        tile, declarations = write(t, scalar, size, _Walk(a.inner, a.k_step, a.ahead),
                                   _Walk(b.inner, b.k_step, b.ahead), ld, mad, soon)
        for at, signature in declarations:
            module.declarations.setdefault(at, signature)
        module.functions[name] = tile._replace(
            head=tile.head.replace("@TILE(", f"@{name}(", 1),
            body=tile.body.replace("!llvm.loop !1\n", f"!llvm.loop {rolled(module)}\n", 1))
    return name


class _Walk(NamedTuple):
    """A `Walked` by itself."""

    inner: int
    k_step: int
    ahead: int


@functools.lru_cache(maxsize=256)
def _written(t: Target, scalar: str, size: tuple[int, int], a: _Walk, b: _Walk, ld: int,
             mad: MultiplyAdd | None, soon: bool) -> tuple[Function, list[tuple[str, str]]]:
    """A register tile by the name of TILE, and what it declares."""
    rows, cols = size
    item = 4 if scalar == "float" else 8
    lanes = t.lanes(item)
    mad = mad or multiply_add(t, lanes, scalar)
    params = (("ptr", "a"), ("ptr", "b"), ("ptr", "c"), ("i64", "kc"), ("i1", "first"),
              *[("ptr", "soon")] * soon)
    module = Module()
    fn = Fn(module, "TILE", params, attrs=f"noinline {t.attributes}", inner=True)
    vector = f"<{lanes} x {scalar}>"
    widths = [min(lanes, cols - j) for j in range(0, cols, lanes)]
    tile = [(i, j) for i in range(rows) for j in range(len(widths))]
    places = {(i, j): (i * ld + j * lanes) for i, j in tile}

    def before(ij: tuple[int, int]) -> str:
        return masked_load(fn, scalar, lanes, widths[ij[1]], fn.gep(scalar, "%c", places[ij]),
                           item)

    def ask(at: str, write: int = 0) -> None:
        f = fn.module.declare("void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        fn.do(f"call void {f}(ptr {at}, i32 {write}, i32 3, i32 1)")

    if soon:
        ends = [*range(0, cols, lanes), *[cols - 1] * (ld % lanes != 0)]
        for i, j in ((i, j) for i in range(rows) for j in ends):
            ask(fn.gep(scalar, "%c", i * ld + j), 1)

    with sums_over_k(fn, vector, tile, before) as (sums, nexts):
        if soon:
            ask(fn.val(f"getelementptr {scalar}, ptr %soon, i64 {fn.mul('%k', b.k_step)}"))
        y = fn.gep(scalar, "%b", fn.mul("%k", b.k_step))
        columns = [masked_load(fn, scalar, lanes, w, fn.gep(scalar, y, j * lanes), item)
                   for j, w in enumerate(widths)]
        if b.ahead:
            for j in range(len(widths)):
                ask(fn.val(f"getelementptr {scalar}, ptr {y}, "
                           f"i64 {b.ahead * b.k_step + j * lanes}"))
        x = fn.gep(scalar, "%a", fn.mul("%k", a.k_step))
        if a.ahead:
            for i in {0, rows - 1}:
                ask(fn.val(f"getelementptr {scalar}, ptr {x}, i64 {a.ahead * a.k_step + i}"))
        for i in range(rows):
            one = fn.load(scalar, fn.gep(scalar, x, i * a.inner), item)
            lane = fn.val(f"insertelement {vector} poison, {scalar} {one}, i32 0")
            wide = fn.val(f"shufflevector {vector} {lane}, {vector} poison, "
                          f"<{lanes} x i32> zeroinitializer")
            for j in range(len(widths)):
                mad(fn, wide, columns[j], sums[i, j], nexts[i, j])
    for i, j in tile:
        at = fn.gep(scalar, "%c", places[i, j])
        masked_store(fn, scalar, lanes, widths[j], sums[i, j], at, item)
    fn.finish()
    return module.functions["TILE"], list(module.declarations.items())
