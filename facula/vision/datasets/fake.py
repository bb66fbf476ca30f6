"""Images made of random numbers, for trying a program without data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from facula.data import rng
from facula.vision.datasets.vision import VisionDataset
from facula.vision.image import make_image

__all__ = ["FakeData"]


class FakeData(VisionDataset):
    """`size` random images of shape `image_size` (C, H, W) with random labels.

    The same index always gives the same image; `random_offset` chooses other ones.
    """

    def __init__(self, size: int = 1000, image_size: tuple[int, int, int] = (3, 224, 224),
                 num_classes: int = 10, transform: Callable[[Any], Any] | None = None,
                 target_transform: Callable[[Any], Any] | None = None, random_offset: int = 0):
        super().__init__(None, transform=transform, target_transform=target_transform)
        if image_size[0] not in (1, 3, 4):
            raise ValueError(f"images have 1, 3 or 4 channels, not {image_size[0]}")
        self.size = size
        self.image_size = image_size
        self.num_classes = num_classes
        self.random_offset = random_offset

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"{type(self).__name__} index out of range")
        channels, height, width = self.image_size
        count = channels * height * width
        words = rng.raw(index + self.random_offset, -(-count // 8) + 1)
        pixels = words[1:].view(np.uint8)[:count].reshape(height, width, channels)
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        return self._changed(make_image(pixels[..., 0] if channels == 1 else pixels, mode),
                             int(words[0] % np.uint64(self.num_classes)))

    def __len__(self) -> int:
        return self.size
