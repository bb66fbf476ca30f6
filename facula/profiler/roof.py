"""The roof: how fast this machine multiplies and adds, and how fast it moves memory.

Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore
architectures" (2009): a kernel of so many operations a byte can reach no more than the smaller of
the peak rate and that many times the bandwidth.  Both are measured when a profile ends, with the
threads that programs run on: float32 multiply-adds that touch no memory, and a copy of an array
that no cache holds.  What stays in the caches can be faster than that.
"""

from __future__ import annotations

from typing import NamedTuple

from facula.codegen.target import target
from facula.runtime import threads, watch
from facula.runtime.allocator import empty
from facula.runtime.plan import KernelPlan, PhasePlan, ProgramPlan
from facula.runtime.program import Program

__all__ = ["Roof", "measure"]

_CHAINS = 12
_ROUNDS = 200_000
_COPY = 96 << 20
_TILES = 96


class Roof(NamedTuple):
    """`gflops` of float32, all threads; `gbytes` a second, read and written."""

    gflops: float
    gbytes: float

    def seconds(self, flops: float, moved: float) -> float:
        """The least time that so much work takes."""
        return max(flops / (self.gflops * 1e9), moved / (self.gbytes * 1e9))


def _multiply(lanes: int) -> str:
    vector = f"<{lanes} x float>"
    phis = "\n".join([f"  %a{c} = phi {vector} [ zeroinitializer, %entry ], [ %b{c}, %loop ]"
                      for c in range(_CHAINS)])
    adds = "\n".join([f"  %b{c} = call {vector} @llvm.fma.v{lanes}f32({vector} %a{c}, {vector} %x, "
                      f"{vector} %x)" for c in range(_CHAINS)])
    sums = [f"  %s1 = fadd {vector} %b0, %b1"]
    sums += [f"  %s{c} = fadd {vector} %s{c - 1}, %b{c}" for c in range(2, _CHAINS)]
    return f"""declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})
define void @facula_multiply(ptr %args, ptr %map, i64 %tile) {target().attributes} {{
entry:
  %slot = load i64, ptr %map
  %cell = getelementptr ptr, ptr %args, i64 %slot
  %memory = load ptr, ptr %cell
  %x = load {vector}, ptr %memory, align 64
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


def _copy(lanes: int) -> str:
    vector = f"<{lanes} x float>"
    size = _COPY // _TILES // 4
    return f"""define void @facula_copy(ptr %args, ptr %map, i64 %tile) {target().attributes} {{
entry:
  %s0 = load i64, ptr %map
  %m1 = getelementptr i64, ptr %map, i64 1
  %s1 = load i64, ptr %m1
  %c0 = getelementptr ptr, ptr %args, i64 %s0
  %c1 = getelementptr ptr, ptr %args, i64 %s1
  %from = load ptr, ptr %c0
  %to = load ptr, ptr %c1
  %first = mul i64 %tile, {size}
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]
  %at = add i64 %first, %i
  %p = getelementptr float, ptr %from, i64 %at
  %q = getelementptr float, ptr %to, i64 %at
  %v = load {vector}, ptr %p, align 16
  store {vector} %v, ptr %q, align 16
  %i1 = add i64 %i, {lanes}
  %more = icmp slt i64 %i1, {size}
  br i1 %more, label %loop, label %out
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


def measure() -> Roof:
    """Measure the roof; takes about a quarter of a second."""
    lanes = target().vector_bytes // 4
    tiles = 4 * threads.get_num_threads()
    memory = empty(64 + 4 * lanes * (tiles + 2))
    one = KernelPlan("facula_multiply", _multiply(lanes), (1,), tiles)
    plan = ProgramPlan((PhasePlan((one,)),), 2, ((1, "P"),), cost=1e7, name="roof")
    seconds = _best(plan, [memory.ptr], 3)
    rate = 2.0 * lanes * _CHAINS * _ROUNDS * tiles / seconds
    a, b = empty(_COPY), empty(_COPY)
    two = KernelPlan("facula_copy", _copy(lanes), (1, 2), _TILES)
    plan = ProgramPlan((PhasePlan((two,)),), 3, ((1, "P"), (2, "P")), cost=1e7, name="roof")
    return Roof(rate / 1e9, 2.0 * _COPY / _best(plan, [a.ptr, b.ptr], 4) / 1e9)
