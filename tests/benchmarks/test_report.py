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
