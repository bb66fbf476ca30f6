"""A small GPT's training step: AdamW, cross-entropy over a vocabulary of characters.

    python benchmarks/gpt.py [--quick] [--threads 2] [--rounds 11] [--size small|large]
                             [--dtype float32|bfloat16] [--out FOLDER]

`small` is 4 layers of 4 heads, 128 wide, context 64, batch 12; `large` is 6 layers of 6 heads, 384
wide, context 256, batch 12.  No dropout.  In bfloat16 parameters and activations are bfloat16 as a
whole in every contender.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
from harness import Benchmark, Contender
from networks import Step
from sequences import Checked, assigned, compared, run_compiled

__all__ = ["facula_step", "jax_step", "torch_step"]

VOCABULARY = 65
RATE, BETAS, EPS, DECAY = 3e-4, (0.9, 0.95), 1e-8, 0.1


@dataclass(frozen=True)
class Size:
    """layers, heads, width, context, batch"""

    layers: int
    heads: int
    width: int
    context: int
    batch: int


SIZES = {"small": Size(4, 4, 128, 64, 12), "large": Size(6, 6, 384, 256, 12)}


def problem(size: Size) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Parameters by name as PyTorch lays them out, tokens and the tokens that follow."""
    rng = np.random.default_rng(0)
    w = size.width

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.02, shape).astype(np.float32)

    p = {"token.weight": normal(VOCABULARY, w), "place.weight": normal(size.context, w)}
    for k in range(size.layers):
        b = f"blocks.{k}."
        p |= {b + "first.weight": np.ones(w, np.float32), b + "first.bias": np.zeros(w, np.float32),
              b + "attend.weight": normal(3 * w, w), b + "attend.bias": normal(3 * w),
              b + "project.weight": normal(w, w), b + "project.bias": normal(w),
              b + "second.weight": np.ones(w, np.float32),
              b + "second.bias": np.zeros(w, np.float32),
              b + "up.weight": normal(4 * w, w), b + "up.bias": normal(4 * w),
              b + "down.weight": normal(w, 4 * w), b + "down.bias": normal(w)}
    p |= {"last.weight": np.ones(w, np.float32), "last.bias": np.zeros(w, np.float32),
          "head.weight": normal(VOCABULARY, w)}
    text = rng.integers(0, VOCABULARY, (8, size.batch, size.context + 1))
    return p, text[:, :, :-1].copy(), text[:, :, 1:].copy()


def model_of(torch: Any, size: Size) -> Any:
    """The network as a module, the same program for facula and PyTorch."""
    nn, F = torch.nn, torch.nn.functional
    heads, width = size.heads, size.width

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.LayerNorm(width)
            self.attend = nn.Linear(width, 3 * width)
            self.project = nn.Linear(width, width)
            self.second = nn.LayerNorm(width)
            self.up = nn.Linear(width, 4 * width)
            self.down = nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            b, t, c = x.shape
            q, k, v = self.attend(self.first(x)).split(width, dim=2)
            q, k, v = (s.view(b, t, heads, c // heads).transpose(1, 2) for s in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.project(y.transpose(1, 2).contiguous().view(b, t, c))
            return x + self.down(F.gelu(self.up(self.second(x)), approximate="tanh"))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Embedding(VOCABULARY, width)
            self.place = nn.Embedding(size.context, width)
            self.blocks = nn.ModuleList([Block() for _ in range(size.layers)])
            self.last = nn.LayerNorm(width)
            self.head = nn.Linear(width, VOCABULARY, bias=False)

        def forward(self, tokens: Any) -> Any:
            x = self.token(tokens) + self.place(torch.arange(tokens.shape[1]))
            for block in self.blocks:
                x = block(x)
            return self.head(self.last(x))

    return GPT()


class _Train(Step):
    def __init__(self, torch: Any, options: dict[str, Any]):
        size = SIZES[options["size"]]
        parameters, tokens, follow = problem(size)
        super().__init__(len(tokens))
        self.model = model_of(torch, size)
        assigned(torch, self.model, parameters)
        if options["dtype"] == "bfloat16":
            self.model = self.model.to(torch.bfloat16)
        F = torch.nn.functional
        model = self.model

        def loss_of(x: Any, y: Any) -> Any:
            return F.cross_entropy(model(x).view(-1, VOCABULARY), y.view(-1))

        self.loss_of = loss_of
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=RATE, betas=BETAS, eps=EPS,
                                           weight_decay=DECAY)
        self.inputs = [(torch.tensor(x), torch.tensor(y)) for x, y in zip(tokens, follow)]

    def one(self, k: int) -> Any:
        self.optimizer.zero_grad()
        loss = self.loss_of(*self.inputs[k])
        loss.backward()
        self.optimizer.step()
        return loss

    def settle(self, loss: Any) -> float:
        return loss.item() + next(self.model.parameters())[0, 0].item()

    def vector(self) -> np.ndarray:
        return np.concatenate([p.detach().float().clone().numpy().ravel()
                               for _, p in sorted(self.model.named_parameters())])


def facula_step(options: dict[str, Any]) -> Step:
    """The plain loop, or the step under `facula.compile`."""
    import facula
    import facula.nn
    import facula.optim
    facula.set_num_threads(options["threads"])
    return run_compiled(facula, _Train(facula, options), options)


def torch_step(options: dict[str, Any]) -> Step:
    """Eager, or with the model and its loss compiled, or the optimiser as well."""
    import torch
    torch.set_num_threads(options["threads"])
    return run_compiled(torch, _Train(torch, options), options)


def jax_step(options: dict[str, Any]) -> Step:
    """One jitted function, written as JAX programs are."""
    import jax
    import jax.numpy as jnp
    size = SIZES[options["size"]]
    given, tokens, follow = problem(size)
    dtype = jnp.dtype(options["dtype"])
    heads, width = size.heads, size.width
    mask = np.tril(np.ones((size.context, size.context), bool))

    def norm(x: Any, p: Any, name: str) -> Any:
        mean = x.mean(-1, keepdims=True)
        centred = x - mean
        var = (centred * centred).mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt(var + 1e-5) * p[name + ".weight"] + p[name + ".bias"]

    def linear(x: Any, p: Any, name: str) -> Any:
        return x @ p[name + ".weight"].T + p[name + ".bias"]

    def forward(p: Any, x: Any) -> Any:
        h = p["token.weight"][x] + p["place.weight"]
        b, t, c = h.shape
        for k in range(size.layers):
            n = f"blocks.{k}."
            q, key, v = (s.reshape(b, t, heads, c // heads) for s in jnp.split(
                linear(norm(h, p, n + "first"), p, n + "attend"), 3, axis=-1))
            scores = jnp.einsum("bqhd,bkhd->bhqk", q, key) * (c // heads) ** -0.5
            scores = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf).astype(jnp.float32), -1)
            y = jnp.einsum("bhqk,bkhd->bqhd", scores.astype(dtype), v).reshape(b, t, width)
            h = h + linear(y, p, n + "project")
            u = jax.nn.gelu(linear(norm(h, p, n + "second"), p, n + "up"), approximate=True)
            h = h + linear(u, p, n + "down")
        return norm(h, p, "last") @ p["head.weight"].T

    def loss_of(p: Any, x: Any, y: Any) -> Any:
        logits = jax.nn.log_softmax(forward(p, x).astype(jnp.float32))
        return -jnp.take_along_axis(logits, y[..., None], axis=-1).mean()

    def update(state: Any, x: Any, y: Any) -> Any:
        p, m, v, t = state
        loss, g = jax.value_and_grad(loss_of)(p, x, y)
        t = t + 1
        b1, b2 = BETAS
        m = jax.tree.map(lambda a, d: (b1 * a + (1 - b1) * d).astype(a.dtype), m, g)
        v = jax.tree.map(lambda a, d: (b2 * a + (1 - b2) * d * d).astype(a.dtype), v, g)
        c1, c2 = 1 - b1 ** t, 1 - b2 ** t

        def moved(w: Any, a: Any, s: Any) -> Any:
            root = jnp.sqrt(s.astype(jnp.float32)) / jnp.sqrt(c2) + EPS
            return (w * (1 - RATE * DECAY) - RATE / c1 * a / root).astype(w.dtype)

        return (jax.tree.map(moved, p, m, v), m, v, t), loss

    jitted = jax.jit(update, donate_argnums=0)
    data = [(jnp.asarray(x.astype(np.int32)), jnp.asarray(y.astype(np.int32)))
            for x, y in zip(tokens, follow)]
    p0 = {k: jnp.asarray(v, dtype) for k, v in given.items()}

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

    return Jax(len(tokens))


if __name__ == "__main__":
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=11)
        parser.add_argument("--size", choices=[*SIZES, "all"], default="all")
        parser.add_argument("--dtype", choices=["float32", "bfloat16", "all"], default="all")

    b = Benchmark(
        __file__, "GPT training step, AdamW, cross-entropy",
        "One training step (zero_grad, forward, loss, backward, AdamW) over batches in memory. "
        "The error is the relative difference to PyTorch eager in the change of all parameters "
        "after a few steps, in float32; bfloat16 rounds its weights, so only its loss is "
        "compared.", arguments)
    sizes = list(SIZES) if b.args.size == "all" else [b.args.size]
    dtypes = ["float32", "bfloat16"] if b.args.dtype == "all" else [b.args.dtype]
    if b.quick:
        sizes, dtypes = sizes[:1], dtypes[:1]
    for name in sizes:
        for dtype in dtypes:
            o = {"size": name, "dtype": dtype}
            compared(b, [
                Contender("torch eager", "torch_step", o),
                Contender("facula", "facula_step", o),
                Contender("facula.compile", "facula_step", {**o, "compiled": "all"}),
                Contender("torch.compile", "torch_step", {**o, "compiled": "model"}),
                Contender("JAX jit", "jax_step", o)],
                f"GPT {name}, {dtype}", 1.5 if dtype == "float32" else 1.25,
                Checked(1e-2 if dtype == "float32" else None))
    b.finish()
