"""The array API standard: the namespace, and where it differs from PyTorch's functions.

NumPy follows the standard itself and is what the results are compared with.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import facula
import facula.array_api as xp

RNG = np.random.default_rng(7)

# One call of each function that has a counterpart in NumPy: name, arguments.
A = RNG.normal(size=(3, 4)).astype(np.float32)
B = RNG.normal(size=(4,)).astype(np.float32)
C = (RNG.normal(size=(3, 4)) + 1j * RNG.normal(size=(3, 4))).astype(np.complex64)
I = RNG.integers(-5, 6, (3, 4))
M = RNG.integers(0, 2, (3, 4)).astype(bool)
POSITIVE = np.abs(A) + 0.5

UNARY = {"abs": A, "acos": A / 4, "acosh": POSITIVE + 1, "asin": A / 4, "asinh": A, "atan": A,
         "atanh": A / 4, "bitwise_invert": I, "ceil": A, "conj": C, "cos": A, "cosh": A, "exp": A,
         "expm1": A, "floor": A, "imag": C, "isfinite": A, "isinf": A, "isnan": A,
         "log": POSITIVE, "log1p": POSITIVE, "log2": POSITIVE, "log10": POSITIVE,
         "logical_not": M, "negative": A, "positive": A, "real": C, "reciprocal": POSITIVE,
         "round": A, "sign": A, "signbit": A, "sin": A, "sinh": A, "sqrt": POSITIVE, "square": A,
         "tan": A, "tanh": A, "trunc": A}
BINARY = {"add": (A, B), "atan2": (A, B), "bitwise_and": (I, 3), "bitwise_left_shift": (I, 2),
          "bitwise_or": (I, 3), "bitwise_right_shift": (I, 2), "bitwise_xor": (I, 3),
          "copysign": (A, -1.0), "divide": (A, B), "equal": (I, I.T.copy().reshape(3, 4)),
          "floor_divide": (A, B), "greater": (A, B), "greater_equal": (I, 2), "hypot": (A, B),
          "less": (A, 0.5), "less_equal": (I, 2), "logaddexp": (A, B), "logical_and": (M, True),
          "logical_or": (M, M[0]), "logical_xor": (M, M[0]), "maximum": (A, 0.0),
          "minimum": (A, B), "multiply": (A, B), "nextafter": (A, B), "not_equal": (I, 2),
          "pow": (POSITIVE, B), "remainder": (I, 3), "subtract": (A, B)}
OTHERS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "all": ((M,), {"axis": 0}), "any": ((M,), {"axis": (0, 1)}),
    "argmax": ((A,), {"keepdims": True}), "argmin": ((A,), {"axis": 1}),
    "argsort": ((I,), {"axis": 0, "stable": True}), "clip": ((A, -0.5, B), {}),
    "concat": (([A.astype(np.float64), A],), {"axis": None}),
    "count_nonzero": ((I,), {"axis": 1, "keepdims": True}),
    "cumulative_prod": ((A,), {"axis": 1, "include_initial": True}),
    "cumulative_sum": ((I.astype(np.int8),), {"axis": 0}), "diff": ((A,), {"axis": 0, "n": 2}),
    "expand_dims": ((A,), {"axis": (0, 3)}), "flip": ((A,), {"axis": None}),
    "isin": ((I, I[0]), {"invert": True}), "matmul": ((A, A.T.copy()), {}),
    "matrix_transpose": ((A,), {}), "max": ((A,), {"axis": (0, 1)}),
    "mean": ((A,), {"axis": (0, 1), "keepdims": True}), "min": ((A,), {"axis": 0}),
    "moveaxis": ((A, 0, 1), {}), "permute_dims": ((A, (1, 0)), {}),
    "prod": ((A,), {"axis": (0, 1), "keepdims": True}), "repeat": ((A, 2), {"axis": 1}),
    "reshape": ((A, (2, 6)), {"copy": True}), "roll": ((A, 2), {}),
    "searchsorted": ((np.sort(B), A), {"side": "right"}),
    "sort": ((A,), {"axis": 0, "descending": False}), "squeeze": ((A[:1],), {"axis": 0}),
    "stack": (([I.astype(np.int8), I],), {"axis": 2}), "std": ((A,), {"correction": 0.5}),
    "sum": ((I.astype(np.uint8),), {"axis": 1}), "take": ((A, np.array([1, -1, 0])), {"axis": 1}),
    "take_along_axis": ((A, np.argsort(A, 0)), {"axis": 0}), "tensordot": ((A, A.T.copy()), {
        "axes": 1}), "tile": ((A, (2, 1, 2)), {}), "tril": ((A,), {"k": 1}),
    "triu": ((A,), {"k": -1}), "unique_values": ((I,), {}), "unstack": ((A,), {"axis": 1}),
    "var": ((A,), {"axis": 0, "correction": 1.0}), "vecdot": ((C, C), {"axis": 0}),
    "where": ((M, A, 2), {}), "broadcast_to": ((B, (3, 4)), {}), "nonzero": ((I,), {})}


def _ours(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return xp.asarray(value, copy=True)
    if isinstance(value, list):
        return [_ours(v) for v in value]
    return value


def _same(got: Any, want: Any) -> None:
    if isinstance(want, tuple):
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            _same(g, w)
        return
    want = np.asarray(want)
    assert tuple(got.shape) == want.shape
    assert got.dtype.name == want.dtype.name
    np.testing.assert_allclose(got.numpy(), want, rtol=2e-5, atol=1e-6)


# What NumPy has under another name, or not in the oldest version that is supported.
_NUMPY = {"conj": np.conj, "reciprocal": lambda x: 1 / x, "clip": lambda x, a, b: np.clip(x, a, b),
          "concat": lambda xs, axis: np.concatenate([x.reshape(-1) for x in xs]),
          "cumulative_prod": lambda x, axis, include_initial: np.concatenate(
              [np.ones_like(x[:, :1]), np.cumprod(x, axis)], axis),
          "cumulative_sum": lambda x, axis: np.cumsum(x, axis, dtype=np.int64),
          "argsort": lambda x, axis, stable: np.argsort(x, axis, kind="stable"),
          "matrix_transpose": lambda x: x.T, "permute_dims": np.transpose,
          "reshape": lambda x, shape, copy: x.reshape(shape),
          "sort": lambda x, axis, descending: np.sort(x, axis), "std": lambda x, correction:
              np.sqrt(np.square(x - x.mean()).sum() / np.float32(x.size - correction)),
          "sum": lambda x, axis: np.sum(x, axis, dtype=np.uint64),
          "unique_values": np.unique, "unstack": lambda x, axis: tuple(np.moveaxis(x, axis, 0)),
          "var": lambda x, axis, correction: np.var(x, axis, ddof=1),
          "vecdot": lambda a, b, axis: (a.conj() * b).sum(axis),
          "isin": lambda a, b, invert: np.isin(a, b, invert=invert),
          "where": lambda c, a, b: np.where(c, a, np.float32(b)),
          "acos": np.arccos, "acosh": np.arccosh, "asin": np.arcsin, "asinh": np.arcsinh,
          "atan": np.arctan, "atanh": np.arctanh, "bitwise_invert": np.invert,
          "atan2": np.arctan2, "bitwise_left_shift": np.left_shift,
          "bitwise_right_shift": np.right_shift, "pow": np.power}

CALLS = {**{n: ((x,), {}) for n, x in UNARY.items()}, **{n: (p, {}) for n, p in BINARY.items()},
         **OTHERS}


@pytest.mark.parametrize("name", CALLS)
def test_against_numpy(name: str) -> None:
    args, kwargs = CALLS[name]
    want = _NUMPY.get(name) or getattr(np, name)
    _same(getattr(xp, name)(*map(_ours, args), **kwargs), want(*args, **kwargs))


def test_the_namespace_is_found_from_a_tensor() -> None:
    x = facula.ones(2, 3)
    assert x.__array_namespace__() is xp
    assert x.__array_namespace__(api_version="2023.12") is xp
    with pytest.raises(ValueError, match=r"not '1999\.1'"):
        x.__array_namespace__(api_version="1999.1")
    assert x.to_device(x.device) is x
    with pytest.raises(ValueError, match="no streams"):
        x.to_device("cpu", stream=1)


def test_every_name_is_there_and_documented() -> None:
    for name in xp.__all__:
        found = getattr(xp, name)
        if inspect.isfunction(found):
            assert found.__doc__, name


def test_zero_dimensions_promote_like_any_array() -> None:
    small, wide = xp.asarray([1, 2], dtype=xp.int8), xp.asarray(3, dtype=xp.int32)
    assert (small + wide).dtype is facula.int8                # PyTorch's rule
    assert xp.add(small, wide).dtype is xp.int32              # the standard's
    assert xp.add(small, 300 - 299).dtype is xp.int8
    assert xp.result_type(xp.float32, 1j) is xp.complex64
    assert xp.result_type(xp.bool, 2) is xp.int64
    with pytest.raises(ValueError, match="at least one array"):
        xp.result_type(1, 2.0)


def test_no_axes_reduce_nothing() -> None:
    x = xp.asarray(A)
    for name in ("sum", "prod", "mean", "max", "min"):
        _same(getattr(xp, name)(x, axis=()), A)
    _same(xp.var(x, axis=()), np.zeros_like(A))
    _same(xp.any(xp.asarray(I), axis=()), I != 0)


@pytest.mark.parametrize("call", [
    lambda x: xp.sum(x, axis=2), lambda x: xp.expand_dims(x, axis=4),
    lambda x: xp.flip(x, axis=-3)])
def test_axes_out_of_range(call: Any) -> None:
    with pytest.raises(IndexError, match="out of range"):
        call(xp.asarray(A))


def test_refusals() -> None:
    x = xp.asarray(A)
    for call in (lambda: xp.squeeze(x, axis=0), lambda: xp.sum(x, axis=(0, 0)),
                 lambda: xp.cumulative_sum(x), lambda: xp.nonzero(xp.asarray(1)),
                 lambda: xp.isdtype(xp.int8, "small"), lambda: xp.take(x, xp.asarray([0])),
                 lambda: xp.linalg.vecdot(x, x[:, :2]), lambda: xp.linalg.cross(x, x),
                 lambda: xp.meshgrid(x[0], xp.asarray([1])), lambda: xp.arange(3, step=0),
                 lambda: xp.reshape(xp.matrix_transpose(x), (12,), copy=False),
                 lambda: xp.matrix_transpose(x[0])):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(TypeError, match="imaginary"):
        xp.astype(xp.asarray(C), xp.float32)


def test_creation() -> None:
    _same(xp.eye(3, 4, k=1, dtype=xp.int32), np.eye(3, 4, 1, np.int32))
    _same(xp.linspace(0, 1, 4, endpoint=False), np.linspace(0, 1, 4, False, dtype=np.float32))
    _same(xp.linspace(0, 2j, 3), np.linspace(0, 2j, 3).astype(np.complex64))
    _same(xp.arange(5, 1), np.arange(5, 1))
    _same(xp.arange(5, 1, -1.5, dtype=xp.float64), np.arange(5, 1, -1.5))
    _same(xp.meshgrid(xp.asarray([1, 2, 3]), xp.asarray([4, 5])),
          tuple(np.meshgrid([1, 2, 3], [4, 5])))
    assert xp.full(3, True).dtype is xp.bool


def test_unique() -> None:
    x = xp.asarray(np.float32([[2, np.nan, 2], [1, np.nan, -0.0]]))
    values, first, inverse, counts = xp.unique_all(x)
    assert values.shape == (5,) and counts.numpy().tolist() == [1, 1, 2, 1, 1]
    assert inverse.shape == x.shape and first.dtype is xp.int64
    _same(values[xp.reshape(inverse, (-1,))], x.numpy().reshape(-1))
    assert xp.unique_counts(x).counts.shape == xp.unique_inverse(x).values.shape == (5,)


def test_dtypes() -> None:
    info = xp.__array_namespace_info__()
    assert info.default_dtypes()["real floating"] is xp.float32
    assert set(info.dtypes(kind=("bool", "unsigned integer"))) == {
        "bool", "uint8", "uint16", "uint32", "uint64"}
    assert info.dtypes(kind="numeric").keys() == info.dtypes().keys() - {"bool"}
    assert info.devices() == (info.default_device(),)
    assert info.capabilities()["boolean indexing"]
    assert xp.finfo(xp.complex64).dtype is xp.float32
    assert xp.iinfo(xp.asarray([1], dtype=xp.uint8)).max == 255
    assert xp.can_cast(xp.int8, xp.int16) and not xp.can_cast(xp.int64, xp.uint8)
    assert not xp.can_cast(xp.uint64, xp.int8)


def test_linalg_and_fft() -> None:
    m = RNG.normal(size=(2, 3, 3))
    _same(xp.linalg.solve(xp.asarray(m), xp.asarray(m[0])), np.linalg.solve(m, m[0][None]))
    _same(xp.linalg.trace(xp.asarray(m), offset=1), np.trace(m, 1, -2, -1))
    _same(xp.linalg.vector_norm(xp.asarray(m), axis=(0, 2), ord=3),
          (np.abs(m) ** 3).sum((0, 2)) ** (1 / 3))
    _same(xp.linalg.vector_norm(xp.asarray(m), axis=(), ord=0), np.ones_like(m))
    q, r = xp.linalg.qr(xp.asarray(m))
    _same(xp.matmul(q, r), m)
    _same(xp.fft.rfft(xp.asarray(m), axis=1), np.fft.rfft(m, axis=1))
    _same(xp.fft.fftfreq(5, d=0.5, dtype=xp.float64), np.fft.fftfreq(5, 0.5))


def test_gradients_flow() -> None:
    x = facula.tensor(A, requires_grad=True)
    xp.sum(xp.multiply(x, x), axis=(0, 1)).backward()
    _same(x.grad, 2 * A)
