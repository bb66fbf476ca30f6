"""Fourier transforms against PyTorch: values, gradients, odd sizes, errors."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import facula

sys.path.insert(0, str(Path(__file__).parents[1] / "linalg"))
torch = pytest.importorskip("torch")
from both import compare  # noqa: E402

rng = np.random.default_rng(0)
ONE = ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"]


def data(name, *shape):
    x = rng.normal(size=shape)
    return x if name.startswith(("rfft", "ihfft")) else x + 1j * rng.normal(size=shape)


@pytest.mark.parametrize("norm", [None, "ortho", "forward"])
@pytest.mark.parametrize("name", ONE)
def test_one_dimension(name, norm):
    for shape, kw in (((5,), {}), ((6,), {"n": 4}), ((3, 4), {"n": 7, "dim": 0}),
                      ((2, 1), {"n": 1})):
        compare(lambda m, x, kw=kw: getattr(m.fft, name)(x, norm=norm, **kw),
                [data(name, *shape)])


@pytest.mark.parametrize("name", ONE)
def test_several_dimensions(name):
    for shape, kw in (((3, 4), {}), ((2, 3, 4), {"s": (5, 3)}), ((2, 3, 4), {"dim": (0, 2)}),
                      ((2, 3, 4), {"s": (3, -1), "dim": (2, 0), "norm": "ortho"})):
        compare(lambda m, x, kw=kw: getattr(m.fft, f"{name}n")(x, **kw), [data(name, *shape)])
    compare(lambda m, x: getattr(m.fft, f"{name}2")(x), [data(name, 2, 3, 4)])


@pytest.mark.parametrize("name", ["fft", "irfft", "hfft", "rfft"])
def test_dtypes(name):
    for kind in ("float32", "float64", "int64", "bool", "complex64"):
        if name == "rfft" and kind == "complex64":
            continue
        a = rng.normal(size=6).astype(kind)
        got = getattr(facula.fft, name)(facula.tensor(a))
        want = getattr(torch.fft, name)(torch.tensor(a))
        assert got.dtype.name == str(want.dtype).split(".")[1]
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ONE)
def test_no_signals(name):
    out = getattr(facula.fft, name)(facula.tensor(data(name, 0, 4)))
    assert out.numpy().shape == (0, *getattr(np.fft, name)(np.ones(4)).shape)


def test_shifts_and_frequencies():
    for shape in ((5,), (4, 3), (2, 0)):
        a = rng.normal(size=shape)
        for name in ("fftshift", "ifftshift"):
            compare(lambda m, x, name=name: getattr(m.fft, name)(x), [a])
            compare(lambda m, x, name=name: getattr(m.fft, name)(x, dim=-1), [a])
    for n in (1, 4, 7):
        for name in ("fftfreq", "rfftfreq"):
            np.testing.assert_array_equal(getattr(facula.fft, name)(n, 0.3).numpy(),
                                          getattr(torch.fft, name)(n, 0.3).numpy())


@pytest.mark.parametrize("call", [
    lambda m: m.fft.fft(m.ones(3), n=0), lambda m: m.fft.fft(m.ones(3), norm="odd"),
    lambda m: m.fft.fft(m.ones(3), dim=2), lambda m: m.fft.fft(m.ones(())),
    lambda m: m.fft.rfft(m.ones(3, dtype=m.complex64)), lambda m: m.fft.fftn(m.ones(3), s=(2, 2)),
    lambda m: m.fft.fftn(m.ones(3, 3), dim=(0, 0)), lambda m: m.fft.irfft(m.ones(1)),
    lambda m: m.fft.fftn(m.ones(3, 3), s=(2,), dim=(0, 1)),
])
def test_what_is_refused(call):
    with pytest.raises(Exception) as theirs:
        call(torch)
    with pytest.raises(type(theirs.value)):
        call(facula)


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
def test_short_time_transforms(center, normalized):
    window = np.hanning(10)[1:-1] + 0.1

    def there(m, x, w):
        return m.stft(x, 8, 3, window=w, center=center, normalized=normalized,
                      return_complex=True)

    def back(m, x, w):
        spectrum = there(m, x, w)
        return m.istft(spectrum, 8, 3, window=w, center=center, normalized=normalized)

    for shape in ((32,), (2, 32)):
        x = rng.normal(size=shape)
        compare(there, [x, window])
        compare(back, [x, window], second=False)
    signal = rng.normal(size=32)
    spectrum = facula.stft(facula.tensor(signal), 8, 2, return_complex=True)
    again = facula.istft(spectrum, 8, 2, length=32)
    np.testing.assert_allclose(again.numpy(), signal, atol=1e-12)


def test_windows_that_leave_gaps_are_refused():
    spectrum = facula.ones(5, 3, dtype=facula.complex64)
    with pytest.raises(RuntimeError, match="window overlap"):
        facula.istft(spectrum, 8, 8, window=facula.zeros(8))
