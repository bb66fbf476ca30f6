"""bfloat16 convolutions by tile registers, on emulated ones: see `tests.emulated.amx`.

More of it: `python -m pytest -p tests.emulated.amx_plugin tests/ops/test_convolution_pairs.py`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import pytest

import facula
from facula import config
from facula.codegen.convolutions import amx as tiles
from facula.codegen.convolutions import epilogue
from facula.codegen.convolutions.amx import TileSizes, _Planes, worth_tiles
from facula.codegen.convolutions.pairs import PairWeight, pair_sizes, worth_pairs
from facula.codegen.convolutions.walks import Block, backward_walks, forward_walk
from facula.codegen.products import amx as generator
from facula.dtype import DTYPES
from facula.graph.spec import Step, spec
from facula.ops.table import PRIMS
from facula.runtime import jit
from facula.runtime.allocator import Buffer, from_numpy_private
from facula.schedule.executable import make_executable
from tests.emulated import amx
from tests.emulated.amx import Machine
from tests.emulated.test_amx import _fenced

bf16: Any = pytest.importorskip("ml_dtypes").bfloat16
BF16, F32, F64 = DTYPES["bfloat16"], DTYPES["float32"], DTYPES["float64"]
NAMES = ("conv", "conv_input", "conv_weight")
pytestmark = pytest.mark.skipif(not jit.host_features().get("avx512bf16"),
                                reason="convolutions in pairs need AVX512-BF16")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """This process has tile registers, and uses them for convolutions of any size."""
    if amx.here():
        pytest.skip(amx.here())
    monkeypatch.setattr(generator, "LEAST", 1)
    monkeypatch.setattr(tiles, "FEWEST", 1)
    with amx.emulated(monkeypatch.setattr) as made:
        yield made
    assert not made.in_use, "tile registers were not released"


def shapes(n: int, c: int, o: int, size: tuple[int, ...], kernel: tuple[int, ...],
           stride: Any = 1, low: Any = 0, dilation: Any = 1, groups: int = 1) -> tuple[Any, ...]:
    """(x, w, y, attributes)"""
    each = [(v,) * len(size) if isinstance(v, int) else v for v in (stride, low, dilation)]
    out = tuple((m + 2 * p - e * (k - 1) - 1) // s + 1
                for m, k, s, p, e in zip(size, kernel, *each, strict=True))
    return (n, c, *size), (o, c // groups, *kernel), (n, o, *out), (*each, groups)


CASES = [
    shapes(1, 33, 35, (9, 9), (3, 3), low=1),               # odd channels and lines, one image
    shapes(2, 64, 64, (14, 14), (3, 3), low=1),
    shapes(3, 17, 48, (7, 7), (3, 3), low=1),               # images are pairs and a half
    shapes(5, 40, 20, (7, 7), (1, 1)),                      # images are one line
    shapes(2, 31, 16, (11, 13), (3, 3), 2, 1),              # a plane for each remainder
    shapes(2, 20, 33, (10, 23), (2, 3), (1, 3)),
    shapes(2, 34, 30, (12, 17), (1, 1), 2),
    shapes(1, 18, 70, (9, 21), (3, 3), 1, 2, 2),            # dilated
    shapes(2, 22, 19, (13, 12), (3, 2), (2, 3), (2, 1), (3, 2)),
    shapes(2, 60, 40, (8, 6), (3, 3), low=1, groups=2),
    shapes(2, 51, 39, (6, 8), (3, 3), 2, 1, groups=3),      # odd channels in each group
    shapes(1, 70, 80, (5, 5), (5, 5), low=2),               # more taps than lanes
    shapes(2, 16, 16, (50,), (5,), 1, 2),
    shapes(2, 9, 12, (4, 5, 6), (2, 3, 2), (1, 2, 1), (0, 1, 1)),
    shapes(1, 130, 33, (1, 1), (3, 3), low=1),              # one place
    shapes(1, 12, 36, (3, 300), (1, 3)),                    # lines longer than a block
    shapes(1, 700, 16, (4, 4), (3, 3), low=1),              # several times so many channels
    shapes(7, 8, 140, (2, 2), (2, 2), low=1),
]


def operands(name: str, case: tuple[Any, ...]) -> tuple[list[np.ndarray], Any, Any]:
    x, w, y, attrs = case
    a, b, out = {"conv": (x, w, y), "conv_input": (y, w, x), "conv_weight": (x, y, w)}[name]
    rng = np.random.default_rng(0)
    return ([rng.standard_normal(s).astype(bf16) for s in (a, b)],
            (*attrs, 0) if name == "conv_weight" else attrs, out)


def program(name: str, arrays: list[np.ndarray], attrs: Any, out: Any) -> Any:
    """What an autocast layer records; its result is in float32."""
    steps = [Step("leaf", (None,), (), spec(a.shape, BF16)) for a in arrays]
    steps += [Step("cast", (), (i,), spec(a.shape, F32)) for i, a in enumerate(arrays)]
    return make_executable([*steps, Step(name, attrs, (2, 3), spec(out, F32))], [4], {})


def compiled(name: str, arrays: list[np.ndarray], attrs: Any, out: Any) -> np.ndarray:
    found = program(name, arrays, attrs, out).run([from_numpy_private(a.copy()) for a in arrays])
    return np.asarray(found[0].array(spec(out, F32), None)).copy()


def meaning(name: str, arrays: list[np.ndarray], attrs: Any, out: Any, dtype: Any = F64
            ) -> np.ndarray:
    """By NumPy."""
    with np.errstate(all="ignore"):
        return PRIMS[name].numpy([a.astype(dtype.np) for a in arrays], attrs, spec(out, dtype))


def close(have: np.ndarray, name: str, arrays: list[np.ndarray], attrs: Any, out: Any) -> None:
    """Products of bfloat16 numbers are exact in float32, and so are their sums but for that of
    float32: the error is reckoned from the sum of sizes."""
    want = meaning(name, arrays, attrs, out)
    scale = meaning(name, [np.abs(a) for a in arrays], attrs, out)
    assert (np.abs(have - want) <= 2e-6 * scale + 1e-30).all()
    short = meaning(name, arrays, attrs, out, F32)
    np.testing.assert_allclose(have, short, rtol=1e-3, atol=1e-4 * np.abs(short).max(initial=1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_as_numpy_in_float32(machine: Machine, name: str, case: tuple[Any, ...]) -> None:
    arrays, attrs, out = operands(name, case)
    have = compiled(name, arrays, attrs, out)
    assert machine.executed["tdpbf16ps"]
    close(have, name, arrays, attrs, out)


def texts(monkeypatch: pytest.MonkeyPatch, name: str, case: tuple[Any, ...]) -> list[str]:
    """The LLVM text of a convolution's kernels: packing, then those of its products."""
    made: list[str] = []
    before = epilogue.named

    def named(module: Any) -> tuple[str, str]:
        made.append(module.text())
        return before(module)

    with monkeypatch.context() as patch, config.override(CACHE=False):
        patch.setattr(epilogue, "named", named)
        program(name, *operands(name, case))
    return made


@pytest.mark.parametrize("name", NAMES)
def test_tile_instructions_are_in_the_machine_code(machine: Machine, name: str,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """Configured once in a kernel, four products in a step of one function, and no products of
    vectors in place of them."""
    case = shapes(2, 64, 64, (8, 8), (3, 3), low=1)
    code = jit.assembly(texts(monkeypatch, name, case)[-1])
    assert len(re.findall(r"\bldtilecfg\b", code)) == 1
    assert len(re.findall(r"\btilerelease\b", code)) == 1
    functions = re.split(r"^(?=\w+:)", code, flags=re.M)
    counts = sorted(len(re.findall(r"\btdpbf16ps\b", f)) for f in functions)
    assert counts[-1] == 4
    widest = next(f for f in functions if len(re.findall(r"\btdpbf16ps\b", f)) == 4)
    # four sums, and in each step two tiles of each operand
    assert len(re.findall(r"\btileloadd", widest)) == 8
    assert len(re.findall(r"\btilestored\b", widest)) == 4
    assert bool(re.search(r"\bvdpbf16ps\b", code)) == (name == "conv_weight")
    for isa in ("avx512", "avx2"):
        with config.override(ISA=isa):
            assert not any("x86.t" in text for text in texts(monkeypatch, name, case))


@pytest.mark.parametrize("name", NAMES)
def test_few_loads_for_a_product(machine: Machine, name: str) -> None:
    """Of 2 x 2 tiles each product has one load, and sums seldom leave the registers; there are
    not many more products than a convolution has, of full tiles."""
    case = shapes(4, 64, 64, (14, 14), (3, 3), low=1)
    arrays, attrs, out = operands(name, case)
    compiled(name, arrays, attrs, out)
    found = machine.executed
    assert found["tileloadd"] + found["tilestored"] < 1.6 * found["tdpbf16ps"]
    x, w, y, _ = case
    least = prod(y) * prod(w[1:]) / (16 * 16 * 32)
    # 14 of 16 places of a line
    assert found["tdpbf16ps"] < 1.35 * least
    assert found["ldtilecfg"] == found["tilerelease"] < found["tdpbf16ps"] / 100


def test_which_convolutions_use_them() -> None:
    image, weight = (2, 64, 9, 9), (64, 64, 3, 3)
    with config.override(ISA="amx"):
        for name in NAMES:
            assert worth_tiles(name, image, weight, 1)
            assert not worth_tiles(name, image, (64, 64 // 32, 3, 3), 32)   # groups of two
            assert not worth_tiles(name, (1, 8, 1, 1), (8, 8, 1, 1), 1)     # nothing to do
        few = 64, 3, 7, 7
        assert not worth_tiles("conv", image, few, 1) and worth_tiles("conv_input", image, few, 1)
        assert worth_pairs("conv_weight", (1, 64, 9, 9), weight, 1)
        sizes = pair_sizes((5, 64, 9, 9), weight, (5, 64, 9, 9), (1, 1), (1, 1), (1, 1), 1)
        assert isinstance(sizes, TileSizes)
    for isa in ("avx512", "avx2"):
        with config.override(ISA=isa):
            assert not any(worth_tiles(name, image, weight, 1) for name in NAMES)
            assert not worth_pairs("conv_weight", (1, 64, 9, 9), weight, 1)


def test_planes_hold_what_taps_meet() -> None:
    """Every output's every tap, in any geometry, against the walk itself."""
    lines = [forward_walk(n, (n + 2 * p - e * (k - 1) - 1) // s + 1, k, s, p, e)
             for n, k, s, p, e in itertools.product((7, 12), (1, 2, 3, 5), (1, 2, 3), (0, 2),
                                                    (1, 2, 3)) if n + 2 * p > e * (k - 1)]
    lines += [w for rest in itertools.product((7, 12), (2, 3, 5), (1, 2, 3), (0, 1), (1, 2))
              for w in backward_walks(rest[0], rest[0] * rest[2], *rest[1:])]
    lines = [w for w in lines if w.taps]
    assert len(lines) > 100
    for walk in lines:
        for count in {1, walk.count // 2, walk.count} - {0}:
            block = Block((walk,), (1, walk.count), (1, count), (1, 1))
            planes = _Planes(block)
            held: dict[int, int] = {}
            for k, plane in enumerate(planes.blocks):
                (w,) = plane.walks
                for i in range(plane.extents[1]):
                    held[k * planes.apart + i] = w.start + w.lowest + i * w.pitch
            for i, tap in itertools.product(range(count), range(walk.taps)):
                at = planes.taps[tap] + i * planes.strides[1]
                assert held[at] == walk.start + i * walk.step + tap * walk.reach
            assert max(planes.taps) + generator.ROWS * -(-planes.flat([1, count])
                                                          // generator.ROWS) <= planes.each


def test_finite_sums_are_made_once(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies between lines is multiplied by zeros, which only what is not finite shows."""
    calls = []

    def second(self: Any, fn: Any, *rest: Any) -> None:
        calls.append(fn)
        sums = rest[-1]
        with fn.loop(0, self.sizes.depth * self.sizes.taps * self.sizes.width) as i:
            fn.store("float", "7.0", fn.gep("float", sums, i))

    monkeypatch.setattr(PairWeight, "_pairs", second)
    with config.override(CACHE=False):
        for case in (CASES[0], CASES[4], CASES[9], CASES[12], CASES[13], CASES[15]):
            arrays, attrs, out = operands("conv_weight", case)
            close(compiled("conv_weight", arrays, attrs, out), "conv_weight", arrays, attrs, out)
            arrays[0][0, 0, ..., 0] = np.nan
            assert (compiled("conv_weight", arrays, attrs, out) == 7).any()
    assert calls


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_stays_where_it_is(machine: Machine, name: str) -> None:
    for case in (CASES[0], CASES[4], shapes(2, 20, 18, (6, 7), (3, 3))):
        arrays, attrs, out = operands(name, case)
        first = arrays[0]
        first[0, -1, 2, 3], first[-1, 0, 1, 1], first[0, 5, 3, 0] = np.nan, np.inf, -np.inf
        if name != "conv_weight":
            arrays[1][3, 2, 1, 0] = np.inf      # meets the zeros around
        want, have = meaning(name, arrays, attrs, out), compiled(name, arrays, attrs, out)
        for test in (np.isnan, np.isposinf, np.isneginf):
            np.testing.assert_array_equal(test(have), test(want))
        on = np.isfinite(want)
        np.testing.assert_allclose(have[on], want[on], rtol=1e-3,
                                   atol=1e-4 * np.abs(want[on]).max(initial=1))


@pytest.mark.parametrize("at_end", [False, True])
def test_nothing_beside_the_operands_is_touched(machine: Machine, at_end: bool) -> None:
    for name, case in itertools.product(NAMES, (CASES[0], CASES[4], CASES[5], CASES[10])):
        arrays, attrs, out = operands(name, case)
        fenced = [_fenced(a, at_end) for a in arrays]
        made = program(name, arrays, attrs, out)
        (found,) = made.run([Buffer(a.ctypes.data, a.nbytes, a) for a, _ in fenced])
        close(np.asarray(found.array(spec(out, F32), None)), name, arrays, attrs, out)


def test_threads_do_not_change_a_bit(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "_SHARE", 100_000)      # there are tiles to share
    monkeypatch.setattr(TileSizes, "share", 100_000)
    before = facula.get_num_threads()
    try:
        for name in NAMES:
            arrays, attrs, out = operands(name, shapes(2, 32, 40, (12, 12), (2, 2)))
            results = []
            for threads in (1, 2):
                facula.set_num_threads(threads)
                results.append(compiled(name, arrays, attrs, out))
            np.testing.assert_array_equal(*results)
            close(results[0], name, arrays, attrs, out)
    finally:
        facula.set_num_threads(before)


def test_what_follows_is_part_of_the_kernel(machine: Machine) -> None:
    """A layer with bias and activation, without gradients: packed weights are kept."""
    facula.manual_seed(0)
    net = facula.nn.Sequential(facula.nn.Conv2d(20, 40, 3, padding=1), facula.nn.ReLU(),
                               facula.nn.Conv2d(40, 24, 3, stride=2)).eval()
    x = facula.randn(2, 20, 9, 9)
    with facula.no_grad():
        want = net(x).numpy()
        net, x = net.bfloat16(), x.bfloat16()
        for _ in range(4):
            have = net(x).float().numpy()
            np.testing.assert_allclose(have, want, rtol=0, atol=3e-2 * np.abs(want).max())
    assert machine.executed["tdpbf16ps"]
