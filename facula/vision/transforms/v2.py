"""torchvision's second set of names for transforms, for images alone.

Most are those of `facula.vision.transforms`, as they are.  What is new says how a tensor is made
of an image: `ToImage` and then `ToDtype`.  Calls take one image; there are no boxes, masks or
labels beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from facula import nn
from facula.data.arrays import is_tensor, to_tensor
from facula.dtype import DType
from facula.vision.transforms import functional as functional
from facula.vision.transforms import jitter, transforms
from facula.vision.transforms.base import Transform
from facula.vision.transforms.jitter import *  # noqa: F403
from facula.vision.transforms.transforms import *  # noqa: F403

__all__ = ["Compose", "ToDtype", "ToImage", "ToPureTensor", "functional"]
__all__ += jitter.__all__
__all__ += transforms.__all__


class Compose(Transform):
    """One transform after another, as a module.  TypeError or ValueError for anything but a
    sequence of one or more that can be called."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        super().__init__()
        if not isinstance(transforms, Sequence):
            raise TypeError("Argument transforms should be a sequence of callables, got "
                            f"{type(transforms).__name__}")
        if not transforms:
            raise ValueError("Pass at least one transform")
        self.transforms = transforms

    def forward(self, img: Any) -> Any:
        for t in self.transforms:
            img = t(img)
        return img

    def extra_repr(self) -> str:
        return "\n".join(f"    {t}" for t in self.transforms)

    __repr__ = nn.Module.__repr__


class ToImage(Transform):
    """An image, ndarray `[H, W]` or `[H, W, C]`, or tensor as a tensor `[C, H, W]` of its own
    type, unscaled.  TypeError for anything else."""

    def forward(self, img: Any) -> Any:
        if is_tensor(img):
            return img if img.ndim > 2 else img.unsqueeze(0)
        if isinstance(img, np.ndarray):
            if img.ndim not in (2, 3):
                raise ValueError(f"an image has 2 or 3 dimensions, got {img.ndim}")
            return to_tensor(img[None] if img.ndim == 2 else img.transpose(2, 0, 1))
        return functional.pil_to_tensor(img)


class ToDtype(Transform):
    """A tensor in another dtype; `scale` maps the range of whole numbers on 0 to 1, or back.

    TypeError for something that is no dtype, or for an image, which `ToImage` makes a tensor.
    """

    def __init__(self, dtype: DType, scale: bool = False) -> None:
        super().__init__()
        if not isinstance(dtype, DType):
            raise TypeError(f"Argument dtype should be of type facula.dtype, got {dtype!r}")
        self.dtype, self.scale = dtype, scale

    def forward(self, img: Any) -> Any:
        if not is_tensor(img):
            raise TypeError(f"ToDtype takes a tensor, got {type(img).__name__}: put ToImage() "
                            "before it")
        return functional.convert_image_dtype(img, self.dtype) if self.scale \
            else img.to(self.dtype)

    def __repr__(self) -> str:
        return f"ToDtype(scale={self.scale})"


class ToPureTensor(nn.Identity):
    """The tensor as it is: images are plain tensors here."""
