"""Files hold data and only data, survive a killed writer, and damage is named."""

from __future__ import annotations

import collections
import io
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

import facula
from facula.errors import DataError

DTYPES = [facula.bool, facula.uint8, facula.int8, facula.int16, facula.int32, facula.int64,
          facula.uint16, facula.uint32, facula.uint64, facula.float16, facula.bfloat16,
          facula.float32, facula.float64, facula.complex64, facula.complex128]


def _equal(a, b):
    assert a.dtype is b.dtype and a.shape == b.shape
    np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_shape(tmp_path, dtype):
    path = tmp_path / "x.safetensors"
    tensors = {str(k): facula.arange(n).reshape(shape).to(dtype) for k, (n, shape) in enumerate(
        [(6, (2, 3)), (1, ()), (0, (0, 4)), (1, (1, 1, 1)), (35, (5, 7))])}
    facula.save(tensors, path)
    back = facula.load(path)
    assert list(back) == sorted(back) or set(back) == set(tensors)
    for name, t in tensors.items():
        _equal(back[name], t)
    facula.save(tensors["0"].t(), path)
    _equal(facula.load(path), tensors["0"].t())


def test_nested_containers(tmp_path):
    path = tmp_path / "checkpoint"
    shared = facula.tensor([1.0, 2.0])
    leaf = facula.tensor([3.0], requires_grad=True)
    obj = {"model": collections.OrderedDict(a=shared, b=shared), "epoch": 3, 7: (1, "x", None),
           "list": [facula.tensor(1), [True, 2.5, float("inf"), 1 + 2j]], "leaf": leaf,
           ("k", 1): b"bytes", "size": facula.Size([1, 2]), "dtype": facula.float16,
           "set": {1, 2}, "array": np.arange(3), "empty": {}, "a.b": {"": facula.ones(1)},
           "big": 10 ** 30, "device": facula.device("cpu")}
    facula.save(obj, path)
    back = facula.load(path, map_location="cpu", weights_only=True)
    assert list(back) == list(obj)
    assert type(back["model"]) is collections.OrderedDict
    assert back["model"]["a"] is back["model"]["b"]
    assert back[7] == (1, "x", None) and back["epoch"] == 3 and back["big"] == 10 ** 30
    assert back["list"][1] == [True, 2.5, float("inf"), 1 + 2j]
    assert back["leaf"].requires_grad and back["leaf"].is_leaf
    assert back["dtype"] is facula.float16 and back["set"] == {1, 2} and back["size"] == (1, 2)
    assert isinstance(back["array"], np.ndarray) and back[("k", 1)] == b"bytes"
    _equal(back["a.b"][""], facula.ones(1))


def test_loaded_tensors_are_private(tmp_path):
    path = tmp_path / "x"
    facula.save({"x": facula.zeros(1000)}, path)
    before = path.read_bytes()
    x = facula.load(path)["x"]
    x += 1
    x.numpy()[0] = 5
    assert x.sum().item() == 1004 and path.read_bytes() == before
    facula.save({"x": x}, path)                 # over the file that it is mapped from
    assert facula.load(path)["x"].sum().item() == 1004


def test_file_objects_and_readers_of_the_format(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    stream = io.BytesIO()
    tensors = {"w": facula.rand(3, 4), "b": facula.arange(5), "h": facula.ones(3).half()}
    facula.save(tensors, stream)
    theirs = safetensors.load(stream.getvalue())
    for name, t in tensors.items():
        np.testing.assert_array_equal(theirs[name], t.numpy())
    stream.seek(0)
    assert set(facula.load(stream)) == set(tensors)
    path = tmp_path / "theirs"
    safetensors.save_file({"q": np.arange(6.0).reshape(2, 3)}, path)
    assert facula.load(path)["q"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_refusals(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(TypeError, match=r"lambda|function"):
        facula.save({"f": lambda: 0}, path)
    assert not os.listdir(tmp_path)
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match="contains itself"):
        facula.save(loop, path)
    with pytest.raises(FileNotFoundError):
        facula.load(tmp_path / "nothing")


def test_damaged_files_are_named(tmp_path):
    good = tmp_path / "good"
    facula.save({"a": facula.rand(100), "n": facula.arange(7), "t": [1, 2]}, good)
    content = good.read_bytes()
    bad = tmp_path / "bad.safetensors"
    for cut in (0, 1, 7, 8, 50, len(content) // 2, len(content) - 1):
        bad.write_bytes(content[:cut])
        with pytest.raises(DataError, match=r"bad\.safetensors"):
            facula.load(bad)
    bad.write_bytes(content + b"x")
    with pytest.raises(DataError, match="belong to nothing"):
        facula.load(bad)
    for wrong in (b'"F32"', b'"shape"', b'"data_offsets"', b"{", b"facula.structure"):
        at = content.index(wrong)
        bad.write_bytes(content[:at] + b"?" * len(wrong) + content[at + len(wrong):])
        if wrong != b"facula.structure":
            with pytest.raises(DataError, match=r"bad\.safetensors"):
                facula.load(bad)
    bad.write_bytes(b"hello, this is no tensor file at all")
    with pytest.raises(DataError, match=r"bad\.safetensors"):
        facula.load(bad)


def test_random_damage_never_escapes(tmp_path):
    good = tmp_path / "good"
    facula.save({"a": facula.rand(10), "t": (1, [facula.ones(2)])}, good)
    content = bytearray(good.read_bytes())
    rng = np.random.default_rng(0)
    bad = tmp_path / "bad"
    for _ in range(300):
        copy = bytearray(content)
        for at in rng.integers(0, len(copy) - 48, 3):
            copy[at] = rng.integers(256)
        bad.write_bytes(copy)
        try:
            facula.load(bad)
        except DataError as error:
            assert "bad" in str(error)


_KILLED = """
import facula, os, sys
path = sys.argv[1]
size = 4_000_000
print("ready", flush=True)
k = 1
while True:
    facula.save({"x": facula.full((size,), float(k))}, path)
    k += 1
"""


def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path = tmp_path / "x.safetensors"
    facula.save({"x": facula.zeros(4_000_000)}, path)
    root = os.path.dirname(os.path.dirname(facula.__file__))
    for wait in (0.05, 0.12, 0.2):
        process = subprocess.Popen([sys.executable, "-c", _KILLED, str(path)],
                                   stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root})
        assert process.stdout.readline()
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        x = facula.load(path)["x"]
        assert x.shape == (4_000_000,) and x.min().item() == x.max().item()


# ---------------------------------------------------------------- PyTorch's files

def test_reads_pytorch_files(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "model.pt"
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    base = torch.arange(12.0)
    obj = {"state": model.state_dict(), "epoch": 3, "views": [base, base[2:8], base.view(3, 4).t()],
           "half": torch.ones(2).half(), "bf": torch.ones(3).bfloat16(), "c": torch.ones(2) * 1j,
           "shape": torch.Size([1, 2]),
           "dtype": torch.float64, "empty": torch.zeros(0, 3), "set": {1}, "u16":
           torch.tensor([65535], dtype=torch.uint16), "bytes": b"\xff\x00"}
    torch.save(obj, path)
    back = facula.load(path)
    for name, t in obj["state"].items():
        np.testing.assert_array_equal(back["state"][name].numpy(), t.numpy())
    for mine, theirs in zip(back["views"], obj["views"]):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    back["views"][0][3] = 100
    assert back["views"][1][1].item() == 100
    assert back["dtype"] is facula.float64 and back["shape"] == (1, 2) and back["epoch"] == 3
    assert back["bf"].dtype is facula.bfloat16 and back["c"].tolist() == [1j, 1j]
    assert back["u16"].item() == 65535 and back["bytes"] == b"\xff\x00"
    content = path.read_bytes()
    for cut in (10, len(content) // 2, len(content) - 10):
        path.write_bytes(content[:cut])
        with pytest.raises(DataError, match=r"model\.pt"):
            facula.load(path)
    torch.save(model, path)
    with pytest.raises(DataError, match=r"torch\.nn\.modules"):
        facula.load(path)


def test_reads_the_older_format(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "old.pt"
    base = torch.arange(12.0)
    big = torch.arange(5000.0).reshape(50, 100)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    obj = {"model": net.state_dict(),
           "views": [base, base[2:8], base.view(3, 4).t()], "big": [big, big[3]], "n": [3, "x"],
           "half": torch.ones(2).half(), "c": torch.ones(2) * 1j, "empty": torch.zeros(0, 3),
           "p": torch.nn.Parameter(torch.ones(2)), "bool": torch.tensor([True, False])}
    torch.save(obj, path, _use_new_zipfile_serialization=False)
    assert path.read_bytes()[:2] == b"\x80\x02"
    back = facula.load(path)
    for name, t in obj["model"].items():
        np.testing.assert_array_equal(back["model"][name].numpy(), t.numpy())
    for mine, theirs in zip((*back["views"], *back["big"]), (*obj["views"], *obj["big"])):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    back["views"][0][3] = 100
    back["big"][0][3, 4] = -1
    assert back["views"][1][1].item() == 100 and back["big"][1][4].item() == -1
    assert back["n"] == [3, "x"] and back["half"].dtype is facula.float16
    assert back["c"].tolist() == [1j, 1j] and back["empty"].shape == (0, 3)
    assert type(back["p"]) is facula.nn.Parameter and back["bool"].tolist() == [True, False]
    with open(path, "rb") as file:
        assert facula.load(file)["n"] == [3, "x"]
    content = path.read_bytes()
    for cut in (1, 2, 10, 50, len(content) // 3, len(content) - 20000, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(DataError, match=r"old\.pt"):
            facula.load(path)
    rng = np.random.default_rng(0)
    for _ in range(200):
        copy = bytearray(content)
        for at in rng.integers(0, 1500, 3):
            copy[at] = rng.integers(256)
        path.write_bytes(copy)
        try:
            facula.load(path)
        except DataError as error:
            assert "old.pt" in str(error)
    torch.save(torch.nn.Linear(2, 2), path, _use_new_zipfile_serialization=False)
    with pytest.raises(DataError, match=r"torch\.nn\.modules"):
        facula.load(path)


def test_parameters_come_back_as_parameters(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "p"
    torch.save([torch.nn.Parameter(torch.ones(2))], path)
    (p,) = facula.load(path)
    assert type(p) is facula.nn.Parameter and p.requires_grad
    facula.save({"p": p}, path)
    assert type(facula.load(path)["p"]) is facula.nn.Parameter


class _Evil:
    def __init__(self, fn, *args):
        self.call = fn, args

    def __reduce__(self):
        return self.call


def _archive(path, obj):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(obj, 2))
        archive.writestr("archive/version", "3\n")


@pytest.mark.parametrize("fn, args, name", [
    (os.system, ("touch {}",), "system"), (eval, ("open('{}', 'w')",), "eval"),
    (getattr, ("x", "upper"), "getattr"), (np.zeros, (3,), "numpy")])
def test_malicious_pickles_run_nothing(tmp_path, fn, args, name):
    mark, path = tmp_path / "ran", tmp_path / "evil.pt"
    args = tuple(a.format(mark) if isinstance(a, str) else a for a in args)
    try:
        _archive(path, {"weights": _Evil(fn, *args)})
    except TypeError:
        pytest.skip("cannot be pickled at all")
    with pytest.raises(pickle.UnpicklingError, match=name):
        facula.load(path)
    assert not mark.exists()
    path.write_bytes(pickle.dumps(_Evil(fn, *args), 2))
    with pytest.raises(DataError, match=r"evil\.pt"):
        facula.load(path)
    assert not mark.exists()
    # behind the magic number of PyTorch's older format
    head = [0x1950a86a20f9469cfc6c, 1001, {"little_endian": True}]
    for k in range(4):
        parts = [*head[:k], _Evil(fn, *args), *head[k:]]
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in (*parts, [])))
        with pytest.raises(DataError, match=r"evil\.pt"):
            facula.load(path)
        assert not mark.exists()


def test_the_older_format_takes_no_more_memory_than_the_file_has(tmp_path):
    path = tmp_path / "bomb.pt"
    pid = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n%sX\x03\x00\x00\x00cpuK\x64NtQ"
    asked = b"".join(pid % (b"X\x01\x00\x00\x00" + bytes([97 + k])) + b"0" for k in range(20))
    head = b"".join(pickle.dumps(v, 2) for v in (0x1950a86a20f9469cfc6c, 1001, {}))
    path.write_bytes(head + b"\x80\x02" + asked + b"N." + pickle.dumps([], 2))
    with pytest.raises(DataError, match="truncated: the storages"):
        facula.load(path)


def test_pickles_cannot_change_the_reader(tmp_path):
    path = tmp_path / "evil.pt"
    program = (b"\x80\x02ctorch._utils\n_rebuild_parameter\n"
               b"N}X\x03\x00\x00\x00_fnK\x01s\x86b.")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
    with pytest.raises(DataError, match=r"evil\.pt"):
        facula.load(path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder.*models"):
        facula.save({"a": facula.ones(1)}, tmp_path / "models" / "a.safetensors")
