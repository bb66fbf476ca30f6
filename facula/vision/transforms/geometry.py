"""Transforms that move pixels: flips, crops, sizes, rotations.

The form for batches is that of `transforms.py`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from facula.data.rng import BatchStream, stream
from facula.vision.transforms import functional as F
from facula.vision.transforms import pixels
from facula.vision.transforms.base import Transform, shown
from facula.vision.transforms.functional import InterpolationMode

__all__ = ["CenterCrop", "Pad", "RandomAffine", "RandomCrop", "RandomHorizontalFlip",
           "RandomResizedCrop", "RandomRotation", "RandomVerticalFlip", "Resize"]

_NEAREST = InterpolationMode.NEAREST
_BILINEAR = InterpolationMode.BILINEAR


class _RandomFlip(Transform):
    _flip: Any
    _index: Any

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = p

    def forward(self, img: Any) -> Any:
        return type(self)._flip(img) if stream().uniform() < self.p else img

    def batch(self, array: np.ndarray, rng: BatchStream) -> np.ndarray:
        chosen = rng.uniform() < self.p
        out = array.copy()
        out[chosen] = array[chosen][self._index]
        return out

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p={self.p})"


class RandomHorizontalFlip(_RandomFlip):
    """Left and right exchanged, with probability p."""

    _flip = staticmethod(F.hflip)
    _index = (..., slice(None, None, -1))


class RandomVerticalFlip(_RandomFlip):
    """Top and bottom exchanged, with probability p."""

    _flip = staticmethod(F.vflip)
    _index = (..., slice(None, None, -1), slice(None))


class Pad(Transform):
    """Padding on (left, top, right, bottom), with a value or a continuation of the image."""

    def __init__(self, padding: Any, fill: Any = 0, padding_mode: str = "constant"):
        super().__init__()
        if padding_mode not in ("constant", "edge", "reflect", "symmetric"):
            raise ValueError("Padding mode should be either constant, edge, reflect or symmetric")
        F.sides_of(padding)
        self.padding = padding
        self.fill = fill
        self.padding_mode = padding_mode

    def forward(self, img: Any) -> Any:
        return F.pad(img, self.padding, self.fill, self.padding_mode)

    def batch(self, array: np.ndarray, rng: BatchStream) -> np.ndarray:
        return pixels.pad(array, F.sides_of(self.padding), self.fill, self.padding_mode)

    def __repr__(self) -> str:
        return (f"Pad(padding={self.padding}, fill={self.fill}, "
                f"padding_mode={self.padding_mode})")


class CenterCrop(Transform):
    """The middle of the image."""

    def __init__(self, size: Any):
        super().__init__()
        self.size = F.pair(size)

    def forward(self, img: Any) -> Any:
        return F.center_crop(img, self.size)

    def batch(self, array: np.ndarray, rng: BatchStream) -> np.ndarray:
        h, w = array.shape[-2:]
        top, left = F.center_box(h, w, *self.size)
        return pixels.box(array, top, left, *self.size)

    def __repr__(self) -> str:
        return f"CenterCrop(size={self.size})"


class RandomCrop(Transform):
    """A part of the given size from a random place, after optional padding."""

    def __init__(self, size: Any, padding: Any = None, pad_if_needed: bool = False,
                 fill: Any = 0, padding_mode: str = "constant"):
        super().__init__()
        self.size = F.pair(size)
        self.padding = padding
        self.pad_if_needed = pad_if_needed
        self.fill = fill
        self.padding_mode = padding_mode

    def _paddings(self, h: int, w: int) -> list[tuple[int, int, int, int]]:
        """The paddings one after another, for an image of this size."""
        out = []
        if self.padding is not None:
            out.append(F.sides_of(self.padding))
            h, w = h + out[0][1] + out[0][3], w + out[0][0] + out[0][2]
        if self.pad_if_needed and w < self.size[1]:
            out.append((self.size[1] - w, 0, self.size[1] - w, 0))
        if self.pad_if_needed and h < self.size[0]:
            out.append((0, self.size[0] - h, 0, self.size[0] - h))
        return out

    def _room(self, h: int, w: int) -> tuple[int, int]:
        """In how many places the crop's top and left can be."""
        if h < self.size[0] or w < self.size[1]:
            raise ValueError(f"Required crop size {self.size} is larger than input image size "
                             f"{(h, w)}")
        return h - self.size[0] + 1, w - self.size[1] + 1

    def forward(self, img: Any) -> Any:
        for padding in self._paddings(*F.get_dimensions(img)[1:]):
            img = F.pad(img, padding, self.fill, self.padding_mode)
        rows, columns = self._room(*F.get_dimensions(img)[1:])
        if rows == columns == 1:
            return img
        random = stream()
        top, left = random.integers(rows), random.integers(columns)
        return F.crop(img, top, left, *self.size)

    def batch(self, array: np.ndarray, rng: BatchStream) -> np.ndarray:
        for padding in self._paddings(*array.shape[-2:]):
            array = pixels.pad(array, padding, self.fill, self.padding_mode)
        rows, columns = self._room(*array.shape[-2:])
        if rows == columns == 1:
            return array
        tops, lefts = rng.integers(rows).tolist(), rng.integers(columns).tolist()
        height, width = self.size
        out = np.empty((*array.shape[:-2], height, width), array.dtype)
        for k, (top, left) in enumerate(zip(tops, lefts)):
            out[k] = array[k, ..., top:top + height, left:left + width]
        return out

    def __repr__(self) -> str:
        return f"RandomCrop(size={self.size}, padding={self.padding})"


class Resize(Transform):
    """Resize to (height, width), or so that the shorter side has `size` pixels."""

    def __init__(self, size: Any, interpolation: Any = _BILINEAR, max_size: int | None = None,
                 antialias: bool | None = True):
        super().__init__()
        if not isinstance(size, (int, np.integer)) and (
                not isinstance(size, Sequence) or len(size) not in (1, 2)):
            raise TypeError(f"Size should be int or a sequence of 1 or 2 of them. Got {size}")
        self.size = size
        self.interpolation = interpolation
        self.max_size = max_size
        self.antialias = antialias

    @property
    def whole(self) -> bool:
        return self.antialias is not False       # images and tensors differ there

    def forward(self, img: Any) -> Any:
        return F.resize(img, self.size, self.interpolation, self.max_size, self.antialias)

    def batch(self, array: np.ndarray, rng: BatchStream) -> np.ndarray:
        h, w = array.shape[-2:]
        height, width = F.resized_dimensions(h, w, self.size, self.max_size)
        return pixels.resize(array, height, width, pixels.mode_of(self.interpolation))

    def __repr__(self) -> str:
        return (f"Resize(size={self.size}, interpolation={shown(self.interpolation)}, "
                f"max_size={self.max_size}, antialias={self.antialias})")


class RandomResizedCrop(Transform):
    """A crop of random area and aspect ratio, resized to `size`."""

    def __init__(self, size: Any, scale: Sequence[float] = (0.08, 1.0),
                 ratio: Sequence[float] = (3.0 / 4.0, 4.0 / 3.0), interpolation: Any = _BILINEAR,
                 antialias: bool | None = True):
        super().__init__()
        self.size = F.pair(size)
        if scale[0] > scale[1] or ratio[0] > ratio[1]:
            warnings.warn("Scale and ratio should be of kind (min, max)", stacklevel=2)
        self.scale = scale
        self.ratio = ratio
        self.interpolation = interpolation
        self.antialias = antialias

    def forward(self, img: Any) -> Any:
        _, h, w = F.get_dimensions(img)
        random = stream()
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            share = random.uniform(self.scale[0], self.scale[1])
            width, height = F.erasing_box(h, w, share, random.uniform(low, high))
            if 0 < width <= w and 0 < height <= h:
                top, left = random.integers(h - height + 1), random.integers(w - width + 1)
                break
        else:                                    # the middle, in the nearest ratio allowed
            ratio = min(max(w / h, min(self.ratio)), max(self.ratio))
            width, height = min(w, round(h * ratio)), min(h, round(w / ratio))
            top, left = (h - height) // 2, (w - width) // 2
        return F.resized_crop(img, top, left, height, width, self.size, self.interpolation,
                              self.antialias)

    def __repr__(self) -> str:
        return (f"RandomResizedCrop(size={self.size}, "
                f"scale={tuple(round(s, 4) for s in self.scale)}, "
                f"ratio={tuple(round(r, 4) for r in self.ratio)}, "
                f"interpolation={shown(self.interpolation)}, antialias={self.antialias})")


class RandomRotation(Transform):
    """A turn by a random angle between -degrees and degrees, or in (low, high)."""

    def __init__(self, degrees: Any, interpolation: Any = _NEAREST, expand: bool = False,
                 center: Sequence[float] | None = None, fill: Any = 0):
        super().__init__()
        self.degrees = F.degrees_of(degrees)
        if center is not None and len(center) != 2:
            raise ValueError("center should be a sequence of length 2.")
        self.interpolation = interpolation
        self.expand = expand
        self.center = center
        self.fill = fill

    @property
    def whole(self) -> bool:
        return not self.expand                   # sizes would differ

    def forward(self, img: Any) -> Any:
        angle = stream().uniform(*self.degrees)
        return F.rotate(img, angle, self.interpolation, self.expand, self.center, self.fill)

    def batch(self, array: np.ndarray, rng: BatchStream) -> np.ndarray:
        mode = pixels.mode_of(self.interpolation)
        out = np.empty_like(array)
        for k, angle in enumerate(rng.uniform(*self.degrees).tolist()):
            out[k] = pixels.rotate(array[k], angle, mode, False, self.center, self.fill)
        return out

    def __repr__(self) -> str:
        return (f"RandomRotation(degrees={list(self.degrees)}, "
                f"interpolation={shown(self.interpolation)}, expand={self.expand}"
                + (f", center={self.center}" if self.center is not None else "")
                + (f", fill={self.fill}" if self.fill is not None else "") + ")")


class RandomAffine(Transform):
    """A random turn, shift (share of the size), scaling and shear (degrees)."""

    def __init__(self, degrees: Any, translate: Sequence[float] | None = None,
                 scale: Sequence[float] | None = None, shear: Any = None,
                 interpolation: Any = _NEAREST, fill: Any = 0,
                 center: Sequence[float] | None = None):
        super().__init__()
        self.degrees = F.degrees_of(degrees)
        if translate is not None and any(not 0.0 <= t <= 1.0 for t in translate):
            raise ValueError("translation values should be between 0 and 1")
        if scale is not None and any(s <= 0 for s in scale):
            raise ValueError("scale values should be positive")
        self.translate = translate
        self.scale = scale
        if shear is not None and not isinstance(shear, (int, float)) and len(shear) == 4:
            self.shear: Any = tuple(float(s) for s in shear)
        else:
            self.shear = None if shear is None else F.degrees_of(shear, "shear")
        self.interpolation = interpolation
        self.fill = fill
        self.center = center

    def _draw(self, random: Any, h: int, w: int) -> tuple[Any, Any, Any, Any, Any, Any]:
        """Angle, shift in x and y, scale, shear in x and y: numbers, or an array of each."""
        angle = random.uniform(*self.degrees)
        x = y = sx = sy = 0.0 * angle
        if self.translate is not None:
            reach = self.translate[0] * w, self.translate[1] * h
            x, y = (np.rint(random.uniform(-reach[0], reach[0])),
                    np.rint(random.uniform(-reach[1], reach[1])))
        scale = 1.0 + 0.0 * angle if self.scale is None else random.uniform(*self.scale)
        if self.shear is not None:
            sx = random.uniform(self.shear[0], self.shear[1])
            if len(self.shear) == 4:
                sy = random.uniform(self.shear[2], self.shear[3])
        return angle, x, y, scale, sx, sy

    def forward(self, img: Any) -> Any:
        _, h, w = F.get_dimensions(img)
        angle, x, y, scale, sx, sy = (float(v) for v in self._draw(stream(), h, w))
        return F.affine(img, angle, (x, y), scale, (sx, sy), self.interpolation, self.fill,
                        self.center)

    def batch(self, array: np.ndarray, rng: BatchStream) -> np.ndarray:
        h, w = array.shape[-2:]
        mode = pixels.mode_of(self.interpolation)
        out = np.empty_like(array)
        draws = [v.tolist() for v in self._draw(rng, h, w)]
        for k, (angle, x, y, scale, sx, sy) in enumerate(zip(*draws)):
            matrix = pixels.inverse_affine(angle, (x, y), scale, (sx, sy), h, w, self.center)
            out[k] = pixels.affine(array[k], matrix, h, w, mode, self.fill)
        return out

    def __repr__(self) -> str:
        parts = [f"degrees={list(self.degrees)}"]
        parts += [f"{name}={getattr(self, name)}" for name in ("translate", "scale", "shear")
                  if getattr(self, name) is not None]
        if self.interpolation not in (_NEAREST, 0):
            parts.append(f"interpolation={shown(self.interpolation)}")
        if self.fill != 0:
            parts.append(f"fill={self.fill}")
        if self.center is not None:
            parts.append(f"center={self.center}")
        return f"RandomAffine({', '.join(parts)})"
