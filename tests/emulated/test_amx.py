"""bfloat16 products by tile registers, on emulated ones: see `tests.emulated.amx`.

More of it: `python -m pytest -p tests.emulated.amx_plugin tests/codegen` and others of the tests
that run compiled programs.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from facula import config
from facula.codegen import target as target_module
from facula.codegen.forms import Form
from facula.codegen.llvm import Module
from facula.codegen.products import amx as generator
from facula.codegen.products.choice import emit_contraction
from facula.codegen.products.contraction import Contraction
from facula.codegen.target import target
from facula.runtime import amx as asked
from facula.runtime import jit
from tests.codegen.products.test_contraction import Runner, flip, strides
from tests.emulated import amx
from tests.emulated.amx import Fault, Instruction, Machine, Memory, Tiles, decode
from tests.schedule.programs import Build

bf16: Any = pytest.importorskip("ml_dtypes").bfloat16

emulated = pytest.mark.skipif(bool(amx.here()), reason=amx.here() or "it can be emulated")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """This process has tile registers, and uses them for products of any size."""
    if amx.here():
        pytest.skip(amx.here())
    monkeypatch.setattr(generator, "LEAST", 1)
    with amx.emulated(monkeypatch.setattr) as made:
        yield made
    assert not made.in_use, "tile registers were not released"


# -- the decoder
REGISTERS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
             *[f"r{i}" for i in range(8, 16)])


def _assembled(lines: list[str]) -> bytes:
    """Machine code of assembly, by LLVM."""
    import llvmlite.binding as llvm
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()
    made = llvm.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(
        features="+amx-tile,+amx-bf16,+avx512f")
    text = "\n".join(f'module asm "{line}"' for line in lines)
    data = made.emit_object(llvm.parse_assembly(f'target triple = "{made.triple}"\n{text}'))
    file = llvm.ObjectFileRef.from_data(data)
    return next(bytes(s.data()) for s in file.sections() if s.name() == b".text")


def _written() -> list[tuple[str, Instruction]]:
    """Assembly, and what it is, without its length."""
    out = [("tilerelease", Instruction("tilerelease", 0))]
    out += [(f"tilezero %tmm{t}", Instruction("tilezero", 0, (t,))) for t in range(8)]
    for c, a, b in itertools.permutations(range(8), 3):
        out.append((f"tdpbf16ps %tmm{b}, %tmm{a}, %tmm{c}", Instruction("tdpbf16ps", 0, (c, a, b))))
    for base, (index, scale), displacement in itertools.product(
            (None, *range(16)), ((None, 1), (0, 1), (5, 2), (9, 4), (12, 8), (13, 1), (15, 2)),
            (0, 64, -128, 5184, -70000)):
        if base is None and index is None:
            continue
        memory = Memory(base, index, scale, displacement)
        text = f"{displacement or ''}({'' if base is None else '%' + REGISTERS[base]}"
        text += ")" if index is None else f",%{REGISTERS[index]},{scale})"
        t = (displacement + scale) % 8
        out.append((f"ldtilecfg {text}", Instruction("ldtilecfg", 0, (), memory)))
        if index is not None:
            out += [(f"{name} {text}, %tmm{t}", Instruction(name, 0, (t,), memory))
                    for name in ("tileloadd", "tileloaddt1")]
            out.append((f"tilestored %tmm{t}, {text}", Instruction("tilestored", 0, (t,), memory)))
    return [*out, ("ldtilecfg 4660(%rip)",
                   Instruction("ldtilecfg", 0, (), Memory("ip", None, 1, 4660)))]


@emulated
def test_instructions_are_decoded_as_they_are_assembled() -> None:
    written = _written()
    code = _assembled([text for text, _ in written])
    at = 0
    for text, want in written:
        found = decode(code[at:at + 16])
        assert found is not None, f"{text}: {code[at:at + 16].hex(' ')}"
        assert found._replace(length=0) == want, text
        at += found.length
    assert at == len(code)


@emulated
def test_other_instructions_are_not_decoded() -> None:
    lines = ["nop", "ret", "vfmadd231ps %ymm1, %ymm2, %ymm3", "andn %rax, %rbx, %rcx", "ud2",
             "vpermd %ymm1, %ymm2, %ymm3", "bzhi %eax, (%rcx), %edx", "vbroadcastss %xmm1, %xmm2",
             "vfmadd231ps %zmm1, %zmm2, %zmm3", "sttilecfg (%rax)"]
    whole_numbers = bytes.fromhex("c4e2735eda")         # tdpbssd
    for code in [*[_assembled([line]) for line in lines], whole_numbers]:
        assert decode(code.ljust(16, b"\x90")) is None, code.hex(" ")


# -- the registers
def _configured(shapes: dict[int, tuple[int, int]]) -> Tiles:
    data = np.zeros(64, np.uint8)
    data[0] = 1
    for t, (rows, nbytes) in shapes.items():
        data[16 + 2 * t], data[48 + t] = nbytes, rows
    tiles = Tiles()
    tiles.execute(Instruction("ldtilecfg", 5), data.ctypes.data, 0)
    return tiles


def test_a_product_of_pairs() -> None:
    rng = np.random.default_rng(0)
    tiles = _configured({0: (5, 28), 1: (5, 44), 2: (11, 28)})
    a, b = rng.normal(size=(5, 22)).astype(bf16), rng.normal(size=(22, 7)).astype(bf16)
    c = rng.normal(size=(5, 7)).astype("f4")
    pairs = np.ascontiguousarray(b.reshape(11, 2, 7).swapaxes(1, 2))
    out = np.full((6, 9), 3, "f4")
    for t, x, apart in ((0, c, 28), (1, a, 44), (2, pairs, 28)):
        tiles.execute(Instruction("tileloadd", 5, (t,)), x.ctypes.data, apart)
    tiles.execute(Instruction("tdpbf16ps", 5, (0, 1, 2)), 0, 0)
    tiles.execute(Instruction("tilestored", 5, (0,)), out.ctypes.data, 36)
    np.testing.assert_allclose(out[:5, :7], c + a.astype("f4") @ b.astype("f4"), rtol=1e-5,
                               atol=1e-5)
    assert (out[5:] == 3).all() and (out[:, 7:] == 3).all()
    tiles.execute(Instruction("tilerelease", 5), 0, 0)
    assert not tiles.configured and not tiles.data.any()


def test_each_step_rounds_once_and_has_no_denormals() -> None:
    def pairs(a: list[list[float]], b: list[list[float]]) -> list[float]:
        x, y = (np.asarray(v, "f4").astype(bf16).astype("f4") for v in (a, b))
        with np.errstate(all="ignore"):
            return amx.sums_of_pairs(x[None, :, None], y[None, :, None])[0, 0].tolist()

    # 2^24 + 1 + 1: each addition rounds to even, so nothing is added
    assert pairs([[2.0 ** 12, 1], [1, 1], [1, 1]], [[2.0 ** 12, 1], [1, 1], [1, 1]]) == [2 ** 24, 3]
    # 2^127 * 4 is beyond float32, less as much again it is not
    assert pairs([[2.0 ** 127, 0], [2.0 ** 127, 0]], [[4.0, 0], [-4.0, 0]])[0] == np.inf
    assert pairs([[-2.0 ** 127, 0], [2.0 ** 127, 0]], [[1.0, 0], [2.0, 0]])[0] == 2.0 ** 127
    # a denormal product is nothing, but adds to what is none
    assert pairs([[2.0 ** -80, 0]], [[2.0 ** -60, 0]])[0] == 0
    assert pairs([[2.0 ** -63, 0], [2.0 ** -80, 0]], [[2.0 ** -63, 0], [2.0 ** -50, 0]])[0] \
        == 2.0 ** -126 + 2.0 ** -130
    assert str(amx.flush(np.float32([1e-40, -1e-40, 2e-38])).tolist()[:2]) == "[0.0, -0.0]"


def test_what_is_forbidden_is_a_fault() -> None:
    product = Instruction("tdpbf16ps", 5, (0, 1, 2))
    with pytest.raises(Fault, match="not configured"):
        Tiles().execute(product, 0, 0)
    for shapes, what in (({0: (16, 64), 1: (16, 64)}, "tile 2 has no rows"),
                         ({0: (16, 64), 1: (15, 64), 2: (16, 64)}, "15 x 16"),
                         ({0: (16, 60), 1: (16, 64), 2: (16, 64)}, "into 16 x 15"),
                         ({0: (16, 64), 1: (16, 64), 2: (15, 64)}, "and 15 x"),
                         ({0: (16, 62), 1: (16, 64), 2: (16, 62)}, "62 bytes")):
        with pytest.raises(Fault, match=what):
            _configured(shapes).execute(product, 0, 0)
    with pytest.raises(Fault, match="not three"):
        _configured({0: (16, 64), 1: (16, 64)}).execute(product._replace(tiles=(0, 1, 1)), 0, 0)
    for wrong in ({0: (17, 64)}, {0: (16, 68)}, {0: (0, 64)}, {0: (16, 0)}):
        with pytest.raises(Fault):
            _configured(wrong)


# -- asking for them
def test_nobody_asks_where_the_processor_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "host_features", lambda: {"amx-tile": True})
    monkeypatch.setattr(asked, "_ask", lambda: pytest.fail("asked"))
    assert "no amx-bf16" in asked.refusal.__wrapped__() or "Linux" in asked.refusal.__wrapped__()


@emulated
def test_a_product_of_whole_numbers_decides(machine: Machine, monkeypatch: pytest.MonkeyPatch
                                            ) -> None:
    monkeypatch.setattr(asked, "_ask", lambda: 0)
    assert asked.refusal.__wrapped__() == ""
    assert machine.executed["tdpbf16ps"] and not machine.in_use
    monkeypatch.setattr(asked, "_ask", lambda: 95)
    assert "does not grant" in asked.refusal.__wrapped__()
    monkeypatch.setattr(asked, "_ask", lambda: 0)
    right = amx.sums_of_pairs
    monkeypatch.setattr(amx, "sums_of_pairs", lambda a, b: right(a, b) * np.float32(1 + 2 ** -10))
    with pytest.warns(RuntimeWarning, match="do not multiply"):
        assert "wrong" in asked.refusal.__wrapped__()


@emulated
def test_they_are_taken_where_they_are_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = jit.host_features().get("avx512f") and jit.host_features().get("avx512vl")
    for reason, isa in (("", "amx"), ("the kernel does not want to", "avx512")):
        monkeypatch.setattr(asked, "refusal", lambda reason=reason: reason)
        found = target_module._host_isa.__wrapped__()
        assert found == (isa if wide else "avx2")


@pytest.mark.skipif(not asked.refusal(), reason="there are tile registers here")
def test_without_them_their_instruction_set_is_refused() -> None:
    assert target().isa != "amx"
    with config.override(ISA="amx"):
        assert target().tiles
        with pytest.raises(ValueError, match=r"FACULA_ISA='amx': this "):
            jit.host()


# -- kernels
def _texts(m: int, n: int, k: int, a: tuple[int, ...] | None = None, varies: str = "") -> list[str]:
    product = Contraction("bfloat16", (), m, n, k, a or (k, 1), (n, 1), (n, 1),
                          varies=frozenset(varies))
    made = emit_contraction(Module(), "product", product)
    return [kernel.module.text() for phase in made.phases for kernel in phase]


def test_which_products_use_them() -> None:
    with config.override(ISA="amx"):
        assert "x86.tdpbf16ps" in _texts(64, 64, 64)[-1]
        assert "x86.tdpbf16ps" not in _texts(4, 4, 64)[-1]
        other = Contraction("float32", (), 64, 64, 64, (64, 1), (64, 1), (64, 1))
        made = emit_contraction(Module(), "product", other)
        assert not any("x86.t" in k.module.text() for phase in made.phases for k in phase)
        # A as it lies, or copied
        assert [len(_texts(64, 64, k)) for k in (64, 62, 65)] == [2, 3, 3]
    with config.override(ISA="avx512"):
        assert not any("x86.t" in text for text in _texts(64, 64, 64))


def test_one_kernel_for_any_number_of_rows() -> None:
    with config.override(ISA="amx"):
        for k in (64, 50):
            known = [Form(text.splitlines(), 3) for text in _texts(40, 48, k, varies="m")]
            for m in (5, 32, 33, 64, 77, 130):
                texts = _texts(m, 48, k, varies="m")
                assert len(texts) == len(known)
                for form, text in zip(known, texts, strict=True):
                    assert form.differences(text.splitlines()) is not None


SHAPES = [(1, 1, 1), (2, 3, 1), (5, 7, 2), (16, 16, 32), (17, 16, 33), (32, 32, 64), (33, 31, 62),
          (15, 49, 100), (70, 33, 96), (64, 20, 128), (3, 130, 31), (48, 40, 300)]


def check(machine: Machine, a: np.ndarray, b: np.ndarray, c: np.ndarray,
          varies: str = "") -> None:
    """c = a @ b for any tile order, with the same bits; `c` is overwritten."""
    product = Contraction("bfloat16", a.shape[:-2], a.shape[-2], b.shape[-1], a.shape[-1],
                          strides(a), strides(b), strides(c), varies=frozenset(varies))
    before = machine.executed["tdpbf16ps"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Runner(emit_contraction(Module(), "gemm", product))(a=a, b=b, c=c)
    assert machine.executed["tdpbf16ps"] > before
    assert not machine.in_use
    want = (a.astype(np.float64) @ b.astype(np.float64))
    scale = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))
    error = np.abs(c.astype(np.float64) - want)
    # sums in float32, and one rounding to bfloat16
    assert (error <= 2.0 ** -8 * np.abs(want) + 1e-6 * scale + 1e-30).all()


def random(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(bf16)


@emulated
@pytest.mark.parametrize("m,n,k", SHAPES)
def test_layouts(machine: Machine, m: int, n: int, k: int) -> None:
    for ta, tb, tc in itertools.product((False, True), repeat=3):
        a, b = flip(random((m, k)), ta), flip(random((k, n), 1), tb)
        check(machine, a, b, flip(np.full((m, n), 7, bf16), tc))


@emulated
def test_many_steps_of_k_are_several_blocks(machine: Machine) -> None:
    for ta, tb in itertools.product((False, True), repeat=2):
        check(machine, flip(random((35, 1100)), ta), flip(random((1100, 36), 1), tb),
              np.zeros((35, 36), bf16))
    check(machine, random((20, 4096)), random((4096, 130), 1), np.zeros((20, 130), bf16))


@emulated
def test_batches(machine: Machine) -> None:
    a, b = random((2, 3, 20, 33)), random((2, 3, 33, 18), 1)
    for turned in (False, True):
        check(machine, flip(a, turned), flip(b, turned), np.zeros((2, 3, 20, 18), bf16))
        check(machine, a, np.broadcast_to(b[:1, :, :, :], b.shape), np.zeros((2, 3, 20, 18), bf16))
        check(machine, np.broadcast_to(a[:, :1], a.shape), b, np.zeros((2, 3, 20, 18), bf16))


@emulated
@pytest.mark.parametrize("m", [1, 16, 31, 32, 45, 64, 99])
def test_extents_that_vary(machine: Machine, m: int) -> None:
    for ta, tb, k in itertools.product((False, True), (False, True), (64, 37)):
        check(machine, flip(random((m, k)), ta), flip(random((k, 40), 1), tb),
              np.zeros((m, 40), bf16), "m")
    check(machine, flip(random((33, m)), True), random((m, 40), 1), np.zeros((33, 40), bf16), "k")


@emulated
def test_strides_of_any_kind(machine: Machine) -> None:
    wide = random((80, 120))
    odd, even = wide[1:41:2, 3:99:3], wide[:40, 2:66]
    repeated = np.broadcast_to(wide[:1, :64], (40, 64))
    for a in (odd, odd[:, :21], even, wide[:40, 3:67], repeated, wide[::2, ::2][:, :50]):
        k = a.shape[1]
        for b in (random((k, 24), 1), random((2 * k, 48), 1)[::2, ::2],
                  np.broadcast_to(random((k, 1), 1), (k, 24))):
            check(machine, a, b, np.zeros((80, 48), bf16)[:a.shape[0] * 2:2, ::2])


def _fenced(x: np.ndarray, at_end: bool) -> tuple[np.ndarray, Any]:
    """A copy of `x` that ends where memory does, or begins there: reading beyond it is fatal."""
    page = mmap.PAGESIZE
    size = -(-x.nbytes // page) * page
    room = mmap.mmap(-1, size + 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(room))
    start = size + page - x.nbytes if at_end else page
    out = np.frombuffer(room, x.dtype, x.size, start).reshape(x.shape)
    out[...] = x
    library = ctypes.CDLL(None)
    for at in (address, address + size + page):
        assert library.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(page), 0) == 0
    return out, room


@emulated
@pytest.mark.parametrize("at_end", [False, True])
def test_nothing_beside_the_operands_is_touched(machine: Machine, at_end: bool) -> None:
    for m, n, k in ((1, 1, 1), (17, 19, 64), (33, 35, 37), (40, 50, 66), (5, 3, 200)):
        for ta, tb in itertools.product((False, True), repeat=2):
            (a, x), (b, y), (c, z) = (_fenced(v, at_end) for v in (
                random((k, m) if ta else (m, k)), random((n, k) if tb else (k, n), 1),
                np.zeros((m, n), bf16)))
            check(machine, a.T if ta else a, b.T if tb else b, c)
            assert x and y and z


@emulated
def test_odd_values_stay_in_their_rows_and_columns(machine: Machine) -> None:
    a, b = random((40, 50)), np.abs(random((50, 40), 1))
    a[0, 0], a[1, 49], a[2, 3], a[3], a[39, 7] = np.nan, np.inf, -np.inf, 0, 3e38
    b[7, 5] = 3e38
    c = np.zeros((40, 40), bf16)
    Runner(emit_contraction(Module(), "gemm", Contraction(
        "bfloat16", (), 40, 40, 50, (50, 1), (40, 1), (40, 1))))(a=a, b=b, c=c)
    with np.errstate(all="ignore"):
        want = (a.astype("f4") @ b.astype("f4")).astype(bf16)
    assert np.isnan(c[0].astype("f4")).all() and (c[1].astype("f4") == np.inf).all()
    assert (c[2].astype("f4") == -np.inf).all() and (c[3] == 0).all() and np.isinf(c[39, 5])
    np.testing.assert_allclose(c[4:39].astype("f4"), want[4:39].astype("f4"), rtol=2e-2, atol=2e-2)
    # a denormal number is a zero
    tiny = np.full((32, 32), 1e-39, bf16)
    assert (tiny != 0).all()
    check_out = np.ones((32, 32), bf16)
    Runner(emit_contraction(Module(), "gemm", Contraction(
        "bfloat16", (), 32, 32, 32, (32, 1), (32, 1), (32, 1))))(
            a=tiny, b=np.full((32, 32), 1e30, bf16), c=check_out)
    assert (check_out == 0).all()


@emulated
def test_programs_on_several_threads(machine: Machine) -> None:
    """What follows a product reads its sums; each thread has tile registers of its own."""
    b = Build()
    x, w = b.leaf(random((150, 96))), b.leaf(random((80, 96), 1))
    y = b.op("matmul", x, b.op("permute", w, attrs=((1, 0),)))
    bias = b.op("expand", b.op("reshape", b.leaf(random((80,), 2)), shape=(1, 80)), shape=(150, 80))
    z = b.op("tanh", b.op("add", y, bias))
    b.check(z, y, b.op("matmul", b.op("permute", z, attrs=((1, 0),)), x))
    assert machine.executed["tdpbf16ps"] > 100


def test_configurations_are_what_the_processor_takes() -> None:
    """Every pair of sizes, by the emulated registers, which are as strict."""
    from facula.codegen.llvm import Fn
    for rows, cols in itertools.product(range(1, 33), repeat=2):
        module = Module()
        generator.configure(Fn(module, "f", ()), rows, cols)
        text, = module.globals.values()
        found = re.search('c"(.*)"', text)
        assert found is not None
        data = bytes(int(x, 16) for x in found.group(1).split("\\")[1:])
        tiles, held = Tiles(), ctypes.create_string_buffer(data, 64)
        tiles.execute(Instruction("ldtilecfg", 5), ctypes.addressof(held), 0)
        for i, j in itertools.product(range(-(-rows // 16)), range(-(-cols // 16))):
            tiles.execute(Instruction("tdpbf16ps", 5, (2 * i + j, 4 + i, 6 + j)), 0, 0)
