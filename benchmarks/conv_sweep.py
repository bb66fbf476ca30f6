"""Convolutions of ResNet-50 on one thread, forward and both gradients: error and rate together.

    python benchmarks/conv_sweep.py [--quick] [--seconds 0.3] [--out FOLDER]

Operands are in memory as the user has them (images, channels, rows, columns); packing is part of
what is timed.  The peer is what PyTorch's CPU build calls (oneDNN), in the same process, round by
round in turn; the best round of each counts.  The peak is what the register tile alone reaches on
operands that stay in the first cache.  3x3 convolutions of stride 1 go above it, because they
are computed with fewer multiplications than are counted (minimal filtering).
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

# (images, input channels, output channels, size, kernel, stride, padding, groups)
CASES = [(1, 3, 64, 224, 7, 2, 3, 1), (4, 64, 64, 56, 1, 1, 0, 1), (4, 64, 64, 56, 3, 1, 1, 1),
         (4, 64, 256, 56, 1, 1, 0, 1), (4, 256, 64, 56, 1, 1, 0, 1), (4, 256, 128, 56, 1, 2, 0, 1),
         (4, 128, 128, 56, 3, 2, 1, 1), (4, 128, 128, 28, 3, 1, 1, 1),
         (4, 128, 512, 28, 1, 1, 0, 1), (4, 512, 128, 28, 1, 1, 0, 1),
         (4, 256, 256, 28, 3, 2, 1, 1), (4, 256, 256, 14, 3, 1, 1, 1),
         (4, 256, 1024, 14, 1, 1, 0, 1), (4, 1024, 256, 14, 1, 1, 0, 1),
         (4, 512, 512, 14, 3, 2, 1, 1), (4, 512, 512, 7, 3, 1, 1, 1),
         (4, 512, 2048, 7, 1, 1, 0, 1), (4, 2048, 512, 7, 1, 1, 0, 1)]
QUICK = [CASES[2], CASES[5]]
KINDS = ("conv", "conv_input", "conv_weight")
NAMES = {"conv": "forward", "conv_input": "input's gradient", "conv_weight": "weight's gradient"}


def name_of(case: list[int] | tuple[int, ...]) -> str:
    """As in `4x64x56x56 to 64, 3x3`."""
    n, c, o, size, kernel, stride, _, groups = case
    return (f"{n}x{c}x{size}x{size} to {o}, {kernel}x{kernel}" + f" / {stride}" * (stride > 1)
            + f", {groups} groups" * (groups > 1))


class Convolutions:
    """Both ways of one convolution after the other; `measure` is for one shape and kind."""

    def __init__(self, options: dict[str, Any]):
        import facula
        facula.set_num_threads(1)
        self.torch: Any = None
        if options["peers"]:
            try:
                import torch
                torch.set_num_threads(1)
                self.torch = torch
            except ImportError:
                pass

    def present(self) -> list[str]:
        """The vendors that are here."""
        return ["torch"] if self.torch is not None else []

    def peak(self) -> float:
        """GFLOP/s of the register tile on operands in the first cache."""
        import facula.codegen.tiles as tiles
        from facula.codegen.direct import Tiles
        from facula.codegen.llvm import Fn, Module
        from facula.codegen.target import target
        from facula.runtime.plan import KernelPlan, PhasePlan, ProgramPlan
        from facula.runtime.program import Program
        t, module, depth, times = target(), Module(), 64, 4096
        writer = Tiles(module, "float32", t)
        rows, lanes = t.tile(2), writer.lanes
        table = writer.table("peak_steps", [k * rows for k in range(depth)])
        name = writer.micro("peak_micro", range(rows), 2, [2 * lanes * i for i in range(rows)],
                            table, 2 * lanes)
        fn = Fn(module, "peak", tiles.PARAMS, attrs=t.attributes)
        x, v, z = (tiles.operand(fn, k) for k in range(3))
        with fn.loop(0, times):
            fn.do(f"call void @{name}(ptr {x}, ptr {v}, ptr {z}, i64 {depth}, i1 true)")
        fn.finish()
        program = Program(ProgramPlan(
            (PhasePlan((KernelPlan("peak", module.text(), (1, 2, 3), 1),)),), 4,
            ((1, "P"), (2, "P"), (3, "P")), 0, {}))
        memory = [np.ones(n, np.float32) for n in (rows * depth, 2 * lanes * depth,
                                                   2 * lanes * rows)]
        best = math.inf
        for _ in range(20):
            start = time.perf_counter()
            program.run([m.ctypes.data for m in memory])
            best = min(best, time.perf_counter() - start)
        return 2e-9 * rows * 2 * lanes * depth * times / best

    def measure(self, case: list[int], kind: str, budget: float) -> dict[str, Any]:
        """Seconds of the rounds, and the relative error in norm, by name."""
        from facula.dtype import float32, float64
        from facula.graph.spec import Step, spec
        from facula.ops.table import PRIMS
        from facula.runtime.allocator import from_numpy_private
        from facula.schedule.executable import make_executable
        n, c, o, size, k, s, p, groups = case
        out = (size + 2 * p - k) // s + 1
        x, w, y = (n, c, size, size), (o, c // groups, k, k), (n, o, out, out)
        left, right, result = {"conv": (x, w, y), "conv_input": (y, w, x),
                               "conv_weight": (x, y, w)}[kind]
        attrs: tuple[Any, ...] = ((s, s), (p, p), (1, 1), groups)
        if kind == "conv_weight":
            attrs = (*attrs, 0)
        rng = np.random.default_rng(0)
        a, b = (rng.standard_normal(shape, np.float32) for shape in (left, right))
        steps = [Step("leaf", (None,), (), spec(shape, float32)) for shape in (left, right)]
        steps.append(Step(kind, attrs, (0, 1), spec(result, float32)))
        program = make_executable(steps, [2], {})
        values = [from_numpy_private(v.copy()) for v in (a, b)]
        want = PRIMS[kind].numpy([a.astype(np.float64), b.astype(np.float64)], attrs,
                                 spec(result, float64))

        def ours() -> Any:
            return program.run(values)[0].array(spec(result, float32), None)

        ways: dict[str, Callable[[], Any]] = {"facula": ours}
        if self.torch is not None:
            torch = self.torch
            ta, tb = torch.from_numpy(a), torch.from_numpy(b)
            empty = torch.empty(x if kind == "conv_input" else w)

            def theirs() -> Any:
                with torch.no_grad():
                    if kind == "conv":
                        return torch.nn.functional.conv2d(ta, tb, None, s, p, 1, groups)
                    first, second, third = (ta, empty, tb) if kind == "conv_input" else \
                        (tb, ta, empty)
                    return torch.ops.aten.convolution_backward(
                        first, second, third, None, [s, s], [p, p], [1, 1], False, [0, 0], groups,
                        [kind == "conv_input", kind == "conv_weight", False])[
                            0 if kind == "conv_input" else 1]
            ways["torch"] = theirs
        errors = {label: float(np.linalg.norm(np.asarray(way()) - want) / np.linalg.norm(want))
                  for label, way in ways.items()}
        taken: dict[str, list[float]] = {label: [] for label in ways}
        stop = time.perf_counter() + budget
        while time.perf_counter() < stop or len(taken["facula"]) < 3:
            for label, way in ways.items():
                start = time.perf_counter()
                way()
                taken[label].append(time.perf_counter() - start)
        return {"seconds": taken, "errors": errors,
                "flops": 2.0 * math.prod(y) * math.prod(w[1:])}


def convolutions(options: dict[str, Any]) -> Convolutions:
    return Convolutions(options)


def main() -> None:
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--seconds", type=float, default=0.3, help="of rounds, each shape")
        parser.set_defaults(threads=1)

    b = Benchmark(__file__, "Convolutions of ResNet-50, float32, one thread",
                  "The convolution alone and each of its gradients, operands in memory as the user "
                  "has them, packing included. The best round counts. The error is that of the "
                  "norm, against float64.", arguments)
    b.threads = 1
    options = {"peers": not b.args.no_peers}
    worker = b.start([Contender("facula", "convolutions", options)])["facula"]
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    ratios: dict[str, float] = {}
    try:
        vendors, peak = worker.call("present"), worker.call("peak")
        b.notes.append(f"the register tile alone: {peak:.1f} GFLOP/s")
        print(f"{'':44}" + "".join(f"{v + ' GF/s':>13}" for v in ("facula", *vendors))
              + f"{'of the peak':>13}{'error':>9}")
        for case in QUICK if b.quick else CASES:
            for kind in KINDS:
                found = worker.call("measure", case, kind, 0.01 if b.quick else b.args.seconds)
                best = {label: min(x) for label, x in found["seconds"].items()}
                error = found["errors"]["facula"]
                label = f"{name_of(case)}, {NAMES[kind]}"
                if not error < 1e-5:
                    raise SystemExit(f"{label}: wrong: relative error {error:.1e}")
                rates[kind].append(1e-9 * found["flops"] / best["facula"])
                if vendors:
                    ratios[label] = best["torch"] / best["facula"]
                print(f"{label:44}" + "".join(f"{1e-9 * found['flops'] / x:13.1f}"
                                              for x in best.values())
                      + f"{rates[kind][-1] / peak:13.0%}{error:9.1e}", flush=True)
                for who, x in best.items():
                    b.rows.append(Row(who, [x], found["errors"][who]))
                    b.tables.append({
                        "group": label, "contender": who, "unit": "GFLOP/s",
                        "median": 1e-9 * found["flops"] / x, "low": None, "high": None,
                        "rounds": len(found["seconds"][who]), "error": found["errors"][who],
                        "ratio": best["facula"] / x, "facts": {}})
    finally:
        worker.close()
    mean = math.exp(statistics.fmean(math.log(r) for r in rates["conv"]))
    b.claim("forward: rate relative to the peak, geometric mean over the shapes", mean / peak,
            ">=", 0.9, "x")
    if ratios:
        both = math.exp(statistics.fmean(math.log(r) for r in ratios.values()))
        worst = min(ratios, key=lambda label: ratios[label])
        b.claim("rate relative to PyTorch's, geometric mean over shapes and kinds", both, ">=",
                1.0, "x")
        b.claim(f"rate relative to PyTorch's, the worst ({worst})", ratios[worst], ">=", 0.75,
                "x")
    else:
        b.missing["torch"] = "not installed" if options["peers"] else "left out"
    b.finish()


if __name__ == "__main__":
    main()
