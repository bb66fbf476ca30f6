"""What report.py makes of the JSON files of benchmarks: the page, and the README's figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MARKS = ("<!-- figures: written by benchmarks/report.py -->\n", "<!-- end of figures -->")


def result(name: str, value: float, met: bool, quick: bool = False) -> dict:
    return {
        "name": name, "title": f"The title of {name}", "means": "One run.", "seconds": 1.0,
        "command": f"python benchmarks/{name}.py", "quick": quick, "threads": 2,
        "started": 1.7e9, "processors kept busy by others": 0.0, "missing": {}, "notes": [],
        "rows": [{"group": "", "contender": "facula", "median": 2.0, "low": 1.0, "high": 3.0,
                  "rounds": 7, "error": None, "ratio": 1.0, "unit": "ms", "facts": {}}],
        "claims": [{"what": f"first of {name}", "value": value, "sense": ">=", "bound": 3.0,
                    "unit": "x", "met": met},
                   {"what": f"second of {name}", "value": 7.0, "sense": "<=", "bound": 9.0,
                    "unit": " s", "met": True}],
        "machine": {"processor": "a processor", "processors": 2, "system": "a system",
                    "python": "3.11"},
        "versions": {"facula": "0"},
    }


def report(folder: Path, *results: dict, text: str = "", status: int = 0) -> tuple[str, str]:
    """The README and the page that come of some results; `text` is the README before."""
    source = folder / "json"
    source.mkdir(exist_ok=True)
    for r in results:
        (source / f"{r['name']}.json").write_text(json.dumps(r))
    readme, page = folder / "README.md", folder / "page.md"
    readme.write_text(text or f"before\n{MARKS[0]}old\n{MARKS[1]}\nafter\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "report.py"), "--from", str(source),
         "--page", str(page), "--readme", str(readme)], capture_output=True, text=True, cwd=folder)
    assert done.returncode == status, done.stdout + done.stderr
    return readme.read_text(), page.read_text() if status == 0 else done.stderr


def test_the_readme_gets_the_first_figure_of_each_whether_met_or_missed(tmp_path):
    both = result("gemm", 2.5, False), result("epoch", 15.7, True)
    readme, page = report(tmp_path, *both, result("loader", 5.0, True))
    assert readme.startswith(f"before\n{MARKS[0]}") and readme.endswith(f"{MARKS[1]}\nafter\n")
    rows = [line for line in readme.splitlines() if line.startswith("| [")]
    assert rows == [
        "| [first of epoch](docs/benchmarks.md#epoch) | 15.7 × | at least 3 × | met |",
        "| [first of gemm](docs/benchmarks.md#gemm) | 2.50 × | at least 3 × | **missed** |"]
    assert "a processor, 2 threads, 2023-11-14" in readme and "old" not in readme
    for r in (*both, result("loader", 5.0, True)):
        assert f'<a id="{r["name"]}"></a>' in page and f"second of {r['name']}" in page
    again, _ = report(tmp_path, text=readme)
    assert again == readme


@pytest.mark.parametrize("results", [[], [result("loader", 5.0, True)],
                                     [result("gemm", 5.0, True), result("gpt", 1.0, False, True)]],
                         ids=["nothing", "no headline", "quick"])
def test_the_readme_stays_when_there_are_no_figures_to_keep(results, tmp_path):
    before = f"{MARKS[0]}old\n{MARKS[1]}\n"
    assert report(tmp_path, *results, text=before)[0] == before


@pytest.mark.parametrize("text", ["nothing\n", MARKS[0], MARKS[1] + "\n" + MARKS[0],
                                  MARKS[0] + MARKS[1] + "\n" + MARKS[0]])
def test_a_readme_without_its_marks_is_an_error_that_names_it(text, tmp_path):
    after, error = report(tmp_path, result("gemm", 5.0, True), text=text, status=1)
    assert after == text and "README.md has to have the lines" in error


def test_the_readme_of_the_project_has_its_marks_and_every_headline_is_a_benchmark():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(text.count(mark) == 1 for mark in MARKS)
    code = ("import report\n"
            "assert set(report.HEADLINES) <= set(report.ORDER), report.HEADLINES\n"
            f"assert report.MARKS == {MARKS!r}\n")
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "benchmarks", check=True)


FLOOR = {"group": "", "contender": "facula", "shares": {"facula": 0.5}, "seconds": 1e-3,
         "arithmetic": 1e-3, "memory": 1e-4, "flops": 1e8, "bfloat16 flops": 0.0,
         "flops spared": 0.0, "left": 1e-3, "read": 1e6, "written": 1e6, "GFLOP/s": 100.0,
         "bfloat16 GFLOP/s": None, "GB/s": 20.0, "kernels": 1.2e-3, "other kernels": 2,
         "share of others": 0.25,
         "profile": [{"kernel": "matmul", "calls": 1.0, "share": 0.75, "seconds": 1.5e-3,
                      "GFLOP/s": 66.7, "GB/s": 1.5, "roof": 0.67}]}


def test_a_floor_stands_below_the_rows_of_its_group_with_its_profile(tmp_path):
    _, page = report(tmp_path, {**result("gemm", 5.0, True), "floors": [FLOOR]})
    assert "| *the floor of facula* | *1.00* | *facula is at 50% of it* | *0.50* |" in page
    assert "The floor of facula is 1 ms: 100 MFLOP at 100 GFLOP/s take 1 ms" in page
    assert "| matmul | 1 | 1.50 | 75.0% | 66.7 | 1.50 | 67% |" in page
    assert "| 2 others | | | 25.0% | | | |" in page


def test_what_was_measured_on_another_day_or_commit_says_so(tmp_path):
    old = {**result("gemm", 5.0, True), "versions": {"facula": "0 at aaaaaaa"}}
    same = {**result("epoch", 5.0, True), "versions": {"facula": "0 at bbbbbbb"}, "started": 1.8e9}
    new = {**result("loader", 5.0, True), "versions": {"facula": "0 at bbbbbbb"}, "started": 1.8e9}
    _, page = report(tmp_path, old, same, new)
    assert "gemm on 2023-11-14 at aaaaaaa." in page and "| day | 2027-01-15 |" in page
    assert "**Measured on 2023-11-14 at aaaaaaa, not on 2027-01-15 at bbbbbbb.**" in page
    assert page.count("**Measured on") == 1
    (tmp_path / "json" / "gemm.json").unlink()
    _, page = report(tmp_path, same, new)
    assert "not on" not in page and "Not all of this" not in page


def test_hundreds_of_operations_are_summed_up(tmp_path):
    rows = []
    for k in range(200):
        name, ratio = f"family: op {k}" + ", gradients" * (k % 2), 0.25 if k < 3 else 4.0
        rows += [{"group": name, "contender": who, "median": median, "low": None, "high": None,
                  "rounds": 5, "error": 1e-7, "ratio": 1.0, "unit": "us", "facts": {}}
                 for who, median in (("facula", 2.0), ("torch", 2.0 * ratio))]
    rows.append({**rows[0], "group": "family: alone"})
    _, page = report(tmp_path, {**result("ops", 5.0, True), "rows": rows})
    assert "| forward | 100 | 3.78 | 4.00 | 2 | 2 | 98 |" in page
    assert "| all | 200 | 3.84 | 4.00 | 3 | 3 | 197 |" in page
    assert "| family: op 1, gradients | 2.00 | 0.50 | 0.25 | 1.0e-07 |" in page
    assert "op 3," not in page and "alone" not in page
