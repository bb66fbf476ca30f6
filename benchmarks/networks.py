"""The 784-128-64-10 network's training step, in each framework and in float64 NumPy.

Every contender starts from the same weights and sees the same batches in the same order: SGD,
cross-entropy, ReLU, everything float32.  `result` trains the first steps and gives the parameters
back, so that they can be held against the float64 ones before anything is timed; `run(n)` goes on
from there, and ends by reading the last loss and a parameter, so that nothing is left undone.
"""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from harness import Benchmark, Contender, Missing, Worker

SIZES = (784, 128, 64, 10)
RATE = 0.01
CHECKED_STEPS = 20


def problem(batch: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Weights and biases in turn, inputs [count, batch, 784], labels [count, batch].

    The inputs look like normalised digits: mostly the background's value, some strokes.
    """
    rng = np.random.default_rng(0)
    parameters = []
    for i, o in zip(SIZES, SIZES[1:]):
        bound = i ** -0.5
        parameters.append(rng.uniform(-bound, bound, (o, i)).astype(np.float32))
        parameters.append(rng.uniform(-bound, bound, o).astype(np.float32))
    count = max(1024 // batch, 1)
    ink = rng.random((count, batch, SIZES[0])) * (rng.random((count, batch, SIZES[0])) < 0.2)
    inputs = ((ink - 0.1307) / 0.3081).astype(np.float32)
    return parameters, inputs, rng.integers(0, SIZES[-1], (count, batch))


def exact(batch: int, steps: int = CHECKED_STEPS) -> tuple[np.ndarray, np.ndarray]:
    """All parameters in one vector, before and after so many steps, in float64."""
    parameters, inputs, labels = problem(batch)
    p = [x.astype(np.float64) for x in parameters]
    before = np.concatenate([x.ravel() for x in p])
    for k in range(steps):
        x, y = inputs[k % len(inputs)].astype(np.float64), labels[k % len(inputs)]
        seen = [x]
        for i in range(0, len(p), 2):
            z = seen[-1] @ p[i].T + p[i + 1]
            seen.append(z if i == len(p) - 2 else np.maximum(z, 0))
        logits = seen.pop()
        grad = np.exp(logits - logits.max(1, keepdims=True))
        grad /= grad.sum(1, keepdims=True)
        grad[np.arange(batch), y] -= 1
        grad /= batch
        for i in range(len(p) - 2, -1, -2):
            h = seen.pop()
            weight, p[i] = p[i], p[i] - RATE * (grad.T @ h)
            p[i + 1] = p[i + 1] - RATE * grad.sum(0)
            grad = (grad @ weight) * (h > 0)
    return before, np.concatenate([x.ravel() for x in p])


class Step(ABC):
    """A training loop over the problem's batches; `one(k)` is step k and gives its loss."""

    def __init__(self, count: int):
        self.count, self.k = count, 0
        self.facts: dict[str, Any] = {}

    @abstractmethod
    def one(self, k: int) -> Any:
        """Step k; its loss."""

    def settle(self, loss: Any) -> float:
        """Read the loss and a parameter: what has been asked for has then been computed."""
        return float(loss)

    @abstractmethod
    def vector(self) -> np.ndarray:
        """All parameters, as one vector."""

    def run(self, n: int) -> None:
        one, count, k = self.one, self.count, self.k
        loss = None
        for _ in range(n):
            loss = one(k)
            k += 1
            if k == count:
                k = 0
        self.k = k
        self.settle(loss)

    def result(self, path: str) -> None:
        """Train the first steps from the initial weights and save the parameters."""
        self.run(CHECKED_STEPS)
        np.save(path, self.vector())


class OfModule(Step):
    """A module's training loop, the same program for facula and PyTorch.

    Who derives from it sets `model` and `optimizer`, and says what the loss of step k is.
    """

    model: Any
    optimizer: Any

    @abstractmethod
    def loss(self, k: int) -> Any:
        """The loss of step k, to be differentiated."""

    def one(self, k: int) -> Any:
        self.optimizer.zero_grad()
        loss = self.loss(k)
        loss.backward()
        self.optimizer.step()
        return loss

    def settle(self, loss: Any) -> float:
        return loss.item() + next(self.model.parameters())[0, 0].item()

    def vector(self) -> np.ndarray:
        # Of copies: an array of the parameter itself would go on sharing its memory.
        return np.concatenate([p.detach().float().clone().numpy().ravel()
                               for _, p in self.named()])

    def named(self) -> list[tuple[str, Any]]:
        """The parameters in the order of `vector`."""
        return list(self.model.named_parameters())


class _Network(OfModule):
    """The problem's network."""

    def __init__(self, torch: Any, options: dict[str, Any]):
        parameters, inputs, labels = problem(options["batch"])
        super().__init__(len(inputs))
        nn = torch.nn
        self.model = nn.Sequential(
            nn.Linear(SIZES[0], SIZES[1]), nn.ReLU(), nn.Linear(SIZES[1], SIZES[2]), nn.ReLU(),
            nn.Linear(SIZES[2], SIZES[3]))
        with torch.no_grad():
            for mine, given in zip(self.model.parameters(), parameters):
                mine.copy_(torch.from_numpy(given))
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=RATE)
        self.inputs = [torch.tensor(x) for x in inputs]
        self.labels = [torch.tensor(y) for y in labels]

    def loss(self, k: int) -> Any:
        return self.criterion(self.model(self.inputs[k]), self.labels[k])


def facula_step(options: dict[str, Any]) -> Step:
    """The plain loop, or with `compiled` the whole step under `facula.compile`."""
    import facula
    import facula.nn
    import facula.optim
    facula.set_num_threads(options["threads"])
    step = _Network(facula, options)
    if options.get("compiled"):
        try:
            compile_ = facula.compile
        except (AttributeError, ImportError):
            raise Missing("this version has no facula.compile") from None

        model, criterion, optimizer = step.model, step.criterion, step.optimizer

        def whole(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            return loss

        made = compile_(whole)
        inputs, labels = step.inputs, step.labels
        step.one = lambda k: made(inputs[k], labels[k])        # type: ignore[method-assign]
    return step


def torch_step(options: dict[str, Any]) -> Step:
    """Eager, or with `compiled`: "model" (with its loss), or "all" (the optimiser as well).

    "all" also has inductor write the code around its kernels in C++, its cheapest way to launch.
    """
    import torch
    torch.set_num_threads(options["threads"])
    step = _Network(torch, options)
    kind = options.get("compiled")
    if kind:
        more = {"options": {"cpp_wrapper": True}} if kind == "all" else {}
        loss_of = torch.compile(lambda x, y: step.criterion(step.model(x), y), **more)
        update = step.optimizer.step
        if kind == "all":
            update = torch.compile(update)                     # type: ignore[assignment]
        zero, inputs, labels = step.optimizer.zero_grad, step.inputs, step.labels

        def one(k: int) -> Any:
            zero()
            loss = loss_of(inputs[k], labels[k])
            loss.backward()
            update()
            return loss

        step.one = one                                         # type: ignore[method-assign]
    return step


def jax_step(options: dict[str, Any]) -> Step:
    """One jitted function: gradient and update, the old parameters' memory given up."""
    import jax
    import jax.numpy as jnp
    parameters, inputs, labels = problem(options["batch"])

    def loss_of(p: Any, x: Any, y: Any) -> Any:
        for i in range(0, len(p), 2):
            x = x @ p[i].T + p[i + 1]
            if i < len(p) - 2:
                x = jax.nn.relu(x)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], axis=1)
        return -chosen.mean()

    def update(p: Any, x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(p, x, y)
        return [w - RATE * g for w, g in zip(p, grads)], loss

    jitted = jax.jit(update, donate_argnums=0)
    xs = [jnp.asarray(x) for x in inputs]
    ys = [jnp.asarray(y.astype(np.int32)) for y in labels]

    class Jax(Step):
        p = [jnp.asarray(w) for w in parameters]
        inputs, labels = xs, ys

        def one(self, k: int) -> Any:
            self.p, loss = jitted(self.p, xs[k], ys[k])
            return loss

        def settle(self, loss: Any) -> float:
            jax.block_until_ready(self.p)
            return float(loss)

        def vector(self) -> np.ndarray:
            return np.concatenate([np.asarray(w).ravel() for w in self.p])

    return Jax(len(inputs))


def contenders(batch: int, quick: bool = False) -> list[Contender]:
    """Facula's two ways and the peers; a quick run has only one of the slow compilers."""
    b = {"batch": batch}
    found = [
        Contender("facula", "facula_step", b),
        Contender("facula.compile", "facula_step", {**b, "compiled": True}),
        Contender("torch eager", "torch_step", b),
        Contender("torch.compile, model and loss", "torch_step", {**b, "compiled": "model"}),
        Contender("torch.compile, all, C++ wrapper", "torch_step", {**b, "compiled": "all"}),
        Contender("JAX jit", "jax_step", b),
    ]
    return [c for c in found if not (quick and c.options.get("compiled") in ("model", "all"))]


class Checker:
    """The error of a contender: of what the first steps changed, relative to float64."""

    def __init__(self, batch: int, folder: str):
        self.before, self.after = exact(batch)
        self.folder = folder

    def __call__(self, label: str, worker: Worker) -> float:
        path = f"{self.folder}/parameters.npy"
        worker.call("result", path)
        got = np.load(path).astype(np.float64)
        error = float(np.linalg.norm(got - self.after)
                      / np.linalg.norm(self.after - self.before))
        if not error < 1e-3:
            raise SystemExit(f"{label}: wrong result: relative error {error:.1e} after "
                             f"{CHECKED_STEPS} steps")
        return error


def step_benchmark(script: str, batch: int, eager: float, compiled: float | None) -> None:
    """The benchmark of the step at this batch, with its bounds against PyTorch eager.

    Without a bound for `facula.compile` there is none against the compiled peers either.
    """
    import tempfile

    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=21)

    b = Benchmark(
        script, f"784-128-64-10 training step, batch {batch}, SGD, cross-entropy, float32",
        "One training step (zero_grad, forward, loss, backward, optimiser) in a loop over batches "
        "that are in memory. The error is that of the change of all parameters after "
        f"{CHECKED_STEPS} steps, relative to the same steps in float64.", arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = b.compare(contenders(batch, b.quick), b.args.rounds,
                         check=Checker(batch, folder), floors=["facula.compile"])
    for ours, bound in (("facula", eager), ("facula.compile", compiled)):
        if bound is None:
            continue
        what = f"{ours} step, batch {batch}, times as fast as PyTorch eager"
        if ours in rows and "torch eager" in rows:
            b.claim(what, rows["torch eager"].median / rows[ours].median, ">=", bound, "x")
        else:
            b.unclaimed(what, b.missing.get(ours) or b.missing["torch eager"])
    rivals = [r for label, r in rows.items() if label.startswith(("torch.compile", "JAX"))]
    what = f"facula step, batch {batch}, times as fast as the best compiled peer"
    if rivals:
        best = min(rivals, key=lambda r: r.median)
        what, ratio = f"{what} ({best.label})", best.median / rows["facula"].median
        if compiled is None:
            b.notes.append(f"{what}: {ratio:.2f}")
        else:
            b.claim(what, ratio, ">=", 1.0, "x")
    elif compiled is not None:
        b.unclaimed(what, "no compiled peer was run")
    b.finish()
