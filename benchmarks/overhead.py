"""What Python costs: recording one operation, launching a program that is there already.

    python benchmarks/overhead.py [--quick] [--threads 2] [--out FOLDER]

Tensors are small, so that the time is that of the machinery.  Recording is timed over chains of 64
operations in a plain loop, the loop included; what they record is run outside of the timing.  A
launch is everything between asking for a recorded value and having it.  Torch's figures beside them
are those of the same chain, which it also computes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from harness import Benchmark, Contender, Row

LENGTH = 64
RECORDING = 2e-6
LAUNCH = 20e-6


def chains(torch: Any) -> dict[str, Callable[[int], Any]]:
    """By kind: what makes a chain of n operations and returns its last tensor."""
    x, w, b = torch.rand(16, 16), torch.rand(16, 16) * 0.1, torch.rand(16, 16)
    grad = torch.rand(16, 16).requires_grad_()
    exp = torch.sin

    def unary(n: int) -> Any:
        y = x
        for _ in range(n):
            y = exp(y)
        return y

    def method(n: int) -> Any:
        y = x
        for _ in range(n):
            y = y.tanh()
        return y

    def binary(n: int) -> Any:
        y = x
        for _ in range(n):
            y = y + b
        return y

    def number(n: int) -> Any:
        y = x
        for _ in range(n):
            y = y * 0.5
        return y

    def matmul(n: int) -> Any:
        y = x
        for _ in range(n):
            y = y @ w
        return y

    def history(n: int) -> Any:
        y = grad
        for _ in range(n):
            y = y * b
        return y.detach()

    return {"function of one tensor": unary, "method": method, "two tensors": binary,
            "tensor and number": number, "matrix product": matmul,
            "two tensors, gradient wanted": history}


def _settle(torch: Any, y: Any) -> None:
    y.numpy() if torch.__name__ == "torch" else y._peek()


class Recording:
    """Chains of each kind, in turn; `measure` gives seconds an operation, by kind."""

    def __init__(self, torch: Any, options: dict[str, Any]):
        torch.set_num_threads(options["threads"])
        self.torch, self.chains = torch, chains(torch)

    def measure(self, rounds: int) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {kind: [] for kind in self.chains}
        for k in range(-20, rounds):
            for kind, make in self.chains.items():
                start = time.perf_counter()
                y = make(LENGTH)
                taken = time.perf_counter() - start
                _settle(self.torch, y)
                del y
                if k >= 0:
                    found[kind].append(taken / LENGTH)
        return found


def facula_recording(options: dict[str, Any]) -> Recording:
    import facula
    return Recording(facula, options)


def torch_recording(options: dict[str, Any]) -> Recording:
    import torch
    return Recording(torch, options)


class Launch:
    """Programs that have been compiled: seconds from asking for the value to having it."""

    def __init__(self, options: dict[str, Any]):
        import facula
        facula.set_num_threads(options["threads"])
        self.facula = facula

    def measure(self, rounds: int) -> dict[str, list[float]]:
        torch = self.facula
        x, b = torch.rand(16), torch.rand(16)
        given = [torch.rand(16) for _ in range(8)]

        def one() -> Any:
            return x + b, ()

        def chain() -> Any:
            y = x
            for _ in range(20):
                y = y * b + x
            return y, ()

        def many() -> Any:
            made = [g + b for g in given]
            return made[0], made

        found: dict[str, list[float]] = {}
        for kind, make in (("one operation", one), ("40 operations, fused", chain),
                           ("8 inputs, 8 outputs", many)):
            found[kind] = taken = []
            for k in range(-50, rounds):
                y, held = make()
                start = time.perf_counter()
                y._peek()
                seconds = time.perf_counter() - start
                del y, held
                if k >= 0:
                    taken.append(seconds)
        return found

    def compiled(self, rounds: int) -> dict[str, list[float]]:
        """Calls of a function under `facula.compile`; empty where that is not there."""
        torch = self.facula
        try:
            compile_ = torch.compile
        except (AttributeError, ImportError):
            return {}
        x, b = torch.rand(16), torch.rand(16)
        f = compile_(lambda x, b: (x + b) * x)
        taken = []
        for k in range(-50, rounds):
            start = time.perf_counter()
            f(x, b)._peek()
            if k >= 0:
                taken.append(time.perf_counter() - start)
        return {"a call of a compiled function": taken}


def launch(options: dict[str, Any]) -> Launch:
    return Launch(options)


def main() -> None:
    b = Benchmark(__file__, "Recording an operation, launching a program",
                  "Microseconds of Python: of recording one operation (16 x 16 float32, in chains "
                  f"of {LENGTH}), and of running a program of 16 elements that has been compiled "
                  "before. Torch's rows are the same chains, run at once.")
    rounds = 20 if b.quick else 400
    recorded: dict[str, Row] = {}
    peers = [Contender("facula", "facula_recording"), Contender("torch eager", "torch_recording")]
    for label, worker in b.start(peers).items():
        try:
            rows = [Row(f"{label}: {kind}", taken)
                    for kind, taken in worker.call("measure", rounds).items()]
        finally:
            worker.close()
        if label == "facula":
            recorded = {r.label: r for r in rows}
        b.show(rows, per="op", prefix="one operation of a chain")
    worker = b.start([Contender("facula: launch", "launch")])["facula: launch"]
    try:
        launched = worker.call("measure", rounds)
        called = worker.call("compiled", rounds)
    finally:
        worker.close()
    rows = [Row(f"facula: {kind}", taken) for kind, taken in {**launched, **called}.items()]
    b.show(rows, per="launch", prefix="a program that is there")
    if not called:
        b.unclaimed("a call of a compiled function", "this version has no facula.compile")
    worst = max(recorded.values(), key=lambda r: r.median)
    b.claim(f"recording one operation, the dearest kind ({worst.label.split(': ')[1]})",
            worst.median * 1e6, "<=", RECORDING * 1e6, " us")
    b.claim("launching a cached program of one operation", rows[0].median * 1e6, "<=",
            LAUNCH * 1e6, " us")
    b.finish()


if __name__ == "__main__":
    main()
