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
from sequences import Checked, Train, compared, in_both, jax_adam

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


def _train(torch: Any, options: dict[str, Any]) -> Train:
    size = SIZES[options["size"]]
    parameters, tokens, follow = problem(size)
    model = model_of(torch, size)
    if options["dtype"] == "bfloat16":
        model = model.to(torch.bfloat16)
    F = torch.nn.functional

    def loss_of(x: Any, y: Any) -> Any:
        return F.cross_entropy(model(x).view(-1, VOCABULARY), y.view(-1))

    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, eps=EPS,
                                  weight_decay=DECAY)
    return Train(torch, model, parameters, loss_of, optimizer, list(zip(tokens, follow)))


facula_step, torch_step = in_both(_train)


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

    return jax_adam(loss_of, given, options["dtype"], list(zip(tokens, follow)), RATE, BETAS, EPS,
                    DECAY)


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
