"""Convolutions of ResNet-50 and products of BERT on one thread: error and rate together.

    python benchmarks/conv_sweep.py [--quick] [--seconds 0.3] [--out FOLDER]

Operands are in memory as the user has them (images, channels, rows, columns; the weight of a linear
layer by its outputs); packing is part of what is timed, as in a training step, whose weights are
others each time (FACULA_LAYOUT=0: nothing that is made of weights is kept).  In float32 the
convolutions' gradients are measured, too; in bfloat16 operands and result are, sums are float32.
The peer is what PyTorch's CPU build calls (oneDNN), in the same process, round by round in turn;
the best round of each counts.  The peak is what the register tile alone reaches on operands that
stay in the first cache.  3x3 convolutions of stride 1 in float32 go above it, because they are
computed with fewer multiplications than are counted (minimal filtering).
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
# (rows, inputs, outputs) of BERT's linear layers: four sentences of 128 words
PRODUCTS = [(512, 768, 768), (512, 768, 3072), (512, 3072, 768)]
QUICK = [CASES[2], CASES[5]]
KINDS = ("conv", "conv_input", "conv_weight")
NAMES = {"conv": "forward", "conv_input": "input's gradient", "conv_weight": "weight's gradient"}
DTYPES = ("float32", "bfloat16")
ERRORS = {"float32": 1e-5, "bfloat16": 1e-2}


def name_of(case: list[int] | tuple[int, ...]) -> str:
    """As in `4x64x56x56 to 64, 3x3`."""
    if len(case) == 3:
        return f"{case[0]}x{case[1]} to {case[2]}, linear"
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

    def peak(self, dtype: str) -> float:
        """GFLOP/s of the register tile on operands in the first cache.

        A bfloat16 element of it is a pair, where the processor multiplies and adds those, and
        widened to float32 elsewhere.
        """
        import facula.codegen.products.tiles as tiles
        from facula.codegen.llvm import Fn, Module
        from facula.codegen.products.brgemm import OperandPlace
        from facula.codegen.products.microkernel import register_tile
        from facula.codegen.target import target
        from facula.runtime.plan import KernelPlan, PhasePlan, ProgramPlan
        from facula.runtime.program import Program
        t, module, depth, times = target(), Module(), 64, 4096
        rows, lanes = t.tile(2), t.lanes(4)
        pairs = dtype == "bfloat16" and t.pairs

        def of_pairs(fn: Any, x: str, y: str, total: str, into: str) -> None:
            sums, wide = f"<{lanes} x float>", f"<{2 * lanes} x bfloat>"
            f = fn.module.declare(f"{sums} @llvm.x86.avx512bf16.dpbf16ps.512({sums}, {wide}, "
                                  f"{wide})")
            a, b = (fn.val(f"bitcast {sums} {v} to {wide}") for v in (x, y))
            fn.do(f"{into} = call {sums} {f}({sums} {total}, {wide} {a}, {wide} {b})")

        name = register_tile(module, "peak_micro", t, "float", (rows, 2 * lanes),
                             OperandPlace("a", (), 0, rows, 1),
                             OperandPlace("b", (), 0, 2 * lanes, 1),
                             2 * lanes, of_pairs if pairs else None)
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
        return (2 if pairs else 1) * 2e-9 * rows * 2 * lanes * depth * times / best

    def linear(self, case: list[int], dtype: str, budget: float) -> dict[str, Any]:
        """`measure`, of a linear layer without bias."""
        import facula
        from facula.graph.spec import Step, spec
        from facula.schedule.executable import make_executable
        m, k, n = case
        kind = getattr(facula, dtype)
        shapes = (m, k), (n, k), (k, n), (m, n)
        steps = [Step("leaf", (None,), (), spec(shape, kind)) for shape in shapes[:2]]
        steps.append(Step("permute", ((1, 0),), (1,), spec(shapes[2], kind)))
        steps.append(Step("matmul", (), (0, 2), spec(shapes[3], kind)))
        program = make_executable(steps, [3], {})
        a, b = operands(shapes[:2], dtype)
        values = [_buffer(v) for v in (a, b)]
        want = a.astype(np.float64) @ b.astype(np.float64).T
        ways: dict[str, Callable[[], Any]] = {
            "facula": lambda: program.run(values)[0].array(spec(shapes[3], kind), None)}
        if self.torch is not None:
            ta, tb = (self._tensor(v, dtype) for v in (a, b))
            ways["torch"] = lambda: self.torch.mm(ta, tb.t())
        return {**self._rounds(ways, want, budget), "flops": 2.0 * m * k * n}

    def _tensor(self, array: np.ndarray, dtype: str) -> Any:
        return self.torch.from_numpy(array.astype(np.float32)).to(getattr(self.torch, dtype))

    def _rounds(self, ways: dict[str, Callable[[], Any]], want: np.ndarray, budget: float
                ) -> dict[str, Any]:
        """Seconds of rounds in turn, and the relative error in norm, by name."""
        errors = {}
        for label, way in ways.items():
            have = way()
            have = have.float().numpy() if label == "torch" else np.asarray(have)
            errors[label] = float(np.linalg.norm(have.astype(np.float64) - want)
                                  / np.linalg.norm(want))
        taken: dict[str, list[float]] = {label: [] for label in ways}
        stop = time.perf_counter() + budget
        while time.perf_counter() < stop or len(taken["facula"]) < 3:
            for label, way in ways.items():
                start = time.perf_counter()
                way()
                taken[label].append(time.perf_counter() - start)
        return {"seconds": taken, "errors": errors}

    def measure(self, case: list[int], kind: str, dtype: str, budget: float) -> dict[str, Any]:
        """Seconds of the rounds, and the relative error in norm, by name."""
        from facula.dtype import bfloat16, float32, float64
        from facula.graph.spec import Step, spec
        from facula.ops.table import PRIMS
        from facula.schedule.executable import make_executable
        if len(case) == 3:
            return self.linear(case, dtype, budget)
        n, c, o, size, k, s, p, groups = case
        out = (size + 2 * p - k) // s + 1
        x, w, y = (n, c, size, size), (o, c // groups, k, k), (n, o, out, out)
        left, right, result = {"conv": (x, w, y), "conv_input": (y, w, x),
                               "conv_weight": (x, y, w)}[kind]
        attrs: tuple[Any, ...] = ((s, s), (p, p), (1, 1), groups)
        if kind == "conv_weight":
            attrs = (*attrs, 0)
        a, b = operands((left, right), dtype)
        short = dtype == "bfloat16"
        own = bfloat16 if short else float32
        steps = [Step("leaf", (None,), (), spec(shape, own)) for shape in (left, right)]
        if short:
            steps += [Step("cast", (), (i,), spec(shape, float32))
                      for i, shape in enumerate((left, right))]
        steps.append(Step(kind, attrs, (len(steps) - 2, len(steps) - 1), spec(result, float32)))
        if short:
            steps.append(Step("cast", (), (len(steps) - 1,), spec(result, own)))
        program = make_executable(steps, [len(steps) - 1], {})
        values = [_buffer(v) for v in (a, b)]
        want = PRIMS[kind].numpy([a.astype(np.float64), b.astype(np.float64)], attrs,
                                 spec(result, float64))
        ways: dict[str, Callable[[], Any]] = {
            "facula": lambda: program.run(values)[0].array(spec(result, own), None)}
        if self.torch is not None:
            torch = self.torch
            ta, tb = (self._tensor(v, dtype) for v in (a, b))
            empty = torch.empty(x if kind == "conv_input" else w, dtype=ta.dtype)

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
        return {**self._rounds(ways, want, budget), "flops": 2.0 * math.prod(y) * math.prod(w[1:])}


def operands(shapes: Any, dtype: str) -> list[np.ndarray]:
    """Random arrays of these shapes, the same each time."""
    import facula
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, np.float32).astype(getattr(facula, dtype).np)
            for shape in shapes]


def _buffer(array: np.ndarray) -> Any:
    from facula.runtime.allocator import from_numpy_private
    return from_numpy_private(array.copy())


def convolutions(options: dict[str, Any]) -> Convolutions:
    return Convolutions(options)


def main() -> None:
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--seconds", type=float, default=0.3, help="of rounds, each shape")
        parser.set_defaults(threads=1)

    b = Benchmark(__file__, "Convolutions of ResNet-50 and linear layers of BERT, one thread",
                  "The convolution alone and each of its gradients (in bfloat16 forward only), "
                  "operands in memory as the user has them, packing included, nothing kept of "
                  "weights. The best round counts. The error is that of the norm, against float64.",
                  arguments)
    b.threads = 1
    options = {"peers": not b.args.no_peers}
    worker = b.start([Contender("facula", "convolutions", options, {"FACULA_LAYOUT": "0"})])[
        "facula"]
    rates: dict[tuple[str, str], list[float]] = {}
    ratios: dict[tuple[str, str], float] = {}
    peaks: dict[str, float] = {}
    cases = [*(QUICK if b.quick else CASES), *(PRODUCTS[:1] if b.quick else PRODUCTS)]
    try:
        vendors = worker.call("present")
        for dtype in DTYPES:
            peaks[dtype] = worker.call("peak", dtype)
            b.notes.append(f"the register tile alone, {dtype}: {peaks[dtype]:.1f} GFLOP/s")
        print(f"{'':55}" + "".join(f"{v + ' GF/s':>13}" for v in ("facula", *vendors))
              + f"{'of the peak':>13}{'error':>9}")
        for dtype, case in ((d, c) for d in DTYPES for c in cases):
            for kind in KINDS if dtype == "float32" and len(case) > 3 else KINDS[:1]:
                found = worker.call("measure", case, kind, dtype,
                                    0.01 if b.quick else b.args.seconds)
                best = {label: min(x) for label, x in found["seconds"].items()}
                error = found["errors"]["facula"]
                label = f"{name_of(case)}, {NAMES[kind]}" + f", {dtype}" * (dtype != DTYPES[0])
                if not error < ERRORS[dtype]:
                    raise SystemExit(f"{label}: wrong: relative error {error:.1e}")
                rate = 1e-9 * found["flops"] / best["facula"]
                what = "linear" if len(case) == 3 else kind
                rates.setdefault((what, dtype), []).append(rate)
                if vendors:
                    ratios[label, dtype] = best["torch"] / best["facula"]
                print(f"{label:55}" + "".join(f"{1e-9 * found['flops'] / x:13.1f}"
                                              for x in best.values())
                      + f"{rate / peaks[dtype]:13.0%}{error:9.1e}", flush=True)
                for who, x in best.items():
                    b.rows.append(Row(who, [x], found["errors"][who]))
                    b.tables.append({
                        "group": label, "contender": who, "unit": "GFLOP/s",
                        "median": 1e-9 * found["flops"] / x, "low": None, "high": None,
                        "rounds": len(found["seconds"][who]), "error": found["errors"][who],
                        "ratio": best["facula"] / x, "facts": {}})
    finally:
        worker.close()

    def mean(values: Any) -> float:
        return math.exp(statistics.fmean(math.log(v) for v in values))

    for dtype, bound in zip(DTYPES, (0.9, 0.75), strict=True):
        for what, name in (("conv", "convolutions, forward"), ("linear", "linear layers")):
            b.claim(f"{name}, {dtype}: rate relative to the peak, geometric mean over the shapes",
                    mean(rates[what, dtype]) / peaks[dtype], ">=", bound, "x")
    for dtype in DTYPES if ratios else ():
        own = {label: r for (label, d), r in ratios.items() if d == dtype}
        worst = min(own, key=lambda label: own[label])
        b.claim(f"{dtype}: rate relative to PyTorch's, geometric mean over shapes and kinds",
                mean(own.values()), ">=", 1.0, "x")
        if dtype == DTYPES[0]:
            b.claim(f"{dtype}: rate relative to PyTorch's, the worst ({worst})", own[worst], ">=",
                    0.75, "x")
        else:
            b.notes.append(f"{dtype}: the worst relative to PyTorch's is {own[worst]:.2f} "
                           f"({worst})")
    if not ratios:
        b.missing["torch"] = "not installed" if options["peers"] else "left out"
    b.finish()


if __name__ == "__main__":
    main()
