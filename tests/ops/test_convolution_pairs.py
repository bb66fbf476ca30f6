"""Convolutions of bfloat16 tensors: sums in float32, rounded once, on every processor.

Where the processor multiplies and adds pairs of bfloat16, neighbouring channels are such pairs;
elsewhere the same programs are computed on widened operands.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from primitive_checks import meaning
from test_convolution import CASES, SQUARES, shapes

import facula
from facula.codegen.convolutions.pairs import worth_pairs
from facula.codegen.target import target
from facula.dtype import DTYPES
from facula.graph.spec import Step, spec
from facula.ops.table import Sample
from facula.runtime.allocator import from_numpy_private
from facula.schedule.executable import make_executable
from facula.schedule.simplify import simplify
from facula.tensor import prim

NAMES = ("conv", "conv_input", "conv_weight")
BF16, F32 = DTYPES["bfloat16"], DTYPES["float32"]
MORE = [
    shapes(1, 1, 40, (9, 9), (3, 3), low=1),                # half of each pair is missing
    shapes(2, 15, 33, (8, 8), (3, 3), 2, 1),
    shapes(3, 33, 31, (10, 11), (1, 1), 3),                 # every third place
    shapes(2, 10, 24, (9, 9), (3, 3), 2, 2, 2),
    shapes(2, 14, 34, (6, 7), (5, 5), low=2),               # more taps than lanes
    shapes(2, 30, 45, (12, 9), (3, 3), low=1, groups=3),
    shapes(2, 66, 36, (5, 9), (3, 3), low=1, groups=6),     # odd channels in each group
    shapes(1, 600, 40, (14, 14), (1, 1)),
    shapes(2, 300, 24, (6, 6), (3, 3), low=1),
    shapes(1, 64, 700, (16, 16), (1, 1)),
]


def operands(name: str, case: tuple[Any, ...], seed: int = 0) -> Any:
    """bfloat16 arrays, attributes and the result's shape."""
    x, w, y, attrs = case
    a, b, out = {"conv": (x, w, y), "conv_input": (y, w, x), "conv_weight": (x, y, w)}[name]
    rng = np.random.default_rng(seed)
    return ([rng.standard_normal(s).astype(ml_dtypes.bfloat16) for s in (a, b)],
            (*attrs, 0) if name == "conv_weight" else attrs, out)


def steps_of(name: str, arrays: list[np.ndarray], attrs: Any, out: Any) -> list[Step]:
    """What an autocast layer records."""
    steps = [Step("leaf", (None,), (), spec(a.shape, BF16)) for a in arrays]
    steps += [Step("cast", (), (i,), spec(a.shape, F32)) for i, a in enumerate(arrays)]
    steps.append(Step(name, attrs, (2, 3), spec(out, F32)))
    return [*steps, Step("cast", (), (4,), spec(out, BF16))]


def compiled(name: str, arrays: list[np.ndarray], attrs: Any, out: Any) -> np.ndarray:
    program = make_executable(steps_of(name, arrays, attrs, out), [5], {})
    (result,) = program.run([from_numpy_private(a.copy()) for a in arrays])
    return result.array(spec(out, BF16), None).astype(np.float32)


def wide(name: str, arrays: list[np.ndarray], attrs: Any, out: Any) -> np.ndarray:
    """The same in float64."""
    values = [a.astype(np.float64) for a in arrays]
    return meaning(name, values, Sample(tuple(values), attrs, out))


def close(have: np.ndarray, want: np.ndarray, what: str = "") -> None:
    """Rounded once: half a unit in the last place of eight bits, and what float32 sums add."""
    np.testing.assert_array_less(
        np.abs(have - want), np.abs(want) * 2.0 ** -8 + 1e-5 * np.abs(want).max(initial=1.0),
        err_msg=what)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES + MORE, ids=str)
def test_rounded_once(name: str, case: tuple[Any, ...]) -> None:
    arrays, attrs, out = operands(name, case)
    close(compiled(name, arrays, attrs, out), wide(name, arrays, attrs, out))


def test_operands_are_not_widened() -> None:
    """The kernels read bfloat16 where the processor has pairs, and float32 where it has not."""
    arrays, attrs, out = operands("conv", SQUARES[0])
    steps, _, outputs = simplify(steps_of("conv", arrays, attrs, out), [5])
    found = next(s for s in steps if s.op == "conv")
    dtype = BF16 if target().pairs else F32
    assert [steps[i].spec.dtype for i in found.inputs] == [dtype, dtype]
    assert len(steps) == (4 if target().pairs else 6)


def test_many_small_groups_stay_wide() -> None:
    image, weight = (2, 64, 9, 9), (64, 64, 3, 3)
    for name in NAMES:
        assert not worth_pairs(name, image, (64, 1, 3, 3), 64)
        assert worth_pairs(name, image, weight, 1) == target().pairs
    # no two images: worth it where half of the products are done in no time
    assert worth_pairs("conv_weight", (1, 64, 9, 9), weight, 1) == target().tiles


def test_parts_of_an_odd_number_of_images() -> None:
    """The gradient of a small weight is computed in parts, each of which has its own pairs."""
    for images in (2, 3, 5, 7, 9):
        arrays, attrs, out = operands("conv_weight", shapes(images, 5, 20, (40, 41), (3, 3), low=1))
        arrays[0][-1, 2, 3, 4] = np.inf
        want = wide("conv_weight", arrays, attrs, out)
        have = compiled("conv_weight", arrays, attrs, out)
        on = np.isfinite(want)
        np.testing.assert_array_equal(np.isfinite(have), on)
        close(have[on], want[on])


def test_random_shapes() -> None:
    rng = np.random.default_rng(11)
    for round_ in range(12):
        d = int(rng.integers(1, 4))
        groups = int(rng.choice([1, 1, 2, 3]))
        c, o = groups * int(rng.integers(1, 40)), groups * int(rng.integers(1, 40))
        size = tuple(int(v) for v in rng.integers(1, (60, 20, 7)[d - 1], d))
        stride, dilation = (tuple(int(v) for v in rng.integers(1, 4, d)) for _ in range(2))
        kernel = tuple(int(v) for v in rng.integers(1, 5, d))
        low = tuple(int(v) for v in rng.integers(0, 3, d))
        low = tuple(max(p, -(-(e * (k - 1) + 1 - n) // 2)) for p, e, k, n in
                    zip(low, dilation, kernel, size))
        case = shapes(int(rng.integers(1, 4)), c, o, size, kernel, stride, low, dilation, groups)
        for name in NAMES:
            arrays, attrs, out = operands(name, case, round_)
            close(compiled(name, arrays, attrs, out), wide(name, arrays, attrs, out),
                  f"{name} {case}")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", [CASES[1], CASES[5], MORE[1], MORE[4], CASES[-4]], ids=str)
def test_not_a_number_stays_where_it_is(name: str, case: tuple[Any, ...]) -> None:
    """Also past an odd last channel, and around the source."""
    arrays, attrs, out = operands(name, case)
    first = arrays[0]
    first[0, -1, 2, 3], first[-1, 0, 1, 1] = np.nan, np.inf
    first[0, first.shape[1] // 2, 0, 0] = -np.inf
    want = wide(name, arrays, attrs, out)
    have = compiled(name, arrays, attrs, out)
    np.testing.assert_array_equal(np.isnan(have), np.isnan(want))
    np.testing.assert_array_equal(np.isposinf(have), np.isposinf(want))
    np.testing.assert_array_equal(np.isneginf(have), np.isneginf(want))
    on = np.isfinite(want)
    close(have[on], want[on])


@pytest.mark.parametrize("name", NAMES[:2])
def test_an_infinite_weight_meets_the_zeros_around(name: str) -> None:
    case = shapes(2, 5, 20, (6, 7), (3, 3), low=1)
    arrays, attrs, out = operands(name, case)
    arrays[1][0, 4, 1, 2], arrays[1][3, 2, 0, 0] = np.inf, np.nan
    want = wide(name, arrays, attrs, out)
    have = compiled(name, arrays, attrs, out)
    np.testing.assert_array_equal(np.isnan(have), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(have), np.isinf(want))


@pytest.mark.parametrize("name", NAMES)
def test_operands_where_they_lie(name: str) -> None:
    """Channels last, and parts of a larger tensor at odd places with NaN all around."""
    for case in (shapes(3, 6, 18, (9, 8), (3, 3), 2, 1), shapes(3, 7, 18, (9, 8), (3, 3), low=1),
                 shapes(2, 24, 40, (8, 9), (1, 1))):
        arrays, attrs, out = operands(name, case)
        want = wide(name, arrays, attrs, out)
        last = [facula.tensor(np.moveaxis(a, 1, -1).copy()).permute(0, 3, 1, 2) for a in arrays]
        parts = []
        for a in arrays:
            large = np.full([n + 2 for n in a.shape], np.nan, ml_dtypes.bfloat16)
            large[tuple(slice(1, n + 1) for n in a.shape)] = a
            view = facula.tensor(large)
            for d, n in enumerate(a.shape):
                view = view.narrow(d, 1, n)
            parts.append(view)
        for views in (last, parts):
            for _ in range(3):
                have = prim(name, *(v.float() for v in views), attrs=attrs,
                                              shape=out).bfloat16()
                close(have.float().numpy(), want)


@pytest.mark.parametrize("name", NAMES[:2])
def test_what_follows_is_part_of_the_kernel(name: str) -> None:
    """Bias and activation come before the rounding, values that are read again after it."""
    for case in (CASES[3], CASES[5], CASES[14], MORE[2], *CASES[-4:]):
        arrays, attrs, out = operands(name, case)
        rng = np.random.default_rng(5)
        bias = rng.standard_normal(out[1]).astype(np.float32)
        line = bias.reshape(1, -1, *(1,) * (len(out) - 2))
        want = np.maximum(wide(name, arrays, attrs, out) + line, 0)
        for _ in range(3):
            a, b = (facula.tensor(v).float() for v in arrays)
            total = prim(name, a, b, attrs=attrs, shape=out)
            have = facula.relu(total + facula.tensor(line)).bfloat16()
            twice = (have.float() + 1).bfloat16()
            close(have.float().numpy(), want)
            rounded = have.float().numpy() + 1
            np.testing.assert_array_equal(
                twice.float().numpy(),
                rounded.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_threads_do_not_change_a_bit() -> None:
    before = facula.get_num_threads()
    try:
        for case in (shapes(6, 20, 40, (20, 20), (3, 3), 1, 1),
                     shapes(3, 90, 64, (20, 20), (1, 1))):
            arrays, attrs, out = operands("conv", case)
            results = []
            for threads in (1, 2, 4):
                facula.set_num_threads(threads)
                results.append(compiled("conv", arrays, attrs, out))
            for other in results[1:]:
                np.testing.assert_array_equal(results[0], other)
    finally:
        facula.set_num_threads(before)


@pytest.mark.parametrize("layer", ["conv1d", "conv2d", "conv3d", "conv_transpose2d"])
def test_layers_as_pytorch_has_them(layer: str) -> None:
    """Values and gradients of a bfloat16 convolution with bias; batches of none and one, too."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(3)
    d = int(layer[-2])
    for n in (2, 1, 0):
        x = rng.standard_normal((n, 6, *(7, 8, 5)[:d])).astype(np.float32)
        w = rng.standard_normal((6, 4, *(3, 2, 2)[:d]) if "transpose" in layer
                                else (4, 6, *(3, 2, 2)[:d])).astype(np.float32)
        bias = rng.standard_normal(4).astype(np.float32)
        found = []
        for library in (facula, torch):
            a, b, c = (library.tensor(v, dtype=library.bfloat16, requires_grad=True)
                       for v in (x, w, bias))
            y = getattr(library.nn.functional, layer)(a, b, c, stride=2, padding=1)
            y.float().sum().backward()
            found.append([t.detach().float().numpy() for t in (y, a.grad, b.grad, c.grad)])
        for have, want in zip(*found, strict=True):
            assert have.shape == want.shape
            np.testing.assert_allclose(have, want, rtol=2e-2,
                                       atol=2e-2 * np.abs(want).max(initial=1.0))


@pytest.mark.parametrize("cast", [False, True])
def test_what_is_kept_of_a_weight_goes_with_it(cast: bool) -> None:
    """Without gradients packed weights are kept, until one is written to."""
    facula.manual_seed(0)
    net = facula.nn.Sequential(facula.nn.Conv2d(6, 40, 3, padding=1), facula.nn.ReLU(),
                               facula.nn.Conv2d(40, 20, 3), facula.nn.Conv2d(20, 9, 1)).eval()
    x = facula.randn(2, 6, 9, 9)
    want = net(x).detach().numpy()
    if not cast:
        net, x = net.bfloat16(), x.bfloat16()
    scale = 1.0
    for round_ in range(6):
        if round_ == 3:
            with facula.no_grad():
                for layer in (net[2], net[3]):
                    layer.weight.mul_(2)
                    layer.bias.mul_(2 if layer is net[2] else 4)
            scale = 4.0
        with facula.no_grad(), facula.autocast("cpu", dtype=facula.bfloat16, enabled=cast):
            have = net(x).float().numpy()
        np.testing.assert_allclose(have / scale, want, rtol=0, atol=3e-2 * np.abs(want).max())
