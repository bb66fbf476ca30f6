"""Every benchmark runs from beginning to end in its quick form, with the peers that are here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"
SHARED = ("harness", "networks", "digits", "sequences", "report", "op_table", "floor")
SCRIPTS = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in SHARED)


def test_the_report_knows_every_script():
    text = (FOLDER / "report.py").read_text()
    table = (FOLDER / "README.md").read_text()
    for name in SCRIPTS:
        assert f'"{name}"' in text
        assert f"`{name}.py`" in table


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_script(name, tmp_path):
    done = subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), "--quick", "--out", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / f"{name}.json").read_text())
    assert result["name"] == name and result["quick"]
    assert result["rows"], "nothing was measured"
    # What another batch size costs PyTorch may be nothing.
    assert all(row["median"] >= 0 and (row["median"] > 0 or row["unit"] == "ms/size")
               for row in result["rows"])
    for label, reason in result["missing"].items():
        assert reason and not reason.startswith("failed"), f"{label}: {reason}"
    assert result["claims"] or result["missing"] or name == "loader"
    assert done.stdout.splitlines()[-1].startswith("RESULT {")
    page = tmp_path / "page.md"
    subprocess.run([sys.executable, str(FOLDER / "report.py"), "--from", str(tmp_path),
                    "--page", str(page)], check=True, capture_output=True, cwd=ROOT)
    text = page.read_text()
    assert f"benchmarks/{name}.py --quick" in text and "no figures" in text
    for claim in result["claims"]:
        assert claim["what"] in text
