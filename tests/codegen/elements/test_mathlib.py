"""Transcendental functions in kernels: accuracy, special values, vectors."""

import ctypes
import re

import numpy as np
import pytest

from facula import config
from facula.codegen.elements.mathlib import FUNCTIONS, FUNCTIONS2, emit_math, emit_math2
from facula.codegen.elements.mathlib.trigonometric import NEAR
from facula.codegen.llvm import Fn, Module
from facula.codegen.target import target
from facula.dtype import float32, float64
from facula.ops.primitive.functions.normal import erfinv
from facula.runtime.jit import assembly, compile_kernels
from tests.codegen.native import function

pytest.importorskip("llvmlite")

DTYPES = {np.dtype("f4"): (float32, "float"), np.dtype("f8"): (float64, "double")}
NUMPY = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh",
         "acosh": "arccosh", "atanh": "arctanh", "atan2": "arctan2", "pow": "power"}
# largest error in units in the last place
LIMIT = {"pow": 4, "erfc": 4, "erfinv": 4, "asinh": 4, "acosh": 4, "atanh": 4, "fmod": 0}
EXTENDED = np.finfo(np.longdouble).nmant > 60
inf, nan = np.inf, np.nan

both = pytest.mark.parametrize("dtype", list(DTYPES), ids=str)


def kernel_text(name, dtype):
    """A loop over arrays: out[i] = name(x[i]) or name(x[i], y[i])."""
    own, type_ = DTYPES[np.dtype(dtype)]
    module = Module()
    fn = Fn(module, "kernel", [("ptr", "x"), ("ptr", "y"), ("ptr noalias", "out"), ("i64", "n")],
            attrs=target().attributes)
    with fn.loop(0, "%n") as i:
        x = fn.load(type_, fn.gep(type_, "%x", i))
        if name in FUNCTIONS2:
            y = fn.load(type_, fn.gep(type_, "%y", i))
            value = emit_math2(fn, name, x, y, own)
        else:
            value = emit_math(fn, name, x, own)
        fn.store(type_, value, fn.gep(type_, "%out", i))
    fn.finish()
    return module.text()


def run(name, *arrays):
    x = np.ascontiguousarray(arrays[0])
    y = np.ascontiguousarray(arrays[-1])
    assert x.shape == y.shape and x.dtype == y.dtype
    kernel, = compile_kernels([("kernel", kernel_text(name, x.dtype))])
    call = function(kernel, *[ctypes.c_void_p] * 3, ctypes.c_int64)
    out = np.empty_like(x)
    call(x.ctypes.data, y.ctypes.data, out.ctypes.data, x.size)
    return out


def error_functions(x):
    """erf and erfc in extended precision: the series with positive terms (Abramowitz and Stegun
    7.1.6) and, from 2 on, the continued fraction (7.1.14)."""
    real = x.dtype.type
    size = np.minimum(np.abs(x), real(110))
    near = np.minimum(size, real(3.5))
    scale = 2 / np.sqrt(np.arccos(real(-1)))
    term, total = near.copy(), near.copy()
    for n in range(1, 90):
        term = term * (2 * near * near / (2 * n + 1))
        total = total + term
    inner = scale * np.exp(-near * near) * total
    inner = np.where(size < 1e-10, scale * size, inner)
    far = np.maximum(size, real(2))
    fraction = far * 0
    for k in range(300, 0, -1):
        fraction = (k / real(2)) / (far + fraction)
    rest = np.where(size > 2, np.exp(-far * far) / (far + fraction) * scale / 2, 1 - inner)
    value = np.copysign(np.where(size > 2, 1 - rest, inner), x)
    return (np.where(np.isnan(x), x, value),
            np.where(np.isnan(x), x, np.where(x < 0, 2 - rest, rest)))


def inverse_error_function(x):
    """One step of Newton's from the value in double."""
    y = erfinv(x.astype(np.float64)).astype(x.dtype)
    if x.dtype == np.float64:
        return y
    inner = error_functions(y)[0]
    miss = np.where(np.abs(x) < 0.5, inner - x, (1 - np.abs(x) - error_functions(np.abs(y))[1])
                    * np.sign(x))
    better = y - miss * np.exp(y * y) * np.sqrt(np.arccos(x.dtype.type(-1))) / 2
    return np.where(np.isfinite(y) & (y != 0), better, y)


def reference(name, *arrays):
    """The function in the next wider type."""
    wide = np.float64 if arrays[0].dtype == np.float32 else np.longdouble
    with np.errstate(all="ignore"):
        arrays = [a.astype(wide) for a in arrays]
        if name in ("erf", "erfc"):
            return error_functions(arrays[0])[name == "erfc"]
        if name == "erfinv":
            return inverse_error_function(arrays[0])
        return getattr(np, NUMPY.get(name, name))(*arrays)


def errors(got, wanted):
    """Distances in units in the last place of the result; inf where a special value differs."""
    info = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        rounded = wanted.astype(got.dtype)
        _, exponent = np.frexp(np.abs(wanted))
        unit = np.ldexp(wanted.dtype.type(1),
                        np.maximum(exponent - 1 - info.nmant, info.minexp - info.nmant))
        distance = np.abs(got.astype(wanted.dtype) - wanted) / unit
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    plain = np.isfinite(rounded) & np.isfinite(got)
    distance = np.where(plain, distance, np.where(same, 0, inf))
    return np.where((np.signbit(got) != np.signbit(rounded)) & ~np.isnan(rounded), inf, distance)


def samples(dtype, count):
    """All exponents (NaNs and denormals among them), and ranges where the functions bend."""
    rng = np.random.default_rng(7)
    dtype = np.dtype(dtype)
    bits = rng.integers(0, 2 ** (8 * dtype.itemsize) - 1, count, dtype=f"u{dtype.itemsize}",
                        endpoint=True)
    part = count // 4
    ranges = [rng.uniform(-b, b, part) for b in (1, 10, 100, 800, 1e5)]
    ranges += [1 + rng.normal(size=part) * 0.01, 2 ** rng.uniform(-30, 30, part)]
    near_right_angles = np.arange(1, part) * (np.pi / 2)
    tiny = rng.integers(1, 1000, 100) * float(np.finfo(dtype).smallest_subnormal)
    parts = [*ranges, tiny, -tiny, near_right_angles]
    return np.concatenate([bits.view(dtype), *[p.astype(dtype) for p in parts]])


@both
@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_one_argument(name, dtype):
    if dtype == np.float64 and not EXTENDED:
        pytest.skip("no type wider than double here")
    x = samples(dtype, 100_000 if dtype == np.float32 else 20_000)
    assert x.dtype == dtype
    worst = errors(run(name, x), reference(name, x))
    at = int(np.argmax(worst))
    assert worst[at] <= LIMIT.get(name, 2), (x[at], run(name, x)[at], reference(name, x)[at])


@both
@pytest.mark.parametrize("name", list(FUNCTIONS2))
def test_two_arguments(name, dtype):
    if dtype == np.float64 and not EXTENDED:
        pytest.skip("no type wider than double here")
    rng = np.random.default_rng(3)
    x = samples(dtype, 20_000)
    y = rng.permutation(x)
    base = np.exp2(rng.uniform(-1.5, 1.5, 20_000)).astype(dtype)
    power = rng.uniform(-1000, 1000, 20_000).astype(dtype)
    x, y = np.concatenate([x, base, power]), np.concatenate([y, power, base])
    worst = errors(run(name, x, y), reference(name, x, y))
    at = int(np.argmax(worst))
    assert worst[at] <= LIMIT.get(name, 2), (x[at], y[at], run(name, x, y)[at])


SPECIAL = {
    "exp": [(0, 1), (-0.0, 1), (inf, inf), (-inf, 0), (nan, nan), (1e4, inf), (-1e4, 0)],
    "exp2": [(0, 1), (3, 8), (-2, 0.25), (inf, inf), (-inf, 0), (nan, nan), (5000, inf)],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -1), (nan, nan), (-300, -1)],
    "log": [(1, 0.0), (0.0, -inf), (-0.0, -inf), (-1, nan), (inf, inf), (-inf, nan), (nan, nan)],
    "log2": [(1, 0.0), (8, 3), (0.25, -2), (0.0, -inf), (-1, nan), (inf, inf), (nan, nan)],
    "log10": [(1, 0.0), (1000, 3), (0.0, -inf), (-1, nan), (inf, inf), (nan, nan)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (-1, -inf), (-2, nan), (inf, inf), (-inf, nan)],
    "sin": [(0.0, 0.0), (-0.0, -0.0), (inf, nan), (-inf, nan), (nan, nan)],
    "cos": [(0.0, 1), (-0.0, 1), (inf, nan), (-inf, nan), (nan, nan)],
    "tan": [(0.0, 0.0), (-0.0, -0.0), (inf, nan), (-inf, nan), (nan, nan)],
    "asin": [(0.0, 0.0), (-0.0, -0.0), (1, np.pi / 2), (-1, -np.pi / 2), (1.5, nan), (inf, nan)],
    "acos": [(1, 0.0), (-1, np.pi), (0, np.pi / 2), (1.5, nan), (-1.5, nan), (-inf, nan)],
    "atan": [(0.0, 0.0), (-0.0, -0.0), (inf, np.pi / 2), (-inf, -np.pi / 2), (nan, nan)],
    "sinh": [(0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -inf), (nan, nan), (-1e4, -inf)],
    "cosh": [(0.0, 1), (inf, inf), (-inf, inf), (nan, nan), (-1e4, inf)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (inf, 1), (-inf, -1), (nan, nan), (1e9, 1)],
    "asinh": [(0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -inf), (nan, nan)],
    "acosh": [(1, 0.0), (0.5, nan), (-5, nan), (-inf, nan), (inf, inf), (nan, nan)],
    "atanh": [(0.0, 0.0), (-0.0, -0.0), (1, inf), (-1, -inf), (2, nan), (-inf, nan), (nan, nan)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (inf, 1), (-inf, -1), (nan, nan), (30, 1)],
    "erfinv": [(0.0, 0.0), (-0.0, -0.0), (1, inf), (-1, -inf), (1.5, nan), (-inf, nan), (nan, nan)],
    "erfc": [(0.0, 1), (inf, 0.0), (-inf, 2), (nan, nan), (1e3, 0.0), (-30, 2)],
}


@both
@pytest.mark.parametrize("name", list(SPECIAL))
def test_special_values(name, dtype):
    x, wanted = (np.array(column, dtype) for column in zip(*SPECIAL[name], strict=True))
    got = run(name, x)
    np.testing.assert_array_equal(got, wanted)
    signs = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(got)[signs], np.signbit(wanted)[signs])


def test_every_function_has_special_values():
    assert set(SPECIAL) == set(FUNCTIONS)


@both
@pytest.mark.parametrize("name", list(FUNCTIONS2))
def test_special_pairs(name, dtype):
    info = np.finfo(dtype)
    values = [0.0, 1.0, 0.5, 2.0, 3.0, 2.5, 1e9, 2.0 ** 53, inf, info.max, info.tiny,
              info.smallest_subnormal, 1 - info.epsneg, 1 + info.eps]
    values = np.array([*values, nan, *[-v for v in values]], dtype)
    x, y = (g.ravel() for g in np.meshgrid(values, values))
    wanted = reference(name, x, y)
    assert errors(run(name, x, y), wanted).max() <= LIMIT.get(name, 2)


@both
def test_fmod_is_exact_for_any_quotient(dtype):
    rng = np.random.default_rng(5)
    y = samples(dtype, 5000)
    y = y[np.isfinite(y) & (y != 0)]
    with np.errstate(all="ignore"):
        whole = np.round(y * np.exp2(rng.uniform(0, 60, y.size)).astype(y.dtype) / y) * y
        x = np.concatenate([whole, np.nextafter(whole, dtype.type(0)), np.nextafter(whole, inf),
                            y * 2, y * 3, np.full_like(y, np.finfo(dtype).max)]).astype(dtype)
        y = np.tile(y, 6)
        wanted = np.fmod(x, y)
    got = run("fmod", x, y)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_far_arguments_of_circular_functions(name):
    """Known to 25 digits: 2^1023, and the double that comes closest to a multiple of pi/2."""
    x = np.array([2.0 ** 1023, 6381956970095103 * 2.0 ** 797, 1e22, 2.0 ** 20 + 0.5, 2.0 ** 20])
    sine = np.array([0.5631277798508840134529434, 1.0, -0.8522008497671888017727059])
    cosine = np.array([-0.8263698346141479151785784, -4.687165924254627611122582e-19,
                       0.5232147853951389454975936])
    wanted = {"sin": sine, "cos": cosine, "tan": sine / cosine}[name]
    got = run(name, x)
    np.testing.assert_allclose(got[:3], wanted, rtol=4e-16)
    np.testing.assert_allclose(got[3:], getattr(np, name)(x[3:]), rtol=4e-16)


def calls(name, dtype):
    """What the optimised kernel calls, and the vectors of the kernel function."""
    text = assembly(kernel_text(name, dtype), optimised_ir=True)
    body = re.search(r"define void @kernel\(.*?\n}", text, re.DOTALL).group()
    return set(re.findall(r"call [^@\n]*@([\w.]+)", body)), body


@both
@pytest.mark.parametrize("name", [*FUNCTIONS, *FUNCTIONS2])
def test_loops_become_vectors(name, dtype):
    called, body = calls(name, dtype)
    lanes = target().lanes(dtype.itemsize)
    assert f"<{lanes} x {DTYPES[dtype][1]}>" in body
    # rare arguments: the variant of the function that takes whole vectors
    allowed = re.compile(r"llvm\.|math\.(sin|cos|tan|fmod)\.(float|double)(\.v\d+)?$")
    assert [c for c in called if not allowed.match(c)] == []
    if name in ("sin", "cos", "tan", "fmod"):
        assert any(re.search(r"\.v\d+$", c) and c.startswith("math.") for c in called)
    # an intrinsic that no instruction answers would be a call of the C library after all
    assert not {c.split(".")[1] for c in called if c.startswith("llvm.")} & {
        "exp", "log", "sin", "cos", "pow", "floor", "round", "roundeven", "rint", "trunc"}


@both
@pytest.mark.parametrize("name", ["sin", "cos"])
def test_of_small_arguments_is_the_same_bit_by_bit(name, dtype):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-NEAR, NEAR, 2000), rng.uniform(-7, 7, 2000),
                        [NEAR, -NEAR, 0.0, -0.0, 1e-300, 5e-39]]).astype(dtype)
    bits = f"i{dtype.itemsize}"
    np.testing.assert_array_equal(run(f"near {name}", x).view(bits), run(name, x).view(bits))
    assert not [c for c in calls(f"near {name}", dtype)[0] if not c.startswith("llvm.")]


@pytest.mark.parametrize("isa", ["sse2", "avx2"])
def test_lower_instruction_sets(monkeypatch, isa):
    from facula.runtime.jit import host
    monkeypatch.setattr(config.flag, "ISA", isa)
    try:
        host()
    except ValueError:
        pytest.skip(f"no {isa} here")
    x = samples(np.float32, 4000)
    y = np.random.default_rng(1).permutation(x)
    for name in [*FUNCTIONS, *FUNCTIONS2]:
        args = (x, y) if name in FUNCTIONS2 else (x,)
        worst = errors(run(name, *args), reference(name, *args)).max()
        assert worst <= LIMIT.get(name, 2), name
    if EXTENDED:
        for name in ("exp", "log", "tan", "pow", "fmod"):
            args = tuple(samples(np.float64, 1000)[::step] for step in (1, -1))
            args = args if name in FUNCTIONS2 else args[:1]
            worst = errors(run(name, *args), reference(name, *args)).max()
            assert worst <= LIMIT.get(name, 2), name
    assert not [c for c in calls("pow", np.dtype("f8"))[0] if not c.startswith("llvm.")]
