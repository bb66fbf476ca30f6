"""Matrix products on one thread against PyTorch: error and rate together, in interleaved runs.

    python benchmarks/gemm.py [SECONDS_PER_SHAPE]
"""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from facula.codegen.contract import Contraction, emit_contraction
from facula.codegen.llvm import Module
from facula.runtime.jit import compile_kernels

# (m, k, n, A transposed, B transposed): forward, gradient of the weight, gradient of the input
_LAYERS = ((784, 128), (128, 64), (64, 10))
CASES = [(s, s, s, False, False) for s in (64, 128, 256, 512, 1024, 2048)]
CASES += [(s, s, s, False, True) for s in (64, 256, 1024)]
CASES += [(s, s, s, True, False) for s in (64, 256, 1024)]
for _i, _o in _LAYERS:
    CASES += [(64, _i, _o, False, True), (_o, 64, _i, True, False), (64, _o, _i, False, False)]


def compiled(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[Callable[[], None], float]:
    """A call that computes c = a @ b on this thread, and the seconds it took to compile."""
    def strides(x: np.ndarray) -> tuple[int, ...]:
        return tuple(s // x.itemsize for s in x.strides)

    shape = Contraction(str(a.dtype), (), a.shape[0], b.shape[1], a.shape[1],
                        strides(a), strides(b), strides(c))
    start = time.perf_counter()
    e = emit_contraction(Module(), "gemm", shape, None)
    kernels = [k for phase in e.phases for k in phase]
    made = compile_kernels([(k.name, k.module.text()) for k in kernels])
    seconds = time.perf_counter() - start
    memory = {n: np.zeros(size + 64, np.uint8) for n, size in e.temporaries}
    memory |= {"a": a, "b": b, "c": c}
    calls = []
    for kernel, machine in zip(kernels, made, strict=True):
        f = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(
            machine.address)
        n = len(kernel.roles)
        pointers = []
        for role in kernel.roles:
            at = memory[role].ctypes.data
            pointers.append(at + (-at % 64 if str(role).startswith("tmp") else 0))
        args, slots = (ctypes.c_void_p * n)(*pointers), (ctypes.c_int64 * n)(*range(n))
        calls.append((f, args, slots, kernel.ntiles))

    def run(_keep: object = (made, memory)) -> None:
        for f, args, slots, ntiles in calls:
            for tile in range(ntiles):
                f(args, slots, tile)

    return run, seconds


def main(budget: float = 0.3) -> None:
    torch.set_num_threads(1)
    ratios = []
    print("  m    k    n    ours GF/s  torch GF/s  ratio  error (norm)  compile ms")
    for m, k, n, ta, tb in CASES:
        rng = np.random.default_rng(0)
        a = rng.standard_normal((k, m) if ta else (m, k), np.float32)
        b = rng.standard_normal((n, k) if tb else (k, n), np.float32)
        a, b = a.T if ta else a, b.T if tb else b
        c = np.zeros((m, n), np.float32)
        ours, seconds = compiled(a, b, c)
        ta_, tb_, out = torch.from_numpy(a), torch.from_numpy(b), torch.empty(m, n)

        def theirs(x: torch.Tensor = ta_, y: torch.Tensor = tb_, z: torch.Tensor = out) -> None:
            torch.mm(x, y, out=z)

        ours(), theirs()
        want = a.astype(np.float64) @ b
        error = np.linalg.norm(c - want) / np.linalg.norm(want)
        best = [math.inf, math.inf]
        rounds = max(int(4e7 / (2 * m * n * k)), 1)
        stop = time.perf_counter() + budget
        while time.perf_counter() < stop or math.isinf(best[1]):
            for i, f in enumerate((ours, theirs)):
                start = time.perf_counter()
                for _ in range(rounds):
                    f()
                best[i] = min(best[i], (time.perf_counter() - start) / rounds)
        rate = [2e-9 * m * n * k / x for x in best]
        ratios.append(rate[0] / rate[1])
        layout = ("T" if ta else "N") + ("T" if tb else "N")
        print(f"{m:5}{k:5}{n:5} {layout} {rate[0]:8.1f} {rate[1]:10.1f} {ratios[-1]:8.2f}"
              f"   {error:.1e} {1e3 * seconds:10.0f}", flush=True)
    print(f"geometric mean {math.exp(sum(map(math.log, ratios)) / len(ratios)):.3f}, "
          f"least {min(ratios):.2f}")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
