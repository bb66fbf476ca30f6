"""Images in folders, one folder a class."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from facula.errors import DataError
from facula.vision.datasets.vision import VisionDataset
from facula.vision.image import pillow

__all__ = ["DatasetFolder", "IMG_EXTENSIONS", "ImageFolder", "default_loader"]

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def default_loader(path: str) -> Any:
    """Read an image file as RGB; needs Pillow."""
    module = pillow()
    if module is None:
        raise ImportError("reading image files needs Pillow: pip install pillow")
    try:
        with open(path, "rb") as file:
            return module.open(file).convert("RGB")
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path}: cannot be read as an image: {error}") from error


class DatasetFolder(VisionDataset):
    """Samples in root/class/.../file: (loader(path), number of the class).

    loader         reads one file
    extensions     which files count; or
    is_valid_file  a function of the path that says so
    allow_empty    whether a class may have no files

    `classes` are the folders' names in order, `samples` the list of (path, class number).
    Raises `FileNotFoundError` where there are no classes, or no files for one.
    """

    def __init__(self, root: str | os.PathLike[str], loader: Callable[[str], Any],
                 extensions: tuple[str, ...] | None = None,
                 transform: Callable[[Any], Any] | None = None,
                 target_transform: Callable[[Any], Any] | None = None,
                 is_valid_file: Callable[[str], bool] | None = None,
                 allow_empty: bool = False):
        super().__init__(root, transform=transform, target_transform=target_transform)
        if (extensions is None) == (is_valid_file is None):
            raise ValueError("Both extensions and is_valid_file cannot be None or not None at the "
                             "same time")
        assert self.root is not None
        self.loader = loader
        self.extensions = extensions
        self.classes, self.class_to_idx = self.find_classes(self.root)
        if extensions is not None:
            endings = tuple(e.lower() for e in extensions)

            def is_valid_file(path: str) -> bool:
                return path.lower().endswith(endings)
        assert is_valid_file is not None
        self.samples: list[tuple[str, int]] = []
        empty = []
        for name in self.classes:
            before = len(self.samples)
            top = os.path.join(self.root, name)
            for folder, _, files in sorted(os.walk(top, followlinks=True)):
                for file in sorted(files):
                    path = os.path.join(folder, file)
                    if is_valid_file(path):
                        self.samples.append((path, self.class_to_idx[name]))
            if len(self.samples) == before:
                empty.append(name)
        if empty and not allow_empty:
            known = f" Supported extensions are: {', '.join(extensions)}" if extensions else ""
            raise FileNotFoundError(
                f"Found no valid file for the classes {', '.join(empty)}.{known}")
        self.targets = [target for _, target in self.samples]

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        """The classes' names in order, and the number of each."""
        names = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
        if not names:
            raise FileNotFoundError(f"Couldn't find any class folder in {directory}.")
        return names, {name: i for i, name in enumerate(names)}

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, target = self.samples[index]
        sample = self.loader(path)
        if self.transform is not None:
            sample = self.transform(sample)
        if self.target_transform is not None:
            return sample, self.target_transform(target)
        return sample, target

    def __len__(self) -> int:
        return len(self.samples)


class ImageFolder(DatasetFolder):
    """Images in root/class/....png: (image, number of the class)."""

    def __init__(self, root: str | os.PathLike[str],
                 transform: Callable[[Any], Any] | None = None,
                 target_transform: Callable[[Any], Any] | None = None,
                 loader: Callable[[str], Any] = default_loader,
                 is_valid_file: Callable[[str], bool] | None = None, allow_empty: bool = False):
        super().__init__(root, loader, IMG_EXTENSIONS if is_valid_file is None else None,
                         transform, target_transform, is_valid_file, allow_empty)
        self.imgs = self.samples
