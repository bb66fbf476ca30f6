"""What every transform has: a form for one image, perhaps one for batches, and a repr."""

from __future__ import annotations

from typing import Any

from facula.vision.transforms.functional import InterpolationMode

__all__ = ["Transform", "shown"]


class Transform:
    """What the transforms here have in common.

    needs   "image" or "tensor" where `batch` stands for only one of the two; None for both
    gives   what it makes of it; None for the same
    whole   this object has a form for batches as it is set up
    """

    needs: str | None = None
    gives: str | None = None

    @property
    def whole(self) -> bool:
        return True

    def forward(self, img: Any) -> Any:
        """The transformed image."""
        raise NotImplementedError(f"{type(self).__name__} should implement forward.")

    def __call__(self, img: Any) -> Any:
        return self.forward(img)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def shown(mode: Any) -> Any:
    """An interpolation mode as a repr names it; anything else as it is."""
    return mode.value if isinstance(mode, InterpolationMode) else mode
