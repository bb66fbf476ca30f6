"""Training steps of two convolutional networks: MNIST's small one, and a ResNet-18 on 32x32.

    python benchmarks/cnn.py [--quick] [--threads 2] [--rounds 9] [--only mnist] [--out FOLDER]

The small network: conv 1-32 3x3, ReLU, conv 32-64 3x3, ReLU, max-pool 2, linear 9216-128, ReLU,
linear 128-10; batch 64.  The ResNet is the one for 32x32 images (He et al. 2015 with a 3x3 first
convolution and no first pooling), batch 32, batch normalisation in training mode.  Cross-entropy
and SGD, everything float32.  All contenders start from the same weights; before anything is timed,
the losses of their first steps are held against float64 on facula's NumPy interpreter.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from harness import Benchmark, Contender, Missing, Worker

RATE = 0.01
CHECKED = 2
SHAPES = {"mnist": (64, 1, 28, 28), "resnet": (32, 3, 32, 32)}
WIDTHS = ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))


def network(nn: Any, name: str) -> Any:
    """The network in a framework whose `nn` is PyTorch's or named like it."""
    if name == "mnist":
        return nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(),
                             nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(),
                             nn.Linear(128, 10))

    class Block(nn.Module):             # type: ignore[misc, name-defined]
        def __init__(self, i: int, o: int, stride: int):
            super().__init__()
            self.conv1 = nn.Conv2d(i, o, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(o)
            self.conv2 = nn.Conv2d(o, o, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(o)
            self.relu = nn.ReLU()
            self.short = nn.Identity() if i == o and stride == 1 else nn.Sequential(
                nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

        def forward(self, x: Any) -> Any:
            y = self.relu(self.bn1(self.conv1(x)))
            return self.relu(self.bn2(self.conv2(y)) + self.short(x))

    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    i = 64
    for o, stride in WIDTHS:
        layers.append(Block(i, o, stride))
        i = o
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def data(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A batch of images and labels."""
    rng = np.random.default_rng(1)
    shape = SHAPES[name]
    return rng.standard_normal(shape).astype(np.float32), rng.integers(0, 10, shape[0])


def weights(shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Values for parameters of these shapes; a vector that follows a vector or is alone is a bias.
    """
    rng = np.random.default_rng(0)
    out: list[np.ndarray] = []
    for k, shape in enumerate(shapes):
        if len(shape) > 1:
            bound = float(np.prod(shape[1:])) ** -0.5
            out.append(rng.uniform(-bound, bound, shape).astype(np.float32))
        else:
            scale = k and len(shapes[k - 1]) == 4 and k + 1 < len(shapes) \
                and shapes[k + 1] == shape
            out.append((np.ones if scale else np.zeros)(shape, np.float32))
    return out


class Step:
    """A training loop over one batch; `once()` makes a step and gives its loss, `settle` waits for
    what is left."""

    facts: dict[str, Any] = {}

    def __init__(self, once: Callable[[], Any], settle: Callable[[Any], float]):
        self.once, self.settle = once, settle

    def one(self, k: int) -> Any:
        """Step k; its loss."""
        return self.once()

    def losses(self, n: int) -> list[float]:
        """Of the first n steps."""
        return [self.settle(self.once()) for _ in range(n)]

    def run(self, n: int) -> None:
        for _ in range(n):
            loss = self.once()
        self.settle(loss)


def facula_step(options: dict[str, Any]) -> Step:
    import facula
    facula.set_num_threads(options["threads"])
    net = network(facula.nn, options["network"])
    parameters = list(net.parameters())
    dtype = facula.float64 if options.get("exact") else facula.float32
    for p, value in zip(parameters, weights([tuple(p.shape) for p in parameters]), strict=True):
        p.data = facula.tensor(value)
    net.to(dtype)
    x, y = data(options["network"])
    images, labels = facula.tensor(x, dtype=dtype), facula.tensor(y)
    optimizer = facula.optim.SGD(net.parameters(), RATE)

    def one() -> Any:
        optimizer.zero_grad()
        loss = facula.nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    def settle(loss: Any) -> float:
        list(net.parameters())[0].sum().item()
        return float(loss.item())

    return Step(facula.compile(one) if options.get("compile") else one, settle)


def torch_step(options: dict[str, Any]) -> Step:
    try:
        import torch
    except ImportError:
        raise Missing("PyTorch is not installed") from None
    torch.set_num_threads(options["threads"])
    net = network(torch.nn, options["network"])
    parameters = list(net.parameters())
    with torch.no_grad():
        for p, value in zip(parameters, weights([tuple(p.shape) for p in parameters]),
                            strict=True):
            p.copy_(torch.from_numpy(value))
    x, y = data(options["network"])
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.SGD(net.parameters(), RATE)
    forward = torch.compile(net) if options.get("compile") else net

    def one() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return Step(one, lambda loss: float(loss.item()))


def jax_step(options: dict[str, Any]) -> Step:
    try:
        import jax
    except ImportError:
        raise Missing("JAX is not installed") from None
    import jax.numpy as jnp
    from jax import lax
    name = options["network"]

    def conv(x: Any, w: Any, stride: int, padding: int) -> Any:
        return lax.conv_general_dilated(x, w, (stride, stride), [(padding, padding)] * 2,
                                        dimension_numbers=("NCHW", "OIHW", "NCHW"))

    def mnist(p: Iterator[Any], x: Any) -> Any:
        for _ in range(2):
            x = jax.nn.relu(conv(x, next(p), 1, 0) + next(p)[None, :, None, None])
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        x = jax.nn.relu(x.reshape(x.shape[0], -1) @ next(p).T + next(p))
        return x @ next(p).T + next(p)

    def resnet(p: Iterator[Any], x: Any) -> Any:
        def layer(x: Any, stride: int, padding: int) -> Any:
            x = conv(x, next(p), stride, padding)
            mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
            gain, shift = next(p), next(p)
            x = (x - mean) * lax.rsqrt(var + 1e-5)
            return x * gain[None, :, None, None] + shift[None, :, None, None]

        x, i = jax.nn.relu(layer(x, 1, 1)), 64
        for o, stride in WIDTHS:
            y = layer(jax.nn.relu(layer(x, stride, 1)), 1, 1)
            x = jax.nn.relu(y + (x if i == o and stride == 1 else layer(x, stride, 0)))
            i = o
        return x.mean((2, 3)) @ next(p).T + next(p)

    forward = {"mnist": mnist, "resnet": resnet}[name]

    def loss_of(parameters: list[Any], x: Any, y: Any) -> Any:
        logits = jax.nn.log_softmax(forward(iter(parameters), x))
        return -jnp.take_along_axis(logits, y[:, None], 1).mean()

    @jax.jit
    def update(parameters: list[Any], x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(parameters, x, y)
        return [p - RATE * g for p, g in zip(parameters, grads)], loss

    x, y = data(name)
    images, labels = jnp.asarray(x), jnp.asarray(y)
    state = {"p": [jnp.asarray(v) for v in weights(shapes_of(name))]}

    def one() -> Any:
        state["p"], loss = update(state["p"], images, labels)
        return loss

    def settle(loss: Any) -> float:
        jax.block_until_ready(state["p"])
        return float(loss)

    return Step(one, settle)


def shapes_of(name: str) -> list[tuple[int, ...]]:
    """The shapes of a network's parameters, in PyTorch's order."""
    import facula
    return [tuple(p.shape) for p in network(facula.nn, name).parameters()]


def measure(b: Benchmark, name: str, title: str, bound: float) -> None:
    options = {"network": name}
    exact = Worker(__file__, "facula_step", {**options, "threads": b.threads, "exact": True},
                   b.threads, {"FACULA_JIT": "0"})
    try:
        want = exact.call("losses", CHECKED)
    finally:
        exact.close()

    def check(label: str, worker: Worker) -> float:
        error = max(abs(a - e) / abs(e) for a, e in zip(worker.call("losses", CHECKED), want))
        if not error < 1e-3:
            raise SystemExit(f"{label}: wrong: the first losses differ from float64 by {error:.1e}")
        return error

    rows = b.compare(
        [Contender("facula.compile", "facula_step", {**options, "compile": True}),
         Contender("facula", "facula_step", options),
         Contender("torch eager", "torch_step", options),
         Contender("torch.compile", "torch_step", {**options, "compile": True}),
         Contender("JAX jit", "jax_step", options)],
        rounds=b.args.rounds, seconds=0.3, check=check, unit="ms", prefix=title,
        floors=["facula.compile"])
    peers = [row.median for label, row in rows.items() if not label.startswith("facula")]
    if peers:
        b.claim(f"{title}: times as fast as the best peer", min(peers)
                / min(rows["facula"].median, rows["facula.compile"].median), ">=", bound, "x")
    else:
        b.unclaimed(f"{title}: times as fast as the best peer", "no peer is here")
    b.claim_loop(rows, title)


def main() -> None:
    def arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rounds", type=int, default=9)
        parser.add_argument("--only", choices=sorted(SHAPES))

    b = Benchmark(__file__, "Training steps of convolutional networks, float32",
                  "A step is the forward pass, the loss, the gradients and the SGD update of all "
                  "parameters. Medians of interleaved rounds; the error is that of the first "
                  "losses, against float64.", arguments)
    if b.args.only in (None, "mnist"):
        measure(b, "mnist", "MNIST CNN, batch 64", 1.5)
    if b.args.only == "resnet" or (b.args.only is None and not b.quick):
        measure(b, "resnet", "ResNet-18, 32x32, batch 32", 1.25)
    b.finish()


if __name__ == "__main__":
    main()
