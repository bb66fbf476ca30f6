"""The roof: how fast this machine multiplies and adds, and how fast it moves memory.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore
architectures" (2009): a kernel of so many operations a byte can reach no more than the smaller of
the peak rate and that many times the bandwidth.  Both are measured when a profile ends, with the
threads that programs run on: multiply-adds that touch no memory, in float32 and in the form that
products of bfloat16 have, and a copy and a sum of arrays that no cache holds.  What stays in the
caches can be faster than that; `bandwidth` measures those, too.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from facula.codegen.target import target
from facula.runtime import threads, watch
from facula.runtime.allocator import empty
from facula.runtime.plan import KernelPlan, PhasePlan, ProgramPlan
from facula.runtime.program import Program

__all__ = ["Bandwidth", "Roof", "bandwidth", "measure"]

_CHAINS = 12
_ROUNDS = 200_000
WHOLE = 192 << 20
"""Bytes that no cache holds."""
_TILES = 96
_STEP = 8
"""Vectors that a round of the loop over memory moves."""
_REPEATED = 64 << 20
"""What is smaller is moved several times, until it is as much as this."""


class Bandwidth(NamedTuple):
    """GB/s: `copy` of a copy, what it reads and what it writes added up; `read` of reading."""

    copy: float
    read: float

    def seconds(self, read: float, written: float) -> float:
        """The least time in which so many bytes are read and written: all of them at the better
        rate, and those that are read no faster than reading alone goes."""
        return max(read / self.read, (read + written) / max(self)) / 1e9


class Roof(NamedTuple):
    """`gflops` of float32, all threads; `gbytes` a second, read and written; `short`, GFLOP/s of
    products of bfloat16 with float32 sums (None: as in float32)."""

    gflops: float
    gbytes: float
    short: float | None = None

    def seconds(self, flops: float, moved: float, short: float = 0.0) -> float:
        """The least time that so much work takes; `short` operations more are in bfloat16."""
        return max(self.arithmetic(flops, short), moved / (self.gbytes * 1e9))

    def arithmetic(self, flops: float, short: float = 0.0) -> float:
        """The least time of the operations alone."""
        return flops / (self.gflops * 1e9) + short / ((self.short or self.gflops) * 1e9)


def _multiply(lanes: int, pairs: bool) -> str:
    """Chains of multiply-adds, of float32 or of pairs of bfloat16, from a vector in memory."""
    vector = f"<{lanes} x float>"
    call = f"@llvm.fma.v{lanes}f32"
    operand = vector
    if pairs:
        call, operand = "@llvm.x86.avx512bf16.dpbf16ps.512", f"<{2 * lanes} x bfloat>"
    phis = "\n".join([f"  %a{c} = phi {vector} [ zeroinitializer, %entry ], [ %b{c}, %loop ]"
                      for c in range(_CHAINS)])
    # fma(total, x, x), and total + x * x of pairs
    adds = "\n".join([f"  %b{c} = call {vector} {call}({vector} %a{c}, {operand} %x, "
                      f"{operand} %x)" for c in range(_CHAINS)])
    sums = [f"  %s1 = fadd {vector} %b0, %b1"]
    sums += [f"  %s{c} = fadd {vector} %s{c - 1}, %b{c}" for c in range(2, _CHAINS)]
    return f"""declare {vector} {call}({vector}, {operand}, {operand})
define void @facula_multiply(ptr %args, ptr %map, i64 %tile) {target().attributes} {{
entry:
  %slot = load i64, ptr %map
  %cell = getelementptr ptr, ptr %args, i64 %slot
  %memory = load ptr, ptr %cell
  %x = load {operand}, ptr %memory, align 64
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]
{phis}
{adds}
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, {_ROUNDS}
  br i1 %more, label %loop, label %out
out:
{chr(10).join(sums)}
  %at = mul i64 %tile, {lanes}
  %at1 = add i64 %at, {lanes}
  %to = getelementptr float, ptr %memory, i64 %at1
  store {vector} %s{_CHAINS - 1}, ptr %to, align 16
  ret void
}}
"""


def _tile_registers() -> str:
    """The four sums of a register tile of AMX, each multiplied and added to many times."""
    from facula.codegen.llvm import Fn, Module
    from facula.codegen.products.amx import ROWS, configure, release
    from facula.codegen.products.tiles import PARAMS
    module = Module()
    fn = Fn(module, "facula_multiply", PARAMS, attrs=target().attributes)
    zero = module.declare("void @llvm.x86.tilezero(i8)")
    product = module.declare("void @llvm.x86.tdpbf16ps(i8, i8, i8)")
    configure(fn, 2 * ROWS, 2 * ROWS)
    for register in range(8):
        fn.do(f"call void {zero}(i8 {register})")
    with fn.loop(0, _ROUNDS // 100):
        for sums in range(4):
            fn.do(f"call void {product}(i8 {sums}, i8 {4 + sums // 2}, i8 {6 + sums % 2})")
    release(fn)
    fn.finish()
    return module.text()


def _walk(lanes: int, write: bool) -> str:
    """A copy of a tile's part of an array, or the sum of it, so many times."""
    vector = f"<{lanes} x float>"
    moves, phis, sums = [], [], []
    for k in range(_STEP):
        moves += [f"  %p{k} = getelementptr float, ptr %p, i64 {k * lanes}",
                  f"  %v{k} = load {vector}, ptr %p{k}, align 16"]
        if write:
            moves += [f"  %q{k} = getelementptr float, ptr %q, i64 {k * lanes}",
                      f"  store {vector} %v{k}, ptr %q{k}, align 16"]
        else:
            phis.append(f"  %t{k} = phi {vector} [ zeroinitializer, %again ], [ %u{k}, %loop ]")
            moves.append(f"  %u{k} = fadd {vector} %t{k}, %v{k}")
    if not write:
        sums = [f"  %w0 = fadd {vector} %u0, %u1"]
        sums += [f"  %w{k - 1} = fadd {vector} %w{k - 2}, %u{k}" for k in range(2, _STEP)]
        # each tile has a line of its own to leave its sum in
        sums += ["  %place = mul i64 %tile, 64", "  %line = getelementptr i8, ptr %to, i64 %place",
                 f"  store {vector} %w{_STEP - 2}, ptr %line, align 16"]
    name, new = ("copy" if write else "read"), chr(10)
    return f"""define void @facula_{name}(ptr %args, ptr %map, i64 %tile) {target().attributes} {{
entry:
  %m1 = getelementptr i64, ptr %map, i64 1
  %m2 = getelementptr i64, ptr %map, i64 2
  %m3 = getelementptr i64, ptr %map, i64 3
  %s0 = load i64, ptr %map
  %s1 = load i64, ptr %m1
  %size = load i64, ptr %m2
  %rounds = load i64, ptr %m3
  %c0 = getelementptr ptr, ptr %args, i64 %s0
  %c1 = getelementptr ptr, ptr %args, i64 %s1
  %from = load ptr, ptr %c0
  %to = load ptr, ptr %c1
  %first = mul i64 %tile, %size
  br label %again
again:
  %r = phi i64 [ 0, %entry ], [ %r1, %next ]
  br label %loop
loop:
  %i = phi i64 [ 0, %again ], [ %i1, %loop ]
{new.join(phis)}
  %at = add i64 %first, %i
  %p = getelementptr float, ptr %from, i64 %at
  %q = getelementptr float, ptr %to, i64 %at
{new.join(moves)}
  %i1 = add i64 %i, {lanes * _STEP}
  %more = icmp slt i64 %i1, %size
  br i1 %more, label %loop, label %next
next:
{new.join(sums)}
  call void asm sideeffect "", "~{{memory}}"()
  %r1 = add i64 %r, 1
  %further = icmp slt i64 %r1, %rounds
  br i1 %further, label %again, label %out
out:
  ret void
}}
"""


def _best(plan: ProgramPlan, addresses: list[int], rounds: int) -> float:
    program = Program(plan)
    best = float("inf")
    for _ in range(rounds):
        started = watch.now()
        program.run(addresses)
        best = min(best, (watch.now() - started) * 1e-9)
    return best


def _rate(text: str, flops: float, tiles: int, address: int) -> float:
    """GFLOP/s of a kernel whose tiles have so many operations each."""
    one = KernelPlan("facula_multiply", text, (1,), tiles)
    plan = ProgramPlan((PhasePlan((one,)),), 2, ((1, "P"),), cost=1e7, name="roof")
    return flops * tiles / _best(plan, [address], 3) / 1e9


def bandwidth(nbytes: int = WHOLE) -> Bandwidth:
    """What memory gives to all threads that go through `nbytes` again and again: a copy of one half
    to the other, and reading them all.  What is smaller than a cache is measured in that cache."""
    lanes, workers = target().vector_bytes // 4, threads.get_num_threads()
    unit = 4 * lanes * _STEP
    rounds = max(_REPEATED // max(nbytes, 1), 1)
    # Each thread has its part, which stays in its cache; what no cache holds is in more tiles, of
    # which a thread that is held up takes fewer.
    tiles = _TILES if rounds == 1 else workers
    found = []
    for write in (True, False):
        part = max(nbytes // (1 + write) // tiles // unit, 1) * unit
        a, b = empty(part * tiles), empty(part * tiles if write else 64 * tiles)
        for memory in (a, b):           # pages never written to are all the same one, of zeros
            ctypes.memset(memory.ptr, 0, memory.nbytes)
        kernel = KernelPlan("facula_copy" if write else "facula_read", _walk(lanes, write), (1, 2),
                            tiles, numbers=(part // 4, rounds))
        plan = ProgramPlan((PhasePlan((kernel,)),), 3, ((1, "P"), (2, "P")), cost=1e7,
                           name="bandwidth")
        moved = float(part * tiles * rounds * (1 + write))
        found.append(moved / _best(plan, [a.ptr, b.ptr], 4) / 1e9)
    return Bandwidth(*found)


def measure() -> Roof:
    """Measure the roof; takes about a quarter of a second."""
    t = target()
    lanes = t.vector_bytes // 4
    tiles = 4 * threads.get_num_threads()
    memory = empty(64 + 4 * lanes * (tiles + 2))
    flops = 2.0 * lanes * _CHAINS * _ROUNDS
    rate = _rate(_multiply(lanes, False), flops, tiles, memory.ptr)
    short = None
    if t.tiles:
        short = _rate(_tile_registers(), 4 * 2.0 * 16 * 16 * 32 * (_ROUNDS // 100), tiles,
                      memory.ptr)
    elif t.pairs:
        short = _rate(_multiply(lanes, True), 2 * flops, tiles, memory.ptr)
    return Roof(rate, bandwidth().copy, short)
