"""CIFAR's files and Fashion-MNIST's: read, fetched and refused."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import os
import pickle
import tarfile
import threading

import numpy as np
import pytest

import facula
from facula.data import DataLoader
from facula.errors import DataError
from facula.vision import transforms
from facula.vision.datasets import CIFAR10, CIFAR100, FashionMNIST

FOLDER = "cifar-10-batches-py"


def content(seed: int, n: int = 7) -> dict:
    rng = np.random.default_rng(seed)
    return {"data": rng.integers(0, 256, (n, 3072), np.uint8),
            "labels": rng.integers(0, 10, n).tolist()}


def files() -> dict[str, bytes]:
    """A small data set of the same form."""
    out = {f"data_batch_{k}": pickle.dumps(content(k), 2) for k in (1, 2)}
    out["test_batch"] = pickle.dumps(content(9, 4), 2)
    out["batches.meta"] = pickle.dumps({"label_names": [f"kind {k}" for k in range(10)]}, 2)
    return out


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Small(CIFAR10):
    parts = {True: {n: md5(files()[n]) for n in ("data_batch_1", "data_batch_2")},
             False: {"test_batch": md5(files()["test_batch"])}}
    meta = ("batches.meta", md5(files()["batches.meta"]))


@pytest.fixture
def root(tmp_path):
    os.makedirs(tmp_path / FOLDER)
    for name, data in files().items():
        (tmp_path / FOLDER / name).write_bytes(data)
    return tmp_path


@pytest.fixture
def served(tmp_path):
    """A folder and the address at which it is served."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None                       # type: ignore[attr-defined]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield tmp_path, f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_images_and_targets(root):
    train, test = Small(root), Small(root, train=False)
    assert len(train) == 14 and len(test) == 4 and train.data.shape == (14, 32, 32, 3)
    want = content(2)
    np.testing.assert_array_equal(train.data[8], want["data"][1].reshape(3, 32, 32)
                                  .transpose(1, 2, 0))
    assert train.targets[7:] == want["labels"]
    assert train.classes[3] == "kind 3" and train.class_to_idx["kind 3"] == 3
    image, target = train[8]
    assert image.size == (32, 32) and image.mode == "RGB" and target == want["labels"][1]
    assert "Split: Train" in repr(train)


def test_batches_are_those_of_single_samples(root):
    scale = transforms.Normalize((0.5,) * 3, (0.2,) * 3)
    steps = transforms.Compose([transforms.ToTensor(), scale])
    data = Small(root, transform=steps)
    assert data._batch_source() is not None
    (images, labels), = DataLoader(data, batch_size=14)
    assert images.shape == (14, 3, 32, 32) and labels.dtype is facula.int64
    for k in range(14):
        image, label = data[k]
        np.testing.assert_array_equal(images[k].numpy(), image.numpy())
        assert labels[k].item() == label
    data.targets[0] = 77
    (_, labels), = DataLoader(data, batch_size=14)
    assert labels[0].item() == 77


class Boom:
    def __reduce__(self):
        return os.system, ("exit 3",)


@pytest.mark.parametrize("data, words", [
    (pickle.dumps(Boom()), "wants to run"), (b"no pickle", "corrupted"),
    (pickle.dumps([1]), "not a dict"), (pickle.dumps({"data": 3}), "no part"),
    (pickle.dumps({**content(1), "labels": [1]}), "labels"),
])
def test_files_that_are_no_such_thing(root, data, words):
    class Own(Small):
        parts = {True: {"mine": ""}, False: {}}

    (root / FOLDER / "mine").write_bytes(data)
    with pytest.raises(DataError, match=words):
        Own(root)


def test_files_that_are_not_the_published_ones(root):
    with pytest.raises(DataError, match="MD5"):
        CIFAR10(root)
    os.unlink(root / FOLDER / "data_batch_2")
    with pytest.raises(DataError, match=r"data_batch_2.*download=True"):
        Small(root)
    with pytest.raises(DataError, match="cifar-100-python"):
        CIFAR100(root)


def archive(without: str = "") -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz") as tar:
        for name, data in files().items():
            if name != without:
                info = tarfile.TarInfo(f"{FOLDER}/{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return memory.getvalue()


def test_fetching(served):
    folder, address = served
    packed = archive()
    (folder / "small.tar.gz").write_bytes(packed)

    class There(Small):
        url = address + "small.tar.gz"
        tgz_md5 = md5(packed)

    assert len(There(folder / "new", download=True)) == 14
    assert len(There(folder / "new", download=False, train=False)) == 4

    class Other(There):
        tgz_md5 = md5(b"")

    with pytest.raises(DataError, match="MD5"):
        Other(folder / "newer", download=True)
    short = archive(without="test_batch")
    (folder / "small.tar.gz").write_bytes(short)

    class Short(There):
        tgz_md5 = md5(short)

    with pytest.raises(DataError, match="no test_batch"):
        Short(folder / "newest", download=True)

    class Nowhere(There):
        url = address + "nothing"

    with pytest.raises(DataError, match="could not be downloaded"):
        Nowhere(folder / "none", download=True)


def test_fashion_is_held_to_its_published_archives(served):
    folder, address = served

    class Fashion(FashionMNIST):
        mirrors = [address]
        contents = {}

    raw = folder / "Fashion" / "raw"
    os.makedirs(raw)
    images = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28]) + bytes(2 * 784)
    labels = bytes([0, 0, 8, 1, 0, 0, 0, 2, 9, 1])
    (raw / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    with pytest.raises(DataError, match="download=True"):
        Fashion(folder, train=False)
    Fashion.contents = {"t10k-labels-idx1-ubyte.gz": md5(b"")}
    with pytest.raises(DataError, match="MD5"):
        Fashion(folder, train=False, download=True)
    Fashion.contents = {"t10k-labels-idx1-ubyte.gz":
                        md5((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())}
    found = Fashion(folder, train=False, download=True)
    assert found.targets.tolist() == [9, 1] and found.classes[9] == "Ankle boot"
    Fashion.contents = FashionMNIST.contents
    with pytest.raises(DataError, match="MD5"):
        Fashion(folder, train=False)
