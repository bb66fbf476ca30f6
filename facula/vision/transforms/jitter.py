"""Transforms of colour, light and sharpness as objects, and crops of which there are several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.data.rng import stream
from facula.vision.transforms import functional as F
from facula.vision.transforms.base import Transform

__all__ = ["ColorJitter", "FiveCrop", "GaussianBlur", "LinearTransformation",
           "RandomAdjustSharpness", "RandomAutocontrast", "RandomEqualize", "RandomInvert",
           "RandomPosterize", "RandomSolarize", "TenCrop"]


def _range(value: Any, name: str, center: float = 1.0, bound: tuple[float, float] = (0.0, 1e30),
           clip: bool = True) -> tuple[float, float] | None:
    """The factors that `value` stands for: a number for center +- value, or two; None for none."""
    if isinstance(value, (int, float)):
        if value < 0:
            raise ValueError(f"If {name} is a single number, it must be non negative.")
        low, high = center - value, center + value
        if clip:
            low = max(low, 0.0)
    elif isinstance(value, (tuple, list)) and len(value) == 2:
        low, high = float(value[0]), float(value[1])
    else:
        raise TypeError(f"{name} should be a single number or a list/tuple with length 2.")
    if not bound[0] <= low <= high <= bound[1]:
        raise ValueError(f"{name} values should be between {bound}, but got {[low, high]}.")
    return None if low == high == center else (low, high)


class ColorJitter(Transform):
    """Random brightness, contrast, saturation and hue, in random order.

    Each is a number n for factors from max(0, 1 - n) to 1 + n (hue: from -n to n, at most 0.5),
    or the two ends.
    """

    def __init__(self, brightness: Any = 0, contrast: Any = 0, saturation: Any = 0,
                 hue: Any = 0) -> None:
        super().__init__()
        self.brightness = _range(brightness, "brightness")
        self.contrast = _range(contrast, "contrast")
        self.saturation = _range(saturation, "saturation")
        self.hue = _range(hue, "hue", 0.0, (-0.5, 0.5), False)

    def forward(self, img: Any) -> Any:
        rng = stream()
        steps = ((self.brightness, F.adjust_brightness), (self.contrast, F.adjust_contrast),
                 (self.saturation, F.adjust_saturation), (self.hue, F.adjust_hue))
        order = rng.permutation(4)
        factors = [None if ends is None else rng.uniform(*ends) for ends, _ in steps]
        for k in order:
            factor = factors[k]
            if factor is not None:
                img = steps[k][1](img, factor)
        return img

    def __repr__(self) -> str:
        return (f"ColorJitter(brightness={self.brightness}, contrast={self.contrast}, "
                f"saturation={self.saturation}, hue={self.hue})")


class GaussianBlur(Transform):
    """A Gaussian of a random sigma, one number or the two ends; `kernel_size` is odd."""

    def __init__(self, kernel_size: Any, sigma: Any = (0.1, 2.0)) -> None:
        super().__init__()
        self.kernel_size = tuple(F.kernel_of(kernel_size))
        ends = (sigma, sigma) if isinstance(sigma, (int, float)) else tuple(sigma)
        if len(ends) != 2 or not 0.0 < ends[0] <= ends[1]:
            raise ValueError(f"sigma values should be positive and of the form (min, max). Got "
                             f"{sigma}")
        self.sigma = float(ends[0]), float(ends[1])

    def forward(self, img: Any) -> Any:
        sigma = stream().uniform(*self.sigma)
        return F.gaussian_blur(img, self.kernel_size, [sigma, sigma])

    def __repr__(self) -> str:
        return f"GaussianBlur(kernel_size={self.kernel_size}, sigma={self.sigma})"


class _Perhaps(Transform):
    """A function of images, with probability p; `_own` are the names of further arguments."""

    _own: tuple[str, ...] = ()

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def change(self, img: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} should implement change.")

    def forward(self, img: Any) -> Any:
        return self.change(img) if stream().uniform() < self.p else img

    def __repr__(self) -> str:
        parts = [f"{name}={getattr(self, name)}" for name in (*self._own, "p")]
        return f"{type(self).__name__}({','.join(parts)})"


class RandomInvert(_Perhaps):
    """Inverted, with probability p."""

    def change(self, img: Any) -> Any:
        return F.invert(img)


class RandomAutocontrast(_Perhaps):
    """Stretched over the whole range, with probability p."""

    def change(self, img: Any) -> Any:
        return F.autocontrast(img)


class RandomEqualize(_Perhaps):
    """Its values spread evenly, with probability p."""

    def change(self, img: Any) -> Any:
        return F.equalize(img)


class RandomPosterize(_Perhaps):
    """`bits` of 8 kept, with probability p."""

    _own = ("bits",)

    def __init__(self, bits: int, p: float = 0.5) -> None:
        super().__init__(p)
        self.bits = bits

    def change(self, img: Any) -> Any:
        return F.posterize(img, self.bits)


class RandomSolarize(_Perhaps):
    """Inverted from `threshold` on, with probability p."""

    _own = ("threshold",)

    def __init__(self, threshold: float, p: float = 0.5) -> None:
        super().__init__(p)
        self.threshold = threshold

    def change(self, img: Any) -> Any:
        return F.solarize(img, self.threshold)


class RandomAdjustSharpness(_Perhaps):
    """Sharper (or, with a factor below 1, softer), with probability p."""

    _own = ("sharpness_factor",)

    def __init__(self, sharpness_factor: float, p: float = 0.5) -> None:
        super().__init__(p)
        self.sharpness_factor = sharpness_factor

    def change(self, img: Any) -> Any:
        return F.adjust_sharpness(img, self.sharpness_factor)


# ---------------------------------------------------------------- several crops, a matrix

class FiveCrop(Transform):
    """The four corners and the middle, as a tuple."""

    def __init__(self, size: Any) -> None:
        super().__init__()
        self.size = F.pair(size)

    def forward(self, img: Any) -> Any:
        return F.five_crop(img, self.size)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size})"


class TenCrop(FiveCrop):
    """`FiveCrop` of the image and of its mirror image."""

    def __init__(self, size: Any, vertical_flip: bool = False) -> None:
        super().__init__(size)
        self.vertical_flip = vertical_flip

    def forward(self, img: Any) -> Any:
        return F.ten_crop(img, self.size, self.vertical_flip)

    def __repr__(self) -> str:
        return f"TenCrop(size={self.size}, vertical_flip={self.vertical_flip})"


class LinearTransformation(Transform):
    """(the tensor as a row - mean_vector) @ transformation_matrix, in its old shape."""

    def __init__(self, transformation_matrix: Any, mean_vector: Any) -> None:
        super().__init__()
        n, m = transformation_matrix.shape
        if n != m:
            raise ValueError(f"transformation_matrix should be square. Got {n} x {m}")
        if mean_vector.shape[0] != n:
            raise ValueError(f"mean_vector should have the same length {mean_vector.shape[0]} as "
                             f"any one of the dimensions of the transformation_matrix {n}")
        self.transformation_matrix = transformation_matrix
        self.mean_vector = mean_vector

    def forward(self, tensor: Any) -> Any:
        shape: Sequence[int] = tensor.shape
        n = shape[-3] * shape[-2] * shape[-1]
        if n != self.transformation_matrix.shape[0]:
            raise ValueError("Input tensor and transformation matrix have incompatible shape."
                             f"[{shape[-3]} x {shape[-2]} x {shape[-1]}] != "
                             f"{self.transformation_matrix.shape[0]}")
        return ((tensor.reshape(-1, n) - self.mean_vector)
                @ self.transformation_matrix).reshape(shape)

    def __repr__(self) -> str:
        return (f"LinearTransformation(transformation_matrix="
                f"{self.transformation_matrix.tolist()}, mean_vector={self.mean_vector.tolist()})")
