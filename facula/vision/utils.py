"""Pictures of many images: a grid of them, and a file that shows it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from facula.data.arrays import is_tensor, peek, to_tensor
from facula.errors import ShapeError
from facula.tensor import Tensor
from facula.vision.image import pillow

__all__ = ["make_grid", "save_image"]


def make_grid(tensor: Tensor | Sequence[Tensor], nrow: int = 8, padding: int = 2,
              normalize: bool = False, value_range: tuple[float, float] | None = None,
              scale_each: bool = False, pad_value: float = 0.0) -> Tensor:
    """One image [C, H', W'] of a batch [B, C, H, W], `nrow` images to a row.

    tensor       also a list of images of one size, or one image, [C, H, W] or [H, W], which is
                 given back without a border.  Images of one channel become three equal ones.
    padding      pixels between images and around them, of value `pad_value`
    normalize    scale to 0 ... 1 what lies in `value_range`, or between the smallest and the
                 largest value; of each image by itself with `scale_each`

    Raises TypeError for what is neither a tensor nor a list of them or a `value_range` that is no
    pair, ShapeError for other numbers of dimensions or images of different sizes.
    """
    images = _batch(tensor)
    if value_range is not None and not isinstance(value_range, tuple):
        raise TypeError("value_range has to be a tuple (low, high), and is "
                        f"{type(value_range).__name__}")
    if normalize:
        images = images.astype(np.result_type(images.dtype, np.float32))
        for part in images if scale_each else [images]:
            low, high = value_range or ((part.min(), part.max()) if part.size else (0, 1))
            part[...] = (np.clip(part, low, high) - low) / max(high - low, 1e-5)
    elif scale_each:
        raise ValueError("scale_each scales as part of normalize=True")
    count, channels, height, width = images.shape
    if count == 1:
        return to_tensor(images[0].copy(), fresh=True)
    columns = min(nrow, count)
    rows = math.ceil(count / columns) if columns else 0
    height, width = height + padding, width + padding
    grid = np.full((channels, rows * height + padding, columns * width + padding), pad_value,
                   images.dtype)
    for k, image in enumerate(images):
        top, left = k // columns * height + padding, k % columns * width + padding
        grid[:, top:top + height - padding, left:left + width - padding] = image
    return to_tensor(grid, fresh=True)


def _batch(tensor: Any) -> np.ndarray:
    """The images as [B, C, H, W] with C not 1."""
    if isinstance(tensor, (list, tuple)) and all(map(is_tensor, tensor)) and tensor:
        sizes = {tuple(t.shape) for t in tensor}
        if len(sizes) > 1:
            raise ShapeError(f"images of a grid are of one size; these are of {sorted(sizes)}")
        images = np.stack([peek(t) for t in tensor])
    elif is_tensor(tensor):
        images = peek(tensor)
    else:
        raise TypeError(f"tensor or list of tensors expected, got {type(tensor)}")
    if images.ndim == 2:
        images = images[None]
    if images.ndim == 3:                        # one image, or a list of them without channels
        images = images[:, None] if isinstance(tensor, (list, tuple)) else images[None]
    if images.ndim != 4:
        raise ShapeError("a grid is made of [B, C, H, W], [C, H, W] or [H, W], not of "
                         f"{tuple(images.shape)}")
    return np.repeat(images, 3, 1) if images.shape[1] == 1 else images


def save_image(tensor: Tensor | Sequence[Tensor], fp: str | os.PathLike[str] | IO[bytes],
               format: str | None = None, **kwargs: Any) -> None:
    """Write images, values from 0 to 1, as one picture: `make_grid` of them takes `kwargs`.

    fp       a path, whose ending says in which format, or an open file together with `format`

    Raises ImportError where Pillow is not installed.
    """
    module = pillow()
    if module is None:
        raise ImportError("save_image needs Pillow: pip install 'facula[demo]'")
    grid = np.array(peek(make_grid(tensor, **kwargs)))
    pixels = np.clip(grid.astype(np.float32) * 255 + np.float32(0.5), 0, 255).astype(np.uint8)
    module.fromarray(np.ascontiguousarray(np.moveaxis(pixels, 0, 2))).save(fp, format=format)
