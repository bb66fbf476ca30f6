"""A phase's kernels dealt out in halves, and inner functions compiled apart."""

import numpy as np
import pytest

import facula
from facula.codegen.llvm import LIGHT
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


TEXT = """@k_table = internal unnamed_addr constant [2 x i32] [i32 3, i32 4], align 64
@k_other = internal unnamed_addr constant [1 x i32] [i32 5], align 64
declare float @llvm.sqrt.f32(float)
define internal float @k_inner(ptr %x, i64 %n) noinline nounwind {
entry:
  %p = getelementptr i32, ptr @k_table, i64 %n
  %v = load i32, ptr %p, !invariant.load !0
  %f = sitofp i32 %v to float
  ret float %f
}
define void @k(ptr %args, ptr %map, i64 %tile) nounwind {
entry:
  %a = call float @k_inner(ptr %args, i64 1)
  %b = call float @llvm.sqrt.f32(float %a)
  %o = load i32, ptr @k_other
  %c = sitofp i32 %o to float
  %d = fadd float %b, %c
  store float %d, ptr %args
  ret void
}
!0 = !{}
"""


def test_a_module_in_two_parts():
    outer, inner, names = jit._parts(TEXT)
    assert names == ["k_inner"] and inner.startswith(LIGHT)
    assert "k_other" not in inner and "@k_table = " in inner and "!0 = !{}" in inner
    assert "define internal" not in outer and "declare float @k_inner(ptr %x, i64 %n)" in outer
    assert jit._parts(LIGHT + TEXT) == (LIGHT + TEXT, "", [])
    optimised = jit.assembly(TEXT, optimised_ir=True)
    assert "define internal" in optimised and optimised.count("define ") == 2


def test_the_two_parts_call_each_other():
    import ctypes
    kernel = jit.compile_kernels([("k", TEXT)])[0]
    out = ctypes.c_float()
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(kernel.address)(
        ctypes.addressof(out), None, 0)
    assert out.value == 7.0
