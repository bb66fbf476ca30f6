"""Conversions of 16-bit floats: every value of them, and floats between them, on every ISA."""

import ctypes

import numpy as np
import pytest

from facula import config
from facula.codegen.elements.half import narrow, widen
from facula.codegen.llvm import Fn, Module
from facula.runtime.jit import compile_kernels
from tests.codegen.native import function

pytest.importorskip("llvmlite")


def run(dtype, source, out, back, count):
    """Converts an array, `count` elements at a time (0: one by one)."""
    module = Module()
    fn = Fn(module, "convert", (("ptr", "x"), ("ptr", "y"), ("i64", "n")), attrs="nounwind")
    short, step = "half" if dtype == "float16" else "i16", max(count, 1)
    have, want = ("float", short) if back else (short, "float")
    of = f"<{count} x {{}}>" if count else "{}"
    with fn.loop(0, "%n", step) as i:
        value = fn.load(of.format(have), fn.gep(have, "%x", i), 2)
        value = (narrow if back else widen)(fn, dtype, value, count)
        fn.store(of.format(want), value, fn.gep(want, "%y", i), 2)
    fn.finish()
    kernel = compile_kernels([("convert", module.text())])[0]
    f = function(kernel, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    f(source.ctypes.data, out.ctypes.data, len(source))
    return out


@pytest.mark.parametrize("isa", ["", "avx2", "sse2"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("count", [0, 4, 16])
def test_all_values_and_ties(dtype, isa, count):
    kind = np.float16 if dtype == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    try:
        with config.override(ISA=isa):
            every = np.arange(65536, dtype=np.uint16).view(kind)
            wide = run(dtype, every, np.empty(65536, np.float32), False, count)
            np.testing.assert_array_equal(wide, every.astype(np.float32))
            bits = wide.view(np.uint32)
            rng = np.random.default_rng(0)
            floats = np.concatenate([bits + np.uint32(d) for d in
                                     (0, 1, 0x0FFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001)]
                                    + [rng.integers(0, 1 << 32, 1 << 16, dtype=np.uint32)])
            floats = floats.view(np.float32)
            got = run(dtype, floats, np.empty(len(floats), np.uint16), True, count).view(kind)
    except ValueError as error:
        pytest.skip(str(error))
    with np.errstate(all="ignore"):
        want = floats.astype(kind)
    nan = np.isnan(floats)
    assert np.isnan(got[nan].astype(np.float32)).all()
    np.testing.assert_array_equal(got[~nan].view(np.uint16), want[~nan].view(np.uint16))
