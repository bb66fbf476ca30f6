"""The addition problem for a plain tanh RNN: Hessian-free against first-order methods.

    python examples/addition.py                 # Hessian-free alone, until it is solved
    python examples/addition.py --compare       # then others over many rates, as long each
    python examples/addition.py --only adam:1e-2,sgd:1e-3 --minutes 2   # these, in its report
    python examples/addition.py --length 30 --minutes 1

A sequence has two channels: numbers from [0, 1), and zeros with two marks, one in the first tenth
and one in the rest of the first half (Hochreiter and Schmidhuber 1997, task 4).  The net reads it
and has to say the sum of the two marked numbers: it must carry the first one over most of the
sequence, which gradients of a plain RNN hardly tell it.  An answer that is off by more than 0.04 is
an error; the task counts as solved with under 1 % errors on sequences that were not trained on
(Martens and Sutskever 2011).

All start from the same weights and see new sequences in every step.  Hessian-free takes its
gradient from `--batch` of them and the matrix from a quarter; the others take `--few`, and their
gradients are clipped at norm 1.  Seconds are all that training takes, compiling included and
testing left out; with `--compare`, each rate of the others has as many as Hessian-free took.
Writes a PNG of errors over time, and a JSON.  With `--only`, a report that is there already is
continued: runs of other names stay in it, those of the same name are replaced.
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

OTHERS = ("adam:1e-4,adam:3e-4,adam:1e-3,adam:3e-3,adam:1e-2,"
          "sgd:1e-3,sgd:3e-3,sgd:1e-2,sgd:3e-2,sgd:1e-1")


def sequences(length: int, count: int, rng: np.random.Generator):
    """Inputs `[length, count, 2]` and sums `[count, 1]`, all less what they are on average."""
    x = np.zeros((length, count, 2), np.float32)
    x[..., 0] = rng.random((length, count))
    first = rng.integers(0, max(length // 10, 1), count)
    second = rng.integers(max(length // 10, 1), max(length // 2, 2), count)
    rows = np.arange(count)
    x[first, rows, 1] = x[second, rows, 1] = 1.0
    y = x[first, rows, 0] + x[second, rows, 0] - 1.0
    x -= np.array([0.5, 2 / length], np.float32)
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


def start(model: Adder, rng: np.random.Generator, args) -> None:
    """Weights that let a difference in the first inputs be seen in the last state.

    `args.gain` times an orthogonal recurrent matrix: every direction of the state lasts as long as
    every other, and the saturation of tanh takes back what the gain is above 1.  With
    `args.sparse` 15 weights per unit and that spectral radius, as Martens and Sutskever (2011)
    begin: of 64 units few directions last, how many depends on the seed.
    """
    n = model.rnn.hidden_size
    if args.sparse:
        w = np.zeros((n, n))
        for row in w:
            row[rng.choice(n, min(15, n), replace=False)] = rng.standard_normal(min(15, n))
        w *= args.gain / np.abs(np.linalg.eigvals(w)).max()
    else:
        w = args.gain * np.linalg.qr(rng.standard_normal((n, n)))[0]
    with facula.no_grad():
        for p, value in ((model.rnn.weight_hh_l0, w),
                         (model.rnn.weight_ih_l0, args.scale * rng.standard_normal((n, 2))),
                         (model.out.weight, rng.standard_normal((1, n)) / math.sqrt(n))):
            p.copy_(facula.from_numpy(value.astype(np.float32)))
        for p in (model.rnn.bias_ih_l0, model.rnn.bias_hh_l0, model.out.bias):
            p.zero_()


def errors(model: Adder, test) -> tuple[float, float]:
    """The share of wrong answers, and the mean squared error."""
    x, y = test
    with facula.no_grad():
        off = (model(x)[0] - y).abs()
        return int((off > 0.04).sum()) / len(y), float((off ** 2).mean())


def solved(model: Adder, length: int) -> bool:
    """Under 1 % errors on 10,000 sequences that nothing was chosen by."""
    rng = np.random.default_rng(100)
    return sum(errors(model, sequences(length, 2000, rng))[0] for _ in range(5)) < 5 * 0.01


def hessian_free(model: Adder, args, rng):
    """One step of Hessian-free with new sequences: many for the gradient, fewer for the matrix."""
    opt = facula.optim.HessianFree(
        model.parameters(), damping=args.damping, structural=args.structural,
        max_iter=args.cg, batch_dim=0, preconditioner=args.preconditioner or None,
        check_closure=False)

    def step() -> str:
        x, y = sequences(args.length, args.batch, rng)
        few = max(args.batch // 4, 1)
        xs, ys = x[:, :few].clone(), y[:few].clone()

        def closure(x=x, y=y):
            # The samples of outputs and of states have to lie along the same dimension.
            z, h = model(x)
            return 0.5 * F.mse_loss(z, y), z, h.transpose(0, 1)

        opt.step(closure, curvature=lambda: closure(xs, ys))
        r = opt.report
        # Far from a solution the next step tells more than a better one from the same place.
        opt.param_groups[0]["max_iter"] = args.cg if r.new_loss > 0.0025 else args.last_cg
        return (f"cg {r.iterations} ({r.chosen}) ratio {r.ratio:.2f} damping {r.damping:.3g} "
                f"step {r.step:.2g}{'' if r.accepted else ' rejected'}")
    return step


def first_order(model: Adder, args, rng, kind: str, lr: float):
    """Fifty steps of a first-order optimiser, clipped."""
    if kind == "adam":
        opt = facula.optim.Adam(model.parameters(), lr=lr)
    else:
        opt = facula.optim.SGD(model.parameters(), lr=lr, momentum=0.9,
                               nesterov=kind == "nesterov")
    made = 0

    def step() -> str:
        nonlocal made
        for _ in range(50):
            x, y = sequences(args.length, args.few, rng)
            opt.zero_grad()
            loss = 0.5 * F.mse_loss(model(x)[0], y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
        made += 50
        return f"{made} steps"
    return step


def run(name: str, args, limit: float) -> tuple[bool, list[tuple[float, float, float]]]:
    """Whether it was solved, and (seconds, share of errors, squared error) until it was or the
    time was up."""
    facula.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    model = Adder(args.hidden)
    start(model, rng, args)
    test = sequences(args.length, 2000, np.random.default_rng(99))
    kind, _, rate = name.partition(":")
    step = hessian_free(model, args, rng) if kind == "hf" else first_order(
        model, args, rng, kind, float(rate))
    clock = time.process_time if args.cpu_time else time.perf_counter
    began, seen, said, history = clock(), 0.0, -math.inf, []
    while True:
        # Testing does not count.
        text = step() if history else ""
        spent = clock() - began - seen
        mark = clock()
        wrong, squared = errors(model, test)
        done = wrong < 0.01 and solved(model, args.length)
        seen += clock() - mark
        history.append((spent, wrong, squared))
        over = done or spent > limit
        if kind == "hf" or over or spent > said + 0.1 * limit:
            said = spent
            print(f"{name:>14} {spent:7.1f} s  errors {100 * wrong:6.2f} %  mse {squared:.5f}  "
                  f"{text}", flush=True)
        if over:
            return done, history


def save(args, runs, settings) -> None:
    """The runs as JSON and as a PNG: of each optimiser the rate with the smallest error."""
    with open(f"{args.out}.json", "w", encoding="utf-8") as file:
        json.dump({"settings": settings, "runs": runs}, file)
    best: dict[str, str] = {}
    for name, (_, history) in runs.items():
        kind = name.partition(":")[0]
        if kind not in best or history[-1][2] < runs[best[kind]][1][-1][2]:
            best[kind] = name
    from curves import draw
    draw(f"{args.out}.png", f"Addition problem, {args.length} steps", "seconds", "share of errors",
         {name: [(s, max(e, 1e-4)) for s, e, _ in runs[name][1]] for name in best.values()},
         log=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=10.0,
                        help="at most, for Hessian-free and for those of --only")
    parser.add_argument("--only", default="hf",
                        help="what to run: hf, or adam, sgd or nesterov with a rate after a colon")
    parser.add_argument("--compare", action="store_true", help="also run first-order methods")
    parser.add_argument("--others", default=OTHERS, help="their names and rates")
    parser.add_argument("--share", type=float, default=1.0,
                        help="their time over that of Hessian-free")
    parser.add_argument("--cpu-time", action="store_true",
                        help="count processor seconds (of one thread, on a machine that is busy)")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1000, help="of Hessian-free's gradient")
    parser.add_argument("--few", type=int, default=100, help="batch of the other methods")
    parser.add_argument("--cg", type=int, default=30,
                        help="iterations in a step of Hessian-free, while errors are large")
    parser.add_argument("--last-cg", type=int, default=60, help="and when they are small")
    parser.add_argument("--damping", type=float, default=0.01)
    parser.add_argument("--structural", type=float, default=0.3)
    parser.add_argument("--preconditioner", default="", help="fisher, or nothing")
    parser.add_argument("--sparse", action="store_true",
                        help="begin with a sparse recurrent matrix, not with an orthogonal one")
    parser.add_argument("--gain", type=float, default=1.1, help="of the recurrent matrix")
    parser.add_argument("--scale", type=float, default=0.2, help="of the weights of the inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="addition")
    args = parser.parse_args()
    warnings.simplefilter("ignore", facula.optim.StepRejectedWarning)
    runs: dict = {}
    settings: dict = {}
    if args.only != "hf" and os.path.exists(f"{args.out}.json"):
        with open(f"{args.out}.json", encoding="utf-8") as file:
            found = json.load(file)
        runs, settings = found["runs"], found["settings"]

    def made(name: str, limit: float) -> None:
        runs[name] = run(name, args, limit)
        settings[name] = vars(args)
        # After every run: what is there is not lost if the next is stopped.
        save(args, runs, settings)

    for name in args.only.split(","):
        made(name, 60 * args.minutes)
    if args.compare:
        if "hf" not in runs:
            parser.error("--compare gives the others the time of Hessian-free: add hf to --only")
        for name in args.others.split(","):
            made(name, args.share * runs["hf"][1][-1][0])
    for name, (done, history) in runs.items():
        spent, wrong, squared = history[-1]
        print(f"{name:>14}: {'solved' if done else 'not solved'}, {100 * wrong:.2f} % errors, "
              f"mse {squared:.5f} after {spent:.0f} s")
    print(f"wrote {args.out}.png and {args.out}.json")


if __name__ == "__main__":
    main()
