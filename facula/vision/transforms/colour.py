"""What transforms do to colours and sharpness, on arrays [..., C, H, W].

Arrays of whole numbers are between 0 and the largest that their type holds, floats between 0
and 1.  The arithmetic is torchvision's for tensors, and for 8 bits agrees with Pillow's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facula.vision.transforms.pixels import gray

__all__ = ["autocontrast", "blend", "blur", "brightness", "contrast", "equalize", "gamma", "hue",
           "invert", "posterize", "saturation", "sharpness", "solarize"]


def _bound(array: np.ndarray) -> float:
    return float(np.iinfo(array.dtype).max) if array.dtype.kind in "ui" else 1.0


def _float(array: np.ndarray) -> np.ndarray:
    return array if array.dtype.kind == "f" else array.astype(np.float32)


def blend(array: np.ndarray, other: np.ndarray | float, ratio: float) -> np.ndarray:
    """ratio * array + (1 - ratio) * other, cut off at the ends of the range."""
    mixed = np.asarray(_float(array) * ratio + np.asarray(other) * (1.0 - ratio))
    return np.clip(mixed, 0, _bound(array)).astype(array.dtype)


def brightness(array: np.ndarray, factor: float) -> np.ndarray:
    """Blended with black."""
    return blend(array, 0.0, factor)


def contrast(array: np.ndarray, factor: float, whole: bool) -> np.ndarray:
    """Blended with the mean of its gray image, rounded if `whole`, as Pillow does."""
    one = _float(gray(array) if array.shape[-3] == 3 else array)
    mean = one.mean(axis=(-3, -2, -1), keepdims=True, dtype=np.float64)
    if whole:
        mean = np.floor(mean + 0.5)
    return blend(array, mean.astype(one.dtype), factor)


def saturation(array: np.ndarray, factor: float) -> np.ndarray:
    """Blended with its gray image."""
    return blend(array, _float(gray(array)), factor) if array.shape[-3] == 3 else array


def hue(array: np.ndarray, factor: float) -> np.ndarray:
    """Its colours turned by `factor` of the circle, by way of HSV."""
    if array.shape[-3] != 3:
        return array
    bound = _bound(array)
    rgb = _float(array) / np.float32(bound) if array.dtype.kind in "ui" else array
    r, g, b = rgb[..., 0, :, :], rgb[..., 1, :, :], rgb[..., 2, :, :]
    high, low = rgb.max(axis=-3), rgb.min(axis=-3)
    flat = high == low
    spread = high - low
    share = spread / np.where(flat, 1, high)
    apart = np.where(flat, 1, spread)
    rc, gc, bc = (high - r) / apart, (high - g) / apart, (high - b) / apart
    h = np.where(high == r, bc - gc, np.where(high == g, 2.0 + rc - bc, 4.0 + gc - rc))
    h = ((h / 6.0 + 1.0) % 1.0 + factor) % 1.0
    sector = np.floor(h * 6.0)
    f = h * 6.0 - sector
    sector = sector.astype(np.int32) % 6
    p = np.clip(high * (1.0 - share), 0, 1)
    q = np.clip(high * (1.0 - share * f), 0, 1)
    t = np.clip(high * (1.0 - share * (1.0 - f)), 0, 1)
    v = high
    out = np.stack([np.choose(sector, (v, q, p, p, t, v)), np.choose(sector, (t, v, v, q, p, p)),
                    np.choose(sector, (p, p, t, v, v, q))], axis=-3)
    return _narrow(out, array.dtype)


def _narrow(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Floats between 0 and 1 in another type, each whole number standing for as many of them."""
    if dtype.kind == "f":
        return values.astype(dtype)
    return (values * (np.iinfo(dtype).max + 1.0 - 1e-3)).astype(dtype)


def gamma(array: np.ndarray, power: float, gain: float) -> np.ndarray:
    """gain * array**power, of values between 0 and 1."""
    wide = _float(array) / np.float32(_bound(array)) if array.dtype.kind in "ui" else array
    return _narrow(np.clip(gain * wide ** power, 0.0, 1.0), array.dtype)


def invert(array: np.ndarray) -> np.ndarray:
    """The largest value less each."""
    return (_bound(array) - array).astype(array.dtype)


def posterize(array: np.ndarray, bits: int) -> np.ndarray:
    """The first `bits` of the 8 bits of each."""
    return array & np.uint8(256 - 2 ** (8 - bits))


def solarize(array: np.ndarray, threshold: float) -> np.ndarray:
    """Inverted from `threshold` on."""
    return np.where(array >= threshold, invert(array), array)


def autocontrast(array: np.ndarray) -> np.ndarray:
    """Each channel stretched over the whole range."""
    bound = _bound(array)
    wide = _float(array)
    low = wide.min(axis=(-2, -1), keepdims=True)
    high = wide.max(axis=(-2, -1), keepdims=True)
    flat = low == high
    scale = np.where(flat, 1.0, bound / np.where(flat, 1.0, high - low))
    return np.clip((wide - np.where(flat, 0.0, low)) * scale, 0, bound).astype(array.dtype)


def equalize(array: np.ndarray) -> np.ndarray:
    """Each channel (uint8) so that its values are spread evenly."""
    flat = array.reshape(-1, *array.shape[-2:])
    out = np.empty_like(flat)
    for k, channel in enumerate(flat):
        counts = np.bincount(channel.reshape(-1), minlength=256)
        used = counts[counts > 0]
        step = used[:-1].sum() // 255
        if not step:
            out[k] = channel
            continue
        table = (np.cumsum(counts) + step // 2) // step
        table = np.clip(np.concatenate([[0], table[:-1]]), 0, 255).astype(np.uint8)
        out[k] = table[channel]
    return out.reshape(array.shape)


def sharpness(array: np.ndarray, factor: float) -> np.ndarray:
    """Blended with itself smoothed; the border stays."""
    h, w = array.shape[-2:]
    if h <= 2 or w <= 2:
        return array
    wide = _float(array)
    total = 4.0 * wide[..., 1:-1, 1:-1]
    for i in range(3):
        for j in range(3):
            total = total + wide[..., i:i + h - 2, j:j + w - 2]
    smooth = wide.copy()
    inner = total / 13.0
    smooth[..., 1:-1, 1:-1] = np.rint(inner) if array.dtype.kind in "ui" else inner
    return blend(array, smooth, factor)


def blur(array: np.ndarray, size: Sequence[int], sigma: Sequence[float]) -> np.ndarray:
    """A Gaussian of `size` and `sigma` (x, y), the image being reflected at its border."""
    out = _float(array)
    for axis, n, s in ((-1, size[0], sigma[0]), (-2, size[1], sigma[1])):
        x = np.arange(n) - (n - 1) * 0.5
        weights = np.exp(-0.5 * (x / s) ** 2)
        weights = (weights / weights.sum()).astype(out.dtype)
        sides = [(0, 0)] * out.ndim
        sides[axis] = (n // 2, n // 2)
        padded = np.pad(out, sides, mode="reflect")
        length = out.shape[axis]
        total = np.zeros_like(out)
        for k, weight in enumerate(weights):
            window = [slice(None)] * out.ndim
            window[axis] = slice(k, k + length)
            total += padded[tuple(window)] * weight
        out = total
    return np.rint(out).astype(array.dtype) if array.dtype.kind in "ui" else out
