"""Images: Pillow's where Pillow is installed, and a small stand-in where it is not.

Everything that computes with pixels does so on arrays [channels, height, width], so that results
are the same with and without Pillow.  Pillow is imported only by who needs an image of its kind.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np

__all__ = ["Image", "from_planes", "is_image", "make_image", "pillow", "size_of", "to_planes"]

_MODES = {"1": (1, np.uint8), "L": (1, np.uint8), "LA": (2, np.uint8), "RGB": (3, np.uint8),
          "RGBA": (4, np.uint8), "I": (1, np.int32), "I;16": (1, np.uint16),
          "F": (1, np.float32)}
_MORE_MODES = {"P": 1, "CMYK": 4, "YCbCr": 3, "HSV": 3, "LAB": 3, "PA": 2, "La": 2, "RGBa": 4,
               "RGBX": 4}


class Image:
    """Pixels and a mode: what the transforms need of an image.

    mode    as Pillow names them: "1", "L", "LA", "RGB", "RGBA", "I", "I;16" or "F"
    size    (width, height)
    Its pixels are `numpy.asarray(image)`: [height, width] or [height, width, channels].
    """

    def __init__(self, pixels: Any, mode: str):
        if mode not in _MODES:
            raise ValueError(f"image mode {mode!r} is not one of {', '.join(_MODES)}")
        channels, dtype = _MODES[mode]
        pixels = np.asarray(pixels)
        expected = 2 if channels == 1 else 3
        if pixels.ndim != expected or (expected == 3 and pixels.shape[2] != channels):
            raise ValueError(f"pixels of shape {pixels.shape} are no image of mode {mode}")
        self.mode = mode
        self._pixels = np.array(pixels, dtype)

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def width(self) -> int:
        return int(self._pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self._pixels.shape[0])

    def getbands(self) -> tuple[str, ...]:
        """The channels' names, such as ("R", "G", "B")."""
        return tuple(self.mode) if self.mode in ("LA", "RGB", "RGBA") else (self.mode,)

    def getpixel(self, xy: tuple[int, int]) -> Any:
        """The pixel at (x, y): a number, or a tuple with one for each channel."""
        pixel = self._pixels[xy[1], xy[0]]
        return pixel.item() if pixel.ndim == 0 else tuple(pixel.tolist())

    def copy(self) -> Image:
        """An image with the same pixels."""
        return Image(self._pixels, self.mode)

    def tobytes(self) -> bytes:
        """The pixels, row by row."""
        return self._pixels.tobytes()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._pixels, dtype)

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, Image) and self.mode == other.mode
                and np.array_equal(self._pixels, other._pixels))

    __hash__ = None                                           # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<facula.vision.image.Image mode={self.mode} size={self.width}x{self.height}>"


@functools.cache
def pillow() -> Any:
    """The module PIL.Image, or None where Pillow is not installed."""
    try:
        import PIL.Image
    except ImportError:
        return None
    return PIL.Image


def is_image(value: Any) -> bool:
    """A Pillow image or a stand-in?  Does not import Pillow."""
    if isinstance(value, Image):
        return True
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def size_of(image: Any) -> tuple[int, int]:
    """(width, height)."""
    return image.size                                         # type: ignore[no-any-return]


def make_image(pixels: np.ndarray, mode: str) -> Any:
    """An image of pixels [H, W] or [H, W, C]: Pillow's if there is Pillow."""
    module = pillow()
    return Image(pixels, mode) if module is None else _pillow_image(module, pixels, mode)


def _pillow_image(module: Any, pixels: np.ndarray, mode: str) -> Any:
    height, width = pixels.shape[:2]
    if mode == "1":
        return module.fromarray(np.where(pixels, np.uint8(255), np.uint8(0)), "L").convert("1")
    dtype = _MODES[mode][1] if mode in _MODES else np.uint8
    data = np.ascontiguousarray(pixels, dtype)
    if not data.size:
        return module.new(mode, (width, height))
    return module.frombytes(mode, (width, height), data.tobytes())


def to_planes(image: Any) -> np.ndarray:
    """The pixels as [C, H, W]; mode "1" gives 0 and 255."""
    if image.mode not in _MODES and image.mode not in _MORE_MODES:
        raise TypeError(f"images of mode {image.mode!r} are not supported")
    pixels = np.asarray(image)
    if pixels.dtype == bool:
        pixels = np.where(pixels, np.uint8(255), np.uint8(0))
    elif image.mode == "1":
        pixels = np.where(pixels != 0, np.uint8(255), np.uint8(0))
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)


def from_planes(planes: np.ndarray, mode: str, like: Any) -> Any:
    """An image of this mode from [C, H, W], of the same kind (Pillow or not) as `like`."""
    pixels = planes[0] if planes.shape[0] == 1 else np.moveaxis(planes, 0, 2)
    if isinstance(like, Image):
        return Image(pixels, mode)
    out = _pillow_image(pillow(), pixels, mode)
    if mode == "P":
        out.putpalette(like.getpalette())
    return out
