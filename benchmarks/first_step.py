"""The first training step in a fresh process, from an empty cache of machine code and a warm one.

    python benchmarks/first_step.py [--quick] [--threads 2] [--rounds 7] [--out FOLDER]

A process builds the 784-128-64-10 network and times its first steps one by one, each from zero_grad
to having read the loss.  A framework may put its compiling off to a later step, as facula does: so
the figure is that of the slowest of the first ten, not of the very first.  The peers are measured
alike; `torch.compile` has its own cache on disk, emptied and kept in the same way.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from typing import Any

from harness import Benchmark, Failed, Missing, Row, fresh

STEPS = 10

_CODE = """
import json, sys, time
import networks
options = json.loads(sys.argv[2])
__import__(options.get("module", "facula"))
start = time.perf_counter()
step = getattr(networks, sys.argv[1])(options)
built = time.perf_counter() - start
taken = []
for k in range(int(sys.argv[3])):
    start = time.perf_counter()
    float(step.one(k))
    taken.append(time.perf_counter() - start)
print(json.dumps({"built": built, "steps": taken}))
"""


def measure(factory: str, options: dict[str, Any], threads: int, cache: str) -> dict[str, Any]:
    """Seconds of building the network and of each of the first steps, in a process of its own."""
    import json
    environment = {"FACULA_CACHE_DIR": cache, "TORCHINDUCTOR_CACHE_DIR": cache,
                   "JAX_COMPILATION_CACHE_DIR": cache,
                   "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    options = {"threads": threads, "batch": 64, **options}
    found: dict[str, Any] = fresh(_CODE, [factory, json.dumps(options), str(STEPS)], threads,
                                  environment)
    return found


def main() -> None:
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=7)

    b = Benchmark(__file__, "The first training step, in a fresh process",
                  "The slowest of the first ten steps of the 784-128-64-10 network at batch 64, "
                  "which is the one that compiles, each timed to having read its loss; with an "
                  "empty cache on disk and with the one that the run before has left. Importing "
                  "and building the network are not in it; they are among the facts, as is the "
                  "very first step.", arguments)
    rounds = 1 if b.quick else b.args.rounds
    kinds: dict[str, tuple[str, dict[str, Any], int]] = {
        "facula": ("facula_step", {"module": "facula"}, rounds)}
    if not b.args.no_peers:
        kinds["torch eager"] = ("torch_step", {"module": "torch"}, min(rounds, 3))
        kinds["JAX jit"] = ("jax_step", {"module": "jax"}, min(rounds, 3))
        if not b.quick:
            kinds["torch.compile"] = ("torch_step", {"module": "torch", "compiled": "model"}, 1)
    rows: dict[tuple[str, str], Row] = {}
    for k in range(rounds):
        for label, (factory, options, times) in kinds.items():
            if k >= times or label in b.missing:
                continue
            with tempfile.TemporaryDirectory() as cache:
                try:
                    for state in ("empty cache", "warm cache"):
                        found = measure(factory, options, b.threads, cache)
                        row = rows.setdefault((label, state), Row(f"{label}, {state}", []))
                        row.seconds.append(max(found["steps"]))
                        row.facts = {"first steps, s": found["steps"],
                                     "building the network, s": found["built"]}
                except Missing as e:
                    b.missing[label] = str(e)
                except Failed as e:
                    if label == "facula":
                        raise
                    b.missing[label] = "failed: " + str(e).strip().splitlines()[-1]
    b.show(rows.values(), unit="ms", per="step")
    of: Callable[[str], Row] = lambda state: rows["facula", state]
    first = of("empty cache").facts["first steps, s"]
    b.notes.append("facula's first ten steps from an empty cache, ms: "
                   + " ".join(f"{1e3 * s:.1f}" for s in first))
    b.claim("slowest of the first ten steps, empty cache", of("empty cache").median, "<=", 1.5,
            " s")
    b.claim("slowest of the first ten steps, warm cache", of("warm cache").median, "<=", 0.2, " s")
    b.finish()


if __name__ == "__main__":
    main()
