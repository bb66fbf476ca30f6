"""Movement, contraction and sorting primitives: meanings, errors and derivatives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from primitive_checks import check_derivatives, maker, meaning, tensor

from facula.autograd import grad
from facula.dtype import DTYPES, float64
from facula.graph.spec import spec
from facula.ops.primitive.movement import flat_positions, overlaps
from facula.ops.table import PRIMS, Sample
from facula.tensor import prim

F64, C128 = DTYPES["float64"], DTYPES["complex128"]
NAMES = [p.name for p in PRIMS.values() if p.kind in ("movement", "contract")]


@pytest.mark.parametrize("dtype", [F64, C128], ids=lambda d: d.name)
@pytest.mark.parametrize("name", NAMES)
def test_derivatives(name: str, dtype: Any) -> None:
    for sample in PRIMS[name].samples(maker(dtype)):
        check_derivatives(name, sample)


@pytest.mark.parametrize("dtype", list(DTYPES.values()), ids=lambda d: d.name)
@pytest.mark.parametrize("name", [*NAMES, "argsort"])
def test_every_dtype_has_the_inferred_spec(name: str, dtype: Any) -> None:
    if name == "argsort" and dtype.kind == "c":
        pytest.skip("complex numbers have no order")
    if name == "matmul" and dtype.name.startswith("float8"):
        pytest.skip("8 bits are kept and converted, not computed with")
    for sample in PRIMS[name].samples(maker(dtype, integers=True)):
        meaning(name, sample.arrays, sample)


@pytest.mark.parametrize("name", NAMES)
def test_samples_recorded_and_computed(name: str) -> None:
    for sample in PRIMS[name].samples(maker()):
        out = prim(name, *[tensor(a) for a in sample.arrays], attrs=sample.attrs,
                   shape=sample.shape, dtype=sample.dtype)
        expected = meaning(name, sample.arrays, sample)
        if name == "matmul" and expected.dtype.kind in "fc":     # the order of a sum is free
            np.testing.assert_allclose(out._peek(), expected, rtol=1e-12)
        else:
            np.testing.assert_array_equal(out._peek(), expected, strict=True)


def test_slice_is_pythons() -> None:
    x = np.arange(24.0).reshape(4, 6)
    for rows in (slice(None), slice(3, None, -1), slice(1, 4, 2), slice(2, 2)):
        for columns in (slice(None, None, -2), slice(0, 5, 3), slice(5, 6)):
            expected = x[rows, columns]
            starts, steps = zip(*[(s.indices(n)[0], s.indices(n)[2])
                                  for s, n in zip((rows, columns), x.shape)])
            sample = Sample((x,), (starts, steps), shape=expected.shape)
            np.testing.assert_array_equal(meaning("slice", (x,), sample), expected, strict=True)


def test_as_strided_against_torch() -> None:
    torch = pytest.importorskip("torch")
    for x, shape, strides, offset in ((np.arange(12.0), (3, 4), (2, 1), 1),
                                      (np.arange(12.0).reshape(3, 4), (2, 2, 2), (0, 3, 1), 2),
                                      (np.arange(12.0), (5,), (0,), 3)):
        t = torch.tensor(x, requires_grad=True)
        weight = np.random.default_rng(0).normal(size=shape)
        theirs = torch.as_strided(t, shape, strides, offset)
        theirs.backward(torch.tensor(weight))
        mine = tensor(x, True)
        out = prim("as_strided", mine, attrs=(strides, offset), shape=shape)
        (g,) = grad([out], [mine], [tensor(weight)])
        np.testing.assert_array_equal(out._peek(), theirs.detach().numpy())
        np.testing.assert_allclose(g._peek(), t.grad.numpy(), rtol=1e-12)


def test_overlap() -> None:
    rng = np.random.default_rng(0)
    certain = 0
    for _ in range(300):
        ndim = int(rng.integers(0, 4))
        shape = tuple(rng.integers(0, 4, ndim).tolist())
        strides = tuple(rng.integers(-5, 9, ndim).tolist())
        places = np.zeros(shape, np.int64)
        for axis, (n, s) in enumerate(zip(shape, strides)):
            places = places + (np.arange(n) * s).reshape((-1,) + (1,) * (ndim - 1 - axis))
        if not overlaps(strides, shape):
            certain += 1
            assert np.unique(places).size == places.size
        np.testing.assert_array_equal(flat_positions(strides, 3, shape)._peek(), places + 3)
    assert certain > 50
    assert not overlaps((4, 1), (3, 4)) and overlaps((1, 1), (2, 2))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_narrow_matmul_rounds_once(name: str) -> None:
    dtype = DTYPES[name].np
    rng = np.random.default_rng(0)
    a = rng.normal(size=(3, 200)).astype(dtype)
    b = rng.normal(size=(200, 4)).astype(dtype)
    expected = (a.astype(np.float32) @ b.astype(np.float32)).astype(dtype)
    got = meaning("matmul", (a, b), Sample((a, b)))
    np.testing.assert_array_equal(got.astype(np.float32), expected.astype(np.float32))


def test_integer_matmul_wraps_and_bool_is_any_of_and() -> None:
    a = np.array([[100, 100]], np.int8)
    assert meaning("matmul", (a, a.T), Sample((a, a.T)))[0, 0] == np.int8(20000 & 0xFF)
    a = np.array([[True, False], [False, False]])
    np.testing.assert_array_equal(meaning("matmul", (a, a), Sample((a, a))), a)
    empty = np.zeros((2, 0), np.float32)
    np.testing.assert_array_equal(meaning("matmul", (empty, empty.T), Sample((empty, empty.T))),
                                  np.zeros((2, 2), np.float32), strict=True)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "int64", "uint8", "bool"])
def test_argsort_against_torch(name: str, descending: bool) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (4, 9)).astype(np.float32)
    if DTYPES[name].kind == "f":
        x[0, 3] = x[0, 5] = np.nan
        x[1, 2], x[1, 7], x[2, 0] = np.inf, -np.inf, -0.0
    x = x.astype(DTYPES[name].np)
    for axis in (0, 1):
        got = meaning("argsort", (x,), Sample((x,), (axis, descending)))
        theirs = torch.tensor(x.astype(np.float32)).argsort(dim=axis, descending=descending,
                                                            stable=True)
        np.testing.assert_array_equal(got, theirs.numpy())


def test_errors() -> None:
    x = spec((2, 3), float64)
    other = spec((2, 3), DTYPES["float32"])

    def infer(name: str, specs: Any, attrs: Any = (), shape: Any = None) -> None:
        PRIMS[name].infer(specs, attrs, None if shape is None else spec(shape, float64))

    for name, specs, attrs, shape, error, text in (
            ("reshape", [x], (), (4,), ValueError, "invalid for input of size 6"),
            ("reshape", [x], (), (-2, -3), ValueError, "negative"),
            ("reshape", [other], (), (6,), TypeError, "float32"),
            ("permute", [x], ((0, 0),), None, ValueError, "no order"),
            ("expand", [x], (), (4, 3), ValueError, "cannot be expanded"),
            ("slice", [x], ((0, 1), (1, 1)), (2, 3), IndexError, "dimension 1 of size 3"),
            ("slice", [x], ((0, 0), (1, 0)), (2, 3), ValueError, "step"),
            ("slice_update", [x, other], ((0, 0), (1, 1)), None, TypeError, "float32"),
            ("as_strided", [x], ((3, 1), 1), (2, 3), RuntimeError, "out of bounds for storage"),
            ("as_strided", [x], ((1,), 0), (2, 3), ValueError, "mismatch in length"),
            ("pad", [x], ((0, -1), (0, 0), 0), None, ValueError, "negative"),
            ("pad", [x], ((0,), (0,), 0), None, ValueError, "each side"),
            ("cat", [], (0,), None, RuntimeError, "non-empty"),
            ("cat", [x, x], (2,), None, IndexError, "dimension 2"),
            ("cat", [x, spec((2, 4), float64)], (0,), None, RuntimeError, "match except"),
            ("matmul", [x, x], (), None, RuntimeError, "cannot be multiplied"),
            ("matmul", [x, other], (), None, RuntimeError, "same dtype"),
            ("argsort", [x], (2, False), None, IndexError, "dimension 2"),
            ("argsort", [spec((2,), C128)], (0, False), None, TypeError, "complex128")):
        with pytest.raises(error, match=text):
            infer(name, specs, attrs, shape)


def test_pad_wraps_integers() -> None:
    x = np.array([1, 2], np.uint8)
    got = meaning("pad", (x,), Sample((x,), ((1,), (0,), -1)))
    np.testing.assert_array_equal(got, np.array([255, 1, 2], np.uint8), strict=True)
