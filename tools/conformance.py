"""Judge facula by PyTorch's own test database, and see that it does not get worse.

    python tools/conformance.py HARNESS [OPTIONS FOR THE HARNESS]

HARNESS is the conformance script, which needs PyTorch.  An operation that may differ is a row of
the table "Operations" in docs/differences.md, with its reason.  Prints the totals and every
operation that neither passes nor has a reason; fails if fewer pass than `FLOORS` says, or if
fewer of the calls that PyTorch refuses are refused with its exception than `SAME_ERRORS` says.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# How many pass of each kind: raised when more do, lowered never without a reason in the change.
FLOORS = {"op": 655, "module": 113, "optim": 14, "sched": 15}

# Of the calls that PyTorch refuses, the share that has to raise the same type of exception.
SAME_ERRORS = 0.99


def excused() -> dict[str, str]:
    """Operation and reason, from docs/differences.md."""
    text = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
    section = re.search(r"^## Operations$(.*?)(?=^## |\Z)", text, re.M | re.S)
    return dict(re.findall(r"^\| `?([\w.]+)`? \| (.+?) \|$", section[1] if section else "", re.M))


def judge(harness: str, options: list[str]) -> list[dict[str, str]]:
    """The harness's rows, one for each operation, module, optimiser and schedule."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "rows.tsv")
        run = subprocess.run([sys.executable, harness, "--foreign", "facula", "--path", str(ROOT),
                              "--tsv", str(table), *options], cwd=ROOT, check=False)
        if not table.exists():
            sys.exit(f"the harness ended with status {run.returncode} and no table")
        with table.open(encoding="utf-8") as file:
            return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def errors_agree(rows: list[dict[str, str]]) -> bool:
    """Print how many calls that PyTorch refuses are refused alike; whether they are enough."""
    rows = [row for row in rows if row["kind"] == "op-error"]
    calls = sum(int(row["fn_total"]) for row in rows)
    if not calls:
        return True
    # In these rows the column of functions counts refusals, that of gradients the same type.
    refused = sum(int(row["fn_ok"]) for row in rows)
    alike = sum(int(row["grad_ok"]) for row in rows)
    for row in rows:
        if row["status"] != "skip" and int(row["grad_ok"]) < int(row["fn_total"]):
            print(f"refused otherwise: {row['name']} {row['variant']}  {row['notes'][:160]}")
    enough = alike >= SAME_ERRORS * calls
    print(f"error inputs: {refused} of {calls} refused, {alike} with the same exception type; at "
          f"least {SAME_ERRORS:.0%} have to{'' if enough else ', and do not'}")
    return enough


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    excuses = excused()
    rows = judge(sys.argv[1], sys.argv[2:])
    passed = Counter(row["kind"] for row in rows if row["status"] == "pass")
    for row in rows:
        if row["status"] not in ("pass", "skip") and row["name"] not in excuses \
                and row["kind"] != "op-error":
            print(f"{row['status']}, and docs/differences.md has no reason: {row['kind']} "
                  f"{row['name']} {row['variant']}  {row['notes'][:120]}")
    worse = {kind: floor for kind, floor in FLOORS.items()
             if any(row["kind"] == kind for row in rows) and passed[kind] < floor}
    for kind, floor in FLOORS.items():
        total = sum(row["kind"] == kind for row in rows)
        if total:
            print(f"{kind}s: {passed[kind]} of {total} pass; at least {floor} have to"
                  f"{', and do not' if kind in worse else ''}")
    alike = errors_agree(rows)
    return 1 if worse or not rows or not alike else 0


if __name__ == "__main__":
    sys.exit(main())
