"""The benchmarks' own machinery: processes, turns, claims, the page."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

harness = pytest.importorskip("harness")
report = pytest.importorskip("report")

SCRIPT = '''
import time
from harness import Benchmark, Contender, Missing

class Sleep:
    def __init__(self, seconds):
        self.seconds, self.facts = seconds, {"sleeps": seconds}
    def run(self, n):
        for _ in range(n):
            time.sleep(self.seconds)
    def twice(self, x):
        return 2 * x

def short(options): return Sleep(0.001)
def long(options): return Sleep(0.003)
def absent(options): raise Missing("it is away")
def uninstalled(options): import a_module_that_is_not_there
def wrong(options): raise ValueError("all wrong")

if __name__ == "__main__":
    b = Benchmark(__file__, "Sleeping", "One sleep.")
    rows = b.compare([Contender("facula", "short"), Contender("long", "long"),
                      Contender("absent", "absent"), Contender("not there", "uninstalled"),
                      Contender("wrong", "wrong")], rounds=3, seconds=0.01,
                     check=lambda label, worker: worker.call("twice", 0.25), per="sleep")
    b.claim("ratio", rows["long"].median / rows["facula"].median, ">=", 1.2, "x")
    b.claim("never", 3.0, "<=", 2.0)
    b.finish()
'''


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "sleeping.py"
    path.write_text("import sys\nsys.path.insert(0, "
                    f"{str(ROOT / 'benchmarks')!r})\n{SCRIPT}")
    return path


def test_a_benchmark_from_beginning_to_end(script, tmp_path):
    done = subprocess.run([sys.executable, str(script), "--out", str(tmp_path)],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "sleeping.json").read_text())
    assert [row["contender"] for row in found["rows"]] == ["facula", "long"]
    ours, theirs = found["rows"]
    assert ours["error"] == 0.5 and ours["rounds"] == 3 and ours["ratio"] == 1.0
    assert theirs["ratio"] > 1.2 and theirs["facts"]["sleeps"] == 0.003
    assert [c["met"] for c in found["claims"]] == [True, False]
    assert found["missing"]["absent"] == "it is away"
    assert "a_module_that_is_not_there" in found["missing"]["not there"]
    assert found["missing"]["wrong"] == "failed: ValueError: all wrong"
    assert found["command"] == "python benchmarks/sleeping.py"
    text = report.page([found], {"other": "not run"})
    for part in ("**missed**", "it is away", "python benchmarks/sleeping.py", "`other`"):
        assert part in text


def test_a_process_that_dies_is_an_error(script):
    worker = harness.Worker(str(script), "short", {}, 1)
    try:
        assert worker.call("twice", 4) == 8
        worker.process.kill()
        with pytest.raises(harness.Failed):
            worker.call("twice", 4)
    finally:
        worker.close()


def test_what_raises_is_told(script):
    worker = harness.Worker(str(script), "short", {}, 1)
    try:
        with pytest.raises(harness.Failed, match="no_such"):
            worker.call("no_such")
        assert worker.call("twice", 1) == 2
    finally:
        worker.close()


def test_the_plain_loop_is_held_against_the_compiled_one_in_long_steps(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x.py"])
    b = harness.Benchmark("x.py", "X", "Nothing.")

    def rows(**seconds):
        return {label: harness.Row(label, [s]) for label, s in seconds.items()}

    both = {"facula": 2.1e-3, "facula.compile": 2e-3}
    b.claim_loop(rows(**both), "a")
    b.claim_loop(rows(**{**both, "facula": 2.3e-3}), "b")
    assert [(c.what, c.met) for c in b.claims] == [
        ("a: the plain loop, in steps of facula.compile", True),
        ("b: the plain loop, in steps of facula.compile", False)]
    b.claim_loop(rows(**{"facula": 9e-4, "facula.compile": 8e-4}), "short")
    b.claim_loop(rows(facula=2e-3), "alone")
    assert len(b.claims) == 2
    assert "MISSED" in capsys.readouterr().out


def test_quartiles():
    row = harness.Row("x", [4.0, 1.0, 3.0, 2.0, 5.0])
    assert row.median == 3.0 and row.quartiles() == (2.0, 4.0)
    assert harness.Row("x", [1.0]).quartiles() == (1.0, 1.0)


def test_a_page_of_nothing_says_so():
    assert "Nothing has been measured" in report.page([], {})
