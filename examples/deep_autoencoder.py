"""The deep autoencoder of Hinton and Salakhutdinov (2006) on MNIST, trained from random weights.

    python examples/deep_autoencoder.py --minutes 20
    python examples/deep_autoencoder.py --minutes 2 --images 5000 --optimizers hf,nesterov

784-1000-500-250-30 and mirrored, sigmoids, a linear code, cross-entropy of the pixels: without
pre-training it was out of reach of first-order methods, until Martens (2010) trained it with
Hessian-free optimisation and Sutskever et al. (2013) with well-tuned momentum.  Weights start
sparse, 15 to a unit, as in both.  What is compared is the squared error of a reconstruction,
summed over its pixels and averaged over the training images, as in
the tables of both papers.

Writes PNGs of the error over time and over epochs, and a JSON of both.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings

import numpy as np

import facula
from facula import nn
from facula.nn import functional as F
from facula.vision import datasets

SIZES = (784, 1000, 500, 250, 30, 250, 500, 1000, 784)
CODE = 3


def network(rng: np.random.Generator) -> nn.Sequential:
    layers: list[nn.Module] = []
    for k, (i, o) in enumerate(zip(SIZES, SIZES[1:])):
        layer = nn.Linear(i, o)
        w = np.zeros((o, i), np.float32)
        for row in w:
            row[rng.choice(i, 15, replace=False)] = rng.standard_normal(15)
        with facula.no_grad():
            layer.weight.copy_(facula.from_numpy(w))
            layer.bias.zero_()
        layers.append(layer)
        if k not in (CODE, len(SIZES) - 2):
            layers.append(nn.Sigmoid())
    return nn.Sequential(*layers)


def images(count: int) -> np.ndarray:
    """Training images `[count, 784]` in [0, 1]."""
    data = datasets.MNIST("data", train=True, download=True)
    return (np.asarray(data.data.numpy())[:count].reshape(-1, 784) / np.float32(255)).astype(
        np.float32)


def loss_of(z, x):
    """Cross-entropy of the pixels, summed over them, averaged over images."""
    return F.binary_cross_entropy_with_logits(z, x, reduction="sum") / x.shape[0]


def squared_error(model: nn.Module, data: list) -> float:
    """Squared error of a reconstruction, summed over pixels, averaged over images."""
    total, count = 0.0, 0
    with facula.no_grad():
        for x in data:
            total += float(((model(x).sigmoid() - x) ** 2).sum())
            count += x.shape[0]
    return total / count


class Batches:
    """Chunks of the training images in a random order, again and again."""

    def __init__(self, data: np.ndarray, size: int, rng: np.random.Generator):
        self.data, self.size, self.rng = data, min(size, len(data)), rng
        self.order = np.empty(0, np.int64)
        self.seen = 0

    def take(self):
        if len(self.order) < self.size:
            self.order = self.rng.permutation(len(self.data))
        picked, self.order = self.order[:self.size], self.order[self.size:]
        self.seen += self.size
        return facula.from_numpy(np.ascontiguousarray(self.data[picked])).clone()


def make_step(name: str, model: nn.Sequential, data: np.ndarray, args, rng):
    """A function that makes one step (of several batches for first-order methods), and batches."""
    kind, _, rate = name.partition(":")
    lr = float(rate) if rate else None
    params = list(model.parameters())
    if kind == "hf":
        batches = Batches(data, args.batch, rng)
        few = max(args.batch // 4, 1)
        opt = facula.optim.HessianFree(params, damping=args.damping, max_iter=args.cg)

        def step() -> None:
            x = batches.take()
            xs = x[:few].clone()

            def closure(x=x):
                z = model(x)
                return loss_of(z, x), z
            opt.step(closure, curvature=lambda: closure(xs))
            r = opt.report
            step.text = (f"cg {r.iterations} ({r.chosen}) ratio {r.ratio:.2f} damping "
                         f"{r.damping:.3g}{'' if r.accepted else ' rejected'}")
        return step, batches
    if kind == "lbfgs":
        batches = Batches(data, args.batch, rng)

        def step() -> None:
            # Pairs of steps and gradients belong to one batch: a new one starts afresh.
            opt = facula.optim.LBFGS(params, max_iter=20, history_size=20,
                                     line_search_fn="strong_wolfe")
            x = batches.take()

            def closure():
                opt.zero_grad()
                loss = loss_of(model(x), x)
                loss.backward()
                return loss
            opt.step(closure)
        return step, batches
    batches = Batches(data, 200, rng)
    if kind == "adam":
        opt = facula.optim.Adam(params, lr=lr or 1e-3)
    else:
        opt = facula.optim.SGD(params, lr=lr or 1e-3, momentum=args.momentum,
                               nesterov=kind == "nesterov")
    count = [0]

    def step() -> None:
        for _ in range(50):
            if kind != "adam":
                # The schedule of Sutskever et al. 2013, equation 5.
                mu = 1 - 2.0 ** (-1 - math.log2(count[0] // 250 + 1))
                opt.param_groups[0]["momentum"] = min(mu, args.momentum)
            x = batches.take()
            opt.zero_grad()
            loss = loss_of(model(x), x)
            loss.backward()
            opt.step()
            count[0] += 1
    return step, batches


def run(name: str, data: np.ndarray, args) -> list[tuple[float, float, float]]:
    """(seconds, epochs, squared error), testing left out of the time."""
    facula.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    model = network(rng)
    step, batches = make_step(name, model, data, args, rng)
    chosen = data[:min(len(data), 10000)]
    test = [facula.from_numpy(np.ascontiguousarray(chosen[k:k + 1000])).clone()
            for k in range(0, len(chosen), 1000)]
    began, seen, looked, history = time.perf_counter(), 0.0, -math.inf, []
    while True:
        if history:
            step()
        spent = time.perf_counter() - began - seen
        done = spent > 60 * args.minutes
        if spent - looked < 60 * args.minutes / 100 and not done:
            continue
        looked, mark = spent, time.perf_counter()
        error = squared_error(model, test)
        seen += time.perf_counter() - mark
        history.append((spent, batches.seen / len(data), error))
        print(f"{name:>16} {spent:7.1f} s  epoch {history[-1][1]:7.2f}  squared error {error:8.4f}"
              f"  {getattr(step, 'text', '')}", flush=True)
        if done or not math.isfinite(error):
            return history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="for each optimiser")
    parser.add_argument("--images", type=int, default=60000)
    parser.add_argument("--optimizers", default="hf,nesterov:1e-3,sgd:1e-3,adam:1e-3,lbfgs",
                        help="names, with learning rates after a colon")
    parser.add_argument("--batch", type=int, default=5000, help="of hf's gradient and of lbfgs")
    parser.add_argument("--cg", type=int, default=100)
    parser.add_argument("--damping", type=float, default=10.0)
    parser.add_argument("--momentum", type=float, default=0.99)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="deep_autoencoder")
    args = parser.parse_args()
    warnings.simplefilter("ignore", facula.optim.StepRejectedWarning)
    data = images(args.images)
    runs = {name: run(name, data, args) for name in args.optimizers.split(",")}
    for name, history in runs.items():
        spent, epochs, error = history[-1]
        print(f"{name:>16}: {error:.4f} after {spent:.0f} s and {epochs:.1f} epochs")
    with open(f"{args.out}.json", "w", encoding="utf-8") as file:
        json.dump({"settings": vars(args), "runs": runs}, file)
    from curves import draw
    title = "Deep autoencoder on MNIST, squared error of training images"
    for index, across in ((0, "seconds"), (1, "epochs")):
        draw(f"{args.out}_{across}.png", title, across, "squared error",
             {n: [(point[index], point[2]) for point in h] for n, h in runs.items()}, log=True)
        print(f"wrote {args.out}_{across}.png")


if __name__ == "__main__":
    main()
