"""Loops cut into stretches: windows, padding and their gradients against NumPy's."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import facula as F
from facula import config
from facula.codegen.elements import loops, stretches


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Compiled here, however small, and without a word from LLVM."""
    monkeypatch.setattr(config.flag, "INTERPRET", 0)
    monkeypatch.setattr(config.flag, "CACHE", False)
    monkeypatch.setattr(stretches, "LEAST", 0)
    yield
    assert capfd.readouterr().err == ""


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The kernels that were made in stretches since."""
    made: list[Any] = []
    emit = loops.emit_stretches

    def watched(*args: Any) -> Any:
        kernel = emit(*args)
        if kernel is not None:
            made.append(kernel)
        return kernel

    monkeypatch.setattr(loops, "emit_stretches", watched)
    return made


def interpreted(monkeypatch: pytest.MonkeyPatch, work: Any) -> list[np.ndarray]:
    """What `work` finds on the interpreter; in a thread, whose recorder has met nothing yet."""
    monkeypatch.setattr(config.flag, "JIT", False)
    with ThreadPoolExecutor(1) as pool:
        found: list[np.ndarray] = pool.submit(work).result()
    monkeypatch.setattr(config.flag, "JIT", True)
    return found


SHAPES = [(1, 1, 4), (3, 2, 35), (2, 1, 23, 17), (1, 3, 6, 40), (1, 2, 9, 4, 18)]
WINDOWS = [(3, 1, 1), (3, 2, 1), (4, 3, 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kernel,stride,padding", WINDOWS)
def test_windows(monkeypatch: pytest.MonkeyPatch, cut: list[Any], shape: tuple[int, ...],
                 kernel: int, stride: int, padding: int) -> None:
    d = len(shape) - 2
    x = np.random.default_rng(5).integers(-40, 40, shape).astype(np.float32)
    x.flat[3], x.flat[-1] = np.inf, np.nan
    names = F.nn.functional

    def work() -> list[np.ndarray]:
        found = []
        for ceil in (False, True):
            for count in (False, True):
                a = F.tensor(x, requires_grad=True)
                y = getattr(names, f"avg_pool{d}d")(a, kernel, stride, padding, ceil, count)
                (y * F.arange(y.numel()).reshape(y.shape)).sum().backward()
                found += [y.detach().numpy(), a.grad.numpy()]
            a = F.tensor(x, requires_grad=True)
            y, at = getattr(names, f"max_pool{d}d")(a, kernel, stride, padding, 1, ceil,
                                                    return_indices=True)
            (y * F.arange(y.numel()).reshape(y.shape)).sum().backward()
            found += [y.detach().numpy(), at.numpy(), a.grad.numpy()]
            with F.no_grad():
                found.append(getattr(names, f"max_pool{d}d")(a, kernel, stride, padding, 1,
                                                             ceil).numpy())
        return found

    want = interpreted(monkeypatch, work)
    assert not cut
    for a, b in zip(work(), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6)
    if padding and max(shape[2:]) > 8:
        assert cut


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool", "complex64"])
@pytest.mark.parametrize("low,high", [((0, 1, 2), (3, 0, 1)), ((1, 0, 0), (0, 0, 17)),
                                      ((-1, 2, -3), (1, -2, 5))])
def test_padding(monkeypatch: pytest.MonkeyPatch, cut: list[Any], dtype: str,
                 low: tuple[int, ...], high: tuple[int, ...]) -> None:
    x = (np.arange(5 * 11 * 20).reshape(5, 11, 20) % 7).astype(dtype)
    pads = [v for pair in zip(reversed(low), reversed(high)) for v in pair]

    def work() -> list[np.ndarray]:
        a = F.tensor(x)
        b = F.nn.functional.pad(a, pads, value=1)
        return [b.numpy(), F.where(b == 1, b, F.zeros_like(b)).numpy()]

    want = interpreted(monkeypatch, work)
    for a, b in zip(work(), want, strict=True):
        np.testing.assert_array_equal(a, b)
    assert cut


@pytest.mark.parametrize("step", [1, 2, -1])
def test_writes_through_slices(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    x = np.arange(12 * 30, dtype=np.float32).reshape(12, 30)

    def work() -> list[np.ndarray]:
        a = F.tensor(x)
        if step > 0:
            a[1:-1:step, 2:-3:step] *= 3
        else:
            a[1:-1, 2:-3] = a[1:-1, 2:-3].flip(0, 1)
        b = a + 1
        b[3:9] += b[2:8]
        return [a.numpy(), b.numpy()]

    want = interpreted(monkeypatch, work)
    for a, b in zip(work(), want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("size", [(7, 33), (1, 40), (9, 4)])
def test_repeated_and_left_out(monkeypatch: pytest.MonkeyPatch, cut: list[Any],
                               size: tuple[int, int]) -> None:
    """Elements in whose place a division has a part, which stretches walk by."""
    x = np.random.default_rng(7).standard_normal((2, 3, *size)).astype(np.float32)

    def work() -> list[np.ndarray]:
        found = []
        for by in (2, 3, 5):
            a = F.tensor(x, requires_grad=True)
            y = F.nn.functional.interpolate(a, scale_factor=by) * 2
            z = y[..., 1::by].repeat_interleave(2, -1)
            (z * F.arange(z.numel()).reshape(z.shape)).sum().backward()
            found += [y.detach().numpy(), z.detach().numpy(), a.grad.numpy()]
        return found

    want = interpreted(monkeypatch, work)
    for a, b in zip(work(), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6)
    assert cut


def test_many_lines_and_one(cut: list[Any]) -> None:
    """Several tiles; and a single long line, which is for several threads to share."""
    for shape in ((1, 64, 50, 50), (1, 1, 1, 300_000), (1, 1, 5, 60_000)):
        x = np.random.default_rng(1).integers(0, 9, shape).astype(np.float32)
        y = F.nn.functional.avg_pool2d(F.tensor(x), 3, 1, 1).numpy()
        wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        h, w = shape[2:]
        want = sum(wide[:, :, i:i + h, j:j + w] for i in range(3) for j in range(3)) / 9
        np.testing.assert_allclose(y, want, rtol=1e-6)
    assert len(cut) == 1 and cut[0].ntiles > 1
