"""The most memory that a training program takes, in facula and in PyTorch.

    python benchmarks/memory.py [--quick] [--threads 2] [--only mlp mnist ...] [--out FOLDER]

Each framework has a process of its own for each network.  The figure is the largest resident size
of that process (VmHWM of /proc/self/status) from building the network to the end of a number of
training steps, less what was resident right after `import`: weights, gradients, activations, the
optimiser's state, the batch, and whatever the framework loads, compiles or keeps besides.  Facula
is measured with an empty cache of machine code, when LLVM and its memory are in it, and with the
one that this has left, on which the claim is.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from typing import Any

from harness import Benchmark, Failed, Missing, fresh

STEPS = 6
NETWORKS: dict[str, tuple[str, dict[str, Any], str]] = {
    "mlp": ("networks", {"batch": 64}, "784-128-64-10, batch 64, SGD"),
    "mnist": ("cnn", {"network": "mnist"}, "MNIST CNN, batch 64, SGD"),
    "gpt": ("gpt", {"size": "small", "dtype": "float32"},
            "GPT, 4 layers, 128 wide, batch 12 of 64, AdamW"),
    "resnet": ("cnn", {"network": "resnet"}, "ResNet-18 on 32x32, batch 32, SGD"),
    "gpt-large": ("gpt", {"size": "large", "dtype": "float32"},
                  "GPT, 6 layers, 384 wide, batch 12 of 256, AdamW"),
}

_CODE = """
import importlib, json, sys

def status(key):
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024

framework, script, options, steps = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]
module = importlib.import_module(script)
for name in (framework, framework + ".nn", framework + ".optim"):
    importlib.import_module(name)
before = status("VmRSS")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")                          # VmHWM begins here
step = getattr(module, framework + "_step")(options)
step.run(int(steps))
found = {"peak": status("VmHWM") - before, "imported": before}
if framework == "facula":
    from facula import profiler
    memory = profiler.memory()
    found["taken"] = memory.peak
    found["temporaries"] = memory.temporaries
print(json.dumps(found))
"""


def measure(framework: str, network: str, threads: int, cache: str, steps: int) -> dict[str, int]:
    """Bytes at the peak of a process of its own, and what it had after importing."""
    script, options, _ = NETWORKS[network]
    found: dict[str, int] = fresh(_CODE, [framework, script,
                                          json.dumps({"threads": threads, **options}), str(steps)],
                                  threads, {"FACULA_CACHE_DIR": cache})
    return found


def main() -> None:
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", nargs="+", choices=list(NETWORKS), metavar="NETWORK")

    b = Benchmark(__file__, "The most memory of a training program",
                  "Megabytes (10^6 bytes) of the process at its largest, above what it had after "
                  f"importing: from building the network to the end of {STEPS} steps. What facula "
                  "itself counts (`facula.profiler.memory()`: values, temporaries and free blocks) "
                  "is among the facts; LLVM's memory is in the figure with an empty cache.",
                  arguments)
    for network in b.args.only or (["mlp"] if b.quick else list(NETWORKS)):
        title = NETWORKS[network][2]
        peaks: dict[str, int] = {}
        with tempfile.TemporaryDirectory() as cache:
            for label, framework in (("facula, empty cache", "facula"),
                                     ("facula, warm cache", "facula"), ("torch eager", "torch")):
                if framework == "torch" and b.args.no_peers:
                    b.missing[label] = "left out with --no-peers"
                    continue
                try:
                    found = measure(framework, network, b.threads, cache, STEPS)
                except Missing as e:
                    b.missing[label] = str(e)
                    continue
                except Failed as e:
                    if framework == "facula":
                        raise
                    b.missing[label] = "failed: " + str(e).strip().splitlines()[-1]
                    continue
                peaks[label] = found["peak"]
                first = next(iter(peaks.values()))
                facts = {k: v / 1e6 for k, v in found.items()}
                print(f"{title:50} {label:20} {found['peak'] / 1e6:8.1f} MB  "
                      + " ".join(f"{k} {v:.1f}" for k, v in facts.items()))
                b.tables.append({"group": title, "contender": label, "unit": "MB",
                                 "median": found["peak"] / 1e6, "low": None, "high": None,
                                 "rounds": 1, "error": None, "ratio": found["peak"] / first,
                                 "facts": facts})
        what = f"{title}: peak memory, as a share of PyTorch's"
        if "torch eager" in peaks:
            b.claim(what, peaks["facula, warm cache"] / peaks["torch eager"], "<=", 1.0)
        else:
            b.unclaimed(what, b.missing["torch eager"])
    b.finish()


if __name__ == "__main__":
    main()
