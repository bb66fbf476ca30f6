"""Files can be read in a sitting, and hold what a project's files should."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "facula").rglob("*.py"))
MOST_LINES = 700
MOST_COLUMNS = 100


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_file(path):
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= MOST_LINES, "split it by meaning"
    wide = [n for n, line in enumerate(lines, 1) if len(line) > MOST_COLUMNS]
    assert not wide, f"lines wider than {MOST_COLUMNS} columns: {wide}"
    assert not re.findall(r"\b(?:TODO|FIXME|XXX)\b|raise NotImplementedError(?!\()", text)
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "say what the file is for"


def test_files_of_tests_have_names_of_their_own():
    # pytest imports them by name alone, and would collect nothing at all.
    seen = Counter(p.name for p in (ROOT / "tests").rglob("test_*.py"))
    assert not [name for name, count in seen.items() if count > 1]


def test_version_is_said_once():
    import tomllib

    import facula
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert facula.__version__ == project["version"]


def test_the_package_carries_its_data():
    files = ROOT / "facula" / "vision" / "datasets" / "files"
    names = {p.name for p in files.rglob("*")}
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                 "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        assert names & {name, f"{name}.gz"}, name
    texts = " ".join(p.read_text(encoding="utf-8") for p in files.rglob("*")
                     if p.suffix in (".md", ".txt") or p.name in ("LICENSE", "README"))
    assert "CC BY-SA 3.0" in texts or "by-sa/3.0" in texts
