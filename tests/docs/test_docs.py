"""The documentation runs, its links lead somewhere, and the reference is what the source says.

Each page runs in a process of its own: what it registers must not be seen by other tests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "tutorial.md",
         *sorted((ROOT / "docs" / "guide").glob("*.md"))]
EVERY_PAGE = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"),
                     ROOT / "benchmarks" / "README.md", ROOT / "examples" / "README.md"})


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _run(code: str, folder: Path, *args: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    done = subprocess.run([sys.executable, *(["-c", code] if code else []), *args], cwd=folder,
                          env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def _program(path: Path) -> str:
    """The page's Python blocks as one program, at the lines where they stand in the page."""
    lines = path.read_text(encoding="utf-8").splitlines()
    out, inside = [], False
    for line in lines:
        if line.startswith("```"):
            inside = line == "```python"
            out.append("")
        else:
            out.append(line if inside else "")
    source = "\n".join(out)
    return f"exec(compile({source!r}, {_name(path)!r}, 'exec'), {{'__name__': '__page__'}})"


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_page_runs(path, tmp_path):
    _run(_program(path), tmp_path)


def test_seed_2_4_learns(tmp_path):
    code = ("import runpy, sys\n"
            f"program = runpy.run_path({str(ROOT / 'examples' / 'seed_2_4.py')!r})\n"
            "first, last = program['main'](30)\n"
            "assert last < 0.2 * first, (first, last)\n")
    _run(code, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name, least", [("seed_4.py", 88.0), ("mnist.py", 93.0)])
def test_example_learns_in_one_epoch(name, least, tmp_path):
    out = _run("", tmp_path, str(ROOT / "examples" / name), "1")
    accuracy = float(re.findall(r"test accuracy ([\d.]+)%", out)[-1])
    assert accuracy > least, out


@pytest.mark.parametrize("path", EVERY_PAGE, ids=_name)
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (path.parent / target).exists(), f"{_name(path)} links to {target}"


def test_reference_is_up_to_date():
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "make_reference.py"), "--check"],
                          capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_guide_is_in_its_list():
    text = (ROOT / "docs" / "guide" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs" / "guide").glob("*.md"):
        assert path.name == "README.md" or f"]({path.name})" in text, path.name


def test_no_page_has_two_sides_of_a_merge():
    for path in EVERY_PAGE:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^(?:<{7}|={7}$|>{7})", text, re.M), _name(path)


def test_no_page_names_a_place_of_one_machine():
    for path in EVERY_PAGE:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"/(?:root|home|work)/", text), _name(path)
