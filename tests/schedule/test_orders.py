"""Orders and the places of extremes, compiled, against NumPy's stable order of the same values."""

from __future__ import annotations

import numpy as np
import pytest

import facula
from facula.config import override

SHAPES = [(7,), (5, 50), (3, 4, 40), (2, 300), (1, 1), (2, 2), (5000,)]


def _values(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(len(shape))
    if kind == "normal":
        return rng.standard_normal(shape).astype(np.float32)
    if kind == "odd":                           # many that are equal, zeros of both signs, NaN
        x = np.round(2 * rng.standard_normal(shape)).astype(np.float32)
        for value in (-0.0, np.inf, -np.inf, np.nan):
            x[rng.random(shape) < 0.1] = value
        return x
    if kind == "ends":
        return np.resize(np.array([-2 ** 31, 2 ** 31 - 1, 0, -1, 5], np.int32), shape)
    if kind == "float64":
        return np.round(3 * rng.standard_normal(shape), 1)
    return rng.integers(0, 100, shape).astype(kind)


def _order(x: np.ndarray, axis: int, descending: bool) -> np.ndarray:
    """Element by element: (rank, place), where NaN is the largest."""
    x = x.astype(np.float64) if x.dtype.kind == "f" else x.astype(object)
    x = np.where(np.isnan(x.astype(np.float64)), np.inf, x + 0), np.isnan(x.astype(np.float64))
    lines = np.moveaxis(x[0], axis, -1), np.moveaxis(x[1], axis, -1)
    out = np.empty(lines[0].shape, np.int64)
    for at in np.ndindex(lines[0].shape[:-1]):
        keys = list(zip(lines[1][at].tolist(), lines[0][at].tolist(), strict=True))
        out[at] = sorted(range(len(keys)), key=keys.__getitem__, reverse=descending)
    return np.moveaxis(out, -1, axis)


@pytest.mark.parametrize(("kind", "shape"), [
    *((kind, shape) for kind in ("normal", "odd") for shape in SHAPES),
    *((kind, (2, 300)) for kind in ("ends", "float64", "int8", "uint32", "int64", "float16"))])
def test_orders(kind, shape):
    x = _values(kind, shape)
    with override(INTERPRET=False):
        t = facula.tensor(x)
        for axis in range(x.ndim):
            n = shape[axis]
            for descending in (False, True):
                want = _order(x, axis, descending)
                values, index = t.sort(axis, descending)
                assert np.array_equal(index.numpy(), want)
                assert np.array_equal(values.numpy(), np.take_along_axis(x, want, axis),
                                      equal_nan=x.dtype.kind == "f")
                for k in sorted({1, min(2, n), min(5, n), n}):
                    part = np.take(want, np.arange(k), axis)
                    assert np.array_equal(t.topk(k, axis, descending).indices.numpy(), part)
            want = _order(x, axis, False)
            middle = (n - 1) // 2
            assert np.array_equal(t.kthvalue(middle + 1, axis).indices.numpy(),
                                  np.take(want, middle, axis))


@pytest.mark.parametrize(("kind", "shape"), [
    *((kind, shape) for kind in ("odd",) for shape in [*SHAPES, (1, 70000)]),
    *((kind, (2, 300)) for kind in ("ends", "float64", "uint8", "int64", "float16"))])
def test_places_of_extremes(kind, shape):
    x = _values(kind, shape)
    with override(INTERPRET=False):
        t = facula.tensor(x)
        for axis in range(x.ndim):
            assert np.array_equal(t.argmax(axis).numpy(), np.argmax(x, axis))
            assert np.array_equal(t.argmin(axis).numpy(), np.argmin(x, axis))
            values, index = t.max(axis)
            assert np.array_equal(index.numpy(), np.argmax(x, axis))
            assert np.array_equal(values.numpy(), x.max(axis), equal_nan=x.dtype.kind == "f")


def test_gradients_go_to_what_was_chosen():
    x = facula.tensor(np.random.default_rng(0).standard_normal((3, 400)).astype(np.float32),
                      requires_grad=True)
    with override(INTERPRET=False):
        x.topk(3).values.sum().backward()
    want = np.zeros((3, 400), np.float32)
    np.put_along_axis(want, np.argsort(-x.detach().numpy(), 1)[:, :3], 1, 1)
    assert np.array_equal(x.grad.numpy(), want)


def test_the_same_on_any_number_of_threads():
    x = facula.tensor(np.random.default_rng(0).integers(0, 9, (300, 500)).astype(np.int32))
    before = facula.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            facula.set_num_threads(threads)
            found.append(x.argsort(1).numpy())
    finally:
        facula.set_num_threads(before)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
