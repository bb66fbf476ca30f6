"""What a batch costs before the network sees it: 64 MNIST images, shuffled and transformed.

    python benchmarks/loader.py [--quick] [--threads 2] [--rounds 7] [--out FOLDER]

Beside torch with torchvision's samples (see digits.py) stands torch with images that have been
transformed beforehand and are held in a TensorDataset: the quickest way that its own DataLoader
offers, though not the program that is written everywhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
from digits import exact_batch, facula_dataset, first_batch, torch_dataset
from harness import Benchmark, Contender, Worker


class Loader:
    """A loop over the loader's batches, over and over."""

    def __init__(self, torch: Any, data: Any, options: dict[str, Any]):
        torch.set_num_threads(options["threads"])
        torch.manual_seed(0)
        self.torch, self.data = torch, data
        self.loader = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True)
        self.batches = self._forever()
        self.facts: dict[str, Any] = {}

    def _forever(self) -> Iterator[Any]:
        while True:
            yield from self.loader

    def run(self, n: int) -> None:
        images = None
        for _ in range(n):
            images, _labels = next(self.batches)
        assert images is not None
        images.numpy()

    def batch(self, path: str) -> None:
        """Save the first images as the loader gives them."""
        np.save(path, first_batch(self.data, self.torch))


def facula_loader(options: dict[str, Any]) -> Loader:
    import facula
    import facula.utils.data
    return Loader(facula, facula_dataset(True), options)


def torch_loader(options: dict[str, Any]) -> Loader:
    import torch
    import torch.utils.data
    return Loader(torch, torch_dataset(True), options)


def torch_tensors(options: dict[str, Any]) -> Loader:
    import torch
    import torch.utils.data
    from digits import DEVIATION, MEAN, arrays
    images, labels = arrays(True)
    x = torch.from_numpy(images)[:, None].float().div(255).sub_(MEAN).div_(DEVIATION)
    return Loader(torch, torch.utils.data.TensorDataset(x, torch.from_numpy(labels)), options)


def main() -> None:
    import tempfile

    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=7)

    b = Benchmark(__file__, "A batch of 64 from the loader",
                  "One batch of a shuffling DataLoader, in the process itself (no workers), the "
                  "end of the epoch and the new order included. The error is that of the images "
                  "against float64.", arguments)
    want = exact_batch(256)
    with tempfile.TemporaryDirectory() as folder:

        def check(label: str, worker: Worker) -> float:
            path = f"{folder}/batch.npy"
            worker.call("batch", path)
            error = float(np.abs(np.load(path) - want).max())
            if not error < 1e-5:
                raise SystemExit(f"{label}: images off by {error:.1e}")
            return error

        b.compare([Contender("facula", "facula_loader"),
                   Contender("torch, torchvision's samples", "torch_loader"),
                   Contender("torch, transformed beforehand", "torch_tensors")],
                  b.args.rounds, 0.3, check, per="batch")
    b.finish()


if __name__ == "__main__":
    main()
