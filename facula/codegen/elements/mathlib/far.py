"""Scalar functions for arguments so rare and so costly that straight-line code would not pay.

The loop vectoriser gives up on a call of a function it does not know.  So each function here comes
with variants for vectors of 2 to 16 lanes, named in the `vector-function-abi-variant` attribute
of the call: a variant looks whether any lane needs the function, which is nearly never so,
and then goes through the lanes.  Everything is internal to the module.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan

from facula.codegen.elements.mathlib.values import (
    Val,
    exact_mul,
    fast_two_sum,
    select,
    two_prod,
    two_sum,
)
from facula.codegen.llvm import Fn, Module, float_literal
from facula.codegen.target import target

__all__ = ["far_call", "reduce_far"]

_LANES = (2, 4, 8, 16)

_TWO_OVER_PI = (
    0, 0xA2F9836E4E441529, 0xFC2757D1F534DDC0, 0xDB6295993C439041, 0xFE5163ABDEBBC561,
    0xB7246E3A424DD2E0, 0x06492EEA09D1921C, 0xFE1DEB1CB129A73E, 0xE88235F52EBB4484,
    0xE99C7026B45F7E41, 0x3991D639835339F4, 0x9C845F8BBDF9283B, 0x1FF897FFDE05980F,
    0xEF2F118B5A0A6D1F, 0x6D367ECF27CB09B7, 0x4F463F669E5FEA2D, 0x7527BAC7EBE5F17B,
    0x3D0739F78A5292EA, 0x6BFB5FB11F8D5D08, 0x56033046FC7B6BAB, 0xF0CFBC209AF4361D)
"""The bits of 2/pi after the binary point, behind 64 zeros."""

PIO2 = (float.fromhex("0x1.921fb54442d18p+0"), float.fromhex("0x1.1a62633145c07p-54"))


def far_call(name: str, args: list[Val], limit: float | None, body: Callable[..., Val]) -> Val:
    """`body(*args)` where it is needed; elsewhere the result means nothing.

    args: of one type; `body` gets doubles.  It is needed where the magnitude of the first is
    above `limit` or, without a limit, where the last of them is not 0.  The function is written
    once per module.
    """
    fn, t = args[0].fn, args[0].t
    name = f"math.{name}.{t}"
    if name not in fn.module.functions:
        _define(fn.module, name, t, len(args), limit, body)
    shape = "v" * len(args)
    variants = ",".join(f"_ZGV_LLVM_N{n}{shape}_{name}({name}.v{n})" for n in _LANES)
    operands = ", ".join(f"{t} {a.name}" for a in args)
    fn.opaque += 1
    return Val(fn, fn.val(f"call {t} @{name}({operands}) nounwind willreturn memory(none) "
                          f'"vector-function-abi-variant"="{variants}"'), t)


def _define(module: Module, name: str, t: str, count: int, limit: float | None,
            body: Callable[..., Val]) -> None:
    # the same attributes as a kernel: vectors are passed in the registers that it has
    attrs = f"noinline willreturn memory(none) {target().attributes}"
    fn = Fn(module, name, [(t, f"x{i}") for i in range(count)], t, attrs, True)
    args = [Val(fn, f"%x{i}", t) for i in range(count)]
    needed = args[0].abs().gt(limit) if limit is not None else args[-1].ne(0.0)
    work, skip = fn.new_label("work"), fn.new_label("skip")
    fn.cbr(needed.name, work, skip)
    fn.place(skip)
    fn.do(f"ret {t} {args[0].name}")
    fn.place(work)
    if t == "double":
        value = body(*args)
    else:
        value = body(*(a.cast("fpext", "double") for a in args)).cast("fptrunc", t)
    fn.finish(f"{t} {value.name}")
    for lanes in _LANES:
        _variant(module, name, t, count, limit, lanes, attrs)
    kept = [f"@{f}" for f in module.functions if f.startswith("math.")]
    module.define(
        "llvm.compiler.used", f"appending global [{len(kept)} x ptr] "
        f"[{', '.join(f'ptr {k}' for k in kept)}], section \"llvm.metadata\"")


def _variant(module: Module, name: str, element: str, count: int, limit: float | None, lanes: int,
             attrs: str) -> None:
    """The function of whole vectors."""
    t = f"<{lanes} x {element}>"
    suffix = f"v{lanes}{'f64' if element == 'double' else 'f32'}"
    fn = Fn(module, f"{name}.v{lanes}", [(t, f"x{i}") for i in range(count)], t, attrs, True)
    if limit is None:
        needed = fn.val(f"fcmp one {t} %x{count - 1}, zeroinitializer")
    else:
        callee = module.declare(f"{t} @llvm.fabs.{suffix}({t})")
        size = fn.val(f"call {t} {callee}({t} %x0)")
        bound = ", ".join([f"{element} {float_literal(limit, element)}"] * lanes)
        needed = fn.val(f"fcmp ogt {t} {size}, <{bound}>")
    some = fn.val(f"icmp ne i{lanes} {fn.val(f'bitcast <{lanes} x i1> {needed} to i{lanes}')}, 0")
    result = fn.alloca(t)
    fn.store(t, "%x0", result)
    with fn.when(some), fn.loop(0, lanes) as i:
        each = ", ".join(
            f"{element} {fn.val(f'extractelement {t} %x{k}, i64 {i}')}" for k in range(count))
        value = fn.val(f"call {element} @{name}({each})")
        fn.store(element, value, fn.gep(element, result, i))
    fn.finish(f"{t} {fn.load(t, result)}")


def reduce_far(x: Val) -> tuple[Val, Val, Val]:
    """(y, tail, n) with x = n pi/2 + y + tail, n modulo 4, for any finite double |x| >= 2^19.

    Payne and Hanek's reduction: of the bits of 2/pi only those matter that give the last two
    bits before the point of the product and what follows.  192 of them, times the significand,
    leave 137 bits behind the point that are right; no double comes closer than 2^-62 to a multiple.
    """
    fn = x.fn
    bits_of = fn.module.define(
        "math.two_over_pi", f"private unnamed_addr constant [{len(_TWO_OVER_PI)} x i64] "
        f"[{', '.join(f'i64 {w}' for w in _TWO_OVER_PI)}]")
    bits = x.abs().bits()
    whole = (bits & ((1 << 52) - 1)) | (1 << 52)
    start = (bits >> 52) - (1075 - 62)
    word = start >> 6
    window = None
    for k in range(4):
        piece = Val(fn, fn.load("i64", fn.gep("i64", bits_of, (word + k).name)),
                    "i64").cast("zext", "i256")
        window = piece if window is None else (window << 64) | piece
    assert window is not None
    window = ((window << (start & 63).cast("zext", "i256")) >> 64).cast("trunc", "i192")
    product = window * whole.cast("zext", "i192")           # (x 2/pi modulo 4) 2^190
    n = (product + (1 << 189)) >> 190
    rest = product - (n << 190)
    # the signed fraction in pieces of 32 bits, summed into two doubles
    high = rest.ashr(160).cast("trunc", "i64").cast("sitofp", "double") * 2.0 ** -30
    low = high.literal(0.0)
    for k in range(1, 6):
        piece = ((rest >> (160 - 32 * k)) & 0xFFFFFFFF).cast("trunc", "i64")
        value = exact_mul(piece.cast("sitofp", "double"), 2.0 ** (-30 - 32 * k))
        high, error = two_sum(high, value)
        low = low + error
    high, low = fast_two_sum(high, low)
    y, error = two_prod(high, high.literal(PIO2[0]))
    y, tail = fast_two_sum(y, error + (high * PIO2[1] + low * PIO2[0]))
    negative = x.lt(0.0)
    n = n.cast("trunc", "i64")
    y = select(x.abs().eq(inf), y.literal(nan), y)
    return (select(negative, -y, y), select(negative, -tail, tail), select(negative, -n, n))
