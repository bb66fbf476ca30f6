"""What sequences are made fast with: joined sums and windows, parts in their place, packed once."""

from __future__ import annotations

import numpy as np
import pytest

from facula.schedule.executable import Executable
from facula.schedule.simplify import simplify
from tests.schedule.programs import Build

RNG = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def count(build: Build, outputs: list[int], op: str) -> int:
    return [s.op for s in simplify(build.steps, outputs)[0]].count(op)


def window(b: Build, value: int, shape: tuple[int, ...], axis: int, start: int) -> int:
    """Zeros of `shape` with the value written at `start` along the axis."""
    zeros = b.op("full", attrs=(0.0,), shape=shape)
    starts = tuple(start if d == axis else 0 for d in range(len(shape)))
    return b.op("slice_update", zeros, value, attrs=(starts, (1,) * len(shape)))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("starts", [(0, 2, 4), (4, 0, 2), (1, 5, 3), (0, 4, 2)])
def test_disjoint_windows_are_a_concatenation(axis: int, starts: tuple[int, ...]) -> None:
    shape = [3, 4, 5]
    shape[axis] = 7
    part = list(shape)
    part[axis] = 2
    b = Build()
    parts = [b.op("exp", b.leaf(array(*part))) for _ in starts]
    total = window(b, parts[0], tuple(shape), axis, starts[0])
    for value, at in zip(parts[1:], starts[1:], strict=True):
        total = b.op("add", total, window(b, value, tuple(shape), axis, at))
    out = b.op("tanh", total)
    assert count(b, [out], "slice_update") == 0
    b.check(out, total)
    b.check(out)


def test_windows_that_meet_are_added() -> None:
    b = Build()
    x, y = b.leaf(array(4, 3)), b.leaf(array(4, 3))
    out = b.op("add", window(b, x, (6, 3), 0, 0), window(b, y, (6, 3), 0, 2))
    assert count(b, [out], "cat") == 0
    b.check(out)


def recurrence(b: Build, length: int, rows: int, width: int, out: int
               ) -> tuple[list[int], list[int]]:
    values = [b.op("tanh", b.leaf(array(rows, width))) for _ in range(length)]
    grads = [b.op("sin", b.leaf(array(rows, out))) for _ in range(length)]
    return values, grads


def test_a_sum_of_products_over_time_is_one_product() -> None:
    b = Build()
    values, grads = recurrence(b, 7, 5, 33, 17)
    turned = [b.op("permute", g, attrs=((1, 0),)) for g in grads]
    weight = b.op("matmul", turned[0], values[0])
    bias = b.op("sum", grads[0], attrs=((0,),))
    for g, t, v in zip(grads[1:], turned[1:], values[1:], strict=True):
        weight = b.op("add", weight, b.op("matmul", t, v))
        bias = b.op("add", bias, b.op("sum", g, attrs=((0,),)))
    assert count(b, [weight, bias], "matmul") == 1
    assert count(b, [weight, bias], "sum") == 1
    b.check(weight, bias)


def test_a_joined_sum_takes_its_operands_from_a_concatenation_that_is_there() -> None:
    b = Build()
    values, grads = recurrence(b, 5, 4, 24, 16)
    after = list(reversed(range(1, 5)))         # the last steps, the latest first
    total = -1
    for k in after:
        term = b.op("matmul", b.op("permute", grads[k], attrs=((1, 0),)), values[k - 1])
        total = term if total < 0 else b.op("add", total, term)
    whole = b.op("cat", *grads, attrs=(0,))
    states = b.op("cat", *values, attrs=(0,))
    outputs = [total, b.op("exp", whole), b.op("exp", states)]
    assert count(b, outputs, "cat") == 2
    b.check(*outputs)


def test_terms_that_the_concatenation_needs_are_not_joined_with_it() -> None:
    """The concatenation contains something made of the sum, so the sum cannot be read from it."""
    b = Build()
    values, grads = recurrence(b, 4, 4, 24, 16)
    total = -1
    for g, v in zip(grads[:3], values, strict=False):
        term = b.op("matmul", b.op("permute", g, attrs=((1, 0),)), v)
        total = term if total < 0 else b.op("add", total, term)
    last = b.op("slice", total, attrs=((0, 0), (1, 1)), shape=(4, 16))
    whole = b.op("cat", *grads[:3], last, attrs=(0,))
    b.check(total, b.op("exp", whole))


@pytest.mark.parametrize("axis", [0, 1])
def test_parts_of_a_concatenation_lie_in_it(axis: int) -> None:
    """Parts that products, reductions and other concatenations read as well."""
    b = Build()
    parts = [b.op("tanh", b.leaf(array(6, 8))) for _ in range(3)]
    inner = b.op("cat", parts[0], parts[1], attrs=(1 - axis,))
    shape = (6, 16) if axis == 0 else (12, 8)
    other = b.op("exp", b.leaf(array(*shape)))
    outer = b.op("cat", inner, other, inner, b.leaf(array(*shape)), attrs=(axis,))
    product = b.op("matmul", parts[2], b.op("permute", parts[0], attrs=((1, 0),)))
    flat = b.op("reshape", parts[1], shape=(4, 12))
    reshaped = b.op("matmul", flat, b.leaf(array(12, 5)))
    total = b.op("sum", outer, attrs=((0,),))
    again = b.op("matmul", outer, b.leaf(array(b.steps[outer].spec.shape[1], 3)))
    b.check(product, reshaped, total, again)
    b.check(product, reshaped, total, again, outer, parts[1])


def test_a_weight_is_packed_once() -> None:
    b = Build()
    weight = b.op("permute", b.leaf(array(96, 80)), attrs=((1, 0),))
    x = b.leaf(array(40, 80))
    outputs = []
    for _ in range(4):
        y = b.op("matmul", x, weight)
        outputs.append(y)
        x = b.op("tanh", b.op("slice", y, attrs=((0, 0), (1, 1)), shape=(40, 80)))
    made = Executable(b.steps, outputs, {})
    names = [k for _, r in made.reports for k in r.kernels]
    assert sum("pack" in k for k in names) <= 1
    b.check(*outputs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("op", ["amax", "amin"])
def test_extremes_of_odd_values(op: str, dtype: type) -> None:
    inf, nan = np.inf, np.nan
    rows = np.array([[1, -2, inf, 3], [nan, 1, 2, 3], [1, 2, -nan, 3], [-inf] * 4, [inf] * 4,
                     [-0.0, 0.0, -0.0, -0.0], [-3, -1, -inf, -2], [1e-45, -1e-45, 0, 0]], dtype)
    b = Build()
    x = b.leaf(rows)
    b.check(b.op(op, x, attrs=((1,),)), b.op(op, x, attrs=((0,),)), b.op(op, x, attrs=((0, 1),)))


@pytest.mark.parametrize("width", [1, 5, 64, 100, 5000])
def test_masked_softmax_of_any_width(width: int) -> None:
    b = Build()
    x = array(7, width)
    x[2] = -np.inf
    x[3, : width // 2] = -np.inf
    x[4, width // 2] = np.nan
    i = b.leaf(x)
    top = b.op("expand", b.op("reshape", b.op("amax", i, attrs=((1,),)), shape=(7, 1)),
               shape=(7, width))
    e = b.op("exp", b.op("sub", i, top))
    s = b.op("expand", b.op("reshape", b.op("sum", e, attrs=((1,),)), shape=(7, 1)),
             shape=(7, width))
    b.check(b.op("div", e, s))


def test_a_convolution_of_a_part_of_a_concatenation() -> None:
    """Channels beside others' channels, as in a dense block."""
    b = Build()
    x = b.op("tanh", b.leaf(array(2, 4, 6, 6)))
    y = b.op("sin", b.leaf(array(2, 3, 6, 6)))
    both = b.op("cat", x, y, attrs=(1,))
    attrs = ((1, 1), (0, 0), (1, 1), 1)
    one = b.op("conv", x, b.leaf(array(5, 4, 3, 3)), attrs=attrs, shape=(2, 5, 4, 4))
    two = b.op("conv", both, b.leaf(array(5, 7, 3, 3)), attrs=attrs, shape=(2, 5, 4, 4))
    b.check(one, two)


def test_products_of_one_vector_with_two_matrices() -> None:
    """The sum over k is split into parts: partial results of other matrices are not shared."""
    b = Build()
    x = b.op("tanh", b.leaf(array(1, 3000)))
    first = b.op("matmul", x, b.leaf(array(3000, 65)))
    second = b.op("matmul", x, b.leaf(array(3000, 65)))
    b.check(first, second)


@pytest.mark.parametrize("last", [5, 32])
def test_what_is_only_rearranged_is_computed_in_its_place(last: int) -> None:
    """Heads put together: a product, and something made of a product, read by products."""
    b = Build()
    q, k = (b.leaf(array(3, 4, 16, last)) for _ in range(2))
    scores = b.op("matmul", q, b.op("permute", k, attrs=((0, 1, 3, 2),)))
    mixed = b.op("matmul", scores, k)
    scaled = b.op("mul", mixed, b.op("full", attrs=(0.5,), shape=(3, 4, 16, last)))
    together = []
    for heads in (mixed, scaled):
        turned = b.op("permute", heads, attrs=((0, 2, 1, 3),))
        together.append(b.op("reshape", turned, shape=(48, 4 * last)))
    weight = b.leaf(array(4 * last, 7))
    outputs = [b.op("matmul", t, weight) for t in together]
    outputs.append(b.op("sum", scaled, attrs=((0, 1),)))
    b.check(*outputs)
    b.check(*outputs, *together)
    b.check(*outputs, mixed, together[1])
    made = Executable(b.steps, outputs, {})
    silent = [r for _, r in made.reports if not r.kernels]
    assert len(silent) == (2 if last == 32 else 1)     # below 2048 elements only the product


def test_rearranged_parts_of_a_concatenation() -> None:
    b = Build()
    parts = [b.op("tanh", b.leaf(array(3, 4, 16, 8))) for _ in range(3)]
    wide = [b.op("reshape", b.op("permute", p, attrs=((0, 2, 1, 3),)), shape=(48, 32))
            for p in parts]
    whole = b.op("cat", *wide, attrs=(1,))
    outputs = [b.op("matmul", whole, b.leaf(array(96, 5))), b.op("sum", whole, attrs=((0,),))]
    b.check(*outputs)
    b.check(*outputs, parts[0], wide[1])


def test_an_order_that_strides_cannot_express_is_copied() -> None:
    b = Build()
    x = b.op("exp", b.leaf(array(64, 66)))
    turned = b.op("permute", b.op("reshape", x, shape=(32, 132)), attrs=((1, 0),))
    odd = b.op("reshape", turned, shape=(96, 44))
    b.check(b.op("matmul", odd, b.leaf(array(44, 3))), b.op("sum", x, attrs=((1,),)))


@pytest.mark.parametrize("count", [1, 2, 9, 40])
@pytest.mark.parametrize("size", [1, 3, 200])
def test_concatenations_of_many_parts(count: int, size: int) -> None:
    """As outputs and as temporaries, of values that are computed and of leaves, some twice."""
    b = Build()
    parts = [b.op("exp", b.leaf(array(size, 2))) if k % 3 else b.leaf(array(size, 2))
             for k in range(count)]
    parts.append(parts[-1])
    parts.append(b.op("full", attrs=(2.5,), shape=(size, 2)))
    whole = b.op("cat", *parts, attrs=(0,))
    doubled = b.op("add", whole, whole)
    turned = b.op("sum", doubled, attrs=((1,),))
    b.check(whole)
    b.check(turned)
    b.check(whole, doubled, turned, *(p for p in parts[1:2] if count > 1))


def test_a_concatenation_of_itself_in_another() -> None:
    b = Build()
    x = b.op("tanh", b.leaf(array(40, 30)))
    one = b.op("cat", x, b.leaf(array(40, 30)), attrs=(0,))
    two = b.op("cat", one, one, attrs=(1,))
    b.check(two, b.op("sum", one, attrs=((0,),)))
    b.check(b.op("sum", two, attrs=((0,),)), one)
