"""What the data sets of images have in common."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from facula.data.dataset import Dataset

__all__ = ["StandardTransform", "VisionDataset"]


class StandardTransform:
    """`transform` for the image and `target_transform` for the target, as one callable."""

    def __init__(self, transform: Callable[[Any], Any] | None = None,
                 target_transform: Callable[[Any], Any] | None = None):
        self.transform = transform
        self.target_transform = target_transform

    def __call__(self, image: Any, target: Any) -> tuple[Any, Any]:
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target


class VisionDataset(Dataset[Any]):
    """A data set of (image, target) under a folder.

    root              the folder, "~" is expanded
    transform         changes the image; target_transform changes the target
    transforms        changes both at once: `transforms(image, target)`; excludes the other two
    """

    def __init__(self, root: str | os.PathLike[str] | None = None,
                 transforms: Callable[[Any, Any], tuple[Any, Any]] | None = None,
                 transform: Callable[[Any], Any] | None = None,
                 target_transform: Callable[[Any], Any] | None = None):
        self.root = None if root is None else os.path.expanduser(os.fspath(root))
        if transforms is not None and (transform is not None or target_transform is not None):
            raise ValueError("Only transforms or transform/target_transform can be passed as "
                             "argument")
        self.transform = transform
        self.target_transform = target_transform
        if transform is not None or target_transform is not None:
            transforms = StandardTransform(transform, target_transform)
        self.transforms = transforms

    def _changed(self, image: Any, target: Any) -> tuple[Any, Any]:
        """A sample after `transform` and `target_transform`."""
        return StandardTransform(self.transform, self.target_transform)(image, target)

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} should define __len__.")

    def __repr__(self) -> str:
        lines = [f"Dataset {type(self).__name__}", f"    Number of datapoints: {len(self)}"]
        if self.root is not None:
            lines.append(f"    Root location: {self.root}")
        lines += [f"    {line}" for line in self.extra_repr().splitlines()]
        for name, value in (("Transform", self.transform),
                            ("Target transform", self.target_transform)):
            if value is not None:
                shown = repr(value).splitlines()
                lines.append(f"    {name}: {shown[0]}")
                lines += [" " * (len(name) + 6) + line for line in shown[1:]]
        return "\n".join(lines)

    def extra_repr(self) -> str:
        """More lines for `repr`."""
        return ""
