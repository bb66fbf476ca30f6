"""MNIST's files: where they are looked for, and what is said of bad ones."""

from __future__ import annotations

import gzip
import http.server
import os
import shutil
import struct
import threading

import numpy as np
import pytest

import facula
from facula.errors import DataError
from facula.vision.datasets import MNIST, FakeData, ImageFolder
from facula.vision.datasets.mnist import read_idx
from facula.vision.image import is_image

PACKAGE = MNIST.bundled
IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


class Elsewhere(MNIST):
    """MNIST that is not in the package."""

    bundled = None
    mirrors: list[str] = []


class Unpublished(Elsewhere):
    """Files of MNIST's form that are nobody's in particular."""

    contents: dict[str, str] = {}


def idx(array: np.ndarray) -> bytes:
    return (bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            + array.tobytes())


def put(root, name: str, data: bytes, cls: str = "Elsewhere") -> str:
    folder = os.path.join(root, cls, "raw")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(data)
    return path


@pytest.fixture(scope="module")
def published():
    with gzip.open(os.path.join(PACKAGE, IMAGES + ".gz")) as file:
        images = file.read()
    with gzip.open(os.path.join(PACKAGE, LABELS + ".gz")) as file:
        labels = file.read()
    return images, labels


def test_from_the_package(tmp_path) -> None:
    data = MNIST(tmp_path, train=False)
    assert len(data) == 10_000 and data.data.shape == (10_000, 28, 28)
    assert data.data.dtype is facula.uint8 and data.targets.dtype is facula.int64
    assert data.targets[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    image, target = data[0]
    assert is_image(image) and image.size == (28, 28) and image.mode == "L"
    assert target == 7 and type(target) is int
    assert np.asarray(image).sum() == 18454
    assert not os.listdir(tmp_path)
    assert data.classes[3] == "3 - three" and data.class_to_idx["3 - three"] == 3
    assert "Split: Test" in repr(data) and "Number of datapoints: 10000" in repr(data)
    assert data.raw_folder == os.path.join(str(tmp_path), "MNIST", "raw")
    with pytest.raises(IndexError):
        data[10_000]


def test_training_part() -> None:
    data = MNIST("unused", train=True, download=True, target_transform=str)
    assert len(data) == 60_000 and data[0][1] == "5"
    assert np.bincount(data.targets.numpy()).tolist() == [5923, 6742, 5958, 6131, 5842, 5421,
                                                          5918, 6265, 5851, 5949]


@pytest.mark.parametrize("packed", [False, True])
def test_files_under_root_come_first(tmp_path, published, packed) -> None:
    images, labels = published
    put(tmp_path, IMAGES + ".gz" * packed, gzip.compress(images, 1) if packed else images)
    put(tmp_path, LABELS, labels)
    assert len(Elsewhere(tmp_path, train=False)) == 10_000


def test_nothing_there(tmp_path) -> None:
    with pytest.raises(RuntimeError, match=r"Dataset not found.*download=True"):
        Elsewhere(tmp_path)
    with pytest.raises(RuntimeError, match="Dataset not found"):
        Unpublished(tmp_path)


def test_changed_file(tmp_path, published) -> None:
    images, labels = published
    changed = bytearray(images)
    changed[5000] ^= 1
    path = put(tmp_path, IMAGES, bytes(changed))
    put(tmp_path, LABELS, labels)
    with pytest.raises(DataError, match="SHA-256") as caught:
        Elsewhere(tmp_path, train=False)
    assert path in str(caught.value)


def test_root_is_not_passed_over(tmp_path) -> None:
    path = put(tmp_path, IMAGES, b"junk", cls="MNIST")
    with pytest.raises(DataError) as caught:
        MNIST(tmp_path, train=False)
    assert path in str(caught.value)


@pytest.mark.parametrize("damage, message", [
    (lambda raw: raw[:1000], "truncated"),
    (lambda raw: raw[:-4], "truncated"),
    (lambda raw: b"", "truncated"),
    (lambda raw: b"hello" + raw, "corrupted"),
    (lambda raw: raw[:3000] + bytes(100) + raw[3100:], "corrupted|truncated"),
])
def test_damaged_gz(tmp_path, published, damage, message) -> None:
    path = put(tmp_path, LABELS + ".gz", damage(gzip.compress(published[1])))
    put(tmp_path, IMAGES, published[0])
    with pytest.raises(DataError, match=message) as caught:
        Elsewhere(tmp_path, train=False)
    assert path in str(caught.value)


@pytest.mark.parametrize("data, message", [
    (b"", "truncated"), (b"\0\0", "truncated"), (b"\0\0\x08\x03\0\0", "truncated"),
    (b"GIF8....", "not an IDX file"), (b"\0\0\x0d\x01\0\0\0\0", "not an IDX file"),
    (idx(np.zeros((2, 3), np.uint8))[:-1], "truncated: 17 bytes.*needs 18"),
    (idx(np.zeros(2, np.uint8)) + b"x", "too long"),
    (b"\0\0\x08\x03" + b"\xff" * 12, "truncated"),
])
def test_what_is_no_idx_file(data, message) -> None:
    with pytest.raises(DataError, match=f"some file: {message}"):
        read_idx(data, "some file")


def test_parts_that_do_not_belong_together(tmp_path) -> None:
    put(tmp_path, IMAGES, idx(np.zeros((3, 28, 28), np.uint8)), "Unpublished")
    put(tmp_path, LABELS, idx(np.zeros(2, np.uint8)), "Unpublished")
    with pytest.raises(DataError, match="do not belong together"):
        Unpublished(tmp_path, train=False)
    put(tmp_path, LABELS, idx(np.arange(3, dtype=np.uint8)), "Unpublished")
    data = Unpublished(tmp_path, train=False)
    assert [data[i][1] for i in range(3)] == [0, 1, 2]


@pytest.fixture
def mirror(tmp_path):
    """A folder that is served, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_download(tmp_path, mirror, monkeypatch) -> None:
    folder, url = mirror
    root = tmp_path / "root"
    monkeypatch.setattr(Elsewhere, "mirrors", [url + "nowhere/", url])
    for name in (IMAGES, LABELS):
        shutil.copy(os.path.join(PACKAGE, name + ".gz"), folder)
    assert len(Elsewhere(root, train=False, download=True)) == 10_000
    assert sorted(os.listdir(root / "Elsewhere" / "raw")) == [IMAGES + ".gz", LABELS + ".gz"]
    monkeypatch.setattr(Elsewhere, "mirrors", [])
    assert len(Elsewhere(root, train=False)) == 10_000


def test_download_of_something_else(tmp_path, mirror, monkeypatch) -> None:
    folder, url = mirror
    root = tmp_path / "root"
    monkeypatch.setattr(Elsewhere, "mirrors", [url])
    for content, message in ((idx(np.zeros((2, 28, 28), np.uint8)), "SHA-256"),
                             (b"not the file", "not an IDX file")):
        (folder / (IMAGES + ".gz")).write_bytes(gzip.compress(content))
        with pytest.raises(DataError, match=rf"could not be downloaded(.|\n)*{message}"):
            Elsewhere(root, train=False, download=True)
    (folder / (IMAGES + ".gz")).write_bytes(b"<html>403 Forbidden</html>")
    with pytest.raises(DataError, match="corrupted"):
        Elsewhere(root, train=False, download=True)
    assert not os.path.exists(root)


def test_licence_travels_with_the_files() -> None:
    with open(os.path.join(PACKAGE, "README.md"), encoding="utf-8") as file:
        text = file.read()
    for words in ("Yann LeCun", "Corinna Cortes", "Burges", "Attribution-ShareAlike 3.0"):
        assert words in text


def test_fake_data() -> None:
    data = FakeData(5, (3, 8, 6), num_classes=4)
    image, target = data[2]
    assert image.size == (6, 8) and image.mode == "RGB" and 0 <= target < 4
    assert np.array_equal(np.asarray(image), np.asarray(data[2][0]))
    assert not np.array_equal(np.asarray(image), np.asarray(data[3][0]))
    with pytest.raises(IndexError):
        data[5]


def test_image_folder(tmp_path) -> None:
    pillow = pytest.importorskip("PIL.Image")
    for name, value in (("b", 200), ("a", 10)):
        os.makedirs(tmp_path / name / "deeper")
        pillow.new("L", (4, 3), value).save(tmp_path / name / "deeper" / "x.PNG")
        (tmp_path / name / "notes.txt").write_text("no image")
    data = ImageFolder(tmp_path)
    assert data.classes == ["a", "b"] and data.targets == [0, 1] and len(data) == 2
    image, target = data[1]
    assert image.mode == "RGB" and image.getpixel((0, 0)) == (200, 200, 200) and target == 1
    (tmp_path / "a" / "deeper" / "x.PNG").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"x\.PNG: cannot be read as an image"):
        data[0]
    os.makedirs(tmp_path / "c")
    with pytest.raises(FileNotFoundError, match="no valid file for the classes c"):
        ImageFolder(tmp_path)
    assert len(ImageFolder(tmp_path, allow_empty=True)) == 2
