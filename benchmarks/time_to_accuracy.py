"""Seconds until a small convolutional network classifies 98.5 % and 99 % of MNIST's test images.

    python benchmarks/time_to_accuracy.py [--quick] [--threads 2] [--seeds 3] [--recipe small]
                                          [--limit 450] [--out FOLDER]

`small`: conv 1-16 3x3, ReLU, max-pool 2, conv 16-32 3x3, ReLU, max-pool 2, linear 800-64, ReLU,
linear 64-10.  `wide` is the network of cnn.py: no pooling between the convolutions, and ten times
the arithmetic; it is run when it is asked for.  Batch 64, shuffled; Adam with a one-cycle rate that
rises to 0.005 (`wide`: 0.002), over three epochs.  The clock starts with the first batch of a fresh
process, so that compiling is in it (from an empty cache), and stands still while the test set is
looked at, four times an epoch.  Loaders and transforms are those of the textbook program (see
digits.py); as a second contender PyTorch gets what a careful user does instead: all images made
into one tensor beforehand, which no clock counts, and batches taken out of it by a shuffled index.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from cnn import network as network_of
from digits import DEVIATION, MEAN, arrays, facula_dataset, torch_dataset
from harness import Benchmark, Failed, Missing, Row, fresh

EPOCHS, BATCH, LOOKS = 3, 64, 4
RECIPES = {"small": 5e-3, "wide": 2e-3}        # the highest rate of each
TARGETS = (0.985, 0.99)
CONTENDERS = {"facula": ("facula", "loader", False), "torch eager": ("torch", "loader", False),
              "torch eager, data in a tensor": ("torch", "tensor", False),
              "torch.compile, data in a tensor": ("torch", "tensor", True)}


def network(nn: Any, name: str) -> Any:
    """A network by its name in RECIPES."""
    if name == "wide":
        return network_of(nn, "mnist")
    return nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(800, 64), nn.ReLU(), nn.Linear(64, 10))


def _whole(torch: Any, train: bool, limit: int = 0) -> tuple[Any, Any]:
    """A data set as one tensor of images, as the transforms make them, and one of labels."""
    images, labels = arrays(train)
    images, labels = images[:limit or None], labels[:limit or None]
    pixels = ((images[:, None] / np.float32(255) - np.float32(MEAN))
              / np.float32(DEVIATION)).astype(np.float32)
    return torch.from_numpy(pixels), torch.from_numpy(labels)


def train(recipe: str, name: str, how: str, compiled: bool, seed: int, threads: int, limit: int,
          targets: list[float]) -> dict[str, Any]:
    """Seconds of training until each target was met, or None; and the accuracies seen."""
    torch: Any = __import__(name)
    __import__(name + ".utils.data"), __import__(name + ".optim.lr_scheduler")
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    dataset = facula_dataset if name == "facula" else torch_dataset
    images, test = dataset(True), _whole(torch, False)
    if limit:
        images = torch.utils.data.Subset(images, range(limit))
    pictures = _whole(torch, True, limit) if how == "tensor" else None

    def batches() -> Iterator[tuple[Any, Any]]:
        if pictures is None:
            return iter(torch.utils.data.DataLoader(images, batch_size=BATCH, shuffle=True))
        order = torch.randperm(len(images)).split(BATCH)
        return ((pictures[0][k], pictures[1][k]) for k in order)

    net = network(torch.nn, recipe)
    model = torch.compile(net) if compiled else net
    rate = RECIPES[recipe]
    optimizer = torch.optim.Adam(net.parameters(), lr=rate / 25)
    steps = -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs=EPOCHS,
                                                   steps_per_epoch=steps)
    looks = {round(steps * (k + 1) / LOOKS) - 1 for k in range(LOOKS)}
    seen: list[tuple[float, float]] = []
    spent, start = 0.0, time.perf_counter()
    for _ in range(EPOCHS):
        for k, (x, y) in enumerate(batches()):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            schedule.step()
            if k in looks:
                net[0].bias.sum().item()        # all that was asked for is done
                spent += time.perf_counter() - start
                with torch.no_grad():
                    right = sum((net(a).argmax(1) == b).sum().item() for a, b in zip(
                        test[0].split(1000), test[1].split(1000)))
                seen.append((spent, right / len(test[1])))
                if seen[-1][1] >= max(targets):
                    break
                start = time.perf_counter()
        else:
            continue
        break
    met = [next((s for s, accuracy in seen if accuracy >= t), None) for t in targets]
    return {"seconds": met, "seen": seen}


_CODE = """
import json, sys
import time_to_accuracy
print(json.dumps(time_to_accuracy.train(*json.loads(sys.argv[1]))))
"""


def main() -> None:
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--seeds", type=int, default=3)
        parser.add_argument("--recipe", choices=list(RECIPES), default="small")
        parser.add_argument("--limit", type=float, default=450, metavar="SECONDS",
                            help="begin no seed that would probably end later than this (450)")

    b = Benchmark(__file__, "Time to an accuracy on MNIST, the same recipe",
                  "Seconds of training, compiling included, evaluation left out, until the test "
                  "accuracy was met at one of four looks an epoch; medians over seeds. Each run is "
                  "a process of its own that starts from an empty cache.", arguments)
    targets = [0.2, 0.3] if b.quick else list(TARGETS)
    limit, seeds = (1280, 1) if b.quick else (0, b.args.seeds)
    found: dict[str, list[list[float | None]]] = {}
    started = time.perf_counter()
    for seed in range(seeds):
        spent = time.perf_counter() - started
        if seed and spent * (seed + 1) / seed > b.args.limit:
            b.notes.append(f"{seed} of {seeds} seeds were run: one more would have taken longer "
                           f"than the limit of {b.args.limit:.0f} s")
            break
        for label, (name, how, compiled) in CONTENDERS.items():
            if label in b.missing:
                continue
            if b.args.no_peers and name != "facula":
                b.missing[label] = "left out with --no-peers"
                continue
            if b.quick and compiled:
                b.missing[label] = "left out with --quick: it compiles for a long time"
                continue
            with tempfile.TemporaryDirectory() as cache:
                try:
                    made = fresh(_CODE, [json.dumps([
                        b.args.recipe, name, how, compiled, seed, b.threads, limit,
                        targets])], b.threads, {
                        "FACULA_CACHE_DIR": cache, "TORCHINDUCTOR_CACHE_DIR": cache}, 900)
                except Missing as e:
                    b.missing[label] = str(e)
                    continue
                except Failed as e:
                    if name == "facula":
                        raise
                    b.missing[label] = "failed: " + str(e).strip().splitlines()[-1]
                    continue
            print(f"{label}, seed {seed}: "
                  + " ".join(f"{s:.1f} s {a:.2%}" for s, a in made["seen"]), flush=True)
            found.setdefault(label, []).append(made["seconds"])
    for k, target in enumerate(targets):
        rows = {}
        for label, runs in found.items():
            times = [run[k] for run in runs]
            reached = [s for s in times if s is not None]
            if len(reached) < len(times):
                b.notes.append(f"{label}: {len(times) - len(reached)} of {len(times)} runs did "
                               f"not come to {target:.1%}")
            if reached:
                rows[label] = Row(label, reached)
        b.show(rows.values(), "s", "run", f"to {target:.1%}")
        peers = {label: statistics.median(row.seconds) for label, row in rows.items()
                 if label.startswith("torch")}
        for what, times_ in (("PyTorch as it is written", [
                peers[x] for x in peers if x == "torch eager"]),
                             ("PyTorch's best", list(peers.values()))):
            claim = f"to {target:.1%}: times as fast as {what}"
            if times_ and "facula" in rows:
                b.claim(claim, min(times_) / rows["facula"].median, ">=", 3.0, "x")
            else:
                b.unclaimed(claim, "nothing to compare")
    b.finish()


if __name__ == "__main__":
    main()
