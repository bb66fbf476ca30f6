"""`facula.hub`: files by address, entry points of a folder."""

import hashlib

import pytest

import facula
from facula import hub


@pytest.fixture
def served(tmp_path):
    """A state dictionary as a file, by its address, and its SHA-256."""
    path = tmp_path / "source" / "net.safetensors"
    path.parent.mkdir()
    facula.save({"w": facula.arange(3.0)}, path)
    return path.as_uri(), hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_state_dict_is_fetched_once(served, tmp_path, monkeypatch):
    url, _ = served
    state = hub.load_state_dict_from_url(url, model_dir=tmp_path / "here", progress=False)
    assert state["w"].tolist() == [0, 1, 2]
    (tmp_path / "source" / "net.safetensors").unlink()
    assert hub.load_state_dict_from_url(url, model_dir=tmp_path / "here")["w"].shape == (3,)


def test_the_checksum_in_a_name(served, tmp_path):
    url, digest = served
    hub.load_state_dict_from_url(url, str(tmp_path), check_hash=True,
                                 file_name=f"net-{digest[:8]}.pt")
    with pytest.raises(RuntimeError, match="invalid hash"):
        hub.load_state_dict_from_url(url, str(tmp_path), check_hash=True,
                                     file_name="net-00000000.pt")
    assert not (tmp_path / "net-00000000.pt").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"net-{digest[:8]}.pt", "source"]


def test_the_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert hub.get_dir() == str(tmp_path / "hub")
    monkeypatch.delenv("TORCH_HOME")
    assert hub.get_dir().endswith("facula/hub")
    hub.set_dir(tmp_path / "own")
    assert hub.get_dir() == str(tmp_path / "own")


def test_entry_points(tmp_path):
    (tmp_path / "hubconf.py").write_text(
        "def net(size):\n    'a net'\n    return [size]\n\ndef _hidden():\n    pass\n")
    folder = str(tmp_path)
    assert hub.list(folder) == ["net"] and hub.help(folder, "net") == "a net"
    assert hub.load(folder, "net", 3, source="local") == [3]
    with pytest.raises(RuntimeError, match="Cannot find callable _hidden"):
        hub.load(folder, "_hidden", source="local")
    with pytest.raises(NotImplementedError, match="clone"):
        hub.load("pytorch/vision", "resnet18")
    with pytest.raises(FileNotFoundError, match="hubconf"):
        hub.list(str(tmp_path / "none"))
