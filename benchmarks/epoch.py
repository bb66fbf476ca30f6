"""One epoch of the textbook's MNIST program, loader and transforms included.

    python benchmarks/epoch.py [--quick] [--threads 2] [--rounds 5] [--out FOLDER]

The program is that of examples/seed_4.py: MNIST with ToTensor and Normalize, a shuffling DataLoader
of 64, 784-128-64-10, cross-entropy, SGD.  Torch runs the same program; its data set does for each
sample what torchvision's does (see digits.py, which says why it is written out there).
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from digits import exact_batch, facula_dataset, first_batch, torch_dataset
from harness import Benchmark, Contender, Worker


class Epoch:
    """The program; `torch` is either module.  A quick one sees a tenth of the images."""

    def __init__(self, torch: Any, train: Any, test: Any, options: dict[str, Any]):
        torch.set_num_threads(options["threads"])
        torch.manual_seed(0)
        nn = torch.nn

        class MyModel(nn.Module):                              # type: ignore[name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.flatten = nn.Flatten()
                self.layer1 = nn.Linear(784, 128)
                self.layer2 = nn.Linear(128, 64)
                self.layer3 = nn.Linear(64, 10)

            def forward(self, x: Any) -> Any:
                x = self.flatten(x)
                x = self.layer1(x)
                x = self.layer2(x)
                return self.layer3(x)

        self.torch, self.whole, self.test = torch, train, test
        if options["quick"]:
            train = torch.utils.data.Subset(train, range(6400))
        self.train_loader = torch.utils.data.DataLoader(train, batch_size=64, shuffle=True)
        self.model = MyModel()
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.facts = {"images an epoch": len(train)}

    def run(self, epochs: int) -> None:
        for _ in range(epochs):
            for inputs, labels in self.train_loader:
                self.optimizer.zero_grad()
                outputs = self.model(inputs)
                loss = self.criterion(outputs, labels)
                loss.backward()
                self.optimizer.step()
            self.last = loss.item()

    def batch(self, path: str) -> None:
        """Save the first images as the loader gives them."""
        np.save(path, first_batch(self.whole, self.torch))

    def accuracy(self) -> float:
        """The share of the test images that the model puts into the right class."""
        right = 0
        with self.torch.no_grad():
            for x, y in self.torch.utils.data.DataLoader(self.test, batch_size=1000):
                right += (self.model(x).argmax(1) == y).sum().item()
        return right / len(self.test)


def facula_epoch(options: dict[str, Any]) -> Epoch:
    import facula
    import facula.nn
    import facula.optim
    import facula.utils.data
    return Epoch(facula, facula_dataset(True), facula_dataset(False), options)


def torch_epoch(options: dict[str, Any]) -> Epoch:
    import torch
    import torch.utils.data
    return Epoch(torch, torch_dataset(True), torch_dataset(False), options)


def main() -> None:
    import tempfile

    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=5)

    b = Benchmark(__file__, "One epoch of the textbook's MNIST program, with its loader",
                  "All of an epoch over 60,000 images: shuffling, reading, ToTensor, Normalize, "
                  "collating, and the training steps at batch 64. The error is that of the "
                  "loader's images against float64. The accuracy on the test images, after one "
                  "epoch, is among the facts.", arguments)
    want = exact_batch(256)
    accuracies = {}
    with tempfile.TemporaryDirectory() as folder:

        def check(label: str, worker: Worker) -> float:
            path = f"{folder}/batch.npy"
            worker.call("batch", path)
            error = float(np.abs(np.load(path) - want).max())
            worker.call("run", 1)
            accuracies[label] = worker.call("accuracy")
            least = 0.3 if b.quick else 0.85
            if not (error < 1e-5 and accuracies[label] > least):
                raise SystemExit(f"{label}: wrong: images off by {error:.1e}, accuracy "
                                 f"{accuracies[label]:.1%} after one epoch")
            return error

        rows = b.compare([Contender("facula", "facula_epoch"),
                          Contender("torch, torchvision's samples", "torch_epoch")],
                         b.args.rounds, 0.02, check, unit="s", per="epoch")
    for label, value in accuracies.items():
        rows[label].facts["test accuracy after one epoch"] = value
        b.notes.append(f"{label}: test accuracy {value:.2%} after one epoch")
    what = "an epoch with its loader, times as fast as PyTorch"
    theirs = rows.get("torch, torchvision's samples")
    if theirs is None:
        b.unclaimed(what, b.missing["torch, torchvision's samples"])
    else:
        b.claim(what, theirs.median / rows["facula"].median, ">=", 10.0, "x")
    b.finish()


if __name__ == "__main__":
    main()
