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
from sequences import Checked, Train, compared, in_both, jax_adam

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


def _train(torch: Any, options: dict[str, Any]) -> Train:
    kind = options["kind"]
    parameters, images, labels = problem(kind)
    nn, F = torch.nn, torch.nn.functional

    class Reader(nn.Module):        # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            make = nn.LSTM if kind == "lstm" else nn.GRU
            self.cell = make(WIDTH, HIDDEN, batch_first=True)
            self.head = nn.Linear(HIDDEN, CLASSES)

        def forward(self, x: Any) -> Any:
            return self.head(self.cell(x)[0][:, -1])

    model = Reader()

    def loss_of(x: Any, y: Any) -> Any:
        return F.cross_entropy(model(x), y)

    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, betas=BETAS, eps=EPS)
    return Train(torch, model, parameters, loss_of, optimizer, list(zip(images, labels)))


facula_step, torch_step = in_both(_train)


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

    return jax_adam(loss_of, given, "float32", list(zip(images, labels)), RATE, BETAS, EPS)


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
