"""Short-time Fourier transforms: the spectrum of a signal over time, and back."""

from __future__ import annotations

from typing import Any

from facula.dtype import int64
from facula.graph.record import _local
from facula.ops.define import autocast_to, op
from facula.ops.padding import padded
from facula.ops.promote import cast, expand_to, full_like
from facula.ops.surface import public
from facula.tensor import Tensor, prim

__all__ = ["stft", "istft"]


def _window(name: str, window: Tensor | None, n_fft: int, win_length: int, like: Tensor
            ) -> Tensor:
    """The window [n_fft], zeros around it where it is shorter."""
    if window is None:
        real = like.dtype.to_real()
        window = prim("full", attrs=(1.0,), shape=(win_length,), dtype=real)
    elif window.ndim != 1 or window.shape[0] != win_length:
        raise RuntimeError(f"{name}: expected a 1D window tensor of size equal to win_length="
                           f"{win_length}, but got window with size {list(window.shape)}")
    left = (n_fft - win_length) // 2
    if win_length < n_fft:
        window = prim("pad", window, attrs=((left,), (n_fft - win_length - left,), 0))
    return window


def _positions(frames: int, n_fft: int, hop: int) -> Tensor:
    """frame * hop + position, flat: where each sample of each frame stands in the signal."""
    shape = (frames, n_fft)
    start = prim("iota", shape=(frames,), dtype=int64)
    start = prim("mul", start, full_like(start, hop))
    start = expand_to(prim("reshape", start, shape=(frames, 1)), shape)
    here = expand_to(prim("iota", shape=(n_fft,), dtype=int64), shape)
    return prim("reshape", prim("add", start, here), shape=(frames * n_fft,))


def _samples(make: Any) -> list[Any]:
    return [((make(24), 8), {"return_complex": True}),
            ((make(2, 24), 8, 3), {"return_complex": True, "center": False}),
            ((make(24), 6, 2, 4, make(4, low=0.5, high=1)), {"return_complex": False,
                                                            "normalized": True})]


@op(method=True, family="fft", samples=_samples)
@autocast_to("full")
def stft(input: Tensor, n_fft: int, hop_length: int | None = None,
         win_length: int | None = None, window: Tensor | None = None, center: bool = True,
         pad_mode: str = "reflect", normalized: bool = False, onesided: bool | None = None,
         return_complex: bool | None = None, align_to_window: bool | None = None) -> Tensor:
    """The spectra of windows along a signal: [time] or [batch, time] -> [..., frequency, frame].

    Window k begins at k * hop_length (n_fft // 4 if None); with `center` the signal is padded so
    that it is centred there.  `onesided` keeps the n_fft // 2 + 1 frequencies of a real signal.
    Without `return_complex` the parts are a last dimension of size 2.  Raises RuntimeError for
    sizes that do not fit.
    """
    complex_ = input.dtype.kind == "c" or (window is not None and window.dtype.kind == "c")
    if return_complex is None:
        if not complex_:
            raise RuntimeError("stft requires the return_complex parameter be given for real "
                               "inputs, and will further require that return_complex=True in a "
                               "future PyTorch release.")
        return_complex = True
    if input.dtype.kind not in "fc":
        raise RuntimeError("stft expected a tensor of floating point or complex values")
    if input.ndim not in (1, 2):
        raise RuntimeError(f"stft: expected a 1D or 2D tensor, got {input.ndim}D")
    hop = n_fft // 4 if hop_length is None else hop_length
    length = n_fft if win_length is None else win_length
    if align_to_window is not None and center:
        raise RuntimeError("stft align_to_window should only be set when center = false.")
    x = input if input.ndim == 2 else prim("reshape", input, shape=(1, input.shape[0]))
    if center:
        half = n_fft // 2
        x = padded(prim("reshape", x, shape=(1, *x.shape)), (half, half), pad_mode)
        x = prim("reshape", x, shape=tuple(x.shape[1:]))
    batch, size = x.shape
    if not 0 < n_fft <= size:
        raise RuntimeError(f"stft: expected 0 < n_fft <= {size}, but got n_fft={n_fft}")
    if hop <= 0:
        raise RuntimeError(f"stft: expected hop_length > 0, but got hop_length={hop}")
    if not 0 < length <= n_fft:
        raise RuntimeError("stft: expected 0 < win_length <= n_fft, but got win_length="
                           f"{length}")
    frames = 1 + (size - n_fft) // hop
    if align_to_window and frames:
        left = (n_fft - length) // 2
        frames = 1 + (size - length) // hop
        x = prim("pad", x, attrs=((0, left), (0, n_fft - length - left), 0))
    at = _positions(frames, n_fft, hop)
    cut = prim("reshape", prim("take", x, at, attrs=(1,)), shape=(batch, frames, n_fft))
    if window is not None or length < n_fft:
        shaped = _window("stft", window, n_fft, length, x)
        if complex_:
            wide = x.dtype.to_complex()
            cut, shaped = cast(cut, wide), cast(shaped, wide)
        cut = prim("mul", cut, expand_to(cast(shaped, cut.dtype), cut.shape))
    if onesided is None:
        onesided = not complex_
    if onesided and complex_:
        raise RuntimeError("Cannot have onesided output if window or input is complex")
    scale = n_fft ** -0.5 if normalized else 1.0
    if onesided:
        out = prim("fft_r2c", cut, attrs=(2, scale))
    else:
        out = prim("fft_c2c", cast(cut, cut.dtype.to_complex()), attrs=((2,), True, scale))
    out = prim("permute", out, attrs=((0, 2, 1),))
    if input.ndim == 1:
        out = prim("reshape", out, shape=tuple(out.shape[1:]))
    if return_complex:
        return out
    parts = [prim("reshape", prim(part, out), shape=(*out.shape, 1)) for part in ("real", "imag")]
    return prim("cat", *parts, attrs=(out.ndim,))


@op(register=False)
def _overlapped(input: Tensor, window: Tensor, n_fft: int, hop: int, start: int, stop: int,
                normalized: bool, onesided: bool, return_complex: bool
                ) -> tuple[Tensor, Tensor]:
    """The signal of [batch, frequency, frame], and the sum of squared windows under it."""
    batch, _, frames = input.shape
    x = prim("permute", input, attrs=((0, 2, 1),))
    scale = n_fft ** -0.5 if normalized else 1.0 / n_fft
    if return_complex:
        y = prim("fft_c2c", x, attrs=((2,), False, scale))
    else:
        if not onesided:
            x = prim("slice", x, attrs=((0, 0, 0), (1, 1, 1)),
                     shape=(batch, frames, n_fft // 2 + 1))
        y = prim("fft_c2r", x, attrs=(2, n_fft, scale))
    shaped = cast(window, y.dtype)
    y = prim("mul", y, expand_to(shaped, y.shape))
    size = n_fft + hop * (frames - 1)
    at = _positions(frames, n_fft, hop)
    signal = prim("full", attrs=(0.0,), shape=(batch, size), dtype=y.dtype)
    signal = prim("index_put", signal, prim("reshape", y, shape=(batch, frames * n_fft)), at,
                  attrs=(1, True))
    squares = prim("mul", shaped, shaped)
    squares = prim("reshape", expand_to(squares, (frames, n_fft)), shape=(frames * n_fft,))
    under = prim("full", attrs=(0.0,), shape=(size,), dtype=y.dtype)
    under = prim("index_put", under, squares, at, attrs=(0, True))
    stop = min(stop, size)
    signal = prim("slice", signal, attrs=((0, start), (1, 1)), shape=(batch, stop - start))
    under = prim("slice", under, attrs=((start,), (1,)), shape=(stop - start,))
    return prim("div", signal, expand_to(under, signal.shape)), prim("abs", under)


def istft(input: Tensor, n_fft: int, hop_length: int | None = None,
          win_length: int | None = None, window: Tensor | None = None, center: bool = True,
          normalized: bool = False, onesided: bool | None = None, length: int | None = None,
          return_complex: bool = False) -> Tensor:
    """The signal whose `stft` is nearest: overlapping windows added and divided by their weight.

    D. W. Griffin and J. S. Lim, "Signal estimation from modified short-time Fourier transform"
    (1984).  Raises RuntimeError for sizes that do not fit, and where the windows add up to 0.
    """
    hop = n_fft // 4 if hop_length is None else hop_length
    win = n_fft if win_length is None else win_length
    if input.dtype.kind != "c":
        raise RuntimeError("istft requires a complex-valued input tensor matching the output "
                           "from stft with return_complex=True.")
    if input.numel() == 0 or input.ndim not in (2, 3):
        raise RuntimeError("istft: expected a tensor with 2 or 3 dimensions and elements, got "
                           f"{list(input.shape)}")
    bins, frames = input.shape[-2:]
    if onesided is None:
        onesided = bins != n_fft
    if bins != (n_fft // 2 + 1 if onesided else n_fft):
        raise RuntimeError("istft: expected the frequency dimension (3rd to the last) of the "
                           f"input tensor to match n_fft={n_fft}, onesided={onesided}, but got "
                           f"{bins}")
    if not 0 < hop <= win:
        raise RuntimeError(f"istft: expected 0 < hop_length <= win_length, got {hop} and {win}")
    if not 0 < win <= n_fft:
        raise RuntimeError(f"istft: expected 0 < win_length <= n_fft, got {win} and {n_fft}")
    if return_complex and onesided:
        raise RuntimeError("cannot have onesided output if window or input is complex")
    if not return_complex and window is not None and window.dtype.kind == "c":
        raise RuntimeError("Complex windows are incompatible with return_complex=False")
    size = n_fft + hop * (frames - 1)
    start = n_fft // 2 if center else 0
    stop = size if not center else size - n_fft // 2
    if length is not None:
        stop = start + length
    x = input if input.ndim == 3 else input.reshape(1, bins, frames)   # type: ignore[attr-defined]
    shaped = _window("istft", window, n_fft, win, input)
    out, under = _overlapped(x, shaped, n_fft, hop, start, stop, normalized, onesided,
                             return_complex)
    rec = _local.rec
    known = not rec.depth and rec.outer is None and under.numel()
    if known and float(under._peek().min()) < 1e-11:
        raise RuntimeError("window overlap add min: 1")
    if stop > size:
        out = prim("pad", out, attrs=((0, 0), (0, stop - size), 0))
    return out if input.ndim == 3 else out.reshape(-1)                 # type: ignore[attr-defined]


public(istft, "istft", "fft", samples=lambda make: [])
