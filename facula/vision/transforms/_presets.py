"""What goes before a trained network, in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from facula.data.arrays import is_tensor
from facula.dtype import float32
from facula.vision.transforms import functional as F
from facula.vision.transforms.base import Transform
from facula.vision.transforms.functional import InterpolationMode

__all__ = ["ImageClassification"]


class ImageClassification(Transform):
    """What networks for ImageNet are given: an image or tensor `[..., 3, H, W]`, resized so that
    its shorter side is `resize_size`, its middle cut out, and its values normalised, as a float32
    tensor `[..., 3, crop_size, crop_size]`."""

    def __init__(self, *, crop_size: int, resize_size: int = 256,
                 mean: Sequence[float] = (0.485, 0.456, 0.406),
                 std: Sequence[float] = (0.229, 0.224, 0.225),
                 interpolation: InterpolationMode = InterpolationMode.BILINEAR,
                 antialias: bool | None = True) -> None:
        super().__init__()
        self.crop_size, self.resize_size = [crop_size], [resize_size]
        self.mean, self.std = list(mean), list(std)
        self.interpolation, self.antialias = interpolation, antialias

    def forward(self, img: Any) -> Any:
        img = F.resize(img, self.resize_size, self.interpolation, antialias=self.antialias)
        img = F.center_crop(img, self.crop_size)
        if not is_tensor(img):
            img = F.pil_to_tensor(img)
        return F.normalize(F.convert_image_dtype(img, float32), self.mean, self.std)

    def __repr__(self) -> str:
        lines = "".join(f"\n    {name}={getattr(self, name)}" for name in
                        ("crop_size", "resize_size", "mean", "std", "interpolation"))
        return f"ImageClassification({lines}\n)"
