"""Curvature products of the 784-1000-500-250-30 autoencoder, mirrored, at batch 1024.

    python benchmarks/curvature.py [--quick] [--threads 2] [--rounds 9] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import numpy as np
from harness import Benchmark, Contender, Worker

ENCODER = (784, 1000, 500, 250, 30)
SIZES = ENCODER + ENCODER[-2::-1]
CODE = len(ENCODER) - 2
"""The layer without a sigmoid; the last one's is part of the loss."""


def problem(batch: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Weights and biases in turn, images [batch, 784] in [0, 1], and a vector of all parameters."""
    rng = np.random.default_rng(0)
    parameters = []
    for i, o in zip(SIZES, SIZES[1:]):
        parameters.append((rng.standard_normal((o, i)) * i ** -0.5).astype(np.float32))
        parameters.append((rng.standard_normal(o) * 0.1).astype(np.float32))
    x = rng.random((batch, SIZES[0])) * (rng.random((batch, SIZES[0])) < 0.2)
    v = rng.standard_normal(sum(p.size for p in parameters))
    return parameters, x.astype(np.float32), v.astype(np.float32)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def exact(batch: int) -> dict[str, np.ndarray]:
    """The gradient and the Gauss-Newton product in float64, by hand."""
    parameters, x, flat = problem(batch)
    p = [w.astype(np.float64) for w in parameters]
    ends = np.cumsum([w.size for w in p])
    v = [part.reshape(w.shape).astype(np.float64)
         for part, w in zip(np.split(flat, ends[:-1]), p)]
    seen, h, dh = [], x.astype(np.float64), np.zeros(x.shape)
    for k in range(0, len(p), 2):
        z = h @ p[k].T + p[k + 1]
        dz = dh @ p[k].T + h @ v[k].T + v[k + 1]
        linear = k // 2 in (CODE, len(p) // 2 - 1)
        s = sigmoid(z)
        slope = np.ones_like(z) if linear else s * (1 - s)
        seen.append((h, slope))
        h, dh = (z, dz) if linear else (s, slope * dz)
    out = sigmoid(h)
    result = {}
    for name, g in (("gradient", (out - x) / x.size), ("product", out * (1 - out) * dh / x.size)):
        parts = []
        for k in range(len(p) - 2, -1, -2):
            before, slope = seen[k // 2]
            g = g * slope
            parts += [g.sum(0), (g.T @ before)]
            g = g @ p[k]
        result[name] = np.concatenate([w.ravel() for w in reversed(parts)])
    return result


class Subject:
    """What a contender's process holds: `once` makes one product (or gradient)."""

    def __init__(self, once: Any, read: Any):
        self.once, self.read = once, read
        self.facts: dict[str, Any] = {}

    def run(self, n: int) -> None:
        out = None
        for _ in range(n):
            out = self.once()
        self.read(out)

    def result(self, path: str) -> None:
        np.save(path, np.asarray(self.read(self.once()), np.float32).ravel())


def _network(torch: Any, batch: int) -> tuple[Any, Any, Any]:
    """The same program for facula and torch."""
    parameters, x, v = problem(batch)
    nn = torch.nn
    layers: list[Any] = []
    for k, (i, o) in enumerate(zip(SIZES, SIZES[1:])):
        layers.append(nn.Linear(i, o))
        if k not in (CODE, len(SIZES) - 2):
            layers.append(nn.Sigmoid())
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for mine, given in zip(model.parameters(), parameters):
            mine.copy_(torch.from_numpy(given))
    return model, torch.tensor(x), torch.tensor(v)


def facula_product(options: dict[str, Any]) -> Subject:
    """A product with an operator made once, as conjugate gradients take many; or a gradient."""
    import facula
    import facula.nn
    from facula.curvature import GaussNewtonOperator, HessianOperator
    from facula.nn import functional as F
    facula.set_num_threads(options["threads"])
    model, x, v = _network(facula, options["batch"])
    params = list(model.parameters())

    def loss() -> Any:
        z = model(x)
        return F.binary_cross_entropy_with_logits(z, x), z

    def numbers(out: Any) -> np.ndarray:
        return np.concatenate([np.array(t.detach().numpy()).ravel() for t in out])

    if options["kind"] == "gradient":
        return Subject(lambda: _backward(facula, params, loss), numbers)
    op: Any = GaussNewtonOperator(loss, model) if options["kind"] == "newton" \
        else HessianOperator(loss, model)

    def product() -> Any:
        out = op @ v
        facula.graph.record.flush(facula.graph.record.recorder(), True)
        return [out]

    return Subject(product, numbers)


def _backward(facula: Any, params: Any, loss: Any) -> Any:
    for p in params:
        p.grad = None
    loss()[0].backward()
    facula.graph.record.flush(facula.graph.record.recorder(), True)
    return [p.grad for p in params]


def torch_product(options: dict[str, Any]) -> Subject:
    """torch.func's product: `jvp`, the loss's curvature, `vjp`.

    kind "whole"       everything in one function, under torch.compile with `compiled`
    kind "linearised"  torch.func.linearize and vjp taken once, their maps applied
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
    torch.set_num_threads(options["threads"])
    model, x, flat = _network(torch, options["batch"])
    names = [k for k, _ in model.named_parameters()]
    params = {k: p.detach() for k, p in model.named_parameters()}
    parts = flat.split([p.numel() for p in params.values()])
    v = {k: part.reshape(p.shape) for (k, p), part in zip(params.items(), parts)}

    def forward(p: Any) -> Any:
        return torch.func.functional_call(model, p, (x,))

    def outer(z: Any) -> Any:
        return cross_entropy(z, x)

    def numbers(out: Any) -> np.ndarray:
        return np.concatenate([out[k].detach().numpy().ravel() for k in names])

    if options["kind"] == "whole":
        def product(p: Any, v: Any) -> Any:
            z, dz = torch.func.jvp(forward, (p,), (v,))
            _, hz = torch.func.jvp(torch.func.grad(outer), (z,), (dz,))
            _, back = torch.func.vjp(forward, p)
            return back(hz)[0]

        made = torch.compile(product) if options["compiled"] else product
        return Subject(lambda: made(params, v), numbers)
    z, push = torch.func.linearize(forward, params)
    _, back = torch.func.vjp(forward, params)
    _, bend = torch.func.linearize(torch.func.grad(outer), z)
    return Subject(lambda: back(bend(push(v)))[0], numbers)


def contenders(batch: int, quick: bool) -> list[Contender]:
    b = {"batch": batch}
    found = [
        Contender("facula Gauss-Newton product", "facula_product", {**b, "kind": "newton"}),
        Contender("facula Hessian product", "facula_product", {**b, "kind": "hessian"}),
        Contender("facula gradient", "facula_product", {**b, "kind": "gradient"}),
        Contender("torch.func under torch.compile", "torch_product",
                  {**b, "kind": "whole", "compiled": True}),
        Contender("torch.func", "torch_product", {**b, "kind": "whole", "compiled": False}),
        Contender("torch.func, linearised once", "torch_product", {**b, "kind": "linearised"}),
    ]
    return [c for c in found if not (quick and c.options.get("compiled"))]


def main() -> None:
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=9)
        parser.add_argument("--batch", type=int, default=1024)

    b = Benchmark(
        __file__, "Gauss-Newton product, 784-1000-500-250-30 autoencoder, float32",
        "One product of the Gauss-Newton matrix of the cross-entropy of reconstruction with a "
        "vector, with what does not depend on the vector computed before where the contender can "
        "keep it; beside it one Hessian product and one gradient. The error is relative to "
        "float64, by hand.", arguments)
    batch = 64 if b.quick else b.args.batch
    want = exact(batch)
    with tempfile.TemporaryDirectory() as folder:
        def check(label: str, worker: Worker) -> float | None:
            if "Hessian" in label:
                return None
            path = f"{folder}/result.npy"
            worker.call("result", path)
            right = want["gradient" if "gradient" in label else "product"]
            error = float(np.linalg.norm(np.load(path) - right) / np.linalg.norm(right))
            if not error < 1e-3:
                raise SystemExit(f"{label}: wrong result: relative error {error:.1e}")
            return error

        rows = b.compare(contenders(batch, b.quick), b.args.rounds, check=check, unit="ms",
                         per="product", floors=[
                             "facula Gauss-Newton product", "facula Hessian product",
                             "facula gradient"])
    ours = rows["facula Gauss-Newton product"].median
    gradient = rows["facula gradient"].median
    b.claim("Gauss-Newton product, in gradients of our own", ours / gradient, "<=", 2.5)
    b.notes.append("Hessian product, in gradients of our own: "
                   f"{rows['facula Hessian product'].median / gradient:.2f}")
    what = "Gauss-Newton product, times as fast as torch.func under torch.compile"
    peer = rows.get("torch.func under torch.compile")
    if peer is not None:
        b.claim(what, peer.median / ours, ">=", 2.0, "x")
    else:
        b.unclaimed(what, b.missing.get("torch.func under torch.compile", "a quick run"))
    once = rows.get("torch.func, linearised once")
    if once is not None:
        b.notes.append("times as fast as torch.func, linearised once: "
                       f"{once.median / ours:.2f}")
    b.finish()


if __name__ == "__main__":
    main()
