"""CIFAR-10 and CIFAR-100 (Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009).

The published files are pickles.  They are read by an unpickler that makes arrays, numbers,
strings, lists and dicts and nothing else, after their MD5 has been found to be the published one.
"""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from facula.data import rng
from facula.data.arrays import to_tensor
from facula.data.fetch import Source
from facula.errors import DataError
from facula.vision.datasets.published import check, fetch, write
from facula.vision.datasets.vision import VisionDataset
from facula.vision.image import make_image
from facula.vision.transforms.pipeline import Pipeline, pipeline

__all__ = ["CIFAR10", "CIFAR100"]


class _Unpickler(pickle.Unpickler):
    """Arrays and Python's plain values; a file that wants anything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray",
                                                 "numpy._core.multiarray"):
            return _empty
        if (module, name) == ("_codecs", "encode"):
            return _bytes
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it wants to run {module}.{name}")


def _empty(kind: Any, shape: Any, dtype: Any) -> np.ndarray:
    """What NumPy's pickles begin an array with; its state follows."""
    return np.ndarray.__new__(np.ndarray, (0,), np.uint8)


def _bytes(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it has bytes in {encoding}")
    return text.encode("latin1")


class CIFAR10(VisionDataset):
    """Small photographs: 50,000 for training, 10,000 for testing, 32 x 32 pixels in color.

    root       folder that has, or is to have, `cifar-10-batches-py`
    train      the training part, or the test part
    transform, target_transform  change the image (a PIL image where Pillow is installed) and
               the target (an int)
    download   fetch the archive (170 MB) if the files are not there

    `data` is a uint8 array [N, 32, 32, 3] and `targets` a list of N numbers, as in torchvision.
    Raises `DataError` (a RuntimeError) for files that are missing or not the published ones.
    """

    base_folder = "cifar-10-batches-py"
    url = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    tgz_md5 = "c58f30108f718f92721af3b95e74349a"
    parts: ClassVar[dict[bool, dict[str, str]]] = {
        True: {"data_batch_1": "c99cafc152244af753f735de768cd75f",
               "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
               "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
               "data_batch_4": "634d18415352ddfa80567beed471001a",
               "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb"},
        False: {"test_batch": "40351d587109b95175f43aff81a1287e"}}
    """MD5 of the files, of the training part and the test part; "" for a file of your own."""
    meta: ClassVar[tuple[str, str]] = ("batches.meta", "5ff9c542aee3614f3951f8cda6e48888")
    _label_key, _name_key = "labels", "label_names"

    def __init__(self, root: str | os.PathLike[str], train: bool = True,
                 transform: Callable[[Any], Any] | None = None,
                 target_transform: Callable[[Any], Any] | None = None, download: bool = False):
        super().__init__(root, transform=transform, target_transform=target_transform)
        self.train = bool(train)
        wanted = {**self.parts[True], **self.parts[False], self.meta[0]: self.meta[1]}
        if download and not all(os.path.isfile(self._path(name)) for name in wanted):
            self._download(wanted)
        images: list[np.ndarray] = []
        self.targets: list[int] = []
        for name, md5 in self.parts[self.train].items():
            entry = self._read(name, md5)
            try:
                images.append(np.asarray(entry["data"]).reshape(-1, 3, 32, 32))
                self.targets += [int(t) for t in entry[self._label_key]]
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(f"{self._path(name)}: is no part of {type(self).__name__}: "
                                f"{error!r}") from None
        planes = np.concatenate(images)
        if planes.dtype != np.uint8 or len(planes) != len(self.targets):
            raise DataError(f"{self._path('')}: {len(planes)} images of {planes.dtype} and "
                            f"{len(self.targets)} labels")
        self.data = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        self.classes: list[str] = list(self._read(*self.meta)[self._name_key])

    def _path(self, name: str) -> str:
        assert self.root is not None
        return os.path.join(self.root, self.base_folder, name)

    def _read(self, name: str, md5: str) -> dict[str, Any]:
        path = self._path(name)
        try:
            with open(path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            raise DataError(f"Dataset not found: there is no {path}. You can use download=True to "
                            "download it") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        check(data, md5, path)
        try:
            found = _Unpickler(io.BytesIO(data), encoding="latin1").load()
        except Exception as error:
            raise DataError(f"{path}: corrupted: {error}") from None
        if not isinstance(found, dict):
            raise DataError(f"{path}: holds a {type(found).__name__} and not a dict")
        return found

    def _download(self, wanted: dict[str, str]) -> None:
        """Fetch the archive and write the files in it that are wanted."""
        packed = fetch(self.url, timeout=60)
        check(packed, self.tgz_md5, self.url)
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for name, md5 in wanted.items():
                try:
                    member = archive.extractfile(f"{self.base_folder}/{name}")
                except KeyError:
                    member = None
                if member is None:
                    raise DataError(f"{self.url}: there is no {name} in it")
                data = member.read()
                check(data, md5, f"{self.url}: {name}")
                write(self._path(name), data)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The number of each class."""
        return {name: i for i, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self._changed(make_image(self.data[index], "RGB"), self.targets[index])

    def _batch_source(self) -> Source | None:
        """See `facula.data.fetch`."""
        if self.target_transform is not None or self.transform is None:
            return None
        steps = pipeline(self.transform)
        plain = (isinstance(self.data, np.ndarray) and self.data.dtype == np.uint8
                 and self.data.ndim == 4)
        return _Photographs(self, steps) if steps is not None and plain else None

    def extra_repr(self) -> str:
        return f"Split: {'Train' if self.train else 'Test'}"


class CIFAR100(CIFAR10):
    """CIFAR-10's kin with 100 classes: `cifar-100-python` under `root`; see `CIFAR10`."""

    base_folder = "cifar-100-python"
    url = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    tgz_md5 = "eb9058c3a382ffc7106e4002c42a8d85"
    parts: ClassVar[dict[bool, dict[str, str]]] = {
        True: {"train": "16019d7e3df5f24257cddd939b257f8d"},
        False: {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"}}
    meta: ClassVar[tuple[str, str]] = ("meta", "7973b15100ade9c7d40fb424638fde48")
    _label_key, _name_key = "fine_labels", "fine_label_names"


class _Photographs(Source):
    """Batches of images and their labels."""

    def __init__(self, dataset: CIFAR10, steps: Pipeline):
        self.dataset = dataset
        self.steps = steps
        self.images, self.targets = dataset.data, dataset.targets
        self.size = min(len(self.images), len(self.targets))

    @property
    def random(self) -> bool:
        return self.steps.random

    def current(self) -> bool:
        dataset = self.dataset
        return (dataset.data is self.images and dataset.targets is self.targets
                and dataset.target_transform is None and self.steps.current(dataset.transform))

    def fetch(self, indices: np.ndarray, stream: rng.BatchStream | None) -> list[Any]:
        images = self.images.take(indices, axis=0, mode="clip").transpose(0, 3, 1, 2)
        labels = np.array([self.targets[i] for i in indices.tolist()], np.int64)
        return [self.steps.run(np.ascontiguousarray(images), stream),
                to_tensor(labels, fresh=True)]
