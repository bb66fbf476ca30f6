"""Numbers drawn by rejection, element by element.  NumPy computes them; there is no compiled
kernel.

The first operand are seeds, 64 random bits for each element, so that mapping a function over a
batch, cutting one up or running it on other threads changes nothing about them.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from facula.dtype import float32, float64, uint64
from facula.errors import DTypeError
from facula.graph.spec import Spec
from facula.ops.primitive.record import Infer, Meaning, Sample, infer_same, register
from facula.ops.primitive.rules import mul, prim, zeros_like

__all__: list[str] = []


def _meaning(name: str) -> Meaning:
    def run(arrays: Sequence[np.ndarray], attrs: tuple[Any, ...], out: Spec) -> np.ndarray:
        module = importlib.import_module("facula.ops.primitive.functions.draws")
        wide = [a if a.dtype == np.uint64 else a.astype(np.float64) for a in arrays]
        with np.errstate(all="ignore"):
            return getattr(module, name)(*wide).astype(out.dtype.np).reshape(out.shape)
    return run


def _infer(name: str, count: int) -> Infer:
    rest = infer_same(name, count, "f")

    def infer(specs: Sequence[Spec], attrs: tuple[Any, ...], given: Spec | None) -> Spec:
        if not specs or specs[0].dtype is not uint64:
            raise DTypeError(f"{name}: the first operand are seeds, a uint64 tensor")
        out = rest(specs[1:], attrs, given)
        if specs[0].shape != out.shape:
            raise DTypeError(f"{name}: there has to be a seed for each element")
        return out
    return infer


def _samples(*bounds: tuple[float, float], whole: bool = False) -> Any:
    """Seeds and parameters within bounds; the first parameter in whole numbers if `whole`."""
    def samples(make: Any) -> list[Sample]:
        rng = np.random.default_rng(5)
        found = []
        for dtype in (float64, float32):
            for shape in ((3, 4), (), (0, 2)):
                seeds = rng.integers(0, 1 << 64, shape, np.uint64, endpoint=False)
                values = [np.asarray(rng.uniform(low, high, shape)) for low, high in bounds]
                if whole:
                    values[0] = np.floor(values[0])
                found.append(Sample((np.asarray(seeds), *(np.asarray(v.astype(dtype.np))
                                                          for v in values))))
        return found
    return samples


def _gamma_vjp(c: Any, g: Any) -> tuple[Any, ...]:
    return None, mul(g, prim("gamma_slope", c.inputs[1], c.out))


def _gamma_jvp(c: Any, tangents: tuple[Any, ...]) -> Any:
    t = tangents[1]
    return zeros_like(c.out) if t is None else mul(t, prim("gamma_slope", c.inputs[1], c.out))


register("draw_gamma", "drawn", _infer("draw_gamma", 1), _meaning("draw_gamma"),
         vjp=_gamma_vjp, jvp=_gamma_jvp, saves=("in1", "out"), samples=_samples((0.2, 5)))
register("gamma_slope", "special", infer_same("gamma_slope", 2, "f"), _meaning("gamma_slope"),
         samples=lambda make: [Sample(s.arrays[1:]) for s in _samples((0.3, 5), (-3, 2))(make)])
register("draw_poisson", "drawn", _infer("draw_poisson", 1), _meaning("draw_poisson"),
         samples=_samples((0.2, 25)))
register("draw_binomial", "drawn", _infer("draw_binomial", 2), _meaning("draw_binomial"),
         samples=_samples((1, 60), (0.1, 0.9), whole=True))
register("draw_von_mises", "drawn", _infer("draw_von_mises", 1), _meaning("draw_von_mises"),
         samples=_samples((0.1, 9)))
