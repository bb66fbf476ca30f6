"""The first training step in a fresh process, from an empty cache of machine code and a warm one.

    python benchmarks/first_step.py [--quick] [--threads 2] [--rounds 7] [--only small|resnet]
                                    [--out FOLDER]

A process builds a network and times its first steps one by one, each from zero_grad to having read
the loss.  A framework may put its compiling off to a later step, as facula does: so the figure of
the 784-128-64-10 network is that of the slowest of the first ten, not of the very first.  The steps
of ResNet-18 on 32x32 images (cnn.py) are long in themselves: its figure is what the first eight
take together beyond eight times the median of four later ones.  The peers are measured alike;
`torch.compile` has its own cache on disk, emptied and kept in the same way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from typing import Any

from harness import Benchmark, Failed, Missing, Row, fresh

STEPS = 10
EARLY, LATE = 8, 4
RESNET = "ResNet-18, 32x32, batch 32: compiling the step"

_CODE = """
import importlib, json, sys, time
options = json.loads(sys.argv[3])
networks = importlib.import_module(sys.argv[1])
__import__(options.get("module", "facula"))
start = time.perf_counter()
step = getattr(networks, sys.argv[2])(options)
built = time.perf_counter() - start
taken = []
for k in range(int(sys.argv[4])):
    start = time.perf_counter()
    float(step.one(k))
    taken.append(time.perf_counter() - start)
print(json.dumps({"built": built, "steps": taken}))
"""


def measure(script: str, factory: str, options: dict[str, Any], threads: int, cache: str,
            steps: int) -> dict[str, Any]:
    """Seconds of building the network and of each of the first steps, in a process of its own."""
    environment = {"FACULA_CACHE_DIR": cache, "TORCHINDUCTOR_CACHE_DIR": cache,
                   "JAX_COMPILATION_CACHE_DIR": cache,
                   "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    found: dict[str, Any] = fresh(
        _CODE, [script, factory, json.dumps({"threads": threads, **options}), str(steps)], threads,
        environment)
    return found


def beyond(steps: list[float]) -> float:
    """Seconds that the first steps take together beyond what they will take later; 0 for none."""
    return max(sum(steps[:EARLY]) - EARLY * statistics.median(steps[EARLY:]), 0.0)


def rows_of(b: Benchmark, script: str, kinds: dict[str, tuple[str, dict[str, Any], int]],
            steps: int, figure: Any) -> dict[tuple[str, str], Row]:
    """Each contender's `figure` of its first steps, from an empty cache and from a warm one.

    kinds  by label: the factory in the script, its options, and how many rounds
    """
    rows: dict[tuple[str, str], Row] = {}
    for k in range(max(times for *_, times in kinds.values())):
        for label, (factory, options, times) in kinds.items():
            if k >= times or label in b.missing:
                continue
            with tempfile.TemporaryDirectory() as cache:
                try:
                    for state in ("empty cache", "warm cache"):
                        found = measure(script, factory, options, b.threads, cache, steps)
                        row = rows.setdefault((label, state), Row(f"{label}, {state}", []))
                        row.seconds.append(figure(found["steps"]))
                        row.facts = {"first steps, s": found["steps"],
                                     "building the network, s": found["built"]}
                except Missing as e:
                    b.missing[label] = str(e)
                except Failed as e:
                    if label.startswith("facula"):
                        raise
                    b.missing[label] = "failed: " + str(e).strip().splitlines()[-1]
    return rows


def contenders(b: Benchmark, options: dict[str, Any], rounds: int, compiled: dict[str, Any],
               theirs: dict[str, Any], peers: int) -> dict[str, tuple[str, dict[str, Any], int]]:
    """Facula's ways and the peers; `compiled` and `theirs` are what compiles the whole step in
    facula (nothing: it is left out) and the model in PyTorch."""
    kinds = {"facula": ("facula_step", {"module": "facula", **options}, rounds)}
    if compiled:
        kinds["facula.compile"] = ("facula_step", {"module": "facula", **options, **compiled},
                                   rounds)
    if not b.args.no_peers:
        kinds["torch eager"] = ("torch_step", {"module": "torch", **options}, min(rounds, peers))
        kinds["JAX jit"] = ("jax_step", {"module": "jax", **options}, min(rounds, peers))
        if not b.quick:
            kinds["torch.compile"] = ("torch_step", {"module": "torch", **options, **theirs}, 1)
    return kinds


def small(b: Benchmark, rounds: int) -> None:
    """The slowest of the first ten steps of the small network."""
    kinds = contenders(b, {"batch": 64}, rounds, {}, {"compiled": "model"}, 3)
    rows = rows_of(b, "networks", kinds, STEPS, max)
    b.show(rows.values(), unit="ms", per="step", prefix="784-128-64-10, batch 64: slowest step")
    cold, warm = (rows["facula", state] for state in ("empty cache", "warm cache"))
    b.notes.append("facula's first ten steps from an empty cache, ms: "
                   + " ".join(f"{1e3 * s:.1f}" for s in cold.facts["first steps, s"]))
    b.claim("slowest of the first ten steps, empty cache", cold.median, "<=", 1.5, " s")
    b.claim("slowest of the first ten steps, warm cache", warm.median, "<=", 0.2, " s")


def resnet(b: Benchmark, rounds: int) -> None:
    """What compiling the training step of a ResNet-18 takes."""
    kinds = contenders(b, {"network": "resnet"}, rounds, {"compile": True}, {"compile": True}, 1)
    rows = rows_of(b, "cnn", kinds, EARLY + LATE, beyond)
    b.show(rows.values(), unit="s", per="program", prefix=RESNET)
    for state, bound in (("empty cache", 6.0), ("warm cache", 0.5)):
        dearest = max(rows[label, state].median for label in ("facula", "facula.compile"))
        b.claim(f"{RESNET}, {state}", dearest, "<=", bound, " s")
    b.notes.append("the figure of a ResNet-18 is the dearer of the plain loop and facula.compile")


def main() -> None:
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=7)
        parser.add_argument("--only", choices=["small", "resnet"])

    b = Benchmark(__file__, "The first training step, in a fresh process",
                  "The slowest of the first ten steps of the 784-128-64-10 network at batch 64, "
                  "which is the one that compiles, each timed to having read its loss; and what "
                  f"the first {EARLY} steps of a ResNet-18 on 32x32 images take together beyond "
                  f"{EARLY} later ones. With an empty cache on disk and with the one that the run "
                  "before has left. Importing and building the network are not in it; they are "
                  "among the facts, as is the very first step.", arguments)
    rounds = 1 if b.quick else b.args.rounds
    if b.args.only != "resnet":
        small(b, rounds)
    if b.args.only == "resnet" or b.args.only is None and not b.quick:
        resnet(b, min(rounds, 3))
    b.finish()


if __name__ == "__main__":
    main()
