"""Whole modules in files: written by pickle, and read for those who say that they trust them."""

import io
import json
import os
import pickle
import subprocess
import sys

import pytest

import facula
from facula import nn, optim
from facula.errors import DataError


class Ran:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def network():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    net.train()(facula.randn(5, 3))
    return net.eval()


def test_round_trip(tmp_path):
    net, x, path = network(), facula.randn(2, 3), tmp_path / "net.pt"
    facula.save(net, path)
    for file in (path, str(path), io.BytesIO(path.read_bytes())):
        twin = facula.load(file, weights_only=False, map_location="cpu")
        assert type(twin) is nn.Sequential and not twin.training
        assert facula.equal(twin(x), net(x))
    assert facula.equal(facula.load(path, weights_only=False, mmap=False)(x), net(x))
    assert os.listdir(tmp_path) == ["net.pt"]


def test_in_containers_with_an_optimiser_and_one_weight_twice(tmp_path):
    net = nn.Linear(3, 3, bias=False)
    net.again = net.weight
    opt = optim.Adam(net.parameters())
    file = io.BytesIO()
    facula.save({"net": net, "opt": opt, "epoch": 3}, file, pickle_protocol=2)
    file.seek(0)
    back = facula.load(file, weights_only=False)
    assert back["epoch"] == 3 and back["net"].again is back["net"].weight
    assert back["opt"].param_groups[0]["params"][0] is back["net"].weight
    back["net"](facula.ones(1, 3)).sum().backward()
    back["opt"].step()
    assert not facula.equal(back["net"].weight, net.weight)


def test_in_another_process(tmp_path):
    net, x, path = network(), facula.ones(1, 3), tmp_path / "net.pt"
    facula.save(net, path)
    program = ("import sys, facula\n"
               "net = facula.load(sys.argv[1], weights_only=False)\n"
               "print(net(facula.ones(1, 3)).tolist())\n"
               "try:\n    facula.load(sys.argv[1])\n"
               "except facula.errors.DataError as error:\n    print(error)\n")
    out = subprocess.run([sys.executable, "-c", program, str(path)], check=True, text=True,
                         capture_output=True).stdout.splitlines()
    assert json.loads(out[0])[0] == pytest.approx(net(x).tolist()[0], rel=1e-5)
    assert "weights_only=False" in out[1]


@pytest.mark.parametrize("asked", [{}, {"weights_only": True}, {"weights_only": None}])
def test_it_is_refused_unless_asked_for(tmp_path, asked):
    path, mark = tmp_path / "net.pt", tmp_path / "ran"
    facula.save({"net": Ran(mark)}, path)
    for file in (path, io.BytesIO(path.read_bytes())):
        with pytest.raises(pickle.UnpicklingError, match=r"run any code.*weights_only=False"):
            facula.load(file, **asked)
    with pytest.raises(DataError, match=r"net\.pt"):
        facula.load(path, **asked)
    assert not mark.exists()
    facula.load(path, weights_only=False)
    assert mark.exists()


def test_other_pickles_are_refused_all_the_same(tmp_path):
    path, mark = tmp_path / "evil.pt", tmp_path / "ran"
    path.write_bytes(pickle.dumps(Ran(mark), 2))
    with pytest.raises(DataError, match="plain pickle"):
        facula.load(path, weights_only=False)
    assert not mark.exists()


def test_data_are_data_as_before(tmp_path):
    path = tmp_path / "net.safetensors"
    facula.save(network().state_dict(), path)
    assert b"pickle" not in path.read_bytes()
    for asked in (True, False, None):
        assert facula.load(path, weights_only=asked).keys() == network().state_dict().keys()


def test_damage_is_named(tmp_path):
    path = tmp_path / "net.pt"
    facula.save(network(), path)
    whole = path.read_bytes()
    for end in (8, 13, 14, 15, 100, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"net\.pt"):
            facula.load(path, weights_only=False)
    path.write_bytes(whole.replace(b"BatchNorm1d", b"BatchNorm9d"))
    with pytest.raises(DataError, match=r"BatchNorm9d.*under the same name"):
        facula.load(path, weights_only=False)


def test_what_cannot_be_pickled_is_named_and_the_old_file_stays(tmp_path):
    net, path = network(), tmp_path / "net.pt"
    facula.save(net, path)
    before = path.read_bytes()
    net.act = lambda x: x
    with pytest.raises(TypeError, match=r"Sequential at 'net'.*nor can all of it be pickled"):
        facula.save({"net": net}, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["net.pt"]
    with pytest.raises(TypeError, match="pickle_module"):
        facula.save(net, path, pickle)
    with pytest.raises(TypeError, match="pickle_module"):
        facula.load(path, pickle_module=pickle, weights_only=False)
