"""The table of primitives: NumPy meanings against PyTorch, inference, derivatives."""

from __future__ import annotations

import math

import numpy as np
import pytest

import facula.dtypes as d
from facula.errors import DTypeError, ShapeError
from facula.graph.spec import spec
from facula.ops.table import PRIMS


def maker(seed=0):
    rng = np.random.default_rng(seed)

    def make(*shape, dtype=d.float32, low=-2, high=2, requires_grad=False):
        if not isinstance(dtype, d.DType):
            dtype = d.from_numpy_dtype(dtype)
        if dtype.kind == "b":
            return np.asarray(rng.integers(0, 2, shape)).astype(bool)
        if dtype.kind in "ui":
            return np.asarray(rng.integers(int(low), int(high) + 1, shape)).astype(dtype.np)
        values = rng.uniform(low, high, shape)
        if dtype.kind == "c":
            values = values + 1j * rng.uniform(low, high, shape)
        elif dtype.itemsize == 2:
            values = np.asarray(values).astype(np.float32)
        return np.asarray(values).astype(dtype.np)
    return make


def specs_of(sample):
    specs = [spec(a.shape, d.from_numpy_dtype(a.dtype)) for a in sample.arrays]
    given = None
    if sample.shape is not None or sample.dtype is not None:
        shape = sample.shape if sample.shape is not None else specs[0].shape
        given = spec(shape, sample.dtype if sample.dtype is not None else specs[0].dtype)
    return specs, given


def evaluate(name, sample):
    p = PRIMS[name]
    specs, given = specs_of(sample)
    return p.numpy(sample.arrays, sample.attrs, p.infer(specs, sample.attrs, given))


def run(name, *arrays, attrs=(), shape=None, dtype=None):
    from facula.ops.primitive.record import Sample
    return evaluate(name, Sample(tuple(map(np.asarray, arrays)), attrs, shape, dtype))


COMPUTED = sorted(n for n, p in PRIMS.items() if p.kind not in ("leaf", "history"))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", COMPUTED)
def test_meaning_has_the_inferred_spec_and_does_not_warn(name):
    p = PRIMS[name]
    for sample in p.samples(maker()):
        specs, given = specs_of(sample)
        out = p.infer(specs, sample.attrs, given)
        before = [a.copy() for a in sample.arrays]
        result = p.numpy(sample.arrays, sample.attrs, out)
        result = np.asarray(result)             # a zero-dim result may be a NumPy scalar
        assert result.shape == out.shape and result.dtype == out.dtype.np, sample
        for a, b in zip(sample.arrays, before):
            assert a.tobytes() == b.tobytes()


# ------------------------------------------------------------------------------ against PyTorch

OTHER_NAMES = {"conj": "conj_physical", "shift_left": "bitwise_left_shift",
               "shift_right": "bitwise_right_shift"}
TOLERANCE = {"float64": 4e-15, "float32": 4e-6, "float16": 2e-3, "bfloat16": 1.6e-2,
             "complex128": 1e-13, "complex64": 4e-5}
OF_TORCH = [n for n, p in PRIMS.items() if p.kind in ("elementwise", "reduce", "scan")
            and n not in ("alias", "bitcast", "imag", "real", "cast")]
DIVISIONS = ("floor_divide", "remainder", "fmod")


def to_torch(torch, array):
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def from_torch(torch, t):
    t = t.resolve_conj()
    return t.float().numpy() if t.dtype == torch.bfloat16 else t.numpy()


def torch_result(torch, name, sample, tensors):
    if name in ("cummax", "cummin"):
        return getattr(torch, name)(tensors[0], sample.attrs[0]).values
    fn = getattr(torch, OTHER_NAMES.get(name, name))
    kind = PRIMS[name].kind
    x = tensors[0]
    if kind == "scan":
        return fn(x, sample.attrs[0], dtype=x.dtype)
    if kind == "elementwise":
        return fn(*tensors)
    axes = sample.attrs[0]
    if name in ("argmax", "argmin"):
        return fn(x.to(torch.uint8) if x.dtype == torch.bool else x, axes)
    if axes == ():
        return x.bool() if name in ("any", "all") else x
    if name == "prod":
        for axis in sorted(axes, reverse=True):
            x = torch.prod(x, axis, dtype=x.dtype)
        return x
    return fn(x, dim=axes, dtype=x.dtype) if name == "sum" else fn(x, dim=axes)


@pytest.mark.parametrize("name", OF_TORCH)
def test_meaning_against_torch(name):
    torch = pytest.importorskip("torch")
    from facula.ops.primitive.record import Sample
    if not hasattr(torch, OTHER_NAMES.get(name, name)):
        pytest.skip("PyTorch has no function of this name (OTHER_NAMES knows synonyms)")
    compared = 0
    for sample in PRIMS[name].samples(maker(1)):
        arrays = list(sample.arrays)
        kind, dtype = arrays[-1].dtype.kind, arrays[-1].dtype.name
        if kind == "c" and not all(np.isfinite(a).all() for a in arrays):
            continue                    # PyTorch's own kernels disagree with each other there
        if kind in "ui" and name in DIVISIONS:
            # division by zero raises in PyTorch, and the smallest integer by -1 ends the process
            arrays[1] = np.where((arrays[1] == 0) | (arrays[1] == arrays[1].dtype.type(-1)
                                                     if kind == "i" else arrays[1] == 0),
                                 1, arrays[1]).astype(dtype)
        if name.startswith("shift"):
            arrays[1] = np.clip(arrays[1], 0, 7).astype(dtype)
        sample = Sample(tuple(arrays), sample.attrs)
        mine = evaluate(name, sample)
        try:
            want = torch_result(torch, name, sample, [to_torch(torch, a) for a in arrays])
        except (RuntimeError, NotImplementedError) as e:
            if any(w in str(e) for w in ("not implemented for", "does not support", "not supported",
                                         "upported for complex", "zero size")):
                continue
            raise
        want = from_torch(torch, want)
        compared += 1
        if name in ("remainder", "fmod") and dtype in TOLERANCE:
            # PyTorch's vector code gives up on enormous quotients
            with np.errstate(all="ignore"):
                a, b = (v.astype(np.float64) for v in arrays)
                sane = ~((np.abs(a / b) > 1e6) & np.isfinite(a) & (b != 0))
            mine, want = mine[sane], want[sane]
        if name == "copysign":
            # the sign of a NaN is lost on the way through other dtypes
            sane = ~np.isnan(arrays[1])
            mine, want = mine[sane], want[sane]
        if mine.dtype.name == "bfloat16":
            mine = mine.astype(np.float32)
        assert mine.shape == want.shape
        if mine.dtype.kind in "fc" and want.dtype.kind in "fc":
            tolerance = TOLERANCE[dtype] * (1 if PRIMS[name].kind == "elementwise" else 8)
            tiny = np.finfo(np.float32).tiny if dtype == "bfloat16" else \
                np.finfo(mine.dtype).smallest_subnormal
            floor = tolerance if kind == "c" else 4 * float(tiny)
            if name == "erf" and arrays[0].dtype.itemsize == 2:
                floor = 2e-7            # PyTorch's vector code is exact to that
            with np.errstate(all="ignore"):
                np.testing.assert_allclose(mine, want, rtol=tolerance,
                                           atol=floor, err_msg=f"{name} {dtype}")
        else:
            np.testing.assert_array_equal(mine, want, err_msg=f"{name} {dtype}")
    assert compared


# ------------------------------------------------------------------------------ derivatives

def tensor(array, requires_grad=False):
    from facula.graph.record import Node
    from facula.runtime.allocator import from_numpy_private
    from facula.tensor import make
    array = np.array(array)
    t = make(Node((None, -1), spec(array.shape, d.from_numpy_dtype(array.dtype)),
                  from_numpy_private(array)))
    return t.requires_grad_() if requires_grad else t


def value(t):
    return np.array(t._peek())


def dot(a, b):
    """The real inner product, which complex gradients are defined with."""
    return float(np.sum(np.real(np.conj(a) * b)))


def smooth(sample):
    """Whether finite differences mean something at this sample."""
    floats = [a for a in sample.arrays if a.dtype.kind in "fc"]
    return (floats and all(a.dtype.name in ("float64", "complex128") for a in floats)
            and all(np.isfinite(a).all() and a.size for a in floats)
            and not any((np.abs(a) > 1e10).any() or (a.size > 1 and (a == 0).any())
                        for a in floats))


def directions(arrays, rng):
    out = []
    for a in arrays:
        if a.dtype.kind not in "fc":
            out.append(None)
        elif a.dtype.kind == "c":
            out.append(rng.standard_normal(a.shape) + 1j * rng.standard_normal(a.shape))
        else:
            out.append(np.asarray(rng.standard_normal(a.shape)))
    return out


def moved(sample, vs, h):
    from facula.ops.primitive.record import Sample
    return Sample(tuple(a if v is None else np.asarray(a + h * v)
                        for a, v in zip(sample.arrays, vs)),
                  sample.attrs, sample.shape, sample.dtype)


# Matrix primitives mean symmetric matrices and vectors up to their phase: tests/linalg has them.
# Some functions have, as in PyTorch, no derivative in their first operand; a drawn number has an
# implicit one, at a fixed probability and not at fixed seeds: tests/distributions has it.
DIFFERENTIABLE = [n for n in COMPUTED
                  if PRIMS[n].differentiable and PRIMS[n].kind not in ("matrix", "drawn")
                  and n not in ("zeta", "igamma", "igammac")]


def smooth_samples(name, seed=2):
    from facula.ops.primitive.record import Sample
    found = []
    for sample in PRIMS[name].samples(maker(seed)):
        if sample.dtype is None:        # float32 is too coarse for differences
            sample = Sample(tuple(a.astype(np.float64) if a.dtype == np.float32 else a
                                  for a in sample.arrays), sample.attrs, sample.shape)
        if not smooth(sample):
            continue
        specs, given = specs_of(sample)
        out = PRIMS[name].infer(specs, sample.attrs, given)
        if out.dtype.name in ("float64", "complex128"):
            found.append((sample, given))
    return found


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivatives_against_differences_and_each_other(name):
    from facula.autograd.rules import Context
    from facula.tensor import prim
    p = PRIMS[name]
    rng = np.random.default_rng(3)
    cases = smooth_samples(name)
    assert cases, name
    for sample, given in cases:
        vs = directions(sample.arrays, rng)
        h = 1e-6
        moves = (evaluate(name, moved(sample, vs, h)) - evaluate(name, moved(sample, vs, -h)))
        difference = moves / (2 * h)
        inputs = tuple(tensor(a) for a in sample.arrays)
        shape, dtype = sample.shape, sample.dtype
        out = prim(name, *inputs, attrs=sample.attrs, shape=shape, dtype=dtype)
        needs = tuple(a.dtype.kind in "fc" for a in sample.arrays)
        c = Context(inputs, out, sample.attrs, needs)
        change = p.jvp(c, tuple(None if v is None else tensor(v) for v in vs))
        assert change._node.spec is out._node.spec
        got = value(change)
        np.testing.assert_allclose(got, difference, rtol=2e-5, atol=2e-6, err_msg=f"{sample}")
        w = directions((value(out),), rng)[0]
        parts = p.vjp(c, tensor(w))
        assert len(parts) == len(inputs)
        total = 0.0
        for part, x, v in zip(parts, inputs, vs):
            if part is None:
                continue
            assert part._node.spec is x._node.spec
            total += dot(value(part), v)
        assert math.isclose(total, dot(w, got), rel_tol=1e-9, abs_tol=1e-9), sample


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_second_derivatives(name):
    """The gradient of <vjp(w), v> against differences of it."""
    from facula.autograd import grad
    from facula.tensor import prim
    rng = np.random.default_rng(4)
    for sample, given in smooth_samples(name)[:6]:
        vs = directions(sample.arrays, rng)
        us = directions(sample.arrays, rng)
        w = directions((np.asarray(evaluate(name, sample)),), rng)[0]
        live = [k for k, v in enumerate(vs) if v is not None]

        def slopes(at, second):
            inputs = [tensor(a, k in live) for k, a in enumerate(at.arrays)]
            out = prim(name, *inputs, attrs=at.attrs, shape=at.shape, dtype=at.dtype)
            parts = grad([out], [inputs[k] for k in live], grad_outputs=[tensor(w)],
                         create_graph=True, allow_unused=True)
            if not second:
                return sum(dot(value(g), vs[k]) for g, k in zip(parts, live) if g is not None)
            with_path = [(g, tensor(vs[k])) for g, k in zip(parts, live)
                         if g is not None and g.requires_grad]
            if not with_path:
                return [None] * len(live)
            return grad([g for g, _ in with_path], [inputs[k] for k in live],
                        grad_outputs=[v for _, v in with_path], allow_unused=True)

        h = 1e-6
        difference = (slopes(moved(sample, us, h), False)
                      - slopes(moved(sample, us, -h), False)) / (2 * h)
        got = sum(dot(value(g), us[k]) for g, k in zip(slopes(sample, True), live)
                  if g is not None)
        assert math.isclose(got, difference, rel_tol=5e-5, abs_tol=1e-5), (sample, got, difference)


def gradients(name, arrays, attrs=(), weight=None):
    from facula.autograd import grad
    from facula.tensor import prim
    inputs = [tensor(a, np.asarray(a).dtype.kind in "fc") for a in arrays]
    out = prim(name, *inputs, attrs=attrs)
    w = np.ones(out.shape) if weight is None else weight
    live = [t for t in inputs if t.requires_grad]
    return [value(g) for g in grad([out], live,
                                   grad_outputs=[tensor(np.asarray(w, out.dtype.np))])]


@pytest.mark.parametrize("name,a,b", [
    ("maximum", [1.0, 2, 3, 0], [1.0, 3, 2, -0.0]), ("minimum", [1.0, 2, 3, 0], [1.0, 3, 2, -0.0]),
    ("fmax", [1.0, 2, math.nan, 1], [1.0, 3, 2, math.nan]),
    ("fmin", [1.0, 2, math.nan, 1], [1.0, 3, 2, math.nan]),
    ("pow", [0.0, 0, 0, 0, 2, -2, 1], [0.0, 1, 2, 0.5, 0, 3, 7]),
    ("remainder", [5.5, -5.5, 7], [2.0, 3, -4]), ("fmod", [5.5, -5.5, 7], [2.0, 3, -4]),
    ("copysign", [1.0, -2, 0], [-1.0, 3, -4]), ("hypot", [3.0, -1], [4.0, 0]),
    ("atan2", [1.0, 0, -1], [0.0, -1, 2]), ("div", [1.0, 2], [0.0, 4]),
    ("logaddexp", [0.0, 1, 700], [0.0, -800, 700]),
])
def test_gradients_at_odd_points_are_pytorchs(name, a, b):
    torch = pytest.importorskip("torch")
    x, y = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (a, b))
    want = torch.autograd.grad(getattr(torch, name)(x, y).sum(), (x, y))
    got = gradients(name, (np.array(a), np.array(b)))
    for g, t in zip(got, want):
        np.testing.assert_allclose(g, t.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name,a", [
    ("abs", [0.0, -0.0, 2, -3]), ("sqrt", [0.0, 4]), ("sign", [0.0, 2]), ("floor", [1.0, 1.5]),
    ("round", [0.5, 1.5]), ("trunc", [0.5, 1.5]), ("ceil", [0.5, 1.5]), ("log", [0.0, 1]),
    ("rsqrt", [0.0, 4]), ("reciprocal", [0.0, 4]), ("asin", [1.0, -1]), ("acosh", [1.0, 2]),
    ("sigmoid", [1000.0, -1000, 0]), ("tanh", [1000.0, -1000, 0]), ("erf", [0.0, 30]),
    ("abs", [0j, 3 + 4j, -1j]), ("exp", [1 + 2j]), ("log", [1 + 2j, -1 + 0.5j]),
    ("sqrt", [1 + 2j, -1 - 1j]), ("acosh", [0.3 + 2j, -1 - 1j]), ("asin", [0.3 + 2j, -3 - 1j]),
    ("tan", [1 + 2j]), ("tanh", [1 + 2j]), ("reciprocal", [1 + 2j]), ("sigmoid", [1 + 2j]),
])
def test_gradients_at_odd_points_of_one_operand_are_pytorchs(name, a):
    torch = pytest.importorskip("torch")
    a = np.array(a)
    x = torch.tensor(a, requires_grad=True)
    y = getattr(torch, name)(x)
    want = torch.autograd.grad(y, x, torch.ones_like(y))[0]
    np.testing.assert_allclose(gradients(name, (a,))[0], want.resolve_conj().numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", ["pow", "div", "mul", "sub"])
def test_complex_gradients_of_two_operands_are_pytorchs(name):
    torch = pytest.importorskip("torch")
    make = maker(5)
    a, b, w = (make(7, dtype=d.complex128) for _ in range(3))
    if name == "pow":
        b[1] = 0
    x, y = (torch.tensor(v, requires_grad=True) for v in (a, b))
    want = torch.autograd.grad(getattr(torch, name)(x, y), (x, y), torch.tensor(w))
    for g, t in zip(gradients(name, (a, b), weight=w), want):
        np.testing.assert_allclose(g, t.resolve_conj().numpy(), rtol=1e-11)


def test_logaddexp_of_infinities_shares_evenly():
    inf = math.inf
    a, b = gradients("logaddexp", (np.array([inf, -inf, inf, -inf]), np.array([inf, -inf, 0, 0])))
    np.testing.assert_array_equal(a, [0.5, 0.5, 1, 0])
    np.testing.assert_array_equal(b, [0.5, 0.5, 0, 1])


@pytest.mark.parametrize("values", [[2.0, 0, 3], [0.0, 0, 3], [1.0, 2, 3], [0.0, 0, 0], [0.0]])
@pytest.mark.parametrize("name", ["prod", "cumprod"])
def test_products_with_zeros(name, values):
    torch = pytest.importorskip("torch")
    a = np.array([values, values[::-1]])
    w = np.arange(1.0, 1 + a.size).reshape(a.shape) if name == "cumprod" else np.array([1.0, 2.0])
    x = torch.tensor(a, requires_grad=True)
    y = getattr(torch, name)(x, 1)
    want = torch.autograd.grad(y, x, torch.tensor(w))[0]
    attrs = ((1,),) if name == "prod" else (1,)
    np.testing.assert_allclose(gradients(name, (a,), attrs, w)[0], want.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", ["amax", "amin"])
def test_extremes_share_between_ties(name):
    torch = pytest.importorskip("torch")
    a = np.array([[1.0, 3, 3, 0], [2, 2, 2, 2], [1, -1, 1, -1]])
    for axes in ((0,), (1,), (0, 1)):
        x = torch.tensor(a, requires_grad=True)
        y = getattr(torch, name)(x, axes)
        want = torch.autograd.grad(y, x, torch.ones_like(y))[0]
        np.testing.assert_allclose(gradients(name, (a,), (axes,))[0], want.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", ["cummax", "cummin"])
def test_running_extremes_send_the_gradient_where_they_are(name):
    torch = pytest.importorskip("torch")
    a = np.array([[1.0, 3, 3, 0, 5], [2, 2, 2, 2, 2], [1, math.nan, 1, math.nan, 7]])
    w = np.arange(1.0, 16).reshape(3, 5)
    x = torch.tensor(a, requires_grad=True)
    y = getattr(torch, name)(x, 1).values
    want = torch.autograd.grad(y, x, torch.tensor(w))[0]
    np.testing.assert_allclose(gradients(name, (a,), (1,), w)[0], want.numpy(), rtol=1e-12)


def test_half_precision_gradients_round_once():
    x = np.array([0.1, 0.7, 1.3], np.float16)
    wide = x.astype(np.float32)
    y = (1 / (1 + np.exp(-wide))).astype(np.float16).astype(np.float32)
    got = gradients("sigmoid", (x,))[0]
    np.testing.assert_array_equal(got, (y * (1 - y)).astype(np.float16))


# ------------------------------------------------------------------------------ exact meanings

def test_integers_wrap_and_never_trap():
    i8 = np.int8
    low = np.array([-128, -128, 127, 5, -5], i8)
    by = np.array([-1, 0, 1, 0, 2], i8)
    assert run("floor_divide", low, by).tolist() == [-128, 0, 127, 0, -3]
    assert run("remainder", low, by).tolist() == [0, 0, 0, 0, 1]
    assert run("fmod", low, by).tolist() == [0, 0, 0, 0, -1]
    assert run("neg", low).tolist() == [-128, -128, -127, -5, 5]
    assert run("add", low, low).tolist() == [0, 0, -2, 10, -10]
    assert run("sum", np.array([100, 100], i8), attrs=((0,),)) == -56
    assert run("prod", np.array([100, 3], i8), attrs=((0,),)) == 44
    assert run("cumsum", np.array([100, 100], i8), attrs=(0,)).tolist() == [100, -56]
    assert run("pow", np.array([1, -1, -1, 2, 0, 3], i8),
               np.array([-3, -3, -2, -1, -1, 5], i8)).tolist() == [1, -1, 1, 0, 0, -13]


def test_shifts_by_too_much():
    a = np.array([-8, -8, 5, 5, 1], np.int32)
    b = np.array([32, -1, 32, 40, 31], np.int32)
    assert run("shift_left", a, b).tolist() == [0, 0, 0, 0, -2 ** 31]
    assert run("shift_right", a, b).tolist() == [-1, -1, 0, 0, 0]
    assert run("shift_right", np.array([200], np.uint8), np.array([9], np.uint8)).tolist() == [0]


def test_floats_to_integers():
    x = np.array([1.9, -1.9, math.nan, math.inf, -math.inf, 3e9, -3e9, 300.0])
    top, low = 2 ** 31 - 1, -2 ** 31
    assert run("cast", x, dtype=d.int32).tolist() == [1, -1, 0, top, low, top, low, 300]
    assert run("cast", x, dtype=d.int8).tolist() == [1, -1, 0, -1, 0, -1, 0, 44]
    assert run("cast", x, dtype=d.int64).tolist() == [
        1, -1, 0, 2 ** 63 - 1, -2 ** 63, 3000000000, -3000000000, 300]
    assert run("cast", x, dtype=d.uint64).tolist() == [
        1, 0, 0, 2 ** 64 - 1, 0, 3000000000, 0, 300]
    assert run("cast", x, dtype=d.uint32).tolist()[5] == 3000000000
    assert run("cast", x, dtype=d.bool_).all()
    assert run("cast", np.array([1j, 0]), dtype=d.bool_).tolist() == [True, False]
    assert run("cast", np.array([1 + 2j]), dtype=d.float32).tolist() == [1.0]


def test_sixteen_bits_accumulate_in_float32():
    ones = np.ones(5000, np.float16)
    assert run("sum", ones, attrs=((0,),)) == 5000
    assert run("cumsum", ones, attrs=(0,))[-1] == 5000
    assert run("prod", np.array([300.0, 300, 1 / 300], np.float16), attrs=((0,),)) > 200


def test_nan_wins_or_loses():
    nan = math.nan
    a, b = np.array([nan, 1, nan]), np.array([1, nan, nan])
    assert np.isnan(run("maximum", a, b)).all() and np.isnan(run("minimum", a, b)).all()
    np.testing.assert_array_equal(run("fmax", a, b), [1, 1, nan])
    x = np.array([[1.0, nan, 3, nan], [2, 2, 1, 2]])
    assert run("argmax", x, attrs=(1,)).tolist() == [1, 0]
    assert run("argmin", x, attrs=(1,)).tolist() == [1, 2]
    np.testing.assert_array_equal(run("amax", x, attrs=((1,),)), [nan, 2])
    np.testing.assert_array_equal(run("cummax", x, attrs=(1,))[0], [1, nan, nan, nan])


def test_error_function_to_the_last_place():
    """erf and erfc to 2 units in the last place of a double, from 40-digit values."""
    mpmath = pytest.importorskip("mpmath")
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-1, 1, 150), rng.uniform(-6, 6, 150), rng.uniform(0, 26, 150),
                        [0.46875, 4.0, -4.0, 1e-300]])
    with mpmath.workdps(40):
        for name, exact in (("erf", mpmath.erf), ("erfc", mpmath.erfc)):
            for v, y in zip(x, run(name, x)):
                want = exact(mpmath.mpf(float(v)))
                assert abs(mpmath.mpf(float(y)) - want) <= 2 * np.spacing(abs(float(want)))
    odd = np.array([math.nan, math.inf, -math.inf, 0.0, -0.0])
    np.testing.assert_array_equal(run("erf", odd), [math.nan, 1, -1, 0, 0])
    assert np.signbit(run("erf", odd)[4])
    np.testing.assert_array_equal(run("erfc", odd), [math.nan, 0, 2, 1, 1])


# ------------------------------------------------------------------------------ inference

F, L, B, C = (spec((2, 3), t) for t in (d.float32, d.int64, d.bool_, d.complex64))


@pytest.mark.parametrize("name,specs,attrs,error", [
    ("add", (F, L), (), DTypeError), ("add", (F, spec((3,), d.float32)), (), ShapeError),
    ("add", (F,), (), TypeError), ("div", (L, L), (), DTypeError), ("exp", (L,), (), DTypeError),
    ("lt", (C, C), (), DTypeError), ("bitwise_and", (F, F), (), DTypeError),
    ("where", (F, F, F), (), DTypeError), ("where", (spec((3,), d.bool_), F, F), (), ShapeError),
    ("where", (B, F), (), TypeError), ("cast", (F,), (), DTypeError),
    ("bitcast", (F,), (), DTypeError), ("complex", (L, L), (), DTypeError),
    ("complex", (spec((2,), d.float16),) * 2, (), DTypeError), ("maximum", (C, C), (), DTypeError),
    ("sum", (F,), ((2,),), IndexError), ("sum", (F,), ((0, 0),), RuntimeError),
    ("sum", (B,), ((0,),), DTypeError), ("amax", (C,), ((0,),), DTypeError),
    ("amax", (spec((0, 3), d.float32),), ((0,),), IndexError),
    ("argmax", (spec((0, 3), d.float32),), (0,), IndexError), ("argmax", (F,), (5,), IndexError),
    ("cumsum", (F,), (2,), IndexError), ("cumsum", (B,), (0,), DTypeError),
    ("cummax", (C,), (0,), DTypeError),
])
def test_inference_raises_typed_errors(name, specs, attrs, error):
    with pytest.raises(error):
        PRIMS[name].infer(specs, attrs, None)


def test_inferred_specs():
    assert PRIMS["abs"].infer((C,), (), None) is F
    assert PRIMS["eq"].infer((F, F), (), None) is B
    assert PRIMS["sum"].infer((F,), ((1,),), None) is spec((2,), d.float32)
    assert PRIMS["any"].infer((F,), ((),), None) is B
    assert PRIMS["argmin"].infer((F,), (0,), None) is spec((3,), d.int64)
    assert PRIMS["bitcast"].infer((C,), (), spec((2, 3, 2), d.float32)).shape == (2, 3, 2)
    with pytest.raises(ShapeError):
        PRIMS["bitcast"].infer((C,), (), F)


@pytest.mark.parametrize("name", ["mul", "div", "matmul"])
def test_what_no_gradient_reads_may_be_overwritten(name):
    from facula.autograd import grad
    from facula.errors import StaleTensorError
    from facula.tensor import prim
    a, b = np.array([[1.0, 2], [3, 4]]), np.array([[2.0, 5], [1, 3]])

    def gradient(both):
        x, w = tensor(a, True), tensor(b, both)
        h = prim("exp", x)
        base = prim("add", h, h)
        out = prim(name, base, w)
        base._write(prim("neg", base))
        return grad([out], [x], grad_outputs=[tensor(np.ones((2, 2)))])[0]

    slope = {"mul": b, "div": 1 / b, "matmul": np.ones((2, 2)) @ b.T}[name]
    np.testing.assert_allclose(value(gradient(False)), 2 * np.exp(a) * slope)
    with pytest.raises(StaleTensorError):
        gradient(True)
