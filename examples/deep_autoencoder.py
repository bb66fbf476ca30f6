"""The deep autoencoder of Hinton and Salakhutdinov (2006) on MNIST, trained from random weights.

    python examples/deep_autoencoder.py --minutes 20
    python examples/deep_autoencoder.py --minutes 20 --only hf,kfac     # into the same report
    python examples/deep_autoencoder.py --minutes 2 --images 5000 --only adam:2e-3,adam:1e-3

784-1000-500-250-30 and mirrored, sigmoids, a linear code, cross-entropy of the pixels: without
pre-training it was out of reach of first-order methods, until Martens (2010) trained it with
Hessian-free optimisation and Sutskever et al. (2013) with well-tuned momentum.  Weights start
sparse, 15 to a unit, as in both.  What is compared is the squared error of a reconstruction,
summed over its pixels and averaged over the training images, as in the tables of both papers.

Every method gets the same time.  Methods of first order and K-FAC lower their steps to nothing
over it; Hessian-free, whose steps are as long as the curvature says, lets its batches grow.  Its
weights, and K-FAC's, are averaged over the last steps (Polyak; Martens and Grosse 2015), and the
mean is tested.  Momentum follows the schedule of Sutskever et al.

Writes PNGs of the error over time and over epochs, and a JSON of both.  A report that is there
already is continued: runs of other methods stay in it, those of the same name are replaced.
With `--cpu-time`, budget and plots are in processor seconds of the process, whose threads add up
(FACULA_NUM_THREADS=1: one): so runs compare that were made while other programs ran.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
import warnings

import numpy as np

import facula
from facula import nn
from facula.nn import functional as F
from facula.optim.swa_utils import AveragedModel
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
        self.data, self.rng = data, rng
        self.size = min(size, len(data))
        self.order = np.empty(0, np.int64)
        self.seen = 0

    def take(self):
        if len(self.order) < self.size:
            self.order = self.rng.permutation(len(self.data))
        picked, self.order = self.order[:self.size], self.order[self.size:]
        self.seen += self.size
        return facula.from_numpy(np.ascontiguousarray(self.data[picked])).clone()


# Each method is made by a function of (model, batches, settings) and is called with the share of
# the time that has passed: it makes one step, or several small ones, and returns a line of text.

def first_order(kind: str, model, batches: Batches, args, lr: float):
    params = list(model.parameters())
    if kind == "adam":
        opt = facula.optim.Adam(params, lr=lr)
    else:
        opt = facula.optim.SGD(params, lr=lr, momentum=0.5, nesterov=kind == "nesterov")
    group = opt.param_groups[0]
    count = 0

    def steps(passed: float) -> str:
        nonlocal count
        group["lr"] = lr * max(1.0 - passed, 0.0)
        for _ in range(50):
            if kind != "adam":
                # Equation 5 of Sutskever et al. 2013, and less momentum for the last steps.
                mu = min(1 - 2.0 ** (-1 - math.log2(count // 250 + 1)), args.momentum)
                group["momentum"] = mu if passed < 0.95 else min(mu, 0.9)
            x = batches.take()
            opt.zero_grad()
            loss = loss_of(model(x), x)
            loss.backward()
            opt.step()
            count += 1
        return f"rate {group['lr']:.3g}"
    return steps


def lbfgs(model, batches: Batches, args):
    params = list(model.parameters())

    def step(passed: float) -> str:
        # Pairs of steps and gradients belong to one batch: a new one starts afresh.
        opt = facula.optim.LBFGS(params, max_iter=args.lbfgs_iter,
                                 history_size=args.lbfgs_history, line_search_fn="strong_wolfe")
        x = batches.take()

        def closure():
            opt.zero_grad()
            loss = loss_of(model(x), x)
            loss.backward()
            return loss
        opt.step(closure)
        return ""
    return step


def grown(start: int, end: int, passed: float) -> int:
    """A batch size that grows exponentially with time, in steps of a factor of two: every size
    is a program of its own to compile."""
    doublings = math.log2(end / start)
    return int(start * 2.0 ** math.floor(min(passed, 1.0) * (doublings + 1 - 1e-9)))


def hessian_free(model, batches: Batches, args):
    opt = facula.optim.HessianFree(
        model, damping=args.damping, min_damping=args.min_damping, max_iter=args.cg,
        preconditioner=facula.curvature.Kronecker(likelihood="bernoulli", every=args.every),
        momentum=True, backtrack=False, check_closure=False)

    def step(passed: float) -> str:
        # The larger batches, the less of a step is a batch's own: that is what counts at the end.
        batches.size = min(grown(args.batch, args.last_batch, passed), len(batches.data))
        x = batches.take()
        some = x[:max(min(batches.size // 2, args.curvature), 1)].clone()

        def closure(x=x):
            z = model(x)
            return loss_of(z, x), z
        opt.step(closure, curvature=lambda: closure(some))
        r = opt.report
        return (f"batch {batches.size} cg {r.iterations} ratio {r.ratio:.2f} damping "
                f"{r.damping:.3g}{'' if r.accepted else ' rejected'}")
    return step


def kfac(model, batches: Batches, args, lr: float):
    opt = facula.optim.KFAC(model, lr=lr, momentum=0.9, damping=args.kfac_damping, every=20,
                            clip=args.kfac_clip, likelihood="bernoulli")

    def steps(passed: float) -> str:
        group = opt.param_groups[0]
        group["lr"] = lr * max(1.0 - passed, 0.0)
        # Far from a minimum the quadratic holds less far.
        group["damping"] = args.kfac_damping * 0.1 ** min(10 * passed, 1.0)
        for _ in range(10):
            x = batches.take()

            def closure(x=x):
                z = model(x)
                return loss_of(z, x), z
            opt.step(closure)
        return f"rate {group['lr']:.3g} damping {group['damping']:.3g}"
    return steps


RATES = {"nesterov": 2e-2, "sgd": 1e-2, "adam": 1e-3, "kfac": 0.1}


def make(name: str, model: nn.Sequential, data: np.ndarray, args, rng):
    """What makes the steps of a method, and its batches; a rate can follow a colon."""
    kind, _, rate = name.partition(":")
    lr = float(rate) if rate else RATES.get(kind, 0.0)
    if kind in ("adam", "sgd", "nesterov"):
        batches = Batches(data, args.small, rng)
        return first_order(kind, model, batches, args, lr), batches
    if kind == "kfac":
        batches = Batches(data, args.kfac_batch, rng)
        return kfac(model, batches, args, lr), batches
    if kind not in ("hf", "lbfgs"):
        raise SystemExit(f"unknown method {kind!r}: there are hf, kfac, lbfgs, "
                         "adam, nesterov and sgd")
    batches = Batches(data, args.batch if kind == "hf" else args.lbfgs_batch, rng)
    return (hessian_free if kind == "hf" else lbfgs)(model, batches, args), batches


def run(name: str, data: np.ndarray, args) -> list[tuple[float, float, float]]:
    """(seconds, epochs, squared error), testing left out of the time."""
    facula.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    model = network(rng)
    step, batches = make(name, model, data, args, rng)
    mean = AveragedModel(model, avg_fn=lambda old, new, count: old.lerp(
        new, (10 / (count + 10)).clamp(min=1 - args.average))) \
        if name.partition(":")[0] in ("hf", "kfac") else None
    chosen = data[:min(len(data), 10000)]
    test = [facula.from_numpy(np.ascontiguousarray(chosen[k:k + 1000])).clone()
            for k in range(0, len(chosen), 1000)]
    whole = 60 * args.minutes
    clock = time.process_time if args.cpu_time else time.perf_counter
    began, seen, looked, history = clock(), 0.0, -math.inf, []
    spent, text = 0.0, ""
    while True:
        if history:
            text = step(spent / whole)
            if mean is not None:
                mean.update_parameters(model)
        float(next(model.parameters()).sum())       # what was recorded has been computed
        spent = clock() - began - seen
        done = spent > whole
        if spent - looked < whole / 100 and not done:
            continue
        looked, mark = spent, clock()
        error = squared_error(model if mean is None else mean, test)
        seen += clock() - mark
        history.append((spent, batches.seen / len(data), error))
        print(f"{name:>16} {spent:7.1f} s  epoch {history[-1][1]:7.2f}  squared error {error:8.4f}"
              f"  {text}", flush=True)
        if done or not math.isfinite(error):
            return history


def report(runs: dict, settings: dict, out: str) -> None:
    """Print where each run ended, and draw them all."""
    from curves import draw
    for name, history in runs.items():
        spent, epochs, error = history[-1]
        print(f"{name:>16}: {error:.4f} after {spent:.0f} s and {epochs:.1f} epochs"
              f"{' (processor seconds)' if settings.get(name, {}).get('cpu_time') else ''}")
    title = "Deep autoencoder on MNIST, squared error of training images"
    kinds = {bool(settings[name].get("cpu_time")) for name in runs if name in settings}
    unit = {(False,): "seconds", (True,): "processor seconds"}.get(
        tuple(kinds), "seconds (of the clock or of the processor)")
    for index, across, label in ((0, "seconds", unit), (1, "epochs", "epochs")):
        draw(f"{out}_{across}.png", title, label, "squared error",
             {n: [(point[index], point[2]) for point in h] for n, h in runs.items()}, log=True)
        print(f"wrote {out}_{across}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="for each method")
    parser.add_argument("--cpu-time", action="store_true",
                        help="count the processor seconds of this process, all threads together, "
                        "instead of the clock's: for a machine that is busy")
    parser.add_argument("--images", type=int, default=60000)
    parser.add_argument("--only", default="hf,kfac,nesterov,sgd,adam,lbfgs",
                        help="which methods to run; a learning rate may follow a colon")
    parser.add_argument("--small", type=int, default=200, help="batch of first-order methods")
    parser.add_argument("--momentum", type=float, default=0.99, help="the most of its schedule")
    parser.add_argument("--lbfgs-batch", type=int, default=5000)
    parser.add_argument("--lbfgs-iter", type=int, default=20, help="iterations on a batch")
    parser.add_argument("--lbfgs-history", type=int, default=20)
    parser.add_argument("--batch", type=int, default=1000, help="first batch of hf")
    parser.add_argument("--last-batch", type=int, default=4000)
    parser.add_argument("--curvature", type=int, default=250,
                        help="curvature of hf is taken on half of a batch, at most so many images")
    parser.add_argument("--average", type=float, default=0.98,
                        help="how much of the mean of hf's and kfac's weights stays in a step")
    parser.add_argument("--cg", type=int, default=1, help="iterations in a step of hf")
    parser.add_argument("--every", type=int, default=20,
                        help="steps of hf that inverses of the Kronecker factors serve")
    parser.add_argument("--damping", type=float, default=0.1)
    parser.add_argument("--min-damping", type=float, default=1e-4)
    parser.add_argument("--kfac-batch", type=int, default=500)
    parser.add_argument("--kfac-damping", type=float, default=0.1)
    parser.add_argument("--kfac-clip", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="deep_autoencoder")
    args = parser.parse_args()
    warnings.simplefilter("ignore", facula.optim.StepRejectedWarning)
    data = images(args.images)
    path = f"{args.out}.json"
    runs: dict = {}
    settings: dict = {}
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        runs, settings = found["runs"], found["settings"]
    for name in args.only.split(","):
        runs[name] = run(name, data, args)
        settings[name] = vars(args)
        # After every run: what is there is not lost if the next is stopped.
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"settings": settings, "runs": runs}, file)
    report(runs, settings, args.out)


if __name__ == "__main__":
    main()
