"""The addition problem for a plain tanh RNN: Hessian-free against first-order methods.

    python examples/addition.py --length 100 --minutes 20
    python examples/addition.py --length 30 --minutes 3 --optimizers hf,adam

A sequence has two channels: numbers from [0, 1), and zeros with two marks, one in the first tenth
and one in the rest of the first half (Hochreiter and Schmidhuber 1997, task 4).  The net reads it
and has to say the sum of the two marked numbers: it must carry the first one over most of the
sequence, which gradients of a plain RNN hardly tell it.  An answer that is off by more than 0.04 is
an error; the task counts as solved with under 1 % errors on sequences that were not trained on
(Martens and Sutskever 2011).  Writes a PNG of errors over time.
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


def sequences(length: int, count: int, rng: np.random.Generator):
    """Inputs `[length, count, 2]` and sums `[count, 1]`."""
    x = np.zeros((length, count, 2), np.float32)
    x[..., 0] = rng.random((length, count))
    first = rng.integers(0, max(length // 10, 1), count)
    second = rng.integers(max(length // 10, 1), max(length // 2, 2), count)
    rows = np.arange(count)
    x[first, rows, 1] = x[second, rows, 1] = 1.0
    y = x[first, rows, 0] + x[second, rows, 0]
    return facula.from_numpy(x).clone(), facula.from_numpy(y[:, None].astype(np.float32)).clone()


class Adder(nn.Module):
    """A tanh RNN and a linear readout of its last state."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(2, hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x):
        h, _ = self.rnn(x)
        return self.out(h[-1]), h


def start(model: Adder, rng: np.random.Generator, radius: float) -> None:
    """Sparse weights (15 per unit) with the recurrent matrix at a given spectral radius."""
    n = model.rnn.hidden_size
    w = np.zeros((n, n), np.float32)
    for row in w:
        row[rng.choice(n, min(15, n), replace=False)] = rng.standard_normal(min(15, n))
    w *= radius / np.abs(np.linalg.eigvals(w)).max()
    with facula.no_grad():
        model.rnn.weight_hh_l0.copy_(facula.from_numpy(w))
        model.rnn.weight_ih_l0.copy_(facula.from_numpy(
            rng.standard_normal((n, 2)).astype(np.float32) * np.float32(0.3)))
        model.rnn.bias_ih_l0.zero_()
        model.rnn.bias_hh_l0.zero_()
        model.out.weight.copy_(facula.from_numpy(
            (rng.standard_normal((1, n)) / math.sqrt(n)).astype(np.float32)))
        model.out.bias.zero_()


def errors(model: Adder, test) -> tuple[float, float]:
    """The share of wrong answers, and the mean squared error."""
    x, y = test
    with facula.no_grad():
        off = (model(x)[0] - y).abs()
        return float((off > 0.04).float().mean()), float((off ** 2).mean())


def hessian_free(model: Adder, args, rng):
    """One step of Hessian-free with new sequences: many for the gradient, fewer for the matrix."""
    opt = facula.optim.HessianFree(
        model.parameters(), damping=args.damping, structural=args.structural,
        max_iter=args.cg, batch_dim=0, preconditioner=args.preconditioner or None)
    # The states are [time, batch, units]; outputs, and so their samples, are along dimension 0.
    for p in model.parameters():
        p.requires_grad_()

    def step() -> str:
        x, y = sequences(args.length, args.batch, rng)
        few = max(args.batch // 4, 1)
        xs, ys = x[:, :few].clone(), y[:few].clone()

        def closure(x=x, y=y):
            z, h = model(x)
            return 0.5 * F.mse_loss(z, y), z, h.transpose(0, 1)

        opt.step(closure, curvature=lambda: closure(xs, ys))
        r = opt.report
        return (f"cg {r.iterations} ({r.chosen}) ratio {r.ratio:.2f} damping {r.damping:.3g} "
                f"step {r.step:.2g}{'' if r.accepted else ' rejected'}")
    return step


def first_order(model: Adder, args, rng, kind: str, lr: float):
    """A hundred steps of a first-order optimiser on batches of 100, clipped."""
    if kind == "adam":
        opt = facula.optim.Adam(model.parameters(), lr=lr)
    else:
        opt = facula.optim.SGD(model.parameters(), lr=lr, momentum=0.9,
                               nesterov=kind == "nesterov")

    def step() -> str:
        for _ in range(20):
            x, y = sequences(args.length, 100, rng)
            opt.zero_grad()
            loss = 0.5 * F.mse_loss(model(x)[0], y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
        return ""
    return step


def run(name: str, args, seed: int) -> list[tuple[float, float, float]]:
    """(seconds, share of errors, squared error) until the time is up or the task is solved."""
    facula.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Adder(args.hidden)
    start(model, rng, args.radius)
    test = sequences(args.length, 2000, np.random.default_rng(99))
    kind, _, rate = name.partition(":")
    step = hessian_free(model, args, rng) if kind == "hf" else first_order(
        model, args, rng, kind, float(rate or {"adam": 1e-3}.get(kind, 1e-2)))
    began, seen, history = time.perf_counter(), 0.0, []
    while True:
        # Testing does not count.
        text = step() if history else ""
        spent = time.perf_counter() - began - seen
        mark = time.perf_counter()
        wrong, squared = errors(model, test)
        seen += time.perf_counter() - mark
        history.append((spent, wrong, squared))
        if kind == "hf" or len(history) % 20 == 1:
            print(f"{name:>14} {spent:7.1f} s  errors {100 * wrong:6.2f} %  mse {squared:.5f}  "
                  f"{text}", flush=True)
        if wrong < 0.01 or spent > 60 * args.minutes:
            return history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=20.0, help="for each optimiser")
    parser.add_argument("--optimizers", default="hf,adam:1e-3,adam:3e-4,sgd:1e-2,nesterov:1e-3")
    parser.add_argument("--hidden", type=int, default=100)
    parser.add_argument("--batch", type=int, default=4000, help="of Hessian-free's gradient")
    parser.add_argument("--cg", type=int, default=100)
    parser.add_argument("--damping", type=float, default=0.1)
    parser.add_argument("--structural", type=float, default=0.3)
    parser.add_argument("--preconditioner", default="", help="fisher, or nothing")
    parser.add_argument("--radius", type=float, default=1.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="addition")
    args = parser.parse_args()
    warnings.simplefilter("ignore", facula.optim.StepRejectedWarning)
    runs = {name: run(name, args, args.seed) for name in args.optimizers.split(",")}
    for name, history in runs.items():
        spent, wrong, _ = history[-1]
        said = "solved" if wrong < 0.01 else "not solved"
        print(f"{name:>14}: {said}, {100 * wrong:.2f} % errors after {spent:.0f} s")
    with open(f"{args.out}.json", "w", encoding="utf-8") as file:
        json.dump({"settings": vars(args), "runs": runs}, file)
    from curves import draw
    draw(f"{args.out}.png", f"Addition problem, {args.length} steps", "seconds", "share of errors",
         {name: [(s, max(e, 1e-4)) for s, e, _ in h] for name, h in runs.items()}, log=True)
    print(f"wrote {args.out}.png and {args.out}.json")


if __name__ == "__main__":
    main()
