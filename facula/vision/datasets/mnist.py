"""MNIST, whose files travel in the package.

A file is looked for under `root` first, unpacked or as .gz, where torchvision keeps it; then in
the package; and only then, if asked for, on the public mirrors.  Whatever is read is checked: its
form, its length and its checksum.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from facula.data import rng
from facula.data.arrays import Held, peek, to_tensor
from facula.data.fetch import Source, take_rows
from facula.errors import DataError
from facula.vision.datasets.published import check, fetch, write
from facula.vision.datasets.vision import VisionDataset
from facula.vision.image import make_image
from facula.vision.transforms.pipeline import Pipeline, pipeline

__all__ = ["FashionMNIST", "KMNIST", "MNIST", "read_idx"]

_FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "files")
_NAMES = {True: ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
          False: ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")}


def read_idx(data: bytes, name: str) -> np.ndarray:
    """The array in a file of the IDX format, unsigned bytes; `name` is for messages.

    Raises `DataError` if it is not such a file or has not as many bytes as it says.
    """
    if len(data) < 4:
        raise DataError(f"{name}: truncated: {len(data)} bytes, too few for an IDX header")
    if data[0] or data[1] or data[2] != 8 or not 1 <= data[3] <= 4:
        raise DataError(f"{name}: not an IDX file of unsigned bytes: it begins with "
                        f"{data[:4].hex(' ')}")
    ndim = data[3]
    start = 4 + 4 * ndim
    if len(data) < start:
        raise DataError(f"{name}: truncated: {len(data)} bytes, and the header alone has {start}")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", ndim, 4))
    needed = start + int(np.prod(shape, dtype=object))
    if len(data) != needed:
        what = "truncated" if len(data) < needed else "too long"
        raise DataError(f"{name}: {what}: {len(data)} bytes, and an array of shape {shape} needs "
                        f"{needed}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def _unpack(data: bytes, where: str) -> bytes:
    """The content of a .gz."""
    try:
        return gzip.decompress(data)
    except EOFError:
        raise DataError(f"{where}: truncated: the compressed data ends too early") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{where}: corrupted: {error}") from None


class MNIST(VisionDataset):
    """Handwritten digits: 60,000 images for training, 10,000 for testing, 28 x 28 gray pixels.

    LeCun, Cortes and Burges; CC BY-SA 3.0.  The files travel in the package.

    root       folder with MNIST/raw/train-images-idx3-ubyte[.gz] and the others, if you have them
    train      the training part, or the test part
    transform, target_transform  change the image (a PIL image where Pillow is installed) and
               the target (an int)
    download   look on the public mirrors for files that neither root nor the package has

    `data` is uint8 [N, 28, 28] and `targets` int64 [N].  Raises `DataError` (a RuntimeError)
    for files that are missing, truncated or not the published ones.
    """

    mirrors = ["https://ossci-datasets.s3.amazonaws.com/mnist/",
               "https://storage.googleapis.com/cvdf-datasets/mnist/",
               "http://yann.lecun.com/exdb/mnist/"]

    contents: dict[str, str] = {
        "train-images-idx3-ubyte":
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte":
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte":
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte":
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"}
    """SHA-256 or MD5, whichever was published, of the unpacked files or of those called .gz; a
    subclass for other files lists its own, or none."""

    bundled: str | None = os.path.join(_FILES, "mnist")
    """The package's folder of these files, if it has one."""

    classes = ["0 - zero", "1 - one", "2 - two", "3 - three", "4 - four", "5 - five", "6 - six",
               "7 - seven", "8 - eight", "9 - nine"]

    def __init__(self, root: str | os.PathLike[str], train: bool = True,
                 transform: Callable[[Any], Any] | None = None,
                 target_transform: Callable[[Any], Any] | None = None, download: bool = False):
        super().__init__(root, transform=transform, target_transform=target_transform)
        self.train = bool(train)
        images_name, labels_name = _NAMES[self.train]
        images, where = self._load(images_name, download)
        labels, labels_where = self._load(labels_name, download)
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise DataError(f"{where} and {labels_where} do not belong together: images of shape "
                            f"{images.shape}, labels of shape {labels.shape}")
        self.data = to_tensor(images)
        self.targets = to_tensor(labels.astype(np.int64), fresh=True)

    def _load(self, name: str, download: bool) -> tuple[np.ndarray, str]:
        """The array of one file, and where it was found."""
        folders = [self.raw_folder] + ([self.bundled] if self.bundled else [])
        for folder in folders:
            for path in (os.path.join(folder, name), os.path.join(folder, name + ".gz")):
                if os.path.isfile(path):
                    return self._array(_read(path), path), path
        if not download:
            raise DataError(f"Dataset not found: there is no {name} or {name}.gz in "
                            f"{' or '.join(folders)}. You can use download=True to download it")
        return self._download(name)

    def _array(self, data: bytes, where: str) -> np.ndarray:
        """What is in a file, packed if it is called .gz; DataError unless it is as published."""
        name = where.replace(os.sep, "/").rpartition("/")[2]
        if name.endswith(".gz"):
            check(data, self.contents.get(name, ""), where)
            name, data = name[:-3], _unpack(data, where)
        array = read_idx(data, where)
        check(data, self.contents.get(name, ""), where)
        return array

    def _download(self, name: str) -> tuple[np.ndarray, str]:
        """Fetch one file from the first mirror that has it; the array, and where it is now."""
        problems = []
        for mirror in self.mirrors:
            url = f"{mirror.rstrip('/')}/{name}.gz"
            try:
                packed = fetch(url)
                array = self._array(packed, url)
            except DataError as error:
                problems.append(str(error))
                continue
            path = os.path.join(self.raw_folder, name + ".gz")
            write(path, packed)
            return array, path
        raise DataError(f"{name}.gz could not be downloaded:\n  " + "\n  ".join(problems))

    @property
    def raw_folder(self) -> str:
        """root/MNIST/raw (the class's own name in the middle)."""
        assert self.root is not None
        return os.path.join(self.root, type(self).__name__, "raw")

    @property
    def processed_folder(self) -> str:
        """root/MNIST/processed; old versions of torchvision kept files there."""
        assert self.root is not None
        return os.path.join(self.root, type(self).__name__, "processed")

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The number of each class."""
        return {name: i for i, name in enumerate(self.classes)}

    @property
    def train_data(self) -> Any:
        return self.data

    @property
    def test_data(self) -> Any:
        return self.data

    @property
    def train_labels(self) -> Any:
        return self.targets

    @property
    def test_labels(self) -> Any:
        return self.targets

    def __len__(self) -> int:
        return int(self.data.shape[0])

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self._changed(make_image(peek(self.data)[index], "L"),
                             int(peek(self.targets)[index]))

    def _batch_source(self) -> Source | None:
        """See `facula.data.fetch`."""
        if self.target_transform is not None or self.transform is None:
            return None
        steps = pipeline(self.transform)
        if steps is None or self.data.ndim != 3 or self.data.dtype.name != "uint8":
            return None
        return _Digits(self, steps)

    def extra_repr(self) -> str:
        return f"Split: {'Train' if self.train else 'Test'}"


class FashionMNIST(MNIST):
    """Pictures of clothes in MNIST's form (Xiao, Rasul and Vollgraf 2017, MIT licence).

    Like `MNIST`, but that its files do not travel in the package: they are looked for in
    root/FashionMNIST/raw and, with `download=True`, fetched.
    """

    mirrors = ["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
               "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/"
               "fashion/"]
    contents = {"train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
                "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
                "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310"}
    bundled = None
    classes = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
               "Bag", "Ankle boot"]


class KMNIST(MNIST):
    """Japanese letters in cursive script in MNIST's form (Clanuwat et al. 2018, CC BY-SA 4.0).

    Like `MNIST`, but that its files do not travel in the package: they are looked for in
    root/KMNIST/raw and, with `download=True`, fetched.
    """

    mirrors = ["http://codh.rois.ac.jp/kmnist/dataset/kmnist/"]
    contents: dict[str, str] = {}
    archives = {"train-images-idx3-ubyte.gz": "bdb82020997e1d708af4cf47b453dcf7",
                "train-labels-idx1-ubyte.gz": "e144d726b3acfaa3e44228e80efcd344",
                "t10k-images-idx3-ubyte.gz": "5c965bf0a639b31b8f53240b1b52f4d7",
                "t10k-labels-idx1-ubyte.gz": "7320c461ea6c1c855c0b718fb2a4b134"}
    bundled = None
    classes = ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"]


class _Digits(Source):
    """Batches of gray images and their labels."""

    def __init__(self, dataset: MNIST, steps: Pipeline):
        self.dataset = dataset
        self.steps = steps
        self.images = Held(dataset.data)
        self.labels = Held(dataset.targets)
        self.size = min(int(dataset.data.shape[0]), int(dataset.targets.shape[0]))

    @property
    def random(self) -> bool:
        return self.steps.random

    def current(self) -> bool:
        dataset = self.dataset
        return (dataset.data is self.images.tensor and dataset.targets is self.labels.tensor
                and dataset.target_transform is None and self.steps.current(dataset.transform))

    def fetch(self, indices: np.ndarray, stream: rng.BatchStream | None) -> list[Any]:
        images = self.images.array().take(indices, axis=0, mode="clip")[:, None]
        labels = take_rows(self.labels.array(), indices, self.labels.tensor.dtype)
        return [self.steps.run(images, stream), labels]
