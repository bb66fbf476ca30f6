"""Matrix products on one thread against PyTorch (MKL or its own) and NumPy (OpenBLAS).

Error and rate stand together, and runs are interleaved: what disturbs one disturbs all.  A ratio
is taken to the better of the two vendors.  Where a product is too small for a rate to mean much,
the rate still does: GFLOP/s counts 2mnk operations, and a matrix-vector product that reads at
R GB/s makes R/2 GFLOP/s in float32.

    python benchmarks/gemm.py [SECONDS_PER_SHAPE] [GROUP...]

Groups: square layouts layers skinny odd double vector batch half.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("OPENBLAS_CORETYPE", None)      # OpenBLAS is to choose its best kernels

import numpy as np
import torch

from facula.codegen.contract import Contraction, emit_contraction
from facula.codegen.llvm import Module
from facula.runtime.jit import compile_kernels


@dataclass(frozen=True)
class Case:
    """A[batch, m, k] B[batch, k, n] with A or B stored transposed."""

    m: int
    k: int
    n: int
    ta: bool = False
    tb: bool = False
    dtype: str = "float32"
    batch: int = 0


def _grid(sizes: tuple[tuple[int, int, int], ...], dtype: str = "float32") -> list[Case]:
    return [Case(m, k, n, ta, tb, dtype) for m, k, n in sizes
            for ta, tb in ((False, False), (False, True), (True, False))]


def _layers(batch: int) -> list[Case]:
    """Forward, gradient of the weight, gradient of the input."""
    return [case for i, o in ((784, 128), (128, 64), (64, 10))
            for case in (Case(batch, i, o, tb=True), Case(o, batch, i, ta=True),
                         Case(batch, o, i))]


_SQUARE = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
GROUPS: dict[str, list[Case]] = {
    "square": [Case(s, s, s) for s in _SQUARE],
    "layouts": [case for case in _grid(tuple((s, s, s) for s in (64, 128, 256, 512, 1024, 2048)))
                if case.ta or case.tb],
    "layers": _layers(64),
    "skinny": _grid(((64, 784, 4096), (64, 4096, 784), (64, 1024, 1024), (2048, 64, 2048),
                     (2048, 2048, 64), (64, 2048, 2048), (1024, 10, 1024), (1024, 1024, 10),
                     (4096, 128, 128))),
    "odd": _grid(((63, 65, 67), (100, 100, 100), (129, 257, 511), (333, 777, 555),
                  (1000, 1000, 1000))),
    "double": _grid(((64, 64, 64), (256, 256, 256), (1024, 1024, 1024), (64, 784, 128)),
                    "float64"),
    "vector": _grid(((1, 784, 128), (1, 1024, 1024), (1, 4096, 4096), (2, 1024, 1024),
                     (8, 1024, 1024), (1024, 1024, 1))),
    "batch": [Case(m, k, n, False, tb, "float32", b) for b, m, k, n in
              ((64, 32, 32, 32), (16, 64, 64, 64), (8, 128, 64, 128), (8, 256, 256, 256))
              for tb in (False, True)],
    "half": [Case(s, s, s, False, tb, dtype) for dtype in ("bfloat16", "float16")
             for s in (64, 256, 1024) for tb in (False, True)],
}


_DRIVER = """
%phase = type { ptr, ptr, ptr, i64 }

define void @all_tiles(ptr %phases, i64 %count) {
entry:
  br label %phase
phase:
  %p = phi i64 [ 0, %entry ], [ %pn, %done ]
  %at = getelementptr %phase, ptr %phases, i64 %p
  %this = load %phase, ptr %at
  %kernel = extractvalue %phase %this, 0
  %args = extractvalue %phase %this, 1
  %map = extractvalue %phase %this, 2
  %ntiles = extractvalue %phase %this, 3
  br label %head
head:
  %tile = phi i64 [ 0, %phase ], [ %next, %head ]
  call void %kernel(ptr %args, ptr %map, i64 %tile)
  %next = add i64 %tile, 1
  %more = icmp slt i64 %next, %ntiles
  br i1 %more, label %head, label %done
done:
  %pn = add i64 %p, 1
  %again = icmp slt i64 %pn, %count
  br i1 %again, label %phase, label %end
end:
  ret void
}
"""
"""Every tile of every phase, as the runtime's own driver runs them on one thread."""


def compiled(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[Callable[[], None], float]:
    """A call that computes c = a @ b on this thread, and the seconds it took to compile."""
    def strides(x: np.ndarray) -> tuple[int, ...]:
        return tuple(s // x.itemsize for s in x.strides)

    shape = Contraction(str(a.dtype), a.shape[:-2], a.shape[-2], b.shape[-1], a.shape[-1],
                        strides(a), strides(b), strides(c))
    start = time.perf_counter()
    e = emit_contraction(Module(), "gemm", shape, None)
    kernels = [k for phase in e.phases for k in phase]
    made = compile_kernels([(k.name, k.module.text()) for k in kernels])
    seconds = time.perf_counter() - start
    memory = {n: np.zeros(size + 64, np.uint8) for n, size in e.temporaries}
    memory |= {"a": a, "b": b, "c": c}
    calls = []
    driver = compile_kernels([("all_tiles", _DRIVER)])[0]
    every = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(driver.address)
    for kernel, machine in zip(kernels, made, strict=True):
        n = len(kernel.roles)
        pointers = []
        for role in kernel.roles:
            at = memory[role].ctypes.data
            pointers.append(at + (-at % 64 if str(role).startswith("tmp") else 0))
        args, slots = (ctypes.c_void_p * n)(*pointers), (ctypes.c_int64 * n)(*range(n))
        calls.append((machine.address, args, slots, kernel.ntiles))

    phases = (ctypes.c_int64 * (4 * len(calls)))(*(
        x for address, args, slots, ntiles in calls
        for x in (address, ctypes.addressof(args), ctypes.addressof(slots), ntiles)))

    def run(_keep: object = (made, memory, driver, calls)) -> None:
        every(phases, len(calls))

    return run, seconds


def _made(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    dtype: object = case.dtype
    if case.dtype == "bfloat16":
        import ml_dtypes
        dtype = ml_dtypes.bfloat16
    lead = (case.batch,) if case.batch else ()
    m, k, n = case.m, case.k, case.n
    a = rng.standard_normal((*lead, k, m) if case.ta else (*lead, m, k), np.float32).astype(dtype)
    b = rng.standard_normal((*lead, n, k) if case.tb else (*lead, k, n), np.float32).astype(dtype)
    return (a.swapaxes(-1, -2) if case.ta else a, b.swapaxes(-1, -2) if case.tb else b,
            np.zeros((*lead, m, n), dtype))


def _tensor(x: np.ndarray) -> torch.Tensor:
    if x.dtype.name == "bfloat16":
        return torch.from_numpy(x.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def measure(case: Case, budget: float) -> tuple[list[float], float, float]:
    """Seconds of ours, PyTorch's and NumPy's, our error, and the seconds our compiling took."""
    a, b, c = _made(case)
    ours, seconds = compiled(a, b, c)
    x, y, z = _tensor(a), _tensor(b), _tensor(np.zeros_like(c))
    out = np.zeros_like(c)
    multiply = torch.bmm if case.batch else torch.mm
    runs: list[Callable[[], object]] = [ours, lambda: multiply(x, y, out=z)]
    if case.dtype in ("float32", "float64"):
        runs.append(lambda: np.matmul(a, b, out=out))
    for f in runs:
        f()
    want = a.astype(np.float64) @ b.astype(np.float64)
    error = float(np.linalg.norm(c.astype(np.float64) - want) / np.linalg.norm(want))
    best = [math.inf] * 3
    rounds = max(int(2e7 / (2 * case.m * case.n * case.k * max(case.batch, 1))), 1)
    stop = time.perf_counter() + budget
    while time.perf_counter() < stop or math.isinf(best[1]):
        for i, f in enumerate(runs):
            start = time.perf_counter()
            for _ in range(rounds):
                f()
            best[i] = min(best[i], (time.perf_counter() - start) / rounds)
    return best, error, seconds


def main(budget: float = 0.3, *groups: str) -> None:
    torch.set_num_threads(1)
    every: list[float] = []
    for group in groups or tuple(GROUPS):
        print(f"{group}\n batch    m    k    n    ours GF/s  torch  NumPy  ratio  error (norm)"
              "  compile ms")
        ratios = []
        for case in GROUPS[group]:
            best, error, seconds = measure(case, budget)
            work = 2e-9 * case.m * case.n * case.k * max(case.batch, 1)
            rate = [work / t for t in best]
            ratios.append(rate[0] / max(rate[1:]))
            layout = ("T" if case.ta else "N") + ("T" if case.tb else "N")
            print(f"{case.batch:6}{case.m:5}{case.k:5}{case.n:5} {layout} {rate[0]:9.1f}"
                  f"{rate[1]:7.1f}{rate[2]:7.1f}{ratios[-1]:7.2f}   {error:.1e}"
                  f"{1e3 * seconds:8.0f}  {case.dtype}", flush=True)
        print(f"{group}: geometric mean {_mean(ratios):.3f}, least {min(ratios):.2f}\n")
        every += ratios
    print(f"all: geometric mean {_mean(every):.3f}, least {min(every):.2f}")


def _mean(ratios: list[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]), *sys.argv[2:])
