"""Loops over every second, third, ... element: short and long, of every kind of element."""

from collections.abc import Iterator

import numpy as np
import pytest

import facula as F
from facula import config


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Compiled here, and without a word from LLVM."""
    monkeypatch.setattr(config.flag, "INTERPRET", 0)
    monkeypatch.setattr(config.flag, "CACHE", False)
    yield
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int16", "bool", "complex64"])
@pytest.mark.parametrize("step", [2, 3, 5])
def test_reads(dtype: str, step: int) -> None:
    for length in (1, 7, 9, 12, 13, 15, 16, 33):
        whole = np.arange(6 * length * step).reshape(6, length * step) % 11
        x = F.from_numpy((whole - 3).astype(dtype))
        a, b = x[::2, ::step], x[1::2, step - 1::step]
        got = F.where(a == b, a, b + a) if dtype != "bool" else a ^ b
        a, b = a.numpy(), b.numpy()
        want = np.where(a == b, a, b + a) if dtype != "bool" else a ^ b
        np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("length", [9, 12, 14, 15])
def test_picking_stays_inside(length: int) -> None:
    """The last vector of a line reaches over its end; what lies there is not touched."""
    room = np.full(3 * 2 * length + 64, 7.0, np.float32)
    inside = F.from_numpy(room[32:-32]).view(3, 2 * length)
    part = inside[:, ::2]
    part.mul_(2).add_(1)
    assert float(part.sum()) == 15.0 * 3 * length
    want = np.tile(np.array([15.0, 7.0], np.float32), 3 * length)
    np.testing.assert_array_equal(inside.numpy().ravel(), want)
    assert (room[:32] == 7).all() and (room[-32:] == 7).all()


@pytest.mark.parametrize("copies", [2, 3, 4])
def test_complex_products_side_by_side(copies: int) -> None:
    """Writes of pairs that lie some pairs apart."""
    generator = np.random.default_rng(3)
    x = (generator.standard_normal((2, 3, 4)) + 1j).astype(np.complex64)
    y = (generator.standard_normal((4, 2)) - 2j).astype(np.complex64)
    product = F.from_numpy(x) @ F.from_numpy(y)
    got = F.stack([product] * copies, -1)
    np.testing.assert_allclose(got.numpy(), np.stack([x @ y] * copies, -1), rtol=1e-5)


def test_functions_of_what_is_picked() -> None:
    x = F.randn(5, 24)
    got = (x[:, ::2].sin() + x[:, 1::2].exp()).numpy()
    a = x.numpy()
    np.testing.assert_allclose(got, np.sin(a[:, ::2]) + np.exp(a[:, 1::2]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", [3, 4, 5, 6, 9])
def test_gradients_of_short_lines(size: int) -> None:
    """What follows the gradient of a strided convolution's input is written to places apart."""
    generator = np.random.default_rng(size)
    x = F.from_numpy(generator.standard_normal((2, 3, size, size)).astype(np.float32))
    w = F.from_numpy(generator.standard_normal((4, 3, 3, 3)).astype(np.float32))
    found = []
    for dtype in (F.float32, F.float64):
        a = x.detach().to(dtype).requires_grad_()
        y = F.nn.functional.conv2d(F.nn.functional.silu(a), w.to(dtype), stride=2)
        (y * y).sum().backward()
        found.append(a.grad.numpy())
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-4)
