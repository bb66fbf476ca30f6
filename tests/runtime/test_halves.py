"""A phase's kernels dealt out in halves, and inner functions compiled apart."""

import numpy as np
import pytest

import facula
from facula.codegen.llvm import APART, LIGHT, Fn, Module
from facula.codegen.products.tiles import PARAMS
from facula.runtime import jit
from facula.runtime.program import _in_halves


@pytest.mark.parametrize("tiles", [(5,), (1, 1), (1, 1, 1), (4, 6), (7, 3, 1), (1, 20, 2, 9),
                                   (0, 3)])
def test_every_tile_is_there_once_and_each_end_has_half_of_each_kernel(tiles):
    rows = _in_halves([[100 + k, 200 + k, n, 0] for k, n in enumerate(tiles)])
    order = [(f, first + t) for f, _, n, first in rows for t in range(n)]
    assert sorted(order) == [(100 + k, t) for k, n in enumerate(tiles) for t in range(n)]
    if len(tiles) > 1:
        front = order[:sum(tiles) // 2]
        for k, n in enumerate(tiles):
            assert abs(sum(f == 100 + k for f, _ in front) - n / 2) <= 1
        for k in range(len(tiles)):         # in memory's order, from either end
            numbers = [t for f, t in order if f == 100 + k]
            assert numbers == sorted(numbers)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_kernels_side_by_side(threads):
    before = facula.get_num_threads()
    facula.set_num_threads(threads)
    try:
        rng = np.random.default_rng(0)
        a, b = rng.standard_normal((2, 700, 900)).astype(np.float32)
        x, y = facula.tensor(a), facula.tensor(b)
        for _ in range(4):
            got = [(x * 2).sum(1), (y + 1).sum(0), x.T @ y, (x - y).amax(0)]
            got = [g.numpy() for g in got]
    finally:
        facula.set_num_threads(before)
    want = [(a * 2).sum(1), (b + 1).sum(0), a.T @ b, (a - b).max(0)]
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-3)


def in_two_parts() -> Module:
    """A kernel around an inner function, each of which reads a constant."""
    module = Module()
    three = module.define("k_table", "internal unnamed_addr constant [2 x i32] [i32 3, i32 4]")
    five = module.define("k_other", "internal unnamed_addr constant i32 5")
    one = Fn(module, "k_inner", [("ptr", "x"), ("i64", "n")], "float", "noinline nounwind", True)
    hint = module.metadata("!{i32 1}")
    value = one.load("i32", one.gep("i32", three, "%n"), extra=f", !nontemporal {hint}")
    one.finish(f"float {one.val(f'sitofp i32 {value} to float')}")
    fn = Fn(module, "k", PARAMS, attrs="nounwind")
    root = module.declare("float @llvm.sqrt.f32(float)")
    a = fn.val("call float @k_inner(ptr %args, i64 1)")
    b = fn.val(f"call float {root}(float {a})")
    c = fn.val(f"sitofp i32 {fn.load('i32', five)} to float")
    fn.store("float", fn.val(f"fadd float {b}, {c}"), "%args")
    fn.finish()
    return module


def test_inner_functions_stand_apart():
    text = in_two_parts().text()
    outer, inner = text.split(APART)
    assert inner.startswith(LIGHT) and not outer.startswith(LIGHT)
    assert "define float @k_inner(ptr %x, i64 %n)" in inner and "define void @k(" in outer
    assert "declare float @k_inner(ptr %x, i64 %n)" in outer and "@k_other" not in inner
    assert "@k_table = " in inner and "!0 = !{i32 1}" in inner
    optimised = jit.assembly(text, optimised_ir=True)
    assert "define internal" in optimised and optimised.count("define ") == 2


def test_a_module_that_is_written_as_it_is_to_be_stays_whole():
    module = in_two_parts()
    module.light = True
    text = module.text()
    assert APART not in text and text.startswith(LIGHT) and "define internal float @k_inner" in text


def test_a_module_without_inner_functions_is_one():
    module = Module()
    Fn(module, "k", PARAMS).finish()
    assert APART not in module.text()


@pytest.mark.parametrize("light", [False, True])
def test_the_two_parts_call_each_other(light):
    import ctypes
    module = in_two_parts()
    module.light = light
    kernel = jit.compile_kernels([("k", module.text())])[0]
    out = ctypes.c_float()
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(kernel.address)(
        ctypes.addressof(out), None, 0)
    assert out.value == 7.0


def test_what_is_wrong_in_either_part_is_shown():
    text = in_two_parts().text()
    for name in ("@llvm.sqrt.f32(float %", "sitofp i32 %v2"):
        with pytest.raises(RuntimeError, match="does not parse"):
            jit.compile_text(text.replace(name, "nonsense"))
