"""The examples run, and what they say they learn they begin to learn."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = pytest.mark.slow


def run(name: str, folder: Path, monkeypatch: Any, capsys: Any, *args: Any, **kwargs: Any) -> str:
    monkeypatch.chdir(folder)
    runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](*args, **kwargs)
    out: str = capsys.readouterr().out
    return out


@pytest.mark.parametrize("name, most", [("cnn", 1.8), ("resnet", 2.0), ("lstm", 2.25),
                                        ("capsules", 0.7)])
def test_classifiers(name: str, most: float, tmp_path: Path, monkeypatch: Any,
                     capsys: Any) -> None:
    out = run(name, tmp_path, monkeypatch, capsys, 1, limit=1280)
    loss = re.search(r"loss ([\d.]+), test accuracy ([\d.]+)%", out)
    assert loss and float(loss[1]) < most, out


def test_autoencoder(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    pytest.importorskip("PIL")
    out = run("autoencoder", tmp_path, monkeypatch, capsys, 2, limit=1280)
    nats = [float(x) for x in re.findall(r"([\d.]+) nats", out)]
    assert nats[1] < nats[0] and (tmp_path / "vae.png").stat().st_size > 1000


def test_gan(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    pytest.importorskip("PIL")
    out = run("gan", tmp_path, monkeypatch, capsys, 1, limit=256)
    assert "generator" in out and (tmp_path / "gan.png").stat().st_size > 1000


def test_transformer(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / "text.txt").write_text("The cat sat on the mat and the dog sat on the log. " * 40)
    out = run("transformer", tmp_path, monkeypatch, capsys, 60, str(tmp_path / "text.txt"), 20)
    assert float(re.findall(r"loss ([\d.]+)", out)[-1]) < 2.0


def test_echo_state(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    out = run("echo_state", tmp_path, monkeypatch, capsys, 200, train=800, ahead=100)
    assert float(re.findall(r"first 50 steps: ([\d.e+-]+)", out)[0]) < 0.3


def test_addition(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    pytest.importorskip("PIL")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr("sys.argv", [
        "addition.py", "--length", "10", "--hidden", "16", "--batch", "400", "--minutes", "1",
        "--compare", "--others", "adam:1e-3", "--cpu-time"])
    out = run("addition", tmp_path, monkeypatch, capsys)
    assert re.search(r"hf: solved, 0\.\d+ % errors", out), out
    assert re.search(r"adam:1e-3: (not )?solved", out), out
    assert (tmp_path / "addition.png").stat().st_size > 1000
    # More of them, into the same report.
    import json
    monkeypatch.setattr("sys.argv", [
        "addition.py", "--length", "10", "--hidden", "16", "--minutes", "0.005",
        "--only", "sgd:1e-2,adam:3e-3", "--cpu-time"])
    out = run("addition", tmp_path, monkeypatch, capsys)
    assert "hf: solved" in out and "sgd:1e-2: not solved" in out
    with open(tmp_path / "addition.json", encoding="utf-8") as file:
        assert set(json.load(file)["runs"]) == {"hf", "adam:1e-3", "sgd:1e-2", "adam:3e-3"}


def test_deep_autoencoder(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """A small network, all methods, in two pieces that go into one report."""
    import json
    import sys
    pytest.importorskip("PIL")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    program = runpy.run_path(str(EXAMPLES / "deep_autoencoder.py"))
    shared = program["main"].__globals__
    monkeypatch.setitem(shared, "SIZES", (784, 24, 16, 24, 784))
    monkeypatch.setitem(shared, "CODE", 1)
    common = ["deep_autoencoder.py", "--images", "200", "--batch", "50", "--last-batch", "100",
              "--small", "20", "--lbfgs-batch", "100", "--kfac-batch", "50", "--minutes", "0.05"]
    for only in ("hf,kfac", "nesterov,sgd:1e-3,adam,lbfgs"):
        monkeypatch.setattr(sys, "argv", [*common, "--only", only])
        program["main"]()
    report = json.loads((tmp_path / "deep_autoencoder.json").read_text())
    assert sorted(report["runs"]) == ["adam", "hf", "kfac", "lbfgs", "nesterov", "sgd:1e-3"]
    for name, history in report["runs"].items():
        assert history[-1][2] < history[0][2], name
        assert report["settings"][name]["only"]
    assert (tmp_path / "deep_autoencoder_seconds.png").stat().st_size > 1000
    sizes = [program["grown"](50, 200, k / 100) for k in range(0, 120)]
    assert sizes[0] == 50 and sizes[-1] == 200 and sorted(set(sizes)) == [50, 100, 200]
    monkeypatch.setattr(sys, "argv", [*common, "--only", "newton"])
    with pytest.raises(SystemExit, match="unknown method"):
        program["main"]()
