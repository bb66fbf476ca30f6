"""What the benchmarks of sequence models share: the steps, as they are and compiled, in each
framework, and peers as each other's check."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from harness import Benchmark, Contender, Row, Worker
from networks import OfModule, Step

__all__ = ["Checked", "Train", "compared", "in_both", "jax_adam"]


class Train(OfModule):
    """A module's training loop over batches (x, y) in memory, the same for facula and PyTorch.

    `parameters` are by name, as PyTorch lays them out; `loss_of(x, y)` is of the module with them.
    """

    def __init__(self, torch: Any, model: Any, parameters: dict[str, np.ndarray], loss_of: Any,
                 optimizer: Any, batches: Sequence[tuple[np.ndarray, np.ndarray]]):
        super().__init__(len(batches))
        with torch.no_grad():
            for name, mine in model.named_parameters():
                mine.copy_(torch.from_numpy(parameters[name].copy()))
        self.model, self.loss_of, self.optimizer = model, loss_of, optimizer
        self.inputs = [(torch.tensor(x), torch.tensor(y)) for x, y in batches]

    def loss(self, k: int) -> Any:
        return self.loss_of(*self.inputs[k])

    def named(self) -> list[tuple[str, Any]]:
        return sorted(super().named())


def in_both(made: Callable[[Any, dict[str, Any]], Train]) -> tuple[Any, Any]:
    """The contenders `facula_step` and `torch_step` of what `made(torch, options)` gives."""
    def facula_step(options: dict[str, Any]) -> Step:
        """The plain loop, or the step under `facula.compile`."""
        import facula
        import facula.nn
        import facula.optim
        facula.set_num_threads(options["threads"])
        return _compiled(facula, made(facula, options), options)

    def torch_step(options: dict[str, Any]) -> Step:
        """Eager, or with the model and its loss compiled, or the optimiser as well."""
        import torch
        torch.set_num_threads(options["threads"])
        return _compiled(torch, made(torch, options), options)

    return facula_step, torch_step


def _compiled(torch: Any, step: Any, options: dict[str, Any]) -> Step:
    """The step as it is, or compiled: "model" with its loss, "all" the whole step."""
    kind = options.get("compiled")
    if kind == "model":
        step.loss_of = torch.compile(step.loss_of)
    elif kind == "all":
        optimizer, loss_of = step.optimizer, step.loss_of

        def whole(*data: Any) -> Any:
            optimizer.zero_grad()
            loss = loss_of(*data)
            loss.backward()
            optimizer.step()
            return loss

        made, inputs = torch.compile(whole), step.inputs
        step.one = lambda k: made(*inputs[k])
    return step         # type: ignore[no-any-return]


def jax_adam(loss_of: Any, parameters: dict[str, np.ndarray], dtype: str,
             batches: Sequence[tuple[np.ndarray, np.ndarray]], rate: float,
             betas: tuple[float, float], eps: float, decay: float = 0.0) -> Step:
    """One jitted function of Adam, or AdamW where there is a `decay`, written as JAX programs are;
    `loss_of(parameters, x, y)` in float32, parameters and moments in `dtype`."""
    import jax
    import jax.numpy as jnp
    b1, b2 = betas

    def update(state: Any, x: Any, y: Any) -> Any:
        p, m, v, t = state
        loss, g = jax.value_and_grad(loss_of)(p, x, y)
        t = t + 1
        m = jax.tree.map(lambda a, d: (b1 * a + (1 - b1) * d).astype(a.dtype), m, g)
        v = jax.tree.map(lambda a, d: (b2 * a + (1 - b2) * d * d).astype(a.dtype), v, g)
        c1, c2 = 1 - b1 ** t, 1 - b2 ** t

        def moved(w: Any, a: Any, s: Any) -> Any:
            root = jnp.sqrt(s.astype(jnp.float32)) / jnp.sqrt(c2) + eps
            return (w * (1 - rate * decay) - rate / c1 * a / root).astype(w.dtype)

        return (jax.tree.map(moved, p, m, v), m, v, t), loss

    jitted = jax.jit(update, donate_argnums=0)
    data = [(jnp.asarray(x.astype(np.int32) if x.dtype.kind == "i" else x),
             jnp.asarray(y.astype(np.int32))) for x, y in batches]
    p0 = {k: jnp.asarray(v, jnp.dtype(dtype)) for k, v in parameters.items()}

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
            return np.concatenate([np.asarray(w, np.float32).ravel()
                                   for _, w in sorted(self.state[0].items())])

    return Jax(len(data))


class Checked:
    """The error of a contender after its first steps, relative to the first contender.

    With a bound of None nothing is compared (numbers too short for it); it still runs.
    """

    def __init__(self, bound: float | None):
        self.bound, self.first = bound, None

    def __call__(self, label: str, worker: Worker) -> float | None:
        with tempfile.TemporaryDirectory() as folder:
            worker.call("result", f"{folder}/parameters.npy")
            got = np.load(f"{folder}/parameters.npy").astype(np.float64)
        if self.first is None:
            self.first = got        # type: ignore[assignment]
            return None
        error = float(np.linalg.norm(got - self.first) / np.linalg.norm(self.first))
        if not np.isfinite(error) or self.bound is not None and error > self.bound:
            raise SystemExit(f"{label}: wrong result: relative difference {error:.1e}")
        return error


def compared(b: Benchmark, contenders: Sequence[Contender], prefix: str, bound: float,
             check: Checked, seconds: float = 0.3) -> dict[str, Row]:
    """Time the contenders and claim the ratio of the best peer to the better of facula's ways."""
    if b.quick:
        contenders = [c for c in contenders if c.options.get("compiled") != "model"]
    rows = b.compare(contenders, b.args.rounds, seconds, check, "ms", prefix=prefix,
                     floors=["facula.compile"])
    ours = [r for label, r in rows.items() if label.startswith("facula")]
    peers = [r for label, r in rows.items() if not label.startswith("facula")]
    if peers:
        mine, best = (min(x, key=lambda r: r.median) for x in (ours, peers))
        b.claim(f"{prefix}: {mine.label}, times as fast as the best peer ({best.label})",
                best.median / mine.median, ">=", bound, "x")
    else:
        b.unclaimed(prefix, "no peer was run")
    b.claim_loop(rows, prefix)
    return rows
