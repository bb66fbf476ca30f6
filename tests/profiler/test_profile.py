"""Profiles: kernels with their times and lines, as a table and as a trace."""

from __future__ import annotations

import json

import numpy as np
import pytest

import facula
from facula import config, nn, optim
from facula.cli import main
from facula.profiler import profile
from facula.runtime import watch

SCRIPT = """
import sys
import facula as torch
x = torch.rand(64, 48)
w = torch.rand(48, 32)
for _ in range(5):
    y = (x @ w).relu()
    s = y.sum().item()
print("sum", s == s, sys.argv[1:])
if len(sys.argv) > 1:
    sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def compiled():
    with config.override(INTERPRET=False):
        yield


def test_a_product_is_found_with_its_work_and_its_line(compiled):
    x, w = facula.rand(64, 48), facula.rand(48, 32)
    x._peek(), w._peek()
    with profile() as p:
        for _ in range(4):
            (x @ w)._peek()
    assert watch.watcher is None
    row = max(p.rows(), key=lambda r: r.work.flops)
    assert row.calls == 4 and row.seconds > 0
    assert row.work.flops == 2 * 64 * 48 * 32
    # packed operands are in memory of their own, so it can be more than the three matrices
    assert row.work.bytes >= 4 * 64 * 32
    assert "matmul" in row.work.operations
    assert all("test_profile.py" in line for line in row.work.lines) and row.work.lines


def test_what_is_fused_counts_once_and_memory_is_what_crosses_the_bus(compiled):
    x = facula.rand(1000)
    x._peek()
    with profile() as p:
        ((x * 2).exp() + 1)._peek()
    row, = p.rows()
    assert row.work.flops == 3 * 1000 and row.work.bytes == 2 * 4 * 1000
    assert row.work.operations == "mul, exp, add"


def training(steps):
    facula.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 300), nn.ReLU(), nn.Linear(300, 10))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    x, y = facula.rand(128, 200), facula.randint(0, 10, (128,))
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return np.concatenate([w.detach().numpy().copy().ravel() for w in model.parameters()])


def test_a_profile_changes_no_result_and_is_gone_after_it(compiled):
    expected = training(6)
    with profile() as p:
        assert np.array_equal(training(6), expected)
    assert p.launches
    count = len(p.launches)
    assert np.array_equal(training(6), expected)
    assert len(p.launches) == count


def test_times_lie_within_their_launch_and_follow_each_other(compiled):
    with profile() as p:
        training(4)
    assert p.launches
    for works, start, end, stamps, _ in p.launches:
        assert len(stamps) == len(works) + 1
        assert start <= stamps[0] and stamps[-1] <= end
        assert list(stamps) == sorted(stamps)


def test_a_launch_that_fails(compiled):
    x, i = facula.rand(4), facula.tensor([7])
    with profile() as p, pytest.raises(IndexError):
        (x * 2)[i]._peek()
    assert p.table()


def test_table_and_trace(compiled, tmp_path):
    with profile() as p:
        training(3)
    text = p.table(row_limit=2)
    assert "GFLOP/s" in text and "test_profile.py" in text and "more kernels" in text
    assert p.roof.gflops > 0.1 and p.roof.gbytes > 0.1
    with pytest.raises(ValueError, match="sort_by='size'"):
        p.table("size")
    path = tmp_path / "trace.json"
    p.export_chrome_trace(str(path))
    events = json.loads(path.read_text())["traceEvents"]
    kernels = [e for e in events if e.get("tid") == 1 and e["ph"] == "X"]
    assert len(kernels) == sum(len(works) for works, *_ in p.launches)
    assert all(e["dur"] >= 0 and {"gflops", "gbytes", "roof", "lines"} <= e["args"].keys()
               for e in kernels)
    assert any(e["name"].startswith("make ") for e in events)


def test_the_interpreter_is_seen():
    x = facula.rand(3, 3)
    with config.override(JIT=False), profile() as p:
        (x - 0.125).sum().item()
    assert p.interpretations and not p.launches
    assert "1 runs of the interpreter" in p.table()


def test_profiles_do_not_nest():
    with profile(), pytest.raises(RuntimeError, match="do not nest"), profile():
        pass
    assert watch.watcher is None


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    with config.override(INTERPRET=False):
        assert main(["profile", "--trace", "t.json", "--rows", "3", "script.py"]) == 0
    out = capsys.readouterr().out
    assert "sum True []" in out and "matmul" in out and "script.py:7" in out
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert main(["profile", "script.py", "3", "--rows"]) == 3
    assert "['3', '--rows']" in capsys.readouterr().out
    assert main(["profile", "nothing.py"]) == 2
    assert "nothing.py" in capsys.readouterr().err
    (tmp_path / "empty.py").write_text("")
    assert main(["profile", "empty.py"]) == 0
    assert "ran nothing" in capsys.readouterr().out


def test_work_of_convolutions(compiled):
    x = facula.rand(2, 3, 9, 9, requires_grad=True)
    w = facula.rand(4, 3, 3, 3, requires_grad=True)
    x._peek(), w._peek()
    with profile() as p:
        nn.functional.conv2d(x, w).sum().backward()
        x.grad._peek(), w.grad._peek()
    taps = 2 * (2 * 4 * 7 * 7) * (3 * 3 * 3)
    found = {op: sum(r.work.flops for r in p.rows() if op in r.work.operations.split(", "))
             for op in ("conv_input", "conv_weight")}
    assert taps <= found["conv_input"] < 1.1 * taps
    assert taps <= found["conv_weight"] < 1.1 * taps
