"""What every transform has: a form for one image, perhaps one for batches, and a repr.

As in torchvision, transforms are modules without parameters, which `nn.Sequential` can hold; the
three that turn images into tensors or back are plain objects, and so is what holds a list.
"""

from __future__ import annotations

from typing import Any

from facula import nn
from facula.vision.transforms.functional import InterpolationMode

__all__ = ["Plain", "Transform", "shown"]


class Plain:
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


class Transform(nn.Module):
    """A transform that is a module: what `Plain` has, and a module's hooks, modes and children.

    A subclass calls `super().__init__()` before it sets attributes, and defines `forward`.
    """

    needs: str | None = None
    gives: str | None = None
    _called = True                  # there are no parameters to be drawn before the first call

    @property
    def whole(self) -> bool:
        return True

    def forward(self, img: Any) -> Any:
        """The transformed image."""
        raise NotImplementedError(f"{type(self).__name__} should implement forward.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def shown(mode: Any) -> Any:
    """An interpolation mode as a repr names it; anything else as it is."""
    return mode.value if isinstance(mode, InterpolationMode) else mode
