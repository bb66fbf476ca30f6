"""Transforms as objects: each changes one image when called, and most a whole batch at once.

The form for batches is a method `batch(array, rng)`.  `array` is [B, C, H, W], what the images of
a batch look like at this point; the result has the same meaning and may be the same memory.  `rng`
is a `facula.data.rng.BatchStream`, whose k-th number for a sample is the k-th that calling the
transform with that sample would draw; so both forms give the same bits.  A subclass that changes
how single images are treated gets its batches made of single images again, until it defines
`batch` itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facula.data.arrays import peek, to_tensor
from facula.data.rng import BatchStream, stream
from facula.dtype import DType, float32, from_numpy_dtype
from facula.vision.transforms import functional as F
from facula.vision.transforms import pixels
from facula.vision.transforms.base import Plain, Transform
from facula.vision.transforms.compose import Compose
from facula.vision.transforms.functional import InterpolationMode
from facula.vision.transforms.geometry import (
    CenterCrop,
    Pad,
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomRotation,
    RandomVerticalFlip,
    Resize,
)

__all__ = ["CenterCrop", "ConvertImageDtype", "Grayscale", "InterpolationMode", "Lambda",
           "Normalize", "PILToTensor", "Pad", "RandomAffine", "RandomApply", "RandomChoice",
           "RandomCrop", "RandomErasing", "RandomGrayscale", "RandomHorizontalFlip",
           "RandomOrder", "RandomResizedCrop", "RandomRotation", "RandomVerticalFlip", "Resize",
           "ToPILImage", "ToTensor", "Transform"]

_NEAREST = InterpolationMode.NEAREST
_BILINEAR = InterpolationMode.BILINEAR


class ToTensor(Plain):
    """An image or ndarray [H, W, C] as a tensor [C, H, W]; 8-bit pixels become 0 to 1."""

    needs, gives = "image", "tensor"

    def forward(self, pic: Any) -> Any:
        return F.to_tensor(pic)

    def batch(self, array: np.ndarray, rng: BatchStream) -> np.ndarray:
        return F.unit(array) if array.dtype == np.uint8 else array


class PILToTensor(Plain):
    """An image as a tensor [C, H, W] of its own type, unscaled."""

    needs, gives = "image", "tensor"

    def forward(self, pic: Any) -> Any:
        return F.pil_to_tensor(pic)

    def batch(self, array: np.ndarray, rng: BatchStream) -> np.ndarray:
        return array


class ToPILImage(Plain):
    """A tensor [C, H, W] or ndarray [H, W, C] as an image."""

    def __init__(self, mode: str | None = None):
        self.mode = mode

    def forward(self, pic: Any) -> Any:
        return F.to_pil_image(pic, self.mode)

    def __repr__(self) -> str:
        return f"ToPILImage({'' if self.mode is None else f'mode={self.mode}'})"


class ConvertImageDtype(Transform):
    """A tensor in another dtype, scaled along."""

    needs = "tensor"

    def __init__(self, dtype: DType = float32):
        super().__init__()
        if not isinstance(dtype, DType):
            raise TypeError("Argument dtype should be of type facula.dtype")
        self.dtype = dtype

    def forward(self, image: Any) -> Any:
        return F.convert_image_dtype(image, self.dtype)

    def batch(self, array: np.ndarray, rng: BatchStream) -> np.ndarray:
        return F.scale_dtype(array, self.dtype)


class Normalize(Transform):
    """(tensor - mean) / std, channel by channel, of float tensors [..., C, H, W]."""

    needs = "tensor"

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False):
        super().__init__()
        self.mean = mean
        self.std = std
        self.inplace = inplace

    def forward(self, tensor: Any) -> Any:
        return F.normalize(tensor, self.mean, self.std, self.inplace)

    def batch(self, array: np.ndarray, rng: BatchStream) -> np.ndarray:
        return self.into(array, None)

    def into(self, array: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        """`batch` with a place for the result, which may be `array`."""
        dtype = from_numpy_dtype(array.dtype)
        if not dtype.is_floating_point:
            raise TypeError(f"Input tensor should be a float tensor. Got {array.dtype}.")
        mean, std = F.moments(self.mean, self.std, dtype)
        return F.standardise(array, mean, std, out)

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std})"


class Lambda:
    """Any function as a transform; batches go through it one image at a time."""

    def __init__(self, lambd: Callable[[Any], Any]):
        if not callable(lambd):
            raise TypeError(f"Argument lambd should be callable, got {type(lambd).__name__!r}")
        self.lambd = lambd

    def __call__(self, img: Any) -> Any:
        return self.lambd(img)

    def __repr__(self) -> str:
        return "Lambda()"


# ---------------------------------------------------------------- colour and holes

class Grayscale(Transform):
    """A gray image of 1 or 3 channels."""

    def __init__(self, num_output_channels: int = 1):
        super().__init__()
        self.num_output_channels = num_output_channels

    def forward(self, img: Any) -> Any:
        return F.to_grayscale(img, self.num_output_channels)

    def batch(self, array: np.ndarray, rng: BatchStream) -> np.ndarray:
        return pixels.grayscale(array, self.num_output_channels)

    def __repr__(self) -> str:
        return f"Grayscale(num_output_channels={self.num_output_channels})"


class RandomGrayscale(Transform):
    """A gray image with as many channels as before, with probability p."""

    def __init__(self, p: float = 0.1):
        super().__init__()
        self.p = p

    def forward(self, img: Any) -> Any:
        channels = F.get_dimensions(img)[0]
        return F.to_grayscale(img, channels) if stream().uniform() < self.p else img

    def batch(self, array: np.ndarray, rng: BatchStream) -> np.ndarray:
        chosen = rng.uniform() < self.p
        out = array.copy()
        out[chosen] = pixels.grayscale(array[chosen], array.shape[1])
        return out

    def __repr__(self) -> str:
        return f"RandomGrayscale(p={self.p})"


class RandomErasing(Transform):
    """A random box of a tensor image overwritten, with probability p (Zhong et al. 2017).

    scale   the range of the box's share of the area
    ratio   the range of its aspect ratio
    value   a number, one for each channel, or "random" for normally distributed noise
    """

    needs = "tensor"

    def __init__(self, p: float = 0.5, scale: Sequence[float] = (0.02, 0.33),
                 ratio: Sequence[float] = (0.3, 3.3), value: Any = 0, inplace: bool = False):
        super().__init__()
        if isinstance(value, str) and value != "random":
            raise ValueError("If value is str, it should be 'random'")
        if scale[0] < 0 or scale[1] > 1:
            raise ValueError("Scale should be between 0 and 1")
        if p < 0 or p > 1:
            raise ValueError("Random erasing probability should be between 0 and 1")
        self.p = p
        self.scale = scale
        self.ratio = ratio
        self.value = value
        self.inplace = inplace

    def forward(self, img: Any) -> Any:
        random = stream()
        if not random.uniform() < self.p:
            return img
        channels, h, w = F.get_dimensions(img)
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            share = random.uniform(self.scale[0], self.scale[1])
            height, width = F.erasing_box(h, w, share, random.uniform(low, high))
            if not (height < h and width < w):
                continue
            top, left = random.integers(h - height + 1), random.integers(w - width + 1)
            value = self._value(random, (channels, height, width))
            if value.dtype != np.asarray(peek(img)).dtype:
                value = value.astype(img.dtype.np)
            return F.erase(img, top, left, height, width, to_tensor(value), self.inplace)
        return img

    def _value(self, random: Any, shape: tuple[int, int, int]) -> np.ndarray:
        if self.value == "random":               # Box and Muller 1958
            n = math.prod(shape)
            pairs = [(1.0 - random.uniform(), random.uniform()) for _ in range(n)]
            return np.array([math.sqrt(-2.0 * math.log(u)) * math.cos(2.0 * math.pi * v)
                             for u, v in pairs], np.float32).reshape(shape)
        value = np.asarray(self.value, np.float64)
        if value.ndim and value.size not in (1, shape[0]):
            raise ValueError("If value is a sequence, it should have either a single value or "
                             f"{shape[0]} (number of input channels)")
        return value.reshape(-1, 1, 1)

    def __repr__(self) -> str:
        return (f"RandomErasing(p={self.p}, scale={self.scale}, ratio={self.ratio}, "
                f"value={self.value}, inplace={self.inplace})")


# ---------------------------------------------------------------- choosing

class RandomApply(Transform):
    """Several transforms in a row, with probability p."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], p: float = 0.5):
        super().__init__()
        self.transforms = transforms
        self.p = p

    def forward(self, img: Any) -> Any:
        if self.p < stream().uniform():
            return img
        for t in self.transforms:
            img = t(img)
        return img

    def __repr__(self) -> str:
        lines = "".join(f"\n    {t}" for t in self.transforms)
        return f"{type(self).__name__}(\n    p={self.p}{lines}\n)"


class RandomTransforms(Compose):
    """A list of transforms that a subclass chooses from in its `__call__`.

    Raises TypeError for anything but a sequence.
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]):
        if not isinstance(transforms, Sequence):
            raise TypeError("Argument transforms should be a sequence, got "
                            f"{type(transforms).__name__}")
        super().__init__(transforms)

    def __call__(self, img: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} should implement __call__.")


class RandomOrder(RandomTransforms):
    """Several transforms in random order."""

    def __call__(self, img: Any) -> Any:
        for k in stream().permutation(len(self.transforms)):
            img = self.transforms[k](img)
        return img


class RandomChoice(RandomTransforms):
    """One of several transforms, with the given weights `p` (equal ones unless given).

    Raises TypeError or ValueError for weights that are not a sequence, one for each.
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]],
                 p: Sequence[float] | None = None):
        super().__init__(transforms)
        if p is not None and not isinstance(p, Sequence):
            raise TypeError(f"Argument p should be a sequence, got {type(p).__name__}")
        if p is not None and len(p) != len(transforms):
            raise ValueError("Length of p doesn't match the number of transforms: "
                             f"{len(p)} != {len(transforms)}")
        self.p = p

    def __call__(self, img: Any) -> Any:
        weights = [1.0] * len(self.transforms) if self.p is None else self.p
        mark = stream().uniform() * sum(weights)
        for t, weight in zip(self.transforms, weights):
            mark -= weight
            if mark < 0:
                return t(img)
        return self.transforms[-1](img)

    def __repr__(self) -> str:
        return f"{super().__repr__()}(p={self.p})"


class _Chosen:
    """Marks what `RandomApply` does to some samples of a batch; used by `pipeline`."""

    def __init__(self, p: float, steps: list[Any]):
        self.p = p
        self.steps = steps

    def batch(self, array: np.ndarray, rng: BatchStream) -> np.ndarray:
        chosen = ~(self.p < rng.uniform())
        if not chosen.any():
            return array
        part, numbers = array[chosen], rng.subset(chosen)
        for step in self.steps:
            part = step.batch(part, numbers)
        out = array.copy()
        out[chosen] = part
        return out


_KEEPING = (RandomHorizontalFlip, RandomVerticalFlip, RandomRotation, RandomAffine,
            RandomGrayscale, Normalize)
"""Transforms after which size and type are as before."""
