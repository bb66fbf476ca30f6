"""Contractions against NumPy: shapes, strides, dtypes, instruction sets, epilogues."""

import ctypes
import itertools
from dataclasses import replace

import numpy as np
import pytest

from facula import config
from facula.codegen.llvm import LLVM_TYPES, Module
from facula.codegen.products.choice import emit_contraction
from facula.codegen.products.contraction import Contraction
from facula.runtime.jit import compile_kernels
from tests.codegen.native import function

pytest.importorskip("llvmlite")


def strides(array):
    return tuple(s // array.itemsize for s in array.strides)


class Runner:
    """Compiles an emission and runs its tiles in any order."""

    def __init__(self, emission, backwards=False):
        kernels = [k for phase in emission.phases for k in phase]
        made = compile_kernels([(k.name, k.module.text()) for k in kernels])
        self.made = made
        self.kernels = list(zip(kernels, made, strict=True))
        self.tmp = {n: np.full(size + 64, 0xFF, np.uint8) for n, size in emission.temporaries}
        self.backwards = backwards

    def __call__(self, **arrays):
        for kernel, machine in self.kernels:
            f = function(machine, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
            pointers = [(self.tmp[r] if r in self.tmp else
                         arrays[r if isinstance(r, str) else f"x{r[1]}"]).ctypes.data
                        for r in kernel.roles]
            args = (ctypes.c_void_p * len(pointers))(*pointers)
            slots = (ctypes.c_int64 * len(pointers))(*range(len(pointers)))
            order = range(kernel.ntiles)
            for tile in reversed(order) if self.backwards else order:
                f(args, slots, tile)


def contraction(a, b, c, dtype):
    return Contraction(dtype, a.shape[:-2], a.shape[-2], b.shape[-1], a.shape[-1],
                       strides(a), strides(b), strides(c))


def random(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(-50, 50, shape).astype(dtype)
    x = rng.standard_normal(shape)
    if np.issubdtype(dtype, np.complexfloating):
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def flip(x, transposed):
    """The same values, with the last two dimensions laid out the other way."""
    return np.swapaxes(np.ascontiguousarray(np.swapaxes(x, -1, -2)), -1, -2) if transposed else x


def check(a, b, c, dtype, rtol, varies=()):
    product = replace(contraction(a, b, c, dtype), varies=frozenset(varies))
    e = emit_contraction(Module(), "gemm", product, None)
    Runner(e)(a=a, b=b, c=c)
    first = c.copy()
    wide = np.complex128 if c.dtype.kind == "c" else np.float64 if c.dtype.kind == "f" else c.dtype
    want = a.astype(wide) @ b.astype(wide)
    np.testing.assert_allclose(c.astype(wide), want, rtol=rtol, atol=rtol * (a.shape[-1] + 1))
    c[...] = 7
    Runner(e, backwards=True)(a=a, b=b, c=c)
    assert first.tobytes() == c.copy().tobytes()


SHAPES = [(1, 1, 1), (3, 17, 65), (64, 10, 64), (17, 100, 3), (65, 64, 100), (130, 70, 600),
          (5, 4, 0), (2, 1, 9), (1, 1, 70), (1, 300, 100), (260, 1, 33), (3, 37, 90), (41, 2, 128),
          (1, 7, 1), (1, 2000, 40)]


@pytest.mark.parametrize("m,n,k", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layouts(m, n, k, dtype):
    for ta, tb, tc in itertools.product((False, True), repeat=3):
        a, b = flip(random((m, k), dtype), ta), flip(random((k, n), dtype, 1), tb)
        check(a, b, flip(np.full((m, n), 7, dtype), tc), dtype,
              2e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("m", range(1, 7))
def test_few_rows_of_a_large_product(m):
    a, b = random((m, 784), "f4"), flip(random((784, 137), "f4", 1), True)
    check(a, b, np.zeros((m, 137), "f4"), "float32", 2e-6)
    check(flip(random((137, 784), "f4"), False), flip(random((784, m), "f4", 1), True),
          np.zeros((137, m), "f4"), "float32", 2e-6)


@pytest.mark.parametrize("m", [1, 2, 3, 7, 13, 14, 15, 16, 31, 128, 129, 300])
def test_extents_that_vary(m):
    """Code that is the same for any number of rows, or of products that are summed."""
    for ta, tb, tc in itertools.product((False, True), repeat=3):
        a, b = flip(random((m, 70), "f4"), ta), flip(random((70, 40), "f4", 1), tb)
        check(a, b, flip(np.full((m, 40), 7, "f4"), tc), "float32", 2e-6, "m")
        a, b = flip(random((33, m), "f4"), ta), flip(random((m, 40), "f4", 1), tb)
        check(a, b, flip(np.full((33, 40), 7, "f4"), tc), "float32", 2e-6, "k")
    bf16 = pytest.importorskip("ml_dtypes").bfloat16
    a, b = random((m, 40), "f4").astype(bf16), random((40, 33), "f4", 1).astype(bf16)
    check(a, b, np.full((m, 33), 7, bf16), "bfloat16", 1e-2, "m")


@pytest.mark.parametrize("dtype,rtol", [("float16", 2e-3), ("int64", 0), ("int8", 0), ("int16", 0),
                                        ("complex64", 1e-5), ("complex128", 1e-13)])
def test_dtypes(dtype, rtol):
    for m, n, k in ((3, 17, 65), (20, 130, 5), (2, 2, 0)):
        for ta, tb in itertools.product((False, True), repeat=2):
            a, b = flip(random((m, k), dtype), ta), flip(random((k, n), dtype, 1), tb)
            check(a, b, np.full((m, n), 7, dtype), dtype, rtol)


def test_bfloat16():
    bf16 = pytest.importorskip("ml_dtypes").bfloat16
    a, b = random((9, 40), "f4").astype(bf16), random((40, 33), "f4", 1).astype(bf16)
    check(a, b, np.full((9, 33), 7, bf16), "bfloat16", 1e-2)


def test_batches():
    a, b = random((2, 3, 30, 40), "f4"), random((2, 3, 40, 50), "f4", 1)
    out = np.zeros((2, 3, 30, 50), "f4")
    check(a, b, out, "float32", 2e-6)
    check(flip(a, True), flip(b, True), flip(out, True), "float32", 2e-6)
    check(a, np.broadcast_to(b[:1, :, :, :], b.shape), out, "float32", 2e-6)
    check(a, flip(np.broadcast_to(b[:1, :1], b.shape), False), out, "float32", 2e-6)
    shared = np.swapaxes(np.broadcast_to(random((50, 40), "f4"), (2, 3, 50, 40)), -1, -2)
    check(a, shared, out, "float32", 2e-6)


def test_odd_strides():
    a, b = random((60, 80), "f4")[::2, ::2], random((80, 90), "f4", 1)[::2, ::3]
    check(a, b, np.zeros((60, 60), "f4")[::2, ::2], "float32", 2e-6)
    a = np.broadcast_to(random((1, 40), "f4"), (30, 40))
    b = np.broadcast_to(random((40, 1), "f4"), (40, 30))
    check(a, b, np.zeros((30, 30), "f4"), "float32", 2e-6)


def test_large_is_packed():
    a, b = random((300, 1024), "f4"), random((1024, 512), "f4", 1)
    for ta, tb in itertools.product((False, True), repeat=2):
        check(flip(a, ta), flip(b, tb), np.zeros((300, 512), "f4"), "float32", 1e-5)


class BiasRelu:
    extras = 2

    def __init__(self, dtype, n):
        self.dtype, self.n, self.operands = dtype, n, []

    def ask(self, fn, m0, n0, rows, cols, batch_indices):
        """The bias is near enough."""

    def emit(self, fn, m0, n0, rows, cols, scratch_ptr, scratch_ld, batch_indices):
        assert batch_indices == ()
        t = LLVM_TYPES[self.dtype]
        with fn.loop(0, rows) as i, fn.loop(0, cols) as j:
            x = fn.load(t, fn.gep(t, scratch_ptr, fn.add(fn.mul(i, scratch_ld), j)))
            col = fn.add(n0, j)
            x = fn.val(f"fadd {t} {x}, {fn.load(t, fn.gep(t, self.operands[0], col))}")
            x = fn.val(f"select i1 {fn.val(f'fcmp ogt {t} {x}, 0.0')}, {t} {x}, {t} 0.0")
            at = fn.add(fn.mul(fn.add(m0, i), self.n), col)
            fn.store(t, x, fn.gep(t, self.operands[1], at))


@pytest.mark.parametrize("m,n,k", [(64, 128, 784), (64, 10, 64), (130, 70, 1100), (3, 5, 0)])
def test_epilogue(m, n, k):
    a, w = random((m, k), "f4"), random((n, k), "f4", 1)
    bias, out = random((n,), "f4", 2), np.zeros((m, n), "f4")
    e = emit_contraction(Module(), "fused", contraction(a, w.T, out, "float32"),
                         BiasRelu("float32", n))
    Runner(e)(a=a, b=w, x0=bias, x1=out)
    np.testing.assert_allclose(out, np.maximum(a @ w.T + bias, 0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("isa", ["amx", "avx512", "avx2", "sse2"])
def test_instruction_sets(isa):
    with config.override(ISA=isa):
        a, b = random((65, 100), "f4"), random((100, 77), "f4", 1)
        try:
            check(a, b, np.zeros((65, 77), "f4"), "float32", 2e-6)
            check(a, flip(b, True), np.zeros((65, 77), "f4"), "float32", 2e-6)
        except ValueError as error:
            pytest.skip(str(error))


def test_empty():
    for m, n in ((0, 5), (5, 0)):
        e = emit_contraction(Module(), "none", Contraction("float32", (), m, n, 4, (4, 1), (n, 1),
                                                           (n, 1)), None)
        assert e.phases == []
