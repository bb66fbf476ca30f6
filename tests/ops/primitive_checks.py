"""Checks of single primitives: derivatives by recording against differences of NumPy meanings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import facula.graph.flush  # noqa: F401  (makes pending values computable)
from facula.autograd import grad
from facula.autograd.rules import Context
from facula.dtype import DType, float64, from_numpy_dtype
from facula.graph.record import Node
from facula.graph.spec import spec
from facula.ops.table import PRIMS, Sample
from facula.runtime.allocator import from_numpy_private
from facula.tensor import Tensor, make, prim

EPS = 1e-6


def tensor(array: Any, requires_grad: bool = False) -> Tensor:
    """A tensor with the content of an ndarray."""
    array = np.asarray(array)
    node = Node((None, -1), spec(array.shape, from_numpy_dtype(array.dtype)),
                from_numpy_private(array))
    t = make(node)
    return t.requires_grad_() if requires_grad else t


def maker(dtype: DType = float64, seed: int = 0, integers: bool = False) -> Callable[..., Any]:
    """`make(*shape)` for samples: values away from zero and from each other, or small integers."""
    rng = np.random.default_rng(seed)

    def make_(*shape: int, dtype: DType = dtype, **_: Any) -> np.ndarray:
        n = int(np.prod(shape))
        if integers:
            return rng.integers(-2, 3, shape).astype(dtype.np)
        spread = (rng.permutation(n) + rng.uniform(0.2, 0.8, n)) / max(n, 1)
        values = (0.3 + 1.7 * spread) * rng.choice([-1.0, 1.0], n)
        if dtype.kind == "c":
            values = values + 1j * rng.uniform(-1.0, 1.0, n)
        return values.reshape(shape).astype(dtype.np)
    return make_


def meaning(name: str, arrays: Sequence[np.ndarray], sample: Sample) -> np.ndarray:
    """The NumPy meaning of a primitive on these arrays, checked against its inferred spec."""
    specs = [spec(a.shape, from_numpy_dtype(a.dtype)) for a in arrays]
    given = None
    if sample.shape is not None or sample.dtype is not None:
        given = spec(specs[0].shape if sample.shape is None else sample.shape,
                     sample.dtype or specs[0].dtype)
    out = PRIMS[name].infer(specs, sample.attrs, given)
    with np.errstate(all="ignore"):
        result = np.asarray(PRIMS[name].numpy(arrays, sample.attrs, out))
    assert result.shape == out.shape and result.dtype == out.dtype.np
    return result


def _directions(rng: Any, arrays: Sequence[np.ndarray]) -> list[np.ndarray | None]:
    """A random direction for every array that can have a gradient."""
    found: list[np.ndarray | None] = []
    for a in arrays:
        if a.dtype.kind == "c":
            found.append((rng.normal(size=a.shape)
                          + 1j * rng.normal(size=a.shape)).astype(a.dtype))
        else:
            found.append(rng.normal(size=a.shape).astype(a.dtype) if a.dtype.kind == "f" else None)
    return found


def _moved(arrays: Sequence[np.ndarray], directions: Sequence[Any], by: float) -> list[np.ndarray]:
    return [a if d is None else a + by * d for a, d in zip(arrays, directions)]


def _product(a: Any, b: Any) -> float:
    """The real inner product, of complex values too (PyTorch's convention for gradients)."""
    return float(np.sum(np.conj(a) * b).real)


def check_derivatives(name: str, sample: Sample, tolerance: float = 1e-6) -> None:
    """vjp, jvp and the vjp's own vjp of one sample against central differences."""
    rng = np.random.default_rng(1)
    arrays = sample.arrays
    directions = _directions(rng, arrays)

    def record(inputs: Sequence[Tensor]) -> Tensor:
        return prim(name, *inputs, attrs=sample.attrs, shape=sample.shape, dtype=sample.dtype)

    inputs = [tensor(a, d is not None) for a, d in zip(arrays, directions)]
    wanted = [t for t in inputs if t.requires_grad]
    moving = [d for d in directions if d is not None]
    out = record(inputs)
    weight = _directions(rng, [out._peek()])[0]
    slope = (meaning(name, _moved(arrays, directions, EPS), sample)
             - meaning(name, _moved(arrays, directions, -EPS), sample)) / (2 * EPS)

    # out is recorded anew: asking for its value has run it already, which is another path.
    for output in (out, record(inputs)):
        g = tensor(weight, True)
        grads = grad([output], wanted, [g], create_graph=True, allow_unused=True)
        first = sum(_product(x._peek(), d) for x, d in zip(grads, moving) if x is not None)
        expected = _product(weight, slope)
        assert abs(first - expected) <= tolerance * (1 + abs(expected)), (name, sample.attrs)

        # The gradients are functions of the inputs and of g: their derivatives likewise.
        chosen = [(x, d) for x, d in zip(grads, moving) if x is not None and x.requires_grad]
        if chosen:
            second = grad([x for x, _ in chosen], [*wanted, g],
                          [tensor(d) for _, d in chosen], allow_unused=True)
            step = _directions(rng, [weight])[0]

            def inner(by: float) -> float:
                here = [tensor(a, d is not None)
                        for a, d in zip(_moved(arrays, directions, by), directions)]
                there = grad([record(here)], [t for t in here if t.requires_grad],
                             [tensor(weight + by * step)], allow_unused=True)
                return sum(_product(x._peek(), d) for x, d in zip(there, moving) if x is not None)
            expected = (inner(EPS) - inner(-EPS)) / (2 * EPS)
            got = sum(_product(x._peek(), d) for x, d in zip(second, [*moving, step])
                      if x is not None)
            assert abs(got - expected) <= 100 * tolerance * (1 + abs(expected)), (name, sample)

    plain = [tensor(a) for a in arrays]
    context = Context(tuple(plain), record(plain), sample.attrs, tuple([False] * len(plain)))
    rule = PRIMS[name].jvp
    assert rule is not None
    tangents = tuple([None if d is None else tensor(d) for d in directions])
    np.testing.assert_allclose(rule(context, tangents)._peek(), slope, rtol=1e-5, atol=1e-6)
    # A tangent of one operand alone.
    for k, d in enumerate(directions):
        if d is None or len(moving) == 1:
            continue
        alone = [None] * len(directions)
        alone[k] = d
        expected = (meaning(name, _moved(arrays, alone, EPS), sample)
                    - meaning(name, _moved(arrays, alone, -EPS), sample)) / (2 * EPS)
        one = tuple([t if i == k else None for i, t in enumerate(tangents)])
        np.testing.assert_allclose(rule(context, one)._peek(), expected, rtol=1e-5, atol=1e-6)
