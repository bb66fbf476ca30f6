"""What another batch size costs: the second one, one more, and the last, smaller batch of an epoch.

    python benchmarks/shapes.py [--quick] [--threads 2] [--rounds 5] [--out FOLDER]

A process trains the network at batch 64 until that is fast, then meets sizes that it has not seen.
A size's cost is what its first steps take beyond as many of its later ones: frameworks put their
compiling off to different steps, so `FIRST` of them are counted.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

import numpy as np
from harness import Benchmark, Failed, Missing, Row, Worker
from networks import facula_step, jax_step, torch_step

FIRST = 24
SECOND = 48
OTHERS = (31, 57, 23, 61, 37)
LAST = 32

__all__ = ["facula_shapes", "jax_shapes", "torch_shapes"]


class Shapes:
    """A network's training step on the first `n` examples of its batches."""

    def __init__(self, step: Any, cut: Any):
        self.step, self.cut = step, cut
        self.batches = list(step.inputs), list(step.labels)
        self.facts: dict[str, Any] = {}
        self.use(64)
        self.times(40)

    def use(self, n: int) -> None:
        """Batches of this size from now on."""
        for mine, whole in zip((self.step.inputs, self.step.labels), self.batches):
            mine[:] = [self.cut(x, n) for x in whole]

    def times(self, count: int) -> list[float]:
        """Seconds of so many steps, each to having read its loss."""
        found = []
        for k in range(count):
            start = time.perf_counter()
            self.step.settle(self.step.one(k % self.step.count))
            found.append(time.perf_counter() - start)
        return found

    def cost(self, n: int, more: int = 60) -> float:
        """Seconds that the first steps of this size take beyond later ones."""
        self.use(n)
        first = self.times(FIRST)
        later = statistics.median(self.times(more)[more // 2:])
        return max(sum(first) - FIRST * later, 0.0)

    def last(self, n: int) -> float:
        """Seconds of one step of this size, beyond what one of 64 takes."""
        usual = statistics.median(self.times(20))
        self.use(n)
        taken = self.times(1)[0]
        self.use(64)
        return max(taken - usual, 0.0)


def facula_shapes(options: dict[str, Any]) -> Shapes:
    """The plain loop, or the whole step under `facula.compile`."""
    import facula
    step = facula_step(options)
    return Shapes(step, lambda x, n: facula.tensor(np.array(x.numpy()[:n])))


def torch_shapes(options: dict[str, Any]) -> Shapes:
    """Eager, or the model and its loss under `torch.compile`, which is dynamic by itself."""
    step = torch_step(options)
    return Shapes(step, lambda x, n: x[:n].clone())


def jax_shapes(options: dict[str, Any]) -> Shapes:
    """One jitted function, which is compiled for every shape."""
    return Shapes(jax_step(options), lambda x, n: x[:n])


def main() -> None:
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=5)

    b = Benchmark(__file__, "Another batch size",
                  "The 784-128-64-10 training step in a fresh process with an empty cache, after "
                  f"40 steps at batch 64: what the first {FIRST} steps of size {SECOND} take "
                  "beyond as many later ones (the second size), the same of "
                  f"{len(OTHERS)} sizes more (one more), and one step of a size never seen, as "
                  "the last batch of an epoch is, beyond one of 64.", arguments)
    rounds = 1 if b.quick else b.args.rounds
    kinds: dict[str, tuple[str, dict[str, Any], int]] = {
        "facula": ("facula_shapes", {}, rounds),
        "facula.compile": ("facula_shapes", {"compiled": True}, rounds)}
    if not b.args.no_peers:
        kinds["torch eager"] = ("torch_shapes", {}, min(rounds, 3))
        kinds["JAX jit"] = ("jax_shapes", {}, min(rounds, 3))
        if not b.quick:
            kinds["torch.compile"] = ("torch_shapes", {"compiled": "model"}, 1)
    rows: dict[tuple[str, str], Row] = {}
    for label, (factory, options, times) in kinds.items():
        for _ in range(times):
            try:
                for what, seconds in _round(b, factory, options).items():
                    rows.setdefault((label, what), Row(label, [])).seconds += seconds
            except Missing as e:
                b.missing[label] = str(e)
                break
            except Failed as e:
                if label.startswith("facula"):
                    raise
                b.missing[label] = "failed: " + str(e).strip().splitlines()[-1]
                break
    for what in ("the second size", "one size more", "the last batch"):
        b.show([row for (_, kind), row in rows.items() if kind == what], unit="ms",
               per="size", prefix=what)
    for label in ("facula", "facula.compile"):
        b.claim(f"{label}: one size more", rows[label, "one size more"].median * 1e3, "<=", 30,
                " ms")
        b.claim(f"{label}: the last batch of an epoch, the first time",
                rows[label, "the last batch"].median * 1e3, "<=", 30, " ms")
    b.finish()


def _round(b: Benchmark, factory: str, options: dict[str, Any]) -> dict[str, list[float]]:
    """What a fresh process measures."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as cache:
        environment = {"FACULA_CACHE_DIR": cache, "TORCHINDUCTOR_CACHE_DIR": cache}
        worker = Worker(b.script, factory, {"threads": b.threads, "batch": 64, **options},
                        b.threads, environment)
        try:
            worker.rest()
            found["the last batch"] = [worker.call("last", LAST)]
            found["the second size"] = [worker.call("cost", SECOND)]
            found["one size more"] = [worker.call("cost", n) for n in
                                      (OTHERS[:2] if b.quick else OTHERS)]
        finally:
            worker.close()
    return found


if __name__ == "__main__":
    main()
