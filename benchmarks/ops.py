"""Common operations one by one, forward and with gradients, against PyTorch's eager mode.

    python benchmarks/ops.py [--quick] [--only REGEX] [--part 1/8] [--threads 2] [--out FOLDER]

The rows are in `op_table.py`.  A call is forced before the next begins; with gradients, the result
and the gradients of all floating-point operands are, for a given gradient of the result.  The error
is that of the norm against PyTorch in float64 (of integers and booleans: the share that differs),
facula's and, beside it, PyTorch's in float32.  `first` is the longest of facula's first calls, with
nothing of its compilation kept on disk.  Calls alternate in short rounds; medians count.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
import tempfile
import time
from typing import Any

import numpy as np
from harness import Benchmark, Contender, Failed, Row, Worker, interleave
from op_table import CASES, Case, tensors_of

SLOW = 0.8
"""Below this share of PyTorch's speed a row is listed as slow."""
FIRST = 0.15
"""Seconds that the first calls of one operation may take."""
WARM = 10
QUICK = 29
"""Every so manieth row is measured in the quick form."""


class Operations:
    """One library's side: `prepare` a row, then `run` it."""

    def __init__(self, library: Any, options: dict[str, Any]):
        library.set_num_threads(options["threads"])
        self.t = library
        self.name = library.__name__
        self.work: Any = None

    def _force(self, found: list[Any]) -> None:
        if self.name == "facula":
            for x in found:
                x._peek()

    def _closure(self, case: Case, back: bool, wide: bool = False) -> Any:
        """A function that computes the row once and returns all results, forced."""
        t = self.t
        tensors = tensors_of(t, case, wide)
        if case.made:
            call = case.fn(t, *tensors)
        else:
            def call() -> Any:
                return case.fn(t, *tensors)
        wrt = []
        if back:
            some = tensors[:case.wrt or len(tensors)]
            wrt = [x for x in some if x.is_floating_point() or x.is_complex()]
            for x in wrt:
                x.requires_grad_()
            rng = np.random.default_rng(7)
            given = []
            for out in _flat(call()):
                g = rng.standard_normal(tuple(out.shape)).astype(np.float32)
                given.append(t.tensor(g).to(out.dtype))

        def run() -> list[Any]:
            found = _flat(call())
            if wrt:
                grads = t.autograd.grad(found, wrt, given, allow_unused=True)
                found = [*found, *[g for g in grads if g is not None]]
            self._force(found)
            return found
        return run

    def prepare(self, number: int, back: bool) -> dict[str, float]:
        """Seconds of the longest of the first calls, and of the last of them."""
        self.work = self._closure(CASES[number], back)
        taken = []
        for _ in range(WARM):
            start = time.perf_counter()
            self.work()
            taken.append(time.perf_counter() - start)
        return {"first": max(taken), "last": min(taken[-2:])}

    def save(self, number: int, back: bool, file: str, wide: bool = False) -> None:
        """Write the results of one call, in `wide` of one in float64."""
        found = self._closure(CASES[number], back, wide)()
        np.savez(file, *[_array(self.t, x) for x in found])

    def run(self, n: int) -> None:
        work = self.work
        for _ in range(n):
            work()


def _flat(found: Any) -> list[Any]:
    return list(found) if isinstance(found, (tuple, list)) else [found]


def _array(t: Any, x: Any) -> np.ndarray:
    x = x.detach()
    if x.is_floating_point():
        x = x.to(t.float64)
    return np.asarray(x.resolve_conj().resolve_neg() if t.__name__ == "torch" else x.numpy())


def facula_operations(options: dict[str, Any]) -> Operations:
    import facula
    return Operations(facula, options)


def torch_operations(options: dict[str, Any]) -> Operations:
    import torch
    return Operations(torch, options)


def error_of(have: str, want: str) -> float:
    """The largest error of the results in two files."""
    worst = 0.0
    with np.load(have) as ours, np.load(want) as theirs:
        if len(ours.files) != len(theirs.files):
            return math.inf
        for name in ours.files:
            a, b = ours[name], theirs[name]
            if a.shape != b.shape:
                return math.inf
            if b.dtype.kind in "fc":
                same = np.isfinite(b)
                if not np.array_equal(same, np.isfinite(a)):
                    return math.inf
                scale = float(np.linalg.norm(b[same]))
                error = float(np.linalg.norm((a - b)[same])) / (scale or 1.0)
            else:
                error = float((a != b).mean()) if a.size else 0.0
            worst = max(worst, error)
    return worst


def measure(workers: dict[str, Worker], number: int, back: bool, rounds: int, seconds: float,
            folder: str) -> tuple[dict[str, Row], float]:
    """The rows of one case, and the seconds of facula's longest first call."""
    case, first = CASES[number], 0.0
    rows, counts = {}, {}
    want = None
    if "torch" in workers and not case.drawn:
        want = f"{folder}/want.npz"
        workers["torch"].call("save", number, back, want, True)
    for label, worker in workers.items():
        rows[label] = Row(label, [])
        warm = worker.call("prepare", number, back)
        if label == "facula":
            first = warm["first"]
        counts[label] = max(1, min(2000, round(seconds / warm["last"])))
        if want is not None:
            have = f"{folder}/have.npz"
            worker.call("save", number, back, have)
            rows[label].error = error_of(have, want)
        worker.rest()
    interleave(workers, counts, rounds, rows)
    return rows, first


def chosen(only: str, part: str, quick: bool) -> list[int]:
    """The numbers of the rows that the arguments ask for."""
    found = [k for k, c in enumerate(CASES) if re.search(only, f"{c.family}: {c.name}")]
    if quick:
        found = found[::QUICK]
    which, _, of = part.partition("/")
    return found[int(which) - 1::int(of)]


def main() -> None:
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", default="", metavar="REGEX",
                            help="rows whose 'family: name' has this in it")
        parser.add_argument("--part", default="1/1", metavar="K/N",
                            help="every Nth row from the Kth")
        parser.add_argument("--rounds", type=int, default=5)
        parser.add_argument("--seconds", type=float, default=0.02, help="of each round")

    b = Benchmark(__file__, "Common operations, one by one",
                  "One operation at a time, its result forced; with gradients, they are forced, "
                  "too. The error is that of the norm, against PyTorch in float64.", arguments)
    rounds, seconds = (1, 0.002) if b.quick else (b.args.rounds, b.args.seconds)
    workers = b.start([Contender("facula", "facula_operations", {}, {"FACULA_CACHE": "0"}),
                       Contender("torch", "torch_operations")])
    ratios: dict[str, float] = {}
    late: list[str] = []
    print(f"{'':44}{'facula us':>11}{'torch us':>11}{'ratio':>7}{'error':>10}{'torch':>9}"
          f"{'first ms':>9}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            for number in chosen(b.args.only, b.args.part, b.quick):
                case = CASES[number]
                for back in (False, True)[:1 + case.back]:
                    label = f"{case.family}: {case.name}" + ", gradients" * back
                    try:
                        rows, first = measure(workers, number, back, rounds, seconds, folder)
                    except Failed as e:
                        if "facula" in str(e).split(":")[0]:
                            raise
                        b.missing[label] = str(e).strip().splitlines()[-1]
                        continue
                    if first > FIRST:
                        late.append(f"{label} ({first * 1e3:.0f} ms)")
                    ours = rows["facula"]
                    b.rows += rows.values()
                    b.tables += [{
                        "group": label, "contender": who, "unit": "us", "rounds": len(r.seconds),
                        "median": r.median * 1e6, "low": r.quartiles()[0] * 1e6,
                        "high": r.quartiles()[1] * 1e6, "error": r.error,
                        "ratio": r.median / ours.median, "facts": {"first": first}}
                        for who, r in rows.items()]
                    line = f"{label:44}{ours.median * 1e6:11.1f}"
                    if "torch" in rows:
                        theirs = rows["torch"]
                        ratios[label] = theirs.median / ours.median
                        line += f"{theirs.median * 1e6:11.1f}{ratios[label]:7.2f}"
                        if ours.error is not None and theirs.error is not None:
                            line += f"{ours.error:10.1e}{theirs.error:9.1e}"
                        else:
                            line += " " * 19
                    print(f"{line}{first * 1e3:9.0f}", flush=True)
    finally:
        for worker in workers.values():
            worker.close()
    if ratios:
        slow = sorted((r, x) for x, r in ratios.items() if r < SLOW)
        b.claim("speed relative to PyTorch's, geometric mean",
                math.exp(statistics.fmean(math.log(r) for r in ratios.values())), ">=", 1.0, "x")
        b.claim(f"operations of {len(ratios)} that are under {SLOW} times as fast", len(slow),
                "<=", len(ratios) // 20)
        for r, x in slow:
            print(f"under {SLOW}: {x}: {r:.2f}")
    else:
        b.missing.setdefault("torch", "not installed")
    if late:
        b.notes.append(f"first calls of more than {FIRST * 1e3:.0f} ms: " + ", ".join(late))
    b.finish()


if __name__ == "__main__":
    main()
