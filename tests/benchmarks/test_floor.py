"""Floors: what they are made of, and how they are shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from facula import config

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

floor = pytest.importorskip("floor")
report = pytest.importorskip("report")

MADE = {"seconds": 2e-3, "arithmetic": 2e-3, "memory": 1e-4, "flops": 4.58e9,
        "bfloat16 flops": 0.0, "flops spared": 0.0, "left": 2e-3, "read": 1.5e6, "written": 5e5,
        "GFLOP/s": 2290.0, "bfloat16 GFLOP/s": None, "GB/s": 20.0, "kernels": 2.5e-3}
PROFILE = {"profile": [{"kernel": "matmul, add", "calls": 2.0, "share": 0.75, "seconds": 3e-3,
                        "GFLOP/s": 123.4, "GB/s": 1.5, "roof": 0.625}],
           "other kernels": 3, "share of others": 0.25}

SCRIPT = '''
import facula
from harness import Benchmark, Contender

class Product:
    def __init__(self, options):
        facula.set_num_threads(options["threads"])
        self.a, self.b = facula.rand(64, 96), facula.rand(96, 128)
    def run(self, n):
        for _ in range(n):
            (self.a @ self.b)._peek()

def product(options): return Product(options)

if __name__ == "__main__":
    b = Benchmark(__file__, "Multiplying", "One product.")
    two = [Contender("facula", "product"), Contender("facula again", "product")]
    b.compare(two, rounds=1, prefix="both", floors=["facula"])
    b.compare(two, rounds=1, prefix="each", floors=["facula", "facula again"])
    b.finish()
'''


def test_a_floor_in_words():
    assert floor.sentence(MADE) == (
        "2 ms: 4.58 GFLOP at 2290 GFLOP/s take 2 ms; 2.00 MB in and out at 20 GB/s take 100 us; "
        "the least times of its kernels add up to 2.5 ms")
    short = {**MADE, "bfloat16 flops": 4e9, "bfloat16 GFLOP/s": 4000.0, "flops spared": 1e9,
             "left": 1.5e-3}
    assert floor.sentence(short) == (
        "2 ms: 580 MFLOP at 2290 GFLOP/s and 4.00 GFLOP at 4000 GFLOP/s (bfloat16) take 2 ms; "
        "2.00 MB in and out at 20 GB/s take 100 us; minimal filtering leaves 3.58 GFLOP, and a "
        "floor of 1.5 ms; the least times of its kernels add up to 2.5 ms")
    assert "no products; 2.00 MB" in floor.sentence({**MADE, "flops": 0.0})
    assert floor.share(MADE, 4e-3) == 0.5


@pytest.mark.parametrize("x, text", [(0.0, "0 B"), (999.4, "999 B"), (999.6, "1.00 kB"),
                                     (12345.0, "12.3 kB"), (1e9, "1.00 GB"), (5e13, "50.0 TB")])
def test_sizes(x, text):
    assert floor._size(x, "B") == text


def test_a_run_without_compiled_programs_has_no_floor():
    class Nothing:
        def run(self, n):
            pass

    with pytest.raises(ValueError, match="no compiled program"):
        floor.measure(Nothing())


def test_a_product_from_beginning_to_end(tmp_path):
    path = tmp_path / "multiplying.py"
    path.write_text(f"import sys\nsys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n{SCRIPT}")
    done = subprocess.run([sys.executable, str(path), "--quick", "--threads", "1", "--out",
                           str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "multiplying.json").read_text())
    assert [(f["group"], f["contender"]) for f in found["floors"]] == [
        ("both", "facula"), ("each", "facula"), ("each", "facula again")]
    assert [set(f["shares"]) for f in found["floors"]] == [
        {"facula", "facula again"}, {"facula"}, {"facula again"}]
    for f in found["floors"]:
        assert f["flops"] == 2 * 64 * 96 * 128 and f["flops spared"] == 0
        assert f["read"] == 4 * (64 * 96 + 96 * 128) and f["written"] == 4 * 64 * 128
        assert f["seconds"] == max(f["arithmetic"], f["memory"]) > 0
        assert "matmul" in f["profile"][0]["kernel"]
        assert sum(k["share"] for k in f["profile"]) + f["share of others"] == pytest.approx(1)
    assert "floor of facula: " in done.stdout and "share of the floor" in done.stdout
    text = report.page([found], {})
    assert text.count("*the floor of facula*") == 2 and "| the longest kernels of facula |" in text


def test_measuring_leaves_no_watcher():
    import facula
    from facula.runtime import watch
    x = facula.rand(8, 8)

    class Sum:
        def run(self, n):
            for _ in range(n):
                (x + 1).sum().item()

    with config.override(INTERPRET=False):
        found = floor.measure(Sum(), quick=True)
    assert watch.watcher is None and found["flops"] == 0 and found["seconds"] == found["memory"]
