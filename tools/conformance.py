"""Judge every operation that facula declares by PyTorch's own test database.

    python tools/conformance.py HARNESS [OPTIONS FOR THE HARNESS]

HARNESS is the conformance script, which needs PyTorch.  What is judged is what the registry
declares; an operation that may differ is a row of the table "Operations" in docs/differences.md,
with its reason.  Fails if any other one does not pass, and if a row there passes after all.
"""

from __future__ import annotations

import csv
import importlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def declared() -> list[str]:
    """The names of the registry's operations as the database has them."""
    import facula  # noqa: F401
    importlib.import_module("facula.nn.functional")
    from facula.ops.define import OPS
    return sorted({re.sub(r"^functional\.", "nn.functional.", name) for name in OPS})


def excused() -> dict[str, str]:
    """Operation and reason, from docs/differences.md."""
    text = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
    section = re.search(r"^## Operations$(.*?)(?=^## |\Z)", text, re.M | re.S)
    rows = re.findall(r"^\| `([\w.]+)` \| (.+?) \|$", section[1] if section else "", re.M)
    return dict(rows)


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    names, excuses = declared(), excused()
    with tempfile.TemporaryDirectory() as folder:
        listed, table = Path(folder, "names"), Path(folder, "rows.tsv")
        listed.write_text("\n".join(names))
        run = subprocess.run(
            [sys.executable, sys.argv[1], "--foreign", "facula", "--path", str(ROOT),
             "--section", "ops", "--names-file", str(listed), "--tsv", str(table),
             "--failures", *sys.argv[2:]], cwd=ROOT, env=None, check=False)
        if not table.exists():
            print(f"the harness ended with status {run.returncode} and no table")
            return 1
        with table.open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    bad = {row["name"] for row in rows if row["status"] not in ("pass", "skip")}
    good = {row["name"] for row in rows} - bad
    unexcused = sorted(bad - excuses.keys())
    needless = sorted(good & excuses.keys())
    print(f"{len(rows)} operations judged, {len(good)} pass, {len(bad)} do not "
          f"({len(bad & excuses.keys())} of them with a reason)")
    for name in unexcused:
        print(f"does not pass, and docs/differences.md has no reason: {name}")
    for name in needless:
        print(f"passes, and docs/differences.md says it does not: {name}")
    return 1 if unexcused or needless or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
