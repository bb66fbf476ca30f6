"""Training steps of recurrent networks: digits read row by row, 28 steps of 28 numbers.

    python benchmarks/rnn.py [--quick] [--threads 2] [--rounds 11] [--kind lstm|gru] [--out FOLDER]

One layer of 128 units, its last output through a linear layer to 10 classes, batch 64, Adam,
float32.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from harness import Benchmark, Contender
from networks import Step
from sequences import Checked, assigned, compared, run_compiled

__all__ = ["facula_step", "jax_step", "torch_step"]

ROWS, WIDTH, HIDDEN, CLASSES, BATCH = 28, 28, 128, 10, 64
GATES = {"lstm": 4, "gru": 3}
RATE, BETAS, EPS = 1e-3, (0.9, 0.999), 1e-8


def problem(kind: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Parameters by name as PyTorch lays them out, images [count, batch, 28, 28], labels."""
    rng = np.random.default_rng(0)
    gates, bound = GATES[kind], HIDDEN ** -0.5

    def uniform(*shape: int) -> np.ndarray:
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    p = {"cell.weight_ih_l0": uniform(gates * HIDDEN, WIDTH),
         "cell.weight_hh_l0": uniform(gates * HIDDEN, HIDDEN),
         "cell.bias_ih_l0": uniform(gates * HIDDEN), "cell.bias_hh_l0": uniform(gates * HIDDEN),
         "head.weight": uniform(CLASSES, HIDDEN), "head.bias": uniform(CLASSES)}
    images = rng.random((16, BATCH, ROWS, WIDTH)) * (rng.random((16, BATCH, ROWS, WIDTH)) < 0.2)
    return p, images.astype(np.float32), rng.integers(0, CLASSES, (16, BATCH))


class _Train(Step):
    def __init__(self, torch: Any, options: dict[str, Any]):
        kind = options["kind"]
        parameters, images, labels = problem(kind)
        super().__init__(len(images))
        nn, F = torch.nn, torch.nn.functional

        class Reader(nn.Module):        # type: ignore[misc,name-defined]
            def __init__(self) -> None:
                super().__init__()
                make = nn.LSTM if kind == "lstm" else nn.GRU
                self.cell = make(WIDTH, HIDDEN, batch_first=True)
                self.head = nn.Linear(HIDDEN, CLASSES)

            def forward(self, x: Any) -> Any:
                return self.head(self.cell(x)[0][:, -1])

        self.model = model = Reader()
        assigned(torch, model, parameters)

        def loss_of(x: Any, y: Any) -> Any:
            return F.cross_entropy(model(x), y)

        self.loss_of = loss_of
        self.optimizer = torch.optim.Adam(model.parameters(), lr=RATE, betas=BETAS, eps=EPS)
        self.inputs = [(torch.tensor(x), torch.tensor(y)) for x, y in zip(images, labels)]

    def one(self, k: int) -> Any:
        self.optimizer.zero_grad()
        loss = self.loss_of(*self.inputs[k])
        loss.backward()
        self.optimizer.step()
        return loss

    def settle(self, loss: Any) -> float:
        return loss.item() + next(self.model.parameters())[0, 0].item()

    def vector(self) -> np.ndarray:
        return np.concatenate([p.detach().clone().numpy().ravel()
                               for _, p in sorted(self.model.named_parameters())])


def facula_step(options: dict[str, Any]) -> Step:
    """The plain loop, or the step under `facula.compile`."""
    import facula
    import facula.nn
    import facula.optim
    facula.set_num_threads(options["threads"])
    return run_compiled(facula, _Train(facula, options), options)


def torch_step(options: dict[str, Any]) -> Step:
    """Eager, or with the model and its loss compiled."""
    import torch
    torch.set_num_threads(options["threads"])
    return run_compiled(torch, _Train(torch, options), options)


def jax_step(options: dict[str, Any]) -> Step:
    """One jitted function with a scan over time."""
    import jax
    import jax.numpy as jnp
    kind = options["kind"]
    given, images, labels = problem(kind)

    def lstm(p: Any, carry: Any, x: Any) -> Any:
        h, c = carry
        z = x + h @ p["cell.weight_hh_l0"].T
        i, f, g, o = jnp.split(z, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), None

    def gru(p: Any, carry: Any, x: Any) -> Any:
        h, c = carry
        z = h @ p["cell.weight_hh_l0"].T + p["cell.bias_hh_l0"]
        (xr, xz, xn), (hr, hz, hn) = jnp.split(x, 3, axis=-1), jnp.split(z, 3, axis=-1)
        r, u = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
        n = jnp.tanh(xn + r * hn)
        return ((1 - u) * n + u * h, c), None

    def loss_of(p: Any, x: Any, y: Any) -> Any:
        z = jnp.swapaxes(x, 0, 1) @ p["cell.weight_ih_l0"].T + p["cell.bias_ih_l0"]
        if kind == "lstm":
            z = z + p["cell.bias_hh_l0"]
        zero = jnp.zeros((x.shape[0], HIDDEN))
        cell = lstm if kind == "lstm" else gru
        (h, _), _ = jax.lax.scan(lambda s, t: cell(p, s, t), (zero, zero), z)
        logits = jax.nn.log_softmax(h @ p["head.weight"].T + p["head.bias"])
        return -jnp.take_along_axis(logits, y[:, None], axis=1).mean()

    def update(state: Any, x: Any, y: Any) -> Any:
        p, m, v, t = state
        loss, g = jax.value_and_grad(loss_of)(p, x, y)
        t = t + 1
        b1, b2 = BETAS
        m = jax.tree.map(lambda a, d: b1 * a + (1 - b1) * d, m, g)
        v = jax.tree.map(lambda a, d: b2 * a + (1 - b2) * d * d, v, g)
        c1, c2 = 1 - b1 ** t, 1 - b2 ** t
        p = jax.tree.map(lambda w, a, s: w - RATE / c1 * a / (jnp.sqrt(s) / jnp.sqrt(c2) + EPS),
                         p, m, v)
        return (p, m, v, t), loss

    jitted = jax.jit(update, donate_argnums=0)
    data = [(jnp.asarray(x), jnp.asarray(y.astype(np.int32))) for x, y in zip(images, labels)]
    p0 = {k: jnp.asarray(v) for k, v in given.items()}

    class Jax(Step):
        state = (p0, jax.tree.map(jnp.zeros_like, p0), jax.tree.map(jnp.zeros_like, p0),
                 jnp.float32(0))

        def one(self, k: int) -> Any:
            self.state, loss = jitted(self.state, *data[k])
            return loss

        def settle(self, loss: Any) -> float:
            jax.block_until_ready(self.state)
            return float(loss)

        def vector(self) -> np.ndarray:
            return np.concatenate([np.asarray(w).ravel()
                                   for _, w in sorted(self.state[0].items())])

    return Jax(len(images))


if __name__ == "__main__":
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=11)
        parser.add_argument("--kind", choices=[*GATES, "all"], default="all")

    b = Benchmark(
        __file__, "LSTM and GRU training steps, 28 x 28 digits by rows, 128 units, batch 64",
        "One training step (zero_grad, forward, loss, backward, Adam) over batches in memory, "
        "float32. The error is the relative difference to PyTorch eager of all parameters after "
        "a few steps.", arguments)
    for kind in list(GATES) if b.args.kind == "all" else [b.args.kind]:
        o = {"kind": kind}
        compared(b, [
            Contender("torch eager", "torch_step", o),
            Contender("facula", "facula_step", o),
            Contender("facula.compile", "facula_step", {**o, "compiled": "all"}),
            Contender("torch.compile", "torch_step", {**o, "compiled": "model"}),
            Contender("JAX jit", "jax_step", o)], kind.upper(), 1.5, Checked(1e-3))
    b.finish()
