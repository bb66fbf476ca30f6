"""Primitives that read and write by index tensors, against plain loops and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from primitive_checks import check_derivatives, maker, meaning, tensor

from facula.autograd import grad
from facula.config import override
from facula.dtype import DTYPES
from facula.graph.spec import spec
from facula.ops.primitive.indexing import MODES
from facula.ops.table import PRIMS, Sample
from facula.tensor import prim

NAMES = ["take", "gather", "scatter", "index_put"]
F64, C128, I64 = DTYPES["float64"], DTYPES["complex128"], DTYPES["int64"]


@pytest.mark.parametrize("dtype", [F64, C128], ids=lambda d: d.name)
@pytest.mark.parametrize("name", NAMES)
def test_derivatives(name: str, dtype: Any) -> None:
    for sample in PRIMS[name].samples(maker(dtype)):
        check_derivatives(name, sample)


@pytest.mark.parametrize("dtype", list(DTYPES.values()), ids=lambda d: d.name)
@pytest.mark.parametrize("name", NAMES)
def test_every_dtype_has_the_inferred_spec(name: str, dtype: Any) -> None:
    for sample in PRIMS[name].samples(maker(dtype, integers=True)):
        meaning(name, sample.arrays, sample)


def _scatter_by_loop(base: Any, index: Any, src: Any, axis: int, mode: str) -> Any:
    out = base.copy()
    with np.errstate(all="ignore"):
        for place in np.ndindex(index.shape):
            there = (*place[:axis], index[place], *place[axis + 1:])
            old, new = out[there], src[place]
            out[there] = {"set": lambda: new, "add": lambda: old + new, "mul": lambda: old * new,
                          "amax": lambda: np.maximum(old, new),
                          "amin": lambda: np.minimum(old, new)}[mode]()
    return out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["float32", "float16", "int8", "bool"])
def test_scatter_is_a_loop_in_row_major_order(name: str, mode: str) -> None:
    rng = np.random.default_rng(0)
    for axis in (0, 1, 2):
        base = rng.normal(size=(3, 4, 3)) * 50
        shape = [2, 3, 2]
        shape[axis] = 6
        # Fortran order and a negative stride: the order of writing may not follow memory.
        index = np.asfortranarray(rng.integers(0, base.shape[axis], shape))[::-1]
        src = (rng.normal(size=shape) * 50).astype(DTYPES[name].np)
        base = base.astype(DTYPES[name].np)
        got = meaning("scatter", (base, index, src), Sample((), (axis, mode)))
        np.testing.assert_array_equal(got, _scatter_by_loop(base, index, src, axis, mode))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("computed", [False, True])
def test_scatter_gradients_against_torch(mode: str, computed: bool) -> None:
    """With zeros among the factors, and ties between extremes."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    base = rng.integers(-1, 2, (4, 5)).astype(np.float64)
    src = rng.integers(-1, 2, (6, 5)).astype(np.float64)
    index = rng.integers(0, 4, (6, 5))
    if mode == "set":
        index = np.stack([rng.permutation(4) for _ in range(5)], 1)
        src = src[:4]
    weight = rng.normal(size=base.shape)
    a, b = (torch.tensor(v, requires_grad=True) for v in (base, src))
    i = torch.tensor(index)
    if mode == "set":
        theirs = a.scatter(0, i, b)
    elif mode == "add":
        theirs = a.scatter_add(0, i, b)
    else:
        theirs = a.scatter_reduce(0, i, b, "prod" if mode == "mul" else mode)
    theirs.backward(torch.tensor(weight))
    x, y = tensor(base, True), tensor(src, True)
    out = prim("scatter", x, tensor(index), y, attrs=(0, mode))
    if computed:
        np.testing.assert_array_equal(out._peek(), theirs.detach().numpy())
    gx, gy = grad([out], [x, y], [tensor(weight)])
    np.testing.assert_allclose(gx._peek(), a.grad.numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gy._peek(), b.grad.numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(out._peek(), theirs.detach().numpy())


def test_gradient_of_what_was_overwritten_is_zero() -> None:
    x, y = tensor(np.zeros(3), True), tensor(np.array([1.0, 2.0, 3.0]), True)
    index = tensor(np.array([2, 0, 2]))
    weight = tensor(np.array([10.0, 20.0, 30.0]))
    for out in (prim("scatter", x, index, y, attrs=(0, "set")),
                prim("index_put", x, y, index, attrs=(0, False))):
        gx, gy = grad([out], [x, y], [weight])
        np.testing.assert_array_equal(out._peek(), [2.0, 0.0, 3.0])
        np.testing.assert_array_equal(gx._peek(), [0.0, 20.0, 0.0])
        np.testing.assert_array_equal(gy._peek(), [0.0, 10.0, 30.0])


def test_index_put_is_numpys() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(2, 4, 5, 3))
    i, j = rng.integers(0, 4, (3, 2)), rng.integers(0, 5, (3, 2))
    values = rng.normal(size=(2, 3, 2, 3))
    got = meaning("index_put", (base, values, i, j), Sample((), (1, True)))
    expected = base.copy()
    np.add.at(expected, (slice(None), i, j), values)
    np.testing.assert_allclose(got, expected, rtol=1e-13)
    got = meaning("index_put", (base, values, i, j), Sample((), (1, False)))
    expected = base.copy()
    for place in np.ndindex(i.shape):
        expected[:, i[place], j[place]] = values[(slice(None), *place)]
    np.testing.assert_array_equal(got, expected)


def test_take_and_gather_against_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 5, 3))
    t = torch.tensor(x)
    for axis in (0, 1, 2):
        index = rng.integers(0, x.shape[axis], (2, 3))
        got = meaning("take", (x, index), Sample((), (axis,)))
        where = (slice(None),) * axis + (torch.tensor(index),)
        np.testing.assert_array_equal(got, t[where].numpy(), strict=True)
        index = rng.integers(0, x.shape[axis], (3, 3, 3))
        got = meaning("gather", (x, index), Sample((), (axis,)))
        np.testing.assert_array_equal(got, torch.gather(t, axis, torch.tensor(index)).numpy())


@pytest.mark.parametrize("bad", [-1, 4, np.iinfo(np.int64).min, np.iinfo(np.int64).max])
def test_out_of_range(bad: int) -> None:
    x = tensor(np.zeros((2, 4)))
    index = tensor(np.array([[0, bad], [1, 2]]))
    src = tensor(np.zeros((2, 2)))
    row = tensor(np.array([0, 1, bad]))
    rows = tensor(np.array([0, 1, 1]))
    for name, inputs, attrs in (("gather", [x, index], (1,)), ("take", [x, row], (1,)),
                                ("scatter", [x, index, src], (1, "add")),
                                ("index_put", [x, tensor(np.zeros(3)), rows, row], (0, True))):
        before = prim("neg", x)
        out = prim(name, *inputs, attrs=attrs)
        with override(JIT=False), \
                pytest.raises(IndexError, match=f"index {bad} .* dimension 1 with size") as caught:
            out._peek()
        assert any(name in note and "test_indexing_primitives.py:" in note
                   for note in caught.value.__notes__)
        # What does not depend on it has its value all the same.
        np.testing.assert_array_equal(before._peek(), np.zeros((2, 4)))
        with pytest.raises(IndexError):
            out._peek()
        np.testing.assert_array_equal(prim("neg", x)._peek(), np.zeros((2, 4)))


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_iota_counts_in_its_dtype(dtype: str) -> None:
    for compiled in (False, True):
        with override(JIT=compiled, INTERPRET=False):
            for n in (0, 1, 700):
                line = prim("iota", shape=(n,), dtype=DTYPES[dtype])
                np.testing.assert_array_equal(prim("mul", line, line)._peek(),
                                              np.arange(n, dtype=dtype) ** 2)


def test_errors() -> None:
    x, i = spec((3, 4), F64), spec((3, 2), I64)
    for name, specs, attrs, error, text in (
            ("take", [x, spec((2,), DTYPES["int32"])], (0,), TypeError, "int64"),
            ("take", [x, i], (2,), IndexError, "dimension 2"),
            ("gather", [x, spec((2,), I64)], (0,), RuntimeError, "same number of dimensions"),
            ("gather", [x, spec((9, 5), I64)], (0,), RuntimeError, "no larger"),
            ("scatter", [x, i, spec((3, 1), F64)], (0, "set"), ValueError, "one shape"),
            ("scatter", [x, i, spec((3, 2), C128)], (0, "set"), TypeError, "complex128"),
            ("scatter", [x, i, i], (0, "xor"), ValueError, "mode"),
            ("scatter", [spec((3, 4), C128), i, spec((3, 2), C128)], (0, "amax"), TypeError,
             "complex128"),
            ("index_put", [x, spec((3,), F64), i], (0, False), RuntimeError, "shape mismatch"),
            ("index_put", [x, x], (0, False), TypeError, "at least one index"),
            ("index_put", [x, x, i, i, i], (0, False), IndexError, "dimension 2"),
            ("window_place", [i], ((4,), (2,), (2,), (0,)), ValueError, "int32 distances"),
            ("window_place", [spec((3,), DTYPES["int32"])], ((4, 4), (2, 2), (2, 2), (0, 0)),
             ValueError, "int32 distances"), ("iota", [], (), ValueError, "int64 or int32")):
        with pytest.raises(error, match=text):
            PRIMS[name].infer(specs, attrs, None)
