"""The three convolution primitives: meanings, derivatives, and their kernels against them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from primitive_checks import check_derivatives, maker, meaning, tensor

import facula
from facula.codegen.convolutions.convolution import Convolution
from facula.codegen.convolutions.winograd import worthwhile
from facula.codegen.kernel import View
from facula.dtype import DTYPES
from facula.errors import DTypeError, ShapeError
from facula.graph.spec import Step, spec
from facula.ops.table import PRIMS, Sample
from facula.runtime.allocator import from_numpy_private
from facula.schedule.executable import make_executable
from facula.tensor import prim

NAMES = ("conv", "conv_input", "conv_weight")
F32, F64 = DTYPES["float32"], DTYPES["float64"]
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}


def shapes(n: int, c: int, o: int, size: tuple[int, ...], kernel: tuple[int, ...],
           stride: Any = 1, low: Any = 0, dilation: Any = 1, groups: int = 1, more: int = 0
           ) -> tuple[Any, ...]:
    """(x, w, y, attributes); the result is `more` places longer than padding alike would give."""
    d = len(size)
    stride, low, dilation = ((v,) * d if isinstance(v, int) else v for v in (stride, low, dilation))
    out = tuple((m + 2 * p - e * (k - 1) - 1) // s + 1 + more for m, p, e, k, s in
                zip(size, low, dilation, kernel, stride))
    return ((n, c, *size), (o, c // groups, *kernel), (n, o, *out),
            (stride, low, dilation, groups))


CASES = [
    shapes(2, 3, 4, (8, 9), (3, 3)),
    shapes(2, 3, 4, (8, 9), (3, 3), low=1),
    shapes(1, 1, 1, (1, 1), (1, 1)),
    shapes(3, 20, 33, (14, 15), (3, 2), 2, 1),
    shapes(2, 3, 70, (33, 31), (7, 7), 2, 3),
    shapes(5, 40, 48, (4, 4), (3, 3), low=1),
    shapes(5, 40, 48, (4, 4), (1, 1), 2),
    shapes(4, 9, 17, (1, 1), (3, 3), low=1),
    shapes(4, 9, 130, (2, 2), (3, 3), low=1),
    shapes(2, 6, 9, (9, 9), (3, 3), low=1, dilation=2, groups=3),
    shapes(2, 40, 40, (9, 9), (3, 3), 2, 1, groups=40),
    shapes(2, 40, 80, (7, 6), (3, 3), 1, 1, groups=40),
    shapes(2, 36, 36, (9, 7), (5, 3), (2, 1), (2, 1), groups=36),
    shapes(2, 64, 96, (6, 7), (3, 3), 1, 1, groups=32),
    shapes(2, 7, 6, (9, 9, 5), (2, 3, 2), (1, 2, 1), (0, 1, 1)),
    shapes(2, 7, 6, (100,), (5,), 2, 2),
    shapes(1, 300, 20, (50,), (3,), 1, 1),
    shapes(1, 4, 5, (700,), (33,), 3, 20, 2),
    shapes(2, 3, 5, (6, 6), (2, 2), 3),                     # elements that no tap sees
    shapes(2, 3, 5, (6, 6), (2, 2), 4, 0, 2),               # remainders without a tap
    shapes(2, 3, 5, (6, 6), (3, 3), 1, 4),                  # places that see nothing
    shapes(2, 3, 5, (6, 7), (3, 3), 2, 1, more=1),          # a result longer at its end
    shapes(2, 3, 5, (6, 7), (3, 3), 1, (-1, -2)),           # an input that is cut
    shapes(19, 2, 3, (5, 5), (3, 3), low=1),
    shapes(2, 4, 6, (30, 31), (3, 3), 1, 1),
    shapes(2, 48, 70, (9, 15), (1, 1)),                     # products
    shapes(1, 33, 100, (128,), (1,)),
    shapes(3, 64, 96, (3, 5, 9), (1, 1, 1), groups=2),
    shapes(2, 130, 32, (1, 200), (1, 1)),
]

# weights so large that each tile packs its own panels of them, and all places are one block
LARGE = [
    shapes(3, 300, 250, (5, 6), (3, 3), low=1),
    shapes(2, 270, 290, (9, 8), (3, 2), 2, 1),
    shapes(2, 520, 530, (7, 5), (2, 2), 1, 1, (2, 1), groups=2),
    shapes(1, 700, 420, (19,), (5,), 1, 2),
]

# one point at a time, read where it lies
POINTS = [
    shapes(4, 300, 70, (7, 7), (1, 1)),                     # images are one block of places
    shapes(3, 40, 100, (29, 31), (1, 1), 2),
    shapes(2, 530, 24, (5, 5), (1, 1), groups=2),
    shapes(3, 270, 7, (5, 3), (1, 1)),
    shapes(11, 36, 64, (7, 7), (1, 1)),                     # too many for one block
    shapes(4, 24, 40, (6, 50), (1, 1), (3, 2)),
    shapes(20, 33, 34, (2, 2), (1, 1)),
    shapes(1, 20, 80, (3, 5, 5), (1, 1, 1), (1, 2, 1)),
    shapes(2, 20, 33, (9, 9), (1, 1), 1, 1),                # but not with zeros around it
    shapes(2, 20, 33, (9, 60), (1, 1), 5),                  # nor far apart
    shapes(5, 70, 40, (1, 1), (3, 5), low=(1, 2)),          # the middle of a kernel
    shapes(2, 300, 20, (32, 32), (1, 1)),                   # rows in the same sets of a cache
    shapes(3, 20, 290, (19, 17), (1, 1)),
    shapes(2, 150, 140, (6, 6), (1, 1), groups=2),
    shapes(6, 17, 15, (300,), (1,)),
    shapes(3, 50, 30, (60, 71), (1, 1)),                    # a product of long rows
]


def operands(name: str, case: tuple[Any, ...], dtype: Any, seed: int = 0) -> Any:
    """The arrays, attributes and result shape of one primitive in this case."""
    x, w, y, attrs = case
    a, b, out = {"conv": (x, w, y), "conv_input": (y, w, x), "conv_weight": (x, y, w)}[name]
    rng = np.random.default_rng(seed)
    return ([rng.standard_normal(s).astype(dtype.np) for s in (a, b)],
            (*attrs, 0) if name == "conv_weight" else attrs, out)


def compiled(name: str, arrays: list[np.ndarray], attrs: Any, out: Any) -> np.ndarray:
    """The result of the compiled primitive."""
    dtype = arrays[0].dtype.name
    steps = [Step("leaf", (None,), (), spec(a.shape, DTYPES[dtype])) for a in arrays]
    steps.append(Step(name, attrs, (0, 1), spec(out, DTYPES[dtype])))
    (result,) = make_executable(steps, [2], {}).run([from_numpy_private(a.copy())
                                                     for a in arrays])
    return result.array(spec(out, DTYPES[dtype]), None).copy()


@pytest.mark.parametrize("name", NAMES)
def test_derivatives(name: str) -> None:
    for sample in PRIMS[name].samples(maker(F64)):
        check_derivatives(name, sample)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES + POINTS + LARGE, ids=str)
def test_compiled(name: str, case: tuple[Any, ...]) -> None:
    for dtype in (F32, F64):
        arrays, attrs, out = operands(name, case, dtype)
        want = meaning(name, arrays, Sample(tuple(arrays), attrs, out))
        have = compiled(name, arrays, attrs, out)
        scale = np.abs(want).max(initial=1.0)
        np.testing.assert_allclose(have, want, rtol=0, atol=TOLERANCE[dtype.name] * scale)


SQUARES = [
    shapes(4, 20, 33, (15, 17), (3, 3), low=1),
    shapes(3, 40, 100, (24, 24), (3, 3)),
    shapes(2, 20, 33, (9, 80), (3, 3), low=(0, 2)),
    shapes(33, 100, 70, (4, 4), (3, 3), low=1),
    shapes(40, 33, 32, (5, 4), (3, 3), low=2),
    shapes(7, 64, 80, (11, 8), (3, 3), low=1, groups=2),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", SQUARES, ids=str)
def test_minimal_filtering(name: str, case: tuple[Any, ...]) -> None:
    """Close to float64; what is not finite stays exactly where the plain sum has it."""
    assert worthwhile("float32", Convolution(name, "float32", *case[:3], *case[3], View((), 0),
                                             View((), 0)).walks()[0], case[0][0],
                      min(case[1][0] // case[3][3], case[1][1]), 32, 16)
    arrays, attrs, out = operands(name, case, F32)
    sample = Sample(tuple(arrays), attrs, out)
    wide = [a.astype("float64") for a in arrays]
    want = meaning(name, wide, Sample(tuple(wide), attrs, out))
    have = compiled(name, arrays, attrs, out)
    np.testing.assert_allclose(have, want, rtol=0, atol=2e-6 * np.abs(want).max())
    arrays[0][1, 3, 2, 3] = np.inf
    arrays[0][0, 2, 1, 1] = np.nan
    want = meaning(name, arrays, sample)
    have = compiled(name, arrays, attrs, out)
    np.testing.assert_array_equal(np.isnan(have), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(have), np.isinf(want))


@pytest.mark.parametrize("case", CASES[:10], ids=str)
def test_adjoint(case: tuple[Any, ...]) -> None:
    """All three are derivatives of one form, so they give the same number."""
    x, w, y = (np.random.default_rng(k).standard_normal(s) for k, s in enumerate(case[:3]))
    attrs = case[3]
    numbers = [np.vdot(y, meaning("conv", [x, w], Sample((x, w), attrs, y.shape))),
               np.vdot(x, meaning("conv_input", [y, w], Sample((y, w), attrs, x.shape))),
               np.vdot(w, meaning("conv_weight", [x, y], Sample((x, y), (*attrs, 0), w.shape)))]
    np.testing.assert_allclose(numbers, numbers[0], rtol=1e-10)


@pytest.mark.parametrize("case", [shapes(7, 2, 3, (6, 5), (3, 3), 1, 1),
                                  shapes(7, 20, 33, (6, 5), (1, 1))], ids=str)
def test_parts_add_up(case: tuple[Any, ...]) -> None:
    x, w, y, attrs = case
    a, b = maker(F64)(*x), maker(F64, 1)(*y)
    whole = meaning("conv_weight", [a, b], Sample((a, b), (*attrs, 0), w))
    for parts in (2, 4, 7):
        split = meaning("conv_weight", [a, b], Sample((a, b), (*attrs, parts), (parts, *w)))
        np.testing.assert_allclose(split.sum(0), whole, rtol=1e-12)
        have = compiled("conv_weight", [a, b], (*attrs, parts), (parts, *w))
        np.testing.assert_allclose(have, split, rtol=1e-11)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", [POINTS[0], POINTS[1], LARGE[0]], ids=str)
def test_operands_that_repeat(name: str, case: tuple[Any, ...]) -> None:
    """What is expanded has strides of zero."""
    arrays, attrs, out = operands(name, case, F64)
    for dims in ((0,), (1,), (0, 1, 2), (2, 3), (0, 1, 2, 3)):
        for which in (0, 1):
            picked = tuple(slice(0, 1) if d in dims else slice(None) for d in range(4))
            both = [np.broadcast_to(a[picked], a.shape) if k == which else a
                    for k, a in enumerate(arrays)]
            want = meaning(name, both, Sample(tuple(both), attrs, out))
            views = [facula.tensor(a[picked].copy()).expand(*a.shape) if k == which
                     else facula.tensor(a) for k, a in enumerate(arrays)]
            for _ in range(3):
                have = prim(name, *views, attrs=attrs, shape=out)
                np.testing.assert_allclose(have.numpy(), want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", [shapes(3, 6, 7, (9, 8), (3, 3), 2, 1), *POINTS[:2]], ids=str)
def test_operands_where_they_lie(name: str, case: tuple[Any, ...]) -> None:
    """Views of memory in another order, and parts of a larger tensor, are read in place."""
    arrays, attrs, out = operands(name, case, F64)
    want = meaning(name, arrays, Sample(tuple(arrays), attrs, out))
    last = [facula.tensor(np.moveaxis(a, 1, -1).copy()).permute(0, 3, 1, 2) for a in arrays]
    parts = []
    for a in arrays:
        large = np.zeros([n + 2 for n in a.shape])
        large[tuple(slice(1, n + 1) for n in a.shape)] = a
        view = facula.tensor(large)
        for d, n in enumerate(a.shape):
            view = view.narrow(d, 1, n)
        parts.append(view)
    for views in (last, parts):
        for _ in range(3):
            have = prim(name, *views, attrs=attrs, shape=out)
            np.testing.assert_allclose(have.numpy(), want, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_what_follows_is_part_of_the_kernel(name: str) -> None:
    """Bias, residual, activation: computed in the tiles, with the same values."""
    for case in (CASES[3], CASES[5], CASES[10], CASES[14], *CASES[-4:], *POINTS[:3], LARGE[1]):
        arrays, attrs, out = operands(name, case, F64)
        want = meaning(name, arrays, Sample(tuple(arrays), attrs, out))
        rng = np.random.default_rng(5)
        bias, more = rng.standard_normal(out[1]), rng.standard_normal(out)
        line = bias.reshape(1, -1, *(1,) * (len(out) - 2))
        a, b = (facula.tensor(v) for v in arrays)
        side, rest = facula.tensor(line), facula.tensor(more)
        for _ in range(3):
            product = prim(name, a, b, attrs=attrs, shape=out)
            have = facula.relu(product + side + rest) * 2
            np.testing.assert_allclose(have.numpy(), np.maximum(want + line + more, 0) * 2,
                                       rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_threads_do_not_change_a_bit(name: str) -> None:
    before = facula.get_num_threads()
    try:
        for case in (shapes(6, 20, 40, (20, 20), (3, 3), 1, 1),
                     shapes(6, 64, 64, (20, 20), (3, 3), 2, 1, groups=64), POINTS[0], LARGE[0]):
            arrays, attrs, out = operands(name, case, F32)
            results = []
            for threads in (1, 2, 4):
                facula.set_num_threads(threads)
                results.append(compiled(name, arrays, attrs, out))
            for other in results[1:]:
                np.testing.assert_array_equal(results[0], other)
    finally:
        facula.set_num_threads(before)


@pytest.mark.parametrize("name", NAMES)
def test_not_a_number_stays_where_it_is(name: str) -> None:
    case = shapes(2, 3, 5, (8, 9), (3, 3), 1, 1)
    arrays, attrs, out = operands(name, case, F64)
    arrays[0][0, 1, 3, 4] = np.nan
    arrays[1][0, 0, 1, 1] = np.inf
    want = meaning(name, arrays, Sample(tuple(arrays), attrs, out))
    have = compiled(name, arrays, attrs, out)
    np.testing.assert_allclose(have, want, rtol=1e-9, atol=1e-10)


def test_random_shapes() -> None:
    rng = np.random.default_rng(7)
    for round_ in range(25):
        d = int(rng.integers(1, 4))
        groups = int(rng.choice([1, 1, 2, 5, 18]))
        c, o = groups * int(rng.integers(1, 6)), groups * int(rng.integers(1, 6))
        size = tuple(int(v) for v in rng.integers(1, (40, 14, 7)[d - 1], d))
        stride, dilation = (tuple(int(v) for v in rng.integers(1, 4, d)) for _ in range(2))
        kernel = tuple(int(v) for v in rng.integers(1, 5, d))
        low = tuple(int(v) for v in rng.integers(0, 3, d))
        low = tuple(max(p, -(-(e * (k - 1) + 1 - n) // 2)) for p, e, k, n in
                    zip(low, dilation, kernel, size))
        case = shapes(int(rng.integers(1, 5)), c, o, size, kernel, stride, low, dilation, groups)
        for name in NAMES:
            arrays, attrs, out = operands(name, case, F64, round_)
            want = meaning(name, arrays, Sample(tuple(arrays), attrs, out))
            have = compiled(name, arrays, attrs, out)
            np.testing.assert_allclose(have, want, rtol=1e-9, atol=1e-9,
                                       err_msg=f"{name} {case}")


@pytest.mark.parametrize("name", NAMES)
def test_refusals(name: str) -> None:
    x, w, y, attrs = shapes(2, 4, 6, (5, 5), (3, 3))
    arrays, attrs, out = operands(name, (x, w, y, attrs), F32)
    a, b = (tensor(v) for v in arrays)
    with pytest.raises(DTypeError, match=f"{name}: takes two"):
        prim(name, tensor(arrays[0].astype("int64")), tensor(arrays[1].astype("int64")),
             attrs=attrs, shape=out)
    with pytest.raises(ShapeError, match="has to be given"):
        prim(name, a, b, attrs=attrs)
    with pytest.raises(ShapeError, match="one number of dimensions"):
        prim(name, a, b, attrs=((1,), *attrs[1:]), shape=out)
    with pytest.raises(ShapeError, match="do not fit together"):
        prim(name, a, b, attrs=(*attrs[:3], 2, *attrs[4:]), shape=out)
