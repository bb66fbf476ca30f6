"""Decoding one token at batch 1 with a network of GPT-2's size: bound by memory.

    python benchmarks/decode.py [--quick] [--threads 2] [--rounds 9] [--out FOLDER]

12 layers of 12 heads, 768 wide, vocabulary 50257, float32: every token reads all 124 million
parameters (but for the tables of embeddings, of which the head is one) once.  The keys and values
of the tokens before are kept in a cache of fixed size, so that every step has the same shapes.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from harness import Benchmark, Contender, Worker

__all__ = ["facula_decode", "facula_read", "torch_decode"]


def _size(quick: bool) -> tuple[int, int, int, int, int]:
    """layers, heads, width, vocabulary, longest context"""
    return (2, 4, 256, 1000, 64) if quick else (12, 12, 768, 50257, 256)


def problem(quick: bool) -> dict[str, np.ndarray]:
    """Weights as [out, in]."""
    layers, _, w, vocabulary, context = _size(quick)
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32) * np.float32(0.02)

    p = {"token": normal(vocabulary, w), "place": normal(context, w)}
    for k in range(layers):
        p |= {f"{k}.attend": normal(3 * w, w), f"{k}.project": normal(w, w),
              f"{k}.up": normal(4 * w, w), f"{k}.down": normal(w, 4 * w)}
    return p


def traffic(quick: bool) -> int:
    """Bytes that a token reads: the weights, and the keys and values before it."""
    layers, _, w, _, context = _size(quick)
    weights = sum(x.nbytes for name, x in problem(quick).items() if name != "place")
    return weights + 2 * 4 * layers * context * w


class _Decode:
    """The same program for facula and PyTorch."""

    def __init__(self, torch: Any, options: dict[str, Any], compile_: Any = None):
        quick = options["quick"]
        layers, heads, w, _, context = _size(quick)
        F = torch.nn.functional
        self.torch = torch
        p = {name: torch.tensor(x) for name, x in problem(quick).items()}
        size = w // heads
        self.keys = [torch.zeros(heads, context, size) for _ in range(layers)]
        self.values = [torch.zeros(heads, context, size) for _ in range(layers)]
        slots = torch.arange(context)

        def token(t: Any, at: Any, keys: Any, values: Any) -> Any:
            x = F.embedding(t, p["token"]) + F.embedding(at, p["place"])        # [1, w]
            mask = slots <= at
            for k in range(layers):
                y = F.linear(F.layer_norm(x, (w,)), p[f"{k}.attend"])
                q, key, value = (s.view(heads, 1, size) for s in y.split(w, dim=1))
                keys[k].index_copy_(1, at, key)
                values[k].index_copy_(1, at, value)
                scores = (q @ keys[k].transpose(1, 2)) * size ** -0.5
                scores = scores.masked_fill(~mask, float("-inf")).softmax(-1)
                x = x + F.linear((scores @ values[k]).view(1, w), p[f"{k}.project"])
                y = F.gelu(F.linear(F.layer_norm(x, (w,)), p[f"{k}.up"]), approximate="tanh")
                x = x + F.linear(y, p[f"{k}.down"])
            logits = F.linear(F.layer_norm(x, (w,)), p["token"])
            return logits.argmax(-1)

        self.step = compile_(token) if compile_ is not None else token
        self.context = context

    def tokens(self, n: int) -> list[int]:
        """The first n tokens from token 1 on."""
        torch = self.torch
        out = []
        with torch.no_grad():
            t = torch.tensor([1])
            for at in range(n):
                t = self.step(t, torch.tensor([at % self.context]), self.keys, self.values)
                out.append(int(t.item()))
        return out

    def run(self, n: int) -> None:
        self.tokens(n)


def facula_decode(options: dict[str, Any]) -> _Decode:
    """With `facula.compile`, or as it is."""
    import facula
    import facula.nn
    facula.set_num_threads(options["threads"])
    return _Decode(facula, options, facula.compile if options.get("compiled") else None)


def torch_decode(options: dict[str, Any]) -> _Decode:
    """With `torch.compile`, or eager."""
    import torch
    torch.set_num_threads(options["threads"])
    return _Decode(torch, options, torch.compile if options.get("compiled") else None)


def facula_read(options: dict[str, Any]) -> Any:
    """As many bytes as a token reads, added up: what memory gives."""
    import facula
    facula.set_num_threads(options["threads"])
    x = facula.rand(traffic(options["quick"]) // 4)

    class Read:
        def run(self, n: int) -> None:
            for _ in range(n):
                self.last = x.sum().item()

    return Read()


class _Check:
    """Everybody decodes the same tokens."""

    def __init__(self) -> None:
        self.first: list[int] | None = None

    def __call__(self, label: str, worker: Worker) -> float | None:
        if "read" in label:
            return None
        got = worker.call("tokens", 6)
        if self.first is None:
            self.first = got
        if got != self.first:
            raise SystemExit(f"{label}: other tokens: {got} for {self.first}")
        return 0.0


if __name__ == "__main__":
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=9)

    b = Benchmark(
        __file__, "Decoding one token, GPT-2's size, batch 1, float32",
        "One token through 12 layers with a cache of keys and values, against reading as many "
        "bytes as weights and cache have (a sum over them, with the same threads).", arguments)
    contenders = [Contender("facula", "facula_decode"),
                  Contender("facula.compile", "facula_decode", {"compiled": True}),
                  Contender("facula: read the bytes", "facula_read"),
                  Contender("torch eager", "torch_decode")]
    if not b.quick:
        contenders.append(Contender("torch.compile", "torch_decode", {"compiled": True}))
    rows = b.compare(contenders, b.args.rounds, 0.5, _Check(), "ms", "token",
                     floors=["facula.compile"])
    best = min((r for name, r in rows.items() if name in ("facula", "facula.compile")),
               key=lambda r: r.median)
    read = rows["facula: read the bytes"].median
    b.notes.append(f"bytes a token: {traffic(b.quick) / 1e6:.0f} MB; memory gives "
                   f"{traffic(b.quick) / read / 1e9:.1f} GB/s")
    b.claim(f"decoding ({best.label}), share of measured bandwidth", read / best.median, ">=", 0.85)
    b.finish()
