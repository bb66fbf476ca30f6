"""Matrix products on one thread against two vendors' libraries: error and rate together.

    python benchmarks/gemm.py [--quick] [--seconds 0.3] [--out FOLDER]

The vendors are what PyTorch's CPU build calls (oneDNN or MKL) and what NumPy calls (OpenBLAS in the
wheels).  With one thread there are no idle threads to be in the way, so all three run in one
process, on the same memory, round by round in turn; the best round of each counts, since all that
disturbs a single thread makes it slower.  Shapes are square, and those of the 784-128-64-10
network's layers: forward, the weight's gradient, the input's gradient.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from harness import Benchmark, Contender, Row

# (m, k, n, A transposed, B transposed)
_LAYERS = ((784, 128), (128, 64), (64, 10))
CASES = [(s, s, s, False, False) for s in (64, 128, 256, 512, 1024, 2048)]
CASES += [(s, s, s, False, True) for s in (64, 256, 1024)]
CASES += [(s, s, s, True, False) for s in (64, 256, 1024)]
CASES += [(64, 2048, 64, False, False), (2048, 64, 2048, False, False),
          (2048, 64, 64, False, False), (64, 64, 2048, False, False)]
for _i, _o in _LAYERS:
    CASES += [(64, _i, _o, False, True), (_o, 64, _i, True, False), (64, _o, _i, False, False)]
QUICK = [CASES[0], CASES[2], CASES[6], CASES[-3]]


def name_of(case: tuple[int, int, int, bool, bool]) -> str:
    """As in `64x784x10 NT`: m, k, n and which operands are transposed in memory."""
    m, k, n, ta, tb = case
    return f"{m}x{k}x{n} {'T' if ta else 'N'}{'T' if tb else 'N'}"


def compiled(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[Callable[[], Any], float]:
    """A call that computes c = a @ b on this thread, and the seconds it took to compile.

    As in any program of facula's, one native call runs all kernels of the product.
    """
    from facula.codegen.llvm import Module
    from facula.codegen.products.choice import emit_contraction
    from facula.codegen.products.contraction import Contraction
    from facula.runtime.plan import KernelPlan, PhasePlan, ProgramPlan
    from facula.runtime.program import Program

    def strides(x: np.ndarray) -> tuple[int, ...]:
        return tuple(s // x.itemsize for s in x.strides)

    shape = Contraction(str(a.dtype), (), a.shape[0], b.shape[1], a.shape[1],
                        strides(a), strides(b), strides(c))
    start = time.perf_counter()
    e = emit_contraction(Module(), "gemm", shape, None)
    slots = {"a": 1, "b": 2, "c": 3}
    arena, size = {}, 0
    for name, count in e.temporaries:
        slots[name] = len(slots) + 1
        arena[slots[name]] = size
        size += -(-count // 64) * 64
    phases = tuple(PhasePlan(tuple(KernelPlan(
        k.name, k.module.text(), tuple(slots[r] for r in k.roles), k.ntiles) for k in phase))
        for phase in e.phases)
    program = Program(ProgramPlan(phases, len(slots) + 1, ((1, "P"), (2, "P"), (3, "P")), size,
                                  arena))
    seconds = time.perf_counter() - start
    program.run([x.ctypes.data for x in (a, b, c)])
    run, descriptor = program._native.run_held, program._program

    def call(_keep: object = (program, a, b, c)) -> None:
        run(0, descriptor)

    return call, seconds


class Products:
    """All three ways of one product after the other; `measure` is for one shape."""

    def __init__(self, options: dict[str, Any]):
        self.vendors = ["NumPy"]
        self.torch: Any = None
        if not options["peers"]:
            self.vendors = []
            return
        try:
            import torch
            torch.set_num_threads(1)
            self.torch = torch
            self.vendors.append("torch")
        except ImportError:
            pass

    def present(self) -> list[str]:
        """The vendors that are here."""
        return self.vendors

    def peak(self) -> float:
        """GFLOP/s of this thread's multiply-adds."""
        import facula
        from facula.profiler.roof import measure
        facula.set_num_threads(1)
        return max(measure().gflops for _ in range(3))

    def measure(self, case: list[Any], budget: float) -> dict[str, Any]:
        """Seconds of the rounds, relative error in norm, by name; and seconds of compiling."""
        m, k, n, ta, tb = case
        rng = np.random.default_rng(0)
        a = rng.standard_normal((k, m) if ta else (m, k), np.float32)
        b = rng.standard_normal((n, k) if tb else (k, n), np.float32)
        a, b = a.T if ta else a, b.T if tb else b
        want = a.astype(np.float64) @ b.astype(np.float64)
        outs = {"facula": np.zeros((m, n), np.float32)}
        ours, compiling = compiled(a, b, outs["facula"])
        ways: dict[str, Callable[[], Any]] = {"facula": ours}
        if "NumPy" in self.vendors:
            outs["NumPy"] = np.zeros((m, n), np.float32)
            ways["NumPy"] = lambda: np.matmul(a, b, out=outs["NumPy"])
        if self.torch is not None:
            ta_, tb_ = self.torch.from_numpy(a), self.torch.from_numpy(b)
            out = self.torch.empty(m, n)
            outs["torch"] = out.numpy()
            ways["torch"] = lambda: self.torch.mm(ta_, tb_, out=out)
        errors = {}
        for label, way in ways.items():
            way()
            errors[label] = float(np.linalg.norm(outs[label] - want) / np.linalg.norm(want))
        taken: dict[str, list[float]] = {label: [] for label in ways}
        repeats = max(int(4e7 / (2 * m * n * k)), 1)
        stop = time.perf_counter() + budget
        while time.perf_counter() < stop or len(taken["facula"]) < 3:
            for label, way in ways.items():
                start = time.perf_counter()
                for _ in range(repeats):
                    way()
                taken[label].append((time.perf_counter() - start) / repeats)
        return {"seconds": taken, "errors": errors, "compiling": compiling}


def products(options: dict[str, Any]) -> Products:
    return Products(options)


def main() -> None:
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--seconds", type=float, default=0.5, help="of rounds, each shape")
        parser.set_defaults(threads=1)

    b = Benchmark(__file__, "Matrix products, float32, one thread",
                  "The product alone: operands in memory, row or column major as the letters say "
                  "(N or T), packing included, the output overwritten. The best round counts. The "
                  "error is that of the norm, against float64.", arguments)
    b.threads = 1
    options = {"peers": not b.args.no_peers}
    worker = b.start([Contender("facula", "products", options, {"FACULA_CACHE": "0"})])["facula"]
    ratios, compiling = {}, []
    rates: list[float] = []
    try:
        vendors = worker.call("present")
        print(f"{'m x k x n':18}" + "".join(f"{x + ' GF/s':>13}" for x in ("facula", *vendors))
              + f"{'of the best':>12}{'error':>9}{'compile ms':>11}")
        for case in QUICK if b.quick else CASES:
            m, k, n = case[:3]
            found = worker.call("measure", case, 0.01 if b.quick else b.args.seconds)
            best = {label: min(x) for label, x in found["seconds"].items()}
            error = found["errors"]["facula"]
            if not error < 1e-5:
                raise SystemExit(f"{name_of(case)}: wrong: relative error {error:.1e}")
            compiling.append(found["compiling"])
            rates.append(2e-9 * m * n * k / best["facula"])
            theirs = [best[v] for v in vendors]
            if theirs:
                ratios[name_of(case)] = min(theirs) / best["facula"]
            share = f"{ratios[name_of(case)]:.0%}" if theirs else ""
            print(f"{name_of(case):18}"
                  + "".join(f"{2e-9 * m * n * k / x:13.1f}" for x in best.values())
                  + f"{share:>12}{error:9.1e}{1e3 * found['compiling']:11.0f}", flush=True)
            for label, x in best.items():
                row = Row(label, [x], found["errors"][label])
                b.rows.append(row)
                b.tables.append({
                    "group": name_of(case), "contender": label, "unit": "GFLOP/s",
                    "median": 2e-9 * m * n * k / x, "low": None, "high": None,
                    "rounds": len(found["seconds"][label]), "error": row.error,
                    "ratio": best["facula"] / x, "facts": {}})
        peak = worker.call("peak")
    finally:
        worker.close()
    of_peak = [rate / peak for rate in rates]
    b.notes.append(f"multiply-adds alone: {peak:.1f} GFLOP/s; facula's products reach "
                   f"{statistics.geometric_mean(of_peak):.0%} of it (geometric mean over the "
                   f"shapes), the worst {min(of_peak):.0%}")
    for vendor in ("NumPy", "torch"):
        if vendor not in vendors:
            b.missing[vendor] = "not installed" if options["peers"] else "left out"
    b.notes.append(f"compiling one product: {1e3 * statistics.median(compiling):.0f} ms median")
    if ratios:
        mean = math.exp(statistics.fmean(math.log(r) for r in ratios.values()))
        worst = min(ratios, key=lambda case: ratios[case])
        b.claim("rate relative to the best vendor, geometric mean over the shapes", mean, ">=",
                1.0, "x")
        b.claim(f"rate relative to the best vendor, the worst shape ({worst})", ratios[worst],
                ">=", 0.9, "x")
    else:
        b.unclaimed("rate relative to the best vendor", "no vendor's library is here")
    b.finish()


if __name__ == "__main__":
    main()
