"""What the benchmarks of sequence models share: compiled steps, and peers as each other's check."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from harness import Benchmark, Contender, Row, Worker
from networks import Step

__all__ = ["Checked", "assigned", "compared", "run_compiled"]


def assigned(torch: Any, model: Any, parameters: dict[str, np.ndarray]) -> None:
    """Give the parameters of a module (facula's or PyTorch's) these values."""
    with torch.no_grad():
        for name, mine in model.named_parameters():
            mine.copy_(torch.from_numpy(parameters[name].copy()))


def run_compiled(torch: Any, step: Any, options: dict[str, Any]) -> Step:
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
    rows = b.compare(contenders, b.args.rounds, seconds, check, "ms", prefix=prefix)
    ours = [r for label, r in rows.items() if label.startswith("facula")]
    peers = [r for label, r in rows.items() if not label.startswith("facula")]
    if not peers:
        b.unclaimed(prefix, "no peer was run")
        return rows
    mine, best = (min(x, key=lambda r: r.median) for x in (ours, peers))
    b.claim(f"{prefix}: {mine.label}, times as fast as the best peer ({best.label})",
            best.median / mine.median, ">=", bound, "x")
    return rows
